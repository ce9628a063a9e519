//! `keeper`: everything durable but the environment. It runs `runtime::store` over the two file systems.
//!
//! Invariants: one request at a time, answered when what it promises is durable. In its mount namespace there is
//! nothing but `/storage` and `/boot`, and no network. What clients send is parsed here by the bounded parsers of
//! `runtime`, never by PID 1. Files that it hands out are opened below their root without following links.
//! Fault model: that of `port::Disk`; cut at any point, `Recover` at the next start leaves the old or the new state.
//! If it dies, the request is asked again of the next one, so every request may be done twice.
//! Memory: large buffers live for one request.
//! Not here: hashing (`verify`; but for `intend`), receiving (`fetch`), which revisions are kept (PID 1 says so).

use crate::{
    config::Policy,
    confine,
    disk::Volumes,
    env::BlockRegion,
    faults,
    kmsg::Why,
    sys, verify,
    wire::{Buffer, Channel, KeepList, MEMORY_MAX, Message, WireError},
};
use boards::Board;
use log::warn;
use runtime::{
    fault::{Code, Refusal},
    id::{ObjectId, RevName},
    journal::{self, Phase, Record},
    limits,
    port::{Dir, Disk, Name, Owner, Stage, Subject, Volume},
    progress::Progress,
    protocol::Row,
    state::{Plan, Spans, is_plain_path},
    store::{self, Scratch, Step, metadata::Room},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, CWD, FallocateFlags, MemfdFlags, Mode, OFlags},
    io::{self, Errno},
    thread::CapabilitySet,
};

mod lists;

/// Where the two file systems are, seen from outside and from inside.
const FOLDERS: [&str; 2] = ["/storage", "/boot"];
/// Objects on their way in.
const INCOMING: &str = "/storage/objects/.incoming";
/// Bytes hashed at a time.
const HASH_CHUNK: usize = 64 * 1024;
/// Folders that hold something for each revision besides its trail.
const PER_REVISION: [&str; 2] = ["/storage/logs", "/storage/disks/rev"];

/// Serves requests until PID 1 closes the channel.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    faults::at_disk();
    let board = Policy::load().known_board();
    confine::seclude(&FOLDERS)?;
    let mut keeper = Keeper::open(board)?;
    let files = CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::CHOWN;
    let marked = CapabilitySet::LINUX_IMMUTABLE; // for what a container marked and nobody else could remove
    // for the checkpoint; and both for growth
    let file_system = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_RESOURCE;
    confine::stay_root_with(files | marked | file_system)?;
    confine::restrict(confine::Calls::Keeper)?;
    channel.send(0, &Message::Ready, &[])?;
    let mut buffer = Buffer::new();
    while let Some(request) = channel.receive(&mut buffer)? {
        if let Message::Recall { owner } = request.message {
            let kept = keeper.recall(owner);
            let answer = kept.as_ref().map_or_else(|code| Message::refused(*code), |bytes| Message::Memory { bytes });
            channel.send(request.serial, &answer, &[])?;
            continue;
        }
        // On a device there is no such change.
        let change =
            faults::change_before(&request.message).map_or(Ok(0.into()), |change| keeper.fulfil(&change, None));
        let outcome = change.and_then(|_: Answer| keeper.fulfil(&request.message, request.fds.first()));
        match outcome {
            Ok(Answer { value, file: Some(file) }) => {
                channel.send(request.serial, &Message::done(value), &[file.as_fd()])?;
            }
            Ok(Answer { value, file: None }) => channel.send(request.serial, &Message::done(value), &[])?,
            Err(refusal) => channel.send(request.serial, &Message::refused(refusal), &[])?,
        }
    }
    Ok(())
}

/// Tells who watches what has to hold from here on.
fn promised(request: &Message<'_>) {
    match request {
        Message::Stage { rev, .. } => faults::ack(format_args!("staged {rev}")),
        Message::CommitMessage { rev, text } => faults::ack_content(format_args!("message {rev}"), text.as_bytes()),
        Message::Remember { owner: Owner::Endpoint, bytes } => faults::ack_content(format_args!("memory"), bytes),
        Message::SetMetadata { subject: Subject::Device, .. } => faults::ack_file(c"/storage/device-meta"),
        Message::SetMetadata { subject: Subject::User, .. } => faults::ack_file(c"/storage/user-meta"),
        _ => {}
    }
}

/// What fulfils a request.
struct Answer {
    value: u64,
    file: Option<OwnedFd>,
}

impl From<u64> for Answer {
    fn from(value: u64) -> Self {
        Self { value, file: None }
    }
}

type Outcome = Result<Answer, Refusal>;

/// The open file systems.
pub struct Keeper {
    volumes: Volumes,
    journal: BlockRegion,
    incoming: OwnedFd,
}

impl Keeper {
    fn open(board: Option<&Board>) -> io::Result<Self> {
        let [storage, boot] = FOLDERS;
        let volumes =
            Volumes::open_described(storage, boot, board.and_then(Board::loader_text)).inspect_err(|errno| {
                if *errno == Errno::XDEV {
                    warn!("{boot} is mounted otherwise than the board's description says; nothing is written");
                }
            })?;
        let journal = volumes.journal()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let incoming = fs::openat(CWD, INCOMING, flags, Mode::empty())?;
        Ok(Self { volumes, journal, incoming })
    }

    fn fulfil(&mut self, request: &Message<'_>, file: Option<&OwnedFd>) -> Outcome {
        let outcome = self.answer(request, file);
        if outcome.is_ok() {
            promised(request);
        }
        faults::ack(format_args!("syncs {}", self.volumes.syncs()));
        outcome
    }

    fn answer(&mut self, request: &Message<'_>, file: Option<&OwnedFd>) -> Outcome {
        match request {
            Message::Recover => self.recover(),
            Message::Stage { rev, message } => {
                let staged = self.stage(*rev, message, file.ok_or(Code::Internal)?.as_fd());
                self.or_abandon(staged)
            }
            Message::Prepare { bytes } => self.prepare(&record(bytes)?),
            Message::Record { bytes } => self.record(&record(bytes)?),
            Message::Intend { bytes } => {
                intend(&mut self.volumes, &mut self.journal, &record(bytes)?)?;
                Ok(0.into())
            }
            Message::Clear => self.clear(),
            Message::SetMetadata { subject, key, value } => {
                let mut room = Box::new(Room::new());
                store::metadata::set(&mut self.volumes, *subject, key, *value, &mut room)?;
                Ok(0.into())
            }
            Message::Grow { number } => self.grow(*number, file.ok_or(Code::Internal)?),
            Message::Adopt { object, part } => self.adopt(*object, *part),
            Message::Drop { object, part } => self.forget(*object, *part),
            Message::Collect { keep } => self.collect(keep),
            Message::CommitMessage { rev, text } => {
                store::message(&mut self.volumes, *rev, text)?;
                Ok(0.into())
            }
            Message::CreatePart { object, part, length } => {
                let created = self.create(&part_name(Some(*object), *part), *length);
                self.or_abandon(created)
            }
            Message::CreateStep { part, length } => {
                let created = self.create(&part_name(None, *part), *length);
                self.or_abandon(created)
            }
            Message::OpenObject { object } => self.open_object(*object),
            Message::OpenState { rev } => self.open_state(*rev),
            Message::OpenFile { rev, key } => self.open_file(*rev, key),
            Message::Remember { owner, bytes } => {
                Ok(store::remember(&mut self.volumes, *owner, bytes).map(|()| 0)?.into())
            }
            Message::ListObjects => self.list(lists::objects),
            Message::ListSteps => self.list(lists::steps),
            _ => Err(Code::Internal.into()),
        }
    }

    fn recover(&mut self) -> Outcome {
        recover(&mut self.volumes, &mut self.journal)?;
        Ok(0.into())
    }

    fn stage(&mut self, rev: RevName, message: &str, file: BorrowedFd<'_>) -> Outcome {
        let text = read_bounded(file, limits::STATE_MAX)?.ok_or(Refusal::at(Code::StateTooLarge, limits::STATE_MAX))?;
        if message.len() > limits::COMMIT_MESSAGE_MAX {
            return Err(Code::MessageTooLong.into());
        }
        let progress = Progress::STAGED.to_string();
        let step = Step { rev, state: &text, message, progress: &progress };
        let protected = self.protected()?;
        let mut space = Space::new();
        store::stage(&mut self.volumes, step, &protected, &mut space.scratch())?;
        Ok(0.into())
    }

    /// The revisions that the last update is about and the committed one. PID 1 refuses the others that run before
    /// they are received; between that and now only an update can have begun, and then it has a record.
    fn protected(&mut self) -> Result<heapless::Vec<RevName, 3>, Code> {
        let mut protected = heapless::Vec::new();
        if let Some(record) = journal::load(&mut self.journal)? {
            let failed = matches!(record.phase, Phase::Failed { .. });
            let _ = protected.push(record.previous);
            let _ = if failed { Ok(()) } else { protected.push(record.candidate) };
        }
        let _ = store::read_last(&mut self.volumes)?.map(|last| protected.push(last));
        Ok(protected)
    }

    fn prepare(&mut self, record: &Record) -> Outcome {
        store::prepare(&mut self.volumes, &mut self.journal, record, &mut Space::new().scratch())?;
        Ok(0.into())
    }

    fn record(&mut self, record: &Record) -> Outcome {
        let progress = Progress::of(record).map(|progress| progress.to_string());
        store::record(&mut self.volumes, &mut self.journal, record, progress.as_deref())?;
        if matches!(record.phase, Phase::Done { .. }) {
            // Only for people and scripts: nothing of ours follows it, so a failure is no fault of the update.
            let _ = point_current(record.candidate);
        }
        Ok(0.into())
    }

    /// Everything but the factory revision goes.
    fn clear(&mut self) -> Outcome {
        store::factory::clear(&mut self.volumes, &mut self.journal, &mut Space::new().scratch())?;
        let _ = point_current(RevName::factory()); // as in `record`
        Ok(0.into())
    }

    /// Storage grows to the end of its disk.
    fn grow(&mut self, number: u8, disk: &OwnedFd) -> Outcome {
        let disk = disk.try_clone().map_err(|_| Code::Internal)?;
        let mut ground = Ground { disk: disk.try_clone().map_err(|_| Code::Internal)?, volumes: &self.volumes };
        Ok(runtime::grow::grow(&mut BlockRegion::from(disk), &mut ground, number)?.into())
    }

    /// A received object whose hash was seen to be right gets the name under which `stage` finds it.
    fn adopt(&mut self, object: ObjectId, part: u32) -> Outcome {
        let from = part_name(Some(object), part);
        if self.volumes.exists(Name::Object(Volume::Storage, object))? {
            return self.forget(Some(object), part);
        }
        self.volumes.step(Row::Arrive);
        match fs::renameat(&self.incoming, from.as_str(), &self.incoming, object.to_string()) {
            Ok(()) => Ok(0.into()),
            // asked again after it was done
            Err(Errno::NOENT) if self.volumes.exists(Name::Incoming(Volume::Storage, object))? => Ok(0.into()),
            Err(errno) => Err(code(errno).into()),
        }
    }

    fn forget(&mut self, object: Option<ObjectId>, part: u32) -> Outcome {
        match fs::unlinkat(&self.incoming, part_name(object, part).as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(0.into()),
            Err(errno) => Err(code(errno).into()),
        }
    }

    fn collect(&mut self, keep: &KeepList) -> Outcome {
        let bytes = store::collect(&mut self.volumes, keep, &mut Space::new().scratch())?;
        for folder in PER_REVISION {
            // Best effort: what cannot be removed now is tried at the next collection.
            let _ = lists::sweep(&mut self.volumes, folder);
        }
        Ok(bytes.into())
    }

    /// What is kept for an errand.
    fn recall(&mut self, owner: Owner) -> Result<Vec<u8>, Code> {
        let mut bytes = vec![0; MEMORY_MAX];
        let length = store::recall(&mut self.volumes, owner, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// A new file for `length` bytes that will arrive. Its blocks are taken now, so that a disk that is too full
    /// is known before the first byte, and never eats what our own records need.
    fn create(&mut self, name: &str, length: u64) -> Outcome {
        let free = self.volumes.free(Volume::Storage)?;
        if free.saturating_sub(limits::FREE_FLOOR) < length {
            return Err(Code::NoSpace.into());
        }
        let _ = fs::unlinkat(&self.incoming, name, AtFlags::empty()); // asked again: whatever was there is worth nothing
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.incoming, name, flags, Mode::from_raw_mode(0o644)).map_err(code)?;
        let reserved = match length {
            0 => Ok(()),
            _ => fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length),
        };
        match reserved {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(Answer { value: 0, file: Some(file) }),
            Err(errno) => {
                let _ = fs::unlinkat(&self.incoming, name, AtFlags::empty());
                Err(code(errno).into())
            }
        }
    }

    /// On a full disk, what came in for a revision that cannot be completed now goes, so that a smaller one finds
    /// room. Uploads that still run keep theirs; whoever loses an object is told so when the revision is staged.
    fn or_abandon(&mut self, outcome: Outcome) -> Outcome {
        if matches!(&outcome, Err(refusal) if refusal.code == Code::NoSpace) {
            let mut came_in = Vec::new();
            self.volumes.each_object(Dir::Incoming(Volume::Storage), &mut |id| came_in.push(id))?;
            for id in came_in {
                self.volumes.remove(Name::Incoming(Volume::Storage, id))?;
            }
        }
        outcome
    }

    /// One that a revision names, else one that was received: a client that sent it need not send it again.
    fn open_object(&mut self, object: ObjectId) -> Outcome {
        let named = self.volumes.open_file(Name::Object(Volume::Storage, object));
        let found = match named {
            Err(Code::RevisionUnknown) => self.volumes.open_file(Name::Incoming(Volume::Storage, object)),
            other => other,
        };
        match found {
            Ok(file) => with_length(file),
            Err(Code::RevisionUnknown) => Err(Code::ObjectUnknown.into()),
            Err(code) => Err(code.into()),
        }
    }

    fn open_state(&mut self, rev: RevName) -> Outcome {
        let file = self.volumes.open_file(Name::File(Volume::Storage, Stage::Live, rev, ".pvr/json"))?;
        let text = read_bounded(file.as_fd(), limits::STATE_MAX)?.ok_or(Code::StorageDamaged)?;
        memory(&text)
    }

    fn open_file(&mut self, rev: RevName, key: &str) -> Outcome {
        if !is_plain_path(key) {
            return Err(Refusal::key(Code::KeyUnsafe, key));
        }
        let file = self.volumes.open_file(Name::File(Volume::Storage, Stage::Live, rev, key))?;
        let text = read_bounded(file.as_fd(), limits::HTTP_ANSWER_MAX)?.ok_or(Code::StorageDamaged)?;
        memory(&text)
    }

    fn list(&mut self, write: fn(&mut Volumes, &mut String) -> Result<(), Code>) -> Outcome {
        let mut text = String::new();
        write(&mut self.volumes, &mut text)?;
        memory(text.as_bytes())
    }
}

/// Sweeps, and writes again what a final record promises to show.
pub fn recover(volumes: &mut Volumes, journal: &mut BlockRegion) -> Result<(), Code> {
    store::recover(volumes)?;
    let factory = RevName::factory();
    let progress = Name::File(Volume::Storage, Stage::Live, factory, ".pv/progress");
    let staged = volumes.exists(Name::Trail(Volume::Storage, Stage::Live, factory))?;
    if staged && !volumes.exists(progress)? {
        store::progress(volumes, factory, &Progress::FACTORY.to_string())?;
    }
    if let Ok(Some(record)) = journal::load(journal)
        && let Some(progress) = Progress::of(&record)
    {
        // The revision may have been collected since.
        let _ = store::progress(volumes, record.candidate, &progress.to_string());
    }
    Ok(())
}

/// A factory reset is wanted. The factory revision is not tried as a candidate is, and nothing would come back from a kernel
/// that has rotted: what the loader will read is read once from the medium.
pub fn intend(volumes: &mut Volumes, journal: &mut BlockRegion, intent: &Record) -> Result<(), Refusal> {
    let mut space = Space::new();
    store::factory::intend(volumes, journal, intent, &mut space.scratch())?;
    let mut chunk = vec![0; HASH_CHUNK];
    for (name, id) in store::factory::boot_files(volumes, &mut space.scratch())? {
        let file = volumes.open_file(name)?;
        let _ = fs::fadvise(&file, 0, None, fs::Advice::DontNeed); // else what is in memory is hashed
        if verify::digest(file.as_fd(), &mut chunk).map_err(code)?.0 != id {
            warn!("revision 0 cannot be returned to: {name:?} is not object {id} any more");
            return Err(Code::StorageDamaged.into());
        }
    }
    Ok(())
}

/// What grows with storage's partition.
struct Ground<'a> {
    disk: OwnedFd,
    volumes: &'a Volumes,
}

impl runtime::grow::Ground for Ground<'_> {
    fn tell(&mut self, number: u8, start: u64, length: u64) -> Result<(), Code> {
        sys::resize_partition(self.disk.as_fd(), number, start, length).map_err(|errno| {
            warn!("the kernel does not take the new length of partition {number}: {}", Why(errno));
            Code::StorageIo
        })
    }

    fn fill(&mut self, length: u64) -> Result<(), Code> {
        self.volumes.grow(length).map_err(|errno| {
            warn!("storage does not grow to {length} bytes: {}", Why(errno));
            Code::StorageIo
        })
    }
}

/// The buffers of one request.
pub struct Space {
    state: Vec<u8>,
    marks: Vec<u64>,
    conf: Vec<u8>,
    spans: Box<Spans>,
    plan: Box<Plan>,
}

impl Space {
    /// As large as the procedures need them.
    #[allow(clippy::new_without_default)] // too large to be had by accident
    pub fn new() -> Self {
        Self {
            state: vec![0; limits::STATE_MAX],
            marks: vec![0; limits::KEPT_MAX * limits::STATE_ENTRIES_MAX],
            conf: vec![0; limits::LXC_CONF_MAX],
            spans: Box::new(Spans::new()),
            plan: Box::new(Plan::empty(RevName::factory())),
        }
    }

    /// What the procedures take.
    pub fn scratch(&mut self) -> Scratch<'_> {
        let Self { state, marks, conf, spans, plan } = self;
        Scratch { state, marks, conf, spans, plan }
    }
}

/// The record that PID 1 sent as a slot.
fn record(bytes: &[u8]) -> Result<Record, Code> {
    let slot = bytes.try_into().map_err(|_| Code::Internal)?;
    journal::decode(slot).and_then(|(_, record)| record).ok_or(Code::Internal)
}

/// The file of an upload: of an object, or of a state.
fn part_name(object: Option<ObjectId>, part: u32) -> String {
    match object {
        Some(object) => format!("{object}.{part}.part"),
        None => format!("step.{part}"),
    }
}

/// `trails/current`, as the original has it.
fn point_current(rev: RevName) -> io::Result<()> {
    const CURRENT: &str = "/storage/trails/current";
    const NEXT: &str = "/storage/trails/.current";
    // The folder is one that a loader may read: it is not written without need.
    if fs::readlinkat(CWD, CURRENT, Vec::new()).is_ok_and(|now| now.to_bytes() == rev.as_str().as_bytes()) {
        return Ok(());
    }
    let _ = fs::unlinkat(CWD, NEXT, AtFlags::empty());
    fs::symlinkat(rev.as_str(), CWD, NEXT)?;
    fs::renameat(CWD, NEXT, CWD, CURRENT)
}

/// A file from its start; `None` if it is longer than `most`.
fn read_bounded(file: BorrowedFd<'_>, most: usize) -> Result<Option<Vec<u8>>, Code> {
    let mut text = vec![0; most + 1];
    let mut length = 0;
    while length < text.len() {
        match io::pread(file, &mut text[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(code(errno)),
        }
    }
    text.truncate(length);
    Ok((length <= most).then_some(text))
}

fn with_length(file: OwnedFd) -> Outcome {
    let length = fs::fstat(&file).map_err(code)?.st_size as u64;
    Ok(Answer { value: length, file: Some(file) })
}

/// A file in memory, at its start: whoever reads it waits for no disk.
fn memory(text: &[u8]) -> Outcome {
    let file = fs::memfd_create(c"answer", MemfdFlags::CLOEXEC).map_err(code)?;
    let mut at = 0;
    while at < text.len() {
        at += io::pwrite(&file, &text[at..], at as u64).map_err(code)?;
    }
    Ok(Answer { value: text.len() as u64, file: Some(file) })
}

fn code(errno: Errno) -> Code {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Code::NoSpace,
        _ => Code::StorageIo,
    }
}
