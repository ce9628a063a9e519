//! `pvr json`.

use crate::{
    canonical::{self, CANONICAL, TABS},
    commands::{Context, print},
    error::Result,
    repo::Repo,
};
use clap::Parser;
use serde_json::Value;

/// Print the state of the files as they are now
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr json
  pvr json --canonical")]
pub(super) struct Args {
    /// In the form that is hashed and signed
    #[arg(long, short)]
    canonical: bool,
}

pub(super) fn run(_context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let (index, pristine) = repo.load()?;
    let working = repo.working(&pristine, &index)?;
    let layout = if args.canonical { CANONICAL } else { TABS };
    print(&canonical::write(&Value::Object(working.state), layout)?);
    Ok(())
}
