//! What is wrong with the original's local verbs, one regression test each: it must not come back here.

mod common;

use common::{Place, Said, vector};
use pvr::canonical;
use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

/// A script of the shell in the folder `r`, with `pvr` in its path.
fn shell(place: &Place, script: &str) -> Said {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_pvr")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(place.path("r")).env("PATH", path).env("HOME", place.path("home"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap_or(-1) }
}

fn objects(place: &Place) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(place.path("home/.pvr/objects")).unwrap().map(|e| e.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

/// The original drops nulls at commit, shows the file as changed for ever, and passes numbers through floating point.
#[test]
fn nulls_and_big_numbers_are_kept() {
    let place = Place::new();
    place.repo("r");
    fs::copy(vector("canonical-json/numbers.in.json"), place.path("r/n.json")).unwrap();
    fs::copy(vector("canonical-json/strings.in.json"), place.path("r/s.json")).unwrap();
    place.write("r/null.json", r#"{"a":null,"b":[null,{"c":null}]}"#);
    place.commit("r", "x");
    assert_eq!(place.pvr("r", &["status"]).good(), "");
    let ours: Value = serde_json::from_str(&place.read("r/.pvr/json")).unwrap();
    assert_eq!(ours["null.json"].to_string(), r#"{"a":null,"b":[null,{"c":null}]}"#);
    // Of what the original committed, only what it rounded differs.
    let theirs: Value =
        serde_json::from_slice(&fs::read(vector("canonical-json/committed.json.out")).unwrap()).unwrap();
    let text = |value: &Value| canonical::write(value, canonical::CANONICAL).unwrap();
    let (mut same, mut rounded) = (0, Vec::new());
    for (file, document) in theirs.as_object().unwrap() {
        for (name, value) in document.as_object().into_iter().flatten() {
            let (mine, value) = (text(&ours[file][name]), text(value));
            if mine == value { same += 1 } else { rounded.push((mine, value)) }
        }
    }
    assert!(same > 20 && !rounded.is_empty(), "{same} {rounded:?}");
    for (mine, theirs) in rounded {
        assert_eq!(mine.parse::<f64>().unwrap(), theirs.parse::<f64>().unwrap(), "{mine} {theirs}");
        assert!(mine.len() >= theirs.trim_end_matches('0').len(), "ours has at least the digits: {mine} {theirs}");
    }
}

/// The original has no lock: two of its processes lose each other's entries.
#[test]
fn many_pvr_in_one_repository() {
    let place = Place::new();
    place.repo("r");
    let names: Vec<_> = (0..12).map(|n| format!("f{n}")).collect();
    for name in &names {
        place.write(&format!("r/{name}"), name);
    }
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| place.pvr("r", &["add", name]).good());
        }
    });
    let status = place.pvr("r", &["status", "--json"]).good();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["added"].as_array().unwrap().len(), names.len(), "no entry is lost");
    std::thread::scope(|scope| {
        for verb in [&["commit"][..], &["reset"], &["status"], &["commit"], &["export", "-"], &["add"], &["reset"]] {
            scope.spawn(|| place.pvr("r", verb).good());
        }
    });
    place.pvr("r", &["add"]).good();
    place.pvr("r", &["commit"]).good();
    assert_eq!(place.pvr("r", &["status"]).good(), "");
    let state: Value = serde_json::from_str(&place.read("r/.pvr/json")).unwrap();
    assert_eq!(state.as_object().unwrap().len(), names.len() + 1);
}

/// A repository that has just got another state: `a` stays, `b` and `c` go, `d` comes.
fn about_to_reset() -> Place {
    let place = Place::new();
    place.repo("r");
    for (name, content) in [("a", "a"), ("x/b", "b"), ("c", "c")] {
        place.write(&format!("r/{name}"), content);
    }
    place.commit("r", "old");
    place.repo("s");
    place.write("s/a", "new a");
    place.write("s/d", "d");
    place.commit("s", "new");
    place.pvr("r", &["get", "../s/.pvr"]).good();
    place
}

/// The original leaves files behind that the new state does not have.
#[test]
fn reset_removes_what_only_the_old_state_had() {
    let place = about_to_reset();
    place.write("r/untracked", "mine");
    place.pvr("r", &["reset"]).good();
    assert!(!place.path("r/x").exists() && !place.path("r/c").exists(), "with the folder that is empty then");
    assert_eq!(
        (place.read("r/a"), place.read("r/d"), place.read("r/untracked")),
        ("new a".into(), "d".into(), "mine".into())
    );
    assert_eq!(place.pvr("r", &["status"]).good(), "? untracked\n");
}

/// After another program changed the state, nobody knows what the files were: nothing is removed, and every file with
/// other content is asked for.
#[test]
fn reset_after_the_original_removes_nothing_and_asks() {
    let place = about_to_reset();
    let state = place.read("r/.pvr/json");
    place.write("r/.pvr/json", state.replace("\"d\"", "\"e\""));
    place.write("r/e", "in the way");
    assert!(place.pvr("r", &["reset"]).failed(3).contains("would be lost: a, e; nothing was changed"));
    assert_eq!((place.read("r/a"), place.read("r/e")), ("a".into(), "in the way".into()));
    place.pvr("r", &["reset", "--force"]).good();
    assert_eq!((place.read("r/c"), place.read("r/e")), ("c".into(), "d".into()));
    // From then on it is known again.
    place.pvr("r", &["get", "../s/.pvr"]).good();
    place.pvr("r", &["reset"]).good();
    assert!(!place.path("r/e").exists() && place.path("r/c").exists());
}

/// Without a record of ours (the original made the repository), and with one that is damaged.
#[test]
fn reset_without_a_record_asks() {
    for damage in [
        |place: &Place| fs::remove_dir_all(place.path("r/.pvr/switchback")).unwrap(),
        |place: &Place| {
            place.write("r/.pvr/switchback/checkout", "\0");
        },
    ] {
        let place = Place::new();
        place.repo("r");
        place.write("r/a", "one");
        place.write("r/b.json", "{}");
        place.commit("r", "x");
        damage(&place);
        place.pvr("r", &["reset"]).good();
        damage(&place);
        place.write("r/a", "work of a day");
        place.write("r/b.json", "[1]");
        assert!(place.pvr("r", &["reset"]).failed(3).contains("would be lost: a, b.json; nothing was changed"));
        assert_eq!(place.read("r/a"), "work of a day");
        place.pvr("r", &["reset", "-f"]).good();
        assert_eq!(place.read("r/a"), "one");
    }
}

/// Files that the state had once, in a folder that is a link by now: what is behind it was never ours.
#[test]
fn nothing_is_removed_through_links() {
    let place = Place::new();
    place.repo("r");
    for content in ["x", "of somebody else"] {
        place.write("r/keep", content);
        place.write("r/lib/deep/x", "x");
        place.commit("r", "a");
        fs::remove_dir_all(place.path("r/lib")).unwrap();
        place.pvr("r", &["commit", "-m", "b"]).good();
        let log: Value = serde_json::from_str(&place.pvr("r", &["log", "--json"]).good()).unwrap();
        let b = log[0]["after"].as_str().unwrap();
        place.pvr("r", &["undo"]).good();
        place.pvr("r", &["reset"]).good();
        fs::remove_dir_all(place.path("r/lib")).unwrap();
        place.write("out/deep/x", content);
        std::os::unix::fs::symlink("../out", place.path("r/lib")).unwrap();
        place.pvr("r", &["undo", b]).good();
        place.pvr("r", &["reset"]).good();
        assert_eq!(place.read("out/deep/x"), content);
        assert_eq!(place.pvr("r", &["status"]).good(), "");
        fs::remove_file(place.path("r/lib")).unwrap();
    }
}

/// Opening a pipe waits for its other end; nobody may wait with the locks held.
#[test]
fn a_pipe_in_the_way_is_no_file_to_read() {
    let pipe = |place: &Place, name: &str| {
        assert!(Command::new("mkfifo").arg(place.path(name)).status().unwrap().success());
    };
    for name in ["r/d", "r/c"] {
        let place = about_to_reset();
        let _ = fs::remove_file(place.path(name));
        pipe(&place, name);
        let said = shell(&place, "timeout 60 pvr reset");
        assert!(said.failed(3).contains(&format!("would be lost: {}; nothing was changed", &name[2..])));
        assert_eq!(shell(&place, "timeout 60 pvr reset --force").code, 0);
        assert_eq!(place.pvr("r", &["status"]).good(), "");
    }
    // In a folder that stands where a file has to be.
    let place = about_to_reset();
    fs::create_dir(place.path("r/d")).unwrap();
    pipe(&place, "r/d/pipe");
    assert!(shell(&place, "timeout 60 pvr reset").failed(3).contains("would be lost: d/pipe"));
    assert_eq!(shell(&place, "timeout 60 pvr reset --force").code, 0);
    assert_eq!(place.read("r/d"), "d");
}

/// The cache of hashes is read once for all files that go.
#[test]
fn reset_reads_its_cache_as_often_for_many_files_as_for_few() {
    let opened = |count: usize| {
        let place = Place::new();
        place.repo("r");
        place.write("r/keep", "x");
        place.commit("r", "few");
        (0..count).for_each(|n| place.write(&format!("r/many/{n}"), n.to_string()));
        place.commit("r", "many");
        place.pvr("r", &["undo"]).good();
        let trace = place.path("trace");
        let script = format!("strace -f -qqq -e trace=openat -o {} pvr reset", trace.display());
        assert_eq!(shell(&place, &script).code, 0, "strace is installed: apt install strace");
        assert!(!place.path("r/many").exists());
        let calls = fs::read_to_string(trace).unwrap();
        calls.lines().filter(|line| line.contains("switchback/hashes\"")).count()
    };
    let few = opened(2);
    assert!(few > 0);
    assert_eq!(opened(40), few);
}

#[test]
fn reset_loses_nothing_without_being_told() {
    for (name, content) in [("c", "changed since"), ("d", "untracked and in the way")] {
        let place = about_to_reset();
        place.write(&format!("r/{name}"), content);
        for args in [&["reset"][..], &["reset", "--json"]] {
            let error = place.pvr("r", args).failed(3);
            assert!(error.contains(&format!("would be lost: {name}; nothing was changed")), "{error}");
        }
        assert_eq!((place.read(&format!("r/{name}")), place.read("r/a")), (content.into(), "a".into()));
        place.pvr("r", &["reset", "--force"]).good();
        assert!(place.path("r/d").exists());
        assert_eq!(place.pvr("r", &["status"]).good(), "");
    }
    // A folder where a file has to be, and a file where a folder has to be.
    let place = about_to_reset();
    place.write("r/d/mine", "x");
    assert!(place.pvr("r", &["reset"]).failed(3).contains("would be lost: d/mine"));
    place.pvr("r", &["reset", "-f"]).good();
    assert_eq!(place.read("r/d"), "d");
    // A file with the content that is to come is not lost.
    let place = about_to_reset();
    place.write("r/d", "d");
    place.pvr("r", &["reset"]).good();
}

#[test]
fn files_are_not_written_through_links() {
    let place = about_to_reset();
    fs::create_dir(place.path("elsewhere")).unwrap();
    place.pvr("r", &["reset"]).good();
    place.write("r/x/b", "b");
    place.pvr("r", &["add", "x"]).good();
    place.pvr("r", &["commit"]).good();
    fs::remove_dir_all(place.path("r/x")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("r/x")).unwrap();
    assert!(place.pvr("r", &["reset"]).failed(3).contains("symbolic link"));
    assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
}

/// The original's hard links make the pool writable for whoever may write the file before, and never verify it.
#[test]
fn hard_links_do_not_endanger_the_pool() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "content");
    place.commit("r", "x");
    let object = objects(&place).remove(0);
    assert_eq!(fs::metadata(&object).unwrap().permissions().mode() & 0o777, 0o444, "from the beginning");
    place.pvr("r", &["reset", "--hardlink"]).good();
    place.pvr("r", &["reset", "--hardlink"]).good();
    assert_eq!(fs::metadata(place.path("r/a")).unwrap().ino(), fs::metadata(&object).unwrap().ino());
    // An editor that replaces the file; then copies again.
    place.write("r/a.new", "edited");
    fs::rename(place.path("r/a.new"), place.path("r/a")).unwrap();
    place.pvr("r", &["commit"]).good();
    place.pvr("r", &["reset"]).good();
    let meta = fs::metadata(place.path("r/a")).unwrap();
    assert_eq!((meta.nlink(), meta.permissions().mode() & 0o777), (1, 0o644));
    assert_eq!(fs::read(&object).unwrap(), b"content");
    for object in objects(&place) {
        assert_eq!(fs::metadata(object).unwrap().permissions().mode() & 0o777, 0o444);
    }
    // A damaged object is not linked.
    place.write("r/a", "content");
    place.pvr("r", &["commit"]).good();
    fs::remove_file(&object).unwrap();
    fs::write(&object, "contenT").unwrap();
    assert!(place.pvr("r", &["reset", "--hardlink"]).failed(3).contains("wrong sha"));
}

/// A damaged object is named wherever it is read, and replaced when the right content comes.
#[test]
fn a_damaged_object_is_replaced() {
    let damage = |place: &Place| {
        let object = objects(place).remove(0);
        fs::remove_file(&object).unwrap();
        fs::write(object, "damaged").unwrap();
    };
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "content");
    place.commit("r", "x");
    place.pvr("r", &["export", "../good.tgz"]).good();
    let heals: [&dyn Fn(); 4] = [
        &|| drop(place.pvr("r", &["add", "a"]).good()),
        &|| drop(place.pvr("r", &["import", "../good.tgz"]).good()),
        &|| {
            place.repo("other");
            place.write("other/same", "content");
            place.commit("other", "x");
        },
        &|| drop(place.pvr("", &["clone", "good.tgz", "cloned"]).good()),
    ];
    for heal in heals {
        damage(&place);
        for args in [&["export", "bad.tgz"][..], &["export", "-"], &["reset", "--hardlink"]] {
            let said = place.pvr("r", args);
            assert!(said.code == 3 && said.err.contains("is damaged; it is replaced when"), "{args:?}: {}", said.err);
        }
        assert!(!place.path("r/bad.tgz").exists());
        heal();
        place.pvr("r", &["export", "again.tgz"]).good();
        fs::remove_file(place.path("r/again.tgz")).unwrap();
    }
}

/// The cache of hashes is never wrong: same size, same times, in the same moment.
#[test]
fn a_change_is_seen_although_size_and_times_are_the_same() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "one");
    place.commit("r", "x");
    for round in 0..20 {
        let content = format!("{round:03}");
        place.write("r/a", &content);
        assert_eq!(place.pvr("r", &["status"]).good(), "C a\n", "{round}");
        place.pvr("r", &["commit"]).good();
        assert_eq!(place.pvr("r", &["status"]).good(), "", "{round}");
    }
    let times = fs::metadata(place.path("r/a")).unwrap().modified().unwrap();
    place.pvr("r", &["status"]).good();
    place.write("r/a", "xyz");
    fs::File::options().write(true).open(place.path("r/a")).unwrap().set_modified(times).unwrap();
    assert_eq!(place.pvr("r", &["status"]).good(), "C a\n");
    fs::write(place.path("r/.pvr/switchback/hashes"), "nonsense").unwrap();
    assert_eq!(place.pvr("r", &["status"]).good(), "C a\n");
}

/// The original verifies nothing at import and follows names out of the repository. (Names and hashes: tests/fuzz.rs and
/// tests/repo.rs.)
#[test]
fn archives_are_bounded_and_whole_or_nothing() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", vec![7; 300_000]);
    place.commit("r", "x");
    place.pvr("r", &["export", "../good.tgz"]).good();
    let good = fs::read(place.path("good.tgz")).unwrap();
    for file in objects(&place) {
        fs::remove_file(file).unwrap();
    }
    let before = place.read("r/.pvr/json");
    let mut names = vec!["cut".to_owned(), "tail".into(), "bomb".into(), "state".into(), "crc".into()];
    fs::write(place.path("cut"), &good[..good.len() - 9]).unwrap();
    let mut wrong = good.clone();
    let crc = wrong.len() - 8;
    wrong[crc] ^= 1;
    fs::write(place.path("crc"), wrong).unwrap();
    // 200 MB of zeros behind the end, in 200 kB.
    let mut tail = flate2::write::GzEncoder::new(good.clone(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..200 {
        tail.write_all(&zeros).unwrap();
    }
    fs::write(place.path("tail"), tail.finish().unwrap()).unwrap();
    // A member that claims more than any disk has, and a state that does not end.
    for (name, member, size) in [("bomb", "objects/", 1 << 40), ("state", "json", 64 << 20)] {
        let member = if member == "json" { member.to_owned() } else { format!("{member}{}", "0".repeat(64)) };
        let mut header = tar::Header::new_ustar();
        header.set_path(member).unwrap();
        header.set_size(size);
        header.set_cksum();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(header.as_bytes()).unwrap();
        for _ in 0..64 {
            gzip.write_all(&zeros).unwrap();
        }
        fs::write(place.path(name), gzip.finish().unwrap()).unwrap();
    }
    names.push("nothing there".into());
    for name in names {
        let error = place.pvr("r", &["import", &format!("../{name}")]);
        assert!(matches!(error.code, 1..=3) && error.err.contains("ERROR"), "{name}: {}", error.err);
        assert_eq!(place.read("r/.pvr/json"), before, "{name}");
        assert_eq!(objects(&place).len(), 0, "{name}: {}", error.err);
    }
    place.pvr("r", &["import", "../good.tgz"]).good();
    assert_eq!(objects(&place).len(), 1);
}

/// A disk that is full in the middle of a commit.
#[test]
fn a_full_disk_changes_nothing() {
    let place = Place::new();
    place.repo("r");
    place.write("r/small", "x");
    place.commit("r", "x");
    place.write("r/big", vec![1; 100_000]);
    place.pvr("r", &["add"]).good();
    let before = place.read("r/.pvr/json");
    // The size of a file is limited instead of the disk; the error is the same to whoever writes.
    let said = shell(&place, "trap '' XFSZ; ulimit -f 8; exec pvr commit");
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("to the object pool"), "{}", said.err);
    assert_eq!(place.read("r/.pvr/json"), before);
    assert_eq!(objects(&place).len(), 1, "nothing half");
    assert_eq!(place.pvr("r", &["status"]).good(), "A big\n");
    place.pvr("r", &["commit"]).good();
}

/// The original has no history; both can work in one repository.
#[test]
fn what_another_program_committed_is_in_the_history() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a.json", "1");
    place.commit("r", "one");
    // As the original commits: the state is replaced, and nothing else of ours is touched.
    place.write("r/.pvr/json", r##"{"#spec":"pantavisor-service-system@1","a.json":2}"##);
    // It is seen at once, shown, and taken back as any other change.
    assert!(place.pvr("r", &["log", "-n", "1"]).good().contains(" other   changed by another program"));
    assert!(place.pvr("r", &["show"]).good().contains("C a.json"));
    place.pvr("r", &["undo"]).good();
    assert!(place.read("r/.pvr/json").contains(r#""a.json":1"#));
    place.pvr("r", &["undo", &place.pvr("r", &["log", "-n", "2"]).good().lines().nth(1).unwrap()[..8]]).good();
    assert!(place.read("r/.pvr/json").contains(r#""a.json":2"#));
    place.write("r/a.json", "3");
    place.pvr("r", &["commit", "-m", "three"]).good();
    let log: Value = serde_json::from_str(&place.pvr("r", &["log", "--json"]).good()).unwrap();
    let verbs: Vec<_> = log.as_array().unwrap().iter().map(|e| e["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["commit", "goto", "undo", "other", "commit"]);
    place.pvr("r", &["undo"]).good();
    assert!(place.read("r/.pvr/json").contains(r#""a.json":2"#));
    let first = log[4]["after"].as_str().unwrap();
    place.pvr("r", &["undo", &first[..10]]).good();
    assert!(place.read("r/.pvr/json").contains(r#""a.json":1"#));
    assert_eq!(place.pvr("r", &["show", "--json"]).code, 0);
    assert!(place.pvr("r", &["undo", "ffff"]).failed(3).contains("no state ffff"));
}

/// The original never frees its pool; ours must not free what a repository needs that it was never told of.
#[test]
fn gc_gives_back_what_was_needed_after_all() {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", "mine");
    place.commit("r", "x");
    place.repo("unknown");
    place.write("unknown/b", "of somebody else");
    place.commit("unknown", "x");
    fs::write(place.path("home/.pvr/repositories"), "").unwrap();
    fs::remove_dir_all(place.path("home/.pvr/objects/.repositories")).unwrap();
    place.pvr("r", &["status"]).good();
    let report = place.pvr("r", &["gc", "--days", "0"]).good();
    assert!(report.contains("      1 objects           1 kB  put aside"), "{report}");
    assert_eq!(objects(&place).len(), 1);
    // The repository that nobody knew of finds its object, and is known from then on.
    place.pvr("unknown", &["reset"]).good();
    place.pvr("unknown", &["export", "x.tgz"]).good();
    let report = place.pvr("r", &["gc", "--days", "0"]).good();
    assert!(report.contains("      2 objects           1 kB  kept: needed"), "{report}");
    // What the history needs stays; what nobody asked for goes at the second time.
    place.write("r/a", "newer");
    place.pvr("r", &["commit"]).good();
    place.write("home/.pvr/objects/0000000000000000000000000000000000000000000000000000000000000001", "x");
    place.pvr("r", &["gc", "--days", "0"]).good();
    let report = place.pvr("r", &["gc", "--days", "0"]).good();
    assert!(report.contains("1 objects           1 kB  deleted: put aside before"), "{report}");
    assert_eq!(objects(&place).len(), 3);
    place.pvr("r", &["undo"]).good();
    place.pvr("r", &["reset"]).good();
    assert_eq!(place.read("r/a"), "mine");
}

/// The original sends `"state":null` from outside a repository, and ends with 0 after several failures.
#[test]
fn outside_a_repository_every_verb_refuses() {
    let place = Place::new();
    for args in [
        &["add"][..],
        &["status"],
        &["diff"],
        &["json"],
        &["commit"],
        &["reset"],
        &["export", "x"],
        &["import", "x"],
        &["inspect"],
        &["log"],
        &["show"],
        &["undo"],
        &["get", "x"],
        &["merge", "x"],
        &["post", "http://127.0.0.1:1"],
        &["put", "http://127.0.0.1:1"],
        &["putobjects", "http://127.0.0.1:1/objects"],
    ] {
        let error = place.pvr("home", args).failed(2);
        assert!(error.contains("not a pvr repository") && error.contains("hint: "), "{args:?}: {error}");
    }
    assert_eq!(fs::read_dir(place.path("home")).unwrap().count(), 0, "and leaves nothing behind");
}
