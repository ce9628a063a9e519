//! Finds the environment's files in a small FAT12, FAT16 or FAT32 partition, so that they can be written in place.
//!
//! Invariants. Total and bounded: any bytes give offsets or a refusal, after a number of sector reads that is bounded
//! by constants here. Never writes: the files were sized once, by the image builder, and every later store overwrites
//! their own sectors, so no FAT, directory entry or cluster ever changes under a power cut.
//!
//! The files must stand in the root directory (short or long names), have exactly the expected size, and occupy
//! consecutive clusters that are marked so in the first FAT. The kind of FAT that follows from the number of clusters
//! (the specification, Linux, mtools) must be the one that the boot sector's label says (U-Boot reads that).
//!
//! What it does not do: subdirectories, second FATs, repair, names beyond 65 characters.

use super::uboot::Copies;
use runtime::{fault::Code, limits::ENV_SIZE_MAX, port::Region};

/// Unit of reading; also the smallest sector.
const SECTOR: usize = 512;
/// Bytes of a directory entry.
const ENTRY: usize = 32;
/// Directory entries that are looked at: twice the usual root directory of FAT16.
const ENTRIES_MAX: u32 = 1024;
/// Characters of one piece of a long name.
const PIECE: usize = 13;
/// Pieces of a long name that are kept; no environment file has a longer one.
const PIECES: usize = 5;

/// A region read by sectors, the last one kept.
struct Sectors<'a, R: Region> {
    region: &'a mut R,
    held: Option<u64>,
    bytes: [u8; SECTOR],
}

impl<R: Region> Sectors<'_, R> {
    /// The sector that contains this byte offset, and the offset in it.
    fn at(&mut self, offset: u64) -> Result<(&[u8; SECTOR], usize), Code> {
        let number = offset / SECTOR as u64;
        if self.held != Some(number) {
            self.held = None;
            let (start, end) = (number * SECTOR as u64, (number + 1) * SECTOR as u64);
            if self.region.length().is_some_and(|length| length < end) {
                return Err(Code::EnvLayout); // the boot sector says more than there is
            }
            self.region.read_at(start, &mut self.bytes)?;
            self.held = Some(number);
        }
        Ok((&self.bytes, (offset % SECTOR as u64) as usize))
    }

    fn byte(&mut self, offset: u64) -> Result<u32, Code> {
        let (sector, at) = self.at(offset)?;
        Ok(u32::from(sector[at]))
    }

    /// A little-endian number of `N` bytes that may cross a sector.
    fn number<const N: u64>(&mut self, offset: u64) -> Result<u32, Code> {
        (0..N).try_fold(0, |sum, index| Ok(sum | self.byte(offset + index)? << (8 * index)))
    }
}

/// Width of a FAT's entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// What the boot sector says, checked; all offsets in bytes from the start of the partition.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    kind: Kind,
    fat: u64,
    /// Start of the fixed root directory, FAT12 and FAT16.
    root: u64,
    root_entries: u32,
    /// First cluster of the root directory, FAT32.
    root_cluster: u32,
    /// Where cluster 2 is.
    data: u64,
    cluster: u32,
    /// Numbers from 2 up to, not including, this one are clusters.
    clusters_end: u32,
}

/// Where a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    cluster: u32,
    size: u32,
}

/// The byte offsets of the files in `region`, which is the partition. `EnvLayout` if anything is not as it must be, and what
/// the region says if it cannot be read.
pub fn locate<R: Region>(region: &mut R, files: Copies<&str>, size: u32) -> Result<Copies<u64>, Code> {
    let mut disk = Sectors { region, held: None, bytes: [0; SECTOR] };
    let geometry = geometry(&mut disk)?;
    let offsets = files.try_map(|file| {
        let found = search(&mut disk, &geometry, file)?;
        let found = found.filter(|found| found.size == size && size > 0 && size as usize <= ENV_SIZE_MAX);
        contiguous(&mut disk, &geometry, found.ok_or(Code::EnvLayout)?)
    })?;
    match offsets {
        // A damaged directory may give both names the same clusters.
        Copies::Redundant([first, second], _) if first.abs_diff(second) < u64::from(size) => Err(Code::EnvLayout),
        _ => Ok(offsets),
    }
}

/// Byte offset and size of one file that has something in it, whatever its size; `None` if there is no such file. Errors as
/// of [`locate`].
pub fn find<R: Region>(region: &mut R, file: &str) -> Result<Option<(u64, u32)>, Code> {
    let mut disk = Sectors { region, held: None, bytes: [0; SECTOR] };
    let geometry = geometry(&mut disk)?;
    let found = search(&mut disk, &geometry, file)?.filter(|found| found.size > 0);
    found.map(|found| Ok((contiguous(&mut disk, &geometry, found)?, found.size))).transpose()
}

/// Reads and checks the boot sector.
fn geometry<R: Region>(disk: &mut Sectors<'_, R>) -> Result<Geometry, Code> {
    let bytes_per_sector = disk.number::<2>(11)?;
    let sectors_per_cluster = disk.number::<1>(13)?;
    let reserved = disk.number::<2>(14)?;
    let fats = disk.number::<1>(16)?;
    let root_entries = disk.number::<2>(17)?;
    let sectors = match disk.number::<2>(19)? {
        0 => disk.number::<4>(32)?,
        small => small,
    };
    let fat_sectors = match disk.number::<2>(22)? {
        0 => disk.number::<4>(36)?,
        small => small,
    };
    let sane = disk.number::<2>(510)? == 0xaa55
        && matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096)
        && sectors_per_cluster.is_power_of_two()
        && sectors_per_cluster <= 128
        && reserved > 0
        && (1..=2).contains(&fats)
        && fat_sectors > 0;
    if !sane {
        return Err(Code::EnvLayout);
    }
    let sector = u64::from(bytes_per_sector);
    let fat = u64::from(reserved) * sector;
    let root = fat + u64::from(fats) * u64::from(fat_sectors) * sector;
    let data = root + (u64::from(root_entries) * ENTRY as u64).next_multiple_of(sector);
    let cluster = bytes_per_sector * sectors_per_cluster;
    let total = u64::from(sectors) * sector;
    let clusters = u32::try_from(total.saturating_sub(data) / u64::from(cluster)).map_err(|_| Code::EnvLayout)?;
    let kind = match clusters {
        0..4085 => Kind::Fat12,
        4085..65525 => Kind::Fat16,
        65525..0x0fff_fff5 => Kind::Fat32,
        _ => return Err(Code::EnvLayout),
    };
    check_label(disk, kind, root_entries)?;
    let root_cluster = if kind == Kind::Fat32 { disk.number::<4>(44)? } else { 0 };
    Ok(Geometry { kind, fat, root, root_entries, root_cluster, data, cluster, clusters_end: clusters + 2 })
}

/// The loader believes the label, Linux counts clusters: they must not read two different file systems.
fn check_label<R: Region>(disk: &mut Sectors<'_, R>, kind: Kind, root_entries: u32) -> Result<(), Code> {
    let (at, label) = match kind {
        Kind::Fat12 => (54, b"FAT12   "),
        Kind::Fat16 => (54, b"FAT16   "),
        Kind::Fat32 => (82, b"FAT32   "),
    };
    let fixed_root = root_entries > 0;
    let (sector, at) = disk.at(at)?;
    let same = sector[at..at + label.len()] == *label && fixed_root == (kind != Kind::Fat32);
    if same { Ok(()) } else { Err(Code::EnvLayout) }
}

impl Geometry {
    /// Where a cluster starts.
    fn offset(&self, cluster: u32) -> Result<u64, Code> {
        if !(2..self.clusters_end).contains(&cluster) {
            return Err(Code::EnvLayout);
        }
        Ok(self.data + u64::from(cluster - 2) * u64::from(self.cluster))
    }

    /// The cluster after this one; `None` at the end of the chain.
    fn next<R: Region>(&self, disk: &mut Sectors<'_, R>, cluster: u32) -> Result<Option<u32>, Code> {
        let index = u64::from(cluster);
        let (next, end) = match self.kind {
            Kind::Fat12 => {
                let pair = disk.number::<2>(self.fat + index + index / 2)?;
                (if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            Kind::Fat16 => (disk.number::<2>(self.fat + 2 * index)?, 0xfff8),
            Kind::Fat32 => (disk.number::<4>(self.fat + 4 * index)? & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((next < end).then_some(next))
    }
}

/// Looks a name up in the root directory. The first entry of that name counts.
fn search<R: Region>(disk: &mut Sectors<'_, R>, geometry: &Geometry, name: &str) -> Result<Option<Found>, Code> {
    let mut long = LongName::EMPTY;
    let mut cluster = geometry.root_cluster;
    let mut start = if geometry.kind == Kind::Fat32 { geometry.offset(cluster)? } else { geometry.root };
    let mut left = if geometry.kind == Kind::Fat32 { geometry.cluster / ENTRY as u32 } else { geometry.root_entries };
    for _ in 0..ENTRIES_MAX {
        if left == 0 {
            match geometry.kind {
                Kind::Fat32 => match geometry.next(disk, cluster)? {
                    Some(next) => cluster = next,
                    None => break,
                },
                Kind::Fat12 | Kind::Fat16 => break,
            }
            start = geometry.offset(cluster)?;
            left = geometry.cluster / ENTRY as u32;
        }
        let (sector, at) = disk.at(start)?;
        let Some(entry) = sector.get(at..).and_then(|rest| rest.first_chunk::<ENTRY>()) else {
            return Err(Code::EnvLayout);
        };
        if entry[0] == 0 {
            break;
        }
        if let Some(file) = long.take(entry) {
            if long.is(name, entry) {
                return Ok(Some(file));
            }
            long = LongName::EMPTY;
        }
        start += ENTRY as u64;
        left -= 1;
    }
    Ok(None)
}

/// A long name as it is collected from the entries that precede its short one.
#[derive(Clone, Copy)]
struct LongName {
    units: [u16; PIECE * PIECES],
    /// The piece that must come next, counted down; 0 when all are there.
    expected: u8,
    /// Of the short entry that it belongs to.
    checksum: u8,
    /// Whether there is one at all.
    present: bool,
}

impl LongName {
    const EMPTY: Self = Self { units: [0; PIECE * PIECES], expected: 0, checksum: 0, present: false };

    /// Takes one directory entry; what it describes if it is a file's short entry.
    fn take(&mut self, entry: &[u8; ENTRY]) -> Option<Found> {
        const LONG: u8 = 0x0f;
        const FOLDER_OR_LABEL: u8 = 0x18;
        const DELETED: u8 = 0xe5;
        let attributes = entry[11] & 0x3f;
        if entry[0] != DELETED && attributes == LONG {
            self.piece(entry);
            return None;
        }
        if entry[0] == DELETED || attributes & FOLDER_OR_LABEL != 0 {
            *self = Self::EMPTY;
            return None;
        }
        let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
        // FAT12 and FAT16 keep something else in the upper half of a cluster's number; mtools and Linux write 0.
        Some(Found { cluster: half(20) << 16 | half(26), size: half(30) << 16 | half(28) })
    }

    /// Takes one piece. They come last piece first; anything else ends the name.
    fn piece(&mut self, entry: &[u8; ENTRY]) {
        const LAST: u8 = 0x40;
        let (order, first) = (entry[0] & 0x3f, entry[0] & LAST != 0);
        if first {
            *self = Self { expected: order, checksum: entry[13], present: true, ..Self::EMPTY };
        }
        let fits = order > 0 && usize::from(order) <= PIECES;
        if !self.present || order != self.expected || entry[13] != self.checksum || !fits {
            *self = Self::EMPTY;
            return;
        }
        let start = usize::from(order - 1) * PIECE;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (unit, at) in self.units[start..start + PIECE].iter_mut().zip(places) {
            *unit = u16::from_le_bytes([entry[at], entry[at + 1]]);
        }
        self.expected = order - 1;
    }

    /// Whether the file with this short entry is called `name`, by its long or its short name. Case does not count.
    fn is(&self, name: &str, entry: &[u8; ENTRY]) -> bool {
        let complete = self.present && self.expected == 0 && self.checksum == checksum(entry);
        complete && self.is_long(name) || is_short(name, entry)
    }

    fn is_long(&self, name: &str) -> bool {
        let length = self.units.iter().position(|unit| matches!(unit, 0 | 0xffff)).unwrap_or(self.units.len());
        let same = |(unit, byte): (&u16, u8)| u8::try_from(*unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte));
        length == name.len() && self.units[..length].iter().zip(name.bytes()).all(same)
    }
}

/// The checksum that ties a long name to its short entry.
fn checksum(entry: &[u8; ENTRY]) -> u8 {
    entry[..11].iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Whether the short name is `name`: up to 8 bytes, a dot, up to 3 bytes, padded with blanks.
fn is_short(name: &str, entry: &[u8; ENTRY]) -> bool {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let same = |text: &str, field: &[u8]| {
        text.len() <= field.len()
            && field[..text.len()].eq_ignore_ascii_case(text.as_bytes())
            && field[text.len()..].iter().all(|byte| *byte == b' ')
    };
    same(base, &entry[..8]) && same(extension, &entry[8..11])
}

/// Checks that the file's clusters are consecutive and end where its size ends; its byte offset.
fn contiguous<R: Region>(disk: &mut Sectors<'_, R>, geometry: &Geometry, file: Found) -> Result<u64, Code> {
    let clusters = file.size.div_ceil(geometry.cluster);
    let offset = geometry.offset(file.cluster)?;
    for cluster in (file.cluster..).take(clusters as usize) {
        geometry.offset(cluster)?;
        let last = cluster - file.cluster + 1 == clusters;
        let expected = if last { None } else { Some(cluster + 1) };
        if geometry.next(disk, cluster)? != expected {
            return Err(Code::EnvLayout);
        }
    }
    Ok(offset)
}

#[cfg(test)]
pub(super) mod tests;
