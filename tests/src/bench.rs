//! What is measured, side by side with a named peer where there is one: rows of (name, ours, peer, peer's name, unit,
//! budget), made by `ci/bench`.
//!
//! Invariants: both sides of a row are measured in the same run on the same machine; a row that could not be measured
//! is missing and said so, never guessed; nothing here passes or fails: budgets are compared by who reads the table.
//! Does not: build (`ci/bench` does), repeat runs of the emulator to smooth times (they are upper bounds anyway).

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boards::{Board, env::uboot::Layout};
use platform::env::BlockRegion;
use runtime::id::RevName;
use runtime::port::BootEnv;
use serde_json::{Value, json};

use crate::tour::device::Kit;
use crate::tour::disk::Disk;
use crate::tour::{Outcome, ensure, fail};
use simulator::explore::{Count, Yard};
use simulator::fleet::Quality;
use simulator::r#gen::Gen;
use simulator::suite::one;

mod container;
mod device;
mod host;
mod replay;

/// One row.
pub struct Row {
    name: String,
    ours: f64,
    peer: Option<(f64, &'static str)>,
    unit: &'static str,
    budget: Option<f64>,
}

impl Row {
    fn new(name: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        Self { name: name.into(), ours, peer: None, unit, budget: None }
    }

    fn budget(mut self, most: f64) -> Self {
        self.budget = Some(most);
        self
    }

    fn against(mut self, peer: f64, name: &'static str) -> Self {
        self.peer = Some((peer, name));
        self
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "ours": self.ours, "peer": self.peer.map(|peer| peer.0),
            "peer's name": self.peer.map(|peer| peer.1), "unit": self.unit, "budget": self.budget,
        })
    }

    fn line(&self) -> String {
        let peer = self.peer.map_or(String::new(), |(value, name)| format!("{value} ({name})"));
        let budget = match self.budget {
            Some(most) if self.ours > most => format!("{most} MISSED"),
            Some(most) => most.to_string(),
            None => String::new(),
        };
        format!("{:<44} {:>12} {:<8} {:>26}  {budget}", self.name, self.ours, self.unit, peer)
    }
}

/// Measures everything, or only the part whose name is given, and writes the rows to `json`. `x86` is the static binary for this machine, `probe` the program
/// of a container that asks its device.
pub fn measure(kit: &Kit, x86: &Path, probe: &Path, folder: &Path, json: &Path, only: Option<&str>) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    let mut rows = Vec::new();
    type Part<'a> = &'a dyn Fn() -> Outcome<Vec<Row>>;
    let parts: [(&str, Part<'_>); 9] = [
        ("size", &|| sizes(kit, x86)),
        ("environment store", &|| environment(kit, folder)),
        ("update", &update),
        ("container", &|| container::rows(x86, folder)),
        ("device", &|| device::rows(kit, folder)),
        ("control requests", &|| device::requests(kit, probe, folder)),
        ("repository", &|| host::repository(kit, folder)),
        ("transfers", &|| host::transfers(kit, folder)),
        ("replay", &|| replay::rows(Path::new("target/evidence/recordings/base"))),
    ];
    let mut missing = Vec::new();
    println!("{:<44} {:>12} {:<8} {:>26}  budget", "", "ours", "", "peer");
    for (name, part) in parts.into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        match part() {
            Ok(found) => {
                found.iter().for_each(|row| println!("{}", row.line()));
                rows.extend(found);
            }
            Err(error) => {
                println!("not measured: {name}: {error}");
                missing.push(name);
            }
        }
    }
    let document: Vec<Value> = rows.iter().map(Row::json).collect();
    std::fs::write(json, format!("{:#}\n", Value::from(document)))?;
    ensure(missing.is_empty(), || format!("not measured: {}", missing.join(", ")))
}

fn sizes(kit: &Kit, x86: &Path) -> Outcome<Vec<Row>> {
    let size = |path: PathBuf| std::fs::metadata(path).map(|data| data.len() as f64 / 1e6);
    Ok(vec![
        Row::new("binary, static, arm64", size(kit.folder.join("switchback"))?, "MB").budget(1.0),
        Row::new("binary, static, x86-64", size(x86.into())?, "MB").budget(1.0),
    ])
}

/// Environment stores and syncs of a whole update, stage to commit, counted by the simulator's media: the device's own
/// machine and procedures.
fn update() -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for (base, what) in [(1, "by reboot"), (0, "in place")] {
        let end = Yard::new().sail(&one(Quality::Good, base), &mut Gen::all(), &mut Count::default());
        let Ok(end) = end else { return fail("the simulated update broke a law".into()) };
        rows.push(Row::new(format!("update {what}, environment stores"), end.stores as f64, "").budget(3.0));
        rows.push(Row::new(format!("update {what}, syncs"), end.syncs as f64, "").budget(10.0));
    }
    Ok(rows)
}

/// One store of the environment, ours and fw_setenv's, on copies of the same bytes: for each way to keep it.
fn environment(kit: &Kit, folder: &Path) -> Outcome<Vec<Row>> {
    let disk = Disk::open(&kit.image(), kit.board()?)?;
    let files = folder.join("environment-files");
    let whole = std::fs::read(kit.image())?;
    std::fs::write(&files, &whole[disk.env.start as usize..][..disk.env.length as usize])?;
    let mut rows = stores("in FAT files", kit.board()?, &files, folder)?;

    let board = boards::find("qemu-arm64-sd").ok_or("the board qemu-arm64-sd is gone")?;
    let raw = folder.join("environment-raw");
    let file = std::fs::File::create(&raw)?;
    file.set_len(8 << 20)?;
    let layout = layout_on(board, &raw)?;
    for (copy, offset) in disk.env_bytes()?.chunks(layout.size).zip(layout.offsets()) {
        file.write_all_at(copy, *offset)?;
    }
    rows.extend(stores("at raw offsets", board, &raw, folder)?);
    Ok(rows)
}

/// Where a board's copies are in what holds its environment.
fn layout_on(board: &Board, medium: &Path) -> Outcome<Layout> {
    let mut region = BlockRegion::open(medium.to_str().ok_or("a path that is no text")?)?;
    board.layout(&mut region).map_err(|code| format!("{code:?} while locating the environment").into())
}

/// System calls, writes and syncs of one store.
fn stores(what: &str, board: &Board, medium: &Path, folder: &Path) -> Outcome<Vec<Row>> {
    let ours = traced(folder, Command::new(std::env::current_exe()?).args(["env-store", board.name]).arg(medium))?;
    let ours = between(&ours, "switchback-begin", "switchback-end")?;

    let layout = layout_on(board, medium)?;
    let config = folder.join("peer.config");
    let line = |offset: u64| format!("{} {offset:#x} {:#x}\n", medium.display(), layout.size);
    std::fs::write(&config, layout.offsets().iter().map(|offset| line(*offset)).collect::<String>())?;
    let script = folder.join("peer.script");
    std::fs::write(&script, "pv_rev=1\npv_try=2\npv_prev=0\nupgrade_available=1\nbootcount=0\n")?;
    let peer = traced(folder, Command::new("fw_setenv").arg("-c").arg(&config).arg("-s").arg(&script))?;
    let Some(start) = peer.iter().position(|call| call.contains("peer.config")) else {
        return fail("fw_setenv did not open its configuration".into());
    };
    let peer = &peer[start..];
    let count = |calls: &[String], names: &[&str]| {
        calls.iter().filter(|call| names.iter().any(|name| call.starts_with(&format!("{name}(")))).count() as f64
    };
    let row = |name: &str, ours: f64, peer: f64, most: f64| {
        Row::new(format!("environment store {what}, {name}"), ours, "").against(peer, "fw_setenv").budget(most)
    };
    let (writes, syncs) = (["write", "pwrite64"], ["fsync", "fdatasync", "sync", "msync"]);
    Ok(vec![
        row("system calls", ours.len() as f64, peer.len() as f64, 25.0),
        row("writes", count(ours, &writes), count(peer, &writes), 1.0),
        row("syncs", count(ours, &syncs), count(peer, &syncs), 1.0),
    ])
}

/// One load and one store of a board's environment, as PID 1 does for a transition; between two marks in the trace.
pub fn store_environment(board: &str, medium: &Path) -> Outcome<()> {
    let board = boards::find(board).ok_or("no such board")?;
    let path = medium.to_str().ok_or("a path that is no text")?;
    let mut env = platform::env::open_on(board, path).map_err(|code| format!("{code:?}"))?;
    let mark = |name: &str| drop(std::fs::metadata(name));
    mark("switchback-begin");
    let loaded = env.load().map_err(|code| format!("{code:?}"))?;
    let mut vars = loaded.vars;
    vars.candidate = RevName::parse("locals/bench").ok();
    env.store(&vars).map_err(|code| format!("{code:?}"))?;
    mark("switchback-end");
    Ok(())
}

/// Runs a command under strace; its system calls, one line each.
fn traced(folder: &Path, command: &mut Command) -> Outcome<Vec<String>> {
    let log = folder.join("trace");
    let mut strace = Command::new("strace");
    strace.arg("-o").arg(&log).arg(command.get_program()).args(command.get_args());
    let output = strace.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return fail(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = std::fs::read_to_string(log)?;
    Ok(text.lines().filter(|line| !line.starts_with(['+', '-'])).map(str::to_string).collect())
}

fn between<'a>(calls: &'a [String], begin: &str, end: &str) -> Outcome<&'a [String]> {
    let at = |mark: &str| calls.iter().position(|call| call.contains(mark));
    match (at(begin), at(end)) {
        (Some(begin), Some(end)) => Ok(&calls[begin + 1..end]),
        _ => fail("the marks are not in the trace".into()),
    }
}
