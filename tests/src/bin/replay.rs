//! replay [OPTION...] FOLDER...: every state in which a power cut may leave the disks of recordings (`record`), each put
//! before the real file system, the device's own recovery and the loader's model. FOLDERs are recordings or hold some.
//!
//!   --rows FILE      adds a row for each recording to FILE
//!   --seed N         where everything that is drawn begins (1)
//!   --sample N       about N states of each recording, drawn, as many of each epoch as there are; instead of all
//!   --deaf           as if the disk had not heard flushes: a law must break
//!   --hands N        states that are looked at at the same time (four for each processor: most of the time each waits)
//!   --scratch DIR    a folder for what is needed meanwhile
//!   --state NAME     this state alone, as a violation names it; --keep FILE writes its image
//!
//! Needs root, /dev/fuse and loop devices. Non-zero when a law is broken, when one that must break does not, or when too
//! little was looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use simulator::evidence_rows;
use tests::record::operations::CASES;
use tests::replay::judge::ALL_STATES_MIN;
use tests::replay::run::{Options, Replay, recordings};
use tests::replay::{checker, crew, mounts, rows};
use tests::tour::{Outcome, fail};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--help"] => {
            eprintln!(
                "usage: replay [--rows FILE] [--seed N] [--sample N] [--deaf] [--hands N] [--scratch DIR] FOLDER..."
            );
            eprintln!("       replay [--seed N] [--deaf] --state NAME [--keep FILE] RECORDING");
            return ExitCode::from(2);
        }
        ["--look", recording, disk, folder] => {
            checker::serve(Path::new(recording), Path::new(disk), Path::new(folder)).map(|()| true)
        }
        _ => replay(words),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replay(words: Vec<String>) -> Outcome<bool> {
    let (mut rows, mut scratch, mut folders) = (None, std::env::temp_dir(), Vec::new());
    let hands = std::thread::available_parallelism().map_or(4, |processors| 4 * processors.get());
    let mut options = Options { seed: 1, sample: None, deaf: false, only: None, keep: None, hands };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--deaf" {
            options.deaf = true;
            continue;
        }
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--rows" => rows = Some(PathBuf::from(value()?)),
            "--seed" => options.seed = value()?.parse()?,
            "--sample" => options.sample = Some(value()?.parse()?),
            "--hands" => options.hands = value()?.parse::<usize>()?.max(1),
            "--scratch" => scratch = value()?.into(),
            "--state" => options.only = Some(value()?.parse()?),
            "--keep" => options.keep = Some(value()?.into()),
            other if other.starts_with("--") => return fail(format!("there is no option {other}; see replay --help")),
            folder => folders.extend(recordings(&std::path::absolute(folder)?)?),
        }
    }
    if options.only.is_some() && folders.len() != 1 {
        return fail("--state is of one recording".into());
    }
    mounts::requirements()?;
    crew::in_own_namespace()?;
    let (mut holds, mut looked, mut seen) = (true, 0, BTreeSet::new());
    for folder in folders {
        let replay = Replay::open(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (row, held) = replay.run(&options, &scratch).map_err(|error| format!("{}: {error}", replay.name()))?;
        holds &= held;
        looked += if replay.is_control() { 0 } else { row.count };
        seen.insert(replay.name().to_string());
        if let Some(file) = rows.as_deref().filter(|_| options.only.is_none()) {
            evidence_rows::merge(file, &[row])?;
        }
    }
    let all = CASES.iter().all(|case| seen.contains(case.name)) && options.sample.is_none() && !options.deaf;
    if all {
        print!("{}", rows::unreached());
    }
    if all && looked < ALL_STATES_MIN {
        println!("FAILED: {looked} states were looked at in all recordings, not {ALL_STATES_MIN}");
        holds = false;
    }
    Ok(holds)
}
