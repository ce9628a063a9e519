//! Which exports were run from a stick, and how often: what is kept so that one in its socket is not run for ever.
//!
//! Format: a version, the length of an entry, then entries of that length, the last one first: a sha256, how often it was
//! run, and how often it was being installed when the device or the errand died. A longer entry of a newer release is
//! read as far as it is known, and the rest of it is kept; a shorter one is read as one that was never being installed.
//! Invariants: it is kept before a revision is installed, and before it is run; so an export whose revision ended somehow
//! is known here, also when the revision was collected since. At most `STICKS_REMEMBERED_MAX` entries.

use runtime::{fault::Code, id::ObjectId, limits};

/// Version of the format.
const VERSION: u8 = 1;
/// Bytes of an entry.
const ENTRY: usize = 34;
/// Bytes of an entry that does not count what was being installed.
const SHORT: usize = 33;

/// What the revision's progress says, as far as it counts here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// There is no such revision.
    None,
    /// Nothing came of it yet: not run, or refused or interrupted before its trial.
    Untried,
    /// It is on trial, committed, or rolled back.
    Tried,
}

impl Standing {
    /// From the words of its progress.
    pub(super) fn of(status: &str, code: &str) -> Self {
        let interrupted = status == "ERROR" && code == Code::UpdateRestarted.to_string();
        if matches!(status, "NEW" | "WONTGO") || interrupted { Self::Untried } else { Self::Tried }
    }
}

/// An export.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    export: ObjectId,
    runs: u8,
    installs: u8,
    /// What a newer release says besides.
    more: Vec<u8>,
}

/// The entries, and version and length of an entry as a newer release has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tried {
    entries: Vec<Entry>,
    version: u8,
    length: usize,
}

impl Default for Tried {
    fn default() -> Self {
        Self { entries: vec![], version: VERSION, length: ENTRY }
    }
}

impl Tried {
    /// Nothing is an empty list; what is damaged is an error, for who knows what it said.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Code> {
        let (version, length, entries) = match bytes {
            [] => return Ok(Self::default()),
            [version, length, entries @ ..] => (*version, usize::from(*length), entries),
            _ => return Err(Code::StorageDamaged),
        };
        if version < VERSION || length < SHORT || !entries.len().is_multiple_of(length) {
            return Err(Code::StorageDamaged);
        }
        let entry = |bytes: &[u8]| {
            let (name, rest) = bytes.split_first_chunk::<32>()?;
            let (runs, installs) = (*rest.first()?, rest.get(1).copied().unwrap_or(0));
            Some(Entry { export: ObjectId(*name), runs, installs, more: rest.get(2..).unwrap_or_default().into() })
        };
        let entries = entries.chunks(length).map(|bytes| entry(bytes).ok_or(Code::StorageDamaged));
        Ok(Self { entries: entries.collect::<Result<_, _>>()?, version, length: length.max(ENTRY) })
    }

    /// As it is kept.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.version, self.length as u8];
        for Entry { export, runs, installs, more } in &self.entries {
            let end = out.len() + self.length;
            out.extend_from_slice(&export.0);
            out.extend_from_slice(&[*runs, *installs]);
            out.extend_from_slice(more);
            out.resize(end, 0);
        }
        out
    }

    /// What is known of it.
    fn entry(&self, export: ObjectId) -> Entry {
        let known = self.entries.iter().find(|entry| entry.export == export).cloned();
        known.unwrap_or(Entry { export, runs: 0, installs: 0, more: vec![] })
    }

    /// Whether it is to be installed and run.
    pub(super) fn wants(&self, export: ObjectId, standing: Standing) -> bool {
        let Entry { runs, installs, .. } = self.entry(export);
        match (runs, standing) {
            (_, Standing::Tried) => false,
            _ if installs >= limits::STICK_INSTALLS_MAX => false,
            (0, _) => true,
            (_, Standing::None) => false, // it was tried, and collected since
            (runs, Standing::Untried) => runs < limits::STICK_RUNS_MAX,
        }
    }

    /// While it is being installed.
    pub(super) fn with_install_of(self, export: ObjectId) -> Self {
        let entry = self.entry(export);
        self.with(Entry { installs: entry.installs.saturating_add(1), ..entry })
    }

    /// With one run more of it. It is installed then.
    pub(super) fn with_run_of(self, export: ObjectId) -> Self {
        let entry = self.entry(export);
        self.with(Entry { runs: entry.runs.saturating_add(1), installs: 0, ..entry })
    }

    fn with(mut self, entry: Entry) -> Self {
        self.entries.retain(|other| other.export != entry.export);
        self.entries.insert(0, entry);
        self.entries.truncate(limits::STICKS_REMEMBERED_MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(number: u8) -> ObjectId {
        ObjectId([number; 32])
    }

    fn counts(tried: &Tried, number: u8) -> (u8, u8) {
        let entry = tried.entry(export(number));
        (entry.runs, entry.installs)
    }

    #[test]
    fn what_was_kept_comes_back() {
        let tried = Tried::default().with_run_of(export(1)).with_install_of(export(2)).with_run_of(export(1));
        let bytes = tried.encode();
        assert_eq!((bytes[..3].to_vec(), bytes.len()), (vec![1, 34, 1], 2 + 2 * 34));
        assert_eq!(Tried::decode(&bytes), Ok(tried.clone()));
        assert_eq!([1, 2, 3].map(|number| counts(&tried, number)), [(2, 0), (0, 1), (0, 0)]);
        assert_eq!(Tried::decode(&[]), Ok(Tried::default()));
    }

    #[test]
    fn a_newer_release_may_say_more() {
        let newer: Vec<u8> = [&[2, 35][..], &[5; 32], &[1, 8, 8], &[6; 32], &[3, 9, 9]].concat();
        let tried = Tried::decode(&newer).unwrap();
        assert_eq!((counts(&tried, 5), counts(&tried, 6)), ((1, 8), (3, 9)));
        assert_eq!(tried.encode(), newer);
        let again = tried.with_run_of(export(6)).with_install_of(export(7)).encode();
        let kept = [&[2, 35][..], &[7; 32], &[0, 1, 0], &[6; 32], &[4, 0, 9], &[5; 32], &[1, 8, 8]].concat();
        assert_eq!(again, kept, "what this release does not know stays with its entry");
        let older: Vec<u8> = [&[1, 33][..], &[5; 32], &[1], &[6; 32], &[3]].concat();
        let tried = Tried::decode(&older).unwrap();
        assert_eq!((counts(&tried, 5), counts(&tried, 6)), ((1, 0), (3, 0)));
    }

    #[test]
    fn damage_is_not_forgetting() {
        let bytes = Tried::default().with_run_of(export(1)).encode();
        for bad in [&bytes[..1], &bytes[..bytes.len() - 1], &[0, 33], &[1, 0], &[1, 32], &[1, 33, 5]] {
            assert_eq!(Tried::decode(bad), Err(Code::StorageDamaged), "{bad:?}");
        }
    }

    #[test]
    fn it_is_bounded_and_the_one_run_last_stays() {
        let mut tried = Tried::default();
        for number in 0..=limits::STICKS_REMEMBERED_MAX {
            tried = tried.with_run_of(export(number as u8));
        }
        assert!(tried.encode().len() <= limits::ENDPOINT_MEMORY_MAX);
        assert_eq!(tried.entries.len(), limits::STICKS_REMEMBERED_MAX);
        let last = limits::STICKS_REMEMBERED_MAX as u8;
        assert_eq!((counts(&tried, 0), counts(&tried, last)), ((0, 0), (1, 0)));
    }

    #[test]
    fn an_export_is_run_until_something_came_of_it_and_never_without_end() {
        let standing = |status, code| Standing::of(status, code);
        let untried = [standing("NEW", ""), standing("WONTGO", "SB1204"), standing("ERROR", "SB1403")];
        assert_eq!(untried, [Standing::Untried; 3]);
        for (status, code) in [("ERROR", "SB1401"), ("DONE", ""), ("INPROGRESS", ""), ("TESTING", ""), ("else", "")] {
            assert_eq!(standing(status, code), Standing::Tried, "{status} {code}");
        }
        let never = Tried::default();
        assert!(never.wants(export(1), Standing::None) && never.wants(export(1), Standing::Untried));
        // The record was lost, the revision was not.
        assert!(!never.wants(export(1), Standing::Tried));
        let mut tried = never;
        for _ in 0..limits::STICK_RUNS_MAX {
            assert!(tried.wants(export(1), Standing::Untried), "the power went before its trial");
            tried = tried.with_run_of(export(1));
            assert!(!tried.wants(export(1), Standing::None), "collected since");
            assert!(!tried.wants(export(1), Standing::Tried));
        }
        assert!(!tried.wants(export(1), Standing::Untried));
        assert!(tried.wants(export(2), Standing::None), "another export");
    }

    #[test]
    fn what_ends_the_device_while_it_is_installed_does_not_do_so_without_end() {
        let mut tried = Tried::default();
        for _ in 0..limits::STICK_INSTALLS_MAX {
            assert!(tried.wants(export(1), Standing::None) && tried.wants(export(1), Standing::Untried));
            tried = tried.with_install_of(export(1));
        }
        assert!(!tried.wants(export(1), Standing::None) && !tried.wants(export(1), Standing::Untried));
        assert_eq!(counts(&tried.with_run_of(export(1)), 1), (1, 0), "it was installed in the end");
    }
}
