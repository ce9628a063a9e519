//! Answers that no device and no hub should give. Whatever comes, `pvr` ends, says what was wrong, leaves no half of
//! anything under a final name, and the next run against a good server succeeds.

mod common;

use common::{
    Place, Said,
    hub::{Hub, World, gzip, sha},
    small_device, world_of,
};
use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
};

const CONTENT: &[u8] = b"the content of an object";

/// A hub with one object.
fn hub() -> Hub {
    let state = json!({"#spec": "pantavisor-service-system@1", "file": sha(CONTENT)});
    let mut world = World { is_hub: true, ..World::of(state) };
    world.objects.insert(sha(CONTENT), CONTENT.to_vec());
    Hub::start(world)
}

/// The four requests of a clone.
fn requests() -> [String; 4] {
    let name = sha(CONTENT);
    [
        "GET /trails/t1/.pvrremote".into(),
        "GET /trails/t1/steps/7/state".into(),
        format!("GET /trails/t1/steps/7/objects/{name}"),
        format!("GET /blobs/{name}"),
    ]
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// Clones; what is there afterwards is whole and under its right name, whatever came.
fn clone(place: &Place, hub: &Hub) -> Said {
    let said = place.pvr("home", &["clone", &format!("{}/trails/t1", hub.url), "work"]);
    assert!((0..=5).contains(&said.code), "{said:?}");
    let pool = fs::read_dir(place.path("home/.pvr/objects"));
    for object in pool.into_iter().flatten().map(|e| e.unwrap()).filter(|e| e.path().is_file()) {
        let name = object.file_name().into_string().unwrap();
        assert!(name.starts_with(".pvr-part-") || name == sha(&fs::read(object.path()).unwrap()), "{name}");
    }
    if said.code != 0 {
        assert!(said.err.contains("ERROR: ") && !said.err.contains("panicked"), "{said:?}");
        assert!(!said.err.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        let beside = fs::read_dir(place.path("home")).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(beside.filter(|name| name != ".pvr").count(), 0, "nothing is left");
    }
    said
}

/// Every answer is refused with these words, and a good one after it is taken.
#[track_caller]
fn refused(request: &str, bytes: Vec<u8>, words: &str) {
    let (place, hub) = (Place::new(), hub());
    hub.world().scripted.insert(request.into(), bytes);
    let said = clone(&place, &hub);
    assert!(said.code != 0 && said.err.contains(words), "{request}: {words}: {said:?}");
    hub.world().scripted.clear();
    assert_eq!(clone(&place, &hub).code, 0);
    assert_eq!(fs::read(place.path("home/work/file")).unwrap(), CONTENT);
}

#[test]
fn what_is_not_http() {
    let long: Vec<u8> = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-Long: 0123456789abcdef\r\n".repeat(20_000)].concat();
    let one = [&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; 1 << 20]].concat();
    let corpus = [
        (Vec::new(), "cannot talk to"),
        (b"\0\0\0\0".to_vec(), "cannot talk to"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "cannot talk to"),
        (b"HTTP/9.9 200 OK\r\n\r\n".to_vec(), "cannot talk to"),
        (b"HTTP/1.1 99999 OK\r\n\r\n".to_vec(), "cannot talk to"),
        (b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(), "cannot talk to"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}".to_vec(), ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}".to_vec(), ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".to_vec(), "cannot talk to"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n".to_vec(), "cannot talk to"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}".to_vec(), ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), "cannot talk to"),
        (long, "cannot talk to"),
        (one, "cannot talk to"),
    ];
    for (bytes, words) in corpus {
        refused(&requests()[0], bytes, words);
    }
}

#[test]
fn what_is_not_a_remote() {
    for body in [
        "",
        "[]",
        "null",
        "{",
        "\"x\"",
        "{}",
        r#"{"json-get-url":5}"#,
        "<html>login</html>",
        r#"{"json-get-url":null}"#,
    ] {
        refused(&requests()[0], answer("200 OK", "", body.as_bytes()), "is not what a device or a trail answers");
    }
    refused(&requests()[0], answer("404 X", "", b"nothing"), "has no .pvrremote");
    refused(&requests()[0], answer("500 X", "", b"\x1b[2J\x07"), "HTTP 500: \\u{1b}[2J\\u{7}");
    for (url, words) in
        [("", "names no json-get-url"), ("ftp://x/y", "is not an address"), ("http://", "is not an address")]
    {
        let body = json!({"json-get-url": url}).to_string();
        refused(&requests()[0], answer("200 OK", "", body.as_bytes()), words);
    }
    let only = json!({"json-get-url": "/trails/t1/steps/7/state", "objects-endpoint": [1]}).to_string();
    refused(&requests()[0], answer("200 OK", "", only.as_bytes()), "names no objects-endpoint");
}

#[test]
fn what_is_not_a_state() {
    let state = &requests()[1];
    for body in ["", "[]", "{", "7", "\"x\""] {
        refused(state, answer("200 OK", "", body.as_bytes()), "did not answer with a state");
    }
    refused(state, answer("200 OK", "", b"null"), "has no state");
    refused(state, answer("200 OK", "", br#"{"a":5}"#), "neither an object's sha256 nor inline JSON");
    for key in ["../x", "/etc/passwd", "a//b", ".pvr/json", "a/../../b", "x\0y"] {
        refused(state, answer("200 OK", "", json!({key: sha(CONTENT)}).to_string().as_bytes()), "");
    }
    refused(state, answer("200 OK", "", "[".repeat(100_000).as_bytes()), "did not answer with a state");
    refused(state, answer("200 OK", "", &b" ".repeat(17 << 20)), "no state");
}

#[test]
fn what_unpacks_to_more_than_anybody_wants() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let state = &requests()[1];
    refused(state, answer("200 OK", "Content-Encoding: gzip\r\n", &bomb), "more than 16 MiB");
    refused(state, answer("200 OK", "Content-Encoding: gzip\r\n", b"not gzip"), "cannot talk to");
    let half = gzip(br#"{"#);
    refused(state, answer("200 OK", "Content-Encoding: gzip\r\n", &half[..half.len() - 4]), "");
    // An object that is packed on the way is as long as was announced, or wrong.
    refused(&requests()[3], answer("200 OK", "Content-Encoding: gzip\r\n", &bomb), "is longer than the 24 bytes");
}

#[test]
fn what_is_not_an_object() {
    let [.., record, blob] = requests();
    for body in ["", "[]", "{}", r#"{"signed-geturl":""}"#, r#"{"signed-geturl":7}"#] {
        refused(&record, answer("200 OK", "", body.as_bytes()), "its record names no address");
    }
    refused(&record, answer("404 X", "", b""), "cannot be had");
    refused(&record, answer("200 OK", "", br#"{"signed-geturl":"javascript:x"}"#), "");
    refused(&blob, answer("200 OK", "", b"the content of an obJect"), "other content");
    refused(&blob, answer("200 OK", "", b"the content of an object."), "is longer than the 24 bytes");
    refused(&blob, answer("403 X", "", b"expired"), "HTTP 403: expired");
    refused(&blob, answer("206 X", "Content-Range: bytes 0-23/24\r\n", CONTENT), "HTTP 206");
    refused(&blob, answer("200 OK", "", b"the content"), "ended before its end");
}

#[test]
fn redirects_in_a_circle_and_to_nowhere() {
    for request in requests() {
        let to = |target: &str| answer("302 Found", &format!("Location: {target}\r\n"), b"");
        let path = request.split(' ').nth(1).unwrap();
        refused(&request, to(path), "from one address to the next");
        refused(&request, to("ftp://x/"), "leads elsewhere");
        refused(&request, answer("301 X", "", b""), "but not where");
    }
}

/// One answer after the other, good ones with some bytes changed: deterministic, so that a case that fails fails again.
#[test]
fn mutated_answers() {
    const CASES: u32 = 160;
    let name = sha(CONTENT);
    let (next, good) = (AtomicU32::new(0), AtomicU32::new(0));
    let worker = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= CASES {
                return;
            }
            let (place, hub) = (Place::new(), hub());
            let url = &hub.url;
            let step = "/trails/t1/steps/7";
            let bodies = [
                json!({"json-get-url": format!("{url}{step}/state"), "json-key": "state",
                    "objects-endpoint": format!("{url}{step}/objects"), "post-url": format!("{url}/trails/t1/steps")}),
                json!({"#spec": "pantavisor-service-system@1", "file": name}),
                json!({"id": name, "size": CONTENT.len().to_string(), "signed-geturl": format!("{url}/blobs/{name}")}),
            ];
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(case) << 20);
            let which = case as usize % 4;
            let body = bodies.get(which).map_or(CONTENT.to_vec(), |body| body.to_string().into_bytes());
            let head = ["", "Content-Type: application/json\r\n", "ETag: \"x\"\r\n"][random.below(3)];
            let mut bytes = answer("200 OK", head, &body);
            random.mutate(&mut bytes);
            hub.world().scripted.insert(requests()[which].clone(), bytes.clone());
            let said = std::panic::catch_unwind(|| clone(&place, &hub));
            let said = said.unwrap_or_else(|_| panic!("case {case}: {}", String::from_utf8_lossy(&bytes)));
            good.fetch_add(u32::from(said.code == 0), Ordering::Relaxed);
            if said.code != 0 {
                hub.world().scripted.clear();
                assert_eq!(clone(&place, &hub).code, 0, "case {case}: the next run");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(worker);
        }
    });
    let good = good.into_inner();
    assert!(good > 0 && good < CASES, "{good} of {CASES} were as good as before");
}

/// xorshift: the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at + 1),
                2 => drop(bytes.splice(at..at, bytes[..at].to_vec())),
                3 => drop(bytes.remove(at)),
                4 => bytes[at] = b"\r\n\0 :\"{}[],0-9~"[self.below(15)],
                _ => bytes.insert(at, b'9'),
            }
        }
    }
}

/// A proxy that knows CONNECT; the connections that went through it.
fn proxy() -> (String, &'static AtomicU32) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, count) = (format!("http://{}", listener.local_addr().unwrap()), Box::leak(Box::new(AtomicU32::new(0))));
    let counted: &'static AtomicU32 = count;
    std::thread::spawn(move || {
        for client in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || tunnel(client.unwrap()));
        }
    });
    (url, counted)
}

fn tunnel(mut client: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let to = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).expect("a tunnel is asked for");
    let mut server = TcpStream::connect(to).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from, mut into) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut into));
    let _ = std::io::copy(&mut client, &mut server);
}

#[test]
fn proxies() {
    let (place, hub) = (Place::new(), hub());
    let ((given, through_given), (environment, through_environment)) = (proxy(), proxy());
    let url = format!("{}/trails/t1", hub.url);
    let inspect = |args: &[&str], set: &[(&str, &str)]| {
        place.pvr_with("home", &[args, &["inspect", &url]].concat(), set).good();
        let taken = |count: &AtomicU32| count.swap(0, Ordering::Relaxed) > 0;
        (taken(through_given), taken(through_environment))
    };
    let set = ("http_proxy", environment.as_str());
    assert_eq!(inspect(&["--http-proxy", &given], &[set]), (true, false));
    assert_eq!(inspect(&[], &[("PVR_HTTP_PROXY", &given)]), (true, false));
    assert_eq!(inspect(&["--http-proxy", "no"], &[set]), (false, false));
    assert_eq!(inspect(&[], &[set]), (false, false), "what is next to us is not behind a proxy");
    // A name that only the proxy could know is asked of the proxy that the environment names.
    let far = |set: &[(&str, &str)]| {
        let said = place.pvr_with("home", &["inspect", "http://nowhere.invalid/trails/t1"], set);
        (said.code, through_environment.swap(0, Ordering::Relaxed) > 0)
    };
    assert_eq!(far(&[set]), (4, true));
    assert_eq!(far(&[set, ("NO_PROXY", "nowhere.invalid")]), (4, false));
    place.pvr("home", &["--http-proxy", "::", "inspect", &url]).failed(2);
}

#[test]
fn posting_into_nonsense() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = Hub::start(World { is_hub: true, ..world_of(&place, "r") });
    hub.world().objects.clear();
    hub.world().state = json!({});
    let url = format!("{}/trails/t1", hub.url);
    let post = |request: &str, bytes: Vec<u8>, words: &str| {
        hub.world().scripted = [(request.to_owned(), bytes)].into();
        let said = place.pvr("r", &["post", &url]);
        assert!((1..=5).contains(&said.code) && said.err.contains(words), "{words}: {said:?}");
    };
    let (objects, steps) = ("POST /trails/t1/steps/7/objects/", "POST /trails/t1/steps");
    post(objects, answer("200 OK", "", b"{}"), "names no address");
    post(
        objects,
        answer("500 X", "", br#"{"error":"REST-ERR-ID-1","msg":"Quota exceeded","code":500}"#),
        "Quota exceeded",
    );
    post(objects, answer("301 X", "Location: /elsewhere\r\n", b""), "does not take a POST");
    post(objects, answer("200 OK", "", br#"{"signed-puturl":"nowhere://"}"#), "not an address");
    for body in ["", "{}", "[]", r#"{"rev":"8"}"#, r#"{"rev":8,"state-sha":5,"trail-id":"t"}"#] {
        post(steps, answer("200 OK", "", body.as_bytes()), "");
    }
    post(steps, answer("503 X", "", br#"{"Error":"busy"}"#), "hint: it is busy");
    post(steps, answer("507 X", "", br#"{"Error":"full"}"#), "hint: its storage is full");
    post(steps, Vec::new(), "cannot talk to");
    assert!(hub.world().posted.is_empty());
    let steps = hub.world().seen.iter().filter(|seen| seen.line == steps).count();
    assert_eq!(steps, 8, "a revision that may have arrived is not posted twice");
    hub.world().scripted.clear();
    place.pvr("r", &["post", &url]).good();
}
