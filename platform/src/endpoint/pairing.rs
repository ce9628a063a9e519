//! Pairing: the code that is shown on the device, and what of it a client must know.
//!
//! A code is 24 letters and digits: 16 for 80 bits of the certificate's SHA-256, 8 for a secret of 40 bits. Whoever types it
//! has carried both over a way that the network does not see. With the first part the client knows the device before it
//! says anything; with the second the device knows the client. Where there is no TLS the first part is missing.
//! Invariants: a secret is good once, for `VALID`, and for `TRIES` attempts; a new one takes the place of the last.
//! Not here: tokens (`house`), who may have a code shown (the control socket's management).

use runtime::{fault::Code, limits};
use rustix::rand::{GetRandomFlags, getrandom};
use std::time::{Duration, Instant};

/// How long a code can be used.
pub(super) const VALID: Duration = Duration::from_secs(limits::PAIRING_VALID_S);
/// Attempts at one code.
const TRIES: u8 = limits::PAIRING_TRIES_MAX;
/// Bytes of the fingerprint that a code holds.
pub(super) const PRINT: usize = 10;
/// Bytes of the secret.
const SECRET: usize = 5;
/// Digits and letters without those that are mistaken for one another; as many as 5 bits tell apart.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Whether somebody may be paired now.
#[derive(Default)]
pub(super) struct Pairing {
    open: Option<Open>,
}

struct Open {
    secret: [u8; SECRET],
    until: Instant,
    tries: u8,
}

impl Pairing {
    /// Begins; the code to show. `print`: the certificate's hash, if there is one.
    pub(super) fn begin(&mut self, now: Instant, print: Option<&[u8; 32]>) -> Result<String, Code> {
        let mut secret = [0; SECRET];
        fill(&mut secret)?;
        self.open = Some(Open { secret, until: now + VALID, tries: TRIES });
        let shown: Vec<u8> = print.map_or(&[][..], |print| &print[..PRINT]).iter().chain(&secret).copied().collect();
        Ok(grouped(&shown))
    }

    /// Whether a code is being shown.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.open.as_ref().is_some_and(|open| now < open.until)
    }

    /// A client says the secret. Right or used up, it is over.
    pub(super) fn redeem(&mut self, now: Instant, said: &str) -> Result<(), Code> {
        let Some(open) = self.open.as_mut().filter(|open| now < open.until) else {
            self.open = None;
            return Err(Code::PairingClosed);
        };
        let right = read(said).is_some_and(|said| same(&said, &open.secret));
        open.tries -= 1;
        if right || open.tries == 0 {
            self.open = None;
        }
        if right { Ok(()) } else { Err(Code::PairingWrong) }
    }
}

/// Random bytes.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), Code> {
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(count) if count == bytes.len() => Ok(()),
        _ => Err(Code::Internal),
    }
}

/// Whether two byte strings are the same, in a time that does not tell where they differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Five bits a letter, in groups of four.
fn grouped(bytes: &[u8]) -> String {
    let letters = (0..bytes.len() * 8 / 5).map(|index| {
        let bit = index * 5;
        let pair = u16::from_be_bytes([bytes[bit / 8], bytes.get(bit / 8 + 1).copied().unwrap_or(0)]);
        char::from(ALPHABET[usize::from(pair >> (11 - bit % 8)) & 31])
    });
    let mut text = String::new();
    for (index, letter) in letters.enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push('-');
        }
        text.push(letter);
    }
    text
}

/// The secret of what was typed: its last eight letters, however they are grouped; `None` if there are not as many.
fn read(text: &str) -> Option<[u8; SECRET]> {
    let mut value: u64 = 0;
    let mut count = 0;
    for letter in text.bytes().rev().filter(|byte| !matches!(byte, b'-' | b' ')).take(8) {
        let letter = match letter.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        };
        let digit = ALPHABET.iter().position(|known| *known == letter)? as u64;
        value |= digit << (5 * count);
        count += 1;
    }
    let bytes = value.to_be_bytes();
    (count == 8).then(|| [bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_was_written() {
        assert_eq!(grouped(&[0xff; 15]), "ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ");
        assert_eq!(grouped(&[0, 0, 0, 0, 1]), "0000-0001");
        assert_eq!(grouped(&[0x08, 0x42, 0x10, 0x84, 0x21]), "1111-1111");
        for _ in 0..200 {
            let mut secret = [0; SECRET];
            fill(&mut secret).unwrap();
            let shown = grouped(&secret);
            assert_eq!(read(&shown), Some(secret));
            assert_eq!(read(&shown.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l")), Some(secret));
        }
        for wrong in ["", "1234567", "1234-567U", "1234-567\u{e4}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_good_once_for_a_while_and_for_a_few_attempts() {
        let (mut pairing, now) = (Pairing::default(), Instant::now());
        assert_eq!(pairing.redeem(now, "0000-0000"), Err(Code::PairingClosed));
        let code = pairing.begin(now, Some(&[9; 32])).unwrap();
        assert_eq!(code.len(), 29);
        assert_eq!(pairing.redeem(now, &code), Ok(()));
        assert_eq!(pairing.redeem(now, &code), Err(Code::PairingClosed), "once");
        let code = pairing.begin(now, None).unwrap();
        assert_eq!(code.len(), 9);
        assert_eq!(pairing.redeem(now + VALID, &code), Err(Code::PairingClosed), "late");
        let code = pairing.begin(now, None).unwrap();
        for _ in 0..TRIES {
            assert_eq!(pairing.redeem(now, "no"), Err(Code::PairingWrong));
        }
        assert_eq!(pairing.redeem(now, &code), Err(Code::PairingClosed), "too often");
        let first = pairing.begin(now, None).unwrap();
        let second = pairing.begin(now, None).unwrap();
        assert_eq!(pairing.redeem(now, &first), Err(Code::PairingWrong), "the last one counts");
        assert_eq!(pairing.redeem(now, &second), Ok(()));
    }
}
