//! The process that looks at states: it mounts what it is shown, runs the device's own recovery over it until it is at rest
//! (`rest`), and says which laws are broken; then it switches the device off and looks once more. It talks to `crew` in lines of JSON.
//!
//! Invariants: what runs here is what runs on a device: `platform::disk::Volumes`, `platform::keeper::recover`,
//! `runtime::journal`, `runtime::boot`, `runtime::store`, and the codec of `boards`. Both file systems are mounted with
//! the device's flags, and mended by the device's own code when they do not mount, as there; how often is counted. One that then
//! needs `e2fsck` breaks a law: a device may have none. Every mount is gone before the answer. A device that was taken over has one file system, which the loader reads, and its own loader
//! (`original`); before anything else its text is taken over, as there.
//! Fault model: an error of the recovery is a broken law, not the end of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boards::{Board, Env, env::uboot_txt};
use platform::{disk::Volumes, env::BlockRegion, superblock};
use runtime::{
    boot::{self, Choice, Facts},
    grow,
    id::RevName,
    journal::{self, Record},
    limits,
    port::{BootVars, Loaded, Subject},
    state::{Plan, Spans},
    store::{self, Scratch, metadata::Room, taken::adopt},
};
use rustix::mount::MountFlags;
use serde_json::{Value, json};

use super::before::{Before, newest};
use super::ext4::has_errors;
use super::judge::UNSEEN;
use super::laws::{Broken, Ending, Views};
use super::layers::{Id, Range};
use super::loader::{self, Paths, Seen, dump};
use super::log::{Log, SECTOR};
use super::mounts::{FLAGS, Loop, Mount, may_resize};
use super::original;
use super::recording::Recording;
use super::reports::Reports;
use super::volume::{Known, Listing, Shelf};
use crate::loader_disk::FileRegion;
use crate::takeover::original::THEIRS;
use crate::tour::disk::Disk;
use crate::tour::{Outcome, ensure};

/// What the parts of a device are called of which states may differ, in the order of an answer's `classes`.
pub const CLASSES: [&str; 6] = ["environment", "trails", "journal", "boot assets", "objects", "metadata"];
/// Numbers of the partitions, in messages.
const BOOT: usize = 1;
const STORAGE: usize = 2;
/// In the list of loop devices: the loader's.
const LOADER: usize = 2;

/// Looks at states until there are no more. `disk` is the file that shows them, `folder` a place of its own.
pub fn serve(recording: &Path, disk: &Path, folder: &Path) -> Outcome<()> {
    let mut checker = Checker::new(recording, disk, folder)?;
    checker.talk.say(&json!({"ready": true}))?;
    while let Some(request) = checker.talk.hear()? {
        let answer = checker.check(&request);
        let answer = answer.unwrap_or_else(|error| json!({"violations": [format!("{UNSEEN}: {error}")]}));
        checker.talk.say(&answer)?;
    }
    Ok(())
}

/// The other end.
struct Talk;

impl Talk {
    fn say(&self, value: &Value) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{value}")?;
        Ok(out.flush()?)
    }

    fn hear(&self) -> Outcome<Option<Value>> {
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }

    /// The names of what inodes hold.
    fn names(&self, part: usize, inodes: &[u64]) -> Outcome<Vec<Option<Id>>> {
        self.say(&json!({"part": part, "inodes": inodes}))?;
        let answer = self.hear()?.ok_or("nobody names contents any more")?;
        let name = |name: &Value| name.as_str().and_then(|text| Id::from_str_radix(text, 16).ok());
        let names: Vec<Option<Id>> = answer.as_array().into_iter().flatten().map(name).collect();
        ensure(names.len() == inodes.len(), || "not every content was named".into())?;
        Ok(names)
    }
}

/// Buffers for the procedures.
pub(super) struct Buffers {
    pub(super) state: Vec<u8>,
    pub(super) marks: Vec<u64>,
    pub(super) conf: Vec<u8>,
    pub(super) spans: Box<Spans>,
    pub(super) plan: Box<Plan>,
    room: Box<Room>,
}

/// What the loader of a device that was taken over decides by.
#[derive(Default)]
pub(super) struct Taken {
    /// As it last read it.
    pub(super) text: Vec<u8>,
    pub(super) mark: Option<Vec<u8>>,
}

/// Of what the loader looks for something: the name of what the boot partition holds, and the revisions that are wanted at least.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct View {
    boot: String,
    wanted: Vec<RevName>,
}

impl View {
    /// Wanted is what is `loaded` names, and the factory's.
    pub(super) fn of(boot: &str, loaded: Option<&Loaded>) -> Self {
        let named = loaded.into_iter().flat_map(|loaded| loaded.named).flatten();
        let wanted = Vec::from_iter(named.chain([RevName::factory()]).collect::<BTreeSet<RevName>>());
        Self { boot: boot.into(), wanted }
    }
}

pub(super) struct Checker {
    talk: Talk,
    pub(super) board: &'static Board,
    reports: Reports,
    disk: PathBuf,
    /// First byte of what holds the environment.
    env: u64,
    /// As far as the storage partition may reach, its number, and whether it grows.
    storage: Range,
    number: u8,
    grows: bool,
    may_resize: bool,
    folder: PathBuf,
    /// Loop devices of boot and storage, and one more of boot, that is only read: as the loader does, it shows what is on the
    /// medium, also while Linux has the file system mounted.
    devices: [String; 3],
    /// Where boot is.
    boot: Range,
    known: Known,
    /// What the loader sees; equal partitions look the same.
    seen: BTreeMap<View, Seen>,
    /// What the disk before says.
    before: Before,
    /// The loader of a device that was taken over.
    pub(super) taken: Option<Taken>,
    pub(super) buffers: Buffers,
    /// Superblocks of the state that is looked at that were mended.
    mended: u32,
}

impl Checker {
    fn new(recording: &Path, disk: &Path, folder: &Path) -> Outcome<Self> {
        let recording = Recording::read(recording)?;
        let board = boards::find(&recording.board).ok_or("no such board")?;
        let parts = Disk::open(&recording.before(), board)?;
        let log = Log::read(&recording.log(), std::fs::metadata(recording.before())?.len())?;
        let [env, boot, storage] = parts_of(&parts, std::fs::metadata(recording.before())?.len());
        let before = Before::read(board, &recording.before(), boot, storage)?;
        let attach = |part: Range, how: &[&str]| -> Outcome<String> {
            let (start, length) = (part.start.to_string(), part.length.to_string());
            let arguments = ["--find", "--show", "--offset", &start, "--sizelimit", &length];
            let ran = Command::new("losetup").args(arguments).args(how).arg(disk).stdin(Stdio::null()).output()?;
            ensure(ran.status.success(), || format!("losetup: {}", String::from_utf8_lossy(&ran.stderr).trim()))?;
            let device = String::from_utf8_lossy(&ran.stdout).trim().to_string();
            // At once: whoever clears up must know of it, however this ends.
            Talk.say(&json!({"device": device}))?;
            Ok(device)
        };
        let devices = [attach(boot, &[])?, attach(storage, &[])?, attach(boot, &["--read-only"])?];
        for name in ["boot", "storage", "loader"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let buffers = Buffers {
            state: vec![0; limits::STATE_MAX],
            marks: vec![0; limits::KEPT_MAX * limits::STATE_ENTRIES_MAX],
            conf: vec![0; limits::LXC_CONF_MAX],
            spans: Box::new(Spans::new()),
            plan: Box::new(Plan::empty(RevName::factory())),
            room: Box::default(),
        };
        Ok(Self {
            talk: Talk,
            board,
            reports: Reports::of(&recording, &log, &before)?,
            disk: disk.into(),
            env: env.start,
            storage,
            number: board.disk.storage.number,
            grows: recording.operation == "growth",
            may_resize: may_resize()?,
            folder: folder.into(),
            devices,
            boot,
            known: Known::new(),
            seen: BTreeMap::new(),
            before,
            taken: board.is_taken_over().then(Taken::default),
            buffers,
            mended: 0,
        })
    }

    pub(super) fn region(&self) -> FileRegion {
        FileRegion::open(&self.disk, self.env)
    }

    fn check(&mut self, request: &Value) -> Outcome<Value> {
        let end = request["end"].as_u64().ok_or("no end")? as usize;
        let boot = request["boot"].as_str().ok_or("no name of the boot partition")?;
        self.mended = 0;
        if self.taken.is_some() {
            self.taken = Some(Taken { text: self.text()?, mark: original::mark(self.board, self.region())? });
        }
        let loaded = self.as_the_loader_reads()?;
        let view = View::of(boot, loaded.as_ref());
        let seen = self.look(&view)?;
        self.keep(view, &seen); // nothing is mounted yet: nobody writes
        let facts = self.boots(&seen)?;

        let mut broken = Broken::new();
        let (classes, loaded, ending) = self.recovered((loaded, facts), &seen, end, &mut broken)?;
        self.is_sound(&mut broken)?;
        if self.grows && !self.may_resize {
            let ran = Command::new("resize2fs").args(["-f", &self.devices[1]]).stdin(Stdio::null()).output()?;
            ensure(ran.status.success(), || format!("resize2fs: {}", String::from_utf8_lossy(&ran.stderr).trim()))?;
        }
        if let Some(ending) = ending {
            let mut late = Broken::new();
            self.at_rest(&ending, loaded.map(|loaded| loaded.vars), end, &mut late)?;
            self.is_sound(&mut late)?;
            late.retain(|law| !broken.contains(law));
            broken.extend(late.into_iter().map(|law| format!("{law} (at rest after the recovery)")));
        }
        let mut told = BTreeSet::new();
        broken.retain(|law| told.insert(law.clone()));
        Ok(json!({"violations": broken, "classes": classes, "mended": self.mended, "forced": seen.forced}))
    }

    /// What the state shows, and what the device makes of it until it comes to rest.
    fn recovered(
        &mut self,
        (loaded, facts): (Option<Loaded>, Option<Facts>),
        seen: &Seen,
        end: usize,
        broken: &mut Broken,
    ) -> Outcome<([String; 6], Option<Loaded>, Option<Ending>)> {
        let [boot, storage] = self.roots();
        let _boot = match self.taken {
            Some(_) => None,
            None => Some(self.mount_or_mend("boot", &self.devices[0].clone(), &boot, broken)?),
        };
        let _storage = self.mount_or_mend("storage", &self.devices[1].clone(), &storage, broken)?;
        let shelves = self.shelves()?;
        let theirs = facts.filter(|facts| self.is_theirs(facts));
        let mut volumes = if theirs.is_some() { None } else { Some(self.open(broken)?) };
        let record = match &volumes {
            Some(volumes) => journal::load(&mut volumes.journal()?).map_err(|code| format!("the journal: {code}"))?,
            None => shelves.0.read("journal").ok().and_then(|bytes| newest(&bytes)),
        };
        let loaded = if self.taken.is_some() { self.loaded()? } else { loaded };

        let choice = self.choose(facts.as_ref(), record)?;
        let (factory, says) = (self.before.factory, choice.record);
        let views = Views { seen, boot: &shelves.0, storage: &shelves.1, loaded, record, says, factory };
        self.fits(broken)?;
        views.at_rest(broken);
        views.reported(&self.reports, end, broken);
        if let Some(taken) = &self.taken {
            views.taken(&taken.text, broken);
        }
        let classes = classes(&views, self.taken.is_some());
        let Some(mut volumes) = volumes.take() else {
            views.booted(facts.and_then(|facts| facts.booted), &choice, broken);
            let ending = theirs.map(|facts| Ending { facts, choice, reset: false, theirs: true });
            return Ok((classes, loaded, ending));
        };
        self.recover(&mut volumes, &views, broken)?;
        self.metadata(&mut volumes, broken);
        if self.grows {
            self.grow(&volumes, broken)?;
        }
        views.booted(facts.and_then(|facts| facts.booted), &choice, broken);
        self.verify(&mut volumes, choice.run, broken);
        let ending = match facts {
            Some(facts) => self.settle(&mut volumes, &views, facts, broken)?,
            None => None,
        };
        Ok((classes, loaded, ending))
    }

    /// What the device opens once both are mounted; its loader's text is taken over before.
    fn open(&mut self, broken: &mut Broken) -> Outcome<Volumes> {
        let [boot, storage] = self.roots();
        let text = |path: &Path| path.to_str().map(str::to_string).ok_or("a path that is no text");
        let (storage, boot) = (text(&storage)?, text(&boot)?);
        if self.taken.is_none() {
            return Ok(Volumes::open(&storage, &boot)?);
        }
        let mut volumes = Volumes::open_taken(&storage, &boot, self.file())?;
        if let Err(code) = adopt(&mut volumes, &mut Box::new([0; limits::LOADER_TEXT_MAX]), uboot_txt::adopt) {
            broken.push(format!("takeover: at the next start: {code}"));
        }
        Ok(volumes)
    }

    /// Where boot and storage are seen.
    pub(super) fn roots(&self) -> [PathBuf; 2] {
        let storage = self.folder.join("storage");
        [if self.taken.is_some() { storage.join("boot") } else { self.folder.join("boot") }, storage]
    }

    /// The name of the loader's text.
    pub(super) fn file(&self) -> &'static str {
        match self.board.env {
            Env::UbootTxt { file, .. } => file,
            _ => "",
        }
    }

    /// Whether it is the original that runs.
    pub(super) fn is_theirs(&self, facts: &Facts) -> bool {
        self.taken.is_some() && facts.booted.is_some_and(|rev| rev.as_str() == THEIRS)
    }

    /// The text of a loader that replays no journal, as it lies on the medium now.
    pub(super) fn text(&self) -> Outcome<Vec<u8>> {
        let at = self.folder.join("loader");
        if let Ok(_mount) = Mount::new(&self.devices[LOADER], &at, FLAGS.union(MountFlags::RDONLY), c"noload")
            && let Ok(text) = std::fs::read(at.join("boot").join(self.file()))
        {
            return Ok(text);
        }
        Ok(dump(&self.devices[LOADER], &format!("/boot/{}", self.file()), &self.folder)?.unwrap_or_default())
    }

    /// The environment as the loader reads it.
    pub(super) fn as_the_loader_reads(&self) -> Outcome<Option<Loaded>> {
        match &self.taken {
            Some(taken) => Ok(original::load(self.board, &taken.text, self.region())),
            None => Ok(loader::load(self.board, self.region())?.1),
        }
    }

    /// The environment as the device reads it, with what holds it mounted.
    pub(super) fn loaded(&self) -> Outcome<Option<Loaded>> {
        match self.taken {
            Some(_) => {
                let text = std::fs::read(self.roots()[0].join(self.file())).unwrap_or_default();
                Ok(original::load(self.board, &text, self.region()))
            }
            None => Ok(loader::load(self.board, self.region())?.1),
        }
    }

    /// From power-on to the kernel, where this is seen; `None`: nothing boots.
    pub(super) fn boots(&mut self, seen: &Seen) -> Outcome<Option<Facts>> {
        match &mut self.taken {
            Some(Taken { text, mark }) => Ok(original::run(text, mark, |rev| seen.loads(rev))),
            None => loader::run(self.board, || self.region(), seen),
        }
    }

    /// The device is off again: what it came to rest with is held to the same laws, in both views. `began`: the decision of
    /// the state.
    fn at_rest(&mut self, ending: &Ending, began: Option<BootVars>, end: usize, broken: &mut Broken) -> Outcome<()> {
        let [boot, storage] = self.roots();
        let mount = |device: &str, at: &Path| Mount::new(device, at, FLAGS.union(MountFlags::RDONLY), c"noload");
        let _boot = if self.taken.is_some() { None } else { Some(mount(&self.devices[0], &boot)?) };
        let _storage = mount(&self.devices[1], &storage)?;
        let shelves = self.shelves()?;
        let read = if self.taken.is_some() { &shelves.1 } else { &shelves.0 };
        let seen = Seen::of(read, Paths::of(self.board));
        let record = shelves.0.read("journal").ok().and_then(|bytes| newest(&bytes));
        let loaded = self.loaded()?;
        let (factory, says) = (self.before.factory, self.choose(Some(&ending.facts), record)?.record);
        let views = Views { seen: &seen, boot: &shelves.0, storage: &shelves.1, loaded, record, says, factory };
        let left = self.fits(broken)?;
        if self.grows && left > 0 {
            broken.push(format!(
                "growth: after the next start storage's file system leaves {left} bytes to its partition"
            ));
        }
        views.at_rest(broken);
        if self.taken.is_some() {
            views.taken(&shelves.0.read(self.file()).unwrap_or_default(), broken);
        }
        views.promised(&self.reports, end, broken);
        views.booted(ending.facts.booted, &ending.choice, broken);
        views.rests(ending, began, broken);
        Ok(())
    }

    /// What the two partitions show that are mounted.
    fn shelves(&mut self) -> Outcome<(Shelf, Shelf)> {
        let [boot, storage] = self.roots();
        let talk = &self.talk;
        let mut names = |part: usize, inodes: &[u64]| talk.names(part, inodes);
        let boot = Shelf::look(&boot, BOOT, &mut self.known, &mut names)?;
        Ok((boot, Shelf::look(&storage, STORAGE, &mut self.known, &mut names)?))
    }

    /// Linux, which looked at both file systems and wrote to them until now, met no damage there, whoever has it looked at.
    fn is_sound(&self, broken: &mut Broken) -> Outcome<()> {
        let disk = File::open(&self.disk)?;
        for (name, part) in [("boot", self.boot), ("storage", self.storage)] {
            if has_errors(&disk, part)? {
                broken.push(format!("file system: Linux met damage on {name}"));
            }
        }
        Ok(())
    }

    /// The storage file system is no larger than its partition, as the table in this state has it; how much is left.
    fn fits(&self, broken: &mut Broken) -> Outcome<u64> {
        let disk = File::open(&self.disk)?;
        let number = |at: u64| -> Outcome<u64> {
            let mut bytes = [0; 4];
            disk.read_exact_at(&mut bytes, at)?;
            Ok(u64::from(u32::from_le_bytes(bytes)))
        };
        let entry = 446 + 16 * (u64::from(self.number) - 1);
        let (start, partition) = (number(entry + 8)? * SECTOR, number(entry + 12)? * SECTOR);
        let head = self.storage.start + 1024;
        let blocks = number(head + 4)? | number(head + 0x150)? << 32;
        let length = blocks << (10 + number(head + 24)?.min(6));
        if start != self.storage.start || length > partition {
            broken.push(format!("storage: a file system of {length} bytes in a partition of {partition} at {start}"));
        }
        Ok(partition.saturating_sub(length))
    }

    /// Storage's growth at the next start, by the device's own code; at rest, what a cut left smaller reaches to the end of the disk.
    fn grow(&self, volumes: &Volumes, broken: &mut Broken) -> Outcome<()> {
        let disk = File::options().read(true).write(true).open(&self.disk)?;
        let mut ground = Loop(self.may_resize.then_some(volumes));
        if let Err(code) = grow::grow(&mut BlockRegion::from(OwnedFd::from(disk)), &mut ground, self.number) {
            broken.push(format!("growth: at the next start: {code}"));
        }
        Ok(())
    }

    /// Both records of metadata can be read.
    fn metadata(&mut self, volumes: &mut Volumes, broken: &mut Broken) {
        for subject in [Subject::Device, Subject::User] {
            if let Err(code) = store::metadata::each(volumes, subject, &mut self.buffers.room, &mut |_, _| {}) {
                broken.push(format!("metadata: the record of {subject:?}: {code}"));
            }
        }
    }

    /// The name of what the loader finds on the boot partition now, whatever Linux has of it in memory.
    pub(super) fn medium(&self) -> Outcome<String> {
        self.talk.say(&json!({"part": BOOT}))?;
        let name = self.talk.hear()?.as_ref().and_then(|name| Some(format!("medium {}", name.as_str()?)));
        Ok(name.ok_or("the medium has no name")?)
    }

    /// What the loader sees of the boot partition; a view that is kept is not looked at again.
    pub(super) fn look(&mut self, view: &View) -> Outcome<Seen> {
        if let Some(seen) = self.seen.get(view) {
            return Ok(seen.clone());
        }
        let at = self.folder.join("loader");
        let mut seen = Seen::default();
        if let Ok(_mount) = Mount::new(&self.devices[LOADER], &at, FLAGS.union(MountFlags::RDONLY), c"noload") {
            let talk = &self.talk;
            let mut names = |part: usize, inodes: &[u64]| talk.names(part, inodes);
            let shelf = Shelf::look_at_trails(&at, BOOT, &mut self.known, &mut names)?;
            seen = Seen::of(&shelf, Paths::of(self.board));
        }
        seen.force(&self.devices[LOADER], &view.wanted, Paths::of(self.board), &self.folder)?;
        Ok(seen)
    }

    /// For a partition that had the same name before it was looked at and after.
    pub(super) fn keep(&mut self, view: View, seen: &Seen) {
        self.seen.entry(view).or_insert_with(|| seen.clone());
    }

    /// As the device mounts: if that fails, after its superblock was mended. A power cut never leaves more to be done: what
    /// needs `e2fsck` breaks a law, and is looked at after that. So it is where the original boots again, which may not mend.
    fn mount_or_mend(&mut self, name: &str, device: &str, at: &Path, broken: &mut Broken) -> Outcome<Mount> {
        if let Ok(mount) = Mount::new(device, at, FLAGS, c"") {
            return Ok(mount);
        }
        if superblock::mend(device).map_err(|code| format!("the superblock of {name}: {code}"))? {
            self.mended += 1;
            if let Ok(mount) = Mount::new(device, at, FLAGS, c"") {
                return Ok(mount);
            }
        }
        broken.push(format!("mount: {name} does not mount without e2fsck"));
        let ran = Command::new("e2fsck").args(["-fy", device]).stdin(Stdio::null()).output()?;
        Mount::new(device, at, FLAGS, c"").map_err(|error| format!("{device}: {error}; e2fsck: {}", ran.status).into())
    }

    /// The keeper's recovery, twice: nothing that has a final name changes, nothing else stays.
    fn recover(&mut self, volumes: &mut Volumes, views: &Views<'_>, broken: &mut Broken) -> Outcome<()> {
        for time in ["first", "second"] {
            let mut journal = volumes.journal()?;
            if let Err(code) = platform::keeper::recover(volumes, &mut journal) {
                broken.push(format!("recovery: the {time} time: {code}"));
            }
            for (name, before) in [("storage", views.storage), ("boot", views.boot)] {
                let at = self.folder.join(name);
                let after = Listing::of(&at)?;
                let same = before.objects.keys().eq(&after.objects) && before.trails.keys().eq(&after.trails);
                let swept = after.odd.iter().all(|odd| !odd.starts_with(".new-") && !odd.starts_with(".del-"));
                if !same || !swept || after.odd.iter().any(|odd| odd.starts_with("incoming ")) {
                    broken.push(format!("recovery: the {time} time it left {name} with {:?}", after.odd));
                }
            }
        }
        Ok(())
    }

    pub(super) fn choose(&self, facts: Option<&Facts>, record: Option<Record>) -> Outcome<Choice> {
        let nothing = Facts {
            booted: None,
            candidate: None,
            bootcount: 0,
            canary: true,
            script: *boot::SCRIPTS.end(),
            watchdog: false,
        };
        Ok(boot::choose(self.loaded()?, facts.unwrap_or(&nothing), record))
    }

    fn verify(&mut self, volumes: &mut Volumes, rev: RevName, broken: &mut Broken) {
        let Buffers { state, marks, conf, spans, plan, .. } = &mut self.buffers;
        if let Err(refusal) = store::verify(volumes, rev, &mut Scratch { state, marks, conf, spans, plan }) {
            broken.push(format!("law 5: {rev} is to run: {refusal}"));
        }
    }
}

/// One number for each of [`CLASSES`]: equal ones mean that it shows the same. `taken`: the loader reads storage.
fn classes(views: &Views<'_>, taken: bool) -> [String; 6] {
    let number = |value: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        value(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    let text = |text: String| number(&|hasher| text.hash(hasher));
    let names = |shelf: &Shelf| shelf.trails.keys().map(ToString::to_string).collect::<Vec<_>>();
    let odd = |incoming: bool| {
        let of = |odd: &&String| odd.starts_with("incoming ") == incoming;
        views.storage.odd.iter().filter(of).cloned().collect::<Vec<_>>()
    };
    let objects = |shelf: &Shelf| shelf.objects.keys().map(ToString::to_string).collect::<Vec<_>>();
    [
        text(format!("{:?}", views.loaded)),
        text(format!("{:?} {:?}", names(views.storage), odd(false))),
        text(format!("{:?}", views.record)),
        match taken {
            true => text(format!("{:?}", views.seen.revisions)),
            false => text(format!("{:?} {:?} {:?}", names(views.boot), objects(views.boot), views.boot.odd)),
        },
        text(format!("{:?} {:?}", objects(views.storage), odd(true))),
        text(format!("{:?}", views.storage.files)),
    ]
}

/// What holds the environment, and the partitions boot and storage. The one that stands last reaches to the end of the disk:
/// it may have grown.
pub fn parts_of(disk: &Disk, length: u64) -> [Range; 3] {
    let mut parts = [disk.env, disk.boot, disk.storage].map(|part| Range { start: part.start, length: part.length });
    let last = parts[1..].iter_mut().max_by_key(|part| part.start);
    if let Some(last) = last {
        last.length = length - last.start;
    }
    parts
}
