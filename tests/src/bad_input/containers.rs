//! Containers that cannot live, and objects that do not fit.

use runtime::fault::Code;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fixture::{ROOM, configuration};
use super::ground::Ground;
use crate::tour::disk::hex;
use crate::tour::report::Report;
use crate::tour::steps::noise;
use crate::tour::{Outcome, ensure, wait_for};

/// The container that cases break.
const PATIENT: &str = "patient";
/// Longest time of an update in place and its way back; seconds.
const UPDATE_S: u64 = 90;

/// Updates in place that bring a container which cannot live.
pub fn roll_back(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let no_init = configuration(PATIENT, "/nothing/here").into_bytes();
    let ends = configuration(PATIENT, "/bin/probe end").into_bytes();
    let cases = [
        ("an init that does not exist", "no-init", "lxc.container.conf", no_init, Code::InitMissing),
        ("a root that is no file system", "no-root", "root.squashfs", noise(2, 200_000), Code::ImageInvalid),
        ("a container that exits at once for ever", "ends", "lxc.container.conf", ends, Code::ContainerExited),
    ];
    for (what, name, file, content, code) in cases {
        let mut state = ground.manager.get("/steps/current")?;
        state[format!("{PATIENT}/{file}")] = put(ground, &content)?.into();
        let update = install(ground, name, &state)?;
        let text = |key: &str| update[key].as_str().unwrap_or_default().to_string();
        ensure(text("status") == "ERROR" && text("code") == code.to_string() && text("container") == PATIENT, || {
            format!("{what}: expected ERROR {code} of {PATIENT}, got {update}")
        })?;
        ground.goes_on().map_err(|error| format!("{what}: {error}"))?;
        ground.is_committed("0").map_err(|error| format!("{what}: {error}"))?;
        lives(ground, PATIENT)?;
        report.held("run", &format!("{what}: ERROR {code}, {}; rolled back in place", text("reason")));
    }
    Ok(())
}

/// Objects until the disk is full; then one that fits once nothing of them is left: 30 MB on a device with 64 MB.
pub fn fill_the_disk(ground: &Ground, report: &mut Report) -> Outcome<()> {
    // Fits, and would leave no room for what comes at the end.
    let first = noise(3, 24_000_000);
    put(ground, &first)?;
    let second = format!("PUT /objects/{} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", "ef".repeat(32), ROOM << 20);
    let answer = ground.manager.raw(&[second.as_bytes(), &noise(4, 400_000)].concat())?;
    ground.refused(report, "disk", "full while objects arrive", &answer, Code::NoSpace)?;
    ground.no_upload_remains()?;
    let mut state = ground.manager.get("/steps/current")?;
    let third = noise(5, 30_000_000);
    state[format!("_config/{PATIENT}/srv/large.bin")] = put(ground, &third)?.into();
    let update = install(ground, "large", &state)?;
    ensure(update["status"] == "DONE", || format!("a 30 MB object: {update}"))?;
    ground.goes_on()?;
    ground.is_committed("locals/large")?;
    lives(ground, PATIENT)?;
    report.held("disk", "nothing of it remains; after it a 30 MB object is installed in 64 MB: DONE");
    Ok(())
}

/// A container that fills the disk: the device goes on, tells it to who sends something, and commits nothing less.
pub fn be_filled(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let mut state = ground.manager.get("/steps/current")?;
    let fills = configuration(PATIENT, "/bin/probe fill").into_bytes();
    state[format!("{PATIENT}/lxc.container.conf")] = put(ground, &fills)?.into();
    let update = install(ground, "fills", &state)?;
    ensure(update["status"] == "DONE", || format!("a container that fills the disk: {update}"))?;
    ground.is_committed("locals/fills")?;
    let settled = Ground::of(ground.device)?;
    let answer = wait_for("an upload that finds no room", UPDATE_S, || {
        let name = hex(&Sha256::digest(b"small"));
        let answer = settled.manager.send("PUT", &format!("/objects/{name}"), Some(b"small"))?;
        Ok((answer.status != 200).then_some(answer))
    })?;
    settled.refused(report, "fill", "an upload beside a container that filled the disk", &answer, Code::NoSpace)?;
    let text = state.to_string();
    let answer = settled.manager.send("PUT", "/steps/locals/more", Some(text.as_bytes()))?;
    settled.refused(report, "fill", "a revision beside it", &answer, Code::NoSpace)
}

/// A factory revision with three containers that cannot live: each tells why, and the others live.
pub fn live_beside(ground: &Ground, report: &mut Report) -> Outcome<()> {
    for (name, code) in [("no-init", Code::InitMissing), ("no-root", Code::ImageInvalid)] {
        let container = wait_for(&format!("{name} given up"), UPDATE_S, || {
            Ok(ground.manager.containers()?.remove(name).filter(|container| container["code"] == code.to_string()))
        })?;
        ensure(container["status"] == "STOPPED", || format!("{name}: {container}"))?;
        report.held("first", &format!("{name} of the factory revision: {code}, {}", container["reason"]));
    }
    let crash = wait_for("four starts of a container that exits at once", UPDATE_S, || {
        let container = ground.manager.containers()?.remove("crash");
        Ok(container.filter(|container| container["restarts"].as_u64() >= Some(3)))
    })?;
    // The n-th restart comes a second, then two, then four after a fall: there cannot be many yet.
    ensure(crash["restarts"].as_u64() <= Some(8), || format!("it is started without a pause: {crash}"))?;
    lives(ground, PATIENT)?;
    ground.is_unchanged()?;
    ground.is_committed("0")?;
    report.held("first", &format!("crash of the factory revision: started again {} times", crash["restarts"]));
    Ok(())
}

/// Waits until a container runs.
fn lives(ground: &Ground, name: &str) -> Outcome<()> {
    wait_for(&format!("{name} STARTED"), UPDATE_S, || {
        let container = ground.manager.containers()?.remove(name);
        Ok(container.filter(|container| container["status"] == "STARTED").map(drop))
    })
}

/// Hands in an object; its name.
fn put(ground: &Ground, content: &[u8]) -> Outcome<String> {
    let name = hex(&Sha256::digest(content));
    ground.manager.granted("PUT", &format!("/objects/{name}"), content)?;
    Ok(name)
}

/// Hands in a state, runs it, and follows it to its end: the update as `/status` has it.
fn install(ground: &Ground, name: &str, state: &Value) -> Outcome<Value> {
    let rev = format!("locals/{name}");
    ground.manager.granted("PUT", &format!("/steps/{rev}"), state.to_string().as_bytes())?;
    let command = format!(r#"{{"op":"LOCAL_RUN","payload":"{rev}"}}"#);
    ground.manager.granted("POST", "/commands", command.as_bytes())?;
    wait_for(&format!("the end of the update to {rev}"), UPDATE_S, || {
        let update = ground.manager.get("/status")?["update"].clone();
        let ended = ["DONE", "ERROR", "WONTGO"].iter().any(|status| update["status"] == *status);
        Ok((update["revision"] == rev && ended).then_some(update))
    })
}
