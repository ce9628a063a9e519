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
}

impl Repo {
    /// Every file of the folder that is not ours, as state keys, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        descend(self.root(), "", &mut keys)?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// The state of the files as they are now.
    pub fn working(&self, pristine: &State, index: &BTreeMap<String, Added>) -> Result<Working> {
        let all = self.files()?;
        let (tracked, untracked): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|key| pristine.contains_key(key) || index.contains_key(key));
        let (inline, objects): (Vec<&str>, Vec<&str>) =
            tracked.iter().map(String::as_str).partition(|key| is_inline(key, pristine.get(*key), index.get(*key)));
        let mut state = State::new();
        let spec = pristine.get("#spec").cloned().unwrap_or_else(|| json!(DEFAULT_SPEC));
        state.insert("#spec".into(), spec);
        for (key, value) in inline.iter().zip(in_parallel(&inline, |key| read_inline(self.root(), key))?) {
            state.insert((*key).to_owned(), value);
        }
        for (key, sha) in objects.iter().zip(self.hash(&objects)?) {
            state.insert((*key).to_owned(), json!(sha));
        }
        Ok(Working { state, untracked })
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

fn read_inline(root: &Path, key: &str) -> Result<Value> {
    let path = root.join(key);
    let value = state::parse(&files::read(&path)?, &path)?;
    // In a state such a string means an object; nobody could tell that it was meant as a document.
    if value.as_str().is_some_and(state::is_sha) {
        return Err(Error::input(format!("{key} holds nothing but a string that reads as an object's name"))
            .hint(format!("track it as an object: pvr add --raw {key}")));
    }
    Ok(value)
}

fn descend(root: &Path, below: &str, keys: &mut Vec<String>) -> Result<()> {
    let dir: PathBuf = root.join(below);
    let list = || fs::read_dir(&dir)?.collect::<std::io::Result<Vec<_>>>();
    for entry in list().during(|| format!("read folder {}", dir.display()))? {
        let kind = entry.file_type().during(|| format!("look at {}", entry.path().display()))?;
        let name = entry.file_name();
        if below.is_empty() && (name == ".pvr" || name == ".pv") {
            continue;
        }
        let is_file = kind.is_file() || kind.is_symlink() && entry.path().is_file();
        if !is_file && !kind.is_dir() {
            continue;
        }
        let Some(name) = name.to_str() else {
            return Err(Error::input(format!("the file name {} is not UTF-8", entry.path().display())));
        };
        let key = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        if kind.is_dir() {
            descend(root, &key, keys)?;
        } else {
            keys.push(key);
        }
    }
    Ok(())
}
