//! Our two file systems on their way to being mounted: looked at, mended, repaired where the image has `e2fsck`, mounted.
//!
//! The kernel marks a file system in which it has met damage, and mounts it all the same, at this boot and at every
//! later one; what is then written may make it worse. So one that is marked is repaired before it is mounted, and so is
//! one that does not mount. First its superblock is mended if a power cut may have torn it, which needs nothing but us
//! and loses nothing (`superblock`); most often that is all. Then by `e2fsck -p`, which does only what loses nothing,
//! and refuses the rest. What it refuses nobody here can be asked about: `e2fsck -fy` gives up what cannot be kept, and
//! the status says that it did. Revisions and objects are checked after that as always, so what it gave up is fetched
//! again or refused, never run.
//!
//! Invariants: nothing is written to a file system that is neither marked nor refused by `mount`. `e2fsck` never runs on a
//! mounted one. Whatever was found wrong has a code. Every wait has a bound and feeds the watchdog.
//! Fault model: the device may be missing, hold anything or nothing, or fail; `e2fsck` may be missing, fail, or not end.
//! Not here: damage that nobody has met yet; what is not ext4.

use crate::{early, faults, kmsg::Why, superblock, sys, watchdog::Watchdog};
use core::ffi::CStr;
use log::warn;
use runtime::fault::Code;
use rustix::{
    mount::MountFlags,
    process::{Pid, WaitStatus},
};
use std::{
    ffi::CString,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// How long mounting a file system may take: it replays the journal of one that was cut off.
pub const MOUNT_PATIENCE: Duration = Duration::from_secs(120);
/// How long one run of the repair may take.
const FSCK_PATIENCE: Duration = Duration::from_secs(600);
/// Repairs a file system, if the image has it: `pvr image bsp --e2fsck`.
const FSCK: &str = "/sbin/e2fsck";
/// What it says, until it is in the log: a few kilobytes, and on a ruin more than the log should take.
const SAID: &str = "/run/switchback/e2fsck";
/// Lines of that for the log.
const SAID_LINES_MAX: usize = 40;
/// Bits of its exit code: what was wrong was put right, the system should restart (which is for one that was mounted).
const CORRECTED: i32 = 1 | 2;

/// Mounts a file system of ours, with these further words. What had to be done, or is still wrong with it; or why it is not mounted.
pub fn mount(
    device: &str,
    at: &CStr,
    data: Option<&'static CStr>,
    watchdog: &mut Watchdog,
) -> Result<Option<Code>, Code> {
    early::make_dir(at);
    let source = CString::new(device).map_err(|_| Code::Internal)?;
    if !Path::new(device).exists() {
        return Err(Code::PartitionMissing);
    }
    let marked = is_marked(device);
    if marked {
        warn!("{device} is marked as damaged by the kernel that met the damage");
    } else if mount_once(&source, at, data, watchdog) {
        return Ok(None);
    }
    let mended = mend(device, watchdog);
    if mended && !marked && mount_once(&source, at, data, watchdog) {
        warn!("{device}: {} {}", Code::SuperblockMended, Code::SuperblockMended.text());
        return Ok(Some(Code::SuperblockMended));
    }
    let repaired = repair(device, watchdog);
    if (marked || repaired.is_some()) && mount_once(&source, at, data, watchdog) {
        let code = repaired.unwrap_or(Code::StillDamaged);
        warn!("{device}: {code} {}", code.text());
        return Ok(Some(code));
    }
    Err(Code::Unmountable)
}

/// Gives back the memory that the repair took: nothing is mounted after this.
pub fn forget() {
    let _ = std::fs::remove_file(FSCK); // most images have none
}

/// Whether ext4's superblock says that damage was met. One that cannot be read, or is none, is the business of `mount`.
fn is_marked(device: &str) -> bool {
    const ERROR: u16 = 2;
    let mut words = [0u8; 4]; // s_magic, s_state
    let read = File::open(device).and_then(|file| file.read_exact_at(&mut words, superblock::AT + 56));
    let [magic, state] = [[words[0], words[1]], [words[2], words[3]]].map(u16::from_le_bytes);
    read.is_ok() && magic == superblock::MAGIC && state & ERROR != 0
}

/// Mends a superblock that a power cut has torn, in a child, because a medium may take its time; whether it did.
fn mend(device: &str, watchdog: &mut Watchdog) -> bool {
    let child = sys::fork_and(|| match superblock::mend(device) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(code) => {
            warn!("{device}: its superblock cannot be looked at, or not mended: {code} {}", code.text());
            1
        }
    });
    let ended = child.ok().and_then(|child| watchdog.feed_during(child, MOUNT_PATIENCE));
    let mended = ended.and_then(|status| status.exit_status()) == Some(0);
    if mended {
        warn!("{device}: its superblock was torn, and has a checksum that fits again");
    }
    mended
}

/// Mounts in a child, because only its end can be waited for with the watchdog fed.
fn mount_once(source: &CStr, at: &CStr, data: Option<&'static CStr>, watchdog: &mut Watchdog) -> bool {
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
    let data = faults::mount_data().or(data);
    let child = sys::fork_and(|| match rustix::mount::mount(source, at, c"ext4", flags, data) {
        Ok(()) => 0,
        Err(error) => {
            warn!("{source:?} does not mount on {at:?}: {}", Why(error));
            1
        }
    });
    match child.map(|child| watchdog.feed_during(child, MOUNT_PATIENCE)) {
        Ok(Some(status)) => status.exit_status() == Some(0),
        Ok(None) => {
            warn!("{source:?} is not mounted on {at:?} after {} s", MOUNT_PATIENCE.as_secs());
            false
        }
        Err(error) => {
            warn!("{source:?} cannot be mounted: {}", Why(error));
            false
        }
    }
}

/// Repairs a file system. What that was worth; `None`: it could not be done.
fn repair(device: &str, watchdog: &mut Watchdog) -> Option<Code> {
    if !Path::new(FSCK).exists() {
        warn!("{device} cannot be repaired: this image has no {FSCK}");
        return None;
    }
    let is_whole = |status: Option<WaitStatus>| {
        status.and_then(|status| status.exit_status()).is_some_and(|exit| exit & !CORRECTED == 0)
    };
    if is_whole(fsck("-p", device, watchdog)) {
        return Some(Code::Repaired);
    }
    is_whole(fsck("-fy", device, watchdog)).then_some(Code::RepairedWithLoss)
}

/// Runs it once; how it ended, `None` if it could not be run or had no end. What it said is logged.
fn fsck(how: &str, device: &str, watchdog: &mut Watchdog) -> Option<WaitStatus> {
    let started = File::create(SAID).and_then(|said| {
        let errors = said.try_clone()?;
        Command::new(FSCK).args([how, device]).stdin(Stdio::null()).stdout(said).stderr(errors).spawn()
    });
    let ended = match started {
        Ok(child) => watchdog.feed_during(Pid::from_child(&child), FSCK_PATIENCE),
        Err(error) => {
            warn!("{FSCK}: {error}");
            return None;
        }
    };
    let said = std::fs::read(SAID).unwrap_or_default();
    let _ = std::fs::remove_file(SAID);
    let said = String::from_utf8_lossy(&said);
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.by_ref().take(SAID_LINES_MAX).for_each(|line| warn!("e2fsck: {line}"));
    match lines.count() {
        0 => {}
        more => warn!("e2fsck: and {more} lines more"),
    }
    match ended {
        Some(status) => warn!("{FSCK} {how} {device}: {status:?}"),
        None => warn!("{FSCK} {how} {device} has no end after {} s", FSCK_PATIENCE.as_secs()),
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &mut Command) {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn what_the_kernel_has_marked_is_seen() {
        let image = std::env::temp_dir().join(format!("switchback-marked-{}.img", std::process::id()));
        File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let path = image.to_str().unwrap();
        assert!(!is_marked(path) && !is_marked("/nowhere"), "no file system");
        run(Command::new("mke2fs").args(["-q", "-t", "ext4", path]));
        assert!(!is_marked(path), "a new one is clean");
        run(Command::new("debugfs").args(["-w", "-R", "set_super_value state 3", path]));
        assert!(is_marked(path));
        run(Command::new("debugfs").args(["-w", "-R", "set_super_value state 0", path]));
        assert!(!is_marked(path), "mounted, or cut off: no damage");
        std::fs::remove_file(image).unwrap();
    }
}
