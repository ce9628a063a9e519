//! Parts of a state: what follows `#` in a reference, and how one state's parts come into another.
//!
//! A fragment is a list with commas. `web` takes part `web` (the key itself, or everything below it), `-web` leaves it
//! out; without a part to take, all are taken. Parts are whole components of a path: `app` is never `appx`.
//! Everything here is a pure function of states: it reads no file and fetches no object.
//!
//! `#spec` says how the state is to be read. It comes along where everything is taken, and where there is none yet;
//! `-#spec` leaves it out.

use crate::{
    error::{Error, Result},
    repo::State,
};
use serde_json::Value;

/// Which keys of a state are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Parts that are taken; none means all.
    include: Vec<String>,
    /// Parts that are left out, and deleted where they come into another state.
    exclude: Vec<String>,
}

/// The key that says how a state is to be read.
const SPEC: &str = "#spec";

impl Parts {
    /// Reads what follows `#` in a reference, or the value of `--parts`.
    pub fn parse(fragment: &str) -> Result<Self> {
        Self::of(fragment.split(','))
    }

    /// Reads parts that are apart already. Empty ones are nothing.
    pub fn of(items: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let mut parts = Self::default();
        for item in items {
            let item = item.as_ref().trim();
            let (list, name) = match item.strip_prefix('-') {
                Some(name) => (&mut parts.exclude, name),
                None => (&mut parts.include, item),
            };
            let name = name.trim_end_matches('/');
            match name {
                "" if item.is_empty() => {}
                "" => {
                    let hint = "a part is the beginning of a path: web, _config/web, -bsp";
                    return Err(Error::usage(format!("{item} names no part")).hint(hint));
                }
                name => list.push(name.to_owned()),
            }
        }
        Ok(parts)
    }

    /// Whether every key is meant.
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether the key is taken.
    pub fn takes(&self, key: &str) -> bool {
        (self.include.is_empty() || any(&self.include, key)) && !any(&self.exclude, key)
    }

    /// What a state has of these parts, with its `#spec`. A part that it does not have is an error, not nothing.
    pub fn select(&self, state: &State) -> Result<State> {
        self.must_be_in(&[state])?;
        let taken = state.iter().filter(|(key, _)| self.takes(key) || *key == SPEC && !any(&self.exclude, SPEC));
        Ok(taken.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Replaces these parts of `target` by those of `source`; what the source does not have of them is gone.
    pub fn get(&self, target: &State, source: &State) -> Result<State> {
        self.must_be_in(&[source, target])?;
        let mut state = self.without(target, |key| any(&self.include, key) || self.include.is_empty());
        state.extend(self.taken(target, source).map(|(key, value)| (key.clone(), value.clone())));
        self.keep_spec(&mut state, target, source);
        Ok(state)
    }

    /// Merges these parts of `source` into `target`: JSON as RFC 7396 merges a patch, objects replaced.
    pub fn merge(&self, target: &State, source: &State) -> Result<State> {
        self.must_be_in(&[source, target])?;
        let mut state = self.without(target, |_| false);
        for (key, value) in self.taken(target, source) {
            let merged = match state.get(key) {
                Some(old) => merge(old, value),
                None => value.clone(),
            };
            state.insert(key.clone(), merged);
        }
        self.keep_spec(&mut state, target, source);
        Ok(state)
    }

    /// The keys of `source` that go into `target`.
    fn taken<'s>(&'s self, target: &'s State, source: &'s State) -> impl Iterator<Item = (&'s String, &'s Value)> {
        let spec = self.include.is_empty() || !target.contains_key(SPEC);
        source.iter().filter(
            move |(key, _)| {
                if *key == SPEC { spec && !any(&self.exclude, SPEC) } else { self.takes(key) }
            },
        )
    }

    /// `target` without what is excluded and without what `gone` says.
    fn without(&self, target: &State, gone: impl Fn(&str) -> bool) -> State {
        let stays = target.iter().filter(|(key, _)| !any(&self.exclude, key) && !gone(key));
        stays.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// A state is never left without a `#spec` that one of the two had.
    fn keep_spec(&self, state: &mut State, target: &State, source: &State) {
        if let Some(spec) = target.get(SPEC).or_else(|| source.get(SPEC)).filter(|_| !state.contains_key(SPEC)) {
            state.insert(SPEC.into(), spec.clone());
        }
    }

    /// A part that nobody has is a mistake in its name: nothing is done then.
    fn must_be_in(&self, states: &[&State]) -> Result<()> {
        let known = |part: &&String| states.iter().any(|state| state.keys().any(|key| in_part(key, part)));
        match self.include.iter().find(|part| !known(part)) {
            None => Ok(()),
            Some(part) => Err(Error::input(format!("there is no part {part}"))
                .hint("`pvr inspect` shows the keys of a state; a part is a whole component: web, not we")),
        }
    }
}

/// Whether key `key` belongs to part `part`: it is it, or lies below it.
pub fn in_part(key: &str, part: &str) -> bool {
    let part = part.trim_end_matches('/');
    key == part || key.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'))
}

fn any(parts: &[String], key: &str) -> bool {
    parts.iter().any(|part| in_part(key, part))
}

/// RFC 7396, but what merges is a state, in which `null` is a value: it removes a member that is there with another
/// value, and stays where there is nothing to remove. So nothing that a source has new loses its nulls.
fn merge(old: &Value, new: &Value) -> Value {
    let (Value::Object(before), Value::Object(patch)) = (old, new) else { return new.clone() };
    let mut merged = before.clone();
    for (key, value) in patch {
        match (before.get(key), value) {
            (Some(there), Value::Null) if !there.is_null() => drop(merged.remove(key)),
            (Some(there), _) => drop(merged.insert(key.clone(), merge(there, value))),
            (None, _) => drop(merged.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(value: Value) -> State {
        value.as_object().unwrap().clone()
    }

    fn parts(fragment: &str) -> Parts {
        Parts::parse(fragment).unwrap()
    }

    fn keys(state: &State) -> String {
        state.keys().cloned().collect::<Vec<_>>().join(" ")
    }

    /// What a device has: an application, another whose name begins alike, configuration and a base.
    fn device() -> State {
        state(json!({"#spec": "s@1", "_config/app/a": "1", "app": "0", "app/a.json": {"x": 1, "y": {"z": 2}},
            "app/b": "b", "appx/a": "x", "application/a": "y", "bsp/run.json": {}}))
    }

    #[test]
    fn parts_are_whole_components() {
        let taken = |fragment| keys(&parts(fragment).select(&device()).unwrap());
        assert_eq!(taken("app"), "#spec app app/a.json app/b");
        assert_eq!(taken("app/"), "#spec app app/a.json app/b");
        assert_eq!(taken("_config/app,bsp"), "#spec _config/app/a bsp/run.json");
        assert_eq!(taken("-app"), "#spec _config/app/a application/a appx/a bsp/run.json");
        assert_eq!(taken("app,-app/b"), "#spec app app/a.json");
        assert_eq!(taken("-#spec,bsp"), "bsp/run.json");
        assert_eq!(parts("").select(&device()).unwrap(), device());
        assert!(parts("").is_all() && !parts("-app").is_all());
    }

    #[test]
    fn a_part_that_nobody_has_is_an_error() {
        assert!(parts("ap").select(&device()).unwrap_err().message.contains("no part ap"));
        assert!(parts("ap").get(&device(), &device()).is_err());
        assert!(parts("-ap").select(&device()).is_ok(), "leaving out what is not there is no mistake");
        assert!(Parts::parse("web,-").is_err());
    }

    /// The original deletes `appx` and `application` when it gets `app`.
    #[test]
    fn get_replaces_a_part_and_nothing_beside_it() {
        let source = state(json!({"#spec": "s@2", "app/a.json": {"x": 2}, "other": "o"}));
        let got = parts("app").get(&device(), &source).unwrap();
        assert_eq!(keys(&got), "#spec _config/app/a app/a.json application/a appx/a bsp/run.json");
        assert_eq!(got["app/a.json"], json!({"x": 2}), "replaced, not merged");
        assert_eq!(got["#spec"], "s@1", "a part does not change how the whole is read");
        assert_eq!(parts("").get(&device(), &source).unwrap(), source, "without a part: everything");
        let without = parts("-other").get(&device(), &source).unwrap();
        assert_eq!(keys(&without), "#spec app/a.json");
        let gone = parts("bsp").get(&device(), &source).unwrap();
        assert!(!gone.contains_key("bsp/run.json"), "a part that the source does not have is removed");
        let firmware = parts("app,-app/b").get(&device(), &device()).unwrap();
        assert!(!firmware.contains_key("app/b") && firmware.contains_key("app/a.json"));
        let first = parts("app").get(&State::new(), &source).unwrap();
        assert_eq!(first["#spec"], "s@2", "where there is no spec yet, it comes along");
    }

    #[test]
    fn merge_keeps_what_the_source_does_not_name() {
        let source =
            state(json!({"#spec": "s@2", "app/a.json": {"x": null, "y": {"n": 3}, "w": null}, "new.json": [null]}));
        let merged = parts("").merge(&device(), &source).unwrap();
        assert_eq!(merged["app/a.json"], json!({"y": {"z": 2, "n": 3}, "w": null}));
        assert_eq!(merged["new.json"], json!([null]));
        assert_eq!((&merged["app/b"], &merged["#spec"]), (&json!("b"), &json!("s@2")));
        let deleted = parts("-appx,-bsp").merge(&device(), &source).unwrap();
        assert!(!deleted.contains_key("appx/a") && !deleted.contains_key("bsp/run.json"));
        assert!(deleted.contains_key("application/a"));
        let only = parts("app").merge(&device(), &source).unwrap();
        assert!(!only.contains_key("new.json") && only["#spec"] == "s@1");
    }

    #[test]
    fn null_is_a_value() {
        let (old, new) = (json!({"a": null, "b": 1}), json!({"a": null, "b": null, "c": {"d": null}}));
        assert_eq!(merge(&old, &new), json!({"a": null, "c": {"d": null}}));
        assert_eq!(merge(&json!([1]), &json!(null)), json!(null));
        assert_eq!(merge(&json!(1), &json!({"a": null})), json!({"a": null}));
    }
}
