//! The loader of a device that was taken over: a model of the original's boot script, which reads storage itself, and the
//! text and the mark that it decides by.
//!
//! Invariants: what the loader reads is what lies on the medium, without the file system's journal. The text is read here once
//! more, as `env import` reads it, beside the device's own codec. A reset is no new power cut: the script decides again by
//! its mark, so a candidate that does not load is given up by the next decision.
//! Fault model: the mark of a state is read from its FAT, torn or not. What the script stores there while a state comes to rest is
//! kept in memory: until then nobody else looks at it.
//! Does not: run the original's own program. Where the loader boots its revision, the device rests there.

use boards::{
    Board, Env,
    env::{SECOND, fat},
};
use runtime::{
    boot::Facts,
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars, Loaded, Region},
};

use simulator::frozen::Frozen;

use crate::loader_disk::FileRegion;
use crate::tour::{Outcome, fail};

/// How often the script boots a candidate: what is marked is not booted again.
pub const TRIES: u32 = 1;
/// Decisions until the loader has come to a kernel: a candidate that does not load, and what is committed.
const RESETS_MAX: usize = 3;

/// What a variable is after `env import` of these bytes: strings or lines, until an empty one.
pub fn imported(bytes: &[u8], name: &str) -> Option<String> {
    let mut found = None;
    for entry in bytes.split(|byte| matches!(byte, 0 | b'\n')).take_while(|entry| !entry.is_empty()) {
        let entry = String::from_utf8_lossy(entry);
        match entry.split_once('=') {
            Some((key, value)) if key == name => found = (!value.is_empty()).then(|| value.to_owned()),
            None if entry == name => found = None,
            _ => {}
        }
    }
    found
}

/// The loader's mark, if it has made one that can be read.
pub fn mark(board: &Board, mut disk: FileRegion) -> Outcome<Option<Vec<u8>>> {
    let Env::UbootTxt { mark, .. } = board.env else { return fail("no loader of the original's".into()) };
    let Ok(Some((at, length))) = fat::find(&mut disk, mark) else { return Ok(None) };
    let mut bytes = vec![0; length as usize];
    Ok(disk.read_at(at, &mut bytes).is_ok().then_some(bytes))
}

/// From power-on to the kernel; `None`: nothing boots. Without a mark the script reads the text once more in its place.
pub fn run(text: &[u8], mark: &mut Option<Vec<u8>>, loads: impl Fn(&RevName) -> bool) -> Option<Facts> {
    for _ in 0..RESETS_MAX {
        let [committed, candidate] = ["pv_rev", "pv_try"].map(|name| imported(text, name));
        let marked = imported(mark.as_deref().unwrap_or(text), "pv_trying");
        let booted = match &candidate {
            Some(_) if marked == candidate => {
                *mark = Some(b"\0".into());
                committed
            }
            Some(name) => {
                *mark = Some(format!("pv_trying={name}\n\0").into_bytes());
                candidate.clone()
            }
            None => committed,
        };
        let rev = |name: Option<String>| RevName::parse(&name?).ok();
        if let Some(booted) = rev(booted).filter(&loads) {
            let candidate = rev(candidate);
            return Some(Facts {
                booted: Some(booted),
                candidate,
                bootcount: 0,
                canary: true,
                script: 0,
                watchdog: false,
            });
        }
    }
    None
}

/// The device's environment, over the text and the disk's FAT; nothing is kept from one call to the next.
pub fn load(board: &Board, text: &[u8], disk: FileRegion) -> Option<Loaded> {
    board.open(Both { text: Frozen(text), disk }, &mut []).and_then(|mut env| env.load()).ok()
}

/// Stores a decision over the text. `lost`: there is none, and it is made anew.
pub fn store<R: Region>(board: &Board, text: R, disk: FileRegion, vars: &BootVars, lost: bool) -> Outcome<()> {
    let stored = board
        .open(Both { text, disk }, &mut [])
        .and_then(|mut env| if lost { env.rebuild(vars) } else { env.store(vars) });
    Ok(stored.map_err(|code| format!("a store of the loader's text: {code}"))?)
}

/// The text, and from `SECOND` on the partition with the mark: as the device has it.
struct Both<R> {
    text: R,
    disk: FileRegion,
}

impl<R: Region> Region for Both<R> {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        match offset.checked_sub(SECOND) {
            None => self.text.read_at(offset, out),
            Some(offset) => self.disk.read_at(offset, out),
        }
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        match offset.checked_sub(SECOND) {
            None => self.text.write_at(offset, data),
            Some(offset) => self.disk.write_at(offset, data),
        }
    }

    fn sync(&mut self) -> Result<(), Code> {
        self.text.sync()
    }

    fn drop_cache(&mut self) {
        self.text.drop_cache();
    }

    fn length(&mut self) -> Option<u64> {
        self.text.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What boots, one power-on after the other, where `loads` are there.
    fn boots(text: &str, mark: &str, loads: &[&str]) -> Vec<String> {
        let text = text.replace(' ', "\0") + "\0\0pv_rev=behind the end\0";
        let mut mark = (!mark.is_empty()).then(|| format!("pv_trying={mark}\n\0").into_bytes());
        let mut one = || run(text.as_bytes(), &mut mark, |rev| loads.contains(&rev.as_str()));
        (0..3).map(|_| one().and_then(|facts| facts.booted).map_or("-".into(), |rev| rev.to_string())).collect()
    }

    #[test]
    fn the_script_tries_once_and_goes_back() {
        assert_eq!(boots("pv_rev=1", "", &["0", "1"]), ["1", "1", "1"]);
        // It is the original that clears `pv_try` when it runs again.
        assert_eq!(boots("pv_rev=0 pv_try=1", "", &["0", "1"]), ["1", "0", "1"]);
        assert_eq!(boots("pv_rev=0 pv_try=1", "1", &["0", "1"]), ["0", "1", "0"]);
        assert_eq!(boots("pv_rev=0 pv_try=1", "17", &["0", "1"]), ["1", "0", "1"]);
        assert_eq!(boots("pv_rev=0 pv_try=1 pv_trying=1", "", &["0", "1"]), ["0", "1", "0"]);
        assert_eq!(boots("pv_rev=0 pv_try=1 pv_trying=1", "2", &["0", "1"]), ["1", "0", "1"]);
        assert_eq!(boots("pv_rev=0 pv_try=1", "", &["0"]), ["0", "0", "0"]);
        assert_eq!(boots("pv_rev=0 pv_try=1", "", &["1"]), ["1", "1", "1"]);
        assert_eq!(boots("pv_rev=0 pv_try=", "", &["0", "1"]), ["0", "0", "0"]);
        assert_eq!(boots("pv_tryout=1", "", &["0", "1"]), ["-", "-", "-"]);
    }

    #[test]
    fn a_mark_is_a_line_and_the_text_has_strings() {
        assert_eq!(imported(b"pv_trying=locals/a\n\0pv_trying=b", "pv_trying").as_deref(), Some("locals/a"));
        assert_eq!(imported(b"a=1\0pv_trying=b\0a=2\0\0a=3\0", "a").as_deref(), Some("2"));
        assert_eq!(imported(b"a=1\0a\0", "a"), None);
        assert_eq!(imported(b"\0a=1\0", "a"), None);
    }
}
