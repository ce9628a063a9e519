//! The table of the replay in the book: written from the rows of a run, and held to what is claimed of it.
//!
//! Invariants: one line for each recording of which every state was looked at, in the order in which they are recorded, none
//! by hand. Those of which not are named below the table. What did not hold is not published.

use std::path::Path;

use super::judge::{ALL_STATES_MIN, STATES_MIN};
use super::recording::Control;
use crate::record::operations::{CASES, Case};
use crate::tour::{Outcome, ensure, fail};
use simulator::evidence_rows::{self, Row};

/// Between these lines of the page.
const MARKS: [&str; 2] = ["<!-- replay: begin -->\n", "<!-- replay: end -->\n"];

/// A line of the table.
struct Line {
    case: &'static Case,
    states: u64,
    distinct: u64,
    classes: u64,
    violations: u64,
}

/// Writes the table of the rows in `file` into the book's page.
pub fn publish(page: &Path, file: &Path) -> Outcome<()> {
    let lines = lines(&evidence_rows::read(file)?);
    hold(&lines)?;
    let text = std::fs::read_to_string(page)?;
    let (head, _, tail) = parts(&text)?;
    Ok(std::fs::write(page, format!("{head}{}{}{}{tail}", MARKS[0], table(&lines), MARKS[1]))?)
}

/// Fails unless the table of the page is one that `publish` writes.
pub fn check(text: &str) -> Outcome<()> {
    let (_, table_there, _) = parts(text)?;
    let rows: Option<Vec<Row>> = table_there.lines().filter(|line| line.starts_with("| `")).map(row).collect();
    let lines = lines(&rows.ok_or("a line of the table has no name or lacks a number")?);
    hold(&lines)?;
    ensure(table(&lines) == table_there, || "the table was not written by a run".into())
}

fn parts(text: &str) -> Outcome<(&str, &str, &str)> {
    let parts = text.split_once(MARKS[0]).and_then(|(head, rest)| Some((head, rest.split_once(MARKS[1])?)));
    let Some((head, (table, tail))) = parts else { return fail("its two marks are not there".into()) };
    Ok((head, table, tail))
}

/// Of the rows that are of all states of a recording.
fn lines(rows: &[Row]) -> Vec<Line> {
    let line = |case: &'static Case| {
        let whole = format!("ci/evidence replay {}", case.name);
        let Row { count, distinct, classes, violations, .. } = *rows.iter().find(|row| row.command == whole)?;
        Some(Line { case, states: count, distinct, classes: classes?, violations })
    };
    CASES.iter().filter_map(line).collect()
}

/// What is claimed.
fn hold(lines: &[Line]) -> Outcome<()> {
    let is_control = |line: &&Line| line.case.control != Control::None;
    for Line { case, states, violations, .. } in lines.iter().filter(|line| !is_control(line)) {
        let name = case.name;
        ensure(*states >= STATES_MIN, || format!("{name}: {states} states, not {STATES_MIN}"))?;
        ensure(*violations == 0, || format!("{name}: {violations} violations"))?;
    }
    for line in lines.iter().filter(is_control) {
        ensure(line.violations > 0, || format!("{}: nothing is broken", line.case.name))?;
    }
    let all: u64 = lines.iter().filter(|line| !is_control(line)).map(|line| line.states).sum();
    ensure(all >= ALL_STATES_MIN || lines.len() < CASES.len(), || format!("{all} states in all, not {ALL_STATES_MIN}"))
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from("| recording | states | distinct | classes | violations |\n|---|---|---|---|---|\n");
    let mut all = [0; 2];
    for Line { case, states, distinct, classes, violations } in lines {
        let must = if case.control == Control::None { "" } else { " (must be)" };
        text += &format!("| `{}` | {states} | {distinct} | {classes} | {violations}{must} |\n", case.name);
        if case.control == Control::None {
            all = [all[0] + states, all[1] + violations];
        }
    }
    text += &format!("| all but what must break | {} | | | {} |\n", all[0], all[1]);
    let is_missing = |case: &&Case| !lines.iter().any(|line| line.case.name == case.name);
    let missing: Vec<String> = CASES.iter().filter(is_missing).map(|case| format!("`{}`", case.name)).collect();
    if !missing.is_empty() {
        text += &format!("\nNo run has gone through all states of these yet: {}.\n", missing.join(", "));
    }
    text
}

/// The row that a line of the table was made of.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, states, distinct, classes, violations] = cells[..] else { return None };
    let name = format!("replay {}", name.trim_matches('`'));
    Some(Row {
        command: format!("ci/evidence {name}"),
        name,
        count: states.parse().ok()?,
        distinct: distinct.parse().ok()?,
        classes: Some(classes.parse().ok()?),
        violations: violations.split(' ').next()?.parse().ok()?,
        seed: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |case: &Case| Row {
            name: format!("replay {}", case.name),
            count: 2000,
            distinct: 1999,
            classes: Some(12),
            violations: if case.control == Control::None { 0 } else { 700 },
            seed: 1,
            command: format!("ci/evidence replay {}", case.name),
        };
        CASES.iter().map(row).collect()
    }

    fn fails(change: impl FnOnce(&mut Vec<Row>)) -> bool {
        let mut rows = rows();
        change(&mut rows);
        hold(&lines(&rows)).is_err()
    }

    #[test]
    fn what_is_less_than_claimed_is_not_published() {
        let control = CASES.iter().position(|case| case.control != Control::None).unwrap();
        assert!(!fails(|_| ()));
        assert!(fails(|rows| rows[0].count = STATES_MIN - 1));
        assert!(fails(|rows| rows[0].violations = 1));
        assert!(fails(|rows| rows[control].violations = 0));
        assert!(fails(|rows| rows.iter_mut().for_each(|row| row.count = STATES_MIN)));
    }

    #[test]
    fn what_was_not_gone_through_as_a_whole_is_named() {
        let mut rows = rows();
        rows[0].command += " --sample 500";
        let few = table(&lines(&rows));
        let name = CASES[0].name;
        assert!(!few.contains(&format!("| `{name}` |")) && few.ends_with(&format!("yet: `{name}`.\n")), "{few}");
    }

    #[test]
    fn a_page_is_held_to_what_a_run_wrote() {
        let page = |table: &str| format!("before\n{}{table}{}after\n", MARKS[0], MARKS[1]);
        let good = table(&lines(&rows()));
        check(&page(&good)).unwrap();
        check(&page(&table(&lines(&rows()[..3])))).unwrap();
        assert!(check(&good).is_err() && check(&page("")).is_err());
        let more = good.replacen("2000", "2001", 1);
        assert!(check(&page(&more)).is_err(), "the sum is another one");
    }
}
