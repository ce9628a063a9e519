//! What happens to the device: every event, every action, and the machine between them.
//!
//! Invariants: `handle` never waits and never fails; events and actions are `Copy` and hold names and slots, no
//! bytes. Time is an argument. Each action that has an outcome has exactly one, as the event named beside it.
//!
//! What it does not do: no file, no process, no clock; those are behind `turn::World`.

use crate::{
    control::{Answer, Caller, Download, Request, Upload},
    fault::{Code, Refusal},
    id::{ConnId, ContainerId, ObjectId, RevName},
    journal::Record,
    limits,
    port::{BootVars, Millis},
};
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
    /// Answer and, if the world wants, close.
    Answer(ConnId, Answer),
    /// Unmount and restart the device; every container was stopped or had its time to.
    Reboot(Reason),
    /// Unmount and switch the device off.
    PowerOff,
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
    /// A container ended and nothing says how to go on without it.
    Container(ContainerId, Code),
}

/// Everything that the device decides.
pub struct Machine {
    actions: Deque<Action, { limits::ACTIONS_QUEUED_MAX }>,
}

impl Machine {
    /// Handles one event.
    pub fn handle(&mut self, _now: Millis, event: Event) {
        match event {
            Event::PowerOff => self.emit(Action::PowerOff),
            Event::Reboot => self.emit(Action::Reboot(Reason::Asked)),
            _ => {}
        }
    }

    /// The next action, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn emit(&mut self, action: Action) {
        self.actions.push_back(action).expect("the queue holds all that one turn can ask for");
    }
}
