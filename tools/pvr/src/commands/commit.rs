//! `pvr commit`.

use crate::{
    commands::Context,
    error::{Error, Result},
    files,
    repo::{self, Added, NO_MESSAGE, Repo, State},
};
use clap::Parser;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Record the files as the new committed state
///
/// Changed and removed files that are tracked, and new ones that were added. Contents are copied to the object pool
/// first; the state changes at once, at the end. JSON files are recorded as they are, members that are null included.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr commit -m 'new page'
  pvr commit --checkpoint")]
pub(super) struct Args {
    /// What the commit is about
    #[arg(long, short, default_value = NO_MESSAGE, hide_default_value = true)]
    message: String,
    /// Also write checkpoint.json with the time, and track it
    #[arg(long, short)]
    checkpoint: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let _lock = repo.lock()?;
    let (pristine, mut index) = (repo.pristine()?, repo.index()?);
    if args.checkpoint {
        write_checkpoint(&repo, &mut index)?;
    }
    let mut working = repo.working(&pristine, &index)?;
    let changes = repo::changes(&pristine, &working.state)?;
    for key in changes.added.iter().chain(&changes.changed) {
        record(context, &repo, key, &mut working.state, changes.added.contains(key))?;
    }
    for key in &changes.removed {
        context.warn(&format!("Removing {key}"));
    }
    repo.write_pristine(&working.state)?;
    files::write_atomic(&repo.root().join(".pvr/commitmsg"), 0o644, args.message.as_bytes())?;
    repo.write_index(&BTreeMap::new())
}

/// Puts a file's content where the new state will find it. What was copied counts, not what was hashed before.
fn record(context: &Context, repo: &Repo, key: &str, state: &mut State, new: bool) -> Result<()> {
    let path = repo.root().join(key);
    let value = state.get(key).ok_or_else(|| Error::host(format!("{key} is not in the new state")))?;
    if key.starts_with('#') {
        return Ok(());
    }
    let verb = |kind: &str| if new { format!("Adding {kind}") } else { format!("Committing ({kind}):") };
    match repo::object_of(key, value)? {
        None => context.warn(&format!(
            "{} {}",
            verb("inline"),
            if new { key.to_owned() } else { path.display().to_string() }
        )),
        Some(_) => {
            let sha = repo.store(&path)?;
            let with = if new { format!(" with {sha}") } else { String::new() };
            context.warn(&format!("{} {}{with}", verb("raw"), path.display()));
            state.insert(key.to_owned(), Value::String(sha));
        }
    }
    Ok(())
}

fn write_checkpoint(repo: &Repo, index: &mut BTreeMap<String, Added>) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_err(|_| Error::host("this machine's clock is before 1970"))?.as_secs();
    let text = crate::canonical::write(&json!({"major": rfc3339(now)}), crate::canonical::CANONICAL)?;
    files::write_atomic(&repo.root().join("checkpoint.json"), 0o644, text.as_bytes())?;
    let sha = files::hash_bytes(text.as_bytes());
    index.insert("checkpoint.json".into(), Added { force_object: false, sha });
    Ok(())
}

/// A time in UTC, from seconds since 1970. Days to date after Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::rfc3339(1_795_174_329), "2026-11-20T11:32:09Z");
    }
}
