//! The verbs, one file each: its arguments, whose doc comments are its help, and the function that does it.

mod add;
mod clone;
mod commit;
mod completion;
mod control;
mod deploy;
mod device;
mod diff;
mod emulate;
mod export;
mod fastcopy;
mod gc;
mod get;
mod global_config;
mod image;
mod import;
mod init;
mod inspect;
mod json;
mod log;
mod output;
mod plan;
mod post;
mod put;
mod remoteinfo;
mod reset;
mod show;
mod status;
mod undo;
mod usage;
mod version;

pub use completion::names_after;
use output::print;
pub use usage::{command, parse, tell};

use crate::{
    error::{Error, Result},
    http,
    registry::Registry,
    repo::Repo,
    shown::shown_lines,
};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Git-like command line of a device's state, and the maker and emulator of images
#[derive(Parser, Debug)]
#[command(name = "pvr", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 trouble on this machine, 2 wrong usage or no repository, 3 wrong input \
and nothing done, 4 the other side was not reached, 5 the other side refused.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every verb, before the verb or behind it.
#[derive(Parser, Debug)]
#[command(next_help_heading = "Options of every verb")]
struct Global {
    #[command(flatten)]
    short: Short,
    /// Folder for the object pool and settings (before the verb also -c)
    #[arg(long, global = true, env = "PVR_CONFIG_DIR", value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Bearer token for every request (before the verb also -a)
    #[arg(long, global = true, env = "PVR_ACCESSTOKEN", hide_env_values = true, value_name = "TOKEN")]
    access_token: Option<String>,
    /// Address of the hub's API (before the verb also -b)
    #[arg(long, global = true, env = "PVR_BASEURL", value_name = "URL")]
    baseurl: Option<String>,
    /// Address below which USER/DEVICE is looked up (before the verb also -r)
    #[arg(long, global = true, env = "PVR_REPO_BASEURL", value_name = "URL")]
    repo_baseurl: Option<String>,
    /// Proxy: system (what the environment says), no, or a URL
    #[arg(long, global = true, env = "PVR_HTTP_PROXY", default_value = "system", value_name = "PROXY")]
    http_proxy: String,
    /// Show the requests and answers on the standard error; tokens are left out (before the verb also -d)
    #[arg(long, global = true, env = "PVR_DEBUG", value_parser = clap::builder::FalseyValueParser::new())]
    debug: bool,
    /// Do not check who the other side is: anybody on the way can read and change what is sent (before the verb also -i)
    #[arg(long, global = true, env = "PVR_INSECURE", value_parser = clap::builder::FalseyValueParser::new())]
    insecure: bool,
    /// Accepted and without effect: this program never replaces itself
    #[arg(long, env = "PVR_DISABLE_SELF_UPGRADE", hide = true, num_args = 0..=1, default_missing_value = "true")]
    disable_self_upgrade: Option<String>,
    /// Print results as JSON, and an error as one object on the standard error: error, hint, code (the exit code)
    #[arg(long, global = true)]
    json: bool,
}

/// The short forms of the original, which stand before the verb: behind it, verbs have their own of these names.
#[derive(Parser, Debug)]
struct Short {
    #[arg(short = 'c', hide = true)]
    c: Option<PathBuf>,
    #[arg(short = 'a', hide = true)]
    a: Option<String>,
    #[arg(short = 'b', hide = true)]
    b: Option<String>,
    #[arg(short = 'r', hide = true)]
    r: Option<String>,
    #[arg(short = 'd', hide = true)]
    d: bool,
    #[arg(short = 'i', hide = true)]
    i: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(visible_alias = "i")]
    Init(init::Args),
    #[command(visible_alias = "a")]
    Add(add::Args),
    #[command(visible_alias = "s")]
    Status(status::Args),
    #[command(visible_alias = "d")]
    Diff(diff::Args),
    #[command(visible_alias = "ci")]
    Commit(commit::Args),
    #[command(visible_aliases = ["checkout", "co", "r"])]
    Reset(reset::Args),
    #[command(visible_alias = "j")]
    Json(json::Args),
    Export(export::Args),
    Import(import::Args),
    Inspect(inspect::Args),
    Deploy(deploy::Args),
    Log(log::Args),
    Show(show::Args),
    Undo(undo::Args),
    Gc(gc::Args),
    GlobalConfig(global_config::Args),
    #[command(visible_alias = "com")]
    Completion(completion::Args),
    Version(version::Args),
    Plan(plan::Args),
    #[command(visible_alias = "po")]
    Post(post::Args),
    #[command(visible_alias = "c")]
    Clone(clone::Args),
    #[command(visible_alias = "g")]
    Get(get::GetArgs),
    #[command(visible_alias = "m")]
    Merge(get::MergeArgs),
    #[command(visible_alias = "p")]
    Put(put::Args),
    #[command(name = "putobjects")]
    PutObjects(put::ObjectsArgs),
    #[command(visible_alias = "fcp")]
    Fastcopy(fastcopy::Args),
    #[command(visible_alias = "ri", name = "remoteinfo")]
    RemoteInfo(remoteinfo::RemoteArgs),
    #[command(visible_alias = "si", name = "stepinfo")]
    StepInfo(remoteinfo::StepInfoArgs),
    /// Make images: a container's root, a board's kernel and initramfs, a whole disk
    #[command(subcommand)]
    Image(image::Command),
    Emulate(emulate::Args),
    /// Find devices around, and pair with them
    #[command(subcommand)]
    Device(device::Command),
    #[command(hide = true)]
    Scan(device::scan::Args),
    Control(control::Args),
}

impl Cli {
    /// Whether what is printed is for programs.
    pub fn is_json(&self) -> bool {
        self.global.json
    }
}

/// What every verb gets besides its arguments.
pub struct Context {
    config_dir: PathBuf,
    access_token: Option<String>,
    /// Address of the hub's API, if it was given.
    pub baseurl: Option<String>,
    /// Address below which USER/DEVICE is looked up, if it was given.
    pub repo_baseurl: Option<String>,
    /// `system`, `no`, or the URL of a proxy.
    pub http_proxy: String,
    /// Show requests and answers.
    pub debug: bool,
    /// Do not check who the other side is.
    pub insecure: bool,
    json: bool,
}

/// Runs the verb; the code with which the program ends if nothing went wrong on our side.
pub fn run(cli: Cli) -> Result<u8> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pvr"));
    let Global { short, config_dir, access_token, baseurl, repo_baseurl, http_proxy, debug, insecure, json, .. } =
        cli.global;
    let config_dir = short.c.or(config_dir).or_else(home);
    let context = Context {
        config_dir: config_dir.ok_or_else(|| Error::usage("HOME is not set").hint("give --config-dir"))?,
        access_token: short.a.or(access_token),
        baseurl: short.b.or(baseurl),
        repo_baseurl: short.r.or(repo_baseurl),
        http_proxy,
        debug: short.d || debug,
        insecure: short.i || insecure,
        json,
    };
    let done = match &cli.command {
        Command::Init(args) => init::run(&context, args),
        Command::Add(args) => add::run(&context, args),
        Command::Status(args) => status::run(&context, args),
        Command::Diff(args) => diff::run(&context, args),
        Command::Commit(args) => commit::run(&context, args),
        Command::Reset(args) => reset::run(&context, args),
        Command::Json(args) => json::run(&context, args),
        Command::Export(args) => export::run(&context, args),
        Command::Import(args) => import::run(&context, args),
        Command::Inspect(args) => inspect::run(&context, args),
        Command::Deploy(args) => deploy::run(&context, args),
        Command::Gc(args) => gc::run(&context, args),
        Command::Log(args) => log::run(&context, args),
        Command::Show(args) => show::run(&context, args),
        Command::Undo(args) => undo::run(&context, args),
        Command::GlobalConfig(args) => global_config::run(&context, args),
        Command::Completion(args) => completion::run(&context, args),
        Command::Version(args) => version::run(&context, args),
        Command::Plan(args) => plan::run(&context, args),
        Command::Post(args) => post::run(&context, args),
        Command::Clone(args) => clone::run(&context, args),
        Command::Get(args) => get::get(&context, args),
        Command::Merge(args) => get::merge(&context, args),
        Command::Put(args) => put::put(&context, args),
        Command::PutObjects(args) => put::put_objects(&context, args),
        Command::Fastcopy(args) => fastcopy::run(&context, args),
        Command::RemoteInfo(args) => remoteinfo::remote_info(&context, args),
        Command::StepInfo(args) => remoteinfo::step_info(&context, args),
        Command::Image(command) => image::run(&context, command),
        Command::Emulate(args) => emulate::run(&context, args),
        Command::Scan(args) => device::scan::run(&context, args),
        Command::Device(command) => device::run(&context, command),
        Command::Control(args) => {
            let code = control::run(&context, args)?;
            return output::finish().map(|()| code);
        }
    };
    // Whoever works in a repository has it noted, for `gc`; that it could not be is no failure of the verb.
    if let Ok(here) = std::env::current_dir() {
        context.note_repository(&here);
    }
    done.and_then(|()| output::finish()).map(|()| 0)
}

impl Context {
    /// The object pool that repositories share unless they are told otherwise.
    fn shared_pool(&self) -> PathBuf {
        self.config_dir.join("objects")
    }

    /// Notes that there is a repository, so that `gc` keeps its objects.
    fn note_repository(&self, root: &Path) {
        if !root.join(".pvr/json").is_file() {
            return;
        }
        let _ = Registry::of(&self.config_dir).note(root);
        // That it could not be is no failure of the verb, which has changed nothing then.
        let _ = Repo::at(root).and_then(|repo| repo.note_if_new());
    }

    /// How devices and hubs are spoken to.
    fn http(&self) -> http::Options {
        http::Options {
            access_token: self.access_token.clone().filter(|token| !token.is_empty()),
            config_dir: self.config_dir.clone(),
            baseurl: self.baseurl.clone().unwrap_or_else(|| "https://api.pantahub.com".into()),
            repo_baseurl: self.repo_baseurl.clone().unwrap_or_else(|| "https://pvr.pantahub.com".into()),
            proxy: self.http_proxy.clone(),
            insecure: self.insecure,
            debug: self.debug,
        }
    }

    /// Prints a result: as JSON where that was asked for, else for people.
    fn say(&self, json: Value, text: impl FnOnce() -> String) {
        if self.json {
            print(&json.to_string());
        } else {
            print(&shown_lines(&text()));
        }
    }

    /// Tells people something that is no result.
    fn warn(&self, text: &str) {
        // If nobody can be told, the work goes on all the same.
        let _ = writeln!(std::io::stderr(), "{}", shown_lines(text));
    }

    /// Shows that something goes on, on a terminal.
    fn spinner(&self, what: &str) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// Shows how much of something is done, on a terminal.
    fn bar(&self, what: &str, length: u64) -> ProgressBar {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.to_owned());
        bar
    }
}
