//! broken KIT FOLDER [CASE...]: breaks the disk of the device of `ci/device KIT` and observes what it does. Disks and logs are in
//! FOLDER. With CASEs, only those. `broken --list` names them.
//!
//! Non-zero when a claim did not hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::broken;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--list"] {
        broken::CASES.iter().for_each(|case| println!("{:<14} {}", case.name, case.about));
        return ExitCode::SUCCESS;
    }
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    let [kit, folder, cases @ ..] = &words[..] else {
        eprintln!("usage: broken KIT FOLDER [CASE...] | broken --list");
        return ExitCode::from(2);
    };
    match broken::walk(&Kit { folder: absolute(kit) }, &absolute(folder), cases) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("broken storage could not be tried: {error}");
            ExitCode::FAILURE
        }
    }
}
