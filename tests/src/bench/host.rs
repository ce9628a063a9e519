//! The host tool beside git and curl: many files, much data, warm and cold, and what each takes of memory.
//!
//! Both work on the same inodes: git's working copy is made of hard links to pvr's. Warm: all content is in the page cache
//! and each tool knows the files from before. Cold: the content was dropped from the page cache (names were not).
//! `pvr add` only says which files belong to a state; it is `pvr commit` that stores them, as `git add` does: so there is
//! a row for both together, too. Git compresses what it stores and pvr does not.
//! Wall times are medians; the greatest resident size is what GNU time reads from wait4, a shell's own megabyte included.
//! Both transfers go over the loopback to a server of ours that keeps nothing: one object, from memory or to nowhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::Row;
use crate::tour::device::Kit;
use crate::tour::steps::noise;
use crate::tour::{Outcome, ensure, fail};

/// How many files.
const FILES: usize = 20_000;
/// Files of one folder.
const FOLDER: usize = 200;
/// Bytes of each: 2 GB together.
const SIZE: usize = 100_000;
/// Bytes of the object that is sent and fetched.
const OBJECT: usize = 256 << 20;
/// Runs of what takes milliseconds to seconds, and of what takes minutes.
const RUNS: [usize; 2] = [5, 3];

/// Rows of status and add.
pub(super) fn repository(kit: &Kit, folder: &Path) -> Outcome<Vec<Row>> {
    alone(kit, folder, Desk::repository)
}

/// Rows of sending and fetching.
pub(super) fn transfers(kit: &Kit, folder: &Path) -> Outcome<Vec<Row>> {
    alone(kit, folder, Desk::transfer)
}

/// Measures in a folder that is empty before and gone after.
fn alone(kit: &Kit, folder: &Path, measure: fn(&Desk) -> Outcome<Vec<Row>>) -> Outcome<Vec<Row>> {
    let folder = folder.join("host");
    let _ = std::fs::remove_dir_all(&folder);
    let rows = Desk::new(kit, &folder).and_then(|desk| measure(&desk));
    std::fs::remove_dir_all(&folder)?;
    rows
}

/// What one run took.
#[derive(Clone, Copy)]
struct Took {
    ms: f64,
    peak_mb: f64,
}

fn median(mut all: Vec<Took>) -> Took {
    all.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    let peak_mb = all.iter().map(|took| took.peak_mb).fold(0.0, f64::max);
    Took { peak_mb, ..all[all.len() / 2] }
}

/// A developer's machine.
struct Desk {
    pvr: PathBuf,
    folder: PathBuf,
    ours: PathBuf,
    theirs: PathBuf,
}

impl Desk {
    fn new(kit: &Kit, folder: &Path) -> Outcome<Self> {
        let desk =
            Self { pvr: kit.pvr(), folder: folder.into(), ours: folder.join("ours"), theirs: folder.join("theirs") };
        std::fs::create_dir_all(folder.join("home"))?;
        Ok(desk)
    }

    /// Runs a program to its end.
    fn run(&self, at: &Path, program: &Path, words: &[&str]) -> Outcome<Took> {
        let told = self.folder.join("time");
        let mut command = Command::new("/usr/bin/time");
        command.args(["-f", "%M", "-o"]).arg(&told).arg(program).args(words).current_dir(at);
        command.env("HOME", self.folder.join("home")).env_remove("PVR_CONFIG_DIR").stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output()?;
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        ensure(output.status.success(), || {
            format!("{} {}: {}", program.display(), words.join(" "), String::from_utf8_lossy(&output.stderr).trim())
        })?;
        let peak_kb: f64 = std::fs::read_to_string(told)?.trim().parse()?;
        Ok(Took { ms, peak_mb: peak_kb / 1000.0 })
    }

    fn ours(&self, words: &[&str]) -> Outcome<Took> {
        self.run(&self.ours, &self.pvr, words)
    }

    fn theirs(&self, words: &[&str]) -> Outcome<Took> {
        self.run(&self.theirs, Path::new("git"), words)
    }

    /// Runs both often, in turns, each after `before`.
    fn pair(&self, runs: usize, words: &[&str], before: impl Fn(&Self) -> Outcome<()>) -> Outcome<(Took, Took)> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            before(self)?;
            ours.push(self.ours(words)?);
            before(self)?;
            theirs.push(self.theirs(words)?);
        }
        Ok((median(ours), median(theirs)))
    }

    fn repository(&self) -> Outcome<Vec<Row>> {
        self.fill()?;
        let mut rows = Vec::new();
        let mut tell = |what: &str, (ours, theirs): (Took, Took)| {
            let name = |of: &str| format!("{what}, {FILES} files, {} GB{of}", FILES * SIZE / 1_000_000_000);
            rows.push(Row::new(name(""), round(ours.ms), "ms").against(round(theirs.ms), "git"));
            rows.push(Row::new(name(": peak memory"), round(ours.peak_mb), "MB").against(round(theirs.peak_mb), "git"));
        };
        let [often, seldom] = RUNS;
        tell("pvr add of new files, warm", self.pair(seldom, &["add", "."], Self::begin)?);
        tell(
            "pvr add of new files, cold",
            self.pair(seldom, &["add", "."], |desk| desk.begin().and_then(|()| desk.cool()))?,
        );
        self.begin()?;
        let git = ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"];
        let both = |add: Took, commit: Took| Took { ms: add.ms + commit.ms, peak_mb: add.peak_mb.max(commit.peak_mb) };
        let ours = both(self.ours(&["add", "."])?, self.ours(&["commit", "-m", "a"])?);
        let theirs = both(self.theirs(&["add", "."])?, self.theirs(&git)?);
        tell("pvr add and commit, once", (ours, theirs));
        self.ours(&["status"])?;
        self.theirs(&["status"])?;
        tell("pvr status, warm", self.pair(often, &["status"], |_| Ok(()))?);
        tell("pvr status, cold", self.pair(often, &["status"], Self::cool)?);
        tell("pvr add of known files, warm", self.pair(often, &["add", "."], |_| Ok(()))?);
        Ok(rows)
    }

    /// The files of both.
    fn fill(&self) -> Outcome<()> {
        for index in 0..FILES {
            let name = format!("part{}/file{index}", index / FOLDER);
            let [ours, theirs] = [&self.ours, &self.theirs].map(|root| root.join(&name));
            if index % FOLDER == 0 {
                std::fs::create_dir_all(ours.parent().ok_or("no folder")?)?;
                std::fs::create_dir_all(theirs.parent().ok_or("no folder")?)?;
            }
            std::fs::write(&ours, noise(index as u32 + 1, SIZE))?;
            std::fs::hard_link(&ours, &theirs)?;
        }
        Ok(())
    }

    /// Two repositories that know nothing.
    fn begin(&self) -> Outcome<()> {
        for (root, own) in [(&self.ours, ".pvr"), (&self.theirs, ".git")] {
            if root.join(own).exists() {
                std::fs::remove_dir_all(root.join(own))?;
            }
        }
        self.ours(&["init"])?;
        self.theirs(&["init", "-q"])?;
        Ok(())
    }

    /// Drops the content of the files from the page cache.
    fn cool(&self) -> Outcome<()> {
        let pending = Command::new("sync").arg("-f").arg(&self.ours).status()?;
        ensure(pending.success(), || "sync".into())?;
        for index in 0..FILES {
            let file = std::fs::File::open(self.ours.join(format!("part{}/file{index}", index / FOLDER)))?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }

    fn transfer(&self) -> Outcome<Vec<Row>> {
        let content = noise(7, OBJECT);
        let source = self.folder.join("object");
        std::fs::write(&source, &content)?;
        let sent = self.folder.join("sent");
        std::fs::create_dir_all(&sent)?;
        let pvr = |words: &[&str]| self.run(&sent, &self.pvr, words);
        pvr(&["init"])?;
        std::fs::hard_link(&source, sent.join("object"))?;
        pvr(&["add", "."])?;
        pvr(&["commit", "-m", "a"])?;
        let state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(sent.join(".pvr/json"))?)?;
        let sha = state["object"].as_str().ok_or("the object was not committed")?.to_string();
        let port = serve(sha, Arc::new(content))?;
        let base = format!("http://127.0.0.1:{port}");
        let got = self.folder.join("got");
        std::fs::create_dir_all(&got)?;
        let mut all: [Vec<Took>; 4] = Default::default();
        for _ in 0..RUNS[0] {
            all[0].push(pvr(&["putobjects", "-f", &format!("{base}/objects")])?);
            all[1].push(self.run(
                &got,
                Path::new("curl"),
                &["-sS", "-f", "-T", "../object", &format!("{base}/put")],
            )?);
            // a home of its own has no pool that has the object already
            for old in ["work", "home"].map(|name| got.join(name)) {
                let _ = std::fs::remove_dir_all(old);
            }
            let pool = got.join("home").to_string_lossy().into_owned();
            all[2].push(self.run(&got, &self.pvr, &["-c", &pool, "clone", &base, "work"])?);
            all[3].push(self.run(&got, Path::new("curl"), &["-sS", "-f", "-o", "curled", &format!("{base}/get")])?);
        }
        let [up, curl_up, down, curl_down] = all.map(median);
        let rate = |took: Took| round(OBJECT as f64 / 1e6 / (took.ms / 1000.0));
        let megabytes = OBJECT / 1_000_000;
        let mut rows = Vec::new();
        for (what, ours, theirs) in [("pvr putobjects", up, curl_up), ("pvr clone", down, curl_down)] {
            let name = format!("{what}, {megabytes} MB on the loopback");
            rows.push(Row::new(&*name, rate(ours), "MB/s").against(rate(theirs), "curl"));
            rows.push(
                Row::new(format!("{name}: peak memory"), round(ours.peak_mb), "MB")
                    .against(round(theirs.peak_mb), "curl"),
            );
        }
        Ok(rows)
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Serves one object until the program ends: what a device answers, as far as these commands ask for it.
fn serve(sha: String, content: Arc<Vec<u8>>) -> Outcome<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (sha, content) = (sha.clone(), Arc::clone(&content));
            // a client that hangs up in the middle is its own measurement's failure
            std::thread::spawn(move || drop(talk(stream, &sha, &content)));
        }
    });
    Ok(port)
}

/// Answers one request after another.
fn talk(mut stream: TcpStream, sha: &str, content: &[u8]) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = held.windows(4).position(|part| part == b"\r\n\r\n") {
                let rest = held.split_off(end + 4);
                break String::from_utf8(std::mem::replace(&mut held, rest))?;
            }
            if !take(&mut stream, &mut held)? {
                return Ok(());
            }
        };
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_string())
        };
        let length: usize = header("content-length").map_or(Ok(0), |length| length.parse())?;
        if header("expect").is_some() && length > 0 {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut left = length - length.min(held.len());
        held.drain(..length.min(held.len()));
        let mut piece = vec![0; 256 << 10];
        while left > 0 {
            match stream.read(&mut piece)? {
                0 => return fail("the body ended early".into()),
                count => left = left.checked_sub(count).ok_or("more than one request at a time")?,
            }
        }
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let record = json!({"sha256sum": sha, "size": content.len().to_string(), "signed-puturl": "/put",
            "signed-geturl": "/get"});
        let document = match (method, path) {
            (_, "/.pvrremote") => json!({"json-get-url": "/json", "objects-endpoint": "/objects", "post-url": "/post",
                "json-key": "state"}),
            (_, "/json") => json!({"#spec": "pantavisor-service-system@1", "object": sha}),
            ("PUT", _) => json!({}),
            _ => record,
        };
        let document = document.to_string();
        let body = if path == "/get" { content } else { document.as_bytes() };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
        stream.write_all(body)?;
    }
}

fn take(stream: &mut TcpStream, held: &mut Vec<u8>) -> Outcome<bool> {
    let mut piece = [0; 16 << 10];
    let count = stream.read(&mut piece)?;
    held.extend_from_slice(&piece[..count]);
    Ok(count > 0)
}
