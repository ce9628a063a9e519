//! `clone` and `post` against a server that speaks the device's protocol, as far as the client can tell.

mod common;

use common::{
    Place,
    hub::{Hub, World},
    hub_of, small_device,
};
use serde_json::json;
use std::net::TcpListener;

#[test]
fn clone_change_post() {
    let place = Place::new();
    small_device(&place, "r");
    let server = hub_of(&place, "r");
    std::fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    let said = place.pvr("home", &["clone", &server.url, "work"]).good();
    assert_eq!(said, format!("Successfully cloned: {}\n", place.path("home/work").display()));
    assert_eq!(place.pvr("home/work", &["status"]).good(), "");
    assert_eq!(place.read("home/work/web/root.squashfs"), "image");

    place.write("home/work/web/root.squashfs", "new image");
    place.commit("home/work", "new page");
    server.world().busy = 1;
    let said = place.pvr("home/work", &["post", &server.url, "-m", "new page"]).good();
    assert_eq!(said, "Successfully posted Revision locals/a (01234567) to device id local\n");
    let device = server.world();
    let posted = &device.posted[0];
    assert_eq!((&posted["commit-msg"], &posted["rev"]), (&json!("new page"), &json!(-1)));
    assert_eq!(posted["state"].to_string(), place.read("home/work/.pvr/json"));
    let sha = posted["state"]["web/root.squashfs"].as_str().unwrap();
    assert_eq!(device.objects[sha], b"new image");
    let uploads =
        device.seen.iter().filter(|seen| seen.line.starts_with("POST") && seen.line.ends_with("/objects/")).count();
    assert_eq!(uploads, 1, "what the device runs is not sent again");
    drop(device);
    // Without an address: where it was posted last.
    place.pvr("home/work", &["post"]).good();
    assert!(server.world().posted[1].get("commit-msg").is_none());
    let rev = place.pvr("home/work", &["--json", "post", "--rev", "locals/mine"]).good();
    assert!(rev.contains(r#""revision":"locals/a""#), "{rev}");
    assert_eq!(server.world().posted[2]["rev"], json!("locals/mine"));
}

#[test]
fn what_the_device_could_not_read_is_not_sent() {
    let place = Place::new();
    small_device(&place, "r");
    let server = hub_of(&place, "r");
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
    // A device of the original may take it: there it is a warning.
    place.write("r/web/lxc.container.conf", "lxc.no.such.key = 1\n");
    place.commit("r", "bad");
    place.pvr("r", &["post", &server.url]).failed(3);
    server.world().is_original = true;
    let said = place.pvr("r", &["post", &server.url]);
    assert!(said.code == 0 && said.err.contains("SB1117") && said.err.contains("may take it"), "{}", said.err);
    assert_eq!(std::mem::take(&mut server.world().posted).len(), 1);
    server.world().is_original = false;
    server.world().seen.clear();
    place.pvr("r", &["undo"]).good();
    place.pvr("r", &["reset"]).good();
    // What is posted is what is committed; that there is more is said.
    place.write("r/web/lxc.container.conf", "lxc.init.cmd = /other\n");
    let message = "x".repeat(257);
    assert!(place.pvr("r", &["post", &server.url, "-m", &message]).err.contains("note: 1 of the files differ"));
    place.pvr("r", &["reset"]).good();
    assert!(place.pvr("r", &["post", &server.url, "-m", &message]).failed(3).contains("256 bytes"));
    let device = server.world();
    assert!(device.posted.is_empty() && !device.seen.iter().any(|seen| !seen.line.starts_with("GET")));
}

#[test]
fn a_refusal_shows_the_devices_words() {
    let place = Place::new();
    small_device(&place, "r");
    let server = hub_of(&place, "r");
    let refuse = |status, answer| server.world().refuse = Some((status, answer));
    refuse(
        422,
        json!({"Error": "an object of the revision is not on the device", "code": "SB1201", "key": "web/x", "at": 7}),
    );
    let error = place.pvr("r", &["post", &server.url]).failed(5);
    assert!(error.contains("SB1201: an object of the revision is not on the device (web/x) at byte 7"), "{error}");
    refuse(503, json!({"Error": "another update is running", "code": "SB1402"}));
    let error = place.pvr("r", &["post", &server.url]).failed(5);
    assert!(error.contains("SB1402") && error.contains("hint: it is busy"), "{error}");
}

#[test]
fn damage_on_the_way_is_noticed_and_nothing_is_left() {
    let place = Place::new();
    small_device(&place, "r");
    let server = hub_of(&place, "r");
    std::fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    server.world().damage = true;
    let error = place.pvr("home", &["clone", &server.url, "work"]).failed(4);
    assert!(error.contains("other content"), "{error}");
    assert!(!place.path("home/work").exists());
    assert_eq!(std::fs::read_dir(place.path("home/.pvr/objects")).unwrap().count(), 0);
}

#[test]
fn a_state_with_a_path_outside_is_refused() {
    let place = Place::new();
    let state = json!({"#spec": "pantavisor-service-system@1", "../evil.json": {}});
    let server = Hub::start(World::of(state));
    assert!(place.pvr("home", &["clone", &server.url, "work"]).failed(3).contains("not a plain path"));
    assert!(!place.path("evil.json").exists() && !place.path("home/work").exists());
}

#[test]
fn parts_of_a_device() {
    let place = Place::new();
    small_device(&place, "r");
    let server = hub_of(&place, "r");
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
