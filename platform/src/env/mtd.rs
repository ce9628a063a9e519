//! One copy of the environment in NOR flash, through the kernel's MTD device.
//!
//! Programming only clears bits; only an erase of a whole block sets them. So a copy is written by erasing its blocks
//! and programming it, and its flag byte alone (boolean scheme) is cleared in place. A block is erased for a copy even
//! if it reads as erased: one whose erase was cut short may read so for now.
//!
//! Invariants: only the blocks of this copy are touched; what shares its last block is programmed back. Fault model: a
//! cut leaves any prefix of that sequence, with any bits of the unit at hand; the copy's checksum finds it. What shares
//! the block is lost then too, so nothing that matters belongs there. Flash that cannot clear single bytes later (NAND)
//! is refused: there the environment is in UBI volumes.

use super::Holds;
use crate::sys;
use log::warn;
use runtime::fault::Code;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
};

/// A flash chip, or a partition of one.
pub trait Chip {
    /// Size of an erase block; a power of two.
    fn block(&self) -> usize;
    /// Bytes of the whole.
    fn size(&self) -> u64;
    /// Fills `out` from `at`.
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Errno>;
    /// Erases the block at `at`.
    fn erase(&mut self, at: u64) -> Result<(), Errno>;
    /// Clears bits: what is at `at` becomes what it was and `data`.
    fn program(&mut self, at: u64, data: &[u8]) -> Result<(), Errno>;
}

/// The copy's place on a chip.
pub struct Nor<C> {
    chip: C,
    /// Where the copy starts.
    start: u64,
    /// What shares the copy's last block with it, kept while that block is erased.
    rest: Box<[u8]>,
}

impl<C: Chip> Nor<C> {
    /// A copy of `size` bytes at `start`. `EnvLayout` unless it starts a block and lies on the chip.
    pub fn new(chip: C, start: u64, size: usize) -> Result<Self, Code> {
        let block = chip.block();
        let whole = size.next_multiple_of(block.max(1));
        let fits = start.saturating_add(whole as u64) <= chip.size();
        if !block.is_power_of_two() || !start.is_multiple_of(block as u64) || !fits {
            warn!("environment: {size} bytes at {start:#x} are not whole blocks of {block} bytes");
            return Err(Code::EnvLayout);
        }
        Ok(Self { chip, start, rest: vec![0; whole - size].into_boxed_slice() })
    }

    fn replace(&mut self, data: &[u8]) -> Result<(), Errno> {
        let block = self.chip.block();
        let end = self.start + data.len() as u64;
        if !(data.len() + self.rest.len()).is_multiple_of(block) {
            return Err(Errno::INVAL);
        }
        if !self.rest.is_empty() {
            self.chip.read(end, &mut self.rest)?;
        }
        for index in 0..data.len().div_ceil(block) {
            self.chip.erase(self.start + (index * block) as u64)?;
        }
        self.chip.program(self.start, data)?;
        if self.rest.iter().any(|byte| *byte != 0xff) {
            self.chip.program(end, &self.rest)?;
        }
        Ok(())
    }
}

impl<C: Chip> Holds for Nor<C> {
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Code> {
        self.chip.read(at, out).map_err(|_| Code::StorageIo)
    }

    /// Writes the whole copy, or clears bits inside it.
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Code> {
        let done = if at == self.start { self.replace(data) } else { self.chip.program(at, data) };
        done.map_err(|_| Code::StorageIo)
    }
}

/// The kernel's MTD device.
pub struct MtdChip {
    fd: OwnedFd,
    size: u64,
    block: usize,
}

impl MtdChip {
    /// Opens `/dev/mtdN`. `EnvLayout` if it is not flash that can be programmed byte by byte.
    pub fn open(path: &str) -> Result<Self, Code> {
        let fail = |error: Errno| {
            warn!("{path}: {error}");
            Code::StorageIo
        };
        let flags = OFlags::RDWR | OFlags::SYNC | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(fail)?;
        let info = sys::mtd_info(&fd).map_err(fail)?;
        if info.write_size != 1 {
            warn!("{path}: flash that is written {} bytes at a time; use UBI volumes", info.write_size);
            return Err(Code::EnvLayout);
        }
        Ok(Self { fd, size: u64::from(info.size), block: info.erase_size as usize })
    }
}

impl Chip for MtdChip {
    fn block(&self) -> usize {
        self.block
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        whole(out.len(), |done| rustix::io::pread(&self.fd, &mut out[done..], at + done as u64))
    }

    fn erase(&mut self, at: u64) -> Result<(), Errno> {
        let start = u32::try_from(at).map_err(|_| Errno::INVAL)?;
        // Some chips power up locked; most know no locks and refuse.
        let _ = sys::mtd_unlock(&self.fd, start, self.block as u32);
        sys::mtd_erase(&self.fd, start, self.block as u32)
    }

    fn program(&mut self, at: u64, data: &[u8]) -> Result<(), Errno> {
        whole(data.len(), |done| rustix::io::pwrite(&self.fd, &data[done..], at + done as u64))
    }
}

/// Calls `each` with what is done until all `length` bytes are.
pub(super) fn whole(length: usize, mut each: impl FnMut(usize) -> Result<usize, Errno>) -> Result<(), Errno> {
    let mut done = 0;
    while done < length {
        match each(done) {
            Ok(0) => return Err(Errno::NXIO),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
