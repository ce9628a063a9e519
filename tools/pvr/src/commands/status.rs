//! `pvr status`.

use crate::{
    commands::Context,
    error::Result,
    repo::{self, Repo, Working},
    shown::shown,
};
use clap::Parser;
use serde_json::json;

/// Show what differs from the committed state
///
/// One line per file: `A` added, `D` removed, `C` changed, `?` not tracked. Names that hold what a terminal obeys are
/// quoted. Tracked JSON files that cannot be read as such count as changed; what is wrong is said on the standard error.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr status
  pvr --json status")]
pub(super) struct Args {}

pub(super) fn run(context: &Context, _args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let (index, pristine) = repo.load()?;
    let bar = context.spinner("reading files");
    let Working { state, untracked, odd, broken } = repo.look(&pristine, &index)?;
    bar.finish_and_clear();
    let mut changes = repo::changes(&pristine, &state)?;
    for (key, error) in &broken {
        changes.removed.retain(|removed| removed != key);
        if pristine.contains_key(key) { &mut changes.changed } else { &mut changes.added }.push(key.clone());
        context.warn(&format!("{error}").replacen("ERROR", "warning", 1));
    }
    if context.json {
        let odd = odd.iter().map(|odd| odd.path.to_string_lossy().into_owned());
        let untracked: Vec<_> = untracked.into_iter().chain(odd).collect();
        context.say(
            json!({"added": changes.added, "removed": changes.removed, "changed": changes.changed,
                "untracked": untracked}),
            String::new,
        );
        return Ok(());
    }
    let groups = [('A', &changes.added), ('D', &changes.removed), ('C', &changes.changed), ('?', &untracked)];
    for (letter, keys) in groups {
        keys.iter().for_each(|key| super::print(&format!("{letter} {}", shown(key))));
    }
    odd.iter().for_each(|odd| super::print(&format!("? {}", odd.shown())));
    Ok(())
}
