//! `endpoint`: HTTP for `pvr` on TCP, in front of the control socket. Only on devices whose policy opens it.
//!
//! Speaks what `pvr` expects of a device (reference: pvr-and-hub 9 and 10) and turns each request into one to three
//! of the control socket: state and objects are passed through as they come, a posted revision is staged, described
//! and run. Nothing is decided here; refusals of the device reach the client as they are.
//!
//! Invariants: one thread, a fixed number of clients, a deadline for each, and at most `TRANSFERS` of them speak to the
//! device at the same time, so that others can. Memory is bounded: a buffer per direction, and one posted revision
//! at a time. Runs as its own user without capabilities; all it can do is what the control socket lets it.
//! Fault model: clients send anything and stop anywhere; the control socket may be busy or gone.
//! Not here: TLS, tokens (the policy opens this for development only), keep-alive.

use crate::{
    confine,
    sockets::HOST_SOCKET,
    wire::{Buffer, Channel, Message, WireError},
};
use log::info;
use mio::{
    Events, Interest, Poll, Registry, Token,
    net::{TcpListener, TcpStream, UnixStream},
};
use runtime::{
    fault::{Code, Refusal},
    http::{self, Head, HostRule, Method, Reply, media},
    id::{ObjectId, RevName},
    json::{self, Kind},
    limits,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where everything is; requests without it are taken, too.
const BASE: &str = "/cgi-bin/pvr";
/// Clients at the same time; others wait in the backlog.
const CLIENTS: usize = 8;
/// Clients that speak to the device at the same time. One transfer is left for others.
const TRANSFERS: usize = limits::TRANSFERS_MAX - 1;
/// Bytes held per direction.
const CHUNK: usize = 32 * 1024;
/// Rounds that one client gets before the others.
const ROUNDS: usize = 32;
/// A posted revision: its state and what stands around it.
const STEP_MAX: u64 = (limits::STATE_MAX + limits::HTTP_BODY_MAX) as u64;
/// Time for a request to arrive, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_millis(limits::CONNECTION_PATIENCE_MS);
/// Time without progress of a transfer. Longer than the device's own, so that its answer is the one that is told.
const TRANSFER_PATIENCE: Duration = Duration::from_millis(2 * limits::TRANSFER_PATIENCE_MS);
/// Time that a client has to hang up after its answer.
const GOODBYE: Duration = Duration::from_secs(2);
/// What a busy device asks for.
const RETRY_AFTER_S: u32 = 5;

const LISTENER: Token = Token(0);

/// Serves the address that PID 1 says, until it ends.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut buffer = Buffer::new();
    let address = match channel.receive(&mut buffer)? {
        Some(request) => match request.message {
            Message::Serve { what } => what.parse::<SocketAddr>().map_err(|_| WireError::Value)?,
            _ => return Err(WireError::Kind),
        },
        None => return Ok(()),
    };
    let errno = |error: io::Error| WireError::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let listener = TcpListener::bind(address).map_err(errno)?;
    confine::become_user(confine::ENDPOINT_UID)?;
    confine::close_files(None)?;
    confine::restrict(confine::Calls::Endpoint)?;
    let mut endpoint = Endpoint::new(listener, HOST_SOCKET.to_str().unwrap_or_default().into()).map_err(errno)?;
    channel.send(0, &Message::Ready, &[])?;
    info!("http://{address}{BASE}");
    loop {
        endpoint.turn().map_err(errno)?;
    }
}

/// The listener and its clients.
struct Endpoint {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    /// Clients may be waiting in the backlog.
    backlog: bool,
    control: PathBuf,
    clients: Vec<Option<Client>>,
}

/// What a client may begin now.
#[derive(Clone, Copy)]
struct Room {
    transfer: bool,
    step: bool,
}

impl Endpoint {
    fn new(mut listener: TcpListener, control: PathBuf) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let clients = (0..CLIENTS).map(|_| None).collect();
        Ok(Self { poll, events: Events::with_capacity(64), listener, backlog: true, control, clients })
    }

    /// Waits for something to do, and does some of it for everybody.
    fn turn(&mut self) -> io::Result<()> {
        let now = Instant::now();
        // A client in the backlog makes no new edge when a slot becomes free.
        let let_in = self.backlog && self.clients.iter().any(Option::is_none);
        let patience = if let_in || self.clients.iter().flatten().any(|client| client.again) {
            Some(Duration::ZERO)
        } else {
            self.clients.iter().flatten().map(|client| client.until.saturating_duration_since(now)).min()
        };
        match self.poll.poll(&mut self.events, patience) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for event in &self.events {
            match event.token() {
                LISTENER => self.backlog = true,
                Token(number) => {
                    if let Some(Some(client)) = self.clients.get_mut((number - 1) / 2) {
                        client.again = true;
                    }
                }
            }
        }
        self.accept();
        for index in 0..self.clients.len() {
            self.serve(index);
        }
        Ok(())
    }

    /// Lets clients in while there are slots. A client that cannot be let in is none.
    fn accept(&mut self) {
        while self.backlog {
            let Some(free) = self.clients.iter().position(Option::is_none) else { return };
            match self.listener.accept() {
                Ok((stream, _)) => self.clients[free] = Client::new(stream, free, self.poll.registry()).ok(),
                // a client that hung up in the backlog is not the last one there
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(_) => self.backlog = false,
            }
        }
    }

    /// Goes on with one client.
    fn serve(&mut self, index: usize) {
        let busy = self.clients.iter().flatten().filter(|client| client.upstream.is_some()).count();
        let steps = self.clients.iter().flatten().filter(|client| client.holds_step()).count();
        let room = Room { transfer: busy < TRANSFERS, step: steps == 0 };
        let Some(Some(client)) = self.clients.get_mut(index) else { return };
        let (spoke, held) = (client.upstream.is_some(), client.holds_step());
        let mut keep = Ok(());
        if client.again {
            let world = World { registry: self.poll.registry(), control: &self.control, room };
            keep = client.drive(&world);
        }
        if Instant::now() >= client.until {
            keep = keep.and_then(|()| client.late());
        }
        let freed = spoke && client.upstream.is_none() || held && !client.holds_step();
        if keep.is_err() {
            self.clients[index] = None;
        }
        if keep.is_err() || freed {
            for client in self.clients.iter_mut().flatten().filter(|client| client.phase.waits()) {
                client.again = true;
            }
        }
    }
}

/// What a client is driven with.
struct World<'a> {
    registry: &'a Registry,
    control: &'a Path,
    room: Room,
}

/// The connection is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Over
    }
}

/// Bytes on their way out.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what can be written; whether something was.
    fn write_to(&mut self, to: &mut impl Write) -> io::Result<bool> {
        let mut moved = false;
        while !self.is_empty() {
            match to.write(&self.bytes[self.at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.at += count;
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }
}

/// Reads once, up to `CHUNK` held; how much, `None` if there is nothing now. 0 is the end.
fn read_some(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let held = into.len();
    into.resize(held + CHUNK, 0);
    let outcome = loop {
        match from.read(&mut into[held..]) {
            Ok(count) => break Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(None),
            Err(error) => break Err(error),
        }
    };
    into.truncate(held + outcome.as_ref().ok().copied().flatten().unwrap_or(0));
    outcome
}

/// One client and the request to the device that serves it.
struct Client {
    stream: TcpStream,
    upstream: Option<UnixStream>,
    upstream_token: Token,
    phase: Phase,
    /// Read from the client, not used yet.
    input: Vec<u8>,
    /// The client sends no more.
    ended: bool,
    /// Read from the device, not used yet.
    reply: Vec<u8>,
    reply_ended: bool,
    to_client: Out,
    to_device: Out,
    /// How the client calls this device; empty if it does not say.
    origin: String,
    until: Instant,
    again: bool,
}

/// Where a client is.
enum Phase {
    /// Its head is read.
    Head,
    /// Its body is read into memory.
    Body { what: Wanted, length: usize },
    /// It waits until the device may be asked for it.
    Waiting(Box<Ask>),
    /// The device was asked; `left` bytes of the client's body are still to be passed on.
    Asking { then: Then, left: u64 },
    /// The device's answer is passed on: so many bytes, or all there are.
    Relaying { left: Option<u64> },
    /// Its answer is being written.
    Leaving,
    /// It was answered and has not hung up yet.
    Gone,
}

impl Phase {
    fn waits(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

/// A body that is read before it is known what to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The record of an object that the client wants to send.
    Record,
    /// A revision.
    Step,
}

/// A request to the device.
struct Ask {
    method: &'static str,
    path: String,
    body: Vec<u8>,
    /// Bytes of the client's body that follow.
    stream: u64,
    then: Then,
}

impl Ask {
    fn get(path: String, then: Then) -> Self {
        Self { method: "GET", path, body: Vec::new(), stream: 0, then }
    }
}

/// What is done with the device's answer.
enum Then {
    /// It is the client's.
    Relay(&'static str),
    /// It says whether an object is there; if `announced`, its absence is good news.
    Probe { object: ObjectId, announced: bool },
    /// A revision was staged.
    Staged(Step),
    /// Its message was stored.
    Described(Step),
    /// It runs.
    Running(Step),
}

/// A posted revision.
struct Step {
    rev: RevName,
    message: String,
    state_sha: ObjectId,
}

impl Client {
    fn new(mut stream: TcpStream, index: usize, registry: &Registry) -> io::Result<Self> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(1 + 2 * index), both)?;
        let _ = stream.set_nodelay(true);
        Ok(Self {
            stream,
            upstream: None,
            upstream_token: Token(2 + 2 * index),
            phase: Phase::Head,
            input: Vec::new(),
            ended: false,
            reply: Vec::new(),
            reply_ended: false,
            to_client: Out::default(),
            to_device: Out::default(),
            origin: String::new(),
            until: Instant::now() + PATIENCE,
            again: true,
        })
    }

    /// Whether it has, or waits with, a whole revision in memory.
    fn holds_step(&self) -> bool {
        match &self.phase {
            Phase::Body { what: Wanted::Step, .. } => true,
            Phase::Waiting(ask) => matches!(ask.then, Then::Staged(_)),
            _ => false,
        }
    }

    /// Moves what can be moved, for some rounds.
    fn drive(&mut self, world: &World<'_>) -> Result<(), Over> {
        for _ in 0..ROUNDS {
            let moved = self.read_client()? | self.write_device() | self.read_device() | self.think(world)?;
            let written = self.to_client.write_to(&mut self.stream)?;
            if !moved && !written {
                self.again = false;
                return Ok(());
            }
            if matches!(self.phase, Phase::Asking { .. } | Phase::Relaying { .. } | Phase::Body { .. }) {
                self.until = Instant::now() + TRANSFER_PATIENCE;
            }
        }
        Ok(())
    }

    /// Its time is over.
    fn late(&mut self) -> Result<(), Over> {
        match self.phase {
            Phase::Waiting(_) => self.refuse(Code::Busy),
            Phase::Asking { .. } => self.refuse(Code::ErrandTimeout),
            _ => return Err(Over),
        }
        self.again = true;
        Ok(())
    }

    fn read_client(&mut self) -> Result<bool, Over> {
        let wanted = match &self.phase {
            Phase::Head => limits::HTTP_HEAD_MAX,
            Phase::Body { length, .. } => *length,
            Phase::Asking { left, .. } => CHUNK.min(usize::try_from(*left).unwrap_or(CHUNK)),
            Phase::Gone => 1,
            _ => 0,
        };
        if self.ended || self.input.len() >= wanted {
            return Ok(false);
        }
        match read_some(&mut self.stream, &mut self.input)? {
            None => Ok(false),
            Some(0) => {
                self.ended = true;
                match self.phase {
                    Phase::Head | Phase::Body { .. } | Phase::Gone => Err(Over),
                    Phase::Asking { left, .. } if left > self.input.len() as u64 => Err(Over),
                    _ => Ok(true),
                }
            }
            Some(_) => Ok(true),
        }
    }

    /// Passes on what the device has to get. A device that stopped reading has answered, or is gone.
    fn write_device(&mut self) -> bool {
        let Phase::Asking { left, .. } = &mut self.phase else { return false };
        if *left > 0 && self.to_device.is_empty() && !self.input.is_empty() {
            let count = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            self.to_device.push(&self.input[..count]);
            self.input.drain(..count);
            *left -= count as u64;
        }
        let Some(upstream) = &mut self.upstream else { return false };
        match self.to_device.write_to(upstream) {
            Ok(moved) => moved,
            Err(_) => {
                self.to_device.clear();
                *left = 0;
                false
            }
        }
    }

    fn read_device(&mut self) -> bool {
        let wanted = match self.phase {
            Phase::Asking { .. } => limits::HTTP_HEAD_MAX,
            Phase::Relaying { .. } => 1,
            _ => 0,
        };
        let Some(upstream) = &mut self.upstream else { return false };
        if self.reply_ended || self.reply.len() >= wanted {
            return false;
        }
        match read_some(upstream, &mut self.reply) {
            Ok(None) => false,
            Ok(Some(count)) if count > 0 => true,
            Ok(_) | Err(_) => {
                self.reply_ended = true;
                true
            }
        }
    }

    /// Decides by what is there; whether anything changed.
    fn think(&mut self, world: &World<'_>) -> Result<bool, Over> {
        match std::mem::replace(&mut self.phase, Phase::Leaving) {
            Phase::Head => self.head(world),
            Phase::Body { length, what } if self.input.len() < length => {
                self.phase = Phase::Body { length, what };
                return Ok(false);
            }
            Phase::Body { what, length } => {
                let body = std::mem::take(&mut self.input);
                let body = body.get(..length).unwrap_or(&body);
                match if what == Wanted::Record { announced(body) } else { posted(body) } {
                    Ok(ask) => self.ask(world, ask),
                    Err(refusal) => self.refuse(refusal),
                }
            }
            Phase::Waiting(ask) if !world.room.transfer => {
                self.phase = Phase::Waiting(ask);
                return Ok(false);
            }
            Phase::Waiting(ask) => self.ask(world, *ask),
            Phase::Asking { then, left } => return self.answered(world, then, left),
            Phase::Relaying { left } => return Ok(self.relay(left)),
            Phase::Leaving if self.to_client.is_empty() => {
                self.stream.shutdown(Shutdown::Write)?;
                self.until = Instant::now() + GOODBYE;
                self.phase = Phase::Gone;
            }
            Phase::Leaving => return Ok(false),
            Phase::Gone if self.ended => return Err(Over),
            Phase::Gone => {
                self.input.clear();
                self.phase = Phase::Gone;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn head(&mut self, world: &World<'_>) {
        let input = std::mem::take(&mut self.input);
        let head = match Head::parse(&input, HostRule::Any) {
            Ok(Some(head)) => head,
            Ok(None) => {
                self.phase = Phase::Head;
                self.input = input;
                return;
            }
            Err(refusal) => return self.refuse(refusal),
        };
        self.origin = origin(head.host);
        if head.expects_continue {
            self.to_client.push(http::CONTINUE.as_bytes());
        }
        self.input = input.get(head.size..).unwrap_or(&[]).to_vec();
        match route(&head) {
            Ok(Route::Text(text)) => self.answer(200, media::TEXT, text, None),
            Ok(Route::Remote) => {
                let text = remote(&self.origin);
                self.answer(200, media::JSON, &text, None);
            }
            Ok(Route::Ask(ask)) => self.ask(world, ask),
            Ok(Route::Body(Wanted::Step, _)) if !world.room.step => self.refuse(Code::Busy),
            Ok(Route::Body(what, length)) => {
                self.until = Instant::now() + TRANSFER_PATIENCE;
                self.phase = Phase::Body { what, length };
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Asks the device, or waits until it may be asked.
    fn ask(&mut self, world: &World<'_>, ask: Ask) {
        self.until = Instant::now() + TRANSFER_PATIENCE;
        if !world.room.transfer && self.upstream.is_none() {
            self.phase = Phase::Waiting(Box::new(ask));
            return;
        }
        let connected = UnixStream::connect(world.control).and_then(|mut upstream| {
            let both = Interest::READABLE | Interest::WRITABLE;
            world.registry.register(&mut upstream, self.upstream_token, both)?;
            Ok(upstream)
        });
        let Ok(upstream) = connected else { return self.refuse(Code::Busy) };
        self.upstream = Some(upstream);
        self.reply.clear();
        self.reply_ended = false;
        self.to_device.clear();
        let length = ask.body.len() as u64 + ask.stream;
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {length}\r\n\r\n",
            ask.method,
            ask.path,
            media::JSON
        );
        self.to_device.push(head.as_bytes());
        self.to_device.push(&ask.body);
        self.phase = Phase::Asking { then: ask.then, left: ask.stream };
    }

    /// Looks for the device's answer.
    fn answered(&mut self, world: &World<'_>, then: Then, left: u64) -> Result<bool, Over> {
        let reply = match Reply::parse(&self.reply) {
            Ok(Some(reply)) if !reply.chunked => reply,
            Ok(None) if !self.reply_ended => {
                self.phase = Phase::Asking { then, left };
                return Ok(false);
            }
            _ => {
                self.refuse(Code::Busy); // it hung up, or what it said is no answer
                return Ok(true);
            }
        };
        if reply.status < 200 {
            self.reply.drain(..reply.size);
            self.phase = Phase::Asking { then, left };
            return Ok(true);
        }
        match then {
            Then::Probe { object, announced } if matches!(reply.status, 200 | 404) => {
                self.hang_up();
                let size = reply.length.filter(|_| reply.status == 200);
                let text = record(&self.origin, object, size.unwrap_or(0));
                match (size.is_some(), announced) {
                    (true, true) => self.answer(409, media::JSON, &text, None),
                    (false, false) => self.refuse(Code::ObjectUnknown),
                    _ => self.answer(200, media::JSON, &text, None),
                }
            }
            Then::Staged(step) if reply.status == 200 && !step.message.is_empty() => {
                let (path, body) =
                    (format!("/steps/{}/commitmsg", step.rev.as_str()), step.message.clone().into_bytes());
                self.ask(world, Ask { method: "PUT", path, body, stream: 0, then: Then::Described(step) });
            }
            Then::Staged(step) | Then::Described(step) if reply.status == 200 => {
                let body = format!("{{\"op\":\"LOCAL_RUN\",\"payload\":\"{}\"}}", step.rev.as_str()).into_bytes();
                let path = "/commands".into();
                self.ask(world, Ask { method: "POST", path, body, stream: 0, then: Then::Running(step) });
            }
            Then::Running(step) if reply.status == 200 => {
                self.hang_up();
                let text = accepted(&step);
                self.answer(200, media::JSON, &text, None);
            }
            Then::Relay(media) if reply.status == 200 => self.begin_relay(reply, media),
            _ => self.begin_relay(reply, media::JSON),
        }
        Ok(true)
    }

    fn begin_relay(&mut self, reply: Reply, media: &str) {
        let mut head = String::new();
        let retry = (reply.status == 503).then_some(RETRY_AFTER_S);
        let _ = http::write_head(&mut head, reply.status, media, reply.length, retry);
        self.to_client.push(head.as_bytes());
        self.reply.drain(..reply.size);
        self.phase = Phase::Relaying { left: reply.length };
    }

    /// Passes on what the device sent; whether anything moved.
    fn relay(&mut self, left: Option<u64>) -> bool {
        let mut left = left;
        let mut moved = false;
        if !self.reply.is_empty() && self.to_client.is_empty() {
            let most = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let count = self.reply.len().min(most);
            self.to_client.push(&self.reply[..count]);
            self.reply.clear();
            left = left.map(|left| left - count as u64);
            moved = true;
        }
        if left == Some(0) || self.reply_ended && self.reply.is_empty() {
            self.hang_up();
            self.leave(); // an answer cut short shows by its length
            return true;
        }
        self.phase = Phase::Relaying { left };
        moved
    }

    fn hang_up(&mut self) {
        self.upstream = None;
        self.reply.clear();
        self.to_device.clear();
    }

    fn refuse(&mut self, refusal: impl Into<Refusal>) {
        let refusal = refusal.into();
        let mut text = String::new();
        let _ = http::write_refusal(&mut text, &refusal);
        let status = refusal.code.http();
        self.answer(status, media::JSON, &text, (status == 503).then_some(RETRY_AFTER_S));
    }

    fn answer(&mut self, status: u16, media: &str, body: &str, retry_after_s: Option<u32>) {
        self.hang_up();
        let mut text = String::new();
        let _ = http::write_head(&mut text, status, media, Some(body.len() as u64), retry_after_s);
        self.to_client.push(text.as_bytes());
        self.to_client.push(body.as_bytes());
        self.leave();
    }

    fn leave(&mut self) {
        self.until = Instant::now() + PATIENCE;
        self.phase = Phase::Leaving;
    }
}

/// What a head asks for.
enum Route {
    Text(&'static str),
    Remote,
    Body(Wanted, usize),
    Ask(Ask),
}

fn route(head: &Head<'_>) -> Result<Route, Refusal> {
    let path = head.path.strip_prefix(BASE).unwrap_or(head.path);
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let object = |name: &str| ObjectId::parse(name).ok_or(Refusal::key(Code::ObjectName, name));
    Ok(match (head.method, &words[..]) {
        (Method::Get, []) => Route::Text("Switchback. pvr clone and pvr post work here.\n"),
        (Method::Get, [".pvrremote"]) => Route::Remote,
        (Method::Get, ["state"]) => Route::Ask(Ask::get("/steps/current".into(), Then::Relay(media::JSON))),
        (Method::Get, ["steps"]) => Route::Ask(Ask::get("/steps".into(), Then::Relay(media::JSON))),
        (Method::Get, ["steps", rest @ ..]) => {
            let (name, progress) = match rest {
                [name @ .., "progress"] => (name.join("/"), "/progress"),
                name => (name.join("/"), ""),
            };
            if name != "current" {
                RevName::parse(&name).map_err(|_| Refusal::key(Code::RevisionName, &name))?;
            }
            Route::Ask(Ask::get(format!("/steps/{name}{progress}"), Then::Relay(media::JSON)))
        }
        (Method::Get, ["objects", name]) => {
            let object = object(name)?;
            Route::Ask(Ask::get(format!("/objects/{object}"), Then::Probe { object, announced: false }))
        }
        (Method::Get, ["objects", name, "content"]) => {
            Route::Ask(Ask::get(format!("/objects/{}", object(name)?), Then::Relay(media::BYTES)))
        }
        (Method::Put, ["objects", name] | ["objects", name, "content"]) => {
            let path = format!("/objects/{}", object(name)?);
            let stream = head.length.ok_or(Code::LengthRequired)?;
            Route::Ask(Ask { method: "PUT", path, body: Vec::new(), stream, then: Then::Relay(media::JSON) })
        }
        (Method::Post, ["objects"]) => body(head, Wanted::Record, limits::HTTP_BODY_MAX as u64, Code::BodyTooLarge)?,
        (Method::Post, ["steps"]) => body(head, Wanted::Step, STEP_MAX, Code::StateTooLarge)?,
        (_, [] | [".pvrremote" | "state" | "steps" | "objects", ..]) => {
            return Err(Refusal::key(Code::MethodWrong, head.path));
        }
        _ => return Err(Refusal::key(Code::EndpointUnknown, head.path)),
    })
}

fn body(head: &Head<'_>, what: Wanted, most: u64, over: Code) -> Result<Route, Refusal> {
    match head.length {
        None => Err(Code::LengthRequired.into()),
        Some(length) if length > most => Err(Refusal::at(over, usize::try_from(most).unwrap_or(0))),
        Some(length) => Ok(Route::Body(what, length as usize)),
    }
}

/// How the client calls this device, for addresses in answers. A `Host` that is none makes them relative.
fn origin(host: Option<&str>) -> String {
    let good = |host: &&str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]_".contains(&byte))
    };
    host.filter(good).map_or(String::new(), |host| format!("http://{host}"))
}

/// Where everything is.
fn remote(origin: &str) -> String {
    let base = format!("{origin}{BASE}");
    let mut text = String::new();
    let mut json = json::Writer::new(&mut text);
    // writing into a string does not fail
    let _ = (|| {
        json.begin_object()?;
        json.text_member("pvr-spec", "pvr-pantahub-1")?;
        json.text_member("json-get-url", &format!("{base}/state"))?;
        json.text_member("json-key", "state")?;
        json.text_member("objects-endpoint", &format!("{base}/objects"))?;
        json.text_member("post-url", &format!("{base}/steps"))?;
        json.key("post-fields")?;
        json.begin_array()?;
        json.text("commit-msg")?;
        json.end_array()?;
        json.key("post-fields-opt")?;
        json.begin_array()?;
        json.text("rev")?;
        json.end_array()?;
        json.text_member("step-get-url", &format!("{base}/steps/current/progress"))?;
        json.end_object()
    })();
    text
}

/// The record of an object.
fn record(origin: &str, object: ObjectId, size: u64) -> String {
    let content = format!("{origin}{BASE}/objects/{object}/content");
    let mut text = String::new();
    let mut json = json::Writer::new(&mut text);
    let _ = (|| {
        json.begin_object()?;
        for key in ["id", "storage-id", "sha256sum", "objectname"] {
            json.key(key)?;
            json.display(&object)?;
        }
        json.text_member("owner", "")?;
        json.key("size")?;
        json.display(&size)?;
        json.text_member("mime-type", media::BYTES)?;
        for key in ["signed-puturl", "signed-geturl"] {
            json.text_member(key, &content)?;
        }
        json.text_member("now", "")?;
        json.text_member("expire-time", "")?;
        json.end_object()
    })();
    text
}

/// The answer to a posted revision.
fn accepted(step: &Step) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "{{\"rev\":-1,\"revlocal\":\"{}\",\"state-sha\":\"{}\",\"trail-id\":\"local\",\"progress\":{{\"status\":\"NEW\"}}}}",
        step.rev.as_str(),
        step.state_sha
    );
    text
}

/// The object that a client wants to send.
fn announced(body: &[u8]) -> Result<Ask, Refusal> {
    let value = json::Value::parse(body).map_err(|fault| Refusal::at(Code::CommandInvalid, fault.at))?;
    let record = value.object().map_err(|fault| Refusal::at(Code::CommandInvalid, fault.at))?;
    let name = record.text::<64>("sha256sum").ok().flatten();
    let object =
        name.and_then(|name| ObjectId::parse(name.as_str())).ok_or(Refusal::key(Code::ObjectName, "sha256sum"))?;
    Ok(Ask::get(format!("/objects/{object}"), Then::Probe { object, announced: true }))
}

/// The revision that a client posted.
fn posted(body: &[u8]) -> Result<Ask, Refusal> {
    let envelope = json::Value::parse(body)?;
    let envelope = envelope.object()?;
    let missing = Refusal::key(Code::CommandInvalid, "state");
    let state = envelope.get("state").or(envelope.get("post")).filter(|state| state.kind() == Kind::Object);
    let state = state.ok_or(missing)?.raw();
    if state.len() > limits::STATE_MAX {
        return Err(Refusal::at(Code::StateTooLarge, limits::STATE_MAX));
    }
    let too_long = Refusal::at(Code::MessageTooLong, limits::COMMIT_MESSAGE_MAX);
    let message = match envelope.get("commit-msg") {
        Some(value) => {
            let mut buffer = [0; limits::COMMIT_MESSAGE_MAX];
            let text = value.string().map_err(|wrong| wrong.refuse(Code::CommandInvalid, "commit-msg"))?;
            text.copy(&mut buffer).ok_or(too_long)?.to_owned()
        }
        None => String::new(),
    };
    let state_sha = ObjectId(Sha256::digest(state).into());
    let rev = match envelope.get("rev") {
        // a number asks for the next one, or names one that is a hub's to give: the name is ours
        Some(value) if value.kind() == Kind::String => {
            let invalid = value.at();
            let name = value.text::<{ limits::REV_NAME_MAX }>().ok();
            let rev = name.and_then(|name| RevName::parse(name.as_str()).ok());
            rev.ok_or(json::Wrong { at: invalid }.refuse(Code::RevisionName, "rev"))?
        }
        _ => new_name(state_sha)?,
    };
    let (path, body) = (format!("/steps/{}", rev.as_str()), state.to_vec());
    let then = Then::Staged(Step { rev, message, state_sha });
    Ok(Ask { method: "PUT", path, body, stream: 0, then })
}

/// A name that no revision has: the clock of a device may be wrong, so it is made of the state and of chance.
fn new_name(state: ObjectId) -> Result<RevName, Refusal> {
    let mut chance = [0u8; 4];
    rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty()).map_err(|_| Code::Internal)?;
    let hex = state.to_string();
    let name = format!("locals/pvr-{}-{:08x}", hex.get(..12).unwrap_or_default(), u32::from_le_bytes(chance));
    RevName::parse(&name).map_err(|_| Code::Internal.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpStream, os::unix::net::UnixListener, sync::mpsc, thread};

    /// An endpoint in front of a control socket on which nobody listens yet.
    fn endpoint(name: &str) -> (Endpoint, SocketAddr, PathBuf) {
        let control = std::env::temp_dir().join(format!("endpoint-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&control);
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        (Endpoint::new(listener, control.clone()).unwrap(), address, control)
    }

    /// An endpoint that runs, in front of a device that answers each connection with `answer(request)`, which gets the
    /// head and the whole body; what it was asked, in order.
    fn device(
        name: &str,
        mut answer: impl FnMut(&str) -> String + Send + 'static,
    ) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
        let (mut endpoint, address, control) = endpoint(name);
        let listener = UnixListener::bind(control).unwrap();
        let (asked, seen) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = whole_request(&mut stream) else { continue };
                let head = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
                let _ = asked.send(request); // first: the client may be answered before this thread goes on
                let _ = stream.write_all(answer(&head).as_bytes());
            }
        });
        thread::spawn(move || {
            loop {
                endpoint.turn().unwrap();
            }
        });
        (address, seen)
    }

    fn whole_request(stream: &mut impl Read) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let mut chunk = [0; 65536];
            let count = stream.read(&mut chunk).ok()?;
            bytes.extend_from_slice(&chunk[..count]);
            let head = Head::parse(&bytes, HostRule::Local).unwrap();
            match head.map(|head| head.size as u64 + head.length.unwrap_or(0)) {
                Some(size) if bytes.len() as u64 >= size => return Some(bytes),
                _ if count == 0 => return None,
                _ => {}
            }
        }
    }

    fn said(status: u16, body: &str) -> String {
        let mut text = String::new();
        http::write_head(&mut text, status, media::JSON, Some(body.len() as u64), None).unwrap();
        text + body
    }

    /// One request; status and body of the answer.
    fn ask(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        stream.write_all(format!("{head} HTTP/1.1\r\nHost: dev:12368\r\n{length}\r\n").as_bytes()).unwrap();
        let _ = stream.write_all(body); // it may be refused before all is sent
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let reply = Reply::parse(&bytes).unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes[reply.size..]).into_owned();
        assert_eq!(reply.length, Some(text.len() as u64));
        (reply.status, text)
    }

    fn first_lines(seen: &mpsc::Receiver<Vec<u8>>) -> Vec<String> {
        let line = |request: Vec<u8>| String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
        seen.try_iter().map(line).collect()
    }

    #[test]
    fn the_device_says_where_everything_is() {
        let (address, _) = device("remote", |_| said(500, ""));
        for path in ["/.pvrremote", "/cgi-bin/pvr/.pvrremote"] {
            let (status, text) = ask(address, &format!("GET {path}"), b"");
            let value = json::Value::parse(text.as_bytes()).unwrap().object().unwrap();
            let member = |key: &str| value.text::<100>(key).unwrap().unwrap().to_string();
            assert_eq!((status, member("pvr-spec").as_str()), (200, "pvr-pantahub-1"));
            assert_eq!(member("json-get-url"), "http://dev:12368/cgi-bin/pvr/state");
            assert_eq!(member("objects-endpoint"), "http://dev:12368/cgi-bin/pvr/objects");
            assert_eq!(member("post-url"), "http://dev:12368/cgi-bin/pvr/steps");
            assert_eq!(member("json-key"), "state");
        }
        assert_eq!(ask(address, "GET /cgi-bin/pvr", b"").0, 200, "scripts probe it");
        assert_eq!(origin(Some("a\"b")), "");
        assert_eq!(origin(None), "");
        assert_eq!(origin(Some("[::1]:80")), "http://[::1]:80");
    }

    #[test]
    fn what_is_read_is_passed_through() {
        let (address, seen) = device("read", |_| said(200, "{\"a\":1}"));
        let sha = "ab".repeat(32);
        for (path, wanted) in [
            ("/state", "/steps/current".to_owned()),
            ("/cgi-bin/pvr/steps", "/steps".into()),
            ("/steps/locals/a/progress", "/steps/locals/a/progress".into()),
            ("/steps/locals/a", "/steps/locals/a".into()),
            (&format!("/objects/{sha}/content"), format!("/objects/{sha}")),
        ] {
            assert_eq!(ask(address, &format!("GET {path}"), b""), (200, "{\"a\":1}".into()));
            assert_eq!(first_lines(&seen), [format!("GET {wanted} HTTP/1.1")]);
        }
    }

    #[test]
    fn an_object_is_announced_and_sent() {
        let sha = "ab".repeat(32);
        let (address, seen) = device("object", |head| match head.starts_with("PUT") {
            true => said(200, ""),
            false => said(404, r#"{"code":"SB1210"}"#),
        });
        let record = format!(r#"{{"sha256sum":"{sha}","size":"3"}}"#);
        let (status, text) = ask(address, "POST /cgi-bin/pvr/objects/", record.as_bytes());
        assert_eq!(status, 200);
        assert!(text.contains(&format!("\"signed-puturl\":\"http://dev:12368/cgi-bin/pvr/objects/{sha}/content\"")));
        assert_eq!(ask(address, &format!("GET /objects/{sha}"), b"").0, 404);
        let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let (status, _) = ask(address, &format!("PUT /cgi-bin/pvr/objects/{sha}/content"), &content);
        assert_eq!(status, 200);
        let sent = seen.try_iter().last().unwrap();
        assert!(sent.starts_with(format!("PUT /objects/{sha} HTTP/1.1").as_bytes()) && sent.ends_with(&content));
    }

    #[test]
    fn an_object_that_is_there_need_not_be_sent() {
        let (address, _) = device("there", |_| said(200, "12345"));
        let sha = "cd".repeat(32);
        let (status, text) = ask(address, "POST /objects/", format!(r#"{{"sha256sum":"{sha}"}}"#).as_bytes());
        assert_eq!(status, 409);
        assert!(text.contains("\"size\":\"5\""), "{text}");
        let (status, text) = ask(address, &format!("GET /objects/{sha}"), b"");
        assert!(status == 200 && text.contains("signed-geturl"));
    }

    #[test]
    fn a_revision_is_staged_described_and_run() {
        let (address, seen) = device("step", |_| said(200, ""));
        let body = br##"{"commit-msg":"new \"page\"","rev":-1,"state":{ "#spec": "x" }}"##;
        let (status, text) = ask(address, "POST /cgi-bin/pvr/steps", body);
        assert_eq!(status, 200, "{text}");
        let value = json::Value::parse(text.as_bytes()).unwrap().object().unwrap();
        assert_eq!(value.get("rev").unwrap().raw(), b"-1");
        let rev = value.text::<71>("revlocal").unwrap().unwrap().to_string();
        assert!(rev.starts_with("locals/pvr-") && RevName::parse(&rev).is_ok());
        let sha = ObjectId(Sha256::digest(br##"{ "#spec": "x" }"##).into()).to_string();
        assert_eq!(value.text::<64>("state-sha").unwrap().unwrap().as_str(), sha);
        let asked: Vec<String> = seen.try_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        let wanted = [
            (format!("PUT /steps/{rev} "), r##"{ "#spec": "x" }"##.to_owned()),
            (format!("PUT /steps/{rev}/commitmsg "), "new \"page\"".into()),
            ("POST /commands ".into(), format!(r#"{{"op":"LOCAL_RUN","payload":"{rev}"}}"#)),
        ];
        assert_eq!(asked.len(), 3);
        for (asked, (head, body)) in asked.iter().zip(wanted) {
            assert!(asked.starts_with(&head) && asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
        }
        let (_, text) = ask(address, "POST /steps", br#"{"rev":"locals/mine","state":{}}"#);
        assert!(text.contains("\"revlocal\":\"locals/mine\""));
        assert_eq!(first_lines(&seen).len(), 2, "no message, none stored");
    }

    #[test]
    fn what_the_device_refuses_is_refused() {
        let refusal = r#"{"Error":"x","code":"SB1105","key":"web","at":9}"#;
        let (address, seen) = device("refused", move |_| said(422, refusal));
        let (status, text) = ask(address, "POST /steps", br#"{"state":{}}"#);
        assert_eq!((status, text.as_str()), (422, refusal));
        assert_eq!(first_lines(&seen).len(), 1, "nothing is run");
        let (address, _) = device("busy", |_| said(503, "{}"));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /state HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nRetry-After: 5\r\n"));
    }

    #[test]
    fn what_is_wrong_is_refused_before_the_device_is_asked() {
        let (address, seen) = device("wrong", |_| said(200, ""));
        let long = format!(r#"{{"state":{{}},"commit-msg":"{}"}}"#, "x".repeat(limits::COMMIT_MESSAGE_MAX + 1));
        let large = format!(r#"{{"state":{{"a":"{}"}}}}"#, "x".repeat(limits::STATE_MAX));
        for (head, body, status, code) in [
            ("POST /steps", r#"{"state":{"a":"#, 422, "SB1003"),
            ("POST /steps", r#"{"state":{}}}"#, 422, "SB1002"),
            ("POST /steps", r#"{"state":1}"#, 400, "SB1510"),
            ("POST /steps", r#"{"state":{},"state":{}}"#, 422, "SB1005"),
            ("POST /steps", r#"{"state":{},"rev":"../x"}"#, 400, "SB1206"),
            ("POST /steps", &long, 507, "SB1209"),
            ("POST /steps", &large, 422, "SB1001"),
            ("POST /steps", "", 411, "SB1504"),
            ("POST /objects/", r#"{"sha256sum":"x"}"#, 400, "SB1203"),
            ("PUT /objects/xyz/content", "x", 400, "SB1203"),
            ("GET /objects/xyz", "", 400, "SB1203"),
            ("GET /steps/../x", "", 400, "SB1206"),
            ("DELETE /state", "", 400, "SB1505"),
            ("GET /nothing", "", 400, "SB1506"),
        ] {
            let (got, text) = ask(address, head, body.as_bytes());
            assert!(got == status && text.contains(code), "{head}: {got} {text}");
        }
        assert_eq!(first_lines(&seen), [""; 0]);
    }

    #[test]
    fn a_device_that_is_gone_is_busy() {
        let (mut endpoint, address, _) = endpoint("gone");
        thread::spawn(move || {
            loop {
                endpoint.turn().unwrap();
            }
        });
        let (status, text) = ask(address, "GET /state", b"");
        assert!(status == 503 && text.contains("SB1512"), "{text}");
    }

    #[test]
    fn an_answer_before_the_end_of_the_body_is_told() {
        let (mut endpoint, address, control) = endpoint("early");
        let listener = UnixListener::bind(control).unwrap();
        thread::spawn(move || {
            loop {
                endpoint.turn().unwrap();
            }
        });
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut some = [0; 1000];
            let _ = stream.read(&mut some).unwrap();
            stream.write_all(said(507, r#"{"code":"SB1204"}"#).as_bytes()).unwrap();
        });
        let (status, text) = ask(address, &format!("PUT /objects/{}", "ab".repeat(32)), &vec![7; 1_000_000]);
        assert_eq!((status, text.as_str()), (507, r#"{"code":"SB1204"}"#));
    }

    #[test]
    fn a_client_that_stops_half_way_loses_its_slot() {
        let (mut endpoint, address, _) = endpoint("stops");
        let mut silent = TcpStream::connect(address).unwrap();
        silent.write_all(b"GET /sta").unwrap();
        let taken = |endpoint: &Endpoint| endpoint.clients.iter().flatten().count();
        while taken(&endpoint) == 0 {
            endpoint.turn().unwrap();
        }
        for client in endpoint.clients.iter_mut().flatten() {
            client.until = Instant::now();
        }
        endpoint.turn().unwrap();
        assert_eq!(taken(&endpoint), 0);
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn fifty_clients_at_once_are_all_answered() {
        let (address, seen) = device("fifty", |_| said(200, "{}"));
        let clients: Vec<_> = (0..50).map(|_| thread::spawn(move || ask(address, "GET /state", b""))).collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), (200, "{}".into()));
        }
        assert_eq!(first_lines(&seen).len(), 50);
    }
}
