//! `pvr import`.

use crate::{archive, commands::Context, error::Result, history, parts::Parts, reference, repo::Repo, side};
use clap::Parser;
use serde_json::json;
use std::path::PathBuf;

/// Take the state and the objects of an archive
///
/// Replaces the committed state; files are left as they are until `pvr reset`. The whole archive is checked first: if
/// anything in it is wrong, nothing of it is kept. Archives of other tools are taken that a device would not install as
/// they are; then it says so, and `pvr export` makes one of the same state.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr import device.pvrexport.tgz
  pvr import device.pvrexport.tgz && pvr reset")]
pub(super) struct Args {
    /// The archive
    file: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    if !args.file.exists() {
        return Err(reference::missing(&args.file.to_string_lossy()));
    }
    let _lock = repo.lock()?;
    let bar = context.spinner("reading the archive");
    let state = archive::read(&repo, &args.file, &Parts::default())?;
    bar.finish_and_clear();
    repo.advance(&state, "import", &args.file.display().to_string())?;
    let refusal = side::refusal(&args.file)?.map(|refusal| refusal.to_string());
    if context.json {
        context.say(json!({"state-sha": history::id(&state)?, "device-refuses": refusal}), String::new);
    } else {
        if let Some(refusal) = refusal {
            context.warn(&format!("warning: a device would not install this archive itself, because {refusal}"));
        }
        context.warn("Imported; `pvr status` shows what differs from your files, `pvr reset` writes them");
    }
    Ok(())
}
