//! A device of the original that is taken over: its partitions, its boot script in the real loader, its storage as it leaves
//! it, and our binary on that.
//!
//! Reading order: `original` (the disk as the original leaves it), `walk` (what is seen of a device that is taken over). The
//! emulator, the working copy and the report are those of `tour` and `rollback`.
//! Invariants: the original's own program is not there. Where it would run, a stub kernel stands for it that prints its
//! command line; what it would have written is written from the description of its formats.

pub mod original;
pub mod walk;
