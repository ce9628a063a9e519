//! The least pace of a client: how long it may keep us waiting, given what it moved.
//!
//! A client begins with some credit of time. Only time in which it is the one waited for is taken from that; each byte that
//! it sends or takes gives some back. So a slow device costs a client nothing, a slow link is served, and one that sends a
//! byte now and then to hold its slot is out of credit soon.

use std::time::{Duration, Instant};

/// Bytes that pay for a second of waiting.
pub(super) const RATE: u32 = runtime::limits::CLIENT_RATE_MIN;
/// Credit at the start, and the most that can be saved.
pub(super) const CREDIT: Duration = Duration::from_secs(20);

/// What one client has left.
pub(super) struct Pace {
    credit: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// At the start.
    pub(super) fn new() -> Self {
        Self { credit: CREDIT, since: None }
    }

    /// It moved this many bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        let earned = Duration::from_secs(1).saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX)) / RATE;
        self.credit = self.credit.saturating_add(earned).min(CREDIT);
    }

    /// From now on it is waited for, or is not.
    pub(super) fn wait(&mut self, now: Instant, waiting: bool) {
        if let Some(since) = self.since.take() {
            self.credit = self.credit.saturating_sub(now.saturating_duration_since(since));
        }
        self.since = waiting.then_some(now);
    }

    /// When its credit is used up, if it is waited for.
    pub(super) fn until(&self) -> Option<Instant> {
        self.since.map(|since| since + self.credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_for_the_client_costs_and_bytes_pay() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        let second = |n| now + Duration::from_secs(n);
        pace.wait(now, false);
        pace.wait(second(100), true);
        assert_eq!(pace.until(), Some(second(100) + CREDIT), "the device took its time");
        pace.wait(second(110), true);
        pace.moved(1);
        assert!(pace.until().unwrap() < second(121), "a byte is a thousandth of a second");
        pace.wait(second(110), true);
        pace.moved(5 * RATE as usize);
        assert!(pace.until().unwrap() >= second(125));
        pace.moved(usize::MAX);
        assert_eq!(pace.until(), Some(second(110) + CREDIT), "no more than at the start");
    }
}
