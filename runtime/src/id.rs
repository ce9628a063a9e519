//! Small names that are `Copy`: what events, actions and tables carry instead of strings.
//!
//! Invariants: a value of these types is valid by construction; there is no way to make a `RevName`
//! that could escape its folder, or an `ObjectId` that is not 32 bytes.

use crate::limits;
use core::fmt;

/// Why a text is not a valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

/// Up to `N` bytes of UTF-8, by value. The bound is part of the type; longer text is `None`, never cut.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// The empty text.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; N] };

    /// `s`, if it fits.
    pub fn new(s: &str) -> Option<Self> {
        const { assert!(N <= u8::MAX as usize) }
        let mut text = Self::EMPTY;
        text.bytes.get_mut(..s.len())?.copy_from_slice(s.as_bytes());
        text.len = s.len() as u8;
        Some(text)
    }

    /// The start of `s`, cut at a character boundary; for messages, never for names.
    pub fn clip(s: &str) -> Self {
        let mut end = s.len().min(N);
        while !s.is_char_boundary(end) {
            end -= 1;
        }
        Self::new(&s[..end]).unwrap_or(Self::EMPTY)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or("")
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl<const N: usize> Eq for Text<N> {}
impl<const N: usize> PartialOrd for Text<N> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<const N: usize> Ord for Text<N> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name of an object: the sha256 of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

impl ObjectId {
    /// From 64 lower-case hex digits, the only form in which an object is named.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut id = [0u8; 32];
        let hex: &[u8; 64] = hex.as_bytes().try_into().ok()?;
        for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(id))
    }

    /// The 64 hex digits, ASCII.
    pub fn hex(&self) -> [u8; 64] {
        let mut out = [0u8; 64];
        for (pair, byte) in out.chunks_exact_mut(2).zip(self.0) {
            pair[0] = b"0123456789abcdef"[(byte >> 4) as usize];
            pair[1] = b"0123456789abcdef"[(byte & 15) as usize];
        }
        out
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(core::str::from_utf8(&self.hex()).unwrap_or(""))
    }
}
impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a revision: a decimal number (`0` is the factory revision, others come from a hub)
/// or `locals/<name>`. Safe as a path below `trails/` and as a word of the kernel command line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevName(Text<{ limits::REV_NAME_MAX }>);

impl RevName {
    /// The factory revision.
    pub fn factory() -> Self {
        Self(Text::clip("0"))
    }

    /// Accepts `0`, `[1-9][0-9]{0,9}` and `locals/<name>`, name of 1 to 64 bytes of `[A-Za-z0-9._-]`
    /// that does not start with a dot. Reference: device-formats 2.2.
    pub fn parse(s: &str) -> Result<Self, BadName> {
        let good = match s.strip_prefix("locals/") {
            Some(name) => {
                (1..=limits::LOCAL_NAME_MAX).contains(&name.len())
                    && !name.starts_with('.')
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            }
            None => {
                (1..=10).contains(&s.len())
                    && s.bytes().all(|b| b.is_ascii_digit())
                    && (s == "0" || !s.starts_with('0'))
            }
        };
        if good { Text::new(s).map(Self).ok_or(BadName) } else { Err(BadName) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether this revision was made on the device or posted to it, not sent by a hub.
    pub fn is_local(&self) -> bool {
        self.as_str().starts_with("locals/")
    }
}

impl fmt::Debug for RevName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for RevName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name of a container or a group: 1 to 63 bytes of `[A-Za-z0-9._-]`, not starting with `.`, `_` or `-`
/// (a leading underscore is reserved: `_sigs`, `_config`, `_pv_`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PartName(Text<{ limits::PART_NAME_MAX }>);

impl PartName {
    /// `s`, if it is a valid name.
    pub fn parse(s: &str) -> Result<Self, BadName> {
        let good = (1..=limits::PART_NAME_MAX).contains(&s.len())
            && !s.starts_with(['.', '_', '-'])
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if good { Text::new(s).map(Self).ok_or(BadName) } else { Err(BadName) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A container's slot in the device's table. Stable while the container exists, across an update in place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ContainerId(pub u8);

/// A connection slot of a control socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_names_cannot_leave_their_folder() {
        for good in ["0", "1", "4294967295", "locals/a", "locals/A.b-c_9"] {
            assert_eq!(RevName::parse(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "01", "..", "a", "locals/", "locals/.x", "locals/a/b", "locals/..", "locals/a b", "12345678901", "-1"]
        {
            assert_eq!(RevName::parse(bad), Err(BadName), "{bad}");
        }
        assert!(RevName::parse("locals/0123456789012345678901234567890123456789012345678901234567890123").is_ok());
        assert!(RevName::parse("locals/01234567890123456789012345678901234567890123456789012345678901234").is_err());
    }

    #[test]
    fn object_names_are_lower_case_hex_only() {
        let hex = "00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef";
        assert_eq!(ObjectId::parse(hex).unwrap().hex(), *hex.as_bytes().first_chunk::<64>().unwrap());
        assert_eq!(ObjectId::parse(&hex[1..]), None);
        assert_eq!(ObjectId::parse("00FF12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef"), None);
    }
}
