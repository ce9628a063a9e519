//! The locator against file systems that are built here, byte by byte, from the specification: every kind at its limits,
//! every field out of its bounds. (`tests/tests/env_fat.rs` has those that mtools makes.)

use super::*;
use crate::env::uboot::Scheme;
use std::collections::BTreeMap;

const FILES: Copies<&str> = Copies::Redundant(["uboot.env", "uboot-redund.env"], Scheme::Incremental);
const SIZE: u32 = 0x4000;

/// What a boot sector says.
#[derive(Clone, Copy, Debug)]
pub(in crate::env) struct Shape {
    kind: Kind,
    sector: u64,
    /// Sectors of a cluster.
    per_cluster: u64,
    reserved: u64,
    fats: u64,
    root_entries: u64,
    clusters: u64,
}

pub(in crate::env) const SMALL: Shape =
    Shape { kind: Kind::Fat16, sector: 512, per_cluster: 4, reserved: 1, fats: 2, root_entries: 64, clusters: 5000 };

impl Shape {
    fn cluster(&self) -> u64 {
        self.sector * self.per_cluster
    }

    fn fat_sectors(&self) -> u64 {
        let nibbles = match self.kind {
            Kind::Fat12 => 3,
            Kind::Fat16 => 4,
            Kind::Fat32 => 8,
        };
        ((self.clusters + 2) * nibbles).div_ceil(2 * self.sector)
    }

    fn fat(&self) -> u64 {
        self.reserved * self.sector
    }

    fn root(&self) -> u64 {
        self.fat() + self.fats * self.fat_sectors() * self.sector
    }

    fn offset(&self, cluster: u32) -> u64 {
        let root_sectors = (self.root_entries * 32).div_ceil(self.sector);
        self.root() + root_sectors * self.sector + u64::from(cluster - 2) * self.cluster()
    }

    /// Clusters of a file of this size.
    fn clusters_of(&self, size: u32) -> u32 {
        (u64::from(size)).div_ceil(self.cluster()) as u32
    }
}

/// A file system in memory; sectors that nobody wrote are zeros.
pub(in crate::env) struct Fat {
    shape: Shape,
    sectors: BTreeMap<u64, [u8; 512]>,
    /// Where the next entries of the root directory go, last one first.
    free: Vec<u64>,
    /// Reads of this sector fail.
    broken: Option<u64>,
    /// Where the partition ends, if that is before its file system does.
    cut: Option<u64>,
}

impl Region for Fat {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        assert_eq!((offset % 512, out.len()), (0, 512), "sector by sector");
        if self.broken == Some(offset / 512) || self.length().is_some_and(|length| offset + 512 > length) {
            return Err(Code::StorageIo);
        }
        out.copy_from_slice(self.sectors.get(&(offset / 512)).unwrap_or(&[0; 512]));
        Ok(())
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), Code> {
        panic!("the locator never writes")
    }
    fn sync(&mut self) -> Result<(), Code> {
        panic!("the locator never syncs")
    }
    fn drop_cache(&mut self) {}
    fn length(&mut self) -> Option<u64> {
        Some(self.cut.unwrap_or(self.end()))
    }
}

impl Fat {
    /// An empty one. The root directory of FAT32 is the clusters 2 and 4.
    pub(in crate::env) fn new(shape: Shape) -> Self {
        let mut fat = Self { shape, sectors: BTreeMap::new(), free: vec![], broken: None, cut: None };
        let label: (u64, &[u8]) = match shape.kind {
            Kind::Fat12 => (54, b"FAT12   "),
            Kind::Fat16 => (54, b"FAT16   "),
            Kind::Fat32 => (82, b"FAT32   "),
        };
        let total = shape.offset(2) / shape.sector + shape.clusters * shape.per_cluster;
        fat.put(11, &(shape.sector as u16).to_le_bytes());
        fat.put(13, &[shape.per_cluster as u8]);
        fat.put(14, &(shape.reserved as u16).to_le_bytes());
        fat.put(16, &[shape.fats as u8]);
        fat.put(17, &(shape.root_entries as u16).to_le_bytes());
        match u16::try_from(total) {
            Ok(total) => fat.put(19, &total.to_le_bytes()),
            Err(_) => fat.put(32, &(total as u32).to_le_bytes()),
        }
        match shape.kind {
            Kind::Fat32 => fat.put(36, &(shape.fat_sectors() as u32).to_le_bytes()),
            _ => fat.put(22, &(shape.fat_sectors() as u16).to_le_bytes()),
        }
        fat.put(label.0, label.1);
        fat.put(510, &[0x55, 0xaa]);
        if shape.kind == Kind::Fat32 {
            fat.put(44, &2u32.to_le_bytes());
            fat.chain(&[2, 4]);
            let entries = shape.cluster() / 32;
            fat.free = [2, 4]
                .into_iter()
                .flat_map(|at| (0..entries).map(move |entry| shape.offset(at) + 32 * entry))
                .collect();
        } else {
            fat.free = (0..shape.root_entries).map(|entry| shape.root() + 32 * entry).collect();
        }
        fat.free.reverse();
        fat
    }

    fn end(&self) -> u64 {
        self.shape.offset(2) + self.shape.clusters * self.shape.cluster()
    }

    /// All its bytes.
    pub(in crate::env) fn image(&self) -> Vec<u8> {
        (0..self.end()).map(|at| self.get(at)).collect()
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            self.sectors.entry(at / 512).or_insert([0; 512])[(at % 512) as usize] = *byte;
        }
    }

    fn get(&self, at: u64) -> u8 {
        self.sectors.get(&(at / 512)).map_or(0, |sector| sector[(at % 512) as usize])
    }

    /// The FAT's entry of a cluster.
    fn link(&mut self, cluster: u32, next: u32) {
        let (fat, cluster) = (self.shape.fat(), u64::from(cluster));
        match self.shape.kind {
            Kind::Fat12 => {
                let at = fat + cluster * 3 / 2;
                let old = u16::from_le_bytes([self.get(at), self.get(at + 1)]);
                let next = next as u16 & 0xfff;
                let pair = if cluster % 2 == 0 { old & 0xf000 | next } else { old & 0xf | next << 4 };
                self.put(at, &pair.to_le_bytes());
            }
            Kind::Fat16 => self.put(fat + 2 * cluster, &(next as u16).to_le_bytes()),
            Kind::Fat32 => self.put(fat + 4 * cluster, &next.to_le_bytes()),
        }
    }

    fn chain(&mut self, clusters: &[u32]) {
        for (at, cluster) in clusters.iter().enumerate() {
            self.link(*cluster, clusters.get(at + 1).copied().unwrap_or(0xffff_ffff));
        }
    }

    fn enter(&mut self, entry: &[u8; 32]) {
        let at = self.free.pop().expect("room in the root directory");
        self.put(at, entry);
    }

    /// A file of consecutive clusters under a short name.
    pub(in crate::env) fn add(&mut self, short: &[u8; 11], cluster: u32, size: u32) {
        self.enter(&file(short, cluster, size));
        let clusters: Vec<u32> = (cluster..).take(self.shape.clusters_of(size) as usize).collect();
        self.chain(&clusters);
    }

    /// And under a long one.
    fn add_long(&mut self, long: &str, cluster: u32, size: u32) {
        pieces(long, SHORT).iter().for_each(|piece| self.enter(piece));
        self.add(SHORT, cluster, size);
    }

    fn locate(&mut self) -> Result<Vec<u64>, Code> {
        locate(self, FILES, SIZE).map(|offsets| offsets.as_slice().to_vec())
    }
}

/// The short name of files that have a long one.
const SHORT: &[u8; 11] = b"UBOOT-~1ENV";

fn file(short: &[u8; 11], cluster: u32, size: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(short);
    entry[11] = 0x20; // archive
    entry[20..22].copy_from_slice(&cluster.to_le_bytes()[2..]);
    entry[26..28].copy_from_slice(&cluster.to_le_bytes()[..2]);
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// The entries of a long name, in the order in which they stand in a directory.
fn pieces(long: &str, short: &[u8; 11]) -> Vec<[u8; 32]> {
    let sum = short.iter().fold(0u8, |sum, byte| (sum >> 1).wrapping_add((sum & 1) << 7).wrapping_add(*byte));
    let units: Vec<u16> = long.encode_utf16().collect();
    let count = units.len().div_ceil(13);
    let piece = |index: usize| {
        let mut entry = [0; 32];
        entry[0] = index as u8 + 1 + if index + 1 == count { 0x40 } else { 0 };
        (entry[11], entry[13]) = (0x0f, sum);
        for place in 0..13 {
            let at = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30][place];
            let unit = match 13 * index + place {
                unit if unit < units.len() => units[unit],
                unit if unit == units.len() => 0,
                _ => 0xffff,
            };
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry
    };
    (0..count).rev().map(piece).collect()
}

#[test]
fn the_files_are_found_in_every_kind_at_its_limits() {
    use Kind::*;
    let shape = |kind, sector, per_cluster, reserved, fats, root_entries, clusters| Shape {
        kind,
        sector,
        per_cluster,
        reserved,
        fats,
        root_entries,
        clusters,
    };
    for shape in [
        shape(Fat12, 512, 1, 1, 2, 112, 700),
        shape(Fat12, 512, 8, 1, 1, 16, 4084),
        shape(Fat12, 4096, 1, 2, 2, 16, 100),
        shape(Fat12, 512, 128, 1, 2, 20, 100),
        shape(Fat16, 512, 1, 4, 2, 512, 4085),
        shape(Fat16, 1024, 2, 1, 2, 32, 5000),
        shape(Fat16, 2048, 1, 1, 1, 32, 65524),
        shape(Fat32, 512, 1, 32, 2, 0, 65525),
        shape(Fat32, 2048, 2, 32, 1, 0, 140_000),
    ] {
        let count = shape.clusters_of(SIZE);
        let last = shape.clusters as u32 + 2 - count;
        for (first, second) in [(5, last), (6, 6 + count), (7 + count, 7), (last - count, last)] {
            let mut fat = Fat::new(shape);
            assert_eq!(fat.locate(), Err(Code::EnvLayout), "{shape:?}: no files yet");
            assert_eq!(find(&mut fat, "uboot.env"), Ok(None));
            fat.add(b"UBOOT   ENV", first, SIZE);
            fat.add_long("uboot-redund.env", second, SIZE);
            let offsets = [first, second].map(|cluster| shape.offset(cluster));
            assert_eq!(fat.locate(), Ok(offsets.to_vec()), "{shape:?} {first} {second}");
            assert_eq!(find(&mut fat, "uboot-redund.env"), Ok(Some((offsets[1], SIZE))));
        }
        // One cluster more than there are.
        let mut fat = Fat::new(shape);
        fat.add(b"UBOOT   ENV", last + 1, SIZE);
        assert_eq!(find(&mut fat, "uboot.env"), Err(Code::EnvLayout), "{shape:?}");
    }
}

/// A boot sector on which the loader and Linux may not agree, or that describes nothing.
#[test]
fn what_a_boot_sector_cannot_say_is_refused() {
    let good = |shape| {
        let mut fat = Fat::new(shape);
        fat.add(b"UBOOT   ENV", 5, SIZE);
        fat
    };
    let wide = Shape { kind: Kind::Fat32, root_entries: 0, clusters: 70_000, reserved: 32, ..SMALL };
    let small = Shape { kind: Kind::Fat12, clusters: 3000, ..SMALL };
    let all: [(Shape, u64, &[u8]); 24] = [
        (SMALL, 510, &[0x55, 0xab]),
        (SMALL, 510, &[0, 0]),
        (SMALL, 11, &[0, 1]), // bytes of a sector
        (SMALL, 11, &[0, 32]),
        (SMALL, 11, &[1, 2]),
        (SMALL, 13, &[0]), // sectors of a cluster
        (SMALL, 13, &[3]),
        (SMALL, 14, &[0, 0]), // reserved sectors
        (SMALL, 16, &[0]),    // FATs
        (SMALL, 16, &[3]),
        (SMALL, 22, &[0, 0]), // sectors of a FAT
        (SMALL, 17, &[0, 0]), // root entries
        (SMALL, 19, &[1, 0]), // sectors: fewer than the FATs take
        (SMALL, 54, b"FAT12   "),
        (SMALL, 54, b"FAT16  "),
        (SMALL, 54, b"fat16   "),
        (small, 54, b"FAT16   "),
        (small, 17, &[0, 0]),
        (wide, 82, b"FAT16   "),
        (wide, 17, &[16, 0]),
        (wide, 36, &[0, 0, 0, 0]),
        (wide, 44, &[0, 0, 0, 0]), // the root directory's first cluster
        (wide, 44, &[1, 0, 0, 0]),
        (wide, 44, &(70_002u32).to_le_bytes()),
    ];
    for (shape, at, bytes) in all {
        assert!(find(&mut good(shape), "uboot.env").unwrap().is_some());
        let mut fat = good(shape);
        fat.put(at, bytes);
        if bytes == b"FAT16  " {
            fat.put(61, b"!");
        }
        assert_eq!(find(&mut fat, "uboot.env"), Err(Code::EnvLayout), "{:?} {at} {bytes:?}", shape.kind);
    }
    // What decides the kind is the number of clusters.
    for (kind, clusters, refused) in [
        (Kind::Fat12, 4084, false),
        (Kind::Fat12, 4085, true),
        (Kind::Fat16, 4084, true),
        (Kind::Fat16, 4085, false),
        (Kind::Fat16, 65524, false),
        (Kind::Fat16, 65525, true),
        (Kind::Fat32, 65524, true),
        (Kind::Fat32, 65525, false),
        (Kind::Fat32, 0x0fff_fff4, false),
        (Kind::Fat32, 0x0fff_fff5, true),
    ] {
        let root_entries = if kind == Kind::Fat32 { 0 } else { 64 };
        let mut fat = good(Shape { kind, clusters, root_entries, per_cluster: 1, ..SMALL });
        assert_eq!(find(&mut fat, "uboot.env").is_err(), refused, "{kind:?} {clusters}");
    }
    // What cannot be read may be one.
    for sector in [0, SMALL.fat() / 512, SMALL.root() / 512] {
        let mut fat = good(SMALL);
        fat.broken = Some(sector);
        assert_eq!(find(&mut fat, "uboot.env"), Err(Code::StorageIo), "{sector}");
    }
}

#[test]
fn a_partition_that_is_too_short_is_no_file_system_and_no_broken_medium() {
    for length in [0, SMALL.fat(), SMALL.root()] {
        let mut fat = Fat::new(SMALL);
        fat.add(b"UBOOT   ENV", 10, SIZE);
        fat.cut = Some(length);
        assert_eq!(find(&mut fat, "uboot.env"), Err(Code::EnvLayout), "{length}");
    }
    // The last sector that there is can be read.
    let mut fat = Fat::new(SMALL);
    fat.add(b"UBOOT   ENV", 10, SIZE);
    let whole = find(&mut fat, "uboot.env");
    fat.cut = Some(SMALL.root() + 512);
    assert_eq!(find(&mut fat, "uboot.env"), whole);
    assert!(matches!(whole, Ok(Some(_))), "{whole:?}");
}

#[test]
fn only_a_whole_file_of_consecutive_clusters_counts() {
    let with = |change: &dyn Fn(&mut Fat)| {
        let mut fat = Fat::new(SMALL);
        fat.add(b"UBOOT   ENV", 10, SIZE);
        fat.add_long("uboot-redund.env", 30, SIZE);
        change(&mut fat);
        fat.locate()
    };
    let good = Ok([10, 30].map(|cluster| SMALL.offset(cluster)).to_vec());
    assert_eq!(with(&|_| {}), good);
    // Eight clusters: 10 to 17. Any mark from 0xfff8 ends the chain.
    for end in 0xfff8..=0xffff {
        assert_eq!(with(&|fat| fat.link(17, end)), good);
    }
    for (cluster, next) in [(17, 18), (17, 0), (17, 0xfff7), (16, 0xffff), (10, 0xffff), (12, 14), (12, 12), (12, 40)] {
        assert_eq!(with(&|fat| fat.link(cluster, next)), Err(Code::EnvLayout), "{cluster} -> {next}");
    }
    let resized = |size: u32| with(&|fat: &mut Fat| fat.put(SMALL.root() + 28, &size.to_le_bytes()));
    for size in [0, SIZE - 1, SIZE + 1, SIZE | 1 << 16] {
        assert_eq!(resized(size), Err(Code::EnvLayout), "{size} bytes");
    }
    for first in [0u16, 1, 5002, 30] {
        let moved = with(&|fat| fat.put(SMALL.root() + 26, &first.to_le_bytes()));
        assert_eq!(moved, Err(Code::EnvLayout), "at cluster {first}, the other file at 30");
    }
    // Its size is what is asked for, up to the largest environment; nothing and what is larger is none.
    for (size, found) in [(1, true), (ENV_SIZE_MAX as u32, true), (0, false), (ENV_SIZE_MAX as u32 + 1, false)] {
        let mut fat = Fat::new(SMALL);
        fat.add(b"UBOOT   ENV", 10, size);
        assert_eq!(locate(&mut fat, Copies::Single("uboot.env"), size).is_ok(), found, "{size} bytes");
        let expected = (size > 0).then_some((SMALL.offset(10), size));
        assert_eq!(find(&mut fat, "uboot.env"), Ok(expected));
    }
    // FAT32 has 28 bits, and a cluster's number in two halves.
    let wide = Shape { kind: Kind::Fat32, root_entries: 0, clusters: 140_000, ..SMALL };
    let mut fat = Fat::new(wide);
    fat.add(b"UBOOT   ENV", 0x1_0203, SIZE);
    fat.link(0x1_0203, 0xf001_0204);
    fat.link(0x1_0203 + 7, 0x0fff_fff8);
    assert_eq!(find(&mut fat, "uboot.env"), Ok(Some((wide.offset(0x1_0203), SIZE))));
    fat.link(0x1_0203 + 7, 0x0fff_fff7);
    assert_eq!(find(&mut fat, "uboot.env"), Err(Code::EnvLayout));
    // FAT12: each entry shares a byte with its neighbour.
    let small = Shape { kind: Kind::Fat12, clusters: 3000, ..SMALL };
    let mut fat = Fat::new(small);
    fat.add(b"UBOOT   ENV", 681, SIZE);
    for (end, is_end) in [(0xff8, true), (0xff7, false), (0xfff, true)] {
        fat.link(688, end);
        assert_eq!(find(&mut fat, "uboot.env").is_ok(), is_end, "{end:x}");
    }
}

/// Directories, and under which names a file is found in them.
#[test]
fn a_file_is_found_by_its_long_or_its_short_name() {
    let found = |entries: &[[u8; 32]], name: &str| {
        let mut fat = Fat::new(SMALL);
        entries.iter().for_each(|entry| fat.enter(entry));
        fat.chain(&[9]);
        fat.chain(&[8]);
        find(&mut fat, name).unwrap().map(|(_, size)| size)
    };
    let one = |short: &[u8; 11], name: &str| found(&[file(short, 9, 7)], name).is_some();
    for (short, name, is_it) in [
        (b"UBOOT   ENV", "uboot.env", true),
        (b"UBOOT   ENV", "UBoot.Env", true),
        (b"uboot   env", "UBOOT.ENV", true),
        (b"UBOOT   ENV", "uboot", false),
        (b"UBOOT   ENV", "uboot.en", false),
        (b"UBOOT   ENV", "uboot.envx", false),
        (b"UBOOT   ENV", "uboo.env", false),
        (b"UBOOT   ENV", "ubootx.env", false),
        (b"UBOOTX  ENV", "uboot.env", false),
        (b"UBOOT  XENV", "uboot.env", false),
        (b"UBOOT   EN ", "uboot.env", false),
        (b"UBOOT      ", "uboot", true),
        (b"UBOOT   E  ", "uboot", false),
        (b"ABCDEFGHIJK", "abcdefgh.ijk", true),
        (b"ABCDEFGHIJK", "abcdefghx.ijk", false),
    ] {
        assert_eq!(one(short, name), is_it, "{short:?} {name}");
    }

    let named = |long: &str, name: &str| {
        let mut entries = pieces(long, SHORT);
        entries.push(file(SHORT, 9, 7));
        found(&entries, name).is_some()
    };
    let long = "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz-.env";
    assert_eq!(long.len(), 67);
    // A piece has 13 places: one that is full has no end.
    for length in [1, 12, 13, 14, 25, 26, 27, 39, 52, 64, 65] {
        let (name, other) = (&long[..length], format!("{}!", &long[..length - 1]));
        assert!(named(name, name) && named(name, &name.to_uppercase()), "{length}");
        assert!(named(name, "uboot-~1.env"), "{length}: and by the short one");
        assert!(!named(name, &other) && !named(name, &long[..length + 1]) && !named(&long[..length + 1], name));
    }
    assert!(!named(&long[..66], &long[..66]), "beyond what is kept");
    assert!(!named("uboot\u{175}.env", "uboot\u{75}.env"), "only the low byte is the same");

    // What stands between the pieces and the file, or in their place.
    let (name, [last, first]) = ("uboot-redund.env", pieces("uboot-redund.env", SHORT).try_into().unwrap());
    let entry = file(SHORT, 9, 7);
    let other = file(b"OTHER      ", 8, 5);
    let with = |entry: [u8; 32], at: usize, byte: u8| {
        let mut entry = entry;
        entry[at] = byte;
        entry
    };
    type Directory<'a> = (&'a str, &'a [[u8; 32]], Option<u32>);
    let directories: [Directory<'_>; 21] = [
        ("whole", &[last, first, entry], Some(7)),
        ("after another file", &[other, last, first, entry], Some(7)),
        ("bits that mean nothing here", &[with(last, 11, 0xcf), first, with(entry, 11, 0xe0)], Some(7)),
        ("the first of two counts", &[last, first, entry, last, first, file(SHORT, 8, 5)], Some(7)),
        ("first piece missing", &[last, entry], None),
        ("last piece missing", &[first, entry], None),
        ("wrong way round", &[first, last, entry], None),
        ("a piece twice", &[last, last, first, entry], Some(7)),
        ("the first piece twice", &[last, first, first, entry], None),
        ("another file's checksum", &[with(last, 13, 1), with(first, 13, 1), entry], None),
        ("one of another file's", &[last, with(first, 13, 1), entry], None),
        ("number 0", &[last, with(first, 0, 0x80), entry], None),
        ("only number 0", &[with(last, 0, 0x40), entry], None),
        ("too many pieces", &[with(last, 0, 0x46), last, first, entry], Some(7)),
        ("a deleted piece", &[last, with(first, 0, 0xe5), entry], None),
        ("a deleted file in between", &[last, first, with(other, 0, 0xe5), entry], None),
        ("a file in between", &[last, first, other, entry], None),
        ("a folder in between", &[last, first, with(other, 11, 0x10), entry], None),
        ("a folder of that name", &[last, first, with(entry, 11, 0x10)], None),
        ("a label of that name", &[last, first, with(entry, 11, 0x28)], None),
        ("behind the end", &[with(other, 0, 0), last, first, entry], None),
    ];
    for (what, entries, expected) in directories {
        assert_eq!(found(entries, name), expected, "{what}");
    }
}

#[test]
fn a_root_directory_is_read_to_its_end_and_no_further_than_is_sensible() {
    // Fixed: so many entries, and 1024 at the most.
    for (root_entries, before, found) in [(16, 15, true), (2048, 1023, true), (2048, 1024, false)] {
        let mut fat = Fat::new(Shape { root_entries, ..SMALL });
        (0..before).for_each(|_| fat.enter(&file(b"OTHER      ", 8, 5)));
        fat.add(b"UBOOT   ENV", 10, SIZE);
        assert_eq!(find(&mut fat, "uboot.env").unwrap().is_some(), found, "{before} of {root_entries}");
    }
    let shape = Shape { root_entries: 16, ..SMALL };
    let mut fat = Fat::new(shape);
    (0..16).for_each(|_| fat.enter(&file(b"OTHER      ", 8, 5)));
    fat.put(shape.offset(2), &file(b"UBOOT   ENV", 10, SIZE));
    assert_eq!(find(&mut fat, "uboot.env"), Ok(None), "what follows is a file's");
    // A chain: the second of its clusters is 4. One that goes in a circle ends all the same.
    let wide = Shape { kind: Kind::Fat32, root_entries: 0, clusters: 70_000, ..SMALL };
    for (before, found) in [(63, true), (64, true), (127, true)] {
        let mut fat = Fat::new(wide);
        (0..before).for_each(|_| fat.enter(&file(b"OTHER      ", 8, 5)));
        fat.add(b"UBOOT   ENV", 10, SIZE);
        assert_eq!(find(&mut fat, "uboot.env").unwrap().is_some(), found, "{before}");
    }
    let mut fat = Fat::new(wide);
    (0..128).for_each(|_| fat.enter(&file(b"OTHER      ", 8, 5)));
    assert_eq!(find(&mut fat, "uboot.env"), Ok(None));
    fat.link(4, 2);
    assert_eq!(find(&mut fat, "uboot.env"), Ok(None), "a circle");
    fat.link(4, 1);
    assert_eq!(find(&mut fat, "uboot.env"), Err(Code::EnvLayout), "to nowhere");
}
