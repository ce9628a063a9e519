//! The rows of power-cut evidence: what was gone through, and by which command anybody goes through it again.
//!
//! Invariants: a file of rows is a JSON list of objects with the same six fields; `classes` where states were told apart
//! by what they show, `commit` where it is known what the row is of, `cuts` and `sampled` where the places were counted at
//! which the power went, and of a replay how its states lie, how many superblocks were mended, which laws broke that had to,
//! and who grew a file system. A row that is made again replaces the one of its name, all others stay, so that parts may be
//! repeated alone; so what did not hold has a row as well, or that of the last time would stand for it. Counts are what was
//! really run: a row that was bounded says so in its name or in its counts, never by leaving a field out.
//! Does not: judge; who reads the table, and the program that made it, do.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What may fail says in a sentence why.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn fail<T>(why: String) -> Outcome<T> {
    Err(why.into())
}

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What was gone through; the key of the row.
    pub name: String,
    /// States in which the laws were checked.
    pub count: u64,
    /// Of them, how many differ in what the medium held.
    pub distinct: u64,
    /// How many differ in what they show to who looks at the device, where that was counted.
    pub classes: Option<u64>,
    /// In how many a law was broken; of the simulator, which ends at the first, 1 or 0. Of its controls: in how many voyages
    /// the law broke that must.
    pub violations: u64,
    /// Where everything that was drawn began.
    pub seed: u64,
    /// The command that makes this row again.
    pub command: String,
    /// The commit that what was gone through was built from; behind a comma, who went through it, if that was another one.
    pub commit: Option<String>,
    /// Of the simulator, where they were counted.
    pub cuts: Option<Cuts>,
    /// Of a replay.
    pub spread: Option<Spread>,
    /// How many superblocks were mended before they mounted, where that was counted.
    pub mended: Option<u64>,
    /// Of a control: each law that must break, and in how many states it did.
    pub proofs: Option<Proofs>,
    /// Where file systems grew: who did it.
    pub grown_by: Option<String>,
}

/// Laws, each with a count.
pub type Proofs = Vec<(String, u64)>;

/// The places at which the power went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cuts {
    /// All of them.
    pub all: u64,
    /// Of them, those where not every state that the model allows was gone through.
    pub sampled: u64,
}

/// How the states of a replay lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// States that could not be looked at; no other number of the row knows them.
    pub unseen: u64,
    /// Epochs: what was written between two flushes.
    pub epochs: u64,
    /// States outside the epoch with most of them.
    pub outside: u64,
    /// Epochs too large for every subset.
    pub sampled: u64,
    /// Pairs of writes in those that were not lost together in any state.
    pub pairs: u64,
}

impl Row {
    fn json(&self) -> Value {
        let Self { name, count, distinct, classes, violations, seed, command, commit, .. } = self;
        let Self { cuts, spread, mended, proofs, grown_by, .. } = self;
        let mut row = json!({"name": name, "count": count, "distinct": distinct, "violations": violations, "seed": seed,
            "command": command});
        if let Some(classes) = classes {
            row["classes"] = json!(classes);
        }
        if let Some(commit) = commit {
            row["commit"] = json!(commit);
        }
        if let Some(Cuts { all, sampled }) = cuts {
            (row["cuts"], row["sampled"]) = (json!(all), json!(sampled));
        }
        if let Some(Spread { unseen, epochs, outside, sampled, pairs }) = spread {
            row["spread"] = json!({"unseen": unseen, "epochs": epochs, "outside": outside, "sampled": sampled,
                "pairs": pairs});
        }
        if let Some(mended) = mended {
            row["mended"] = json!(mended);
        }
        if let Some(proofs) = proofs {
            let proof = |(law, count): &(String, u64)| json!({"law": law, "count": count});
            row["proofs"] = proofs.iter().map(proof).collect();
        }
        if let Some(grown_by) = grown_by {
            row["grown_by"] = json!(grown_by);
        }
        row
    }

    fn parse(value: &Value) -> Option<Self> {
        let (text, number) = (|key: &str| Some(value[key].as_str()?.to_string()), |key: &str| value[key].as_u64());
        Some(Self {
            name: text("name")?,
            count: number("count")?,
            distinct: number("distinct")?,
            classes: number("classes"),
            violations: number("violations")?,
            seed: number("seed")?,
            command: text("command")?,
            commit: text("commit"),
            cuts: number("cuts").zip(number("sampled")).map(|(all, sampled)| Cuts { all, sampled }),
            spread: Spread::parse(&value["spread"]),
            mended: number("mended"),
            proofs: value["proofs"].as_array().and_then(|proofs| proofs.iter().map(proof).collect()),
            grown_by: text("grown_by"),
        })
    }
}

fn proof(value: &Value) -> Option<(String, u64)> {
    Some((value["law"].as_str()?.into(), value["count"].as_u64()?))
}

impl Spread {
    fn parse(value: &Value) -> Option<Self> {
        let number = |key: &str| value[key].as_u64();
        Some(Self {
            unseen: number("unseen")?,
            epochs: number("epochs")?,
            outside: number("outside")?,
            sampled: number("sampled")?,
            pairs: number("pairs")?,
        })
    }
}

/// The commit of the checkout that a program is built from and runs in, with a + where something was changed since.
pub fn commit() -> Option<String> {
    let words = ["describe", "--always", "--exclude", "*", "--dirty=+"];
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").args(words).current_dir(folder).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_string())
}

/// The rows of a file.
pub fn read(file: &Path) -> Outcome<Vec<Row>> {
    let Value::Array(values) = serde_json::from_slice(&std::fs::read(file)?)? else {
        return fail(format!("{}: not a list of rows", file.display()));
    };
    let rows: Option<Vec<Row>> = values.iter().map(Row::parse).collect();
    rows.map_or_else(|| fail(format!("{}: a row lacks a field", file.display())), Ok)
}

/// Adds rows to those that a file holds; one of the same name is replaced where it stands.
pub fn merge(file: &Path, rows: &[Row]) -> Outcome<()> {
    let mut all = if file.exists() { read(file)? } else { Vec::new() };
    for row in rows {
        match all.iter_mut().find(|old| old.name == row.name) {
            Some(old) => *old = row.clone(),
            None => all.push(row.clone()),
        }
    }
    let all: Vec<Value> = all.iter().map(Row::json).collect();
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{:#}\n", json!(all)))?;
    Ok(std::fs::rename(new, file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, count: u64) -> Row {
        let command = format!("ci/evidence {name}");
        let classes = count.is_multiple_of(4).then_some(3);
        let commit = count.is_multiple_of(4).then(|| "0123abc+".to_string());
        let spread = Spread { unseen: 1, epochs: 2, outside: 3, sampled: 4, pairs: 5 };
        let spread = count.is_multiple_of(8).then_some(spread);
        let mended = count.is_multiple_of(8).then_some(2);
        let cuts = count.is_multiple_of(8).then_some(Cuts { all: 9, sampled: 3 });
        Row {
            name: name.into(),
            count,
            distinct: count / 2,
            classes,
            violations: 0,
            seed: 1,
            command,
            commit,
            cuts,
            spread,
            mended,
            proofs: count.is_multiple_of(8).then(|| vec![("law 1, storage".into(), 4), ("law 4".into(), 5)]),
            grown_by: count.is_multiple_of(8).then(|| "the kernel".into()),
        }
    }

    #[test]
    fn a_row_replaces_the_one_of_its_name_and_no_other() {
        let file = std::env::temp_dir().join(format!("switchback-evidence-rows-{}.json", std::process::id()));
        merge(&file, &[row("one", 4), row("two", 6)]).unwrap();
        merge(&file, &[row("three", 2), row("one", 8)]).unwrap();
        assert_eq!(read(&file).unwrap(), [row("one", 8), row("two", 6), row("three", 2)]);
        std::fs::write(&file, "[{\"name\": \"one\"}]").unwrap();
        assert!(read(&file).is_err() && merge(&file, &[row("two", 1)]).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[{\"name\": \"one\"}]");
        std::fs::remove_file(&file).unwrap();
    }
}
