//! A power cut in each stage of a device's life: what boots then, what is left, and what shows it.
//!
//! The book prints the table. Its test holds that every row of the protocol belongs to a stage, that whatever a cell names
//! is there (a test that is renamed or removed is missed), and that a recording or a part of the simulator comes through a
//! step of the stage that it is named for.
//! Does not: run what it names; each belongs to its own suite. What a test by hand or a step of a tour goes through is not
//! looked at.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use runtime::protocol::Row;
use simulator::suite::{self, PARTS};

use crate::replay::rows;
use crate::{bad_input, record, rollback, tour};

/// What shows that a cell is so.
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    /// A test: its file below the checkout, and its name.
    Test(&'static str, &'static str),
    /// A step of the tour of the emulated device.
    Tour(&'static str),
    /// Every state of the disk of this recording.
    Replay(&'static str),
    /// A case of the rollback matrix.
    Rollback(&'static str),
    /// A step of the bad input to the emulated device.
    Bad(&'static str),
}

/// A sentence, and what shows it.
pub struct Cell(pub &'static str, pub &'static [Proof]);

/// A stage.
pub struct Stage {
    /// What the cut comes into.
    pub cut: &'static str,
    /// Its steps: from and to.
    pub rows: &'static [(Row, Row)],
    /// What the next start boots.
    pub boots: Cell,
    /// What is left of the stage.
    pub left: Cell,
}

const POWER_CUT: &str = "tests/sim/tests/power_cut.rs";
const FATES: Proof = Proof::Test("tests/sim/tests/rows.rs", "every_mutant_of_a_row_has_its_fate");
const SCRIPT: &str = "tests/tests/boot_script.rs";
const ONE_VOLUME: &str = "tests/sim/tests/one_volume.rs";
const RESET: &str = "tests/sim/tests/factory_reset.rs";
const FULL: Proof = Proof::Test("platform/tests/full_disk.rs", "no_step_without_space_breaks_a_law");

const fn cut(test: &'static str) -> Proof {
    Proof::Test(POWER_CUT, test)
}

/// All of them.
pub const STAGES: &[Stage] = &[
    Stage {
        cut: "the arrival of an object",
        rows: &[(Row::Arrive, Row::Arrive)],
        boots: Cell("The committed revision.", &[Proof::Tour("6a"), Proof::Replay("install")]),
        left: Cell(
            "A part of it, or the whole, where nobody looks: swept at the start; it is sent again.",
            &[Proof::Tour("6a"), FATES],
        ),
    },
    Stage {
        cut: "the writing of objects and revision",
        rows: &[(Row::Build, Row::DropReplaced)],
        boots: Cell(
            "The committed revision.",
            &[cut("one_cut_by_reboot"), Proof::Replay("install"), Proof::Replay("replace"), Proof::Bad("cut")],
        ),
        left: Cell(
            "Objects without a revision, each whole: found again or collected. Or the revision, whole; nothing names it.",
            &[cut("a_failed_sync_takes_with_it_all_that_came_in"), Proof::Replay("install"), FULL],
        ),
    },
    Stage {
        cut: "what is between that and the change of the environment",
        rows: &[(Row::BuildAssets, Row::DropOldAssets), (Row::Ready, Row::Ready)],
        boots: Cell(
            "The committed revision.",
            &[cut("one_cut_by_reboot"), Proof::Replay("base"), Proof::Replay("replace")],
        ),
        left: Cell(
            "The revision is there and need not be sent again; its update, once recorded (P3), says that it was interrupted \
             (SB1403).",
            &[
                cut("what_is_cut_before_it_is_armed_says_so"),
                cut("what_is_prepared_again_is_never_gone"),
                Proof::Replay("base"),
                FULL,
            ],
        ),
    },
    Stage {
        cut: "a store of the environment",
        rows: &[(Row::ReadCopies, Row::RetireCopy)],
        boots: Cell(
            "What it said before or what it was to say, never neither.",
            &[cut("one_cut_by_reboot"), cut("one_cut_in_place"), Proof::Replay("base")],
        ),
        left: Cell(
            "At worst one damaged copy, which is not in force; without any, the revision of `last` boots.",
            &[cut("one_copy_is_damaged"), cut("both_copies_are_damaged"), FATES],
        ),
    },
    Stage {
        cut: "the restart, and the loader counting the try",
        rows: &[(Row::Name, Row::Go), (Row::LoaderCounts, Row::LoaderCounts)],
        boots: Cell(
            "The candidate, counted or not; or the committed revision.",
            &[Proof::Test(SCRIPT, "the_loaders_save_may_be_cut_anywhere"), Proof::Tour("6c")],
        ),
        left: Cell(
            "A count that is old or new: at most three boots of it, then the committed revision.",
            &[Proof::Rollback("cut-in-save"), cut("many_cuts_and_updates")],
        ),
    },
    Stage {
        cut: "the start of a candidate's kernel and initramfs",
        rows: &[(Row::Go, Row::Go), (Row::CountTry, Row::CountTry)],
        boots: Cell(
            "The candidate again, three times at most; then the committed revision.",
            &[Proof::Test(SCRIPT, "a_candidate_that_resets_is_tried_three_times"), Proof::Tour("5")],
        ),
        left: Cell(
            "The reason: the loader gave it up (SB1405), or it was tried too often (SB1404).",
            &[
                cut("an_undisturbed_device_does_what_it_is_asked_for"),
                Proof::Replay("given-up"),
                Proof::Rollback("panic"),
            ],
        ),
    },
    Stage {
        cut: "a trial, before its goals are met",
        rows: &[(Row::RunCandidate, Row::RunCandidate), (Row::RecordReason, Row::GoBack)],
        boots: Cell(
            "The candidate again, as often as is left; one that has failed, never again.",
            &[Proof::Tour("6c"), cut("one_cut_by_reboot"), Proof::Replay("failed")],
        ),
        left: Cell(
            "The reason why it failed, recorded before it is given up.",
            &[Proof::Replay("failed"), Proof::Tour("4b")],
        ),
    },
    Stage {
        cut: "the commit",
        rows: &[
            (Row::Commit, Row::TellDone),
            (Row::WriteRecord, Row::SyncRecord),
            (Row::WriteProgress, Row::NameProgress),
        ],
        boots: Cell(
            "The new revision, committed; or as a trial once more.",
            &[cut("one_cut_by_reboot"), Proof::Replay("base")],
        ),
        left: Cell(
            "DONE was told only if it is committed; journal and progress are made to agree.",
            &[cut("many_cuts_and_updates"), Proof::Replay("base"), FULL],
        ),
    },
    Stage {
        cut: "an update in place",
        rows: &[(Row::Name, Row::Go), (Row::Commit, Row::TellDone)],
        boots: Cell(
            "The new revision: committed, or as a trial by a boot. One that failed: the revision before.",
            &[cut("one_cut_in_place"), Proof::Replay("in-place"), Proof::Replay("failed-in-place")],
        ),
        left: Cell(
            "Its first boot is watched: goals missed then, the revision before is committed again (SB1411).",
            &[cut("one_cut_in_place")],
        ),
    },
    Stage {
        cut: "a collection",
        rows: &[(Row::Mark, Row::DropObjects)],
        boots: Cell("The committed revision.", &[Proof::Replay("collect"), cut("a_cut_in_one_operation")]),
        left: Cell(
            "Every kept revision, whole; remains of the others, swept at the start or found by the next collection.",
            &[Proof::Replay("collect"), FATES, FULL],
        ),
    },
    Stage {
        cut: "a start",
        rows: &[(Row::Sweep, Row::Run)],
        boots: Cell("What this start decided.", &[cut("a_cut_in_the_recovery"), Proof::Replay("first-boot")]),
        left: Cell("What was not swept or recorded yet: done by the next one.", &[cut("a_cut_in_the_recovery"), FATES]),
    },
    Stage {
        cut: "a restart that a fallen container forces",
        rows: &[(Row::CountFall, Row::Forgive)],
        boots: Cell("The committed revision.", &[cut("one_cut_and_containers_that_fall")]),
        left: Cell(
            "The count of such restarts: after three the device stays up without that container.",
            &[cut("a_committed_revision_that_breaks_comes_to_rest")],
        ),
    },
    Stage {
        cut: "the keeping of keys, tokens and metadata",
        rows: &[(Row::WriteMemory, Row::SyncRoot)],
        boots: Cell("The committed revision.", &[Proof::Replay("memory"), Proof::Replay("metadata")]),
        left: Cell(
            "What was kept before or what was to be kept, each whole.",
            &[
                Proof::Test("tests/sim/tests/endpoint_memory.rs", "the_old_or_the_new_is_kept_whatever_happens"),
                Proof::Replay("memory"),
                FULL,
            ],
        ),
    },
    Stage {
        cut: "the change of a commit message",
        rows: &[(Row::WriteMessage, Row::SyncMessages)],
        boots: Cell("The committed revision.", &[cut("a_cut_in_one_operation"), Proof::Replay("install")]),
        left: Cell("The message of before or the new one, each whole.", &[Proof::Replay("install"), FATES, FULL]),
    },
    Stage {
        cut: "the takeover of an original's loader text",
        rows: &[(Row::WriteText, Row::DropText)],
        boots: Cell(
            "The committed revision: the original's, in a trial that took over; ours, as it is.",
            &[cut("one_cut_in_the_trial_of_a_takeover"), cut("one_cut_after_a_takeover"), Proof::Replay("takeover")],
        ),
        left: Cell(
            "The text of before or the new one: they say the same, and each is whole.",
            &[
                FATES,
                Proof::Test(ONE_VOLUME, "every_row_of_the_takeover_is_missed_by_a_device_in_its_trial"),
                Proof::Replay("takeover"),
            ],
        ),
    },
    Stage {
        cut: "the growth of storage",
        rows: &[(Row::WriteTable, Row::GrowFiles)],
        boots: Cell("The committed revision.", &[Proof::Replay("growth")]),
        left: Cell(
            "The partition and its file system of before, or longer ones; the next start ends what was begun.",
            &[FATES, Proof::Replay("growth")],
        ),
    },
    Stage {
        cut: "a factory reset",
        rows: &[(Row::Intend, Row::SyncEnd)],
        boots: Cell(
            "The committed revision, if it did not begin; else revision 0.",
            &[Proof::Test(RESET, "it_ends_or_does_not_begin"), Proof::Replay("factory-reset")],
        ),
        left: Cell(
            "Once begun, it goes on before any container starts, until nothing else is there.",
            &[Proof::Test(RESET, "it_ends_or_does_not_begin"), Proof::Replay("factory-reset"), FULL],
        ),
    },
];

impl Proof {
    /// Whether there is such a thing in the checkout below `root`.
    pub fn exists(self, root: &Path) -> bool {
        let holds =
            |file: &str, words: &str| std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(words));
        match self {
            // a function, or one of those that a macro makes of its list
            Self::Test(file, name) => {
                holds(file, &format!("#[test]\nfn {name}() {{")) || holds(file, &format!("\n    {name} = \""))
            }
            Self::Tour(step) => tour::steps::is_step(step),
            Self::Replay(name) => record::operations::CASES.iter().any(|case| case.name == name),
            Self::Rollback(name) => rollback::cases().any(|case| case.name == name),
            Self::Bad(step) => bad_input::steps::is_step(step),
        }
    }
}

impl Proof {
    /// The rows that it comes through, where that can be known without it.
    pub fn rows(self, root: &Path) -> Option<BTreeSet<Row>> {
        match self {
            Self::Replay(name) => {
                let case = record::operations::CASES.iter().find(|case| case.name == name)?;
                rows::wanted(case.operation).ok().map(Iterator::collect)
            }
            Self::Test(POWER_CUT, name) => {
                // A line of the macro that makes one test of each part: `one_cut_by_reboot = "one cut, update by reboot";`
                let text = std::fs::read_to_string(root.join(POWER_CUT)).ok()?;
                let named = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = \""))?;
                let part = PARTS.iter().find(|part| named.trim_end_matches("\";") == part.name)?;
                Some(suite::announced(part))
            }
            _ => None,
        }
    }
}

impl Stage {
    /// Whether a row is one of its steps.
    pub fn has(&self, row: Row) -> bool {
        self.rows.iter().any(|(from, to)| (from..=to).contains(&&row))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test(_, name) => write!(f, "`{name}`"),
            Self::Tour(step) => write!(f, "tour {step}"),
            Self::Replay(name) => write!(f, "replay of `{name}`"),
            Self::Rollback(name) => write!(f, "rollback `{name}`"),
            Self::Bad(step) => write!(f, "stick `{step}`"),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proofs: Vec<String> = self.1.iter().map(Proof::to_string).collect();
        write!(f, "{} *{}*", self.0, proofs.join(", "))
    }
}

/// The table, and what each kind of proof is.
pub fn markdown() -> String {
    let mut page = String::from("| a cut during | steps | boots next | is left |\n|---|---|---|---|\n");
    for Stage { cut, rows, boots, left } in STAGES {
        let range = |(from, to): &(Row, Row)| match from == to {
            true => from.id().to_string(),
            false => format!("{} to {}", from.id(), to.id()),
        };
        let rows: Vec<String> = rows.iter().map(range).collect();
        page += &format!("| {cut} | {} | {boots} | {left} |\n", rows.join(", "));
    }
    let mut files: Vec<(&str, &str)> = vec![];
    for proof in proofs() {
        if let Proof::Test(file, name) = proof
            && !files.contains(&(file, name))
        {
            files.push((file, name));
        }
    }
    files.sort_unstable();
    page += "\nTests, each with its file:\n\n";
    files.iter().for_each(|(file, name)| page += &format!("* `{name}`: {file}\n"));
    page + "\n"
}

/// Everything that a cell names.
pub fn proofs() -> impl Iterator<Item = Proof> {
    STAGES.iter().flat_map(|stage| stage.boots.1.iter().chain(stage.left.1)).copied()
}
