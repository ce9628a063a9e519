//! `pvr log`.

use crate::{
    commands::{Context, print},
    error::Result,
    history,
    repo::Repo,
    shown::shown,
};
use clap::Parser;
use serde_json::Value;

/// Show what was committed here, the newest first
///
/// One line per change of the committed state: the beginning of its sha256 (the one that a device or a hub names too),
/// when, by which verb, and what it is about. The history is kept on this machine only, in .pvr/switchback.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr log
  pvr log -n 1
  pvr log --json")]
pub(super) struct Args {
    /// So many changes
    #[arg(short = 'n', long, value_name = "NUMBER")]
    max: Option<usize>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let mut entries = repo.history().entries(&history::id(&repo.pristine()?)?)?;
    entries.reverse();
    entries.truncate(args.max.unwrap_or(usize::MAX));
    if context.json {
        context.say(Value::Array(entries.iter().map(history::Entry::json).collect()), String::new);
        return Ok(());
    }
    for entry in &entries {
        let title = entry.message.lines().next().unwrap_or_default();
        let line = format!("{} {} {:<7} {title}", &entry.after[..8], entry.time, entry.verb);
        print(&shown(&line));
    }
    Ok(())
}
