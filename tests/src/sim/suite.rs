//! What is gone through: the parts of the suite and the mutants, shared by the tests (each part and each mutant one
//! test) and by the program that prints the table (`cargo run -p tests --bin simulator`).

use crate::sim::{
    chores::Chore,
    device::{Voyage, first},
    explore::{Count, Violation, Yard},
    fleet::{Quality, Revision},
    r#gen::Gen,
    loader::Skill,
    medium::{Bounds, Fault, Model, Mutant, Reach, Sync},
};
use Quality::*;
use runtime::fault::Code;
use std::{io::Write, ops::Range};

/// A part of the suite.
pub struct Part {
    /// What is gone through.
    pub name: &'static str,
    /// Does it.
    pub run: fn(&mut Yard) -> Outcome,
}

/// Counts, or the first law that was broken.
pub type Outcome = Result<Count, Box<Violation>>;

/// Runs of each part that is drawn from seeds.
const DRAWN: u64 = 20_000;

/// All parts.
pub const PARTS: &[Part] = &[
    Part { name: "one cut, update by reboot", run: |yard| each(yard, &by_reboot(), Yard::cut_everywhere) },
    Part { name: "one cut, update in place", run: |yard| each(yard, &in_place(), Yard::cut_everywhere) },
    Part { name: "one cut, four updates", run: |yard| yard.cut_everywhere(&four_updates()) },
    Part { name: "one cut, loader that cannot count", run: |yard| each(yard, &bad_loaders(), Yard::cut_everywhere) },
    Part {
        name: "one cut, containers that fall once committed",
        run: |yard| each(yard, &falling(), Yard::cut_everywhere),
    },
    Part { name: "a cut, and one in what follows", run: |yard| each(yard, &either_way(), Yard::cut_twice) },
    Part { name: "2 to 5 cuts, 1 to 5 updates, drawn", run: |yard| yard.drawn(seeds(), many_cuts) },
    Part { name: "one call fails, once or from then on", run: |yard| each(yard, &failing(), Yard::fail_everywhere) },
    Part { name: "a call fails, 1 to 3 cuts, drawn", run: |yard| yard.drawn(seeds(), fault_and_cuts) },
];

/// A rule taken away.
pub struct Sabotage {
    /// Which.
    pub mutant: Mutant,
    /// Goes through voyages in which somebody must miss it.
    pub hunt: fn(&mut Yard, Option<Mutant>) -> Outcome,
    /// The law that is broken then.
    pub laws: &'static [u8],
}

/// Runs in which a mutant must be found.
const HUNT_MAX: u64 = 30_000;

/// All mutants.
pub const MUTANTS: &[Sabotage] = &[
    Sabotage { mutant: Mutant::NoFileSync, hunt: cut_by_reboot, laws: &[1, 3] },
    Sabotage { mutant: Mutant::NoDirectorySync, hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::NoEnvironmentSync, hunt: cut_by_reboot, laws: &[0, 2, 4] },
    Sabotage { mutant: Mutant::NoCheckpoint, hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::TwoStores, hunt: cut_by_reboot, laws: &[2] },
    Sabotage { mutant: Mutant::DoneBeforeCommit, hunt: cut_by_reboot, laws: &[4] },
    Sabotage { mutant: Mutant::CollectTheOtherCopy, hunt: three_commits, laws: &[1] },
    Sabotage { mutant: Mutant::RenameBeforeSync, hunt: cut_by_reboot, laws: &[1, 3, 5] },
    Sabotage { mutant: Mutant::UncheckedSync, hunt: fail_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::ActiveCopyOverwritten, hunt: cut_in_place, laws: &[2, 4] },
    Sabotage { mutant: Mutant::OnlyTheLoaderCounts, hunt: careless, laws: &[3] },
    Sabotage { mutant: Mutant::CommitAtArm, hunt: cut_by_reboot, laws: &[0, 2] },
    Sabotage { mutant: Mutant::Without(Sync::Contents), hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::Without(Sync::ObjectNames), hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::Without(Sync::RevisionNames), hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::Without(Sync::BootContents), hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::Without(Sync::Record), hunt: cut_a_failure, laws: &[3, 4] },
];

/// Goes through a part; a violation is a panic that shows how to repeat it.
pub fn part(name: &str) {
    let part = PARTS.iter().find(|part| part.name == name).expect("a part of the suite");
    let mut yard = Yard::new();
    match (part.run)(&mut yard) {
        Ok(count) => say(&row(part.name, &count)),
        Err(violation) => panic!("{}", yard.trace(&violation)),
    }
}

/// Hunts a mutant; that it lives is a panic.
pub fn mutant(mutant: Mutant) {
    let sabotage = MUTANTS.iter().find(|sabotage| sabotage.mutant == mutant).expect("a mutant of the suite");
    match killed(sabotage) {
        Ok(how) => say(&how),
        Err(how) => panic!("{how}"),
    }
}

/// By which law a mutant was found, or that it was not.
pub fn killed(sabotage: &Sabotage) -> Result<String, String> {
    let mut yard = Yard::new();
    yard.states_max = HUNT_MAX;
    match (sabotage.hunt)(&mut yard, Some(sabotage.mutant)) {
        Ok(count) => Err(format!("{:?} lives after {} runs: nobody misses that rule", sabotage.mutant, count.states)),
        Err(found) if sabotage.laws.contains(&found.broken.law) => {
            Ok(format!("killed: {:?} by law {}: {}", sabotage.mutant, found.broken.law, found.broken.how))
        }
        Err(found) => Err(format!("{:?} is found for another reason: {:?}", sabotage.mutant, found.broken)),
    }
}

/// A line of the table.
pub fn row(name: &str, count: &Count) -> String {
    let Count { states, distinct, boots, cuts, sampled, faults } = count;
    format!(
        "{name:44} {states:8} states {distinct:8} distinct {boots:8} power-ons {cuts:7} cuts, {sampled:6} sampled \
         {faults:6} faults   0 violations"
    )
}

/// Past the test harness, which shows only what failed: the gate's log must show the counts.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One update; `base` 0: in place.
pub fn one(quality: Quality, base: u8) -> Voyage {
    several(vec![Revision::new("locals/a", quality, base, 1)])
}

/// These updates.
pub fn several(updates: Vec<Revision>) -> Voyage {
    let fleet: Vec<Revision> = [first()].into_iter().chain(updates).collect();
    let chores = (1..fleet.len()).map(Chore::Update).collect();
    Voyage {
        fleet,
        chores,
        skill: Skill::Counts,
        cuts: vec![],
        fault: None,
        mutant: None,
        hasty: false,
        model: Model::default(),
        bounds: Bounds::GATE,
        later: Bounds::FEW,
    }
}

/// Where the drawn parts begin: `SWITCHBACK_SEED`, or 1.
fn seeds() -> Range<u64> {
    let start = std::env::var("SWITCHBACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    say(&format!("seeds {start} to {} (SWITCHBACK_SEED)", start + DRAWN - 1));
    start..start + DRAWN
}

fn each(yard: &mut Yard, voyages: &[Voyage], run: fn(&mut Yard, &Voyage) -> Outcome) -> Outcome {
    let mut all = Count::default();
    for voyage in voyages {
        all.add(run(yard, voyage)?);
    }
    Ok(all)
}

fn by_reboot() -> Vec<Voyage> {
    [Good, NeverReady, KernelPanics, InitPanics].map(|quality| one(quality, 1)).into()
}

/// Restarts do not help: the device must come to rest without.
fn falling() -> Vec<Voyage> {
    [1, 0].map(|base| one(Breaks, base)).into()
}

fn in_place() -> Vec<Voyage> {
    [Good, NeverReady, Exits, OnlyWarm].map(|quality| one(quality, 0)).into()
}

fn either_way() -> Vec<Voyage> {
    vec![one(Good, 1), one(Good, 0), one(NeverReady, 1), one(OnlyWarm, 0)]
}

/// One by reboot, two in place of which one fails, one by reboot.
pub(super) fn four_updates() -> Voyage {
    let updates = [("locals/a", Good, 1), ("locals/b", NeverReady, 1), ("locals/c", Good, 1), ("locals/d", Good, 2)];
    let updates = updates.into_iter().zip(1..);
    several(updates.map(|((name, quality, base), image)| Revision::new(name, quality, base, image)).collect())
}

fn bad_loaders() -> Vec<Voyage> {
    [(Skill::CannotSave, Good), (Skill::Careless, InitPanics), (Skill::Careless, NeverReady), (Skill::Careless, Good)]
        .map(|(skill, quality)| Voyage { skill, ..one(quality, 1) })
        .into()
}

fn failing() -> Vec<Voyage> {
    let voyages = [(Good, 1), (Good, 0), (NeverReady, 1), (NeverReady, 0), (OnlyWarm, 0), (InitPanics, 1)];
    voyages.map(|(quality, base)| one(quality, base)).into_iter().chain([four_updates()]).collect()
}

fn many_cuts(choices: &mut Gen) -> Voyage {
    let mut base = 0;
    let updates = (0..1 + choices.below(5)).map(|at| {
        base += choices.below(2) as u8;
        let quality = choices.pick(&[Good, Good, Good, NeverReady, Exits, InitPanics]);
        Revision::new(&format!("locals/{at}"), quality, base, 1 + at as u8) // what is equal behaves equally
    });
    let voyage = several(updates.collect());
    let cuts = (0..2 + choices.below(4)).map(|_| choices.below(120) as u64).collect();
    Voyage { cuts, ..voyage }
}

fn fault_and_cuts(choices: &mut Gen) -> Voyage {
    let voyage = one(choices.pick(&[Good, NeverReady, InitPanics]), choices.below(2) as u8);
    let fault = Fault {
        at: choices.below(250) as u64,
        sticky: choices.below(2) == 1,
        code: choices.pick(&[Code::StorageIo, Code::NoSpace]),
        reach: choices.pick(&Reach::ALL),
    };
    let cuts = (0..1 + choices.below(3)).map(|_| choices.below(100) as u64).collect();
    Voyage { cuts, fault: Some((1 + choices.below(4) as u32, fault)), ..voyage }
}

fn cut_by_reboot(yard: &mut Yard, mutant: Option<Mutant>) -> Outcome {
    yard.cut_everywhere(&Voyage { mutant, ..one(Good, 1) })
}

fn cut_in_place(yard: &mut Yard, mutant: Option<Mutant>) -> Outcome {
    yard.cut_everywhere(&Voyage { mutant, ..one(Good, 0) })
}

/// In place, so that nothing but its record says why it failed.
fn cut_a_failure(yard: &mut Yard, mutant: Option<Mutant>) -> Outcome {
    yard.cut_everywhere(&Voyage { mutant, ..one(NeverReady, 0) })
}

fn fail_by_reboot(yard: &mut Yard, mutant: Option<Mutant>) -> Outcome {
    yard.fail_everywhere(&Voyage { mutant, ..one(Good, 1) })
}

/// The third commit leaves the first update named by the copy that is not in use, and by nobody else.
fn three_commits(yard: &mut Yard, mutant: Option<Mutant>) -> Outcome {
    let names = ["locals/a", "locals/b", "locals/c"].into_iter().zip(1..);
    let updates = names.map(|(name, image)| Revision::new(name, Good, 0, image)).collect();
    yard.cut_everywhere(&Voyage { mutant, ..several(updates) })
}

fn careless(yard: &mut Yard, mutant: Option<Mutant>) -> Outcome {
    yard.drawn(0..50, |_| Voyage { skill: Skill::Careless, mutant, ..one(InitPanics, 1) })
}
