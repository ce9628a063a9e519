//! The book's tables are what the code says: a code or a bound that changes without its page fails here.
//!
//! `BLESS=1 cargo test -p tests --test book` writes the pages anew.

use runtime::{
    fault::Code,
    limits,
    protocol::{Operation, TABLE},
};
use simulator::rows::{Fate, fates};
use std::{collections::BTreeMap, fmt::Write, path::Path};
use tests::stages::{Proof, STAGES, markdown, proofs};

fn page(name: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, want).expect("docs/ is writable");
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(have == want, "docs/{name} differs from the code: BLESS=1 cargo test -p tests --test book");
}

#[test]
fn every_code_is_listed() {
    let mut want = String::from(
        "# Codes\n\nEvery fault that a person or a program can see has one of these codes. A code never changes its meaning and is\nnever given again. `HTTP` is the status with which the control socket reports it.\n\n| code | HTTP | meaning |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        writeln!(want, "| {code} | {} | {} |", code.http(), code.text()).unwrap();
    }
    page("codes.md", &want);
}

#[test]
fn every_bound_is_listed() {
    let mut want = String::from(
        "# Limits\n\nEvery bound of the device. What exceeds one is refused with a code; `pvr` checks the same numbers before it posts,\nand `pvcontrol limits` prints them on the device.\n\n| name | value | unit |\n|---|---|---|\n",
    );
    for (name, value, unit) in limits::TABLE {
        writeln!(want, "| {name} | {value} | {unit} |").unwrap();
    }
    page("limits.md", &want);
}

#[test]
fn no_number_is_given_twice() {
    let mut numbers: Vec<u16> = Code::ALL.iter().map(|code| *code as u16).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(Code::ALL.iter().all(|code| Code::from_number(*code as u16) == Some(*code)));
}

/// Between two lines of a page that is written by hand.
fn part(name: &str, mark: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let have = std::fs::read_to_string(path).expect("a page of the book");
    let [begin, end] = ["begin", "end"].map(|what| format!("<!-- {mark}: {what} -->\n"));
    let (before, rest) = have.split_once(&begin).expect("a part begins");
    let (_, after) = rest.split_once(&end).expect("a part ends");
    page(name, &format!("{before}{begin}{want}{end}{after}"));
}

/// The operations, each with its table; then why a mutant is none.
#[test]
fn every_row_of_the_protocol_is_listed() {
    let mut want = String::new();
    let mut reasons: Vec<&str> = vec![];
    let mut operation: Option<Operation> = None;
    for step in TABLE {
        if operation != Some(step.operation) {
            operation = Some(step.operation);
            writeln!(want, "\n### {}\n", title(step.operation)).unwrap();
            want.push_str("| | step | a cut before the next one leaves | skipped | swapped | ignored |\n|---|---|---|---|---|---|\n");
        }
        let cells = fates(step.row).map(|fate| match fate {
            Fate::Killed(_, law) => law.to_string(),
            Fate::Harmless(why) | Fate::Meaningless(why) => {
                let at = reasons.iter().position(|known| *known == why).unwrap_or_else(|| {
                    reasons.push(why);
                    reasons.len() - 1
                });
                char::from(b'a' + at as u8).to_string()
            }
        });
        writeln!(want, "| {} | {} | {} | {} |", step.id, step.effect, step.cut, cells.join(" | ")).unwrap();
    }
    let alone = |fate: &Fate| !matches!(fate, Fate::Killed(_, law) if *law > 0);
    let killed = |fate: &Fate| matches!(fate, Fate::Killed(..));
    let function: Vec<&str> = TABLE
        .iter()
        .filter(|step| fates(step.row).iter().all(alone) && fates(step.row).iter().any(killed))
        .map(|step| step.id)
        .collect();
    let (all, some) = (TABLE.len(), function.len());
    let of = |law: u8| {
        TABLE
            .iter()
            .flat_map(|step| fates(step.row))
            .filter(|fate| matches!(fate, Fate::Killed(_, by) if *by == law))
            .count()
    };
    writeln!(
        want,
        "\nFunction, not safety: {some} of the {all} rows are missed by law 0 in the first hunt that finds them ({}). That\n\
         shows that a device without them does less than it is asked for; whether a power cut would harm it as well is not\n\
         looked for there. Of the mutants, {} are found by law 0 and {} by laws 1 to 5.",
        function.join(", "),
        of(0),
        (1..=5).map(of).sum::<usize>(),
    )
    .unwrap();
    want.push_str("\nNot missed, and why:\n\n");
    for (at, why) in reasons.iter().enumerate() {
        writeln!(want, "* **{}**: {why}.", char::from(b'a' + at as u8)).unwrap();
    }
    want.push('\n');
    part("power-cuts.md", "rows", &want);
}

/// Every stage with what shows it; no step is in none, and what is named is there.
#[test]
fn every_stage_is_shown_to_survive_a_cut() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let missing: Vec<String> =
        proofs().filter(|proof| !proof.exists(&root)).map(|proof| format!("{proof:?}")).collect();
    assert!(missing.is_empty(), "named and not there: {missing:?}");
    assert!(!Proof::Test("tests/tests/book.rs", "nothing").exists(&root) && !Proof::Tour("99").exists(&root));
    assert!(STAGES.iter().all(|stage| !stage.boots.1.is_empty() && !stage.left.1.is_empty()), "a cell without proof");
    let lost: Vec<&str> =
        TABLE.iter().filter(|step| !STAGES.iter().any(|stage| stage.has(step.row))).map(|step| step.id).collect();
    assert!(lost.is_empty(), "steps of no stage: {lost:?}");
    part("power-cuts.md", "stages", &markdown());
}

/// A recording, or a part of the simulator, comes through a step of each stage that it is to show.
#[test]
fn what_shows_a_stage_comes_through_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut replays, mut parts, mut known) = (0, 0, BTreeMap::new());
    for stage in STAGES {
        for proof in stage.boots.1.iter().chain(stage.left.1) {
            let rows = known.entry(format!("{proof:?}")).or_insert_with(|| proof.rows(&root));
            let Some(rows) = rows else { continue };
            assert!(rows.iter().any(|row| stage.has(*row)), "{proof} has no step of {}: {rows:?}", stage.cut);
            match proof {
                Proof::Replay(_) => replays += 1,
                _ => parts += 1,
            }
        }
    }
    assert!(replays > 15 && parts > 10, "{replays} recordings and {parts} parts of the simulator were known");
    let steady = Proof::Replay("steady").rows(&root).unwrap();
    assert!(steady.is_empty(), "a recording that is not asked for any row shows no stage");
}

/// The table of what the replay of real disks has shown: as a run of `ci/evidence replay` writes it.
#[test]
fn the_table_of_the_replay_is_that_of_a_run_that_held() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/power-cuts.md");
    let text = std::fs::read_to_string(page).expect("a page of the book");
    if let Err(error) = tests::replay::book::check(&text) {
        panic!("docs/power-cuts.md: {error}; `ci/evidence replay` writes the table");
    }
}

fn title(operation: Operation) -> &'static str {
    match operation {
        Operation::Install => "Installation",
        Operation::Prepare => "Making a candidate visible to the loader",
        Operation::Store => "A store of the environment",
        Operation::Record => "A record of the journal",
        Operation::Progress => "Progress",
        Operation::Message => "A message",
        Operation::Arm => "Arming",
        Operation::Trial => "Trial",
        Operation::Commit => "Commit",
        Operation::Fail => "Failure",
        Operation::Boot => "Boot and recovery",
        Operation::Restart => "A restart that is to help",
        Operation::Collect => "Collection",
        Operation::Remember => "What an errand keeps, and metadata",
        Operation::FactoryReset => "Factory reset",
        Operation::TakeOver => "Taking over the text of the original's loader",
        Operation::Grow => "Growth of storage",
    }
}
