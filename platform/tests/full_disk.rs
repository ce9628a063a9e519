//! No space, for real: an ext4 file system that is full, or out of inodes, from the middle of each procedure on. Needs root.
//!
//! Before each row of the protocol that a procedure announces, everything that is free is taken away, from both volumes. The procedure
//! then ends well, or with the code that says what it wants; either way no law is broken, nothing that was told is lost, and
//! a collection finds room on the full file system. With room again the same procedure ends well.
//! Does not: cut the power (the simulator and the replay do); the environment, whose files were given their sectors when the
//! image was made.

use platform::{disk::Volumes, env::BlockRegion, keeper::Space};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal::{self, Kind, Phase, Record},
    limits,
    port::{Dir, Disk, Name, Names, Owner, Stage, Subject, Volume},
    protocol::{Operation, Row, TABLE},
    store::{self, Scratch, Step, metadata},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
};

/// Size of the file system: room for the floor, what is there and twice what comes.
const SIZE: u64 = 24 << 20;
/// What `locals/old` has and no other revision: what a collection gives back.
const OLD_BYTES: usize = 2 << 20;
/// Bytes of every other object.
const BYTES: usize = 40_000;
/// What is kept for the endpoint, and of metadata, at first.
const KEPT: [&[u8]; 2] = [b"a key", b"a place"];

/// Another commit message.
const MESSAGE: &str = "what somebody says of it";

/// What is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Used {
    Blocks,
    Inodes,
}

// ---- the file system ----------------------------------------------------------------------------------------------

/// A folder with an image, mounted while it is. It holds both volumes: when it is full, both are.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchback-full-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("disk")).unwrap();
        Self(path)
    }

    /// A path of a volume: `storage/...` or `boot/...`.
    fn at(&self, path: &str) -> PathBuf {
        self.0.join("disk").join(path)
    }

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    fn format(&self) {
        File::create(self.image()).unwrap().set_len(SIZE).unwrap();
        let sizes = ["-q", "-t", "ext4", "-b", "4096", "-m", "0", "-J", "size=4", "-N", "256"];
        run(Command::new("mke2fs").args(sizes).arg(self.image()));
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.at("")));
    }

    fn unmount(&self) {
        run(Command::new("umount").arg(self.at("")));
    }

    /// As this one is when it is not mounted.
    fn copy(&self, name: &str) -> Self {
        let copy = Self::new(name);
        run(Command::new("cp").arg(self.image()).arg(copy.image()));
        copy.mount();
        copy
    }

    fn open(&self) -> Volumes {
        let path = |name: &str| self.at(name).to_str().unwrap().to_string();
        Volumes::open(&path("storage"), &path("boot")).unwrap()
    }

    /// Takes all that is free.
    fn fill(&self, what: Used) {
        let folder = self.at("filler");
        let _ = fs::create_dir(&folder);
        if what == Used::Blocks {
            let file = File::create(folder.join("all")).unwrap();
            let (mut end, mut piece) = (0, SIZE);
            while piece >= 4096 {
                match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, piece) {
                    Ok(()) => end += piece,
                    Err(_) => piece /= 2,
                }
            }
        }
        let content = if what == Used::Blocks { "x" } else { "" };
        let full = (0..).find_map(|number: u32| fs::write(folder.join(number.to_string()), content).err());
        assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_dir_all(self.at("filler")).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-q").arg(self.at("")).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} (needs root): {}", String::from_utf8_lossy(&output.stderr));
}

// ---- the disk that fills up ---------------------------------------------------------------------------------------

/// The device's own disk, on which all space is gone from a row on.
struct Filling<'p> {
    disk: Volumes,
    place: &'p Place,
    when: Option<(Row, Used)>,
    rows: Vec<Row>,
}

impl<'p> Filling<'p> {
    fn of(place: &'p Place, when: Option<(Row, Used)>) -> Self {
        Self { disk: place.open(), place, when, rows: vec![] }
    }
}

impl Disk for Filling<'_> {
    fn step(&mut self, row: Row) {
        self.rows.push(row);
        if let Some((_, what)) = self.when.take_if(|(at, _)| *at == row) {
            self.place.fill(what);
        }
    }
    fn exists(&mut self, name: Name<'_>) -> Result<bool, Code> {
        self.disk.exists(name)
    }
    fn read(&mut self, name: Name<'_>, out: &mut [u8]) -> Result<usize, Code> {
        self.disk.read(name, out)
    }
    fn write(&mut self, name: Name<'_>, data: &[u8]) -> Result<(), Code> {
        self.disk.write(name, data)
    }
    fn overwrite(&mut self, name: Name<'_>, sector: &[u8; 512]) -> Result<(), Code> {
        self.disk.overwrite(name, sector)
    }
    fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        self.disk.copy(from, to)
    }
    fn link(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        self.disk.link(from, to)
    }
    fn rename(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Code> {
        self.disk.rename(from, to)
    }
    fn exchange(&mut self, one: Name<'_>, other: Name<'_>) -> Result<(), Code> {
        self.disk.exchange(one, other)
    }
    fn remove(&mut self, name: Name<'_>) -> Result<(), Code> {
        self.disk.remove(name)
    }
    fn sync_file(&mut self, name: Name<'_>) -> Result<(), Code> {
        self.disk.sync_file(name)
    }
    fn sync_dir(&mut self, dir: Dir) -> Result<(), Code> {
        self.disk.sync_dir(dir)
    }
    fn sync_volume(&mut self, volume: Volume) -> Result<(), Code> {
        self.disk.sync_volume(volume)
    }
    fn checkpoint(&mut self, volume: Volume) -> Result<(), Code> {
        self.disk.checkpoint(volume)
    }
    fn each_object(&mut self, dir: Dir, each: &mut dyn FnMut(ObjectId)) -> Result<(), Code> {
        self.disk.each_object(dir, each)
    }
    fn each_trail(&mut self, volume: Volume, stage: Stage, each: &mut dyn FnMut(RevName)) -> Result<(), Code> {
        self.disk.each_trail(volume, stage, each)
    }
    fn trail_names(&mut self) -> Result<[Option<Names>; 2], Code> {
        self.disk.trail_names()
    }
    fn free(&mut self, volume: Volume) -> Result<u64, Code> {
        self.disk.free(volume)
    }
    fn size(&mut self, name: Name<'_>) -> Result<u64, Code> {
        self.disk.size(name)
    }
    fn loader_reads(&self) -> Volume {
        self.disk.loader_reads()
    }
}

// ---- revisions ----------------------------------------------------------------------------------------------------

/// What an object holds, by its name's seed.
fn content(seed: &str) -> Vec<u8> {
    let bytes = if seed == "old page" { OLD_BYTES } else { BYTES };
    seed.bytes().cycle().take(bytes).collect()
}

/// Every object there ever is: its seed, its name, and what it holds.
fn objects() -> &'static [(String, ObjectId, Vec<u8>)] {
    static OBJECTS: OnceLock<Vec<(String, ObjectId, Vec<u8>)>> = OnceLock::new();
    OBJECTS.get_or_init(|| {
        let seeds = ["0", "old", "b", "c"].iter().flat_map(|of| ["page", "kernel", "initrd"].map(|what| (of, what)));
        let made = seeds.map(|(of, what)| format!("{of} {what}")).map(|seed| {
            let bytes = content(&seed);
            (seed, ObjectId(Sha256::digest(&bytes).into()), bytes)
        });
        made.collect()
    })
}

fn object(seed: &str) -> ObjectId {
    objects().iter().find(|(name, ..)| name == seed).unwrap().1
}

/// Which object this is.
fn is(bytes: &[u8]) -> Option<ObjectId> {
    objects().iter().find(|(.., content)| content == bytes).map(|(_, id, _)| *id)
}

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

/// The state of a revision that has objects of its own, all of them named after it.
fn state(name: &str) -> String {
    let [page, kernel, initrd] = ["page", "kernel", "initrd"].map(|what| object(&format!("{name} {what}")));
    format!(
        r##"{{"#spec":"pantavisor-service-system@1","bsp/initrd":"{initrd}","bsp/kernel":"{kernel}","bsp/run.json":{{"initrd":"initrd","linux":"kernel","switchback.factory-reset":true}},"web/deep/page":"{page}","web/note.json":{{"a":[1,2]}}}}"##
    )
}

fn arrive(place: &Place, name: &str) {
    for what in ["page", "kernel", "initrd"] {
        let seed = format!("{name} {what}");
        fs::write(place.at(&format!("storage/objects/.incoming/{}", object(&seed))), content(&seed)).unwrap();
    }
}

fn scratch() -> Scratch<'static> {
    Box::leak(Box::new(Space::new())).scratch()
}

fn stage(disk: &mut impl Disk, name: &str, of: &str) -> Result<(), Code> {
    let state = state(of);
    let step = Step { rev: rev(name), state: state.as_bytes(), message: "why", progress: "{}" };
    store::stage(disk, step, &[], &mut scratch()).map_err(|refusal| refusal.code)
}

fn armed(name: &str) -> Record {
    Record::armed(rev(name), rev("0"), Kind::Reboot)
}

fn done(name: &str) -> Record {
    armed(name).with(Phase::Done { cold_pending: false })
}

// ---- what is done -------------------------------------------------------------------------------------------------

/// What is done while space runs out.
struct Deed {
    name: &'static str,
    /// What it needs, with room; may be done again.
    prepare: fn(&Place),
    run: fn(&mut Filling<'_>, &mut BlockRegion) -> Result<(), Code>,
    /// What shows that it was done.
    is_done: fn(&Place, &mut Volumes, &mut BlockRegion) -> bool,
}

/// Of a device that has ended its factory reset, and of one that is about to begin it.
fn none() -> Record {
    Record::none(RevName::factory())
}

fn intent() -> Record {
    Record { factory_reset: true, ..none() }
}

const DEEDS: &[Deed] = &[
    Deed {
        name: "install",
        prepare: |place| arrive(place, "c"),
        run: |disk, _| stage(disk, "locals/c", "c"),
        is_done: |_, disk, _| store::verify(disk, rev("locals/c"), &mut scratch()).is_ok(),
    },
    Deed {
        name: "replace",
        prepare: |place| arrive(place, "c"),
        run: |disk, _| stage(disk, "locals/b", "c"),
        is_done: |place, _, _| text(place, "locals/b") == state("c"),
    },
    Deed {
        name: "prepare",
        prepare: |_| (),
        run: |disk, journal| prepare(disk, journal, &armed("locals/b")),
        is_done: |place, _, journal| {
            let kernel = fs::read(place.at("boot/trails/locals/b/pv-kernel.img"));
            kernel.is_ok_and(|kernel| kernel == content("b kernel")) && newest(journal) == armed("locals/b")
        },
    },
    Deed {
        name: "prepare again",
        prepare: |place| {
            prepare(&mut place.open(), &mut place.open().journal().unwrap(), &armed("locals/b")).unwrap();
            fs::remove_file(place.at("boot/trails/locals/b/assets")).unwrap();
        },
        run: |disk, journal| prepare(disk, journal, &armed("locals/b").with(Phase::Trial { tries: 1 })),
        is_done: |place, _, journal| {
            let is_listed = place.at("boot/trails/locals/b/assets").exists();
            is_listed && newest(journal) == armed("locals/b").with(Phase::Trial { tries: 1 })
        },
    },
    Deed {
        name: "trial",
        prepare: |_| (),
        run: |disk, journal| store::record(disk, journal, &armed("locals/b").with(Phase::Trial { tries: 1 }), None),
        is_done: |_, _, journal| newest(journal) == armed("locals/b").with(Phase::Trial { tries: 1 }),
    },
    Deed {
        name: "done",
        prepare: |place| prepare(&mut place.open(), &mut place.open().journal().unwrap(), &armed("locals/b")).unwrap(),
        run: |disk, journal| store::record(disk, journal, &done("locals/b"), Some(r#"{"status":"DONE"}"#)),
        is_done: |_, disk, journal| {
            newest(journal) == done("locals/b") && store::read_last(disk) == Ok(Some(rev("locals/b")))
        },
    },
    Deed {
        name: "collect",
        prepare: |_| (),
        run: |disk, _| store::collect(disk, &[rev("locals/b")], &mut scratch()).map(drop),
        is_done: |place, _, _| !place.at(&format!("storage/objects/{}", object("old page"))).exists(),
    },
    Deed {
        name: "remember",
        prepare: |_| (),
        run: |disk, _| store::remember(disk, Owner::Endpoint, &[7; 1500]),
        is_done: |place, _, _| fs::read(place.at("storage/endpoint")).unwrap() == [7; 1500],
    },
    Deed {
        name: "metadata",
        prepare: |_| (),
        run: |disk, _| set(disk, &[8; 4000]),
        is_done: |_, disk, _| place_of(disk) == [8; 4000],
    },
    Deed {
        name: "message",
        prepare: |_| (),
        run: |disk, _| store::message(disk, rev("locals/b"), MESSAGE).map_err(|refusal| refusal.code),
        is_done: |place, _, _| {
            fs::read_to_string(place.at("storage/trails/locals/b/.pv/commitmsg")).unwrap() == MESSAGE
        },
    },
    Deed {
        name: "reset, intent",
        prepare: |_| (),
        run: |disk, journal| {
            store::factory::intend(disk, journal, &intent(), &mut scratch()).map_err(|refusal| refusal.code)
        },
        is_done: |_, _, journal| newest(journal) == intent(),
    },
    Deed {
        name: "reset, end",
        prepare: |place| {
            let (mut disk, mut journal) = (place.open(), place.open().journal().unwrap());
            store::factory::intend(&mut disk, &mut journal, &intent(), &mut scratch()).unwrap();
        },
        run: |disk, journal| store::factory::clear(disk, journal, &mut scratch()).map_err(|refusal| refusal.code),
        is_done: |place, _, journal| newest(journal) == none() && !place.at("storage/endpoint").exists(),
    },
    Deed {
        name: "recover",
        prepare: |place| {
            arrive(place, "c");
            fs::create_dir_all(place.at("storage/trails/.new-locals%c/web")).unwrap();
            fs::create_dir_all(place.at("boot/trails/.del-locals%d")).unwrap();
        },
        run: |disk, _| store::recover(disk),
        is_done: |place, _, _| {
            let is_gone = |path: &str| !place.at(path).exists();
            is_gone("storage/trails/.new-locals%c") && is_gone("boot/trails/.del-locals%d")
        },
    },
];

fn prepare(disk: &mut impl Disk, journal: &mut BlockRegion, record: &Record) -> Result<(), Code> {
    store::prepare(disk, journal, record, &mut scratch()).map_err(|refusal| refusal.code)
}

fn set(disk: &mut impl Disk, value: &[u8]) -> Result<(), Code> {
    metadata::set(disk, Subject::Device, "place", Some(value), &mut metadata::Room::new())
}

/// What the device says of itself.
fn place_of(disk: &mut impl Disk) -> Vec<u8> {
    let mut found = vec![];
    let keep = &mut |key: &str, value: &[u8]| {
        assert_eq!(key, "place");
        found = value.into();
    };
    metadata::each(disk, Subject::Device, &mut metadata::Room::new(), keep).unwrap();
    found
}

fn newest(journal: &mut BlockRegion) -> Record {
    journal::load(journal).unwrap().expect("a record")
}

fn text(place: &Place, name: &str) -> String {
    fs::read_to_string(place.at(&format!("storage/trails/{name}/.pvr/json"))).unwrap()
}

fn trails(disk: &mut Volumes, volume: Volume) -> Vec<RevName> {
    let mut found = vec![];
    disk.each_trail(volume, Stage::Live, &mut |rev| found.push(rev)).unwrap();
    found
}

// ---- the laws -----------------------------------------------------------------------------------------------------

/// What must be so whatever was done, and wherever it ended.
fn laws(place: &Place, deed: &Deed, at: &str) {
    let mut disk = place.open();
    let committed = store::read_last(&mut disk).unwrap().expect("`last`");
    assert!([rev("0"), rev("locals/b")].contains(&committed), "{at}: {committed} is committed");
    let staged = trails(&mut disk, Volume::Storage);
    assert!(staged.contains(&rev("0")) && staged.contains(&committed), "{at}: there are only {staged:?}");
    for rev in &staged {
        assert_eq!(store::verify(&mut disk, *rev, &mut scratch()), Ok(()), "{at}: {rev}");
    }
    // What has its name is whole, for Linux and for the loader.
    for volume in ["storage", "boot"] {
        for entry in fs::read_dir(place.at(volume).join("objects")).unwrap() {
            let (path, name) = {
                let entry = entry.unwrap();
                (entry.path(), entry.file_name())
            };
            let Some(id) = ObjectId::parse(name.to_str().unwrap()) else { continue };
            assert_eq!(is(&fs::read(path).unwrap()), Some(id), "{at}: an object of {volume}");
        }
    }
    let visible = trails(&mut disk, Volume::Boot);
    assert!(visible.contains(&rev("0")) && visible.contains(&committed), "{at}: the loader has only {visible:?}");
    for rev in visible.iter().filter(|rev| staged.contains(rev)) {
        let said = text(place, rev.as_str());
        for asset in ["pv-kernel.img", "pv-initrd.img"] {
            let path = format!("trails/{rev}/{asset}");
            let read = fs::read(place.at("boot").join(&path)).unwrap();
            assert!(is(&read).is_some_and(|id| said.contains(&id.to_string())), "{at}: {path}");
            if *rev == committed && asset == "pv-kernel.img" {
                assert!(loader_reads(place, &path) == read, "{at}: {path} is another one for the loader");
            }
        }
    }
    // What was told.
    journal::load(&mut disk.journal().unwrap()).unwrap().expect("a record");
    let mut kept = vec![0; limits::ENDPOINT_MEMORY_MAX];
    let length = store::recall(&mut disk, Owner::Endpoint, &mut kept).unwrap();
    let is_reset = deed.name == "reset, end";
    assert!(kept[..length] == *KEPT[0] || kept[..length] == [7; 1500] || is_reset, "{at}: the endpoint's key");
    let place = place_of(&mut disk);
    assert!(place == KEPT[1] || place == [8; 4000] || is_reset, "{at}: metadata");
}

/// A file of the boot partition for a reader that does not replay its journal.
fn loader_reads(place: &Place, path: &str) -> Vec<u8> {
    let cat = format!("cat /boot/{path}");
    Command::new("debugfs").args(["-c", "-R", &cat]).arg(place.image()).output().unwrap().stdout
}

/// A device with the factory revision, which runs, `locals/old`, whose time is over, and `locals/b`, which is staged.
fn settled() -> Place {
    let place = Place::new("settled");
    place.format();
    place.mount();
    ["storage", "boot"].iter().for_each(|volume| fs::create_dir(place.at(volume)).unwrap());
    {
        let mut disk = place.open();
        let mut journal = disk.journal().unwrap();
        for (name, of) in [("7", "0"), ("locals/old", "old"), ("locals/b", "b")] {
            arrive(&place, of);
            stage(&mut disk, name, of).unwrap();
        }
        fs::rename(place.at("storage/trails/7"), place.at("storage/trails/0")).unwrap();
        for name in ["locals/old", "0"] {
            prepare(&mut disk, &mut journal, &armed(name)).unwrap();
        }
        store::record(&mut disk, &mut journal, &none(), None).unwrap();
        store::remember(&mut disk, Owner::Endpoint, KEPT[0]).unwrap();
        set(&mut disk, KEPT[1]).unwrap();
        disk.checkpoint(Volume::Boot).unwrap();
    }
    place.unmount();
    place
}

/// One deed, on which space ends at this row; how it ended.
fn one(settled: &Place, deed: &Deed, row: Row, what: Used) -> Result<(), Code> {
    let at = format!("{}, no {what:?} from {} on", deed.name, row.id());
    let place = settled.copy("case");
    (deed.prepare)(&place);
    let mut journal = place.open().journal().unwrap();
    let mut filling = Filling::of(&place, Some((row, what)));
    let told = (deed.run)(&mut filling, &mut journal);
    assert!(filling.when.is_none(), "{at}: it did not come there");
    assert!(matches!(told, Ok(()) | Err(Code::NoSpace)), "{at}: {told:?}");
    drop(filling);
    laws(&place, deed, &at);
    let mut disk = place.open();
    assert!(told.is_err() || (deed.is_done)(&place, &mut disk, &mut journal), "{at}: told, and not done");

    // The next start, and a collection, with no more room than that.
    assert_eq!(platform::keeper::recover(&mut disk, &mut journal), Ok(()), "{at}: the next start");
    let (had, free) =
        (trails(&mut disk, Volume::Storage).contains(&rev("locals/old")), disk.free(Volume::Storage).unwrap());
    assert!(store::collect(&mut disk, &[rev("locals/b")], &mut scratch()).is_ok(), "{at}: no collection");
    let found = disk.free(Volume::Storage).unwrap() - free;
    assert!(!had || found >= OLD_BYTES as u64, "{at}: a collection gives back {found} bytes");
    laws(&place, deed, &format!("{at}, collected"));

    // And with room.
    place.make_room();
    (deed.prepare)(&place);
    assert_eq!((deed.run)(&mut Filling::of(&place, None), &mut journal), Ok(()), "{at}: with room again");
    assert!((deed.is_done)(&place, &mut disk, &mut journal), "{at}: not done with room again");
    laws(&place, deed, &format!("{at}, again"));
    told
}

#[test]
fn no_step_without_space_breaks_a_law() {
    let settled = settled();
    let (mut reached, mut cases, mut refused) = (BTreeSet::new(), 0, vec![]);
    for deed in DEEDS {
        let place = settled.copy("rows");
        (deed.prepare)(&place);
        let mut journal = place.open().journal().unwrap();
        let mut all_space = Filling::of(&place, None);
        assert_eq!((deed.run)(&mut all_space, &mut journal), Ok(()), "{}", deed.name);
        let rows: BTreeSet<Row> = all_space.rows.drain(..).collect();
        drop((all_space, journal));
        drop(place);
        for row in &rows {
            for what in [Used::Blocks, Used::Inodes] {
                let told = one(&settled, deed, *row, what);
                cases += 1;
                if told.is_err() {
                    refused.push(format!("{} {}", deed.name, row.id()));
                }
            }
        }
        reached.extend(rows);
    }
    // Every step that the keeper takes on a file system, but for the text of a loader that is taken over, which is one block from
    // the start. `Arrive` is refused before its first byte: see `errands`.
    const KEEPERS: [Operation; 9] = [
        Operation::Install,
        Operation::Prepare,
        Operation::Record,
        Operation::Progress,
        Operation::Collect,
        Operation::Remember,
        Operation::Message,
        Operation::FactoryReset,
        Operation::Boot,
    ];
    let elsewhere = |row: &Row| {
        use Row::*;
        matches!(row, Arrive | Intend | BeginReset | BootFactory | LoaderCounts | Explain | Settle | Run)
    };
    let wanted = TABLE.iter().filter(|step| KEEPERS.contains(&step.operation)).map(|step| step.row);
    let wanted: BTreeSet<Row> = wanted.filter(|row| !elsewhere(row)).collect();
    assert_eq!(reached, wanted);
    println!("{cases} cases; refused: {}", refused.join(", "));
    // All others need no room. Each for want of blocks, and for want of inodes.
    let steps =
        ["install I2", "replace I2", "prepare P1", "prepare again P1", "remember M1", "metadata M1", "message N1"];
    assert_eq!(refused, steps.into_iter().flat_map(|step| [step; 2]).collect::<Vec<_>>());
}
