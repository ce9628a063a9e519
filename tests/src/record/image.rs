//! Small disks to be recorded: the kit's factory revision, told to mark what it does, with as little room as it needs.
//!
//! Invariants: the kit is only read. What is told stands in the initramfs of the factory revision, so that every revision
//! made from it marks too, and is broken in the same way.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boards::Board;

use crate::replay::recording::Control;
use crate::rollback::lab::{INITRD, KERNEL};
use crate::takeover::original::{self, Revision};
use crate::tour::device::Kit;
use crate::tour::{Outcome, cpio, ensure, fail};

/// A sector between the partition table and the first partition.
pub const MARK_SECTOR: u64 = 2040;
/// What tells the device.
const WORDS: &str = "etc/switchback.fault";
/// The device's policy.
const POLICY: &str = "etc/pantavisor.config";
const MIB: u64 = 1 << 20;
/// Room before the boot partition: partition table, environment.
const FRONT: u64 = 9 * MIB;

/// A kind of device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing writes unless it is asked to.
    Quiet,
    /// With a container that writes every second.
    Busy,
    /// Quiet, and its endpoint serves who is paired.
    Paired,
    /// Quiet, and its keeper changes metadata whenever revisions are listed: nothing else of it does so yet.
    Noting,
}

impl Kind {
    /// Its name in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Busy => "busy",
            Self::Paired => "paired",
            Self::Noting => "noting",
        }
    }
}

/// Makes the factory image of such a device below `folder`.
pub fn make(kit: &Kit, folder: &Path, kind: Kind, control: Control) -> Outcome<PathBuf> {
    let board = kit.board()?;
    let (repo, home) = (folder.join("repo"), folder.join("pool"));
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    copy(&kit.repo(), &repo)?;
    copy(&kit.folder.join(".pvr-home"), &home)?;
    if kind != Kind::Busy {
        std::fs::remove_dir_all(repo.join("counter"))?;
    }
    let factory = std::fs::read(repo.join(INITRD))?;
    let mut words = format!("marks={}:{MARK_SECTOR}", whole_disk(board)?);
    if control != Control::None {
        words += &format!(" {}", control.word());
    }
    if kind == Kind::Noting {
        words += " metadata";
    }
    let mut initrd = cpio::with_file(factory, WORDS, words.as_bytes());
    if kind == Kind::Paired {
        let policy = policy(&kit.repo().join(INITRD))?;
        let paired = policy.replace("endpoint-access=open", "endpoint-access=paired-plain");
        ensure(policy != paired, || format!("the kit's endpoint is not open: {policy}"))?;
        initrd = cpio::with_file(initrd, POLICY, paired.as_bytes());
    }
    std::fs::write(repo.join(INITRD), initrd)?;
    let pvr = |words: &[&str]| -> Outcome<()> {
        let output = Command::new(kit.pvr())
            .args(words)
            .current_dir(&repo)
            .env("PVR_CONFIG_DIR", &home)
            .stdin(Stdio::null())
            .output()?;
        ensure(output.status.success(), || {
            format!("pvr {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())
        })
    };
    pvr(&["add", "."])?;
    pvr(&["commit", "-m", "to be recorded"])?;
    let image = folder.join("factory.img");
    if board.is_taken_over() {
        originals(&Kit { folder: folder.into() }, &image)?;
        return Ok(image);
    }
    let (boot, storage) = room(&repo)?;
    let size = |bytes: u64| format!("{}M", bytes.div_ceil(MIB));
    let (name, boot, whole) = (image.display().to_string(), size(boot), size(FRONT + boot + storage));
    let disk = ["image", "disk", "--board", board.name, "--repo", ".", "--dev", "--out", &name];
    pvr(&[&disk[..], &["--boot-size", &boot, "--size", &whole]].concat())?;
    Ok(image)
}

/// The disk of a device of the original, which has installed what stands in the repository of `told`, and is about to try it.
fn originals(told: &Kit, image: &Path) -> Outcome<()> {
    let revisions = [Revision::original(told, original::THEIRS, &told.folder)?, Revision::of(told, original::OURS)?];
    let text = format!("pv_rev={} pv_try={} pv_prevx=kept", original::THEIRS, original::OURS);
    original::make(&told.folder, &revisions, &original::text(&text), image)
}

/// Bytes that boot and storage partition need: what the factory revision has, and some revisions more.
fn room(repo: &Path) -> Outcome<(u64, u64)> {
    let size = |name: &str| std::fs::metadata(repo.join(name)).map(|file| file.len());
    let mut all = 0;
    let mut folders = vec![repo.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => all += entry.metadata()?.len(),
            }
        }
    }
    Ok((size(KERNEL)? + 6 * size(INITRD)? + 10 * MIB, all + 8 * size(INITRD)? + 16 * MIB))
}

/// The disk that the board's partitions are on, as the guest calls it.
fn whole_disk(board: &Board) -> Outcome<&'static str> {
    let disk = board.disk.storage.device.trim_end_matches(|c: char| c.is_ascii_digit());
    match disk.starts_with("/dev/vd") {
        true => Ok(disk),
        false => fail(format!("{} has no virtio disk: another one passes no flush", board.name)),
    }
}

/// The policy in an initramfs as `pvr image bsp` makes it.
fn policy(initrd: &Path) -> Outcome<String> {
    let unpack = format!("gzip -dc \"$0\" | cpio --quiet -i --to-stdout {POLICY}");
    let output = Command::new("sh").args(["-c", &unpack]).arg(initrd).stdin(Stdio::null()).output()?;
    ensure(output.status.success() && !output.stdout.is_empty(), || format!("{}: no policy", initrd.display()))?;
    Ok(String::from_utf8(output.stdout)?)
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure(copied.success(), || format!("{} could not be copied", from.display()))
}
