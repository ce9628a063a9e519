//! The device under test: READY, with a working copy of its state; candidates go in, and what became of them comes out.
//!
//! Invariants: a change of the working copy is taken back once it is posted. What the loader did is read from the log
//! of all boots, what was decided from the environment on the disk, and why from the status.

use std::path::Path;

use boards::Board;
use serde_json::Value;

use crate::tour::device::{Device, Kit};
use crate::tour::disk::Env;
use crate::tour::pvr::Work;
use crate::tour::{Outcome, cpio, ensure, fail, wait_for};

/// Longest time from power to READY on a slow, busy machine; seconds.
pub const BOOT_S: u64 = 120;
/// Longest time of an update and all tries of its candidate, each of which a watchdog may have to end; seconds.
const UPDATE_S: u64 = 420;
/// Final statuses of an update: device-formats 3.2.
const FINAL: [&str; 4] = ["DONE", "UPDATED", "WONTGO", "ERROR"];
/// The kernel.
pub const KERNEL: &str = "bsp/kernel.img";
/// The initramfs.
pub const INITRD: &str = "bsp/initrd.img";

/// Files of the working copy with the content that a candidate has instead.
pub type Change = Vec<(&'static str, Vec<u8>)>;

/// The device.
pub struct Lab {
    /// The device itself.
    pub device: Device,
    /// What it is.
    pub board: &'static Board,
    work: Option<Work>,
    serial: u32,
}

/// How an update ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `DONE`, `ERROR`, ...
    pub status: String,
    /// The stable code; empty if it did not fail.
    pub code: String,
    /// Boots of the candidate that reached PID 1's own record.
    pub tries: u64,
}

impl Lab {
    /// A new device from the kit, on and READY.
    pub fn switch_on(kit: &Kit, folder: &Path) -> Outcome<Self> {
        let mut lab = Self::with(kit, Device::new(kit, folder)?)?;
        lab.starts()?;
        lab.take_copy()?;
        Ok(lab)
    }

    /// A device of the kit, on or off, without a working copy.
    pub fn with(kit: &Kit, device: Device) -> Outcome<Self> {
        let binary = std::fs::read(kit.folder.join("switchback"))?;
        let told = b"/etc/switchback.fault";
        ensure(binary.windows(told.len()).any(|window| window == told), || {
            "the device cannot be told to break: make it with SWITCHBACK_FEATURES=faults ci/device".into()
        })?;
        Ok(Self { board: kit.board()?, device, work: None, serial: 0 })
    }

    /// Takes a working copy of what the device runs.
    pub fn take_copy(&mut self) -> Outcome<()> {
        let url = format!("http://127.0.0.1:{}", self.device.ports.endpoint);
        self.work = Some(Work::clone(&self.device.pvr(), &url, self.device.folder())?);
        Ok(())
    }

    fn work(&self) -> Outcome<&Work> {
        self.work.as_ref().ok_or_else(|| "nobody has taken a working copy".into())
    }

    /// Another device in the place of this one.
    pub fn begin_anew(&mut self, kit: &Kit, folder: &Path) -> Outcome<()> {
        self.device.cut();
        let folder = folder.join(format!("anew-{}", self.device.said("U-Boot 20")));
        *self = Self::switch_on(kit, &folder)?;
        Ok(())
    }

    /// Waits until the device is READY; its status.
    pub fn ready(&self) -> Outcome<Value> {
        let ready = self.device.wait_status("the device READY", BOOT_S, |status| status["status"] == "READY");
        ready.map_err(|error| format!("{error}; its log: {}", self.device.log().display()).into())
    }

    /// Power on, READY.
    pub fn starts(&mut self) -> Outcome<Value> {
        self.device.power_on()?;
        self.ready()
    }

    /// What the loader decides by.
    pub fn env(&self) -> Outcome<Env> {
        self.device.disk.env()
    }

    /// Content of a file of the working copy.
    pub fn file(&self, name: &str) -> Outcome<Vec<u8>> {
        self.work()?.read(name)
    }

    /// The folder of the working copy: what is changed there is in every revision from now on.
    pub fn folder(&self) -> Outcome<&Path> {
        Ok(&self.work()?.folder)
    }

    /// Sends the objects of the working copy, and no revision.
    pub fn send_objects(&self) -> Outcome<()> {
        let work = self.work()?;
        work.commit("objects")?;
        let url = format!("http://127.0.0.1:{}/cgi-bin/pvr/objects", self.device.ports.endpoint);
        work.run(&["putobjects", &url]).map(drop)
    }

    /// The initramfs with one file more, or another one in its place.
    pub fn initrd_with(&self, file: &str, content: &[u8]) -> Outcome<Vec<u8>> {
        Ok(cpio::with_file(self.work()?.read(INITRD)?, file, content))
    }

    /// A base that differs from every other one and works.
    pub fn another_base(&mut self) -> Outcome<Change> {
        self.serial += 1;
        Ok(vec![(INITRD, self.initrd_with("etc/note", format!("base {}\n", self.serial).as_bytes())?)])
    }

    /// Posts a revision with this change, and takes the change back. The device begins to try it.
    pub fn install(&mut self, change: Change, message: &str) -> Outcome<String> {
        self.install_as(None, change, message)
    }

    /// As [`Lab::install`], under this name, if there is one.
    pub fn install_as(&mut self, rev: Option<&str>, change: Change, message: &str) -> Outcome<String> {
        let before: Outcome<Change> = change.iter().map(|(file, _)| Ok((*file, self.work()?.read(file)?))).collect();
        for (file, content) in change {
            self.work()?.write(file, content)?;
        }
        let posted = self.work()?.post_as(self.device.ports.endpoint, message, rev);
        for (file, content) in before? {
            self.work()?.write(file, content)?;
        }
        posted
    }

    /// Follows the update to `rev` to its end; the device may reboot meanwhile.
    pub fn ended(&self, rev: &str) -> Outcome<Ended> {
        let status = self.device.wait_status(&format!("the end of the update to {rev}"), UPDATE_S, |status| {
            let update = &status["update"];
            update["revision"] == rev && FINAL.iter().any(|word| update["status"] == *word)
        })?;
        let text = |key: &str| status["update"][key].as_str().unwrap_or_default().to_string();
        let tries = status["update"]["tries"].as_u64().unwrap_or(0);
        Ok(Ended { status: text("status"), code: text("code"), tries })
    }

    /// How often the loader said that it boots `rev`.
    pub fn boots_of(&self, rev: &str) -> usize {
        self.device.said(&format!("PV boot {rev}\r"))
    }

    /// Fails unless the device is READY on `rev`, and its environment is `env` and names nothing else.
    pub fn is_back(&self, rev: &str, env: &Env) -> Outcome<()> {
        let status = self.ready()?;
        ensure(status["revision"] == rev && status["committed"] == rev, || {
            format!("runs another than {rev}: {status}")
        })?;
        let now = self.env()?;
        ensure(now == *env, || format!("the environment was {env:?} and is {now:?}"))
    }

    /// Waits until the log says something once more than `before`.
    pub fn says(&self, words: &str, before: usize, seconds: u64) -> Outcome<()> {
        wait_for(&format!("the log saying `{words}`"), seconds, || Ok((self.device.said(words) > before).then_some(())))
    }

    /// Cuts the power once the environment on the disk satisfies `look`.
    pub fn cut_when(&mut self, what: &str, mut look: impl FnMut(&Env) -> bool) -> Outcome<()> {
        for _ in 0..4_000 {
            if self.device.cut_if(|disk, _| Ok(look(&disk.env()?)))? {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(40));
        }
        fail(format!("the environment never showed: {what}"))
    }
}
