//! What names a state: an address, a device, a device of a hub, a repository's folder, an exported archive; and which
//! parts of it are meant.
//!
//! `192.168.1.7` is a device, `USER/DEVICE` one of the configured hub, what has a scheme is an address, and what
//! exists here is a file or a folder. What follows the first `#` are the parts; they may be percent-encoded.

use crate::{
    error::{Error, Result},
    files,
    http::{Options, address},
    parts::Parts,
};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// Where a device's endpoint is below a bare address.
pub const DEVICE_PATH: &str = "/cgi-bin/pvr";
/// Where a device listens.
const DEVICE_PORT: u16 = 12368;

/// Where a state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address, without a `/` at the end.
    Remote(String),
    /// A folder or a file of this machine.
    Local(PathBuf),
}

/// What the user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub place: Place,
    /// The parts of it that are meant.
    pub parts: Parts,
    /// These parts as text, for verbs that give them another meaning.
    pub fragment: String,
}

impl Reference {
    /// Reads an argument.
    pub fn parse(text: &str, options: &Options) -> Result<Self> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let fragment = address::decode(fragment);
        Ok(Self { place: find(place, options)?, parts: Parts::parse(&fragment)?, fragment })
    }

    /// Reads an argument that must be a device or a trail.
    pub fn remote(text: &str, options: &Options) -> Result<(String, Self)> {
        // A folder with the name of a device does not hide the device.
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let named = named(place, options)?;
        let parsed = match &named {
            Some(url) => Self::parse(&format!("{url}#{fragment}"), options)?,
            None => Self::parse(text, options)?,
        };
        match &parsed.place {
            Place::Remote(url) => Ok((url.clone(), parsed)),
            Place::Local(path) => Err(Error::usage(format!("{} is on this machine, not a device", path.display()))
                .hint("for a device: http://ADDRESS:12368, or its IP address; of a hub: USER/DEVICE")),
        }
    }
}

fn find(place: &str, options: &Options) -> Result<Place> {
    if let Some(url) = address_of(place) {
        return Ok(Place::Remote(url));
    }
    if place.contains("://") {
        address::parse(place)?;
        return Ok(Place::Remote(place.trim_end_matches('/').to_owned()));
    }
    if !place.is_empty() && Path::new(place).exists() {
        return Ok(Place::Local(files::absolute(Path::new(place))));
    }
    match named(place, options)? {
        Some(url) => Ok(Place::Remote(url)),
        None => Err(missing(place)),
    }
}

/// What is named and is nowhere.
pub fn missing(place: &str) -> Error {
    let host = place.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let error = Error::usage(format!("{place} is neither here nor an address"));
    if name != host || name == "localhost" || name.ends_with(".local") {
        return error.hint(format!("if it is a device, write http:// before it: http://{place}"));
    }
    error.hint(
        "a device is http://ADDRESS:12368 or its IP address, one of a hub USER/DEVICE, the rest files and folders",
    )
}

/// A device, by its number.
fn address_of(place: &str) -> Option<String> {
    let of = |socket: SocketAddr| format!("http://{socket}{DEVICE_PATH}");
    let ip = place.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map(|ip| SocketAddr::new(ip, DEVICE_PORT)).or_else(|_| place.parse()).ok().map(of)
}

/// `USER/DEVICE` of the configured hub.
fn named(place: &str, options: &Options) -> Result<Option<String>> {
    let plain = |name: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+%.".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(good)
    };
    match place.split_once('/') {
        Some((user, device)) if plain(user) && plain(device) => {
            address::parse(&options.repo_baseurl)?;
            Ok(Some(format!("{}/{user}/{device}", options.repo_baseurl.trim_end_matches('/'))))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn options() -> Options {
        Options { repo_baseurl: "https://pvr.pantahub.com".into(), ..Options::default() }
    }

    fn parsed(text: &str) -> std::result::Result<(String, String), Kind> {
        match Reference::parse(text, &options()) {
            Ok(Reference { place: Place::Remote(url), fragment, .. }) => Ok((url, fragment)),
            Ok(Reference { place: Place::Local(path), fragment, .. }) => Ok((path.display().to_string(), fragment)),
            Err(e) => Err(e.kind),
        }
    }

    #[test]
    fn what_the_original_reads() {
        let good = |url: &str, parts: &str| Ok((url.to_owned(), parts.to_owned()));
        assert_eq!(parsed("192.168.1.3#hash,some"), good("http://192.168.1.3:12368/cgi-bin/pvr", "hash,some"));
        let hub = "https://pvr.pantahub.com/asacasa/test1234";
        assert_eq!(parsed("asacasa/test1234#something,fun"), good(hub, "something,fun"));
        assert_eq!(parsed("asacasa/test1234"), good(hub, ""));
        assert_eq!(parsed("http://127.0.0.1:12368/"), good("http://127.0.0.1:12368", ""));
        assert_eq!(parsed("https://h/trails/1#_config%2Fapp"), good("https://h/trails/1", "_config/app"));
    }

    #[test]
    fn what_it_does_not_read() {
        let good = |url: &str, parts: &str| Ok((url.to_owned(), parts.to_owned()));
        assert_eq!(parsed("::1"), good("http://[::1]:12368/cgi-bin/pvr", ""));
        assert_eq!(parsed("10.0.0.1:8080"), good("http://10.0.0.1:8080/cgi-bin/pvr", ""));
        assert_eq!(parsed("a/b#_config/app"), good("https://pvr.pantahub.com/a/b", "_config/app"));
        assert_eq!(parsed("a/b#x%23y"), good("https://pvr.pantahub.com/a/b", "x#y"));
    }

    #[test]
    fn what_is_no_reference() {
        for wrong in ["nowhere", "a/b/c", "", "http://", "ftp://x", "../b", "a/", "http://u:p@h/", "a b/c", "x/y#-"] {
            assert_eq!(parsed(wrong), Err(Kind::Usage), "{wrong}");
        }
    }

    #[test]
    fn the_hub_that_is_configured_is_asked() {
        let options = Options { repo_baseurl: "http://hub.local:12367/".into(), ..Options::default() };
        let (url, _) = Reference::remote("user/device#web", &options).unwrap();
        assert_eq!(url, "http://hub.local:12367/user/device");
    }

    #[test]
    fn what_is_here_is_local_but_not_a_device() {
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(parsed(&format!("{here}#web")), Ok((here.to_owned(), "web".into())));
        assert_eq!(Reference::remote(here, &options()).unwrap_err().kind, Kind::Usage);
    }
}
