//! Addresses: what of a URL decides where a request goes, and who may see a token.

use crate::error::{Error, Result};
use std::net::IpAddr;
use ureq::http::Uri;

/// An `http://` or `https://` address with a host, or why it is none.
pub fn parse(text: &str) -> Result<Uri> {
    let wrong = |why: &str| Error::usage(format!("{text} is not an address: {why}"));
    // What stands behind `#` is never sent, and `Uri` does not know it.
    let uri: Uri = text.split('#').next().unwrap_or_default().parse().map_err(|e| wrong(&format!("{e}")))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(wrong("it begins with neither http:// nor https://")),
    }
    if host(&uri).is_empty() {
        return Err(wrong("it names no host"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("names and passwords do not belong into it").hint("use --access-token"));
    }
    Ok(uri)
}

/// The host, without port and in lower case.
pub fn host(uri: &Uri) -> String {
    uri.host().unwrap_or_default().to_ascii_lowercase()
}

/// `scheme://host:port`, the port always named.
pub fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{}:{port}", host(uri))
}

/// Whether both addresses are of the same service: what one of them may know of the user, the other may.
pub fn is_same(one: &Uri, other: &Uri) -> bool {
    origin(one) == origin(other)
}

/// Whether a request that goes from `from` to `to` loses what TLS gave.
pub fn is_downgrade(from: &Uri, to: &Uri) -> bool {
    from.scheme_str() == Some("https") && to.scheme_str() != Some("https")
}

/// Where `target` leads, seen from `base`: an address, or a path with or without a host.
pub fn join(base: &Uri, target: &str) -> Result<Uri> {
    if target.contains("://") {
        return parse(target);
    }
    let scheme = base.scheme_str().unwrap_or("http");
    if let Some(rest) = target.strip_prefix("//") {
        return parse(&format!("{scheme}://{rest}"));
    }
    let root = format!("{scheme}://{}", base.authority().map_or("", |authority| authority.as_str()));
    if target.starts_with('/') {
        return parse(&format!("{root}{target}"));
    }
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    parse(&format!("{root}{folder}/{target}"))
}

/// Whether no proxy can reach it: this machine, its own network, the one next to it.
pub fn is_near(uri: &Uri) -> bool {
    let host = host(uri);
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local"),
    }
}

/// `%41` and the like, decoded where that gives UTF-8.
pub fn decode(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_as_browsers_do() {
        let base = parse("http://h:1/a/b?x").unwrap();
        let joined = |target| join(&base, target).map(|uri| uri.to_string()).unwrap_or_default();
        assert_eq!(joined("/c"), "http://h:1/c");
        assert_eq!(joined("c"), "http://h:1/a/c");
        assert_eq!(joined("//other/c"), "http://other/c");
        assert_eq!(joined("https://other/c"), "https://other/c");
        for wrong in ["ftp://x/", "http://", "file:///etc/passwd", "http://user:secret@h/"] {
            assert!(join(&base, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_and_neighbours() {
        let of = |text: &str| parse(text).unwrap();
        assert_eq!(origin(&of("https://H.example/x")), "https://h.example:443");
        assert_eq!(origin(&of("http://[::1]/x")), "http://[::1]:80");
        assert!(is_downgrade(&of("https://a/"), &of("http://a/")) && !is_downgrade(&of("http://a/"), &of("http://b/")));
        assert!(
            is_same(&of("https://a/x"), &of("https://A:443/y"))
                && is_same(&of("http://[::1]/"), &of("http://[::1]:80/"))
        );
        for other in ["http://a/", "https://a:444/", "https://b/", "https://a.b/"] {
            assert!(!is_same(&of("https://a/"), &of(other)), "{other}");
        }
        for near in ["http://127.0.0.2/", "http://10.1.2.3/", "http://[fe80::1]/", "http://localhost:1/"] {
            assert!(is_near(&of(near)), "{near}");
        }
        assert!(!is_near(&of("http://10.example.com/")) && !is_near(&of("http://8.8.8.8/")));
    }

    #[test]
    fn percent() {
        assert_eq!(decode("_config%2Fapp%23x%"), "_config/app#x%");
        assert_eq!(decode("%ff%zz"), "%ff%zz");
    }
}
