//! What is broken, and what must come of it.

use std::collections::BTreeMap;

use runtime::fault::Code;
use serde_json::Value;

use super::Case;
use super::damage::{SUPERBLOCK, check, debugfs, mark, put_back, remove_partition, ruin, superblock_of, zero};
use crate::tour::device::Device;
use crate::tour::disk::Part;
use crate::tour::{Outcome, ensure};

/// Longest time from power to an answer, a repair included; seconds.
const BOOT_S: u64 = 180;
/// What a power cut leaves whole.
const SECTOR: usize = 512;
/// A file that somebody kept on storage, and what it holds.
const KEPT: (&str, &str) = ("/kept.txt", "kept by somebody\n");

/// All of them.
pub const CASES: &[Case] = &[
    Case { name: "marked", about: "storage is marked as damaged, and a bitmap is wrong", repairs: true, run: marked },
    Case {
        name: "orphan",
        about: "a folder of storage is destroyed, and what was in it is nowhere",
        repairs: true,
        run: orphan,
    },
    Case {
        name: "superblock",
        about: "storage's superblock is gone, its copies are there",
        repairs: true,
        run: superblock,
    },
    Case {
        name: "torn-boot",
        about: "a cut tore the boot partition's superblock as it was mounted, and there is no e2fsck",
        repairs: false,
        run: torn_boot,
    },
    Case {
        name: "torn-storage",
        about: "a cut tore storage's superblock as it was unmounted, and there is no e2fsck",
        repairs: false,
        run: torn_storage,
    },
    Case {
        name: "torn",
        about: "a cut tore the boot partition's superblock; e2fsck is there, and is not asked",
        repairs: true,
        run: torn_boot,
    },
    Case { name: "boot", about: "the boot partition is marked as damaged", repairs: true, run: boot },
    Case {
        name: "unrepaired",
        about: "storage is marked as damaged, and there is no e2fsck",
        repairs: false,
        run: unrepaired,
    },
    Case { name: "nothing", about: "nothing of storage's file system is left", repairs: true, run: nothing },
    Case { name: "no-partition", about: "storage's partition is not in the table", repairs: true, run: no_partition },
    Case {
        name: "elsewhere",
        about: "storage does not mount, there is no e2fsck; its owner repairs it",
        repairs: false,
        run: elsewhere,
    },
];

fn marked(device: &mut Device) -> Outcome<String> {
    let storage = device.disk.storage;
    let before = objects(device)?;
    // Ten blocks in the middle of free space count as used.
    debugfs(device, storage, &["setb 30000 10"])?;
    mark(device, storage)?;
    ensure(check(device, storage)? & 4 != 0, || "the host's e2fsck finds nothing wrong".into())?;
    repaired(device, Code::Repaired, &before)?;
    Ok(format!("READY, {} {}", Code::Repaired, Code::Repaired.text()))
}

fn orphan(device: &mut Device) -> Outcome<String> {
    let storage = device.disk.storage;
    let before = objects(device)?;
    let file = device.folder().join("kept.txt");
    std::fs::write(&file, KEPT.1)?;
    debugfs(device, storage, &["mkdir /folder", &format!("write {} /folder/kept.txt", file.display())])?;
    debugfs(device, storage, &["clri /folder"])?;
    mark(device, storage)?;
    ensure(check(device, storage)? & 4 != 0, || "the host's e2fsck finds nothing wrong".into())?;
    repaired(device, Code::RepairedWithLoss, &before)?;
    let (disk, scratch) = (&device.disk, device.folder());
    let snapshot = disk.storage(scratch)?;
    let found = snapshot.names("/lost+found")?;
    let kept = found.iter().map(|name| snapshot.read(&format!("/lost+found/{name}"))).collect::<Outcome<Vec<_>>>()?;
    ensure(kept.iter().flatten().any(|text| text == KEPT.1), || format!("not in lost+found: {found:?}"))?;
    Ok(format!("READY, {}; the file is in lost+found", Code::RepairedWithLoss))
}

fn superblock(device: &mut Device) -> Outcome<String> {
    let storage = device.disk.storage;
    let before = objects(device)?;
    zero(device, storage, SUPERBLOCK)?;
    repaired(device, Code::RepairedWithLoss, &before)?;
    Ok(format!("READY, {}", Code::RepairedWithLoss))
}

/// Of the write as the file system was mounted its first sector is there, the second is that of before.
fn torn_boot(device: &mut Device) -> Outcome<String> {
    let boot = device.disk.boot;
    let before = objects(device)?;
    let old = superblock_of(&device.disk, boot)?;
    runs(device, None, &before)?;
    device.cut();
    let new = superblock_of(&device.disk, boot)?;
    tear(device, boot, &new[..SECTOR], &old[SECTOR..])?;
    mended(device, boot, &before)
}

/// Of the last write, as the file system was unmounted, its second sector is there, the first is that of before.
fn torn_storage(device: &mut Device) -> Outcome<String> {
    let storage = device.disk.storage;
    let before = objects(device)?;
    runs(device, None, &before)?;
    let old = device.frozen(|disk, _| superblock_of(disk, storage))?;
    device.control("cmd poweroff")?;
    device.is_off(BOOT_S)?;
    let new = superblock_of(&device.disk, storage)?;
    tear(device, storage, &old[..SECTOR], &new[SECTOR..])?;
    mended(device, storage, &before)
}

/// A superblock of two sectors that do not belong together.
fn tear(device: &Device, part: Part, first: &[u8], second: &[u8]) -> Outcome<()> {
    put_back(device, part, SUPERBLOCK.0, &[first, second].concat())
}

/// A start mends it without being asked, says so, and has all that it had.
fn mended(device: &mut Device, part: Part, before: &BTreeMap<String, String>) -> Outcome<String> {
    ensure(check(device, part)? != 0, || "the host's e2fsck finds nothing wrong".into())?;
    repaired(device, Code::SuperblockMended, before)?;
    Ok(format!("READY, {} {}", Code::SuperblockMended, Code::SuperblockMended.text()))
}

fn boot(device: &mut Device) -> Outcome<String> {
    let before = objects(device)?;
    mark(device, device.disk.boot)?;
    repaired(device, Code::Repaired, &before)?;
    Ok(format!("READY, {}", Code::Repaired))
}

fn unrepaired(device: &mut Device) -> Outcome<String> {
    let before = objects(device)?;
    mark(device, device.disk.storage)?;
    runs(device, Some(Code::StillDamaged), &before)?;
    Ok(format!("READY, {} {}", Code::StillDamaged, Code::StillDamaged.text()))
}

fn nothing(device: &mut Device) -> Outcome<String> {
    ruin(device, device.disk.storage)?;
    rescue(device, Code::Unmountable)?;
    // Longer than its watchdog waits: nobody is reset for ever.
    let patience = device.wait_status("its watchdog", BOOT_S, |_| true)?["watchdog"]["timeout_s"].as_u64().unwrap_or(0);
    ensure(patience > 0, || "it has no watchdog".into())?;
    let later = |status: &Value| status["now_ms"].as_u64().is_some_and(|now| now > (patience + 10) * 1000);
    device.wait_status("an answer after the watchdog's time", BOOT_S, later)?;
    let starts = device.said("Starting kernel");
    ensure(starts == 1, || format!("the kernel was started {starts} times"))?;
    Ok(format!("console and control socket answer, {}; {patience} s and more, and no reset", Code::Unmountable))
}

fn no_partition(device: &mut Device) -> Outcome<String> {
    remove_partition(device)?;
    rescue(device, Code::PartitionMissing)?;
    Ok(format!("console and control socket answer, {}", Code::PartitionMissing))
}

fn elsewhere(device: &mut Device) -> Outcome<String> {
    let storage = device.disk.storage;
    let before = objects(device)?;
    let bytes = zero(device, storage, SUPERBLOCK)?;
    rescue(device, Code::Unmountable)?;
    device.cut();
    put_back(device, storage, SUPERBLOCK.0, &bytes)?;
    runs(device, None, &before)?;
    Ok(format!("{}; READY when it is repaired, with all that it had", Code::Unmountable))
}

/// Every object with its hash.
fn objects(device: &Device) -> Outcome<BTreeMap<String, String>> {
    let objects = device.disk.storage(device.folder())?.hashes(&["/objects"])?;
    ensure(!objects.is_empty(), || "there are no objects".into()).map(|()| objects)
}

/// The device repairs what is broken, says so, and runs with all that it had; the next start has nothing to repair.
fn repaired(device: &mut Device, code: Code, before: &BTreeMap<String, String>) -> Outcome<()> {
    runs(device, Some(code), before)?;
    device.control("cmd poweroff")?;
    device.is_off(BOOT_S)?;
    for part in [device.disk.boot, device.disk.storage] {
        let found = check(device, part)?;
        ensure(found == 0, || format!("it was repaired, and e2fsck still finds something wrong ({found})"))?;
    }
    runs(device, None, before)
}

/// READY, with these objects, and this to say of storage.
fn runs(device: &mut Device, code: Option<Code>, before: &BTreeMap<String, String>) -> Outcome<()> {
    device.power_on()?;
    let status = device.wait_status("the device READY", BOOT_S, |status| status["status"] == "READY")?;
    let storage = &status["storage"];
    let told = storage["code"].as_str().map(str::to_owned);
    ensure(storage["mounted"] == true && told == code.map(|code| code.to_string()), || {
        format!("of storage it says {storage}, not {code:?}")
    })?;
    ensure(code.is_none() || storage["next"].is_string(), || format!("no next step: {storage}"))?;
    let after = device.frozen(|disk, scratch| disk.storage(scratch)?.hashes(&["/objects"]))?;
    ensure(after == *before, || format!("changed: {}", crate::tour::disk::difference(before, &after)))
}

/// No storage: what can be asked is answered, what cannot be done is refused, and nothing is written.
fn rescue(device: &mut Device, code: Code) -> Outcome<()> {
    device.power_on()?;
    let status = device.wait_status("an answer", BOOT_S, |_| true)?;
    let storage = &status["storage"];
    let as_told = storage["mounted"] == false && storage["code"] == code.to_string() && storage["next"].is_string();
    ensure(as_told && status["status"] == "DEGRADED" && status["revision"] == "0", || format!("it says {status}"))?;
    ensure(status["allocations"] == 0, || format!("PID 1 allocated: {}", status["allocations"]))?;
    let refused = device.control("steps ls")?;
    ensure(refused.code != 0 && refused.text.contains(&code.to_string()), || format!("steps ls: {refused:?}"))?;
    for words in ["limits", "ls"] {
        let answer = device.control(words)?;
        ensure(answer.code == 0, || format!("{words}: {answer:?}"))?;
    }
    let env = device.frozen(|disk, _| disk.env())?;
    ensure(env.rev == "0" && !env.armed, || format!("the environment is {env:?}"))
}
