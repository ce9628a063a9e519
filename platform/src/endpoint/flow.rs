//! Bytes between two sockets that never wait: what is on its way out, and one read.

use std::io::{self, Read, Write};

/// Bytes held per direction.
pub(super) const CHUNK: usize = 32 * 1024;

/// Bytes on their way out.
#[derive(Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what can be written; how much.
    pub(super) fn write_to(&mut self, to: &mut impl Write) -> io::Result<usize> {
        let mut moved = 0;
        while !self.is_empty() {
            match to.write(&self.bytes[self.at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.at += count;
                    moved += count;
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
pub(super) fn read_some(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
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
