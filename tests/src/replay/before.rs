//! The disk before a recording: what a device had promised when it was switched on, and what it had got from the factory.
//!
//! Invariants: read from the file systems as they lie there, by debugfs, before anything is replayed; so no state that is
//! looked at can say what it is held to.
//! Does not: replay a file system's journal. The files that are read are where they are since the disk was made.

use std::path::Path;
use std::process::{Command, Stdio};

use boards::{Board, Env};
use runtime::{
    id::RevName,
    journal::{self, Record},
};

use simulator::frozen::Frozen;

use super::layers::Range;
use super::original::imported;
use crate::tour::{Outcome, ensure, fail};

/// What the disk before says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    /// Whether the factory revision is there.
    pub factory: bool,
    /// The journal's record.
    pub record: Option<Record>,
    /// The candidate that is armed, on a device that the original left.
    pub candidate: Option<RevName>,
}

impl Before {
    /// Of a disk's image, and where its boot and its storage partition are.
    pub fn read(board: &Board, image: &Path, boot: Range, storage: Range) -> Outcome<Self> {
        let factory = asked(image, storage, &format!("stat /trails/{}", RevName::factory()))?;
        let Env::UbootTxt { file, .. } = board.env else {
            let record = dumped(image, boot, "/journal")?.and_then(|bytes| newest(&bytes));
            return Ok(Self { factory, record, candidate: None });
        };
        let record = dumped(image, storage, "/boot/journal")?.and_then(|bytes| newest(&bytes));
        let text = dumped(image, storage, &format!("/boot/{file}"))?.unwrap_or_default();
        let candidate = imported(&text, "pv_try").and_then(|name| RevName::parse(&name).ok());
        Ok(Self { factory, record, candidate })
    }
}

/// A file of a partition, if it is there.
fn dumped(image: &Path, part: Range, file: &str) -> Outcome<Option<Vec<u8>>> {
    let out = std::env::temp_dir().join(format!("switchback-before-{}", std::process::id()));
    let _ = std::fs::remove_file(&out);
    let there = asked(image, part, &format!("dump {file} {}", out.display()))?;
    let bytes = there.then(|| std::fs::read(&out)).transpose()?;
    let _ = std::fs::remove_file(&out);
    Ok(bytes)
}

/// Has debugfs do this; whether what is asked for is there.
fn asked(image: &Path, part: Range, request: &str) -> Outcome<bool> {
    let device = format!("{}?offset={}", image.display(), part.start);
    let ran = Command::new("debugfs").args(["-R", request, &device]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure(ran.status.success(), || format!("debugfs {request}: {}", said.trim()))?;
    // Its first line is its version.
    match said.lines().skip(1).find(|line| !line.trim().is_empty()) {
        None => Ok(true),
        Some(line) if line.contains("File not found") => Ok(false),
        Some(line) => fail(format!("debugfs {request}: {line}")),
    }
}

/// The newest valid record of a journal's bytes.
pub fn newest(bytes: &[u8]) -> Option<Record> {
    journal::load(&mut Frozen(bytes)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_counts() {
        let record = |name: &str| Record::none(RevName::parse(name).unwrap());
        let slots = |one, other| [journal::encode(one, &record("1")), journal::encode(other, &record("2"))].concat();
        assert_eq!(newest(&slots(1, 2)), Some(record("2")));
        assert_eq!(newest(&slots(8, 2)), Some(record("1")));
        let mut torn = slots(1, 2);
        torn[600] ^= 1;
        assert_eq!(newest(&torn), Some(record("1")));
        assert_eq!(newest(&[0; 1024]), None);
    }
}
