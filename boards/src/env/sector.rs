//! One sector, overwritten in place: all that changes on the medium when a loader's small file changes.
//!
//! Invariants. A store is one write of one sector, one sync, and one read past the cache. Nothing else of the file, and
//! nothing of the file system around it, changes: no length, no allocation, no directory entry. So the loader, which
//! does not replay a journal, sees the new content as soon as it is durable.
//!
//! Fault model. The medium writes a sector of 512 bytes whole or not at all. That is what every sector code (SD, eMMC,
//! SATA, NVMe) gives as long as the sector can be read at all; it is *not* given by raw flash, where a file like this
//! must not live. A sync that fails leaves either content in force, and the next store writes the same sector again.
//!
//! Beforehand, by whoever makes the file: it is at least as long as what is overwritten, its blocks are allocated and
//! written (an extent that is allocated but unwritten needs the journal to become data), and the file system's state is
//! checkpointed.

use runtime::{
    fault::Code,
    port::{BootVars, Region},
    protocol::Row,
};

/// Bytes that a medium writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// Times that a sector is read before it counts as unreadable.
const READS_MAX: usize = 3;

/// Fills `out` from `at`; tried more than once.
pub(super) fn read<R: Region>(region: &mut R, at: u64, out: &mut [u8]) -> Result<(), Code> {
    (1..READS_MAX).find_map(|_| region.read_at(at, out).ok()).map_or_else(|| region.read_at(at, out), Ok)
}

/// Overwrites one sector, or a part of one, makes it durable, and compares what the medium then holds.
pub(super) fn overwrite<R: Region>(region: &mut R, at: u64, data: &[u8]) -> Result<(), Code> {
    let within = at % SECTOR as u64 + data.len() as u64 <= SECTOR as u64;
    if !within {
        return Err(Code::EnvLayout);
    }
    let mut back = [0; SECTOR];
    let back = &mut back[..data.len()];
    region.step(Row::WriteCopy);
    region.write_at(at, data).map_err(|_| Code::EnvStoreFailed)?;
    region.step(Row::SyncCopy);
    region.sync().map_err(|_| Code::EnvStoreFailed)?;
    region.step(Row::DropCache);
    region.drop_cache();
    region.step(Row::ReadBack);
    read(region, at, back).map_err(|_| Code::EnvStoreFailed)?;
    if back == data { Ok(()) } else { Err(Code::EnvStoreFailed) }
}

/// Checks that the transition after this one would fit too: what is armed must not be refused when it is to be
/// committed. `compose` makes the record of a decision.
pub(super) fn also_committed<T>(
    vars: &BootVars,
    mut compose: impl FnMut(&BootVars) -> Result<T, Code>,
) -> Result<T, Code> {
    let record = compose(vars)?;
    if let Some(candidate) = vars.candidate {
        compose(&runtime::boot::commit(*vars, candidate))?;
    }
    Ok(record)
}

/// Room for the text of one sector. Full is remembered and reported once, by `finish`.
pub(super) struct Room {
    bytes: [u8; SECTOR],
    used: usize,
}

impl Room {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { bytes: [0; SECTOR], used: 0 }
    }

    /// Bytes put so far, those that did not fit included.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.used.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.used..end) {
            room.copy_from_slice(bytes);
        }
        self.used = end;
    }

    /// Puts all pieces, one behind the other.
    pub(super) fn pieces(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.put(piece);
        }
    }

    /// The sector, its rest filled with `pad`, of which there must be at least `least` bytes. `EnvFull` if not.
    pub(super) fn finish(mut self, pad: u8, least: usize) -> Result<[u8; SECTOR], Code> {
        if self.used + least > SECTOR {
            return Err(Code::EnvFull);
        }
        self.bytes[self.used..].fill(pad);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::medium::Medium;

    #[test]
    fn what_is_overwritten_lies_in_one_sector() {
        for (at, length, lies) in
            [(0, 512, true), (512, 512, true), (500, 12, true), (0, 513, false), (500, 13, false), (511, 2, false)]
        {
            let mut medium = Medium::new(&[0; 2048]);
            let done = overwrite(&mut &mut medium, at, &vec![7; length]);
            assert_eq!(done, if lies { Ok(()) } else { Err(Code::EnvLayout) }, "{length} at {at}");
            assert_eq!(medium.counts(), if lies { (1, 1) } else { (0, 0) });
        }
    }
}
