//! Which repositories are on this machine: `repositories` in the configuration folder, one absolute path per line.
//!
//! Every verb that works in a repository notes it, so that `gc` knows whose objects a shared pool holds. A line is never
//! removed because the folder is not there: its disk may just not be mounted. The file is advisory to all but `gc`,
//! which refuses to work while it cannot read a repository that is noted.

use crate::{
    error::{During, Result},
    files,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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

    /// The noted repositories, sorted.
    pub fn list(&self) -> Result<BTreeSet<PathBuf>> {
        let text = match fs::read_to_string(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.during(|| format!("read {}", self.path.display()))?,
        };
        Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
    }

    /// Notes a repository. A path that cannot stand on a line is not noted; `gc` then cannot know it.
    pub fn note(&self, root: &Path) -> Result<()> {
        let root = fs::canonicalize(root).unwrap_or_else(|_| files::absolute(root));
        let Some(line) = root.to_str().filter(|line| !line.contains('\n')) else { return Ok(()) };
        if self.list()?.contains(Path::new(line)) {
            return Ok(());
        }
        self.change(|list| {
            list.insert(root.clone());
        })
    }

    /// Forgets repositories.
    pub fn forget(&self, roots: &[PathBuf]) -> Result<()> {
        if roots.is_empty() {
            return Ok(());
        }
        self.change(|list| list.retain(|root| !roots.contains(root)))
    }

    fn change(&self, act: impl FnOnce(&mut BTreeSet<PathBuf>)) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        files::create_dir(dir)?;
        // The folder is locked, because the file is replaced.
        let lock = || fs::File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
        let _lock = lock().during(|| format!("lock {}", dir.display()))?;
        let mut list = self.list()?;
        act(&mut list);
        let text: String = list.iter().map(|root| format!("{}\n", root.display())).collect();
        files::write_atomic(&self.path, 0o644, text.as_bytes())
    }
}
