//! Control sockets with real clients: slots, deadlines, and what a client may leave undone.

use platform::{
    sockets::{Input, Phase, Sockets, listen},
    wait::{Source, Waiter},
};
use runtime::{
    control::Caller,
    id::{ConnId, ContainerId},
    limits,
};
use rustix::fd::{AsFd, OwnedFd};
use std::{
    ffi::CString,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
};

/// A listening socket in a folder of its own, and the loop around it.
struct Desk {
    path: PathBuf,
    listener: OwnedFd,
    caller: Caller,
    sockets: Sockets,
    waiter: Waiter,
}

impl Desk {
    fn open(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchback-{name}-{}", std::process::id()));
        let listener = listen(&CString::new(path.to_str().unwrap()).unwrap(), None).unwrap();
        let mut waiter = Waiter::new().unwrap();
        waiter.watch(&listener, Source::Host).unwrap();
        Self { path, listener, caller: Caller::Host, sockets: Sockets::new(), waiter }
    }

    fn client(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    /// Serves what is ready until nothing is; the connections that have bytes or ended.
    fn serve(&mut self, now: u64) -> Vec<(ConnId, Input)> {
        let mut heard = vec![];
        while let Some(source) = self.waiter.next(Some(0)) {
            match source {
                Source::Host => {
                    self.sockets.accept(self.listener.as_fd(), self.caller, source, &mut self.waiter, now);
                }
                Source::Conn(id) => match self.sockets.read(id, &mut self.waiter) {
                    Input::Nothing => {}
                    input => heard.push((id, input)),
                },
                other => panic!("{other:?} was never watched"),
            }
        }
        heard
    }

    fn open_slots(&self) -> usize {
        (0..limits::CONNECTIONS_MAX as u8).filter(|id| self.sockets.phase(ConnId(*id)).is_some()).count()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn clients_beyond_the_slots_wait_and_are_let_in_one_by_one() {
    let mut desk = Desk::open("slots");
    let clients: Vec<_> = (0..limits::CONNECTIONS_MAX + 5).map(|_| desk.client()).collect();
    for client in &clients {
        (&mut &*client).write_all(b"x").unwrap();
    }
    assert_eq!(desk.serve(0).len(), limits::CONNECTIONS_MAX, "one for each slot was heard");
    for more in 1..=5 {
        desk.sockets.close(ConnId(more), &mut desk.waiter);
        assert_eq!(desk.serve(0), [(ConnId(more), Input::Bytes)], "the slot went to one that waited");
    }
    desk.sockets.close(ConnId(0), &mut desk.waiter);
    assert_eq!(desk.serve(0), []);
    assert_eq!(desk.open_slots(), limits::CONNECTIONS_MAX - 1);
}

#[test]
fn containers_cannot_shut_each_other_or_the_host_out() {
    let mut desk = Desk::open("share");
    let mut clients = vec![];
    let mut flood = |desk: &mut Desk, caller: Caller| {
        desk.caller = caller;
        clients.extend((0..limits::CONNECTIONS_MAX).map(|_| desk.client()));
        let before = desk.open_slots();
        desk.waiter.again(Source::Host);
        desk.serve(0);
        desk.open_slots() - before
    };
    assert_eq!(flood(&mut desk, Caller::Container(ContainerId(0))), limits::CONTAINER_CONNECTIONS_MAX);
    assert_eq!(flood(&mut desk, Caller::Container(ContainerId(1))), limits::CONTAINER_CONNECTIONS_MAX);
    let left = limits::CONNECTIONS_MAX - limits::HOST_CONNECTIONS_MIN - 2 * limits::CONTAINER_CONNECTIONS_MAX;
    assert_eq!(flood(&mut desk, Caller::Container(ContainerId(2))), left);
    assert_eq!(flood(&mut desk, Caller::Host), limits::HOST_CONNECTIONS_MIN);
}

#[test]
fn a_client_that_stops_half_way_loses_its_slot_at_its_deadline() {
    let mut desk = Desk::open("halfway");
    let mut client = desk.client();
    client.write_all(b"GET /status HT").unwrap();
    let [(id, Input::Bytes)] = desk.serve(0)[..] else { panic!("nothing was heard") };
    assert_eq!(desk.sockets.poll_at(), Some(limits::CONNECTION_PATIENCE_MS));
    assert_eq!(desk.sockets.overdue(limits::CONNECTION_PATIENCE_MS - 1), None);
    assert_eq!(desk.sockets.overdue(limits::CONNECTION_PATIENCE_MS), Some(id));
    desk.sockets.close(id, &mut desk.waiter);
    assert_eq!((desk.open_slots(), desk.sockets.poll_at()), (0, None));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the client is told");
}

#[test]
fn a_client_that_ends_in_the_middle_is_noticed() {
    let mut desk = Desk::open("end");
    let mut client = desk.client();
    client.write_all(b"GET /").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(desk.serve(0), [(ConnId(0), Input::Bytes), (ConnId(0), Input::End)]);
}

#[test]
fn an_answer_reaches_a_client_that_still_sends() {
    let mut desk = Desk::open("leave");
    let mut client = desk.client();
    client.write_all(b"PUT /x HTTP/1.1\r\n").unwrap();
    let [(id, Input::Bytes)] = desk.serve(0)[..] else { panic!("nothing was heard") };
    desk.sockets.asked(id);
    client.write_all(&[b'y'; 4096]).unwrap();
    assert_eq!(desk.serve(0), [], "what comes while the machine decides is not read");
    assert!(desk.sockets.write(id, b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    desk.sockets.leave(id, &mut desk.waiter, 0);
    assert_eq!(desk.sockets.phase(id), Some(Phase::Leaving));
    client.write_all(&[b'y'; 4096]).unwrap();
    desk.serve(0);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"));
    drop(client);
    desk.serve(0);
    assert_eq!(desk.open_slots(), 0, "it hung up: its slot is free");
}

#[test]
fn no_more_than_a_head_is_read_before_the_head_is_known() {
    let mut desk = Desk::open("head");
    let mut client = desk.client();
    client.write_all(&[b'a'; 2 * limits::HTTP_HEAD_MAX]).unwrap();
    let source = loop {
        match desk.waiter.next(Some(100)) {
            Some(Source::Host) => {
                desk.sockets.accept(desk.listener.as_fd(), Caller::Host, Source::Host, &mut desk.waiter, 0);
            }
            Some(source) => break source,
            None => panic!("the client was not heard"),
        }
    };
    assert_eq!(source, Source::Conn(ConnId(0)));
    assert_eq!(desk.sockets.read(ConnId(0), &mut desk.waiter), Input::Bytes);
    assert_eq!(desk.sockets.input(ConnId(0)).len(), limits::HTTP_HEAD_MAX);
}
