//! What must hold in every state, as functions of what the two views show.
//!
//! 1. The environment names only revisions that are whole, durable and visible to the loader, in whichever copy.
//! 3. However often it is cut again, the device comes to rest on a committed revision after a bounded number of boots.
//! 4. What was reported holds: the decision, the reason of a failure, a staged revision, a file that was kept.
//! 5. Some revision boots, it is whole in both views, and they agree about it.
//!
//! And of storage: what has a final name holds what the name says; each kept revision is whole.
//! Law 2 needs a running device: the simulator watches it.

use std::collections::BTreeSet;

use runtime::{
    boot::Choice,
    id::{ObjectId, RevName},
    journal::{Phase, Record},
    limits,
    port::Loaded,
    state::{Spans, State, Value},
};
use sha2::{Digest, Sha256};

use super::loader::{ASSETS, Seen};
use super::reports::{Report, Reports};
use super::volume::Shelf;

/// What is known of a state.
pub struct Views<'a> {
    /// The boot partition as the loader sees it.
    pub seen: &'a Seen,
    /// The boot partition, mounted.
    pub boot: &'a Shelf,
    /// The storage partition, mounted.
    pub storage: &'a Shelf,
    /// The environment, before the loader counted; `None`: no copy is valid.
    pub loaded: Option<Loaded>,
    /// The journal's record.
    pub record: Option<Record>,
    /// What the device says of its last update when it has started: the journal's record, or what its boot finds out.
    pub says: Option<Record>,
    /// Revisions that were there at the beginning.
    pub factory: bool,
}

/// A broken law, in one line.
pub type Broken = Vec<String>;

impl Views<'_> {
    /// Every revision that a copy of the environment names.
    pub fn named(&self) -> BTreeSet<RevName> {
        self.loaded.iter().flat_map(|loaded| loaded.named).flatten().collect()
    }

    /// Laws 1 and those of storage: what does not depend on who boots.
    pub fn at_rest(&self, broken: &mut Broken) {
        if self.loaded.is_none() {
            broken.push("law 1: no copy of the environment is valid".into());
        }
        for rev in self.named() {
            if let Err(how) = self.whole(&rev) {
                broken.push(format!("law 1: {rev} is named by the environment, but {how}"));
            }
        }
        for (volume, shelf) in [("storage", self.storage), ("boot", self.boot)] {
            for (id, content) in shelf.objects.iter().filter(|(id, content)| id != content) {
                broken.push(format!("objects: {id} on {volume} holds {content}"));
            }
        }
        let last = self.boot.read("last").ok().and_then(|sector| runtime::store::parse_last(&sector));
        let factory = self.factory.then(RevName::factory);
        for (why, rev) in [("last names it", last), ("it is the factory's", factory)] {
            if let Some(Err(how)) = rev.map(|rev| self.whole(&rev)) {
                broken.push(format!("kept: {}: {why}, but {how}", rev.unwrap_or(RevName::factory())));
            }
        }
    }

    /// Law 5, of what the loader booted and of what we would then run.
    pub fn booted(&self, booted: Option<RevName>, choice: &Choice, broken: &mut Broken) {
        let Some(booted) = booted else {
            broken.push("law 5: the loader finds nothing that boots".into());
            return;
        };
        if let Err(how) = self.whole(&booted) {
            broken.push(format!("law 5: the loader boots {booted}, but {how}"));
        }
        if choice.run == booted {
            return;
        }
        // The one exception: a step back from an update in place, where both have the same base.
        let base = |rev: &RevName| self.seen.revisions.get(rev);
        if base(&booted) != base(&choice.run) {
            broken.push(format!("law 5: the loader boots {booted}, Linux would run {}", choice.run));
        } else if let Err(how) = self.whole(&choice.run) {
            broken.push(format!("law 5: {} would run, but {how}", choice.run));
        }
    }

    /// Whether a revision is whole, on storage and for the loader.
    fn whole(&self, rev: &RevName) -> Result<(), String> {
        let assets = self.stored(rev)?;
        let seen = self.seen.revisions.get(rev).ok_or("the loader does not see it")?;
        for (name, id) in assets {
            match seen.get(name) {
                Some(content) if *content == id => {}
                Some(_) => return Err(format!("the loader sees another {name}")),
                None => return Err(format!("the loader does not see {name}")),
            }
        }
        Ok(())
    }

    /// Whether a revision is whole on storage; its boot assets.
    fn stored(&self, rev: &RevName) -> Result<Vec<(&'static str, ObjectId)>, String> {
        let files = self.storage.trails.get(rev).ok_or("storage has no such revision")?;
        let text =
            self.storage.read(&format!("trails/{rev}/.pvr/json")).map_err(|error| format!("its state: {error}"))?;
        let mut spans = Box::new(Spans::new());
        let state = State::read(&text, &mut spans).map_err(|refusal| format!("its state: {refusal}"))?;
        for entry in state.entries() {
            let expected = match entry.value {
                Value::Object(id) => id,
                Value::Inline(raw) => ObjectId(Sha256::digest(raw).into()),
            };
            match files.get(entry.key) {
                Some(Some(content)) if *content == expected => {}
                Some(_) => return Err(format!("{} is damaged", entry.key)),
                None => return Err(format!("{} is missing", entry.key)),
            }
            if let Value::Object(id) = entry.value
                && self.storage.objects.get(&id) != Some(&id)
            {
                return Err(format!("object {id} is missing or damaged"));
            }
        }
        let assets = state.boot_assets().map_err(|refusal| format!("its boot assets: {refusal}"))?;
        let all = [Some(assets.linux), Some(assets.initrd), assets.fdt];
        Ok(ASSETS.into_iter().zip(all).filter_map(|(name, id)| Some((name, id?))).collect())
    }

    /// Law 4: what was reported before entry `end`.
    pub fn reported(&self, reports: &Reports, end: usize, broken: &mut Broken) {
        let (said, later) = reports.reports.split_at(reports.in_force(end));
        self.decision(said, later, broken);
        self.done(reports, end, broken);
        for (at, (entry, report)) in said.iter().enumerate() {
            if reports.reset(*entry, end) {
                continue;
            }
            let after = || said[at + 1..].iter().chain(later).map(|(_, report)| report);
            match report {
                Report::Failed(rev, code) if !said[at + 1..].iter().any(|(_, later)| about(later) == Some(*rev)) => {
                    let excused = |rev: RevName| after().any(|later| about(later) == Some(rev));
                    self.failed(*rev, *code, excused, broken);
                }
                Report::Staged(rev) if !reports.collected(*entry, end) => {
                    if let Err(how) = self.stored(rev) {
                        broken.push(format!("law 4: {rev} was reported as staged, but {how}"));
                    }
                }
                Report::File(name, id) if !said[at + 1..].iter().any(|(_, later)| is_file(later, name)) => {
                    let held = self.storage.files.get(*name).copied().flatten();
                    let newer = |held| after().any(|later| *later == Report::File(name, held));
                    if held != Some(*id) && !held.is_some_and(newer) {
                        broken.push(format!("law 4: {name} was reported as kept, and is lost or older"));
                    }
                }
                _ => {}
            }
        }
    }

    /// The decision in force is the last that was reported, or a later one.
    fn decision(&self, said: &[(usize, Report)], later: &[(usize, Report)], broken: &mut Broken) {
        let Some(vars) = self.loaded.map(|loaded| loaded.vars) else { return };
        let decided = |report: &Report| match report {
            Report::Decision(committed, candidate) => Some((*committed, *candidate)),
            _ => None,
        };
        let last = said.iter().rev().find_map(|(_, report)| decided(report));
        let mut allowed = last.into_iter().chain(later.iter().filter_map(|(_, report)| decided(report)));
        if last.is_some() && !allowed.any(|decision| decision == (vars.committed, vars.candidate)) {
            broken.push(format!("law 4: {last:?} was stored and read back, {vars:?} is in force"));
        }
    }

    /// Of what was told as done: the last one is committed, or one that is decided or told later.
    fn done(&self, reports: &Reports, end: usize, broken: &mut Broken) {
        let Some(vars) = self.loaded.map(|loaded| loaded.vars) else { return };
        let said = &reports.reports[..reports.in_force(end)];
        let done = said.iter().enumerate().rev().find_map(|(at, (entry, report))| match report {
            Report::Done(rev) if !reports.reset(*entry, end) => Some((at, *rev)),
            _ => None,
        });
        let Some((at, done)) = done else { return };
        let mut commits = reports.reports[at + 1..].iter().filter_map(|(_, report)| match report {
            Report::Done(rev) | Report::Decision(rev, _) => Some(*rev),
            _ => None,
        });
        if vars.committed != done && !commits.any(|rev| rev == vars.committed) {
            broken.push(format!("law 4: {done} was reported as done, {} is committed", vars.committed));
        }
    }

    /// The device says why a revision failed, or speaks of a later one.
    fn failed(
        &self,
        rev: RevName,
        code: Option<runtime::fault::Code>,
        excused: impl Fn(RevName) -> bool,
        broken: &mut Broken,
    ) {
        let holds = match self.says {
            Some(Record { candidate, phase: Phase::Failed { code: now, .. }, .. }) if candidate == rev => {
                code.is_none_or(|code| code == now)
            }
            Some(record) => record.candidate != rev && excused(record.candidate),
            None => false,
        };
        if !holds {
            broken.push(format!("law 4: {rev} was reported as failed ({code:?}), the device says {:?}", self.says));
        }
    }
}

/// The revision that a report is about.
fn about(report: &Report) -> Option<RevName> {
    match report {
        Report::Done(rev) | Report::Failed(rev, _) | Report::Staged(rev) => Some(*rev),
        Report::Decision(_, candidate) => *candidate,
        Report::File(..) | Report::Other => None,
    }
}

fn is_file(report: &Report, name: &str) -> bool {
    matches!(report, Report::File(other, _) if *other == name)
}

/// Boots after which a device that is cut in each of them must have come to rest: every try of the candidate by the
/// loader's count or by ours, the boot that gives it up, and the one that finds nothing more to do.
pub const BOOTS_MAX: usize = limits::TRIES_MAX as usize + runtime::boot::BOOTLIMIT as usize + 3;
