//! `/endpoint` of the control socket: PID 1 hands the connection over, and it is answered here.
//!
//! `GET /endpoint` tells who is served, `POST /endpoint/pair` begins a pairing and shows its code, `DELETE
//! /endpoint/tokens/<id>` takes a token back. Only the control socket's management gets here; nothing that comes over the
//! network does. An answer fits the socket's own buffer, so nobody is waited for.

use super::{
    house::{House, hex},
    pairing::VALID,
};
use runtime::{
    fault::{Code, Refusal},
    http::{self, Head, HostRule, Method, media},
};
use rustix::{
    fd::OwnedFd,
    net::{self, SendFlags, Shutdown},
};
use std::time::Instant;

/// A client of the control socket.
pub(super) struct Visitor(OwnedFd);

impl Visitor {
    /// Answers what was asked on this connection; `Some` if the answer must wait until something is kept.
    pub(super) fn serve(socket: OwnedFd, request: &[u8], house: &mut House, address: &str) -> Option<Self> {
        let visitor = Self(socket);
        match answer(request, house, address) {
            Ok(Some(text)) => visitor.answer(200, &text),
            Ok(None) => return Some(visitor),
            Err(refusal) => visitor.refuse(&refusal),
        }
        None
    }

    /// It was kept, or could not be.
    pub(super) fn kept(&self, outcome: Result<(), Code>) {
        match outcome {
            Ok(()) => self.answer(200, ""),
            Err(code) => self.refuse(&code.into()),
        }
    }

    fn refuse(&self, refusal: &Refusal) {
        let mut text = String::new();
        let _ = http::write_refusal(&mut text, refusal);
        self.answer(refusal.code.http(), &text);
    }

    fn answer(&self, status: u16, body: &str) {
        let mut text = String::new();
        let _ = http::write_head(&mut text, status, media::JSON, Some(body.len() as u64), None);
        text.push_str(body);
        // a client that does not take it is gone
        let _ = net::send(&self.0, text.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let _ = net::shutdown(&self.0, Shutdown::Write);
    }
}

fn answer(request: &[u8], house: &mut House, address: &str) -> Result<Option<String>, Refusal> {
    let head = Head::parse(request, HostRule::Local)?.ok_or(Code::RequestInvalid)?;
    let words: Vec<&str> = head.path.split('/').filter(|word| !word.is_empty()).collect();
    let now = Instant::now();
    if !house.is_known() {
        return Err(Code::Busy.into()); // in a moment it is known what was kept
    }
    match (head.method, &words[..]) {
        (Method::Get, ["endpoint"]) => Ok(Some(house.write(now, address))),
        (Method::Post, ["endpoint", "pair"]) => {
            house.may_keep()?;
            if house.access == crate::config::Access::Paired && house.print().is_none() {
                return Err(Code::PlainForbidden.into());
            }
            let print = house.print();
            let code = house.pairing.begin(now, print.as_ref())?;
            Ok(Some(invitation(&code, print)))
        }
        (Method::Delete, ["endpoint", "tokens", which]) => house.revoke(which).map(|()| None),
        (_, ["endpoint"] | ["endpoint", "pair"] | ["endpoint", "tokens", _]) => {
            Err(Refusal::key(Code::MethodWrong, head.path))
        }
        _ => Err(Refusal::key(Code::EndpointUnknown, head.path)),
    }
}

/// What is shown to who asked for a code. `pvr device pair` compares the certificate by itself; a browser shows a
/// warning instead, behind which anybody could be.
fn invitation(code: &str, print: Option<[u8; 32]>) -> String {
    let begin = format!("{{\"code\":\"{code}\",\"valid_s\":{},", VALID.as_secs());
    match print {
        Some(print) => format!(
            "{begin}\"transport\":\"tls\",\"certificate_sha256\":\"{}\",\"browser\":\"type the code only if the \
             certificate that the browser shows has this SHA-256, or use pvr device pair\"}}",
            hex(&print)
        ),
        None => format!("{begin}\"transport\":\"plain\"}}"),
    }
}
