//! The loader's side: which revisions it finds on the boot partition as it lies on the medium, and which one it boots.
//!
//! Invariants: the file system's journal is not replayed, as no loader does. What it decides is decided by the model of
//! the boot script, `runtime::boot::loader`, which the real script is checked against; its counter is stored as U-Boot
//! stores it: all variables, in the other copy.
//! Fault model: what Linux refuses to read without the journal, because a checksum is not what it was, is read by debugfs,
//! which as a loader believes no checksum; how often that was needed is counted.
//! Does not: check a hash. A loader boots what it can read; the laws say whether that was right.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boards::{
    Board,
    env::uboot::{Copies, Entries, Layout, Uboot, flags_of, split},
};
use runtime::{
    boot::{self, Facts, LoaderVars},
    id::{ObjectId, RevName},
    port::{BootEnv, Loaded, Region},
    store,
};

use super::original;
use super::volume::Shelf;
use crate::tour::{Outcome, fail};

/// What the loader loads of a revision, by its names there.
pub const ASSETS: [&str; 3] = ["pv-kernel.img", "pv-initrd.img", "pv-fdt.dtb"];

/// Where a loader looks.
#[derive(Clone, Copy, Debug)]
pub struct Paths {
    /// `last`.
    pub last: &'static str,
    /// What stands before the name of a boot asset in the folder of its revision.
    pub assets: &'static str,
}

impl Paths {
    /// Of a board's loader.
    pub fn of(board: &Board) -> Self {
        match board.is_taken_over() {
            true => Self { last: "boot/last", assets: ".pv/" },
            false => Self { last: "last", assets: "" },
        }
    }
}

/// The boot partition as the loader sees it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Boot assets of each revision, and what they hold.
    pub revisions: BTreeMap<RevName, BTreeMap<String, ObjectId>>,
    /// The revision that `last` names.
    pub last: Option<RevName>,
    /// Some of it is what debugfs says, because Linux would not.
    pub forced: bool,
}

impl Seen {
    /// From what is mounted without its journal.
    pub fn of(shelf: &Shelf, paths: Paths) -> Self {
        let readable = |(key, content): (&String, &Option<ObjectId>)| {
            Some((key.strip_prefix(paths.assets)?.to_string(), (*content)?))
        };
        let revisions = shelf.trails.iter().map(|(rev, files)| (*rev, files.iter().filter_map(readable).collect()));
        let last = shelf.read(paths.last).ok().and_then(|sector| store::parse_last(&sector));
        Self { revisions: revisions.collect(), last, forced: false }
    }

    /// Reads by debugfs what Linux did not: of the revisions in `wanted` those that do not load.
    pub fn force(&mut self, device: &str, wanted: &[RevName], paths: Paths, scratch: &Path) -> Outcome<()> {
        if self.last.is_none() {
            self.last =
                dump(device, &format!("/{}", paths.last), scratch)?.and_then(|sector| store::parse_last(&sector));
        }
        let missing = wanted.iter().copied().chain(self.last).filter(|rev| !self.loads(rev));
        let missing: BTreeSet<RevName> = missing.collect();
        let files: Vec<(RevName, &str)> = missing.iter().flat_map(|rev| ASSETS.map(|name| (*rev, name))).collect();
        let path = |(rev, name): &(RevName, &str)| format!("/trails/{rev}/{}{name}", paths.assets);
        let found = dump_all(device, &files.iter().map(path).collect::<Vec<_>>(), scratch)?;
        for ((rev, name), bytes) in files.into_iter().zip(found) {
            if let Some(bytes) = bytes {
                let content = ObjectId(Sha256::digest(bytes).into());
                self.revisions.entry(rev).or_default().insert(name.into(), content);
                self.forced = true;
            }
        }
        Ok(())
    }

    /// Whether kernel and initramfs of a revision load.
    pub fn loads(&self, rev: &RevName) -> bool {
        self.revisions.get(rev).is_some_and(|files| ASSETS[..2].iter().all(|name| files.contains_key(*name)))
    }
}

/// A file of a file system, by debugfs.
pub fn dump(device: &str, path: &str, scratch: &Path) -> Outcome<Option<Vec<u8>>> {
    Ok(dump_all(device, &[path.to_string()], scratch)?.pop().flatten())
}

/// Files of a file system, by one debugfs, or, if that does not come to its end, by one for each; `None` for each that is
/// not there.
fn dump_all(device: &str, paths: &[String], scratch: &Path) -> Outcome<Vec<Option<Vec<u8>>>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let outs: Vec<PathBuf> = (0..paths.len()).map(|number| scratch.join(format!("dumped-{number}"))).collect();
    let mut requests = String::new();
    for (path, out) in paths.iter().zip(&outs) {
        // One of the state before would be taken for this one's.
        match std::fs::remove_file(out) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => requests += &format!("dump {path} {}\n", out.display()),
        }
    }
    let script = scratch.join("requests");
    std::fs::write(&script, requests)?;
    // What it says is not needed: there is a file, or there is none. A file system that it cannot open has none.
    let mut debugfs = Command::new("debugfs");
    debugfs.args(["-c", "-n", "-f"]).arg(&script).arg(device);
    let ended = debugfs.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !ended.success() && paths.len() > 1 {
        return paths.iter().map(|path| dump(device, path, scratch)).collect();
    }
    Ok(outs.iter().map(|out| std::fs::read(out).ok()).collect())
}

/// The environment of a board over a region; nothing is kept from one call to the next.
pub fn load<R: Region>(board: &Board, mut region: R) -> Outcome<(Layout, Option<Loaded>)> {
    let layout = board.layout(&mut region).map_err(|code| format!("{code:?} while locating the environment"))?;
    let mut work = vec![0; 2 * layout.size];
    let mut env = Uboot::new(region, layout, board.env_text, &mut work).map_err(|code| format!("{code:?}"))?;
    Ok((layout, env.load().ok()))
}

/// How often the loader of a board boots a candidate.
pub fn tries_max(board: &Board) -> u32 {
    if board.is_taken_over() { original::TRIES } else { boot::BOOTLIMIT }
}

/// From power-on to the kernel; `None`: nothing boots.
pub fn run<R: Region>(board: &Board, open: impl Fn() -> R, seen: &Seen) -> Outcome<Option<Facts>> {
    let (layout, loaded) = load(board, open())?;
    let limit = boot::BOOTLIMIT;
    let env = loaded.map(|loaded| LoaderVars { vars: loaded.vars, bootcount: loaded.bootcount, bootlimit: limit });
    let mut trouble = None;
    let count = |count| match save(layout, open(), count) {
        Ok(saved) => saved,
        Err(error) => {
            trouble = Some(error);
            false
        }
    };
    let facts = boot::loader(env, count, |rev| seen.loads(rev), seen.last);
    trouble.map_or(Ok(facts), Err)
}

/// `saveenv` with another boot counter, and `env load`: whether it is there then.
fn save<R: Region>(layout: Layout, mut region: R, count: u32) -> Outcome<bool> {
    let Copies::Redundant(offsets, _) = layout.copies else {
        return fail("an environment of a single copy is not replayed".into());
    };
    let mut copies = [vec![0; layout.size], vec![0; layout.size]];
    for (copy, offset) in copies.iter_mut().zip(offsets) {
        region.read_at(offset, copy).map_err(|code| format!("{code:?} while reading the environment"))?;
    }
    let flags = [flags_of(&copies[0]), flags_of(&copies[1])];
    let Some(active) = layout.select(flags) else { return Ok(false) };
    let mut data = Vec::new();
    for entry in Entries::of(&copies[active][layout.header()..]).filter(|entry| split(entry).0 != b"bootcount") {
        data.extend_from_slice(entry);
        data.push(0);
    }
    data.extend_from_slice(format!("bootcount={count}\0").as_bytes());
    data.resize(layout.size - layout.header(), 0);
    let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
    copy.push(flags[active].unwrap_or(0).wrapping_add(1));
    copy.extend_from_slice(&data);
    let stored = region.write_at(offsets[1 - active], &copy).and_then(|()| region.sync());
    Ok(stored.is_ok())
}
