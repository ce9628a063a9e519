//! `pvr`: the host tool of Switchback.
//!
//! Start at [`commands`]: one file per verb. Below them: [`repo`] (the folder with `.pvr`), with [`worktree`] (its files),
//! [`checkout`] (writing them), [`pool`] (objects), [`history`]; [`state`] and [`parts`] (pure functions of states),
//! [`archive`] (exports), [`remote`] (devices and hubs); for images [`cpio`], [`modules`], [`squashfs`], [`uimage`],
//! [`disk`]. [`canonical`] writes JSON to the byte, [`files`] writes files whole or not at all, [`error`] says what went
//! wrong and with which code the program ends.

pub mod archive;
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
pub mod http;
pub mod interrupt;
pub mod modules;
pub mod parts;
pub mod pinned;
pub mod pool;
pub mod reference;
pub mod registry;
pub mod remote;
pub mod repo;
pub mod shown;
pub mod side;
pub mod source;
pub mod squashfs;
pub mod state;
pub mod uimage;
pub mod worktree;
