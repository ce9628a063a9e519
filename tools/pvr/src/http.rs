//! HTTP as `pvr` speaks it: one client for devices and hubs, with everything that may go wrong bounded.
//!
//! Invariants: a token never leaves for a service that it was not meant for, also not by a redirect; no answer makes us
//! hold more than `ANSWER_MAX` bytes, packed or unpacked; every request ends: connecting, each read and each write
//! have a time limit, redirects and repetitions are counted, a busy server is asked again for `BUSY` at most.
//! Fault model: the other side, and everything between, may stop, lie, repeat itself or send rubbish at any byte.
//! What cannot be understood is an error that names the address; a refusal is an answer like others.
//! Not here: what the requests mean (`remote`), objects (`remote::download`, `remote::upload`).

pub mod address;
mod auth;
mod proxy;

pub use auth::Access;

use crate::{
    error::{During, Error, Kind, Result},
    pinned::{self, Device, Paired, Pin},
};
use auth::{Challenge, Tokens, Way};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use ureq::{
    Agent, Body, RequestBuilder, SendBody,
    http::{HeaderMap, Response, Uri},
    tls::{RootCerts, TlsConfig},
    typestate::WithBody,
};

/// Connecting to something that is there takes milliseconds, to a sleeping one seconds.
const CONNECT: Duration = Duration::from_secs(10);
/// No single read or write takes longer, not even on a device whose storage is busy.
const SILENCE: Duration = Duration::from_secs(90);
/// An answer that is held in memory has come as a whole by then, however it trickles.
const WHOLE: Duration = Duration::from_secs(300);
/// How long a busy server is asked again.
const BUSY: Duration = Duration::from_secs(60);
/// The longest pause that a busy server gets, whatever it asks for.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// State JSON, records and errors are small; a hub's states are larger than a device's.
pub const ANSWER_MAX: u64 = 16 << 20;
/// Heads of answers.
const HEAD_MAX: usize = 64 << 10;
/// More redirects than this lead nowhere.
const REDIRECTS_MAX: u32 = 5;
/// How often a request is repeated that a closing connection swallowed.
const LOST_MAX: u32 = 2;
/// A body from which on the server is asked first whether it wants it.
const ASK_FIRST: u64 = 1 << 20;
/// What `--debug` shows of a body.
const SHOWN: usize = 2000;

/// What the user set for all requests.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Used for every request of the user's, instead of what is stored.
    pub access_token: Option<String>,
    /// Where `auth.json` is.
    pub config_dir: PathBuf,
    /// Address of the hub's API.
    pub baseurl: String,
    /// Address below which USER/DEVICE is looked up.
    pub repo_baseurl: String,
    /// `system`, `no`, or the URL of a proxy.
    pub proxy: String,
    /// Do not check certificates.
    pub insecure: bool,
    /// Show requests and answers.
    pub debug: bool,
}

impl Options {
    /// Whether an address belongs to the hub that was configured.
    fn is_base(&self, uri: &Uri) -> bool {
        let bases = [&self.baseurl, &self.repo_baseurl].map(|base| address::parse(base).ok());
        bases.iter().flatten().any(|base| address::is_same(base, uri))
    }

    /// Whether what two addresses know of the user is known to one owner: they are one service, or both were
    /// configured, which a hub's API and its repositories need. Not if one of them is without the other's TLS.
    fn is_one_hub(&self, one: &Uri, other: &Uri) -> bool {
        let is_apart = address::is_downgrade(one, other) || address::is_downgrade(other, one);
        address::is_same(one, other) || !is_apart && self.is_base(one) && self.is_base(other)
    }
}

/// What a request carries.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// Nothing.
    None,
    /// JSON.
    Json(&'a [u8]),
    /// A posted revision, which the original calls text.
    Text(&'a [u8]),
    /// A file, or the rest of it.
    File {
        /// Where it is.
        path: &'a Path,
        /// The first byte that is sent.
        from: u64,
        /// Hears of what was sent.
        progress: &'a (dyn Fn(u64) + Sync),
    },
}

/// A request.
#[derive(Clone)]
pub struct Request<'a> {
    /// `GET`, `POST` or `PUT`.
    pub method: &'static str,
    /// Whole address.
    pub url: &'a str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub content: Content<'a>,
    /// What it shows of the user.
    pub access: Access,
    /// A busy server is asked again only if it says when.
    pub only_if_asked: bool,
    /// This token and no other.
    pub(crate) bearer: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A request without body.
    pub fn new(method: &'static str, url: &'a str, access: Access) -> Self {
        Self { method, url, headers: Vec::new(), content: Content::None, access, only_if_asked: false, bearer: None }
    }
}

/// An answer, whole.
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, unpacked.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The error that this answer is.
    pub fn refusal(&self, what: &str) -> Error {
        let mut error = refusal(what, self.status, &self.body);
        if let Some(seconds) = self.header("retry-after").and_then(|text| text.trim().parse::<u32>().ok()) {
            error.message += &format!("; it asks to wait {seconds} s");
        }
        error
    }
}

/// The client.
pub struct Client {
    plain: Agent,
    tls: Agent,
    direct: Agent,
    /// For the paired device that the user named.
    pinned: Option<Agent>,
    paired: Option<Device>,
    options: Options,
    /// Where the user's token may go besides the hub that was configured.
    named: Option<Uri>,
    tokens: Tokens,
}

impl Client {
    /// A client for what the user named.
    pub fn new(options: &Options, url: &str) -> Result<Self> {
        let named = address::parse(url).ok();
        let paired = match &named {
            Some(uri) => Paired::load(&options.config_dir)?.at(uri).cloned(),
            None => None,
        };
        let pin = match paired.as_ref().map(|device| &device.fingerprint) {
            Some(Some(print)) => {
                Some(Pin::from_hex(print).ok_or_else(|| Error::input("a stored certificate's hash is damaged"))?)
            }
            Some(None) => {
                eprintln!(
                    "WARNING: this device was paired over plain HTTP; whoever listens on the way reads the token"
                );
                None
            }
            None => None,
        };
        Ok(Self { paired, named, ..Self::pinned(options, pin)? })
    }

    /// A client for whoever shows a certificate that is pinned, if one is.
    pub fn pinned(options: &Options, pin: Option<Arc<Pin>>) -> Result<Self> {
        let config = |proxy| {
            // Without `--insecure` the system decides whom it trusts, as for curl and git.
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::PlatformVerifier)
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .disable_verification(options.insecure);
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_response_header_size(HEAD_MAX)
                .timeout_connect(Some(CONNECT))
                .timeout_resolve(Some(CONNECT))
                .timeout_per_read(Some(SILENCE))
                .timeout_per_write(Some(SILENCE))
                .timeout_recv_response(Some(WHOLE))
                .tls_config(tls.build())
                .proxy(proxy)
                .user_agent(concat!("pvr/", env!("CARGO_PKG_VERSION")));
            config.build()
        };
        let agent = |proxy| config(proxy).new_agent();
        if options.insecure {
            eprintln!("WARNING: --insecure: nobody checks who the other side is; what is sent can be read and changed");
        }
        Ok(Self {
            plain: agent(proxy::of(&options.proxy, "http")?),
            tls: agent(proxy::of(&options.proxy, "https")?),
            direct: agent(None),
            pinned: pin.map(|pin| pinned::agent(config(None), pin)).transpose()?,
            paired: None,
            options: options.clone(),
            named: None,
            tokens: Tokens::default(),
        })
    }

    /// Sends a request and reads its answer.
    pub fn call(&self, request: &Request<'_>) -> Result<Answer> {
        let mut lost = 0;
        loop {
            match self.open(request).and_then(|answer| self.read(request.url, answer)) {
                Err(Failure::Lost(_)) if request.is_repeatable() && lost < LOST_MAX => {
                    lost += 1;
                    std::thread::sleep(Duration::from_millis(300));
                }
                outcome => return outcome.map_err(Failure::error),
            }
        }
    }

    /// Sends a request; the answer's body is still to be read.
    pub(crate) fn open(&self, request: &Request<'_>) -> Tried<Response<Body>> {
        let mut uri = address::parse(request.url)?;
        let (mut way, mut redirects) = (Way::Stored, 0);
        let mut token = match request.bearer {
            Some(token) => Some(token.to_owned()),
            None => self.token(&uri, request.access),
        };
        let until = Instant::now() + BUSY;
        loop {
            let answer = self.send(request, &uri, token.as_deref())?;
            match answer.status().as_u16() {
                301 | 302 | 303 | 307 | 308 if redirects < REDIRECTS_MAX => {
                    redirects += 1;
                    let to = redirected(request, &uri, &answer)?;
                    if request.bearer.is_some() && !address::is_same(&uri, &to) {
                        // The body of such a request holds the token as well.
                        return Err(Error::remote(format!("{uri} leads to {to}, where no token is shown")).into());
                    }
                    uri = to;
                    token = self.token(&uri, request.access);
                }
                status @ (301 | 302 | 303 | 307 | 308) => {
                    let text = format!("{} leads from one address to the next (HTTP {status})", request.url);
                    return Err(Error::remote(text).hint("is there a loop at the other side?").into());
                }
                401 | 403 if request.access != Access::None && self.options.access_token.is_none() => {
                    let Some(challenge) = Challenge::read(answer.headers()) else { return Ok(answer) };
                    let used = token.as_deref();
                    match self.tokens.next(self, &uri, &challenge, used, request.access, &mut way)? {
                        Some(next) => token = Some(next),
                        None => return Ok(answer),
                    }
                }
                503 => match pause(&answer, request.only_if_asked) {
                    Some(pause) if Instant::now() + pause < until => std::thread::sleep(pause),
                    _ => return Ok(answer),
                },
                _ => return Ok(answer),
            }
        }
    }

    /// What a request to `uri` carries at first: to a paired device what it gave us, and to nobody else.
    fn token(&self, uri: &Uri, access: Access) -> Option<String> {
        match self.paired_at(uri) {
            Some(device) if access != Access::None && self.options.access_token.is_none() => Some(device.token.clone()),
            _ => self.tokens.of(self, uri, access),
        }
    }

    fn paired_at(&self, uri: &Uri) -> Option<&Device> {
        self.paired.as_ref().filter(|device| device.is_at(uri))
    }

    /// One request and the head of its answer.
    fn send(&self, request: &Request<'_>, uri: &Uri, token: Option<&str>) -> Tried<Response<Body>> {
        let url = uri.to_string();
        let is_pinned = self.paired.is_none() || self.paired_at(uri).is_some();
        let agent = match uri.scheme_str() {
            _ if self.pinned.is_some() && is_pinned => self.pinned.as_ref().unwrap_or(&self.direct),
            _ if proxy::is_direct(&self.options.proxy, uri) => &self.direct,
            Some("https") => &self.tls,
            _ => &self.plain,
        };
        self.show(|| format!("> {} {url}{}", request.method, if token.is_some() { " (with token)" } else { "" }));
        let bytes = |builder: RequestBuilder<WithBody>, kind: &str, bytes: &[u8]| {
            self.show(|| format!("> {}", shown(bytes)));
            builder.header("Content-Type", kind).send(bytes)
        };
        let with_body = |method: &str| match method {
            "PUT" => agent.put(&url),
            "POST" => agent.post(&url),
            _ => agent.get(&url).force_send_body(),
        };
        let headers =
            request.headers.clone().into_iter().chain(token.map(|t| ("Authorization", format!("Bearer {t}"))));
        let outcome = match request.content {
            Content::None if request.method == "GET" => {
                headers.fold(agent.get(&url), |builder, (name, value)| builder.header(name, value)).call()
            }
            content => {
                let builder =
                    headers.fold(with_body(request.method), |builder, (name, value)| builder.header(name, value));
                match content {
                    Content::None => builder.send_empty(),
                    Content::Json(body) => bytes(builder, "application/json; charset=utf-8", body),
                    Content::Text(body) => bytes(builder, "text/plain; charset=utf-8", body),
                    Content::File { path, from, progress } => {
                        return self.send_file(builder, &url, path, from, progress);
                    }
                }
            }
        };
        self.opened(&url, outcome)
    }

    fn send_file(
        &self,
        builder: RequestBuilder<WithBody>,
        url: &str,
        path: &Path,
        from: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Tried<Response<Body>> {
        let open = || {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(from)).map(|_| (file, length.saturating_sub(from)))
        };
        let (file, length) = open().during(|| format!("read {}", path.display()))?;
        let mut builder = builder.header("Content-Length", length.to_string());
        if length >= ASK_FIRST {
            // A server that is full, or wants nothing, says so before all of it was sent.
            builder = builder.header("Expect", "100-continue");
        }
        let mut counted = Counted { from: file.take(length), progress };
        self.opened(url, builder.send(SendBody::from_reader(&mut counted)))
    }

    fn opened(&self, url: &str, outcome: std::result::Result<Response<Body>, ureq::Error>) -> Tried<Response<Body>> {
        let answer = outcome.map_err(|e| Failure::of(url, &e))?;
        self.show(|| {
            let headers =
                answer.headers().iter().map(|(name, value)| format!("\n< {name}: {}", shown(value.as_bytes())));
            format!("< {}{}", answer.status(), headers.collect::<String>())
        });
        Ok(answer)
    }

    /// The whole answer, within bounds.
    fn read(&self, url: &str, answer: Response<Body>) -> Tried<Answer> {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let (mut body, until) = (Vec::new(), Instant::now() + WHOLE);
        // The client's own limit counts what comes in; what it unpacks to is counted here.
        let mut reader = answer.into_body().into_with_config().limit(ANSWER_MAX).reader();
        let mut chunk = vec![0; 64 << 10];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => body.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::of(url, &ureq::Error::from(e))),
            }
            if body.len() as u64 > ANSWER_MAX {
                let text = format!("{url} answers with more than {} MiB", ANSWER_MAX >> 20);
                return Err(Error::remote(text).hint("that is no state and no record").into());
            }
            if Instant::now() > until {
                return Err(Failure::Lost(Error::remote(format!("{url} does not come to the end of its answer"))));
            }
        }
        self.show(|| format!("< {}", shown(&body)));
        Ok(Answer { status, headers, body })
    }

    /// Whether the user's own token may go there: to what was named, and to the hub that was configured.
    fn is_trusted(&self, uri: &Uri) -> bool {
        let Some(named) = &self.named else { return self.options.is_base(uri) };
        address::is_same(named, uri) || self.options.is_base(uri) && !address::is_downgrade(named, uri)
    }

    fn show(&self, text: impl FnOnce() -> String) {
        if self.options.debug {
            eprintln!("{}", text());
        }
    }
}

/// Where a redirect leads. Only what has no body of a file, or one that may be sent again, follows it.
fn redirected(request: &Request<'_>, from: &Uri, answer: &Response<Body>) -> Result<Uri> {
    let status = answer.status().as_u16();
    let target = answer.headers().get("location").and_then(|value| value.to_str().ok());
    let target =
        target.ok_or_else(|| Error::remote(format!("{from} leads elsewhere (HTTP {status}) but not where")))?;
    let to =
        address::join(from, target).map_err(|e| Error::remote(format!("{from} leads elsewhere: {}", e.message)))?;
    if address::is_downgrade(from, &to) {
        return Err(Error::remote(format!("{from} leads to {to}, which is not protected by TLS")));
    }
    if request.method != "GET" && !matches!(status, 307 | 308) {
        let text = format!("{from} does not take a {}: it leads to {to} (HTTP {status})", request.method);
        return Err(Error::remote(text).hint("use that address"));
    }
    Ok(to)
}

/// How long a busy server is left alone; nothing if it is not asked again.
fn pause(answer: &Response<Body>, only_if_asked: bool) -> Option<Duration> {
    let asked = answer.headers().get("retry-after").map(|value| {
        // The other form, a date, is as good as no number.
        value.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    });
    match asked {
        Some(seconds) => Some(Duration::from_secs(seconds).clamp(Duration::from_millis(100), PAUSE_MAX)),
        None if only_if_asked => None,
        None => Some(Duration::from_secs(1)),
    }
}

impl Request<'_> {
    /// Whether doing it twice is doing it once: everything but a posted revision.
    fn is_repeatable(&self) -> bool {
        !matches!(self.content, Content::Text(_)) && !matches!(self.content, Content::File { .. })
    }
}

/// An answer, or why there is none.
pub(crate) type Tried<T> = std::result::Result<T, Failure>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection broke or fell silent: another try may go better.
    Lost(Error),
    /// Another try ends in the same way.
    Final(Error),
}

impl Failure {
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Lost(error) | Self::Final(error) => error,
        }
    }

    /// What the client says, told to people.
    pub(crate) fn of(url: &str, e: &ureq::Error) -> Self {
        use ureq::Error as E;
        let error = Error::remote(format!("cannot talk to {url}: {e}"));
        let error = match e {
            E::Rustls(_) | E::Tls(_) => {
                error.hint("is its certificate one that this machine trusts? (--insecure asks nobody)")
            }
            E::BodyExceedsLimit(_) => error.hint("that is no state and no record"),
            E::Protocol(_) | E::LargeResponseHeader(..) | E::Decompress(..) => error.hint("what it says is not HTTP"),
            E::InvalidProxyUrl | E::ConnectProxyFailed(_) => {
                error.hint("is the proxy right? --http-proxy no goes without")
            }
            _ => error.hint("is it running, and its address right?"),
        };
        match e {
            // Nobody is there: a second try finds nobody either.
            E::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => Self::Final(error),
            E::Io(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Self::Final(error.hint("is its certificate one that this machine trusts? (--insecure asks nobody)"))
            }
            E::Io(_) | E::Timeout(_) | E::ConnectionFailed | E::BodyStalled => Self::Lost(error),
            _ => Self::Final(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Tells how much was read.
struct Counted<'a, R> {
    from: R,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        (self.progress)(n as u64);
        Ok(n)
    }
}

/// What the other side said, as `{"Error", "code", "key", "at"}`, as a hub's `{"msg"}` or as whatever it is.
pub(crate) fn refusal(what: &str, status: u16, body: &[u8]) -> Error {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = answer["Error"].as_str().or(answer["msg"].as_str()).or(answer["error"].as_str());
    // A page for a browser tells nobody anything here.
    let page = body.trim_ascii_start().starts_with(b"<");
    let raw = || if page { "a web page".to_owned() } else { shown(&body[..body.len().min(200)]) };
    let mut text = text.map_or_else(raw, |text| shown(text.as_bytes()));
    match &answer["code"] {
        Value::String(code) if !text.starts_with(code.as_str()) => text = format!("{code}: {text}"),
        Value::Number(code) if code.as_u64() != Some(u64::from(status)) => text = format!("{text} ({code})"),
        _ => {}
    }
    if let Some(key) = answer["key"].as_str().filter(|k| !k.is_empty() && !text.contains(k)) {
        text += &format!(" ({})", shown(key.as_bytes()));
    }
    if let Some(at) = answer["at"].as_u64().filter(|at| *at > 0) {
        text += &format!(" at byte {at}");
    }
    let kind = if status < 400 { Kind::Remote } else { Kind::Refused };
    let error = Error::new(kind, format!("{what}: HTTP {status}: {text}"));
    match status {
        401 => error.hint(
            "it wants to know who you are. A device: `pvr device pair ADDRESS`; a hub: --access-token TOKEN, or \
             PVR_ACCESSTOKEN",
        ),
        403 => error.hint("this is not yours, or the token is not good for it: --access-token TOKEN"),
        404 => error.hint("is the address right, and the revision still there?"),
        503 => error.hint("it is busy, perhaps with an update; wait until that is done, then try again"),
        507 => error.hint("its storage is full: make room there, then do the same again; what is there stays"),
        _ => error,
    }
}

/// Text of the other side, fit for a terminal: in one line and without control characters.
fn shown(bytes: &[u8]) -> String {
    crate::shown::shown(String::from_utf8_lossy(bytes).trim()).chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_show_code_text_key_and_byte() {
        let body = br#"{"Error":"a container names a group","code":"SB1105","key":"web/run.json","at":12}"#;
        let error = refusal("the revision was refused", 422, body);
        assert_eq!(error.kind, Kind::Refused);
        assert_eq!(
            error.message,
            "the revision was refused: HTTP 422: SB1105: a container names a group (web/run.json) at byte 12"
        );
        assert_eq!(refusal("no", 404, b" \n<!DOCTYPE html>\n<p>lost").message, "no: HTTP 404: a web page");
        let headers = HeaderMap::from_iter([("retry-after".parse().unwrap(), "30".parse().unwrap())]);
        let busy = Answer { status: 503, headers, body: b"busy".to_vec() };
        assert_eq!(busy.refusal("no").message, "no: HTTP 503: busy; it asks to wait 30 s");
        let hub = br#"{"error":"REST-ERR-ID-1","msg":"No Access","code":403}"#;
        assert_eq!(refusal("no", 403, hub).message, "no: HTTP 403: No Access");
        assert_eq!(refusal("no", 500, b"\x1b[31mred").message, "no: HTTP 500: \\u{1b}[31mred");
    }

    #[test]
    fn tokens_stay_where_they_belong() {
        let options = Options {
            baseurl: "https://api.example.org".into(),
            repo_baseurl: "https://pvr.example.org".into(),
            access_token: Some("secret".into()),
            proxy: "no".into(),
            ..Options::default()
        };
        let client = Client::new(&options, "http://192.168.1.7:12368").unwrap();
        let goes = |url: &str| client.tokens.of(&client, &address::parse(url).unwrap(), Access::Write).is_some();
        assert!(
            goes("http://192.168.1.7:12368/x") && goes("https://api.example.org/x") && goes("https://pvr.example.org/")
        );
        assert!(!goes("http://api.example.org/x"), "not without TLS");
        assert!(!goes("http://192.168.1.7/") && !goes("https://192.168.1.7:12368/"), "another port is another service");
        assert!(!goes("https://api.example.org:8443/"));
        assert!(!goes("https://evil.example/x") && !goes("https://api.example.org.evil.example/"));
        let none = client.tokens.of(&client, &address::parse("https://api.example.org").unwrap(), Access::None);
        assert_eq!(none, None);
    }

    #[test]
    fn one_hub_is_one_service_or_what_was_configured() {
        let one_hub = |bases: [&str; 2], one: &str, other: &str| {
            let [baseurl, repo_baseurl] = bases.map(str::to_owned);
            let options = Options { baseurl, repo_baseurl, ..Options::default() };
            let [one, other] = [one, other].map(|url| address::parse(url).unwrap());
            assert_eq!(options.is_one_hub(&one, &other), options.is_one_hub(&other, &one));
            options.is_one_hub(&one, &other)
        };
        let tls = ["https://api.example.org", "https://pvr.example.org"];
        assert!(one_hub(tls, "https://pvr.example.org/x", "https://api.example.org:443/auth"));
        assert!(one_hub(tls, "http://device:12368/x", "http://device:12368/auth"), "whoever it is");
        for stranger in ["http://pvr.example.org", "https://pvr.example.org:444", "https://other.example.org"] {
            assert!(!one_hub(tls, stranger, "https://api.example.org/auth"), "{stranger}");
        }
        let plain = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
        assert!(one_hub(plain, "http://127.0.0.1:2/x", "http://127.0.0.1:1/auth"), "as configured");
        assert!(!one_hub(plain, "http://127.0.0.1:3/x", "http://127.0.0.1:1/auth"));
        let mixed = ["https://api.example.org", "http://pvr.example.org"];
        assert!(!one_hub(mixed, "http://pvr.example.org/x", "https://api.example.org/auth"), "not out of TLS");
    }
}
