//! The environment of a device that is taken over from the original: `boot/uboot.txt` on the storage file system, which
//! we write, and the loader's mark `pv.env` on its FAT partition.
//!
//! The text is `key=value NUL key=value NUL … NUL`; the loader imports all of it, the original's own reader 1,024
//! bytes. The mark is what U-Boot exports unless it is told otherwise: `pv_trying=REV` and a newline. The original's boot script reads the text, then the mark, and decides:
//! * no `pv_try`: it boots `pv_rev`.
//! * `pv_try`, and the mark's `pv_trying` is another one or none: it stores `pv_trying=<pv_try>` and boots `pv_try`.
//! * `pv_try`, and `pv_trying` is the same: that try has failed. It clears the mark and boots `pv_rev`.
//!
//! So the loader counts, to one: a candidate is booted once per arming. Whoever finds `pv_try` set in the committed
//! revision disarms at once, because the mark is clear again and the next boot would be a try.
//!
//! Invariants. One transition is one overwrite of the text's first sector (`sector`), all variables at once; a new
//! arming overwrites before that the mark, where it still names the same candidate from an earlier time (the loader
//! would take it for tried). Names are compared whole: `pv_trying` is not `pv_try`. Variables of others are kept.
//! `pv_trying` does not belong into the text, where a loader that fails to read its mark would find it, and is dropped.
//! What does not fit into the sector is refused, and nothing is armed that could not be committed for lack of room.
//!
//! Fault model. That of `sector` for our stores. The loader writes its mark through its own FAT driver, in several
//! writes; torn, it is lost or garbage, and the candidate is tried once more. Without a mark (UBI, NAND) the loader
//! cannot count at all; then only our own count bounds the tries, and a candidate that never reaches us is tried for
//! ever.
//!
//! What it does not do: it never makes the text longer. A text that is not of the size of ours is written anew once, by
//! whoever takes the device over ([`adopt`], `runtime::store::taken`), before anything is armed. A text that is raw flash, erased to be written, is not
//! for this codec.

use super::{
    sector::{Room, SECTOR, also_committed, overwrite, read},
    uboot::{Entries, split, value},
};
use crate::Guarantee;
use runtime::{
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars, Loaded, Region},
};

/// With the loader's mark.
pub const GUARANTEE: Guarantee =
    Guarantee { torn_write: true, hang_before_linux: false, hang_after_linux: true, tries: 1 };
/// On a device whose loader cannot store its mark.
pub const GUARANTEE_WITHOUT_MARK: Guarantee = Guarantee { tries: 0, ..GUARANTEE };

/// Bytes of the text that are looked at: what the original's reader takes in.
const WINDOW: usize = 1024;
/// Variables that a store sets, deletes or drops.
const OURS: [&str; 4] = ["pv_rev", "pv_try", "pv_prev", "pv_trying"];

/// A run of bytes in the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Where it starts.
    pub at: u64,
    /// Bytes.
    pub length: u64,
}

/// The two files in a region.
pub struct UbootTxt<R: Region> {
    region: R,
    text: Span,
    mark: Option<Span>,
}

/// The start of the text.
struct Text {
    bytes: [u8; WINDOW],
    length: usize,
}

impl Text {
    fn list(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<R: Region> UbootTxt<R> {
    /// Over `region`: where the text is, and the mark if the loader has made one. `EnvLayout` if one of them does not
    /// start with a sector.
    pub fn new(region: R, text: Span, mark: Option<Span>) -> Result<Self, Code> {
        if [Some(text), mark].into_iter().flatten().any(|file| file.at % SECTOR as u64 != 0) {
            return Err(Code::EnvLayout);
        }
        // An empty first sector ends the loader's import, whatever follows.
        let mark = mark.map(|mark| Span { length: mark.length.min(SECTOR as u64), ..mark });
        Ok(Self { region, text, mark })
    }

    /// The region, for what else is done with it.
    pub fn into_region(self) -> R {
        self.region
    }

    fn read(&mut self) -> Result<Text, Code> {
        let mut text = Text { bytes: [0; WINDOW], length: self.text.length.min(WINDOW as u64) as usize };
        read(&mut self.region, self.text.at, &mut text.bytes[..text.length]).map_err(|_| Code::StorageIo)?;
        let whole = self.text.length <= WINDOW as u64 || ended(text.list());
        if whole { Ok(text) } else { Err(Code::EnvInvalid) }
    }

    /// The revision that the loader has marked as being tried.
    fn marked(&mut self) -> Result<Option<RevName>, Code> {
        let Some(mark) = self.mark else { return Ok(None) };
        let mut bytes = [0; SECTOR];
        let bytes = &mut bytes[..mark.length as usize];
        read(&mut self.region, mark.at, bytes)?;
        // Exported as text: a line, where our text has a string.
        let line = bytes.split(|byte| matches!(byte, 0 | b'\n')).find_map(|line| line.strip_prefix(b"pv_trying="));
        Ok(line.and_then(|rev| RevName::parse(core::str::from_utf8(rev).ok()?).ok()))
    }

    /// Makes the loader try `candidate` although it has tried one of that name before.
    fn unmark(&mut self, candidate: &RevName) -> Result<(), Code> {
        let stale = self.marked().map_err(|_| Code::EnvStoreFailed)?.as_ref() == Some(candidate);
        match self.mark {
            Some(mark) if stale => overwrite(&mut self.region, mark.at, &[0; SECTOR][..mark.length as usize]),
            _ => Ok(()),
        }
    }

    /// Puts the text of a decision in force.
    fn put(&mut self, old: &[u8], vars: &BootVars) -> Result<(), Code> {
        if self.text.length < SECTOR as u64 {
            return Err(Code::EnvLayout);
        }
        let text = also_committed(vars, |vars| compose(old, vars))?;
        if let Some(candidate) = &vars.candidate
            && value(old, "pv_try") != Some(candidate.as_str().as_bytes())
        {
            self.unmark(candidate)?;
        }
        overwrite(&mut self.region, self.text.at, &text)
    }
}

/// Whether the list's end is there.
fn ended(list: &[u8]) -> bool {
    list.first() == Some(&0) || list.windows(2).any(|pair| pair == [0, 0])
}

/// A revision's name as the value of a variable.
fn revision(list: &[u8], name: &str) -> Option<RevName> {
    RevName::parse(core::str::from_utf8(value(list, name)?).ok()?).ok()
}

/// The decision of a text. A `pv_try` that names no revision is one that the loader would boot into nothing, every
/// second time: such a text is as good as none.
fn decision(list: &[u8]) -> Result<BootVars, Code> {
    let candidate = match value(list, "pv_try") {
        None => None,
        Some(_) => Some(revision(list, "pv_try").ok_or(Code::EnvInvalid)?),
    };
    let committed = revision(list, "pv_rev").ok_or(Code::EnvInvalid)?;
    Ok(BootVars { committed, candidate, previous: revision(list, "pv_prev") })
}

/// The sector of a decision: ours first, then what others have in `old`.
fn compose(old: &[u8], vars: &BootVars) -> Result<[u8; SECTOR], Code> {
    let mut out = Room::new();
    let ours = [Some(&vars.committed), vars.candidate.as_ref(), vars.previous.as_ref()];
    for (name, revision) in OURS.into_iter().zip(ours) {
        if let Some(revision) = revision {
            out.pieces(&[name.as_bytes(), b"=", revision.as_str().as_bytes(), &[0]]);
        }
    }
    for entry in Entries::of(old).filter(|entry| !OURS.iter().any(|name| name.as_bytes() == split(entry).0)) {
        out.pieces(&[entry, &[0]]);
    }
    out.finish(0, 1)
}

/// The first sector of a new text, which `store::taken` makes, with what a text of another size holds. `EnvInvalid` if it names
/// no revision, `EnvFull` if it does not fit.
pub fn adopt(old: &[u8]) -> Result<[u8; SECTOR], Code> {
    compose(old, &decision(old)?)
}

/// The first sector of a new text.
pub fn initial(vars: &BootVars) -> Result<[u8; SECTOR], Code> {
    compose(&[], vars)
}

impl<R: Region> BootEnv for UbootTxt<R> {
    fn load(&mut self) -> Result<Loaded, Code> {
        let vars = decision(self.read()?.list())?;
        // What the mark says only explains; one that cannot be read is one that was never made.
        let marked = self.marked().unwrap_or(None);
        let bootcount = (vars.candidate.is_some() && marked == vars.candidate).into();
        let named = [Some(vars.committed), vars.candidate, vars.previous, None, None, None];
        Ok(Loaded { vars, bootcount, named, complete: true, active: 1, damaged: false })
    }

    fn store(&mut self, vars: &BootVars) -> Result<(), Code> {
        let old = self.read()?;
        decision(old.list())?;
        self.put(old.list(), vars)
    }

    // Replaces a text that `load` refuses by one of `vars`; variables of others are kept where they can be read.
    // Same steps and promises as a store. Refused, with nothing written, while `load` succeeds.
    fn rebuild(&mut self, vars: &BootVars) -> Result<(), Code> {
        if self.load().is_ok() {
            return Err(Code::Internal);
        }
        match self.read() {
            Ok(old) => self.put(old.list(), vars),
            Err(_) => self.put(&[], vars),
        }
    }
}

#[cfg(test)]
mod tests;
