//! `pvr init`.

use crate::{
    commands::{Context, global_config},
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
    #[arg(long, short, help = format!("The state's format [default: Spec of global-config, {DEFAULT_SPEC}]"))]
    spec: Option<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let root = std::env::current_dir().during(|| "find the current folder")?;
    let pool = args.objects.clone().unwrap_or_else(|| context.shared_pool());
    let spec = args.spec.clone().map_or_else(|| global_config::spec(context), |spec| Ok(Some(spec)))?;
    let spec = spec.unwrap_or_else(|| DEFAULT_SPEC.to_owned());
    let state = State::from_iter([("#spec".to_owned(), json!(spec))]);
    let repo = Repo::create(&root, &files::absolute(&pool), &state)?;
    if context.json {
        context.say(json!({"root": repo.root(), "objects": repo.pool().dir(), "spec": spec}), String::new);
    }
    Ok(())
}
