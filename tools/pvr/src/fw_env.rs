//! Configurations with which others' tools (`fw_printenv`, `fw_setenv`) find a board's U-Boot environment: the line
//! format that all of them read, and the YAML of newer libubootenv.
//!
//! Either for the device itself, or for this machine with the disk image as the device. The tools infer from the medium
//! what the flag byte means, and a plain file is none that they know: for flash with the boolean scheme there is no
//! configuration on this machine, because they would put the older copy in force.

use crate::{
    disk::{self, FileRegion},
    error::{Error, Result},
};
use boards::{
    Board, Env, Medium,
    env::uboot::{Copies, Scheme},
};
use std::{fmt::Write, path::Path};

/// A file that writers on one machine agree on.
const LOCK: &str = "/var/lock/fw_printenv.lock";

/// Where one copy is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    /// Device or file.
    path: String,
    /// Bytes from its start; negative ones from its end.
    offset: i64,
    /// Size of an erase block, of flash.
    erase: Option<u32>,
}

/// A board's environment as the tools are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    board: &'static str,
    places: Vec<Place>,
    /// `CONFIG_ENV_SIZE`.
    size: u32,
}

impl Config {
    /// With the paths of the device. The image is only looked into where the description does not say enough: for the
    /// places of files in a FAT partition.
    pub fn of_device(board: &'static Board, image: Option<&Path>) -> Result<Self> {
        let (medium, size) = uboot(board)?;
        let block = |offset| Place { path: board.disk.env.device.into(), offset, erase: None };
        let places = match medium {
            Medium::Raw(offsets) => offsets.as_slice().iter().map(|offset| block(*offset)).collect(),
            Medium::Fat(_) => {
                let image = image.ok_or_else(|| {
                    Error::usage(format!("where the files of {} are is decided when its image is made", board.name))
                        .hint("name the image: --image device.img")
                })?;
                located(board, image)?.1.into_iter().map(block).collect()
            }
            Medium::Mtd(flash) => flash
                .as_slice()
                .iter()
                .map(|flash| Place { path: flash.device.into(), offset: flash.offset as i64, erase: Some(flash.erase) })
                .collect(),
            Medium::Ubi { device, volumes } => volumes
                .as_slice()
                .iter()
                .map(|volume| Place { path: format!("{device}:{volume}"), offset: 0, erase: None })
                .collect(),
        };
        Ok(Self { board: board.name, places, size })
    }

    /// With the image as the device.
    pub fn of_image(board: &'static Board, image: &Path) -> Result<Self> {
        let (medium, size) = uboot(board)?;
        let path = std::path::absolute(image).ok().and_then(|path| path.to_str().map(str::to_owned));
        let path = path
            .filter(|path| !path.contains(char::is_whitespace))
            .ok_or_else(|| Error::usage(format!("{}: the tools split a path at its blanks", image.display())))?;
        let (start, offsets) = match medium {
            Medium::Fat(_) | Medium::Raw(_) => located(board, image)?,
            Medium::Mtd(Copies::Redundant(_, Scheme::Boolean)) => {
                return Err(Error::usage(format!(
                    "the environment of {} is in flash: not on this machine",
                    board.name
                ))
                .hint("the tools take a file for a medium that counts its copies, and would pick the older one"));
            }
            Medium::Mtd(flash) => (0, flash.as_slice().iter().map(|flash| flash.offset as i64).collect()),
            Medium::Ubi { .. } => {
                return Err(Error::usage(format!(
                    "the environment of {} is in UBI volumes: not in an image",
                    board.name
                )));
            }
        };
        let places =
            offsets.into_iter().map(|offset| Place { path: path.clone(), offset: start + offset, erase: None });
        Ok(Self { board: board.name, places: places.collect(), size })
    }

    /// `fw_env.config`: a line for each copy.
    pub fn lines(&self) -> String {
        let mut text = format!("# U-Boot's environment of {}: device, offset, size, erase block, blocks\n", self.board);
        for Place { path, offset, erase } in &self.places {
            let sign = if *offset < 0 { "-" } else { "" };
            let _ = write!(text, "{path} {sign}{:#x} {:#x}", offset.unsigned_abs(), self.size);
            if let Some(erase) = erase {
                let _ = write!(text, " {erase:#x} {:#x}", self.size.div_ceil(*erase));
            }
            text.push('\n');
        }
        text
    }

    /// The YAML of libubootenv 0.3.3 and later. It knows no offsets from the end.
    pub fn yaml(&self) -> Result<String> {
        if self.places.iter().any(|place| place.offset < 0) {
            return Err(Error::usage("the YAML form has no offsets from the end of a device")
                .hint("use the line format, or name the image: --image device.img"));
        }
        let mut text = format!("# U-Boot's environment of {}\nuboot:\n", self.board);
        let _ = writeln!(text, "  size: {:#x}\n  lockfile: {LOCK}\n  devices:", self.size);
        for Place { path, offset, erase } in &self.places {
            let _ = writeln!(text, "    - path: {path}\n      offset: {offset:#x}");
            if let Some(erase) = erase {
                let _ = writeln!(text, "      sectorsize: {erase:#x}");
            }
        }
        Ok(text)
    }
}

fn uboot(board: &Board) -> Result<(Medium, u32)> {
    match board.env {
        Env::Uboot { medium, size } => Ok((medium, size)),
        _ => Err(Error::usage(format!("the loader of {} has no U-Boot environment", board.name)).hint(board.about)),
    }
}

/// Where the environment's partition starts in the image, and where the copies are in that.
fn located(board: &Board, image: &Path) -> Result<(i64, Vec<i64>)> {
    let part = disk::partition(image, board.disk.env.number)?;
    let mut region = FileRegion::part(image, &part)?;
    let layout = board.layout(&mut region).map_err(|code| {
        Error::input(format!("{code}: {} is no image of {}: {}", image.display(), board.name, code.text()))
    })?;
    Ok((part.start as i64, layout.offsets().iter().map(|offset| *offset as i64).collect()))
}

#[cfg(test)]
mod tests;
