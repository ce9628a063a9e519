//! `pvr deploy`.
//!
//! The folder that it makes is what a build puts on a device: a repository checked out by hard links, and in `.pv/` the
//! files that a loader reads under fixed names.

use crate::{
    commands::{Context, reset},
    error::{During, Error, Result},
    files,
    reference::Reference,
    repo::{self, Checkout, DEFAULT_SPEC, Repo, State},
    source::Source,
};
use clap::Parser;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Put a state into a folder as a build needs it: hard links, and the loader's files in .pv
///
/// Makes the folder a repository if it is none, merges each reference into it (its parts replace those there with
/// --nomerge), removes the files that the state does not have, checks out by hard links, and links kernel, initrd and
/// device tree of bsp/run.json into .pv. Without a reference, the committed state of the folder.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr deploy build/root device.pvrexport.tgz
  pvr deploy --nomerge build/root ../base#bsp ../apps#web,_config/web")]
pub(super) struct Args {
    /// The folder
    dir: PathBuf,
    /// Repositories, archives or devices, with #PART,… if only parts are meant
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Replace parts, do not merge them
    #[arg(long, short)]
    nomerge: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = open_or_make(context, &args.dir)?;
    let _lock = repo.lock()?;
    let mut state = repo.pristine()?;
    for source in &args.sources {
        let reference = Reference::parse(source, &context.http())?;
        let source = Source::open(&context.http(), &reference)?;
        let bar = context.bar("downloading", 0);
        source.supply(&repo, &reference.parts, &bar)?;
        bar.finish_and_clear();
        let (parts, there) = (&reference.parts, &source.state);
        state = if args.nomerge { parts.get(&state, there)? } else { parts.merge(&state, there)? };
    }
    let links = boot_links(&repo, &state)?;
    repo.advance(&state, "deploy", &args.sources.join(" "))?;
    reset::checkout(&repo, Checkout::HardLink)?;
    for key in repo.files()?.iter().filter(|key| !state.contains_key(*key)) {
        repo.remove_file(key)?;
    }
    link_boot(&repo, &links)?;
    context.note_repository(repo.root());
    if context.json {
        let names: Vec<_> = links.iter().map(|(name, _)| format!(".pv/{name}")).collect();
        context.say(json!({"root": repo.root(), "links": names}), String::new);
    }
    Ok(())
}

/// A folder that is no repository must be empty: what is untracked in it will be removed.
fn open_or_make(context: &Context, dir: &Path) -> Result<Repo> {
    if dir.join(".pvr/json").is_file() {
        return Repo::at(dir);
    }
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::usage(format!("{} is neither empty nor a repository", dir.display()))
            .hint("deploy removes what the state does not have; name a new folder"));
    }
    files::create_dir(dir)?;
    let state = State::from_iter([("#spec".to_owned(), json!(DEFAULT_SPEC))]);
    Repo::create(dir, &context.shared_pool(), &state)
}

/// Names in `.pv` and the objects that stand behind them. The names are those of the original; which file stands behind
/// each, `bsp/run.json` says, by the keys of old and new releases. What the state does not have is not linked, unless
/// run.json names it: then it is missing.
fn boot_links(repo: &Repo, state: &State) -> Result<Vec<(&'static str, PathBuf)>> {
    let Some(run) = state.get("bsp/run.json").filter(|run| run.is_object()) else { return Ok(Vec::new()) };
    let named = |keys: &[&str]| keys.iter().find_map(|key| run[*key].as_str().filter(|file| !file.is_empty()));
    let mut links = Vec::new();
    let mut link = |name, file: Option<&str>, default: Option<&str>| {
        let Some(file) = file.or(default) else { return Ok(()) };
        let key = format!("bsp/{file}");
        match state.get(&key).and_then(Value::as_str).filter(|sha| repo::is_sha(sha)) {
            Some(sha) => links.push((name, repo.object(sha))),
            None if Some(file) == default => {}
            None => return Err(Error::input(format!("bsp/run.json names {file}, and the state has no {key}"))),
        }
        Ok(())
    };
    if let Some(fit) = named(&["fit"]) {
        link("pantavisor.fit", Some(fit), None)?;
        return Ok(links);
    }
    link("pv-kernel.img", named(&["kernel", "linux"]), Some("kernel.img"))?;
    link("pv-initrd.img", named(&["initrd"]), Some("pantavisor"))?;
    link("pv-fdt.dtb", named(&["fdt"]), None)?;
    Ok(links)
}

/// Makes `.pv` anew: links of an older state would boot that one.
fn link_boot(repo: &Repo, links: &[(&'static str, PathBuf)]) -> Result<()> {
    let dir = repo.root().join(".pv");
    let act = || {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        if !links.is_empty() {
            fs::create_dir_all(&dir)?;
        }
        links.iter().try_for_each(|(name, object)| fs::hard_link(object, dir.join(name)))
    };
    act().during(|| format!("link the loader's files into {}", dir.display()))
}
