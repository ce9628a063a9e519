//! The states in which a power cut may leave a disk: of what was written since the last flush, anything may be there.
//!
//! An epoch is what was written between two flushes. A state keeps all epochs before its own, and of its own: the first
//! so many writes; any subset of them, all subsets up to [`EXHAUSTIVE`] writes, and above that all single ones dropped or
//! kept, pairs, and drawn ones; or the first so many and a part of the next one, torn at sectors. Each is looked at with
//! what had been reported at the end of its epoch: until the flush that ends it has returned, the medium may be so.
//! Invariants: a state has a name from which it is made again; states of equal bytes and equal reports are handed out
//! once; what was drawn or left out is counted and told.
//! Fault model: sectors are whole. A write that was reported as through (FUA) is there once it was. A write that was
//! complete before a flush was, but was asked for later, counts as flushed: so is the log.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use super::layers::{Layers, Sums};
use super::log::{Entry, Kind, Log, SECTOR};
use crate::tour::{Outcome, fail};

/// Writes of one epoch up to which every subset is a state.
pub const EXHAUSTIVE: usize = 12;
/// Above that: pairs that are dropped together, at most, and subsets that are drawn.
pub const PAIRS: usize = 256;
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
}

/// What is there of a torn write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its first sector.
    Head,
    /// All but its first sector.
    NoHead,
    /// Its first half.
    FirstHalf,
    /// Its second half.
    SecondHalf,
    /// All but its last sector.
    NoTail,
    /// Its last sector.
    Tail,
}

impl Part {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Head, "head"),
        (Self::NoHead, "nohead"),
        (Self::FirstHalf, "first"),
        (Self::SecondHalf, "second"),
        (Self::NoTail, "notail"),
        (Self::Tail, "tail"),
    ];

    /// First byte and length of what is there of a write of `length` bytes.
    fn range(self, length: u64) -> (u64, u64) {
        let half = length / 2 / SECTOR * SECTOR;
        match self {
            Self::Head => (0, SECTOR),
            Self::NoHead => (SECTOR, length - SECTOR),
            Self::FirstHalf => (0, half),
            Self::SecondHalf => (half, length - half),
            Self::NoTail => (0, length - SECTOR),
            Self::Tail => (length - SECTOR, SECTOR),
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
            Fate::Torn(count, part) => {
                let word = Part::ALL.iter().find(|(known, _)| known == part).map_or("", |(_, word)| word);
                write!(f, "torn={count},{word}")
            }
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (end, rest) = text.split_once(':')?;
            let (word, value) = rest.split_once('=')?;
            let pair = || value.split_once(',');
            let fate = match word {
                "prefix" => Fate::Prefix(value.parse().ok()?),
                "mask" => Fate::Mask(u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()?),
                "drop" => Fate::Drop(value.split(',').map(|one| one.parse().ok()).collect::<Option<_>>()?),
                "only" => Fate::Only(value.parse().ok()?),
                "draw" => Fate::Draw(pair()?.0.parse().ok()?, pair()?.1.parse().ok()?),
                "torn" => {
                    let (count, part) = pair()?;
                    Fate::Torn(count.parse().ok()?, Part::ALL.iter().find(|(_, word)| *word == part)?.0)
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
}

impl Counts {
    fn note(&mut self, fate: &Fate) {
        self.states += 1;
        self.kinds[match fate {
            Fate::Prefix(_) => 0,
            Fate::Torn(..) => 2,
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
    /// The first entry of interest.
    begin: usize,
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
    /// The states after entry `begin` of the log. `seed`: where what is drawn begins, and whether flushes are not heard, as by
    /// a disk that lies about them.
    pub fn new(
        log: &'a Log,
        begin: usize,
        (seed, deaf): (u64, bool),
        skip: &'a dyn Fn(&Entry) -> bool,
        reports: &'a dyn Fn(usize) -> usize,
    ) -> Self {
        Self { log, skip, reports, begin, seed, deaf, seen: HashSet::new(), counts: Counts::default() }
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
        for (index, entry) in self.log.entries.iter().enumerate() {
            if self.deaf && index == self.begin {
                settle(&mut disk, &mut pending)?;
            }
            let flush = entry.flush && !self.deaf;
            if flush || entry.through {
                if index >= self.begin && !visit(self, &disk, &pending, index)? {
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
            self.counts.sampled.0 += 1;
            self.counts.sampled.1 += pairs.len().saturating_sub(PAIRS) as u64;
            // Spread over all of them; which ones depends on their number alone.
            let step = pairs.len().div_ceil(PAIRS);
            fates.extend(pairs.into_iter().step_by(step).map(|(one, other)| Fate::Drop(vec![one, other])));
            fates.extend((0..DRAWN).map(|which| Fate::Draw(self.seed, which)));
        }
        for (index, write) in pending.iter().enumerate() {
            if matches!(write.entry.kind, Kind::Write(_)) && write.entry.length > SECTOR {
                fates.extend(Part::ALL.map(|(part, _)| Fate::Torn(index, part)));
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
            Fate::Torn(torn, part) if *torn == number => Some(*part),
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
        Fate::Mask(mask) => mask >> number & 1 == 1,
        Fate::Drop(which) => !which.contains(&number),
        Fate::Only(which) => number == *which,
        Fate::Draw(seed, which) => {
            let place = (end as u64) << 40 ^ which << 24 ^ number as u64;
            mixed(seed ^ mixed(place)) & 1 == 1
        }
    }
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
