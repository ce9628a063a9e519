//! Waiting: which descriptor has something to say.
//!
//! mio reports edges, so a source stays marked as ready here until its owner has read it to the end
//! (`drained`). Ready sources are served in turn, one step each: a client that never stops talking
//! gets its share and no more, and the others theirs.
//! Invariants: every registered descriptor is deregistered before it is closed or handed on, because a copy of it
//! elsewhere would keep the registration alive. Nothing here allocates after `new`.

use crate::errand::Resident;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use runtime::{id::ConnId, id::ContainerId, limits, machine::Slot, port::Millis};
use rustix::fd::{AsFd, AsRawFd};
use std::{io, time::Duration};

/// Who can have something to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A signal came.
    Signals,
    /// A client connects to the host's control socket.
    Host,
    /// A client connects to a container's control socket.
    Listener(ContainerId),
    /// A client speaks or hangs up.
    Conn(ConnId),
    /// A resident errand answers or has gone.
    Resident(Resident),
    /// The `start` errand of a container reports or has become its init.
    Start(ContainerId),
    /// The `fetch` errand of a transfer or a download answers or has gone.
    Fetch(Slot),
}

const CONTAINERS: usize = limits::CONTAINERS_MAX;
const LISTENERS: usize = 2;
const CONNS: usize = LISTENERS + CONTAINERS;
const RESIDENTS: usize = CONNS + limits::CONNECTIONS_MAX;
const STARTS: usize = RESIDENTS + Resident::ALL.len();
const FETCHES: usize = STARTS + CONTAINERS;
const SOURCES: usize = FETCHES + crate::transfer::SLOTS;

impl Source {
    fn index(self) -> usize {
        match self {
            Self::Signals => 0,
            Self::Host => 1,
            Self::Listener(id) => LISTENERS + usize::from(id.0),
            Self::Conn(id) => CONNS + usize::from(id.0),
            Self::Resident(resident) => RESIDENTS + resident as usize,
            Self::Start(id) => STARTS + usize::from(id.0),
            Self::Fetch(slot) => FETCHES + usize::from(slot.0),
        }
    }

    fn from_index(index: usize) -> Self {
        match index {
            0 => Self::Signals,
            1 => Self::Host,
            _ if index < CONNS => Self::Listener(ContainerId((index - LISTENERS) as u8)),
            _ if index < RESIDENTS => Self::Conn(ConnId((index - CONNS) as u8)),
            _ if index < STARTS => Self::Resident(Resident::ALL[index - RESIDENTS]),
            _ if index < FETCHES => Self::Start(ContainerId((index - STARTS) as u8)),
            _ => Self::Fetch(Slot((index - FETCHES) as u8)),
        }
    }
}

/// The poller and the marks of who is ready.
pub struct Waiter {
    poll: Poll,
    events: Events,
    ready: Marks,
    /// Who was served last.
    last: usize,
    wakeups: u64,
}

impl Waiter {
    /// An empty one. Allocates; everything after does not.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(64), ready: Marks::NONE, last: 0, wakeups: 0 })
    }

    /// Watches a descriptor. It counts as ready once, so that what came before is not missed.
    pub fn watch(&mut self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let raw = fd.as_fd().as_raw_fd();
        self.ready.set(source.index());
        self.poll.registry().register(&mut SourceFd(&raw), Token(source.index()), Interest::READABLE)
    }

    /// Forgets a descriptor: before it is closed or handed on.
    pub fn forget(&mut self, fd: impl AsFd, source: Source) {
        let raw = fd.as_fd().as_raw_fd();
        let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
        self.ready.clear(source.index());
    }

    /// The source was read to its end; it will be reported again when there is more.
    pub fn drained(&mut self, source: Source) {
        self.ready.clear(source.index());
    }

    /// The source has more to read, although no edge will say so.
    pub fn again(&mut self, source: Source) {
        self.ready.set(source.index());
    }

    /// The next source in turn that is ready, waiting at most `patience` for one.
    pub fn next(&mut self, patience: Option<Millis>) -> Option<Source> {
        let patience = if self.ready.any() { Some(0) } else { patience };
        self.wakeups += u64::from(patience != Some(0));
        let patience = patience.map(Duration::from_millis);
        if self.poll.poll(&mut self.events, patience).is_ok() {
            for event in &self.events {
                self.ready.set(event.token().0);
            }
        }
        let next = self.ready.next_after(self.last)?;
        self.last = next;
        Some(Source::from_index(next))
    }

    /// How often it waited until something came, or the time.
    pub fn wakeups(&self) -> u64 {
        self.wakeups
    }
}

const WORDS: usize = SOURCES.div_ceil(64);

/// A set of source numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Marks([u64; WORDS]);

impl Marks {
    const NONE: Self = Self([0; WORDS]);

    fn set(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }
    fn clear(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }
    fn any(&self) -> bool {
        self.0.iter().any(|word| *word != 0)
    }
    /// The first after `last`, going round.
    fn next_after(&self, last: usize) -> Option<usize> {
        (1..=SOURCES).map(|step| (last + step) % SOURCES).find(|index| self.has(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_own_number() {
        for index in 0..SOURCES {
            assert_eq!(Source::from_index(index).index(), index);
        }
    }

    #[test]
    fn ready_sources_are_served_in_turn() {
        let mut waiter = Waiter::new().unwrap();
        let pipes: Vec<_> = (0..3).map(|_| rustix::pipe::pipe().unwrap()).collect();
        for (id, (read, write)) in pipes.iter().enumerate() {
            waiter.watch(read, Source::Conn(ConnId(id as u8))).unwrap();
            rustix::io::write(write, b"xxxx").unwrap();
        }
        let served: Vec<_> = (0..6).map(|_| waiter.next(Some(0)).unwrap()).collect();
        assert_eq!(served[..3], served[3..], "each keeps its turn while it is not drained");
        for (id, (read, _)) in pipes.iter().enumerate() {
            assert!(served.contains(&Source::Conn(ConnId(id as u8))));
            waiter.forget(read, Source::Conn(ConnId(id as u8)));
        }
        assert_eq!(waiter.next(Some(0)), None);
    }

    #[test]
    fn a_drained_source_comes_back_with_its_next_edge() {
        let mut waiter = Waiter::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        waiter.watch(&read, Source::Signals).unwrap();
        assert_eq!(waiter.next(Some(0)), Some(Source::Signals));
        waiter.drained(Source::Signals);
        assert_eq!(waiter.next(Some(0)), None);
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(waiter.next(Some(1000)), Some(Source::Signals));
    }
}
