//! A device that was taken over from the original: one file system for everything, which its loader reads without the
//! journal. What each part goes through stands in `sim/suite.rs`; that it does what it is asked for, in `power_cut`.

use runtime::{
    fault::Code,
    journal::Phase,
    port::Volume,
    protocol::{Operation, Row},
};
use simulator::{
    device::{End, Voyage},
    explore::{Count, Yard},
    fleet::{Quality::*, rev},
    r#gen::Gen,
    medium::Mutant,
    rows::{Hunt, hunt},
    saboteur::{How, Mark},
    suite::{left_run, on_trial, one},
    taken::Origin,
};

fn undisturbed(yard: &mut Yard, voyage: &Voyage) -> End {
    yard.sail(voyage, &mut Gen::all(), &mut Count::default()).unwrap_or_else(|found| panic!("{}", yard.trace(&found)))
}

/// By an update that the original has armed: it stays, or the device is back at the original's revision.
#[test]
fn an_undisturbed_takeover_ends_as_the_trial_does() {
    let mut yard = Yard::new();
    for (quality, verdict, reason) in [
        (Good, vec![Some(Ok(()))], None),
        (NeverReady, vec![], Some(Code::GoalsMissed)),
        (Exits, vec![], Some(Code::ContainerExited)),
        (KernelPanics, vec![], None),
        (InitPanics, vec![], None),
    ] {
        let end = undisturbed(&mut yard, &on_trial(quality));
        let committed = if quality == Good { "locals/armed" } else { "0" };
        assert_eq!((end.verdicts, end.committed), (verdict, Some(rev(committed))), "{quality:?}");
        let failed = end.record.and_then(|record| match record.phase {
            Phase::Failed { code, .. } => Some(code),
            _ => None,
        });
        assert_eq!(failed, reason, "{quality:?}");
    }
}

/// What failed once may be armed again by the original under the same name: what we knew of it then is of an earlier
/// trial. Three times in all. After a trial that we gave up the loader's mark is still there: it refuses the second
/// one, and clears it.
#[test]
fn a_takeover_that_failed_can_be_tried_again() {
    for (quality, trials) in [(NeverReady, 2), (Exits, 2), (InitPanics, 3)] {
        let end = undisturbed(&mut Yard::new(), &on_trial(quality));
        let count = |wanted| end.marks.iter().filter(|mark| **mark == Mark::Row(wanted)).count();
        assert_eq!(count(Row::WriteText), trials, "{quality:?}: the original writes its text anew");
        assert_eq!(count(Row::CountTry), trials, "{quality:?}: each trial is one");
    }
}

/// Without room for a new text the trial ends, and the original's stays as it is; what is committed runs, and arms nothing.
#[test]
fn a_full_storage_is_not_taken_over() {
    let mut yard = Yard::new();
    yard.with_hardware(|hardware| hardware.set_capacity(Volume::Storage, 1));
    let end = undisturbed(&mut yard, &on_trial(Good));
    assert_eq!((end.committed, end.verdicts, end.record), (Some(rev("0")), vec![], None));
    let end = undisturbed(&mut yard, &Voyage { origin: Origin::AsItIs, ..one(Good, 1) });
    assert_eq!((end.committed, end.stores), (Some(rev("0")), 0));
}

/// As on a device with a boot volume of its own: the takeover is over before the first update. (What dies in its trial takes
/// two syncs less: it is tried once.)
#[test]
fn an_update_takes_no_more_stores_and_syncs_than_elsewhere() {
    let counts = |origin, quality, base| {
        let end = undisturbed(&mut Yard::new(), &Voyage { origin, ..one(quality, base) });
        (end.stores, end.syncs)
    };
    for (quality, base) in [(Good, 1), (Good, 0), (NeverReady, 1), (NeverReady, 0)] {
        let elsewhere = counts(Origin::Factory, quality, base);
        assert_eq!(counts(Origin::AsItIs, quality, base), elsewhere, "{quality:?} {base}");
    }
}

/// Which law misses a row, in the trial of a takeover: 0 if an undisturbed one ends in another way.
fn who_misses(how: How, row: Row) -> Option<u8> {
    let mut yard = Yard::new();
    let plain = undisturbed(&mut yard, &on_trial(Good));
    let voyage = Voyage { mutant: Some(Mutant::Row(how, row)), ..on_trial(Good) };
    match yard.sail(&voyage, &mut Gen::all(), &mut Count::default()) {
        Err(found) => Some(found.broken.law),
        Ok(end) if (end.committed, &end.verdicts) != (plain.committed, &plain.verdicts) => Some(0),
        Ok(_) => yard.cut_everywhere(&voyage).err().map(|found| found.broken.law),
    }
}

/// The whole device misses each row of the takeover, too: it goes back to the original (0), or law 2 is broken, because
/// its loader finds no text that anybody wrote. Not missed: half a new text (O1, ignored) begins with the sector that
/// names the same, and is made anew at the next start; and what is left of the old one (O6) is removed there.
#[test]
fn every_row_of_the_takeover_is_missed_by_a_device_in_its_trial() {
    let rows = Operation::TakeOver.rows().map(|step| (step.row, How::ALL.map(|how| who_misses(how, step.row))));
    let found: Vec<(Row, [Option<u8>; 3])> = rows.collect();
    let all = [Some(2); 3];
    let expected = [
        (Row::WriteText, [Some(0), Some(0), None]),
        (Row::SyncText, all),
        (Row::SyncView, all),
        (Row::SwapTexts, [Some(0), Some(2), Some(0)]),
        (Row::SyncSwap, all),
        (Row::DropText, [None; 3]),
    ];
    assert_eq!(found, expected);
}

/// The loader may be reading what is named again, here as well as on a boot volume (`Hunt::PrepareAgain`).
#[test]
fn what_takes_the_place_of_boot_assets_must_be_where_the_loader_looks_before() {
    for how in How::ALL {
        let found = hunt(Hunt::PrepareTaken, Some((how, Row::ShowAssets)), u64::MAX);
        assert_eq!(found.map_err(|broken| broken.law), Err(1), "{how:?}");
    }
}

/// A revision that the original installed and never armed has no names for its loader before we make them.
#[test]
fn what_the_original_left_is_named_before_it_is_armed() {
    let end = undisturbed(&mut Yard::new(), &left_run());
    assert_eq!((end.committed, end.verdicts), (Some(rev("locals/left")), vec![Some(Ok(())); 2]));
    for (how, row) in [(How::Skip, Row::NameAssets), (How::Skip, Row::Checkpoint), (How::Ignore, Row::Checkpoint)] {
        let voyage = Voyage { mutant: Some(Mutant::Row(how, row)), ..left_run() };
        let found = Yard::new().cut_everywhere(&voyage).map_err(|found| found.broken.law);
        assert_eq!(found.map(|_| ()), Err(1), "{how:?} {row:?}");
    }
}
