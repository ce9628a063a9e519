//! The block device as a `Region`: where the boards' codec finds the loader's environment by sector offsets.
//!
//! Fault model: a write is in force only after `sync` returned; what is read back after `drop_cache` comes from
//! the medium, not from memory, so a device that swallows writes is found out.
//! The file system on that partition, if any, is never mounted: its two files are pre-sized and only their
//! sectors are written.

use runtime::{fault::Code, port::Region};
use rustix::{
    fd::OwnedFd,
    fs::{Advice, Mode, OFlags},
    io::Errno,
};

/// An open block device or file.
pub struct BlockRegion(OwnedFd);

impl BlockRegion {
    /// Opens `path` for reading and writing.
    pub fn open(path: &str) -> Result<Self, Errno> {
        rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }
}

impl From<OwnedFd> for BlockRegion {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Region for BlockRegion {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        let mut done = 0;
        while done < out.len() {
            match rustix::io::pread(&self.0, &mut out[done..], offset + done as u64) {
                Ok(0) => return Err(Code::StorageDamaged),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Code::StorageIo),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(&self.0, &data[done..], offset + done as u64) {
                Ok(0) => return Err(Code::StorageIo),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Code::StorageIo),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Code> {
        rustix::fs::fsync(&self.0).map_err(|_| Code::StorageIo)
    }

    fn drop_cache(&mut self) {
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_end_is_an_error() {
        let path = std::env::temp_dir().join(format!("switchback-region-{}", std::process::id()));
        std::fs::write(&path, [0u8; 1024]).unwrap();
        let mut region = BlockRegion::open(path.to_str().unwrap()).unwrap();
        region.write_at(512, b"copy").unwrap();
        region.sync().unwrap();
        region.drop_cache();
        let mut out = [0; 4];
        region.read_at(512, &mut out).unwrap();
        assert_eq!(&out, b"copy");
        assert_eq!(region.read_at(1022, &mut out), Err(Code::StorageDamaged));
        std::fs::remove_file(path).unwrap();
    }
}
