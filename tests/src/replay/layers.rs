//! The content of a disk as layers of blocks over the image before: what is durable, what a state adds, what is written
//! to the state while it is looked at. A state costs what differs, whatever the size of the disk.
//!
//! Invariants: a block's name is made of its content alone (sha256, cut to 128 bits), so equal names are equal bytes. The
//! name of a state is the sum of what differs from the disk before, block by block, kept up with each change: two states
//! with equal names hold the same bytes, whatever led to them.
//! Does not: know what the blocks mean, but for the partition that they lie in.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// Unit in which content is kept.
pub const BLOCK: usize = 4096;
/// The name of a content.
pub type Id = u128;
/// Blocks by their number.
pub type Layer = HashMap<u64, Piece>;

/// A block of a layer.
#[derive(Clone, Debug)]
pub struct Piece {
    source: Source,
    id: Id,
}

#[derive(Clone, Debug)]
enum Source {
    /// At this offset of the log.
    Log(u64),
    Own(Arc<[u8; BLOCK]>),
}

/// What all states are made of.
#[derive(Debug)]
pub struct Ground {
    before: File,
    log: File,
    /// Bytes of the disk.
    pub length: u64,
    ids: Mutex<Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    before: HashMap<u64, Id>,
    log: HashMap<u64, Id>,
}

impl Ground {
    /// The disk `before`, and the log whose data the layers refer to.
    pub fn new(before: File, log: File) -> io::Result<Self> {
        let length = before.metadata()?.len();
        Ok(Self { before, log, length, ids: Mutex::default() })
    }

    /// A block of the disk before.
    pub fn before(&self, block: u64, out: &mut [u8; BLOCK]) -> io::Result<()> {
        let rest = self.length - block * BLOCK as u64;
        let length = rest.min(BLOCK as u64) as usize;
        out[length..].fill(0);
        self.before.read_exact_at(&mut out[..length], block * BLOCK as u64)
    }

    fn before_id(&self, block: u64) -> io::Result<Id> {
        if let Some(id) = self.ids.lock().expect("no holder panics").before.get(&block) {
            return Ok(*id);
        }
        let mut bytes = [0; BLOCK];
        self.before(block, &mut bytes)?;
        let id = id_of(&bytes);
        self.ids.lock().expect("no holder panics").before.insert(block, id);
        Ok(id)
    }

    fn logged(&self, at: u64) -> io::Result<Piece> {
        let known = self.ids.lock().expect("no holder panics").log.get(&at).copied();
        if let Some(id) = known {
            return Ok(Piece { source: Source::Log(at), id });
        }
        let mut bytes = [0; BLOCK];
        self.log.read_exact_at(&mut bytes, at)?;
        let id = id_of(&bytes);
        self.ids.lock().expect("no holder panics").log.insert(at, id);
        Ok(Piece { source: Source::Log(at), id })
    }

    fn read(&self, piece: &Piece, out: &mut [u8; BLOCK]) -> io::Result<()> {
        match &piece.source {
            Source::Log(at) => self.log.read_exact_at(out, *at),
            Source::Own(bytes) => {
                out.copy_from_slice(&bytes[..]);
                Ok(())
            }
        }
    }
}

/// The name of a content.
pub fn id_of(bytes: &[u8]) -> Id {
    cut(Sha256::new_with_prefix(bytes))
}

/// The name that a hash makes.
pub fn cut(hash: Sha256) -> Id {
    hash.finalize().iter().take(16).fold(0, |sum, byte| sum << 8 | Id::from(*byte))
}

/// A part of the disk whose content has a name of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// The names of the parts of a disk: one for each range, and one for the rest.
pub type Sums = [Id; 4];

/// A disk: two layers over the disk before.
#[derive(Clone, Debug)]
pub struct Layers {
    ground: Arc<Ground>,
    ranges: [Range; 3],
    durable: Arc<Layer>,
    /// What the state adds.
    pending: Layer,
    sums: Sums,
}

impl Layers {
    /// The disk before. The ranges may overlap; the first one that holds a block counts.
    pub fn new(ground: Arc<Ground>, ranges: [Range; 3]) -> Self {
        Self { ground, ranges, durable: Arc::default(), pending: Layer::new(), sums: [0; 4] }
    }

    /// The names of its parts.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// A block.
    pub fn read(&self, block: u64, out: &mut [u8; BLOCK]) -> io::Result<()> {
        match self.piece(block) {
            Some(piece) => self.ground.read(piece, out),
            None => self.ground.before(block, out),
        }
    }

    /// The name of a block's content.
    pub fn id(&self, block: u64) -> io::Result<Id> {
        self.piece(block).map_or_else(|| self.ground.before_id(block), |piece| Ok(piece.id))
    }

    fn piece(&self, block: u64) -> Option<&Piece> {
        self.pending.get(&block).or_else(|| self.durable.get(&block))
    }

    /// Puts `length` bytes at the log's offset `data` (`None`: zeros) at `at` on the disk.
    pub fn write(&mut self, at: u64, length: u64, data: Option<u64>) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let (block, skip) = ((at + done) / BLOCK as u64, (at + done) % BLOCK as u64);
            let take = (BLOCK as u64 - skip).min(length - done);
            let piece = match data {
                Some(data) if take == BLOCK as u64 => self.ground.logged(data + done)?,
                _ => self.patched(block, skip as usize, take as usize, data.map(|data| data + done))?,
            };
            self.put(block, piece)?;
            done += take;
        }
        Ok(())
    }

    fn patched(&self, block: u64, skip: usize, take: usize, data: Option<u64>) -> io::Result<Piece> {
        let mut bytes = [0; BLOCK];
        self.read(block, &mut bytes)?;
        let part = &mut bytes[skip..skip + take];
        match data {
            Some(data) => self.ground.log.read_exact_at(part, data)?,
            None => part.fill(0),
        }
        Ok(Piece { id: id_of(&bytes), source: Source::Own(Arc::new(bytes)) })
    }

    fn put(&mut self, block: u64, piece: Piece) -> io::Result<()> {
        let (old, before) = (self.id(block)?, self.ground.before_id(block)?);
        let at = block * BLOCK as u64;
        let holds = |range: &Range| (range.start..range.start + range.length).contains(&at);
        let part = self.ranges.iter().position(holds).unwrap_or(3);
        self.sums[part] ^= share(block, old, before) ^ share(block, piece.id, before);
        self.pending.insert(block, piece);
        Ok(())
    }

    /// What was added becomes durable.
    pub fn settle(&mut self) {
        if !self.pending.is_empty() {
            Arc::make_mut(&mut self.durable).extend(self.pending.drain());
        }
    }

    /// Blocks that are not the same in another disk over the same ground.
    pub fn differing(&self, other: &Self) -> io::Result<BTreeSet<u64>> {
        let mut blocks: BTreeSet<u64> = self.pending.keys().chain(other.pending.keys()).copied().collect();
        if !Arc::ptr_eq(&self.durable, &other.durable) {
            blocks.extend(self.durable.keys().chain(other.durable.keys()));
        }
        let mut differing = BTreeSet::new();
        for block in blocks {
            if self.id(block)? != other.id(block)? {
                differing.insert(block);
            }
        }
        Ok(differing)
    }

    /// Blocks that differ from the disk before, by number.
    pub fn changed(&self) -> impl Iterator<Item = u64> + '_ {
        let pending = self.pending.keys().filter(|block| !self.durable.contains_key(block));
        self.durable.keys().chain(pending).copied()
    }
}

/// What a block adds to the name of a disk: nothing if it is as it was before.
fn share(block: u64, id: Id, before: Id) -> Id {
    if id == before {
        return 0;
    }
    // Names are hashes already; a multiplication by an odd number of its own keeps equal blocks at different places apart.
    let odd = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128.wrapping_mul(u128::from(block) * 2 + 1) | 1;
    id.wrapping_mul(odd).rotate_left(block as u32 % 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [Range; 3] = [
        Range { start: 0, length: 8192 },
        Range { start: 8192, length: 8192 },
        Range { start: 16384, length: BLOCK as u64 },
    ];

    fn layers(name: &str) -> Layers {
        let path = |what| std::env::temp_dir().join(format!("switchback-layers-{name}-{what}-{}", std::process::id()));
        let (before, log) = (path("before"), path("log"));
        std::fs::write(&before, vec![1; 6 * BLOCK]).unwrap();
        std::fs::write(&log, (0..4 * BLOCK).map(|index| (index / 512) as u8 + 2).collect::<Vec<_>>()).unwrap();
        let ground = Ground::new(File::open(&before).unwrap(), File::open(&log).unwrap()).unwrap();
        std::fs::remove_file(before).and_then(|()| std::fs::remove_file(log)).unwrap();
        Layers::new(Arc::new(ground), RANGES)
    }

    fn byte(layers: &Layers, at: usize) -> u8 {
        let mut bytes = [0; BLOCK];
        layers.read((at / BLOCK) as u64, &mut bytes).unwrap();
        bytes[at % BLOCK]
    }

    #[test]
    fn a_write_is_seen_where_it_was_made_and_nowhere_else() {
        let mut disk = layers("seen");
        disk.write(512, 1024, Some(0)).unwrap();
        disk.write(4096 + 2048, 4096, Some(512)).unwrap();
        let seen: Vec<u8> =
            [0, 511, 512, 1023, 1024, 1535, 1536, 6143, 6144, 10239, 10240].map(|at| byte(&disk, at)).into();
        assert_eq!(seen, [1, 1, 2, 2, 3, 3, 1, 1, 3, 10, 1]);
        disk.settle();
        disk.write(0, 4096, None).unwrap();
        assert_eq!((byte(&disk, 512), byte(&disk, 6144)), (0, 3));
        assert_eq!(disk.changed().count(), 3);
    }

    /// Whatever order and detours led to it: equal bytes have equal names, different ones do not.
    #[test]
    fn the_name_of_a_state_is_that_of_its_bytes() {
        let mut one = layers("one");
        let mut other = one.clone();
        one.write(0, 4096, Some(0)).unwrap();
        one.settle();
        one.write(8192, 4096, Some(4096)).unwrap();
        other.write(8192, 4096, Some(8192)).unwrap();
        other.write(8192, 4096, Some(4096)).unwrap();
        other.write(0, 512, Some(0)).unwrap();
        assert_ne!(one.sums()[0], other.sums()[0]);
        assert_eq!(one.sums()[1], other.sums()[1]);
        other.write(512, 3584, Some(512)).unwrap();
        assert_eq!(one.sums(), other.sums());
        let mut moved = layers("moved");
        moved.write(4096, 4096, Some(0)).unwrap();
        assert_ne!(moved.sums()[0], one.sums()[0]);
    }
}
