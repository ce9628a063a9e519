//! `pvr image fw-env`.

use crate::{commands::Context, error::Result, files, fw_env::Config};
use boards::{Board, Env};
use clap::{Parser, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Print the configuration with which fw_printenv and fw_setenv find a board's environment
///
/// With an image, for this machine and the image as the device; with --device or without an image, for the device's own
/// paths. `pvr image disk` leaves both forms for the device beside the image.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr image fw-env --board qemu-arm64 --image device.img > here.config
  fw_printenv -c here.config
  pvr image fw-env --board qemu-arm64-sd --format yaml
  pvr image fw-env --board qemu-arm64 --image device.img --device > fw_env.config")]
pub(in crate::commands) struct Args {
    /// The board
    #[arg(long)]
    board: String,
    /// A disk image of that board
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Paths of the device, even with an image
    #[arg(long)]
    device: bool,
    /// The form
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Format {
    /// One line for each copy, as every version reads it
    Lines,
    /// YAML, for libubootenv 0.3.3 and later
    Yaml,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let board = super::board(&args.board)?;
    let config = match &args.image {
        Some(image) if !args.device => Config::of_image(board, image)?,
        image => Config::of_device(board, image.as_deref())?,
    };
    let text = match args.format {
        Format::Lines => config.lines(),
        Format::Yaml => config.yaml()?,
    };
    context.say(json!({"board": board.name, "config": text}), || text.trim_end().into());
    Ok(())
}

/// Writes both forms, for the device, beside its new image.
pub(super) fn write_beside(board: &'static Board, image: &Path) -> Result<()> {
    if !matches!(board.env, Env::Uboot { .. }) {
        return Ok(());
    }
    let config = Config::of_device(board, Some(image))?;
    let beside = |ending: &str| {
        let mut name = image.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        image.with_file_name(name)
    };
    files::write_atomic(&beside(".fw_env.config"), 0o644, config.lines().as_bytes())?;
    match config.yaml() {
        Ok(text) => files::write_atomic(&beside(".fw_env.yaml"), 0o644, text.as_bytes()),
        // Offsets from the end: the line format has them.
        Err(_) => Ok(()),
    }
}
