//! Broken on purpose: each rule of the protocol, taken away, is missed by one of the laws. A mutant is a fault of the
//! doors or of the world between machine and doors; the device's own code is the same. That the same voyages break no
//! law with the rule in place is shown by `power_cut.rs`.

use simulator::{
    medium::{Mutant, Sync},
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
    no_checkpoint = Mutant::NoCheckpoint;
    two_stores_for_one_transition = Mutant::TwoStores;
    done_before_commit = Mutant::DoneBeforeCommit;
    collect_a_revision_named_in_the_other_copy = Mutant::CollectTheOtherCopy;
    rename_before_sync = Mutant::RenameBeforeSync;
    unchecked_sync = Mutant::UncheckedSync;
    active_copy_overwritten = Mutant::ActiveCopyOverwritten;
    only_the_loader_counts = Mutant::OnlyTheLoaderCounts;
    commit_at_arm = Mutant::CommitAtArm;
    stage_without_its_sync_of_contents = Mutant::Without(Sync::Contents);
    stage_without_its_sync_of_object_names = Mutant::Without(Sync::ObjectNames);
    stage_without_its_sync_of_revision_names = Mutant::Without(Sync::RevisionNames);
    prepare_without_its_sync_of_contents = Mutant::Without(Sync::BootContents);
    record_without_its_sync = Mutant::Without(Sync::Record);
}
