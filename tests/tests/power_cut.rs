//! Power cuts and failing media: the laws hold in every state that they can leave. What each part goes through stands in
//! `sim/suite.rs`; a violation shows the law, what was done, and the line that repeats it.
//!
//! One cut is before every effect of a whole voyage (the update comes in, is staged, prepared, armed, tried, committed or
//! given up; the rest is collected; two more boots), with every fate of what was pending: all combinations where they
//! are few, else all lost, all kept, all torn, each one alone lost, each one alone kept, and some drawn.

use runtime::{fault::Code, port::Volume};
use tests::sim::{
    device::{End, Voyage},
    explore::{Count, Yard},
    fleet::{Quality::*, rev},
    r#gen::Gen,
    loader::Skill,
    suite::{PARTS, one, part},
};

fn undisturbed(yard: &mut Yard, voyage: &Voyage) -> End {
    yard.sail(voyage, &mut Gen::all(), &mut Count::default()).unwrap_or_else(|found| panic!("{}", yard.trace(&found)))
}

#[test]
fn an_undisturbed_device_does_what_it_is_asked_for() {
    let mut yard = Yard::new();
    for (quality, base, verdict) in [
        (Good, 1, Ok(())),
        (Good, 0, Ok(())),
        (NeverReady, 1, Err(Code::GoalsMissed)),
        (NeverReady, 0, Err(Code::GoalsMissed)),
        (Exits, 1, Err(Code::ContainerExited)),
        (Exits, 0, Err(Code::ContainerExited)),
        (KernelPanics, 1, Err(Code::LoaderGaveUp)),
        (InitPanics, 1, Err(Code::TriesExhausted)),
        (OnlyWarm, 0, Ok(())),
    ] {
        let end = undisturbed(&mut yard, &one(quality, base));
        assert_eq!(end.verdicts, [Some(verdict)], "{quality:?} {base}");
        let stays = verdict.is_ok() && quality != OnlyWarm;
        assert_eq!(end.committed, Some(rev(if stays { "locals/a" } else { "0" })), "{quality:?} {base}");
    }
    for (skill, quality, verdict) in [
        (Skill::CannotSave, Good, Err(Code::LoaderCannotCount)),
        (Skill::Careless, InitPanics, Err(Code::TriesExhausted)),
        (Skill::Careless, NeverReady, Err(Code::GoalsMissed)),
        (Skill::Careless, Good, Ok(())),
    ] {
        let end = undisturbed(&mut yard, &Voyage { skill, ..one(quality, 1) });
        assert_eq!(end.verdicts, [Some(verdict)], "{skill:?} {quality:?}");
    }
}

/// Design 11: from the first byte that arrives to the durable DONE, whatever the number of objects.
#[test]
fn an_update_takes_at_most_three_stores_and_ten_syncs() {
    for (base, syncs) in [(0, 9), (1, 10)] {
        let end = undisturbed(&mut Yard::new(), &one(Good, base));
        assert_eq!((end.stores, end.syncs), (2, syncs), "base {base}");
        assert!(end.stores <= 3 && end.syncs <= 10);
    }
}

#[test]
fn a_full_volume_refuses_the_update_and_changes_nothing() {
    for volume in [Volume::Storage, Volume::Boot] {
        let mut yard = Yard::new();
        yard.with_hardware(|hardware| hardware.set_capacity(volume, 64 * 1024));
        let end = undisturbed(&mut yard, &one(Good, 1));
        assert_eq!(end.committed, Some(rev("0")), "{volume:?}");
        assert_eq!(end.stores, 0, "{volume:?}: nothing was armed");
    }
}

/// One test for each part, so that they run side by side; none is forgotten.
macro_rules! parts {
    ($($test:ident = $name:literal;)*) => {
        $(#[test]
        fn $test() {
            part($name);
        })*

        #[test]
        fn every_part_is_run() {
            let run = [$($name),*];
            assert!(PARTS.iter().all(|part| run.contains(&part.name)));
        }
    };
}

parts! {
    one_cut_by_reboot = "one cut, update by reboot";
    one_cut_in_place = "one cut, update in place";
    one_cut_in_four_updates = "one cut, four updates";
    one_cut_and_a_loader_that_cannot_count = "one cut, loader that cannot count";
    a_cut_in_the_recovery = "a cut, and one in what follows";
    many_cuts_and_updates = "2 to 5 cuts, 1 to 5 updates, drawn";
    a_call_fails = "one call fails, once or from then on";
    a_call_fails_and_the_power_goes = "a call fails, 1 to 3 cuts, drawn";
}
