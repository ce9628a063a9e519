//! `pvr export`.

use crate::{
    archive,
    commands::{Context, output::Output},
    error::{Error, Result},
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
/// same bytes. Every object is verified before it goes out. A file is replaced whole or not at all, through a symbolic
/// link too; a device or a pipe is written into.
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
    if [".zip", ".xz", ".bz2", ".zst", ".7z"].iter().any(|end| args.file.to_string_lossy().ends_with(end)) {
        return Err(Error::usage(format!("{}: an export is a tar, plain or with gzip", args.file.display()))
            .hint("let its name end in .pvrexport.tgz, .gz or .tgz for gzip, in anything else for plain tar"));
    }
    let repo = Repo::open()?;
    let state = repo.pristine()?;
    repo::check_keys(&state)?;
    let state = Parts::of(&args.parts)?.select(&state)?;
    if args.file == Path::new("-") {
        let mut output = Output::default();
        let written = archive::write(repo.pool(), &state, &mut output);
        return if output.is_gone() { Ok(()) } else { written };
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
