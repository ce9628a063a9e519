//! One client, from its first byte to its last, and the requests to the device that serve it.
//!
//! Invariants: a client is in one phase; each phase has a deadline, and where the client is the one waited for, its pace
//! counts (`pace`). Memory is bounded: a buffer per direction, and one posted revision at a time among all clients. An answer
//! ends the connection: what a client sends after its request is dropped.
//! Fault model: clients send anything and stop anywhere; the control socket may be busy or gone.
//! Not here: what is asked for (`route`), who may ask (`site`, `house`), documents.

use super::{
    documents::{self, accepted, announced, origin, posted, record},
    flow::{CHUNK, Out, read_some},
    house::House,
    link::Link,
    pace::Pace,
    page,
    parking::{Parked, Parking},
    route::{Ask, Route, Then, Wanted, route},
    site,
};
use mio::{
    Interest, Registry, Token,
    net::{TcpStream, UnixStream},
};
use runtime::{
    fault::{Code, Refusal},
    http::{self, Head, HostRule, Method, Reply, media},
    id::ObjectId,
    limits,
};
use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Rounds that one client gets before the others.
const ROUNDS: usize = 32;
/// Time for a request to arrive, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_millis(limits::CONNECTION_PATIENCE_MS);
/// Time without progress of the device. Longer than its own, so that its answer is the one that is told.
const DEVICE_PATIENCE: Duration = Duration::from_millis(2 * limits::TRANSFER_PATIENCE_MS);
/// Time that a client has to hang up after its answer.
const GOODBYE: Duration = Duration::from_secs(2);
/// What a busy device asks for.
const RETRY_AFTER_S: u32 = 5;

/// What a client may begin now.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) transfer: bool,
    pub(super) step: bool,
}

/// What a client is driven with.
pub(super) struct World<'a> {
    pub(super) registry: &'a Registry,
    pub(super) control: &'a Path,
    pub(super) house: &'a mut House,
    pub(super) parking: &'a mut Parking,
    pub(super) room: Room,
}

/// The connection is over.
pub(super) struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Over
    }
}

/// One client and the request to the device that serves it.
pub(super) struct Client {
    /// No other client has or had it; its place among all is another's when it is gone.
    pub(super) number: u64,
    link: Link,
    pub(super) upstream: Option<UnixStream>,
    upstream_token: Token,
    pub(super) phase: Phase,
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
    pace: Pace,
    pub(super) until: Instant,
    pub(super) again: bool,
}

/// Where a client is.
pub(super) enum Phase {
    /// Its head is read.
    Head,
    /// Its body is read into memory.
    Body { what: Wanted, length: usize },
    /// It waits until the device may be asked for it.
    Waiting(Box<Ask>),
    /// The device was asked; `left` bytes of the client's body are still to be passed on.
    Asking { then: Then, left: u64 },
    /// The device's answer is passed on: so many bytes, or all there are.
    Relaying { left: Option<u64>, skip: u64 },
    /// It gets this answer when what it says is kept.
    Keeping { answer: String },
    /// Its answer is being written.
    Leaving,
    /// It was answered and has not hung up yet.
    Gone,
}

impl Phase {
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

impl Client {
    pub(super) fn new(mut stream: TcpStream, token: usize, number: u64, registry: &Registry) -> io::Result<Self> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(token), both)?;
        let _ = stream.set_nodelay(true);
        Ok(Self {
            number,
            link: Link::new(stream),
            upstream: None,
            upstream_token: Token(token + 1),
            phase: Phase::Head,
            input: Vec::new(),
            ended: false,
            reply: Vec::new(),
            reply_ended: false,
            to_client: Out::default(),
            to_device: Out::default(),
            origin: String::new(),
            pace: Pace::new(),
            until: Instant::now() + PATIENCE,
            again: true,
        })
    }

    /// Whether it has, or waits with, a whole revision in memory.
    pub(super) fn holds_step(&self) -> bool {
        match &self.phase {
            Phase::Body { what: Wanted::Step, .. } => true,
            Phase::Waiting(ask) => matches!(ask.then, Then::Staged(_)),
            _ => false,
        }
    }

    /// Moves what can be moved, for some rounds.
    pub(super) fn drive(&mut self, world: &mut World<'_>) -> Result<(), Over> {
        self.link.listen(world.house.server())?;
        for _ in 0..ROUNDS {
            let moved = self.read_client()? | self.write_device() | self.read_device() | self.think(world)?;
            let written = self.to_client.write_to(&mut self.link)?;
            let flushed = self.link.flush_some()?;
            self.pace.moved(written);
            if matches!(self.phase, Phase::Asking { .. } | Phase::Relaying { .. } | Phase::Body { .. }) {
                let now = Instant::now();
                self.pace.wait(now, self.is_waited_for());
                self.until = self.pace.until().unwrap_or(now + DEVICE_PATIENCE);
            }
            if !moved && written == 0 && !flushed {
                self.again = false;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether nothing goes on because of the client.
    fn is_waited_for(&self) -> bool {
        match self.phase {
            Phase::Body { .. } => true,
            Phase::Asking { left, .. } => left > 0 && self.to_device.is_empty() && self.input.is_empty(),
            Phase::Relaying { .. } => !self.to_client.is_empty() || !self.link.is_flushed(),
            _ => false,
        }
    }

    /// Its time is over.
    pub(super) fn late(&mut self) -> Result<(), Over> {
        match self.phase {
            Phase::Waiting(_) | Phase::Keeping { .. } => self.refuse(Code::Busy),
            Phase::Body { .. } => self.refuse(Code::TooSlow),
            Phase::Asking { .. } if self.is_waited_for() => self.refuse(Code::TooSlow),
            Phase::Asking { .. } => self.refuse(Code::ErrandTimeout),
            _ => return Err(Over),
        }
        self.again = true;
        Ok(())
    }

    /// What it said is kept, or cannot be.
    pub(super) fn kept(&mut self, outcome: Result<(), Code>) {
        let Phase::Keeping { answer } = &mut self.phase else { return };
        let answer = std::mem::take(answer);
        match outcome {
            Ok(()) => self.answer(200, media::JSON, &answer, None),
            Err(code) => self.refuse(code),
        }
        self.again = true;
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
        match read_some(&mut self.link, &mut self.input)? {
            None => Ok(false),
            Some(0) => {
                self.ended = true;
                match self.phase {
                    Phase::Head | Phase::Body { .. } | Phase::Gone => Err(Over),
                    Phase::Asking { left, .. } if left > self.input.len() as u64 => Err(Over),
                    _ => Ok(true),
                }
            }
            Some(count) => {
                self.pace.moved(count);
                Ok(true)
            }
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
            Ok(moved) => moved > 0,
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
    fn think(&mut self, world: &mut World<'_>) -> Result<bool, Over> {
        match std::mem::replace(&mut self.phase, Phase::Leaving) {
            Phase::Head => self.head(world),
            Phase::Body { length, what } if self.input.len() < length => {
                self.phase = Phase::Body { length, what };
                return Ok(false);
            }
            Phase::Body { what, length } => {
                let body = std::mem::take(&mut self.input);
                let body = body.get(..length).unwrap_or(&body);
                match what {
                    Wanted::Record => self.ask_or_refuse(world, announced(body)),
                    Wanted::Step => self.ask_or_refuse(world, posted(body)),
                    Wanted::Pair => match world.house.pair(Instant::now(), self.number, body) {
                        Ok(answer) => {
                            self.until = Instant::now() + DEVICE_PATIENCE;
                            self.phase = Phase::Keeping { answer };
                        }
                        Err(refusal) => self.refuse(refusal),
                    },
                }
            }
            Phase::Waiting(ask) if !world.room.transfer => {
                self.phase = Phase::Waiting(ask);
                return Ok(false);
            }
            Phase::Waiting(ask) => self.ask(world, *ask),
            Phase::Asking { then, left } => return self.answered(world, then, left),
            Phase::Relaying { left, skip } => return Ok(self.relay(left, skip)),
            Phase::Keeping { answer } => {
                self.phase = Phase::Keeping { answer };
                return Ok(false);
            }
            Phase::Leaving if self.to_client.is_empty() && self.link.is_flushed() => {
                self.link.end()?;
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

    fn head(&mut self, world: &mut World<'_>) {
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
        self.origin = origin(head.host, self.link.is_private());
        self.input = input.get(head.size..).unwrap_or(&[]).to_vec();
        let route = match self.judge(world, &head) {
            Ok(route) => route,
            Err(refusal) => return self.refuse(refusal),
        };
        if head.expects_continue {
            self.to_client.push(http::CONTINUE.as_bytes());
        }
        match route {
            Route::Page(file) => {
                self.to_client.push(page::head(file).as_bytes());
                self.to_client.push(file.text.as_bytes());
                self.leave();
            }
            Route::Text(text) => self.answer(200, media::TEXT, text, None),
            Route::Elsewhere(origin) => {
                self.to_client.push(page::redirect(&origin).as_bytes());
                self.leave();
            }
            Route::Remote => {
                let text = documents::remote(&self.origin, world.house);
                self.answer(200, media::JSON, &text, None);
            }
            Route::Ask(ask) => self.ask(world, ask),
            Route::GoOn { object, first, size } => self.go_on(world, object, first, size),
            Route::Body(Wanted::Step, _) if !world.room.step => self.refuse(Code::Busy),
            Route::Body(what, length) => self.phase = Phase::Body { what, length },
        }
    }

    /// What a head asks for, if it may.
    fn judge(&mut self, world: &mut World<'_>, head: &Head<'_>) -> Result<Route, Refusal> {
        site::check(head, &world.house.names)?;
        if let Err(code) = world.house.may_speak(self.link.is_private()) {
            if head.method == Method::Get && head.path == "/" && world.house.server().is_some() {
                return Ok(Route::Elsewhere(self.origin.replacen("http:", "https:", 1)));
            }
            return Err(code.into());
        }
        let route = route(head)?;
        if !route.is_public() {
            world.house.admit(Instant::now(), head.authorization)?;
        }
        Ok(route)
    }

    fn ask_or_refuse(&mut self, world: &mut World<'_>, ask: Result<Ask, Refusal>) {
        match ask {
            Ok(ask) => self.ask(world, ask),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Asks the device, or waits until it may be asked.
    fn ask(&mut self, world: &mut World<'_>, ask: Ask) {
        self.until = Instant::now() + DEVICE_PATIENCE;
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

    /// Goes on with an upload whose client is gone.
    fn go_on(&mut self, world: &mut World<'_>, object: ObjectId, first: u64, size: u64) {
        let Some(Parked { mut upstream, unsent, .. }) = world.parking.take(object, first, size) else {
            return self.refuse(Code::UploadGone);
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        if world.registry.register(&mut upstream, self.upstream_token, both).is_err() {
            return self.refuse(Code::UploadGone);
        }
        self.upstream = Some(upstream);
        self.reply.clear();
        self.reply_ended = false;
        self.to_device = unsent;
        self.phase = Phase::Asking { then: Then::Arriving { object, size }, left: size - first };
    }

    /// What remains of a client that is gone: an upload of which a part has arrived, with what still waits for the device.
    /// A byte at least is left for whoever goes on.
    pub(super) fn leave_behind(mut self, registry: &Registry) -> Option<Parked> {
        let Phase::Asking { then: Then::Arriving { object, size }, left } = self.phase else { return None };
        let mut upstream =
            self.upstream.filter(|_| left > 0 && left < size && self.reply.is_empty() && !self.reply_ended)?;
        registry.deregister(&mut upstream).ok()?;
        let count = self.input.len().min(usize::try_from(left - 1).unwrap_or(usize::MAX));
        self.to_device.push(&self.input[..count]);
        Some(Parked::new(upstream, self.to_device, object, size - left + count as u64, size))
    }

    /// Looks for the device's answer.
    fn answered(&mut self, world: &mut World<'_>, then: Then, left: u64) -> Result<bool, Over> {
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
                let wanted = announced.filter(|_| size.is_none());
                let held = wanted.and_then(|announced| world.parking.held(object, announced.size?));
                let text = record(&self.origin, object, size.unwrap_or(0), held);
                match (size.is_some(), announced.is_some()) {
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
            Then::Content { first } if reply.status == 200 => match reply.length.filter(|size| *size > first) {
                Some(size) => self.begin_part(reply, first, size),
                None => self.begin_relay(reply, media::BYTES),
            },
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
        self.phase = Phase::Relaying { left: reply.length, skip: 0 };
    }

    /// The device sends all of an object; what the client has already stays here.
    fn begin_part(&mut self, reply: Reply, first: u64, size: u64) {
        let mut head = String::new();
        let _ = http::write_part_head(&mut head, media::BYTES, first, size);
        self.to_client.push(head.as_bytes());
        self.reply.drain(..reply.size);
        self.phase = Phase::Relaying { left: Some(size), skip: first };
    }

    /// Passes on what the device sent; whether anything moved.
    fn relay(&mut self, left: Option<u64>, skip: u64) -> bool {
        let (mut left, mut skip) = (left, skip);
        let mut moved = false;
        if skip > 0 && !self.reply.is_empty() {
            let count = self.reply.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            self.reply.drain(..count);
            skip -= count as u64;
            left = left.map(|left| left - count as u64);
            moved = true;
        }
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
        self.phase = Phase::Relaying { left, skip };
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
