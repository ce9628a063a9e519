//! Broken storage, for real: the disk of the emulated device is damaged from outside, and what it does then is observed.
//!
//! Reading order: `cases` (what is broken, what must come of it), `damage` (the tools). The emulator, the disk and the report are
//! the tour's.
//! Invariants: each case begins with the kit's factory disk, and fails unless the damage was there: the host's own `e2fsck`
//! finds it, or no file system at all. A device that has storage must be READY with every object that it had; one that has
//! none must answer on its console and refuse with the code of its case.
//! Does not: judge times; damage what the loader needs to reach Linux.

pub mod cases;
pub mod damage;

pub use cases::CASES;

use std::path::Path;

use crate::tour::device::{Device, Kit};
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure};

/// One way of being broken.
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is broken.
    pub about: &'static str,
    /// Whether the device can repair file systems.
    pub repairs: bool,
    /// Breaks the device, which is off, and looks at it.
    pub run: fn(&mut Device) -> Outcome<String>,
}

/// Does all, or only the cases of these names; whether all claims held.
pub fn walk(kit: &Kit, folder: &Path, only: &[String]) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    let unknown = only.iter().find(|name| CASES.iter().all(|case| case.name != name.as_str()));
    ensure(unknown.is_none(), || format!("there is no case {unknown:?}: broken --list"))?;
    let mut report = Report::of("broken storage");
    for case in CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)) {
        let own = folder.join(case.name);
        let image = if case.repairs { kit.image() } else { damage::image_without_e2fsck(kit, &folder.join("plain"))? };
        let mut device = Device::with_disk(kit, &own, &image)?;
        let held = report.step(case.name, |report| {
            let seen = (case.run)(&mut device)?;
            report.held(case.name, &format!("{}: {seen}", case.about));
            Ok(())
        });
        if !held {
            println!("      the kernel's log: {}", device.log().display());
        }
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    Ok(held)
}
