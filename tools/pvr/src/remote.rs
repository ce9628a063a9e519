//! Devices and trails of hubs: finding their endpoints, reading states, posting revisions.
//!
//! One protocol serves both: `<url>/.pvrremote` names the endpoints of state, objects and steps. Nothing that comes
//! from the other side is believed: an object is kept only under the hash of what arrived (`download`), a state only
//! if its keys are plain paths. A refusal is shown with the other side's code and text.

mod download;
mod upload;

pub use upload::{Outgoing, outgoing};

use crate::{
    error::{Error, Result},
    http::{Access, Answer, Client, Content, Options, Request, address},
    reference::DEVICE_PATH,
    repo::State,
};
use serde_json::Value;
use ureq::http::Uri;

/// A device or a trail of a hub.
pub struct Remote {
    client: Client,
    /// What its relative addresses are relative to.
    base: Uri,
    info: Value,
    /// Whether it is a device itself, whose limits are known.
    pub is_device: bool,
}

impl Remote {
    /// Asks for the endpoints. A bare `http://device:12368` is a device, and so is its `/cgi-bin`.
    pub fn find(options: &Options, url: &str) -> Result<Self> {
        let client = Client::new(options, url)?;
        let uri = address::parse(url)?;
        let mut places = vec![url.trim_end_matches('/').to_owned()];
        if matches!(uri.path().trim_end_matches('/'), "" | "/cgi-bin") {
            places.push(address::join(&uri, DEVICE_PATH)?.to_string());
        }
        let mut first = None;
        for place in places {
            let answer = client.call(&Request::new("GET", &format!("{place}/.pvrremote"), Access::Read))?;
            if let Some(info) = endpoints(&answer) {
                let is_device =
                    place.contains(DEVICE_PATH) || info["post-url"].as_str().is_some_and(|u| u.contains(DEVICE_PATH));
                let base = address::parse(&place)?;
                if info["switchback.access"] == "open"
                    && !matches!(base.host(), Some("127.0.0.1" | "localhost" | "[::1]"))
                {
                    eprintln!(
                        "note: this device is open to everybody who reaches it, in plain HTTP: for development only"
                    );
                }
                return Ok(Self { client, base, info, is_device });
            }
            first.get_or_insert(answer);
        }
        Err(match first {
            Some(answer) if answer.status == 200 => {
                Error::remote(format!("{url}/.pvrremote is not what a device or a trail answers"))
                    .hint("is it the address of a device or of a trail?")
            }
            Some(answer) => refused_remote(url, &answer),
            None => Error::remote(format!("{url} was not asked")),
        })
    }

    /// Something with an objects endpoint and nothing else.
    pub fn objects_only(options: &Options, endpoint: &str) -> Result<Self> {
        let info = serde_json::json!({"objects-endpoint": endpoint});
        Ok(Self { client: Client::new(options, endpoint)?, base: address::parse(endpoint)?, info, is_device: false })
    }

    /// Whether it is a device of this project, which refuses what is refused here; others may take more.
    pub fn is_ours(&self) -> bool {
        self.is_device
            && self.info.as_object().is_some_and(|info| info.keys().any(|key| key.starts_with("switchback.")))
    }

    /// What `.pvrremote` answered.
    pub fn info(&self) -> &Value {
        &self.info
    }

    /// The state that is there now.
    pub fn state(&self) -> Result<State> {
        match serde_json::from_slice(&self.state_text()?) {
            Ok(Value::Object(state)) => Ok(state),
            other => {
                let url = self.endpoint("json-get-url")?;
                // A hub says so of a step that it does not have.
                let none = matches!(other, Ok(Value::Null));
                let what = if none { "has no state" } else { "did not answer with a state" };
                Err(Error::remote(format!("{url} {what}")).hint("is there such a revision?"))
            }
        }
    }

    /// The same as it is stored there.
    pub fn state_text(&self) -> Result<Vec<u8>> {
        let answer = self.client.call(&Request::new("GET", &self.endpoint("json-get-url")?, Access::Read))?;
        match answer.status {
            200 => Ok(answer.body),
            _ => Err(answer.refusal("the state could not be read")),
        }
    }

    /// The step whose state `json-get-url` gives.
    pub fn step(&self) -> Result<Value> {
        let state = self.endpoint("json-get-url")?;
        let parent = state.trim_end_matches('/').rsplit_once('/').map_or(state.as_str(), |(parent, _)| parent);
        let url = match self.info["step-get-url"].as_str() {
            Some(url) if !url.is_empty() => self.resolve(url)?,
            _ => parent.to_owned(),
        };
        let answer = self.client.call(&Request::new("GET", &url, Access::Read))?;
        match serde_json::from_slice(&answer.body) {
            _ if answer.status != 200 => Err(answer.refusal("the step could not be read")),
            Ok(step @ Value::Object(_)) => Ok(step),
            _ => Err(Error::remote(format!("{url} did not answer with a step"))),
        }
    }

    /// Posts a revision, in canonical form; the other side's answer.
    pub fn post_step(&self, body: &[u8]) -> Result<Value> {
        let url = self.endpoint("post-url")?;
        let request =
            Request { content: Content::Text(body), only_if_asked: true, ..Request::new("POST", &url, Access::Write) };
        let answer = self.client.call(&request)?;
        if answer.status != 200 {
            return Err(answer.refusal("the revision was refused"));
        }
        serde_json::from_slice(&answer.body).map_err(|e| {
            Error::remote(format!("{url} did not answer with JSON: {e}"))
                .hint("look there whether the revision was taken before you post it again")
        })
    }

    /// Replaces the state of a step that nobody has begun with.
    pub fn put_state(&self, body: &[u8]) -> Result<()> {
        let url = self.endpoint("json-get-url")?;
        let request = Request { content: Content::Json(body), ..Request::new("PUT", &url, Access::Write) };
        let answer = self.client.call(&request)?;
        if answer.status != 200 {
            return Err(answer.refusal("the state was refused"));
        }
        let parsed = serde_json::from_slice::<Value>(&answer.body);
        parsed.map(drop).map_err(|e| Error::remote(format!("{url} did not answer with JSON: {e}")))
    }

    /// The member of a posted revision that holds its state.
    pub fn state_key(&self) -> &str {
        self.info["json-key"].as_str().filter(|key| !key.is_empty()).unwrap_or("post")
    }

    /// What a request for content shows: a hub's addresses are permission enough; a device's are its own endpoint, which
    /// wants to know who asks.
    fn content_access(&self, url: &str) -> Access {
        let is_own = address::parse(url).is_ok_and(|uri| address::origin(&uri) == address::origin(&self.base));
        if self.is_device && is_own { Access::Write } else { Access::None }
    }

    fn endpoint(&self, name: &str) -> Result<String> {
        match self.info[name].as_str() {
            Some(url) if !url.is_empty() => self.resolve(url),
            _ => Err(Error::remote(format!("the other side names no {name}"))),
        }
    }

    /// An address of the other side, which may be without host.
    fn resolve(&self, url: &str) -> Result<String> {
        let uri = address::join(&self.base, url);
        uri.map(|uri| uri.to_string())
            .map_err(|e| Error::remote(format!("the other side names {url:?}: {}", e.message)))
    }
}

fn endpoints(answer: &Answer) -> Option<Value> {
    let info = answer.json();
    (answer.status == 200 && info["json-get-url"].is_string()).then_some(info)
}

fn refused_remote(url: &str, answer: &Answer) -> Error {
    let mut error = answer.refusal(&format!("{url} has no .pvrremote"));
    if matches!(answer.status, 400 | 404) {
        error.hint = Some("is it the address of a device or of a trail?".into());
    }
    error
}

/// How many objects are on their way at once. A device serves three transfers at a time, and lets others wait.
const WORKERS: usize = 4;

/// Does `work` for each item, a few at a time; after the first failure nothing new is begun.
fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (std::sync::atomic::AtomicUsize::new(0), std::sync::Mutex::new(None));
    let lock = || failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let worker = || {
        while lock().is_none() {
            let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) else { return };
            if let Err(error) = work(item) {
                lock().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match lock().take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
