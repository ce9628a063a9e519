//! The process that looks at states: it mounts what it is shown, runs the device's own recovery over it, and says which
//! laws are broken; then it switches the device off at rest and looks once more. It talks to `crew` in lines of JSON.
//!
//! Invariants: what runs here is what runs on a device: `platform::disk::Volumes`, `platform::keeper::recover`,
//! `runtime::journal`, `runtime::boot`, `runtime::store`, and the codec of `boards`. Both file systems are mounted with
//! the device's flags, and repaired by `e2fsck -fy` when they do not mount, as there; how often is counted. Every mount is
//! gone before the answer.
//! Fault model: an error of the recovery is a broken law, not the end of the run.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boards::{Board, env::uboot::Uboot};
use platform::{disk::Volumes, env::BlockRegion};
use runtime::{
    boot::{self, Choice, Facts, Mode},
    fault::Code,
    grow,
    id::RevName,
    journal::{self, Record},
    limits,
    port::{BootEnv, BootVars, Loaded, Subject},
    progress::Progress,
    state::{Plan, Spans},
    store::{self, Scratch, metadata::Room},
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use super::before::{Before, newest};
use super::judge::UNSEEN;
use super::laws::{BOOTS_MAX, Broken, Ending, Views};
use super::layers::{Id, Range};
use super::loader::{self, Seen};
use super::log::{Log, SECTOR};
use super::recording::Recording;
use super::reports::Reports;
use super::volume::{Known, Listing, Shelf};
use crate::loader_disk::FileRegion;
use crate::tour::disk::Disk;
use crate::tour::{Outcome, ensure};

/// What the parts of a device are called of which states may differ, in the order of an answer's `classes`.
pub const CLASSES: [&str; 6] = ["environment", "trails", "journal", "boot assets", "objects", "metadata"];
/// Numbers of the partitions, in messages.
const BOOT: usize = 1;
const STORAGE: usize = 2;

/// The flags with which a device mounts.
const FLAGS: MountFlags = MountFlags::NOATIME.union(MountFlags::NODEV).union(MountFlags::NOSUID);

/// Looks at states until there are no more. `disk` is the file that shows them, `folder` a place of its own.
pub fn serve(recording: &Path, disk: &Path, folder: &Path) -> Outcome<()> {
    let mut checker = Checker::new(recording, disk, folder)?;
    checker.talk.say(&json!({"devices": checker.devices}))?;
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
struct Buffers {
    state: Vec<u8>,
    marks: Vec<u64>,
    conf: Vec<u8>,
    spans: Box<Spans>,
    plan: Box<Plan>,
    room: Box<Room>,
}

struct Checker {
    talk: Talk,
    board: &'static Board,
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
    /// Loop devices of boot and storage.
    devices: [String; 2],
    known: Known,
    /// What the loader sees, by the content of the boot partition.
    seen: HashMap<String, Seen>,
    /// What the disk before says.
    before: Before,
    buffers: Buffers,
    /// Repairs and refusals of the state that is looked at.
    repairs: u32,
}

impl Checker {
    fn new(recording: &Path, disk: &Path, folder: &Path) -> Outcome<Self> {
        let recording = Recording::read(recording)?;
        let board = boards::find(&recording.board).ok_or("no such board")?;
        let parts = Disk::open(&recording.before(), board)?;
        let log = Log::read(&recording.log(), std::fs::metadata(recording.before())?.len())?;
        let [env, boot, storage] = parts_of(&parts, std::fs::metadata(recording.before())?.len());
        let before = Before::read(&recording.before(), boot, storage)?;
        let attach = |part: Range| -> Outcome<String> {
            let (start, length) = (part.start.to_string(), part.length.to_string());
            let arguments = ["--find", "--show", "--offset", &start, "--sizelimit", &length];
            let ran = Command::new("losetup").args(arguments).arg(disk).stdin(Stdio::null()).output()?;
            ensure(ran.status.success(), || format!("losetup: {}", String::from_utf8_lossy(&ran.stderr).trim()))?;
            Ok(String::from_utf8_lossy(&ran.stdout).trim().to_string())
        };
        let devices = [attach(boot)?, attach(storage)?];
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
            known: Known::new(),
            seen: HashMap::new(),
            before,
            buffers,
            repairs: 0,
        })
    }

    fn region(&self) -> FileRegion {
        FileRegion::open(&self.disk, self.env)
    }

    fn check(&mut self, request: &Value) -> Outcome<Value> {
        let end = request["end"].as_u64().ok_or("no end")? as usize;
        let boot = request["boot"].as_str().ok_or("no name of the boot partition")?;
        self.repairs = 0;
        let (_, loaded) = loader::load(self.board, self.region())?;
        let named = loaded.iter().flat_map(|loaded| loaded.named).flatten();
        let wanted: BTreeSet<RevName> = named.chain([RevName::factory()]).collect();
        let seen = self.seen(boot, &Vec::from_iter(wanted))?;
        let facts = loader::run(self.board, || self.region(), &seen)?;

        let mut broken = Broken::new();
        let (classes, ending) = self.recovered((loaded, facts), &seen, end, &mut broken)?;
        if self.grows && !self.may_resize {
            let ran = Command::new("resize2fs").args(["-f", &self.devices[1]]).stdin(Stdio::null()).output()?;
            ensure(ran.status.success(), || format!("resize2fs: {}", String::from_utf8_lossy(&ran.stderr).trim()))?;
        }
        if let Some(ending) = ending {
            let mut late = Broken::new();
            self.at_rest(&ending, loaded.map(|loaded| loaded.vars), end, &mut late)?;
            late.retain(|law| !broken.contains(law));
            broken.extend(late.into_iter().map(|law| format!("{law} (at rest after the recovery)")));
        }
        let mut told = BTreeSet::new();
        broken.retain(|law| told.insert(law.clone()));
        Ok(json!({"violations": broken, "classes": classes, "repairs": self.repairs, "forced": seen.forced}))
    }

    /// What the state shows, and what the device makes of it until it comes to rest.
    fn recovered(
        &mut self,
        (loaded, facts): (Option<Loaded>, Option<Facts>),
        seen: &Seen,
        end: usize,
        broken: &mut Broken,
    ) -> Outcome<([String; 6], Option<Ending>)> {
        let [boot, storage] = ["boot", "storage"].map(|name| self.folder.join(name));
        let _boot = self.mount_or_repair(&self.devices[0].clone(), &boot)?;
        let _storage = self.mount_or_repair(&self.devices[1].clone(), &storage)?;
        let shelves = self.shelves()?;
        let text = |path: &Path| path.to_str().map(str::to_string).ok_or("a path that is no text");
        let mut volumes = Volumes::open(&text(&storage)?, &text(&boot)?)?;
        let record = journal::load(&mut volumes.journal()?).map_err(|code| format!("the journal: {code}"))?;

        let choice = self.choose(facts.as_ref(), record)?;
        let (factory, says) = (self.before.factory, choice.record);
        let views = Views { seen, boot: &shelves.0, storage: &shelves.1, loaded, record, says, factory };
        self.fits(broken)?;
        views.at_rest(broken);
        views.reported(&self.reports, end, broken);
        self.recover(&mut volumes, &views, broken)?;
        self.metadata(&mut volumes, broken);
        if self.grows {
            self.grow(&volumes, broken)?;
        }
        views.booted(facts.and_then(|facts| facts.booted), &choice, broken);
        self.verify(&mut volumes, choice.run, broken);
        let ending = match facts {
            Some(facts) => self.settle(&mut volumes, seen, facts, broken)?,
            None => None,
        };
        Ok((classes(&views), ending))
    }

    /// The device is off again: what it came to rest with is held to the same laws, in both views. `began`: the decision of
    /// the state.
    fn at_rest(&mut self, ending: &Ending, began: Option<BootVars>, end: usize, broken: &mut Broken) -> Outcome<()> {
        let [boot, storage] = ["boot", "storage"].map(|name| self.folder.join(name));
        let _boot = Mount::new(&self.devices[0], &boot, FLAGS.union(MountFlags::RDONLY), c"noload")?;
        let _storage = Mount::new(&self.devices[1], &storage, FLAGS.union(MountFlags::RDONLY), c"noload")?;
        let shelves = self.shelves()?;
        let (seen, record) = (Seen::of(&shelves.0), newest(&shelves.0.read("journal")?));
        let (_, loaded) = loader::load(self.board, self.region())?;
        let (factory, says) = (self.before.factory, self.choose(Some(&ending.facts), record)?.record);
        let views = Views { seen: &seen, boot: &shelves.0, storage: &shelves.1, loaded, record, says, factory };
        let left = self.fits(broken)?;
        if self.grows && left > 0 {
            broken.push(format!(
                "growth: after the next start storage's file system leaves {left} bytes to its partition"
            ));
        }
        views.at_rest(broken);
        views.promised(&self.reports, end, broken);
        views.booted(ending.facts.booted, &ending.choice, broken);
        views.rests(ending, began, broken);
        Ok(())
    }

    /// What the two partitions show that are mounted.
    fn shelves(&mut self) -> Outcome<(Shelf, Shelf)> {
        let talk = &self.talk;
        let mut names = |part: usize, inodes: &[u64]| talk.names(part, inodes);
        let boot = Shelf::look(&self.folder.join("boot"), BOOT, &mut self.known, &mut names)?;
        Ok((boot, Shelf::look(&self.folder.join("storage"), STORAGE, &mut self.known, &mut names)?))
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

    /// What the loader sees of the boot partition, `wanted` at least; equal partitions look the same.
    fn seen(&mut self, boot: &str, wanted: &[RevName]) -> Outcome<Seen> {
        let key = format!("{boot} {wanted:?}");
        if let Some(seen) = self.seen.get(&key) {
            return Ok(seen.clone());
        }
        let at = self.folder.join("loader");
        let mut seen = Seen::default();
        if let Ok(_mount) = Mount::new(&self.devices[0], &at, FLAGS.union(MountFlags::RDONLY), c"noload") {
            let talk = &self.talk;
            let mut names = |part: usize, inodes: &[u64]| talk.names(part, inodes);
            seen = Seen::of(&Shelf::look_at_trails(&at, BOOT, &mut self.known, &mut names)?);
        }
        seen.force(&self.devices[0], wanted, &self.folder)?;
        self.seen.insert(key, seen.clone());
        Ok(seen)
    }

    /// As the device mounts: if that fails, after a repair.
    fn mount_or_repair(&mut self, device: &str, at: &Path) -> Outcome<Mount> {
        if let Ok(mount) = Mount::new(device, at, FLAGS, c"") {
            return Ok(mount);
        }
        self.repairs += 1;
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

    fn choose(&self, facts: Option<&Facts>, record: Option<Record>) -> Outcome<Choice> {
        let nothing = Facts {
            booted: None,
            candidate: None,
            bootcount: 0,
            canary: true,
            script: *boot::SCRIPTS.end(),
            watchdog: false,
        };
        let (_, loaded) = loader::load(self.board, self.region())?;
        Ok(boot::choose(loaded, facts.unwrap_or(&nothing), record))
    }

    fn verify(&mut self, volumes: &mut Volumes, rev: RevName, broken: &mut Broken) {
        let Buffers { state, marks, conf, spans, plan, .. } = &mut self.buffers;
        if let Err(refusal) = store::verify(volumes, rev, &mut Scratch { state, marks, conf, spans, plan }) {
            broken.push(format!("law 5: {rev} is to run: {refusal}"));
        }
    }

    /// Law 3: power comes back and goes again in each boot, after the choice was carried out, until one has nothing to do.
    fn settle(
        &mut self,
        volumes: &mut Volumes,
        seen: &Seen,
        facts: Facts,
        broken: &mut Broken,
    ) -> Outcome<Option<Ending>> {
        let mut journal = volumes.journal()?;
        let (mut facts, mut reset) = (Some(facts), false);
        for _ in 0..BOOTS_MAX {
            let Some(booted) = facts else {
                broken.push("law 5: after further boots the loader finds nothing that boots".into());
                return Ok(None);
            };
            let record = journal::load(&mut journal).map_err(|code| format!("the journal: {code}"))?;
            let choice = self.choose(Some(&booted), record)?;
            let rests = matches!(choice.mode, Mode::Steady | Mode::Cold) && !choice.write && choice.store.is_none();
            if rests {
                return Ok(Some(Ending { facts: booted, choice, reset }));
            }
            reset |= choice.mode == Mode::FactoryReset;
            self.carry_out(volumes, &mut journal, &choice)?;
            let last = store::read_last(volumes).map_err(|code| format!("last: {code}"))?;
            facts = loader::run(self.board, || self.region(), &Seen { last, ..seen.clone() })?;
        }
        broken.push(format!("law 3: {BOOTS_MAX} boots, and there is still something to do"));
        Ok(None)
    }

    fn carry_out(&mut self, volumes: &mut Volumes, journal: &mut BlockRegion, choice: &Choice) -> Outcome<()> {
        if let Some(record) = choice.record.filter(|_| choice.write) {
            let progress = Progress::of(&record).map(|progress| progress.to_string());
            store::record(volumes, journal, &record, progress.as_deref())
                .map_err(|code| format!("a record: {code}"))?;
        }
        if let Some(vars) = choice.store {
            self.store(&vars)?;
        }
        if choice.mode == Mode::FactoryReset {
            let Buffers { state, marks, conf, spans, plan, .. } = &mut self.buffers;
            let cleared = store::factory::clear(volumes, journal, &mut Scratch { state, marks, conf, spans, plan });
            cleared.map_err(|refusal| format!("the end of a factory reset: {refusal}"))?;
        }
        Ok(())
    }

    fn store(&self, vars: &BootVars) -> Outcome<()> {
        let (layout, loaded) = loader::load(self.board, self.region())?;
        let mut work = vec![0; 2 * layout.size];
        let mut env =
            Uboot::new(self.region(), layout, self.board.env_text, &mut work).map_err(|code| format!("{code}"))?;
        let stored = if loaded.is_some() { env.store(vars) } else { env.rebuild(vars) };
        Ok(stored.map_err(|code| format!("a store of the environment: {code}"))?)
    }
}

/// One number for each of [`CLASSES`]: equal ones mean that it shows the same.
fn classes(views: &Views<'_>) -> [String; 6] {
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
        text(format!("{:?} {:?} {:?}", names(views.boot), objects(views.boot), views.boot.odd)),
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

/// What grows with storage's partition: a loop device that reaches to the end of the disk whatever the table says. No
/// volumes: this machine lets nobody resize what is mounted.
struct Loop<'a>(Option<&'a Volumes>);

impl grow::Ground for Loop<'_> {
    fn tell(&mut self, _: u8, _: u64, _: u64) -> Result<(), Code> {
        Ok(())
    }

    fn fill(&mut self, length: u64) -> Result<(), Code> {
        self.0.map_or(Ok(()), |volumes| volumes.grow(length)).map_err(|_| Code::StorageIo)
    }
}

/// A mounted file system; unmounted with this value.
struct Mount(PathBuf);

impl Mount {
    fn new(device: &str, at: &Path, flags: MountFlags, options: &std::ffi::CStr) -> Outcome<Self> {
        let source = CString::new(device)?;
        mount(&source, at, c"ext4", flags, Some(options))?;
        Ok(Self(at.into()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A descriptor that is just being closed keeps it busy for a moment.
        for _ in 0..1000 {
            match unmount(&self.0, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(1)),
                _ => return,
            }
        }
        // What stays mounted would be looked at again in place of the next state.
        eprintln!("replay: {} cannot be unmounted", self.0.display());
        std::process::exit(70);
    }
}

/// Whether this machine lets root resize a mounted file system, as a device does. Some lend a root without that: there
/// resize2fs does it, of what is not mounted.
pub fn may_resize() -> Outcome<bool> {
    let own = rustix::thread::capabilities(None)?;
    Ok(own.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
}

/// Fails unless everything is there that a replay needs.
pub fn requirements() -> Outcome<()> {
    ensure(rustix::process::geteuid().is_root(), || "a replay mounts file systems: run it as root".into())?;
    for device in ["/dev/fuse", "/dev/loop-control"] {
        File::open(device).map_err(|error| format!("a replay needs {device}: {error}"))?;
    }
    Ok(())
}
