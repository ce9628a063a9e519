//! The doors: what the decisions need from the world.
//!
//! Each is implemented twice: by `platform` (Linux) or `boards` (environments), and by the simulator in
//! `tests`, which adds faults. A door has no policy: order, retries and meaning live on this side.
//!
//! Fault model of a `Disk` and a `Region`: nothing is durable until the sync that covers it returned `Ok`.
//! Until then every effect may be lost, kept, or (contents) torn at 512 bytes, each independently of the
//! others. After a failed sync nothing is known about what it covered: the caller abandons it.

use crate::{
    fault::Code,
    id::{ObjectId, RevName},
    protocol::Row,
};

/// Monotonic milliseconds. Time is always an argument: nothing in this crate reads a clock.
pub type Millis = u64;

/// One of the two file systems that we own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Volume {
    /// Objects, trails, volumes of containers, logs.
    Storage,
    /// What the loader reads: boot assets of the kept revisions, the journal, `last`.
    Boot,
}

/// A folder that holds names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Dir {
    /// Objects under their final names.
    Objects(Volume),
    /// Objects whose content is not known to be durable.
    Incoming(Volume),
    /// Revisions under their final names, `locals/` included.
    Trails(Volume),
    /// The volume's own folder.
    Root(Volume),
}

/// An errand for which something is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// Its key, its certificate, and the tokens that it gave.
    Endpoint,
    /// What was tried from USB sticks.
    Usb,
}

impl Owner {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Endpoint, Self::Usb];
}

/// Whose metadata.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// What the device says of itself.
    Device,
    /// What its users say of it.
    User,
}

/// Where a revision's folder is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Being built: swept at start.
    New,
    /// Complete and visible under its name.
    Live,
    /// Being removed: swept at start.
    Dead,
}

/// A file or folder below one of the two roots. The path layout is known to the door alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Name<'a> {
    /// Object under its final name: its content is durable and has this hash.
    Object(Volume, ObjectId),
    /// Object whose hash was verified but whose content may not be durable yet.
    Incoming(Volume, ObjectId),
    /// Everything that has come in, received in part or whole. Only ever removed (emptied) and asked for.
    AllIncoming(Volume),
    /// Folder of a revision.
    Trail(Volume, Stage, RevName),
    /// File of a revision: `key` is a validated relative path (a state key, `.pvr/json`, `.pv/progress`, `pv-kernel.img` …).
    File(Volume, Stage, RevName, &'a str),
    /// Name of the last committed revision, read by the loader's default environment when both copies are bad.
    /// One sector, only ever overwritten in place.
    Last,
    /// The text by which the loader of a device that was taken over decides. `New` while it is written.
    LoaderText(Stage),
    /// What is kept for an errand, the endpoint's key among it: for root alone. `New` while it is written.
    Memory(Owner, Stage),
    /// A record of metadata. `New` while it is written.
    Metadata(Subject, Stage),
    /// Everything on storage but objects, revisions, and what a loader may read there: volumes of containers, logs, what is
    /// kept for the endpoint, what others put there. Only ever removed.
    Others,
}

/// The names in a folder of one block, as ext4 keeps them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Names {
    /// How many there are, the folder's own two (`.`, `..`) among them.
    pub count: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// Bytes of the longest one's text.
    pub longest: usize,
    /// Bytes that there are for names.
    pub room: usize,
}

impl Names {
    /// Bytes at the end of a block that hold its checksum, on a file system that has one.
    const TAIL: usize = 12;

    /// None yet, in a block of this size.
    pub fn in_block(size: usize) -> Self {
        Self { room: size.saturating_sub(Self::TAIL), ..Self::default() }
    }

    /// Bytes that a name of this length takes.
    pub fn size_of(length: usize) -> usize {
        (8 + length).next_multiple_of(4)
    }

    /// One of this length more.
    pub fn add(&mut self, length: usize) {
        self.count += 1;
        self.bytes += Self::size_of(length);
        self.longest = self.longest.max(length);
    }

    /// Whether a name that takes `size` bytes finds a gap, however the names lie.
    pub fn has_gap(&self, size: usize) -> bool {
        self.room.saturating_sub(self.bytes) >= self.count * size
    }
}

/// Files and folders below the two roots.
pub trait Disk {
    /// The effects of this row come next. Nothing on a device: for those who watch.
    #[inline]
    fn step(&mut self, _row: Row) {}
    /// The volume with the boot assets: `Storage` on a device that was taken over, whose `Boot` is a folder of it
    /// without objects and revisions.
    fn loader_reads(&self) -> Volume {
        Volume::Boot
    }
    /// Whether the name exists.
    fn exists(&mut self, name: Name<'_>) -> Result<bool, Code>;
    /// Reads a whole file; its length. `StorageDamaged` if it does not fit `out`, `RevisionUnknown` if it is not there.
    fn read(&mut self, name: Name<'_>, out: &mut [u8]) -> Result<usize, Code>;
    /// Creates or replaces a file, with parent folders. Not durable.
    fn write(&mut self, name: Name<'_>, data: &[u8]) -> Result<(), Code>;
    /// Overwrites the first sector of a file in place (creates it if need be). Not durable, but never torn, and a
    /// reader that does not replay the file system's journal sees it as soon as it is durable.
    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code>;
    /// Copies content into a new file. Not durable.
    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code>;
    /// A further name for the same file, with parent folders. Not durable.
    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code>;
    /// Renames a file or folder, with parent folders of the target. Atomic, not durable.
    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code>;
    /// Exchanges two folders: each then has the other's name. Atomic, not durable.
    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code>;
    /// Removes a file or a whole folder; no error if it is not there. Not durable.
    fn remove(&mut self, name: Name<'_>) -> Result<(), Code>;
    /// Makes a file's content durable (not its name).
    fn sync_file(&mut self, name: Name<'_>) -> Result<(), Code>;
    /// Makes the names in a folder durable: creations, renames, removals. `Trails` covers `trails/` and `trails/locals/`.
    fn sync_dir(&mut self, dir: Dir) -> Result<(), Code>;
    /// Makes everything done so far on the volume durable: contents and names, the journal's region on `Boot` included.
    fn sync_volume(&mut self, volume: Volume) -> Result<(), Code>;
    /// Makes the names on the volume durable, and everything durable visible to a reader that does not replay the
    /// file system's journal. Contents that no sync covered are not covered by this either.
    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code>;
    /// Calls `each` with the name of every object in a folder of objects.
    fn each_object(&mut self, dir: Dir, each: &mut dyn FnMut(ObjectId)) -> Result<(), Code>;
    /// Calls `each` with every revision of a volume at this stage.
    fn each_trail(&mut self, volume: Volume, stage: Stage, each: &mut dyn FnMut(RevName)) -> Result<(), Code>;
    /// The names in `trails/` of storage, and those in its folder of local revisions; `None` for one that is longer than a block.
    /// Asked only where the loader reads storage.
    fn trail_names(&mut self) -> Result<[Option<Names>; 2], Code>;
    /// Free bytes of a volume.
    fn free(&mut self, volume: Volume) -> Result<u64, Code>;
    /// The size of a file in bytes.
    fn size(&mut self, name: Name<'_>) -> Result<u64, Code>;
}

/// Raw bytes at fixed places: an environment copy, the journal's slots.
pub trait Region {
    /// See `Disk::step`.
    #[inline]
    fn step(&mut self, _row: Row) {}
    /// Fills `out` from `offset`.
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code>;
    /// Writes `data` at `offset`. Not durable.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code>;
    /// Makes all writes so far durable.
    fn sync(&mut self) -> Result<(), Code>;
    /// Forgets cached content, so that the next read shows the medium.
    fn drop_cache(&mut self);
    /// Bytes of the whole region, where that is known.
    fn length(&mut self) -> Option<u64> {
        None
    }
}

/// The whole boot decision: loaded, changed and stored as one unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootVars {
    /// `pv_rev`: the revision that boots.
    pub committed: RevName,
    /// `pv_try` (with `upgrade_available=1`): the revision that the loader tries, a bounded number of times.
    pub candidate: Option<RevName>,
    /// `pv_prev`: the revision that was committed before.
    pub previous: Option<RevName>,
}

/// What the environment held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The decision.
    pub vars: BootVars,
    /// Boots that the loader has counted for the candidate; 0 after every store of ours.
    pub bootcount: u32,
    /// Every revision that *either* valid copy names: none of them may be collected.
    pub named: [Option<RevName>; 6],
    /// Both copies could be read. If not, the other one may name more, and nothing may be collected.
    pub complete: bool,
    /// The copy that is in force, from 1; always 1 where there is only one.
    pub active: u8,
    /// The other copy is not valid (`EnvCopyDamaged`): a store makes it so again, and is not torn-proof until then.
    pub damaged: bool,
}

/// Where the loader and we agree which revision boots.
pub trait BootEnv {
    /// Reads the copy that the loader would choose. `EnvInvalid` if neither is valid.
    fn load(&mut self) -> Result<Loaded, Code>;
    /// Stores all variables of a transition at once, and reads them back from the medium.
    /// After an error either the old or the new decision is in force, never a mixture.
    fn store(&mut self, vars: &BootVars) -> Result<(), Code>;
    /// Replaces an environment that `load` refuses by what the board's own text and `vars` say. Same steps and promises
    /// as a store; what else it held is lost. Refused, with nothing written, while `load` succeeds.
    fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code>;
}
