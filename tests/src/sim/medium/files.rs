//! One file system: inodes and names, each as the system sees it, as it is durable, and (names) as the loader sees it;
//! and the effects that are pending between the two.

use crate::sim::medium::fates::Fate;
use runtime::{
    id::{ObjectId, RevName},
    port::{Name, Stage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Folder {
    Root,
    Objects,
    Incoming,
    Trails,
    Of(u32),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Label {
    Last,
    Endpoint(Stage),
    Object(ObjectId),
    Trail(Stage, RevName),
    Key(Rc<str>),
}

pub(super) type Entry = (Folder, Label);
pub(super) type Names = BTreeMap<Entry, u32>;

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) live: Rc<[u8]>,
    pub(super) durable: Rc<[u8]>,
}

#[derive(Clone, Debug)]
pub(super) enum Effect {
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
pub(super) struct Files {
    pub(super) inodes: Vec<Inode>,
    pub(super) live: Names,
    pub(super) durable: Names,
    pub(super) loader: Names,
    pub(super) pending: Vec<Effect>,
    pub(super) capacity: u64,
}

impl Files {
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub(super) fn folder_of(&self, stage: Stage, rev: RevName) -> Option<Folder> {
        self.live.get(&(Folder::Trails, Label::Trail(stage, rev))).map(|inode| Folder::Of(*inode))
    }

    /// Where a name is. `None`: the folder that it is in does not exist.
    pub(super) fn entry(&self, name: Name<'_>) -> Option<Entry> {
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

    pub(super) fn find(&self, name: Name<'_>) -> Option<u32> {
        self.live.get(&self.entry(name)?).copied()
    }

    pub(super) fn new_inode(&mut self) -> u32 {
        self.inodes.push(Inode { live: [].into(), durable: [].into() });
        self.inodes.len() as u32 - 1
    }

    /// The entry, with its folder made if need be.
    pub(super) fn make_entry(&mut self, name: Name<'_>) -> Entry {
        if let Name::File(volume, stage, rev, _) = name
            && self.folder_of(stage, rev).is_none()
        {
            let entry = self.entry(Name::Trail(volume, stage, rev)).expect("below trails");
            let inode = self.new_inode();
            self.set(entry, inode);
        }
        self.entry(name).expect("its folder was made")
    }

    pub(super) fn set(&mut self, entry: Entry, inode: u32) {
        self.live.insert(entry.clone(), inode);
        self.pending.push(Effect::Set { entry, inode });
    }

    pub(super) fn clear(&mut self, entry: Entry) {
        if let Some(inode) = self.live.remove(&entry) {
            for below in self.below(Folder::Of(inode)) {
                self.clear(below);
            }
            self.pending.push(Effect::Clear { entry });
        }
    }

    pub(super) fn below(&self, folder: Folder) -> Vec<Entry> {
        self.live.keys().filter(|(of, _)| *of == folder).cloned().collect()
    }

    pub(super) fn put(&mut self, name: Name<'_>, content: Rc<[u8]>, whole: bool) {
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

    pub(super) fn keep(&mut self, effect: Effect) {
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
    pub(super) fn flush(&mut self, covered: impl Fn(&Effect) -> bool) {
        for effect in std::mem::take(&mut self.pending) {
            if covered(&effect) { self.keep(effect) } else { self.pending.push(effect) }
        }
    }

    pub(super) fn cut(&mut self, fate: &mut Fate<'_>) {
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

    pub(super) fn used(&self) -> u64 {
        let inodes: BTreeSet<u32> = self.live.values().copied().collect();
        inodes.iter().map(|inode| self.inodes[*inode as usize].live.len() as u64 + 64).sum()
    }
}
