//! What an errand asks of the control socket, as a command line would: `stick`.
//!
//! Invariants: as `pvcontrol`'s: every exchange has a deadline. The process gave up its privileges before.
//! Faults: a device that refuses, is busy or does not answer; a file that cannot be read.

use super::{Options, Outcome, Trouble, command, exchange, get, install, text_of};
use runtime::{id::ObjectId, json::Value};
use rustix::event::{Timespec, poll};
use std::{fs::File, io, time::Duration};

/// Why something was not done.
#[derive(PartialEq, Eq, Debug)]
pub enum Failure {
    /// The file cannot be read.
    File(String),
    /// The device is busy.
    Busy(String),
    /// The device refuses, or cannot be asked.
    Other(String),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let plain = |text: String| text.strip_prefix("ERROR: ").map_or(text.clone(), str::to_owned);
        match trouble {
            Trouble::File(text) => Self::File(text),
            Trouble::Refused(503, text, _) => Self::Busy(plain(text)),
            Trouble::Refused(_, text, _) | Trouble::Usage(text) | Trouble::Local(text) => Self::Other(plain(text)),
        }
    }
}

/// Installs an exported revision under this name, if the file has this hash when what is installed is read; everything is
/// checked before anything is sent.
pub fn install(file: &File, rev: &str, message: &str, hash: ObjectId) -> Result<(), Failure> {
    let options = Options { message: Some(message.into()), ..Options::default() };
    install::put(&options, file, Some(rev), Some(hash), &mut io::sink())?;
    Ok(())
}

/// Runs a revision that is on the device.
pub fn run(rev: &str) -> Result<(), Failure> {
    Ok(command("LOCAL_RUN", rev).iter().try_for_each(|request| ask(request).map(drop))?)
}

/// Status and code of the last update to a revision; `None` if the device does not have it.
pub fn progress(rev: &str) -> Result<Option<(String, String)>, Failure> {
    let answer = match ask(&get(format!("/steps/{rev}/progress"))[0]) {
        Err(Trouble::Refused(404, ..)) => return Ok(None),
        answer => answer?,
    };
    let document = Value::parse(&answer).ok().and_then(|value| value.object().ok());
    let document = document.ok_or(Trouble::Local("the device's answer is no document".into()))?;
    Ok(Some((text_of(document, "status"), text_of(document, "code"))))
}

/// Sleeps, with a call that a confined process has.
pub fn pause(time: Duration) {
    let _ = poll(&mut [], Timespec::try_from(time).ok().as_ref());
}

fn ask(request: &super::Request) -> Outcome<Vec<u8>> {
    let mut answer = Vec::new();
    exchange(&Options::default(), request, &mut io::empty(), &mut answer, &mut io::sink())?;
    Ok(answer)
}
