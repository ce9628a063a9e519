//! USB sticks: what a device with an open policy does with good, bad and odd ones that are plugged in while it runs.
//!
//! The kernel of the emulated device has no USB storage, so the socket is a slot of PCI Express and the sticks are disks of
//! virtio; the policy names the disk. Sticks have ext4, which that kernel has. From there on all is as with a stick.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runtime::fault::Code;
use serde_json::{Value, json};

use super::fixture::{configuration, run};
use super::ground::Ground;
use crate::tour::disk::hash_file;
use crate::tour::report::Report;
use crate::tour::steps::noise;
use crate::tour::{Outcome, ensure, wait_for};

/// Lines of the device policy that open it: the name that the kernel gives to the second disk of virtio.
pub const POLICY: &str = "switchback.usb-install=vfat,ext4\nswitchback.usb-disks=vdb\n";
/// The file that is looked for.
const FILE: &str = "update.pvrexport.tgz";
/// Longest time from a stick in its socket to what comes of it, an update and its way back included; seconds.
const PATIENCE_S: u64 = 240;
/// Puts what a stick holds below its top folder.
type Fill<'f> = &'f dyn Fn(&Path) -> Outcome<()>;

/// Name of the socket for the emulator.
const SOCKET: &str = "socket";

/// What the emulator needs for a socket.
pub fn socket(folder: &Path) -> Vec<String> {
    let monitor = format!("unix:{},server=on,wait=off", monitor(folder).display());
    ["-device", &format!("pcie-root-port,id={SOCKET}"), "-qmp", &monitor].map(str::to_owned).into()
}

fn monitor(folder: &Path) -> PathBuf {
    folder.join("monitor")
}

/// Sticks of which nothing comes.
pub fn refuse(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let desk = Desk::new(ground)?;
    let whole = std::fs::read(desk.export("whole", "")?)?;
    let cut = &whole[..whole.len() / 2];
    let cases: [(&str, Code, Fill<'_>); 3] = [
        ("a stick without the file", Code::StickEmpty, &|top| Ok(std::fs::write(top.join("other.tgz"), &whole)?)),
        ("a link in place of the file", Code::StickFile, &|top| Ok(symlink("/init", top.join(FILE))?)),
        ("a damaged export", Code::StickRefused, &|top| Ok(std::fs::write(top.join(FILE), cut)?)),
    ];
    for (what, code, fill) in cases {
        let stick = desk.plug(&desk.stick(fill)?, None)?;
        desk.says(report, what, code)?;
        stick.pull()?;
    }
    let garbage = desk.folder.join("garbage.img");
    std::fs::write(&garbage, noise(6, 1 << 20))?;
    let stick = desk.plug(&garbage, None)?;
    desk.says(report, "garbage in place of a file system", Code::StickUnmountable)?;
    stick.pull()
}

/// One that is pulled out while it is read.
pub fn pull_out(ground: &Ground, report: &mut Report) -> Outcome<()> {
    const BYTES_PER_S: u64 = 200_000;
    let desk = Desk::new(ground)?;
    let large = noise(7, 6_000_000);
    let image = desk.stick(&|top| Ok(std::fs::write(top.join(FILE), &large)?))?;
    let mut stick = desk.plug(&image, Some(BYTES_PER_S))?;
    wait_for("a stick that is read", PATIENCE_S, || Ok((stick.bytes_read()? > 1_000_000).then_some(())))?;
    stick.pull()?;
    desk.says(report, "a stick that is pulled out while it is read", Code::StickUnreadable)
}

/// One whose revision cannot live: rolled back, and never run again.
pub fn roll_back(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let desk = Desk::new(ground)?;
    let export = desk.export("bad", "/nothing/here")?;
    let rev = revision(&export)?;
    let image = desk.stick_with(&export)?;
    let stick = desk.plug(&image, None)?;
    let update = desk.ended(&rev)?;
    let as_told = update["status"] == "ERROR" && update["code"] == Code::InitMissing.to_string();
    ensure(as_told, || format!("a stick with a revision that cannot live: {update}"))?;
    ground.goes_on()?;
    ground.is_committed("0")?;
    report.held("fails", &format!("a revision that cannot live: {rev} is rolled back in place"));
    stick.pull()?;
    desk.is_known(&image, report, "the same stick after the rollback")
}

/// The power goes while a good one is installed. The device is left off.
pub fn cut(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let desk = Desk::new(ground)?;
    let export = desk.export("good", "/bin/probe relay 8090")?;
    let rev = revision(&export)?;
    let mut stick = desk.plug(&desk.stick_with(&export)?, None)?;
    let begins = format!("{FILE} is installed as {rev}");
    wait_for("a good stick being installed", PATIENCE_S, || Ok((ground.device.said(&begins) > 0).then_some(())))?;
    stick.0.ask("quit", json!({}))?;
    wait_for("the power gone", PATIENCE_S, || Ok(ground.device.is_gone().then_some(())))?;
    report.held("cut", &format!("the power is cut while {rev} is installed from a stick"));
    Ok(())
}

/// The same one again: installed, run, committed; and never again. Nor is the first one, when its revision was collected.
pub fn go_on(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let desk = Desk::new(ground)?;
    let [good, bad] = ["good", "bad"].map(|name| desk.folder.join(format!("{name}.tgz")));
    let rev = revision(&good)?;
    let image = desk.stick_with(&good)?;
    let stick = desk.plug(&image, None)?;
    let update = desk.ended(&rev)?;
    ensure(update["status"] == "DONE", || format!("a good stick: {update}"))?;
    ground.goes_on()?;
    ground.is_committed(&rev)?;
    report.held("again", &format!("the same stick: {rev} is installed, run and committed"));
    stick.pull()?;
    desk.is_known(&image, report, "and again")?;
    ground.manager.granted("POST", "/storage/gc", b"")?;
    let gone = format!("/steps/{}", revision(&bad)?);
    wait_for("the revision that failed collected", PATIENCE_S, || {
        Ok((ground.manager.send("GET", &gone, None)?.status == 404).then_some(()))
    })?;
    desk.is_known(&desk.stick_with(&bad)?, report, "the stick that failed, after its revision was collected")
}

/// The revision that an export on a stick becomes.
fn revision(export: &Path) -> Outcome<String> {
    Ok(format!("locals/usb-{}", &hash_file(export)?[..16]))
}

/// Where sticks are made and plugged in.
struct Desk<'g> {
    ground: Ground<'g>,
    folder: PathBuf,
}

impl<'g> Desk<'g> {
    fn new(ground: &Ground<'g>) -> Outcome<Self> {
        let folder = ground.device.folder().join("sticks");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { ground: Ground::of(ground.device)?, folder })
    }

    /// An export of the factory revision, whole; with an init for `patient` it has that one, a file of 8 MB, and the
    /// objects of these alone, for the device has the others.
    fn export(&self, name: &str, init: &str) -> Outcome<PathBuf> {
        let (repo, export) = (self.folder.join(name), self.folder.join(format!("{name}.tgz")));
        run(Command::new("cp").arg("-a").arg(self.ground.device.repo()).arg(&repo))?;
        let pvr = |args: &[&str]| {
            let mut command = Command::new(self.ground.device.pvr());
            run(command.env("HOME", self.ground.device.kit_folder()).current_dir(&repo).args(args))
        };
        if init.is_empty() {
            pvr(&["export", &export.display().to_string()])?;
            return Ok(export);
        }
        let changed = ["patient/lxc.container.conf", "_config/patient/srv/large.bin"].map(|file| repo.join(file));
        std::fs::create_dir_all(repo.join("_config/patient/srv"))?;
        std::fs::write(&changed[0], configuration("patient", init))?;
        std::fs::write(&changed[1], noise(8, 8_000_000))?;
        pvr(&["add", "."])?;
        pvr(&["commit", "-m", name])?;
        pvr(&["export", &export.display().to_string()])?;
        let parts = self.folder.join("parts");
        let _ = std::fs::remove_dir_all(&parts);
        std::fs::create_dir(&parts)?;
        run(Command::new("tar").arg("-C").arg(&parts).arg("-xzf").arg(&export))?;
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&parts).args(["--format=ustar", "-czf"]).arg(&export).arg("json");
        for file in &changed {
            tar.arg(format!("objects/{}", hash_file(file)?));
        }
        run(&mut tar)?;
        Ok(export)
    }

    /// The image of a stick with this export.
    fn stick_with(&self, export: &Path) -> Outcome<PathBuf> {
        self.stick(&|top| Ok(std::fs::copy(export, top.join(FILE)).map(drop)?))
    }

    /// The image of a stick with a file system that `fill` fills.
    fn stick(&self, fill: Fill<'_>) -> Outcome<PathBuf> {
        let (top, made) = (self.folder.join("top"), std::fs::read_dir(&self.folder)?.count());
        let image = self.folder.join(format!("{made}.img"));
        let _ = std::fs::remove_dir_all(&top);
        std::fs::create_dir(&top)?;
        fill(&top)?;
        File::create(&image)?.set_len(64 << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(&top).arg(&image))?;
        Ok(image)
    }

    /// Puts a stick in the socket; read no faster than that, if it says so.
    fn plug(&self, image: &Path, bytes_per_s: Option<u64>) -> Outcome<Plugged> {
        let mut monitor = Monitor::open(&monitor(self.ground.device.folder()))?;
        let file = json!({"driver": "file", "node-name": "file", "filename": image, "read-only": true});
        monitor.ask("blockdev-add", file)?;
        let limits = json!({"bps-read": bytes_per_s.unwrap_or(0)});
        monitor.ask("object-add", json!({"qom-type": "throttle-group", "id": "pace", "limits": limits}))?;
        let node = json!({"driver": "throttle", "node-name": "stick", "throttle-group": "pace", "file": "file",
            "read-only": true});
        monitor.ask("blockdev-add", node)?;
        let device = json!({"driver": "virtio-blk-pci", "id": "stick", "drive": "stick", "bus": SOCKET});
        monitor.ask("device_add", device)?;
        Ok(Plugged(monitor))
    }

    /// Waits until the device says what comes of a stick; nothing else has changed.
    fn says(&self, report: &mut Report, what: &str, code: Code) -> Outcome<()> {
        let words = format!("switchback[stick]: vdb: {code} ");
        wait_for(&format!("{what}: {code}"), PATIENCE_S, || Ok((self.ground.device.said(&words) > 0).then_some(())))?;
        self.ground.is_unchanged().map_err(|error| format!("{what}: {error}"))?;
        report.held("stick", &format!("{what}: {code}, {}", code.text()));
        Ok(())
    }

    /// A stick that was there before: said again, and nothing changes.
    fn is_known(&self, image: &Path, report: &mut Report, what: &str) -> Outcome<()> {
        let ground = Ground::of(self.ground.device)?;
        let words = format!("switchback[stick]: vdb: {} ", Code::StickKnown);
        let before = ground.device.said(&words);
        let stick = self.plug(image, None)?;
        wait_for(&format!("{what}: {}", Code::StickKnown), PATIENCE_S, || {
            Ok((ground.device.said(&words) > before).then_some(()))
        })?;
        ground.is_unchanged().map_err(|error| format!("{what}: {error}"))?;
        report.held("stick", &format!("{what}: {}, nothing is run", Code::StickKnown));
        stick.pull()
    }

    /// Follows the update to `rev` to its end.
    fn ended(&self, rev: &str) -> Outcome<Value> {
        wait_for(&format!("the end of the update to {rev}"), PATIENCE_S, || {
            let update = self.ground.manager.get("/status")?["update"].clone();
            let ended = ["DONE", "ERROR", "WONTGO"].iter().any(|status| update["status"] == *status);
            Ok((update["revision"] == rev && ended).then_some(update))
        })
    }
}

/// A stick in the socket.
struct Plugged(Monitor);

impl Plugged {
    fn bytes_read(&mut self) -> Outcome<u64> {
        let all = self.0.ask("query-blockstats", json!({}))?;
        let ours = all
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["qdev"].as_str().is_some_and(|id| id.contains("stick")));
        Ok(ours.and_then(|one| one["stats"]["rd_bytes"].as_u64()).unwrap_or(0))
    }

    /// Takes it out; the guest lets go of it in its own time.
    fn pull(mut self) -> Outcome<()> {
        self.0.ask("device_del", json!({"id": "stick"}))?;
        self.0.gone("stick")?;
        for node in ["stick", "file"] {
            self.0.ask("blockdev-del", json!({"node-name": node}))?;
        }
        self.0.ask("object-del", json!({"id": "pace"})).map(drop)
    }
}

/// The emulator's monitor.
struct Monitor {
    from: BufReader<UnixStream>,
    deleted: Vec<String>,
}

impl Monitor {
    fn open(path: &Path) -> Outcome<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S)))?;
        let mut monitor = Self { from: BufReader::new(stream), deleted: Vec::new() };
        monitor.line()?; // its greeting
        monitor.ask("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.from.get_mut().write_all(line.as_bytes())?;
        loop {
            let answer = self.line()?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            ensure(answer.get("error").is_none(), || format!("{command}: {}", answer["error"]))?;
        }
    }

    /// Waits until the guest has let go of a device.
    fn gone(&mut self, device: &str) -> Outcome<()> {
        while !self.deleted.iter().any(|name| name == device) {
            self.line()?;
        }
        Ok(())
    }

    fn line(&mut self) -> Outcome<Value> {
        let mut text = String::new();
        self.from.read_line(&mut text)?;
        let line: Value = serde_json::from_str(&text)?;
        if line["event"] == "DEVICE_DELETED" {
            self.deleted.extend(line["data"]["device"].as_str().map(str::to_owned));
        }
        Ok(line)
    }
}
