//! Loop devices on images, from a descriptor that somebody else opened, and hashed or not: a USB stick is not.
//!
//! Invariants: a device made here is read-only and AUTOCLEAR: it ends with the last mount or descriptor
//! that uses it, so nothing is left to clean up, whoever dies. The descriptor is the identity of the image;
//! no path is looked up again between hashing and mounting.
//! Faults: all devices busy, or another process wins the device between asking and configuring (tried again).
//! Not here: device-mapper, writable images.

use crate::sys;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags, openat},
    io::{self, Errno},
};

/// How often a device may be lost to another process before we give up: more than there can be launchers.
const ATTEMPTS: usize = 64;

/// A configured loop device, alive as long as this or a mount of it.
pub struct Loop {
    /// Keeps the device configured until it is mounted.
    pub device: OwnedFd,
    /// `/dev/loop<number>`.
    pub number: u32,
}

impl Loop {
    /// Puts a free loop device on `image`.
    pub fn attach(image: BorrowedFd<'_>) -> io::Result<Loop> {
        let control = openat(CWD, c"/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..ATTEMPTS {
            let number = sys::loop_free(control.as_fd())?;
            let device = openat(CWD, format!("/dev/loop{number}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            match sys::loop_configure(device.as_fd(), image) {
                Ok(()) => return Ok(Loop { device, number }),
                Err(Errno::BUSY) => continue,
                Err(error) => return Err(error),
            }
        }
        Err(Errno::BUSY)
    }

    /// The device's path.
    pub fn path(&self) -> String {
        format!("/dev/loop{}", self.number)
    }
}
