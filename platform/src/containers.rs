//! Processes of containers, from the check of their images to the end of the last process in their cgroup.
//!
//! Invariants: a container is started from the descriptors that were hashed. Its init is our child, born in the
//! container's namespaces and cgroup as the `start` errand, which becomes it by exec. Every end is told once, when
//! nothing lives in the cgroup any more.
//! Fault model: whatever the `start` errand says or does not say, its end is seen by reaping; the machine has it
//! killed when it takes too long.
//! A container's processes may do what they want; killing the cgroup reaches all of them.
//! Not here: when to start and stop (`runtime::machine`), mounting (`start`), who opens and hashes (`linux`).

use crate::{
    early,
    errand::{Process, Starter},
    kmsg::{Said, Why},
    path::Path,
    signals::End,
    sockets, sys,
    wait::{Source, Waiter},
    wire::{self, Buffer, Message, StartMode, WireError},
};
use core::ffi::CStr;
use log::{info, warn};
use runtime::{
    fault::{Code, Refusal},
    id::{ContainerId, ObjectId, PartName, RevName},
    limits,
    lxc::{Config, Summary},
    machine::{Event, Exit},
    port::Millis,
    state::{Goal, State},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
    pipe::PipeFlags,
    process::Pid,
};

/// How often a cgroup that should be empty is looked at.
const EMPTY_MS: Millis = 20;
/// After this long it is given up on: something in it is stuck in the kernel.
const EMPTY_PATIENCE_MS: Millis = 10_000;

/// A file of the container, by what it must contain.
struct Image {
    object: ObjectId,
    file: Option<OwnedFd>,
}

/// Where a container's process is in its life.
enum Phase {
    /// None.
    Down,
    /// The `start` errand works.
    Starting {
        /// What it reported.
        report: Option<Result<(), Code>>,
        /// Whether it ends by itself after the report.
        mode: StartMode,
    },
    /// Its init runs.
    Up,
    /// Its init was reaped.
    Emptying {
        /// What is told when the cgroup is empty.
        outcome: Outcome,
        /// When to look again.
        at: Millis,
        /// When to stop looking.
        until: Millis,
    },
}

/// How a process came to its end.
#[derive(Clone, Copy)]
enum Outcome {
    /// While, or by, being started.
    Launched(Result<(), Code>),
    /// After it.
    Exited(Exit),
}

/// One container's slot.
struct Unit {
    name: Option<PartName>,
    rev: RevName,
    /// Its images in the order of `root-volume`, `volumes`; the configuration is the last, if it has one.
    images: Vec<Image>,
    configured: bool,
    summary: Summary,
    phase: Phase,
    process: Option<Process>,
    /// The read end of its output, kept for a `log` errand that has to start again.
    output: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    started: Millis,
}

/// What people see of a container's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Process id of its init.
    pub pid: i32,
    /// When it was started.
    pub started: Millis,
}

/// All containers' processes.
pub struct Containers {
    units: Box<[Unit]>,
}

impl Default for Containers {
    fn default() -> Self {
        Self::new()
    }
}

impl Containers {
    /// None. Allocates the slots.
    pub fn new() -> Self {
        let empty = || Unit {
            name: None,
            rev: RevName::factory(),
            images: Vec::with_capacity(wire::FDS_MAX),
            configured: false,
            summary: Summary::DEFAULT,
            phase: Phase::Down,
            process: None,
            output: None,
            listener: None,
            started: 0,
        };
        Self { units: (0..limits::CONTAINERS_MAX).map(|_| empty()).collect() }
    }

    fn unit(&mut self, id: ContainerId) -> &mut Unit {
        &mut self.units[usize::from(id.0)]
    }

    /// Begins the check of a container: nothing is open.
    pub fn begin(&mut self, id: ContainerId, name: PartName, rev: RevName) {
        let unit = self.unit(id);
        unit.name = Some(name);
        unit.rev = rev;
        unit.images.clear();
    }

    /// The revision from which the container starts.
    pub fn rev(&self, id: ContainerId) -> RevName {
        self.units[usize::from(id.0)].rev
    }

    /// Finds what the container consists of.
    pub fn list(&mut self, id: ContainerId, state: &State<'_>) -> Result<(), Refusal> {
        let unit = self.unit(id);
        let name = unit.name.ok_or(Code::ContainerUnknown)?;
        let content = state.container(name)?;
        // One that is only mounted needs no configuration.
        let config = content.config()?;
        unit.configured = config.is_some();
        for file in content.volumes().chain(config.map(Ok)) {
            let file = file?;
            // A volume that is a folder of the revision has no object; `start` finds it by name.
            let Some(object) = file.object else { continue };
            if unit.images.len() >= wire::FDS_MAX {
                return Err(Refusal::key(Code::RunInvalid, file.key.as_str()));
            }
            unit.images.push(Image { object, file: None });
        }
        Ok(())
    }

    /// The next object to open and check.
    pub fn next_image(&self, id: ContainerId) -> Option<ObjectId> {
        self.units[usize::from(id.0)].images.iter().find(|image| image.file.is_none()).map(|image| image.object)
    }

    /// `next_image` is open.
    pub fn opened(&mut self, id: ContainerId, file: OwnedFd) {
        if let Some(image) = self.unit(id).images.iter_mut().find(|image| image.file.is_none()) {
            image.file = Some(file);
        }
    }

    /// The image that was opened last: to be hashed.
    pub fn unhashed(&self, id: ContainerId) -> Option<BorrowedFd<'_>> {
        let images = &self.units[usize::from(id.0)].images;
        images.iter().rev().find_map(|image| image.file.as_ref()).map(AsFd::as_fd)
    }

    /// The image that was opened last has this hash.
    pub fn hashed(&mut self, id: ContainerId, hash: ObjectId) -> Result<(), Code> {
        let images = &self.unit(id).images;
        let image = images.iter().rev().find(|image| image.file.is_some()).ok_or(Code::Internal)?;
        if image.object == hash { Ok(()) } else { Err(Code::ObjectMismatch) }
    }

    /// All images are good: reads what we have to know of the configuration, which was just hashed and is in memory.
    pub fn checked(&mut self, id: ContainerId, text: &mut [u8]) -> Result<(), Code> {
        let unit = self.unit(id);
        unit.summary = Summary::DEFAULT;
        if !unit.configured {
            return Ok(());
        }
        let file = unit.images.last().and_then(|image| image.file.as_ref()).ok_or(Code::Internal)?;
        let length = rustix::io::pread(file, &mut *text, 0).map_err(|_| Code::StorageIo)?;
        unit.summary = Config::parse(&text[..length]).map_err(|refusal| refusal.code)?.summary;
        Ok(())
    }

    /// Forgets the files of a container that will not be started.
    pub fn release(&mut self, id: ContainerId) {
        self.unit(id).images.clear();
    }

    /// Starts the container's process. The outcome comes by `hear` and `reaped`.
    pub fn start(
        &mut self,
        id: ContainerId,
        goal: Goal,
        starter: &Starter,
        waiter: &mut Waiter,
        now: Millis,
    ) -> Result<(), Code> {
        let mode = if goal == Goal::Mounted { StartMode::Mount } else { StartMode::Start };
        let unit = self.unit(id);
        let name = unit.name.ok_or(Code::ContainerUnknown)?;
        if unit.process.is_some() {
            return Err(Code::Internal);
        }
        unit.listen(id, name, waiter).map_err(|error| fault(name, "control socket", error))?;
        let cgroup = open_cgroup(name).map_err(|error| fault(name, "cgroup", error))?;
        let (read, write) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| fault(name, "output", error))?;
        let namespaces = match mode {
            StartMode::Start => u64::from(unit.summary.namespaces.clone_flags()) | libc::CLONE_NEWNS as u64,
            StartMode::Mount => 0, // what it mounts is for all, and stays
        };
        let process = starter
            .start(c"start", namespaces, Some(cgroup.as_fd()), Some(write.as_fd()))
            .map_err(|error| fault(name, "clone", error))?;
        let job = Message::Job { rev: unit.rev, container: name, mode };
        let mut images: heapless::Vec<BorrowedFd<'_>, { wire::FDS_MAX }> = heapless::Vec::new();
        let volumes = unit.images.len() - usize::from(unit.configured);
        images.extend(unit.images[..volumes].iter().filter_map(|image| image.file.as_ref()).map(AsFd::as_fd));
        let sent = process.channel.send(0, &job, &images);
        drop(images);
        unit.images.clear();
        if let Err(error) = sent.and_then(|()| waiter.watch(&process.channel, Source::Start(id)).map_err(wire_error)) {
            warn!("container {name}: its errand cannot be told what to do: {error}");
            process.signal(rustix::process::Signal::KILL);
        }
        unit.process = Some(process);
        unit.output = Some(read);
        unit.started = now;
        unit.phase = Phase::Starting { report: None, mode };
        Ok(())
    }

    /// The `start` errand said something, or its channel ended because it became the container's init.
    pub fn hear(&mut self, id: ContainerId, buffer: &mut Buffer, waiter: &mut Waiter) -> Option<Event> {
        let unit = self.unit(id);
        let source = Source::Start(id);
        let (Some(process), Some(name)) = (&unit.process, unit.name) else {
            waiter.drained(source);
            return None;
        };
        let Phase::Starting { report, mode, .. } = &mut unit.phase else {
            waiter.forget(&process.channel, source);
            return None;
        };
        match process.channel.receive(buffer) {
            Ok(Some(wire::Received { message: Message::Report { code, step, errno }, .. })) => {
                if let Some(code) = code {
                    let why = Said(errno);
                    warn!("container {name}: {code} {}: {step}: {why}", code.text());
                }
                *report = Some(code.map_or(Ok(()), Err));
                if code.is_none() && *mode == StartMode::Mount {
                    // Nothing runs in it: that its volumes can be mounted is all that its goal asks for.
                    let _ = rustix::net::shutdown(&process.channel, rustix::net::Shutdown::Both);
                }
            }
            Ok(Some(_)) => process.signal(rustix::process::Signal::KILL),
            Ok(None) if *report == Some(Ok(())) && *mode == StartMode::Start => {
                waiter.forget(&process.channel, source);
                unit.phase = Phase::Up;
                info!("container {name}: started, process {}", process.pid);
                return Some(Event::Launched(id, Ok(())));
            }
            Err(WireError::Io(Errno::AGAIN)) => waiter.drained(source),
            Ok(None) | Err(_) => waiter.forget(&process.channel, source), // its end will be seen
        }
        None
    }

    /// Whose process this was; from now on it is not.
    pub fn owner(&self, pid: Pid) -> Option<ContainerId> {
        let owns = |unit: &Unit| unit.process.as_ref().is_some_and(|process| process.pid == pid);
        self.units.iter().position(owns).map(|index| ContainerId(index as u8))
    }

    /// Its process was reaped. The event for it comes from `check` when the cgroup is empty; one that was due before it, now.
    pub fn reaped(
        &mut self,
        id: ContainerId,
        end: End,
        buffer: &mut Buffer,
        waiter: &mut Waiter,
        now: Millis,
    ) -> Option<Event> {
        // What it said before it ended may still lie in the channel: a record, or the end that means exec.
        let mut before = None;
        for _ in 0..4 {
            before = before.or(self.hear(id, buffer, waiter));
        }
        let unit = self.unit(id);
        let name = unit.name?;
        if let Some(process) = unit.process.take() {
            waiter.forget(&process.channel, Source::Start(id));
        }
        // Nobody may ask in the name of a container that is gone: its slot may become another's.
        if let Some(listener) = unit.listener.take() {
            waiter.forget(&listener, Source::Listener(id));
        }
        unit.output = None;
        let exit = match end {
            End::Exited(code) => Exit::Code(code as u8),
            End::Killed(signal) => Exit::Signal(signal as u8),
        };
        info!("container {name}: ended: {end:?}");
        let outcome = match unit.phase {
            Phase::Starting { report: Some(Err(code)), .. } => Outcome::Launched(Err(code)),
            Phase::Starting { report: Some(Ok(())), mode: StartMode::Mount, .. } if exit == Exit::Code(0) => {
                Outcome::Launched(Ok(()))
            }
            _ => Outcome::Exited(exit),
        };
        kill_cgroup(name);
        unit.phase = Phase::Emptying { outcome, at: now, until: now + EMPTY_PATIENCE_MS };
        before
    }

    /// Asks the container's init to end.
    pub fn stop(&mut self, id: ContainerId) {
        let signal = i32::from(self.unit(id).summary.halt_signal);
        if let Some(process) = &self.unit(id).process {
            process.signal_number(signal);
        }
    }

    /// Kills everything in the container's cgroup.
    pub fn kill(&mut self, id: ContainerId) {
        let unit = self.unit(id);
        if let Some(name) = unit.name {
            kill_cgroup(name);
        }
        if let Some(process) = &unit.process {
            process.signal(rustix::process::Signal::KILL);
        }
    }

    /// When `check` has something to do.
    pub fn poll_at(&self) -> Option<Millis> {
        let due = |unit: &Unit| match unit.phase {
            Phase::Emptying { at, .. } => Some(at),
            _ => None,
        };
        self.units.iter().filter_map(due).min()
    }

    /// Looks at cgroups that are to become empty. Call it until it returns nothing.
    pub fn check(&mut self, now: Millis) -> Option<Event> {
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            let Some(name) = unit.name else { continue };
            match &mut unit.phase {
                Phase::Emptying { outcome, at, until } if now >= *at => {
                    if !remove_cgroup(name) && now < *until {
                        *at = now + EMPTY_MS;
                        continue;
                    }
                    let id = ContainerId(index as u8);
                    let event = match *outcome {
                        Outcome::Launched(result) => Event::Launched(id, result),
                        Outcome::Exited(exit) => Event::Exited(id, exit),
                    };
                    unit.phase = Phase::Down;
                    return Some(event);
                }
                _ => {}
            }
        }
        None
    }

    /// The output of every running container, for a `log` errand that has just started.
    pub fn outputs(&self) -> impl Iterator<Item = ContainerId> + use<> {
        let running: heapless::Vec<ContainerId, { limits::CONTAINERS_MAX }> = (0u8..)
            .zip(&self.units)
            .filter(|(_, unit)| unit.output.is_some())
            .map(|(index, _)| ContainerId(index))
            .collect();
        running.into_iter()
    }

    /// What `log` is told about a container.
    pub fn output(&self, id: ContainerId) -> Option<(Message<'static>, BorrowedFd<'_>)> {
        let unit = &self.units[usize::from(id.0)];
        let message = Message::Watch { rev: unit.rev, container: unit.name? };
        Some((message, unit.output.as_ref()?.as_fd()))
    }

    /// The listening socket of a container.
    pub fn listener(&self, id: ContainerId) -> Option<BorrowedFd<'_>> {
        self.units[usize::from(id.0)].listener.as_ref().map(AsFd::as_fd)
    }

    /// What people see of a container's process; `None` if it has none.
    pub fn facts(&self, id: ContainerId) -> Option<Facts> {
        let unit = self.units.get(usize::from(id.0))?;
        let process = unit.process.as_ref()?;
        Some(Facts { pid: process.pid.as_raw_nonzero().get(), started: unit.started })
    }
}

impl Unit {
    /// Makes the container's control socket, once for each name that the slot holds.
    fn listen(&mut self, id: ContainerId, name: PartName, waiter: &mut Waiter) -> Result<(), Errno> {
        if let Some(old) = self.listener.take() {
            waiter.forget(&old, Source::Listener(id));
        }
        let listener = sockets::listen_container(name)?;
        waiter.watch(&listener, Source::Listener(id)).map_err(|_| Errno::IO)?;
        self.listener = Some(listener);
        Ok(())
    }
}

fn fault(name: PartName, what: &str, error: Errno) -> Code {
    warn!("container {name}: {what}: {}", Why(error));
    Code::StartFailed
}

fn wire_error(_: std::io::Error) -> WireError {
    WireError::Io(Errno::IO)
}

fn cgroup_path(path: &mut Path, name: PartName, file: &str) -> Option<OwnedFd> {
    let path = path.set(format_args!("/sys/fs/cgroup/switchback/{name}/{file}"));
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn open_cgroup(name: PartName) -> Result<OwnedFd, Errno> {
    let mut path = Path::new();
    let path = path.set(format_args!("/sys/fs/cgroup/switchback/{name}"));
    early::make_dir(path);
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn kill_cgroup(name: PartName) {
    if let Some(file) = cgroup_path(&mut Path::new(), name, "cgroup.kill") {
        let _ = rustix::io::write(&file, b"1");
    }
}

/// Removes a container's cgroup with those that it made itself, some at a time; `false` while something lives in it,
/// or there is more to remove. One that stayed would keep the container from being started again: the kernel lets
/// nobody be born in a cgroup that gives its controllers to others.
fn remove_cgroup(name: PartName) -> bool {
    let mut path = Path::new();
    let cgroup = path.set(format_args!("/sys/fs/cgroup/switchback/{name}"));
    match remove_folders(cgroup) {
        Left::Nothing => return true,
        Left::More => return false,
        Left::Stuck => {}
    }
    // What cannot be removed keeps nobody waiting; what counts is that nobody lives in it.
    let mut text = [0u8; 128];
    let Ok(events) = rustix::fs::open(
        path.set(format_args!("/sys/fs/cgroup/switchback/{name}/cgroup.events")),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    let length = rustix::io::read(&events, &mut text).unwrap_or(0);
    text[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 0")
}

/// Folders removed at a time: a container may have made any number of cgroups.
const REMOVED_AT_ONCE: usize = 16;
/// How deep they may lie.
const REMOVED_DEPTH: usize = 32;

/// What is left of a tree of folders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Nothing,
    /// Some that were not tried yet.
    More,
    /// One that cannot be removed.
    Stuck,
}

/// Removes a folder with the folders below it, deepest first, as far as `REMOVED_AT_ONCE` goes.
fn remove_folders(top: &CStr) -> Left {
    for _ in 0..REMOVED_AT_ONCE {
        match rustix::fs::unlinkat(CWD, top, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Left::Nothing,
            Err(_) if remove_deepest(top).is_none() => return Left::Stuck,
            Err(_) => {}
        }
    }
    Left::More
}

/// A name in a folder, with its zero.
type EntryName = heapless::Vec<u8, 256>;

/// Removes one folder below `top` that has none below itself.
fn remove_deepest(top: &CStr) -> Option<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parent = rustix::fs::open(top, flags, Mode::empty()).ok()?;
    let mut name = first_folder(&parent)?;
    for _ in 0..REMOVED_DEPTH {
        let entry = CStr::from_bytes_with_nul(&name).ok()?;
        let child = rustix::fs::openat(&parent, entry, flags, Mode::empty()).ok()?;
        match first_folder(&child) {
            Some(deeper) => (parent, name) = (child, deeper),
            None => return rustix::fs::unlinkat(&parent, entry, AtFlags::REMOVEDIR).ok(),
        }
    }
    None
}

fn first_folder(folder: &OwnedFd) -> Option<EntryName> {
    let mut room = [core::mem::MaybeUninit::uninit(); 1024];
    let mut entries = rustix::fs::RawDir::new(folder, &mut room);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if entry.file_type() == rustix::fs::FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            return EntryName::from_slice(name.to_bytes_with_nul()).ok();
        }
    }
    None
}

impl Process {
    /// Sends it a signal by number, real-time signals included.
    fn signal_number(&self, number: i32) {
        if let Err(error) = sys::pidfd_signal(self.pidfd(), number) {
            warn!("signal {number} to process {}: {}", self.pid, Why(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Channel;
    use std::{ffi::CString, fs};

    /// Most faults come with an error of the kernel, some with none; a compromised errand says anything.
    #[test]
    fn whatever_error_number_an_errand_reports_its_container_has_failed() {
        let id = ContainerId(3);
        for errno in [0, 2, -1, 4096, i32::MIN, i32::MAX] {
            let (mut containers, mut waiter) = (Containers::new(), Waiter::new().unwrap());
            let mut buffer = Buffer::new();
            containers.begin(id, PartName::parse("nobody-has-this-cgroup").unwrap(), RevName::factory());
            let mut process = Starter::new().unwrap().start(c"--list", 0, None, None).unwrap();
            let pid = process.pid;
            let (ours, theirs) = Channel::pair().unwrap();
            process.channel = ours;
            waiter.watch(&process.channel, Source::Start(id)).unwrap();
            let unit = containers.unit(id);
            (unit.process, unit.phase) = (Some(process), Phase::Starting { report: None, mode: StartMode::Start });
            let report = Message::Report { code: Some(Code::MountFailed), step: "no such disk", errno };
            theirs.send(0, &report, &[]).unwrap();
            assert_eq!(containers.hear(id, &mut buffer, &mut waiter), None);
            drop(theirs);
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
            assert_eq!(containers.reaped(id, End::Exited(1), &mut buffer, &mut waiter, 0), None);
            assert_eq!(containers.check(0), Some(Event::Launched(id, Err(Code::MountFailed))));
            assert_eq!(containers.check(0), None);
        }
    }

    #[test]
    fn what_a_container_made_in_its_cgroup_goes_with_it() {
        let top = std::env::temp_dir().join(format!("switchback-cgroups-{}", std::process::id()));
        let at = CString::new(top.to_str().unwrap()).unwrap();
        fs::create_dir_all(top.join("init.scope/a/b")).unwrap();
        for number in 0..REMOVED_AT_ONCE {
            fs::create_dir_all(top.join(format!("system.slice/{number}"))).unwrap();
        }
        assert_eq!(remove_folders(&at), Left::More, "some at a time");
        assert_eq!(remove_folders(&at), Left::Nothing);
        assert!(!top.exists());
        assert_eq!(remove_folders(&at), Left::Nothing);

        // One that is in use, as a cgroup in which somebody lives: a file stands for that here.
        fs::create_dir_all(top.join("busy")).unwrap();
        fs::write(top.join("busy/file"), "").unwrap();
        assert_eq!(remove_folders(&at), Left::Stuck);
        fs::remove_dir_all(&top).unwrap();

        // Deeper than anybody goes: nobody is kept, and nothing is lost.
        let deep = (0..=REMOVED_DEPTH + 1).fold(top.clone(), |path, _| path.join("d"));
        fs::create_dir_all(deep).unwrap();
        assert_eq!(remove_folders(&at), Left::Stuck);
        fs::remove_dir_all(&top).unwrap();
    }
}
