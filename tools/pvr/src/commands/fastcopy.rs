//! `pvr fastcopy`.

use crate::{
    commands::{Context, post::StepArgs},
    error::{Error, Result},
    reference::Reference,
    remote::Remote,
    repo::{self, State, in_part},
};
use clap::Parser;

/// Copy a state, or parts of it, from one device of a hub to another
///
/// Only the states travel: the objects have to be where the target finds them, as those of public devices and of one
/// owner are on a hub. `#PART,…` copies these parts; with as many parts behind the target, each under the target's
/// name. What the target has of a part is replaced, or stays beside it with --merge. The result is a new revision.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr fastcopy user/golden user/device7
  pvr fastcopy user/golden#web,_config/web user/device7 -m 'the new page'
  pvr fastcopy user/golden#web user/device7#web2 --merge")]
pub(super) struct Args {
    /// What is copied: URL or USER/DEVICE; then #PART,…
    source: String,
    /// Where to: URL or USER/DEVICE; then #PART,…
    target: String,
    #[command(flatten)]
    step: StepArgs,
    /// Post the revision although it is what the target has already
    #[arg(long, short)]
    force: bool,
    /// Keep what the target has and the source has not
    #[arg(long)]
    merge: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let (from, source) = Reference::remote(&args.source, &context.http())?;
    let (to, target) = Reference::remote(&args.target, &context.http())?;
    let pairs = pairs(&source.fragment, &target.fragment)?;
    let source = Remote::find(&context.http(), &from)?.state()?;
    let remote = Remote::find(&context.http(), &to)?;
    let there = remote.state()?;
    let state = copied(&source, &there, &pairs, args.merge)?;
    if state == there && !args.force {
        return Err(Error::input(format!("{to} has all of it already")).hint("--force posts it again"));
    }
    args.step.post(context, &remote, &state)
}

/// The parts to copy, each with its name at the target. None: everything.
fn pairs(source: &str, target: &str) -> Result<Vec<(String, String)>> {
    let list = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(|part| part.trim().trim_end_matches('/'));
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (source, mut target) = (list(source), list(target));
    if let Some(part) = source.iter().chain(&target).find(|part| part.starts_with('-')) {
        return Err(Error::usage(format!("{part}: fastcopy copies parts, it leaves none out")));
    }
    if target.is_empty() {
        target.clone_from(&source);
    }
    if source.len() != target.len() {
        let text = format!("{} parts cannot become {}", source.len(), target.len());
        return Err(Error::usage(text).hint("name as many parts behind the target, or none"));
    }
    Ok(source.into_iter().zip(target).collect())
}

/// The target's new state.
fn copied(source: &State, target: &State, pairs: &[(String, String)], merge: bool) -> Result<State> {
    let mut state = target.clone();
    if pairs.is_empty() {
        if !merge {
            state.clear();
        }
        state.extend(source.clone());
    }
    for (from, to) in pairs {
        if !source.keys().any(|key| in_part(key, from)) {
            return Err(Error::input(format!("there is no part {from} in the source")));
        }
        if !merge {
            state.retain(|key, _| !in_part(key, to));
        }
        let below = source.iter().filter(|(key, _)| in_part(key, from));
        state.extend(below.map(|(key, value)| (format!("{to}{}", &key[from.len()..]), value.clone())));
    }
    repo::check_keys(&state)?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn state(value: Value) -> State {
        value.as_object().unwrap().clone()
    }

    fn copy(source: &str, target: &str, merge: bool) -> Vec<String> {
        let from = state(json!({"#spec": "s@2", "web/a": "1", "web/b": "2", "webx/a": "3"}));
        let to = state(json!({"#spec": "s@1", "web/a": "0", "web/c": "0", "other": "0", "web2/z": "0"}));
        let new = copied(&from, &to, &pairs(source, target).unwrap(), merge).unwrap();
        new.into_iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect()
    }

    #[test]
    fn parts_are_replaced_renamed_or_merged() {
        assert_eq!(copy("web", "", false), ["#spec=s@1", "other=0", "web/a=1", "web/b=2", "web2/z=0"]);
        assert_eq!(copy("web", "", true), ["#spec=s@1", "other=0", "web/a=1", "web/b=2", "web/c=0", "web2/z=0"]);
        let renamed = ["#spec=s@1", "other=0", "web/a=0", "web/c=0", "web2/a=1", "web2/b=2"];
        assert_eq!(copy("web", "web2/", false), renamed);
        assert_eq!(copy("", "", false), ["#spec=s@2", "web/a=1", "web/b=2", "webx/a=3"]);
        let all = ["#spec=s@2", "other=0", "web/a=1", "web/b=2", "web/c=0", "web2/z=0", "webx/a=3"];
        assert_eq!(copy("", "", true), all);
    }

    #[test]
    fn what_cannot_be_copied() {
        assert!(pairs("a,b", "c").is_err() && pairs("", "c").is_err() && pairs("-a", "").is_err());
        let pairs = pairs("nothing", "").unwrap();
        assert!(copied(&state(json!({"we/a": "1"})), &State::new(), &pairs, false).is_err());
    }
}
