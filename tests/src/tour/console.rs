//! The device's second serial port: a prompt that runs nothing but `pvcontrol`.
//!
//! Protocol: one line with the arguments goes in; what pvcontrol printed comes out, then a line `[exit N]`.
//! Fault model: the device may reboot or be killed at any byte; then the answer does not come and the deadline does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Outcome, fail};

/// What a run of `pvcontrol` printed, and its exit code.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Output, errors included.
    pub text: String,
}

impl Ran {
    /// The output as JSON, if the exit code is 0.
    pub fn json(&self) -> Outcome<serde_json::Value> {
        if self.code != 0 {
            return fail(format!("pvcontrol ended with {}: {}", self.code, self.text.trim()));
        }
        // The line discipline of the port may have put something in front of it.
        let start = self.text.find(['{', '[']).unwrap_or(0);
        serde_json::from_str(self.text[start..].trim()).map_err(|error| format!("{error}: {}", self.text).into())
    }
}

/// Runs `pvcontrol ARGS` over the port behind `socket`.
pub fn run(socket: &Path, args: &str, patience: Duration) -> Outcome<Ran> {
    let deadline = Instant::now() + patience;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(patience))?;
    skip_stale(&mut stream)?;
    stream.write_all(format!("{args}\n").as_bytes())?;
    let mut bytes = Vec::new();
    loop {
        if let Some(ran) = finished(&bytes, args) {
            return Ok(ran);
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return fail(format!("no answer to `{args}`: {}", String::from_utf8_lossy(&bytes)));
        };
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return fail(format!("the port closed during `{args}`")),
            Ok(length) => bytes.extend(&piece[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What an earlier client left unread.
fn skip_stale(stream: &mut UnixStream) -> Outcome<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece), Ok(length) if length > 0) {}
    Ok(())
}

/// The answer, when its last line is there. An echo of the command is not part of it.
fn finished(bytes: &[u8], args: &str) -> Option<Ran> {
    let text = String::from_utf8_lossy(bytes).replace('\r', "");
    let at = text.rfind("[exit ")?;
    let code = text[at + 6..].split_once(']')?.0.parse().ok()?;
    let text = &text[..at];
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.ends_with(args) => rest,
        _ => text,
    };
    Some(Ran { code, text: text.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_exit_code() {
        assert!(finished(b"", "ls").is_none());
        assert!(finished(b"ls\r\n{}\r\n[exit ", "ls").is_none());
        let ran = finished(b"> ls\r\n{\"a\":1}\r\n[exit 0]\r\n", "ls").unwrap();
        assert_eq!(ran.code, 0);
        assert_eq!(ran.json().unwrap()["a"], 1);
        assert!(finished(b"no\n[exit 255]\n", "ls").unwrap().json().is_err());
    }
}
