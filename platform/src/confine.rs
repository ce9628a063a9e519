//! How an errand gives up what it does not need: user, capabilities, system calls, files.
//!
//! Invariants: every step is for ever. An errand is confined before it reads its first request, and ends if a
//! step fails that its kernel must have; landlock is taken where the kernel has it.
//! The filters are constant tables, one per errand, built at compile time for the machine compiled for. A call
//! that is not in the table, and every call of another ABI, answers ENOSYS and does nothing.
//! Not here: what a container gets (`launch`).

mod abi;

use crate::{launch::mounts, sys};
use libc::{c_long, sock_filter};
use rustix::{
    fd::BorrowedFd,
    io::{self, Errno},
    mount::{MountAttrFlags, UnmountFlags, unmount},
    process::{Gid, Uid, chdir, pivot_root},
    thread::{
        self, CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

/// User of the `fetch` errands.
pub const FETCH_UID: u32 = 901;
/// User of the `verify` errand.
pub const VERIFY_UID: u32 = 902;
/// User of the `log` errand; owns `/storage/logs`.
pub const LOG_UID: u32 = 903;
/// User of the `endpoint` errand; its group may connect to the host's control socket.
pub const ENDPOINT_UID: u32 = 904;
/// User of the `console` errand.
pub const CONSOLE_UID: u32 = 905;
/// User of the `stick` errand.
pub const USB_UID: u32 = 906;

/// Highest capability number that any kernel may have.
const CAPABILITY_LAST: u32 = 63;

/// Moves into a root that holds these file systems and nothing else. The caller has a mount namespace of its own.
pub fn seclude(folders: &[&str]) -> io::Result<()> {
    const ROOT: &str = "/run";
    let none = MountAttrFlags::empty();
    let views: Vec<_> = folders.iter().map(|folder| mounts::view(folder, false)).collect();
    let root = mounts::filesystem("tmpfs", "errand", "mode=755,size=16k", none)?;
    root.attach_at(ROOT)?;
    for (folder, view) in folders.iter().zip(views) {
        let at = format!("{ROOT}{folder}");
        mounts::folder(&at)?;
        view?.attach_at(&at)?;
    }
    root.change(MountAttrFlags::MOUNT_ATTR_RDONLY, none, false)?;
    chdir(ROOT)?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// Becomes the user `uid`, of a group of the same number, without any capability, and unable to gain one.
pub fn become_user(uid: u32) -> io::Result<()> {
    become_user_in(uid, uid)
}

/// Becomes the user `uid` of the group `gid`, without any capability, and unable to gain one.
pub fn become_user_in(uid: u32, gid: u32) -> io::Result<()> {
    drop_bounding_set(CapabilitySet::empty())?;
    set_thread_groups(&[])?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    keep_capabilities(CapabilitySet::empty())?;
    set_no_new_privs(true)
}

/// Stays root, but with these capabilities only, and unable to gain others.
pub fn stay_root_with(kept: CapabilitySet) -> io::Result<()> {
    drop_bounding_set(kept)?;
    keep_capabilities(kept)?;
    set_no_new_privs(true)
}

/// Gives up, in a process that anybody may have started, what a client of the control socket does not need: every
/// capability, every file that is not open, and other system calls. Its user stays, which without those can do nothing.
pub fn forgo() -> io::Result<()> {
    match drop_bounding_set(CapabilitySet::empty()) {
        Err(Errno::PERM) => {} // there is nothing that an exec could give
        other => other?,
    }
    keep_capabilities(CapabilitySet::empty())?;
    set_no_new_privs(true)?;
    close_files(None)?;
    restrict(Calls::Client)
}

/// Takes every capability but `kept` out of the set that an exec can give.
pub fn drop_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..=CAPABILITY_LAST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(Errno::INVAL) => break, // this kernel has no capability of this number
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    let has = thread::capabilities(None)?.permitted & kept;
    set_capabilities(None, CapabilitySets { effective: has, permitted: has, inheritable: CapabilitySet::empty() })
}

/// Every right on files that the first version of landlock knows.
const EVERY_FILE_RIGHT: u64 = (1 << 13) - 1;

/// Takes away every file that is not open yet, but those below `except`. No error on a kernel without landlock:
/// user and system call table hold without it.
pub fn close_files(except: Option<BorrowedFd<'_>>) -> io::Result<()> {
    match sys::landlock(EVERY_FILE_RIGHT, except) {
        Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Restricts this process to the system calls of a table.
pub fn restrict(calls: Calls) -> io::Result<()> {
    sys::seccomp(match calls {
        Calls::Verify => VERIFY,
        Calls::Fetch => FETCH,
        Calls::Log => LOG,
        Calls::Keeper => KEEPER,
        Calls::Console => CONSOLE,
        Calls::Endpoint => ENDPOINT,
        Calls::Client => CLIENT,
    })
}

/// The tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// Reads descriptors that it was given.
    Verify,
    /// Reads and writes descriptors that it was given.
    Fetch,
    /// Creates, appends to and renames files.
    Log,
    /// Everything on files.
    Keeper,
    /// Speaks to the control socket.
    Console,
    /// Accepts clients and speaks to the control socket.
    Endpoint,
    /// Speaks to the control socket and reads what it opened before.
    Client,
}

/// What memory, time, the end of a process and the socket to PID 1 need, in any errand. No `sendmsg`: it could pass a
/// descriptor to a client, and with that of a part file what was hashed could still be changed.
macro_rules! every_errand {
    ($($more:expr),* $(,)?) => {
        &[
            libc::SYS_read, libc::SYS_readv, libc::SYS_write, libc::SYS_writev, libc::SYS_close, libc::SYS_recvmsg,
            abi::SEND, libc::SYS_ppoll, abi::POLL, libc::SYS_futex, libc::SYS_brk, abi::MMAP, libc::SYS_munmap,
            libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise, libc::SYS_clock_gettime, libc::SYS_getrandom,
            libc::SYS_getpid, libc::SYS_gettid, libc::SYS_tgkill, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn, libc::SYS_restart_syscall, libc::SYS_sigaltstack, libc::SYS_exit,
            libc::SYS_exit_group, abi::CLOCK_GETTIME, abi::PPOLL, abi::FUTEX, $($more),*
        ]
    };
}

/// Builds a table as a constant of exactly its length.
macro_rules! table {
    ($calls:expr) => {{
        const CALLS: &[c_long] = $calls;
        const FILTER: [sock_filter; CALLS.len() + 6] = filter(CALLS);
        &FILTER
    }};
}

const VERIFY: &[sock_filter] = table!(every_errand![libc::SYS_pread64]);

const FETCH: &[sock_filter] = table!(every_errand![
    libc::SYS_recvfrom,
    abi::RECV,
    abi::SENDFILE,
    abi::FCNTL, // the connection may be non-blocking: only looked at
]);

const LOG: &[sock_filter] = table!(every_errand![
    libc::SYS_openat,
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    abi::FSTAT,
    abi::LSEEK,
    abi::FCNTL,
]);

const CONSOLE: &[sock_filter] = table!(every_errand![
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    abi::RECV,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    abi::FCNTL,
]);

const CLIENT: &[sock_filter] = table!(every_errand![
    libc::SYS_pread64,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    abi::RECV,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    abi::FCNTL,
]);

const ENDPOINT: &[sock_filter] = table!(every_errand![
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_recvfrom,
    abi::RECV,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    abi::EPOLL_WAIT,
    libc::SYS_eventfd2,
    abi::FCNTL,
]);

const KEEPER: &[sock_filter] = table!(every_errand![
    libc::SYS_sendmsg, // hands out what it opened
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    abi::RENAMEAT,
    libc::SYS_unlinkat,
    abi::FSTAT,
    abi::FSTATAT,
    libc::SYS_statx,
    abi::STATFS,
    abi::FSTATFS,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    abi::LSEEK,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    abi::FTRUNCATE,
    libc::SYS_fallocate,
    abi::SENDFILE,
    libc::SYS_copy_file_range,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    abi::FCHOWN,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    abi::UTIMENSAT,
    abi::FCNTL,
    libc::SYS_dup,
    libc::SYS_ioctl, // checkpoint, freeze and thaw, verity, marks of files
    libc::SYS_memfd_create,
    abi::FADVISE,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    abi::SYNC_FILE_RANGE,
]);

/// The filter that allows these calls of our ABI and answers ENOSYS to everything else.
const fn filter<const N: usize>(calls: &[c_long]) -> [sock_filter; N] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
        sock_filter { code, jt, jf, k }
    }
    let count = calls.len();
    assert!(N == count + 6 && count < u8::MAX as usize, "a jump reaches over the whole table");
    let mut out = [op(ANSWER, 0, 0, REFUSE); N];
    out[0] = op(LOAD, 0, 0, 4); // seccomp_data.arch
    out[1] = op(EQUAL, 1, 0, abi::AUDIT_ARCH);
    out[3] = op(LOAD, 0, 0, 0); // seccomp_data.nr; out[2] refuses
    let mut i = 0;
    while i < count {
        out[4 + i] = op(EQUAL, (count - i) as u8, 0, calls[i] as u32);
        i += 1;
    }
    out[N - 1] = op(ANSWER, 0, 0, libc::SECCOMP_RET_ALLOW); // out[N - 2] refuses
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn verdict(filter: &[sock_filter], arch: u32, call: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let op = filter[at];
            at += 1;
            match op.code as u32 & 7 {
                libc::BPF_LD => value = if op.k == 4 { arch } else { call },
                libc::BPF_JMP => at += usize::from(if value == op.k { op.jt } else { op.jf }),
                _ => return op.k,
            }
        }
    }

    #[test]
    fn tables_allow_what_they_list_and_refuse_the_rest() {
        let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let allow = libc::SECCOMP_RET_ALLOW;
        for table in [VERIFY, FETCH, LOG, KEEPER, CONSOLE, ENDPOINT, CLIENT] {
            assert_eq!(verdict(table, abi::AUDIT_ARCH, libc::SYS_read as u32), allow);
            assert_eq!(verdict(table, abi::AUDIT_ARCH, libc::SYS_exit_group as u32), allow);
            for call in [libc::SYS_execve, libc::SYS_bind, libc::SYS_ptrace, libc::SYS_clone, libc::SYS_mount] {
                assert_eq!(verdict(table, abi::AUDIT_ARCH, call as u32), refuse);
            }
            assert_eq!(verdict(table, 0x4000_0003, libc::SYS_read as u32), refuse, "another ABI");
            assert_eq!(verdict(table, abi::AUDIT_ARCH, libc::SYS_read as u32 | 0x4000_0000), refuse, "x32");
        }
        for table in [VERIFY, FETCH, LOG, CONSOLE, ENDPOINT, CLIENT] {
            assert_eq!(verdict(table, abi::AUDIT_ARCH, libc::SYS_sendmsg as u32), refuse, "no descriptor leaves");
        }
        for table in [VERIFY, FETCH, LOG, KEEPER] {
            assert_eq!(verdict(table, abi::AUDIT_ARCH, libc::SYS_socket as u32), refuse);
        }
        for table in [VERIFY, FETCH, CONSOLE, ENDPOINT, CLIENT] {
            assert_eq!(verdict(table, abi::AUDIT_ARCH, libc::SYS_openat as u32), refuse);
        }
        assert_eq!(verdict(VERIFY, abi::AUDIT_ARCH, libc::SYS_openat as u32), refuse);
        assert_eq!(verdict(FETCH, abi::AUDIT_ARCH, libc::SYS_openat as u32), refuse);
        assert_eq!(verdict(KEEPER, abi::AUDIT_ARCH, libc::SYS_syncfs as u32), allow);
    }
}
