//! tour [--keep] KIT FOLDER: walks the tour with the device that `ci/device KIT` made; its disk and logs are in FOLDER.
//!
//! Non-zero when a step did not hold. With --keep the device stays on, and how to talk to it is printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::tour::device::Kit;
use tests::tour::steps;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let keep = words.iter().any(|word| word == "--keep");
    words.retain(|word| word != "--keep");
    let [kit, folder] = &words[..] else {
        eprintln!("usage: tour [--keep] KIT FOLDER");
        return ExitCode::from(2);
    };
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    let kit = Kit { folder: absolute(kit) };
    match steps::walk(&kit, &absolute(folder), keep) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the tour could not be walked: {error}");
            ExitCode::FAILURE
        }
    }
}
