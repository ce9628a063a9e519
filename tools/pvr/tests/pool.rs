//! A pool that many users share: `gc` keeps what any of them needs, and no verb lets go of it too early.

mod common;

use common::{Place, hub::Hub, small_device, world_of};
use std::fs;

const LIST: &str = "pool/.repositories/list";

/// A repository of a user with a configuration of his own, whose objects are in the common pool.
fn user(place: &Place, name: &str, content: &str) {
    fs::create_dir(place.path(name)).unwrap();
    let config = place.path(&format!("config-{name}"));
    let pvr = |args: &[&str]| place.pvr(name, &[&["-c", config.to_str().unwrap()], args].concat()).good();
    pvr(&["init", "--objects", place.path("pool").to_str().unwrap()]);
    place.write(&format!("{name}/file"), content);
    pvr(&["add", "."]);
    pvr(&["commit"]);
}

fn gc(place: &Place, user: &str, args: &[&str]) -> common::Said {
    let config = place.path(&format!("config-{user}"));
    place.pvr(user, &[&["-c", config.to_str().unwrap(), "gc", "--days", "0"], args].concat())
}

#[test]
fn gc_knows_the_repositories_of_every_user_of_the_pool() {
    let place = Place::new();
    user(&place, "anna", "hers");
    user(&place, "ben", "his");
    for _ in 0..3 {
        let report = gc(&place, "anna", &[]).good();
        assert!(report.contains("      2 objects           1 kB  kept: needed"), "{report}");
    }
    // A clone counts from its first moment, also when its user never runs another verb.
    let pool = place.path("pool");
    let args = ["-c", "../config-carl", "clone", "../anna/.pvr", "../carl", "--objects", pool.to_str().unwrap()];
    place.pvr("anna", &args).good();
    fs::remove_dir_all(place.path("config-carl")).unwrap();
    place.write("anna/file", "hers, but newer");
    assert!(place.read(LIST).contains("/carl\n"));
    // What cannot be read is not taken for gone.
    fs::rename(place.path("ben"), place.path("moved")).unwrap();
    let error = gc(&place, "anna", &[]).failed(1);
    assert!(error.contains("nothing was done") && error.contains("gc --forget") && error.contains("/ben"), "{error}");
    let gone = place.path("ben");
    let report = gc(&place, "anna", &["--forget", gone.to_str().unwrap()]).good();
    assert!(report.contains("      1 objects           1 kB  put aside"), "{report}");
    assert!(!place.read(LIST).contains("/ben\n"));
}

/// A repository whose history is damaged lives; to forget it would be its end.
#[test]
fn only_a_repository_that_is_gone_is_said_to_be_forgotten() {
    for file in ["states", "json", "config", "new"] {
        let place = Place::new();
        user(&place, "anna", "hers");
        let damaged = match file {
            "states" => {
                fs::read_dir(place.path("anna/.pvr/switchback/states")).unwrap().next().unwrap().unwrap().path()
            }
            file => place.path("anna/.pvr").join(file),
        };
        fs::write(damaged, "{").unwrap();
        user(&place, "ben", "his");
        let error = gc(&place, "ben", &[]).failed(3);
        assert!(error.contains("nothing was done") && !error.contains("--forget"), "{file}: {error}");
    }
}

/// Where each line of a trace that has this word stands.
fn first(trace: &str, word: &str) -> usize {
    trace.lines().position(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word} in\n{trace}"))
}

/// A repository is noted while the lock is held that keeps `gc` away: a `pvr` that is killed right after has done it.
#[test]
fn a_repository_is_noted_under_the_lock() {
    let place = Place::new();
    user(&place, "anna", "hers");
    fs::create_dir(place.path("ben")).unwrap();
    place.pvr("ben", &["init", "--objects", place.path("pool").to_str().unwrap()]).good();
    fs::remove_dir_all(place.path("pool/.repositories")).unwrap();
    place.write("ben/file", "his");
    let calls = ["-e", "trace=flock,rename,renameat,renameat2,close"];
    let check = |trace: &str, change: &str| {
        let pool = place.path("pool").display().to_string();
        let shared = first(trace, &format!("{pool}>, LOCK_SH"));
        let noted = first(trace, "pool/.repositories/list\"");
        let closed = trace
            .lines()
            .enumerate()
            .skip(shared)
            .find(|(_, line)| line.contains("close(") && line.contains(&format!("<{pool}>")));
        assert!(shared < noted && closed.is_none_or(|(at, _)| noted < at), "{trace}");
        assert!(trace.contains(change), "{trace}");
    };
    check(&place.traced("ben", &calls, &["add", "."]), "ben/.pvr/new\"");
    assert!(place.read(LIST).ends_with("/ben\n"));
    let pool = place.path("pool");
    let args = ["clone", "../anna/.pvr", "../carl", "--objects", pool.to_str().unwrap()];
    check(&place.traced("ben", &calls, &args), "/carl\"");
    assert!(place.read(LIST).contains("/carl\n") && !place.read(LIST).contains("pvr-clone-"));
}

/// Verbs that send objects hold the pool before they look for the first one.
#[test]
fn objects_are_looked_for_under_the_lock() {
    for verb in ["post", "put", "putobjects"] {
        let place = Place::new();
        small_device(&place, "r");
        let hub = Hub::start(common::hub::World { is_hub: true, ..world_of(&place, "r") });
        let url = match verb {
            "putobjects" => format!("{}/objects/", hub.url),
            _ => format!("{}/trails/t1", hub.url),
        };
        place.write("r/web/root.squashfs", "newer");
        place.pvr("r", &["commit"]).good();
        let trace = place.traced("r", &["-e", "trace=flock,%file"], &[verb, &url]);
        let objects = place.path("home/.pvr/objects").display().to_string();
        assert!(first(&trace, &format!("{objects}>, LOCK_SH")) < first(&trace, &format!("\"{objects}/")[..]), "{verb}");
    }
}

/// The names of fetched objects are durable before a state has them.
#[test]
fn names_of_fetched_objects_are_durable_before_the_state() {
    let place = Place::new();
    small_device(&place, "r");
    let hub = Hub::start(world_of(&place, "r"));
    fs::remove_dir_all(place.path("home/.pvr/objects")).unwrap();
    place.repo("new");
    let calls = ["-e", "trace=rename,renameat,renameat2,fsync"];
    let trace = place.traced("new", &calls, &["get", &hub.url]);
    let objects = place.path("home/.pvr/objects").display().to_string();
    let last =
        trace.lines().collect::<Vec<_>>().iter().rposition(|line| line.contains("/.pvr-part-")).expect("fetched");
    let state = first(&trace, ".pvr/json\"");
    let synced = trace
        .lines()
        .skip(last)
        .take(state - last)
        .any(|line| line.contains("fsync(") && line.contains(&format!("<{objects}>")));
    assert!(synced, "{trace}");
}
