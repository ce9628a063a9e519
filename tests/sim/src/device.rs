//! One device and its user: power-on after power-on, with the real machine, the real procedures and the real
//! environment codec between the simulated doors, until nothing is left to do.

use crate::{
    chores::Chore,
    fleet::{Quality, Revision, content, quality, rev},
    laws::{Broken, Laws},
    loader::{self, LAYOUT, OFFSETS, Skill},
    medium::{Bench, Bounds, Damage, Fault, Hardware, Lie, Model, Mutant, SECTOR},
    saboteur::{Door, Mark},
    taken::{self, Origin, original_runs, take_over},
    user::User,
    world::{Copies, Sea, load},
};
use boards::env::{
    Codec,
    uboot::{self, Uboot},
};
use runtime::{
    boot::{self, Mode},
    fault::Code,
    id::RevName,
    journal::{self, Phase, Record},
    limits,
    machine::Machine,
    port::{BootEnv, BootVars, Disk, Name, Region, Stage, Volume},
    state::{Plan, Spans},
    store::{self, Scratch},
    update::Boot,
};
use std::{cell::Cell, collections::VecDeque, rc::Rc};

/// The loader's environment text. The script fills the first sector of a copy, so that what a store changes lies in
/// both sectors, checksum in one and variables in the other, and a copy can be torn.
pub const TEXT: &str = concat!(
    "bootlimit=3\npv_script=1\npv_boot=",
    "echo 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567;",
    "echo 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567;",
    "echo 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567;",
    "echo 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567;",
    "echo 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567\n",
);
const _: () = assert!(TEXT.len() > SECTOR && TEXT.len() + 128 < LAYOUT.size);

/// Everything that decides how a voyage goes, but the choices made on the way.
#[derive(Clone, Debug)]
pub struct Voyage {
    /// The factory revision, then the updates in order.
    pub fleet: Vec<Revision>,
    /// What its user does with them.
    pub chores: Vec<Chore>,
    /// Where it comes from.
    pub origin: Origin,
    /// How well the loader does its part.
    pub skill: Skill,
    /// After so many effects the power goes; then after so many more; and so on.
    pub cuts: Vec<u64>,
    /// A call that fails, in the power-on with this number.
    pub fault: Option<(u32, Fault)>,
    /// A broken rule.
    pub mutant: Option<Mutant>,
    /// What the two file systems promise.
    pub model: Model,
    /// What the boot volume promises, if that is something else.
    pub boot: Option<Model>,
    /// Before the power-on with this number the environment is damaged.
    pub damage: Option<(u32, Damage)>,
    /// A disk that says that it did what it did not do.
    pub lie: Option<Lie>,
    /// How much of what the first cut may leave is gone through.
    pub bounds: Bounds,
    /// And of what later ones may.
    pub later: Bounds,
    /// After an attempt that was interrupted, the client first tries without sending the objects again.
    pub hasty: bool,
}

/// What a voyage came to.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Power-ons.
    pub boots: u32,
    /// Cuts that came to pass.
    pub cuts: u32,
    /// Whether the fault came to pass.
    pub faulted: bool,
    /// The committed revision.
    pub committed: Option<RevName>,
    /// The journal's last word.
    pub record: Option<Record>,
    /// How each update ended, as a client saw it.
    pub verdicts: Vec<Option<Result<(), Code>>>,
    /// The most stores of the environment by us, and syncs, that one update took.
    pub stores: u64,
    /// See `stores`.
    pub syncs: u64,
    /// Effects of the whole voyage.
    pub effects: u64,
    /// Updates of which DONE was told, and times that all goals were said to be met.
    pub told: (Vec<RevName>, u32),
    /// Rows of the protocol that were announced.
    pub marks: Vec<Mark>,
    /// Effects before the broken row was first announced, and the calls that it changed.
    pub began: Option<u64>,
    /// See `began`.
    pub touched: u64,
}

/// Buffers, made once.
pub struct Buffers {
    state: Vec<u8>,
    marks: Vec<u64>,
    conf: Vec<u8>,
    spans: Box<Spans>,
    plan: Box<Plan>,
}

impl Buffers {
    /// As large as the device has them.
    pub fn new() -> Self {
        Self {
            state: vec![0; limits::STATE_MAX],
            marks: vec![0; limits::KEPT_MAX * limits::STATE_ENTRIES_MAX],
            conf: vec![0; limits::LXC_CONF_MAX],
            spans: Box::default(),
            plan: Box::new(Plan::empty(RevName::factory())),
        }
    }

    /// As the procedures take them.
    pub fn scratch(&mut self) -> Scratch<'_> {
        Scratch {
            state: &mut self.state,
            marks: &mut self.marks,
            conf: &mut self.conf,
            spans: &mut self.spans,
            plan: &mut self.plan,
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// A device as it leaves the factory, with this revision.
pub fn factory(revision: &Revision, buffers: &mut Buffers) -> Hardware {
    let bench = Bench::new(Hardware::new(2 * LAYOUT.size));
    let mut disk = bench.clone();
    for id in &revision.objects {
        bench.arrive(*id, content(*id)).expect("an empty volume");
        let [from, to] = [Name::Incoming(Volume::Storage, *id), Name::Object(Volume::Storage, *id)];
        disk.rename(from, to).expect("an empty volume");
    }
    let file = |key| Name::File(Volume::Storage, Stage::Live, revision.rev, key);
    for (key, id) in
        ["bsp/kernel", "bsp/initrd", "web/lxc.container.conf", "web/root.squashfs"].into_iter().zip(&revision.objects)
    {
        disk.link(Name::Object(Volume::Storage, *id), file(key)).expect("an empty volume");
    }
    let inline = ["bsp/run.json", "groups.json", "web/run.json"];
    for key in inline {
        disk.write(file(key), b"{}").expect("an empty volume");
    }
    disk.write(file(".pvr/json"), revision.state.as_bytes()).expect("an empty volume");
    let record = Record::none(revision.rev);
    store::prepare(&mut disk, &mut bench.journal(), &record, &mut buffers.scratch()).expect("an empty volume");
    store::record(&mut disk, &mut bench.journal(), &record, None).expect("an empty volume");
    let vars = BootVars { committed: revision.rev, candidate: None, previous: None };
    for (offset, flags) in OFFSETS.into_iter().zip(LAYOUT.copies.fresh_flags()) {
        let mut copy = vec![0; LAYOUT.size];
        uboot::initial(TEXT, &vars, flags, &mut copy).expect("it fits");
        bench.env().write_at(offset, &copy).expect("a good medium");
    }
    bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    })
}

/// One power-on. Ok(true): the device is at rest and the user has nothing more to ask for.
pub(super) fn power_on(
    bench: &Bench,
    door: &Door,
    voyage: &Voyage,
    laws: &mut Laws,
    user: &mut User,
    end: &mut End,
    buffers: &mut Buffers,
) -> Result<bool, Broken> {
    let dead = || bench.with(|hardware| hardware.dead);
    let disturbed = || bench.with(|hardware| hardware.dead || hardware.fault.is_some());
    let syncs = bench.with(|hardware| hardware.syncs);
    let facts = loader::run_at(door, &voyage.fleet, voyage.skill);
    bench.with(|hardware| hardware.syncs = syncs); // those of the loader are not ours
    if dead() {
        return Ok(false);
    }
    let booted = laws.booted(bench, facts.as_ref(), &voyage.fleet, voyage.skill != Skill::Careless)?;
    let facts = facts.expect("law 5 holds");
    if quality(&voyage.fleet, booted) == Quality::KernelPanics {
        return Ok(false);
    }

    // Linux is up.
    let is_one = bench.with(|hardware| hardware.is_one());
    bench.with(|hardware| hardware.mount());
    door.over();
    if quality(&voyage.fleet, booted) == Quality::Original {
        return original_runs(bench, voyage, laws, user);
    }
    let mut disk = door.clone();
    let taken = if is_one { take_over(door) } else { Ok(false) };
    let has_env = taken.is_ok();
    let _ = store::recover(&mut disk);
    door.over();
    let mut work = vec![0; 2 * LAYOUT.size];
    let loaded = match is_one {
        true if !has_env => None,
        true => taken::codec(bench, bench.env()).load().ok(),
        false => Uboot::new(bench.env(), LAYOUT, TEXT, &mut work).expect("the layout is good").load().ok(),
    };
    let journal = journal::load(&mut bench.journal()).ok().flatten();
    let journal = match voyage.mutant {
        _ if taken == Ok(true) => None, // as `platform::boot`: what it explains is older than this decision
        Some(Mutant::OnlyTheLoaderCounts) => journal.map(|record| record.with(Phase::Armed)),
        _ => journal,
    };
    let choice = boot::choose(loaded, &facts, journal);
    bench.with(|hardware| hardware.note(|| format!("    {facts:?}\n    {choice:?}")));
    let stepping_back = choice.verdict().is_some_and(|(_, code)| code == Code::ColdBootFailed);
    if choice.run != booted && !stepping_back && !disturbed() {
        return Err(Broken { law: 0, observer: "runs", how: format!("{booted} was booted, {} is to run", choice.run) });
    }
    if let Err(refusal) = store::verify(&mut disk, choice.run, &mut buffers.scratch()) {
        return if disturbed() {
            Ok(false)
        } else {
            Err(Broken { law: 5, observer: "runs", how: format!("{} does not run: {refusal}", choice.run) })
        };
    }
    let plan = match load(&mut disk, choice.run, buffers) {
        Ok(plan) => plan,
        Err(_) if disturbed() => return Ok(false),
        Err(refusal) => {
            return Err(Broken { law: 5, observer: "runs", how: format!("{} cannot be read: {refusal}", choice.run) });
        }
    };
    let vars = loaded.map(|loaded| loaded.vars).or(choice.store).unwrap_or(BootVars {
        committed: choice.run,
        candidate: None,
        previous: None,
    });
    let boot = Boot {
        choice,
        vars,
        may_arm: if is_one { Ok(()) } else { boot::may_arm(&facts) },
        degraded: choice.is_degraded(),
        commit_delay_ms: 1000,
    };
    let mut machine = Machine::new(boot, plan);
    let swapped = voyage.mutant == Some(Mutant::ActiveCopyOverwritten);
    let swap = Rc::new(Cell::new(false));
    let copies = Copies { raw: door.env(), swapped, swap: swap.clone() };
    let mut room = vec![0; 2 * LAYOUT.size];
    let codec = match is_one {
        true => Codec::UbootTxt(taken::codec(bench, copies)),
        false => Codec::Uboot(Uboot::new(copies, LAYOUT, TEXT, &mut room).expect("the layout is good")),
    };
    let mut sea = Sea {
        bench,
        door,
        row: None,
        late: None,
        voyage,
        laws,
        user,
        buffers,
        now: 0,
        events: VecDeque::new(),
        cold: true,
        left: false,
        arriving: None,
        broken: None,
        postponed: None,
        env: loaded.is_some(),
        codec: has_env.then_some(codec),
        swap,
    };
    sea.days(&mut machine, matches!(choice.mode, Mode::Trial { .. }), end)
}

/// The factory revision of every voyage.
pub fn first() -> Revision {
    Revision { rev: rev("0"), ..Revision::new("0", Quality::Good, 0, 0) }
}
