//! `pvr commit`.

use crate::{
    canonical::{self, CANONICAL},
    commands::Context,
    error::Result,
    files,
    hashes::in_parallel,
    history,
    pool::Staged,
    repo::{self, Added, NO_MESSAGE, Repo, State},
    shown::shown,
};
use clap::Parser;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::SystemTime};

/// Record the files as the new committed state
///
/// Changed and removed files that are tracked, and new ones that were added. Contents are copied to the object pool
/// first; the state changes at once, at the end. JSON files are recorded as they are, members that are null included.
/// If nothing differs, nothing is recorded, and the files that nobody added are named.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr commit -m 'new page'
  pvr commit --checkpoint")]
pub(super) struct Args {
    /// What the commit is about
    #[arg(long, short, default_value = NO_MESSAGE, hide_default_value = true)]
    message: String,
    /// Also write checkpoint.json with the time, and track it
    #[arg(long, short)]
    checkpoint: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    let (mut index, pristine) = repo.load()?;
    if args.checkpoint {
        write_checkpoint(&repo, &mut index)?;
    }
    let bar = context.spinner("reading files");
    let mut working = repo.working(&pristine, &index)?;
    let changes = repo::changes(&pristine, &working.state)?;
    if changes == repo::Changes::default() {
        bar.finish_and_clear();
        repo.history().set_files(Some(&pristine), &pristine)?;
        repo.write_index(&BTreeMap::new())?;
        nothing_to_commit(context, &working.untracked);
        return report(context, &pristine, &changes);
    }
    let keys: Vec<_> = changes.added.iter().chain(&changes.changed).filter(|key| !key.starts_with("#spec")).collect();
    bar.set_message("copying them to the object pool");
    let stored = in_parallel(&keys, |key| store(&repo, key, &working.state[key.as_str()]))?;
    bar.finish_and_clear();
    let mut staged = Staged::default();
    for (at, (key, (sha, object))) in keys.iter().zip(stored).enumerate() {
        tell(context, &repo, key, sha.as_deref(), at < changes.added.len());
        staged.append(object);
        // What was copied counts, not what was hashed before.
        working.state.extend(sha.map(|sha| ((*key).clone(), Value::String(sha))));
    }
    for key in &changes.removed {
        context.warn(&format!("Removing {}", shown(key)));
    }
    repo.pool().publish(staged)?;
    repo.advance(&working.state, "commit", &args.message)?;
    repo.history().set_files(Some(&working.state), &working.state)?;
    repo.write_message(&args.message)?;
    repo.write_index(&BTreeMap::new())?;
    let id = history::id(&working.state)?;
    let untracked = match working.untracked.len() {
        0 => String::new(),
        count => format!("; {count} not tracked"),
    };
    let (added, changed, removed) = (changes.added.len(), changes.changed.len(), changes.removed.len());
    context.warn(&format!("Committed {}: {added} added, {changed} changed, {removed} removed{untracked}", &id[..8]));
    report(context, &working.state, &changes)
}

fn report(context: &Context, state: &State, changes: &repo::Changes) -> Result<()> {
    if context.json {
        let report = json!({"state-sha": history::id(state)?, "added": changes.added, "changed": changes.changed,
            "removed": changes.removed});
        context.say(report, String::new);
    }
    Ok(())
}

/// Names of files that nobody added, at most.
const SHOWN: usize = 10;

fn nothing_to_commit(context: &Context, untracked: &[String]) {
    let mut text = "nothing to commit".to_owned();
    if !untracked.is_empty() {
        let shown: Vec<_> = untracked.iter().take(SHOWN).map(|key| shown(key)).collect();
        text += &format!("; not tracked (`pvr add` tracks them): {}", shown.join(", "));
        if untracked.len() > SHOWN {
            text += &format!(" and {} more", untracked.len() - SHOWN);
        }
    }
    context.warn(&text);
}

/// Puts a file's content where the new state will find it; its hash if it is an object.
fn store(repo: &Repo, key: &str, value: &Value) -> Result<(Option<String>, Staged)> {
    match repo::object_of(key, value)? {
        None => Ok((None, Staged::default())),
        Some(known) => {
            let (sha, staged) = repo.pool().stage_file(&repo.root().join(key), Some(known))?;
            Ok((Some(sha), staged))
        }
    }
}

/// The lines of the original.
fn tell(context: &Context, repo: &Repo, key: &str, sha: Option<&str>, new: bool) {
    let path = repo.root().join(key);
    let path = path.to_string_lossy();
    let (path, key) = (shown(&path), shown(key));
    context.warn(&match (sha, new) {
        (Some(sha), true) => format!("Adding raw {path} with {sha}"),
        (None, true) => format!("Adding inline {key}"),
        (Some(_), false) => format!("Committing (raw): {path}"),
        (None, false) => format!("Committing (inline): {path}"),
    });
}

fn write_checkpoint(repo: &Repo, index: &mut BTreeMap<String, Added>) -> Result<()> {
    let text = canonical::write(&json!({"major": history::utc(SystemTime::now())}), CANONICAL)?;
    files::write_atomic(&repo.root().join("checkpoint.json"), 0o644, text.as_bytes())?;
    let sha = files::hash_bytes(text.as_bytes());
    index.insert("checkpoint.json".into(), Added { force_object: false, sha });
    Ok(())
}
