//! A block device or a file as a `Region`: where the boards' codec finds the loader's environment by sector offsets.
//!
//! Fault model: a write is in force only after `sync` returned; the first read after `drop_cache` comes from the medium,
//! not from memory, so a device that swallows writes is found out. That read goes through a second descriptor opened
//! with `O_DIRECT`; where the medium refuses that (some file systems), the kernel is asked to drop its pages instead,
//! which it may do only in part: said once, when the region is opened.
//! The file system on that partition, if any, is never mounted: its files are pre-sized and only their sectors are
//! written.

use crate::faults;
use log::warn;
use runtime::{fault::Code, port::Region, protocol::Row};
use rustix::{
    fd::OwnedFd,
    fs::{Advice, Mode, OFlags, SeekFrom},
    io::Errno,
};

/// What `O_DIRECT` asks of address, offset and length, on every device that there is.
pub const ALIGN: usize = 4096;

#[repr(align(4096))]
struct Page([u8; ALIGN]);

/// An open block device or file.
pub struct BlockRegion {
    fd: OwnedFd,
    /// Reads past the page cache, and room for what does not lie on whole pages.
    direct: Option<(OwnedFd, Box<Page>)>,
    /// The next read must show the medium.
    past_cache: bool,
}

impl BlockRegion {
    /// Opens `path` for reading and writing; read back past the cache as far as the kernel drops its pages.
    pub fn open(path: &str) -> Result<Self, Errno> {
        rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self::from)
    }

    /// As [`BlockRegion::open`], and reads back with `O_DIRECT`.
    pub fn direct(path: &str) -> Result<Self, Errno> {
        let mut region = Self::open(path)?;
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => region.direct = Some((fd, Box::new(Page([0; ALIGN])))),
            Err(error) => warn!("{path}: no O_DIRECT ({error}): read back as far as the kernel drops its cache"),
        }
        Ok(region)
    }

    /// Whether what is read back surely comes from the medium.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Reads past the cache. An error also means that the device wants another alignment than ours.
    fn read_direct(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
        let Some((fd, page)) = &mut self.direct else { return Err(Errno::OPNOTSUPP) };
        let whole = |number: usize| number.is_multiple_of(ALIGN);
        if whole(out.as_ptr() as usize) && whole(out.len()) && offset.is_multiple_of(ALIGN as u64) {
            return read_all(fd, offset, out, out.len());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let skip = (at % ALIGN as u64) as usize;
            let take = (ALIGN - skip).min(out.len() - done);
            read_all(fd, at - skip as u64, &mut page.0, skip + take)?;
            out[done..done + take].copy_from_slice(&page.0[skip..skip + take]);
            done += take;
        }
        Ok(())
    }
}

/// Reads until at least `need` bytes are there: the last page of a device may be a part of one.
fn read_all(fd: &OwnedFd, offset: u64, out: &mut [u8], need: usize) -> Result<(), Errno> {
    let mut done = 0;
    while done < need {
        match rustix::io::pread(fd, &mut out[done..], offset + done as u64) {
            Ok(0) => return Err(Errno::NXIO),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl From<OwnedFd> for BlockRegion {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, direct: None, past_cache: false }
    }
}

impl Region for BlockRegion {
    fn step(&mut self, row: Row) {
        faults::step(row);
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        if core::mem::take(&mut self.past_cache) {
            match self.read_direct(offset, out) {
                Ok(()) => return Ok(()),
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    let _ = rustix::fs::fadvise(&self.fd, 0, None, Advice::DontNeed);
                }
                Err(_) => return Err(Code::StorageIo),
            }
        }
        let need = out.len();
        read_all(&self.fd, offset, out, need).map_err(|error| match error {
            Errno::NXIO => Code::StorageDamaged,
            _ => Code::StorageIo,
        })
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(&self.fd, &data[done..], offset + done as u64) {
                Ok(0) => return Err(Code::StorageIo),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Code::StorageIo),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Code> {
        if faults::is_sync_idle() {
            return Ok(());
        }
        // Of a file nothing changes but the content. An `fsync` would also wait for the journal, and so for everybody's data.
        rustix::fs::fdatasync(&self.fd).map_err(|_| Code::StorageIo)
    }

    fn drop_cache(&mut self) {
        self.past_cache = true;
    }

    fn length(&mut self) -> Option<u64> {
        rustix::fs::seek(&self.fd, SeekFrom::End(0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::FileExt};

    /// A file on a real file system: the temporary folder may be memory.
    fn file(name: &str, length: usize) -> std::path::PathBuf {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let _ = fs::create_dir(&folder);
        let path = folder.join(format!("switchback-region-{name}-{}", std::process::id()));
        fs::write(&path, vec![0u8; length]).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_back_and_the_end_is_an_error() {
        let path = file("plain", 1024);
        for open in [BlockRegion::open, BlockRegion::direct] {
            let mut region = open(path.to_str().unwrap()).unwrap();
            assert_eq!(region.length(), Some(1024));
            region.write_at(512, b"copy").unwrap();
            region.sync().unwrap();
            region.drop_cache();
            let mut out = [0; 4];
            region.read_at(512, &mut out).unwrap();
            assert_eq!(&out, b"copy");
            assert_eq!(region.read_at(1022, &mut out), Err(Code::StorageDamaged));
        }
        fs::remove_file(path).unwrap();
    }

    /// Every alignment of offset, length and room gives the same bytes, past the cache and through it.
    #[test]
    fn a_direct_read_gives_the_same_bytes_wherever_they_are() {
        let path = file("direct", 3 * ALIGN + 700);
        let content: Vec<u8> = (0..3 * ALIGN + 700).map(|index| (index / 7) as u8).collect();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(&content, 0).unwrap();
        let mut region = BlockRegion::direct(path.to_str().unwrap()).unwrap();
        let mut room = vec![0; 5 * ALIGN];
        let aligned = room.as_ptr().align_offset(ALIGN);
        for shift in [0, 1] {
            for offset in [0, 4, 512, ALIGN - 1, ALIGN, ALIGN + 512, 2 * ALIGN] {
                for length in [1, 4, 512, ALIGN - 3, ALIGN, ALIGN + 700] {
                    let out = &mut room[aligned + shift..][..length];
                    out.fill(0xee);
                    region.sync().unwrap();
                    region.drop_cache();
                    region.read_at(offset as u64, out).unwrap();
                    assert!(out == &content[offset..][..length], "{shift} {offset} {length}");
                }
            }
        }
        // Past the end it is an error, not old bytes.
        region.drop_cache();
        assert!(region.read_at((3 * ALIGN + 698) as u64, &mut room[..4]).is_err());
        fs::remove_file(path).unwrap();
    }

    /// Memory file systems of older kernels refuse `O_DIRECT`; what cannot be opened so still works.
    #[test]
    fn without_a_direct_descriptor_the_cache_is_dropped_and_read_through() {
        let path = file("advice", 1024);
        let mut region = BlockRegion::open(path.to_str().unwrap()).unwrap();
        assert!(!region.is_direct());
        region.write_at(0, b"x").unwrap();
        region.sync().unwrap();
        region.drop_cache();
        let mut out = [0; 1];
        region.read_at(0, &mut out).unwrap();
        assert_eq!(&out, b"x");
        fs::remove_file(path).unwrap();
    }
}
