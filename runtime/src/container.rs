//! One container: a table of state and event, with the time in the states.
//!
//! Invariants: at most one process of a container lives, because `Start` is asked for only in `Verifying`, and
//! `Verifying` is reached only from states without a process; every way out of a state with a process goes
//! through the event that says that it is gone. Only a container that runs can be at its goal.
//! Retries are bounded by its policy, their delay by `limits::RETRY_DELAY_MAX_MS`, whatever the factor.
//!
//! What it does not do: it does not know its group, the update or the device; whom its fall concerns is
//! decided where `Effect::Fell` arrives. Reference: device-formats 1.7, 4.4, 5.2.

use crate::{
    fault::Code,
    limits,
    port::Millis,
    state::{self, Backoff, Goal, Recovery, RecoveryPolicy},
};

/// What a container is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not started; it starts when its group's turn comes.
    Down,
    /// Its images are being checked. No process yet.
    Verifying,
    /// The `start` errand works; until `deadline`.
    Starting {
        /// When it took too long.
        deadline: Millis,
    },
    /// Its volumes are mounted, which is all that its goal asks for. No process.
    Mounted {
        /// Since when.
        since: Millis,
    },
    /// Its init runs.
    Started {
        /// Since when.
        since: Millis,
    },
    /// Its init runs and has reported that it is ready.
    Ready {
        /// Since when it runs.
        since: Millis,
        /// Since when it is ready.
        ready_at: Millis,
    },
    /// Not wanted any more while its images are being checked; that cannot be called back, and is waited for.
    Cancelling {
        /// What comes after.
        then: Then,
    },
    /// Asked to end.
    Stopping {
        /// When it is killed.
        force_at: Millis,
        /// What comes after.
        then: Then,
    },
    /// Killed; what was killed has not been reaped yet.
    Killing {
        /// When it is killed again.
        again_at: Millis,
        /// What comes after.
        then: Then,
    },
    /// It fell and is started again.
    Recovering {
        /// When.
        until: Millis,
    },
    /// It ended with success, and its policy does not start it again.
    Ended,
    /// A user stopped it.
    Stopped,
    /// It fell and stays down.
    Failed(Code),
}

/// The statuses of the control socket, in its order. Reference: device-formats 5.2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// On the device.
    Installed,
    /// Its volumes are mounted.
    Mounted,
    /// It waits for an earlier group.
    Blocked,
    /// It is being started.
    Starting,
    /// It runs.
    Started,
    /// It runs and said that it is ready.
    Ready,
    /// It fell and will be started again.
    Recovering,
    /// It is ending.
    Stopping,
    /// It does not run.
    Stopped,
}

impl Status {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Installed => "INSTALLED",
            Status::Mounted => "MOUNTED",
            Status::Blocked => "BLOCKED",
            Status::Starting => "STARTING",
            Status::Started => "STARTED",
            Status::Ready => "READY",
            Status::Recovering => "RECOVERING",
            Status::Stopping => "STOPPING",
            Status::Stopped => "STOPPED",
        }
    }
}

/// What comes after a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Down: to be started again, replaced, removed, or left alone by a device that goes down.
    Down,
    /// Stopped by a user.
    Stopped,
    /// It fell, with this code.
    Fall(Code),
}

/// What happens to a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Its turn to start.
    Begin,
    /// Its images are good, or not.
    Verified(Result<(), Code>),
    /// The record of the `start` errand.
    Launched(Result<(), Code>),
    /// Its process ended; `true`: with success.
    Exited(bool),
    /// It says that it is ready.
    Ready,
    /// It must end.
    Stop(Then),
    /// What it was and how often it fell is forgotten: if it does not run, its turn may come again.
    Reset,
    /// Time has passed.
    Tick,
}

/// What a container needs, or tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Check its images.
    Verify,
    /// Start it.
    Start,
    /// Ask its init to end.
    Stop,
    /// Kill it.
    Kill,
    /// It fell and will be started again.
    Retry(Code),
    /// It fell, its retries are used up, and its policy says that the device goes on without it, for now.
    GaveUp(Code),
    /// It fell, and nothing says how to go on without it.
    Fell(Code),
}

/// A container: what the revision says of it, and what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Container {
    spec: state::Container,
    state: State,
    retries: u32,
    restarts: u32,
}

impl Container {
    /// Not started yet.
    pub fn new(spec: state::Container) -> Self {
        Self { spec, state: State::Down, retries: 0, restarts: 0 }
    }

    /// What the revision says of it.
    pub fn spec(&self) -> &state::Container {
        &self.spec
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// Starts since its retries were last counted from zero, without the first.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// How often it was started again since it exists.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Handles one event; the whole table.
    pub fn handle(&mut self, now: Millis, event: Event) -> Option<Effect> {
        use {Effect as F, Event as E, State as S};
        let goal = self.spec.goal;
        let (next, effect) = match (self.state, event) {
            (S::Down, E::Begin) => (S::Verifying, Some(F::Verify)),
            (S::Verifying, E::Verified(Ok(()))) => {
                (S::Starting { deadline: now + limits::START_PATIENCE_MS }, Some(F::Start))
            }
            (S::Verifying, E::Verified(Err(code))) => self.fall(now, None, code),
            (S::Verifying, E::Stop(then)) => (S::Cancelling { then }, None),
            (S::Cancelling { then }, E::Verified(_)) => (rest(then), None),
            (S::Cancelling { .. }, E::Stop(then)) => (S::Cancelling { then }, None),
            (S::Cancelling { .. }, E::Reset) => (S::Cancelling { then: Then::Down }, None),

            (S::Starting { .. }, E::Launched(Ok(()))) if goal == Goal::Mounted => (S::Mounted { since: now }, None),
            (S::Starting { .. }, E::Launched(Ok(()))) => (S::Started { since: now }, None),
            (S::Starting { .. }, E::Launched(Err(code))) => self.fall(now, None, code),
            (S::Starting { .. }, E::Exited(_)) => self.fall(now, None, Code::StartFailed),
            (S::Starting { deadline }, E::Tick) if now >= deadline => {
                (killing(now, Then::Fall(Code::StartTimeout)), Some(F::Kill))
            }
            // The errand has no handler for a request to end.
            (S::Starting { .. }, E::Stop(then)) => (killing(now, then), Some(F::Kill)),

            (S::Started { since }, E::Ready) if goal == Goal::Ready => (S::Ready { since, ready_at: now }, None),
            (S::Started { since } | S::Ready { since, .. }, E::Exited(true))
                if self.spec.recovery.policy == RecoveryPolicy::OnFailure =>
            {
                self.forgive(now, Some(since));
                (S::Ended, None)
            }
            (S::Started { since } | S::Ready { since, .. }, E::Exited(_)) => {
                self.fall(now, Some(since), Code::ContainerExited)
            }
            (S::Started { .. } | S::Ready { .. }, E::Stop(then)) => (stopping(now, then), Some(F::Stop)),

            (S::Stopping { then, .. } | S::Killing { then, .. }, E::Exited(_) | E::Launched(Err(_))) => {
                self.after(now, then)
            }
            (S::Stopping { then, .. } | S::Killing { then, .. }, E::Launched(Ok(()))) if goal == Goal::Mounted => {
                self.after(now, then)
            }
            (S::Stopping { force_at, then }, E::Tick) if now >= force_at => (killing(now, then), Some(F::Kill)),
            (S::Killing { again_at, then }, E::Tick) if now >= again_at => (killing(now, then), Some(F::Kill)),
            (S::Stopping { force_at, .. }, E::Stop(then)) => (S::Stopping { force_at, then }, None),
            (S::Stopping { force_at, .. }, E::Reset) => (S::Stopping { force_at, then: Then::Down }, None),
            (S::Killing { again_at, .. }, E::Stop(then)) => (S::Killing { again_at, then }, None),
            (S::Killing { again_at, .. }, E::Reset) => (S::Killing { again_at, then: Then::Down }, None),

            (S::Recovering { until }, E::Tick) if now >= until => {
                self.restarts = self.restarts.saturating_add(1);
                (S::Verifying, Some(F::Verify))
            }
            (S::Recovering { .. } | S::Ended | S::Stopped | S::Failed(_), E::Reset) => (S::Down, None),
            (
                S::Down | S::Mounted { .. } | S::Recovering { .. } | S::Ended | S::Stopped | S::Failed(_),
                E::Stop(then),
            ) => (rest(then), None),

            (state, _) => (state, None), // late, early or repeated: it changes nothing
        };
        if event == Event::Reset {
            self.retries = 0;
        }
        self.state = next;
        effect
    }

    /// When it next needs a tick.
    pub fn poll_at(&self) -> Option<Millis> {
        match self.state {
            State::Starting { deadline: at }
            | State::Stopping { force_at: at, .. }
            | State::Killing { again_at: at, .. }
            | State::Recovering { until: at } => Some(at),
            _ => None,
        }
    }

    /// Whether it is where the revision wants it. Only a container that runs can be.
    pub fn at_goal(&self) -> bool {
        self.at_goal_since().is_some()
    }

    /// When it counts as stable, if it stays at its goal; `None` if it is not there.
    pub fn stable_at(&self) -> Option<Millis> {
        self.at_goal_since().map(|since| since + seconds(self.spec.recovery.stable_timeout_s))
    }

    /// Whether a process of it, or a check of its images, may still be under way.
    pub fn is_busy(&self) -> bool {
        !matches!(
            self.state,
            State::Down
                | State::Mounted { .. }
                | State::Recovering { .. }
                | State::Ended
                | State::Stopped
                | State::Failed(_)
        )
    }

    /// Whether a user stopped it.
    pub fn is_stopped_by_user(&self) -> bool {
        match self.state {
            State::Stopped => true,
            State::Cancelling { then } | State::Stopping { then, .. } | State::Killing { then, .. } => {
                then == Then::Stopped
            }
            _ => false,
        }
    }

    /// Why it stays down.
    pub fn failure(&self) -> Option<Code> {
        if let State::Failed(code) = self.state { Some(code) } else { None }
    }

    /// Its status, for people.
    pub fn status(&self) -> Status {
        match self.state {
            State::Down => Status::Installed,
            State::Verifying | State::Starting { .. } => Status::Starting,
            State::Mounted { .. } => Status::Mounted,
            State::Started { .. } => Status::Started,
            State::Ready { .. } => Status::Ready,
            State::Recovering { .. } => Status::Recovering,
            State::Cancelling { .. } | State::Stopping { .. } | State::Killing { .. } => Status::Stopping,
            State::Ended | State::Stopped | State::Failed(_) => Status::Stopped,
        }
    }

    fn at_goal_since(&self) -> Option<Millis> {
        match (self.spec.goal, self.state) {
            (Goal::Mounted, State::Mounted { since }) => Some(since),
            (Goal::Started, State::Started { since } | State::Ready { since, .. }) => Some(since),
            (Goal::Ready, State::Ready { ready_at, .. }) => Some(ready_at),
            _ => None,
        }
    }

    /// What follows a stop whose process is gone.
    fn after(&mut self, now: Millis, then: Then) -> (State, Option<Effect>) {
        match then {
            Then::Fall(code) => self.fall(now, None, code),
            Then::Down | Then::Stopped => (rest(then), None),
        }
    }

    /// It ended although nobody asked it to. `since`: it had been running.
    fn fall(&mut self, now: Millis, since: Option<Millis>, code: Code) -> (State, Option<Effect>) {
        let Recovery { policy, max_retries, backoff, .. } = self.spec.recovery;
        if policy == RecoveryPolicy::No {
            return (State::Failed(code), Some(Effect::Fell(code)));
        }
        self.forgive(now, since);
        if max_retries == 0 || self.retries < max_retries {
            self.retries = self.retries.saturating_add(1);
            return (State::Recovering { until: now + self.delay() }, Some(Effect::Retry(code)));
        }
        match backoff {
            Backoff::Reboot => (State::Failed(code), Some(Effect::Fell(code))),
            Backoff::Never => (State::Failed(code), Some(Effect::GaveUp(code))),
            Backoff::After(pause_s) => {
                self.retries = 0;
                (State::Recovering { until: now + seconds(pause_s) }, Some(Effect::GaveUp(code)))
            }
        }
    }

    /// Counts retries from zero again after a long enough run.
    fn forgive(&mut self, now: Millis, since: Option<Millis>) {
        let window = seconds(self.spec.recovery.reset_window_s);
        if window != 0 && since.is_some_and(|since| now.saturating_sub(since) > window) {
            self.retries = 0;
        }
    }

    /// How long to wait before retry number `retries`.
    fn delay(&self) -> Millis {
        let Recovery { retry_delay_s, backoff_factor_milli, .. } = self.spec.recovery;
        let mut delay = seconds(retry_delay_s).min(limits::RETRY_DELAY_MAX_MS);
        for _ in 1..self.retries {
            if backoff_factor_milli <= 1000 || delay == 0 || delay >= limits::RETRY_DELAY_MAX_MS {
                break;
            }
            delay = (delay * u64::from(backoff_factor_milli) / 1000).min(limits::RETRY_DELAY_MAX_MS);
        }
        delay.max(limits::RETRY_DELAY_MIN_MS)
    }
}

fn stopping(now: Millis, then: Then) -> State {
    State::Stopping { force_at: now + limits::STOP_PATIENCE_MS, then }
}

fn killing(now: Millis, then: Then) -> State {
    State::Killing { again_at: now + limits::STOP_PATIENCE_MS, then }
}

/// Where a container without a process comes to rest.
fn rest(then: Then) -> State {
    match then {
        Then::Down => State::Down,
        Then::Stopped => State::Stopped,
        Then::Fall(code) => State::Failed(code),
    }
}

fn seconds(s: u32) -> Millis {
    u64::from(s) * 1000
}
