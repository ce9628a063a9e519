//! Metadata: what a change leaves, byte by byte, and what is refused.

use super::*;
use crate::{port::Subject, store::metadata};

fn pairs(device: &mut Device, subject: Subject) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut room) = (vec![], Box::new(metadata::Room::new()));
    let mut each = |key: &str, value: &[u8]| found.push((key.to_string(), value.to_vec()));
    metadata::each(&mut device.disk, subject, &mut room, &mut each).unwrap();
    found
}

#[test]
fn metadata_is_set_replaced_and_removed_by_key() {
    let mut device = Device::new();
    let mut room = Box::new(metadata::Room::new());
    let mut set = |device: &mut Device, key: &str, value: Option<&[u8]>| {
        device.changes(|device| metadata::set(&mut device.disk, Subject::User, key, value, &mut room))
    };
    let wrote = |(told, effects): (Result<(), Code>, Vec<String>)| told.map(|()| !effects.is_empty());
    assert_eq!(wrote(set(&mut device, "gone", None)), Ok(false));
    assert_eq!(wrote(set(&mut device, "a", Some(b"1"))), Ok(true));
    assert_eq!(wrote(set(&mut device, "bb", Some(b""))), Ok(true));
    assert_eq!(wrote(set(&mut device, "ccc", Some(&[7; 300]))), Ok(true));
    assert_eq!(wrote(set(&mut device, "a", Some(b"1"))), Ok(false), "it holds that already");
    let pair = |key: &str, value: &[u8]| (key.to_string(), value.to_vec());
    assert_eq!(pairs(&mut device, Subject::User), [pair("a", b"1"), pair("bb", b""), pair("ccc", &[7; 300])]);
    assert_eq!(pairs(&mut device, Subject::Device), []);
    assert_eq!(wrote(set(&mut device, "a", Some(b"22"))), Ok(true));
    assert_eq!(wrote(set(&mut device, "bb", None)), Ok(true));
    assert_eq!(pairs(&mut device, Subject::User), [pair("ccc", &[7; 300]), pair("a", b"22")]);
    // The record, byte by byte: an older release reads it.
    assert_eq!(wrote(set(&mut device, "ccc", None)), Ok(true));
    let mut record = [0; 32];
    let length = device.disk.read(Name::Metadata(Subject::User, Stage::Live), &mut record).unwrap();
    assert_eq!(&record[4..length], b"SWBM\x01\0\x06\0\0\0\x01\x02\0a22");
}

/// A newer release's version, and what it keeps behind the entries, go over into the next record byte by byte; there may be too
/// little room for both.
#[test]
fn what_a_newer_release_adds_stays_behind_a_change() {
    let mut device = Device::new();
    let mut room = Box::new(metadata::Room::new());
    let name = || Name::Metadata(Subject::User, Stage::Live);
    metadata::set(&mut device.disk, Subject::User, "a", Some(b"1"), &mut room).unwrap();
    let mut record = [0; 64];
    let length = device.disk.read(name(), &mut record).unwrap();
    record[8] = 9;
    let sum = crc32fast::hash(&record[4..length]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    let newer = [&record[..length], b"more"].concat();
    device.disk.write(name(), &newer).unwrap();
    metadata::set(&mut device.disk, Subject::User, "a", Some(b"22"), &mut room).unwrap();
    let length = device.disk.read(name(), &mut record).unwrap();
    assert_eq!(&record[4..length], b"SWBM\x09\0\x06\0\0\0\x01\x02\0a22more");
    assert_eq!(pairs(&mut device, Subject::User), [("a".to_string(), b"22".to_vec())]);
    // 14 of the head, 6 of `a`, 3 of another one: not for one byte more.
    let left = limits::METADATA_MAX - 14 - 6 - 3 - b"more".len() - "big".len();
    let device_of = |tail: usize| [&record[..length], &vec![b'm'; tail]].concat();
    for (tail, told) in [(left - 1, Ok(())), (left, Err(Code::MetadataFull))] {
        device.disk.write(name(), &device_of(tail)).unwrap();
        assert_eq!(metadata::set(&mut device.disk, Subject::User, "big", Some(b"v"), &mut room), told, "{tail}");
    }
}

#[test]
fn metadata_that_is_none_is_refused() {
    let mut device = Device::new();
    let mut room = Box::new(metadata::Room::new());
    let mut set = |device: &mut Device, key: &str, value: usize| {
        metadata::set(&mut device.disk, Subject::Device, key, Some(&vec![b'v'; value]), &mut room)
    };
    let key = "k".repeat(limits::METADATA_KEY_MAX);
    for bad in ["", "a/b", "a b", "a\n", "ä", &format!("{key}k")] {
        assert_eq!(set(&mut device, bad, 1), Err(Code::MetadataInvalid), "{bad:?}");
    }
    assert_eq!(set(&mut device, "~", limits::METADATA_VALUE_MAX + 1), Err(Code::MetadataInvalid));
    assert_eq!(pairs(&mut device, Subject::Device), []);
    assert_eq!(set(&mut device, &key, limits::METADATA_VALUE_MAX), Ok(()));
    // Full to the last byte, and not one more: 14 of the record's head, 3 of each entry's.
    let entry = 3 + limits::METADATA_VALUE_MAX;
    let mut left = limits::METADATA_MAX - 14 - entry - key.len();
    for name in ["1", "2", "3", "4", "5", "6"] {
        assert_eq!(set(&mut device, name, limits::METADATA_VALUE_MAX), Ok(()));
        left -= entry + name.len();
    }
    assert_eq!(set(&mut device, "7", left - 3), Err(Code::MetadataFull));
    assert_eq!(set(&mut device, "7", left - 4), Ok(()));
    assert_eq!(pairs(&mut device, Subject::Device).len(), 8);
    assert_eq!(set(&mut device, "8", 0), Err(Code::MetadataFull));
}
