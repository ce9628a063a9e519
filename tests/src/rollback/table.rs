//! What was seen, case by case, and the matrix of all boards that the book shows.
//!
//! Invariants: a cell is what the last run of its case wrote, also that the case did not hold; a cell that no run wrote
//! is untested, with the reason. Nothing is filled in by hand.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use boards::{Board, Env, Kernel, Medium};
use serde_json::{Value, json};

use super::lab::Lab;
use super::{Case, cases};
use crate::tour::{Outcome, fail};

/// What became of a case.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The device came back to what is committed.
    CameBack {
        /// How often the candidate was booted.
        tries: usize,
        /// The code that the status shows.
        code: String,
    },
    /// It stood until somebody cut the power; each cut was a try, and then it came back.
    NotSurvived {
        /// How often the candidate was booted.
        tries: usize,
        /// The code that the status shows in the end.
        code: String,
    },
    /// What a case held of which there is nothing to count.
    Held(String),
    /// The claim did not hold; the run's report says why.
    DidNotHold,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CameBack { tries: 1, code } => write!(f, "back after 1 try, {code}"),
            Self::CameBack { tries, code } => write!(f, "back after {tries} tries, {code}"),
            Self::NotSurvived { tries, code } => write!(f, "**not survived**: back after {tries} power cuts, {code}"),
            Self::Held(what) => f.write_str(what),
            Self::DidNotHold => f.write_str("**FAILED**"),
        }
    }
}

/// One observation.
pub struct Row(Value);

impl Row {
    /// What was seen of a case on the lab's board.
    pub fn new(lab: &Lab, case: &Case, seen: &Seen, took: Duration) -> Self {
        Self(json!({"board": lab.board.name, "case": case.name, "seen": seen.to_string(),
            "seconds": took.as_secs()}))
    }
}

/// Drops what was seen of these cases on this board: they are about to be observed anew.
pub fn forget(file: &Path, board: &str, cases: &[Case]) -> Outcome<()> {
    if !file.exists() {
        return Ok(());
    }
    let mut all = read(file)?;
    all.retain(|old| old["board"] != board || !cases.iter().any(|case| old["case"] == case.name));
    keep(file, &all)
}

/// Adds an observation to those of earlier runs; what was seen again replaces what was seen before.
pub fn write(file: &Path, row: &Row) -> Outcome<()> {
    let mut all = if file.exists() { read(file)? } else { Vec::new() };
    all.retain(|old| row.0["case"] != old["case"] || row.0["board"] != old["board"]);
    all.push(row.0.clone());
    keep(file, &all)
}

fn keep(file: &Path, rows: &[Value]) -> Outcome<()> {
    Ok(std::fs::write(file, format!("{:#}\n", json!(rows)))?)
}

fn read(file: &Path) -> Outcome<Vec<Value>> {
    match serde_json::from_slice(&std::fs::read(file)?)? {
        Value::Array(rows) => Ok(rows),
        other => fail(format!("{}: not a list: {other}", file.display())),
    }
}

/// The machines of the matrix: for people, and the board.
pub const MACHINES: &[(&str, &str)] = &[
    ("qemu-arm64, demo device", "qemu-arm64"),
    ("qemu-arm64, lab device", "qemu-arm64-lab"),
    ("raspi3b", "rpi-uboot"),
    ("sabrelite", "imx"),
];

/// Why nobody observed this case on this board: what cannot be made there, else that it was not run.
fn reason(board: &Board, case: &str) -> &'static str {
    let in_flash = matches!(board.env, Env::Uboot { medium: Medium::Mtd(_) | Medium::Ubi { .. }, .. });
    let is_packed = board.kernel != Kernel::Image;
    match case {
        "save-fails" | "env-dead" if in_flash => "the fault is made on a disk, this environment is in flash",
        "cut-in-save" if !board.guarantee.torn_write => "a cut may tear its one copy of the environment",
        "cut-tail" if is_packed => "its kernel is packed, a part of it is found out: as `cut-kernel`",
        "dead" if board.kernel == Kernel::ZImage => "the dead kernel is made for 64-bit Arm",
        "dead" if is_packed => "not run, nothing ends a hang before Linux there: softdog begins later",
        "starve" if board.kernel == Kernel::ZImage => "not run; it takes three times the minute of the chip's watchdog",
        "block" if is_packed => "not run; it needs the same watchdog as `starve`",
        "script" if is_packed => "not run; PID 1 decides, as on the other boards",
        owner if is_packed && owner.starts_with("owner-") => {
            "tried on qemu-arm64; the counting script is tested by itself (tests/tests/counted_script.rs)"
        }
        _ => "not run",
    }
}

/// The marks between which the page holds what was observed.
const MARKS: (&str, &str) = ("<!-- observed: begin -->\n", "<!-- observed: end -->");

/// Puts the tables of these observations into a page.
pub fn publish(page: &Path, files: &[&Path]) -> Outcome<()> {
    let mut rows = Vec::new();
    for file in files {
        rows.extend(read(file)?);
    }
    let text = std::fs::read_to_string(page)?;
    let parts = text.split_once(MARKS.0).and_then(|(head, rest)| Some((head, rest.split_once(MARKS.1)?.1)));
    let Some((head, tail)) = parts else { return fail(format!("{}: its two marks are not there", page.display())) };
    Ok(std::fs::write(page, format!("{head}{}{}{}{tail}", MARKS.0, markdown(&rows), MARKS.1))?)
}

/// The matrix, and all other cases.
fn markdown(rows: &[Value]) -> String {
    let (matrix, more): (Vec<Case>, Vec<Case>) = cases().partition(|case| case.column.is_some());
    let name = |case: &Case| case.column.map_or(case.about.into(), |column| format!("{column}: {}", case.about));
    [("candidate", matrix), ("more", more)]
        .into_iter()
        .map(|(heading, cases)| {
            let machines: String = MACHINES.iter().map(|(machine, _)| format!(" {machine} |")).collect();
            let lines: String = cases
                .iter()
                .map(|case| {
                    let cells: String =
                        MACHINES.iter().map(|(_, board)| format!(" {} |", cell(rows, case, board))).collect();
                    format!("| {} |{cells} `{}` |\n", name(case), case.name)
                })
                .collect();
            format!("| {heading} |{machines} CASE |\n|{}\n{lines}\n", "---|".repeat(MACHINES.len() + 2))
        })
        .collect()
}

fn cell(rows: &[Value], case: &Case, board: &str) -> String {
    let row = rows.iter().find(|row| row["case"] == case.name && row["board"] == board);
    row.map_or_else(
        || format!("untested: {}", boards::find(board).map_or("no such board", |board| reason(board, case.name))),
        |row| format!("{} ({} s)", row["seen"].as_str().unwrap_or("?"), row["seconds"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cell_says_why() {
        let empty = |board: &str, case: &str| {
            let case = cases().find(|known| known.name == case).unwrap();
            cell(&[], &case, board)
        };
        for board in ["qemu-arm64", "qemu-arm64-lab"] {
            assert!(cases().all(|case| cell(&[], &case, board) == "untested: not run"), "{board}");
        }
        assert!(empty("imx", "save-fails").contains("in flash"));
        assert_eq!(empty("rpi-uboot", "save-fails"), "untested: not run");
        for board in ["rpi-uboot", "imx"] {
            assert_eq!(empty(board, "panic"), "untested: not run");
            for case in ["owner-limit", "block", "dead", "cut-tail", "script"] {
                let said = empty(board, case);
                assert!(said != "untested: not run" && !said.contains("flash"), "{board} {case}: {said}");
            }
        }
    }

    #[test]
    fn a_case_that_is_tried_again_does_not_show_what_it_was() {
        let file = std::env::temp_dir().join(format!("switchback-rows-{}.json", std::process::id()));
        for (board, case) in [("qemu-arm64", "panic"), ("qemu-arm64", "crash"), ("imx", "panic")] {
            let row = json!({"board": board, "case": case, "seen": "old", "seconds": 7});
            write(&file, &Row(row)).unwrap();
        }
        let panic: Vec<Case> = cases().filter(|case| case.name == "panic").collect();
        forget(&file, "qemu-arm64", &panic).unwrap();
        let rows = read(&file).unwrap();
        assert_eq!(cell(&rows, &panic[0], "qemu-arm64"), "untested: not run");
        assert_eq!(cell(&rows, &panic[0], "imx"), "old (7 s)");
        assert_eq!(rows.len(), 2);
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_cell_is_what_was_seen_last_and_the_page_around_it_stays() {
        let folder = std::env::temp_dir().join(format!("switchback-table-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (page, rows) = (folder.join("page.md"), folder.join("rows.json"));
        std::fs::write(&page, format!("before\n{}STALE\n{}\nafter\n", MARKS.0, MARKS.1)).unwrap();
        let row = |seen: &str| Row(json!({"board": "qemu-arm64", "case": "panic", "seen": seen, "seconds": 7}));
        for seen in ["first", "back after 3 tries, SB1405"] {
            write(&rows, &row(seen)).unwrap();
            publish(&page, &[&rows]).unwrap();
        }
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n"), "{text}");
        assert!(text.contains("| back after 3 tries, SB1405 (7 s) | untested: not run |"), "{text}");
        assert!(!text.contains("| first") && !text.contains("STALE"), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
