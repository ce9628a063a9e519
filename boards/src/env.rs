//! Codecs of loader environments, one file per kind.

pub mod fat;
pub mod uboot;

use crate::{Board, Env};
use runtime::{fault::Code, port::Region};

impl Board {
    /// Where the environment copies are in `region` (the board's `disk.env` device or partition).
    ///
    /// `EnvUnsupported` if the board's kind has no codec yet, `EnvLayout` if the partition does not hold what
    /// the board's description says.
    pub fn layout<R: Region>(&self, region: &mut R) -> Result<uboot::Layout, Code> {
        match self.env {
            Env::UbootRaw { offsets, size, scheme } => Ok(uboot::Layout { offsets, size: size as usize, scheme }),
            Env::UbootFat { files, size, scheme } => {
                let offsets = fat::locate(region, files, size)?;
                Ok(uboot::Layout { offsets, size: size as usize, scheme })
            }
            Env::Tryboot { .. } => Err(Code::EnvUnsupported),
        }
    }
}
