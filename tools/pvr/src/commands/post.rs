//! `pvr post`.

use crate::{
    canonical::{self, CANONICAL},
    commands::Context,
    device,
    error::{Error, Result},
    reference::Reference,
    remote::{Remote, outgoing},
    repo::{self, Repo, State},
};
use clap::Parser;
use serde_json::{Value, json};

/// Send the committed state to a device, which tries it
///
/// Uploads the objects that the device does not have, then the state. What the device could not read is refused
/// before anything is sent; for a device of the original, which may take it, that is a warning. Returns when the device has accepted the revision; `pvcontrol status` there, or
/// `pvr control status` for the emulator, shows how it fares.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr post http://192.168.1.7:12368 -m 'new page'
  pvr post 192.168.1.7
  pvr post user/device --rev 12
  pvr post")]
pub(super) struct Args {
    /// The device: URL or IP address, or USER/DEVICE of a hub [default: the one that was last posted to]
    #[arg(value_name = "DEVICE")]
    to: Option<String>,
    #[command(flatten)]
    step: StepArgs,
    /// Upload objects although the device has them
    #[arg(long, short)]
    force: bool,
}

/// What stands around the state of a posted revision.
#[derive(Parser, Debug)]
pub(super) struct StepArgs {
    /// What the revision is about
    #[arg(long = "commit-msg", visible_alias = "message", short)]
    message: Option<String>,
    /// Name of the new revision: a number, or locals/NAME
    #[arg(long, default_value = "-1", hide_default_value = true, allow_hyphen_values = true)]
    rev: String,
    /// Further members of the request, as a JSON object
    #[arg(long, short, value_name = "JSON")]
    envelope: Option<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    // Before the first object is looked for: `gc` must not put it aside meanwhile.
    let _pool = repo.share()?;
    let to = args.to.clone().or_else(|| repo.url("DefaultPostUrl"));
    let to = to.ok_or_else(|| Error::usage("no device given").hint("pvr post http://ADDRESS:12368"))?;
    let (url, _) = Reference::remote(&to, &context.http())?;
    let state = repo.pristine()?;
    repo::check_keys(&state)?;
    note_uncommitted(context, &repo, &state);
    let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
    args.step.body(&state, "state")?;
    let mut objects = outgoing(&repo, &state)?;
    let remote = Remote::find(&context.http(), &url)?;
    check(context, &repo, &remote, &text, args.step.message.as_deref())?;
    let there = repo::objects(&remote.state()?)?;
    objects.retain(|object| args.force || !there.contains(&object.sha));
    let bar = context.bar("uploading", 0);
    remote.send_all(&objects, args.force, &bar)?;
    bar.finish_and_clear();
    let posted = args.step.post(context, &remote, &state);
    if posted.is_ok() {
        let _lock = repo.lock()?;
        repo.remember(&url, &["DefaultPostUrl"])?;
    }
    posted
}

/// Refuses what a device of ours would refuse. What another device would do is not known: there it is a warning. A hub
/// does not read what it passes on.
pub(super) fn check(context: &Context, repo: &Repo, remote: &Remote, text: &str, message: Option<&str>) -> Result<()> {
    if !remote.is_device {
        return Ok(());
    }
    match device::check(repo, text.as_bytes(), message) {
        Err(error) if !remote.is_ours() => {
            context.warn(&format!("warning: {}; this device is another, and may take it", error.message));
            Ok(())
        }
        checked => checked,
    }
}

/// Says that the files differ from what is sent. What cannot be read does not matter here.
pub(super) fn note_uncommitted(context: &Context, repo: &Repo, state: &State) {
    let changes = || repo::changes(state, &repo.working(state, &repo.index()?)?.state);
    if let Ok(changes) = changes() {
        let count = changes.added.len() + changes.changed.len() + changes.removed.len();
        if count > 0 {
            context
                .warn(&format!("note: {count} of the files differ from the committed state, which is sent as it is"));
        }
    }
}

impl StepArgs {
    /// Posts this state as a new revision, and says so.
    pub(super) fn post(&self, context: &Context, remote: &Remote, state: &State) -> Result<()> {
        let answer = remote.post_step(self.body(state, remote.state_key())?.as_bytes())?;
        let (rev, sha, trail) = accepted(&answer)?;
        let short = sha.get(..8).unwrap_or(&sha);
        context.say(json!({"revision": rev, "state-sha": sha, "trail-id": trail}), || {
            format!("Successfully posted Revision {rev} ({short}) to device id {trail}")
        });
        Ok(())
    }

    /// The body that posts the revision, in canonical form.
    fn body(&self, state: &State, state_key: &str) -> Result<String> {
        let mut body = match &self.envelope {
            None => State::new(),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(envelope)) => envelope,
                _ => {
                    let hint = r#"for example --envelope '{"meta":{"reason":"test"}}'"#;
                    return Err(Error::usage("--envelope is not a JSON object").hint(hint));
                }
            },
        };
        if let Some(message) = &self.message {
            body.insert("commit-msg".into(), json!(message));
        }
        match self.rev.parse::<i64>() {
            Ok(0) => {}
            Ok(number) => drop(body.insert("rev".into(), json!(number))),
            Err(_) => {
                runtime::id::RevName::parse(&self.rev).map_err(|_| {
                    Error::usage(format!("{} is not the name of a revision", self.rev)).hint("a number, or locals/NAME")
                })?;
                body.insert("rev".into(), json!(self.rev));
            }
        }
        body.insert(state_key.to_owned(), Value::Object(state.clone()));
        canonical::write(&Value::Object(body), CANONICAL)
    }
}

/// Name, state hash and trail of an accepted revision. They are shown, so they must be what they seem.
fn accepted(answer: &Value) -> Result<(String, String, String)> {
    let plain = |text: &&str| !text.is_empty() && text.len() < 256 && text.chars().all(|c| c.is_ascii_graphic());
    let text = |name: &str| answer[name].as_str().filter(plain).map(str::to_owned);
    let rev = match answer["rev"].as_i64() {
        Some(-1) => text("revlocal"),
        Some(number) => Some(number.to_string()),
        None => None,
    };
    match (rev, text("state-sha"), text("trail-id")) {
        (Some(rev), Some(sha), Some(trail)) => Ok((rev, sha, trail)),
        _ => {
            let shown: String = answer.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
            Err(Error::remote(format!("the revision was accepted with an answer that is not understood: {shown}"))
                .hint("it names no rev, state-sha or trail-id; look there what has become of the revision"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rev: &str) -> StepArgs {
        Args::parse_from(["post", "-m", "x", "--rev", rev, "-e", r#"{"a":1.0}"#]).step
    }

    #[test]
    fn the_request_is_canonical_and_names_the_revision() {
        let state = State::from_iter([("#spec".to_owned(), json!("s"))]);
        let body = |rev| args(rev).body(&state, "state");
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
        for wrong in
            [json!({"rev": "7"}), json!(null), json!([]), json!({"rev": -1, "state-sha": "s", "trail-id": "t"})]
        {
            assert!(accept(wrong).is_err());
        }
        assert!(accept(json!({"rev": 7, "state-sha": "\u{1b}[2J", "trail-id": "t"})).is_err());
    }
}
