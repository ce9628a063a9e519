//! The doors to the hardware: `runtime::port`'s traits over it, call by call and effect by effect.

use crate::medium::{
    Hardware, Lie, Model, Mutant, Reach, SECTOR,
    cells::Cells,
    files::{Content, Effect, Folder, Label},
};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    port::{Dir, Disk, Name, Names, Region, Stage, Volume},
    protocol::Row,
};
use std::{cell::RefCell, rc::Rc};

/// Bytes of a folder that is one block.
const FOLDER: usize = 4096;

/// The doors to one piece of hardware.
#[derive(Clone)]
pub struct Bench(Rc<RefCell<Hardware>>);

impl Bench {
    /// Doors to this hardware.
    pub fn new(hardware: Hardware) -> Self {
        Self(Rc::new(RefCell::new(hardware)))
    }

    /// The hardware, when all other doors to it are gone.
    pub(crate) fn into_hardware(self) -> Hardware {
        Rc::into_inner(self.0).expect("nobody else looks").into_inner()
    }

    /// Looks at or changes the hardware.
    pub fn with<T>(&self, f: impl FnOnce(&mut Hardware) -> T) -> T {
        f(&mut self.0.borrow_mut())
    }

    /// The environment's bytes.
    pub fn env(&self) -> Raw {
        Raw { bench: self.clone(), place: Place::Environment }
    }

    /// The journal's bytes.
    pub fn journal(&self) -> Raw {
        Raw { bench: self.clone(), place: Place::Journal }
    }

    /// An object arrives: whole in the running system, not durable.
    pub fn arrive(&self, id: ObjectId, content: &[u8]) -> Result<(), Code> {
        let mut disk = self.clone();
        disk.step(Row::Arrive);
        disk.write(Name::Incoming(Volume::Storage, id), content)
    }
}

fn volume_of(name: Name<'_>) -> Volume {
    match name {
        Name::Object(volume, _)
        | Name::Incoming(volume, _)
        | Name::AllIncoming(volume)
        | Name::Trail(volume, ..)
        | Name::File(volume, ..) => volume,
        Name::Last | Name::LoaderText(_) => Volume::Boot,
        Name::Memory(..) | Name::Metadata(..) | Name::Others => Volume::Storage,
    }
}

impl Disk for Bench {
    fn step(&mut self, row: Row) {
        self.with(|hw| hw.step(row));
    }

    fn loader_reads(&self) -> Volume {
        if self.with(|hw| hw.is_one()) { Volume::Storage } else { Volume::Boot }
    }

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
        let (answer, reach) = hw.attempt_in_part()?;
        hw.effect(|| format!("write {name:?}, {} bytes", data.len()))?;
        let files = hw.files(volume_of(name));
        let fits = files.used() + data.len() as u64 <= files.capacity;
        let length = if fits { reach.of(data.len()) } else { data.len() / 2 };
        files.put(name, Content::new(&data[..length]), false);
        if fits { answer } else { answer.and(Err(Code::NoSpace)) }
    }

    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let answer = hw.attempt()?;
        hw.effect(|| format!("overwrite {name:?}"))?;
        hw.files(volume_of(name)).put(name, Content::new(sector), true);
        answer
    }

    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let mut content = vec![0; 1 << 16];
        let length = self.read(from, &mut content)?;
        self.write(to, &content[..length])
    }

    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let answer = hw.attempt()?;
        hw.effect(|| format!("link {from:?} -> {to:?}"))?;
        let files = hw.files(volume_of(to));
        let inode = files.find(from).ok_or(Code::RevisionUnknown)?;
        let entry = files.make_entry(to);
        if files.live.contains_key(&entry) {
            return Err(Code::StorageIo);
        }
        files.set(entry, inode);
        answer
    }

    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let answer = hw.attempt()?;
        hw.effect(|| format!("rename {from:?} -> {to:?}"))?;
        let files = hw.files(volume_of(to));
        let inode = files.find(from).ok_or(Code::RevisionUnknown)?;
        let (from, to) = (files.entry(from).expect("it was found"), files.make_entry(to));
        if let Some(old) = files.live.get(&to)
            && files.live.keys().any(|(folder, _)| *folder == Folder::Of(*old))
        {
            return Err(Code::StorageIo); // a folder that is not empty
        }
        files.shift(from, to, inode);
        answer
    }

    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let answer = hw.attempt()?;
        hw.effect(|| format!("exchange {one:?} and {other:?}"))?;
        let files = hw.files(volume_of(one));
        let find =
            |name| files.entry(name).and_then(|entry| files.live.get(&entry).map(|inode| (entry.clone(), *inode)));
        let ((one, first), (other, second)) =
            (find(one).ok_or(Code::RevisionUnknown)?, find(other).ok_or(Code::RevisionUnknown)?);
        files.swap([(one, second), (other, first)]);
        answer
    }

    fn remove(&mut self, name: Name<'_>) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        let answer = hw.attempt()?;
        let files = hw.files(volume_of(name));
        let entries = match name {
            Name::AllIncoming(_) => files.below(Folder::Incoming),
            Name::Others => files.below(Folder::Root),
            Name::File(..) => files.with_below(name),
            _ => files.entry(name).filter(|entry| files.live.contains_key(entry)).into_iter().collect(),
        };
        if entries.is_empty() {
            return Ok(());
        }
        hw.effect(|| format!("remove {name:?}"))?;
        for entry in entries {
            hw.files(volume_of(name)).clear(entry);
        }
        answer
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
        hw.sync_all(volume)
    }

    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.sync(volume, "checkpoint", |effect| !matches!(effect, Effect::Data { .. }))?;
        // Two things: what the file system's journal holds then is written to its place one block after the other.
        hw.effect(|| format!("{volume:?} written back"))?;
        hw.files(volume).show();
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

    fn trail_names(&mut self) -> Result<[Option<Names>; 2], Code> {
        let hw = &mut *self.0.borrow_mut();
        hw.call()?;
        let mut folders = [Names::in_block(FOLDER), Names::in_block(FOLDER)];
        folders.iter_mut().for_each(|folder| [".", ".."].iter().for_each(|name| folder.add(name.len())));
        folders[0].add("locals".len());
        for (_, label) in hw.files(Volume::Storage).below(Folder::Trails) {
            let Label::Trail(stage, rev) = label else { continue };
            match (stage, rev.as_str().strip_prefix("locals/")) {
                (Stage::Live, Some(name)) => folders[1].add(name.len()),
                (Stage::Live, None) => folders[0].add(rev.as_str().len()),
                (Stage::New | Stage::Dead, _) => folders[0].add(".new-".len() + rev.as_str().len()),
            }
        }
        Ok(folders.map(Some))
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

/// What bytes at fixed places are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The loader's environment: raw bytes; on a device that was taken over its text, and from `MARK_AT` its mark.
    Environment,
    /// The slots of the journal.
    Journal,
}

/// Where the mark of the original's loader is seen, beside its text.
pub const MARK_AT: u64 = 1 << 16;

/// Bytes at fixed places.
#[derive(Clone)]
pub struct Raw {
    bench: Bench,
    place: Place,
}

impl Raw {
    fn cells<'h>(&self, hw: &'h mut Hardware) -> &'h mut Cells {
        if self.place == Place::Journal { &mut hw.journal } else { &mut hw.env }
    }

    fn word(&self) -> &'static str {
        if self.place == Place::Journal { "journal" } else { "environment" }
    }

    /// The file that is the environment, if it is one.
    fn text(&self, hw: &mut Hardware) -> Option<u32> {
        let is_text = self.place == Place::Environment && hw.is_one();
        if is_text { hw.storage.find(Name::LoaderText(Stage::Live)) } else { None }
    }

    /// The file that an offset is in, or where in the cells it is.
    fn at(&self, hw: &mut Hardware, offset: u64) -> Result<u32, usize> {
        match self.text(hw) {
            Some(text) if offset < MARK_AT => Ok(text),
            Some(_) => Err((offset - MARK_AT) as usize),
            None => Err(offset as usize),
        }
    }
}

impl Region for Raw {
    fn step(&mut self, row: Row) {
        self.bench.with(|hw| hw.step(row));
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        let hw = &mut *self.bench.0.borrow_mut();
        hw.call()?;
        let bytes = match self.at(hw, offset) {
            Ok(text) => &hw.storage.inodes[text as usize].live[offset as usize..],
            Err(at) => &self.cells(hw).live[at..],
        };
        out.copy_from_slice(&bytes[..out.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        let hw = &mut *self.bench.0.borrow_mut();
        let (answer, reach) = hw.attempt_in_part()?;
        hw.effect(|| format!("write {} at {offset}", self.word()))?;
        let length = reach.of(data.len() / SECTOR) * SECTOR + if reach == Reach::All { data.len() % SECTOR } else { 0 };
        match self.at(hw, offset) {
            Ok(_) if length == 0 => {}
            Ok(text) => hw.storage.overwrite(text, &data[..length]),
            Err(at) => self.cells(hw).write(at, &data[..length]),
        }
        answer
    }

    fn sync(&mut self) -> Result<(), Code> {
        let hw = &mut *self.bench.0.borrow_mut();
        let (answer, reach) = hw.attempt_sync()?;
        hw.effect(|| format!("sync {}", self.word()))?;
        hw.syncs += 1;
        let (mutant, calls) = (hw.mutant, hw.calls as usize);
        let failed = match (hw.lie, &answer) {
            (Some(Lie::Drops), _) => return Ok(()),
            (Some(Lie::Forgets), _) => Some(Reach::Nothing),
            (None, Err(_)) => Some(reach),
            (None, Ok(())) => None,
        };
        let is_skipped = self.place == Place::Environment && mutant == Some(Mutant::NoEnvironmentSync);
        let text = self.text(hw);
        match failed {
            Some(reach) => self.cells(hw).fail(reach, calls),
            None if is_skipped => {}
            None => self.cells(hw).sync(),
        }
        if let Some(text) = text {
            let ordered = hw.storage.model == Model::Ext4Ordered;
            let is_its = |effect: &Effect| matches!(effect, Effect::Data { inode, .. } if *inode == text);
            match failed {
                Some(reach) => hw.storage.fail(reach, is_its),
                None if is_skipped => {}
                None => hw.storage.flush(|effect| is_its(effect) || ordered && effect.is_name()),
            }
        }
        if mutant == Some(Mutant::UncheckedSync) || hw.lie.is_some() { Ok(()) } else { answer }
    }

    fn drop_cache(&mut self) {
        let hw = &mut *self.bench.0.borrow_mut();
        self.cells(hw).drop_cache();
        if let Some(text) = self.text(hw) {
            hw.storage.drop_cache(text);
        }
    }
}
