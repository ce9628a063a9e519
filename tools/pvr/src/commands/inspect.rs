//! `pvr inspect`.

use crate::{
    archive,
    canonical::{self, CANONICAL, TABS},
    commands::{Context, print},
    error::Result,
    files,
    parts::Parts,
    remote::{Reference, Remote},
    repo::{Repo, State},
};
use clap::Parser;
use serde_json::Value;
use std::path::Path;

/// Print the state of a repository, an archive or a device
///
/// Without a name, the committed state of this folder. `#PART,…` shows only these parts.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr inspect
  pvr inspect device.pvrexport.tgz#bsp
  pvr inspect 192.168.1.7 --canonical")]
pub(super) struct Args {
    /// A repository's folder, an archive, or a device
    source: Option<String>,
    /// In the form that is hashed and signed
    #[arg(long, short)]
    canonical: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let state = match &args.source {
        None => Repo::open()?.pristine()?,
        Some(source) => {
            let (place, fragment) = source.split_once('#').unwrap_or((source, ""));
            Parts::parse(fragment)?.select(&state_of(context, source, place)?)?
        }
    };
    let layout = if args.canonical || context.json { CANONICAL } else { TABS };
    print(&canonical::write(&Value::Object(state), layout)?);
    Ok(())
}

fn state_of(context: &Context, source: &str, place: &str) -> Result<State> {
    let path = Path::new(place);
    if path.is_dir() {
        return repository(path)?.pristine();
    }
    if path.is_file() {
        return archive::read_state(path);
    }
    let reference = Reference::parse(source)?;
    Remote::find(&reference.url, context.access_token.as_deref())?.state()
}

/// The repository in a folder, or the one whose folder `.pvr` it is.
pub(super) fn repository(folder: &Path) -> Result<Repo> {
    match folder.file_name() {
        Some(name) if name == ".pvr" => Repo::at(files::absolute(folder).parent().unwrap_or(folder)),
        _ => Repo::at(folder),
    }
}
