//! One copy of the environment in a UBI volume of its own.
//!
//! A volume is replaced as a whole: announced by an ioctl, then written. Fault model: power that fails in between leaves
//! the volume marked as being updated, and it cannot be read until an update completes. That is a damaged copy, not an
//! unreadable one: nothing is left in it that the loader could choose. Opened for each use, because an update needs the
//! volume for itself, and so does an owner's `fw_setenv`.

use super::{Holds, mtd::whole};
use crate::sys;
use log::warn;
use runtime::fault::Code;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{ffi::CString, fs, path::Path};

/// Volumes of a UBI device that are looked at: as many as UBI has.
const VOLUMES_MAX: usize = 128;

/// A volume.
pub struct Volume {
    node: CString,
    size: usize,
}

impl Volume {
    /// The volume with this name of `/dev/ubiN`, for a copy of `size` bytes.
    pub fn find(device: &str, name: &str, size: usize) -> Result<Self, Code> {
        let folder = device.rsplit('/').next().unwrap_or(device);
        for index in 0..VOLUMES_MAX {
            let class = Path::new("/sys/class/ubi").join(format!("{folder}_{index}"));
            if fs::read_to_string(class.join("name")).is_ok_and(|found| found.trim_end() == name) {
                let read = |file| fs::read_to_string(class.join(file)).ok()?.trim_end().parse::<usize>().ok();
                let room = read("reserved_ebs").zip(read("usable_eb_size")).map_or(0, |(blocks, each)| blocks * each);
                if room < size {
                    warn!("volume {name} of {device} holds {room} bytes, the environment is {size}");
                    return Err(Code::EnvLayout);
                }
                return Self::at(&format!("{device}_{index}"), size);
            }
        }
        warn!("{device} has no volume {name}");
        Err(Code::EnvLayout)
    }

    /// The volume with this device node.
    pub fn at(node: &str, size: usize) -> Result<Self, Code> {
        CString::new(node).map(|node| Self { node, size }).map_err(|_| Code::EnvLayout)
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Code> {
        rustix::fs::open(self.node.as_c_str(), flags | OFlags::CLOEXEC, Mode::empty()).map_err(|_| Code::StorageIo)
    }
}

impl Holds for Volume {
    /// Fills `out`; with erased bytes if an update of the volume was cut short, or never made.
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Code> {
        let volume = self.open(OFlags::RDONLY)?;
        match whole(out.len(), |done| rustix::io::pread(&volume, &mut out[done..], at + done as u64)) {
            Ok(()) => Ok(()),
            Err(Errno::BADF | Errno::NXIO) => {
                out.fill(0xff);
                Ok(())
            }
            Err(_) => Err(Code::StorageIo),
        }
    }

    /// Replaces the volume's content. Durable when it returns.
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Code> {
        if at != 0 || data.len() != self.size {
            return Err(Code::StorageIo);
        }
        let volume = self.open(OFlags::RDWR)?;
        let update = || {
            sys::ubi_update(&volume, data.len() as i64)?;
            whole(data.len(), |done| rustix::io::write(&volume, &data[done..]))?;
            rustix::fs::fsync(&volume)
        };
        update().map_err(|_| Code::StorageIo)
    }
}
