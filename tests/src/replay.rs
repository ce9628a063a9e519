//! Replay: every state in which a power cut may leave a real disk, made from a recording of its writes, and held to the
//! laws by the code that a device starts with.
//!
//! Reading order: `recording` (what is replayed), `log` (the writes).

pub mod log;
pub mod recording;
