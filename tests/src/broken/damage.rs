//! What breaks a file system in an image, and what shows that it is broken. The device must be off.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rollback::lab::INITRD;
use crate::tour::device::{Device, Kit};
use crate::tour::disk::{Disk, Part};
use crate::tour::{Outcome, cpio, ensure};

/// Where ext4's superblock is in its partition, and how long it is.
pub const SUPERBLOCK: (u64, usize) = (1024, 1024);
/// Blocks of a group of ext4 with blocks of 4 KiB, in bytes: backups of the superblock begin at multiples of it.
const GROUP: u64 = 32768 * 4096;

/// The image with a partition's place in it, as e2fsprogs take it.
fn place(device: &Device, part: Part) -> String {
    format!("{}?offset={}", device.disk.image.display(), part.start)
}

/// Runs commands of debugfs that write; fails unless each did what it says.
pub fn debugfs(device: &Device, part: Part, commands: &[&str]) -> Outcome<()> {
    for command in commands {
        let mut run = Command::new("debugfs");
        let output = run.args(["-w", "-R", command, &place(device, part)]).stdin(Stdio::null()).output()?;
        // Its first line of errors is its name and version.
        let trouble = String::from_utf8_lossy(&output.stderr).lines().skip(1).collect::<String>();
        ensure(output.status.success() && trouble.is_empty(), || format!("debugfs {command}: {trouble}"))?;
    }
    Ok(())
}

/// What the host's e2fsck says of a partition without changing it: its exit code.
pub fn check(device: &Device, part: Part) -> Outcome<i32> {
    let output = Command::new("e2fsck").args(["-fn", &place(device, part)]).stdin(Stdio::null()).output()?;
    Ok(output.status.code().unwrap_or(-1))
}

/// The file system says of itself that it is damaged, as the kernel lets it when it meets damage.
pub fn mark(device: &Device, part: Part) -> Outcome<()> {
    debugfs(device, part, &["set_super_value state 3"])
}

/// The superblock of a partition, as it is on the disk.
pub fn superblock_of(disk: &Disk, part: Part) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; SUPERBLOCK.1];
    std::fs::File::open(&disk.image)?.read_exact_at(&mut bytes, part.start + SUPERBLOCK.0)?;
    Ok(bytes)
}

/// Zeros over a part of a partition; what was there.
pub fn zero(device: &Device, part: Part, (at, length): (u64, usize)) -> Outcome<Vec<u8>> {
    let image = std::fs::File::options().read(true).write(true).open(&device.disk.image)?;
    let mut before = vec![0; length];
    image.read_exact_at(&mut before, part.start + at)?;
    image.write_all_at(&vec![0; length], part.start + at)?;
    Ok(before)
}

/// Writes back what was there.
pub fn put_back(device: &Device, part: Part, at: u64, bytes: &[u8]) -> Outcome<()> {
    let image = std::fs::File::options().write(true).open(&device.disk.image)?;
    Ok(image.write_all_at(bytes, part.start + at)?)
}

/// No superblock is left, nor a copy of it.
pub fn ruin(device: &Device, part: Part) -> Outcome<()> {
    zero(device, part, (0, 64 << 10))?;
    for at in (1..).map(|group| group * GROUP).take_while(|at| at + 4096 <= part.length) {
        zero(device, part, (at, 4096))?;
    }
    Ok(())
}

/// The entry of the storage partition in the partition table is gone.
pub fn remove_partition(device: &Device) -> Outcome<()> {
    let entry = 446 + 16 * (u64::from(device.disk.board.disk.storage.number) - 1);
    zero(device, Part { start: 0, length: 512 }, (entry, 16)).map(drop)
}

/// The factory image of a device of this kit whose `e2fsck` does not run.
pub fn image_without_e2fsck(kit: &Kit, folder: &Path) -> Outcome<PathBuf> {
    let (repo, image) = (folder.join("repo"), folder.join("factory.img"));
    if image.exists() {
        return Ok(image);
    }
    std::fs::create_dir_all(folder)?;
    let copied = Command::new("cp").arg("-a").arg(kit.repo()).arg(&repo).status()?;
    ensure(copied.success(), || format!("{} could not be copied", kit.repo().display()))?;
    let initrd = cpio::with_file(std::fs::read(repo.join(INITRD))?, "sbin/e2fsck", b"no program");
    std::fs::write(repo.join(INITRD), initrd)?;
    let name = image.display().to_string();
    let disk = ["image", "disk", "--board", kit.board()?.name, "--repo", ".", "--dev", "--out", &name];
    for words in [&["add", "."][..], &["commit", "-m", "no e2fsck"], &disk] {
        let mut pvr = Command::new(kit.pvr());
        let output = pvr
            .args(words)
            .current_dir(&repo)
            .env("PVR_CONFIG_DIR", kit.folder.join(".pvr-home"))
            .stdin(Stdio::null())
            .output()?;
        ensure(output.status.success(), || {
            format!("pvr {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())
        })?;
    }
    Ok(image)
}
