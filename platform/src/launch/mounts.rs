//! Mounts by descriptor: a mount is made detached, given its attributes, and then attached in one step.
//!
//! Invariants: no step follows a path through a container's files twice; every target inside a root file
//! system is resolved with `RESOLVE_IN_ROOT`, so that no symbolic link of an image or an upper layer can lead
//! a mount out of it. What is attached is complete: no half-configured mount is ever visible.
//! Faults: any step may fail; what was attached before stays, and dies with the mount namespace.
//! Needs Linux 5.12 (mount_setattr).

use crate::sys;
use linux_raw_sys::general::mount_attr;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2},
    io::{self, Errno},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

/// A mount that nobody sees yet.
pub struct Detached(OwnedFd);

/// A new file system. `data` is the comma-separated text that mount(8) would pass on: `size=1m,mode=755`.
pub fn filesystem(kind: &str, source: &str, data: &str, attributes: MountAttrFlags) -> io::Result<Detached> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), c"source", source)?;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(fs.as_fd(), key, value)?,
            None => fsconfig_set_flag(fs.as_fd(), option)?,
        }
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map(Detached)
}

/// A read-only file system from a block device, or the reason why it is none.
pub fn image(kind: &str, device: &str) -> io::Result<Detached> {
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    filesystem(kind, device, "ro", read_only)
}

/// A second view of what is at `path`, with the mounts below it if `deep`.
pub fn view(path: &str, deep: bool) -> io::Result<Detached> {
    view_at(CWD, path, deep)
}

/// A second view of an open file or folder.
pub fn view_of(fd: BorrowedFd<'_>, deep: bool) -> io::Result<Detached> {
    view_at(fd, "", deep)
}

fn view_at(base: BorrowedFd<'_>, path: &str, deep: bool) -> io::Result<Detached> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, deep);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    open_tree(base, path, flags).map(Detached)
}

impl Detached {
    /// Sets and clears attributes, on the mounts below too if `deep`.
    pub fn change(&self, set: MountAttrFlags, clear: MountAttrFlags, deep: bool) -> io::Result<()> {
        if set.is_empty() && clear.is_empty() {
            return Ok(());
        }
        let attributes =
            mount_attr { attr_set: set.bits().into(), attr_clr: clear.bits().into(), propagation: 0, userns_fd: 0 };
        sys::mount_setattr(self.0.as_fd(), c"", deep, &attributes)
    }

    /// Attaches it over what `target` is open on.
    pub fn attach(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(self.0.as_fd(), c"", target, c"", flags)
    }

    /// Attaches it at a path of our own.
    pub fn attach_at(&self, path: &str) -> io::Result<()> {
        move_mount(self.0.as_fd(), c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    /// The top folder (or file) of the mount, to work below it.
    pub fn top(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What `path` names inside `root`, whatever links lie on the way.
pub fn inside(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let path = if path.trim_matches('/').is_empty() { "." } else { path };
    resolve(root, path, OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens with rules for the way. The kernel answers AGAIN when a rename or a mount anywhere raced with a `..`,
/// and other containers are being mounted while we are.
pub fn resolve(at: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode, rules: ResolveFlags) -> io::Result<OwnedFd> {
    const ATTEMPTS: usize = 1000;
    for _ in 0..ATTEMPTS {
        match openat2(at, path, flags | OFlags::CLOEXEC, mode, rules) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// The folder `path` inside `root`, made with its parents if it does not exist.
pub fn folder_inside(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match inside(root, path) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let (parent, name) = split(path);
    if name.is_empty() || name == ".." {
        return Err(Errno::NOENT);
    }
    let parent = folder_inside(root, parent)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => inside(root, path),
        Err(error) => Err(error),
    }
}

/// The file `path` inside `root`, made empty (with its parent folders) if it does not exist.
pub fn file_inside(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match inside(root, path) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    folder_inside(root, split(path).0)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
    resolve(root, path, flags, Mode::from_raw_mode(0o644), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?;
    inside(root, path)
}

/// A folder of our own (not of a container), made with its parents; open on it.
pub fn folder(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    folder(split(path).0)?;
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => openat(CWD, path, flags, Mode::empty()),
        Err(error) => Err(error),
    }
}

/// A folder of our own that exists, if no symbolic link leads to it: where containers write, one may lead anywhere.
pub fn folder_without_links(path: &str) -> io::Result<OwnedFd> {
    resolve(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// Parent and last name of a path. The parent of a single name is the root (`/`).
fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some((parent, name)) => (if parent.is_empty() { "/" } else { parent }, name),
        None => ("/", path),
    }
}
