//! One file system: inodes and names, each as the system sees it, as it is durable, and (names) as the loader sees it;
//! and the effects that are pending between the two.

use crate::medium::{Model, Reach, SECTOR};
use runtime::{
    id::{ObjectId, RevName},
    port::{Name, Owner, Stage, Subject},
};
use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    rc::Rc,
};

/// What a file holds, with its hash. Shared: the same content is in many states.
#[derive(Clone, Debug)]
pub(super) struct Content(Rc<(u64, Box<[u8]>)>);

impl Content {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self(Rc::new((hasher.finish(), bytes.into())))
    }

    pub(super) fn sectors(&self) -> usize {
        self.len().div_ceil(SECTOR)
    }

    /// Its first sectors.
    fn head(&self, sectors: usize) -> Self {
        Self::new(&self[..self.len().min(sectors * SECTOR)])
    }

    /// These of its sectors, the others as in `old`, or zeros.
    fn sectors_over(&self, old: &[u8], kept: impl Fn(usize) -> bool) -> Self {
        let mut bytes = vec![0; self.len()];
        let common = bytes.len().min(old.len());
        bytes[..common].copy_from_slice(&old[..common]);
        for (sector, new) in self.chunks(SECTOR).enumerate().filter(|(sector, _)| kept(*sector)) {
            bytes[sector * SECTOR..][..new.len()].copy_from_slice(new);
        }
        Self::new(&bytes)
    }
}

impl std::ops::Deref for Content {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.1
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Folder {
    Root,
    /// What has a file system of its own, or is a folder of storage.
    Boot,
    Objects,
    Incoming,
    Trails,
    Of(u32),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Label {
    Last,
    LoaderText(Stage),
    Memory(Owner, Stage),
    Metadata(Subject, Stage),
    Object(ObjectId),
    Trail(Stage, RevName),
    Key(Rc<str>),
}

pub(super) type Entry = (Folder, Label);
pub(super) type Names = BTreeMap<Entry, u32>;

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) live: Content,
    pub(super) durable: Content,
    /// Where its blocks are: another number after each write that was not in place.
    pub(super) blocks: u32,
    /// What of that is written where a loader looks. If it is another number, the loader reads anything.
    pub(super) shown: u32,
    /// The last number that was given.
    given: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// New content. `whole`: one sector, never torn. `blocks`: in new ones; none: in place.
    Data {
        inode: u32,
        content: Content,
        whole: bool,
        blocks: Option<u32>,
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
    pub(super) live: Rc<Names>,
    pub(super) durable: Rc<Names>,
    pub(super) loader: Rc<Names>,
    pub(super) pending: Vec<Effect>,
    pub(super) capacity: u64,
    pub(super) model: Model,
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
            Name::Last => (Folder::Boot, Label::Last),
            Name::LoaderText(stage) => (Folder::Boot, Label::LoaderText(stage)),
            Name::Memory(owner, stage) => (Folder::Root, Label::Memory(owner, stage)),
            Name::Metadata(subject, stage) => (Folder::Root, Label::Metadata(subject, stage)),
            Name::Others => unreachable!("many names"),
        })
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<u32> {
        self.live.get(&self.entry(name)?).copied()
    }

    pub(super) fn new_inode(&mut self) -> u32 {
        let empty = Content::new(&[]);
        self.inodes.push(Inode { live: empty.clone(), durable: empty, blocks: 0, shown: 0, given: 0 });
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
        Rc::make_mut(&mut self.live).insert(entry.clone(), inode);
        self.pending.push(Effect::Set { entry, inode });
    }

    pub(super) fn clear(&mut self, entry: Entry) {
        if let Some(inode) = Rc::make_mut(&mut self.live).remove(&entry) {
            for below in self.below(Folder::Of(inode)) {
                self.clear(below);
            }
            self.pending.push(Effect::Clear { entry });
        }
    }

    /// A file of a revision, and if it is a folder in it, all that is in that.
    pub(super) fn with_below(&self, name: Name<'_>) -> Vec<Entry> {
        let Some((folder, Label::Key(key))) = self.entry(name) else { return vec![] };
        let in_it =
            |other: &str| other.strip_prefix(&*key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut entries = self.below(folder);
        entries.retain(|(_, label)| matches!(label, Label::Key(other) if in_it(other)));
        entries
    }

    pub(super) fn below(&self, folder: Folder) -> Vec<Entry> {
        in_folder(&self.live, folder).map(|(entry, _)| entry.clone()).collect()
    }

    pub(super) fn put(&mut self, name: Name<'_>, content: Content, whole: bool) {
        let entry = self.make_entry(name);
        let inode = match self.live.get(&entry) {
            Some(inode) => *inode,
            None => {
                let inode = self.new_inode();
                self.set(entry, inode);
                inode
            }
        };
        let file = &mut self.inodes[inode as usize];
        let in_place = whole && !file.live.is_empty();
        file.given += u32::from(!in_place);
        let blocks = (!in_place).then_some(file.given);
        file.live = content.clone();
        self.pending.push(Effect::Data { inode, content, whole, blocks });
    }

    /// The first sector of a file is overwritten in place.
    pub(super) fn overwrite(&mut self, inode: u32, sector: &[u8]) {
        let file = &mut self.inodes[inode as usize];
        let mut bytes = file.live.to_vec();
        bytes[..sector.len()].copy_from_slice(sector);
        file.live = Content::new(&bytes);
        self.pending.push(Effect::Data { inode, content: file.live.clone(), whole: true, blocks: None });
    }

    /// Forgets what is clean of a file; what is still to be written stays.
    pub(super) fn drop_cache(&mut self, inode: u32) {
        let pending = self.pending.iter().rev().find_map(|effect| match effect {
            Effect::Data { inode: other, content, .. } if *other == inode => Some(content.clone()),
            _ => None,
        });
        let file = &mut self.inodes[inode as usize];
        file.live = pending.unwrap_or_else(|| file.durable.clone());
    }

    /// Everything durable is written where a loader looks.
    pub(super) fn show(&mut self) {
        self.loader = self.durable.clone();
        for file in &mut self.inodes {
            file.shown = file.blocks;
        }
    }

    /// A name changes its place; what had the new name has none any more.
    pub(super) fn shift(&mut self, from: Entry, to: Entry, inode: u32) {
        let live = Rc::make_mut(&mut self.live);
        live.remove(&from);
        let replaced = live.insert(to.clone(), inode).is_some();
        match self.model {
            Model::Fat => {
                if replaced {
                    self.pending.push(Effect::Clear { entry: to.clone() });
                }
                self.pending.extend([Effect::Clear { entry: from }, Effect::Set { entry: to, inode }]);
            }
            Model::Posix | Model::Ext4Ordered => self.pending.push(Effect::Move { from, to, inode }),
        }
    }

    /// Two folders have each other's name.
    pub(super) fn swap(&mut self, both: [(Entry, u32); 2]) {
        Rc::make_mut(&mut self.live).extend(both.clone());
        match self.model {
            // FAT has no such thing: one after the other
            Model::Fat => {
                self.pending.extend(both.clone().map(|(entry, _)| Effect::Clear { entry }));
                self.pending.extend(both.map(|(entry, inode)| Effect::Set { entry, inode }));
            }
            Model::Posix | Model::Ext4Ordered => self.pending.push(Effect::Exchange(both)),
        }
    }

    pub(super) fn keep(&mut self, effect: Effect) {
        let durable = Rc::make_mut(&mut self.durable);
        match effect {
            Effect::Data { inode, content, blocks, .. } => {
                let file = &mut self.inodes[inode as usize];
                (file.durable, file.blocks) = (content, blocks.unwrap_or(file.blocks));
            }
            Effect::Set { entry, inode } => {
                durable.insert(entry, inode);
            }
            Effect::Clear { entry } => {
                durable.remove(&entry);
            }
            Effect::Move { from, to, inode } => {
                durable.remove(&from);
                durable.insert(to, inode);
            }
            Effect::Exchange(both) => durable.extend(both),
        }
    }

    /// Keeps what is covered, in order.
    pub(super) fn flush(&mut self, covered: impl Fn(&Effect) -> bool) {
        for effect in std::mem::take(&mut self.pending) {
            if covered(&effect) { self.keep(effect) } else { self.pending.push(effect) }
        }
    }

    /// A sync that failed: the pages are clean now, and the medium has none, some or all of them. Names are tried again.
    pub(super) fn fail(&mut self, reach: Reach, covered: impl Fn(&Effect) -> bool) {
        if reach == Reach::All {
            return self.flush(covered);
        }
        let mut at = 0;
        for effect in std::mem::take(&mut self.pending) {
            if effect.is_name() || !covered(&effect) {
                self.pending.push(effect);
                continue;
            }
            at += 1;
            if reach == Reach::Part && at % 2 == 0 {
                self.keep(effect);
            }
        }
    }

    /// Of each unit that is pending, how many fates it has.
    pub(super) fn units(&self, units: &mut Vec<usize>) {
        let names = self.pending.iter().filter(|effect| effect.is_name()).count();
        if self.model == Model::Ext4Ordered && names > 0 {
            units.push(names + 1);
        }
        for effect in &self.pending {
            match effect {
                Effect::Data { inode, content, whole, .. } => units.push(self.fates(*inode, content, *whole)),
                _ if self.model == Model::Ext4Ordered => {}
                _ => units.push(2),
            }
        }
    }

    fn fates(&self, inode: u32, content: &Content, whole: bool) -> usize {
        let sectors = content.sectors();
        // a file that is written anew is made empty first
        let emptied = usize::from(!self.inodes[inode as usize].durable.is_empty());
        match self.model {
            _ if whole => 2,
            // as it was; then so many of its first sectors (a new file is empty as it was)
            Model::Ext4Ordered => (sectors + 1 + emptied).max(2),
            Model::Posix | Model::Fat => {
                emptied
                    + match sectors {
                        0 | 1 => 2,
                        2..=FEW_SECTORS => 1 << sectors,
                        _ => 5,
                    }
            }
        }
    }

    /// What is left of a content, neither as it was nor whole.
    fn part(&self, inode: u32, content: &Content, fate: usize) -> Content {
        let old = &self.inodes[inode as usize].durable;
        let sectors = content.sectors();
        match self.model {
            Model::Ext4Ordered => content.head(fate - usize::from(!old.is_empty())),
            Model::Posix | Model::Fat if !old.is_empty() && fate == self.fates(inode, content, false) - 2 => {
                content.head(0)
            }
            Model::Posix | Model::Fat if sectors <= FEW_SECTORS => {
                content.sectors_over(old, |sector| fate >> sector & 1 == 1)
            }
            Model::Posix | Model::Fat => match fate {
                1 => content.sectors_over(old, |sector| sector == 0),
                2 => content.sectors_over(old, |sector| sector > 0),
                _ => content.sectors_over(old, |sector| sector < sectors / 2),
            },
        }
    }

    /// The power goes. `fates`: of each unit of `units`, in that order.
    pub(super) fn cut(&mut self, fates: &mut impl Iterator<Item = usize>) {
        let mut fate = || fates.next().expect("a fate for each unit");
        let pending = std::mem::take(&mut self.pending);
        let ordered = self.model == Model::Ext4Ordered;
        let mut names = if ordered && pending.iter().any(Effect::is_name) { fate() } else { 0 };
        for effect in pending {
            match effect {
                Effect::Data { inode, content, whole, blocks } => {
                    let last = self.fates(inode, &content, whole) - 1;
                    let left = match fate() {
                        0 => continue,
                        fate if fate == last => content,
                        fate => self.part(inode, &content, fate),
                    };
                    self.keep(Effect::Data { inode, content: left, whole, blocks });
                }
                name if ordered => {
                    if names > 0 {
                        names -= 1;
                        self.keep(name);
                    }
                }
                name => {
                    if fate() == 1 {
                        self.keep(name);
                    }
                }
            }
        }
        self.live = self.durable.clone();
        for inode in &mut self.inodes {
            inode.live = inode.durable.clone();
        }
    }

    /// Names that are durable and that a loader without the journal may not see yet, of those that it looks at.
    fn lag(&self) -> Vec<(Entry, Option<u32>)> {
        let changed = self.durable.iter().filter(|(entry, inode)| self.loader.get(entry) != Some(inode));
        let changed = changed.filter(|((_, label), _)| label.is_looked_at());
        let gone = self.loader.keys().filter(|entry| !self.durable.contains_key(entry));
        let gone = gone.filter(|(_, label)| label.is_looked_at());
        changed
            .map(|(entry, inode)| (entry.clone(), Some(*inode)))
            .chain(gone.map(|entry| (entry.clone(), None)))
            .collect()
    }

    /// If the loader may not see all that is durable, how many views it may have.
    pub(super) fn views(&self) -> Option<usize> {
        let hidden = || self.loader.iter().any(|((_, label), inode)| label.is_looked_at() && self.is_hidden(*inode));
        match self.lag().len() {
            0 => hidden().then_some(2),
            1 => Some(3),
            names => Some(2 * names + 3),
        }
    }

    /// Whether a file's blocks are not where a loader would look for them.
    pub(super) fn is_hidden(&self, inode: u32) -> bool {
        let file = &self.inodes[inode as usize];
        file.blocks != file.shown
    }

    /// The file system wrote some of what is durable to its place by itself: nothing (0), all (the last view); or without the
    /// files that they name, one name of `lag`, all but one, or all.
    pub(super) fn write_back(&mut self, view: usize) {
        let views = self.views().expect("there is something to write back");
        if view == views - 1 {
            return self.show();
        }
        let lag = self.lag();
        let names = lag.len();
        for (at, (entry, inode)) in lag.into_iter().enumerate() {
            let is_written = match view {
                0 => false,
                view if view == views - 2 => true,
                view if view <= names => at == view - 1,
                view => at != view - 1 - names,
            };
            let loader = Rc::make_mut(&mut self.loader);
            match inode {
                _ if !is_written => None,
                Some(inode) => loader.insert(entry, inode),
                None => loader.remove(&entry),
            };
        }
    }

    /// What a power cut leaves, in the same words for the same state: names, and what can be read below them.
    /// `loader`: one reads this file system.
    pub(super) fn digest(&self, loader: bool, hasher: &mut impl Hasher) {
        for (names, by_loader) in [(&self.durable, false), (&self.loader, true)] {
            if by_loader && !loader {
                continue;
            }
            let mut seen = BTreeMap::new();
            for folder in [Folder::Root, Folder::Boot, Folder::Objects, Folder::Incoming, Folder::Trails] {
                self.digest_below(names, folder, by_loader, &mut seen, hasher);
            }
        }
        if loader {
            self.digest_hidden(hasher);
        }
    }

    /// Which of the files that a loader may come to look at are not where it would look.
    fn digest_hidden(&self, hasher: &mut impl Hasher) {
        let mut seen = BTreeMap::new();
        for ((_, label), inode) in self.durable.iter() {
            let next = seen.len();
            let number = *seen.entry(*inode).or_insert(next);
            if label.is_looked_at() && self.is_hidden(*inode) {
                label.digest(hasher);
                number.hash(hasher);
            }
        }
    }

    fn digest_below(
        &self,
        names: &Names,
        folder: Folder,
        by_loader: bool,
        seen: &mut BTreeMap<u32, usize>,
        hasher: &mut impl Hasher,
    ) {
        for ((_, label), inode) in in_folder(names, folder).filter(|((_, label), _)| !by_loader || label.is_looked_at())
        {
            label.digest(hasher);
            let fresh = seen.len();
            match seen.get(inode) {
                Some(number) => number.hash(hasher),
                None => {
                    seen.insert(*inode, fresh);
                    let reachable = Rc::ptr_eq(&self.durable, &self.loader) || self.is_named(*inode);
                    (fresh, reachable.then(|| self.inodes[*inode as usize].durable.0.0)).hash(hasher);
                    self.digest_below(names, Folder::Of(*inode), by_loader, seen, hasher);
                }
            }
        }
        u8::MAX.hash(hasher); // the folder ends
    }

    /// Whether an inode has a durable name: else its blocks may hold something else by now.
    pub(super) fn is_named(&self, inode: u32) -> bool {
        self.durable.values().any(|other| *other == inode)
    }

    pub(super) fn used(&self) -> u64 {
        let inodes: BTreeSet<u32> = self.live.values().copied().collect();
        inodes.iter().map(|inode| self.inodes[*inode as usize].live.len() as u64 + 64).sum()
    }
}

/// Contents of up to so many sectors are torn in every way.
const FEW_SECTORS: usize = 3;

fn in_folder(names: &Names, folder: Folder) -> impl Iterator<Item = (&Entry, &u32)> {
    names.range((folder, Label::Last)..).take_while(move |((of, _), _)| *of == folder)
}

impl Effect {
    pub(super) fn is_name(&self) -> bool {
        !matches!(self, Effect::Data { .. })
    }
}

impl Label {
    /// Whether a loader looks for this name.
    fn is_looked_at(&self) -> bool {
        match self {
            Label::Last | Label::LoaderText(Stage::Live) | Label::Trail(Stage::Live, _) => true,
            Label::Key(key) => key.starts_with("pv-") || key.starts_with(".pv/pv-"),
            _ => false,
        }
    }

    fn digest(&self, hasher: &mut impl Hasher) {
        match self {
            Label::Last => 0u8.hash(hasher),
            Label::Memory(owner, stage) => (1u8, *owner as u8, *stage as u8).hash(hasher),
            Label::Object(id) => (2u8, id.0).hash(hasher),
            Label::Trail(stage, rev) => (3u8, *stage as u8, rev.as_str()).hash(hasher),
            Label::Key(key) => (4u8, key).hash(hasher),
            Label::Metadata(subject, stage) => (5u8, *subject as u8, *stage as u8).hash(hasher),
            Label::LoaderText(stage) => (6u8, *stage as u8).hash(hasher),
        }
    }
}
