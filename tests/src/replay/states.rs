//! The states in which a power cut may leave a disk: of what was written since the last flush, anything may be there.
//!
//! An epoch is what was written between two flushes. A state keeps all epochs before its own, and of its own: the first
//! so many writes; any subset of them, all subsets up to [`EXHAUSTIVE`] writes, and above that all single ones dropped or
//! kept, pairs, and drawn ones; or the first so many and a part of the next one, torn at sectors; in small epochs a part of
//! one beside every subset of the others. A part are the first or the last sectors: of a write of up to [`EVERY_SECTOR`] any
//! number of them, of a larger one six. Each is looked at with what had been reported at the end of its epoch: until the
//! flush that ends it has returned, the medium may be so.
//! Invariants: a state has a name from which it is made again; states of equal bytes and equal reports are handed out
//! once; what was drawn or left out is counted and told.
//! Fault model: sectors are whole. A write that was reported as through (FUA) is there once it was. A write that was
//! complete before a flush was, but was asked for later, counts as flushed: so is the log.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use super::layers::{Layers, Sums};
use super::log::{Entry, Kind, Log, SECTOR};
use crate::tour::{Outcome, fail};

/// Writes of one epoch up to which every subset is a state.
pub const EXHAUSTIVE: usize = 12;
/// Writes of one epoch up to which each of them is torn beside every subset of the others.
pub const TORN_AMONG: usize = 5;
/// Sectors of a write up to which it is torn after every one of them: the block of a file system.
pub const EVERY_SECTOR: u64 = 8;
/// Above [`EXHAUSTIVE`]: pairs that are dropped together, at most, and subsets that are drawn. These are all pairs of 45
/// writes, which is more than a device that flushes has in any epoch; without flushes there are as many as there are.
pub const PAIRS: usize = 1000;
/// See there.
pub const DRAWN: u64 = 256;

/// What is there of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The first so many writes.
    Prefix(usize),
    /// Those whose bit is set.
    Mask(u64),
    /// All but these.
    Drop(Vec<usize>),
    /// This one alone.
    Only(usize),
    /// A subset that was drawn: the seed, and which one.
    Draw(u64, u64),
    /// The first so many, and a part of the next one.
    Torn(usize, Part),
    /// Those whose bit is set, but of this one a part.
    TornAmong(u64, usize, Part),
}

/// What is there of a torn write: so many sectors, not all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The first ones.
    First(u64),
    /// The last ones.
    Last(u64),
}

impl Part {
    /// The parts of a write of `length` bytes that are looked at.
    fn of(length: u64) -> Vec<Self> {
        let sectors = length / SECTOR;
        if sectors <= EVERY_SECTOR {
            return (1..sectors).flat_map(|count| [Self::First(count), Self::Last(count)]).collect();
        }
        let half = sectors / 2;
        let first = [1, half, sectors - 1].map(Self::First);
        let last = [1, sectors - half, sectors - 1].map(Self::Last);
        [first, last].concat()
    }

    fn parse(text: &str) -> Option<Self> {
        let count = |word: &str| text.strip_prefix(word)?.parse().ok().filter(|count| *count > 0);
        count("first").map(Self::First).or_else(|| count("last").map(Self::Last))
    }

    /// First byte and length of what is there of a write of `length` bytes; of a shorter one than the part, all.
    fn range(self, length: u64) -> (u64, u64) {
        match self {
            Self::First(count) => (0, length.min(count * SECTOR)),
            Self::Last(count) => (length.saturating_sub(count * SECTOR), length.min(count * SECTOR)),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(count) => write!(f, "first{count}"),
            Self::Last(count) => write!(f, "last{count}"),
        }
    }
}

/// A state's name: the entry at which its epoch ends, and what is there of the epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// Number of the entry: a flush, or the end of the log.
    pub end: usize,
    /// What is there.
    pub fate: Fate,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.end)?;
        match &self.fate {
            Fate::Prefix(count) => write!(f, "prefix={count}"),
            Fate::Mask(mask) => write!(f, "mask={mask:#x}"),
            Fate::Drop(which) => {
                let which: Vec<String> = which.iter().map(ToString::to_string).collect();
                write!(f, "drop={}", which.join(","))
            }
            Fate::Only(which) => write!(f, "only={which}"),
            Fate::Draw(seed, which) => write!(f, "draw={seed},{which}"),
            Fate::Torn(count, part) => write!(f, "torn={count},{part}"),
            Fate::TornAmong(mask, which, part) => write!(f, "torn-among={mask:#x},{which},{part}"),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bits = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let read = || {
            let (end, rest) = text.split_once(':')?;
            let (word, value) = rest.split_once('=')?;
            let pair = || value.split_once(',');
            let fate = match word {
                "prefix" => Fate::Prefix(value.parse().ok()?),
                "mask" => Fate::Mask(bits(value)?),
                "drop" => Fate::Drop(value.split(',').map(|one| one.parse().ok()).collect::<Option<_>>()?),
                "only" => Fate::Only(value.parse().ok()?),
                "draw" => Fate::Draw(pair()?.0.parse().ok()?, pair()?.1.parse().ok()?),
                "torn" => Fate::Torn(pair()?.0.parse().ok()?, Part::parse(pair()?.1)?),
                "torn-among" => {
                    let (which, part) = pair()?.1.split_once(',')?;
                    Fate::TornAmong(bits(pair()?.0)?, which.parse().ok()?, Part::parse(part)?)
                }
                _ => return None,
            };
            Some(Self { end: end.parse().ok()?, fate })
        };
        read().ok_or_else(|| format!("`{text}` is no name of a state, such as 812:mask=0x1f"))
    }
}

/// A state.
#[derive(Clone, Debug)]
pub struct State {
    /// By this it is made again.
    pub name: Name,
    /// The disk.
    pub disk: Layers,
    /// Number of the last entry of which anything is there, or the first of the epoch: the cut came then at the earliest.
    pub reached: usize,
}

/// What was counted on the way.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// States, before equal ones were left out.
    pub states: u64,
    /// Of them prefixes, subsets and torn ones.
    pub kinds: [u64; 3],
    /// States that differ in bytes or in what was reported.
    pub distinct: u64,
    /// Epochs.
    pub epochs: u64,
    /// Writes of the largest one.
    pub largest: usize,
    /// Epochs too large for every subset, and of their pairs those that were left out.
    pub sampled: (u64, u64),
    /// Discards.
    pub discards: u64,
    /// Distinct states of each epoch, by the entry at which it ends.
    pub of: BTreeMap<usize, u64>,
}

impl Counts {
    fn note(&mut self, fate: &Fate) {
        self.states += 1;
        self.kinds[match fate {
            Fate::Prefix(_) => 0,
            Fate::Torn(..) | Fate::TornAmong(..) => 2,
            _ => 1,
        }] += 1;
    }
}

/// Goes through the states of a log.
pub struct Walk<'a> {
    log: &'a Log,
    /// What counts as no write of its own: marks.
    skip: &'a dyn Fn(&Entry) -> bool,
    /// Reports that were made before an entry; states of equal bytes differ by it.
    reports: &'a dyn Fn(usize) -> usize,
    /// Whether states are made where an epoch ends with this entry.
    is_about: &'a dyn Fn(usize) -> bool,
    seed: u64,
    /// Flushes are not heard: all of the log is one epoch.
    deaf: bool,
    /// Equal bytes, and equal reports.
    seen: HashSet<(Sums, usize)>,
    /// What was counted.
    pub counts: Counts,
}

/// Is called where an epoch ends, with the disk before it and its writes; whether to go on.
type AtEnd<'v, W> = dyn FnMut(&mut W, &Layers, &[Pending], usize) -> Outcome<bool> + 'v;

/// A write that may be lost, or, if it went through, may not.
#[derive(Clone, Copy)]
struct Pending {
    index: usize,
    entry: Entry,
    stays: bool,
}

impl<'a> Walk<'a> {
    /// The states of a log where `is_about` says so. `seed`: where what is drawn begins, and whether flushes are not heard,
    /// as by a disk that lies about them.
    pub fn new(
        log: &'a Log,
        is_about: &'a dyn Fn(usize) -> bool,
        (seed, deaf): (u64, bool),
        skip: &'a dyn Fn(&Entry) -> bool,
        reports: &'a dyn Fn(usize) -> usize,
    ) -> Self {
        Self { log, skip, reports, is_about, seed, deaf, seen: HashSet::new(), counts: Counts::default() }
    }

    /// Calls `visit` with each distinct state, from the disk before on, until it says false.
    pub fn all(&mut self, disk: Layers, visit: &mut dyn FnMut(State) -> Outcome<bool>) -> Outcome<()> {
        self.epochs(disk, &mut |walk, disk, pending, end| walk.epoch(disk, pending, end, visit))
    }

    /// The state of this name.
    pub fn one(&mut self, disk: Layers, name: &Name) -> Outcome<State> {
        let mut found = None;
        self.epochs(disk, &mut |_, disk, pending, end| {
            if end == name.end {
                found = Some(make(disk, pending, end, &name.fate)?);
            }
            Ok(found.is_none())
        })?;
        found.map_or_else(|| fail(format!("no epoch ends at entry {}", name.end)), Ok)
    }

    /// Calls `visit` at the end of each epoch with the disk as it was durable before, and with what was written since.
    fn epochs(&mut self, mut disk: Layers, visit: &mut AtEnd<'_, Self>) -> Outcome<()> {
        let mut pending: Vec<Pending> = Vec::new();
        let mut was_about = false;
        for (index, entry) in self.log.entries.iter().enumerate() {
            let is_about = (self.is_about)(index);
            if self.deaf && is_about && !was_about {
                settle(&mut disk, &mut pending)?;
            }
            was_about = is_about;
            let flush = entry.flush && !self.deaf;
            if flush || entry.through {
                if is_about && !visit(self, &disk, &pending, index)? {
                    return Ok(());
                }
                if flush {
                    settle(&mut disk, &mut pending)?;
                }
            }
            self.counts.discards += u64::from(entry.kind == Kind::Discard);
            if entry.kind != Kind::Nothing && !(self.skip)(entry) {
                pending.push(Pending { index, entry: *entry, stays: entry.through });
            }
        }
        visit(self, &disk, &pending, self.log.entries.len())?;
        Ok(())
    }

    fn epoch(
        &mut self,
        disk: &Layers,
        pending: &[Pending],
        end: usize,
        visit: &mut dyn FnMut(State) -> Outcome<bool>,
    ) -> Outcome<bool> {
        self.counts.epochs += 1;
        self.counts.largest = self.counts.largest.max(pending.len());
        for fate in self.fates(pending) {
            self.counts.note(&fate);
            let state = make(disk, pending, end, &fate)?;
            if self.seen.insert((state.disk.sums(), (self.reports)(end))) {
                self.counts.distinct += 1;
                *self.counts.of.entry(end).or_default() += 1;
                if !visit(state)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn fates(&mut self, pending: &[Pending]) -> Vec<Fate> {
        let count = pending.len();
        let mut fates: Vec<Fate> = (0..=count).map(Fate::Prefix).collect();
        if count <= EXHAUSTIVE {
            fates.extend((0..1 << count).map(Fate::Mask));
        } else {
            fates.extend((0..count).map(|one| Fate::Drop(vec![one])));
            fates.extend((0..count).map(Fate::Only));
            let pairs: Vec<(usize, usize)> =
                (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other))).collect();
            let (all, before) = (pairs.len(), fates.len());
            // Spread over all of them; which ones depends on their number alone.
            let step = all.div_ceil(PAIRS);
            fates.extend(pairs.into_iter().step_by(step).map(|(one, other)| Fate::Drop(vec![one, other])));
            self.counts.sampled.0 += 1;
            self.counts.sampled.1 += (all - (fates.len() - before)) as u64;
            fates.extend((0..DRAWN).map(|which| Fate::Draw(self.seed, which)));
        }
        for (index, write) in pending.iter().enumerate() {
            if !matches!(write.entry.kind, Kind::Write(_)) || write.entry.length <= SECTOR {
                continue;
            }
            let parts = Part::of(write.entry.length);
            fates.extend(parts.iter().map(|part| Fate::Torn(index, *part)));
            if count <= TORN_AMONG {
                let beside = (0..1 << count).filter(|mask| mask >> index & 1 == 1);
                let torn = |mask| parts.iter().map(move |part| Fate::TornAmong(mask, index, *part));
                fates.extend(beside.flat_map(torn));
            }
        }
        fates
    }
}

/// What was written becomes durable.
fn settle(disk: &mut Layers, pending: &mut Vec<Pending>) -> Outcome<()> {
    for write in pending.drain(..) {
        apply(disk, &write.entry, None)?;
    }
    disk.settle();
    Ok(())
}

/// The disk after a fate.
fn make(disk: &Layers, pending: &[Pending], end: usize, fate: &Fate) -> Outcome<State> {
    let mut disk = disk.clone();
    let mut reached = pending.first().map_or(end, |write| write.index);
    for (number, write) in pending.iter().enumerate() {
        let part = match fate {
            Fate::Torn(torn, part) | Fate::TornAmong(_, torn, part) if *torn == number => Some(*part),
            _ if write.stays || keeps(fate, number, end) => None,
            _ => continue,
        };
        reached = write.index;
        apply(&mut disk, &write.entry, part)?;
    }
    Ok(State { name: Name { end, fate: fate.clone() }, disk, reached })
}

fn keeps(fate: &Fate, number: usize, end: usize) -> bool {
    match fate {
        Fate::Prefix(count) | Fate::Torn(count, _) => number < *count,
        Fate::Mask(mask) | Fate::TornAmong(mask, ..) => mask >> number & 1 == 1,
        Fate::Drop(which) => !which.contains(&number),
        Fate::Only(which) => number == *which,
        Fate::Draw(seed, which) => {
            let place = (end as u64) << 40 ^ which << 24 ^ number as u64;
            mixed(seed ^ mixed(place)) & 1 == 1
        }
    }
}

/// The most states to take of each epoch, so that `sample` are taken in all: as many of each, and all of those that have fewer;
/// one of each at least.
pub fn share(of: &BTreeMap<usize, u64>, sample: u64) -> u64 {
    let mut counts: Vec<u64> = of.values().copied().collect();
    counts.sort_unstable();
    let (mut rest, mut epochs) = (sample, counts.len() as u64);
    for count in counts {
        let each = rest.div_ceil(epochs).max(1);
        if count > each {
            return each;
        }
        (rest, epochs) = (rest.saturating_sub(count), epochs - 1);
    }
    u64::MAX
}

/// Numbers that look random and are the same in every run.
pub fn mixed(number: u64) -> u64 {
    let one = (number.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let two = (one ^ one >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    two ^ two >> 31
}

/// Does an entry, or a part of it.
pub fn apply(disk: &mut Layers, entry: &Entry, part: Option<Part>) -> Outcome<()> {
    let (skip, length) = part.map_or((0, entry.length), |part| part.range(entry.length));
    match entry.kind {
        Kind::Write(data) => disk.write(entry.at + skip, length, Some(data + skip))?,
        // What was given up may be anything; zeros are what a disk that took it seriously has.
        Kind::Discard => disk.write(entry.at + skip, length, None)?,
        Kind::Nothing => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layers::{Ground, Range};
    use super::super::log::tests::{log, read};
    use super::*;
    use std::fs::File;
    use std::sync::Arc;

    const FLUSH: (u64, u64, u64) = (0, 0, 1);

    /// A log, and the disk before: 64 sectors of zeros.
    fn made(entries: &[(u64, u64, u64)], name: &str) -> (Log, Layers) {
        let path = std::env::temp_dir().join(format!("switchback-states-{name}-{}", std::process::id()));
        File::create(&path).unwrap().set_len(64 * SECTOR).unwrap();
        let log = read(&log(entries), &format!("states-{name}")).unwrap();
        let ground = Ground::new(File::open(&path).unwrap(), log.file().unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        let nothing = Range { start: 0, length: 0 };
        (log, Layers::new(Arc::new(ground), [nothing; 3]))
    }

    fn all(log: &Log, disk: &Layers, deaf: bool) -> (Vec<State>, Counts) {
        let mut walk = Walk::new(log, &|_| true, (1, deaf), &|_| false, &|_| 0);
        let mut states = Vec::new();
        walk.all(disk.clone(), &mut |state| {
            states.push(state);
            Ok(true)
        })
        .unwrap();
        (states, walk.counts)
    }

    #[test]
    fn every_subset_of_what_was_not_flushed_is_a_state_and_each_once() {
        let (log, disk) = made(&[(0, 1, 0), (8, 1, 0), (16, 1, 0), FLUSH, (24, 1, 0), FLUSH], "subsets");
        let (states, counts) = all(&log, &disk, false);
        assert_eq!((counts.kinds, counts.epochs, counts.largest), ([4 + 2 + 1, 8 + 2 + 1, 0], 3, 3));
        assert_eq!((states.len(), counts.distinct), (8 + 1, 9));
        // Flushes that were not heard: of all four writes any subset.
        let (states, counts) = all(&log, &disk, true);
        assert_eq!((states.len(), counts.epochs), (16, 1));
    }

    #[test]
    fn what_is_not_asked_about_has_no_state_and_is_there_later() {
        let (log, disk) = made(&[(0, 1, 0), FLUSH, (8, 1, 0), FLUSH, (16, 1, 0), FLUSH], "aside");
        let mut walk = Walk::new(&log, &|entry| !(2..4).contains(&entry), (1, false), &|_| false, &|_| 0);
        let mut states = Vec::new();
        walk.all(disk, &mut |state| {
            states.push(state);
            Ok(true)
        })
        .unwrap();
        // The first write or not; the third or not, and then the second is there.
        assert_eq!(states.len(), 4);
        let mut block = [0; 4096];
        states[2].disk.read(1, &mut block).unwrap();
        assert!(block[0] != 0 && walk.counts.epochs == 3);
    }

    #[test]
    fn a_state_is_made_again_by_its_name() {
        let many: Vec<_> = (0..14).map(|number| (2 * number, 2, 0)).chain([FLUSH, (40, 3, 0), (50, 2, 2)]).collect();
        let (log, disk) = made(&many, "names");
        let (states, counts) = all(&log, &disk, false);
        assert_eq!(counts.sampled, (1, 0));
        // Of the large epoch: prefixes, all but one and only one, 91 pairs, drawn ones, and torn ones.
        assert!(counts.kinds[1] >= 14 + 14 + 91 + DRAWN, "{counts:?}");
        for state in states {
            let name: Name = state.name.to_string().parse().unwrap();
            assert_eq!(name, state.name);
            let again = Walk::new(&log, &|_| true, (1, false), &|_| false, &|_| 0).one(disk.clone(), &name).unwrap();
            assert_eq!(again.disk.sums(), state.disk.sums(), "{name}");
        }
        for wrong in [
            "",
            "1",
            "1:",
            "1:lunch=2",
            "1:torn=2",
            "1:torn=2,head",
            "1:torn=2,first0",
            "1:torn=2,last",
            "x:prefix=1",
            "1:mask=7",
        ] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
        let missing = "3:prefix=0".parse().unwrap();
        assert!(Walk::new(&log, &|_| true, (1, false), &|_| false, &|_| 0).one(disk, &missing).is_err());
    }

    #[test]
    fn all_pairs_of_a_large_epoch_are_lost_together_and_those_left_out_of_a_larger_one_are_counted() {
        let pairs = |count: usize| {
            let writes: Vec<_> = (0..count as u64).map(|number| (number, 1, 0)).chain([FLUSH]).collect();
            let (log, disk) = made(&writes, &format!("pairs-{count}"));
            let (mut pairs, mut walk) = (HashSet::new(), Walk::new(&log, &|_| true, (1, false), &|_| false, &|_| 0));
            walk.epochs(disk, &mut |walk, _, pending, _| {
                let dropped = walk.fates(pending).into_iter().filter_map(|fate| match fate {
                    Fate::Drop(which) if which.len() == 2 => Some((which[0], which[1])),
                    _ => None,
                });
                pairs.extend(dropped);
                Ok(true)
            })
            .unwrap();
            (pairs.len(), walk.counts.sampled)
        };
        assert_eq!(pairs(13), (78, (1, 0)));
        assert_eq!(pairs(27), (351, (1, 0)));
        assert_eq!(pairs(45), (990, (1, 0)));
        assert_eq!(pairs(46), (518, (1, 1035 - 518)));
        assert_eq!(pairs(60), (885, (1, 885)));
    }

    #[test]
    fn a_block_is_torn_after_every_sector_both_ways_and_a_longer_write_in_six() {
        use Part::{First, Last};
        let of = |sectors| Part::of(sectors * SECTOR);
        assert_eq!((of(1), of(2)), (vec![], vec![First(1), Last(1)]));
        assert_eq!(of(EVERY_SECTOR).len(), 14);
        assert!((1..8).all(|count| [First(count), Last(count)].iter().all(|part| of(8).contains(part))));
        assert_eq!(of(9), [First(1), First(4), First(8), Last(1), Last(5), Last(8)]);
        assert_eq!((First(3).range(4096), Last(3).range(4096)), ((0, 1536), (2560, 1536)));
        // Of a block that is written over, all that may be left of it: the sectors before a place, or behind it.
        let (log, disk) = made(&[(8, 8, 0), FLUSH], "sectors");
        let (states, counts) = all(&log, &disk, false);
        assert_eq!((states.len(), counts.kinds[2]), (2 + 14, 2 * 14));
        let mut shapes: Vec<u8> = Vec::new();
        for state in &states {
            let mut block = [0; 4096];
            state.disk.read(1, &mut block).unwrap();
            let is_there = |sector: usize| u8::from(block[512 * sector] != 0) << sector;
            shapes.push((0..8).map(is_there).sum());
        }
        shapes.sort_unstable();
        let mut wanted: Vec<u8> = (1..8).flat_map(|count| [0xff << count, !(0xff << count)]).chain([0, 0xff]).collect();
        wanted.sort_unstable();
        assert_eq!(shapes, wanted);
    }

    #[test]
    fn a_sample_is_spread_over_the_epochs() {
        let of = BTreeMap::from([(1, 4096), (2, 3), (5, 10), (9, 40)]);
        assert_eq!(share(&of, 53), 20); // 3, 10, 20, 20
        assert_eq!((share(&of, 4), share(&of, 1), share(&BTreeMap::from([(1, 1), (2, 1), (3, 9)]), 1)), (1, 1, 1));
        assert_eq!((share(&of, 4149), share(&of, 10_000)), (u64::MAX, u64::MAX));
        let (log, disk) = made(&[(0, 1, 0), (8, 1, 0), FLUSH, (16, 1, 0), FLUSH], "spread");
        let (states, counts) = all(&log, &disk, false);
        assert_eq!(counts.of.values().sum::<u64>(), states.len() as u64);
        assert_eq!(counts.of.into_iter().collect::<Vec<_>>(), [(2, 4), (4, 1)]); // each once
    }

    #[test]
    fn what_went_through_is_never_lost_again() {
        let (log, disk) = made(&[(0, 1, 0), (8, 1, 2), (16, 1, 0)], "through");
        let (states, _) = all(&log, &disk, false);
        let has = |state: &State, sector: u64| {
            let mut block = [0; 4096];
            state.disk.read(sector / 8, &mut block).unwrap();
            block[0] != 0
        };
        // Before it: two states. After it: of the two others any subset.
        assert_eq!(states.len(), 2 + 4);
        assert!(states[2..].iter().all(|state| has(state, 8)) && !states[0..2].iter().any(|state| has(state, 8)));
        assert!(states.iter().any(|state| has(state, 16) && !has(state, 0)));
    }

    #[test]
    fn equal_bytes_with_more_reported_are_another_state() {
        let (log, disk) = made(&[(0, 1, 0), FLUSH, FLUSH], "reports");
        let count = |reports: &dyn Fn(usize) -> usize| {
            let mut walk = Walk::new(&log, &|_| true, (1, false), &|_| false, reports);
            walk.all(disk.clone(), &mut |_| Ok(true)).unwrap();
            walk.counts.distinct
        };
        assert_eq!((count(&|_| 0), count(&|end| usize::from(end > 1))), (2, 3));
    }
}
