//! `pvr global-config`.

use crate::{
    canonical::{self, TABS},
    commands::{Context, print},
    error::{During, Error, Result},
    files, repo,
};
use clap::Parser;
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// The settings there are, and what they mean to us.
const KEYS: [&str; 3] = ["Spec", "AutoUpgrade", "DistributionTag"];

/// Show or change the settings of this user
///
/// They are in config.json of --config-dir. Spec is the format of the states that init makes; AutoUpgrade and
/// DistributionTag are kept for the original and have no effect here: this program never replaces itself.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr global-config
  pvr global-config Spec=pantavisor-service-system@1")]
pub(super) struct Args {
    /// Settings to change
    #[arg(value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let mut config = read(context)?;
    for setting in &args.set {
        let known = |key: &str| KEYS.iter().find(|known| known.eq_ignore_ascii_case(key));
        let (key, value) =
            setting.split_once('=').and_then(|(key, value)| Some((known(key)?, value))).ok_or_else(|| {
                Error::usage(format!("{setting} is no setting"))
                    .hint(format!("KEY=VALUE, KEY one of {}", KEYS.join(", ")))
            })?;
        config[*key] = match (*key, value) {
            ("AutoUpgrade", "true") => json!(true),
            ("AutoUpgrade", "false") => json!(false),
            ("AutoUpgrade", _) => return Err(Error::usage("AutoUpgrade is true or false")),
            (_, value) => json!(value),
        };
    }
    if !args.set.is_empty() {
        files::create_dir(&context.config_dir)?;
        files::write_atomic(&path(context), 0o644, canonical::write(&config, TABS)?.as_bytes())?;
    }
    if context.json {
        context.say(config, String::new);
    } else {
        print(&canonical::write(&config, TABS)?);
    }
    Ok(())
}

/// The format of new states, if it is set.
pub(super) fn spec(context: &Context) -> Result<Option<String>> {
    Ok(read(context)?["Spec"].as_str().filter(|spec| !spec.is_empty()).map(str::to_owned))
}

fn path(context: &Context) -> PathBuf {
    context.config_dir.join("config.json")
}

/// The settings; members that we do not know stay.
fn read(context: &Context) -> Result<Value> {
    let path = path(context);
    let mut config = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({}),
        text => repo::parse(&text.during(|| format!("read {}", path.display()))?, &path)?,
    };
    if !config.is_object() {
        return Err(Error::input(format!("{} is no JSON object", path.display())).hint("correct or remove it"));
    }
    for (key, default) in KEYS.iter().zip([json!(repo::DEFAULT_SPEC), json!(false), json!("")]) {
        if config.get(key).is_none() {
            config[*key] = default;
        }
    }
    Ok(config)
}
