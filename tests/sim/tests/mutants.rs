//! Broken on purpose: each rule that is more than one row of the protocol's table, taken away, is missed by one of the laws
//! (the rows: `rows.rs`). A mutant is a fault of the
//! doors or of the world between machine and doors; the device's own code is the same. That the same voyages break no
//! law with the rule in place is shown by `power_cut.rs`.

use simulator::{
    medium::Mutant,
    suite::{MUTANTS, mutant},
};

macro_rules! mutants {
    ($($test:ident = $mutant:expr;)*) => {
        $(#[test]
        fn $test() {
            mutant($mutant);
        })*

        #[test]
        fn every_mutant_is_hunted() {
            let hunted = [$($mutant),*];
            assert!(MUTANTS.iter().all(|sabotage| hunted.contains(&sabotage.mutant)));
        }
    };
}

mutants! {
    no_file_sync = Mutant::NoFileSync;
    no_directory_sync = Mutant::NoDirectorySync;
    no_environment_sync = Mutant::NoEnvironmentSync;
    two_stores_for_one_transition = Mutant::TwoStores;
    done_before_commit = Mutant::DoneBeforeCommit;
    collect_a_revision_named_in_the_other_copy = Mutant::CollectTheOtherCopy;
    unchecked_sync = Mutant::UncheckedSync;
    active_copy_overwritten = Mutant::ActiveCopyOverwritten;
    only_the_loader_counts = Mutant::OnlyTheLoaderCounts;
    commit_at_arm = Mutant::CommitAtArm;
}
