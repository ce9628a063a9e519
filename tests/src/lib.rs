//! The simulator and the end-to-end tests.

pub mod bad_input;
pub mod bench;
pub mod loader_disk;
pub mod sim;
pub mod tour;
