//! A repository: a folder whose files are a device's state, with the committed state in `.pvr/`.
//!
//! `.pvr/json` is the committed state in canonical form, `.pvr/new` the files added since, `.pvr/config` says where
//! the object pool is. Files are named by their path; folders, modes, owners and links are not part of a state.
//! Invariants: every file of ours is replaced whole (`files::write_atomic`); a state that we write never names a
//! path outside the repository; an object enters the pool only under the hash of the bytes that were copied.
//! Two `pvr` that change the same repository wait for each other (a lock on the folder `.pvr`).
//! Not done: history, branches, collecting what is unused in the pool.

pub use crate::parts::in_part;
use crate::{
    canonical::{self, CANONICAL},
    error::{During, Error, Result},
    files,
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

/// A device's state: `#spec` and one value per file.
pub type State = Map<String, Value>;

/// The `#spec` of a state that is made here.
pub const DEFAULT_SPEC: &str = "pantavisor-service-system@1";
/// What `commit` records without `-m`.
pub const NO_MESSAGE: &str = "** No commit message **";

/// A repository on this machine.
pub struct Repo {
    root: PathBuf,
    pool: PathBuf,
}

/// A file that was added since the last commit.
#[derive(Clone, Debug)]
pub struct Added {
    /// An object although its name ends in `.json`.
    pub force_object: bool,
    /// The hash at the time; informative.
    pub sha: String,
}

/// The files as they are now.
pub struct Working {
    /// The state that a commit would record.
    pub state: State,
    /// Files that are neither committed nor added.
    pub untracked: Vec<String>,
}

/// What differs between the committed state and the files.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Changes {
    /// New files that were added.
    pub added: Vec<String>,
    /// Committed files that are gone.
    pub removed: Vec<String>,
    /// Committed files with other content.
    pub changed: Vec<String>,
}

impl Repo {
    /// The repository of the current folder.
    pub fn open() -> Result<Self> {
        Self::at(&std::env::current_dir().during(|| "find the current folder")?)
    }

    /// The repository in `root`.
    pub fn at(root: &Path) -> Result<Self> {
        if !root.join(".pvr/json").is_file() {
            let hint = "run it in the folder that holds .pvr; `pvr init` makes a new one here, `pvr clone` fetches one";
            return Err(Error::usage(format!("{} is not a pvr repository", root.display())).hint(hint));
        }
        let root = files::absolute(root);
        let pool = match fs::read(root.join(".pvr/config")) {
            Ok(text) => {
                let config = parse(&text, &root.join(".pvr/config"))?;
                config["ObjectsDir"].as_str().filter(|dir| !dir.is_empty()).map(|dir| root.join(dir))
            }
            Err(_) => None,
        };
        let pool = pool.unwrap_or_else(|| root.join(".pvr/objects"));
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
        let repo = Self { root: files::absolute(root), pool: files::absolute(pool) };
        repo.write_config(&BTreeMap::new())?;
        // Last, because it is what makes the folder a repository.
        repo.write_pristine(state)?;
        Ok(repo)
    }

    /// The folder with the files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file's place in the pool.
    pub fn object(&self, sha: &str) -> PathBuf {
        self.pool.join(sha)
    }

    /// Keeps other `pvr` from changing the repository until the answer is dropped.
    pub fn lock(&self) -> Result<File> {
        let act = || {
            let dir = File::open(self.root.join(".pvr"))?;
            dir.lock()?;
            Ok(dir)
        };
        act().during(|| format!("lock {}", self.root.join(".pvr").display()))
    }

    /// The committed state.
    pub fn pristine(&self) -> Result<State> {
        let path = self.root.join(".pvr/json");
        match parse(&files::read(&path)?, &path)? {
            Value::Object(state) => Ok(state),
            _ => Err(Error::input(format!("{} is not a state: it is no JSON object", path.display()))),
        }
    }

    /// Replaces the committed state.
    pub fn write_pristine(&self, state: &State) -> Result<()> {
        check_keys(state)?;
        let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
        files::write_atomic(&self.root.join(".pvr/json"), 0o644, text.as_bytes())
    }

    /// The files added since the last commit.
    pub fn index(&self) -> Result<BTreeMap<String, Added>> {
        let path = self.root.join(".pvr/new");
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let value = parse(&files::read(&path)?, &path)?;
        let entries = value.as_object().ok_or_else(|| Error::input(format!("{} is no JSON object", path.display())))?;
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
                "ObjectsDir": self.pool, "AccessTokens": {}, "RefreshTokens": {}}),
        };
        for (name, value) in set {
            config[*name] = json!(value);
        }
        files::write_atomic(&path, 0o644, canonical::write(&config, canonical::TABS)?.as_bytes())
    }

    /// Every file of the folder that is not ours, as state keys.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for path in files::walk(&self.root)? {
            if path.starts_with(".pvr") || path.starts_with(".pv") || !self.root.join(&path).is_file() {
                continue;
            }
            match path.to_str() {
                Some(key) => keys.push(key.to_owned()),
                None => return Err(Error::input(format!("the file name {} is not UTF-8", path.display()))),
            }
        }
        Ok(keys)
    }

    /// The state of the files as they are now.
    pub fn working(&self, pristine: &State, index: &BTreeMap<String, Added>) -> Result<Working> {
        let mut working = Working { state: State::new(), untracked: Vec::new() };
        let spec = pristine.get("#spec").cloned().unwrap_or_else(|| json!(DEFAULT_SPEC));
        working.state.insert("#spec".into(), spec);
        for key in self.files()? {
            if !pristine.contains_key(&key) && !index.contains_key(&key) {
                working.untracked.push(key);
                continue;
            }
            let path = self.root.join(&key);
            let value = if is_inline(&key, pristine.get(&key), index.get(&key)) {
                parse(&files::read(&path)?, &path)?
            } else {
                json!(files::hash(&path)?)
            };
            working.state.insert(key, value);
        }
        Ok(working)
    }

    /// Copies a file into the pool; the hash under which it is there.
    pub fn store(&self, path: &Path) -> Result<String> {
        let mut source = File::open(path).during(|| format!("read {}", path.display()))?;
        self.store_from(&mut source, &path.display().to_string(), None)
    }

    /// Copies what `source` gives into the pool, under the hash of what was copied, which must be `expected`.
    pub fn store_from(&self, source: &mut impl std::io::Read, what: &str, expected: Option<&str>) -> Result<String> {
        files::create_dir(&self.pool)?;
        let mut file = files::begin(&self.pool.join("new"))?;
        let (sha, _) = files::copy_hashed(source, &mut file).during(|| format!("copy {what} to the object pool"))?;
        if expected.is_some_and(|e| e != sha) {
            return Err(Error::remote(format!(
                "object {} came with other content (its sha256 is {sha})",
                expected.unwrap_or_default()
            ))
            .hint("nothing was kept of it; try again, and look at the other side's storage if it stays so"));
        }
        let path = self.object(&sha);
        if !path.exists() {
            files::finish(file, &path, 0o644)?;
        }
        Ok(sha)
    }

    /// Writes one key of a state as a file of the folder.
    pub fn checkout(&self, key: &str, value: &Value, how: Checkout) -> Result<()> {
        let path = self.root.join(key);
        if let Some(parent) = path.parent() {
            files::create_dir(parent)?;
        }
        match object_of(key, value)? {
            None => {
                let layout = if how == Checkout::Plain { canonical::CHECKOUT } else { CANONICAL };
                files::write_atomic(&path, 0o644, canonical::write(value, layout)?.as_bytes())
            }
            Some(sha) => self.checkout_object(sha, &path, how),
        }
    }

    fn checkout_object(&self, sha: &str, path: &Path, how: Checkout) -> Result<()> {
        let object = self.object(sha);
        let missing = || {
            let hint = "fetch it again with `pvr clone`, or commit the file again";
            Error::input(format!("object {sha} of {} is not in the pool {}", path.display(), self.pool.display()))
                .hint(hint)
        };
        let mut source = File::open(&object).map_err(|_| missing())?;
        if how == Checkout::HardLink {
            let act = || {
                let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o444);
                source.set_permissions(mode)?;
                if path.exists() {
                    fs::remove_file(path)?;
                }
                fs::hard_link(&object, path)
            };
            return act().during(|| format!("link {} to {}", object.display(), path.display()));
        }
        let mut file = files::begin(path)?;
        let (found, _) = files::copy_hashed(&mut source, &mut file).during(|| format!("write {}", path.display()))?;
        if found != sha {
            let hint = format!("{} is damaged: remove it and fetch it again", object.display());
            return Err(Error::input(format!("{}: Object cannot be checked out; wrong sha", path.display())).hint(hint));
        }
        files::finish(file, path, 0o644)
    }
}

/// How files are written by `reset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checkout {
    /// JSON indented for people, objects copied.
    Plain,
    /// JSON in canonical form.
    Canonical,
    /// JSON in canonical form, objects hard-linked to the pool and made read-only.
    HardLink,
}

/// Parses a JSON document of ours or of the user's.
pub fn parse(text: &[u8], path: &Path) -> Result<Value> {
    serde_json::from_slice(text).map_err(|e| Error::input(format!("JSON Unmarshal ({}): {e}", path.display())))
}

/// Whether text is the name of an object.
pub fn is_sha(text: &str) -> bool {
    runtime::id::ObjectId::parse(text).is_some()
}

/// The object that a key of a state names; none if the value is inline JSON.
pub fn object_of<'v>(key: &str, value: &'v Value) -> Result<Option<&'v str>> {
    match value.as_str() {
        Some(text) if is_sha(text) => Ok(Some(text)),
        _ if key.ends_with(".json") => Ok(None),
        _ => Err(Error::input(format!("the value of {key} is neither an object's sha256 nor inline JSON"))),
    }
}

/// Whether a tracked file is part of the state itself rather than an object. What it was decides, not what it is.
fn is_inline(key: &str, pristine: Option<&Value>, added: Option<&Added>) -> bool {
    let was_object = pristine.and_then(Value::as_str).is_some_and(is_sha);
    key.ends_with(".json") && !was_object && !added.is_some_and(|a| a.force_object)
}

/// The files of a state: every key but the `#` ones.
pub fn entries(state: &State) -> impl Iterator<Item = (&String, &Value)> {
    state.iter().filter(|(key, _)| !key.starts_with("#spec"))
}

/// The objects that a state names, each once.
pub fn objects(state: &State) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (key, value) in entries(state) {
        found.extend(object_of(key, value)?.map(str::to_owned));
    }
    Ok(found)
}

/// Refuses a state whose keys are not plain paths inside the repository.
pub fn check_keys(state: &State) -> Result<()> {
    for (key, _) in entries(state) {
        let first = key.split('/').next().unwrap_or_default();
        let plain = key.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !plain || key.contains(['\\', '\0', '\n']) || first == ".pvr" || first == ".pv" {
            return Err(Error::input(format!("the key {key:?} is not a plain path inside the revision")));
        }
    }
    Ok(())
}

/// What differs, each list in the order of its keys.
pub fn changes(pristine: &State, working: &State) -> Result<Changes> {
    let mut changes = Changes::default();
    for (key, value) in working {
        match pristine.get(key) {
            None => changes.added.push(key.clone()),
            Some(old) if !same(old, value)? => changes.changed.push(key.clone()),
            Some(_) => {}
        }
    }
    changes.removed.extend(pristine.keys().filter(|key| !working.contains_key(*key)).cloned());
    Ok(changes)
}

/// Equal as values: `1.0` and `1` are.
pub fn same(a: &Value, b: &Value) -> Result<bool> {
    Ok(a == b || canonical::write(a, CANONICAL)? == canonical::write(b, CANONICAL)?)
}

/// The RFC 7396 merge patch from one value to another. Members set to `null` cannot be told from removed ones in it:
/// it is for people to read, nothing is computed from it.
pub fn merge_patch(from: &Value, to: &Value) -> Result<Value> {
    let (Value::Object(old), Value::Object(new)) = (from, to) else { return Ok(to.clone()) };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if same(before, value)? => {}
            Some(before) => {
                patch.insert(key.clone(), merge_patch(before, value)?);
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
    Ok(Value::Object(patch))
}
