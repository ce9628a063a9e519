//! record KIT FOLDER OUT [NAME...]: records what the device of `ci/device KIT` writes during the operations of these
//! names, or all that are of its board, one folder each below OUT; works in FOLDER. `record --list [BOARD]` names them.
//! record --stale KIT OUT NAME...: those of these names whose recording below OUT is not there or is of another binary than
//! the kit's; why is said beside.
//!
//! Non-zero when one could not be recorded or a count is above its bound.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::record;
use tests::record::operations::{CASES, Case};
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--list") {
        let board = words.get(1).and_then(|name| boards::find(name));
        if words.len() > 1 && board.is_none() {
            eprintln!("record: there is no board {}", words[1]);
            return ExitCode::from(2);
        }
        let is_of = |case: &&Case| board.is_none_or(|board| board.is_taken_over() == case.taken);
        CASES.iter().filter(is_of).for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    if let [first, kit, out, names @ ..] = &words[..]
        && first == "--stale"
    {
        return stale(&absolute(kit), &absolute(out), names);
    }
    let [kit, folder, out, names @ ..] = &words[..] else {
        eprintln!("usage: record KIT FOLDER OUT [NAME...] | record --list [BOARD] | record --stale KIT OUT NAME...");
        return ExitCode::from(2);
    };
    match record::walk(&Kit { folder: absolute(kit) }, &absolute(folder), &absolute(out), names) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nothing could be recorded: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stale(kit: &Path, out: &Path, names: &[String]) -> ExitCode {
    match record::stale(kit, out, names) {
        Ok(stale) => {
            stale.iter().for_each(|(name, why)| {
                eprintln!("{name}: {why}");
                println!("{name}");
            });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("record: {error}");
            ExitCode::FAILURE
        }
    }
}
