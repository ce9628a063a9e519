//! An exported revision: a tar of `json` and `objects/<sha256>`, as its bytes come.
//!
//! Total and bounded: one pass, one member at a time, nothing kept but the state. The same walk is made by `pvcontrol`
//! before it installs an archive and by `pvr plan` before it tells about one, so both refuse the same.
//!
//! Invariants: `json` is the first member and comes once, so every object is known to be named by the state before its
//! content comes; an object is whole and has its hash before `Visitor::end`. One that comes again (the original writes
//! it once for each file that names it) is checked again. There are no other members: no links, no paths to follow.
//! Reference: pvr-and-hub 5.
//!
//! What it does not do: it does not unpack gzip (`Source` does), and it judges no state beyond its envelope (`admit`).

use crate::{
    fault::{Code, Refusal},
    id::ObjectId,
    limits,
    state::{Spans, State, Value},
};
use sha2::{Digest, Sha256};

/// Everything in a tar comes in blocks of this size.
pub const BLOCK: usize = 512;
/// Bytes moved at a time.
const PIECE: usize = 16 * 1024;
/// Most that may follow the end of the archive, all zero: tar fills a record of 20 blocks, some tools more.
const TAIL_MAX: usize = 64 * 1024;
const OBJECTS: &str = "objects/";

/// Where the bytes of an archive come from, unpacked.
pub trait Source {
    /// Fills `out` as far as it can; 0 is the end. `ArchiveInvalid` if it cannot be unpacked.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Code>;
}

/// Who looks at the members as they come. What it refuses ends the walk.
pub trait Visitor {
    /// The state, whose envelope is good.
    fn state(&mut self, text: &[u8]) -> Result<(), Refusal>;
    /// An object of the state begins.
    fn begin(&mut self, id: ObjectId, size: u64) -> Result<(), Refusal>;
    /// A piece of it.
    fn piece(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
    /// It is whole, and has the hash that it is named by.
    fn end(&mut self, id: ObjectId) -> Result<(), Refusal>;
}

/// Walks a whole archive. `text` holds its state: `limits::STATE_MAX`. Returns the length of the state.
pub fn walk(
    source: &mut dyn Source,
    text: &mut [u8],
    spans: &mut Spans,
    visitor: &mut dyn Visitor,
) -> Result<usize, Refusal> {
    let mut tar = Tar { source, left: limits::ARCHIVE_MAX };
    let length = match tar.next()? {
        Some(Member::State(size)) if size > text.len() as u64 => {
            return Err(Refusal::at(Code::StateTooLarge, limits::STATE_MAX));
        }
        Some(Member::State(size)) => size as usize,
        _ => return Err(Refusal::key(Code::ArchiveInvalid, "json")),
    };
    let text = &mut text[..length];
    tar.fill(text)?;
    tar.pad(length as u64)?;
    let state = State::read(text, spans)?;
    visitor.state(text)?;
    for _ in 0..=limits::STATE_ENTRIES_MAX {
        match tar.next()? {
            None => return tar.tail().map(|()| length),
            Some(Member::State(_)) => return Err(Refusal::key(Code::ArchiveMember, "json")),
            Some(Member::Folder) => {}
            Some(Member::Object(id, _)) if !names(&state, id) => return Err(of(Code::ArchiveMember, id)),
            Some(Member::Object(id, size)) => tar.object(id, size, visitor)?,
        }
    }
    Err(Code::ArchiveTooLarge.into())
}

fn names(state: &State<'_>, id: ObjectId) -> bool {
    state.entries().any(|entry| entry.value == Value::Object(id))
}

/// A refusal about an object.
fn of(code: Code, id: ObjectId) -> Refusal {
    let mut key = heapless::String::<72>::new();
    let _ = key.push_str(OBJECTS).and_then(|()| key.push_str(core::str::from_utf8(&id.hex()).unwrap_or("")));
    Refusal::key(code, &key)
}

/// One member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Member {
    State(u64),
    Object(ObjectId, u64),
    /// `objects/` itself, which archives made by hand have.
    Folder,
}

struct Tar<'s> {
    source: &'s mut dyn Source,
    /// Bytes that may still come.
    left: u64,
}

impl Tar<'_> {
    /// Fills `out`.
    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(out.len() as u64).ok_or(Code::ArchiveTooLarge)?;
        while !out.is_empty() {
            match self.source.read(out)? {
                0 => return Err(Code::ArchiveTruncated.into()),
                count => out = &mut out[count..],
            }
        }
        Ok(())
    }

    /// The next member; `None` at the end.
    fn next(&mut self) -> Result<Option<Member>, Refusal> {
        let mut block = [0u8; BLOCK];
        self.fill(&mut block)?;
        if block == [0; BLOCK] { Ok(None) } else { member(&block).map(Some) }
    }

    /// What fills the last block of a member.
    fn pad(&mut self, size: u64) -> Result<(), Refusal> {
        let rest = (size % BLOCK as u64) as usize;
        if rest == 0 { Ok(()) } else { self.fill(&mut [0; BLOCK][rest..]) }
    }

    fn object(&mut self, id: ObjectId, size: u64, visitor: &mut dyn Visitor) -> Result<(), Refusal> {
        if size > self.left {
            return Err(of(Code::ArchiveTooLarge, id));
        }
        visitor.begin(id, size)?;
        let (mut hash, mut left, mut piece) = (Sha256::new(), size, [0u8; PIECE]);
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            self.fill(&mut piece[..room])?;
            hash.update(&piece[..room]);
            left -= room as u64;
            visitor.piece(&piece[..room])?;
        }
        self.pad(size)?;
        let found: [u8; 32] = hash.finalize().into();
        if found != id.0 {
            return Err(of(Code::ObjectMismatch, id));
        }
        visitor.end(id)
    }

    /// Reads to the end, so that what packs the archive has shown that it is whole.
    fn tail(&mut self) -> Result<(), Refusal> {
        let mut piece = [0u8; BLOCK];
        for _ in 0..=TAIL_MAX / BLOCK {
            match self.source.read(&mut piece)? {
                0 => return Ok(()),
                count if piece[..count].iter().any(|byte| *byte != 0) => return Err(Code::ArchiveInvalid.into()),
                _ => {}
            }
        }
        Err(Code::ArchiveInvalid.into())
    }
}

/// Reads a header. Fields: name 100 bytes, size 12 at 124, checksum 8 at 148, type at 156, magic at 257, prefix at 345.
fn member(block: &[u8; BLOCK]) -> Result<Member, Refusal> {
    let invalid = || Refusal::new(Code::ArchiveInvalid);
    let sum = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) });
    if octal(&block[148..156]) != Some(sum.sum()) || &block[257..262] != b"ustar" {
        return Err(invalid());
    }
    let name = text(&block[..100]).ok_or_else(invalid)?;
    let size = octal(&block[124..136]).ok_or_else(invalid)?;
    let foreign = || Err(Refusal::key(Code::ArchiveMember, name));
    if block[345] != 0 && &block[257..263] == b"ustar\0" {
        return foreign(); // a name of ours needs no prefix
    }
    match (block[156], name.strip_prefix("./").unwrap_or(name)) {
        (b'0' | 0, "json") => Ok(Member::State(size)),
        (b'0' | 0, path) => match path.strip_prefix(OBJECTS).and_then(ObjectId::parse) {
            Some(id) => Ok(Member::Object(id, size)),
            None => foreign(),
        },
        (b'5', "objects" | OBJECTS | "") if size == 0 => Ok(Member::Folder),
        _ => foreign(),
    }
}

fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).ok()
}

/// A number: octal digits, ended by a blank or a zero byte.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field)?.trim_matches(' ');
    if digits.is_empty() { None } else { u64::from_str_radix(digits, 8).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec, vec::Vec};

    /// Bytes that come in pieces of odd sizes.
    struct Bytes<'a>(&'a [u8]);

    impl Source for Bytes<'_> {
        fn read(&mut self, out: &mut [u8]) -> Result<usize, Code> {
            let count = out.len().min(self.0.len()).min(1000);
            let (now, rest) = self.0.split_at(count);
            out[..count].copy_from_slice(now);
            self.0 = rest;
            Ok(count)
        }
    }

    #[derive(Default)]
    struct Seen {
        state: Vec<u8>,
        objects: Vec<(ObjectId, u64)>,
        bytes: usize,
        ended: usize,
    }

    impl Visitor for Seen {
        fn state(&mut self, text: &[u8]) -> Result<(), Refusal> {
            self.state = text.to_vec();
            Ok(())
        }
        fn begin(&mut self, id: ObjectId, size: u64) -> Result<(), Refusal> {
            self.objects.push((id, size));
            Ok(())
        }
        fn piece(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
            self.bytes += bytes.len();
            Ok(())
        }
        fn end(&mut self, _: ObjectId) -> Result<(), Refusal> {
            self.ended += 1;
            Ok(())
        }
    }

    fn hash(content: &[u8]) -> ObjectId {
        ObjectId(Sha256::digest(content).into())
    }

    fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    fn seal(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u64 = block[..BLOCK].iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn object(content: &[u8]) -> Vec<u8> {
        entry(b'0', &format!("objects/{}", hash(content)), content)
    }

    fn state(contents: &[&[u8]]) -> String {
        let entries: Vec<String> =
            contents.iter().enumerate().map(|(at, content)| format!(r#","f{at}":"{}""#, hash(content))).collect();
        format!(r##"{{"#spec":"pantavisor-service-system@1"{}}}"##, entries.concat())
    }

    fn archive(members: &[Vec<u8>]) -> Vec<u8> {
        [members.concat(), vec![0; 2 * BLOCK]].concat()
    }

    fn walked(bytes: &[u8]) -> Result<Seen, (Code, String)> {
        let (mut text, mut spans, mut seen) = (vec![0; limits::STATE_MAX], Spans::new(), Seen::default());
        match walk(&mut Bytes(bytes), &mut text, &mut spans, &mut seen) {
            Ok(length) => {
                assert_eq!(&text[..length], seen.state);
                Ok(seen)
            }
            Err(refusal) => Err((refusal.code, refusal.key.as_str().into())),
        }
    }

    fn refused(bytes: &[u8]) -> Code {
        walked(bytes).map(|_| ()).unwrap_err().0
    }

    static BIG: [u8; 40_000] = [7; 40_000];

    fn good() -> Vec<u8> {
        let text = state(&[b"one", &BIG, b""]);
        archive(&[entry(b'0', "json", text.as_bytes()), object(b"one"), object(&BIG), object(b"")])
    }

    #[test]
    fn state_and_objects_come_whole_and_in_order() {
        let seen = walked(&good()).unwrap();
        assert_eq!(seen.objects, [(hash(b"one"), 3), (hash(&BIG), 40_000), (hash(b""), 0)]);
        assert_eq!((seen.bytes, seen.ended), (40_003, 3));
        // What the original writes: an object once more for each file that names it; what a hand writes: the folder.
        let text = state(&[b"one", b"one"]);
        let members = [entry(b'0', "./json", text.as_bytes()), entry(b'5', "objects/", b""), object(b"one")];
        let twice = archive(&[&members[..], &[object(b"one")]].concat());
        assert_eq!(walked(&twice).unwrap().ended, 2);
        assert!(walked(&[good(), vec![0; 18 * BLOCK]].concat()).is_ok());
    }

    #[test]
    fn no_beginning_of_an_archive_is_one() {
        let whole = good();
        for cut in (0..whole.len() - 2 * BLOCK).step_by(97) {
            assert_eq!(refused(&whole[..cut]), Code::ArchiveTruncated, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_neither_the_state_nor_an_object_of_it_is_refused_by_name() {
        let json = entry(b'0', "json", state(&[b"one"]).as_bytes());
        let with = |member: Vec<u8>| walked(&archive(&[json.clone(), member])).map(|_| ()).unwrap_err();
        let name = format!("objects/{}", hash(b"one"));
        for (kind, name) in [
            (b'0', "../objects/x"),
            (b'0', "/etc/passwd"),
            (b'0', "objects/../../etc/passwd"),
            (b'0', "objects/short"),
            (b'0', ".pvr/json"),
            (b'0', "json"),
            (b'1', name.as_str()),
            (b'2', name.as_str()),
            (b'2', "objects/"),
            (b'5', "elsewhere/"),
            (b'x', "pax"),
            (b'L', "././@LongLink"),
        ] {
            let (code, key) = with(entry(kind, name, b""));
            assert_eq!((code, key.as_str()), (Code::ArchiveMember, name), "{} {name}", kind as char);
        }
        let (code, key) = with(object(b"two"));
        assert_eq!(
            (code, key),
            (Code::ArchiveMember, format!("objects/{}", hash(b"two"))),
            "the state does not name it"
        );
        let mut prefixed = object(b"one");
        prefixed[345] = b'a';
        seal(&mut prefixed[..BLOCK]);
        assert_eq!(with(prefixed).0, Code::ArchiveMember);
        let lie = entry(b'0', &name, b"two");
        assert_eq!(with(lie).0, Code::ObjectMismatch);
    }

    #[test]
    fn what_is_no_archive_or_too_much_is_refused() {
        let json = entry(b'0', "json", state(&[b"one"]).as_bytes());
        assert_eq!(refused(&[]), Code::ArchiveTruncated);
        assert_eq!(refused(&[0; 1024]), Code::ArchiveInvalid, "empty");
        assert_eq!(refused(&[b'x'; 1024]), Code::ArchiveInvalid);
        assert_eq!(refused(&archive(&[object(b"one"), json.clone()])), Code::ArchiveInvalid, "the state comes first");
        let mut flipped = good();
        flipped[0] ^= 1;
        assert_eq!(refused(&flipped), Code::ArchiveInvalid, "its checksum");
        let mut tail = good();
        tail.extend_from_slice(b"more");
        assert_eq!(refused(&tail), Code::ArchiveInvalid);
        assert_eq!(refused(&[good(), vec![0; 2 * TAIL_MAX]].concat()), Code::ArchiveInvalid);
        assert_eq!(refused(&archive(&[entry(b'0', "json", b"{")])), Code::StateTruncated);
        let large = entry(b'0', "json", &vec![b' '; limits::STATE_MAX + 1]);
        assert_eq!(refused(&archive(&[large])), Code::StateTooLarge);
        let mut huge = object(b"one");
        huge[124..136].copy_from_slice(b"77777777777\0");
        seal(&mut huge[..BLOCK]);
        assert_eq!(refused(&archive(&[json.clone(), huge])), Code::ArchiveTooLarge);
        let many: Vec<Vec<u8>> = std::iter::once(json).chain((0..1100).map(|_| object(b"one"))).collect();
        assert_eq!(refused(&archive(&many)), Code::ArchiveTooLarge);
    }
}
