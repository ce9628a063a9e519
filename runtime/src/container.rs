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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::PartName,
        lxc::Summary,
        state::{RecoveryPolicy as Policy, RestartPolicy},
    };

    fn container(goal: Goal, recovery: Recovery) -> Container {
        Container::new(state::Container {
            name: PartName::parse("web").unwrap(),
            group: 0,
            goal,
            restart: RestartPolicy::Container,
            recovery,
            management: false,
            digest: [0; 32],
            launch: Summary::DEFAULT,
        })
    }

    fn recovery(policy: Policy, max_retries: u32, backoff: Backoff) -> Recovery {
        Recovery { policy, max_retries, backoff, ..Recovery::NONE }
    }

    /// Runs a container up to its goal; the time is 1000 from then on.
    fn running(goal: Goal, recovery: Recovery) -> Container {
        let mut container = container(goal, recovery);
        assert_eq!(container.handle(0, Event::Begin), Some(Effect::Verify));
        assert_eq!(container.handle(0, Event::Verified(Ok(()))), Some(Effect::Start));
        assert_eq!(container.handle(1000, Event::Launched(Ok(()))), None);
        container
    }

    #[test]
    fn each_goal_is_met_by_its_own_status_and_only_while_it_runs() {
        for (goal, signal, status) in [
            (Goal::Mounted, None, Status::Mounted),
            (Goal::Started, None, Status::Started),
            (Goal::Started, Some(Event::Ready), Status::Started),
            (Goal::Ready, Some(Event::Ready), Status::Ready),
        ] {
            let mut container = running(goal, Recovery::NONE);
            assert_eq!(container.at_goal(), goal != Goal::Ready);
            if let Some(event) = signal {
                container.handle(1500, event);
            }
            assert_eq!((container.at_goal(), container.status()), (true, status));
        }
        let mut container = running(Goal::Started, recovery(Policy::Always, 0, Backoff::Never));
        container.handle(2000, Event::Exited(false));
        assert_eq!((container.at_goal(), container.status()), (false, Status::Recovering));
        let mut container = running(Goal::Started, Recovery::NONE);
        container.handle(2000, Event::Stop(Then::Stopped));
        assert_eq!((container.at_goal(), container.status()), (false, Status::Stopping));
        container.handle(2000, Event::Exited(true));
        assert_eq!((container.at_goal(), container.status()), (false, Status::Stopped));
    }

    #[test]
    fn a_stop_is_asked_for_then_forced_then_repeated() {
        let mut container = running(Goal::Started, Recovery::NONE);
        assert_eq!(container.handle(2000, Event::Stop(Then::Down)), Some(Effect::Stop));
        assert_eq!(container.poll_at(), Some(7000));
        assert_eq!(container.handle(6999, Event::Tick), None);
        assert_eq!(container.handle(7000, Event::Tick), Some(Effect::Kill));
        assert_eq!(container.handle(12000, Event::Tick), Some(Effect::Kill));
        assert_eq!(container.handle(12001, Event::Begin), None, "its process is still there");
        assert_eq!(container.handle(12002, Event::Exited(false)), None);
        assert_eq!((container.state(), container.poll_at()), (State::Down, None));
    }

    #[test]
    fn a_check_that_was_stopped_is_waited_for() {
        let mut container = container(Goal::Started, Recovery::NONE);
        container.handle(0, Event::Begin);
        assert_eq!(container.handle(1, Event::Stop(Then::Down)), None);
        assert_eq!(container.handle(2, Event::Begin), None, "the outcome of the first check is still to come");
        assert!(container.is_busy());
        assert_eq!(container.handle(3, Event::Verified(Ok(()))), None, "not started");
        assert_eq!(container.state(), State::Down);
    }

    #[test]
    fn what_does_not_get_up_in_time_is_killed_and_blamed() {
        let mut container = container(Goal::Started, Recovery::NONE);
        container.handle(0, Event::Begin);
        container.handle(0, Event::Verified(Ok(())));
        let deadline = limits::START_PATIENCE_MS;
        assert_eq!(container.poll_at(), Some(deadline));
        assert_eq!(container.handle(deadline, Event::Tick), Some(Effect::Kill));
        let died = Event::Launched(Err(Code::ErrandDied));
        assert_eq!(container.handle(deadline + 1, died), Some(Effect::Fell(Code::StartTimeout)));
        assert_eq!(container.failure(), Some(Code::StartTimeout));
    }

    #[test]
    fn policies_decide_what_an_end_means() {
        let after = |policy, success| {
            let mut container = running(Goal::Started, recovery(policy, 0, Backoff::Never));
            (container.handle(2000, Event::Exited(success)), container.status())
        };
        let retry = (Some(Effect::Retry(Code::ContainerExited)), Status::Recovering);
        let fell = (Some(Effect::Fell(Code::ContainerExited)), Status::Stopped);
        assert_eq!([after(Policy::No, true), after(Policy::No, false)], [fell, fell]);
        assert_eq!([after(Policy::Always, true), after(Policy::Always, false)], [retry, retry]);
        assert_eq!([after(Policy::UnlessStopped, true), after(Policy::UnlessStopped, false)], [retry, retry]);
        assert_eq!([after(Policy::OnFailure, true), after(Policy::OnFailure, false)], [(None, Status::Stopped), retry]);
    }

    #[test]
    fn retries_are_bounded_and_then_the_backoff_policy_holds() {
        let fall = |backoff| {
            let mut container = running(Goal::Started, recovery(Policy::Always, 1, backoff));
            assert_eq!(container.handle(2000, Event::Exited(false)), Some(Effect::Retry(Code::ContainerExited)));
            assert_eq!(container.handle(3000, Event::Tick), Some(Effect::Verify));
            container.handle(3000, Event::Verified(Ok(())));
            container.handle(3000, Event::Launched(Ok(())));
            assert_eq!(container.restarts(), 1);
            (container.handle(4000, Event::Exited(false)), container)
        };
        let (effect, container) = fall(Backoff::Reboot);
        assert_eq!((effect, container.poll_at()), (Some(Effect::Fell(Code::ContainerExited)), None));
        let (effect, container) = fall(Backoff::Never);
        assert_eq!((effect, container.poll_at()), (Some(Effect::GaveUp(Code::ContainerExited)), None));
        let (effect, container) = fall(Backoff::After(60));
        assert_eq!((effect, container.poll_at()), (Some(Effect::GaveUp(Code::ContainerExited)), Some(64_000)));
        assert_eq!(container.retries(), 0, "counted anew");
    }

    #[test]
    fn a_long_run_forgives_earlier_falls() {
        let policy = Recovery { reset_window_s: 10, ..recovery(Policy::Always, 1, Backoff::Never) };
        for (runs_until, expected) in [(11_000, None), (11_001, Some(1))] {
            let mut container = running(Goal::Started, policy);
            container.retries = 1;
            container.handle(runs_until, Event::Exited(false));
            assert_eq!((container.status() == Status::Recovering).then_some(container.retries()), expected);
        }
    }

    #[test]
    fn delays_grow_up_to_their_limit() {
        let policy =
            Recovery { retry_delay_s: 5, backoff_factor_milli: 2000, ..recovery(Policy::Always, 0, Backoff::Never) };
        let mut container = container(Goal::Started, policy);
        let mut delay_after = |retries| {
            container.retries = retries;
            container.delay()
        };
        assert_eq!([1, 2, 3].map(&mut delay_after), [5_000, 10_000, 20_000]);
        assert_eq!([100, u32::MAX].map(&mut delay_after), [limits::RETRY_DELAY_MAX_MS; 2]);
        let wild = Recovery { retry_delay_s: u32::MAX, backoff_factor_milli: u32::MAX, ..policy };
        let mut container = self::container(Goal::Started, wild);
        container.retries = 7;
        assert_eq!(container.delay(), limits::RETRY_DELAY_MAX_MS);
        container.spec.recovery = recovery(Policy::Always, 0, Backoff::Never);
        assert_eq!(container.delay(), limits::RETRY_DELAY_MIN_MS, "a loop without a delay does not spin");
    }

    #[test]
    fn stability_counts_from_the_goal() {
        let policy = Recovery { stable_timeout_s: 30, ..Recovery::NONE };
        let mut container = running(Goal::Ready, policy);
        assert_eq!(container.stable_at(), None);
        container.handle(9000, Event::Ready);
        assert_eq!(container.stable_at(), Some(39_000));
    }

    #[test]
    fn late_and_repeated_events_change_nothing() {
        let all = [
            Event::Verified(Ok(())),
            Event::Launched(Ok(())),
            Event::Launched(Err(Code::ImageInvalid)),
            Event::Exited(true),
            Event::Ready,
            Event::Tick,
        ];
        let down = container(Goal::Started, Recovery::NONE);
        for event in all {
            let mut late = down;
            assert_eq!((late.handle(5000, event), late), (None, down), "{event:?}");
        }
    }
}
