//! A raw place: sectors, each as the system reads it and as it is durable.

use crate::medium::{Reach, SECTOR};

/// A raw place.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Sector and content, in order.
    pub(super) pending: Vec<(usize, Vec<u8>)>,
}

impl Cells {
    pub(super) fn new(size: usize) -> Self {
        Self { live: vec![0; size], durable: vec![0; size], pending: vec![] }
    }

    /// What a power cut now would leave at the least: the durable bytes.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.live[offset..offset + data.len()].copy_from_slice(data);
        for sector in offset / SECTOR..(offset + data.len()).div_ceil(SECTOR) {
            self.pending.push((sector, self.live[sector * SECTOR..(sector + 1) * SECTOR].to_vec()));
        }
    }

    pub(super) fn keep(&mut self, (sector, data): (usize, Vec<u8>)) {
        self.durable[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(&data);
    }

    pub(super) fn sync(&mut self) {
        for effect in std::mem::take(&mut self.pending) {
            self.keep(effect);
        }
    }

    /// A sync that failed: none, some or all sectors reached the medium, the others never will; what is read is as if all
    /// had.
    pub(super) fn fail(&mut self, reach: Reach, first: usize) {
        for (at, effect) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if reach == Reach::All || reach == Reach::Part && (first + at).is_multiple_of(2) {
                self.keep(effect);
            }
        }
    }

    /// Forgets what is clean; what is still to be written stays.
    pub(super) fn drop_cache(&mut self) {
        self.live.copy_from_slice(&self.durable);
        for (sector, data) in &self.pending {
            self.live[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(data);
        }
    }

    /// The power goes. `fates`: of each pending sector, in order.
    pub(super) fn cut(&mut self, fates: &mut impl Iterator<Item = usize>) {
        for effect in std::mem::take(&mut self.pending) {
            if fates.next().expect("a fate for each sector") == 1 {
                self.keep(effect);
            }
        }
        self.live = self.durable.clone();
    }
}
