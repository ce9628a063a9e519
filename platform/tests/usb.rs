//! `usb` and `stick` as processes, with loop devices for sticks, and a control socket that answers what a device does.
//! Needs root, and the kernel's log.

mod device;

use device::Errand;
use platform::wire::{Buffer, Message};
use runtime::{
    archive,
    http::{self, Head, HostRule, media},
    id::ObjectId,
    port::Owner,
};
use rustix::{
    fs::{Mode, OFlags, SeekFrom, open, seek},
    process::{Pid, Signal, kill_process},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const FILE: &str = "update.pvrexport.tgz";
const OWN: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
/// Longest time until something is said.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// The loop device that plays the socket for sticks: one that nobody takes by itself.
fn socket() -> String {
    format!("loop{}", 1000 + std::process::id() % 10_000)
}

/// A stick in that socket, until it is pulled out.
struct Stick(PathBuf);

impl Stick {
    /// One with a file system that `fill` fills.
    fn new(fill: impl FnOnce(&Path)) -> Self {
        let folder = Path::new("/stick");
        let _ = fs::remove_dir_all(folder);
        fs::create_dir(folder).unwrap();
        fill(folder);
        Self::of(&image())
    }

    fn of(image: &Path) -> Self {
        let device = Path::new("/dev").join(socket());
        run("losetup", &[device.to_str().unwrap(), image.to_str().unwrap()]);
        Self(device)
    }
}

/// A file system with what is in the folder of the stick.
fn image() -> PathBuf {
    let image = PathBuf::from("/stick.img");
    let _ = fs::remove_file(&image);
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-O", "^orphan_file", "-d", "/stick", "/stick.img"]);
    image
}

impl Drop for Stick {
    fn drop(&mut self) {
        // The mount goes with its last user, which may just be going.
        let device = self.0.to_str().unwrap();
        let gone = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let _ = Command::new("losetup").args(["-d", device]).output();
            !fs::exists(Path::new("/sys/block").join(socket()).join("loop")).unwrap()
        });
        assert!(gone || std::thread::panicking(), "{device} stays busy");
    }
}

/// The kernel's log from now on.
struct Log(fs::File);

impl Log {
    fn new() -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = open("/dev/kmsg", flags, Mode::empty()).unwrap();
        seek(&log, SeekFrom::End(0)).unwrap();
        Self(log.into())
    }

    /// What is said about our socket next, by `stick`.
    fn next(&mut self) -> String {
        let until = Instant::now() + PATIENCE;
        let words = format!("switchback[stick]: {}: ", socket());
        let mut record = [0; 8192];
        while Instant::now() < until {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    if let Some((_, said)) = text.split_once(&words) {
                        return said.lines().next().unwrap_or_default().to_owned();
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("nothing is said about {}", socket())
    }
}

/// What the device was asked, and what it says of the progress of any revision.
#[derive(Default)]
struct Home {
    asked: Vec<String>,
    progress: Option<&'static str>,
    /// Another update is running.
    busy: bool,
}

/// The host's control socket, for whom it is for.
fn control() -> Arc<Mutex<Home>> {
    const PATH: &str = "/run/pantavisor/pv/pv-ctrl";
    let listener = UnixListener::bind(PATH).unwrap();
    chown(PATH, Some(0), Some(904)).unwrap();
    fs::set_permissions(PATH, fs::Permissions::from_mode(0o660)).unwrap();
    let home = Arc::new(Mutex::new(Home::default()));
    let shared = home.clone();
    std::thread::spawn(move || listener.incoming().for_each(|client| serve(client.unwrap(), &shared)));
    home
}

fn serve(mut client: UnixStream, home: &Mutex<Home>) {
    let mut bytes = Vec::new();
    let (line, missing, expects) = loop {
        let mut chunk = [0; 4096];
        let count = client.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(head) = Head::parse(&bytes, HostRule::Local).unwrap() {
            let missing = head.size + head.length.unwrap_or(0) as usize - bytes.len();
            break (format!("{:?} {}", head.method, head.path), missing, head.expects_continue);
        }
    };
    if expects {
        client.write_all(http::CONTINUE.as_bytes()).unwrap();
    }
    let mut rest = vec![0; missing];
    client.read_exact(&mut rest).unwrap();
    let mut home = home.lock().unwrap();
    let (status, body) = match (line.ends_with("/progress"), home.progress) {
        (true, None) => (404, r#"{"Error":"no such revision","code":"SB1207","key":"","at":0}"#),
        (true, Some(progress)) => (200, progress),
        _ if line == "Get /objects" => (200, "[]"),
        _ if line == "Post /commands" && home.busy => (503, r#"{"Error":"busy","code":"SB1402","key":"","at":0}"#),
        _ => (200, ""),
    };
    home.asked.push(line);
    let mut text = String::new();
    http::write_head(&mut text, status, media::JSON, Some(body.len() as u64), None).unwrap();
    client.write_all((text + body).as_bytes()).unwrap();
}

/// An exported revision of a kernel and nothing else.
fn export() -> Vec<u8> {
    const KERNEL: &[u8] = b"a kernel";
    let name = ObjectId(Sha256::digest(KERNEL).into());
    let state = format!(
        concat!(
            r##"{{"#spec":"pantavisor-service-system@1","bsp/kernel":"{n}","bsp/pv":"{n}","##,
            r#""bsp/run.json":{{"initrd":"pv","linux":"kernel"}}}}"#
        ),
        n = name
    );
    [entry("json", state.as_bytes()), entry(&format!("objects/{name}"), KERNEL), vec![0; 2 * archive::BLOCK]].concat()
}

fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0u8; archive::BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(archive::BLOCK), 0);
    block
}

/// `usb`, as PID 1 starts it, with this much known.
fn usb(tried: &[u8]) -> Errand {
    let usb = Errand::new(c"usb", OWN);
    usb.ask(0, &Message::Sticks { kinds: "vfat,ext4", disks: &socket() }, &[]);
    let mut buffer = Buffer::new();
    for expected in [Message::Ready, Message::Recall { owner: Owner::Usb }] {
        let heard = usb.channel.receive(&mut buffer).unwrap().expect("it lives");
        assert_eq!(heard.message, expected);
        if expected != Message::Ready {
            usb.ask(heard.serial, &Message::Memory { bytes: tried }, &[]);
        }
    }
    usb
}

/// Everything about one socket, in one test: the sticks come one after another.
#[test]
fn sticks_come_and_go() {
    device::enter(|_| {});
    let home = control();
    let mut log = Log::new();
    let errand = usb(&[]);
    let status = fs::read_to_string(format!("/proc/{}/status", errand.pid.as_raw_nonzero())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("CapBnd:\t00000000002001e4"), "{status}");
    refused(&mut log);
    assert_eq!(home.lock().unwrap().asked, Vec::<String>::new(), "none of them was read");

    // The good one.
    let content = export();
    let rev = format!("locals/usb-{}", &ObjectId(Sha256::digest(&content).into()).to_string()[..16]);
    let fill = |folder: &Path| fs::write(folder.join(FILE), &content).unwrap();
    let stick = Stick::new(fill);
    assert_eq!(log.next(), format!("{FILE} is installed as {rev}"));
    let before = home.lock().unwrap().asked.clone();
    assert!(!before.iter().any(|line| line.starts_with("Put ")), "it is kept before it is installed: {before:?}");
    let (serial, tried) = wish(&errand);
    assert_eq!(tried[2 + 32..], [0, 1]);
    errand.ask(serial, &Message::done(0), &[]);
    let (serial, tried) = wish(&errand);
    assert_eq!(tried[2 + 32..], [1, 0]);
    let staged = home.lock().unwrap().asked.clone();
    assert!(staged.iter().any(|line| *line == format!("Put /steps/{rev}")), "{staged:?}");
    assert!(!staged.iter().any(|line| line == "Post /commands"), "it is kept before it is run: {staged:?}");
    errand.ask(serial, &Message::done(0), &[]);
    assert!(log.next().starts_with(&format!("{rev} is run")));
    asked_to_run(&home, 1);
    drop(stick);

    // The same one again, when it was rolled back; when it was collected; and for the next `usb`.
    for progress in [Some(r#"{"status":"ERROR","code":"SB1401"}"#), None] {
        home.lock().unwrap().progress = progress;
        let _stick = Stick::new(fill);
        assert!(log.next().starts_with("SB1805 "));
    }
    assert_eq!(errand.end(), "");
    let next = usb(&tried);
    let stick = Stick::new(fill);
    assert!(log.next().starts_with("SB1805 "));
    asked_to_run(&home, 1);
    assert_eq!(next.end(), "");
    drop(stick);

    // One that waits for another update ends with the `usb` that started it, whose successor starts another.
    home.lock().unwrap().busy = true;
    let errand = usb(&[]);
    let _stick = Stick::new(fill);
    for _ in 0..2 {
        let (serial, _) = wish(&errand);
        errand.ask(serial, &Message::done(0), &[]);
    }
    asked_to_run(&home, 3);
    let child = child(errand.pid);
    kill_process(errand.pid, Signal::KILL).unwrap();
    let ended = || fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "));
    let until = Instant::now() + PATIENCE;
    while !ended() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ended(), "it lives on");
    errand.end();
}

/// What it wants kept, and the serial of that wish.
fn wish(errand: &Errand) -> (u32, Vec<u8>) {
    let mut buffer = Buffer::new();
    let wish = errand.channel.receive(&mut buffer).unwrap().expect("it lives");
    let Message::Remember { owner: Owner::Usb, bytes } = wish.message else { panic!("{:?}", wish.message) };
    assert_eq!(bytes.len(), 2 + 34);
    (wish.serial, bytes.to_vec())
}

/// The state of its one child, in /proc.
fn child(of: Pid) -> PathBuf {
    let parent = format!(" {} ", of.as_raw_nonzero());
    let is_child = |path: &PathBuf| {
        let stat = fs::read_to_string(path).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.get(2..).is_some_and(|rest| rest.starts_with(&parent)))
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("stat"));
    processes.into_iter().find(is_child).expect("it has one")
}

/// Sticks of which nothing comes, by their codes.
fn refused(log: &mut Log) {
    type Fill<'f> = &'f dyn Fn(&Path);
    let cases: [(&str, Fill<'_>); 6] = [
        ("SB1802 ", &|_| {}),
        ("SB1802 ", &|folder| fs::write(folder.join("update.tgz"), export()).unwrap()),
        ("SB1803 ", &|folder| symlink("/stick.img", folder.join(FILE)).unwrap()),
        ("SB1803 ", &|folder| fs::create_dir(folder.join(FILE)).unwrap()),
        ("SB1803 ", &|folder| drop(run("mkfifo", &[folder.join(FILE).to_str().unwrap()]))),
        ("SB1803 ", &|folder| drop(run("mknod", &[folder.join(FILE).to_str().unwrap(), "b", "7", "0"]))),
    ];
    for (code, fill) in cases {
        let _stick = Stick::new(fill);
        let said = log.next();
        assert!(said.starts_with(code), "{said} and not {code}");
    }
    let garbage = Path::new("/garbage.img");
    fs::write(garbage, vec![0x5a; 1 << 20]).unwrap();
    let stick = Stick::of(garbage);
    assert!(log.next().starts_with("SB1801 "));
    drop(stick);

    // A file that was deleted while it was open, when the power went: a mount would make an end of it.
    let commands = Path::new("/commands");
    let delete = "set_inode_field orphan links_count 0\nset_inode_field orphan dtime 0\nunlink orphan\n";
    fs::write(commands, format!("{delete}set_super_value last_orphan 12\n")).unwrap();
    fs::write("/stick/orphan", "x").unwrap();
    let image = image();
    assert_eq!(run("debugfs", &["-R", "ncheck 12", "/stick.img"]).lines().last(), Some("12\t//orphan"));
    run("debugfs", &["-w", "-f", "/commands", "/stick.img"]);
    let before = fs::read(&image).unwrap();
    let stick = Stick::of(&image);
    assert!(log.next().starts_with("SB1803 "));
    drop(stick);
    assert!(fs::read(&image).unwrap() == before, "the stick was written");
}

/// Waits until so many revisions were run.
fn asked_to_run(home: &Mutex<Home>, times: usize) {
    let run = || home.lock().unwrap().asked.iter().filter(|line| *line == "Post /commands").count();
    let until = Instant::now() + PATIENCE;
    while run() < times && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(run(), times);
}
