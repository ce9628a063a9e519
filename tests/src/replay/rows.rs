//! Which rows of the protocol's table a recording must have reached: those of the procedures that its operation runs
//! through.
//!
//! Invariants: an operation that is not in the table below is an error, so that none is recorded without being asked for its
//! rows. What is left out is left out by name, with the reason.

use std::collections::BTreeSet;

use runtime::protocol::{Operation as O, Row};

use crate::tour::{Outcome, fail};

/// Rows that no device of ours with a disk can reach: its environment is not in flash; nothing announces the loader's.
const NEVER: &[Row] = &[Row::RetireCopy, Row::LoaderCounts];

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
        through: &[O::Install, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced, Row::CountTry],
    },
    Demand {
        operation: "in-place",
        through: &[O::Install, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced, Row::CountTry],
    },
    Demand {
        operation: "base",
        through: &[O::Install, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Commit],
        but: &[Row::DropReplaced],
    },
    // What failed changes nothing about `last`.
    Demand {
        operation: "failed",
        through: &[O::Install, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Fail],
        but: &[Row::DropReplaced, Row::WriteLast],
    },
    // Only inline files differ: no object comes in.
    Demand {
        operation: "failed-in-place",
        through: &[O::Install, O::Prepare, O::Store, O::Record, O::Progress, O::Arm, O::Trial, O::Fail],
        but: &[Row::DropReplaced, Row::WriteLast, Row::CountTry, Row::Arrive],
    },
    // It dies before it records anything: what the loader found is explained and settled at the boot after.
    Demand {
        operation: "given-up",
        through: &[O::Install, O::Prepare, O::Store, O::Progress, O::Arm, O::Boot],
        but: &[Row::DropReplaced],
    },
    Demand { operation: "collect", through: &[O::Collect], but: &[] },
    Demand { operation: "memory", through: &[O::Remember], but: &[] },
    // A healthy device has nothing to explain or to settle.
    Demand { operation: "first-boot", through: &[O::Boot], but: &[Row::Explain, Row::Settle] },
    Demand { operation: "steady", through: &[], but: &[] },
    // The end of a reset stores the environment again, at its boot.
    Demand { operation: "factory-reset", through: &[O::FactoryReset, O::Store, O::Collect], but: &[] },
];

/// The rows that a recording of this operation lacks.
pub fn missing(operation: &str, reached: &BTreeSet<Row>) -> Outcome<Vec<&'static str>> {
    let Some(demand) = DEMANDS.iter().find(|demand| demand.operation == operation) else {
        return fail(format!("nobody has said which rows of the protocol `{operation}` must reach"));
    };
    let rows = demand.through.iter().flat_map(|through| through.rows()).map(|step| step.row);
    let wanted = rows.filter(|row| !NEVER.contains(row) && !demand.but.contains(row));
    Ok(wanted.filter(|row| !reached.contains(row)).map(Row::id).collect())
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
}
