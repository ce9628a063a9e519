//! What `cargo-mutants` left alive, judged: each survivor has a reason in `ci/survivors.txt`, and nine of ten are dead.
//!
//! `ci/evidence mutation` runs it package by package, with the tests of the file's own package; each run leaves an
//! `outcomes.json`. A mutant is dead if any of these runs killed it.
//!
//! Invariants: a mutant is known by its file, function, change and the text of its line, not by a line's number, so that
//! reasons outlive edits elsewhere. A reason for a mutant that does not survive (any more) is an error as well, as far as
//! its file was run: the list never holds what nobody has seen. A mutant that does not compile does not count.
//! Does not: run anything.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use serde_json::Value;

use crate::tour::{Outcome, fail};

/// Of all mutants that compile, so many of a hundred must be dead.
const KILLED_PERCENT: usize = 90;

/// What became of a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Alive,
    Dead,
}

/// What a mutant is known by: `FILE | FUNCTION | CHANGE | LINE`.
type Key = String;

/// How a run went.
#[derive(Debug)]
pub struct Verdict {
    /// One line for each file, then one for all, then the survivors.
    pub text: String,
    /// Everything holds.
    pub holds: bool,
}

/// Judges the runs in `outcomes` with the reasons in `reasons`; `root`: where the sources are.
pub fn judge(root: &Path, outcomes: &[&Path], reasons: &Path) -> Outcome<Verdict> {
    let mut fates: BTreeMap<(String, Key), Fate> = BTreeMap::new();
    for file in outcomes {
        let run: Value = serde_json::from_slice(&std::fs::read(file)?)?;
        let Some(all) = run["outcomes"].as_array() else { return fail(format!("{}: no outcomes", file.display())) };
        for outcome in all {
            let (mutant, summary) = (&outcome["scenario"]["Mutant"], outcome["summary"].as_str().unwrap_or(""));
            let fate = match summary {
                "CaughtMutant" | "Timeout" => Fate::Dead,
                "MissedMutant" => Fate::Alive,
                _ => continue, // it did not compile, or it is the run without a change
            };
            let key = key(root, mutant)?;
            let place = (mutant["name"].as_str().unwrap_or("").to_string(), key);
            let old = fates.entry(place).or_insert(fate);
            if fate == Fate::Dead {
                *old = fate;
            }
        }
    }
    let reasons = read_reasons(reasons)?;
    Ok(report(&fates, &reasons))
}

fn key(root: &Path, mutant: &Value) -> Outcome<Key> {
    let file = mutant["file"].as_str().unwrap_or("");
    let function = mutant["function"]["function_name"].as_str().unwrap_or("-");
    let line = mutant["span"]["start"]["line"].as_u64().unwrap_or(0) as usize;
    let source = std::fs::read_to_string(root.join(file))?;
    let text = source.lines().nth(line.wrapping_sub(1)).unwrap_or("").trim();
    // The name is `FILE:LINE:COLUMN: CHANGE [in FUNCTION]`.
    let change = mutant["name"].as_str().and_then(|name| Some(name.split_once(": ")?.1)).unwrap_or("");
    let change = change.split(" in ").next().unwrap_or(change);
    Ok(format!("{file} | {function} | {change} | {text}"))
}

/// Lines `FILE | FUNCTION | CHANGE | LINE`, each followed by one that begins with two blanks: the reason. `#` begins a
/// comment.
fn read_reasons(file: &Path) -> Outcome<BTreeMap<Key, String>> {
    let text = std::fs::read_to_string(file)?;
    let mut reasons = BTreeMap::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    while let Some(key) = lines.next() {
        match lines.next() {
            Some(reason) if reason.starts_with("  ") => reasons.insert(key.to_string(), reason.trim().to_string()),
            _ => return fail(format!("{}: no reason below `{key}`", file.display())),
        };
    }
    Ok(reasons)
}

fn report(fates: &BTreeMap<(String, Key), Fate>, reasons: &BTreeMap<Key, String>) -> Verdict {
    let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for ((_, key), fate) in fates {
        let counts = files.entry(key.split(" | ").next().unwrap_or("")).or_default();
        counts.0 += 1;
        counts.1 += usize::from(*fate == Fate::Dead);
    }
    let was_run = |key: &Key| files.keys().any(|file| key.starts_with(&format!("{file} | ")));
    let known: Vec<&Key> = reasons.keys().filter(|key| was_run(key)).collect();
    let (all, dead) = files.values().fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1));
    let mut text = String::new();
    for (name, (all, dead)) in files.into_iter().chain([("all", (all, dead))]) {
        let _ = writeln!(text, "{name:32} {dead:5} of {all:5} mutants killed");
    }
    let mut holds = all > 0 && dead * 100 >= all * KILLED_PERCENT;
    let survivors: Vec<_> = fates.iter().filter(|(_, fate)| **fate == Fate::Alive).map(|(place, _)| place).collect();
    for (name, key) in &survivors {
        let reason = reasons.get(key).map_or("NO REASON", String::as_str);
        holds &= reasons.contains_key(key);
        let _ = writeln!(text, "alive: {name}\n  {key}\n  {reason}");
    }
    for key in known.into_iter().filter(|key| !survivors.iter().any(|(_, alive)| alive == *key)) {
        holds = false;
        let _ = writeln!(text, "not alive, and it has a reason: {key}");
    }
    Verdict { text, holds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(dead: usize, alive: usize) -> BTreeMap<(String, Key), Fate> {
        let fate = |at: usize| if at < dead { Fate::Dead } else { Fate::Alive };
        (0..dead + alive).map(|at| ((format!("n{at}"), format!("f.rs | - | c{at} | x")), fate(at))).collect()
    }

    fn reasons(keys: impl Iterator<Item = usize>) -> BTreeMap<Key, String> {
        keys.map(|at| (format!("f.rs | - | c{at} | x"), "equal".to_string())).collect()
    }

    #[test]
    fn it_holds_only_with_nine_of_ten_dead_and_a_reason_for_each_of_the_others() {
        assert!(report(&fates(9, 1), &reasons(9..10)).holds);
        assert!(!report(&fates(9, 1), &reasons(0..0)).holds, "no reason");
        assert!(!report(&fates(8, 2), &reasons(8..10)).holds, "too few");
        assert!(!report(&fates(9, 1), &reasons(8..10)).holds, "a reason for what is dead");
        assert!(!report(&fates(0, 0), &reasons(0..0)).holds, "nothing was run");
        let others =
            reasons(9..10).into_iter().chain([("g.rs | - | c | x".to_string(), "equal".to_string())]).collect();
        assert!(report(&fates(9, 1), &others).holds, "that file was not run");
    }
}
