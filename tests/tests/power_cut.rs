//! Power cuts: the laws hold in every state that a cut can leave.
//!
//! One cut: before every effect of a whole voyage (the update comes in, is staged, prepared, armed, tried, committed or
//! given up; the rest is collected; two more boots), and every fate of what was pending: all combinations where they are
//! few, else all lost, all kept, all torn, each one alone lost, each one alone kept, and some drawn.
//! More cuts, more updates: drawn from seeds, which are printed.

use runtime::fault::Code;
use tests::sim::{
    device::{Voyage, first},
    explore::{Count, Violation, Yard},
    fleet::{Quality, Revision, rev},
    r#gen::Gen,
    loader::Skill,
};

use Quality::*;

/// A voyage with one update; `base` 0: in place.
fn one(quality: Quality, base: u8) -> Voyage {
    several(vec![Revision::new("locals/a", quality, base, 1)])
}

fn several(updates: Vec<Revision>) -> Voyage {
    let fleet = [first()].into_iter().chain(updates).collect();
    Voyage { fleet, skill: Skill::Counts, cuts: vec![], fault: None, mutant: None }
}

fn good<T>(yard: &mut Yard, result: Result<T, Box<Violation>>) -> T {
    result.unwrap_or_else(|violation| panic!("{}", yard.trace(&violation)))
}

fn report(what: &str, count: Count) {
    let Count { runs, states, cuts, faults } = count;
    println!("{what}: {runs} runs, {states} power-ons checked, {cuts} cuts, {faults} faults, 0 violations");
}

#[test]
fn an_undisturbed_device_does_what_it_is_asked_for() {
    let mut yard = Yard::new();
    let mut count = Count::default();
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
        let end = yard.sail(&one(quality, base), &mut Gen::all(), &mut count);
        let end = good(&mut yard, end);
        assert_eq!(end.verdicts, [Some(verdict)], "{quality:?} {base}");
        let stays = verdict.is_ok() && quality != OnlyWarm;
        assert_eq!(end.committed, Some(rev(if stays { "locals/a" } else { "0" })), "{quality:?} {base}");
    }
}

#[test]
fn one_cut_anywhere_by_reboot() {
    let mut yard = Yard::new();
    let mut all = Count::default();
    for quality in [Good, NeverReady, KernelPanics, InitPanics] {
        let count = yard.cut_everywhere(&one(quality, 1));
        let count = good(&mut yard, count);
        report(&format!("one cut, by reboot, {quality:?}"), count);
        all.add(count);
    }
    report("one cut, by reboot", all);
}

#[test]
fn one_cut_anywhere_in_place() {
    let mut yard = Yard::new();
    let mut all = Count::default();
    for quality in [Good, NeverReady, Exits, OnlyWarm] {
        let count = yard.cut_everywhere(&one(quality, 0));
        let count = good(&mut yard, count);
        report(&format!("one cut, in place, {quality:?}"), count);
        all.add(count);
    }
    report("one cut, in place", all);
}

#[test]
fn one_cut_anywhere_in_three_updates() {
    let mut yard = Yard::new();
    let updates = [("locals/a", Good, 1), ("locals/b", NeverReady, 1), ("locals/c", Good, 1), ("locals/d", Good, 2)];
    let fleet = updates.iter().enumerate().map(|(at, (name, quality, base))| {
        Revision::new(name, *quality, *base, at as u8 + 1) // a by reboot, b and c in place, d by reboot
    });
    let count = yard.cut_everywhere(&several(fleet.collect()));
    let count = good(&mut yard, count);
    report("one cut, four updates", count);
}

#[test]
fn a_loader_that_cannot_count() {
    let mut yard = Yard::new();
    let mut all = Count::default();
    for (skill, quality, verdict) in [
        (Skill::CannotSave, Good, Err(Code::LoaderCannotCount)),
        (Skill::Careless, InitPanics, Err(Code::TriesExhausted)),
        (Skill::Careless, NeverReady, Err(Code::GoalsMissed)),
        (Skill::Careless, Good, Ok(())),
    ] {
        let voyage = Voyage { skill, ..one(quality, 1) };
        let end = yard.sail(&voyage, &mut Gen::all(), &mut all);
        assert_eq!(good(&mut yard, end).verdicts, [Some(verdict)], "{skill:?} {quality:?}");
        let count = yard.cut_everywhere(&voyage);
        all.add(good(&mut yard, count));
    }
    report("one cut, a loader that cannot count", all);
}

#[test]
fn two_to_five_cuts_and_up_to_five_updates() {
    const RUNS: u64 = 30_000;
    let mut yard = Yard::new();
    let start: u64 = std::env::var("SWITCHBACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count = yard.drawn(start..start + RUNS, |choices| {
        let updates = 1 + choices.below(5);
        let mut base = 0;
        let fleet = (0..updates).map(|at| {
            base += choices.below(2) as u8;
            let name = format!("locals/{at}");
            let quality = choices.pick(&[Good, Good, Good, NeverReady, Exits, InitPanics]);
            Revision::new(&name, quality, base, 1 + at as u8) // what is equal behaves equally
        });
        let voyage = several(fleet.collect());
        let cuts = (0..2 + choices.below(4)).map(|_| choices.below(120) as u64).collect();
        Voyage { cuts, ..voyage }
    });
    let count = good(&mut yard, count);
    report(&format!("2 to 5 cuts, seeds {start} to {}", start + RUNS - 1), count);
}
