//! Reads the log of QEMU's `blklogwrites`: what reached a disk, in the order in which the emulator completed it.
//!
//! The format is that of the kernel's dm-log-writes, all numbers little endian: a sector `magic | version | entries |
//! sector size`, then for each entry a sector `sector | sectors | flags | length` followed by the data, unless it is a
//! discard. A flush stands where it had completed: every write before it is durable.
//! Invariants: total and bounded. A log with a flag, a version or a sector size that is not known is refused, and so is
//! an entry that reaches beyond the disk or the file; nothing is skipped.
//! Fault model: the emulator may have been killed; its last entry counts only if the head says so.
//! Does not: hold data in memory. An entry says where in the file its data is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::tour::{Outcome, ensure, fail};

/// Bytes of a sector: what a medium writes or does not write.
pub const SECTOR: u64 = 512;
const MAGIC: u64 = 0x6a_7366_7773_6872;
/// More than a day of a busy device.
const ENTRIES_MAX: u64 = 1 << 24;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// What an entry does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes are written; they stand at this offset of the log.
    Write(u64),
    /// Bytes are given up: they may be anything from now on, and are zero or what they were on this disk.
    Discard,
    /// Nothing is written.
    Nothing,
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it does.
    pub kind: Kind,
    /// Byte offset on the disk.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// Everything before it was made durable first.
    pub flush: bool,
    /// It is itself durable at once.
    pub through: bool,
}

/// A log.
#[derive(Debug)]
pub struct Log {
    file: File,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

impl Log {
    /// Reads the log of a disk of `disk` bytes.
    pub fn read(path: &Path, disk: u64) -> Outcome<Self> {
        let file = File::open(path)?;
        let entries = parse(&file, disk).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { file, entries })
    }

    /// Bytes of the log from an offset.
    pub fn data(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, at)
    }

    /// A second handle on the same file.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

fn parse(file: &File, disk: u64) -> Outcome<Vec<Entry>> {
    let length = file.metadata()?.len();
    let head = sector(file, 0)?;
    let (magic, version, count) = (number(&head, 0), number(&head, 8), number(&head, 16));
    ensure(magic == MAGIC && version == 1, || "this is no log of version 1".into())?;
    let size = number(&head, 24) & 0xffff_ffff;
    ensure(size == SECTOR, || format!("its sectors have {size} bytes, not {SECTOR}"))?;
    ensure(count <= ENTRIES_MAX, || format!("{count} entries are too many"))?;
    let mut entries = Vec::new();
    let mut at = SECTOR;
    for index in 0..count {
        let entry = entry(&sector(file, at)?, at + SECTOR, disk).map_err(|why| format!("entry {index}: {why}"))?;
        at += SECTOR;
        if let Kind::Write(_) = entry.kind {
            at += entry.length;
        }
        ensure(at <= length, || format!("entry {index}: the file ends in it"))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(head: &[u8; SECTOR as usize], data: u64, disk: u64) -> Outcome<Entry> {
    let (start, sectors, flags, held) = (number(head, 0), number(head, 8), number(head, 16), number(head, 24));
    ensure(flags & !(FLUSH | FUA | DISCARD) == 0, || format!("flags {flags:#x} are not known"))?;
    let range = start.checked_mul(SECTOR).zip(sectors.checked_mul(SECTOR));
    let range = range.filter(|(at, length)| at.checked_add(*length).is_some_and(|end| end <= disk));
    let Some((at, length)) = range else { return fail(format!("{sectors} sectors at {start} are not on the disk")) };
    let kind = match (flags & DISCARD != 0, length) {
        (_, 0) => Kind::Nothing,
        (true, _) => Kind::Discard,
        (false, _) => Kind::Write(data),
    };
    ensure(kind != Kind::Nothing || flags & FLUSH != 0, || "it does nothing and is no flush".into())?;
    ensure(held == 0 || matches!(kind, Kind::Write(_)), || format!("{held} bytes of a mark are not known"))?;
    Ok(Entry { kind, at, length, flush: flags & FLUSH != 0, through: flags & FUA != 0 })
}

fn sector(file: &File, at: u64) -> Outcome<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    file.read_exact_at(&mut sector, at).map_err(|_| format!("the file ends before byte {}", at + SECTOR))?;
    Ok(sector)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A log with these entries: sector, sectors, flags. Each write has a byte of its own.
    pub(in crate::replay) fn log(entries: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        for (at, value) in [(0, MAGIC), (8, 1), (16, entries.len() as u64), (24, SECTOR)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (number, (start, sectors, flags)) in entries.iter().enumerate() {
            let mut head = vec![0; 512];
            for (at, value) in [(0, start), (8, sectors), (16, flags)] {
                head[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            bytes.extend(head);
            if flags & DISCARD == 0 {
                bytes.extend(vec![number as u8 + 7; (sectors * SECTOR) as usize]);
            }
        }
        bytes
    }

    pub(in crate::replay) fn read(bytes: &[u8], name: &str) -> Outcome<Log> {
        let path = std::env::temp_dir().join(format!("switchback-log-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let read = Log::read(&path, 64 * SECTOR);
        std::fs::remove_file(path).unwrap();
        read
    }

    #[test]
    fn entries_are_read_in_order() {
        let log = read(&log(&[(3, 2, 0), (0, 0, FLUSH), (8, 8, DISCARD), (9, 1, FUA)]), "order").unwrap();
        let kinds: Vec<Kind> = log.entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Write(1024), Kind::Nothing, Kind::Discard, Kind::Write(3584)]);
        assert!(log.entries[1].flush && log.entries[3].through && !log.entries[0].flush);
        let mut data = [0; 512];
        log.data(1024, &mut data).unwrap();
        assert_eq!(data, [7; 512]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (name, entry) in [("mark", (0, 0, 8)), ("flag", (0, 1, 16)), ("far", (63, 2, 0)), ("idle", (0, 0, 0))] {
            assert!(read(&log(&[entry]), name).is_err(), "{name}");
        }
        let whole = log(&[(0, 1, 0), (1, 1, 0)]);
        for length in [0, 100, 600, 1100, whole.len() - 1] {
            assert!(read(&whole[..length], "short").is_err(), "{length}");
        }
        for (at, value) in [(0, 1), (8, 2), (16, 1 << 40), (24, 4096)] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
            assert!(read(&bytes, "head").is_err(), "{at}");
        }
    }
}
