//! One recording, gone through: its states, what was seen of them, and what is told about it.
//!
//! Invariants: before anything else the whole log, replayed over the disk before, gives the disk after, byte for byte. A
//! recording that holds must show no violation; one in which something was left out on purpose must show some. Every row
//! of the protocol's table that the recording is about was reached, and of each that waits for a medium a state was looked
//! at (`rows`); enough was seen (`judge`). What a sample left out is told.
//! A violation is told with the log, the state's name, the seed and the one command that looks at that state again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::before::Before;
use super::checker::{CLASSES, parts_of};
use super::crew::{self, Order, Seen};
use super::judge::{Law, Tally, UNSEEN, complaints, floor};
use super::layers::{BLOCK, Ground, Layers, Range, Sums};
use super::log::{Entry, Kind, Log};
use super::mounts::may_resize;
use super::recording::{Control, Recording};
use super::reports::{Reports, is_mark};
use super::rows;
use super::states::{self, Counts, EXHAUSTIVE, Name, Walk, apply, mixed};
use crate::tour::disk::Disk;
use crate::tour::{Outcome, ensure, fail};
use runtime::protocol::Row as ProtocolRow;
use simulator::evidence_rows::{self, Proofs, Row, Spread};

/// Where `ci/evidence` keeps recordings, below the checkout.
const RECORDINGS: &str = "target/evidence/recordings";
/// What goes through a recording wherever it is; as root.
const PROGRAM: &str = "target/debug/replay";
/// Violations of one recording that are told in full.
const TOLD_MAX: usize = 5;

/// How a recording is gone through.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything that is drawn begins.
    pub seed: u64,
    /// How many states, drawn of all; `None`: all.
    pub sample: Option<u64>,
    /// Flushes are not heard, as by a disk that lies about them: that must be noticed.
    pub deaf: bool,
    /// This state alone.
    pub only: Option<Name>,
    /// Where the image of that state is written to.
    pub keep: Option<PathBuf>,
    /// Checkers at the same time.
    pub hands: usize,
}

/// A recording, opened.
pub struct Replay {
    recording: Recording,
    log: Log,
    reports: Reports,
    disk: Layers,
    length: u64,
    parts: [Range; 3],
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// What a control is to break, and in how many states it did.
    proofs: Vec<(Law, u64)>,
    looked: u64,
    /// What the disk held in them.
    media: HashSet<Sums>,
    /// States that were looked at, by the entry at which their epoch ends.
    of: BTreeMap<usize, u64>,
    unseen: u64,
    bad: u64,
    told: Vec<(String, Vec<String>)>,
    laws: BTreeMap<String, u64>,
    classes: [BTreeSet<String>; CLASSES.len()],
    combined: BTreeSet<Vec<String>>,
    rows: BTreeMap<ProtocolRow, u64>,
    mended: u64,
    forced: u64,
}

impl Found {
    fn add(&mut self, reports: &Reports, seen: Seen) {
        self.mended += seen.mended;
        self.forced += u64::from(seen.forced);
        if seen.violations.iter().any(|violation| violation.starts_with(UNSEEN)) {
            self.unseen += 1;
        } else {
            self.look(reports, &seen);
        }
        for violation in &seen.violations {
            let law = violation.split(':').next().unwrap_or_default();
            *self.laws.entry(law.into()).or_default() += 1;
        }
        if self.told.len() < TOLD_MAX && !seen.violations.is_empty() {
            self.told.push((seen.name, seen.violations));
        }
    }

    fn look(&mut self, reports: &Reports, seen: &Seen) {
        self.looked += 1;
        self.media.insert(seen.sums);
        *self.of.entry(seen.end).or_default() += 1;
        if let Some(row) = reports.row_at(seen.reached) {
            *self.rows.entry(row).or_default() += 1;
        }
        for (values, value) in self.classes.iter_mut().zip(&seen.classes) {
            values.insert(value.clone());
        }
        self.combined.insert(seen.classes.clone());
        self.bad += u64::from(!seen.violations.is_empty());
        for (law, count) in &mut self.proofs {
            *count += u64::from(seen.violations.iter().any(|violation| law.is_broken_by(violation)));
        }
    }

    /// States that were looked at, but for those of the epoch with most of them.
    fn outside(&self) -> u64 {
        self.looked - self.of.values().max().copied().unwrap_or(0)
    }
}

impl Replay {
    /// Opens the recording in `folder`, and shows that its log is exact.
    pub fn open(folder: &Path) -> Outcome<Self> {
        let recording = Recording::read(folder)?;
        let board = boards::find(&recording.board).ok_or_else(|| format!("there is no board {}", recording.board))?;
        let before = File::open(recording.before())?;
        let length = before.metadata()?.len();
        let log = Log::read(&recording.log(), length)?;
        let disk = Disk::open(&recording.before(), board)?;
        ensure(disk.flash().is_none(), || "an environment in flash is not in the log of the disk".into())?;
        let parts = parts_of(&disk, length);
        let reports = Reports::of(&recording, &log, &Before::read(board, &recording.before(), parts[1], parts[2])?)?;
        // The environment last: a raw one has no partition, and what holds it is the whole disk.
        let ranges = [parts[1], parts[2], parts[0]];
        let ground = Arc::new(Ground::new(before, log.file()?)?);
        let replay = Self { disk: Layers::new(ground, ranges), recording, log, reports, length, parts };
        replay.is_exact()?;
        Ok(replay)
    }

    /// Fails unless all of the log makes the disk after.
    fn is_exact(&self) -> Outcome<()> {
        let mut disk = self.disk.clone();
        // The recorder's disk keeps what was given up.
        for entry in self.log.entries.iter().filter(|entry| entry.kind != Kind::Discard) {
            apply(&mut disk, entry, None)?;
        }
        let after = File::open(self.recording.after())?;
        ensure(after.metadata()?.len() == self.length, || "the disk after has another size".into())?;
        let (mut ours, mut theirs) = ([0; BLOCK], [0; BLOCK]);
        for block in 0..self.length.div_ceil(BLOCK as u64) {
            let length = (self.length - block * BLOCK as u64).min(BLOCK as u64) as usize;
            theirs[length..].fill(0);
            after.read_exact_at(&mut theirs[..length], block * BLOCK as u64)?;
            disk.read(block, &mut ours)?;
            ensure(ours == theirs, || {
                format!("replayed whole, byte {} differs from the disk after", block * BLOCK as u64)
            })?;
        }
        Ok(())
    }

    /// Goes through it; whether it is as it must be.
    pub fn run(&self, options: &Options, scratch: &Path) -> Outcome<(Row, bool)> {
        let is_mark = |entry: &Entry| is_mark(&self.recording, entry);
        let in_force = |end: usize| self.reports.in_force(end);
        let is_about = |entry: usize| self.recording.is_about(entry);
        let walk = || Walk::new(&self.log, &is_about, (options.seed, options.deaf), &is_mark, &in_force);
        let share = match (&options.only, options.sample) {
            (None, Some(sample)) => {
                let mut all = walk();
                all.all(self.disk.clone(), &mut |_| Ok(true))?;
                Some((states::share(&all.counts.of, sample), all.counts.of))
            }
            _ => None,
        };
        let order = Order {
            recording: &self.recording.folder,
            folder: scratch.join(format!("replay-{}-{}", self.recording.name, std::process::id())),
            hands: options.hands,
            disk: self.disk.clone(),
            length: self.length,
            parts: self.parts,
        };
        let begun = Instant::now();
        let proofs = Law::of(&self.recording.operation, self.recording.control, options.deaf)
            .iter()
            .map(|law| (*law, 0))
            .collect();
        let found = Mutex::new(Found { proofs, ..Found::default() });
        let mut counts = Counts::default();
        let make = |give: &mut dyn FnMut(_) -> Outcome<bool>| {
            let mut walk = walk();
            if let Some(name) = &options.only {
                let state = walk.one(self.disk.clone(), name)?;
                if let Some(image) = &options.keep {
                    self.keep(&state.disk, image)?;
                }
                return give(state).map(drop);
            }
            let mut number = 0;
            walk.all(self.disk.clone(), &mut |state| {
                number += 1;
                let drawn = |(share, of): &(u64, BTreeMap<usize, u64>)| {
                    let all = of.get(&state.name.end).copied().unwrap_or(1);
                    mixed(options.seed ^ mixed(number)) % all < *share
                };
                if share.as_ref().is_none_or(drawn) { give(state) } else { Ok(true) }
            })?;
            counts = walk.counts.clone();
            Ok(())
        };
        crew::look(&order, make, &|seen| found.lock().expect("no holder panics").add(&self.reports, seen))?;
        let found = found.into_inner().expect("no holder panics");
        let seconds = begun.elapsed().as_secs_f64();
        self.tell(options, &counts, &found, seconds);
        let row = Row {
            name: format!("replay {}{}", self.recording.name, if options.deaf { ", flushes not heard" } else { "" }),
            count: found.looked,
            distinct: found.media.len() as u64,
            classes: Some(found.combined.len() as u64),
            violations: found.bad,
            seed: options.seed,
            command: self.command(options),
            commit: Some(self.commit()),
            cuts: None,
            spread: Some(Spread {
                unseen: found.unseen,
                epochs: counts.epochs,
                outside: found.outside(),
                sampled: counts.sampled.0,
                pairs: counts.sampled.1,
            }),
            mended: Some(found.mended),
            proofs: self.proofs(&found),
            grown_by: self.grown_by().map(str::to_string),
        };
        let holds = self.judge(options, &found)?;
        Ok((row, holds))
    }

    /// Writes a state's image, with holes where the disk before has them.
    fn keep(&self, disk: &Layers, image: &Path) -> Outcome<()> {
        let mut copy = std::process::Command::new("cp");
        let copied = copy.arg("--sparse=always").arg(self.recording.before()).arg(image).status()?;
        ensure(copied.success(), || format!("{} could not be written", image.display()))?;
        let file = File::options().write(true).open(image)?;
        let mut bytes = [0; BLOCK];
        for block in disk.changed() {
            let length = (self.length - block * BLOCK as u64).min(BLOCK as u64) as usize;
            disk.read(block, &mut bytes)?;
            file.write_all_at(&bytes[..length], block * BLOCK as u64)?;
        }
        Ok(())
    }

    fn tell(&self, options: &Options, counts: &Counts, found: &Found, seconds: f64) {
        let Recording { name, operation, control, .. } = &self.recording;
        let [prefixes, subsets, torn] = counts.kinds;
        println!(
            "{name:<20} {operation}, control {}: {} states ({prefixes} prefixes, {subsets} subsets, {torn} torn), {} distinct, \
             {} looked at, {} violate a law, {} could not be looked at; {:.0}/s",
            control.word(),
            counts.states,
            counts.distinct,
            found.looked,
            found.bad,
            found.unseen,
            found.looked as f64 / seconds.max(0.001),
        );
        println!(
            "{:<20} {} entries, {} epochs of at most {} writes, {} of more than {EXHAUSTIVE} sampled ({} pairs left out), \
             {} looked at outside the one with most, {} discards; {} superblocks mended, {} forced views of the loader",
            "",
            self.log.entries.len(),
            counts.epochs,
            counts.largest,
            counts.sampled.0,
            counts.sampled.1,
            found.outside(),
            counts.discards,
            found.mended,
            found.forced,
        );
        if let Some(who) = self.grown_by() {
            println!("{:<20} what the next start grows was grown by {who}", "");
        }
        let classes: Vec<String> =
            CLASSES.iter().zip(&found.classes).map(|(class, values)| format!("{class} {}", values.len())).collect();
        println!("{:<20} {} classes: {}", "", found.combined.len(), classes.join(", "));
        let rows: Vec<String> = found.rows.iter().map(|(row, count)| format!("{} {count}", row.id())).collect();
        if !rows.is_empty() {
            println!("{:<20} states by row: {}", "", rows.join(", "));
            let under = rows::under(&self.marks(), &found.rows.keys().copied().collect());
            let under = under
                .iter()
                .map(|(row, others)| format!("{} {}", row.id(), others.iter().copied().collect::<Vec<_>>().join(" ")));
            println!("{:<20} seen under: {}", "", under.collect::<Vec<_>>().join(", "));
        }
        for (law, count) in &found.laws {
            println!("{:<20} {law}: {count}", "");
        }
        for (law, count) in &found.proofs {
            println!("{:<20} must be broken: {}, broken in {count} of {} states", "", law.words(), found.looked);
        }
        let limit = if found.proofs.is_empty() { TOLD_MAX } else { 1 };
        for (state, violations) in found.told.iter().take(limit) {
            println!("{:<20} {} state {state}, seed {}:", "", self.recording.log().display(), options.seed);
            violations.iter().take(TOLD_MAX).for_each(|violation| println!("{:<24} {violation}", ""));
            println!("{:<24} again: {}", "", self.again(options, state));
        }
    }

    /// Of a control: which laws must break, and in how many states they did.
    fn proofs(&self, found: &Found) -> Option<Proofs> {
        let proofs = found.proofs.iter().map(|(law, count)| (law.words().to_string(), *count));
        (!found.proofs.is_empty()).then(|| proofs.collect())
    }

    /// Who grows the file system at the next start, in a recording of that.
    fn grown_by(&self) -> Option<&'static str> {
        let own = may_resize().unwrap_or(false);
        let who = if own { "the device's own call" } else { "resize2fs (no CAP_SYS_RESOURCE here)" };
        (self.recording.operation == "growth").then_some(who)
    }

    /// The rows that were announced, in their order.
    fn marks(&self) -> Vec<ProtocolRow> {
        self.reports.rows.iter().filter(|(entry, _)| self.recording.is_about(*entry)).map(|(_, row)| *row).collect()
    }

    /// Whether what was found is what the recording must show.
    fn judge(&self, options: &Options, found: &Found) -> Outcome<bool> {
        let operation = &self.recording.operation;
        let mut all = Vec::new();
        let missing = rows::missing(operation, &self.marks().into_iter().collect())?;
        if !missing.is_empty() {
            all.push(format!("rows that were not reached: {}", missing.join(", ")));
        }
        let whole = options.sample.is_none() && options.only.is_none() && found.proofs.is_empty();
        let unseen = rows::unseen(operation, &found.rows.keys().copied().collect())?;
        if whole && !unseen.is_empty() {
            all.push(format!("rows that wait for a medium, and no state of theirs: {}", unseen.join(", ")));
        }
        let proofs = if options.only.is_none() { found.proofs.clone() } else { Vec::new() };
        let Found { looked, unseen, bad, .. } = *found;
        let floor = floor(operation, self.recording.control, looked);
        let tally = Tally { looked, outside: found.outside(), unseen, bad, proofs, floor };
        all.extend(complaints(&tally, whole.then_some(operation)));
        all.iter().for_each(|what| println!("FAILED {}: {what}", self.recording.name));
        Ok(all.is_empty())
    }

    /// What does this again; a recording elsewhere than where `ci/evidence` keeps it is named by its folder.
    fn command(&self, options: &Options) -> String {
        let mut words = vec![match self.recording.folder.ends_with(Path::new(RECORDINGS).join(self.name())) {
            true => format!("ci/evidence replay {}", self.name()),
            false => PROGRAM.to_string(),
        }];
        if options.seed != 1 {
            words.push(format!("--seed {}", options.seed));
        }
        words.extend(options.sample.map(|sample| format!("--sample {sample}")));
        words.extend(options.deaf.then(|| "--deaf".into()));
        if words[0] == PROGRAM {
            words.push(self.place());
        }
        words.join(" ")
    }

    /// What looks at this state of this very recording again.
    fn again(&self, options: &Options, state: &str) -> String {
        let deaf = if options.deaf { "--deaf " } else { "" };
        format!("{PROGRAM} --seed {} {deaf}--state {state} --keep state.img {}", options.seed, self.place())
    }

    /// The recording's folder, as short as it can be said here.
    fn place(&self) -> String {
        let folder = &self.recording.folder;
        let here = std::env::current_dir().ok().and_then(|here| Some(folder.strip_prefix(here).ok()?.to_path_buf()));
        here.as_ref().unwrap_or(folder).display().to_string()
    }

    /// Of which commit this is: the device's, and who went through it if that is another one.
    fn commit(&self) -> String {
        let device = &self.recording.commit;
        match evidence_rows::commit() {
            Some(ours) if ours != *device => format!("{device}, replayed by {ours}"),
            _ => device.clone(),
        }
    }

    /// Whether something was left out on purpose.
    pub fn is_control(&self) -> bool {
        self.recording.control != Control::None
    }

    /// The name of the recording.
    pub fn name(&self) -> &str {
        &self.recording.name
    }
}

/// The folders of recordings below `folder`, or `folder` itself if it is one.
pub fn recordings(folder: &Path) -> Outcome<Vec<PathBuf>> {
    if folder.join("recording.json").exists() {
        return Ok(vec![folder.into()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.join("recording.json").exists() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() { fail(format!("{}: no recordings", folder.display())) } else { Ok(found) }
}
