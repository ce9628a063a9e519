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
    /// Arguments, `argv[0]` included. At most `ARGS_MAX`.
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
        // PID 1 must survive when memory runs out; its errands go after every container, which takes no score of ours.
        let adjust = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if adjust >= 0 {
            libc::write(adjust, c"-900".as_ptr().cast(), 4);
        }
        libc::execve(what.path.as_ptr(), argv, envp);
        libc::_exit(127)
    }
}

/// Runs `then` in a forked child that shares no memory with us and ends with that status; returns at once in the parent.
pub fn fork_and(then: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    // SAFETY: the process has one thread; the child runs `then` and ends.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => {
            let status = then();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(status)) }
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

/// Sends a signal by its number, real-time signals included.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: the call takes a descriptor and numbers; without a siginfo it reads no memory of ours.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, core::ptr::null::<libc::siginfo_t>(), 0)
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The name of this process in `ps`, at most 15 bytes.
pub fn set_process_name(name: &str) {
    let mut bytes = [0u8; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    if let Ok(name) = CStr::from_bytes_until_nul(&bytes) {
        let _ = rustix::thread::set_name(name);
    }
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

/// The number of a loop device that nobody uses at this moment.
pub fn loop_free(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    // SAFETY: this request takes no argument and returns a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    u32::try_from(number).map_err(|_| last_errno())
}

/// Puts a loop device on a file: read-only, and gone with its last user. `BUSY` if somebody else was faster.
pub fn loop_configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Errno> {
    use linux_raw_sys::loop_device as raw;
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    // SAFETY: loop_config is plain numbers; zero is valid for each.
    let mut config: raw::loop_config = unsafe { core::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.lo_flags = raw::LO_FLAGS_READ_ONLY as u32 | raw::LO_FLAGS_AUTOCLEAR as u32;
    // SAFETY: the kernel reads exactly one loop_config, which lives during the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Moves this process into a new cgroup namespace, whose root is the cgroup that it is in.
pub fn unshare_cgroup_namespace() -> Result<(), Errno> {
    // SAFETY: a cgroup namespace changes what paths under /proc and cgroup mounts show, no memory and no descriptor.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Every signal back to its default action, and none blocked: what a program expects that was just started.
/// Past libc, which keeps some real-time signals for itself.
pub fn reset_signals() {
    const LAST: i32 = 64;
    const SET: usize = size_of::<u64>(); // bytes of the kernel's set of signals
    let default = [0u64; 8]; // the kernel's sigaction, all zero, and longer than it is anywhere
    // SAFETY: only the dispositions and the mask of this process change; the kernel reads less than the array and
    // refuses the numbers that cannot be changed.
    unsafe {
        for signal in 1..=LAST {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), core::ptr::null::<u64>(), SET);
        }
        let how = libc::SIG_SETMASK;
        libc::syscall(libc::SYS_rt_sigprocmask, how, default.as_ptr(), core::ptr::null::<u64>(), SET);
    }
}

/// Marks every descriptor from `first` on as closed at exec.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no descriptor is closed by this call itself, only at exec, when nothing of this program is left.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Becomes another program. Returns only if that failed.
pub fn exec(path: &CStr, args: &[std::ffi::CString], env: &[std::ffi::CString]) -> Errno {
    let pointers = |texts: &[std::ffi::CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([core::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all strings and both arrays live during the call, and the arrays end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_errno()
}

/// Puts a seccomp filter on this process, for ever. Needs `no_new_privs`.
pub fn seccomp(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program during the call and does not write to it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Takes from this process, for ever, every right of `handled` (`LANDLOCK_ACCESS_FS_*`) on any file, but below
/// `except`. Needs `no_new_privs`. Descriptors that are open stay usable. `NOSYS`, `OPNOTSUPP` on a kernel without.
pub fn landlock(handled: u64, except: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    use linux_raw_sys::landlock as raw;
    // The first version of the structure: one field.
    // SAFETY: the kernel reads exactly the eight bytes announced; a descriptor that is not negative is new and ours.
    let rules = unsafe {
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0);
        if fd < 0 {
            return Err(last_errno());
        }
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    if let Some(folder) = except {
        let rule = raw::landlock_path_beneath_attr { allowed_access: handled, parent_fd: folder.as_raw_fd() };
        let kind = raw::landlock_rule_type::LANDLOCK_RULE_PATH_BENEATH as u32;
        // SAFETY: the kernel reads one structure of the kind named, which lives during the call.
        if unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), kind, &raw const rule, 0) } < 0 {
            return Err(last_errno());
        }
    }
    // SAFETY: restricts this process; takes a descriptor that is open and no memory.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) } < 0 {
        return Err(last_errno());
    }
    Ok(())
}

/// Sets a watchdog's time-out; the one that the driver chose. Seconds.
pub fn watchdog_set_timeout(device: &OwnedFd, seconds: u32) -> Result<u32, Errno> {
    use rustix::ioctl::{self, opcode};
    const WDIOC_SETTIMEOUT: ioctl::Opcode = opcode::read_write::<u32>(b'W', 6);
    let mut value = seconds;
    // SAFETY: this request reads and writes one int, which is what the updater passes.
    unsafe { ioctl::ioctl(device, ioctl::Updater::<WDIOC_SETTIMEOUT, u32>::new(&mut value))? };
    Ok(value)
}

/// A watchdog's time-out in force. Seconds.
pub fn watchdog_timeout(device: &OwnedFd) -> Result<u32, Errno> {
    use rustix::ioctl::{self, opcode};
    const WDIOC_GETTIMEOUT: ioctl::Opcode = opcode::read::<u32>(b'W', 7);
    // SAFETY: this request writes one int, which is what the getter returns.
    unsafe { ioctl::ioctl(device, ioctl::Getter::<WDIOC_GETTIMEOUT, u32>::new()) }
}

/// Why the machine was reset, as far as a watchdog's driver knows: `WDIOF_` flags.
pub fn watchdog_boot_status(device: &OwnedFd) -> Result<u32, Errno> {
    use rustix::ioctl::{self, opcode};
    const WDIOC_GETBOOTSTATUS: ioctl::Opcode = opcode::read::<u32>(b'W', 2);
    // SAFETY: this request writes one int, which is what the getter returns.
    unsafe { ioctl::ioctl(device, ioctl::Getter::<WDIOC_GETBOOTSTATUS, u32>::new()) }
}

/// The system's allocator, with every allocation shown to `alloc::note`.
pub struct Counted;

// SAFETY: every call goes unchanged to std's system allocator, which keeps the contract; `note` does not allocate.
unsafe impl std::alloc::GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        crate::alloc::note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: std::alloc::Layout) -> *mut u8 {
        crate::alloc::note(layout.size());
        // SAFETY: the caller's promise is passed on. Pages that are fresh from the kernel stay untouched.
        unsafe { std::alloc::System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: std::alloc::Layout, size: usize) -> *mut u8 {
        crate::alloc::note(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { std::alloc::System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { std::alloc::System.dealloc(pointer, layout) }
    }
}

/// Writes everything that the file system's journal holds to its place (ext4).
pub fn ext4_checkpoint(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    const EXT4_IOC_CHECKPOINT: libc::c_ulong = 0x4004_662b;
    let flags: u32 = 0;
    // SAFETY: the kernel reads one u32 through the pointer, which lives through the call.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_CHECKPOINT as _, &raw const flags) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Grows a mounted ext4 to this many of its blocks. No error if it has them already.
pub fn ext4_resize(folder: BorrowedFd<'_>, blocks: u64) -> Result<(), Errno> {
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    // SAFETY: the kernel reads one u64 through the pointer, which lives through the call.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &raw const blocks) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Tells the kernel how long a partition of this disk is, in bytes. It may be in use.
pub fn resize_partition(disk: BorrowedFd<'_>, number: u8, start: u64, length: u64) -> Result<(), Errno> {
    const BLKPG: libc::c_ulong = 0x1269;
    const RESIZE: libc::c_int = 3;
    #[repr(C)]
    struct Partition {
        start: i64,
        length: i64,
        number: libc::c_int,
        names: [u8; 128],
    }
    #[repr(C)]
    struct Order {
        op: libc::c_int,
        flags: libc::c_int,
        length: libc::c_int,
        data: *mut Partition,
    }
    let (start, length) = (start as i64, length as i64);
    let mut partition = Partition { start, length, number: number.into(), names: [0; 128] };
    let size = size_of::<Partition>() as libc::c_int;
    let order = Order { op: RESIZE, flags: 0, length: size, data: &raw mut partition };
    // SAFETY: both structures have the kernel's layout (linux/blkpg.h) and live through the call.
    let done = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &raw const order) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// What an MTD device is.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct MtdInfo {
    /// RAM, ROM, NOR, NAND …
    pub kind: u8,
    /// What it can do.
    pub flags: u32,
    /// Bytes of the whole.
    pub size: u32,
    /// Bytes of an erase block.
    pub erase_size: u32,
    /// Bytes that are written at once: 1 for NOR.
    pub write_size: u32,
    /// Spare bytes of a page.
    pub oob_size: u32,
    padding: u64,
}

/// Asks an MTD device what it is.
pub fn mtd_info(device: &OwnedFd) -> Result<MtdInfo, Errno> {
    const MEMGETINFO: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<MtdInfo>(b'M', 1);
    let mut info = MtdInfo::default();
    // SAFETY: the kernel writes one structure of this layout, any bytes of which are valid.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), MEMGETINFO as _, &raw mut info) };
    if done < 0 { Err(last_errno()) } else { Ok(info) }
}

/// Erases blocks of an MTD device.
pub fn mtd_erase(device: &OwnedFd, start: u32, length: u32) -> Result<(), Errno> {
    const MEMERASE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<[u32; 2]>(b'M', 2);
    let range = [start, length];
    // SAFETY: the kernel reads two numbers, which live through the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), MEMERASE as _, &raw const range) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Unlocks blocks of an MTD device.
pub fn mtd_unlock(device: &OwnedFd, start: u32, length: u32) -> Result<(), Errno> {
    const MEMUNLOCK: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<[u32; 2]>(b'M', 6);
    let range = [start, length];
    // SAFETY: the kernel reads two numbers, which live through the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), MEMUNLOCK as _, &raw const range) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Announces that the next `length` bytes written to a UBI volume are its new content.
pub fn ubi_update(volume: &OwnedFd, length: i64) -> Result<(), Errno> {
    const UBI_IOCVOLUP: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i64>(b'O', 0);
    // SAFETY: the kernel reads one number, which lives through the call.
    let done = unsafe { libc::ioctl(volume.as_raw_fd(), UBI_IOCVOLUP as _, &raw const length) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Stops all writing to a file system, which then lies on its medium as if it were unmounted, and lets it go on.
pub fn freeze_and_thaw(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    const FIFREEZE: libc::c_ulong = 0xc004_5877;
    const FITHAW: libc::c_ulong = 0xc004_5878;
    // SAFETY: neither request reads or writes memory of ours; the argument is not used.
    unsafe {
        if libc::ioctl(folder.as_raw_fd(), FIFREEZE as _, 0) < 0 {
            return Err(last_errno());
        }
        if libc::ioctl(folder.as_raw_fd(), FITHAW as _, 0) < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

/// Brings the loopback device of this network namespace up.
pub fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain numbers; zero is valid for each.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the kernel reads exactly one ifreq, which lives during the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// What the C library says about an error number, in a buffer of the caller: unlike std, without allocating.
pub fn error_text(number: i32, buffer: &mut [u8; 64]) -> &str {
    // SAFETY: at most `buffer.len()` bytes are written, with a zero at the end, and the buffer lives during the call.
    let failed = unsafe { libc::strerror_r(number, buffer.as_mut_ptr().cast(), buffer.len()) };
    let text = core::ffi::CStr::from_bytes_until_nul(buffer).ok().filter(|_| failed == 0);
    text.and_then(|text| text.to_str().ok()).unwrap_or("unknown error")
}
