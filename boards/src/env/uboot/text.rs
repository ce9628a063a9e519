//! The variables in a copy of U-Boot's environment: read, changed, and made from a board's text.
//!
//! Invariants. Every decoder is total: any bytes give a result. Variables that are not ours keep their bytes and their
//! order. A composed area is complete and zero-padded, or refused as a whole (`EnvFull`).

use runtime::{fault::Code, id::RevName, port::BootVars};

/// The variables that a store sets or deletes, in the order in which new ones are appended.
const OURS: [&[u8]; 5] = [b"pv_rev", b"pv_try", b"pv_prev", b"upgrade_available", b"bootcount"];

/// The entries of a copy's variable area, in order, as they are: usually `name=value`.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Of the bytes behind the header. Stops at the empty entry that ends the list.
    pub fn of(data: &'a [u8]) -> Self {
        Self(data)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (entry, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or(&[]);
        (!entry.is_empty()).then_some(entry)
    }
}

/// Name and value of an entry. The loader skips blanks before the name; an entry without `=` has no value.
pub fn split(entry: &[u8]) -> (&[u8], &[u8]) {
    let blanks = entry.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let entry = &entry[blanks..];
    match entry.iter().position(|byte| *byte == b'=') {
        Some(equals) => (&entry[..equals], &entry[equals + 1..]),
        None => (entry, &[]),
    }
}

/// The value that the loader sees for `name`: the last entry counts, and an empty value is no variable.
pub fn value<'a>(data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let entries = Entries::of(data).map(split);
    entries.filter(|(key, _)| *key == name.as_bytes()).last().map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// A revision's name as the value of a variable.
pub(super) fn revision(data: &[u8], name: &str) -> Option<RevName> {
    RevName::parse(core::str::from_utf8(value(data, name)?).ok()?).ok()
}

/// The digits at the start of a variable, as the loader reads a number.
pub(super) fn number(data: &[u8], name: &str) -> u32 {
    let digits = value(data, name).unwrap_or(b"").iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum: u32, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
}

/// The decision that a variable area holds. `None` without a committed revision, which the loader cannot boot either.
pub(super) fn decision(data: &[u8]) -> Option<BootVars> {
    let armed = number(data, "upgrade_available") != 0;
    Some(BootVars {
        committed: revision(data, "pv_rev")?,
        candidate: if armed { revision(data, "pv_try") } else { None },
        previous: revision(data, "pv_prev"),
    })
}

/// Writes entries into a copy's variable area. Full is remembered and reported once, by `finish`.
pub(super) struct Writer<'a> {
    data: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Over a variable area.
    pub(super) fn over(data: &'a mut [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(room) = self.data.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn entry(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b"=");
        self.put(value);
        self.put(&[0]);
    }

    /// One of our variables; one without a value is left out, which deletes it.
    fn ours(&mut self, index: usize, vars: &BootVars) {
        let value = match index {
            0 => vars.committed.as_str(),
            1 => vars.candidate.as_ref().map_or("", RevName::as_str),
            2 => vars.previous.as_ref().map_or("", RevName::as_str),
            3 if vars.candidate.is_some() => "1",
            _ => "0",
        };
        if !value.is_empty() {
            self.entry(OURS[index], value.as_bytes());
        }
    }

    /// Pads with zeros, of which the first ends the list.
    pub(super) fn finish(self) -> Result<(), Code> {
        if self.at >= self.data.len() {
            return Err(Code::EnvFull);
        }
        self.data[self.at..].fill(0);
        Ok(())
    }
}

/// Which of our variables this is.
pub(super) fn ours(name: &[u8]) -> Option<usize> {
    OURS.iter().position(|known| *known == name)
}

/// Composes the next variable area: `old` with our variables changed, everything else as it is.
pub(super) fn compose(old: &[u8], vars: &BootVars, data: &mut [u8]) -> Result<(), Code> {
    let mut out = Writer::over(data);
    let mut written = [false; OURS.len()];
    for entry in Entries::of(old) {
        match ours(split(entry).0) {
            Some(index) if !written[index] => {
                written[index] = true;
                out.ours(index, vars);
            }
            Some(_) => {} // a second entry of the same name
            None => {
                out.put(entry);
                out.put(&[0]);
            }
        }
    }
    for index in (0..OURS.len()).filter(|index| !written[*index]) {
        out.ours(index, vars);
    }
    out.finish()
}

/// Puts the checksum, and the flags if there are any, before a variable area.
pub(super) fn seal(image: &mut [u8], flags: Option<u8>) {
    let (header, data) = image.split_at_mut(header(flags));
    header[..4].copy_from_slice(&crc32fast::hash(data).to_le_bytes());
    if let Some(flags) = flags {
        header[4] = flags;
    }
}

/// Bytes before the variables.
fn header(flags: Option<u8>) -> usize {
    4 + usize::from(flags.is_some())
}

/// The variables of an environment text, as U-Boot's build reads it: empty lines and lines that start with `#` are
/// dropped, a backslash at the end of a line joins it with the next one without that one's leading blanks.
///
/// Calls `each` with every line (first part of a variable: `true`) that is left, in pieces, because nothing is copied.
pub(super) fn text_pieces<'a>(text: &'a str, mut each: impl FnMut(bool, &'a str)) {
    let mut joined = false;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let line = if joined { line.trim_ascii_start() } else { line };
        let piece = line.strip_suffix('\\').unwrap_or(line);
        each(!joined, piece);
        joined = piece.len() < line.len();
    }
}

/// The value of a variable of an environment text that stands on one line.
pub fn text_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    text_pieces(text, |first, piece| {
        if first
            && let Some((key, value)) = piece.split_once('=')
            && key == name
        {
            found = Some(value);
        }
    });
    found
}

/// Makes a whole copy from an environment text and the boot decision: what a new image holds, and what a lost
/// environment is rebuilt from. `image` is all of the copy; without `flags` it is the only one. `EnvFull` if it does not
/// fit.
pub fn initial(text: &str, vars: &BootVars, flags: Option<u8>, image: &mut [u8]) -> Result<(), Code> {
    let mut out = Writer::over(image.get_mut(header(flags)..).unwrap_or(&mut []));
    let mut kept = false;
    text_pieces(text, |first, piece| {
        if first {
            if kept {
                out.put(&[0]);
            }
            kept = ours(split(piece.as_bytes()).0).is_none();
        }
        if kept {
            out.put(piece.as_bytes());
        }
    });
    if kept {
        out.put(&[0]);
    }
    for index in 0..OURS.len() {
        out.ours(index, vars);
    }
    out.finish()?;
    seal(image, flags);
    Ok(())
}
