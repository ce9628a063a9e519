//! The verbs that speak to others: `get`, `merge`, `put`, `putobjects`, `fastcopy`, `remoteinfo`, `stepinfo`, and the
//! sources that are on this machine.

mod common;

use common::{
    Place,
    hub::{Hub, World, sha},
    hub_of, small_device, world_of,
};
use serde_json::{Value, json};

fn keys(place: &Place, folder: &str) -> Vec<String> {
    let state: Value = serde_json::from_str(&place.read(&format!("{folder}/.pvr/json"))).unwrap();
    state.as_object().unwrap().keys().cloned().collect()
}

/// A hub with two applications whose names begin alike, and JSON that can be merged.
fn apps(place: &Place) -> Hub {
    place.repo("apps");
    place.write("apps/app/run.json", r#"{"name":"app","args":{"new":true}}"#);
    place.write("apps/app/image", "app two");
    place.write("apps/appx/image", "appx two");
    place.commit("apps", "apps");
    Hub::start(World { is_hub: true, ..world_of(place, "apps") })
}

/// A repository with an older `app`.
fn work(place: &Place) {
    place.repo("work");
    place.write("work/app/run.json", r#"{"name":"app","args":{"old":1}}"#);
    place.write("work/app/gone", "gone");
    place.write("work/appx/image", "appx one");
    place.write("work/base", "base");
    place.commit("work", "first");
}

#[test]
fn get_replaces_parts_and_merge_merges_them() {
    let place = Place::new();
    let hub = apps(&place);
    work(&place);
    let said = place.pvr("work", &["get", &format!("{}/trails/t1#app", hub.url)]).good();
    assert!(said.contains("3 keys") && said.contains("`pvr checkout`"), "{said}");
    assert_eq!(keys(&place, "work"), ["#spec", "app/image", "app/run.json", "appx/image", "base"]);
    assert_eq!(place.read("work/app/gone"), "gone", "files are written by checkout");
    place.pvr("work", &["checkout"]).good();
    assert_eq!((place.read("work/app/image"), place.read("work/appx/image")), ("app two".into(), "appx one".into()));
    assert!(!place.path("work/app/gone").exists());

    work_again(&place);
    place.pvr("work", &["merge", &format!("{}/trails/t1#app", hub.url)]).good();
    let state: Value = serde_json::from_str(&place.read("work/.pvr/json")).unwrap();
    assert_eq!(state["app/run.json"], json!({"name": "app", "args": {"old": 1, "new": true}}));
    assert_eq!(state["appx/image"], json!(sha(b"appx one")));
    place.pvr("work", &["merge", &format!("{}/trails/t1#-base", hub.url)]).good();
    assert!(!keys(&place, "work").contains(&"base".into()) && keys(&place, "work").contains(&"app/gone".into()));
    let error = place.pvr("work", &["get", &format!("{}/trails/t1#ap", hub.url)]).failed(3);
    assert!(error.contains("no part ap"), "{error}");
}

fn work_again(place: &Place) {
    std::fs::remove_dir_all(place.path("work")).unwrap();
    work(place);
}

#[test]
fn the_default_urls_are_the_originals() {
    let place = Place::new();
    let (first, second) = (apps(&place), Hub::start(World::of(json!({"#spec": "s", "other.json": {}}))));
    let trail = format!("{}/trails/t1", first.url);
    place.pvr("home", &["clone", &trail, "c"]).good();
    let config = |name: &str| {
        let config: Value = serde_json::from_str(&place.read("home/c/.pvr/config")).unwrap();
        config[name].as_str().unwrap().to_owned()
    };
    place.pvr("home/c", &["get", &format!("{}#other.json", second.url)]).good();
    assert_eq!((config("DefaultGetUrl"), config("DefaultPutUrl")), (second.url.clone(), trail.clone()));
    first.lines();
    let said = place.pvr("home/c", &["get"]).good();
    assert!(said.contains("1 key of"), "{said}");
    assert_eq!(first.lines()[0], "GET /trails/t1/.pvrremote", "without a name: where it came from");
    // A source that fails is not remembered.
    place.pvr("home/c", &["get", "http://127.0.0.1:1"]).failed(4);
    assert_eq!(config("DefaultGetUrl"), trail);
    place.repo("fresh");
    for verb in ["get", "merge", "put", "post"] {
        place.pvr("fresh", &[verb]).failed(2);
    }
}

#[test]
fn sources_on_this_machine() {
    let place = Place::new();
    drop(apps(&place));
    place.pvr("apps", &["export", "../apps.pvrexport.tgz"]).good();
    for name in ["apps", "apps/.pvr", "apps.pvrexport.tgz"] {
        let source = place.path(name).display().to_string();
        std::fs::create_dir_all(place.path("own")).unwrap();
        place.pvr("home", &["clone", "-o", "../own/pool", &format!("{source}#app"), "c"]).good();
        assert_eq!(place.read("home/c/app/image"), "app two");
        assert_eq!(keys(&place, "home/c"), ["#spec", "app/image", "app/run.json"], "{name}");
        place.pvr("home/c", &["get", &source]).good();
        assert!(keys(&place, "home/c").contains(&"appx/image".into()));
        place.pvr("home/c", &["merge", &format!("{source}#-app")]).good();
        assert_eq!(keys(&place, "home/c"), ["#spec", "appx/image"]);
        place.pvr("home/c", &["checkout", "--force"]).good();
        std::fs::remove_dir_all(place.path("home/c")).unwrap();
        std::fs::remove_dir_all(place.path("own")).unwrap();
    }
    place.pvr("home", &["clone", "../nothing", "c"]).failed(2);
    assert!(!place.path("home/c").exists());
}

#[test]
fn put_replaces_a_steps_state() {
    let place = Place::new();
    let hub = apps(&place);
    place.pvr("home", &["clone", &format!("{}/trails/t1", hub.url), "c"]).good();
    place.write("home/c/app/image", "app three");
    place.commit("home/c", "three");
    hub.lines();
    let said = place.pvr("home/c", &["put"]).good();
    assert!(said.starts_with("Successfully put"), "{said}");
    let seen = std::mem::take(&mut hub.world().seen);
    let lines: Vec<_> = seen.iter().map(|seen| seen.line.as_str()).collect();
    let blob = format!("PUT /blobs/{}", sha(b"app three"));
    let state = "/trails/t1/steps/7/state";
    let expected = [
        "GET /trails/t1/.pvrremote",
        &format!("GET {state}"),
        "POST /trails/t1/steps/7/objects/",
        &blob,
        &format!("PUT {state}"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(seen[4].header("content-type"), "application/json; charset=utf-8");
    assert_eq!(String::from_utf8_lossy(&seen[4].body), place.read("home/c/.pvr/json"));
    hub.world().scripted.insert(format!("PUT {state}"), b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n".to_vec());
    place.pvr("home/c", &["put"]).failed(5);
}

#[test]
fn putobjects_sends_all_and_nothing_else() {
    let place = Place::new();
    let hub = apps(&place);
    let objects = std::mem::take(&mut hub.world().objects);
    place.pvr("apps", &["putobjects", &format!("{}/objects/", hub.url)]).good();
    assert_eq!(hub.world().objects, objects);
    let lines = hub.lines();
    assert_eq!(lines.len(), 2 * objects.len());
    assert!(lines.iter().all(|line| line == "POST /objects/" || line.starts_with("PUT /blobs/")), "{lines:?}");
    place.pvr("apps", &["putobjects", "nowhere"]).failed(2);
    place.pvr("home", &["putobjects", &hub.url]).failed(2);
}

#[test]
fn fastcopy_moves_states_only() {
    let place = Place::new();
    let (from, to) =
        (apps(&place), Hub::start(World::of(json!({"#spec": "s@1", "app/old": "0".repeat(64), "k.json": 1}))));
    to.world().is_hub = true;
    let urls = [&from, &to].map(|hub| format!("{}/trails/t1", hub.url));
    let said = place.pvr("home", &["fastcopy", &format!("{}#app", urls[0]), &urls[1], "-m", "copied"]).good();
    assert_eq!(said, "Successfully posted Revision 8 (01234567) to device id t1\n");
    assert_eq!(from.lines(), ["GET /trails/t1/.pvrremote", "GET /trails/t1/steps/7/state"]);
    assert_eq!(to.lines(), ["GET /trails/t1/.pvrremote", "GET /trails/t1/steps/7/state", "POST /trails/t1/steps"]);
    let posted = to.world().posted.pop().unwrap();
    let state = posted["state"].as_object().unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["#spec", "app/image", "app/run.json", "k.json"]);
    assert_eq!((&posted["rev"], &posted["commit-msg"]), (&json!(-1), &json!("copied")));
    place.pvr("home", &["fcp", &format!("{}#app", urls[0]), &format!("{}#b,c", urls[1])]).failed(2);
    place.pvr("home", &["fastcopy", "--merge", &format!("{}#app", urls[0]), &format!("{}#b", urls[1])]).good();
    let posted = to.world().posted.pop().unwrap();
    assert!(posted["state"]["app/old"].is_string() && posted["state"]["b/image"].is_string());
    let error = place.pvr("home", &["fastcopy", &urls[0], &urls[0]]).failed(3);
    assert!(error.contains("--force"), "{error}");
}

#[test]
fn what_a_remote_says_of_itself() {
    let place = Place::new();
    let hub = apps(&place);
    let base = ["--repo-baseurl", &hub.url];
    let said = place.pvr("home", &[&base[..], &["remoteinfo", "user/device", "-c"]].concat()).good();
    let info: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(info["pvr-spec"], "pvr-pantahub-1");
    assert!(said.starts_with(r#"{"json-get-url":"#) && said.lines().count() == 1, "canonical: {said}");
    let said = place.pvr_with("home", &["ri", "user/device"], &[("PVR_REPO_BASEURL", &hub.url)]).good();
    assert!(said.starts_with("{\n\t\"json-get-url\": "), "{said}");
    let step = place.pvr("home", &["--json", "stepinfo", &format!("{}/trails/t1", hub.url)]).good();
    assert_eq!(serde_json::from_str::<Value>(&step).unwrap()["rev"], 7);
    assert_eq!(hub.lines().last().unwrap(), "GET /trails/t1/steps/7");
    let error = place.pvr("home", &["remoteinfo", "."]).failed(2);
    assert!(error.contains("on this machine"), "{error}");
}

#[test]
fn inspect_and_deploy_take_every_source() {
    let place = Place::new();
    let hub = apps(&place);
    let trail = format!("{}/trails/t1", hub.url);
    let said = place.pvr("home", &["inspect", "-c", &format!("{trail}#appx")]).good();
    assert_eq!(
        said.trim(),
        json!({"#spec": "pantavisor-service-system@1", "appx/image": sha(b"appx two")}).to_string()
    );
    place.pvr("home", &["deploy", "build", &format!("{trail}#app"), "../apps#appx"]).good();
    assert_eq!(place.read("home/build/appx/image"), "appx two");
    let error = place.pvr("home", &["inspect", "no/such/thing"]).failed(2);
    assert!(error.contains("neither here nor an address"), "{error}");
}

#[test]
fn the_bare_address_of_a_device_and_its_cgi_bin() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    for (path, first) in
        [("", "/.pvrremote"), ("/cgi-bin", "/cgi-bin/.pvrremote"), ("/cgi-bin/pvr", "/cgi-bin/pvr/.pvrremote")]
    {
        place.pvr("r", &["post", &format!("{}{path}", hub.url)]).good();
        assert_eq!(hub.lines()[0], format!("GET {first}"));
    }
    place.pvr("r", &["post", &format!("{}/elsewhere", hub.url)]).failed(5);
}
