//! Codecs of loader environments, one file per kind, and the one that a board needs.

pub mod fat;
pub mod grub;
#[cfg(test)]
mod medium;
mod sector;
pub mod tryboot;
pub mod uboot;
pub mod uboot_ab;
pub mod uboot_txt;

use crate::{Board, Env, Medium};
use runtime::{
    fault::Code,
    port::{BootEnv, BootVars, Loaded, Region},
};
use tryboot::Tryboot;
use uboot::{Copies, Layout, Uboot};
use uboot_txt::{Span, UbootTxt};

/// Where the second starts in a region made of two devices: flash partitions or volumes of which each holds one copy; the
/// file with our text and the partition with the loader's mark.
pub const SECOND: u64 = 1 << 40;

/// A board's environment, opened.
pub enum Codec<'a, R: Region> {
    /// U-Boot's.
    Uboot(Uboot<'a, R>),
    /// Raspberry Pi firmware's.
    Tryboot(Tryboot<R>),
    /// The original's.
    UbootTxt(UbootTxt<R>),
}

impl<R: Region> BootEnv for Codec<'_, R> {
    fn load(&mut self) -> Result<Loaded, Code> {
        match self {
            Self::Uboot(env) => env.load(),
            Self::Tryboot(env) => env.load(),
            Self::UbootTxt(env) => env.load(),
        }
    }

    fn store(&mut self, vars: &BootVars) -> Result<(), Code> {
        match self {
            Self::Uboot(env) => env.store(vars),
            Self::Tryboot(env) => env.store(vars),
            Self::UbootTxt(env) => env.store(vars),
        }
    }

    fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code> {
        match self {
            Self::Uboot(env) => env.rebuild(vars),
            Self::Tryboot(env) => env.rebuild(vars),
            Self::UbootTxt(env) => env.rebuild(vars),
        }
    }
}

impl Env {
    /// Its word in documents.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Uboot { medium: Medium::Fat(_), .. } => "uboot in FAT files",
            Self::Uboot { medium: Medium::Raw(_), .. } => "uboot at offsets",
            Self::Uboot { medium: Medium::Mtd(_), .. } => "uboot in flash",
            Self::Uboot { medium: Medium::Ubi { .. }, .. } => "uboot in UBI volumes",
            Self::UbootTxt { .. } => "uboot.txt",
            Self::Grub { .. } => "grub",
            Self::Tryboot { .. } => "tryboot",
            Self::UbootAb { .. } => "uboot-ab",
        }
    }

    /// How many copies it has.
    pub fn copies(&self) -> u8 {
        match self {
            Self::Uboot { medium, .. } | Self::UbootAb { medium, .. } => medium.copies(),
            Self::UbootTxt { .. } | Self::Grub { .. } | Self::Tryboot { .. } => 1,
        }
    }

    /// Bytes of working memory that [`Board::open`] needs.
    pub const fn work(&self) -> usize {
        match self {
            Self::Uboot { size, .. } => 2 * *size as usize,
            Self::UbootTxt { .. } | Self::Grub { .. } | Self::Tryboot { .. } | Self::UbootAb { .. } => 0,
        }
    }
}

impl Medium {
    fn copies(&self) -> u8 {
        let is_single = match self {
            Self::Fat(copies) => matches!(copies, Copies::Single(_)),
            Self::Raw(copies) => matches!(copies, Copies::Single(_)),
            Self::Mtd(copies) => matches!(copies, Copies::Single(_)),
            Self::Ubi { volumes, .. } => matches!(volumes, Copies::Single(_)),
        };
        if is_single { 1 } else { 2 }
    }
}

impl Board {
    /// The board's codec over `region`, with `work` as working memory of at least [`Env::work`] bytes.
    ///
    /// The region is what `disk.env` names: a device, a partition, or a flash ([`Medium`] says how its bytes count).
    /// Of `uboot.txt` the region is the file, and at [`SECOND`] what `disk.env` names. Errors as of [`Board::layout`]; kinds
    /// that no board has are refused (`EnvUnsupported`).
    pub fn open<'a, R: Region>(&self, mut region: R, work: &'a mut [u8]) -> Result<Codec<'a, R>, Code> {
        if let Env::Tryboot { file, partitions } = self.env {
            let at = fat::locate(&mut region, Copies::Single(file), tryboot::SIZE as u32)?.as_slice()[0];
            return Tryboot::new(region, at, partitions, None).map(Codec::Tryboot);
        }
        if let Env::UbootTxt { mark, .. } = self.env {
            let text = Span { at: 0, length: region.length().ok_or(Code::EnvLayout)? };
            // Without a FAT there, or without a file in it, the loader has not made a mark, or never will. One that cannot be
            // read may hold a mark of the next candidate's name, which would then never be tried.
            let mark = match fat::find(&mut Second(&mut region), mark) {
                Err(Code::StorageIo) => return Err(Code::StorageIo),
                found => found.unwrap_or(None),
            };
            let mark = mark.map(|(at, length)| Span { at: SECOND + at, length: length.into() });
            return UbootTxt::new(region, text, mark).map(Codec::UbootTxt);
        }
        let layout = self.layout(&mut region)?;
        Uboot::new(region, layout, self.env_text, work).map(Codec::Uboot)
    }

    /// Where the copies of a U-Boot environment are in `region`.
    ///
    /// `EnvUnsupported` if the board's loader has none; `EnvLayout` if the region does not
    /// hold what the board's description says.
    pub fn layout<R: Region>(&self, region: &mut R) -> Result<Layout, Code> {
        let Env::Uboot { medium, size } = self.env else { return Err(Code::EnvUnsupported) };
        let copies = match medium {
            Medium::Fat(files) => fat::locate(region, files, size)?,
            Medium::Raw(offsets) => apart(offsets.try_map(|offset| raw(region, offset, size))?, size)?,
            Medium::Mtd(flash) => on_devices(flash.try_map(|flash| Ok(flash.offset))?),
            Medium::Ubi { volumes, .. } => on_devices(volumes.try_map(|_| Ok(0))?),
        };
        Ok(Layout { copies, size: size as usize })
    }
}

/// The second device of a region made of two, to be read.
struct Second<'a, R: Region>(&'a mut R);

impl<R: Region> Region for Second<'_, R> {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.0.read_at(SECOND + offset, out)
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), Code> {
        Err(Code::Internal)
    }

    fn sync(&mut self) -> Result<(), Code> {
        Err(Code::Internal)
    }

    fn drop_cache(&mut self) {}
}

/// A byte offset of a region; a negative one counts from its end. The copy must fit into what the region holds.
fn raw<R: Region>(region: &mut R, offset: i64, size: u32) -> Result<u64, Code> {
    let length = region.length();
    let start = match u64::try_from(offset) {
        Ok(start) => start,
        Err(_) => length.and_then(|length| length.checked_add_signed(offset)).ok_or(Code::EnvLayout)?,
    };
    let fits = length.is_none_or(|length| start.saturating_add(u64::from(size)) <= length);
    if fits { Ok(start) } else { Err(Code::EnvLayout) }
}

/// Refuses copies that lie on each other.
fn apart(copies: Copies<u64>, size: u32) -> Result<Copies<u64>, Code> {
    match copies {
        Copies::Redundant([first, second], _) if first.abs_diff(second) < u64::from(size) => Err(Code::EnvLayout),
        copies => Ok(copies),
    }
}

/// Offsets on one device each, as the region of both counts them.
fn on_devices(copies: Copies<u64>) -> Copies<u64> {
    match copies {
        Copies::Single(offset) => Copies::Single(offset),
        Copies::Redundant([first, second], scheme) => Copies::Redundant([first, SECOND + second], scheme),
    }
}

#[cfg(test)]
mod tests;
