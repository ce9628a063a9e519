//! What the emulated device says of itself: memory of every process of ours, of the device when it is READY and while
//! it installs 30 MB, PID 1's wake-ups, its longest turn while the disk is busy, and what a control request takes.
//!
//! Invariants: the device measures, and only the device: no figure contains the emulator's network or serial line. A
//! control request's time is taken by a container with its own clock. Everything is emulated without KVM: times are
//! upper bounds.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Row;
use crate::bad_input::control::Control;
use crate::bad_input::fixture::{Factory, build};
use crate::tour::device::{Device, Kit};
use crate::tour::pvr::Work;
use crate::tour::steps::noise;
use crate::tour::{Outcome, fail, wait_for};

/// Longest time from power to READY; seconds.
const BOOT_S: u64 = 180;
/// Longest time of one update; seconds.
const UPDATE_S: u64 = 240;
/// How long nobody asks anything while wake-ups are counted.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of the object.
const LARGE: usize = 30_000_000;
/// Control requests that are timed, and the middle one counts.
const REQUESTS: u8 = 201;

/// The demonstration device, alone and while it installs a large object.
pub(super) fn rows(kit: &Kit, folder: &Path) -> Outcome<Vec<Row>> {
    let mut device = Device::new(kit, folder)?;
    device.power_on()?;
    let ready = device.wait_status("the device READY", BOOT_S, |status| status["status"] == "READY")?;
    let mut rows = vec![Row::new("exec of PID 1 to READY, four containers", number(&ready, "/ready_ms")?, "ms")];
    // What is started is written back, and what was read is forgotten: figures of a device that rests.
    let wakeups = idle_wakeups(&device)?;
    let idle = status(&device)?;
    rows.push(Row::new("allocations of PID 1 since start-up", number(&idle, "/allocations")?, "").budget(0.0));
    rows.push(Row::new("wake-ups of PID 1, idle", wakeups, "/s").budget(0.2));
    rows.extend(memory(&idle)?);
    rows.push(Row::new("MemTotal of 64 MB", number(&idle, "/memory/total_kb")?, "kB"));
    rows.push(Row::new("MemAvailable, READY", number(&idle, "/memory/available_kb")?, "kB"));
    rows.extend(install(&device)?);
    Ok(rows)
}

fn status(device: &Device) -> Outcome<Value> {
    device.control("status --json")?.json()
}

fn number(document: &Value, at: &str) -> Outcome<f64> {
    let found = document.pointer(at).and_then(Value::as_f64);
    found.ok_or_else(|| format!("the status lacks {at}: {document}").into())
}

/// Wake-ups per second while nobody asks. What two questions cost that follow each other at once is taken off.
fn idle_wakeups(device: &Device) -> Outcome<f64> {
    let [first, second] = [status(device)?, status(device)?];
    std::thread::sleep(IDLE);
    let last = status(device)?;
    let between =
        |from: &Value, to: &Value, what: &str| -> Outcome<f64> { Ok(number(to, what)? - number(from, what)?) };
    let asking = between(&first, &second, "/wakeups")?;
    let seconds = between(&second, &last, "/now_ms")? / 1000.0;
    Ok(((between(&second, &last, "/wakeups")? - asking).max(0.0) / seconds * 1000.0).round() / 1000.0)
}

/// Proportional and private memory of every process of ours.
fn memory(status: &Value) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let mut all = [0.0, 0.0];
    for process in status["processes"].as_array().ok_or("the status names no processes")? {
        let name = process["name"].as_str().unwrap_or("?");
        let [proportional, private] = [number(process, "/pss_kb")?, number(process, "/private_kb")?];
        all = [all[0] + proportional, all[1] + private];
        let row = Row::new(format!("PSS of {name}"), proportional, "kB");
        rows.push(if process["pid"] == 1 { row.budget(600.0) } else { row });
        rows.push(Row::new(format!("private memory of {name}"), private, "kB"));
    }
    rows.push(Row::new("PSS of all our processes", all[0], "kB").budget(4000.0));
    rows.push(Row::new("private memory of all our processes", all[1], "kB"));
    Ok(rows)
}

/// Installs a large object in place, asking for the status all the time.
fn install(device: &Device) -> Outcome<Vec<Row>> {
    let url = format!("http://127.0.0.1:{}", device.ports.endpoint);
    let work = Work::clone(&device.pvr(), &url, device.folder())?;
    work.write("_config/web/srv/www/large.bin", noise(1, LARGE))?;
    work.commit("a large file")?;
    status(device)?; // from here on the longest turn is that of the update
    let posting = work.post_behind(device.ports.endpoint, "a large file")?;
    let mut least = f64::MAX;
    let mut longest = 0.0_f64;
    let mut fetch = [0.0_f64; 2];
    let begun = Instant::now();
    loop {
        let status = status(device)?;
        least = least.min(number(&status, "/memory/available_kb")?);
        longest = longest.max(number(&status, "/longest_turn_us")?);
        for process in status["processes"].as_array().into_iter().flatten().filter(|one| one["name"] == "fetch") {
            // One that is just being started or is ending has no figures.
            if let (Ok(proportional), Ok(private)) = (number(process, "/pss_kb"), number(process, "/private_kb")) {
                fetch = [fetch[0].max(proportional), fetch[1].max(private)];
            }
        }
        match status["update"]["status"].as_str() {
            Some("DONE") => break,
            Some("ERROR" | "WONTGO") => return fail(format!("the large object: {status}")),
            _ if begun.elapsed().as_secs() > UPDATE_S => return fail(format!("no end of the update: {status}")),
            _ => {}
        }
    }
    drop(posting);
    if fetch[0] == 0.0 {
        return fail("no fetch was seen at work".into());
    }
    Ok(vec![
        Row::new("PSS of fetch, at most", fetch[0], "kB"),
        Row::new("private memory of fetch, at most", fetch[1], "kB"),
        Row::new("MemAvailable, least while 30 MB are installed", least, "kB"),
        Row::new("longest turn of PID 1 meanwhile", longest / 1000.0, "ms").budget(20.0),
    ])
}

/// What a control request takes, from connect to the end of the answer, asked by a container of another device.
pub(super) fn requests(kit: &Kit, probe: &Path, folder: &Path) -> Outcome<Vec<Row>> {
    let kit = build(kit, probe, &folder.join("steady"), Factory::Steady)?;
    let mut device = Device::new(&kit, folder)?;
    device.power_on()?;
    let manager = Control { port: device.ports.web };
    wait_for("containers that run", BOOT_S, || Ok(manager.containers()?.contains_key("patient").then_some(())))?;
    let mut rows = Vec::new();
    for (what, path) in [("containers ls", "/containers"), ("status, with the memory of every process", "/status")] {
        let request = format!("GET {path} HTTP/1.1\r\n\r\n");
        let micros = manager.timed(REQUESTS, request.as_bytes())?;
        let row = Row::new(format!("control request, median: {what}"), micros / 1000.0, "ms");
        rows.push(if path == "/containers" { row.budget(1.0) } else { row });
    }
    Ok(rows)
}
