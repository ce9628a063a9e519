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

mod cells;
mod doors;
mod fates;
mod files;

pub use cells::Cells;
pub use doors::{Bench, Raw};

use crate::sim::{
    r#gen::Gen,
    medium::{
        fates::{COMBINATIONS_MAX, DRAWN, Fate, Pattern},
        files::{Effect, Entry, Files, Folder, Label},
    },
};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal,
    port::{Stage, Volume},
    protocol::Row,
};
use std::{cell::RefCell, rc::Rc};

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

    /// A procedure is at this row.
    fn step(&mut self, row: Row) {
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
