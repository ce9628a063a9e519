//! `pvr export`.
//!
//! The archive is a POSIX ustar: `json` first, so that a reader can check the state before the objects come, then
//! each object once, sorted. Owners and times are fixed: the same state gives the same bytes.

use crate::{
    canonical::{self, CANONICAL},
    commands::Context,
    error::{During, Error, Result},
    files,
    repo::{self, Repo, State},
};
use clap::Parser;
use flate2::{Compression, GzBuilder};
use serde_json::Value;
use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use tar::{EntryType, Header};

/// Write the committed state and its objects as an archive
///
/// Compressed if the name ends in .gz or .tgz. `-` is the standard output, never compressed.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr export device.pvrexport.tgz
  pvr export --parts web,_config/web web.pvrexport.tgz")]
pub(super) struct Args {
    /// The archive
    file: PathBuf,
    /// Only these parts of the state
    #[arg(long, short, value_delimiter = ',', value_name = "PART")]
    parts: Vec<String>,
}

pub(super) fn run(_context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let state = selected(repo.pristine()?, &args.parts)?;
    if args.file == Path::new("-") {
        return write(&repo, &state, std::io::stdout().lock());
    }
    let name = args.file.to_string_lossy().to_lowercase();
    let file = files::begin(&args.file)?;
    if name.ends_with(".gz") || name.ends_with(".tgz") {
        let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(file.as_file(), Compression::default());
        write(&repo, &state, &mut gzip)?;
        gzip.finish().during(|| format!("write {}", args.file.display()))?;
    } else {
        write(&repo, &state, file.as_file())?;
    }
    files::finish(file, &args.file, 0o644)
}

fn selected(mut state: State, parts: &[String]) -> Result<State> {
    if let Some(part) = parts.iter().find(|part| !state.keys().any(|key| repo::in_part(key, part))) {
        return Err(Error::input(format!("the committed state has no part {part}")));
    }
    state.retain(|key, _| key == "#spec" || parts.is_empty() || parts.iter().any(|p| repo::in_part(key, p)));
    Ok(state)
}

fn write(repo: &Repo, state: &State, out: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(out));
    let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
    append(&mut archive, "json", 0o600, text.len() as u64, text.as_bytes())?;
    for sha in repo::objects(state)? {
        let path = repo.object(&sha);
        let open = || -> std::io::Result<_> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().during(|| format!("read object {}", path.display()))?;
        append(&mut archive, &format!("objects/{sha}"), 0o644, length, file)?;
    }
    archive.into_inner().and_then(|mut out| out.flush()).during(|| "write the archive")
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, mode: u32, size: u64, content: impl Read) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    archive.append_data(&mut header, name, content).during(|| format!("write {name} to the archive"))
}
