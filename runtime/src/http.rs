//! HTTP/1.1 heads on buffers of the caller: no I/O, no state, no allocation.
//!
//! One request per connection: whatever the client asks for, the answer says `Connection: close`. A head is
//! parsed again from its start whenever bytes arrive; it is bounded, so that stays cheap, and there is no
//! half-parsed state to get wrong.
//!
//! Invariants: a `Head` has an origin-form path, at most one length, no transfer coding. What a client could
//! use to make two parsers disagree about where a body ends is refused, not interpreted.
//!
//! Does not do: bodies, chunked coding, percent-decoding, keep-alive.

use crate::{
    fault::{Code, Refusal},
    json,
    limits::{HTTP_HEAD_MAX, HTTP_HEADERS_MAX},
};
use core::fmt;

/// What a client wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// A method that no endpoint of ours has.
    Other,
}

impl Method {
    fn from_word(word: &str) -> Self {
        match word {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// Which `Host` a listener accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostRule {
    /// Absent, empty or `localhost`: on a socket of our own a browser has no business.
    Local,
    /// Any, but at most one.
    Any,
}

/// The head of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head<'a> {
    /// What to do.
    pub method: Method,
    /// With what: starts with a slash, without the query.
    pub path: &'a str,
    /// What stood after the question mark.
    pub query: &'a str,
    /// Length of the body, if stated. Without it there is no body.
    pub length: Option<u64>,
    /// Whether the client waits for `CONTINUE` before it sends the body.
    pub expects_continue: bool,
    /// Value of `Host`, if it is text.
    pub host: Option<&'a str>,
    /// Value of `Authorization`, for an endpoint that wants one.
    pub authorization: Option<&'a str>,
    /// Value of `Origin`: the page that a browser asks for; `null` if it is no text.
    pub origin: Option<&'a str>,
    /// Value of `Sec-Fetch-Site`: how a browser judges that page.
    pub site: Option<&'a str>,
    /// First byte of the content that a client wants: `Range: bytes=FIRST-`. Every other form asks for all of it, and so does
    /// one that depends on a condition.
    pub first: Option<u64>,
    /// `Content-Range: bytes FIRST-LAST/SIZE`, if the body is the end of some content: its first byte, and the size.
    pub part: Option<(u64, u64)>,
    /// Bytes of the head; the body starts there.
    pub size: usize,
}

/// What lets a client send its body.
pub const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

impl<'a> Head<'a> {
    /// Reads a head from everything received so far. `None` = more bytes are needed, and there may be more.
    pub fn parse(received: &'a [u8], rule: HostRule) -> Result<Option<Self>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let window = received.get(..HTTP_HEAD_MAX).unwrap_or(received);
        let size = match request.parse(window).map_err(refuse_head)? {
            httparse::Status::Complete(size) => size,
            httparse::Status::Partial if received.len() >= HTTP_HEAD_MAX => {
                return Err(Refusal::at(Code::HeadTooLarge, HTTP_HEAD_MAX));
            }
            httparse::Status::Partial => return Ok(None),
        };
        let invalid = Refusal::new(Code::RequestInvalid);
        let target = request.path.filter(|target| target.starts_with('/')).ok_or(invalid)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self {
            method: Method::from_word(request.method.unwrap_or("")),
            path,
            query,
            length: None,
            expects_continue: false,
            host: None,
            authorization: None,
            origin: None,
            site: None,
            first: None,
            part: None,
            size,
        };
        let mut host = None;
        for header in request.headers.iter() {
            head.header(header.name, header.value, &mut host)?;
        }
        if request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("if-range")) {
            head.first = None;
        }
        head.host = host.and_then(|host| core::str::from_utf8(host).ok());
        let local = host.is_none_or(|host| host.is_empty() || host.eq_ignore_ascii_case(b"localhost"));
        match rule {
            HostRule::Local if !local => Err(Refusal::new(Code::HostForbidden)),
            _ => Ok(Some(head)),
        }
    }

    fn header(&mut self, name: &str, value: &'a [u8], host: &mut Option<&'a [u8]>) -> Result<(), Refusal> {
        let refuse = |code| Err(Refusal::key(code, name));
        let text = core::str::from_utf8(value).ok();
        let is = |wanted| name.eq_ignore_ascii_case(wanted);
        if is("content-length") {
            match (self.length, text.and_then(length)) {
                (None, Some(length)) => self.length = Some(length),
                _ => return refuse(Code::RequestInvalid),
            }
        } else if is("transfer-encoding") {
            return refuse(Code::LengthRequired);
        } else if is("host") {
            if host.replace(value).is_some() {
                return refuse(Code::RequestInvalid);
            }
        } else if is("expect") {
            self.expects_continue = text.is_some_and(|text| text.eq_ignore_ascii_case("100-continue"));
            if !self.expects_continue {
                return refuse(Code::RequestInvalid);
            }
        }
        if is("range") {
            self.first = text.and_then(|text| length(text.strip_prefix("bytes=")?.strip_suffix('-')?));
        } else if is("content-range") {
            // Not to be passed over: the body is not what it seems without it.
            match (self.part, text.and_then(tail)) {
                (None, Some(part)) => self.part = Some(part),
                _ => return refuse(Code::RequestInvalid),
            }
        }
        // Who asks: said twice it could mean either.
        let repeated = if is("authorization") {
            self.authorization.replace(text.unwrap_or("")).is_some()
        } else if is("origin") {
            self.origin.replace(text.unwrap_or("null")).is_some()
        } else {
            is("sec-fetch-site") && self.site.replace(text.unwrap_or("cross-site")).is_some()
        };
        if repeated {
            return refuse(Code::RequestInvalid);
        }
        Ok(())
    }
}

/// First byte and size of what is sent, if it is the end of the whole.
fn tail(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (length(first)?, length(last)?, length(size)?);
    (first <= last && last.checked_add(1) == Some(size)).then_some((first, size))
}

/// The head of an answer, as a client reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status; below 200 another head follows.
    pub status: u16,
    /// Length of the body; without it the body ends with the connection.
    pub length: Option<u64>,
    /// Whether the body is chunked.
    pub chunked: bool,
    /// Bytes of the head; the body starts there.
    pub size: usize,
}

impl Reply {
    /// Reads a head from everything received so far. `None` = more bytes are needed, and there may be more.
    pub fn parse(received: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let window = received.get(..HTTP_HEAD_MAX).unwrap_or(received);
        let size = match response.parse(window).map_err(refuse_head)? {
            httparse::Status::Complete(size) => size,
            httparse::Status::Partial if received.len() >= HTTP_HEAD_MAX => {
                return Err(Refusal::at(Code::HeadTooLarge, HTTP_HEAD_MAX));
            }
            httparse::Status::Partial => return Ok(None),
        };
        let mut reply = Self { status: response.code.unwrap_or(0), length: None, chunked: false, size };
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let value = core::str::from_utf8(header.value).ok().and_then(length);
                match (reply.length, value) {
                    (None, Some(length)) => reply.length = Some(length),
                    _ => return Err(Refusal::key(Code::RequestInvalid, header.name)),
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                reply.chunked = header.value.eq_ignore_ascii_case(b"chunked");
            }
        }
        Ok(Some(reply))
    }
}

fn refuse_head(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(Code::HeadTooLarge),
        _ => Refusal::new(Code::RequestInvalid),
    }
}

/// Digits and nothing else: `parse` alone would take a plus.
fn length(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What a client is told about a body.
pub mod media {
    /// JSON; of empty bodies too, as the original does.
    pub const JSON: &str = "application/json";
    /// The content of an object.
    pub const BYTES: &str = "application/octet-stream";
    /// Text for people.
    pub const TEXT: &str = "text/plain";
}

/// Writes the head of an answer. Without a length, the end of the connection is the end of the body.
pub fn write_head(
    out: &mut dyn fmt::Write,
    status: u16,
    media: &str,
    length: Option<u64>,
    retry_after_s: Option<u32>,
) -> fmt::Result {
    write!(out, "HTTP/1.1 {status} {}\r\nContent-Type: {media}\r\nConnection: close\r\n", reason(status))?;
    if let Some(length) = length {
        write!(out, "Content-Length: {length}\r\n")?;
    }
    if let Some(seconds) = retry_after_s {
        write!(out, "Retry-After: {seconds}\r\n")?;
    }
    out.write_str("\r\n")
}

/// Writes the head of the end of some content, from byte `first` on.
pub fn write_part_head(out: &mut dyn fmt::Write, media: &str, first: u64, size: u64) -> fmt::Result {
    let status = 206;
    write!(out, "HTTP/1.1 {status} {}\r\nContent-Type: {media}\r\nConnection: close\r\n", reason(status))?;
    write!(out, "Content-Length: {}\r\n", size - first)?;
    write!(out, "Content-Range: bytes {first}-{}/{size}\r\n\r\n", size - 1)
}

/// Writes a refusal as the body of its answer: `Error` for people and for clients of the original, then
/// code, key and byte for programs.
pub fn write_refusal(out: &mut dyn fmt::Write, refusal: &Refusal) -> fmt::Result {
    let mut json = json::Writer::new(out);
    json.begin_object()?;
    json.text_member("Error", refusal.code.text())?;
    json.key("code")?;
    json.display(&refusal.code)?;
    json.text_member("key", refusal.key.as_str())?;
    json.number_member("at", u64::from(refusal.at))?;
    json.end_object()
}

/// The words after a status.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head<'_>>, Code> {
        Head::parse(text.as_bytes(), HostRule::Local).map_err(|refusal| refusal.code)
    }

    #[test]
    fn parts_of_content() {
        let of = |header: &str| {
            head(&format!("GET / HTTP/1.1\r\n{header}\r\n\r\n")).map(|head| head.map(|h| (h.first, h.part)))
        };
        assert_eq!(of("Range: bytes=7-"), Ok(Some((Some(7), None))));
        for whole in [
            "Range: bytes=7-9",
            "Range: bytes=-7",
            "Range: bytes=1-,3-",
            "Range: lines=7-",
            "Range: bytes=7-\r\nIf-Range: x",
        ] {
            assert_eq!(of(whole), Ok(Some((None, None))), "{whole}");
        }
        assert_eq!(of("Content-Range: bytes 7-9/10"), Ok(Some((None, Some((7, 10))))));
        for wrong in
            ["bytes 7-8/10", "bytes 9-7/10", "bytes */10", "bytes 7-9/*", "7-9/10", "bytes 0-18446744073709551615/0"]
        {
            assert_eq!(of(&format!("Content-Range: {wrong}")), Err(Code::RequestInvalid), "{wrong}");
        }
        let mut text = std::string::String::new();
        write_part_head(&mut text, media::BYTES, 7, 10).unwrap();
        assert!(text.contains(" 206 Partial Content\r\n") && text.contains("Content-Range: bytes 7-9/10\r\n"));
    }

    #[test]
    fn reads_a_head_and_says_where_the_body_starts() {
        let text =
            "PUT /objects/ab?x=1 HTTP/1.1\r\nHost: LocalHost\r\nContent-Length: 12\r\nExpect: 100-Continue\r\n\r\nbody";
        let head = head(text).unwrap().unwrap();
        assert_eq!((head.method, head.path, head.query), (Method::Put, "/objects/ab", "x=1"));
        assert_eq!((head.length, head.expects_continue, &text[head.size..]), (Some(12), true, "body"));
        for cut in 0..head.size {
            assert_eq!(Head::parse(&text.as_bytes()[..cut], HostRule::Local), Ok(None), "{cut}");
        }
    }

    #[test]
    fn accepts_what_simple_clients_send() {
        for (text, method) in [
            ("GET / HTTP/1.0\r\n\r\n", Method::Get),
            ("POST /signal HTTP/1.1\nHost:\n\n", Method::Post),
            ("DELETE /x HTTP/1.1\r\nhost: localhost\r\nConnection: keep-alive\r\n\r\n", Method::Delete),
            ("BREW /x HTTP/1.1\r\n\r\n", Method::Other),
            ("\r\nHEAD /x HTTP/1.1\r\nX-Odd: \u{e9}\r\n\r\n", Method::Head),
        ] {
            let head = head(text).unwrap().unwrap();
            assert_eq!((head.method, head.length, head.expects_continue), (method, None, false), "{text}");
        }
        let text = "GET / HTTP/1.1\r\nHost: 10.0.0.1:12368\r\nAuthorization: Bearer t\r\n\r\n";
        let head = Head::parse(text.as_bytes(), HostRule::Any).unwrap().unwrap();
        assert_eq!((head.authorization, head.host), (Some("Bearer t"), Some("10.0.0.1:12368")));
    }

    #[test]
    fn refuses_with_a_code() {
        let of = |header: &str| format!("PUT /x HTTP/1.1\r\n{header}\r\n\r\n");
        for (text, code) in [
            (of("Transfer-Encoding: chunked"), Code::LengthRequired),
            (of("Transfer-Encoding: identity\r\nContent-Length: 1"), Code::LengthRequired),
            (of("Content-Length: 1\r\nContent-Length: 1"), Code::RequestInvalid),
            (of("Content-Length: 1, 1"), Code::RequestInvalid),
            (of("Content-Length: +1"), Code::RequestInvalid),
            (of("Content-Length: -1"), Code::RequestInvalid),
            (of("Content-Length:"), Code::RequestInvalid),
            (of("Content-Length: 0x1"), Code::RequestInvalid),
            (of("Content-Length: 18446744073709551616"), Code::RequestInvalid),
            (of("Expect: tea"), Code::RequestInvalid),
            (of("Host: localhost\r\nHost: localhost"), Code::RequestInvalid),
            (of("Origin: null\r\nOrigin: null"), Code::RequestInvalid),
            (of("Authorization: a\r\nAuthorization: a"), Code::RequestInvalid),
            (of("Host: example.org"), Code::HostForbidden),
            (of("Host: localhost:80"), Code::HostForbidden),
            (of("Bad Header: x"), Code::RequestInvalid),
            (of("X: a\r\n folded"), Code::RequestInvalid),
            (of("X: \0"), Code::RequestInvalid),
            ("GET http://localhost/x HTTP/1.1\r\n\r\n".into(), Code::RequestInvalid),
            ("OPTIONS * HTTP/1.1\r\n\r\n".into(), Code::RequestInvalid),
            ("GET /x HTTP/2.0\r\n\r\n".into(), Code::RequestInvalid),
            ("GET /x\r\n\r\n".into(), Code::RequestInvalid),
            ("\u{16}\u{3}\u{1}".into(), Code::RequestInvalid),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HTTP_HEAD_MAX)), Code::HeadTooLarge),
            (of(&"A: b\r\n".repeat(HTTP_HEADERS_MAX + 1)), Code::HeadTooLarge),
        ] {
            assert_eq!(head(&text), Err(code), "{text}");
        }
        assert!(Head::parse(of("Host: example.org").as_bytes(), HostRule::Any).is_ok());
        let fits = of(&format!("A: {}", "x".repeat(HTTP_HEAD_MAX - 24)));
        assert_eq!(fits.len(), HTTP_HEAD_MAX);
        assert!(head(&fits).unwrap().is_some());
        assert_eq!(head(&fits[..HTTP_HEAD_MAX - 1]), Ok(None));
    }

    #[test]
    fn answers_are_read_back() {
        let mut text = String::new();
        write_head(&mut text, 503, media::JSON, Some(2), Some(120)).unwrap();
        assert!(text.contains("\r\nRetry-After: 120\r\n") && text.contains("\r\nConnection: close\r\n"));
        text += "{}";
        let reply = Reply::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((reply.status, reply.length, reply.chunked, &text[reply.size..]), (503, Some(2), false, "{}"));
        for cut in 0..reply.size {
            assert_eq!(Reply::parse(&text.as_bytes()[..cut]), Ok(None));
        }
        let open = Reply::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert_eq!((open.length, open.chunked), (None, true));
        assert_eq!(Reply::parse(CONTINUE.as_bytes()).unwrap().unwrap().status, 100);
        assert!(Reply::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n").is_err());
        assert!(Reply::parse(b"nonsense\r\n\r\n").is_err());
        for code in Code::ALL {
            assert_ne!(reason(code.http()), "Status", "{code}");
        }
    }

    #[test]
    fn refusals_are_json() {
        let mut text = String::new();
        let refusal = Refusal { at: 7, ..Refusal::key(Code::ObjectMissing, "web/\"x\"") };
        write_refusal(&mut text, &refusal).unwrap();
        let expected =
            r#"{"Error":"an object of the revision is not on the device","code":"SB1201","key":"web/\"x\"","at":7}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn changing_any_byte_is_accepted_or_refused_and_never_panics() {
        let request = b"PUT /objects/ab?x=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\nbody";
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbody";
        for byte in 0..=255u8 {
            for at in 0..request.len() {
                let mut copy = *request;
                copy[at] = byte;
                if let Ok(Some(head)) = Head::parse(&copy, HostRule::Any) {
                    assert!(head.path.starts_with('/') && head.size <= copy.len());
                }
            }
            for at in 0..reply.len() {
                let mut copy = *reply;
                copy[at] = byte;
                let _ = Reply::parse(&copy);
            }
        }
    }
}
