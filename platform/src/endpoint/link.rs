//! A client's connection: plain HTTP or TLS, as its first byte says.
//!
//! Reads and writes never wait. Invariants: no byte is read before it is known which of the two it is; what TLS holds back
//! is counted as not sent (`is_flushed`).
//! Fault model: garbage instead of a handshake ends the connection, with an alert where TLS has one.

use super::tls::Server;
use mio::net::TcpStream;
use std::{
    io::{self, Read, Write},
    net::Shutdown,
};

/// First byte of a TLS record that begins a handshake.
#[cfg(feature = "tls")]
const HANDSHAKE: u8 = 0x16;

/// One connection.
pub(super) struct Link {
    stream: TcpStream,
    speaks: Speaks,
}

enum Speaks {
    Unknown,
    Plain,
    #[cfg(feature = "tls")]
    Tls(Box<rustls::ServerConnection>),
}

impl Link {
    /// Of a client that has said nothing yet.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, speaks: Speaks::Unknown }
    }

    /// Whether nobody on the way reads along.
    pub(super) fn is_private(&self) -> bool {
        #[cfg(feature = "tls")]
        return matches!(self.speaks, Speaks::Tls(_));
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Looks at the first byte. Without a server for it, TLS is no request.
    pub(super) fn listen(&mut self, server: Option<&Server>) -> io::Result<()> {
        if !matches!(self.speaks, Speaks::Unknown) {
            return Ok(());
        }
        let mut first = [0];
        match self.stream.peek(&mut first) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.speaks = self::speaks(first[0], server);
        Ok(())
    }

    /// Sends what TLS holds back; whether anything moved.
    pub(super) fn flush_some(&mut self) -> io::Result<bool> {
        #[cfg(feature = "tls")]
        if let Speaks::Tls(tls) = &mut self.speaks {
            let mut moved = false;
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => moved = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(moved);
        }
        Ok(false)
    }

    /// Whether everything written has left for the network.
    pub(super) fn is_flushed(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Speaks::Tls(tls) = &self.speaks {
            return !tls.wants_write();
        }
        true
    }

    /// Ends our half.
    pub(super) fn end(&mut self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Speaks::Tls(tls) = &mut self.speaks {
            tls.send_close_notify();
        }
        self.flush_some()?;
        self.stream.shutdown(Shutdown::Write)
    }
}

#[cfg(feature = "tls")]
fn speaks(first: u8, server: Option<&Server>) -> Speaks {
    let connection = server.filter(|_| first == HANDSHAKE).and_then(Server::connection);
    connection.map_or(Speaks::Plain, |connection| Speaks::Tls(Box::new(connection)))
}

#[cfg(not(feature = "tls"))]
fn speaks(_: u8, _: Option<&Server>) -> Speaks {
    Speaks::Plain
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.speaks {
            Speaks::Unknown => Err(io::ErrorKind::WouldBlock.into()),
            Speaks::Plain => self.stream.read(into),
            #[cfg(feature = "tls")]
            Speaks::Tls(_) => self.read_private(into),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.speaks {
            Speaks::Unknown | Speaks::Plain => self.stream.write(bytes),
            #[cfg(feature = "tls")]
            Speaks::Tls(_) => self.write_private(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_some().map(drop)
    }
}

#[cfg(feature = "tls")]
impl Link {
    /// What TLS has unpacked, or else the next records.
    fn read_private(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Speaks::Tls(tls) = &mut self.speaks else { return Ok(0) };
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = tls.process_new_packets();
            self.flush_some()?; // its part of the handshake, or an alert
            if taken.is_err() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn write_private(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush_some()?;
        let Speaks::Tls(tls) = &mut self.speaks else { return Ok(0) };
        match tls.writer().write(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            count => {
                self.flush_some()?;
                Ok(count)
            }
        }
    }
}
