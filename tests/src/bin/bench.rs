//! bench KIT X86-BINARY FOLDER JSON: measures, prints the table and writes the rows. `bench env-store FILE` is the
//! one operation that it traces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::bench;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["env-store", part] => bench::store_environment(Path::new(part)),
        [kit, x86, folder, json] => {
            let absolute = |path: &str| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
            bench::measure(&Kit { folder: absolute(kit) }, Path::new(x86), &absolute(folder), Path::new(json))
        }
        _ => {
            eprintln!("usage: bench KIT X86-BINARY FOLDER JSON");
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
