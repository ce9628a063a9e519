//! What becomes of each row's mutants: skipped, swapped with the next row, ignored; in the order of `How::ALL`.

use crate::{
    fleet::Quality::*,
    rows::{
        Fate::{self, *},
        Hunt::*,
    },
};
use boards::env::uboot::Scheme;
use runtime::protocol::Row;

const NO_NEXT: &str = "nothing of its operation comes after it";
const NO_RESULT: &str = "it has no result that anybody could look at";
const READ: &str = "a read that what follows is decided by cannot be put off";
const READ_BACK: &str = "what it says ends the store, or not; that the other copy is retired (E6) only after it is missed \
     by law 4 (`a_copy_that_is_retired_before_the_new_one_is_read_back_is_missed`)";
const SWEPT: &str = "it only gives space back: what is left is swept at the next start";
const SWEPT_LATER: &str = "nothing before the first installation rests on it; first, so that space is free early";
const FREE_ORDER: &str = "P3 syncs both, and nobody looks at either before P4";

/// Row by row.
pub const FATES: &[(Row, [Fate; 3])] = &[
    (Row::Arrive, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Killed(Undisturbed, 1)]),
    (Row::Build, [Killed(Undisturbed, 0), Killed(Undisturbed, 1), Killed(Replace, 4)]),
    (Row::SyncContents, [Killed(Undisturbed, 1), Killed(Cut(Good, 0), 1), Killed(Undisturbed, 1)]),
    (Row::NameObjects, [Killed(Cut(Good, 0), 1), Killed(Undisturbed, 1), Killed(Cut(Good, 0), 1)]),
    (Row::SyncObjects, [Killed(Undisturbed, 1), Killed(Cut(Good, 0), 1), Killed(Undisturbed, 1)]),
    (Row::NameRevision, [Killed(Replace, 4), Killed(Undisturbed, 1), Killed(Replace, 4)]),
    (Row::SyncTrails, [Killed(Undisturbed, 1), Killed(Replace, 4), Killed(Undisturbed, 1)]),
    (Row::DropReplaced, [Harmless(SWEPT), Meaningless(NO_NEXT), Harmless(SWEPT)]),
    (Row::BuildAssets, [Killed(Undisturbed, 0), Harmless(FREE_ORDER), Killed(PrepareAgain, 1)]),
    (Row::WriteIntent, [Killed(Cut(Good, 0), 4), Killed(Cut(Good, 0), 4), Killed(Cut(Good, 0), 4)]),
    (Row::SyncAssets, [Killed(Undisturbed, 1), Killed(Cut(Good, 1), 1), Killed(Undisturbed, 1)]),
    (Row::ShowAssets, [Killed(PrepareAgain, 1), Killed(PrepareAgain, 1), Killed(PrepareAgain, 1)]),
    (Row::NameAssets, [Killed(Undisturbed, 1), Killed(Undisturbed, 1), Killed(Undisturbed, 1)]),
    (Row::Checkpoint, [Killed(Undisturbed, 1), Killed(PrepareAgain, 1), Killed(Undisturbed, 1)]),
    (Row::DropOldAssets, [Harmless(SWEPT), Meaningless(NO_NEXT), Harmless(SWEPT)]),
    (Row::ReadCopies, [Killed(Undisturbed, 0), Meaningless(READ), Killed(Undisturbed, 0)]),
    (Row::WriteCopy, [Killed(Undisturbed, 0), Killed(Store(Scheme::Incremental), 4), Killed(Undisturbed, 0)]),
    (
        Row::SyncCopy,
        [Killed(Store(Scheme::Incremental), 4), Killed(Store(Scheme::Incremental), 4), Killed(Undisturbed, 0)],
    ),
    (
        Row::DropCache,
        [Killed(Store(Scheme::Incremental), 4), Killed(Store(Scheme::Incremental), 4), Meaningless(NO_RESULT)],
    ),
    (Row::ReadBack, [Killed(Store(Scheme::Incremental), 4), Meaningless(READ_BACK), Killed(Cut(KernelPanics, 1), 2)]),
    (Row::RetireCopy, [Killed(Store(Scheme::Boolean), 0), Meaningless(NO_NEXT), Killed(Store(Scheme::Boolean), 0)]),
    (Row::WriteRecord, [Killed(Undisturbed, 3), Killed(Undisturbed, 3), Killed(Undisturbed, 3)]),
    (Row::WriteLast, [Killed(Record, 4), Killed(Record, 4), Killed(Record, 4)]),
    (Row::SyncRecord, [Killed(Undisturbed, 3), Meaningless(NO_NEXT), Killed(Undisturbed, 3)]),
    (Row::WriteProgress, [Killed(Record, 0), Killed(Record, 0), Killed(Record, 0)]),
    (Row::NameProgress, [Killed(Record, 0), Meaningless(NO_NEXT), Killed(Record, 0)]),
    (Row::WriteMessage, [Killed(Message, 0), Killed(Message, 0), Killed(Message, 4)]),
    (Row::SyncMessage, [Killed(Message, 4), Killed(Message, 4), Killed(Message, 4)]),
    (Row::NameMessage, [Killed(Message, 4), Killed(Message, 4), Killed(Message, 4)]),
    (Row::SyncMessages, [Killed(Message, 4), Meaningless(NO_NEXT), Killed(Message, 4)]),
    (Row::Ready, [Killed(Undisturbed, 1), Killed(Cut(Good, 0), 1), Killed(Undisturbed, 1)]),
    (Row::Name, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Killed(Undisturbed, 0)]),
    (Row::Go, [Killed(Undisturbed, 0), Meaningless(NO_NEXT), Meaningless(NO_RESULT)]),
    (Row::CountTry, [Killed(Undisturbed, 3), Killed(Undisturbed, 3), Killed(Undisturbed, 3)]),
    (Row::RunCandidate, [Killed(Undisturbed, 0), Meaningless(NO_NEXT), Meaningless(NO_RESULT)]),
    (Row::Commit, [Killed(Undisturbed, 4), Killed(Cut(Good, 0), 2), Killed(Undisturbed, 4)]),
    (Row::RecordDone, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Killed(Undisturbed, 0)]),
    (Row::TellDone, [Killed(Undisturbed, 0), Meaningless(NO_NEXT), Meaningless(NO_RESULT)]),
    (Row::RecordReason, [Killed(Undisturbed, 4), Killed(Cut(NeverReady, 0), 4), Killed(Undisturbed, 4)]),
    (Row::Disarm, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Killed(Undisturbed, 0)]),
    (Row::GoBack, [Killed(Undisturbed, 0), Meaningless(NO_NEXT), Meaningless(NO_RESULT)]),
    (Row::LoaderCounts, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Killed(Undisturbed, 0)]),
    (Row::Sweep, [Killed(Hasty, 1), Harmless(SWEPT_LATER), Killed(Hasty, 1)]),
    (Row::Explain, [Killed(Undisturbed, 4), Killed(Cut(KernelPanics, 1), 4), Killed(Undisturbed, 4)]),
    (Row::Settle, [Killed(Undisturbed, 2), Killed(ResetBoot, 1), Killed(Undisturbed, 2)]),
    (Row::Run, [Killed(Undisturbed, 0), Meaningless(NO_NEXT), Meaningless(NO_RESULT)]),
    (Row::CountFall, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Killed(Undisturbed, 0)]),
    (Row::RestartDevice, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Meaningless(NO_RESULT)]),
    (Row::Forgive, [Killed(Undisturbed, 0), Meaningless(NO_NEXT), Killed(Undisturbed, 0)]),
    (Row::Mark, [Killed(Undisturbed, 1), Meaningless(READ), Killed(Undisturbed, 1)]),
    (Row::UnnameRevisions, [Killed(Collect, 1), Killed(Collect, 1), Killed(Collect, 1)]),
    (Row::SyncUnnamed, [Killed(Collect, 1), Killed(Collect, 1), Killed(Collect, 1)]),
    (Row::DropRevisions, [Killed(Clear, 4), Killed(Clear, 4), Killed(Clear, 4)]),
    (Row::DropObjects, [Killed(Clear, 4), Meaningless(NO_NEXT), Killed(Clear, 4)]),
    (Row::WriteMemory, [Killed(Memory, 0), Killed(Memory, 0), Killed(Memory, 4)]),
    (Row::SyncMemory, [Killed(Memory, 4), Killed(Memory, 4), Killed(Memory, 4)]),
    (Row::NameMemory, [Killed(Memory, 4), Killed(Memory, 4), Killed(Memory, 4)]),
    (Row::SyncRoot, [Killed(Memory, 4), Meaningless(NO_NEXT), Killed(Memory, 4)]),
    (Row::Intend, [Killed(Reset, 2), Killed(Reset, 2), Killed(Reset, 2)]),
    (Row::BeginReset, [Killed(Reset, 4), Killed(Reset, 4), Killed(Reset, 4)]),
    (Row::BootFactory, [Killed(Undisturbed, 0), Killed(Undisturbed, 0), Meaningless(NO_RESULT)]),
    (Row::OverwriteLast, [Killed(Clear, 4), Killed(Clear, 4), Killed(Clear, 4)]),
    (Row::SyncLast, [Killed(Clear, 5), Killed(Clear, 5), Killed(Clear, 5)]),
    (Row::DropOthers, [Killed(Clear, 4), Killed(Clear, 4), Killed(Clear, 4)]),
    (Row::SyncCleared, [Killed(Clear, 4), Killed(Clear, 4), Killed(Clear, 4)]),
    (Row::WriteEnd, [Killed(Clear, 4), Killed(Clear, 4), Killed(Clear, 4)]),
    (Row::SyncEnd, [Killed(Clear, 4), Meaningless(NO_NEXT), Killed(Clear, 4)]),
    (Row::WriteText, [Killed(TakeOver, 0), Killed(TakeOver, 0), Killed(TakeOver, 1)]),
    (Row::SyncText, [Killed(TakeOver, 1), Killed(TakeOver, 1), Killed(TakeOver, 1)]),
    (Row::SyncView, [Killed(TakeOver, 1), Killed(TakeOver, 1), Killed(TakeOver, 1)]),
    (Row::SwapTexts, [Killed(TakeOver, 4), Killed(TakeOver, 4), Killed(TakeOver, 4)]),
    (Row::SyncSwap, [Killed(TakeOver, 4), Killed(TakeOver, 4), Killed(TakeOver, 4)]),
    (Row::DropText, [Harmless(SWEPT), Meaningless(NO_NEXT), Harmless(SWEPT)]),
    (Row::WriteTable, [Killed(Grow, 0), Killed(Grow, 5), Killed(Grow, 0)]),
    (Row::SyncTable, [Killed(Grow, 5), Killed(Grow, 5), Killed(Grow, 0)]),
    (Row::ReadTable, [Killed(Grow, 5), Killed(Grow, 5), Killed(Grow, 5)]),
    (Row::TellKernel, [Killed(Grow, 0), Killed(Grow, 0), Killed(Grow, 0)]),
    (Row::GrowFiles, [Killed(Grow, 0), Meaningless(NO_NEXT), Killed(Grow, 0)]),
];
