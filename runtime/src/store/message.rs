//! The commit message of a staged revision, replaced whole.
//!
//! Invariants: whenever the power goes, the message of before or the new one is there; what was acknowledged is the new one.
//! What it does not do: it does not look at the text; the state of the revision stays as it is.

use crate::{
    fault::{Code, Refusal},
    id::RevName,
    limits,
    port::{Disk, Name, Stage, Volume},
    protocol::Row,
};

/// Replaces the message of a staged revision.
pub fn message<D: Disk>(disk: &mut D, rev: RevName, text: &str) -> Result<(), Refusal> {
    if text.len() > limits::COMMIT_MESSAGE_MAX {
        return Err(Code::MessageTooLong.into());
    }
    if !disk.exists(Name::Trail(Volume::Storage, Stage::Live, rev))? {
        return Err(Refusal::key(Code::RevisionUnknown, rev.as_str()));
    }
    let file = |key| Name::File(Volume::Storage, Stage::Live, rev, key);
    let next = file(super::MESSAGE_NEXT);
    // 1. The content, before the name promises it.
    disk.step(Row::WriteMessage);
    disk.write(next, text.as_bytes())?;
    disk.step(Row::SyncMessage);
    disk.sync_file(next)?;
    disk.step(Row::NameMessage);
    disk.rename(next, file(super::MESSAGE_FILE))?;
    // 2. The name, before anybody is told.
    disk.step(Row::SyncMessages);
    if let Err(code) = disk.sync_volume(Volume::Storage) {
        // Told once, to us: what came in may be what could not be written, and no later sync would say so.
        disk.remove(Name::AllIncoming(Volume::Storage))?;
        return Err(code.into());
    }
    Ok(())
}
