//! `pvr add`.

use crate::{
    commands::Context,
    error::{Error, Result},
    files,
    repo::{self, Added, Repo, State},
    shown::shown,
    worktree::{Found, Odd},
};
use clap::Parser;
use glob::{MatchOptions, Pattern};
use serde_json::json;
use std::path::Path;

/// Track new files with the next commit
///
/// Without patterns, or with `.`, every file. A pattern is compared with the whole path; `*` does not cross a `/`;
/// the name of a folder means everything below it. Changed and removed files need no add. A tracked file that is named
/// replaces its object in the pool if that is missing or damaged. Patterns of which none matches anything are an error.
/// A JSON file that cannot be read as such is refused, and nothing is added; --raw takes it. A file whose name no
/// revision can hold is left out and named; named by itself it is refused.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr add .
  pvr add 'web/*.json' network
  pvr add --raw data.json")]
pub(super) struct Args {
    /// Paths or shell patterns
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Keep JSON files as objects, not inside the state
    #[arg(long, short, env = "PVR_ADD_RAW", value_parser = clap::builder::FalseyValueParser::new())]
    raw: bool,
}

/// As a shell matches: every part of the path by itself.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    let (mut index, pristine) = repo.load()?;
    let chosen = Chosen::parse(&args.patterns)?;
    let mut met = vec![false; args.patterns.len()];
    let Found { mut keys, odd } = repo.found()?;
    keys.retain(|key| chosen.matches(key, &mut met));
    let missed: Vec<_> = args.patterns.iter().zip(&met).filter(|(_, met)| !**met).map(|(pattern, _)| pattern).collect();
    let named = |odd: &&Odd| args.patterns.iter().any(|pattern| Path::new(path_of(pattern)) == odd.path);
    if let Some(odd) = odd.iter().find(named) {
        return Err(Error::input(format!("{} {}; nothing was added", odd.shown(), odd.why)).hint(ODD_HINT));
    }
    let mut odd: Vec<_> = odd.iter().map(|odd| format!("{} ({})", odd.shown(), odd.why)).collect();
    if let Chosen::Some(_) = chosen {
        if missed.len() == met.len() {
            return Err(nothing_matches(&missed));
        }
        for pattern in &missed {
            context.warn(&format!("warning: {} matches no file", shown(pattern)));
        }
        odd.clear();
        repair(&repo, &pristine, &keys)?;
    }
    keys.retain(|key| !pristine.contains_key(key) || args.raw);
    for key in keys.extract_if(.., |key| repo::check_key(key).is_err()) {
        if args.patterns.contains(&key) {
            return Err(repo::check_key(&key).err().unwrap_or_else(|| Error::input(key)).hint("rename it"));
        }
        odd.push(format!("{} (is no plain path)", shown(&key)));
    }
    if !odd.is_empty() {
        let odd = odd.join(", ");
        context.warn(&format!("warning: not added, because no revision can hold it: {odd}\nhint: {ODD_HINT}"));
    }
    let is_raw = |key: &String| args.raw || index.get(key).is_some_and(|added| added.force_object);
    let inline = keys.iter().filter(|key| key.ends_with(".json") && !is_raw(key));
    repo.check_inline(&inline.map(String::as_str).collect::<Vec<_>>())?;
    let bar = context.spinner("reading files");
    let hashes = repo.hash(&keys.iter().map(String::as_str).collect::<Vec<_>>())?;
    bar.finish_and_clear();
    for (key, sha) in keys.iter().zip(hashes) {
        // What was added as an object stays one, whatever else is added with it.
        let force_object = args.raw || index.get(key).is_some_and(|added| added.force_object);
        index.insert(key.clone(), Added { force_object, sha });
    }
    repo.write_index(&index)?;
    if context.json {
        context.say(json!({"added": keys, "unmatched": missed}), String::new);
    }
    Ok(())
}

/// What to do with what no revision can hold.
const ODD_HINT: &str = "rename it, or make it readable";

/// A pattern without what does not count.
fn path_of(pattern: &str) -> &str {
    pattern.trim_start_matches("./").trim_end_matches('/')
}

fn nothing_matches(patterns: &[&String]) -> Error {
    let shown: Vec<_> = patterns.iter().map(|pattern| shown(pattern.as_str())).collect();
    Error::usage(format!("no file matches {}; nothing was added", shown.join(", ")))
        .hint("`pvr status` lists the files that are there; paths begin in the folder that holds .pvr")
}

/// Brings the objects of tracked files that were named back into the pool, where they are missing or damaged.
fn repair(repo: &Repo, pristine: &State, keys: &[String]) -> Result<()> {
    for key in keys {
        let Some(value) = pristine.get(key) else { continue };
        let Some(sha) = repo::object_of(key, value)?.filter(|sha| !repo.pool().is_whole(sha)) else { continue };
        let path = repo.root().join(key);
        if files::hash(&path)? == sha {
            repo.store(&path)?;
        }
    }
    Ok(())
}

/// What the arguments choose.
enum Chosen {
    All,
    Some(Vec<(Pattern, String)>),
}

impl Chosen {
    fn parse(patterns: &[String]) -> Result<Self> {
        if patterns.is_empty() || patterns.iter().any(|p| p == "." || p == "./") {
            return Ok(Self::All);
        }
        let parse = |text: &String| {
            let text = path_of(text);
            let pattern = Pattern::new(text).map_err(|e| Error::usage(format!("pattern {text}: {e}")))?;
            Ok((pattern, format!("{text}/")))
        };
        patterns.iter().map(parse).collect::<Result<_>>().map(Self::Some)
    }

    fn matches(&self, key: &str, met: &mut [bool]) -> bool {
        let Self::Some(patterns) = self else {
            met.fill(true);
            // As the original: what begins like its own folders is never meant by "everything".
            return !key.starts_with(".pv");
        };
        let mut any = false;
        for ((pattern, folder), met) in patterns.iter().zip(met) {
            let matches = pattern.matches_with(key, MATCH) || key.starts_with(folder);
            *met |= matches;
            any |= matches;
        }
        any
    }
}
