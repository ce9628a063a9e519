//! Which exports were run from a stick, and how often: what is kept so that one in its socket is not run for ever.
//!
//! Format: a version, the length of an entry, then entries of that length, the one run last first: a sha256 and how often
//! it was run. A longer entry of a newer release is read as far as it is known.
//! Invariants: it is kept before a revision is run, and only then; so an export whose revision ended somehow is known
//! here, also when the revision was collected since. At most `STICKS_REMEMBERED_MAX` entries.

use runtime::{fault::Code, id::ObjectId, limits};

/// Version of the format.
const VERSION: u8 = 1;
/// Bytes of an entry.
const ENTRY: usize = 33;

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

/// The entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tried(Vec<(ObjectId, u8)>);

impl Tried {
    /// Nothing is an empty list; what is damaged is an error, for who knows what it said.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Code> {
        let (version, length, entries) = match bytes {
            [] => return Ok(Self::default()),
            [version, length, entries @ ..] => (*version, usize::from(*length), entries),
            _ => return Err(Code::StorageDamaged),
        };
        if version < VERSION || length < ENTRY || !entries.len().is_multiple_of(length) {
            return Err(Code::StorageDamaged);
        }
        let entry = |bytes: &[u8]| {
            let (name, rest) = bytes.split_first_chunk::<32>()?;
            Some((ObjectId(*name), *rest.first()?))
        };
        entries.chunks(length).map(|bytes| entry(bytes).ok_or(Code::StorageDamaged)).collect::<Result<_, _>>().map(Self)
    }

    /// As it is kept.
    pub(super) fn encode(&self) -> Vec<u8> {
        let entries = self.0.iter().flat_map(|(name, runs)| name.0.into_iter().chain([*runs]));
        [VERSION, ENTRY as u8].into_iter().chain(entries).collect()
    }

    /// How often it was run.
    fn runs(&self, export: ObjectId) -> u8 {
        self.0.iter().find(|(name, _)| *name == export).map_or(0, |(_, runs)| *runs)
    }

    /// Whether it is to be installed and run.
    pub(super) fn wants(&self, export: ObjectId, standing: Standing) -> bool {
        match (self.runs(export), standing) {
            (_, Standing::Tried) => false,
            (0, _) => true,
            (_, Standing::None) => false, // it was tried, and collected since
            (runs, Standing::Untried) => runs < limits::STICK_RUNS_MAX,
        }
    }

    /// With one run more of it.
    pub(super) fn with_run_of(mut self, export: ObjectId) -> Self {
        let runs = self.runs(export).saturating_add(1);
        self.0.retain(|(name, _)| *name != export);
        self.0.insert(0, (export, runs));
        self.0.truncate(limits::STICKS_REMEMBERED_MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(number: u8) -> ObjectId {
        ObjectId([number; 32])
    }

    #[test]
    fn what_was_kept_comes_back() {
        let tried = Tried::default().with_run_of(export(1)).with_run_of(export(2)).with_run_of(export(1));
        let bytes = tried.encode();
        assert_eq!((bytes[..3].to_vec(), bytes.len()), (vec![1, 33, 1], 2 + 2 * 33));
        assert_eq!(Tried::decode(&bytes), Ok(tried.clone()));
        assert_eq!((tried.runs(export(1)), tried.runs(export(2)), tried.runs(export(3))), (2, 1, 0));
        assert_eq!(Tried::decode(&[]), Ok(Tried::default()));
    }

    #[test]
    fn a_newer_release_may_say_more() {
        let newer: Vec<u8> = [&[2, 35][..], &[5; 32], &[1, 8, 8], &[6; 32], &[3, 9, 9]].concat();
        let tried = Tried::decode(&newer).unwrap();
        assert_eq!((tried.runs(export(5)), tried.runs(export(6))), (1, 3));
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
        assert_eq!(tried.0.len(), limits::STICKS_REMEMBERED_MAX);
        assert_eq!((tried.runs(export(0)), tried.runs(export(limits::STICKS_REMEMBERED_MAX as u8))), (0, 1));
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
}
