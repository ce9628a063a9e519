//! The program `pvr`: arguments in, exit code out; everything else is in the library.

use std::{ffi::OsString, io::Write, process::ExitCode};

/// What the original's completion scripts ask with.
const COMPLETION: &str = "--generate-bash-completion";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some((_, words)) = words.split_last().filter(|(last, _)| *last == COMPLETION) {
        let words: Vec<_> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        // A reader that went away is no error.
        let _ = std::io::stdout().write_all(pvr::commands::names_after(&words).as_bytes());
        return ExitCode::SUCCESS;
    }
    let command = pvr::commands::parse(original(words));
    let json = command.is_json();
    match pvr::commands::run(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            pvr::commands::tell(&error, json);
            ExitCode::from(error.exit_code())
        }
    }
}

/// The one short option of the original that has two letters: `pvr reset -hl`.
fn original(words: Vec<OsString>) -> Vec<OsString> {
    let mut reset = false;
    let word = |word: OsString| {
        reset |= ["reset", "checkout", "co", "r"].iter().any(|verb| word == *verb);
        if reset && word == "-hl" { "--hardlink".into() } else { word }
    };
    words.into_iter().map(word).collect()
}
