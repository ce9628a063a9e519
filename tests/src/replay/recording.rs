//! A recording: a folder with a disk before and after an operation of a real device, and every write in between.
//!
//!   before.img      the whole disk before the emulator started, with holes
//!   write.log       QEMU's log of what reached the disk (blklogwrites)
//!   after.img       the whole disk when the emulator had ended
//!   recording.json  what was done, and what was seen from outside while it was done
//!
//! Two kinds of remarks say what a state of the disk must hold. Marks are in the log itself: the device, built with the
//! feature `faults`, writes a sector that belongs to no partition, without a flush; the text is the id of a row of
//! `runtime::protocol` whose effects come next, or begins with `ack ` when something was just reported. What somebody
//! outside was told is in recording.json, with the number of entries that the log had by then.
//! Does not: read the log.

use std::path::{Path, PathBuf};

use runtime::protocol::{Row, TABLE};
use serde_json::{Value, json};

use crate::tour::{Outcome, fail};

/// What a mark's sector begins with. A text, a line feed and zeros follow.
const MARK: &[u8] = b"SWBMARK ";

/// What was made to fail on purpose, to show that a replay would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Nothing: every state must hold.
    None,
    /// The guest's file systems were mounted without barriers.
    NoBarrier,
    /// Syncs of the device's procedures did nothing.
    NoSync,
    /// Checkpoints did nothing.
    NoCheckpoint,
    /// The sync or the checkpoint of one row did nothing.
    Without(Row),
}

impl Control {
    /// Those that are not about a row.
    const PLAIN: [(Self, &'static str); 4] = [
        (Self::None, "none"),
        (Self::NoBarrier, "nobarrier"),
        (Self::NoSync, "nosync"),
        (Self::NoCheckpoint, "nocheckpoint"),
    ];

    /// Its name, in recordings and as the word that tells a device.
    pub fn word(self) -> String {
        match self {
            Self::Without(row) => format!("skip={}", row.id()),
            plain => Self::PLAIN.iter().find(|(known, _)| *known == plain).map_or("", |(_, word)| word).into(),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word.strip_prefix("skip=") {
            Some(id) => TABLE.iter().find(|step| step.id == id).map(|step| Self::Without(step.row)),
            None => Self::PLAIN.iter().find(|(_, known)| *known == word).map(|(control, _)| *control),
        }
    }
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// Entries of the log when it was read: the text was true before a later one.
    pub entry: u64,
    /// What, as a mark would say it: `ack ` and the rest.
    pub text: String,
}

/// A recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recording {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// The sha256 of the device's binary.
    pub binary: String,
    /// The commit that the binary was built from, with a + where something had been changed since.
    pub commit: String,
    /// The board that it was recorded on.
    pub board: String,
    /// What the device did.
    pub operation: String,
    /// What was made to fail.
    pub control: Control,
    /// The sector of the disk that marks are written to.
    pub mark_sector: u64,
    /// Entries of the log when the operation began: before, the device started and came to rest.
    pub begin: u64,
    /// Entries, from one to before another, in which the next round of the operation was prepared: no state is made there.
    pub asides: Vec<(u64, u64)>,
    /// The committed revision before the operation.
    pub committed: String,
    /// The revisions that were posted, in this order.
    pub revisions: Vec<String>,
    /// What clients were told, in this order.
    pub told: Vec<Told>,
}

impl Recording {
    /// Reads the recording in `folder`.
    pub fn read(folder: &Path) -> Outcome<Self> {
        let file = folder.join("recording.json");
        let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let value: Value = serde_json::from_slice(&text)?;
        match Self::parse(folder, &value) {
            Some(recording) => Ok(recording),
            None => fail(format!("{}: a field is missing or of another type", file.display())),
        }
    }

    fn parse(folder: &Path, value: &Value) -> Option<Self> {
        let text = |key: &str| Some(value[key].as_str()?.to_string());
        let told =
            |told: &Value| Some(Told { entry: told["entry"].as_u64()?, text: told["text"].as_str()?.to_string() });
        Some(Self {
            folder: folder.into(),
            name: text("name")?,
            binary: text("binary")?,
            commit: text("commit")?,
            board: text("board")?,
            operation: text("operation")?,
            control: Control::parse(value["control"].as_str()?)?,
            mark_sector: value["mark_sector"].as_u64()?,
            begin: value["begin"].as_u64()?,
            asides: value["asides"]
                .as_array()?
                .iter()
                .map(|aside| Some((aside[0].as_u64()?, aside[1].as_u64()?)))
                .collect::<Option<_>>()?,
            committed: text("committed")?,
            revisions: value["revisions"]
                .as_array()?
                .iter()
                .map(|rev| Some(rev.as_str()?.into()))
                .collect::<Option<_>>()?,
            told: value["told"].as_array()?.iter().map(told).collect::<Option<_>>()?,
        })
    }

    /// Writes recording.json.
    pub fn write(&self) -> Outcome<()> {
        let told: Vec<Value> = self.told.iter().map(|told| json!({"entry": told.entry, "text": told.text})).collect();
        let value = json!({"name": self.name, "binary": self.binary, "commit": self.commit, "board": self.board, "operation": self.operation,
            "control": self.control.word(), "mark_sector": self.mark_sector, "begin": self.begin,
            "asides": self.asides, "committed": self.committed, "revisions": self.revisions, "told": told});
        Ok(std::fs::write(self.folder.join("recording.json"), format!("{value:#}\n"))?)
    }

    /// Whether an entry belongs to the operation.
    pub fn is_about(&self, entry: usize) -> bool {
        let entry = entry as u64;
        entry >= self.begin && !self.asides.iter().any(|(from, to)| (*from..*to).contains(&entry))
    }

    /// The disk before.
    pub fn before(&self) -> PathBuf {
        self.folder.join("before.img")
    }

    /// What was written.
    pub fn log(&self) -> PathBuf {
        self.folder.join("write.log")
    }

    /// The disk after.
    pub fn after(&self) -> PathBuf {
        self.folder.join("after.img")
    }
}

/// The text of a sector that was written to `mark_sector`.
pub fn mark(sector: &[u8]) -> Option<&str> {
    let text = sector.strip_prefix(MARK)?;
    std::str::from_utf8(text.split(|byte| *byte == b'\n').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = std::env::temp_dir().join(format!("switchback-recording-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let recording = Recording {
            folder: folder.clone(),
            name: "base-without-I7".into(),
            binary: "0".repeat(64),
            commit: "0123abc+".into(),
            board: "qemu-arm64-lab".into(),
            operation: "base".into(),
            control: Control::Without(Row::SyncTrails),
            mark_sector: 2047,
            begin: 7,
            asides: vec![(20, 30)],
            committed: "0".into(),
            revisions: vec!["locals/a".into()],
            told: vec![Told { entry: 9, text: "ack DONE locals/a".into() }],
        };
        recording.write().unwrap();
        assert_eq!(Recording::read(&folder).unwrap(), recording);
        assert_eq!(
            [6, 7, 19, 20, 29, 30].map(|entry| recording.is_about(entry)),
            [false, true, true, false, false, true]
        );
        std::fs::write(folder.join("recording.json"), "{\"name\": \"x\"}").unwrap();
        assert!(Recording::read(&folder).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_was_made_to_fail_has_a_word() {
        for control in Control::PLAIN.map(|(control, _)| control).into_iter().chain([Control::Without(Row::Checkpoint)])
        {
            assert_eq!(Control::parse(&control.word()), Some(control));
        }
        assert_eq!(Control::Without(Row::Checkpoint).word(), "skip=P5");
        assert!(Control::parse("skip=P9").is_none() && Control::parse("lunch").is_none());
    }

    #[test]
    fn a_mark_is_a_line_behind_its_word() {
        let mut sector = [0; 512];
        sector[..20].copy_from_slice(b"SWBMARK ack DONE x/y");
        sector[20] = b'\n';
        assert_eq!(mark(&sector), Some("ack DONE x/y"));
        assert_eq!(mark(&[0; 512]), None);
    }
}
