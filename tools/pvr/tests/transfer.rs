//! What goes over the wire: the original's sequences to the byte, and what happens when it breaks.

mod common;

use common::{
    Place,
    hub::{Hub, Seen, World, sha},
    hub_of, small_device, world_of,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs};

/// A repository `r` that was made here, a hub with its state, and an empty pool: everything has to be fetched.
fn hub_with_empty_pool(place: &Place, set: impl FnOnce(&mut World)) -> Hub {
    small_device(place, "r");
    let mut world = world_of(place, "r");
    world.is_hub = true;
    set(&mut world);
    fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    Hub::start(world)
}

/// Names in the pool: objects, and parts of objects.
fn pool(place: &Place) -> (BTreeSet<String>, BTreeSet<String>) {
    let files = fs::read_dir(place.path("home/.pvr/objects")).unwrap().map(|e| e.unwrap());
    let names = files.filter(|e| e.path().is_file()).map(|e| e.file_name());
    names.map(|name| name.into_string().unwrap()).partition(|name| !name.starts_with('.'))
}

fn config(place: &Place, folder: &str) -> Value {
    serde_json::from_str(&place.read(&format!("{folder}/.pvr/config"))).unwrap()
}

#[test]
fn a_post_is_the_originals_sequence() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = Hub::start(World { is_hub: true, ..world_of(&place, "r") });
    place.write("r/web/root.squashfs", "new image");
    place.commit("r", "second");
    let url = format!("{}/trails/t1", hub.url);
    let said = place.pvr("r", &["post", &url, "-m", "hello", "-e", r#"{"meta":{"n":1.0}}"#]).good();
    assert_eq!(said, "Successfully posted Revision 8 (01234567) to device id t1\n");

    let seen: Vec<Seen> = hub.world().seen.drain(..).collect();
    let new = sha(b"new image");
    let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    let put = format!("PUT /blobs/{new}");
    let objects = "POST /trails/t1/steps/7/objects/";
    let state = "GET /trails/t1/steps/7/state";
    assert_eq!(lines, ["GET /trails/t1/.pvrremote", state, objects, &put, "POST /trails/t1/steps"]);
    for get in &seen[..2] {
        assert_eq!((get.header("accept-encoding"), get.header("authorization")), ("gzip", ""));
    }
    let record: Value = serde_json::from_slice(&seen[2].body).unwrap();
    let expected = json!({"id": "", "storage-id": "", "owner": "", "objectname": "web/root.squashfs",
        "sha256sum": new, "size": "9", "mime-type": "application/octet-stream", "signed-puturl": "",
        "signed-geturl": "", "now": "", "expire-time": ""});
    assert_eq!((record, seen[2].header("content-type")), (expected, "application/json; charset=utf-8"));
    assert_eq!((&seen[3].body[..], seen[3].header("content-length")), (&b"new image"[..], "9"));
    assert_eq!((seen[3].header("content-range"), seen[3].header("expect")), ("", ""));
    let state = place.read("r/.pvr/json");
    let body = format!(r#"{{"commit-msg":"hello","meta":{{"n":1}},"rev":-1,"state":{state}}}"#);
    assert_eq!(String::from_utf8_lossy(&seen[4].body), body, "canonical, and called text");
    assert_eq!(seen[4].header("content-type"), "text/plain; charset=utf-8");

    let config = config(&place, "r");
    let urls = ["DefaultPostUrl", "DefaultGetUrl", "DefaultPutUrl"].map(|name| config[name].clone());
    assert_eq!(urls, [json!(url), json!(url), json!(url)]);
}

#[test]
fn a_clone_is_the_originals_sequence() {
    let place = Place::new();
    let hub = hub_with_empty_pool(&place, |world| world.gzip = true);
    place.pvr("home", &["clone", &format!("{}/trails/t1", hub.url)]).good();
    let lines = hub.lines();
    assert_eq!(lines[..2], ["GET /trails/t1/.pvrremote", "GET /trails/t1/steps/7/state"]);
    let shas: Vec<String> = hub.world().objects.keys().cloned().collect();
    let of = |sha: &String| [format!("GET /trails/t1/steps/7/objects/{sha}"), format!("GET /blobs/{sha}")];
    let expected: BTreeSet<String> = shas.iter().flat_map(of).collect();
    assert_eq!(lines[2..].iter().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(lines.len(), 2 + 2 * shas.len(), "each of them once");
    assert_eq!(place.read("home/t1/web/root.squashfs"), "image");
    let url = json!(format!("{}/trails/t1", hub.url));
    let config = config(&place, "home/t1");
    assert_eq!((&config["DefaultGetUrl"], &config["DefaultPostUrl"]), (&url, &url), "the first fills all three");
    // What is in the pool and right is not fetched again; what is damaged is.
    let path = place.path(&format!("home/.pvr/objects/{}", sha(b"image")));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "imagf").unwrap();
    place.pvr("home", &["clone", &format!("{}/trails/t1", hub.url), "again"]).good();
    assert_eq!(hub.lines().iter().filter(|line| line.contains("/blobs/")).count(), 1);
    assert_eq!(place.read("home/again/web/root.squashfs"), "image");
}

/// A large object, so that a part of it is something.
fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(3_000_000).collect()
}

#[test]
fn a_download_that_breaks_goes_on_where_it_broke() {
    let place = Place::new();
    let content = large();
    let name = sha(&content);
    let hub = hub_with_empty_pool(&place, |world| {
        world.state = json!({"#spec": "pantavisor-service-system@1", "large": name});
        world.objects.insert(name.clone(), content.clone());
        (world.cut_downloads, world.cut_at) = (3, 1_000_000);
    });
    place.pvr("home", &["clone", &hub.url, "work"]).good();
    assert_eq!(fs::read(place.path("home/work/large")).unwrap(), content);
    let seen = hub.world().seen.clone();
    let blobs: Vec<_> = seen.iter().filter(|seen| seen.line.contains("/blobs/")).collect();
    let asked: Vec<_> = blobs.iter().map(|seen| (seen.header("range"), seen.header("if-range"))).collect();
    let tag = format!("\"{name}\"");
    // How much of what was sent arrives before the break is the network's business; that it goes on is not.
    assert!(asked.len() >= 2 && asked[0] == ("", ""), "{asked:?}");
    assert!(asked[1..].iter().all(|(range, when)| range.starts_with("bytes=") && *when == tag), "{asked:?}");
    assert!(blobs.iter().all(|seen| seen.header("accept-encoding") == "identity"));
    assert_eq!(pool(&place).1, BTreeSet::new(), "no part is left");
}

#[test]
fn what_a_run_did_not_get_the_next_one_goes_on_with() {
    let place = Place::new();
    let content = large();
    let name = sha(&content);
    let hub = hub_with_empty_pool(&place, |world| {
        world.state = json!({"#spec": "pantavisor-service-system@1", "large": name});
        world.objects.insert(name.clone(), content.clone());
        (world.cut_downloads, world.cut_at) = (1, 2_000_000);
        world.scripted.insert(format!("GET /blobs/{name}"), Vec::new());
    });
    // A part is what an earlier run left.
    let part = place.path(&format!("home/.pvr/objects/.pvr-part-{name}"));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &content[..1_000_000]).unwrap();
    let error = place.pvr("home", &["clone", &hub.url, "work"]).failed(4);
    assert!(error.contains("hint: 1000000 of its bytes are kept; the next run goes on from there"), "{error}");
    assert!(!place.path("home/work").exists());
    assert_eq!(pool(&place), (BTreeSet::new(), BTreeSet::from([format!(".pvr-part-{name}")])), "no final name");
    hub.world().scripted.clear();
    hub.world().cut_downloads = 0;
    hub.lines();
    place.pvr("home", &["clone", &hub.url, "work"]).good();
    assert_eq!(fs::read(place.path("home/work/large")).unwrap(), content);
    let seen = hub.world().seen.clone();
    let ranges: Vec<_> =
        seen.iter().filter(|seen| seen.line.contains("/blobs/")).map(|seen| seen.header("range")).collect();
    assert_eq!(ranges, ["bytes=1000000-"]);
}

#[test]
fn a_part_that_is_wrong_is_fetched_as_a_whole() {
    for (no_ranges, left) in
        [(false, b"something else".to_vec()), (true, large()[..1000].to_vec()), (false, vec![7; 4_000_000])]
    {
        let place = Place::new();
        let content = large();
        let name = sha(&content);
        let hub = hub_with_empty_pool(&place, |world| {
            world.state = json!({"#spec": "pantavisor-service-system@1", "large": name});
            world.objects.insert(name.clone(), content.clone());
            world.no_ranges = no_ranges;
        });
        let part = place.path(&format!("home/.pvr/objects/.pvr-part-{name}"));
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(&part, left).unwrap();
        place.pvr("home", &["clone", &hub.url, "work"]).good();
        assert_eq!(fs::read(place.path("home/work/large")).unwrap(), content);
        assert_eq!(pool(&place).1, BTreeSet::new());
    }
}

#[test]
fn an_upload_that_breaks_goes_on_if_the_server_can() {
    for resumes in [true, false] {
        let place = Place::new();
        small_device(&place, "r");
        let hub = hub_of(&place, "r");
        let content = large();
        place.write("r/web/root.squashfs", &content);
        place.commit("r", "large");
        {
            let mut world = hub.world();
            world.parts = resumes.then(Default::default);
            (world.cut_uploads, world.cut_at) = (2, 1_000_000);
        }
        place.pvr("r", &["post", &hub.url]).good();
        let world = hub.world();
        assert_eq!(world.objects[&sha(&content)], content);
        let puts = world.seen.iter().filter(|seen| seen.line.starts_with("PUT"));
        let asked: Vec<_> = puts.map(|seen| (seen.header("content-range"), seen.header("content-length"))).collect();
        let rest = [
            ("", "3000000"),
            ("bytes 1000000-2999999/3000000", "2000000"),
            ("bytes 2000000-2999999/3000000", "1000000"),
        ];
        let whole = [("", "3000000"); 3];
        assert_eq!(asked, if resumes { rest } else { whole });
        let announced = world.seen.iter().filter(|seen| seen.line.ends_with("/objects/")).count();
        assert_eq!(announced, 3, "it is asked again what has arrived");
    }
}

/// Announced uploads of one object: what was sent of it each time, by its range and length.
fn sent_with(place: &Place, hub: &Hub, part: &[u8], content: &[u8]) -> Vec<(String, String)> {
    place.write("r/web/root.squashfs", content);
    place.commit("r", "x");
    hub.world().parts = Some([(sha(content), part.to_vec())].into());
    place.pvr("r", &["post", &hub.url]).good();
    let world = hub.world();
    assert_eq!(world.objects[&sha(content)], content);
    let puts = world.seen.iter().filter(|seen| seen.line.starts_with("PUT"));
    puts.map(|seen| (seen.header("content-range").to_owned(), seen.header("content-length").to_owned())).collect()
}

#[test]
fn a_server_that_holds_all_of_it_or_more_and_still_wants_it_gets_all_of_it() {
    for more in [0, 1] {
        let place = Place::new();
        small_device(&place, "r");
        let hub = hub_of(&place, "r");
        let part = vec![7; 1000 + more];
        let sent = sent_with(&place, &hub, &part, &[7; 1000]);
        assert_eq!(sent, [(String::new(), "1000".to_owned())], "no upload of nothing, which an empty object is");
    }
}

#[test]
fn what_a_server_holds_of_somebody_else_costs_one_more_upload() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    let sent = sent_with(&place, &hub, &[9; 400], &[7; 1000]);
    let rest = ("bytes 400-999/1000".to_owned(), "600".to_owned());
    assert_eq!(sent, [rest, (String::new(), "1000".to_owned())]);
}

#[test]
fn an_upload_that_never_ends_is_an_error() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    place.write("r/web/root.squashfs", "another image");
    place.commit("r", "x");
    (hub.world().cut_uploads, hub.world().cut_at) = (100, 3);
    let error = place.pvr("r", &["post", &hub.url]).failed(4);
    assert!(error.contains("hint: try again"), "{error}");
    assert!(hub.world().posted.is_empty());
    hub.world().cut_uploads = 0;
    place.pvr("r", &["post", &hub.url]).good();
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    place.write("r/web/root.squashfs", "another image");
    place.commit("r", "x");
    (hub.world().busy, hub.world().retry_after) = (2, Some(1));
    place.pvr("r", &["post", &hub.url]).good();
    assert_eq!(hub.lines().iter().filter(|line| line.starts_with("PUT")).count(), 3);
    // One that wants more patience than there is gets an answer that says so.
    (hub.world().busy, hub.world().retry_after) = (1, Some(100_000));
    hub.world().objects.clear();
    let said = place.pvr("r", &["post", &hub.url]).good();
    assert!(said.starts_with("Successfully"), "no pause is longer than we want: {said}");
}

#[test]
fn a_full_server_keeps_what_it_has() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    place.write("r/web/root.squashfs", "another image");
    place.commit("r", "x");
    let put = format!("PUT /cgi-bin/pvr/blobs/{}", sha(b"another image"));
    let body = r#"{"Error":"no room on storage","code":"SB1204"}"#;
    let answer = format!("HTTP/1.1 507 X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    hub.world().scripted.insert(put, answer.into_bytes());
    let error = place.pvr("r", &["post", &hub.url]).failed(5);
    assert!(
        error.contains("HTTP 507: SB1204: no room on storage") && error.contains("hint: its storage is full"),
        "{error}"
    );
    assert!(hub.world().posted.is_empty());
}

#[test]
fn force_sends_again_but_not_another_owners() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    let objects = hub.world().objects.len();
    place.pvr("r", &["post", &hub.url]).good();
    assert_eq!(hub.lines().iter().filter(|line| line.starts_with("PUT")).count(), 0, "it has all of them");
    place.pvr("r", &["post", "--force", &hub.url]).good();
    assert_eq!(hub.lines().iter().filter(|line| line.starts_with("PUT")).count(), objects);
    hub.world().links = true;
    place.pvr("r", &["post", "--force", &hub.url]).good();
    assert_eq!(hub.lines().iter().filter(|line| line.starts_with("PUT")).count(), 0);
}

#[test]
fn a_damaged_pool_is_noticed_before_it_is_sent() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = hub_of(&place, "r");
    hub.world().objects.clear();
    hub.world().state = json!({});
    let path = place.path(&format!("home/.pvr/objects/{}", sha(b"image")));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "imagf").unwrap();
    let error = place.pvr("r", &["post", &hub.url]).failed(3);
    assert!(error.contains("is damaged"), "{error}");
    assert!(hub.world().posted.is_empty());
}

#[test]
fn two_runs_fetch_the_same_object_once() {
    let place = Place::new();
    let content = large();
    let name = sha(&content);
    let hub = hub_with_empty_pool(&place, |world| {
        world.state = json!({"#spec": "pantavisor-service-system@1", "large": name});
        world.objects.insert(name.clone(), content.clone());
    });
    std::thread::scope(|scope| {
        for folder in ["one", "two", "three"] {
            let (place, url) = (&place, &hub.url);
            scope.spawn(move || place.pvr("home", &["clone", url, folder]).good());
        }
    });
    for folder in ["one", "two", "three"] {
        assert_eq!(fs::read(place.path(&format!("home/{folder}/large"))).unwrap(), content);
    }
    assert_eq!(hub.lines().iter().filter(|line| line.contains("/blobs/")).count(), 1);
    assert_eq!(pool(&place), (BTreeSet::from([name]), BTreeSet::new()));
}
