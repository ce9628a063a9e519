//! The documents of the protocol: what clients are told, and what they say.
//!
//! Reference: pvr-and-hub 9 and 10. Addresses in answers are those by which the client called, below one base.
//! Not here: what the device says itself, which is passed on as it comes.

use super::{
    house::House,
    route::{Announced, Ask, BASE, Step, Then},
};
use runtime::{
    fault::{Code, Refusal},
    http::media,
    id::{ObjectId, RevName},
    json::{self, Kind},
    limits,
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// A posted revision: its state and what stands around it.
pub(super) const STEP_MAX: u64 = (limits::STATE_MAX + limits::HTTP_BODY_MAX) as u64;

/// How the client calls this device, for addresses in answers. A `Host` that is none makes them relative.
pub(super) fn origin(host: Option<&str>, private: bool) -> String {
    let good = |host: &&str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]_".contains(&byte))
    };
    let scheme = if private { "https" } else { "http" };
    host.filter(good).map_or(String::new(), |host| format!("{scheme}://{host}"))
}

/// Where everything is.
pub(super) fn remote(origin: &str, house: &House) -> String {
    let base = format!("{origin}{BASE}");
    let mut text = String::new();
    let mut json = json::Writer::new(&mut text);
    // writing into a string does not fail
    let _ = (|| {
        json.begin_object()?;
        json.text_member("pvr-spec", "pvr-pantahub-1")?;
        json.text_member("json-get-url", &format!("{base}/state"))?;
        json.text_member("json-key", "state")?;
        json.text_member("objects-endpoint", &format!("{base}/objects"))?;
        json.text_member("post-url", &format!("{base}/steps"))?;
        json.key("post-fields")?;
        json.begin_array()?;
        json.text("commit-msg")?;
        json.end_array()?;
        json.key("post-fields-opt")?;
        json.begin_array()?;
        json.text("rev")?;
        json.end_array()?;
        json.text_member("step-get-url", &format!("{base}/steps/current/progress"))?;
        json.text_member("switchback.name", &house.name())?;
        json.text_member("switchback.access", house.access.word())?;
        json.text_member("switchback.transport", house.transport())?;
        json.end_object()
    })();
    text
}

/// The record of an object. `held` is how much of it arrived before its client was gone.
pub(super) fn record(origin: &str, object: ObjectId, size: u64, held: Option<u64>) -> String {
    let content = format!("{origin}{BASE}/objects/{object}/content");
    let mut text = String::new();
    let mut json = json::Writer::new(&mut text);
    let _ = (|| {
        json.begin_object()?;
        for key in ["id", "storage-id", "sha256sum", "objectname"] {
            json.key(key)?;
            json.display(&object)?;
        }
        json.text_member("owner", "")?;
        json.key("size")?;
        json.display(&size)?;
        json.text_member("mime-type", media::BYTES)?;
        for key in ["signed-puturl", "signed-geturl"] {
            json.text_member(key, &content)?;
        }
        json.text_member("now", "")?;
        json.text_member("expire-time", "")?;
        if let Some(held) = held {
            json.number_member("switchback.upload-offset", held)?;
        }
        json.end_object()
    })();
    text
}

/// The answer to a posted revision.
pub(super) fn accepted(step: &Step) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "{{\"rev\":-1,\"revlocal\":\"{}\",\"state-sha\":\"{}\",\"trail-id\":\"local\",\"progress\":{{\"status\":\"NEW\"}}}}",
        step.rev.as_str(),
        step.state_sha
    );
    text
}

/// The object that a client wants to send.
pub(super) fn announced(body: &[u8]) -> Result<Ask, Refusal> {
    let value = json::Value::parse(body).map_err(|fault| Refusal::at(Code::CommandInvalid, fault.at))?;
    let record = value.object().map_err(|fault| Refusal::at(Code::CommandInvalid, fault.at))?;
    let name = record.text::<64>("sha256sum").ok().flatten();
    let object =
        name.and_then(|name| ObjectId::parse(name.as_str())).ok_or(Refusal::key(Code::ObjectName, "sha256sum"))?;
    // A number, also as text.
    let size = record.get("size").and_then(|size| match size.kind() {
        Kind::String => size.text::<20>().ok()?.as_str().parse().ok(),
        _ => core::str::from_utf8(size.raw()).ok()?.parse().ok(),
    });
    Ok(Ask::get(format!("/objects/{object}"), Then::Probe { object, announced: Some(Announced { size }) }))
}

/// The revision that a client posted.
pub(super) fn posted(body: &[u8]) -> Result<Ask, Refusal> {
    let envelope = json::Value::parse(body)?;
    let envelope = envelope.object()?;
    let missing = Refusal::key(Code::CommandInvalid, "state");
    let state = envelope.get("state").or(envelope.get("post")).filter(|state| state.kind() == Kind::Object);
    let state = state.ok_or(missing)?.raw();
    if state.len() > limits::STATE_MAX {
        return Err(Refusal::at(Code::StateTooLarge, limits::STATE_MAX));
    }
    let too_long = Refusal::at(Code::MessageTooLong, limits::COMMIT_MESSAGE_MAX);
    let message = match envelope.get("commit-msg") {
        Some(value) => {
            let mut buffer = [0; limits::COMMIT_MESSAGE_MAX];
            let text = value.string().map_err(|wrong| wrong.refuse(Code::CommandInvalid, "commit-msg"))?;
            text.copy(&mut buffer).ok_or(too_long)?.to_owned()
        }
        None => String::new(),
    };
    let state_sha = ObjectId(Sha256::digest(state).into());
    let rev = match envelope.get("rev") {
        // a number asks for the next one, or names one that is a hub's to give: the name is ours
        Some(value) if value.kind() == Kind::String => {
            let invalid = value.at();
            let name = value.text::<{ limits::REV_NAME_MAX }>().ok();
            let rev = name.and_then(|name| RevName::parse(name.as_str()).ok());
            rev.ok_or(json::Wrong { at: invalid }.refuse(Code::RevisionName, "rev"))?
        }
        _ => new_name(state_sha)?,
    };
    let (path, body) = (format!("/steps/{}", rev.as_str()), state.to_vec());
    let then = Then::Staged(Step { rev, message, state_sha });
    Ok(Ask { method: "PUT", path, body, stream: 0, then })
}

/// A name that no revision has: the clock of a device may be wrong, so it is made of the state and of chance.
fn new_name(state: ObjectId) -> Result<RevName, Refusal> {
    let mut chance = [0u8; 4];
    rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty()).map_err(|_| Code::Internal)?;
    let hex = state.to_string();
    let name = format!("locals/pvr-{}-{:08x}", hex.get(..12).unwrap_or_default(), u32::from_le_bytes(chance));
    RevName::parse(&name).map_err(|_| Code::Internal.into())
}
