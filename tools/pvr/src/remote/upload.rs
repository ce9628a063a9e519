//! Objects from the pool to a device or a hub.
//!
//! Each object is announced; the answer says whether it is there already, or where its content goes. A server that
//! can go on with what it has of an object says so in a member of that answer, `switchback.upload-offset`: how many
//! bytes it holds. Only then the rest alone is sent, with `Content-Range: bytes FIRST-LAST/SIZE`. A server that does
//! not know this does not say it, and gets all of it; a client that does not know it sends all of it, which the server
//! takes as ever. After a break the object is announced again, which asks again how much has arrived.
//! What is held need not be what we have: somebody else may have sent it. An upload that is refused although only its
//! rest was sent is sent once more as a whole, and what is refused then is the object.

use super::{Remote, for_each};
use crate::{
    error::{Error, Result},
    files,
    http::{Access, Content, Failure, Request, Tried},
    repo::{self, Repo, State},
};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io::Read, path::PathBuf, sync::Mutex, time::Duration};

/// How many bytes of an announced object the other side holds.
const OFFSET: &str = "switchback.upload-offset";
/// Connections in a row that may break without progress.
const STALLS_MAX: u32 = 3;

/// An object that may have to be sent.
pub struct Outgoing {
    /// One of its names in the state.
    pub name: String,
    /// Its hash.
    pub sha: String,
    /// Its length.
    pub size: u64,
    path: PathBuf,
}

/// Each object of the state, once. One that is not in the pool, or not with its content, cannot be sent.
pub fn outgoing(repo: &Repo, state: &State) -> Result<Vec<Outgoing>> {
    let mut names = BTreeMap::new();
    for (key, value) in repo::entries(state) {
        if let Some(sha) = repo::object_of(key, value)? {
            names.entry(sha.to_owned()).or_insert(key);
        }
    }
    let objects = names.into_iter().map(|(sha, key)| {
        let path = repo.object(&sha);
        let size = fs::metadata(&path).map_err(|e| {
            let hint = "`pvr commit` the file again, or fetch it with `pvr get`";
            Error::input(format!("object {sha} of {key} is not in the pool: {e}")).hint(hint)
        })?;
        Ok(Outgoing { name: key.clone(), sha, size: size.len(), path })
    });
    objects.collect()
}

/// What the other side answered to the announcement of an object.
enum Announced {
    /// It is there.
    There,
    /// Its content goes to this address, from this byte on: there is at least one, or the object is empty.
    Wanted { url: String, from: u64 },
}

impl Remote {
    /// Sends the objects that the other side does not have, some at the same time.
    pub fn send_all(&self, objects: &[Outgoing], force: bool, bar: &ProgressBar) -> Result<()> {
        bar.inc_length(objects.iter().map(|object| object.size).sum());
        for_each(objects, |object| self.send(object, force, bar))
    }

    fn send(&self, object: &Outgoing, force: bool, bar: &ProgressBar) -> Result<()> {
        let (mut stalls, mut best, mut first) = (0, None, true);
        let (mut whole, mut refused) = (false, false);
        let shown = Mutex::new(0u64);
        loop {
            let Announced::Wanted { url, from } = self.announce(object, force && first)? else {
                let before = std::mem::replace(&mut *lock(&shown), object.size);
                bar.inc(object.size.saturating_sub(before));
                return Ok(());
            };
            if first {
                verify(object)?;
            }
            let from = if std::mem::take(&mut whole) { 0 } else { from };
            if best.is_none_or(|best| from > best) && !first {
                stalls = 0;
            }
            (best, first) = (Some(from), false);
            rewind(bar, &mut lock(&shown), from);
            let progress = |n: u64| {
                *lock(&shown) += n;
                bar.inc(n);
            };
            match self.put(object, &url, from, &progress) {
                Ok(()) => return Ok(()),
                Err(Failure::Lost(error)) if stalls >= STALLS_MAX => {
                    return Err(error.hint("try again: what has arrived is not sent twice"));
                }
                Err(Failure::Lost(_)) => {
                    stalls += 1;
                    std::thread::sleep(Duration::from_millis(500) * stalls);
                }
                Err(Failure::Final(_)) if from > 0 && !refused => (whole, refused) = (true, true),
                Err(Failure::Final(error)) => return Err(error),
            }
        }
    }

    fn announce(&self, object: &Outgoing, force: bool) -> Result<Announced> {
        let Outgoing { name, sha, size, .. } = object;
        let record = json!({"id": "", "storage-id": "", "owner": "", "objectname": name, "sha256sum": sha,
            "size": size.to_string(), "mime-type": "application/octet-stream", "signed-puturl": "",
            "signed-geturl": "", "now": "", "expire-time": ""})
        .to_string();
        let url = format!("{}/", self.endpoint("objects-endpoint")?.trim_end_matches('/'));
        let request =
            Request { content: Content::Json(record.as_bytes()), ..Request::new("POST", &url, Access::Write) };
        let answer = self.client.call(&request)?;
        let record = answer.json();
        let is_link = answer.header("Pantahub-Object-Type") == Some("link");
        match (answer.status, record["signed-puturl"].as_str().filter(|url| !url.is_empty())) {
            (409, Some(url)) if force && !is_link => Ok(Announced::Wanted { url: self.resolve(url)?, from: 0 }),
            (409, _) => Ok(Announced::There),
            (200, Some(url)) => {
                let from = number(&record[OFFSET]).filter(|from| from < size).unwrap_or(0);
                Ok(Announced::Wanted { url: self.resolve(url)?, from })
            }
            (200, None) => Err(Error::remote(format!("object {sha} ({name}): the answer names no address for it"))),
            _ => Err(answer.refusal(&format!("object {sha} ({name}) was not accepted"))),
        }
    }

    /// Sends an object's content from this byte on.
    fn put(&self, object: &Outgoing, url: &str, from: u64, progress: &(dyn Fn(u64) + Sync)) -> Tried<()> {
        let content = Content::File { path: &object.path, from, progress };
        let mut request = Request { content, ..Request::new("PUT", url, self.content_access(url)) };
        if from > 0 {
            let range = format!("bytes {from}-{}/{}", object.size - 1, object.size);
            request.headers.push(("Content-Range", range));
        }
        let answer = self.client.open(&request)?;
        let status = answer.status().as_u16();
        if matches!(status, 200 | 201 | 204) {
            return Ok(());
        }
        let mut body = Vec::new();
        // What it says is for people; if that breaks, the status is enough.
        let _ = answer.into_body().into_with_config().limit(4096).reader().read_to_end(&mut body);
        let refused = crate::http::refusal(&format!("{} was not accepted", object.name), status, &body);
        // The connection behind a gateway broke: announced again, it is known how much has arrived.
        Err(if matches!(status, 408 | 502 | 504) { Failure::Lost(refused) } else { Failure::Final(refused) })
    }
}

/// A number, also as text, as records have them.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// What is sent is what the name says: a damaged pool is noticed here, not on the device.
fn verify(object: &Outgoing) -> Result<()> {
    let found = files::hash(&object.path)?;
    if found == object.sha {
        return Ok(());
    }
    let text = format!("{} is damaged: its sha256 is {found}", object.path.display());
    Err(Error::input(text).hint("`pvr commit` the file again, or fetch it with `pvr get`"))
}

/// Shows that so much of an object is there, and not what was thought.
fn rewind(bar: &ProgressBar, shown: &mut u64, from: u64) {
    bar.set_position(bar.position().saturating_sub(*shown) + from);
    *shown = from;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
