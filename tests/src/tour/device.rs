//! The emulated device: started by `pvr emulate` on a copy of the image, watched, cut off.
//!
//! Invariants: only the process that `pvr emulate` named is ever signalled; it is ended when the value is dropped,
//! unless it was released for the user. The serial log begins anew when the power comes on, not at a reboot; the one
//! before is kept under another name.
//! Fault model: `cut` is SIGKILL of the emulator: what the guest had not handed to its disk is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use boards::Board;
use rustix::process::{Pid, Signal, kill_process};

use super::disk::{Disk, difference};
use super::{Outcome, ensure, fail, wait_for};

/// What `ci/device` made.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The folder.
    pub folder: PathBuf,
}

impl Kit {
    /// The disk image as it leaves the factory.
    pub fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// The loader.
    pub fn loader(&self) -> PathBuf {
        self.folder.join("u-boot.bin")
    }

    /// The host tool.
    pub fn pvr(&self) -> PathBuf {
        self.folder.join("pvr")
    }

    /// The factory revision as a repository.
    pub fn repo(&self) -> PathBuf {
        self.folder.join("repo")
    }

    /// The board that it was made for.
    pub fn board(&self) -> Outcome<&'static Board> {
        let name = std::fs::read_to_string(self.folder.join("board"))?;
        boards::find(name.trim()).ok_or_else(|| format!("there is no board {}", name.trim()).into())
    }
}

/// Ports on the loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The device's endpoint for `pvr`.
    pub endpoint: u16,
    /// The web server of `web`.
    pub web: u16,
    /// The web server of `counter`.
    pub counter: u16,
}

impl Ports {
    /// Three ports that are free now, below those that the kernel gives to connections: a device that is off for a
    /// moment finds its ports again.
    pub fn free() -> Outcome<Self> {
        let first = 20_000 + (std::process::id() % 1_000) as u16 * 10;
        let is_free = |port: &u16| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, *port)).is_ok();
        let mut ports = (first..32_000).filter(is_free);
        match (ports.next(), ports.next(), ports.next()) {
            (Some(endpoint), Some(web), Some(counter)) => Ok(Self { endpoint, web, counter }),
            _ => fail(format!("no three free ports from {first}")),
        }
    }
}

/// What a run of `pvcontrol` printed, and its exit code.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Output, errors included.
    pub text: String,
}

impl Ran {
    /// The output as JSON, if the exit code is 0.
    pub fn json(&self) -> Outcome<serde_json::Value> {
        if self.code != 0 {
            return fail(format!("pvcontrol ended with {}: {}", self.code, self.text.trim()));
        }
        serde_json::from_str(self.text.trim()).map_err(|error| format!("{error}: {}", self.text).into())
    }
}

/// One device with its disk; it may be on or off.
pub struct Device {
    kit: Kit,
    folder: PathBuf,
    /// Its disk.
    pub disk: Disk,
    /// Where its services are reached.
    pub ports: Ports,
    /// Its memory in MiB; `None`: what its board has.
    pub memory: Option<u32>,
    emulator: Option<Pid>,
    starts: u32,
}

impl Device {
    /// A new device with a copy of the factory image in `folder`. Off.
    pub fn new(kit: &Kit, folder: &Path) -> Outcome<Self> {
        Self::with_disk(kit, folder, &kit.image())
    }

    /// A device of the kit with a copy of another image. Off.
    pub fn with_disk(kit: &Kit, folder: &Path, image: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let own = folder.join("disk.img");
        // Beside the disk there may be flash.
        for (from, to) in [(image, &own), (&image.with_extension("flash"), &own.with_extension("flash"))] {
            let _ = std::fs::remove_file(to);
            if from.exists() {
                copy_with_holes(from, to)?;
            }
        }
        let disk = Disk::open(&own, kit.board()?)?;
        Ok(Self {
            kit: kit.clone(),
            folder: folder.into(),
            disk,
            ports: Ports::free()?,
            memory: None,
            emulator: None,
            starts: 0,
        })
    }

    /// The host tool that it was made with.
    pub fn pvr(&self) -> PathBuf {
        self.kit.pvr()
    }

    /// The folder of what it was made of.
    pub fn kit_folder(&self) -> &Path {
        &self.kit.folder
    }

    /// The factory revision as a repository.
    pub fn repo(&self) -> PathBuf {
        self.kit.repo()
    }

    /// A folder for scratch files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The unix socket of the console.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// The kernel's log, all boots.
    pub fn log(&self) -> PathBuf {
        self.folder.join("serial.log")
    }

    /// How often something stands in the log since the device was made, whatever power cuts were in between.
    pub fn said(&self, words: &str) -> usize {
        let earlier = (1..self.starts).map(|start| self.folder.join(format!("serial.{start}.log")));
        let logs = earlier.chain([self.log()]).filter_map(|log| std::fs::read(log).ok());
        logs.map(|log| String::from_utf8_lossy(&log).matches(words).count()).sum()
    }

    /// Switches it on.
    pub fn power_on(&mut self) -> Outcome<()> {
        self.power_on_with(&[])
    }

    /// Switches it on, with further arguments for the emulator: faults of its disk.
    pub fn power_on_with(&mut self, emulator: &[String]) -> Outcome<()> {
        self.cut();
        if self.starts > 0 {
            std::fs::rename(self.log(), self.folder.join(format!("serial.{}.log", self.starts)))?;
        }
        self.starts += 1;
        let mut started = self.emulate(emulator);
        // A port that this device gave back when it went off may have been taken meanwhile.
        if started.as_ref().is_err_and(|error| error.to_string().contains("forwarding rule")) {
            self.ports = Ports::free()?;
            started = self.emulate(emulator);
        }
        self.emulator = started?;
        Ok(())
    }

    fn emulate(&self, emulator: &[String]) -> Outcome<Option<Pid>> {
        let forward = |host: u16, guest: u16| format!("{host}:{guest}");
        let pid_file = self.folder.join("qemu.pid");
        let output = Command::new(self.kit.pvr())
            .args(["emulate", "--background", "--board", self.disk.board.name, "--disk"])
            .arg(&self.disk.image)
            .arg("--u-boot")
            .arg(self.kit.loader())
            .arg("--log")
            .arg(self.log())
            .arg("--console")
            .arg(self.console())
            .arg("--pid-file")
            .arg(&pid_file)
            .args(["--forward", &forward(self.ports.endpoint, 12368)])
            .args(["--forward", &forward(self.ports.web, 8080)])
            .args(["--forward", &forward(self.ports.counter, 8081)])
            .args(self.memory.iter().flat_map(|memory| ["--memory".into(), memory.to_string()]))
            .args(emulator.iter().flat_map(|word| ["--extra", word]))
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            return fail(format!("pvr emulate: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(std::fs::read_to_string(pid_file)?.trim().parse().ok().and_then(Pid::from_raw))
    }

    /// Whether it has no power: the emulator may have ended by itself.
    pub fn is_gone(&self) -> bool {
        self.emulator.is_none_or(|emulator| !is_running(emulator))
    }

    /// Cuts its power. Nothing happens if it is off.
    pub fn cut(&mut self) {
        let Some(emulator) = self.emulator.take() else { return };
        let _ = kill_process(emulator, Signal::KILL);
        // The next start writes the same disk, so this one has to be gone.
        while is_running(emulator) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it was switched on and nobody saw it end.
    pub fn is_on(&self) -> bool {
        self.emulator.is_some()
    }

    /// Ends the emulator so that it writes what it still holds. For the guest it is a power cut.
    pub fn end(&mut self) -> Outcome<()> {
        self.signal(Signal::TERM)?;
        self.is_off(20)
    }

    /// Waits until the emulator has ended by itself, as it does when the guest switches its machine off.
    pub fn is_off(&mut self, seconds: u64) -> Outcome<()> {
        let Some(emulator) = self.emulator else { return Ok(()) };
        wait_for("the end of the emulator", seconds, || Ok((!is_running(emulator)).then_some(())))?;
        self.emulator = None;
        Ok(())
    }

    /// Stops the emulator, looks at the disk, and lets it go on unless the look says that the moment has come; then
    /// the power is cut at exactly this instant.
    pub fn cut_if(&mut self, mut look: impl FnMut(&Disk, &Path) -> Outcome<bool>) -> Outcome<bool> {
        self.stop()?;
        let seen = look(&self.disk, &self.folder);
        if matches!(seen, Ok(true)) {
            self.cut();
        } else {
            self.signal(Signal::CONT)?;
        }
        seen
    }

    /// Looks at the disk while the emulator stands still, so that what is seen is one instant.
    pub fn frozen<T>(&self, look: impl FnOnce(&Disk, &Path) -> Outcome<T>) -> Outcome<T> {
        self.stop()?;
        let seen = look(&self.disk, &self.folder);
        self.signal(Signal::CONT)?;
        seen
    }

    /// Environment, journal and every file under trails and objects, by hash: equal maps mean that nothing changed.
    pub fn everything(&self) -> Outcome<BTreeMap<String, String>> {
        self.frozen(|disk, scratch| {
            let mut all = disk.storage(scratch)?.hashes(&["/trails", "/objects"])?;
            all.insert("environment".into(), super::disk::hex(&disk.env_bytes()?));
            all.insert("journal".into(), super::disk::hex(&disk.journal_bytes(scratch)?));
            Ok(all)
        })
    }

    /// The same once it stays the same: what the guest writes without need for it to be durable takes its time.
    pub fn settled(&self) -> Outcome<BTreeMap<String, String>> {
        let mut last = self.everything()?;
        wait_for("a disk that rests", 60, || {
            // The guest's file system writes its names at least every 5 s.
            std::thread::sleep(Duration::from_secs(6));
            let now = self.everything()?;
            let rests = now == last;
            last = now;
            Ok(rests.then(|| last.clone()))
        })
    }

    /// Fails unless the disk becomes `before` again: a file that came and went may be seen until the guest's file
    /// system has written its names.
    pub fn is_as(&self, before: &BTreeMap<String, String>) -> Outcome<()> {
        wait_for("the disk as it was before", 30, || {
            let after = self.everything()?;
            ensure(after == *before, || format!("changed: {}", difference(before, &after))).map(Some)
        })
    }

    /// Leaves the emulator running when this value goes; its process id, if it is on.
    pub fn release(&mut self) -> Option<i32> {
        self.emulator.take().map(Pid::as_raw_pid)
    }

    /// Runs `pvcontrol ARGS` on the device, through its second serial port.
    pub fn control(&self, args: &str) -> Outcome<Ran> {
        self.control_within(10, args)
    }

    fn control_within(&self, seconds: u64, args: &str) -> Outcome<Ran> {
        let output = Command::new(self.kit.pvr())
            .args(["control", "--timeout", &seconds.to_string(), "--console"])
            .arg(self.console())
            .args(args.split(' '))
            .stdin(Stdio::null())
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Ran { code: output.status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Waits until the status satisfies `enough`.
    pub fn wait_status(
        &self,
        what: &str,
        seconds: u64,
        mut enough: impl FnMut(&serde_json::Value) -> bool,
    ) -> Outcome<serde_json::Value> {
        wait_for(what, seconds, || {
            // Short: a device that reboots meanwhile never answers.
            let status = self.control_within(2, "status --json")?.json()?;
            Ok(enough(&status).then_some(status))
        })
    }

    /// Stops the emulator, and waits until none of its threads writes any more.
    fn stop(&self) -> Outcome<()> {
        self.signal(Signal::STOP)?;
        let Some(emulator) = self.emulator else { return Ok(()) };
        let stands = |thread: std::io::Result<std::fs::DirEntry>| {
            thread.is_ok_and(|thread| matches!(state_of(&thread.path()), None | Some('T' | 'Z' | 'X')))
        };
        while !std::fs::read_dir(format!("/proc/{}/task", emulator.as_raw_pid()))?.all(stands) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        match self.emulator {
            Some(emulator) => Ok(kill_process(emulator, signal)?),
            None => fail("the device is off".into()),
        }
    }
}

/// Copies an image; what is zero takes no room.
pub fn copy_with_holes(from: &Path, to: &Path) -> Outcome<()> {
    let copied = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status()?;
    ensure(copied.success(), || format!("{} could not be copied", from.display()))
}

/// Whether a process is there and has not ended; one that ended may stay a zombie of somebody else.
fn is_running(process: Pid) -> bool {
    let state = state_of(Path::new(&format!("/proc/{}", process.as_raw_pid())));
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The state of a process or thread, by its folder below /proc; `None` if it is gone.
fn state_of(folder: &Path) -> Option<char> {
    std::fs::read_to_string(folder.join("stat")).ok()?.rsplit(") ").next()?.chars().next()
}

impl Drop for Device {
    fn drop(&mut self) {
        self.cut();
    }
}
