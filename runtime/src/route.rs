//! From a request's head and body to what is asked: the table of endpoints.
//!
//! Invariants: total and bounded; a request is refused before its body is read if its head says enough. Names
//! arrive as validated types. A word is compared whole: the original takes any prefix of a command's name.
//!
//! Does not do: who may ask (`machine`), bodies that are streamed. Reference: device-formats 6.2, 6.4.

use crate::{
    control::{Act, Download, Request, Upload},
    fault::{Code, Refusal},
    http::{Head, Method},
    id::{ObjectId, PartName, RevName},
    json, limits,
};

/// What has to be read before the request is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// This many bytes, into memory; then ask `request`.
    Read(usize),
    /// Nothing: the body, if any, is streamed.
    Streamed(Request),
}

/// Decides by the head alone.
pub fn body(head: &Head<'_>) -> Result<Body, Refusal> {
    match (head.method, head.path.strip_prefix('/').unwrap_or("")) {
        (Method::Put, path) if path.starts_with("objects/") => {
            let object = object(path.strip_prefix("objects/").unwrap_or(""))?;
            let length = head.length.ok_or(Code::LengthRequired)?;
            Ok(Body::Streamed(Request::Receive(Upload::Object(object), length)))
        }
        (Method::Put, path) if path.starts_with("steps/") && !path.ends_with("/commitmsg") => {
            let rev = revision(path.strip_prefix("steps/").unwrap_or(""))?;
            if !rev.is_local() {
                return Err(Refusal::key(Code::RevisionName, rev.as_str())); // other names are a hub's to give
            }
            let length = head.length.ok_or(Code::LengthRequired)?;
            if length > limits::STATE_MAX as u64 {
                return Err(Refusal::at(Code::StateTooLarge, limits::STATE_MAX));
            }
            Ok(Body::Streamed(Request::Receive(Upload::Step(rev), length)))
        }
        _ => match head.length.unwrap_or(0) {
            length if length > limits::HTTP_BODY_MAX as u64 => Err(Code::BodyTooLarge.into()),
            length => Ok(Body::Read(length as usize)),
        },
    }
}

/// The request, once its body was read.
pub fn request(head: &Head<'_>, body: &[u8]) -> Result<Request, Refusal> {
    let path = head.path.strip_prefix('/').unwrap_or("");
    let known = match head.method {
        Method::Get => get(path)?,
        Method::Post => post(path, body)?,
        Method::Put => put(path, body)?,
        _ => None,
    };
    match known {
        Some(request) => Ok(request),
        None if exists(path) => Err(Refusal::key(Code::MethodWrong, path)),
        None => Err(Refusal::key(Code::EndpointUnknown, path)),
    }
}

fn get(path: &str) -> Result<Option<Request>, Refusal> {
    Ok(Some(match path {
        "containers" => Request::Containers,
        "groups" => Request::Groups,
        "status" => Request::Status,
        "limits" => Request::Limits,
        "buildinfo" => Request::BuildInfo,
        "objects" => Request::Send(Download::Objects),
        "steps" => Request::Send(Download::Steps),
        "steps/current" => Request::Send(Download::Current),
        "steps/current/progress" => Request::Send(Download::CurrentProgress),
        _ => {
            if let Some(name) = path.strip_prefix("objects/") {
                return object(name).map(|object| Some(Request::Send(Download::Object(object))));
            }
            let Some(step) = path.strip_prefix("steps/") else { return Ok(None) };
            match step.strip_suffix("/progress") {
                Some(rev) => Request::Send(Download::Progress(revision(rev)?)),
                None => Request::Send(Download::State(revision(step)?)),
            }
        }
    }))
}

fn post(path: &str, body: &[u8]) -> Result<Option<Request>, Refusal> {
    match path {
        "signal" => signal(body).map(Some),
        "commands" => command(body).map(Some),
        "storage/gc" => Ok(Some(Request::Collect)),
        _ => Ok(None),
    }
}

fn put(path: &str, body: &[u8]) -> Result<Option<Request>, Refusal> {
    if let Some(name) = path.strip_prefix("containers/") {
        let name = PartName::parse(name).map_err(|_| Refusal::key(Code::ContainerUnknown, name))?;
        return act(body).map(|act| Some(Request::Act(name, act)));
    }
    if let Some(rev) = path.strip_prefix("steps/").and_then(|step| step.strip_suffix("/commitmsg")) {
        let rev = revision(rev)?;
        if body.len() > limits::COMMIT_MESSAGE_MAX {
            return Err(Refusal::at(Code::MessageTooLong, limits::COMMIT_MESSAGE_MAX));
        }
        return match core::str::from_utf8(body) {
            Ok(_) => Ok(Some(Request::Message(rev))),
            Err(error) => Err(Refusal::at(Code::RequestInvalid, error.valid_up_to())),
        };
    }
    Ok(None)
}

/// Whether some method has this path.
fn exists(path: &str) -> bool {
    const PATHS: [&str; 10] = [
        "containers",
        "groups",
        "status",
        "limits",
        "buildinfo",
        "objects",
        "steps",
        "signal",
        "commands",
        "storage/gc",
    ];
    PATHS.contains(&path) || ["objects/", "steps/", "containers/"].iter().any(|folder| path.starts_with(folder))
}

fn object(name: &str) -> Result<ObjectId, Refusal> {
    ObjectId::parse(name).ok_or(Refusal::key(Code::ObjectName, name))
}

fn revision(name: &str) -> Result<RevName, Refusal> {
    RevName::parse(name).map_err(|_| Refusal::key(Code::RevisionName, name))
}

fn document(body: &[u8]) -> Result<json::Object<'_>, Refusal> {
    let invalid = |at: usize| Refusal::at(Code::CommandInvalid, at);
    let value = json::Value::parse(body).map_err(|fault| invalid(fault.at))?;
    if value.kind() != json::Kind::Object {
        return Err(invalid(value.at()));
    }
    value.object().map_err(|fault| invalid(fault.at))
}

/// The text under a key that must be there.
fn word<'a>(document: &json::Object<'a>, key: &str) -> Result<json::Str<'a>, Refusal> {
    let value = document.get(key).ok_or(Refusal::key(Code::CommandInvalid, key))?;
    value.string().map_err(|wrong| wrong.refuse(Code::CommandInvalid, key))
}

fn signal(body: &[u8]) -> Result<Request, Refusal> {
    let document = document(body)?;
    match word(&document, "type")? {
        kind if kind.is("ready") => Ok(Request::Ready),
        _ => Err(Refusal::key(Code::SignalUnexpected, "type")),
    }
}

fn act(body: &[u8]) -> Result<Act, Refusal> {
    let document = document(body)?;
    let action = word(&document, "action")?;
    let table = [("start", Act::Start), ("stop", Act::Stop), ("restart", Act::Restart)];
    let known = table.into_iter().find(|(name, _)| action.is(name));
    known.map(|(_, act)| act).ok_or(Refusal::key(Code::CommandUnknown, "action"))
}

fn command(body: &[u8]) -> Result<Request, Refusal> {
    let document = document(body)?;
    let op = word(&document, "op")?;
    if document.get("payload").is_none() {
        return Err(Refusal::key(Code::CommandInvalid, "payload"));
    }
    let names = ["LOCAL_RUN", "REBOOT_DEVICE", "POWEROFF_DEVICE", "RUN_GC"];
    match names.into_iter().find(|name| op.is(name)) {
        Some("LOCAL_RUN") => {
            let payload = word(&document, "payload")?;
            let invalid = Refusal::key(Code::RevisionName, "payload");
            revision(payload.plain().ok_or(invalid)?).map(Request::Run)
        }
        Some("REBOOT_DEVICE") => Ok(Request::Reboot),
        Some("POWEROFF_DEVICE") => Ok(Request::PowerOff),
        Some("RUN_GC") => Ok(Request::Collect),
        _ => Err(Refusal::key(Code::CommandUnknown, "op")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HostRule;

    const SHA: &str = "00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef";

    /// Routes a request as it comes from a client.
    fn ask(method: &str, path: &str, content: &str) -> Result<Request, Code> {
        let text = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{content}", content.len());
        let head = Head::parse(text.as_bytes(), HostRule::Local).unwrap().unwrap();
        match body(&head).map_err(|refusal| refusal.code)? {
            Body::Read(length) => {
                assert_eq!(length, content.len());
                request(&head, content.as_bytes()).map_err(|refusal| refusal.code)
            }
            Body::Streamed(request) => Ok(request),
        }
    }

    #[test]
    fn every_endpoint_is_found() {
        let (rev, object) = (RevName::parse("locals/a").unwrap(), ObjectId::parse(SHA).unwrap());
        let objects = format!("/objects/{SHA}");
        let run = r#"{"op":"LOCAL_RUN","payload":"locals/a"}"#;
        let web = PartName::parse("web").unwrap();
        let table = [
            ("GET", "/status", "", Request::Status),
            ("GET", "/containers", "", Request::Containers),
            ("GET", "/groups", "", Request::Groups),
            ("GET", "/limits", "", Request::Limits),
            ("GET", "/buildinfo", "", Request::BuildInfo),
            ("GET", "/objects", "", Request::Send(Download::Objects)),
            ("GET", "/steps", "", Request::Send(Download::Steps)),
            ("GET", "/steps/current", "", Request::Send(Download::Current)),
            ("GET", "/steps/current/progress", "", Request::Send(Download::CurrentProgress)),
            ("GET", "/steps/locals/a", "", Request::Send(Download::State(rev))),
            ("GET", "/steps/locals/a/progress", "", Request::Send(Download::Progress(rev))),
            ("GET", &objects, "", Request::Send(Download::Object(object))),
            ("PUT", &objects, "abc", Request::Receive(Upload::Object(object), 3)),
            ("PUT", "/steps/locals/a", "{}", Request::Receive(Upload::Step(rev), 2)),
            ("PUT", "/steps/locals/a/commitmsg", "why", Request::Message(rev)),
            ("PUT", "/containers/web", r#"{"action":"restart"}"#, Request::Act(web, Act::Restart)),
            ("POST", "/signal", r#"{"type":"ready","payload":""}"#, Request::Ready),
            ("POST", "/commands", run, Request::Run(rev)),
            ("POST", "/commands", r#"{"op":"REBOOT_DEVICE","payload":""}"#, Request::Reboot),
            ("POST", "/commands", r#"{"op":"POWEROFF_DEVICE","payload":""}"#, Request::PowerOff),
            ("POST", "/commands", r#"{"op":"RUN_GC","payload":""}"#, Request::Collect),
            ("POST", "/storage/gc", "", Request::Collect),
        ];
        for (method, path, content, wanted) in table {
            assert_eq!(ask(method, path, content), Ok(wanted), "{method} {path}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(limits::COMMIT_MESSAGE_MAX + 1);
        let table = [
            ("GET", "/", "", Code::EndpointUnknown),
            ("GET", "/nothing", "", Code::EndpointUnknown),
            ("DELETE", "/status", "", Code::MethodWrong),
            ("POST", "/containers", "", Code::MethodWrong),
            ("GET", "/signal", "", Code::MethodWrong),
            ("GET", "/objects/abc", "", Code::ObjectName),
            ("GET", "/steps/../x", "", Code::RevisionName),
            ("PUT", "/steps/7", "{}", Code::RevisionName),
            ("PUT", "/steps/locals/../x", "{}", Code::RevisionName),
            ("PUT", "/steps/locals/a/commitmsg", &long, Code::MessageTooLong),
            ("PUT", "/containers/..", r#"{"action":"stop"}"#, Code::ContainerUnknown),
            ("PUT", "/containers/web", r#"{"action":"jump"}"#, Code::CommandUnknown),
            ("POST", "/commands", "", Code::CommandInvalid),
            ("POST", "/commands", r#"{"op":"R","payload":""}"#, Code::CommandUnknown),
            ("POST", "/commands", r#"{"op":"REBOOT_DEVICE"}"#, Code::CommandInvalid),
            ("POST", "/commands", r#"{"op":"LOCAL_RUN","payload":7}"#, Code::CommandInvalid),
            ("POST", "/commands", r#"{"op":"LOCAL_RUN","payload":"../x"}"#, Code::RevisionName),
            ("POST", "/signal", r#"{"type":"alive"}"#, Code::SignalUnexpected),
        ];
        for (method, path, content, code) in table {
            assert_eq!(ask(method, path, content), Err(code), "{method} {path} {content}");
        }
    }

    #[test]
    fn a_length_is_needed_where_a_body_is_streamed_and_bounded_everywhere() {
        let refuse = |text: &str| {
            let head = Head::parse(text.as_bytes(), HostRule::Local).unwrap().unwrap();
            body(&head).unwrap_err().code
        };
        assert_eq!(refuse(&format!("PUT /objects/{SHA} HTTP/1.1\r\n\r\n")), Code::LengthRequired);
        assert_eq!(refuse("PUT /steps/locals/a HTTP/1.1\r\nContent-Length: 999999\r\n\r\n"), Code::StateTooLarge);
        assert_eq!(refuse("POST /commands HTTP/1.1\r\nContent-Length: 4097\r\n\r\n"), Code::BodyTooLarge);
    }
}
