//! The protocol as a table: one row for each step of each durable operation.
//!
//! Purpose: the order in which things become durable has one place to be read, and whoever watches a device can say how
//! far it was. The procedures announce the row whose effects come next (`Disk::step`, `Region::step`, `World::step`): on
//! a device that is nothing, the simulator breaks each row on purpose (skipped, swapped with the next one, its failure not
//! looked at) and must miss it, and a recording marks it in its log. The book prints the table, with the proof.
//!
//! Invariants: rows stand in the order in which their operation announces them; one may be left out (nothing to do),
//! never come earlier. A row's effects are those between its announcement and the next one. An identifier never
//! changes its meaning. A row that only reads says so.
//!
//! Two processes announce: PID 1 its actions (arming, trial, commit, failure, boot, restart, Z1 to Z3), the keeper and the
//! environment's codec what those stand for. PID 1 announces its next row only after it has been told how the last one ended,
//! so the keeper's rows lie between the two; that order is one of messages, and nobody but a recording sees both sides.
//!
//! What it does not do: it decides nothing. What comes next is said by the procedures and by `update`.

use crate::{
    journal::Phase,
    machine::{Action, Job, Machine, Note, Reason, Transition},
    progress::Status,
    update::State,
};

/// A sequence of steps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// Objects come in and become a revision: `store::stage`.
    Install,
    /// A candidate becomes visible to the loader: `store::prepare`.
    Prepare,
    /// One transition of the environment: `BootEnv::store`.
    Store,
    /// One record of the journal, and what else says the same: `store::record`.
    Record,
    /// The progress document of a revision: `store::progress`.
    Progress,
    /// The commit message of a revision: `store::message`.
    Message,
    /// From a candidate that can be run to one that is armed: `update`.
    Arm,
    /// A candidate runs: `boot`, `update`.
    Trial,
    /// A candidate whose goals are met: `update`.
    Commit,
    /// A candidate that is given up: `update`.
    Fail,
    /// From power-on to running containers: the loader, `store::recover`, `boot`, `update`.
    Boot,
    /// A restart that a fallen container forces: `update`.
    Restart,
    /// What no revision needs any more goes: `store::collect`.
    Collect,
    /// What is kept for the endpoint: `store::remember`.
    Remember,
    /// Everything but the factory revision goes: `store::factory`, `update`.
    FactoryReset,
    /// The loader's text becomes one that is overwritten in place: `store::taken::adopt`.
    TakeOver,
    /// Storage comes to reach to the end of its disk: `grow`.
    Grow,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which.
    pub row: Row,
    /// Its short name, in tables, logs and marks.
    pub id: &'static str,
    /// What it is a step of.
    pub operation: Operation,
    /// What is done.
    pub effect: &'static str,
    /// What a cut before the next step leaves.
    pub cut: &'static str,
}

/// Writes the rows once: they become `Row`, and the table in the same order.
macro_rules! steps {
    ($($operation:ident { $($row:ident = $id:literal: $effect:literal => $cut:literal;)* })*) => {
        /// A row of the table.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Row {
            $($(#[doc = $effect] $row,)*)*
        }

        /// All rows, operation by operation.
        pub const TABLE: &[Step] = &[$($(
            Step { row: Row::$row, id: $id, operation: Operation::$operation, effect: $effect, cut: $cut },
        )*)*];
    };
}

steps! {
    Install {
        Arrive = "I1": "An object comes in below `objects/.incoming/`: written, hashed, named by its hash there."
            => "Something below `objects/.incoming/`, whole or not: swept at start. It is sent again.";
        Build = "I2": "The revision's folder is built as `trails/.new-REV`: state, inline files, names of its objects."
            => "A folder that nobody looks at: swept at start.";
        SyncContents = "I3": "Storage is synced: what came in, and what was built. If that fails, both are removed."
            => "As I2, but durable.";
        NameObjects = "I4": "Each object that came in is renamed to its final name."
            => "Some objects have their names, and content to go with them: the next installation finds them, or they are collected.";
        SyncObjects = "I5": "The folder `objects/` is synced."
            => "As I4, for all of them, durable.";
        NameRevision = "I6": "The folder is renamed to `trails/REV`; if that exists, the two change places."
            => "The revision is there or not, and if it is, it is whole: nothing names it yet.";
        SyncTrails = "I7": "The folder `trails/` is synced. The client is told."
            => "The revision is there. Nothing names it yet.";
        DropReplaced = "I8": "What the revision replaced is removed."
            => "A folder that nobody looks at: swept at start.";
    }
    Prepare {
        BuildAssets = "P1": "On the boot volume: the boot assets are copied to `objects/.incoming/` and named in `trails/.new-REV`."
            => "Things that nobody looks at: swept at start.";
        WriteIntent = "P2": "The journal's older slot says what is about to be armed."
            => "The record of before, or the new one: then it says that an update was interrupted before it was armed.";
        SyncAssets = "P3": "The boot volume is synced: assets, folder, record. If that fails, what was built is removed."
            => "As P1 and P2, durable.";
        ShowAssets = "P3a": "Where the loader may be reading what these names are of already: the file system's journal is written back before."
            => "As P3, also for a loader that does not replay the journal.";
        NameAssets = "P4": "Assets and folder get their final names; a folder that stands there changes places with the new one."
            => "The folder is there or not, and if it is, it is whole: nothing names it yet, or it did before.";
        Checkpoint = "P5": "The boot volume's file system journal is written back: the loader, which does not replay it, sees the names."
            => "The loader and Linux agree about the candidate. Nothing names it yet.";
        DropOldAssets = "P6": "What the folder replaced is removed."
            => "A folder that nobody looks at: swept at start.";
    }
    Store {
        ReadCopies = "E1": "Both copies of the environment are read; the valid newer one is in force. If the other one cannot be read, the store ends here. Only reads."
            => "The decision of before.";
        WriteCopy = "E2": "All variables are written over the copy that is not in force, with a new checksum and a newer flag; where there is one copy or one sector only, over that."
            => "Torn or lost: that copy is invalid or old, and the decision of before is in force. Whole: the new one is. A single copy: old, new, or lost; a single sector: old or new.";
        SyncCopy = "E3": "The environment's medium is synced."
            => "The new decision.";
        DropCache = "E4": "What the system has cached of the medium is forgotten. Only reads."
            => "As E3.";
        ReadBack = "E5": "The copy is read back and compared: what differs was not stored. Only reads."
            => "As E3. A store that failed is repeated over the same copy.";
        RetireCopy = "E6": "Flash with boolean flags only: the flag of the older copy is cleared, synced and read back."
            => "Before: either decision is in force, and each is whole. After: the new one.";
    }
    Record {
        WriteRecord = "J1": "The journal's older slot is written."
            => "The record of before, or the new one.";
        WriteLast = "J2": "At the end of an update, `last` is overwritten in place: the committed revision, for a loader without environment."
            => "`last` names the committed revision of before or of now; both are kept until the next collection.";
        SyncRecord = "J3": "The boot volume is synced."
            => "The new record, durable.";
    }
    Progress {
        WriteProgress = "S1": "The revision's progress is written beside the one that stands."
            => "The progress of before. The journal knows better; from it it is written again.";
        NameProgress = "S2": "It is renamed over the one that stands."
            => "The one or the other, or an empty one; only shown, never decided by.";
    }
    Message {
        WriteMessage = "N1": "The message is written beside the one that stands."
            => "The message of before; the rest is written over.";
        SyncMessage = "N2": "Its content is synced."
            => "As N1.";
        NameMessage = "N3": "It is renamed over the one that stands."
            => "The message of before or the new one, each whole.";
        SyncMessages = "N4": "Storage is synced. If that fails, what came in is removed. The client is told."
            => "The new message.";
    }
    Arm {
        Ready = "A1": "The keeper prepares the candidate (P1 to P6)."
            => "The committed revision boots. The candidate is ready, and nothing names it.";
        Name = "A2": "One store of the environment names the candidate (E1 to E6)."
            => "The loader tries the candidate, counting; or it is not armed, and the committed revision boots.";
        Go = "A3": "The device restarts; in place, what the candidate replaces is stopped."
            => "As A2: the candidate is tried by a boot.";
    }
    Trial {
        CountTry = "T1": "The journal says how often the candidate has been tried, this boot included (J1 to J3)."
            => "The candidate is tried again, by one more counted boot or the last one.";
        RunCandidate = "T2": "The containers of the candidate start."
            => "As T1.";
    }
    Commit {
        Commit = "C1": "Goals met, and stable: one store of the environment commits the candidate (E1 to E6)."
            => "The candidate is committed; at its boot the journal is made to agree. Or it is tried again.";
        RecordDone = "C2": "The journal says DONE, `last` names it (J1 to J3)."
            => "It is committed, and the journal says so.";
        TellDone = "C3": "Clients and the hub are told DONE."
            => "What was told is so.";
    }
    Fail {
        RecordReason = "F1": "The journal says why the candidate failed, or why a factory reset could not end (J1 to J3)."
            => "The next boot finds the reason, and goes on with F2 without trying again.";
        Disarm = "F2": "One store of the environment names the candidate no more; after a failed first boot of what was committed in place, the revision before is committed again (E1 to E6)."
            => "The committed revision boots, and the reason is known.";
        GoBack = "F3": "The device restarts; in place, the containers of the revision before come back."
            => "As F2.";
    }
    Boot {
        LoaderCounts = "B1": "The loader, while a candidate is armed: the counter plus one is stored in the other copy and read back. In FAT files U-Boot writes the file's entry in the folder as well, a sector that says the same as before."
            => "Counted or not: each try is a boot, and a cut is not held against the bound of the loader.";
        Sweep = "B2": "What interrupted procedures left under names that nobody looks at is removed."
            => "Some of it is still there: swept at the next start.";
        Explain = "B3": "What the boot decision has found out is recorded: a commit or a failure whose record was cut (J1 to J3)."
            => "The next boot finds the record, and goes on.";
        Settle = "B4": "What the boot decision wants of the environment is stored: a failed candidate given up, a lost environment rebuilt (E1 to E6)."
            => "The next boot decides the same, or finds it done.";
        Run = "B5": "The containers of the committed revision start."
            => "The next boot does the same.";
    }
    Restart {
        CountFall = "R1": "A container fell and nothing says how to go on: the journal counts the restart that is to help (J1 to J3)."
            => "Counted or not; the next boot is that restart.";
        RestartDevice = "R2": "The device restarts."
            => "As R1.";
        Forgive = "R3": "The goals are met and stay so: the count is set back (J1 to J3)."
            => "Set back or not; the next boot tries again.";
    }
    Collect {
        Mark = "G1": "The states of all revisions to keep are read: those that either copy of the environment names, the running one, the factory's, that of `last`. Only reads."
            => "Nothing went.";
        UnnameRevisions = "G2": "On storage, then on the boot volume (G2 to G5 for each; where the loader reads storage, G2 to G4 for each revision): every other revision is renamed to a name that nobody looks at."
            => "Revisions are there whole or not at all. None of them is named by anybody.";
        SyncUnnamed = "G3": "The folder `trails/` is synced."
            => "As G2, durable.";
        DropRevisions = "G4": "What those revisions consisted of is removed."
            => "Remains under names that nobody looks at: swept at start.";
        DropObjects = "G5": "Objects that no revision names are removed."
            => "Some of them are still there: the next collection finds them.";
    }
    Remember {
        WriteMemory = "M1": "What is to be kept is written beside what is kept."
            => "What was kept before; the rest is written over.";
        SyncMemory = "M2": "Its content is synced. If that fails, it is removed."
            => "As M1.";
        NameMemory = "M3": "It is renamed over what is kept."
            => "The old or the new, each whole.";
        SyncRoot = "M4": "The folder is synced. The endpoint is told."
            => "The new.";
    }
    FactoryReset {
        Intend = "Z1": "The keeper makes the factory revision visible to the loader, with a record that says what is wanted (P1 to P6)."
            => "The committed revision boots and takes the wish back; if that is the factory revision, the reset goes on. What could not begin is withdrawn by a record without the wish (J1 to J3).";
        BeginReset = "Z2": "One store of the environment names the factory revision alone (E1 to E6). The client is told."
            => "The factory revision boots, and the reset goes on; or it did not begin.";
        BootFactory = "Z3": "The device restarts. At that boot and at every one until the reset ends, the store is made again (B4), so that no copy of the environment names anything else."
            => "The factory revision boots, and the reset goes on.";
        OverwriteLast = "Z4": "`last` is overwritten in place: the factory revision."
            => "As Z3.";
        SyncLast = "Z5": "The boot volume is synced. Then every other revision and every object of none is removed (G1 to G5)."
            => "As Z3. Without an environment, too, the loader boots the factory revision.";
        DropOthers = "Z6": "What else is on storage is removed: volumes of containers, logs, what is kept for the endpoint."
            => "As Z3: some of it is still there, and nothing that could see it runs.";
        SyncCleared = "Z7": "Storage and the boot volume are synced."
            => "As Z3: nothing of it is there.";
        WriteEnd = "Z8": "The journal's older slot says that the reset has ended."
            => "As Z3, or as Z9.";
        SyncEnd = "Z9": "The boot volume is synced. The containers of the factory revision start."
            => "A device as it left the factory.";
    }
    TakeOver {
        WriteText = "O1": "What the original's `uboot.txt` says is written to a new text beside it, one block long."
            => "The text of before is in force; the other one is nobody's, and written over.";
        SyncText = "O2": "The content of the new text is synced."
            => "As O1.";
        SyncView = "O3": "The file system's journal is written back: a loader that does not replay it would find the new text."
            => "As O1, durable.";
        SwapTexts = "O4": "The two texts change places."
            => "The one or the other is in force; they say the same, and each is whole.";
        SyncSwap = "O5": "The file system's journal is written back: the loader finds the new text."
            => "The new text, which every store from now on overwrites in place.";
        DropText = "O6": "The text of before is removed."
            => "As O5; what is left is removed at the next start.";
    }
    Grow {
        WriteTable = "W1": "The disk's partition table is overwritten in place, one sector: storage's partition ends where the disk does."
            => "The table of before, or the new one: the file system fits both.";
        SyncTable = "W2": "The disk is synced."
            => "The new table; the file system is smaller than its partition.";
        ReadTable = "W3": "The table is read back past every cache and compared: what differs ends the growth here. Only reads."
            => "As W2.";
        TellKernel = "W4": "The kernel is told how long the partition is."
            => "As W2: the next start reads the table.";
        GrowFiles = "W5": "The file system grows to the end of its partition, by its own journal."
            => "The size of before, or the new one. What is missing grows at the next start.";
    }
}

impl Row {
    /// What the table says of it.
    pub fn step(self) -> &'static Step {
        &TABLE[self as usize] // a row's number is its place: both come from one list
    }

    /// Its short name.
    pub fn id(self) -> &'static str {
        self.step().id
    }

    /// What it is a step of.
    pub fn operation(self) -> Operation {
        self.step().operation
    }

    /// The row after it in its operation.
    pub fn next(self) -> Option<Row> {
        TABLE.get(self as usize + 1).filter(|step| step.operation == self.operation()).map(|step| step.row)
    }
}

impl Operation {
    /// Its rows, in order.
    pub fn rows(self) -> impl Iterator<Item = &'static Step> {
        TABLE.iter().filter(move |step| step.operation == self)
    }
}

/// The row that an action of the machine is, if it is one. `Ready`, `Name` and others stand for whole procedures, which
/// announce rows of their own.
pub fn row_of(machine: &Machine, action: &Action) -> Option<Row> {
    let update = machine.update();
    match (action, update.state()) {
        (Action::Keep(Job::Prepare(_)), _) => Some(Row::Ready),
        (Action::Keep(Job::Intend(_)), _) => Some(Row::Intend),
        (Action::Store(Transition::FactoryReset, _), _) => Some(Row::BeginReset),
        (Action::Reboot(Reason::FactoryReset), _) => Some(Row::BootFactory),
        (Action::Store(Transition::Arm, _), _) => Some(Row::Name),
        (Action::Store(Transition::Commit, _), _) => Some(Row::Commit),
        (Action::Store(Transition::Disarm | Transition::StepBack, _), _) => Some(Row::Disarm),
        (Action::Store(Transition::Settle, _), _) => Some(Row::Settle),
        (Action::Keep(Job::Record(record)), State::Explaining) => match record.phase {
            Phase::Trial { .. } => Some(Row::CountTry),
            _ => Some(Row::Explain),
        },
        (Action::Keep(Job::Record(_)), State::Recording { .. }) => Some(Row::RecordDone),
        (Action::Keep(Job::Record(_)), State::Noting { .. } | State::Refusing(_)) => Some(Row::RecordReason),
        (Action::Keep(Job::Record(_)), State::Falling { .. }) => Some(Row::CountFall),
        (Action::Keep(Job::Record(_)), State::Forgiving(_)) => Some(Row::Forgive),
        (Action::Note(Note::Update(_, progress)), _) if progress.status == Status::Done => Some(Row::TellDone),
        (Action::Stop(_) | Action::Kill(_), State::Switching { .. }) => Some(Row::Go),
        (Action::Stop(_) | Action::Kill(_), State::Restoring { .. }) => Some(Row::GoBack),
        (Action::Start(_), State::Switching { .. } | State::Trying { .. } | State::Testing { .. }) => {
            Some(Row::RunCandidate)
        }
        (Action::Start(_), State::Restoring { .. } | State::Returning(_)) => Some(Row::GoBack),
        (Action::Start(_), State::Steady) => Some(Row::Run),
        (Action::Reboot(Reason::Try(_)), _) => Some(Row::Go),
        (Action::Reboot(Reason::Rollback(..)), _) => Some(Row::GoBack),
        (Action::Reboot(Reason::Container(..)), _) => Some(Row::RestartDevice),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_finds_itself_and_no_name_is_given_twice() {
        let names: BTreeSet<&str> = TABLE.iter().map(|step| step.id).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(TABLE.iter().all(|step| step.row.step() == step));
    }

    #[test]
    fn operations_stand_together() {
        for pair in TABLE.windows(2) {
            let letter = |step: &Step| step.id.as_bytes()[0];
            assert_eq!(pair[0].operation == pair[1].operation, letter(&pair[0]) == letter(&pair[1]), "{:?}", pair[1]);
            assert!(pair[0].operation <= pair[1].operation);
        }
        assert_eq!(Row::WriteCopy.next(), Some(Row::SyncCopy));
        assert_eq!((Row::SyncRoot.next(), Row::SyncEnd.next(), Row::GrowFiles.next()), (None, None, None));
    }
}
