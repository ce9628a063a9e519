//! One procedure of the device, cut before each of its effects: what it leaves, and what it may not have told then. For
//! the operations, and the kinds of environment, that the voyages do not come to, or not often enough.

use crate::{
    device::{Buffers, TEXT, factory, first},
    fleet::{Quality::Good, Revision, content, rev},
    r#gen::Gen,
    laws::Broken,
    loader::LAYOUT,
    medium::{Bench, Hardware, Mutant},
    rows::Found,
    saboteur::{Door, DoorRegion, How},
    taken::Origin,
};
use boards::env::{
    uboot::{self, Copies, Layout, Scheme, Uboot},
    uboot_txt,
};
use runtime::{
    boot::{self, Facts, Mode},
    fault::{Code, Refusal},
    id::RevName,
    journal::{self, Kind, Phase, Record},
    limits,
    port::{BootEnv, BootVars, Dir, Disk, Name, Owner, Region, Stage, Volume},
    protocol::Row,
    store::{self, Step},
};
use std::cell::{Cell, RefCell};

/// Cuts a procedure before each of its effects, and after the last, with every fate of what was pending. `procedure`
/// says what it told; `judge` looks at what is there then.
pub(super) fn cut_in(
    fresh: &Hardware,
    mutant: Option<Mutant>,
    mut procedure: impl FnMut(&Door) -> Result<(), Code>,
    mut judge: impl FnMut(&Bench, Result<(), Code>) -> Result<(), Broken>,
) -> Found {
    let mut touched = 0;
    for at in 0.. {
        let (mut choices, mut came) = (Gen::all(), false);
        loop {
            let bench = Bench::new(fresh.clone());
            let door = Door::new(&bench, mutant);
            bench.with(|hardware| hardware.fuse = Some(at));
            let told = procedure(&door);
            door.over();
            if let (Err(code), false) = (told, door.is_dead()) {
                return broken(0, format!("it fails on healthy media: {code}"));
            }
            touched += door.touched();
            bench.with(|hardware| {
                came |= hardware.dead;
                hardware.fuse = None;
                hardware.cut(&mut choices);
            });
            judge(&bench, told).map_err(|Broken { law, observer, how }| Broken {
                law,
                observer,
                how: format!("cut before effect {at}, choices {}, seed 1: {how}", choices.line()),
            })?;
            if !choices.advance() {
                break;
            }
        }
        if !came {
            break;
        }
    }
    Ok(touched)
}

pub(super) fn broken<T>(law: u8, how: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { law, observer: "procedure", how: how.into() })
}

/// A revision that was told to be installed is there, whole; or the one that takes its name is.
pub(super) fn replace(mutant: Option<Mutant>) -> Found {
    let mut buffers = Buffers::new();
    let [old, new] = [1, 2].map(|version| Revision::new("locals/a", Good, version, version));
    let mut stage = |door: &Door, revision: &Revision| {
        for id in &revision.objects {
            door.arrive(*id, content(*id))?;
        }
        let step = Step { rev: revision.rev, state: revision.state.as_bytes(), message: "", progress: "{}" };
        store::stage(&mut door.clone(), step, &[], &mut buffers.scratch()).map_err(|refusal| refusal.code)
    };
    let bench = Bench::new(factory(&first(), &mut Buffers::new()));
    stage(&Door::new(&bench, None), &old).expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let whole = |bench: &Bench, revision: &Revision| {
        let has = |hw: &Hardware, (key, content)| hw.durable_file(Volume::Storage, revision.rev, key) == Some(content);
        bench.with(|hw| revision.files().all(|file| has(hw, file)))
    };
    let judge = |bench: &Bench, told: Result<(), Code>| match told {
        Ok(()) if !whole(bench, &new) => broken(4, "locals/a was told to be installed, and is not"),
        Err(_) if !whole(bench, &old) && !whole(bench, &new) => {
            broken(4, "locals/a is neither what it was nor what takes its place")
        }
        _ => Ok(()),
    };
    cut_in(&fresh, mutant, |door| stage(door, &new), judge)
}

/// What the environment names is seen by the loader at every instant, also while it is prepared anew.
pub(super) fn prepare_again(mutant: Option<Mutant>) -> Found {
    let mut buffers = Buffers::new();
    let bench = Bench::new(factory(&first(), &mut buffers));
    bench.clone().remove(Name::File(Volume::Boot, Stage::Live, first().rev, "assets")).expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let record = Record {
        candidate: first().rev,
        previous: rev("locals/a"),
        kind: Kind::Reboot,
        phase: Phase::Armed,
        ..Record::none(first().rev)
    };
    let prepare = |door: &Door| {
        let done = store::prepare(&mut door.clone(), &mut door.journal(), &record, &mut buffers.scratch());
        done.map_err(|refusal| refusal.code)
    };
    let judge = |bench: &Bench, _| {
        for boot in ["", ", one boot later"] {
            if !bench.with(|hw| loader_sees(hw, &first())) {
                return broken(1, format!("the loader does not see revision 0{boot}"));
            }
            bench.with(|hardware| hardware.mount());
            store::recover(&mut bench.clone()).expect("healthy media");
        }
        Ok(())
    };
    cut_in(&fresh, mutant, prepare, judge)
}

/// The same on a device that was taken over: an object of its factory revision was lost, but for the names that the loader
/// reads, and has come in again; that is durable, and nobody has written it back.
pub(super) fn prepare_taken(mutant: Option<Mutant>) -> Found {
    let mut buffers = Buffers::new();
    let bench = Bench::new(Origin::AsItIs.hardware(&mut buffers));
    let mut disk = bench.clone();
    let kernel = Name::Object(Volume::Storage, first().assets[0]);
    disk.remove(kernel).expect("healthy media");
    bench.with(|hardware| hardware.settle());
    disk.write(kernel, content(first().assets[0])).expect("healthy media");
    disk.sync_volume(Volume::Storage).expect("healthy media");
    let fresh = bench.with(|hardware| hardware.clone());
    let record = Record { phase: Phase::Armed, ..Record::none(first().rev) };
    let prepare = |door: &Door| {
        let done = store::prepare(&mut door.clone(), &mut door.journal(), &record, &mut buffers.scratch());
        done.map_err(|refusal| refusal.code)
    };
    let judge = |bench: &Bench, told: Result<(), Code>| {
        if !bench.with(|hw| loader_sees(hw, &first())) {
            return broken(1, "the loader does not see revision 0");
        }
        bench.with(|hardware| hardware.mount());
        let known = journal::load(&mut bench.journal()).ok().flatten();
        match told {
            _ if !bench.with(|hw| loader_sees(hw, &first())) => broken(1, "one boot later, revision 0 is gone"),
            Ok(()) if known != Some(record) => broken(4, "it was told to be prepared, and the journal does not know"),
            _ => Ok(()),
        }
    };
    cut_in(&fresh, mutant, prepare, judge)
}

/// Whether the boot assets of a revision are whole where a loader looks.
fn loader_sees(hardware: &Hardware, revision: &Revision) -> bool {
    let mut names = ["pv-kernel.img", "pv-initrd.img"].into_iter().zip(revision.assets);
    names.all(|(name, id)| hardware.loader_file(revision.rev, name) == Some(content(id)))
}

/// What an update ended with is known, and named in `last`, once that was told; before, that or what was known before.
/// The progress that is shown agrees.
pub(super) fn record(mutant: Option<Mutant>) -> Found {
    let bench = Bench::new(factory(&first(), &mut Buffers::new()));
    let updated = Revision::new("locals/a", Good, 1, 1);
    let progress = Name::File(Volume::Storage, Stage::Live, updated.rev, ".pv/progress");
    bench.clone().write(progress, b"before").expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let phase = Phase::Done { cold_pending: false };
    let done = Record { phase, previous: first().rev, ..Record::none(updated.rev) };
    let shown = Cell::new(true);
    let procedure = |door: &Door| {
        let told = store::record(&mut door.clone(), &mut door.journal(), &done, Some("after"));
        door.over();
        let mut bytes = [0; 8];
        let length = door.clone().read(progress, &mut bytes).unwrap_or(0);
        shown.set(door.is_dead() || bytes[..length] == *b"after");
        told
    };
    let judge = |bench: &Bench, told: Result<(), Code>| {
        let last = bench.with(|hardware| hardware.loader_last().and_then(store::parse_last));
        let known = journal::load(&mut bench.journal()).ok().flatten();
        let new = (last, known) == (Some(updated.rev), Some(done));
        match told {
            _ if !shown.get() => broken(0, "the progress that is shown is another one"),
            Ok(()) if !new => {
                broken(4, format!("it was told to be recorded; `last` is {last:?}, the journal says {known:?}"))
            }
            _ if last.is_none() || known.is_none() => broken(4, "`last` or the journal is lost"),
            _ => Ok(()),
        }
    };
    cut_in(&fresh, mutant, procedure, judge)
}

/// What has its name is whole, on both volumes; what nobody needs is gone once that was told.
pub(super) fn collect(mutant: Option<Mutant>) -> Found {
    let fresh = used(first().rev);
    let other = Revision::new("locals/a", Good, 1, 1);
    let gone = Cell::new(true);
    let mut buffers = Buffers::new();
    let procedure = |door: &Door| {
        let done = store::collect(&mut door.clone(), &[], &mut buffers.scratch());
        door.over();
        gone.set(door.is_dead() || !left(&door.bench()));
        done.map(drop)
    };
    let judge = |bench: &Bench, told: Result<(), Code>| {
        bench.with(|hardware| hardware.mount());
        let mut named = vec![];
        for volume in [Volume::Storage, Volume::Boot] {
            let mut each = |rev| named.push((volume, rev));
            bench.clone().each_trail(volume, Stage::Live, &mut each).expect("healthy media");
        }
        for revision in [&first(), &other] {
            for (volume, whole) in [Volume::Storage, Volume::Boot].into_iter().zip(is_whole(bench, revision)) {
                let there = named.contains(&(volume, revision.rev));
                if there && !whole || !there && revision.rev == first().rev {
                    return broken(1, format!("{} on {volume:?}: there {there}, whole {whole}", revision.rev));
                }
            }
        }
        match told {
            _ if !gone.get() => broken(0, "something that nobody needs is left"),
            Ok(()) if named.len() > 2 => broken(4, format!("it was told to be collected: {named:?}")),
            _ => Ok(()),
        }
    };
    cut_in(&fresh, mutant, procedure, judge)
}

/// Whether a revision is there as a whole: on storage, and as the loader sees it.
fn is_whole(bench: &Bench, revision: &Revision) -> [bool; 2] {
    bench.with(|hw| {
        let file = |(key, content)| hw.durable_file(Volume::Storage, revision.rev, key) == Some(content);
        let object = |id| hw.durable_object(Volume::Storage, id) == Some(content(id));
        let storage = revision.files().all(file) && revision.objects.iter().copied().all(object);
        [storage, loader_sees(hw, revision)]
    })
}

/// A device with a revision besides the factory's, and something kept for the endpoint; a factory reset is wanted. `last`
/// names this.
fn used(last: RevName) -> Hardware {
    let mut buffers = Buffers::new();
    let bench = Bench::new(factory(&first(), &mut buffers));
    let other = Revision::new("locals/a", Good, 1, 1);
    let mut prepare = || {
        for id in &other.objects {
            bench.arrive(*id, content(*id))?;
        }
        let step = Step { rev: other.rev, state: other.state.as_bytes(), message: "", progress: "{}" };
        let mut disk = bench.clone();
        store::stage(&mut disk, step, &[], &mut buffers.scratch())?;
        let wish = Record { factory_reset: true, ..Record::none(other.rev) };
        store::prepare(&mut disk, &mut bench.journal(), &wish, &mut buffers.scratch())?;
        bench.clone().overwrite(Name::Last, &store::last_text(last))?;
        Ok::<(), Refusal>(store::remember(&mut disk, Owner::Endpoint, b"secret")?)
    };
    prepare().expect("healthy media");
    bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    })
}

/// Whether anything is there that is not the factory's: a revision, an object.
fn left(bench: &Bench) -> bool {
    let (mut disk, mut left) = (bench.clone(), false);
    for volume in [Volume::Storage, Volume::Boot] {
        for stage in [Stage::Live, Stage::Dead] {
            disk.each_trail(volume, stage, &mut |rev| left |= rev != first().rev).expect("healthy media");
        }
        let mut objects = |id| left |= !first().objects.contains(&id);
        disk.each_object(Dir::Objects(volume), &mut objects).expect("healthy media");
    }
    left
}

/// Nothing but the factory's is left once the journal says that the reset has ended, and it says so once that was told;
/// until then the reset can go on.
pub(super) fn clear(mutant: Option<Mutant>) -> Found {
    let other = Revision::new("locals/a", Good, 1, 1);
    let fresh = used(other.rev);
    let judge = |bench: &Bench, told: Result<(), Code>| {
        bench.with(|hardware| hardware.mount());
        let ended = journal::load(&mut bench.journal()).ok().flatten().is_some_and(|record| !record.factory_reset);
        let left = left(bench) || recall(bench).is_none_or(|bytes| !bytes.is_empty());
        let last = bench.with(|hardware| hardware.loader_last().and_then(store::parse_last));
        match (ended, left, told) {
            (false, _, Ok(())) => broken(4, "it was told to have ended, and the journal does not know"),
            (true, true, _) => broken(4, "it has ended, and something of before is left"),
            (true, ..) if last != Some(first().rev) => broken(4, format!("it has ended, and `last` is {last:?}")),
            _ if last.is_none() => broken(5, "`last` is lost"),
            _ if last == Some(other.rev) && is_whole(bench, &other) != [true; 2] => {
                broken(5, "`last` names a revision that is not whole")
            }
            _ => Ok(()),
        }
    };
    let mut buffers = Buffers::new();
    let procedure = |door: &Door| {
        let done = store::factory::clear(&mut door.clone(), &mut door.journal(), &mut buffers.scratch());
        done.map_err(|refusal| refusal.code)
    };
    cut_in(&fresh, mutant, procedure, judge)
}

/// A factory reset that was told to have begun goes on at the next boot; one that was not told goes on or never was.
pub(super) fn reset(mutant: Option<Mutant>) -> Found {
    let bench = Bench::new(factory(&first(), &mut Buffers::new()));
    let other = Revision::new("locals/a", Good, 1, 1);
    let committed = Record { previous: first().rev, ..Record::none(other.rev) };
    let vars = BootVars { committed: other.rev, candidate: None, previous: Some(first().rev) };
    let mut work = vec![0; 2 * LAYOUT.size];
    Uboot::new(bench.env(), LAYOUT, TEXT, &mut work).and_then(|mut env| env.store(&vars)).expect("healthy media");
    journal::append(&mut bench.journal(), &committed).expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let mut buffers = Buffers::new();
    // The machine's two steps of it, as `world` sabotages them: what comes after the restart never happens.
    let broken_row = mutant.and_then(Mutant::row);
    let plan: &[Row] = match broken_row {
        Some((How::Swap, Row::Intend)) => &[Row::BeginReset, Row::Intend],
        Some((_, Row::Intend)) => &[Row::BeginReset],
        Some((_, Row::BeginReset)) => &[Row::Intend],
        _ => &[Row::Intend, Row::BeginReset],
    };
    let procedure = |door: &Door| {
        for row in plan {
            door.mark(*row);
            if *row == Row::Intend {
                let wish = Record { factory_reset: true, ..committed };
                let done =
                    store::factory::intend(&mut door.clone(), &mut door.journal(), &wish, &mut buffers.scratch());
                door.over();
                done.map_err(|refusal| refusal.code)?;
            } else {
                let mut work = vec![0; 2 * LAYOUT.size];
                let mut env = Uboot::new(door.env(), LAYOUT, TEXT, &mut work)?;
                let stored = env.store(&boot::factory_alone());
                door.over();
                stored?;
            }
        }
        if plan.len() < 2 || plan[0] != Row::Intend {
            door.touch();
        }
        Ok(())
    };
    let judge = |bench: &Bench, told: Result<(), Code>| {
        bench.with(|hardware| hardware.mount());
        let mut work = vec![0; 2 * LAYOUT.size];
        let loaded = Uboot::new(bench.env(), LAYOUT, TEXT, &mut work).and_then(|mut env| env.load());
        let Ok(loaded) = loaded else { return broken(2, "both copies of the environment are bad") };
        let booted = Some(loaded.vars.committed);
        let facts = Facts { booted, candidate: None, bootcount: 0, canary: true, script: 2, watchdog: false };
        let choice = boot::choose(Some(loaded), &facts, journal::load(&mut bench.journal()).ok().flatten());
        match (choice.mode == Mode::FactoryReset, loaded.vars == vars, told) {
            (true, ..) | (false, true, Err(_)) => Ok(()),
            (false, _, Ok(())) => broken(4, format!("it was told to have begun, and does not go on: {choice:?}")),
            (false, false, _) => broken(2, format!("{:?} is in force, and no reset goes on", loaded.vars)),
        }
    };
    cut_in(&fresh, mutant, procedure, judge)
}

/// What is kept for the endpoint.
fn recall(bench: &Bench) -> Option<Vec<u8>> {
    let mut bytes = vec![0; limits::ENDPOINT_MEMORY_MAX];
    let length = store::recall(&mut bench.clone(), Owner::Endpoint, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// What is kept for the endpoint is the old or the new; the new once that was told; and the next wish is fulfilled.
pub(super) fn memory(mutant: Option<Mutant>) -> Found {
    let [old, new, next] = [vec![1; 600], vec![2; 1200], vec![3; 300]];
    let bench = Bench::new(Hardware::new(4096));
    store::remember(&mut bench.clone(), Owner::Endpoint, &old).expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let kept = recall;
    let judge = |bench: &Bench, told: Result<(), Code>| {
        bench.with(|hardware| hardware.mount());
        let found = kept(bench);
        match told {
            Ok(()) if found.as_ref() != Some(&new) => return broken(4, "what was told to be kept is not"),
            Err(_) if found.as_ref() != Some(&old) && found.as_ref() != Some(&new) => {
                return broken(4, "neither what was kept nor what was to be kept is there");
            }
            _ => {}
        }
        let done =
            store::remember(&mut bench.clone(), Owner::Endpoint, &next).is_ok() && kept(bench).as_ref() == Some(&next);
        if done { Ok(()) } else { broken(0, "the next wish is not fulfilled") }
    };
    cut_in(&fresh, mutant, |door| store::remember(&mut door.clone(), Owner::Endpoint, &new), judge)
}

/// The text of a device that is taken over: at every instant its loader finds the one of before or the new one, each whole,
/// and the new one once that was told. The next start ends what a cut left.
pub(super) fn take_over(mutant: Option<Mutant>) -> Found {
    let mut old = b"pv_rev=5\0pv_try=locals/a\0x=y\0".to_vec();
    old.resize(1024, 0);
    let mut new = uboot_txt::adopt(&old).expect("it fits").to_vec();
    new.resize(store::taken::TEXT_SIZE, 0);
    let bench = Bench::new(Hardware::one());
    bench.clone().write(Name::LoaderText(Stage::Live), &old).expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let mut text = Box::new([0; limits::LOADER_TEXT_MAX]);
    let seen = |bench: &Bench| bench.with(|hardware| hardware.loader_text().map(<[u8]>::to_vec));
    let judge = |bench: &Bench, told: Result<(), Code>| {
        match (seen(bench), told) {
            (Some(text), _) if text == new => {}
            (Some(text), Err(_)) if text == old => {}
            (Some(text), Ok(())) if text == old => return broken(4, "it was told to be new, and is not"),
            (text, _) => return broken(1, format!("the loader finds {} bytes", text.map_or(0, |text| text.len()))),
        }
        bench.with(|hardware| hardware.mount());
        if seen(bench).is_none_or(|text| text != old && text != new) {
            return broken(1, "what is in force after the next start is torn");
        }
        let mut room = Box::new([0; limits::LOADER_TEXT_MAX]);
        let again = store::taken::adopt(&mut bench.clone(), &mut room, uboot_txt::adopt);
        match (again, seen(bench), bench.clone().exists(Name::LoaderText(Stage::New))) {
            (Ok(_), Some(text), Ok(false)) if text == new => Ok(()),
            other => broken(0, format!("the next start does not end it: {:?}, left: {:?}", other.0, other.2)),
        }
    };
    let procedure = |door: &Door| store::taken::adopt(&mut door.clone(), &mut text, uboot_txt::adopt).map(drop);
    cut_in(&fresh, mutant, procedure, judge)
}

/// A revision's message is the one of before or the new one; the new one once that was told; and the next one is taken.
pub(super) fn message(mutant: Option<Mutant>) -> Found {
    let [old, new, next] = ["o".repeat(200), "n".repeat(limits::COMMIT_MESSAGE_MAX), "m".repeat(60)];
    let bench = Bench::new(factory(&first(), &mut Buffers::new()));
    store::message(&mut bench.clone(), first().rev, &old).expect("healthy media");
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let is = |bench: &Bench, text: &str| {
        let file =
            |hw: &Hardware| hw.durable_file(Volume::Storage, first().rev, ".pv/commitmsg") == Some(text.as_bytes());
        bench.with(|hardware| file(hardware))
    };
    let judge = |bench: &Bench, told: Result<(), Code>| {
        bench.with(|hardware| hardware.mount());
        match told {
            Ok(()) if !is(bench, &new) => return broken(4, "the message that was told to be kept is not there"),
            Err(_) if !is(bench, &old) && !is(bench, &new) => {
                return broken(4, "neither the message of before nor the new one is there");
            }
            _ => {}
        }
        let done = store::message(&mut bench.clone(), first().rev, &next).is_ok() && is(bench, &next);
        if done { Ok(()) } else { broken(0, "the next message is not kept") }
    };
    let procedure = |door: &Door| store::message(&mut door.clone(), first().rev, &new).map_err(|refusal| refusal.code);
    cut_in(&fresh, mutant, procedure, judge)
}

/// Stores, one after the other. After a cut the decision of before or the new one is in force; the new one once that was
/// told, also if a sync of the medium was a lie.
pub(super) fn stores(mutant: Option<Mutant>, scheme: Scheme) -> Found {
    let layout = Layout { copies: Copies::Redundant([0, 1024], scheme), size: 1024 };
    let decision = |committed| BootVars { committed: rev(committed), candidate: None, previous: None };
    let [first, second, third] = ["0", "locals/a", "locals/b"].map(decision);
    let bench = Bench::new(Hardware::new(2048));
    for (offset, flags) in [0, 1024].into_iter().zip(layout.copies.fresh_flags()) {
        let mut copy = vec![0; layout.size];
        uboot::initial(TEXT, &first, flags, &mut copy).expect("it fits");
        bench.env().write_at(offset, &copy).expect("healthy media");
    }
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    });
    let in_force = |bench: &Bench| {
        let mut work = vec![0; 2 * layout.size];
        let mut env = Uboot::new(bench.env(), layout, TEXT, &mut work).expect("a good layout");
        env.load().ok().map(|loaded| loaded.vars)
    };
    // The decisions of which one must be in force, as far as it was told.
    let told = RefCell::new(vec![]);
    let store = |door: &Door, vars: BootVars, env: &mut Uboot<'_, DoorRegion>| {
        told.borrow_mut().push(vars);
        let stored = env.store(&vars);
        door.over();
        if stored.is_ok() && !door.is_dead() {
            told.replace(vec![vars]);
        }
        stored
    };
    let judge = |bench: &Bench, _| match in_force(bench) {
        Some(vars) if told.borrow().contains(&vars) => Ok(()),
        found => broken(4, format!("{found:?} is in force, told was {:?}", told.borrow())),
    };
    let mut touched = 0;
    for lie in [None, Some(0), Some(1), Some(2), Some(3)] {
        for shift in 0..2 {
            let procedure = |door: &Door| {
                lie.into_iter().for_each(|syncs| door.lie_after(syncs));
                // which sectors a failed sync keeps goes by the number of calls
                for _ in 0..shift {
                    let _ = door.clone().exists(Name::Last);
                }
                told.replace(vec![first]);
                let mut work = vec![0; 2 * layout.size];
                let mut env = Uboot::new(door.env(), layout, TEXT, &mut work).expect("a good layout");
                let done = store(door, second, &mut env).and_then(|()| store(door, third, &mut env));
                if lie.is_some() { Ok(()) } else { done } // that a lie is found is no failure
            };
            touched += cut_in(&fresh, mutant, procedure, judge)?;
        }
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The environment's bytes, for a codec that retires the other copy before it has read the new one back.
    struct Early {
        raw: DoorRegion,
        early: bool,
        at: Option<Row>,
    }

    impl Region for Early {
        fn step(&mut self, row: Row) {
            self.at = Some(row);
            self.raw.step(row);
        }
        fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
            if self.early && self.at.take() == Some(Row::ReadBack) {
                self.raw.write_at(1024 - offset + 4, &[0])?;
                self.raw.sync()?;
            }
            self.raw.read_at(offset, out)
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
            self.raw.write_at(offset, data)
        }
        fn sync(&mut self) -> Result<(), Code> {
            self.raw.sync()
        }
        fn drop_cache(&mut self) {
            self.raw.drop_cache();
        }
    }

    /// Two stores on flash with boolean flags; of the second one the medium says that it synced it, and keeps nothing. What
    /// is in force then, and what was told.
    fn forgotten(early: bool) -> (Option<BootVars>, Result<(), Code>) {
        let layout = Layout { copies: Copies::Redundant([0, 1024], Scheme::Boolean), size: 1024 };
        let decision = |committed| BootVars { committed: rev(committed), candidate: None, previous: None };
        let bench = Bench::new(Hardware::new(2048));
        for (offset, flags) in [0, 1024].into_iter().zip(layout.copies.fresh_flags()) {
            let mut copy = vec![0; layout.size];
            uboot::initial(TEXT, &decision("0"), flags, &mut copy).expect("it fits");
            bench.env().write_at(offset, &copy).expect("healthy media");
        }
        bench.with(Hardware::settle);
        let door = Door::new(&bench, None);
        let mut work = vec![0; 2 * layout.size];
        let region = Early { raw: door.env(), early, at: None };
        let mut env = Uboot::new(region, layout, TEXT, &mut work).expect("a good layout");
        env.store(&decision("locals/a")).expect("healthy media");
        door.forget_after(0);
        let told = env.store(&decision("locals/b"));
        bench.with(|hardware| hardware.cut(&mut Gen::all()));
        let mut work = vec![0; 2 * layout.size];
        let mut env = Uboot::new(door.env(), layout, TEXT, &mut work).expect("a good layout");
        (env.load().ok().map(|loaded| loaded.vars), told)
    }

    /// Law 4: the decision of before was told, and an older one would be in force.
    #[test]
    fn a_copy_that_is_retired_before_the_new_one_is_read_back_is_missed() {
        let committed = |early| {
            let (vars, told) = forgotten(early);
            assert_eq!(told, Err(Code::EnvStoreFailed));
            vars.map(|vars| vars.committed)
        };
        assert_eq!(committed(false), Some(rev("locals/a")));
        assert_eq!(committed(true), Some(rev("0")));
    }
}
