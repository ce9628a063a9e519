//! A second world around the same device.
//!
//! The device decides in `runtime` and acts through narrow doors (`runtime::port`, `runtime::turn::World`). Its first
//! world is Linux, in `platform`. The second one is in the crate `simulator` beside this one: the same doors over media that
//! lose, tear and refuse. Nothing of the device depends on either.
//!
//! Here the real thing is driven: `tour` the emulated device through the host's and the device's own tools, `loader_disk`
//! the real boot loader, `record` and `replay` the writes of its disk, `developer` the commands of the book's developer page,
//! `bad_input` what clients and containers do wrong, `broken` what a damaged disk leads to, `older` another release on the same
//! disk, `takeover` a device of the original, `bench` the measured rows; `mutation` judges what cargo-mutants left alive;
//! `stages` says what shows that each stage survives a cut.

pub mod bad_input;
pub mod bench;
pub mod broken;
pub mod developer;
pub mod loader_disk;
pub mod mutation;
pub mod older;
pub mod record;
pub mod replay;
pub mod rollback;
pub mod stages;
pub mod takeover;
pub mod tour;
