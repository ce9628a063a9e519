//! The factory reset (`store::factory`, `boot::choose`): whatever is cut or fails, at the next start it has ended or not
//! begun; one that was answered ends; at every instant what the environment names is whole and something boots; and
//! nothing of before is left when the journal says that it ended. Rules broken on purpose are found.

use boards::env::uboot::Uboot;
use runtime::{
    boot::{self, Mode},
    fault::Code,
    id::RevName,
    journal::{self, Kind, Phase, Record},
    limits,
    port::{BootEnv, BootVars, Dir, Disk, Loaded, Owner, Region, Stage, Volume},
    store::{self, Step},
};
use simulator::{
    device::{Buffers, TEXT, factory, first},
    fleet::{Quality, Revision, content, rev},
    r#gen::Gen,
    laws::law_1_named_is_whole,
    loader::{self, LAYOUT, OFFSETS, Skill},
    medium::{Bench, Fault, Hardware, Mutant, Reach},
};

const MEMORY: &[u8] = &[7; 700];

/// What a device does wrong here, besides the rules that the media know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    Nothing,
    /// Whatever stands there.
    Media(Mutant),
    /// The intent is not written.
    NoIntent,
    /// The second copy of the environment is left as it is.
    OneCopy,
    /// The answer does not wait for the store.
    EarlyAnswer,
}

/// One that was in use: another revision is committed in place, its first cold boot still to come; something is kept.
struct Used {
    fresh: Hardware,
    fleet: Vec<Revision>,
    buffers: Buffers,
    last: Record,
}

impl Used {
    fn new() -> Self {
        let (mut buffers, fleet) = (Buffers::new(), vec![first(), Revision::new("locals/a", Quality::Good, 1, 1)]);
        let bench = Bench::new(factory(&fleet[0], &mut buffers));
        let (mut disk, revision) = (bench.clone(), &fleet[1]);
        revision.objects.iter().for_each(|id| bench.arrive(*id, content(*id)).unwrap());
        let step = Step { rev: revision.rev, state: revision.state.as_bytes(), message: "", progress: "{}" };
        store::stage(&mut disk, step, &[], &mut buffers.scratch()).unwrap();
        let phase = Phase::Done { cold_pending: true };
        let last = Record { candidate: revision.rev, kind: Kind::InPlace, phase, ..Record::none(rev("0")) };
        store::prepare(&mut disk, &mut bench.journal(), &last, &mut buffers.scratch()).unwrap();
        let vars = BootVars { committed: revision.rev, candidate: None, previous: Some(rev("0")) };
        env(&bench, |env| env.store(&boot::arm(boot::factory_alone(), revision.rev)).and(env.store(&vars))).unwrap();
        store::record(&mut disk, &mut bench.journal(), &last, None).unwrap();
        store::remember(&mut disk, Owner::Endpoint, MEMORY).unwrap();
        let fresh = bench.with(|hardware| {
            hardware.settle();
            hardware.clone()
        });
        Self { fresh, fleet, buffers, last }
    }

    fn bench(&self, wrong: Wrong) -> Bench {
        let bench = Bench::new(self.fresh.clone());
        let mutant = if let Wrong::Media(mutant) = wrong { Some(mutant) } else { None };
        bench.with(|hardware| hardware.mutant = mutant);
        bench
    }

    /// A client asks. `Ok`: it was answered that the reset has begun.
    fn ask(&mut self, bench: &Bench, wrong: Wrong) -> Result<(), Code> {
        let intent = Record { factory_reset: wrong != Wrong::NoIntent, ..self.last };
        let begun =
            store::factory::intend(&mut bench.clone(), &mut bench.journal(), &intent, &mut self.buffers.scratch());
        begun.map_err(|refusal| refusal.code)?;
        let stored = env(bench, |env| env.store(&boot::factory_alone()));
        if wrong == Wrong::EarlyAnswer { Ok(()) } else { stored }
    }

    /// A boot, up to where containers start. `None`: nothing boots, or the power went.
    fn power_on(&mut self, bench: &Bench, wrong: Wrong) -> Result<Option<RevName>, String> {
        bench.with(|hardware| law_1_named_is_whole(hardware, &self.fleet)).map_err(|broken| broken.how)?;
        let Some(facts) = loader::run(bench, &self.fleet, Skill::Counts) else {
            return if bench.with(|hardware| hardware.dead) { Ok(None) } else { Err("nothing boots".into()) };
        };
        bench.with(|hardware| hardware.mount());
        let _ = store::recover(&mut bench.clone());
        let loaded = env(bench, |env| env.load()).ok();
        let journal = journal::load(&mut bench.journal()).ok().flatten();
        let choice = boot::choose(loaded, &facts, journal);
        let mut disk = bench.clone();
        if choice.mode == Mode::FactoryReset {
            let store = choice.store.filter(|_| wrong != Wrong::OneCopy);
            let settled = store.is_none_or(|vars| settle(bench, &vars).is_ok());
            let mut cleared = |buffers: &mut Buffers| {
                store::factory::clear(&mut disk, &mut bench.journal(), &mut buffers.scratch()).is_ok()
            };
            let _ = settled && (0..limits::STORE_TRIES_MAX).any(|_| cleared(&mut self.buffers));
        } else {
            if let Some(record) = choice.record.filter(|_| choice.write) {
                let _ = store::record(&mut disk, &mut bench.journal(), &record, None);
            }
            let _ = choice.store.map(|vars| settle(bench, &vars));
        }
        Ok((!bench.with(|hardware| hardware.dead)).then_some(choice.run))
    }

    /// After an undisturbed boot: it ended, or it did not begin.
    fn judge(&mut self, bench: &Bench, answered: bool, ran: Option<RevName>) -> Result<(), String> {
        let journal = journal::load(&mut bench.journal()).unwrap();
        let vars = env(bench, |env| env.load()).map(|Loaded { vars, .. }| vars).map_err(|code| code.to_string())?;
        let mut kept = vec![0; limits::ENDPOINT_MEMORY_MAX];
        let length = store::recall(&mut bench.clone(), Owner::Endpoint, &mut kept).unwrap();
        let left = self.left(bench);
        if vars == boot::factory_alone() && ran == Some(rev("0")) {
            let last = store::read_last(&mut bench.clone()).unwrap();
            return match (left.is_empty(), length, journal == Some(Record::none(rev("0"))), last == Some(rev("0"))) {
                (true, 0, true, true) => self.stays(bench),
                other => Err(format!("it has not ended: {other:?}, left are {left:?}, {journal:?}")),
            };
        }
        if answered {
            return Err(format!("it was answered, and did not begin: {vars:?}"));
        }
        for revision in &self.fleet {
            store::verify(&mut bench.clone(), revision.rev, &mut self.buffers.scratch())
                .map_err(|refusal| format!("it did not begin, and {} is broken: {refusal}", revision.rev))?;
        }
        let (whole, same) = (kept[..length] == *MEMORY, journal == Some(self.last));
        let right = whole && same && vars.committed == rev("locals/a") && ran == Some(rev("locals/a"));
        if right { Ok(()) } else { Err(format!("it did not begin, and: {vars:?}, {journal:?}, {length} bytes kept")) }
    }

    /// What is made after the reset is not removed by it.
    fn stays(&mut self, bench: &Bench) -> Result<(), String> {
        store::remember(&mut bench.clone(), Owner::Endpoint, MEMORY).map_err(|code| code.to_string())?;
        for seed in 0..3 {
            let bench = Bench::new(bench.with(|hardware| hardware.clone()));
            bench.with(|hardware| hardware.cut(&mut Gen::random(seed)));
            self.power_on(&bench, Wrong::Nothing)?;
            let kept = store::recall(&mut bench.clone(), Owner::Endpoint, &mut vec![0; limits::ENDPOINT_MEMORY_MAX]);
            if kept != Ok(MEMORY.len()) {
                return Err("what was made since is gone".into());
            }
        }
        Ok(())
    }

    /// What is on the device of other revisions.
    fn left(&self, bench: &Bench) -> Vec<String> {
        let (mut disk, mut left) = (bench.clone(), vec![]);
        for volume in [Volume::Storage, Volume::Boot] {
            for stage in [Stage::New, Stage::Live, Stage::Dead] {
                disk.each_trail(volume, stage, &mut |of| left.push(format!("{volume:?} {stage:?} {of}"))).unwrap();
            }
            for dir in [Dir::Objects(volume), Dir::Incoming(volume)] {
                disk.each_object(dir, &mut |id| left.push(format!("{dir:?} {id}"))).unwrap();
            }
        }
        let factory = |line: &String| {
            line.ends_with("Live 0") || self.fleet[0].objects.iter().any(|id| line.ends_with(&format!(") {id}")))
        };
        left.retain(|line| !factory(line));
        left
    }
}

fn env<T>(bench: &Bench, f: impl FnOnce(&mut Uboot<'_, simulator::medium::Raw>) -> T) -> T {
    let mut work = vec![0; 2 * LAYOUT.size];
    f(&mut Uboot::new(bench.env(), LAYOUT, TEXT, &mut work).expect("the layout is good"))
}

/// As PID 1 does it.
fn settle(bench: &Bench, vars: &BootVars) -> Result<(), Code> {
    (0..limits::STORE_TRIES_MAX)
        .map(|_| {
            env(bench, |env| match env.store(vars) {
                Err(Code::EnvInvalid) => env.rebuild(vars),
                stored => stored,
            })
        })
        .find(Result::is_ok)
        .unwrap_or(Err(Code::EnvStoreFailed))
}

/// Power cuts: before each effect of the request, and, if it was answered, before each effect of the boot after that; then of the
/// boot after that one, too. How many states.
fn cut_everywhere(wrong: Wrong) -> Result<u64, String> {
    let mut used = Used::new();
    let mut states = 0;
    for at in 0.. {
        let mut came = false;
        each_choice(|choices| {
            let bench = used.bench(wrong);
            let answered = cut(&bench, at, choices, &mut came, || used.ask(&bench, wrong).is_ok());
            states += 1;
            let ran = used.power_on(&bench, wrong);
            ran.and_then(|ran| used.judge(&bench, answered, ran))
                .map_err(|how| format!("cut before effect {at} of the request, {}: {how}", choices.line()))
        })?;
        if !came {
            break;
        }
    }
    let bench = used.bench(wrong);
    used.ask(&bench, wrong).map_err(|code| code.to_string())?;
    let begun = bench.with(|hardware| {
        hardware.cut(&mut Gen::random(1));
        hardware.clone()
    });
    for at in 0.. {
        let mut came = false;
        each_choice(|choices| {
            let bench = Bench::new(begun.clone());
            cut(&bench, at, choices, &mut came, || used.power_on(&bench, wrong).is_ok());
            let line = choices.line();
            for again in [None, Some(0), Some(3), Some(8), Some(15)] {
                states += 1;
                let bench = Bench::new(bench.with(|hardware| hardware.clone()));
                if let Some(again) = again {
                    cut(&bench, again, &mut Gen::random(at), &mut false, || used.power_on(&bench, wrong).is_ok());
                }
                let ran = used.power_on(&bench, wrong);
                ran.and_then(|ran| used.judge(&bench, true, ran)).map_err(|how| {
                    format!("cut before effect {at} of the boot, {line}, then before {again:?} of the next: {how}")
                })?;
            }
            Ok(())
        })?;
        if !came {
            return Ok(states);
        }
    }
    unreachable!("the effects of one boot end")
}

/// Every call of the request fails, or of the boot after it; once, or from then on until the next power-on. How many states.
fn fail_everywhere(wrong: Wrong) -> Result<u64, String> {
    let mut used = Used::new();
    let mut states = 0;
    let faults = [(Code::StorageIo, false), (Code::NoSpace, false), (Code::StorageIo, true), (Code::NoSpace, true)];
    for (code, sticky) in faults {
        for in_boot in [false, true] {
            for at in 0.. {
                let bench = used.bench(wrong);
                let fail = |hardware: &mut Hardware| {
                    hardware.fault = Some(Fault { at: hardware.calls + at, sticky, code, reach: Reach::Part });
                };
                let how = format!("{code} at call {at}, sticky {sticky}, in the boot {in_boot}");
                let answered = if in_boot {
                    used.ask(&bench, wrong).map_err(|code| code.to_string())?;
                    bench.with(fail);
                    let _ = used.power_on(&bench, wrong);
                    true
                } else {
                    bench.with(fail);
                    used.ask(&bench, wrong).is_ok()
                };
                let came = bench.with(|hardware| {
                    hardware.fault = None;
                    hardware.cut(&mut Gen::random(at));
                    std::mem::take(&mut hardware.faulted)
                });
                states += 1;
                let ran = used.power_on(&bench, wrong);
                ran.and_then(|ran| used.judge(&bench, answered, ran)).map_err(|error| format!("{how}: {error}"))?;
                if !came {
                    break;
                }
            }
        }
    }
    Ok(states)
}

/// After a cut anywhere in the boot, the environment is lost as well: something whole boots, and the next boot is like this one.
fn lose_the_environment(wrong: Wrong) -> Result<u64, String> {
    let mut used = Used::new();
    let mut states = 0;
    for at in 0.. {
        let mut came = false;
        each_choice(|choices| {
            let bench = used.bench(wrong);
            used.ask(&bench, wrong).map_err(|code| code.to_string())?;
            cut(&bench, at, choices, &mut came, || used.power_on(&bench, wrong).is_ok());
            for offset in OFFSETS {
                bench.env().write_at(offset, &[0; 64]).unwrap();
            }
            bench.env().sync().unwrap();
            states += 1;
            let ran = used.power_on(&bench, wrong);
            ran.and_then(|ran| {
                store::verify(&mut bench.clone(), ran.ok_or("nothing runs")?, &mut used.buffers.scratch())
                    .map_err(|refusal| format!("{ran:?} does not run: {refusal}"))
            })
            .map_err(|how| format!("cut before effect {at} of the boot, {}: {how}", choices.line()))
        })?;
        if !came {
            return Ok(states);
        }
    }
    unreachable!("the effects of one boot end")
}

/// Cuts what is done before one of its effects; what it said.
fn cut(bench: &Bench, at: u64, choices: &mut Gen, came: &mut bool, act: impl FnOnce() -> bool) -> bool {
    bench.with(|hardware| hardware.fuse = Some(at));
    let said = act();
    bench.with(|hardware| {
        *came |= hardware.dead;
        hardware.fuse = None;
        hardware.cut(choices);
    });
    said
}

fn each_choice(mut each: impl FnMut(&mut Gen) -> Result<(), String>) -> Result<(), String> {
    let mut choices = Gen::all();
    loop {
        each(&mut choices)?;
        if !choices.advance() {
            return Ok(());
        }
    }
}

#[test]
fn it_ends_or_does_not_begin() {
    let again = "seed 1, repeat: cargo test -p simulator --test factory_reset it_ends_or_does_not_begin";
    let whole = |states: Result<u64, String>| states.unwrap_or_else(|how| panic!("{how}\n{again}"));
    let cut = whole(cut_everywhere(Wrong::Nothing));
    let failed = whole(fail_everywhere(Wrong::Nothing));
    let lost = whole(lose_the_environment(Wrong::Nothing));
    println!("{cut} states after cuts, {failed} after failures, {lost} without an environment");
    assert!(cut > 500 && failed > 100 && lost > 50);
}

#[test]
fn each_rule_is_missed_when_it_is_broken() {
    use Mutant::{NoDirectorySync, NoEnvironmentSync, NoFileSync};
    let rules = [
        Wrong::NoIntent,
        Wrong::OneCopy,
        Wrong::EarlyAnswer,
        Wrong::Media(NoFileSync),
        Wrong::Media(NoDirectorySync),
        Wrong::Media(NoEnvironmentSync),
    ];
    for wrong in rules {
        let found = cut_everywhere(wrong).expect_err("nobody misses that rule");
        println!("{wrong:?}: {found}");
    }
    let found = fail_everywhere(Wrong::Media(Mutant::UncheckedSync)).expect_err("nobody misses that rule");
    println!("UncheckedSync: {found}");
}

/// While the factory revision is not whole, nothing begins and nothing goes.
#[test]
fn a_factory_revision_that_is_not_whole_is_refused() {
    let mut used = Used::new();
    let bench = used.bench(Wrong::Nothing);
    let file = runtime::port::Name::File(Volume::Storage, Stage::Live, rev("0"), "web/root.squashfs");
    bench.clone().remove(file).unwrap();
    assert_eq!(used.ask(&bench, Wrong::Nothing), Err(Code::StorageDamaged));
    let cleared = store::factory::clear(&mut bench.clone(), &mut bench.journal(), &mut used.buffers.scratch());
    assert_eq!(cleared.map_err(|refusal| refusal.code), Err(Code::StorageDamaged));
    assert!(used.left(&bench).iter().any(|line| line.ends_with("Live locals/a")));
}

/// A factory revision of a release that does not know the reset, or of somebody else's, would start its containers beside
/// everything that was to go.
#[test]
fn a_factory_revision_that_does_not_know_the_reset_is_refused() {
    let mut used = Used::new();
    let old = first().state.replace(r#","switchback.factory-reset":true"#, "");
    assert_ne!(old, first().state);
    for says in
        [old.clone(), old.replace(r#""linux":"kernel""#, r#""linux":"kernel","switchback.factory-reset":false"#)]
    {
        let bench = used.bench(Wrong::Nothing);
        bench
            .clone()
            .write(runtime::port::Name::File(Volume::Storage, Stage::Live, rev("0"), ".pvr/json"), says.as_bytes())
            .unwrap();
        let effects = bench.with(|hardware| {
            hardware.settle();
            hardware.effects
        });
        assert_eq!(used.ask(&bench, Wrong::Nothing), Err(Code::ResetUnknown));
        assert_eq!(bench.with(|hardware| hardware.effects), effects, "nothing has changed");
    }
}
