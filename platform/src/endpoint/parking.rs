//! Uploads whose clients are gone, kept for a while: who announces the object again is told how much has arrived, and goes on.
//!
//! The connection to the device stays open meanwhile, so nothing of this is known there: for the device it is one
//! upload whose bytes are slow. It waits for less time than the device has patience, and is dropped before anybody
//! who is here would have to wait.
//! Invariants: at most `PLACES`, one per object; what is gone on with begins at the very byte that follows, and only
//! who announced the same size is told of it. One that somebody cannot go on with is of no use to anybody and is dropped:
//! whoever asks next sends all of it.

use super::flow::Out;
use mio::net::UnixStream;
use runtime::{id::ObjectId, limits};
use std::time::{Duration, Instant};

/// One transfer is left for whoever announces.
const PLACES: usize = limits::TRANSFERS_MAX - 2;
/// The device itself ends an upload without progress.
const PATIENCE: Duration = Duration::from_millis(limits::TRANSFER_PATIENCE_MS - 10_000);

const _: () = assert!(limits::TRANSFER_PATIENCE_MS > 10_000 && limits::TRANSFERS_MAX > 2);

/// One of them.
pub(super) struct Parked {
    pub(super) upstream: UnixStream,
    /// Arrived, and not passed on yet.
    pub(super) unsent: Out,
    object: ObjectId,
    held: u64,
    size: u64,
    until: Instant,
}

impl Parked {
    pub(super) fn new(upstream: UnixStream, unsent: Out, object: ObjectId, held: u64, size: u64) -> Self {
        Self { upstream, unsent, object, held, size, until: Instant::now() + PATIENCE }
    }
}

/// All of them, the oldest first.
#[derive(Default)]
pub(super) struct Parking(Vec<Parked>);

impl Parking {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps what a client left behind.
    pub(super) fn keep(&mut self, parked: Option<Parked>) {
        let Some(parked) = parked else { return };
        self.0.retain(|other| other.object != parked.object);
        if self.0.len() == PLACES {
            self.drop_oldest();
        }
        self.0.push(parked);
    }

    /// How much of an object of this size has arrived.
    pub(super) fn held(&self, object: ObjectId, size: u64) -> Option<u64> {
        self.0.iter().find(|parked| (parked.object, parked.size) == (object, size)).map(|parked| parked.held)
    }

    /// The upload that goes on at this byte. One of the object that does not is dropped.
    pub(super) fn take(&mut self, object: ObjectId, first: u64, size: u64) -> Option<Parked> {
        let index = self.0.iter().position(|parked| parked.object == object)?;
        Some(self.0.remove(index)).filter(|parked| (parked.held, parked.size) == (first, size))
    }

    pub(super) fn drop_oldest(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }

    /// When the next one ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.first().map(|parked| parked.until)
    }

    /// Ends those that waited long enough.
    pub(super) fn end(&mut self, now: Instant) {
        self.0.retain(|parked| parked.until > now);
    }
}
