//! `verify`: says which content a descriptor holds.
//!
//! Invariants: reads only what it was given, at positions of its own, so that the descriptor that was hashed
//! can be mounted as it is. Holds no privilege: its own user, no capability, no file to open, and no mount, so
//! that nothing stays mounted because of it.
//! Faults: a medium that reports an error is a refusal (`StorageIo`); a compromised `verify` can accept a bad
//! object, nothing else. One request at a time.
//! Not here: signatures.

use crate::{
    confine,
    wire::{Buffer, Channel, Message, WireError},
};
use runtime::{fault::Code, id::ObjectId};
use rustix::{
    fd::BorrowedFd,
    fd::{AsFd, OwnedFd},
    io::{self, Errno},
};
use sha2::{Digest, Sha256};

/// Bytes read at a time. The kernel reads ahead; this stays in memory for as long as the device runs.
const CHUNK: usize = 16 * 1024;

/// Serves requests until PID 1 closes the channel.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut chunk = vec![0u8; CHUNK];
    confine::seclude(&[])?;
    confine::become_user(confine::VERIFY_UID)?;
    confine::close_files(None)?;
    confine::restrict(confine::Calls::Verify)?;
    channel.send(0, &Message::Ready, &[])?;
    let mut buffer = Buffer::new();
    while let Some(request) = channel.receive(&mut buffer)? {
        let answer = answer(&request.message, request.fds.first(), &mut chunk);
        channel.send(request.serial, &answer, &[])?;
    }
    Ok(())
}

fn answer(request: &Message<'_>, file: Option<&OwnedFd>, chunk: &mut [u8]) -> Message<'static> {
    match (request, file) {
        (Message::Hash, Some(file)) => match digest(file.as_fd(), chunk) {
            Ok((object, length)) => Message::Digest { object, length },
            Err(_) => Message::refused(Code::StorageIo),
        },
        _ => Message::refused(Code::Internal),
    }
}

/// The sha256 of everything in `file`, and its length.
pub fn digest(file: BorrowedFd<'_>, chunk: &mut [u8]) -> io::Result<(ObjectId, u64)> {
    let mut hasher = Sha256::new();
    let mut at = 0u64;
    loop {
        match io::pread(file, &mut *chunk, at) {
            Ok(0) => return Ok((ObjectId(hasher.finalize().into()), at)),
            Ok(length) => {
                hasher.update(&chunk[..length]);
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
