//! The house rules: who the device is, whom it knows, and who is let in.
//!
//! Invariants: a token is believed only when its hash is kept, and given only when it is; of a token that could not be kept
//! nothing remains. Until it is known what was kept, nobody is let in who needs to be known, and nothing is kept: it would
//! take the place of what is there. Nothing that a client says is believed because of where it comes from.
//! Fault model: what was kept may be damaged, which is a new beginning, or out of reach, which is not: it is asked for
//! again until it comes, and meanwhile the device has a name for this boot, no key, and knows nobody.
//! Not here: pages of other sites (`site`), codes (`pairing`), keeping (the keeper, through PID 1).

use super::{
    memory::{Memory, NAME_MAX, Token},
    pairing::{Pairing, fill, same},
    tls,
};
use crate::config::Access;
use log::{info, warn};
use runtime::{
    fault::{Code, Refusal},
    json,
    limits::TOKENS_MAX,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

/// Wrong tokens in `WINDOW` that are answered as such; beyond, they are asked to wait.
const WRONG_MAX: u32 = 20;
/// Time after which wrong tokens are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// Pause before it is asked again what was kept.
pub(super) const RECALL_PAUSE: Duration = Duration::from_secs(30);

/// Who waits until something is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// The device itself: its key.
    Itself,
    /// The client of this number.
    Client(u64),
    /// The client of the control socket.
    Control,
}

/// Whether it is known what was kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Recall {
    /// It is to be asked then.
    Due(Instant),
    /// It was asked.
    Asked,
    /// It is known.
    Known,
}

/// A change of what is kept that is under way.
struct Change {
    asker: Asker,
    before: Memory,
    sent: bool,
}

/// All of it.
pub(super) struct House {
    /// Whom the policy lets in.
    pub(super) access: Access,
    /// What the owner calls the device.
    pub(super) names: String,
    /// Whether codes are being shown.
    pub(super) pairing: Pairing,
    memory: Memory,
    server: Option<tls::Server>,
    change: Option<Change>,
    recall: Recall,
    /// It was said who the device is, if only for this boot.
    begun: bool,
    wrong: u32,
    wrong_until: Option<Instant>,
}

impl House {
    /// Before it is known what was kept.
    pub(super) fn new(access: Access, names: &str) -> Self {
        Self {
            access,
            names: names.into(),
            pairing: Pairing::default(),
            memory: Memory::default(),
            server: None,
            change: None,
            recall: Recall::Due(Instant::now()),
            begun: false,
            wrong: 0,
            wrong_until: None,
        }
    }

    /// When it is to be asked what was kept.
    pub(super) fn recall_at(&self) -> Option<Instant> {
        if let Recall::Due(at) = self.recall { Some(at) } else { None }
    }

    /// Whether it asks what was kept, now and once.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let asks = self.recall_at().is_some_and(|at| now >= at);
        if asks {
            self.recall = Recall::Asked;
        }
        asks
    }

    /// What was kept, or why that cannot be said now.
    pub(super) fn recalled(&mut self, now: Instant, kept: Result<&[u8], Code>) {
        let kept = match kept {
            _ if self.recall != Recall::Asked => return, // nobody asked
            // What cannot be what was written does not become so by being read again.
            Err(Code::StorageDamaged) => &[0],
            Err(code) => return self.unknown(now, code),
            Ok(kept) => kept,
        };
        let found = Memory::decode(kept);
        if found.is_none() && !kept.is_empty() {
            warn!("what was kept of it is damaged: it begins anew, and who was paired must be paired again");
        }
        self.memory = found.unwrap_or_default();
        self.recall = Recall::Known;
        if self.memory.id != [0; 6] && self.memory.key.is_empty() != cfg!(feature = "tls") {
            return self.begin();
        }
        if let Err(code) = self.make_identity() {
            self.unknown(now, code);
        }
    }

    /// It cannot be known who the device is: it goes on as if it were nobody, and asks again later.
    fn unknown(&mut self, now: Instant, code: Code) {
        let pause = RECALL_PAUSE.as_secs();
        warn!("it is not known who the device is and whom it knows: {code} {}; next try in {pause} s", code.text());
        self.recall = Recall::Due(now + RECALL_PAUSE);
        if !self.begun {
            self.memory = Memory::default();
            let _ = fill(&mut self.memory.id); // for this boot
            self.begin();
        }
    }

    fn make_identity(&mut self) -> Result<(), Code> {
        let mut memory = self.memory.clone();
        if memory.id == [0; 6] {
            fill(&mut memory.id)?;
        }
        if cfg!(feature = "tls") {
            (memory.key, memory.certificate) = tls::identity(&name_of(&memory))?;
        }
        self.keep(Asker::Itself, memory)
    }

    /// From now on it can be said who the device is.
    fn begin(&mut self) {
        self.server = tls::Server::new(&self.memory.key, &self.memory.certificate).ok();
        self.begun = true;
        let what = match (self.access, self.transport()) {
            (Access::Open, _) => "OPEN to everybody who reaches it, for development only",
            (Access::Paired, "plain") if cfg!(feature = "tls") => {
                "to nobody: the policy asks for TLS, and it has no key"
            }
            (Access::Paired, "plain") => "to nobody: the policy asks for TLS, which this binary does not have",
            (_, "tls") => "to who was paired, over TLS",
            (_, _) => "to who was paired, in plain HTTP: whoever listens on the way reads the tokens",
        };
        info!("{} is open {what}; {} tokens", self.name(), self.memory.tokens.len());
    }

    /// Whether clients may come.
    pub(super) fn is_known(&self) -> bool {
        self.begun
    }

    /// Whether anything may be kept: not in the place of what could not be read.
    pub(super) fn may_keep(&self) -> Result<(), Code> {
        if self.recall == Recall::Known { Ok(()) } else { Err(Code::StorageIo) }
    }

    /// How the device is called, by itself.
    pub(super) fn name(&self) -> String {
        name_of(&self.memory)
    }

    /// What neighbours know the device by, once that can be said: its name, and `transport`.
    pub(super) fn service(&self) -> Option<(String, &'static str)> {
        self.begun.then(|| (self.name(), self.transport()))
    }

    /// What speaks TLS, if anything does.
    pub(super) fn server(&self) -> Option<&tls::Server> {
        self.server.as_ref()
    }

    /// `tls` or `plain`: the best that a client can have.
    pub(super) fn transport(&self) -> &'static str {
        if self.server.is_some() { "tls" } else { "plain" }
    }

    /// The hash by which clients know the certificate.
    pub(super) fn print(&self) -> Option<[u8; 32]> {
        self.server.is_some().then(|| Sha256::digest(&self.memory.certificate).into())
    }

    /// Whether a request over this transport is answered at all.
    pub(super) fn may_speak(&self, private: bool) -> Result<(), Code> {
        if self.access == Access::Paired && !private { Err(Code::PlainForbidden) } else { Ok(()) }
    }

    /// Whether who says this may do what the control socket allows.
    pub(super) fn admit(&mut self, now: Instant, authorization: Option<&str>) -> Result<(), Code> {
        if self.access == Access::Open {
            return Ok(());
        }
        let token = authorization.and_then(bearer).ok_or(Code::TokenMissing)?;
        if self.recall != Recall::Known {
            return Err(Code::Busy); // it may be one that is known in a while: it is not wrong
        }
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if self.memory.tokens.iter().any(|known| same(&known.hash, &hash)) {
            return Ok(());
        }
        if self.wrong_until.is_none_or(|until| now >= until) {
            (self.wrong, self.wrong_until) = (0, Some(now + WINDOW));
        }
        self.wrong = self.wrong.saturating_add(1);
        match self.wrong.cmp(&WRONG_MAX) {
            std::cmp::Ordering::Less => Err(Code::TokenWrong),
            std::cmp::Ordering::Equal => {
                warn!("{WRONG_MAX} wrong tokens within a minute");
                Err(Code::TooManyTries)
            }
            std::cmp::Ordering::Greater => Err(Code::TooManyTries),
        }
    }

    /// A client redeems a code: what it is told when the token is kept.
    pub(super) fn pair(&mut self, now: Instant, client: u64, body: &[u8]) -> Result<String, Refusal> {
        let invalid = |at| Refusal::at(Code::CommandInvalid, at);
        let document = json::Value::parse(body).and_then(|value| value.object()).map_err(|fault| invalid(fault.at))?;
        let text = |key| document.text::<64>(key).map_err(|wrong| wrong.refuse(Code::CommandInvalid, key));
        let secret = text("secret")?.ok_or(Refusal::key(Code::CommandInvalid, "secret"))?;
        let name = text("name")?.map(|name| clean(name.as_str())).unwrap_or_default();
        self.may_keep()?;
        if self.change.is_some() {
            return Err(Code::Busy.into());
        }
        if self.memory.tokens.len() >= TOKENS_MAX {
            return Err(Code::PairingFull.into());
        }
        self.pairing.redeem(now, secret.as_str())?;
        let (mut id, mut token) = ([0; 4], [0; 32]);
        fill(&mut id)?;
        fill(&mut token)?;
        let (id_text, token) = (hex(&id), hex(&token));
        let mut memory = self.memory.clone();
        memory.tokens.push(Token { id, hash: Sha256::digest(token.as_bytes()).into(), name });
        self.keep(Asker::Client(client), memory)?;
        Ok(format!("{{\"token\":\"{token}\",\"id\":\"{id_text}\",\"device\":\"{}\"}}", self.name()))
    }

    /// Takes a token back, or all of them.
    pub(super) fn revoke(&mut self, which: &str) -> Result<(), Refusal> {
        let mut memory = self.memory.clone();
        memory.tokens.retain(|token| which != "all" && hex(&token.id) != which);
        if which != "all" && memory.tokens.len() == self.memory.tokens.len() {
            return Err(Refusal::key(Code::TokenWrong, which));
        }
        self.keep(Asker::Control, memory).map_err(Refusal::from)
    }

    fn keep(&mut self, asker: Asker, memory: Memory) -> Result<(), Code> {
        self.may_keep()?;
        if self.change.is_some() {
            return Err(Code::Busy);
        }
        if memory.encode().is_none() {
            return Err(Code::PairingFull);
        }
        let before = std::mem::replace(&mut self.memory, memory);
        self.change = Some(Change { asker, before, sent: false });
        Ok(())
    }

    /// What is to be kept, once.
    pub(super) fn unkept(&mut self) -> Option<Vec<u8>> {
        let change = self.change.as_mut().filter(|change| !change.sent)?;
        change.sent = true;
        self.memory.encode()
    }

    /// How that ended: who waits for it, if anybody does.
    pub(super) fn kept(&mut self, now: Instant, outcome: Result<(), Code>) -> Option<Asker> {
        let Change { asker, before, .. } = self.change.take_if(|change| change.sent)?;
        match outcome {
            Ok(()) if asker == Asker::Itself => self.begin(),
            Ok(()) => info!("{} tokens are good", self.memory.tokens.len()),
            Err(code) => {
                warn!("it cannot be kept: {code} {}", code.text());
                self.memory = before;
                if asker == Asker::Itself {
                    self.unknown(now, code);
                }
            }
        }
        Some(asker)
    }

    /// For people and programs on the control socket.
    pub(super) fn write(&self, now: Instant, address: &str) -> String {
        let mut text = String::new();
        let mut out = json::Writer::new(&mut text);
        // writing into a string does not fail
        let _ = (|| {
            out.begin_object()?;
            out.text_member("name", &self.name())?;
            out.text_member("address", address)?;
            out.text_member("access", self.access.word())?;
            out.text_member("transport", self.transport())?;
            if let Some(print) = self.print() {
                out.text_member("certificate_sha256", &hex(&print))?;
            }
            out.key("pairing")?;
            out.bool(self.pairing.is_open(now))?;
            out.key("tokens")?;
            out.begin_array()?;
            for token in &self.memory.tokens {
                out.begin_object()?;
                out.text_member("id", &hex(&token.id))?;
                out.text_member("name", &token.name)?;
                out.end_object()?;
            }
            out.end_array()?;
            out.end_object()
        })();
        text
    }
}

fn name_of(memory: &Memory) -> String {
    format!("switchback-{}", hex(&memory.id))
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &str) -> Option<&str> {
    let (kind, token) = value.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// What a client calls itself, fit to be shown.
fn clean(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        out.push(c);
    }
    out
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
