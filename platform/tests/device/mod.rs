//! A private mount namespace that looks like a device from inside, and errands started in it as PID 1 starts them.

use platform::{
    sys,
    wire::{Channel, Message},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, open},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change},
    process::{Pid, WaitOptions, waitpid},
    thread::UnshareFlags,
};
use std::{ffi::CStr, fs, io::Read, path::Path};

/// Where the root is put together. Nothing is left there: the mount is private.
pub(crate) const OUTSIDE: &str = "/mnt";

const SHARED: [&str; 5] = ["dev", "proc", "sys", "usr", "lib64"];

/// Moves this thread into a root of its own with our binary as `/switchback`. `fill` puts what it wants below
/// `OUTSIDE` before the way back is closed.
pub(crate) fn enter(fill: impl FnOnce(&Path)) {
    #[expect(deprecated, reason = "the descriptor table is not unshared, which is what the other form is about")]
    rustix::thread::unshare(UnshareFlags::NEWNS).expect("these tests need root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount(c"tmpfs", OUTSIDE, c"tmpfs", MountFlags::empty(), None).unwrap();
    let outside = Path::new(OUTSIDE);
    for folder in ["storage", "boot", "etc", "run/switchback/c/web", "run/pantavisor/pv"] {
        fs::create_dir_all(outside.join(folder)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_switchback"), outside.join("switchback")).unwrap();
    fill(outside);
    for folder in SHARED {
        let from = Path::new("/").join(folder);
        if from.exists() {
            fs::create_dir_all(outside.join(folder)).unwrap();
            mount_bind_recursive(&from, outside.join(folder)).unwrap();
        }
    }
    let _ = std::os::unix::fs::symlink("usr/lib", outside.join("lib"));
    std::os::unix::fs::chroot(outside).unwrap();
    std::env::set_current_dir("/").unwrap();
}

/// An errand that runs.
pub(crate) struct Errand {
    /// Its process.
    pub(crate) pid: Pid,
    /// The socket to it.
    pub(crate) channel: Channel,
    /// What it prints.
    pub(crate) printed: OwnedFd,
}

impl Errand {
    /// Starts one, with these `CLONE_NEW*` flags.
    pub(crate) fn new(word: &CStr, namespaces: i32) -> Errand {
        let (channel, theirs) = Channel::pair().unwrap();
        rustix::io::ioctl_fionbio(channel.as_fd(), false).unwrap();
        let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (printed, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (pid, _) = sys::spawn(&sys::Spawn {
            path: c"/switchback",
            args: &[c"switchback", word],
            namespaces: namespaces as u64,
            cgroup: None,
            stdio: [null.as_fd(), input.as_fd(), input.as_fd(), theirs.as_fd()],
        })
        .unwrap();
        Errand { pid, channel, printed }
    }

    /// Asks it something.
    pub(crate) fn ask(&self, serial: u32, message: &Message<'_>, fds: &[BorrowedFd<'_>]) {
        self.channel.send(serial, message, fds).unwrap();
    }

    /// Everything that it printed, once it has ended.
    pub(crate) fn end(self) -> String {
        drop(self.channel);
        let mut text = String::new();
        fs::File::from(self.printed).read_to_string(&mut text).unwrap();
        waitpid(Some(self.pid), WaitOptions::empty()).unwrap();
        text
    }
}
