//! `pvr undo`.

use crate::{
    commands::{Context, show},
    error::{Error, Result},
    files,
    history::{self, UNDO},
    repo::{self, Added, Repo, State},
};
use clap::Parser;
use serde_json::json;

/// Take back the last change of the committed state
///
/// The committed state is again what it was before the last commit, get, merge or import; doing it again goes one step
/// further back. With a name, the state of that name is committed again, in which way a step back is taken back too.
/// Files are left as they are: `pvr status` shows how they differ, `pvr reset` writes those of the state. A file that is
/// in the folder and not in the state any more stays added.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr undo
  pvr undo && pvr reset
  pvr log && pvr undo 3f2a91c0")]
pub(super) struct Args {
    /// The beginning of a state's sha256, as `pvr log` shows it
    #[arg(value_name = "STATE")]
    name: Option<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    let (mut index, now) = repo.load()?;
    let history = repo.history();
    let entries = history.entries(&history::id(&now)?)?;
    let nothing = || Error::input("there is nothing to take back").hint("`pvr log` shows what was committed here");
    let (sha, verb, what) = match &args.name {
        Some(name) => (show::find(&entries, Some(name))?.after.clone(), "goto", "back to that state".to_owned()),
        None => {
            let entry = history::undoable(&entries).ok_or_else(nothing)?;
            (entry.before.clone(), UNDO, format!("took back {} {}", entry.verb, entry.message).trim_end().to_owned())
        }
    };
    let state = history.state(&sha)?;
    missing(&repo, &state)?;
    repo.advance(&state, verb, &what)?;
    if let Some(entry) = entries.iter().rev().find(|entry| entry.after == sha) {
        repo.write_message(&entry.message)?;
    }
    for (key, value) in repo::entries(&now).filter(|(key, _)| !state.contains_key(*key)) {
        let path = repo.root().join(key);
        if repo.stands(key).is_some() && path.is_file() {
            let force_object = key.ends_with(".json") && repo::object_of(key, value)?.is_some();
            index.insert(key.clone(), Added { force_object, sha: files::hash(&path)? });
        }
    }
    repo.write_index(&index)?;
    context.say(json!({"state-sha": sha}), || {
        format!("{what}; the state is {} again. Files are as they were: see `pvr status`, or `pvr reset`", &sha[..8])
    });
    Ok(())
}

/// A state whose objects are gone is no use.
fn missing(repo: &Repo, state: &State) -> Result<()> {
    match repo::objects(state)?.iter().find(|sha| !repo.object(sha).exists()) {
        None => Ok(()),
        Some(sha) => Err(Error::input(format!("the state needs object {sha}, which is not in the pool any more"))
            .hint("nothing was changed; `pvr get` brings objects of a device")),
    }
}
