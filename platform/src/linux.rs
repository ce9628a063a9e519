//! The world of the machine on Linux: carries out its actions, and waits for what happens next.
//!
//! Invariants: `perform` never waits for anybody but the environment store. What needs a disk, another process or
//! the network is asked of an errand and comes back as an event; every request ends, at the latest by the deadline of
//! the errand that holds it. Nothing allocates once the loop runs. One source is served per turn, one step.
//! Fault model: errands and clients say anything, stop, and die. Orphans of containers are reaped here.
//! Not here: what is asked of the resident errands (`work`), what is decided (`runtime`), what each hand does (the modules
//! that are called).

mod work;

use crate::{
    alloc,
    boot::{Decision, Disks},
    config::{Access, Policy, Value},
    containers::Containers,
    early,
    env::EnvRegion,
    errand::{Desk, Resident, Starter},
    faults,
    path::Path,
    signals::{End, Signals, Wish, reap},
    sockets::{HOST_SOCKET, Input, Phase, Sockets, listen},
    transfer::Transfers,
    turns::{self, Turns},
    usage,
    wait::{Source, Waiter},
    watchdog::Watchdog,
    wire::{Buffer, KeepList, Message, WireError},
    wishes::Wishes,
};
use boards::{Board, env::Codec};
use log::{info, warn};
use runtime::{
    control::{
        self, Answer, Caller, Context, Download, Facts, InForce, Memory, Ours, Pace, Process, Request, Route, Storage,
    },
    fault::{Code, Refusal},
    http::{self, Head, HostRule, media},
    id::{ConnId, ContainerId, RevName},
    limits,
    machine::{Action, Event, Job, Machine, Note, Reason, Slot, Transition},
    order::Standing,
    port::{BootEnv, BootVars, Millis, Owner},
    protocol::Row,
    state::{Defaults, Plan, Spans, State},
    turn::World,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    process::Pid,
    system::RebootCommand,
};
use std::collections::VecDeque;
use work::Work;

/// Group of the endpoint: besides root, who may use the host's control socket.
const ENDPOINT_GROUP: u32 = 904;
/// Events of one step: at most one for each child that is reaped or request that fails.
const EVENTS_MAX: usize = 128;
/// Children reaped per turn.
const REAP_MAX: usize = 32;

/// Which sticks are looked at for an exported revision.
pub struct Sticks {
    /// File systems that may be mounted.
    pub kinds: Value,
    /// Disks that count besides those on a USB bus.
    pub disks: Value,
}

/// What PID 1 was given before its loop, and does not change.
pub struct Settings {
    /// When it was executed.
    pub begun: Millis,
    /// Address that the endpoint serves.
    pub endpoint: Option<Value>,
    /// Whom it serves, and by which names it may be called.
    pub access: (Access, Value),
    /// Terminal that the console serves.
    pub console: Option<Value>,
    /// Which sticks are looked at for an exported revision.
    pub usb: Option<Sticks>,
    /// What a revision leaves open.
    pub defaults: Defaults,
    /// Which board this is; `None`: not one that we know.
    pub board: Option<&'static Board>,
    /// How the file systems were found. Without them only console and control sockets answer.
    pub storage: Storage,
}

impl Settings {
    /// From the policy.
    pub fn new(begun: Millis, policy: &Policy, storage: Storage) -> Self {
        let defaults = Defaults { goals_timeout_s: policy.goals_timeout_s };
        let board = policy.known_board();
        let access = (policy.access, policy.names);
        let usb = policy.usb.map(|kinds| Sticks { kinds, disks: policy.usb_disks });
        Self { begun, endpoint: policy.endpoint, access, console: policy.console, usb, defaults, board, storage }
    }
}

/// The environment's codec over its device.
pub type Env = Codec<'static, EnvRegion>;

/// Linux.
pub struct Linux {
    settings: Settings,
    waiter: Waiter,
    signals: Signals,
    watchdog: Watchdog,
    starter: Starter,
    host: OwnedFd,
    sockets: Sockets,
    desks: [Desk<Work>; Resident::ALL.len()],
    containers: Containers,
    transfers: Transfers,
    env: Option<Env>,
    /// The disk that storage is to grow on, until it has.
    growing: Option<OwnedFd>,
    /// The keeper was asked to let it grow.
    grow_asked: bool,
    /// Every revision that a copy of the environment may name.
    named: KeepList,
    /// Whether `named` is known to be all. A copy that cannot be read may name more.
    all_named: bool,
    /// What the copy in force says.
    in_force: BootVars,
    /// Which copy that is, or why none is.
    copy: Result<InForce, Code>,
    /// The boot decision is carried out.
    settled: bool,
    /// What a collection spares.
    spared: KeepList,
    events: VecDeque<Event>,
    turns: Turns,
    /// Children that were nobody's.
    orphans: u64,
    /// What the errands for which something is kept want of the keeper.
    wishes: [Wishes; Owner::ALL.len()],
    buffers: Buffers,
}

/// Room for what is large. Pages that were never used cost nothing.
struct Buffers {
    message: Box<Buffer>,
    state: Box<[u8]>,
    spans: Box<Spans>,
    conf: Box<[u8]>,
    answer: Page<Box<[u8]>>,
}

impl Linux {
    /// Everything that the loop needs; the last allocations of PID 1.
    pub fn new(
        settings: Settings,
        signals: Signals,
        watchdog: Watchdog,
        disks: Disks,
        decision: &Decision,
    ) -> std::io::Result<Self> {
        let mut waiter = Waiter::new()?;
        waiter.watch(&signals, Source::Signals)?;
        let host = listen(HOST_SOCKET, Some(ENDPOINT_GROUP))?;
        waiter.watch(&host, Source::Host)?;
        let mut linux = Self {
            settings,
            waiter,
            signals,
            watchdog,
            starter: Starter::new()?,
            host,
            sockets: Sockets::new(),
            desks: Resident::ALL.map(Desk::new),
            containers: Containers::new(),
            transfers: Transfers::new(),
            env: disks.env,
            growing: disks.growing,
            grow_asked: false,
            named: decision.named.clone(),
            all_named: decision.complete,
            in_force: decision.boot.vars,
            copy: decision.copy,
            settled: false,
            spared: KeepList::new(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            turns: Turns::new(),
            orphans: 0,
            wishes: Default::default(),
            buffers: Buffers {
                message: Box::new(Buffer::new()),
                state: vec![0; limits::STATE_MAX + 1].into_boxed_slice(),
                spans: Box::new(Spans::new()),
                conf: vec![0; limits::LXC_CONF_MAX + 1].into_boxed_slice(),
                answer: Page::new(vec![0; limits::HTTP_ANSWER_MAX].into_boxed_slice()),
            },
        };
        linux.push(Event::Tick);
        let _ = linux.desk(Resident::Keeper).ask(Work::Recover);
        Ok(linux)
    }

    /// Monotonic time.
    pub fn now(&self) -> Millis {
        now()
    }

    /// The next event. Waits until there is one.
    pub fn wait(&mut self, machine: &mut Machine) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let now = now();
            self.watchdog.feed(now);
            self.settled = machine.update().has_settled();
            self.grow_once(machine);
            self.upkeep(now);
            let mine = self.poll_at();
            let tick = machine.poll_at();
            let until = if self.events.is_empty() { [mine, tick].into_iter().flatten().min() } else { Some(now) };
            self.turns.end();
            let source = self.waiter.next(until.map(|until| until.saturating_sub(now)));
            self.turns.begin();
            if let Some(source) = source {
                self.serve(source, machine);
            }
            if self.events.is_empty() && tick.is_some_and(|tick| self::now() >= tick) {
                return Event::Tick;
            }
        }
    }

    fn push(&mut self, event: Event) {
        // Each source gives at most one event per step, and all are taken before the next step.
        assert!(self.events.len() < EVENTS_MAX, "events are handled before more are read");
        self.events.push_back(event);
    }

    fn desk(&mut self, resident: Resident) -> &mut Desk<Work> {
        &mut self.desks[resident as usize]
    }

    fn has_storage(&self) -> bool {
        self.settings.storage.missing().is_none()
    }

    /// Whether this device has such an errand.
    fn is_wanted(&self, resident: Resident) -> bool {
        match resident {
            Resident::Keeper => self.has_storage(),
            // Its folder may be one that a factory reset removes.
            Resident::Log => self.has_storage() && self.settled,
            Resident::Verify => true,
            // What it recalls, its key and tokens, must not be from before a factory reset that has not ended.
            Resident::Endpoint => self.settings.endpoint.is_some() && self.settled,
            Resident::Console => self.settings.console.is_some(),
            // Nor must what it recalls, nor may an update come before what this boot decided is carried out.
            Resident::Usb => self.settings.usb.is_some() && self.has_storage() && self.settled,
        }
    }

    fn poll_at(&self) -> Option<Millis> {
        let wanted = Resident::ALL.into_iter().filter(|resident| self.is_wanted(*resident));
        let desks = wanted.filter_map(|resident| self.desks[resident as usize].poll_at()).min();
        let others = [
            desks,
            self.sockets.poll_at(),
            self.containers.poll_at(),
            self.transfers.poll_at(),
            self.watchdog.poll_at(),
        ];
        others.into_iter().flatten().min()
    }

    /// What time brings: errands to start, deadlines that passed.
    fn upkeep(&mut self, now: Millis) {
        for resident in Resident::ALL {
            if !self.is_wanted(resident) {
                continue;
            }
            if let Some((work, code)) = self.desk(resident).check(now) {
                warn!("{work:?} failed with it: {code}");
                self.failed(work, code);
            }
            if self.desks[resident as usize].start_if_due(&self.starter, now) {
                self.greet(resident);
            }
        }
        self.transfers.check(now);
        while let Some(event) = self.containers.check(now) {
            self.push(event);
        }
        while let Some(id) = self.sockets.overdue(now) {
            self.sockets.close(id, &mut self.waiter);
        }
    }

    /// Storage grows when nothing waits for the keeper: no update, which would be measured by it and may yet go back to
    /// a release that does not know of growth, and no container on its way up.
    fn grow_once(&mut self, machine: &Machine) {
        let is_busy = || matches!(machine.standing(), Standing::Going(_) | Standing::Switching);
        if self.growing.is_some() && !self.grow_asked && machine.update().is_steady() && !is_busy() {
            self.grow_asked = true;
            self.ask(Resident::Keeper, Work::Grow);
        }
    }

    /// A resident errand was started: watches it, and tells it what it needs to begin.
    fn greet(&mut self, resident: Resident) {
        let Some(process) = &self.desks[resident as usize].process else { return };
        let watched = self.waiter.watch(&process.channel, Source::Resident(resident)).is_ok();
        let told = match (resident, &self.settings) {
            (Resident::Endpoint, Settings { endpoint: Some(address), .. }) => {
                let (access, names) = &self.settings.access;
                let order = Message::Listen { address: address.as_str(), access: *access, names: names.as_str() };
                process.channel.send(0, &order, &[])
            }
            (Resident::Console, Settings { console: Some(name), .. }) => {
                let mut path = Path::new();
                // Opening a serial line may wait for its carrier; without waiting it is opened, and read as usual.
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                rustix::fs::open(path.set(format_args!("/dev/{name}")), flags, Mode::empty())
                    .and_then(|tty| rustix::io::ioctl_fionbio(&tty, false).map(|()| tty))
                    .map_err(WireError::Io)
                    .and_then(|tty| process.channel.send(0, &Message::Serve { what: name.as_str() }, &[tty.as_fd()]))
            }
            (Resident::Usb, Settings { usb: Some(Sticks { kinds, disks }), .. }) => {
                process.channel.send(0, &Message::Sticks { kinds: kinds.as_str(), disks: disks.as_str() }, &[])
            }
            _ => Ok(()),
        };
        if let Err(error) = told {
            warn!("{resident:?} cannot be told what to serve: {error}");
        }
        if !watched || told.is_err() {
            self.desk(resident).end("it cannot be spoken to");
        }
    }

    /// One step for one source that is ready.
    fn serve(&mut self, source: Source, machine: &mut Machine) {
        let now = now();
        match source {
            Source::Signals => self.signal(),
            Source::Host => self.sockets.accept(self.host.as_fd(), Caller::Host, source, &mut self.waiter, now),
            Source::Listener(id) => match self.containers.listener(id) {
                Some(listener) => {
                    self.sockets.accept(listener, Caller::Container(id), source, &mut self.waiter, now);
                }
                None => self.waiter.drained(source),
            },
            Source::Conn(id) => match self.sockets.read(id, &mut self.waiter) {
                Input::Nothing => {}
                Input::Bytes => self.request(id, machine),
                Input::End => self.refuse(id, Code::Incomplete.into()),
            },
            Source::Resident(resident) => self.hear(resident, machine),
            Source::Start(id) => {
                if let Some(event) = self.containers.hear(id, &mut self.buffers.message, &mut self.waiter) {
                    self.push(event);
                }
            }
            Source::Fetch(slot) => self.transfers.hear(slot, &mut self.buffers.message, &mut self.waiter, now),
        }
    }

    fn signal(&mut self) {
        match self.signals.next() {
            Some(Wish::Restart) => self.push(Event::Reboot),
            Some(Wish::PowerOff) => self.push(Event::PowerOff),
            Some(Wish::Child | Wish::Nothing) => {}
            None => {
                // All signals are read; children are taken after that, so that none is missed.
                for _ in 0..REAP_MAX {
                    let Some((pid, end)) = reap() else { return self.waiter.drained(Source::Signals) };
                    self.reaped(pid, end);
                }
            }
        }
    }

    /// A child ended: it belongs to a container, a transfer, a resident errand, or to nobody any more.
    fn reaped(&mut self, pid: Pid, end: End) {
        let now = now();
        if let Some(id) = self.containers.owner(pid) {
            let before = self.containers.reaped(id, end, &mut self.buffers.message, &mut self.waiter, now);
            self.sockets.forget_caller(Caller::Container(id), &mut self.waiter);
            before.into_iter().for_each(|event| self.push(event));
        } else if let Some(slot) = self.transfers.owner(pid) {
            let (outcome, download) = self.transfers.reaped(slot, &mut self.buffers.message, &mut self.waiter, now);
            match download {
                Some(conn) => self.sockets.leave(conn, &mut self.waiter, now),
                None => self.push(Event::Received(slot, outcome)),
            }
        } else if let Some(resident) = Resident::ALL.into_iter().find(|resident| self.is_process_of(*resident, pid)) {
            warn!("{resident:?} ended: {end:?}");
            let desk = &mut self.desks[resident as usize];
            if let Some(process) = &desk.process {
                self.waiter.forget(&process.channel, Source::Resident(resident));
            }
            let failed = desk.reaped(now);
            if let Some(owner) = Owner::ALL.into_iter().find(|owner| Resident::of(*owner) == resident) {
                self.wishes[owner as usize].orphan();
            }
            if let Some((work, code)) = failed {
                warn!("{work:?} failed with it: {code}");
                self.failed(work, code);
            }
        } else {
            self.orphans += 1; // a process of a container whose parent ended before it
        }
    }

    fn is_process_of(&self, resident: Resident, pid: Pid) -> bool {
        self.desks[resident as usize].process.as_ref().is_some_and(|process| process.pid == pid)
    }

    // Revisions.

    fn read_state(&mut self, file: &OwnedFd, length: u64) -> Result<usize, Refusal> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > limits::STATE_MAX {
            return Err(Refusal::at(Code::StateTooLarge, limits::STATE_MAX));
        }
        let mut done = 0;
        while done < length {
            match rustix::io::pread(file, &mut self.buffers.state[done..length], done as u64) {
                Ok(0) => return Err(Code::StorageDamaged.into()),
                Ok(read) => done += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Code::StorageIo.into()),
            }
        }
        Ok(length)
    }

    fn load(&mut self, rev: RevName, file: &OwnedFd, length: u64, machine: &mut Machine) -> Result<(), Refusal> {
        let length = self.read_state(file, length)?;
        let Buffers { state, spans, .. } = &mut self.buffers;
        Plan::parse(&state[..length], rev, &self.settings.defaults, machine.candidate_mut(), spans).map(drop)
    }

    fn list(&mut self, id: ContainerId, file: &OwnedFd, length: u64) -> Result<(), Refusal> {
        let length = self.read_state(file, length)?;
        let Buffers { state, spans, .. } = &mut self.buffers;
        let state = State::read(&state[..length], spans)?;
        self.containers.list(id, &state)
    }

    /// Goes on with a container's check: the next image, or the end.
    fn check_next(&mut self, id: ContainerId) {
        match self.containers.next_image(id) {
            Some(object) => self.ask(Resident::Keeper, Work::Open(id, object)),
            None => {
                let checked = self.containers.checked(id, &mut self.buffers.conf);
                self.push(Event::Verified(id, checked));
            }
        }
    }

    // Containers.

    fn start(&mut self, machine: &Machine, id: ContainerId) -> Option<Event> {
        let goal = machine.to_start(id).map(|(_, spec)| spec.goal)?;
        match self.containers.start(id, goal, &self.starter, &mut self.waiter, now()) {
            Ok(()) => self.watch(id),
            Err(code) => return Some(Event::Launched(id, Err(code))),
        }
        None
    }

    /// Gives a container's output to `log`.
    fn watch(&mut self, id: ContainerId) {
        let desk = &self.desks[Resident::Log as usize];
        let Some((message, output)) = self.containers.output(id) else { return };
        if let (true, Some(process)) = (desk.is_ready(), &desk.process) {
            let _ = process.channel.send(0, &message, &[output]); // if it dies now, its successor gets all of them
        }
    }

    fn watch_all(&mut self) {
        for id in self.containers.outputs() {
            self.watch(id);
        }
    }

    // Connections.

    /// Looks at what was read of a request, and asks the machine when it is whole.
    fn request(&mut self, id: ConnId, machine: &Machine) {
        let Some(caller) = self.sockets.caller(id) else { return };
        let context = Context { management: machine.is_management(caller), running: machine.update().running() };
        match self.parse(id, &context) {
            Ok(Some(request)) => {
                self.sockets.asked(id);
                self.push(Event::Asked(id, caller, request));
            }
            Ok(None) => {}
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    fn parse(&self, id: ConnId, context: &Context) -> Result<Option<Request>, Refusal> {
        let input = self.sockets.input(id);
        let Some(head) = Head::parse(input, HostRule::Local)? else { return Ok(None) };
        let form = match control::route(&head, context)? {
            Route::Ask(request) => return Ok(Some(request)),
            Route::Read(form) => form,
        };
        let body = &input[head.size..];
        let length = head.length.unwrap_or(0) as usize; // `route` bounds it
        match body.get(..length) {
            Some(body) => form.read(body).map(Some),
            None if body.is_empty() && head.expects_continue => {
                self.sockets.write(id, http::CONTINUE.as_bytes());
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The body of a request, as far as it was read.
    fn body(&self, id: ConnId) -> &[u8] {
        let input = self.sockets.input(id);
        match Head::parse(input, HostRule::Local) {
            Ok(Some(head)) => {
                let body = &input[head.size..];
                let length = usize::try_from(head.length.unwrap_or(0)).unwrap_or(usize::MAX);
                &body[..body.len().min(length)]
            }
            _ => &[],
        }
    }

    /// Gives a connection to the endpoint, with what was read of it.
    fn pass(&mut self, id: ConnId) {
        let desk = &self.desks[Resident::Endpoint as usize];
        let input = self.sockets.input(id);
        let passed = match (&desk.process, self.sockets.socket(id)) {
            (Some(process), Some(socket)) if desk.is_ready() && input.len() <= limits::HTTP_HEAD_MAX => {
                process.channel.send(0, &Message::Pass { already: input }, &[socket]).is_ok()
            }
            _ => false,
        };
        if passed {
            return self.sockets.close(id, &mut self.waiter);
        }
        let code = if self.settings.endpoint.is_some() { Code::Busy } else { Code::EndpointClosed };
        self.refuse(id, code.into());
    }

    fn refuse(&mut self, id: ConnId, refusal: Refusal) {
        let mut body = SmallPage::small();
        let _ = http::write_refusal(&mut body, &refusal);
        self.reply(id, refusal.code.http(), media::JSON, body.bytes(), None);
    }

    /// Writes a whole answer and hangs up.
    fn reply(&mut self, id: ConnId, status: u16, media: &str, body: &[u8], retry_after_s: Option<u32>) {
        if self.sockets.phase(id).is_none_or(|phase| phase == Phase::Leaving) {
            return;
        }
        let mut head = SmallPage::small();
        let _ = http::write_head(&mut head, status, media, Some(body.len() as u64), retry_after_s);
        // A client that does not take it is dropped: it does not read, or is gone.
        let _ = self.sockets.write(id, head.bytes()) && self.sockets.write(id, body);
        self.sockets.leave(id, &mut self.waiter, now());
    }

    fn answer(&mut self, machine: &Machine, id: ConnId, answer: Answer) {
        let mut page = core::mem::take(&mut self.buffers.answer);
        page.clear();
        let written = answer.write_body(&mut page, machine, self);
        match written {
            Ok(()) => self.reply(id, answer.status(), answer.media(), page.bytes(), answer.retry_after_s()),
            Err(_) => self.refuse(id, Refusal::key(Code::Internal, "answer is larger than its limit")),
        }
        self.buffers.answer = page;
    }

    // Transfers.

    /// The part file exists: an errand receives the body into it.
    fn receive(&mut self, slot: Slot, file: OwnedFd) {
        let Some((conn, length)) = self.transfers.source(slot) else { return };
        let started = self.start_receive(slot, conn, length, file);
        if let Err(code) = started {
            self.push(Event::Received(slot, Err(code)));
        }
    }

    fn start_receive(&mut self, slot: Slot, conn: ConnId, length: u64, file: OwnedFd) -> Result<(), Code> {
        if self.sockets.phase(conn).is_none() {
            return Err(Code::Incomplete);
        }
        self.sockets.streaming(conn, &mut self.waiter);
        let input = self.sockets.input(conn);
        let head = Head::parse(input, HostRule::Local).ok().flatten().ok_or(Code::Internal)?;
        let body = &input[head.size..];
        let already = &body[..body.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        if head.expects_continue && already.is_empty() && length > 0 {
            self.sockets.write(conn, http::CONTINUE.as_bytes());
        }
        let socket = self.sockets.socket(conn).ok_or(Code::Incomplete)?;
        let order = Message::Receive { length, already };
        self.transfers.start(slot, conn, &order, socket, file, &self.starter, &mut self.waiter, now())
    }

    /// A file that a client wants is open: small ones are answered here, large ones by an errand.
    fn download(&mut self, conn: ConnId, what: Download, file: OwnedFd, length: u64) {
        let media = if matches!(what, Download::Object(_)) { media::BYTES } else { media::JSON };
        if matches!(what, Download::Object(_)) || length > limits::HTTP_ANSWER_MAX as u64 {
            return self.send_file(conn, media, file, length);
        }
        match self.read_state(&file, length) {
            Ok(length) => {
                let text = core::mem::take(&mut self.buffers.state);
                self.reply(conn, 200, media, &text[..length], None);
                self.buffers.state = text;
            }
            Err(refusal) => self.refuse(conn, refusal),
        }
    }

    fn send_file(&mut self, conn: ConnId, media: &str, file: OwnedFd, length: u64) {
        let Some(slot) = self.transfers.free_download() else { return self.refuse(conn, Code::Busy.into()) };
        let mut head = SmallPage::small();
        let _ = http::write_head(&mut head, 200, media, Some(length), None);
        if !self.sockets.write(conn, head.bytes()) {
            return self.sockets.close(conn, &mut self.waiter);
        }
        self.sockets.streaming(conn, &mut self.waiter);
        let Some(socket) = self.sockets.socket(conn) else { return };
        let order = Message::Send { length };
        let started = self.transfers.start(slot, conn, &order, socket, file, &self.starter, &mut self.waiter, now());
        if let Err(code) = started {
            warn!("download: {code} {}", code.text());
            self.sockets.close(conn, &mut self.waiter);
        }
    }

    // Boot.

    fn store(&mut self, transition: Transition, vars: BootVars) -> Result<(), Code> {
        let Some(env) = &mut self.env else { return Err(self.copy.err().unwrap_or(Code::EnvInvalid)) };
        let copies = self.settings.board.map_or(1, |board| board.env.copies());
        let stored = match env.store(&vars) {
            Err(Code::EnvInvalid) if transition == Transition::Settle => env.rebuild(&vars),
            stored => stored,
        };
        match stored {
            Ok(()) => {
                info!("environment: {transition:?}: {vars:?}");
                let candidate = vars.candidate.as_ref().map_or("-", RevName::as_str);
                faults::ack(format_args!("env {} {candidate}", vars.committed));
                // The copy that was in force is the other one now; what that one said is overwritten.
                self.named.clear();
                self.all_named = true;
                name(&mut self.named, &self.in_force);
                self.in_force = vars;
                self.copy = match self.copy {
                    Ok(copy) => Ok(copy.stored(copies)),
                    Err(_) => env.load().map(|loaded| InForce { number: loaded.active, damaged: loaded.damaged }),
                };
            }
            Err(code) => warn!("environment: {transition:?} {vars:?}: {code} {}", code.text()),
        }
        name(&mut self.named, &vars);
        stored
    }

    fn leave(&mut self, how: RebootCommand) -> ! {
        for desk in &mut self.desks {
            desk.end("the device goes down");
        }
        self.env = None; // it may be a file, and keep its file system from being left without a journal to replay
        early::restart_now(how)
    }
}

impl World for Linux {
    fn step(&mut self, row: Row) {
        faults::step(row);
    }

    fn perform(&mut self, machine: &mut Machine, action: Action) -> Option<Event> {
        match action {
            Action::Verify(id) => {
                let (rev, spec) = machine.to_start(id)?;
                self.containers.begin(id, spec.name, rev);
                self.ask(Resident::Keeper, Work::List(id));
            }
            Action::Start(id) => return self.start(machine, id),
            Action::Stop(id) => self.containers.stop(id),
            Action::Kill(id) => self.containers.kill(id),
            Action::Load(rev) => self.ask(Resident::Keeper, Work::Load(rev)),
            Action::Keep(Job::Collect) if !self.all_named => {
                warn!("collection: a copy of the environment cannot be read and may name what would be removed");
                return Some(Event::Kept(Job::Collect, Err(Code::StorageIo.into())));
            }
            Action::Keep(job) => {
                if job == Job::Collect {
                    self.spared = self.named.clone();
                    machine.kept().chain([RevName::factory()]).for_each(|rev| keep(&mut self.spared, rev));
                }
                self.ask(Resident::Keeper, Work::Keep(job));
            }
            Action::Store(transition, vars) => {
                let begun = turns::micros();
                let stored = self.store(transition, vars);
                self.turns.leave_out(begun);
                return Some(Event::Stored(transition, stored));
            }
            Action::Receive(slot, conn, upload, length) => {
                self.transfers.begin(slot, conn, upload, length);
                self.ask(Resident::Keeper, Work::Create(slot));
            }
            Action::Hash(slot) => self.ask(Resident::Verify, Work::HashPart(slot)),
            Action::Send(conn, download) => self.ask(Resident::Keeper, Work::Download(conn, download)),
            Action::Pass(conn) => self.pass(conn),
            Action::Answer(conn, answer) => self.answer(machine, conn, answer),
            Action::Reboot(reason) => {
                note_reboot(reason);
                self.leave(RebootCommand::Restart)
            }
            Action::PowerOff => self.leave(RebootCommand::PowerOff),
            Action::Note(note) => match note {
                Note::Update(rev, progress) => {
                    info!("{note}");
                    match progress.code {
                        Some(code) => faults::ack(format_args!("{} {rev} {code}", progress.status.word())),
                        None => faults::ack(format_args!("{} {rev}", progress.status.word())),
                    }
                }
                Note::Ready(_) => info!("{note}"),
                _ => warn!("{note}"),
            },
        }
        None
    }
}

fn note_reboot(reason: Reason) {
    match reason {
        Reason::Asked => info!("restart: asked"),
        Reason::FactoryReset => info!("restart: for the factory reset"),
        Reason::Try(rev) => info!("restart: to try revision {rev}"),
        Reason::Rollback(rev, code) => warn!("restart: revision {rev} is rolled back: {code} {}", code.text()),
        Reason::Container(container, code) => warn!("restart: container {container}: {code} {}", code.text()),
    }
}

impl Facts for Linux {
    fn now(&self) -> Millis {
        now()
    }

    fn process(&self, id: ContainerId) -> Option<Process> {
        let facts = self.containers.facts(id)?;
        Some(Process { pid: facts.pid.unsigned_abs(), started: facts.started })
    }

    fn begun(&self) -> Millis {
        self.settings.begun
    }

    fn allocations(&self) -> u64 {
        alloc::count()
    }

    fn orphans(&self) -> u64 {
        self.orphans
    }

    fn processes(&self, each: &mut dyn FnMut(Ours<'_>)) {
        let mut tell = |name, pid: Pid| {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            each(Ours { name, pid, share: usage::share(pid) });
        };
        tell("init", Pid::INIT);
        for resident in Resident::ALL {
            if let Some(process) = &self.desks[resident as usize].process {
                tell(resident.word().to_str().unwrap_or(""), process.pid);
            }
        }
        // Not the `start` errands: they live in a container's cgroup, and its memory may be all used up.
        self.transfers.pids().for_each(|pid| tell("fetch", pid));
    }

    fn memory(&self) -> Option<Memory> {
        usage::memory()
    }

    fn pace(&self) -> Pace {
        Pace { wakeups: self.waiter.wakeups(), longest_turn_us: self.turns.take_longest() }
    }

    fn board(&self) -> Option<control::Board<'_>> {
        self.settings.board.map(|board| self.watchdog.facts(board, self.copy))
    }

    fn storage(&self) -> Storage {
        self.settings.storage
    }

    fn build(&self) -> &str {
        // The host tool looks for the second line in the binary.
        match cfg!(feature = "tls") {
            true => concat!("switchback ", env!("CARGO_PKG_VERSION"), "\nprofile full\n"),
            false => concat!("switchback ", env!("CARGO_PKG_VERSION"), "\nprofile small\n"),
        }
    }
}

/// Monotonic milliseconds since boot.
pub fn now() -> Millis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Keeps the names of an environment from being collected.
pub fn name(named: &mut KeepList, vars: &BootVars) {
    [Some(vars.committed), vars.candidate, vars.previous].into_iter().flatten().for_each(|rev| keep(named, rev));
}

/// Keeps a revision from being collected. Two copies name six at most and the machine as many; only stores that
/// fail over and over could name more, and then those that failed first are the ones to keep.
pub fn keep(named: &mut KeepList, rev: RevName) {
    if !named.contains(&rev) {
        let _ = named.push(rev);
    }
}

/// Room for an answer, or for a part of one.
#[derive(Default)]
struct Page<B> {
    bytes: B,
    used: usize,
}

/// A head, or a refusal with the longest key.
type SmallPage = Page<[u8; 2048]>;

impl<B: AsRef<[u8]> + AsMut<[u8]>> Page<B> {
    fn new(bytes: B) -> Self {
        Self { bytes, used: 0 }
    }

    fn clear(&mut self) {
        self.used = 0;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes.as_ref()[..self.used]
    }
}

impl SmallPage {
    fn small() -> Self {
        Self::new([0; 2048])
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> core::fmt::Write for Page<B> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.as_mut().get_mut(self.used..self.used + text.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}
