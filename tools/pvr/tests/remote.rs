//! `clone` and `post` against a server that speaks the device's protocol, as far as the client can tell.

mod common;

use common::{Place, small_device};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What the server holds and was told.
#[derive(Default)]
struct Device {
    state: Value,
    objects: BTreeMap<String, Vec<u8>>,
    posted: Vec<Value>,
    log: Vec<String>,
    /// What it answers to a posted revision instead of taking it.
    refuse: Option<(u16, Value)>,
    /// Answers 503 this often before it takes an upload.
    busy: u32,
    /// Flips a bit in every object that is fetched.
    damage: bool,
}

/// A device on a port of its own, with its endpoint at the usual path.
struct Server {
    url: String,
    device: Arc<Mutex<Device>>,
}

impl Server {
    fn start(device: Device) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let device = Arc::new(Mutex::new(device));
        let shared = device.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { url, device }
    }
}

fn serve(stream: TcpStream, device: &Mutex<Device>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut host, mut kind) = (0, String::new(), String::new());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            match &name.to_lowercase()[..] {
                "content-length" => length = value.parse().unwrap(),
                "host" => host = value.to_owned(),
                "content-type" => kind = value.to_owned(),
                "transfer-encoding" => panic!("devices need a Content-Length"),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut device = device.lock().unwrap();
        device.log.push(format!("{method} {path}"));
        let (status, answer) = device.answer(method, path, &host, &kind, body);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        let _ = (&stream).write_all(&[head.as_bytes(), &answer].concat());
    }
}

impl Device {
    fn answer(&mut self, method: &str, path: &str, host: &str, kind: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        const BASE: &str = "/cgi-bin/pvr";
        let text = |value: Value| value.to_string().into_bytes();
        let Some(path) = path.strip_prefix(BASE) else {
            return (400, text(json!({"Error": "unknown endpoint", "code": "SB1506"})));
        };
        let base = format!("http://{host}{BASE}");
        match (method, path.split('/').skip(1).collect::<Vec<_>>().as_slice()) {
            ("GET", [".pvrremote"]) => {
                let steps = format!("{base}/trails/x/steps");
                let info = json!({"pvr-spec": "pvr-pantahub-1", "json-get-url": format!("{steps}/-1/state"),
                    "json-key": "state", "objects-endpoint": format!("{base}/objects"), "post-url": steps});
                (200, text(info))
            }
            ("GET", ["trails", "x", "steps", "-1", "state"]) => (200, text(self.state.clone())),
            // One absolute and one relative address: both are allowed.
            ("GET", ["objects", sha]) if self.objects.contains_key(*sha) => {
                (200, text(json!({"signed-geturl": format!("{BASE}/blobs/{sha}")})))
            }
            ("GET", ["blobs", sha]) => {
                let mut content = self.objects[*sha].clone();
                if self.damage {
                    content[0] ^= 1;
                }
                (200, content)
            }
            ("POST", ["objects", ""]) => {
                let record: Value = serde_json::from_slice(&body).unwrap();
                let sha = record["sha256sum"].as_str().unwrap();
                assert!(record["size"].is_string() && record["objectname"].is_string());
                if self.objects.contains_key(sha) {
                    return (409, text(json!({"signed-puturl": format!("{base}/blobs/{sha}")})));
                }
                (200, text(json!({"signed-puturl": format!("{base}/blobs/{sha}")})))
            }
            ("PUT", ["blobs", _]) if self.busy > 0 => {
                self.busy -= 1;
                (503, text(json!({"Error": "busy", "code": "SB1512"})))
            }
            ("PUT", ["blobs", sha]) => {
                self.objects.insert((*sha).to_owned(), body);
                (200, Vec::new())
            }
            ("POST", ["trails", "x", "steps"]) => {
                assert_eq!(kind, "text/plain; charset=utf-8");
                if let Some((status, answer)) = &self.refuse {
                    return (*status, text(answer.clone()));
                }
                self.posted.push(serde_json::from_slice(&body).unwrap());
                let sha = "0123456789abcdef";
                (200, text(json!({"rev": -1, "revlocal": "locals/a", "state-sha": sha, "trail-id": "local"})))
            }
            _ => (404, text(json!({"Error": "no such object on this device", "code": "SB1210", "key": path}))),
        }
    }
}

/// A server whose state is what a repository committed.
fn server_of(place: &Place, folder: &str) -> Server {
    let state: Value = serde_json::from_str(&place.read(&format!("{folder}/.pvr/json"))).unwrap();
    let pool = place.path("home/.pvr/objects");
    let objects = std::fs::read_dir(pool).unwrap().map(|e| {
        let e = e.unwrap();
        (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())
    });
    Server::start(Device { state, objects: objects.collect(), ..Device::default() })
}

#[test]
fn clone_change_post() {
    let place = Place::new();
    small_device(&place, "r");
    let server = server_of(&place, "r");
    std::fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    let said = place.pvr("home", &["clone", &server.url, "work"]).good();
    assert_eq!(said, format!("Successfully cloned: {}\n", place.path("home/work").display()));
    assert_eq!(place.pvr("home/work", &["status"]).good(), "");
    assert_eq!(place.read("home/work/web/root.squashfs"), "image");

    place.write("home/work/web/root.squashfs", "new image");
    place.commit("home/work", "new page");
    server.device.lock().unwrap().busy = 1;
    let said = place.pvr("home/work", &["post", &server.url, "-m", "new page"]).good();
    assert_eq!(said, "Successfully posted Revision locals/a (01234567) to device id local\n");
    let device = server.device.lock().unwrap();
    let posted = &device.posted[0];
    assert_eq!((&posted["commit-msg"], &posted["rev"]), (&json!("new page"), &json!(-1)));
    assert_eq!(posted["state"].to_string(), place.read("home/work/.pvr/json"));
    let sha = posted["state"]["web/root.squashfs"].as_str().unwrap();
    assert_eq!(device.objects[sha], b"new image");
    let uploads = device.log.iter().filter(|line| line.starts_with("POST /cgi-bin/pvr/objects/")).count();
    assert_eq!(uploads, 1, "what the device runs is not sent again");
    drop(device);
    // Without an address: where it was posted last.
    place.pvr("home/work", &["post"]).good();
    assert!(server.device.lock().unwrap().posted[1].get("commit-msg").is_none());
    let rev = place.pvr("home/work", &["--json", "post", "--rev", "locals/mine"]).good();
    assert!(rev.contains(r#""revision":"locals/a""#), "{rev}");
    assert_eq!(server.device.lock().unwrap().posted[2]["rev"], json!("locals/mine"));
}

#[test]
fn what_the_device_could_not_read_is_not_sent() {
    let place = Place::new();
    small_device(&place, "r");
    let server = server_of(&place, "r");
    let run = place.read("r/web/run.json");
    let long = format!(r#"{{"x":{}}}"#, "[".repeat(40) + &"]".repeat(40));
    for (file, content, code) in [
        ("web/run.json", run.replace(r#""app""#, r#""nobody""#), "SB1105"),
        ("web/run.json", run.replace(r#""lxc""#, r#""docker""#), "SB1112"),
        ("web/lxc.container.conf", "lxc.no.such.key = 1\n".into(), "SB1117"),
        ("deep.json", long, "SB1004"),
    ] {
        let before = place.pvr("r", &["reset"]).good();
        assert_eq!(before, "");
        place.write(&format!("r/{file}"), content);
        place.commit("r", "bad");
        let error = place.pvr("r", &["post", &server.url]).failed(3);
        assert!(error.contains(code) && error.contains("nothing was sent or made"), "{file}: {error}");
        place.write("r/web/run.json", &run);
        place.write("r/web/lxc.container.conf", "lxc.init.cmd = /init\n");
        let _ = std::fs::remove_file(place.path("r/deep.json"));
        place.commit("r", "good again");
    }
    let message = "x".repeat(257);
    assert!(place.pvr("r", &["post", &server.url, "-m", &message]).failed(3).contains("256 bytes"));
    let device = server.device.lock().unwrap();
    assert!(
        device.posted.is_empty() && !device.log.iter().any(|line| line.starts_with("POST") || line.starts_with("PUT"))
    );
}

#[test]
fn a_refusal_shows_the_devices_words() {
    let place = Place::new();
    small_device(&place, "r");
    let server = server_of(&place, "r");
    let refuse = |status, answer| server.device.lock().unwrap().refuse = Some((status, answer));
    refuse(
        422,
        json!({"Error": "an object of the revision is not on the device", "code": "SB1201", "key": "web/x", "at": 7}),
    );
    let error = place.pvr("r", &["post", &server.url]).failed(5);
    assert!(error.contains("SB1201: an object of the revision is not on the device (web/x) at byte 7"), "{error}");
    refuse(503, json!({"Error": "another update is running", "code": "SB1402"}));
    let error = place.pvr("r", &["post", &server.url]).failed(5);
    assert!(error.contains("SB1402") && error.contains("hint: wait"), "{error}");
}

#[test]
fn damage_on_the_way_is_noticed_and_nothing_is_left() {
    let place = Place::new();
    small_device(&place, "r");
    let server = server_of(&place, "r");
    std::fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    server.device.lock().unwrap().damage = true;
    let error = place.pvr("home", &["clone", &server.url, "work"]).failed(4);
    assert!(error.contains("other content"), "{error}");
    assert!(!place.path("home/work").exists());
    assert_eq!(std::fs::read_dir(place.path("home/.pvr/objects")).unwrap().count(), 0);
}

#[test]
fn a_state_with_a_path_outside_is_refused() {
    let place = Place::new();
    let state = json!({"#spec": "pantavisor-service-system@1", "../evil.json": {}});
    let server = Server::start(Device { state, ..Device::default() });
    assert!(place.pvr("home", &["clone", &server.url, "work"]).failed(3).contains("not a plain path"));
    assert!(!place.path("evil.json").exists() && !place.path("home/work").exists());
}

#[test]
fn parts_of_a_device() {
    let place = Place::new();
    small_device(&place, "r");
    let server = server_of(&place, "r");
    place.pvr("home", &["clone", &format!("{}#web", server.url), "work"]).good();
    assert!(place.path("home/work/web/run.json").exists() && !place.path("home/work/bsp").exists());
    assert!(place.pvr("home", &["clone", &format!("{}#we", server.url), "x"]).failed(3).contains("no part we"));
}

#[test]
fn nobody_there() {
    let place = Place::new();
    small_device(&place, "r");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(place.pvr("r", &["post", &url]).failed(4).contains("cannot talk to"));
    assert!(place.pvr("r", &["post"]).failed(2).contains("no device given"), "a failed post is not remembered");
}
