//! Every power cut of an install, on media that lose and tear sectors and on flash that is erased and programmed.

use super::*;
use crate::env::medium::{Medium, Random};
use std::{collections::BTreeSet, vec, vec::Vec};

/// Bytes of a slot.
const SIZE: usize = 16 * 1024;
/// Bytes of an erase block.
const BLOCK: usize = 4 * 1024;

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

/// An image that has no zeros and no 0xFF: lost and erased bytes show.
fn image(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| 1 + (index as u8).wrapping_mul(7).wrapping_add(seed) % 250).collect()
}

/// A slot as an install leaves it, its rest `fill`.
fn slot(name: &str, image: &[u8], fill: u8) -> Vec<u8> {
    let mut bytes = [&header(&rev(name))[..], image].concat();
    bytes.resize(SIZE, fill);
    bytes
}

impl Slot for &mut Medium {
    fn erase_size(&self) -> u64 {
        1
    }
    fn erase(&mut self, _: u64, _: u64) -> Result<(), Code> {
        Ok(())
    }
}

/// What was done to flash.
#[derive(Clone)]
enum Step {
    Program(usize, Vec<u8>),
    Erase(usize),
}

/// Flash: an erase sets a block to 0xFF, a write only clears bits.
struct Nor {
    bytes: Vec<u8>,
    steps: Vec<Step>,
}

impl Nor {
    /// The states in which a cut during this step may leave `bytes`.
    fn torn(bytes: &[u8], step: &Step) -> Vec<Vec<u8>> {
        let mut states = Vec::new();
        match step {
            Step::Program(at, data) => {
                for done in 0..data.len() {
                    let mut state = bytes.to_vec();
                    clear(&mut state[*at..], &data[..done]);
                    // and some bits of the byte that was under way
                    for bits in [0x0f, 0xf0, 0x55, 0xfe, 0x7f] {
                        let mut state = state.clone();
                        state[at + done] &= data[done] | bits;
                        states.push(state);
                    }
                }
            }
            Step::Erase(at) => {
                let mut random = Random(0x1357_9bdf_0246_8ace);
                for kind in 0..8 {
                    let mut state = bytes.to_vec();
                    for (index, byte) in state[*at..][..BLOCK].iter_mut().enumerate() {
                        match kind {
                            0 => {}
                            1 => *byte = 0xff,
                            2 if index < BLOCK / 2 => *byte = 0xff,
                            3 if index >= BLOCK / 2 => *byte = 0xff,
                            // each bit may have flipped already
                            4..=5 => *byte |= random.next() as u8,
                            6..=7 => *byte = random.next() as u8,
                            _ => {}
                        }
                    }
                    states.push(state);
                }
            }
        }
        states
    }

    fn apply(bytes: &mut [u8], step: &Step) {
        match step {
            Step::Program(at, data) => clear(&mut bytes[*at..], data),
            Step::Erase(at) => bytes[*at..][..BLOCK].fill(0xff),
        }
    }
}

/// Programs bytes: bits only go from 1 to 0.
fn clear(bytes: &mut [u8], data: &[u8]) {
    bytes.iter_mut().zip(data).for_each(|(byte, data)| *byte &= data);
}

impl Region for &mut Nor {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        let step = Step::Program(offset as usize, data.to_vec());
        Nor::apply(&mut self.bytes, &step);
        self.steps.push(step);
        Ok(())
    }
    fn sync(&mut self) -> Result<(), Code> {
        Ok(())
    }
    fn drop_cache(&mut self) {}
}

impl Slot for &mut Nor {
    fn erase_size(&self) -> u64 {
        BLOCK as u64
    }
    fn erase(&mut self, at: u64, length: u64) -> Result<(), Code> {
        assert!(at.is_multiple_of(BLOCK as u64) && length.is_multiple_of(BLOCK as u64));
        for block in 0..length as usize / BLOCK {
            let step = Step::Erase(at as usize + block * BLOCK);
            Nor::apply(&mut self.bytes, &step);
            self.steps.push(step);
        }
        Ok(())
    }
}

/// The revision that a slot's bytes name.
fn named(slot: &[u8]) -> Option<RevName> {
    parse(slot.first_chunk().unwrap())
}

/// A state of the slot that is written: it names nothing, or something that is whole.
fn check(state: &[u8], whole: &[(&str, &[u8])]) -> Option<RevName> {
    let found = named(state)?;
    let (_, image) = whole.iter().find(|(name, _)| rev(name) == found).unwrap_or_else(|| panic!("{found}"));
    assert_eq!(&state[HEADER..][..image.len()], *image, "{found} is named and not whole");
    Some(found)
}

#[test]
fn w9_w10_every_cut_leaves_the_active_slot_whole_and_no_header_before_a_torn_image() {
    // The new names begin with the old ones: a cut header must not be read as another revision.
    for (active, old, new) in [(0, "0", "12"), (1, "0", "12"), (0, "locals/a", "locals/ab")] {
        let (kept, before, next) = (image(1, 3000), image(2, 2500), image(3, 2900));
        let mut media = [slot("1", &kept, 0), slot(old, &before, 0)].map(|bytes| Medium::new(&bytes));
        if active == 1 {
            media.reverse();
        }
        let [first, second] = &mut media;
        let mut slots = Slots::new([first, second], SIZE as u64).unwrap();
        let written = slots.install(&rev(new), &[rev("1")], &mut &mut Medium::new(&next), next.len() as u64);
        assert_eq!(written, Ok(1 - active));
        let held = slots.holds();
        assert_eq!((held[active], held[1 - active]), (Ok(Some(rev("1"))), Ok(Some(rev(new)))));
        assert!(
            media[active].done.is_empty() && media[active].changed().is_empty(),
            "W9: the active slot is not touched"
        );

        let states = media[1 - active].cut_states();
        let found: BTreeSet<_> = states.iter().map(|state| check(state, &[(old, &before), (new, &next)])).collect();
        assert_eq!(found, BTreeSet::from([None, Some(rev(old)), Some(rev(new))]));
        assert!(states.len() > 60, "{}", states.len());
        // The header is the last thing that is written, and its first byte the very last.
        let writes = media[1 - active].done.iter().filter_map(|done| match done {
            crate::env::medium::Done::Write(at, data) => Some((*at, data.len())),
            crate::env::medium::Done::Sync => None,
        });
        assert_eq!(writes.collect::<Vec<_>>(), [(0, 512), (4096, 2900), (1, 4095), (0, 1)]);
    }
}

#[test]
fn w9_w10_the_same_on_flash_with_every_byte_a_possible_cut() {
    let (kept, before, next) = (image(1, 9000), image(2, 9000), image(3, 5000));
    let mut media = [slot("1", &kept, 0xff), slot("0", &before, 0xff)].map(|bytes| Nor { bytes, steps: Vec::new() });
    let original = media[1].bytes.clone();
    let [first, second] = &mut media;
    let mut slots = Slots::new([first, second], SIZE as u64).unwrap();
    slots.install(&rev("12"), &[rev("1")], &mut &mut Medium::new(&next), next.len() as u64).unwrap();
    assert!(media[0].steps.is_empty());

    let steps = media[1].steps.clone();
    let erased = steps.iter().filter(|step| matches!(step, Step::Erase(_))).count();
    assert_eq!(erased, (HEADER + next.len()).div_ceil(BLOCK), "no block more than the image takes");
    let mut state = original;
    let (mut states, mut seen) = (0, BTreeSet::new());
    for step in &steps {
        for torn in Nor::torn(&state, step) {
            seen.insert(check(&torn, &[("0", &before), ("12", &next)]));
            states += 1;
            // And the next install gets through, whatever this one left.
            if states % 4001 == 0 {
                let mut target = Nor { bytes: torn, steps: Vec::new() };
                let mut slots = Slots::new([&mut media[0], &mut target], SIZE as u64).unwrap();
                slots.install(&rev("7"), &[rev("1")], &mut &mut Medium::new(&next), next.len() as u64).unwrap();
            }
        }
        Nor::apply(&mut state, step);
    }
    assert_eq!(state, media[1].bytes);
    assert_eq!(check(&state, &[("12", &next)]), Some(rev("12")));
    assert_eq!(seen, BTreeSet::from([None, Some(rev("0"))]), "the new one is there when its last bit is");
    assert!(states > 40_000, "{states}");
}

#[test]
fn an_image_that_did_not_arrive_is_never_named() {
    let next = image(3, 5000);
    for fault in 0..6 {
        let mut media = [slot("1", &image(1, 50), 0), slot("0", &image(2, 50), 0)].map(|bytes| Medium::new(&bytes));
        let mut source = Medium::new(&next);
        match fault {
            0 => media[1].lies = true,
            1 => media[1].sync_fails = 1,
            // in the middle of the image, and of its source
            2 => media[1].broken = vec![2 * HEADER as u64],
            3 => source.broken = vec![4096],
            4 => media[1].lost = vec![HEADER as u64],
            _ => source.bytes.truncate(4500),
        }
        let [first, second] = &mut media;
        let mut slots = Slots::new([first, second], SIZE as u64).unwrap();
        let installed = slots.install(&rev("2"), &[rev("1")], &mut &mut source, next.len() as u64);
        let expected = match fault {
            3 => Code::StorageIo,
            5 => Code::StorageDamaged,
            _ => Code::EnvStoreFailed,
        };
        assert_eq!(installed, Err(expected), "{fault}");
        assert_eq!(named(&media[0].bytes), Some(rev("1")));
        assert_ne!(named(&media[1].bytes), Some(rev("2")));
    }
}

#[test]
fn what_is_kept_is_never_chosen() {
    let free = |first: &[u8], second: &[u8], keep: &[&str]| {
        let mut media = [first, second].map(Medium::new);
        let [first, second] = &mut media;
        let keep: Vec<_> = keep.iter().map(|name| rev(name)).collect();
        Slots::new([first, second], SIZE as u64).unwrap().free(&keep)
    };
    let [one, other, none] = [slot("1", b"x", 0), slot("11", b"x", 0), vec![0xff; SIZE]];
    assert_eq!(free(&one, &other, &["1"]), Ok(1));
    assert_eq!(free(&one, &other, &["11"]), Ok(0), "W6: not a prefix");
    assert_eq!(free(&one, &other, &["1", "11"]), Err(Code::RevisionInUse));
    assert_eq!(free(&one, &one, &["1"]), Ok(1), "as a factory leaves them");
    assert_eq!(free(&none, &one, &["1", "2"]), Ok(0));
    assert_eq!(free(&none, &one, &["2"]), Err(Code::EnvInvalid));
    assert_eq!(free(&none, &none, &["1"]), Err(Code::EnvInvalid));
    assert_eq!(free(&one[..100], &one, &["1"]), Err(Code::StorageIo));
    assert_eq!(free(&one, &one[..100], &["1"]), Err(Code::StorageIo));
    assert_eq!(free(&one[..100], &other, &["1"]), Ok(1));
    assert_eq!(free(&other, &one[..100], &["1"]), Ok(0));
}

#[test]
fn headers_are_read_whole_or_not_at_all() {
    let good = header(&rev("locals/a"));
    assert_eq!((good[..17].to_vec(), parse(&good)), (b"fit_rev=locals/a\0".to_vec(), Some(rev("locals/a"))));
    for at in [0, 7, 8, 20, 4095] {
        let mut bad = good;
        bad[at] = 0xff;
        assert_eq!(parse(&bad), None, "{at}");
    }
    assert_eq!(parse(&[b'f'; HEADER]), None);
    let mut endless = [b'1'; HEADER];
    endless[..KEY.len()].copy_from_slice(KEY);
    assert_eq!(parse(&endless), None);
    let mut random = Random(0xfeed_f00d_dead_beef);
    for _ in 0..5000 {
        let mut header = good;
        for _ in 0..1 + random.below(3) {
            header[random.below(24)] = random.next() as u8;
        }
        if let Some(name) = parse(&header) {
            assert_eq!(super::header(&name), header);
        }
    }
}

#[test]
fn sizes_are_checked() {
    let made = |size| Slots::new([&mut Medium::new(&[]), &mut Medium::new(&[])], size).is_ok();
    assert!(made(4097) && !made(4096));
    let mut nor = [(); 2].map(|()| Nor { bytes: vec![0xff; SIZE], steps: Vec::new() });
    let [first, second] = &mut nor;
    assert!(Slots::new([first, second], SIZE as u64 + 512).is_err());
    let mut media = [slot("1", b"x", 0), slot("0", b"x", 0)].map(|bytes| Medium::new(&bytes));
    let [first, second] = &mut media;
    let mut slots = Slots::new([first, second], SIZE as u64).unwrap();
    let next = image(1, SIZE - HEADER + 1);
    let mut install =
        |length: usize| slots.install(&rev("2"), &[rev("1")], &mut &mut Medium::new(&next), length as u64);
    assert_eq!(install(next.len()), Err(Code::EnvFull));
    assert_eq!(install(next.len() - 1), Ok(1));
}
