//! One row of the protocol, broken on purpose: doors that do something else than asked while a procedure is at that row.
//! They also write down which rows were announced.
//!
//! Skipped: its effects do not happen, and are reported as done; at a row that only reads, nothing is read. Swapped: its
//! effects happen after those of the row that comes next in its operation. Ignored: its calls fail the way the medium
//! fails (half a write, a sync whose pages are lost), and are reported as done.
//!
//! What it does not do: it knows no law. A row's effects are what is asked for between its announcement and the next.

use crate::{
    device::End,
    medium::{Bench, Fault, Mutant, Raw, Reach},
};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    port::{Dir, Disk, Name, Names, Region, Stage, Volume},
    protocol::{Operation, Row},
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    mem,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

/// How a row is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum How {
    /// It does not happen.
    Skip,
    /// It happens after the next one.
    Swap,
    /// Nobody looks whether it happened.
    Ignore,
}

impl How {
    /// All of them.
    pub const ALL: [How; 3] = [How::Skip, How::Swap, How::Ignore];
}

/// An effect that is held back.
type Late = Box<dyn FnOnce(&Bench)>;

/// What was announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// A row.
    Row(Row),
    /// A procedure has ended.
    Over,
    /// The power went, or the system restarted.
    Power,
}

/// What is known of the voyage so far.
#[derive(Default)]
struct Watch {
    broken: Option<(How, Row)>,
    at: Option<Row>,
    late: Vec<Late>,
    /// The row after that of `late` has begun.
    passed: bool,
    /// What was reported as gone, so that whoever looks for the next one does not find it for ever.
    hidden: Vec<Name<'static>>,
    /// What was last written to the environment, as a cache would show it.
    written: Vec<u8>,
    marks: Vec<Mark>,
    /// Effects of the hardware before the broken row.
    began: Option<u64>,
    touched: u64,
    /// Syncs of raw places until one is a lie, and what that one keeps.
    lie: Option<u32>,
    lie_keeps: Option<Reach>,
}

/// The doors.
#[derive(Clone)]
pub struct Door {
    bench: Bench,
    watch: Rc<RefCell<Watch>>,
}

impl Door {
    /// To this hardware, with this row broken.
    pub fn new(bench: &Bench, mutant: Option<Mutant>) -> Self {
        let broken = mutant.and_then(Mutant::row);
        Self { bench: bench.clone(), watch: Rc::new(RefCell::new(Watch { broken, ..Watch::default() })) }
    }

    /// The environment's bytes.
    pub fn env(&self) -> DoorRegion {
        DoorRegion { raw: self.bench.env(), door: self.clone() }
    }

    /// The journal's bytes.
    pub fn journal(&self) -> DoorRegion {
        DoorRegion { raw: self.bench.journal(), door: self.clone() }
    }

    /// An object arrives: whole in the running system, not durable.
    pub fn arrive(&self, id: ObjectId, content: &[u8]) -> Result<(), Code> {
        let mut disk = self.clone();
        Disk::step(&mut disk, Row::Arrive);
        let done = disk.write(Name::Incoming(Volume::Storage, id), content);
        self.watch.borrow_mut().at = None;
        done
    }

    /// An action of the machine is this row: only written down.
    pub fn mark(&self, row: Row) {
        self.bench.clone().step(row);
        self.write_down(row);
    }

    fn write_down(&self, row: Row) {
        let effects = self.bench.with(|hardware| hardware.effects);
        let mut watch = self.watch.borrow_mut();
        watch.marks.push(Mark::Row(row));
        if watch.broken.is_some_and(|(_, broken)| broken == row) {
            watch.began.get_or_insert(effects);
        }
    }

    /// A procedure has ended. What it held back happens now, unless the row after it is in a later one.
    pub fn over(&self) {
        let mut watch = self.watch.borrow_mut();
        watch.at = None;
        watch.marks.push(Mark::Over);
        watch.hidden.clear();
        let waits = !watch.passed && matches!(watch.broken, Some((_, Row::Arrive)));
        let late = if waits { vec![] } else { mem::take(&mut watch.late) };
        drop(watch);
        late.into_iter().for_each(|late| late(&self.bench));
    }

    /// The power went, or the system restarts: what this power-on came to. What was held back is lost.
    pub(super) fn tell(self, end: &mut End) {
        let mut watch = self.watch.borrow_mut();
        end.marks.append(&mut watch.marks);
        end.marks.push(Mark::Power);
        end.began = end.began.or(watch.began);
        end.touched += watch.touched;
    }

    /// Calls that the broken row changed.
    pub fn touched(&self) -> u64 {
        self.watch.borrow().touched
    }

    /// One more.
    pub(super) fn touch(&self) {
        self.watch.borrow_mut().touched += 1;
    }

    fn announced(&self, row: Row) {
        self.bench.clone().step(row);
        self.write_down(row);
        let mut watch = self.watch.borrow_mut();
        watch.at = Some(row);
        let Some((_, broken)) = watch.broken else { return };
        let mut late = vec![];
        if row == broken || row.operation() == broken.operation() {
            if watch.passed {
                late = mem::take(&mut watch.late);
                watch.passed = false;
            }
            watch.passed |= row != broken && !watch.late.is_empty();
        }
        drop(watch);
        late.into_iter().for_each(|late| late(&self.bench));
    }

    /// The media behind it.
    pub fn bench(&self) -> Bench {
        self.bench.clone()
    }

    /// The power is gone.
    pub fn is_dead(&self) -> bool {
        self.bench.with(|hardware| hardware.dead)
    }

    /// The medium will say of a sync of a raw place, after so many true ones, that it was done, and keep half of it.
    pub fn lie_after(&self, syncs: u32) {
        self.watch.borrow_mut().lie = Some(syncs);
    }

    /// The same, and it keeps nothing.
    #[cfg(test)]
    pub(super) fn forget_after(&self, syncs: u32) {
        self.lie_after(syncs);
        self.watch.borrow_mut().lie_keeps = Some(Reach::Nothing);
    }

    fn lies(&self) -> bool {
        let mut watch = self.watch.borrow_mut();
        let lies = watch.lie == Some(0);
        watch.lie = watch.lie.and_then(|left| left.checked_sub(1));
        lies
    }

    /// How the row is broken that the procedure is at.
    fn how(&self) -> Option<How> {
        let watch = self.watch.borrow();
        let (how, row) = watch.broken?;
        (watch.at == Some(row) && !self.bench.with(|hardware| hardware.dead)).then_some(how)
    }

    /// Does it, or not, or later.
    pub(super) fn act(
        &self,
        gone: Option<Name<'_>>,
        reach: Reach,
        call: impl FnOnce(&Bench) -> Result<(), Code> + 'static,
    ) -> Result<(), Code> {
        let Some(how) = self.how() else { return call(&self.bench) };
        self.touch();
        if let Some(name) = gone {
            self.watch.borrow_mut().hidden.push(lasting(name));
        }
        match how {
            How::Skip => {}
            How::Ignore => failing(&self.bench, reach, |bench| {
                let _ = call(bench);
            }),
            How::Swap => self.watch.borrow_mut().late.push(Box::new(move |bench| {
                let _ = call(bench);
            })),
        }
        Ok(())
    }

    /// Nothing is to be found at this row, or no more of it.
    fn finds_nothing(&self) -> bool {
        let nothing = matches!(self.how(), Some(How::Skip | How::Ignore)) && self.watch.borrow().at == Some(Row::Mark);
        self.watch.borrow_mut().touched += u64::from(nothing);
        nothing
    }

    fn hides(&self, name: Name<'_>) -> bool {
        self.watch.borrow().hidden.contains(&name)
    }
}

/// Makes the next call fail as the medium does. Nobody is to hear of it: it does not count as a fault of the voyage.
fn failing(bench: &Bench, reach: Reach, call: impl FnOnce(&Bench)) {
    let before = bench.with(|hw| {
        let fault = Fault { at: hw.calls, sticky: false, reach, code: Code::StorageIo };
        (hw.fault.replace(fault), hw.faulted)
    });
    call(bench);
    bench.with(|hw| (hw.fault, hw.faulted) = before);
}

/// The same name, for as long as anybody wants.
fn lasting(name: Name<'_>) -> Name<'static> {
    match name {
        Name::File(volume, stage, rev, key) => Name::File(volume, stage, rev, intern(key)),
        Name::Object(volume, id) => Name::Object(volume, id),
        Name::Incoming(volume, id) => Name::Incoming(volume, id),
        Name::AllIncoming(volume) => Name::AllIncoming(volume),
        Name::Trail(volume, stage, rev) => Name::Trail(volume, stage, rev),
        Name::Last => Name::Last,
        Name::LoaderText(stage) => Name::LoaderText(stage),
        Name::Others => Name::Others,
        Name::Memory(owner, stage) => Name::Memory(owner, stage),
        Name::Metadata(subject, stage) => Name::Metadata(subject, stage),
    }
}

/// The keys of a fleet are few.
fn intern(key: &str) -> &'static str {
    static KEYS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    match keys.get(key) {
        Some(key) => key,
        None => {
            let key: &'static str = Box::leak(key.into());
            keys.insert(key);
            key
        }
    }
}

impl Disk for Door {
    fn step(&mut self, row: Row) {
        self.announced(row);
    }

    fn loader_reads(&self) -> Volume {
        self.bench.loader_reads()
    }

    fn exists(&mut self, name: Name<'_>) -> Result<bool, Code> {
        self.bench.exists(name)
    }

    fn read(&mut self, name: Name<'_>, out: &mut [u8]) -> Result<usize, Code> {
        self.bench.read(name, out)
    }

    fn write(&mut self, name: Name<'_>, data: &[u8]) -> Result<(), Code> {
        if self.how().is_none() {
            return self.bench.write(name, data);
        }
        let (name, data) = (lasting(name), data.to_vec());
        self.act(None, Reach::Part, move |bench| bench.clone().write(name, &data))
    }

    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code> {
        let (name, sector) = (lasting(name), *sector);
        self.act(None, Reach::Part, move |bench| bench.clone().overwrite(name, &sector))
    }

    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let (from, to) = (lasting(from), lasting(to));
        self.act(None, Reach::Part, move |bench| bench.clone().copy(from, to))
    }

    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        if self.how().is_none() {
            return self.bench.link(from, to);
        }
        let (from, to) = (lasting(from), lasting(to));
        self.act(None, Reach::Part, move |bench| bench.clone().link(from, to))
    }

    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        if self.how().is_none() {
            return self.bench.rename(from, to);
        }
        let (from, to) = (lasting(from), lasting(to));
        self.act(Some(from), Reach::Part, move |bench| bench.clone().rename(from, to))
    }

    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code> {
        let (one, other) = (lasting(one), lasting(other));
        self.act(None, Reach::Part, move |bench| bench.clone().exchange(one, other))
    }

    fn remove(&mut self, name: Name<'_>) -> Result<(), Code> {
        if self.how().is_none() {
            return self.bench.remove(name);
        }
        let name = lasting(name);
        self.act(Some(name), Reach::Part, move |bench| bench.clone().remove(name))
    }

    fn sync_file(&mut self, name: Name<'_>) -> Result<(), Code> {
        let name = lasting(name);
        self.act(None, Reach::Nothing, move |bench| bench.clone().sync_file(name))
    }

    fn sync_dir(&mut self, dir: Dir) -> Result<(), Code> {
        self.act(None, Reach::Nothing, move |bench| bench.clone().sync_dir(dir))
    }

    fn sync_volume(&mut self, volume: Volume) -> Result<(), Code> {
        self.act(None, Reach::Nothing, move |bench| bench.clone().sync_volume(volume))
    }

    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code> {
        self.act(None, Reach::Nothing, move |bench| bench.clone().checkpoint(volume))
    }

    fn each_object(&mut self, dir: Dir, each: &mut dyn FnMut(ObjectId)) -> Result<(), Code> {
        let name = |id| match dir {
            Dir::Incoming(volume) => Name::Incoming(volume, id),
            Dir::Objects(volume) | Dir::Trails(volume) | Dir::Root(volume) => Name::Object(volume, id),
        };
        let hidden = |id| self.hides(name(id));
        self.bench.clone().each_object(dir, &mut |id| {
            if !hidden(id) {
                each(id);
            }
        })
    }

    fn each_trail(&mut self, volume: Volume, stage: Stage, each: &mut dyn FnMut(RevName)) -> Result<(), Code> {
        if self.finds_nothing() {
            return Ok(());
        }
        let hidden = |rev| self.hides(Name::Trail(volume, stage, rev));
        self.bench.clone().each_trail(volume, stage, &mut |rev| {
            if !hidden(rev) {
                each(rev);
            }
        })
    }

    fn trail_names(&mut self) -> Result<[Option<Names>; 2], Code> {
        self.bench.trail_names()
    }

    fn free(&mut self, volume: Volume) -> Result<u64, Code> {
        self.bench.free(volume)
    }

    fn size(&mut self, name: Name<'_>) -> Result<u64, Code> {
        self.bench.size(name)
    }
}

/// Bytes at fixed places.
#[derive(Clone)]
pub struct DoorRegion {
    raw: Raw,
    door: Door,
}

impl Region for DoorRegion {
    fn step(&mut self, row: Row) {
        self.door.announced(row);
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        let at = self.door.watch.borrow().at;
        match (self.door.how(), at) {
            // nothing is read: the room holds what it held
            (Some(How::Skip | How::Ignore), Some(Row::ReadCopies)) | (Some(How::Ignore), Some(Row::ReadBack)) => {
                self.door.touch();
                Ok(())
            }
            // and nothing is compared: as if what was written had been found
            (Some(How::Skip), Some(Row::ReadBack)) | (Some(How::Skip | How::Ignore), Some(Row::ReadTable)) => {
                self.door.touch();
                out.copy_from_slice(&self.door.watch.borrow().written[..out.len()]);
                Ok(())
            }
            _ => self.raw.read_at(offset, out),
        }
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.door.watch.borrow_mut().written = data.to_vec();
        if self.door.how().is_none() {
            return self.raw.write_at(offset, data);
        }
        let (mut raw, data) = (self.raw.clone(), data.to_vec());
        self.door.act(None, Reach::Part, move |_| raw.write_at(offset, &data))
    }

    fn sync(&mut self) -> Result<(), Code> {
        let mut raw = self.raw.clone();
        if !self.door.lies() {
            return self.door.act(None, Reach::Nothing, move |_| raw.sync());
        }
        let keeps = self.door.watch.borrow().lie_keeps.unwrap_or(Reach::Part);
        self.door.act(None, Reach::Part, move |bench| {
            failing(bench, keeps, |_| {
                let _ = raw.sync();
            });
            Ok(())
        })
    }

    fn drop_cache(&mut self) {
        match self.door.how() {
            None | Some(How::Ignore) => self.raw.drop_cache(), // it has no result
            Some(How::Skip) => self.door.touch(),
            Some(How::Swap) => {
                let mut raw = self.raw.clone();
                let late = move |_: &Bench| {
                    raw.drop_cache();
                    Ok(())
                };
                let _ = self.door.act(None, Reach::Part, late);
            }
        }
    }
}

/// Looks whether rows stand in the order of the table within each operation. A procedure begins anew when it is called
/// again, what the machine does in several turns with its first row; a collection goes through its rows once for each
/// volume. The first row that comes too late, with the one before it.
pub fn disorder(marks: &[Mark]) -> Option<(Row, Row)> {
    let of_machine = |row: Row| row.operation() >= Operation::Arm && row.operation() <= Operation::Restart;
    let begins =
        |row: Row| row == Row::UnnameRevisions || of_machine(row) && row.operation().rows().next() == Some(row.step());
    let mut last: Vec<Row> = vec![];
    for mark in marks {
        match *mark {
            Mark::Power => last.clear(),
            Mark::Over => last.retain(|row| of_machine(*row)),
            Mark::Row(row) => match last.iter_mut().find(|before| before.operation() == row.operation()) {
                None => last.push(row),
                Some(before) if row >= *before || begins(row) => *before = row,
                Some(before) => return Some((*before, row)),
            },
        }
    }
    None
}
