//! evidence PAGE ROWS...: writes what these rows say into the book's page, between its two marks: the matrix of
//! `rollback --rows`, or into power-cuts.md the tables of `replay --rows` and `simulator --json`. `ci/evidence` runs it; nobody
//! fills cells in by hand.

use std::path::Path;
use std::process::ExitCode;

use tests::{replay::book, rollback::table};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (page, rows) = match &words[..] {
        [page, rows @ ..] if !rows.is_empty() => (Path::new(page), rows.iter().map(Path::new).collect::<Vec<_>>()),
        _ => {
            eprintln!("usage: evidence PAGE ROWS...");
            return ExitCode::from(2);
        }
    };
    let published = match rows[..] {
        [rows] if page.ends_with("power-cuts.md") => book::publish(page, rows),
        _ => table::publish(page, &rows),
    };
    match published {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evidence: {}: {error}", page.display());
            ExitCode::FAILURE
        }
    }
}
