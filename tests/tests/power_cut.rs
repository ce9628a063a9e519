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
    use Quality::*;
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
    for quality in [Quality::Good, Quality::NeverReady, Quality::KernelPanics, Quality::InitPanics] {
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
    for quality in [Quality::Good, Quality::NeverReady, Quality::Exits, Quality::OnlyWarm] {
        let count = yard.cut_everywhere(&one(quality, 0));
        let count = good(&mut yard, count);
        report(&format!("one cut, in place, {quality:?}"), count);
        all.add(count);
    }
    report("one cut, in place", all);
}
