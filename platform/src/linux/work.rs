//! What is asked of the resident errands, and what becomes of the answers.
//!
//! Invariants: each piece of work ends exactly once, in `answered` or in `failed`, and whoever waits for it hears of it;
//! an errand that answers what nobody asked is ended.
//! Fault model: an errand says anything, or nothing any more; the line of one may be full.
//! Not here: lines, tries and deadlines (`errand`), what the answers mean to the machine (`runtime`).

use super::{Linux, now};
use crate::{
    errand::{Desk, Resident},
    wait::Source,
    wire::{Message, Received, WireError},
    wishes::Taken,
};
use log::{info, warn};
use runtime::{
    control::Download,
    fault::{Code, Refusal},
    id::{ConnId, ContainerId, ObjectId, RevName},
    journal,
    machine::{Event, Job, Machine, Slot},
    port::{Millis, Owner},
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// Time for a durable job: a disk under load takes seconds, a damaged one minutes.
const KEEP_PATIENCE_MS: Millis = 120_000;
/// Time to remove all that containers ever wrote.
const CLEAR_PATIENCE_MS: Millis = 900_000;
/// Time for a file system to grow by a whole disk on a slow card.
const GROW_PATIENCE_MS: Millis = 900_000;
/// Time to open a file.
const OPEN_PATIENCE_MS: Millis = 60_000;
/// Time to hash one file: 300 MB of a slow card, twice.
const HASH_PATIENCE_MS: Millis = 60_000;

/// What an errand is asked, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Sweep what earlier boots left.
    Recover,
    /// Let storage grow to the end of its disk.
    Grow,
    /// A job of the machine.
    Keep(Job),
    /// Create the part file of an upload.
    Create(Slot),
    /// Read a candidate's state.
    Load(RevName),
    /// Read the state, to find a container's images.
    List(ContainerId),
    /// Open a container's next image.
    Open(ContainerId, ObjectId),
    /// Open or list what a client wants.
    Download(ConnId, Download),
    /// What is kept for an errand.
    Recall(Owner),
    /// Keep what an errand said.
    Remember(Owner),
    /// Hash the part file of an upload.
    HashPart(Slot),
    /// Hash the image of a container that was opened last.
    HashImage(ContainerId),
}

impl Work {
    fn patience(&self) -> Millis {
        match self {
            Self::Keep(Job::Clear) => CLEAR_PATIENCE_MS,
            Self::Grow => GROW_PATIENCE_MS,
            Self::Recover | Self::Keep(_) | Self::Remember(_) => KEEP_PATIENCE_MS,
            Self::HashPart(_) | Self::HashImage(_) => HASH_PATIENCE_MS,
            _ => OPEN_PATIENCE_MS,
        }
    }
}

/// An answer that came back.
type Answered = Result<(Option<OwnedFd>, u64, Option<ObjectId>), Refusal>;

impl Linux {
    /// A resident errand answers.
    pub(super) fn hear(&mut self, resident: Resident, machine: &mut Machine) {
        let source = Source::Resident(resident);
        let desk = &mut self.desks[resident as usize];
        let Some(process) = &desk.process else { return self.waiter.drained(source) };
        let heard = match process.channel.receive(&mut self.buffers.message) {
            Err(WireError::Io(rustix::io::Errno::AGAIN)) => return self.waiter.drained(source),
            Ok(Some(heard)) => heard,
            Ok(None) => {
                self.waiter.forget(&process.channel, source); // it ends: its process will be reaped
                return;
            }
            Err(_) => {
                self.waiter.forget(&process.channel, source);
                return desk.end("it said something that is no message");
            }
        };
        let Received { serial, message, mut fds } = heard;
        let fd = if fds.is_empty() { None } else { Some(fds.swap_remove(0)) };
        let answered: Answered = match message {
            Message::Ready => {
                if !desk.serves() {
                    return desk.end("it said that it is ready when it could not be");
                }
                if resident == Resident::Log {
                    self.watch_all();
                }
                return self.pump(resident);
            }
            Message::Done { ok: true, value, .. } => Ok((fd, value, None)),
            Message::Done { ok: false, refusal, .. } => Err(refusal),
            Message::Digest { object, length } => Ok((None, length, Some(object))),
            Message::Memory { bytes } if resident == Resident::Keeper => {
                let Some(Work::Recall(owner)) = desk.answered(serial) else {
                    return desk.end("it answered what nobody asked");
                };
                if let Some(serial) = self.wishes[owner as usize].recalled() {
                    tell(&self.desks[Resident::of(owner) as usize], serial, &Message::Memory { bytes });
                }
                return self.pump(resident);
            }
            Message::Recall { owner } if resident == Resident::of(owner) => {
                let taken = self.wishes[owner as usize].recall(serial);
                return self.wished(owner, Work::Recall(owner), serial, taken);
            }
            Message::Remember { owner, bytes } if resident == Resident::of(owner) => {
                let taken = self.wishes[owner as usize].remember(serial, bytes);
                return self.wished(owner, Work::Remember(owner), serial, taken);
            }
            _ => return desk.end("it said something that is no answer"),
        };
        match desk.answered(serial) {
            Some(work) => self.answered(work, answered, machine),
            None => desk.end("it answered what nobody asked"),
        }
        self.pump(resident);
    }

    /// Puts work in line for an errand.
    pub(super) fn ask(&mut self, resident: Resident, work: Work) {
        let refused = !self.is_wanted(resident) || self.desk(resident).ask(work).is_err();
        if refused {
            let code = self.settings.storage.missing().unwrap_or(Code::Busy);
            return self.failed(work, code);
        }
        self.pump(resident);
    }

    /// Sends the next request, if the errand can take one.
    fn pump(&mut self, resident: Resident) {
        while let Some((serial, work)) = self.desks[resident as usize].next() {
            match self.send(resident, serial, work) {
                Ok(()) => self.desks[resident as usize].sent(now(), work.patience()),
                Err(SendFault::Moot) => {
                    self.desk(resident).finish();
                    self.failed(work, Code::Internal);
                }
                Err(SendFault::Channel) => return self.desk(resident).end("it cannot be spoken to"),
            }
        }
    }

    fn send(&self, resident: Resident, serial: u32, work: Work) -> Result<(), SendFault> {
        let process = self.desks[resident as usize].process.as_ref().ok_or(SendFault::Channel)?;
        let mut slot = [0u8; journal::SLOT];
        let (message, fd) = self.order(work, &mut slot).ok_or(SendFault::Moot)?;
        let fds = fd.as_slice();
        process.channel.send(serial, &message, fds).map_err(|_| SendFault::Channel)
    }

    /// What the errand is told for a piece of work. `None`: what it was for is gone.
    fn order<'a>(
        &'a self,
        work: Work,
        slot: &'a mut [u8; journal::SLOT],
    ) -> Option<(Message<'a>, Option<BorrowedFd<'a>>)> {
        Some(match work {
            Work::Recover => (Message::Recover, None),
            Work::Grow => {
                let number = self.settings.board?.disk.storage.number;
                (Message::Grow { number }, Some(self.growing.as_ref()?.as_fd()))
            }
            Work::Keep(Job::Prepare(ref what)) => (Message::Prepare { bytes: encoded(what, slot) }, None),
            Work::Keep(Job::Record(ref what)) => (Message::Record { bytes: encoded(what, slot) }, None),
            Work::Keep(Job::Intend(ref what)) => (Message::Intend { bytes: encoded(what, slot) }, None),
            Work::Keep(Job::Clear) => (Message::Clear, None),
            Work::Keep(Job::Collect) => (Message::Collect { keep: self.spared.clone() }, None),
            Work::Keep(Job::Adopt(id, object)) => (Message::Adopt { object, part: self.transfers.part(id).0 }, None),
            Work::Keep(Job::Stage(id, rev)) => (Message::Stage { rev, message: "" }, Some(self.transfers.file(id)?)),
            Work::Keep(Job::Drop(id)) => {
                let (part, object) = self.transfers.part(id);
                (Message::Drop { object, part }, None)
            }
            Work::Keep(Job::Message(rev, conn)) => {
                let text = core::str::from_utf8(self.body(conn)).ok()?;
                (Message::CommitMessage { rev, text }, None)
            }
            Work::Create(id) => (self.transfers.create(id)?, None),
            Work::Load(rev) | Work::Download(_, Download::State(rev)) => (Message::OpenState { rev }, None),
            Work::List(id) => (Message::OpenState { rev: self.containers.rev(id) }, None),
            Work::Open(_, object) | Work::Download(_, Download::Object(object)) => {
                (Message::OpenObject { object }, None)
            }
            Work::Download(_, Download::Progress(rev)) => (Message::OpenFile { rev, key: ".pv/progress" }, None),
            Work::Download(_, Download::Objects) => (Message::ListObjects, None),
            Work::Download(_, Download::Steps) => (Message::ListSteps, None),
            Work::Recall(owner) => (Message::Recall { owner }, None),
            Work::Remember(owner) => (Message::Remember { owner, bytes: self.wishes[owner as usize].bytes() }, None),
            Work::HashPart(id) => (Message::Hash, Some(self.transfers.file(id)?)),
            Work::HashImage(id) => (Message::Hash, Some(self.containers.unhashed(id)?)),
        })
    }

    /// Work that no errand could do.
    pub(super) fn failed(&mut self, work: Work, code: Code) {
        match work {
            Work::Recover => warn!("what earlier boots left was not swept: {code}"),
            Work::Grow => {
                self.growing = None;
                warn!("storage does not grow to the end of its disk: {code} {}", code.text());
            }
            Work::Keep(job) => self.push(Event::Kept(job, Err(code.into()))),
            Work::Create(slot) => self.push(Event::Received(slot, Err(code))),
            Work::Load(rev) => self.push(Event::Loaded(rev, Err(code.into()))),
            Work::List(id) | Work::Open(id, _) | Work::HashImage(id) => {
                self.containers.release(id);
                self.push(Event::Verified(id, Err(code)));
            }
            Work::Download(conn, _) => self.refuse(conn, code.into()),
            Work::HashPart(slot) => self.push(Event::Hashed(slot, Err(code))),
            Work::Recall(owner) | Work::Remember(owner) => self.granted(owner, work, &Message::refused(code)),
        }
    }

    /// Work that an errand did, or refused.
    fn answered(&mut self, work: Work, answered: Answered, machine: &mut Machine) {
        let (fd, value, digest) = match answered {
            Ok(answer) => answer,
            Err(refusal) => match work {
                Work::Keep(job) => return self.kept(job, Err(refusal)),
                Work::Load(rev) => return self.push(Event::Loaded(rev, Err(refusal))),
                Work::Download(conn, _) => return self.refuse(conn, refusal),
                work => return self.failed(work, refusal.code),
            },
        };
        match (work, fd, digest) {
            (Work::Recover, ..) => {}
            (Work::Remember(owner), ..) => self.granted(owner, work, &Message::done(0)),
            (Work::Grow, ..) => {
                self.growing = None;
                if value > 0 {
                    info!("storage: grown by {} MiB to the end of its disk", value >> 20);
                }
            }
            (Work::Keep(job), ..) => self.kept(job, Ok(())),
            (Work::Create(slot), Some(file), _) => self.receive(slot, file),
            (Work::Load(rev), Some(file), _) => {
                let loaded = self.load(rev, &file, value, machine);
                self.push(Event::Loaded(rev, loaded));
            }
            (Work::List(id), Some(file), _) => match self.list(id, &file, value) {
                Ok(()) => self.check_next(id),
                Err(refusal) => {
                    warn!("container {id:?}: {refusal}");
                    self.failed(work, refusal.code);
                }
            },
            (Work::Open(id, _), Some(file), _) => {
                self.containers.opened(id, file);
                self.ask(Resident::Verify, Work::HashImage(id));
            }
            (Work::HashImage(id), _, Some(hash)) => match self.containers.hashed(id, hash) {
                Ok(()) => self.check_next(id),
                Err(code) => self.failed(work, code),
            },
            (Work::HashPart(slot), _, Some(hash)) => self.push(Event::Hashed(slot, Ok(hash))),
            (Work::Download(conn, what), Some(file), _) => self.download(conn, what, file, value),
            (work, ..) => self.failed(work, Code::Internal), // an answer without what was asked for
        }
    }

    /// An errand wants something of the keeper.
    fn wished(&mut self, owner: Owner, work: Work, serial: u32, taken: Taken) {
        let resident = Resident::of(owner);
        match taken {
            Taken::Ask => self.ask(Resident::Keeper, work),
            Taken::Waits => {}
            Taken::Refused(code) => tell(self.desk(resident), serial, &Message::refused(code)),
            Taken::Wrong => self.desk(resident).end("it asks for more than one thing at a time"),
        }
    }

    /// Tells an errand how that ended, if it is still the one that asked.
    fn granted(&mut self, owner: Owner, work: Work, outcome: &Message<'_>) {
        let wishes = &mut self.wishes[owner as usize];
        let serial = match work {
            Work::Remember(_) => wishes.remembered(),
            _ => wishes.recalled(),
        };
        if let Some(serial) = serial {
            tell(&self.desks[Resident::of(owner) as usize], serial, outcome);
        }
    }

    fn kept(&mut self, job: Job, result: Result<(), Refusal>) {
        match job {
            Job::Adopt(slot, _) if result.is_ok() => self.transfers.release(slot),
            Job::Drop(slot) => self.transfers.release(slot),
            _ => {}
        }
        self.push(Event::Kept(job, result));
    }
}

/// Says something to an errand that nothing is answered to; one that cannot be told is at its end anyway.
fn tell(desk: &Desk<Work>, serial: u32, message: &Message<'_>) {
    if let Some(process) = &desk.process {
        let _ = process.channel.send(serial, message, &[]);
    }
}

/// A journal record as a message carries it; the keeper gives it its sequence.
fn encoded<'a>(record: &journal::Record, slot: &'a mut [u8; journal::SLOT]) -> &'a [u8] {
    *slot = journal::encode(0, record);
    slot
}

/// Why work was not sent.
enum SendFault {
    /// What it was for is gone.
    Moot,
    /// The errand is, or its channel.
    Channel,
}
