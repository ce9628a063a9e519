//! A state: the JSON object that names every file of a revision, as pure functions.
//!
//! `#spec` says how it is read; every other key is a path, its value the sha256 of an object, or for `.json` files the
//! document itself. Numbers and nulls are kept as they were written.

use crate::{
    canonical::{self, CANONICAL},
    error::{Error, Result},
    shown::quoted,
};
use serde_json::{Map, Value};
use std::{cmp::Ordering, collections::BTreeSet, path::Path};

/// A device's state: `#spec` and one value per file.
pub type State = Map<String, Value>;

/// The `#spec` of a state that is made here.
pub const DEFAULT_SPEC: &str = "pantavisor-service-system@1";

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

/// Refuses a state whose keys are not plain paths inside the repository, or of which one is the folder of another.
pub fn check_keys(state: &State) -> Result<()> {
    for (key, _) in entries(state) {
        check_key(key)?;
        let folder = key.match_indices('/').map(|(at, _)| &key[..at]).find(|folder| state.contains_key(*folder));
        if let Some(folder) = folder {
            return Err(Error::input(format!("{folder} is a file of the state, and the folder of {key}")));
        }
    }
    Ok(())
}

/// Refuses a key that is not a plain path inside the repository, by the device's own rule.
pub fn check_key(key: &str) -> Result<()> {
    let first = key.split('/').next().unwrap_or_default();
    if !runtime::state::is_plain_path(key) || first == ".pvr" || first == ".pv" {
        let most = runtime::limits::KEY_MAX;
        let hint =
            format!("no `..`, no backslash, no control character, at most {most} bytes, and not ours (.pvr, .pv)");
        return Err(Error::input(format!("the key {} is not a plain path inside the revision", quoted(key))).hint(hint));
    }
    Ok(())
}

/// What differs, each list in the order of its keys.
pub fn changes(pristine: &State, working: &State) -> Result<Changes> {
    let mut changes = Changes::default();
    // Both are sorted: one walk instead of a search for each key.
    let (mut before, mut after) = (pristine.iter().peekable(), working.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        match (old, new) {
            (Some((key, _)), None) => changes.removed.push(key.clone()),
            (None, Some((key, _))) => changes.added.push(key.clone()),
            (Some((_, old)), Some((key, new))) if !same(old, new)? => changes.changed.push(key.clone()),
            _ => {}
        }
    }
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
