//! Which rows of the protocol's table a recording must have reached: those of the procedures that its operation runs
//! through. And of which of them a state must have been looked at.
//!
//! Invariants: what waits for a medium ends with a flush, so a cut in it is a state; what does not is on its way until then,
//! and is seen under a later row. An operation that is not in the table below is an error, so that none is recorded without being asked for its
//! rows. What is left out is left out by name, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use runtime::protocol::{Operation as O, Row};

use crate::tour::{Outcome, fail};

/// Rows that no recording reaches, each with the reason.
const UNREACHED: &[(Row, &str)] = &[
    (Row::RetireCopy, "the environment of the recorded devices is not in flash"),
    (
        Row::LoaderCounts,
        "it is the loader's, which announces nothing; what it writes is in the log of `base` and others",
    ),
    (Row::CountFall, FALL),
    (Row::RestartDevice, FALL),
    (Row::Forgive, FALL),
];
const FALL: &str = "no container of the recorded devices falls once it is committed";
/// The row of a revision whose boot assets have to be named again, and the operations that go to such a one.
const AGAIN: (Row, &[&str]) = (Row::ShowAssets, &["replace", "takeover"]);

/// Rows that wait for a medium and find nothing to wait for: no state is theirs.
const IDLE: &[(&str, Row)] = &[
    ("failed-in-place", Row::SyncObjects), // no object came in
    ("takeover", Row::SyncCopy),           // whoever writes the loader's text has synced it when the write returns: E2
];

/// What a recorded operation runs through, and rows of that which it does not reach.
struct Demand {
    operation: &'static str,
    through: &'static [O],
    but: &'static [Row],
}

const DEMANDS: &[Demand] = &[
    // A revision of a new name replaces nothing; a running system counts no try.
    Demand {
        operation: "install",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced, Row::CountTry],
    },
    Demand {
        operation: "in-place",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced, Row::CountTry],
    },
    Demand {
        operation: "base",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced],
    },
    // A revision of a name that is there already, with another base.
    Demand {
        operation: "replace",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[],
    },
    // What failed changes nothing about `last`.
    Demand {
        operation: "failed",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Fail],
        but: &[Row::DropReplaced, Row::WriteLast],
    },
    // Only inline files differ: no object comes in.
    Demand {
        operation: "failed-in-place",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Fail],
        but: &[Row::DropReplaced, Row::WriteLast, Row::CountTry, Row::Arrive],
    },
    // It dies before it records anything: what the loader found is explained and settled at the boot after.
    Demand {
        operation: "given-up",
        through: &[O::Install, O::Message, O::Prepare, O::Store, O::Progress, O::Arm, O::Boot],
        but: &[Row::DropReplaced],
    },
    Demand { operation: "collect", through: &[O::Collect], but: &[] },
    Demand { operation: "memory", through: &[O::Remember], but: &[] },
    // A healthy device has nothing to explain or to settle.
    Demand { operation: "first-boot", through: &[O::Boot], but: &[Row::Explain, Row::Settle] },
    Demand { operation: "growth", through: &[O::Boot, O::Grow], but: &[Row::Explain, Row::Settle] },
    Demand { operation: "metadata", through: &[O::Remember], but: &[] },
    Demand { operation: "steady", through: &[], but: &[] },
    // Its text is one, and what decides is one sector of it: nothing is chosen.
    Demand {
        operation: "takeover",
        through: &[O::TakeOver, O::Install, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced, Row::ReadCopies],
    },
    // The end of a reset stores the environment again, at its boot.
    Demand { operation: "factory-reset", through: &[O::FactoryReset, O::Store, O::Collect], but: &[] },
];

/// How often a row waits for a medium.
pub fn waits(row: Row) -> usize {
    match row {
        Row::SyncTrails | Row::SyncUnnamed => 2, // `trails/` and `trails/locals/`
        Row::SyncCleared => 2,                   // both volumes
        Row::SyncContents | Row::SyncObjects | Row::SyncAssets | Row::Checkpoint | Row::SyncCopy | Row::SyncRecord => 1,
        Row::ShowAssets => 1,
        Row::SyncMessage | Row::SyncMessages => 1,
        Row::SyncMemory | Row::SyncRoot | Row::SyncLast | Row::SyncEnd => 1,
        Row::SyncText | Row::SyncView | Row::SyncSwap | Row::SyncTable => 1,
        _ => 0,
    }
}

/// The rows that a recording of this operation must reach.
pub fn wanted(operation: &str) -> Outcome<impl Iterator<Item = Row>> {
    let Some(demand) = DEMANDS.iter().find(|demand| demand.operation == operation) else {
        return fail(format!("nobody has said which rows of the protocol `{operation}` must reach"));
    };
    let rows = demand.through.iter().flat_map(|through| through.rows()).map(|step| step.row);
    let again = AGAIN.1.contains(&demand.operation);
    let never = move |row: &Row| UNREACHED.iter().any(|(other, _)| other == row) || !again && *row == AGAIN.0;
    Ok(rows.filter(move |row| !never(row) && !demand.but.contains(row)))
}

/// The rows that no recording reaches, as the book says it.
pub fn unreached() -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (row, why) in UNREACHED {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, rows)) => rows.push(row.id()),
            None => reasons.push((why, vec![row.id()])),
        }
    }
    let reasons: Vec<String> = reasons.iter().map(|(why, rows)| format!("{} ({why})", rows.join(", "))).collect();
    format!("Rows of the protocol that no recording reaches: {}.\n", reasons.join("; "))
}

/// The rows that a recording of this operation does not announce.
pub fn missing(operation: &str, reached: &BTreeSet<Row>) -> Outcome<Vec<&'static str>> {
    Ok(wanted(operation)?.filter(|row| !reached.contains(row)).map(Row::id).collect())
}

/// The rows that wait for a medium and of which no state was looked at: a flush ends each of them, so there are some.
pub fn unseen(operation: &str, seen: &BTreeSet<Row>) -> Outcome<Vec<&'static str>> {
    let is_seen = |row: &Row| waits(*row) == 0 || seen.contains(row) || IDLE.contains(&(operation, *row));
    Ok(wanted(operation)?.filter(|row| !is_seen(row)).map(Row::id).collect())
}

/// Under which row those are seen that wait for nothing: what they write is on its way until one that waits. `marks` are the
/// announcements in their order.
pub fn under(marks: &[Row], seen: &BTreeSet<Row>) -> BTreeMap<Row, BTreeSet<&'static str>> {
    let mut all = BTreeMap::<Row, BTreeSet<&'static str>>::new();
    for (at, row) in marks.iter().enumerate().filter(|(_, row)| waits(**row) == 0) {
        if let Some(later) = marks[at..].iter().find(|later| seen.contains(later)) {
            all.entry(*later).or_default().insert(row.id());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_reached_is_named() {
        let some = [Row::Mark, Row::UnnameRevisions, Row::SyncUnnamed, Row::DropRevisions].into();
        assert_eq!(missing("collect", &some).unwrap(), ["G5"]);
        assert!(missing("steady", &BTreeSet::new()).unwrap().is_empty());
        assert!(missing("lunch", &some).is_err());
    }

    #[test]
    fn every_row_is_reached_by_a_recording_or_there_is_a_reason() {
        let mut reached = BTreeSet::new();
        for case in crate::record::operations::CASES {
            reached.extend(wanted(case.operation).unwrap());
        }
        for step in runtime::protocol::TABLE {
            let excused = UNREACHED.iter().any(|(row, _)| *row == step.row);
            assert!(reached.contains(&step.row) != excused, "{}", step.id);
        }
        assert!(unreached().contains("E6 (the environment"));
    }

    #[test]
    fn what_waits_for_a_medium_must_be_seen_and_the_rest_is_seen_with_it() {
        let seen: BTreeSet<Row> = [Row::SyncUnnamed, Row::DropObjects].into();
        assert!(unseen("collect", &seen).unwrap().is_empty());
        assert_eq!(unseen("collect", &[Row::DropObjects].into()).unwrap(), ["G3"]);
        let lacks = |id| unseen("failed-in-place", &BTreeSet::new()).unwrap().contains(&id);
        assert!(lacks("I3") && !lacks("I5") && !lacks("I2"));
        let marks = [Row::Mark, Row::UnnameRevisions, Row::SyncUnnamed, Row::DropRevisions, Row::DropObjects];
        let expected = [(Row::SyncUnnamed, ["G1", "G2"].into()), (Row::DropObjects, ["G4", "G5"].into())];
        assert_eq!(under(&marks, &seen), expected.into());
    }

    #[test]
    fn every_row_that_is_called_a_sync_counts_as_one() {
        for step in runtime::protocol::TABLE {
            let name = format!("{:?}", step.row);
            let checkpoints = ["Checkpoint", "ShowAssets"].contains(&name.as_str());
            assert_eq!(waits(step.row) > 0, name.starts_with("Sync") || checkpoints, "{name}");
        }
    }
}
