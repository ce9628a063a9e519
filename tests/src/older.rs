//! An older release on what this one has written, and the reverse, for real: the emulated device updates itself to another build
//! of its own binary, goes on with that, and comes back.
//!
//! A rollback runs the release of before on the storage of the newer one, so both directions must hold: revisions run with all
//! their objects, records are understood as far as they are known, updates end and say why.
//! Invariants: kernel, loader and containers are the kit's in every revision; only `/init` differs. A step fails unless the
//! environment on the disk and the status name the same revision.
//! Does not: build the other binary (`ci/evidence older` does).

use std::path::Path;

use runtime::fault::Code;
use serde_json::Value;

use crate::rollback::lab::{Change, INITRD, Lab};
use crate::tour::device::Kit;
use crate::tour::report::Report;
use crate::tour::{Outcome, cpio, ensure};

/// The page of `web`, and its definition.
const PAGE: &str = "_config/web/srv/www/index.html";
const RUN: &str = "web/run.json";

/// Goes there and back with each of these binaries; whether all claims held.
pub fn walk(kit: &Kit, folder: &Path, binaries: &[std::path::PathBuf]) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    let mut report = Report::of("another release on this one's storage");
    for (number, binary) in binaries.iter().enumerate() {
        let name = binary.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = folder.join(number.to_string());
        let mut log = folder.join("serial.log");
        let held = report.step(&name, |report| {
            let mut lab = Lab::switch_on(kit, &folder)?;
            log = lab.device.log();
            there_and_back(&mut lab, &std::fs::read(binary)?, &name, report)
        });
        if !held {
            println!("      the kernel's log: {}", log.display());
        }
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    Ok(held)
}

fn there_and_back(lab: &mut Lab, other: &[u8], name: &str, report: &mut Report) -> Outcome<()> {
    let ours = lab.file(INITRD)?;
    let with = |init: &[u8]| cpio::with_program(ours.clone(), "init", init);
    let theirs = with(other);
    ensure(theirs != ours, || "the binaries are the same".into())?;

    // What this release writes: a commit in place, a failure with its reason.
    committed(lab, page(1), "a page, by this release")?;
    let change = unhealthy(lab)?;
    failed(lab, change, "a base that misses its goals")?;
    let rev = committed(lab, vec![(INITRD, theirs.clone())], "the other release")?;
    report.held(name, &format!("it runs {rev} on what this release wrote: tried, committed"));

    // The same the other way round, beginning with what a rollback is.
    let mut change = unhealthy(lab)?;
    change.push((INITRD, ours.clone()));
    failed(lab, change, "this release, which misses its goals")?;
    report.held(name, "this release as a candidate fails, and the other one is back and says why");
    lab.folder().and_then(|folder| Ok(std::fs::write(folder.join(INITRD), &theirs)?))?;
    let rev = committed(lab, page(2), "a page, by the other release")?;
    report.held(name, &format!("it updates itself in place to {rev}"));
    let rev = committed(lab, vec![(INITRD, with(&current(lab)?))], "this release again")?;
    lab.folder().and_then(|folder| Ok(std::fs::write(folder.join(INITRD), &ours)?))?;
    let before = lab.env()?;
    lab.device.cut();
    lab.starts()?;
    lab.is_back(&rev, &before)?;
    report.held(name, &format!("this release runs {rev} on what the other one wrote, also after a power cut"));
    Ok(())
}

/// The binary of the kit.
fn current(lab: &Lab) -> Outcome<Vec<u8>> {
    Ok(std::fs::read(lab.device.kit_folder().join("switchback"))?)
}

/// An update that is committed; its revision.
fn committed(lab: &mut Lab, change: Change, message: &str) -> Outcome<String> {
    let rev = lab.install(change, message)?;
    let ended = lab.ended(&rev)?;
    ensure(ended.status == "DONE", || format!("{message}: {ended:?}"))?;
    let env = lab.env()?;
    ensure(env.rev == rev && !env.armed, || format!("{message}: the environment is {env:?}"))?;
    lab.is_back(&rev, &env)?;
    Ok(rev)
}

/// An update that fails of its goals, and is gone back from.
fn failed(lab: &mut Lab, change: Change, message: &str) -> Outcome<()> {
    let before = lab.env()?;
    let rev = lab.install(change, message)?;
    let ended = lab.ended(&rev)?;
    let as_told = ended.status == "ERROR" && ended.code == Code::GoalsMissed.to_string();
    ensure(as_told, || format!("{message}: {ended:?}"))?;
    let env = lab.env()?;
    ensure(env.rev == before.rev && env.candidate.is_empty(), || format!("{message}: the environment is {env:?}"))?;
    lab.is_back(&before.rev, &env)
}

fn page(number: u32) -> Change {
    vec![(PAGE, format!("<h1>page {number}</h1>\n").into_bytes())]
}

/// Another base with a container that never says that it is ready.
fn unhealthy(lab: &mut Lab) -> Outcome<Change> {
    let mut change = lab.another_base()?;
    let mut run: Value = serde_json::from_slice(&lab.file(RUN)?)?;
    run["status_goal"] = "READY".into();
    change.push((RUN, run.to_string().into_bytes()));
    Ok(change)
}
