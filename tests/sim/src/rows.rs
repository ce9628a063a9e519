//! The rows of the protocol's table, each broken in three ways, and who misses it.
//!
//! A hunt is a way to look: what an undisturbed device does, or a cut before every effect from the broken row on, in a
//! voyage or in one procedure. A mutant is killed by the hunt and the law that stand beside it in `FATES`. What cannot be
//! killed says why: it is harmless (and then it is shown that it did something, and that nobody misses it), or it means
//! nothing (and then it is shown that it changes no call).

use crate::{
    chores::{self, Operation},
    device::{End, Voyage},
    explore::{Count, Yard},
    fates::FATES,
    fleet::Quality::{self, *},
    r#gen::Gen,
    growth::growth,
    laws::Broken,
    medium::Mutant,
    procedures::{
        clear, collect, memory, message, prepare_again, prepare_taken, record, replace, reset, stores, take_over,
    },
    saboteur::{How, Mark, disorder},
    suite::{four_updates, one},
};
use boards::env::uboot::Scheme;
use runtime::protocol::{Row, TABLE};
use std::collections::BTreeSet;

/// What becomes of a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// This hunt finds it, by this law; 0: an undisturbed device does what it is asked for.
    Killed(Hunt, u8),
    /// Nobody misses the row, and nobody need: why.
    Harmless(&'static str),
    /// The row cannot be broken so: why.
    Meaningless(&'static str),
}

/// Where to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hunt {
    /// Undisturbed updates of every kind end as they do with the row in place.
    Undisturbed,
    /// A cut, in an update to this; by a reboot (1) or in place (0).
    Cut(Quality, u8),
    /// A cut, and a client that does not send objects again.
    Hasty,
    /// A cut, while a revision of the same name is staged.
    Replace,
    /// A cut, while what the environment names is prepared again.
    PrepareAgain,
    /// The same where the loader reads storage.
    PrepareTaken,
    /// A cut, while the end of an update is recorded.
    Record,
    /// A cut, while a revision that nobody needs is collected.
    Collect,
    /// A cut, while a factory reset removes what is not the factory's.
    Clear,
    /// A cut, while a factory reset is begun.
    Reset,
    /// A cut, after a factory reset has begun: in the boot that ends it, too.
    ResetBoot,
    /// A cut, while something is kept for the endpoint.
    Memory,
    /// A cut, while the text of the original's loader becomes ours.
    TakeOver,
    /// A cut, while a revision's message is replaced.
    Message,
    /// A cut, or a sync that lies, while storage grows.
    Grow,
    /// A cut, or a sync that lies, in one store with incremental (U-Boot on disks) or boolean flags (NOR flash).
    Store(Scheme),
}

/// All of them, the quick ones first.
pub const HUNTS: &[Hunt] = &[
    Hunt::Undisturbed,
    Hunt::Record,
    Hunt::Collect,
    Hunt::Reset,
    Hunt::Clear,
    Hunt::Memory,
    Hunt::TakeOver,
    Hunt::Message,
    Hunt::Grow,
    Hunt::Store(Scheme::Incremental),
    Hunt::Store(Scheme::Boolean),
    Hunt::Replace,
    Hunt::PrepareAgain,
    Hunt::PrepareTaken,
    Hunt::Cut(Good, 0),
    Hunt::Cut(Good, 1),
    Hunt::Cut(NeverReady, 0),
    Hunt::Cut(NeverReady, 1),
    Hunt::Cut(KernelPanics, 1),
    Hunt::Cut(OnlyWarm, 0),
    Hunt::Hasty,
    Hunt::ResetBoot,
];

/// States in which a mutant must be found.
const STATES_MAX: u64 = 6_000;
/// One that is harmless is so in all states of the gate.
const HARMLESS_STATES_MAX: u64 = u64::MAX;
/// States in which one that changes nothing changes nothing.
const MEANINGLESS_STATES_MAX: u64 = 50;

/// What a hunt found: the law that was broken, or that it changed so many calls and nothing else.
pub type Found = Result<u64, Broken>;

/// Goes through a hunt; no mutant: the same with every row in place.
pub fn hunt(hunt: Hunt, mutant: Option<(How, Row)>, states_max: u64) -> Found {
    let mutant = mutant.map(|(how, row)| Mutant::Row(how, row));
    let mut yard = Yard::new();
    yard.states_max = states_max;
    match hunt {
        Hunt::Undisturbed => {
            let mut touched = 0;
            for voyage in undisturbed() {
                touched += ends_as_ever(&mut yard, &voyage, mutant)?;
            }
            Ok(touched)
        }
        Hunt::Cut(quality, base) => cut(&mut yard, Voyage { mutant, ..one(quality, base) }),
        Hunt::Hasty => cut(&mut yard, Voyage { mutant, hasty: true, ..one(Good, 1) }),
        Hunt::Replace => replace(mutant),
        Hunt::PrepareAgain => prepare_again(mutant),
        Hunt::PrepareTaken => prepare_taken(mutant),
        Hunt::Record => record(mutant),
        Hunt::Collect => collect(mutant),
        Hunt::Reset => reset(mutant),
        Hunt::Clear => clear(mutant),
        Hunt::Memory => memory(mutant),
        Hunt::TakeOver => take_over(mutant),
        Hunt::Message => message(mutant),
        Hunt::ResetBoot => {
            let voyage = chores::voyage(&[Operation::NonReboot, Operation::FactoryReset]);
            cut(&mut yard, Voyage { mutant, ..voyage })
        }
        Hunt::Grow => growth(mutant),
        Hunt::Store(scheme) => stores(mutant, scheme),
    }
}

/// Looks whether a mutant has the fate that the table says. What was found, or what is wrong.
pub fn judge(row: Row, how: How, fate: Fate) -> Result<String, String> {
    let name = format!("{} {how:?}", row.id());
    match fate {
        Fate::Killed(where_, law) => match hunt(where_, Some((how, row)), STATES_MAX) {
            Ok(touched) => Err(format!("{name} lives through {where_:?} ({touched} calls changed): nobody misses it")),
            Err(found) if found.law == law => Ok(format!("killed: {name} by law {law}: {}", found.how)),
            Err(found) => Err(format!("{name} is found for another reason: {found:?}")),
        },
        Fate::Harmless(why) => {
            let mut all = 0;
            for place in HUNTS {
                match hunt(*place, Some((how, row)), HARMLESS_STATES_MAX) {
                    Ok(touched) => all += touched,
                    Err(found) => return Err(format!("{name} is not harmless: {place:?}: {found:?}")),
                }
            }
            if all == 0 {
                Err(format!("{name} changes nothing at all"))
            } else {
                Ok(format!("harmless: {name}: {why}"))
            }
        }
        Fate::Meaningless(why) => {
            for place in HUNTS {
                match hunt(*place, Some((how, row)), MEANINGLESS_STATES_MAX) {
                    Ok(0) => {}
                    other => return Err(format!("{name} means something: {place:?}: {other:?}")),
                }
            }
            Ok(format!("meaningless: {name}: {why}"))
        }
    }
}

/// The fates of a row's mutants, in the order of `How::ALL`.
pub fn fates(row: Row) -> [Fate; 3] {
    FATES.iter().find(|(of, _)| *of == row).expect("every row has its mutants").1
}

// ---- whole voyages ------------------------------------------------------------------------------------------------

/// Every kind of update, with nothing in its way.
pub fn undisturbed() -> Vec<Voyage> {
    let kinds = [(Good, 1), (Good, 0), (NeverReady, 1), (NeverReady, 0), (KernelPanics, 1)];
    let more = [(InitPanics, 1), (OnlyWarm, 0), (Breaks, 1), (Recovers, 1)];
    let all = kinds.into_iter().chain(more).map(|(quality, base)| one(quality, base));
    let reset = [Operation::NonReboot, Operation::FactoryReset, Operation::LocalInstall];
    all.chain([four_updates(), chores::voyage(&reset)]).collect()
}

/// What a device did, as far as anybody outside can tell.
fn deeds(end: &End) -> impl PartialEq + std::fmt::Debug + use<> {
    (end.verdicts.clone(), end.committed, end.record, end.told.clone(), end.boots)
}

fn ends_as_ever(yard: &mut Yard, voyage: &Voyage, mutant: Option<Mutant>) -> Found {
    let mut sail = |mutant| {
        let voyage = Voyage { mutant, ..voyage.clone() };
        yard.sail(&voyage, &mut Gen::all(), &mut Count::default()).map_err(|violation| violation.broken)
    };
    let (plain, end) = (sail(None)?, sail(mutant)?);
    if deeds(&plain) == deeds(&end) {
        return Ok(end.touched);
    }
    Err(Broken {
        law: 0,
        observer: "deeds",
        how: format!("it should end as {:?}, and does as {:?}", deeds(&plain), deeds(&end)),
    })
}

/// A cut before every effect from the broken row on.
fn cut(yard: &mut Yard, voyage: Voyage) -> Found {
    let end = yard.sail(&voyage, &mut Gen::all(), &mut Count::default()).map_err(|violation| violation.broken)?;
    match end.began {
        None if voyage.mutant.is_some() => Ok(0),
        began => {
            yard.from = began.unwrap_or(0);
            yard.cut_everywhere(&voyage).map_err(|violation| violation.broken)?;
            Ok(end.touched)
        }
    }
}

/// The rows that are announced somewhere in the hunts. A voyage that announces them in another order is a panic.
pub fn announced() -> BTreeSet<Row> {
    let mut yard = Yard::new();
    let mut rows = BTreeSet::new();
    for voyage in undisturbed() {
        let end = yard.sail(&voyage, &mut Gen::all(), &mut Count::default()).expect("no law is broken");
        assert_eq!(disorder(&end.marks), None, "{}", crate::repeat::line(&voyage, ""));
        rows.extend(end.marks.iter().filter_map(|mark| if let Mark::Row(row) = mark { Some(*row) } else { None }));
    }
    let harmless = |row: Row| How::ALL.into_iter().find(|how| Mutant::Row(*how, row).row().is_some());
    for step in TABLE.iter().filter(|step| !rows.contains(&step.row)).collect::<Vec<_>>() {
        // a hunt that is touched by a mutant was at its row
        let at = |place: &Hunt| hunt(*place, harmless(step.row).map(|how| (how, step.row)), 50) != Ok(0);
        if HUNTS.iter().any(at) {
            rows.insert(step.row);
        }
    }
    rows
}
