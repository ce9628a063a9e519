//! `pvr device`: the devices around, and who of them knows us.

mod pair;
pub(super) mod scan;

use crate::{
    commands::Context,
    error::{Error, Result},
    pinned::Paired,
};
use clap::{Parser, Subcommand};
use serde_json::json;

/// The verbs below `device`.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Scan(scan::Args),
    Pair(pair::Args),
    Ls(LsArgs),
    Forget(ForgetArgs),
}

/// List the devices that were paired from here
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr device ls
  pvr device ls --json")]
pub(super) struct LsArgs {}

/// Forget a paired device; the token that it gave stays good until it is taken back there
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr device forget 192.168.1.7:12368
  pvr device forget switchback-3f09a1c2d4e5")]
pub(super) struct ForgetArgs {
    /// Its address or name, as `pvr device ls` shows it
    #[arg(value_name = "DEVICE")]
    device: String,
}

pub(super) fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Scan(args) => scan::run(context, args),
        Command::Pair(args) => pair::run(context, args),
        Command::Ls(_) => ls(context),
        Command::Forget(args) => forget(context, args),
    }
}

fn ls(context: &Context) -> Result<()> {
    let paired = Paired::load(&context.config_dir)?;
    let transport = |fingerprint: &Option<String>| if fingerprint.is_some() { "tls" } else { "plain" };
    let rows: Vec<_> = paired
        .devices
        .iter()
        .map(|device| {
            json!({"address": device.address, "name": device.name, "transport": transport(&device.fingerprint),
                "fingerprint": device.fingerprint, "token": device.id})
        })
        .collect();
    context.say(json!(rows), || {
        let line = |device: &crate::pinned::Device| {
            format!("{:<24} {:<28} {}", device.address, device.name, transport(&device.fingerprint))
        };
        match paired.devices.is_empty() {
            true => "No device was paired from here. pvr device pair ADDRESS".into(),
            false => paired.devices.iter().map(line).collect::<Vec<_>>().join("\n"),
        }
    });
    Ok(())
}

fn forget(context: &Context, args: &ForgetArgs) -> Result<()> {
    let mut paired = Paired::load(&context.config_dir)?;
    let tokens: Vec<_> = paired.devices.iter().filter(|d| d.address == args.device || d.name == args.device).collect();
    let tokens: Vec<_> = tokens.into_iter().map(|device| device.id.clone()).collect();
    if !paired.forget(&args.device)? {
        return Err(Error::usage(format!("{} was not paired from here", args.device)).hint("pvr device ls"));
    }
    context.say(json!({"forgotten": args.device, "tokens": tokens}), || {
        format!("Forgotten. To take its token back, on the device: pvcontrol endpoint revoke {}", tokens.join(" "))
    });
    Ok(())
}
