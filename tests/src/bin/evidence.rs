//! evidence PAGE ROWS...: writes the matrix of these observations of `rollback --rows` into the book's page, between
//! its two marks. `ci/evidence` runs it; nobody fills cells in by hand.

use std::path::Path;
use std::process::ExitCode;

use tests::rollback::table;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [page, rows @ ..] = &words[..] else {
        eprintln!("usage: evidence PAGE ROWS...");
        return ExitCode::from(2);
    };
    let rows: Vec<&Path> = rows.iter().map(Path::new).collect();
    match table::publish(Path::new(page), &rows) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evidence: {error}");
            ExitCode::FAILURE
        }
    }
}
