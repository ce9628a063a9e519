//! U-Boot's environment: all variables in two copies, of which the loader uses the newer valid one, or in a single one.
//!
//! A copy is `crc32 (LE) | flags | name=value NUL name=value NUL … NUL | padding`, `size` bytes in all; the checksum
//! covers everything behind the flags, padding included. A single copy has no flags. Reference: crash-consistency 1.1.
//!
//! Invariants. A store writes only the copy that is *not* in use, all variables in one write, then one sync, then reads
//! it back from the medium; the copy in use is not touched. Variables that are not ours (the boot script) keep their
//! bytes and their order. Every decoder is total: any bytes give a result.
//!
//! Fault model. A write may be torn anywhere: the checksum then rejects the copy, and the other one is the environment
//! of before. A failed or lost write is found by the read-back; the next store then writes the same copy again, because
//! after a failed sync a cache may show it whole and newer while the medium still has the other one in use. A copy that
//! cannot be read is never written over: it may be the one in use, which the loader can read again. What is not survived: a device that damages the copy that was not written (copies belong in different erase groups, and in
//! different pages, because the page cache of the device below a `Region` writes whole ones), and a flush that lies.
//!
//! With the boolean scheme (NOR flash) the store has a second step: the flag byte of the old copy is cleared. A power
//! cut in between leaves either environment in force, each of them whole.
//!
//! A **single** copy is weaker: its store has the same steps, but overwrites what is in force. Power that fails in it
//! leaves no valid environment (`EnvInvalid`): the loader falls back to its own, and `rebuild` makes a new one from what
//! the journal says. Variables that only that copy held are lost then.

mod layout;
mod text;

pub use layout::{Copies, HEADER, Layout, Scheme, flags_of, select};
pub use text::{Entries, initial, split, text_value, value};

use layout::{ACTIVE, OBSOLETE};
use runtime::{
    fault::Code,
    limits::ENV_SIZE_MAX,
    port::{BootEnv, BootVars, Loaded, Region},
    protocol::Row,
};
use text::{compose, decision, number, revision, seal};

/// Smallest area that makes sense: one sector.
const SIZE_MIN: usize = 512;
/// Times that a copy is read before it counts as unreadable.
const READS_MAX: usize = 3;

/// The environment in a region.
pub struct Uboot<'a, R: Region> {
    region: R,
    layout: Layout,
    /// Room for one copy each. Nothing in here is trusted from one call to the next.
    rooms: [&'a mut [u8]; 2],
    /// The copy whose last write was not seen to be on the medium.
    unsure: Option<usize>,
    /// What a lost environment is rebuilt from.
    text: &'a str,
}

impl<'a, R: Region> Uboot<'a, R> {
    /// Over `region`, with `work` as working memory of at least twice the layout's size; `text` is the board's stored
    /// environment text. `EnvLayout` if size or memory do not fit.
    pub fn new(region: R, layout: Layout, text: &'a str, work: &'a mut [u8]) -> Result<Self, Code> {
        if !(SIZE_MIN..=ENV_SIZE_MAX).contains(&layout.size) || work.len() < 2 * layout.size {
            return Err(Code::EnvLayout);
        }
        let (first, rest) = work.split_at_mut(layout.size);
        Ok(Self { region, layout, rooms: [first, &mut rest[..layout.size]], unsure: None, text })
    }

    /// The region, for what else is done with it.
    pub fn into_region(self) -> R {
        self.region
    }

    /// Where the copies are.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Reads the copies; of each the flags if it is valid, or the error if it cannot be read. That is tried more than
    /// once: a copy that is unreadable for a moment only is the one in use all the same.
    fn read_each(&mut self) -> [Result<Option<u8>, Code>; 2] {
        let mut flags = [Ok(None); 2];
        for (index, offset) in self.layout.offsets().iter().enumerate() {
            let room = &mut *self.rooms[index];
            let mut read = || self.region.read_at(*offset, room);
            let done = (1..READS_MAX).find_map(|_| read().ok()).map_or_else(&mut read, Ok);
            flags[index] = done.map(|()| self.layout.flags(room));
        }
        flags
    }

    /// The flags with which the next copy is newer than `active`.
    fn next_flags(&self, flags: [Option<u8>; 2], active: Option<usize>) -> Option<u8> {
        match self.layout.copies {
            Copies::Single(_) => None,
            Copies::Redundant(_, Scheme::Incremental) => {
                Some(active.and_then(|active| flags[active]).unwrap_or(0).wrapping_add(1))
            }
            Copies::Redundant(_, Scheme::Boolean) => Some(ACTIVE),
        }
    }

    /// Puts the copy composed in `rooms[target]` in force.
    fn put(&mut self, target: usize, active: Option<usize>) -> Result<(), Code> {
        self.write(target)?;
        match (self.layout.copies, active) {
            (Copies::Redundant(offsets, Scheme::Boolean), Some(active)) => self.retire(offsets[active]),
            _ => Ok(()),
        }
    }

    /// The copy in use, given the flags of the valid ones. One that is not known to be on the medium is not it, however
    /// new it looks, while the other one is valid.
    fn active(&self, flags: [Option<u8>; 2]) -> Option<usize> {
        match self.unsure {
            Some(unsure) if flags[1 - unsure].is_some() => Some(1 - unsure),
            _ => self.layout.select(flags),
        }
    }

    /// Writes the copy composed in `rooms[target]`, makes it durable, and compares what the medium then holds.
    fn write(&mut self, target: usize) -> Result<(), Code> {
        let offset = match self.layout.copies {
            Copies::Single(offset) => offset,
            Copies::Redundant(offsets, _) => {
                self.unsure = Some(target);
                offsets[target]
            }
        };
        let (first, second) = self.rooms.split_at_mut(1);
        let (new, back) = if target == 0 { (&first[0], &mut second[0]) } else { (&second[0], &mut first[0]) };
        self.region.step(Row::WriteCopy);
        self.region.write_at(offset, new).map_err(|_| Code::EnvStoreFailed)?;
        self.region.step(Row::SyncCopy);
        self.region.sync().map_err(|_| Code::EnvStoreFailed)?;
        self.region.step(Row::DropCache);
        self.region.drop_cache();
        self.region.step(Row::ReadBack);
        self.region.read_at(offset, back).map_err(|_| Code::EnvStoreFailed)?;
        if **new != **back {
            return Err(Code::EnvStoreFailed);
        }
        self.unsure = None;
        Ok(())
    }

    /// Boolean scheme: takes the old copy out of use.
    fn retire(&mut self, old: u64) -> Result<(), Code> {
        let at = old + (HEADER - 1) as u64;
        let mut flags = [OBSOLETE];
        self.region.step(Row::RetireCopy);
        self.region.write_at(at, &flags).map_err(|_| Code::EnvStoreFailed)?;
        self.region.sync().map_err(|_| Code::EnvStoreFailed)?;
        self.region.drop_cache();
        self.region.read_at(at, &mut flags).map_err(|_| Code::EnvStoreFailed)?;
        if flags == [OBSOLETE] { Ok(()) } else { Err(Code::EnvStoreFailed) }
    }
}

impl<R: Region> BootEnv for Uboot<'_, R> {
    fn load(&mut self) -> Result<Loaded, Code> {
        let read = self.read_each();
        let complete = read.iter().all(|copy| copy.is_ok());
        let flags = read.map(|copy| copy.ok().flatten());
        let none = if complete { Code::EnvInvalid } else { Code::StorageIo };
        let active = self.layout.select(flags).ok_or(none)?;
        let data = |index: usize| &self.rooms[index][self.layout.header()..];
        let mut named = [None; 6];
        for index in (0..2).filter(|index| flags[*index].is_some()) {
            for (slot, name) in ["pv_rev", "pv_try", "pv_prev"].into_iter().enumerate() {
                named[3 * index + slot] = revision(data(index), name);
            }
        }
        let vars = decision(data(active)).ok_or(Code::EnvInvalid)?;
        let damaged = flags.iter().take(self.layout.offsets().len()).any(Option::is_none);
        let bootcount = number(data(active), "bootcount");
        Ok(Loaded { vars, bootcount, named, complete, active: active as u8 + 1, damaged })
    }

    fn store(&mut self, vars: &BootVars) -> Result<(), Code> {
        self.region.step(Row::ReadCopies);
        let read = self.read_each();
        let flags = read.map(|copy| copy.ok().flatten());
        let active = self.active(flags).ok_or(Code::EnvInvalid)?;
        let (target, next, header) = (1 - active, self.next_flags(flags, Some(active)), self.layout.header());
        // What cannot be read may be the copy in force: nothing is written over it.
        read[target].map_err(|_| Code::EnvStoreFailed)?;
        let (first, second) = self.rooms.split_at_mut(1);
        let (old, new) = if active == 0 { (&first[0], &mut second[0]) } else { (&second[0], &mut first[0]) };
        compose(&old[header..], vars, &mut new[header..])?;
        seal(new, next);
        self.put(target, Some(active))
    }

    fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code> {
        self.region.step(Row::ReadCopies);
        if self.load().is_ok() {
            return Err(Code::Internal);
        }
        let read = self.read_each();
        let flags = read.map(|copy| copy.ok().flatten());
        let active = self.layout.select(flags);
        // What cannot be read now may be in force, and be read by the loader: it is not written over.
        let lost = read.iter().take(self.layout.offsets().len()).position(|copy| *copy == Ok(None));
        let target = active.map(|active| 1 - active).filter(|target| read[*target].is_ok()).or(lost);
        let target = target.ok_or(Code::StorageIo)?;
        initial(self.text, vars, self.next_flags(flags, active), self.rooms[target])?;
        self.put(target, active)
    }
}

#[cfg(test)]
mod tests;
