//! mutation REASONS OUTCOMES...: judges runs of cargo-mutants. `ci/evidence mutation` runs it.

use std::path::Path;
use std::process::ExitCode;

use tests::mutation::judge;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [reasons, outcomes @ ..] = &words[..] else {
        eprintln!("usage: mutation REASONS OUTCOMES...");
        return ExitCode::from(2);
    };
    let outcomes: Vec<&Path> = outcomes.iter().map(Path::new).collect();
    match judge(Path::new("."), &outcomes, Path::new(reasons)) {
        Ok(verdict) => {
            print!("{}", verdict.text);
            if verdict.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("mutation: {error}");
            ExitCode::FAILURE
        }
    }
}
