//! The page at `/`: what runs, how it fares, how the last update ended, and the way back.
//!
//! Three files in the binary. Nothing is fetched from elsewhere, and the browser is told to allow nothing else. The page
//! knows no more than a client of the endpoint: it asks `status`, with the token that its reader gives it.

use std::fmt::Write as _;

/// One file.
#[derive(Debug)]
pub(super) struct File {
    media: &'static str,
    /// Its content.
    pub(super) text: &'static str,
}

/// The page.
pub(super) const INDEX: File = File { media: "text/html; charset=utf-8", text: include_str!("page/index.html") };
/// Its looks.
pub(super) const STYLE: File = File { media: "text/css; charset=utf-8", text: include_str!("page/page.css") };
/// Its doings.
pub(super) const SCRIPT: File = File { media: "text/javascript; charset=utf-8", text: include_str!("page/page.js") };

/// What a browser may do with it: load these files from here, ask here, be framed by nobody.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const _: () = assert!(INDEX.text.len() + STYLE.text.len() + SCRIPT.text.len() < 12 * 1024, "small");

/// The head of its answer.
pub(super) fn head(file: &File) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: {POLICY}\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n\r\n",
        file.media,
        file.text.len()
    );
    text
}

/// The answer to a browser that asks for the page in plain HTTP where only TLS is served.
pub(super) fn redirect(origin: &str) -> String {
    format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {origin}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
