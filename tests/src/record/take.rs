//! One recording: a settled device starts with its disk behind QEMU's write log, does one thing, and comes to rest.
//!
//! Invariants: the folder appears under its name when the recording is whole and its log, replayed over the disk before,
//! gives the disk after, byte for byte. The emulator is told to end and not killed: a write that had been completed
//! and not been logged would be missing.
//! Does not: judge what was written (`counts` does, and `replay`).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::image::Kind;
use crate::replay::log::{Kind as EntryKind, Log};
use crate::replay::recording::{Recording, Told};
use crate::rollback::lab::{Change, Ended, Lab};
use crate::tour::device::copy_with_holes;
use crate::tour::{Outcome, ensure, fail, wait_for};

/// How long nothing may have been written before a disk is at rest: the guest's file systems write what waits every 5 s.
const REST: Duration = Duration::from_secs(6);
/// After this time what was written to a file system is in its place.
const WRITTEN_BACK: Duration = Duration::from_secs(40);

/// A recording that is being made.
pub struct Take<'a> {
    /// The device; on.
    pub lab: &'a mut Lab,
    log: PathBuf,
    recording: Recording,
    kind: Kind,
}

impl<'a> Take<'a> {
    /// Switches a device on with its disk behind a log, and waits for it to come to rest, unless its `start` is what
    /// is recorded. `recording` says what it will be; its folder is made anew, under another name until it is whole.
    pub fn begin(lab: &'a mut Lab, recording: Recording, kind: Kind, start: bool) -> Outcome<Self> {
        let folder = recording.folder.with_extension("part");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let mut take = Self { lab, log: folder.join("write.log"), recording, kind };
        copy_with_holes(&take.lab.device.disk.image, &folder.join("before.img"))?;
        take.recording.committed = take.lab.env()?.rev;
        File::create(&take.log)?;
        take.lab.device.power_on_with(&behind(&take.log))?;
        take.lab.ready()?;
        if !start {
            take.rest()?;
            take.recording.begin = take.entries()?;
        }
        Ok(take)
    }

    /// Entries of the log.
    pub fn entries(&self) -> Outcome<u64> {
        let mut number = [0; 8];
        File::open(&self.log)?.read_exact_at(&mut number, 16)?;
        Ok(u64::from_le_bytes(number))
    }

    /// Notes what a client was told just now.
    pub fn told(&mut self, what: &str) -> Outcome<()> {
        let entry = self.entries()?;
        self.recording.told.push(Told { entry, text: format!("ack {what}") });
        Ok(())
    }

    /// Installs a revision with this change and follows it to its end.
    pub fn update(&mut self, change: Change, message: &str) -> Outcome<Ended> {
        self.update_as(None, change, message)
    }

    /// As [`Take::update`], under this name, if there is one.
    pub fn update_as(&mut self, rev: Option<&str>, change: Change, message: &str) -> Outcome<Ended> {
        let rev = self.lab.install_as(rev, change, message)?;
        self.recording.revisions.push(rev.clone());
        self.told(&format!("staged {rev}"))?;
        let ended = self.lab.ended(&rev)?;
        self.told(format!("{} {rev} {}", ended.status, ended.code).trim_end())?;
        Ok(ended)
    }

    /// As [`Take::update`]; fails unless it ends so.
    pub fn update_ends(&mut self, change: Change, message: &str, status: &str) -> Outcome<()> {
        let ended = self.update(change, message)?;
        ensure(ended.status == status, || format!("it ended as {ended:?}, not {status}"))
    }

    /// Prepares the next round: what is done is in the log, and no state is made of it.
    pub fn aside(&mut self, prepare: impl FnOnce(&mut Self) -> Outcome<()>) -> Outcome<()> {
        let from = self.entries()?;
        prepare(self)?;
        self.rest()?;
        self.recording.asides.push((from, self.entries()?));
        Ok(())
    }

    /// Waits until the file systems have written in place what they had only in their journals: the guest's kernel does
    /// so with what is older than 30 s, and looks every 5 s.
    pub fn written_back(&self) -> Outcome<()> {
        std::thread::sleep(WRITTEN_BACK);
        self.rest()
    }

    /// Waits until nothing has been written for a while; a busy device is left to itself for as long.
    pub fn rest(&self) -> Outcome<()> {
        if self.kind == Kind::Busy {
            std::thread::sleep(REST);
            return Ok(());
        }
        let mut last = (self.entries()?, Instant::now());
        wait_for("a disk at rest", 120, || {
            let now = self.entries()?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((last.1.elapsed() >= REST).then_some(()))
        })
    }

    /// Ends the emulator and completes the recording.
    pub fn end(mut self) -> Outcome<Recording> {
        self.rest()?;
        self.lab.device.end()?;
        let folder = self.recording.folder.with_extension("part");
        let after = folder.join("after.img");
        copy_with_holes(&self.lab.device.disk.image, &after)?;
        is_exact(&folder.join("before.img"), &self.log, &after)?;
        let name = std::mem::replace(&mut self.recording.folder, folder);
        self.recording.write()?;
        let _ = std::fs::remove_dir_all(&name);
        std::fs::rename(&self.recording.folder, &name)?;
        self.recording.folder = name;
        Ok(self.recording)
    }
}

/// The emulator's arguments that put its disk behind a log.
fn behind(log: &Path) -> Vec<String> {
    let file = format!("log.filename={}", log.display());
    let options =
        ["format=blklogwrites", "log.driver=file", &file, "log-sector-size=512", "log-super-update-interval=1"];
    options.iter().flat_map(|option| ["-set".to_string(), format!("drive.disk.{option}")]).collect()
}

/// Fails unless the log makes the disk after of the disk before.
fn is_exact(before: &Path, log: &Path, after: &Path) -> Outcome<()> {
    let made = after.with_extension("made");
    copy_with_holes(before, &made)?;
    let disk = File::options().write(true).open(&made)?;
    let log = Log::read(log, disk.metadata()?.len())?;
    let mut data = Vec::new();
    for entry in &log.entries {
        match entry.kind {
            EntryKind::Write(at) => {
                data.resize(entry.length as usize, 0);
                log.data(at, &mut data)?;
                disk.write_all_at(&data, entry.at)?;
            }
            EntryKind::Discard => return fail("the guest gave up blocks: what they hold is not known".into()),
            EntryKind::Nothing => {}
        }
    }
    (&disk).flush()?;
    let same = std::process::Command::new("cmp").arg("-s").arg(&made).arg(after).status()?.success();
    std::fs::remove_file(&made)?;
    ensure(same, || "the log does not make the disk that the emulator left".into())
}
