//! `pvr reset`.

use crate::{
    commands::Context,
    error::Result,
    repo::{self, Checkout, Repo},
};
use clap::Parser;
use std::collections::BTreeMap;

/// Write the files of the committed state
///
/// Changed files are overwritten. Files that the state does not have are left alone. Nothing stays added.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr reset
  pvr checkout --canonical")]
pub(super) struct Args {
    /// Link objects to the pool instead of copying them, and make them read-only
    #[arg(long, visible_alias = "hl")]
    hardlink: bool,
    /// Write JSON in the form that is hashed and signed
    #[arg(long, short, env = "PVR_CANONICAL_JSON")]
    canonical: bool,
}

pub(super) fn run(_context: &Context, args: &Args) -> Result<()> {
    let how = match (args.hardlink, args.canonical) {
        (true, _) => Checkout::HardLink,
        (false, true) => Checkout::Canonical,
        (false, false) => Checkout::Plain,
    };
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    checkout(&repo, how)
}

/// Writes every file of the committed state.
pub(super) fn checkout(repo: &Repo, how: Checkout) -> Result<()> {
    let state = repo.pristine()?;
    repo::check_keys(&state)?;
    for (key, value) in repo::entries(&state) {
        repo.checkout(key, value, how)?;
    }
    repo.write_index(&BTreeMap::new())
}
