//! Which proxy a request goes through: none, the one that was given, or what the environment says.

use super::address;
use crate::error::{Error, Result};
use ureq::{Proxy, ProxyProtocol, http::Uri};

/// The proxy for requests with this scheme; nothing for a direct connection. `choice` is `system`, `no` or an address.
pub(super) fn of(choice: &str, scheme: &str) -> Result<Option<Proxy>> {
    match choice {
        "no" | "none" | "" => Ok(None),
        "system" => from_environment(scheme),
        url => Proxy::new(url).map(Some).map_err(|e| wrong(url, &e).hint("--http-proxy http://HOST:PORT")),
    }
}

/// `http_proxy` for http, `https_proxy` for https, `all_proxy` for both; not for what `no_proxy` lists.
fn from_environment(scheme: &str) -> Result<Option<Proxy>> {
    let names = [format!("{scheme}_proxy"), "all_proxy".into()];
    let Some((name, url)) = names.iter().find_map(|name| variable(name).map(|url| (name, url))) else {
        return Ok(None);
    };
    let whole = if url.contains("://") { url.clone() } else { format!("http://{url}") };
    let given = Proxy::new(&whole).map_err(|e| wrong(&url, &e).hint(format!("it comes from {name}")))?;
    let Some(exceptions) = variable("no_proxy") else { return Ok(Some(given)) };
    let protocol = ProxyProtocol::try_from(given.uri().scheme_str().unwrap_or("http"));
    let mut builder = Proxy::builder(protocol.map_err(|e| wrong(&url, &e))?).host(given.host()).port(given.port());
    if let Some(name) = given.username() {
        builder = builder.username(name);
    }
    if let Some(password) = given.password() {
        builder = builder.password(password);
    }
    for exception in exceptions.split(',').map(str::trim).filter(|exception| !exception.is_empty()) {
        builder = builder.no_proxy(exception);
    }
    builder.build().map(Some).map_err(|e| wrong(&url, &e))
}

/// Environment variables of this kind are written in small or in capital letters.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).or_else(|_| std::env::var(name.to_uppercase()));
    value.ok().filter(|value| !value.is_empty())
}

/// Whether the system's proxy is not asked: it cannot reach what is on this machine or next to it.
pub(super) fn is_direct(choice: &str, uri: &Uri) -> bool {
    choice == "system" && address::is_near(uri)
}

fn wrong(url: &str, e: &impl std::fmt::Display) -> Error {
    Error::usage(format!("{url} is not the address of a proxy: {e}"))
}
