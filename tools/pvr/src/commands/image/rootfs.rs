//! `pvr image rootfs`.

use crate::{
    commands::Context,
    error::{During, Error, Result},
    files, squashfs,
};
use clap::Parser;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

/// Write a folder as a squashfs image
///
/// The image has the profile `swb-1`: zstd level 15, blocks of 128 KiB, sorted paths, fixed times. The same files
/// give the same bytes on every machine. Everything in it is owned by root unless --owner says otherwise. Needs no
/// root. Refused: devices, sockets and pipes.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr image rootfs ./web-root web/root.squashfs
  pvr image rootfs ./web-root web/root.squashfs --owner var/www=33:33")]
pub(in crate::commands) struct Args {
    /// The folder
    dir: PathBuf,
    /// The image to write
    out: PathBuf,
    /// Owner of a path in the image and of everything below it; may be given several times
    #[arg(long, value_name = "PATH=UID:GID", value_parser = parse_owner)]
    owner: Vec<(PathBuf, (u32, u32))>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    if !args.dir.is_dir() {
        return Err(Error::usage(format!("{} is not a folder", args.dir.display())));
    }
    let owners: BTreeMap<_, _> = args.owner.iter().cloned().collect();
    let spinner = context.spinner("compressing");
    let file = files::begin(&args.out)?;
    let entries = squashfs::write(&args.dir, &owners, file.as_file())?;
    files::finish(file, &args.out, 0o644)?;
    spinner.finish_and_clear();
    let size = std::fs::metadata(&args.out).during(|| format!("look at {}", args.out.display()))?.len();
    let sha = files::hash(&args.out)?;
    context.say(
        json!({"file": args.out, "profile": squashfs::PROFILE, "entries": entries, "size": size, "sha256": sha}),
        || format!("{}: {} entries, {size} bytes, {} ({})", args.out.display(), entries, squashfs::PROFILE, &sha[..8]),
    );
    Ok(())
}

fn parse_owner(text: &str) -> std::result::Result<(PathBuf, (u32, u32)), String> {
    let parse = || {
        let (path, owner) = text.rsplit_once('=')?;
        let (uid, gid) = owner.split_once(':')?;
        Some((PathBuf::from(path.trim_matches('/')), (uid.parse().ok()?, gid.parse().ok()?)))
    };
    parse().ok_or_else(|| "expected PATH=UID:GID with numeric ids, such as var/www=33:33".into())
}
