//! The smallest HTTP/1.1 client that the tour needs: one request per connection, a deadline on everything.
//!
//! Does not: redirects, TLS, keep-alive, chunked requests. Reads chunked answers as they come.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Outcome, fail};

/// Longest silence of a device that is alive.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, text or not.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GET `path` from a port on the loopback.
pub fn get(port: u16, path: &str) -> Outcome<Answer> {
    send(port, "GET", path, &[], &[])
}

/// One request with a body; `headers` are whole lines without their ends.
pub fn send(port: u16, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Outcome<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    if method != "GET" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    answer(open(port, &[request.as_bytes(), body].concat())?)
}

/// A connection to a port on the loopback on which these bytes were sent. A device that refuses what it is being sent
/// may hang up before it has all of it; what it answered is read all the same.
pub fn open(port: u16, bytes: &[u8]) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match stream.write_all(bytes) {
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Err(error.into()),
        _ => Ok(stream),
    }
}

/// The answer on a connection, which the other side ends.
pub fn answer(mut stream: TcpStream) -> Outcome<Answer> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // It hung up while there was something left that it did not want.
        Err(error) if error.kind() != ErrorKind::ConnectionReset || bytes.is_empty() => Err(error.into()),
        _ => parse(&bytes),
    }
}

/// The answer in the bytes of a connection that ended.
fn parse(bytes: &[u8]) -> Outcome<Answer> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return fail(format!("no whole answer, {} bytes", bytes.len()));
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let Some(status) = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()) else {
        return fail(format!("not an answer: {head}"));
    };
    let raw = &bytes[end + 4..];
    let chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    Ok(Answer { status, body: if chunked { join_chunks(raw)? } else { raw.to_vec() } })
}

fn join_chunks(mut raw: &[u8]) -> Outcome<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|window| window == b"\r\n").ok_or("a chunk without a size line")?;
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..end])?.trim(), 16)?;
        if length == 0 {
            return Ok(body);
        }
        raw = &raw[end + 2..];
        body.extend(raw.get(..length).ok_or("a chunk cut short")?);
        raw = raw.get(length + 2..).ok_or("a chunk without an end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_refused() {
        let plain = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((plain.status, plain.text().as_str()), (404, "no"));
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap();
        assert_eq!(chunked.text(), "abcde");
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"nonsense\r\n\r\n"] {
            assert!(parse(bad).is_err());
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc\r\n").is_err());
    }
}
