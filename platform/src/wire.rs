//! The messages between PID 1 and its errands: fixed forms over a `SOCK_SEQPACKET` pair, descriptors beside them.
//!
//! A message is a header of 8 bytes (version u8, kind u8, payload length u16, serial u32, little endian) and
//! at most 4.25 KiB of payload. Texts are a u16 length and UTF-8. An answer carries the serial of its request.
//!
//! Invariants: `decode` is total: every byte string is a message or an error, and nothing beyond the bounds
//! of the buffer is touched. Names arrive as validated types (`RevName`, `PartName`, `ObjectId`).
//! Both ends are the same binary, so a version that differs is an error, not a negotiation.
//! Fault model: a peer that was compromised may send anything; it gets `WireError` and is ended.
//! Not here: who sends what when (`errand`), deadlines, restarts.

use crate::{config::Access, kmsg::Why};
use core::fmt;
use runtime::{
    fault::{Code, Refusal},
    id::{ObjectId, PartName, RevName, Text},
    limits,
    port::{Owner, Subject},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage},
};
use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
};

/// Version of every message of this binary.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER: usize = 8;
/// Largest payload.
pub const PAYLOAD_MAX: usize = 4096 + 256;
/// Largest message.
pub const MESSAGE_MAX: usize = HEADER + PAYLOAD_MAX;
/// Descriptors beside one message: the images of one container are the most.
pub const FDS_MAX: usize = 16;
/// Revisions that one collection can be told to keep.
pub const KEEP_MAX: usize = 24;
/// Bytes that an errand may have kept for it.
pub const MEMORY_MAX: usize = limits::ENDPOINT_MEMORY_MAX;

const _: () = assert!(limits::HTTP_HEAD_MAX + 64 <= PAYLOAD_MAX, "what was read of an upload travels with it");
const _: () = assert!(limits::METADATA_KEY_MAX + limits::METADATA_VALUE_MAX + 8 < PAYLOAD_MAX);
const _: () = assert!(KEEP_MAX * (2 + limits::REV_NAME_MAX) < PAYLOAD_MAX);

/// How far the `start` errand goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartMode {
    /// Sets the container up and becomes its init.
    Start,
    /// Mounts only, for the goal MOUNTED: sets up, reports, and ends.
    Mount,
}

/// The revisions that a collection keeps.
pub type KeepList = heapless::Vec<RevName, KEEP_MAX>;

/// Everything that PID 1 and an errand can say to each other. `fds` in the comments are descriptors sent beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "a list in place: PID 1 has no allocator to box it with")]
pub enum Message<'a> {
    // Errand to PID 1.
    /// A resident errand finished its own set-up and serves requests.
    Ready,
    /// End of a request; `refusal.code` only counts if `ok` is false. `value`: bytes received, sent or reclaimed.
    /// Fds: the opened file, for the requests that open one.
    Done {
        /// Whether the request was fulfilled.
        ok: bool,
        /// Why not.
        refusal: Refusal,
        /// A number, as the request defines it.
        value: u64,
    },
    /// `fetch` made progress: PID 1 extends its deadline.
    Alive {
        /// Bytes so far.
        bytes: u64,
    },
    /// `verify`: the content of the descriptor has this hash.
    Digest {
        /// The hash.
        object: ObjectId,
        /// Bytes hashed.
        length: u64,
    },
    /// `start`: how setting up the container went. Exactly one with `code` `None` before exec; one with a code is the end.
    Report {
        /// What went wrong.
        code: Option<Code>,
        /// The step that was done last or failed.
        step: &'a str,
        /// The error number of the system call that failed.
        errno: i32,
    },

    // PID 1 to `keeper`. Each is answered by `Done`.
    /// Sweeps what earlier boots left: `.incoming`, `.new-`, `.del-`.
    Recover,
    /// Checks a state and stages it. Fds: its text (from offset 0).
    Stage {
        /// Its name.
        rev: RevName,
        /// Commit message, may be empty.
        message: &'a str,
    },
    /// Puts the boot assets of the record's candidate on the boot volume, writes the record to the journal, and
    /// makes both visible to the loader.
    Prepare {
        /// A slot of `runtime::journal`; its sequence has no meaning.
        bytes: &'a [u8],
    },
    /// Writes a record to the journal. A final one also as the progress of its revision; one that says that the
    /// candidate was committed also as `boot/last` and `trails/current`.
    Record {
        /// As in `Prepare`.
        bytes: &'a [u8],
    },
    /// Makes the factory revision visible to the loader and writes a record, which says that a factory reset is wanted.
    Intend {
        /// As in `Prepare`.
        bytes: &'a [u8],
    },
    /// Removes everything but the factory revision, then writes the record that ends the factory reset.
    Clear,
    /// Grows storage to the end of its disk. `value`: bytes by which its partition grew. Fds: the disk.
    Grow {
        /// Number of its partition.
        number: u8,
    },
    /// Sets a key of metadata, or removes it.
    SetMetadata {
        /// Whose.
        subject: Subject,
        /// The key.
        key: &'a str,
        /// Its value.
        value: Option<&'a [u8]>,
    },
    /// A received and verified object becomes an incoming one: `<sha>.<part>.part` to `<sha>`.
    Adopt {
        /// Its name.
        object: ObjectId,
        /// The number given to `CreatePart`.
        part: u32,
    },
    /// Removes an unfinished upload: of an object, or of a state if `object` is `None`.
    Drop {
        /// Its name.
        object: Option<ObjectId>,
        /// Its number.
        part: u32,
    },
    /// Removes every revision but these, and then every object that none of the rest names. `value`: bytes reclaimed.
    Collect {
        /// Revisions to keep.
        keep: KeepList,
    },
    /// Writes a commit message.
    CommitMessage {
        /// Of which revision.
        rev: RevName,
        /// Text.
        text: &'a str,
    },
    /// Creates `objects/.incoming/<sha>.<part>.part`. `NoSpace` if `length` does not fit. Fds of the answer: it, for
    /// reading and writing.
    CreatePart {
        /// The object that will arrive.
        object: ObjectId,
        /// A number that PID 1 never used before.
        part: u32,
        /// Announced length.
        length: u64,
    },
    /// Creates `objects/.incoming/step.<part>`. Fds of the answer: it, for reading and writing.
    CreateStep {
        /// A number that PID 1 never used before.
        part: u32,
        /// Announced length.
        length: u64,
    },
    /// Opens an object for reading, also one that no revision names yet. `ObjectUnknown`. `value`: its length. Fds of the answer: it.
    OpenObject {
        /// Its name.
        object: ObjectId,
    },
    /// The state JSON of a revision, as a memory file: PID 1 reads it without waiting for a disk. `value`: its length.
    OpenState {
        /// Which.
        rev: RevName,
    },
    /// A small file of a revision (`.pv/progress`), as a memory file like `OpenState`. `value`: its length.
    OpenFile {
        /// Which revision.
        rev: RevName,
        /// A validated relative path.
        key: &'a str,
    },
    /// The answer of GET /objects as a memory file. `value`: its length.
    ListObjects,
    /// The answer of GET /steps as a memory file. `value`: its length.
    ListSteps,

    // PID 1 to `fetch`. Each is answered by `Done`.
    /// Receives `length` bytes from a connection into a file. Fds: connection, file.
    Receive {
        /// Bytes of the body.
        length: u64,
        /// The part of the body that PID 1 has read with the head.
        already: &'a [u8],
    },
    /// Sends `length` bytes of a file over a connection. Fds: connection, file.
    Send {
        /// Bytes.
        length: u64,
    },

    // PID 1 to the others.
    /// `verify`: hash a descriptor from offset 0. Fds: it. Answered by `Digest`, or `Done` with a refusal.
    Hash,
    /// `log`: collect a container's output. Fds: the read end of its pipe. No answer.
    Watch {
        /// The revision that it runs in.
        rev: RevName,
        /// The container.
        container: PartName,
    },
    /// `start`: set up this container. Fds: its images, in the order of `root-volume`, `volumes`.
    Job {
        /// The revision that it runs in.
        rev: RevName,
        /// The container.
        container: PartName,
        /// How far.
        mode: StartMode,
    },
    /// `console`: what to serve. Fds: the device.
    Serve {
        /// Its name.
        what: &'a str,
    },
    /// `endpoint`: where to listen and for whom.
    Listen {
        /// Address and port.
        address: &'a str,
        /// Who is served.
        access: Access,
        /// Names of the device, separated by commas.
        names: &'a str,
    },
    /// `usb`: which sticks to look at. No answer.
    Sticks {
        /// File systems that may be mounted, separated by commas.
        kinds: &'a str,
        /// Disks that count besides those on a USB bus, separated by commas.
        disks: &'a str,
    },
    /// `usb` to `stick`: what to do. No answer; it may wish for something, as `usb` may of PID 1.
    Stick {
        /// The device file to mount, below /dev.
        node: &'a str,
        /// As in `Sticks`.
        kinds: &'a str,
        /// What was tried: what the keeper keeps.
        tried: &'a [u8],
    },
    /// `endpoint`: answer this client of the control socket. Fds: its connection. No answer.
    Pass {
        /// What PID 1 has read of its request: at least the head.
        already: &'a [u8],
    },
    /// `endpoint`, `usb` to PID 1 to `keeper`: what was kept for it. Answered by `Memory`, or by a
    /// `Done` that says why not; both with the serial of the question.
    Recall {
        /// For whom.
        owner: Owner,
    },
    /// The answer to `Recall`; empty if nothing was kept.
    Memory {
        /// What it said last.
        bytes: &'a [u8],
    },
    /// `endpoint`, `usb` to PID 1 to `keeper`: keep this for it in place of what was kept. Answered by `Done` with the
    /// serial of the wish.
    Remember {
        /// For whom.
        owner: Owner,
        /// At most `MEMORY_MAX`.
        bytes: &'a [u8],
    },
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireError {
    /// Not the version of this binary.
    Version,
    /// No such kind.
    Kind,
    /// Shorter or longer than its form.
    Length,
    /// A value that is not valid.
    Value,
    /// The socket reported an error.
    Io(Errno),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(errno) => Why(*errno).fmt(f),
            Self::Version => f.write_str("a message of another version"),
            Self::Kind => f.write_str("a message of an unknown kind"),
            Self::Length => f.write_str("a message of a wrong length"),
            Self::Value => f.write_str("a message with a wrong value"),
        }
    }
}

impl From<Errno> for WireError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno)
    }
}

/// The message does not fit `PAYLOAD_MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl<'a> Message<'a> {
    /// A request that was fulfilled.
    pub fn done(value: u64) -> Self {
        Self::Done { ok: true, refusal: Refusal::new(Code::Internal), value }
    }

    /// A request that was refused.
    pub fn refused(refusal: impl Into<Refusal>) -> Self {
        Self::Done { ok: false, refusal: refusal.into(), value: 0 }
    }

    /// The number of this kind of message; never given again.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Ready => 1,
            Self::Done { .. } => 2,
            Self::Alive { .. } => 3,
            Self::Digest { .. } => 4,
            Self::Report { .. } => 5,
            Self::Recover => 16,
            Self::Stage { .. } => 17,
            Self::Prepare { .. } => 18,
            Self::Record { .. } => 19,
            Self::Adopt { .. } => 21,
            Self::Drop { .. } => 22,
            Self::Collect { .. } => 23,
            Self::CommitMessage { .. } => 25,
            Self::CreatePart { .. } => 26,
            Self::CreateStep { .. } => 27,
            Self::OpenObject { .. } => 28,
            Self::OpenState { .. } => 29,
            Self::OpenFile { .. } => 30,
            Self::ListObjects => 31,
            Self::ListSteps => 32,
            Self::Intend { .. } => 33,
            Self::Clear => 34,
            Self::Grow { .. } => 35,
            Self::SetMetadata { .. } => 36,
            Self::Receive { .. } => 48,
            Self::Send { .. } => 49,
            Self::Hash => 64,
            Self::Watch { .. } => 65,
            Self::Job { .. } => 66,
            Self::Serve { .. } => 67,
            Self::Listen { .. } => 68,
            Self::Pass { .. } => 69,
            Self::Recall { .. } => 70,
            Self::Memory { .. } => 71,
            Self::Remember { .. } => 72,
            Self::Sticks { .. } => 73,
            Self::Stick { .. } => 74,
        }
    }

    /// Writes header and payload into `out`; the length.
    pub fn encode(&self, serial: u32, out: &mut [u8; MESSAGE_MAX]) -> Result<usize, TooLong> {
        let mut to = Writer { out, at: HEADER };
        self.payload(&mut to).ok_or(TooLong)?;
        let end = to.at;
        let length = (end - HEADER) as u16;
        out[0] = VERSION;
        out[1] = self.kind();
        out[2..4].copy_from_slice(&length.to_le_bytes());
        out[4..8].copy_from_slice(&serial.to_le_bytes());
        Ok(end)
    }

    fn payload(&self, to: &mut Writer<'_>) -> Option<()> {
        match self {
            Self::Ready | Self::Recover | Self::Hash | Self::ListObjects | Self::ListSteps | Self::Clear => Some(()),
            Self::Recall { owner } => to.u8(*owner as u8)?.end(),
            Self::Done { ok, refusal, value } => to
                .u8(u8::from(*ok))?
                .u16(refusal.code as u16)?
                .u32(refusal.at)?
                .u64(*value)?
                .text(refusal.key.as_str())?
                .end(),
            Self::Grow { number } => to.u8(*number)?.end(),
            Self::SetMetadata { subject, key, value } => {
                to.u8(u8::from(*subject == Subject::User))?.text(key)?.u8(u8::from(value.is_some()))?;
                value.map_or(Some(()), |value| to.bytes(value)?.end())
            }
            Self::Alive { bytes } => to.u64(*bytes)?.end(),
            Self::Digest { object, length } => to.raw(&object.0)?.u64(*length)?.end(),
            Self::Report { code, step, errno } => {
                to.u16(code.map_or(0, |code| code as u16))?.u32(*errno as u32)?.text(step)?.end()
            }
            Self::Stage { rev, message } => to.text(rev.as_str())?.text(message)?.end(),
            Self::OpenState { rev } => to.text(rev.as_str())?.end(),
            Self::Prepare { bytes } | Self::Record { bytes } | Self::Intend { bytes } => to.bytes(bytes)?.end(),
            Self::CommitMessage { rev, text } => to.text(rev.as_str())?.text(text)?.end(),
            Self::Adopt { object, part } => to.raw(&object.0)?.u32(*part)?.end(),
            Self::Drop { object, part } => match object {
                Some(object) => to.u8(1)?.raw(&object.0)?.u32(*part)?.end(),
                None => to.u8(0)?.u32(*part)?.end(),
            },
            Self::Collect { keep } => {
                to.u8(keep.len() as u8)?;
                for rev in keep {
                    to.text(rev.as_str())?;
                }
                Some(())
            }
            Self::CreatePart { object, part, length } => to.raw(&object.0)?.u32(*part)?.u64(*length)?.end(),
            Self::CreateStep { part, length } => to.u32(*part)?.u64(*length)?.end(),
            Self::OpenObject { object } => to.raw(&object.0)?.end(),
            Self::OpenFile { rev, key } => to.text(rev.as_str())?.text(key)?.end(),
            Self::Receive { length, already } => to.u64(*length)?.bytes(already)?.end(),
            Self::Send { length } => to.u64(*length)?.end(),
            Self::Watch { rev, container } => to.text(rev.as_str())?.text(container.as_str())?.end(),
            Self::Job { rev, container, mode } => {
                to.text(rev.as_str())?.text(container.as_str())?.u8(u8::from(*mode == StartMode::Mount))?.end()
            }
            Self::Serve { what } => to.text(what)?.end(),
            Self::Stick { tried, .. } if tried.len() > MEMORY_MAX => None,
            Self::Stick { node, kinds, tried } => to.text(node)?.text(kinds)?.bytes(tried)?.end(),
            Self::Sticks { kinds, disks } => to.text(kinds)?.text(disks)?.end(),
            Self::Listen { address, access, names } => to.text(address)?.text(access.word())?.text(names)?.end(),
            Self::Memory { bytes } | Self::Remember { bytes, .. } if bytes.len() > MEMORY_MAX => None,
            Self::Pass { already: bytes } | Self::Memory { bytes } => to.bytes(bytes)?.end(),
            Self::Remember { owner, bytes } => to.u8(*owner as u8)?.bytes(bytes)?.end(),
        }
    }

    /// Reads a whole message: its serial and itself.
    pub fn decode(bytes: &'a [u8]) -> Result<(u32, Self), WireError> {
        let (header, payload) = bytes.split_first_chunk::<HEADER>().ok_or(WireError::Length)?;
        if header[0] != VERSION {
            return Err(WireError::Version);
        }
        if usize::from(u16::from_le_bytes([header[2], header[3]])) != payload.len() {
            return Err(WireError::Length);
        }
        let mut from = Reader { rest: payload };
        let message = Self::decode_payload(header[1], &mut from)?;
        if !from.rest.is_empty() {
            return Err(WireError::Length);
        }
        Ok((u32::from_le_bytes([header[4], header[5], header[6], header[7]]), message))
    }

    fn decode_payload(kind: u8, from: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(match kind {
            1 => Self::Ready,
            2 => Self::Done {
                ok: from.flag()?,
                refusal: {
                    let code = Code::from_number(from.u16()?).ok_or(WireError::Value)?;
                    Refusal { code, at: from.u32()?, key: Text::EMPTY }
                },
                value: from.u64()?,
            }
            .with_key(from.text()?)?,
            3 => Self::Alive { bytes: from.u64()? },
            4 => Self::Digest { object: from.object()?, length: from.u64()? },
            5 => {
                let code = match from.u16()? {
                    0 => None,
                    number => Some(Code::from_number(number).ok_or(WireError::Value)?),
                };
                let errno = from.u32()? as i32;
                Self::Report { code, errno, step: from.text()? }
            }
            16 => Self::Recover,
            17 => Self::Stage { rev: from.rev()?, message: from.text()? },
            18 => Self::Prepare { bytes: from.bytes()? },
            19 => Self::Record { bytes: from.bytes()? },
            21 => Self::Adopt { object: from.object()?, part: from.u32()? },
            22 => Self::Drop { object: if from.flag()? { Some(from.object()?) } else { None }, part: from.u32()? },
            23 => {
                let mut keep = KeepList::new();
                for _ in 0..from.u8()? {
                    keep.push(from.rev()?).map_err(|_| WireError::Value)?;
                }
                Self::Collect { keep }
            }
            25 => Self::CommitMessage { rev: from.rev()?, text: from.text()? },
            26 => Self::CreatePart { object: from.object()?, part: from.u32()?, length: from.u64()? },
            27 => Self::CreateStep { part: from.u32()?, length: from.u64()? },
            28 => Self::OpenObject { object: from.object()? },
            29 => Self::OpenState { rev: from.rev()? },
            30 => Self::OpenFile { rev: from.rev()?, key: from.text()? },
            31 => Self::ListObjects,
            32 => Self::ListSteps,
            33 => Self::Intend { bytes: from.bytes()? },
            34 => Self::Clear,
            35 => Self::Grow { number: from.u8()? },
            36 => {
                let subject = if from.flag()? { Subject::User } else { Subject::Device };
                let key = from.text()?;
                Self::SetMetadata { subject, key, value: if from.flag()? { Some(from.bytes()?) } else { None } }
            }
            48 => Self::Receive { length: from.u64()?, already: from.bytes()? },
            49 => Self::Send { length: from.u64()? },
            64 => Self::Hash,
            65 => Self::Watch { rev: from.rev()?, container: from.part()? },
            66 => Self::Job {
                rev: from.rev()?,
                container: from.part()?,
                mode: if from.flag()? { StartMode::Mount } else { StartMode::Start },
            },
            67 => Self::Serve { what: from.text()? },
            68 => Self::Listen {
                address: from.text()?,
                access: Access::from_word(from.text()?).ok_or(WireError::Value)?,
                names: from.text()?,
            },
            69 => Self::Pass { already: from.bytes()? },
            70 => Self::Recall { owner: from.owner()? },
            71 => Self::Memory { bytes: from.memory()? },
            72 => Self::Remember { owner: from.owner()?, bytes: from.memory()? },
            73 => Self::Sticks { kinds: from.text()?, disks: from.text()? },
            74 => Self::Stick { node: from.text()?, kinds: from.text()?, tried: from.memory()? },
            _ => return Err(WireError::Kind),
        })
    }

    fn with_key(mut self, key: &str) -> Result<Self, WireError> {
        if let Self::Done { refusal, .. } = &mut self {
            refusal.key = Text::new(key).ok_or(WireError::Value)?;
        }
        Ok(self)
    }
}

/// Fills a message; `None` when it is full.
struct Writer<'b> {
    out: &'b mut [u8; MESSAGE_MAX],
    at: usize,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Option<&mut Self> {
        self.out.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(self)
    }
    fn u8(&mut self, value: u8) -> Option<&mut Self> {
        self.raw(&[value])
    }
    fn u16(&mut self, value: u16) -> Option<&mut Self> {
        self.raw(&value.to_le_bytes())
    }
    fn u32(&mut self, value: u32) -> Option<&mut Self> {
        self.raw(&value.to_le_bytes())
    }
    fn u64(&mut self, value: u64) -> Option<&mut Self> {
        self.raw(&value.to_le_bytes())
    }
    fn bytes(&mut self, bytes: &[u8]) -> Option<&mut Self> {
        self.u16(u16::try_from(bytes.len()).ok()?)?.raw(bytes)
    }
    fn text(&mut self, text: &str) -> Option<&mut Self> {
        self.bytes(text.as_bytes())
    }
    fn end(&mut self) -> Option<()> {
        Some(())
    }
}

/// Takes a payload apart.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn raw(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(WireError::Length)?;
        self.rest = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Length)?;
        self.rest = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }
    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value),
        }
    }
    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.u16()?;
        self.raw(length.into())
    }
    fn memory(&mut self) -> Result<&'a [u8], WireError> {
        self.bytes().and_then(|bytes| if bytes.len() <= MEMORY_MAX { Ok(bytes) } else { Err(WireError::Value) })
    }
    fn owner(&mut self) -> Result<Owner, WireError> {
        Owner::ALL.get(usize::from(self.u8()?)).copied().ok_or(WireError::Value)
    }
    fn text(&mut self) -> Result<&'a str, WireError> {
        core::str::from_utf8(self.bytes()?).map_err(|_| WireError::Value)
    }
    fn rev(&mut self) -> Result<RevName, WireError> {
        RevName::parse(self.text()?).map_err(|_| WireError::Value)
    }
    fn part(&mut self) -> Result<PartName, WireError> {
        PartName::parse(self.text()?).map_err(|_| WireError::Value)
    }
    fn object(&mut self) -> Result<ObjectId, WireError> {
        Ok(ObjectId(self.array()?))
    }
}

/// Descriptors that came beside a message.
pub type Fds = heapless::Vec<OwnedFd, FDS_MAX>;

/// Where one message is received.
pub struct Buffer([u8; MESSAGE_MAX]);

impl Buffer {
    /// An empty one.
    pub const fn new() -> Self {
        Self([0; MESSAGE_MAX])
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// One message as it came.
pub struct Received<'b> {
    /// The serial of the request that it is or answers.
    pub serial: u32,
    /// What was said.
    pub message: Message<'b>,
    /// What came with it.
    pub fds: Fds,
}

/// One end of the socket pair.
pub struct Channel(OwnedFd);

impl Channel {
    /// Over this socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// A connected pair, close-on-exec, the first end (PID 1's) non-blocking.
    pub fn pair() -> Result<(Self, Self), Errno> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let (ours, theirs) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Sends one message with descriptors, whole or not at all.
    pub fn send(&self, serial: u32, message: &Message<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let mut bytes = [0u8; MESSAGE_MAX];
        let length = message.encode(serial, &mut bytes).map_err(|TooLong| WireError::Length)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(WireError::Length);
        }
        let flags = net::SendFlags::NOSIGNAL;
        loop {
            // Most errands may not even make the call that can pass a descriptor on.
            let sent = match fds {
                [] => net::send(&self.0, &bytes[..length], flags),
                _ => net::sendmsg(&self.0, &[IoSlice::new(&bytes[..length])], &mut control, flags),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives one message; `None` when the other end is closed. `Io(AGAIN)` when a non-blocking end has none.
    pub fn receive<'b>(&self, buffer: &'b mut Buffer) -> Result<Option<Received<'b>>, WireError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut into = [IoSliceMut::new(&mut buffer.0)];
            match net::recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(got) => break got,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let mut fds = Fds::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                // A descriptor beyond the bound is closed by being dropped.
                sent.for_each(|fd| drop(fds.push(fd)));
            }
        }
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.flags.contains(net::ReturnFlags::TRUNC) {
            return Err(WireError::Length);
        }
        let (serial, message) = Message::decode(&buffer.0[..got.bytes])?;
        Ok(Some(Received { serial, message, fds }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rev() -> RevName {
        RevName::parse("locals/a").unwrap()
    }

    fn every_message() -> Vec<Message<'static>> {
        let object = ObjectId([7; 32]);
        let container = PartName::parse("web").unwrap();
        let mut keep = KeepList::new();
        keep.push(rev()).unwrap();
        keep.push(RevName::factory()).unwrap();
        vec![
            Message::Ready,
            Message::done(5),
            Message::refused(Refusal {
                code: Code::ObjectMissing,
                key: Text::new("web/root.squashfs").unwrap(),
                at: 9,
            }),
            Message::Alive { bytes: u64::MAX },
            Message::Digest { object, length: 1 },
            Message::Report { code: Some(Code::InitMissing), step: "exec", errno: 2 },
            Message::Report { code: None, step: "", errno: 0 },
            Message::Recover,
            Message::Stage { rev: rev(), message: "why" },
            Message::Prepare { bytes: &[4; 512] },
            Message::Record { bytes: &[1, 2, 3] },
            Message::Adopt { object, part: 3 },
            Message::Drop { object: Some(object), part: 3 },
            Message::Drop { object: None, part: 4 },
            Message::Collect { keep },
            Message::CommitMessage { rev: rev(), text: "m" },
            Message::CreatePart { object, part: 1, length: 2 },
            Message::CreateStep { part: 1, length: 2 },
            Message::OpenObject { object },
            Message::OpenState { rev: rev() },
            Message::OpenFile { rev: rev(), key: ".pv/progress" },
            Message::ListObjects,
            Message::ListSteps,
            Message::Intend { bytes: &[4; 512] },
            Message::Clear,
            Message::Grow { number: 3 },
            Message::SetMetadata { subject: Subject::User, key: "a", value: Some(&[7; limits::METADATA_VALUE_MAX]) },
            Message::SetMetadata { subject: Subject::Device, key: "a.b", value: None },
            Message::Receive { length: 10, already: b"abc" },
            Message::Send { length: 10 },
            Message::Hash,
            Message::Watch { rev: rev(), container },
            Message::Job { rev: rev(), container, mode: StartMode::Mount },
            Message::Serve { what: "hvc0" },
            Message::Listen { address: "0.0.0.0:12368", access: Access::Paired, names: "dev" },
            Message::Pass { already: b"GET /endpoint HTTP/1.1\r\n\r\n" },
            Message::Sticks { kinds: "vfat,ext4", disks: "" },
            Message::Stick { node: "sda1", kinds: "vfat", tried: &[1, 33] },
            Message::Recall { owner: Owner::Endpoint },
            Message::Memory { bytes: b"m" },
            Message::Remember { owner: Owner::Usb, bytes: &[9; MEMORY_MAX] },
        ]
    }

    #[test]
    fn golden_bytes() {
        let mut out = [0u8; MESSAGE_MAX];
        let golden = |message: Message<'_>, out: &mut [u8; MESSAGE_MAX]| {
            let length = message.encode(0x01020304, out).unwrap();
            out[..length].to_vec()
        };
        assert_eq!(golden(Message::Ready, &mut out), [1, 1, 0, 0, 4, 3, 2, 1]);
        assert_eq!(
            golden(Message::Stage { rev: rev(), message: "why" }, &mut out),
            b"\x01\x11\x0f\0\x04\x03\x02\x01\x08\0locals/a\x03\0why"
        );
        assert_eq!(
            golden(Message::refused(Refusal::key(Code::ObjectMissing, "k")), &mut out),
            b"\x01\x02\x12\0\x04\x03\x02\x01\0\xb1\x04\0\0\0\0\0\0\0\0\0\0\0\0\x01\0k"
        );
        assert_eq!(
            golden(
                Message::Job { rev: rev(), container: PartName::parse("web").unwrap(), mode: StartMode::Mount },
                &mut out
            ),
            b"\x01\x42\x10\0\x04\x03\x02\x01\x08\0locals/a\x03\0web\x01"
        );
        assert_eq!(
            golden(Message::Receive { length: 258, already: b"ab" }, &mut out),
            b"\x01\x30\x0c\0\x04\x03\x02\x01\x02\x01\0\0\0\0\0\0\x02\0ab"
        );
    }

    #[test]
    fn every_message_comes_back_and_no_cut_of_one_is_accepted() {
        for message in every_message() {
            let mut out = [0u8; MESSAGE_MAX];
            let length = message.encode(42, &mut out).unwrap();
            assert_eq!(Message::decode(&out[..length]), Ok((42, message.clone())));
            for cut in 0..length {
                assert!(Message::decode(&out[..cut]).is_err(), "{message:?} cut at {cut}");
                // The same cut with a header that admits it is refused too: a form has one length.
                let mut short = out;
                if let Some(payload) = cut.checked_sub(HEADER) {
                    short[2..4].copy_from_slice(&(payload as u16).to_le_bytes());
                    assert!(Message::decode(&short[..cut]).is_err(), "{message:?} shortened to {cut}");
                }
            }
            assert!(Message::decode(&out[..length + 1]).is_err());
        }
    }

    #[test]
    fn kinds_are_unique() {
        let mut kinds: Vec<u8> = every_message().iter().map(Message::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), every_message().len() - 4); // Done, Report, Drop and SetMetadata are listed twice
    }

    #[test]
    fn descriptors_travel_with_their_message() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        ours.send(7, &Message::Hash, &[read.as_fd(), write.as_fd()]).unwrap();
        let mut buffer = Buffer::new();
        let got = theirs.receive(&mut buffer).unwrap().unwrap();
        assert_eq!((got.serial, got.message, got.fds.len()), (7, Message::Hash, 2));
        rustix::io::write(&got.fds[1], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte), Ok(1));
        drop(ours);
        assert!(theirs.receive(&mut Buffer::new()).unwrap().is_none());
    }

    #[test]
    fn an_empty_end_would_block() {
        let (ours, _theirs) = Channel::pair().unwrap();
        assert_eq!(ours.receive(&mut Buffer::new()).err(), Some(WireError::Io(Errno::AGAIN)));
    }
}
