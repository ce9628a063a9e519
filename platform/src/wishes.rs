//! What an errand wants of the keeper: one question (what was kept?) and one wish (keep this) at a time. Two do: `endpoint`
//! and `usb`.
//!
//! PID 1 passes both on. Invariants: whatever an errand says, at most one of each stands in the keeper's line, which
//! others need; the answer to what its predecessor asked reaches nobody else.
//! Fault model: an errand says anything, and dies while the keeper works for it.

use crate::wire::MEMORY_MAX;
use runtime::fault::Code;

/// What stands in the keeper's line, and for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// For the errand that runs, which gave it this serial.
    Here(u32),
    /// For one that ended.
    Gone,
}

/// What an errand gets for asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is to be put in the keeper's line.
    Ask,
    /// It stands there already.
    Waits,
    /// It is refused.
    Refused(Code),
    /// No errand of ours asks this.
    Wrong,
}

/// Both, of one errand.
#[derive(Default)]
pub struct Wishes {
    recall: Option<Asked>,
    remember: Option<Asked>,
    bytes: heapless::Vec<u8, MEMORY_MAX>,
}

impl Wishes {
    /// It asks what was kept. If its predecessor asked too, one answer serves.
    pub fn recall(&mut self, serial: u32) -> Taken {
        match self.recall.replace(Asked::Here(serial)) {
            None => Taken::Ask,
            Some(Asked::Gone) => Taken::Waits,
            Some(Asked::Here(_)) => Taken::Wrong,
        }
    }

    /// It wants this kept.
    pub fn remember(&mut self, serial: u32, bytes: &[u8]) -> Taken {
        match self.remember {
            Some(Asked::Here(_)) => return Taken::Wrong,
            Some(Asked::Gone) => return Taken::Refused(Code::Busy),
            None => {}
        }
        self.bytes.clear();
        if self.bytes.extend_from_slice(bytes).is_err() {
            return Taken::Wrong;
        }
        self.remember = Some(Asked::Here(serial));
        Taken::Ask
    }

    /// What is to be kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The question was answered: the serial for which, if who asked is still there.
    pub fn recalled(&mut self) -> Option<u32> {
        here(self.recall.take())
    }

    /// The wish was fulfilled, or cannot be: the serial for which, if who asked is still there.
    pub fn remembered(&mut self) -> Option<u32> {
        self.bytes.clear();
        here(self.remember.take())
    }

    /// It ended.
    pub fn orphan(&mut self) {
        for asked in [&mut self.recall, &mut self.remember].into_iter().flatten() {
            *asked = Asked::Gone;
        }
    }
}

fn here(asked: Option<Asked>) -> Option<u32> {
    match asked {
        Some(Asked::Here(serial)) => Some(serial),
        Some(Asked::Gone) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_stands_in_line_however_often_it_is_asked() {
        let mut wishes = Wishes::default();
        assert_eq!((wishes.recall(1), wishes.remember(2, b"a")), (Taken::Ask, Taken::Ask));
        for serial in 3..1000 {
            assert_eq!((wishes.recall(serial), wishes.remember(serial, b"b")), (Taken::Wrong, Taken::Wrong));
        }
        assert_eq!(wishes.bytes(), b"a", "what the keeper was told stays");
        assert_eq!((wishes.remembered(), wishes.remembered()), (Some(2), None));
        assert_eq!(wishes.remember(5, &[0; MEMORY_MAX + 1]), Taken::Wrong);
        assert_eq!(wishes.remember(6, &[0; MEMORY_MAX]), Taken::Ask);
    }

    #[test]
    fn nobody_is_told_what_a_predecessor_asked() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.remember(1, b"a"), Taken::Ask);
        wishes.orphan();
        assert_eq!(wishes.bytes(), b"a", "it is kept all the same");
        assert_eq!(wishes.remember(1, b"b"), Taken::Refused(Code::Busy));
        assert_eq!(wishes.recall(1), Taken::Ask);
        wishes.orphan();
        // However often it dies, one question waits, and its answer is for the last one.
        assert_eq!((wishes.recall(7), wishes.remembered()), (Taken::Waits, None));
        assert_eq!((wishes.recalled(), wishes.recall(8)), (Some(7), Taken::Ask));
    }
}
