//! What a recording shows in numbers, and what is asserted of them: stores of the environment, syncs, flushes, and how
//! much a power cut may choose from.
//!
//! Invariants: everything is counted in the log, marks included; nothing is a time. Only what belongs to the
//! operation is counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::replay::log::{Entry, Kind, Log, SECTOR};
use crate::replay::recording::{self, Recording};
use crate::replay::rows;
use crate::tour::disk::Disk;
use crate::tour::{Outcome, ensure, fail};
use runtime::protocol::{Row, TABLE};

/// How often the row of this name waits for a medium.
fn syncs(id: &str) -> usize {
    TABLE.iter().find(|step| step.id == id).map_or(0, |step| rows::waits(step.row))
}

/// Rows whose sync is not one of the keeper's volumes: the environment is PID 1's, the partition table has a region of its own.
const NOT_KEEPERS: [Row; 2] = [Row::SyncCopy, Row::SyncTable];

/// What may not be exceeded.
struct Bound {
    name: &'static str,
    /// Stores of the environment.
    stores: usize,
    /// Syncs.
    syncs: usize,
    /// Flushes that the syncs took.
    flushes: usize,
    /// Writes between two flushes: what a power cut may choose from.
    epoch: usize,
}

/// A commit that a file system makes of its own accord, every 5 s, may fall into one of the syncs.
const OWN: usize = 2;

const fn bound(name: &'static str, stores: usize, syncs: usize, flushes: usize, epoch: usize) -> Bound {
    Bound { name, stores, syncs, flushes: flushes + OWN, epoch }
}

/// Syncs of a message that comes with a revision (`pvr post -m`), and flushes that they take.
const MESSAGE: (usize, usize) = (2, 4);

/// What was measured. Of an update without its message, what it stores and syncs is less than 3 and at most 10, whatever it
/// consists of.
const BOUNDS: &[Bound] = &[
    bound("install", 2, 9, 23, 24),
    bound("in-place", 2, 9, 23, 14),
    bound("base", 2, 10, 24, 14),
    // One sync more: what stands there changes places only when its successor has been written back.
    bound("replace", 2, 11, 28, 14),
    bound("failed", 2, 10, 24, 14),
    bound("failed-in-place", 2, 9, 21, 14),
    bound("memory", 0, 48, 104, 14),
    bound("metadata", 0, 80, 168, 14),
];

/// The numbers of a recording.
#[derive(Debug)]
pub struct Counts {
    /// Entries of the log, those before the operation included.
    entries: usize,
    /// Bytes written.
    bytes: u64,
    /// Flushes.
    flushes: usize,
    /// Most writes between two flushes.
    epoch: usize,
    /// Stores of the environment: a write of one copy each.
    stores: usize,
    /// Syncs of the procedures.
    syncs: usize,
    /// Syncs of the keeper that its marks tell, and of those that it counted itself.
    keeper: (usize, usize),
    /// Flushes between the mark of a row that syncs and the next mark.
    sync_flushes: usize,
    /// Marks, by their text; what was reported by its first two words.
    marks: BTreeMap<String, usize>,
}

/// Counts a recording.
pub fn of(recording: &Recording) -> Outcome<Counts> {
    let board = boards::find(&recording.board).ok_or_else(|| format!("there is no board {}", recording.board))?;
    let disk = Disk::open(&recording.before(), board)?;
    let log = Log::read(&recording.log(), std::fs::metadata(recording.before())?.len())?;
    let mut counts = Counts {
        entries: log.entries.len(),
        bytes: 0,
        flushes: 0,
        epoch: 0,
        stores: 0,
        syncs: 0,
        keeper: (0, 0),
        sync_flushes: 0,
        marks: BTreeMap::new(),
    };
    let (mut pending, mut row) = (0, String::new());
    let is_about = |(index, _): &(usize, &Entry)| recording.is_about(*index);
    for (_, entry) in log.entries.iter().enumerate().filter(is_about) {
        if entry.flush {
            counts.flushes += 1;
            counts.sync_flushes += usize::from(syncs(&row) > 0);
            pending = 0;
        }
        if let Some(text) = mark(&log, entry, recording.mark_sector)? {
            counts.syncs += syncs(&text);
            row = text.clone();
            let key: Vec<&str> = text.split(' ').take(2).collect();
            *counts.marks.entry(key.join(" ")).or_default() += 1;
        } else if let Kind::Write(_) = entry.kind {
            pending += 1;
            counts.bytes += entry.length;
            let stores = match board.is_taken_over() {
                true => begins(&log, entry, b"pv_rev=")?, // the text, wherever it lies
                false => (disk.env.start..disk.env.start + disk.env.length).contains(&entry.at),
            };
            counts.stores += usize::from(stores && matches!(row.as_str(), "E2" | "E3"));
            counts.epoch = counts.epoch.max(pending);
        }
    }
    let texts = log.entries.iter().map(|entry| mark(&log, entry, recording.mark_sector));
    counts.keeper = keeper(&texts.filter_map(Outcome::transpose).collect::<Outcome<Vec<String>>>()?);
    Ok(counts)
}

/// How often the keeper waited for a medium: by the rows that marks name, and by its own count, which it marks after each request.
/// What it does before its first request is done is not looked at; what was prepared on the way is.
fn keeper(marks: &[String]) -> (usize, usize) {
    let (mut all, mut counted, mut told) = ((0, 0), None::<usize>, 0);
    for text in marks {
        if let Some(now) = text.strip_prefix("ack syncs ").and_then(|number| number.parse::<usize>().ok()) {
            // Of another keeper, after a restart, it is less.
            if let Some(more) = counted.and_then(|before| now.checked_sub(before)) {
                all = (all.0 + told, all.1 + more);
            }
            (counted, told) = (Some(now), 0);
            continue;
        }
        if text == Row::Sweep.id() {
            counted = None; // another keeper, after a restart
        }
        told += if NOT_KEEPERS.iter().any(|row| row.id() == text) { 0 } else { syncs(text) };
    }
    all
}

/// The text of a mark, if the entry is one.
fn mark(log: &Log, entry: &Entry, sector: u64) -> Outcome<Option<String>> {
    let Kind::Write(data) = entry.kind else { return Ok(None) };
    if entry.at != sector * SECTOR {
        return Ok(None);
    }
    let mut bytes = [0; SECTOR as usize];
    log.data(data, &mut bytes)?;
    match recording::mark(&bytes) {
        Some(text) => Ok(Some(text.into())),
        None => fail(format!("something else than a mark was written to sector {sector}")),
    }
}

/// Whether what is written begins so.
fn begins(log: &Log, entry: &Entry, with: &[u8]) -> Outcome<bool> {
    let Kind::Write(data) = entry.kind else { return Ok(false) };
    let mut bytes = vec![0; with.len()];
    log.data(data, &mut bytes)?;
    Ok(bytes == with)
}

impl Counts {
    /// Fails when a number is above its bound, when a sync flushed nothing, when the keeper waited for a medium and no row of the
    /// protocol says so, or when a store was not one write.
    pub fn hold(&self, name: &str) -> Outcome<()> {
        let (told, counted) = self.keeper;
        ensure(told == counted, || format!("the keeper waited {counted} times for a medium, and {told} are steps"))?;
        let Some(bound) = BOUNDS.iter().find(|bound| bound.name == name) else { return Ok(()) };
        let messages = self.marks.get(Row::WriteMessage.id()).copied().unwrap_or(0);
        let all = [
            ("stores of the environment", self.stores, bound.stores),
            ("syncs", self.syncs, bound.syncs + messages * MESSAGE.0),
            ("flushes of the syncs", self.sync_flushes, bound.flushes + messages * MESSAGE.1),
            ("writes between two flushes", self.epoch, bound.epoch),
        ];
        all.into_iter().try_for_each(|(what, is, may)| ensure(is <= may, || format!("{is} {what}, at most {may}")))?;
        let begun = self.marks.get(Row::WriteCopy.id()).copied().unwrap_or(0);
        ensure(begun == self.stores, || format!("{begun} stores of the environment wrote {} times", self.stores))?;
        ensure(self.sync_flushes >= self.syncs, || format!("{} syncs, {} flushes", self.syncs, self.sync_flushes))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, bytes, flushes, epoch, stores, syncs, keeper, sync_flushes, marks } = self;
        let marks: Vec<String> = marks.iter().map(|(text, count)| format!("{text} {count}")).collect();
        write!(f, "{entries} entries, {} kB, {flushes} flushes, {epoch} writes between two; ", bytes / 1024)?;
        write!(
            f,
            "{stores} stores, {syncs} syncs with {sync_flushes} flushes, {} of the keeper; marks: {}",
            keeper.1,
            marks.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_of_the_keeper_that_no_row_tells_is_noticed() {
        let of = |words: &str| keeper(&words.split(", ").map(String::from).collect::<Vec<_>>());
        assert_eq!(of("B2, ack syncs 3, I3, I5, I7, ack staged locals/a, ack syncs 7, E3, J3, ack syncs 8"), (5, 5));
        assert_eq!(of("ack syncs 3, G3, ack syncs 5, M2, M4, ack syncs 8"), (4, 5));
        // Another keeper counts anew, and what it does first is not looked at.
        assert_eq!(of("ack syncs 9, J3, ack syncs 10, B2, ack syncs 0, M2, M4, ack syncs 2"), (3, 3));
        assert_eq!(of("ack syncs 9, J3, ack syncs 2, M2, M4, ack syncs 4"), (2, 2));
    }
}
