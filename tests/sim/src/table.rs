//! The simulator's table in the book: written from the rows of its runs, and held to what is claimed of them.
//!
//! Invariants: one line for each part under each of its models that a run has gone through, in the order of the suite, none
//! by hand; below it what no run has gone through. What did not hold is not published: a part in which a law broke, a
//! control that did not break it in each of its voyages. Rows of another name (a part that there is no more, the gate's share)
//! are left out, and so are older ones, which do not say how many cuts there were or of which commit they are.

use crate::{
    evidence_rows::{Outcome, Row},
    explore::Share,
    medium::Bounds,
    suite::{PARTS, Part, Work, damage_step, row_name},
};

/// A control has no cuts.
const NONE: &str = "-";

/// A part under one of its models, and its row if there is one.
type Line<'r> = (&'static Part, String, Option<&'r Row>);

/// The table. None: no row is the simulator's, or all are older. An error: what did not hold.
pub fn of(rows: &[Row]) -> Outcome<Option<String>> {
    let mut lines = lines(rows);
    for (part, name, row) in &mut lines {
        if let Some(Row { command, .. }) = row.take_if(|row| is_older(part, row)) {
            eprintln!("`{name}` is of a run that did not note its cuts and its commit: left out; `{command}`");
        }
        hold(part, name, *row)?;
    }
    Ok(lines.iter().any(|(.., row)| row.is_some()).then(|| text(&lines)))
}

fn lines(rows: &[Row]) -> Vec<Line<'_>> {
    let names = PARTS.iter().flat_map(|part| part.models.iter().map(move |model| (part, row_name(part, *model))));
    names.map(|(part, name)| (part, name.clone(), rows.iter().find(|row| row.name == name))).collect()
}

/// A row that lacks what the table shows; a control has no cuts. What did not hold has none either, and is not older.
fn is_older(part: &Part, row: &Row) -> bool {
    let fell = part.is_control() == (row.violations == 0);
    !fell && (row.commit.is_none() || !part.is_control() && row.cuts.is_none())
}

/// What is claimed of a row.
fn hold(part: &Part, name: &str, row: Option<&Row>) -> Outcome<()> {
    let Some(Row { count, violations, .. }) = row else { return Ok(()) };
    match part.work {
        Work::Breaks(voyages) => {
            let voyages = voyages().len() as u64;
            let all = *violations == voyages;
            if all { Ok(()) } else { Err(format!("{name}: the law broke in {violations} of {voyages} voyages").into()) }
        }
        Work::Holds(_) if *violations > 0 => Err(format!("{name}: {violations} violations").into()),
        Work::Holds(_) if *count == 0 => Err(format!("{name}: no state").into()),
        Work::Holds(_) => Ok(()),
    }
}

fn text(lines: &[Line<'_>]) -> String {
    let mut text = String::from(
        "| what | states | distinct | cuts | of them sampled | violations | seed | of | again by |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let (mut states, mut cuts, mut sampled) = (0, 0, 0);
    for (part, name, row) in lines {
        let Some(Row { count, distinct, violations, seed, command, commit, cuts: places, .. }) = row else { continue };
        let [all, of_them] =
            places.map_or([NONE.into(), NONE.into()], |it| [it.all, it.sampled].map(|it| it.to_string()));
        let must = if part.is_control() { " (must be)" } else { "" };
        let commit = commit.as_deref().unwrap_or(NONE);
        let name = short(name);
        text += &format!(
            "| {name} | {count} | {distinct} | {all} | {of_them} | {violations}{must} | {seed} | {commit} | `{command}` |\n",
        );
        (states, cuts, sampled) =
            (states + count, cuts + places.map_or(0, |it| it.all), sampled + places.map_or(0, |it| it.sampled));
    }
    text += &format!("\n{states} states in all. Of {cuts} cuts, {sampled} are sampled. ");
    text += &bounds();
    text + &missing(lines)
}

/// What is gone through of that which a cut may leave.
fn bounds() -> String {
    let [all, later, few] = [Bounds::ALL, Bounds::LATER, Bounds::FEW];
    assert!(all.singles && all.pairs && later.singles && !later.pairs && !few.singles && !few.pairs, "as it is said");
    format!(
        "A cut is *sampled* where not every\n\
         state that the model allows was gone through. Of the first cut every state is, up to as many as {} pending sectors have;\n\
         above that all lost, all kept, each effect alone lost, kept or torn, each pair lost or kept, and {} that are drawn. Of a\n\
         cut in what follows a cut: every state up to as many as {} sectors have; above that the same without pairs, and {} drawn. Of\n\
         a cut in a sequence of 3 operations after a takeover, and of one on a disk that lies: every state of up to {} sectors;\n\
         above that all lost, all kept, and {} drawn. Where the cuts themselves are drawn, one state of each is. Of a copy of the\n\
         environment each bit of the flags is damaged, every {}th other one, and each sector. A restart after a call that failed\n\
         ends in one of its two ways, drawn.\n",
        all.exhaustive,
        all.drawn,
        later.exhaustive,
        later.drawn,
        few.exhaustive,
        few.drawn,
        damage_step(Share::Evidence),
    )
}

/// A row's name without what all of them begin with.
fn short(name: &str) -> &str {
    name.split_once(": ").map_or(name, |(_, name)| name)
}

fn missing(lines: &[Line<'_>]) -> String {
    let missing = lines.iter().filter(|(.., row)| row.is_none());
    let names: String = missing.map(|(_, name, _)| format!("* {}\n", short(name))).collect();
    if names.is_empty() { names } else { format!("\nNo run has gone through the whole of these yet:\n\n{names}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence_rows::Cuts;

    /// In how many voyages the law must break.
    fn voyages(part: &Part) -> u64 {
        match part.work {
            Work::Breaks(voyages) => voyages().len() as u64,
            Work::Holds(_) => 0,
        }
    }

    fn rows() -> Vec<Row> {
        let row = |(part, name, _): Line<'_>| Row {
            name,
            count: 40 * u64::from(!part.is_control()),
            distinct: 30,
            classes: None,
            violations: voyages(part),
            seed: 1,
            command: "again".into(),
            commit: Some("0123abc".into()),
            cuts: (!part.is_control()).then_some(Cuts { all: 9, sampled: 3 }),
            spread: None,
            mended: None,
            proofs: None,
            grown_by: None,
        };
        lines(&[]).into_iter().map(row).collect()
    }

    fn table(change: impl FnOnce(&mut Vec<Row>)) -> Option<String> {
        let mut rows = rows();
        change(&mut rows);
        of(&rows).ok().flatten()
    }

    #[test]
    fn what_did_not_hold_is_not_published() {
        let control = lines(&[]).iter().position(|(part, ..)| part.is_control()).unwrap();
        assert!(table(|_| ()).is_some());
        assert_eq!(table(|rows| rows[0].violations = 1), None);
        assert_eq!(table(|rows| rows[0].count = 0), None);
        assert_eq!(table(|rows| rows[control].violations = 0), None);
        assert_eq!(table(|rows| rows[control].violations -= 1), None, "not in each of its voyages");
        assert_eq!(table(|rows| (rows[0].violations, rows[0].cuts) = (1, None)), None, "what broke has no cuts");
        assert_eq!(table(Vec::clear), None, "and nothing is no table");
        assert!(of(&[]).is_ok());
    }

    #[test]
    fn every_part_has_a_line_and_what_has_none_is_named() {
        let all = table(|_| ()).unwrap();
        assert_eq!(all.lines().filter(|line| line.starts_with("| ")).count(), 1 + rows().len());
        assert!(
            all.contains("| 40 | 30 | 9 | 3 | 0 | 1 | 0123abc | `again` |\n")
                && all.contains("| - | - | 3 (must be) |")
        );
        assert!(!all.contains("\n* "), "{all}");
        let name = short(&rows()[2].name).to_string();
        let few = table(|rows| drop(rows.remove(2))).unwrap();
        assert!(!few.contains(&format!("| {name} |")) && few.ends_with(&format!("yet:\n\n* {name}\n")), "{few}");
        assert_eq!(table(|rows| rows[2].cuts = None).unwrap(), few, "an older row");
        assert_eq!(table(|rows| rows[2].commit = None).unwrap(), few, "another one");
        assert_eq!(table(|rows| rows.iter_mut().for_each(|row| row.commit = None)), None, "nothing but older ones");
        let other = table(|rows| rows[2].name += ", the gate's share").unwrap();
        assert_eq!(other, few, "what the gate goes through is another row");
    }
}
