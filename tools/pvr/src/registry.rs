//! Which repositories there are: lists of absolute paths, one per line.
//!
//! `repositories` in the configuration folder has those in which this user ran `pvr`. `.repositories/list` in a pool has those
//! whose objects it keeps, whoever's they are and whatever configuration they used: a pool can be shared by many users.
//! Every verb that works in a repository notes it, in the pool before it lets go of the pool's lock, so that `gc`, which
//! holds that lock alone, knows whose objects the pool has. A line is never removed because the folder is not there: its
//! disk may just not be mounted. The lists are advisory to all but `gc`, which refuses to work while it cannot read a
//! repository that is noted.

use crate::{
    error::{During, Result},
    files,
};
use rustix::fs::Access;
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Where a pool's list is; a folder of its own, because the pool's lock is on the pool's folder.
const IN_POOL: &str = ".repositories";

/// The repositories that are noted.
#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
}

impl Registry {
    /// The registry of a configuration folder.
    pub fn of(config_dir: &Path) -> Self {
        Self { path: config_dir.join("repositories") }
    }

    /// The registry of a pool's folder.
    pub fn of_pool(pool: &Path) -> Self {
        Self { path: pool.join(IN_POOL).join("list") }
    }

    /// Notes a repository in the pool that has its objects. Who cannot write there cannot store there either.
    pub fn note_in_pool(pool: &Path, root: &Path) -> Result<()> {
        if rustix::fs::access(pool, Access::WRITE_OK).is_err() {
            return Ok(());
        }
        let dir = pool.join(IN_POOL);
        if !dir.exists() {
            // Whoever may store in the pool may note there.
            let mode =
                fs::metadata(pool).during(|| format!("look at {}", pool.display()))?.permissions().mode() & 0o2777;
            files::create_dir(&dir)?;
            fs::set_permissions(&dir, Permissions::from_mode(mode))
                .during(|| format!("set the mode of {}", dir.display()))?;
        }
        Self::of_pool(pool).note(root)
    }

    /// The noted repositories, sorted.
    pub fn list(&self) -> Result<BTreeSet<PathBuf>> {
        let text = match fs::read_to_string(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.during(|| format!("read {}", self.path.display()))?,
        };
        Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
    }

    /// Whether a repository is noted.
    pub fn has(&self, root: &Path) -> Result<bool> {
        Ok(self.list()?.contains(&real(root)))
    }

    /// Notes a repository. A path that cannot stand on a line is not noted; `gc` then cannot know it.
    pub fn note(&self, root: &Path) -> Result<()> {
        let root = real(root);
        if self.has(&root)? || root.to_str().is_none_or(|line| line.contains('\n')) {
            return Ok(());
        }
        self.change(|list| {
            list.insert(root);
        })
    }

    /// Forgets repositories.
    pub fn forget(&self, roots: &[PathBuf]) -> Result<()> {
        if !self.list()?.iter().any(|root| roots.contains(root)) {
            return Ok(());
        }
        self.change(|list| list.retain(|root| !roots.contains(root)))
    }

    fn change(&self, act: impl FnOnce(&mut BTreeSet<PathBuf>)) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        files::create_dir(dir)?;
        let _lock = files::lock_dir(dir)?;
        let mut list = self.list()?;
        act(&mut list);
        let text: String = list.iter().map(|root| format!("{}\n", root.display())).collect();
        files::write_atomic(&self.path, 0o644, text.as_bytes())
    }
}

/// The path without links and `..`, also of a folder that is gone.
pub fn real(dir: &Path) -> PathBuf {
    let dir = files::absolute(dir);
    let parent = || Some(fs::canonicalize(dir.parent()?).ok()?.join(dir.file_name()?));
    fs::canonicalize(&dir).ok().or_else(parent).unwrap_or(dir)
}
