//! Marks: remarks of the device in a recording of its disk's writes.
//!
//! A mark is one sector that belongs to no partition, written past every cache and without a flush: `SWBMARK `, a text
//! of one line, zeros. Its place in the recording says what was on its way to the disk before it and what was not.
//! The text is the id of the row of `runtime::protocol` whose effects come next, or `ack ` and what was reported: that
//! has to hold in every state of the disk that is later.
//! Invariants: nothing is allocated; a mark that cannot be written is an error on the console, and the recording lacks
//! it, which a replay that counts them notices.

use core::{
    ffi::CStr,
    fmt::{Arguments, Write},
};
use log::warn;
use runtime::{id::ObjectId, limits::METADATA_MAX, protocol::Row};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

const SECTOR: usize = 512;

struct Marks {
    disk: OwnedFd,
    at: u64,
}

static MARKS: OnceLock<Marks> = OnceLock::new();

/// Memory as a write past the caches wants it.
#[repr(align(512))]
struct Sector {
    bytes: [u8; SECTOR],
    used: usize,
}

impl Write for Sector {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.used..self.used + text.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}

/// Marks go to `DEVICE:SECTOR` from now on.
pub(super) fn open(place: &str) {
    let opened = place.split_once(':').and_then(|(device, sector)| {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let disk = rustix::fs::open(device, flags, Mode::empty()).ok()?;
        Some(Marks { disk, at: sector.parse::<u64>().ok()? * SECTOR as u64 })
    });
    match opened {
        Some(marks) => drop(MARKS.set(marks)),
        None => warn!("marks cannot be written to {place}"),
    }
}

/// The effects of this row come next.
pub(super) fn step(row: Row) {
    mark(format_args!("{}", row.id()));
}

/// This was reported.
pub fn ack(what: Arguments<'_>) {
    mark(format_args!("ack {what}"));
}

/// This was reported to be kept; the mark has its sha256.
pub fn ack_content(what: Arguments<'_>, bytes: &[u8]) {
    let id = ObjectId(Sha256::digest(bytes).into());
    ack(format_args!("{what} {id}"));
}

/// This file was reported to hold what it holds.
pub fn ack_file(path: &'static CStr) {
    let name = path.to_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let mut bytes = [0; METADATA_MAX + 1];
    match read(path, &mut bytes) {
        Ok(length) => ack_content(format_args!("{name}"), &bytes[..length]),
        Err(error) => warn!("a mark was not written: {name}: {error}"),
    }
}

/// As much of a file as there is room for; its length.
fn read(path: &CStr, out: &mut [u8]) -> rustix::io::Result<usize> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut length = 0;
    loop {
        match rustix::io::read(&file, &mut out[length..])? {
            0 => return Ok(length),
            more => length += more,
        }
    }
}

fn mark(text: Arguments<'_>) {
    let Some(marks) = MARKS.get() else { return };
    let mut sector = Sector { bytes: [0; SECTOR], used: 0 };
    let written = writeln!(sector, "SWBMARK {text}").map_err(|_| rustix::io::Errno::FBIG);
    match written.and_then(|()| rustix::io::pwrite(&marks.disk, &sector.bytes, marks.at)) {
        Ok(SECTOR) => {}
        other => warn!("a mark was not written: {other:?}"),
    }
}
