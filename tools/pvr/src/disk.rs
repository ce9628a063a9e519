//! Disk images without root: a partition table, a FAT partition and ext4 file systems put together in one file.
//!
//! File systems are made by the ordinary tools (mtools, e2fsprogs) in files of their own and copied in, holes kept.
//! Invariant: whoever builds, everything in an image belongs to root but what is listed otherwise.
//! Every ext4 is checked with e2fsck before it is used.

use crate::{
    error::{During, Error, Result},
    files,
};
use runtime::{fault::Code, port::Region};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

/// One MiB, the unit of partitions.
pub const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// A primary partition.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    /// Type byte of the table.
    pub kind: u8,
    /// First byte; a multiple of a MiB.
    pub start: u64,
    /// Length in bytes; a multiple of a MiB.
    pub length: u64,
}

/// FAT with logical block addresses.
pub const FAT: u8 = 0x0c;
/// A Linux file system.
pub const LINUX: u8 = 0x83;

/// The first sector of a disk with these partitions, at most four.
pub fn partition_table(partitions: &[Partition]) -> [u8; 512] {
    assert!(partitions.len() <= 4, "a partition table has four entries");
    let mut sector = [0; 512];
    sector[440..444].copy_from_slice(b"SWBK");
    for (entry, partition) in sector[446..510].chunks_exact_mut(16).zip(partitions) {
        // No cylinders: the marker of an address that only the block numbers below describe.
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = partition.kind;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&((partition.start / SECTOR) as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&((partition.length / SECTOR) as u32).to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A partition of an image, by its number in the table; 0 is the whole disk.
pub fn partition(image: &Path, number: u8) -> Result<Partition> {
    let failed = || format!("read the partition table of {}", image.display());
    let mut file = File::open(image).during(failed)?;
    let Some(index) = number.checked_sub(1) else {
        let length = file.metadata().during(failed)?.len();
        return Ok(Partition { kind: 0, start: 0, length });
    };
    let mut sector = [0; 512];
    file.read_exact(&mut sector).during(failed)?;
    let entry = sector[446..510].chunks_exact(16).nth(index.into()).filter(|entry| entry[4] != 0);
    let entry = entry.filter(|_| sector[510..] == [0x55, 0xaa]);
    let entry = entry.ok_or_else(|| Error::input(format!("{} has no partition {number}", image.display())))?;
    let sectors = |at: usize| {
        let bytes = [entry[at], entry[at + 1], entry[at + 2], entry[at + 3]];
        u64::from(u32::from_le_bytes(bytes)) * SECTOR
    };
    Ok(Partition { kind: entry[4], start: sectors(8), length: sectors(12) })
}

/// Makes a FAT16 file system in `image` (created, `length` bytes) with nothing but these files in its root folder.
/// They are written first to last into an empty file system, so each is one run of clusters.
pub fn make_fat(image: &Path, length: u64, content: &[(&str, &[u8])]) -> Result<()> {
    let act = || File::create(image)?.set_len(length);
    act().during(|| format!("create {}", image.display()))?;
    let sectors = (length / SECTOR).to_string();
    let mut format = Command::new("mformat");
    // Clusters, boot sectors and root directory of whole pages: a file's pages hold nothing of another file, so the
    // device's page cache never writes a sector of the environment copy that is in use.
    let pages = ["-c", "8", "-R", "8", "-r", "4"];
    format.arg("-i").arg(image).args(["-T", &sectors, "-h", "64", "-s", "32"]).args(pages);
    format.args(["-N", "53574231", "::"]);
    files::run_tool(&mut format, "mtools")?;
    for (name, bytes) in content {
        let mut source = tempfile::NamedTempFile::new().during(|| "create a temporary file")?;
        source.write_all(bytes).during(|| "write a temporary file")?;
        let mut copy = Command::new("mcopy");
        files::run_tool(copy.arg("-i").arg(image).arg(source.path()).arg(format!("::{name}")), "mtools")?;
    }
    Ok(())
}

/// Makes `image` (created, `length` bytes) with these contents at fixed offsets and nothing else: zeros on a disk, on flash what is
/// erased.
pub fn make_raw(image: &Path, length: u64, flash: bool, content: &[(u64, &[u8])]) -> Result<()> {
    let act = || {
        let file = File::create(image)?;
        if flash {
            file.write_all_at(&vec![0xff; length as usize], 0)?
        } else {
            file.set_len(length)?
        }
        content.iter().try_for_each(|(offset, bytes)| {
            assert!(offset + bytes.len() as u64 <= length, "a copy lies behind the room for it");
            file.write_all_at(bytes, *offset)
        })
    };
    act().during(|| format!("create {}", image.display()))
}

/// How an ext4 file system is made.
pub struct Ext4<'a> {
    /// Volume label, up to 16 bytes.
    pub label: &'a str,
    /// Size in bytes.
    pub length: u64,
    /// Size of its journal in MiB.
    pub journal_mib: u32,
    /// With the verity feature.
    pub verity: bool,
    /// What belongs to somebody else than root: path and uid, which is the gid too.
    pub owners: &'a [(&'a str, u32)],
}

impl Ext4<'_> {
    /// Makes it in `image` from the tree below `root`, hard links kept.
    pub fn make(&self, image: &Path, root: &Path) -> Result<()> {
        let features =
            if self.verity { "^metadata_csum_seed,^orphan_file,verity" } else { "^metadata_csum_seed,^orphan_file" };
        let mut make = Command::new("mke2fs");
        make.args(["-t", "ext4", "-q", "-F", "-b", "4096", "-m", "0", "-L", self.label, "-O", features]);
        make.args(["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"]);
        make.args(["-J", &format!("size={}", self.journal_mib), "-d"]).arg(root).arg(image);
        files::run_tool(make.arg(format!("{}k", self.length / 1024)), "e2fsprogs").map_err(|e| Error {
            hint: e.hint.or(Some("if it is full, give a greater --size or --boot-size".into())),
            ..e
        })?;
        self.own(image, root)?;
        files::run_tool(Command::new("e2fsck").args(["-fn"]).arg(image), "e2fsprogs").map(drop)
    }

    /// mke2fs copies the owners of the tree, which belongs to whoever builds: sets them to what they must be.
    fn own(&self, image: &Path, root: &Path) -> Result<()> {
        let mut script = String::new();
        for path in files::walk(root)? {
            let meta = fs::symlink_metadata(root.join(&path)).during(|| format!("look at {}", path.display()))?;
            let name = path.to_str().unwrap_or_default();
            let owner = self.owners.iter().find(|(owned, _)| *owned == name).map_or(0, |(_, uid)| *uid);
            if (meta.uid(), meta.gid()) != (owner, owner) {
                let quoted = name.replace('"', "\"\"");
                for field in ["uid", "gid"] {
                    script += &format!("set_inode_field \"/{quoted}\" {field} {owner}\n");
                }
            }
        }
        if script.is_empty() {
            return Ok(());
        }
        let mut commands = tempfile::NamedTempFile::new().during(|| "create a temporary file")?;
        commands.write_all(script.as_bytes()).during(|| "write a temporary file")?;
        let mut edit = Command::new("debugfs");
        edit.arg("-w").arg("-f").arg(commands.path()).arg(image);
        // It ends with 0 whatever happened; after an error it says so next to the echo of its commands.
        let said = files::run_tool(&mut edit, "e2fsprogs")?;
        let said = String::from_utf8_lossy(&said);
        match said.lines().find(|line| !line.is_empty() && !line.starts_with("debugfs: set_inode_field")) {
            None => Ok(()),
            Some(line) => Err(Error::host(format!("debugfs could not set owners in {}: {line}", image.display()))),
        }
    }
}

/// Copies a partition's content into the disk; blocks of zeros become holes.
pub fn copy_in(disk: &mut File, start: u64, partition: &Path) -> Result<()> {
    let mut act = || -> io::Result<()> {
        let mut source = File::open(partition)?;
        let (mut block, mut at) = (vec![0; 64 * 1024], start);
        loop {
            let n = source.read(&mut block)?;
            if n == 0 {
                return Ok(());
            }
            if block[..n].iter().any(|b| *b != 0) {
                disk.seek(SeekFrom::Start(at))?;
                disk.write_all(&block[..n])?;
            }
            at += n as u64;
        }
    };
    act().during(|| format!("copy {} into the disk", partition.display()))
}

/// A file, or a part of one, as the boards' codecs see a medium.
pub struct FileRegion {
    file: File,
    start: u64,
    length: Option<u64>,
    path: PathBuf,
}

impl FileRegion {
    /// The part of `path` that begins at `start`.
    pub fn open(path: &Path, start: u64) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path).during(|| format!("open {}", path.display()))?;
        Ok(Self { file, start, length: None, path: path.to_owned() })
    }

    /// A partition of the disk `path`.
    pub fn part(path: &Path, part: &Partition) -> Result<Self> {
        Ok(Self { length: Some(part.length), ..Self::open(path, part.start)? })
    }

    /// For messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Region for FileRegion {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> std::result::Result<(), Code> {
        self.file.read_exact_at(out, self.start + offset).map_err(|_| Code::StorageIo)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> std::result::Result<(), Code> {
        self.file.write_all_at(data, self.start + offset).map_err(|_| Code::StorageIo)
    }
    fn sync(&mut self) -> std::result::Result<(), Code> {
        self.file.sync_all().map_err(|_| Code::StorageIo)
    }
    fn drop_cache(&mut self) {}
    fn length(&mut self) -> Option<u64> {
        self.length.or_else(|| self.file.metadata().ok()?.len().checked_sub(self.start))
    }
}
