//! What a request's head asks for.
//!
//! The same things are found below `/cgi-bin/pvr`, `/cgi-bin` and the bare host: the original's commands are written with
//! either. Words are compared whole. What is not listed is refused, whatever the control socket would make of it.

use super::{documents::STEP_MAX, page};
use runtime::{
    fault::{Code, Refusal},
    http::{Head, Method, media},
    id::{ObjectId, RevName},
    limits,
};

/// Below which paths everything is. The first is the one in our answers.
pub(super) const BASE: &str = "/cgi-bin/pvr";

/// A body that is read before it is known what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// The record of an object that the client wants to send.
    Record,
    /// A revision.
    Step,
    /// The secret of a pairing code.
    Pair,
}

/// A request to the device.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// Bytes of the client's body that follow.
    pub(super) stream: u64,
    pub(super) then: Then,
}

impl Ask {
    pub(super) fn get(path: String, then: Then) -> Self {
        Self { method: "GET", path, body: Vec::new(), stream: 0, then }
    }
}

/// An object that a client wants to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    /// How long it is, if the client says so.
    pub(super) size: Option<u64>,
}

/// What is done with the device's answer.
#[derive(Debug)]
pub(super) enum Then {
    /// It is the client's.
    Relay(&'static str),
    /// It says whether an object is there; if `announced`, its absence is good news.
    Probe { object: ObjectId, announced: Option<Announced> },
    /// An object's content, from this byte on.
    Content { first: u64 },
    /// An object of this size arrives.
    Arriving { object: ObjectId, size: u64 },
    /// A revision was staged.
    Staged(Step),
    /// Its message was stored.
    Described(Step),
    /// It runs.
    Running(Step),
}

/// A posted revision.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) rev: RevName,
    pub(super) message: String,
    pub(super) state_sha: ObjectId,
}

/// What a head asks for.
#[derive(Debug)]
pub(super) enum Route {
    /// A file of the page.
    Page(&'static page::File),
    Text(&'static str),
    /// The page, at this origin.
    Elsewhere(String),
    Remote,
    Body(Wanted, usize),
    Ask(Ask),
    /// The rest of an object arrives, from this byte on.
    GoOn {
        object: ObjectId,
        first: u64,
        size: u64,
    },
}

impl Route {
    /// Whether a stranger may have it: what tells nothing of what runs here, and what makes a stranger known.
    pub(super) fn is_public(&self) -> bool {
        matches!(self, Self::Page(_) | Self::Text(_) | Self::Remote | Self::Body(Wanted::Pair, _))
    }
}

pub(super) fn route(head: &Head<'_>) -> Result<Route, Refusal> {
    let all: Vec<&str> = head.path.split('/').filter(|word| !word.is_empty()).collect();
    let words = match &all[..] {
        ["cgi-bin", "pvr", rest @ ..] | ["cgi-bin", rest @ ..] => rest,
        rest => rest,
    };
    let object = |name: &str| ObjectId::parse(name).ok_or(Refusal::key(Code::ObjectName, name));
    let no_body = head.length.unwrap_or(0) == 0;
    Ok(match (head.method, words) {
        (Method::Get, []) if all.is_empty() => Route::Page(&page::INDEX),
        (Method::Get, []) => Route::Text("Switchback. pvr clone and pvr post work here.\n"),
        (Method::Get, ["page.css"]) => Route::Page(&page::STYLE),
        (Method::Get, ["page.js"]) => Route::Page(&page::SCRIPT),
        (Method::Get, [what @ ("status" | "containers" | "groups" | "limits" | "buildinfo")]) => {
            let media = if *what == "buildinfo" { media::TEXT } else { media::JSON };
            Route::Ask(Ask::get(format!("/{what}"), Then::Relay(media)))
        }
        (Method::Post, ["rollback"]) if no_body => {
            let (path, then) = ("/rollback".into(), Then::Relay(media::JSON));
            Route::Ask(Ask { method: "POST", path, body: Vec::new(), stream: 0, then })
        }
        (Method::Post, ["pair"]) => body(head, Wanted::Pair, 1024, Code::BodyTooLarge)?,
        (Method::Get, [".pvrremote"]) => Route::Remote,
        (Method::Get, ["state"]) => Route::Ask(Ask::get("/steps/current".into(), Then::Relay(media::JSON))),
        (Method::Get, ["steps"]) => Route::Ask(Ask::get("/steps".into(), Then::Relay(media::JSON))),
        (Method::Get, ["steps", rest @ ..]) => {
            let (name, progress) = match rest {
                [name @ .., "progress"] => (name.join("/"), "/progress"),
                name => (name.join("/"), ""),
            };
            if name != "current" {
                RevName::parse(&name).map_err(|_| Refusal::key(Code::RevisionName, &name))?;
            }
            Route::Ask(Ask::get(format!("/steps/{name}{progress}"), Then::Relay(media::JSON)))
        }
        (Method::Get, ["objects", name]) => {
            let object = object(name)?;
            Route::Ask(Ask::get(format!("/objects/{object}"), Then::Probe { object, announced: None }))
        }
        (Method::Get, ["objects", name, "content"]) => {
            let then = head.first.map_or(Then::Relay(media::BYTES), |first| Then::Content { first });
            Route::Ask(Ask::get(format!("/objects/{}", object(name)?), then))
        }
        (Method::Put, ["objects", name] | ["objects", name, "content"]) => {
            let object = object(name)?;
            let stream = head.length.ok_or(Code::LengthRequired)?;
            match head.part {
                Some((first, size)) if size - first != stream => return Err(Code::RequestInvalid.into()),
                Some((first, size)) if first > 0 => Route::GoOn { object, first, size },
                _ => {
                    let (path, then) = (format!("/objects/{object}"), Then::Arriving { object, size: stream });
                    Route::Ask(Ask { method: "PUT", path, body: Vec::new(), stream, then })
                }
            }
        }
        (Method::Post, ["objects"]) => body(head, Wanted::Record, limits::HTTP_BODY_MAX as u64, Code::BodyTooLarge)?,
        (Method::Post, ["steps"]) => body(head, Wanted::Step, STEP_MAX, Code::StateTooLarge)?,
        (_, [] | [".pvrremote" | "state" | "steps" | "objects", ..])
        | (_, ["status" | "containers" | "groups" | "limits" | "buildinfo" | "rollback" | "pair"]) => {
            return Err(Refusal::key(Code::MethodWrong, head.path));
        }
        _ => return Err(Refusal::key(Code::EndpointUnknown, head.path)),
    })
}

fn body(head: &Head<'_>, what: Wanted, most: u64, over: Code) -> Result<Route, Refusal> {
    match head.length {
        None => Err(Code::LengthRequired.into()),
        Some(length) if length > most => Err(Refusal::at(over, usize::try_from(most).unwrap_or(0))),
        Some(length) => Ok(Route::Body(what, length as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::http::HostRule;

    fn routed(line: &str) -> Result<Route, Code> {
        let text = format!("{line} HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        let head = Head::parse(text.as_bytes(), HostRule::Any).unwrap().unwrap();
        route(&head).map_err(|refusal| refusal.code)
    }

    #[test]
    fn everything_is_below_each_of_the_three_bases() {
        for base in ["", "/cgi-bin", "/cgi-bin/pvr"] {
            for (line, path) in [
                ("GET /state", "/steps/current"),
                ("GET /steps/current/progress", "/steps/current/progress"),
                ("GET /status", "/status"),
                ("POST /rollback", "/rollback"),
            ] {
                let line = line.replacen(" /", &format!(" {base}/"), 1);
                assert!(matches!(routed(&line), Ok(Route::Ask(ask)) if ask.path == path), "{line}");
            }
            assert!(matches!(routed(&format!("GET {base}/.pvrremote")), Ok(Route::Remote)));
            assert!(matches!(routed(&format!("POST {base}/objects/")), Ok(Route::Body(Wanted::Record, 0))));
        }
        assert!(matches!(routed("GET /"), Ok(Route::Page(_))));
        assert!(matches!(routed("GET /cgi-bin"), Ok(Route::Text(_))), "scripts probe it");
        for line in
            ["GET /cgi-bin/pvrx/state", "GET /cgi-binx/state", "GET /pvr/state", "GET /endpoint", "POST /commands"]
        {
            assert_eq!(routed(line).err(), Some(Code::EndpointUnknown), "{line}");
        }
        assert_eq!(routed("POST /endpoint/pair").err(), Some(Code::EndpointUnknown), "nobody pairs himself");
        assert_eq!(routed("GET /rollback").err(), Some(Code::MethodWrong));
    }

    #[test]
    fn strangers_see_nothing_of_what_runs() {
        for line in ["GET /", "GET /page.js", "GET /cgi-bin", "GET /.pvrremote", "POST /pair"] {
            assert!(routed(line).unwrap().is_public(), "{line}");
        }
        for line in ["GET /state", "GET /status", "POST /rollback", "GET /steps", "POST /objects/", "POST /steps"] {
            assert!(!routed(line).unwrap().is_public(), "{line}");
        }
    }
}
