//! Recordings of what a real device writes: every write that reaches its disk during one operation, in the order of QEMU's
//! write log, with the steps of the protocol marked in it. `replay` makes every state of a power cut of them.
//!
//! Reading order: `operations` (what is recorded), `take` (how), `image` (on what), `counts` (what is asserted of it).
//! Invariants: the device is the binary that users get, built with the feature `faults` alone, and is driven by the tools
//! that users get. A recording is there under its name only when it is whole.
//! Does not: replay.

pub mod counts;
pub mod image;
pub mod operations;
pub mod take;

use std::path::{Path, PathBuf};

use runtime::id::ObjectId;
use sha2::{Digest, Sha256};

use crate::replay::recording::{Control, Recording};
use crate::rollback::lab::Lab;
use crate::tour::device::{Device, Kit};
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure};
use image::{Kind, MARK_SECTOR};
use operations::{CASES, Case};
use take::Take;

/// Records the cases of these names, or all that are of the kit's board if none is named, into folders of their names below `out`; works in `folder`.
pub fn walk(kit: &Kit, folder: &Path, out: &Path, names: &[String]) -> Outcome<bool> {
    let unknown = names.iter().find(|name| !CASES.iter().any(|case| case.name == **name));
    ensure(unknown.is_none(), || format!("there is no recording `{}`", unknown.map_or("", String::as_str)))?;
    let taken = kit.board()?.is_taken_over();
    let is_named = |case: &&Case| names.iter().any(|name| name == case.name);
    let other = CASES.iter().filter(is_named).find(|case| case.taken != taken);
    ensure(other.is_none(), || format!("`{}` is not of this kit's board", other.map_or("", |case| case.name)))?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(out)?;
    let binary = binary(&kit.folder.join(BINARY))?;
    let commit = std::fs::read_to_string(kit.folder.join("commit"))?.trim().to_string();
    let mut studio = Studio { kit, binary, commit, folder, out, images: Vec::new() };
    let mut report = Report::of("recording");
    for case in CASES.iter().filter(|case| if names.is_empty() { case.taken == taken } else { is_named(case) }) {
        report.step(case.name, |report| {
            let recording = studio.record(case)?;
            let counts = counts::of(&recording)?;
            report.held(case.name, &counts.to_string());
            counts.hold(case.name)
        });
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    Ok(held)
}

/// The device's binary, in a kit.
const BINARY: &str = "switchback";

/// The sha256 of a binary.
fn binary(file: &Path) -> Outcome<String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(ObjectId(Sha256::digest(bytes).into()).to_string())
}

/// Those of these recordings below `out` that are not there, or are of another binary than the kit's; and why.
pub fn stale(kit: &Path, out: &Path, names: &[String]) -> Outcome<Vec<(String, String)>> {
    let now = binary(&kit.join(BINARY))?;
    let mut all = Vec::new();
    for name in names {
        let folder = out.join(name);
        if !folder.join("recording.json").exists() {
            all.push((name.clone(), "not recorded yet".into()));
            continue;
        }
        match Recording::read(&folder) {
            Ok(recording) if recording.binary == now => {}
            Ok(recording) => all.push((name.clone(), format!("of another binary, built from {}", recording.commit))),
            Err(error) => all.push((name.clone(), error.to_string())),
        }
    }
    Ok(all)
}

/// Where recordings are made.
struct Studio<'a> {
    kit: &'a Kit,
    /// The sha256 of the device's binary.
    binary: String,
    /// What it was built from.
    commit: String,
    folder: &'a Path,
    out: &'a Path,
    /// Settled disks that were made, by kind and what is made to fail.
    images: Vec<(Kind, Control, PathBuf)>,
}

impl Studio<'_> {
    fn record(&mut self, case: &Case) -> Outcome<Recording> {
        let place = self.folder.join(case.name);
        let image = match case.first {
            true => image::make(self.kit, &self.folder.join("first"), case.kind, case.control)?,
            false => self.settled(case.kind, case.control)?,
        };
        if case.behind > 0 {
            let file = std::fs::File::options().write(true).open(&image)?;
            file.set_len(file.metadata()?.len() + (case.behind << 20))?;
        }
        let mut lab = Lab::with(self.kit, Device::with_disk(self.kit, &place, &image)?)?;
        if !case.first {
            (case.prepare)(&mut lab)?;
            settle(&mut lab)?;
        }
        let recording = Recording {
            folder: self.out.join(case.name),
            name: case.name.into(),
            binary: self.binary.clone(),
            commit: self.commit.clone(),
            board: lab.board.name.into(),
            operation: case.operation.into(),
            control: case.control,
            mark_sector: MARK_SECTOR,
            begin: 0,
            asides: Vec::new(),
            committed: String::new(),
            revisions: Vec::new(),
            told: Vec::new(),
        };
        let mut take = Take::begin(&mut lab, recording, case.kind, case.first)?;
        (case.run)(&mut take)?;
        take.end()
    }

    /// The disk of such a device that has started once and was switched off in good order.
    fn settled(&mut self, kind: Kind, control: Control) -> Outcome<PathBuf> {
        if let Some((.., image)) = self.images.iter().find(|(k, c, _)| (*k, *c) == (kind, control)) {
            return Ok(image.clone());
        }
        let folder = self.folder.join(format!("{}-{}", kind.word(), control.word()));
        let factory = image::make(self.kit, &folder, kind, control)?;
        let mut lab = Lab::with(self.kit, Device::with_disk(self.kit, &folder.join("first"), &factory)?)?;
        lab.starts()?;
        settle(&mut lab)?;
        let image = lab.device.disk.image.clone();
        self.images.push((kind, control, image.clone()));
        Ok(image)
    }
}

/// Switches a device off in good order, if it is on: its file systems have no journal to replay.
fn settle(lab: &mut Lab) -> Outcome<()> {
    if !lab.device.is_on() {
        return Ok(());
    }
    let ran = lab.device.control("cmd poweroff")?;
    ensure(ran.code == 0, || format!("pvcontrol cmd poweroff: {}", ran.text.trim()))?;
    lab.device.is_off(60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::recording::Control;

    #[test]
    fn a_recording_of_another_binary_is_made_again() {
        let folder = std::env::temp_dir().join(format!("switchback-stale-{}", std::process::id()));
        let out = folder.join("recordings");
        let names = ["base", "install", "memory", "steady"].map(String::from);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(BINARY), "a binary").unwrap();
        let recording = |name: &str, binary: &str| Recording {
            folder: out.join(name),
            name: name.into(),
            binary: binary.into(),
            commit: "0123abc".into(),
            board: "qemu-arm64-lab".into(),
            operation: name.into(),
            control: Control::None,
            mark_sector: MARK_SECTOR,
            begin: 0,
            asides: Vec::new(),
            committed: "0".into(),
            revisions: Vec::new(),
            told: Vec::new(),
        };
        let same = binary(&folder.join(BINARY)).unwrap();
        for (name, of) in [("base", &*same), ("install", "another")] {
            std::fs::create_dir_all(out.join(name)).unwrap();
            recording(name, of).write().unwrap();
        }
        // As it was written before recordings said what they are of.
        std::fs::create_dir_all(out.join("steady")).unwrap();
        std::fs::write(out.join("steady/recording.json"), "{\"name\": \"steady\"}").unwrap();
        let found = |names: &[String]| {
            stale(&folder, &out, names).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(found(&names), ["install", "memory", "steady"]);
        std::fs::write(folder.join(BINARY), "built anew").unwrap();
        assert_eq!(found(&names), names);
        assert!(stale(&out, &out, &names).is_err(), "a kit without a binary");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
