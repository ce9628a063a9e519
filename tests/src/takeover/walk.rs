//! What is seen of a device of the original that is taken over: by an update that the original installed, and in place.
//!
//! Invariants: the loader is real and runs the original's rules; which revision it booted is read from its own words, what is
//! in force from the text as a loader reads it, without the file system's journal. Files that are not ours are compared at
//! the end of everything.
//! Fault model: the power is cut by ending the emulator.

use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::fault::Code;

use super::original::{self, OURS, Revision, SBIN, THEIRS, UNTOUCHED, hash};
use crate::rollback::candidates::told_to;
use crate::rollback::lab::{Change, INITRD, KERNEL, Lab};
use crate::tour::device::{Device, Kit};
use crate::tour::disk::{Disk, Env};
use crate::tour::report::Report;
use crate::tour::{Outcome, cpio, ensure, wait_for};

/// Walks all of it with the kit's device, in `folder`; whether everything held.
pub fn walk(kit: &Kit, folder: &Path) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    let mut report = Report::of("takeover");
    let mut taken = None;
    let held = report.step("1", |report| {
        taken = Some(by_an_update(kit, folder, report)?);
        Ok(())
    });
    if let (true, Some(lab)) = (held, &mut taken) {
        type Step = fn(&mut Lab, &mut Report) -> Outcome<()>;
        let steps: [(&str, Step); 5] = [("2", base), ("3", failed), ("4", in_place), ("5", cut), ("6", collected)];
        for (name, step) in steps {
            if !report.step(name, |report| step(lab, report)) {
                break;
            }
        }
    }
    drop(taken);
    report.step("7", |report| goes_back(kit, folder, report));
    report.step("8", |report| as_it_is(kit, folder, report));
    report.step("9", |report| left_alone(kit, folder, report));
    report.step("10", |report| fit(kit, folder, report));
    Ok(report.close())
}

fn env(rev: &str, candidate: &str, prev: &str) -> Env {
    Env { rev: rev.into(), candidate: candidate.into(), prev: prev.into(), armed: !candidate.is_empty(), bootcount: 0 }
}

/// Fails unless the text that the loader reads says this, and can be overwritten in place.
fn says(disk: &Disk, expected: &Env) -> Outcome<()> {
    let (text, found) = (disk.env_bytes()?, disk.env()?);
    ensure(found == *expected, || format!("uboot.txt says {found:?}, not {expected:?}"))?;
    ensure(text.len() == runtime::store::taken::TEXT_SIZE, || format!("uboot.txt has {} bytes", text.len()))
}

/// Fails unless everything that is not ours is as the original left it, and the file system is whole.
fn untouched(disk: &Disk, scratch: &Path) -> Outcome<()> {
    let storage = disk.storage(scratch)?;
    for (name, content) in UNTOUCHED {
        let found = storage.read(&format!("/{name}"))?;
        ensure(found.as_deref() == Some(*content), || format!("{name} was {content:?} and is {found:?}"))?;
    }
    let image = scratch.join("storage.ext4");
    let output = Command::new("e2fsck").env("PATH", SBIN).arg("-fn").arg(&image).output()?;
    ensure(output.status.success(), || format!("e2fsck: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Fails unless each boot asset of a revision, as the loader reads it, is the object of that file.
fn sees_assets(disk: &Disk, rev: &str, files: &[(&str, &[u8])]) -> Outcome<()> {
    for (name, content) in files {
        let found = disk.as_the_loader_reads(&format!("/trails/{rev}/.pv/{name}"))?;
        ensure(found == *content, || format!("the loader finds another {name} in {rev}"))?;
    }
    Ok(())
}

/// The original has installed an update with our base: it is armed, and the device restarts.
fn by_an_update(kit: &Kit, folder: &Path, report: &mut Report) -> Outcome<Lab> {
    let image = folder.join("update.img");
    let revisions = [Revision::original(kit, THEIRS, folder)?, Revision::of(kit, OURS)?];
    original::make(folder, &revisions, &original::text("pv_rev=0 pv_try=1 pv_prevx=kept"), &image)?;
    let mut lab = Lab::with(kit, Device::with_disk(kit, &folder.join("update"), &image)?)?;
    lab.starts()?;
    committed(&lab, "1")?;
    ensure(lab.boots_of("1") == 1 && lab.boots_of("0") == 0, || "it did not boot 1, once".into())?;
    let mark = mark(&lab.device.disk.image)?;
    ensure(mark == "pv_trying=1\n\0", || format!("the loader's mark is {mark:?}"))?;
    lab.device.frozen(|disk, scratch| {
        says(disk, &env("1", "", "0"))?;
        let text = disk.env_bytes()?;
        ensure(text.starts_with(b"pv_rev=1\0pv_prev=0\0pv_prevx=kept\0\0"), || format!("{:?}", &text[..64]))?;
        untouched(disk, scratch)
    })?;
    report.held(
        "1",
        "the original's update to our base was tried by its loader and committed; what is not ours is as it was",
    );
    lab.take_copy()?;
    Ok(lab)
}

/// What the loader keeps in its FAT.
fn mark(image: &Path) -> Outcome<String> {
    let at = format!("{}@@{}", image.display(), 1 << 20);
    let output = Command::new("mtype").env("MTOOLS_SKIP_CHECK", "1").args(["-i", &at, "::pv.env"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until the device runs this revision, committed.
fn committed(lab: &Lab, rev: &str) -> Outcome<()> {
    let what = format!("revision {rev} committed");
    let all = |status: &serde_json::Value| {
        status["status"] == "READY" && status["revision"] == rev && status["committed"] == rev
    };
    lab.device.wait_status(&what, 240, all).map(drop)
}

/// Installs what must be committed; its revision.
fn succeeds(lab: &mut Lab, change: Change, message: &str) -> Outcome<String> {
    let rev = lab.install(change, message)?;
    let ended = lab.ended(&rev)?;
    ensure(ended.status == "DONE", || format!("{rev} ended as {ended:?}"))?;
    committed(lab, &rev)?;
    Ok(rev)
}

/// A new base, received by us: tried by a restart and committed, its boot assets where the original has them.
fn base(lab: &mut Lab, report: &mut Report) -> Outcome<()> {
    let before = lab.env()?.rev;
    let change = lab.another_base()?;
    let (kernel, initrd) = (lab.file(KERNEL)?, change[0].1.clone());
    let rev = succeeds(lab, change, "a base")?;
    ensure(lab.boots_of(&rev) == 1, || format!("{rev} was booted {} times", lab.boots_of(&rev)))?;
    lab.device.frozen(|disk, scratch| {
        says(disk, &env(&rev, "", &before))?;
        sees_assets(disk, &rev, &[("pv-kernel.img", &kernel), ("pv-initrd.img", &initrd)])?;
        let storage = disk.storage(scratch)?;
        ensure(!storage.exists("/boot/objects")? && !storage.exists("/boot/trails")?, || {
            "boot assets were copied to a place where this loader does not look".into()
        })?;
        ensure(storage.exists(&format!("/objects/{}", hash(&initrd)))?, || "its initramfs is no object".into())
    })?;
    report.held("2", "an update with a new base was tried by a restart and committed, its assets in trails/REV/.pv");
    Ok(())
}

/// Two bases that fail: one dies before it records anything, one misses its goals.
fn failed(lab: &mut Lab, report: &mut Report) -> Outcome<()> {
    let before = lab.env()?;
    let mut unhealthy = lab.another_base()?;
    let mut run: serde_json::Value = serde_json::from_slice(&lab.file("web/run.json")?)?;
    run["status_goal"] = "READY".into();
    unhealthy.push(("web/run.json", run.to_string().into_bytes()));
    let mut codes = Vec::new();
    for (change, message) in [(told_to(lab, "crash")?, "dies"), (unhealthy, "misses its goals")] {
        let rev = lab.install(change, message)?;
        let ended = lab.ended(&rev)?;
        ensure(ended.status == "ERROR" && lab.boots_of(&rev) == 1, || {
            format!("{rev} ended as {ended:?}, booted {} times", lab.boots_of(&rev))
        })?;
        lab.is_back(&before.rev, &before)?;
        codes.push(ended.code);
    }
    lab.device.frozen(|disk, _| says(disk, &before))?;
    report.held(
        "3",
        &format!("a base that dies and one that misses its goals went back after one try: {}", codes.join(", ")),
    );
    Ok(())
}

/// One container is replaced, without a restart.
fn in_place(lab: &mut Lab, report: &mut Report) -> Outcome<()> {
    lab.take_copy()?; // of what runs: another base is a restart
    let before = lab.env()?.rev;
    let loaded = lab.device.said("PV boot ");
    let rev = succeeds(lab, page(1), "in place")?;
    ensure(lab.device.said("PV boot ") == loaded, || "the device restarted".into())?;
    lab.device.frozen(|disk, _| says(disk, &env(&rev, "", &before)))?;
    report.held("4", "an update in place was committed by one store of uboot.txt, without a restart");
    Ok(())
}

/// A page that was never served before.
fn page(number: u32) -> Change {
    vec![("_config/web/srv/www/index.html", format!("<h1>page {number}</h1>\n").into_bytes())]
}

/// The power goes as soon as the loader would try a candidate: it is tried, and committed.
fn cut(lab: &mut Lab, report: &mut Report) -> Outcome<()> {
    let before = lab.env()?.rev;
    let change = lab.another_base()?;
    let rev = lab.install(change, "cut while armed")?;
    lab.cut_when("a candidate armed", |env| env.candidate == rev)?;
    lab.device.power_on()?;
    committed(lab, &rev)?;
    lab.device.frozen(|disk, _| says(disk, &env(&rev, "", &before)))?;
    report.held("5", "the power was cut when the candidate was armed: it was tried, and committed");
    Ok(())
}

/// What no kept revision needs goes; the original's committed revision of before, the factory's, is kept.
fn collected(lab: &mut Lab, report: &mut Report) -> Outcome<()> {
    lab.take_copy()?;
    for number in 2..4 {
        succeeds(lab, page(number), "before the collection")?;
    }
    let kept = lab.env()?;
    let there = |lab: &Lab, rev: &str| {
        lab.device.frozen(|disk, scratch| disk.storage(scratch)?.exists(&format!("/trails/{rev}/.pvr/json")))
    };
    ensure(there(lab, "1")?, || "there is nothing to collect".into())?;
    let ran = lab.device.control("storage gc")?;
    ensure(ran.code == 0, || format!("pvcontrol storage gc: {}", ran.text.trim()))?;
    wait_for("a collection", 60, || Ok((!there(lab, "1")?).then_some(())))?;
    for rev in [&kept.rev, &kept.prev, "0"] {
        ensure(there(lab, rev)?, || format!("{rev} was collected"))?;
    }
    lab.starts()?;
    lab.device.frozen(|disk, scratch| {
        says(disk, &kept)?;
        untouched(disk, scratch)
    })?;
    report.held("6", "what no kept revision needs was collected; it starts, and what is not ours is as it was");
    Ok(())
}

/// Our base in an update of the original that dies: its loader goes back to the original's revision.
fn goes_back(kit: &Kit, folder: &Path, report: &mut Report) -> Outcome<()> {
    let image = folder.join("dies.img");
    let ours = Revision::of(kit, "1")?;
    let initrd = cpio::with_file(ours.file(INITRD).to_vec(), "etc/switchback.fault", b"crash");
    let revisions = [Revision::original(kit, "0", folder)?, ours.with(INITRD, initrd)];
    original::make(folder, &revisions, &original::text("pv_rev=0 pv_try=1"), &image)?;
    let mut device = Device::with_disk(kit, &folder.join("dies"), &image)?;
    device.power_on()?;
    device.is_off(240)?; // the stub switches it off
    let booted = ["PV boot 1\r", "PV gives up 1\r", "PV boot 0\r"].map(|words| device.said(words));
    ensure(booted == [1, 1, 1], || format!("tried, given up, went back: {booted:?}"))?;
    ensure(device.said("STUB ") == 1, || "the original's revision did not run".into())?;
    // The original clears `pv_try` when it runs again; nothing of ours has.
    let found = device.disk.env()?;
    ensure(found == env("0", "1", ""), || format!("uboot.txt says {found:?}"))?;
    untouched(&device.disk, &folder.join("dies"))?;
    report.held("7", "our base died at once in the original's update: its loader went back to the original's revision");
    Ok(())
}

/// Our base as what is committed, on a text as short as a factory writes it.
fn as_it_is(kit: &Kit, folder: &Path, report: &mut Report) -> Outcome<()> {
    let image: PathBuf = folder.join("committed.img");
    original::make(folder, &[Revision::of(kit, "0")?], b"pv_rev=0\0\0", &image)?;
    let mut lab = Lab::with(kit, Device::with_disk(kit, &folder.join("committed"), &image)?)?;
    lab.starts()?;
    lab.device.frozen(|disk, scratch| {
        says(disk, &env("0", "", ""))?;
        untouched(disk, scratch)
    })?;
    lab.take_copy()?;
    let change = lab.another_base()?;
    let rev = succeeds(&mut lab, change, "a base")?;
    lab.device.frozen(|disk, _| says(disk, &env(&rev, "", "0")))?;
    report.held("8", "a storage with our base as its factory revision was taken over as it is, and updated");
    Ok(())
}

/// A text that does not fit into a sector stays as it is: what is committed runs, and nothing is armed.
fn left_alone(kit: &Kit, folder: &Path, report: &mut Report) -> Outcome<()> {
    let image = folder.join("long.img");
    let text = original::text(&format!("pv_rev=0 board={}", "x".repeat(600)));
    original::make(folder, &[Revision::of(kit, "0")?], &text, &image)?;
    let mut lab = Lab::with(kit, Device::with_disk(kit, &folder.join("long"), &image)?)?;
    let status = lab.starts()?;
    let (environment, code) = (&status["environment"], Code::EnvFull.to_string());
    ensure(environment["code"] == code.as_str() && environment["next"].is_string(), || {
        format!("the status does not say {code} and what to do: {environment}")
    })?;
    lab.take_copy()?;
    let refused = lab.install(page(1), "cannot be armed").err().map(|error| error.to_string());
    ensure(refused.as_ref().is_some_and(|said| said.contains(&code)), || {
        format!("not refused with {code}: {refused:?}")
    })?;
    lab.ready()?;
    lab.device.frozen(|disk, scratch| {
        ensure(disk.env_bytes()? == text, || "uboot.txt was changed".into())?;
        untouched(disk, scratch)
    })?;
    report.held(
        "9",
        &format!("a text that does not fit was left alone; revision 0 runs, status and refused update say {code}"),
    );
    Ok(())
}

/// Why a revision with a FIT image is refused: the loader boots that before the boot assets that we name.
fn fit(kit: &Kit, folder: &Path, report: &mut Report) -> Outcome<()> {
    let image = folder.join("fit.img");
    let ours = Revision::of(kit, "1")?.with("bsp/pantavisor.fit", b"none that boots".to_vec());
    original::make(
        folder,
        &[Revision::original(kit, "0", folder)?, ours],
        &original::text("pv_rev=0 pv_try=1"),
        &image,
    )?;
    let mut device = Device::with_disk(kit, &folder.join("fit"), &image)?;
    device.power_on()?;
    device.is_off(240)?; // the stub switches it off
    let booted = ["PV fit of 1\r", "PV boot 1\r", "PV gives up 1\r", "PV boot 0\r"].map(|words| device.said(words));
    ensure(booted == [1, 0, 1, 1], || format!("its FIT image, its kernel, given up, went back: {booted:?}"))?;
    ensure(device.said(&format!(" {}", original::OEM)) == 1, || "the stub does not see the vendor's words".into())?;
    report.held("10", "the loader boots a FIT image before the kernel that we name, which is why we refuse one");
    Ok(())
}
