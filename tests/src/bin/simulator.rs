//! The table of the power-cut simulator: what was gone through, and which mutants were found. `ci/evidence` and the book
//! show it. Exits non-zero if a law was broken or a mutant lives.
//!
//! `cargo run -p tests --bin simulator`; `SWITCHBACK_SEED` chooses where the drawn parts begin.

use std::process::ExitCode;
use tests::sim::{
    explore::{Count, Yard},
    suite::{MUTANTS, PARTS, killed, row},
};

fn main() -> ExitCode {
    let mut all = Count::default();
    for part in PARTS {
        let mut yard = Yard::new();
        match (part.run)(&mut yard) {
            Ok(count) => {
                println!("{}", row(part.name, &count));
                all.add(count);
            }
            Err(violation) => {
                println!("{}", yard.trace(&violation));
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", row("all", &all));
    let mut dead = 0;
    for sabotage in MUTANTS {
        match killed(sabotage) {
            Ok(how) => {
                dead += 1;
                println!("{how}");
            }
            Err(how) => println!("{how}"),
        }
    }
    println!("mutants killed {dead}/{}", MUTANTS.len());
    if dead == MUTANTS.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
