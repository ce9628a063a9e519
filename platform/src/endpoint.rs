//! `endpoint`: HTTP for `pvr` and for browsers on TCP, in front of the control socket. Only on devices whose policy opens it.
//!
//! Speaks what `pvr` expects of a device (reference: pvr-and-hub 9 and 10) and turns each request into one to three
//! of the control socket: state and objects are passed through as they come, a posted revision is staged, described
//! and run. Nothing is decided here about the device; its refusals reach the client as they are.
//!
//! Who is let in stands in `endpoint/house.rs`; the policy's word decides: `paired` (who redeemed a code that was shown on
//! the device, over TLS), `paired-plain`, `open`. What has to last is kept by the keeper, through PID 1.
//!
//! Invariants: one thread, a fixed number of clients, a deadline and a least pace for each, and at most `TRANSFERS` of them
//! speak to the device at the same time, so that others can. Runs as its own user without capabilities or files; all it can
//! do is what the control socket lets it.
//! Not here: keep-alive. Each answer ends its connection.

mod admin;
mod announce;
mod client;
mod documents;
mod flow;
mod house;
mod link;
mod memory;
mod pace;
mod page;
mod pairing;
mod parking;
mod route;
mod site;
#[cfg(test)]
mod tests;
#[cfg_attr(not(feature = "tls"), path = "endpoint/plain.rs")]
mod tls;

use crate::{
    confine,
    sockets::HOST_SOCKET,
    wire::{Buffer, Channel, Message, Received, WireError},
};
use admin::Visitor;
use announce::{Announcer, Service};
use client::{Client, Room, World};
use house::{Asker, House};
use log::info;
use mio::{Events, Interest, Poll, Token, net::TcpListener, unix::SourceFd};
use parking::Parking;
use runtime::{fault::Code, limits, port::Owner};
use rustix::{
    fd::{AsFd, AsRawFd},
    io::Errno,
};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Clients at the same time; others wait in the backlog.
const CLIENTS: usize = 8;
/// Clients that speak to the device at the same time. One transfer is left for others.
const TRANSFERS: usize = limits::TRANSFERS_MAX - 1;

const LISTENER: Token = Token(0);
const CHANNEL: Token = Token(1);
const ANNOUNCER: Token = Token(2);
/// The first of two for each client.
const FIRST: usize = 3;

/// Serial of the question what was kept; one is asked at a time.
const RECALL: u32 = 1;
/// Serial of the wish to keep something; there is one at a time.
const REMEMBER: u32 = 2;

/// Serves the address that PID 1 says, until it ends.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut buffer = Buffer::new();
    let Some(request) = channel.receive(&mut buffer)? else { return Ok(()) };
    let Message::Listen { address, access, names } = request.message else { return Err(WireError::Kind) };
    let address = address.parse::<SocketAddr>().map_err(|_| WireError::Value)?;
    let listener = TcpListener::bind(address).map_err(errno)?;
    let announcer = if address.ip().is_loopback() { None } else { Announcer::open() };
    rustix::io::ioctl_fionbio(channel.as_fd(), true)?;
    confine::become_user(confine::ENDPOINT_UID)?;
    confine::close_files(None)?;
    confine::restrict(confine::Calls::Endpoint)?;
    let control = HOST_SOCKET.to_str().unwrap_or_default().into();
    let mut endpoint = Endpoint::new(channel, listener, control, House::new(access, names)).map_err(errno)?;
    endpoint.announce(announcer).map_err(errno)?;
    channel.send(0, &Message::Ready, &[])?;
    info!("port {}, {}{}", address.port(), access.word(), route::BASE);
    loop {
        if !endpoint.turn()? {
            return Ok(());
        }
    }
}

fn errno(error: io::Error) -> WireError {
    WireError::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The listener and its clients.
struct Endpoint<'c> {
    channel: &'c Channel,
    buffer: Box<Buffer>,
    poll: Poll,
    events: Events,
    listener: TcpListener,
    /// Clients may be waiting in the backlog.
    backlog: bool,
    /// PID 1 may have said something.
    told: bool,
    control: PathBuf,
    house: House,
    clients: Vec<Option<Client>>,
    /// Clients so far.
    accepted: u64,
    parking: Parking,
    visitor: Option<Visitor>,
    announcer: Option<Announcer>,
}

impl<'c> Endpoint<'c> {
    fn new(channel: &'c Channel, mut listener: TcpListener, control: PathBuf, house: House) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&channel.as_fd().as_raw_fd()), CHANNEL, Interest::READABLE)?;
        let clients = (0..CLIENTS).map(|_| None).collect();
        let (events, buffer) = (Events::with_capacity(64), Box::new(Buffer::new()));
        let (backlog, told) = (true, true);
        Ok(Self {
            channel,
            buffer,
            poll,
            events,
            listener,
            backlog,
            told,
            control,
            house,
            clients,
            accepted: 0,
            parking: Parking::default(),
            visitor: None,
            announcer: None,
        })
    }

    /// Has its neighbours told, as soon as it is known what.
    fn announce(&mut self, announcer: Option<Announcer>) -> io::Result<()> {
        for descriptor in announcer.iter().flat_map(Announcer::descriptors) {
            self.poll.registry().register(&mut SourceFd(&descriptor.as_raw_fd()), ANNOUNCER, Interest::READABLE)?;
        }
        self.announcer = announcer;
        Ok(())
    }

    /// Waits for something to do, and does some of it for everybody. `false`: PID 1 is gone.
    fn turn(&mut self) -> Result<bool, WireError> {
        let now = Instant::now();
        // A client in the backlog makes no new edge when a slot becomes free.
        let let_in = self.backlog && self.may_let_in();
        let busy = self.clients.iter().flatten().any(|client| client.again)
            || self.announcer.as_ref().is_some_and(|announcer| announcer.again);
        let patience = if let_in || self.told || busy {
            Some(Duration::ZERO)
        } else {
            let clients = self.clients.iter().flatten().map(|client| client.until);
            let others = self.parking.until().into_iter().chain(self.announcer.iter().filter_map(Announcer::poll_at));
            let ends = clients.chain(others).chain(self.house.recall_at());
            ends.min().map(|until| until.saturating_duration_since(now))
        };
        match self.poll.poll(&mut self.events, patience) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(error)),
        }
        for event in &self.events {
            match event.token() {
                LISTENER => self.backlog = true,
                CHANNEL => self.told = true,
                ANNOUNCER => self.announcer.iter_mut().for_each(|announcer| announcer.again = true),
                Token(number) => {
                    if let Some(Some(client)) = self.clients.get_mut((number - FIRST) / 2) {
                        client.again = true;
                    }
                }
            }
        }
        if !self.listen()? {
            return Ok(false);
        }
        self.parking.end(Instant::now());
        self.accept();
        self.announcer.iter_mut().for_each(|announcer| announcer.turn(Instant::now()));
        for index in 0..self.clients.len() {
            self.serve(index);
        }
        if self.house.asks(Instant::now()) {
            self.channel.send(RECALL, &Message::Recall { owner: Owner::Endpoint }, &[])?;
        }
        if let Some(bytes) = self.house.unkept() {
            self.channel.send(REMEMBER, &Message::Remember { owner: Owner::Endpoint, bytes: &bytes }, &[])?;
        }
        Ok(true)
    }

    /// It has just become known who the device is, or it is known better: its neighbours may know.
    fn introduce(&mut self) {
        let Self { announcer: Some(announcer), house, listener, .. } = self else { return };
        let Ok(address) = listener.local_addr() else { return };
        let (name, access, transport) = (house.name(), house.access.word(), house.transport());
        announcer.begin(Service { name, port: address.port(), access, transport });
    }

    /// Hears what PID 1 says. `false`: it is gone.
    fn listen(&mut self) -> Result<bool, WireError> {
        while self.told {
            let before = self.house.service();
            let Received { serial, message, mut fds } = match self.channel.receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(false),
                Err(WireError::Io(Errno::AGAIN)) => {
                    self.told = false;
                    break;
                }
                Err(error) => return Err(error),
            };
            match message {
                Message::Memory { bytes } => self.house.recalled(Instant::now(), Ok(bytes)),
                Message::Done { ok: false, refusal, .. } if serial == RECALL => {
                    self.house.recalled(Instant::now(), Err(refusal.code));
                }
                Message::Done { ok, refusal, .. } if serial == REMEMBER => {
                    let outcome = if ok { Ok(()) } else { Err(refusal.code) };
                    let asker = self.house.kept(Instant::now(), outcome);
                    self.kept(asker, outcome);
                }
                Message::Pass { already } => {
                    let Some(socket) = fds.pop() else { return Err(WireError::Value) };
                    let address = self.listener.local_addr().map_or(String::new(), |address| address.to_string());
                    self.visitor = Visitor::serve(socket, already, &mut self.house, &address).or(self.visitor.take());
                }
                _ => return Err(WireError::Kind),
            }
            if self.house.service() != before {
                self.introduce();
            }
        }
        Ok(true)
    }

    fn kept(&mut self, asker: Option<Asker>, outcome: Result<(), Code>) {
        match asker {
            Some(Asker::Client(number)) => {
                if let Some(client) = self.clients.iter_mut().flatten().find(|client| client.number == number) {
                    client.kept(outcome);
                }
            }
            Some(Asker::Control) => {
                if let Some(visitor) = self.visitor.take() {
                    visitor.kept(outcome);
                }
            }
            Some(Asker::Itself) | None => {}
        }
    }

    /// Nobody is let in before it is known who the device is.
    fn may_let_in(&self) -> bool {
        self.house.is_known() && self.clients.iter().any(Option::is_none)
    }

    /// Lets clients in while there are slots. A client that cannot be let in is none.
    fn accept(&mut self) {
        while self.backlog && self.house.is_known() {
            let Some(free) = self.clients.iter().position(Option::is_none) else { return };
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.accepted += 1;
                    let token = FIRST + 2 * free;
                    self.clients[free] = Client::new(stream, token, self.accepted, self.poll.registry()).ok();
                }
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
        let waits = self.clients[index].as_ref().is_some_and(|client| client.phase.waits());
        if waits && busy + self.parking.len() >= TRANSFERS {
            // Whoever is here comes before whoever is gone.
            self.parking.drop_oldest();
        }
        let room = Room { transfer: busy + self.parking.len() < TRANSFERS, step: steps == 0 };
        let Some(Some(client)) = self.clients.get_mut(index) else { return };
        let (spoke, held) = (client.upstream.is_some(), client.holds_step());
        let mut keep = Ok(());
        if client.again {
            let Self { poll, control, house, parking, .. } = self;
            keep = client.drive(&mut World { registry: poll.registry(), control, house, parking, room });
        }
        if Instant::now() >= client.until {
            keep = keep.and_then(|()| client.late());
        }
        let freed = spoke && client.upstream.is_none() || held && !client.holds_step();
        if keep.is_err() {
            let left = self.clients[index].take().and_then(|client| client.leave_behind(self.poll.registry()));
            self.parking.keep(left);
        }
        if keep.is_err() || freed {
            for client in self.clients.iter_mut().flatten().filter(|client| client.phase.waits()) {
                client.again = true;
            }
        }
    }
}
