//! How long the turns of PID 1's loop are: nobody may make it wait, and this is where it would show.
//!
//! A turn goes from the end of one wait to the begin of the next. Stores of the environment, which are allowed to wait
//! for their medium, are left out. Two clock readings a turn, no allocation.
//! Does not: say what a long turn did; before the first wait there is none.

use core::cell::Cell;
use rustix::time::{ClockId, clock_gettime};

/// Monotonic microseconds since boot.
pub type Micros = u64;

/// Monotonic microseconds since boot.
pub fn micros() -> Micros {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// The turn that runs, and the longest that ended.
#[derive(Default)]
pub struct Turns {
    begun: Option<Micros>,
    longest: Cell<Micros>,
}

impl Turns {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A wait is over.
    pub fn begin(&mut self) {
        self.begun = Some(micros());
    }

    /// The next wait begins.
    pub fn end(&mut self) {
        self.end_at(micros());
    }

    /// What the turn that runs has done since `since` does not count.
    pub fn leave_out(&mut self, since: Micros) {
        self.leave_out_at(micros(), since);
    }

    /// The longest turn that ended since this was asked before.
    pub fn take_longest(&self) -> Micros {
        self.longest.take()
    }

    fn end_at(&mut self, now: Micros) {
        if let Some(begun) = self.begun.take() {
            self.longest.set(self.longest.get().max(now.saturating_sub(begun)));
        }
    }

    fn leave_out_at(&mut self, now: Micros, since: Micros) {
        if let Some(begun) = &mut self.begun {
            *begun += now.saturating_sub(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_counts_without_what_is_left_out() {
        let mut turns = Turns { begun: Some(100), longest: Cell::new(0) };
        turns.end_at(150);
        turns.end_at(9_000);
        assert_eq!(turns.take_longest(), 50, "between two turns is a wait");
        turns.begun = Some(200);
        turns.leave_out_at(5_000, 300);
        turns.end_at(5_010);
        assert_eq!(turns.take_longest(), 110);
        assert_eq!(turns.take_longest(), 0, "asked before");
        turns.begin();
        turns.end();
        assert!(turns.begun.is_none());
    }
}
