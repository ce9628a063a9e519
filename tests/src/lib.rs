//! A second world around the same device.
//!
//! The device decides in `runtime` and acts through narrow doors (`runtime::port`, `runtime::turn::World`). Its first
//! world is Linux, in `platform`. The second one is here: `sim` implements the same doors over media that lose, tear and
//! refuse, with a loader that is the model of the boot script, and runs the real machine, the real procedures of
//! `runtime::store` and the real environment codec of `boards` through power cuts at every point. Observers hold it to
//! the laws; mutants show that they would notice. Nothing depends on this crate.
//!
//! The rest drives the real thing: `tour` the emulated device through the host's and the device's own tools, `loader_disk`
//! the real boot loader, `record` and `replay` the writes of its disk, `developer` the commands of the book's developer page,
//! `bad_input` what clients and containers do wrong, `bench` the measured rows; `mutation` judges what cargo-mutants left alive.

pub mod bad_input;
pub mod bench;
pub mod developer;
pub mod evidence_rows;
pub mod loader_disk;
pub mod mutation;
pub mod record;
pub mod replay;
pub mod rollback;
pub mod sim;
pub mod tour;
