//! Rollback without us: candidates so broken that nothing of ours runs, loaders that cannot count, and owners who write
//! the environment with the usual tools; each time the device comes back to what is committed, and says why.
//!
//! Reading order: `candidates` (what is broken, and what must be seen), `loader` (faults of the medium and of the power
//! while the loader works), `owner` (`fw_setenv` while the device is off), `lab` (the device, and what is observed),
//! `table` (the matrix of all boards). The emulator, the disk and the report are the tour's.
//! Invariants: every case begins and ends with a device that is READY on a whole revision; what counts is the
//! environment on the disk, the status with its code, and how often the loader said that it boots the candidate.
//! Does not: judge times (they are printed); break a device that was not built with the feature `faults`.

pub mod candidates;
pub mod lab;
pub mod loader;
pub mod owner;
pub mod table;

use std::path::Path;

use crate::tour::device::Kit;
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure, fail};
use lab::Lab;
use table::{Row, Seen};

/// What one case does to a device that is READY; what was seen.
pub type Run = fn(&mut Lab) -> Outcome<Seen>;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its column of the matrix, if it is one.
    pub column: Option<&'static str>,
    /// For people.
    pub about: &'static str,
    /// Does it.
    pub run: Run,
}

/// Every case, in the order in which they are run.
pub fn cases() -> impl Iterator<Item = Case> {
    [candidates::CASES, loader::CASES, owner::CASES].into_iter().flatten().copied()
}

/// Runs the cases of these names, or all if none is named, on one device; writes what was seen to `rows`, if given, in
/// place of what was seen of these cases before.
pub fn walk(kit: &Kit, folder: &Path, rows: Option<&Path>, names: &[String]) -> Outcome<bool> {
    let unknown = names.iter().find(|name| !cases().any(|case| case.name == **name));
    ensure(unknown.is_none(), || format!("there is no case `{}`", unknown.map_or("", String::as_str)))?;
    let _ = std::fs::remove_dir_all(folder);
    let wanted: Vec<Case> =
        cases().filter(|case| names.is_empty() || names.iter().any(|name| name == case.name)).collect();
    // First: whatever becomes of this run, nothing older is shown in its place.
    rows.map_or(Ok(()), |file| table::forget(file, kit.board()?.name, &wanted))?;
    let mut lab = Lab::switch_on(kit, folder)?;
    let mut report = Report::of("rollback");
    for case in wanted {
        let held = report.step(case.name, |report| {
            let begun = std::time::Instant::now();
            let ended = (case.run)(&mut lab);
            let seen = ended.as_ref().map_or(Seen::DidNotHold, Seen::clone);
            // At once: a run that is ended has still seen what it saw.
            rows.map_or(Ok(()), |file| table::write(file, &Row::new(&lab, &case, &seen, begun.elapsed())))?;
            report.held(case.name, &format!("{}: {}", case.about, ended?));
            Ok(())
        });
        if !held {
            println!("      the log: {}", lab.device.log().display());
            if let Err(error) = lab.begin_anew(kit, folder) {
                report.step(case.name, |_| fail(format!("and a new device does not come up: {error}")));
                break;
            }
        }
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    Ok(held)
}
