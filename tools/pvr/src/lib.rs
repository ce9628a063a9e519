//! `pvr`: the host tool of Switchback.
//!
//! Start at [`commands`]: one file per verb. Below it: [`repo`] (the folder with `.pvr`), [`canonical`] (JSON as it
//! [`cpio`], [`modules`], [`uimage`], [`disk`]. [`files`] writes files whole or not at all, [`error`] says what went wrong and
//! with which code the program ends.

pub mod canonical;
pub mod checkout;
pub mod commands;
pub mod cpio;
pub mod device;
pub mod disk;
pub mod error;
pub mod files;
pub mod fw_env;
pub mod hashes;
pub mod history;
pub mod modules;
pub mod parts;
pub mod pool;
pub mod remote;
pub mod repo;
pub mod squashfs;
pub mod state;
pub mod uimage;
pub mod worktree;
