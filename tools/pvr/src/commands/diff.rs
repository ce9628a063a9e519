//! `pvr diff`.

use crate::{
    canonical::{self, TABS_ESCAPED},
    commands::{Context, print},
    error::Result,
    repo::{self, Repo},
};
use clap::Parser;
use serde_json::Value;

/// Show the difference to the committed state as a JSON merge patch
///
/// A removed file is `null`; `{}` means that nothing differs.
#[derive(Parser, Debug)]
#[command(after_help = "Example:
  pvr diff")]
pub(super) struct Args {
    /// Ignored, as the original does
    #[arg(hide = true)]
    ignored: Vec<String>,
}

pub(super) fn run(_context: &Context, _args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let (index, pristine) = repo.load()?;
    let working = repo.working(&pristine, &index)?;
    let patch = repo::merge_patch(&Value::Object(pristine), &Value::Object(working.state))?;
    print(&canonical::write(&patch, TABS_ESCAPED)?);
    Ok(())
}
