//! Who is told which token.

mod common;

use common::{
    Place,
    hub::{Hub, World},
    small_device, world_of,
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};

/// A hub that asks for one of these tokens.
fn hub(place: &Place, tokens: &[&'static str], login: Option<&'static str>) -> Hub {
    small_device(place, "r");
    Hub::start(World { is_hub: true, tokens: tokens.to_vec(), login, ..world_of(place, "r") })
}

/// Tokens of requests, apart from signed addresses (the hub sees to these) and logins.
fn carried(hub: &Hub) -> Vec<String> {
    let seen = std::mem::take(&mut hub.world().seen);
    let requests = seen.iter().filter(|seen| !seen.line.contains("/blobs/") && !seen.line.contains("/auth/"));
    requests.map(|seen| seen.header("authorization").to_owned()).collect()
}

/// Writes `auth.json` with this token for the hub.
fn keep_token(place: &Place, hub: &Hub, token: &str) {
    let key = format!("{}/auth realm=pantahub services", hub.url);
    let document = json!({"spec": "1", "more": [1], "tokens": {
        "other": {"Name": "o", "access-token": "x", "refresh-token": "y"},
        key: {"Name": "", "access-token": token, "refresh-token": token}}});
    place.write("home/.pvr/auth.json", document.to_string());
}

fn kept(place: &Place) -> Value {
    serde_json::from_str(&place.read("home/.pvr/auth.json")).unwrap()
}

#[test]
fn the_token_that_was_given_is_used_from_the_start() {
    let place = Place::new();
    let hub = hub(&place, &["mine"], None);
    let url = format!("{}/trails/t1", hub.url);
    place.pvr("r", &["--access-token", "mine", "post", &url]).good();
    assert!(carried(&hub).iter().all(|header| header == "Bearer mine"));
    place.pvr_with("home", &["clone", &url, "c"], &[("PVR_ACCESSTOKEN", "mine")]).good();
    let error = place.pvr("home", &["-a", "wrong", "clone", &url, "d"]).failed(5);
    assert!(error.contains("HTTP 401") && error.contains("hint: it wants to know who you are"), "{error}");
    assert!(error.contains("pvr device pair ADDRESS") && error.contains("--access-token"), "{error}");
    assert!(hub.world().seen.iter().all(|seen| !seen.line.contains("/auth/")), "nothing else is tried");
}

#[test]
fn a_device_wants_its_token_for_content_too() {
    let place = Place::new();
    let hub = hub(&place, &["mine"], None);
    hub.world().is_hub = false;
    fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    place.pvr("home", &["-a", "mine", "clone", &hub.url, "c"]).good();
    place.write("home/c/web/root.squashfs", "new");
    place.commit("home/c", "new");
    place.pvr("home/c", &["-a", "mine", "post"]).good();
    let seen = std::mem::take(&mut hub.world().seen);
    let of_content: Vec<_> = seen.iter().filter(|seen| seen.line.contains("/blobs/")).collect();
    assert!(of_content.iter().any(|seen| seen.line.starts_with("PUT")) && of_content.len() > 1);
    assert!(of_content.iter().all(|seen| seen.header("authorization") == "Bearer mine"));
    // One that was paired is known by its address.
    let address = hub.url.strip_prefix("http://").unwrap();
    let device = json!({"address": address, "name": "d", "fingerprint": null, "token": "mine", "id": "1"});
    place.write("home/.pvr/devices.json", json!({"devices": [device]}).to_string());
    fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    place.pvr("home", &["clone", &hub.url, "paired"]).good();
    assert!(carried(&hub).iter().all(|header| header == "Bearer mine"));
}

#[test]
fn a_token_that_is_kept_is_found_by_the_challenge() {
    let place = Place::new();
    let hub = hub(&place, &["kept"], None);
    keep_token(&place, &hub, "kept");
    place.pvr("r", &["post", &format!("{}/trails/t1", hub.url)]).good();
    let carried = carried(&hub);
    assert_eq!(carried[..2], ["", "Bearer kept"], "the first request asks who is wanted");
    assert!(carried[1..].iter().all(|header| header == "Bearer kept"));
}

#[test]
fn a_token_that_is_too_old_is_exchanged_and_kept() {
    let place = Place::new();
    let hub = hub(&place, &["new"], Some("new"));
    keep_token(&place, &hub, "old");
    place.pvr("r", &["post", &format!("{}/trails/t1", hub.url)]).good();
    assert_eq!(carried(&hub)[..3], ["", "Bearer old", "Bearer new"]);
    let kept = kept(&place);
    let entry = &kept["tokens"][format!("{}/auth realm=pantahub services", hub.url)];
    assert_eq!(*entry, json!({"Name": "", "access-token": "new", "refresh-token": "new"}));
    assert_eq!((&kept["tokens"]["other"]["access-token"], &kept["more"]), (&json!("x"), &json!([1])), "the rest stays");
    let mode = fs::metadata(place.path("home/.pvr/auth.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn reading_is_tried_as_nobody_who_is_not_remembered() {
    let place = Place::new();
    let hub = hub(&place, &["nobody"], Some("nobody"));
    let url = format!("{}/trails/t1", hub.url);
    fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    place.pvr("home", &["clone", &url, "c"]).good();
    assert!(!place.path("home/.pvr/auth.json").exists());
    let logins = hub.world().seen.iter().filter(|seen| seen.line == "POST /auth/login").count();
    assert_eq!(logins, 1, "once, although several objects are fetched at the same time");
    place.write("home/c/web/root.squashfs", "new");
    place.commit("home/c", "new");
    let error = place.pvr("home/c", &["post"]).failed(5);
    assert!(error.contains("HTTP 401") && error.contains("--access-token"), "{error}");
    assert!(hub.world().posted.is_empty());
}

#[test]
fn a_server_that_wants_a_login_it_does_not_give() {
    let place = Place::new();
    let hub = hub(&place, &["mine"], None);
    let error = place.pvr("home", &["clone", &format!("{}/trails/t1", hub.url), "c"]).failed(5);
    assert!(error.contains("HTTP 401: Not Authorized") && error.contains("PVR_ACCESSTOKEN"), "{error}");
    assert!(!place.path("home/c").exists());
    // One that asks again and again, whatever it is given.
    keep_token(&place, &hub, "kept");
    hub.world().login = Some("also wrong");
    place.pvr("home", &["clone", &format!("{}/trails/t1", hub.url), "c"]).failed(5);
    assert_eq!(kept(&place)["tokens"].as_object().unwrap().len(), 2);
}

/// `localhost` is another place than `127.0.0.1`, and both are here.
fn elsewhere(hub: &Hub) -> String {
    hub.url.replace("127.0.0.1", "localhost")
}

#[test]
fn a_token_does_not_follow_a_redirect_elsewhere() {
    let place = Place::new();
    let (hub, thief) = (hub(&place, &["mine"], None), Hub::start(World::of(json!({"#spec": "s"}))));
    thief.world().is_hub = true;
    let to = format!("{}/trails/t1/.pvrremote", elsewhere(&thief));
    let redirect = |status: &str, to: &str| {
        format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    hub.world().scripted.insert("GET /trails/t1/.pvrremote".into(), redirect("302 Found", &to));
    place.pvr("home", &["-a", "mine", "remoteinfo", &format!("{}/trails/t1", hub.url)]).good();
    let (asked, stolen) = (carried(&hub), carried(&thief));
    assert_eq!((asked, stolen), (vec!["Bearer mine".to_owned()], vec![String::new()]));
    // A redirect on the same host takes it along.
    hub.world().scripted.insert("GET /user/device/.pvrremote".into(), redirect("301 X", "/trails/t1/./.pvrremote"));
    hub.world().scripted.remove("GET /trails/t1/.pvrremote");
    hub.world().scripted.insert("GET /trails/t1/./.pvrremote".into(), redirect("307 X", ".pvrremote"));
    let _ = place.pvr("home", &["-a", "mine", "remoteinfo", &format!("{}/user/device", hub.url)]);
    assert!(carried(&hub).iter().all(|header| header == "Bearer mine"));
}

#[test]
fn endpoints_elsewhere_do_not_get_the_token_that_was_given() {
    let place = Place::new();
    let (hub, thief) = (hub(&place, &["mine"], None), Hub::start(World::of(json!({"#spec": "s"}))));
    thief.world().is_hub = true;
    let body =
        json!({"json-get-url": format!("{}/trails/t1/steps/7/state", elsewhere(&thief)), "objects-endpoint": "/o",
        "post-url": format!("{}/trails/t1/steps", elsewhere(&thief)), "json-key": "state"})
        .to_string();
    let answer = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    hub.world().scripted.insert("GET /trails/t1/.pvrremote".into(), answer.into_bytes());
    let url = format!("{}/trails/t1", hub.url);
    place.pvr("home", &["-a", "mine", "inspect", &url]).good();
    assert_eq!(carried(&thief), [""]);
    // Named by the user, it is trusted.
    place.pvr("home", &["-a", "mine", "-b", &elsewhere(&thief), "inspect", &url]).good();
    assert_eq!(carried(&thief), ["Bearer mine"]);
}

#[test]
fn a_challenge_from_elsewhere_does_not_get_the_token_that_is_kept() {
    let place = Place::new();
    let (hub, thief) = (hub(&place, &["kept"], None), Hub::start(World::default()));
    keep_token(&place, &hub, "kept");
    let challenge = format!("JWT realm=\"pantahub services\", ph-aeps=\"{}/auth\"", hub.url);
    let answer = format!("HTTP/1.1 401 X\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n");
    thief.world().scripted.insert("GET /trails/t1/.pvrremote".into(), answer.into_bytes());
    let error = place.pvr("home", &["inspect", &format!("{}/trails/t1", elsewhere(&thief))]).failed(4);
    assert!(error.contains("wants a login at") && error.contains("another place"), "{error}");
    assert_eq!(carried(&thief), [""]);
    assert!(hub.world().seen.is_empty());
}

/// Asks another server, which says that it wants the login of the hub at `login`; what it was told.
fn asked_by_a_thief(place: &Place, login: &str, of: impl Fn(&Hub) -> String) -> Vec<String> {
    let thief = Hub::start(World::default());
    let challenge = format!("JWT realm=\"pantahub services\", ph-aeps=\"{login}/auth\"");
    let answer = format!("HTTP/1.1 401 X\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n");
    thief.world().scripted.insert("GET /trails/t1/.pvrremote".into(), answer.into_bytes());
    let error = place.pvr("home", &["remoteinfo", &format!("{}/trails/t1", of(&thief))]).failed(4);
    assert!(error.contains("wants a login at") && error.contains("another place"), "{error}");
    carried(&thief)
}

#[test]
fn a_token_that_is_kept_goes_to_no_other_port_and_not_out_of_tls() {
    let place = Place::new();
    let hub = hub(&place, &["kept"], None);
    keep_token(&place, &hub, "kept");
    assert_eq!(asked_by_a_thief(&place, &hub.url, |thief| thief.url.clone()), [""], "another port");
    let login = "https://127.0.0.1:9443";
    let document = json!({"spec": "1", "tokens": {
        format!("{login}/auth realm=pantahub services"): {"access-token": "kept", "refresh-token": "kept"}}});
    place.write("home/.pvr/auth.json", document.to_string());
    assert_eq!(asked_by_a_thief(&place, login, |thief| thief.url.clone()), [""], "and without TLS");
    assert!(hub.world().seen.is_empty());
}

#[test]
fn another_port_of_the_host_does_not_get_the_token_that_was_given() {
    let place = Place::new();
    let (hub, thief) = (hub(&place, &["mine"], None), Hub::start(World::of(json!({"#spec": "s"}))));
    thief.world().is_hub = true;
    let to = format!("{}/trails/t1/.pvrremote", thief.url);
    let redirect = format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    hub.world().scripted.insert("GET /trails/t1/.pvrremote".into(), redirect.into_bytes());
    place.pvr("home", &["-a", "mine", "remoteinfo", &format!("{}/trails/t1", hub.url)]).good();
    assert_eq!((carried(&hub), carried(&thief)), (vec!["Bearer mine".to_owned()], vec![String::new()]));
}

#[test]
fn a_token_that_is_exchanged_does_not_follow_a_redirect() {
    let place = Place::new();
    let (hub, thief) = (hub(&place, &["new"], Some("new")), Hub::start(World::default()));
    keep_token(&place, &hub, "old");
    let redirect = format!("HTTP/1.1 307 X\r\nLocation: {}/auth/login\r\nContent-Length: 0\r\n\r\n", thief.url);
    hub.world().scripted.insert("GET /auth/login".into(), redirect.into_bytes());
    let error = place.pvr("r", &["post", &format!("{}/trails/t1", hub.url)]).failed(4);
    assert!(error.contains("where no token is shown"), "{error}");
    assert!(thief.world().seen.is_empty(), "its body would hold the token too");
}
