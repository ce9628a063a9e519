//! What a replay must have shown, so that "no law is broken" says something, and "a law is broken" says what was left out.
//!
//! Invariants: a state that could not be looked at counts for nothing: it is a violation where all must hold, and no proof
//! where one must break. A control must break the law that what it leaves out is there for, and in more than a few states.
//! A run over all states has a floor for each operation, and one for all of them.
//! Does not: look at a state.

use runtime::protocol::Row;

use super::recording::Control;

/// What a violation begins with where the state could not be looked at.
pub const UNSEEN: &str = "it cannot be looked at";

/// States that are looked at of each operation at least, those of the epoch with most of them not counted; and of all.
pub const STATES_MIN: u64 = 500;
/// Operations of which that epoch counts as well: a start writes little.
const SMALL: [&str; 2] = ["first-boot", "growth"];
/// See there.
pub const ALL_STATES_MIN: u64 = 20_000;
/// Of so many states that are looked at, one breaks each law of a control at least.
pub const ONE_OF: u64 = 200;
/// What must break where only a few writes show what is left out. Before anything of a device that was taken over is named to
/// its loader, a sync of the volume has written back what was committed; the exchange of its texts has the checkpoint alone.
const RARE: (&str, Control, u64) = ("takeover", Control::NoCheckpoint, 5);

/// What a control shows to be looked at: each is broken by messages of its own and by no other's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Law {
    /// What a copy of the environment names is whole on storage.
    Stored,
    /// What a copy of the environment names is seen by the loader, as it is.
    Visible,
    /// What is in force is what the loader of a device that was taken over decides by.
    Decided,
    /// What was reported holds.
    Told,
    /// An object holds what its name says.
    Content,
}

impl Law {
    /// What must break, each of them, where this was left out; `deaf`: flushes were not heard. None: every law must hold.
    pub fn of(operation: &str, control: Control, deaf: bool) -> &'static [Self] {
        match (operation, control) {
            (_, Control::None) if deaf => &[Self::Told],
            (_, Control::None) => &[],
            (_, Control::NoBarrier) => &[Self::Stored, Self::Told],
            (_, Control::NoSync) => &[Self::Stored, Self::Told, Self::Content],
            ("takeover", Control::NoCheckpoint) => &[Self::Decided],
            (_, Control::NoCheckpoint) => &[Self::Visible],
            (_, Control::Without(Row::SyncContents)) => &[Self::Content, Self::Told],
            (_, Control::Without(Row::Checkpoint)) => &[Self::Visible],
            (_, Control::Without(_)) => &[Self::Told],
        }
    }

    /// Whether this violation is one of it.
    pub fn is_broken_by(self, violation: &str) -> bool {
        // What the environment names, and why that is broken: the loader's view, or storage.
        let law_1 = violation.strip_prefix("law 1: ");
        let named = law_1.and_then(|rest| rest.split_once(" is named by the environment, but "));
        let to_loader = |how: &str| how.starts_with("the loader ");
        match self {
            Self::Stored => named.is_some_and(|(_, how)| !to_loader(how)),
            Self::Visible => named.is_some_and(|(_, how)| to_loader(how)),
            Self::Decided => law_1.is_some_and(|rest| rest.contains(" is in force, but the loader does not see it: ")),
            Self::Told => violation.starts_with("law 4: "),
            Self::Content => violation.starts_with("objects: "),
        }
    }

    /// What it is about.
    pub fn words(self) -> &'static str {
        match self {
            Self::Stored => "law 1, storage",
            Self::Visible => "law 1, loader",
            Self::Decided => "law 1, text",
            Self::Told => "law 4",
            Self::Content => "objects",
        }
    }
}

/// What was counted of one recording.
#[derive(Clone, Debug)]
pub struct Tally {
    /// States that were looked at.
    pub looked: u64,
    /// Of them those outside the epoch with most of them.
    pub outside: u64,
    /// States that could not be looked at.
    pub unseen: u64,
    /// States in which some law is broken.
    pub bad: u64,
    /// States in which each law is broken that a control must break.
    pub proofs: Vec<(Law, u64)>,
    /// In how many states each of those must be broken.
    pub floor: u64,
}

/// In how many states of so many a control must break a law.
pub fn floor(operation: &str, control: Control, looked: u64) -> u64 {
    match (operation, control) == (RARE.0, RARE.1) {
        true => RARE.2,
        false => looked.div_ceil(ONE_OF),
    }
}

/// What is wrong with it. `whole`: every state of this operation was to be looked at.
pub fn complaints(tally: &Tally, whole: Option<&str>) -> Vec<String> {
    let Tally { looked, outside, unseen, bad, ref proofs, floor } = *tally;
    if looked == 0 {
        return vec!["no state was looked at".into()];
    }
    if !proofs.is_empty() {
        let few = proofs.iter().filter(|(_, count)| *count < floor);
        return few
            .map(|(law, count)| format!("{}: broken in {count} of {looked} states, not in {floor}", law.words()))
            .collect();
    }
    let mut all = Vec::new();
    if bad + unseen > 0 {
        all.push("a law is broken".into());
    }
    all.extend(whole.and_then(|operation| too_few(operation, looked, outside)));
    all
}

/// What is wrong with so many states of an operation, so many of them outside the epoch with most.
pub fn too_few(operation: &str, looked: u64, outside: u64) -> Option<String> {
    let (states, which) = match SMALL.contains(&operation) {
        true => (looked, ""),
        false => (outside, " outside the epoch with most of them"),
    };
    (states < STATES_MIN).then(|| format!("{states} states of {operation} were looked at{which}, not {STATES_MIN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBLE: &str = "law 1: locals/a is named by the environment, but the loader does not see it";
    const STORED: &str = "law 1: locals/a is named by the environment, but storage has no such revision";

    #[test]
    fn each_law_is_shown_by_its_own_messages() {
        let of = |violation: &str| {
            [Law::Stored, Law::Visible, Law::Decided, Law::Told, Law::Content].map(|law| law.is_broken_by(violation))
        };
        assert_eq!(of(STORED), [true, false, false, false, false]);
        assert_eq!(of(VISIBLE), [false, true, false, false, false]);
        assert_eq!(of(&format!("{VISIBLE} (at rest after the recovery)")), [false, true, false, false, false]);
        assert_eq!(of("law 4: memory was reported as kept, and is lost or older"), [false, false, false, true, false]);
        assert_eq!(of("objects: 01 on storage holds 02"), [false, false, false, false, true]);
        let text = "law 1: Some((\"0\", None)) is in force, but the loader does not see it: None, None";
        assert_eq!(of(text), [false, false, true, false, false]);
        // What no control may lean on.
        for other in [
            "law 1: no copy of the environment is valid",
            "law 5: the loader finds nothing that boots",
            "recovery: the first time: SB1101",
            &format!("{UNSEEN}: the journal"),
        ] {
            assert_eq!(of(other), [false; 5], "{other}");
        }
    }

    #[test]
    fn too_little_is_a_failure_whatever_it_shows() {
        let tally = |looked, unseen, bad| Tally { looked, outside: looked, unseen, bad, proofs: vec![], floor: 0 };
        let fails = |tally: &Tally, whole| !complaints(tally, whole).is_empty();
        assert!(fails(&tally(0, 0, 0), None) && fails(&tally(0, 9, 0), None) && !fails(&tally(1, 0, 0), None));
        assert!(fails(&tally(499, 0, 0), Some("base")) && !fails(&tally(500, 0, 0), Some("base")));
        assert!(!fails(&tally(499, 0, 0), None));
        assert!(too_few("base", 5000, 499).is_some() && too_few("base", 5000, 500).is_none());
        assert!(too_few("growth", 500, 9).is_none() && too_few("growth", 499, 9).is_some());
        assert!(fails(&tally(900, 0, 1), None) && fails(&tally(900, 1, 0), None));
    }

    #[test]
    fn a_control_must_break_each_law_that_it_is_about() {
        let fails = |one, other| {
            let proofs = vec![(Law::Stored, one), (Law::Told, other)];
            complaints(&Tally { looked: 100, outside: 100, unseen: 50, bad: 100, proofs, floor: 2 }, None).len()
        };
        // Other laws, and what could not be looked at, prove nothing.
        assert_eq!((fails(2, 2), fails(2, 1), fails(0, 0)), (0, 1, 2));
        assert!(Law::of("base", Control::None, false).is_empty() && !Law::of("base", Control::None, true).is_empty());
        assert_eq!((floor("base", Control::NoSync, 401), floor("takeover", Control::NoCheckpoint, 5000)), (3, 5));
    }
}
