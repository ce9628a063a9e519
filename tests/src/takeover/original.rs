//! The disk of a device as the original leaves it, made of the kit's repository, without root.
//!
//! An MBR with two partitions: a FAT that the loader owns, and one ext4 with everything else, which the loader reads: objects,
//! trails with the boot assets as further names of objects in `.pv/`, `boot/uboot.txt`, configuration, caches, volumes of
//! containers, and files that nobody of us knows. The loader's boot script (tests/guest/original.env) is in its environment.
//!
//! Invariants: a file of a revision is a name of its object; a revision's state is the text that was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use boards::env::uboot;
use runtime::id::RevName;
use runtime::port::BootVars;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::loader_disk::{self, root, run};
use crate::rollback::lab::KERNEL;
use crate::tour::Outcome;
use crate::tour::device::Kit;

const MIB: u64 = 1 << 20;
/// The loader's FAT.
const FAT: (u64, u64) = (MIB, 16 * MIB);
/// Room on storage besides what is there.
const ROOM: u64 = 96 * MIB;
/// Size of an environment copy of the loader.
const ENV_SIZE: usize = 0x4000;
/// What the original's writer pads its text to.
pub const PADDED: usize = 0x1_0000;

/// The revision that the original runs, where it has installed one of ours.
pub const THEIRS: &str = "0";
/// The one of ours.
pub const OURS: &str = "1";
/// The vendor's words for the kernel.
pub const OEM: &str = "oem.note=1";

/// A revision on the disk.
pub struct Revision {
    /// Its name.
    pub name: &'static str,
    /// Its files, by key; inline documents as they stand in the state.
    files: BTreeMap<String, Vec<u8>>,
    inline: BTreeSet<String>,
}

impl Revision {
    /// The committed state of the kit's repository.
    pub fn of(kit: &Kit, name: &'static str) -> Outcome<Self> {
        let state: Value = serde_json::from_slice(&fs::read(kit.repo().join(".pvr/json"))?)?;
        let (mut files, mut inline) = (BTreeMap::new(), BTreeSet::new());
        for (key, value) in state.as_object().ok_or("the repository has no state")? {
            let content = match value.as_str().filter(|text| text.len() == 64) {
                Some(_) => fs::read(kit.repo().join(key))?,
                None => {
                    inline.insert(key.clone());
                    serde_json::to_vec(&patient(key, value))?
                }
            };
            files.insert(key.clone(), content);
        }
        Ok(Self { name, files, inline })
    }

    /// One that the original runs: its kernel is a stub that prints its command line and switches the machine off.
    pub fn original(kit: &Kit, name: &'static str, scratch: &Path) -> Outcome<Self> {
        let mut revision = Self::of(kit, name)?;
        let stub = scratch.join("stub.img");
        loader_disk::stub(scratch, loader_disk::Kernel::Off, &stub);
        revision.files.insert(KERNEL.into(), fs::read(stub)?);
        Ok(revision)
    }

    /// The same with another content of a file.
    pub fn with(mut self, key: &str, content: Vec<u8>) -> Self {
        self.files.insert(key.into(), content);
        self
    }

    /// A file of it.
    pub fn file(&self, key: &str) -> &[u8] {
        &self.files[key]
    }

    /// The state as a text, keys in order and no blanks.
    fn state(&self) -> Outcome<String> {
        let entry = |(key, content): (&String, &Vec<u8>)| -> Outcome<String> {
            let value = match self.inline.contains(key) {
                true => String::from_utf8(content.clone())?,
                false => format!("\"{}\"", hash(content)),
            };
            Ok(format!("{}:{value}", serde_json::to_string(key)?))
        };
        let entries: Outcome<Vec<String>> = self.files.iter().map(entry).collect();
        Ok(format!("{{{}}}", entries?.join(",")))
    }

    /// Writes it below a storage's root, as the original does when it has installed it.
    fn lay_out(&self, storage: &Path) -> Outcome<()> {
        let (objects, trail) = (storage.join("objects"), storage.join("trails").join(self.name));
        let put = |path: &Path, content: &[u8]| -> Outcome<()> {
            fs::create_dir_all(path.parent().ok_or("a file without a folder")?)?;
            Ok(fs::write(path, content)?)
        };
        for (key, content) in self.files.iter().filter(|(key, _)| *key != "#spec") {
            if self.inline.contains(key) {
                put(&trail.join(key), content)?;
                continue;
            }
            let object = objects.join(hash(content));
            put(&object, content)?;
            link(&object, &trail.join(key))?;
        }
        put(&trail.join(".pvr/json"), self.state()?.as_bytes())?;
        put(&trail.join(".pvr/config"), br#"{"ObjectsDir": "/storage/objects"}"#)?;
        let document: Value = serde_json::from_slice(self.file("bsp/run.json"))?;
        for (member, name) in [("linux", "pv-kernel.img"), ("initrd", "pv-initrd.img")] {
            let asset = document[member].as_str().ok_or_else(|| format!("bsp/run.json names no {member}"))?;
            link(&objects.join(hash(self.file(&format!("bsp/{asset}")))), &trail.join(".pv").join(name))?;
        }
        put(&trail.join(".pv/commitmsg"), b"made by the original")
    }
}

/// The demonstration's containers, with time enough on a machine that does other things as well.
fn patient(key: &str, value: &Value) -> Value {
    let mut value = value.clone();
    if let (true, Some(groups)) = (key == "groups.json", value.as_array_mut()) {
        groups.iter_mut().for_each(|group| group["timeout"] = 90.into());
    }
    value
}

/// Which revision is committed and which is to be tried, in the text as the original pads it.
pub fn text(vars: &str) -> Vec<u8> {
    let mut text: Vec<u8> = vars.split(' ').flat_map(|entry| [entry.as_bytes(), b"\0"].concat()).collect();
    text.resize(PADDED, 0);
    text
}

/// Files that are the original's, or nobody's: with what they hold, they must outlive everything.
pub const UNTOUCHED: &[(&str, &str)] = &[
    (".pvmounted", ""),
    ("config/pantahub.config", "PH_CREDS_PRN=prn:::devices:/1\nPH_CREDS_SECRET=secret\n"),
    ("cache/usrmeta/interval", "60"),
    ("cache/devmeta/pantavisor.arch", "aarch64/64/EL"),
    ("cache/dropbear/dropbear_ecdsa_host_key", "a key"),
    ("disks/perm/web/lxc-overlay/upper/etc/note", "what a container has written"),
    ("boot/boot.scr", "what else the loader may read"),
    ("vendor/calibration", "of a program that nobody of us knows"),
];

/// Makes the disk: these revisions, and the loader's text. `image` is written anew.
pub fn make(folder: &Path, revisions: &[Revision], text: &[u8], image: &Path) -> Outcome<()> {
    let storage = folder.join("storage");
    let _ = fs::remove_dir_all(&storage);
    fs::create_dir_all(storage.join("trails/locals"))?;
    for revision in revisions {
        revision.lay_out(&storage)?;
    }
    symlink(revisions[0].name, storage.join("trails/current"))?;
    let done = r#"{"status":"DONE","status-msg":"Factory revision","progress":100,"retries":0}"#;
    fs::write(storage.join(format!("trails/{}/.pv/progress", revisions[0].name)), done)?;
    fs::write(storage.join(format!("trails/{}/.pv/done", revisions[0].name)), "")?;
    for (name, content) in UNTOUCHED {
        let path = storage.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&storage))?;
        fs::write(path, content)?;
    }
    fs::create_dir_all(storage.join(format!("logs/{}/web", revisions[0].name)))?;
    fs::write(storage.join("boot/uboot.txt"), text)?;

    let length = (used(&storage)? + ROOM).next_multiple_of(MIB);
    let start = FAT.0 + FAT.1;
    let _ = fs::remove_file(image);
    let disk = File::create(image)?;
    disk.set_len(start + length)?;
    disk.write_all_at(&partition_table(start, length), 446)?;
    make_fat(folder, image)?;
    let mut make = Command::new("mkfs.ext4");
    make.env("PATH", SBIN).args(["-q", "-F", "-b", "4096", "-m", "0", "-J", "size=8"]);
    make.args(["-O", "^metadata_csum_seed,^orphan_file", "-E", &format!("offset={start},root_owner=0:0"), "-d"]);
    run(make.arg(&storage).arg(image).arg((length / 4096).to_string()));
    Ok(fs::remove_dir_all(&storage)?)
}

/// Where e2fsprogs are, also for those who are not root.
pub const SBIN: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// The loader's own environment, which is its boot script, in two files.
fn make_fat(folder: &Path, image: &Path) -> Outcome<()> {
    let at = format!("{}@@{}", image.display(), FAT.0);
    let mtools =
        |words: &[&str]| run(Command::new(words[0]).env("MTOOLS_SKIP_CHECK", "1").args(["-i", &at]).args(&words[1..]));
    let sectors = (FAT.1 / 512).to_string();
    mtools(&["mformat", "-T", &sectors, "-h", "64", "-s", "32", "-c", "4", "::"]);
    let script = fs::read_to_string(root().join("tests/guest/original.env"))?;
    // The text decides: its variables are read over these.
    let vars = BootVars { committed: RevName::factory(), candidate: None, previous: None };
    for (file, flags) in [("uboot.env", 1), ("uboot-redund.env", 0)] {
        let mut copy = vec![0; ENV_SIZE];
        uboot::initial(&script, &vars, Some(flags), &mut copy).map_err(|code| format!("{file}: {code}"))?;
        let path = folder.join(file);
        fs::write(&path, copy)?;
        mtools(&["mcopy", &path.display().to_string(), "::"]);
    }
    // What a vendor adds to the kernel's command line.
    let vendor = folder.join("oemEnv.txt");
    fs::write(&vendor, format!("oemargs={OEM}\n"))?;
    mtools(&["mcopy", &vendor.display().to_string(), "::"]);
    Ok(())
}

fn partition_table(start: u64, length: u64) -> [u8; 66] {
    let mut table = [0; 66];
    for (entry, (kind, start, length)) in table.chunks_exact_mut(16).zip([(0x0c, FAT.0, FAT.1), (0x83, start, length)])
    {
        entry[4] = kind;
        entry[8..12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&((length / 512) as u32).to_le_bytes());
    }
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    table
}

/// The sha256 of a content, as objects are named by it.
pub fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn link(object: &Path, name: &Path) -> Outcome<()> {
    fs::create_dir_all(name.parent().ok_or("a file without a folder")?)?;
    Ok(fs::hard_link(object, name)?)
}

/// Bytes of the files below a folder; of several names of one file each counts.
fn used(folder: &Path) -> Outcome<u64> {
    let (mut all, mut folders) = (0, vec![PathBuf::from(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => all += entry.metadata()?.len(),
            }
        }
    }
    Ok(all)
}
