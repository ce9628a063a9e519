//! Names and texts that others chose: what a terminal would take for commands, and what breaks lines.

mod common;

use common::Place;
use serde_json::json;
use std::{fs, time::Duration};

/// A repository whose state, made by another program, names this file, which is there.
fn with_file(name: &str) -> Place {
    let place = Place::new();
    place.repo("r");
    place.write("r/plain", "x");
    place.commit("r", "x");
    let mut state: serde_json::Value = serde_json::from_str(&place.read("r/.pvr/json")).unwrap();
    state[name] = state["plain"].clone();
    place.write("r/.pvr/json", state.to_string());
    place.write(&format!("r/{name}"), "x");
    // Files that were just written are not remembered.
    std::thread::sleep(Duration::from_millis(100));
    place
}

/// A carriage return at the end of a name is part of the name, also in the cache of hashes.
#[test]
fn a_name_with_a_carriage_return_is_no_panic() {
    let place = with_file("a\r");
    for _ in 0..3 {
        assert_eq!(place.pvr("r", &["status"]).good(), "");
    }
    assert!(place.read("r/.pvr/switchback/hashes").contains("a\r\n"), "it was remembered");
    place.write("r/a\r", "y");
    assert_eq!(place.pvr("r", &["status"]).good(), "C a\\r\n");
    for verb in ["commit", "reset", "export"] {
        let args = if verb == "export" { &[verb, "x.tgz"][..] } else { &[verb] };
        let error = place.pvr("r", args).failed(3);
        assert!(error.contains("\"a\\r\" is not a plain path") && error.contains("no control character"), "{error}");
    }
}

/// A cache that is damaged, also where its sum is right, is dropped.
#[test]
fn a_damaged_cache_is_no_panic() {
    let place = with_file("b");
    place.pvr("r", &["status"]).good();
    let cache = place.read("r/.pvr/switchback/hashes");
    let lines: Vec<_> = cache.lines().collect();
    let body = &lines[..lines.len() - 1];
    let damaged = [
        body.join("\n"),
        body.join("\r\n") + "\r\n",
        body.join("\n") + "\n\n",
        body[0].to_owned() + "\n",
        body[0].to_owned() + "\n\n\n",
        body.join("\n").replace(' ', "\u{e4} ") + "\n",
        body.join("\n").replace(" b", "") + "\n",
    ];
    for text in damaged {
        let sum = pvr::files::hash_bytes(text.as_bytes());
        place.write("r/.pvr/switchback/hashes", format!("{text}{sum}\n"));
        assert_eq!(place.pvr("r", &["status"]).good(), "", "{text:?}");
    }
}

#[test]
fn keys_that_a_terminal_would_obey_are_refused() {
    let place = Place::new();
    place.repo("r");
    let state = |key: &str| json!({"#spec": "pantavisor-service-system@1", key: {}}).to_string();
    let long = format!("{}.json", "x".repeat(240));
    for key in ["\u{1b}]0;x\u{7}.json", "a\u{7f}.json", "a\n.json", "a\t.json", "a\\b.json", &long] {
        fs::create_dir_all(place.path("s")).unwrap();
        place.write("s/json", state(key));
        for args in [&["get", "../s"][..], &["clone", "../s", "new"], &["inspect", "../s"]] {
            let error = place.pvr("r", args).failed(3);
            assert!(error.contains("is not a plain path"), "{error}");
            assert!(!error.contains(|c: char| c.is_control() && c != '\n'), "{error:?}");
        }
    }
    place.write("r/\u{1b}[2J", "x");
    assert!(place.pvr("r", &["add", "."]).err.contains("not added, because no revision can hold it: \\u{1b}[2J"));
    assert!(!place.path("r/.pvr/new").exists());
    assert!(place.pvr("r", &["add", "\u{1b}[2J"]).code != 0);
    assert_eq!(place.pvr("r", &["status"]).good(), "? \\u{1b}[2J\n");
}

/// What others wrote is shown, not sent to the terminal; programs get it as it is.
#[test]
fn messages_and_errors_are_shown_as_text() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "x");
    place.commit("r", "red \u{1b}[31m\u{202e}\r\nsecond \u{9b}1m");
    let clean = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}');
    let (log, show) = (place.pvr("r", &["log"]).good(), place.pvr("r", &["show"]).good());
    assert!(clean(&log) && log.contains("red \\u{1b}[31m\\u{202e}"), "{log:?}");
    assert!(clean(&show) && show.contains("\nsecond \\u{9b}1m\n"), "{show:?}");
    assert!(place.pvr("r", &["log", "--json"]).good().contains("\\u001b[31m"));
    let undone = place.pvr("r", &["undo"]).good();
    assert!(clean(&undone) && undone.contains("took back commit red"), "{undone:?}");
    let error = place.pvr("r", &["inspect", "\u{1b}[2J"]);
    assert!(error.code != 0 && clean(&error.err), "{:?}", error.err);
}
