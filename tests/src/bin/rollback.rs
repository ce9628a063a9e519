//! rollback KIT FOLDER [--rows FILE] [CASE...]: breaks the device of `ci/device KIT` in every way of `tests::rollback`
//! and observes how it comes back. Disks and logs are in FOLDER. With CASEs, only those; `--rows` writes what was seen
//! for the book's matrix. `rollback --list` names the cases.
//!
//! Non-zero when a claim did not hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::rollback;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--list"] {
        rollback::cases().for_each(|case| println!("{:<20} {}", case.name, case.about));
        return ExitCode::SUCCESS;
    }
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    let mut rows = None;
    if let Some(at) = words.iter().position(|word| word == "--rows")
        && at + 1 < words.len()
    {
        rows = Some(absolute(&words.remove(at + 1)));
        words.remove(at);
    }
    let [kit, folder, cases @ ..] = &words[..] else {
        eprintln!("usage: rollback KIT FOLDER [--rows FILE] [CASE...] | rollback --list");
        return ExitCode::from(2);
    };
    match rollback::walk(&Kit { folder: absolute(kit) }, &absolute(folder), rows.as_deref(), cases) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rollback could not be tried: {error}");
            ExitCode::FAILURE
        }
    }
}
