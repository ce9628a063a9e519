//! `pvr gc`.
//!
//! The pool is shared: with repositories of others, which are in the pool's own list, and with some that nobody told us
//! of. So an object goes in two steps: what no known repository needs, is older than the grace, and is not linked from a
//! checkout is put aside into `.unused/` of the pool, from where every `pvr` of ours takes it back by itself; only what
//! lay there for another grace is deleted.

use crate::{
    commands::Context,
    error::{During, Error, Kind, Result},
    files,
    pool::{Pool, UNUSED},
    registry::{Registry, real},
    repo::{self, Repo},
};
use clap::Parser;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, FileTimes, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Free the object pool of what no repository needs
///
/// Needed are the objects of every known repository's committed state, of its history and of what was added. Known are
/// the repositories of this pool in which anybody ran `pvr`, and those that --scan finds. Anything else is first put
/// aside, and deleted by a later gc; whoever asks for it meanwhile gets it back. Kept in any case: what is younger than
/// --days, and what a checkout is hard-linked to. Nothing is done while a known repository cannot be read: its disk may just not be
/// mounted; --forget says that it is gone for good.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr gc --dry-run
  pvr gc --scan ~/src
  pvr gc --forget ~/src/old
  pvr gc --restore")]
pub(super) struct Args {
    /// Change nothing, only say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Days for which an object is kept, and then again put aside
    #[arg(long, default_value_t = 14)]
    days: u64,
    /// Look below this folder for repositories that are not known yet
    #[arg(long, value_name = "DIR")]
    scan: Vec<PathBuf>,
    /// A known repository that is gone for good
    #[arg(long, value_name = "DIR")]
    forget: Vec<PathBuf>,
    /// Bring back everything that was put aside
    #[arg(long)]
    restore: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let pool = match Repo::open() {
        Ok(repo) => repo.pool().clone(),
        Err(_) => Pool::at(&context.shared_pool()),
    };
    if !pool.dir().is_dir() {
        return Err(Error::usage(format!("there is no pool {}", pool.dir().display()))
            .hint("run it in a repository, or give --config-dir"));
    }
    let registries = [Registry::of(&context.config_dir), Registry::of_pool(pool.dir())];
    let gone: Vec<_> = args.forget.iter().map(|dir| real(dir)).collect();
    registries.iter().try_for_each(|registry| registry.forget(&gone))?;
    for dir in &args.scan {
        scan(&files::absolute(dir), context)?;
    }
    let _alone = alone(&pool)?;
    let mut report = if args.restore { restore(&pool, args.dry_run)? } else { collect(&pool, &registries, args)? };
    report.dry_run = args.dry_run;
    report.pool = pool.dir().to_owned();
    context.say(report.json(), || report.text());
    Ok(())
}

/// The pool without anybody who stores into it.
fn alone(pool: &Pool) -> Result<File> {
    let act = || {
        let dir = File::open(pool.dir())?;
        if dir.try_lock().is_err() {
            eprintln!("another pvr is using the pool; waiting for it");
            dir.lock()?;
        }
        Ok(dir)
    };
    act().during(|| format!("lock {}", pool.dir().display()))
}

/// What was found and done: number and bytes, by what happened and why.
#[derive(Default)]
struct Report {
    pool: PathBuf,
    dry_run: bool,
    repositories: Vec<PathBuf>,
    by_reason: BTreeMap<&'static str, (u64, u64)>,
}

const NEEDED: &str = "kept: needed by a known repository";
const YOUNG: &str = "kept: younger than the grace";
const LINKED: &str = "kept: a checkout is linked to it";
const STRANGE: &str = "kept: not an object";
const WAITING: &str = "kept aside: not long enough there";
const BROUGHT_BACK: &str = "brought back";
const PUT_ASIDE: &str = "put aside: needed by no known repository";
const DELETED: &str = "deleted: put aside before, and not asked for since";
const LEFTOVER: &str = "deleted: left by a program that was interrupted";

impl Report {
    fn count(&mut self, reason: &'static str, size: u64) {
        let (number, bytes) = self.by_reason.entry(reason).or_default();
        *number += 1;
        *bytes += size;
    }

    fn json(&self) -> Value {
        let reason =
            |(reason, (number, bytes)): (&&str, &(u64, u64))| json!({"what": reason, "number": number, "bytes": bytes});
        json!({"pool": self.pool, "dry-run": self.dry_run, "repositories": self.repositories,
            "objects": self.by_reason.iter().map(reason).collect::<Vec<_>>()})
    }

    fn text(&self) -> String {
        let mut text = format!("pool {}\n", self.pool.display());
        for root in &self.repositories {
            text += &format!("repository {}\n", root.display());
        }
        for (reason, (number, bytes)) in &self.by_reason {
            text += &format!("{number:>7} objects {:>11} kB  {reason}\n", bytes.div_ceil(1024));
        }
        if self.dry_run {
            text += "nothing was changed\n";
        } else if [PUT_ASIDE, WAITING].iter().any(|reason| self.by_reason.contains_key(reason)) {
            text += "`pvr gc --restore` brings back what is put aside\n";
        }
        text.trim_end().to_owned()
    }
}

fn collect(pool: &Pool, registries: &[Registry], args: &Args) -> Result<Report> {
    let mut report = Report::default();
    let needed = needed(pool, registries, &mut report)?;
    let grace = Duration::from_secs(args.days.saturating_mul(86_400));
    let old =
        |meta: &Metadata| meta.modified().ok().and_then(|then| then.elapsed().ok()).is_some_and(|age| age >= grace);
    let aside = pool.dir().join(UNUSED);
    for (name, path, meta) in entries(&aside)? {
        if needed.contains(&name) {
            report.count(BROUGHT_BACK, meta.len());
            act(args, || fs::rename(&path, pool.dir().join(&name)), &path)?;
        } else if old(&meta) {
            report.count(DELETED, meta.len());
            act(args, || fs::remove_file(&path), &path)?;
        } else {
            report.count(WAITING, meta.len());
        }
    }
    for (name, path, meta) in entries(pool.dir())? {
        let leftover = name.starts_with(".pvr-") || name.strip_suffix(".new").is_some_and(repo::is_sha);
        if leftover && old(&meta) {
            report.count(LEFTOVER, meta.len());
            act(args, || fs::remove_file(&path), &path)?;
        } else if !repo::is_sha(&name) {
            report.count(STRANGE, meta.len());
        } else if needed.contains(&name) {
            report.count(NEEDED, meta.len());
        } else if meta.nlink() > 1 {
            report.count(LINKED, meta.len());
        } else if !old(&meta) {
            report.count(YOUNG, meta.len());
        } else {
            report.count(PUT_ASIDE, meta.len());
            act(args, || put_aside(&path, &aside, &name), &path)?;
        }
    }
    Ok(report)
}

/// Its time is then the one at which it was put aside.
fn put_aside(path: &Path, aside: &Path, name: &str) -> std::io::Result<()> {
    fs::create_dir_all(aside)?;
    File::open(path)?.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
    fs::rename(path, aside.join(name))
}

fn restore(pool: &Pool, dry_run: bool) -> Result<Report> {
    let mut report = Report::default();
    for (name, path, meta) in entries(&pool.dir().join(UNUSED))? {
        report.count(BROUGHT_BACK, meta.len());
        if !dry_run {
            fs::rename(&path, pool.dir().join(&name)).during(|| format!("bring back {}", path.display()))?;
        }
    }
    Ok(report)
}

fn act(args: &Args, act: impl FnOnce() -> std::io::Result<()>, path: &Path) -> Result<()> {
    if args.dry_run { Ok(()) } else { act().during(|| format!("move or remove {}", path.display())) }
}

/// The plain files of a folder, sorted; none if there is no folder.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let list = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        list => list.during(|| format!("read folder {}", dir.display()))?,
    };
    for entry in list {
        let entry = entry.during(|| format!("read folder {}", dir.display()))?;
        let meta = entry.metadata().during(|| format!("look at {}", entry.path().display()))?;
        if meta.is_file() {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path(), meta));
        }
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The objects that the known repositories of this pool need.
fn needed(pool: &Pool, registries: &[Registry], report: &mut Report) -> Result<BTreeSet<String>> {
    let mut needed = BTreeSet::new();
    let this = real(pool.dir());
    let mut roots = BTreeSet::new();
    for registry in registries {
        roots.extend(registry.list()?);
    }
    for root in roots {
        // Only one that is not there may be forgotten: the objects of one that is damaged are needed to repair it.
        let is_there = root.join(".pvr").exists();
        let hint = |mut error: Error| match error.hint.take_if(|_| is_there) {
            Some(hint) => error.hint(format!("nothing was done; {hint}")),
            None if is_there => error.hint(format!("nothing was done: repair {} first", root.display())),
            None => {
                // The command was right; this machine is not as it was.
                error.kind = Kind::Host;
                error.hint(format!(
                    "nothing was done: mount its disk, or, if it is gone for good: pvr gc --forget {}",
                    root.display()
                ))
            }
        };
        let repo = Repo::at(&root).map_err(hint)?;
        if real(repo.pool().dir()) != this {
            continue;
        }
        let mut states = repo.history().states().map_err(hint)?;
        states.push(repo.pristine().map_err(hint)?);
        for state in &states {
            needed.extend(repo::objects(state).map_err(hint)?);
        }
        needed.extend(repo.index().map_err(hint)?.into_values().map(|added| added.sha));
        report.repositories.push(root);
    }
    Ok(needed)
}

/// Notes every repository below a folder.
fn scan(dir: &Path, context: &Context) -> Result<()> {
    context.note_repository(dir);
    let list = || fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>();
    for entry in list().during(|| format!("read folder {}", dir.display()))? {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != ".pvr" {
            scan(&entry.path(), context)?;
        }
    }
    Ok(())
}
