//! Where a state comes from: a device or a hub, a repository on this machine, an exported archive.
//!
//! The state is read first, then only the objects that are needed of it: each is verified while it is copied and kept
//! under its hash alone.

use crate::{
    archive,
    error::{During, Error, Result},
    files,
    http::Options,
    parts::Parts,
    reference::{Place, Reference},
    remote::Remote,
    repo::{self, Repo, State},
};
use indicatif::ProgressBar;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// A state and the place of its objects.
pub struct Source {
    /// The state, whole.
    pub state: State,
    /// What names it in `.pvr/config`.
    pub name: String,
    from: From,
}

enum From {
    Remote(Box<Remote>),
    /// Folders in which its objects may be.
    Folders(Vec<PathBuf>),
    Archive(PathBuf),
}

impl Source {
    /// Reads the state. Refused if its keys are not plain paths.
    pub fn open(options: &Options, reference: &Reference) -> Result<Self> {
        let source = match &reference.place {
            Place::Remote(url) => {
                let remote = Remote::find(options, url)?;
                Self { state: remote.state()?, name: url.clone(), from: From::Remote(Box::new(remote)) }
            }
            Place::Local(path) if path.is_dir() => folder(path)?,
            Place::Local(path) => Self {
                state: archive::read_state(path)?,
                name: path.display().to_string(),
                from: From::Archive(path.clone()),
            },
        };
        repo::check_keys(&source.state)?;
        Ok(source)
    }

    /// Which default URLs it is remembered in: `always`, and those that are empty. What is on this machine cannot be
    /// posted to, and is not remembered at all: it may be gone tomorrow.
    pub fn defaults<'n>(&self, always: &'n [&'n str]) -> Option<&'n [&'n str]> {
        matches!(self.from, From::Remote(_)).then_some(always)
    }

    /// Brings every object of these parts that the pool lacks. All of them are there then, or it is an error.
    pub fn supply(&self, repo: &Repo, parts: &Parts, bar: &ProgressBar) -> Result<()> {
        let taken = self.state.iter().filter(|(key, _)| parts.takes(key));
        let taken: State = taken.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut missing = Vec::from_iter(repo::objects(&taken)?);
        missing.retain(|sha| !repo.pool().is_whole(sha));
        match &self.from {
            _ if missing.is_empty() => Ok(()),
            From::Remote(remote) => remote.fetch_all(repo, &missing, bar),
            From::Folders(folders) => missing.iter().try_for_each(|sha| copy(repo, folders, sha)),
            From::Archive(path) => archive::read(repo, path, parts).map(drop),
        }
    }
}

/// A folder with a repository in it, its folder `.pvr`, or any folder with `json` and `objects`.
fn folder(path: &Path) -> Result<Source> {
    let pvr = if path.join("json").is_file() { path.to_owned() } else { path.join(".pvr") };
    if !pvr.join("json").is_file() {
        return Err(Error::usage(format!("{} is not a pvr repository", path.display())).hint("it has no .pvr/json"));
    }
    let json = pvr.join("json");
    let serde_json::Value::Object(state) = repo::parse(&files::read(&json)?, &json)? else {
        return Err(Error::input(format!("{} is not a state: it is no JSON object", json.display())));
    };
    let mut folders = vec![pvr.join("objects")];
    let config = pvr.join("config");
    if config.is_file() {
        let config = repo::parse(&files::read(&config)?, &config)?;
        let configured = config["ObjectsDir"].as_str().filter(|dir| !dir.is_empty());
        folders.extend(configured.map(|dir| pvr.parent().unwrap_or(Path::new("/")).join(dir)));
    }
    Ok(Source { state, name: path.display().to_string(), from: From::Folders(folders) })
}

fn copy(repo: &Repo, folders: &[PathBuf], sha: &str) -> Result<()> {
    let path = folders.iter().map(|folder| folder.join(sha)).find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Error::input(format!("object {sha} is not in {}", places.join(" or ")))
    })?;
    let mut object = File::open(&path).during(|| format!("read {}", path.display()))?;
    repo.store_from(&mut object, &path.display().to_string(), Some(sha)).map(drop)
}
