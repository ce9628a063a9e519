//! `pvcontrol steps install FILE`: an exported revision from a file to the device, over the control socket.
//!
//! The archive is walked twice. The first walk believes nothing and sends nothing: everything that can be refused about
//! the archive, its state, its objects and what they say is refused there, so a bad archive changes nothing on the
//! device. The second one sends what the device does not have, an object at a time as it comes, then the state. The
//! device checks everything again: the file may have changed in between.
//!
//! Invariants: before the first byte of the archive is looked at, the process has given up every capability, every file
//! but the archive and every system call but those of a client. Memory is bounded: one piece of an object, the state,
//! and one configuration per container; a second copy of the archive never exists.
//! Fault model: an archive that lies, ends early or unpacks to more than there is; a device that is busy, full, or gone.
//! After a refusal by the device, objects that it took stay until its next start or collection, as with any upload.
//! Not here: the format (`runtime::archive`), what a device takes (`runtime::admit`).

use super::{Answer, CHUNK, Options, Outcome, Trouble, command, exchange, part, send};
use crate::confine;
use flate2::bufread::GzDecoder;
use runtime::{
    admit::{self, Candidate, Shelf},
    archive::{self, Source, Visitor},
    fault::{Code, Refusal},
    http,
    id::{ObjectId, RevName},
    limits,
    state::{Defaults, Plan, Spans, State, Value},
};
use rustix::{
    event::Timespec,
    net::{RecvFlags, recv},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    time::{Duration, Instant},
};

/// First bytes of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How long a device that is busy is asked again for an upload.
const BUSY: Duration = Duration::from_secs(60);
/// Pause before that.
const BUSY_PAUSE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Does it. `alone`: this process has nothing else to do, and gives up what it does not need.
pub(super) fn run(
    options: &Options,
    file: &str,
    rev: Option<&str>,
    alone: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome<()> {
    if options.file.is_some() {
        // It could not be made any more when there is something to write: this process names no files by then.
        return Err(Trouble::Usage(
            "-f is not for steps install: it prints the revision's name, > FILE takes it".into(),
        ));
    }
    let failed = |error: io::Error| Trouble::Local(format!("{file}: {error}"));
    let file = File::open(file).map_err(failed)?;
    if alone {
        confine::forgo().map_err(|errno| Trouble::Local(format!("what is not needed cannot be given up: {errno}")))?;
    }
    let put = put(options, &file, rev, None, err)?;
    let Put { rev, objects, sent, bytes } = &put;
    let told = if options.json {
        writeln!(out, r#"{{"revision":"{rev}","objects":{objects},"sent":{sent},"bytes":{bytes}}}"#)
    } else {
        writeln!(out, "{rev}")
    };
    told.map_err(Trouble::output)?;
    if options.run {
        let run = command("LOCAL_RUN", part(rev)?);
        run.iter().try_for_each(|request| exchange(options, request, &mut io::empty(), out, err))?;
    }
    Ok(())
}

/// What was put on the device.
pub(super) struct Put {
    rev: String,
    /// Objects of the archive, and those of them that the device did not have.
    objects: usize,
    sent: usize,
    bytes: u64,
}

/// Puts a file's revision on the device; of a file with this hash, if one is given. The process has given up what it does
/// not need, if it can.
pub(super) fn put(
    options: &Options,
    file: &File,
    rev: Option<&str>,
    hash: Option<ObjectId>,
    err: &mut dyn Write,
) -> Outcome<Put> {
    let mut checked = Checked::new();
    let (length, digest) = unpack(file, |source| walk(source, &mut checked)).map_err(Fault::trouble(options))?;
    // The second walk sends the same state, and of objects the device knows the hash: the first one decides.
    if hash.is_some_and(|hash| hash.to_string() != digest) {
        return Err(Trouble::File("the archive is not what it was when it was read before".into()));
    }
    checked.state.truncate(length);
    let rev = match rev {
        Some(name) => name.to_owned(),
        None => format!("locals/{digest}"),
    };
    let name = RevName::parse(&rev).ok().filter(RevName::is_local);
    let name = name.ok_or_else(|| Trouble::Usage(format!("{rev} is not the name of a local revision: locals/NAME")))?;
    let refused = |refusal| Fault::from(refusal).trouble_of(options);
    checked.find(options)?;
    checked.admit(options, name).map_err(refused)?;

    let mut sender = Sender { options, err, checked: &checked, now: None, done: BTreeSet::new(), bytes: 0, said: None };
    let mut scratch = Scratch::new();
    let sent = unpack(file, |source| Ok(archive::walk(source, &mut scratch.text, &mut scratch.spans, &mut sender)?));
    if let Err(fault) = sent {
        return Err(sender.said.take().unwrap_or_else(|| fault.trouble_of(options)));
    }
    let (sent, bytes) = (sender.done.len(), sender.bytes);
    stage(options, &rev, &checked.state, err)?;
    Ok(Put { rev, objects: checked.objects.len(), sent, bytes })
}

/// Sends the state, and its message.
fn stage(options: &Options, rev: &str, state: &[u8], err: &mut dyn Write) -> Outcome<()> {
    let path = format!("/steps/{}", part(rev)?);
    let mut requests = send("PUT", &*path, super::Body::Input(state.len() as u64));
    if let Some(message) = &options.message {
        requests.extend(send("PUT", format!("{path}/commitmsg"), super::Body::Text(message.clone())));
    }
    requests.iter().try_for_each(|request| exchange(options, request, &mut &*state, &mut io::sink(), err))
}

/// Why a walk ended.
enum Fault {
    Refused(Box<Refusal>),
    /// The file itself cannot be read.
    File(io::Error),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl Fault {
    fn trouble(options: &Options) -> impl Fn(Self) -> Trouble + '_ {
        move |fault| fault.trouble_of(options)
    }

    /// A refusal of ours reads as one of the device.
    fn trouble_of(self, options: &Options) -> Trouble {
        match self {
            Self::File(error) => Trouble::File(format!("the archive cannot be read: {error}")),
            Self::Refused(refusal) => {
                let code = refusal.code.to_string();
                let mut json = String::new();
                let written = http::write_refusal(&mut json, &refusal);
                let text = if options.json && written.is_ok() { json } else { format!("ERROR: {refusal}") };
                Trouble::Refused(refusal.code.http(), text, code)
            }
        }
    }
}

// ---- the file -----------------------------------------------------------------------------------------------------

/// The file from its start, hashed on the way.
struct Packed<'f> {
    file: &'f File,
    at: u64,
    hash: Sha256,
    error: Option<io::Error>,
}

impl Read for Packed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(out, self.at) {
                Ok(count) => {
                    self.hash.update(&out[..count]);
                    self.at += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.error = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}

/// The archive in it.
enum Unpacked<'f> {
    Plain(BufReader<Packed<'f>>),
    Gzip(GzDecoder<BufReader<Packed<'f>>>),
}

impl Source for Unpacked<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Code> {
        let read = match self {
            Self::Plain(plain) => plain.read(out),
            Self::Gzip(gzip) => gzip.read(out),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Code::ArchiveTruncated,
            _ => Code::ArchiveInvalid,
        })
    }
}

/// Does something with the unpacked file, which must end where its archive ends; what came of it, and the file's hash.
fn unpack<T>(file: &File, act: impl FnOnce(&mut Unpacked<'_>) -> Result<T, Fault>) -> Result<(T, String), Fault> {
    let mut packed = BufReader::with_capacity(CHUNK, Packed { file, at: 0, hash: Sha256::new(), error: None });
    let gzip = packed.fill_buf().map_err(Fault::File)?.starts_with(&GZIP);
    let mut unpacked = if gzip { Unpacked::Gzip(GzDecoder::new(packed)) } else { Unpacked::Plain(packed) };
    let acted = act(&mut unpacked);
    let mut packed = match unpacked {
        Unpacked::Plain(plain) => plain,
        Unpacked::Gzip(gzip) => gzip.into_inner(),
    };
    if let Some(error) = packed.get_mut().error.take() {
        return Err(Fault::File(error)); // it is why the walk ended
    }
    let done = acted?;
    if !packed.fill_buf().map_err(Fault::File)?.is_empty() {
        return Err(Refusal::new(Code::ArchiveInvalid).into());
    }
    Ok((done, ObjectId(packed.into_inner().hash.finalize().into()).to_string()))
}

/// Buffers of one walk.
struct Scratch {
    text: Vec<u8>,
    spans: Box<Spans>,
}

impl Scratch {
    fn new() -> Self {
        Self { text: vec![0; limits::STATE_MAX], spans: Box::new(Spans::new()) }
    }
}

// ---- the first walk -----------------------------------------------------------------------------------------------

/// What the first walk found.
struct Checked {
    state: Vec<u8>,
    /// Objects that the archive has, with their size.
    objects: BTreeMap<ObjectId, u64>,
    /// Objects of the state that the device has.
    there: BTreeMap<ObjectId, u64>,
    /// Content of the containers' configurations.
    configs: BTreeMap<ObjectId, Vec<u8>>,
    /// The one that is coming.
    now: Option<Vec<u8>>,
}

fn walk(source: &mut dyn Source, checked: &mut Checked) -> Result<usize, Fault> {
    let mut scratch = Scratch::new();
    let length = archive::walk(source, &mut scratch.text, &mut scratch.spans, checked)?;
    checked.state = scratch.text;
    Ok(length)
}

impl Visitor for Checked {
    fn state(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let (mut spans, mut plan) = (Box::new(Spans::new()), Box::new(Plan::empty(RevName::factory())));
        let state = Plan::parse(text, RevName::factory(), &Defaults::default(), &mut plan, &mut spans)?;
        for container in &plan.containers {
            let config = state.container(container.name)?.config()?.and_then(|file| file.object);
            self.configs.extend(config.map(|id| (id, Vec::new())));
        }
        Ok(())
    }

    fn begin(&mut self, id: ObjectId, size: u64) -> Result<(), Refusal> {
        let wanted = self.configs.contains_key(&id) && size <= limits::LXC_CONF_MAX as u64;
        self.now = wanted.then(Vec::new);
        self.objects.insert(id, size);
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(now) = &mut self.now {
            now.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn end(&mut self, id: ObjectId) -> Result<(), Refusal> {
        self.configs.extend(self.now.take().map(|content| (id, content)));
        Ok(())
    }
}

impl Checked {
    fn new() -> Self {
        Self {
            state: Vec::new(),
            objects: BTreeMap::new(),
            there: BTreeMap::new(),
            configs: BTreeMap::new(),
            now: None,
        }
    }

    /// Asks the device which objects of the state it has.
    fn find(&mut self, options: &Options) -> Outcome<()> {
        let mut spans = Box::new(Spans::new());
        let state = State::read(&self.state, &mut spans).map_err(|r| Fault::from(r).trouble_of(options))?;
        let mut named: Vec<ObjectId> = state.entries().filter_map(|entry| object(entry.value)).collect();
        named.sort_unstable();
        let there = &mut self.there;
        let mut list = List::new(|id, size| {
            if named.binary_search(&id).is_ok() {
                there.insert(id, size);
            }
        });
        let request = &super::get("/objects")[0];
        exchange(&Options { file: None, ..options.clone() }, request, &mut io::empty(), &mut list, &mut io::sink())
    }

    /// Everything that a device refuses about a revision, asked before anything is sent.
    fn admit(&self, options: &Options, rev: RevName) -> Result<(), Refusal> {
        let (mut spans, mut plan) = (Box::new(Spans::new()), Box::new(Plan::empty(rev)));
        let candidate = Candidate { rev, state: &self.state, message: options.message.as_deref().unwrap_or("") };
        let mut conf = vec![0; limits::LXC_CONF_MAX];
        admit::admit(&mut Both { options, checked: self }, candidate, &mut conf, &mut spans, &mut plan).map(drop)
    }
}

fn object(value: Value<'_>) -> Option<ObjectId> {
    if let Value::Object(id) = value { Some(id) } else { None }
}

/// The objects of the archive and of the device.
struct Both<'a> {
    options: &'a Options,
    checked: &'a Checked,
}

impl Shelf for Both<'_> {
    fn size(&mut self, id: ObjectId) -> Result<u64, Code> {
        let Checked { objects, there, .. } = self.checked;
        objects.get(&id).or(there.get(&id)).copied().ok_or(Code::ObjectMissing)
    }

    fn read(&mut self, id: ObjectId, out: &mut [u8]) -> Result<usize, Code> {
        let mut content = Vec::new();
        let content = match self.checked.configs.get(&id).filter(|_| self.checked.objects.contains_key(&id)) {
            Some(content) => content,
            None => {
                let request = &super::get(format!("/objects/{id}"))[0];
                let got = exchange(self.options, request, &mut io::empty(), &mut content, &mut io::sink());
                got.map_err(|_| Code::StorageIo)?;
                content.truncate(limits::LXC_CONF_MAX);
                &content
            }
        };
        out.get_mut(..content.len()).ok_or(Code::Internal)?.copy_from_slice(content);
        Ok(content.len())
    }
}

/// Takes the device's list of objects as it comes: of any length, one entry at a time.
struct List<F> {
    entry: Vec<u8>,
    each: F,
}

/// An entry is a name, a number and their keys.
const ENTRY_MAX: usize = 256;

impl<F: FnMut(ObjectId, u64)> List<F> {
    fn new(each: F) -> Self {
        Self { entry: Vec::new(), each }
    }

    fn entry(&mut self) {
        let start = self.entry.iter().position(|byte| *byte == b'{').unwrap_or(0);
        let entry = runtime::json::Value::parse(&self.entry[start..]).ok().and_then(|value| value.object().ok());
        if let Some(entry) = entry {
            let id = entry.get("sha256").and_then(|name| name.string().ok()?.plain()).and_then(ObjectId::parse);
            let size = super::number_of(entry, "size").or_else(|| super::text_of(entry, "size").parse().ok());
            if let Some(id) = id {
                (self.each)(id, size.unwrap_or(0));
            }
        }
        self.entry.clear();
    }
}

impl<F: FnMut(ObjectId, u64)> Write for List<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if self.entry.len() < ENTRY_MAX {
                self.entry.push(*byte);
            }
            if *byte == b'}' {
                self.entry();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ---- the second walk ----------------------------------------------------------------------------------------------

/// Sends what the device does not have.
struct Sender<'a> {
    options: &'a Options,
    err: &'a mut dyn Write,
    checked: &'a Checked,
    /// The object on its way; whether the device still reads it.
    now: Option<(UnixStream, bool)>,
    done: BTreeSet<ObjectId>,
    bytes: u64,
    /// What the device said when it stopped the walk.
    said: Option<Trouble>,
}

impl Sender<'_> {
    /// Ends the walk with what the device said.
    fn stop(&mut self, trouble: Trouble) -> Refusal {
        self.said = Some(trouble);
        Code::Incomplete.into() // not told: what was said is
    }

    /// Asks for an upload until the device takes it.
    fn ask(&mut self, id: ObjectId, size: u64) -> Outcome<UnixStream> {
        let until = Instant::now() + BUSY;
        loop {
            let mut stream = super::connect(self.options)?;
            let head = format!(
                "PUT /objects/{id} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
            );
            if self.options.verbose {
                let _ = writeln!(self.err, "> PUT /objects/{id}, {size} bytes");
            }
            stream.write_all(head.as_bytes()).map_err(gone)?;
            if size == 0 || goes_ahead(&stream).map_err(gone)? {
                return Ok(stream);
            }
            match Answer::receive(stream).and_then(|mut answer| answer.refusal(self.options.json)).map_err(gone)? {
                Trouble::Refused(503, ..) if Instant::now() < until => pause(),
                trouble => return Err(trouble),
            }
        }
    }

    fn finish(&self, stream: UnixStream) -> Outcome<()> {
        let mut answer = Answer::receive(stream).map_err(gone)?;
        match answer.reply.status {
            200 => Ok(()),
            _ => Err(answer.refusal(self.options.json).unwrap_or_else(gone)),
        }
    }
}

fn gone(error: io::Error) -> Trouble {
    Trouble::Local(format!("the device stopped answering: {error}"))
}

/// Sleeps, with a call that a confined process has.
fn pause() {
    let _ = rustix::event::poll(&mut [], Some(&BUSY_PAUSE));
}

/// Whether the device wants the content. An answer that says otherwise is left to be read.
fn goes_ahead(mut stream: &UnixStream) -> io::Result<bool> {
    let mut got = [0; http::CONTINUE.len()];
    let (count, _) = recv(stream, &mut got, RecvFlags::PEEK | RecvFlags::WAITALL)?;
    if got[..count] != *http::CONTINUE.as_bytes() {
        return Ok(false);
    }
    stream.read_exact(&mut got).map(|()| true)
}

impl Visitor for Sender<'_> {
    fn state(&mut self, text: &[u8]) -> Result<(), Refusal> {
        // Otherwise the file is another one now, and what was checked of it says nothing.
        if text == self.checked.state { Ok(()) } else { Err(Code::ArchiveInvalid.into()) }
    }

    fn begin(&mut self, id: ObjectId, size: u64) -> Result<(), Refusal> {
        if self.checked.there.contains_key(&id) || self.done.contains(&id) {
            return Ok(());
        }
        let stream = self.ask(id, size).map_err(|trouble| self.stop(trouble))?;
        self.now = Some((stream, true));
        self.bytes += size;
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        // A device that refuses reads no further: its answer counts.
        if let Some((stream, reads)) = self.now.as_mut().filter(|(_, reads)| *reads) {
            *reads = stream.write_all(bytes).is_ok();
        }
        Ok(())
    }

    fn end(&mut self, id: ObjectId) -> Result<(), Refusal> {
        let Some((stream, _)) = self.now.take() else { return Ok(()) };
        self.finish(stream).map_err(|trouble| self.stop(trouble))?;
        self.done.insert(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
