//! Ctrl-C while something is half finished under a name that is not its own: it is removed.
//!
//! What is not finished is registered by its path; the signal removes what is registered then and ends the program. A
//! signal that is ignored on purpose (`nohup`) stays ignored.
//! A program that is killed for good leaves it behind, under a name that says what it was.

use crate::error::Result;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    collections::BTreeSet,
    ffi::c_int,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
};

/// What is to be removed.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Set once, by whoever registers first.
static HANDLER: Once = Once::new();
/// Other threads may still write into a folder that is being removed.
const TRIES: usize = 20;
/// What shells add to the number of the signal that ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

/// A file or a folder that is removed if a signal ends the program while this exists.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// Makes what is at this path, and registers it: a signal waits until both are done. Keep the two in this order, so
    /// that the thing goes before its registration does. If signals cannot be caught, they do what they did before.
    pub fn of<T>(make: impl FnOnce() -> Result<T>, path: impl FnOnce(&T) -> &Path) -> Result<(Self, T)> {
        HANDLER.call_once(listen);
        let mut unfinished = lock();
        let made = make()?;
        let path = path(&made).to_owned();
        unfinished.insert(path.clone());
        Ok((Self(path), made))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, each of these signals ends the program in an orderly way, unless it is ignored.
fn listen() {
    let ignored = ignored();
    let signals = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    if let Ok(mut signals) = Signals::new(signals) {
        thread::spawn(move || signals.forever().next().map(end));
    }
}

/// The signals that this program was started to ignore, as the kernel shows them: one bit each.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn end(signal: c_int) {
    let unfinished = lock();
    for path in unfinished.iter() {
        for _ in 0..TRIES {
            if fs::symlink_metadata(path).is_err() {
                break;
            }
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    // With the lock held: nothing new is begun.
    std::process::exit(ENDED_BY_SIGNAL + signal);
}
