//! What clients send in: from the received part file to an object or a revision, and the answer.
//!
//! Invariants: nothing gets a final name before its hash was seen to be right (objects) or before the keeper
//! checked it as a whole (states). A slot is free again only when its part file is gone, so two bodies never
//! meet in one file. Every slot that began is answered exactly once, also if its client is gone.
//!
//! Fault model: a body that stalls, a client that leaves, an errand that dies are `Err` outcomes; the world sees to
//! it that every outcome comes. What it does not do: it sees no byte of a body.

use crate::{
    control::{Answer, Upload},
    fault::{Code, Refusal},
    id::{ConnId, ObjectId, RevName},
    limits,
    machine::{Action, Job, Slot},
};
use heapless::Vec;

/// What happens to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The body is complete, or not.
    Received(Result<(), Code>),
    /// The hash of what was received.
    Hashed(Result<ObjectId, Code>),
    /// The keeper did what the slot waits for, or not.
    Kept(Result<(), Refusal>),
}

/// What one event can ask for.
pub type Actions = Vec<Action, 2>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Receiving { conn: ConnId, upload: Upload },
    Hashing { conn: ConnId, id: ObjectId },
    Adopting { conn: ConnId },
    Staging { conn: ConnId },
    Dropping,
}

/// The slots.
#[derive(Debug)]
pub struct Intake([State; limits::TRANSFERS_MAX]);

impl Intake {
    /// All free.
    pub const fn new() -> Self {
        Self([State::Free; limits::TRANSFERS_MAX])
    }

    /// Takes a slot for a body. `None`: all are taken.
    pub fn begin(&mut self, conn: ConnId, upload: Upload) -> Option<Slot> {
        let free = self.0.iter().position(|state| *state == State::Free)?;
        self.0[free] = State::Receiving { conn, upload };
        Some(Slot(free as u8))
    }

    /// The revision whose state a slot receives.
    pub fn step(&self, slot: Slot) -> Option<RevName> {
        match self.0.get(usize::from(slot.0)) {
            Some(State::Receiving { upload: Upload::Step(rev), .. }) => Some(*rev),
            _ => None,
        }
    }

    /// Slots taken.
    pub fn busy(&self) -> usize {
        self.0.iter().filter(|state| **state != State::Free).count()
    }

    /// Handles an event of one slot; the whole table.
    pub fn handle(&mut self, slot: Slot, event: Event) -> Actions {
        use {Event as E, State as S};
        let mut out = Actions::new();
        let Some(state) = self.0.get_mut(usize::from(slot.0)) else { return out };
        let mut push = |action| out.push(action).expect("no arm asks for more than two things");
        *state = match (*state, event) {
            (S::Receiving { conn, upload: Upload::Object(id) }, E::Received(Ok(()))) => {
                push(Action::Hash(slot));
                S::Hashing { conn, id }
            }
            (S::Receiving { conn, upload: Upload::Step(rev) }, E::Received(Ok(()))) => {
                push(Action::Keep(Job::Stage(slot, rev)));
                S::Staging { conn }
            }
            (S::Hashing { conn, id }, E::Hashed(Ok(found))) if found == id => {
                push(Action::Keep(Job::Adopt(slot, id)));
                S::Adopting { conn }
            }
            (S::Hashing { conn, .. }, E::Hashed(result)) => {
                let code = result.err().unwrap_or(Code::ObjectMismatch);
                refuse(slot, conn, code.into(), &mut push)
            }
            (S::Receiving { conn, .. }, E::Received(Err(code))) => refuse(slot, conn, code.into(), &mut push),
            (S::Adopting { conn }, E::Kept(Ok(()))) => {
                push(Action::Answer(conn, Answer::Done));
                S::Free
            }
            // The revision has a copy of its own.
            (S::Staging { conn }, E::Kept(Ok(()))) => {
                push(Action::Answer(conn, Answer::Done));
                push(Action::Keep(Job::Drop(slot)));
                S::Dropping
            }
            (S::Adopting { conn } | S::Staging { conn }, E::Kept(Err(refusal))) => {
                refuse(slot, conn, refusal, &mut push)
            }
            // A part file that cannot be removed is swept at the next start; the slot's next one replaces it.
            (S::Dropping, E::Kept(_)) => S::Free,
            (state, _) => state, // late or repeated: it changes nothing
        };
        out
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self::new()
    }
}

fn refuse(slot: Slot, conn: ConnId, refusal: Refusal, push: &mut dyn FnMut(Action)) -> State {
    push(Action::Answer(conn, Answer::Refused(refusal, 0)));
    push(Action::Keep(Job::Drop(slot)));
    State::Dropping
}
