//! `stick`: one USB stick. Mounts it, opens the one file that is looked for, gives up every privilege, and does with the
//! file what `pvcontrol steps install --run` does.
//!
//! Invariants: the stick is never written: what is mounted is a read-only device on a descriptor opened for reading, for a
//! file system that is mounted read-only may still be tidied up by its driver. The mount is never attached anywhere: it is
//! without devices, programs, set-user-id bits and symbolic links, nothing of its journal is replayed, and what its own
//! settings ask for on an error does not count. It ends with who started it, so that no disk has two. The
//! first byte of the file is read without capabilities, as a user of its own, with the files, and the system calls, of a
//! client of the control socket. A revision is installed, and run, only when it is durable that it is.
//! Fault model: the kernel's drivers parse the file system, and a hostile one may break them: nothing here helps against
//! that, which is why it takes a policy. The medium lies, changes between two reads, stops answering, is pulled out; the
//! device is busy or full. After a refusal nothing of the device is changed but objects that its next collection removes.
//! Not here: what is checked of the archive (`pvcontrol::install`, `runtime::admit`), what was tried (`tried`).

use super::tried::{Standing, Tried};
use crate::{
    confine,
    kmsg::Why,
    launch::{loops::Loop, mounts},
    pvcontrol::client::{self, Failure},
    wire::{Buffer, Channel, Message, WireError},
};
use log::{info, warn};
use runtime::{fault::Code, id::ObjectId, limits, port::Owner};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat},
    io::Errno,
    mount::MountAttrFlags,
    process::{Signal, set_parent_process_death_signal},
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
    end_with_parent(channel)?;
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

/// Ends with who started us, whose successor starts another one for the same disk. A change of the user undoes it.
fn end_with_parent(channel: &Channel) -> Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that ended before that has closed its end.
    let mut fds = [PollFd::new(channel, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default()))?;
    if fds[0].revents().contains(PollFlags::HUP) { Err(Errno::PIPE) } else { Ok(()) }
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
    let top = mount(node, kinds).map_err(|why| Trouble::why(Code::StickUnmountable, why))?;
    find(&top).map(File::from)
}

fn mount(node: &str, kinds: &str) -> Result<mounts::Detached, String> {
    // The claim is that of a mount: nobody else's mount is read.
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let device = rustix::fs::open(format!("/dev/{node}"), flags, Mode::empty());
    let device = device.map_err(|errno| format!("/dev/{node}: {}", Why(errno)))?;
    let device = Loop::attach(device.as_fd()).map_err(|errno| format!("a loop device: {}", Why(errno)))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
    let mut why = String::new();
    for (kind, options) in KINDS.iter().filter(|(kind, _)| kinds.split(',').any(|wanted| wanted == *kind)) {
        match mounts::filesystem(kind, &device.path(), options, attributes) {
            Ok(mount) => return Ok(mount),
            Err(errno) => why += &format!("{}{kind}: {}", if why.is_empty() { "" } else { ", " }, Why(errno)),
        }
    }
    Err(why)
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
    let before = Tried::decode(tried).map_err(Trouble::new)?;
    let export = hash(file)?;
    let rev = revision(export);
    if !before.wants(export, standing(&rev).map_err(Trouble::of)?) {
        return Err(Trouble::why(Code::StickKnown, &rev));
    }
    info!("{node}: {FILE} is installed as {rev}");
    remember(channel, &before.clone().with_install_of(export))?;
    if let Err(failure) = client::install(file, &rev, MESSAGE, export) {
        // What ended does not count. If that cannot be kept, it does, and the bound comes nearer.
        let _ = remember(channel, &before);
        return Err(Trouble::of(failure));
    }
    remember(channel, &before.clone().with_run_of(export))?;
    info!("{node}: {rev} is run; pvcontrol steps show-progress {rev} tells how it fares");
    let ran = run_patiently(&rev);
    if ran.as_ref().is_err_and(|trouble| trouble.code == Code::UpdateBusy) {
        remember(channel, &before)?; // nothing of it was run
    }
    ran
}

/// What the device says of a revision.
fn standing(rev: &str) -> Result<Standing, Failure> {
    let progress = client::progress(rev)?;
    Ok(progress.map_or(Standing::None, |(status, code)| Standing::of(&status, &code)))
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

/// Asks until the device is not busy with another update, or has been told by somebody else to run this one.
fn run_patiently(rev: &str) -> Result<(), Trouble> {
    let until = Instant::now() + BUSY;
    loop {
        match client::run(rev) {
            Err(Failure::Busy(why)) if Instant::now() >= until => return Err(Trouble::why(Code::UpdateBusy, why)),
            Err(Failure::Busy(_)) => client::pause(BUSY_PAUSE),
            other => return other.map_err(Trouble::of),
        }
        match standing(rev) {
            Ok(Standing::Tried) => return Ok(()),
            Ok(_) | Err(Failure::Busy(_)) => {}
            Err(failure) => return Err(Trouble::of(failure)),
        }
    }
}
