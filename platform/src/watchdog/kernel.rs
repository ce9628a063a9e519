//! The kernel's watchdogs: found in the class folder, opened as `/dev/watchdogN`.
//!
//! Looking at one in the class folder does not start it; opening it does. Only drivers of the kernel's watchdog core
//! are in that folder, which are all that we know.

use crate::{
    sys,
    watchdog::{Device, Devices, choice::Found},
};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
};
use std::path::{Path, PathBuf};

/// The devices of this machine.
pub struct Kernel {
    class: PathBuf,
    dev: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Kernel {
    /// With `/sys` and `/dev` below this folder.
    pub fn below(root: &Path) -> Self {
        Self { class: root.join("sys/class/watchdog"), dev: root.join("dev") }
    }

    fn attribute(&self, number: u32, name: &str) -> PathBuf {
        self.class.join(format!("watchdog{number}")).join(name)
    }
}

impl Devices for Kernel {
    fn found(&self) -> Vec<Found> {
        let Ok(entries) = std::fs::read_dir(&self.class) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let numbers = names.filter_map(|name| name.strip_prefix("watchdog")?.parse().ok());
        let found = numbers.map(|number| {
            let text = |name| std::fs::read_to_string(self.attribute(number, name)).unwrap_or_default();
            let seconds = |name| text(name).trim().parse().unwrap_or(0);
            let (shortest_s, longest_s) = (seconds("min_timeout"), seconds("max_timeout"));
            Found { number, identity: text("identity").trim().into(), shortest_s, longest_s }
        });
        found.collect()
    }

    fn open(&self, number: u32) -> Result<Box<dyn Device>, Errno> {
        // Before it is opened: some drivers lock their hardware as it starts. A kernel older than that has a file that
        // cannot be written, and is served as well.
        let _ = std::fs::write(self.attribute(number, "nowayout"), "1");
        let path = self.dev.join(format!("watchdog{number}"));
        let opened = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        opened.map(|device| Box::new(Open(device)) as Box<dyn Device>)
    }
}

struct Open(OwnedFd);

impl Device for Open {
    fn set_timeout(&mut self, seconds: u32) -> Result<u32, Errno> {
        sys::watchdog_set_timeout(&self.0, seconds)
    }

    fn timeout(&self) -> Result<u32, Errno> {
        sys::watchdog_timeout(&self.0)
    }

    fn boot_status(&self) -> Result<u32, Errno> {
        sys::watchdog_boot_status(&self.0)
    }

    fn feed(&mut self) -> Result<(), Errno> {
        // Any byte but `V`, which would let it be stopped.
        rustix::io::write(&self.0, b"\0").map(drop)
    }
}
