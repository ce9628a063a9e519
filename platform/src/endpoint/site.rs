//! Whose page a browser asks for: the two checks that keep other sites away from the device.
//!
//! A foreign name in `Host` is how a site that the owner visits would make the browser believe that the device is that
//! site (DNS rebinding); a foreign `Origin` is how it would make the browser change the device for it (CSRF). Programs that
//! are no browser send neither, and are judged by their token alone.
//! Not here: tokens (`house`), and what is asked for (`route`).

use runtime::{
    fault::{Code, Refusal},
    http::{Head, Method},
};
use std::net::{IpAddr, Ipv6Addr};

/// Refuses a request that a foreign page or a foreign name made. `names`: what the owner calls the device, by commas.
pub(super) fn check(head: &Head<'_>, names: &str) -> Result<(), Refusal> {
    let host = head.host.unwrap_or("");
    if !host.is_empty() && !is_ours(host, names) {
        return Err(Refusal::key(Code::HostUnknown, host));
    }
    if matches!(head.method, Method::Get | Method::Head) {
        return Ok(()); // nothing changes, and without leave from us no other page can read the answer
    }
    if head.site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(Code::OriginForbidden.into());
    }
    match head.origin {
        Some(origin) if !is_origin_of(origin, host) => Err(Refusal::key(Code::OriginForbidden, origin)),
        _ => Ok(()),
    }
}

/// Whether a `Host` names this device: by an address, or by a name that no stranger can register.
fn is_ours(host: &str, names: &str) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Some(inner) = name.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let local = name.len() > 6 && name.is_char_boundary(name.len() - 6);
    name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
        || name.eq_ignore_ascii_case("localhost")
        || local && name[name.len() - 6..].eq_ignore_ascii_case(".local")
        || names.split(',').any(|known| !known.is_empty() && name.eq_ignore_ascii_case(known.trim()))
}

/// The name of `name:port`; `None` if what follows the colon is no port.
fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        Some((name, _)) if name.starts_with('[') && !name.ends_with(']') => Some(host), // a colon of the address
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => Some(name),
        Some(_) if host.ends_with(']') => Some(host),
        Some(_) => None,
        None => Some(host),
    }
}

fn is_origin_of(origin: &str, host: &str) -> bool {
    let named = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
    !host.is_empty() && named.is_some_and(|named| named.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::http::HostRule;

    fn judged(method: &str, headers: &str) -> Result<(), Code> {
        let text = format!("{method} / HTTP/1.1\r\n{headers}\r\n");
        let head = Head::parse(text.as_bytes(), HostRule::Any).unwrap().unwrap();
        check(&head, "dev,device.example.org").map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_device_is_called_by_its_addresses_and_names() {
        for host in [
            "10.0.0.1",
            "127.0.0.1:12368",
            "[::1]",
            "[fe80::1]:80",
            "localhost",
            "LOCALHOST:1",
            "box.local",
            "Box.LOCAL.:80",
            "dev:12368",
            "device.example.org",
            "",
        ] {
            assert_eq!(judged("GET", &format!("Host: {host}\r\n")), Ok(()), "{host}");
        }
        assert_eq!(judged("GET", ""), Ok(()));
        for host in [
            "evil.example",
            "local",
            ".local",
            "10.0.0.1.evil.example",
            "localhost.evil",
            "evil:80",
            "[::1",
            "::1",
            "[x]:80",
            "10.0.0.1:x",
            "dev:",
            "[evil.local]",
            "a.local.evil",
        ] {
            assert_eq!(judged("GET", &format!("Host: {host}\r\n")), Err(Code::HostUnknown), "{host}");
        }
    }

    #[test]
    fn no_other_page_changes_anything() {
        for (headers, verdict) in [
            ("", Ok(())),
            ("Origin: http://10.0.0.1:12368\r\n", Ok(())),
            ("Origin: https://10.0.0.1:12368\r\nSec-Fetch-Site: same-origin\r\n", Ok(())),
            ("Sec-Fetch-Site: none\r\n", Ok(())),
            ("Origin: http://10.0.0.1\r\n", Err(Code::OriginForbidden)),
            ("Origin: http://evil.example\r\n", Err(Code::OriginForbidden)),
            ("Origin: null\r\n", Err(Code::OriginForbidden)),
            ("Origin: \u{fc}\r\n", Err(Code::OriginForbidden)),
            ("Sec-Fetch-Site: cross-site\r\n", Err(Code::OriginForbidden)),
            ("Sec-Fetch-Site: same-site\r\n", Err(Code::OriginForbidden)),
        ] {
            let headers = format!("Host: 10.0.0.1:12368\r\n{headers}");
            for method in ["POST", "PUT", "DELETE", "BREW"] {
                assert_eq!(judged(method, &headers), verdict, "{method} {headers}");
            }
            assert_eq!(judged("GET", &headers), Ok(()), "{headers}");
        }
    }
}
