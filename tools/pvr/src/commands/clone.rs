//! `pvr clone`.

use crate::{
    archive,
    commands::{Context, reset},
    error::{During, Error, Result},
    files,
    parts::Parts,
    remote::{Reference, Remote},
    repo::{self, Checkout, Repo, State},
};
use clap::Parser;
use serde_json::json;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Make a repository from a device, another repository or an exported archive
///
/// The new folder appears when everything is there and checked, or not at all. `#PART,…` after the source takes only
/// these parts of the state.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr clone http://192.168.1.7:12368 device
  pvr clone 192.168.1.7#web,network device
  pvr clone web.pvrexport.tgz web")]
pub(super) struct Args {
    /// A device's URL or IP address, a repository's folder, or an archive
    source: String,
    /// The new folder [default: the last part of the source's name]
    dir: Option<PathBuf>,
    /// Folder of the object pool [default: objects in --config-dir, ~/.pvr/objects]
    #[arg(long, short, env = "PVR_OBJECTS_DIR", value_name = "DIR")]
    objects: Option<PathBuf>,
    /// Write JSON in the form that is hashed and signed
    #[arg(long, short, env = "PVR_CANONICAL_JSON")]
    canonical: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let (place, fragment) = args.source.split_once('#').unwrap_or((&args.source, ""));
    let parts: Vec<_> = fragment.split(',').filter(|p| !p.is_empty()).collect();
    let target = files::absolute(&args.dir.clone().map_or_else(|| default_dir(place), Ok)?);
    if target.exists() && fs::read_dir(&target).map_or(true, |mut entries| entries.next().is_some()) {
        return Err(Error::usage(format!("{} exists and is not empty", target.display())).hint("name another folder"));
    }
    let beside = target.parent().unwrap_or(Path::new("/"));
    let scratch = tempfile::Builder::new().prefix("pvr-clone-").tempdir_in(beside);
    let scratch = scratch.during(|| format!("create a folder in {}", beside.display()))?;
    let pool = files::absolute(&args.objects.clone().unwrap_or_else(|| context.shared_pool()));
    let repo = Repo::create(scratch.path(), &pool, &State::new())?;
    let local = Path::new(place);
    let state = if local.is_dir() {
        from_folder(&repo, local, &parts)?
    } else if local.is_file() {
        from_archive(&repo, local, &parts)?
    } else {
        from_remote(context, &repo, &args.source, &parts)?
    };
    repo.write_pristine(&state)?;
    reset::checkout(&repo, if args.canonical { Checkout::Canonical } else { Checkout::Plain })?;
    // The scratch folder is this user's alone; the repository is as any other folder.
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(scratch.path(), mode).during(|| "set the folder's mode")?;
    fs::rename(scratch.path(), &target).during(|| format!("rename the finished folder to {}", target.display()))?;
    // It has its own name now: there is nothing left to clean up.
    let _ = scratch.keep();
    context.say(json!({"cloned": target, "files": repo::entries(&state).count()}), || {
        format!("Successfully cloned: {}", target.display())
    });
    Ok(())
}

fn default_dir(place: &str) -> Result<PathBuf> {
    let name = place.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = name.split(".pvrexport").next().unwrap_or_default().replace(':', "-");
    if matches!(name.as_str(), "" | "." | ".." | ".pvr") {
        return Err(Error::usage("the source gives no name for the folder").hint("name it: pvr clone SOURCE FOLDER"));
    }
    Ok(name.into())
}

/// The parts of a state that were asked for; `#spec` always belongs to it. Refused if its keys are not plain paths.
fn select(mut state: State, parts: &[&str]) -> Result<State> {
    repo::check_keys(&state)?;
    if let Some(part) = parts.iter().find(|part| !state.keys().any(|key| repo::in_part(key, part))) {
        return Err(Error::input(format!("the source has no part {part}")));
    }
    state.retain(|key, _| key.starts_with('#') || parts.is_empty() || parts.iter().any(|p| repo::in_part(key, p)));
    Ok(state)
}

fn from_remote(context: &Context, repo: &Repo, source: &str, parts: &[&str]) -> Result<State> {
    let reference = Reference::parse(source)?;
    let remote = Remote::find(&reference.url, context.access_token.as_deref())?;
    let state = select(remote.state()?, parts)?;
    let bar = context.spinner("downloading");
    for sha in repo::objects(&state)? {
        if !is_whole(repo, &sha) {
            remote.fetch(repo, &sha, &bar)?;
        }
    }
    bar.finish_and_clear();
    repo.remember(&reference.url, &["DefaultGetUrl"])?;
    Ok(state)
}

/// A folder with a repository in it, or the folder `.pvr` of one.
fn from_folder(repo: &Repo, folder: &Path, parts: &[&str]) -> Result<State> {
    let root = match folder.file_name() {
        Some(name) if name == ".pvr" => folder.parent().unwrap_or(Path::new("/")),
        _ => folder,
    };
    let source = Repo::at(root)?;
    let state = select(source.pristine()?, parts)?;
    for sha in repo::objects(&state)? {
        if !is_whole(repo, &sha) {
            let path = source.object(&sha);
            let mut object = File::open(&path).during(|| format!("read {}", path.display()))?;
            repo.store_from(&mut object, &path.display().to_string(), Some(&sha))?;
        }
    }
    Ok(state)
}

/// A `pvrexport`, of which everything is checked.
fn from_archive(repo: &Repo, path: &Path, parts: &[&str]) -> Result<State> {
    let parts = Parts::of(parts)?;
    parts.select(&archive::read(repo, path, &parts)?)
}

/// Whether the pool has the object with the content that its name says. A damaged one is removed.
fn is_whole(repo: &Repo, sha: &str) -> bool {
    let path = repo.object(sha);
    match files::hash(&path) {
        Ok(found) if found == sha => true,
        Ok(_) => {
            let _ = fs::remove_file(&path);
            false
        }
        Err(_) => false,
    }
}
