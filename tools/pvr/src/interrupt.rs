//! Ctrl-C while something is half finished under a name that is not its own: it is removed.
//!
//! What is not finished is registered by its path; the signal removes what is registered then and ends the program.
//! A program that is killed for good leaves it behind, under a name that says what it was.

use crate::error::Result;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

/// What is to be removed.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Set once, by whoever registers first.
static HANDLER: Once = Once::new();
/// Other threads may still write into a folder that is being removed.
const TRIES: usize = 20;
/// As shells say it of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// A file or a folder that is removed if a signal ends the program while this exists.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// Makes what is at this path, and registers it: a signal waits until both are done. Keep the two in this order, so
    /// that the thing goes before its registration does. If signals cannot be caught, or are ignored on purpose, they do
    /// what they did before.
    pub fn of<T>(make: impl FnOnce() -> Result<T>, path: impl FnOnce(&T) -> &Path) -> Result<(Self, T)> {
        HANDLER.call_once(|| drop(ctrlc::try_set_handler(end)));
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

fn end() {
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
    std::process::exit(INTERRUPTED);
}
