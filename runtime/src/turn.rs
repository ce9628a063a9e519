//! The engine: one event in, actions out until they settle, then wait.
//!
//! The state is consistent whenever the loop waits, so the control socket always answers truthfully and any
//! fault is a pair of state and event that a test can write down.

use crate::{
    limits,
    machine::{Action, Event, Machine},
    port::Millis,
    protocol::{self, Row},
};

/// The world as the loop sees it. Implemented by the platform and by the simulator.
pub trait World {
    /// The action that comes next is this row of the protocol. Nothing on a device: for those who watch.
    #[inline]
    fn step(&mut self, _row: Row) {}
    /// Carries out one action. `Some`: it was done at once, this is its outcome. `None`: there is no outcome, or
    /// it comes later as an event. `machine` is lent for reading tables and for filling the candidate's plan.
    fn perform(&mut self, machine: &mut Machine, action: Action) -> Option<Event>;
}

/// Handles one event and everything that follows from it at once.
pub fn turn<W: World>(machine: &mut Machine, world: &mut W, now: Millis, event: Event) {
    machine.handle(now, event);
    for _ in 0..limits::ACTIONS_PER_TURN_MAX {
        let Some(action) = machine.poll_action() else { return };
        if let Some(row) = protocol::row_of(machine, &action) {
            world.step(row);
        }
        if let Some(outcome) = world.perform(machine, action) {
            machine.handle(now, outcome);
        }
    }
    panic!("actions do not settle"); // a cycle between machine and world is our bug, not a load
}
