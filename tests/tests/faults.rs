//! Media that fail: every call, in every power-on, once or from then on, with an I/O error or a full disk; and with
//! cuts besides. The laws hold, and when the medium is good again the device comes to rest.

use runtime::{fault::Code, port::Volume};
use tests::sim::{
    device::{Voyage, first},
    explore::{Count, Violation, Yard},
    fleet::{Quality, Quality::*, Revision, rev},
    r#gen::Gen,
    loader::Skill,
    medium::Fault,
};

fn one(quality: Quality, base: u8) -> Voyage {
    let fleet = vec![first(), Revision::new("locals/a", quality, base, 1)];
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
fn a_call_fails_anywhere() {
    let mut yard = Yard::new();
    let mut all = Count::default();
    for (quality, base) in [(Good, 1), (Good, 0), (NeverReady, 1), (NeverReady, 0), (OnlyWarm, 0), (InitPanics, 1)] {
        let count = yard.fail_everywhere(&one(quality, base));
        all.add(good(&mut yard, count));
    }
    report("one failing call", all);
}

#[test]
fn calls_fail_and_the_power_goes() {
    const RUNS: u64 = 30_000;
    let mut yard = Yard::new();
    let start: u64 = std::env::var("SWITCHBACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count = yard.drawn(start..start + RUNS, |choices| {
        let voyage = one(choices.pick(&[Good, NeverReady, InitPanics]), choices.below(2) as u8);
        let fault = Fault {
            at: choices.below(250) as u64,
            sticky: choices.below(2) == 1,
            code: choices.pick(&[Code::StorageIo, Code::NoSpace]),
        };
        let cuts = (0..1 + choices.below(3)).map(|_| choices.below(100) as u64).collect();
        Voyage { cuts, fault: Some((1 + choices.below(4) as u32, fault)), ..voyage }
    });
    let count = good(&mut yard, count);
    report(&format!("a failing call and 1 to 3 cuts, seeds {start} to {}", start + RUNS - 1), count);
}

#[test]
fn a_full_volume_refuses_the_update_and_changes_nothing() {
    for volume in [Volume::Storage, Volume::Boot] {
        let mut yard = Yard::new();
        yard.with_hardware(|hardware| hardware.set_capacity(volume, 64 * 1024));
        let end = yard.sail(&one(Good, 1), &mut Gen::random(1), &mut Count::default());
        let end = good(&mut yard, end);
        assert_eq!(end.committed, Some(rev("0")), "{volume:?}");
        assert_eq!(end.stores, 0, "{volume:?}: nothing was armed");
    }
}
