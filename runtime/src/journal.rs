//! The journal: one record about the last update, kept in two slots of 512 bytes on the boot volume.
//!
//! Purpose: it says *why* (which candidate, how often tried, what it failed of), so that the device can explain
//! itself after a power cut. It is advisory: which revision boots is decided by the environment alone, and
//! `boot::choose` works without any record.
//!
//! Fault model: a write tears at 512 bytes or is lost. A slot is one sector, guarded by a crc32, and the slot
//! that holds the newest record is never overwritten, so the record before a cut write stays readable.
//!
//! Slot, little endian: crc32 of what follows up to the payload's end | `SWBJ` | version u8 | 0 | payload length
//! u16 | sequence u32 | payload. Payload: fields of fixed size in the order of `encode`. A reader skips what
//! follows the fields that it knows, so new fields are added at the end and an older release still reads it.
//!
//! What it does not do: no history, no list of revisions, no lock.

use crate::{
    fault::Code,
    id::{PartName, RevName},
    limits,
    port::Region,
};

/// Size of a slot: the unit that a medium writes or does not write.
pub const SLOT: usize = 512;
/// Size of the whole journal.
pub const SIZE: usize = 2 * SLOT;

/// Version of the payload that this release writes.
const VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"SWBJ";
const HEAD: usize = 16;
/// Field of a revision's name: a length and the longest name.
const REV: usize = 1 + limits::REV_NAME_MAX;
/// Field of a container's name.
const PART: usize = 1 + limits::PART_NAME_MAX;
/// kind, phase, tries, cold, code, candidate, previous, container.
const FIRST: usize = 6 + 2 * REV + PART;
/// And what was added, one after the other: falls, factory reset.
const PAYLOAD: usize = FIRST + 2;

const _: () = assert!(HEAD + PAYLOAD <= SLOT);

/// What the last update is about and how far it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The revision that is or was tried.
    pub candidate: RevName,
    /// The revision that was committed when the candidate was armed.
    pub previous: RevName,
    /// How the candidate is tried.
    pub kind: Kind,
    /// How far it came.
    pub phase: Phase,
    /// Restarts in a row, since it ended, that a fallen container forced.
    pub falls: u8,
    /// Since it ended a factory reset was asked for: it has begun if the environment says so, and ends with a record without this.
    pub factory_reset: bool,
}

/// How a candidate is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// By a boot.
    Reboot,
    /// By changing containers of the running system.
    InPlace,
}

impl Kind {
    /// Its word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Reboot => "reboot",
            Kind::InPlace => "in-place",
        }
    }
}

/// How far an update came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The environment is about to name the candidate, or does.
    Armed,
    /// Our first instruction was reached in the candidate, this often.
    Trial {
        /// Boots of the candidate that reached us.
        tries: u8,
    },
    /// It will not be tried again.
    Failed {
        /// Why.
        code: Code,
        /// Which container is to blame, if one is.
        container: Option<PartName>,
    },
    /// It is committed.
    Done {
        /// It was committed in place and has not met its goals in a boot yet.
        cold_pending: bool,
    },
}

impl Record {
    /// The revision that is committed as far as this record knows.
    pub fn committed(&self) -> RevName {
        if matches!(self.phase, Phase::Done { .. }) { self.candidate } else { self.previous }
    }

    /// Boots of the candidate that reached us, as far as this record knows.
    pub fn tries(&self) -> u8 {
        if let Phase::Trial { tries } = self.phase { tries } else { 0 }
    }

    /// Of an update that is about to be tried.
    pub fn armed(candidate: RevName, previous: RevName, kind: Kind) -> Self {
        Self { candidate, previous, kind, phase: Phase::Armed, falls: 0, factory_reset: false }
    }

    /// One that stands for no update: `rev` is committed, and nothing is known of how it came to be.
    pub fn none(rev: RevName) -> Self {
        Self::armed(rev, rev, Kind::Reboot).with(Phase::Done { cold_pending: false })
    }

    /// The same update, further.
    pub fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }
}

/// The newest valid record. `None` if there is none, or if its meaning is not known to this release.
pub fn load<R: Region>(region: &mut R) -> Result<Option<Record>, Code> {
    Ok(newest(region)?.and_then(|slot| slot.record))
}

/// Writes a record over the slot that does not hold the newest one. Not durable until the region, or the
/// volume that it lies on, is synced.
pub fn append<R: Region>(region: &mut R, record: &Record) -> Result<(), Code> {
    let (index, sequence) = match newest(region)? {
        Some(slot) => (1 - slot.index, slot.sequence + 1),
        None => (0, 1),
    };
    region.write_at((index * SLOT) as u64, &encode(sequence, record))
}

struct Slot {
    index: usize,
    sequence: u32,
    record: Option<Record>,
}

fn newest<R: Region>(region: &mut R) -> Result<Option<Slot>, Code> {
    let mut best: Option<Slot> = None;
    for index in 0..2 {
        let mut bytes = [0u8; SLOT];
        region.read_at((index * SLOT) as u64, &mut bytes)?;
        let Some((sequence, record)) = decode(&bytes) else { continue };
        if best.as_ref().is_none_or(|slot| sequence > slot.sequence) {
            best = Some(Slot { index, sequence, record });
        }
    }
    Ok(best)
}

/// One slot's bytes.
pub fn encode(sequence: u32, record: &Record) -> [u8; SLOT] {
    let (phase, tries, cold, code, container) = match record.phase {
        Phase::Armed => (1, 0, false, 0, None),
        Phase::Trial { tries } => (2, tries, false, 0, None),
        Phase::Failed { code, container } => (3, 0, false, code as u16, container),
        Phase::Done { cold_pending } => (4, 0, cold_pending, 0, None),
    };
    let kind = match record.kind {
        Kind::Reboot => 1,
        Kind::InPlace => 2,
    };
    let mut slot = [0u8; SLOT];
    slot[4..8].copy_from_slice(MAGIC);
    slot[8] = VERSION;
    slot[10..12].copy_from_slice(&(PAYLOAD as u16).to_le_bytes());
    slot[12..16].copy_from_slice(&sequence.to_le_bytes());
    let payload = &mut slot[HEAD..HEAD + PAYLOAD];
    payload[0] = kind;
    payload[1] = phase;
    payload[2] = tries;
    payload[3] = cold as u8;
    payload[4..6].copy_from_slice(&code.to_le_bytes());
    put(&mut payload[6..6 + REV], record.candidate.as_str());
    put(&mut payload[6 + REV..6 + 2 * REV], record.previous.as_str());
    payload[FIRST] = record.falls;
    payload[FIRST + 1] = record.factory_reset as u8;
    put(&mut payload[6 + 2 * REV..FIRST], container.as_ref().map_or("", |name| name.as_str()));
    let sum = crc32fast::hash(&slot[4..HEAD + PAYLOAD]);
    slot[..4].copy_from_slice(&sum.to_le_bytes());
    slot
}

/// The sequence of a valid slot, and its record if its meaning is known.
pub fn decode(slot: &[u8; SLOT]) -> Option<(u32, Option<Record>)> {
    let length = u16::from_le_bytes([slot[10], slot[11]]) as usize;
    let guarded = slot.get(4..HEAD + length)?;
    let sum = u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]);
    if &slot[4..8] != MAGIC || crc32fast::hash(guarded) != sum {
        return None;
    }
    let sequence = u32::from_le_bytes([slot[12], slot[13], slot[14], slot[15]]);
    Some((sequence, meaning(&slot[HEAD..HEAD + length])))
}

fn meaning(payload: &[u8]) -> Option<Record> {
    let added = |index: usize| payload.get(FIRST + index).copied().unwrap_or(0); // an older release does not write it
    let (falls, factory_reset) = (added(0), added(1) != 0);
    let payload = payload.get(..FIRST)?; // what follows was added by a newer release
    let container = get(&payload[6 + 2 * REV..])?;
    let phase = match payload[1] {
        1 => Phase::Armed,
        2 => Phase::Trial { tries: payload[2] },
        3 => Phase::Failed {
            // a code that a newer release added is still a failure
            code: Code::from_number(u16::from_le_bytes([payload[4], payload[5]])).unwrap_or(Code::Internal),
            container: if container.is_empty() { None } else { Some(PartName::parse(container).ok()?) },
        },
        4 => Phase::Done { cold_pending: payload[3] != 0 },
        _ => return None,
    };
    Some(Record {
        candidate: RevName::parse(get(&payload[6..6 + REV])?).ok()?,
        previous: RevName::parse(get(&payload[6 + REV..6 + 2 * REV])?).ok()?,
        kind: match payload[0] {
            1 => Kind::Reboot,
            2 => Kind::InPlace,
            _ => return None,
        },
        phase,
        falls,
        factory_reset,
    })
}

fn put(field: &mut [u8], text: &str) {
    field[0] = text.len() as u8;
    field[1..=text.len()].copy_from_slice(text.as_bytes());
}

fn get(field: &[u8]) -> Option<&str> {
    core::str::from_utf8(field.get(1..=field[0] as usize)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let container = PartName::parse("web").ok();
        let phases = [
            Phase::Armed,
            Phase::Trial { tries: 3 },
            Phase::Failed { code: Code::GoalsMissed, container },
            Phase::Failed { code: Code::LoaderGaveUp, container: None },
            Phase::Done { cold_pending: true },
            Phase::Done { cold_pending: false },
        ];
        let long = format!("locals/{}", "x".repeat(limits::LOCAL_NAME_MAX));
        let mut all = vec![];
        for kind in [Kind::Reboot, Kind::InPlace] {
            for phase in phases {
                for name in ["0", "locals/b", &long] {
                    let candidate = RevName::parse(name).unwrap();
                    let (falls, factory_reset) = (all.len() as u8, all.len() % 3 == 0);
                    all.push(Record { candidate, previous: RevName::factory(), kind, phase, falls, factory_reset });
                }
            }
        }
        all
    }

    struct Bytes([u8; SIZE]);
    impl Region for Bytes {
        fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
            out.copy_from_slice(&self.0[offset as usize..][..out.len()]);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
            self.0[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }
        fn sync(&mut self) -> Result<(), Code> {
            Ok(())
        }
        fn drop_cache(&mut self) {}
    }

    /// The places of the fields never change: another release reads them.
    #[test]
    fn the_bytes_of_a_slot() {
        let container = PartName::parse("web").ok();
        let phase = Phase::Failed { code: Code::GoalsMissed, container };
        let [candidate, previous] = ["locals/b", "locals/before"].map(|name| RevName::parse(name).unwrap());
        let (kind, factory_reset) = (Kind::InPlace, true);
        let slot = encode(0x0403_0201, &Record { candidate, previous, kind, phase, falls: 9, factory_reset });
        let (first, second, third, last) = (22, 94, 166, 230);
        assert_eq!(&slot[4..16], b"SWBJ\x01\0\xd8\0\x01\x02\x03\x04", "magic, version, length, sequence");
        assert_eq!(slot[16..20], [2, 3, 0, 0], "in place, failed, no tries, not cold");
        assert_eq!(slot[20..22], (Code::GoalsMissed as u16).to_le_bytes());
        assert_eq!(&slot[first..first + 9], b"\x08locals/b");
        assert_eq!(&slot[second..second + 14], b"\x0dlocals/before");
        assert_eq!(&slot[third..third + 4], b"\x03web");
        assert_eq!(slot[last..last + 2], [9, 1], "falls, factory reset");
        assert_eq!(decode(&slot).and_then(|(_, record)| record).map(|record| record.previous), Some(previous));
        assert!(slot[last + 2..].iter().all(|byte| *byte == 0));
        assert_eq!([Kind::Reboot, Kind::InPlace].map(Kind::word), ["reboot", "in-place"]);
        let tries = |phase| Record::none(candidate).with(phase).tries();
        assert_eq!([tries(Phase::Trial { tries: 3 }), tries(Phase::Armed)], [3, 0]);
    }

    #[test]
    fn every_record_is_read_back() {
        for (sequence, record) in records().into_iter().enumerate() {
            assert_eq!(decode(&encode(sequence as u32, &record)), Some((sequence as u32, Some(record))));
        }
    }

    #[test]
    fn a_record_of_a_newer_release_is_read_and_its_further_fields_are_skipped() {
        let record = records()[0];
        let mut slot = encode(7, &record);
        slot[8] = 9;
        let length = PAYLOAD + 40;
        slot[10..12].copy_from_slice(&(length as u16).to_le_bytes());
        slot[HEAD + PAYLOAD..HEAD + length].fill(0xa5);
        let sum = crc32fast::hash(&slot[4..HEAD + length]);
        slot[..4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&slot), Some((7, Some(record))));
    }

    #[test]
    fn a_record_of_an_older_release_lacks_what_was_added_since() {
        let record = records()[3];
        assert!(record.falls != 0 && record.factory_reset);
        let mut slot = encode(7, &record);
        slot[10..12].copy_from_slice(&(FIRST as u16).to_le_bytes());
        slot[HEAD + FIRST..].fill(0);
        let sum = crc32fast::hash(&slot[4..HEAD + FIRST]);
        slot[..4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&slot), Some((7, Some(Record { falls: 0, factory_reset: false, ..record }))));
        // and one of the release between
        let mut slot = encode(7, &record);
        slot[10..12].copy_from_slice(&(FIRST as u16 + 1).to_le_bytes());
        slot[HEAD + FIRST + 1..].fill(0);
        let sum = crc32fast::hash(&slot[4..HEAD + FIRST + 1]);
        slot[..4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&slot), Some((7, Some(Record { factory_reset: false, ..record }))));
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_record_is_found() {
        let good = encode(3, &records()[1]);
        for bit in 0..(HEAD + PAYLOAD) * 8 {
            let mut slot = good;
            slot[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&slot), None, "bit {bit}");
        }
    }

    #[test]
    fn the_newest_record_survives_the_loss_of_the_next_one() {
        let mut region = Bytes([0xff; SIZE]);
        assert_eq!(load(&mut region), Ok(None));
        let mut before = None;
        for record in records() {
            append(&mut region, &record).unwrap();
            assert_eq!(load(&mut region), Ok(Some(record)));
            for index in 0..2 {
                let mut torn = Bytes(region.0);
                torn.0[index * SLOT + 100] ^= 0x10;
                let survivor = load(&mut torn).unwrap();
                assert!(survivor == Some(record) || survivor == before);
            }
            before = Some(record);
        }
    }

    #[test]
    fn garbage_is_no_record() {
        for fill in [0u8, 0xff, 0x53] {
            assert_eq!(decode(&[fill; SLOT]), None);
        }
    }
}
