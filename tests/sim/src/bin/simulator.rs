//! The table of the power-cut simulator: what was gone through, and which mutants were found. `ci/evidence` and the book
//! show it. Exits non-zero if a law was broken, a control broke none, or a mutant lives.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use simulator::evidence_rows::{self, Row};
use simulator::{
    explore::{Count, Share, Yard},
    medium::Model,
    suite::{MUTANTS, PARTS, go_through, killed, row, seed},
};

const USAGE: &str = "\
usage: simulator [--gate] [--part NAME] [--model MODEL] [--seed N] [--json FILE]
       simulator --repeat 'LINE'
       simulator --list

  (nothing)       every part under each of its models, then every mutant
  --gate          only the share of it that ci/test goes through
  --part NAME     this part alone (--list shows them), without the mutants
  --model MODEL   under this model alone: posix, ext4-ordered, fat
  --seed N        where what is drawn begins; SWITCHBACK_SEED, else 1
  --json FILE     adds the rows (name, count, distinct, cuts, sampled, violations, seed, command, commit) to FILE
  --repeat LINE   one run, as the report of a violation prints it: all that was done, and which law was broken

  cargo run -q -p simulator -- --part 'one cut, update in place' --model posix";

struct Wishes {
    share: Share,
    part: Option<String>,
    model: Option<Model>,
    seed: u64,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut wishes = Wishes { share: Share::Evidence, part: None, model: None, seed: seed(), json: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let understood = match word.as_str() {
            "--gate" => {
                wishes.share = Share::Gate;
                Ok(())
            }
            "--part" => value().map(|name| wishes.part = Some(name)),
            "--model" => value().and_then(|word| {
                wishes.model = Some(Model::parse(&word).ok_or(format!("{word}: no model"))?);
                Ok(())
            }),
            "--seed" => value().and_then(|number| {
                wishes.seed = number.parse().map_err(|_| format!("{number}: not a number"))?;
                Ok(())
            }),
            "--json" => value().map(|file| wishes.json = Some(file.into())),
            "--repeat" => match value() {
                Ok(line) => return repeat(&line),
                Err(error) => Err(error),
            },
            "--list" => {
                PARTS.iter().for_each(|part| println!("{}", part.name));
                return ExitCode::SUCCESS;
            }
            "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => Err(format!("{word}: not understood")),
        };
        if let Err(error) = understood {
            eprintln!("simulator: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    if run(&wishes) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Exits with 1 if the run breaks a law: that is what it is repeated for.
fn repeat(line: &str) -> ExitCode {
    match Yard::new().repeat(line) {
        Ok((result, lines)) => {
            println!("{lines}");
            match result {
                Ok(end) => println!("no law is broken: {end:?}"),
                Err(broken) => {
                    println!("law {} ({}) is broken: {}", broken.law, broken.observer, broken.how);
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("simulator: --repeat: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(wishes: &Wishes) -> bool {
    let (mut all, mut held, mut ran) = (Count::default(), true, false);
    let wanted = |name: &str| wishes.part.as_deref().is_none_or(|part| part == name);
    for part in PARTS.iter().filter(|part| wanted(part.name)) {
        for model in part.models.iter().filter(|model| wishes.model.is_none_or(|wanted| wanted == **model)) {
            let seen = go_through(part, *model, wishes.share, wishes.seed);
            println!("{}", seen.line(part, *model));
            all.add(seen.count);
            held &= seen.wrong.is_none();
            held &= is_kept(wishes.json.as_deref(), seen.row(part, *model, wishes.share, wishes.seed));
            ran = true;
        }
    }
    println!("{}", row("all", &all));
    if wishes.part.is_none() {
        held &= mutants();
    }
    held && ran
}

/// Adds a row to the file at once: a run of hours may be stopped.
fn is_kept(file: Option<&Path>, row: Row) -> bool {
    let merged = file.map_or(Ok(()), |file| evidence_rows::merge(file, &[row]));
    if let (Err(error), Some(file)) = (&merged, file) {
        eprintln!("simulator: {}: {error}", file.display());
    }
    merged.is_ok()
}

fn mutants() -> bool {
    let mut dead = 0;
    for sabotage in MUTANTS {
        match killed(sabotage) {
            Ok(how) => {
                dead += 1;
                println!("{how}");
            }
            Err(how) => println!("{how}"),
        }
    }
    println!("mutants killed {dead}/{}", MUTANTS.len());
    dead == MUTANTS.len()
}
