//! Two slots with a boot image each, for loaders that read no file system: 4,096 bytes of header, `fit_rev=<revision>`
//! and zeros, then the image. The loader boots the slot whose header names the revision that it wants; which one that
//! is stands in its environment (`uboot`). So a slot is a boot asset, and the environment beside it the decision.
//!
//! Invariants. A header is there only in front of the whole image that it names: an install voids the header, writes
//! the image, makes it durable, compares it with its source as the medium has it, and only then writes the header. The
//! header's first byte comes last, by itself: without it the bytes are no header, however many of them are there. A
//! slot that names a revision that is to be kept is never touched, not even if its image would stay the same. Names are
//! compared whole.
//!
//! Fault model. Writes may be lost and torn anywhere until the sync behind them. Flash is erased in blocks and then
//! written once, each byte from 0xFF downwards; an erase that is cut leaves anything in that block, so the header is
//! written to zeros, which needs no erase, before its block is erased. Not survived: a medium that damages the other
//! slot.
//!
//! Order for an update: `install`, then the environment is armed. Power that fails in between leaves a slot that
//! nothing asks for. A committed revision's slot is the one that is kept at the next update, so the two take turns.
//!
//! What it does not do: bad blocks (a NAND needs UBI below this), and what the image is.

use super::sector::SECTOR;
use crate::Guarantee;
use runtime::{fault::Code, id::RevName, port::Region};

/// Bytes before the image.
pub const HEADER: usize = 4096;
/// What the slots add to the environment beside them, which states the rest: who counts, and to how many.
pub const GUARANTEE: Guarantee =
    Guarantee { torn_write: true, hang_before_linux: false, hang_after_linux: true, tries: 0 };

/// What a header starts with.
const KEY: &[u8] = b"fit_rev=";
/// Bytes copied and compared at a time.
const CHUNK: usize = 4096;

/// A slot's medium.
pub trait Slot: Region {
    /// Bytes of a block that is erased at once; 1 where nothing has to be.
    fn erase_size(&self) -> u64;
    /// Erases the blocks from `at` on, both multiples of the block's size: all bytes 0xFF, or unchanged where nothing
    /// has to be erased. Not durable until a sync.
    fn erase(&mut self, at: u64, length: u64) -> Result<(), Code>;
}

/// Both slots.
pub struct Slots<S: Slot> {
    slots: [S; 2],
    /// Bytes of a slot.
    size: u64,
}

/// The revision that a header names. Anything but the name and zeros is no header.
fn parse(header: &[u8; HEADER]) -> Option<RevName> {
    let value = header.strip_prefix(KEY)?;
    let end = value.iter().position(|byte| *byte == 0)?;
    let (name, rest) = value.split_at(end);
    let name = RevName::parse(core::str::from_utf8(name).ok()?).ok()?;
    rest.iter().all(|byte| *byte == 0).then_some(name)
}

/// The header of a revision.
pub fn header(revision: &RevName) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let name = revision.as_str().as_bytes();
    header[..KEY.len()].copy_from_slice(KEY);
    header[KEY.len()..][..name.len()].copy_from_slice(name);
    header
}

impl<S: Slot> Slots<S> {
    /// Slots of `size` bytes each. `EnvLayout` if there is no room behind a header, or blocks do not fit.
    pub fn new(slots: [S; 2], size: u64) -> Result<Self, Code> {
        let fits = |slot: &S| slot.erase_size() > 0 && size.is_multiple_of(slot.erase_size());
        if size <= HEADER as u64 || !slots.iter().all(fits) {
            return Err(Code::EnvLayout);
        }
        Ok(Self { slots, size })
    }

    /// The media, for what else is done with them.
    pub fn into_slots(self) -> [S; 2] {
        self.slots
    }

    /// The revisions that the slots hold; of a slot the error if it cannot be read.
    pub fn holds(&mut self) -> [Result<Option<RevName>, Code>; 2] {
        self.slots.each_mut().map(|slot| {
            let mut header = [0; HEADER];
            slot.read_at(0, &mut header).map(|()| parse(&header))
        })
    }

    /// The slot that may be written: one that holds none of `keep`, or the second one where both hold the same
    /// revision, as a factory leaves them. `EnvInvalid` if neither holds a revision that is to be kept: then which one
    /// boots is not known, and none is touched. `RevisionInUse` if both do, `StorageIo` if one does and the other
    /// cannot be read.
    pub fn free(&mut self, keep: &[RevName]) -> Result<usize, Code> {
        let kept = |held: &Option<RevName>| held.is_some_and(|held| keep.contains(&held));
        match self.holds() {
            [Ok(first), Ok(second)] => match [kept(&first), kept(&second)] {
                [true, true] if first != second => Err(Code::RevisionInUse),
                [true, _] => Ok(1),
                [false, true] => Ok(0),
                [false, false] => Err(Code::EnvInvalid),
            },
            // The one that cannot be read may be the one that is to be kept.
            [Err(_), Ok(second)] if !kept(&second) => Ok(1),
            [Ok(first), Err(_)] if !kept(&first) => Ok(0),
            _ => Err(Code::StorageIo),
        }
    }

    /// Puts `revision`, whose image is the first `length` bytes of `image`, into the free slot; which one that is.
    /// `keep`: what the environment names and what runs, the candidate aside.
    ///
    /// `EnvFull` if the image is larger than a slot. After an error the slot names nothing, or what it held before.
    pub fn install(
        &mut self,
        revision: &RevName,
        keep: &[RevName],
        image: &mut impl Region,
        length: u64,
    ) -> Result<usize, Code> {
        if length > self.size - HEADER as u64 {
            return Err(Code::EnvFull);
        }
        let index = self.free(keep)?;
        let end = HEADER as u64 + length;
        let slot = &mut self.slots[index];
        void(slot)?;
        let erased = end.next_multiple_of(slot.erase_size()).min(self.size);
        slot.erase(0, erased).map_err(|_| Code::EnvStoreFailed)?;
        sync(slot)?;
        copy(slot, image, length)?;
        compare(slot, image, length)?;
        name(slot, revision)?;
        Ok(index)
    }
}

fn sync<S: Slot>(slot: &mut S) -> Result<(), Code> {
    slot.sync().map_err(|_| Code::EnvStoreFailed)?;
    slot.drop_cache();
    Ok(())
}

fn write<S: Slot>(slot: &mut S, at: u64, data: &[u8]) -> Result<(), Code> {
    slot.write_at(at, data).map_err(|_| Code::EnvStoreFailed)
}

/// Takes the header away, before anything behind it changes.
fn void<S: Slot>(slot: &mut S) -> Result<(), Code> {
    write(slot, 0, &[0; SECTOR])?;
    sync(slot)?;
    let mut back = [0xff; SECTOR];
    slot.read_at(0, &mut back).map_err(|_| Code::EnvStoreFailed)?;
    if back == [0; SECTOR] { Ok(()) } else { Err(Code::EnvStoreFailed) }
}

/// Calls `each` with every piece of the image, and its place in the slot.
fn pieces(
    image: &mut impl Region,
    length: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Code>,
) -> Result<(), Code> {
    let mut chunk = [0; CHUNK];
    let mut at = 0;
    while at < length {
        let piece = &mut chunk[..(length - at).min(CHUNK as u64) as usize];
        image.read_at(at, piece)?;
        each(HEADER as u64 + at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn copy<S: Slot>(slot: &mut S, image: &mut impl Region, length: u64) -> Result<(), Code> {
    pieces(image, length, |at, piece| write(slot, at, piece))?;
    sync(slot)
}

/// Whether the medium has the image.
fn compare<S: Slot>(slot: &mut S, image: &mut impl Region, length: u64) -> Result<(), Code> {
    let mut back = [0; CHUNK];
    pieces(image, length, |at, piece| {
        let back = &mut back[..piece.len()];
        slot.read_at(at, back).map_err(|_| Code::EnvStoreFailed)?;
        if back == piece { Ok(()) } else { Err(Code::EnvStoreFailed) }
    })
}

/// Writes the header: all but its first byte, then that one.
fn name<S: Slot>(slot: &mut S, revision: &RevName) -> Result<(), Code> {
    let header = header(revision);
    write(slot, 1, &header[1..])?;
    sync(slot)?;
    write(slot, 0, &header[..1])?;
    sync(slot)?;
    let mut back = [0; HEADER];
    slot.read_at(0, &mut back).map_err(|_| Code::EnvStoreFailed)?;
    if back == header { Ok(()) } else { Err(Code::EnvStoreFailed) }
}

#[cfg(test)]
mod tests;
