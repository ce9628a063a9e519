//! `pvr status`.

use crate::{
    commands::Context,
    error::Result,
    repo::{self, Repo},
    shown::shown,
};
use clap::Parser;
use serde_json::json;

/// Show what differs from the committed state
///
/// One line per file: `A` added, `D` removed, `C` changed, `?` not tracked.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr status
  pvr --json status")]
pub(super) struct Args {}

pub(super) fn run(context: &Context, _args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let (index, pristine) = repo.load()?;
    let bar = context.spinner("reading files");
    let working = repo.working(&pristine, &index)?;
    bar.finish_and_clear();
    let changes = repo::changes(&pristine, &working.state)?;
    let groups = [('A', &changes.added), ('D', &changes.removed), ('C', &changes.changed), ('?', &working.untracked)];
    if context.json {
        context.say(
            json!({"added": changes.added, "removed": changes.removed, "changed": changes.changed,
                "untracked": working.untracked}),
            String::new,
        );
        return Ok(());
    }
    for (letter, keys) in groups {
        keys.iter().for_each(|key| super::print(&format!("{letter} {}", shown(key))));
    }
    Ok(())
}
