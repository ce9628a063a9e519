//! `pvrexport` archives: a state and its objects as one tar file.
//!
//! Written: POSIX ustar, `json` first, so that a reader can check the state before the objects come, then each object
//! once, sorted. Owners and times are fixed: the same state gives the same bytes. gzip if the name says so.
//! Read: nothing of an archive is believed, and nothing of it is kept unless all of it is right. Members are `json`,
//! `objects/<sha256>`, the folder `objects`, and pax headers that rename nothing; every other member, a link, a name
//! with `..`, content of another hash, a cut-off end, or more than the bounds below refuses the archive.
//! That is wider than what a device takes (`runtime::archive`), because archives come from other tools and hubs: here
//! objects may stand before `json`, the state need not name them, pax headers may tell times, and the bounds are a hub's.
//! `pvr import` says what a device would say ([`crate::side::refusal`]).

use crate::{
    canonical::{self, CANONICAL},
    error::{During, Error, Result},
    files::{self, Target},
    interrupt::Unfinished,
    parts::Parts,
    pool::{Pool, Staged},
    repo::Repo,
    state::{self, State},
};
use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};
use tar::{Archive, Entry, EntryType, Header};

/// A hub's states are larger than a device's, which are at most 128 KiB.
const STATE_MAX: u64 = 16 << 20;
/// Members of an archive; the original writes one for every file, equal ones too.
const MEMBERS_MAX: u64 = 200_000;
/// All content together; no device's storage is larger.
const CONTENT_MAX: u64 = 64 << 30;
/// A pax header with times and names of owners is shorter.
const PAX_MAX: u64 = 64 << 10;
/// What may follow the end of the tar: padding to its record size.
const PADDING_MAX: u64 = 1 << 20;

/// Whether an archive of this name is compressed.
pub fn is_gzip_name(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    name.ends_with(".gz") || name.ends_with(".tgz")
}

/// Writes an archive file, whole or not at all; into what is no file (a device, a pipe) as far as it comes.
pub fn write_file(pool: &Pool, state: &State, path: &Path) -> Result<()> {
    match files::target(path)? {
        Target::Stream(stream) => write_packed(pool, state, path, &stream),
        Target::File(target) => {
            let (_unfinished, file) = Unfinished::of(|| files::begin(&target), |file| file.path())?;
            write_packed(pool, state, path, file.as_file())?;
            files::finish(file, &target, 0o644)
        }
    }
}

/// Writes it compressed or not, as its name says.
fn write_packed(pool: &Pool, state: &State, name: &Path, out: &File) -> Result<()> {
    if !is_gzip_name(name) {
        return write(pool, state, out);
    }
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::default());
    write(pool, state, &mut gzip)?;
    gzip.finish().map(drop).during(|| format!("write {}", name.display()))
}

/// Writes an archive. Every object is verified on the way.
pub fn write(pool: &Pool, state: &State, out: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(out));
    let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
    append(&mut archive, "json", 0o600, text.len() as u64, text.as_bytes())?;
    let mut done = BTreeSet::new();
    let mut objects = Vec::new();
    for (key, value) in state::entries(state) {
        objects.extend(state::object_of(key, value)?.map(|sha| (sha, key)));
    }
    objects.sort_unstable();
    for (sha, key) in objects.into_iter().filter(|(sha, _)| done.insert(*sha)) {
        let file = pool.open(sha, key)?;
        let length = file.metadata().during(|| format!("look at object {sha}"))?.len();
        let mut content = files::Hashing::new(file.take(length));
        append(&mut archive, &format!("objects/{sha}"), 0o644, length, &mut content)?;
        pool.must_be(sha, &content.sha(), key)?;
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

/// Reads the state of an archive, whose parts' objects come into the repository's pool: all of them, or nothing.
pub fn read(repo: &Repo, path: &Path, parts: &Parts) -> Result<State> {
    let (state, staged) = Reader::open(path)?.run(Some(repo.pool()), parts)?;
    repo.pool().publish(staged)?;
    Ok(state)
}

/// Reads the state of an archive and nothing else; its content is checked all the same.
pub fn read_state(path: &Path) -> Result<State> {
    Ok(Reader::open(path)?.run(None, &Parts::default())?.0)
}

/// An archive that is being read.
struct Reader<'p> {
    path: &'p Path,
    input: Box<dyn Read>,
    members: u64,
    content: u64,
}

/// What was read so far.
#[derive(Default)]
struct Found {
    state: Option<State>,
    /// Objects that the state needs; known once the state is.
    needed: BTreeSet<String>,
    objects: BTreeSet<String>,
    staged: Staged,
}

impl<'p> Reader<'p> {
    fn open(path: &'p Path) -> Result<Self> {
        let what = || format!("read {}", path.display());
        let mut file = BufReader::with_capacity(256 << 10, File::open(path).during(what)?);
        let gzip = file.fill_buf().during(what)?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn Read> = if gzip {
            Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self { path, input, members: 0, content: 0 })
    }

    fn run(mut self, pool: Option<&Pool>, parts: &Parts) -> Result<(State, Staged)> {
        let mut found = Found::default();
        let mut archive = Archive::new(std::mem::replace(&mut self.input, Box::new(io::empty())));
        let entries = archive.entries().map_err(|e| self.broken(&e))?.raw(true);
        for entry in entries {
            let entry = entry.map_err(|e| self.broken(&e))?;
            self.count(&entry)?;
            self.member(entry, &mut found, pool, parts)?;
        }
        self.padding(archive.into_inner())?;
        let state = found.state.ok_or_else(|| self.wrong("no state: it has no member json"))?;
        match found.needed.difference(&found.objects).next() {
            Some(sha) => Err(self.wrong(&format!("a hole: it lacks object {sha}"))),
            None => Ok((state, found.staged)),
        }
    }

    /// Bounds, before anything of the member is read.
    fn count(&mut self, entry: &Entry<'_, impl Read>) -> Result<()> {
        self.members += 1;
        self.content = self.content.saturating_add(entry.size());
        if self.members > MEMBERS_MAX || self.content > CONTENT_MAX {
            return Err(self.wrong(&format!("more than {MEMBERS_MAX} members or {} GiB in it", CONTENT_MAX >> 30)));
        }
        Ok(())
    }

    fn member(
        &self,
        mut entry: Entry<'_, impl Read>,
        found: &mut Found,
        pool: Option<&Pool>,
        parts: &Parts,
    ) -> Result<()> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let plain = name.strip_prefix("./").unwrap_or(&name);
        let kind = entry.header().entry_type();
        match (kind, plain.split_once('/')) {
            (EntryType::XHeader | EntryType::XGlobalHeader, _) => self.pax(&mut entry),
            (EntryType::Directory, _) if matches!(plain, "" | "objects/" | "objects") => Ok(()),
            (EntryType::Regular | EntryType::Continuous, None) if plain == "json" => {
                if found.state.is_some() {
                    return Err(self.wrong("two states: a second member json"));
                }
                let state = self.state(&mut entry)?;
                found.needed = state::objects(&parts.select(&state)?)?;
                found.state = Some(state);
                Ok(())
            }
            (EntryType::Regular | EntryType::Continuous, Some(("objects", sha))) if state::is_sha(sha) => {
                self.object(&mut entry, sha, found, pool)
            }
            _ => Err(self.wrong(&format!("a member {name:?} that no export has"))),
        }
    }

    fn state(&self, entry: &mut impl Read) -> Result<State> {
        let mut text = Vec::new();
        entry.take(STATE_MAX + 1).read_to_end(&mut text).map_err(|e| self.broken(&e))?;
        if text.len() as u64 > STATE_MAX {
            return Err(self.wrong(&format!("a state of more than {} MiB", STATE_MAX >> 20)));
        }
        match state::parse(&text, self.path)? {
            Value::Object(state) => {
                state::check_keys(&state)?;
                Ok(state)
            }
            _ => Err(self.wrong("a json that is not a state")),
        }
    }

    /// Stages an object, if the state needs it or is not known yet. Its hash is checked in any case.
    fn object(
        &self,
        entry: &mut Entry<'_, impl Read>,
        sha: &str,
        found: &mut Found,
        pool: Option<&Pool>,
    ) -> Result<()> {
        let wanted = found.state.is_none() || found.needed.contains(sha);
        let (size, what) = (entry.size(), format!("{} in {}", sha, self.path.display()));
        match pool.filter(|_| wanted && !found.objects.contains(sha)) {
            Some(pool) => {
                pool.has_room_for(size)?;
                let mut source = Source { from: entry, broken: None };
                let staged = pool.stage(&mut source, &what, None);
                let (hash, staged) = source.broken.map_or(staged, |e| Err(self.broken(&e)))?;
                self.must_be(sha, &hash)?;
                found.staged.append(staged);
            }
            None => {
                let (hash, _) = files::copy_hashed(entry, &mut io::sink()).map_err(|e| self.broken(&e))?;
                self.must_be(sha, &hash)?;
            }
        }
        found.objects.insert(sha.to_owned());
        Ok(())
    }

    fn must_be(&self, sha: &str, hash: &str) -> Result<()> {
        if sha == hash {
            return Ok(());
        }
        Err(self.wrong(&format!("object {sha} with other content (its sha256 is {hash})")))
    }

    /// A pax header may tell times and owners, which do not matter; one that renames or resizes is refused.
    fn pax(&self, entry: &mut impl Read) -> Result<()> {
        let mut text = Vec::new();
        entry.take(PAX_MAX + 1).read_to_end(&mut text).map_err(|e| self.broken(&e))?;
        let harmless = ["mtime", "atime", "ctime", "uname", "gname", "uid", "gid", "comment"];
        let mut records = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let fine = text.len() as u64 <= PAX_MAX
            && records.all(|line| {
                let line = String::from_utf8_lossy(line);
                let key = line.split_once(' ').and_then(|(_, rest)| rest.split_once('=')).map_or("", |(key, _)| key);
                harmless.contains(&key)
            });
        if fine { Ok(()) } else { Err(self.wrong("a pax header that no export needs")) }
    }

    /// Reads to the end: only there gzip tells whether its content was right.
    fn padding(&self, rest: impl Read) -> Result<()> {
        let mut rest = rest.take(PADDING_MAX + 1);
        let mut buffer = vec![0; 64 << 10];
        let mut length = 0;
        loop {
            match rest.read(&mut buffer) {
                Ok(0) if length > PADDING_MAX => return Err(self.wrong("much behind its end")),
                Ok(0) => return Ok(()),
                Ok(n) if buffer[..n].iter().all(|byte| *byte == 0) => length += n as u64,
                Ok(_) => return Err(self.wrong("something behind its end")),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(&e)),
            }
        }
    }

    fn broken(&self, e: &io::Error) -> Error {
        // What the reader of tars says shows parts of the file, which may be nobody's business.
        let why = if e.raw_os_error().is_some() { format!(" ({e})") } else { String::new() };
        Error::input(format!("{} is no export, or is damaged or cut off{why}; nothing was kept", self.path.display()))
    }

    fn wrong(&self, what: &str) -> Error {
        Error::input(format!("{} has {what}; nothing was kept", self.path.display()))
            .hint("`pvr export` makes archives that are right")
    }
}

/// Tells trouble of the archive from trouble of the pool it is copied to.
struct Source<R> {
    from: R,
    broken: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|e| {
            let again = io::Error::new(e.kind(), e.to_string());
            self.broken = (e.kind() != io::ErrorKind::Interrupted).then_some(e);
            again
        })
    }
}
