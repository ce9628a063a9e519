//! What the endpoint has kept for it: who the device is (name, key, certificate) and whom it knows (hashes of tokens).
//!
//! One small document, replaced as a whole by the keeper. Version, then fields of tag, length and bytes. A newer release
//! raises the version and adds fields; an older one reads what it knows of them, and keeps the rest as it is.
//! Invariants: `decode` is total; what is damaged is nothing, never a part. A token itself is not kept anywhere.

use runtime::limits::{ENDPOINT_MEMORY_MAX as MEMORY_MAX, TOKENS_MAX};

/// Bytes of a token's name.
pub(super) const NAME_MAX: usize = 24;
/// First byte of the document: what this release writes, unless a newer one wrote it before.
const VERSION: u8 = 1;
const ID: u8 = 1;
const KEY: u8 = 2;
const CERTIFICATE: u8 = 3;
const TOKEN: u8 = 4;

/// Someone who was paired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    /// How people name it to take it back.
    pub(super) id: [u8; 4],
    /// SHA-256 of the token.
    pub(super) hash: [u8; 32],
    /// What its owner calls himself.
    pub(super) name: String,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    /// The device's own name, made once.
    pub(super) id: [u8; 6],
    /// PKCS#8; empty without TLS.
    pub(super) key: Vec<u8>,
    /// DER; empty without TLS.
    pub(super) certificate: Vec<u8>,
    /// Whom it knows.
    pub(super) tokens: Vec<Token>,
    /// What only a newer release knows.
    newer: Newer,
}

/// The version and the fields of a newer release, as they were.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Newer {
    version: u8,
    fields: Vec<u8>,
}

impl Memory {
    /// As it is kept; `None` if it is too large.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![self.newer.version.max(VERSION)];
        let mut field = |tag: u8, parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            out.push(tag);
            out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        field(ID, &[&self.id]);
        field(KEY, &[&self.key]);
        field(CERTIFICATE, &[&self.certificate]);
        for token in &self.tokens {
            field(TOKEN, &[&token.id, &token.hash, token.name.as_bytes()]);
        }
        out.extend_from_slice(&self.newer.fields);
        (out.len() <= MEMORY_MAX).then_some(out)
    }

    /// From what was kept; `None` if it is damaged or was never written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first().filter(|(version, _)| **version >= VERSION)?;
        let mut memory = Self { newer: Newer { version, fields: vec![] }, ..Self::default() };
        let mut named = false;
        while let Some((&tag, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk::<2>()?;
            let (value, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
            let field = &rest[..rest.len() - after.len()];
            rest = after;
            match tag {
                ID => {
                    memory.id = value.try_into().ok()?;
                    named = true;
                }
                KEY => memory.key = value.into(),
                CERTIFICATE => memory.certificate = value.into(),
                TOKEN if memory.tokens.len() < TOKENS_MAX => memory.tokens.push(Token::decode(value)?),
                TOKEN => return None,
                _ => memory.newer.fields.extend_from_slice(field),
            }
        }
        named.then_some(memory)
    }
}

impl Token {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<4>()?;
        let (hash, name) = rest.split_first_chunk::<32>()?;
        let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= NAME_MAX)?;
        Some(Self { id: *id, hash: *hash, name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Memory {
        let token = |n: usize| Token { id: [n as u8; 4], hash: [n as u8; 32], name: "x".repeat(NAME_MAX) };
        Memory {
            id: [7; 6],
            key: vec![1; 200],
            certificate: vec![2; 500],
            tokens: (0..TOKENS_MAX).map(token).collect(),
            newer: Newer { version: VERSION, fields: vec![] },
        }
    }

    #[test]
    fn the_most_that_can_be_known_fits_and_comes_back() {
        let bytes = full().encode().unwrap();
        assert_eq!(Memory::decode(&bytes), Some(full()));
        assert_eq!(Memory { key: vec![0; MEMORY_MAX], ..full() }.encode(), None);
    }

    /// It is read as far as it is known, and nothing of the rest is lost when it is kept again.
    #[test]
    fn what_a_newer_release_kept_is_still_there_after_a_change() {
        let mut newer = full().encode().unwrap();
        newer[0] = 7;
        newer.extend_from_slice(&[99, 2, 0, 1, 2, 98, 0, 0]);
        let mut memory = Memory::decode(&newer).unwrap();
        assert_eq!((memory.id, &memory.tokens), (full().id, &full().tokens));
        assert_eq!(memory.encode(), Some(newer.clone()));
        memory.tokens.pop();
        let kept = memory.encode().unwrap();
        assert!(kept[0] == 7 && kept.ends_with(&[99, 2, 0, 1, 2, 98, 0, 0]) && kept.len() < newer.len());
        assert_eq!(Memory::decode(&[0, ID, 6, 0, 1, 2, 3, 4, 5, 6]), None, "no release wrote a version 0");
    }

    #[test]
    fn what_is_cut_or_changed_is_nothing_or_whole_fields_and_never_panics() {
        let bytes = full().encode().unwrap();
        for cut in 0..bytes.len() {
            if let Some(memory) = Memory::decode(&bytes[..cut]) {
                assert_eq!(full().tokens[..memory.tokens.len()], memory.tokens, "{cut}");
            }
        }
        for at in 0..bytes.len() {
            for byte in [0, 1, 4, 127, 255] {
                let mut copy = bytes.clone();
                copy[at] = byte;
                let _ = Memory::decode(&copy);
            }
        }
        assert_eq!(Memory::decode(&[]), None);
    }
}
