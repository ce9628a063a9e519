//! U-Boot's redundant environment: two copies of all variables, of which the loader uses the newer valid one.
//!
//! A copy is `crc32 (LE) | flags | name=value NUL name=value NUL … NUL | padding`, `size` bytes in all; the checksum
//! covers everything behind the flags, padding included. Reference: crash-consistency 1.1.
//!
//! Invariants. A store writes only the copy that is *not* in use, all variables in one write, then one sync, then reads
//! it back from the medium; the copy in use is not touched. Variables that are not ours (the boot script) keep their
//! bytes and their order. Every decoder is total: any bytes give a result.
//!
//! Fault model. A write may be torn anywhere: the checksum then rejects the copy, and the other one is the environment
//! of before. A failed or lost write is found by the read-back; the next store then writes the same copy again, because
//! after a failed sync a cache may show it whole and newer while the medium still has the other one in use. What is not survived: a device that damages the copy
//! that was not written (copies belong in different erase groups, and in different pages, because the page cache of the
//! device below a `Region` writes whole ones), and a flush that lies.
//!
//! With the boolean scheme (parallel NOR) the store has a second step: the flag byte of the old copy is cleared. A power
//! cut in between leaves either environment in force, each of them whole.
//!
//! What the flag byte means is a property of the loader's driver, stated by the board. It cannot be seen from the bytes.

use runtime::{
    fault::Code,
    id::RevName,
    limits::ENV_SIZE_MAX,
    port::{BootEnv, BootVars, Loaded, Region},
};

/// Bytes before the variables: checksum and flags.
pub const HEADER: usize = 5;
/// Smallest area that makes sense: one sector.
const SIZE_MIN: usize = 512;
/// Times that a copy is read before it counts as unreadable.
const READS_MAX: usize = 3;
/// The flag byte of a copy that is not in use, boolean scheme.
const OBSOLETE: u8 = 0;
/// The flag byte of the copy in use, boolean scheme.
const ACTIVE: u8 = 1;
/// The variables that a store sets or deletes, in the order in which new ones are appended.
const OURS: [&[u8]; 5] = [b"pv_rev", b"pv_try", b"pv_prev", b"upgrade_available", b"bootcount"];

/// What the flag byte means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// A counter modulo 256; the greater one is newer. MMC, FAT, NAND, UBI.
    Incremental,
    /// 1 is in use, 0 is obsolete. Parallel NOR flash.
    Boolean,
}

/// Where the copies are, and how they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Byte offsets of copy 1 and copy 2.
    pub offsets: [u64; 2],
    /// `CONFIG_ENV_SIZE`, header included. A wrong size reads as two invalid copies.
    pub size: usize,
    /// What the flag byte means.
    pub scheme: Scheme,
}

/// The flags of a copy whose checksum is right.
pub fn flags_of(copy: &[u8]) -> Option<u8> {
    let (crc, rest) = copy.split_first_chunk::<4>()?;
    let (flags, data) = rest.split_first()?;
    (u32::from_le_bytes(*crc) == crc32fast::hash(data)).then_some(*flags)
}

/// The copy that the loader uses, given the flags of the valid ones.
pub fn select(scheme: Scheme, flags: [Option<u8>; 2]) -> Option<usize> {
    let [first, second] = match flags {
        [Some(first), Some(second)] => [first, second],
        [Some(_), None] => return Some(0),
        [None, Some(_)] => return Some(1),
        [None, None] => return None,
    };
    let second_is_newer = match scheme {
        Scheme::Incremental => match (first, second) {
            (u8::MAX, 0) => true,
            (0, u8::MAX) => false,
            _ => second > first,
        },
        // Erased flash (0xFF) counts as in use where the other copy does not settle it. Any further pair is written by
        // nobody; current U-Boot takes the first copy.
        Scheme::Boolean => {
            (first, second) == (OBSOLETE, ACTIVE) || (first != second && first != u8::MAX && second == u8::MAX)
        }
    };
    Some(second_is_newer as usize)
}

/// The entries of a copy's variable area, in order, as they are: usually `name=value`.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Of the bytes behind the header. Stops at the empty entry that ends the list.
    pub fn of(data: &'a [u8]) -> Self {
        Self(data)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (entry, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or(&[]);
        (!entry.is_empty()).then_some(entry)
    }
}

/// Name and value of an entry. The loader skips blanks before the name; an entry without `=` has no value.
pub fn split(entry: &[u8]) -> (&[u8], &[u8]) {
    let blanks = entry.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let entry = &entry[blanks..];
    match entry.iter().position(|byte| *byte == b'=') {
        Some(equals) => (&entry[..equals], &entry[equals + 1..]),
        None => (entry, &[]),
    }
}

/// The value that the loader sees for `name`: the last entry counts, and an empty value is no variable.
pub fn value<'a>(data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let entries = Entries::of(data).map(split);
    entries.filter(|(key, _)| *key == name.as_bytes()).last().map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// A revision's name as the value of a variable.
fn revision(data: &[u8], name: &str) -> Option<RevName> {
    RevName::parse(core::str::from_utf8(value(data, name)?).ok()?).ok()
}

/// The digits at the start of a variable, as the loader reads a number.
fn number(data: &[u8], name: &str) -> u32 {
    let digits = value(data, name).unwrap_or(b"").iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum: u32, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
}

/// The decision that a variable area holds. `None` without a committed revision, which the loader cannot boot either.
fn decision(data: &[u8]) -> Option<BootVars> {
    let armed = number(data, "upgrade_available") != 0;
    Some(BootVars {
        committed: revision(data, "pv_rev")?,
        candidate: if armed { revision(data, "pv_try") } else { None },
        previous: revision(data, "pv_prev"),
    })
}

/// Writes entries into a copy's variable area. Full is remembered and reported once, by `finish`.
struct Writer<'a> {
    data: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Over the variable area of `image`.
    fn over(image: &'a mut [u8]) -> Self {
        Self { data: image.get_mut(HEADER..).unwrap_or(&mut []), at: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(room) = self.data.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn entry(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b"=");
        self.put(value);
        self.put(&[0]);
    }

    /// One of our variables; one without a value is left out, which deletes it.
    fn ours(&mut self, index: usize, vars: &BootVars) {
        let value = match index {
            0 => vars.committed.as_str(),
            1 => vars.candidate.as_ref().map_or("", RevName::as_str),
            2 => vars.previous.as_ref().map_or("", RevName::as_str),
            3 if vars.candidate.is_some() => "1",
            _ => "0",
        };
        if !value.is_empty() {
            self.entry(OURS[index], value.as_bytes());
        }
    }

    /// Pads with zeros, of which the first ends the list.
    fn finish(self) -> Result<(), Code> {
        if self.at >= self.data.len() {
            return Err(Code::EnvStoreFailed);
        }
        self.data[self.at..].fill(0);
        Ok(())
    }
}

/// Which of our variables this is.
fn ours(name: &[u8]) -> Option<usize> {
    OURS.iter().position(|known| *known == name)
}

/// Composes the next variable area: `old` with our variables changed, everything else as it is.
fn compose(old: &[u8], vars: &BootVars, image: &mut [u8]) -> Result<(), Code> {
    let mut out = Writer::over(image);
    let mut written = [false; OURS.len()];
    for entry in Entries::of(old) {
        match ours(split(entry).0) {
            Some(index) if !written[index] => {
                written[index] = true;
                out.ours(index, vars);
            }
            Some(_) => {} // a second entry of the same name
            None => {
                out.put(entry);
                out.put(&[0]);
            }
        }
    }
    for index in (0..OURS.len()).filter(|index| !written[*index]) {
        out.ours(index, vars);
    }
    out.finish()
}

/// Puts flags and checksum before a variable area.
fn seal(image: &mut [u8], flags: u8) {
    let crc = crc32fast::hash(&image[HEADER..]);
    image[..4].copy_from_slice(&crc.to_le_bytes());
    image[4] = flags;
}

/// The variables of an environment text, as U-Boot's build reads it: empty lines and lines that start with `#` are
/// dropped, a backslash at the end of a line joins it with the next one without that one's leading blanks.
///
/// Calls `each` with every line (first part of a variable: `true`) that is left, in pieces, because nothing is copied.
fn text_pieces<'a>(text: &'a str, mut each: impl FnMut(bool, &'a str)) {
    let mut joined = false;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let line = if joined { line.trim_ascii_start() } else { line };
        let piece = line.strip_suffix('\\').unwrap_or(line);
        each(!joined, piece);
        joined = piece.len() < line.len();
    }
}

/// The value of a variable of an environment text that stands on one line.
pub fn text_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    text_pieces(text, |first, piece| {
        if first
            && let Some((key, value)) = piece.split_once('=')
            && key == name
        {
            found = Some(value);
        }
    });
    found
}

/// Makes a whole copy from an environment text and the boot decision: what a new image holds, and what a lost
/// environment is rebuilt from. `image` is all of the copy. `EnvStoreFailed` if it does not fit.
pub fn initial(text: &str, vars: &BootVars, flags: u8, image: &mut [u8]) -> Result<(), Code> {
    let mut out = Writer::over(image);
    let mut kept = false;
    text_pieces(text, |first, piece| {
        if first {
            if kept {
                out.put(&[0]);
            }
            kept = ours(split(piece.as_bytes()).0).is_none();
        }
        if kept {
            out.put(piece.as_bytes());
        }
    });
    if kept {
        out.put(&[0]);
    }
    for index in 0..OURS.len() {
        out.ours(index, vars);
    }
    out.finish()?;
    seal(image, flags);
    Ok(())
}

/// The redundant environment in a region.
pub struct Uboot<'a, R: Region> {
    region: R,
    layout: Layout,
    /// Room for one copy each. Nothing in here is trusted from one call to the next.
    copies: [&'a mut [u8]; 2],
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
        Ok(Self { region, layout, copies: [first, &mut rest[..layout.size]], unsure: None, text })
    }

    /// The region, for what else is done with it.
    pub fn into_region(self) -> R {
        self.region
    }

    /// Reads both copies; the flags of the valid ones. A copy that cannot be read is an invalid one.
    fn read(&mut self) -> [Option<u8>; 2] {
        self.read_each().map(|flags| flags.ok().flatten())
    }

    /// Reads both copies; of each the flags if it is valid, or the error if it cannot be read. That is tried more than
    /// once: a copy that is unreadable for a moment only is the one in use all the same.
    fn read_each(&mut self) -> [Result<Option<u8>, Code>; 2] {
        let mut flags = [Ok(None); 2];
        for (index, copy) in self.copies.iter_mut().enumerate() {
            let mut read = || self.region.read_at(self.layout.offsets[index], copy);
            let done = (1..READS_MAX).find_map(|_| read().ok()).map_or_else(&mut read, Ok);
            flags[index] = done.map(|()| flags_of(copy));
        }
        flags
    }

    /// Replaces an environment that `load` refuses by the board's text and `vars`. Same steps and promises as a store;
    /// variables that are neither ours nor the text's are lost. Refused, with nothing written, while `load` succeeds.
    pub fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code> {
        if self.load().is_ok() {
            return Err(Code::Internal);
        }
        let flags = self.read();
        let active = select(self.layout.scheme, flags);
        let target = active.map_or(0, |active| 1 - active);
        initial(self.text, vars, self.next_flags(flags, active), self.copies[target])?;
        self.put(target, active)
    }

    /// The flags with which the next copy is newer than `active`.
    fn next_flags(&self, flags: [Option<u8>; 2], active: Option<usize>) -> u8 {
        match self.layout.scheme {
            Scheme::Incremental => active.and_then(|active| flags[active]).unwrap_or(0).wrapping_add(1),
            Scheme::Boolean => ACTIVE,
        }
    }

    /// Puts the composed copy `target` in force.
    fn put(&mut self, target: usize, active: Option<usize>) -> Result<(), Code> {
        self.write(target)?;
        match (self.layout.scheme, active) {
            (Scheme::Boolean, Some(active)) => self.retire(active),
            _ => Ok(()),
        }
    }

    /// The copy in use, given the flags of the valid ones. One that is not known to be on the medium is not it, however
    /// new it looks, while the other one is valid.
    fn active(&self, flags: [Option<u8>; 2]) -> Option<usize> {
        match self.unsure {
            Some(unsure) if flags[1 - unsure].is_some() => Some(1 - unsure),
            _ => select(self.layout.scheme, flags),
        }
    }

    /// Writes the composed copy `target`, makes it durable, and compares what the medium then holds.
    fn write(&mut self, target: usize) -> Result<(), Code> {
        self.unsure = Some(target);
        let offset = self.layout.offsets[target];
        let (first, second) = self.copies.split_at_mut(1);
        let (new, back) = if target == 0 { (&first[0], &mut second[0]) } else { (&second[0], &mut first[0]) };
        self.region.write_at(offset, new).map_err(|_| Code::EnvStoreFailed)?;
        self.region.sync().map_err(|_| Code::EnvStoreFailed)?;
        self.region.drop_cache();
        self.region.read_at(offset, back).map_err(|_| Code::EnvStoreFailed)?;
        if **new != **back {
            return Err(Code::EnvStoreFailed);
        }
        self.unsure = None;
        Ok(())
    }

    /// Boolean scheme: takes the old copy out of use.
    fn retire(&mut self, old: usize) -> Result<(), Code> {
        let at = self.layout.offsets[old] + (HEADER - 1) as u64;
        let mut flags = [OBSOLETE];
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
        let active = select(self.layout.scheme, flags).ok_or(none)?;
        let data = |index: usize| &self.copies[index][HEADER..];
        let mut named = [None; 6];
        for index in (0..2).filter(|index| flags[*index].is_some()) {
            for (slot, name) in ["pv_rev", "pv_try", "pv_prev"].into_iter().enumerate() {
                named[3 * index + slot] = revision(data(index), name);
            }
        }
        let vars = decision(data(active)).ok_or(Code::EnvInvalid)?;
        Ok(Loaded { vars, bootcount: number(data(active), "bootcount"), named, complete })
    }

    fn store(&mut self, vars: &BootVars) -> Result<(), Code> {
        let flags = self.read();
        let active = self.active(flags).ok_or(Code::EnvInvalid)?;
        let (target, next) = (1 - active, self.next_flags(flags, Some(active)));
        let (first, second) = self.copies.split_at_mut(1);
        let (old, new) = if active == 0 { (&first[0], &mut second[0]) } else { (&second[0], &mut first[0]) };
        compose(&old[HEADER..], vars, new)?;
        seal(new, next);
        self.put(target, Some(active))
    }
}

#[cfg(test)]
mod tests;
