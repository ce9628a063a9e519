//! A server that speaks the protocol of devices and hubs as far as `pvr` can tell, and records every request.
//!
//! It holds a state and objects. Its faults are set field by field: each makes it do one wrong thing, a counted number
//! of times or always. What it takes is checked as a server of the original would check it.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

/// What the server holds, what it does wrong and what it was told.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) state: Value,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    /// Bodies of posted revisions.
    pub(crate) posted: Vec<Value>,
    /// Every request, in the order in which they came.
    pub(crate) seen: Vec<Seen>,
    /// It is a hub: its trail is `/trails/t1`, behind `/user/device`.
    pub(crate) is_hub: bool,
    /// It is a device of the original, which says nothing of ours.
    pub(crate) is_original: bool,
    /// Objects that came in part, if it knows how to go on with them.
    pub(crate) parts: Option<BTreeMap<String, Vec<u8>>>,
    /// What it answers to a posted revision instead of taking it.
    pub(crate) refuse: Option<(u16, Value)>,
    /// Answers 503 this often to uploads, and with this `Retry-After`.
    pub(crate) busy: u32,
    pub(crate) retry_after: Option<u32>,
    /// Flips a bit in every object that is fetched.
    pub(crate) damage: bool,
    /// Breaks this many downloads after so many bytes.
    pub(crate) cut_downloads: u32,
    pub(crate) cut_at: usize,
    /// Breaks this many uploads after so many bytes of their body.
    pub(crate) cut_uploads: u32,
    /// Sends whole objects whatever range is asked for.
    pub(crate) no_ranges: bool,
    /// Packs JSON with gzip for those who take it.
    pub(crate) gzip: bool,
    /// Tokens that it takes; none means that it asks nobody.
    pub(crate) tokens: Vec<&'static str>,
    /// The token that a login gives.
    pub(crate) login: Option<&'static str>,
    /// Says of every object that it is a link to another owner's.
    pub(crate) links: bool,
    /// Answers to these requests (`GET /path`) with exactly these bytes.
    pub(crate) scripted: BTreeMap<String, Vec<u8>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A server on a port of its own.
pub(crate) struct Hub {
    pub(crate) url: String,
    world: Arc<Mutex<World>>,
}

/// What is sent back.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection breaks after so many bytes of the body.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None }
    }

    fn json(status: u16, value: &Value) -> Self {
        Self::new(status, value.to_string())
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Hub {
    pub(crate) fn start(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(world));
        let shared = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        Self { url, world }
    }

    /// What it holds and was told. The server waits while it is looked at.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The requests since the last look: method and path.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.world().seen.drain(..).map(|seen| seen.line).collect()
    }
}

/// Serves one connection until it ends.
fn serve(stream: &TcpStream, world: &Mutex<World>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((mut seen, length)) = head(&mut reader) {
        assert!(!seen.headers.contains_key("transfer-encoding"), "devices need a Content-Length");
        if seen.header("expect") == "100-continue" {
            let _ = (&mut &*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut guard = world.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_upload = seen.line.starts_with("PUT ") && seen.line.contains("/blobs/");
        if is_upload && guard.cut_uploads > 0 && length > guard.cut_at {
            guard.cut_uploads -= 1;
            let (mut part, sha) = (vec![0; guard.cut_at], blob(&seen.line));
            reader.read_exact(&mut part).unwrap();
            let from = range(seen.header("content-range")).map_or(0, |(from, _)| from);
            if let Some(parts) = &mut guard.parts {
                let have = parts.entry(sha).or_default();
                assert_eq!(have.len(), from, "the client goes on where it was told");
                have.extend(part);
            }
            guard.seen.push(seen);
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        seen.body = vec![0; length];
        if reader.read_exact(&mut seen.body).is_err() {
            return;
        }
        let scripted = guard.scripted.get(&seen.line).cloned();
        let reply = match scripted {
            None => guard.answer(&seen),
            Some(bytes) => {
                guard.seen.push(seen);
                drop(guard);
                let _ = (&mut &*stream).write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Write);
                // Whatever the client still sends is not waited for.
                return;
            }
        };
        guard.seen.push(seen);
        drop(guard);
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        let sent = (&mut &*stream).write_all(&[head.as_bytes(), b"\r\n", &reply.body[..end]].concat());
        if reply.cut.is_some() || sent.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// The head of a request and the length of its body.
fn head(reader: &mut impl BufRead) -> Option<(Seen, usize)> {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let line = format!("{} {}", words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    Some((Seen { line, headers, body: Vec::new() }, length))
}

fn blob(line: &str) -> String {
    line.rsplit('/').next().unwrap().to_owned()
}

/// First byte and size of a `Content-Range`.
fn range(text: &str) -> Option<(usize, usize)> {
    let (bytes, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((bytes.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
}

pub(crate) fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl World {
    /// A device or a hub with this state and no objects.
    pub(crate) fn of(state: Value) -> Self {
        Self { state, ..Self::default() }
    }

    fn answer(&mut self, seen: &Seen) -> Reply {
        let (method, path) = seen.line.split_once(' ').unwrap();
        if path == "/auth/login" {
            return self.log_in(method, seen);
        }
        let is_blob = path.contains("/blobs/");
        if is_blob && self.is_hub {
            assert!(!seen.headers.contains_key("authorization"), "a signed address needs no token, and gets none");
        } else if let Some(refused) = self.asks(seen) {
            return refused;
        }
        let reply = self.serve(method, path, seen);
        if self.gzip && !is_blob && seen.header("accept-encoding").contains("gzip") {
            return Reply { body: gzip(&reply.body), ..reply.with("Content-Encoding", "gzip") };
        }
        reply
    }

    /// Whether a request needs a token that it does not carry.
    fn asks(&self, seen: &Seen) -> Option<Reply> {
        let token = seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        let is_good = self.tokens.contains(&token) && (token != "nobody" || seen.line.starts_with("GET"));
        if self.tokens.is_empty() || is_good {
            return None;
        }
        let host = seen.header("host");
        let error = if token.is_empty() { "" } else { ", error=\"invalid_token\"" };
        let challenge = format!("JWT realm=\"pantahub services\", ph-aeps=\"http://{host}/auth\"{error}");
        Some(Reply::json(401, &json!({"Error": "Not Authorized"})).with("WWW-Authenticate", challenge))
    }

    fn log_in(&self, method: &str, seen: &Seen) -> Reply {
        assert!(!seen.header("user-agent").is_empty());
        assert_eq!(seen.header("content-type"), "application/json; charset=utf-8");
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        match self.login {
            Some("nobody") if method == "POST" => {
                let nobody = "prn:pantahub.com:auth:/anon";
                let scope = "devices.readonly objects.readonly trails.readonly";
                assert_eq!(body, json!({"username": nobody, "password": nobody, "scope": scope}));
                Reply::json(200, &json!({"token": "nobody"}))
            }
            Some(token) if method == "GET" => {
                assert_eq!(seen.header("authorization"), format!("Bearer {}", body["token"].as_str().unwrap()));
                Reply::json(200, &json!({"token": token}))
            }
            _ => Reply::json(401, &json!({"Error": "Not Authorized"})),
        }
    }

    fn serve(&mut self, method: &str, path: &str, seen: &Seen) -> Reply {
        let host = seen.header("host");
        let base = if self.is_hub { String::new() } else { "/cgi-bin/pvr".into() };
        let Some(path) = path.strip_prefix(&base) else {
            return Reply::json(400, &json!({"Error": "unknown endpoint", "code": "SB1506"}));
        };
        let url = format!("http://{host}{base}");
        let step = if self.is_hub { "/trails/t1/steps/7" } else { "/trails/t1/steps/-1" };
        match (method, path.split('/').skip(1).collect::<Vec<_>>().as_slice()) {
            ("GET", [".pvrremote"] | ["user", "device", ".pvrremote"] | ["trails", "t1", ".pvrremote"]) => {
                Reply::json(200, &self.endpoints(&url, step))
            }
            ("GET", ["trails", "t1", "steps", _]) => {
                Reply::json(200, &json!({"id": "t1-7", "rev": 7, "trail-id": "t1", "state": self.state}))
            }
            ("GET", ["trails", "t1", "steps", _, "state"]) => Reply::json(200, &self.state),
            ("PUT", ["trails", "t1", "steps", _, "state"]) => {
                self.state = serde_json::from_slice(&seen.body).unwrap();
                Reply::json(200, &self.state)
            }
            ("GET", [.., "objects", sha]) if self.objects.contains_key(*sha) => {
                // One absolute and one relative address: both are allowed.
                let size = self.objects[*sha].len().to_string();
                Reply::json(200, &json!({"id": sha, "size": size, "signed-geturl": format!("{base}/blobs/{sha}")}))
            }
            ("POST", [.., "objects", ""]) => self.announced(&url, seen),
            ("GET", ["blobs", sha]) if self.objects.contains_key(*sha) => self.download(sha, seen),
            ("PUT", ["blobs", _]) if self.busy > 0 => {
                self.busy -= 1;
                let reply = Reply::json(503, &json!({"Error": "busy", "code": "SB1512"}));
                match self.retry_after {
                    Some(seconds) => reply.with("Retry-After", seconds.to_string()),
                    None => reply,
                }
            }
            ("PUT", ["blobs", sha]) => self.upload(sha, seen),
            ("POST", ["trails", "t1", "steps"]) => self.post(seen),
            _ => Reply::json(404, &json!({"Error": "no such object on this device", "code": "SB1210", "key": path})),
        }
    }

    fn endpoints(&self, url: &str, step: &str) -> Value {
        let mut info = json!({"pvr-spec": "pvr-pantahub-1", "json-get-url": format!("{url}{step}/state"), "json-key": "state",
            "objects-endpoint": format!("{url}{step}/objects"), "post-url": format!("{url}/trails/t1/steps"),
            "post-fields": ["commit-msg"], "post-fields-opt": ["rev"], "step-get-url": format!("{url}{step}")});
        if !self.is_hub && !self.is_original {
            info["switchback.access"] = json!("open");
        }
        info
    }

    fn announced(&self, url: &str, seen: &Seen) -> Reply {
        assert_eq!(seen.header("content-type"), "application/json; charset=utf-8");
        let record: Value = serde_json::from_slice(&seen.body).unwrap();
        let sha = record["sha256sum"].as_str().unwrap();
        assert!(record["size"].is_string() && record["objectname"].is_string());
        let mut answer = record.clone();
        answer["signed-puturl"] = json!(format!("{url}/blobs/{sha}"));
        if self.objects.contains_key(sha) || self.links {
            let kind = if self.links { "link" } else { "object" };
            return Reply::json(409, &answer).with("Pantahub-Object-Type", kind);
        }
        if let Some(part) = self.parts.as_ref().and_then(|parts| parts.get(sha)) {
            answer["switchback.upload-offset"] = json!(part.len());
        }
        Reply::json(200, &answer).with("Pantahub-Object-Type", "object")
    }

    fn download(&mut self, sha: &str, seen: &Seen) -> Reply {
        let mut content = self.objects[sha].clone();
        if self.damage {
            content[0] ^= 1;
        }
        let asked = seen.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let tag = format!("\"{sha}\"");
        let same = ["", &tag].contains(&seen.header("if-range"));
        let mut reply = match asked.and_then(|from| from.parse::<usize>().ok()).filter(|_| !self.no_ranges && same) {
            Some(from) if from >= content.len() => Reply::new(416, ""),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                Reply::new(206, &content[from..]).with("Content-Range", range).with("ETag", tag)
            }
            None => Reply::new(200, content).with("ETag", tag),
        };
        if self.cut_downloads > 0 {
            self.cut_downloads -= 1;
            reply.cut = Some(self.cut_at);
        }
        reply
    }

    fn upload(&mut self, name: &str, seen: &Seen) -> Reply {
        let mut content = seen.body.clone();
        if let Some((from, size)) = range(seen.header("content-range")) {
            let part = self.parts.as_mut().expect("nobody told the client that it may").remove(name).unwrap();
            assert_eq!((part.len(), part.len() + content.len()), (from, size));
            content = [part, content].concat();
        }
        if sha(&content) != name {
            return Reply::json(400, &json!({"Error": "wrong hash"}));
        }
        self.objects.insert(name.to_owned(), content);
        Reply::new(200, "")
    }

    fn post(&mut self, seen: &Seen) -> Reply {
        assert_eq!(seen.header("content-type"), "text/plain; charset=utf-8");
        if let Some((status, answer)) = &self.refuse {
            return Reply::json(*status, answer);
        }
        self.posted.push(serde_json::from_slice(&seen.body).unwrap());
        let sha = "0123456789abcdef";
        Reply::json(
            200,
            &match self.is_hub {
                true => json!({"rev": 8, "state-sha": sha, "trail-id": "t1"}),
                false => json!({"rev": -1, "revlocal": "locals/a", "state-sha": sha, "trail-id": "local"}),
            },
        )
    }
}
