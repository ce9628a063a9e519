//! A disk in memory, of which a call may be told to fail, and a journal. What a power cut leaves is the simulator's to know
//! (`tests/src/sim/medium`): here everything is there at once.

use super::block::Block;
use crate::{
    fault::Code,
    id::{ObjectId, RevName},
    journal,
    port::{Dir, Disk, Name, Names, Region, Stage, Volume},
};
use std::{collections::BTreeMap, mem};

/// Both file systems.
pub(super) struct Memory {
    /// Contents by folder and name. A link is a second content: nothing overwrites one that has two names.
    files: BTreeMap<(String, String), Vec<u8>>,
    /// What was changed, one line each; syncs among it.
    pub(super) effects: Vec<String>,
    /// Calls until one fails without doing anything.
    pub(super) fuse: Option<u32>,
    /// Free bytes of storage and of boot.
    pub(super) free: [u64; 2],
    /// The volume with the boot assets.
    pub(super) reads: Volume,
    /// Bytes of a block.
    pub(super) block: usize,
    /// Nobody is told what is in the folders of revisions.
    pub(super) is_blind: bool,
    /// Those folders on storage, if somebody looks.
    pub(super) blocks: Option<[Block; 2]>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            effects: vec![],
            fuse: None,
            free: [1 << 30; 2],
            reads: Volume::Boot,
            block: 4096,
            is_blind: false,
            blocks: None,
        }
    }

    /// What is in `trails/` of storage, and in its folder of local revisions.
    fn in_trails(&self) -> [Vec<String>; 2] {
        let mut names = [vec!["locals".to_string()], vec![]];
        for (stage, prefix) in [(Stage::New, ".new-"), (Stage::Live, ""), (Stage::Dead, ".del-")] {
            let folder = format!("Storage {stage:?} ");
            for rev in self.files.keys().filter_map(|entry| entry.0.strip_prefix(&folder)) {
                let (below, name) = match rev.strip_prefix("locals/").filter(|_| stage == Stage::Live) {
                    Some(name) => (1, name.to_string()),
                    None => (0, format!("{prefix}{rev}")),
                };
                if !names[below].contains(&name) {
                    names[below].push(name);
                }
            }
        }
        names
    }

    /// After each change.
    fn changed(&mut self) {
        if self.blocks.is_none() {
            return;
        }
        let names = self.in_trails();
        for (block, names) in self.blocks.iter_mut().flatten().zip(names) {
            block.hold(&names);
        }
    }

    /// What `f` changes, syncs left out.
    pub(super) fn changes(&mut self) -> Vec<String> {
        mem::take(&mut self.effects).into_iter().filter(|effect| !effect.starts_with("sync")).collect()
    }

    fn call(&mut self) -> Result<(), Code> {
        match self.fuse.as_mut() {
            Some(0) => {
                self.fuse = None;
                Err(Code::StorageIo)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn effect(&mut self, what: String) -> Result<(), Code> {
        self.call()?;
        self.effects.push(what);
        Ok(())
    }

    /// The entries of a name: its own, or those of a folder.
    fn find(&self, name: Name<'_>) -> Vec<(String, String)> {
        let place = place(name);
        let is_below = |entry: &str, name: &str| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
        let is_file = |file: &String, entry: &String| file == entry || is_below(entry, file);
        let is_it = |entry: &(String, String)| {
            entry.0 == place.0 && place.1.as_ref().is_none_or(|file| is_file(file, &entry.1))
        };
        self.files.keys().filter(|entry| is_it(entry)).cloned().collect()
    }

    fn take(&mut self, name: Name<'_>) -> Vec<(String, Vec<u8>)> {
        let found = self.find(name);
        found.into_iter().map(|entry| (entry.1.clone(), self.files.remove(&entry).unwrap())).collect()
    }

    fn put(&mut self, name: Name<'_>, contents: Vec<(String, Vec<u8>)>) {
        let (folder, file) = place(name);
        for (old, content) in contents {
            self.files.insert((folder.clone(), file.clone().unwrap_or(old)), content);
        }
        self.changed();
    }

    fn content(&self, name: Name<'_>) -> Result<Vec<u8>, Code> {
        let entry = self.find(name).pop().ok_or(Code::RevisionUnknown)?;
        Ok(self.files[&entry].clone())
    }
}

/// Folder, and name in it; without one, all that is in it.
fn place(name: Name<'_>) -> (String, Option<String>) {
    let trail = |volume: Volume, stage: Stage, rev: RevName| format!("{volume:?} {stage:?} {rev}");
    match name {
        Name::Object(volume, id) => (format!("{volume:?} objects"), Some(id.to_string())),
        Name::Incoming(volume, id) => (format!("{volume:?} incoming"), Some(id.to_string())),
        Name::AllIncoming(volume) => (format!("{volume:?} incoming"), None),
        Name::Trail(volume, stage, rev) => (trail(volume, stage, rev), None),
        Name::File(volume, stage, rev, key) => (trail(volume, stage, rev), Some(key.into())),
        Name::Last => ("Boot".into(), Some("last".into())),
        Name::LoaderText(stage) => ("Boot".into(), Some(format!("{stage:?}-uboot.txt"))),
        Name::Memory(..) | Name::Metadata(..) => ("Storage".into(), Some(format!("{name:?}"))),
        Name::Others => ("Storage".into(), None),
    }
}

impl Disk for Memory {
    fn loader_reads(&self) -> Volume {
        self.reads
    }

    fn exists(&mut self, name: Name<'_>) -> Result<bool, Code> {
        self.call()?;
        Ok(!self.find(name).is_empty())
    }

    fn read(&mut self, name: Name<'_>, out: &mut [u8]) -> Result<usize, Code> {
        self.call()?;
        let content = self.content(name)?;
        out.get_mut(..content.len()).ok_or(Code::StorageDamaged)?.copy_from_slice(&content);
        Ok(content.len())
    }

    fn write(&mut self, name: Name<'_>, data: &[u8]) -> Result<(), Code> {
        self.effect(format!("write {name:?}"))?;
        self.put(name, vec![(String::new(), data.to_vec())]);
        Ok(())
    }

    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code> {
        self.write(name, sector)
    }

    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        self.effect(format!("copy {from:?} to {to:?}"))?;
        let content = self.content(from)?;
        self.put(to, vec![(String::new(), content)]);
        Ok(())
    }

    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        self.effect(format!("link {from:?} to {to:?}"))?;
        let content = self.content(from)?;
        self.put(to, vec![(String::new(), content)]);
        Ok(())
    }

    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        self.effect(format!("rename {from:?} to {to:?}"))?;
        if matches!(to, Name::Trail(..)) && !self.find(to).is_empty() {
            return Err(Code::StorageIo); // a folder that is not empty
        }
        let contents = self.take(from);
        if contents.is_empty() {
            return Err(Code::RevisionUnknown);
        }
        self.put(to, contents);
        Ok(())
    }

    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code> {
        self.effect(format!("exchange {one:?} and {other:?}"))?;
        let [first, second] = [one, other].map(|name| self.take(name));
        if first.is_empty() || second.is_empty() {
            return Err(Code::RevisionUnknown);
        }
        let blocks = self.blocks.take(); // no name comes or goes
        self.put(one, second);
        self.put(other, first);
        self.blocks = blocks;
        Ok(())
    }

    fn remove(&mut self, name: Name<'_>) -> Result<(), Code> {
        self.call()?;
        if !self.take(name).is_empty() {
            self.effects.push(format!("remove {name:?}"));
            self.changed();
        }
        Ok(())
    }

    fn sync_file(&mut self, name: Name<'_>) -> Result<(), Code> {
        self.effect(format!("sync file {name:?}"))
    }

    fn sync_dir(&mut self, dir: Dir) -> Result<(), Code> {
        self.effect(format!("sync folder {dir:?}"))
    }

    fn sync_volume(&mut self, volume: Volume) -> Result<(), Code> {
        self.effect(format!("sync volume {volume:?}"))
    }

    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code> {
        self.effect(format!("sync checkpoint {volume:?}"))
    }

    fn each_object(&mut self, dir: Dir, each: &mut dyn FnMut(ObjectId)) -> Result<(), Code> {
        self.call()?;
        let folder = match dir {
            Dir::Objects(volume) => format!("{volume:?} objects"),
            Dir::Incoming(volume) => format!("{volume:?} incoming"),
            Dir::Trails(_) | Dir::Root(_) => return Ok(()),
        };
        let names = self.files.keys().filter(|entry| entry.0 == folder);
        names.for_each(|entry| each(ObjectId::parse(&entry.1).unwrap()));
        Ok(())
    }

    fn each_trail(&mut self, volume: Volume, stage: Stage, each: &mut dyn FnMut(RevName)) -> Result<(), Code> {
        self.call()?;
        let folder = format!("{volume:?} {stage:?} ");
        let mut names: Vec<&str> = self.files.keys().filter_map(|entry| entry.0.strip_prefix(&folder)).collect();
        names.dedup();
        names.into_iter().for_each(|name| each(RevName::parse(name).unwrap()));
        Ok(())
    }

    fn trail_names(&mut self) -> Result<[Option<Names>; 2], Code> {
        self.call()?;
        let block = self.block;
        Ok(self.in_trails().map(|names| {
            let mut folder = Names::in_block(block);
            [".".len(), "..".len()]
                .into_iter()
                .chain(names.iter().map(String::len))
                .for_each(|length| folder.add(length));
            Some(folder).filter(|_| !self.is_blind)
        }))
    }

    fn free(&mut self, volume: Volume) -> Result<u64, Code> {
        self.call()?;
        Ok(self.free[volume as usize])
    }

    fn size(&mut self, name: Name<'_>) -> Result<u64, Code> {
        self.call()?;
        Ok(self.content(name)?.len() as u64)
    }
}

/// The journal's bytes.
pub(super) struct Cells(pub(super) [u8; journal::SIZE]);

impl Region for Cells {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        out.copy_from_slice(&self.0[offset as usize..][..out.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.0[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Code> {
        Ok(())
    }

    fn drop_cache(&mut self) {}
}
