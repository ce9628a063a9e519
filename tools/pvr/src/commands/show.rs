//! `pvr show`.

use crate::{
    canonical::{self, TABS},
    commands::{Context, print},
    error::{Error, Result},
    history::{self, Entry},
    repo::{self, Repo},
    shown::{shown, shown_lines},
};
use clap::Parser;
use serde_json::{Value, json};

/// Show one change: what it is about, and which files it changed
///
/// Without a name the newest. `A` added, `D` removed, `C` changed, as `pvr status` shows them.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr show
  pvr show 3f2a91c0
  pvr show 3f2a91c0 --state")]
pub(super) struct Args {
    /// The beginning of a state's sha256, as `pvr log` shows it
    #[arg(value_name = "STATE")]
    name: Option<String>,
    /// Print the whole state
    #[arg(long)]
    state: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let pristine = repo.pristine()?;
    let entries = repo.history().entries(&history::id(&pristine)?)?;
    let entry = find(&entries, args.name.as_deref())?;
    let after = repo.history().state(&entry.after)?;
    if args.state {
        print(&canonical::write(&Value::Object(after), TABS)?);
        return Ok(());
    }
    let before = repo.history().state(&entry.before)?;
    let changes = repo::changes(&before, &after)?;
    if context.json {
        let mut value = entry.json();
        for (name, keys) in [("added", changes.added), ("removed", changes.removed), ("changed", changes.changed)] {
            value[name] = json!(keys);
        }
        context.say(value, String::new);
        return Ok(());
    }
    let (time, verb) = (shown(&entry.time), shown(&entry.verb));
    print(&format!("state  {}\ntime   {time}\nverb   {verb}\n", entry.after));
    print(&format!("{}\n", shown_lines(&entry.message)));
    for (letter, keys) in [('A', changes.added), ('D', changes.removed), ('C', changes.changed)] {
        keys.iter().for_each(|key| print(&format!("{letter} {}", shown(key))));
    }
    Ok(())
}

/// The newest change to the state whose name begins like this; the newest at all without a name.
pub(super) fn find<'e>(entries: &'e [Entry], name: Option<&str>) -> Result<&'e Entry> {
    let Some(name) = name else {
        return entries.last().ok_or_else(|| Error::input("nothing was committed here yet").hint("`pvr commit` does"));
    };
    let mut found = entries.iter().rev().filter(|entry| !name.is_empty() && entry.after.starts_with(name));
    let first = found.next().ok_or_else(|| {
        Error::input(format!("the history has no state {name}")).hint("`pvr log` shows those that it has")
    })?;
    match found.find(|other| other.after != first.after) {
        Some(_) => Err(Error::usage(format!("{name} is the beginning of more than one state")).hint("give more of it")),
        None => Ok(first),
    }
}
