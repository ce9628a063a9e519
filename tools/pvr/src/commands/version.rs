//! `pvr version`.

use crate::{commands::Context, error::Result};
use clap::Parser;
use serde_json::json;

/// Print the version of this program
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr version
  pvr version --json")]
pub(super) struct Args {}

pub(super) fn run(context: &Context, _args: &Args) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    context.say(json!({"name": "pvr", "version": version}), || format!("pvr version {version}"));
    Ok(())
}
