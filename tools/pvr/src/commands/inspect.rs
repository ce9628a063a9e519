//! `pvr inspect`.

use crate::{
    canonical::{self, CANONICAL, TABS},
    commands::{Context, print},
    error::Result,
    reference::Reference,
    repo::Repo,
    source::Source,
};
use clap::Parser;
use serde_json::Value;

/// Print the state of a repository, an archive or a device
///
/// Without a name, the committed state of this folder. `#PART,…` shows only these parts.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr inspect
  pvr inspect device.pvrexport.tgz#bsp
  pvr inspect user/device#web
  pvr inspect 192.168.1.7 --canonical")]
pub(super) struct Args {
    /// A repository's folder, an archive, a device's URL or IP address, or USER/DEVICE of a hub
    source: Option<String>,
    /// In the form that is hashed and signed
    #[arg(long, short)]
    canonical: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let state = match &args.source {
        None => Repo::open()?.pristine()?,
        Some(source) => {
            let reference = Reference::parse(source, &context.http())?;
            reference.parts.select(&Source::open(&context.http(), &reference)?.state)?
        }
    };
    let layout = if args.canonical || context.json { CANONICAL } else { TABS };
    print(&canonical::write(&Value::Object(state), layout)?);
    Ok(())
}
