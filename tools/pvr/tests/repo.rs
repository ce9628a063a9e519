//! The verbs of a local repository, against what the original does and against its own vectors.

mod common;

use common::{Place, vector};
use std::{collections::BTreeSet, fs, io::Read, os::unix::fs::PermissionsExt};

#[test]
fn outside_a_repository_everything_is_refused() {
    let place = Place::new();
    for args in [
        &["status"][..],
        &["add", "."],
        &["commit"],
        &["diff"],
        &["json"],
        &["reset"],
        &["export", "x.tgz"],
        &["post", "http://127.0.0.1:1"],
    ] {
        let error = place.pvr("home", args).failed(2);
        assert!(error.contains("not a pvr repository") && error.contains("hint: "), "{args:?}: {error}");
    }
    assert_eq!(fs::read_dir(place.path("home")).unwrap().count(), 0, "and leaves nothing behind");
}

#[test]
fn init_makes_the_files_of_the_original_and_never_twice() {
    let place = Place::new();
    place.repo("r");
    assert_eq!(place.read("r/.pvr/json"), r##"{"#spec":"pantavisor-service-system@1"}"##);
    let config: serde_json::Value = serde_json::from_str(&place.read("r/.pvr/config")).unwrap();
    assert_eq!(config["ObjectsDir"].as_str().unwrap(), place.path("home/.pvr/objects").to_str().unwrap());
    place.commit("r", "x");
    assert!(place.pvr("r", &["init"]).failed(2).contains("repository already"));
}

#[test]
fn a_file_goes_from_untracked_to_added_to_committed_to_changed_to_removed() {
    let place = Place::new();
    place.repo("r");
    place.write("r/web/a.txt", "one");
    place.write("r/web/run.json", r#"{ "b": 1.0, "a": null }"#);
    assert_eq!(place.pvr("r", &["status"]).good(), "? web/a.txt\n? web/run.json\n");
    place.pvr("r", &["add", "web/*.txt"]).good();
    assert_eq!(place.pvr("r", &["status"]).good(), "A web/a.txt\n? web/run.json\n");
    let index = place.read("r/.pvr/new");
    assert!(index.starts_with(r#"{"web/a.txt":{"ForceObject":false,"Sha":""#), "{index}");
    place.pvr("r", &["add", "."]).good();
    let said = place.pvr("r", &["commit", "-m", "first"]);
    assert!(said.err.contains("Adding raw ") && said.err.contains("Adding inline web/run.json"), "{}", said.err);
    assert_eq!(place.read("r/.pvr/commitmsg"), "first");
    assert!(!place.path("r/.pvr/new").exists());
    // sha256 of "one"; the null is kept, unlike in the original, which drops it and then shows the file as changed for ever.
    let sha = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    let state =
        format!(r##"{{"#spec":"pantavisor-service-system@1","web/a.txt":"{sha}","web/run.json":{{"a":null,"b":1}}}}"##);
    assert_eq!(place.read("r/.pvr/json"), state);
    assert_eq!(place.read(&format!("home/.pvr/objects/{sha}")), "one");
    assert_eq!(place.pvr("r", &["status"]).good(), "");
    assert_eq!(place.pvr("r", &["diff"]).good(), "{}\n");

    place.write("r/web/run.json", r#"{"b":2,"a":null}"#);
    fs::remove_file(place.path("r/web/a.txt")).unwrap();
    assert_eq!(place.pvr("r", &["status"]).good(), "D web/a.txt\nC web/run.json\n");
    assert_eq!(
        place.pvr("r", &["diff"]).good(),
        "{\n\t\"web/a.txt\": null,\n\t\"web/run.json\": {\n\t\t\"b\": 2\n\t}\n}\n"
    );
    let as_json = place.pvr("r", &["status", "--json"]).good();
    assert_eq!(as_json, "{\"added\":[],\"changed\":[\"web/run.json\"],\"removed\":[\"web/a.txt\"],\"untracked\":[]}\n");

    place.write("r/untracked", "mine");
    place.pvr("r", &["reset"]).good();
    assert_eq!(place.read("r/web/a.txt"), "one");
    assert_eq!(place.read("r/web/run.json"), "{\n    \"a\": null,\n    \"b\": 1\n}");
    assert_eq!(place.read("r/untracked"), "mine", "files that are not in the state are left alone");
}

#[test]
fn patterns_match_whole_paths_and_folders() {
    let place = Place::new();
    place.repo("r");
    for name in ["a.json", "x/a.json", "x/y/b", "xx/c"] {
        place.write(&format!("r/{name}"), "{}");
    }
    place.pvr("r", &["add", "*.json", "x"]).good();
    assert_eq!(place.pvr("r", &["status"]).good(), "A a.json\nA x/a.json\nA x/y/b\n? xx/c\n");
    assert!(place.pvr("r", &["add", "nothing*"]).failed(2).contains("no file matches nothing*"));
    assert!(place.pvr("r", &["add", "nothing*", "x"]).err.contains("nothing* matches no file"));
}

#[test]
fn raw_json_is_an_object_and_stays_one() {
    let place = Place::new();
    place.repo("r");
    place.write("r/data.json", r#"{"b": 1}"#);
    place.pvr("r", &["add", "--raw", "data.json"]).good();
    place.pvr("r", &["commit"]).good();
    assert_eq!(place.read("r/.pvr/commitmsg"), "** No commit message **");
    assert!(place.read("r/.pvr/json").contains(r#""data.json":""#));
    place.write("r/data.json", r#"not even json"#);
    place.pvr("r", &["commit"]).good();
    place.pvr("r", &["reset"]).good();
    assert_eq!(place.read("r/data.json"), "not even json");
}

#[test]
fn json_that_does_not_parse_stops_the_commit() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a.json", r#"{"a": 1}"#);
    place.write("r/b", "b");
    place.pvr("r", &["add", "."]).good();
    place.write("r/a.json", r#"{"a": }"#);
    let before = place.read("r/.pvr/json");
    let error = place.pvr("r", &["commit"]).failed(3);
    assert!(error.contains("JSON Unmarshal") && error.contains("a.json"), "{error}");
    assert_eq!(place.read("r/.pvr/json"), before);
}

#[test]
fn canonical_json_as_the_original_writes_it() {
    let place = Place::new();
    place.repo("r");
    for (vector_name, name) in [("numbers.in.json", "n.json"), ("strings.in.json", "s.json")] {
        fs::copy(vector(&format!("canonical-json/{vector_name}")), place.path(&format!("r/{name}"))).unwrap();
    }
    place.pvr("r", &["add", "."]).good();
    let expected = fs::read_to_string(vector("canonical-json/working.canonical.out")).unwrap();
    assert_eq!(place.pvr("r", &["json", "-c"]).good().trim_end(), expected.trim_end());
    place.pvr("r", &["commit"]).good();
    // Here the original rounds big numbers; we record what was there.
    assert_eq!(place.read("r/.pvr/json"), expected.trim_end());
    assert_eq!(place.pvr("r", &["status"]).good(), "");
    let indented = place.pvr("r", &["json"]).good();
    assert!(indented.starts_with("{\n\t\"#spec\"") && indented.contains("\t\t\"n15\": 1.0E-1,\n"), "{indented}");
}

fn only_object(place: &Place) -> std::path::PathBuf {
    let mut files = fs::read_dir(place.path("home/.pvr/objects")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.is_file()).unwrap()
}

#[test]
fn a_damaged_pool_is_noticed_at_checkout() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "content");
    place.commit("r", "x");
    let object = only_object(&place);
    fs::write(&object, "damaged").unwrap();
    place.write("r/a", "mine");
    assert!(place.pvr("r", &["reset"]).failed(3).contains("wrong sha"));
    assert_eq!(place.read("r/a"), "mine");
    fs::remove_file(object).unwrap();
    assert!(place.pvr("r", &["reset"]).failed(3).contains("not in the pool"));
}

#[test]
fn hard_links_share_the_object() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "content");
    place.commit("r", "x");
    place.pvr("r", &["reset", "--hardlink"]).good();
    let mode = fs::metadata(place.path("r/a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(place.path("r/a")).unwrap()), 2);
}

#[test]
fn a_state_cannot_write_outside_the_repository() {
    let place = Place::new();
    place.repo("r");
    for key in ["../evil.json", "/evil.json", "a/../../evil.json", ".pvr/config.json", "a//b.json"] {
        place.write("r/.pvr/json", format!(r##"{{"#spec":"pantavisor-service-system@1","{key}":{{}}}}"##));
        assert!(place.pvr("r", &["reset"]).failed(3).contains("not a plain path"), "{key}");
    }
    assert!(!place.path("evil.json").exists());
}

/// Names and content of an archive's members, in order.
fn members(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut text = Vec::new();
    if archive.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(archive).read_to_end(&mut text).unwrap();
    } else {
        text = archive.to_vec();
    }
    let mut archive = tar::Archive::new(&text[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), content)
    });
    entries.collect()
}

#[test]
fn an_export_of_the_original_comes_in_and_goes_out_again() {
    let place = Place::new();
    let original = vector("export/app.tgz");
    let said = place.pvr("home", &["clone", original.to_str().unwrap(), "app"]).good();
    assert_eq!(said, format!("Successfully cloned: {}\n", place.path("home/app").display()));
    assert_eq!(place.pvr("home/app", &["status"]).good(), "");
    place.pvr("home/app", &["export", "--parts", "app,_sigs/app.json", "again.TGZ"]).good();
    place.pvr("home/app", &["export", "once more.tar"]).good();
    let theirs = members(&fs::read(original).unwrap());
    let ours = members(&fs::read(place.path("home/app/again.TGZ")).unwrap());
    assert_eq!(ours, members(&fs::read(place.path("home/app/once more.tar")).unwrap()));
    assert_eq!((&ours[0].0[..], ours[0].1), ("json", 0o600));
    assert_eq!(String::from_utf8_lossy(&ours[0].2), String::from_utf8_lossy(&theirs[0].2));
    let set = |list: &[(String, u32, Vec<u8>)]| list.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(set(&ours), set(&theirs));
    assert!(ours[1..].windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted and unique");
    let standard_output = place.pvr("home/app", &["export", "--parts", "nothing", "-"]).failed(3);
    assert!(standard_output.contains("no part nothing"));
}

#[test]
fn an_archive_that_lies_is_refused() {
    let place = Place::new();
    let make = |name: &str, members: &[(&str, &str)]| {
        let mut archive = tar::Builder::new(fs::File::create(place.path(name)).unwrap());
        for (member, content) in members {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..member.len()].copy_from_slice(member.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
    };
    let sha = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    let state = format!(r##"{{"#spec":"x","a":"{sha}"}}"##);
    let object = format!("objects/{sha}");
    make("other-content", &[("json", &state), (&object, "two")]);
    make("missing-object", &[("json", &state)]);
    make("traversal", &[("json", &state), ("../../evil", "x")]);
    make("objects-traversal", &[("json", &state), ("objects/../evil", "x")]);
    make("no-state", &[(&object, "one")]);
    for (name, reason) in [
        ("other-content", "other content"),
        ("missing-object", "lacks object"),
        ("traversal", "that no export has"),
        ("objects-traversal", "that no export has"),
        ("no-state", "no state"),
    ] {
        let archive = place.path(name);
        let said = place.pvr("home", &["clone", archive.to_str().unwrap(), "new"]);
        assert!(said.code != 0 && said.err.contains(reason), "{name}: {}", said.err);
        assert!(!place.path("home/new").exists() && !place.path("home/evil").exists() && !place.path("evil").exists());
        let left =
            fs::read_dir(place.path("home")).unwrap().filter(|e| e.as_ref().unwrap().file_name() != ".pvr").count();
        assert_eq!(left, 0, "{name} leaves nothing");
        place.pvr("home", &["clone", archive.to_str().unwrap(), "new"]);
    }
}

/// What a device takes is narrower than what comes in here; it says so in its own words, and our export is within.
#[test]
fn an_archive_that_a_device_would_refuse_comes_in_with_a_warning() {
    let place = Place::new();
    place.repo("r");
    let original = vector("export/app.tgz");
    let said = place.pvr("r", &["import", original.to_str().unwrap()]);
    assert!(said.code == 0 && !said.err.contains("warning"), "{said:?}");
    let sha = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    let mut archive = tar::Builder::new(fs::File::create(place.path("last.tar")).unwrap());
    let state = format!(r##"{{"#spec":"pantavisor-service-system@1","a":"{sha}"}}"##);
    for (name, content) in [(format!("objects/{sha}"), "one"), ("json".to_owned(), &state)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    let said = place.pvr("r", &["import", "../last.tar"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("warning: a device would not install this archive itself, because SB1701: "), "{said:?}");
    let told = place.pvr("r", &["import", "../last.tar", "--json"]).good();
    assert!(told.contains(r#""device-refuses":"SB1701: "#), "{told}");
    place.pvr("r", &["export", "../again.tar"]).good();
    let said = place.pvr("r", &["import", "../again.tar"]);
    assert!(said.code == 0 && !said.err.contains("warning"), "{said:?}");
}
