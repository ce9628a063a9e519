//! What was reported when, and which rows of the protocol's table were reached when: both from a recording's marks and from
//! what was seen from outside.
//!
//! Invariants: the disk before has promised something already: that stands at entry 0. A report holds in every state whose epoch ends after its entry. Of several about the same thing the last
//! one holds, or one that comes later in the recording: that may have been on its way. A mark that means nothing is an
//! error.
//! Does not: look at a disk.

use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal::Phase,
    protocol::{self, Row},
};

use super::before::Before;
use super::log::{Entry, Kind, Log, SECTOR};
use super::recording::{Recording, mark};
use crate::tour::{Outcome, fail};

/// What was reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// `DONE REV`: the revision is committed.
    Done(RevName),
    /// `ERROR REV [CODE]`, `WONTGO REV [CODE]`: the update to it ended without it, and why.
    Failed(RevName, Option<Code>),
    /// `staged REV`: it is on the device, whole.
    Staged(RevName),
    /// `env REV CANDIDATE`: this decision is in force; `None` for no candidate.
    Decision(RevName, Option<RevName>),
    /// `memory SHA256`, `device-meta SHA256` and the like: a file of the storage partition holds this.
    File(&'static str, ObjectId),
    /// `message REV SHA256`: the commit message of a revision is this.
    Message(RevName, ObjectId),
    /// A word that says nothing about what is on the disk.
    Other,
}

/// Files of the storage partition, by what reports call them.
pub const FILES: [(&str, &str); 3] =
    [("memory", "endpoint"), ("device-meta", "device-meta"), ("user-meta", "user-meta")];

impl Report {
    /// Reads what stands behind `ack `.
    fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let rev = |name: &str| RevName::parse(name).ok();
        let code = |text: &str| text.strip_prefix("SB")?.parse().ok().and_then(Code::from_number);
        Some(match words[..] {
            ["DONE", name] => Self::Done(rev(name)?),
            ["ERROR" | "WONTGO", name] => Self::Failed(rev(name)?, None),
            ["ERROR" | "WONTGO", name, why] => Self::Failed(rev(name)?, Some(code(why)?)),
            ["staged", name] => Self::Staged(rev(name)?),
            ["env", committed] => Self::Decision(rev(committed)?, None),
            ["env", committed, "-"] => Self::Decision(rev(committed)?, None),
            ["env", committed, candidate] => Self::Decision(rev(committed)?, Some(rev(candidate)?)),
            [what, hash] if hash.len() == 64 => {
                let (_, file) = FILES.iter().find(|(known, _)| *known == what)?;
                Self::File(file, ObjectId::parse(hash)?)
            }
            ["message", name, hash] => Self::Message(rev(name)?, ObjectId::parse(hash)?),
            ["NEW" | "INPROGRESS" | "TESTING" | "READY", name] => {
                rev(name)?;
                Self::Other
            }
            // What a reset leaves is said by the decision that begins it, and by what the table calls it. `syncs` is for
            // who counts.
            ["paired" | "revoked" | "reset" | "syncs", ..] => Self::Other,
            _ => return None,
        })
    }
}

/// Everything that a recording says besides its writes; first what held before.
#[derive(Debug, Default)]
pub struct Reports {
    /// Reports, each with the number of entries before it.
    pub reports: Vec<(usize, Report)>,
    /// Announcements of rows.
    pub rows: Vec<(usize, Row)>,
}

impl Reports {
    /// Of this recording.
    pub fn of(recording: &Recording, log: &Log, before: &Before) -> Outcome<Self> {
        let committed = RevName::parse(&recording.committed).map_err(|_| "the recording was made of no revision")?;
        let mut all = Self { reports: held(committed, before), rows: Vec::new() };
        let mut sector = [0; SECTOR as usize];
        for (index, entry) in log.entries.iter().enumerate() {
            let Kind::Write(data) = entry.kind else { continue };
            if !is_mark(recording, entry) {
                continue;
            }
            log.data(data, &mut sector)?;
            let Some(text) = mark(&sector) else { return fail(format!("entry {index}: no mark where marks are")) };
            all.note(index, text)?;
        }
        for told in &recording.told {
            all.note(told.entry as usize, &told.text)?;
        }
        all.reports.sort_by_key(|(entry, _)| *entry);
        Ok(all)
    }

    fn note(&mut self, entry: usize, text: &str) -> Outcome<()> {
        let unknown = || format!("entry {entry}: nobody knows what `{text}` means");
        match text.strip_prefix("ack ") {
            Some(rest) => self.reports.push((entry, Report::read(rest).ok_or_else(unknown)?)),
            None => {
                let step = protocol::TABLE.iter().find(|step| step.id == text).ok_or_else(unknown)?;
                self.rows.push((entry, step.row));
            }
        }
        Ok(())
    }

    /// How many reports were made before entry `end`.
    pub fn in_force(&self, end: usize) -> usize {
        self.reports.partition_point(|(entry, _)| *entry < end)
    }

    /// The row whose effects were under way at an entry.
    pub fn row_at(&self, entry: usize) -> Option<Row> {
        let before = self.rows.partition_point(|(at, _)| *at <= entry);
        self.rows[..before].last().map(|(_, row)| *row)
    }

    /// Whether a factory reset began between two entries: what was reported before is not meant to hold any more.
    pub fn reset(&self, from: usize, to: usize) -> bool {
        self.rows.iter().any(|(at, row)| (from..to).contains(at) && *row == Row::BeginReset)
    }

    /// Whether a collection began between two entries.
    pub fn collected(&self, from: usize, to: usize) -> bool {
        self.rows.iter().any(|(at, row)| (from..to).contains(at) && *row == Row::UnnameRevisions)
    }
}

/// What was promised before the first entry: the decision, and how the last update ended.
fn held(committed: RevName, before: &Before) -> Vec<(usize, Report)> {
    let ended = before.record.and_then(|record| match record.phase {
        Phase::Done { .. } => Some(Report::Done(record.candidate)),
        Phase::Failed { code, .. } => Some(Report::Failed(record.candidate, Some(code))),
        Phase::Armed | Phase::Trial { .. } => None,
    });
    ended.into_iter().chain([Report::Decision(committed, before.candidate)]).map(|report| (0, report)).collect()
}

/// Whether an entry is a mark.
pub fn is_mark(recording: &Recording, entry: &Entry) -> bool {
    entry.at == recording.mark_sector * SECTOR && entry.length == SECTOR && matches!(entry.kind, Kind::Write(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::journal::Record;

    #[test]
    fn what_held_before_is_reported_first() {
        let rev = |name| RevName::parse(name).unwrap();
        let record = Record { previous: rev("0"), ..Record::none(rev("1")) };
        let decision = |name| (0, Report::Decision(rev(name), None));
        let held = |name, record| super::held(rev(name), &Before { factory: true, record, candidate: None });
        assert_eq!(held("0", None), [decision("0")]);
        assert_eq!(held("1", Some(record)), [(0, Report::Done(rev("1"))), decision("1")]);
        let code = Code::GoalsMissed;
        let failed = record.with(Phase::Failed { code, container: None });
        assert_eq!(held("0", Some(failed)), [(0, Report::Failed(rev("1"), Some(code))), decision("0")]);
        assert_eq!(held("0", Some(record.with(Phase::Armed))), [decision("0")]);
        let armed = Before { factory: true, record: None, candidate: Some(rev("1")) };
        assert_eq!(super::held(rev("0"), &armed), [(0, Report::Decision(rev("0"), Some(rev("1"))))]);
    }

    #[test]
    fn reports_are_read_and_others_are_not() {
        let rev = RevName::parse("locals/a").unwrap();
        let hash = "0".repeat(64);
        let known = [
            ("DONE locals/a", Report::Done(rev)),
            ("ERROR locals/a SB1401", Report::Failed(rev, Some(Code::GoalsMissed))),
            ("WONTGO locals/a", Report::Failed(rev, None)),
            ("staged locals/a", Report::Staged(rev)),
            ("env 0 locals/a", Report::Decision(RevName::factory(), Some(rev))),
            ("env locals/a -", Report::Decision(rev, None)),
            ("TESTING locals/a", Report::Other),
            (&format!("message locals/a {hash}"), Report::Message(rev, ObjectId([0; 32]))),
            ("syncs 12", Report::Other),
            (&format!("memory {hash}"), Report::File("endpoint", ObjectId([0; 32]))),
            (&format!("user-meta {hash}"), Report::File("user-meta", ObjectId([0; 32]))),
        ];
        for (text, report) in known {
            assert_eq!(Report::read(text), Some(report), "{text}");
        }
        for text in ["", "DONE", "DONE ../x", "ERROR 1 SB9", "message locals/a", "lunch", &format!("lunch {hash}")] {
            assert_eq!(Report::read(text), None, "{text}");
        }
    }
}
