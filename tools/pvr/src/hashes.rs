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
use rustix::fs::{AtFlags, Stat};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The first line of the file; another one is another format.
const HEAD: &str = "switchback hashes 2\n";
/// More threads than this do not make a disk faster.
const THREADS_MAX: usize = 8;

/// What tells whether a file is the one that was hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    size: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, u32),
    ctime: (i64, u32),
    dev: u64,
    inode: u64,
}

impl Stamp {
    #[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between processors")]
    fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            dev: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }

    /// The stamp of a file below an open folder: the kernel then need not walk the whole path for each.
    fn at(root: &File, key: &str) -> std::io::Result<Self> {
        Ok(Self::of(&rustix::fs::statat(root, key, AtFlags::empty())?))
    }

    /// Whether any later change would give it another stamp.
    fn is_settled(&self, clock: &Stamp) -> bool {
        self.dev == clock.dev && self.mtime < clock.mtime && self.ctime < clock.mtime
    }
}

/// The cache of one repository.
pub struct Hashes {
    path: PathBuf,
    /// The file, whose lines are sorted by their keys, and what stands where in it.
    text: String,
    lines: Vec<Line>,
    /// What was learnt since.
    new: BTreeMap<String, (Stamp, String)>,
}

/// One line of the file.
struct Line {
    stamp: Stamp,
    sha: Range<usize>,
    key: Range<usize>,
}

impl Hashes {
    /// Reads the cache of the repository in `root`.
    pub fn load(root: &Path) -> Self {
        let path = root.join(".pvr/switchback/hashes");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines = parse(&text).unwrap_or_default();
        Self { path, text, lines, new: BTreeMap::new() }
    }

    /// The hashes of these files of `root`, in their order.
    pub fn of(&mut self, root: &Path, keys: &[&str]) -> Result<Vec<String>> {
        let open = || File::open(root).during(|| format!("open folder {}", root.display()));
        let folder = open()?;
        let asked: Vec<_> = keys.iter().copied().zip(self.find(keys)).collect();
        let found = in_parallel(&asked, |(key, line)| {
            let Some(line) = line else { return Ok(None) };
            let now = Stamp::at(&folder, key).during(|| format!("look at {}", root.join(key).display()))?;
            Ok((now == line.stamp).then(|| self.part(&line.sha).to_owned()))
        })?;
        let missing: Vec<&str> =
            keys.iter().zip(&found).filter(|(_, sha)| sha.is_none()).map(|(key, _)| *key).collect();
        let mut hashed = self.hash(&folder, root, &missing)?.into_iter();
        Ok(found.into_iter().map(|sha| sha.or_else(|| hashed.next()).unwrap_or_default()).collect())
    }

    /// Writes what was learnt; only the files in `keep` are remembered.
    pub fn save(&self, keep: impl Fn(&str) -> bool) {
        if self.new.is_empty() {
            return;
        }
        let mut all: BTreeMap<&str, (&Stamp, &str)> = BTreeMap::new();
        all.extend(self.lines.iter().map(|l| (self.part(&l.key), (&l.stamp, self.part(&l.sha)))));
        all.extend(self.new.iter().map(|(key, (stamp, sha))| (key.as_str(), (stamp, sha.as_str()))));
        let mut text = HEAD.to_owned();
        for (key, (stamp, sha)) in all.iter().filter(|(key, _)| !key.contains('\n') && keep(key)) {
            let Stamp { size, mtime, ctime, dev, inode } = stamp;
            let _ = writeln!(
                text,
                "{sha} {} {} {} {} {} {} {} {key}",
                *size as i64, mtime.0, mtime.1, ctime.0, ctime.1, *dev as i64, *inode as i64
            );
        }
        let sum = files::hash_bytes(text.as_bytes());
        let _ = writeln!(text, "{sum}");
        // It is worth nothing after a power cut, so it is not synced; the sum tells.
        let _ = files::write_unsynced(&self.path, text.as_bytes());
    }

    fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// The line of each key. Both are sorted, as a rule, so that one walk finds them all.
    fn find(&self, keys: &[&str]) -> Vec<Option<&Line>> {
        let key_of = |line: &Line| self.part(&line.key);
        let mut at = 0;
        let mut find = |key: &&str| {
            while at < self.lines.len() && key_of(&self.lines[at]) < *key {
                at += 1;
            }
            if at > 0 && key_of(&self.lines[at - 1]) >= *key {
                at = self.lines.partition_point(|line| key_of(line) < *key);
            }
            self.lines.get(at).filter(|line| key_of(line) == *key)
        };
        keys.iter().map(&mut find).collect()
    }

    fn hash(&mut self, folder: &File, root: &Path, keys: &[&str]) -> Result<Vec<String>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let clock = clock(&self.path);
        let hashed = in_parallel(keys, |key| {
            let path = root.join(key);
            let before = Stamp::at(folder, key).during(|| format!("look at {}", path.display()))?;
            let sha = files::hash(&path)?;
            let settled = clock.is_some_and(|clock| before.is_settled(&clock));
            let same = settled && Stamp::at(folder, key).ok() == Some(before);
            Ok((sha, same.then_some(before)))
        })?;
        for (key, (sha, stamp)) in keys.iter().zip(&hashed) {
            if let Some(stamp) = stamp {
                self.new.insert((*key).to_owned(), (*stamp, sha.clone()));
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
    rustix::fs::fstat(&file).ok().map(|stat| Stamp::of(&stat))
}

/// The lines of a cache whose sum is right.
fn parse(text: &str) -> Option<Vec<Line>> {
    let body = text.get(..text.len().checked_sub(65)?)?;
    if text.get(body.len()..)?.trim_end() != files::hash_bytes(body.as_bytes()) {
        return None;
    }
    let mut at = HEAD.len();
    let line = |line: &str| {
        let mut words = line.splitn(9, ' ');
        let sha = at..at + words.next()?.len();
        let mut number = || words.next()?.parse::<i64>().ok();
        let stamp = Stamp {
            size: number()? as u64,
            mtime: (number()?, u32::try_from(number()?).ok()?),
            ctime: (number()?, u32::try_from(number()?).ok()?),
            dev: number()? as u64,
            inode: number()? as u64,
        };
        let end = at + line.len();
        at = end + 1;
        Some(Line { stamp, sha, key: end - words.next()?.len()..end })
    };
    // Not `lines`, which takes a carriage return away that is the end of a name.
    let lines = body.strip_prefix(HEAD)?;
    if lines.is_empty() { Some(Vec::new()) } else { lines.strip_suffix('\n')?.split('\n').map(line).collect() }
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
        let clock = Stamp { size: 0, mtime: (7, 100), ctime: (7, 100), dev: 1, inode: 1 };
        let file = |mtime, ctime, dev| Stamp { size: 5, mtime: (7, mtime), ctime: (7, ctime), dev, inode: 2 };
        let file = |mtime, ctime, dev| file(mtime, ctime, dev).is_settled(&clock);
        assert!(file(99, 99, 1));
        assert!(!file(100, 99, 1) && !file(99, 100, 1), "as old as the clock: it may change in the same tick");
        assert!(!file(99, 99, 2), "another file system has another clock");
    }

    #[test]
    fn a_damaged_cache_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let cached = |text: &str| parse(text).map(|known| known.len());
        let body = format!("{HEAD}{} 1 2 3 4 5 6 7 a b\n", "0".repeat(64));
        let whole = format!("{body}{}\n", files::hash_bytes(body.as_bytes()));
        assert_eq!(cached(&whole), Some(1));
        assert_eq!(&whole[parse(&whole).unwrap()[0].key.clone()], "a b");
        for cut in 0..whole.len() {
            assert_eq!(cached(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(cached(&whole.replace("1 2 3", "1 2 4")), None);
        assert_eq!(Hashes::load(dir.path()).lines.len(), 0);
    }

    #[test]
    fn names_of_the_cache_are_what_they_are() {
        let names = ["a\r", "b\u{2028}", "c d", "\u{e4}\r\r", "z"];
        let line = |name: &&str| format!("{} 1 2 3 4 5 6 7 {name}\n", "0".repeat(64));
        let body = HEAD.to_owned() + &names.iter().map(line).collect::<String>();
        let text = format!("{body}{}\n", files::hash_bytes(body.as_bytes()));
        let lines = parse(&text).unwrap();
        assert_eq!(lines.iter().map(|line| &text[line.key.clone()]).collect::<Vec<_>>(), names);
        assert!(lines.iter().all(|line| text[line.sha.clone()] == "0".repeat(64)));
    }
}
