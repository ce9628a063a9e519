//! The durable procedures: how revisions come to be, become visible to the loader, and go.
//!
//! Purpose: the order of each sequence is readable in one function, and the same code runs in the keeper on
//! Linux and in the simulator. No allocation: buffers are handed in (`Scratch`).
//!
//! Invariants
//! * What has a final name is whole and durable: an object under `objects/`, a revision under `trails/`.
//! * Contents before names, names before the pointer. The pointer is the environment; it is not stored here.
//! * Removal is the other way round: the name's end is durable before content goes.
//! * A refusal comes before the first write. After a failed sync, what it covered is removed, not synced again.
//! * What is replaced changes places with its successor: at every instant one of the two has the name.
//!
//! Fault model: that of `port`. Every procedure may be cut after each effect; `recover` at the next start leaves
//! either the old or the new state.
//!
//! Syncs of a whole update, whatever its number of objects: `stage` 4 (volume, `objects/`, `trails/` and
//! `trails/locals/`), `prepare` 2 (volume, checkpoint; one more where it replaces what the loader may be reading), the
//! environment's arm 1, `record` of the trial 1 (not in place), the environment's commit 1, `record` of the end 1. That
//! is 10, and two environment stores; `message`, if there is one, takes 2 more. `tests/sim/tests/power_cut.rs` counts
//! them.
//!
//! What it does not do: it does not download or hash, and it decides nothing about updates.

use crate::{
    admit::{Candidate, Shelf, admit},
    fault::{Code, Refusal},
    id::{ObjectId, RevName, Text},
    journal::{self, Phase, Record},
    limits,
    port::{Dir, Disk, Name, Region, Stage, Volume},
    protocol::Row,
    state::{BootAssets, Plan, Spans, State, Value},
};
use core::fmt::Write;

pub mod factory;
mod folder;
mod memory;
mod message;
pub mod metadata;
pub mod taken;

pub use memory::{recall, remember};
pub use message::message;

/// Buffers that the procedures work in.
pub struct Scratch<'a> {
    /// A state that is read back: `limits::STATE_MAX`.
    pub state: &'a mut [u8],
    /// What the kept revisions name, for `collect`: `limits::KEPT_MAX * limits::STATE_ENTRIES_MAX`.
    pub marks: &'a mut [u64],
    /// A container's configuration: `limits::LXC_CONF_MAX`.
    pub conf: &'a mut [u8],
    /// Entries of a state.
    pub spans: &'a mut Spans,
    /// A state as the machine would read it, for `stage`.
    pub plan: &'a mut Plan,
}

/// A revision to stage.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Its name.
    pub rev: RevName,
    /// Its state JSON, raw.
    pub state: &'a [u8],
    /// Commit message, may be empty.
    pub message: &'a str,
    /// Its first progress document.
    pub progress: &'a str,
}

const STATE_FILE: &str = ".pvr/json";
const PROGRESS_FILE: &str = ".pv/progress";
const PROGRESS_NEXT: &str = ".pv/progress.new";
const MESSAGE_FILE: &str = ".pv/commitmsg";
const MESSAGE_NEXT: &str = ".pv/commitmsg.new";
/// On the boot volume: which objects the boot assets are, one line each.
const ASSETS_FILE: &str = "assets";
/// Space that a file or folder takes beside its content.
const BLOCK: u64 = 4096;

/// Removes what an interrupted procedure left. Nothing of it was visible under a final name; no sync is needed.
pub fn recover<D: Disk>(disk: &mut D) -> Result<(), Code> {
    disk.step(Row::Sweep);
    for &volume in volumes(disk) {
        for stage in [Stage::New, Stage::Dead] {
            while let Some(rev) = find_trail(disk, volume, stage, |_| true)? {
                disk.remove(Name::Trail(volume, stage, rev))?;
            }
        }
        disk.remove(Name::AllIncoming(volume))?;
    }
    Ok(())
}

/// Makes a revision of a state whose objects have all arrived. `protected`: the running revision and every one that
/// either copy of the environment names. The same state under the same name again is no error.
pub fn stage<D: Disk>(
    disk: &mut D,
    step: Step<'_>,
    protected: &[RevName],
    scratch: &mut Scratch<'_>,
) -> Result<(), Refusal> {
    let rev = step.rev;
    let Scratch { state: standing, conf, spans, plan, .. } = scratch;
    let candidate = Candidate { rev, state: step.state, message: step.message };
    let state = admit(&mut Held(disk), candidate, conf, spans, plan)?;
    let live = Name::Trail(Volume::Storage, Stage::Live, rev);
    let replaces = disk.exists(live)?;
    if replaces && is_staged(disk, rev, step.state, &state, standing)? {
        // the one that staged it may have failed at its last sync
        disk.step(Row::SyncTrails);
        return Ok(disk.sync_dir(Dir::Trails(Volume::Storage))?);
    }
    if rev == RevName::factory() || replaces && protected.contains(&rev) {
        return Err(Code::RevisionInUse.into());
    }
    room(disk, &state, step.state)?;
    if disk.loader_reads() == Volume::Storage {
        folder::room(disk, rev)?;
    }
    disk.step(Row::Build);
    if let Err(refusal) = build(disk, &step, &state) {
        disk.remove(Name::Trail(Volume::Storage, Stage::New, rev))?;
        return Err(refusal);
    }

    // 1. Contents: the objects that came in, the inline files, and the names inside the new folder.
    disk.step(Row::SyncContents);
    if let Err(code) = disk.sync_volume(Volume::Storage) {
        abandon(disk, rev)?;
        return Err(code.into());
    }
    // 2. Names of objects, before a revision counts on them.
    disk.step(Row::NameObjects);
    for id in objects(&state) {
        if !disk.exists(Name::Object(Volume::Storage, id))? {
            disk.rename(Name::Incoming(Volume::Storage, id), Name::Object(Volume::Storage, id))?;
        }
    }
    disk.step(Row::SyncObjects);
    disk.sync_dir(Dir::Objects(Volume::Storage))?;
    // 3. Name of the revision.
    disk.step(Row::NameRevision);
    let new = Name::Trail(Volume::Storage, Stage::New, rev);
    if replaces {
        disk.exchange(new, live)?
    } else {
        disk.rename(new, live)?
    }
    disk.step(Row::SyncTrails);
    disk.sync_dir(Dir::Trails(Volume::Storage))?;
    if replaces {
        disk.step(Row::DropReplaced);
        let _ = disk.remove(new); // the one before; what is left of it is swept at the next start
    }
    Ok(())
}

/// Makes a staged candidate visible to the loader, and writes the record that says why it is about to be armed.
/// Doing it again is no error, and makes sure again that the loader sees it.
pub fn prepare<D: Disk, J: Region>(
    disk: &mut D,
    journal: &mut J,
    record: &Record,
    scratch: &mut Scratch<'_>,
) -> Result<(), Refusal> {
    expose(disk, journal, record.candidate, record, scratch)
}

/// Makes a revision visible to the loader, with a record that is durable then too.
fn expose<D: Disk, J: Region>(
    disk: &mut D,
    journal: &mut J,
    rev: RevName,
    record: &Record,
    scratch: &mut Scratch<'_>,
) -> Result<(), Refusal> {
    if disk.loader_reads() == Volume::Storage {
        return taken::expose(disk, journal, rev, record, scratch);
    }
    let text = read_state(disk, rev, scratch.state)?;
    let assets = State::read(text, scratch.spans)?.boot_assets()?;
    let [live, new] = [Stage::Live, Stage::New].map(|stage| Name::Trail(Volume::Boot, stage, rev));
    let ready = is_prepared(disk, rev, &assets)?;
    if !ready {
        boot_room(disk, &assets)?;
        disk.step(Row::BuildAssets);
        if let Err(refusal) = build_boot(disk, rev, &assets) {
            abandon_boot(disk, rev, &assets)?;
            return Err(refusal);
        }
    }
    disk.step(Row::WriteIntent);
    journal::append(journal, record)?;

    // 1. Contents: the assets, the names inside the new folder, the record.
    disk.step(Row::SyncAssets);
    if let Err(code) = disk.sync_volume(Volume::Boot) {
        abandon_boot(disk, rev, &assets)?;
        return Err(code.into());
    }
    // 2. Another state of this name that `stage` replaced, or a factory image that does not say what it is of: the
    //    environment may name it. A checkpoint writes back one block after the other, the new name maybe first: a
    //    loader must find there what it names, and for that it must be at its place before.
    let replaces = !ready && disk.exists(live)?;
    if replaces {
        disk.step(Row::ShowAssets);
        disk.checkpoint(Volume::Boot).map_err(|_| Code::CheckpointFailed)?;
    }
    // 3. Names. Each file has a name in the folder already, so neither of the two waits for the other.
    if !ready {
        disk.step(Row::NameAssets);
        for (_, id) in named(&assets) {
            if !disk.exists(Name::Object(Volume::Boot, id))? {
                disk.rename(Name::Incoming(Volume::Boot, id), Name::Object(Volume::Boot, id))?;
            }
        }
        // What stands there changes places: it is never gone.
        if replaces { disk.exchange(new, live)? } else { disk.rename(new, live)? }
    }
    // 4. The loader reads the medium, not the file system's journal.
    disk.step(Row::Checkpoint);
    disk.checkpoint(Volume::Boot).map_err(|_| Code::CheckpointFailed)?;
    disk.step(Row::DropOldAssets);
    let _ = disk.remove(new); // what was there before; what is left of it is swept at the next start
    Ok(())
}

/// Writes a journal record, and with a final one `last` and the progress of the revision.
pub fn record<D: Disk, J: Region>(
    disk: &mut D,
    journal: &mut J,
    record: &Record,
    progress_text: Option<&str>,
) -> Result<(), Code> {
    disk.step(Row::WriteRecord);
    journal::append(journal, record)?;
    if matches!(record.phase, Phase::Done { .. } | Phase::Failed { code: Code::ColdBootFailed, .. }) {
        disk.step(Row::WriteLast);
        disk.overwrite(Name::Last, &last_text(record.committed()))?;
    }
    disk.step(Row::SyncRecord);
    disk.sync_volume(Volume::Boot)?;
    if let Some(text) = progress_text {
        // The record says the same, durably; from it the progress is written again at the next start.
        let _ = progress(disk, record.candidate, text);
    }
    Ok(())
}

/// Replaces the progress document of a revision: whole or not at all in the running system, not durable by itself.
pub fn progress<D: Disk>(disk: &mut D, rev: RevName, text: &str) -> Result<(), Code> {
    let next = Name::File(Volume::Storage, Stage::Live, rev, PROGRESS_NEXT);
    if !disk.exists(Name::Trail(Volume::Storage, Stage::Live, rev))? {
        return Err(Code::RevisionUnknown);
    }
    disk.step(Row::WriteProgress);
    disk.write(next, text.as_bytes())?;
    disk.step(Row::NameProgress);
    disk.rename(next, Name::File(Volume::Storage, Stage::Live, rev, PROGRESS_FILE))
}

/// Removes every revision but `keep`, the factory one and the one that `last` names, and then every object that none
/// of those names. Objects that came in for a revision not staged yet are not touched. Returns the bytes of what went.
pub fn collect<D: Disk>(disk: &mut D, keep: &[RevName], scratch: &mut Scratch<'_>) -> Result<u64, Code> {
    let last = read_last(disk)?;
    let kept = |rev: &RevName| keep.contains(rev) || *rev == RevName::factory() || last == Some(*rev);
    disk.step(Row::Mark);
    // Marks first: while a kept state cannot be read, nothing goes.
    let marks = mark(disk, kept, scratch)?;
    let mut bytes = 0;
    // A folder that the loader reads must not grow by names on their way out: one at a time.
    let at_once = if disk.loader_reads() == Volume::Storage { 1 } else { usize::MAX };
    for &volume in volumes(disk) {
        loop {
            // 1. Names of revisions.
            disk.step(Row::UnnameRevisions);
            let mut gone = 0;
            while gone < at_once
                && let Some(rev) = find_trail(disk, volume, Stage::Live, |rev| !kept(rev))?
            {
                let dead = Name::Trail(volume, Stage::Dead, rev);
                disk.remove(dead)?;
                disk.rename(Name::Trail(volume, Stage::Live, rev), dead)?;
                gone += 1;
            }
            if gone > 0 {
                disk.step(Row::SyncUnnamed);
                disk.sync_dir(Dir::Trails(volume))?;
            }
            // 2. What they consisted of.
            disk.step(Row::DropRevisions);
            while let Some(rev) = find_trail(disk, volume, Stage::Dead, |_| true)? {
                disk.remove(Name::Trail(volume, Stage::Dead, rev))?;
            }
            if gone < at_once {
                break;
            }
        }
        // 3. Objects that no revision names.
        disk.step(Row::DropObjects);
        while let Some(id) = find_object(disk, Dir::Objects(volume), |id| marks.binary_search(&mark_of(id)).is_err())? {
            bytes += disk.size(Name::Object(volume, id))?;
            disk.remove(Name::Object(volume, id))?;
        }
    }
    Ok(bytes)
}

/// Whether a revision can be run, as far as that is cheap to see: its state is valid and no file of it is missing.
pub fn verify<D: Disk>(disk: &mut D, rev: RevName, scratch: &mut Scratch<'_>) -> Result<(), Refusal> {
    let text = read_state(disk, rev, scratch.state)?;
    let state =
        State::read(text, scratch.spans).map_err(|refusal| Refusal { code: Code::StorageDamaged, ..refusal })?;
    match missing_file(disk, rev, &state)? {
        Some(key) => Err(Refusal::key(Code::StorageDamaged, key)),
        None => Ok(()),
    }
}

/// The content of `last`: one sector, a line of environment text and a comment, so that a loader can import it.
pub fn last_text(rev: RevName) -> [u8; 512] {
    let mut sector = [b'#'; 512];
    let line = "pv_rev=".len() + rev.as_str().len();
    sector[..7].copy_from_slice(b"pv_rev=");
    sector[7..line].copy_from_slice(rev.as_str().as_bytes());
    sector[line] = b'\n';
    sector[511] = b'\n';
    sector
}

/// The revision that a `last` names.
pub fn parse_last(sector: &[u8]) -> Option<RevName> {
    let line = core::str::from_utf8(sector).ok()?.lines().next()?;
    RevName::parse(line.strip_prefix("pv_rev=")?).ok()
}

/// The revision that `last` names, if it is there and readable as such.
pub fn read_last<D: Disk>(disk: &mut D) -> Result<Option<RevName>, Code> {
    let mut sector = [0u8; 512];
    match disk.read(Name::Last, &mut sector) {
        Ok(length) => Ok(parse_last(&sector[..length])),
        Err(Code::RevisionUnknown) => Ok(None),
        Err(code) => Err(code),
    }
}

/// The volumes that hold objects and revisions.
fn volumes<D: Disk>(disk: &D) -> &'static [Volume] {
    match disk.loader_reads() {
        Volume::Boot => &[Volume::Storage, Volume::Boot],
        Volume::Storage => &[Volume::Storage],
    }
}

// ---- states -------------------------------------------------------------------------------------------------------

/// The objects of a state, one for each entry.
fn objects<'a>(state: &State<'a>) -> impl Iterator<Item = ObjectId> + use<'a> {
    state.entries().filter_map(|entry| match entry.value {
        Value::Object(id) => Some(id),
        Value::Inline(_) => None,
    })
}

/// The objects that are on storage, under their name or still coming in.
struct Held<'d, D>(&'d mut D);

impl<D: Disk> Shelf for Held<'_, D> {
    fn size(&mut self, id: ObjectId) -> Result<u64, Code> {
        let file = held(self.0, id)?;
        self.0.size(file)
    }

    fn read(&mut self, id: ObjectId, out: &mut [u8]) -> Result<usize, Code> {
        let file = held(self.0, id)?;
        self.0.read(file, out)
    }
}

/// Where an object is now.
fn held<'a, D: Disk>(disk: &mut D, id: ObjectId) -> Result<Name<'a>, Code> {
    for name in [Name::Object(Volume::Storage, id), Name::Incoming(Volume::Storage, id)] {
        if disk.exists(name)? {
            return Ok(name);
        }
    }
    Err(Code::ObjectMissing)
}

/// Whether exactly this state stands under this name, whole.
fn is_staged<D: Disk>(
    disk: &mut D,
    rev: RevName,
    text: &[u8],
    state: &State<'_>,
    out: &mut [u8],
) -> Result<bool, Code> {
    match read_state(disk, rev, out) {
        Ok(standing) if standing == text => Ok(missing_file(disk, rev, state)?.is_none()),
        Ok(_) | Err(Code::RevisionUnknown | Code::StorageDamaged) => Ok(false),
        Err(code) => Err(code),
    }
}

fn read_state<'a, D: Disk>(disk: &mut D, rev: RevName, out: &'a mut [u8]) -> Result<&'a [u8], Code> {
    let length = disk.read(Name::File(Volume::Storage, Stage::Live, rev, STATE_FILE), out)?;
    Ok(&out[..length])
}

fn missing_file<'a, D: Disk>(disk: &mut D, rev: RevName, state: &State<'a>) -> Result<Option<&'a str>, Code> {
    for entry in state.entries() {
        if !disk.exists(Name::File(Volume::Storage, Stage::Live, rev, entry.key))? {
            return Ok(Some(entry.key));
        }
    }
    Ok(None)
}

/// Space for the files that `build` makes; the objects are there already.
fn room<D: Disk>(disk: &mut D, state: &State<'_>, text: &[u8]) -> Result<(), Code> {
    let files = state.entries().count() as u64 + 8;
    let needed = files * 2 * BLOCK + 2 * text.len() as u64;
    if disk.free(Volume::Storage)? < needed + limits::FREE_FLOOR { Err(Code::NoSpace) } else { Ok(()) }
}

/// The folder of a revision, under a name that nobody looks at.
fn build<D: Disk>(disk: &mut D, step: &Step<'_>, state: &State<'_>) -> Result<(), Refusal> {
    let file = |key| Name::File(Volume::Storage, Stage::New, step.rev, key);
    disk.remove(Name::Trail(Volume::Storage, Stage::New, step.rev))?;
    for entry in state.entries() {
        let made = match entry.value {
            Value::Inline(raw) => disk.write(file(entry.key), raw),
            Value::Object(id) => held(disk, id).and_then(|object| disk.link(object, file(entry.key))),
        };
        made.map_err(|code| Refusal::key(code, entry.key))?;
    }
    disk.write(file(STATE_FILE), step.state)?;
    disk.write(file(PROGRESS_FILE), step.progress.as_bytes())?;
    if !step.message.is_empty() {
        disk.write(file(MESSAGE_FILE), step.message.as_bytes())?;
    }
    match disk.loader_reads() {
        Volume::Storage => taken::build(disk, step.rev, state, held),
        Volume::Boot => Ok(()),
    }
}

/// After a failed sync: nothing that came in may ever become durable, whatever a later sync says. The error is told
/// once, and may be that of another revision's object, or of one that is still being received.
fn abandon<D: Disk>(disk: &mut D, rev: RevName) -> Result<(), Code> {
    disk.remove(Name::AllIncoming(Volume::Storage))?;
    disk.remove(Name::Trail(Volume::Storage, Stage::New, rev))
}

// ---- boot assets --------------------------------------------------------------------------------------------------

/// The boot assets of a revision: their names on the boot volume, and their objects.
fn named(assets: &BootAssets) -> impl Iterator<Item = (&'static str, ObjectId)> + use<> {
    let fdt = assets.fdt.map(|id| ("pv-fdt.dtb", id));
    [("pv-kernel.img", assets.linux), ("pv-initrd.img", assets.initrd)].into_iter().chain(fdt)
}

/// The content of `ASSETS_FILE`.
fn asset_list(assets: &BootAssets) -> Text<255> {
    let mut list = heapless::String::<255>::new();
    for (name, id) in named(assets) {
        let _ = writeln!(list, "{name} {id}"); // three lines of 13 + 1 + 64 + 1 bytes at most
    }
    Text::clip(&list)
}

fn is_prepared<D: Disk>(disk: &mut D, rev: RevName, assets: &BootAssets) -> Result<bool, Code> {
    let file = |name| Name::File(Volume::Boot, Stage::Live, rev, name);
    are_there(disk, assets, file(ASSETS_FILE), named(assets).map(|(name, _)| file(name)))
}

/// Whether `list_file` says that we have named these assets, and each of the names is there.
fn are_there<D: Disk>(
    disk: &mut D,
    assets: &BootAssets,
    list_file: Name<'_>,
    names: impl Iterator<Item = Name<'static>>,
) -> Result<bool, Code> {
    let mut list = [0u8; 256];
    match disk.read(list_file, &mut list) {
        Ok(length) if list[..length] == *asset_list(assets).as_str().as_bytes() => {}
        Ok(_) | Err(Code::RevisionUnknown | Code::StorageDamaged) => return Ok(false),
        Err(code) => return Err(code),
    }
    for name in names {
        if !disk.exists(name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Space for the assets that are not on the boot volume yet.
fn boot_room<D: Disk>(disk: &mut D, assets: &BootAssets) -> Result<(), Code> {
    let mut needed = limits::BOOT_FLOOR + 8 * BLOCK;
    for (_, id) in named(assets) {
        if !disk.exists(Name::Object(Volume::Boot, id))? {
            needed += disk.size(Name::Object(Volume::Storage, id))? + BLOCK;
        }
    }
    if disk.free(Volume::Boot)? < needed { Err(Code::NoSpace) } else { Ok(()) }
}

/// The folder that the loader will look at, under a name that it does not look at.
fn build_boot<D: Disk>(disk: &mut D, rev: RevName, assets: &BootAssets) -> Result<(), Refusal> {
    abandon_boot(disk, rev, assets)?; // of an earlier attempt: what is incoming may not be whole
    for (name, id) in named(assets) {
        let (object, incoming) = (Name::Object(Volume::Boot, id), Name::Incoming(Volume::Boot, id));
        let here = disk.exists(object)?;
        if !here && !disk.exists(incoming)? {
            // (two assets may be the same object)
            disk.copy(Name::Object(Volume::Storage, id), incoming).map_err(|code| Refusal::key(code, name))?;
        }
        let from = if here { object } else { incoming };
        disk.link(from, Name::File(Volume::Boot, Stage::New, rev, name))?;
    }
    Ok(disk.write(Name::File(Volume::Boot, Stage::New, rev, ASSETS_FILE), asset_list(assets).as_str().as_bytes())?)
}

fn abandon_boot<D: Disk>(disk: &mut D, rev: RevName, assets: &BootAssets) -> Result<(), Code> {
    for (_, id) in named(assets) {
        disk.remove(Name::Incoming(Volume::Boot, id))?;
    }
    disk.remove(Name::Trail(Volume::Boot, Stage::New, rev))
}

// ---- finding ------------------------------------------------------------------------------------------------------

/// Eight bytes of an object's name. Two objects with the same mark keep each other, which costs only space.
fn mark_of(id: &ObjectId) -> u64 {
    id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The marks of all objects that kept revisions name, sorted.
fn mark<'a, D: Disk>(
    disk: &mut D,
    kept: impl Fn(&RevName) -> bool,
    scratch: &'a mut Scratch<'_>,
) -> Result<&'a [u64], Code> {
    let mut used = 0;
    let mut done = heapless::Vec::<RevName, { limits::KEPT_MAX }>::new();
    while let Some(rev) = find_trail(disk, Volume::Storage, Stage::Live, |rev| kept(rev) && !done.contains(rev))? {
        done.push(rev).map_err(|_| Code::Internal)?;
        let text = read_state(disk, rev, scratch.state).map_err(|code| match code {
            Code::RevisionUnknown => Code::StorageDamaged,
            other => other,
        })?;
        let state = State::read(text, scratch.spans).map_err(|_| Code::StorageDamaged)?;
        for id in objects(&state) {
            *scratch.marks.get_mut(used).ok_or(Code::Internal)? = mark_of(&id);
            used += 1;
        }
    }
    let marks = &mut scratch.marks[..used];
    marks.sort_unstable();
    Ok(marks)
}

/// Some revision of a volume at a stage. The folder is read anew each time, because callers change it.
fn find_trail<D: Disk>(
    disk: &mut D,
    volume: Volume,
    stage: Stage,
    wanted: impl Fn(&RevName) -> bool,
) -> Result<Option<RevName>, Code> {
    let mut found = None;
    disk.each_trail(volume, stage, &mut |rev| {
        if found.is_none() && wanted(&rev) {
            found = Some(rev);
        }
    })?;
    Ok(found)
}

/// Some object of a folder.
fn find_object<D: Disk>(disk: &mut D, dir: Dir, wanted: impl Fn(&ObjectId) -> bool) -> Result<Option<ObjectId>, Code> {
    let mut found = None;
    disk.each_object(dir, &mut |id| {
        if found.is_none() && wanted(&id) {
            found = Some(id);
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests;
