//! The media: two file systems, the environment and the journal, each with what the system sees and what is durable.
//!
//! Fault model. Each effect (a content, a name, a sector) is pending until the sync that covers it. What a cut leaves
//! of pending effects is a question of the `Model`; under `Model::Posix`, the one that `runtime::port` states, each is
//! lost, kept or (contents) torn at 512 bytes, independently of all others: no order that the file system does not
//! promise is taken for granted. How many of those states are gone through is a question of `Bounds`. After a failed
//! sync the contents that it covered stay readable and never become durable, whatever a later sync says (of raw places,
//! some sectors have reached the medium); names stay pending. The loader sees the names of the last checkpoint (or
//! mount); of what became durable since, what the file system happened to write to its place: nothing, everything, one
//! name, all but one, all but the files that they name. And the content of a file only while that file has a durable
//! name (what was deleted may have been overwritten), and if that file has its blocks since the last checkpoint: a name
//! may be written back before the inode that it names. A checkpoint is two things, and the power may go between: what
//! it covers is durable, then it is where the loader looks.
//!
//! A device that was taken over has one file system for all of it: what is said of boot volume and storage is then said of
//! the same one. Its environment is a file there, of which one sector is overwritten in place, and the loader's mark.
//!
//! What it does not model: the file system's own metadata, and damage to it.

mod cells;
mod damage;
mod doors;
mod fates;
mod files;
mod model;

pub use cells::Cells;
pub use damage::{Damage, Lie};
pub use doors::{Bench, MARK_AT, Raw};
pub use fates::Bounds;
pub use model::Model;

use crate::{
    r#gen::Gen,
    medium::{
        fates::Fates,
        files::{Content, Effect, Entry, Files, Folder, Label},
    },
    saboteur::How,
};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal,
    port::{Name, Stage, Volume},
    protocol::Row,
};
use std::{
    cell::RefCell,
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
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
    /// A transition is two stores: first the committed revision, then the candidate.
    TwoStores,
    /// DONE is said before the commit is stored.
    DoneBeforeCommit,
    /// The collector does not ask what the other copy of the environment names.
    CollectTheOtherCopy,
    /// The result of a sync is not looked at.
    UncheckedSync,
    /// The copy of the environment that is in use is overwritten.
    ActiveCopyOverwritten,
    /// Nobody but the loader counts tries (over a loader that cannot).
    OnlyTheLoaderCounts,
    /// A candidate is committed when it should only be armed.
    CommitAtArm,
    /// A row of the protocol's table is broken.
    Row(How, Row),
}

impl Mutant {
    /// The row that is broken, and how; none if that means nothing: after an operation's last row comes nothing to swap
    /// it with.
    pub fn row(self) -> Option<(How, Row)> {
        match self {
            Mutant::Row(How::Swap, row) if row.next().is_none() => None,
            Mutant::Row(how, row) => Some((how, row)),
            _ => None,
        }
    }
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
    /// How much of it was done all the same.
    pub reach: Reach,
}

/// How far a call comes that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Nothing is done.
    Nothing,
    /// A short write; a sync after which some contents are durable and some never will be. A name: nothing.
    Part,
    /// All of it is done, and told as failed.
    All,
}

impl Reach {
    /// All of them.
    pub const ALL: [Reach; 3] = [Reach::Nothing, Reach::Part, Reach::All];

    fn of(self, length: usize) -> usize {
        match self {
            Reach::Nothing => 0,
            Reach::Part => length / 2,
            Reach::All => length,
        }
    }
}

/// Everything that survives a power cut, and the plug.
#[derive(Clone, Debug)]
pub struct Hardware {
    storage: Files,
    /// None: it is a folder of storage.
    boot: Option<Files>,
    /// The loader's environment; with one volume, its mark.
    pub env: Cells,
    journal: Cells,
    /// Effects before which the power goes; counted down.
    pub fuse: Option<u64>,
    /// How many of the states that a cut may leave are gone through.
    pub bounds: Bounds,
    /// The power is gone: nothing has any effect.
    pub dead: bool,
    /// A call that fails.
    pub fault: Option<Fault>,
    /// The fault came to pass.
    pub faulted: bool,
    /// The broken rule.
    pub mutant: Option<Mutant>,
    /// Every flush is a lie.
    pub lie: Option<Lie>,
    /// Calls so far.
    pub calls: u64,
    /// Effects so far.
    pub effects: u64,
    /// Syncs so far of any kind.
    pub syncs: u64,
    /// What was done, if somebody wants to read it.
    pub trace: Option<Rc<RefCell<Vec<String>>>>,
    /// The rows that were announced, if somebody wants to know them.
    pub rows: Option<Rc<RefCell<BTreeSet<Row>>>>,
}

impl Hardware {
    /// Empty media.
    pub fn new(env_size: usize) -> Self {
        Self {
            storage: Files::new(64 << 20),
            boot: Some(Files::new(16 << 20)),
            env: Cells::new(env_size),
            journal: Cells::new(journal::SIZE),
            fuse: None,
            bounds: Bounds::default(),
            dead: false,
            fault: None,
            faulted: false,
            mutant: None,
            lie: None,
            calls: 0,
            effects: 0,
            syncs: 0,
            trace: None,
            rows: None,
        }
    }

    /// An empty medium with one file system, and a sector for the loader's mark.
    pub fn one() -> Self {
        Self { boot: None, ..Self::new(SECTOR) }
    }

    /// Whether storage is also what the loader reads.
    pub fn is_one(&self) -> bool {
        self.boot.is_none()
    }

    fn files(&mut self, volume: Volume) -> &mut Files {
        match (volume, &mut self.boot) {
            (Volume::Boot, Some(boot)) => boot,
            _ => &mut self.storage,
        }
    }

    /// The same, to look at.
    fn volume(&self, volume: Volume) -> &Files {
        match (volume, &self.boot) {
            (Volume::Boot, Some(boot)) => boot,
            _ => &self.storage,
        }
    }

    /// Each file system.
    fn all_files(&mut self) -> impl Iterator<Item = &mut Files> {
        [&mut self.storage].into_iter().chain(&mut self.boot)
    }

    /// Bytes that a volume holds.
    pub fn set_capacity(&mut self, volume: Volume, bytes: u64) {
        self.files(volume).capacity = bytes;
    }

    /// What both file systems promise.
    pub fn set_model(&mut self, model: Model) {
        self.set_model_of(Volume::Storage, model);
        self.set_model_of(Volume::Boot, model);
    }

    /// What one of them promises.
    pub fn set_model_of(&mut self, volume: Volume, model: Model) {
        self.files(volume).model = model;
    }

    /// Of each unit that a cut now would decide about, how many fates it has.
    fn effect_units(&self) -> Vec<usize> {
        let mut units = vec![];
        for files in [&self.storage].into_iter().chain(&self.boot) {
            files.units(&mut units);
        }
        units.extend(self.journal.pending.iter().chain(&self.env.pending).map(|_| 2));
        units
    }

    /// The same, and what the loader sees of the names on the boot volume.
    fn units(&self) -> Vec<usize> {
        let mut units = self.effect_units();
        units.extend(self.volume(Volume::Boot).views());
        units
    }

    /// What a cut now may leave.
    fn fates(&self) -> Fates {
        Fates::new(self.units(), self.bounds, self.effects)
    }

    /// How many states a cut now may leave, and whether those are all that the model allows.
    pub fn cuts(&self) -> (usize, bool) {
        let fates = self.fates();
        (fates.count(), fates.are_all())
    }

    /// The power goes; what was pending ends in the way that has this number, below `cuts`.
    pub fn cut_to(&mut self, number: usize) {
        let fates = self.fates().list(number);
        self.lose(fates);
    }

    /// The power goes: everything that was not durable is up to chance.
    pub fn cut(&mut self, choices: &mut Gen) {
        self.cut_to(choices.below(self.cuts().0));
    }

    /// In how many ways a restart may end: it unmounted, or it did not come to that.
    pub fn restarts(&self) -> usize {
        1 + usize::from(!self.effect_units().is_empty())
    }

    /// The system restarts, in one of these ways.
    pub fn restart_to(&mut self, number: usize) {
        let kept = number > 0;
        self.lose(self.effect_units().into_iter().map(|fates| if kept { fates - 1 } else { 0 }).collect());
    }

    /// `fates`: of each of `units`; the loader's is the last, and may be left out: nothing was written back.
    fn lose(&mut self, fates: Vec<usize>) {
        let effects = self.effect_units().len();
        if let Some(fate) = fates.get(effects) {
            self.files(Volume::Boot).write_back(*fate);
        }
        let mut fates = fates.into_iter();
        for files in self.all_files() {
            files.cut(&mut fates);
        }
        self.journal.cut(&mut fates);
        self.env.cut(&mut fates);
        self.dead = false;
        self.fault = None;
        self.note(|| "---- power".into());
    }

    /// What the medium holds, in one number: equal for states that no reader can tell apart.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.storage.digest(self.is_one(), &mut hasher);
        self.boot.iter().for_each(|boot| boot.digest(true, &mut hasher));
        (self.env.durable(), self.journal.durable()).hash(&mut hasher);
        hasher.finish()
    }

    /// Linux is up, and mounts both volumes: their journals are replayed, which is a checkpoint. Of what the loader had in
    /// its memory and could not write it knows nothing.
    pub fn mount(&mut self) {
        self.env.drop_cache();
        self.all_files().for_each(Files::show);
    }

    /// Everything written so far is durable and seen: how a device leaves the factory.
    pub fn settle(&mut self) {
        self.all_files().for_each(|files| files.flush(|_| true));
        self.env.sync();
        self.journal.sync();
        self.mount();
    }

    /// The original replaces its text, by its own rules.
    pub(super) fn original_writes(&mut self, text: &[u8]) {
        self.storage.put(Name::LoaderText(Stage::Live), Content::new(text), false);
        self.settle();
    }

    /// A file of a revision as a power cut now would leave it at the least.
    pub fn durable_file(&self, volume: Volume, rev: RevName, key: &str) -> Option<&[u8]> {
        let files = self.volume(volume);
        let folder = files.durable.get(&(Folder::Trails, Label::Trail(Stage::Live, rev)))?;
        let inode = files.durable.get(&(Folder::Of(*folder), Label::Key(key.into())))?;
        Some(&files.inodes[*inode as usize].durable)
    }

    /// The journal as a power cut now would leave it at the least.
    pub fn durable_journal(&self) -> &[u8] {
        self.journal.durable()
    }

    /// A durable object.
    pub fn durable_object(&self, volume: Volume, id: ObjectId) -> Option<&[u8]> {
        let files = self.volume(volume);
        let inode = files.durable.get(&(Folder::Objects, Label::Object(id)))?;
        Some(&files.inodes[*inode as usize].durable)
    }

    /// All durable objects under their final names.
    pub fn durable_objects(&self, volume: Volume) -> Vec<(ObjectId, &[u8])> {
        let files = self.volume(volume);
        let object = |(entry, inode): (&Entry, &u32)| match entry {
            (Folder::Objects, Label::Object(id)) => Some((*id, &*files.inodes[*inode as usize].durable)),
            _ => None,
        };
        files.durable.iter().filter_map(object).collect()
    }

    /// Whether the running system has this name. No call of a door: it cannot fail.
    pub fn has_live(&mut self, name: Name<'_>) -> bool {
        let volume = if matches!(name, Name::Trail(Volume::Boot, ..)) { Volume::Boot } else { Volume::Storage };
        self.files(volume).find(name).is_some()
    }

    /// What a device at rest does not change: environment and journal.
    pub fn settled(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.loader_text().hash(&mut hasher);
        (self.env.durable(), self.journal.durable()).hash(&mut hasher);
        hasher.finish()
    }

    /// A boot file of a revision as the loader reads it.
    pub fn loader_file(&self, rev: RevName, name: &str) -> Option<&[u8]> {
        let folder = self.volume(Volume::Boot).loader.get(&(Folder::Trails, Label::Trail(Stage::Live, rev)))?;
        let key = if self.is_one() { format!(".pv/{name}") } else { name.into() };
        self.loader_content(&(Folder::Of(*folder), Label::Key(key.into())))
    }

    /// `last` as the loader reads it.
    pub fn loader_last(&self) -> Option<&[u8]> {
        self.loader_content(&(Folder::Boot, Label::Last))
    }

    /// The text of a device that was taken over as its loader reads it.
    pub fn loader_text(&self) -> Option<&[u8]> {
        self.loader_content(&(Folder::Boot, Label::LoaderText(Stage::Live)))
    }

    fn loader_content(&self, entry: &Entry) -> Option<&[u8]> {
        let files = self.volume(Volume::Boot);
        let inode = files.loader.get(entry)?;
        (files.is_named(*inode) && !files.is_hidden(*inode)).then(|| &*files.inodes[*inode as usize].durable)
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(format!("{:5} {:4} {}", self.calls, self.effects, text()));
        }
    }

    /// A procedure is at this row.
    pub(super) fn step(&mut self, row: Row) {
        if let Some(rows) = &self.rows {
            rows.borrow_mut().insert(row);
        }
        self.note(|| format!("  {} {row:?}", row.id()));
    }

    /// Every call goes through here: it may fail.
    fn call(&mut self) -> Result<(), Code> {
        if self.dead {
            return Err(Code::StorageIo);
        }
        let call = self.calls;
        self.calls += 1;
        match self.fault {
            Some(Fault { at, sticky, code, .. }) if call == at || sticky && call > at => {
                self.faulted = true;
                self.note(|| format!("!! fails with {code}"));
                Err(code)
            }
            _ => Ok(()),
        }
    }

    /// A call that changes something: what it is to answer once it is done. An error: nothing is done.
    fn attempt(&mut self) -> Result<Result<(), Code>, Code> {
        match self.attempt_in_part()? {
            (Err(code), Reach::Part) => Err(code),
            (answer, _) => Ok(answer),
        }
    }

    /// The same for what can be done in part.
    fn attempt_in_part(&mut self) -> Result<(Result<(), Code>, Reach), Code> {
        match self.attempt_sync()? {
            (Err(code), Reach::Nothing) => Err(code),
            attempt => Ok(attempt),
        }
    }

    /// The same for a sync: one that fails without doing anything still leaves the pages clean.
    fn attempt_sync(&mut self) -> Result<(Result<(), Code>, Reach), Code> {
        match (self.call(), self.fault) {
            (Ok(()), _) => Ok((Ok(()), Reach::All)),
            (Err(code), Some(fault)) if !self.dead => Ok((Err(code), fault.reach)),
            (Err(code), _) => Err(code),
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
        let (answer, reach) = self.attempt_sync()?;
        self.effect(|| format!("{volume:?} {what}"))?;
        self.syncs += 1;
        let lie = self.lie == Some(Lie::Drops);
        let files = self.files(volume);
        if lie {
            return Ok(()); // its memory holds it, until the power goes
        }
        let ordered = files.model == Model::Ext4Ordered;
        let is_data = |effect: &Effect| !effect.is_name();
        if answer.is_err() {
            files.fail(reach, covered);
            return if mutant == Some(Mutant::UncheckedSync) { Ok(()) } else { answer };
        }
        files.flush(|effect| match mutant {
            Some(Mutant::NoFileSync) if is_data(effect) => false,
            Some(Mutant::NoDirectorySync) if !is_data(effect) => false,
            _ => covered(effect) || ordered && effect.is_name(),
        });
        Ok(())
    }

    fn sync_all(&mut self, volume: Volume) -> Result<(), Code> {
        self.sync(volume, "sync", |_| true)?;
        if (volume == Volume::Boot || self.is_one())
            && self.mutant != Some(Mutant::NoFileSync)
            && self.lie != Some(Lie::Drops)
        {
            self.journal.sync();
        }
        Ok(())
    }
}
