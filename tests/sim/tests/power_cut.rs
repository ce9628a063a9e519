//! Power cuts and failing media: the laws hold in every state that they can leave. What each part goes through stands in
//! `sim/suite.rs`; a violation shows the law, what was done, and the line that repeats it.
//!
//! One cut is before every effect of a whole voyage (the update comes in, is staged, prepared, armed, tried, committed or
//! given up; the rest is collected; two more boots), with every fate of what was pending: all combinations where they
//! are few, else all lost, all kept, all torn, each one alone lost, each one alone kept, and some drawn.

use runtime::{
    fault::Code,
    journal::{Phase, Record},
    limits,
    port::{Disk, Name, Owner, Stage, Volume},
    protocol::{Operation, Row, TABLE},
    store::{self, Step},
};
use simulator::{
    chores::Chore,
    device::{Buffers, End, Voyage, factory, first},
    explore::{Count, Yard},
    fleet::{Quality::*, Revision, content, rev},
    r#gen::Gen,
    loader::Skill,
    medium::{Bench, Bounds, Fault, Hardware, Model, Reach},
    suite::{PARTS, one, part, several},
    taken::Origin,
};
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

fn undisturbed(yard: &mut Yard, voyage: &Voyage) -> End {
    yard.sail(voyage, &mut Gen::all(), &mut Count::default()).unwrap_or_else(|found| panic!("{}", yard.trace(&found)))
}

/// With a boot volume of its own, or taken over.
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
        let stays = verdict.is_ok() && quality != OnlyWarm;
        for origin in [Origin::Factory, Origin::AsItIs] {
            let end = undisturbed(&mut yard, &Voyage { origin, ..one(quality, base) });
            assert_eq!(end.verdicts, [Some(verdict)], "{origin:?} {quality:?} {base}");
            let committed = rev(if stays { "locals/a" } else { "0" });
            assert_eq!(end.committed, Some(committed), "{origin:?} {quality:?} {base}");
        }
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

/// Three restarts that its container forces, and no more; it stays so, and takes an update.
#[test]
fn a_committed_revision_that_breaks_comes_to_rest() {
    for base in [1, 0] {
        let mut yard = Yard::new();
        let end = undisturbed(&mut yard, &one(Breaks, base));
        assert_eq!((end.committed, end.verdicts), (Some(rev("locals/a")), vec![Some(Ok(()))]));
        assert_eq!(end.record.map(|record| record.falls), Some(limits::FALLS_MAX));
        let steady = undisturbed(&mut yard, &one(Good, base));
        assert_eq!(end.boots, steady.boots + u32::from(limits::FALLS_MAX));
        let updates = [("locals/a", Breaks, 1), ("locals/b", Good, 2)];
        let updates = updates.map(|(name, quality, image)| Revision::new(name, quality, base, image));
        let end = undisturbed(&mut yard, &several(updates.into()));
        assert_eq!(end.committed, Some(rev("locals/b")));
        assert_eq!(end.record.map(|record| record.falls), Some(0));
    }
}

/// From the first byte that arrives to what the client is told in the end, whatever the number of objects: so many, no more and
/// no less. What failed by a boot has the reason in the journal, and no `last` to write.
#[test]
fn an_update_takes_two_stores_and_ten_syncs_in_place_nine() {
    let counts = |quality, base| {
        let end = undisturbed(&mut Yard::new(), &one(quality, base));
        (end.stores, end.syncs)
    };
    assert_eq!((counts(Good, 1), counts(Good, 0)), ((2, 10), (2, 9)));
    assert_eq!((counts(NeverReady, 1), counts(NeverReady, 0)), ((2, 10), (2, 9)));
    assert_eq!((counts(KernelPanics, 1), counts(InitPanics, 1)), ((2, 9), (2, 12)));
}

/// `pvr post -m`: beside the ten of the update.
#[test]
fn a_message_takes_two_syncs() {
    let bench = Bench::new(factory(&first(), &mut Buffers::new()));
    let before = bench.with(|hardware| hardware.syncs);
    store::message(&mut bench.clone(), first().rev, "why").unwrap();
    assert_eq!(bench.with(|hardware| hardware.syncs) - before, 2);
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
    one_cut_with_a_boot_volume_on_fat = "one cut, a boot volume on FAT";
    one_cut_in_four_updates = "one cut, four updates";
    one_cut_and_a_loader_that_cannot_count = "one cut, loader that cannot count";
    one_cut_and_containers_that_fall = "one cut, containers that fall once committed";
    a_cut_in_the_recovery = "a cut, and one in what follows";
    many_cuts_and_updates = "2 to 5 cuts, 1 to 5 updates, drawn";
    a_call_fails = "one call fails, once or from then on";
    a_call_fails_and_the_power_goes = "a call fails, 1 to 3 cuts, drawn";
    a_cut_in_one_operation = "sequences of 1 operation, one cut";
    a_cut_in_two_operations = "sequences of 2 operations, one cut";
    a_cut_in_three_operations = "sequences of 3 operations, one cut";
    one_cut_in_the_trial_of_a_takeover = "taken over, one cut in the trial";
    one_cut_after_a_takeover = "taken over, one cut in an update";
    a_cut_in_the_recovery_after_a_takeover = "taken over, a cut, and one in what follows";
    a_call_fails_in_a_takeover = "taken over, one call fails, once or from then on";
    many_cuts_after_a_takeover = "taken over, 2 to 5 cuts, 1 to 5 updates, drawn";
    a_call_fails_in_a_takeover_and_the_power_goes = "taken over, a call fails, 1 to 3 cuts, drawn";
    a_cut_in_one_operation_after_a_takeover = "taken over, sequences of 1 operation, one cut";
    a_cut_in_two_operations_after_a_takeover = "taken over, sequences of 2 operations, one cut";
    a_cut_in_three_operations_after_a_takeover = "taken over, sequences of 3 operations, one cut";
    one_copy_is_damaged = "one copy of the environment is damaged";
    both_copies_are_damaged = "both copies of the environment are damaged";
    a_disk_that_forgets = "a disk that forgets what it was to flush";
    a_disk_that_holds_back = "control: a disk that holds back what it was to flush";
}

/// A factory image need not say of which objects its boot assets are: they are prepared anew when somebody goes back to
/// revision 0, while the environment names it. The loader sees it at every instant.
#[test]
fn what_is_prepared_again_is_never_gone() {
    for model in Model::DEVICE {
        let cuts = prepare_again(model).unwrap_or_else(|how| panic!("{model:?}: {how}"));
        assert!(cuts > 5, "{cuts}");
    }
}

/// An update that is cut between its record and the store that arms it says that it was interrupted (SB1403), when the
/// device is at rest; before the record is durable (P3) it may also be unknown. Each step in between is cut before each of
/// its effects, in every state that the cut may leave.
#[test]
fn what_is_cut_before_it_is_armed_says_so() {
    let voyage = Voyage { chores: vec![Chore::Stage(1), Chore::Try(1)], ..one(Good, 1) };
    let said = Phase::Failed { code: Code::UpdateRestarted, container: None };
    let mut cut = BTreeSet::new();
    for at in 0.. {
        let (mut choices, mut row) = (Gen::all(), None);
        loop {
            let mut yard = Yard::new();
            let trace = Rc::new(RefCell::new(vec![]));
            yard.with_hardware(|hardware| hardware.trace = Some(trace.clone()));
            let voyage = Voyage { cuts: vec![at], ..voyage.clone() };
            let end = yard.sail(&voyage, &mut choices, &mut Count::default());
            let end = end.unwrap_or_else(|found| panic!("{}", yard.trace(&found)));
            assert!(end.cuts > 0, "the voyage is over before effect {at}: {cut:?}");
            row = row.or_else(|| cut_at(&trace.borrow()));
            let known = end.record.filter(|record| record.candidate == rev("locals/a")).map(|record| record.phase);
            match row {
                Some(Row::BuildAssets | Row::WriteIntent | Row::SyncAssets) => {
                    assert!(known.is_none_or(|phase| phase == said), "{row:?}, effect {at}: {known:?}");
                }
                Some(Row::NameAssets | Row::Checkpoint) => {
                    assert_eq!(known, Some(said), "{row:?}, effect {at}, {}", choices.line());
                }
                _ => {}
            }
            if row.is_none_or(|row| row.operation() != Operation::Prepare) || !choices.advance() {
                break;
            }
        }
        cut.extend(row);
        if row.is_some_and(|row| row > Row::DropOldAssets) {
            break;
        }
    }
    // P3a and P6 are about what the folder replaces: here there is nothing, and they have no effect to cut.
    let prepare = [Row::BuildAssets, Row::WriteIntent, Row::SyncAssets, Row::NameAssets, Row::Checkpoint];
    assert_eq!(cut.into_iter().filter(|row| row.operation() == Operation::Prepare).collect::<Vec<_>>(), prepare);
}

/// The row at which the power went.
fn cut_at(trace: &[String]) -> Option<Row> {
    let before = trace.iter().position(|line| line.ends_with("power gone"))?;
    let announced = |line: &String| TABLE.iter().find(|step| line.ends_with(&format!("  {} {:?}", step.id, step.row)));
    trace[..before].iter().rev().find_map(announced).map(|step| step.row)
}

/// And on FAT it would be: two folders cannot change places there. No board keeps there what this protocol writes by
/// name; what a board does keep on FAT, environment files of fixed size, is written by the sector.
#[test]
fn what_is_prepared_again_can_vanish_on_fat() {
    let how = prepare_again(Model::Fat).expect_err("a name that is replaced on FAT can vanish");
    assert!(how.contains("the loader does not see revision 0"), "{how}");
}

/// A file that is replaced by rename is the old or the new one, but on FAT, where it can be gone; a sector that is
/// overwritten in place is the old or the new one everywhere.
#[test]
fn a_file_replaced_on_fat_can_vanish_and_an_overwritten_sector_cannot() {
    let [old, new] = [&[1u8; 512], &[2u8; 512]];
    let after = |model, by_sector: bool| {
        let mut hardware = Hardware::new(4096);
        hardware.set_model(model);
        hardware.bounds = Bounds::ALL;
        let bench = Bench::new(hardware);
        let mut disk = bench.clone();
        let [next, kept] = [Stage::New, Stage::Live].map(|stage| Name::Memory(Owner::Endpoint, stage));
        let name = if by_sector { Name::Last } else { kept };
        disk.overwrite(name, old).unwrap();
        bench.with(Hardware::settle);
        if by_sector {
            disk.overwrite(name, new).unwrap();
        } else {
            disk.write(next, new).unwrap();
            disk.sync_file(next).unwrap();
            disk.rename(next, kept).unwrap();
        }
        let states = bench.with(|hardware| hardware.cuts().0);
        let state = |number| {
            let bench = Bench::new(bench.with(|hardware| hardware.clone()));
            bench.with(|hardware| hardware.cut_to(number));
            let mut sector = [0; 512];
            bench.clone().read(name, &mut sector).ok().map(|_| sector)
        };
        (0..states).map(state).collect::<BTreeSet<_>>()
    };
    for model in [Model::Posix, Model::Ext4Ordered, Model::Fat] {
        assert_eq!(after(model, true), [Some(*old), Some(*new)].into());
        let replaced: BTreeSet<_> =
            [Some(*old), Some(*new)].into_iter().chain((model == Model::Fat).then_some(None)).collect();
        assert_eq!(after(model, false), replaced, "{model:?}");
    }
}

/// The factory revision prepared anew, cut before every effect. How many cuts.
fn prepare_again(model: Model) -> Result<u64, String> {
    let mut buffers = Buffers::new();
    let factory = factory(&first(), &mut buffers);
    let bench = Bench::new(factory);
    bench.clone().remove(Name::File(Volume::Boot, Stage::Live, first().rev, "assets")).unwrap();
    let fresh = bench.with(|hardware| {
        hardware.settle();
        hardware.set_model(model);
        hardware.bounds = Bounds::ALL;
        hardware.clone()
    });
    let record = Record { previous: rev("locals/a"), phase: Phase::Armed, ..Record::none(first().rev) };
    let mut cut = 0;
    while cut_in(&fresh, cut, |bench| {
        let _ = store::prepare(&mut bench.clone(), &mut bench.journal(), &record, &mut buffers.scratch());
    })? {
        cut += 1;
    }
    Ok(cut)
}

/// Cuts a procedure before one of its effects, with every fate; whether it came to that.
fn cut_in(fresh: &Hardware, at: u64, mut procedure: impl FnMut(&Bench)) -> Result<bool, String> {
    let mut choices = Gen::all();
    loop {
        let bench = Bench::new(fresh.clone());
        bench.with(|hardware| hardware.fuse = Some(at));
        procedure(&bench);
        if !bench.with(|hardware| hardware.dead) {
            return Ok(false);
        }
        bench.with(|hardware| hardware.cut(&mut choices));
        for _ in 0..2 {
            let whole = bench.with(|hardware| {
                let sees = |(name, id)| hardware.loader_file(first().rev, name) == Some(content(id));
                let whole = ["pv-kernel.img", "pv-initrd.img"].into_iter().zip(first().assets).all(sees);
                hardware.mount();
                whole
            });
            if !whole {
                return Err(format!("cut before effect {at}: the loader does not see revision 0"));
            }
            store::recover(&mut bench.clone()).unwrap();
        }
        if !choices.advance() {
            return Ok(true);
        }
    }
}

/// The error of a sync may be anybody's: what came in for another revision is not whole because a later sync says so.
#[test]
fn a_failed_sync_takes_with_it_all_that_came_in() {
    let mut buffers = Buffers::new();
    let fresh = factory(&first(), &mut buffers);
    let [one, other] =
        [("locals/a", 1), ("locals/b", 2)].map(|(name, version)| Revision::new(name, Good, version, version));
    let stage = |bench: &Bench, revision: &Revision, buffers: &mut Buffers| {
        let step = Step { rev: revision.rev, state: revision.state.as_bytes(), message: "", progress: "{}" };
        store::stage(&mut bench.clone(), step, &[], &mut buffers.scratch())
    };
    for at in 0.. {
        let bench = Bench::new(fresh.clone());
        for id in one.objects.iter().chain(&other.objects) {
            bench.arrive(*id, content(*id)).unwrap();
        }
        let fault = |hardware: &Hardware| Fault {
            at: hardware.calls + at,
            sticky: false,
            code: Code::StorageIo,
            reach: Reach::Part,
        };
        bench.with(|hardware| hardware.fault = Some(fault(hardware)));
        let _ = stage(&bench, &one, &mut buffers);
        let faulted = bench.with(|hardware| hardware.faulted);
        bench.with(|hardware| hardware.fault = None);
        let staged = stage(&bench, &other, &mut buffers);
        assert!(staged.is_ok() || staged.unwrap_err().code == Code::ObjectMissing);
        for (key, content) in other.files().filter(|_| staged.is_ok()) {
            let durable =
                bench.with(|hardware| hardware.durable_file(Volume::Storage, other.rev, key) == Some(content));
            assert!(durable, "call {at} failed: {key} is not durable");
        }
        if !faulted {
            break;
        }
    }
}

/// A refusal comes before the first effect: media, journal and environment are what they were.
#[test]
fn what_is_refused_changes_nothing() {
    let mut buffers = Buffers::new();
    let fresh = factory(&first(), &mut buffers);
    let good = Revision::new("locals/a", Good, 1, 1);
    let group = good.state.replace(r#""group":"app""#, r#""group":"nowhere""#);
    let long = "x".repeat(300);
    let cases: [(&str, &str, &str, &[usize], Code); 8] = [
        ("locals/a", &good.state, "", &[0, 1, 2], Code::ObjectMissing),
        ("locals/a", &good.state[..good.state.len() / 2], "", &[0, 1, 2, 3], Code::StateTruncated),
        ("locals/a", &group, "", &[0, 1, 2, 3], Code::GroupUnknown),
        ("locals/a", "{}", "", &[0, 1, 2, 3], Code::SpecUnknown),
        ("locals/a", &good.state, &long, &[0, 1, 2, 3], Code::MessageTooLong),
        ("0", &good.state, "", &[0, 1, 2, 3], Code::RevisionInUse),
        ("locals/a", &good.state.replace("bsp/kernel", "bsp/../kernel"), "", &[0, 1, 2, 3], Code::KeyUnsafe),
        ("locals/a", &good.state.replace("\"linux\"", "\"other\""), "", &[0, 1, 2, 3], Code::BspMissing),
    ];
    for (name, state, message, arrived, code) in cases {
        let bench = Bench::new(fresh.clone());
        for index in arrived {
            bench.arrive(good.objects[*index], content(good.objects[*index])).unwrap();
        }
        let before = bench.with(|hardware| hardware.effects);
        let step = Step { rev: rev(name), state: state.as_bytes(), message, progress: "{}" };
        let refused = store::stage(&mut bench.clone(), step, &[], &mut buffers.scratch());
        assert_eq!(refused.map_err(|refusal| refusal.code), Err(code));
        assert_eq!(bench.with(|hardware| hardware.effects), before, "{code}");
    }
}
