//! Errands: the processes that PID 1 starts for one job each.
//!
//! All are this binary, told by their first argument which they are, with a socket to PID 1 as descriptor 3.
//! Invariants: an errand that dies or stalls costs a retry, never the device: a resident one is started again after
//! a pause that grows, and has one request at a time, with a deadline. A request that outlived `TRIES` of its
//! errands, or its deadline, ends with a code; so every request ends.
//! Fault model: an errand may say anything. What is not an answer to the request that it holds ends it.
//! Not here: what the requests mean (`linux`), what they look like (`wire`).

use crate::{
    kmsg::{self, Why},
    sys,
    wire::{Channel, WireError},
};
use core::ffi::CStr;
use log::{info, warn};
use runtime::{
    fault::Code,
    port::{Millis, Owner},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
    process::{Pid, Signal},
};
use std::{collections::VecDeque, process::ExitCode};

/// Requests that can wait for one errand: a step for every container and connection, and the machine's own.
pub const QUEUE_MAX: usize = 96;
/// Errands that one request may outlive.
const TRIES: u8 = 3;
/// Time that a resident errand has from its start to `Ready`.
const READY_MS: Millis = 20_000;
/// Time that an errand has from its end to being reaped, before it counts as held by the kernel.
const REAP_MS: Millis = 5_000;
/// First pause before an errand is started again; doubled each time until it is ready.
const PAUSE_MS: Millis = 200;
/// Longest pause.
const PAUSE_MAX_MS: Millis = 30_000;

/// Runs an errand as this process.
pub fn run(name: &'static str, serve: fn(&Channel) -> Result<(), WireError>) -> ExitCode {
    let channel = socket();
    sys::set_process_name(name);
    kmsg::open(name);
    match serve(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn!("{error}; it will be started again");
            ExitCode::FAILURE
        }
    }
}

/// The errand's end of its socket. Ends the process if there is none: it was not started by PID 1.
pub fn socket() -> Channel {
    match sys::errand_socket() {
        Some(socket) => Channel::new(socket),
        None => {
            eprintln!("switchback: this errand is started by PID 1 only: descriptor 3 is not its socket");
            std::process::exit(2)
        }
    }
}

/// Which part of the binary this process is: `pvcontrol` if it is called by that name, nothing (PID 1) if it is called
/// `init`, or `pantavisor` as the original's boot script calls it, else its first argument. The kernel hands its first process every word of the command line that it does not
/// know, and the loader puts there what an owner wrote: none of that may choose.
pub fn word() -> String {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    match program.rsplit('/').next() {
        Some("pvcontrol") => "pvcontrol".into(),
        Some("init" | "pantavisor") => String::new(),
        _ => args.next().unwrap_or_default(),
    }
}

/// The errands that run all the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resident {
    /// Everything durable.
    Keeper,
    /// Hashes.
    Verify,
    /// Output of containers.
    Log,
    /// HTTP for `pvr`.
    Endpoint,
    /// `pvcontrol` on a terminal.
    Console,
    /// Exported revisions from USB sticks.
    Usb,
}

impl Resident {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Keeper, Self::Verify, Self::Log, Self::Endpoint, Self::Console, Self::Usb];

    /// Its first argument.
    pub fn word(self) -> &'static CStr {
        match self {
            Self::Keeper => c"keeper",
            Self::Verify => c"verify",
            Self::Log => c"log",
            Self::Endpoint => c"endpoint",
            Self::Console => c"console",
            Self::Usb => c"usb",
        }
    }

    /// The namespaces of its own.
    fn namespaces(self) -> u64 {
        match self {
            Self::Keeper => (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) as u64,
            Self::Verify => (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) as u64,
            Self::Log => (libc::CLONE_NEWNET | libc::CLONE_NEWIPC) as u64,
            Self::Endpoint => libc::CLONE_NEWIPC as u64,
            Self::Console => 0,
            Self::Usb => (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) as u64,
        }
    }

    /// The one for which that is kept.
    pub fn of(owner: Owner) -> Self {
        match owner {
            Owner::Endpoint => Self::Endpoint,
            Owner::Usb => Self::Usb,
        }
    }
}

/// A running errand.
pub struct Process {
    /// Its process id, until it is reaped.
    pub pid: Pid,
    pidfd: OwnedFd,
    /// The socket to it.
    pub channel: Channel,
}

impl Process {
    /// Its descriptor, for what signals cannot name.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends it a signal. One that has ended already gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }
}

/// Starts errands.
pub struct Starter {
    null: OwnedFd,
}

impl Starter {
    /// Opens what every errand gets.
    pub fn new() -> Result<Self, Errno> {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { null })
    }

    /// Starts one. `output`: its standard output and error; the log if there is none.
    pub fn start(
        &self,
        word: &CStr,
        namespaces: u64,
        cgroup: Option<BorrowedFd<'_>>,
        output: Option<BorrowedFd<'_>>,
    ) -> Result<Process, Errno> {
        let (channel, theirs) = Channel::pair()?;
        let null = self.null.as_fd();
        let output = output.or(kmsg::output().map(AsFd::as_fd)).unwrap_or(null);
        let (pid, pidfd) = sys::spawn(&sys::Spawn {
            path: c"/proc/self/exe",
            args: &[c"switchback", word],
            namespaces,
            cgroup,
            stdio: [null, output, output, theirs.as_fd()],
        })?;
        Ok(Process { pid, pidfd, channel })
    }
}

/// One resident errand and the requests that wait for it. `J` says what a request is and for whom.
pub struct Desk<J> {
    resident: Resident,
    /// The errand, from its start until it is reaped.
    pub process: Option<Process>,
    ready: bool,
    /// Not running: when to start. Not ready: when to give up. `Millis::MAX`: it was ended and is to be reaped.
    at: Millis,
    /// It was ended because it was late: from when on who else waits for it need not.
    let_go: Option<Millis>,
    pause: Millis,
    /// Has its room from the start; a page of it that was never used costs nothing.
    queue: VecDeque<J>,
    /// The first of the queue was sent: its serial and its deadline.
    sent: Option<(u32, Millis)>,
    serial: u32,
    tries: u8,
}

impl<J: Copy> Desk<J> {
    /// An errand that is to be started at once.
    pub fn new(resident: Resident) -> Self {
        Self {
            resident,
            process: None,
            ready: false,
            at: 0,
            let_go: None,
            pause: PAUSE_MS,
            queue: VecDeque::with_capacity(QUEUE_MAX),
            sent: None,
            serial: 0,
            tries: 0,
        }
    }

    /// Puts a request in line; `Err` gives it back if the line is full.
    pub fn ask(&mut self, job: J) -> Result<(), J> {
        if self.queue.len() >= QUEUE_MAX {
            return Err(job);
        }
        self.queue.push_back(job);
        Ok(())
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Starts it if it is time; `true` if it was started and its channel is to be watched.
    pub fn start_if_due(&mut self, starter: &Starter, now: Millis) -> bool {
        if self.process.is_some() || now < self.at {
            return false;
        }
        match starter.start(self.resident.word(), self.resident.namespaces(), None, None) {
            Ok(process) => {
                self.process = Some(process);
                self.at = now + READY_MS;
                true
            }
            Err(error) => {
                warn!("{:?} cannot be started: {}; next try in {} ms", self.resident, Why(error), self.pause);
                self.rest(now);
                false
            }
        }
    }

    /// It said that it serves; `false` if it says so twice, or after it was ended.
    pub fn serves(&mut self) -> bool {
        if self.ready || self.at == Millis::MAX {
            return false;
        }
        info!("{:?} is ready", self.resident);
        self.ready = true;
        self.pause = PAUSE_MS;
        true
    }

    /// The request to send now and its serial, if it can take one.
    pub fn next(&self) -> Option<(u32, J)> {
        if !self.ready || self.sent.is_some() {
            return None;
        }
        self.queue.front().map(|job| (self.serial.wrapping_add(1), *job))
    }

    /// `next` was sent; its answer is due in `patience`.
    pub fn sent(&mut self, now: Millis, patience: Millis) {
        self.serial = self.serial.wrapping_add(1);
        self.sent = Some((self.serial, now + patience));
    }

    /// The request that an answer with this serial ends.
    pub fn answered(&mut self, serial: u32) -> Option<J> {
        if self.sent.is_none_or(|(sent, _)| sent != serial) {
            return None;
        }
        self.finish()
    }

    /// Takes the first request out: it cannot be sent, or is at its end.
    pub fn finish(&mut self) -> Option<J> {
        self.sent = None;
        self.tries = 0;
        self.queue.pop_front()
    }

    /// Ends it because it does not keep to the rules or to its time; what it held is tried again or fails when it is reaped.
    pub fn end(&mut self, why: &str) {
        if let Some(process) = &self.process {
            warn!("{:?} is ended: {why}", self.resident);
            process.signal(Signal::KILL);
        }
        self.ready = false;
        self.at = Millis::MAX;
    }

    /// It was reaped. The request that fails with it, if it was the last try.
    pub fn reaped(&mut self, now: Millis) -> Option<(J, Code)> {
        self.process = None;
        self.ready = false;
        self.let_go = None;
        self.rest(now);
        let (_, until) = self.sent.take()?;
        self.tries += 1;
        if now < until && self.tries < TRIES {
            return None;
        }
        let code = if now < until { Code::ErrandDied } else { Code::ErrandTimeout };
        self.finish().map(|job| (job, code))
    }

    /// When it wants `check` or `start_if_due` to be called.
    pub fn poll_at(&self) -> Option<Millis> {
        if self.at == Millis::MAX {
            // Ended: all that is left is to reap it, however long the kernel holds it, and to let go who waits.
            return self.let_go.filter(|_| !self.queue.is_empty());
        }
        let request = self.sent.map(|(_, until)| until);
        let own = if self.ready { None } else { Some(self.at) };
        [request, own].into_iter().flatten().min()
    }

    /// Ends it if it is late. A request that fails with that: none waits for the process to be gone, which a disk
    /// that does not answer can hold for as long as it likes. Call it until it returns nothing, or with every turn.
    pub fn check(&mut self, now: Millis) -> Option<(J, Code)> {
        self.process.as_ref()?;
        if self.at == Millis::MAX {
            self.let_go.filter(|at| now >= *at)?;
            return self.finish().map(|job| (job, Code::ErrandTimeout));
        }
        if !self.ready && now >= self.at {
            self.end("it did not become ready in time");
        } else if self.sent.is_some_and(|(_, until)| now >= until) {
            self.end("it did not answer in time");
            self.let_go = Some(now + REAP_MS);
            return self.finish().map(|job| (job, Code::ErrandTimeout));
        }
        None
    }

    fn rest(&mut self, now: Millis) {
        self.at = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> Desk<u8> {
        let mut desk = Desk::new(Resident::Verify);
        desk.ask(1).unwrap();
        desk.ask(2).unwrap();
        desk
    }

    #[test]
    fn one_request_at_a_time_in_order() {
        let mut desk = desk();
        assert_eq!(desk.next(), None, "nobody serves yet");
        desk.serves();
        let (serial, job) = desk.next().unwrap();
        assert_eq!(job, 1);
        desk.sent(0, 100);
        assert_eq!(desk.next(), None);
        assert_eq!(desk.answered(serial + 1), None, "an answer to something else");
        assert_eq!(desk.answered(serial), Some(1));
        assert_eq!(desk.answered(serial), None, "an answer twice");
        assert_eq!(desk.next().map(|(_, job)| job), Some(2));
    }

    #[test]
    fn a_request_outlives_some_deaths_but_not_all() {
        let mut desk = desk();
        for death in 1..=TRIES {
            desk.serves();
            assert_eq!(desk.next().map(|(_, job)| job), Some(1));
            desk.sent(0, 100);
            let failed = desk.reaped(u64::from(death));
            assert_eq!(failed, (death == TRIES).then_some((1, Code::ErrandDied)));
        }
        desk.serves();
        assert_eq!(desk.next().map(|(_, job)| job), Some(2));
    }

    #[test]
    fn a_request_that_ran_out_of_time_is_not_tried_again() {
        let mut desk = desk();
        desk.serves();
        desk.sent(0, 100);
        assert_eq!(desk.poll_at(), Some(100));
        assert_eq!(desk.reaped(100), Some((1, Code::ErrandTimeout)));
    }

    #[test]
    fn an_errand_that_the_kernel_holds_does_not_hold_its_request() {
        let mut desk = desk();
        desk.process = Some(Starter::new().unwrap().start(c"--list", 0, None, None).unwrap());
        assert!(desk.serves());
        desk.sent(0, 100);
        assert_eq!(desk.check(99), None);
        assert_eq!(desk.poll_at(), Some(100));
        assert_eq!(desk.check(100), Some((1, Code::ErrandTimeout)));
        assert_eq!(desk.check(101), None, "the next errand serves the others, if there is one soon");
        assert_eq!(desk.poll_at(), Some(100 + REAP_MS));
        assert_eq!(desk.check(100 + REAP_MS), Some((2, Code::ErrandTimeout)));
        // From now on there is nothing to do until it is reaped, and nothing that it says counts.
        assert_eq!((desk.check(101 + REAP_MS), desk.poll_at(), desk.next()), (None, None, None));
        assert!(!desk.serves());
        desk.ask(3).unwrap();
        let pid = desk.process.as_ref().unwrap().pid;
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(desk.reaped(200), None);
        assert_eq!(desk.poll_at(), Some(200 + PAUSE_MS));
        assert!(desk.serves());
        assert_eq!(desk.next().map(|(_, job)| job), Some(3));
        assert!(!desk.serves(), "it says so once");
    }

    #[test]
    fn the_pause_grows_until_it_is_ready() {
        let mut desk: Desk<u8> = Desk::new(Resident::Log);
        let pauses: Vec<_> = (0..12)
            .map(|_| {
                desk.reaped(0);
                desk.poll_at().unwrap()
            })
            .collect();
        assert_eq!(pauses[..3], [PAUSE_MS, 2 * PAUSE_MS, 4 * PAUSE_MS]);
        assert_eq!(pauses[11], PAUSE_MAX_MS);
        desk.serves();
        desk.reaped(0);
        assert_eq!(desk.poll_at(), Some(PAUSE_MS));
    }
}
