//! The protocol's table and the device's procedures: every row is announced, in the table's order, and missed when it is
//! broken. What a mutant's fate is stands in `sim/fates.rs`; the book prints it (`docs/power-cuts.md`).

use runtime::protocol::{Operation, Row, TABLE};
use simulator::{
    fates::FATES,
    rows::{Fate, HUNTS, Hunt, announced, fates, hunt, judge},
    saboteur::{How, Mark, disorder},
};
use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

#[test]
fn every_row_has_its_mutants() {
    let rows: Vec<Row> = FATES.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, TABLE.iter().map(|step| step.row).collect::<Vec<_>>(), "in the table's order");
}

/// By the simulator's voyages, or by the procedures that they do not come to.
#[test]
fn every_row_is_announced_in_its_order() {
    let announced = announced();
    let missing: Vec<&str> = TABLE.iter().filter(|step| !announced.contains(&step.row)).map(|step| step.id).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn a_wrong_order_is_seen() {
    let marks = |rows: &[Row]| rows.iter().map(|row| Mark::Row(*row)).collect::<Vec<_>>();
    assert_eq!(disorder(&marks(&[Row::SyncObjects, Row::NameObjects])), Some((Row::SyncObjects, Row::NameObjects)));
    assert_eq!(disorder(&marks(&[Row::RecordDone, Row::Commit])), None, "the first row of an operation begins anew");
    assert_eq!(disorder(&marks(&[Row::TellDone, Row::RecordDone])), Some((Row::TellDone, Row::RecordDone)));
    assert_eq!(Operation::Store.rows().count(), 6);
}

/// Every hunt in which nothing is broken.
#[test]
fn nobody_is_missed_while_every_row_is_in_place() {
    for place in HUNTS {
        if !matches!(place, Hunt::Cut(..)) {
            assert_eq!(hunt(*place, None, 6_000), Ok(0), "{place:?}"); // the voyages are gone through by `power_cut`
        }
    }
}

/// All of them, two at a time: each has the fate that the table says.
#[test]
fn every_mutant_of_a_row_has_its_fate() {
    let mutants: Vec<(Row, How, Fate)> = TABLE
        .iter()
        .flat_map(|step| How::ALL.into_iter().zip(fates(step.row)).map(|(how, fate)| (step.row, how, fate)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = vec![];
        while let Some((row, how, fate)) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            match judge(*row, *how, *fate) {
                Ok(line) => {
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
                Err(line) => wrong.push(line),
            }
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut wrong = work();
        wrong.extend(other.join().expect("a hunt does not panic"));
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let killed = mutants.iter().filter(|(_, _, fate)| matches!(fate, Fate::Killed(..))).count();
    let _ = writeln!(
        std::io::stderr(),
        "mutants of the table's rows: {} of {} killed, the others say why",
        killed,
        mutants.len()
    );
}
