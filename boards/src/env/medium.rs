//! For the codecs' tests: a medium in memory that records what is done to it and then gives every state in which a
//! power cut could have left it.

use runtime::{fault::Code, port::Region};
use std::collections::BTreeSet;

/// Unit in which a write is torn.
const SECTOR: usize = 512;

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// Bytes written at an offset.
    Write(u64, Vec<u8>),
    /// All writes so far made durable.
    Sync,
}

/// The medium.
pub(super) struct Medium {
    pub(super) bytes: Vec<u8>,
    /// Writes and syncs since the last `forget`.
    pub(super) done: Vec<Done>,
    /// Reads and writes at these offsets fail.
    pub(super) broken: Vec<u64>,
    /// Writes are acknowledged and forgotten.
    pub(super) lies: bool,
    /// Only those at these offsets are.
    pub(super) lost: Vec<u64>,
    /// So many syncs fail; what was written stays readable.
    pub(super) sync_fails: u32,
    before: Vec<u8>,
}

impl Medium {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        Self {
            before: bytes.clone(),
            bytes,
            done: Vec::new(),
            broken: Vec::new(),
            lies: false,
            lost: Vec::new(),
            sync_fails: 0,
        }
    }

    /// What is there now is where the next recording begins.
    pub(super) fn forget(&mut self) {
        self.before = self.bytes.clone();
        self.done.clear();
    }

    /// Writes and syncs, counted.
    pub(super) fn counts(&self) -> (usize, usize) {
        let syncs = self.done.iter().filter(|done| **done == Done::Sync).count();
        (self.done.len() - syncs, syncs)
    }

    /// Sectors whose bytes differ from when the recording began.
    pub(super) fn changed(&self) -> Vec<usize> {
        let pairs = self.bytes.chunks(SECTOR).zip(self.before.chunks(SECTOR));
        pairs.enumerate().filter(|(_, (now, before))| now != before).map(|(index, _)| index).collect()
    }

    /// Every state of the medium that power may leave when it fails during or after what was recorded: all that a sync
    /// covered is there, of the rest any subset of sectors.
    pub(super) fn cut_states(&self) -> BTreeSet<Vec<u8>> {
        let mut states = BTreeSet::from([self.before.clone()]);
        let mut durable = self.before.clone();
        let mut pending: Vec<(usize, Vec<u8>)> = Vec::new();
        for done in &self.done {
            match done {
                Done::Sync => {
                    pending.drain(..).for_each(|(at, piece)| durable[at..][..piece.len()].copy_from_slice(&piece))
                }
                Done::Write(at, data) => split(*at as usize, data, &mut pending),
            }
            assert!(pending.len() <= 12, "too many states");
            for subset in 0..1u32 << pending.len() {
                let mut state = durable.clone();
                for (_, (at, piece)) in pending.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1) {
                    state[*at..][..piece.len()].copy_from_slice(piece);
                }
                states.insert(state);
            }
        }
        states
    }
}

/// Splits a write into its sectors.
fn split(mut at: usize, mut data: &[u8], pieces: &mut Vec<(usize, Vec<u8>)>) {
    while !data.is_empty() {
        let length = data.len().min(SECTOR - at % SECTOR);
        pieces.push((at, data[..length].to_vec()));
        (at, data) = (at + length, &data[length..]);
    }
}

impl Region for &mut Medium {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        if self.broken.contains(&offset) {
            return Err(Code::StorageIo);
        }
        let bytes =
            self.bytes.get(offset as usize..).and_then(|rest| rest.get(..out.len())).ok_or(Code::StorageDamaged)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        if self.broken.contains(&offset) {
            return Err(Code::StorageIo);
        }
        assert!(offset as usize + data.len() <= self.bytes.len(), "a write beyond the file would change its length");
        if !self.lies && !self.lost.contains(&offset) {
            self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
            self.done.push(Done::Write(offset, data.to_vec()));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Code> {
        if self.sync_fails > 0 {
            self.sync_fails -= 1;
            return Err(Code::StorageIo);
        }
        self.done.push(Done::Sync);
        Ok(())
    }

    fn drop_cache(&mut self) {}
}

/// Numbers that look random and are the same in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
