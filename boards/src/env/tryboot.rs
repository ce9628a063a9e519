//! Raspberry Pi firmware: `autoboot.txt` names the partition that boots, and the one that boots instead while the
//! one-shot flag of `reboot "0 tryboot"` is set. Both partitions are whole boot file systems; a revision's boot assets,
//! with a command line that names the revision, are written into the one that is not committed before it is armed.
//!
//! The file is one sector: the two numbers, and as comments, which the firmware skips, what they mean:
//! ```text
//! [all]
//! tryboot_a_b=1
//! boot_partition=2
//! [tryboot]
//! boot_partition=3
//! # pv_rev=5          committed: what boot_partition of [all] holds
//! # pv_try=6          armed
//! # pv_prev=4
//! # pv_other=6        what the other partition holds
//! ```
//! Arming writes names only. Committing exchanges the numbers, and so does a step back to the revision that the other
//! partition still holds; a revision that neither holds is refused (`RevisionUnknown`).
//!
//! Invariants. A transition is one overwrite of that sector (`sector`): numbers and names never disagree. The file
//! keeps its 512 bytes, padded with empty lines, and its place on the FAT (`fat`): no directory entry, no FAT, no
//! second store. What a store writes is read by the firmware's rules before it is written. Lines of others are kept. A
//! line has no more than 98 bytes. Nothing is armed that could not be committed for lack of room.
//!
//! The flag is in a register that survives a reset and not a power cut, and the firmware clears it when it reads it. So
//! a candidate is booted once per arming, whatever it does; power that fails before it was booted makes the committed
//! one boot, which finds `pv_try` and gives the candidate up.
//!
//! What it does not do: it does not set the flag ([`REBOOT`] is for whoever reboots, after the store), and it does not
//! write partitions. Who writes the other one calls [`Tryboot::vacate`] first: from then on nothing names what was in
//! it.

use super::sector::{Room, SECTOR, also_committed, overwrite, read};
use crate::Guarantee;
use runtime::{
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars, Loaded, Region},
};

/// Argument of the reboot that boots the armed candidate once: the default partition, with the flag.
pub const REBOOT: &str = "0 tryboot";
/// Bytes of the file: the most that the firmware reads.
pub const SIZE: usize = SECTOR;
/// The flag makes the firmware count to one. It starts no watchdog by itself.
pub const GUARANTEE: Guarantee =
    Guarantee { torn_write: true, hang_before_linux: false, hang_after_linux: true, tries: 1 };

/// What the names' comments start with, in the order of `Record::names`.
const NAMES: [&str; 4] = ["# pv_rev=", "# pv_try=", "# pv_prev=", "# pv_other="];
/// The setting that we change.
const PARTITION: &str = "boot_partition";

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    /// Partition of `[all]`, partition of `[tryboot]`.
    partitions: [u8; 2],
    /// Committed, candidate, previous, in the other partition.
    names: [Option<RevName>; 4],
}

/// Sections that the firmware knows in this file, `[none]` left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    All,
    Tryboot,
}

/// A line.
enum Line<'a> {
    Section(Section),
    Setting(&'a str, &'a str),
    /// One of our comments.
    Name(usize, &'a str),
    /// Another comment, or nothing.
    Silent,
}

/// The lines of a file, each with its text. `EnvInvalid` for one that we do not understand: it may change what the
/// others mean.
fn lines(text: &[u8]) -> Result<impl Iterator<Item = Result<(Line<'_>, &str), Code>>, Code> {
    let text = core::str::from_utf8(text).map_err(|_| Code::EnvInvalid)?;
    // A NUL that the original left behind the text.
    let text = text.trim_end_matches('\0');
    Ok(text.lines().map(|line| Ok((kind(line.trim_ascii()).ok_or(Code::EnvInvalid)?, line))))
}

fn kind(line: &str) -> Option<Line<'_>> {
    if let Some(name) = NAMES.iter().position(|name| line.starts_with(name)) {
        return Some(Line::Name(name, &line[NAMES[name].len()..]));
    }
    match line {
        "[all]" => Some(Line::Section(Section::All)),
        "[tryboot]" => Some(Line::Section(Section::Tryboot)),
        _ if line.is_empty() || line.starts_with('#') => Some(Line::Silent),
        _ if line.starts_with('[') => None,
        _ => line.split_once('=').map(|(key, value)| Line::Setting(key.trim_ascii(), value.trim_ascii())),
    }
}

/// The partition that the firmware boots, by its rules: a section's settings count if the section is `[all]`, or
/// `[tryboot]` and the flag is set; of the same setting the last one counts.
fn boots(text: &[u8], flag: bool) -> Result<Option<u8>, Code> {
    let (mut counts, mut partition, mut whole) = (true, None, false);
    for line in lines(text)? {
        match line?.0 {
            Line::Section(section) => counts = section == Section::All || flag,
            Line::Setting(PARTITION, value) if counts => partition = value.parse().ok(),
            // Without it the flag chooses another file, not another partition.
            Line::Setting("tryboot_a_b", value) if counts => whole = value == "1",
            _ => {}
        }
    }
    Ok(partition.filter(|_| whole))
}

/// What a file says. `EnvInvalid` if the firmware would not boot one partition of `partitions`, and the other one with
/// the flag.
fn partitions_of(text: &[u8], partitions: [u8; 2]) -> Result<[u8; 2], Code> {
    let found = [boots(text, false)?, boots(text, true)?].map(|found| found.unwrap_or(0));
    let [first, second] = partitions;
    if found == [first, second] || found == [second, first] { Ok(found) } else { Err(Code::EnvInvalid) }
}

/// The names of a file.
fn names(text: &[u8]) -> Result<[Option<RevName>; 4], Code> {
    let mut names = [None; 4];
    for line in lines(text)? {
        if let (Line::Name(index, value), _) = line? {
            names[index] = RevName::parse(value.trim_ascii()).ok();
        }
    }
    Ok(names)
}

fn decode(text: &[u8], partitions: [u8; 2]) -> Result<Record, Code> {
    let record = Record { partitions: partitions_of(text, partitions)?, names: names(text)? };
    if record.names[0].is_none() { Err(Code::EnvInvalid) } else { Ok(record) }
}

impl Record {
    /// This one after a transition. `RevisionUnknown` if it names a revision that it cannot find in a partition.
    fn after(&self, vars: &BootVars) -> Result<Record, Code> {
        let [committed, candidate, _, other] = self.names;
        let (mut partitions, mut other) = (self.partitions, candidate.or(other));
        if Some(vars.committed) == committed {
            // An armed candidate was written into the other partition.
            other = vars.candidate.or(other);
        } else if Some(vars.committed) == other && vars.candidate.is_none() {
            partitions.reverse();
            other = committed;
        } else {
            return Err(Code::RevisionUnknown);
        }
        Ok(Record { partitions, names: [Some(vars.committed), vars.candidate, vars.previous, other] })
    }

    /// The file: `old` with this one's numbers and names.
    fn compose(&self, old: &[u8]) -> Result<[u8; SIZE], Code> {
        let mut out = Room::new();
        let mut section = Section::All;
        for line in lines(old)? {
            let (kind, text) = line?;
            match kind {
                Line::Setting(PARTITION, _) => {
                    let number = self.partitions[(section == Section::Tryboot) as usize];
                    setting(&mut out, number);
                }
                Line::Name(..) => {}
                Line::Silent if text.trim_ascii().is_empty() => {}
                kind => {
                    if let Line::Section(found) = kind {
                        section = found;
                    }
                    out.pieces(&[text.as_bytes(), b"\n"]);
                }
            }
        }
        self.finish(out)
    }

    /// A new file.
    fn fresh(&self) -> Result<[u8; SIZE], Code> {
        let mut out = Room::new();
        out.put(b"[all]\ntryboot_a_b=1\n");
        setting(&mut out, self.partitions[0]);
        out.put(b"[tryboot]\n");
        setting(&mut out, self.partitions[1]);
        self.finish(out)
    }

    /// Adds the names, and reads the result as the firmware does.
    fn finish(&self, mut out: Room) -> Result<[u8; SIZE], Code> {
        for (start, name) in NAMES.into_iter().zip(&self.names) {
            if let Some(name) = name {
                out.pieces(&[start.as_bytes(), name.as_str().as_bytes(), b"\n"]);
            }
        }
        let text = out.finish(b'\n', 0)?;
        if decode(&text, self.partitions)? == *self { Ok(text) } else { Err(Code::EnvInvalid) }
    }
}

/// Puts a line that names a partition.
fn setting(out: &mut Room, number: u8) {
    let (tens, ones) = (number / 10 % 10, number % 10);
    out.pieces(&[PARTITION.as_bytes(), b"="]);
    if tens > 0 {
        out.put(&[b'0' + tens]);
    }
    out.pieces(&[&[b'0' + ones], b"\n"]);
}

/// The content of a new file: `vars.committed` is in the first of `partitions`.
pub fn initial(partitions: [u8; 2], vars: &BootVars) -> Result<[u8; SIZE], Code> {
    Record { partitions, names: [Some(vars.committed), vars.candidate, vars.previous, vars.candidate] }.fresh()
}

/// The file in a region.
pub struct Tryboot<R: Region> {
    region: R,
    at: u64,
    partitions: [u8; 2],
    booted: Option<u8>,
}

impl<R: Region> Tryboot<R> {
    /// Over the file's sector, at `at` in `region`, on a board with these two boot partitions. `booted`: the one that
    /// the firmware says it booted (`/proc/device-tree/chosen/bootloader/partition`), where it says so; only
    /// [`BootEnv::rebuild`] needs it. `EnvLayout` if that is not a sector, or the numbers are not two of a partition
    /// table's.
    pub fn new(region: R, at: u64, partitions: [u8; 2], booted: Option<u8>) -> Result<Self, Code> {
        let [first, second] = partitions;
        let valid = |number: u8| (1..=99).contains(&number);
        if !at.is_multiple_of(SECTOR as u64) || first == second || !valid(first) || !valid(second) {
            return Err(Code::EnvLayout);
        }
        let booted = booted.filter(|booted| partitions.contains(booted));
        Ok(Self { region, at, partitions, booted })
    }

    /// The region, for what else is done with it.
    pub fn into_region(self) -> R {
        self.region
    }

    fn read(&mut self) -> Result<[u8; SIZE], Code> {
        let mut text = [0; SIZE];
        read(&mut self.region, self.at, &mut text).map_err(|_| Code::StorageIo)?;
        Ok(text)
    }

    /// The partition into which the next candidate goes, once nothing names what is in it any more: neither a step back
    /// nor a commit leads there until something is armed again. `RevisionInUse` while a candidate is armed.
    pub fn vacate(&mut self) -> Result<u8, Code> {
        let text = self.read()?;
        let record = decode(&text, self.partitions)?;
        let [committed, candidate, previous, other] = record.names;
        if candidate.is_some() {
            return Err(Code::RevisionInUse);
        }
        if previous.is_some() || other.is_some() {
            let next = Record { names: [committed, None, None, None], ..record };
            overwrite(&mut self.region, self.at, &next.compose(&text)?)?;
        }
        Ok(record.partitions[1])
    }
}

impl<R: Region> BootEnv for Tryboot<R> {
    fn load(&mut self) -> Result<Loaded, Code> {
        let [committed, candidate, previous, other] = decode(&self.read()?, self.partitions)?.names;
        let vars = BootVars { committed: committed.ok_or(Code::EnvInvalid)?, candidate, previous };
        let named = [committed, candidate, previous, other, None, None];
        Ok(Loaded { vars, bootcount: 0, named, complete: true, active: 1, damaged: false })
    }

    fn store(&mut self, vars: &BootVars) -> Result<(), Code> {
        let text = self.read()?;
        let record = decode(&text, self.partitions)?;
        let next = record.after(vars)?;
        let sector = also_committed(vars, |vars| next.after(vars)?.compose(&text))?;
        overwrite(&mut self.region, self.at, &sector)
    }

    // Replaces a file that `load` refuses by a new one of `vars`, whose committed revision is in the partition that
    // was booted or, if that is not known, in the one that the file still names. `EnvLayout` if neither is known, and
    // if a candidate is to be armed, because nobody knows what the other partition holds. Refused, with nothing
    // written, while `load` succeeds.
    fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code> {
        if self.load().is_ok() {
            return Err(Code::Internal);
        }
        let named = self.read().and_then(|text| partitions_of(&text, self.partitions)).ok().map(|found| found[0]);
        let first = self.booted.or(named).ok_or(Code::EnvLayout)?;
        if vars.candidate.is_some() {
            return Err(Code::EnvLayout);
        }
        let second = self.partitions[(first == self.partitions[0]) as usize];
        overwrite(&mut self.region, self.at, &initial([first, second], vars)?)
    }
}

#[cfg(test)]
mod tests;
