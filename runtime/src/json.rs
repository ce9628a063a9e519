//! JSON as spans of the text that was read: nothing is copied, nothing is allocated, every value keeps its raw bytes.
//!
//! Strict RFC 8259: UTF-8 only, escapes checked, surrogates in pairs, no trailing text. The scan is iterative
//! and keeps one bit per level, so neither depth nor length can exhaust a stack. A document is checked once,
//! as a whole, by `Value::parse`; after that its parts are walked without faults.
//!
//! Invariant: a `Value` is one complete, valid JSON value and knows its offset in the document. Key order and
//! raw text are kept because signatures and change detection compare them. Duplicate keys are refused by
//! `Value::object`, through which every object that is interpreted goes.
//!
//! Does not do: numbers beyond what `u32` and thousandths hold, and no tree; looking up a key walks the object.

use crate::{
    fault::{Code, Refusal},
    id::Text,
    limits::{JSON_DEPTH_MAX, JSON_MEMBERS_MAX},
};
use core::fmt::{self, Write as _};

/// Why a text is not JSON, and at which byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// One of the `State…` codes.
    pub code: Code,
    /// Byte offset in the document.
    pub at: usize,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::at(fault.code, fault.at)
    }
}

/// A value that is valid JSON but not what its reader expects there. The reader knows the code and the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Byte offset in the document.
    pub at: usize,
}

impl Wrong {
    /// As a refusal about `key`.
    pub fn refuse(self, code: Code, key: &str) -> Refusal {
        Refusal { code, key: Text::clip(key), at: self.at as u32 }
    }
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// One complete value: its raw text and where that starts in the document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Value<'a> {
    /// Checks a whole document: UTF-8, exactly one value, nothing but white space around it.
    pub fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        if let Err(bad) = core::str::from_utf8(text) {
            let code = if bad.error_len().is_some() { Code::StateUtf8 } else { Code::StateTruncated };
            return Err(Fault { code, at: bad.valid_up_to() });
        }
        let mut scan = Scan { text, base: 0, at: 0 };
        let value = scan.value()?;
        scan.space();
        if scan.at < text.len() { Err(scan.fault()) } else { Ok(value) }
    }

    /// A value that was checked before as part of the document, at `at`. On other text its parts are
    /// what can be walked before the first fault: still no panic.
    pub(crate) fn part(raw: &'a [u8], at: usize) -> Self {
        Self { raw, at }
    }

    /// The raw text, without white space around it.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Byte offset in the document.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.raw.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// The members of an object in document order, duplicates included; nothing if it is no object.
    pub fn members(&self) -> Members<'a> {
        Members { scan: self.inside(Kind::Object), first: true }
    }

    /// The elements of an array; nothing if it is no array.
    pub fn elements(&self) -> Elements<'a> {
        Elements { scan: self.inside(Kind::Array), first: true }
    }

    /// The object, with its keys checked for duplicates (after unescaping) and counted.
    /// Anything but an object is `StateSyntax`; ask `kind` first where a better code is known.
    pub fn object(&self) -> Result<Object<'a>, Fault> {
        if self.kind() != Kind::Object {
            return Err(Fault { code: Code::StateSyntax, at: self.at });
        }
        // Comparing hashes first keeps this to one walk, unless somebody makes them collide.
        let mut hashes = [0u32; JSON_MEMBERS_MAX];
        for (count, (key, _)) in self.members().enumerate() {
            let (earlier, free) = hashes.split_at_mut(count.min(JSON_MEMBERS_MAX));
            let Some(slot) = free.first_mut() else {
                return Err(Fault { code: Code::StateTooManyKeys, at: key.at });
            };
            *slot = key.hash();
            if earlier.contains(slot) && self.members().take(count).any(|(other, _)| other.same(key)) {
                return Err(Fault { code: Code::StateDuplicateKey, at: key.at });
            }
        }
        Ok(Object { value: *self })
    }

    /// The string.
    pub fn string(&self) -> Result<Str<'a>, Wrong> {
        match (self.kind(), self.raw) {
            (Kind::String, [b'"', inner @ .., b'"']) => Ok(Str { raw: inner, at: self.at }),
            _ => Err(Wrong { at: self.at }),
        }
    }

    /// The string, unescaped, if it fits.
    pub fn text<const N: usize>(&self) -> Result<Text<N>, Wrong> {
        let mut buffer = [0u8; N];
        self.string()?.copy(&mut buffer).and_then(Text::new).ok_or(Wrong { at: self.at })
    }

    /// A whole number from 0 to `u32::MAX`, without fraction or exponent.
    pub fn u32(&self) -> Result<u32, Wrong> {
        let digits = core::str::from_utf8(self.raw).map_err(|_| Wrong { at: self.at })?;
        match self.kind() {
            // RFC 8259 knows no leading plus, which `parse` would take
            Kind::Number => digits.parse().map_err(|_| Wrong { at: self.at }),
            _ => Err(Wrong { at: self.at }),
        }
    }

    /// A number from 0 to about 4 million in thousandths; further digits are dropped, an exponent is refused.
    pub fn thousandths(&self) -> Result<u32, Wrong> {
        let wrong = Wrong { at: self.at };
        if self.kind() != Kind::Number {
            return Err(wrong);
        }
        let (mut sum, mut places) = (0u32, None::<u32>);
        for &byte in self.raw {
            match (byte, places) {
                (b'.', None) => places = Some(0),
                (b'0'..=b'9', Some(3)) => {}
                (b'0'..=b'9', _) => {
                    sum = sum.checked_mul(10).and_then(|s| s.checked_add(u32::from(byte - b'0'))).ok_or(wrong)?;
                    places = places.map(|n| n + 1);
                }
                _ => return Err(wrong),
            }
        }
        sum.checked_mul(10u32.pow(3 - places.unwrap_or(0).min(3))).ok_or(wrong)
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Result<bool, Wrong> {
        match self.raw {
            b"true" => Ok(true),
            b"false" => Ok(false),
            _ => Err(Wrong { at: self.at }),
        }
    }

    /// A scan of the inside, right after the opening bracket; at its end if this is not of that kind.
    fn inside(&self, kind: Kind) -> Scan<'a> {
        let at = if self.kind() == kind { 1 } else { self.raw.len() };
        Scan { text: self.raw, base: self.at, at }
    }
}

/// An object without duplicate keys.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    value: Value<'a>,
}

impl<'a> Object<'a> {
    /// The member with this key.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.members().find(|(name, _)| name.is(key)).map(|(_, value)| value)
    }

    /// All members in document order.
    pub fn members(&self) -> Members<'a> {
        self.value.members()
    }

    /// Byte offset in the document.
    pub fn at(&self) -> usize {
        self.value.at
    }

    /// The string under this key, unescaped; `None` if the key is absent.
    pub fn text<const N: usize>(&self, key: &str) -> Result<Option<Text<N>>, Wrong> {
        self.get(key).map(|value| value.text()).transpose()
    }

    /// The whole number under this key.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Wrong> {
        self.get(key).map(|value| value.u32()).transpose()
    }

    /// The truth value under this key.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Wrong> {
        self.get(key).map(|value| value.bool()).transpose()
    }
}

/// The inside of a string, with escapes as they were written.
#[derive(Clone, Copy, Debug)]
pub struct Str<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Str<'a> {
    /// The text between the quotes, escapes and all.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Byte offset of the opening quote in the document.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The text, if it has no escapes.
    pub fn plain(&self) -> Option<&'a str> {
        if self.raw.contains(&b'\\') { None } else { core::str::from_utf8(self.raw).ok() }
    }

    /// The characters, unescaped.
    pub fn chars(&self) -> Chars<'a> {
        Chars { rest: core::str::from_utf8(self.raw).unwrap_or("") }
    }

    /// Whether it is `text`, after unescaping.
    pub fn is(&self, text: &str) -> bool {
        match self.plain() {
            Some(plain) => plain == text,
            None => self.chars().eq(text.chars()),
        }
    }

    /// Whether both are the same text, after unescaping.
    pub fn same(&self, other: Str<'_>) -> bool {
        match (self.plain(), other.plain()) {
            (Some(a), Some(b)) => a == b,
            _ => self.chars().eq(other.chars()),
        }
    }

    /// A hash of the unescaped text (FNV-1a).
    fn hash(&self) -> u32 {
        self.chars().fold(0x811c_9dc5, |hash, c| (hash ^ c as u32).wrapping_mul(0x0100_0193))
    }

    /// Unescapes into `out`; `None` if it does not fit.
    pub fn copy<'o>(&self, out: &'o mut [u8]) -> Option<&'o str> {
        let mut used = 0usize;
        for c in self.chars() {
            let end = used.checked_add(c.len_utf8())?;
            c.encode_utf8(out.get_mut(used..end)?);
            used = end;
        }
        core::str::from_utf8(out.get(..used)?).ok()
    }
}

/// The characters of a string, unescaped.
#[derive(Clone, Debug)]
pub struct Chars<'a> {
    rest: &'a str,
}

impl Chars<'_> {
    fn hex4(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        u32::from_str_radix(digits, 16).ok()
    }

    fn escape(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let letter = rest.next()?;
        self.rest = rest.as_str();
        Some(match letter {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = self.hex4()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high);
                }
                self.rest = self.rest.strip_prefix("\\u")?;
                let low = self.hex4()?.checked_sub(0xdc00)?;
                return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low & 0x3ff));
            }
            other => other,
        })
    }
}

impl Iterator for Chars<'_> {
    type Item = char;
    fn next(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let c = rest.next()?;
        self.rest = rest.as_str();
        if c == '\\' { self.escape() } else { Some(c) }
    }
}

/// The members of an object.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    scan: Scan<'a>,
    first: bool,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Str<'a>, Value<'a>);
    fn next(&mut self) -> Option<Self::Item> {
        self.scan.separator(self.first)?;
        self.first = false;
        let key = self.scan.key().ok()?;
        Some((key, self.scan.value().ok()?))
    }
}

/// The elements of an array.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    scan: Scan<'a>,
    first: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;
    fn next(&mut self) -> Option<Self::Item> {
        self.scan.separator(self.first)?;
        self.first = false;
        self.scan.value().ok()
    }
}

/// A place in a text. `base` is where the text starts in the document.
#[derive(Clone, Debug)]
struct Scan<'a> {
    text: &'a [u8],
    base: usize,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// What is wrong here: the text ended, or this byte cannot stand here.
    fn fault(&self) -> Fault {
        let code = if self.at >= self.text.len() { Code::StateTruncated } else { Code::StateSyntax };
        Fault { code, at: self.base + self.at }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.fault());
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        word.iter().try_for_each(|&byte| self.expect(byte))
    }

    /// Moves over the comma before the next member or element; `None` at the closing bracket.
    fn separator(&mut self, first: bool) -> Option<()> {
        self.space();
        match self.peek()? {
            b']' | b'}' => None,
            b',' if !first => {
                self.at += 1;
                Some(())
            }
            _ => first.then_some(()),
        }
    }

    /// A member's key and the colon after it.
    fn key(&mut self) -> Result<Str<'a>, Fault> {
        self.space();
        let from = self.at;
        self.string()?;
        let raw = self.text.get(from + 1..self.at - 1).unwrap_or(&[]);
        self.space();
        self.expect(b':')?;
        Ok(Str { raw, at: self.base + from })
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.expect(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                None | Some(0..=0x1f) => return Err(self.fault()),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let from = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                let lone = Fault { code: Code::StateUtf8, at: self.base + from };
                match self.hex4()? {
                    0xd800..=0xdbff => {
                        // a high surrogate must be followed by an escaped low one
                        for byte in *b"\\u" {
                            self.expect(byte).map_err(|fault| match fault.code {
                                Code::StateTruncated => fault,
                                _ => lone,
                            })?;
                        }
                        if !(0xdc00..=0xdfff).contains(&self.hex4()?) {
                            return Err(lone);
                        }
                    }
                    0xdc00..=0xdfff => return Err(lone),
                    _ => {}
                }
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| (byte as char).to_digit(16)).ok_or_else(|| self.fault())?;
            self.at += 1;
            value = (value << 4) | digit;
        }
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.fault());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One whole value. Iterative: `levels` holds one bit per open bracket, 1 for an object.
    fn value(&mut self) -> Result<Value<'a>, Fault> {
        self.space();
        let from = self.at;
        let (mut levels, mut depth) = (0u32, 0u32);
        loop {
            // here a value must follow
            self.space();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth >= JSON_DEPTH_MAX {
                        return Err(Fault { code: Code::StateTooDeep, at: self.base + self.at });
                    }
                    let object = open == b'{';
                    self.at += 1;
                    depth += 1;
                    levels = (levels << 1) | u32::from(object);
                    self.space();
                    if self.peek() != Some(if object { b'}' } else { b']' }) {
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                    // empty: its closing bracket is taken below
                }
                Some(b'"') => self.string()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => self.number()?,
            }
            // here a value has ended, or an empty bracket is about to: close what closes
            loop {
                if depth == 0 {
                    let raw = self.text.get(from..self.at).unwrap_or(&[]);
                    return Ok(Value { raw, at: self.base + from });
                }
                self.space();
                match (self.peek(), levels & 1) {
                    (Some(b'}'), 1) | (Some(b']'), 0) => {
                        self.at += 1;
                        levels >>= 1;
                        depth -= 1;
                    }
                    (Some(b','), object) => {
                        self.at += 1;
                        if object == 1 {
                            self.key()?;
                        }
                        break;
                    }
                    _ => return Err(self.fault()),
                }
            }
        }
    }
}

/// Writes JSON: separators and escapes are its own business, balanced brackets the caller's.
///
/// Bounded by what it writes to: a full buffer is the `fmt::Error` of the call that met it.
pub struct Writer<'w> {
    out: &'w mut dyn fmt::Write,
    comma: bool,
}

impl<'w> Writer<'w> {
    /// Writes to `out`.
    pub fn new(out: &'w mut dyn fmt::Write) -> Self {
        Self { out, comma: false }
    }

    fn open(&mut self, bracket: char) -> fmt::Result {
        self.separate()?;
        self.comma = false;
        self.out.write_char(bracket)
    }

    fn close(&mut self, bracket: char) -> fmt::Result {
        self.comma = true;
        self.out.write_char(bracket)
    }

    fn separate(&mut self) -> fmt::Result {
        if core::mem::replace(&mut self.comma, true) { self.out.write_char(',') } else { Ok(()) }
    }

    /// `{`
    pub fn begin_object(&mut self) -> fmt::Result {
        self.open('{')
    }

    /// `}`
    pub fn end_object(&mut self) -> fmt::Result {
        self.close('}')
    }

    /// `[`
    pub fn begin_array(&mut self) -> fmt::Result {
        self.open('[')
    }

    /// `]`
    pub fn end_array(&mut self) -> fmt::Result {
        self.close(']')
    }

    /// A member's key; its value must follow.
    pub fn key(&mut self, key: &str) -> fmt::Result {
        self.separate()?;
        self.comma = false;
        write!(self.out, "\"{}\":", Escaped(key))
    }

    /// A string.
    pub fn text(&mut self, text: &str) -> fmt::Result {
        self.display(&text)
    }

    /// A string, of what `value` prints.
    pub fn display(&mut self, value: &dyn fmt::Display) -> fmt::Result {
        self.separate()?;
        self.out.write_char('"')?;
        fmt::write(&mut Escaping(self.out), format_args!("{value}"))?;
        self.out.write_char('"')
    }

    /// A whole number.
    pub fn number(&mut self, number: u64) -> fmt::Result {
        self.separate()?;
        write!(self.out, "{number}")
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) -> fmt::Result {
        self.separate()?;
        self.out.write_str(if value { "true" } else { "false" })
    }

    /// `null`
    pub fn null(&mut self) -> fmt::Result {
        self.separate()?;
        self.out.write_str("null")
    }

    /// Text that is a JSON value already.
    pub fn raw(&mut self, json: &str) -> fmt::Result {
        self.separate()?;
        self.out.write_str(json)
    }

    /// A key and a string.
    pub fn text_member(&mut self, key: &str, text: &str) -> fmt::Result {
        self.key(key)?;
        self.text(text)
    }

    /// A key and a whole number.
    pub fn number_member(&mut self, key: &str, number: u64) -> fmt::Result {
        self.key(key)?;
        self.number(number)
    }
}

/// Prints a text as the inside of a JSON string.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaping(f).write_str(self.0)
    }
}

struct Escaping<'w>(&'w mut dyn fmt::Write);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain_from = 0;
        for (at, byte) in text.bytes().enumerate() {
            if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
                continue;
            }
            // the byte is ASCII, so both cuts are at character boundaries
            self.0.write_str(text.get(plain_from..at).unwrap_or(""))?;
            plain_from = at + 1;
            match byte {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                other => write!(self.0, "\\u{other:04x}")?,
            }
        }
        self.0.write_str(text.get(plain_from..).unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Result<(), (Code, usize)> {
        Value::parse(text.as_bytes()).map(|_| ()).map_err(|f| (f.code, f.at))
    }

    #[test]
    fn accepts_what_rfc_8259_accepts_and_keeps_the_raw_text() {
        for good in [
            "0",
            "-0",
            "-0.5e+3",
            "1E9",
            "\"\"",
            "true",
            "false",
            "null",
            "[]",
            "{}",
            " [ ] ",
            "{ \"a\" : [ 1 , {} , [[]] ] }",
            r#""\u0041\ud83d\ude00\"\\\/\b\f\n\r\t""#,
            "\"\u{7f}é\u{10ffff}\"",
            "[[],[],{\"\":{}}]",
        ] {
            assert_eq!(code(good), Ok(()), "{good}");
            assert_eq!(Value::parse(good.as_bytes()).unwrap().raw(), good.trim().as_bytes());
        }
    }

    #[test]
    #[rustfmt::skip]
    fn names_the_fault_and_its_byte() {
        use Code::{StateSyntax as S, StateTruncated as T, StateUtf8 as U};
        for (bad, why, at) in [
            ("", T, 0), ("  ", T, 2), ("{", T, 1), ("[1", T, 2), ("[1,", T, 3), ("\"a", T, 2), ("tru", T, 3),
            ("-", T, 1), ("1.", T, 2), ("1e", T, 2), ("{\"a\"", T, 4), ("{\"a\":", T, 5), ("\"\\", T, 2),
            ("\"\\u12", T, 5), ("\"\\ud800\\", T, 8), ("tru ", S, 3), ("01", S, 1), ("+1", S, 0), (".5", S, 0),
            ("1.x", S, 2), ("[1 2]", S, 3), ("[1,]", S, 3), ("{,}", S, 1), ("{\"a\":1,}", S, 7), ("{\"a\" 1}", S, 5),
            ("{1:1}", S, 1), ("{\"a\":1]", S, 6), ("[1}", S, 2), ("1x", S, 1), ("{}{}", S, 2), ("\"\\q\"", S, 2),
            ("\"\\u12g4\"", S, 5), ("\"\n\"", S, 1), ("'a'", S, 0), ("]", S, 0), ("\u{feff}1", S, 0),
            ("\u{a0}1", S, 0), ("/**/1", S, 0), ("NaN", S, 0), (r#""\ud800""#, U, 1), (r#""\udc00""#, U, 1),
            (r#""\ud800\u0041""#, U, 1), (r#""\ud800x""#, U, 1),
        ] {
            assert_eq!(code(bad), Err((why, at)), "{bad}");
        }
        assert_eq!(Value::parse(b"\"\xff\"").unwrap_err(), Fault { code: Code::StateUtf8, at: 1 });
        assert_eq!(Value::parse(b"\"\xc3").unwrap_err(), Fault { code: Code::StateTruncated, at: 1 });
        assert_eq!(Value::parse(b"\"\xed\xa0\x80\"").unwrap_err().code, Code::StateUtf8);
    }

    #[test]
    fn depth_is_bounded_and_not_by_the_stack() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(code(&nested(32)), Ok(()));
        assert_eq!(code(&nested(33)), Err((Code::StateTooDeep, 32)));
        assert_eq!(code(&"{\"a\":".repeat(200_000)), Err((Code::StateTooDeep, 160)));
    }

    #[test]
    fn every_prefix_of_a_document_is_truncated_and_nothing_else() {
        let text = r#"{"a":[1.5e-3,"x\u00e9\ud83d\ude00",true,{"b":null}],"c":{}}"#;
        for cut in 0..text.len() {
            assert_eq!(code(&text[..cut]), Err((Code::StateTruncated, cut)), "{}", &text[..cut]);
        }
    }

    #[test]
    fn changing_any_byte_never_panics_and_walks_totally() {
        let text = br#"{"a":[1.5e-3,"x\u00e9\ud83d\ude00",true,{"b":null}],"c":{"a":"\n"}}"#;
        fn walk(value: Value<'_>) -> usize {
            let _ = (value.u32(), value.thousandths(), value.bool(), value.text::<8>(), value.object().is_ok());
            1 + value.members().map(|(k, v)| k.chars().count() + walk(v)).sum::<usize>()
                + value.elements().map(walk).sum::<usize>()
        }
        for at in 0..text.len() {
            for byte in 0..=255u8 {
                let mut copy = *text;
                copy[at] = byte;
                if let Ok(value) = Value::parse(&copy) {
                    assert!(walk(value) > 0);
                }
            }
        }
    }

    #[test]
    fn members_and_elements_know_where_they_stand() {
        let text = br#" { "a" : [ 10 , "b" ] , "\u0063" : { } }"#;
        let value = Value::parse(text).unwrap();
        let object = value.object().unwrap();
        let list = object.get("a").unwrap();
        let items: Vec<_> = list.elements().map(|v| (v.at(), v.raw())).collect();
        assert_eq!(items, [(11, &b"10"[..]), (16, b"\"b\"")]);
        for (at, raw) in items {
            assert_eq!(&text[at..at + raw.len()], raw);
        }
        assert_eq!(object.get("c").unwrap().kind(), Kind::Object);
        assert!(object.get("\\u0063").is_none());
        assert_eq!(list.members().count(), 0);
        assert_eq!(value.elements().count(), 0);
    }

    #[test]
    fn duplicate_keys_are_found_after_unescaping() {
        let bad = Value::parse(br#"{"a":1,"b":2,"\u0061":3}"#).unwrap();
        assert_eq!(bad.object().unwrap_err(), Fault { code: Code::StateDuplicateKey, at: 13 });
        assert!(Value::parse(br#"{"a":{"x":1,"x":2}}"#).unwrap().object().is_ok(), "inner objects when interpreted");
        let many: String = (0..=JSON_MEMBERS_MAX).map(|n| format!("\"{n}\":0,")).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        assert_eq!(Value::parse(many.as_bytes()).unwrap().object().unwrap_err().code, Code::StateTooManyKeys);
    }

    #[test]
    fn typed_getters() {
        let text = br#"{"s":"a\"\u00e9\ud83d\ude00","n":4294967295,"b":true,"f":2.05,"neg":-1,"big":4294967296,"e":1e2,"l":"12345678"}"#;
        let o = Value::parse(text).unwrap().object().unwrap();
        assert_eq!(o.text::<16>("s").unwrap().unwrap().as_str(), "a\"é😀");
        assert_eq!(o.u32("n"), Ok(Some(u32::MAX)));
        assert_eq!(o.bool("b"), Ok(Some(true)));
        assert_eq!(o.u32("absent"), Ok(None));
        assert_eq!(o.get("f").unwrap().thousandths(), Ok(2050));
        assert!(o.get("n").unwrap().thousandths().is_err());
        for key in ["neg", "big", "e", "s", "f"] {
            assert!(o.u32(key).is_err(), "{key}");
        }
        for key in ["neg", "e", "s"] {
            assert!(o.get(key).unwrap().thousandths().is_err(), "{key}");
        }
        assert_eq!(o.text::<7>("l"), Err(Wrong { at: o.get("l").unwrap().at() }));
        assert_eq!(o.text::<8>("n").unwrap_err().at, 33);
        for (text, value) in [("0", 0), ("2", 2000), ("1.2345", 1234), ("0.5", 500), ("4294967", 4_294_967_000)] {
            assert_eq!(Value::parse(text.as_bytes()).unwrap().thousandths(), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut out = String::new();
        let mut w = Writer::new(&mut out);
        let nasty = "q\" b\\ n\n t\t nul\0 é 😀 \u{1f}";
        w.begin_object().unwrap();
        w.text_member("name", nasty).unwrap();
        w.key("list").unwrap();
        w.begin_array().unwrap();
        w.number(1).unwrap();
        w.bool(false).unwrap();
        w.null().unwrap();
        w.begin_object().unwrap();
        w.end_object().unwrap();
        w.raw("[2]").unwrap();
        w.display(&format_args!("{}-\"{}\"", 1, 2)).unwrap();
        w.end_array().unwrap();
        w.number_member("n", u64::MAX).unwrap();
        w.end_object().unwrap();
        let o = Value::parse(out.as_bytes()).unwrap().object().unwrap();
        assert_eq!(o.text::<60>("name").unwrap().unwrap().as_str(), nasty);
        assert_eq!(o.get("list").unwrap().raw(), br#"[1,false,null,{},[2],"1-\"2\""]"#);
        assert_eq!(o.get("n").unwrap().raw(), b"18446744073709551615");
    }
}
