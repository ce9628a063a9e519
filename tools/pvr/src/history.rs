//! The history of the committed state, on this machine only.
//!
//! `.pvr/switchback/log` has one line of JSON per change, the newest last: `time` (RFC 3339), `verb`, `message`,
//! `before` and `after`, which are the sha256 of the states' canonical text. The texts are `.pvr/switchback/states/<sha>`.
//! `.pvr/switchback/checkout` says with which state the files of the folder were last in step (`files`), and which
//! state was committed then or since (`json`).
//! The original ignores the folder `.pvr/switchback`, so both programs can work in the same repository: a state that
//! another program committed is found and recorded as such.
//!
//! An entry is written before the state that it tells of, so a killed `pvr` leaves at most an entry that did not
//! happen; the next command drops it. Bounded: the last [`KEPT`] changes, and the states that they name.

use crate::{
    canonical::{self, CANONICAL},
    error::{During, Error, Result},
    files,
    state::{self, State},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// So many changes are kept.
pub const KEPT: usize = 200;
/// The verb of a change that another program made.
pub const FOREIGN: &str = "other";
/// The verb of a step back.
pub const UNDO: &str = "undo";

/// One change of the committed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in UTC.
    pub time: String,
    /// What changed it: commit, get, import, …
    pub verb: String,
    /// What it is about.
    pub message: String,
    /// sha256 of the state before.
    pub before: String,
    /// sha256 of the state after.
    pub after: String,
}

/// The history of one repository.
pub struct History {
    dir: PathBuf,
}

impl History {
    /// The history of the repository in `root`.
    pub fn of(root: &Path) -> Self {
        Self { dir: root.join(".pvr/switchback") }
    }

    /// The changes that happened, the oldest first, up to the state that is committed `now`. If another program
    /// committed that one, its change is the last.
    pub fn entries(&self, now: &str) -> Result<Vec<Entry>> {
        let mut entries = self.read()?;
        if entries.last().is_some_and(|last| last.after != now && last.before == now) {
            entries.pop();
        }
        if let Some(last) = entries.last().filter(|last| last.after != now) {
            let changed = fs::metadata(self.committed()).and_then(|meta| meta.modified()).unwrap_or(SystemTime::now());
            entries.push(Entry {
                time: utc(changed),
                verb: FOREIGN.to_owned(),
                message: "changed by another program".to_owned(),
                before: last.after.clone(),
                after: now.to_owned(),
            });
        }
        Ok(entries)
    }

    /// Records that `before` will be replaced by `after`, and keeps both.
    pub fn record(&self, before: &State, after: &State, verb: &str, message: &str) -> Result<()> {
        let (before, after) = (self.keep(before)?, self.keep(after)?);
        let mut entries = self.entries(&before)?;
        entries.push(Entry {
            time: utc(SystemTime::now()),
            verb: verb.to_owned(),
            message: message.to_owned(),
            before,
            after,
        });
        entries.drain(..entries.len().saturating_sub(KEPT));
        self.write(&entries)
    }

    /// The committed state's file.
    fn committed(&self) -> PathBuf {
        self.dir.with_file_name("json")
    }

    /// A state of the history, by its sha256.
    pub fn state(&self, sha: &str) -> Result<State> {
        let path = self.dir.join("states").join(sha);
        // What another program committed is kept from the next change on.
        let committed = || {
            let text = canonical::write(&serde_json::from_slice(&fs::read(self.committed()).ok()?).ok()?, CANONICAL);
            text.ok().map(String::into_bytes).filter(|text| files::hash_bytes(text) == sha)
        };
        let text = fs::read(&path).ok().or_else(committed).ok_or_else(|| {
            Error::input(format!("the state {sha} is not in the history any more"))
                .hint(format!("the last {KEPT} changes are kept: `pvr log` shows them"))
        })?;
        let found = files::hash_bytes(&text);
        if found != sha {
            return Err(Error::input(format!("{} is damaged: its sha256 is {found}", path.display()))
                .hint("remove it; the committed state is not concerned"));
        }
        match state::parse(&text, &path)? {
            Value::Object(state) => Ok(state),
            _ => Err(Error::input(format!("{} is not a state", path.display()))),
        }
    }

    /// The state with which the files were last in step, if that is known: not after another program changed the
    /// committed state, whose sha256 is `now`.
    pub fn files(&self, now: &str) -> Option<State> {
        let text = fs::read(self.dir.join("checkout")).ok()?;
        let record: Value = serde_json::from_slice(&text).ok()?;
        let files = record["files"].as_str().filter(|_| record["json"] == now)?;
        self.state(files).ok()
    }

    /// Whether it was ever recorded with which state the files are in step.
    pub fn has_record(&self) -> bool {
        self.dir.join("checkout").exists()
    }

    /// Records with which state the files are in step, while `committed` is the committed one.
    pub fn set_files(&self, files: Option<&State>, committed: &State) -> Result<()> {
        let files = files.map(|state| self.keep(state)).transpose()?;
        let text = json!({"files": files, "json": id(committed)?}).to_string();
        files::write_atomic(&self.dir.join("checkout"), 0o644, text.as_bytes())?;
        self.collect()
    }

    /// Every state that is kept.
    pub fn states(&self) -> Result<Vec<State>> {
        self.kept()?.iter().map(|sha| self.state(sha)).collect()
    }

    /// Writes a state's text, once.
    fn keep(&self, state: &State) -> Result<String> {
        let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
        let sha = files::hash_bytes(text.as_bytes());
        let path = self.dir.join("states").join(&sha);
        if fs::metadata(&path).map_or(true, |meta| meta.len() != text.len() as u64) {
            files::create_dir(&self.dir.join("states"))?;
            files::write_atomic(&path, 0o644, text.as_bytes())?;
        }
        Ok(sha)
    }

    fn kept(&self) -> Result<Vec<String>> {
        let dir = self.dir.join("states");
        let Ok(entries) = fs::read_dir(&dir) else { return Ok(Vec::new()) };
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| state::is_sha(name)).collect())
    }

    /// Removes the states that nothing names any more.
    fn collect(&self) -> Result<()> {
        let entries = self.read()?;
        let record = fs::read(self.dir.join("checkout")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        let mut named: BTreeSet<&str> = entries.iter().flat_map(|e| [&e.before[..], &e.after[..]]).collect();
        named.extend(["files", "json"].iter().filter_map(|name| record[*name].as_str()));
        for sha in self.kept()?.iter().filter(|sha| !named.contains(sha.as_str())) {
            let path = self.dir.join("states").join(sha);
            fs::remove_file(&path).during(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The log as it stands. What is not understood in it is skipped: a history is no reason to stop working.
    fn read(&self) -> Result<Vec<Entry>> {
        let path = self.dir.join("log");
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Ok(Vec::new()),
            read => read.during(|| format!("read {}", path.display()))?,
        };
        let entry = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| value[name].as_str().map(str::to_owned);
            Some(Entry {
                time: text("time")?,
                verb: text("verb")?,
                message: text("message")?,
                before: text("before").filter(|sha| state::is_sha(sha))?,
                after: text("after").filter(|sha| state::is_sha(sha))?,
            })
        };
        Ok(text.lines().filter_map(entry).collect())
    }

    fn write(&self, entries: &[Entry]) -> Result<()> {
        let line = |e: &Entry| format!("{}\n", e.json());
        let text: String = entries.iter().map(line).collect();
        files::write_atomic(&self.dir.join("log"), 0o644, text.as_bytes())
    }
}

impl Entry {
    /// As it is in the log, and as `--json` shows it.
    pub fn json(&self) -> Value {
        json!({"time": self.time, "verb": self.verb, "message": self.message, "before": self.before,
            "after": self.after})
    }
}

/// The sha256 of a state's canonical text; what hubs and devices call `state-sha`.
pub fn id(state: &State) -> Result<String> {
    Ok(files::hash_bytes(canonical::write(&Value::Object(state.clone()), CANONICAL)?.as_bytes()))
}

/// The change that a step back takes back: the newest that was not taken back already.
pub fn undoable(entries: &[Entry]) -> Option<&Entry> {
    let mut stack = Vec::new();
    for entry in entries {
        if entry.verb == UNDO {
            stack.pop();
        } else {
            stack.push(entry);
        }
    }
    stack.pop()
}

/// A time in UTC.
pub fn utc(time: SystemTime) -> String {
    rfc3339(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// A time in UTC, from seconds since 1970. Days to date after Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(n: u32) -> State {
        State::from_iter([("#spec".to_owned(), json!("s")), ("n.json".to_owned(), json!(n))])
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_174_329), "2026-11-20T11:32:09Z");
    }

    #[test]
    fn what_did_not_happen_and_what_others_did() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::of(dir.path());
        history.record(&state(0), &state(1), "commit", "one").unwrap();
        let verbs = |now| {
            let entries = history.entries(&id(&state(now)).unwrap()).unwrap();
            entries.iter().map(|e| format!("{} {}", e.verb, e.message)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(verbs(1), "commit one");
        assert_eq!(verbs(0), "", "killed before the state was written");
        // Another program goes from 1 to 2, then we to 3.
        history.record(&state(2), &state(3), "commit", "three").unwrap();
        assert_eq!(verbs(3), "commit one, other changed by another program, commit three");
        assert_eq!(history.state(&id(&state(2)).unwrap()).unwrap(), state(2));
    }

    #[test]
    fn the_history_is_bounded_and_so_are_its_states() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::of(dir.path());
        let count = KEPT as u32 + 20;
        for n in 0..count {
            history.record(&state(n), &state(n + 1), "commit", "").unwrap();
        }
        history.set_files(Some(&state(count)), &state(count)).unwrap();
        assert_eq!(history.entries(&id(&state(count)).unwrap()).unwrap().len(), KEPT);
        assert_eq!(history.kept().unwrap().len(), KEPT + 1);
        assert!(history.state(&id(&state(0)).unwrap()).unwrap_err().message.contains("not in the history"));
    }

    #[test]
    fn steps_back_nest() {
        let entry = |verb: &str, n: u32| Entry {
            time: String::new(),
            verb: verb.into(),
            message: n.to_string(),
            before: String::new(),
            after: String::new(),
        };
        let undoes = |list: &[(&str, u32)]| {
            let entries: Vec<_> = list.iter().map(|(verb, n)| entry(verb, *n)).collect();
            undoable(&entries).map(|e| e.message.clone())
        };
        assert_eq!(undoes(&[("commit", 1), ("get", 2)]), Some("2".into()));
        assert_eq!(undoes(&[("commit", 1), ("get", 2), ("undo", 0)]), Some("1".into()));
        assert_eq!(undoes(&[("commit", 1), ("get", 2), ("undo", 0), ("commit", 3)]), Some("3".into()));
        assert_eq!(undoes(&[("commit", 1), ("undo", 0), ("undo", 0)]), None);
    }
}
