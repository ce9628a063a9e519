//! The checklist: every verb, flag, alias and variable, with what is expected of it.
//!
//! `checklist/*.rows` are run one by one, each in a fresh place. From clap's own tree follows that no verb and no flag is
//! without a row; `checklist/original.txt` lists what the original has, and `checklist/later.txt` what of it is not here.

mod common;

use clap::CommandFactory;
use common::{
    Place,
    hub::{Hub, World},
    small_device, world_of,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One row: what it covers, where it runs, and what is compared.
#[derive(Default)]
struct Row {
    at: String,
    verb: String,
    items: Vec<String>,
    scenario: String,
    script: String,
    exit: i32,
    expected: Vec<(String, String)>,
}

fn checklist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checklist").join(name)
}

fn rows() -> Vec<Row> {
    let mut files: Vec<_> = fs::read_dir(checklist("")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "rows"));
    files.sort();
    let mut rows: Vec<Row> = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", file.file_name().unwrap().display(), number + 1);
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if word == "row" {
                let mut words = rest.split_whitespace().map(str::to_owned);
                let verb = words.next().unwrap_or_else(|| panic!("{at}: a row of nothing"));
                rows.push(Row { at, verb, items: words.collect(), exit: -1, ..Row::default() });
                continue;
            }
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            let row = rows.last_mut().unwrap_or_else(|| panic!("{at}: before the first row"));
            match word {
                "in" => row.scenario = rest.to_owned(),
                "$" => row.script += &format!("{rest}\n"),
                "exit" => row.exit = rest.parse().unwrap(),
                "out" | "out-is" | "err" | "file" | "gone" | "has" | "is" => {
                    row.expected
                        .push((word.to_owned(), rest.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")));
                }
                _ => panic!("{at}: {word} means nothing"),
            }
        }
    }
    rows
}

/// Makes the scenario; the folder `r` is where the row runs. More variables for its script.
fn scenario(place: &Place, name: &str) -> Vec<(String, String)> {
    let committed = || {
        place.repo("r");
        place.write("r/a.txt", "one");
        place.write("r/web/run.json", r#"{ "b": 0.10, "a": null }"#);
        place.commit("r", "first");
    };
    match name {
        "empty" => fs::create_dir(place.path("r")).unwrap(),
        "repo" => place.repo("r"),
        "files" => {
            place.repo("r");
            place.write("r/a.txt", "one");
            place.write("r/web/run.json", r#"{ "b": 0.10, "a": null }"#);
        }
        "committed" => committed(),
        "changed" => {
            committed();
            fs::remove_file(place.path("r/a.txt")).unwrap();
            place.write("r/web/run.json", r#"{"a": null, "b": "<"}"#);
            place.write("r/new.txt", "new");
        }
        "archive" | "imported" => {
            committed();
            place.pvr("r", &["export", "../device.tgz"]).good();
            fs::remove_dir_all(place.path("r")).unwrap();
            place.repo("r");
            if name == "imported" {
                place.pvr("r", &["import", "../device.tgz"]).good();
                place.write("r/a.txt", "mine");
            }
        }
        "device" => small_device(place, "r"),
        // A hub whose trail `$TRAIL` has the state of `r`, which has changed since; `$HUB` is its address.
        "hub" => {
            small_device(place, "r");
            let hub = Hub::start(World { is_hub: true, ..world_of(place, "r") });
            place.write("r/web/root.squashfs", "new image");
            place.commit("r", "second");
            return vec![("TRAIL".into(), format!("{}/trails/t1", hub.url)), ("HUB".into(), hub.url)];
        }
        "orphan" => {
            committed();
            place.repo("other");
            place.write("other/b", "of another");
            place.commit("other", "x");
            let state = place.read("r/.pvr/json");
            place.write("home/.pvr/objects/0000000000000000000000000000000000000000000000000000000000000001", "x");
            assert!(state.contains("a.txt"));
        }
        _ => panic!("no scenario {name}"),
    }
    Vec::new()
}

fn run(row: &Row) -> Result<(), String> {
    let place = Place::new();
    let variables = scenario(&place, &row.scenario);
    let pvr = Path::new(env!("CARGO_BIN_EXE_pvr"));
    let path = format!("{}:{}", pvr.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", &row.script]).current_dir(place.path("r")).stdin(Stdio::null());
    shell.env("PATH", path).env("HOME", place.path("home")).env_remove("SHELL").envs(variables);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PVR_")) {
        shell.env_remove(name);
    }
    let output = shell.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let file = |name: &str| fs::read_to_string(place.path("r").join(name)).unwrap_or_else(|e| format!("({e})"));
    let mut wrong = Vec::new();
    if output.status.code() != Some(row.exit) {
        wrong.push(format!("exit {:?}", output.status.code()));
    }
    for (word, text) in &row.expected {
        let (name, content) = text.split_once(' ').unwrap_or((text, ""));
        let there = place.path("r").join(name).exists();
        let fine = match word.as_str() {
            "out" => out.lines().any(|line| line.contains(text.as_str())),
            "out-is" => out == *text,
            "err" => err.lines().any(|line| line.contains(text.as_str())),
            "file" => there,
            "gone" => !there,
            "has" => file(name).contains(content),
            _ => file(name) == content,
        };
        if !fine {
            let found = if matches!(word.as_str(), "has" | "is") { file(name) } else { String::new() };
            wrong.push(format!("not: {word} {text:?} {found}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{} {} {:?}\n{}\n--- output\n{out}--- errors\n{err}", row.at, row.verb, row.items, wrong.join("\n")))
}

#[test]
fn every_row_does_what_it_says() {
    let rows = rows();
    for row in &rows {
        assert!(!row.expected.is_empty() || row.exit > 0, "{}: compares nothing but that it succeeds", row.at);
    }
    let failed: Vec<_> = rows.iter().filter_map(|row| run(row).err()).collect();
    assert!(failed.is_empty(), "{} of {} rows:\n{}", failed.len(), rows.len(), failed.join("\n\n"));
    println!("{} rows", rows.len());
}

/// The verbs of clap's tree with their items, as the rows name them. `pvr` is the program itself.
fn tree() -> Vec<(String, BTreeSet<String>)> {
    let mut program = pvr::commands::Cli::command();
    program.build();
    let own = BTreeSet::from(["--generate-bash-completion".to_owned()]);
    let mut found = vec![("pvr".to_owned(), &items(&program, &BTreeSet::new()) | &own)];
    let global = items(&program, &BTreeSet::new());
    for verb in program.get_subcommands() {
        found.push((verb.get_name().to_owned(), items(verb, &global)));
    }
    found
}

/// As [`tree`], with the verbs of verbs: `device scan`.
fn whole_tree() -> Vec<(String, BTreeSet<String>)> {
    let mut program = pvr::commands::Cli::command();
    program.build();
    let global = items(&program, &BTreeSet::new());
    let mut found = tree();
    for verb in program.get_subcommands() {
        let below =
            verb.get_subcommands().map(|sub| (format!("{} {}", verb.get_name(), sub.get_name()), items(sub, &global)));
        found.extend(below);
    }
    found
}

/// Aliases, flags and variables of a verb. Flags that every verb has are the program's.
fn items(command: &clap::Command, global: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = command.get_all_aliases().map(|name| format!("alias={name}")).collect();
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        let is_global = arg.is_global_set() || matches!(arg.get_id().as_str(), "help" | "version");
        if is_global && !global.is_empty() {
            continue;
        }
        let longs = arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default());
        found.extend(longs.map(|long| format!("--{long}")));
        found.extend(arg.get_short().map(|short| format!("-{short}")));
        found.extend(arg.get_env().map(|env| env.to_string_lossy().into_owned()));
    }
    found
}

fn list(name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(checklist(name)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| line.split_once(':').map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()));
    lines.map(|line| pair(line).unwrap_or_else(|| panic!("{name}: {line}"))).collect()
}

#[test]
fn no_verb_and_no_flag_is_without_a_row() {
    let (rows, elsewhere) = (rows(), list("elsewhere.txt"));
    let mut missing = Vec::new();
    for (verb, items) in tree().iter().filter(|(verb, _)| !elsewhere.iter().any(|(name, _)| name == verb)) {
        let of_verb: Vec<_> = rows.iter().filter(|row| row.verb == *verb).collect();
        if verb != "pvr" && !of_verb.iter().any(|row| row.items.is_empty()) {
            missing.push(verb.clone());
        }
        let covered: BTreeSet<_> = of_verb.iter().flat_map(|row| &row.items).cloned().collect();
        missing.extend(items.difference(&covered).map(|item| format!("{verb} {item}")));
    }
    assert!(missing.is_empty(), "without a row in checklist/*.rows: {}", missing.join(", "));
}

#[test]
fn what_the_original_has_is_here_or_named_as_left_for_later() {
    let (tree, later) = (whole_tree(), list("later.txt"));
    let mut missing = Vec::new();
    for (verb, items) in list("original.txt") {
        let ours = tree.iter().find(|(name, _)| *name == verb);
        for item in std::iter::once("").chain(items.split_whitespace()) {
            let name = format!("{verb} {item}");
            let here = ours.is_some_and(|(_, ours)| item.is_empty() || item == "-hl" || ours.contains(item));
            let named = |left: &str| left == name.trim() || left == verb || verb.starts_with(&format!("{left} "));
            let named = later.iter().any(|(left, _)| named(left));
            if !here && !named {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "neither here nor in checklist/later.txt: {}", missing.join(", "));
    let known = |left: &str| {
        let item_of = |(verb, items): &(String, BTreeSet<String>)| {
            left.rsplit_once(' ').is_some_and(|(of, item)| verb == of && items.contains(item))
        };
        tree.iter().any(|entry| entry.0 == left || item_of(entry))
    };
    let stale: Vec<_> = later.iter().filter(|(left, _)| known(left)).collect();
    assert!(stale.is_empty(), "left for later, but here: {stale:?}");
}
