//! `fetch`: moves the bytes of one transfer, between a connection and a file that others opened.
//!
//! Invariants: exactly the announced number of bytes is received or sent; every outcome is one `Done`, and the
//! answer to the client stays with PID 1. The file is written in order from its current position and is
//! worth nothing until somebody hashed it. Holds no privilege, and opens nothing.
//! Faults: a client that stops (`Incomplete` after `TRANSFER_PATIENCE_MS`), a full disk (`NoSpace`; the rest of
//! the body is read and dropped, so that the client is there for the answer), a medium that fails.
//! Not here: TLS, resuming, hashing.

use crate::{
    confine,
    wire::{Buffer, Channel, Message, WireError},
};
use runtime::{fault::Code, limits};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd},
    fs::sendfile,
    io::{self, Errno},
    net::{RecvFlags, recv},
};
use std::time::{Duration, Instant};

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;
/// How often PID 1 hears of progress.
const NEWS_EVERY: Duration = Duration::from_secs(2);

/// Does the one transfer that PID 1 asks for.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    confine::become_user(confine::FETCH_UID)?;
    confine::close_files(None)?;
    confine::restrict(confine::Calls::Fetch)?;
    let mut buffer = Buffer::new();
    let Some(request) = channel.receive(&mut buffer)? else {
        return Ok(());
    };
    let [connection, file] = &request.fds[..] else {
        return channel.send(request.serial, &Message::refused(Code::Internal), &[]);
    };
    let mut news = News { channel, serial: request.serial, last: Instant::now() };
    let outcome = match request.message {
        Message::Receive { length, already } => {
            receive(connection.as_fd(), file.as_fd(), length, already, &mut |bytes| news.tell(bytes))
        }
        Message::Send { length } => send(connection.as_fd(), file.as_fd(), length, &mut |bytes| news.tell(bytes)),
        _ => Err(Code::Internal),
    };
    let answer = outcome.map_or_else(Message::refused, Message::done);
    channel.send(request.serial, &answer, &[])
}

/// Tells PID 1 that the transfer lives.
struct News<'a> {
    channel: &'a Channel,
    serial: u32,
    last: Instant,
}

impl News<'_> {
    fn tell(&mut self, bytes: u64) {
        if self.last.elapsed() >= NEWS_EVERY {
            self.last = Instant::now();
            // If PID 1 is gone or busy, the transfer goes on; its end is reported or the process is ended.
            let _ = self.channel.send(self.serial, &Message::Alive { bytes }, &[]);
        }
    }
}

/// Receives `length` bytes, of which `already` was read before, into `file`.
pub fn receive(
    connection: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    length: u64,
    already: &[u8],
    news: &mut dyn FnMut(u64),
) -> Result<u64, Code> {
    if already.len() as u64 > length {
        return Err(Code::RequestInvalid);
    }
    let mut chunk = vec![0u8; CHUNK];
    let mut stored = write_all(file, already);
    let mut have = already.len() as u64;
    while have < length {
        let want = usize::try_from(length - have).unwrap_or(CHUNK).min(CHUNK);
        match recv(connection, &mut chunk[..want], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Code::Incomplete),
            Ok((count, _)) => {
                if stored.is_ok() {
                    stored = write_all(file, &chunk[..count]);
                }
                have += count as u64;
                news(have);
            }
            Err(Errno::AGAIN) => wait(connection, PollFlags::IN)?,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Code::Incomplete),
        }
    }
    stored.map(|()| have)
}

/// Sends `length` bytes of `file` from its current position.
pub fn send(
    connection: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    length: u64,
    news: &mut dyn FnMut(u64),
) -> Result<u64, Code> {
    let mut sent = 0;
    while sent < length {
        let want = usize::try_from(length - sent).unwrap_or(CHUNK).min(CHUNK);
        match sendfile(connection, file, None, want) {
            Ok(0) => return Err(Code::StorageDamaged), // the file is shorter than it was
            Ok(count) => {
                sent += count as u64;
                news(sent);
            }
            Err(Errno::AGAIN) => wait(connection, PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(Errno::IO) => return Err(Code::StorageIo),
            Err(_) => return Err(Code::Incomplete),
        }
    }
    Ok(sent)
}

/// Waits until the connection can go on. The connection's blocking mode is shared with PID 1 and left alone.
fn wait(connection: BorrowedFd<'_>, what: PollFlags) -> Result<(), Code> {
    let patience = Timespec {
        tv_sec: (limits::TRANSFER_PATIENCE_MS / 1000) as i64,
        tv_nsec: (limits::TRANSFER_PATIENCE_MS % 1000 * 1_000_000) as i64,
    };
    match poll(&mut [PollFd::from_borrowed_fd(connection, what)], Some(&patience)) {
        Ok(0) => Err(Code::Incomplete),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(_) => Err(Code::Incomplete),
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Code> {
    while !bytes.is_empty() {
        match io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Err(Code::NoSpace),
            Err(_) => return Err(Code::StorageIo),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
        net::{AddressFamily, SocketFlags, SocketType, socketpair},
    };
    use std::{io::Write, os::unix::net::UnixStream};

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        (a.into(), b.into())
    }

    fn memory() -> rustix::fd::OwnedFd {
        memfd_create(c"test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn receives_exactly_the_announced_bytes() {
        let (mut client, device) = pair();
        let file = memory();
        client.write_all(b"cdefg").unwrap();
        assert_eq!(receive(device.as_fd(), file.as_fd(), 6, b"ab", &mut |_| ()), Ok(6));
        let mut got = [0; 16];
        assert_eq!(io::pread(&file, &mut got, 0), Ok(6));
        assert_eq!(&got[..6], b"abcdef");
    }

    #[test]
    fn a_client_that_stops_half_way_is_incomplete() {
        let (mut client, device) = pair();
        client.write_all(b"abc").unwrap();
        drop(client);
        assert_eq!(receive(device.as_fd(), memory().as_fd(), 6, b"", &mut |_| ()), Err(Code::Incomplete));
    }

    #[test]
    fn a_body_longer_than_announced_is_refused() {
        let (_client, device) = pair();
        assert_eq!(receive(device.as_fd(), memory().as_fd(), 1, b"ab", &mut |_| ()), Err(Code::RequestInvalid));
    }

    #[test]
    fn a_file_that_shrank_is_damage() {
        let (_client, device) = pair();
        let file = memory();
        io::write(&file, b"abc").unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        assert_eq!(send(device.as_fd(), file.as_fd(), 4, &mut |_| ()), Err(Code::StorageDamaged));
    }

    #[test]
    fn a_full_disk_is_no_space_and_the_body_is_still_read() {
        // /dev/full is the kernel's own full disk.
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (mut client, device) = pair();
        client.write_all(b"abcdef").unwrap();
        assert_eq!(receive(device.as_fd(), full.as_fd(), 6, b"", &mut |_| ()), Err(Code::NoSpace));
        let mut rest = [0; 8];
        assert_eq!(recv(&device, &mut rest, RecvFlags::DONTWAIT).err(), Some(Errno::AGAIN), "nothing is left unread");
        let file = memory();
        ftruncate(&file, 2).unwrap();
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        client.write_all(b"ab").unwrap();
        assert_eq!(receive(device.as_fd(), file.as_fd(), 2, b"", &mut |_| ()), Err(Code::StorageIo));
    }
}
