//! What must hold in every state, as functions of what the two views show.
//!
//! 1. The environment names only revisions that are whole, durable and visible to the loader, in whichever copy.
//! 3. However often it is cut again, the device comes to rest on a committed revision after a bounded number of boots.
//! 4. What was reported holds: the decision, the reason of a failure, a staged revision, a file that was kept.
//! 5. Some revision boots, it is whole in both views, and they agree about it.
//!
//! And of both volumes: what has a final name holds what the name says, whoever names it; each kept revision is whole.
//! All of it holds in the state, and once more when the device has come to rest after it; what holds then alone is in
//! `at_rest`.
//! Law 2 needs a running device: the simulator watches it.

use std::collections::BTreeSet;

use runtime::{
    boot::{Choice, Facts},
    fault::Code,
    id::{ObjectId, RevName},
    journal::{Phase, Record},
    port::{BootVars, Loaded},
    state::{Spans, State, Value},
};
use sha2::{Digest, Sha256};

use super::loader::{ASSETS, Seen};
use super::original::imported;
use super::reports::{Report, Reports};
use super::volume::Shelf;
use crate::takeover::original::UNTOUCHED;

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
    /// Whether the factory revision was there at the beginning.
    pub factory: bool,
}

/// How a device comes to rest.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// What its loader said.
    pub facts: Facts,
    /// What it decided: to do nothing more.
    pub choice: Choice,
    /// On the way a factory reset was ended.
    pub reset: bool,
    /// It is the original's revision that runs, on a device that is taken over: it clears the candidate itself.
    pub theirs: bool,
}

/// The commit message of a revision.
const MESSAGE: &str = ".pv/commitmsg";

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
        self.names(broken);
        let last = self.last();
        let factory = self.factory.then(RevName::factory);
        for (why, rev) in [("is named by last", last), ("is the factory's", factory)] {
            if let Some((rev, Err(how))) = rev.map(|rev| (rev, self.whole(&rev))) {
                broken.push(format!("kept: {rev} {why}, but {how}"));
            }
        }
    }

    /// Every revision that has a final name is whole, on the volume that it has it on.
    fn names(&self, broken: &mut Broken) {
        for rev in self.storage.trails.keys() {
            if let Err(how) = self.stored(rev) {
                broken.push(format!("names: {rev} is on storage, but {how}"));
            }
        }
        for (rev, files) in &self.boot.trails {
            // One that is being collected may be gone from storage: then nothing says what its assets are.
            let holds = |name: &str, id: Option<ObjectId>| match files.get(name) {
                Some(Some(content)) => id.is_none_or(|id| id == *content),
                _ => false,
            };
            let assets: Vec<(&str, Option<ObjectId>)> = match self.storage.trails.contains_key(rev) {
                true => self.stored(rev).into_iter().flatten().map(|(name, id)| (name, Some(id))).collect(),
                false => ASSETS[..2].iter().map(|name| (*name, None)).collect(),
            };
            // Another state of this name has come, and its assets have not yet: those of before are whole by their own list.
            let listed = self.listed(rev);
            let is_whole = !listed.is_empty() && listed.iter().all(|(name, id)| holds(name, Some(*id)));
            if let Some((name, _)) = assets.into_iter().find(|(name, id)| !holds(name, *id))
                && !is_whole
            {
                broken.push(format!("names: {rev} is on boot, but {name} is missing or damaged"));
            }
        }
    }

    /// What a revision's folder on boot says itself of which objects its assets are.
    fn listed(&self, rev: &RevName) -> Vec<(String, ObjectId)> {
        let text = self.boot.read(&format!("trails/{rev}/assets")).unwrap_or_default();
        let line = |line: &str| {
            let (name, id) = line.split_once(' ')?;
            Some((name.to_string(), ObjectId::parse(id)?))
        };
        let lines: Option<Vec<_>> = String::from_utf8_lossy(&text).lines().map(line).collect();
        lines.unwrap_or_default()
    }

    /// On a device that was taken over: what the loader decides by is what is in force, every revision that has a name has
    /// its boot assets, and what is not ours is as the original left it. `text`: as the loader reads it.
    pub fn taken(&self, text: &[u8], broken: &mut Broken) {
        let [committed, candidate] = ["pv_rev", "pv_try"].map(|name| imported(text, name));
        let in_force = self.loaded.map(|loaded| {
            (loaded.vars.committed.to_string(), loaded.vars.candidate.map(|candidate| candidate.to_string()))
        });
        if in_force != committed.clone().map(|committed| (committed, candidate.clone())) {
            broken.push(format!(
                "law 1: {in_force:?} is in force, but the loader does not see it: {committed:?}, {candidate:?}"
            ));
        }
        for (rev, files) in &self.storage.trails {
            let assets = self.stored(rev).unwrap_or_default();
            let lacks = |(name, id): &(&str, ObjectId)| files.get(&format!(".pv/{name}")) != Some(&Some(*id));
            if let Some((name, _)) = assets.iter().find(|asset| lacks(asset)) {
                broken.push(format!("names: {rev} is on storage, but {name} is missing in it or damaged"));
            }
        }
        for (name, content) in UNTOUCHED {
            if self.storage.read(name).ok().as_deref() != Some(content.as_bytes()) {
                broken.push(format!("untouched: {name} is not as the original left it"));
            }
        }
    }

    /// The revision that `last` names.
    pub(super) fn last(&self) -> Option<RevName> {
        self.boot.read("last").ok().and_then(|sector| runtime::store::parse_last(&sector))
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
    pub(super) fn whole(&self, rev: &RevName) -> Result<(), String> {
        let assets = self.stored(rev)?;
        self.shown(rev, assets)
    }

    /// The loader's half of `whole` alone. Of a revision that is not whole on storage nothing says what its boot assets are:
    /// there they must load.
    pub(super) fn bootable(&self, rev: &RevName) -> Result<(), String> {
        match self.stored(rev) {
            Ok(assets) => self.shown(rev, assets),
            Err(_) if self.seen.loads(rev) => Ok(()),
            Err(_) => Err("the loader does not see it".into()),
        }
    }

    /// Whether the loader sees these boot assets of a revision.
    fn shown(&self, rev: &RevName, assets: Vec<(&'static str, ObjectId)>) -> Result<(), String> {
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
        self.promised(reports, end, broken);
    }

    /// Law 4, but for the decision: the device may have gone on since.
    pub fn promised(&self, reports: &Reports, end: usize, broken: &mut Broken) {
        let (said, later) = reports.reports.split_at(reports.in_force(end));
        self.done(reports, end, broken);
        for (at, (entry, report)) in said.iter().enumerate() {
            if self.is_reset(reports, *entry, end) {
                continue;
            }
            let after = || said[at + 1..].iter().chain(later).map(|(_, report)| report);
            match report {
                Report::Failed(rev, code) if !said[at + 1..].iter().any(|(_, later)| about(later) == Some(*rev)) => {
                    let excused = |rev: RevName| after().any(|later| about(later) == Some(rev));
                    self.failed(*rev, *code, excused, broken);
                }
                Report::Staged(rev) if !reports.collected(*entry, end) || self.is_kept(rev) => {
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
                Report::Message(rev, id) if !reports.collected(*entry, end) || self.is_kept(rev) => {
                    // Put anew, it is another revision; its message is told anew.
                    let is_of = |report: &Report| matches!(report, Report::Staged(other) | Report::Message(other, _) if other == rev);
                    let held = self.storage.trails.get(rev).and_then(|files| files.get(MESSAGE)).copied().flatten();
                    let newer = |held| after().any(|report| *report == Report::Message(*rev, held));
                    if !said[at + 1..].iter().any(|(_, report)| is_of(report))
                        && held != Some(*id)
                        && !held.is_some_and(newer)
                    {
                        broken.push(format!("law 4: the message of {rev} was reported as kept, and is lost or older"));
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether what was reported at `entry` is not meant to hold any more: a factory reset has begun since, and its
    /// decision is in force.
    fn is_reset(&self, reports: &Reports, entry: usize, end: usize) -> bool {
        let alone = |vars: BootVars| vars.committed == RevName::factory() && vars.candidate.is_none();
        reports.reset(entry, end) && self.loaded.is_some_and(|loaded| alone(loaded.vars))
    }

    /// Whether no collection may take a revision.
    fn is_kept(&self, rev: &RevName) -> bool {
        *rev == RevName::factory() || self.last() == Some(*rev) || self.named().contains(rev)
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
            Report::Done(rev) if !self.is_reset(reports, *entry, end) => Some((at, *rev)),
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
    fn failed(&self, rev: RevName, code: Option<Code>, excused: impl Fn(RevName) -> bool, broken: &mut Broken) {
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
        // No later word about the update of this revision.
        Report::File(..) | Report::Message(..) | Report::Other => None,
    }
}

fn is_file(report: &Report, name: &str) -> bool {
    matches!(report, Report::File(other, _) if *other == name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use runtime::protocol::Row;

    /// `0`, or a local one of this name.
    pub(in crate::replay) fn rev(name: &str) -> RevName {
        RevName::parse(name).or_else(|_| RevName::parse(&format!("locals/{name}"))).unwrap()
    }

    pub(in crate::replay) fn loaded(committed: &str, candidate: Option<&str>) -> Loaded {
        let vars = BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: None };
        let mut named = [None; 6];
        named[0] = Some(vars.committed);
        named[1] = vars.candidate;
        Loaded { vars, bootcount: 0, named, complete: true, active: 1, damaged: false }
    }

    /// What is broken where this is committed, both volumes are `shelf`, and the device says this of its last update.
    pub(in crate::replay) fn broken(
        env: Loaded,
        shelf: &Shelf,
        says: Option<Record>,
        law: impl Fn(&Views<'_>, &mut Broken),
    ) -> Vec<String> {
        let seen = Seen::default();
        let (loaded, record) = (Some(env), says);
        let views = Views { seen: &seen, boot: shelf, storage: shelf, loaded, record, says, factory: false };
        let mut broken = Broken::new();
        law(&views, &mut broken);
        broken
    }

    fn promised(env: Loaded, says: Option<Record>, reports: &Reports, end: usize) -> Vec<String> {
        broken(env, &Shelf::default(), says, |views, broken| views.reported(reports, end, broken))
    }

    fn reports(all: &[(usize, Report)], rows: &[(usize, Row)]) -> Reports {
        Reports { reports: all.to_vec(), rows: rows.to_vec() }
    }

    pub(in crate::replay) fn failed(name: &str, code: Code) -> Record {
        Record { candidate: rev(name), ..Record::none(rev("0")) }.with(Phase::Failed { code, container: None })
    }

    #[test]
    fn the_decision_before_holds_until_another_is_told_or_on_its_way() {
        let all =
            reports(&[(0, Report::Decision(rev("0"), None)), (9, Report::Decision(rev("0"), Some(rev("a"))))], &[]);
        assert!(promised(loaded("0", None), None, &all, 1).is_empty());
        assert!(promised(loaded("0", Some("a")), None, &all, 1).is_empty());
        assert_eq!(promised(loaded("b", None), None, &all, 1).len(), 1);
        assert_eq!(promised(loaded("0", None), None, &all, 10).len(), 1);
    }

    #[test]
    fn a_reason_is_kept_until_another_revision_is_spoken_of() {
        let told = Report::Failed(rev("a"), Some(Code::GoalsMissed));
        let all = reports(&[(0, told), (0, Report::Decision(rev("0"), None)), (5, Report::Staged(rev("b")))], &[]);
        let of = |says| promised(loaded("0", None), says, &all, 1).len();
        assert_eq!(of(Some(failed("a", Code::GoalsMissed))), 0);
        assert_eq!(of(Some(failed("a", Code::ContainerExited))), 1);
        assert_eq!(of(Some(failed("b", Code::UpdateRestarted))), 0);
        assert_eq!(of(Some(failed("c", Code::UpdateRestarted))), 1);
        assert_eq!(of(None), 1);
    }

    #[test]
    fn a_reset_excuses_where_its_decision_is_in_force_alone() {
        let kept = Report::File("endpoint", ObjectId([1; 32]));
        let rows = [(5, Row::BeginReset)];
        let all = reports(&[(1, Report::Done(rev("a"))), (2, kept), (6, Report::Decision(rev("0"), None))], &rows);
        let of = |env: Loaded, end| {
            broken(env, &Shelf::default(), None, |views, broken| views.promised(&all, end, broken)).len()
        };
        assert_eq!((of(loaded("0", None), 7), of(loaded("0", None), 3)), (0, 1));
        // It was announced, and the decision before is in force.
        assert_eq!(of(loaded("a", None), 7), 1);
        assert_eq!(of(loaded("0", Some("a")), 7), 1);
    }

    #[test]
    fn a_collection_excuses_what_nobody_names() {
        let rows = [(5, Row::UnnameRevisions)];
        let all = reports(&[(0, Report::Decision(rev("a"), None)), (1, Report::Staged(rev("b")))], &rows);
        let of = |all: &Reports, env, end| promised(env, None, all, end).len();
        assert_eq!((of(&all, loaded("a", None), 6), of(&all, loaded("a", None), 4)), (0, 1));
        let kept = reports(&[(0, Report::Decision(rev("b"), None)), (1, Report::Staged(rev("b")))], &rows);
        assert_eq!(of(&kept, loaded("b", None), 6), 1);
    }

    #[test]
    fn a_message_that_was_told_is_there_or_a_later_one() {
        let id = |byte| ObjectId([byte; 32]);
        let told = |byte| Report::Message(rev("a"), id(byte));
        let all = reports(&[(1, Report::Staged(rev("a"))), (2, told(1)), (5, told(2))], &[]);
        let of = |held: Option<u8>, end| {
            let mut shelf = Shelf::default();
            let files = held.map(|byte| (MESSAGE.to_string(), Some(id(byte))));
            shelf.trails.insert(rev("a"), files.into_iter().collect());
            let broken = broken(loaded("0", None), &shelf, None, |views, broken| views.promised(&all, end, broken));
            broken.iter().filter(|law| law.starts_with("law 4: the message")).count()
        };
        // Told, or on its way; not one of before, or none.
        assert_eq!((of(Some(1), 3), of(Some(2), 3), of(Some(9), 3), of(None, 3)), (0, 0, 1, 1));
        assert_eq!((of(Some(1), 6), of(Some(2), 6), of(None, 6), of(None, 2)), (1, 0, 1, 0));
    }

    #[test]
    fn what_the_loader_of_a_device_that_was_taken_over_decides_by_is_in_force() {
        let of = |text: &str| {
            let text = text.replace(' ', "\0");
            let law = |views: &Views<'_>, broken: &mut Broken| views.taken(text.as_bytes(), broken);
            let found = broken(loaded("0", Some("a")), &Shelf::default(), None, law);
            let untouched = found.iter().filter(|law| law.starts_with("untouched: ")).count();
            assert_eq!(untouched, UNTOUCHED.len()); // there is nothing
            found.len() - untouched
        };
        assert_eq!(of("pv_rev=0 pv_try=locals/a  "), 0);
        for other in ["pv_rev=0  ", "pv_rev=1 pv_try=locals/a  ", "pv_rev=0 pv_try=locals/b  ", ""] {
            assert_eq!(of(other), 1, "{other}");
        }
    }

    #[test]
    fn a_final_name_that_nobody_names_is_no_excuse() {
        let mut shelf = Shelf::default();
        shelf.trails.insert(rev("a"), Default::default());
        let found = broken(loaded("0", None), &shelf, None, |views, broken| views.names(broken));
        assert_eq!(found.len(), 1, "{found:?}");
        // And on boot alone.
        let (seen, nothing) = (Seen::default(), Shelf::default());
        let (loaded, record) = (Some(loaded("0", None)), None);
        let mut boot =
            Views { seen: &seen, boot: &shelf, storage: &nothing, loaded, record, says: None, factory: false };
        let mut found = Broken::new();
        boot.names(&mut found);
        assert_eq!(found.len(), 1, "{found:?}");
        let mut whole = Shelf::default();
        whole
            .trails
            .insert(rev("a"), ASSETS[..2].iter().map(|name| (name.to_string(), Some(ObjectId([1; 32])))).collect());
        boot.boot = &whole;
        found.clear();
        boot.names(&mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}
