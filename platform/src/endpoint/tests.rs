//! The whole endpoint against a control socket that answers what a test says.

mod house;
mod page;
#[cfg(feature = "tls")]
mod pvr;

use super::*;
use crate::config::Access;
use runtime::{
    http::{self, Head, HostRule, Reply, media},
    id::{ObjectId, RevName},
    json,
};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// PID 1 and the keeper, as the endpoint sees them: the other end of its channel, and what is kept.
struct Home {
    pid1: Channel,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Home {
    /// Keeps what it is told to, until the endpoint ends.
    fn serve(&self) {
        rustix::io::ioctl_fionbio(self.pid1.as_fd(), false).unwrap();
        let mut buffer = Buffer::new();
        while let Ok(Some(heard)) = self.pid1.receive(&mut buffer) {
            let answer = match heard.message {
                Message::Recall { .. } => {
                    let memory = Message::Memory { bytes: &self.kept.lock().unwrap() };
                    self.pid1.send(heard.serial, &memory, &[]).unwrap();
                    continue;
                }
                Message::Remember { bytes, .. } if bytes.len() > 1_000_000 => Message::refused(Code::NoSpace),
                Message::Remember { bytes, .. } => {
                    *self.kept.lock().unwrap() = bytes.to_vec();
                    Message::done(0)
                }
                _ => continue,
            };
            self.pid1.send(heard.serial, &answer, &[]).unwrap();
        }
    }
}

/// An endpoint in front of a control socket on which nobody listens yet.
fn endpoint(name: &str, access: Access) -> (Endpoint<'static>, SocketAddr, PathBuf, Home) {
    let control = std::env::temp_dir().join(format!("endpoint-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&control);
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (pid1, ours) = Channel::pair().unwrap();
    rustix::io::ioctl_fionbio(ours.as_fd(), true).unwrap();
    let ours: &'static Channel = Box::leak(Box::new(ours));
    let endpoint = Endpoint::new(ours, listener, control.clone(), House::new(access, "dev")).unwrap();
    (endpoint, address, control, Home { pid1, kept: Arc::default() })
}

/// Nothing of what was kept can be had, and it goes on without.
fn begin_without_memory(endpoint: &mut Endpoint<'_>) {
    let now = Instant::now();
    assert!(endpoint.house.asks(now));
    endpoint.house.recalled(now, Err(Code::StorageIo));
}

/// A minute: more than anything here takes on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

/// Turns until something is so.
fn turn_until(endpoint: &mut Endpoint<'_>, what: &str, is_so: impl Fn(&Endpoint<'_>) -> bool) {
    let until = Instant::now() + SOON;
    while !is_so(endpoint) {
        assert!(Instant::now() < until, "waited for {what}");
        endpoint.turn().unwrap();
    }
}

/// Asks until there is an answer.
fn soon<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Lets it run.
fn run(mut endpoint: Endpoint<'static>, home: Home) -> Arc<Home> {
    let home = Arc::new(home);
    let keeper = home.clone();
    thread::spawn(move || keeper.serve());
    thread::spawn(move || while endpoint.turn().unwrap() {});
    home
}

/// An endpoint that runs, in front of a device that answers each connection with `answer(request)`, which gets the
/// head and the whole body; what it was asked, in order.
fn device(name: &str, answer: impl FnMut(&str) -> String + Send + 'static) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let (address, seen, _) = device_for(name, Access::Open, answer);
    (address, seen)
}

fn device_for(
    name: &str,
    access: Access,
    mut answer: impl FnMut(&str) -> String + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<Vec<u8>>, Arc<Home>) {
    let (endpoint, address, control, home) = endpoint(name, access);
    let listener = UnixListener::bind(control).unwrap();
    let (asked, seen) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = whole_request(&mut stream) else { continue };
            let head = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            let _ = asked.send(request); // first: the client may be answered before this thread goes on
            let _ = stream.write_all(answer(&head).as_bytes());
        }
    });
    (address, seen, run(endpoint, home))
}

fn whole_request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 65536];
        let count = stream.read(&mut chunk).ok()?;
        bytes.extend_from_slice(&chunk[..count]);
        let head = Head::parse(&bytes, HostRule::Local).unwrap();
        match head.map(|head| head.size as u64 + head.length.unwrap_or(0)) {
            Some(size) if bytes.len() as u64 >= size => return Some(bytes),
            _ if count == 0 => return None,
            _ => {}
        }
    }
}

fn said(status: u16, body: &str) -> String {
    let mut text = String::new();
    http::write_head(&mut text, status, media::JSON, Some(body.len() as u64), None).unwrap();
    text + body
}

/// One request; status and body of the answer.
fn ask(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    stream.write_all(format!("{head} HTTP/1.1\r\nHost: dev:12368\r\n{length}\r\n").as_bytes()).unwrap();
    let _ = stream.write_all(body); // it may be refused before all is sent
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let reply = Reply::parse(&bytes).unwrap().unwrap();
    let text = String::from_utf8_lossy(&bytes[reply.size..]).into_owned();
    assert_eq!(reply.length, Some(text.len() as u64));
    (reply.status, text)
}

fn first_lines(seen: &mpsc::Receiver<Vec<u8>>) -> Vec<String> {
    let line = |request: Vec<u8>| String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
    seen.try_iter().map(line).collect()
}

#[test]
fn the_device_says_where_everything_is() {
    let (address, _) = device("remote", |_| said(500, ""));
    for path in ["/.pvrremote", "/cgi-bin/.pvrremote", "/cgi-bin/pvr/.pvrremote"] {
        let (status, text) = ask(address, &format!("GET {path}"), b"");
        let value = json::Value::parse(text.as_bytes()).unwrap().object().unwrap();
        let member = |key: &str| value.text::<100>(key).unwrap().unwrap().to_string();
        assert_eq!((status, member("pvr-spec").as_str()), (200, "pvr-pantahub-1"));
        assert_eq!(member("json-get-url"), "http://dev:12368/cgi-bin/pvr/state");
        assert_eq!(member("objects-endpoint"), "http://dev:12368/cgi-bin/pvr/objects");
        assert_eq!(member("post-url"), "http://dev:12368/cgi-bin/pvr/steps");
        assert_eq!(member("json-key"), "state");
    }
    assert_eq!(ask(address, "GET /cgi-bin/pvr", b"").0, 200, "scripts probe it");
    let origin = documents::origin;
    assert_eq!(origin(Some("a\"b"), false), "");
    assert_eq!(origin(None, false), "");
    assert_eq!(origin(Some("[::1]:80"), false), "http://[::1]:80");
    assert_eq!(origin(Some("dev"), true), "https://dev");
}

#[test]
fn what_is_read_is_passed_through() {
    let (address, seen) = device("read", |_| said(200, "{\"a\":1}"));
    let sha = "ab".repeat(32);
    for (path, wanted) in [
        ("/state", "/steps/current".to_owned()),
        ("/cgi-bin/pvr/steps", "/steps".into()),
        ("/steps/locals/a/progress", "/steps/locals/a/progress".into()),
        ("/steps/locals/a", "/steps/locals/a".into()),
        (&format!("/objects/{sha}/content"), format!("/objects/{sha}")),
    ] {
        assert_eq!(ask(address, &format!("GET {path}"), b""), (200, "{\"a\":1}".into()));
        assert_eq!(first_lines(&seen), [format!("GET {wanted} HTTP/1.1")]);
    }
}

#[test]
fn an_object_is_announced_and_sent() {
    let sha = "ab".repeat(32);
    let (address, seen) = device("object", |head| match head.starts_with("PUT") {
        true => said(200, ""),
        false => said(404, r#"{"code":"SB1210"}"#),
    });
    let record = format!(r#"{{"sha256sum":"{sha}","size":"3"}}"#);
    let (status, text) = ask(address, "POST /cgi-bin/pvr/objects/", record.as_bytes());
    assert_eq!(status, 200);
    assert!(text.contains(&format!("\"signed-puturl\":\"http://dev:12368/cgi-bin/pvr/objects/{sha}/content\"")));
    assert_eq!(ask(address, &format!("GET /objects/{sha}"), b"").0, 404);
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (status, _) = ask(address, &format!("PUT /cgi-bin/pvr/objects/{sha}/content"), &content);
    assert_eq!(status, 200);
    let sent = seen.try_iter().last().unwrap();
    assert!(sent.starts_with(format!("PUT /objects/{sha} HTTP/1.1").as_bytes()) && sent.ends_with(&content));
}

#[test]
fn an_object_that_is_there_need_not_be_sent() {
    let (address, _) = device("there", |_| said(200, "12345"));
    let sha = "cd".repeat(32);
    let (status, text) = ask(address, "POST /objects/", format!(r#"{{"sha256sum":"{sha}"}}"#).as_bytes());
    assert_eq!(status, 409);
    assert!(text.contains("\"size\":\"5\""), "{text}");
    let (status, text) = ask(address, &format!("GET /objects/{sha}"), b"");
    assert!(status == 200 && text.contains("signed-geturl"));
}

#[test]
fn a_revision_is_staged_described_and_run() {
    let (address, seen) = device("step", |_| said(200, ""));
    let body = br##"{"commit-msg":"new \"page\"","rev":-1,"state":{ "#spec": "x" }}"##;
    let (status, text) = ask(address, "POST /cgi-bin/pvr/steps", body);
    assert_eq!(status, 200, "{text}");
    let value = json::Value::parse(text.as_bytes()).unwrap().object().unwrap();
    assert_eq!(value.get("rev").unwrap().raw(), b"-1");
    let rev = value.text::<71>("revlocal").unwrap().unwrap().to_string();
    assert!(rev.starts_with("locals/pvr-") && RevName::parse(&rev).is_ok());
    let sha = ObjectId(Sha256::digest(br##"{ "#spec": "x" }"##).into()).to_string();
    assert_eq!(value.text::<64>("state-sha").unwrap().unwrap().as_str(), sha);
    let asked: Vec<String> = seen.try_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
    let wanted = [
        (format!("PUT /steps/{rev} "), r##"{ "#spec": "x" }"##.to_owned()),
        (format!("PUT /steps/{rev}/commitmsg "), "new \"page\"".into()),
        ("POST /commands ".into(), format!(r#"{{"op":"LOCAL_RUN","payload":"{rev}"}}"#)),
    ];
    assert_eq!(asked.len(), 3);
    for (asked, (head, body)) in asked.iter().zip(wanted) {
        assert!(asked.starts_with(&head) && asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
    }
    let (_, text) = ask(address, "POST /steps", br#"{"rev":"locals/mine","state":{}}"#);
    assert!(text.contains("\"revlocal\":\"locals/mine\""));
    assert_eq!(first_lines(&seen).len(), 2, "no message, none stored");
}

#[test]
fn what_the_device_refuses_is_refused() {
    let refusal = r#"{"Error":"x","code":"SB1105","key":"web","at":9}"#;
    let (address, seen) = device("refused", move |_| said(422, refusal));
    let (status, text) = ask(address, "POST /steps", br#"{"state":{}}"#);
    assert_eq!((status, text.as_str()), (422, refusal));
    assert_eq!(first_lines(&seen).len(), 1, "nothing is run");
    let (address, _) = device("busy", |_| said(503, "{}"));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /state HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nRetry-After: 5\r\n"));
}

#[test]
fn what_is_wrong_is_refused_before_the_device_is_asked() {
    let (address, seen) = device("wrong", |_| said(200, ""));
    let long = format!(r#"{{"state":{{}},"commit-msg":"{}"}}"#, "x".repeat(limits::COMMIT_MESSAGE_MAX + 1));
    let large = format!(r#"{{"state":{{"a":"{}"}}}}"#, "x".repeat(limits::STATE_MAX));
    for (head, body, status, code) in [
        ("POST /steps", r#"{"state":{"a":"#, 422, "SB1003"),
        ("POST /steps", r#"{"state":{}}}"#, 422, "SB1002"),
        ("POST /steps", r#"{"state":1}"#, 400, "SB1510"),
        ("POST /steps", r#"{"state":{},"state":{}}"#, 422, "SB1005"),
        ("POST /steps", r#"{"state":{},"rev":"../x"}"#, 400, "SB1206"),
        ("POST /steps", &long, 507, "SB1209"),
        ("POST /steps", &large, 422, "SB1001"),
        ("POST /steps", "", 411, "SB1504"),
        ("POST /objects/", r#"{"sha256sum":"x"}"#, 400, "SB1203"),
        ("PUT /objects/xyz/content", "x", 400, "SB1203"),
        ("GET /objects/xyz", "", 400, "SB1203"),
        ("GET /steps/../x", "", 400, "SB1206"),
        ("DELETE /state", "", 400, "SB1505"),
        ("GET /nothing", "", 400, "SB1506"),
    ] {
        let (got, text) = ask(address, head, body.as_bytes());
        assert!(got == status && text.contains(code), "{head}: {got} {text}");
    }
    assert_eq!(first_lines(&seen), [""; 0]);
}

#[test]
fn a_device_that_is_gone_is_busy() {
    let (endpoint, address, _, home) = endpoint("gone", Access::Open);
    let _home = run(endpoint, home);
    let (status, text) = ask(address, "GET /state", b"");
    assert!(status == 503 && text.contains("SB1512"), "{text}");
}

#[test]
fn an_answer_before_the_end_of_the_body_is_told() {
    let (endpoint, address, control, home) = endpoint("early", Access::Open);
    let listener = UnixListener::bind(control).unwrap();
    let _home = run(endpoint, home);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut some = [0; 1000];
        let _ = stream.read(&mut some).unwrap();
        stream.write_all(said(507, r#"{"code":"SB1204"}"#).as_bytes()).unwrap();
    });
    let (status, text) = ask(address, &format!("PUT /objects/{}", "ab".repeat(32)), &vec![7; 1_000_000]);
    assert_eq!((status, text.as_str()), (507, r#"{"code":"SB1204"}"#));
}

#[test]
fn a_client_that_stops_half_way_loses_its_slot() {
    let (mut endpoint, address, _, _home) = endpoint("stops", Access::Open);
    begin_without_memory(&mut endpoint);
    let mut silent = TcpStream::connect(address).unwrap();
    silent.write_all(b"GET /sta").unwrap();
    let taken = |endpoint: &Endpoint<'_>| endpoint.clients.iter().flatten().count();
    turn_until(&mut endpoint, "the client", |endpoint| taken(endpoint) == 1);
    for client in endpoint.clients.iter_mut().flatten() {
        client.until = Instant::now();
    }
    endpoint.turn().unwrap();
    assert_eq!(taken(&endpoint), 0);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
}

#[test]
fn fifty_clients_at_once_are_all_answered() {
    let (address, seen) = device("fifty", |_| said(200, "{}"));
    let clients: Vec<_> = (0..50).map(|_| thread::spawn(move || ask(address, "GET /state", b""))).collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), (200, "{}".into()));
    }
    assert_eq!(first_lines(&seen).len(), 50);
}

/// One request with these header lines; status, body, and the whole answer.
fn say(address: SocketAddr, line: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let reply = Reply::parse(&bytes).unwrap().unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (reply.status, text[reply.size..].to_owned(), text)
}

/// What the control socket's client is told.
fn visit(home: &Home, line: &str) -> (u16, String) {
    // It may not know yet who it is.
    soon(line, || Some(visit_once(home, line)).filter(|(status, _)| *status != 503))
}

fn visit_once(home: &Home, line: &str) -> (u16, String) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let request = format!("{line} HTTP/1.1\r\n\r\n");
    home.pid1.send(0, &Message::Pass { already: request.as_bytes() }, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let mut bytes = Vec::new();
    ours.read_to_end(&mut bytes).unwrap();
    let reply = Reply::parse(&bytes).unwrap().unwrap();
    (reply.status, String::from_utf8_lossy(&bytes[reply.size..]).into_owned())
}

fn member(text: &str, key: &str) -> String {
    let value = json::Value::parse(text.as_bytes()).unwrap().object().unwrap();
    value.text::<100>(key).unwrap().unwrap().to_string()
}

#[test]
fn no_page_of_another_site_gets_anywhere() {
    let (address, seen) = device("sites", |_| said(200, ""));
    let own = format!("Origin: http://{address}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(say(address, "POST /rollback", &own, "").0, 200);
    assert_eq!(first_lines(&seen), ["POST /rollback HTTP/1.1"]);
    for headers in ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        for line in ["POST /rollback", "POST /steps", "PUT /objects/x", "POST /pair"] {
            let (status, text, _) = say(address, line, headers, "{}");
            assert!(status == 403 && text.contains("SB1514"), "{line} {headers}: {text}");
        }
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /state HTTP/1.1\r\nHost: evil.example\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 403 ") && text.contains("SB1513") && text.contains("evil.example"), "{text}");
    assert_eq!(first_lines(&seen), [""; 0]);
}

#[test]
fn the_page_comes_with_its_policy_and_from_here_alone() {
    let (address, seen) = device("page", |_| said(200, "{}"));
    for (path, media) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let (status, body, text) = say(address, &format!("GET {path}"), "", "");
        assert_eq!(status, 200);
        assert!(text.contains(&format!("Content-Type: {media}")) && text.contains("default-src 'none'"), "{text}");
        assert!(!body.contains("://") && !body.contains("innerHTML"), "{path}");
    }
    assert_eq!(say(address, "GET /status", "", "").0, 200);
    assert_eq!(first_lines(&seen), ["GET /status HTTP/1.1"]);
}

#[test]
fn a_code_that_the_device_shows_becomes_a_token_once() {
    let (address, seen, home) = device_for("paired", Access::PairedPlain, |_| said(200, "{}"));
    for line in ["GET /state", "GET /status", "POST /rollback", "GET /steps"] {
        let (status, text, _) = say(address, line, "", "");
        assert!(status == 401 && text.contains("SB1516"), "{line}: {text}");
    }
    assert!(say(address, "POST /pair", "", "{\"secret\":\"0000-0000\"}").1.contains("SB1518"), "nobody asked for one");
    let (status, text) = visit(&home, "POST /endpoint/pair");
    assert_eq!(status, 200, "{text}");
    let code = member(&text, "code");
    assert_eq!(code.len(), if cfg!(feature = "tls") { 29 } else { 9 });
    let print =
        visit(&home, "GET /endpoint").1.split("\"certificate_sha256\":\"").nth(1).map(|rest| rest[..64].to_owned());
    assert_eq!(print.is_some(), cfg!(feature = "tls"));
    if let Some(print) = print {
        assert_eq!(member(&text, "certificate_sha256"), print, "who types the code into a browser must compare it");
        assert!(text.contains("\"browser\":\"type the code only if the certificate"), "{text}");
    }
    assert!(say(address, "POST /pair", "", "{\"secret\":\"0000-0000\"}").1.contains("SB1519"));
    let body = format!("{{\"secret\":\"{code}\",\"name\":\"a laptop\\nwith more of a name than fits\"}}");
    let (status, text, _) = say(address, "POST /pair", "", &body);
    assert_eq!(status, 200, "{text}");
    let (token, id) = (member(&text, "token"), member(&text, "id"));
    assert_eq!(token.len(), 64);
    assert!(!home.kept.lock().unwrap().windows(20).any(|part| token.as_bytes().starts_with(part)), "only its hash");
    assert!(say(address, "POST /pair", "", &body).1.contains("SB1518"), "once");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(say(address, "GET /state", &bearer, "").0, 200);
    assert_eq!(first_lines(&seen), ["GET /steps/current HTTP/1.1"]);
    let (_, text) = visit(&home, "GET /endpoint");
    assert!(text.contains(&format!("{{\"id\":\"{id}\",\"name\":\"a laptopwith more of a n\"}}")), "{text}");
    assert_eq!(visit(&home, "DELETE /endpoint/tokens/00000000").0, 401);
    assert_eq!(visit(&home, &format!("DELETE /endpoint/tokens/{id}")), (200, String::new()));
    assert!(say(address, "GET /state", &bearer, "").1.contains("SB1517"), "taken back");
    for _ in 0..40 {
        say(address, "GET /state", &bearer, "");
    }
    assert!(say(address, "GET /state", &bearer, "").1.contains("SB1522"), "guessing is slowed down");
    assert_eq!(visit(&home, "PUT /endpoint").0, 400);
}

#[test]
fn plain_http_is_refused_where_the_policy_wants_tls() {
    let (address, seen, home) = device_for("tls-only", Access::Paired, |_| said(200, "{}"));
    for line in ["GET /state", "GET /.pvrremote", "POST /pair", "GET /page.js"] {
        let (status, text, _) = say(address, line, "", "");
        assert!(status == 403 && text.contains("SB1521"), "{line}: {text}");
    }
    assert_eq!(first_lines(&seen), [""; 0]);
    let (status, _, text) = say(address, "GET /", "", "");
    if cfg!(feature = "tls") {
        assert!(status == 307 && text.contains(&format!("Location: https://{address}/\r\n")), "{text}");
        assert_eq!(visit(&home, "POST /endpoint/pair").0, 200);
    } else {
        assert_eq!(status, 403);
        assert_eq!(visit(&home, "POST /endpoint/pair").0, 403, "a code would be of no use");
    }
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_out_of_credit() {
    let (mut endpoint, address, _, _home) = endpoint("drip", Access::Open);
    begin_without_memory(&mut endpoint);
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(b"POST /steps HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{").unwrap();
    let is_reading = |endpoint: &Endpoint<'_>| {
        endpoint.clients.iter().flatten().any(|client| matches!(client.phase, client::Phase::Body { .. }))
    };
    turn_until(&mut endpoint, "the body to be read", is_reading);
    let until = endpoint.clients.iter().flatten().next().unwrap().until;
    assert!(until <= Instant::now() + pace::CREDIT);
    slow.write_all(b" ").unwrap();
    thread::sleep(Duration::from_millis(50));
    endpoint.turn().unwrap();
    let later = endpoint.clients.iter().flatten().next().unwrap().until;
    assert!(later <= until + Duration::from_millis(10), "a byte buys a thousandth of a second");
    endpoint.clients.iter_mut().flatten().for_each(|client| client.until = Instant::now());
    let mut text = String::new();
    turn_until(&mut endpoint, "the answer to be given", |endpoint| {
        endpoint.clients.iter().flatten().all(|client| matches!(client.phase, client::Phase::Gone))
    });
    slow.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("SB1515"), "{text}");
}

#[test]
fn what_comes_behind_a_request_is_dropped() {
    let (address, seen) = device("pipelined", |_| said(200, "{}"));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all("GET /state HTTP/1.1\r\n\r\n".repeat(20).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!((text.matches("HTTP/1.1 200").count(), first_lines(&seen).len()), (1, 1));
}

#[test]
fn garbage_is_no_request_and_costs_its_sender_the_connection() {
    let (address, seen) = device("garbage", |_| said(200, "{}"));
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], &[0; 5000], &[0xff; 5000], b"GET \r\n\r\n", &[b'A'; 9000]] {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes); // it may be reset
        assert!(!bytes.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(ask(address, "GET /state", b"").0, 200);
    assert_eq!(first_lines(&seen).len(), 1);
}

/// A device that takes uploads: what came, and how it ended.
fn uploads(name: &str) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let (endpoint, address, control, home) = endpoint(name, Access::Open);
    let listener = UnixListener::bind(control).unwrap();
    let (told, came) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, told) = (stream.unwrap(), told.clone());
            thread::spawn(move || {
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).unwrap();
                if &bytes == b"PUT " {
                    // It takes its time: meanwhile the client is gone, and what has arrived waits.
                    thread::sleep(Duration::from_millis(50));
                    // All of it, over however many clients it comes.
                    let rest = whole_request(&mut Read::chain(&bytes[..], &mut stream));
                    told.send(rest.clone().unwrap_or_default()).unwrap();
                    let _ = stream.write_all(said(200, "").as_bytes());
                } else {
                    let _ = whole_request(&mut Read::chain(&bytes[..], &mut stream));
                    let _ = stream.write_all(said(404, "{}").as_bytes());
                }
            });
        }
    });
    run(endpoint, home);
    (address, came)
}

/// Sends the beginning of an object and is gone.
fn begin(address: SocketAddr, sha: &str, content: &[u8], sent: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("PUT /objects/{sha}/content HTTP/1.1\r\nHost: dev\r\nContent-Length: {}\r\n\r\n", content.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content[..sent]).unwrap();
}

/// How much of an object of this size the endpoint says it holds.
fn held(address: SocketAddr, sha: &str, size: usize) -> Option<usize> {
    let record = format!(r#"{{"sha256sum":"{sha}","size":"{size}"}}"#);
    let (status, text) = ask(address, "POST /objects/", record.as_bytes());
    assert_eq!(status, 200);
    let offset = text.split("\"switchback.upload-offset\":").nth(1)?;
    Some(offset.trim_end_matches('}').parse().unwrap())
}

fn go_on(address: SocketAddr, sha: &str, content: &[u8], first: usize) -> u16 {
    let (last, size) = (content.len() - 1, content.len());
    let head = format!("PUT /objects/{sha}/content HTTP/1.1\r\nContent-Range: bytes {first}-{last}/{size}");
    let mut stream = TcpStream::connect(address).unwrap();
    let rest = &content[first..];
    stream.write_all(format!("{head}\r\nHost: dev\r\nContent-Length: {}\r\n\r\n", rest.len()).as_bytes()).unwrap();
    let _ = stream.write_all(rest);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Reply::parse(&bytes).unwrap().unwrap().status
}

/// Waits until the endpoint noticed that a client is gone.
fn held_soon(address: SocketAddr, sha: &str, size: usize, at_least: usize) -> usize {
    soon("what the endpoint holds", || held(address, sha, size).filter(|held| *held >= at_least))
}

/// What the device says next about its uploads.
fn next(came: &mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
    came.recv_timeout(SOON).expect("waited for the end of an upload")
}

#[test]
fn an_upload_goes_on_where_its_client_left() {
    let (address, came) = uploads("goes-on");
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (sha, size) = ("ab".repeat(32), content.len());
    assert_eq!(held(address, &sha, size), None);
    begin(address, &sha, &content, 1_000_000);
    let first = held_soon(address, &sha, size, 1_000_000);
    assert_eq!(first, 1_000_000, "all that was sent, and nothing else");
    assert_eq!(go_on(address, &"cd".repeat(32), &content, first), 409, "not with another object");
    assert_eq!(go_on(address, &sha, &content, first), 200);
    let request = next(&came);
    assert!(request.ends_with(&content), "the device saw one upload");
    assert_eq!(held(address, &sha, size), None);
}

/// Wherever it waits: with the device, on the way there, or where it was read.
#[test]
fn all_that_a_client_sent_is_held_while_the_device_is_slow() {
    let (address, _came) = uploads("slow-device");
    let content = vec![7; 1_000_000];
    for sent in (100_000..400_000).step_by(15_000) {
        let sha = format!("{sent:064x}");
        begin(address, &sha, &content, sent);
        assert_eq!(held_soon(address, &sha, content.len(), sent), sent);
    }
}

#[test]
fn what_somebody_began_wrongly_is_in_nobodys_way() {
    let (address, came) = uploads("wrong-size");
    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let (sha, size) = ("ab".repeat(32), content.len());
    // A client that is wrong about the size, and gone: who knows better is not told of it.
    begin(address, &sha, &[7; 400_000], 100_000);
    assert_eq!(held_soon(address, &sha, 400_000, 100_000), 100_000);
    assert_eq!(held(address, &sha, size), None);
    let (_, record) = ask(address, "POST /objects/", format!(r#"{{"sha256sum":"{sha}"}}"#).as_bytes());
    assert!(!record.contains("upload-offset"), "nor one that names no size: {record}");
    // One with which somebody cannot go on is dropped, and told to nobody any more.
    assert_eq!(go_on(address, &sha, &content, 100_000), 409);
    assert_eq!(next(&came), b"");
    assert_eq!(held(address, &sha, 400_000), None);
    begin(address, &sha, &content, 100_000);
    assert_eq!(held_soon(address, &sha, size, 100_000), 100_000);
    assert_eq!(go_on(address, &sha, &content, 99_999), 409, "from no other byte");
    assert_eq!((next(&came), held(address, &sha, size)), (Vec::new(), None));
}

#[test]
fn whoever_is_here_comes_before_whoever_is_gone() {
    let (address, came) = uploads("places");
    let content = vec![7; 300_000];
    let shas: Vec<String> = ["1a", "2b", "3c"].map(|byte| byte.repeat(32)).into();
    for sha in &shas {
        begin(address, sha, &content, 100_000);
        held_soon(address, sha, content.len(), 100_000);
    }
    assert_eq!(held(address, &shas[0], content.len()), None, "the oldest made room");
    assert_eq!(next(&came), b"", "and ended as an upload whose client left");
    // Transfers that are under way need the places: what waits is dropped, what works goes on.
    let mut busy: Vec<TcpStream> = Vec::new();
    for byte in ["4d", "5e", "6f"] {
        let mut stream = TcpStream::connect(address).unwrap();
        let head =
            format!("PUT /objects/{}/content HTTP/1.1\r\nHost: dev\r\nContent-Length: 9\r\n\r\n1234", byte.repeat(32));
        stream.write_all(head.as_bytes()).unwrap();
        busy.push(stream);
    }
    assert_eq!([next(&came), next(&came)], [b"", b""]);
    for stream in &mut busy {
        stream.write_all(b"56789").unwrap();
        assert!(next(&came).ends_with(b"123456789"));
    }
}

#[test]
fn a_download_begins_where_it_is_asked_to() {
    let content: String = (0..200_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let sent = content.clone();
    let (address, _) = device("range", move |_| said(200, &sent));
    let sha = "ab".repeat(32);
    for first in [1, 40_000, 199_999] {
        let head = format!("GET /objects/{sha}/content HTTP/1.1\r\nRange: bytes={first}-\r\nHost: dev\r\n\r\n");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{first}");
        assert!(text.contains(&format!("\r\nContent-Range: bytes {first}-199999/200000\r\n")));
        assert!(text.ends_with(&format!("\r\n\r\n{}", &content[first..])));
    }
    for whole in ["bytes=200000-", "bytes=0-5", "bytes=-5"] {
        let head = format!("GET /objects/{sha}/content HTTP/1.1\r\nRange: {whole}");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("{head}\r\nHost: dev\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(&content), "{whole}");
    }
}
