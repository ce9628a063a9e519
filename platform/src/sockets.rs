//! Control sockets: the host's and one per container, and the connections on all of them.
//!
//! Invariants: who asks is known by the listening socket. A connection is one request and one answer. Each has a
//! deadline; when all slots are taken, or those that one container may have, clients wait in the backlog, not in
//! our memory. An answer is written at once into the socket's own buffer, which holds the largest: a client that
//! does not read costs nothing.
//! Fault model: clients send anything, stop anywhere, and hang up at any time.
//! Not here: what a request means (`runtime::http`, `control`), bodies that are streamed (`transfer`).

use crate::wait::{Source, Waiter};
use core::ffi::CStr;
use runtime::{
    control::Caller,
    id::{ConnId, PartName},
    limits,
    port::Millis,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Mode},
    io::Errno,
    net::{self, AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType},
    process::{Gid, Uid},
};

/// The host's control socket.
pub const HOST_SOCKET: &CStr = c"/run/pantavisor/pv/pv-ctrl";
/// Where a container's control socket is made; `<name>/pv-ctrl` below it.
pub const CONTAINER_SOCKETS: &str = "/run/switchback/c";
/// Clients that may wait for a slot.
const BACKLOG: i32 = 64;
/// Time that a client has to read its answer and hang up.
const GOODBYE_MS: Millis = 2_000;
/// Bytes of one request that PID 1 reads itself.
const INPUT_MAX: usize = limits::HTTP_HEAD_MAX + limits::HTTP_BODY_MAX;

/// Makes a listening socket at a path. Only its owner and `group` may connect, everybody if `group` is `None`.
pub fn listen(path: &CStr, group: Option<u32>) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let _ = rustix::fs::unlink(path);
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let mode = Mode::from_raw_mode(if group.is_some() { 0o660 } else { 0o666 });
    rustix::fs::chownat(CWD, path, Some(Uid::ROOT), group.map(Gid::from_raw), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmod(path, mode)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Makes the control socket of a container.
pub fn listen_container(name: PartName) -> Result<OwnedFd, Errno> {
    let mut path = crate::path::Path::new();
    crate::early::make_dir(path.set(format_args!("{CONTAINER_SOCKETS}/{name}")));
    listen(path.set(format_args!("{CONTAINER_SOCKETS}/{name}/pv-ctrl")), None)
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Its request is being read.
    Reading,
    /// The machine decides. The client may hang up: the answer then goes nowhere.
    Asked,
    /// An errand streams its body or its answer.
    Streaming,
    /// It was answered; what it still sends is dropped until it hangs up.
    Leaving,
}

struct Conn {
    socket: OwnedFd,
    caller: Caller,
    phase: Phase,
    until: Millis,
}

struct Slot {
    conn: Option<Conn>,
    used: usize,
    input: Box<[u8]>,
}

/// What a connection that was ready brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Nothing to decide.
    Nothing,
    /// There are bytes to look at: `input`.
    Bytes,
    /// The client ended its half in the middle of its request.
    End,
}

/// All connections.
pub struct Sockets {
    slots: Box<[Slot]>,
    /// Listeners with clients that found no slot.
    starved: heapless::Vec<Source, { limits::CONTAINERS_MAX + 1 }>,
}

impl Sockets {
    /// No connections. Allocates the slots.
    pub fn new() -> Self {
        let empty = || Slot { conn: None, used: 0, input: vec![0; INPUT_MAX].into_boxed_slice() };
        Self { slots: (0..limits::CONNECTIONS_MAX).map(|_| empty()).collect(), starved: heapless::Vec::new() }
    }

    /// Accepts one client of a listener that is ready.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, caller: Caller, from: Source, waiter: &mut Waiter, now: Millis) {
        let free = self.slots.iter().position(|slot| slot.conn.is_none());
        let Some(free) = free.filter(|_| self.has_share(caller)) else {
            // Once each: every client that comes is an edge, and one listener must not push out the others.
            if !self.starved.contains(&from) {
                let _ = self.starved.push(from);
            }
            return waiter.drained(from);
        };
        match net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                let source = Source::Conn(ConnId(free as u8));
                if waiter.watch(&socket, source).is_ok() {
                    let until = now + limits::CONNECTION_PATIENCE_MS;
                    self.slots[free].conn = Some(Conn { socket, caller, phase: Phase::Reading, until });
                    self.slots[free].used = 0;
                }
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => waiter.drained(from),
        }
    }

    /// Drops the requests that are not whole yet of a caller that is gone: what comes after it in its place must
    /// not be taken for it, nor it for that.
    pub fn forget_caller(&mut self, caller: Caller, waiter: &mut Waiter) {
        for id in (0..limits::CONNECTIONS_MAX as u8).map(ConnId) {
            if self.caller(id) == Some(caller) && self.phase(id) == Some(Phase::Reading) {
                self.close(id, waiter);
            }
        }
    }

    /// Whether a caller may hold one more: no container, and not all together, can shut the others out.
    fn has_share(&self, caller: Caller) -> bool {
        if caller == Caller::Host {
            return true;
        }
        let containers = self.callers().filter(|other| *other != Caller::Host).count();
        self.held_by(caller) < limits::CONTAINER_CONNECTIONS_MAX
            && containers < limits::CONNECTIONS_MAX - limits::HOST_CONNECTIONS_MIN
    }

    fn held_by(&self, caller: Caller) -> usize {
        self.callers().filter(|other| *other == caller).count()
    }

    fn callers(&self) -> impl Iterator<Item = Caller> {
        self.slots.iter().filter_map(|slot| slot.conn.as_ref()).map(|conn| conn.caller)
    }

    /// Reads what a ready connection has.
    pub fn read(&mut self, id: ConnId, waiter: &mut Waiter) -> Input {
        let source = Source::Conn(id);
        let slot = &mut self.slots[usize::from(id.0)];
        let Some(conn) = &slot.conn else {
            waiter.drained(source);
            return Input::Nothing;
        };
        let leaving = conn.phase == Phase::Leaving;
        // While the head is not known, no more than a head is read: what comes after it may be an errand's to receive,
        // and the little that was read with it must fit one message.
        let end = if slot.used < limits::HTTP_HEAD_MAX { limits::HTTP_HEAD_MAX } else { INPUT_MAX };
        let room = if leaving { &mut slot.input[..] } else { &mut slot.input[slot.used..end] };
        if conn.phase == Phase::Asked || room.is_empty() {
            waiter.drained(source); // the deadline ends it
            return Input::Nothing;
        }
        match net::recv(&conn.socket, room, net::RecvFlags::DONTWAIT) {
            Ok((0, _)) if leaving => self.close(id, waiter),
            Ok((0, _)) => {
                waiter.drained(source);
                return Input::End;
            }
            Ok(_) if leaving => {}
            Ok((count, _)) => {
                slot.used += count;
                return Input::Bytes;
            }
            Err(Errno::AGAIN) => waiter.drained(source),
            Err(Errno::INTR) => {}
            Err(_) => self.close(id, waiter),
        }
        Input::Nothing
    }

    /// What was read of a connection's request.
    pub fn input(&self, id: ConnId) -> &[u8] {
        let slot = &self.slots[usize::from(id.0)];
        &slot.input[..slot.used]
    }

    /// Who is at the other end.
    pub fn caller(&self, id: ConnId) -> Option<Caller> {
        self.slots[usize::from(id.0)].conn.as_ref().map(|conn| conn.caller)
    }

    /// Where it is in its life.
    pub fn phase(&self, id: ConnId) -> Option<Phase> {
        self.slots[usize::from(id.0)].conn.as_ref().map(|conn| conn.phase)
    }

    /// The socket itself, for an errand.
    pub fn socket(&self, id: ConnId) -> Option<BorrowedFd<'_>> {
        self.slots[usize::from(id.0)].conn.as_ref().map(|conn| conn.socket.as_fd())
    }

    /// Its request is whole: the machine decides, without a deadline of the connection's own.
    pub fn asked(&mut self, id: ConnId) {
        if let Some(conn) = &mut self.slots[usize::from(id.0)].conn {
            conn.phase = Phase::Asked;
            conn.until = Millis::MAX;
        }
    }

    /// Its bytes belong to an errand from now on.
    pub fn streaming(&mut self, id: ConnId, waiter: &mut Waiter) {
        if let Some(conn) = &mut self.slots[usize::from(id.0)].conn {
            conn.phase = Phase::Streaming;
            conn.until = Millis::MAX;
            waiter.forget(&conn.socket, Source::Conn(id));
        }
    }

    /// Writes a part of an answer, as far as the socket takes it; whether it took all.
    pub fn write(&self, id: ConnId, bytes: &[u8]) -> bool {
        let Some(socket) = self.socket(id) else { return false };
        let mut rest = bytes;
        while !rest.is_empty() {
            match net::send(socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// It was answered: hangs up our half and gives the client a moment to read and to hang up too, because
    /// closing while it still sends would take the answer away from it.
    pub fn leave(&mut self, id: ConnId, waiter: &mut Waiter, now: Millis) {
        let Some(conn) = &mut self.slots[usize::from(id.0)].conn else { return };
        let _ = net::shutdown(&conn.socket, Shutdown::Write);
        if conn.phase == Phase::Streaming && waiter.watch(&conn.socket, Source::Conn(id)).is_err() {
            return self.close(id, waiter);
        }
        conn.phase = Phase::Leaving;
        conn.until = now + GOODBYE_MS;
        waiter.again(Source::Conn(id));
    }

    /// Closes a connection; its slot is free, and a client that waited for one is let in.
    pub fn close(&mut self, id: ConnId, waiter: &mut Waiter) {
        if let Some(conn) = self.slots[usize::from(id.0)].conn.take() {
            waiter.forget(&conn.socket, Source::Conn(id));
        }
        for listener in &self.starved {
            waiter.again(*listener);
        }
        self.starved.clear();
    }

    /// A connection whose time is over.
    pub fn overdue(&self, now: Millis) -> Option<ConnId> {
        let late = |slot: &Slot| slot.conn.as_ref().is_some_and(|conn| now >= conn.until);
        self.slots.iter().position(late).map(|index| ConnId(index as u8))
    }

    /// The next deadline.
    pub fn poll_at(&self) -> Option<Millis> {
        let deadlines = self.slots.iter().filter_map(|slot| slot.conn.as_ref()).map(|conn| conn.until);
        deadlines.min().filter(|until| *until != Millis::MAX)
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::id::ContainerId;
    use std::os::unix::net::{UnixListener, UnixStream};

    const CONTAINER: Caller = Caller::Container(ContainerId(0));
    const THEIRS: Source = Source::Listener(ContainerId(0));

    struct Door {
        listener: UnixListener,
        path: std::path::PathBuf,
    }

    impl Door {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("switchback-{name}-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            Self { listener, path }
        }

        fn come(&self) -> UnixStream {
            UnixStream::connect(&self.path).unwrap()
        }
    }

    impl Drop for Door {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Serves listeners as the loop does, until nobody has anything to say; connections are left alone.
    fn settle(sockets: &mut Sockets, waiter: &mut Waiter, host: &Door, theirs: &Door) {
        while let Some(source) = waiter.next(Some(0)) {
            match source {
                Source::Host => sockets.accept(host.listener.as_fd(), Caller::Host, source, waiter, 0),
                THEIRS => sockets.accept(theirs.listener.as_fd(), CONTAINER, source, waiter, 0),
                other => waiter.drained(other),
            }
        }
    }

    #[test]
    fn a_container_that_connects_without_end_leaves_room_for_the_host() {
        let (host, theirs) = (Door::new("host"), Door::new("theirs"));
        let (mut sockets, mut waiter) = (Sockets::new(), Waiter::new().unwrap());
        waiter.watch(&host.listener, Source::Host).unwrap();
        waiter.watch(&theirs.listener, THEIRS).unwrap();
        let mut flood = Vec::new();
        // Each is an edge of its own: more of them than there are listeners to remember.
        for _ in 0..2 * limits::CONTAINERS_MAX {
            flood.push(theirs.come());
            settle(&mut sockets, &mut waiter, &host, &theirs);
            if flood.len() == 60 {
                // The backlog is bounded: the first ones give up, and others come.
                flood.drain(..limits::CONTAINER_CONNECTIONS_MAX);
                (0..limits::CONTAINER_CONNECTIONS_MAX as u8).for_each(|id| sockets.close(ConnId(id), &mut waiter));
                settle(&mut sockets, &mut waiter, &host, &theirs);
            }
            if flood.len() > 60 {
                flood.pop();
            }
        }
        assert_eq!(sockets.held_by(CONTAINER), limits::CONTAINER_CONNECTIONS_MAX, "no more than its share");
        assert_eq!(sockets.starved.iter().filter(|source| **source == THEIRS).count(), 1, "remembered once");

        let clients: Vec<_> = (0..limits::CONNECTIONS_MAX).map(|_| host.come()).collect();
        settle(&mut sockets, &mut waiter, &host, &theirs);
        assert_eq!(sockets.held_by(Caller::Host), limits::CONNECTIONS_MAX - limits::CONTAINER_CONNECTIONS_MAX);
        let first = (0..).map(ConnId).find(|id| sockets.caller(*id) == Some(Caller::Host)).unwrap();
        sockets.close(first, &mut waiter);
        settle(&mut sockets, &mut waiter, &host, &theirs);
        assert_eq!(
            sockets.held_by(Caller::Host),
            limits::CONNECTIONS_MAX - limits::CONTAINER_CONNECTIONS_MAX,
            "who waited is let in"
        );
        drop(clients);
    }

    #[test]
    fn a_request_of_a_container_that_is_gone_is_dropped() {
        let (host, theirs) = (Door::new("host-gone"), Door::new("theirs-gone"));
        let (mut sockets, mut waiter) = (Sockets::new(), Waiter::new().unwrap());
        waiter.watch(&host.listener, Source::Host).unwrap();
        waiter.watch(&theirs.listener, THEIRS).unwrap();
        let clients = [theirs.come(), theirs.come(), host.come()];
        settle(&mut sockets, &mut waiter, &host, &theirs);
        let asked = (0..).map(ConnId).find(|id| sockets.caller(*id) == Some(CONTAINER)).unwrap();
        sockets.asked(asked); // its answer is on its way, and says nothing about who comes next
        sockets.forget_caller(CONTAINER, &mut waiter);
        assert_eq!((sockets.held_by(CONTAINER), sockets.held_by(Caller::Host)), (1, 1));
        assert_eq!(sockets.phase(asked), Some(Phase::Asked));
        drop(clients);
    }
}
