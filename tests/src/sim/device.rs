//! One device and its user: power-on after power-on, with the real machine, the real procedures and the real
//! environment codec between the simulated doors, until nothing is left to do.

use crate::sim::{
    fleet::{Quality, Revision, content, rev},
    r#gen::Gen,
    laws::{Broken, Laws, in_force},
    loader::{self, LAYOUT, OFFSETS, Skill},
    medium::{Bench, Fault, Hardware, Mutant, Raw, SECTOR},
};
use boards::env::uboot::{self, Uboot};
use runtime::{
    boot::{self, Mode},
    control::{Answer, Caller, Request, Upload},
    fault::{Code, Refusal},
    id::{ConnId, ContainerId, ObjectId, RevName},
    journal::{self, Kind, Phase, Record},
    limits,
    machine::{Action, Event, Exit, Job, Machine, Note, Slot, Transition},
    port::{BootEnv, BootVars, Disk, Millis, Name, Region, Stage, Volume},
    progress::{Progress, Status},
    protocol::Row,
    state::{Defaults, Plan, Spans},
    store::{self, Scratch, Step},
    turn::{World, turn},
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
    /// How well the loader does its part.
    pub skill: Skill,
    /// After so many effects the power goes; then after so many more; and so on.
    pub cuts: Vec<u64>,
    /// A call that fails, in the power-on with this number.
    pub fault: Option<(u32, Fault)>,
    /// A broken rule.
    pub mutant: Option<Mutant>,
}

impl Voyage {
    /// In a few lines.
    pub fn summary(&self) -> String {
        let fleet: Vec<String> =
            self.fleet.iter().map(|r| format!("{} {:?} base {}", r.rev, r.quality, r.assets[0].0[1])).collect();
        let Self { skill, cuts, fault, mutant, .. } = self;
        format!("{}\n{skill:?}, cuts {cuts:?}, fault {fault:?}, mutant {mutant:?}", fleet.join("; "))
    }
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
    let record = Record {
        candidate: revision.rev,
        previous: revision.rev,
        kind: Kind::Reboot,
        phase: Phase::Done { cold_pending: false },
        falls: 0,
    };
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

/// Power-ons after which a device must have come to rest.
const BOOTS_MAX: u32 = 40;
/// Times that a client tries the same update.
const ATTEMPTS_MAX: u32 = 3;

/// Runs a voyage on a device fresh from the factory.
pub fn sail(voyage: &Voyage, fresh: &Hardware, choices: &mut Gen, buffers: &mut Buffers) -> Result<End, Broken> {
    let bench = Bench::new(fresh.clone());
    bench.with(|hardware| hardware.mutant = voyage.mutant);
    let mut laws = Laws::new();
    let mut user = User::new(voyage);
    let mut end = End::default();
    let mut cuts = voyage.cuts.iter();
    bench.with(|hardware| hardware.fuse = cuts.next().copied());
    loop {
        end.boots += 1;
        if end.boots > BOOTS_MAX {
            return Err(Broken { law: 0, how: "the device does not come to rest".into() });
        }
        if let Some((boot, fault)) = voyage.fault
            && boot == end.boots
        {
            bench.with(|hardware| hardware.fault = Some(Fault { at: fault.at + hardware.calls, ..fault }));
        }
        laws.power_on(&bench, &voyage.fleet)?;
        let rest = power_on(&bench, voyage, &mut laws, &mut user, &mut end, buffers)?;
        let dead = bench.with(|hardware| {
            end.faulted |= hardware.faulted;
            hardware.dead
        });
        bench.with(|hardware| if dead { hardware.cut(choices) } else { hardware.restart(choices) });
        if dead {
            end.cuts += 1;
            laws.three.cut();
            bench.with(|hardware| hardware.fuse = cuts.next().copied());
        } else if rest && user.at_rest() {
            break;
        }
    }
    laws.power_on(&bench, &voyage.fleet)?;
    end.committed = bench.with(|hardware| in_force(hardware)).map(|vars| vars.committed);
    end.effects = bench.with(|hardware| hardware.effects);
    end.record = journal::load(&mut bench.journal()).ok().flatten();
    end.verdicts = user.verdicts;
    Ok(end)
}

/// Who sends updates, looks at the answers, and sends again what was lost.
struct User {
    /// Index of the update at hand in the fleet.
    at: usize,
    attempts: u32,
    /// What is left to do of this attempt.
    todo: VecDeque<Task>,
    verdicts: Vec<Option<Result<(), Code>>>,
    updates: usize,
    /// Restarts left, after everything is done.
    restarts: u32,
    /// Stores and syncs when the update at hand began.
    began: Option<(u64, u64)>,
    stores: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Object(ObjectId),
    Step,
    Run,
}

impl User {
    fn new(voyage: &Voyage) -> Self {
        Self {
            at: 0,
            attempts: 0,
            todo: VecDeque::new(),
            verdicts: vec![],
            updates: voyage.fleet.len() - 1,
            restarts: 2,
            began: None,
            stores: 0,
        }
    }

    fn at_rest(&self) -> bool {
        self.verdicts.len() == self.updates && self.restarts == 0
    }

    /// Everything again: what had arrived before may be lost.
    fn attempt(&mut self, revision: &Revision) {
        self.attempts += 1;
        self.todo = revision.objects.iter().map(|id| Task::Object(*id)).collect();
        self.todo.extend([Task::Step, Task::Run]);
    }

    fn next(&mut self) {
        self.at += 1;
        self.attempts = 0;
        self.todo.clear();
    }
}

/// One power-on. Ok(true): the device is at rest and the user has nothing more to ask for.
fn power_on(
    bench: &Bench,
    voyage: &Voyage,
    laws: &mut Laws,
    user: &mut User,
    end: &mut End,
    buffers: &mut Buffers,
) -> Result<bool, Broken> {
    let dead = || bench.with(|hardware| hardware.dead);
    let disturbed = || bench.with(|hardware| hardware.dead || hardware.fault.is_some());
    let syncs = bench.with(|hardware| hardware.syncs);
    let facts = loader::run(bench, &voyage.fleet, voyage.skill);
    bench.with(|hardware| hardware.syncs = syncs); // those of the loader are not ours
    if dead() {
        return Ok(false);
    }
    let booted = laws.booted(bench, facts.as_ref(), &voyage.fleet, voyage.skill != Skill::Careless)?;
    let facts = facts.expect("law 5 holds");
    let revision = voyage.fleet.iter().find(|revision| revision.rev == booted).expect("law 5 holds");
    if revision.quality == Quality::KernelPanics {
        return Ok(false);
    }

    // Linux is up.
    bench.with(|hardware| hardware.mount());
    let mut disk = bench.clone();
    let _ = store::recover(&mut disk);
    let mut work = vec![0; 2 * LAYOUT.size];
    let loaded = Uboot::new(bench.env(), LAYOUT, TEXT, &mut work).expect("the layout is good").load().ok();
    let journal = journal::load(&mut bench.journal()).ok().flatten();
    let journal = match voyage.mutant {
        Some(Mutant::OnlyTheLoaderCounts) => journal.map(|record| record.with(Phase::Armed)),
        _ => journal,
    };
    let choice = boot::choose(loaded, &facts, journal);
    bench.with(|hardware| hardware.note(|| format!("    {facts:?}\n    {choice:?}")));
    let stepping_back = choice.verdict().is_some_and(|(_, code)| code == Code::ColdBootFailed);
    if choice.run != booted && !stepping_back && !disturbed() {
        return Err(Broken { law: 0, how: format!("{booted} was booted, {} is to run", choice.run) });
    }
    if let Err(refusal) = store::verify(&mut disk, choice.run, &mut buffers.scratch()) {
        return if disturbed() {
            Ok(false)
        } else {
            Err(Broken { law: 5, how: format!("{} does not run: {refusal}", choice.run) })
        };
    }
    let plan = match load(&mut disk, choice.run, buffers) {
        Ok(plan) => plan,
        Err(_) if disturbed() => return Ok(false),
        Err(refusal) => return Err(Broken { law: 5, how: format!("{} cannot be read: {refusal}", choice.run) }),
    };
    let vars = loaded.map(|loaded| loaded.vars).or(choice.store).unwrap_or(BootVars {
        committed: choice.run,
        candidate: None,
        previous: None,
    });
    let boot =
        Boot { choice, vars, may_arm: boot::may_arm(&facts), degraded: choice.is_degraded(), commit_delay_ms: 1000 };
    let mut machine = Machine::new(boot, plan);
    let swapped = voyage.mutant == Some(Mutant::ActiveCopyOverwritten);
    let swap = Rc::new(Cell::new(false));
    let copies = Copies { raw: bench.env(), swapped, swap: swap.clone() };
    let mut room = vec![0; 2 * LAYOUT.size];
    let mut sea = Sea {
        bench,
        voyage,
        laws,
        user,
        buffers,
        now: 0,
        events: VecDeque::new(),
        cold: true,
        left: false,
        broken: None,
        postponed: None,
        env: loaded.is_some(),
        codec: Uboot::new(copies, LAYOUT, TEXT, &mut room).expect("the layout is good"),
        swap,
    };
    sea.days(&mut machine, matches!(choice.mode, Mode::Trial { .. }), end)
}

fn load(disk: &mut Bench, rev: RevName, buffers: &mut Buffers) -> Result<Plan, Refusal> {
    let mut plan = Plan::empty(rev);
    let length = disk.read(Name::File(Volume::Storage, Stage::Live, rev, ".pvr/json"), &mut buffers.state)?;
    Plan::parse(&buffers.state[..length], rev, &Defaults::default(), &mut plan, &mut buffers.spans)?;
    Ok(plan)
}

/// The world between one power-on and the next.
struct Sea<'a> {
    bench: &'a Bench,
    voyage: &'a Voyage,
    laws: &'a mut Laws,
    user: &'a mut User,
    buffers: &'a mut Buffers,
    now: Millis,
    events: VecDeque<Event>,
    /// The running revision was booted, not switched to.
    cold: bool,
    left: bool,
    broken: Option<Broken>,
    /// `Mutant::DoneBeforeCommit`: a store that is done later than it is reported.
    postponed: Option<BootVars>,
    /// The environment could be read.
    env: bool,
    /// The environment's codec: one for as long as the device is on, as on Linux.
    codec: Uboot<'a, Copies>,
    /// `Copies::swap`, reset before each store.
    swap: Rc<Cell<bool>>,
}

/// The one client.
const CLIENT: ConnId = ConnId(0);

impl Sea<'_> {
    fn over(&self) -> bool {
        self.left || self.broken.is_some() || self.bench.with(|hardware| hardware.dead)
    }

    /// Events until the device is at rest, or gone.
    fn days(&mut self, machine: &mut Machine, trial: bool, end: &mut End) -> Result<bool, Broken> {
        if trial && self.quality(machine.update().running()) == Quality::InitPanics {
            // what it does first, the count of its tries, it still does
            turn(machine, self, self.now, Event::Tick);
            return self.broken.take().map_or(Ok(false), Err);
        }
        self.events.push_back(Event::Tick);
        for _ in 0..2000 {
            if self.over() {
                return self.broken.take().map_or(Ok(false), Err);
            }
            match self.events.pop_front() {
                Some(event) => turn(machine, self, self.now, event),
                None if machine.update().is_steady() => match self.ask(machine, end)? {
                    Some(event) => turn(machine, self, self.now, event),
                    None => return Ok(true),
                },
                None => match machine.poll_at() {
                    Some(at) => {
                        self.now = self.now.max(at);
                        turn(machine, self, self.now, Event::Tick);
                    }
                    None => self.stuck(machine)?,
                },
            }
        }
        Err(Broken { law: 0, how: format!("the machine does not come to rest: {:?}", machine.update().state()) })
    }

    /// Nothing will ever happen again, and the update is not done.
    fn stuck(&mut self, machine: &Machine) -> Result<(), Broken> {
        Err(Broken { law: 0, how: format!("nothing is left to happen in {:?}", machine.update().state()) })
    }

    fn quality(&self, rev: RevName) -> Quality {
        let revision = self.voyage.fleet.iter().find(|revision| revision.rev == rev);
        revision.map_or(Quality::Good, |revision| revision.quality)
    }

    /// What the user does with a device that has nothing to do.
    fn ask(&mut self, machine: &mut Machine, end: &mut End) -> Result<Option<Event>, Broken> {
        let vars = self.bench.with(|hardware| in_force(hardware));
        if let Some(vars) = vars.filter(|_| self.env && self.bench.with(|hardware| hardware.fault.is_none())) {
            self.laws.four.says(machine.update().last(), &vars)?;
        }
        loop {
            if let Some(task) = self.user.todo.pop_front() {
                return Ok(Some(self.request(task)));
            }
            let Some(revision) = self.voyage.fleet.get(self.user.at) else {
                if self.user.restarts == 0 {
                    return Ok(None);
                }
                self.user.restarts -= 1;
                return Ok(Some(Event::Reboot));
            };
            if self.user.at == 0 {
                self.user.next(); // the factory revision needs no update
                continue;
            }
            match self.verdict(machine, revision) {
                Some(verdict) => {
                    if let Some((stores, syncs)) = self.user.began.take() {
                        end.stores = end.stores.max(self.user.stores - stores);
                        end.syncs = end.syncs.max(self.bench.with(|hardware| hardware.syncs) - syncs);
                    }
                    // A storage that fails cannot keep the reason either.
                    if let Err(code) = verdict
                        && !self.bench.with(|hardware| hardware.faulted)
                    {
                        self.laws.four.reported_failed(revision.rev, code);
                    }
                    self.user.verdicts.push(Some(verdict));
                    self.user.next();
                    return Ok(Some(Event::Asked(CLIENT, Caller::Host, Request::Collect)));
                }
                None if self.user.attempts >= ATTEMPTS_MAX => {
                    self.user.verdicts.push(None);
                    self.user.next();
                }
                None => {
                    self.user.attempt(revision);
                    self.user.began = Some((self.user.stores, self.bench.with(|hardware| hardware.syncs)));
                }
            }
        }
    }

    /// What the device says of an update; `None`: nothing final, or something to try again for.
    fn verdict(&self, machine: &Machine, revision: &Revision) -> Option<Result<(), Code>> {
        if self.user.attempts == 0 {
            return None;
        }
        let record = machine.update().last().filter(|record| record.candidate == revision.rev)?;
        match record.phase {
            Phase::Done { .. } => Some(Ok(())),
            Phase::Failed { code, .. } if revision.quality != Quality::Good => Some(Err(code)),
            Phase::Failed { code, .. } if self.user.attempts >= ATTEMPTS_MAX => Some(Err(code)),
            _ => None,
        }
    }

    fn request(&mut self, task: Task) -> Event {
        let revision = &self.voyage.fleet[self.user.at];
        let request = match task {
            Task::Object(id) => Request::Receive(Upload::Object(id), content(id).len() as u64),
            Task::Step => Request::Receive(Upload::Step(revision.rev), revision.state.len() as u64),
            Task::Run => Request::Run(revision.rev),
        };
        Event::Asked(CLIENT, Caller::Host, request)
    }

    fn keep(&mut self, machine: &Machine, job: Job) -> Result<(), Refusal> {
        let mut disk = self.bench.clone();
        let mut journal = self.bench.journal();
        match job {
            Job::Prepare(record) => store::prepare(&mut disk, &mut journal, &record, &mut self.buffers.scratch()),
            Job::Record(record) => {
                let progress = Progress::of(&record).map(|progress| progress.to_string());
                if let Record { candidate, phase: Phase::Failed { code: Code::ColdBootFailed, .. }, .. } = record {
                    self.laws.four.failed_cold(candidate);
                }
                let done = store::record(&mut disk, &mut journal, &record, progress.as_deref());
                done.map_err(Refusal::from)
            }
            Job::Collect => {
                let keep = self.kept(machine)?;
                store::collect(&mut disk, &keep, &mut self.buffers.scratch())?;
                Ok(())
            }
            Job::Adopt(_, id) => {
                // as the errands leave it: written and hashed, not synced
                Ok(self.bench.arrive(id, content(id))?)
            }
            Job::Stage(_, rev) => {
                let keep = self.kept(machine)?;
                let revision = self.voyage.fleet.iter().find(|revision| revision.rev == rev).expect("asked for");
                let state = revision.state.as_bytes();
                let step = Step { rev, state, message: "why", progress: "{}" };
                store::stage(&mut disk, step, &keep, &mut self.buffers.scratch())
            }
            Job::Drop(_) | Job::Message(..) => Ok(()),
        }
    }

    /// What must stay: what the machine says, and what either copy of the environment names.
    fn kept(&self, machine: &Machine) -> Result<Vec<RevName>, Code> {
        let mut keep: Vec<RevName> = machine.kept().collect();
        if self.voyage.mutant != Some(Mutant::CollectTheOtherCopy) {
            let mut work = vec![0; 2 * LAYOUT.size];
            let loaded = Uboot::new(self.bench.env(), LAYOUT, TEXT, &mut work)?.load()?;
            if !loaded.complete {
                return Err(Code::StorageIo);
            }
            keep.extend(loaded.named.into_iter().flatten());
        }
        Ok(keep)
    }

    fn store(&mut self, transition: Transition, vars: BootVars) -> Result<(), Code> {
        self.laws.two.asked(vars);
        if transition == Transition::Arm {
            self.laws.three.armed();
        }
        self.user.stores += 1;
        let result = match self.voyage.mutant {
            Some(Mutant::TwoStores) => {
                self.user.stores += 1;
                let half = self.bench.with(|hardware| in_force(hardware)).unwrap_or(vars);
                self.put(transition, BootVars { committed: vars.committed, ..half })
                    .and_then(|()| self.put(transition, vars))
            }
            Some(Mutant::CommitAtArm) if transition == Transition::Arm => {
                self.put(transition, boot::commit(vars, vars.candidate.unwrap_or(vars.committed)))
            }
            Some(Mutant::DoneBeforeCommit) if transition == Transition::Commit => {
                self.postponed = Some(vars);
                return Ok(());
            }
            _ => self.put(transition, vars),
        };
        if !self.bench.with(|hardware| hardware.dead) {
            self.laws.two.stored(result);
        }
        result
    }

    fn put(&mut self, transition: Transition, vars: BootVars) -> Result<(), Code> {
        self.swap.set(false);
        match self.codec.store(&vars) {
            Err(Code::EnvInvalid) if transition == Transition::Settle => self.codec.rebuild(&vars),
            stored => stored,
        }
    }

    fn note(&mut self, machine: &Machine, note: Note) {
        match note {
            Note::Ready(rev) => self.laws.two.goals_met(rev),
            Note::Update(rev, Progress { status: Status::Done, .. }) => self.laws.four.reported_done(rev),
            _ => {}
        }
        let _ = machine;
    }

    /// A container was started: what it does next.
    fn started(&mut self, id: ContainerId, rev: RevName, trial: bool) {
        let ready = Event::Asked(ConnId(1), Caller::Container(id), Request::Ready);
        match self.quality(rev) {
            Quality::NeverReady => {}
            Quality::Breaks if !trial => self.events.push_back(Event::Exited(id, Exit::Code(1))),
            Quality::Exits => self.events.push_back(Event::Exited(id, Exit::Code(1))),
            Quality::OnlyWarm if self.cold => {}
            _ => self.events.push_back(ready),
        }
    }
}

impl World for Sea<'_> {
    fn step(&mut self, row: Row) {
        self.bench.clone().step(row);
    }

    fn perform(&mut self, machine: &mut Machine, action: Action) -> Option<Event> {
        if self.over() {
            return None; // nobody is there any more
        }
        if !matches!(action, Action::Keep(Job::Record(_)) | Action::Note(_))
            && let Some(vars) = self.postponed.take()
        {
            let _ = self.put(Transition::Commit, vars);
        }
        self.bench.with(|hardware| hardware.note(|| format!("    {action:?}")));
        let outcome = match action {
            Action::Verify(id) => Some(Event::Verified(id, Ok(()))),
            Action::Start(id) => {
                let rev = machine.to_start(id).map(|(rev, _)| rev);
                let trial = machine.update().trial().is_some();
                self.events.push_back(Event::Launched(id, Ok(())));
                if let Some(rev) = rev {
                    self.started(id, rev, trial);
                }
                None
            }
            Action::Stop(id) | Action::Kill(id) => {
                self.cold = false;
                self.events.push_back(Event::Exited(id, Exit::Signal(15)));
                None
            }
            Action::Load(rev) => {
                let mut disk = self.bench.clone();
                let plan = load(&mut disk, rev, self.buffers);
                let result = plan.map(|plan| *machine.candidate_mut() = plan);
                Some(Event::Loaded(rev, result))
            }
            Action::Keep(job) => {
                let result = self.keep(machine, job);
                Some(Event::Kept(job, result))
            }
            Action::Store(transition, vars) => {
                let result = self.store(transition, vars);
                Some(Event::Stored(transition, result))
            }
            Action::Receive(slot, _, _, _) => Some(Event::Received(slot, Ok(()))),
            Action::Hash(slot) => Some(self.hashed(slot)),
            Action::Answer(_, answer) => {
                self.answered(answer);
                None
            }
            Action::Send(..) | Action::Pass(_) => None,
            Action::Reboot(_) | Action::PowerOff => {
                self.left = true;
                None
            }
            Action::Note(note) => {
                self.note(machine, note);
                None
            }
        };
        outcome.filter(|_| !self.over())
    }
}

/// The environment's bytes; for `Mutant::ActiveCopyOverwritten`, a write goes to the other copy than asked for.
struct Copies {
    raw: Raw,
    swapped: bool,
    /// From the first write on, reads too: the codec does not notice.
    swap: Rc<Cell<bool>>,
}

impl Copies {
    fn at(&self, offset: u64) -> u64 {
        if self.swap.get() { OFFSETS[0] + OFFSETS[1] - offset } else { offset }
    }
}

impl Region for Copies {
    fn step(&mut self, row: Row) {
        self.raw.step(row);
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        let at = self.at(offset);
        self.raw.read_at(at, out)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.swap.set(self.swapped);
        let at = self.at(offset);
        self.raw.write_at(at, data)
    }
    fn sync(&mut self) -> Result<(), Code> {
        self.raw.sync()
    }
    fn drop_cache(&mut self) {
        self.raw.drop_cache();
    }
}

impl Sea<'_> {
    /// The hash of what was received: of the object that was sent last.
    fn hashed(&mut self, slot: Slot) -> Event {
        let revision = &self.voyage.fleet[self.user.at];
        let left = self.user.todo.iter().filter(|task| matches!(task, Task::Object(_))).count();
        Event::Hashed(slot, Ok(revision.objects[revision.objects.len() - left - 1]))
    }

    /// A refusal ends the attempt.
    fn answered(&mut self, answer: Answer) {
        if let Answer::Refused(..) = answer {
            self.user.todo.clear();
        }
    }
}

/// The factory revision of every voyage.
pub fn first() -> Revision {
    Revision { rev: rev("0"), ..Revision::new("0", Quality::Good, 0, 0) }
}
