//! `pvr init`.

use crate::{
    commands::Context,
    error::{During, Result},
    files,
    repo::{DEFAULT_SPEC, Repo, State},
};
use clap::Parser;
use serde_json::json;
use std::path::PathBuf;

/// Make this folder a repository
///
/// Creates .pvr with an empty state. Objects go to a pool that all repositories share, unless --objects says
/// otherwise. Nothing is overwritten: a folder that is a repository already is refused.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr init
  pvr init --objects .pvr/objects")]
pub(super) struct Args {
    /// Folder of the object pool [default: objects in --config-dir, ~/.pvr/objects]
    #[arg(long, short, env = "PVR_OBJECTS_DIR", value_name = "DIR")]
    objects: Option<PathBuf>,
    /// The state's format
    #[arg(long, short, default_value = DEFAULT_SPEC)]
    spec: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let root = std::env::current_dir().during(|| "find the current folder")?;
    let pool = args.objects.clone().unwrap_or_else(|| context.shared_pool());
    let state = State::from_iter([("#spec".to_owned(), json!(args.spec))]);
    Repo::create(&root, &files::absolute(&pool), &state).map(drop)
}
