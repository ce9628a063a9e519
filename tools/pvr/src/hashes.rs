//! The sha256 of many files: in parallel, and without reading what was read before.
//!
//! A cache in `.pvr/switchback/hashes` remembers for each file its size, times, inode and sha256. An entry counts
//! while all of them are as they were. It is written only for a file whose times are older than the moment at which
//! hashing began, by the clock of the file system: whatever changes the file later gets a later time, so an entry is
//! never believed of other content. (A program that had mapped the file to write and still holds it can hide a change
//! until the kernel writes it back; Git has the same limit.)
//! A cache that is damaged or from elsewhere is dropped; one that cannot be written is no error.

use crate::{
    error::{During, Result},
    files,
};
use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The first line of the file; another one is another format.
const HEAD: &str = "switchback hashes 1\n";
/// More threads than this do not make a disk faster.
const THREADS_MAX: usize = 8;

/// What tells whether a file is the one that was hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    size: u64,
    mtime: i128,
    ctime: i128,
    dev: u64,
    inode: u64,
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            size: meta.size(),
            mtime: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime: nanos(meta.ctime(), meta.ctime_nsec()),
            dev: meta.dev(),
            inode: meta.ino(),
        }
    }

    /// Whether any later change would give it another stamp.
    fn is_settled(&self, clock: &Stamp) -> bool {
        self.dev == clock.dev && self.mtime < clock.mtime && self.ctime < clock.mtime
    }
}

/// The cache of one repository.
pub struct Hashes {
    path: PathBuf,
    known: HashMap<String, (Stamp, String)>,
    changed: bool,
}

impl Hashes {
    /// Reads the cache of the repository in `root`.
    pub fn load(root: &Path) -> Self {
        let path = root.join(".pvr/switchback/hashes");
        let known = fs::read_to_string(&path).ok().and_then(|text| parse(&text)).unwrap_or_default();
        Self { path, known, changed: false }
    }

    /// The hashes of these files of `root`, in their order.
    pub fn of(&mut self, root: &Path, keys: &[&str]) -> Result<Vec<String>> {
        let found = in_parallel(keys, |key| self.look_up(root, key))?;
        let missing: Vec<&str> =
            keys.iter().zip(&found).filter(|(_, sha)| sha.is_none()).map(|(key, _)| *key).collect();
        let mut hashed = self.hash(root, &missing)?.into_iter();
        Ok(found.into_iter().map(|sha| sha.or_else(|| hashed.next()).unwrap_or_default()).collect())
    }

    /// Writes what was learnt; only the files in `keep` are remembered.
    pub fn save(&self, keep: impl Fn(&str) -> bool) {
        if !self.changed {
            return;
        }
        let mut text = HEAD.to_owned();
        for (key, (stamp, sha)) in self.known.iter().filter(|(key, _)| !key.contains('\n') && keep(key)) {
            let Stamp { size, mtime, ctime, dev, inode } = stamp;
            let _ = writeln!(text, "{sha} {size} {mtime} {ctime} {dev} {inode} {key}");
        }
        let sum = files::hash_bytes(text.as_bytes());
        let _ = writeln!(text, "{sum}");
        // It is worth nothing after a power cut, so it is not synced; the sum tells.
        let _ = files::write_unsynced(&self.path, text.as_bytes());
    }

    fn look_up(&self, root: &Path, key: &str) -> Result<Option<String>> {
        let Some((stamp, sha)) = self.known.get(key) else { return Ok(None) };
        let path = root.join(key);
        let now = fs::metadata(&path).during(|| format!("look at {}", path.display()))?;
        Ok((Stamp::of(&now) == *stamp).then(|| sha.clone()))
    }

    fn hash(&mut self, root: &Path, keys: &[&str]) -> Result<Vec<String>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let clock = clock(&self.path);
        let hashed = in_parallel(keys, |key| {
            let path = root.join(key);
            let stamp = || fs::metadata(&path).map(|meta| Stamp::of(&meta));
            let before = stamp().during(|| format!("look at {}", path.display()))?;
            let sha = files::hash(&path)?;
            let settled = clock.is_some_and(|clock| before.is_settled(&clock)) && stamp().ok() == Some(before);
            Ok((sha, settled.then_some(before)))
        })?;
        for (key, (sha, stamp)) in keys.iter().zip(&hashed) {
            if let Some(stamp) = stamp {
                self.known.insert((*key).to_owned(), (*stamp, sha.clone()));
                self.changed = true;
            }
        }
        Ok(hashed.into_iter().map(|(sha, _)| sha).collect())
    }
}

/// What the file system's clock says now: the stamp of a file that is made beside the cache for it.
fn clock(cache: &Path) -> Option<Stamp> {
    let dir = cache.parent()?;
    fs::create_dir_all(dir).ok()?;
    let file = tempfile::tempfile_in(dir).ok()?;
    file.metadata().ok().map(|meta| Stamp::of(&meta))
}

fn parse(text: &str) -> Option<HashMap<String, (Stamp, String)>> {
    let body = text.get(..text.len().checked_sub(65)?)?;
    if text.get(body.len()..)?.trim_end() != files::hash_bytes(body.as_bytes()) {
        return None;
    }
    let line = |line: &str| {
        let mut words = line.splitn(7, ' ');
        let sha = words.next()?.to_owned();
        let stamp = Stamp {
            size: words.next()?.parse().ok()?,
            mtime: words.next()?.parse().ok()?,
            ctime: words.next()?.parse().ok()?,
            dev: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
        };
        Some((words.next()?.to_owned(), (stamp, sha)))
    };
    body.strip_prefix(HEAD)?.lines().map(line).collect()
}

/// Does something to every item on all processors; the answers in the items' order, or the first error.
pub fn in_parallel<I: Sync, T: Send>(items: &[I], act: impl Fn(&I) -> Result<T> + Sync) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(THREADS_MAX).min(items.len());
    if threads < 2 {
        return items.iter().map(act).collect();
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Vec::new();
                // What is after an error does not matter any more, but nothing before it is skipped.
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < items.len()) {
                    let answer = act(&items[at]);
                    if answer.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    mine.push((at, answer));
                }
                if let Ok(mut done) = done.lock() {
                    done.append(&mut mine);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_work_keeps_its_order_and_stops_at_an_error() {
        let items: Vec<u32> = (0..1000).collect();
        assert_eq!(in_parallel(&items, |n| Ok(n * 2)).unwrap(), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        let failed = in_parallel(&items, |n| if *n == 500 { Err(crate::error::Error::host("no")) } else { Ok(*n) });
        assert_eq!(failed.unwrap_err().message, "no");
    }

    #[test]
    fn a_file_that_was_just_written_is_not_believed() {
        let clock = Stamp { size: 0, mtime: 100, ctime: 100, dev: 1, inode: 1 };
        let file = |mtime, ctime, dev| Stamp { size: 5, mtime, ctime, dev, inode: 2 }.is_settled(&clock);
        assert!(file(99, 99, 1));
        assert!(!file(100, 99, 1) && !file(99, 100, 1), "as old as the clock: it may change in the same tick");
        assert!(!file(99, 99, 2), "another file system has another clock");
    }

    #[test]
    fn a_damaged_cache_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let cached = |text: &str| parse(text).map(|known| known.len());
        let body = format!("{HEAD}{} 1 2 3 4 5 a b\n", "0".repeat(64));
        let whole = format!("{body}{}\n", files::hash_bytes(body.as_bytes()));
        assert_eq!(cached(&whole), Some(1));
        assert_eq!(parse(&whole).unwrap().keys().next().unwrap(), "a b");
        for cut in 0..whole.len() {
            assert_eq!(cached(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(cached(&whole.replace("1 2 3", "1 2 4")), None);
        assert_eq!(Hashes::load(dir.path()).known.len(), 0);
    }
}
