//! `pvr remoteinfo` and `pvr stepinfo`.

use crate::{
    canonical::{self, CANONICAL, TABS},
    commands::{Context, print},
    error::Result,
    reference::Reference,
    remote::Remote,
};
use clap::Parser;
use serde_json::Value;

/// Show the endpoints that a device or a hub names
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr remoteinfo http://192.168.1.7:12368
  pvr remoteinfo user/device --canonical")]
pub(super) struct RemoteArgs {
    #[command(flatten)]
    of: Of,
}

/// Show a revision: its state, its progress and what a hub says of it
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr stepinfo https://api.pantahub.com/trails/5f0c/steps/7
  pvr stepinfo user/device")]
pub(super) struct StepInfoArgs {
    #[command(flatten)]
    of: Of,
}

#[derive(Parser, Debug)]
struct Of {
    /// The device: URL or IP address, or USER/DEVICE of a hub
    #[arg(value_name = "DEVICE")]
    of: String,
    /// Print JSON in the form that is hashed and signed
    #[arg(long, short)]
    canonical: bool,
}

pub(super) fn remote_info(context: &Context, args: &RemoteArgs) -> Result<()> {
    args.of.show(context, find(context, &args.of.of)?.info())
}

pub(super) fn step_info(context: &Context, args: &StepInfoArgs) -> Result<()> {
    args.of.show(context, &find(context, &args.of.of)?.step()?)
}

fn find(context: &Context, text: &str) -> Result<Remote> {
    let (url, _) = Reference::remote(text, &context.http())?;
    Remote::find(&context.http(), &url)
}

impl Of {
    fn show(&self, context: &Context, value: &Value) -> Result<()> {
        let layout = if self.canonical || context.json { CANONICAL } else { TABS };
        print(&canonical::write(value, layout)?);
        Ok(())
    }
}
