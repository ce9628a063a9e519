//! `pvr clone`.

use crate::{
    commands::{Context, reset},
    error::{During, Error, Result},
    files,
    interrupt::Unfinished,
    reference::{Place, Reference},
    repo::{self, Checkout, DEFAULT_SPEC, Repo, State},
    source::Source,
};
use clap::Parser;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Make a repository from a device, another repository or an exported archive
///
/// The new folder appears when everything is there and checked, or not at all; what has arrived of the objects stays in
/// the pool, and the next try goes on from there. `#PART,…` after the source takes only these parts of the state.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr clone http://192.168.1.7:12368 device
  pvr clone 192.168.1.7#web,network device
  pvr clone user/device
  pvr clone ../other/.pvr copy
  pvr clone web.pvrexport.tgz web")]
pub(super) struct Args {
    /// A device's URL or IP address, USER/DEVICE of a hub, a repository's folder, or an archive; then #PART,…
    source: String,
    /// The new folder [default: the last part of the source's name]
    dir: Option<PathBuf>,
    /// Folder of the object pool [default: objects in --config-dir, ~/.pvr/objects]
    #[arg(long, short, env = "PVR_OBJECTS_DIR", value_name = "DIR")]
    objects: Option<PathBuf>,
    /// Write JSON in the form that is hashed and signed
    #[arg(long, short, env = "PVR_CANONICAL_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    canonical: bool,
    /// The #spec of a source that has none
    #[arg(long, short, default_value = DEFAULT_SPEC)]
    spec: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let reference = Reference::parse(&args.source, &context.http())?;
    let target = files::absolute(&args.dir.clone().map_or_else(|| default_dir(&reference.place), Ok)?);
    if target.exists() && fs::read_dir(&target).map_or(true, |mut entries| entries.next().is_some()) {
        return Err(Error::usage(format!("{} exists and is not empty", target.display())).hint("name another folder"));
    }
    let beside = target.parent().unwrap_or(Path::new("/"));
    let make = || {
        let scratch = tempfile::Builder::new().prefix("pvr-clone-").tempdir_in(beside);
        scratch.during(|| format!("create a folder in {}", beside.display()))
    };
    let (_unfinished, scratch) = Unfinished::of(make, |scratch| scratch.path())?;
    let pool = files::absolute(&args.objects.clone().unwrap_or_else(|| context.shared_pool()));
    let repo = Repo::create(scratch.path(), &pool, &State::new())?;
    // The scratch folder is nobody's repository; it is noted under its own name below.
    let lock = repo.lock_unnoted()?;
    let source = Source::open(&context.http(), &reference)?;
    let mut state = reference.parts.select(&source.state)?;
    state.entry("#spec").or_insert_with(|| json!(args.spec));
    let bar = context.bar("downloading", 0);
    source.supply(&repo, &reference.parts, &bar)?;
    bar.finish_and_clear();
    repo.write_pristine(&state)?;
    if let Some(always) = source.defaults(&[]) {
        repo.remember(&source.name, always)?;
    }
    reset::checkout(&repo, if args.canonical { Checkout::Canonical } else { Checkout::Plain })?;
    // The scratch folder is this user's alone; the repository is as any other folder.
    fs::set_permissions(scratch.path(), files::permissions(0o755)).during(|| "set the folder's mode")?;
    fs::rename(scratch.path(), &target).during(|| format!("rename the finished folder to {}", target.display()))?;
    // It has its own name now: there is nothing left to clean up.
    let _ = scratch.keep();
    Repo::at(&target)?.note()?;
    drop(lock);
    context.note_repository(&target);
    // As people write it, without `..` in it.
    let target = fs::canonicalize(&target).unwrap_or(target);
    context.say(json!({"cloned": target, "files": repo::entries(&state).count()}), || {
        format!("Successfully cloned: {}", target.display())
    });
    Ok(())
}

fn default_dir(place: &Place) -> Result<PathBuf> {
    let text = match place {
        Place::Remote(url) => url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).to_owned(),
        Place::Local(path) if path.file_name().is_some_and(|name| name == ".pvr") => {
            path.parent().unwrap_or(path).display().to_string()
        }
        Place::Local(path) => path.display().to_string(),
    };
    let name = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = name.split(".pvrexport").next().unwrap_or_default();
    let ends = [".tar.gz", ".tgz", ".tar"];
    let name = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).replace(':', "-");
    if matches!(name.as_str(), "" | "." | ".." | ".pvr") {
        return Err(Error::usage("the source gives no name for the folder").hint("name it: pvr clone SOURCE FOLDER"));
    }
    Ok(name.into())
}
