//! developer KIT PAGE FOLDER: does what the book's developer page says, on the device of `ci/device KIT`.
//!
//! Disk, working copies and logs are in FOLDER. Non-zero when a command or its output is not as the page has it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::developer;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kit, page, folder] = &words[..] else {
        eprintln!("usage: developer KIT PAGE FOLDER");
        return ExitCode::from(2);
    };
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    match developer::walk(&Kit { folder: absolute(kit) }, Path::new(page), &absolute(folder)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the page could not be done: {error}");
            ExitCode::FAILURE
        }
    }
}
