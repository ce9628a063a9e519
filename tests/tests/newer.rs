//! What a newer release wrote, before this one: after an update is given up, the release of before runs on it.
//!
//! The rule of every record: a newer release raises the version and adds, it never changes what is there. This one
//! understands what it knows, or refuses; and what it does not know is still there after it has written. Each record is
//! given a higher version and something more, and is then used as the device uses it.
//! Elsewhere, where they are made: what is kept for the endpoint (`platform/src/endpoint/memory.rs`) and of USB sticks
//! (`platform/src/usb/tried.rs`), variables of the environment (`boards/src/env/uboot/tests.rs`). A real older release on a real
//! disk: `ci/evidence older`.

use platform::{config::Policy, disk::Volumes, env::BlockRegion, keeper::Space};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal::{self, Kind, Phase, Record},
    limits,
    port::{Disk, Name, Region, Stage, Subject, Volume},
    progress::Progress,
    state::{Defaults, Plan, Spans},
    store::{self, Scratch, Step, metadata},
};
use std::{fs, path::PathBuf};

/// Both volumes as folders.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchback-newer-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        ["storage", "boot"].iter().for_each(|volume| fs::create_dir_all(path.join(volume)).unwrap());
        Self(path)
    }

    fn open(&self) -> (Volumes, BlockRegion) {
        let path = |name: &str| self.0.join(name).to_str().unwrap().to_string();
        let disk = Volumes::open(&path("storage"), &path("boot")).unwrap();
        let journal = disk.journal().unwrap();
        (disk, journal)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn record(phase: Phase) -> Record {
    Record::armed(rev("locals/b"), rev("0"), Kind::Reboot).with(phase)
}

/// A slot of the journal as a release of this version writes it, with these fields behind those that are known.
fn newer_slot(sequence: u32, record: &Record, more: &[u8]) -> [u8; journal::SLOT] {
    let mut slot = journal::encode(sequence, record);
    let length = usize::from(u16::from_le_bytes([slot[10], slot[11]]));
    slot[8] = 9;
    slot[10..12].copy_from_slice(&((length + more.len()) as u16).to_le_bytes());
    slot[16 + length..][..more.len()].copy_from_slice(more);
    let sum = crc32fast::hash(&slot[4..16 + length + more.len()]);
    slot[..4].copy_from_slice(&sum.to_le_bytes());
    slot
}

#[test]
fn a_record_of_the_journal() {
    let place = Place::new("journal");
    let (_, mut region) = place.open();
    let slot = newer_slot(5, &record(Phase::Trial { tries: 2 }), b"more than we know");
    region.write_at(journal::SLOT as u64, &slot).unwrap();
    assert_eq!(journal::load(&mut region), Ok(Some(record(Phase::Trial { tries: 2 }))));
    // What it says is never gone before what follows it is there.
    journal::append(&mut region, &record(Phase::Done { cold_pending: false })).unwrap();
    let mut kept = [0; journal::SLOT];
    region.read_at(journal::SLOT as u64, &mut kept).unwrap();
    assert_eq!(kept, slot);
    assert_eq!(journal::load(&mut region), Ok(Some(record(Phase::Done { cold_pending: false }))));

    // A phase that nobody here knows: nothing is known of the update, and the newest record is not the one written over.
    let mut unknown = newer_slot(9, &record(Phase::Armed), b"");
    unknown[17] = 77;
    let end = 16 + usize::from(u16::from_le_bytes([unknown[10], unknown[11]]));
    let sum = crc32fast::hash(&unknown[4..end]);
    unknown[..4].copy_from_slice(&sum.to_le_bytes());
    region.write_at(0, &unknown).unwrap();
    assert_eq!(journal::load(&mut region), Ok(None));
    journal::append(&mut region, &record(Phase::Armed)).unwrap();
    region.read_at(0, &mut kept).unwrap();
    assert_eq!(kept, unknown);
    assert_eq!(journal::load(&mut region), Ok(Some(record(Phase::Armed))));
}

#[test]
fn a_record_of_metadata() {
    let place = Place::new("metadata");
    let (mut disk, _) = place.open();
    let mut room = metadata::Room::new();
    metadata::set(&mut disk, Subject::User, "old", Some(b"1"), &mut room).unwrap();
    let file = place.0.join("storage/user-meta");
    let mut newer = fs::read(&file).unwrap();
    newer[8] = 9;
    let sum = crc32fast::hash(&newer[4..]);
    newer[..4].copy_from_slice(&sum.to_le_bytes());
    newer.extend_from_slice(b"with a sum of its own");
    fs::write(&file, &newer).unwrap();
    metadata::set(&mut disk, Subject::User, "new", Some(b"2"), &mut room).unwrap();
    let mut found = vec![];
    metadata::each(&mut disk, Subject::User, &mut room, &mut |key, value| {
        found.push((key.to_string(), value.to_vec()))
    })
    .unwrap();
    assert_eq!(found, [("old".to_string(), b"1".to_vec()), ("new".into(), b"2".to_vec())]);
    let kept = fs::read(&file).unwrap();
    assert!(kept[8] == 9 && kept.ends_with(b"with a sum of its own"), "what is not known is still there");

    // Whatever is no such record is refused, and stays as it is.
    fs::write(&file, b"SWBM, but of another world").unwrap();
    assert_eq!(metadata::set(&mut disk, Subject::User, "new", Some(b"3"), &mut room), Err(Code::StorageDamaged));
    assert_eq!(fs::read(&file).unwrap(), b"SWBM, but of another world");
}

#[test]
fn the_name_of_the_last_revision() {
    let mut sector = store::last_text(rev("locals/b"));
    let more = b"pv_more=of a newer release\n";
    let line = sector.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    sector[line..line + more.len()].copy_from_slice(more);
    assert_eq!(store::parse_last(&sector), Some(rev("locals/b")));
    assert_eq!(store::parse_last(b"pv_form=2\npv_rev=0\n"), None, "the name comes first, or nothing is known");
}

/// Its state, its definitions of containers and groups, its progress, and files beside those that we make.
#[test]
fn a_revision() {
    let place = Place::new("revision");
    let (mut disk, mut journal) = place.open();
    let [kernel, initrd] = [1, 2].map(|fill| ObjectId([fill; 32]));
    for id in [kernel, initrd] {
        fs::write(place.0.join(format!("storage/objects/.incoming/{id}")), "content").unwrap();
    }
    let run = "{".to_string()
        + r##""#spec":"service-manifest-run@1","config":"lxc.container.conf","name":"web","root-volume":"root","storage":{},"type":"lxc","volumes":[],"newer":{"a":[1,{"b":null}]}}"##;
    let state = format!(
        r##"{{"#spec":"pantavisor-service-system@1","bsp/initrd":"{initrd}","bsp/kernel":"{kernel}","bsp/run.json":{{"initrd":"initrd","linux":"kernel","newer":true}},"device.json":{{"newer":{{}}}},"newer.json":{{"of":"a release"}},"web/lxc.container.conf":"{kernel}","web/root":"{initrd}","web/run.json":{run}}}"##
    );
    let mut plan = Box::new(Plan::empty(rev("0")));
    let defaults = Defaults { goals_timeout_s: limits::GOALS_TIMEOUT_S };
    let parsed = Plan::parse(state.as_bytes(), rev("7"), &defaults, &mut plan, &mut Spans::new()).map(drop);
    assert_eq!(parsed, Ok(()));
    assert_eq!(plan.containers.len(), 1);

    let without: String = {
        let (bsp, _) = state.split_once(r#","web/"#).unwrap();
        format!("{bsp}}}")
    };
    let step = Step { rev: rev("7"), state: without.as_bytes(), message: "", progress: &Progress::STAGED.to_string() };
    store::stage(&mut disk, step, &[], &mut scratch()).unwrap();
    let at = |path: &str| place.0.join(path);
    assert_eq!(fs::read_to_string(at("storage/trails/7/.pvr/json")).unwrap(), without, "kept as it came");
    for (path, text) in [
        ("storage/trails/7/.pv/progress", r#"{"version":9,"status":"NEW","newer":[1]}"#),
        ("storage/trails/7/.pv/newer", "a file of a newer release"),
        ("storage/newer/record", "a folder of a newer release"),
        ("boot/newer", "on the boot partition too"),
    ] {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    }
    store::recover(&mut disk).unwrap();
    store::prepare(&mut disk, &mut journal, &Record { candidate: rev("7"), ..record(Phase::Armed) }, &mut scratch())
        .unwrap();
    store::collect(&mut disk, &[rev("7")], &mut scratch()).unwrap();
    assert_eq!(store::verify(&mut disk, rev("7"), &mut scratch()), Ok(()));
    for path in ["storage/trails/7/.pv/progress", "storage/trails/7/.pv/newer", "storage/newer/record", "boot/newer"] {
        assert!(fs::read_to_string(at(path)).unwrap().contains("newer") || path == "boot/newer", "{path}");
    }
    assert_eq!(fs::read_to_string(at("boot/newer")).unwrap(), "on the boot partition too");
    // Our own progress replaces what stands there, whatever that says.
    store::progress(&mut disk, rev("7"), &Progress::DONE.to_string()).unwrap();
    let name = Name::File(Volume::Storage, Stage::Live, rev("7"), ".pv/progress");
    assert_eq!(disk.size(name), Ok(Progress::DONE.to_string().len() as u64));
}

#[test]
fn a_policy() {
    let known = "switchback.board=qemu-arm64\nswitchback.grow=no\nPV_UPDATER_COMMIT_DELAY=7\n";
    let newer = format!("switchback.newer=1\n{known}[section]\nswitchback.grow-to=2\nnonsense\n");
    assert_eq!(Policy::parse(&newer), Policy::parse(known));
}

fn scratch() -> Scratch<'static> {
    Box::leak(Box::new(Space::new())).scratch()
}
