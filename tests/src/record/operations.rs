//! What is recorded: each operation of a device, and those that are made to fail on purpose.
//!
//! Invariants: an operation begins on a settled device and fails unless the device did what it is named after. What is
//! needed first is done by `prepare`, and is not in the recording.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use super::image::Kind;
use super::take::Take;
use crate::replay::recording::Control;
use crate::rollback::candidates::told_to;
use crate::rollback::lab::{Change, Lab};
use crate::takeover::original::OURS;
use crate::tour::device::Device;
use crate::tour::disk::Disk;
use crate::tour::{Outcome, ensure, http, wait_for};
use runtime::protocol::Row;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The page of `web`.
const PAGE: &str = "_config/web/srv/www/index.html";
/// The definition of `web`.
const RUN: &str = "web/run.json";
/// Objects of the large installation, and their size in bytes.
const OBJECTS: (usize, usize) = (30, 100_000);
/// Rounds in which two tokens are given and taken back.
const PAIRINGS: usize = 8;

/// Objects that the revisions of further collections have of their own.
const ROUNDS: [usize; 4] = [60, 0, 3, 20];
/// Changes of metadata.
const CHANGES: usize = 40;

/// One recording.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name on the command line, and its folder's.
    pub name: &'static str,
    /// What the device does.
    pub operation: &'static str,
    /// The device that does it.
    pub kind: Kind,
    /// What is made to fail.
    pub control: Control,
    /// What is done before.
    pub prepare: fn(&mut Lab) -> Outcome<()>,
    /// Whether it is recorded from the factory's disk on, its first start included.
    pub first: bool,
    /// MiB that the disk has behind its last partition.
    pub behind: u64,
    /// Whether the device is one of the original, which is taken over.
    pub taken: bool,
    /// Does it.
    pub run: fn(&mut Take<'_>) -> Outcome<()>,
}

/// All of them.
pub const CASES: &[Case] = &[
    quiet("install", install),
    quiet("in-place", in_place),
    quiet("base", base),
    Case { prepare: with_a_revision_to_replace, ..quiet("replace", replace) },
    quiet("failed", failed),
    quiet("failed-in-place", failed_in_place),
    quiet("given-up", given_up),
    Case { prepare: with_something_to_collect, ..quiet("collect", collect) },
    Case { kind: Kind::Paired, ..quiet("memory", memory) },
    Case { kind: Kind::Noting, ..quiet("metadata", metadata) },
    Case { prepare: with_something_to_collect, kind: Kind::Busy, ..quiet("factory-reset", factory_reset) },
    Case { first: true, ..quiet("first-boot", |_| Ok(())) },
    Case { first: true, behind: 32, ..quiet("growth", growth) },
    Case { kind: Kind::Busy, ..quiet("steady", steady) },
    TAKEOVER,
    fails("base-nobarrier", Control::NoBarrier, base),
    fails("base-nosync", Control::NoSync, base),
    fails("base-nocheckpoint", Control::NoCheckpoint, base),
    without("base-without-I3", Row::SyncContents),
    without("base-without-I7", Row::SyncTrails),
    without("base-without-P5", Row::Checkpoint),
    Case { operation: "memory", kind: Kind::Paired, run: memory, ..without("memory-without-M4", Row::SyncRoot) },
    Case { name: "takeover-nosync", control: Control::NoSync, ..TAKEOVER },
    Case { name: "takeover-nocheckpoint", control: Control::NoCheckpoint, ..TAKEOVER },
];

const TAKEOVER: Case = Case { first: true, taken: true, ..quiet("takeover", takeover) };

const fn quiet(name: &'static str, run: fn(&mut Take<'_>) -> Outcome<()>) -> Case {
    let (kind, control) = (Kind::Quiet, Control::None);
    Case { name, operation: name, kind, control, prepare: |_| Ok(()), first: false, behind: 0, taken: false, run }
}

const fn fails(name: &'static str, control: Control, run: fn(&mut Take<'_>) -> Outcome<()>) -> Case {
    Case { operation: "base", control, ..quiet(name, run) }
}

/// The wait of one row of the protocol is left out.
const fn without(name: &'static str, row: Row) -> Case {
    fails(name, Control::Without(row), base)
}

/// A page that was never served before.
fn page(number: u32) -> Change {
    vec![(PAGE, format!("<h1>page {number}</h1>\n").into_bytes())]
}

/// A revision with many objects comes in, and is switched to in place.
fn install(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    write_objects(take.lab, 1)?;
    take.update_ends(page(1), "many objects", "DONE")
}

/// Objects that are no two alike and do not compress.
fn write_objects(lab: &Lab, seed: u64) -> Outcome<()> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..OBJECTS.0).try_for_each(|number| {
        let content: Vec<u8> = (0..OBJECTS.1).map(|_| next()).collect();
        Ok(std::fs::write(object(lab, number)?, content)?)
    })
}

fn object(lab: &Lab, number: usize) -> Outcome<PathBuf> {
    Ok(lab.folder()?.join(PAGE).with_file_name(format!("{number}.bin")))
}

/// One container is replaced without a restart of the device.
fn in_place(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    take.update_ends(page(1), "a page", "DONE")
}

/// A new base: armed, tried by a restart, committed.
fn base(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    let change = take.lab.another_base()?;
    take.update_ends(change, "a base", "DONE")
}

/// The name of the revision that is replaced.
const REPLACED: &str = "locals/again";

/// A revision that was run once, and that no copy of the environment names any more.
fn with_a_revision_to_replace(lab: &mut Lab) -> Outcome<()> {
    lab.starts()?;
    lab.take_copy()?;
    for (number, name) in [Some(REPLACED), None, None, None].into_iter().enumerate() {
        let rev = lab.install_as(name, page(number as u32), "before")?;
        let ended = lab.ended(&rev)?;
        ensure(ended.status == "DONE", || format!("{rev} ended as {ended:?}"))?;
    }
    Ok(())
}

/// Another state comes under a name that there is already, with another base: it is installed, tried and committed.
fn replace(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    let change = take.lab.another_base()?;
    let ended = take.update_as(Some(REPLACED), change, "another one of this name")?;
    ensure(ended.status == "DONE", || format!("it ended as {ended:?}"))
}

/// A new base whose containers miss their goals: tried, given up, gone back from by another restart.
fn failed(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    let mut change = take.lab.another_base()?;
    change.push(never_ready(take.lab)?);
    take.update_ends(change, "a base that fails", "ERROR")?;
    take.lab.ready().map(drop)
}

/// A container that misses its goal, switched to and gone back from without a restart.
fn failed_in_place(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    let change = vec![never_ready(take.lab)?];
    take.update_ends(change, "a container that fails", "ERROR")?;
    take.lab.ready().map(drop)
}

/// A new base that dies before it records anything: the loader counts its tries and gives it up.
fn given_up(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    let change = told_to(take.lab, "crash")?;
    take.update_ends(change, "a base that dies", "ERROR")?;
    take.lab.ready().map(drop)
}

/// `web`, waiting for a word that it never says.
fn never_ready(lab: &Lab) -> Outcome<(&'static str, Vec<u8>)> {
    let mut run: serde_json::Value = serde_json::from_slice(&lab.file(RUN)?)?;
    run["status_goal"] = "READY".into();
    Ok((RUN, run.to_string().into_bytes()))
}

/// Revisions that nothing names any more, one of them with many objects.
fn with_something_to_collect(lab: &mut Lab) -> Outcome<()> {
    lab.starts()?;
    lab.take_copy()?;
    // Two are kept, and the copy of the environment that is not in force names a third.
    for number in 1..=4 {
        match number {
            1 => write_objects(lab, 2)?,
            2 => (0..OBJECTS.0).try_for_each(|number| Ok::<_, Failure>(std::fs::remove_file(object(lab, number)?)?))?,
            _ => {}
        }
        let rev = lab.install(page(number), "before the collection")?;
        let ended = lab.ended(&rev)?;
        ensure(ended.status == "DONE", || format!("{rev} ended as {ended:?}"))?;
    }
    Ok(())
}

/// What no kept revision needs is removed: again and again, of revisions with many objects, some, or none of their own.
fn collect(take: &mut Take<'_>) -> Outcome<()> {
    collect_once(take)?;
    for (round, objects) in ROUNDS.into_iter().enumerate() {
        take.aside(|take| {
            (0..objects).try_for_each(|number| {
                Ok::<_, Failure>(std::fs::write(object(take.lab, number)?, format!("{round} {number}\n"))?)
            })?;
            take.update_ends(page(10 + round as u32), "for the next collection", "DONE")?;
            (0..objects).try_for_each(|number| Ok::<_, Failure>(std::fs::remove_file(object(take.lab, number)?)?))
        })?;
        collect_once(take)?;
    }
    Ok(())
}

/// One collection, until the file systems have it in place.
fn collect_once(take: &Take<'_>) -> Outcome<()> {
    let before = control(take, "steps ls --json")?;
    control(take, "storage gc")?;
    // Nobody is told the end of it.
    take.written_back()?;
    ensure(control(take, "steps ls --json")? != before, || format!("nothing was collected of {before}"))
}

/// The keeper's record of metadata is changed, again and again; a device that is told so does it when revisions are listed.
fn metadata(take: &mut Take<'_>) -> Outcome<()> {
    (0..CHANGES).try_for_each(|_| control(take, "steps ls").map(drop))
}

/// The first start on a larger disk: the last partition, and the file system on it, grow to its end.
fn growth(take: &mut Take<'_>) -> Outcome<()> {
    let (image, board) = (&take.lab.device.disk.image, take.lab.device.disk.board);
    let before = take.lab.device.disk.storage.length;
    wait_for("the partition grown", 60, || Ok((Disk::open(image, board)?.storage.length > before).then_some(())))
}

/// A device of the original tries our base and is taken over by it; then a new base comes, and last the one that the original
/// had installed is run again, whose boot assets get names of ours. A message would write the file system back before anything
/// of the base is made visible to the loader: none comes.
fn takeover(take: &mut Take<'_>) -> Outcome<()> {
    let committed = |take: &Take<'_>, rev: &str| {
        let is_so = |status: &serde_json::Value| status["status"] == "READY" && status["committed"] == rev;
        take.lab.device.wait_status(&format!("revision {rev} committed"), 240, is_so).map(drop)
    };
    committed(take, OURS)?;
    take.told(&format!("DONE {OURS}"))?;
    take.written_back()?;
    take.lab.take_copy()?;
    let change = take.lab.another_base()?;
    take.update_ends(change, "", "DONE")?;
    take.lab.ready()?;
    take.written_back()?;
    control(take, &format!("cmd run {OURS}"))?;
    let ended = take.lab.ended(OURS)?;
    ensure(ended.status == "DONE", || format!("{OURS} ended as {ended:?}"))?;
    committed(take, OURS)?;
    take.told(&format!("DONE {OURS}"))
}

/// Everything but revision 0 goes, and a restart ends it.
fn factory_reset(take: &mut Take<'_>) -> Outcome<()> {
    let listed = |take: &Take<'_>| -> Outcome<usize> {
        Ok(take.lab.device.control("steps ls --json")?.json()?.as_array().map_or(0, Vec::len))
    };
    ensure(listed(take)? > 1, || "there is nothing but revision 0 before".into())?;
    control(take, "cmd factory-reset")?;
    take.told("env 0 -")?;
    // It answers while it removes; the containers start after that.
    let status = take.lab.device.wait_status("revision 0 alone", 240, |status| {
        let runs = status["containers"].as_array().is_some_and(|containers| !containers.is_empty());
        status["committed"] == "0" && status["status"] == "READY" && runs
    })?;
    ensure(status["update"].is_null() && listed(take)? == 1, || format!("more than revision 0 is left: {status}"))
}

/// Runs pvcontrol on the device; what it prints.
fn control(take: &Take<'_>, words: &str) -> Outcome<String> {
    let ran = take.lab.device.control(words)?;
    ensure(ran.code == 0, || format!("pvcontrol {words}: {}", ran.text.trim()))?;
    Ok(ran.text)
}

/// The endpoint's memory is written: tokens are given, and taken back, some times over.
fn memory(take: &mut Take<'_>) -> Outcome<()> {
    let tokens = |take: &Take<'_>| -> Outcome<usize> {
        let document = take.lab.device.control("endpoint ls --json")?.json()?;
        Ok(document["tokens"].as_array().map_or(0, Vec::len))
    };
    for _ in 0..PAIRINGS {
        for number in 1..=2 {
            pair(&take.lab.device)?;
            take.told(&format!("paired {number}"))?;
            ensure(tokens(take)? == number, || format!("{number} were paired, and the endpoint has another number"))?;
        }
        control(take, "endpoint revoke all")?;
        take.told("revoked")?;
        ensure(tokens(take)? == 0, || "a token that was taken back is still there".into())?;
    }
    Ok(())
}

/// `pvr device pair`, with the code that the device's console shows.
fn pair(device: &Device) -> Outcome<()> {
    let shown = device.control("endpoint pair --json")?.json()?;
    let code = device.folder().join("code");
    std::fs::write(&code, shown["code"].as_str().ok_or("the device shows no code")?)?;
    let output = Command::new(device.pvr())
        .args(["device", "pair", "--plain", &format!("http://127.0.0.1:{}", device.ports.endpoint)])
        .env("PVR_CONFIG_DIR", device.folder().join("home"))
        .stdin(File::open(code)?)
        .output()?;
    ensure(output.status.success(), || format!("pvr device pair: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A day of a device in little: logs, containers that come and go, a folder that grows.
fn steady(take: &mut Take<'_>) -> Outcome<()> {
    take.lab.take_copy()?;
    for round in 0..6 {
        for request in 0..25 {
            let path = format!("/none-{round}-{request}");
            wait_for("web", 30, || Ok(http::get(take.lab.device.ports.web, &path).ok()))?;
        }
        ["counter", "web"]
            .iter()
            .try_for_each(|name| control(take, &format!("containers restart {name}")).map(drop))?;
        for number in 0..20 {
            std::fs::write(object(take.lab, number)?, format!("{round} {number}\n"))?;
        }
        take.lab.send_objects()?;
        std::thread::sleep(std::time::Duration::from_secs(8));
    }
    Ok(())
}
