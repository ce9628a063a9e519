//! The sealed allocator: PID 1 gets its memory before its loop starts, and none after.
//!
//! After `seal` an allocation is counted and served, because a device must not die of one; with the feature
//! `strict-alloc` it ends the process, so that a test cannot miss it. The count is shown by `GET /status`.
//! A panic may allocate: it is the end anyway, and its message matters more.
//! Errands never seal. The allocator itself is std's; the `unsafe` part stands in `sys`.

use crate::sys::Counted;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

static SEALED: AtomicBool = AtomicBool::new(false);
static SINCE: AtomicU64 = AtomicU64::new(0);

/// Ends the time in which this process may allocate.
pub fn seal() {
    SEALED.store(true, Relaxed);
}

/// Allocations since `seal`.
pub fn count() -> u64 {
    SINCE.load(Relaxed)
}

/// Called by the allocator for every allocation.
pub(crate) fn note(size: usize) {
    if !SEALED.load(Relaxed) || std::thread::panicking() {
        return;
    }
    SINCE.fetch_add(1, Relaxed);
    if cfg!(feature = "strict-alloc") {
        crate::kmsg::emergency(format_args!("allocation of {size} bytes after start-up"));
        std::process::abort();
    }
}
