//! `pvr image`: makes what a device boots from.

mod bsp;
mod disk;
mod fw_env;
mod rootfs;

use crate::{commands::Context, error::Result};
use clap::Subcommand;

/// What to make.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Rootfs(rootfs::Args),
    Bsp(bsp::Args),
    Disk(disk::Args),
    FwEnv(fw_env::Args),
}

/// Runs one of them.
pub(super) fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Rootfs(args) => rootfs::run(context, args),
        Command::Bsp(args) => bsp::run(context, args),
        Command::Disk(args) => disk::run(context, args),
        Command::FwEnv(args) => fw_env::run(context, args),
    }
}

/// The board with this name, or the list of those that there are.
fn board(name: &str) -> Result<&'static boards::Board> {
    boards::find(name).ok_or_else(|| {
        let known: Vec<_> = boards::BOARDS.iter().map(|b| b.name).collect();
        crate::error::Error::usage(format!("unknown board {name}")).hint(format!("known are: {}", known.join(", ")))
    })
}
