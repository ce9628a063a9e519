//! Replay: every state in which a power cut may leave a real disk, made from a recording of its writes, and held to the
//! laws by the code that a device starts with.
//!
//! Reading order: `recording` (what is replayed), `log` (the writes), `states` (what a cut may leave of them), `laws` and
//! `at_rest` (what must hold), `checker` (how a state is looked at; `rest`: until the device rests), `run` (a recording, gone
//! through). Below that: `layers` and `shown` make a state a disk at the cost of what differs; `ext4` names contents; `volume`
//! and `loader` are the two views (`original`: the loader of a device that was taken over);
//! `reports` is what was promised (`before`: by the disk before), `rows` and `judge` what must be seen; `crew` are the
//! processes, `mounts` what they need of the machine; `book` is the table that the book shows.

pub mod at_rest;
pub mod before;
pub mod book;
pub mod checker;
pub mod crew;
pub mod ext4;
pub mod judge;
pub mod laws;
pub mod layers;
pub mod loader;
pub mod log;
pub mod mounts;
pub mod original;
pub mod recording;
pub mod reports;
pub mod rest;
pub mod rows;
pub mod run;
pub mod shown;
pub mod states;
pub mod volume;
