//! `pvr` killed at every operation on files: the next command understands what is there, and nothing is lost.
//!
//! A first run lists the calls that change something; then strace kills the program on entering each of them. The program
//! runs on one processor, so that it works in one thread and makes the same calls in each run.

mod common;

use common::Place;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Everything that changes a file, a name or what is durable; and opening, because it makes files.
const CALLS: &str = "openat,write,pwrite64,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,\
                     chmod,fchmod,fchmodat,fsync,fdatasync,syncfs,ftruncate,utimensat,copy_file_range,sendfile";

/// What is killed, where it starts, and what may change.
struct Case {
    args: &'static [&'static str],
    prepare: fn(&Place),
    /// Whether files of the folder may change.
    writes_files: bool,
}

/// Files below a folder, without `.pvr`.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
            if entry.file_name() == ".pvr" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let key = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(key, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn copy(from: &Place) -> Place {
    let to = Place::new();
    let copied = Command::new("cp").args(["-a", "."]).arg(to.path("")).current_dir(from.path("")).status();
    assert!(copied.unwrap().success());
    // The pools are absolute paths in the copies' configurations.
    for config in ["r/.pvr/config", "source/.pvr/config"].iter().filter(|name| to.path(name).exists()) {
        let text = to.read(config).replace(from.path("").to_str().unwrap(), to.path("").to_str().unwrap());
        to.write(config, text);
    }
    to
}

/// Everything that is on the disk; random parts of names are left out.
fn disk(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![place.path("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
            let path = entry.path().strip_prefix(place.path("")).unwrap().display().to_string();
            let random = path.rfind("/.pvr-").map(|at| at + 6).or(path.rfind("/new-").map(|at| at + 5));
            let name = path[..random.unwrap_or(path.len())].to_owned();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                found.insert(name, Vec::new());
            } else {
                let content = fs::read(entry.path()).unwrap();
                found.insert(name.clone(), if name.ends_with("/log") { timeless(&content) } else { content });
            }
        }
    }
    // The copy's own address stands in these, or the inodes of its files.
    let own = [".pvr/config", ".pvr/repositories", ".repositories/list", "switchback/hashes"];
    found.retain(|name, _| !own.iter().any(|own| name.ends_with(own)));
    found
}

/// A history without its times.
fn timeless(log: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(log);
    let line = |line: &str| line.split(r#""time":"#).next().unwrap_or_default().to_owned();
    text.lines().map(line).collect::<String>().into_bytes()
}

/// `pvr` under strace with these options, on one processor.
fn strace(place: &Place, options: &[&str], args: &[&str]) -> std::process::Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq"]).args(options).args(["taskset", "-c", "0", env!("CARGO_BIN_EXE_pvr")]).args(args);
    command.current_dir(place.path("r")).env("HOME", place.path("home")).stdin(Stdio::null());
    command.output().expect("strace is installed: apt install strace")
}

/// The calls that change something, in their order: the name, and which call of this name it is.
fn operations(place: &Place, args: &[&str]) -> Vec<(String, usize)> {
    let log = place.path("trace");
    let run = strace(place, &["-o", log.to_str().unwrap(), "-e", &format!("trace={CALLS}")], args);
    assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    let (mut counts, mut found) = (BTreeMap::new(), Vec::new());
    for line in fs::read_to_string(&log).unwrap().lines() {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, rest)) = call.split_once('(') else { continue };
        let count = counts.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if name != "openat" || rest.contains("O_CREAT") || rest.contains("O_TMPFILE") {
            found.push((name.to_owned(), *count));
        }
    }
    found
}

/// Runs `pvr` and kills it on entering one call.
fn kill_at(place: &Place, args: &[&str], call: &str, count: usize) {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={count}"));
    let run = strace(place, &["-o", "/dev/null", "-e", &trace, "-e", &inject], args);
    let killed = matches!(run.status.code(), Some(137) | None);
    assert!(killed, "{args:?} at {call} {count}: {} {}", run.status, String::from_utf8_lossy(&run.stderr));
}

fn check(case: &Case) -> usize {
    let template = Place::new();
    (case.prepare)(&template);
    let before = (template.pvr("r", &["inspect", "-c"]).good(), files(&template.path("r")));
    let whole = copy(&template);
    whole.pvr("r", case.args).good();
    let after = (whole.pvr("r", &["inspect", "-c"]).good(), files(&whole.path("r")));
    let index = whole.path("r/.pvr/new").exists().then(|| whole.read("r/.pvr/new"));
    let operations = operations(&copy(&template), case.args);
    for kind in ["openat", "write", "rename", "fsync"] {
        assert!(operations.iter().any(|(call, _)| call == kind || call == "renameat" && kind == "rename"), "no {kind}");
    }
    let mut seen = Vec::new();
    for (call, count) in &operations {
        let place = copy(&template);
        kill_at(&place, case.args, call, *count);
        // Operations that leave the same disk need one look.
        let left = disk(&place);
        if seen.contains(&left) {
            continue;
        }
        seen.push(left);
        let at = format!("{:?} killed at {call} {count}", case.args);
        let state = place.pvr("r", &["inspect", "-c"]).good();
        assert!(state == before.0 || state == after.0, "{at}: {state}");
        place.pvr("r", &["status"]).good();
        place.pvr("r", &["log"]).good();
        // Every object that the state names is whole.
        place.pvr("r", &["export", "../out.tar"]).good();
        let now = files(&place.path("r"));
        if !case.writes_files {
            assert_eq!(now, before.1, "{at}");
        }
        for (key, content) in &now {
            let known = before.1.get(key) == Some(content) || after.1.get(key) == Some(content);
            assert!(known, "{at}: {key} is neither the old nor the new file");
        }
        if state != before.0 {
            let undone = copy(&place);
            undone.pvr("r", &["undo"]).good();
            assert_eq!(undone.pvr("r", &["inspect", "-c"]).good(), before.0, "{at}: the old state is in the history");
        }
        place.pvr("r", case.args).good();
        assert_eq!(place.pvr("r", &["inspect", "-c"]).good(), after.0, "{at}, again");
        assert_eq!(files(&place.path("r")), after.1, "{at}, again");
        let again = place.path("r/.pvr/new").exists().then(|| place.read("r/.pvr/new"));
        assert_eq!(again, index, "{at}, again");
        place.pvr("r", &["status"]).good();
        let left = fs::read_dir(place.path("r/.pvr")).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".pvr-") || name == "tmp").collect();
        let swept =
            left.iter().all(|name| name != "tmp" || fs::read_dir(place.path("r/.pvr/tmp")).unwrap().count() == 0);
        assert!(swept && left.iter().all(|name| name == "tmp"), "{at}: {left:?}");
    }
    println!("killed at {} operations, which left {} different disks", operations.len(), seen.len());
    operations.len()
}

fn committed(place: &Place) {
    place.repo("r");
    place.write("r/a", "one");
    place.write("r/gone", "gone");
    place.write("r/web/run.json", r#"{"a":null}"#);
    place.commit("r", "first");
}

fn changed(place: &Place) {
    committed(place);
    place.write("r/a", "two");
    place.write("r/b", "three");
    fs::remove_file(place.path("r/gone")).unwrap();
    place.pvr("r", &["add", "b"]).good();
}

/// A repository with a pool of its own, whose state is other than that of `r`.
fn source(place: &Place) {
    committed(place);
    fs::create_dir(place.path("source")).unwrap();
    place.pvr("source", &["init", "--objects", "pool"]).good();
    place.write("source/a", "of the source");
    place.write("source/c/d", "new");
    place.pvr("source", &["add", "a", "c"]).good();
    place.pvr("source", &["commit"]).good();
}

macro_rules! cases {
    ($($name:ident: $args:expr, $prepare:expr, $writes:expr, $least:expr;)*) => {$(
        #[test]
        fn $name() {
            let count = check(&Case { args: &$args, prepare: $prepare, writes_files: $writes });
            assert!(count >= $least, "only {count} operations were seen");
        }
    )*};
}

cases! {
    add: ["add", "."], |place| { committed(place); place.write("r/b", "b"); place.write("r/c/d", "d"); }, false, 10;
    commit: ["commit", "-m", "second"], changed, false, 30;
    get: ["get", "../source/.pvr"], source, false, 30;
    import: ["import", "../device.tgz"], |place| {
        source(place);
        place.pvr("source", &["export", "../device.tgz"]).good();
    }, false, 30;
    reset: ["reset"], |place| {
        source(place);
        place.pvr("r", &["get", "../source/.pvr"]).good();
    }, true, 20;
    reset_hardlink: ["reset", "--hardlink"], |place| {
        source(place);
        place.pvr("r", &["get", "../source/.pvr"]).good();
    }, true, 20;
}
