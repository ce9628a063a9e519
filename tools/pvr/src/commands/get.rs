//! `pvr get` and `pvr merge`: two verbs, one way; the parts of a state are put together differently.

use crate::{
    commands::Context,
    error::{Error, Result},
    parts::Parts,
    reference::Reference,
    repo::{Repo, State, changes},
    source::Source,
};
use clap::Parser;
use serde_json::json;

/// Replace the committed state, or parts of it, by another's
///
/// Fetches the state and its objects from a device, a hub, another repository or an exported archive. `#PART,…` takes
/// only these parts: of them, what the source does not have is removed here; everything else stays. `#-PART` alone takes
/// everything but that part: the whole state becomes the source's without it, so it is gone here, too. The files of the
/// folder stay as they are: `pvr checkout` writes them.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr get http://192.168.1.7:12368
  pvr get 192.168.1.7#web,_config/web && pvr checkout
  pvr get user/device#bsp
  pvr get ../other/.pvr#web
  pvr get user/device#-bsp                the whole state is then the device's, without bsp
  pvr get web.pvrexport.tgz#web,-bsp")]
pub(super) struct GetArgs {
    #[command(flatten)]
    from: From,
}

/// Merge another's state into the committed one
///
/// As `pvr get`, but nothing is removed except what `#-PART` names: objects are replaced, and JSON documents are merged
/// member by member (RFC 7396).
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr merge http://192.168.1.7:12368#web
  pvr merge network.pvrexport.tgz && pvr checkout
  pvr merge user/device#-bsp")]
pub(super) struct MergeArgs {
    #[command(flatten)]
    from: From,
}

#[derive(Parser, Debug)]
struct From {
    /// A device's URL or IP address, USER/DEVICE, a repository's folder, or an archive; then #PART,… [default: where
    /// the repository came from]
    source: Option<String>,
}

type Combine = fn(&Parts, &State, &State) -> Result<State>;

pub(super) fn get(context: &Context, args: &GetArgs) -> Result<()> {
    run(context, "get", &args.from, Parts::get)
}

pub(super) fn merge(context: &Context, args: &MergeArgs) -> Result<()> {
    run(context, "merge", &args.from, Parts::merge)
}

fn run(context: &Context, verb: &str, args: &From, combine: Combine) -> Result<()> {
    let repo = Repo::open()?;
    // The original reads the second name here although it writes the first, too: what it wrote decides.
    let text = args.source.clone().or_else(|| repo.url("DefaultPutUrl")).or_else(|| repo.url("DefaultGetUrl"));
    let text = text.ok_or_else(|| {
        Error::usage("no source given, and the repository did not come from one").hint(format!("pvr {verb} SOURCE"))
    })?;
    let reference = Reference::parse(&text, &context.http())?;
    let _lock = repo.lock()?;
    let source = Source::open(&context.http(), &reference)?;
    let old = repo.pristine()?;
    let state = combine(&reference.parts, &old, &source.state)?;
    let bar = context.bar("downloading", 0);
    source.supply(&repo, &reference.parts, &bar)?;
    bar.finish_and_clear();
    repo.advance(&state, verb, &text)?;
    if let Some(always) = source.defaults(&["DefaultGetUrl"]) {
        repo.remember(&source.name, always)?;
    }
    let changes = changes(&old, &state)?;
    let count = changes.added.len() + changes.removed.len() + changes.changed.len();
    let report = json!({"source": source.name, "added": changes.added, "removed": changes.removed,
        "changed": changes.changed});
    context.say(report, || match count {
        0 => format!("Nothing new in {text}"),
        1 => "1 key of the committed state changed; `pvr checkout` writes the files".to_owned(),
        count => format!("{count} keys of the committed state changed; `pvr checkout` writes the files"),
    });
    Ok(())
}
