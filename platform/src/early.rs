//! The first steps of PID 1: a root that can be pivoted away from, the kernel's file systems, cgroups, the panic hook.
//!
//! Invariants: every mount is private, so nothing that a container mounts comes back to us; cgroup v2 has its
//! controllers enabled down to `switchback/`, below which each container gets its own.
//! Fault model: a mount that fails is logged and the rest goes on: a device that answers on its console is worth
//! more than one that stopped at a missing file system. What depends on it reports its own fault later.
//! Not here: the partitions of the device (`main`), modules (`modules`).

use crate::{kmsg, sys, usage, wire};
use core::ffi::CStr;
use log::{info, warn};
use runtime::limits;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags as Propagation},
    process::{Resource, Rlimit, setrlimit},
    system::RebootCommand,
};
use std::time::{Duration, Instant};

/// The folder of our containers' cgroups.
pub const CGROUPS: &CStr = c"/sys/fs/cgroup/switchback";

/// How long a panic may take to write what is in memory.
const PANIC_SYNC: Duration = Duration::from_secs(3);

/// Makes a mount of the root file system. The kernel never lets anybody pivot away from the initramfs itself
/// (it is no mount), so containers would have no way to a root of their own.
pub fn pivotable_root() -> Result<(), Errno> {
    use rustix::{fs, mount, process};
    make_dir(c"/.root");
    mount::mount_bind(c"/", c"/.root")?;
    process::chdir(c"/.root")?;
    mount::mount_move(c".", c"/")?;
    process::chroot(c".")?;
    process::chdir(c"/")?;
    let _ = fs::unlinkat(fs::CWD, c"/.root", fs::AtFlags::REMOVEDIR);
    mount::mount_change(c"/", Propagation::PRIVATE | Propagation::REC)
}

/// Mounts what the kernel offers, in an order in which each finds its folder.
pub fn mounts() {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"proc", c"/proc", safe, None);
    mount(c"sysfs", c"/sys", safe, None);
    mount(c"devtmpfs", c"/dev", MountFlags::NOSUID, Some(c"mode=0755"));
    mount(c"devpts", c"/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=0620,ptmxmode=0666"));
    mount(c"tmpfs", c"/run", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=2m"));
    mount(c"tmpfs", c"/tmp", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777,size=4m"));
    mount(c"cgroup2", c"/sys/fs/cgroup", safe, None);
    for dir in
        [c"/storage", c"/boot", c"/run/pantavisor", c"/run/pantavisor/pv", c"/run/switchback", c"/run/switchback/c"]
    {
        make_dir(dir);
    }
}

/// Enables the controllers for containers. One by one: a kernel without one of them still gives the others.
pub fn cgroups() {
    make_dir(CGROUPS);
    for folder in ["/sys/fs/cgroup", "/sys/fs/cgroup/switchback"] {
        for controller in ["+cpu", "+memory", "+pids", "+io"] {
            if let Err(error) = std::fs::write(format!("{folder}/cgroup.subtree_control"), controller) {
                warn!("cgroup controller {controller} in {folder}: {error}; limits that need it will not hold");
            }
        }
    }
}

/// Bounds what all containers together may use, so that what is ours never has to be asked for memory: neither a
/// container without a limit of its own nor one that made itself unkillable comes near. Call it when everything is
/// mounted that does not belong to a container; `containers` is how many there are.
pub fn bound_containers(containers: usize) {
    let Some(memory) = usage::memory() else {
        return warn!("the device's memory is unknown; containers may use it up");
    };
    let ours = limits::MEMORY_RESERVE + limits::MEMORY_BESIDE_CONTAINER * containers as u64;
    let bytes = (memory.available * 1024).saturating_sub(ours).max(limits::MEMORY_RESERVE);
    match std::fs::write("/sys/fs/cgroup/switchback/memory.max", bytes.to_string()) {
        Ok(()) => info!("memory: {} kB available; {} kB of them for containers", memory.available, bytes / 1024),
        Err(error) => warn!("memory.max of all containers: {error}; they may use up what is ours"),
    }
}

/// Keeps the kernel from setting memory aside because it is fragmented: what it takes at a time, 2 MB of 64, is more
/// than an errand ever needs in one piece, and as much as is free when all containers run.
pub fn take_no_boost() {
    if let Err(error) = std::fs::write("/proc/sys/vm/watermark_boost_factor", "0") {
        warn!("vm.watermark_boost_factor: {error}");
    }
}

/// PID 1 is the last process that the kernel may choose when memory runs out: never.
pub fn protect_from_oom() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        warn!("oom_score_adj: {error}");
    }
}

/// Descriptors that PID 1 may hold: the images of every container while they are checked, its process with channel,
/// output and listener, and what serves clients. The kernel starts us with room for 1024.
const DESCRIPTORS: u64 = (limits::CONTAINERS_MAX * (wire::FDS_MAX + 5) + 4 * limits::CONNECTIONS_MAX + 128) as u64;

/// Takes room for every descriptor that may be needed, so that a revision of many images cannot use it up.
pub fn room_for_descriptors() {
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS.max(DESCRIPTORS_OF_OTHERS.1)) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!("room for {DESCRIPTORS} descriptors: {error}");
    }
}

/// What the kernel gives its first process, and a container's init gets: used and highest limit.
pub const DESCRIPTORS_OF_OTHERS: (u64, u64) = (1024, 4096);

/// A panic of PID 1 says why and reboots. During a trial that is a rollback; otherwise the same revision again.
pub fn panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        kmsg::emergency(format_args!("{info}; rebooting"));
        restart_now(RebootCommand::Restart)
    }));
}

/// Ends the machine: what is in memory gets a bounded time to reach the disk, in a child, because a disk that
/// does not answer must not keep us.
pub fn restart_now(how: RebootCommand) -> ! {
    if let Ok(child) = sys::fork_and(settle_disks) {
        let until = Instant::now() + PANIC_SYNC;
        while Instant::now() < until && !ended(child) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let _ = rustix::system::reboot(how);
    // Only where we may not reboot, as in a namespace of a test: ending PID 1 ends it.
    std::process::exit(if how == RebootCommand::PowerOff { 0 } else { 3 })
}

/// Writes what is in memory, and leaves the file systems without a journal to replay, which loaders do not do. A file
/// system on which somebody still writes stays as it is: it was synced.
fn settle_disks() -> u8 {
    rustix::fs::sync();
    for at in [c"/storage", c"/boot"] {
        let _ = rustix::mount::mount_remount(at, MountFlags::RDONLY | MountFlags::NOATIME, c"");
    }
    0
}

fn ended(child: rustix::process::Pid) -> bool {
    use rustix::process::{WaitOptions, waitpid};
    !matches!(waitpid(Some(child), WaitOptions::NOHANG), Ok(None))
}

fn mount(kind: &CStr, at: &CStr, flags: MountFlags, data: Option<&CStr>) {
    make_dir(at);
    if let Err(error) = rustix::mount::mount(kind, at, kind, flags, data) {
        warn!("mount {kind:?} on {at:?}: {error}");
    }
}

/// Makes a folder; it is no fault if it exists, and what needs it reports if it could not be made.
pub fn make_dir(at: &CStr) {
    let _ = rustix::fs::mkdir(at, Mode::from_raw_mode(0o755));
}

/// Opens standard input, output and error where the kernel gave none: std must never get these numbers for something else.
pub fn standard_descriptors() {
    while let Ok(fd) = rustix::fs::open(c"/dev/console", OFlags::RDWR, Mode::empty())
        .or_else(|_| rustix::fs::open(c"/", OFlags::PATH, Mode::empty()))
    {
        use std::os::fd::{AsRawFd, IntoRawFd};
        if fd.as_raw_fd() > 2 {
            break;
        }
        let _ = fd.into_raw_fd();
    }
}
