//! The media: two file systems, the environment and the journal, each with what the system sees and what is durable.
//!
//! Fault model, the one that `runtime::port` states. Each effect (a content, a name, a sector) is pending until the
//! sync that covers it. At a cut each pending effect is lost or kept, a content also torn, independently of all
//! others: no order that the file system does not promise is taken for granted. After a failed sync the contents
//! that it covered stay readable and never become durable, whatever a later sync says (of raw places, some sectors have
//! reached the medium); names stay pending.
//! The loader sees the names of the last checkpoint (or mount), and the content of a file only while that file has
//! a durable name: what was deleted may have been overwritten.
//!
//! What it does not model: damage to what was not written, flushes that lie, the file system's own metadata.

use crate::sim::r#gen::Gen;
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal,
    port::{Dir, Disk, Name, Region, Stage, Volume},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Unit that is written or not written.
pub const SECTOR: usize = 512;

/// A rule of the protocol that is broken on purpose, to see that somebody notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// No sync makes contents durable.
    NoFileSync,
    /// No sync makes names durable.
    NoDirectorySync,
    /// The environment is written and not synced.
    NoEnvironmentSync,
    /// The loader's view is left behind.
    NoCheckpoint,
    /// A transition is two stores: first the committed revision, then the candidate.
    TwoStores,
    /// DONE is said before the commit is stored.
    DoneBeforeCommit,
    /// The collector does not ask what the other copy of the environment names.
    CollectTheOtherCopy,
    /// The result of a sync is not looked at.
    UncheckedSync,
    /// Names are given before the contents are synced.
    RenameBeforeSync,
    /// The copy of the environment that is in use is overwritten.
    ActiveCopyOverwritten,
    /// Nobody but the loader counts tries (over a loader that cannot).
    OnlyTheLoaderCounts,
    /// A candidate is committed when it should only be armed.
    CommitAtArm,
    /// One sync of the procedures is left out, all others are done.
    Without(Sync),
}

/// Each sync of the durable procedures but the checkpoint, which is a mutant of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// `stage` 1: contents on storage.
    Contents,
    /// `stage` 2: names of objects.
    ObjectNames,
    /// `stage` 3: names of revisions.
    RevisionNames,
    /// `prepare` 1: contents on the boot volume.
    BootContents,
    /// `record`: the journal and `last`.
    Record,
}

/// A call that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which call, counted over all doors.
    pub at: u64,
    /// All later ones as well, until the next power-on.
    pub sticky: bool,
    /// With what.
    pub code: Code,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Folder {
    Root,
    Objects,
    Incoming,
    Trails,
    Of(u32),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    Last,
    Endpoint(Stage),
    Object(ObjectId),
    Trail(Stage, RevName),
    Key(Rc<str>),
}

type Entry = (Folder, Label);
type Names = BTreeMap<Entry, u32>;

#[derive(Clone, Debug)]
struct Inode {
    live: Rc<[u8]>,
    durable: Rc<[u8]>,
}

#[derive(Clone, Debug)]
enum Effect {
    /// New content. `whole`: one sector, never torn.
    Data {
        inode: u32,
        content: Rc<[u8]>,
        whole: bool,
    },
    Set {
        entry: Entry,
        inode: u32,
    },
    Clear {
        entry: Entry,
    },
    Move {
        from: Entry,
        to: Entry,
        inode: u32,
    },
    /// Two folders, each with the inode that it has then.
    Exchange([(Entry, u32); 2]),
}

/// One file system.
#[derive(Clone, Debug, Default)]
pub struct Files {
    inodes: Vec<Inode>,
    live: Names,
    durable: Names,
    loader: Names,
    pending: Vec<Effect>,
    capacity: u64,
}

/// A raw place.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sector and content, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

/// Everything that survives a power cut, and the plug.
#[derive(Clone, Debug)]
pub struct Hardware {
    storage: Files,
    boot: Files,
    /// The loader's environment.
    pub env: Cells,
    journal: Cells,
    /// Effects before which the power goes; counted down.
    pub fuse: Option<u64>,
    /// The power is gone: nothing has any effect.
    pub dead: bool,
    /// A call that fails.
    pub fault: Option<Fault>,
    /// The fault came to pass.
    pub faulted: bool,
    /// The broken rule.
    pub mutant: Option<Mutant>,
    /// Calls so far.
    pub calls: u64,
    /// Effects so far.
    pub effects: u64,
    /// Syncs so far of any kind.
    pub syncs: u64,
    /// A postponed sync (`RenameBeforeSync`).
    postponed: Option<Volume>,
    /// What was done, if somebody wants to read it.
    pub trace: Option<Rc<RefCell<Vec<String>>>>,
}

impl Cells {
    fn new(size: usize) -> Self {
        Self { live: vec![0; size], durable: vec![0; size], pending: vec![] }
    }

    /// What a power cut now would leave at the least: the durable bytes.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        self.live[offset..offset + data.len()].copy_from_slice(data);
        for sector in offset / SECTOR..(offset + data.len()).div_ceil(SECTOR) {
            self.pending.push((sector, self.live[sector * SECTOR..(sector + 1) * SECTOR].to_vec()));
        }
    }

    fn keep(&mut self, (sector, data): (usize, Vec<u8>)) {
        self.durable[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(&data);
    }

    fn sync(&mut self) {
        for effect in std::mem::take(&mut self.pending) {
            self.keep(effect);
        }
    }

    /// A sync that failed: some sectors reached the medium, the others never will, and what is read is as if all had.
    fn fail(&mut self, first: usize) {
        for (at, effect) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if (first + at).is_multiple_of(2) {
                self.keep(effect);
            }
        }
    }

    /// Forgets what is clean; what is still to be written stays.
    fn drop_cache(&mut self) {
        self.live.copy_from_slice(&self.durable);
        for (sector, data) in &self.pending {
            self.live[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(data);
        }
    }

    fn cut(&mut self, fate: &mut Fate<'_>) {
        for effect in std::mem::take(&mut self.pending) {
            if fate.of(2) == 1 {
                self.keep(effect);
            }
        }
        self.live = self.durable.clone();
    }
}

impl Files {
    fn new(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    fn folder_of(&self, stage: Stage, rev: RevName) -> Option<Folder> {
        self.live.get(&(Folder::Trails, Label::Trail(stage, rev))).map(|inode| Folder::Of(*inode))
    }

    /// Where a name is. `None`: the folder that it is in does not exist.
    fn entry(&self, name: Name<'_>) -> Option<Entry> {
        Some(match name {
            Name::Object(_, id) => (Folder::Objects, Label::Object(id)),
            Name::Incoming(_, id) => (Folder::Incoming, Label::Object(id)),
            Name::AllIncoming(_) => unreachable!("a folder of the layout"),
            Name::Trail(_, stage, rev) => (Folder::Trails, Label::Trail(stage, rev)),
            Name::File(_, stage, rev, key) => (self.folder_of(stage, rev)?, Label::Key(key.into())),
            Name::Last => (Folder::Root, Label::Last),
            Name::Endpoint(stage) => (Folder::Root, Label::Endpoint(stage)),
        })
    }

    fn find(&self, name: Name<'_>) -> Option<u32> {
        self.live.get(&self.entry(name)?).copied()
    }

    fn new_inode(&mut self) -> u32 {
        self.inodes.push(Inode { live: [].into(), durable: [].into() });
        self.inodes.len() as u32 - 1
    }

    /// The entry, with its folder made if need be.
    fn make_entry(&mut self, name: Name<'_>) -> Entry {
        if let Name::File(volume, stage, rev, _) = name
            && self.folder_of(stage, rev).is_none()
        {
            let entry = self.entry(Name::Trail(volume, stage, rev)).expect("below trails");
            let inode = self.new_inode();
            self.set(entry, inode);
        }
        self.entry(name).expect("its folder was made")
    }

    fn set(&mut self, entry: Entry, inode: u32) {
        self.live.insert(entry.clone(), inode);
        self.pending.push(Effect::Set { entry, inode });
    }

    fn clear(&mut self, entry: Entry) {
        if let Some(inode) = self.live.remove(&entry) {
            for below in self.below(Folder::Of(inode)) {
                self.clear(below);
            }
            self.pending.push(Effect::Clear { entry });
        }
    }

    fn below(&self, folder: Folder) -> Vec<Entry> {
        self.live.keys().filter(|(of, _)| *of == folder).cloned().collect()
    }

    fn put(&mut self, name: Name<'_>, content: Rc<[u8]>, whole: bool) {
        let entry = self.make_entry(name);
        let inode = match self.live.get(&entry) {
            Some(inode) => *inode,
            None => {
                let inode = self.new_inode();
                self.set(entry, inode);
                inode
            }
        };
        self.inodes[inode as usize].live = content.clone();
        self.pending.push(Effect::Data { inode, content, whole });
    }

    fn keep(&mut self, effect: Effect) {
        match effect {
            Effect::Data { inode, content, .. } => self.inodes[inode as usize].durable = content,
            Effect::Set { entry, inode } => {
                self.durable.insert(entry, inode);
            }
            Effect::Clear { entry } => {
                self.durable.remove(&entry);
            }
            Effect::Move { from, to, inode } => {
                self.durable.remove(&from);
                self.durable.insert(to, inode);
            }
            Effect::Exchange(both) => self.durable.extend(both),
        }
    }

    /// Keeps what is covered, in order.
    fn flush(&mut self, covered: impl Fn(&Effect) -> bool) {
        for effect in std::mem::take(&mut self.pending) {
            if covered(&effect) { self.keep(effect) } else { self.pending.push(effect) }
        }
    }

    fn cut(&mut self, fate: &mut Fate<'_>) {
        for effect in std::mem::take(&mut self.pending) {
            let torn = matches!(effect, Effect::Data { whole: false, .. });
            match (fate.of(if torn { 3 } else { 2 }), effect) {
                (0, _) => {}
                (2, Effect::Data { inode, content, .. }) => {
                    let half = content.len() / 2;
                    self.inodes[inode as usize].durable = content[..half].into();
                }
                (_, effect) => self.keep(effect),
            }
        }
        self.live = self.durable.clone();
        for inode in &mut self.inodes {
            inode.live = inode.durable.clone();
        }
    }

    fn used(&self) -> u64 {
        let inodes: BTreeSet<u32> = self.live.values().copied().collect();
        inodes.iter().map(|inode| self.inodes[*inode as usize].live.len() as u64 + 64).sum()
    }
}

/// What becomes of pending effects at a cut: one of a few plain patterns, or each by its own choice.
struct Fate<'g> {
    r#gen: &'g mut Gen,
    pattern: Pattern,
    index: usize,
}

#[derive(Clone, Copy)]
enum Pattern {
    Each,
    AllLost,
    AllKept,
    OnlyLost(usize),
    OnlyKept(usize),
    Torn,
    Drawn(u64),
}

impl Fate<'_> {
    /// 0: lost, 1: kept, 2: torn.
    fn of(&mut self, choices: usize) -> usize {
        let index = self.index;
        self.index += 1;
        match self.pattern {
            Pattern::Each => self.r#gen.below(choices),
            Pattern::AllLost => 0,
            Pattern::AllKept => 1,
            Pattern::OnlyLost(lost) => usize::from(index != lost),
            Pattern::OnlyKept(kept) => usize::from(index == kept),
            Pattern::Torn => choices - 1,
            Pattern::Drawn(seed) => Gen::random(seed ^ (index as u64) << 32).below(choices),
        }
    }
}

/// Up to this many combinations, all are tried.
const COMBINATIONS_MAX: usize = 64;
/// Above, so many are drawn besides the plain patterns.
const DRAWN: usize = 8;

impl Hardware {
    /// Empty media.
    pub fn new(env_size: usize) -> Self {
        Self {
            storage: Files::new(64 << 20),
            boot: Files::new(16 << 20),
            env: Cells::new(env_size),
            journal: Cells::new(journal::SIZE),
            fuse: None,
            dead: false,
            fault: None,
            faulted: false,
            mutant: None,
            calls: 0,
            effects: 0,
            syncs: 0,
            postponed: None,
            trace: None,
        }
    }

    fn files(&mut self, volume: Volume) -> &mut Files {
        match volume {
            Volume::Storage => &mut self.storage,
            Volume::Boot => &mut self.boot,
        }
    }

    /// Bytes that a volume holds.
    pub fn set_capacity(&mut self, volume: Volume, bytes: u64) {
        self.files(volume).capacity = bytes;
    }

    /// The power goes: everything that was not durable is up to chance.
    pub fn cut(&mut self, choices: &mut Gen) {
        let files = self.storage.pending.iter().chain(&self.boot.pending);
        let torn: Vec<bool> = files.map(|effect| matches!(effect, Effect::Data { whole: false, .. })).collect();
        let pending = torn.len() + self.env.pending.len() + self.journal.pending.len();
        let combinations = torn.iter().try_fold(1usize, |all, torn| all.checked_mul(if *torn { 3 } else { 2 }));
        let combinations =
            combinations.and_then(|all| all.checked_shl((pending - torn.len()) as u32)).filter(|all| *all > 0);
        let pattern = match combinations {
            Some(1) => Pattern::AllLost,
            Some(few) if few <= COMBINATIONS_MAX => Pattern::Each,
            _ => match choices.below(3 + 2 * pending + DRAWN) {
                0 => Pattern::AllLost,
                1 => Pattern::AllKept,
                2 => Pattern::Torn,
                n if n < 3 + pending => Pattern::OnlyLost(n - 3),
                n if n < 3 + 2 * pending => Pattern::OnlyKept(n - 3 - pending),
                n => Pattern::Drawn((n as u64) << 8 | self.effects),
            },
        };
        self.lose(choices, pattern);
    }

    /// The system restarts: it unmounted, or it did not come to that.
    pub fn restart(&mut self, choices: &mut Gen) {
        let pending = self.storage.pending.len() + self.boot.pending.len();
        let pending = pending + self.env.pending.len() + self.journal.pending.len();
        let patterns = [Pattern::AllLost, Pattern::AllKept];
        let pattern = choices.pick(&patterns[usize::from(pending == 0)..]);
        self.lose(choices, pattern);
    }

    fn lose(&mut self, choices: &mut Gen, pattern: Pattern) {
        let mut fate = Fate { r#gen: choices, pattern, index: 0 };
        self.storage.cut(&mut fate);
        self.boot.cut(&mut fate);
        self.journal.cut(&mut fate);
        self.env.cut(&mut fate);
        self.dead = false;
        self.fault = None;
        self.postponed = None;
        self.note(|| "---- power".into());
    }

    /// Linux mounts both volumes: their journals are replayed, which is a checkpoint.
    pub fn mount(&mut self) {
        for files in [&mut self.storage, &mut self.boot] {
            files.loader = files.durable.clone();
        }
    }

    /// Everything written so far is durable and seen: how a device leaves the factory.
    pub fn settle(&mut self) {
        for files in [&mut self.storage, &mut self.boot] {
            files.flush(|_| true);
        }
        self.env.sync();
        self.journal.sync();
        self.mount();
    }

    /// A file of a revision as a power cut now would leave it at the least.
    pub fn durable_file(&self, volume: Volume, rev: RevName, key: &str) -> Option<&[u8]> {
        let files = if volume == Volume::Boot { &self.boot } else { &self.storage };
        let folder = files.durable.get(&(Folder::Trails, Label::Trail(Stage::Live, rev)))?;
        let inode = files.durable.get(&(Folder::Of(*folder), Label::Key(key.into())))?;
        Some(&files.inodes[*inode as usize].durable)
    }

    /// A durable object.
    pub fn durable_object(&self, volume: Volume, id: ObjectId) -> Option<&[u8]> {
        let files = if volume == Volume::Boot { &self.boot } else { &self.storage };
        let inode = files.durable.get(&(Folder::Objects, Label::Object(id)))?;
        Some(&files.inodes[*inode as usize].durable)
    }

    /// A boot file of a revision as the loader reads it.
    pub fn loader_file(&self, rev: RevName, name: &str) -> Option<&[u8]> {
        let folder = self.boot.loader.get(&(Folder::Trails, Label::Trail(Stage::Live, rev)))?;
        self.loader_content(&(Folder::Of(*folder), Label::Key(name.into())))
    }

    /// `last` as the loader reads it.
    pub fn loader_last(&self) -> Option<&[u8]> {
        self.loader_content(&(Folder::Root, Label::Last))
    }

    fn loader_content(&self, entry: &Entry) -> Option<&[u8]> {
        let inode = self.boot.loader.get(entry)?;
        let still_there = self.boot.durable.values().any(|other| other == inode);
        still_there.then(|| &*self.boot.inodes[*inode as usize].durable)
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(format!("{:5} {:4} {}", self.calls, self.effects, text()));
        }
    }

    /// Every call goes through here: it may fail.
    fn call(&mut self) -> Result<(), Code> {
        if self.dead {
            return Err(Code::StorageIo);
        }
        let call = self.calls;
        self.calls += 1;
        match self.fault {
            Some(Fault { at, sticky, code }) if call == at || sticky && call > at => {
                self.faulted = true;
                self.note(|| format!("!! fails with {code}"));
                Err(code)
            }
            _ => Ok(()),
        }
    }

    /// The power may go before this effect.
    fn effect(&mut self, what: impl FnOnce() -> String) -> Result<(), Code> {
        if self.fuse == Some(0) {
            self.fuse = None;
            self.dead = true;
            self.note(|| "power gone".into());
        }
        if self.dead {
            return Err(Code::StorageIo);
        }
        self.effects += 1;
        self.fuse = self.fuse.map(|fuse| fuse - 1);
        self.note(what);
        Ok(())
    }

    /// A sync of a volume: what `covered` says, contents subject to what became of the call.
    fn sync(&mut self, volume: Volume, what: &str, covered: impl Fn(&Effect) -> bool) -> Result<(), Code> {
        let mutant = self.mutant;
        let answer = self.call();
        if self.dead {
            return answer;
        }
        self.effect(|| format!("{volume:?} {what}"))?;
        self.syncs += 1;
        let files = self.files(volume);
        let is_data = |effect: &Effect| matches!(effect, Effect::Data { .. });
        if answer.is_err() {
            // the pages are clean now, and the medium does not have them
            files.pending.retain(|effect| !(is_data(effect) && covered(effect)));
            return if mutant == Some(Mutant::UncheckedSync) { Ok(()) } else { answer };
        }
        files.flush(|effect| match mutant {
            Some(Mutant::NoFileSync) if is_data(effect) => false,
            Some(Mutant::NoDirectorySync) if !is_data(effect) => false,
            _ => covered(effect),
        });
        Ok(())
    }

    fn after_rename(&mut self) -> Result<(), Code> {
        match self.postponed.take() {
            Some(volume) => self.sync_all(volume),
            None => Ok(()),
        }
    }

    fn sync_all(&mut self, volume: Volume) -> Result<(), Code> {
        self.sync(volume, "sync", |_| true)?;
        if volume == Volume::Boot && self.mutant != Some(Mutant::NoFileSync) {
            self.journal.sync();
        }
        Ok(())
    }
}

/// The doors to one piece of hardware.
#[derive(Clone)]
pub struct Bench(Rc<RefCell<Hardware>>);

impl Bench {
    /// Doors to this hardware.
    pub fn new(hardware: Hardware) -> Self {
        Self(Rc::new(RefCell::new(hardware)))
    }

    /// Looks at or changes the hardware.
    pub fn with<T>(&self, f: impl FnOnce(&mut Hardware) -> T) -> T {
        f(&mut self.0.borrow_mut())
    }

    /// The environment's bytes.
    pub fn env(&self) -> Raw {
        Raw { bench: self.clone(), journal: false }
    }

    /// The journal's bytes.
    pub fn journal(&self) -> Raw {
        Raw { bench: self.clone(), journal: true }
    }

    /// An object arrives: whole in the running system, not durable.
    pub fn arrive(&self, id: ObjectId, content: &[u8]) -> Result<(), Code> {
        self.clone().write(Name::Incoming(Volume::Storage, id), content)
    }
}

fn volume_of(name: Name<'_>) -> Volume {
    match name {
        Name::Object(volume, _)
        | Name::Incoming(volume, _)
        | Name::AllIncoming(volume)
        | Name::Trail(volume, ..)
        | Name::File(volume, ..) => volume,
        Name::Last => Volume::Boot,
        Name::Endpoint(_) => Volume::Storage,
    }
}

impl Disk for Bench {
    fn exists(&mut self, name: Name<'_>) -> Result<bool, Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        Ok(hw.files(volume_of(name)).find(name).is_some())
    }

    fn read(&mut self, name: Name<'_>, out: &mut [u8]) -> Result<usize, Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        let files = hw.files(volume_of(name));
        let inode = files.find(name).ok_or(Code::RevisionUnknown)?;
        let content = &files.inodes[inode as usize].live;
        out.get_mut(..content.len()).ok_or(Code::StorageDamaged)?.copy_from_slice(content);
        Ok(content.len())
    }

    fn write(&mut self, name: Name<'_>, data: &[u8]) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let answer = hw.call();
        if hw.dead {
            return answer;
        }
        hw.effect(|| format!("write {name:?}, {} bytes", data.len()))?;
        let files = hw.files(volume_of(name));
        let fits = files.used() + data.len() as u64 <= files.capacity;
        if answer.is_err() || !fits {
            files.put(name, data[..data.len() / 2].into(), false); // as far as it came
            return answer.and(Err(Code::NoSpace));
        }
        files.put(name, data.into(), false);
        Ok(())
    }

    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        hw.effect(|| format!("overwrite {name:?}"))?;
        hw.files(volume_of(name)).put(name, sector[..].into(), true);
        Ok(())
    }

    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let mut content = vec![0; 1 << 16];
        let length = self.read(from, &mut content)?;
        self.write(to, &content[..length])
    }

    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        hw.effect(|| format!("link {from:?} -> {to:?}"))?;
        let files = hw.files(volume_of(to));
        let inode = files.find(from).ok_or(Code::RevisionUnknown)?;
        let entry = files.make_entry(to);
        if files.live.contains_key(&entry) {
            return Err(Code::StorageIo);
        }
        files.set(entry, inode);
        Ok(())
    }

    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        hw.effect(|| format!("rename {from:?} -> {to:?}"))?;
        let files = hw.files(volume_of(to));
        let inode = files.find(from).ok_or(Code::RevisionUnknown)?;
        let (from, to) = (files.entry(from).expect("it was found"), files.make_entry(to));
        if let Some(old) = files.live.get(&to)
            && files.live.keys().any(|(folder, _)| *folder == Folder::Of(*old))
        {
            return Err(Code::StorageIo); // a folder that is not empty
        }
        files.live.remove(&from);
        files.live.insert(to.clone(), inode);
        files.pending.push(Effect::Move { from, to, inode });
        hw.after_rename()
    }

    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        hw.effect(|| format!("exchange {one:?} and {other:?}"))?;
        let files = hw.files(volume_of(one));
        let find =
            |name| files.entry(name).and_then(|entry| files.live.get(&entry).map(|inode| (entry.clone(), *inode)));
        let ((one, first), (other, second)) =
            (find(one).ok_or(Code::RevisionUnknown)?, find(other).ok_or(Code::RevisionUnknown)?);
        let both = [(one, second), (other, first)];
        files.live.extend(both.clone());
        files.pending.push(Effect::Exchange(both));
        hw.after_rename()
    }

    fn remove(&mut self, name: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        let files = hw.files(volume_of(name));
        let entries = match name {
            Name::AllIncoming(_) => files.below(Folder::Incoming),
            _ => files.entry(name).filter(|entry| files.live.contains_key(entry)).into_iter().collect(),
        };
        if entries.is_empty() {
            return Ok(());
        }
        hw.effect(|| format!("remove {name:?}"))?;
        for entry in entries {
            hw.files(volume_of(name)).clear(entry);
        }
        Ok(())
    }

    fn sync_file(&mut self, name: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let volume = volume_of(name);
        let inode = hw.files(volume).find(name).ok_or(Code::RevisionUnknown)?;
        hw.sync(volume, "fsync", |effect| matches!(effect, Effect::Data { inode: other, .. } if *other == inode))
    }

    fn sync_dir(&mut self, dir: Dir) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let (volume, folder) = match dir {
            Dir::Objects(volume) => (volume, Folder::Objects),
            Dir::Incoming(volume) => (volume, Folder::Incoming),
            Dir::Trails(volume) => (volume, Folder::Trails),
            Dir::Root(volume) => (volume, Folder::Root),
        };
        let step = match folder {
            Folder::Root => None,
            Folder::Objects => Some(Sync::ObjectNames),
            _ => Some(Sync::RevisionNames),
        };
        if volume == Volume::Storage && step.is_some_and(|step| hw.mutant == Some(Mutant::Without(step))) {
            return hw.call();
        }
        if folder == Folder::Trails {
            hw.syncs += 1; // trails/ and trails/locals/
        }
        hw.sync(volume, "fsync of a folder", |effect| match effect {
            Effect::Set { entry, .. } | Effect::Clear { entry } => entry.0 == folder,
            Effect::Move { from, to, .. } => from.0 == folder || to.0 == folder,
            Effect::Exchange(both) => both.iter().any(|(entry, _)| entry.0 == folder),
            Effect::Data { .. } => false,
        })
    }

    fn sync_volume(&mut self, volume: Volume) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        if hw.mutant == Some(Mutant::RenameBeforeSync) && !hw.dead {
            hw.postponed = Some(volume);
            return Ok(());
        }
        let builds = hw.files(volume).live.keys().any(|(_, label)| matches!(label, Label::Trail(Stage::New, _)));
        let step = match volume {
            Volume::Storage => Sync::Contents,
            Volume::Boot if builds => Sync::BootContents,
            Volume::Boot => Sync::Record,
        };
        if hw.mutant == Some(Mutant::Without(step)) {
            return hw.call();
        }
        hw.sync_all(volume)
    }

    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        if hw.mutant == Some(Mutant::NoCheckpoint) {
            return hw.call();
        }
        hw.sync(volume, "checkpoint", |effect| !matches!(effect, Effect::Data { .. }))?;
        let files = hw.files(volume);
        files.loader = files.durable.clone();
        Ok(())
    }

    fn each_object(&mut self, dir: Dir, each: &mut dyn FnMut(ObjectId)) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        let (volume, folder) = match dir {
            Dir::Objects(volume) => (volume, Folder::Objects),
            Dir::Incoming(volume) => (volume, Folder::Incoming),
            Dir::Trails(_) | Dir::Root(_) => return Ok(()),
        };
        for (_, label) in hw.files(volume).below(folder) {
            if let Label::Object(id) = label {
                each(id);
            }
        }
        Ok(())
    }

    fn each_trail(&mut self, volume: Volume, stage: Stage, each: &mut dyn FnMut(RevName)) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        for (_, label) in hw.files(volume).below(Folder::Trails) {
            match label {
                Label::Trail(at, rev) if at == stage => each(rev),
                _ => {}
            }
        }
        Ok(())
    }

    fn free(&mut self, volume: Volume) -> Result<u64, Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        let files = hw.files(volume);
        Ok(files.capacity.saturating_sub(files.used()))
    }

    fn size(&mut self, name: Name<'_>) -> Result<u64, Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        let files = hw.files(volume_of(name));
        let inode = files.find(name).ok_or(Code::RevisionUnknown)?;
        Ok(files.inodes[inode as usize].live.len() as u64)
    }
}

/// Bytes at fixed places.
#[derive(Clone)]
pub struct Raw {
    bench: Bench,
    journal: bool,
}

impl Raw {
    fn cells<'h>(&self, hw: &'h mut Hardware) -> &'h mut Cells {
        if self.journal { &mut hw.journal } else { &mut hw.env }
    }
}

impl Region for Raw {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        let hw = &mut *self.bench.0.borrow_mut();
        hw.call()?;
        out.copy_from_slice(&self.cells(hw).live[offset as usize..][..out.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        let hw = &mut *self.bench.0.borrow_mut();
        hw.call()?;
        hw.effect(|| format!("write {} at {offset}", if self.journal { "journal" } else { "environment" }))?;
        self.cells(hw).write(offset as usize, data);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Code> {
        let hw = &mut *self.bench.0.borrow_mut();
        let answer = hw.call();
        if hw.dead {
            return answer;
        }
        hw.effect(|| format!("sync {}", if self.journal { "journal" } else { "environment" }))?;
        hw.syncs += 1;
        let mutant = hw.mutant;
        let calls = hw.calls as usize;
        let cells = self.cells(hw);
        if answer.is_err() {
            cells.fail(calls);
            return if mutant == Some(Mutant::UncheckedSync) { Ok(()) } else { answer };
        }
        if self.journal || mutant != Some(Mutant::NoEnvironmentSync) {
            cells.sync();
        }
        Ok(())
    }

    fn drop_cache(&mut self) {
        let hw = &mut *self.bench.0.borrow_mut();
        self.cells(hw).drop_cache();
    }
}
