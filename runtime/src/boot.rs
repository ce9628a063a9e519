//! Which revision runs: a pure function of the environment, of what the loader says that it booted, and of the
//! journal. And the model of the boot script, which the simulator runs and the real script is checked against.
//!
//! Invariants: recovery is the normal path, there is no "was it a clean shutdown" branch. The environment
//! decides, the journal explains. What runs is what booted (kernel and initramfs are part of the revision);
//! the only exception is the step back from an update in place, where both revisions have the same base.
//! A choice is carried out in this order: journal record, environment store, reboot (`Mode::Abandon`) or start;
//! a cut in between leads to a choice with the same end.
//!
//! What it does not do: it does not read or write anything, and it does not report to anybody.

use crate::{
    fault::Code,
    id::RevName,
    journal::{Kind, Phase, Record},
    limits,
    port::{BootVars, Loaded},
};

/// Versions of the boot script that this release knows to keep the protocol. Version 1 took whatever `bootlimit` said.
pub const SCRIPTS: core::ops::RangeInclusive<u16> = 1..=2;
/// What the boot script obeys as `bootlimit`; for anything else it takes [`BOOTLIMIT`].
pub const BOOTLIMITS: core::ops::RangeInclusive<u32> = 1..=15;
/// Boots of a candidate if `bootlimit` is missing, no number, or absurd.
pub const BOOTLIMIT: u32 = 3;
/// The greatest boot counter that the script can read back: it compares eight digits.
pub const BOOTCOUNT_MAX: u32 = 99_999_999;

/// What the loader says on the kernel command line, and the hardware of the reset before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// `pv_rev`: the revision whose kernel and initramfs run. `None`: a loader that does not say; the committed one.
    pub booted: Option<RevName>,
    /// `pv_try`: the candidate that the loader's environment named. `None` also if the loader had no environment.
    pub candidate: Option<RevName>,
    /// `pv_bootcount`: boots counted for the candidate, this one included.
    pub bootcount: u32,
    /// `pv_canary`: the loader read its counter back after saving it. `false`: it cannot count.
    pub canary: bool,
    /// `pv_script`: version of the boot script; 0 if it does not say.
    pub script: u16,
    /// The watchdog's hardware says that it made the last reset. `false` also where it cannot tell.
    pub watchdog: bool,
}

/// How the chosen revision runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It is committed.
    Steady,
    /// It is committed, but in place: this boot must show that it also boots. Goals missed: `step_back`.
    Cold,
    /// It is the candidate: goals met, it is committed; missed, it has failed.
    Trial {
        /// Boots of it that reached us, this one included.
        tries: u8,
    },
    /// It is a candidate that has failed already: settle, then reboot; start nothing of it.
    Abandon,
    /// It is the factory revision, committed by a factory reset that has not ended: settle, so that both copies of the
    /// environment name it alone, then remove everything else, and only then start.
    FactoryReset,
}

/// The boot decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The revision to run.
    pub run: RevName,
    /// How it runs.
    pub mode: Mode,
    /// What the journal should say now, for the status of the last update. `None`: nothing is known of any.
    pub record: Option<Record>,
    /// Whether `record` is new and must be written first.
    pub write: bool,
    /// What the environment must become, after the journal; `None`: it is right.
    pub store: Option<BootVars>,
}

impl Choice {
    /// The verdict about a candidate that failed, as the journal knows it.
    pub fn verdict(&self) -> Option<(RevName, Code)> {
        match self.record {
            Some(Record { candidate, phase: Phase::Failed { code, .. }, .. }) => Some((candidate, code)),
            _ => None,
        }
    }

    /// Whether the revision runs degraded: its containers fell boot after boot, and restarting did not help.
    pub fn is_degraded(&self) -> bool {
        let fell = |record: Record| record.falls >= limits::FALLS_MAX && record.committed() == self.run;
        self.mode == Mode::Steady && self.record.is_some_and(fell)
    }
}

/// Decides. `loaded`: the environment, `None` if both copies are bad or cannot be read.
pub fn choose(loaded: Option<Loaded>, facts: &Facts, journal: Option<Record>) -> Choice {
    let asked = journal.is_some_and(|record| record.factory_reset);
    if asked && let Some(choice) = factory_reset(loaded, facts, journal) {
        return choice;
    }
    // One that was asked for and never stored did not begin: what else the record says still holds.
    let choice = decide(loaded, facts, journal.map(|record| Record { factory_reset: false, ..record }));
    Choice { write: choice.write || asked, ..choice }
}

/// A factory reset goes on if the environment commits to the factory revision alone and that is what booted; or if the
/// loader had no environment and went to the factory revision: its other choice, `last`, is whole until a reset begins.
fn factory_reset(loaded: Option<Loaded>, facts: &Facts, journal: Option<Record>) -> Option<Choice> {
    let factory = RevName::factory();
    let begun = match loaded {
        Some(Loaded { vars: BootVars { committed, candidate: None, .. }, .. }) => committed == factory,
        Some(_) => false,
        None => facts.candidate.is_none() && facts.booted.is_some(),
    };
    let runs = facts.booted.is_none_or(|booted| booted == factory);
    let choice =
        Choice { run: factory, mode: Mode::FactoryReset, record: journal, write: false, store: Some(factory_alone()) };
    (begun && runs).then_some(choice)
}

fn decide(loaded: Option<Loaded>, facts: &Facts, journal: Option<Record>) -> Choice {
    match loaded {
        None => match facts.candidate {
            Some(candidate) => unread(candidate, facts, journal),
            None => rebuild(facts, journal),
        },
        Some(Loaded { vars, .. }) => match vars.candidate {
            Some(candidate) => tried(vars, candidate, facts, journal),
            None => settled(vars, facts, journal),
        },
    }
}

/// The loader could read the environment a moment ago, and we cannot. It counts: a candidate is left to it.
fn unread(candidate: RevName, facts: &Facts, journal: Option<Record>) -> Choice {
    let run = facts.booted.unwrap_or(RevName::factory());
    let mode = if run == candidate { Mode::Abandon } else { Mode::Steady };
    Choice { run, mode, record: journal, write: false, store: None }
}

/// Both copies are bad: the loader booted its default (`last`, else the factory revision). That one is committed again.
fn rebuild(facts: &Facts, journal: Option<Record>) -> Choice {
    let booted = facts.booted.or(journal.map(|record| record.committed())).unwrap_or(RevName::factory());
    let stepped_back = journal.filter(|record| record.candidate == booted && cold_failed(record));
    let run = stepped_back.map_or(booted, |record| record.previous);
    let previous = journal.map(|record| record.previous).filter(|previous| *previous != run);
    let store = BootVars { committed: run, candidate: None, previous };
    let record = journal.and_then(|record| match (record.phase, record.candidate == run) {
        (Phase::Failed { .. }, _) | (Phase::Done { .. }, true) => None,
        // `last` names only what was committed
        (Phase::Armed | Phase::Trial { .. }, true) => Some(record.with(Phase::Done { cold_pending: false })),
        (_, false) => Some(failed(record, Code::EnvInvalid)),
    });
    Choice { run, mode: Mode::Steady, record: record.or(journal), write: record.is_some(), store: Some(store) }
}

/// The environment names a candidate. The reason why it failed is that of its last try: what its tries before ended by
/// is not kept.
fn tried(vars: BootVars, candidate: RevName, facts: &Facts, journal: Option<Record>) -> Choice {
    let fresh = Record::armed(candidate, vars.committed, Kind::Reboot);
    let known = journal.filter(|record| record.candidate == candidate && !matches!(record.phase, Phase::Done { .. }));
    let record = known.unwrap_or(fresh);
    let run = facts.booted.unwrap_or(vars.committed);
    let booted = run == candidate;
    let give_up = |code: Option<Code>| Choice {
        run,
        mode: if booted { Mode::Abandon } else { Mode::Steady },
        record: Some(code.map_or(record, |code| failed(record, code))),
        write: code.is_some(),
        store: Some(disarm(vars)),
    };
    let ended = |hung, otherwise| if facts.watchdog { hung } else { otherwise };
    match record.phase {
        Phase::Failed { .. } => give_up(None), // a cut came between the record and the store
        Phase::Trial { tries } if booted && tries >= limits::TRIES_MAX => {
            give_up(Some(ended(Code::WatchdogReset, Code::TriesExhausted)))
        }
        _ if booted => {
            // A boot tries the whole of it: after that there is nothing left to watch in a cold boot.
            let tries = tries(&record) + 1;
            let record = Record { kind: Kind::Reboot, phase: Phase::Trial { tries }, ..record };
            Choice { run, mode: Mode::Trial { tries }, record: Some(record), write: true, store: None }
        }
        _ if !facts.canary => give_up(Some(Code::LoaderCannotCount)),
        Phase::Trial { .. } => give_up(Some(ended(Code::WatchdogReset, Code::TriesExhausted))),
        _ => give_up(Some(ended(Code::WatchdogEarly, Code::LoaderGaveUp))),
    }
}

/// The environment names no candidate.
fn settled(vars: BootVars, facts: &Facts, journal: Option<Record>) -> Choice {
    let run = facts.booted.unwrap_or(vars.committed);
    let steady = Choice { run, mode: Mode::Steady, record: journal, write: false, store: None };
    let Some(record) = journal else { return steady };
    let ours = record.candidate == vars.committed;
    let cold = |pending: bool| if pending && run == vars.committed { Mode::Cold } else { Mode::Steady };
    match record.phase {
        Phase::Done { cold_pending } if ours => Choice { mode: cold(cold_pending), ..steady },
        // The step back of `step_back` was recorded, the store was cut: finish it. Same base, no reboot needed.
        Phase::Failed { .. } if ours && cold_failed(&record) && vars.previous == Some(record.previous) => {
            Choice { run: record.previous, store: Some(step_back(vars)), ..steady }
        }
        // The step back was stored, its record could not be written.
        Phase::Done { cold_pending: true } if vars.committed == record.previous => {
            Choice { record: Some(failed(record, Code::ColdBootFailed)), write: true, ..steady }
        }
        // The commit was stored, its record was cut.
        Phase::Armed | Phase::Trial { .. } if ours => {
            let cold_pending = record.kind == Kind::InPlace;
            let record = record.with(Phase::Done { cold_pending });
            Choice { mode: cold(cold_pending), record: Some(record), write: true, ..steady }
        }
        // Recorded, never stored: it was not tried.
        Phase::Armed | Phase::Trial { .. } => {
            Choice { record: Some(failed(record, Code::UpdateRestarted)), write: true, ..steady }
        }
        _ => steady,
    }
}

/// The environment commits to a revision that is not on this device: an owner wrote it. The loader found nothing to boot
/// there; what it booted in its place is committed, and the reason is told as that of an update.
pub fn commits_to_nothing(vars: BootVars, booted: RevName) -> Choice {
    let fresh = Record::armed(vars.committed, booted, Kind::Reboot);
    let store = BootVars { committed: booted, previous: vars.previous.filter(|rev| *rev != booted), ..vars };
    let record = Some(failed(fresh, Code::RevisionUnknown));
    Choice { run: booted, mode: Mode::Steady, record, write: true, store: Some(store) }
}

fn failed(record: Record, code: Code) -> Record {
    record.with(Phase::Failed { code, container: None })
}

fn cold_failed(record: &Record) -> bool {
    matches!(record.phase, Phase::Failed { code: Code::ColdBootFailed, .. })
}

fn tries(record: &Record) -> u8 {
    if let Phase::Trial { tries } = record.phase { tries } else { 0 }
}

/// Whether a candidate may be armed over this loader at all.
pub fn may_arm(facts: &Facts) -> Result<(), Code> {
    if !SCRIPTS.contains(&facts.script) { Err(Code::ScriptUnknown) } else { Ok(()) }
}

/// The transition that arms a candidate.
pub fn arm(vars: BootVars, candidate: RevName) -> BootVars {
    BootVars { candidate: Some(candidate), ..vars }
}

/// The transition that commits a candidate.
pub fn commit(vars: BootVars, candidate: RevName) -> BootVars {
    let previous = if candidate == vars.committed { vars.previous } else { Some(vars.committed) };
    BootVars { committed: candidate, candidate: None, previous }
}

/// The transition that gives a candidate up.
pub fn disarm(vars: BootVars) -> BootVars {
    BootVars { candidate: None, ..vars }
}

/// The transition from a committed revision, whose first cold boot missed its goals, to the one before.
pub fn step_back(vars: BootVars) -> BootVars {
    BootVars { committed: vars.previous.unwrap_or(vars.committed), candidate: None, previous: None }
}

/// The transition that begins a factory reset, and the one that makes the other copy of the environment say the same.
pub fn factory_alone() -> BootVars {
    BootVars { committed: RevName::factory(), candidate: None, previous: None }
}

/// The environment as the loader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoaderVars {
    /// `pv_rev`, `pv_try` (only with `upgrade_available=1`), `pv_prev`.
    pub vars: BootVars,
    /// `bootcount` as stored: the digits that it starts with; 0 without any.
    pub bootcount: u32,
    /// `bootlimit` as stored; 0 if it is missing or anything but a number.
    pub bootlimit: u32,
}

impl LoaderVars {
    /// Boots of a candidate, whatever an owner has stored.
    pub fn limit(&self) -> u32 {
        if BOOTLIMITS.contains(&self.bootlimit) { self.bootlimit } else { BOOTLIMIT }
    }
}

/// What the boot script does, as a reference model for it: which revision it boots, and what it then says.
///
/// `env`: the environment, `None` if both copies are bad. `count`: stores a boot counter and reads it back; false
/// if that failed. `loadable`: whether kernel and initramfs of a revision load. `last`: content of that file.
/// `None`: nothing boots.
pub fn loader(
    env: Option<LoaderVars>,
    mut count: impl FnMut(u32) -> bool,
    mut loadable: impl FnMut(&RevName) -> bool,
    last: Option<RevName>,
) -> Option<Facts> {
    let candidate = env.and_then(|env| env.vars.candidate);
    let mut facts =
        Facts { booted: None, candidate, bootcount: 0, canary: true, script: *SCRIPTS.end(), watchdog: false };
    if let Some((env, candidate)) = env.and_then(|env| Some((env, env.vars.candidate?))) {
        facts.bootcount = env.bootcount.saturating_add(1);
        facts.canary = count(facts.bootcount) && facts.bootcount <= BOOTCOUNT_MAX;
        if facts.bootcount <= env.limit() && facts.canary && loadable(&candidate) {
            facts.booted = Some(candidate);
            return Some(facts);
        }
    }
    let committed = env.map(|env| env.vars.committed);
    facts.booted = [committed, last, Some(RevName::factory())].into_iter().flatten().find(|rev| loadable(rev));
    facts.booted.map(|_| facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rev(name: &str) -> RevName {
        RevName::parse(name).unwrap()
    }

    /// `committed candidate previous`, `-` for none.
    fn vars(text: &str) -> BootVars {
        let mut words = text.split(' ').map(|word| RevName::parse(word).ok());
        let committed = words.next().unwrap().unwrap();
        BootVars { committed, candidate: words.next().unwrap(), previous: words.next().unwrap() }
    }

    fn loaded(text: &str) -> Option<Loaded> {
        (text != "bad").then(|| Loaded {
            vars: vars(text),
            bootcount: 0,
            named: [None; 6],
            complete: true,
            active: 1,
            damaged: false,
        })
    }

    fn booted(name: &str) -> Facts {
        let booted = RevName::parse(name).ok();
        Facts { booted, candidate: None, bootcount: 1, canary: true, script: 1, watchdog: false }
    }

    fn record(candidate: &str, kind: Kind, phase: Phase) -> Option<Record> {
        Some(Record { candidate: rev(candidate), previous: rev("1"), kind, phase, falls: 0, factory_reset: false })
    }

    const TRIAL: Phase = Phase::Trial { tries: 1 };
    const TWICE: Phase = Phase::Trial { tries: 2 };
    const FULL: Phase = Phase::Trial { tries: limits::TRIES_MAX };
    const MISSED: Phase = Phase::Failed { code: Code::GoalsMissed, container: None };
    const COLD: Phase = Phase::Failed { code: Code::ColdBootFailed, container: None };

    fn failed(code: Code) -> Phase {
        Phase::Failed { code, container: None }
    }

    #[test]
    fn the_table() {
        use {
            Kind::*,
            Mode::*,
            Phase::{Armed, Done},
        };
        type Row = (
            &'static str, // environment: committed candidate previous
            &'static str, // booted
            Option<Record>,
            &'static str,         // run
            Mode,                 // how
            Option<Phase>,        // the journal afterwards
            Option<&'static str>, // store
        );
        let done = |cold_pending| Done { cold_pending };
        #[rustfmt::skip]
        let table: &[Row] = &[
            // quiet
            ("1 - -", "1", None,                              "1", Steady, None, None),
            ("1 - 0", "-", None,                              "1", Steady, None, None),
            ("1 - 0", "0", None,                              "0", Steady, None, None),
            // the candidate was booted
            ("1 2 0", "2", record("2", Reboot, Armed),        "2", Trial { tries: 1 }, Some(TRIAL), None),
            ("1 2 0", "2", record("2", Reboot, TRIAL),        "2", Trial { tries: 2 }, Some(TWICE), None),
            ("1 2 0", "2", record("2", InPlace, Armed),       "2", Trial { tries: 1 }, Some(TRIAL), None),
            ("1 2 0", "2", None,                              "2", Trial { tries: 1 }, Some(TRIAL), None),
            ("1 2 0", "2", record("3", Reboot, MISSED),       "2", Trial { tries: 1 }, Some(TRIAL), None),
            ("1 2 0", "2", record("2", Reboot, done(false)),  "2", Trial { tries: 1 }, Some(TRIAL), None),
            ("1 2 0", "2", record("2", Reboot, FULL),         "2", Abandon, Some(failed(Code::TriesExhausted)), Some("1 - 0")),
            ("1 2 0", "2", record("2", Reboot, MISSED),       "2", Abandon, Some(MISSED), Some("1 - 0")),
            // the committed one was booted although a candidate is armed
            ("1 2 0", "1", record("2", Reboot, Armed),        "1", Steady, Some(failed(Code::LoaderGaveUp)), Some("1 - 0")),
            ("1 2 0", "1", None,                              "1", Steady, Some(failed(Code::LoaderGaveUp)), Some("1 - 0")),
            ("1 2 0", "1", record("2", Reboot, TRIAL),        "1", Steady, Some(failed(Code::TriesExhausted)), Some("1 - 0")),
            ("1 2 0", "1", record("2", Reboot, MISSED),       "1", Steady, Some(MISSED), Some("1 - 0")),
            ("1 2 0", "-", record("2", Reboot, Armed),        "1", Steady, Some(failed(Code::LoaderGaveUp)), Some("1 - 0")),
            // committed, the record is late
            ("2 - 1", "2", record("2", Reboot, TRIAL),        "2", Steady, Some(done(false)), None),
            ("2 - 1", "2", record("2", InPlace, Armed),       "2", Cold, Some(done(true)), None),
            ("2 - 1", "2", record("2", InPlace, done(true)),  "2", Cold, Some(done(true)), None),
            ("2 - 1", "2", record("2", InPlace, done(false)), "2", Steady, Some(done(false)), None),
            ("2 - 1", "1", record("2", InPlace, done(true)),  "1", Steady, Some(done(true)), None),
            // recorded, never armed
            ("1 - 0", "1", record("2", Reboot, Armed),        "1", Steady, Some(failed(Code::UpdateRestarted)), None),
            ("1 - 0", "1", record("2", Reboot, MISSED),       "1", Steady, Some(MISSED), None),
            // the step back
            ("2 - 1", "2", record("2", InPlace, COLD),        "1", Steady, Some(COLD), Some("1 - -")),
            ("1 - -", "1", record("2", InPlace, done(true)),  "1", Steady, Some(COLD), None),
            ("1 - -", "1", record("2", InPlace, COLD),        "1", Steady, Some(COLD), None),
            // an owner committed another one
            ("3 - 0", "3", record("2", InPlace, done(true)),  "3", Steady, Some(done(true)), None),
            // both copies bad
            ("bad", "1", None,                                "1", Steady, None, Some("1 - -")),
            ("bad", "-", None,                                "0", Steady, None, Some("0 - -")),
            ("bad", "1", record("2", Reboot, TRIAL),          "1", Steady, Some(failed(Code::EnvInvalid)), Some("1 - -")),
            ("bad", "2", record("2", InPlace, COLD),          "1", Steady, Some(COLD), Some("1 - -")),
            ("bad", "2", record("2", Reboot, TRIAL),          "2", Steady, Some(done(false)), Some("2 - 1")),
            ("bad", "1", record("2", Reboot, done(false)),    "1", Steady, Some(failed(Code::EnvInvalid)), Some("1 - -")),
            ("bad", "2", record("2", Reboot, done(false)),    "2", Steady, Some(done(false)), Some("2 - 1")),
            ("bad", "-", record("2", Reboot, done(false)),    "2", Steady, Some(done(false)), Some("2 - 1")),
        ];
        for (env, name, journal, run, mode, phase, store) in table {
            let choice = choose(loaded(env), &booted(name), *journal);
            let row = format!("{env} | {name} | {journal:?}");
            assert_eq!(choice.run, rev(run), "{row}");
            assert_eq!(choice.mode, *mode, "{row}");
            assert_eq!(choice.record.map(|record| record.phase), *phase, "{row}");
            assert_eq!(choice.write, choice.record != *journal, "{row}");
            assert_eq!(choice.store, store.map(vars), "{row}");
        }
    }

    /// Carrying a choice out and choosing again, with a cut after each step, ends in the same place.
    #[test]
    fn a_choice_that_was_cut_ends_the_same() {
        let phases = [Phase::Armed, TRIAL, FULL, MISSED, COLD, Phase::Done { cold_pending: true }];
        for env in ["1 2 0", "1 - 0", "2 - 1", "bad"] {
            for name in ["1", "2"] {
                for kind in [Kind::Reboot, Kind::InPlace] {
                    for phase in phases {
                        let (env, facts, journal) = (loaded(env), booted(name), record("2", kind, phase));
                        let whole = choose(env, &facts, journal);
                        if matches!(whole.mode, Mode::Trial { .. }) {
                            continue; // a try was counted: another one may follow
                        }
                        let cut = choose(env, &facts, whole.record);
                        assert_eq!((cut.run, cut.store), (whole.run, whole.store));
                        if let Some(store) = whole.store.filter(|_| whole.mode != Mode::Abandon) {
                            let done = Some(Loaded {
                                vars: store,
                                bootcount: 0,
                                named: [None; 6],
                                complete: true,
                                active: 1,
                                damaged: false,
                            });
                            let again = choose(done, &booted(whole.run.as_str()), whole.record);
                            assert_eq!((again.run, again.store, again.write), (whole.run, None, false));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_candidate_that_was_booted_is_tried_as_one_by_reboot() {
        let choice = choose(loaded("1 2 0"), &booted("2"), record("2", Kind::InPlace, Phase::Armed));
        assert_eq!(choice.record, record("2", Kind::Reboot, TRIAL));
    }

    #[test]
    fn a_factory_reset_goes_on_where_its_store_was_made_and_is_forgotten_elsewhere() {
        let plain = record("2", Kind::Reboot, Phase::Done { cold_pending: false });
        let asked = plain.map(|record| Record { factory_reset: true, ..record });
        let on_trial = |name| Facts { candidate: Some(rev("2")), ..booted(name) };
        for (env, facts, goes_on) in [
            ("0 - -", booted("0"), true),
            ("0 - 1", booted("0"), true),
            ("0 - -", booted("-"), true), // whoever knows no loader's word runs what is committed
            ("0 - -", booted("1"), false),
            ("0 2 -", on_trial("0"), false),
            ("1 - 0", booted("1"), false),
            ("1 - 0", booted("0"), false),
            ("bad", booted("0"), true),
            ("bad", booted("1"), false),
            ("bad", booted("-"), false),
            ("bad", on_trial("0"), false),
            ("bad", on_trial("-"), false),
        ] {
            let choice = choose(loaded(env), &facts, asked);
            let without = choose(loaded(env), &facts, plain);
            assert_ne!(without.mode, Mode::FactoryReset, "nobody asked");
            let store = Some(factory_alone());
            let begun = Choice { run: rev("0"), mode: Mode::FactoryReset, record: asked, write: false, store };
            // That it is forgotten is written down.
            assert_eq!(choice, if goes_on { begun } else { Choice { write: true, ..without } }, "{env} {facts:?}");
        }
    }

    #[test]
    fn an_environment_that_only_we_cannot_read_is_left_to_the_loader() {
        let journal = record("2", Kind::Reboot, Phase::Armed);
        for (name, mode) in [("2", Mode::Abandon), ("1", Mode::Steady)] {
            let facts = Facts { candidate: Some(rev("2")), ..booted(name) };
            let choice = choose(None, &facts, journal);
            assert_eq!(choice, Choice { run: rev(name), mode, record: journal, write: false, store: None });
        }
    }

    #[test]
    fn a_revision_whose_containers_fell_too_often_runs_degraded() {
        let done = Phase::Done { cold_pending: false };
        for (env, name, phase, falls, degraded) in [
            ("2 - 1", "2", done, limits::FALLS_MAX - 1, false),
            ("2 - 1", "2", done, limits::FALLS_MAX, true),
            ("1 - 0", "1", MISSED, limits::FALLS_MAX, true),
            // another revision than the one that fell, a first cold boot, a trial
            ("1 - 2", "1", done, limits::FALLS_MAX, false),
            ("2 - 1", "2", Phase::Done { cold_pending: true }, limits::FALLS_MAX, false),
            ("1 2 0", "2", TRIAL, limits::FALLS_MAX, false),
        ] {
            let journal = record("2", Kind::Reboot, phase).map(|record| Record { falls, ..record });
            assert_eq!(choose(loaded(env), &booted(name), journal).is_degraded(), degraded, "{env} {name} {phase:?}");
        }
    }

    #[test]
    fn a_committed_revision_that_is_not_there_is_replaced_by_what_booted() {
        for (env, previous) in [("2 - 1", None), ("2 - 0", Some(rev("0")))] {
            let choice = commits_to_nothing(vars(env), rev("1"));
            assert_eq!(choice.store, Some(BootVars { committed: rev("1"), candidate: None, previous }));
            assert_eq!(choice.verdict(), Some((rev("2"), Code::RevisionUnknown)));
            // Carried out, nothing is left to do.
            let done = Some(Loaded { vars: choice.store.unwrap(), ..loaded("1 - -").unwrap() });
            let again = choose(done, &booted("1"), choice.record);
            assert_eq!((again.run, again.store, again.write), (rev("1"), None, false));
        }
    }

    #[test]
    fn a_loader_that_cannot_count_is_named() {
        let facts = Facts { canary: false, ..booted("1") };
        let choice = choose(loaded("1 2 0"), &facts, record("2", Kind::Reboot, Phase::Armed));
        assert_eq!(choice.verdict(), Some((rev("2"), Code::LoaderCannotCount)));
        assert_eq!(may_arm(&Facts { script: 77, ..facts }), Err(Code::ScriptUnknown));
    }

    #[test]
    fn a_trial_that_the_watchdog_ended_says_so() {
        let table = [
            ("1", Phase::Armed, Some(Code::WatchdogEarly)),
            ("1", TWICE, Some(Code::WatchdogReset)),
            ("2", FULL, Some(Code::WatchdogReset)),
            // it is tried again, or the reason is known already
            ("2", TRIAL, None),
            ("1", MISSED, Some(Code::GoalsMissed)),
        ];
        for (name, phase, code) in table {
            let facts = Facts { watchdog: true, ..booted(name) };
            let journal = record("2", Kind::Reboot, phase);
            let [with, without] = [facts, booted(name)].map(|facts| choose(loaded("1 2 0"), &facts, journal));
            assert_eq!(with.verdict(), code.map(|code| (rev("2"), code)), "{name} {phase:?}");
            assert_eq!((with.run, with.mode, with.store), (without.run, without.mode, without.store));
        }
        // A loader that cannot count booted nothing: the reset was of something else.
        let facts = Facts { watchdog: true, canary: false, ..booted("1") };
        let choice = choose(loaded("1 2 0"), &facts, record("2", Kind::Reboot, Phase::Armed));
        assert_eq!(choice.verdict(), Some((rev("2"), Code::LoaderCannotCount)));
        // Without a candidate it changes nothing.
        for journal in [None, record("2", Kind::InPlace, Phase::Done { cold_pending: true })] {
            let choices =
                [true, false].map(|watchdog| choose(loaded("2 - 1"), &Facts { watchdog, ..booted("2") }, journal));
            assert_eq!(choices[0], choices[1]);
        }
    }

    /// The revisions that so many boots of a loader that counts would start.
    fn boots(bootcount: u32, bootlimit: u32, count: usize) -> Vec<&'static str> {
        let mut stored = bootcount;
        let mut one = || {
            let env = LoaderVars { vars: vars("1 2 0"), bootcount: stored, bootlimit };
            let facts = loader(
                Some(env),
                |count| {
                    stored = count;
                    true
                },
                |_| true,
                None,
            );
            if facts.unwrap().booted == Some(rev("2")) { "2" } else { "1" }
        };
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn the_loader_tries_a_candidate_a_bounded_number_of_times() {
        assert_eq!(boots(0, 3, 6), ["2", "2", "2", "1", "1", "1"]);
        assert_eq!(boots(2, 3, 2), ["2", "1"]);
        assert_eq!(boots(0, 1, 3), ["2", "1", "1"]);
        // Whatever an owner writes into the counter or the limit, and whatever its text is worth as a number.
        for bootlimit in [0, 1, 2, 3, 15, 16, 1000, u32::MAX] {
            let limit = if (1..=15).contains(&bootlimit) { bootlimit as usize } else { 3 };
            for bootcount in [0, 1, 14, 15, 16, BOOTCOUNT_MAX - 1, BOOTCOUNT_MAX, u32::MAX - 1, u32::MAX] {
                let tried = boots(bootcount, bootlimit, 20).iter().filter(|name| **name == "2").count();
                assert_eq!(tried, limit.saturating_sub(bootcount as usize), "{bootcount} {bootlimit}");
            }
        }
    }

    #[test]
    fn the_loader_falls_back_to_what_loads() {
        let env = Some(LoaderVars { vars: vars("1 2 0"), bootcount: 0, bootlimit: 3 });
        let run = |env, counts: bool, loadable: &[&str], last: Option<&str>| {
            let facts = loader(env, |_| counts, |rev| loadable.contains(&rev.as_str()), last.map(rev));
            facts.map(|facts| (facts.booted.unwrap(), facts.canary))
        };
        assert_eq!(run(env, true, &["0", "1", "2"], None), Some((rev("2"), true)));
        assert_eq!(run(env, true, &["0", "1"], None), Some((rev("1"), true)));
        assert_eq!(run(env, false, &["0", "1", "2"], None), Some((rev("1"), false)));
        assert_eq!(run(env, true, &["0"], None), Some((rev("0"), true)));
        assert_eq!(run(None, true, &["0", "1", "2"], Some("2")), Some((rev("2"), true)));
        assert_eq!(run(None, true, &["0", "1", "2"], None), Some((rev("0"), true)));
        assert_eq!(run(None, true, &[], Some("2")), None);
    }
}
