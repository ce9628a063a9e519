//! What a replay must have shown, so that "no law is broken" says something, and "a law is broken" says what was left out.
//!
//! Invariants: a state that could not be looked at counts for nothing: it is a violation where all must hold, and no proof
//! where one must break. A control must break the law that what it leaves out is there for, and in more than a few states.
//! A run over all states has a floor for each operation, and one for all of them.
//! Does not: look at a state.

use super::recording::Control;

/// What a violation begins with where the state could not be looked at.
pub const UNSEEN: &str = "it cannot be looked at";

/// States that are looked at of each operation at least, and of all.
pub const STATES_MIN: u64 = 500;
/// See there.
pub const ALL_STATES_MIN: u64 = 20_000;
/// Of so many states that are looked at, one breaks the law of a control at least.
pub const ONE_OF: u64 = 50;
/// What must break where only a few writes show what is left out. Before anything of a device that was taken over is named to
/// its loader, a sync of the volume has written back what was committed; the exchange of its texts has the checkpoint alone.
const RARE: (&str, Control, u64) = ("takeover", Control::NoCheckpoint, 5);

/// The law that must break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Law {
    /// What is named or was reported is not on storage.
    Stored,
    /// What is named is not seen by the loader.
    Visible,
    /// What is named or was reported is not there, on whichever volume.
    Durable,
}

impl Law {
    /// What a control must show; `deaf`: flushes were not heard. `None`: every law must hold.
    pub fn of(control: Control, deaf: bool) -> Option<Self> {
        match control {
            Control::None => deaf.then_some(Self::Durable),
            Control::NoBarrier => Some(Self::Durable),
            Control::NoSync => Some(Self::Stored),
            Control::NoCheckpoint => Some(Self::Visible),
        }
    }

    /// Whether this violation is one of it.
    pub fn is_broken_by(self, violation: &str) -> bool {
        let unseen = violation.contains("the loader does not see");
        let is = |law: &str| violation.starts_with(law);
        match self {
            Self::Stored => is("law 1:") && !unseen || is("law 4:") || is("objects:"),
            Self::Visible => is("law 1:") && unseen,
            Self::Durable => is("law 1:") || is("law 4:"),
        }
    }

    /// What it is about.
    pub fn words(self) -> &'static str {
        match self {
            Self::Stored => "law 1 on storage, law 4, or objects",
            Self::Visible => "law 1, that the loader sees what is named",
            Self::Durable => "law 1 or 4",
        }
    }
}

/// What was counted of one recording.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// States that were looked at.
    pub looked: u64,
    /// States that could not be looked at.
    pub unseen: u64,
    /// States in which some law is broken.
    pub bad: u64,
    /// States in which the law of the control is broken.
    pub proofs: u64,
}

/// How many states of so many must break the law of a control.
pub fn floor(operation: &str, control: Control, looked: u64) -> u64 {
    match (operation, control) == (RARE.0, RARE.1) {
        true => RARE.2,
        false => looked.div_ceil(ONE_OF),
    }
}

/// What is wrong with it. `law`: of a control, and how many states must break it; `whole`: every state of this operation was
/// to be looked at.
pub fn complaint(tally: Tally, law: Option<(Law, u64)>, whole: Option<&str>) -> Option<String> {
    let Tally { looked, unseen, bad, proofs } = tally;
    if looked == 0 {
        return Some("no state was looked at".into());
    }
    if let Some((law, floor)) = law {
        let what = law.words();
        return (proofs < floor).then(|| format!("{what}: broken in {proofs} of {looked} states, not in {floor}"));
    }
    if bad + unseen > 0 {
        return Some("a law is broken".into());
    }
    whole
        .filter(|_| looked < STATES_MIN)
        .map(|operation| format!("{looked} states of {operation} were looked at, not {STATES_MIN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBLE: &str = "law 1: locals/a is named by the environment, but the loader does not see it";
    const STORED: &str = "law 1: locals/a is named by the environment, but storage has no such revision";

    #[test]
    fn a_control_must_break_the_law_that_it_is_about() {
        let law = |control| Law::of(control, false);
        assert_eq!(law(Control::None), None);
        for (control, visible, stored) in
            [(Control::NoSync, false, true), (Control::NoCheckpoint, true, false), (Control::NoBarrier, true, true)]
        {
            let law = law(control).unwrap();
            assert_eq!((law.is_broken_by(VISIBLE), law.is_broken_by(STORED)), (visible, stored), "{control:?}");
            assert!(!law.is_broken_by(&format!("{UNSEEN}: the journal")));
            assert!(!law.is_broken_by("recovery: the first time: SB1101"));
        }
    }

    #[test]
    fn too_little_is_a_failure_whatever_it_shows() {
        let tally = |looked, unseen, bad, proofs| Tally { looked, unseen, bad, proofs };
        let fails = |tally: Tally, law: Option<Law>, whole| {
            let law = law.map(|law| (law, floor("base", Control::NoBarrier, tally.looked)));
            complaint(tally, law, whole).is_some()
        };
        let few = |operation, control| floor(operation, control, 5000);
        assert_eq!(few("takeover", Control::NoCheckpoint), 5);
        assert_eq!((few("takeover", Control::NoSync), few("base", Control::NoCheckpoint)), (100, 100));
        assert!(fails(tally(0, 0, 0, 0), None, None) && fails(tally(0, 9, 0, 0), Some(Law::Durable), None));
        assert!(!fails(tally(1, 0, 0, 0), None, None));
        assert!(fails(tally(499, 0, 0, 0), None, Some("base")) && !fails(tally(500, 0, 0, 0), None, Some("base")));
        assert!(fails(tally(499, 0, 0, 0), None, Some("collect")) && !fails(tally(499, 0, 0, 0), None, None));
        assert!(fails(tally(900, 0, 1, 0), None, None) && fails(tally(900, 1, 0, 0), None, None));
        // Other laws, and what could not be looked at, prove nothing.
        assert!(fails(tally(100, 50, 100, 1), Some(Law::Durable), None));
        assert!(!fails(tally(100, 0, 2, 2), Some(Law::Durable), None));
    }
}
