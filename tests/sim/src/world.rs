//! What is between one power-on and the next: the world that the machine acts on, and what its user does meanwhile.

use crate::{
    chores::Chore,
    device::{Buffers, End, TEXT, Voyage},
    fleet::{Quality, Revision, content, quality},
    frozen::Frozen,
    laws::{Broken, Laws, in_force},
    loader::{LAYOUT, OFFSETS},
    medium::{Bench, Fault, Hardware, Lie, Mutant, Reach},
    observers::{MESSAGE, kept},
    saboteur::{Door, DoorRegion, How},
    taken,
    user::{ATTEMPTS_MAX, RESTARTS, Task, User},
};
use boards::env::{Codec, uboot::Uboot};
use runtime::{
    boot,
    control::{Answer, Caller, Request, Upload},
    fault::{Code, Refusal},
    id::{ConnId, ContainerId, ObjectId, RevName},
    journal::{self, Phase, Record},
    machine::{Action, Event, Exit, Job, Machine, Note, Transition},
    port::{BootEnv, BootVars, Disk, Millis, Name, Region, Stage, Volume},
    progress::{Progress, Status},
    protocol::Row,
    state::{Defaults, Plan},
    store::{self, Step},
    turn::{World, turn},
};
use std::{cell::Cell, collections::VecDeque, rc::Rc};

pub(super) fn load(disk: &mut Door, rev: RevName, buffers: &mut Buffers) -> Result<Plan, Refusal> {
    let mut plan = Plan::empty(rev);
    let scratch = buffers.scratch();
    let length = disk.read(Name::File(Volume::Storage, Stage::Live, rev, ".pvr/json"), scratch.state)?;
    Plan::parse(&scratch.state[..length], rev, &Defaults::default(), &mut plan, scratch.spans)?;
    Ok(plan)
}

/// The world between one power-on and the next.
pub(super) struct Sea<'a> {
    pub(super) bench: &'a Bench,
    pub(super) door: &'a Door,
    /// The row that the next action is.
    pub(super) row: Option<Row>,
    /// An action that is held back until the next row's is done.
    pub(super) late: Option<Action>,
    pub(super) voyage: &'a Voyage,
    pub(super) laws: &'a mut Laws,
    pub(super) user: &'a mut User,
    pub(super) buffers: &'a mut Buffers,
    pub(super) now: Millis,
    pub(super) events: VecDeque<Event>,
    /// The running revision was booted, not switched to.
    pub(super) cold: bool,
    pub(super) left: bool,
    /// The object that is being received.
    pub(super) arriving: Option<ObjectId>,
    pub(super) broken: Option<Broken>,
    /// `Mutant::DoneBeforeCommit`: a store that is done later than it is reported.
    pub(super) postponed: Option<BootVars>,
    /// The environment could be read.
    pub(super) env: bool,
    /// The environment's codec: one for as long as the device is on, as on Linux.
    pub(super) codec: Option<Codec<'a, Copies>>,
    /// `Copies::swap`, reset before each store.
    pub(super) swap: Rc<Cell<bool>>,
}

/// The one client.
pub(super) const CLIENT: ConnId = ConnId(0);
/// Its connections for what is watched when it is acknowledged.
const STAGE: ConnId = ConnId(2);
const DESCRIBE: ConnId = ConnId(3);

impl Sea<'_> {
    pub(super) fn over(&self) -> bool {
        self.left || self.broken.is_some() || self.bench.with(|hardware| hardware.dead)
    }

    /// Events until the device is at rest, or gone.
    pub(super) fn days(&mut self, machine: &mut Machine, trial: bool, end: &mut End) -> Result<bool, Broken> {
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
                None if machine.update().is_steady() && machine.update().poll_at().is_none() => {
                    match self.ask(machine, end)? {
                        Some(event) => turn(machine, self, self.now, event),
                        None => return Ok(true),
                    }
                }
                None if self.interrupts(machine) => {
                    if let Some(event) = self.ask(machine, end)? {
                        turn(machine, self, self.now, event);
                    }
                }
                None => match machine.poll_at() {
                    Some(at) => {
                        self.now = self.now.max(at);
                        turn(machine, self, self.now, Event::Tick);
                    }
                    None => self.stuck(machine)?,
                },
            }
        }
        Err(Broken {
            law: 0,
            observer: "rest",
            how: format!("the machine does not come to rest: {:?}", machine.update().state()),
        })
    }

    /// Nothing will ever happen again, and the update is not done.
    pub(super) fn stuck(&mut self, machine: &Machine) -> Result<(), Broken> {
        Err(Broken {
            law: 0,
            observer: "rest",
            how: format!("nothing is left to happen in {:?}", machine.update().state()),
        })
    }

    /// Whether the user does something while a candidate is on trial: what comes after `Chore::Try`.
    fn interrupts(&mut self, machine: &Machine) -> bool {
        if machine.update().trial().is_none() {
            return false;
        }
        let chore = |at: usize| self.voyage.chores.get(at).copied();
        if matches!(chore(self.user.at), Some(Chore::Try(_))) && self.user.attempts > 0 && self.user.todo.is_empty() {
            self.user.next();
        }
        let tried = self.user.at > 0 && matches!(chore(self.user.at - 1), Some(Chore::Try(_)));
        tried && chore(self.user.at).is_some() && (self.user.attempts == 0 || !self.user.todo.is_empty())
    }

    fn quality(&self, rev: RevName) -> Quality {
        quality(&self.voyage.fleet, rev)
    }

    /// The revision that the chore at hand is about.
    fn at_hand(&self) -> &Revision {
        let number = self.voyage.chores[self.user.at].revision().expect("it is about a revision");
        &self.voyage.fleet[number]
    }

    /// What the user does with a device that has nothing to do.
    pub(super) fn ask(&mut self, machine: &mut Machine, end: &mut End) -> Result<Option<Event>, Broken> {
        let vars = self.bench.with(|hardware| in_force(hardware));
        if let Some(vars) = vars.filter(|_| self.env && self.bench.with(|hardware| hardware.fault.is_none())) {
            self.laws.four.says(machine.update().last(), &vars)?;
            let faulted = end.faulted || self.bench.with(|hardware| hardware.faulted);
            if machine.update().is_steady() && !faulted {
                self.laws.four.knows(machine.update().last())?;
                self.laws.two.believes(&machine.update().vars(), &vars)?;
            }
        }
        // A call that failed is made good in a later start, and a fall is counted in the journal, up to its bound.
        let falls = self.voyage.fleet.iter().any(|it| matches!(it.quality, Quality::Breaks | Quality::Recovers));
        if self.voyage.fault.is_none() && self.voyage.lie.is_none() && !falls {
            if self.user.restarts < RESTARTS {
                self.bench.with(|hardware| self.laws.rest.at_rest(hardware))?;
            } else {
                self.laws.rest.disturbed();
            }
        }
        loop {
            if let Some(task) = self.user.todo.pop_front() {
                return Ok(Some(self.request(task)));
            }
            let Some(chore) = self.voyage.chores.get(self.user.at).copied() else {
                if self.user.restarts == 0 {
                    return Ok(None);
                }
                self.user.restarts -= 1;
                return Ok(Some(Event::Reboot));
            };
            let tired = self.user.attempts >= ATTEMPTS_MAX;
            match chore {
                Chore::Update(_) | Chore::Run(_) => match self.verdict(machine, self.at_hand()) {
                    Some(verdict) => {
                        self.told(verdict, end);
                        if let Chore::Update(_) = chore {
                            return Ok(Some(Event::Asked(CLIENT, Caller::Host, Request::Collect)));
                        }
                    }
                    None if tired => {
                        self.user.verdicts.push(None);
                        self.user.next();
                    }
                    None => self.attempt(true),
                },
                Chore::TakeOver(_) => {
                    self.user.attempts = self.user.attempts.max(1);
                    match self.verdict(machine, self.at_hand()) {
                        Some(verdict) => self.told(verdict, end),
                        None => {
                            self.user.verdicts.push(None);
                            self.user.next();
                        }
                    }
                }
                Chore::Stage(_) if tired || self.user.attempts > 0 && !self.user.refused => self.user.next(),
                Chore::Stage(_) => self.attempt(false),
                Chore::Try(_) | Chore::Describe(_) | Chore::Reset if self.user.attempts > 0 => self.user.next(),
                Chore::Describe(_) => {
                    self.user.attempts = 1;
                    return Ok(Some(self.request(Task::Message)));
                }
                Chore::Try(_) => {
                    self.user.attempts = 1;
                    return Ok(Some(self.request(Task::Run)));
                }
                Chore::Collect => {
                    self.user.next();
                    return Ok(Some(Event::Asked(CLIENT, Caller::Host, Request::Collect)));
                }
                Chore::Reset => {
                    self.user.attempts = 1;
                    return Ok(Some(Event::Asked(CLIENT, Caller::Host, Request::FactoryReset)));
                }
            }
        }
    }

    /// Sends what the chore at hand is about.
    fn attempt(&mut self, run: bool) {
        let (revision, bench) = (self.at_hand().clone(), self.bench.clone());
        let has = |id| bench.clone().exists(Name::Object(Volume::Storage, id)) == Ok(true);
        self.user.attempt(&revision, run, has);
        self.user.began = Some((self.user.stores, self.bench.with(|hardware| hardware.syncs)));
    }

    /// The device says how an update ended.
    fn told(&mut self, verdict: Result<(), Code>, end: &mut End) {
        if let Some((stores, syncs)) = self.user.began.take() {
            end.stores = end.stores.max(self.user.stores - stores);
            end.syncs = end.syncs.max(self.bench.with(|hardware| hardware.syncs) - syncs);
        }
        // A storage that fails cannot keep the reason either.
        if let Err(code) = verdict
            && !self.bench.with(|hardware| hardware.faulted)
        {
            let rev = self.at_hand().rev;
            self.laws.four.reported_failed(rev, code);
        }
        self.user.verdicts.push(Some(verdict));
        self.user.next();
    }

    /// What the device says of an update; `None`: nothing final, or something to try again for.
    pub(super) fn verdict(&self, machine: &Machine, revision: &Revision) -> Option<Result<(), Code>> {
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

    pub(super) fn request(&mut self, task: Task) -> Event {
        let revision = self.at_hand();
        let request = match task {
            Task::Message => Request::Message(revision.rev),
            Task::Object(id) => Request::Receive(Upload::Object(id), content(id).len() as u64),
            Task::Step => Request::Receive(Upload::Step(revision.rev), revision.state.len() as u64),
            Task::Run => Request::Run(revision.rev),
        };
        let number = self.voyage.chores[self.user.at].revision().expect("it is about a revision");
        let conn = match task {
            Task::Step => {
                self.user.asked[0] = number;
                STAGE
            }
            Task::Message => {
                self.user.asked[1] = number;
                DESCRIBE
            }
            Task::Object(_) | Task::Run => CLIENT,
        };
        Event::Asked(conn, Caller::Host, request)
    }

    pub(super) fn keep(&mut self, machine: &Machine, job: Job) -> Result<(), Refusal> {
        let done = self.kept_by_keeper(machine, job);
        self.door.over();
        done
    }

    fn kept_by_keeper(&mut self, machine: &Machine, job: Job) -> Result<(), Refusal> {
        self.bench.with(|hardware| self.laws.answered.begins(job, hardware));
        let mut disk = self.door.clone();
        let mut journal = self.door.journal();
        match job {
            Job::Prepare(record) => {
                self.laws.four.prepares(record.candidate);
                store::prepare(&mut disk, &mut journal, &record, &mut self.buffers.scratch())
            }
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
                if self.broken.is_none() && !self.over() {
                    self.broken = kept(self.bench).err();
                }
                Ok(())
            }
            Job::Intend(record) => {
                // where the factory revision is committed alone already, this begins it
                self.laws.four.forgets(RevName::factory());
                store::factory::intend(&mut disk, &mut journal, &record, &mut self.buffers.scratch())
            }
            Job::Clear => store::factory::clear(&mut disk, &mut journal, &mut self.buffers.scratch()),
            Job::Adopt(_, id) => {
                // as the errands leave it: written and hashed, not synced
                Ok(self.door.arrive(id, content(id))?)
            }
            Job::Stage(_, rev) => {
                let keep = self.kept(machine)?;
                let revision = self.at_hand().clone();
                assert_eq!(revision.rev, rev, "asked for");
                let state = revision.state.as_bytes();
                let step = Step { rev, state, message: "why", progress: "{}" };
                store::stage(&mut disk, step, &keep, &mut self.buffers.scratch())
            }
            Job::Message(rev, _) => store::message(&mut disk, rev, MESSAGE),
            Job::Drop(_) => Ok(()),
        }
    }

    /// What must stay: what the machine says, and what either copy of the environment names.
    pub(super) fn kept(&self, machine: &Machine) -> Result<Vec<RevName>, Code> {
        let mut keep: Vec<RevName> = machine.kept().collect();
        if self.voyage.mutant != Some(Mutant::CollectTheOtherCopy) {
            let mut work = vec![0; 2 * LAYOUT.size];
            let loaded = match &self.codec {
                None => return Err(Code::EnvLayout),
                Some(Codec::UbootTxt(_)) => taken::codec(self.bench, self.bench.env()).load()?,
                Some(_) => Uboot::new(self.bench.env(), LAYOUT, TEXT, &mut work)?.load()?,
            };
            if !loaded.complete {
                return Err(Code::StorageIo);
            }
            keep.extend(loaded.named.into_iter().flatten());
        }
        Ok(keep)
    }

    pub(super) fn store(&mut self, transition: Transition, vars: BootVars) -> Result<(), Code> {
        self.laws.two.asked(vars);
        match transition {
            Transition::Arm => self.laws.three.armed(),
            Transition::FactoryReset => self.laws.four.forgets(vars.committed),
            _ => {}
        }
        let candidate = vars.candidate;
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
            if let (Transition::Arm, Some(candidate), Ok(())) = (transition, candidate, result) {
                self.laws.four.armed(candidate);
            }
        }
        result
    }

    pub(super) fn put(&mut self, transition: Transition, vars: BootVars) -> Result<(), Code> {
        self.swap.set(false);
        let stored = match &mut self.codec {
            None => Err(Code::EnvLayout), // its text could not be taken over
            Some(codec) => match codec.store(&vars) {
                Err(Code::EnvInvalid) if transition == Transition::Settle => codec.rebuild(&vars),
                stored => stored,
            },
        };
        self.door.over();
        stored
    }

    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Ready(rev) => {
                self.laws.two.goals_met(rev);
                self.user.told.1 += 1;
            }
            Note::Update(rev, Progress { status: Status::Done, .. }) => {
                self.laws.four.reported_done(rev);
                self.user.told.0.push(rev);
            }
            _ => {}
        }
    }

    /// A container was started: what it does next.
    pub(super) fn started(&mut self, id: ContainerId, rev: RevName, trial: bool, falls: u8) {
        let ready = Event::Asked(ConnId(1), Caller::Container(id), Request::Ready);
        match self.quality(rev) {
            Quality::NeverReady => {}
            Quality::Breaks if !trial => self.events.push_back(Event::Exited(id, Exit::Code(1))),
            Quality::Recovers if !trial && falls < 2 => self.events.push_back(Event::Exited(id, Exit::Code(1))),
            Quality::Exits => self.events.push_back(Event::Exited(id, Exit::Code(1))),
            Quality::OnlyWarm if self.cold => {}
            _ => self.events.push_back(ready),
        }
    }
}

impl World for Sea<'_> {
    fn step(&mut self, row: Row) {
        self.door.mark(row);
        self.row = Some(row);
    }

    fn perform(&mut self, machine: &mut Machine, action: Action) -> Option<Event> {
        let row = self.row.take();
        if self.over() {
            return None; // nobody is there any more
        }
        if let Some(row) = row {
            self.look_at(row, machine);
        }
        let (Some(row), Some((how, broken))) = (row, self.voyage.mutant.and_then(Mutant::row)) else {
            return self.carry_out(machine, action);
        };
        if row == broken {
            return self.sabotage(machine, how, action);
        }
        let outcome = self.carry_out(machine, action);
        if row.operation() == broken.operation()
            && let Some(late) = self.late.take()
            && !self.left
        {
            self.carry_out(machine, late); // after a restart nothing happens any more
        }
        outcome
    }
}

impl Sea<'_> {
    /// A try is counted before it begins. A device that goes to a candidate has armed it, durably; one that goes back has
    /// given it up. Media that fail excuse the latter: then the reason is recorded, and the next boot finishes it. What a
    /// disk holds back is seen when the power has gone.
    fn look_at(&mut self, row: Row, machine: &Machine) {
        let excused = |hardware: &mut Hardware| hardware.faulted || hardware.lie == Some(Lie::Drops);
        let (Some(trial), false) = (machine.update().trial(), self.bench.with(excused)) else {
            return;
        };
        if row == Row::RunCandidate && self.cold {
            let known =
                self.bench.with(|hardware| journal::load(&mut Frozen(hardware.durable_journal())).ok().flatten());
            if known.is_none_or(|record| (record.candidate, record.tries()) != (trial.candidate, trial.tries())) {
                let how = format!("{} starts, and this try of it is not counted: {known:?}", trial.candidate);
                self.broken = Some(Broken { law: 3, observer: "steps", how });
            }
        }
        if !matches!(row, Row::Go | Row::GoBack) {
            return;
        }
        let named = self.bench.with(|hardware| in_force(hardware)).and_then(|vars| vars.candidate);
        if (named == Some(trial.candidate)) != (row == Row::Go) {
            let how = format!("{} of {}, and the environment names {named:?}", row.step().effect, trial.candidate);
            self.broken = Some(Broken { law: 0, observer: "steps", how });
        }
    }

    /// What becomes of an action that is the broken row: whatever it is, it is reported as done.
    fn sabotage(&mut self, machine: &mut Machine, how: How, action: Action) -> Option<Event> {
        if how == How::Ignore && !matches!(action, Action::Keep(_) | Action::Store(..)) {
            return self.carry_out(machine, action); // it has no result
        }
        self.door.touch();
        match how {
            How::Skip => {}
            How::Swap => self.late = Some(action),
            How::Ignore => {
                let fault = |calls| Fault { at: calls, sticky: true, code: Code::StorageIo, reach: Reach::Nothing };
                let before = self.bench.with(|hw| (hw.fault.replace(fault(hw.calls)), hw.faulted));
                self.carry_out(machine, action);
                self.bench.with(|hw| (hw.fault, hw.faulted) = before);
            }
        }
        match action {
            Action::Keep(job) => Some(Event::Kept(job, Ok(()))),
            Action::Store(transition, _) => Some(Event::Stored(transition, Ok(()))),
            Action::Start(id) => Some(Event::Launched(id, Ok(()))),
            Action::Stop(id) | Action::Kill(id) => Some(Event::Exited(id, Exit::Signal(15))),
            _ => None,
        }
        .filter(|_| !self.over())
    }

    fn carry_out(&mut self, machine: &mut Machine, action: Action) -> Option<Event> {
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
                let falls = machine.update().falls();
                self.events.push_back(Event::Launched(id, Ok(())));
                if let Some(rev) = rev {
                    self.started(id, rev, trial, falls);
                }
                None
            }
            Action::Stop(id) | Action::Kill(id) => {
                self.cold = false;
                self.events.push_back(Event::Exited(id, Exit::Signal(15)));
                None
            }
            Action::Load(rev) => {
                let mut disk = self.door.clone();
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
            Action::Receive(slot, _, upload, _) => {
                self.arriving = if let Upload::Object(id) = upload { Some(id) } else { None };
                Some(Event::Received(slot, Ok(())))
            }
            Action::Hash(slot) => Some(Event::Hashed(slot, self.arriving.ok_or(Code::Internal))),
            Action::Answer(conn, answer) => {
                self.answered(conn, answer);
                None
            }
            Action::Send(..) | Action::Pass(_) => None,
            Action::Reboot(_) | Action::PowerOff => {
                self.left = true;
                None
            }
            Action::Note(note) => {
                self.note(note);
                None
            }
        };
        outcome.filter(|_| !self.over())
    }
}

/// The environment's bytes; for `Mutant::ActiveCopyOverwritten`, a write goes to the other copy than asked for.
pub(super) struct Copies {
    pub(super) raw: DoorRegion,
    pub(super) swapped: bool,
    /// From the first write on, reads too: the codec does not notice.
    pub(super) swap: Rc<Cell<bool>>,
}

impl Copies {
    pub(super) fn at(&self, offset: u64) -> u64 {
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
    /// A refusal ends the attempt; what is acknowledged must stay.
    pub(super) fn answered(&mut self, conn: ConnId, answer: Answer) {
        let [staged, described] = self.user.asked;
        match (answer, conn) {
            (Answer::Refused(..), _) => {
                self.user.todo.clear();
                self.user.refused = true;
            }
            (Answer::Done, STAGE) => self.laws.answered.staged(staged, self.voyage.fleet[staged].rev),
            (Answer::Done, DESCRIBE) => self.laws.answered.described(self.voyage.fleet[described].rev),
            _ => {}
        }
    }
}
