//! The durable procedures on a disk in memory: what each of them makes, removes, refuses and returns, name by name and byte
//! by byte. What a power cut or a failing medium leaves of them is the simulator's (`tests`).

mod block;
mod disk;
mod metadata;
mod taken;

use super::*;
use crate::port::Owner;
use disk::{Cells, Memory};

const KERNEL: u8 = 1;
const INITRD: u8 = 2;
const CONF: u8 = 3;
const ROOT: u8 = 4;

/// Every object but a configuration has this size.
const SIZE: usize = 1024;

fn object(kind: u8, version: u8) -> ObjectId {
    let mut id = [0x5a; 32];
    (id[0], id[1]) = (kind, version);
    ObjectId(id)
}

fn content(id: ObjectId) -> Vec<u8> {
    if id.0[0] == CONF { b"lxc.uts.name = web\n".to_vec() } else { vec![id.0[0] ^ id.0[1]; SIZE] }
}

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

/// A revision with a kernel, an initramfs and a container. All have the same configuration.
struct Revision {
    rev: RevName,
    state: String,
    objects: [ObjectId; 4],
}

impl Revision {
    /// `base`: version of kernel and initramfs; `image`: version of the container's root image.
    fn new(name: &str, base: u8, image: u8) -> Self {
        let objects = [object(KERNEL, base), object(INITRD, base), object(CONF, 0), object(ROOT, image)];
        let [kernel, initrd, conf, root] = objects;
        let state = [
            r##"{"#spec":"pantavisor-service-system@1""##.to_string(),
            format!(r#""bsp/initrd":"{initrd}","bsp/kernel":"{kernel}""#),
            r#""bsp/run.json":{"initrd":"initrd","linux":"kernel","switchback.factory-reset":true}"#.into(),
            r#""groups.json":[{"name":"app","restart_policy":"container","status_goal":"READY","timeout":30}]"#.into(),
            format!(r#""web/lxc.container.conf":"{conf}","web/root.squashfs":"{root}""#),
            r#""web/run.json":{"config":"lxc.container.conf","group":"app","name":"web","#.to_string()
                + r#""root-volume":"root.squashfs","type":"lxc"}}"#,
        ];
        Self { rev: rev(name), state: state.join(","), objects }
    }

    fn first() -> Self {
        Self::new("0", 0, 0)
    }

    /// The files that are objects, and its state.
    fn files(&self) -> [(&'static str, Vec<u8>); 5] {
        let [kernel, initrd, conf, root] = self.objects.map(content);
        [
            ("bsp/kernel", kernel),
            ("bsp/initrd", initrd),
            ("web/lxc.container.conf", conf),
            ("web/root.squashfs", root),
            (".pvr/json", self.state.clone().into()),
        ]
    }

    fn assets(&self) -> [(&'static str, ObjectId); 2] {
        [("pv-kernel.img", self.objects[0]), ("pv-initrd.img", self.objects[1])]
    }
}

/// A device as it left the factory, and the buffers of its procedures.
struct Device {
    disk: Memory,
    journal: Cells,
    state: Vec<u8>,
    marks: Vec<u64>,
    conf: Vec<u8>,
    spans: Box<Spans>,
    plan: Box<Plan>,
}

/// The procedures' arguments: disk, journal, buffers.
macro_rules! parts {
    ($device:expr) => {{
        let Device { disk, journal, state, marks, conf, spans, plan } = &mut *$device;
        (disk, journal, &mut Scratch { state, marks, conf, spans, plan })
    }};
}

impl Device {
    fn new() -> Self {
        Self::with(Memory::new())
    }

    fn with(disk: Memory) -> Self {
        let mut device = Self {
            disk,
            journal: Cells([0; journal::SIZE]),
            state: vec![0; limits::STATE_MAX],
            marks: vec![0; limits::KEPT_MAX * limits::STATE_ENTRIES_MAX],
            conf: vec![0; limits::LXC_CONF_MAX],
            spans: Box::default(),
            plan: Box::new(Plan::empty(RevName::factory())),
        };
        let first = Revision::first();
        for id in first.objects {
            device.disk.write(Name::Object(Volume::Storage, id), &content(id)).unwrap();
        }
        let inline = ["bsp/run.json", "groups.json", "web/run.json"].map(|key| (key, b"{}".to_vec()));
        for (key, content) in first.files().into_iter().chain(inline) {
            device.disk.write(file(first.rev, key), &content).unwrap();
        }
        device.prepare(&first).unwrap();
        device.disk.overwrite(Name::Last, &last_text(first.rev)).unwrap();
        device.disk.effects.clear();
        device
    }

    fn arrive(&mut self, id: ObjectId, content: &[u8]) {
        self.disk.write(Name::Incoming(Volume::Storage, id), content).unwrap();
    }

    /// The objects that are not there yet come in.
    fn arrive_all(&mut self, revision: &Revision) {
        for id in revision.objects {
            if !self.has(Name::Object(Volume::Storage, id)) {
                self.arrive(id, &content(id));
            }
        }
        self.disk.effects.clear();
    }

    fn stage_as(&mut self, rev: RevName, state: &str, message: &str, protected: &[RevName]) -> Result<(), Refusal> {
        let (disk, _, scratch) = parts!(self);
        stage(disk, Step { rev, state: state.as_bytes(), message, progress: "{}" }, protected, scratch)
    }

    /// Its objects come in, and it is staged.
    fn stage(&mut self, revision: &Revision) -> Result<(), Code> {
        self.arrive_all(revision);
        self.stage_as(revision.rev, &revision.state, "", &[]).map_err(|refusal| refusal.code)
    }

    fn prepare(&mut self, revision: &Revision) -> Result<(), Code> {
        let (disk, journal, scratch) = parts!(self);
        prepare(disk, journal, &armed(revision.rev), scratch).map_err(|refusal| refusal.code)
    }

    fn verify(&mut self, rev: RevName) -> Result<(), Refusal> {
        let (disk, _, scratch) = parts!(self);
        verify(disk, rev, scratch)
    }

    fn collect(&mut self, keep: &[RevName]) -> Result<u64, Code> {
        let (disk, _, scratch) = parts!(self);
        collect(disk, keep, scratch)
    }

    fn has(&mut self, name: Name<'_>) -> bool {
        self.disk.exists(name).unwrap()
    }

    fn bytes(&mut self, name: Name<'_>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 1 << 16];
        let length = self.disk.read(name, &mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    fn text(&mut self, name: Name<'_>) -> Option<String> {
        self.bytes(name).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn trails(&mut self, volume: Volume, stage: Stage) -> Vec<String> {
        let mut names = vec![];
        self.disk.each_trail(volume, stage, &mut |rev| names.push(rev.as_str().to_string())).unwrap();
        names
    }

    fn objects(&mut self, dir: Dir) -> Vec<ObjectId> {
        let mut ids = vec![];
        self.disk.each_object(dir, &mut |id| ids.push(id)).unwrap();
        ids
    }

    /// Whether the loader has the assets of this revision under its name.
    fn sees(&mut self, revision: &Revision) -> bool {
        let mut is_right =
            |(name, id)| self.bytes(Name::File(Volume::Boot, Stage::Live, revision.rev, name)) == Some(content(id));
        revision.assets().into_iter().all(&mut is_right)
    }

    /// What `f` changes on the disk, one line each.
    fn changes<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> (T, Vec<String>) {
        self.disk.effects.clear();
        let result = f(self);
        (result, self.disk.changes())
    }
}

fn armed(rev: RevName) -> Record {
    Record { previous: RevName::factory(), phase: Phase::Armed, ..Record::none(rev) }
}

fn file(rev: RevName, key: &str) -> Name<'_> {
    Name::File(Volume::Storage, Stage::Live, rev, key)
}

fn new_one() -> Revision {
    Revision::new("locals/a", 1, 1)
}

#[test]
fn a_start_removes_what_was_being_made_or_removed_and_nothing_else() {
    let mut device = Device::new();
    let id = new_one().objects[0];
    for volume in [Volume::Storage, Volume::Boot] {
        for stage in [Stage::New, Stage::Dead] {
            for name in ["locals/half", "7"] {
                device.disk.write(Name::File(volume, stage, rev(name), "x"), b"x").unwrap();
            }
        }
        device.disk.write(Name::Incoming(volume, id), b"half").unwrap();
    }
    recover(&mut device.disk).unwrap();
    for volume in [Volume::Storage, Volume::Boot] {
        assert_eq!(device.trails(volume, Stage::New), [""; 0]);
        assert_eq!(device.trails(volume, Stage::Dead), [""; 0]);
        assert_eq!(device.trails(volume, Stage::Live), ["0"]);
        assert_eq!(device.objects(Dir::Incoming(volume)), []);
    }
}

#[test]
fn a_staged_revision_is_its_state_its_files_and_its_words() {
    let mut device = Device::new();
    let (one, other) = (new_one(), Revision::new("locals/b", 1, 1));
    device.arrive_all(&one);
    device.stage_as(one.rev, &one.state, "why it is", &[]).unwrap();
    for (key, content) in one.files() {
        assert_eq!(device.bytes(file(one.rev, key)), Some(content), "{key}");
    }
    let run = r#"{"initrd":"initrd","linux":"kernel","switchback.factory-reset":true}"#;
    assert_eq!(device.text(file(one.rev, "bsp/run.json")).as_deref(), Some(run));
    assert_eq!(device.text(file(one.rev, ".pv/progress")).as_deref(), Some("{}"));
    assert_eq!(device.text(file(one.rev, ".pv/commitmsg")).as_deref(), Some("why it is"));
    for id in one.objects {
        assert!(device.has(Name::Object(Volume::Storage, id)));
    }
    assert_eq!(device.trails(Volume::Storage, Stage::New), [""; 0]);
    // All its objects are there already; it has no message.
    device.stage_as(other.rev, &other.state, "", &[]).unwrap();
    assert_eq!(device.verify(other.rev), Ok(()));
    assert!(!device.has(file(other.rev, ".pv/commitmsg")));
}

#[test]
fn the_same_state_again_changes_nothing_and_another_takes_its_place() {
    let mut device = Device::new();
    let (one, other) = (new_one(), Revision::new("locals/a", 2, 2));
    device.stage(&one).unwrap();
    progress(&mut device.disk, one.rev, "half done").unwrap();
    let (again, effects) = device.changes(|device| device.stage_as(one.rev, &one.state, "", &[one.rev]));
    assert_eq!((again, effects), (Ok(()), vec![]), "also while it runs");
    assert_eq!(device.text(file(one.rev, ".pv/progress")).as_deref(), Some("half done"));

    // One of its files is gone: it is made anew.
    device.disk.remove(file(one.rev, "web/root.squashfs")).unwrap();
    assert_eq!(device.verify(one.rev).map_err(|refusal| refusal.code), Err(Code::StorageDamaged));
    device.stage(&one).unwrap();
    assert_eq!(device.verify(one.rev), Ok(()));

    // Another state under its name.
    device.arrive_all(&other);
    let refused = device.stage_as(other.rev, &other.state, "", &[rev("locals/x"), other.rev]);
    assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::RevisionInUse));
    assert_eq!(device.text(file(one.rev, ".pvr/json")), Some(one.state.clone()));
    assert_eq!(device.stage_as(other.rev, &other.state, "", &[rev("locals/x")]), Ok(()));
    assert_eq!(device.text(file(one.rev, ".pvr/json")), Some(other.state.clone()));
    assert_eq!(device.trails(Volume::Storage, Stage::New), [""; 0], "the one before is gone");
    // A name that is protected and not taken is free.
    let third = Revision::new("locals/c", 1, 1);
    device.arrive_all(&third);
    assert_eq!(device.stage_as(third.rev, &third.state, "", &[third.rev]), Ok(()));
    // Nobody replaces revision 0.
    let refused = device.stage_as(rev("0"), &one.state, "", &[]);
    assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::RevisionInUse));
}

#[test]
fn what_a_revision_names_is_looked_at_before_anything_is_made() {
    let mut device = Device::new();
    let one = new_one();
    let [kernel, initrd, conf, root] = [0, 1, 2, 3].map(|index| one.objects[index]);
    let other_conf = ObjectId([9; 32]);
    let state = one.state.replace(&conf.to_string(), &other_conf.to_string());
    [kernel, initrd].into_iter().for_each(|id| device.arrive(id, &content(id)));
    let refused = |device: &mut Device| {
        let (staged, effects) = device.changes(|device| device.stage_as(one.rev, &state, "", &[]));
        assert_eq!(effects, [""; 0]);
        let refusal = staged.unwrap_err();
        (refusal.code, refusal.key.as_str().to_string())
    };
    assert_eq!(refused(&mut device), (Code::ObjectMissing, "web/lxc.container.conf".into()));
    device.arrive(other_conf, &vec![b'#'; limits::LXC_CONF_MAX + 1]);
    assert_eq!(refused(&mut device), (Code::ObjectMissing, "web/root.squashfs".into()));
    device.arrive(root, &content(root));
    assert_eq!(refused(&mut device).0, Code::LxcTooLarge);
    device.arrive(other_conf, b"lxc.uts.name = web\nno key\n");
    assert_eq!(refused(&mut device).0, Code::LxcInvalid);
    device.arrive(other_conf, b"lxc.uts.name = web\n");
    assert_eq!(device.stage_as(one.rev, &state, "", &[]), Ok(()));
}

/// Two blocks for each file and for eight more (folders, our own), the state twice, and the floor.
#[test]
fn a_revision_needs_room_for_its_files_above_the_floor() {
    let one = new_one();
    let needed = (7 + 8) * 2 * 4096 + 2 * one.state.len() as u64 + limits::FREE_FLOOR;
    for (free, expected) in [(needed, Ok(())), (needed - 1, Err(Code::NoSpace))] {
        let mut device = Device::new();
        device.arrive_all(&one);
        device.disk.free[0] = free;
        let staged = device.stage_as(one.rev, &one.state, "", &[]);
        assert_eq!(staged.map_err(|refusal| refusal.code), expected, "{free} bytes free");
        assert_eq!(device.trails(Volume::Storage, Stage::New), [""; 0]);
    }
}

/// Each call in turn fails, and does nothing. What came in stays, but after a failed sync of the contents: then all of it
/// goes. The next attempt is whole.
#[test]
fn a_revision_that_cannot_be_made_leaves_nothing_behind() {
    let one = new_one();
    let (mut refusals, mut emptied) = (0, 0);
    for at in 0.. {
        let mut device = Device::new();
        device.arrive_all(&one);
        device.disk.fuse = Some(at);
        let staged = device.stage_as(one.rev, &one.state, "", &[]);
        if device.disk.fuse.take().is_some() {
            assert_eq!(staged, Ok(()));
            break;
        }
        if staged.is_ok() {
            continue;
        }
        refusals += 1;
        let here = device.objects(Dir::Objects(Volume::Storage)).len() - Revision::first().objects.len();
        let coming = device.objects(Dir::Incoming(Volume::Storage)).len();
        if (here, coming) == (0, 0) {
            emptied += 1;
            assert!(device.trails(Volume::Storage, Stage::New).is_empty(), "call {at}");
        } else {
            assert_eq!(here + coming, 3, "call {at}: {here} have their names"); // revision 0 has the configuration too
        }
        assert_eq!(device.stage(&one), Ok(()), "call {at}: it is done the next time");
        assert_eq!(device.verify(one.rev), Ok(()));
    }
    assert_eq!(emptied, 1, "the sync of the contents");
    assert!(refusals > 20, "{refusals}");
}

#[test]
fn a_prepared_revision_is_what_the_loader_reads() {
    let mut device = Device::new();
    let one = new_one();
    device.stage(&one).unwrap();
    assert_eq!(device.prepare(&one), Ok(()));
    assert!(device.sees(&one));
    assert_eq!(journal::load(&mut device.journal), Ok(Some(armed(one.rev))));
    let list = Name::File(Volume::Boot, Stage::Live, one.rev, "assets");
    let [kernel, initrd, ..] = one.objects;
    assert_eq!(device.text(list), Some(format!("pv-kernel.img {kernel}\npv-initrd.img {initrd}\n")));

    // Again: only the record is written.
    let (again, effects) = device.changes(|device| device.prepare(&one));
    assert_eq!((again, effects), (Ok(()), vec![]));

    // A file of it is gone: it is made anew, of the objects that are there.
    device.disk.remove(Name::File(Volume::Boot, Stage::Live, one.rev, "pv-initrd.img")).unwrap();
    assert_eq!(device.prepare(&one), Ok(()));
    assert!(device.sees(&one));

    // Another state took its name.
    let other = Revision::new("locals/a", 2, 2);
    device.stage(&other).unwrap();
    assert_eq!(device.prepare(&other), Ok(()));
    assert!(device.sees(&other));

    // Its assets are another one's: nothing is copied.
    let third = Revision::new("locals/b", 2, 3);
    device.stage(&third).unwrap();
    let (prepared, effects) = device.changes(|device| device.prepare(&third));
    assert_eq!(prepared, Ok(()));
    assert!(device.sees(&third));
    assert!(!effects.iter().any(|effect| effect.starts_with("copy")), "{effects:?}");
    for volume in [Volume::Storage, Volume::Boot] {
        assert_eq!(device.trails(volume, Stage::New), [""; 0]);
        assert_eq!(device.trails(volume, Stage::Live), ["0", "locals/a", "locals/b"]);
        assert_eq!(device.objects(Dir::Incoming(volume)), []);
    }
}

#[test]
fn two_assets_that_are_one_object_are_copied_once() {
    let mut device = Device::new();
    let one = new_one();
    let [kernel, initrd, ..] = one.objects;
    let state = one.state.replace(&initrd.to_string(), &kernel.to_string());
    let mut objects = one.objects;
    objects[1] = kernel;
    let same = Revision { state, objects, ..one };
    device.stage(&same).unwrap();
    let (prepared, effects) = device.changes(|device| device.prepare(&same));
    assert_eq!(prepared, Ok(()));
    assert_eq!(effects.iter().filter(|effect| effect.starts_with("copy")).count(), 1, "{effects:?}");
    assert!(device.sees(&same));
}

/// Eight blocks, each asset that is not there and a block more, and the floor.
#[test]
fn boot_assets_need_room_for_what_is_not_there_yet() {
    let asset = SIZE as u64 + 4096;
    let needed = limits::BOOT_FLOOR + 8 * 4096;
    for (base, free, expected) in [
        (1, needed + 2 * asset, Ok(())),
        (1, needed + 2 * asset - 1, Err(Code::NoSpace)),
        (0, needed, Ok(())),
        (0, needed - 1, Err(Code::NoSpace)),
    ] {
        let mut device = Device::new();
        let one = Revision::new("locals/a", base, 1);
        device.stage(&one).unwrap();
        device.disk.free[1] = free;
        assert_eq!(device.prepare(&one), expected, "base {base}, {free} bytes free");
    }
}

#[test]
fn assets_that_cannot_be_made_leave_nothing_behind() {
    let one = new_one();
    let (mut abandoned, mut named) = (0, 0);
    for at in 0.. {
        let mut device = Device::new();
        device.stage(&one).unwrap();
        device.disk.effects.clear();
        device.disk.fuse = Some(at);
        let prepared = device.prepare(&one);
        if device.disk.fuse.take().is_some() {
            assert_eq!(prepared, Ok(()));
            break;
        }
        let synced = device.disk.effects.iter().any(|effect| effect == "sync volume Boot");
        if !synced {
            assert!(prepared.is_err(), "call {at}");
            assert_eq!(device.objects(Dir::Incoming(Volume::Boot)), [], "call {at}");
            assert_eq!(device.trails(Volume::Boot, Stage::New), [""; 0], "call {at}");
        }
        (abandoned, named) = (abandoned + u32::from(!synced), named + u32::from(synced));
        assert_eq!(device.prepare(&one), Ok(()), "call {at}: it is done the next time");
        assert!(device.sees(&one), "call {at}");
    }
    assert!(abandoned > 10 && named > 5, "{abandoned} {named}");
}

#[test]
fn last_and_the_progress_are_written_with_the_end_of_an_update() {
    let mut device = Device::new();
    let one = new_one();
    device.stage(&one).unwrap();
    let last = |device: &mut Device| read_last(&mut device.disk);
    let failed = |code| Phase::Failed { code, container: None };
    for (phase, expected) in [
        (Phase::Armed, RevName::factory()),
        (failed(Code::GoalsMissed), RevName::factory()),
        (Phase::Done { cold_pending: true }, one.rev),
        (failed(Code::ColdBootFailed), RevName::factory()),
    ] {
        let written = Record { previous: RevName::factory(), phase, ..Record::none(one.rev) };
        let text = format!("{phase:?}");
        let told = record(&mut device.disk, &mut device.journal, &written, Some(&text));
        assert_eq!(told, Ok(()));
        assert_eq!(journal::load(&mut device.journal), Ok(Some(written)));
        assert_eq!(last(&mut device), Ok(Some(expected)), "{phase:?}");
        assert_eq!(device.text(file(one.rev, ".pv/progress")), Some(text));
    }
    device.disk.remove(Name::Last).unwrap();
    assert_eq!(last(&mut device), Ok(None));
    record(&mut device.disk, &mut device.journal, &armed(one.rev), None).unwrap();
    assert_ne!(device.text(file(one.rev, ".pv/progress")).as_deref(), Some("Armed"));
    assert_eq!(progress(&mut device.disk, rev("locals/x"), "x"), Err(Code::RevisionUnknown));
    assert!(!device.has(Name::Trail(Volume::Storage, Stage::Live, rev("locals/x"))));
}

#[test]
fn last_is_one_line_and_a_comment_of_one_sector() {
    for name in ["0", "17", "locals/a"] {
        let sector = last_text(rev(name));
        let text = core::str::from_utf8(&sector).unwrap();
        let comment = "#".repeat(512 - "pv_rev=\n\n".len() - name.len());
        assert_eq!(text, format!("pv_rev={name}\n{comment}\n"));
        assert_eq!(parse_last(&sector), Some(rev(name)));
    }
    for bad in [&b""[..], b"pv_rev=", b"pv_rev=..\n", b"pv_rev 7\n", b"\npv_rev=7\n", b"pv_rev=\xff\n"] {
        assert_eq!(parse_last(bad), None, "{bad:?}");
    }
    let mut device = Device::new();
    device.disk.overwrite(Name::Last, &[b'x'; 512]).unwrap();
    assert_eq!(read_last(&mut device.disk), Ok(None));
}

#[test]
fn what_nobody_keeps_is_collected_and_counted() {
    let mut device = Device::new();
    // Kernel and initramfs of `b` and `c` are their own; `a` has those of revision 0. Each has its own root image.
    let [a, b, c] = [("locals/a", 0, 1), ("locals/b", 1, 2), ("locals/c", 2, 3)]
        .map(|(name, base, image)| Revision::new(name, base, image));
    for revision in [&a, &b, &c] {
        device.stage(revision).unwrap();
        device.prepare(revision).unwrap();
    }
    device.disk.overwrite(Name::Last, &last_text(c.rev)).unwrap();
    let coming = ObjectId([8; 32]);
    device.arrive(coming, b"still coming in");
    let live = |device: &mut Device| [Volume::Storage, Volume::Boot].map(|volume| device.trails(volume, Stage::Live));
    let has =
        |device: &mut Device, id| [Volume::Storage, Volume::Boot].map(|volume| device.has(Name::Object(volume, id)));

    assert_eq!(device.collect(&[a.rev, b.rev]), Ok(0));
    assert_eq!(live(&mut device)[0], ["0", "locals/a", "locals/b", "locals/c"]);
    // `b` goes: its root image, its kernel and initramfs twice.
    assert_eq!(device.collect(&[a.rev]), Ok(5 * SIZE as u64));
    for names in live(&mut device) {
        assert_eq!(names, ["0", "locals/a", "locals/c"], "`last` names the third");
    }
    assert_eq!(has(&mut device, b.objects[0]), [false; 2]);
    assert_eq!(has(&mut device, c.objects[0]), [true; 2]);
    assert_eq!(has(&mut device, a.objects[0]), [true; 2]);
    device.disk.overwrite(Name::Last, &last_text(rev("0"))).unwrap();
    assert_eq!(device.collect(&[]), Ok(6 * SIZE as u64));
    for names in live(&mut device) {
        assert_eq!(names, ["0"]);
    }
    assert_eq!(device.objects(Dir::Objects(Volume::Storage)).len(), Revision::first().objects.len());
    assert_eq!(device.objects(Dir::Incoming(Volume::Storage)), [coming]);
    for volume in [Volume::Storage, Volume::Boot] {
        assert_eq!(device.trails(volume, Stage::Dead), [""; 0]);
    }
    assert_eq!(device.verify(rev("0")), Ok(()));
}

/// A name is not given up for good before that is durable: one sync of a folder for each volume of which one was.
#[test]
fn nothing_is_synced_where_nothing_goes() {
    let mut device = Device::new();
    assert_eq!(device.collect(&[]), Ok(0));
    assert_eq!(device.disk.effects, [""; 0]);
    device.stage(&new_one()).unwrap();
    device.disk.effects.clear();
    assert!(device.collect(&[]).is_ok());
    let syncs: Vec<_> = device.disk.effects.iter().filter(|effect| effect.starts_with("sync")).collect();
    assert_eq!(syncs, ["sync folder Trails(Storage)"]);
}

#[test]
fn while_a_kept_state_cannot_be_read_nothing_goes() {
    for damaged in [Some(&b"{"[..]), None] {
        let mut device = Device::new();
        let [a, b] = [("locals/a", 1), ("locals/b", 2)].map(|(name, image)| Revision::new(name, 1, image));
        device.stage(&a).unwrap();
        device.stage(&b).unwrap();
        let state = file(a.rev, ".pvr/json");
        match damaged {
            Some(bytes) => device.disk.write(state, bytes).unwrap(),
            None => device.disk.remove(state).unwrap(),
        }
        let (collected, effects) = device.changes(|device| device.collect(&[a.rev]));
        assert_eq!((collected, effects), (Err(Code::StorageDamaged), vec![]));
        assert!(device.collect(&[]).is_ok(), "once nobody keeps it, it goes");
        assert_eq!(device.trails(Volume::Storage, Stage::Live), ["0"]);
    }
}

#[test]
fn a_revision_that_cannot_run_says_what_of_it_is_damaged() {
    let mut device = Device::new();
    let one = new_one();
    device.stage(&one).unwrap();
    assert_eq!(device.verify(one.rev), Ok(()));
    device.disk.remove(file(one.rev, "web/run.json")).unwrap();
    let refusal = device.verify(one.rev).unwrap_err();
    assert_eq!((refusal.code, refusal.key.as_str()), (Code::StorageDamaged, "web/run.json"));
    device.disk.write(file(one.rev, ".pvr/json"), b"[]").unwrap();
    assert_eq!(device.verify(one.rev).unwrap_err().code, Code::StorageDamaged);
    assert_eq!(device.verify(rev("locals/x")).unwrap_err().code, Code::RevisionUnknown);
}

#[test]
fn a_factory_reset_leaves_revision_0_alone() {
    let mut device = Device::new();
    let one = new_one();
    device.stage(&one).unwrap();
    device.prepare(&one).unwrap();
    device.disk.overwrite(Name::Last, &last_text(one.rev)).unwrap();
    remember(&mut device.disk, Owner::Endpoint, b"secret").unwrap();
    let wish = Record { factory_reset: true, ..armed(one.rev) };
    let (disk, region, scratch) = parts!(&mut device);
    factory::intend(disk, region, &wish, scratch).unwrap();
    assert_eq!(journal::load(region), Ok(Some(wish)));
    let files = factory::boot_files(disk, scratch).unwrap();
    let name = |name| Name::File(Volume::Boot, Stage::Live, rev("0"), name);
    assert_eq!(files[..], Revision::first().assets().map(|(key, id)| (name(key), id)));
    assert_eq!(device.trails(Volume::Storage, Stage::Live), ["0", "locals/a"], "only intended");

    let (disk, region, scratch) = parts!(&mut device);
    factory::clear(disk, region, scratch).unwrap();
    assert_eq!(recall(disk, Owner::Endpoint, &mut [0; 16]), Ok(0));
    assert_eq!(read_last(disk), Ok(Some(rev("0"))));
    assert_eq!(journal::load(region), Ok(Some(Record::none(rev("0")))));
    // One of a release that does not know the reset would end nothing.
    let old = Revision::first().state.replace(r#","switchback.factory-reset":true"#, "");
    disk.write(file(rev("0"), ".pvr/json"), old.as_bytes()).unwrap();
    assert_eq!(factory::intend(disk, region, &wish, scratch).unwrap_err().code, Code::ResetUnknown);
    // A factory revision that is not whole is nothing to go back to.
    disk.remove(file(rev("0"), "bsp/kernel")).unwrap();
    assert_eq!(factory::intend(disk, region, &wish, scratch).unwrap_err().code, Code::StorageDamaged);
    for volume in [Volume::Storage, Volume::Boot] {
        assert_eq!(device.trails(volume, Stage::Live), ["0"]);
    }
}

#[test]
fn a_message_is_replaced_and_a_long_one_or_one_of_nothing_refused() {
    let (mut device, one) = (Device::new(), new_one());
    device.stage(&one).unwrap();
    let longest = "x".repeat(limits::COMMIT_MESSAGE_MAX);
    for text in ["first", "next", "", &longest] {
        assert_eq!(message(&mut device.disk, one.rev, text), Ok(()));
        assert_eq!(device.text(file(one.rev, ".pv/commitmsg")).as_deref(), Some(text));
        assert!(!device.has(file(one.rev, MESSAGE_NEXT)));
    }
    let refused = |device: &mut Device, rev, text: &str| message(&mut device.disk, rev, text).unwrap_err().code;
    assert_eq!(refused(&mut device, one.rev, &format!("{longest}x")), Code::MessageTooLong);
    assert_eq!(refused(&mut device, rev("locals/x"), "x"), Code::RevisionUnknown);
    assert_eq!(device.trails(Volume::Storage, Stage::Live), ["0", "locals/a"]);
    // What came in may be what could not be made durable.
    device.arrive(object(ROOT, 9), b"half");
    device.disk.fuse = Some(4);
    assert_eq!(refused(&mut device, one.rev, "lost"), Code::StorageIo);
    assert_eq!(device.objects(Dir::Incoming(Volume::Storage)), []);
}

#[test]
fn what_is_kept_is_read_back_for_its_owner_alone() {
    let mut device = Device::new();
    let (disk, mut out) = (&mut device.disk, [0; 8]);
    assert_eq!(recall(disk, Owner::Endpoint, &mut out), Ok(0));
    remember(disk, Owner::Endpoint, b"first").unwrap();
    remember(disk, Owner::Endpoint, b"next").unwrap();
    assert_eq!(recall(disk, Owner::Endpoint, &mut out), Ok(4));
    assert_eq!(&out[..4], b"next");
    assert_eq!(recall(disk, Owner::Usb, &mut out), Ok(0));
    assert_eq!(recall(disk, Owner::Endpoint, &mut [0; 3]), Err(Code::StorageDamaged));
    assert!(!device.has(Name::Memory(Owner::Endpoint, Stage::New)));
}
