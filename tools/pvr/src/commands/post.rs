//! `pvr post`.

use crate::{
    canonical::{self, CANONICAL},
    commands::Context,
    device,
    error::{Error, Result},
    remote::{Reference, Remote},
    repo::{self, Repo, State},
};
use clap::Parser;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

/// Send the committed state to a device, which tries it
///
/// Uploads the objects that the device does not have, then the state. What the device could not read is refused
/// before anything is sent. Returns when the device has accepted the revision; `pvcontrol status` there, or
/// `pvr control status` for the emulator, shows how it fares.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr post http://192.168.1.7:12368 -m 'new page'
  pvr post 192.168.1.7
  pvr post")]
pub(super) struct Args {
    /// The device: URL or IP address [default: the one that was last posted to]
    #[arg(value_name = "DEVICE")]
    to: Option<String>,
    /// What the revision is about
    #[arg(long = "commit-msg", visible_alias = "message", short)]
    message: Option<String>,
    /// Name of the new revision: a number, or locals/NAME
    #[arg(long, default_value = "-1", hide_default_value = true, allow_hyphen_values = true)]
    rev: String,
    /// Further members of the request, as a JSON object
    #[arg(long, short, value_name = "JSON")]
    envelope: Option<String>,
    /// Upload objects although the device has them
    #[arg(long, short)]
    force: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let to = args.to.clone().or_else(|| repo.url("DefaultPostUrl"));
    let to = to.ok_or_else(|| Error::usage("no device given").hint("pvr post http://ADDRESS:12368"))?;
    let reference = Reference::parse(&to)?;
    let state = repo.pristine()?;
    repo::check_keys(&state)?;
    let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
    let files = files_to_send(&repo, &state)?;
    let remote = Remote::find(&reference.url, context.access_token.as_deref())?;
    if remote.is_device {
        device::check(&repo, text.as_bytes(), args.message.as_deref())?;
    }
    let request = request(args, &state, remote.state_key())?;
    send_objects(context, args, &repo, &remote, files)?;
    let answer = remote.post_step(request.as_bytes())?;
    repo.remember(&reference.url, &["DefaultPostUrl"])?;
    let (rev, sha, trail) = accepted(&answer)?;
    let short = sha.get(..8).unwrap_or(&sha);
    context.say(json!({"revision": rev, "state-sha": sha, "trail-id": trail}), || {
        format!("Successfully posted Revision {rev} ({short}) to device id {trail}")
    });
    Ok(())
}

/// Each object of the state with one of its names and its size. An object that is not here cannot be sent.
fn files_to_send(repo: &Repo, state: &State) -> Result<BTreeMap<String, (String, u64)>> {
    let mut files = BTreeMap::new();
    for (key, value) in repo::entries(state) {
        let Some(sha) = repo::object_of(key, value)? else { continue };
        let size = fs::metadata(repo.object(sha)).map_err(|e| {
            let hint = "`pvr commit` the file again, or clone the device anew";
            Error::input(format!("object {sha} of {key} is not in the pool: {e}")).hint(hint)
        })?;
        files.insert(sha.to_owned(), (key.clone(), size.len()));
    }
    Ok(files)
}

/// Sends what the device's running state does not have.
fn send_objects(
    context: &Context,
    args: &Args,
    repo: &Repo,
    remote: &Remote,
    mut files: BTreeMap<String, (String, u64)>,
) -> Result<()> {
    if !args.force {
        let there = repo::objects(&remote.state()?)?;
        files.retain(|sha, _| !there.contains(sha));
    }
    let bar = context.bar("uploading", files.values().map(|(_, size)| size).sum());
    for (sha, (name, size)) in &files {
        match remote.announce(name, sha, *size, args.force)? {
            Some(url) => remote.upload(&url, name, &repo.object(sha), &bar)?,
            None => bar.inc(*size),
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// The body that posts the revision, in canonical form.
fn request(args: &Args, state: &State, state_key: &str) -> Result<String> {
    let mut body = match &args.envelope {
        None => State::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(envelope)) => envelope,
            _ => return Err(Error::usage("--envelope is not a JSON object")),
        },
    };
    if let Some(message) = &args.message {
        body.insert("commit-msg".into(), json!(message));
    }
    match args.rev.parse::<i64>() {
        Ok(0) => {}
        Ok(number) => drop(body.insert("rev".into(), json!(number))),
        Err(_) => {
            runtime::id::RevName::parse(&args.rev).map_err(|_| {
                Error::usage(format!("{} is not the name of a revision", args.rev)).hint("a number, or locals/NAME")
            })?;
            body.insert("rev".into(), json!(args.rev));
        }
    }
    body.insert(state_key.to_owned(), Value::Object(state.clone()));
    canonical::write(&Value::Object(body), CANONICAL)
}

/// Name, state hash and trail of an accepted revision.
fn accepted(answer: &Value) -> Result<(String, String, String)> {
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let rev = match answer["rev"].as_i64() {
        Some(-1) => text("revlocal"),
        Some(number) => Some(number.to_string()),
        None => None,
    };
    match (rev, text("state-sha"), text("trail-id")) {
        (Some(rev), Some(sha), Some(trail)) => Ok((rev, sha, trail)),
        _ => Err(Error::remote(format!("the revision was accepted with an answer that is not understood: {answer}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rev: &str) -> Args {
        Args::parse_from(["post", "-m", "x", "--rev", rev, "-e", r#"{"a":1.0}"#])
    }

    #[test]
    fn the_request_is_canonical_and_names_the_revision() {
        let state = State::from_iter([("#spec".to_owned(), json!("s"))]);
        let body = |rev| request(&args(rev), &state, "state");
        assert_eq!(body("-1").unwrap(), r##"{"a":1,"commit-msg":"x","rev":-1,"state":{"#spec":"s"}}"##);
        assert_eq!(body("0").unwrap(), r##"{"a":1,"commit-msg":"x","state":{"#spec":"s"}}"##);
        assert!(body("locals/x").unwrap().contains(r#""rev":"locals/x""#));
        assert!(body("locals/../x").is_err());
    }

    #[test]
    fn answers_of_devices_and_hubs() {
        let accept = |value| accepted(&value).map(|(rev, ..)| rev).map_err(|e| e.kind);
        assert_eq!(
            accept(json!({"rev": -1, "revlocal": "locals/a", "state-sha": "s", "trail-id": "t"})),
            Ok("locals/a".into())
        );
        assert_eq!(accept(json!({"rev": 7, "state-sha": "s", "trail-id": "t"})), Ok("7".into()));
        assert!(accept(json!({"rev": "7"})).is_err());
    }
}
