//! Devices and hubs over HTTP: finding the endpoints, moving objects, posting a revision.
//!
//! One protocol serves both: `<url>/.pvrremote` names the endpoints of state, objects and steps. Nothing that comes
//! from the other side is believed: an object is kept only under the hash of what arrived, a state only if its keys
//! are plain paths. A refusal is shown with the other side's code and text.
//! Not done: TLS, logging in to a hub, resuming a transfer.

use crate::{
    error::{During, Error, Kind, Result},
    repo::{Repo, State},
};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Read,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};
use ureq::{Agent, Body, SendBody, http::Response};

/// Connecting to something that is there takes milliseconds, to a sleeping one seconds.
const CONNECT: Duration = Duration::from_secs(10);
/// No single read or write takes longer, not even on a device whose storage is busy.
const SILENCE: Duration = Duration::from_secs(90);
/// How long a busy device is asked again for an upload.
const BUSY: Duration = Duration::from_secs(60);
/// State JSON, records and errors are small; a hub's states are larger than a device's.
const ANSWER_MAX: u64 = 16 << 20;
/// Where a device's endpoint is below a bare address.
const DEVICE_PATH: &str = "/cgi-bin/pvr";

/// What the user named, split: address and the parts after `#`.
#[derive(Debug, PartialEq, Eq)]
pub struct Reference {
    /// Address without a `/` at the end.
    pub url: String,
    /// Parts of the state that are meant; none means all.
    pub parts: Vec<String>,
}

impl Reference {
    /// Reads an argument: a URL, or the address of a device.
    pub fn parse(text: &str) -> Result<Self> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let parts = fragment.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let url = match place.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("http://{ip}:12368{DEVICE_PATH}"),
            Ok(IpAddr::V6(ip)) => format!("http://[{ip}]:12368{DEVICE_PATH}"),
            Err(_) => place.trim_end_matches('/').to_owned(),
        };
        if url.starts_with("https://") || !url.contains("://") && url.split('/').count() == 2 {
            let hint = "devices are reached by http://ADDRESS:12368";
            return Err(Error::usage(format!("{place}: hubs and https are not supported yet")).hint(hint));
        }
        if url.strip_prefix("http://").is_none_or(str::is_empty) {
            return Err(Error::usage(format!("{text} is not an address"))
                .hint("for a device: http://ADDRESS:12368, or its IP address"));
        }
        Ok(Self { url, parts })
    }
}

/// A device or a trail of a hub.
pub struct Remote {
    agent: Agent,
    token: Option<String>,
    origin: String,
    info: Value,
    /// Whether it is a device itself, whose limits are known.
    pub is_device: bool,
}

impl Remote {
    /// Asks for the endpoints. A bare `http://device:12368` is a device.
    pub fn find(url: &str, token: Option<&str>) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .user_agent(concat!("pvr/", env!("CARGO_PKG_VERSION")));
        // A proxy cannot reach what is on this machine or next to it.
        let config = if is_near(url) { config.proxy(None) } else { config };
        let mut remote = Self {
            agent: config.build().new_agent(),
            token: token.map(str::to_owned),
            origin: origin(url),
            info: Value::Null,
            is_device: url.contains(DEVICE_PATH),
        };
        let (status, body) = remote.get(&format!("{url}/.pvrremote"))?;
        if let Some(info) = endpoints(status, &body) {
            remote.is_device |= info["post-url"].as_str().is_some_and(|u| u.contains(DEVICE_PATH));
            remote.info = info;
            return Ok(remote);
        }
        if !remote.is_device {
            let (status, body) = remote.get(&format!("{url}{DEVICE_PATH}/.pvrremote"))?;
            if let Some(info) = endpoints(status, &body) {
                remote.is_device = true;
                remote.info = info;
                return Ok(remote);
            }
        }
        Err(refusal(&format!("{url} has no .pvrremote"), status, &body)
            .hint("is it the address of a device or of a trail?"))
    }

    /// The state that is there now.
    pub fn state(&self) -> Result<State> {
        let url = self.endpoint("json-get-url")?;
        let (status, body) = self.get(&url)?;
        if status != 200 {
            return Err(refusal("the state could not be read", status, &body));
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(state)) => Ok(state),
            _ => Err(Error::remote(format!("{url} did not answer with a state"))),
        }
    }

    /// Fetches an object into the pool. Damage on the way is noticed, and nothing is kept of it.
    pub fn fetch(&self, repo: &Repo, sha: &str, bar: &ProgressBar) -> Result<()> {
        let (status, body) =
            self.get(&format!("{}/{sha}", self.endpoint("objects-endpoint")?.trim_end_matches('/')))?;
        let record: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(url) = record["signed-geturl"].as_str().filter(|_| status == 200) else {
            return Err(refusal(&format!("object {sha} cannot be had"), status, &body));
        };
        let url = self.resolve(url);
        let answer = self.agent.get(&url).call().map_err(|e| unreachable(&url, e))?;
        if answer.status() != 200 {
            let status = answer.status().as_u16();
            return Err(refusal(&format!("object {sha} cannot be had"), status, &read(&url, answer)?));
        }
        let content = answer.into_body().into_with_config().limit(u64::MAX).reader();
        repo.store_from(&mut Counted { from: content, bar }, &format!("object {sha}"), Some(sha)).map(drop)
    }

    /// Announces an object; where its content is to be put, or nothing if it is there already.
    pub fn announce(&self, name: &str, sha: &str, size: u64, force: bool) -> Result<Option<String>> {
        let record = json!({"id": "", "storage-id": "", "owner": "", "objectname": name, "sha256sum": sha,
            "size": size.to_string(), "mime-type": "application/octet-stream", "signed-puturl": "",
            "signed-geturl": "", "now": "", "expire-time": ""});
        let url = format!("{}/", self.endpoint("objects-endpoint")?.trim_end_matches('/'));
        let busy_until = Instant::now() + BUSY;
        let (status, body) = loop {
            let answer = self.post(&url, "application/json; charset=utf-8", record.to_string().as_bytes())?;
            match answer {
                (503, _) if Instant::now() < busy_until => std::thread::sleep(Duration::from_secs(1)),
                answer => break answer,
            }
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let target = answer["signed-puturl"].as_str().filter(|u| !u.is_empty()).map(|u| self.resolve(u));
        match (status, target) {
            (200, Some(url)) => Ok(Some(url)),
            (409, Some(url)) if force => Ok(Some(url)),
            (409, _) => Ok(None),
            (status, _) => Err(refusal(&format!("object {sha} ({name}) was not accepted"), status, &body)),
        }
    }

    /// Sends an object's content.
    pub fn upload(&self, url: &str, name: &str, path: &Path, bar: &ProgressBar) -> Result<()> {
        let (start, busy_until) = (bar.position(), Instant::now() + BUSY);
        loop {
            let file = File::open(path).during(|| format!("read {}", path.display()))?;
            let length = file.metadata().during(|| format!("look at {}", path.display()))?.len();
            let mut counted = Counted { from: file, bar };
            let request = self.agent.put(url).header("Content-Length", length.to_string());
            let answer = request.send(SendBody::from_reader(&mut counted)).map_err(|e| unreachable(url, e))?;
            match answer.status().as_u16() {
                200 => return Ok(()),
                503 if Instant::now() < busy_until => {
                    bar.set_position(start);
                    std::thread::sleep(Duration::from_secs(1));
                }
                status => return Err(refusal(&format!("{name} was not accepted"), status, &read(url, answer)?)),
            }
        }
    }

    /// Posts a revision; the other side's answer.
    pub fn post_step(&self, body: &[u8]) -> Result<Value> {
        let url = self.endpoint("post-url")?;
        let (status, answer) = self.post(&url, "text/plain; charset=utf-8", body)?;
        if status == 503 {
            return Err(refusal("the other side is busy, perhaps with another update", status, &answer)
                .hint("wait until that is done (`pvcontrol status`), then post again"));
        }
        if status != 200 {
            return Err(refusal("the revision was refused", status, &answer));
        }
        serde_json::from_slice(&answer).map_err(|e| Error::remote(format!("{url} did not answer with JSON: {e}")))
    }

    /// The member of a posted revision that holds its state.
    pub fn state_key(&self) -> &str {
        self.info["json-key"].as_str().filter(|key| !key.is_empty()).unwrap_or("post")
    }

    fn endpoint(&self, name: &str) -> Result<String> {
        match self.info[name].as_str() {
            Some(url) if !url.is_empty() => Ok(self.resolve(url)),
            _ => Err(Error::remote(format!("the other side names no {name}"))),
        }
    }

    /// An address of the other side, which may be without host.
    fn resolve(&self, url: &str) -> String {
        if url.starts_with('/') { format!("{}{url}", self.origin) } else { url.to_owned() }
    }

    fn get(&self, url: &str) -> Result<(u16, Vec<u8>)> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answer = request.call().map_err(|e| unreachable(url, e))?;
        Ok((answer.status().as_u16(), read(url, answer)?))
    }

    fn post(&self, url: &str, kind: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut request = self.agent.post(url).header("Content-Type", kind);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answer = request.send(body).map_err(|e| unreachable(url, e))?;
        Ok((answer.status().as_u16(), read(url, answer)?))
    }
}

/// Counts on the way.
struct Counted<'b, R> {
    from: R,
    bar: &'b ProgressBar,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.bar.inc(n as u64);
        Ok(n)
    }
}

fn endpoints(status: u16, body: &[u8]) -> Option<Value> {
    let info: Value = serde_json::from_slice(body).ok().filter(|_| status == 200)?;
    info["json-get-url"].is_string().then_some(info)
}

/// `http://host:port` of a URL.
fn origin(url: &str) -> String {
    let host = url.strip_prefix("http://").unwrap_or(url);
    format!("http://{}", host.split('/').next().unwrap_or_default())
}

fn is_near(url: &str) -> bool {
    let host = origin(url);
    let host = host.trim_start_matches("http://");
    ["127.", "localhost", "[::1]", "10.", "192.168.", "169.254."].iter().any(|near| host.starts_with(near))
}

fn read(url: &str, answer: Response<Body>) -> Result<Vec<u8>> {
    answer.into_body().into_with_config().limit(ANSWER_MAX).read_to_vec().map_err(|e| unreachable(url, e))
}

fn unreachable(url: &str, e: ureq::Error) -> Error {
    let hint = "is the device running, and its address right?";
    Error::remote(format!("cannot talk to {url}: {e}")).hint(hint)
}

/// What the other side said, as `{"Error", "code", "key", "at"}` or as whatever it is.
fn refusal(what: &str, status: u16, body: &[u8]) -> Error {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut text = match answer["Error"].as_str() {
        Some(error) => error.to_owned(),
        None => String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect(),
    };
    match &answer["code"] {
        Value::String(code) if !text.starts_with(code.as_str()) => text = format!("{code}: {text}"),
        Value::Number(code) => text = format!("{text} ({code})"),
        _ => {}
    }
    if let Some(key) = answer["key"].as_str().filter(|k| !k.is_empty() && !text.contains(k)) {
        text += &format!(" ({key})");
    }
    if let Some(at) = answer["at"].as_u64().filter(|at| *at > 0) {
        text += &format!(" at byte {at}");
    }
    let kind = if status < 400 { Kind::Remote } else { Kind::Refused };
    Error::new(kind, format!("{what}: HTTP {status}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let parsed = |text| Reference::parse(text).map(|r| (r.url, r.parts.join("+"))).map_err(|e| e.kind);
        let good = |url: &str, parts: &str| Ok((url.to_owned(), parts.to_owned()));
        assert_eq!(parsed("192.168.1.3#hash,some"), good("http://192.168.1.3:12368/cgi-bin/pvr", "hash+some"));
        assert_eq!(parsed("http://127.0.0.1:12368/"), good("http://127.0.0.1:12368", ""));
        assert_eq!(parsed("::1"), good("http://[::1]:12368/cgi-bin/pvr", ""));
        for wrong in ["user/nick", "https://pvr.pantahub.com/user/nick", "device", "http://", "ftp://x"] {
            assert_eq!(parsed(wrong), Err(Kind::Usage), "{wrong}");
        }
    }

    #[test]
    fn refusals_show_code_text_key_and_byte() {
        let body = br#"{"Error":"a container names a group","code":"SB1105","key":"web/run.json","at":12}"#;
        let error = refusal("the revision was refused", 422, body);
        assert_eq!(error.kind, Kind::Refused);
        assert_eq!(
            error.message,
            "the revision was refused: HTTP 422: SB1105: a container names a group (web/run.json) at byte 12"
        );
        assert_eq!(refusal("no", 502, b"<html>\n").message, "no: HTTP 502: <html>");
    }
}
