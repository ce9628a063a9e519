//! What becomes of pending effects at a cut.

use crate::sim::r#gen::Gen;

/// What becomes of pending effects at a cut: one of a few plain patterns, or each by its own choice.
pub(super) struct Fate<'g> {
    pub(super) r#gen: &'g mut Gen,
    pub(super) pattern: Pattern,
    pub(super) index: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Pattern {
    Each,
    AllLost,
    AllKept,
    OnlyLost(usize),
    OnlyKept(usize),
    Torn,
    Drawn(u64),
}

impl Fate<'_> {
    /// 0: lost, 1: kept, 2: torn.
    pub(super) fn of(&mut self, choices: usize) -> usize {
        let index = self.index;
        self.index += 1;
        match self.pattern {
            Pattern::Each => self.r#gen.below(choices),
            Pattern::AllLost => 0,
            Pattern::AllKept => 1,
            Pattern::OnlyLost(lost) => usize::from(index != lost),
            Pattern::OnlyKept(kept) => usize::from(index == kept),
            Pattern::Torn => choices - 1,
            Pattern::Drawn(seed) => Gen::random(seed ^ (index as u64) << 32).below(choices),
        }
    }
}

/// Up to this many combinations, all are tried.
pub(super) const COMBINATIONS_MAX: usize = 64;
/// Above, so many are drawn besides the plain patterns.
pub(super) const DRAWN: usize = 8;
