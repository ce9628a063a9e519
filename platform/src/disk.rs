//! The two file systems as a `Disk`: the one place that knows the path layout.
//!
//! Invariants: every path is opened below the root of its volume with `RESOLVE_BENEATH` and without following
//! symbolic links, so neither a name nor a link that somebody planted leads out. Only the keeper has one of these.
//! What has a final name is read-only (0444).
//!
//! Fault model: that of `port::Disk`. `syncfs` also reports an error of somebody else's file on the volume; then our
//! procedure fails once although its own files may be durable. A freeze that cannot be thawed is reported.
//!
//! What it does not do: no policy, no retries, no caching.

use crate::{env::BlockRegion, erase, faults, sys};
use core::{ffi::CStr, fmt::Write};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal,
    port::{Dir, Disk, Name, Names, Owner, Stage, Subject, Volume},
    protocol::Row,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags},
    io::Errno,
};

/// The longest path below a root: `trails/.new-` and a revision, and a key of `limits::KEY_MAX`.
type Path = heapless::String<384>;

const INCOMING: &str = "objects/.incoming";
const NEW: &str = ".new-";
const DEAD: &str = ".del-";
/// What `Name::Others` is not: folders of ours, what a loader may read, what belongs to the file system.
const NOT_OTHERS: [&CStr; 4] = [c"objects", c"trails", c"boot", c"lost+found"];
/// Folders that both volumes have.
const FOLDERS: [&str; 4] = ["objects", INCOMING, "trails", "trails/locals"];

/// Both volumes, open.
pub struct Volumes {
    storage: OwnedFd,
    boot: OwnedFd,
    /// On a device that was taken over, the name of its loader's text; the second root is a folder of the first then.
    loader_text: Option<&'static str>,
    syncs: u64,
}

impl Volumes {
    /// Opens both roots, and makes their folders where they are missing.
    pub fn open(storage: &str, boot: &str) -> Result<Self, Errno> {
        Self::with(storage, boot, None)
    }

    /// Opens a storage of the original: in its folder `boot`, wherever that is seen, a loader reads `text`.
    pub fn open_taken(storage: &str, boot: &str, text: &'static str) -> Result<Self, Errno> {
        Self::with(storage, boot, Some(text))
    }

    /// As a board is described: `text` is [`boards::Board::loader_text`]. `XDEV` if what is mounted contradicts that: with a text
    /// the second root is the first one's folder `boot`, without one it is on another file system.
    pub fn open_described(storage: &str, boot: &str, text: Option<&'static str>) -> Result<Self, Errno> {
        let [one, other] = [fs::stat(storage)?, fs::stat(boot)?];
        let is_as_described = match text {
            None => one.st_dev != other.st_dev,
            Some(_) => {
                let inside = fs::statat(root(storage)?, "boot", AtFlags::SYMLINK_NOFOLLOW)?;
                (inside.st_dev, inside.st_ino) == (other.st_dev, other.st_ino)
            }
        };
        if is_as_described { Self::with(storage, boot, text) } else { Err(Errno::XDEV) }
    }

    fn with(storage: &str, boot: &str, loader_text: Option<&'static str>) -> Result<Self, Errno> {
        let volumes = Self { storage: root(storage)?, boot: root(boot)?, loader_text, syncs: 0 };
        volumes.make_folders()?;
        Ok(volumes)
    }

    /// Makes what every volume with objects and revisions has.
    fn make_folders(&self) -> Result<(), Errno> {
        let both = [&self.storage, &self.boot];
        for root in if self.loader_text.is_some() { &both[..1] } else { &both[..] } {
            let mut made = false;
            for folder in FOLDERS {
                made |= make_folder(root.as_fd(), folder)?;
            }
            if made {
                fs::syncfs(root)?;
            }
        }
        Ok(())
    }

    /// The journal's two slots: a file of the boot volume, as long as it will ever be.
    pub fn journal(&self) -> Result<BlockRegion, Errno> {
        let file = open(self.boot.as_fd(), "journal", OFlags::RDWR | OFlags::CREATE)?;
        if fs::fstat(&file)?.st_size < journal::SIZE as i64 {
            rustix::io::pwrite(&file, &[0; journal::SIZE], 0)?;
            fs::fsync(&file)?;
        }
        Ok(file.into())
    }

    /// Calls so far that waited for a medium: fsync, syncfs, checkpoint.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// A file of a volume for reading: the descriptor that is checked is the one that is used.
    pub fn open_file(&self, name: Name<'_>) -> Result<OwnedFd, Code> {
        let (root, path) = self.at(name)?;
        open(root, &path, OFlags::RDONLY).map_err(code)
    }

    fn root(&self, volume: Volume) -> BorrowedFd<'_> {
        match volume {
            Volume::Storage => self.storage.as_fd(),
            Volume::Boot => self.boot.as_fd(),
        }
    }

    fn at(&self, name: Name<'_>) -> Result<(BorrowedFd<'_>, Path), Code> {
        let (volume, path) = locate(name, self.loader_text)?;
        Ok((self.root(volume), path))
    }

    /// Waits for a medium.
    fn durable(&mut self, wait: impl FnOnce(&Self) -> Result<(), Errno>) -> Result<(), Code> {
        self.syncs += 1;
        if faults::is_sync_idle() { Ok(()) } else { wait(self).map_err(code) }
    }

    fn write_new(&self, name: Name<'_>, flags: OFlags) -> Result<OwnedFd, Code> {
        let (root, path) = self.at(name)?;
        parent(root, &path)?;
        let mode = if matches!(name, Name::Memory(..) | Name::Metadata(..)) { 0o600 } else { 0o644 };
        open_as(root, &path, OFlags::WRONLY | OFlags::CREATE | flags, mode).map_err(code)
    }

    /// Grows storage's file system to `length` bytes.
    pub fn grow(&self, length: u64) -> Result<(), Errno> {
        let block = fs::fstatvfs(&self.storage)?.f_bsize;
        sys::ext4_resize(self.storage.as_fd(), length / block.max(1))
    }

    /// Files first: keys and tokens are among them, and nothing that a container made keeps those.
    fn remove_others(&self) -> Result<(), Errno> {
        let root = self.storage.as_fd();
        let (mut names, mut failed) = (vec![], None);
        for entry in fs::Dir::read_from(root)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." && !NOT_OTHERS.contains(&name) {
                names.push((entry.file_type() == FileType::Directory, name.to_owned()));
            }
        }
        names.sort_unstable();
        for (_, name) in &names {
            failed = failed.or(erase::remove(root, name.as_c_str()).err());
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Disk for Volumes {
    fn step(&mut self, row: Row) {
        faults::step(row);
    }

    fn loader_reads(&self) -> Volume {
        if self.loader_text.is_some() { Volume::Storage } else { Volume::Boot }
    }

    fn exists(&mut self, name: Name<'_>) -> Result<bool, Code> {
        let (root, path) = self.at(name)?;
        match open(root, &path, OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(code(errno)),
        }
    }

    fn read(&mut self, name: Name<'_>, out: &mut [u8]) -> Result<usize, Code> {
        let (root, path) = self.at(name)?;
        let file = open(root, &path, OFlags::RDONLY).map_err(code)?;
        let mut length = 0;
        loop {
            let mut beyond = [0u8; 1];
            let rest = if length < out.len() { &mut out[length..] } else { &mut beyond[..] };
            match rustix::io::read(&file, rest) {
                Ok(0) => return Ok(length),
                Ok(_) if length == out.len() => return Err(Code::StorageDamaged),
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(code(errno)),
            }
        }
    }

    fn write(&mut self, name: Name<'_>, data: &[u8]) -> Result<(), Code> {
        let file = self.write_new(name, OFlags::TRUNC)?;
        write_all(&file, data)
    }

    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code> {
        let file = self.write_new(name, OFlags::empty())?;
        write_all(&file, sector)
    }

    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let source = self.open_file(from)?;
        let target = self.write_new(to, OFlags::TRUNC)?;
        let mut piece = vec![0u8; 64 * 1024];
        loop {
            match rustix::io::read(&source, &mut piece[..]) {
                Ok(0) => return Ok(()),
                Ok(length) => write_all(&target, &piece[..length])?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(code(errno)),
            }
        }
    }

    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let ((source, from), (target, to)) = (self.at(from)?, self.at(to)?);
        let ((from_folder, from_name), (folder, name)) = (parent(source, &from)?, parent(target, &to)?);
        fs::linkat(from_folder, from_name, folder, name, AtFlags::empty()).map_err(code)
    }

    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        let final_name = matches!(to, Name::Object(..));
        let ((source, from), (target, to)) = (self.at(from)?, self.at(to)?);
        let ((from_folder, from_name), (folder, name)) = (parent(source, &from)?, parent(target, &to)?);
        if final_name {
            let file = open(source, &from, OFlags::RDONLY).map_err(code)?;
            fs::fchmod(&file, Mode::from_raw_mode(0o444)).map_err(code)?;
        }
        fs::renameat(from_folder, from_name, folder, name).map_err(code)
    }

    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code> {
        let ((root, one), (_, other)) = (self.at(one)?, self.at(other)?);
        let ((one_folder, one_name), (other_folder, other_name)) = (parent(root, &one)?, parent(root, &other)?);
        fs::renameat_with(one_folder, one_name, other_folder, other_name, RenameFlags::EXCHANGE).map_err(code)
    }

    fn remove(&mut self, name: Name<'_>) -> Result<(), Code> {
        if name == Name::Others {
            return self.remove_others().map_err(code);
        }
        let (root, path) = self.at(name)?;
        let removed = match name {
            Name::AllIncoming(_) => open_folder(root, &path).and_then(erase::empty),
            _ => match path.rsplit_once('/') {
                Some((folder, name)) => {
                    open_folder(root, folder).and_then(|folder| erase::remove(folder.as_fd(), name))
                }
                None => erase::remove(root, path.as_str()),
            },
        };
        match removed {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            other => other.map_err(code),
        }
    }

    fn sync_file(&mut self, name: Name<'_>) -> Result<(), Code> {
        let file = self.open_file(name)?;
        self.durable(|_| fs::fsync(file))
    }

    fn sync_dir(&mut self, dir: Dir) -> Result<(), Code> {
        let (volume, folders): (_, &[&str]) = match dir {
            Dir::Objects(volume) => (volume, &["objects"]),
            Dir::Incoming(volume) => (volume, &[INCOMING]),
            Dir::Trails(volume) => (volume, &["trails", "trails/locals"]),
            Dir::Root(volume) => (volume, &["."]),
        };
        for folder in folders {
            self.durable(|volumes| open_folder(volumes.root(volume), folder).and_then(fs::fsync))?;
        }
        Ok(())
    }

    fn sync_volume(&mut self, volume: Volume) -> Result<(), Code> {
        self.durable(|volumes| fs::syncfs(volumes.root(volume)))
    }

    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code> {
        self.syncs += 1;
        if faults::is_checkpoint_idle() {
            return Ok(());
        }
        let root = self.root(volume);
        match sys::ext4_checkpoint(root) {
            Err(Errno::IO) => Err(Code::StorageIo),
            Err(_) => sys::freeze_and_thaw(root).map_err(code), // not ext4, or an older kernel
            Ok(()) => Ok(()),
        }
    }

    fn each_object(&mut self, dir: Dir, each: &mut dyn FnMut(ObjectId)) -> Result<(), Code> {
        let (volume, folder) = match dir {
            Dir::Objects(volume) => (volume, "objects"),
            Dir::Incoming(volume) => (volume, INCOMING),
            Dir::Trails(_) | Dir::Root(_) => return Ok(()),
        };
        each_name(self.root(volume), folder, &mut |name| {
            if let Some(id) = ObjectId::parse(name) {
                each(id)
            }
        })
    }

    fn each_trail(&mut self, volume: Volume, stage: Stage, each: &mut dyn FnMut(RevName)) -> Result<(), Code> {
        let root = self.root(volume);
        each_name(root, "trails", &mut |name| {
            let (prefix, slash) = if stage == Stage::Live { ("", "/") } else { (prefix(stage), "%") };
            if let Some(rev) = name.strip_prefix(prefix).and_then(|name| unescape(name, slash)) {
                each(rev)
            }
        })?;
        if stage == Stage::Live {
            each_name(root, "trails/locals", &mut |name| {
                if let Some(rev) = unescape(&format!("locals/{name}"), "/") {
                    each(rev)
                }
            })?;
        }
        Ok(())
    }

    fn trail_names(&mut self) -> Result<[Option<Names>; 2], Code> {
        let names = |folder| names_in(self.storage.as_fd(), folder).map_err(code);
        Ok([names("trails")?, names("trails/locals")?])
    }

    fn free(&mut self, volume: Volume) -> Result<u64, Code> {
        let space = fs::fstatvfs(self.root(volume)).map_err(code)?;
        Ok(space.f_bavail * space.f_frsize)
    }

    fn size(&mut self, name: Name<'_>) -> Result<u64, Code> {
        let (root, path) = self.at(name)?;
        let file = open(root, &path, OFlags::PATH).map_err(code)?;
        Ok(fs::fstat(file).map_err(code)?.st_size as u64)
    }
}

// ---- the layout ---------------------------------------------------------------------------------------------------

/// Where a name lies: its volume and the path below the root.
fn locate(name: Name<'_>, loader_text: Option<&str>) -> Result<(Volume, Path), Code> {
    let mut path = Path::new();
    let (volume, done) = match name {
        Name::Object(volume, id) => (volume, write!(path, "objects/{id}")),
        Name::Incoming(volume, id) => (volume, write!(path, "{INCOMING}/{id}")),
        Name::AllIncoming(volume) => (volume, path.write_str(INCOMING)),
        Name::Trail(volume, stage, rev) => (volume, write_trail(&mut path, stage, rev)),
        Name::File(volume, stage, rev, key) => {
            (volume, write_trail(&mut path, stage, rev).and_then(|()| write!(path, "/{key}")))
        }
        Name::Last => (Volume::Boot, path.write_str("last")),
        Name::LoaderText(stage) => {
            let text = loader_text.ok_or(Code::Internal)?; // only `store::taken` asks for it
            (Volume::Boot, write!(path, "{}{text}", prefix(stage)))
        }
        Name::Memory(owner, stage) => {
            let file = match owner {
                Owner::Endpoint => "endpoint",
                Owner::Usb => "usb",
            };
            (Volume::Storage, write!(path, "{}{file}", prefix(stage)))
        }
        Name::Metadata(subject, stage) => {
            let file = match subject {
                Subject::Device => "device-meta",
                Subject::User => "user-meta",
            };
            (Volume::Storage, write!(path, "{}{file}", prefix(stage)))
        }
        Name::Others => return Err(Code::Internal), // no single path
    };
    done.map_err(|_| Code::KeyTooLong)?;
    Ok((volume, path))
}

fn write_trail(path: &mut Path, stage: Stage, rev: RevName) -> core::fmt::Result {
    path.write_str("trails/")?;
    if stage == Stage::Live {
        return path.write_str(rev.as_str());
    }
    path.write_str(prefix(stage))?;
    rev.as_str().chars().try_for_each(|c| path.write_char(if c == '/' { '%' } else { c }))
}

fn prefix(stage: Stage) -> &'static str {
    match stage {
        Stage::New => NEW,
        Stage::Live => "",
        Stage::Dead => DEAD,
    }
}

/// The revision whose folder has this name.
fn unescape(name: &str, slash: &str) -> Option<RevName> {
    RevName::parse(&name.replacen(slash, "/", 1)).ok()
}

// ---- system calls -------------------------------------------------------------------------------------------------

fn code(errno: Errno) -> Code {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Code::NoSpace,
        Errno::NOENT | Errno::NOTDIR => Code::RevisionUnknown,
        // a symbolic link or a way out where there must be none
        Errno::LOOP | Errno::XDEV => Code::StorageDamaged,
        _ => Code::StorageIo,
    }
}

/// The root of a volume.
fn root(path: &str) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_as(root, path, flags, 0o644)
}

/// `mode` counts if the file is made.
fn open_as(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(mode) } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {} // AGAIN: a rename somewhere raced with the walk
            other => return other,
        }
    }
}

fn open_folder(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// The folder that a path lies in, made if need be, and the last part of the path.
fn parent<'p>(root: BorrowedFd<'_>, path: &'p str) -> Result<(OwnedFd, &'p str), Code> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let opened = match open_folder(root, folder) {
        Err(Errno::NOENT) => {
            for (end, _) in folder.match_indices('/') {
                make_folder(root, &folder[..end]).map_err(code)?;
            }
            make_folder(root, folder).map_err(code)?;
            open_folder(root, folder)
        }
        other => other,
    };
    Ok((opened.map_err(code)?, name))
}

/// Makes one folder, if it is not there; whether it was made.
fn make_folder(root: BorrowedFd<'_>, path: &str) -> Result<bool, Errno> {
    let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
    let above = open_folder(root, above)?;
    match fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn write_all(file: &OwnedFd, mut data: &[u8]) -> Result<(), Code> {
    while !data.is_empty() {
        match rustix::io::write(file, data) {
            Ok(0) => return Err(Code::StorageIo),
            Ok(written) => data = &data[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(code(errno)),
        }
    }
    Ok(())
}

fn each_name(root: BorrowedFd<'_>, folder: &str, each: &mut dyn FnMut(&str)) -> Result<(), Code> {
    let folder = open_folder(root, folder).map_err(code)?;
    for entry in fs::Dir::read_from(folder).map_err(code)? {
        let entry = entry.map_err(code)?;
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            each(name)
        }
    }
    Ok(())
}

/// The names in a folder, its own two among them; `None` if it is longer than a block.
fn names_in(root: BorrowedFd<'_>, folder: &str) -> Result<Option<Names>, Errno> {
    let folder = open_folder(root, folder)?;
    let block = fs::fstatvfs(&folder)?.f_bsize;
    if fs::fstat(&folder)?.st_size as u64 > block {
        return Ok(None);
    }
    let mut names = Names::in_block(block as usize);
    for entry in fs::Dir::read_from(folder)? {
        names.add(entry?.file_name().count_bytes());
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_change_places() {
        let root = std::env::temp_dir().join(format!("switchback-disk-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let path = root.to_str().unwrap();
        let mut disk = Volumes::open(path, path).unwrap();
        let rev = RevName::parse("locals/a").unwrap();
        let [new, live] = [Stage::New, Stage::Live].map(|stage| Name::Trail(Volume::Boot, stage, rev));
        let file = |stage| Name::File(Volume::Boot, stage, rev, "below/file");
        disk.write(file(Stage::New), b"new").unwrap();
        assert_eq!(disk.exchange(new, live), Err(Code::RevisionUnknown), "there is nothing to exchange it with");
        disk.write(file(Stage::Live), b"old").unwrap();
        disk.exchange(new, live).unwrap();
        let mut text = [0; 8];
        for (stage, expected) in [(Stage::New, b"old"), (Stage::Live, b"new")] {
            let length = disk.read(file(stage), &mut text).unwrap();
            assert_eq!(&text[..length], expected);
        }
        disk.remove(new).unwrap();
        assert!(!disk.exists(new).unwrap() && disk.exists(live).unwrap());
        std::fs::remove_dir_all(root).unwrap();
    }
}
