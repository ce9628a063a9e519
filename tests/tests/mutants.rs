//! Broken on purpose: each rule of the protocol, taken away, is missed by one of the laws. A mutant is a fault of the
//! doors or of the world between machine and doors; the device's own code is the same. That the same voyages break no
//! law with the rule in place is shown by `power_cut.rs`.

use tests::sim::{
    medium::Mutant,
    suite::{MUTANTS, mutant},
};

macro_rules! mutants {
    ($($test:ident = $mutant:ident;)*) => {
        $(#[test]
        fn $test() {
            mutant(Mutant::$mutant);
        })*

        #[test]
        fn every_mutant_is_hunted() {
            let hunted = [$(Mutant::$mutant),*];
            assert!(MUTANTS.iter().all(|sabotage| hunted.contains(&sabotage.mutant)));
        }
    };
}

mutants! {
    no_file_sync = NoFileSync;
    no_directory_sync = NoDirectorySync;
    no_environment_sync = NoEnvironmentSync;
    no_checkpoint = NoCheckpoint;
    two_stores_for_one_transition = TwoStores;
    done_before_commit = DoneBeforeCommit;
    collect_a_revision_named_in_the_other_copy = CollectTheOtherCopy;
    rename_before_sync = RenameBeforeSync;
    unchecked_sync = UncheckedSync;
    active_copy_overwritten = ActiveCopyOverwritten;
    only_the_loader_counts = OnlyTheLoaderCounts;
}
