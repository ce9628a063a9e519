//! What happens to the device: every event, every action, and the machine between them.
//!
//! Invariants: `handle` never waits and never fails; events and actions are `Copy` and hold names and slots, no
//! bytes. Time is an argument. Each action that has an outcome has exactly one, as the event named beside it.
//! The parts (`order`, `update`, `intake`) never call each other; the machine routes, and after each event lets
//! them go on until nothing changes.
//!
//! What it does not do: no file, no process, no clock; those are behind `turn::World`.

use crate::{
    change,
    container::{self, Effect, State, Then},
    control::{Act, Answer, Caller, Download, Request, Upload},
    fault::{Code, Refusal},
    id::{ConnId, ContainerId, ObjectId, PartName, RevName},
    intake::{self, Intake},
    journal::{Kind, Record},
    limits,
    order::{Order, Standing},
    port::{BootVars, Millis},
    progress::Progress,
    state::{self, Goal, Plan, RestartPolicy},
    update::{Boot, Command, Commands, Input, Update},
};
use core::fmt;
use heapless::Deque;

/// What the world tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Time has passed (`poll_at`), or the loop has just begun.
    Tick,
    /// Outcome of `Action::Verify`.
    Verified(ContainerId, Result<(), Code>),
    /// The one record of `Action::Start`. `Ok`: the container's init was executed; for a container whose goal is
    /// MOUNTED: mounted, and the errand has ended. `Err`: it could not be started, and no process of it remains.
    Launched(ContainerId, Result<(), Code>),
    /// The container's init ended and was reaped; nothing lives in its cgroup. Comes once for each `Launched(Ok)`
    /// that has a process, and instead of `Launched` if the errand ended without a record.
    Exited(ContainerId, Exit),
    /// Outcome of `Action::Load`.
    Loaded(RevName, Result<(), Refusal>),
    /// Outcome of `Action::Keep`: always, at the latest when the keeper's patience is over.
    Kept(Job, Result<(), Refusal>),
    /// Outcome of `Action::Store`.
    Stored(Transition, Result<(), Code>),
    /// Outcome of `Action::Receive`: the whole body is in the slot's part file, or why not.
    Received(Slot, Result<(), Code>),
    /// Outcome of `Action::Hash`.
    Hashed(Slot, Result<ObjectId, Code>),
    /// A client asks. Answered by exactly one `Action::Answer`, `Send` or `Receive`.
    Asked(ConnId, Caller, Request),
    /// SIGTERM, the power button: switch the device off.
    PowerOff,
    /// SIGINT (ctrl-alt-del): restart the device.
    Reboot,
}

/// What the world is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Check the images of a container before it starts. `Verified`.
    Verify(ContainerId),
    /// Start a container of the revision in force (`Machine::to_start`). `Launched`, then `Exited`.
    Start(ContainerId),
    /// Ask a container's init to end (its halt signal).
    Stop(ContainerId),
    /// Kill everything in a container's cgroup.
    Kill(ContainerId),
    /// Read a revision's state and parse it into `Machine::candidate_mut`. `Loaded`.
    Load(RevName),
    /// Have the keeper do something durable. `Kept`.
    Keep(Job),
    /// Store the loader's environment, all variables at once. `Stored`.
    Store(Transition, BootVars),
    /// Stream the body of this connection into a new part file. `Received`. The connection is answered later.
    Receive(Slot, ConnId, Upload, u64),
    /// Hash the slot's part file. `Hashed`.
    Hash(Slot),
    /// Stream this file as the answer; the world answers if there is no such file.
    Send(ConnId, Download),
    /// Let the `endpoint` errand answer this connection; the world answers if there is none.
    Pass(ConnId),
    /// Answer and, if the world wants, close.
    Answer(ConnId, Answer),
    /// Unmount and restart the device; every container was stopped or had its time to.
    Reboot(Reason),
    /// Unmount and switch the device off.
    PowerOff,
    /// Log this.
    Note(Note),
}

/// What the keeper is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// Make the candidate visible to the loader (boot assets, checkpoint), with this record in the journal.
    Prepare(Record),
    /// Write this record to the journal; a final one also as the progress of its revision.
    Record(Record),
    /// Remove what no kept revision needs.
    Collect,
    /// Make the factory revision visible to the loader, with this record, which says that a factory reset was asked for.
    Intend(Record),
    /// Remove everything but the factory revision; then the journal says that the factory reset has ended.
    Clear,
    /// Name a received object: the slot's part file has this hash.
    Adopt(Slot, ObjectId),
    /// Check a received state and make it a revision.
    Stage(Slot, RevName),
    /// Remove the slot's part file.
    Drop(Slot),
    /// Set a revision's commit message, from the body of this connection.
    Message(RevName, ConnId),
}

/// A change of the loader's environment; each is one store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// What `boot::choose` asks for.
    Settle,
    /// Name a candidate.
    Arm,
    /// The candidate becomes the committed revision.
    Commit,
    /// Give the candidate up.
    Disarm,
    /// From a revision committed in place whose first cold boot failed, back to the one before.
    StepBack,
    /// Commit to the factory revision alone, which a client asked for: a factory reset has begun.
    FactoryReset,
}

/// A transfer's slot, below `limits::TRANSFERS_MAX`. Busy from `Receive` until its part file is adopted, staged or dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Slot(pub u8);

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

/// Why the device restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A client or a key asked.
    Asked,
    /// To try this revision.
    Try(RevName),
    /// The trial of this revision failed.
    Rollback(RevName, Code),
    /// A container fell and nothing says how to go on without it.
    Container(PartName, Code),
    /// A factory reset has begun.
    FactoryReset,
}

/// What the log should say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A container fell and is started again.
    Retry(PartName, Code),
    /// A container fell and stays down, for now.
    GaveUp(PartName, Code),
    /// A container fell, and nothing says how to go on without it.
    Fell(PartName, Code),
    /// A group missed its goals; this container was not there.
    Missed(PartName),
    /// Every container reached its goal.
    Ready(RevName),
    /// An update went on.
    Update(RevName, Progress),
}

/// Everything that the device decides.
pub struct Machine {
    plans: [Plan; 2],
    running: usize,
    in_force: usize,
    order: Order,
    update: Update,
    intake: Intake,
    power: Power,
    standing: Standing,
    ready_at: Option<Millis>,
    effects: Deque<(ContainerId, Effect), { 2 * limits::CONTAINERS_MAX }>,
    actions: Deque<Action, { limits::ACTIONS_QUEUED_MAX }>,
}

/// Whether the device is to stay on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Power {
    On,
    /// Containers are ending; `last` is done when they have, or at `until`.
    Leaving {
        last: Action,
        until: Millis,
    },
    /// The last action was given out.
    Off,
}

impl Machine {
    /// A device that has just booted, with the plan of the revision that runs. The first event starts it.
    pub fn new(boot: Boot, plan: Plan) -> Self {
        Self {
            plans: [plan, Plan::empty(boot.choice.run)],
            running: 0,
            in_force: 0,
            order: Order::new(),
            update: Update::new(boot),
            intake: Intake::new(),
            power: Power::On,
            standing: Standing::Switching,
            ready_at: None,
            effects: Deque::new(),
            actions: Deque::new(),
        }
    }

    /// Handles one event, and all that follows from it without the world.
    pub fn handle(&mut self, now: Millis, event: Event) {
        if self.power == Power::Off {
            return; // the world is taking the device down
        }
        self.route(now, event);
        for _ in 0..limits::SETTLING_MAX {
            if !self.go_on(now) {
                return;
            }
        }
        panic!("the parts do not settle");
    }

    /// The next action, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if self.actions.is_empty() {
            self.actions.clear(); // back to its start: a ring that goes round would touch all of its pages
        }
        action
    }

    /// When the machine next needs `Event::Tick`.
    pub fn poll_at(&self) -> Option<Millis> {
        let times = match self.power {
            Power::On => [self.order.poll_at(), self.update.poll_at()],
            Power::Leaving { until, .. } => [self.order.containers_poll_at(), Some(until)],
            Power::Off => [None, None],
        };
        times.into_iter().flatten().min()
    }

    /// The plan that `Action::Load` fills. Empty it, or leave it, if the revision cannot be read.
    pub fn candidate_mut(&mut self) -> &mut Plan {
        assert!(self.running == self.in_force, "a candidate is read only while nothing is on trial");
        &mut self.plans[1 - self.running]
    }

    /// What `Action::Verify` and `Action::Start` are about: the revision in force, and what it says of the container.
    pub fn to_start(&self, id: ContainerId) -> Option<(RevName, &state::Container)> {
        self.order.get(id).map(|container| (self.plan().rev, container.spec()))
    }

    /// Whether a caller may use the management endpoints.
    pub fn is_management(&self, caller: Caller) -> bool {
        match caller {
            Caller::Host => true,
            Caller::Container(id) => self.order.get(id).is_some_and(|container| container.spec().management),
        }
    }

    /// Revisions that must not be collected or overwritten, for the keeper's list.
    pub fn kept(&self) -> impl Iterator<Item = RevName> {
        self.update.kept()
    }

    /// The plan in force: the candidate's while one is tried in place.
    pub fn plan(&self) -> &Plan {
        &self.plans[self.in_force]
    }

    /// The containers.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The update.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// How the containers stand against the plan in force.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When all goals were first met since boot.
    pub fn ready_at(&self) -> Option<Millis> {
        self.ready_at
    }

    /// Hands an event to the part that it is about.
    fn route(&mut self, now: Millis, event: Event) {
        match event {
            Event::Tick => self.tick(now),
            Event::Verified(id, result) => self.container(now, id, container::Event::Verified(result)),
            Event::Launched(id, result) => self.container(now, id, container::Event::Launched(result)),
            Event::Exited(id, exit) => self.container(now, id, container::Event::Exited(exit == Exit::Code(0))),
            Event::Loaded(_, result) => {
                let kind = result.map(|()| self.kind());
                self.inform(now, Input::Loaded(kind));
            }
            Event::Kept(job, result) => self.kept_by_keeper(now, job, result),
            Event::Stored(transition, result) => self.inform(now, Input::Stored(transition, result)),
            Event::Received(slot, result) => {
                // An update to this revision may have begun while its state came in again: what was read of it for
                // the trial must be what is on the disk.
                let taken = self.intake.step(slot).is_some_and(|rev| self.kept().any(|kept| kept == rev));
                let result = if taken { result.and(Err(Code::RevisionInUse)) } else { result };
                self.intake(slot, intake::Event::Received(result));
                self.make_room(result.err());
            }
            Event::Hashed(slot, result) => self.intake(slot, intake::Event::Hashed(result)),
            Event::Asked(conn, caller, request) => self.asked(now, conn, caller, request),
            Event::PowerOff => self.leave(now, Action::PowerOff),
            Event::Reboot => self.leave(now, Action::Reboot(Reason::Asked)),
        }
    }

    /// Lets every part go on once; whether any of them did.
    fn go_on(&mut self, now: Millis) -> bool {
        let before = self.update.state();
        while let Some((id, effect)) = self.effects.pop_front() {
            self.effect(now, id, effect);
        }
        match self.power {
            Power::On => self.hold_to_plan(now),
            Power::Leaving { last, until } if now >= until || !self.order.is_busy() => {
                self.power = Power::Off;
                self.emit(last);
            }
            Power::Leaving { .. } | Power::Off => {}
        }
        !self.effects.is_empty() || self.update.state() != before
    }

    fn tick(&mut self, now: Millis) {
        if self.update.state() == crate::update::State::Boot {
            self.inform(now, Input::Begin);
        }
        let Self { order, effects, .. } = self;
        order.handle_all(now, container::Event::Tick, &mut |id, effect| queue(effects, id, effect));
    }

    fn container(&mut self, now: Millis, id: ContainerId, event: container::Event) {
        let Self { order, effects, .. } = self;
        order.handle(now, id, event, &mut |id, effect| queue(effects, id, effect));
    }

    /// What a container needs goes to the world; what it tells goes to the update.
    fn effect(&mut self, now: Millis, id: ContainerId, effect: Effect) {
        let Some(name) = self.order.get(id).map(|container| container.spec().name) else { return };
        match effect {
            Effect::Verify => self.emit(Action::Verify(id)),
            Effect::Start => self.emit(Action::Start(id)),
            Effect::Stop => self.emit(Action::Stop(id)),
            Effect::Kill => self.emit(Action::Kill(id)),
            Effect::Retry(code) => self.emit(Action::Note(Note::Retry(name, code))),
            Effect::GaveUp(code) => {
                self.emit(Action::Note(Note::GaveUp(name, code)));
                self.inform(now, Input::GaveUp(name, code));
            }
            Effect::Fell(code) => {
                self.emit(Action::Note(Note::Fell(name, code)));
                self.inform(now, Input::Fell(name, code));
            }
        }
    }

    fn hold_to_plan(&mut self, now: Millis) {
        if !self.update.has_settled() {
            return;
        }
        let Self { order, plans, in_force, effects, .. } = self;
        order.advance(now, &plans[*in_force], &mut |id, effect| queue(effects, id, effect));
        let standing = self.order.standing(self.plan());
        match (self.standing, standing) {
            (Standing::Met { .. }, Standing::Met { .. }) => {}
            (_, Standing::Met { .. }) => {
                self.ready_at = self.ready_at.or(Some(now));
                self.emit(Action::Note(Note::Ready(self.plan().rev)));
            }
            (Standing::Missed(_), Standing::Missed(_)) => {}
            (_, Standing::Missed(name)) => self.emit(Action::Note(Note::Missed(name))),
            _ => {}
        }
        self.standing = standing;
        self.inform(now, Input::Standing(standing));
    }

    /// Gives the update an input and does what it asks for.
    fn inform(&mut self, now: Millis, input: Input) {
        let shown = self.shown(now);
        let mut commands = Commands::new();
        self.update.handle(now, input, &mut commands);
        for command in commands {
            self.command(now, command);
        }
        match self.shown(now) {
            Some((rev, progress)) if shown != Some((rev, progress)) => {
                self.emit(Action::Note(Note::Update(rev, progress)));
            }
            _ => {}
        }
    }

    fn command(&mut self, now: Millis, command: Command) {
        match command {
            Command::Load(rev) => self.emit(Action::Load(rev)),
            Command::Answer(conn, answer) => self.emit(Action::Answer(conn, answer)),
            Command::Keep(job) => self.emit(Action::Keep(job)),
            Command::Store(transition, vars) => self.emit(Action::Store(transition, vars)),
            Command::Start => self.retarget(now, self.running),
            Command::Switch => self.retarget(now, 1 - self.running),
            Command::Adopt => self.running = self.in_force,
            Command::Leave(reason) => self.leave(now, Action::Reboot(reason)),
        }
    }

    fn retarget(&mut self, now: Millis, plan: usize) {
        self.in_force = plan;
        let Self { order, plans, effects, .. } = self;
        order.retarget(now, &plans[plan], &mut |id, effect| queue(effects, id, effect));
    }

    /// How the candidate would be tried.
    fn kind(&self) -> Kind {
        let (running, candidate) = (&self.plans[self.running], &self.plans[1 - self.running]);
        change::kind(&self.order, running, candidate)
    }

    /// Stops everything; then `last`.
    fn leave(&mut self, now: Millis, last: Action) {
        if self.power != Power::On {
            return;
        }
        self.power = Power::Leaving { last, until: now + limits::LEAVE_PATIENCE_MS };
        self.inform(now, Input::Leave);
        let Self { order, effects, .. } = self;
        order.handle_all(now, container::Event::Stop(Then::Down), &mut |id, effect| queue(effects, id, effect));
    }

    fn kept_by_keeper(&mut self, now: Millis, job: Job, result: Result<(), Refusal>) {
        let code = result.map_err(|refusal| refusal.code);
        match job {
            Job::Prepare(_) | Job::Intend(_) => self.inform(now, Input::Prepared(code)),
            Job::Clear => self.inform(now, Input::Cleared(code)),
            Job::Record(_) => self.inform(now, Input::Recorded(code)),
            Job::Adopt(slot, _) | Job::Stage(slot, _) | Job::Drop(slot) => {
                self.intake(slot, intake::Event::Kept(result));
            }
            Job::Message(_, conn) => self.answer(conn, result),
            Job::Collect => return,
        }
        self.make_room(code.err());
    }

    /// After a full disk or folder, so that whoever tries again finds room.
    fn make_room(&mut self, failed: Option<Code>) {
        if let Some(Code::NoSpace | Code::TrailsFull) = failed {
            self.emit(Action::Keep(Job::Collect));
        }
    }

    fn intake(&mut self, slot: Slot, event: intake::Event) {
        let actions = self.intake.handle(slot, event);
        actions.into_iter().for_each(|action| self.emit(action));
    }

    /// Answers a request, or has it answered later.
    fn asked(&mut self, now: Millis, conn: ConnId, caller: Caller, request: Request) {
        if self.power != Power::On {
            return self.answer_busy(conn, Code::Busy, limits::RETRY_AFTER_BUSY_S);
        }
        match request {
            // A factory reset that goes on would remove what was acknowledged.
            Request::Receive(..) | Request::Message(_) | Request::Collect if !self.update.has_settled() => {
                self.answer_busy(conn, Code::Busy, limits::RETRY_AFTER_BUSY_S);
            }
            Request::Containers | Request::Groups | Request::Status | Request::Limits | Request::BuildInfo => {
                self.emit(Action::Answer(conn, Answer::Document(request)));
            }
            Request::Ready => {
                let result = self.ready(now, caller);
                self.answer(conn, result);
            }
            Request::Act(name, act) => {
                let result = self.act(now, name, act);
                self.answer(conn, result);
            }
            Request::Run(rev) => self.inform(now, Input::Run(conn, rev)),
            Request::Rollback => match self.update.vars().previous {
                Some(rev) => self.inform(now, Input::Run(conn, rev)), // an update as any other, with all that guards one
                None if self.update.is_steady() => self.answer(conn, Err(Code::NoPrevious.into())),
                None => self.answer_busy(conn, Code::UpdateBusy, limits::RETRY_AFTER_UPDATE_S),
            },
            Request::Endpoint => self.emit(Action::Pass(conn)),
            Request::Reboot | Request::PowerOff if !self.update.may_leave() => {
                self.answer_busy(conn, Code::UpdateBusy, limits::RETRY_AFTER_UPDATE_S);
            }
            Request::Reboot => {
                self.answer(conn, Ok(()));
                self.leave(now, Action::Reboot(Reason::Asked));
            }
            Request::PowerOff => {
                self.answer(conn, Ok(()));
                self.leave(now, Action::PowerOff);
            }
            Request::FactoryReset => self.inform(now, Input::FactoryReset(conn)),
            Request::Collect => {
                self.answer(conn, Ok(()));
                self.emit(Action::Keep(Job::Collect));
            }
            Request::Message(rev) => self.emit(Action::Keep(Job::Message(rev, conn))),
            Request::Receive(Upload::Step(rev), _) if self.kept().any(|kept| kept == rev) => {
                self.answer(conn, Err(Refusal::key(Code::RevisionInUse, rev.as_str())));
            }
            Request::Receive(upload, length) => match self.intake.begin(conn, upload) {
                Some(slot) => self.emit(Action::Receive(slot, conn, upload, length)),
                None => self.answer_busy(conn, Code::Busy, limits::RETRY_AFTER_BUSY_S),
            },
            Request::Send(Download::Progress(rev)) if self.update.progress(now, rev).is_some() => {
                self.emit(Action::Answer(conn, Answer::Document(request)));
            }
            Request::Send(download) => self.emit(Action::Send(conn, download)),
        }
    }

    /// A container says that it is ready, and only one whose goal that is may say so.
    fn ready(&mut self, now: Millis, caller: Caller) -> Result<(), Refusal> {
        let Caller::Container(id) = caller else { return Err(Code::SignalUnexpected.into()) };
        match self.order.get(id).map(|container| (container.spec().goal, container.state())) {
            Some((Goal::Ready, State::Started { .. } | State::Ready { .. })) => {
                self.container(now, id, container::Event::Ready);
                Ok(())
            }
            _ => Err(Code::SignalUnexpected.into()),
        }
    }

    /// A client starts, stops or restarts a container.
    fn act(&mut self, now: Millis, name: PartName, act: Act) -> Result<(), Refusal> {
        let refuse = |code| Err(Refusal::key(code, name.as_str()));
        let Some(id) = self.order.find(name) else { return refuse(Code::ContainerUnknown) };
        let Some(container) = self.order.get(id) else { return refuse(Code::ContainerUnknown) };
        if container.spec().restart == RestartPolicy::System {
            return refuse(Code::ContainerSystem);
        }
        if !self.update.is_steady() {
            return refuse(Code::UpdateBusy);
        }
        let rests =
            matches!(container.state(), State::Stopped | State::Ended | State::Failed(_) | State::Recovering { .. });
        match act {
            Act::Start if !rests => return refuse(Code::ContainerState),
            Act::Stop if container.state() == State::Stopped => return refuse(Code::ContainerState),
            Act::Stop => self.container(now, id, container::Event::Stop(Then::Stopped)),
            Act::Start => self.container(now, id, container::Event::Reset),
            Act::Restart => {
                self.container(now, id, container::Event::Stop(Then::Down));
                self.container(now, id, container::Event::Reset);
            }
        }
        Ok(())
    }

    fn answer(&mut self, conn: ConnId, result: Result<(), Refusal>) {
        let answer = match result {
            Ok(()) => Answer::Done,
            Err(refusal) if refusal.code == Code::UpdateBusy => Answer::Refused(refusal, limits::RETRY_AFTER_UPDATE_S),
            Err(refusal) => Answer::Refused(refusal, 0),
        };
        self.emit(Action::Answer(conn, answer));
    }

    fn answer_busy(&mut self, conn: ConnId, code: Code, retry_after_s: u16) {
        self.emit(Action::Answer(conn, Answer::Refused(code.into(), retry_after_s)));
    }

    /// What the log was last told of an update.
    fn shown(&self, now: Millis) -> Option<(RevName, Progress)> {
        let rev = self.update.trial().or(self.update.last())?.candidate;
        self.update.progress(now, rev).map(|progress| (rev, progress))
    }

    fn emit(&mut self, action: Action) {
        self.actions.push_back(action).expect("the queue holds all that one turn can ask for");
    }
}

fn queue(effects: &mut Deque<(ContainerId, Effect), { 2 * limits::CONTAINERS_MAX }>, id: ContainerId, effect: Effect) {
    effects.push_back((id, effect)).expect("a container asks for at most two things before they are passed on");
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Retry(name, code) => write!(f, "container {name}: {code} {}; starting it again", code.text()),
            Note::GaveUp(name, code) => write!(f, "container {name}: {code} {}; its retries are used up", code.text()),
            Note::Fell(name, code) => write!(f, "container {name}: {code} {}; it has no retries", code.text()),
            Note::Missed(name) => write!(f, "container {name}: {} {}", Code::GoalsMissed, Code::GoalsMissed.text()),
            Note::Ready(rev) => write!(f, "revision {rev}: READY, every container is at its goal"),
            Note::Update(rev, progress) => {
                write!(f, "revision {rev}: {} {}", progress.status.word(), progress.message)?;
                if let Some(code) = progress.code {
                    write!(f, ": {code} {}", code.text())?;
                }
                if let Some(name) = progress.container {
                    write!(f, " ({name})")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
