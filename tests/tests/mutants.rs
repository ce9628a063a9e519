//! Broken on purpose: each rule of the protocol, taken away, is missed by one of the laws. A mutant is a fault of the
//! doors or of the world between machine and doors; the device's own code is the same. That the same voyages break no
//! law with the rule in place is shown by `power_cut.rs` and `faults.rs`.

use tests::sim::{
    device::{Voyage, first},
    explore::{Count, Violation, Yard},
    fleet::{Quality, Revision},
    loader::Skill,
    medium::Mutant,
};

/// Runs in which a mutant must be found out.
const RUNS_MAX: u64 = 30_000;

fn voyage(updates: Vec<Revision>) -> Voyage {
    let fleet = [first()].into_iter().chain(updates).collect();
    Voyage { fleet, skill: Skill::Counts, cuts: vec![], fault: None, mutant: None }
}

fn good(base: u8) -> Voyage {
    voyage(vec![Revision::new("locals/a", Quality::Good, base, 1)])
}

/// The first law that a broken rule breaks, under cuts everywhere.
fn cut(mutant: Mutant, voyage: Voyage) -> (u8, String) {
    let mut yard = Yard::new();
    yard.runs_max = RUNS_MAX;
    found(mutant, yard.cut_everywhere(&Voyage { mutant: Some(mutant), ..voyage }))
}

fn found(mutant: Mutant, hunt: Result<Count, Box<Violation>>) -> (u8, String) {
    let violation = hunt.expect_err("a rule was taken away, and nobody missed it");
    let cuts = &violation.voyage.cuts;
    println!("killed: {mutant:?} by law {}: {} (cut at {cuts:?})", violation.broken.law, violation.broken.how);
    (violation.broken.law, violation.broken.how)
}

#[test]
fn no_file_sync() {
    let (law, how) = cut(Mutant::NoFileSync, good(1));
    assert!(law == 1 && how.contains("damaged"), "{law}: {how}");
}

#[test]
fn no_directory_sync() {
    let (law, how) = cut(Mutant::NoDirectorySync, good(1));
    assert!(law == 1 && how.contains("missing"), "{law}: {how}");
}

#[test]
fn no_environment_sync() {
    let (law, _) = cut(Mutant::NoEnvironmentSync, good(1));
    assert!(matches!(law, 2..=4), "{law}");
}

#[test]
fn no_checkpoint() {
    let (law, how) = cut(Mutant::NoCheckpoint, good(1));
    assert!(law == 1 && how.contains("the loader does not see"), "{law}: {how}");
}

#[test]
fn two_stores_for_one_transition() {
    let (law, how) = cut(Mutant::TwoStores, good(1));
    assert!(law == 2 && how.contains("nobody asked for"), "{law}: {how}");
}

#[test]
fn done_before_commit() {
    let (law, how) = cut(Mutant::DoneBeforeCommit, good(1));
    assert!(law == 4 && how.contains("done"), "{law}: {how}");
}

#[test]
fn collect_a_revision_named_in_the_other_copy() {
    // the third commit leaves the first update named by the copy that is not in use, and by nobody else
    let updates =
        ["locals/a", "locals/b", "locals/c"].map(|name| Revision::new(name, Quality::Good, 0, name.as_bytes()[7]));
    let (law, how) = cut(Mutant::CollectTheOtherCopy, voyage(updates.to_vec()));
    assert!(law == 1 && how.contains("is named, but"), "{law}: {how}");
}

#[test]
fn rename_before_sync() {
    let (law, _) = cut(Mutant::RenameBeforeSync, good(1));
    assert!(law == 1 || law == 5, "{law}");
}

#[test]
fn unchecked_sync() {
    let mut yard = Yard::new();
    yard.runs_max = RUNS_MAX;
    let voyage = Voyage { mutant: Some(Mutant::UncheckedSync), ..good(1) };
    let (law, _) = found(Mutant::UncheckedSync, yard.fail_everywhere(&voyage));
    assert!(matches!(law, 1..=5), "{law}");
}

#[test]
fn nobody_but_the_loader_counts() {
    let fleet = vec![Revision::new("locals/a", Quality::InitPanics, 1, 1)];
    let mutant = Mutant::OnlyTheLoaderCounts;
    let voyage = Voyage { skill: Skill::Careless, mutant: Some(mutant), ..voyage(fleet) };
    let (law, _) = found(mutant, Yard::new().drawn(0..50, |_| voyage.clone()));
    assert_eq!(law, 3);
}

#[test]
fn the_copy_in_use_overwritten() {
    let (law, _) = cut(Mutant::ActiveCopyOverwritten, good(0));
    assert!(law == 2 || law == 4, "{law}");
}
