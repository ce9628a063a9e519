//! The whole machine against a small world that behaves: processes that live and die, a keeper that answers
//! later, an environment whose store may fail either way, power that may go.

use super::*;
use crate::{
    boot::{self, Mode},
    id::Text,
    journal::Phase,
    port::Loaded,
    state::{Backoff, Container, Group, Recovery, RecoveryPolicy},
    turn::{World, turn},
    update,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A container of a test plan.
fn spec(name: &str, group: u8, version: u8) -> Container {
    Container {
        name: PartName::parse(name).unwrap(),
        group,
        goal: Goal::Started,
        restart: RestartPolicy::Container,
        recovery: Recovery::NONE,
        management: true,
        digest: [version; 32],
        launch: crate::lxc::Summary::DEFAULT,
    }
}

/// Two groups, with these containers.
fn plan(rev: &str, base: u8, containers: &[Container]) -> Plan {
    let group = |name: &str| Group {
        name: PartName::parse(name).unwrap(),
        goal: Goal::Started,
        restart: RestartPolicy::Container,
        timeout_s: 30,
        recovery: Recovery::NONE,
    };
    let mut plan = Plan::empty(rev_name(rev));
    plan.base = [base; 32];
    plan.groups.extend([group("platform"), group("app")]);
    plan.containers.extend(containers.iter().copied());
    plan
}

fn rev_name(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

/// The life of a container's process, as the world sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    None,
    Checking,
    Checked,
    Starting,
    Running,
    Mounted,
}

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// A device: what survives a power cut, and what does not.
struct Device {
    // durable
    vars: BootVars,
    journal: Option<Record>,
    plans: BTreeMap<RevName, Plan>,
    // volatile
    now: Millis,
    lives: [Life; limits::CONTAINERS_MAX],
    ready: [bool; limits::CONTAINERS_MAX],
    pending: VecDeque<Event>,
    open: BTreeSet<u8>,
    answers: Vec<(ConnId, Answer)>,
    trace: Vec<String>,
    gone: Option<Action>,
    boot: update::Boot,
    // what goes wrong
    dice: Dice,
    faults: bool,
    stores: usize,
}

impl Device {
    fn new(plans: &[Plan], seed: u64) -> Self {
        let vars = BootVars { committed: plans[0].rev, candidate: None, previous: None };
        Self {
            vars,
            journal: None,
            plans: plans.iter().map(|plan| (plan.rev, plan.clone())).collect(),
            now: 1000,
            lives: [Life::None; limits::CONTAINERS_MAX],
            ready: [false; limits::CONTAINERS_MAX],
            pending: VecDeque::new(),
            open: BTreeSet::new(),
            answers: Vec::new(),
            trace: Vec::new(),
            gone: None,
            boot: boot_of(vars, None, vars.committed),
            dice: Dice(seed * 2 + 1),
            faults: false,
            stores: 0,
        }
    }

    /// What the loader and `boot::choose` make of what is durable.
    fn boot(&mut self) -> Machine {
        self.lives = [Life::None; limits::CONTAINERS_MAX];
        self.ready = [false; limits::CONTAINERS_MAX];
        self.pending.clear();
        self.open.clear();
        self.gone = None;
        let gives_up = self.faults && self.dice.roll(4) == 0;
        let booted = self.vars.candidate.filter(|_| !gives_up).unwrap_or(self.vars.committed);
        self.boot = boot_of(self.vars, self.journal, booted);
        let mut machine = Machine::new(self.boot, self.plans[&self.boot.choice.run].clone());
        self.event(&mut machine, Event::Tick);
        machine
    }

    fn event(&mut self, machine: &mut Machine, event: Event) {
        let now = self.now;
        self.trace.push(format!("{now} {event:?}"));
        if self.trace.len() > 400 {
            self.trace.remove(0);
        }
        self.before(machine, event);
        turn(machine, self, now, event);
        if event == Event::Tick {
            assert!(machine.poll_at().is_none_or(|at| at > now), "a tick in the past changed nothing");
        }
    }

    /// What an outcome means for the process that it is about.
    fn before(&mut self, machine: &Machine, event: Event) {
        let mut set = |id: ContainerId, life| self.lives[usize::from(id.0)] = life;
        match event {
            Event::Verified(id, Ok(())) => match machine.order().get(id).map(|container| container.state()) {
                Some(State::Verifying) => set(id, Life::Checked),
                _ => set(id, Life::None), // it was stopped meanwhile
            },
            Event::Launched(id, Ok(())) => match machine.order().get(id).map(|container| container.spec().goal) {
                Some(Goal::Mounted) => set(id, Life::Mounted),
                _ => set(id, Life::Running),
            },
            Event::Verified(id, Err(_)) | Event::Launched(id, Err(_)) => set(id, Life::None),
            _ => {}
        }
    }

    fn ask(&mut self, machine: &mut Machine, caller: Caller, request: Request) -> Option<Answer> {
        let conn = (0..limits::CONNECTIONS_MAX as u8).find(|conn| !self.open.contains(conn))?;
        self.open.insert(conn);
        let before = self.answers.len();
        self.event(machine, Event::Asked(ConnId(conn), caller, request));
        self.answers[before..].iter().find(|(to, _)| *to == ConnId(conn)).map(|(_, answer)| *answer)
    }

    /// Delivers outcomes and lets time pass until nothing happens any more, or `until`.
    fn settle(&mut self, machine: &mut Machine, until: Millis) {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.event(machine, event);
            } else {
                match machine.poll_at() {
                    Some(at) if at <= until && self.gone.is_none() => {
                        self.now = self.now.max(at);
                        self.event(machine, Event::Tick);
                    }
                    _ => return,
                }
            }
        }
    }

    fn fails(&mut self, one_in: usize) -> bool {
        self.faults && self.dice.roll(one_in) == 0
    }

    fn outcome<E>(&mut self, one_in: usize, error: E) -> Result<(), E> {
        if self.fails(one_in) { Err(error) } else { Ok(()) }
    }

    fn goal_met(&self, id: ContainerId, goal: Goal) -> bool {
        let at = usize::from(id.0);
        match goal {
            Goal::Mounted => self.lives[at] == Life::Mounted,
            Goal::Started => self.lives[at] == Life::Running,
            Goal::Ready => self.lives[at] == Life::Running && self.ready[at],
        }
    }

    fn count(&self, life: Life) -> usize {
        self.lives.iter().filter(|other| **other == life).count()
    }

    fn end(&mut self, id: ContainerId, exit: Exit) {
        let life = std::mem::replace(&mut self.lives[usize::from(id.0)], Life::None);
        self.ready[usize::from(id.0)] = false;
        match life {
            Life::Running => self.pending.push_back(Event::Exited(id, exit)),
            Life::Starting => {
                self.pending.retain(|event| !matches!(event, Event::Launched(other, _) if *other == id));
                self.pending.push_back(Event::Launched(id, Err(Code::ErrandDied)));
            }
            other => self.lives[usize::from(id.0)] = other,
        }
    }
}

fn boot_of(vars: BootVars, journal: Option<Record>, booted: RevName) -> update::Boot {
    let loaded = Loaded { vars, bootcount: 0, named: [None; 6], complete: true, active: 1, damaged: false };
    let booted = Some(booted);
    let candidate = vars.candidate;
    let facts = boot::Facts { booted, candidate, bootcount: 1, canary: true, script: 1, watchdog: false };
    let choice = boot::choose(Some(loaded), &facts, journal);
    update::Boot { choice, vars, may_arm: Ok(()), degraded: false, commit_delay_ms: 25_000 }
}

impl World for Device {
    fn perform(&mut self, machine: &mut Machine, action: Action) -> Option<Event> {
        assert!(self.gone.is_none(), "nothing is done after the device went down: {action:?}");
        if !matches!(action, Action::Note(_)) {
            self.trace.push(format!("    {action:?}"));
        }
        match action {
            Action::Verify(id) => {
                let (rev, _) = machine.to_start(id).unwrap();
                assert_eq!(rev, machine.plan().rev);
                let life = &mut self.lives[usize::from(id.0)];
                assert!(matches!(*life, Life::None | Life::Mounted), "{id:?} is checked while its old process lives");
                *life = Life::Checking;
                let result = self.outcome(40, Code::ObjectMismatch);
                self.pending.push_back(Event::Verified(id, result));
                None
            }
            Action::Start(id) => {
                assert_eq!(self.lives[usize::from(id.0)], Life::Checked, "{id:?} is started unchecked");
                self.lives[usize::from(id.0)] = Life::Starting;
                let result = self.outcome(20, Code::ImageInvalid);
                self.pending.push_back(Event::Launched(id, result));
                None
            }
            Action::Stop(id) => {
                if !self.fails(3) {
                    self.end(id, Exit::Code(0));
                }
                None
            }
            Action::Kill(id) => {
                if !self.fails(10) {
                    self.end(id, Exit::Signal(9));
                }
                None
            }
            Action::Load(rev) => {
                let plan = self.plans.get(&rev).cloned();
                let result = match plan {
                    Some(plan) => {
                        *machine.candidate_mut() = plan;
                        Ok(())
                    }
                    None => Err(Refusal::new(Code::RevisionUnknown)),
                };
                Some(Event::Loaded(rev, result))
            }
            Action::Keep(job) => {
                let result = self.outcome(10, Refusal::new(Code::StorageIo));
                if let (Job::Prepare(record) | Job::Record(record), Ok(())) = (job, result) {
                    if let Phase::Done { .. } = record.phase {
                        assert_eq!(self.vars.committed, record.candidate, "done before commit");
                    }
                    self.journal = Some(record);
                }
                match (job, result) {
                    (Job::Intend(record), Ok(())) => self.journal = Some(record),
                    (Job::Intend(record), Err(_)) if self.dice.roll(2) == 0 => self.journal = Some(record),
                    (Job::Clear, _) => {
                        assert_eq!((self.vars, self.count(Life::None)), (boot::factory_alone(), self.lives.len()));
                        if result.is_ok() {
                            self.journal = Some(Record::none(RevName::factory()));
                        }
                    }
                    _ => {}
                }
                self.pending.push_back(Event::Kept(job, result));
                None
            }
            Action::Store(transition, vars) => {
                self.check_store(machine, transition, vars);
                let result = self.outcome(8, Code::EnvStoreFailed);
                // A store that failed may still have reached the medium.
                if result.is_ok() || self.dice.roll(2) == 0 {
                    self.vars = vars;
                }
                self.stores += 1;
                Some(Event::Stored(transition, result))
            }
            Action::Receive(slot, ..) => {
                let result = self.outcome(4, Code::Incomplete);
                self.pending.push_back(Event::Received(slot, result));
                None
            }
            Action::Hash(slot) => {
                let id = ObjectId([self.dice.roll(2) as u8; 32]);
                self.pending.push_back(Event::Hashed(slot, Ok(id)));
                None
            }
            Action::Send(conn, _) | Action::Pass(conn) | Action::Answer(conn, _) => {
                assert!(self.open.remove(&conn.0), "answered twice, or nobody asked");
                if let Action::Answer(conn, answer) = action {
                    self.answers.push((conn, answer));
                }
                None
            }
            Action::Reboot(_) | Action::PowerOff => {
                self.gone = Some(action);
                None
            }
            Action::Note(note) => {
                assert!(!note.to_string().is_empty());
                self.trace.push(format!("    -- {note}"));
                None
            }
        }
    }
}

impl Device {
    /// The laws about the environment, as far as one store can break them.
    fn check_store(&self, machine: &Machine, transition: Transition, vars: BootVars) {
        match transition {
            Transition::Arm => {
                let armed = self.journal.is_some_and(|record| Some(record.candidate) == vars.candidate);
                assert!(armed, "armed without its record");
            }
            Transition::Commit => {
                for wanted in &machine.plan().containers {
                    let id = machine.order().find(wanted.name).expect("every container of the candidate exists");
                    let is = machine.order().get(id).unwrap().spec();
                    assert_eq!(is.digest, wanted.digest, "the candidate's container, not the one before");
                    let unheard = self.pending.iter().any(|event| matches!(event, Event::Exited(of, _) if *of == id));
                    assert!(
                        unheard || self.goal_met(id, wanted.goal),
                        "committed while {} is not at its goal",
                        wanted.name
                    );
                }
                assert_eq!(machine.plan().rev, vars.committed);
            }
            Transition::FactoryReset => {
                assert_eq!(vars, boot::factory_alone());
                assert!(self.journal.is_some_and(|record| record.factory_reset), "a reset without its intent");
            }
            Transition::Settle | Transition::Disarm | Transition::StepBack => assert_eq!(vars.candidate, None),
        }
    }
}

// ---- traces

const MINUTE: Millis = 60_000;

/// `network` below `web` and `counter`; the candidate has another `web`.
fn plans() -> [Plan; 2] {
    let network = spec("network", 0, 1);
    let counter = spec("counter", 1, 1);
    [
        plan("0", 1, &[network, spec("web", 1, 1), counter]),
        plan("locals/new", 1, &[network, spec("web", 1, 2), counter]),
    ]
}

fn id(machine: &Machine, name: &str) -> ContainerId {
    machine.order().find(PartName::parse(name).unwrap()).unwrap()
}

fn shown(machine: &Machine, now: Millis, rev: &str) -> (&'static str, &'static str, Option<Code>) {
    let progress = machine.update().progress(now, rev_name(rev)).unwrap();
    (progress.status.word(), progress.message, progress.code)
}

fn trace_has(device: &Device, part: &str) -> bool {
    device.trace.iter().any(|line| line.contains(part))
}

#[test]
fn groups_start_in_order_and_reach_ready() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    assert_eq!(device.count(Life::Checking), 1, "only the first group");
    device.settle(&mut machine, MINUTE);
    assert_eq!(device.count(Life::Running), 3);
    assert!(matches!(machine.standing(), Standing::Met { .. }));
    assert_eq!(machine.ready_at(), Some(device.now));
    assert_eq!(machine.poll_at(), None, "a device that has nothing to do sleeps");
}

#[test]
fn an_update_in_place_replaces_what_differs_and_nothing_else() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let (web, counter) = (id(&machine, "web"), id(&machine, "counter"));
    device.trace.clear();
    assert_eq!(device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new"))), Some(Answer::Done));
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.vars.candidate, Some(rev_name("locals/new")), "armed");
    assert_eq!(shown(&machine, device.now, "locals/new").0, "TESTING");
    assert!(!trace_has(&device, &format!("Stop({counter:?})")) && !trace_has(&device, &format!("Start({counter:?})")));
    assert!(trace_has(&device, &format!("Stop({web:?})")));
    let order = ["Store(Arm", "Stop(", "Start("].map(|what| device.trace.iter().position(|line| line.contains(what)));
    assert!(order.is_sorted() && order[0].is_some(), "armed, stopped, started: {order:?}");
    device.settle(&mut machine, device.now + MINUTE);
    let new = rev_name("locals/new");
    assert_eq!(device.vars, BootVars { committed: new, candidate: None, previous: Some(rev_name("0")) });
    assert_eq!(device.journal.unwrap().phase, Phase::Done { cold_pending: true });
    assert_eq!(shown(&machine, device.now, "locals/new").0, "DONE");
    assert_eq!(device.stores, 2);
    assert_eq!(machine.update().running(), new);

    // Its first cold boot is watched, and then it has nothing to prove any more.
    let mut machine = device.boot();
    assert_eq!(device.boot.choice.mode, Mode::Cold);
    assert!(machine.update().may_leave(), "it is watched again after the next boot");
    assert_eq!(shown(&machine, device.now, "locals/new").0, "DONE");
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.journal.unwrap().phase, Phase::Done { cold_pending: false });
    assert_eq!(device.stores, 2);
    device.boot();
    assert_eq!(device.boot.choice.mode, Mode::Steady);
}

#[test]
fn a_rollback_is_an_update_to_the_revision_before() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let refused = device.ask(&mut machine, Caller::Host, Request::Rollback);
    assert_eq!(refused, Some(Answer::Refused(Code::NoPrevious.into(), 0)));
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    let busy = device.ask(&mut machine, Caller::Host, Request::Rollback);
    assert_eq!(busy, Some(Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S)));
    device.settle(&mut machine, device.now + MINUTE);
    let stores = device.stores;
    assert_eq!(device.ask(&mut machine, Caller::Host, Request::Rollback), Some(Answer::Done));
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.vars.candidate, Some(rev_name("0")), "armed and tried as any other");
    device.settle(&mut machine, device.now + MINUTE);
    let back = BootVars { committed: rev_name("0"), candidate: None, previous: Some(rev_name("locals/new")) };
    assert_eq!((device.vars, device.stores - stores), (back, 2));
    assert_eq!(machine.update().running(), rev_name("0"));
    assert_eq!(device.ask(&mut machine, Caller::Host, Request::Rollback), Some(Answer::Done), "and forth again");
}

#[test]
fn a_factory_reset_is_one_store_and_at_the_next_boot_nothing_starts_before_it_ends() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    let busy = device.ask(&mut machine, Caller::Host, Request::FactoryReset);
    assert_eq!(busy, Some(Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S)));
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.journal.unwrap().phase, Phase::Done { cold_pending: true });

    // Cut before its store: it did not begin, and what the record says else still holds.
    let stores = device.stores;
    assert_eq!(device.ask(&mut machine, Caller::Host, Request::FactoryReset), None, "answered when it has begun");
    assert_eq!(device.journal.map(|record| record.factory_reset), Some(true));
    let mut machine = device.boot();
    assert_eq!((device.boot.choice.mode, device.stores), (Mode::Cold, stores));
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.journal.map(|record| record.factory_reset), Some(false));

    device.ask(&mut machine, Caller::Host, Request::FactoryReset);
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.answers.last().unwrap().1, Answer::Done);
    assert_eq!((device.gone, device.stores), (Some(Action::Reboot(Reason::FactoryReset)), stores + 1));
    assert_eq!(device.vars, boot::factory_alone());

    // Cut while everything else goes: it goes on.
    let intent = device.journal;
    device.boot();
    assert_eq!((device.boot.choice.mode, device.count(Life::Checking)), (Mode::FactoryReset, 0));
    device.journal = intent;
    let mut machine = device.boot();
    assert_eq!(device.boot.choice.mode, Mode::FactoryReset);
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!((device.journal, device.stores), (Some(Record::none(rev_name("0"))), stores + 3));
    assert_eq!((device.count(Life::Running), machine.update().is_steady()), (3, true));
    assert_eq!(shown(&machine, device.now, "0").1, "Factory revision");
    device.boot();
    assert_eq!(device.boot.choice.mode, Mode::Steady);
}

#[test]
fn a_factory_reset_that_cannot_end_is_given_up_and_says_why() {
    let mut device = Device::new(&plans(), 1);
    device.journal = Some(Record { factory_reset: true, ..Record::none(rev_name("0")) });
    let mut machine = device.boot();
    assert_eq!(device.boot.choice.mode, Mode::FactoryReset);
    for _ in 0..limits::STORE_TRIES_MAX {
        assert_eq!(device.pending.pop_front(), Some(Event::Kept(Job::Clear, Ok(()))));
        device.journal = Some(Record { factory_reset: true, ..Record::none(rev_name("0")) });
        device.event(&mut machine, Event::Kept(Job::Clear, Err(Code::StorageIo.into())));
    }
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(shown(&machine, device.now, "0").2, Some(Code::StorageIo));
    assert_eq!((device.count(Life::Running), device.journal.unwrap().factory_reset), (3, false));
}

/// Where the factory revision is the committed one, the intent alone decides at the next start: nobody is told that the
/// reset was refused while a cut could still bring it.
#[test]
fn a_factory_reset_is_refused_when_its_intent_is_void() {
    let failed = || Err(Refusal::new(Code::StorageIo));
    for (failures, code) in [(0, Code::StorageIo), (1, Code::StorageIo), (3, Code::ResetUndecided)] {
        let mut device = Device::new(&plans(), 1);
        let mut machine = device.boot();
        device.settle(&mut machine, MINUTE);
        assert_eq!(device.ask(&mut machine, Caller::Host, Request::FactoryReset), None);
        let Some(Event::Kept(Job::Intend(intent), Ok(()))) = device.pending.pop_front() else { panic!("no intent") };
        device.event(&mut machine, Event::Kept(Job::Intend(intent), failed()));
        for _ in 0..failures {
            assert_eq!(device.answers, [], "the intent may still be there");
            let Some(Event::Kept(Job::Record(record), Ok(()))) = device.pending.pop_front() else { panic!("no try") };
            assert!(!record.factory_reset);
            device.journal = Some(intent);
            device.event(&mut machine, Event::Kept(Job::Record(record), failed()));
        }
        assert_eq!(device.answers.is_empty(), code == Code::StorageIo);
        device.settle(&mut machine, device.now + MINUTE);
        let answers: Vec<_> = device.answers.iter().map(|(_, answer)| *answer).collect();
        assert_eq!(answers, [Answer::Refused(code.into(), 0)]);
        assert!(machine.update().is_steady());
        device.boot();
        let mode = if code == Code::ResetUndecided { Mode::FactoryReset } else { Mode::Steady };
        assert_eq!(device.boot.choice.mode, mode);
    }
}

#[test]
fn what_a_factory_reset_would_remove_is_not_taken() {
    let mut device = Device::new(&plans(), 1);
    device.journal = Some(Record { factory_reset: true, ..Record::none(rev_name("0")) });
    let mut machine = device.boot();
    assert_eq!(device.pending.front(), Some(&Event::Kept(Job::Clear, Ok(()))));
    let busy = Some(Answer::Refused(Code::Busy.into(), limits::RETRY_AFTER_BUSY_S));
    let step = Request::Receive(Upload::Step(rev_name("locals/a")), 10);
    for request in [step, Request::Message(rev_name("0")), Request::Collect] {
        assert_eq!(device.ask(&mut machine, Caller::Host, request), busy);
    }
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.ask(&mut machine, Caller::Host, step), None, "it is being received");
}

#[test]
fn nothing_new_starts_before_everything_unwanted_is_gone() {
    let mut device = Device::new(&plans(), 1);
    let other = plan("locals/other", 1, &[spec("network", 0, 1), spec("server", 1, 1), spec("counter", 1, 1)]);
    device.plans.insert(other.rev, other);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let web = id(&machine, "web");
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/other")));
    // Up to the stop: its end is still to come.
    while !device.pending.iter().any(|event| matches!(event, Event::Exited(..))) {
        let event = device.pending.pop_front().unwrap();
        device.event(&mut machine, event);
    }
    device.event(&mut machine, Event::Tick);
    assert_eq!(device.count(Life::Checking), 0, "web may hold what server needs");
    assert_eq!(machine.standing(), Standing::Switching);
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.count(Life::Running), 3);
    assert_ne!(id(&machine, "server"), web, "both had a slot until web was gone");
}

#[test]
fn a_fall_in_the_trial_in_place_brings_the_old_one_back() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    device.settle(&mut machine, device.now + 10);
    let web = id(&machine, "web");
    device.end(web, Exit::Code(1));
    device.settle(&mut machine, device.now + 10);
    assert_eq!(
        shown(&machine, device.now, "locals/new"),
        ("ERROR", "A container could not be started", Some(Code::ContainerExited))
    );
    assert_eq!(device.vars, BootVars { committed: rev_name("0"), candidate: None, previous: None });
    assert_eq!(machine.order().get(web).unwrap().spec().digest, [1; 32], "the old web");
    assert_eq!(device.count(Life::Running), 3);
    assert!(machine.update().is_steady() && device.gone.is_none());
    let order = ["Keep(Record(Record { candidate: locals/new", "Store(Disarm"];
    let order = order.map(|what| device.trace.iter().rposition(|line| line.contains(what)));
    assert!(order[0].is_some() && order.is_sorted(), "the reason before the store: {order:?}");
}

#[test]
fn a_container_that_never_gets_ready_is_named() {
    let mut device = Device::new(&plans(), 1);
    let ready = Container { goal: Goal::Ready, ..spec("web", 1, 3) };
    let bad = plan("locals/bad", 1, &[spec("network", 0, 1), ready, spec("counter", 1, 1)]);
    device.plans.insert(bad.rev, bad);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/bad")));
    device.settle(&mut machine, device.now + 2 * MINUTE);
    assert_eq!(shown(&machine, device.now, "locals/bad").2, Some(Code::GoalsMissed));
    let Phase::Failed { container, .. } = device.journal.unwrap().phase else { panic!() };
    assert_eq!(container, PartName::parse("web").ok());
    assert_eq!(machine.plan().rev, rev_name("0"));
}

#[test]
fn only_a_container_whose_goal_it_is_may_say_that_it_is_ready() {
    let ready = Container { goal: Goal::Ready, ..spec("slow", 0, 1) };
    let mut device = Device::new(&[plan("0", 1, &[ready, spec("web", 1, 1)])], 1);
    let mut machine = device.boot();
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.count(Life::Running), 1, "the second group waits");
    let unexpected = Some(Answer::Refused(Code::SignalUnexpected.into(), 0));
    assert_eq!(device.ask(&mut machine, Caller::Host, Request::Ready), unexpected);
    let slow = Caller::Container(id(&machine, "slow"));
    assert_eq!(device.ask(&mut machine, slow, Request::Ready), Some(Answer::Done));
    assert_eq!(device.ask(&mut machine, slow, Request::Ready), Some(Answer::Done), "twice is no fault");
    device.settle(&mut machine, device.now + 10);
    let web = Caller::Container(id(&machine, "web"));
    assert_eq!(device.ask(&mut machine, web, Request::Ready), unexpected);
    assert!(matches!(machine.standing(), Standing::Met { .. }));
}

#[test]
fn a_base_update_reboots_and_is_committed_by_its_boot() {
    let [old, mut new] = plans();
    new.base = [2; 32];
    let mut device = Device::new(&[old, new], 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.gone, Some(Action::Reboot(Reason::Try(rev_name("locals/new")))));
    assert_eq!(device.count(Life::Running), 0, "everything was stopped");
    let mut machine = device.boot();
    assert_eq!(shown(&machine, device.now, "locals/new").0, "INPROGRESS");
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.vars.committed, rev_name("locals/new"));
    assert_eq!(device.journal.unwrap().phase, Phase::Done { cold_pending: false });
    assert_eq!((shown(&machine, device.now, "locals/new").0, device.stores), ("DONE", 2));
}

#[test]
fn a_fall_in_the_trial_by_boot_is_recorded_and_reboots() {
    let [old, mut new] = plans();
    new.base = [2; 32];
    let mut device = Device::new(&[old, new], 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    device.settle(&mut machine, device.now + MINUTE);
    let mut machine = device.boot();
    device.settle(&mut machine, device.now + 10);
    device.end(id(&machine, "network"), Exit::Signal(11));
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.gone, Some(Action::Reboot(Reason::Rollback(rev_name("locals/new"), Code::ContainerExited))));
    let mut machine = device.boot();
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(machine.update().running(), rev_name("0"));
    assert_eq!(shown(&machine, device.now, "locals/new").2, Some(Code::ContainerExited));
    assert_eq!(device.vars.candidate, None);
}

#[test]
fn a_cold_boot_that_misses_its_goals_steps_back() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    device.settle(&mut machine, device.now + MINUTE);
    let mut machine = device.boot();
    device.settle(&mut machine, device.now);
    device.end(id(&machine, "web"), Exit::Code(1));
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.gone, Some(Action::Reboot(Reason::Rollback(rev_name("locals/new"), Code::ColdBootFailed))));
    assert_eq!(device.vars, BootVars { committed: rev_name("0"), candidate: None, previous: None });
    let mut machine = device.boot();
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(shown(&machine, device.now, "locals/new").2, Some(Code::ColdBootFailed));
    assert!(matches!(machine.standing(), Standing::Met { .. }));
}

#[test]
fn without_a_policy_a_fall_reboots_unless_the_device_is_degraded() {
    for degraded in [false, true] {
        let mut device = Device::new(&plans(), 1);
        device.boot();
        device.boot.degraded = degraded;
        device.lives = [Life::None; limits::CONTAINERS_MAX];
        device.pending.clear();
        let mut machine = Machine::new(device.boot, plans()[0].clone());
        device.settle(&mut machine, 0);
        device.event(&mut machine, Event::Tick);
        device.settle(&mut machine, MINUTE);
        device.end(id(&machine, "web"), Exit::Code(3));
        device.settle(&mut machine, device.now + 10);
        let web = PartName::parse("web").unwrap();
        let expected = (!degraded).then_some(Action::Reboot(Reason::Container(web, Code::ContainerExited)));
        assert_eq!(device.gone, expected);
    }
}

#[test]
fn a_missed_group_holds_the_later_ones_back_and_is_reported() {
    let ready = Container { goal: Goal::Ready, ..spec("slow", 0, 1) };
    let mut device = Device::new(&[plan("0", 1, &[ready, spec("web", 1, 1)])], 1);
    let mut machine = device.boot();
    device.settle(&mut machine, 10 * MINUTE);
    assert_eq!(machine.standing(), Standing::Missed(PartName::parse("slow").unwrap()));
    assert_eq!(device.count(Life::Running), 1);
    assert!(device.gone.is_none() && machine.poll_at().is_none());
    let slow = Caller::Container(id(&machine, "slow"));
    device.ask(&mut machine, slow, Request::Ready);
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.count(Life::Running), 2, "late, but there");
}

#[test]
fn a_container_that_falls_for_ever_does_not_keep_a_trial_open() {
    let recovery = Recovery { policy: RecoveryPolicy::Always, ..Recovery::NONE };
    let looping = plan("locals/loop", 1, &[Container { recovery, ..spec("web", 1, 9) }]);
    let mut device = Device::new(&plans(), 1);
    device.plans.insert(looping.rev, looping.clone());
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(looping.rev));
    for _ in 0..20 {
        device.settle(&mut machine, device.now + 2000);
        if machine.plan().rev == looping.rev {
            device.end(id(&machine, "web"), Exit::Code(0));
        }
    }
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(shown(&machine, device.now, "locals/loop").2, Some(Code::GoalsMissed));
    assert_eq!(device.vars.committed, rev_name("0"));
}

#[test]
fn a_user_stops_and_starts_what_its_policy_leaves_to_users() {
    let mut device = Device::new(&plans(), 1);
    device.plans.get_mut(&rev_name("0")).unwrap().containers[0].restart = RestartPolicy::System;
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let act = |name: &str, act| Request::Act(PartName::parse(name).unwrap(), act);
    let refused = |name: &str, code| Some(Answer::Refused(Refusal::key(code, name), 0));
    assert_eq!(device.ask(&mut machine, Caller::Host, act("none", Act::Stop)), refused("none", Code::ContainerUnknown));
    let system = device.ask(&mut machine, Caller::Host, act("network", Act::Stop));
    assert_eq!(system, refused("network", Code::ContainerSystem));
    let running = device.ask(&mut machine, Caller::Host, act("web", Act::Start));
    assert_eq!(running, refused("web", Code::ContainerState));
    assert_eq!(device.ask(&mut machine, Caller::Host, act("web", Act::Stop)), Some(Answer::Done));
    device.settle(&mut machine, device.now + 2 * MINUTE);
    assert_eq!(machine.order().get(id(&machine, "web")).unwrap().state(), State::Stopped);
    assert!(device.gone.is_none(), "a wish is no fall");
    assert_eq!(device.ask(&mut machine, Caller::Host, act("web", Act::Start)), Some(Answer::Done));
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.count(Life::Running), 3);
    assert_eq!(device.ask(&mut machine, Caller::Host, act("web", Act::Restart)), Some(Answer::Done));
    assert_eq!(device.count(Life::Running), 2);
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.count(Life::Running), 3);
}

#[test]
fn uploads_are_adopted_only_with_the_right_hash() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let id = ObjectId([7; 32]);
    for (found, expected) in [(id, Answer::Done), (ObjectId([8; 32]), Answer::Refused(Code::ObjectMismatch.into(), 0))]
    {
        device.ask(&mut machine, Caller::Host, Request::Receive(Upload::Object(id), 3));
        let Some(Event::Received(slot, Ok(()))) = device.pending.pop_front() else { panic!() };
        device.event(&mut machine, Event::Received(slot, Ok(())));
        device.pending.clear();
        device.event(&mut machine, Event::Hashed(slot, Ok(found)));
        device.settle(&mut machine, device.now + 10);
        assert_eq!(device.answers.last().unwrap().1, expected);
    }
    let step = Request::Receive(Upload::Step(rev_name("locals/a")), 3);
    device.ask(&mut machine, Caller::Host, step);
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.answers.last().unwrap().1, Answer::Done);
    assert!(trace_has(&device, "Keep(Stage(Slot(0), locals/a))"));
    let in_use = device.ask(&mut machine, Caller::Host, Request::Receive(Upload::Step(rev_name("0")), 3));
    assert_eq!(in_use, Some(Answer::Refused(Refusal::key(Code::RevisionInUse, "0"), 0)));
    for _ in 0..limits::TRANSFERS_MAX {
        assert_eq!(device.ask(&mut machine, Caller::Host, step), None);
    }
    let busy = Some(Answer::Refused(Code::Busy.into(), limits::RETRY_AFTER_BUSY_S));
    assert_eq!(device.ask(&mut machine, Caller::Host, step), busy);
}

#[test]
fn a_revision_that_an_update_has_read_is_not_replaced() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let rev = rev_name("locals/new");
    device.ask(&mut machine, Caller::Host, Request::Receive(Upload::Step(rev), 3));
    let Some(Event::Received(slot, Ok(()))) = device.pending.pop_front() else { panic!() };
    device.ask(&mut machine, Caller::Host, Request::Run(rev));
    device.event(&mut machine, Event::Received(slot, Ok(())));
    assert_eq!(device.answers.last().unwrap().1, Answer::Refused(Code::RevisionInUse.into(), 0));
    device.settle(&mut machine, device.now + 10);
    assert!(!trace_has(&device, "Keep(Stage("));
}

#[test]
fn an_upload_that_finds_no_room_has_room_made_for_the_next() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Receive(Upload::Object(ObjectId([7; 32])), 3));
    let Some(Event::Received(slot, Ok(()))) = device.pending.pop_front() else { panic!() };
    device.event(&mut machine, Event::Received(slot, Err(Code::NoSpace)));
    device.settle(&mut machine, device.now + 10);
    assert_eq!(device.answers.last().unwrap().1, Answer::Refused(Code::NoSpace.into(), 0));
    assert!(trace_has(&device, "Keep(Drop(Slot(0)))") && trace_has(&device, "Keep(Collect)"));
}

#[test]
fn while_an_update_runs_the_device_does_not_go_down_on_request() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    let busy = Some(Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S));
    for request in [Request::Reboot, Request::PowerOff, Request::Run(rev_name("locals/new"))] {
        assert_eq!(device.ask(&mut machine, Caller::Host, request), busy);
    }
    device.settle(&mut machine, device.now + MINUTE);
    let running = device.ask(&mut machine, Caller::Host, Request::Run(rev_name("locals/new")));
    assert_eq!(running, Some(Answer::Refused(Code::AlreadyRunning.into(), 0)));
    assert_eq!(device.ask(&mut machine, Caller::Host, Request::PowerOff), Some(Answer::Done));
    device.settle(&mut machine, device.now + MINUTE);
    assert_eq!(device.gone, Some(Action::PowerOff));
    assert_eq!(device.count(Life::Running), 0);
}

#[test]
fn a_process_that_cannot_be_killed_does_not_keep_the_device_up() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    let before = device.now;
    machine.handle(before, Event::Reboot);
    while machine.poll_action().is_some() {} // nobody ends
    let mut last = None;
    for _ in 0..20 {
        let Some(at) = machine.poll_at() else { break };
        machine.handle(at, Event::Tick);
        while let Some(action) = machine.poll_action() {
            if let Action::Reboot(Reason::Asked) = action {
                last = Some(at);
            }
        }
    }
    assert_eq!(last, Some(before + limits::LEAVE_PATIENCE_MS));
}

#[test]
fn a_full_disk_is_answered_and_then_cleared() {
    let mut device = Device::new(&plans(), 1);
    let mut machine = device.boot();
    device.settle(&mut machine, MINUTE);
    device.ask(&mut machine, Caller::Host, Request::Receive(Upload::Object(ObjectId([7; 32])), 3));
    device.pending.clear();
    device.event(&mut machine, Event::Received(Slot(0), Err(Code::NoSpace)));
    assert_eq!(device.answers.last().unwrap().1, Answer::Refused(Code::NoSpace.into(), 0));
    assert!(device.pending.contains(&Event::Kept(Job::Collect, Ok(()))));
    device.pending.clear();
    device.event(&mut machine, Event::Kept(Job::Collect, Err(Code::NoSpace.into())));
    assert!(device.pending.is_empty(), "clearing is not tried for ever");
    // And so is a folder of revisions that would grow.
    device.event(&mut machine, Event::Kept(Job::Stage(Slot(0), rev_name("locals/new")), Err(Code::TrailsFull.into())));
    assert!(device.pending.contains(&Event::Kept(Job::Collect, Ok(()))));
}

// ---- storms

/// Plans that differ in every way that matters: a container more or less, another version, a policy, the base.
fn any_plan(dice: &mut Dice, rev: &str) -> Plan {
    let mut containers = Vec::new();
    for (index, name) in ["network", "web", "slow", "counter", "extra"].iter().enumerate() {
        if dice.roll(5) == 0 {
            continue;
        }
        let goal = [Goal::Started, Goal::Started, Goal::Ready, Goal::Mounted][dice.roll(4)];
        let policy = [RecoveryPolicy::No, RecoveryPolicy::Always, RecoveryPolicy::OnFailure][dice.roll(3)];
        let backoff = [Backoff::Reboot, Backoff::Never, Backoff::After(7)][dice.roll(3)];
        let recovery = Recovery { policy, max_retries: dice.roll(3) as u32, backoff, ..Recovery::NONE };
        let restart = [RestartPolicy::Container, RestartPolicy::Container, RestartPolicy::System][dice.roll(3)];
        let group = (index % 2) as u8;
        // Equal digests mean equal containers: what is said of it decides the digest.
        let digest = [goal as u8, policy as u8, recovery.max_retries as u8, dice.roll(2) as u8];
        let mut spec = Container { goal, recovery, restart, ..spec(name, group, 0) };
        spec.digest[..4].copy_from_slice(&digest);
        spec.digest[4] = restart as u8;
        spec.digest[5] = match backoff {
            Backoff::Reboot => 0,
            Backoff::Never => 1,
            Backoff::After(_) => 2,
        };
        containers.push(spec);
    }
    plan(rev, dice.roll(4).min(1) as u8, &containers)
}

fn storm(device: &mut Device, machine: &mut Machine, steps: usize) {
    for _ in 0..steps {
        if device.gone.is_some() || device.dice.roll(400) == 0 {
            *machine = device.boot(); // it went down by itself, or the power did
            continue;
        }
        match device.dice.roll(12) {
            0..=5 => {
                let choice = device.dice.roll(device.pending.len().max(1));
                if let Some(event) = device.pending.remove(choice) {
                    device.event(machine, event);
                }
            }
            6 | 7 => {
                let jump = device.dice.roll(3000) as Millis;
                device.now = machine.poll_at().unwrap_or(0).max(device.now) + jump.saturating_sub(2000);
                device.event(machine, Event::Tick);
            }
            8 => {
                let victim = device.dice.roll(6);
                if device.lives[victim] == Life::Running {
                    let code = device.dice.roll(2) as u8;
                    device.end(ContainerId(victim as u8), Exit::Code(code));
                }
            }
            9 => {
                let talker = ContainerId(device.dice.roll(6) as u8);
                if device.lives[usize::from(talker.0)] == Life::Running
                    && device.ask(machine, Caller::Container(talker), Request::Ready) == Some(Answer::Done)
                {
                    device.ready[usize::from(talker.0)] = true;
                }
            }
            10 => {
                let revs: Vec<RevName> = device.plans.keys().copied().collect();
                let rev = revs[device.dice.roll(revs.len())];
                device.ask(machine, Caller::Host, Request::Run(rev));
            }
            11 if device.dice.roll(20) == 0 => {
                device.ask(machine, Caller::Host, Request::FactoryReset);
            }
            _ => {
                let name = PartName::parse(["web", "slow", "counter"][device.dice.roll(3)]).unwrap();
                let act = [Act::Start, Act::Stop, Act::Restart][device.dice.roll(3)];
                let upload = Request::Receive(Upload::Object(ObjectId([0; 32])), 1);
                let requests = [Request::Act(name, act), upload, Request::Collect, Request::Status];
                let request = requests[device.dice.roll(4)];
                device.ask(machine, Caller::Host, request);
            }
        }
    }
}

/// Whatever happens, in whatever order: what `Device` asserts holds; and when it stops happening, the device
/// becomes steady, with no candidate left, having answered everybody.
#[test]
fn storms_break_nothing_and_end() {
    let seeds = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..1500, |seed| seed..seed + 1);
    let (mut commits, mut resets) = (0, 0);
    for seed in seeds {
        let mut dice = Dice(seed * 7919 + 13);
        let names = ["0", "locals/a", "locals/b", "locals/c"];
        let plans: Vec<Plan> = names.iter().map(|name| any_plan(&mut dice, name)).collect();
        let mut device = Device::new(&plans, seed);
        let mut machine = device.boot();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            device.faults = true;
            storm(&mut device, &mut machine, 400);
            device.faults = false;
            for _ in 0..40 {
                if device.gone.is_some() {
                    machine = device.boot();
                }
                device.settle(&mut machine, device.now + 10 * MINUTE);
            }
            assert!(machine.update().is_steady(), "still {:?}", machine.update().state());
            assert_eq!(device.vars.candidate, None, "a candidate was forgotten");
            let intent = device.journal.is_some_and(|record| record.factory_reset);
            resets += usize::from(device.journal == Some(Record::none(RevName::factory())));
            assert!(!intent || machine.update().vars() == device.vars, "{:?}", device.journal);
            assert!(device.open.is_empty(), "somebody was never answered");
        }));
        if let Err(panic) = caught {
            println!("SEED={seed}\n{}", device.trace.join("\n"));
            std::panic::resume_unwind(panic);
        }
        commits += usize::from(device.vars.committed != rev_name("0"));
    }
    println!("{commits} devices ended on another revision, {resets} with a factory reset as the last that happened");
}

#[test]
fn names_fit_their_texts() {
    assert!(Text::<{ limits::REV_NAME_MAX }>::new("locals/x").is_some());
    assert!(core::mem::size_of::<Action>() <= 320 && core::mem::size_of::<Event>() <= 512);
}
