//! DNS messages as far as devices find each other with them (mDNS, RFC 6762 and 6763): read, and written.
//!
//! The device answers questions, the host tool reads answers; both go through here. Invariants: reading is total and bounded:
//! any bytes are a message or none; a compressed name is followed backwards only, so it ends; names are compared without
//! regard to case, as text with dots, and longer ones than `NAME_MAX` are no names. Writing does not compress.
//! Not here: sockets, when to answer, what is true.

use crate::id::Text;

/// Longest name, as text.
pub const NAME_MAX: usize = 128;
/// Questions and records of one message that are looked at.
const ENTRIES_MAX: usize = 64;
/// Longest message: what fits a packet.
pub const MESSAGE_MAX: usize = 1472;
/// Class IN.
const IN: u16 = 1;
/// Beside the class: of a question that a single answer will do, of a record that it replaces what was known.
const FLAG: u16 = 0x8000;
/// Beside the identifier: this is an answer, and ours to give.
const ANSWER: u16 = 0x8400;

/// A name without the dot at its end, in lower case.
pub type Name = Text<NAME_MAX>;

/// The kinds of record that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An address of version 4.
    A,
    /// A service's instances.
    Pointer,
    /// `key=value` texts.
    Texts,
    /// An address of version 6.
    Aaaa,
    /// Host and port of an instance.
    Service,
    /// Everything, in a question.
    Any,
    /// Another one.
    Other(u16),
}

impl Kind {
    fn from_number(number: u16) -> Self {
        match number {
            1 => Self::A,
            12 => Self::Pointer,
            16 => Self::Texts,
            28 => Self::Aaaa,
            33 => Self::Service,
            255 => Self::Any,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Pointer => 12,
            Self::Texts => 16,
            Self::Aaaa => 28,
            Self::Service => 33,
            Self::Any => 255,
            Self::Other(number) => number,
        }
    }
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// About whom.
    pub name: Name,
    /// What is wanted.
    pub kind: Kind,
}

/// A record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Whose.
    pub name: Name,
    /// What it is.
    pub data: Data<'a>,
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data<'a> {
    /// An address.
    A([u8; 4]),
    /// An address.
    Aaaa([u8; 16]),
    /// The name of an instance.
    Pointer(Name),
    /// Port and host.
    Service(u16, Name),
    /// Texts, each behind its length: `texts` takes them apart.
    Texts(&'a [u8]),
    /// Something else.
    Other,
}

/// A message, taken apart as far as its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    whole: &'a [u8],
    /// Its identifier, which an answer to one client repeats.
    pub id: u16,
    /// Whether it answers.
    pub is_answer: bool,
    questions: usize,
    records: usize,
}

impl<'a> Message<'a> {
    /// Reads the head. `None`: it is no message, or not one that anybody here has to do with.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<12>()?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let flags = number(2);
        if flags & 0x7800 != 0 {
            return None; // another operation than a query
        }
        let records = usize::from(number(6)) + usize::from(number(8)) + usize::from(number(10));
        let (id, is_answer, questions) = (number(0), flags & 0x8000 != 0, usize::from(number(4)));
        Some(Self { whole: bytes, id, is_answer, questions, records })
    }

    /// Its questions, as far as they can be read.
    pub fn questions(&self) -> impl Iterator<Item = Question> + use<'a> {
        let (whole, mut at) = (self.whole, Some(12));
        (0..self.questions.min(ENTRIES_MAX)).map_while(move |_| {
            let (question, next) = question(whole, at?)?;
            at = Some(next);
            Some(question)
        })
    }

    /// Its records of all sections, as far as they can be read.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let (whole, mut at) = (self.whole, Some(12));
        if self.questions > ENTRIES_MAX {
            at = None;
        }
        for _ in 0..self.questions.min(ENTRIES_MAX) {
            at = at.and_then(|at| question(whole, at)).map(|(_, next)| next);
        }
        (0..self.records.min(ENTRIES_MAX)).map_while(move |_| {
            let (record, next) = record(whole, at?)?;
            at = Some(next);
            Some(record)
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

fn question(whole: &[u8], at: usize) -> Option<(Question, usize)> {
    let (name, at) = name(whole, at)?;
    let kind = Kind::from_number(number(whole, at)?);
    let class = number(whole, at + 2)?;
    let kind = if matches!(class & !FLAG, IN | 255) { kind } else { Kind::Other(0) };
    Some((Question { name, kind }, at + 4))
}

fn record(whole: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let (name_of, at) = name(whole, at)?;
    let kind = Kind::from_number(number(whole, at)?);
    let class = number(whole, at + 2)?;
    let (start, length) = (at + 10, usize::from(number(whole, at + 8)?));
    let data = whole.get(start..start + length)?;
    let named = |at: usize| name(whole, at).map(|(name, _)| name);
    let said = match kind {
        _ if class & !FLAG != IN => None,
        Kind::A => data.try_into().ok().map(Data::A),
        Kind::Aaaa => data.try_into().ok().map(Data::Aaaa),
        Kind::Pointer => named(start).map(Data::Pointer),
        Kind::Service if length > 6 => Some(Data::Service(number(data, 4)?, named(start + 6)?)),
        Kind::Texts => Some(Data::Texts(data)),
        _ => None,
    };
    Some((Record { name: name_of, data: said.unwrap_or(Data::Other) }, start + length))
}

/// A name, and where what follows it begins.
fn name(whole: &[u8], start: usize) -> Option<(Name, usize)> {
    let mut text = heapless::String::<NAME_MAX>::new();
    let (mut at, mut before, mut end) = (start, start, None);
    loop {
        let length = *whole.get(at)?;
        match length {
            0 => {
                let name = Name::new(&text)?;
                return Some((name, end.unwrap_or(at + 1)));
            }
            1..64 => {
                let label = whole.get(at + 1..at + 1 + usize::from(length))?;
                if !text.is_empty() {
                    text.push('.').ok()?;
                }
                for byte in label {
                    // A dot inside a label would be another name; what is no plain text is shown as such.
                    let plain = byte.is_ascii_graphic() && *byte != b'.';
                    text.push(if plain { char::from(byte.to_ascii_lowercase()) } else { '_' }).ok()?;
                }
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                let to = usize::from(number(whole, at)? & 0x3fff);
                end = end.or(Some(at + 2));
                if to >= before {
                    return None; // forwards, or to itself
                }
                (at, before) = (to, to);
            }
            _ => return None,
        }
    }
}

/// The texts of a record.
pub fn texts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    core::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (text, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        Some(text)
    })
}

/// Writes a message.
pub struct Writer<'b> {
    out: &'b mut [u8; MESSAGE_MAX],
    at: usize,
    full: bool,
}

impl<'b> Writer<'b> {
    /// A question.
    pub fn question(out: &'b mut [u8; MESSAGE_MAX], id: u16, name: &str, kind: Kind) -> Self {
        let mut writer = Self { out, at: 0, full: false };
        writer.head(id, 0);
        writer.ask(name, kind);
        writer
    }

    /// An answer, to be filled with records.
    pub fn answer(out: &'b mut [u8; MESSAGE_MAX], id: u16) -> Self {
        let mut writer = Self { out, at: 0, full: false };
        writer.head(id, ANSWER);
        writer
    }

    /// Asks, or repeats what was asked.
    pub fn ask(&mut self, name: &str, kind: Kind) -> &mut Self {
        self.count(4);
        self.name(name);
        self.raw(&kind.number().to_be_bytes());
        self.raw(&IN.to_be_bytes())
    }

    /// A record, good for `ttl` seconds. `only`: there is no other of this name and kind.
    pub fn record(&mut self, name: &str, kind: Kind, only: bool, ttl: u32, data: &[&dyn Part]) -> &mut Self {
        self.count(6);
        self.name(name);
        self.raw(&kind.number().to_be_bytes());
        self.raw(&(if only { IN | FLAG } else { IN }).to_be_bytes());
        self.raw(&ttl.to_be_bytes());
        let length_at = self.at;
        self.raw(&[0, 0]);
        data.iter().for_each(|part| part.write(self));
        let length = (self.at - length_at).saturating_sub(2) as u16;
        if !self.full {
            self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        }
        self
    }

    /// The message; `None` if it did not fit.
    pub fn finish(self) -> Option<&'b [u8]> {
        let Self { out, at, full } = self;
        if full { None } else { Some(&out[..at]) }
    }

    fn head(&mut self, id: u16, flags: u16) {
        self.raw(&id.to_be_bytes());
        self.raw(&flags.to_be_bytes());
        self.raw(&[0; 8]);
    }

    fn count(&mut self, at: usize) {
        self.out[at + 1] = self.out[at + 1].saturating_add(1);
    }

    fn name(&mut self, name: &str) {
        for label in name.split('.').filter(|label| !label.is_empty()) {
            self.text(label.as_bytes());
        }
        self.raw(&[0]);
    }

    fn text(&mut self, text: &[u8]) {
        let text = text.get(..63).unwrap_or(text);
        self.raw(&[text.len() as u8]);
        self.raw(text);
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        match self.out.get_mut(self.at..self.at + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.full = true,
        }
        self
    }
}

/// A part of what a record says.
pub trait Part {
    /// Writes it.
    fn write(&self, to: &mut Writer<'_>);
}

impl Part for [u8] {
    fn write(&self, to: &mut Writer<'_>) {
        to.raw(self);
    }
}

impl<const N: usize> Part for [u8; N] {
    fn write(&self, to: &mut Writer<'_>) {
        to.raw(self);
    }
}

/// A name, as a part of a record.
pub struct Named<'a>(pub &'a str);

impl Part for Named<'_> {
    fn write(&self, to: &mut Writer<'_>) {
        to.name(self.0);
    }
}

/// A text of `key` and `value`.
pub struct Pair<'a>(pub &'a str, pub &'a str);

impl Part for Pair<'_> {
    fn write(&self, to: &mut Writer<'_>) {
        let length = (self.0.len() + 1 + self.1.len()).min(255);
        to.raw(&[length as u8]);
        let value = self.1.as_bytes();
        let room = length.saturating_sub(self.0.len() + 1);
        to.raw(self.0.as_bytes()).raw(b"=").raw(value.get(..room).unwrap_or(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(out: &mut [u8; MESSAGE_MAX]) -> &[u8] {
        let mut writer = Writer::answer(out, 7);
        writer.record("_pvr._tcp.local", Kind::Pointer, false, 4500, &[&Named("box._pvr._tcp.local")]);
        writer.record(
            "box._pvr._tcp.local",
            Kind::Service,
            true,
            120,
            &[&[0, 0, 0, 0, 0x30, 0x50], &Named("box.local")],
        );
        writer.record(
            "box._pvr._tcp.local",
            Kind::Texts,
            true,
            120,
            &[&Pair("device-id", "box"), &Pair("pantahub", "")],
        );
        writer.record("box.local", Kind::A, true, 120, &[&[10, 0, 0, 7]]);
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = [0; MESSAGE_MAX];
        let message = Message::read(answer(&mut out)).unwrap();
        assert!(message.is_answer && message.id == 7 && message.questions().count() == 0);
        let records: Vec<_> = message.records().collect();
        assert_eq!(records.len(), 4);
        assert_eq!(records[0].data, Data::Pointer(Name::new("box._pvr._tcp.local").unwrap()));
        assert_eq!(records[1].data, Data::Service(12368, Name::new("box.local").unwrap()));
        let Data::Texts(data) = records[2].data else { panic!() };
        assert_eq!(texts(data).collect::<Vec<_>>(), [&b"device-id=box"[..], b"pantahub="]);
        assert_eq!(records[3], Record { name: Name::new("box.local").unwrap(), data: Data::A([10, 0, 0, 7]) });
        let mut out = [0; MESSAGE_MAX];
        let text = Writer::question(&mut out, 1, "_SSH._tcp.local.", Kind::Pointer).finish().unwrap();
        let question = Message::read(text).unwrap().questions().next().unwrap();
        assert_eq!(question, Question { name: Name::new("_ssh._tcp.local").unwrap(), kind: Kind::Pointer });
    }

    #[test]
    fn compressed_names_are_followed_backwards_only() {
        let head = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let with = |name: &[u8]| [&head[..], name, &[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]].concat();
        let named = |bytes: &[u8]| Message::read(bytes).unwrap().records().next().map(|record| record.name);
        assert_eq!(named(&with(b"\x01A\x05local\x00")), Name::new("a.local"));
        assert_eq!(named(&with(b"\xc0\x0c")), None, "to itself");
        assert_eq!(named(&with(b"\xc0\x20")), None, "forwards");
        assert_eq!(named(&with(b"\x01a\xc0\x0c")), None, "round and round");
        assert_eq!(named(&with(b"\x41a\x00")), None, "no such length");
        assert_eq!(named(&with(&[&[63; 64][..], &[63; 64], &[63; 64], &[0]].concat())), None, "too long");
        assert_eq!(named(&with(b"\x03a.b\x00")), Name::new("a_b"), "a dot in a label is none between two");
        let twice = [
            &[0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0][..],
            b"\x01a\x05local\x00\x00\x01\x00\x01\x00\x00\x00\x09\x00\x00\x01b\xc0\x0e\x00\x01\x00\x01\x00\x00\x00\x09\x00\x00",
        ]
        .concat();
        let names: Vec<_> = Message::read(&twice).unwrap().records().map(|record| record.name).collect();
        assert_eq!(names, [Name::new("a.local").unwrap(), Name::new("b.local").unwrap()]);
    }

    #[test]
    fn any_bytes_are_a_message_or_none() {
        let mut out = [0; MESSAGE_MAX];
        let good = answer(&mut out).to_vec();
        for cut in 0..good.len() {
            let read = Message::read(&good[..cut]);
            assert!(read.is_none_or(|message| message.records().count() < 4), "{cut}");
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut copy = good.clone();
                copy[at] = byte;
                if let Some(message) = Message::read(&copy) {
                    assert!(message.questions().count() + message.records().count() <= 2 * ENTRIES_MAX);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_cut_off() {
        let mut out = [0; MESSAGE_MAX];
        let mut writer = Writer::answer(&mut out, 0);
        for _ in 0..20 {
            writer.record("box.local", Kind::Texts, true, 1, &[&[7; 100]]);
        }
        assert_eq!(writer.finish(), None);
    }
}
