//! takeover KIT FOLDER: takes a device of the original over, with the kit that `ci/device KIT qemu-arm64-taken` made; disks and
//! logs are in FOLDER.
//!
//! Non-zero when a step did not hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::takeover::walk;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    let outcome = match words[..] {
        [kit, folder] if !kit.starts_with('-') => walk::walk(&Kit { folder: absolute(kit) }, &absolute(folder)),
        _ => {
            eprintln!("usage: takeover KIT FOLDER");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the takeover could not be walked: {error}");
            ExitCode::FAILURE
        }
    }
}
