//! A container's `/dev`: the standard devices, bound and never made, and terminals of its own.
//!
//! Invariant: nothing of the device's own `/dev` is reachable but the six nodes of `NODES`. The console of the
//! container is whatever its init has as standard output, which is a pipe to the `log` errand.
//! Not here: devices that a configuration asks for (`entries`).

use super::{
    Fault, Step,
    mounts::{self, Detached, filesystem, folder_inside},
};
use runtime::fault::Code;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, symlinkat, unlinkat},
    io::{self, Errno},
    mount::MountAttrFlags,
};

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/self/fd/1", "console"),
    ("pts/ptmx", "ptmx"),
];

/// Gives the root file system a new `/dev`. Entries of the configuration may mount below it afterwards.
pub fn populate(root: BorrowedFd<'_>, terminals: u32) -> Result<(), Fault> {
    let dev = mount_dev(root).step(Code::MountFailed, || "mount a tmpfs on dev".into())?;
    for node in NODES {
        bind_node(dev.as_fd(), node).step(Code::MountFailed, || format!("bind /dev/{node}"))?;
    }
    for (to, name) in LINKS {
        symlinkat(to, &dev, name).step(Code::MountFailed, || format!("link dev/{name}"))?;
    }
    own_terminals(dev.as_fd(), terminals).step(Code::MountFailed, || "mount devpts on dev/pts".into())
}

/// Open on the new, attached file system.
fn mount_dev(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let dev = filesystem("tmpfs", "dev", "mode=755,size=500k", MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    dev.attach(folder_inside(root, "dev")?.as_fd())?;
    openat(dev.top(), c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn bind_node(dev: BorrowedFd<'_>, node: &str) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(dev, node, flags, Mode::from_raw_mode(0o666))?;
    let at = openat(dev, node, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match mounts::view(&format!("/dev/{node}"), false) {
        Ok(view) => view.attach(at.as_fd()),
        // a kernel without terminals has no tty; the container then has none either
        Err(Errno::NOENT) => unlinkat(dev, node, AtFlags::empty()),
        Err(error) => Err(error),
    }
}

fn own_terminals(dev: BorrowedFd<'_>, terminals: u32) -> io::Result<()> {
    mkdirat(dev, c"pts", Mode::from_raw_mode(0o755))?;
    let at = openat(dev, c"pts", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let data = format!("newinstance,ptmxmode=0666,mode=0620,gid=5,max={terminals}");
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts: Detached = filesystem("devpts", "devpts", &data, attributes)?;
    pts.attach(at.as_fd())
}
