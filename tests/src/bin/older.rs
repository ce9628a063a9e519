//! older KIT FOLDER BINARY...: the device of `ci/device KIT` updates itself to each of these builds of `switchback`, and comes back.
//! Disks and logs are in FOLDER.
//!
//! Non-zero when a claim did not hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::older;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    let [kit, folder, binary, more @ ..] = &words[..] else {
        eprintln!("usage: older KIT FOLDER BINARY...");
        return ExitCode::from(2);
    };
    let binaries: Vec<PathBuf> = [binary].into_iter().chain(more).map(|binary| absolute(binary)).collect();
    match older::walk(&Kit { folder: absolute(kit) }, &absolute(folder), &binaries) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("no other release could be tried: {error}");
            ExitCode::FAILURE
        }
    }
}
