//! Transfers: one `fetch` errand each, between a connection and a file that the keeper opened.
//!
//! Invariants: an upload's outcome is told when its errand was reaped, not before: until then somebody else could
//! still write to what is going to be hashed. A download ends with its errand, whatever it said.
//! Fault model: an errand that reports no progress for too long is ended; one that dies fails its transfer.
//! Not here: which uploads are accepted and what becomes of them (`runtime::intake`), the bytes (`fetch`).

use crate::{
    errand::{Process, Starter},
    wait::{Source, Waiter},
    wire::{Buffer, Message, Received, WireError},
};
use runtime::{
    control::Upload,
    fault::Code,
    id::{ConnId, ObjectId},
    limits::{TRANSFER_PATIENCE_MS, TRANSFERS_MAX},
    machine::Slot,
    port::Millis,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    process::{Pid, Signal},
};

/// Slots: the first half is for uploads and is given out by the machine, the second for downloads.
pub const SLOTS: usize = 2 * TRANSFERS_MAX;
/// A silent errand is ended after the client's own patience and this.
const SLACK_MS: Millis = 10_000;

/// One transfer.
#[derive(Default)]
struct Transfer {
    conn: Option<ConnId>,
    upload: Option<Upload>,
    length: u64,
    part: u32,
    file: Option<OwnedFd>,
    process: Option<Process>,
    outcome: Option<Result<(), Code>>,
    until: Millis,
}

/// All transfers.
pub struct Transfers {
    slots: [Transfer; SLOTS],
    /// The last number of a part file.
    part: u32,
}

impl Default for Transfers {
    fn default() -> Self {
        Self::new()
    }
}

impl Transfers {
    /// None.
    pub fn new() -> Self {
        Self { slots: Default::default(), part: 0 }
    }

    fn slot(&mut self, slot: Slot) -> &mut Transfer {
        &mut self.slots[usize::from(slot.0)]
    }

    /// Begins an upload: its part file is to be created.
    pub fn begin(&mut self, slot: Slot, conn: ConnId, upload: Upload, length: u64) {
        self.part += 1;
        let part = self.part;
        *self.slot(slot) = Transfer { conn: Some(conn), upload: Some(upload), length, part, ..Default::default() };
    }

    /// What the keeper is asked for, to create the part file.
    pub fn create(&self, slot: Slot) -> Option<Message<'static>> {
        let Transfer { part, length, upload, .. } = self.slots[usize::from(slot.0)];
        Some(match upload? {
            Upload::Object(object) => Message::CreatePart { object, part, length },
            Upload::Step(_) => Message::CreateStep { part, length },
        })
    }

    /// The connection and the length of an upload.
    pub fn source(&self, slot: Slot) -> Option<(ConnId, u64)> {
        let transfer = &self.slots[usize::from(slot.0)];
        transfer.conn.map(|conn| (conn, transfer.length))
    }

    /// The part file's number, and the object that it is to become.
    pub fn part(&self, slot: Slot) -> (u32, Option<ObjectId>) {
        let transfer = &self.slots[usize::from(slot.0)];
        let object = if let Some(Upload::Object(object)) = transfer.upload { Some(object) } else { None };
        (transfer.part, object)
    }

    /// The part file.
    pub fn file(&self, slot: Slot) -> Option<BorrowedFd<'_>> {
        self.slots[usize::from(slot.0)].file.as_ref().map(AsFd::as_fd)
    }

    /// Forgets a transfer whose part file has found its end.
    pub fn release(&mut self, slot: Slot) {
        *self.slot(slot) = Transfer::default();
    }

    /// A free slot for a download.
    pub fn free_download(&self) -> Option<Slot> {
        let free = |slot: &&Transfer| slot.conn.is_none();
        (TRANSFERS_MAX as u8..).zip(&self.slots[TRANSFERS_MAX..]).find(|(_, slot)| free(slot)).map(|(id, _)| Slot(id))
    }

    /// Starts the errand of a transfer. `order` is what it is told, with `socket` and `file`.
    #[expect(clippy::too_many_arguments, reason = "what a transfer consists of, and the three hands that make it")]
    pub fn start(
        &mut self,
        slot: Slot,
        conn: ConnId,
        order: &Message<'_>,
        socket: BorrowedFd<'_>,
        file: OwnedFd,
        starter: &Starter,
        waiter: &mut Waiter,
        now: Millis,
    ) -> Result<(), Code> {
        let failed = |_| Code::ErrandDied;
        let process = starter.start(c"fetch", 0, None, None).map_err(failed)?;
        let told = process.channel.send(0, order, &[socket, file.as_fd()]);
        let watched = waiter.watch(&process.channel, Source::Fetch(slot));
        if told.is_err() || watched.is_err() {
            process.signal(Signal::KILL); // its end is told when it is reaped
        }
        let transfer = self.slot(slot);
        transfer.conn = Some(conn);
        transfer.file = Some(file);
        transfer.process = Some(process);
        transfer.outcome = None;
        transfer.until = now + TRANSFER_PATIENCE_MS + SLACK_MS;
        Ok(())
    }

    /// The errand of a transfer said something.
    pub fn hear(&mut self, slot: Slot, buffer: &mut Buffer, waiter: &mut Waiter, now: Millis) {
        let source = Source::Fetch(slot);
        let transfer = self.slot(slot);
        let Some(process) = &transfer.process else { return waiter.drained(source) };
        match process.channel.receive(buffer) {
            Ok(Some(Received { message: Message::Alive { .. }, .. })) => {
                transfer.until = now + TRANSFER_PATIENCE_MS + SLACK_MS;
            }
            Ok(Some(Received { message: Message::Done { ok, refusal, .. }, .. })) => {
                transfer.outcome = Some(if ok { Ok(()) } else { Err(refusal.code) });
            }
            Err(WireError::Io(Errno::AGAIN)) => waiter.drained(source),
            Ok(Some(_)) | Err(_) => {
                waiter.forget(&process.channel, source);
                process.signal(Signal::KILL);
            }
            Ok(None) => waiter.forget(&process.channel, source), // its end will be seen
        }
    }

    /// Whose errand this was.
    pub fn owner(&self, pid: Pid) -> Option<Slot> {
        let owns = |transfer: &Transfer| transfer.process.as_ref().is_some_and(|process| process.pid == pid);
        self.slots.iter().position(owns).map(|index| Slot(index as u8))
    }

    /// Its errand was reaped. The outcome, and the connection if it was a download, which is over with that.
    pub fn reaped(
        &mut self,
        slot: Slot,
        buffer: &mut Buffer,
        waiter: &mut Waiter,
        now: Millis,
    ) -> (Result<(), Code>, Option<ConnId>) {
        // What it said before it ended may still lie in the channel.
        for _ in 0..4 {
            self.hear(slot, buffer, waiter, now);
        }
        let transfer = self.slot(slot);
        if let Some(process) = transfer.process.take() {
            waiter.forget(&process.channel, Source::Fetch(slot));
        }
        let outcome = transfer.outcome.unwrap_or(Err(Code::ErrandDied));
        if transfer.upload.is_some() {
            return (outcome, None);
        }
        let conn = transfer.conn;
        self.release(slot);
        (outcome, conn)
    }

    /// The errands that run.
    pub fn pids(&self) -> impl Iterator<Item = Pid> + '_ {
        self.slots.iter().filter_map(|transfer| transfer.process.as_ref()).map(|process| process.pid)
    }

    /// The next deadline.
    pub fn poll_at(&self) -> Option<Millis> {
        self.slots.iter().filter(|transfer| transfer.process.is_some()).map(|transfer| transfer.until).min()
    }

    /// Ends errands that are late.
    pub fn check(&mut self, now: Millis) {
        for transfer in &mut self.slots {
            if let Some(process) = &transfer.process
                && now >= transfer.until
            {
                process.signal(Signal::KILL);
                transfer.outcome = Some(Err(Code::ErrandTimeout));
                transfer.until = Millis::MAX;
            }
        }
    }
}
