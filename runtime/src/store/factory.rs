//! The factory reset: the device as it left the factory, revision 0 and nothing else.
//!
//! Order, over two boots: `intend` (the factory revision is whole and the loader sees it; the journal says what is wanted);
//! one environment store, which names the factory revision alone; the client is answered; restart. Before anything of the
//! factory revision starts: the same store once more, so that the other copy names nothing else either; `clear`.
//!
//! Invariants: the store decides. Before it nothing is removed, and at the next start the intent is forgotten. After it the
//! intent stays until everything is gone, so `clear` is done again at every start until it ends: nothing that runs sees a
//! part of what was before. (On a device that is committed to revision 0 already, the intent decides.)
//! While the factory revision is not whole nothing is removed.
//!
//! The release of the factory revision ends what a later one has begun. An older one, or the original, would start its containers
//! beside all that was to go, though its user was told that it goes: `intend` refuses where that release does not say of
//! itself that it knows the reset (`switchback.factory-reset` in `bsp/run.json`, which `pvr image bsp` writes).
//!
//! What it does not do: it does not try the factory revision as a candidate. Data that keeps containers from their
//! goals is a reason for a factory reset, and a trial beside that data would fail of it. It does not hash: whoever calls
//! `intend` compares `boot_files` with what they must be, before the store.

use super::{Scratch, collect, expose, last_text, named, read_state, taken, verify};
use crate::{
    fault::{Code, Refusal},
    id::{ObjectId, RevName},
    journal::{self, Record},
    port::{Disk, Name, Region, Stage, Volume},
    protocol::Row,
    state::State,
};

/// Makes the factory revision visible to the loader, and writes the record that says that a factory reset is wanted.
/// Nothing else changes.
pub fn intend<D: Disk, J: Region>(
    disk: &mut D,
    journal: &mut J,
    record: &Record,
    scratch: &mut Scratch<'_>,
) -> Result<(), Refusal> {
    verify(disk, RevName::factory(), scratch)?;
    let text = read_state(disk, RevName::factory(), scratch.state)?;
    if !State::read(text, scratch.spans)?.ends_factory_reset()? {
        return Err(Code::ResetUnknown.into());
    }
    expose(disk, journal, RevName::factory(), record, scratch)
}

/// What a loader reads of the factory revision, each with the object that it must be. Only after `intend`.
pub fn boot_files<D: Disk>(
    disk: &mut D,
    scratch: &mut Scratch<'_>,
) -> Result<heapless::Vec<(Name<'static>, ObjectId), 3>, Refusal> {
    let text = read_state(disk, RevName::factory(), scratch.state)?;
    let assets = State::read(text, scratch.spans)?.boot_assets()?;
    let file = |volume, key| Name::File(volume, Stage::Live, RevName::factory(), key);
    Ok(match disk.loader_reads() {
        Volume::Boot => named(&assets).map(|(name, id)| (file(Volume::Boot, name), id)).collect(),
        Volume::Storage => taken::named(&assets).map(|(key, _, id)| (file(Volume::Storage, key), id)).collect(),
    })
}

/// Removes everything but the factory revision, then writes the record that ends the factory reset. Both copies of the
/// environment name no other revision. Doing it again is no error.
pub fn clear<D: Disk, J: Region>(disk: &mut D, journal: &mut J, scratch: &mut Scratch<'_>) -> Result<(), Refusal> {
    let factory = RevName::factory();
    verify(disk, factory, scratch)?;
    // 1. What a loader without an environment boots, before it goes.
    disk.step(Row::OverwriteLast);
    disk.overwrite(Name::Last, &last_text(factory))?;
    disk.step(Row::SyncLast);
    disk.sync_volume(Volume::Boot)?;
    // 2. Revisions and objects; and what is neither. (What came in was swept at the start.)
    collect(disk, &[factory], scratch)?;
    disk.step(Row::DropOthers);
    disk.remove(Name::Others)?;
    // 3. All of that is gone for good before the journal says so.
    disk.step(Row::SyncCleared);
    for volume in [Volume::Storage, Volume::Boot] {
        disk.sync_volume(volume)?;
    }
    // 4. The end: whatever is made from now on is not removed at the next start.
    disk.step(Row::WriteEnd);
    journal::append(journal, &Record::none(factory))?;
    disk.step(Row::SyncEnd);
    Ok(disk.sync_volume(Volume::Boot)?)
}
