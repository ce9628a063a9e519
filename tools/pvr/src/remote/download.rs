//! Objects from a device or a hub into the pool.
//!
//! Invariants: an object gets its name in the pool when all of it is there, has the right hash and is durable, never
//! before; what came before a connection broke is kept as `.pvr-part-<sha>` beside the objects and gone on with, in this
//! run or a later one, by whoever needs the object (a lock on the part says who writes). Never more bytes are
//! taken than the other side announced.
//! Fault model: the other side ends anywhere, sends something else, ignores the range it was asked for. A part that
//! turns out wrong is removed and fetched once as a whole; what is wrong then is the other side's.

use super::{Remote, for_each};
use crate::{
    error::{During, Error, Result},
    files,
    http::{Access, Answer, Failure, Request, Tried, refusal},
    repo::Repo,
};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use ureq::{Body, http::Response};

/// Connections in a row that may break without having brought anything.
const STALLS_MAX: u32 = 3;
/// An object whose size nobody says.
const OBJECT_MAX: u64 = 64 << 30;

impl Remote {
    /// Fetches the objects that the pool does not have, some at the same time.
    pub fn fetch_all(&self, repo: &Repo, shas: &[String], bar: &ProgressBar) -> Result<()> {
        for_each(shas, |sha| self.fetch(repo, sha, bar))?;
        // A state will name them: their names are durable before it is.
        files::sync_dir(repo.pool().dir())
    }

    fn fetch(&self, repo: &Repo, sha: &str, bar: &ProgressBar) -> Result<()> {
        let path = repo.object(sha);
        files::create_dir(path.parent().unwrap_or(Path::new(".")))?;
        let mut part = Part::open(&path, sha)?;
        if repo.pool().is_whole(sha) {
            // Somebody else fetched it while we waited.
            return part.remove();
        }
        let resumed = part.have > 0;
        self.complete(&mut part, bar)?;
        if part.sha() != sha && resumed {
            part.restart()?;
            self.complete(&mut part, bar)?;
        }
        let found = part.sha();
        if found != sha {
            part.remove()?;
            return Err(Error::remote(format!("object {sha} came with other content (its sha256 is {found})"))
                .hint("nothing was kept of it; try again, and look at the other side's storage if it stays so"));
        }
        part.adopt(&path)
    }

    /// Reads until all of the object is there, over as many connections as that takes.
    fn complete(&self, part: &mut Part, bar: &ProgressBar) -> Result<()> {
        let (mut stalls, mut tag, mut announced) = (0, None, false);
        loop {
            let before = part.have;
            let record = self.record(&part.sha)?;
            if !announced {
                bar.inc_length(record.size.unwrap_or(0));
                bar.inc(part.have);
                announced = true;
            }
            if record.size.is_some_and(|size| part.have > size) {
                part.restart()?;
            }
            if record.size == Some(part.have) && part.have > 0 {
                return Ok(());
            }
            match self.stream(&record, part, &mut tag, bar) {
                Ok(()) => return Ok(()),
                Err(Failure::Lost(_)) if part.have > before => stalls = 0,
                Err(Failure::Lost(error)) if stalls >= STALLS_MAX => {
                    let kept = format!("{} of its bytes are kept; the next run goes on from there", part.have);
                    return Err(Error { hint: Some(kept), ..error });
                }
                Err(Failure::Lost(_)) => {
                    stalls += 1;
                    std::thread::sleep(Duration::from_millis(500) * stalls);
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
    }

    /// Where an object's content is, and how long it is.
    fn record(&self, sha: &str) -> Result<Record> {
        let url = format!("{}/{sha}", self.endpoint("objects-endpoint")?.trim_end_matches('/'));
        let answer = self.client.call(&Request::new("GET", &url, Access::Read))?;
        let record = answer.json();
        let Some(url) = record["signed-geturl"].as_str().filter(|url| answer.status == 200 && !url.is_empty()) else {
            return Err(no_record(sha, &answer));
        };
        Ok(Record { url: self.resolve(url)?, size: super::upload::number(&record["size"]) })
    }

    /// One connection's worth of an object.
    fn stream(&self, record: &Record, part: &mut Part, tag: &mut Option<String>, bar: &ProgressBar) -> Tried<()> {
        let mut request = Request::new("GET", &record.url, self.content_access(&record.url));
        request.headers.push(("Accept-Encoding", "identity".into()));
        if part.have > 0 {
            request.headers.push(("Range", format!("bytes={}-", part.have)));
            request.headers.extend(tag.clone().map(|tag| ("If-Range", tag)));
        }
        let answer = self.client.open(&request)?;
        match answer.status().as_u16() {
            200 => part.restart()?,
            206 if part.have > 0 && starts_at(&answer) == Some(part.have) => {}
            206 | 416 if part.have > 0 => {
                part.restart()?;
                return Err(Failure::Lost(Error::remote(format!(
                    "{} does not go on where it was asked to",
                    record.url
                ))));
            }
            status => {
                let mut body = Vec::new();
                // What it says is for people; if that breaks, the status is enough.
                let _ = answer.into_body().into_with_config().limit(4096).reader().read_to_end(&mut body);
                return Err(refusal(&format!("object {} cannot be had", part.sha), status, &body).into());
            }
        }
        let strong = |tag: &&str| !tag.starts_with("W/");
        *tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).filter(strong).map(str::to_owned);
        let most = record.size.unwrap_or(OBJECT_MAX);
        part.take(&record.url, answer, most, bar)?;
        match record.size {
            Some(size) if part.have < size => {
                Err(Failure::Lost(Error::remote(format!("{} ended before its end", record.url))))
            }
            _ => Ok(()),
        }
    }
}

/// What is known of an object before it comes.
struct Record {
    url: String,
    size: Option<u64>,
}

fn no_record(sha: &str, answer: &Answer) -> Error {
    if answer.status == 200 {
        return Error::remote(format!("object {sha} cannot be had: its record names no address"));
    }
    answer.refusal(&format!("object {sha} cannot be had"))
}

/// The first byte of a partial answer.
fn starts_at(answer: &Response<Body>) -> Option<u64> {
    let range = answer.headers().get("content-range")?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// What has come of an object.
struct Part {
    file: File,
    path: PathBuf,
    sha: String,
    hash: Sha256,
    have: u64,
}

impl Part {
    /// The part of an object, ours alone from now on.
    fn open(object: &Path, sha: &str) -> Result<Self> {
        let path = object.with_file_name(format!(".pvr-part-{sha}"));
        let act = || loop {
            let file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            file.lock()?;
            // Whoever held the lock may have given the file its name, or removed it.
            let ours = file.metadata()?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
                return Ok(file);
            }
        };
        let file = act().during(|| format!("create {}", path.display()))?;
        let mut part = Self { file, path, sha: sha.to_owned(), hash: Sha256::new(), have: 0 };
        part.read_again()?;
        Ok(part)
    }

    /// Hashes what is there.
    fn read_again(&mut self) -> Result<()> {
        let mut act = || {
            self.file.seek(SeekFrom::Start(0))?;
            self.hash = Sha256::new();
            self.have = 0;
            let mut buffer = vec![0; 256 << 10];
            loop {
                match self.file.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => {
                        self.hash.update(&buffer[..n]);
                        self.have += n as u64;
                    }
                }
            }
        };
        act().during(|| format!("read {}", self.path.display()))
    }

    /// Begins anew.
    fn restart(&mut self) -> Result<()> {
        if self.have > 0 {
            self.file.set_len(0).during(|| format!("empty {}", self.path.display()))?;
            self.hash = Sha256::new();
            self.have = 0;
        }
        Ok(())
    }

    /// Adds what an answer brings, up to `most` bytes altogether.
    fn take(&mut self, url: &str, answer: Response<Body>, most: u64, bar: &ProgressBar) -> Tried<()> {
        let mut reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::of(url, &ureq::Error::from(e))),
            };
            if self.have + n as u64 > most {
                self.restart()?;
                let text = format!("object {} is longer than the {most} bytes that were announced", self.sha);
                return Err(Error::remote(text).hint("nothing was kept of it").into());
            }
            self.file.write_all(&buffer[..n]).during(|| format!("write {}", self.path.display()))?;
            self.hash.update(&buffer[..n]);
            self.have += n as u64;
            bar.inc(n as u64);
        }
    }

    fn sha(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Makes it the object. What was under the name is damaged, or not there.
    fn adopt(self, object: &Path) -> Result<()> {
        let act = || {
            self.file.set_permissions(Permissions::from_mode(0o444))?;
            self.file.sync_all()?;
            fs::rename(&self.path, object)
        };
        act().during(|| format!("write {}", object.display()))
    }

    fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).during(|| format!("remove {}", self.path.display()))
    }
}
