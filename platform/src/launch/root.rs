//! The root file system: an overlay of images with a writable layer on top, or a folder; and the move into it.
//!
//! Invariants: the files that a revision brings in `_config/<container>/` lie directly above its root image and
//! below what the container wrote. The writable layer and its work folder (`olwork`, beside it) are on one volume.
//! After `enter` nothing of the device's own root is reachable, and its mounts are gone with it.
//! Faults: a layer that is not there, an upper layer on a file system that cannot be one: `MountFailed`.

use super::{
    Fault, ROOT, Step,
    mounts::{self, folder},
    of_revision,
};
use runtime::{fault::Code, lxc::Rootfs};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
    io::{self, Errno},
    mount::{MountAttrFlags, MountFlags, UnmountFlags, mount, unmount},
    process::{chdir, pivot_root},
};

/// Puts the root file system together at `ROOT`. `config` is the folder of the revision's own files, if it has
/// one. Open on its top.
pub fn assemble(rootfs: Rootfs<'_>, config: Option<&str>) -> Result<OwnedFd, Fault> {
    folder(ROOT).step(Code::StartFailed, || format!("make {ROOT}"))?;
    match rootfs {
        Rootfs::Overlay { lower, upper } => overlay(lower, upper, config)?,
        Rootfs::Folder(path) => mounts::view(path, true)
            .and_then(|view| {
                if of_revision(path) {
                    view.change(MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty(), true)?;
                }
                view.attach_at(ROOT)
            })
            .step(Code::MountFailed, || format!("bind {path} as the root"))?,
    }
    openat(CWD, ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(Code::StartFailed, || format!("open {ROOT}"))
}

/// What mount(2) takes; it would cut off the rest and say nothing.
const OPTIONS_MAX: usize = 4096;

fn overlay(lower: &str, upper: &str, config: Option<&str>) -> Result<(), Fault> {
    let volume = upper.rsplit_once('/').map_or("", |(volume, _)| volume);
    let work = format!("{volume}/olwork");
    for made in [upper, &work] {
        folder(made)
            .and_then(|_| mounts::folder_without_links(made))
            .step(Code::MountFailed, || format!("make {made}"))?;
    }
    let config = config.map(|config| format!("{config}:")).unwrap_or_default();
    let options = format!("lowerdir={config}{lower},upperdir={upper},workdir={work}");
    if options.len() >= OPTIONS_MAX {
        return Err(Fault::new(Code::MountFailed, format!("overlay of {} bytes of layers", lower.len())));
    }
    let text = std::ffi::CString::new(options.as_str()).map_err(|_| Fault::new(Code::MountFailed, options.clone()))?;
    mount(c"overlay", ROOT, c"overlay", MountFlags::empty(), Some(text.as_c_str()))
        .step(Code::MountFailed, || format!("mount overlay {options}"))
}

/// Makes `ROOT` the root of this mount namespace and drops the old one with everything mounted below it.
pub fn enter() -> Result<(), Fault> {
    swap().step(Code::StartFailed, || "pivot_root".into())
}

fn swap() -> io::Result<()> {
    chdir(ROOT)?;
    pivot_root(c".", c".")?;
    // Both roots are mounted on each other now; the upper one, which goes, is the old.
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// The folder of the revision's own files of a container, if there is one.
pub fn config_folder(path: String) -> Result<Option<String>, Fault> {
    match openat(CWD, path.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(Some(path)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).step(Code::MountFailed, || format!("open {path}")),
    }
}
