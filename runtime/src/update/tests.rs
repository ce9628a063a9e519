//! The whole table: every state with every input. What it says stands in the book, so that a change of a cell
//! is seen as one.

use super::*;
use crate::{boot::Facts, port::Loaded};
use std::{fmt::Write, path::Path, vec::Vec};

const NOW: Millis = 1_000_000;
const TRIES: [u8; 2] = [1, limits::STORE_TRIES_MAX];

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn part(name: &str) -> PartName {
    PartName::parse(name).unwrap()
}

/// The four kinds of trial, by their records.
fn trials() -> [(&'static str, Record); 4] {
    let record = |kind, phase| Record {
        candidate: rev("locals/new"),
        previous: rev("1"),
        kind,
        phase,
        falls: 0,
        factory_reset: false,
    };
    [
        ("in place", record(Kind::InPlace, Phase::Armed)),
        ("by reboot", record(Kind::Reboot, Phase::Armed)),
        ("this boot", record(Kind::Reboot, Phase::Trial { tries: 1 })),
        ("cold boot", record(Kind::InPlace, Phase::Done { cold_pending: true })),
    ]
}

fn failed(trial: Record) -> Record {
    trial.with(Phase::Failed { code: Code::GoalsMissed, container: Some(part("web")) })
}

fn vars() -> BootVars {
    BootVars { committed: rev("1"), candidate: None, previous: Some(rev("0")) }
}

fn boot() -> Boot {
    let choice = Choice { run: rev("1"), mode: Mode::Steady, record: None, write: false, store: None };
    Boot { choice, vars: vars(), may_arm: Ok(()), degraded: false, commit_delay_ms: 25_000 }
}

/// The record of an update to what runs that ended long ago, and of restarts since.
fn fallen(falls: u8) -> Record {
    let phase = Phase::Done { cold_pending: false };
    Record { candidate: rev("1"), previous: rev("0"), kind: Kind::Reboot, phase, falls, factory_reset: false }
}

/// A factory reset is wanted.
fn intent() -> Record {
    Record { factory_reset: true, ..fallen(0) }
}

/// Boots of every kind, for the states before anything runs.
fn boots() -> Vec<(&'static str, Boot)> {
    let [_, armed, trial, cold] = trials().map(|(_, record)| record);
    let with = |mode, record, write, store| {
        let choice = Choice { run: rev("1"), mode, record, write, store };
        Boot { choice, ..boot() }
    };
    vec![
        ("steady", boot()),
        ("trial", with(Mode::Trial { tries: 1 }, Some(trial), true, None)),
        ("cold", with(Mode::Cold, Some(cold), false, None)),
        ("after falls", with(Mode::Steady, Some(fallen(1)), false, None)),
        ("given up by the loader", with(Mode::Steady, Some(failed(armed)), true, Some(vars()))),
        ("abandoned", with(Mode::Abandon, Some(failed(trial)), true, Some(vars()))),
        ("factory reset", with(Mode::FactoryReset, Some(intent()), false, Some(boot::factory_alone()))),
    ]
}

/// Every state, in every variant that the table tells apart.
fn states() -> Vec<(String, Boot, State)> {
    let mut states = Vec::new();
    for (name, boot) in boots() {
        states.push((format!("Boot, {name}"), boot, State::Boot));
        if boot.choice.write {
            states.push((format!("Explaining, {name}"), boot, State::Explaining));
        }
        if let Some(vars) = boot.choice.store {
            let settling = TRIES.map(|tries| (tries, State::Settling { vars, tries }));
            states.extend(settling.map(|(tries, state)| (format!("Settling, {name}, attempt {tries}"), boot, state)));
        }
    }
    let mut add = |name: String, state| states.push((name, boot(), state));
    add("Steady".into(), State::Steady);
    add("Loading".into(), State::Loading { rev: rev("locals/new"), conn: ConnId(7) });
    for (how, trial) in trials() {
        let (armed, booted) = (trial.phase == Phase::Armed, how != "by reboot");
        if armed {
            add(format!("Preparing, {how}"), State::Preparing(trial));
            add(format!("Refusing, {how}"), State::Refusing(failed(trial)));
            TRIES
                .iter()
                .for_each(|&tries| add(format!("Arming, {how}, attempt {tries}"), State::Arming { trial, tries }));
        }
        if how == "in place" {
            add(format!("Switching, {how}"), State::Switching { trial, until: NOW + 1 });
            add(format!("Switching, {how}, too long"), State::Switching { trial, until: NOW });
        }
        if booted {
            add(format!("Trying, {how}"), State::Trying { trial, relapses: 0 });
            let testing = |relapses, commit_at| State::Testing { trial, relapses, commit_at, stable_at: NOW };
            add(format!("Testing, {how}"), testing(0, NOW + 1));
            add(format!("Testing, {how}, delay over"), testing(0, NOW));
            add(format!("Testing, {how}, relapses used up"), testing(limits::RELAPSES_MAX, NOW + 1));
        }
        if booted && how != "cold boot" {
            TRIES.iter().for_each(|&tries| {
                add(format!("Committing, {how}, attempt {tries}"), State::Committing { trial, tries })
            });
        }
        if booted {
            let done = trial.with(Phase::Done { cold_pending: how == "in place" });
            TRIES.iter().for_each(|&tries| {
                add(format!("Recording, {how}, attempt {tries}"), State::Recording { trial, done, tries })
            });
        }
        let failed = failed(trial);
        add(format!("Noting, {how}"), State::Noting { trial, failed });
        TRIES.iter().for_each(|&tries| {
            add(format!("Disarming, {how}, attempt {tries}"), State::Disarming { trial, failed, tries })
        });
        if how == "in place" {
            add(format!("Restoring, {how}"), State::Restoring { failed, until: NOW + 1 });
            add(format!("Restoring, {how}, too long"), State::Restoring { failed, until: NOW });
            add(format!("Returning, {how}"), State::Returning(failed));
        }
    }
    let (record, name, code) = (fallen(1), part("web"), Code::ContainerExited);
    add("Falling".into(), State::Falling { record, name, code });
    add("Forgiving".into(), State::Forgiving(fallen(0)));
    add("Leaving".into(), State::Leaving { trial: None });
    let (conn, intent) = (ConnId(7), intent());
    add("Intending".into(), State::Intending { conn, intent });
    TRIES.iter().for_each(|&tries| {
        add(format!("Resetting, attempt {tries}"), State::Resetting { conn, intent, tries });
    });
    add("Keeping".into(), State::Keeping { conn, intent });
    TRIES.iter().for_each(|&tries| {
        add(format!("Withdrawing, attempt {tries}"), State::Withdrawing { conn, intent, code: Code::NoSpace, tries });
    });
    TRIES.iter().for_each(|&tries| add(format!("Clearing, attempt {tries}"), State::Clearing { tries }));
    let after_falls = |delay| Boot { commit_delay_ms: delay, ..boots()[3].1 };
    states.push(("Steady, after falls".into(), after_falls(1), State::Steady));
    states.push(("Steady, after falls, delay over".into(), after_falls(0), State::Steady));
    states
}

/// Every input, with the words of the book.
fn inputs() -> Vec<(String, Input)> {
    let mut inputs = vec![
        ("begin".into(), Input::Begin),
        ("run another revision".into(), Input::Run(ConnId(3), rev("locals/new"))),
        ("run the running revision".into(), Input::Run(ConnId(3), rev("1"))),
        ("factory reset".into(), Input::FactoryReset(ConnId(3))),
        ("read, in place".into(), Input::Loaded(Ok(Kind::InPlace))),
        ("read, by reboot".into(), Input::Loaded(Ok(Kind::Reboot))),
        ("cannot be read".into(), Input::Loaded(Err(Code::RevisionUnknown.into()))),
        ("prepared".into(), Input::Prepared(Ok(()))),
        ("not prepared".into(), Input::Prepared(Err(Code::NoSpace))),
        ("cleared".into(), Input::Cleared(Ok(()))),
        ("not cleared".into(), Input::Cleared(Err(Code::StorageIo))),
        ("recorded".into(), Input::Recorded(Ok(()))),
        ("not recorded".into(), Input::Recorded(Err(Code::StorageIo))),
        ("switching".into(), Input::Standing(Standing::Switching)),
        ("going".into(), Input::Standing(Standing::Going(part("web")))),
        ("goals met".into(), Input::Standing(Standing::Met { stable_at: NOW })),
        ("goals met, not stable".into(), Input::Standing(Standing::Met { stable_at: NOW + 1 })),
        ("goals missed".into(), Input::Standing(Standing::Missed(part("web")))),
        ("a container fell".into(), Input::Fell(part("web"), Code::ContainerExited)),
        ("a container gave up".into(), Input::GaveUp(part("web"), Code::ContainerExited)),
        ("the device goes down".into(), Input::Leave),
    ];
    use Transition::{Arm, Commit, Disarm, FactoryReset, Settle, StepBack};
    for transition in [Settle, Arm, Commit, Disarm, StepBack, FactoryReset] {
        inputs.push((format!("stored ({transition:?})"), Input::Stored(transition, Ok(()))));
        inputs.push((format!("not stored ({transition:?})"), Input::Stored(transition, Err(Code::EnvStoreFailed))));
    }
    inputs
}

fn word(state: State) -> String {
    let debug = format!("{state:?}");
    debug.split([' ', '(', '{']).next().unwrap_or("").to_string()
}

fn words(commands: &Commands) -> String {
    let mut text = String::new();
    for command in commands {
        let part = match command {
            Command::Load(_) => "read it".into(),
            Command::Answer(_, Answer::Refused(refusal, _)) => format!("answer {}", refusal.code),
            Command::Answer(..) => "answer 200".into(),
            Command::Keep(Job::Prepare(_)) => "prepare".into(),
            Command::Keep(Job::Record(Record { falls, .. })) if *falls > 0 => format!("record fall {falls}"),
            Command::Keep(Job::Record(Record { phase: Phase::Failed { code, .. }, .. })) => format!("record {code}"),
            Command::Keep(Job::Record(Record { phase: Phase::Done { cold_pending: true }, .. })) => {
                "record done, cold boot pending".into()
            }
            Command::Keep(Job::Record(Record { phase: Phase::Done { .. }, .. })) => "record done".into(),
            Command::Keep(Job::Record(_)) => "record the try".into(),
            Command::Keep(Job::Intend(_)) => "show the factory revision to the loader, record the wish".into(),
            Command::Keep(Job::Clear) => "remove everything else".into(),
            Command::Keep(other) => format!("{other:?}"),
            Command::Store(transition, _) => format!("store ({transition:?})"),
            Command::Start => "containers of the running revision".into(),
            Command::Switch => "containers of the candidate".into(),
            Command::Adopt => "the candidate is the running revision".into(),
            Command::Leave(Reason::Try(_)) => "reboot to try it".into(),
            Command::Leave(Reason::Rollback(_, code)) => format!("reboot to roll back, {code}"),
            Command::Leave(reason) => format!("reboot, {reason:?}").split('(').next().unwrap_or("").to_string(),
        };
        let comma = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{comma}{part}");
    }
    text
}

/// What holds in every state, so that the page says it once.
fn is_general(state: State, input: Input, out: &Commands) -> bool {
    match input {
        Input::Leave => true,
        Input::Run(..) | Input::FactoryReset(_) => state != State::Steady,
        Input::Fell(..) => matches!(out[..], [Command::Leave(Reason::Container(..)), ..]),
        _ => false,
    }
}

/// The cells that do something, as a page of the book.
fn page() -> String {
    let mut page = String::from(
        "# The update, state by input\n\nEvery state of an update with every input that changes it or is answered. What is not listed changes nothing.\nIn every state: a request to run a revision, or for a factory reset, is answered SB1402 (but in Steady); when the\ndevice goes down for another reason, Leaving is next; where a container's fall is not listed, it reboots the device. A device that runs degraded, after\nthree restarts in a row that a container's fall forced, stays up instead, in Steady too.\nTrials are in place, by reboot (before it), this boot (after it), or the cold boot after an update in place.\n\n| state | input | next | asks for |\n|---|---|---|---|\n",
    );
    for (name, boot, state) in states() {
        for (input_name, input) in inputs() {
            let mut update = Update { state, ..Update::new(boot) };
            let mut out = Commands::new();
            update.handle(NOW, input, &mut out);
            let changed = update.state != state || !out.is_empty();
            if !changed || is_general(state, input, &out) {
                continue;
            }
            let _ = writeln!(page, "| {name} | {input_name} | {} | {} |", word(update.state), words(&out));
        }
    }
    page
}

/// `BLESS=1 cargo test -p runtime update` writes the page anew.
#[test]
fn the_table_is_the_one_in_the_book() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/update.md");
    let want = page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    for (have, want) in have.lines().zip(want.lines()) {
        assert_eq!(have, want, "docs/update.md differs from the code");
    }
    assert_eq!(have.len(), want.len(), "docs/update.md differs from the code");
}

/// Facts about all cells at once, which a single row does not show.
#[test]
fn the_table_keeps_its_invariants() {
    for (name, boot, state) in states() {
        for (input_name, input) in inputs() {
            let cell = format!("{name} / {input_name}");
            let mut update = Update { state, ..Update::new(boot) };
            let mut out = Commands::new();
            update.handle(NOW, input, &mut out);
            let stores = out.iter().filter(|command| matches!(command, Command::Store(..))).count();
            assert!(stores <= 1, "{cell}: two stores for one transition");
            let answers = out.iter().filter(|command| matches!(command, Command::Answer(..))).count();
            let asked = matches!(input, Input::Run(..) | Input::FactoryReset(_)) && answers == 0;
            let loading = matches!(update.state, State::Loading { .. } | State::Intending { .. });
            if matches!(state, State::Leaving { .. }) {
                assert!(out.is_empty(), "{cell}: the device goes down");
                continue;
            }
            assert!(answers <= 1 && (!asked || loading), "{cell}: asked and not answered");
            for command in &out {
                match command {
                    Command::Store(Transition::Commit, vars) => {
                        assert!(matches!(state, State::Testing { .. } | State::Committing { .. }), "{cell}");
                        assert_eq!((vars.committed, vars.previous), (rev("locals/new"), Some(rev("1"))), "{cell}");
                    }
                    Command::Switch => assert!(matches!(state, State::Arming { .. }), "{cell}: not armed"),
                    Command::Leave(_) => assert!(matches!(update.state, State::Leaving { .. }), "{cell}"),
                    _ => {}
                }
            }
            match input {
                Input::Leave => {
                    assert!(matches!(update.state, State::Leaving { .. }), "{cell}");
                    let waits = matches!(state, State::Loading { .. } | State::Intending { .. })
                        || matches!(state, State::Resetting { .. } | State::Keeping { .. })
                        || matches!(state, State::Withdrawing { .. });
                    assert_eq!(answers, usize::from(waits), "{cell}: who waits for an answer gets one");
                }
                Input::Run(..) | Input::FactoryReset(_) if state != State::Steady => {
                    let busy = Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S);
                    assert_eq!((update.state, &out[..]), (state, &[Command::Answer(ConnId(3), busy)][..]), "{cell}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_final_status_is_shown_only_when_nothing_is_left_to_do() {
    for (name, boot, state) in states() {
        let update = Update { state, ..Update::new(boot) };
        let shown = update.progress(NOW, rev("locals/new"));
        let cold = name.contains("cold") || name.contains("falls"); // it was reported as done before this boot
        let settled = matches!(state, State::Steady | State::Leaving { .. }) || boot.choice.verdict().is_some();
        if !cold && !settled {
            assert!(shown.is_none_or(|progress| !progress.is_final()), "{name}: {shown:?}");
        }
    }
}

/// Who asks for another revision is told of that one.
#[test]
fn the_progress_of_a_trial_is_that_of_its_state() {
    let [in_place, by_reboot, this_boot, cold] = trials().map(|(_, record)| record);
    let testing = |trial, commit_at| State::Testing { trial, relapses: 0, commit_at, stable_at: NOW };
    let lost = failed(by_reboot);
    for (state, expected) in [
        (State::Preparing(by_reboot), Progress::REBOOTING),
        (State::Arming { trial: in_place, tries: 1 }, Progress::SWITCHING),
        (State::Switching { trial: in_place, until: NOW }, Progress::SWITCHING),
        (State::Trying { trial: this_boot, relapses: 0 }, Progress::TRYING),
        (State::Trying { trial: in_place, relapses: 0 }, Progress::TRYING),
        (testing(this_boot, NOW + 1), Progress::TESTING_BOOT),
        (testing(in_place, NOW + 1), Progress::TESTING_IN_PLACE),
        (testing(in_place, NOW), Progress::TESTING_STABLE),
        (State::Committing { trial: this_boot, tries: 1 }, Progress::TESTING_BOOT),
        (State::Committing { trial: in_place, tries: 1 }, Progress::TESTING_IN_PLACE),
        (State::Recording { trial: this_boot, done: this_boot, tries: 1 }, Progress::TESTING_BOOT),
        (State::Recording { trial: in_place, done: in_place, tries: 1 }, Progress::TESTING_IN_PLACE),
        (State::Trying { trial: cold, relapses: 0 }, Progress::DONE),
        (testing(cold, NOW + 1), Progress::DONE),
        (State::Leaving { trial: Some(by_reboot) }, Progress::REBOOTING),
        (State::Leaving { trial: Some(lost) }, Progress::of(&lost).unwrap()),
    ] {
        let update = Update { state, ..Update::new(boot()) };
        assert_eq!(update.progress(NOW, rev("locals/new")), Some(expected), "{state:?}");
        assert_eq!(update.progress(NOW, rev("locals/other")), None, "{state:?}");
        assert_eq!(update.progress(NOW, rev("0")), Some(Progress::FACTORY), "{state:?}");
    }
    // Without a trial it is that of the last one; of one that did not end, how far it came.
    for (last, expected) in [(lost, Progress::of(&lost).unwrap()), (by_reboot, Progress::REBOOTING)] {
        let update = Update { state: State::Steady, last: Some(last), ..Update::new(boot()) };
        assert_eq!(update.last(), Some(last));
        assert_eq!(update.progress(NOW, rev("locals/new")), Some(expected));
        assert_eq!(update.progress(NOW, rev("locals/other")), None);
        assert_eq!(update.progress(NOW, rev("0")), Some(Progress::FACTORY));
    }
}

#[test]
fn it_waits_for_a_time_only_where_one_is_awaited() {
    let [in_place, _, this_boot, cold] = trials().map(|(_, record)| record);
    let testing = |commit_at, stable_at| State::Testing { trial: in_place, relapses: 0, commit_at, stable_at };
    for (state, at, may_leave) in [
        (State::Steady, None, true),
        (State::Preparing(in_place), None, false),
        (State::Switching { trial: in_place, until: 7 }, Some(7), false),
        (State::Restoring { failed: failed(in_place), until: 8 }, Some(8), false),
        (testing(9, 4), Some(9), false),
        (testing(4, 9), Some(9), false),
        (State::Trying { trial: this_boot, relapses: 0 }, None, false),
        // what is watched in a cold boot can be watched in the next one
        (State::Trying { trial: cold, relapses: 0 }, None, true),
        (State::Testing { trial: cold, relapses: 0, commit_at: 1, stable_at: 1 }, Some(1), true),
        (State::Recording { trial: cold, done: cold, tries: 1 }, None, false),
    ] {
        let update = Update { state, ..Update::new(boot()) };
        assert_eq!((update.poll_at(), update.may_leave()), (at, may_leave), "{state:?}");
        assert_eq!(update.is_steady(), state == State::Steady);
    }
}

#[test]
fn a_degraded_device_stays_up() {
    for state in [State::Steady, State::Preparing(trials()[0].1)] {
        let mut update = Update { state, ..Update::new(Boot { degraded: true, ..boot() }) };
        let mut out = Commands::new();
        update.handle(NOW, Input::Fell(part("web"), Code::ContainerExited), &mut out);
        assert_eq!((update.state, out.len()), (state, 0));
    }
}

#[test]
fn any_other_device_restarts_when_a_container_falls_during_an_update() {
    let fell = Reason::Container(part("web"), Code::ContainerExited);
    for state in [State::Preparing(trials()[0].1), State::Loading { rev: rev("locals/new"), conn: ConnId(7) }] {
        let (mut update, mut out) = (Update { state, ..Update::new(boot()) }, Commands::new());
        update.handle(NOW, Input::Fell(part("web"), Code::ContainerExited), &mut out);
        assert!(matches!(update.state, State::Leaving { .. }));
        assert!(out.contains(&Command::Leave(fell)), "{out:?}");
    }
}

/// Which attempt this is, of what is tried more than once.
fn attempt(state: State) -> Option<u8> {
    match state {
        State::Settling { tries, .. }
        | State::Clearing { tries }
        | State::Resetting { tries, .. }
        | State::Withdrawing { tries, .. }
        | State::Arming { tries, .. }
        | State::Committing { tries, .. }
        | State::Recording { tries, .. }
        | State::Disarming { tries, .. } => Some(tries),
        _ => None,
    }
}

#[test]
fn what_fails_again_and_again_is_given_up() {
    let mut kinds = std::collections::BTreeSet::new();
    for (name, boot, state) in states().into_iter().filter(|(_, _, state)| attempt(*state) == Some(1)) {
        for (input_name, input) in inputs().into_iter().filter(|(name, _)| name.starts_with("not ")) {
            let mut update = Update { state, ..Update::new(boot) };
            let (mut attempts, mut asked) = (1, true);
            while asked && word(update.state) == word(state) {
                let mut out = Commands::new();
                update.handle(NOW, input, &mut out);
                asked = !out.is_empty() && word(update.state) == word(state);
                attempts += u8::from(asked);
                assert!(attempts <= limits::STORE_TRIES_MAX, "{name} / {input_name}");
            }
            if update.state != state {
                kinds.insert(word(state));
                assert_eq!(attempts, limits::STORE_TRIES_MAX, "{name} / {input_name}");
            }
        }
    }
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}

/// Three restarts in a row, then it stays up; until its goals are met for as long as before a commit.
#[test]
fn falls_are_counted_and_forgotten() {
    let web = || (part("web"), Code::ContainerExited);
    let mut record = None;
    for falls in 1..=limits::FALLS_MAX {
        let choice = Choice { record, ..boot().choice };
        assert!(!choice.is_degraded());
        let mut update = Update { state: State::Steady, ..Update::new(Boot { choice, ..boot() }) };
        let mut out = Commands::new();
        update.handle(NOW, Input::Fell(web().0, web().1), &mut out);
        let [Command::Keep(Job::Record(counted))] = out[..] else { panic!("{out:?}") };
        assert_eq!(counted.falls, falls);
        out.clear();
        update.handle(NOW, Input::Recorded(Ok(())), &mut out);
        assert_eq!(out[..], [Command::Leave(Reason::Container(web().0, web().1))]);
        record = Some(counted);
    }
    let choice = Choice { record, ..boot().choice };
    assert!(choice.is_degraded());
    let boot = Boot { choice, degraded: true, ..boot() };
    let mut update = Update { state: State::Steady, ..Update::new(boot) };
    let mut out = Commands::new();
    let met = |stable_at| Input::Standing(Standing::Met { stable_at });
    update.handle(NOW, met(NOW), &mut out);
    assert_eq!((update.poll_at(), out.len()), (Some(NOW + boot.commit_delay_ms), 0));
    update.handle(NOW + 1, Input::Standing(Standing::Going(part("web"))), &mut out);
    assert_eq!((update.poll_at(), out.len()), (None, 0), "it begins anew");
    update.handle(NOW + 2, met(NOW), &mut out);
    let late = NOW + 2 + boot.commit_delay_ms;
    update.handle(late, met(late + 5), &mut out);
    assert_eq!((update.poll_at(), out.len()), (Some(late + 5), 0));
    update.handle(late + 5, met(late + 5), &mut out);
    assert_eq!(out[..], [Command::Keep(Job::Record(Record { falls: 0, ..record.unwrap() }))]);
    assert!(update.is_degraded());
    update.handle(late + 6, Input::Recorded(Err(Code::StorageIo)), &mut out);
    assert!(!update.is_degraded() && update.is_steady() && update.falls() == 0);
}

/// An owner commits to other revisions with the loader's tools: restarts count for the revision that fell, and for no
/// other one that the last record is about.
#[test]
fn falls_are_of_the_revision_that_runs() {
    let chosen = |name: &str, journal| {
        let vars = BootVars { committed: rev(name), candidate: None, previous: None };
        let loaded = Loaded { vars, bootcount: 0, named: [None; 6], complete: true, active: 1, damaged: false };
        let (booted, candidate) = (Some(rev(name)), None);
        let facts = Facts { booted, candidate, bootcount: 0, canary: true, script: 1, watchdog: false };
        boot::choose(Some(loaded), &facts, journal)
    };
    let steady = |choice| Update { state: State::Steady, ..Update::new(Boot { choice, ..boot() }) };
    let mut out = Commands::new();
    for before in [0, limits::FALLS_MAX] {
        let mut journal = Some(Record { candidate: rev("3"), ..fallen(before) });
        for falls in 1..=limits::FALLS_MAX {
            let choice = chosen("2", journal);
            assert!(!choice.is_degraded(), "fall {falls} after {before} of another revision");
            let mut update = steady(choice);
            assert_eq!(update.falls(), falls - 1);
            update.handle(NOW, Input::Fell(part("web"), Code::ContainerExited), &mut out);
            let [Command::Keep(Job::Record(counted))] = out[..] else { panic!("{out:?}") };
            assert_eq!((counted.committed(), counted.falls), (rev("2"), falls));
            out.clear();
            journal = Some(counted);
        }
        assert!(chosen("2", journal).is_degraded(), "after {before} of another revision");
        // Back on the other one: nothing of it fell, so there is nothing to forget either.
        let choice = chosen("3", journal);
        assert!(!choice.is_degraded());
        let mut update = steady(choice);
        update.handle(NOW, Input::Standing(Standing::Met { stable_at: NOW }), &mut out);
        assert_eq!((update.falls(), update.poll_at(), out.len()), (0, None, 0));
    }
}

#[test]
fn over_a_candidate_that_could_not_be_cleared_nothing_is_armed() {
    let vars = BootVars { candidate: Some(rev("locals/old")), ..vars() };
    let mut update = Update { state: State::Steady, ..Update::new(Boot { vars, ..boot() }) };
    let mut out = Commands::new();
    let refused = Answer::Refused(Code::EnvStoreFailed.into(), 0);
    for input in [Input::Run(ConnId(7), rev("locals/new")), Input::FactoryReset(ConnId(7))] {
        out.clear();
        update.handle(NOW, input, &mut out);
        assert_eq!((update.state(), &out[..]), (State::Steady, &[Command::Answer(ConnId(7), refused)][..]));
    }
}

/// A way back that takes too long is a reboot: that is counted from when it begins.
#[test]
fn containers_have_so_long_to_change_over() {
    let [in_place, ..] = trials().map(|(_, record)| record);
    let failed = failed(in_place);
    let until = NOW + limits::SWITCH_PATIENCE_MS;
    for (state, input, expected) in [
        (
            State::Arming { trial: in_place, tries: 1 },
            Input::Stored(Transition::Arm, Ok(())),
            State::Switching { trial: in_place, until },
        ),
        (
            State::Disarming { trial: in_place, failed, tries: 1 },
            Input::Stored(Transition::Disarm, Ok(())),
            State::Restoring { failed, until },
        ),
    ] {
        let mut update = Update { state, ..Update::new(boot()) };
        update.handle(NOW, input, &mut Commands::new());
        assert_eq!(update.state(), expected);
    }
}

#[test]
fn a_candidate_that_failed_is_taken_out_of_the_environment_and_a_committed_one_stepped_back_from() {
    let [in_place, _, this_boot, cold] = trials().map(|(_, record)| record);
    let vars = |committed, candidate: Option<&str>, previous: Option<&str>| BootVars {
        committed: rev(committed),
        candidate: candidate.map(rev),
        previous: previous.map(rev),
    };
    let armed = vars("1", Some("locals/new"), Some("0"));
    for (trial, before, transition, after) in [
        (in_place, armed, Transition::Disarm, vars("1", None, Some("0"))),
        (this_boot, armed, Transition::Disarm, vars("1", None, Some("0"))),
        (cold, vars("locals/new", None, Some("1")), Transition::StepBack, vars("1", None, None)),
    ] {
        let state = State::Noting { trial, failed: failed(trial) };
        let mut update = Update { state, ..Update::new(Boot { vars: before, ..boot() }) };
        let mut out = Commands::new();
        update.handle(NOW, Input::Recorded(Ok(())), &mut out);
        assert_eq!(out[..], [Command::Store(transition, after)]);
        update.handle(NOW, Input::Stored(transition, Ok(())), &mut out);
        assert_eq!(update.vars(), after);
    }
}

#[test]
fn a_factory_reset_that_did_not_begin_leaves_no_wish() {
    let state = State::Intending { conn: ConnId(7), intent: intent() };
    let (mut update, mut out) = (Update { state, ..Update::new(boot()) }, Commands::new());
    update.handle(NOW, Input::Prepared(Err(Code::NoSpace)), &mut out);
    assert_eq!(out[..], [Command::Keep(Job::Record(Record { factory_reset: false, ..intent() }))]);
}

#[test]
fn what_may_be_needed_is_kept() {
    let vars = BootVars { candidate: Some(rev("locals/armed")), ..vars() };
    let kept = |state| {
        let update = Update { state, running: rev("locals/runs"), ..Update::new(Boot { vars, ..boot() }) };
        update.kept().collect::<Vec<_>>()
    };
    let known = ["locals/runs", "1", "locals/armed", "0"].map(rev);
    let with_new = ["locals/runs", "1", "locals/armed", "0", "locals/new"].map(rev);
    assert_eq!(kept(State::Steady), known);
    assert_eq!(kept(State::Loading { rev: rev("locals/new"), conn: ConnId(1) }), with_new);
    assert_eq!(kept(State::Preparing(trials()[0].1)), with_new);
}

#[test]
fn a_loader_that_is_not_known_is_not_armed() {
    let mut update = Update::new(Boot { may_arm: Err(Code::ScriptUnknown), ..boot() });
    let mut out = Commands::new();
    update.handle(NOW, Input::Begin, &mut out);
    out.clear();
    update.handle(NOW, Input::Run(ConnId(1), rev("locals/new")), &mut out);
    assert_eq!(out[..], [Command::Answer(ConnId(1), Answer::Refused(Code::ScriptUnknown.into(), 0))]);
    assert!(update.is_steady());
}
