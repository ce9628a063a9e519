//! What the disk of the emulated device holds, read from outside, running or not.
//!
//! Invariants: the image is only read. Of an ext4 partition a sparse copy is made and its journal is replayed in the
//! copy: that is what the device itself would find if it were cut off at this instant. The environment is read
//! through `boards`, by the same codec as the device's, and for people by `fw_printenv`.
//! Fault model: the copy of a running device's partition is taken while the emulator is stopped, so it is one instant.
//! Does not: look into the guest's memory; what the guest did not write yet is not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boards::{Board, Flash, Medium, env::uboot};
use runtime::fault::Code;
use runtime::journal::{self, Record};
use runtime::port::Region;
use sha2::{Digest, Sha256};
use simulator::frozen::Frozen;

use super::{Outcome, ensure, fail};

const SECTOR: u64 = 512;

/// A partition of the image, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where it starts.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// The image file and where its partitions are.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The image.
    pub image: PathBuf,
    /// The board that boots it.
    pub board: &'static Board,
    /// What holds the environment: a partition, the whole disk, or flash beside it.
    pub env: Part,
    /// The file that `env` is a part of.
    pub env_image: PathBuf,
    /// The ext4 partition that the loader reads.
    pub boot: Part,
    /// The ext4 partition with objects, trails and volumes.
    pub storage: Part,
}

/// The variables that decide, as the selected copy of the environment has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// The committed revision.
    pub rev: String,
    /// The candidate, or empty.
    pub candidate: String,
    /// The revision to step back to, or empty.
    pub prev: String,
    /// Whether a trial is armed.
    pub armed: bool,
    /// Boots of the candidate that the loader counted.
    pub bootcount: u32,
}

impl Disk {
    /// Reads the partition table of `image`, which was made for `board`.
    pub fn open(image: &Path, board: &'static Board) -> Outcome<Self> {
        let mut sector = [0; 512];
        let mut file = File::open(image)?;
        file.read_exact(&mut sector)?;
        let whole = Part { start: 0, length: file.metadata()?.len() };
        let part = |number: u8| {
            let Some(index) = usize::from(number).checked_sub(1) else { return whole };
            let entry = &sector[446 + 16 * index..462 + 16 * index];
            let word = |at: usize| u64::from(u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes")));
            Part { start: word(8) * SECTOR, length: word(12) * SECTOR }
        };
        let disk = &board.disk;
        let [env, boot, storage] = [disk.env, disk.boot, disk.storage].map(|place| part(place.number));
        if sector[510..] != [0x55, 0xaa] || [env, boot, storage].iter().any(|part| part.length == 0) {
            return fail(format!("{}: no partition table of {}", image.display(), board.name));
        }
        let disk = Self { image: image.into(), board, env, env_image: image.into(), boot, storage };
        let Some(flash) = disk.flash() else { return Ok(disk) };
        let env_image = image.with_extension("flash");
        let whole = Part { start: 0, length: std::fs::metadata(&env_image)?.len() };
        ensure(flash.offset < whole.length, || format!("{} is too small", env_image.display()))?;
        Ok(Self { env: whole, env_image, ..disk })
    }

    /// Where the environment is in flash, if it is there.
    pub fn flash(&self) -> Option<Flash> {
        match self.board.env {
            boards::Env::Uboot { medium: Medium::Mtd(copies), .. } => copies.as_slice().first().copied(),
            _ => None,
        }
    }

    /// All copies of the environment, raw: equal bytes mean that nobody stored anything. Of a device that was taken over the
    /// loader's text, as a loader finds it, which replays no journal.
    pub fn env_bytes(&self) -> Outcome<Vec<u8>> {
        if let boards::Env::UbootTxt { file, .. } = self.board.env {
            return self.as_the_loader_reads(&format!("/boot/{file}"));
        }
        let (layout, mut region) = self.layout()?;
        let mut all = Vec::new();
        for offset in layout.offsets() {
            let mut copy = vec![0; layout.size];
            region.read_at(*offset, &mut copy).map_err(|code| format!("{code:?} while reading the environment"))?;
            all.extend(copy);
        }
        Ok(all)
    }

    /// A file of the boot partition, without its journal replayed. Like a loader, it looks at no bitmap, of which those of a
    /// running device need not agree with their checksums.
    pub fn as_the_loader_reads(&self, file: &str) -> Outcome<Vec<u8>> {
        let copy = self.image.with_extension("loader");
        let _ = std::fs::remove_file(&copy);
        let request = format!("dump {file} {}", copy.display());
        let image = format!("{}?offset={}", self.image.display(), self.boot.start);
        let output = Command::new("debugfs").args(["-c", "-R", &request, &image]).stdin(Stdio::null()).output()?;
        std::fs::read(&copy).map_err(|_| format!("{file}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    /// The variables of the copy that the loader would select.
    pub fn env(&self) -> Outcome<Env> {
        if self.board.is_taken_over() {
            let list = self.env_bytes()?;
            let text = |name: &str| {
                uboot::value(&list, name).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
            };
            let candidate = text("pv_try");
            let armed = !candidate.is_empty();
            return Ok(Env { rev: text("pv_rev"), candidate, prev: text("pv_prev"), armed, bootcount: 0 });
        }
        let (layout, _) = self.layout()?;
        let all = self.env_bytes()?;
        let copies: Vec<&[u8]> = all.chunks(layout.size).collect();
        let flags = [0, 1].map(|index| copies.get(index).and_then(|copy| layout.flags(copy)));
        let Some(chosen) = layout.select(flags) else {
            return fail("every copy of the environment is bad".into());
        };
        let data = &copies[chosen][layout.header()..];
        let text = |name: &str| {
            uboot::value(data, name).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
        };
        Ok(Env {
            rev: text("pv_rev"),
            candidate: text("pv_try"),
            prev: text("pv_prev"),
            armed: text("upgrade_available") == "1",
            bootcount: text("bootcount").parse().unwrap_or(0),
        })
    }

    /// Stores what the lines `name=value` say, at once, as an owner does with the device's card in a reader; an empty
    /// value removes the variable. The device must be off.
    pub fn fw_setenv(&self, lines: &str, scratch: &Path) -> Outcome<()> {
        let script = scratch.join("fw_setenv.script");
        std::fs::write(&script, lines)?;
        let mut command = Command::new("fw_setenv");
        let output = command.arg("-c").arg(self.fw_config(scratch)?).arg("-s").arg(script).output()?;
        ensure(output.status.success(), || format!("fw_setenv: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// A configuration of the environment tools for this image.
    fn fw_config(&self, scratch: &Path) -> Outcome<PathBuf> {
        let (layout, _) = self.layout()?;
        let config = scratch.join("fw_env.config");
        // Flash is erased before it is written: the tool has to know in which pieces.
        let erase = self.flash().map_or(String::new(), |flash| format!(" {:#x}", flash.erase));
        let file = self.env_image.display();
        let line = |offset: u64| format!("{file} {:#x} {:#x}{erase}\n", self.env.start + offset, layout.size);
        std::fs::write(&config, layout.offsets().iter().map(|offset| line(*offset)).collect::<String>())?;
        Ok(config)
    }

    /// What `fw_printenv` says of one variable: the tool that everybody else uses agrees with our codec.
    pub fn fw_printenv(&self, name: &str, scratch: &Path) -> Outcome<String> {
        let config = self.fw_config(scratch)?;
        let output = Command::new("fw_printenv").arg("-c").arg(&config).args(["-n", name]).output()?;
        if !output.status.success() {
            return fail(format!("fw_printenv {name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }

    /// An instant of the storage partition; see [`Snapshot`].
    pub fn storage(&self, scratch: &Path) -> Outcome<Snapshot> {
        Snapshot::take(&self.image, self.storage, scratch.join("storage.ext4"))
    }

    /// An instant of the boot partition.
    pub fn boot(&self, scratch: &Path) -> Outcome<Snapshot> {
        Snapshot::take(&self.image, self.boot, scratch.join("boot.ext4"))
    }

    /// The newest record of the journal; `None` if there is none. The file never moves, so no snapshot is needed.
    pub fn journal(&self, scratch: &Path) -> Outcome<Option<Record>> {
        let mut bytes = Frozen(self.journal_bytes(scratch)?);
        journal::load(&mut bytes).map_err(|code| format!("{code:?} while reading the journal").into())
    }

    /// The journal's bytes: equal bytes mean that nobody recorded anything.
    pub fn journal_bytes(&self, scratch: &Path) -> Outcome<Vec<u8>> {
        if self.board.is_taken_over() {
            return self.as_the_loader_reads("/boot/journal");
        }
        let copy = scratch.join("journal");
        let image = format!("{}?offset={}", self.image.display(), self.boot.start);
        debugfs(Path::new(&image), &scratch.join("journal.commands"), &format!("dump /journal {}\n", copy.display()))?;
        Ok(std::fs::read(copy)?)
    }

    /// Where the copies of the environment are in their partition.
    pub fn env_layout(&self) -> Outcome<uboot::Layout> {
        Ok(self.layout()?.0)
    }

    fn layout(&self) -> Outcome<(uboot::Layout, Window)> {
        let board = self.board;
        let mut region = Window { file: File::open(&self.env_image)?, part: self.env };
        let layout = board.layout(&mut region).map_err(|code| format!("{code:?} while locating the environment"))?;
        Ok((layout, region))
    }
}

/// A partition of the image as a region of bytes, read only.
struct Window {
    file: File,
    part: Part,
}

impl Region for Window {
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> Result<(), Code> {
        if at + out.len() as u64 > self.part.length {
            return Err(Code::StorageIo);
        }
        self.file.read_exact_at(out, self.part.start + at).map_err(|_| Code::StorageIo)
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), Code> {
        Err(Code::StorageIo)
    }

    fn sync(&mut self) -> Result<(), Code> {
        Err(Code::StorageIo)
    }

    fn drop_cache(&mut self) {}
}

/// A copy of an ext4 partition with its journal replayed.
pub struct Snapshot(PathBuf);

impl Snapshot {
    fn take(image: &Path, part: Part, copy: PathBuf) -> Outcome<Self> {
        copy_sparse(&mut File::open(image)?, part, &copy)?;
        // Its exit code tells what it did; whether the result can be read is what counts.
        Command::new("e2fsck").args(["-y", "-E", "journal_only"]).arg(&copy).stdin(Stdio::null()).output()?;
        let snapshot = Self(copy);
        ensure(snapshot.exists("/")?, || "the copy of a file system cannot be read".into())?;
        Ok(snapshot)
    }

    fn debugfs(&self, commands: &str) -> Outcome<String> {
        debugfs(&self.0, &self.0.with_extension("commands"), commands)
    }

    /// Names in a folder; none if there is no such folder.
    pub fn names(&self, folder: &str) -> Outcome<Vec<String>> {
        let listing = self.debugfs(&format!("ls -p \"{folder}\"\n"))?;
        let name = |line: &str| line.strip_prefix('/')?.split('/').nth(4).map(str::to_string);
        Ok(listing.lines().filter_map(name).filter(|name| !matches!(name.as_str(), "" | "." | "..")).collect())
    }

    /// A file's content; `None` if there is no such file.
    pub fn read(&self, file: &str) -> Outcome<Option<String>> {
        let scratch = self.0.with_extension("file");
        let _ = std::fs::remove_file(&scratch);
        self.debugfs(&format!("dump \"{file}\" {}\n", scratch.display()))?;
        match std::fs::read(&scratch) {
            // debugfs makes the output before it looks for the input.
            Ok(bytes) if bytes.is_empty() && !self.exists(file)? => Ok(None),
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is such a file or folder.
    pub fn exists(&self, path: &str) -> Outcome<bool> {
        Ok(self.debugfs(&format!("stat \"{path}\"\n"))?.contains("Inode:"))
    }

    /// A file's size in bytes, if it is there.
    pub fn size(&self, file: &str) -> Outcome<Option<u64>> {
        let stat = self.debugfs(&format!("stat \"{file}\"\n"))?;
        Ok(stat.split("Size: ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok()))
    }

    /// Every file below `folders`, with the sha256 of what it holds. Hard links are read once.
    pub fn hashes(&self, folders: &[&str]) -> Outcome<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
        let mut level: Vec<String> = folders.iter().map(ToString::to_string).collect();
        let mut files = Vec::new();
        while !level.is_empty() {
            let listing =
                self.debugfs(&level.iter().map(|folder| format!("ls -p \"{folder}\"\n")).collect::<String>())?;
            level.clear();
            for entry in entries(&listing) {
                if entry.is_folder {
                    found.insert(format!("{}/", entry.path), String::new());
                    level.push(entry.path);
                } else {
                    inodes.insert(entry.inode, String::new());
                    files.push(entry);
                }
            }
        }
        self.hash_inodes(&mut inodes)?;
        found.extend(files.into_iter().map(|entry| (entry.path, inodes[&entry.inode].clone())));
        Ok(found)
    }

    fn hash_inodes(&self, inodes: &mut BTreeMap<u64, String>) -> Outcome<()> {
        let folder = self.0.with_extension("inodes");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let dump = |inode: &u64| format!("dump <{inode}> {}\n", folder.join(inode.to_string()).display());
        self.debugfs(&inodes.keys().map(dump).collect::<String>())?;
        for (inode, hash) in inodes {
            // What is no regular file, such as a symlink, has nothing to dump: its name and inode stand for it.
            *hash = hash_file(&folder.join(inode.to_string())).unwrap_or_else(|_| format!("inode {inode}"));
        }
        Ok(std::fs::remove_dir_all(&folder)?)
    }
}

/// A line of debugfs's listing of a folder.
struct Entry {
    path: String,
    inode: u64,
    is_folder: bool,
}

/// The entries in the output of several `ls -p`, each behind a line that repeats the command.
fn entries(listing: &str) -> Vec<Entry> {
    let mut folder = "";
    let mut found = Vec::new();
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix("debugfs: ls -p \"") {
            folder = name.trim_end_matches('"');
            continue;
        }
        let fields: Vec<&str> = line.split('/').collect();
        let [_, inode, mode, _, _, name, ..] = fields[..] else { continue };
        if let (Ok(inode), false) = (inode.parse(), matches!(name, "" | "." | "..")) {
            found.push(Entry { path: format!("{folder}/{name}"), inode, is_folder: mode.starts_with("04") });
        }
    }
    found
}

/// Copies a partition, leaving out what is all zero.
fn copy_sparse(image: &mut File, part: Part, copy: &Path) -> io::Result<()> {
    let out = File::create(copy)?;
    out.set_len(part.length)?;
    image.seek(SeekFrom::Start(part.start))?;
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < part.length {
        let length = piece.len().min((part.length - at) as usize);
        image.read_exact(&mut piece[..length])?;
        if piece[..length].iter().any(|byte| *byte != 0) {
            out.write_all_at(&piece[..length], at)?;
        }
        at += length as u64;
    }
    Ok(())
}

/// Runs debugfs with commands from a file, and returns what it printed; its messages about missing files are an answer.
fn debugfs(image: &Path, script: &Path, commands: &str) -> Outcome<String> {
    std::fs::write(script, commands)?;
    let output =
        Command::new("debugfs").arg("-f").arg(script).arg(image).env("PAGER", "cat").stdin(Stdio::null()).output()?;
    let trouble = String::from_utf8_lossy(&output.stderr);
    // It ends well even when it could not open the file system; then nothing that it says is an answer.
    if !output.status.success() || trouble.contains("Filesystem not open") {
        return fail(format!("debugfs {}: {}", image.display(), trouble.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The sha256 of a file, in lower-case hex: an object's name.
pub fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&piece[..length]),
        }
    }
}

/// The names whose hashes differ.
pub fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&str> = before.keys().chain(after.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| before.get(*name) != after.get(*name));
    names.join(", ")
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_changed_came_and_went() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        assert_eq!(difference(&map(&[("a", "1"), ("b", "2")]), &map(&[("a", "1"), ("b", "3"), ("c", "")])), "b, c");
    }

    #[test]
    fn a_partition_is_read_as_it_would_be_found() {
        let scratch = std::env::temp_dir().join(format!("switchback-disk-{}", std::process::id()));
        let tree = scratch.join("in");
        std::fs::create_dir_all(tree.join("trails/locals")).unwrap();
        std::fs::write(tree.join("trails/locals/text"), "hello\n").unwrap();
        std::fs::write(tree.join("empty"), "").unwrap();
        let image = scratch.join("disk.img");
        File::create(&image).unwrap().set_len(12 << 20).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "offset=4194304", "-d"])
            .arg(&tree)
            .arg(&image)
            .arg("8192k")
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let part = Part { start: 4 << 20, length: 8 << 20 };
        let snapshot = Snapshot::take(&image, part, scratch.join("copy")).unwrap();
        assert_eq!(snapshot.names("/trails").unwrap(), ["locals"]);
        assert_eq!(snapshot.read("/trails/locals/text").unwrap().as_deref(), Some("hello\n"));
        assert_eq!(snapshot.read("/empty").unwrap().as_deref(), Some(""));
        assert_eq!(snapshot.read("/missing").unwrap(), None);
        assert_eq!(snapshot.size("/trails/locals/text").unwrap(), Some(6));
        assert!(snapshot.names("/missing").unwrap().is_empty());
        let hashes = snapshot.hashes(&["/trails", "/objects"]).unwrap();
        let name = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(hashes.get("/trails/locals/text").map(String::as_str), Some(name));
        assert_eq!(hashes.len(), 2);
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
