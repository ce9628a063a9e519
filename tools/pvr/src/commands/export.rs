//! `pvr export`.

use crate::{
    archive,
    commands::Context,
    error::Result,
    history,
    parts::Parts,
    repo::{self, Repo},
};
use clap::Parser;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write the committed state and its objects as an archive
///
/// Compressed if the name ends in .gz or .tgz. `-` is the standard output, never compressed. The same state gives the
/// same bytes. Every object is verified before it goes out.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr export device.pvrexport.tgz
  pvr export --parts web,_config/web web.pvrexport.tgz
  pvr export - | ssh HOST 'cat > device.pvrexport'")]
pub(super) struct Args {
    /// The archive
    file: PathBuf,
    /// Only these parts of the state; -PART leaves one out
    #[arg(long, short, value_delimiter = ',', value_name = "PART", allow_hyphen_values = true)]
    parts: Vec<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let state = repo.pristine()?;
    repo::check_keys(&state)?;
    let state = Parts::of(&args.parts)?.select(&state)?;
    if args.file == Path::new("-") {
        return archive::write(repo.pool(), &state, std::io::stdout().lock());
    }
    let bar = context.spinner("writing the archive");
    archive::write_file(repo.pool(), &state, &args.file)?;
    bar.finish_and_clear();
    if context.json {
        let objects = repo::objects(&state)?.len();
        context.say(json!({"file": args.file, "state-sha": history::id(&state)?, "objects": objects}), String::new);
    }
    Ok(())
}
