//! The eleven steps of the tour, numbered 1 to 7.
//!
//! Each step begins with a device that is READY and leaves one behind. A step that does not hold is reported and the
//! next one is tried after a fresh start of the device, so that one fault does not hide the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::journal::Phase;
use serde_json::Value;

use super::device::{Device, Kit};
use super::disk::{Disk, Env};
use super::pvr::Work;
use super::report::Report;
use super::slow_link::{Rule, SlowLink};
use super::{Outcome, cpio, ensure, fail, http, wait_for};

/// Longest time from power to READY on a slow, busy machine; seconds.
const BOOT_S: u64 = 120;
/// Longest time of an update, its trial and a rollback by reboot; seconds.
const UPDATE_S: u64 = 240;
/// The page of `web`.
const PAGE: &str = "_config/web/srv/www/index.html";
/// The definition of `web`.
const RUN: &str = "web/run.json";
/// The initramfs.
const INITRD: &str = "bsp/initrd.img";
/// Final statuses of an update: device-formats 3.2.
const FINAL: [&str; 4] = ["DONE", "UPDATED", "WONTGO", "ERROR"];

/// A step.
type Step = fn(&mut Tour, &mut Report) -> Outcome<()>;

/// All of them, by name.
const STEPS: [(&str, Step); 12] = [
    ("1", Tour::boots),
    ("2", Tour::changes_one_container),
    ("3", Tour::changes_the_base),
    ("4a", Tour::rolls_back_in_place),
    ("4b", Tour::rolls_back_by_reboot),
    ("5", Tour::survives_a_dead_kernel),
    ("5b", Tour::survives_a_hang),
    ("6a", Tour::cut_while_objects_arrive),
    ("6b", Tour::installs_thirty_megabytes),
    ("6c", Tour::cut_during_a_trial),
    ("7", Tour::refuses),
    ("8", Tour::goes_back_on_request),
];

/// Whether there is a step of this name.
pub fn is_step(name: &str) -> bool {
    STEPS.iter().any(|(step, _)| *step == name)
}

/// Walks all steps; whether all held.
pub fn walk(kit: &Kit, folder: &Path, keep: bool) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    let mut tour = Tour::of(kit.clone(), Device::new(kit, folder)?);
    let mut report = Report::of("the tour");
    for (name, step) in STEPS {
        let held = report.step(name, |report| step(&mut tour, report));
        if !held {
            println!("      the kernel's log: {}", tour.device.log().display());
            if let Err(error) = tour.start_again() {
                report.step(name, |_| fail(format!("and the device does not come back: {error}")));
                break;
            }
        }
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    if keep {
        tour.keep();
    }
    Ok(held)
}

/// A device on its tour.
pub(super) struct Tour {
    kit: Kit,
    device: Device,
    work: Option<Work>,
    serial: u32,
}

/// How an update ended.
struct Ended {
    status: String,
    message: String,
    code: String,
    seen: Vec<String>,
    document: Value,
}

impl Tour {
    /// Before its first step.
    pub(super) fn of(kit: Kit, device: Device) -> Self {
        Self { device, work: None, kit, serial: 0 }
    }

    /// The kernel's log.
    pub(super) fn log(&self) -> PathBuf {
        self.device.log()
    }

    /// 1. Boots to READY.
    fn boots(&mut self, report: &mut Report) -> Outcome<()> {
        self.boots_with(&["network", "web", "slow", "counter"], report)
    }

    /// Boots to READY with these containers.
    pub(super) fn boots_with(&mut self, set: &[&str], report: &mut Report) -> Outcome<()> {
        self.device.power_on()?;
        let status = self.ready()?;
        let ready = status["ready_ms"].as_u64().ok_or("the status does not say when READY was reached")?;
        for name in set {
            let container = self.container(name)?;
            let goal = if *name == "slow" { "READY" } else { "STARTED" };
            ensure(container["status"] == goal, || format!("{name} is {} and not {goal}", container["status"]))?;
        }
        self.page_says("first page")?;
        report.held("1", &format!("READY {ready} ms after exec of PID 1; web answers with its first page"));
        let mut total = 0;
        let mut words = Vec::new();
        for process in status["processes"].as_array().ok_or("the status names no processes")? {
            let pss = process["pss_kb"].as_u64().ok_or("a process without its PSS")?;
            total += pss;
            words.push(format!("{} {pss}", process["name"].as_str().unwrap_or("?")));
        }
        report.fact(&format!("PSS in kB: {}; together {total}", words.join(", ")));
        self.is_guarded(&status, report)?;
        let memory = &status["memory"];
        report.fact(&format!(
            "memory in kB: {} of {} available; allocations of PID 1 since start-up: {}",
            memory["available_kb"], memory["total_kb"], status["allocations"]
        ));
        ensure(status["allocations"] == 0, || "PID 1 allocated after its start-up".into())
    }

    /// The board's own watchdog is in use, and what the board does not survive is said.
    fn is_guarded(&self, status: &Value, report: &mut Report) -> Outcome<()> {
        let name = status["board"]["name"].as_str().ok_or("the status names no board")?;
        let board = boards::find(name).ok_or_else(|| format!("{name} is no board"))?;
        let driver = boards::watchdog::named(board.watchdog.driver).ok_or("the board names no watchdog")?;
        let watchdog = &status["watchdog"];
        report.fact(&format!("watchdog: {watchdog}"));
        ensure(watchdog["driver"] == driver.identity, || format!("{name} is guarded by {watchdog}"))?;
        ensure(watchdog["timeout_s"] == board.watchdog.timeout_s, || format!("its time-out is {watchdog}"))?;
        let unguarded = status["not_survived"].as_array().ok_or("the status does not say what is not survived")?;
        report.fact(&format!("not survived without a person: {}", status["not_survived"]));
        let promised = board.guarantee;
        let all = promised.torn_write && promised.hang_before_linux && promised.hang_after_linux && driver.hardware;
        ensure(unguarded.is_empty() == all, || format!("{promised:?} and {unguarded:?}"))
    }

    /// 2. A file of web's page changes: only `web` restarts.
    fn changes_one_container(&mut self, report: &mut Report) -> Outcome<()> {
        let (number, start) = (self.number("memory")?, self.number("start")?);
        self.changes_only_web(&["network", "web", "slow", "counter"], report)?;
        let (number_after, start_after) = (self.number("memory")?, self.number("start")?);
        ensure(start == start_after && number_after >= number, || {
            format!("counter was at {number} (start {start}) and is at {number_after} (start {start_after})")
        })?;
        report.fact(&format!("counter went on in memory from {number} to {number_after}"));
        Ok(())
    }

    /// Changes web's page; the other containers of the set keep their processes.
    pub(super) fn changes_only_web(&mut self, set: &[&str], report: &mut Report) -> Outcome<()> {
        let url = format!("http://127.0.0.1:{}", self.device.ports.endpoint);
        self.work = Some(Work::clone(&self.kit.pvr(), &url, self.device.folder())?);
        let before = self.containers()?;
        let boots = self.loader_starts()?;
        self.work()?.write(PAGE, page("second page"))?;
        self.planned(&["reboot      no", "moves       stop web, start web"])?;
        let rev = self.post("a new page")?;
        let ended = self.finished(&rev)?;
        self.must_be(&ended, "DONE")?;
        ensure(ended.seen.iter().any(|status| status == "TESTING"), || format!("TESTING not among {:?}", ended.seen))?;
        self.page_says("second page")?;
        let after = self.containers()?;
        for name in set.iter().filter(|name| **name != "web") {
            for fact in ["pid", "started_ms"] {
                let (old, new) = (&before[*name][fact], &after[*name][fact]);
                ensure(!old.is_null() && old == new, || format!("{name}: {fact} was {old} and is {new}"))?;
            }
        }
        let (old, new) = (&before["web"]["pid"], &after["web"]["pid"]);
        ensure(old != new, || format!("web has still pid {old}"))?;
        ensure(self.loader_starts()? == boots, || "the device rebooted".into())?;
        self.env_is(&rev, &ended)?;
        report.held("2", &format!("{rev}: {}; only web restarted, the new page is served", ended.seen.join(" > ")));
        report.fact("pids of the others unchanged");
        Ok(())
    }

    /// 3. A file of the initramfs changes: reboot, trial, commit.
    fn changes_the_base(&mut self, report: &mut Report) -> Outcome<()> {
        let old = self.committed()?;
        let boots = self.loader_starts()?;
        let volume = self.number("volume")?;
        self.touch_initrd()?;
        self.planned(&["reboot      yes", "  because   bsp/initrd.img belongs to no container"])?;
        let rev = self.post("a new base")?;
        let ended = self.finished(&rev)?;
        self.must_be(&ended, "DONE")?;
        ensure(self.loader_starts()? > boots, || "the loader did not run again".into())?;
        let scratch = self.device.folder();
        let (now, prev) =
            (self.device.disk.fw_printenv("pv_rev", scratch)?, self.device.disk.fw_printenv("pv_prev", scratch)?);
        ensure(now == rev && prev == old, || format!("fw_printenv says pv_rev={now} pv_prev={prev}"))?;
        self.env_is(&rev, &ended)?;
        report.held("3", &format!("{rev}: {}; rebooted", ended.seen.join(" > ")));
        report.fact(&format!("fw_printenv on the image: pv_rev={now} pv_prev={prev}"));
        let volume_after = wait_for("the counter's volume", 30, || self.number("volume").map(Some))?;
        ensure(volume_after >= volume, || format!("the volume of counter went from {volume} back to {volume_after}"))?;
        report.fact(&format!("counter's permanent volume went on from {volume}, now {volume_after}"));
        Ok(())
    }

    /// 4. A `web` that never becomes ready, in place.
    pub(super) fn rolls_back_in_place(&mut self, report: &mut Report) -> Outcome<()> {
        let old = self.committed()?;
        let boots = self.loader_starts()?;
        let content = self.work()?.read(PAGE)?;
        self.work()?.write(PAGE, page("a page that never gets ready"))?;
        let run = self.never_ready()?;
        let rev = self.post("web waits for ever")?;
        let ended = self.finished(&rev)?;
        self.must_be(&ended, "ERROR")?;
        self.ready()?;
        self.takes_the_devices_state()?;
        let back = (self.work()?.read(PAGE)?, json(&self.work()?.read(RUN)?)?);
        ensure(back == (content.clone(), json(&run)?), || "the working copy is not what the device runs again".into())?;
        ensure(self.loader_starts()? == boots, || "the device rebooted".into())?;
        self.page_is(&content)?;
        self.env_is(&old, &ended)?;
        report.held("4a", &format!("{rev}: {}; back in place to {old}", ended.seen.join(" > ")));
        report.fact("pvr get and pvr checkout made the working copy what the device runs again");
        report.fact(&format!("reason: {}", ended.reason()));
        Ok(())
    }

    /// 4. The same inside a base update: rolled back by a reboot.
    pub(super) fn rolls_back_by_reboot(&mut self, report: &mut Report) -> Outcome<()> {
        let old = self.committed()?;
        let boots = self.loader_starts()?;
        let run = self.never_ready()?;
        self.touch_initrd()?;
        let rev = self.post("web waits for ever, on a new base")?;
        let ended = self.finished(&rev)?;
        self.work()?.write(RUN, run)?;
        self.must_be(&ended, "ERROR")?;
        self.ready()?;
        let again = self.loader_starts()? - boots;
        ensure(again >= 2, || format!("the loader ran {again} times, not there and back"))?;
        self.env_is(&old, &ended)?;
        report.held("4b", &format!("{rev}: {}; back by reboot to {old}", ended.seen.join(" > ")));
        report.fact(&format!("reason: {}", ended.reason()));
        Ok(())
    }

    /// 5. A kernel that panics before our first instruction: its initramfs holds no init.
    fn survives_a_dead_kernel(&mut self, report: &mut Report) -> Outcome<()> {
        let old = self.committed()?;
        let initrd = self.work()?.read(INITRD)?;
        let panics = self.log_count("Kernel panic")?;
        self.work()?.write(INITRD, cpio::archive("etc/nothing", b"no init here\n"))?;
        let rev = self.post("a kernel without an init")?;
        let counted = self.bootcount_seen(&rev)?;
        let ended = self.finished(&rev)?;
        self.work()?.write(INITRD, initrd)?;
        self.must_be(&ended, "ERROR")?;
        self.ready()?;
        let panics = self.log_count("Kernel panic")? - panics;
        ensure(panics >= 2, || format!("the kernel panicked {panics} times"))?;
        self.env_is(&old, &ended)?;
        report.held("5", &format!("{rev}: {panics} panics, U-Boot counted to {counted} and came back to {old}"));
        report.fact(&format!("reason: {}", ended.reason()));
        Ok(())
    }

    /// 5b. A PID 1 that hangs in the middle of its trial and feeds the watchdog no more: the hang that every board of
    /// the emulator survives. One that hangs before it has opened the watchdog needs a loader that arms it.
    fn survives_a_hang(&mut self, report: &mut Report) -> Outcome<()> {
        let binary = std::fs::read(self.kit.folder.join("switchback"))?;
        let file = b"/etc/switchback.fault";
        ensure(binary.windows(file.len()).any(|part| part == file), || {
            "this device cannot be told to hang: make it with SWITCHBACK_FEATURES=faults".into()
        })?;
        let old = self.committed()?;
        let initrd = self.work()?.read(INITRD)?;
        let hangs = self.log_count("Starve, as told by")?;
        let mut starving = initrd.clone();
        starving.resize(starving.len().next_multiple_of(512), 0);
        starving.extend(cpio::archive("etc/switchback.fault", b"starve"));
        self.work()?.write(INITRD, starving)?;
        let rev = self.post("a PID 1 that hangs")?;
        let ended = self.finished(&rev)?;
        self.work()?.write(INITRD, initrd)?;
        self.must_be(&ended, "ERROR")?;
        self.ready()?;
        let hangs = self.log_count("Starve, as told by")? - hangs;
        let tries = usize::from(self.device.disk.board.guarantee.tries);
        ensure(hangs == tries, || format!("PID 1 hung {hangs} times, not {tries}"))?;
        self.env_is(&old, &ended)?;
        report.held("5b", &format!("{rev}: PID 1 hung {hangs} times on its trial, the watchdog came, back to {old}"));
        report.fact(&format!("reason: {}", ended.reason()));
        Ok(())
    }

    /// 6. The power goes while objects arrive.
    fn cut_while_objects_arrive(&mut self, report: &mut Report) -> Outcome<()> {
        type Look = fn(&Arrival) -> bool;
        let points: [(&str, Look); 3] = [
            ("a part of one, nothing whole", |seen| seen.parts > 0 && seen.whole == 0),
            ("one whole, another not", |seen| seen.whole > 0 && seen.whole < seen.all),
            ("all whole, the revision not there", |seen| seen.whole == seen.all && !seen.staged),
        ];
        for (index, (what, look)) in points.iter().enumerate() {
            let old = self.device.disk.env()?;
            let revisions = self.revisions()?;
            // Both come at the same time: what is to be seen before one is whole needs two that take long.
            let smaller = if index == 0 { 6_000_000 } else { 400_000 };
            let hashes = self.new_files(&[smaller, 9_000_000])?;
            let rule = Rule { rate: 900_000, hold_revision: index == 2, break_at: None };
            let link = SlowLink::to(self.device.ports.endpoint, rule)?;
            self.work()?.commit("large files")?;
            let posting = self.work()?.post_behind(link.port, "large files")?;
            self.cut_when(what, |disk, scratch| Ok(look(&Arrival::of(disk, scratch, &hashes, &revisions)?)))?;
            drop((posting, link));
            self.device.power_on()?;
            let status = self.ready()?;
            let env = self.device.disk.env()?;
            ensure(env == old, || format!("the environment was {old:?} and is {env:?}"))?;
            ensure(status["revision"] == old.rev.as_str(), || format!("the status is {status}"))?;
            ensure(self.revisions()? == revisions, || "a revision appeared".into())?;
            wait_for("an empty .incoming", 30, || {
                let left = self.device.frozen(|disk, scratch| disk.storage(scratch)?.names("/objects/.incoming"))?;
                Ok(left.is_empty().then_some(()))
            })?;
            report
                .held("6a", &format!("cut while objects arrive ({what}): boots {}, no update, nothing left", old.rev));
        }
        Ok(())
    }

    /// A 30 MB object on a device with 64 MB, over a link that breaks on the way; also ends what was cut before.
    fn installs_thirty_megabytes(&mut self, report: &mut Report) -> Outcome<()> {
        const LARGE: usize = 30_000_000;
        self.new_files(&[400_000, LARGE])?;
        let rule = Rule { rate: 1 << 30, hold_revision: false, break_at: Some(10_000_000) };
        let link = SlowLink::to(self.device.ports.endpoint, rule)?;
        let rev = self.work()?.post(link.port, "thirty megabytes")?;
        let carried = link.carried();
        drop(link);
        // What the emulated network held when the link broke may be lost, and is sent again.
        ensure(carried < LARGE as u64 + 5_000_000, || format!("{carried} bytes were sent: it began anew"))?;
        let ended = self.finished(&rev)?;
        self.must_be(&ended, "DONE")?;
        self.env_is(&rev, &ended)?;
        report.held("6b", &format!("{rev}: the same working copy posted again, with a 30 MB object: DONE"));
        let sent = carried / 1_000_000;
        report
            .fact(&format!("the link broke after 10 MB; the upload went on where it was: {sent} MB were sent in all"));
        self.drop_files()
    }

    /// 6. The power goes between arming and commit.
    fn cut_during_a_trial(&mut self, report: &mut Report) -> Outcome<()> {
        type Look = fn(&Env, Option<Phase>) -> bool;
        let points: [(&str, Look); 3] = [
            ("armed, not yet counted", |env, _| env.armed && env.bootcount == 0),
            ("counted by the loader, not yet by PID 1", |env, phase| {
                env.armed && env.bootcount > 0 && phase == Some(Phase::Armed)
            }),
            ("on trial, not committed", |env, phase| env.armed && matches!(phase, Some(Phase::Trial { .. }))),
        ];
        for (what, look) in points {
            let old = self.committed()?;
            self.touch_initrd()?;
            let rev = self.post("a base whose trial is cut")?;
            self.cut_when(what, |disk, scratch| {
                let env = disk.env()?;
                if env.candidate != rev {
                    return Ok(false);
                }
                let phase =
                    disk.journal(scratch)?.filter(|record| record.candidate.as_str() == rev).map(|record| record.phase);
                Ok(look(&env, phase))
            })?;
            self.device.power_on()?;
            let ended = self.finished(&rev)?;
            self.ready()?;
            match ended.status.as_str() {
                "DONE" => self.env_is(&rev, &ended)?,
                "ERROR" => self.env_is(&old, &ended)?,
                other => return fail(format!("{what}: the update ended as {other}")),
            }
            let now = self.committed()?;
            report.held("6c", &format!("cut during the trial ({what}): {}, boots {now}", ended.reason()));
        }
        Ok(())
    }

    /// 7. What is refused changes nothing.
    fn refuses(&mut self, report: &mut Report) -> Outcome<()> {
        let before = self.device.settled()?;
        let port = self.device.ports.endpoint;
        let remote = http::get(port, "/.pvrremote")?.text();
        let remote: Value = serde_json::from_str(&remote).map_err(|error| format!("{error}: {remote}"))?;
        let path = |key: &str| path_of(remote[key].as_str().unwrap_or_default());
        let (states, steps) = (path("json-get-url"), path("post-url"));
        let state: Value = serde_json::from_str(&http::get(port, &states)?.text())?;
        let post = |body: &str| http::send(port, "POST", &steps, &["Content-Type: text/plain"], body.as_bytes());

        let mut missing = state.clone();
        missing["web/root.squashfs"] = Value::String("ab".repeat(32));
        let mut group = state.clone();
        group["web/run.json"]["group"] = "nowhere".into();
        let envelope = |state: &Value| serde_json::json!({"commit-msg": "refused", "state": state}).to_string();
        let whole = envelope(&state);
        let cases = [
            ("a missing object", envelope(&missing), "SB1201"),
            ("a state cut short", whole[..whole.len() * 2 / 3].to_string(), "SB1003"),
            ("an unknown group", envelope(&group), "SB1105"),
        ];
        for (what, body, code) in cases {
            let answer = post(&body)?;
            let text = answer.text();
            ensure(answer.status >= 400 && text.contains(code), || format!("{what}: {} {text}", answer.status))?;
            self.device.is_as(&before).map_err(|error| format!("{what}: {error}"))?;
            report.held("7", &format!("refused: {what}: {} {}", answer.status, text.trim()));
        }
        let run = json(&self.work()?.read(RUN)?)?;
        let mut nowhere = run.clone();
        nowhere["group"] = "nowhere".into();
        self.work()?.write(RUN, nowhere.to_string())?;
        match self.post("an unknown group") {
            Err(error) if error.to_string().contains("SB1105") => {}
            other => return fail(format!("pvr posted a revision that no device takes: {other:?}")),
        }
        self.device.is_as(&before)?;
        self.takes_the_devices_state()?;
        ensure(json(&self.work()?.read(RUN)?)? == run, || "the working copy is not what the device runs".into())?;
        report.held("7", "refused by pvr before anything is sent: an unknown group (SB1105)");
        report.fact(&format!(
            "environment, journal and {} files under trails and objects are as before",
            before.len() - 2
        ));
        Ok(())
    }

    /// 8. One click on the device's page: back to the revision before; and not for another site's page.
    fn goes_back_on_request(&mut self, report: &mut Report) -> Outcome<()> {
        let status = self.ready()?;
        let before = status["previous"].as_str().ok_or("there is no revision before")?.to_string();
        let (now, settled, port) = (self.committed()?, self.device.settled()?, self.device.ports.endpoint);
        let page = http::get(port, "/")?.text();
        ensure(page.contains("<title>Switchback</title>"), || format!("the page is {page}"))?;
        let click = |headers: &[&str]| http::send(port, "POST", "/cgi-bin/rollback", headers, b"");
        for (header, code) in [("Origin: http://elsewhere.example", "SB1514"), ("Sec-Fetch-Site: cross-site", "SB1514")]
        {
            let answer = click(&[header])?;
            ensure(answer.status == 403 && answer.text().contains(code), || {
                format!("{header}: {} {}", answer.status, answer.text())
            })?;
        }
        self.device.is_as(&settled)?;
        let own = format!("Origin: http://127.0.0.1:{port}");
        let answer = click(&[&own, "Sec-Fetch-Site: same-origin"])?;
        ensure(answer.status == 200, || format!("rollback: {} {}", answer.status, answer.text()))?;
        let ended = self.finished(&before)?;
        self.must_be(&ended, "DONE")?;
        self.env_is(&before, &ended)?;
        let status = self.ready()?;
        ensure(status["previous"] == now, || format!("the revision before is {}, not {now}", status["previous"]))?;
        report.held("8", &format!("back from {now} to {before} by the device's page: {}", ended.seen.join(" > ")));
        report.fact("asked by another site's page: 403 SB1514, and nothing changed");
        Ok(())
    }
}

/// What stands on the disk of an update whose objects arrive.
struct Arrival {
    parts: usize,
    whole: usize,
    all: usize,
    staged: bool,
}

impl Arrival {
    fn of(disk: &Disk, scratch: &Path, hashes: &[String], revisions: &[String]) -> Outcome<Self> {
        let storage = disk.storage(scratch)?;
        // Received and verified objects wait there until a revision that names them is staged.
        let mut names = storage.names("/objects/.incoming")?;
        let parts = names.iter().filter(|name| name.ends_with(".part")).count();
        names.extend(storage.names("/objects")?);
        let whole = hashes.iter().filter(|hash| names.contains(hash)).count();
        let staged = storage.names("/trails/locals")?.iter().any(|name| !revisions.contains(name));
        Ok(Self { parts, whole, all: hashes.len(), staged })
    }
}

impl Ended {
    fn reason(&self) -> String {
        let code = if self.code.is_empty() { String::new() } else { format!(" ({})", self.code) };
        format!("{}: {}{code}", self.status, self.message)
    }
}

/// What steps look at and do.
impl Tour {
    fn work(&self) -> Outcome<&Work> {
        self.work.as_ref().ok_or_else(|| "there is no working copy: step 2 did not hold".into())
    }

    /// Waits until the device is READY.
    fn ready(&self) -> Outcome<Value> {
        self.device.wait_status("the device READY", BOOT_S, |status| status["status"] == "READY")
    }

    /// After a step that did not hold: power off and on.
    fn start_again(&mut self) -> Outcome<()> {
        self.device.power_on()?;
        self.ready().map(|_| ())
    }

    /// All containers by name.
    fn containers(&self) -> Outcome<BTreeMap<String, Value>> {
        let list = self.device.control("containers ls")?.json()?;
        let named = |container: &Value| Some((container["name"].as_str()?.to_string(), container.clone()));
        Ok(list.as_array().ok_or("containers ls is no list")?.iter().filter_map(named).collect())
    }

    fn container(&self, name: &str) -> Outcome<Value> {
        self.containers()?.remove(name).ok_or_else(|| format!("there is no container {name}").into())
    }

    /// A number of `counter`'s web server.
    fn number(&self, name: &str) -> Outcome<u64> {
        wait_for(&format!("counter's /{name}"), 30, || {
            Ok(http::get(self.device.ports.counter, &format!("/{name}"))?.text().trim().parse().ok())
        })
    }

    fn page_says(&self, words: &str) -> Outcome<()> {
        wait_for(&format!("a page that says `{words}`"), 30, || {
            Ok(http::get(self.device.ports.web, "/")?.text().contains(words).then_some(()))
        })
    }

    fn page_is(&self, content: &[u8]) -> Outcome<()> {
        wait_for(
            "the page as it was",
            30,
            || Ok((http::get(self.device.ports.web, "/")?.body == content).then_some(())),
        )
    }

    /// The committed revision, as the loader's environment has it.
    fn committed(&self) -> Outcome<String> {
        Ok(self.device.disk.env()?.rev)
    }

    /// Environment and status agree that `rev` is committed and nothing is on trial.
    fn env_is(&self, rev: &str, ended: &Ended) -> Outcome<()> {
        let env = self.device.disk.env()?;
        ensure(env.rev == rev && env.candidate.is_empty() && !env.armed, || {
            format!("the environment is {env:?}, not {rev}")
        })?;
        let status = self.device.control("status --json")?.json()?;
        ensure(status["revision"] == rev, || format!("runs {} after {}", status["revision"], ended.document))
    }

    fn must_be(&self, ended: &Ended, status: &str) -> Outcome<()> {
        ensure(ended.status == status, || {
            format!("ended as {}: {}, not {status}; {:?}", ended.status, ended.message, ended.seen)
        })?;
        ensure(status != "ERROR" || !ended.message.is_empty(), || "an ERROR without a reason".into())
    }

    /// `pvr get` and `pvr checkout`: the working copy is what the device runs.
    fn takes_the_devices_state(&self) -> Outcome<()> {
        self.work()?.run(&["get", &format!("http://127.0.0.1:{}", self.device.ports.endpoint)])?;
        self.work()?.run(&["checkout"])?;
        Ok(())
    }

    fn post(&self, message: &str) -> Outcome<String> {
        self.work()?.post(self.device.ports.endpoint, message)
    }

    /// Follows the update to `rev` to its end. The device may reboot meanwhile.
    fn finished(&self, rev: &str) -> Outcome<Ended> {
        let mut seen: Vec<String> = Vec::new();
        let document = self.device.wait_status(&format!("the end of the update to {rev}"), UPDATE_S, |status| {
            let update = &status["update"];
            let word = update["status"].as_str().unwrap_or_default();
            if update["revision"] != rev {
                return false;
            }
            if seen.last().map(String::as_str) != Some(word) {
                seen.push(word.to_string());
            }
            FINAL.contains(&word)
        })?;
        let text = |key: &str| document["update"][key].as_str().unwrap_or_default().to_string();
        Ok(Ended { status: text("status"), message: text("status-msg"), code: text("code"), seen, document })
    }

    /// Cuts the power at the instant at which the disk satisfies `look`.
    fn cut_when(&mut self, what: &str, mut look: impl FnMut(&Disk, &Path) -> Outcome<bool>) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            let look_begun = Instant::now();
            if self.device.cut_if(&mut look)? {
                return Ok(());
            }
            ensure(begun.elapsed() < Duration::from_secs(180), || format!("the disk never showed: {what}"))?;
            // The device stands still while it is looked at: it gets more time than the looks.
            std::thread::sleep(Duration::from_millis(20).max(2 * look_begun.elapsed()));
        }
    }

    /// The greatest count of boots that the environment shows while `rev` is tried.
    fn bootcount_seen(&self, rev: &str) -> Outcome<u32> {
        let mut greatest = 0;
        let mut armed = false;
        wait_for("U-Boot giving the candidate up", UPDATE_S, || {
            let env = self.device.disk.env()?;
            armed |= env.candidate == rev;
            greatest = greatest.max(env.bootcount);
            Ok((armed && env.candidate != rev).then_some(greatest))
        })
    }

    /// How often something stands in the kernel's log of all boots.
    fn log_count(&self, words: &str) -> Outcome<usize> {
        let log = std::fs::read(self.device.log())?;
        Ok(String::from_utf8_lossy(&log).matches(words).count())
    }

    fn loader_starts(&self) -> Outcome<usize> {
        self.log_count("U-Boot 20")
    }

    /// Before it is sent, `pvr plan` says these lines of it; what the device then does is seen after it.
    fn planned(&self, lines: &[&str]) -> Outcome<()> {
        let said = self.work()?.run(&["plan", &format!("http://127.0.0.1:{}", self.device.ports.endpoint)])?;
        let missing = lines.iter().find(|line| !said.lines().any(|other| other == **line));
        ensure(missing.is_none(), || format!("pvr plan does not say `{}`: {said}", missing.unwrap_or(&"")))
    }

    /// Local revisions on the disk.
    fn revisions(&self) -> Outcome<Vec<String>> {
        self.device.frozen(|disk, scratch| disk.storage(scratch)?.names("/trails/locals"))
    }

    /// Changes one file of the initramfs, each time another content.
    fn touch_initrd(&mut self) -> Outcome<()> {
        self.serial += 1;
        let mut initrd = self.work()?.read(INITRD)?;
        initrd.resize(initrd.len().next_multiple_of(512), 0);
        initrd.extend(cpio::archive("etc/note", format!("base {}\n", self.serial).as_bytes()));
        self.work()?.write(INITRD, initrd)
    }

    /// Gives `web` the goal READY, which it never reports; what run.json was before.
    fn never_ready(&self) -> Outcome<Vec<u8>> {
        let content = self.work()?.read(RUN)?;
        let mut run: Value = serde_json::from_slice(&content)?;
        run["status_goal"] = "READY".into();
        self.work()?.write(RUN, run.to_string())?;
        Ok(content)
    }

    /// New files of these sizes in web's page, no two alike; their hashes.
    fn new_files(&mut self, sizes: &[usize]) -> Outcome<Vec<String>> {
        let mut hashes = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            self.serial += 1;
            let file = format!("_config/web/srv/www/file{index}.bin");
            self.work()?.write(&file, noise(self.serial, *size))?;
            hashes.push(super::disk::hash_file(&self.work()?.folder.join(&file))?);
        }
        Ok(hashes)
    }

    fn drop_files(&self) -> Outcome<()> {
        for index in 0..2 {
            std::fs::remove_file(self.work()?.folder.join(format!("_config/web/srv/www/file{index}.bin")))?;
        }
        Ok(())
    }

    /// Leaves the device on and says how to talk to it.
    fn keep(&mut self) {
        let (ports, console) = (self.device.ports, self.device.console());
        let folder = self.device.folder().join("work");
        let Some(emulator) = self.device.release() else { return };
        println!("\nThe device stays on:");
        println!("  pvcontrol   {} control --console {} status", self.kit.pvr().display(), console.display());
        println!("  its pages   http://127.0.0.1:{}/ and http://127.0.0.1:{}/memory", ports.web, ports.counter);
        println!("  its state   cd {} && pvr status; pvr post http://127.0.0.1:{}", folder.display(), ports.endpoint);
        println!("  its log     {}", self.device.log().display());
        println!("  to end it   kill {emulator}");
    }
}

/// A document's value, however it is laid out.
fn json(text: &[u8]) -> Outcome<Value> {
    serde_json::from_slice(text).map_err(|error| error.to_string().into())
}

/// A page of web.
fn page(words: &str) -> String {
    format!("<!doctype html>\n<title>Switchback</title>\n<p>{words}</p>\n")
}

/// Bytes that do not compress, different for each seed: xorshift.
pub fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The path of a URL.
pub fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_helpers() {
        assert_eq!(path_of("http://127.0.0.1:99/cgi-bin/pvr/steps"), "/cgi-bin/pvr/steps");
        assert_eq!(path_of("/steps"), "/steps");
        assert_eq!(noise(1, 5).len(), 5);
        assert_ne!(noise(1, 64), noise(2, 64));
    }
}
