//! Changes of metadata that nobody on the device asks for yet, so that a recording has some: one before each answer to who
//! lists revisions, by the keeper's own request for it.
//!
//! Invariants: the changes are the same in every recording: of both records by turns, of few keys, with values of every
//! length up to the longest; each eighth one removes a key.

use crate::wire::Message;
use core::sync::atomic::{AtomicUsize, Ordering};
use runtime::{limits::METADATA_VALUE_MAX, port::Subject};

const OFF: usize = usize::MAX;
const KEYS: [&str; 3] = ["pantahub.state", "a", "interfaces"];
/// By so many bytes the next value is longer, until it begins anew.
const STEP: usize = 617;
const VALUE: [u8; METADATA_VALUE_MAX] = {
    let (mut bytes, mut at) = ([0; METADATA_VALUE_MAX], 0);
    while at < bytes.len() {
        bytes[at] = b'a' + (at % 23) as u8;
        at += 1;
    }
    bytes
};

/// Changes so far.
static COUNT: AtomicUsize = AtomicUsize::new(OFF);

/// From now on.
pub(super) fn begin() {
    COUNT.store(0, Ordering::Relaxed);
}

/// The change to make before this request is answered.
pub fn change_before(request: &Message<'_>) -> Option<Message<'static>> {
    let is_on = COUNT.load(Ordering::Relaxed) != OFF;
    (is_on && matches!(request, Message::ListSteps)).then(|| change(COUNT.fetch_add(1, Ordering::Relaxed)))
}

fn change(number: usize) -> Message<'static> {
    let subject = if number.is_multiple_of(2) { Subject::Device } else { Subject::User };
    let value = &VALUE[..(number + 1) * STEP % (METADATA_VALUE_MAX + 1)];
    Message::SetMetadata { subject, key: KEYS[number / 2 % KEYS.len()], value: (number % 8 != 7).then_some(value) }
}
