//! A repository: a folder whose files are a device's state, with the committed state in `.pvr/`.
//!
//! `.pvr/json` is the committed state in canonical form, `.pvr/new` the files added since, `.pvr/config` says where
//! the object pool is. Files are named by their path; folders, modes, owners and links are not part of a state.
//! What is ours alone is in `.pvr/switchback/` ([`crate::history`], [`crate::hashes`]) and `.pvr/tmp/` (files that have no
//! name yet); the original ignores both.
//!
//! Invariants: every file of ours is replaced whole; a state that we write never names a path outside the repository;
//! an object is in the pool before a state names it. Two `pvr` that change the same repository wait for each other (a
//! lock on the folder `.pvr`); what a killed one left is swept by the next.
//! Beside this file: [`crate::worktree`] reads the files, [`crate::checkout`] writes them, [`crate::pool`] keeps objects.

use crate::{
    canonical::{self, CANONICAL},
    error::{During, Error, Result},
    files,
    history::{self, History},
    pool::Pool,
    registry::Registry,
};
pub use crate::{
    checkout::Checkout,
    parts::in_part,
    state::{
        Changes, DEFAULT_SPEC, State, changes, check_key, check_keys, entries, is_sha, merge_patch, object_of, objects,
        parse, same,
    },
    worktree::Working,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// What `commit` records without `-m`.
pub const NO_MESSAGE: &str = "** No commit message **";

/// A repository on this machine.
pub struct Repo {
    root: PathBuf,
    pool: Pool,
}

/// A file that was added since the last commit.
#[derive(Clone, Debug)]
pub struct Added {
    /// An object although its name ends in `.json`.
    pub force_object: bool,
    /// The hash at the time; informative.
    pub sha: String,
}

/// Keeps other `pvr` out until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _repository: File,
    _pool: File,
}

impl Repo {
    /// The repository of the current folder.
    pub fn open() -> Result<Self> {
        Self::at(&std::env::current_dir().during(|| "find the current folder")?)
    }

    /// The repository in `root`.
    pub fn at(root: &Path) -> Result<Self> {
        if !root.join(".pvr/json").is_file() {
            let above = root.ancestors().skip(1).find(|dir| dir.join(".pvr/json").is_file());
            let hint = above.map_or_else(
                || {
                    "run it in the folder that holds .pvr; `pvr init` makes a new one here, `pvr clone` fetches one"
                        .to_owned()
                },
                |above| format!("the repository above is {}: run it there", above.display()),
            );
            return Err(Error::usage(format!("{} is not a pvr repository", root.display())).hint(hint));
        }
        let root = files::absolute(root);
        let path = root.join(".pvr/config");
        let config = match fs::read(&path) {
            Ok(text) => parse(&text, &path)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(e) => return Err(e).during(|| format!("read {}", path.display())),
        };
        let dir = config["ObjectsDir"].as_str().filter(|dir| !dir.is_empty()).unwrap_or(".pvr/objects");
        let pool = Pool::at(&root.join(dir));
        Ok(Self { root, pool })
    }

    /// Makes a repository in `root` with this state. Refused where there is one.
    pub fn create(root: &Path, pool: &Path, state: &State) -> Result<Self> {
        let pvr = root.join(".pvr");
        if pvr.join("json").exists() {
            let hint = "nothing was changed; remove .pvr if you want to start anew";
            return Err(Error::usage(format!("{} is a pvr repository already", root.display())).hint(hint));
        }
        files::create_dir(&pvr)?;
        files::create_dir(pool)?;
        let repo = Self { root: files::absolute(root), pool: Pool::at(pool) };
        repo.write_config(&BTreeMap::new())?;
        // Last, because it is what makes the folder a repository.
        repo.write_pristine(state)?;
        Ok(repo)
    }

    /// The folder with the files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the objects are.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What was committed before.
    pub fn history(&self) -> History {
        History::of(&self.root)
    }

    /// A file's place in the pool.
    pub fn object(&self, sha: &str) -> PathBuf {
        self.pool.path(sha)
    }

    /// Keeps other `pvr` from changing the repository, and `gc` from its objects, until the answer is dropped. From then
    /// on `gc` knows the repository.
    pub fn lock(&self) -> Result<Lock> {
        let lock = self.lock_unnoted()?;
        self.note()?;
        Ok(lock)
    }

    /// As [`Repo::lock`], for a repository that does not have its own name yet: it has to be noted under that name before
    /// the answer is dropped.
    pub fn lock_unnoted(&self) -> Result<Lock> {
        let pvr = self.root.join(".pvr");
        let act = || {
            let dir = File::open(&pvr)?;
            if dir.try_lock().is_err() {
                eprintln!("another pvr is changing this repository; waiting for it");
                dir.lock()?;
            }
            Ok(dir)
        };
        let lock = Lock { _repository: act().during(|| format!("lock {}", pvr.display()))?, _pool: self.pool.share()? };
        self.sweep();
        Ok(lock)
    }

    /// Keeps `gc` from the objects until the answer is dropped; from then on it knows the repository.
    pub fn share(&self) -> Result<File> {
        let pool = self.pool.share()?;
        self.note()?;
        Ok(pool)
    }

    /// Notes in the pool that this repository needs its objects. The pool's lock must be held.
    pub fn note(&self) -> Result<()> {
        Registry::note_in_pool(self.pool.dir(), &self.root)
    }

    /// As [`Repo::note`], for verbs that only read: neither makes a pool, nor waits for its lock where nothing is new.
    pub fn note_if_new(&self) -> Result<()> {
        if !self.pool.dir().is_dir() || Registry::of_pool(self.pool.dir()).has(&self.root)? {
            return Ok(());
        }
        self.share().map(drop)
    }

    /// Removes what a `pvr` left that was killed. Only the holder of the lock has such files.
    fn sweep(&self) {
        let pvr = self.root.join(".pvr");
        let _ = fs::remove_dir_all(pvr.join("tmp"));
        for dir in [pvr.clone(), pvr.join("switchback"), pvr.join("switchback/states")] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(".pvr-") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// A folder on the repository's disk for files that have no name yet.
    pub(crate) fn scratch_dir(&self) -> std::io::Result<PathBuf> {
        let dir = self.root.join(".pvr/tmp");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A file that has no name yet.
    pub(crate) fn scratch(&self) -> Result<NamedTempFile> {
        let make = || tempfile::Builder::new().prefix("new-").tempfile_in(self.scratch_dir()?);
        make().during(|| format!("create a file in {}", self.root.join(".pvr/tmp").display()))
    }

    /// The committed state.
    pub fn pristine(&self) -> Result<State> {
        let path = self.root.join(".pvr/json");
        match parse(&files::read(&path)?, &path)? {
            Value::Object(state) => Ok(state),
            _ => Err(Error::input(format!("{} is not a state: it is no JSON object", path.display()))),
        }
    }

    /// Added files and the committed state. In this order a commit at the same time cannot hide a file.
    pub fn load(&self) -> Result<(BTreeMap<String, Added>, State)> {
        Ok((self.index()?, self.pristine()?))
    }

    /// Replaces the committed state by what `verb` made of it, and remembers the old one; `message` is what people
    /// will read about it. Its objects have to be in the pool.
    pub fn advance(&self, state: &State, verb: &str, message: &str) -> Result<()> {
        check_keys(state)?;
        let (history, old) = (self.history(), self.pristine()?);
        let id = history::id(&old)?;
        let entries = history.entries(&id)?;
        // Without a record, the files are taken for those of the committed state, unless another program changed it.
        let known = entries.last().is_none_or(|last| last.verb != history::FOREIGN);
        let files = history.files(&id).or_else(|| (known && !history.has_record()).then(|| old.clone()));
        history.record(&old, state, verb, message)?;
        self.write_pristine(state)?;
        history.set_files(files.as_ref(), state)
    }

    /// Replaces the committed state, of a repository that has no history yet.
    pub fn write_pristine(&self, state: &State) -> Result<()> {
        check_keys(state)?;
        let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
        files::write_atomic(&self.root.join(".pvr/json"), 0o644, text.as_bytes())?;
        files::sync_dir(&self.root.join(".pvr"))
    }

    /// The files added since the last commit.
    pub fn index(&self) -> Result<BTreeMap<String, Added>> {
        let path = self.root.join(".pvr/new");
        let text = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            text => text.during(|| format!("read {}", path.display()))?,
        };
        let value = parse(&text, &path)?;
        let entries = value.as_object().ok_or_else(|| {
            Error::input(format!("{} is no JSON object", path.display()))
                .hint("remove it and `pvr add` the new files again")
        })?;
        let added = |v: &Value| Added {
            force_object: v["ForceObject"].as_bool().unwrap_or(false),
            sha: v["Sha"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(entries.iter().map(|(key, v)| (key.clone(), added(v))).collect())
    }

    /// Replaces the list of added files.
    pub fn write_index(&self, index: &BTreeMap<String, Added>) -> Result<()> {
        let path = self.root.join(".pvr/new");
        if index.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(e).during(|| format!("remove {}", path.display()))
                }
                _ => Ok(()),
            };
        }
        let entry = |a: &Added| json!({"ForceObject": a.force_object, "Sha": a.sha});
        let value = Value::Object(index.iter().map(|(key, a)| (key.clone(), entry(a))).collect());
        files::write_atomic(&path, 0o644, canonical::write(&value, CANONICAL)?.as_bytes())
    }

    /// Writes what the last commit is about.
    pub fn write_message(&self, message: &str) -> Result<()> {
        files::write_atomic(&self.root.join(".pvr/commitmsg"), 0o644, message.as_bytes())
    }

    /// One of the default URLs.
    pub fn url(&self, name: &str) -> Option<String> {
        let config = parse(&fs::read(self.root.join(".pvr/config")).ok()?, Path::new("config")).ok()?;
        config[name].as_str().filter(|url| !url.is_empty()).map(str::to_owned)
    }

    /// Sets default URLs: those in `always`, and every one that is empty to `url`.
    pub fn remember(&self, url: &str, always: &[&str]) -> Result<()> {
        let names = ["DefaultGetUrl", "DefaultPutUrl", "DefaultPostUrl"];
        let set = names.iter().filter(|name| always.contains(name) || self.url(name).is_none());
        self.write_config(&set.map(|name| (*name, url.to_owned())).collect())
    }

    /// Writes the configuration with these members changed; members that we do not know stay.
    fn write_config(&self, set: &BTreeMap<&str, String>) -> Result<()> {
        let path = self.root.join(".pvr/config");
        let mut config = match fs::read(&path) {
            Ok(text) => parse(&text, &path)?,
            Err(_) => json!({"DefaultGetUrl": "", "DefaultPutUrl": "", "DefaultPostUrl": "",
                "ObjectsDir": self.pool.dir(), "AccessTokens": {}, "RefreshTokens": {}}),
        };
        if !config.is_object() {
            return Err(Error::input(format!("{} is no JSON object", path.display()))
                .hint("`{\"ObjectsDir\": \"…\"}` is the least that it needs"));
        }
        for (name, value) in set {
            config[*name] = json!(value);
        }
        files::write_atomic(&path, 0o644, canonical::write(&config, canonical::TABS)?.as_bytes())
    }

    /// Copies a file into the pool; the hash under which it is there.
    pub fn store(&self, path: &Path) -> Result<String> {
        let (sha, staged) = self.pool.stage_file(path, None)?;
        self.pool.publish(staged)?;
        Ok(sha)
    }

    /// Copies what `source` gives into the pool, under the hash of what was copied, which must be `expected`.
    pub fn store_from(&self, source: &mut impl std::io::Read, what: &str, expected: Option<&str>) -> Result<String> {
        let (sha, staged) = self.pool.stage(source, what, expected)?;
        self.pool.publish(staged)?;
        Ok(sha)
    }
}
