//! What a container finds mounted: the kernel's file systems, the mounts of its configuration, and its
//! control socket.
//!
//! Invariants: targets are resolved inside the root file system, sources in volumes without following
//! links, because both hold what containers wrote. A mount is attached with all its attributes or not at all.
//! Faults: `MountFailed` with the mount's names, unless the configuration says that it is optional.
//! Reference: device-formats 4.2, 4.3.

use super::{
    DISKS, Fault, Step, VOLUMES,
    mounts::{self, Detached, file_inside, filesystem, folder_inside, inside},
    of_revision,
};
use runtime::{
    fault::Code,
    id::PartName,
    lxc::{Access, Create, Mount, MountFlags, MountKind},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, openat},
    io::{self, Errno},
    mount::MountAttrFlags as Attributes,
};

/// Mounts one entry of the configuration. Relative sources are below the current folder.
pub fn configured(root: BorrowedFd<'_>, entry: &Mount<'_>) -> Result<(), Fault> {
    match attach(root, entry) {
        Err(_) if entry.optional => Ok(()),
        done => done.step(Code::MountFailed, || format!("lxc.mount.entry {} on {}", entry.source, entry.target)),
    }
}

fn attach(root: BorrowedFd<'_>, entry: &Mount<'_>) -> io::Result<()> {
    if entry.source == RESOLV_CONF {
        make_resolv_conf();
    }
    let attributes = attributes(&entry.flags);
    let mount = match entry.kind {
        MountKind::Bind => return bind(root, entry.source, entry.target, attributes, false, entry.create),
        MountKind::RecursiveBind => return bind(root, entry.source, entry.target, attributes, true, entry.create),
        MountKind::Tmpfs => {
            let options: Vec<String> = entry.parameters().map(|(name, value)| format!("{name}={value}")).collect();
            filesystem("tmpfs", entry.source, &options.join(","), attributes)?
        }
        MountKind::Proc => filesystem("proc", "proc", "", attributes)?,
        MountKind::Sysfs => filesystem("sysfs", "sysfs", "", attributes)?,
        MountKind::Mqueue => filesystem("mqueue", "mqueue", "", attributes)?,
    };
    mount.attach(target(root, entry.target, entry.create)?.as_fd())
}

fn attributes(flags: &MountFlags) -> Attributes {
    let mut set = Attributes::empty();
    set.set(Attributes::MOUNT_ATTR_RDONLY, flags.read_only);
    set.set(Attributes::MOUNT_ATTR_NOSUID, flags.no_suid);
    set.set(Attributes::MOUNT_ATTR_NODEV, flags.no_dev);
    set.set(Attributes::MOUNT_ATTR_NOEXEC, flags.no_exec);
    set.set(Attributes::MOUNT_ATTR_NOATIME, flags.no_atime);
    set
}

fn bind(root: BorrowedFd<'_>, from: &str, to: &str, set: Attributes, deep: bool, create: Create) -> io::Result<()> {
    let view = mounts::view_of(source(from)?.as_fd(), deep)?;
    // Access time is one field of several values: to set one, the field is cleared.
    let atime = if set.contains(Attributes::MOUNT_ATTR_NOATIME) {
        Attributes::from_bits_retain(linux_raw_sys::general::MOUNT_ATTR__ATIME)
    } else {
        Attributes::empty()
    };
    let set = if of_revision(from) { set | Attributes::MOUNT_ATTR_RDONLY } else { set };
    view.change(set, atime, deep)?;
    view.attach(target(root, to, create)?.as_fd())
}

fn target(root: BorrowedFd<'_>, path: &str, create: Create) -> io::Result<OwnedFd> {
    match create {
        Create::No => inside(root, path),
        Create::Folder => folder_inside(root, path),
        Create::File => file_inside(root, path),
    }
}

const LOGS: &str = "/storage/logs";

/// What an entry binds. Where containers, or `log`, write no link is followed.
fn source(path: &str) -> io::Result<OwnedFd> {
    let theirs = [VOLUMES, DISKS, LOGS].iter().any(|folder| path.starts_with(folder));
    let rules = if theirs { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
    mounts::resolve(CWD, path, OFlags::PATH, Mode::empty(), rules)
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The device's own resolver configuration: empty until a container of the network writes it, and then seen
/// by all, because they bind the same file. If it cannot be made the entry fails and says so.
fn make_resolv_conf() {
    let _ = mounts::folder("/etc");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let _ = openat(CWD, RESOLV_CONF, flags, Mode::from_raw_mode(0o644));
}

/// Mounts `/proc`.
pub fn proc(root: BorrowedFd<'_>, access: Access) -> Result<(), Fault> {
    let mounted = kernel_fs(root, "proc", "proc").and_then(|proc| match access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => read_only(&proc),
        Access::Mixed => {
            cover(&proc, "sys", Some("sys/net"))?;
            cover(&proc, "sysrq-trigger", None)
        }
    });
    mounted.step(Code::MountFailed, || "mount /proc".into())
}

/// Mounts `/sys`.
pub fn sys(root: BorrowedFd<'_>, access: Access) -> Result<(), Fault> {
    const NET: &str = "devices/virtual/net";
    let mounted = kernel_fs(root, "sysfs", "sys").and_then(|sys| match access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => read_only(&sys),
        Access::Mixed => {
            let net = below(&sys, NET).and_then(|net| mounts::view_of(net.as_fd(), false));
            read_only(&sys)?;
            match net {
                Ok(net) => net.attach(below(&sys, NET)?.as_fd()),
                Err(_) => Ok(()), // no network devices, nothing to leave writable
            }
        }
    });
    mounted.step(Code::MountFailed, || "mount /sys".into())
}

/// Mounts `/sys/fs/cgroup`: the container's own cgroup, seen from its cgroup namespace.
pub fn cgroup(root: BorrowedFd<'_>, access: Access) -> Result<(), Fault> {
    kernel_fs(root, "cgroup2", "sys/fs/cgroup")
        .and_then(|group| if access == Access::ReadOnly { read_only(&group) } else { Ok(()) })
        .step(Code::MountFailed, || "mount /sys/fs/cgroup".into())
}

fn kernel_fs(root: BorrowedFd<'_>, kind: &str, at: &str) -> io::Result<Detached> {
    let safe = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
    let mount = filesystem(kind, kind, "", safe)?;
    mount.attach(folder_inside(root, at)?.as_fd())?;
    Ok(mount)
}

fn read_only(mount: &Detached) -> io::Result<()> {
    mount.change(Attributes::MOUNT_ATTR_RDONLY, Attributes::empty(), false)
}

fn below(mount: &Detached, path: &str) -> io::Result<OwnedFd> {
    openat(mount.top(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Covers a file or folder of an attached mount with a read-only view of itself, but for one folder below it.
fn cover(mount: &Detached, path: &str, but: Option<&str>) -> io::Result<()> {
    let at = match below(mount, path) {
        Err(Errno::NOENT) => return Ok(()), // this kernel has none
        at => at?,
    };
    let free = match but.map(|but| (but, below(mount, but))) {
        Some((but, Ok(fd))) => Some((but, mounts::view_of(fd.as_fd(), false)?)),
        _ => None,
    };
    let view = mounts::view_of(at.as_fd(), false)?;
    read_only(&view)?;
    view.attach(at.as_fd())?;
    match free {
        Some((but, view)) => view.attach(below(mount, but)?.as_fd()),
        None => Ok(()),
    }
}

/// The run folder of the original: what a managing container sees as `/pantavisor`.
const RUN: &str = "/run/pantavisor/pv";

/// Binds the container's own control socket, and what else the original shows a container of its role.
/// What a device does not have is left out.
pub fn control(root: BorrowedFd<'_>, container: PartName, logs: &str, manages: bool) -> Result<(), Fault> {
    let socket = format!("/run/switchback/c/{container}/pv-ctrl");
    let read_only = Attributes::MOUNT_ATTR_RDONLY;
    if manages {
        show(root, RUN, "pantavisor", read_only, Create::Folder)?;
        show(root, LOGS, "pantavisor/logs", read_only, Create::No)?;
    } else {
        show(root, logs, "pantavisor/logs", read_only, Create::Folder)?;
    }
    show(root, &socket, "pantavisor/pv-ctrl", Attributes::empty(), Create::File)
}

fn show(root: BorrowedFd<'_>, from: &str, to: &str, set: Attributes, create: Create) -> Result<(), Fault> {
    match bind(root, from, to, set, false, create) {
        Err(Errno::NOENT) => Ok(()),
        done => done.step(Code::MountFailed, || format!("bind {from} on {to}")),
    }
}
