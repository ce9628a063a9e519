//! GRUB's environment block: 1,024 bytes, a header line, then `name=value` lines; a backslash makes the next byte an
//! ordinary one, lines that start with `#` say nothing, and what is left is filled with `#`.
//!
//! The variables are those of U-Boot: `pv_rev`, `pv_try` (tried while `upgrade_available` is 1), `pv_prev`,
//! `bootcount`, `bootlimit`. The script (`boards/grub/switchback.cfg`) counts before it tries: it saves `bootcount`,
//! one digit, reads it again, and boots the committed revision if it is not there or above the limit.
//!
//! Invariants. The block is two sectors; a store overwrites the first one and leaves the second as it is, so a
//! transition is one sector (`sector`). For that our variables stand right behind the header, where nothing of others
//! can push them out, with padding behind them for the longest names, and the first sector's text always ends where it
//! ended before: at the line that goes on in the second sector, or at padding, which may end anywhere. Variables and
//! comments of others keep their bytes. Every decoder is total and reads what GRUB reads, its treatment of broken lines
//! included. What does not fit is refused, and nothing is armed that could not be committed for lack of room.
//!
//! The loader's own save rewrites both sectors. As `bootcount` keeps its length, only one of them changes, by one byte.
//!
//! Fault model. That of `sector`. Not survived: a tool that writes the block while power fails. `grub-editenv` makes
//! the file empty first, so it is for a device that is off.
//!
//! What it does not do: it does not tidy the second sector. Padding that an editor pushed there by making ours longer
//! stays, and is room that GRUB's tools do not see; variables of ours that only an editor can have put there are
//! refused (`EnvLayout`). [`adopt`] makes a block without either, to be written as a new file.

use super::sector::{Room, SECTOR, also_committed, overwrite, read};
use crate::Guarantee;
use core::ops::Range;
use runtime::{
    fault::Code,
    id::RevName,
    limits::REV_NAME_MAX,
    port::{BootEnv, BootVars, Loaded, Region},
};

/// Bytes of the block.
pub const SIZE: usize = 1024;
/// Boots of a candidate, unless the owner sets `bootlimit`.
pub const TRIES: u8 = 3;
/// The boot script, as it stands on the boot partition.
pub const SCRIPT: &str = include_str!("../../grub/switchback.cfg");
/// What the block and the script guarantee. GRUB starts no watchdog.
pub const GUARANTEE: Guarantee =
    Guarantee { torn_write: true, hang_before_linux: false, hang_after_linux: true, tries: TRIES };

/// The first line.
const HEADER: &[u8] = b"# GRUB Environment Block\n";
/// Variables that a store sets or deletes.
const OURS: [&[u8]; 5] = [b"pv_rev", b"pv_try", b"pv_prev", b"upgrade_available", b"bootcount"];

/// Where the longest of ours ends, with a line of padding behind it: three names, and two numbers of one digit.
const OURS_END: usize = HEADER.len() + 3 * REV_NAME_MAX + "pv_rev=\npv_try=\npv_prev=\n".len() + NUMBERS.len() + 2;
/// The variables that are not revisions.
const NUMBERS: &str = "upgrade_available=0\nbootcount=0\n";

/// A line, by its bytes in the block.
struct Line {
    /// All of it, its end included.
    all: Range<usize>,
    /// Name and value; `None` for a comment, and for a rest that GRUB does not read.
    variable: Option<(Range<usize>, Range<usize>)>,
}

/// The lines behind the header, as GRUB finds them.
struct Lines<'a> {
    block: &'a [u8; SIZE],
    at: usize,
}

/// The lines of a block. `EnvInvalid` if it does not start with the header.
fn lines(block: &[u8; SIZE]) -> Result<Lines<'_>, Code> {
    if block.starts_with(HEADER) { Ok(Lines { block, at: HEADER.len() }) } else { Err(Code::EnvInvalid) }
}

impl Lines<'_> {
    /// The end of the value or comment that goes on at `at`: the place of its line feed, or the block's end.
    fn end(&self, mut at: usize) -> usize {
        while at < SIZE {
            match self.block[at] {
                b'\n' => return at,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        SIZE
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let start = self.at;
        let comment = *self.block.get(start)? == b'#';
        // A name goes on to the next `=`, whatever it contains.
        let equals = self.block[start..].iter().position(|byte| *byte == b'=').map(|length| start + length);
        let line = match equals {
            Some(equals) if !comment => {
                let end = self.end(equals + 1);
                let variable = (end < SIZE).then_some((start..equals, equals + 1..end));
                Line { all: start..(end + 1).min(SIZE), variable }
            }
            None if !comment => Line { all: start..SIZE, variable: None },
            _ => Line { all: start..(self.end(start) + 1).min(SIZE), variable: None },
        };
        self.at = line.all.end;
        Some(line)
    }
}

impl Line {
    /// Which of our variables it sets.
    fn ours(&self, block: &[u8; SIZE]) -> Option<usize> {
        let (name, _) = self.variable.clone()?;
        OURS.iter().position(|known| *known == &block[name.clone()])
    }
}

/// A short value without its backslashes; nothing if it is longer than any of ours.
struct Plain {
    bytes: [u8; REV_NAME_MAX],
    length: usize,
}

impl Plain {
    fn of(value: &[u8]) -> Self {
        let mut plain = Self { bytes: [0; REV_NAME_MAX], length: 0 };
        let mut rest = value.iter();
        while let Some(byte) = rest.next() {
            let byte = if *byte == b'\\' { rest.next() } else { Some(byte) };
            match (byte, plain.bytes.get_mut(plain.length)) {
                (Some(byte), Some(place)) => *place = *byte,
                _ => return Self { length: 0, ..plain },
            }
            plain.length += 1;
        }
        plain
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn revision(&self) -> Option<RevName> {
        RevName::parse(core::str::from_utf8(self.as_bytes()).ok()?).ok()
    }

    /// The digits at its start, as GRUB's `test` reads a number.
    fn number(&self) -> u32 {
        let digits = self.as_bytes().iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |sum: u32, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
    }
}

/// What a block says: the last line of a name counts.
fn decode(block: &[u8; SIZE]) -> Result<Loaded, Code> {
    let mut values = [const { None }; OURS.len()];
    for line in lines(block)? {
        if let (Some(index), Some((_, value))) = (line.ours(block), &line.variable) {
            values[index] = Some(Plain::of(&block[value.clone()]));
        }
    }
    let revision = |index: usize| values[index].as_ref().and_then(Plain::revision);
    let committed = revision(0).ok_or(Code::EnvInvalid)?;
    let armed = values[3].as_ref().is_some_and(|value| value.as_bytes() == b"1");
    let candidate = if armed { revision(1) } else { None };
    let vars = BootVars { committed, candidate, previous: revision(2) };
    let named = [Some(committed), revision(1), vars.previous, None, None, None];
    Ok(Loaded {
        vars,
        bootcount: values[4].as_ref().map_or(0, Plain::number),
        named,
        complete: true,
        active: 1,
        damaged: false,
    })
}

/// Whether all of these bytes are padding.
fn padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'#')
}

/// Where the text of the first sector has to end.
#[derive(Clone, Copy)]
enum Limit {
    /// Right there, with a whole line: another line begins.
    Line(usize),
    /// At the sector's end, with at least one byte of padding: it goes on in the second sector.
    Padding,
}

/// Where the first sector's text ends in this block. `EnvLayout` if the second sector holds variables of ours.
fn limit(block: &[u8; SIZE]) -> Result<Limit, Code> {
    let mut limit = Limit::Line(SECTOR);
    for line in lines(block)?.filter(|line| line.all.end > SECTOR) {
        if line.ours(block).is_some() {
            return Err(Code::EnvLayout);
        }
        if line.all.start < SECTOR {
            let padding = padding(&block[line.all.start..SECTOR]);
            limit = if padding { Limit::Padding } else { Limit::Line(line.all.start) };
        }
    }
    Ok(limit)
}

/// Header and our lines.
fn ours(vars: &BootVars) -> Room {
    let mut out = Room::new();
    out.put(HEADER);
    let revisions = [Some(&vars.committed), vars.candidate.as_ref(), vars.previous.as_ref()];
    for (name, revision) in OURS.into_iter().zip(revisions) {
        if let Some(revision) = revision {
            out.pieces(&[name, b"=", revision.as_str().as_bytes(), b"\n"]);
        }
    }
    out.pieces(&[OURS[3], if vars.candidate.is_some() { b"=1\n" } else { b"=0\n" }]);
    out.pieces(&[OURS[4], b"=0\n"]);
    out
}

/// Adds a line of padding that is so long, 0 or at least 2.
fn pad(out: &mut Room, length: usize) {
    if length > 1 {
        out.put(&[b'#'; SECTOR][..(length - 1).min(SECTOR)]);
        out.put(b"\n");
    }
}

/// Whether a line of the first sector is one of others.
fn kept(block: &[u8; SIZE], line: &Line) -> bool {
    let text = &block[line.all.clone()];
    line.ours(block).is_none() && !padding(text.strip_suffix(b"\n").unwrap_or(text))
}

/// The first sector of a decision, before the second sector of `old`: ours, padding, then what others have.
fn compose(old: &[u8; SIZE], vars: &BootVars) -> Result<[u8; SECTOR], Code> {
    let limit = limit(old)?;
    let mut out = ours(vars);
    let others = || Ok(lines(old)?.filter(|line| line.all.end <= SECTOR && kept(old, line)));
    let length: usize = others()?.map(|line| line.all.len()).sum();
    let (end, spare) = match limit {
        Limit::Line(end) => {
            let spare = end.checked_sub(out.used() + length).filter(|spare| *spare != 1);
            (end, spare.ok_or(Code::EnvFull)?)
        }
        // What others add goes behind theirs: room for the longest of ours stays here.
        Limit::Padding if padding(&old[SECTOR..]) && OURS_END + length < SECTOR => (SECTOR, OURS_END - out.used()),
        Limit::Padding => (SECTOR, 0),
    };
    pad(&mut out, spare);
    others()?.for_each(|line| out.put(&old[line.all]));
    let least = if matches!(limit, Limit::Padding) { 1 } else { SECTOR - end };
    let mut sector = out.finish(b'#', least)?;
    sector[end..].copy_from_slice(&old[end..SECTOR]);
    Ok(sector)
}

/// A new block.
pub fn initial(vars: &BootVars) -> Result<[u8; SIZE], Code> {
    let mut out = ours(vars);
    let spare = OURS_END - out.used();
    pad(&mut out, spare);
    out.pieces(&[b"bootlimit=", &[b'0' + TRIES], b"\n"]);
    let mut block = [b'#'; SIZE];
    block[..SECTOR].copy_from_slice(&out.finish(b'#', 1)?);
    Ok(block)
}

/// A new block with all that `old` holds, for one that `store` refuses because its first sector is full or ours are not
/// in it. `EnvFull` if it does not fit with room for the longest of ours.
pub fn adopt(old: &[u8; SIZE]) -> Result<[u8; SIZE], Code> {
    let mut out = ours(&decode(old)?.vars);
    let spare = OURS_END - out.used();
    pad(&mut out, spare);
    let mut block = [b'#'; SIZE];
    block[..SECTOR].copy_from_slice(&out.finish(b'#', 1)?);
    let mut used = OURS_END;
    for line in lines(old)?.filter(|line| kept(old, line)) {
        let text = &old[line.all];
        block.get_mut(used..used + text.len()).ok_or(Code::EnvFull)?.copy_from_slice(text);
        used += text.len();
    }
    Ok(block)
}

/// The block in a region.
pub struct Grub<R: Region> {
    region: R,
    at: u64,
}

impl<R: Region> Grub<R> {
    /// Over the block that starts at `at`. `EnvLayout` if that is not the start of a sector.
    pub fn new(region: R, at: u64) -> Result<Self, Code> {
        if at.is_multiple_of(SECTOR as u64) { Ok(Self { region, at }) } else { Err(Code::EnvLayout) }
    }

    /// The region, for what else is done with it.
    pub fn into_region(self) -> R {
        self.region
    }

    fn read(&mut self) -> Result<[u8; SIZE], Code> {
        let mut block = [0; SIZE];
        read(&mut self.region, self.at, &mut block).map_err(|_| Code::StorageIo)?;
        Ok(block)
    }
}

impl<R: Region> BootEnv for Grub<R> {
    fn load(&mut self) -> Result<Loaded, Code> {
        decode(&self.read()?)
    }

    fn store(&mut self, vars: &BootVars) -> Result<(), Code> {
        let old = self.read()?;
        decode(&old)?;
        let sector = also_committed(vars, |vars| compose(&old, vars))?;
        overwrite(&mut self.region, self.at, &sector)
    }

    // Replaces a block that `load` refuses by one of `vars`. One that only lacks a committed revision keeps what
    // others have in it, and is one sector; any other is written whole, the header last. Refused, with nothing
    // written, while `load` succeeds.
    fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code> {
        let old = match self.read() {
            Ok(block) if decode(&block).is_ok() => return Err(Code::Internal),
            Ok(block) => block,
            Err(_) => [0; SIZE],
        };
        if let Ok(sector) = compose(&old, vars) {
            return overwrite(&mut self.region, self.at, &sector);
        }
        let block = initial(vars)?;
        let (first, second) = block.split_at(SECTOR);
        if old.starts_with(HEADER) {
            // Without it, what is in between is no block at all.
            overwrite(&mut self.region, self.at, &[0; SECTOR])?;
        }
        overwrite(&mut self.region, self.at + SECTOR as u64, second)?;
        overwrite(&mut self.region, self.at, first)
    }
}

#[cfg(test)]
mod tests;
