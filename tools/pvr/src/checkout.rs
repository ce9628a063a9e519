//! Writing the files of the committed state.
//!
//! First everything is looked at, then all new content is complete under temporary names in `.pvr/tmp`, then those files
//! go that the old state had and the new one has not, then the new ones are made durable and get their names. Killed in
//! between, some files are old, new or gone, each of them whole; the same command again finishes.
//! Files that were tracked are overwritten, as the original does. What would be lost otherwise is reported before
//! anything is done: untracked files in the way, and changed files that the new state does not have. Where it is not
//! known which files were tracked (no record, or another program's commit), every file that differs is reported.
//! Neither looked at, written nor removed through: symbolic links to folders. What is behind one is not ours.

use crate::{
    canonical::{self, CANONICAL},
    error::{During, Error, Result},
    files::{self, Batch},
    hashes::in_parallel,
    repo::Repo,
    state::{self, State},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// How files are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checkout {
    /// JSON indented for people, objects copied.
    Plain,
    /// JSON in canonical form.
    Canonical,
    /// JSON in canonical form, objects hard-linked to the pool and read-only.
    HardLink,
}

/// What a checkout would do.
#[derive(Debug)]
pub struct Plan {
    state: State,
    how: Checkout,
    /// Files that go, because only the old state had them.
    pub removed: Vec<String>,
    /// Files whose content is nowhere else and would be gone.
    pub lost: Vec<String>,
    /// Tracked files whose content is neither what was written there nor what is to come: somebody's edits.
    pub edited: Vec<String>,
}

impl Repo {
    /// Looks at what writing the committed state would do; changes nothing.
    pub fn plan_checkout(&self, how: Checkout) -> Result<Plan> {
        let state = self.pristine()?;
        state::check_keys(&state)?;
        let old = self.history().files(&crate::history::id(&state)?).unwrap_or_default();
        state::check_keys(&old)?;
        // Files of which it matters whether their content is the one that some state keeps.
        let mut asked: Vec<_> = state::entries(&old).filter(|(key, _)| !state.contains_key(*key)).collect();
        asked.extend(state::entries(&state).filter(|(key, _)| !old.contains_key(*key)));
        let (mut removed, mut lost) = (Vec::new(), Vec::new());
        for ((key, _), holds) in asked.iter().zip(self.hold(&asked)?) {
            if holds == Some(false) {
                lost.push((*key).clone());
            }
            if holds.is_some() && !state.contains_key(*key) {
                removed.push((*key).clone());
            }
        }
        self.find_in_the_way(&state, &mut removed, &mut lost)?;
        lost.sort_unstable();
        lost.dedup();
        let edited = self.edited(&old, &state)?;
        Ok(Plan { state, how, removed, lost, edited })
    }

    /// The files of both states that hold what neither of them has.
    fn edited(&self, old: &State, new: &State) -> Result<Vec<String>> {
        let mut both: Vec<_> = state::entries(new).filter(|(key, _)| old.contains_key(*key)).collect();
        for side in [new, old] {
            let asked: Vec<_> = both.iter().map(|(key, _)| (*key, &side[key.as_str()])).collect();
            let mut holds = self.hold(&asked)?.into_iter();
            both.retain(|_| holds.next() == Some(Some(false)));
        }
        Ok(both.into_iter().map(|(key, _)| key.clone()).collect())
    }

    /// Writes the files of the plan, losing what it says.
    pub fn checkout(&self, plan: &Plan) -> Result<()> {
        let entries: Vec<_> = state::entries(&plan.state).collect();
        let unchanged = self.unchanged(&entries, plan.how)?;
        let wanted: Vec<_> = entries.iter().filter(|(key, _)| !unchanged.contains(key.as_str())).collect();
        // Objects are verified before the first file changes.
        let staged = in_parallel(&wanted, |(key, value)| self.stage_file(key, value, plan.how))?;
        for key in &plan.removed {
            self.remove_file(key)?;
        }
        let (mut batch, mut links) = (Batch::default(), Vec::new());
        for ((key, value), staged) in wanted.iter().zip(staged) {
            self.make_parents(key)?;
            match (staged, value.as_str()) {
                (Some(staged), _) => batch.append(staged),
                (None, sha) => links.push((*key, sha.unwrap_or_default())),
            }
        }
        batch.finish()?;
        for (key, sha) in links {
            self.link(key, sha)?;
        }
        self.history().set_files(Some(&plan.state), &plan.state)?;
        self.write_index(&BTreeMap::new())
    }

    /// What stands under a key, a link itself rather than what it leads to. Nothing if that is behind a link to a folder.
    pub(crate) fn stands(&self, key: &str) -> Option<fs::Metadata> {
        let is_folder = |folder: &str| fs::symlink_metadata(self.root().join(folder)).is_ok_and(|meta| meta.is_dir());
        let inside = key.match_indices('/').all(|(at, _)| is_folder(&key[..at]));
        inside.then(|| fs::symlink_metadata(self.root().join(key)).ok()).flatten()
    }

    /// Whether each file has this content; nothing where there is no file. A device or a pipe has no content.
    fn hold(&self, asked: &[(&String, &Value)]) -> Result<Vec<Option<bool>>> {
        let (mut found, mut objects) = (Vec::new(), Vec::new());
        for (at, (key, value)) in asked.iter().enumerate() {
            let path = self.root().join(key);
            let there = self.stands(key).is_some_and(|meta| !meta.is_dir());
            // A link counts as the file it leads to. What is no file is not opened: a pipe would wait for its other end.
            let readable = there && path.is_file() && fs::File::open(&path).is_ok();
            match state::object_of(key, value)? {
                Some(sha) if readable => objects.push((at, key.as_str(), sha)),
                None if readable => {
                    let now = serde_json::from_slice::<Value>(&files::read(&path)?);
                    found.push(Some(now.is_ok_and(|now| state::same(&now, value).unwrap_or(false))));
                    continue;
                }
                _ => {}
            }
            found.push(there.then_some(false));
        }
        let keys: Vec<_> = objects.iter().map(|(_, key, _)| *key).collect();
        for ((at, _, sha), now) in objects.iter().zip(self.hash(&keys)?) {
            found[*at] = Some(*sha == now);
        }
        Ok(found)
    }

    /// Files where the state needs a folder, and folders where it needs a file.
    fn find_in_the_way(&self, state: &State, removed: &mut Vec<String>, lost: &mut Vec<String>) -> Result<()> {
        let mut folders = BTreeSet::new();
        for (key, _) in state::entries(state) {
            folders.extend(key.match_indices('/').map(|(at, _)| &key[..at]));
        }
        let going: BTreeSet<String> = removed.iter().cloned().collect();
        for folder in folders {
            let Ok(meta) = fs::symlink_metadata(self.root().join(folder)) else { continue };
            if meta.is_symlink() {
                return Err(Error::input(format!("{folder} is a symbolic link; the state has a folder there"))
                    .hint("files of a state are not written through links: move it away"));
            }
            if !meta.is_dir() && !going.contains(folder) {
                lost.push(folder.to_owned());
                removed.push(folder.to_owned());
            }
        }
        for (key, _) in state::entries(state) {
            let folder = self.root().join(key);
            if !self.stands(key).is_some_and(|meta| meta.is_dir()) {
                continue;
            }
            for below in files::walk(&folder)?.iter().filter(|below| is_no_folder(&folder.join(below))) {
                let name = below.to_str().ok_or_else(|| {
                    Error::input(format!("the file name {} is not UTF-8", folder.join(below).display()))
                        .hint(format!("the state has a file where the folder {key} is: move it away"))
                })?;
                let file = format!("{key}/{name}");
                if !going.contains(&file) {
                    lost.push(file.clone());
                    removed.push(file);
                }
            }
        }
        Ok(())
    }

    /// The files that are as this checkout would write them.
    fn unchanged<'k>(&self, entries: &[(&'k String, &Value)], how: Checkout) -> Result<BTreeSet<&'k str>> {
        let mut found = BTreeSet::new();
        if how == Checkout::HardLink {
            return Ok(found);
        }
        let own = |key: &str| {
            let meta = fs::symlink_metadata(self.root().join(key));
            meta.is_ok_and(|meta| meta.is_file() && meta.nlink() == 1 && meta.mode() & 0o200 != 0)
        };
        let mut objects = Vec::new();
        for (key, value) in entries.iter().filter(|(key, _)| own(key)) {
            match state::object_of(key, value)? {
                Some(sha) => objects.push((key.as_str(), sha)),
                None => {
                    let text = text_of(value, how)?;
                    if fs::read(self.root().join(key)).is_ok_and(|now| now == text.as_bytes()) {
                        found.insert(key.as_str());
                    }
                }
            }
        }
        let keys: Vec<_> = objects.iter().map(|(key, _)| *key).collect();
        let hashes = self.hash(&keys)?;
        found.extend(objects.iter().zip(hashes).filter(|((_, sha), now)| sha == now).map(|((key, _), _)| *key));
        Ok(found)
    }

    /// A file's new content, complete under a temporary name; nothing for a link, whose object is verified.
    fn stage_file(&self, key: &str, value: &Value, how: Checkout) -> Result<Option<Batch>> {
        let path = self.root().join(key);
        let mut batch = Batch::default();
        let Some(sha) = state::object_of(key, value)? else {
            let mut file = self.scratch()?;
            let write = std::io::Write::write_all(&mut file, text_of(value, how)?.as_bytes());
            write.during(|| format!("write {}", path.display()))?;
            batch.push(file, &path, 0o644)?;
            return Ok(Some(batch));
        };
        let mut object = self.pool().open(sha, key)?;
        if how == Checkout::HardLink {
            let hashed = files::copy_hashed(&mut object, &mut std::io::sink());
            let (found, _) = hashed.during(|| format!("read object {sha}"))?;
            self.pool().must_be(sha, &found, key)?;
            return Ok(None);
        }
        let mut file = self.scratch()?;
        let copied = files::copy_hashed(&mut object, &mut file);
        let (found, _) = copied.during(|| format!("write {}", path.display()))?;
        self.pool().must_be(sha, &found, key)?;
        batch.push(file, &path, 0o644)?;
        Ok(Some(batch))
    }

    /// Links a file to its object, which is made read-only and never writable again: whoever edits the file would
    /// change the object of every repository. An editor that replaces files works.
    fn link(&self, key: &str, sha: &str) -> Result<()> {
        let (object, path) = (self.pool().path(sha), self.root().join(key));
        let act = || {
            fs::set_permissions(&object, fs::Permissions::from_mode(0o444))?;
            // A link cannot replace a file, a rename can.
            let scratch = self.scratch_dir()?.join(format!("link-{sha}"));
            let _ = fs::remove_file(&scratch);
            fs::hard_link(&object, &scratch)?;
            fs::rename(&scratch, &path)?;
            // Renaming a link onto another one of the same file leaves both.
            let _ = fs::remove_file(&scratch);
            Ok(())
        };
        act().map_err(|e: std::io::Error| match e.kind() {
            std::io::ErrorKind::CrossesDevices => {
                let hint = "use a pool on this disk (pvr init --objects), or check out without --hardlink";
                Error::host(format!("the pool {} is on another file system than {key}", self.pool().dir().display()))
                    .hint(hint)
            }
            _ => Error::host(format!("cannot link {} to {}: {e}", object.display(), path.display())),
        })
    }

    /// Removes a file and the folders that it leaves empty.
    pub(crate) fn remove_file(&self, key: &str) -> Result<()> {
        let path = self.root().join(key);
        if self.stands(key).is_none() {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).during(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        let folders = Path::new(key).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        for folder in folders {
            if fs::remove_dir(self.root().join(folder)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn make_parents(&self, key: &str) -> Result<()> {
        let path = self.root().join(key);
        // Only empty folders are left here: what was in them is removed.
        if path.is_dir() {
            remove_empty(&path).during(|| format!("remove folder {}", path.display()))?;
        }
        path.parent().map_or(Ok(()), files::create_dir)
    }
}

fn is_no_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir())
}

fn remove_empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        remove_empty(&entry?.path())?;
    }
    fs::remove_dir(dir)
}

fn text_of(value: &Value, how: Checkout) -> Result<String> {
    canonical::write(value, if how == Checkout::Plain { canonical::CHECKOUT } else { CANONICAL })
}
