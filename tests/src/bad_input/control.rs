//! The control socket of a container, through the relay in it: what a test sends arrives there byte for byte.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Shutdown, TcpStream};

use runtime::fault::Code;
use serde_json::Value;

use crate::tour::http::{self, Answer};
use crate::tour::{Outcome, ensure};

/// The control socket of one container.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// The port of its relay on the loopback.
    pub port: u16,
}

impl Control {
    /// A connection on which these bytes were sent.
    pub fn open(&self, bytes: &[u8]) -> Outcome<TcpStream> {
        http::open(self.port, bytes)
    }

    /// The answer to these bytes.
    pub fn raw(&self, bytes: &[u8]) -> Outcome<Answer> {
        http::answer(self.open(bytes)?)
    }

    /// The answer to a request; one with a body says how long it is.
    pub fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Outcome<Answer> {
        let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
        let head = format!("{method} {path} HTTP/1.1\r\n{length}\r\n");
        self.raw(&[head.as_bytes(), body.unwrap_or_default()].concat())
    }

    /// A document; fails unless it is given.
    pub fn get(&self, path: &str) -> Outcome<Value> {
        let answer = self.send("GET", path, None)?;
        ensure(answer.status == 200, || format!("GET {path}: {} {}", answer.status, answer.text()))?;
        Ok(serde_json::from_slice(&answer.body).map_err(|error| format!("GET {path}: {error}: {}", answer.text()))?)
    }

    /// Asks for something; fails unless it is granted.
    pub fn granted(&self, method: &str, path: &str, body: &[u8]) -> Outcome<()> {
        let answer = self.send(method, path, Some(body))?;
        ensure(answer.status == 200, || format!("{method} {path}: {} {}", answer.status, answer.text()))
    }

    /// Clients that connect at the same time and send the same bytes. When this returns, all have.
    pub fn crowd(&self, clients: u8, bytes: &[u8]) -> Outcome<Crowd> {
        let mut stream = self.open(&[&[0, clients], bytes].concat())?;
        stream.shutdown(Shutdown::Write)?;
        let mut sent = [0];
        stream.read_exact(&mut sent)?;
        Ok(Crowd(stream))
    }

    /// What so many requests take, one after another, by the container's clock: the middle one, in microseconds.
    pub fn timed(&self, requests: u8, bytes: &[u8]) -> Outcome<f64> {
        let mut stream = self.open(&[&[1, requests], bytes].concat())?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        text.trim().parse().map_err(|_| format!("the container timed nothing: {text}").into())
    }

    /// Tells a container that obeys on this port of the device.
    pub fn tell(&self, port: u16, word: &str) -> Outcome<()> {
        let [high, low] = port.to_be_bytes();
        let mut stream = self.open(&[&[2, high, low], word.as_bytes()].concat())?;
        stream.shutdown(Shutdown::Write)?;
        let mut passed = Vec::new();
        stream.read_to_end(&mut passed)?;
        ensure(passed == b"+", || format!("nobody obeys on port {port}"))
    }

    /// All containers by name.
    pub fn containers(&self) -> Outcome<BTreeMap<String, Value>> {
        let list = self.get("/containers")?;
        let named = |container: &Value| Some((container["name"].as_str()?.to_string(), container.clone()));
        Ok(list.as_array().ok_or("/containers is no list")?.iter().filter_map(named).collect())
    }
}

/// Clients that wait for their answers.
pub struct Crowd(TcpStream);

impl Crowd {
    /// Waits until none of them is connected any more: everything that they received, one after another.
    pub fn received(mut self) -> Outcome<String> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Fails unless the answer is the refusal with this code, in its own HTTP status.
pub fn ensure_refused(answer: &Answer, code: Code) -> Outcome<()> {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    ensure(answer.status == code.http() && document["code"] == code.to_string(), || {
        format!("expected {} {code}, got {} {}", code.http(), answer.status, answer.text())
    })
}
