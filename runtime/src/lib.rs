//! Switchback: what the device decides. No operating system, no allocation, no clock, no `unsafe`.
//!
//! Two ways of writing, and no third. What waits for a process, the network, a disk under load or time is a state
//! machine: an event goes in, actions come out, time is an argument. What is a durable sequence is a straight-line
//! procedure over a narrow door, its order readable in one function. Both run as they are on the device and in the
//! simulator.
//!
//! | read | for |
//! |---|---|
//! | [`id`], [`limits`], [`fault`] | the words: names that are valid by construction, every bound, every code |
//! | [`port`] | the doors: disk, raw bytes, the loader's environment |
//! | [`json`], [`state`], [`lxc`], [`http`], [`archive`] | the formats: total, bounded parsers of what comes from outside |
//! | [`boot`], [`journal`], [`store`] | durable: which revision boots and why, how revisions come and go |
//! | [`machine`], [`turn`] | what happens to the device: every event and action, and the engine |
//! | [`container`], [`order`], [`update`], [`intake`] | the machine's parts, a table each |
//! | [`admit`], [`change`] | whether a revision is taken, and what it changes: asked by the device and by `pvr plan` |
//! | [`protocol`] | the steps of all durable operations, as a table |
//! | [`control`], [`progress`] | what clients ask, and what they are told |
//!
//! The laws, each with its observer in the simulator:
//! 1. The environment names only revisions that are complete, durable and visible to the loader.
//! 2. The committed revision changes only to one that ran and met its goals.
//! 3. A candidate is tried a bounded number of times, whoever counts.
//! 4. What was reported as done survives any power cut.
//! 5. At every instant some complete revision boots.
//!
//! And of the hands in `platform`: 6. nobody can make PID 1 wait; 7. PID 1 allocates nothing after start-up;
//! 8. every exit of a child is accounted for; 9. bytes from outside are parsed by a process without privilege, or here.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![allow(clippy::large_enum_variant)] // there is no heap to box a variant on; values lie in tables

pub mod admit;
pub mod archive;
pub mod boot;
pub mod change;
pub mod container;
pub mod control;
pub mod dns;
pub mod fault;
pub mod grow;
pub mod http;
pub mod id;
pub mod intake;
pub mod journal;
pub mod json;
pub mod limits;
pub mod lxc;
pub mod machine;
pub mod order;
pub mod port;
pub mod progress;
pub mod protocol;
pub mod state;
pub mod store;
pub mod turn;
pub mod update;
