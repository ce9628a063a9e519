//! `keeper`, `verify`, `fetch` and `log` as processes, asked what PID 1 asks them, on ext4. Needs root.

mod device;

use device::Errand;
use platform::disk::Volumes;
use platform::wire::{Buffer, KeepList, Message};
use runtime::{
    fault::{Code, Refusal},
    id::{ObjectId, PartName, RevName},
    journal::{self, Kind, Phase, Record},
    limits,
    port::Subject,
    store::metadata::{self, Room},
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

/// What PID 1 gives `keeper` and `verify`.
const OWN: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;

/// Moves into a device with both file systems.
fn enter() {
    device::enter(|outside| {
        for (name, blocks) in [("storage", "32M"), ("boot", "16M")] {
            let image = outside.join(format!("{name}.img"));
            let run = |program: &str, args: &[&str]| {
                let done = Command::new(program).args(args).arg(&image).output().unwrap();
                assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
            };
            run("truncate", &["-s", blocks]);
            run("mkfs.ext4", &["-q", "-F"]);
            let done = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(outside.join(name)).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    });
}

/// A resident errand that said that it is ready.
fn resident(word: &std::ffi::CStr, namespaces: i32) -> Errand {
    let errand = Errand::new(word, namespaces);
    assert!(matches!(errand.channel.receive(&mut Buffer::new()).unwrap().unwrap().message, Message::Ready));
    errand
}

/// Asks, and waits for the end of the request.
fn ask(errand: &Errand, message: &Message<'_>, fds: &[BorrowedFd<'_>]) -> (Result<u64, Refusal>, Option<OwnedFd>) {
    errand.ask(9, message, fds);
    let mut buffer = Buffer::new();
    loop {
        let mut got = errand.channel.receive(&mut buffer).unwrap().expect("the errand lives");
        assert_eq!(got.serial, 9);
        match got.message {
            Message::Done { ok, refusal, value } => return (if ok { Ok(value) } else { Err(refusal) }, got.fds.pop()),
            Message::Digest { object, length } => return (Ok(length), Some(digest_as_file(object))),
            Message::Alive { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A digest travels through `ask` as what it is compared with.
fn digest_as_file(object: ObjectId) -> OwnedFd {
    let file = rustix::fs::memfd_create(c"digest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&file, &object.0, 0).unwrap();
    file
}

fn text(file: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).unwrap();
    text
}

fn name_of(content: &[u8]) -> ObjectId {
    ObjectId(Sha256::digest(content).into())
}

/// A line of `/proc/<pid>/status`.
fn status(errand: &Errand, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", errand.pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// What this machine lets a root have at all.
fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Sends a body through a `fetch` into a file.
fn receive(file: &OwnedFd, length: u64, body: &[u8]) -> Result<u64, Refusal> {
    let fetch = Errand::new(c"fetch", 0);
    let (mut client, connection) = UnixStream::pair().unwrap();
    connection.set_nonblocking(true).unwrap();
    let (already, rest) = body.split_at(body.len().min(3));
    client.write_all(rest).unwrap();
    drop(client);
    let done = ask(&fetch, &Message::Receive { length, already }, &[connection.as_fd(), file.as_fd()]).0;
    fetch.end();
    done
}

/// Brings an object in, as PID 1 does.
fn upload(keeper: &Errand, verify: &Errand, part: u32, body: &[u8]) {
    let object = name_of(body);
    let length = body.len() as u64;
    let (created, file) = ask(keeper, &Message::CreatePart { object, part, length }, &[]);
    assert_eq!(created, Ok(0));
    let file = file.unwrap();
    assert_eq!(receive(&file, length, body), Ok(length));
    let (hashed, digest) = ask(verify, &Message::Hash, &[file.as_fd()]);
    assert_eq!(hashed, Ok(length));
    let mut found = [0u8; 32];
    rustix::io::pread(digest.unwrap(), &mut found, 0).unwrap();
    assert_eq!(ObjectId(found), object);
    assert_eq!(ask(keeper, &Message::Adopt { object, part }, &[]).0, Ok(0));
    assert_eq!(ask(keeper, &Message::Adopt { object, part }, &[]).0, Ok(0), "asked twice");
}

fn stage(keeper: &Errand, rev: RevName, part: u32, state: &str) -> Result<u64, Refusal> {
    let length = state.len() as u64;
    let (created, file) = ask(keeper, &Message::CreateStep { part, length }, &[]);
    assert_eq!(created, Ok(0));
    let file = file.unwrap();
    assert_eq!(receive(&file, length, state.as_bytes()), Ok(length));
    let staged = ask(keeper, &Message::Stage { rev, message: "why" }, &[file.as_fd()]).0;
    assert_eq!(ask(keeper, &Message::Drop { object: None, part }, &[]).0, Ok(0));
    staged
}

const CONF: &str = "lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper\n";

fn state(web: &[u8]) -> String {
    let (kernel, conf, web) = (name_of(b"kernel"), name_of(CONF.as_bytes()), name_of(web));
    format!(
        r##"{{"#spec":"pantavisor-service-system@1","bsp/run.json":{{"linux":"k","initrd":"k"}},"bsp/k":"{kernel}",
        "web/lxc.container.conf":"{conf}","web/root.squashfs":"{web}",
        "web/run.json":{{"name":"web","type":"lxc","config":"lxc.container.conf","root-volume":"root.squashfs"}}}}"##
    )
}

#[test]
fn a_revision_comes_in_is_made_visible_committed_and_collected() {
    enter();
    let (keeper, verify) = (resident(c"keeper", OWN), resident(c"verify", OWN));
    assert_eq!(ask(&keeper, &Message::Recover, &[]).0, Ok(0));
    let [a, b] = ["locals/a", "locals/b"].map(|name| RevName::parse(name).unwrap());

    // Refused while an object is missing: nothing is there.
    let (refused, key) = match stage(&keeper, a, 1, &state(b"one")) {
        Err(refusal) => (refusal.code, refusal.key.as_str().to_owned()),
        Ok(_) => panic!("staged without its objects"),
    };
    assert_eq!((refused, key.as_str()), (Code::ObjectMissing, "bsp/k"));
    assert!(!Path::new("/storage/trails/locals/a").exists());
    assert_eq!(fs::read_dir("/storage/objects/.incoming").unwrap().count(), 0);

    for (part, body) in [(2, &b"kernel"[..]), (3, CONF.as_bytes()), (4, b"one"), (5, b"two")] {
        upload(&keeper, &verify, part, body);
    }
    // What was received can be had before a revision names it, so a client that is interrupted sends it once.
    let (length, file) = ask(&keeper, &Message::OpenObject { object: name_of(b"two") }, &[]);
    assert_eq!((length, text(file.unwrap()).as_str()), (Ok(3), "two"));
    assert_eq!(stage(&keeper, a, 6, &state(b"one")), Ok(0));
    assert_eq!(stage(&keeper, b, 7, &state(b"two")), Ok(0));
    assert_eq!(fs::read_dir("/storage/objects/.incoming").unwrap().count(), 0);

    let record = |candidate, phase| {
        journal::encode(
            0,
            &Record {
                candidate,
                previous: RevName::factory(),
                kind: Kind::Reboot,
                phase,
                falls: 0,
                factory_reset: false,
            },
        )
    };
    assert_eq!(ask(&keeper, &Message::Prepare { bytes: &record(a, Phase::Armed) }, &[]).0, Ok(0));
    assert_eq!(fs::read("/boot/trails/locals/a/pv-kernel.img").unwrap(), b"kernel");
    let done = record(a, Phase::Done { cold_pending: false });
    assert_eq!(ask(&keeper, &Message::Record { bytes: &done }, &[]).0, Ok(0));
    assert_eq!(fs::read_link("/storage/trails/current").unwrap(), Path::new("locals/a"));
    assert!(fs::read_to_string("/boot/last").unwrap().starts_with("pv_rev=locals/a\n"));

    // Neither of the two may be staged over with something else now.
    assert_eq!(stage(&keeper, a, 8, &state(b"two")).map_err(|refusal| refusal.code), Err(Code::RevisionInUse));

    let steps = text(ask(&keeper, &Message::ListSteps, &[]).1.unwrap());
    assert!(steps.starts_with(r#"[{"name":"locals/a","date":"20"#), "{steps}");
    assert!(steps.contains(r#""commitmsg":"why","progress":{"status":"DONE""#), "{steps}");
    assert!(steps.contains(r#"{"name":"locals/b""#) && steps.contains(r#"{"status":"NEW""#), "{steps}");
    let objects = text(ask(&keeper, &Message::ListObjects, &[]).1.unwrap());
    assert!(objects.contains(&format!(r#"{{"sha256":"{}","size":"6"}}"#, name_of(b"kernel"))), "{objects}");
    assert_eq!(ask(&keeper, &Message::CommitMessage { rev: b, text: "better" }, &[]).0, Ok(0));
    assert_eq!(text(ask(&keeper, &Message::OpenFile { rev: b, key: ".pv/commitmsg" }, &[]).1.unwrap()), "better");
    assert_eq!(text(ask(&keeper, &Message::OpenState { rev: b }, &[]).1.unwrap()), state(b"two"));
    let unsafe_key = ask(&keeper, &Message::OpenFile { rev: b, key: "../../objects" }, &[]).0;
    assert_eq!(unsafe_key.map_err(|refusal| refusal.code), Err(Code::KeyUnsafe));

    // What belongs to a revision goes with it, and what no other names.
    fs::create_dir_all("/storage/logs/locals/b/web").unwrap();
    fs::create_dir_all("/storage/disks/rev/locals/b/web/data").unwrap();
    fs::create_dir_all("/storage/disks/rev/locals/a/web/data").unwrap();
    let mut keep = KeepList::new();
    keep.push(a).unwrap();
    assert_eq!(ask(&keeper, &Message::Collect { keep }, &[]).0, Ok(3), "the bytes of `two`");
    assert!(!Path::new("/storage/trails/locals/b").exists() && !Path::new("/storage/logs/locals/b").exists());
    assert!(
        !Path::new("/storage/disks/rev/locals/b").exists() && Path::new("/storage/disks/rev/locals/a/web").exists()
    );
    let gone = ask(&keeper, &Message::OpenObject { object: name_of(b"two") }, &[]).0;
    assert_eq!(gone.map_err(|refusal| refusal.code), Err(Code::ObjectUnknown));
    keeper.end();
    verify.end();
}

/// On a loop device with a partition table as `pvr image` makes it, on a larger disk: storage grows, mounted.
#[test]
fn storage_grows_to_the_end_of_its_disk() {
    let mut disk = None;
    device::enter(|outside| {
        let image = outside.join("disk.img");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let done = Command::new(program).args(args).output().unwrap();
            assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        let file = fs::File::create_new(&image).unwrap();
        file.set_len(300 << 20).unwrap();
        // boot from 1 MiB, storage from 17 MiB to 64
        let mut sector = [0u8; 512];
        for (at, start, length) in [(446, 1u32, 16u32), (462, 17, 47)] {
            sector[at + 4] = 0x83;
            sector[at + 8..at + 12].copy_from_slice(&(start * 2048).to_le_bytes());
            sector[at + 12..at + 16].copy_from_slice(&(length * 2048).to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        std::os::unix::fs::FileExt::write_all_at(&file, &sector, 0).unwrap();
        let device = run("losetup", &["--partscan".as_ref(), "--find".as_ref(), "--show".as_ref(), image.as_ref()]);
        run("partx", &["--update".as_ref(), device.as_ref()]);
        for (number, name) in [(1, "boot"), (2, "storage")] {
            let part = format!("{device}p{number}");
            run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-b".as_ref(), "4096".as_ref(), part.as_ref()]);
            run("mount", &[part.as_ref(), outside.join(name).as_ref()]);
        }
        disk = Some((OwnedFd::from(fs::File::options().read(true).write(true).open(&device).unwrap()), device.clone()));
        // It goes when the last of this test does.
        run("losetup", &["--detach".as_ref(), device.as_ref()]);
    });
    let (disk, device) = disk.unwrap();
    let keeper = resident(c"keeper", OWN);
    let space = || (rustix::fs::statvfs("/storage").unwrap().f_blocks * 4096) >> 20;
    let grow = |number| ask(&keeper, &Message::Grow { number }, &[disk.as_fd()]).0.map_err(|refusal| refusal.code);
    assert!(space() < 47);
    fs::write("/storage/file", b"kept").unwrap();
    assert_eq!(grow(1), Err(Code::TableUnknown), "another one is behind it");
    // A root without CAP_SYS_RESOURCE may grow the partition, and not what is on it: then that is told.
    let may = capabilities() & 1 << 24 != 0;
    let done = |grown| if may { Ok(grown) } else { Err(Code::StorageIo) };
    assert_eq!(grow(2), done(236 << 20));
    let mut entry = [0u8; 4];
    rustix::io::pread(&disk, &mut entry, 462 + 12).unwrap();
    assert_eq!(u32::from_le_bytes(entry), 283 * 2048);
    let sectors = fs::read_to_string(format!("/sys/class/block/{}p2/size", device.trim_start_matches("/dev/")));
    assert_eq!(sectors.unwrap().trim(), (283 * 2048).to_string(), "the kernel knows");
    assert_eq!((270..283).contains(&space()), may, "{} of 283 MiB", space());
    assert_eq!((grow(2), fs::read("/storage/file").unwrap().as_slice()), (done(0), &b"kept"[..]));
    keeper.end();
}

#[test]
fn uploads_that_cannot_end_well_say_so() {
    enter();
    let keeper = resident(c"keeper", OWN);
    let object = name_of(b"x");
    let verify = resident(c"verify", OWN);
    upload(&keeper, &verify, 9, b"of the same update");
    verify.end();
    assert_eq!(fs::read_dir("/storage/objects/.incoming").unwrap().count(), 1);
    let huge = Message::CreatePart { object, part: 1, length: 1 << 30 };
    assert_eq!(ask(&keeper, &huge, &[]).0.map_err(|refusal| refusal.code), Err(Code::NoSpace));
    assert_eq!(fs::read_dir("/storage/objects/.incoming").unwrap().count(), 0, "nobody can complete that update");
    let (_, file) = ask(&keeper, &Message::CreatePart { object, part: 2, length: 10 }, &[]);
    let cut = receive(&file.unwrap(), 10, b"12345");
    assert_eq!(cut.map_err(|refusal| refusal.code), Err(Code::Incomplete));
    assert_eq!(ask(&keeper, &Message::Drop { object: Some(object), part: 2 }, &[]).0, Ok(0));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::STATE_MAX));
    let refused = stage(&keeper, RevName::parse("locals/x").unwrap(), 3, &large);
    assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::StateTooLarge));
    assert_eq!(fs::read_dir("/storage/objects/.incoming").unwrap().count(), 0);

    // A file that shrinks while it is sent; and what is sent whole.
    fs::write("/storage/file", b"0123456789").unwrap();
    let send = |length| {
        let (mut client, connection) = UnixStream::pair().unwrap();
        let fetch = Errand::new(c"fetch", 0);
        let file = OwnedFd::from(fs::File::open("/storage/file").unwrap());
        let done = ask(&fetch, &Message::Send { length }, &[connection.as_fd(), file.as_fd()]).0;
        drop(connection);
        fetch.end();
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        (done.map_err(|refusal| refusal.code), got)
    };
    assert_eq!(send(10), (Ok(10), "0123456789".into()));
    assert_eq!(send(11), (Err(Code::StorageDamaged), "0123456789".into()));
    keeper.end();
}

/// Whole or not at all, bounded, and never made from what cannot be read.
#[test]
fn metadata_is_kept_by_key() {
    enter();
    let keeper = resident(c"keeper", OWN);
    let set = |subject, key: &str, value: Option<&[u8]>| {
        ask(&keeper, &Message::SetMetadata { subject, key, value }, &[]).0.map_err(|refusal| refusal.code)
    };
    let kept = |subject| {
        let mut found = vec![];
        let (mut disk, mut room) = (Volumes::open("/storage", "/boot").unwrap(), Box::new(Room::new()));
        metadata::each(&mut disk, subject, &mut room, &mut |key, value| found.push((key.to_owned(), value.len())))
            .unwrap();
        found
    };
    let large = [7u8; limits::METADATA_VALUE_MAX + 1];
    assert_eq!(set(Subject::User, "a.b", Some(&large[1..])), Ok(0));
    assert_eq!((set(Subject::Device, "a", Some(b"x")), set(Subject::User, "c", Some(b""))), (Ok(0), Ok(0)));
    assert_eq!(set(Subject::User, "a.b", Some(b"other")), Ok(0));
    assert_eq!(kept(Subject::User), [("c".into(), 0), ("a.b".into(), 5)]);
    assert_eq!((set(Subject::User, "a.b", None), set(Subject::User, "none", None)), (Ok(0), Ok(0)));
    for (key, value) in [("", &b"x"[..]), ("a/b", b"x"), ("a b", b"x"), (&"k".repeat(129), b"x")] {
        assert_eq!(set(Subject::User, key, Some(value)), Err(Code::MetadataInvalid), "{key}");
    }
    let full = (0..9).map(|n| set(Subject::User, &n.to_string(), Some(&large[1..]))).find(Result::is_err);
    assert_eq!(full, Some(Err(Code::MetadataFull)));
    assert_eq!((kept(Subject::User).len(), kept(Subject::Device)), (8, vec![("a".into(), 1)]));
    fs::write("/storage/device-meta", b"what is this").unwrap();
    assert_eq!(set(Subject::Device, "a", Some(b"y")), Err(Code::StorageDamaged));
    assert_eq!(fs::read("/storage/device-meta").unwrap(), b"what is this");
    keeper.end();
}

#[test]
fn each_errand_holds_only_what_it_needs() {
    enter();
    let keeper = resident(c"keeper", OWN);
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", keeper.pid.as_raw_nonzero())).unwrap();
    let mut places: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    places.sort_unstable();
    assert_eq!(places, ["/", "/boot", "/storage"]);
    assert_eq!((status(&keeper, "Seccomp"), status(&keeper, "NoNewPrivs")), ("2".into(), "1".into()));
    let needed = 0x0120_020b & capabilities();
    assert_eq!(
        status(&keeper, "CapEff"),
        format!("{needed:016x}"),
        "chown, dac_override, fowner, linux_immutable, sys_admin, sys_resource"
    );
    let verify = resident(c"verify", OWN);
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", verify.pid.as_raw_nonzero())).unwrap();
    assert_eq!(mounts.lines().count(), 1, "an empty root: {mounts}");
    for (errand, uid) in [(verify, "902"), (resident(c"log", 0), "903")] {
        for (key, value) in [("Uid", uid), ("Gid", uid), ("CapEff", "0000000000000000"), ("CapBnd", "0000000000000000")]
        {
            assert_eq!(status(&errand, key), value, "{uid}");
        }
        assert_eq!((status(&errand, "Seccomp"), status(&errand, "NoNewPrivs")), ("2".into(), "1".into()));
        assert_eq!(errand.end(), "");
    }
    let fetch = Errand::new(c"fetch", 0);
    for _ in 0..500 {
        if status(&fetch, "Seccomp") == "2" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!((status(&fetch, "Uid"), status(&fetch, "CapEff")), ("901".into(), "0000000000000000".into()));
    fetch.end();
    keeper.end();
}

#[test]
fn output_of_containers_is_kept_by_its_own_user() {
    use std::os::unix::fs::MetadataExt;
    enter();
    let log = resident(c"log", 0);
    let rev = RevName::parse("7").unwrap();
    for name in ["web", "counter"] {
        let (read, write) = rustix::pipe::pipe().unwrap();
        log.ask(0, &Message::Watch { rev, container: PartName::parse(name).unwrap() }, &[read.as_fd()]);
        fs::File::from(write).write_all(format!("hello from {name}\n").as_bytes()).unwrap();
    }
    for name in ["web", "counter"] {
        let path = format!("/storage/logs/7/{name}/lxc/console.log");
        let kept = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            fs::read_to_string(&path).ok().filter(|text| !text.is_empty())
        });
        assert_eq!(kept.unwrap(), format!("hello from {name}\n"));
        assert_eq!(fs::metadata(&path).unwrap().uid(), 903);
    }
    assert_eq!(log.end(), "");
}
