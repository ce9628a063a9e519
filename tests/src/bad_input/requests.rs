//! Requests that are none, from inside a container: odd heads and bodies, clients without the role, clients that stop
//! half-way, and too many at once.

use std::net::Shutdown;

use runtime::fault::Code;
use runtime::limits::{CONTAINER_CONNECTIONS_MAX, HTTP_BODY_MAX, HTTP_HEAD_MAX, HTTP_HEADERS_MAX, STATE_MAX};
use sha2::{Digest, Sha256};

use super::control::ensure_refused;
use super::ground::Ground;
use crate::tour::disk::hex;
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure, http};

/// Every request that is refused for what it says.
pub fn refuse(ground: &Ground, report: &mut Report) -> Outcome<()> {
    for (what, request, code) in cases() {
        let answer = ground.manager.raw(&request).map_err(|error| format!("{what}: {error}"))?;
        ground.refused(report, "http", what, &answer, code)?;
    }
    Ok(())
}

/// What is wrong, the bytes that are sent, and the code.
fn cases() -> Vec<(&'static str, Vec<u8>, Code)> {
    let head = |text: &str| format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes();
    let body = |text: &str, body: &[u8]| [&head(text)[..], body].concat();
    let command =
        |json: &str| body(&format!("POST /commands HTTP/1.1\nContent-Length: {}", json.len()), json.as_bytes());
    let object = format!("/objects/{}", "ab".repeat(32));
    let put = |headers: &str| head(&format!("PUT {object} HTTP/1.1\n{headers}"));
    let long = "x".repeat(HTTP_HEAD_MAX);
    let many = "A: b\n".repeat(HTTP_HEADERS_MAX + 1);
    let large = HTTP_BODY_MAX + 1;
    let large_state = format!("PUT /steps/locals/large HTTP/1.1\nContent-Length: {}", STATE_MAX + 1);
    vec![
        ("wrong method: DELETE /status", head("DELETE /status HTTP/1.1"), Code::MethodWrong),
        ("wrong method: PUT /containers", head("PUT /containers HTTP/1.1\nContent-Length: 0"), Code::MethodWrong),
        ("wrong method: GET /commands", head("GET /commands HTTP/1.1"), Code::MethodWrong),
        ("no such method: BREW /status", head("BREW /status HTTP/1.1"), Code::MethodWrong),
        ("unknown path", head("GET /nowhere HTTP/1.1"), Code::EndpointUnknown),
        ("a path that only begins well", head("GET /statusquo HTTP/1.1"), Code::EndpointUnknown),
        ("no path at all", head("OPTIONS * HTTP/1.1"), Code::RequestInvalid),
        ("another protocol", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Code::RequestInvalid),
        ("oversized head: its path", head(&format!("GET /{long} HTTP/1.1")), Code::HeadTooLarge),
        ("oversized head: one header", head(&format!("GET /status HTTP/1.1\nA: {long}")), Code::HeadTooLarge),
        ("oversized head: many headers", head(&format!("GET /status HTTP/1.1\n{many}A: b")), Code::HeadTooLarge),
        (
            "oversized body",
            body(&format!("POST /commands HTTP/1.1\nContent-Length: {large}"), &vec![b' '; large]),
            Code::BodyTooLarge,
        ),
        ("oversized body: a state", body(&large_state, &vec![b' '; STATE_MAX + 1]), Code::StateTooLarge),
        ("Content-Length twice", put("Content-Length: 1\nContent-Length: 1"), Code::RequestInvalid),
        ("two lengths in one Content-Length", put("Content-Length: 1, 1"), Code::RequestInvalid),
        ("a Content-Length with a sign", put("Content-Length: +1"), Code::RequestInvalid),
        ("a Content-Length beyond 64 bits", put("Content-Length: 18446744073709551616"), Code::RequestInvalid),
        ("no Content-Length", put("A: b"), Code::LengthRequired),
        ("a chunked body", put("Transfer-Encoding: chunked"), Code::LengthRequired),
        (
            "Content-Length and Transfer-Encoding",
            put("Content-Length: 1\nTransfer-Encoding: chunked"),
            Code::LengthRequired,
        ),
        ("a browser's Host", head("GET /status HTTP/1.1\nHost: example.org"), Code::HostForbidden),
        ("an object's name that is none", head("GET /objects/abc HTTP/1.1"), Code::ObjectName),
        ("an object that is not there", head(&format!("GET {object} HTTP/1.1")), Code::ObjectUnknown),
        ("a revision's name with `..`", head("GET /steps/locals/.. HTTP/1.1"), Code::RevisionName),
        (
            "a revision that is not there",
            command(r#"{"op":"LOCAL_RUN","payload":"locals/none"}"#),
            Code::RevisionUnknown,
        ),
        ("a command that is no JSON", command("REBOOT_DEVICE"), Code::CommandInvalid),
        ("an unknown command", command(r#"{"op":"REBOOT_DEVICE_NOW","payload":""}"#), Code::CommandUnknown),
        (
            "an unknown container",
            body("PUT /containers/nobody HTTP/1.1\nContent-Length: 17", br#"{"action":"stop"}"#),
            Code::ContainerUnknown,
        ),
    ]
}

/// A container without the role gets `/signal`, and nothing else.
pub fn refuse_visitor(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let object = format!("/objects/{}", "ab".repeat(32));
    for (method, path, body) in [
        ("GET", "/status", None),
        ("GET", "/containers", None),
        ("GET", "/limits", None),
        ("GET", "/steps/current", None),
        ("PUT", "/steps/locals/visitor", Some(&b"{}"[..])),
        ("PUT", &object, Some(b"x")),
        ("PUT", "/containers/visitor", Some(br#"{"action":"restart"}"#)),
        ("POST", "/commands", Some(br#"{"op":"REBOOT_DEVICE","payload":""}"#)),
        ("GET", "/nowhere", None),
    ] {
        let answer = ground.visitor.send(method, path, body)?;
        ground.refused(report, "role", &format!("without the role: {method} {path}"), &answer, Code::NotManagement)?;
    }
    let answer = ground.visitor.send("POST", "/signal", Some(br#"{"type":"ready"}"#))?;
    let what = "without the role: POST /signal, which is not for this container's goal";
    ground.refused(report, "role", what, &answer, Code::SignalUnexpected)
}

/// Bodies that do not hold what their head says.
pub fn refuse_objects(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let content = b"not what it is called";
    let wrong = ground.manager.send("PUT", &format!("/objects/{}", "cd".repeat(32)), Some(content))?;
    ground.refused(report, "body", "an object under another's name", &wrong, Code::ObjectMismatch)?;
    // The length says 100 bytes more than the client sends before it hangs up.
    let name = hex(&Sha256::digest(content));
    let head = format!("PUT /objects/{name} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", content.len() + 100);
    let stream = ground.manager.open(&[head.as_bytes(), content].concat())?;
    stream.shutdown(Shutdown::Write)?;
    let short = http::answer(stream)?;
    ground.refused(report, "body", "an object that ends half-way", &short, Code::Incomplete)?;
    let stream = ground.manager.open(b"POST /commands HTTP/1.1\r\nContent-Length: 40\r\n\r\n{\"op\":")?;
    stream.shutdown(Shutdown::Write)?;
    let short = http::answer(stream)?;
    ground.refused(report, "body", "a command that ends half-way", &short, Code::Incomplete)?;
    ground.no_upload_remains()?;
    report.fact("nothing of them is left on the disk");
    Ok(())
}

/// Clients that stop half-way take all slots of their container, and nobody else's; the slots come back after the
/// deadline, and who waited is served.
pub fn stop_half_way(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let parts: [&[u8]; 3] = [b"", b"GET /sta", b"POST /commands HTTP/1.1\r\nContent-Length: 40\r\n\r\n{\"op\":"];
    let each = CONTAINER_CONNECTIONS_MAX.div_ceil(parts.len()) as u8;
    let mut stopped = Vec::new();
    for part in parts {
        stopped.push(ground.manager.crowd(each, part)?);
    }
    let other = ground.visitor.send("GET", "/status", None)?;
    ensure_refused(&other, Code::NotManagement).map_err(|error| format!("another container meanwhile: {error}"))?;
    let endpoint = http::get(ground.device.ports.endpoint, "/cgi-bin/pvr/state")?;
    ensure(endpoint.status == 200, || format!("the endpoint meanwhile: {} {}", endpoint.status, endpoint.text()))?;
    let served = ground.manager.send("GET", "/status", None)?;
    ensure(served.status == 200, || format!("after the deadline: {} {}", served.status, served.text()))?;
    for crowd in stopped {
        let received = crowd.received()?;
        ensure(received.is_empty(), || format!("a client that stopped half-way was told: {received}"))?;
    }
    ground.is_unchanged()?;
    let count = usize::from(each) * parts.len();
    report
        .held("stop", &format!("{count} clients stop half-way, in all slots of their container: let go after a while"));
    report.fact("another container and the endpoint are served meanwhile, and the next client after it");
    Ok(())
}

/// Many clients at once, in two containers: each is answered in the end.
pub fn crowd(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let status = b"GET /status HTTP/1.1\r\n\r\n";
    let crowds = [
        (ground.manager.crowd(20, status)?, 20, "HTTP/1.1 200 "),
        (ground.manager.crowd(15, b"DELETE /groups HTTP/1.1\r\n\r\n")?, 15, "\"SB1505\""),
        (ground.visitor.crowd(15, status)?, 15, "\"SB1507\""),
    ];
    let mut all = 0;
    for (crowd, clients, sign) in crowds {
        let received = crowd.received()?;
        let answered = received.matches(sign).count();
        ensure(answered == clients, || format!("{answered} of {clients} clients were told {sign}: {received}"))?;
        all += clients;
    }
    ground.is_unchanged()?;
    report.held("crowd", &format!("{all} clients at once: all answered"));
    Ok(())
}
