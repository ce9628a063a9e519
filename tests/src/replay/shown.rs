//! A disk of layers as a file that loop devices can be put on: a file system in user space with one file in it.
//!
//! Invariants: what is written to the file while a state is shown is kept beside the state and goes with it, so the next
//! state costs nothing to make. Nothing is cached on the way: each read asks here. The process that serves the file never
//! mounts what lies on it, and who mounts never serves, so that the end of either, in any order, lets the other go on.
//! Does not: sync. What was written is in memory, which is all that anybody who looks can see.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};

use sha2::{Digest, Sha256};

use super::ext4::{Blocks, Ext4, Range64, SUPERBLOCK};
use super::layers::{BLOCK, Id, Layers, Range, cut, id_of};
use crate::tour::{Outcome, ensure};

/// The name of the file.
pub const FILE: &str = "disk";
const INODE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes.
const TTL: Duration = Duration::from_secs(3600);

/// What is shown.
#[derive(Debug)]
pub struct Shown {
    disk: Layers,
    written: HashMap<u64, Box<[u8; BLOCK]>>,
    /// Blocks of the state that are not as on the disk before, in order.
    changed: Vec<u64>,
    length: u64,
}

impl Shown {
    /// Shows a state; what was written to the one before is gone. The blocks that are other ones now.
    fn show(&mut self, disk: Layers) -> io::Result<BTreeSet<u64>> {
        let mut changed = self.disk.differing(&disk)?;
        changed.extend(self.written.drain().map(|(block, _)| block));
        self.changed = disk.changed().collect();
        self.changed.sort_unstable();
        self.disk = disk;
        Ok(changed)
    }

    /// The name of what a partition holds by now for who replays no journal: of what is not as on the disk before, but for the
    /// file system's journal, and its superblock, which says when it was mounted.
    pub fn name(&mut self, part: Range) -> Outcome<Id> {
        const BYTES: u64 = BLOCK as u64;
        ensure(part.start.is_multiple_of(BYTES), || "a partition that does not begin with a block".into())?;
        let journal = Ext4::open(self, part)?.journal()?;
        let is_journal = |at: u64| journal.iter().any(|run| run.start <= at && at + BYTES <= run.end);
        let blocks = part.start / BYTES..(part.start + part.length).div_ceil(BYTES);
        let mut other: BTreeSet<u64> = self.written.keys().filter(|block| blocks.contains(block)).copied().collect();
        let first = self.changed.partition_point(|block| *block < blocks.start);
        other.extend(self.changed[first..].iter().take_while(|block| **block < blocks.end));
        let mut hasher = Sha256::new();
        for block in other.into_iter().filter(|block| !is_journal(block * BYTES)) {
            let id = match block == blocks.start {
                true => {
                    let mut bytes = [0; BLOCK];
                    self.block(block, &mut bytes)?;
                    bytes[SUPERBLOCK.start as usize..SUPERBLOCK.end as usize].fill(0);
                    id_of(&bytes)
                }
                false => self.id(block)?,
            };
            hasher.update(block.to_le_bytes());
            hasher.update(id.to_le_bytes());
        }
        Ok(cut(hasher))
    }

    /// Bytes of the disk, as far as it reaches.
    pub fn read_at(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let length = self.length.saturating_sub(at).min(length as u64) as usize;
        let mut out = Vec::with_capacity(length);
        let mut block = [0; BLOCK];
        while out.len() < length {
            let place = at + out.len() as u64;
            let skip = (place % BLOCK as u64) as usize;
            self.block(place / BLOCK as u64, &mut block)?;
            out.extend_from_slice(&block[skip..BLOCK.min(skip + length - out.len())]);
        }
        Ok(out)
    }

    fn block(&self, block: u64, out: &mut [u8; BLOCK]) -> io::Result<()> {
        match self.written.get(&block) {
            Some(bytes) => {
                out.copy_from_slice(&bytes[..]);
                Ok(())
            }
            None => self.disk.read(block, out),
        }
    }

    fn write_at(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let place = at + done as u64;
            let (block, skip) = (place / BLOCK as u64, (place % BLOCK as u64) as usize);
            let take = (BLOCK - skip).min(data.len() - done);
            let mut bytes = [0; BLOCK];
            if take < BLOCK {
                self.block(block, &mut bytes)?;
            }
            bytes[skip..skip + take].copy_from_slice(&data[done..done + take]);
            self.written.insert(block, Box::new(bytes));
            done += take;
        }
        Ok(())
    }
}

impl Blocks for Shown {
    fn read(&mut self, block: u64, out: &mut [u8; BLOCK]) -> Outcome<()> {
        Ok(self.block(block, out)?)
    }

    fn id(&mut self, block: u64) -> Outcome<Id> {
        match self.written.get(&block) {
            Some(bytes) => Ok(id_of(&bytes[..])),
            None => Ok(self.disk.id(block)?),
        }
    }

    fn are_as_ever(&self, blocks: Range64) -> bool {
        let first = self.changed.partition_point(|block| *block < blocks.start);
        self.changed.get(first).is_none_or(|block| *block >= blocks.end)
            && !self.written.keys().any(|block| blocks.contains(block))
    }
}

/// The file system; it is there as long as this.
pub struct Mounted {
    shown: Arc<Mutex<Shown>>,
    session: BackgroundSession,
}

impl Mounted {
    /// Shows `disk` as the file [`FILE`] in `folder`.
    pub fn new(folder: &Path, disk: Layers, length: u64) -> Outcome<Self> {
        let shown = Arc::new(Mutex::new(Shown { disk, written: HashMap::new(), changed: Vec::new(), length }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("switchback-replay".into()), MountOption::NoAtime];
        let files = Files { shown: shown.clone() };
        let session = fuser::spawn_mount(files, folder, &config)
            .map_err(|error| format!("a file system in user space cannot be mounted (root and /dev/fuse?): {error}"))?;
        Ok(Self { shown, session })
    }

    /// Shows a state. Nothing of the one before may be mounted.
    pub fn show(&self, disk: Layers) -> Outcome<()> {
        let changed = self.shown().show(disk)?;
        let notifier = self.session.notifier();
        let mut rest = changed.into_iter().peekable();
        while let Some(first) = rest.next() {
            let mut count = 1;
            while rest.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            notifier.inval_inode(INODE, (first * BLOCK as u64) as i64, (count * BLOCK as u64) as i64)?;
        }
        Ok(())
    }

    /// What is shown.
    pub fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("no holder panics")
    }
}

struct Files {
    shown: Arc<Mutex<Shown>>,
}

impl Files {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let shown = self.shown.lock().expect("no holder panics");
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            INODE => (FileType::RegularFile, 0o600, shown.length),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(INODE) {
            Some(attributes) if parent == INodeNo::ROOT && name == FILE => {
                reply.entry(&TTL, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.shown.lock().expect("no holder panics").read_at(at, size as usize);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut shown = self.shown.lock().expect("no holder panics");
        let fits = at.checked_add(data.len() as u64).is_some_and(|end| end <= shown.length);
        let written = if fits { shown.write_at(at, data) } else { Err(io::ErrorKind::StorageFull.into()) };
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // There is nothing to do, and nobody need ask again.
        reply.error(Errno::ENOSYS);
    }
}
