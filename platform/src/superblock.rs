//! ext4's superblock, torn by a power cut, and mended.
//!
//! Linux overwrites the superblock in place, when it mounts, unmounts and grows a file system: in one write, of which
//! the superblock is two sectors, with a checksum over both at the end of the second. A cut between the two leaves one
//! of each superblock, with a checksum of neither. The kernel does not mount that, and `e2fsck` puts a copy in its
//! place, which a file system of a single group (below 128 MiB, as a boot partition) does not have. But nothing is
//! lost:
//!
//! * The first sector (bytes 0 to 0x1ff) has all that says where something is, and how far a change has come: sizes and
//!   counts of blocks, inodes, groups and descriptors, with the upper halves of 64-bit ones (0x150) and the descriptors
//!   that are reserved for growth (0xce); features; the UUID, which the other checksums are seeded with; state,
//!   journal, orphans; where damage was met. All of it is of one superblock, for a sector is whole.
//! * The second has what is set once, when the file system is made: text of mount options (0x200), inodes of quotas,
//!   `lost+found` and orphans (0x240, 0x268, 0x26c, 0x280), groups of backups, encryption, a seed of checksums,
//!   encoding (0x24c to 0x273, 0x27c). And three things that Linux changes: the overhead in clusters (0x248), which
//!   changes with the size and which every mount reckons anew; the upper bytes of times (0x274); the codes of the first
//!   and last error (0x27a). Nothing that the first sector says depends on them.
//!
//! So either sector fits either one, and the checksum alone is wrong.
//! Invariants: written is one sector, the second, and in it the checksum: a cut leaves it mended or as it was. It is
//! written only if the superblock is otherwise one that can be: its numbers agree with each other and with the length
//! of the partition.
//! Fault model: anything may be there. A superblock that a failing medium has damaged, and that agrees with itself
//! nevertheless, is mended as well: group descriptors, inodes and journal have their own checksums, and the kernel
//! compares.
//! Not here: a file system without metadata checksums, which mounts with a torn superblock, or one with `bigalloc`.

use crate::env::BlockRegion;
use runtime::{fault::Code, port::Region};

/// Where it is in its partition.
pub(crate) const AT: u64 = 1024;
/// How long it is.
const LENGTH: usize = 1024;
/// What its bytes 0x38 and 0x39 say.
pub(crate) const MAGIC: u16 = 0xef53;
/// What a power cut leaves whole.
const SECTOR: usize = 512;
/// Where its checksum is, over all that is before.
const CHECKSUM: usize = 0x3fc;

/// Mends the superblock on a device, if a power cut may have torn it: whether anything was written.
pub fn mend(device: &str) -> Result<bool, Code> {
    mend_region(&mut BlockRegion::open(device).map_err(|_| Code::StorageIo)?)
}

/// As [`mend`], of an open partition.
fn mend_region(region: &mut impl Region) -> Result<bool, Code> {
    let mut superblock = [0; LENGTH];
    region.read_at(AT, &mut superblock)?;
    let length = region.length().ok_or(Code::StorageIo)?;
    if !is_possible(&superblock, length) || superblock[CHECKSUM..] == checksum(&superblock) {
        return Ok(false);
    }
    let checksum = checksum(&superblock);
    superblock[CHECKSUM..].copy_from_slice(&checksum);
    // The page cache may write the block around it as well: with what is there already.
    region.write_at(AT + SECTOR as u64, &superblock[SECTOR..])?;
    region.sync()?;
    Ok(true)
}

/// The checksum that belongs at its end: ext4 leaves out the last inversion.
fn checksum(superblock: &[u8; LENGTH]) -> [u8; 4] {
    (!crc32c(&superblock[..CHECKSUM])).to_le_bytes()
}

/// Whether it is that of an ext4 with checksums which fits into a partition of `length` bytes, the checksum aside.
fn is_possible(superblock: &[u8; LENGTH], length: u64) -> bool {
    const DYNAMIC: u32 = 1;
    const CRC32C: u8 = 1;
    const INCOMPAT_64BIT: u32 = 0x80;
    const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
    let long = |at: usize| u32::from_le_bytes(core::array::from_fn(|index| superblock[at + index]));
    let short = |at: usize| long(at) & 0xffff;
    let is_power = |number: u32, least: u32, most: u32| number.is_power_of_two() && (least..=most).contains(&number);

    let is_known = short(0x38) == u32::from(MAGIC)
        && long(0x4c) == DYNAMIC
        && long(0x64) & RO_COMPAT_METADATA_CSUM != 0
        && superblock[0x175] == CRC32C;
    let (block, first) = (1024u32 << long(0x18).min(6), u32::from(long(0x18) == 0));
    let (blocks_per_group, inodes_per_group) = (long(0x20), long(0x28));
    let per_bitmap = 1..=8 * block;
    let sizes = long(0x18) <= 6
        && long(0x1c) == long(0x18)
        && long(0x14) == first
        && per_bitmap.contains(&blocks_per_group)
        && per_bitmap.contains(&inodes_per_group)
        && is_power(short(0x58), 128, block);
    if !is_known || !sizes {
        return false;
    }
    let is_long = long(0x60) & INCOMPAT_64BIT != 0;
    let blocks = u64::from(long(0x4)) | if is_long { u64::from(long(0x150)) << 32 } else { 0 };
    let groups = blocks.saturating_sub(first.into()).div_ceil(blocks_per_group.into());
    let is_described = if is_long { is_power(short(0xfe), 64, block) } else { matches!(short(0xfe), 0 | 32) };
    is_described
        && groups > 0
        && blocks <= length / u64::from(block)
        && u64::from(long(0x0)) == groups.saturating_mul(inodes_per_group.into())
        && short(0x5a) == 0 // the group that this is the superblock of: no copy
        && (11..=long(0x0)).contains(&long(0x54)) // the first inode that is no reserved one
}

/// CRC-32C (Castagnoli), bit by bit: it is needed once, for a kilobyte.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // 0x1edc6f41, its bits reversed
    let step = |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File},
        process::Command,
    };

    /// Sectors of the write with which Linux writes the superblock of a file system with blocks of 4 KiB.
    const SECTORS: usize = 8;

    /// A disk, which counts what was written to it.
    #[derive(Clone)]
    struct Memory {
        bytes: Vec<u8>,
        written: Vec<(u64, usize)>,
        syncs: usize,
    }

    impl Region for Memory {
        fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
            out.copy_from_slice(
                self.bytes.get(offset as usize..).and_then(|b| b.get(..out.len())).ok_or(Code::StorageIo)?,
            );
            Ok(())
        }

        fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
            self.written.push((offset, data.len()));
            self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }

        fn sync(&mut self) -> Result<(), Code> {
            self.syncs += 1;
            Ok(())
        }

        fn drop_cache(&mut self) {}

        fn length(&mut self) -> Option<u64> {
            Some(16 << 20)
        }
    }

    fn disk(head: &[u8]) -> Memory {
        Memory { bytes: head.to_vec(), written: Vec::new(), syncs: 0 }
    }

    /// The first 4 KiB of a file system, as mke2fs makes it with these features, and after it was changed by debugfs.
    fn heads(name: &str, features: &str) -> [Vec<u8>; 2] {
        let image = std::env::temp_dir().join(format!("switchback-superblock-{name}-{}", std::process::id()));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let run = |command: &mut Command| {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            fs::read(&image).unwrap()[..4096].to_vec()
        };
        let made = run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-b", "4096", "-O", features]).arg(&image));
        for (field, value) in
            [("mnt_count", "7"), ("state", "0"), ("free_blocks_count", "1234"), ("overhead_clusters", "99")]
        {
            let request = format!("set_super_value {field} {value}");
            run(Command::new("debugfs").args(["-w", "-R", &request]).arg(&image));
        }
        let changed = fs::read(&image).unwrap()[..4096].to_vec();
        fs::remove_file(image).unwrap();
        assert!(made[1024..1536] != changed[1024..1536] && made[1536..2044] != changed[1536..2044]);
        [made, changed]
    }

    /// Every part of the newer write over the older one: the first sectors, the last ones.
    fn tears<'a>(old: &'a [u8], new: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
        let joined = |front: &[u8], back: &[u8], at: usize| [&front[..at], &back[at..]].concat();
        (0..=SECTORS).map(|count| count * SECTOR).flat_map(move |at| [joined(new, old, at), joined(old, new, at)])
    }

    fn of(head: &[u8]) -> &[u8; LENGTH] {
        head[AT as usize..][..LENGTH].try_into().unwrap()
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        // RFC 3720, B.4: 32 zeros.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn every_tear_between_two_superblocks_is_mended_by_one_sector_and_what_is_whole_is_left_alone() {
        let [old, new] = heads("tears", "^metadata_csum_seed,^orphan_file");
        let (mut torn, mut whole) = (0, 0);
        for head in tears(&old, &new) {
            let mut disk = disk(&head);
            if of(&head) == of(&old) || of(&head) == of(&new) {
                whole += 1;
                assert_eq!((mend_region(&mut disk), &disk.bytes), (Ok(false), &head));
                assert!(disk.written.is_empty());
                continue;
            }
            torn += 1;
            assert_eq!(mend_region(&mut disk), Ok(true));
            assert_eq!((&disk.written[..], disk.syncs), (&[(1536, 512)][..], 1));
            assert_eq!(of(&disk.bytes)[CHECKSUM..], checksum(of(&disk.bytes)));
            let at = AT as usize + CHECKSUM;
            assert!(disk.bytes[..at] == head[..at] && disk.bytes[at + 4..] == head[at + 4..], "only the checksum");
            assert_eq!(mend_region(&mut disk), Ok(false), "once is enough");
            assert_eq!(disk.written.len(), 1);
        }
        // After the superblock's first sector, both ways; all other ones leave it whole.
        assert_eq!((torn, whole), (2, 16));
    }

    #[test]
    fn what_cannot_be_a_superblock_of_such_a_file_system_is_left_alone() {
        let [head, _] = heads("damage", "^metadata_csum_seed,^orphan_file");
        let torn = |at: usize, bytes: &[u8]| {
            let mut head = head.clone();
            head[AT as usize + CHECKSUM] ^= 1;
            head[AT as usize + at..][..bytes.len()].copy_from_slice(bytes);
            disk(&head)
        };
        assert_eq!(mend_region(&mut torn(0x38, &[0x53, 0xef])), Ok(true), "torn, and nothing else");
        let damages: [(&str, usize, &[u8]); 18] = [
            ("magic", 0x38, &[0]),
            ("revision", 0x4c, &[0]),
            ("no checksums", 0x64, &[0, 0, 0, 0]),
            ("another kind of checksum", 0x175, &[2]),
            ("block size", 0x18, &[7]),
            ("huge block size", 0x18, &[0xff, 0xff, 0xff, 0xff]),
            ("cluster size", 0x1c, &[6]),
            ("first block", 0x14, &[1]),
            ("no blocks in a group", 0x20, &[0, 0, 0, 0]),
            ("more blocks in a group than in its bitmap", 0x20, &[1, 0x80, 0, 0]),
            ("no inodes in a group", 0x28, &[0, 0, 0, 0]),
            ("inode size", 0x58, &[0, 3]),
            ("size of descriptors", 0xfe, &[65]),
            ("no blocks", 0x4, &[0, 0, 0, 0]),
            ("more blocks than the partition has", 0x4, &[1, 0x10, 0, 0]),
            ("more still, in the upper half", 0x150, &[1]),
            ("inodes", 0x0, &[1]),
            ("a copy", 0x5a, &[1]),
        ];
        for (what, at, bytes) in damages {
            let mut disk = torn(at, bytes);
            assert_eq!((mend_region(&mut disk), disk.written.len()), (Ok(false), 0), "{what}");
        }
        assert_eq!(mend_region(&mut disk(&vec![0; 4096])), Ok(false), "nothing");
        assert_eq!(mend_region(&mut disk(&vec![0; 1500])), Err(Code::StorageIo), "cannot be read");
        assert!(mend("/nowhere").is_err());
    }

    #[test]
    fn a_file_system_without_checksums_is_left_alone() {
        let [old, new] = heads("plain", "^metadata_csum,^metadata_csum_seed,^orphan_file");
        for head in tears(&old, &new) {
            assert_eq!(mend_region(&mut disk(&head)), Ok(false));
        }
    }
}
