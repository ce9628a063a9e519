//! The simulator's table in the book: written from the rows of its runs, and held to what is claimed of them.
//!
//! Invariants: one line for each part under each of its models that a run has gone through, in the order of the suite, none
//! by hand; below it what no run has gone through. What did not hold is not published: a part in which a law broke, a
//! control in which none did. Rows of another name (a part that there is no more, the gate's share) are left out.

use crate::{
    evidence_rows::{Outcome, Row},
    explore::Share,
    medium::Bounds,
    suite::{PARTS, Part, damage_step, row_name},
};

/// What a run did not note.
const UNKNOWN: &str = "-";

/// A part under one of its models, and its row if there is one.
type Line<'r> = (&'static Part, String, Option<&'r Row>);

/// The table. None: no row is the simulator's. An error: what did not hold.
pub fn of(rows: &[Row]) -> Outcome<Option<String>> {
    let lines = lines(rows);
    if lines.iter().all(|(.., row)| row.is_none()) {
        return Ok(None);
    }
    for (part, name, row) in &lines {
        hold(part, name, *row)?;
    }
    Ok(Some(text(&lines)))
}

fn lines(rows: &[Row]) -> Vec<Line<'_>> {
    let names = PARTS.iter().flat_map(|part| part.models.iter().map(move |model| (part, row_name(part, *model))));
    names.map(|(part, name)| (part, name.clone(), rows.iter().find(|row| row.name == name))).collect()
}

/// What is claimed of a row.
fn hold(part: &Part, name: &str, row: Option<&Row>) -> Outcome<()> {
    match row {
        Some(Row { violations, .. }) if !part.is_control() && *violations > 0 => {
            Err(format!("{name}: {violations} violations").into())
        }
        Some(Row { violations: 0, .. }) if part.is_control() => Err(format!("{name}: nothing is broken").into()),
        Some(Row { count: 0, .. }) if !part.is_control() => Err(format!("{name}: no state").into()),
        _ => Ok(()),
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
        let number = |number: Option<u64>| number.map_or(UNKNOWN.into(), |number| number.to_string());
        let [all, of_them] = [places.map(|cuts| cuts.all), places.map(|cuts| cuts.sampled)];
        let must = if part.is_control() { " (must be)" } else { "" };
        text += &format!(
            "| {} | {count} | {distinct} | {} | {} | {violations}{must} | {seed} | {} | `{command}` |\n",
            short(name),
            number(all),
            number(of_them),
            commit.as_deref().unwrap_or(UNKNOWN),
        );
        (states, cuts, sampled) = (states + count, cuts + all.unwrap_or(0), sampled + of_them.unwrap_or(0));
    }
    text += &format!("\n{states} states in all. Of {cuts} cuts that were noted, {sampled} are sampled. ");
    text += &bounds();
    let is_missing = |(_, _, row): &&Line<'_>| row.is_none();
    let is_older = |(part, _, row): &&Line<'_>| !part.is_control() && row.is_some_and(|row| row.cuts.is_none());
    text + &list(lines, is_older, "Not gone through by a version of the simulator that notes cuts:")
        + &list(lines, is_missing, "No run has gone through the whole of these yet:")
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
         environment every {}th bit is damaged, and each sector. A restart after a call that failed ends in one of its two ways, drawn.\n",
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

fn list(lines: &[Line<'_>], wanted: impl Fn(&&Line<'_>) -> bool, head: &str) -> String {
    let names: Vec<String> = lines.iter().filter(wanted).map(|(_, name, _)| format!("* {}\n", short(name))).collect();
    if names.is_empty() { String::new() } else { format!("\n{head}\n\n{}", names.concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence_rows::Cuts;

    fn rows() -> Vec<Row> {
        let row = |(part, name, _): Line<'_>| Row {
            name,
            count: 40 * u64::from(!part.is_control()),
            distinct: 30,
            classes: None,
            violations: u64::from(part.is_control()),
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
        assert_eq!(table(Vec::clear), None, "and nothing is no table");
        assert!(of(&[]).is_ok());
    }

    #[test]
    fn every_part_has_a_line_and_what_has_none_is_named() {
        let all = table(|_| ()).unwrap();
        assert_eq!(all.lines().filter(|line| line.starts_with("| ")).count(), 1 + rows().len());
        assert!(all.contains("| 40 | 30 | 9 | 3 | 0 | 1 | 0123abc | `again` |\n") && all.contains("| 1 (must be) |"));
        assert!(!all.contains("\n* "), "{all}");
        let name = short(&rows()[2].name).to_string();
        let few = table(|rows| drop(rows.remove(2))).unwrap();
        assert!(!few.contains(&format!("| {name} |")) && few.ends_with(&format!("yet:\n\n* {name}\n")), "{few}");
        let older = table(|rows| rows[2].cuts = None).unwrap();
        assert!(older.contains("| 40 | 30 | - | - |") && older.ends_with(&format!("cuts:\n\n* {name}\n")), "{older}");
        let other = table(|rows| rows[2].name += ", the gate's share").unwrap();
        assert_eq!(other, few, "what the gate goes through is another row");
    }
}
