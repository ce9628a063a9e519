//! The tables of the replay and of the simulator in the book: written from the rows of a run, and held to what is claimed of
//! them.
//!
//! Invariants: one line for each recording of which every state was looked at, in the order in which they are recorded, none
//! by hand. Below the table stand the commits that the lines are of, the recordings of which not every state was looked at,
//! and the rows of the protocol that none reaches. What did not hold is not published.

use std::path::Path;

use super::judge::{ALL_STATES_MIN, Law, floor, too_few};
use super::recording::Control;
use super::rows;
use crate::record::operations::{CASES, Case};
use crate::tour::{Outcome, ensure, fail};
use simulator::{
    evidence_rows::{self, Proofs, Row, Spread},
    table as simulated,
};

/// Between these lines of the page.
const MARKS: [&str; 2] = ["<!-- replay: begin -->\n", "<!-- replay: end -->\n"];

const SIMULATOR: [&str; 2] = ["<!-- simulator: begin -->\n", "<!-- simulator: end -->\n"];

/// A line of the table.
struct Line {
    case: &'static Case,
    row: Row,
}

impl Line {
    fn is_control(&self) -> bool {
        self.case.control != Control::None
    }
}

/// Writes the rows in `file` into the tables of the book's page: those of the replay, those of the simulator. A line that the
/// file has no row of stays as it is, with the commit that it is of.
pub fn publish(page: &Path, file: &Path) -> Outcome<()> {
    let mut text = std::fs::read_to_string(page)?;
    let mut rows = evidence_rows::read(file)?;
    rows.retain(|row| {
        let old = is_older(row);
        if old {
            let Row { name, command, .. } = row;
            eprintln!("{}: `{name}` is of a run that did not count law by law: left out; `{command}`", file.display());
        }
        !old
    });
    let simulated = simulated::of(&rows)?;
    ensure(!lines(&rows).is_empty() || simulated.is_some(), || format!("{}: nothing to publish", file.display()))?;
    rows.extend(published(parts(&text, MARKS)?.1).unwrap_or_default().into_iter().filter(|row| !is_older(row)));
    let lines = lines(&rows);
    hold(&lines)?;
    for (marks, table) in [(MARKS, (!lines.is_empty()).then(|| table(&lines))), (SIMULATOR, simulated)] {
        let (head, _, tail) = parts(&text, marks)?;
        if let Some(table) = table {
            text = format!("{head}{}{table}{}{tail}", marks[0], marks[1]);
        }
    }
    Ok(std::fs::write(page, text)?)
}

/// Fails unless the table of the page is one that `publish` writes.
pub fn check(text: &str) -> Outcome<()> {
    let (_, table_there, _) = parts(text, MARKS)?;
    let lines = lines(&published(table_there).ok_or("a line of the table has no name or lacks a number")?);
    hold(&lines)?;
    ensure(table(&lines) == table_there, || "the table was not written by a run".into())
}

fn parts<'t>(text: &'t str, marks: [&str; 2]) -> Outcome<(&'t str, &'t str, &'t str)> {
    let parts = text.split_once(marks[0]).and_then(|(head, rest)| Some((head, rest.split_once(marks[1])?)));
    let Some((head, (table, tail))) = parts else { return fail("its two marks are not there".into()) };
    Ok((head, table, tail))
}

/// Of the rows that are of all states of a recording.
fn lines(rows: &[Row]) -> Vec<Line> {
    let line = |case: &'static Case| {
        let whole = format!("ci/evidence replay {}", case.name);
        let row = rows.iter().find(|row| row.command == whole && row.classes.is_some())?;
        Some(Line { case, row: row.clone() })
    };
    CASES.iter().filter_map(line).collect()
}

/// Whether a row of a control is of a run that did not count each law for itself.
fn is_older(row: &Row) -> bool {
    lines(std::slice::from_ref(row)).iter().any(Line::is_control) && row.proofs.is_none()
}

/// What is claimed.
fn hold(lines: &[Line]) -> Outcome<()> {
    for Line { case, row } in lines.iter().filter(|line| !line.is_control()) {
        let (name, unseen) = (case.name, row.spread.map_or(0, |spread| spread.unseen));
        let outside = row.spread.map_or(row.count, |spread| spread.outside);
        if let Some(few) = too_few(case.operation, row.count, outside) {
            return fail(few);
        }
        ensure(row.violations == 0, || format!("{name}: {} violations", row.violations))?;
        ensure(unseen == 0, || format!("{name}: {unseen} states could not be looked at"))?;
    }
    for Line { case, row } in lines.iter().filter(|line| line.is_control()) {
        ensure(row.violations > 0, || format!("{}: nothing is broken", case.name))?;
        let unknown = || format!("{}: nobody counted in how many states each law is broken", case.name);
        let proofs = row.proofs.as_ref().ok_or_else(unknown)?;
        ensure(row.distinct <= row.count, || format!("{}: more distinct states than states", case.name))?;
        let floor = floor(case.operation, case.control, row.count);
        for law in laws(case).iter().map(|law| law.words()) {
            let count = proofs.iter().find(|(known, _)| known == law).map_or(0, |(_, count)| *count);
            ensure(count >= floor, || format!("{}: {law} is broken in {count} states, not in {floor}", case.name))?;
        }
    }
    let all: u64 = lines.iter().filter(|line| !line.is_control()).map(|line| line.row.count).sum();
    ensure(all >= ALL_STATES_MIN || lines.len() < CASES.len(), || format!("{all} states in all, not {ALL_STATES_MIN}"))
}

/// What must break.
fn laws(case: &Case) -> &'static [Law] {
    Law::of(case.operation, case.control, false)
}

/// What must have been broken in a control, and in how many states each of it was.
fn must(line: &Line) -> String {
    let proofs = line.row.proofs.iter().flatten();
    let all: Vec<String> = proofs.map(|(law, count)| format!("{law}{OF}{count}")).collect();
    if line.is_control() { format!("{MUST}{})", all.join("; ")) } else { String::new() }
}

/// Before what must be broken, and between a law and its count.
const MUST: &str = " (must be: ";
const OF: &str = ": ";

/// What `must` says of each law.
fn proofs(cell: &str) -> Option<Proofs> {
    let all = cell.split_once(MUST.trim_start())?.1.strip_suffix(')')?;
    let proof = |each: &str| {
        let (law, count) = each.rsplit_once(OF)?;
        Some((law.to_string(), count.parse().ok()?))
    };
    all.split("; ").map(proof).collect()
}

/// What a run did not count.
const UNKNOWN: &str = "-";

fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| recording | states | distinct | classes | epochs | outside the largest | sampled | violations | not looked at |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut all = [0; 2];
    for line @ Line { case, row } in lines {
        let Row { count, distinct, classes, violations, spread, .. } = row;
        let of =
            |number: fn(&Spread) -> u64| spread.as_ref().map_or(UNKNOWN.into(), |spread| number(spread).to_string());
        let pairs = spread.filter(|spread| spread.pairs > 0).map(|spread| format!(", {} pairs not", spread.pairs));
        let must = must(line);
        text += &format!(
            "| `{}` | {count} | {distinct} | {} | {} | {} | {}{} | {violations}{must} | {} |\n",
            case.name,
            classes.unwrap_or(0),
            of(|spread| spread.epochs),
            of(|spread| spread.outside),
            of(|spread| spread.sampled),
            pairs.unwrap_or_default(),
            of(|spread| spread.unseen),
        );
        if !line.is_control() {
            all = [all[0] + count, all[1] + violations];
        }
    }
    text += &format!("| all but what must break | {} | | | | | | {} | |\n\n", all[0], all[1]);
    text + &commits(lines) + &missing(lines) + &rows::unreached()
}

/// Which lines are of which commit.
fn commits(lines: &[Line]) -> String {
    let mut text = String::from("Of which commit the device's binary was:\n\n");
    let mut known: Vec<Option<&str>> = Vec::new();
    for Line { row, .. } in lines {
        if !known.contains(&row.commit.as_deref()) {
            known.push(row.commit.as_deref());
        }
    }
    for commit in known {
        let of = lines.iter().filter(|line| line.row.commit.as_deref() == commit);
        let names: Vec<String> = of.map(|line| format!("`{}`", line.case.name)).collect();
        text += &format!("* {}: {}\n", commit.unwrap_or(UNNOTED), names.join(", "));
    }
    text + "\n"
}

/// What stands for the commit of an older run.
const UNNOTED: &str = "a run that did not note it";

fn missing(lines: &[Line]) -> String {
    let is_missing = |case: &&Case| !lines.iter().any(|line| line.case.name == case.name);
    let missing: Vec<String> = CASES.iter().filter(is_missing).map(|case| format!("`{}`", case.name)).collect();
    match missing.is_empty() {
        true => String::new(),
        false => format!("No run has gone through all states of these yet: {}.\n\n", missing.join(", ")),
    }
}

/// The rows that a table was made of.
fn published(table: &str) -> Option<Vec<Row>> {
    table.lines().filter(|line| line.starts_with("| `")).map(|line| row(line, table)).collect()
}

/// The row that a line of the table was made of; what the table says below it tells the commit.
fn row(line: &str, table: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, states, distinct, classes, epochs, outside, sampled, violations, unseen] = cells[..] else {
        return None;
    };
    let number = |cell: &str| cell.split([' ', ',']).next()?.parse().ok();
    let spread = match epochs {
        UNKNOWN => None,
        _ => Some(Spread {
            unseen: number(unseen)?,
            epochs: number(epochs)?,
            outside: number(outside)?,
            sampled: number(sampled)?,
            pairs: sampled.split_once(", ").map_or(Some(0), |(_, pairs)| number(pairs))?,
        }),
    };
    let of = table.lines().filter_map(|line| line.strip_prefix("* ")?.rsplit_once(": "));
    let (commit, _) = of.into_iter().find(|(_, names)| names.split(", ").any(|each| each == name))?;
    let name = format!("replay {}", name.trim_matches('`'));
    Some(Row {
        command: format!("ci/evidence {name}"),
        name,
        count: number(states)?,
        distinct: number(distinct)?,
        classes: Some(number(classes)?),
        violations: number(violations)?,
        seed: 1,
        commit: (commit != UNNOTED).then(|| commit.into()),
        cuts: None,
        spread,
        mended: None, // the table does not say
        proofs: proofs(violations),
        grown_by: None, // nor this
    })
}

#[cfg(test)]
mod tests {
    use super::super::judge::STATES_MIN;
    use super::*;
    use simulator::evidence_rows::Cuts;

    fn rows() -> Vec<Row> {
        let row = |case: &Case| Row {
            name: format!("replay {}", case.name),
            count: 2000,
            distinct: 1999,
            classes: Some(12),
            violations: if case.control == Control::None { 0 } else { 700 },
            seed: 1,
            command: format!("ci/evidence replay {}", case.name),
            commit: case.name.contains('a').then(|| "0123abc, replayed by 4567def+".into()),
            cuts: None,
            spread: case.name.contains('s').then_some(Spread {
                unseen: 0,
                epochs: 40,
                outside: 900,
                sampled: 2,
                pairs: 3,
            }),
            mended: None,
            proofs: (!laws(case).is_empty())
                .then(|| laws(case).iter().map(|law| (law.words().to_string(), 10)).collect()),
            grown_by: None,
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
        assert!(fails(|rows| (rows[0].count, rows[0].spread) = (STATES_MIN - 1, None)));
        assert!(fails(|rows| rows[0].violations = 1));
        let spread = Spread { unseen: 1, epochs: 1, outside: 900, sampled: 0, pairs: 0 };
        assert!(fails(|rows| rows[0].spread = Some(Spread { unseen: 0, outside: 499, ..spread })));
        assert!(fails(|rows| rows[0].spread = Some(spread)) && !fails(|rows| rows[control].spread = Some(spread)));
        assert!(fails(|rows| rows[control].violations = 0));
        // Each law for itself, in one of 200 states.
        assert!(fails(|rows| rows[control].proofs.as_mut().unwrap()[0].1 = 9));
        assert!(fails(|rows| drop(rows[control].proofs.as_mut().unwrap().remove(0))));
        assert!(fails(|rows| rows[control].distinct = 2001) && fails(|rows| rows[control].proofs = None));
        let row = rows().remove(control);
        assert!(!is_older(&row) && is_older(&Row { proofs: None, ..row }) && !is_older(&rows()[0]));
        assert!(fails(|rows| rows.iter_mut().for_each(|row| row.count = STATES_MIN)));
    }

    #[test]
    fn what_was_not_gone_through_as_a_whole_is_named() {
        let mut rows = rows();
        rows[0].command += " --sample 500";
        let few = table(&lines(&rows));
        let name = CASES[0].name;
        assert!(!few.contains(&format!("| `{name}` |")) && few.contains(&format!("yet: `{name}`.\n")), "{few}");
    }

    #[test]
    fn what_a_file_has_no_rows_of_stays() {
        let folder = std::env::temp_dir().join(format!("switchback-book-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (page, file) = (folder.join("page.md"), folder.join("rows.json"));
        let [replayed, simulated] = [MARKS, SIMULATOR].map(|[begin, end]| format!("{begin}before\n{end}"));
        std::fs::write(&page, format!("{replayed}{simulated}")).unwrap();
        let row = Row { name: "simulator: one cut, four updates, posix".into(), count: 12, ..rows().remove(0) };
        let cuts = Some(Cuts { all: 9, sampled: 3 });
        evidence_rows::merge(&file, &[Row { command: "again".into(), classes: None, cuts, ..row }]).unwrap();
        publish(&page, &file).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.starts_with(&replayed) && text.contains("| one cut, four updates, posix | 12 |"), "{text}");
        evidence_rows::merge(&file, &rows()).unwrap();
        publish(&page, &file).unwrap();
        let whole = std::fs::read_to_string(&page).unwrap();
        check(&whole).unwrap();
        // A control's line on the page that nobody counted goes with the next publication.
        let control = CASES.iter().position(|case| case.control != Control::None).unwrap();
        let mut old = rows();
        old[control].proofs = None;
        std::fs::write(&page, whole.replace(&table(&lines(&rows())), &table(&lines(&old)))).unwrap();
        assert!(check(&std::fs::read_to_string(&page).unwrap()).is_err());
        std::fs::remove_file(&file).unwrap();
        evidence_rows::merge(&file, &rows()[..1]).unwrap();
        publish(&page, &file).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        check(&text).unwrap();
        assert!(!text.contains(&format!("| `{}` |", CASES[control].name)), "{text}");
        std::fs::write(&page, whole).unwrap();
        // One recording alone: its line is another one, all others stay.
        std::fs::remove_file(&file).unwrap();
        let again = Row { count: 3000, commit: Some("89abcde".into()), ..rows().remove(1) };
        evidence_rows::merge(&file, std::slice::from_ref(&again)).unwrap();
        publish(&page, &file).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        check(&text).unwrap();
        // What did not hold is not published, and nothing is published beside it.
        let bad = Row { name: "simulator: one cut, four updates, posix".into(), violations: 1, ..rows().remove(0) };
        evidence_rows::merge(&file, &[bad]).unwrap();
        assert!(publish(&page, &file).is_err());
        assert_eq!(std::fs::read_to_string(&page).unwrap(), text);
        let mut all = rows();
        all[1] = again;
        assert!(
            text.contains(&table(&lines(&all))) && text.contains("| one cut, four updates, posix | 12 |"),
            "{text}"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_page_is_held_to_what_a_run_wrote() {
        let page = |table: &str| format!("before\n{}{table}{}after\n", MARKS[0], MARKS[1]);
        let good = table(&lines(&rows()));
        check(&page(&good)).unwrap();
        check(&page(&table(&lines(&rows()[..3])))).unwrap();
        let few = good.replacen("law 1, storage: 10", "law 1, storage: 9", 1);
        assert!(good.contains("(must be: law 1, storage: 10; law 4: 10)") && check(&page(&few)).is_err());
        let mut old = rows();
        old.iter_mut().for_each(|row| row.proofs = None);
        assert!(check(&page(&table(&lines(&old)))).is_err(), "controls that nobody counted");
        assert!(check(&good).is_err() && check(&page("")).is_err());
        let more = good.replacen("2000", "2001", 1);
        assert!(check(&page(&more)).is_err(), "the sum is another one");
        let nobodys = good.replace("* 0123abc, replayed by 4567def+: ", "* ");
        assert!(check(&page(&nobodys)).is_err(), "lines of no commit");
    }
}
