//! One small file of storage, replaced whole: what is kept for errands, and the records of metadata.
//!
//! Invariants: whenever the power goes, the old content or the new one is there; what was acknowledged is the new one. One
//! replacement at a time of a name.
//! What it does not do: it does not know what it keeps.

use crate::{
    fault::Code,
    port::{Dir, Disk, Name, Owner, Stage, Volume},
    protocol::Row,
};

/// Keeps what an errand wants kept. Whenever the power goes, the old or the new is there as a whole; once this
/// returned `Ok`, the new.
pub fn remember<D: Disk>(disk: &mut D, owner: Owner, bytes: &[u8]) -> Result<(), Code> {
    replace(disk, |stage| Name::Memory(owner, stage), bytes)
}

/// Replaces a file in storage's own folder, whole.
pub(super) fn replace<D: Disk>(disk: &mut D, name: impl Fn(Stage) -> Name<'static>, bytes: &[u8]) -> Result<(), Code> {
    let [new, kept] = [name(Stage::New), name(Stage::Live)];
    disk.step(Row::WriteMemory);
    disk.remove(new)?; // of a request that was cut
    // 1. The content, before the name promises it.
    let written = disk.write(new, bytes).and_then(|()| {
        disk.step(Row::SyncMemory);
        disk.sync_file(new)
    });
    if let Err(code) = written {
        disk.remove(new)?;
        return Err(code);
    }
    disk.step(Row::NameMemory);
    disk.rename(new, kept)?;
    // 2. The name, before anybody is told.
    disk.step(Row::SyncRoot);
    disk.sync_dir(Dir::Root(Volume::Storage))
}

/// What is kept for an errand; its length, 0 if there is nothing. `StorageDamaged` if it does not fit `out`.
pub fn recall<D: Disk>(disk: &mut D, owner: Owner, out: &mut [u8]) -> Result<usize, Code> {
    read(disk, Name::Memory(owner, Stage::Live), out)
}

/// A file that `replace` made, or nothing.
pub(super) fn read<D: Disk>(disk: &mut D, kept: Name<'_>, out: &mut [u8]) -> Result<usize, Code> {
    if disk.exists(kept)? { disk.read(kept, out) } else { Ok(0) }
}
