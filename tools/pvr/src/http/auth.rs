//! Tokens: which one a server asks for, where it is kept, how a new one is had, and who never gets to see it.
//!
//! A hub answers 401 (or 403) with a challenge that names a realm and the address where one logs in. The tokens of
//! `auth.json` are kept under these two, as the original keeps them; a token that is not taken any more is exchanged
//! for a new one, and for reading there is a token for nobody in particular.
//!
//! Invariants: a token goes only to the service (scheme, host and port) where one logs in for it; where the user named
//! both with `--baseurl` and `--repo-baseurl`, also from one to the other, but never out of TLS. A challenge from
//! elsewhere gets none, whatever realm it names: another port of a host is another owner's, and an address without TLS
//! is whoever stands on the way. The token for nobody is never stored: it would be found, and refused, by the next
//! `pvr post`.
//! Not done: asking for a name and a password.

use super::{Client, Content, Request, address};
use crate::{
    canonical,
    error::{Error, Result},
    files,
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    sync::Mutex,
};
use ureq::http::{HeaderMap, Uri};

/// Who logs in to read what everybody may.
const NOBODY: &str = "prn:pantahub.com:auth:/anon";
/// What nobody may do.
const NOBODYS_SCOPE: &str = "devices.readonly objects.readonly trails.readonly";

/// What a request may show of the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nothing: the address itself is the permission.
    None,
    /// A token, that of nobody if there is no other.
    Read,
    /// The user's token.
    Write,
}

/// What a server asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    /// Where one logs in.
    endpoint: String,
    /// The token was looked at and is not good enough.
    failed: bool,
}

impl Challenge {
    /// Reads the first header that can be understood; leniently, as hubs write them in more than one way.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        headers.get_all("www-authenticate").iter().find_map(|value| Self::parse(value.to_str().ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.trim().split_once(char::is_whitespace)?;
        if !["jwt", "bearer"].contains(&kind.to_ascii_lowercase().as_str()) {
            return None;
        }
        let members = members(rest);
        let member = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let endpoint = member("ph-aeps")?.split(',').next()?.trim().trim_end_matches('/');
        let realm = member("realm")?;
        Some(Self { realm: realm.to_owned(), endpoint: endpoint.to_owned(), failed: member("error").is_some() })
    }

    fn key(&self) -> String {
        format!("{} realm={}", self.endpoint, self.realm)
    }
}

/// `name=value` members; a value may be in quotes, and commas, blanks and line ends may stand between them.
fn members(text: &str) -> Vec<(String, String)> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.rsplit([',', ' ', '\t', '\n', '\r']).find(|word| !word.is_empty()).unwrap_or_default();
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_at(after.find([',', ' ', '\t', '\n', '\r']).unwrap_or(after.len())),
        };
        found.push((name.to_ascii_lowercase(), value.to_owned()));
        rest = next;
    }
    found
}

/// The ways to a token, in the order in which they are tried for one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Stored,
    Refreshed,
    Nobody,
    None,
}

/// The tokens of one run.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// By origin: what was accepted there, or was given for it.
    held: Mutex<HashMap<String, String>>,
    /// One conversation about tokens at a time: several transfers are refused at once.
    talking: Mutex<()>,
}

impl Tokens {
    /// What a request to `uri` carries at first.
    pub(super) fn of(&self, client: &Client, uri: &Uri, access: Access) -> Option<String> {
        if access == Access::None {
            return None;
        }
        if let Some(token) = client.options.access_token.as_ref() {
            return client.is_trusted(uri).then(|| token.clone());
        }
        lock(&self.held).get(&address::origin(uri)).cloned()
    }

    /// The next token to try after `used` was refused; nothing if there is none.
    pub(super) fn next(
        &self,
        client: &Client,
        uri: &Uri,
        challenge: &Challenge,
        used: Option<&str>,
        access: Access,
        way: &mut Way,
    ) -> Result<Option<String>> {
        let _talking = lock(&self.talking);
        // Another transfer may have found one meanwhile.
        if let Some(token) = lock(&self.held).get(&address::origin(uri)).filter(|held| used != Some(held.as_str())) {
            return Ok(Some(token.clone()));
        }
        let endpoint = address::parse(&challenge.endpoint).map_err(|e| Error::remote(e.message))?;
        if !client.options.is_one_hub(uri, &endpoint) {
            let text =
                format!("{} wants a login at {}, which is another place", address::origin(uri), challenge.endpoint);
            return Err(Error::remote(text).hint("if it belongs there, name both: --repo-baseurl and --baseurl"));
        }
        let stored = Store::of(client).token(&challenge.key());
        while *way != Way::None {
            let token = match std::mem::replace(way, way.then()) {
                Way::Stored => stored.as_ref().map(|s| s.access.clone()).filter(|_| !challenge.failed),
                Way::Refreshed => match &stored {
                    Some(stored) => refresh(client, challenge, &stored.refresh)?,
                    None => None,
                },
                Way::Nobody if access == Access::Read => login_as_nobody(client, challenge)?,
                Way::Nobody | Way::None => None,
            };
            if let Some(token) = token.filter(|token| used != Some(token.as_str())) {
                lock(&self.held).insert(address::origin(uri), token.clone());
                return Ok(Some(token));
            }
        }
        Ok(None)
    }
}

impl Way {
    fn then(self) -> Self {
        match self {
            Self::Stored => Self::Refreshed,
            Self::Refreshed => Self::Nobody,
            Self::Nobody | Self::None => Self::None,
        }
    }
}

/// A lock whose holder panicked holds nothing half-done here.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Exchanges a token. Nothing if the server does not want it any more.
fn refresh(client: &Client, challenge: &Challenge, token: &str) -> Result<Option<String>> {
    let url = format!("{}/login", challenge.endpoint);
    let body = json!({"token": token}).to_string();
    let request = Request {
        content: Content::Json(body.as_bytes()),
        bearer: Some(token),
        ..Request::new("GET", &url, Access::None)
    };
    let token = token_of(&client.call(&request)?);
    if let Some(token) = &token {
        Store::of(client).put(&challenge.key(), token)?;
    }
    Ok(token)
}

fn login_as_nobody(client: &Client, challenge: &Challenge) -> Result<Option<String>> {
    let url = format!("{}/login", challenge.endpoint);
    let body = json!({"username": NOBODY, "password": NOBODY, "scope": NOBODYS_SCOPE}).to_string();
    let request = Request { content: Content::Json(body.as_bytes()), ..Request::new("POST", &url, Access::None) };
    Ok(token_of(&client.call(&request)?))
}

fn token_of(answer: &super::Answer) -> Option<String> {
    let value: Value = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200)?;
    value["token"].as_str().filter(|token| is_token(token)).map(str::to_owned)
}

/// What can stand in a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `auth.json`: the user's tokens, in the original's form.
struct Store {
    path: PathBuf,
}

/// One entry of it.
struct Stored {
    access: String,
    refresh: String,
}

impl Store {
    fn of(client: &Client) -> Self {
        Self { path: client.options.config_dir.join("auth.json") }
    }

    fn read(&self) -> Map<String, Value> {
        let value = fs::read(&self.path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(Value::Object(document)) = value { document } else { Map::new() }
    }

    /// The token for a login place. A file that cannot be read holds none; it is not overwritten for that.
    fn token(&self, key: &str) -> Option<Stored> {
        let document = self.read();
        let entry = document.get("tokens")?.get(key)?;
        let access = entry["access-token"].as_str().filter(|token| is_token(token))?;
        let refresh = entry["refresh-token"].as_str().filter(|token| is_token(token)).unwrap_or(access);
        Some(Stored { access: access.to_owned(), refresh: refresh.to_owned() })
    }

    /// Replaces the token of an entry that is there; everything else stays as it is.
    fn put(&self, key: &str, token: &str) -> Result<()> {
        let folder = File::open(self.path.parent().unwrap_or(&self.path));
        // Without a lock two runs could lose each other's tokens, which costs a login and nothing else.
        let _lock = folder.ok().filter(|folder| folder.lock().is_ok());
        let mut document = self.read();
        if let Some(entry) = document.get_mut("tokens").and_then(|tokens| tokens.get_mut(key)) {
            entry["access-token"] = json!(token);
            entry["refresh-token"] = json!(token);
            let text = canonical::write(&Value::Object(document), canonical::CHECKOUT)?;
            files::write_atomic(&self.path, 0o600, text.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, String, bool)> {
        Challenge::parse(text).map(|c| (c.realm, c.endpoint, c.failed))
    }

    #[test]
    fn challenges_as_hubs_write_them() {
        let good = |failed| Some(("pantahub services".to_owned(), "http://h/auth".to_owned(), failed));
        assert_eq!(parsed(r#"JWT realm="pantahub services", ph-aeps="http://h/auth""#), good(false));
        assert_eq!(parsed(r#"Bearer Realm="pantahub services",ph-aeps=http://h/auth/"#), good(false));
        let multi = "Bearer Realm=\"pantahub services\",\n\t\tph-aeps=\"http://h/auth,http://other/auth\",
            scope=\"a b=c, d\",\terror=\"insufficient_scope\"";
        assert_eq!(parsed(multi), good(true));
    }

    #[test]
    fn what_is_no_challenge() {
        for text in
            ["", "JWT", "Basic realm=\"x\", ph-aeps=\"y\"", "JWT realm=\"x\"", "Bearer ph-aeps=\"x\"", "JWT ===,="]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
        // An open quote ends with the header.
        assert_eq!(parsed("JWT ph-aeps=http://h, realm=\"x"), Some(("x".into(), "http://h".into(), false)));
    }
}
