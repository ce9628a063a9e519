//! Bad input, for real: a device in the emulator is sent what nobody should send, from the endpoint and from inside
//! its containers, and each time it answers with its stable code and goes on as if nothing had been.
//!
//! Reading order: `steps` (what is done), `ground` (what must not change), `states`, `requests`, `containers`, `memory` and `sticks`
//! (the cases), `fixture` (the devices), `control` (the way in). The emulator, the disk and the report are the tour's.
//! Invariants: every case names its code; after every case the healthy containers have the process and start time
//! that they had, and `GET /status` answers; after a refusal environment and journal hold the same bytes too.
//! Does not: judge times; try what the tour tries (power cuts, dead kernels).

pub mod containers;
pub mod control;
pub mod fixture;
pub mod ground;
pub mod memory;
pub mod requests;
pub mod states;
pub mod steps;
pub mod sticks;

pub use steps::walk;
