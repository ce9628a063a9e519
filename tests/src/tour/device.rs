//! The emulated device: started by `pvr emulate` on a copy of the image, watched, cut off.
//!
//! Invariants: the emulator runs in a process group of its own, which is the only thing that is ever signalled; it is
//! ended when the value is dropped, unless it was released for the user. The kernel's log of all boots of one device
//! goes to one file.
//! Fault model: `cut` is SIGKILL of the emulator: what the guest had not handed to its disk is lost.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::console::{self, Ran};
use super::disk::Disk;
use super::{Outcome, fail, wait_for};

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
    /// Three ports that are free now.
    pub fn free() -> Outcome<Self> {
        // Held together, so that they differ.
        let listen = || std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        let (a, b, c) = (listen()?, listen()?, listen()?);
        let port = |listener: &std::net::TcpListener| listener.local_addr().map(|address| address.port());
        Ok(Self { endpoint: port(&a)?, web: port(&b)?, counter: port(&c)? })
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
    emulator: Option<Child>,
}

impl Device {
    /// A new device with a copy of the factory image in `folder`. Off.
    pub fn new(kit: &Kit, folder: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let image = folder.join("disk.img");
        let _ = std::fs::remove_file(&image);
        let copied = Command::new("cp").arg("--sparse=always").arg(kit.image()).arg(&image).status()?;
        if !copied.success() {
            return fail(format!("{} could not be copied", kit.image().display()));
        }
        let disk = Disk::open(&image)?;
        Ok(Self { kit: kit.clone(), folder: folder.into(), disk, ports: Ports::free()?, emulator: None })
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

    /// Switches it on.
    pub fn power_on(&mut self) -> Outcome<()> {
        self.cut();
        let _ = std::fs::remove_file(self.console());
        let output = File::create(self.folder.join("emulator.log"))?;
        let forward = |host: u16, guest: u16| format!("{host}:{guest}");
        let child = Command::new(self.kit.pvr())
            .arg("emulate")
            .arg(&self.disk.image)
            .arg("--loader")
            .arg(self.kit.loader())
            .arg("--log")
            .arg(self.log())
            .arg("--console")
            .arg(self.console())
            .args(["--forward", &forward(self.ports.endpoint, 12368)])
            .args(["--forward", &forward(self.ports.web, 8080)])
            .args(["--forward", &forward(self.ports.counter, 8081)])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        self.emulator = Some(child);
        Ok(())
    }

    /// Cuts its power. Nothing happens if it is off.
    pub fn cut(&mut self) {
        if let Some(mut child) = self.emulator.take() {
            self.signal(&child, Signal::KILL);
            let _ = child.wait();
        }
    }

    /// Stops the emulator, looks at the disk, and lets it go on unless the look says that the moment has come; then
    /// the power is cut at exactly this instant.
    pub fn cut_if(&mut self, mut look: impl FnMut(&Disk, &Path) -> Outcome<bool>) -> Outcome<bool> {
        let Some(child) = self.emulator.as_ref() else { return fail("the device is off".into()) };
        self.signal(child, Signal::STOP);
        let seen = look(&self.disk, &self.folder);
        if matches!(seen, Ok(true)) {
            self.cut();
        } else {
            self.signal(self.emulator.as_ref().expect("still there"), Signal::CONT);
        }
        seen
    }

    /// Looks at the disk while the emulator stands still, so that what is seen is one instant.
    pub fn frozen<T>(&self, look: impl FnOnce(&Disk, &Path) -> Outcome<T>) -> Outcome<T> {
        if let Some(child) = self.emulator.as_ref() {
            self.signal(child, Signal::STOP);
        }
        let seen = look(&self.disk, &self.folder);
        if let Some(child) = self.emulator.as_ref() {
            self.signal(child, Signal::CONT);
        }
        seen
    }

    /// Leaves the emulator running when this value goes; its process group, if it is on.
    pub fn release(&mut self) -> Option<u32> {
        self.emulator.take().map(|child| child.id())
    }

    /// Runs `pvcontrol ARGS` on the device.
    pub fn control(&self, args: &str) -> Outcome<Ran> {
        console::run(&self.console(), args, Duration::from_secs(10))
    }

    /// Waits until `pvcontrol status` satisfies `enough`.
    pub fn wait_status(
        &self,
        what: &str,
        seconds: u64,
        mut enough: impl FnMut(&serde_json::Value) -> bool,
    ) -> Outcome<serde_json::Value> {
        wait_for(what, seconds, || {
            let status = console::run(&self.console(), "status", Duration::from_secs(3))?.json()?;
            Ok(enough(&status).then_some(status))
        })
    }

    fn signal(&self, child: &Child, signal: Signal) {
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.cut();
    }
}
