//! What is gone through: the parts of the suite and the mutants, shared by the tests (each part and each mutant one
//! test) and by the program that prints the table (`cargo run -p simulator`).

use crate::{
    chores::{self, Chore, Operation},
    device::{Voyage, first},
    evidence_rows::{self, Cuts, Row},
    explore::{Count, Share, Violation, Yard},
    fleet::{Quality, Revision},
    r#gen::Gen,
    laws::Broken,
    loader::{LAYOUT, Skill},
    medium::{Bounds, Damage, Fault, Lie, Model, Mutant, Reach, SECTOR},
    taken::Origin,
};
use Quality::*;
use runtime::{fault::Code, protocol::Row as ProtocolRow};
use std::{cell::RefCell, collections::BTreeSet, io::Write, rc::Rc};

/// A part of the suite.
pub struct Part {
    /// What is gone through.
    pub name: &'static str,
    /// Under which models.
    pub models: &'static [Model],
    /// What must come of it.
    pub work: Work,
}

/// What is gone through, and what must come of it.
pub enum Work {
    /// No law breaks.
    Holds(fn(&mut Yard) -> Outcome),
    /// A control: a promise is asked of a medium that does not give it. A cut in each of these voyages breaks the law that
    /// stands beside it.
    Breaks(fn() -> Vec<(Voyage, u8)>),
}

impl Part {
    /// Whether a law must break.
    pub fn is_control(&self) -> bool {
        matches!(self.work, Work::Breaks(_))
    }
}

/// Counts, or the first law that was broken.
pub type Outcome = Result<Count, Box<Violation>>;

/// Runs of each part that is drawn from seeds. Most power-ons of the gate were such once; what they can find is there in the
/// parts that leave nothing out, so there they are few, and many in the evidence.
fn drawn(yard: &Yard) -> u64 {
    match yard.share {
        Share::Gate => 2_000,
        Share::Evidence => 100_000,
    }
}

const POSIX: &[Model] = &[Model::Posix];
const BOTH: &[Model] = &Model::DEVICE;

const fn part_of(name: &'static str, models: &'static [Model], run: fn(&mut Yard) -> Outcome) -> Part {
    Part { name, models, work: Work::Holds(run) }
}

/// All parts.
pub const PARTS: &[Part] = &[
    part_of("one cut, update by reboot", BOTH, |yard| each(yard, &by_reboot(), Yard::cut_everywhere)),
    part_of("one cut, update in place", BOTH, |yard| each(yard, &in_place(), Yard::cut_everywhere)),
    part_of("one cut, a boot volume on FAT", POSIX, |yard| each(yard, &on_fat(), Yard::cut_everywhere)),
    part_of("one cut, four updates", BOTH, |yard| yard.cut_everywhere(&four_updates())),
    part_of("one cut, loader that cannot count", BOTH, |yard| each(yard, &bad_loaders(), Yard::cut_everywhere)),
    part_of("one cut, containers that fall once committed", BOTH, |yard| each(yard, &falling(), Yard::cut_everywhere)),
    part_of("a cut, and one in what follows", BOTH, |yard| each(yard, &either_way(), Yard::cut_twice)),
    part_of("2 to 5 cuts, 1 to 5 updates, drawn", BOTH, |yard| yard.drawn(drawn(yard), many_cuts)),
    part_of("one call fails, once or from then on", BOTH, |yard| each(yard, &failing(), Yard::fail_everywhere)),
    part_of("a call fails, 1 to 3 cuts, drawn", POSIX, |yard| {
        yard.drawn(drawn(yard), |choices| fault_and_cuts(choices, &[Origin::Factory]))
    }),
    part_of("sequences of 1 operation, one cut", BOTH, |yard| sequences(yard, 1)),
    part_of("sequences of 2 operations, one cut", BOTH, |yard| sequences(yard, 2)),
    part_of("sequences of 3 operations, one cut", BOTH, |yard| sequences(yard, 3)),
    part_of("taken over, one cut in the trial", BOTH, |yard| each(yard, &trials(), Yard::cut_everywhere)),
    part_of("taken over, one cut in an update", BOTH, |yard| each(yard, &after_takeover(), Yard::cut_everywhere)),
    part_of("taken over, a cut, and one in what follows", BOTH, |yard| each(yard, &both_ways(), Yard::cut_twice)),
    part_of("taken over, one call fails, once or from then on", BOTH, |yard| {
        each(yard, &failing_taken(), Yard::fail_everywhere)
    }),
    part_of("taken over, 2 to 5 cuts, 1 to 5 updates, drawn", BOTH, |yard| {
        yard.drawn(drawn(yard) / 2, |choices| {
            let updates = many_cuts(choices);
            taken_over(updates, choices.pick(&TAKEN))
        })
    }),
    part_of("taken over, a call fails, 1 to 3 cuts, drawn", POSIX, |yard| {
        yard.drawn(drawn(yard) / 2, |choices| fault_and_cuts(choices, &TAKEN))
    }),
    part_of("taken over, sequences of 1 operation, one cut", BOTH, |yard| sequences_taken(yard, 1)),
    part_of("taken over, sequences of 2 operations, one cut", BOTH, |yard| sequences_taken(yard, 2)),
    part_of("taken over, sequences of 3 operations, one cut", BOTH, |yard| sequences_taken(yard, 3)),
    part_of("one copy of the environment is damaged", POSIX, |yard| {
        each(yard, &damaged_copy(yard.share), Yard::undisturbed)
    }),
    part_of("both copies of the environment are damaged", POSIX, |yard| {
        each(yard, &damaged_both(yard.share), Yard::undisturbed)
    }),
    part_of("a disk that forgets what it was to flush", POSIX, |yard| {
        each(yard, &lied_to(Lie::Forgets), Yard::cut_plainly)
    }),
    Part {
        name: "control: a disk that holds back what it was to flush",
        models: POSIX,
        work: Work::Breaks(|| lied_to(Lie::Drops).into_iter().zip([1, 4, 1]).collect()),
    },
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

/// Rules that are more than one row of the protocol's table; each row's own mutants stand in `fates`.
pub const MUTANTS: &[Sabotage] = &[
    Sabotage { mutant: Mutant::NoFileSync, hunt: cut_by_reboot, laws: &[0, 1, 3] },
    Sabotage { mutant: Mutant::NoDirectorySync, hunt: cut_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::NoEnvironmentSync, hunt: cut_by_reboot, laws: &[0, 2, 4] },
    Sabotage { mutant: Mutant::TwoStores, hunt: cut_by_reboot, laws: &[2] },
    Sabotage { mutant: Mutant::DoneBeforeCommit, hunt: cut_by_reboot, laws: &[4] },
    Sabotage { mutant: Mutant::CollectTheOtherCopy, hunt: three_commits, laws: &[1] },
    Sabotage { mutant: Mutant::UncheckedSync, hunt: fail_by_reboot, laws: &[1] },
    Sabotage { mutant: Mutant::ActiveCopyOverwritten, hunt: cut_in_place, laws: &[2, 4] },
    Sabotage { mutant: Mutant::OnlyTheLoaderCounts, hunt: careless, laws: &[3] },
    Sabotage { mutant: Mutant::CommitAtArm, hunt: cut_by_reboot, laws: &[0, 2] },
];

/// Goes through a part.
pub fn go_through(part: &Part, model: Model, share: Share, seed: u64) -> Seen {
    let mut yard = Yard::new();
    (yard.model, yard.share, yard.seed) = (model, share, seed);
    let mut seen = Seen { count: Count::default(), found: vec![], wrong: None };
    let mut report = |how: String| {
        let all = seen.wrong.get_or_insert_default();
        all.push_str(&format!("{}{} ({}): {how}", if all.is_empty() { "" } else { "\n" }, part.name, model.word()));
    };
    match part.work {
        Work::Holds(run) => match run(&mut yard) {
            Ok(count) => seen.count = count,
            Err(violation) => report(yard.trace(&violation)),
        },
        Work::Breaks(voyages) => {
            for (number, (voyage, law)) in voyages().into_iter().enumerate() {
                match yard.cut_plainly(&voyage) {
                    Ok(Count { states, .. }) => report(format!("voyage {number}: nobody noticed, in {states} states")),
                    Err(violation) if violation.broken.law == law => seen.found.push(violation.broken),
                    Err(violation) => report(format!("voyage {number}, not law {law}: {}", yard.trace(&violation))),
                }
            }
        }
    }
    seen
}

/// What a part came to.
pub struct Seen {
    /// What was gone through, if nothing went wrong.
    pub count: Count,
    /// Of a control: what broke in each voyage, as it must.
    pub found: Vec<Broken>,
    /// The report of a law that was broken, or of a control in which the law was not that must.
    pub wrong: Option<String>,
}

impl Seen {
    /// A line of the table, or the report of what went wrong.
    pub fn line(&self, part: &Part, model: Model) -> String {
        if let Some(report) = &self.wrong {
            return report.clone();
        }
        let name = format!("{}, {}", part.name, model.word());
        let detected =
            |Broken { law, observer, how }: &Broken| format!("{name:58} detected by law {law} ({observer}): {how}");
        if part.is_control() {
            self.found.iter().map(detected).collect::<Vec<_>>().join("\n")
        } else {
            row(&name, &self.count)
        }
    }

    /// A row of the evidence; also of what went wrong, so that no older row stands for it.
    pub fn row(&self, part: &Part, model: Model, share: Share, seed: u64) -> Row {
        let violations = match (part.is_control(), &self.wrong) {
            (true, None) => self.found.len() as u64,
            (false, Some(_)) => 1,
            _ => 0,
        };
        let (name, option) = match share {
            Share::Evidence => (row_name(part, model), ""),
            Share::Gate => (format!("{}, the gate's share", row_name(part, model)), "--gate "),
        };
        let Count { states, distinct, cuts, sampled, .. } = self.count;
        Row {
            name,
            count: states,
            distinct,
            classes: None,
            violations,
            seed,
            command: format!(
                "cargo run -q -p simulator -- {option}--part '{}' --model {} --seed {seed}",
                part.name,
                model.word()
            ),
            commit: evidence_rows::commit(),
            cuts: (!part.is_control() && self.wrong.is_none()).then_some(Cuts { all: cuts, sampled }),
            spread: None,
            mended: None,
            proofs: None,
            grown_by: None,
        }
    }
}

/// The name of a part's row.
pub fn row_name(part: &Part, model: Model) -> String {
    format!("simulator: {}, {}", part.name, model.word())
}

/// Goes through the gate's share of a part, under each of its models; a violation is a panic that shows how to repeat it.
pub fn part(name: &str) {
    let part = PARTS.iter().find(|part| part.name == name).expect("a part of the suite");
    for model in part.models {
        let seen = go_through(part, *model, Share::Gate, seed());
        assert!(seen.wrong.is_none(), "{}", seen.line(part, *model));
        say(&seen.line(part, *model));
    }
}

/// The rows that a part comes through where nothing is cut, as far as the first runs show it.
pub fn announced(part: &Part) -> BTreeSet<ProtocolRow> {
    let rows = Rc::new(RefCell::new(BTreeSet::new()));
    let mut yard = Yard::new();
    yard.with_hardware(|hardware| hardware.rows = Some(rows.clone()));
    // The power never goes; of what is drawn there are a few.
    (yard.from, yard.states_max) = (u64::MAX / 2, 500);
    match part.work {
        Work::Holds(run) => drop(run(&mut yard)),
        Work::Breaks(voyages) => voyages().iter().for_each(|(voyage, _)| drop(yard.cut_plainly(voyage))),
    }
    drop(yard);
    rows.take()
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
        "{name:58} {states:8} states {distinct:8} distinct {boots:8} power-ons {cuts:6} cuts ({sampled} sampled) \
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
        origin: Origin::Factory,
        skill: Skill::Counts,
        cuts: vec![],
        fault: None,
        mutant: None,
        hasty: false,
        model: Model::default(),
        boot: None,
        damage: None,
        lie: None,
        bounds: Bounds::GATE,
        later: Bounds::FEW,
    }
}

/// The original has armed our revision, which behaves so.
pub fn on_trial(quality: Quality) -> Voyage {
    let mut voyage = chores::voyage_of(Origin::ByUpdate, &[]);
    voyage.fleet[1].quality = quality;
    voyage
}

/// Where what is drawn begins: `SWITCHBACK_SEED`, or 1.
pub fn seed() -> u64 {
    std::env::var("SWITCHBACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Every sequence of so many operations; of those of three, the gate takes one in eight, another one with each seed.
fn sequences(yard: &mut Yard, length: u32) -> Outcome {
    sequences_of(yard, Origin::Factory, length, if length == 3 { 8 } else { 1 })
}

/// The same after a takeover, as it is and by an update; of those of two the gate takes one in two, of those of three one in
/// 64. Of what a cut in one of three may leave, the evidence takes no more than the gate: it goes through all of them.
fn sequences_taken(yard: &mut Yard, length: u32) -> Outcome {
    let every = [1, 1, 2, 64][length as usize];
    let mut all = sequences_of(yard, Origin::AsItIs, length, every)?;
    all.add(sequences_of(yard, Origin::ByUpdate, length, every)?);
    Ok(all)
}

/// `every`: the gate takes one in so many.
fn sequences_of(yard: &mut Yard, origin: Origin, length: u32, every: u64) -> Outcome {
    let every = if yard.share == Share::Gate { every } else { 1 };
    let plainly = yard.share == Share::Gate || origin != Origin::Factory && length > 2;
    let mut all = Count::default();
    let (mut taken, mut of) = (0, 0);
    let total = Operation::ALL.len().pow(length) as u64;
    for (number, operations) in (0..).zip(Operation::sequences(length)) {
        of += 1;
        // an odd factor, so that those taken begin with every operation
        if (number * 317 + yard.seed * (total / every)) % total < total / every {
            taken += 1;
            let voyage = chores::voyage_of(origin, &operations);
            all.add(if plainly { yard.cut_plainly(&voyage)? } else { yard.cut_everywhere(&voyage)? });
        }
    }
    say(&format!("{origin:?}, sequences of {length}: {taken} of {of}, each with a cut before every effect"));
    Ok(all)
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

/// What no board has: names on FAT change in parts. New ones are whole all the same; that one which is replaced can vanish
/// is shown in `power_cut.rs`.
fn on_fat() -> Vec<Voyage> {
    by_reboot().into_iter().map(|voyage| Voyage { boot: Some(Model::Fat), ..voyage }).collect()
}

/// Restarts do not help: the device must come to rest without.
fn falling() -> Vec<Voyage> {
    [1, 0].map(|base| one(Breaks, base)).into()
}

fn in_place() -> Vec<Voyage> {
    [Good, NeverReady, Exits, OnlyWarm].map(|quality| one(quality, 0)).into()
}

/// The original has armed ours: it stays, it fails in every way; after it, what the original left is run, and an update.
fn trials() -> Vec<Voyage> {
    let ends = [Good, NeverReady, Exits, KernelPanics, InitPanics].map(on_trial);
    ends.into_iter().chain([left_run(), chores::voyage_of(Origin::ByUpdate, &[Operation::Commit])]).collect()
}

/// What the original has installed and never armed is run, once our text is in force.
pub fn left_run() -> Voyage {
    let mut voyage = on_trial(Good);
    voyage.chores.push(Chore::Run(2));
    voyage
}

/// Updates of every kind; a loader that cannot keep its mark; the factory revision, which the original left, made ours again.
fn after_takeover() -> Vec<Voyage> {
    let as_it_is = |voyage| Voyage { origin: Origin::AsItIs, ..voyage };
    let unmarked = [one(InitPanics, 1), one(NeverReady, 1), one(Good, 1)];
    let unmarked = unmarked.map(|voyage| Voyage { skill: Skill::Careless, ..voyage });
    let reset = chores::voyage(&[Operation::NonReboot, Operation::FactoryReset]);
    by_reboot().into_iter().chain(in_place()).chain(unmarked).chain([reset]).map(as_it_is).collect()
}

/// What an original may have left.
const TAKEN: [Origin; 2] = [Origin::AsItIs, Origin::ByUpdate];

fn failing_taken() -> Vec<Voyage> {
    both_ways().into_iter().chain(operations().map(|it| chores::voyage_of(Origin::AsItIs, &it))).collect()
}

fn both_ways() -> Vec<Voyage> {
    let as_it_is = |quality, base| Voyage { origin: Origin::AsItIs, ..one(quality, base) };
    vec![on_trial(Good), on_trial(NeverReady), left_run(), as_it_is(Good, 1), as_it_is(NeverReady, 0)]
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
    let updates = voyages.map(|(quality, base)| one(quality, base)).into_iter().chain([four_updates()]);
    updates.chain(operations().map(|operations| chores::voyage(&operations))).collect()
}

/// What is not an update: a message, a revision that takes another one's place, a collection of what is named no more, a
/// factory reset.
fn operations() -> [Vec<Operation>; 4] {
    use Operation::*;
    [vec![Install], vec![LocalInstall], vec![LocalInstall, NonReboot, Collect], vec![NonReboot, FactoryReset]]
}

/// Bits of a copy that are damaged: each of the flags, over which there is no checksum, and beyond them a share.
fn damaged_bits(share: Share) -> impl Iterator<Item = usize> + Clone {
    let step = damage_step(share);
    (0..8 * LAYOUT.size).filter(move |bit| FLAGS.contains(bit) || bit.is_multiple_of(step))
}

/// The bits behind the checksum.
const FLAGS: std::ops::Range<usize> = 32..40;

/// Each bit with such a number is damaged.
pub(super) fn damage_step(share: Share) -> usize {
    match share {
        Share::Gate => 509,
        Share::Evidence => 37,
    }
}

/// Damage before every power-on: bits all over a copy (`damaged_bits`), and each of its sectors torn.
fn damaged_copy(share: Share) -> Vec<Voyage> {
    let sectors = LAYOUT.size / SECTOR;
    let of = |copy| {
        let flips = damaged_bits(share).map(move |bit| Damage::Flip { copy, bit });
        flips.chain((0..sectors).map(move |sector| Damage::Torn { copy, sector }))
    };
    (0..2).flat_map(of).flat_map(damaged).collect()
}

fn damaged_both(share: Share) -> Vec<Voyage> {
    damaged_bits(share).map(|bit| Damage::Both { bit }).flat_map(damaged).collect()
}

fn damaged(damage: Damage) -> Vec<Voyage> {
    let two = |first: (Quality, u8), second: (Quality, u8)| {
        let updates = [("locals/a", first), ("locals/b", second)].into_iter().zip(1..);
        several(updates.map(|((name, (quality, base)), image)| Revision::new(name, quality, base, image)).collect())
    };
    let voyages = [two((Good, 1), (NeverReady, 2)), two((Good, 0), (Good, 1)), two((NeverReady, 1), (Good, 0))];
    let at = |voyage: Voyage| (1..=8).map(move |boot| Voyage { damage: Some((boot, damage)), ..voyage.clone() });
    voyages.into_iter().flat_map(at).collect()
}

fn lied_to(lie: Lie) -> Vec<Voyage> {
    [one(Good, 1), one(Good, 0), one(NeverReady, 1)].map(|voyage| Voyage { lie: Some(lie), ..voyage }).into()
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

/// The same updates after a takeover.
fn taken_over(voyage: Voyage, origin: Origin) -> Voyage {
    let Voyage { mut fleet, mut chores, .. } = chores::voyage_of(origin, &[]);
    chores.extend((fleet.len()..).take(voyage.chores.len()).map(Chore::Update));
    fleet.extend(voyage.fleet.into_iter().skip(1));
    Voyage { origin, fleet, chores, ..voyage }
}

/// An update, or one to three operations of any kind.
fn fault_and_cuts(choices: &mut Gen, origins: &[Origin]) -> Voyage {
    let origin = choices.pick(origins);
    let voyage = if choices.below(2) == 0 {
        let update = one(choices.pick(&[Good, NeverReady, InitPanics]), choices.below(2) as u8);
        if origin == Origin::Factory { update } else { taken_over(update, origin) }
    } else {
        let operations: Vec<Operation> = (0..1 + choices.below(3)).map(|_| choices.pick(&Operation::ALL)).collect();
        chores::voyage_of(origin, &operations)
    };
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
    yard.drawn(50, |_| Voyage { skill: Skill::Careless, mutant, ..one(InitPanics, 1) })
}
