//! tour [--keep | --memory MB] KIT FOLDER: walks the tour with the device that `ci/device KIT [BOARD]` made; its disk and
//! logs are in FOLDER.
//!
//! With --memory the device gets so many MiB, and walks the short tour with the largest set of its containers that fits,
//! which is named. With --keep the device stays on, and how to talk to it is printed.
//! Non-zero when a step did not hold.
//!
//! Examples: tour target/demo target/demo/run; tour --memory 32 target/lab target/lab/run

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::tour::device::Kit;
use tests::tour::{small, steps};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    let kit = |folder: &str| Kit { folder: absolute(folder) };
    let outcome = match words[..] {
        ["--keep", folder, run] => steps::walk(&kit(folder), &absolute(run), true),
        ["--memory", memory, folder, run] if memory.parse::<u32>().is_ok() => {
            small::walk(&kit(folder), &absolute(run), memory.parse().unwrap_or_default())
        }
        [folder, run] if !folder.starts_with('-') => steps::walk(&kit(folder), &absolute(run), false),
        _ => {
            eprintln!("usage: tour [--keep | --memory MB] KIT FOLDER");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the tour could not be walked: {error}");
            ExitCode::FAILURE
        }
    }
}
