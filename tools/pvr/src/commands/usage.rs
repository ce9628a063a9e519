//! Usage: the words of the user as a command, the program's help by groups, and what is said of wrong words.

use crate::{commands::Cli, error::Error};
use clap::{
    Command, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::{ffi::OsString, fmt::Write as _, io::Write as _};

/// The verbs as the help shows them.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Files and their state", &["init", "clone", "add", "status", "diff", "json", "commit", "reset"]),
    ("What was before", &["log", "show", "undo", "gc"]),
    ("Archives and folders", &["export", "import", "inspect", "deploy"]),
    (
        "Devices and hubs",
        &["device", "plan", "post", "get", "merge", "put", "putobjects", "fastcopy", "remoteinfo", "stepinfo"],
    ),
    ("Images and the emulator", &["image", "emulate", "control"]),
    ("This program", &["global-config", "completion", "version", "help"]),
];

/// What the original has and this version has not.
const LATER: [&str; 13] = [
    "app",
    "sig",
    "login",
    "claim",
    "ps",
    "logs",
    "whoami",
    "register",
    "self-upgrade",
    "dm-convert",
    "dm-apply",
    "dmc",
    "dma",
];

/// Options that have a short form before the verb only.
const SHORTS: [(&str, &str); 6] = [
    ("-c", "--config-dir"),
    ("-a", "--access-token"),
    ("-b", "--baseurl"),
    ("-r", "--repo-baseurl"),
    ("-d", "--debug"),
    ("-i", "--insecure"),
];

/// The program with its help.
pub fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    let mut verbs = String::new();
    for (title, names) in GROUPS {
        let _ = writeln!(verbs, "{title}:");
        for verb in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let aliases: Vec<_> = verb.get_visible_aliases().collect();
            let aliases = if aliases.is_empty() { String::new() } else { format!(" [{}]", aliases.join(", ")) };
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(verbs, "  {:<13} {about}{aliases}", verb.get_name());
        }
        verbs.push('\n');
    }
    Cli::command().help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}Options:\n{{options}}{{after-help}}"
    ))
}

/// Reads the words; ends the program if they are wrong, or ask for help.
pub fn parse(words: Vec<OsString>) -> Cli {
    let json = words.iter().any(|word| word == "--json");
    let parsed = command().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| {
        let own = match own(&error) {
            _ if !error.use_stderr() => None,
            None if json => Some(plain(&error)),
            own => own,
        };
        let Some(own) = own else { error.exit() };
        tell(&own, json);
        std::process::exit(own.exit_code().into());
    })
}

/// Says on the standard error what went wrong: for people, or as one JSON object.
pub fn tell(error: &Error, json: bool) {
    let text = if json { error.json().to_string() } else { error.to_string() };
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What we know better than the parser.
fn own(error: &clap::Error) -> Option<Error> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let verb = word(ContextKind::InvalidSubcommand).filter(|verb| LATER.contains(verb))?;
            let hint = match verb {
                "self-upgrade" => "a tool does not replace itself: whatever installed it brings new ones",
                _ => "`pvr help` lists the verbs that are",
            };
            Some(Error::usage(format!("{verb} is not in this version")).hint(hint))
        }
        ErrorKind::UnknownArgument => {
            let word = word(ContextKind::InvalidArg)?;
            let (short, long) = SHORTS.iter().find(|(short, _)| *short == word)?;
            let hint = format!("before the verb it is {long}, which can stand behind the verb too: pvr {short} VERB …");
            Some(Error::usage(format!("{short} behind the verb means nothing here")).hint(hint))
        }
        ErrorKind::MissingSubcommand => {
            Some(Error::usage("no verb was given").hint("`pvr help` lists them, `pvr help VERB` what follows one"))
        }
        _ => None,
    }
}

/// The parser's error as one of ours.
fn plain(error: &clap::Error) -> Error {
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Error::usage(message).hint("--help says what there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group() {
        let program = command();
        let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name);
        let mut verbs: Vec<_> = verbs.chain(["help"]).collect();
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        verbs.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, verbs);
    }

    #[test]
    fn no_verb_is_left_for_later_that_is_here() {
        let program = command();
        assert!(LATER.iter().all(|verb| program.find_subcommand(verb).is_none()));
    }
}
