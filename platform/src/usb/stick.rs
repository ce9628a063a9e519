//! `stick`: one USB stick. Mounts it, opens the one file that is looked for, gives up every privilege, and does with the
//! file what `pvcontrol steps install --run` does.
//!
//! Invariants: the mount is never attached anywhere: it is read-only, without devices, programs, set-user-id bits and
//! symbolic links, nothing of its journal is replayed, and what its own settings ask for on an error does not count. The
//! first byte of the file is read without capabilities, as a user of its own, with the files, and the system calls, of a
//! client of the control socket. A revision is run only when it is durable that it is.
//! Fault model: the kernel's drivers parse the file system, and a hostile one may break them: nothing here helps against
//! that, which is why it takes a policy. The medium lies, changes between two reads, stops answering, is pulled out; the
//! device is busy or full. After a refusal nothing of the device is changed but objects that its next collection removes.
//! Not here: what is checked of the archive (`pvcontrol::install`, `runtime::admit`), what was tried (`tried`).

use super::tried::{Standing, Tried};
use crate::{
    confine,
    kmsg::Why,
    launch::mounts,
    pvcontrol::client::{self, Failure},
    wire::{Buffer, Channel, Message, WireError},
};
use log::{info, warn};
use runtime::{fault::Code, id::ObjectId, limits, port::Owner};
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat},
    io::Errno,
    mount::MountAttrFlags,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

/// The file that is looked for, in the top folder.
pub const FILE: &str = "update.pvrexport.tgz";
/// File systems that can be mounted, with their options: read-only is not enough for a journal not to be replayed, and
/// an error must not be what the medium asks it to be, which can be a panic.
pub const KINDS: [(&str, &str); 3] =
    [("vfat", "ro,errors=continue"), ("exfat", "ro,errors=continue"), ("ext4", "ro,noload,errors=continue")];
/// How the revision is described.
const MESSAGE: &str = "From a USB stick";
/// How long another update is waited for.
const BUSY: Duration = Duration::from_secs(limits::RETRY_AFTER_UPDATE_S as u64);
/// Pause before the device is asked again.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// Handles the stick that the order names, and ends.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut buffer = Buffer::new();
    let Some(request) = channel.receive(&mut buffer)? else { return Ok(()) };
    let Message::Stick { node, kinds, tried } = request.message else { return Err(WireError::Kind) };
    let found = open(node, kinds);
    confine::become_user_in(confine::USB_UID, confine::ENDPOINT_UID)?;
    confine::close_files(None)?;
    confine::restrict(confine::Calls::Client)?;
    let ended = found.and_then(|file| install(channel, node, &file, tried));
    match ended {
        Ok(()) => {}
        Err(Trouble { code, detail }) if matches!(code, Code::StickEmpty | Code::StickKnown) => {
            info!("{node}: {code} {}{detail}; nothing is done", code.text());
        }
        Err(Trouble { code, detail }) => warn!("{node}: {code} {}{detail}; nothing of it is run", code.text()),
    }
    Ok(())
}

/// Why nothing came of a stick.
#[derive(PartialEq, Eq, Debug)]
struct Trouble {
    code: Code,
    /// What there is to add, with its separator.
    detail: String,
}

impl Trouble {
    fn new(code: Code) -> Self {
        Self { code, detail: String::new() }
    }

    fn why(code: Code, why: impl core::fmt::Display) -> Self {
        Self { code, detail: format!(": {why}") }
    }

    fn of(failure: Failure) -> Self {
        match failure {
            Failure::File(why) => Self::why(Code::StickUnreadable, why),
            Failure::Busy(why) => Self::why(Code::Busy, why),
            Failure::Other(why) => Self::why(Code::StickRefused, why),
        }
    }
}

// ---- with privileges ------------------------------------------------------------------------------------------------

/// Mounts the stick and opens the file. The mount lives as long as the file is open.
fn open(node: &str, kinds: &str) -> Result<File, Trouble> {
    let top = mount(&format!("/dev/{node}"), kinds)?;
    find(&top).map(File::from)
}

fn mount(device: &str, kinds: &str) -> Result<mounts::Detached, Trouble> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
    let mut why = String::new();
    for (kind, options) in KINDS.iter().filter(|(kind, _)| kinds.split(',').any(|wanted| wanted == *kind)) {
        match mounts::filesystem(kind, device, options, attributes) {
            Ok(mount) => return Ok(mount),
            Err(errno) => why += &format!("{}{kind}: {}", if why.is_empty() { "" } else { ", " }, Why(errno)),
        }
    }
    Err(Trouble::why(Code::StickUnmountable, why))
}

/// Opens the file, which must be one: not what a link leads to, not a folder, not a pipe.
fn find(top: &mounts::Detached) -> Result<OwnedFd, Trouble> {
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = mounts::resolve(top.top(), FILE, flags, Mode::empty(), rules).map_err(|errno| match errno {
        Errno::NOENT => Trouble::new(Code::StickEmpty),
        Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::ACCESS => Trouble::new(Code::StickFile),
        errno => Trouble::why(Code::StickUnreadable, Why(errno)),
    })?;
    let kind = fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::RegularFile) => Ok(file),
        _ => Err(Trouble::new(Code::StickFile)),
    }
}

// ---- without ----------------------------------------------------------------------------------------------------------

/// Installs and runs what the file holds, unless it was tried before.
fn install(channel: &Channel, node: &str, file: &File, tried: &[u8]) -> Result<(), Trouble> {
    let tried = Tried::decode(tried).map_err(Trouble::new)?;
    let export = hash(file)?;
    let rev = revision(export);
    let standing = match client::progress(&rev).map_err(Trouble::of)? {
        Some((status, code)) => Standing::of(&status, &code),
        None => Standing::None,
    };
    if !tried.wants(export, standing) {
        return Err(Trouble::why(Code::StickKnown, &rev));
    }
    info!("{node}: {FILE} is installed as {rev}");
    client::install(file, &rev, MESSAGE).map_err(Trouble::of)?;
    remember(channel, &tried.with_run_of(export))?;
    info!("{node}: {rev} is run; pvcontrol steps show-progress {rev} tells how it fares");
    patiently(|| client::run(&rev))
}

/// The name of the revision that an export becomes, everywhere and always the same.
fn revision(export: ObjectId) -> String {
    const DIGITS: usize = 16;
    let name = export.to_string();
    format!("locals/usb-{}", &name[..DIGITS])
}

fn hash(file: &File) -> Result<ObjectId, Trouble> {
    let (mut hash, mut chunk, mut at) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        match file.read_at(&mut chunk, at) {
            Ok(0) => return Ok(ObjectId(hash.finalize().into())),
            Ok(count) => {
                hash.update(&chunk[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Trouble::why(Code::StickUnreadable, error)),
        }
        if at > limits::ARCHIVE_MAX {
            return Err(Trouble::new(Code::ArchiveTooLarge));
        }
    }
}

/// Has it kept what is tried. Without that, nothing is.
fn remember(channel: &Channel, tried: &Tried) -> Result<(), Trouble> {
    let mut buffer = Buffer::new();
    let told = channel.send(1, &Message::Remember { owner: Owner::Usb, bytes: &tried.encode() }, &[]);
    match told.and_then(|()| channel.receive(&mut buffer)) {
        Ok(Some(answer)) => match answer.message {
            Message::Done { ok: true, .. } => Ok(()),
            Message::Done { refusal, .. } => Err(Trouble::new(refusal.code)),
            _ => Err(Trouble::new(Code::Internal)),
        },
        _ => Err(Trouble::new(Code::ErrandDied)),
    }
}

/// Asks until the device is not busy with another update.
fn patiently(mut ask: impl FnMut() -> Result<(), Failure>) -> Result<(), Trouble> {
    let until = Instant::now() + BUSY;
    loop {
        match ask() {
            Err(Failure::Busy(why)) if Instant::now() >= until => return Err(Trouble::why(Code::UpdateBusy, why)),
            Err(Failure::Busy(_)) => client::pause(BUSY_PAUSE),
            other => return other.map_err(Trouble::of),
        }
    }
}
