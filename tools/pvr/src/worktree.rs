//! The files of a repository's folder, and the state that they make.
//!
//! Tracked are the files of the committed state and those that were added. A `.json` file is part of the state itself
//! unless it was committed or added as an object. Symbolic links to files count as the files; those to folders are not
//! followed.

use crate::{
    error::{During, Error, Result},
    files,
    hashes::{Hashes, in_parallel},
    repo::{Added, Repo},
    shown::shown,
    state::{self, DEFAULT_SPEC, State},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The files as they are now.
pub struct Working {
    /// The state that a commit would record.
    pub state: State,
    /// Files that are neither committed nor added.
    pub untracked: Vec<String>,
    /// What lies there besides, and no revision could name or hold.
    pub odd: Vec<Odd>,
    /// Tracked files that cannot be part of a state as they are; they are not in `state`.
    pub broken: Vec<(String, Error)>,
}

/// A file or a folder that cannot be part of a revision: its name cannot be written there, or it cannot be read.
pub struct Odd {
    /// Its path below the root.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Odd {
    /// Its path as people see it.
    pub fn shown(&self) -> String {
        self.path.to_str().map_or_else(|| format!("{:?}", self.path), shown)
    }
}

/// What is found in the folder of a repository.
#[derive(Default)]
pub struct Found {
    /// Files that are not ours, as state keys, sorted.
    pub keys: Vec<String>,
    /// What has no key, or could not be looked into.
    pub odd: Vec<Odd>,
}

impl Repo {
    /// Every file of the folder that is not ours, as state keys, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        Ok(self.found()?.keys)
    }

    /// Every file of the folder that is not ours.
    pub fn found(&self) -> Result<Found> {
        let mut found = Found::default();
        list(self.root()).during(|| format!("read folder {}", self.root().display()))?;
        descend(self.root(), "", &mut found);
        found.keys.sort_unstable();
        found.odd.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The state of the files as they are now; an error if one of them cannot be part of it.
    pub fn working(&self, pristine: &State, index: &BTreeMap<String, Added>) -> Result<Working> {
        let mut working = self.look(pristine, index)?;
        match working.broken.len() {
            0 => Ok(working),
            1 => Err(working.broken.remove(0).1),
            _ => Err(all_broken(working.broken)),
        }
    }

    /// The files as they are now, with those that cannot be part of a state by themselves.
    pub fn look(&self, pristine: &State, index: &BTreeMap<String, Added>) -> Result<Working> {
        let Found { keys, mut odd } = self.found()?;
        let is_tracked = |key: &str| pristine.contains_key(key) || index.contains_key(key);
        // What cannot be looked into is no matter, unless something tracked is there: it would seem to be removed.
        for Odd { path, why } in &odd {
            let tracked = pristine.keys().chain(index.keys()).find(|key| Path::new(key).starts_with(path));
            if let Some(key) = tracked {
                return Err(Error::host(format!("cannot look at {key}: {} {why}", path.display())));
            }
        }
        let (tracked, mut untracked): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| is_tracked(key));
        untracked.retain(|key| match state::check_key(key) {
            Ok(()) => true,
            Err(_) => {
                odd.push(Odd { path: key.into(), why: NO_PLAIN_PATH.into() });
                false
            }
        });
        let (inline, objects): (Vec<&str>, Vec<&str>) =
            tracked.iter().map(String::as_str).partition(|key| is_inline(key, pristine.get(*key), index.get(*key)));
        let mut state = State::new();
        let spec = pristine.get("#spec").cloned().unwrap_or_else(|| json!(DEFAULT_SPEC));
        state.insert("#spec".into(), spec);
        let mut broken = Vec::new();
        for (key, value) in inline.iter().zip(in_parallel(&inline, |key| Ok(read_inline(self.root(), key)))?) {
            match value {
                Ok(value) => drop(state.insert((*key).to_owned(), value)),
                Err(error) => broken.push(((*key).to_owned(), error)),
            }
        }
        for (key, sha) in objects.iter().zip(self.hash(&objects)?) {
            state.insert((*key).to_owned(), json!(sha));
        }
        Ok(Working { state, untracked, odd, broken })
    }

    /// Refuses new files that would be part of the state itself and cannot be.
    pub fn check_inline(&self, keys: &[&str]) -> Result<()> {
        let mut broken: Vec<(String, Error)> = Vec::new();
        for (key, read) in keys.iter().zip(in_parallel(keys, |key| Ok(read_inline(self.root(), key).map(drop)))?) {
            broken.extend(read.err().map(|error| ((*key).to_owned(), error)));
        }
        match broken.len() {
            0 => Ok(()),
            1 => Err(broken.remove(0).1),
            _ => Err(all_broken(broken)),
        }
    }

    /// The hashes of these files of the folder; what was read before and did not change is not read again.
    pub fn hash(&self, keys: &[&str]) -> Result<Vec<String>> {
        let mut cache = Hashes::load(self.root());
        let found = cache.of(self.root(), keys);
        cache.save(|key| self.root().join(key).exists());
        found
    }
}

/// Whether a tracked file is part of the state itself rather than an object. What it was decides, not what it is.
fn is_inline(key: &str, pristine: Option<&Value>, added: Option<&Added>) -> bool {
    let was_object = pristine.and_then(Value::as_str).is_some_and(state::is_sha);
    key.ends_with(".json") && !was_object && !added.is_some_and(|a| a.force_object)
}

/// One error for many files, with what each of them lacks.
fn all_broken(broken: Vec<(String, Error)>) -> Error {
    let keys: Vec<_> = broken.iter().map(|(key, _)| shown(key)).collect();
    let messages: Vec<_> = broken.iter().map(|(_, error)| error.message.as_str()).collect();
    Error::input(messages.join("; ")).hint(raw_hint(&keys.join(" ")))
}

fn raw_hint(keys: &str) -> String {
    format!("correct it, or track it as an object: pvr add --raw {keys}")
}

fn read_inline(root: &Path, key: &str) -> Result<Value> {
    let path = root.join(key);
    let text = files::read(&path)?;
    let value = state::parse(&text, &path).map_err(|error| error.hint(raw_hint(key)))?;
    // In a state such a string means an object; nobody could tell that it was meant as a document.
    if value.as_str().is_some_and(state::is_sha) {
        return Err(Error::input(format!("{key} holds nothing but a string that reads as an object's name"))
            .hint(raw_hint(key)));
    }
    Ok(value)
}

const NO_PLAIN_PATH: &str = "is no plain path";

fn list(dir: &Path) -> std::io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(dir)?.collect()
}

fn descend(root: &Path, below: &str, found: &mut Found) {
    let entries = match list(&root.join(below)) {
        Ok(entries) => entries,
        Err(e) => return found.odd.push(Odd { path: below.into(), why: format!("cannot be read: {e}") }),
    };
    for entry in entries {
        let name = entry.file_name();
        if below.is_empty() && (name == ".pvr" || name == ".pv") {
            continue;
        }
        let path = Path::new(below).join(&name);
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(e) => {
                found.odd.push(Odd { path, why: format!("cannot be looked at: {e}") });
                continue;
            }
        };
        let is_file = kind.is_file() || kind.is_symlink() && entry.path().is_file();
        if !is_file && !kind.is_dir() {
            continue;
        }
        match path.into_os_string().into_string() {
            Err(path) => found.odd.push(Odd { path: path.into(), why: "is not UTF-8".into() }),
            Ok(key) if kind.is_dir() => descend(root, &key, found),
            Ok(key) => found.keys.push(key),
        }
    }
}
