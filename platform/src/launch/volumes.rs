//! `/volumes/<container>/…`: the images of a revision and the container's writable places.
//!
//! Invariants: an image is mounted from the descriptor that was hashed, read-only, whatever its name says. A
//! writable place is a folder of storage below the container's own name, or memory.
//! Faults: an image that is no file system of its kind (`ImageInvalid`), storage that cannot be written
//! (`MountFailed`). Folders made here need no sync: they are made again when they are not there.
//! Not here: dm-verity, encrypted disks (a place that asks for one is refused), writable images.

use super::{
    DISKS, Fault, STORAGE, Step, VOLUMES,
    loops::Loop,
    mounts::{self, filesystem, folder},
};
use runtime::{
    fault::Code,
    id::{PartName, RevName},
    state::{File, Persistence, Storage},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    io::Errno,
    mount::{MountAttrFlags, UnmountFlags, unmount},
};

/// Gives a container a private `/volumes/<container>`, so that nothing that is made there outlives it.
pub fn private_folder(container: PartName) -> Result<(), Fault> {
    let at = format!("{VOLUMES}/{container}");
    folder(&at)
        .and_then(|_| filesystem("tmpfs", "volumes", "mode=755,size=256k", MountAttrFlags::empty())?.attach_at(&at))
        .step(Code::MountFailed, || format!("mount a tmpfs on {at}"))
}

/// Takes away what an earlier run of a container that is only mounted left at `/volumes/<container>`: that it is one
/// mount makes it go as a whole, and containers that use it keep what they have.
pub fn unmount_all(container: PartName) -> Result<(), Fault> {
    let at = format!("{VOLUMES}/{container}");
    loop {
        match unmount(at.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return private_folder(container), // no mount is left
            Err(errno) => return Err(errno).step(Code::MountFailed, || format!("unmount {at}")),
        }
    }
}

/// Mounts an image at its place. `fd` is open on its object.
pub fn image(container: PartName, file: &File, fd: &OwnedFd) -> Result<(), Fault> {
    let at = format!("{VOLUMES}/{container}/{}", file.path);
    let kind = file.path.as_str().rsplit_once('.').map_or("", |(_, kind)| kind);
    if kind == "bind" {
        let (parent, _) = at.rsplit_once('/').unwrap_or((&at, ""));
        return folder(parent)
            .and_then(|_| std::fs::write(&at, b"").map_err(errno))
            .and_then(|()| bind_read_only(mounts::view_of(fd.as_fd(), false)?, &at))
            .step(Code::MountFailed, || format!("bind {} on {at}", file.path));
    }
    if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(Fault::new(Code::ImageInvalid, format!("{}: its name ends in no kind of file system", file.path)));
    }
    folder(&at).step(Code::MountFailed, || format!("make {at}"))?;
    let device = Loop::attach(fd.as_fd()).step(Code::MountFailed, || format!("loop device for {}", file.path))?;
    mounts::image(kind, &device.path())
        .step(Code::ImageInvalid, || format!("mount {} as {kind}", file.path))?
        .attach_at(&at)
        .step(Code::MountFailed, || format!("attach {} at {at}", file.path))
}

/// Binds a folder of the revision (`x.data`) at its place.
pub fn data(rev: RevName, container: PartName, file: &File) -> Result<(), Fault> {
    let at = format!("{VOLUMES}/{container}/{}", file.path);
    let from = format!("{STORAGE}/trails/{rev}/{}", file.key);
    folder(&at)
        .and_then(|_| bind_read_only(mounts::view(&from, true)?, &at))
        .step(Code::MountFailed, || format!("bind {from} on {at}"))
}

fn bind_read_only(view: mounts::Detached, at: &str) -> rustix::io::Result<()> {
    view.change(MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty(), true)?;
    view.attach_at(at)
}

/// Mounts a writable place.
pub fn storage(rev: RevName, container: PartName, place: &Storage) -> Result<(), Fault> {
    let at = format!("{VOLUMES}/{container}/{}", place.name);
    if place.on_disk {
        return Err(Fault::new(Code::MountFailed, format!("storage {}: this device has no such disk", place.name)));
    }
    let mounted = match backing(rev, container, place) {
        // A place may lie in another one, where the container writes: no link of its own is followed.
        Some(from) => folder(&at).and_then(|_| {
            folder(&from)?;
            mounts::view_of(mounts::folder_without_links(&from)?.as_fd(), false)?.attach_at(&at)
        }),
        None => {
            folder(&at).and_then(|_| filesystem("tmpfs", "boot", "mode=755", MountAttrFlags::empty())?.attach_at(&at))
        }
    };
    mounted.step(Code::MountFailed, || format!("mount storage {} on {at}", place.name))
}

/// The folder that a place lives in; `None` if it lives in memory. Reference: device-formats 1.8.
pub fn backing(rev: RevName, container: PartName, place: &Storage) -> Option<String> {
    match place.persistence {
        Persistence::Permanent => Some(format!("{DISKS}/perm/{container}/{}", place.name)),
        Persistence::Revision => Some(format!("{DISKS}/rev/{rev}/{container}/{}", place.name)),
        Persistence::Boot => None,
    }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
