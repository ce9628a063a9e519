//! `bench KIT X86-BINARY PROBE FOLDER JSON [PART]`: measures, prints the table and writes the rows, or only those of a part.
//! `bench env-store BOARD MEDIUM` is the one operation that it traces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::bench;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["env-store", board, medium] => bench::store_environment(board, Path::new(medium)),
        [kit, x86, probe, folder, json, ref only @ ..] if only.len() < 2 => {
            let absolute = |path: &str| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
            let kit = Kit { folder: absolute(kit) };
            bench::measure(
                &kit,
                Path::new(x86),
                &absolute(probe),
                &absolute(folder),
                Path::new(json),
                only.first().copied(),
            )
        }
        _ => {
            eprintln!("usage: bench KIT X86-BINARY PROBE FOLDER JSON [PART]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
