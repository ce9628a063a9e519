//! `pvr add`.

use crate::{
    commands::Context,
    error::{Error, Result},
    files,
    repo::{Added, Repo},
};
use clap::Parser;
use glob::{MatchOptions, Pattern};

/// Track new files with the next commit
///
/// Without patterns, or with `.`, every file. A pattern is compared with the whole path; `*` does not cross a `/`;
/// the name of a folder means everything below it. Changed and removed files need no add.
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
    #[arg(long, short, env = "PVR_ADD_RAW")]
    raw: bool,
}

/// As a shell matches: every part of the path by itself.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    let (pristine, mut index) = (repo.pristine()?, repo.index()?);
    let chosen = Chosen::parse(&args.patterns)?;
    let mut met = vec![false; args.patterns.len()];
    for key in repo.files()? {
        if !chosen.matches(&key, &mut met) || pristine.contains_key(&key) && !args.raw {
            continue;
        }
        let sha = files::hash(&repo.root().join(&key))?;
        index.insert(key, Added { force_object: args.raw, sha });
    }
    for (pattern, _) in args.patterns.iter().zip(met).filter(|(_, met)| !met) {
        context.warn(&format!("warning: {pattern} matches no file"));
    }
    repo.write_index(&index)
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
            let text = text.trim_start_matches("./").trim_end_matches('/');
            let pattern = Pattern::new(text).map_err(|e| Error::usage(format!("pattern {text}: {e}")))?;
            Ok((pattern, format!("{text}/")))
        };
        patterns.iter().map(parse).collect::<Result<_>>().map(Self::Some)
    }

    fn matches(&self, key: &str, met: &mut [bool]) -> bool {
        let Self::Some(patterns) = self else {
            met.fill(true);
            return true;
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
