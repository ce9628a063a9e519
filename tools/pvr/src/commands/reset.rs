//! `pvr reset`.

use crate::{
    checkout::Plan,
    commands::Context,
    error::{Error, Result},
    repo::{Checkout, Repo},
    shown::shown,
};
use clap::Parser;
use serde_json::json;
use std::io::{IsTerminal, Write};

/// Write the files of the committed state
///
/// Changed files are overwritten: on a terminal, those that were edited are listed, and it asks first; without one they
/// are named on the standard error when they are replaced. --force does not ask. Files that only the state before had are removed; untracked files stay. Nothing stays
/// added. Before a file would be lost whose content is nowhere else (untracked and in the way, or changed and not in
/// the new state) it asks; without a terminal it refuses, unless --force says otherwise. After another program changed
/// the state nobody knows which files were tracked: then it asks for every file with other content.
///
/// With --hardlink a file is its object: read-only, because whoever writes it would change the object of every
/// repository. An editor that replaces files works; `pvr reset` makes copies again.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr reset
  pvr checkout --canonical
  pvr reset --hardlink --force")]
pub(super) struct Args {
    /// Link objects to the pool instead of copying them, and make them read-only (also -hl)
    #[arg(long, visible_alias = "hl")]
    hardlink: bool,
    /// Write JSON in the form that is hashed and signed
    #[arg(long, short, env = "PVR_CANONICAL_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    canonical: bool,
    /// Do not ask before a file is lost
    #[arg(long, short)]
    force: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let how = match (args.hardlink, args.canonical) {
        (true, _) => Checkout::HardLink,
        (false, true) => Checkout::Canonical,
        (false, false) => Checkout::Plain,
    };
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    let plan = repo.plan_checkout(how)?;
    let asks = !args.force && can_ask(context);
    if asks && !(plan.lost.is_empty() && plan.edited.is_empty()) {
        if !agreed(context, &plan)? {
            return Err(
                Error::input("nothing was changed").hint("`pvr diff` shows what differs; `pvr commit` keeps it")
            );
        }
    } else if !args.force && !plan.lost.is_empty() {
        return Err(would_be_lost(&plan.lost));
    }
    let bar = context.spinner("writing files");
    repo.checkout(&plan)?;
    bar.finish_and_clear();
    if !asks {
        plan.edited.iter().for_each(|key| context.warn(&format!("replaced, with the edits in it: {}", shown(key))));
    }
    if context.json {
        context.say(json!({"removed": plan.removed, "lost": plan.lost, "replaced": plan.edited}), String::new);
    }
    Ok(())
}

/// Writes every file of the committed state into a folder in which there is nothing to lose.
pub(super) fn checkout(repo: &Repo, how: Checkout) -> Result<()> {
    repo.checkout(&repo.plan_checkout(how)?)
}

/// Whether there is somebody to ask.
fn can_ask(context: &Context) -> bool {
    !context.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn agreed(context: &Context, plan: &Plan) -> Result<bool> {
    plan.lost.iter().for_each(|key| context.warn(&format!("would be lost: {}", shown(key))));
    plan.edited
        .iter()
        .for_each(|key| context.warn(&format!("would be replaced, with the edits in it: {}", shown(key))));
    eprint!("Go on? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    read.map_err(|e| Error::host(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn would_be_lost(lost: &[String]) -> Error {
    let shown: Vec<_> = lost.iter().take(10).map(String::as_str).collect();
    let more = if lost.len() > shown.len() { format!(" and {} more", lost.len() - shown.len()) } else { String::new() };
    Error::input(format!("these files would be lost: {}{more}; nothing was changed", shown.join(", ")))
        .hint("move them away or commit them; --force gives them up")
}
