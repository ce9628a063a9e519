//! The Linux `Disk` on real file systems: a plain folder, and ext4 on loop devices (needs root), where what a
//! loader would see is read from the image without replaying its journal.

use platform::{disk::Volumes, keeper::Space};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    journal::{self, Kind, Phase, Record},
    port::{Dir, Disk, Name, Owner, Stage, Volume},
    store::{self, Scratch, Step},
};
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The name of the original's text.
const TEXT: &str = "uboot.txt";

/// A folder that goes away with its test.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchback-disk-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("storage")).unwrap();
        fs::create_dir_all(path.join("boot")).unwrap();
        Self(path)
    }

    fn open(&self) -> Volumes {
        let path = |name: &str| self.0.join(name).to_str().unwrap().to_string();
        Volumes::open(&path("storage"), &path("boot")).unwrap()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two ext4 images, mounted.
struct Mounted(Temp);

impl Mounted {
    fn new(name: &str) -> Self {
        Self::with_blocks(name, 4096)
    }

    fn with_blocks(name: &str, size: u64) -> Self {
        let temp = Temp::new(name);
        for volume in ["storage", "boot"] {
            let image = temp.0.join(format!("{volume}.img"));
            fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
            run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-b", &size.to_string()]).arg(&image));
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(temp.0.join(volume)));
        }
        Self(temp)
    }

    /// Whether a path is on the boot image for a reader that does not replay the journal.
    fn loader_sees(&self, path: &str) -> bool {
        !self.loader_reads("boot", path).is_empty()
    }

    /// What a reader that does not replay the journal finds there on an image; nothing if there is no such file.
    fn loader_reads(&self, volume: &str, path: &str) -> Vec<u8> {
        let request = format!("cat {path}");
        let image = self.0.0.join(format!("{volume}.img"));
        Command::new("debugfs").args(["-c", "-R", &request]).arg(image).output().unwrap().stdout
    }

    /// Storage as the original leaves it, its text this.
    fn original(&self, text: &[u8]) -> PathBuf {
        let storage = self.0.0.join("storage");
        for folder in ["objects", "boot", "config", "trails/0/.pvr", "trails/0/.pv", "trails/0/bsp"] {
            fs::create_dir_all(storage.join(folder)).unwrap();
        }
        fs::write(storage.join("boot/uboot.txt"), text).unwrap();
        fs::write(storage.join("config/pantahub.config"), "PH_CREDS_ID=1").unwrap();
        for (object, key, asset) in [(98, "kernel", "pv-kernel.img"), (99, "initrd", "pv-initrd.img")] {
            let path = storage.join(format!("objects/{}", id(object)));
            fs::write(&path, format!("content of {}", id(object))).unwrap();
            fs::hard_link(&path, storage.join(format!("trails/0/bsp/{key}"))).unwrap();
            fs::hard_link(&path, storage.join(format!("trails/0/.pv/{asset}"))).unwrap();
        }
        let state = format!(
            r##"{{"#spec":"pantavisor-service-system@1","bsp/kernel":"{}","bsp/initrd":"{}","bsp/run.json":{{"linux":"kernel","initrd":"initrd"}}}}"##,
            id(98),
            id(99),
        );
        fs::write(storage.join("trails/0/bsp/run.json"), r#"{"linux":"kernel","initrd":"initrd"}"#).unwrap();
        fs::write(storage.join("trails/0/.pvr/json"), state).unwrap();
        storage
    }

    /// What `original` made, with its text made ours.
    fn taken(&self) -> Volumes {
        let path = |name: &str| self.0.0.join(name).to_str().unwrap().to_string();
        let (storage, boot) = (path("storage"), path("storage/boot"));
        platform::env::take_over(&storage, &boot, TEXT).unwrap();
        Volumes::open_taken(&storage, &boot, TEXT).unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for volume in ["storage", "boot"] {
            let _ = Command::new("umount").arg(self.0.0.join(volume)).status();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} (needs root): {}", String::from_utf8_lossy(&output.stderr));
}

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn id(fill: u8) -> ObjectId {
    ObjectId([fill; 32])
}

fn arrive(temp: &Temp, id: ObjectId) {
    fs::write(temp.0.join(format!("storage/objects/.incoming/{id}")), format!("content of {id}")).unwrap();
}

fn state(page: u8, kernel: u8) -> String {
    format!(
        r##"{{"#spec":"pantavisor-service-system@1","bsp/kernel":"{}","bsp/initrd":"{}","bsp/run.json":{{"linux":"kernel","initrd":"initrd","switchback.factory-reset":true}},"web/deep/page":"{}","web/note.json":{{"a":[1,2]}}}}"##,
        id(kernel),
        id(99),
        id(page),
    )
}

fn stage(disk: &mut Volumes, name: &str, state: &str, protected: &[RevName]) -> Result<(), Code> {
    let step = Step { rev: rev(name), state: state.as_bytes(), message: "why", progress: "{}" };
    store::stage(disk, step, protected, &mut scratch()).map_err(|refusal| refusal.code)
}

fn scratch() -> Scratch<'static> {
    Box::leak(Box::new(Space::new())).scratch()
}

fn armed(name: &str) -> Record {
    Record {
        candidate: rev(name),
        previous: rev("0"),
        kind: Kind::Reboot,
        phase: Phase::Armed,
        falls: 0,
        factory_reset: false,
    }
}

fn names(folder: PathBuf) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_revision_comes_and_goes() {
    let temp = Temp::new("stage");
    let mut disk = temp.open();
    for object in [1, 2, 98, 99] {
        arrive(&temp, id(object));
    }
    let one = state(1, 98);
    stage(&mut disk, "locals/a", &one, &[]).unwrap();
    let at = |path: &str| temp.0.join("storage").join(path);
    assert_eq!(fs::read_to_string(at("trails/locals/a/.pvr/json")).unwrap(), one);
    assert_eq!(fs::read_to_string(at("trails/locals/a/web/note.json")).unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(fs::read_to_string(at("trails/locals/a/web/deep/page")).unwrap(), format!("content of {}", id(1)));
    assert_eq!(names(at("trails")), ["locals"]);
    assert_eq!(store::verify(&mut disk, rev("locals/a"), &mut scratch()), Ok(()));

    // again: the same is fine, another state is not while it is protected
    assert_eq!(stage(&mut disk, "locals/a", &one, &[rev("locals/a")]), Ok(()));
    assert_eq!(stage(&mut disk, "locals/a", &state(2, 98), &[rev("locals/a")]), Err(Code::RevisionInUse));
    assert_eq!(stage(&mut disk, "locals/b", &state(77, 98), &[]), Err(Code::ObjectMissing));
    assert_eq!(names(at("trails/locals")), ["a"]);
    assert_eq!(stage(&mut disk, "locals/a", &state(2, 98), &[]), Ok(()));
    assert_eq!(names(at("trails")), ["locals"]);

    // object 1 is not named any more
    arrive(&temp, id(50));
    assert_eq!(store::collect(&mut disk, &[rev("locals/a")], &mut scratch()), Ok(75));
    assert!(!at(&format!("objects/{}", id(1))).exists() && at(&format!("objects/{}", id(2))).exists());
    assert!(at(&format!("objects/.incoming/{}", id(50))).exists(), "in flight");
    store::collect(&mut disk, &[], &mut scratch()).unwrap();
    assert_eq!(names(at("trails/locals")), [""; 0]);
    assert_eq!(names(at("objects")), [".incoming"]);
    fs::create_dir_all(at("trails/.new-locals%x/web")).unwrap();
    fs::create_dir_all(at("trails/.del-7/web")).unwrap();
    store::recover(&mut disk).unwrap();
    assert_eq!(names(at("trails")), ["locals"]);
    assert_eq!(names(at("objects/.incoming")), [""; 0]);
}

/// As a client's request and the boot after it do it: what is neither an object nor a revision goes too, but for what a
/// loader may read and what belongs to the file system.
#[test]
fn a_factory_reset_leaves_the_factory_revision() {
    let temp = Temp::new("factory");
    let (mut disk, at) = (temp.open(), |path: &str| temp.0.join("storage").join(path));
    [1, 2, 98, 99].iter().for_each(|object| arrive(&temp, id(*object)));
    for (name, page) in [("7", 1), ("locals/a", 2)] {
        stage(&mut disk, name, &state(page, 98), &[]).unwrap();
    }
    fs::rename(at("trails/7"), at("trails/0")).unwrap();
    let mut journal = disk.journal().unwrap();
    let intent = Record { factory_reset: true, ..Record::none(rev("locals/a")) };
    for name in ["0", "locals/a"] {
        store::prepare(&mut disk, &mut journal, &armed(name), &mut scratch()).unwrap();
    }
    store::remember(&mut disk, Owner::Endpoint, b"a key").unwrap();
    for path in
        ["disks/perm/web/data", "disks/rev/locals/a/web", "logs/locals/a/web", "cache/meta", "boot", "lost+found"]
    {
        fs::create_dir_all(at(path)).unwrap();
    }
    std::os::unix::fs::symlink("/etc", at("disks/perm/web/data/etc")).unwrap();
    fs::write(at("boot/uboot.txt"), "pv_rev=0").unwrap();
    store::factory::intend(&mut disk, &mut journal, &intent, &mut scratch()).unwrap();
    assert_eq!(journal::load(&mut journal), Ok(Some(intent)));
    for _ in 0..2 {
        store::factory::clear(&mut disk, &mut journal, &mut scratch()).unwrap();
        assert_eq!(names(at("")), ["boot", "lost+found", "objects", "trails"]);
        assert_eq!((names(at("trails")), names(at("trails/locals"))), (vec!["0".into(), "locals".into()], vec![]));
        assert_eq!(names(temp.0.join("boot/trails")), ["0", "locals"]);
        assert_eq!(names(at("objects")).len(), 1 + 3, "kernel, initrd and page, beside what comes in");
        assert_eq!(journal::load(&mut journal), Ok(Some(Record::none(rev("0")))));
        assert_eq!(store::read_last(&mut disk), Ok(Some(rev("0"))));
        store::remember(&mut disk, Owner::Endpoint, b"another key").unwrap();
        fs::create_dir_all(at("disks/perm/web")).unwrap();
    }
    assert!(Path::new("/etc/passwd").exists() && at("boot/uboot.txt").exists());
}

/// Deeper than a process may have descriptors, marked so that nobody can remove it, or not of this alphabet: it goes. And what
/// really cannot be removed keeps nothing else.
#[test]
fn a_factory_reset_leaves_nothing_that_a_container_made() {
    const DEPTH: usize = 3000;
    use rustix::process::{Resource, getrlimit, setrlimit};
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(1024), ..getrlimit(Resource::Nofile) })
        .unwrap();
    let mounted = Mounted::new("made");
    let (mut disk, at) = (mounted.0.open(), |path: &str| mounted.0.0.join("storage").join(path));
    let make = || {
        fs::create_dir_all(at("disks/perm/web/appended/below")).unwrap();
        make_deep(&at("disks/perm/web"), DEPTH);
        for file in ["disks/perm/web/fixed", "disks/perm/web/appended/file", "endpoint", "usb"] {
            fs::write(at(file), "kept").unwrap();
        }
        for name in [&b"\xff\xfe"[..], b"disks/\xc3\x28"] {
            fs::write(at("").join(std::ffi::OsStr::from_bytes(name)), "kept").unwrap();
        }
        run(Command::new("chattr").arg("+i").arg(at("disks/perm/web/fixed")));
        run(Command::new("chattr")
            .arg("+a")
            .args([at("disks/perm/web/appended/below"), at("disks/perm/web/appended")]));
    };
    make();
    disk.remove(Name::Others).unwrap();
    assert_eq!(names(at("")), ["lost+found", "objects", "trails"]);

    // A mount in it: as good as a folder that the medium does not give up.
    make();
    fs::create_dir_all(at("disks/a/held")).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at("disks/a/held")));
    let refused = disk.remove(Name::Others);
    run(Command::new("umount").arg(at("disks/a/held")));
    assert_eq!(refused, Err(Code::StorageIo));
    assert_eq!(names(at("")), ["disks", "lost+found", "objects", "trails"]);
    assert_eq!((names(at("disks")), names(at("disks/a"))), (vec!["a".into()], vec!["held".into()]));
}

/// Folders in each other, and a file in the last one.
fn make_deep(folder: &Path, depth: usize) {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = open(folder, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
}

/// Nobody tries the factory revision before it is the only one: its kernel is what it was, or nothing begins.
#[test]
fn a_factory_reset_to_a_kernel_that_has_rotted_is_refused() {
    use sha2::Digest;
    let temp = Temp::new("rotten");
    let mut disk = temp.open();
    let [kernel, initrd] = ["a kernel", "an initrd"].map(|content| {
        let id = ObjectId(sha2::Sha256::digest(content).into());
        fs::write(temp.0.join(format!("storage/objects/.incoming/{id}")), content).unwrap();
        id
    });
    let text = format!(
        r##"{{"#spec":"pantavisor-service-system@1","bsp/kernel":"{kernel}","bsp/initrd":"{initrd}","bsp/run.json":{{"linux":"kernel","initrd":"initrd","switchback.factory-reset":true}}}}"##
    );
    stage(&mut disk, "7", &text, &[]).unwrap();
    fs::rename(temp.0.join("storage/trails/7"), temp.0.join("storage/trails/0")).unwrap();
    let mut journal = disk.journal().unwrap();
    let intent = Record { factory_reset: true, ..Record::none(rev("0")) };
    for _ in 0..2 {
        assert_eq!(platform::keeper::intend(&mut disk, &mut journal, &intent), Ok(()));
    }
    for asset in ["pv-kernel.img", "pv-initrd.img"] {
        let path = temp.0.join("boot/trails/0").join(asset);
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[1..]).unwrap();
        let refused = platform::keeper::intend(&mut disk, &mut journal, &intent).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::StorageDamaged), "{asset}");
        fs::write(&path, &content).unwrap();
    }
    assert_eq!(platform::keeper::intend(&mut disk, &mut journal, &intent), Ok(()));
}

#[test]
fn no_symbolic_link_is_followed() {
    let temp = Temp::new("symlink");
    let mut disk = temp.open();
    fs::write(temp.0.join("outside"), "secret").unwrap();
    let folder = temp.0.join("storage/trails/7");
    fs::create_dir_all(&folder).unwrap();
    for (target, key) in [("../../../outside", "file"), ("../..", "up"), ("/etc", "etc")] {
        std::os::unix::fs::symlink(target, folder.join(key)).unwrap();
    }
    let file = |key| Name::File(Volume::Storage, Stage::Live, RevName::parse("7").unwrap(), key);
    for key in ["file", "etc/passwd", "up/objects"] {
        let refused = [disk.read(file(key), &mut [0; 64]).map(|_| ()), disk.write(file(key), b"x")];
        for answer in refused {
            assert!(matches!(answer, Err(Code::StorageDamaged | Code::RevisionUnknown)), "{key}: {answer:?}");
        }
    }
    disk.remove(Name::Trail(Volume::Storage, Stage::Live, rev("7"))).unwrap();
    assert_eq!(fs::read_to_string(temp.0.join("outside")).unwrap(), "secret");
}

/// The endpoint's key is among it.
#[test]
fn what_the_endpoint_keeps_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt;
    let temp = Temp::new("endpoint");
    let mut disk = temp.open();
    let mut out = [0; 16];
    assert_eq!(store::recall(&mut disk, Owner::Endpoint, &mut out), Ok(0));
    for kept in [&b"a key"[..], b"another"] {
        store::remember(&mut disk, Owner::Endpoint, kept).unwrap();
        let length = store::recall(&mut temp.open(), Owner::Endpoint, &mut out).unwrap();
        assert_eq!(&out[..length], kept);
    }
    let file = temp.0.join("storage/endpoint");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(store::recall(&mut disk, Owner::Endpoint, &mut out[..3]), Err(Code::StorageDamaged));
    assert_eq!(store::recall(&mut disk, Owner::Usb, &mut out), Ok(0), "to each its own");
}

#[test]
fn the_loader_sees_what_was_prepared_only_after_the_checkpoint() {
    let mounted = Mounted::new("checkpoint");
    let mut disk = mounted.0.open();
    // Names made durable by an ordinary sync are in the file system's journal only.
    let file = |key| Name::File(Volume::Boot, Stage::Live, RevName::parse("5").unwrap(), key);
    disk.checkpoint(Volume::Boot).unwrap();
    disk.write(file("pv-kernel.img"), b"kernel").unwrap();
    disk.sync_file(file("pv-kernel.img")).unwrap();
    disk.sync_dir(Dir::Trails(Volume::Boot)).unwrap();
    assert!(!mounted.loader_sees("/trails/5/pv-kernel.img"), "otherwise this test shows nothing");
    disk.checkpoint(Volume::Boot).unwrap();
    assert!(mounted.loader_sees("/trails/5/pv-kernel.img"));

    // The fallback promises the same.
    disk.write(file("pv-initrd.img"), b"initrd").unwrap();
    disk.sync_file(file("pv-initrd.img")).unwrap();
    assert!(!mounted.loader_sees("/trails/5/pv-initrd.img"));
    let root = fs::File::open(mounted.0.0.join("boot")).unwrap();
    platform::sys::freeze_and_thaw(std::os::fd::AsFd::as_fd(&root)).unwrap();
    assert!(mounted.loader_sees("/trails/5/pv-initrd.img"));
}

#[test]
fn a_whole_update_on_ext4() {
    let mounted = Mounted::new("update");
    let mut disk = mounted.0.open();
    let mut region = disk.journal().unwrap();
    for object in [1, 2, 98, 99] {
        arrive(&mounted.0, id(object));
    }
    stage(&mut disk, "locals/a", &state(1, 98), &[]).unwrap();
    store::prepare(&mut disk, &mut region, &armed("locals/a"), &mut scratch()).unwrap();
    for asset in ["pv-kernel.img", "pv-initrd.img"] {
        assert!(mounted.loader_sees(&format!("/trails/locals/a/{asset}")));
    }
    assert_eq!(journal::load(&mut region), Ok(Some(armed("locals/a"))));
    let done = armed("locals/a").with(Phase::Done { cold_pending: false });
    store::record(&mut disk, &mut region, &done, Some(r#"{"status":"DONE"}"#)).unwrap();
    assert_eq!(store::read_last(&mut disk), Ok(Some(rev("locals/a"))));
    let before = disk.syncs();
    assert!(before <= 7, "4 to stage, 2 to prepare, 1 to record: {before}");

    // A second one: the overwritten `last` needs no checkpoint to be seen.
    disk.checkpoint(Volume::Boot).unwrap();
    assert!(mounted.loader_sees("/last"));
    stage(&mut disk, "locals/b", &state(2, 98), &[]).unwrap();
    store::prepare(&mut disk, &mut region, &armed("locals/b"), &mut scratch()).unwrap();
    store::record(&mut disk, &mut region, &armed("locals/b").with(done.phase), None).unwrap();
    let image = fs::read(mounted.0.0.join("boot.img")).unwrap();
    let last = store::last_text(rev("locals/b"));
    assert!(image.chunks_exact(4096).any(|block| block[..512] == last));

    store::collect(&mut disk, &[], &mut scratch()).unwrap();
    assert_eq!(names(mounted.0.0.join("boot/trails/locals")), ["b"], "the one that `last` names stays");
    assert_eq!(names(mounted.0.0.join("boot/objects")).len(), 3);
}

/// The text that a store overwrites in place: one block, ours first, and seen by the loader; whatever a cut left.
#[test]
fn the_text_of_the_originals_loader_becomes_one_block() {
    let ours = |text: &[u8]| [text, &vec![0; 4096 - text.len()]].concat();
    let mut padded = b"pv_rev=0\0pv_try=1\0board=x\0\0".to_vec();
    padded.resize(0x1_0000, 0);
    let cases = [(&b"pv_rev=0\0\0"[..], &b"pv_rev=0\0\0"[..]), (&padded, b"pv_rev=0\0pv_try=1\0board=x\0\0")];
    for (number, (text, expected)) in cases.into_iter().enumerate() {
        let mounted = Mounted::new(&format!("text-{number}"));
        let file = mounted.original(text).join("boot/uboot.txt");
        let next = file.with_file_name(".new-uboot.txt");
        fs::write(&next, "torn").unwrap();
        mounted.taken();
        assert_eq!(mounted.loader_reads("storage", "/boot/uboot.txt"), ours(expected));
        assert!(!next.exists());
        // It was exchanged, and the power went: the one of before is still there.
        fs::write(&next, text).unwrap();
        mounted.taken();
        assert_eq!((fs::read(&file).unwrap(), next.exists()), (ours(expected), false));
        // The original runs again, and pads it.
        fs::write(&file, &padded).unwrap();
        mounted.taken();
        assert_eq!(mounted.loader_reads("storage", "/boot/uboot.txt").len(), 4096);
    }
    // What cannot be taken over stays as it is.
    let mounted = Mounted::new("text-bad");
    let long = [&b"pv_rev=0\0"[..], b"x=", &[b'y'; 600], b"\0\0"].concat();
    let file = mounted.original(&long).join("boot/uboot.txt");
    let path = |name: &str| mounted.0.0.join(name).to_str().unwrap().to_string();
    let refused = |code| assert_eq!(platform::env::take_over(&path("storage"), &path("storage/boot"), TEXT), Err(code));
    refused(Code::EnvFull);
    assert_eq!(fs::read(&file).unwrap(), long);
    fs::write(&file, "pv_rex=0\0\0").unwrap();
    refused(Code::EnvInvalid);
    fs::remove_file(&file).unwrap();
    refused(Code::EnvInvalid);
    assert_eq!(names(mounted.0.0.join("storage/boot")), [""; 0]);
}

/// Whether boot is a folder of storage is the board's to say; mounted otherwise, nothing is written.
#[test]
fn what_is_mounted_is_as_the_board_says() {
    let mounted = Mounted::new("described");
    mounted.original(b"pv_rev=0\0\0");
    let path = |name: &str| mounted.0.0.join(name).to_str().unwrap().to_string();
    let open =
        |boot: &str, text| Volumes::open_described(&path("storage"), &path(boot), text).map(|disk| disk.loader_reads());
    fs::create_dir(path("storage/another")).unwrap();
    for (boot, text) in
        [("boot", Some(TEXT)), ("storage/another", Some(TEXT)), ("storage/boot", None), ("storage", None)]
    {
        assert_eq!(open(boot, text).err(), Some(rustix::io::Errno::XDEV), "{boot} {text:?}");
    }
    assert_eq!(names(path("boot").into()), ["lost+found"]);
    assert!(!Path::new(&path("storage/objects/.incoming")).exists());
    assert_eq!(open("storage/boot", Some(TEXT)), Ok(Volume::Storage));
    assert_eq!(open("boot", None), Ok(Volume::Boot));
}

/// A folder never becomes shorter: one block at the end was one block all the time. Names of all lengths come, one of two goes,
/// and longer ones have to find the gaps.
#[test]
fn folders_that_a_loader_reads_stay_one_block() {
    for (size, longest) in [(4096, 64), (1024, 20)] {
        let mounted = Mounted::with_blocks(&format!("one-block-{size}"), size);
        let storage = mounted.original(b"pv_rev=0\0\0");
        let mut disk = mounted.taken();
        let blocks =
            || ["trails", "trails/locals"].map(|folder| fs::metadata(storage.join(folder)).unwrap().len() / size);
        arrive(&mounted.0, id(1));
        let mut number = 0;
        for _ in 0..4 {
            let mut staged = vec![];
            let (code, refused) = loop {
                number += 1;
                let name = match number % 3 {
                    0 => format!("{number}"),
                    _ => format!("locals/{number:x>0$}", 4 + number * 7 % (longest - 3)),
                };
                match stage(&mut disk, &name, &state(1, 98), &[]) {
                    Ok(()) => staged.push(rev(&name)),
                    Err(code) => break (code, name),
                }
            };
            assert_eq!(code, Code::TrailsFull);
            assert!(staged.len() >= 4, "{size}: {} were staged before {refused}", staged.len());
            assert!(!storage.join("trails").join(&refused).exists());
            assert!(names(storage.join("trails")).iter().all(|name| !name.starts_with(".new-")));
            let kept: Vec<_> = staged.into_iter().step_by(2).take(7).collect();
            store::collect(&mut disk, &kept, &mut scratch()).unwrap();
            assert_eq!(blocks(), [1, 1], "{size}");
        }
        // One that is longer already cannot be made shorter: nothing is refused for it.
        for name in 0..60 {
            fs::create_dir(storage.join(format!("trails/{name:y>80}"))).unwrap();
        }
        assert!(blocks()[0] > 1);
        stage(&mut disk, "77", &state(1, 98), &[]).unwrap();
    }
}

/// A whole update where the loader reads storage: its assets are names in the revision, seen by it once it was prepared.
#[test]
fn a_whole_update_on_a_storage_of_the_original() {
    let mounted = Mounted::new("taken");
    let storage = mounted.original(b"pv_rev=0\0\0");
    let mut disk = mounted.taken();
    let mut region = disk.journal().unwrap();
    store::recover(&mut disk).unwrap();
    arrive(&mounted.0, id(1));
    stage(&mut disk, "locals/a", &state(1, 98), &[]).unwrap();
    assert_eq!(
        mounted.loader_reads("storage", "/trails/locals/a/.pv/pv-kernel.img"),
        b"",
        "else this test shows nothing"
    );
    store::prepare(&mut disk, &mut region, &armed("locals/a"), &mut scratch()).unwrap();
    let sees = |rev: &str| {
        for (asset, object) in [("pv-kernel.img", 98), ("pv-initrd.img", 99)] {
            let found = mounted.loader_reads("storage", &format!("/trails/{rev}/.pv/{asset}"));
            assert_eq!(found, format!("content of {}", id(object)).into_bytes(), "{rev} {asset}");
        }
    };
    sees("locals/a");
    assert_eq!(
        names(storage.join("trails/locals/a/.pv")),
        ["assets", "commitmsg", "progress", "pv-initrd.img", "pv-kernel.img"]
    );
    // One that the original left, and that the loader may be reading: named anew once, and then left alone.
    for number in 0..2 {
        let before = disk.syncs();
        store::prepare(&mut disk, &mut region, &armed("0"), &mut scratch()).unwrap();
        assert_eq!(disk.syncs() - before, if number == 0 { 3 } else { 2 });
        sees("0");
        assert_eq!(names(storage.join("trails/0/.pv")), ["assets", "pv-initrd.img", "pv-kernel.img"]);
    }
    let done = armed("locals/a").with(Phase::Done { cold_pending: false });
    store::record(&mut disk, &mut region, &done, Some("{}")).unwrap();
    store::collect(&mut disk, &[], &mut scratch()).unwrap();
    assert_eq!(names(storage.join("trails")), ["0", "locals"]);
    assert_eq!(names(storage.join("boot")), ["journal", "last", "uboot.txt"], "neither objects nor trails");
    assert_eq!(fs::read_to_string(storage.join("config/pantahub.config")).unwrap(), "PH_CREDS_ID=1");
    sees("0");
    sees("locals/a");
}

#[test]
fn a_full_volume_is_refused_by_its_code() {
    let mounted = Mounted::new("full");
    let mut disk = mounted.0.open();
    let filler = mounted.0.0.join("storage/filler");
    let write = Command::new("dd").arg("if=/dev/zero").arg(of(&filler)).arg("bs=1M").output().unwrap();
    assert!(!write.status.success(), "the volume is full now");
    let name = Name::File(Volume::Storage, Stage::New, rev("1"), "big");
    assert_eq!(disk.write(name, &[7; 1 << 20]), Err(Code::NoSpace));
    arrive_empty(&mounted.0, id(1));
    for object in [98, 99] {
        arrive_empty(&mounted.0, id(object));
    }
    let text = state(1, 98);
    assert_eq!(stage(&mut disk, "locals/a", &text, &[]), Err(Code::NoSpace));
    assert_eq!(names(mounted.0.0.join("storage/trails/locals")), [""; 0]);
}

fn of(path: &Path) -> String {
    format!("of={}", path.display())
}

fn arrive_empty(temp: &Temp, id: ObjectId) {
    fs::write(temp.0.join(format!("storage/objects/.incoming/{id}")), "").unwrap();
}
