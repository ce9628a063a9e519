//! The object pool: files named by the sha256 of their content, shared by many repositories.
//!
//! An object enters under the hash of the bytes that were copied, complete and durable, read-only (0444), so that a
//! hard link to it cannot be written either. What is read is verified; a damaged object is an error that says so, and
//! is replaced as soon as somebody brings the right content.
//! What `pvr gc` found unneeded waits in `.unused/`; it comes back by itself when it is asked for.
//! Whoever stores holds the pool's lock shared, `gc` holds it alone.

use crate::{
    error::{During, Error, Result},
    files::{self, Batch},
};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// Objects that nobody seemed to need.
pub const UNUSED: &str = ".unused";

/// A folder of objects.
#[derive(Clone, Debug)]
pub struct Pool {
    dir: PathBuf,
}

/// Objects on their way into a pool: complete, but without a name. Dropped, they leave nothing.
#[derive(Default)]
pub struct Staged {
    batch: Batch,
    count: usize,
}

impl Pool {
    /// The pool in a folder, which need not be there yet.
    pub fn at(dir: &Path) -> Self {
        Self { dir: files::absolute(dir) }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An object's place. One that was put aside is brought back.
    pub fn path(&self, sha: &str) -> PathBuf {
        let path = self.dir.join(sha);
        if !path.exists() {
            // If this fails the object is missing, which whoever opens it will say.
            let _ = fs::rename(self.dir.join(UNUSED).join(sha), &path);
        }
        path
    }

    /// Keeps `gc` away until the answer is dropped.
    pub fn share(&self) -> Result<File> {
        files::create_dir(&self.dir)?;
        let act = || File::open(&self.dir).and_then(|dir| dir.lock_shared().map(|()| dir));
        act().during(|| format!("lock {}", self.dir.display()))
    }

    /// Whether the pool has the object with the content that its name says.
    pub fn is_whole(&self, sha: &str) -> bool {
        files::hash(&self.path(sha)).is_ok_and(|found| found == sha)
    }

    /// Opens an object that `key` needs.
    pub fn open(&self, sha: &str, key: &str) -> Result<File> {
        File::open(self.path(sha)).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                let hint = format!("bring it back: `pvr get`, or `pvr add {key}` where the file has the right content");
                Error::input(format!("object {sha} of {key} is not in the pool {}", self.dir.display())).hint(hint)
            }
            _ => Error::host(format!("cannot read object {sha} of {key}: {e}")),
        })
    }

    /// Refuses an object whose content was `found` to be another.
    pub fn must_be(&self, sha: &str, found: &str, key: &str) -> Result<()> {
        if sha == found {
            return Ok(());
        }
        let hint = format!(
            "{} is damaged; it is replaced when the right content comes: `pvr get`, or `pvr add {key}` where the file \
             has it",
            self.dir.join(sha).display()
        );
        Err(Error::input(format!("{key}: Object cannot be checked out; wrong sha: {sha} has {found}")).hint(hint))
    }

    /// Puts a file's content into the pool, under `known` if that is its hash; the hash under which it will be there.
    pub fn stage_file(&self, path: &Path, known: Option<&str>) -> Result<(String, Staged)> {
        if let Some(sha) = known.filter(|sha| self.is_whole(sha)) {
            return Ok((sha.to_owned(), Staged::default()));
        }
        let mut source = File::open(path).during(|| format!("read {}", path.display()))?;
        self.stage(&mut source, &path.display().to_string(), None)
    }

    /// Copies what `source` gives, whose hash must be `expected`. It has no name before [`Pool::publish`].
    pub fn stage(&self, source: &mut impl Read, what: &str, expected: Option<&str>) -> Result<(String, Staged)> {
        files::create_dir(&self.dir)?;
        let mut file = files::begin(&self.dir.join("new"))?;
        let (sha, _) = files::copy_hashed(source, &mut file).during(|| format!("copy {what} to the object pool"))?;
        if let Some(expected) = expected.filter(|e| *e != sha) {
            return Err(Error::remote(format!("object {expected} came with other content (its sha256 is {sha})"))
                .hint("nothing was kept of it; try again, and look at the other side's storage if it stays so"));
        }
        let mut staged = Staged::default();
        if !self.is_whole(&sha) {
            staged.batch.push(file, &self.dir.join(&sha), 0o444)?;
            staged.count = 1;
        }
        Ok((sha, staged))
    }

    /// Refuses what the disk has no room for, before it is filled.
    pub fn has_room_for(&self, size: u64) -> Result<()> {
        files::create_dir(&self.dir)?;
        let disk = rustix::fs::statvfs(&self.dir).map_err(std::io::Error::from);
        let disk = disk.during(|| format!("look at the disk of {}", self.dir.display()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if size > free {
            let dir = self.dir.display();
            return Err(Error::host(format!("an object has {size} bytes, and the disk of {dir} has room for {free}"))
                .hint("`pvr gc --dry-run` shows what of the pool nobody needs"));
        }
        Ok(())
    }

    /// Gives staged objects their names, once all of them are durable.
    pub fn publish(&self, staged: Staged) -> Result<()> {
        if staged.count == 0 {
            return Ok(());
        }
        staged.batch.finish()?;
        files::sync_dir(&self.dir)
    }
}

impl Staged {
    /// Takes in what else was staged.
    pub fn append(&mut self, other: Self) {
        self.batch.append(other.batch);
        self.count += other.count;
    }
}
