//! One side of `pvr plan`: a state with what is known of its objects, wherever both come from.
//!
//! A side is one of: the files of a repository, its committed state, an exported archive, what a device runs. The text
//! of its state is what a device would compare: canonical for what `pvr` would send, raw for what is there already.
//!
//! Invariants: an archive is walked by the device's own code, and refused here for what it would be refused for there.
//! Not done: objects of a device are not fetched; only their names are known.

use crate::{
    canonical::{self, CANONICAL},
    error::{During, Error, Kind, Result},
    http::Options,
    reference::{Place, Reference},
    remote::Remote,
    repo::{self, Repo, State},
    worktree::Working,
};
use flate2::read::MultiGzDecoder;
use runtime::{
    admit::Shelf,
    archive::{self, Source, Visitor},
    fault::{Code, Refusal},
    id::ObjectId,
    limits,
    state::Spans,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufReader, Read, Seek},
    path::{Path, PathBuf},
};

/// A state and its objects.
pub struct Side {
    /// What it is, for people.
    pub what: String,
    /// The text of its state.
    pub text: Vec<u8>,
    /// Its objects, as far as they are known.
    pub objects: Objects,
    /// Files beside it that no commit would record.
    pub untracked: usize,
}

/// Where the content of an object is.
#[derive(Clone, Debug)]
enum Content {
    File(PathBuf),
    /// Its size, and its bytes if they may be a configuration.
    Bytes(u64, Vec<u8>),
}

/// Objects by name.
#[derive(Clone, Default, Debug)]
pub struct Objects(BTreeMap<ObjectId, Content>);

impl Objects {
    /// Those of a state, in the files that `place` says.
    pub fn of(state: &State, place: impl Fn(&str, &str) -> PathBuf) -> Result<Self> {
        let mut objects = Self::default();
        for (key, value) in repo::entries(state) {
            if let Some((sha, id)) = repo::object_of(key, value)?.and_then(|sha| Some((sha, ObjectId::parse(sha)?))) {
                objects.0.insert(id, Content::File(place(key, sha)));
            }
        }
        Ok(objects)
    }
}

impl Shelf for Objects {
    fn size(&mut self, id: ObjectId) -> std::result::Result<u64, Code> {
        match self.0.get(&id).ok_or(Code::ObjectMissing)? {
            Content::File(path) => fs::metadata(path).map(|data| data.len()).map_err(|_| Code::ObjectMissing),
            Content::Bytes(size, _) => Ok(*size),
        }
    }

    fn read(&mut self, id: ObjectId, out: &mut [u8]) -> std::result::Result<usize, Code> {
        let read;
        let content = match self.0.get(&id).ok_or(Code::ObjectMissing)? {
            Content::File(path) => {
                read = fs::read(path).map_err(|_| Code::StorageIo)?;
                &read
            }
            Content::Bytes(_, content) => content,
        };
        out.get_mut(..content.len()).ok_or(Code::LxcTooLarge)?.copy_from_slice(content);
        Ok(content.len())
    }
}

impl Side {
    /// The files of a repository as they are now.
    pub fn files(repo: &Repo) -> Result<Self> {
        let (index, pristine) = repo.load()?;
        let Working { state, untracked, .. } = repo.working(&pristine, &index)?;
        let objects = Objects::of(&state, |key, _| repo.root().join(key))?;
        Ok(Self { what: "the files here".into(), text: canonical_text(&state)?, objects, untracked: untracked.len() })
    }

    /// The committed state of a repository.
    pub fn committed(repo: &Repo, what: String) -> Result<Self> {
        Self::state(repo, &repo.pristine()?, what)
    }

    /// Any state whose objects are in the pool of a repository.
    pub fn state(repo: &Repo, state: &State, what: String) -> Result<Self> {
        let objects = Objects::of(state, |_, sha| repo.object(sha))?;
        Ok(Self { what, text: canonical_text(state)?, objects, untracked: 0 })
    }

    /// What somebody named: a folder with a repository, an archive, or a device.
    pub fn named(name: &str, options: &Options) -> Result<Self> {
        match Reference::parse(name, options)?.place {
            Place::Local(path) if path.is_dir() => {
                Self::committed(&Repo::at(&path)?, format!("the committed state of {name}"))
            }
            Place::Local(path) => Self::archive(&path),
            Place::Remote(url) => {
                let text = Remote::find(options, &url)?.state_text()?;
                Ok(Self { what: url, text, objects: Objects::default(), untracked: 0 })
            }
        }
    }

    /// An exported archive, plain or packed.
    pub fn archive(path: &Path) -> Result<Self> {
        let (text, objects) = walked(path)?.map_err(|refusal| {
            let hint = "a device would not install it; export it again";
            Error::new(Kind::Input, format!("{}: {refusal}", path.display())).hint(hint)
        })?;
        Ok(Self { what: path.display().to_string(), text, objects, untracked: 0 })
    }
}

/// Why a device would not install an archive as it is, by its own code; nothing if it would look at its state.
pub fn refusal(path: &Path) -> Result<Option<Refusal>> {
    Ok(walked(path)?.err())
}

/// The state and the objects of an archive, as a device walks it.
fn walked(path: &Path) -> Result<std::result::Result<(Vec<u8>, Objects), Refusal>> {
    let open = || -> std::io::Result<Box<dyn Read>> {
        let mut file = File::open(path)?;
        let mut magic = [0; 2];
        let length = file.read(&mut magic)?;
        file.rewind()?;
        let file = BufReader::new(file);
        Ok(if magic[..length] == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
    };
    let mut source = Unpacked(open().during(|| format!("read {}", path.display()))?);
    let (mut text, mut spans) = (vec![0; limits::STATE_MAX], Box::new(Spans::new()));
    let mut kept = Kept::default();
    Ok(archive::walk(&mut source, &mut text, &mut spans, &mut kept).map(|length| {
        text.truncate(length);
        (text, kept.objects)
    }))
}

fn canonical_text(state: &State) -> Result<Vec<u8>> {
    Ok(canonical::write(&Value::Object(state.clone()), CANONICAL)?.into_bytes())
}

struct Unpacked(Box<dyn Read>);

impl Source for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> std::result::Result<usize, Code> {
        self.0.read(out).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Code::ArchiveTruncated,
            _ => Code::ArchiveInvalid,
        })
    }
}

/// Keeps sizes, and what is short enough for a configuration.
#[derive(Default)]
struct Kept {
    objects: Objects,
    size: u64,
    now: Vec<u8>,
}

impl Visitor for Kept {
    fn state(&mut self, _: &[u8]) -> std::result::Result<(), Refusal> {
        Ok(())
    }

    fn begin(&mut self, _: ObjectId, size: u64) -> std::result::Result<(), Refusal> {
        self.size = size;
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        if self.size <= limits::LXC_CONF_MAX as u64 {
            self.now.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn end(&mut self, id: ObjectId) -> std::result::Result<(), Refusal> {
        self.objects.0.insert(id, Content::Bytes(self.size, std::mem::take(&mut self.now)));
        Ok(())
    }
}
