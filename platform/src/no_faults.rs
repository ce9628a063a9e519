//! `faults` in a binary for a device: nothing breaks, nothing is marked.

use crate::wire::Message;
use core::{ffi::CStr, fmt::Arguments};
use runtime::protocol::Row;

/// Nothing was told.
#[inline]
pub fn at_disk() {}

/// No further words for a mount.
#[inline]
pub fn mount_data() -> Option<&'static CStr> {
    None
}

/// Syncs wait for the medium.
#[inline]
pub fn is_sync_idle() -> bool {
    false
}

/// Checkpoints do what they are for.
#[inline]
pub fn is_checkpoint_idle() -> bool {
    false
}

/// Nobody watches.
#[inline]
pub fn step(_row: Row) {}

/// Nobody watches.
#[inline]
pub fn ack(_what: Arguments<'_>) {}

/// Nobody watches.
#[inline]
pub fn ack_content(_what: Arguments<'_>, _bytes: &[u8]) {}

/// Nobody watches.
#[inline]
pub fn ack_file(_path: &'static CStr) {}

/// Nothing is changed that nobody asked for.
#[inline]
pub fn change_before(_request: &Message<'_>) -> Option<Message<'static>> {
    None
}
