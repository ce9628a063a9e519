//! Metadata: what the device says of itself, and what its users say of it, by key. One record for each of the two.
//!
//! Invariants: a change is there whole or not at all, as with what is kept for errands; a record that cannot be read
//! is an error, never an empty one, so nothing is lost by the next change. What a record holds already is not written again.
//!
//! Record, little endian: crc32 of what follows | `SWBM` | version u8 | 0 | length of the entries u32 | entries. Entry: length of the
//! key u8 | length of the value u16 | key | value. A newer release raises the version and adds what follows the entries, with a
//! sum of its own; a reader skips that, and a change leaves both as they are.
//!
//! What it does not do: it does not know what a key means, and it does not speak to a hub.

use super::memory::{read, replace};
use crate::{
    fault::Code,
    limits::{METADATA_KEY_MAX, METADATA_MAX, METADATA_VALUE_MAX},
    port::{Disk, Name, Stage, Subject},
};

const MAGIC: &[u8; 4] = b"SWBM";
const VERSION: u8 = 1;
const HEAD: usize = 14;

/// Room for a record before and after a change.
pub struct Room([[u8; METADATA_MAX]; 2]);

impl Room {
    /// As large as it must be.
    pub const fn new() -> Self {
        Self([[0; METADATA_MAX]; 2])
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets a key, or removes it. `MetadataInvalid` if it is no key or the value too long, `MetadataFull` if the record
/// would be too large; `StorageDamaged` if what stands there cannot be read.
pub fn set<D: Disk>(
    disk: &mut D,
    subject: Subject,
    key: &str,
    value: Option<&[u8]>,
    room: &mut Room,
) -> Result<(), Code> {
    let is_key =
        (1..=METADATA_KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if !is_key || value.is_some_and(|value| value.len() > METADATA_VALUE_MAX) {
        return Err(Code::MetadataInvalid);
    }
    let Room([before, after]) = room;
    let length = read(disk, Name::Metadata(subject, Stage::Live), before)?;
    let (entries, newer) = parts(&before[..length])?;
    let version = before[..length].get(8).map_or(VERSION, |version| VERSION.max(*version));
    if entries.clone().find(|(other, _)| *other == key).map(|(_, value)| value) == value {
        return Ok(());
    }
    let mut end = HEAD;
    let kept = entries.filter(|(other, _)| *other != key).chain(value.map(|value| (key, value)));
    for (key, value) in kept {
        let next = end + 3 + key.len() + value.len();
        let entry = after.get_mut(end..next).ok_or(Code::MetadataFull)?;
        entry[0] = key.len() as u8;
        entry[1..3].copy_from_slice(&(value.len() as u16).to_le_bytes());
        entry[3..3 + key.len()].copy_from_slice(key.as_bytes());
        entry[3 + key.len()..].copy_from_slice(value);
        end = next;
    }
    after[4..8].copy_from_slice(MAGIC);
    after[8..10].copy_from_slice(&[version, 0]);
    after[10..HEAD].copy_from_slice(&((end - HEAD) as u32).to_le_bytes());
    let sum = crc32fast::hash(&after[4..end]);
    after[..4].copy_from_slice(&sum.to_le_bytes());
    let whole = end + newer.len();
    after.get_mut(end..whole).ok_or(Code::MetadataFull)?.copy_from_slice(newer);
    replace(disk, |stage| Name::Metadata(subject, stage), &after[..whole])
}

/// Calls `each` with every key and its value.
pub fn each<D: Disk>(
    disk: &mut D,
    subject: Subject,
    room: &mut Room,
    each: &mut dyn FnMut(&str, &[u8]),
) -> Result<(), Code> {
    let Room([record, _]) = room;
    let length = read(disk, Name::Metadata(subject, Stage::Live), record)?;
    parts(&record[..length])?.0.for_each(|(key, value)| each(key, value));
    Ok(())
}

/// The entries of a record, none if nothing is kept, and what a newer release has added. All entries are checked before the
/// first is given.
fn parts(record: &[u8]) -> Result<(Entries<'_>, &[u8]), Code> {
    if record.is_empty() {
        return Ok((Entries(&[]), &[]));
    }
    let damaged = Code::StorageDamaged;
    let (head, rest) = record.split_first_chunk::<HEAD>().ok_or(damaged)?;
    let length = u32::from_le_bytes([head[10], head[11], head[12], head[13]]) as usize;
    let sum = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let (bytes, newer) = rest.split_at_checked(length).ok_or(damaged)?;
    // What a newer release adds behind the entries has a sum of its own.
    if &head[4..8] != MAGIC || crc32fast::hash(&record[4..HEAD + length]) != sum {
        return Err(damaged);
    }
    let mut entries = Entries(bytes);
    entries.by_ref().for_each(drop);
    if entries.0.is_empty() { Ok((Entries(bytes), newer)) } else { Err(damaged) }
}

/// What is left of the entries; stops at what is none.
#[derive(Clone)]
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<3>()?;
        let (key, rest) = rest.split_at_checked(usize::from(head[0]))?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[1], head[2]])))?;
        let key = core::str::from_utf8(key).ok()?;
        self.0 = rest;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entries: &[u8], more: &[u8]) -> std::vec::Vec<u8> {
        let mut record = std::vec![0; 4];
        record.extend_from_slice(MAGIC);
        record.extend_from_slice(&[9, 0]);
        record.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        record.extend_from_slice(entries);
        let sum = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        record.extend_from_slice(more);
        record
    }

    #[test]
    fn a_record_of_a_newer_release_is_read_and_what_it_adds_is_skipped() {
        let good = record(b"\x01\x02\0avv\x01\0\0b", b"more");
        let (found, newer) = parts(&good).unwrap();
        let found: std::vec::Vec<_> = found.collect();
        assert_eq!(newer, b"more");
        assert_eq!(found, [("a", &b"vv"[..]), ("b", b"")]);
        assert_eq!(parts(&[]).map(|(entries, _)| entries.count()), Ok(0));
    }

    #[test]
    fn damage_anywhere_is_found() {
        let good = record(b"\x01\x02\0avv", b"");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parts(&bad).map(|_| ()), Err(Code::StorageDamaged), "bit {bit}");
        }
        for cut in 1..good.len() {
            assert_eq!(parts(&good[..cut]).map(|_| ()), Err(Code::StorageDamaged), "cut at {cut}");
        }
        for bad in [&b"\x05\0\0a"[..], b"\x01\x09\0a", b"\x01\0\0\xff", b"\x01"] {
            assert_eq!(parts(&record(bad, b"")).map(|_| ()), Err(Code::StorageDamaged), "{bad:?}");
        }
    }
}
