//! System calls that have another name, or no number at all, on one of our machines.
//!
//! One module per machine with the same names, so that the tables of `confine` are written once. Where a call does not
//! exist its successor stands, which is then listed twice: one instruction. 32-bit Arm has the wide variants of what
//! was once 32 bits, and its C library tries the calls with 64-bit times first and the older ones after ENOSYS, so
//! both are listed.

pub(super) use machine::*;

#[cfg(not(target_arch = "arm"))]
mod machine {
    use libc::c_long;

    #[cfg(target_arch = "x86_64")]
    pub(in super::super) const AUDIT_ARCH: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    pub(in super::super) const AUDIT_ARCH: u32 = 0xC000_00B7;
    #[cfg(target_arch = "x86_64")]
    pub(in super::super) const POLL: c_long = libc::SYS_poll;
    #[cfg(not(target_arch = "x86_64"))]
    pub(in super::super) const POLL: c_long = libc::SYS_ppoll;
    #[cfg(target_arch = "x86_64")]
    pub(in super::super) const EPOLL_WAIT: c_long = libc::SYS_epoll_wait;
    #[cfg(not(target_arch = "x86_64"))]
    pub(in super::super) const EPOLL_WAIT: c_long = libc::SYS_epoll_pwait;
    pub(in super::super) const MMAP: c_long = libc::SYS_mmap;
    pub(in super::super) const SEND: c_long = libc::SYS_sendto;
    pub(in super::super) const RECV: c_long = libc::SYS_recvfrom;
    pub(in super::super) const PPOLL: c_long = libc::SYS_ppoll;
    pub(in super::super) const FUTEX: c_long = libc::SYS_futex;
    pub(in super::super) const CLOCK_GETTIME: c_long = libc::SYS_clock_gettime;
    pub(in super::super) const UTIMENSAT: c_long = libc::SYS_utimensat;
    pub(in super::super) const FCNTL: c_long = libc::SYS_fcntl;
    pub(in super::super) const LSEEK: c_long = libc::SYS_lseek;
    pub(in super::super) const FSTAT: c_long = libc::SYS_fstat;
    pub(in super::super) const FSTATAT: c_long = libc::SYS_newfstatat;
    pub(in super::super) const STATFS: c_long = libc::SYS_statfs;
    pub(in super::super) const FSTATFS: c_long = libc::SYS_fstatfs;
    pub(in super::super) const FTRUNCATE: c_long = libc::SYS_ftruncate;
    pub(in super::super) const SENDFILE: c_long = libc::SYS_sendfile;
    pub(in super::super) const FCHOWN: c_long = libc::SYS_fchown;
    pub(in super::super) const FADVISE: c_long = libc::SYS_fadvise64;
    pub(in super::super) const SYNC_FILE_RANGE: c_long = libc::SYS_sync_file_range;
    pub(in super::super) const RENAMEAT: c_long = libc::SYS_renameat;
}

#[cfg(target_arch = "arm")]
mod machine {
    use libc::c_long;

    pub(in super::super) const AUDIT_ARCH: u32 = 0x4000_0028;
    pub(in super::super) const POLL: c_long = libc::SYS_poll;
    pub(in super::super) const EPOLL_WAIT: c_long = libc::SYS_epoll_wait;
    pub(in super::super) const MMAP: c_long = libc::SYS_mmap2;
    pub(in super::super) const SEND: c_long = libc::SYS_send;
    pub(in super::super) const RECV: c_long = libc::SYS_recv;
    pub(in super::super) const PPOLL: c_long = 414; // ppoll with a 64-bit time
    pub(in super::super) const FUTEX: c_long = 422; // futex with a 64-bit time
    pub(in super::super) const CLOCK_GETTIME: c_long = 403; // clock_gettime with a 64-bit time
    pub(in super::super) const UTIMENSAT: c_long = 412; // utimensat with a 64-bit time
    pub(in super::super) const FCNTL: c_long = libc::SYS_fcntl64;
    pub(in super::super) const LSEEK: c_long = libc::SYS__llseek;
    pub(in super::super) const FSTAT: c_long = libc::SYS_fstat64;
    pub(in super::super) const FSTATAT: c_long = libc::SYS_fstatat64;
    pub(in super::super) const STATFS: c_long = libc::SYS_statfs64;
    pub(in super::super) const FSTATFS: c_long = libc::SYS_fstatfs64;
    pub(in super::super) const FTRUNCATE: c_long = libc::SYS_ftruncate64;
    pub(in super::super) const SENDFILE: c_long = libc::SYS_sendfile64;
    pub(in super::super) const FCHOWN: c_long = libc::SYS_fchown32;
    pub(in super::super) const FADVISE: c_long = libc::SYS_arm_fadvise64_64;
    pub(in super::super) const SYNC_FILE_RANGE: c_long = libc::SYS_arm_sync_file_range;
    pub(in super::super) const RENAMEAT: c_long = libc::SYS_renameat;
}
