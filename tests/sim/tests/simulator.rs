//! The simulator's program: what it prints of a violation is one line of a shell that shows it again, and its sequences
//! are all that there are.

use simulator::{chores::Operation, device::Voyage, explore::Yard, fleet::Quality, medium::Mutant, repeat, suite::one};
use std::process::Command;

/// A line of a shell, with the program that this test was built with.
fn shell(line: &str) -> (Option<i32>, String) {
    let line = line.replace("cargo run -q -p simulator --", env!("CARGO_BIN_EXE_simulator"));
    let output = Command::new("sh").args(["-c", &line]).output().expect("a shell");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_line_that_a_violation_prints_shows_it_again() {
    for mutant in [Mutant::NoDirectorySync, Mutant::NoFileSync, Mutant::DoneBeforeCommit] {
        let mut yard = Yard::new();
        let voyage = Voyage { mutant: Some(mutant), ..one(Quality::Good, 1) };
        let violation = yard.cut_everywhere(&voyage).expect_err("nobody misses that rule");
        let report = yard.trace(&violation);
        let command = repeat::command(&violation);
        assert!(report.ends_with(&command), "the report's last words repeat it");
        assert_eq!(command.lines().count(), 1);
        let (status, output) = shell(&command);
        let broken = &violation.broken;
        let says = format!("law {} ({}) is broken: {}", broken.law, broken.observer, broken.how);
        assert_eq!(status, Some(1), "{command}");
        assert!(output.contains(&says), "{command}\n{output}");
        // and without what was planted nothing is broken
        let healthy = command.replace(&format!(" mutant={mutant:?}"), "");
        assert_eq!(shell(healthy.split(" path=").next().map(|line| format!("{line}'")).as_deref().unwrap()).0, Some(0));
    }
}

#[test]
fn a_line_that_is_not_understood_says_so() {
    for line in ["--repeat 'model=posix colour=red'", "--repeat", "--part", "--seed x"] {
        assert_eq!(shell(&format!("cargo run -q -p simulator -- {line}")).0, Some(2), "{line}");
    }
}

#[test]
fn every_short_sequence_is_there_once() {
    let mut all: Vec<Vec<Operation>> = (1..=3).flat_map(Operation::sequences).collect();
    assert_eq!(all.len(), 8 + 64 + 512);
    let text = |sequence: &Vec<Operation>| format!("{sequence:?}");
    all.sort_by_key(text);
    all.dedup_by_key(|sequence| text(sequence));
    assert_eq!(all.len(), 8 + 64 + 512);
}
