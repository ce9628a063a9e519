//! The update: from the boot decision to steady, and from a request to DONE or to the reason why not.
//!
//! One table, state by input, in `Update::handle`. What identifies a trial travels in the states as its journal
//! record: its kind says how it is tried, its phase what kind of trial it is (`Armed`: in place, `Trial`: by this
//! boot, `Done` with a cold boot pending: the first boot of what was committed in place).
//!
//! Invariants
//! * The environment names the candidate before the first container is stopped for it, by one store.
//! * A commit is one store, asked for only in `Testing` while the goals are met; its record follows; then DONE.
//! * A trial ends: by its goals, by their time-outs, by a fall, or by the bound on relapses.
//! * Every failure goes reason, store, then back: a cut in between finds the reason and finishes.
//! * A store or a record that fails is retried a bounded number of times, and then blamed on the update.
//!
//! What it does not do: it does not know containers or files; it asks for them (`Command`).

use crate::{
    boot::{self, Choice, Mode},
    control::Answer,
    fault::{Code, Refusal},
    id::{ConnId, PartName, RevName},
    journal::{Kind, Phase, Record},
    limits,
    machine::{Job, Reason, Transition},
    order::Standing,
    port::{BootVars, Millis},
    progress::Progress,
};
use heapless::Vec;

/// Where the update is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The loop has not begun.
    Boot,
    /// What `boot::choose` wants in the journal is being written.
    Explaining,
    /// What `boot::choose` wants in the environment is being stored.
    Settling {
        /// The environment to be.
        vars: BootVars,
        /// Which attempt it is.
        tries: u8,
    },
    /// Nothing is on trial.
    Steady,
    /// A candidate's state is being read.
    Loading {
        /// Its name.
        rev: RevName,
        /// Who asked and is answered when it is known whether it can be run.
        conn: ConnId,
    },
    /// The candidate is being made visible to the loader.
    Preparing(Record),
    /// It cannot be run; the reason is being written. Nothing was armed.
    Refusing(Record),
    /// The environment is about to name the candidate.
    Arming {
        /// The trial to be.
        trial: Record,
        /// Which attempt it is.
        tries: u8,
    },
    /// What the candidate replaces is being stopped.
    Switching {
        /// The trial.
        trial: Record,
        /// When that has taken too long.
        until: Millis,
    },
    /// The candidate runs; its goals are awaited.
    Trying {
        /// The trial.
        trial: Record,
        /// How often goals that were met were lost again.
        relapses: u8,
    },
    /// The goals are met; they must stay so.
    Testing {
        /// The trial.
        trial: Record,
        /// As in `Trying`.
        relapses: u8,
        /// When the commit delay is over.
        commit_at: Millis,
        /// When the last container counts as stable.
        stable_at: Millis,
    },
    /// The environment is about to name the candidate as the committed revision.
    Committing {
        /// The trial.
        trial: Record,
        /// Which attempt it is.
        tries: u8,
    },
    /// It is committed; the journal is about to say so.
    Recording {
        /// The trial.
        trial: Record,
        /// The same, done.
        done: Record,
        /// Which attempt it is.
        tries: u8,
    },
    /// The trial failed; the reason is being written.
    Noting {
        /// The trial.
        trial: Record,
        /// The same, failed.
        failed: Record,
    },
    /// The environment is about to give the candidate up.
    Disarming {
        /// The trial.
        trial: Record,
        /// The same, failed.
        failed: Record,
        /// Which attempt it is.
        tries: u8,
    },
    /// What the candidate had is being stopped.
    Restoring {
        /// The trial, failed.
        failed: Record,
        /// When that has taken too long.
        until: Millis,
    },
    /// The containers of the revision before are coming back.
    Returning(Record),
    /// A container of the committed revision fell; that it forces a restart is being written.
    Falling {
        /// The last update's record, with one fall more.
        record: Record,
        /// Which container.
        name: PartName,
        /// Why it fell.
        code: Code,
    },
    /// The restarts before this boot helped; that is being written.
    Forgiving(Record),
    /// A factory reset was asked for: that is being written, and the factory revision made visible to the loader.
    Intending {
        /// Who asked and is answered when it has begun.
        conn: ConnId,
        /// The last update's record, with the wish.
        intent: Record,
    },
    /// The environment is about to name the factory revision alone: with that, the factory reset has begun.
    Resetting {
        /// As in `Intending`.
        conn: ConnId,
        /// As in `Intending`.
        intent: Record,
        /// Which attempt it is.
        tries: u8,
    },
    /// That could not be stored; what the environment said before is being stored again.
    Keeping {
        /// As in `Intending`.
        conn: ConnId,
        /// As in `Intending`.
        intent: Record,
    },
    /// It did not begin; that its intent is void is being written.
    Withdrawing {
        /// As in `Intending`.
        conn: ConnId,
        /// As in `Intending`.
        intent: Record,
        /// Why it did not begin.
        code: Code,
        /// Which attempt it is.
        tries: u8,
    },
    /// After the boot of a factory reset: all but the factory revision is being removed.
    Clearing {
        /// Which attempt it is.
        tries: u8,
    },
    /// The device goes down.
    Leaving {
        /// The update that is under way, if one is.
        trial: Option<Record>,
    },
}

/// What happens to the update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The loop begins.
    Begin,
    /// A client wants this revision to run.
    Run(ConnId, RevName),
    /// A client wants the device to be as it left the factory.
    FactoryReset(ConnId),
    /// The candidate was read, and this is how it would be tried; or it cannot be read.
    Loaded(Result<Kind, Refusal>),
    /// Outcome of `Job::Prepare`, or of `Job::Intend`.
    Prepared(Result<(), Code>),
    /// Outcome of `Job::Clear`.
    Cleared(Result<(), Code>),
    /// Outcome of `Job::Record`.
    Recorded(Result<(), Code>),
    /// Outcome of `Command::Store`.
    Stored(Transition, Result<(), Code>),
    /// How the containers stand against the plan in force; given after every event.
    Standing(Standing),
    /// A container fell, and nothing says how to go on without it.
    Fell(PartName, Code),
    /// A container fell for the last time, and its policy says to go on without it.
    GaveUp(PartName, Code),
    /// The device goes down for another reason.
    Leave,
}

/// What the update needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Read a candidate.
    Load(RevName),
    /// Answer who asked for the update.
    Answer(ConnId, Answer),
    /// Have the keeper do this.
    Keep(Job),
    /// Store the environment.
    Store(Transition, BootVars),
    /// Take the running revision's plan into force.
    Start,
    /// Take the candidate's plan into force.
    Switch,
    /// The candidate's plan is the running one from now on.
    Adopt,
    /// Stop all containers, then restart the device.
    Leave(Reason),
}

/// What one input can ask for, in order.
pub type Commands = Vec<Command, 4>;

/// What the update machine is told once.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// The boot decision.
    pub choice: Choice,
    /// The environment as it was loaded; the choice's if there was none.
    pub vars: BootVars,
    /// Whether a candidate may be armed over this loader.
    pub may_arm: Result<(), Code>,
    /// No container's fall restarts the device: it did so too often.
    pub degraded: bool,
    /// Time between meeting all goals and the commit.
    pub commit_delay_ms: Millis,
}

/// The update machine.
#[derive(Debug)]
pub struct Update {
    state: State,
    boot: Boot,
    vars: BootVars,
    running: RevName,
    last: Option<Record>,
    calm: Option<Calm>,
}

/// The goals are met after restarts that a container forced.
#[derive(Clone, Copy, Debug)]
struct Calm {
    /// Since when.
    met_at: Millis,
    /// When that is long enough to forget the restarts.
    at: Millis,
}

impl Update {
    /// At boot; it waits for `Input::Begin`.
    pub fn new(boot: Boot) -> Self {
        let Boot { choice, vars, .. } = boot;
        Self { state: State::Boot, boot, vars, running: choice.run, last: choice.record, calm: None }
    }

    /// Handles one input; the whole table.
    pub fn handle(&mut self, now: Millis, input: Input, out: &mut Commands) {
        use {Input as I, Standing as At, State as S};
        self.state = match (self.state, input) {
            (S::Leaving { trial }, _) => S::Leaving { trial },
            (state, I::Leave) => leaving(state, out),

            // From the boot decision to running containers. What cannot be written is no reason not to run.
            (S::Boot, I::Begin) => self.explain(out),
            (S::Explaining, I::Recorded(_)) => self.settle(1, out),
            (S::Settling { tries, .. }, I::Stored(Transition::Settle, Err(_))) if tries < limits::STORE_TRIES_MAX => {
                self.settle(tries + 1, out)
            }
            (S::Settling { .. }, I::Stored(Transition::Settle, Err(code))) if self.is_reset() => {
                self.not_cleared(code, out) // the other copy may name what would be removed
            }
            (S::Settling { .. }, I::Stored(Transition::Settle, Err(_))) => self.run(out),
            (S::Settling { vars, .. }, I::Stored(Transition::Settle, Ok(()))) => {
                self.vars = vars;
                self.run(out)
            }

            (S::Clearing { tries }, I::Cleared(Err(_))) if tries < limits::STORE_TRIES_MAX => clear(tries + 1, out),
            (S::Clearing { .. }, I::Cleared(Err(code))) => self.not_cleared(code, out),
            (S::Clearing { .. }, I::Cleared(Ok(()))) => {
                push(out, Command::Start);
                self.finish(Record::none(RevName::factory()))
            }

            // From a request to a factory reset that has begun: the intent, the store, the answer. The next boot does the rest.
            (S::Steady, I::FactoryReset(conn)) => self.intend(conn, out),
            (state, I::FactoryReset(conn)) => {
                answer(out, conn, Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S));
                state
            }
            (S::Intending { conn, intent }, I::Prepared(Ok(()))) => reset(conn, intent, 1, out),
            (S::Intending { conn, intent }, I::Prepared(Err(code))) => withdraw(conn, intent, code, 1, out),
            (S::Resetting { conn, intent, tries }, I::Stored(Transition::FactoryReset, Err(_)))
                if tries < limits::STORE_TRIES_MAX =>
            {
                reset(conn, intent, tries + 1, out)
            }
            (S::Resetting { conn, intent, .. }, I::Stored(Transition::FactoryReset, Err(_))) => {
                push(out, Command::Store(Transition::Settle, self.vars));
                S::Keeping { conn, intent }
            }
            (S::Resetting { conn, .. }, I::Stored(Transition::FactoryReset, Ok(()))) => {
                self.vars = boot::factory_alone();
                answer(out, conn, Answer::Done);
                push(out, Command::Leave(Reason::FactoryReset));
                S::Leaving { trial: None }
            }
            (S::Keeping { conn, intent }, I::Stored(Transition::Settle, Ok(()))) => {
                withdraw(conn, intent, Code::EnvStoreFailed, 1, out)
            }
            // Nobody knows what the environment says now. The intent stays: the next boot finishes it, or finds that it did not begin.
            (S::Keeping { conn, .. }, I::Stored(Transition::Settle, Err(_))) => undecided(conn, out),
            (S::Withdrawing { conn, intent, code, .. }, I::Recorded(Ok(()))) => {
                answer(out, conn, Answer::Refused(code.into(), 0));
                self.finish(void(intent))
            }
            (S::Withdrawing { conn, intent, code, tries }, I::Recorded(Err(_))) if tries < limits::STORE_TRIES_MAX => {
                withdraw(conn, intent, code, tries + 1, out)
            }
            (S::Withdrawing { conn, .. }, I::Recorded(Err(_))) => undecided(conn, out),

            // From a request to an armed candidate. Nothing stops yet.
            (S::Steady, I::Run(conn, rev)) => self.load(conn, rev, out),
            (state, I::Run(conn, _)) => {
                answer(out, conn, Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S));
                state
            }
            (S::Loading { conn, .. }, I::Loaded(Err(refusal))) => {
                answer(out, conn, Answer::Refused(refusal, 0));
                S::Steady
            }
            (S::Loading { rev, conn }, I::Loaded(Ok(kind))) => {
                answer(out, conn, Answer::Done);
                self.prepare(rev, kind, out)
            }
            (S::Preparing(trial), I::Prepared(Err(code))) => refuse(trial, code, out),
            (S::Preparing(trial), I::Prepared(Ok(()))) => self.arm(trial, 1, out),
            (S::Refusing(failed), I::Recorded(_)) => self.finish(failed),
            (S::Arming { trial, tries }, I::Stored(Transition::Arm, Err(_))) if tries < limits::STORE_TRIES_MAX => {
                self.arm(trial, tries + 1, out)
            }
            (S::Arming { trial, .. }, I::Stored(Transition::Arm, Err(_))) => {
                fail(trial, Code::EnvStoreFailed, None, out)
            }
            (S::Arming { trial, .. }, I::Stored(Transition::Arm, Ok(()))) => self.transit(now, trial, out),

            // The trial.
            (S::Switching { trial, until }, I::Standing(At::Switching)) if now >= until => {
                fail(trial, Code::StopTimeout, None, out)
            }
            (S::Switching { trial, until }, I::Standing(At::Switching)) => S::Switching { trial, until },
            (S::Switching { trial, .. }, I::Standing(_)) => S::Trying { trial, relapses: 0 },
            (S::Trying { trial, .. } | S::Testing { trial, .. }, I::Standing(At::Missed(name))) => {
                fail(trial, Code::GoalsMissed, Some(name), out)
            }
            (S::Trying { trial, relapses }, I::Standing(At::Met { stable_at })) => {
                S::Testing { trial, relapses, commit_at: now + self.boot.commit_delay_ms, stable_at }
            }
            (S::Testing { trial, relapses, .. }, I::Standing(At::Going(_))) if relapses < limits::RELAPSES_MAX => {
                S::Trying { trial, relapses: relapses + 1 }
            }
            (S::Testing { trial, .. }, I::Standing(At::Going(name))) => fail(trial, Code::GoalsMissed, Some(name), out),
            (S::Testing { trial, relapses, commit_at, .. }, I::Standing(At::Met { stable_at })) => {
                match now >= commit_at.max(stable_at) {
                    true => self.commit(trial, 1, out),
                    false => S::Testing { trial, relapses, commit_at, stable_at },
                }
            }
            (
                S::Switching { trial, .. } | S::Trying { trial, .. } | S::Testing { trial, .. },
                I::Fell(name, code) | I::GaveUp(name, code),
            ) => fail(trial, code, Some(name), out),

            // The commit: the store, then the record, then DONE.
            (S::Committing { trial, tries }, I::Stored(Transition::Commit, Err(_)))
                if tries < limits::STORE_TRIES_MAX =>
            {
                self.commit(trial, tries + 1, out)
            }
            (S::Committing { trial, .. }, I::Stored(Transition::Commit, Err(_))) => {
                fail(trial, Code::EnvStoreFailed, None, out)
            }
            (S::Committing { trial, .. }, I::Stored(Transition::Commit, Ok(()))) => self.committed(trial, out),
            (S::Recording { trial, done, tries }, I::Recorded(Err(_))) if tries < limits::STORE_TRIES_MAX => {
                record(trial, done, tries + 1, out)
            }
            // Committed it is: without its record, the next boot finds that out from the environment.
            (S::Recording { done, .. }, I::Recorded(_)) => self.finish(done),

            // The way back: reason, store, containers or reboot.
            (S::Noting { trial, failed }, I::Recorded(_)) => self.disarm(trial, failed, 1, out),
            (S::Disarming { trial, failed, tries }, I::Stored(Transition::Disarm | Transition::StepBack, Err(_)))
                if tries < limits::STORE_TRIES_MAX =>
            {
                self.disarm(trial, failed, tries + 1, out)
            }
            // The reason is recorded: the next boot finishes what could not be stored.
            (S::Disarming { trial, failed, .. }, I::Stored(Transition::Disarm | Transition::StepBack, Err(_))) => {
                self.back(now, trial, failed, out)
            }
            (S::Disarming { trial, failed, .. }, I::Stored(Transition::Disarm | Transition::StepBack, Ok(()))) => {
                self.vars = given_up(&trial, self.vars);
                self.back(now, trial, failed, out)
            }
            (S::Noting { .. } | S::Disarming { .. }, I::Fell(..) | I::GaveUp(..)) => self.state, // it has failed already
            (S::Restoring { failed, until }, I::Standing(At::Switching)) if now >= until => leave_failed(failed, out),
            (S::Restoring { failed, until }, I::Standing(At::Switching)) => S::Restoring { failed, until },
            (S::Restoring { failed, .. }, I::Standing(_)) => S::Returning(failed),
            (S::Returning(failed), I::Standing(At::Met { .. } | At::Missed(_))) => self.finish(failed),

            // A container of the committed revision is lost. Without a policy the device tries to help itself
            // by a restart, as the original does; unless that did not help before: it is counted.
            (S::Steady, I::Fell(name, code)) if !self.boot.degraded => self.fall(name, code, out),
            (S::Falling { name, code, .. }, I::Recorded(_)) => {
                push(out, Command::Leave(Reason::Container(name, code)));
                leaving(self.state, out)
            }
            (S::Falling { .. }, I::Fell(..)) => self.state, // one restart for all of them
            (S::Steady, I::Standing(At::Met { stable_at })) if self.falls() > 0 => self.calm(now, stable_at, out),
            (S::Steady, I::Standing(_)) => {
                self.calm = None;
                S::Steady
            }
            (S::Forgiving(record), I::Recorded(_)) => {
                (self.boot.degraded, self.calm) = (false, None);
                self.finish(record)
            }
            (state, I::Fell(name, code)) if !self.boot.degraded => {
                push(out, Command::Leave(Reason::Container(name, code)));
                leaving(state, out)
            }

            (state, _) => state, // late or repeated: it changes nothing
        };
    }

    /// When it next needs a tick.
    pub fn poll_at(&self) -> Option<Millis> {
        match self.state {
            State::Testing { commit_at, stable_at, .. } => Some(commit_at.max(stable_at)),
            State::Switching { until, .. } | State::Restoring { until, .. } => Some(until),
            State::Steady => self.calm.map(|calm| calm.at),
            _ => None,
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The revision that runs and is, or is on trial to be, the committed one.
    pub fn running(&self) -> RevName {
        self.running
    }

    /// The environment in force, as far as stores reported.
    pub fn vars(&self) -> BootVars {
        self.vars
    }

    /// Restarts in a row that a fallen container forced.
    pub fn falls(&self) -> u8 {
        self.last_of_running().map_or(0, |last| last.falls)
    }

    /// Whether falls of containers no longer restart the device.
    pub fn is_degraded(&self) -> bool {
        self.boot.degraded
    }

    /// Whether the boot decision is carried out, so that containers may run.
    pub fn has_settled(&self) -> bool {
        !matches!(self.state, State::Boot | State::Explaining | State::Settling { .. } | State::Clearing { .. })
    }

    /// Whether a new update could begin.
    pub fn is_steady(&self) -> bool {
        self.state == State::Steady
    }

    /// Whether a client may restart the device: not in an update, but a cold boot can be watched in the next one.
    pub fn may_leave(&self) -> bool {
        let waits = matches!(self.state, State::Trying { .. } | State::Testing { .. });
        self.is_steady() || (waits && self.trial().is_some_and(|trial| is_cold(&trial)))
    }

    /// The trial that is under way.
    pub fn trial(&self) -> Option<Record> {
        self.state.trial()
    }

    /// The last update that ended.
    pub fn last(&self) -> Option<Record> {
        self.last
    }

    /// The same, if what runs is what it ended with. An owner may have committed something else since, and restarts
    /// are counted for what runs: the boot decision asks for that.
    fn last_of_running(&self) -> Option<Record> {
        self.last.filter(|last| last.committed() == self.running)
    }

    /// Revisions that must not be collected or overwritten.
    pub fn kept(&self) -> impl Iterator<Item = RevName> {
        let BootVars { committed, candidate, previous } = self.vars;
        let loading = if let State::Loading { rev, .. } = self.state { Some(rev) } else { None };
        let trial = self.trial().map(|trial| trial.candidate);
        [Some(self.running), Some(committed), candidate, previous, loading, trial].into_iter().flatten()
    }

    /// The progress of a revision, if it is the one on trial or the last one that was. A final one is shown only
    /// when there is nothing left to do for it.
    pub fn progress(&self, now: Millis, rev: RevName) -> Option<Progress> {
        match (self.state, self.trial(), self.last) {
            (State::Leaving { .. }, Some(trial), _) if trial.candidate == rev => {
                Progress::of(&trial).or(Some(self.under_way(now, &trial)))
            }
            (_, Some(trial), _) if trial.candidate == rev && is_cold(&trial) => Some(Progress::DONE),
            (_, Some(trial), _) if trial.candidate == rev => Some(self.under_way(now, &trial)),
            (_, _, Some(last)) if last.candidate == rev => Progress::of(&last).or(Some(self.under_way(now, &last))),
            _ if rev == RevName::factory() => Some(Progress::FACTORY),
            _ => None,
        }
    }

    fn under_way(&self, now: Millis, trial: &Record) -> Progress {
        match (self.state, trial.kind) {
            (State::Trying { .. }, _) => Progress::TRYING,
            (State::Testing { commit_at, .. }, _) if now >= commit_at => Progress::TESTING_STABLE,
            (State::Testing { .. } | State::Committing { .. } | State::Recording { .. }, Kind::Reboot) => {
                Progress::TESTING_BOOT
            }
            (State::Testing { .. } | State::Committing { .. } | State::Recording { .. }, Kind::InPlace) => {
                Progress::TESTING_IN_PLACE
            }
            (_, Kind::Reboot) => Progress::REBOOTING,
            (_, Kind::InPlace) => Progress::SWITCHING,
        }
    }

    fn explain(&self, out: &mut Commands) -> State {
        match self.boot.choice.record {
            Some(record) if self.boot.choice.write => {
                push(out, Command::Keep(Job::Record(record)));
                State::Explaining
            }
            _ => self.settle(1, out),
        }
    }

    fn settle(&self, tries: u8, out: &mut Commands) -> State {
        match self.boot.choice.store {
            Some(vars) => {
                push(out, Command::Store(Transition::Settle, vars));
                State::Settling { vars, tries }
            }
            None => self.run(out),
        }
    }

    fn run(&self, out: &mut Commands) -> State {
        match (self.boot.choice.mode, self.boot.choice.record) {
            (Mode::Abandon, record) => {
                let code = self.boot.choice.verdict().map_or(Code::TriesExhausted, |(_, code)| code);
                push(out, Command::Leave(Reason::Rollback(self.running, code)));
                State::Leaving { trial: record }
            }
            (Mode::FactoryReset, _) => clear(1, out),
            (Mode::Trial { .. } | Mode::Cold, Some(trial)) => {
                push(out, Command::Start);
                State::Trying { trial, relapses: 0 }
            }
            (Mode::Trial { .. } | Mode::Cold | Mode::Steady, _) => {
                push(out, Command::Start);
                State::Steady
            }
        }
    }

    fn is_reset(&self) -> bool {
        self.boot.choice.mode == Mode::FactoryReset
    }

    /// The factory revision runs beside what could not be removed: a device that answers, and says why.
    fn not_cleared(&self, code: Code, out: &mut Commands) -> State {
        let failed = Record::none(RevName::factory()).with(Phase::Failed { code, container: None });
        push(out, Command::Keep(Job::Record(failed)));
        push(out, Command::Start);
        State::Refusing(failed)
    }

    fn intend(&self, conn: ConnId, out: &mut Commands) -> State {
        let refusal = match self.boot.may_arm {
            Err(code) => code,
            Ok(()) if self.vars.candidate.is_some() => Code::EnvStoreFailed, // as in `load`
            Ok(()) => {
                let intent = Record { factory_reset: true, ..self.last.unwrap_or(Record::none(self.running)) };
                push(out, Command::Keep(Job::Intend(intent)));
                return State::Intending { conn, intent };
            }
        };
        answer(out, conn, Answer::Refused(refusal.into(), 0));
        State::Steady
    }

    fn load(&self, conn: ConnId, rev: RevName, out: &mut Commands) -> State {
        let refusal = match self.boot.may_arm {
            Err(code) => code,
            Ok(()) if rev == self.running => Code::AlreadyRunning,
            // One that was given up is still named, because that could not be stored. Its reason stands in the journal,
            // where a new one would take its place, and after a cut nobody would know that it must not be tried.
            Ok(()) if self.vars.candidate.is_some() => Code::EnvStoreFailed,
            Ok(()) => {
                push(out, Command::Load(rev));
                return State::Loading { rev, conn };
            }
        };
        answer(out, conn, Answer::Refused(refusal.into(), 0));
        State::Steady
    }

    fn prepare(&self, rev: RevName, kind: Kind, out: &mut Commands) -> State {
        let trial = Record::armed(rev, self.vars.committed, kind);
        push(out, Command::Keep(Job::Prepare(trial)));
        State::Preparing(trial)
    }

    fn arm(&self, trial: Record, tries: u8, out: &mut Commands) -> State {
        push(out, Command::Store(Transition::Arm, boot::arm(self.vars, trial.candidate)));
        State::Arming { trial, tries }
    }

    /// Armed: to the candidate, by a reboot or in place.
    fn transit(&mut self, now: Millis, trial: Record, out: &mut Commands) -> State {
        self.vars = boot::arm(self.vars, trial.candidate);
        match trial.kind {
            Kind::Reboot => {
                push(out, Command::Leave(Reason::Try(trial.candidate)));
                State::Leaving { trial: Some(trial) }
            }
            Kind::InPlace => {
                push(out, Command::Switch);
                State::Switching { trial, until: now + limits::SWITCH_PATIENCE_MS }
            }
        }
    }

    fn commit(&self, trial: Record, tries: u8, out: &mut Commands) -> State {
        if is_cold(&trial) {
            return record(trial, trial.with(Phase::Done { cold_pending: false }), 1, out);
        }
        push(out, Command::Store(Transition::Commit, boot::commit(self.vars, trial.candidate)));
        State::Committing { trial, tries }
    }

    fn committed(&mut self, trial: Record, out: &mut Commands) -> State {
        self.vars = boot::commit(self.vars, trial.candidate);
        self.running = trial.candidate;
        if trial.kind == Kind::InPlace {
            push(out, Command::Adopt);
        }
        let done = trial.with(Phase::Done { cold_pending: trial.kind == Kind::InPlace });
        record(trial, done, 1, out)
    }

    fn disarm(&self, trial: Record, failed: Record, tries: u8, out: &mut Commands) -> State {
        let transition = if is_cold(&trial) { Transition::StepBack } else { Transition::Disarm };
        push(out, Command::Store(transition, given_up(&trial, self.vars)));
        State::Disarming { trial, failed, tries }
    }

    /// Given up: to the revision before, in place or by a reboot; or it never left it.
    fn back(&mut self, now: Millis, trial: Record, failed: Record, out: &mut Commands) -> State {
        match (trial.phase, trial.kind) {
            (Phase::Armed, Kind::Reboot) => self.finish(failed),
            (Phase::Armed, Kind::InPlace) => {
                push(out, Command::Start);
                State::Restoring { failed, until: now + limits::SWITCH_PATIENCE_MS }
            }
            _ => leave_failed(failed, out),
        }
    }

    /// A restart is to help: counted first, in the record of the last update if that ended with what runs, else in one
    /// that stands for none.
    fn fall(&mut self, name: PartName, code: Code, out: &mut Commands) -> State {
        let last = self.last_of_running().unwrap_or(Record::none(self.running));
        let record = Record { falls: last.falls.saturating_add(1), ..last };
        push(out, Command::Keep(Job::Record(record)));
        State::Falling { record, name, code }
    }

    /// The goals are met after restarts that a container forced. They must stay so for as long as before a commit.
    fn calm(&mut self, now: Millis, stable_at: Millis, out: &mut Commands) -> State {
        let met_at = self.calm.map_or(now, |calm| calm.met_at);
        let at = (met_at + self.boot.commit_delay_ms).max(stable_at);
        self.calm = Some(Calm { met_at, at });
        match self.last_of_running() {
            Some(last) if now >= at => {
                let record = Record { falls: 0, ..last };
                push(out, Command::Keep(Job::Record(record)));
                State::Forgiving(record)
            }
            _ => State::Steady,
        }
    }

    fn finish(&mut self, ended: Record) -> State {
        self.last = Some(ended);
        State::Steady
    }
}

impl State {
    /// The trial that is under way, as it is known by now.
    fn trial(&self) -> Option<Record> {
        match *self {
            State::Preparing(trial)
            | State::Refusing(trial)
            | State::Arming { trial, .. }
            | State::Switching { trial, .. }
            | State::Trying { trial, .. }
            | State::Testing { trial, .. }
            | State::Committing { trial, .. }
            | State::Recording { trial, .. }
            | State::Noting { trial, .. }
            | State::Disarming { trial, .. } => Some(trial),
            State::Restoring { failed, .. } | State::Returning(failed) => Some(failed),
            State::Leaving { trial } => trial,
            State::Boot | State::Explaining | State::Settling { .. } | State::Steady | State::Loading { .. } => None,
            State::Falling { .. } | State::Forgiving(_) | State::Clearing { .. } => None,
            State::Intending { .. } | State::Resetting { .. } => None,
            State::Keeping { .. } | State::Withdrawing { .. } => None,
        }
    }
}

/// Whether this trial is the first boot of what was committed in place.
fn is_cold(trial: &Record) -> bool {
    matches!(trial.phase, Phase::Done { .. })
}

/// The environment without the candidate; for a cold boot, with the revision before.
fn given_up(trial: &Record, vars: BootVars) -> BootVars {
    if is_cold(trial) { boot::step_back(vars) } else { boot::disarm(vars) }
}

/// Nothing was armed: only the reason remains to be told.
fn refuse(trial: Record, code: Code, out: &mut Commands) -> State {
    let failed = trial.with(Phase::Failed { code, container: None });
    push(out, Command::Keep(Job::Record(failed)));
    State::Refusing(failed)
}

/// The one way into failure.
fn fail(trial: Record, code: Code, container: Option<PartName>, out: &mut Commands) -> State {
    let code = if is_cold(&trial) { Code::ColdBootFailed } else { code };
    let failed = trial.with(Phase::Failed { code, container });
    push(out, Command::Keep(Job::Record(failed)));
    State::Noting { trial, failed }
}

fn record(trial: Record, done: Record, tries: u8, out: &mut Commands) -> State {
    push(out, Command::Keep(Job::Record(done)));
    State::Recording { trial, done, tries }
}

fn reset(conn: ConnId, intent: Record, tries: u8, out: &mut Commands) -> State {
    push(out, Command::Store(Transition::FactoryReset, boot::factory_alone()));
    State::Resetting { conn, intent, tries }
}

/// The factory reset did not begin. It is refused when its intent is void: where the factory revision is the committed
/// one, the intent alone decides, and would wipe at the next start what was promised to stay.
fn withdraw(conn: ConnId, intent: Record, code: Code, tries: u8, out: &mut Commands) -> State {
    push(out, Command::Keep(Job::Record(void(intent))));
    State::Withdrawing { conn, intent, code, tries }
}

fn void(intent: Record) -> Record {
    Record { factory_reset: false, ..intent }
}

fn undecided(conn: ConnId, out: &mut Commands) -> State {
    answer(out, conn, Answer::Refused(Code::ResetUndecided.into(), 0));
    State::Steady
}

fn clear(tries: u8, out: &mut Commands) -> State {
    push(out, Command::Keep(Job::Clear));
    State::Clearing { tries }
}

/// The device goes down: whoever waits for an answer gets one.
fn leaving(state: State, out: &mut Commands) -> State {
    match state {
        State::Loading { conn, .. } => {
            answer(out, conn, Answer::Refused(Code::Busy.into(), limits::RETRY_AFTER_BUSY_S));
        }
        State::Intending { conn, .. }
        | State::Resetting { conn, .. }
        | State::Keeping { conn, .. }
        | State::Withdrawing { conn, .. } => {
            answer(out, conn, Answer::Refused(Code::ResetUndecided.into(), 0));
        }
        _ => {}
    }
    State::Leaving { trial: state.trial() }
}

fn leave_failed(failed: Record, out: &mut Commands) -> State {
    let code = if let Phase::Failed { code, .. } = failed.phase { code } else { Code::Internal };
    push(out, Command::Leave(Reason::Rollback(failed.candidate, code)));
    State::Leaving { trial: Some(failed) }
}

fn answer(out: &mut Commands, conn: ConnId, answer: Answer) {
    push(out, Command::Answer(conn, answer));
}

fn push(out: &mut Commands, command: Command) {
    out.push(command).expect("no arm of the table asks for more than `Commands` holds");
}

#[cfg(test)]
mod tests;
