//! What a replay needs of the machine that it runs on: root, file systems in user space, loop devices, mounts.
//!
//! Invariants: a mount is gone with its value, or the process ends: what stays mounted would be looked at again in place of
//! the next state.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use platform::disk::Volumes;
use runtime::{fault::Code, grow};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::tour::{Outcome, ensure};

/// The flags with which a device mounts.
pub const FLAGS: MountFlags = MountFlags::NOATIME.union(MountFlags::NODEV).union(MountFlags::NOSUID);

/// A mounted file system; unmounted with this value.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts ext4, with these options.
    pub fn new(device: &str, at: &Path, flags: MountFlags, options: &std::ffi::CStr) -> Outcome<Self> {
        let source = CString::new(device)?;
        mount(&source, at, c"ext4", flags, Some(options))?;
        Ok(Self(at.into()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A descriptor that is just being closed keeps it busy for a moment.
        for _ in 0..1000 {
            match unmount(&self.0, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(1)),
                _ => return,
            }
        }
        // What stays mounted would be looked at again in place of the next state.
        eprintln!("replay: {} cannot be unmounted", self.0.display());
        std::process::exit(70);
    }
}

/// What grows with storage's partition: a loop device that reaches to the end of the disk whatever the table says. No
/// volumes: this machine lets nobody resize what is mounted.
pub struct Loop<'a>(pub Option<&'a Volumes>);

impl grow::Ground for Loop<'_> {
    fn tell(&mut self, _: u8, _: u64, _: u64) -> Result<(), Code> {
        Ok(())
    }

    fn fill(&mut self, length: u64) -> Result<(), Code> {
        self.0.map_or(Ok(()), |volumes| volumes.grow(length)).map_err(|_| Code::StorageIo)
    }
}

/// Whether this machine lets root resize a mounted file system, as a device does. Some lend a root without that: there
/// resize2fs does it, of what is not mounted.
pub fn may_resize() -> Outcome<bool> {
    let own = rustix::thread::capabilities(None)?;
    Ok(own.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
}

/// Fails unless everything is there that a replay needs.
pub fn requirements() -> Outcome<()> {
    ensure(rustix::process::geteuid().is_root(), || "a replay mounts file systems: run it as root".into())?;
    for device in ["/dev/fuse", "/dev/loop-control"] {
        File::open(device).map_err(|error| format!("a replay needs {device}: {error}"))?;
    }
    Ok(())
}
