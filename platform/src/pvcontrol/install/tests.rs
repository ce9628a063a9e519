//! Installing archives on a small device that keeps what it is sent; the real one is asked by the emulated tests.

use super::*;
use crate::pvcontrol::{Powers, run};
use flate2::{Compression, write::GzEncoder};
use runtime::http::{Head, HostRule, media, write_head, write_refusal};
use std::{os::unix::net::UnixListener, sync::mpsc, thread::JoinHandle};

const POWERS: Powers = Powers { files: true, alone: false };

/// What a device was asked and sent: `PUT /objects/… 3`.
type Log = Vec<String>;

/// A device with these objects. `refuse`: the answer to an upload of that many bytes.
struct Device {
    socket: String,
    end: mpsc::Sender<()>,
    served: JoinHandle<Log>,
}

impl Device {
    fn new(name: &str, there: Vec<ObjectId>, refuse: Option<(u64, Code)>) -> Self {
        let path = std::env::temp_dir().join(format!("install-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (end, ended) = mpsc::channel();
        let serve = move || {
            let mut log = Log::new();
            loop {
                let (stream, _) = listener.accept().unwrap();
                if ended.try_recv().is_ok() {
                    return log;
                }
                log.push(serve(stream, &there, refuse));
            }
        };
        Self { socket: path.to_str().unwrap().into(), end, served: std::thread::spawn(serve) }
    }

    fn end(self) -> Log {
        self.end.send(()).unwrap();
        drop(UnixStream::connect(&self.socket));
        self.served.join().unwrap()
    }
}

fn serve(mut stream: UnixStream, there: &[ObjectId], refuse: Option<(u64, Code)>) -> String {
    let mut bytes = Vec::new();
    let (mut text, mut body) = (String::new(), String::new());
    let (line, size, length, expects) = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(head) = Head::parse(&bytes, HostRule::Local).unwrap() {
            let length = head.length.unwrap_or(0);
            break (format!("{:?} {} {length}", head.method, head.path), head.size, length, head.expects_continue);
        }
    };
    let mut status = 200;
    if line.starts_with("Get /objects ") {
        let list: Vec<String> = there.iter().map(|id| format!(r#"{{"sha256":"{id}","size":"1"}}"#)).collect();
        body = format!("[{}]", list.join(","));
    }
    match refuse.filter(|(size, _)| *size == length && expects) {
        Some((_, code)) => {
            status = code.http();
            write_refusal(&mut body, &code.into()).unwrap();
        }
        None => {
            if expects && length > 0 {
                stream.write_all(http::CONTINUE.as_bytes()).unwrap();
            }
            let mut rest = vec![0; (size as u64 + length - bytes.len() as u64) as usize];
            if stream.read_exact(&mut rest).is_err() {
                return format!("{line} cut");
            }
        }
    }
    write_head(&mut text, status, media::JSON, Some(body.len() as u64), None).unwrap();
    stream.write_all((text + &body).as_bytes()).unwrap();
    line
}

fn id(content: &[u8]) -> ObjectId {
    ObjectId(Sha256::digest(content).into())
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

const KERNEL: &[u8] = b"a kernel";
const CONF: &[u8] = b"lxc.tty.max = 8\n";

fn state(conf: &[u8]) -> String {
    format!(
        concat!(
            r##"{{"#spec":"pantavisor-service-system@1","bsp/kernel":"{k}","bsp/pv":"{k}","##,
            r#""bsp/run.json":{{"linux":"kernel","initrd":"pv"}},"groups.json":[{{"name":"app"}}],"#,
            r#""web/lxc.container.conf":"{c}","web/root.squashfs":"{r}","#,
            r#""web/run.json":{{"name":"web","group":"app","type":"lxc","config":"lxc.container.conf","root-volume":"root.squashfs"}}}}"#
        ),
        k = id(KERNEL),
        c = id(conf),
        r = id(&root()),
    )
}

/// More than one piece.
fn root() -> Vec<u8> {
    (0..200_000u32).map(|n| (n % 251) as u8).collect()
}

fn tar(conf: &[u8], objects: &[&[u8]]) -> Vec<u8> {
    let mut all = entry("json", state(conf).as_bytes());
    objects.iter().for_each(|content| all.extend(entry(&format!("objects/{}", id(content)), content)));
    all.extend([0; 2 * archive::BLOCK]);
    all
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Installs bytes on a device; exit code, output, error output, and what the device was asked.
fn install(
    name: &str,
    archive: &[u8],
    args: &[&str],
    there: Vec<ObjectId>,
    refuse: Option<(u64, Code)>,
) -> (u8, String, String, Log) {
    let file = std::env::temp_dir().join(format!("install-{}-{name}.tgz", std::process::id()));
    std::fs::write(&file, archive).unwrap();
    let device = Device::new(name, there, refuse);
    let socket = device.socket.clone();
    let words = [&["-s", &socket, "steps", "install", file.to_str().unwrap()], args].concat();
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&words, POWERS, &mut io::empty(), &mut out, &mut err);
    let log = device.end();
    std::fs::remove_file(&file).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), log)
}

#[test]
fn an_output_file_is_refused_before_anything_is_sent() {
    let answer = std::env::temp_dir().join(format!("install-{}-answer", std::process::id()));
    let whole = tar(CONF, &[KERNEL, CONF, &root()]);
    let (code, out, err, log) = install("file", &whole, &["-f", answer.to_str().unwrap()], vec![], None);
    assert_eq!((code, out.as_str(), log), (2, "", Log::new()));
    assert!(err.contains("-f is not for steps install"), "{err}");
    assert!(!answer.exists());
}

#[test]
fn a_file_that_is_not_the_one_that_was_meant_is_not_sent() {
    let whole = gzip(&tar(CONF, &[KERNEL, CONF, &root()]));
    let path = std::env::temp_dir().join(format!("install-{}-meant.tgz", std::process::id()));
    std::fs::write(&path, &whole).unwrap();
    for (meant, is_sent) in [(id(b"another"), false), (id(&whole), true)] {
        let device = Device::new("meant", vec![], None);
        let options = Options { socket: Some(device.socket.clone()), ..Options::default() };
        let file = std::fs::File::open(&path).unwrap();
        let done = super::put(&options, &file, Some("locals/x"), Some(meant), &mut io::sink());
        assert_eq!((done.is_ok(), device.end().is_empty()), (is_sent, !is_sent));
        assert!(is_sent || matches!(done, Err(Trouble::File(_))));
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn an_archive_arrives_whole_plain_or_packed() {
    let root = root();
    let whole = tar(CONF, &[KERNEL, CONF, &root, KERNEL]);
    let put = |content: &[u8]| format!("Put /objects/{} {}", id(content), content.len());
    for (name, bytes) in [("plain", whole.clone()), ("packed", gzip(&whole))] {
        let digest = id(&bytes).to_string();
        let (code, out, err, log) = install(name, &bytes, &[], vec![], None);
        assert_eq!((code, out.as_str(), err.as_str()), (0, &*format!("locals/{digest}\n"), ""));
        let step = format!("Put /steps/locals/{digest} {}", state(CONF).len());
        assert_eq!(log, ["Get /objects 0".to_string(), put(KERNEL), put(CONF), put(&root), step]);
    }
    let there = vec![id(KERNEL), id(b"another"), id(&root)];
    let args = ["locals/x", "--json", "--run", "-m", "why"];
    let (code, out, _, log) = install("more", &gzip(&whole), &args, there, None);
    assert_eq!(code, 0);
    let told = format!("{{\"revision\":\"locals/x\",\"objects\":3,\"sent\":1,\"bytes\":{}}}\n", CONF.len());
    assert_eq!(out, told);
    let step = format!("Put /steps/locals/x {}", state(CONF).len());
    let rest = ["Put /steps/locals/x/commitmsg 3", "Post /commands 39"].map(str::to_string);
    assert_eq!(log, [&["Get /objects 0".to_string(), put(CONF), step][..], &rest].concat());
}

#[test]
fn what_is_refused_here_sends_nothing() {
    let root = root();
    let whole = tar(CONF, &[KERNEL, CONF, &root]);
    let packed = gzip(&whole);
    let mut flipped = packed.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let mut wrong = whole.clone();
    let at = wrong.windows(KERNEL.len()).position(|part| part == KERNEL).unwrap();
    wrong[at] ^= 1;
    let unknown = b"lxc.unknown = 1\n";
    let long = [b'#'; limits::LXC_CONF_MAX + 1];
    let asks = |code: u8, what: &'static str, bytes: &[u8], asked: usize| {
        for bytes in [bytes.to_vec(), gzip(bytes)] {
            let (got, out, err, log) = install("refused", &bytes, &["locals/x"], vec![], None);
            assert_eq!((got, out.as_str()), (code, ""), "{what}: {err}");
            assert!(err.starts_with("ERROR: ") && err.contains(what), "{what}: {err}");
            assert_eq!(log, vec!["Get /objects 0"; asked], "{what}");
        }
    };
    asks(60, "SB1202", &wrong, 0);
    asks(255, "SB1703", &whole[..whole.len() / 2], 0);
    asks(255, "SB1702", &[entry("json", state(CONF).as_bytes()), entry("../x", b"")].concat(), 0);
    asks(255, "SB1701", b"no archive, however long it is: ".repeat(30).as_slice(), 0);
    asks(255, "SB1701", &[&whole[..], b"more"].concat(), 0);
    asks(70, "SB1003", &[entry("json", b"{"), vec![0; 1024]].concat(), 0);
    asks(255, "SB1201", &tar(CONF, &[KERNEL, CONF]), 1);
    asks(70, "SB1117", &tar(unknown, &[KERNEL, unknown, &root]), 1);
    asks(70, "SB1118", &tar(&long, &[KERNEL, &long, &root]), 1);
    for (what, bytes) in [("cut", &packed[..packed.len() - 3]), ("flipped", &flipped), ("two", &packed.repeat(2))] {
        let (code, _, err, log) = install("gzip", bytes, &["locals/x"], vec![], None);
        assert!(code == 255 && err.contains("SB170") || code == 60, "{what}: {code} {err}");
        assert!(log.is_empty(), "{what}");
    }
    let (code, _, err, log) = install("name", &packed, &["7"], vec![], None);
    assert!(code == 2 && err.contains("locals/NAME") && log.is_empty(), "{err}");
    let (code, _, err, _) = install("json", &packed[..40], &["--json"], vec![], None);
    assert!(code == 255 && err.starts_with(r#"{"Error":"#) && err.contains("SB1703"), "{err}");
}

#[test]
fn what_the_device_refuses_ends_it_with_its_code() {
    let root = root();
    let whole = tar(CONF, &[KERNEL, CONF, &root]);
    let refuse = Some((root.len() as u64, Code::NoSpace));
    let (code, out, err, log) = install("full", &gzip(&whole), &[], vec![], refuse);
    assert_eq!((code, out.as_str()), (48, ""), "{err}");
    assert!(err.contains("SB1204"), "{err}");
    assert_eq!(log.len(), 4, "the list, three objects, no revision: {log:?}");
}
