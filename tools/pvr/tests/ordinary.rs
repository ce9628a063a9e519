//! What an ordinary day does to a command line: outputs that are full, gone, or no files at all; odd names; half
//! finished work; a user who forgot something.

mod common;

use common::{Place, Said};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    process::{Command, Stdio},
};

/// A script of the shell in the folder `r`, with `pvr` in its path.
fn shell(place: &Place, script: &str) -> Said {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_pvr")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(place.path("r")).env("PATH", path).env("HOME", place.path("home"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap_or(-1) }
}

/// A repository `r` with a file `a` that is larger than a pipe.
fn committed() -> Place {
    let place = Place::new();
    place.repo("r");
    place.write("r/a", vec![b'a'; 300_000]);
    place.commit("r", "first");
    place
}

#[test]
fn export_replaces_files_and_nothing_else() {
    let place = committed();
    place.pvr("r", &["export", "../plain"]).good();
    let plain = fs::read(place.path("plain")).unwrap();
    // A pipe is written into.
    shell(&place, "mkfifo ../pipe; cat ../pipe > ../read & pvr export ../pipe && wait && cmp ../read ../plain").good();
    assert!(fs::symlink_metadata(place.path("pipe")).unwrap().file_type().is_fifo());
    shell(&place, "pvr export /dev/stdout | cmp - ../plain").good();
    // A device too; a file in its place would be made only by root, so it has to be the real one.
    let error = place.pvr("r", &["export", "/dev/full"]).failed(1);
    assert!(error.contains("No space left"), "{error}");
    assert!(fs::symlink_metadata("/dev/full").unwrap().file_type().is_char_device());
    // Through a link, also to what is not there yet, and over many; the link stays.
    shell(&place, "mkdir ../d && ln -s d/file ../link && ln -s link ../second && pvr export ../second").good();
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink());
    assert_eq!(fs::read(place.path("d/file")).unwrap(), plain);
    fs::write(place.path("d/file"), "old").unwrap();
    place.pvr("r", &["export", "../link"]).good();
    assert_eq!(fs::read(place.path("d/file")).unwrap(), plain);
    assert!(fs::symlink_metadata(place.path("second")).unwrap().is_symlink());
    assert!(place.pvr("r", &["export", "../d"]).failed(2).contains("is a folder"));
    assert!(place.pvr("r", &["export", "../x.zip"]).failed(2).contains("gzip"));
}

#[test]
fn an_output_that_is_full_is_a_failure_and_one_that_is_closed_is_not() {
    let place = committed();
    for verb in ["log", "json", "inspect", "completion bash", "export -", "version", "status --json"] {
        let said = shell(&place, &format!("pvr {verb} > /dev/full"));
        assert!(said.failed(1).contains("No space left"), "{verb}");
        let said = shell(&place, &format!("set -o pipefail; pvr {verb} | true"));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{verb}");
    }
    let said = shell(&place, "set -o pipefail; pvr export - | head -c 10 > ../head");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    // Where nobody can be told what is wrong, the exit code still does.
    assert_eq!(shell(&place, "pvr nothing 2> /dev/full; pvr show 0000 2> /dev/full").code, 3);
}

#[test]
fn the_umask_counts() {
    let place = committed();
    place.write("r/b", "b");
    let script = "umask 077 && pvr add . && pvr commit && rm a && pvr reset && pvr export ../x && pvr clone ../x ../c";
    shell(&place, script).good();
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    for name in ["r/a", "r/.pvr/json", "r/.pvr/commitmsg", "x", "c/a"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("c"), 0o700);
    shell(&place, "umask 002 && pvr export ../y").good();
    assert_eq!(mode("y"), 0o644, "never more than before");
}

#[test]
fn one_odd_file_stops_nobody() {
    let place = committed();
    let odd =
        "touch good $'two\\nlines' 'back\\slash' $'\\xff' $'\\e[31mred'; mkdir closed; touch closed/x; chmod 0 closed";
    shell(&place, odd).good();
    let expected = ["? good", r"? \u{1b}[31mred", r"? back\slash", r"? two\nlines", r#"? "\xFF""#];
    let status = place.pvr("r", &["status"]).good();
    for line in expected {
        assert!(status.lines().any(|l| l == line), "{line}: {status}");
    }
    assert!(!status.contains('\u{1b}'), "{status:?}");
    for verb in [&["diff"][..], &["json"], &["commit"], &["reset"], &["status", "--json"]] {
        place.pvr("r", verb).good();
    }
    let said = place.pvr("r", &["add", "."]);
    assert!(
        said.err.contains("back\\slash") && said.err.contains("\\xFF") && said.err.contains("rename"),
        "{}",
        said.err
    );
    assert_eq!(said.code, 0);
    let index = place.read("r/.pvr/new");
    assert!(index.contains("good") && !index.contains("slash") && !index.contains("two"), "{index}");
    assert!(place.pvr("r", &["add", "back\\slash"]).failed(3).contains("rename it"));
    place.pvr("r", &["commit"]).good();
    shell(&place, "chmod 755 closed").good();
}

#[test]
fn a_bad_document_is_refused_early_and_named_later() {
    let place = committed();
    place.write("r/good.json", "{}");
    place.write("r/was.json", "{}");
    place.commit("r", "two");
    place.write("r/good.json", "{");
    place.write("r/was.json", "nothing");
    let said = place.pvr("r", &["status"]);
    assert_eq!((said.code, said.out.as_str()), (0, "C good.json\nC was.json\n"));
    assert!(said.err.contains("good.json") && said.err.contains("pvr add --raw was.json"), "{}", said.err);
    let state = place.read("r/.pvr/json");
    for verb in ["diff", "json", "commit"] {
        let error = place.pvr("r", &[verb]).failed(3);
        assert!(error.contains("good.json): ") && error.contains("pvr add --raw good.json was.json"), "{error}");
    }
    assert_eq!(place.read("r/.pvr/json"), state);
    place.pvr("r", &["add", "--raw", "good.json", "was.json"]).good();
    place.pvr("r", &["commit"]).good();
    assert_eq!(place.pvr("r", &["status"]).good(), "");
}

#[test]
fn a_signal_leaves_nothing_half_finished() {
    // As a terminal starts it, and as `nohup` does; whatever the test itself was started to ignore.
    for (signals, env, codes) in [
        ("INT TERM HUP", "--default-signal=INT,TERM,HUP", "130\n143\n129\n"),
        ("INT TERM", "--default-signal=INT,TERM --ignore-signal=HUP", "130\n143\n"),
    ] {
        let place = committed();
        // A reader that does not come keeps the program waiting: it has begun, and has not finished.
        let script = "mkfifo ../object && cp ../home/.pvr/objects/* ../keep && rm -f ../home/.pvr/objects/* && \
            mv ../object ../home/.pvr/objects/$(sha256sum < ../keep | cut -c-64) && mkdir ../out && \
            for verb in 'export ../out/x.tgz' 'clone ../r ../out/c'; do for signal in SIGNALS; do \
            env ENV pvr $verb & pid=$!; until [ -n \"$(ls -A ../out)\" ]; do kill -0 $pid || exit 7; sleep 0.01; done; \
            kill -s $signal $pid; wait $pid; echo $?; ls -A ../out; rm -rf ../out/* ../out/.p*; done; done";
        let said = shell(&place, &script.replace("SIGNALS", signals).replace("ENV", env));
        assert_eq!(said.out, codes.repeat(2), "{}", said.err);
    }
}

#[test]
fn options_of_every_verb_stand_before_it_or_behind() {
    let place = committed();
    for words in [
        "status --config-dir ../x --access-token t --baseurl http://b --repo-baseurl http://r --debug --insecure \
                   --http-proxy no",
        "-c ../x -a t -b http://b -r http://r -d -i --http-proxy no status",
    ] {
        place.pvr("r", &words.split_whitespace().collect::<Vec<_>>()).good();
    }
    place.write("r/new.json", "{}");
    place.pvr("r", &["add", "-r", "new.json"]).good();
    assert!(place.read("r/.pvr/new").contains(r#""ForceObject":true"#), "behind the verb it is the verb's own");
    let said = place.pvr("r", &["status", "-d"]);
    assert!(said.code == 2 && said.err.contains("--debug"), "{}", said.err);
    for verb in ["app", "sig", "login", "claim", "ps", "logs", "whoami", "register", "self-upgrade", "dm-apply"] {
        let said = place.pvr("r", &[verb, "x"]);
        assert!(said.code == 2 && said.err.contains("not in this version"), "{}", said.err);
    }
    let said = place.pvr("r", &[]);
    assert!(said.code == 2 && said.err.contains("Devices and hubs:\n  device "), "{}", said.err);
}

#[test]
fn errors_for_programs_are_one_object() {
    let place = committed();
    fs::create_dir(place.path("r/below")).unwrap();
    for (folder, words, code, part) in [
        ("r", "--json show 0000", 3, "history has no state"),
        ("r", "get nowhere --json", 2, "neither here nor an address"),
        ("r", "--json nothing", 2, "unrecognized subcommand"),
        ("r", "status --json --what", 2, "unexpected argument"),
        ("r", "login --json", 2, "not in this version"),
        ("r", "--json", 2, "no verb was given"),
        ("home", "status --json", 2, "not a pvr repository"),
    ] {
        let said = place.pvr(folder, &words.split(' ').collect::<Vec<_>>());
        let error: serde_json::Value =
            serde_json::from_str(&said.err).unwrap_or_else(|e| panic!("{words}: {e}: {}", said.err));
        assert_eq!((said.code, said.out.as_str(), error["code"].as_i64()), (code, "", Some(code.into())), "{words}");
        assert!(error["error"].as_str().unwrap().contains(part) && error["hint"].is_string(), "{error}");
    }
    let error = place.pvr("r/below", &["status"]).failed(2);
    assert!(error.contains(&format!("the repository above is {}", place.path("r").display())), "{error}");
}

#[test]
fn what_is_missing_or_no_export_is_said_in_one_way() {
    let place = committed();
    for verb in [&["inspect"][..], &["get"], &["clone"], &["import"], &["plan"], &["plan", "--of"]] {
        let error = place.pvr("r", &[verb, &["../no.tgz"]].concat()).failed(2);
        assert!(error.contains("../no.tgz is neither here nor an address"), "{verb:?} {error}");
    }
    for (name, hint) in [("localhost:12368", "http://localhost:12368"), ("mine.local", "http://mine.local")] {
        assert!(place.pvr("r", &["get", name]).failed(2).contains(hint));
    }
    let error = place.pvr("r", &["import", "/etc/passwd"]).failed(3);
    assert!(error.contains("is no export") && !error.contains("root"), "{error}");
    for name in ["app.tgz", "app.tar.gz", "app.tar", "app.pvrexport.tgz"] {
        place.pvr("r", &["export", &format!("../{name}")]).good();
        let said = place.pvr("home", &["clone", &format!("../r/../{name}"), "../home/app"]).good();
        let target = fs::canonicalize(place.path("home/app")).unwrap();
        assert_eq!(said, format!("Successfully cloned: {}\n", target.display()));
        fs::remove_dir_all(target).unwrap();
        place.pvr("home", &["clone", &format!("../{name}")]).good();
        fs::remove_dir_all(place.path("home/app")).unwrap();
    }
    assert!(place.pvr("r", &["plan"]).failed(3).contains("refused: SB1113"));
}

#[test]
fn what_is_said_is_true_in_small_things() {
    let place = committed();
    place.write("r/a", "b");
    place.pvr("r", &["commit", "-m", ""]).good();
    assert!(place.pvr("r", &["undo"]).good().starts_with("took back commit; the state is "));
    // Only where something was put aside there is something to bring back.
    assert!(!place.pvr("r", &["gc"]).good().contains("--restore"));
    place.write(&format!("home/.pvr/objects/{}", "0".repeat(64)), "needed by nobody");
    assert!(place.pvr("r", &["gc", "--days", "0"]).good().contains("--restore"));
}
