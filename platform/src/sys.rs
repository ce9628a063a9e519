//! The system calls that need `unsafe`: what neither std nor rustix offers safely.
//!
//! This is the only file of the workspace with `unsafe`; every block says why it is sound. Each wrapper is
//! small, typed and safe to call: policy lives with the callers. No wrapper allocates, so all may be used
//! by PID 1 after start-up; those that run in a child between clone and exec are safe after a fork.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};
use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    io::Errno,
    process::{Pid, Signal},
};
use std::sync::atomic::{AtomicBool, Ordering};

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// The socket to PID 1: descriptor 3 of an errand. `None` if there is none, or if it was taken before.
pub fn errand_socket() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    const SOCKET: RawFd = 3;
    // SAFETY: fcntl with F_SETFD only touches the descriptor's flags, and reports a number that is not open.
    let open = unsafe { libc::fcntl(SOCKET, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    if !open || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the descriptor is open, was given to us by execve, and the flag above makes this its only owner.
    Some(unsafe { OwnedFd::from_raw_fd(SOCKET) })
}

/// What a new process gets.
pub struct Spawn<'a> {
    /// Program: an absolute path, or `/proc/self/exe`.
    pub path: &'a CStr,
    /// Arguments, argv[0] included. At most `ARGS_MAX`.
    pub args: &'a [&'a CStr],
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// The cgroup that it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Descriptors 0, 1, 2, 3 of the new process. Everything else is close-on-exec.
    pub stdio: [BorrowedFd<'a>; 4],
}

/// Flag of clone3; libc has it as a type that does not hold it on every target.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Arguments that `spawn` can pass.
pub const ARGS_MAX: usize = 6;

/// Starts a process: clone3, descriptors, signal mask, own session, exec. Its process id and pidfd.
/// A program that cannot be executed ends with status 127.
pub fn spawn(what: &Spawn<'_>) -> Result<(Pid, OwnedFd), Errno> {
    let mut argv = [core::ptr::null::<c_char>(); ARGS_MAX + 1];
    for (slot, arg) in argv[..ARGS_MAX].iter_mut().zip(what.args) {
        *slot = arg.as_ptr();
    }
    let envp = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(), core::ptr::null()];
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers; zero is valid for each.
    let mut args: linux_raw_sys::general::clone_args = unsafe { core::mem::zeroed() };
    args.flags = what.namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = what.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid for the call; no memory is shared with the child (no CLONE_VM), and the
    // child only makes system calls on what was prepared above until it execs or ends.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) } {
        -1 => Err(last_errno()),
        0 => exec_child(what, argv.as_ptr(), envp.as_ptr()),
        pid => {
            let pid = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
            // SAFETY: the kernel has just made this descriptor for us.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// The child's half of `spawn`.
fn exec_child(what: &Spawn<'_>, argv: *const *const c_char, envp: *const *const c_char) -> ! {
    // SAFETY: only async-signal-safe calls, on pointers that live in this frame or the parent's copy; it never returns.
    unsafe {
        // First above the range of the targets, so that no target overwrites a source that is still needed.
        let mut high = [0; 4];
        for (high, fd) in high.iter_mut().zip(&what.stdio) {
            *high = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10);
        }
        for (target, high) in high.iter().enumerate() {
            libc::dup2(*high, target as i32);
        }
        let mut none: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, core::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::setsid();
        libc::execve(what.path.as_ptr(), argv, envp);
        libc::_exit(127)
    }
}

/// Runs `then` in a forked child that shares nothing, and returns at once in the parent.
pub fn fork_and(then: fn()) -> Result<Pid, Errno> {
    // SAFETY: the process has one thread; the child runs `then` and ends.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => {
            then();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        pid => Pid::from_raw(pid).ok_or(Errno::SRCH),
    }
}

/// Blocks every signal and returns a non-blocking descriptor from which these are read.
pub fn signalfd(signals: &[Signal]) -> Result<OwnedFd, Errno> {
    // SAFETY: sigset_t is plain data that sigemptyset and sigfillset initialise; the calls only read and write the sets
    // given, and a descriptor that is not negative is new and ours.
    unsafe {
        let mut wanted: libc::sigset_t = core::mem::zeroed();
        let mut all: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut wanted);
        libc::sigfillset(&raw mut all);
        for signal in signals {
            libc::sigaddset(&raw mut wanted, signal.as_raw());
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const all, core::ptr::null_mut()) < 0 {
            return Err(last_errno());
        }
        let fd = libc::signalfd(-1, &raw const wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(last_errno()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Reads one pending signal: its number. `AGAIN` if there is none.
pub fn read_signal(signalfd: BorrowedFd<'_>) -> Result<i32, Errno> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    rustix::io::read(signalfd, &mut info)?;
    Ok(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])) // ssi_signo is the first field
}

/// The name of this process in `ps`, at most 15 bytes.
pub fn set_process_name(name: &CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Changes the flags of a mount (`MOUNT_ATTR_*`), of the whole tree if `recursive`.
pub fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attr: &linux_raw_sys::general::mount_attr,
) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= linux_raw_sys::general::AT_RECURSIVE;
    }
    // SAFETY: the kernel reads the path up to its end and exactly the structure whose size is given.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, dir.as_raw_fd(), path.as_ptr(), flags, attr, size_of_val(attr))
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
