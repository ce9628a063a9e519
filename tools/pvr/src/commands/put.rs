//! `pvr put` and `pvr putobjects`.

use crate::{
    canonical::{self, CANONICAL},
    commands::{Context, post},
    error::{Error, Result},
    http::address,
    reference::Reference,
    remote::{Remote, outgoing},
    repo::{self, Repo},
};
use clap::Parser;
use serde_json::{Value, json};

/// Replace the state of a revision that a hub has not given to its device yet
///
/// Uploads the objects that are not there, then puts the committed state in place of the revision's own. A revision
/// that its device has begun with cannot be replaced: `pvr post` makes a new one. As there, what a device could not
/// read is refused, and a warning for a device of the original.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr put https://api.pantahub.com/trails/5f0c/steps/7
  pvr put")]
pub(super) struct Args {
    /// The revision's URL, or USER/DEVICE for the newest one [default: where the repository came from]
    #[arg(value_name = "REVISION")]
    to: Option<String>,
    /// Upload objects although they are there
    #[arg(long, short)]
    force: bool,
}

/// Upload the objects of the committed state, and nothing else
///
/// All of them are announced; those that are not there are sent.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr putobjects https://api.pantahub.com/objects/
  pvr putobjects http://192.168.1.7:12368/cgi-bin/pvr/objects")]
pub(super) struct ObjectsArgs {
    /// URL of the objects endpoint
    #[arg(value_name = "ENDPOINT")]
    to: String,
    /// Upload objects although they are there
    #[arg(long, short)]
    force: bool,
}

pub(super) fn put(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    // Before the first object is looked for: `gc` must not put it aside meanwhile.
    let _pool = repo.share()?;
    let to = args.to.clone().or_else(|| repo.url("DefaultPutUrl"));
    let to = to.ok_or_else(|| Error::usage("no revision given").hint("pvr put URL"))?;
    let (url, _) = Reference::remote(&to, &context.http())?;
    let state = repo.pristine()?;
    repo::check_keys(&state)?;
    post::note_uncommitted(context, &repo, &state);
    let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
    let mut objects = outgoing(&repo, &state)?;
    let remote = Remote::find(&context.http(), &url)?;
    post::check(context, &repo, &remote, &text, None)?;
    let there = repo::objects(&remote.state()?)?;
    objects.retain(|object| args.force || !there.contains(&object.sha));
    let bar = context.bar("uploading", 0);
    remote.send_all(&objects, args.force, &bar)?;
    bar.finish_and_clear();
    remote.put_state(text.as_bytes())?;
    let _lock = repo.lock()?;
    repo.remember(&url, &["DefaultPutUrl"])?;
    context.say(json!({"put": url}), || format!("Successfully put the state to {url}"));
    Ok(())
}

pub(super) fn put_objects(context: &Context, args: &ObjectsArgs) -> Result<()> {
    let repo = Repo::open()?;
    // Before the first object is looked for: `gc` must not put it aside meanwhile.
    let _pool = repo.share()?;
    let state = repo.pristine()?;
    address::parse(&args.to)?;
    let objects = outgoing(&repo, &state)?;
    let remote = Remote::objects_only(&context.http(), &args.to)?;
    let bar = context.bar("uploading", 0);
    remote.send_all(&objects, args.force, &bar)?;
    bar.finish_and_clear();
    let names: Vec<_> = objects.iter().map(|object| &object.sha).collect();
    context.say(json!({"objects": Value::from(names.iter().map(|sha| sha.as_str()).collect::<Vec<_>>())}), || {
        format!("{} objects are there", objects.len())
    });
    Ok(())
}
