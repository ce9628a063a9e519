//! Where a file's bytes lie on an ext4 partition: so much of the format that a file's content gets a name from the names of
//! the blocks that hold it, without reading it.
//!
//! Invariants: total. What is not understood (other features, a tree that is too deep, numbers outside of the partition)
//! is an error, and whoever asked reads the file instead. Equal names mean equal content; not the other way round.
//! Does not: replay a journal, look at checksums, find files by name. It looks at the medium, so it is asked right after
//! mounting, before anything is written through the mount.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::layers::{BLOCK, Id, Range, cut};
use crate::tour::{Outcome, ensure, fail};

/// Reads blocks of a disk, and names them.
pub trait Blocks {
    /// A block's bytes.
    fn read(&mut self, block: u64, out: &mut [u8; BLOCK]) -> Outcome<()>;
    /// The name of a block's content.
    fn id(&mut self, block: u64) -> Outcome<Id>;
    /// Whether all these blocks hold what they held when the first state was shown.
    fn are_as_ever(&self, blocks: Range64) -> bool;
}

/// Names of contents by where they lie, as long as nothing there has changed: most files are the same in all states.
pub type Memo = HashMap<Vec<u64>, Id>;

/// Inode of the journal.
const JOURNAL: u64 = 8;
/// Where the superblock is, in bytes of the partition.
pub const SUPERBLOCK: Range64 = 1024..2048;
/// Where in it what Linux has met is noted, and the bit that says that it was damage.
const STATE: u64 = 0x3a;
const ERRORS: u64 = 2;
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
const EXTENT_MAGIC: u64 = 0xf30a;
/// The format allows five.
const DEPTH_MAX: u64 = 5;
/// More than any file of ours has.
const EXTENTS_MAX: usize = 65_536;
const BLOCK64: u64 = BLOCK as u64;

/// Numbers of blocks.
pub type Range64 = std::ops::Range<u64>;

/// A partition.
pub struct Ext4<'a, B: Blocks> {
    blocks: &'a mut B,
    part: Range,
    block_size: u64,
    inode_size: u64,
    inodes_per_group: u64,
    descriptor: u64,
    /// First block of the group descriptors.
    table: u64,
}

/// Bytes of the partition, one after the other in the file.
struct Run {
    /// First byte in the file.
    logical: u64,
    /// First byte on the partition; `None`: zeros.
    physical: Option<u64>,
    length: u64,
}

impl<'a, B: Blocks> Ext4<'a, B> {
    /// Reads the superblock.
    pub fn open(blocks: &'a mut B, part: Range) -> Outcome<Self> {
        let mut ext4 =
            Self { blocks, part, block_size: 1024, inode_size: 0, inodes_per_group: 0, descriptor: 32, table: 0 };
        let head = ext4.bytes(SUPERBLOCK.start, SUPERBLOCK.end - SUPERBLOCK.start)?;
        ensure(number(&head, 0x38, 2) == 0xef53, || "no superblock".into())?;
        let (shift, inode_size) = (number(&head, 0x18, 4), number(&head, 0x58, 2));
        ensure(shift <= 2 && (128..=1024).contains(&inode_size), || "sizes of another kind".into())?;
        ext4.block_size = 1024 << shift;
        ext4.inode_size = inode_size;
        ext4.inodes_per_group = number(&head, 0x28, 4).max(1);
        if number(&head, 0x60, 4) & 0x80 != 0 {
            ext4.descriptor = number(&head, 0xfe, 2).clamp(32, 1024);
        }
        ext4.table = number(&head, 0x14, 4) + 1;
        Ok(ext4)
    }

    /// The name of what an inode holds.
    pub fn content(&mut self, inode: u64, memo: &mut Memo) -> Outcome<Id> {
        let (node, length) = self.inode(inode)?;
        let flags = number(&node, 0x20, 4) as u32;
        ensure(flags & INLINE == 0 && flags & EXTENTS != 0, || format!("inode {inode} has no extents"))?;
        let mut runs = Vec::new();
        self.runs(&node[0x28..0x28 + 60], DEPTH_MAX, &mut runs)?;
        runs.sort_by_key(|run| run.logical);
        let place = self.place(length, &runs);
        if let Some(name) = place.as_ref().and_then(|place| memo.get(place)) {
            return Ok(*name);
        }
        let mut hasher = Sha256::new();
        hasher.update(length.to_le_bytes());
        for run in runs.iter().filter(|run| run.logical < length) {
            self.name(run, length, &mut hasher)?;
        }
        let name = cut(hasher);
        if let Some(place) = place {
            memo.insert(place, name);
        }
        Ok(name)
    }

    /// Where on the disk the file system's journal lies, in bytes.
    pub fn journal(&mut self) -> Outcome<Vec<Range64>> {
        let (node, _) = self.inode(JOURNAL)?;
        ensure(number(&node, 0x20, 4) as u32 & EXTENTS != 0, || "a journal without extents".into())?;
        let mut runs = Vec::new();
        self.runs(&node[0x28..0x28 + 60], DEPTH_MAX, &mut runs)?;
        let start = self.part.start;
        let place = |run: Run| Some(start + run.physical?..start + run.physical? + run.length);
        Ok(runs.into_iter().filter_map(place).collect())
    }

    /// Where a content lies, if nothing has changed there.
    fn place(&self, length: u64, runs: &[Run]) -> Option<Vec<u64>> {
        let mut place = vec![self.part.start, length];
        for run in runs {
            place.extend([run.logical, run.physical.map_or(0, |at| at + 1), run.length]);
            let Some(physical) = run.physical else { continue };
            let start = self.part.start + physical;
            if !self.blocks.are_as_ever(start / BLOCK64..(start + run.length).div_ceil(BLOCK64)) {
                return None;
            }
        }
        Some(place)
    }

    /// Adds what a run contributes: where it stands in the file, and the names of the blocks of the disk that it covers.
    fn name(&mut self, run: &Run, length: u64, hasher: &mut Sha256) -> Outcome<()> {
        let take = run.length.min((length - run.logical).next_multiple_of(self.block_size));
        let Some(physical) = run.physical else { return Ok(()) };
        let mut done = 0;
        while done < take {
            let at = self.part.start + physical + done;
            let piece = (BLOCK64 - at % BLOCK64).min(take - done);
            hasher.update((run.logical + done).to_le_bytes());
            hasher.update((at % BLOCK64).to_le_bytes());
            hasher.update(self.blocks.id(at / BLOCK64)?.to_le_bytes());
            done += piece;
        }
        Ok(())
    }

    fn inode(&mut self, inode: u64) -> Outcome<(Vec<u8>, u64)> {
        let index = inode.checked_sub(1).ok_or("there is no inode 0")?;
        let (group, place) = (index / self.inodes_per_group, index % self.inodes_per_group);
        let descriptor = self.bytes(self.table * self.block_size + group * self.descriptor, self.descriptor)?;
        let high = if self.descriptor >= 64 { number(&descriptor, 0x28, 4) } else { 0 };
        let table = number(&descriptor, 8, 4) | high << 32;
        let at = table.checked_mul(self.block_size).and_then(|at| at.checked_add(place * self.inode_size));
        let node = self.bytes(at.ok_or("an inode outside of the partition")?, 128)?;
        let length = number(&node, 4, 4) | number(&node, 0x6c, 4) << 32;
        Ok((node, length))
    }

    fn runs(&mut self, node: &[u8], depth_max: u64, runs: &mut Vec<Run>) -> Outcome<()> {
        let (entries, depth) = (number(node, 2, 2), number(node, 6, 2));
        let fits = 12 * (entries as usize + 1) <= node.len() && depth <= depth_max;
        ensure(number(node, 0, 2) == EXTENT_MAGIC && fits, || "a tree of extents that is damaged".into())?;
        for entry in node[12..].chunks_exact(12).take(entries as usize) {
            if depth == 0 {
                ensure(runs.len() < EXTENTS_MAX, || "too many extents".into())?;
                runs.push(self.run(entry));
                continue;
            }
            let below = number(entry, 4, 4) | number(entry, 8, 2) << 32;
            let node = self.bytes(below.saturating_mul(self.block_size), self.block_size)?;
            self.runs(&node, depth - 1, runs)?;
        }
        Ok(())
    }

    fn run(&self, entry: &[u8]) -> Run {
        let (first, count) = (number(entry, 0, 4), number(entry, 4, 2));
        let start = number(entry, 8, 4) | number(entry, 6, 2) << 32;
        // Longer ones are those that are not written yet.
        let (written, count) = if count > 0x8000 { (false, count - 0x8000) } else { (true, count) };
        let physical = written.then(|| start.saturating_mul(self.block_size));
        Run { logical: first * self.block_size, physical, length: count * self.block_size }
    }

    /// Bytes of the partition.
    fn bytes(&mut self, at: u64, length: u64) -> Outcome<Vec<u8>> {
        if at.checked_add(length).is_none_or(|end| end > self.part.length) {
            return fail("something points outside of the partition".into());
        }
        let mut out = Vec::with_capacity(length as usize);
        let mut block = [0; BLOCK];
        while (out.len() as u64) < length {
            let place = self.part.start + at + out.len() as u64;
            self.blocks.read(place / BLOCK64, &mut block)?;
            let skip = (place % BLOCK64) as usize;
            let take = (BLOCK - skip).min(length as usize - out.len());
            out.extend_from_slice(&block[skip..skip + take]);
        }
        Ok(out)
    }
}

/// Whether Linux has noted in the superblock that it met damage. Nothing of the file system may be mounted.
pub fn has_errors(disk: &File, part: Range) -> Outcome<bool> {
    let mut state = [0; 2];
    disk.read_exact_at(&mut state, part.start + SUPERBLOCK.start + STATE)?;
    Ok(number(&state, 0, 2) & ERRORS != 0)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::super::layers::id_of;
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};

    /// An image, and a block of it that has changed.
    struct Image(File, Option<u64>);

    impl Blocks for Image {
        fn read(&mut self, block: u64, out: &mut [u8; BLOCK]) -> Outcome<()> {
            Ok(self.0.read_exact_at(out, block * BLOCK64)?)
        }

        fn id(&mut self, block: u64) -> Outcome<Id> {
            let mut bytes = [0; BLOCK];
            self.read(block, &mut bytes)?;
            Ok(id_of(&bytes))
        }

        fn are_as_ever(&self, blocks: Range64) -> bool {
            self.1.is_none_or(|changed| !blocks.contains(&changed))
        }
    }

    /// With blocks as large as ours and with smaller ones, of which several share one of ours.
    #[test]
    fn files_have_the_same_name_only_if_they_hold_the_same() {
        for size in ["1024", "4096"] {
            let folder = std::env::temp_dir().join(format!("switchback-ext4-{size}-{}", std::process::id()));
            let tree = folder.join("tree");
            fs::create_dir_all(&tree).unwrap();
            let long: Vec<u8> = (0..300_000u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
            let mut other = long.clone();
            other[299_999] ^= 1;
            for (name, content) in [("long", &long[..]), ("other", &other), ("short", &long[..5000]), ("empty", &[])] {
                fs::write(tree.join(name), content).unwrap();
            }
            let image = folder.join("image");
            File::create(&image).unwrap().set_len(16 << 20).unwrap();
            let mut make = Command::new("mkfs.ext4");
            make.args(["-q", "-F", "-b", size, "-E", "offset=4194304", "-d"]).arg(&tree).arg(&image).arg("8192k");
            assert!(make.stdin(Stdio::null()).status().unwrap().success());
            let inode = |name: &str| -> u64 {
                let place = format!("{}?offset=4194304", image.display());
                let ran = Command::new("debugfs").args(["-R", &format!("stat /{name}"), &place]).output().unwrap();
                let said = String::from_utf8_lossy(&ran.stdout).into_owned();
                said.split("Inode: ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
            };
            let mut blocks = Image(File::open(&image).unwrap(), None);
            let mut memo = Memo::new();
            let mut ext4 = Ext4::open(&mut blocks, Range { start: 4 << 20, length: 8 << 20 }).unwrap();
            let names = ["long", "other", "short", "empty"].map(|name| ext4.content(inode(name), &mut memo).unwrap());
            for (at, name) in names.iter().enumerate() {
                assert!(!names[at + 1..].contains(name), "{size}");
                assert_eq!(ext4.content(inode(["long", "other", "short", "empty"][at]), &mut memo).unwrap(), *name);
            }
            assert!(ext4.content(0, &mut memo).is_err() && ext4.content(1 << 40, &mut memo).is_err());
            // What is remembered is not asked for again, unless something of it has changed.
            let (node, _) = ext4.inode(inode("long")).unwrap();
            let mut runs = Vec::new();
            ext4.runs(&node[0x28..0x28 + 60], DEPTH_MAX, &mut runs).unwrap();
            let first = ext4.part.start + runs[0].physical.unwrap();
            memo.values_mut().for_each(|name| *name = 7);
            assert_eq!(ext4.content(inode("long"), &mut memo).unwrap(), 7);
            ext4.blocks.1 = Some(first / BLOCK64);
            assert_eq!(ext4.content(inode("long"), &mut memo).unwrap(), names[0]);
            let debugfs = |request: &str| {
                let place = format!("{}?offset=4194304", image.display());
                let ran = Command::new("debugfs").args(["-w", "-R", request, &place]).output().unwrap();
                String::from_utf8_lossy(&ran.stdout).into_owned()
            };
            // As `stat` prints it: blocks from the partition's first one on.
            let size: u64 = size.parse().unwrap();
            let journal = ext4.journal().unwrap();
            let first = (journal[0].start - (4 << 20)) / size;
            assert!(
                debugfs("stat <8>")
                    .contains(&format!("(0-{}):{first}-", (journal[0].end - journal[0].start) / size - 1))
            );
            let part = Range { start: 4 << 20, length: 8 << 20 };
            assert!(!has_errors(&blocks.0, part).unwrap());
            debugfs("ssv state 3");
            assert!(has_errors(&blocks.0, part).unwrap());
            assert!(Ext4::open(&mut blocks, Range { start: 0, length: 8 << 20 }).is_err());
            fs::remove_dir_all(&folder).unwrap();
        }
    }
}
