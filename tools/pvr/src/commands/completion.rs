//! `pvr completion`, and what the shells' own completion of the original asks for.

use crate::{
    commands::{Cli, Context, output},
    error::{Error, Result},
};
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use serde_json::json;

/// Print the completion script for a shell
///
/// Without a name, for the shell that $SHELL names.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr completion bash > ~/.local/share/bash-completion/completions/pvr
  pvr completion zsh > ~/.zfunc/_pvr
  pvr completion fish > ~/.config/fish/completions/pvr.fish")]
pub(super) struct Args {
    /// bash, zsh or fish
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: Option<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let shell = match args.shell.as_deref() {
        Some("bash") => Shell::Bash,
        Some("zsh") => Shell::Zsh,
        Some("fish") => Shell::Fish,
        _ => Shell::from_env().ok_or_else(|| {
            Error::usage("$SHELL does not name a shell that is known").hint("pvr completion bash, zsh or fish")
        })?,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pvr", &mut script);
    if context.json {
        let script = String::from_utf8_lossy(&script);
        context.say(json!({"shell": shell.to_string(), "script": script}), String::new);
        return Ok(());
    }
    output::write(&script);
    Ok(())
}

/// The names that can follow these words, one per line: the answer to `--generate-bash-completion`.
pub fn names_after(words: &[String]) -> String {
    let mut command = Cli::command();
    for word in words {
        if let Some(next) = command.find_subcommand(word) {
            command = next.clone();
        }
    }
    let visible = command.get_subcommands().filter(|next| !next.is_hide_set());
    let names = visible.flat_map(|next| std::iter::once(next.get_name()).chain(next.get_visible_aliases()));
    names.map(|name| format!("{name}\n")).collect()
}
