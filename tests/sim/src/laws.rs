//! The laws, as observers: each looks at the hardware or at what the device said, knows nothing of how the device
//! works, and says which law was broken. Laws 6 to 9 are not about storage; other tests watch them.

use crate::{
    device::TEXT,
    fleet::{Revision, content, of_name, rev},
    frozen::Frozen,
    loader::{BOOTLIMIT, LAYOUT, OFFSETS},
    medium::{Bench, Damage, Hardware},
    observers::{Answered, Rest, names_hold},
    taken,
};
use boards::env::uboot::{Uboot, flags_of, value};
use runtime::{
    boot::Facts,
    fault::Code,
    id::RevName,
    journal::{Phase, Record},
    limits,
    port::{BootEnv, BootVars, Volume},
    store,
};
use std::collections::BTreeSet;

/// A law was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which: 1 to 5; 0: the device did not do what an undisturbed device must do.
    pub law: u8,
    /// Who saw it: each looks at one thing, and can fail alone.
    pub observer: &'static str,
    /// How.
    pub how: String,
}

pub(super) fn broken<T>(law: u8, observer: &'static str, how: String) -> Result<T, Broken> {
    Err(Broken { law, observer, how })
}

/// Law 1: the environment names only revisions that are complete, durable and visible to the loader.
/// Both copies count: damage to one makes the other decide.
pub fn law_1_named_is_whole(hardware: &Hardware, fleet: &[Revision]) -> Result<(), Broken> {
    for named in named(hardware) {
        any_whole(hardware, fleet, named).or_else(|how| broken(1, "named", format!("{named} is named, but {how}")))?;
    }
    Ok(())
}

/// Whether what has this name is durable as a whole: one of those that ever had it.
fn any_whole(hardware: &Hardware, fleet: &[Revision], rev: RevName) -> Result<(), String> {
    let mut how = Err("it does not exist".to_string());
    for revision in of_name(fleet, rev) {
        how = whole(hardware, revision);
        if how.is_ok() {
            break;
        }
    }
    how
}

/// Whether a revision is durable as a whole, on both volumes.
fn whole(hardware: &Hardware, revision: &Revision) -> Result<(), String> {
    for (key, content) in revision.files() {
        match hardware.durable_file(Volume::Storage, revision.rev, key) {
            Some(file) if file == content => {}
            Some(_) => return Err(format!("{key} is damaged")),
            None => return Err(format!("{key} is missing")),
        }
    }
    for id in &revision.objects {
        if hardware.durable_object(Volume::Storage, *id) != Some(content(*id)) {
            return Err(format!("object {id} is missing or damaged"));
        }
    }
    for (name, id) in ["pv-kernel.img", "pv-initrd.img"].into_iter().zip(revision.assets) {
        if hardware.loader_file(revision.rev, name) != Some(content(id)) {
            return Err(format!("the loader does not see {name}"));
        }
    }
    Ok(())
}

/// Every revision that a valid copy names.
pub(super) fn named(hardware: &Hardware) -> BTreeSet<RevName> {
    if hardware.is_one() {
        let names = in_force(hardware).map(|vars| [Some(vars.committed), vars.candidate, vars.previous]);
        return names.into_iter().flatten().flatten().collect();
    }
    let env = hardware.env.durable();
    let copies = OFFSETS.map(|offset| &env[offset as usize..][..LAYOUT.size]);
    let valid = copies.into_iter().filter(|copy| flags_of(copy).is_some());
    let text = |copy: &[u8], name| value(&copy[5..], name).map(|text| String::from_utf8_lossy(text).into_owned());
    valid
        .flat_map(|copy| ["pv_rev", "pv_try", "pv_prev"].map(|name| text(copy, name)))
        .flatten()
        .filter_map(|text| RevName::parse(&text).ok())
        .collect()
}

/// The decision that is in force on the medium.
pub fn in_force(hardware: &Hardware) -> Option<BootVars> {
    if hardware.is_one() {
        return taken::decision(hardware.loader_text()?);
    }
    copy_in_force(hardware)?;
    let bytes = hardware.env.durable();
    let mut work = vec![0; 2 * LAYOUT.size];
    let mut env = Uboot::new(Frozen(bytes), LAYOUT, TEXT, &mut work).ok()?;
    env.load().ok().map(|loaded| loaded.vars)
}

/// Which copy of the environment the loader takes.
pub(super) fn copy_in_force(hardware: &Hardware) -> Option<usize> {
    let bytes = hardware.env.durable();
    LAYOUT.select(OFFSETS.map(|offset| flags_of(&bytes[offset as usize..][..LAYOUT.size])))
}

/// Law 2: the committed revision changes only to one that ran and met its goals; and what is in force is always a
/// decision that was asked for as a whole, the last one or the one before it.
#[derive(Clone, Debug)]
pub struct Law2 {
    met: BTreeSet<RevName>,
    /// Revisions that were committed.
    was: BTreeSet<RevName>,
    asked: Vec<BootVars>,
    /// What was in force before: the other copy may still say it.
    before: Option<BootVars>,
    /// Both copies are bad, and the device has not stored anything since.
    lost: bool,
}

impl Law2 {
    /// The device came with this decision.
    pub fn new(vars: BootVars) -> Self {
        Self {
            met: [vars.committed].into(),
            was: [vars.committed].into(),
            asked: vec![vars],
            before: None,
            lost: false,
        }
    }

    /// All goals of a revision are met.
    pub fn goals_met(&mut self, rev: RevName) {
        self.met.insert(rev);
    }

    /// A store was asked for.
    pub fn asked(&mut self, vars: BootVars) {
        self.asked.push(vars);
    }

    /// The copy in force was damaged, or is no more in force: another decision that a copy held may be in force, or none.
    fn damaged(&mut self, total: bool) {
        self.asked.extend(self.before.take());
        self.lost = total;
    }

    /// The store reported: only what it was about is in force from now on; after an error, one of the two.
    pub fn stored(&mut self, result: Result<(), Code>) {
        if result.is_ok() {
            self.before = self.asked.drain(..self.asked.len() - 1).next();
            self.was.extend(self.asked.iter().map(|vars| vars.committed));
            self.lost = false;
        }
    }

    /// `last` stands for the environment where there is none: it names only what was committed.
    fn last(&self, last: Option<RevName>) -> Result<(), Broken> {
        match last {
            Some(last) if !self.was.contains(&last) => {
                broken(2, "last", format!("`last` names {last}, never committed"))
            }
            _ => Ok(()),
        }
    }

    /// What a device at rest takes for the decision is in force.
    pub fn believes(&self, believed: &BootVars, vars: &BootVars) -> Result<(), Broken> {
        if believed == vars {
            Ok(())
        } else {
            broken(2, "belief", format!("{vars:?} is in force, it believes {believed:?}"))
        }
    }

    fn power_on(&mut self, vars: Option<BootVars>) -> Result<(), Broken> {
        let Some(vars) = vars else {
            return if self.lost {
                Ok(())
            } else {
                broken(2, "decision", "both copies of the environment are bad".into())
            };
        };
        if !self.met.contains(&vars.committed) {
            return broken(2, "committed", format!("{} is committed and never met its goals", vars.committed));
        }
        if !self.asked.contains(&vars) {
            return broken(2, "decision", format!("{vars:?} is in force and nobody asked for it: {:?}", self.asked));
        }
        self.was.insert(vars.committed);
        self.asked = vec![vars];
        Ok(())
    }
}

/// Who bounds the tries of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// Our boot script.
    Loaders,
    /// The original's.
    Originals,
    /// Nobody but us.
    Ours,
}

/// Law 3: a candidate is tried a bounded number of times, whoever counts.
#[derive(Clone, Debug, Default)]
pub struct Law3 {
    /// Boots of the armed candidate since it was armed.
    boots: u32,
    /// Power cuts since then: over a loader that does not count, each may come before we could count.
    cuts: u32,
}

impl Law3 {
    /// A candidate was armed.
    pub fn armed(&mut self) {
        *self = Self::default();
    }

    /// The loader booted the candidate.
    pub(super) fn booted_candidate(&mut self, bound: Bound) -> Result<(), Broken> {
        self.boots += 1;
        let bound = match bound {
            Bound::Loaders => BOOTLIMIT,
            // its mark is clear again before we can give the candidate up: what comes between the two is one more try
            Bound::Originals => 1 + self.cuts,
            // the last boot is the one that finds that it was one too many
            Bound::Ours => u32::from(limits::TRIES_MAX) + 1 + self.cuts,
        };
        if self.boots > bound {
            return broken(3, "tries", format!("the candidate is booted for the {}th time", self.boots));
        }
        Ok(())
    }

    /// The power went; or on a device that was taken over, a call failed.
    pub fn cut(&mut self) {
        self.cuts += 1;
    }
}

/// Law 4: what was reported as done survives any power cut; and so does why an update failed, once that was reported.
#[derive(Clone, Debug, Default)]
pub struct Law4 {
    done: Vec<RevName>,
    /// Candidates that were asked for, each with how many had been reported as done then.
    asked: Vec<(usize, RevName)>,
    /// The last update that was reported as failed, and of what.
    failed: Option<(RevName, Code)>,
    /// Its first cold boot missed its goals.
    excused: BTreeSet<RevName>,
    /// A factory reset was asked for.
    reset: Option<RevName>,
    /// One has begun, and no candidate was armed since.
    begun: bool,
    /// The candidate that was armed last, as far as the device was told so.
    armed: Option<RevName>,
}

impl Law4 {
    /// A client was told that this revision is done.
    pub fn reported_done(&mut self, rev: RevName) {
        if self.done.last() != Some(&rev) {
            self.done.push(rev);
        }
    }

    /// A client was told that this revision failed.
    pub fn reported_failed(&mut self, rev: RevName, code: Code) {
        self.failed = Some((rev, code));
    }

    /// A factory reset is asked for: from the moment at which the factory revision is committed, what was reported before
    /// counts no more.
    pub fn forgets(&mut self, factory: RevName) {
        self.reset = Some(factory);
    }

    /// It cannot boot: the one way back that needs no policy.
    pub fn failed_cold(&mut self, rev: RevName) {
        self.excused.insert(rev);
    }

    /// What was done last is committed, or something that was asked for since.
    fn power_on(&mut self, vars: &BootVars) -> Result<(), Broken> {
        if self.reset == Some(vars.committed) {
            *self = Self { begun: true, ..Self::default() };
        }
        let Some(last) = self.done.iter().rposition(|rev| !self.excused.contains(rev)) else { return Ok(()) };
        let since = |(done, rev): &(usize, RevName)| *done > last && *rev == vars.committed;
        if self.done[last] == vars.committed || self.asked.iter().any(since) {
            return Ok(());
        }
        broken(4, "done", format!("{} was reported as done, {} is committed", self.done[last], vars.committed))
    }

    /// Another update begins.
    pub fn prepares(&mut self, candidate: RevName) {
        self.armed = None;
        // Once: what is asked for again and again is no new state.
        if !self.asked.contains(&(self.done.len(), candidate)) {
            self.asked.push((self.done.len(), candidate));
        }
    }

    /// The device was told that this candidate is armed.
    pub fn armed(&mut self, rev: RevName) {
        (self.armed, self.begun) = (Some(rev), false);
    }

    /// Of a candidate that was armed the device knows: it does not forget it, nor say that it was never tried.
    pub fn knows(&self, record: Option<Record>) -> Result<(), Broken> {
        let Some(armed) = self.armed else { return Ok(()) };
        match record.filter(|record| record.candidate == armed) {
            None => broken(4, "known", format!("{armed} was armed, and it knows of {record:?}")),
            Some(Record { phase: Phase::Failed { code: Code::UpdateRestarted, .. }, .. }) => {
                broken(4, "known", format!("{armed} was armed, and it says that it was never tried"))
            }
            Some(_) => Ok(()),
        }
    }

    /// What the device says of its last update must agree with what is in force.
    pub fn says(&self, record: Option<Record>, vars: &BootVars) -> Result<(), Broken> {
        if let (Some((rev, code)), Some(record)) = (self.failed, record)
            && record.candidate == rev
            && !matches!(record.phase, Phase::Failed { code: now, .. } if now == code)
        {
            return broken(
                4,
                "reason",
                format!("{rev} was reported as failed ({code}), now it says {:?}", record.phase),
            );
        }
        match record {
            Some(Record { candidate, phase: Phase::Done { .. }, .. }) if candidate != vars.committed => {
                broken(4, "agreement", format!("it says that {candidate} is done, {} is committed", vars.committed))
            }
            // no update is one to what was before: that is why a factory reset that has begun could not end, of whatever
            Some(Record { candidate, previous, phase: Phase::Failed { code, .. }, .. })
                if candidate == vars.committed
                    && vars.candidate.is_none()
                    && !(self.begun && candidate == previous && candidate == RevName::factory()) =>
            {
                broken(4, "agreement", format!("it says that {candidate} failed ({code}), and it is committed"))
            }
            _ => Ok(()),
        }
    }
}

/// Law 5: at every instant some complete revision boots.
fn law_5_something_boots(hardware: &Hardware, facts: Option<&Facts>, fleet: &[Revision]) -> Result<RevName, Broken> {
    let Some(booted) = facts.and_then(|facts| facts.booted) else { return broken(5, "boots", "nothing boots".into()) };
    any_whole(hardware, fleet, booted).or_else(|how| broken(5, "boots", format!("{booted} boots, but {how}")))?;
    Ok(booted)
}

/// All of them, over one life of a device.
#[derive(Clone, Debug)]
pub struct Laws {
    /// See there.
    pub two: Law2,
    /// See there.
    pub three: Law3,
    /// See there.
    pub four: Law4,
    /// See there.
    pub answered: Answered,
    /// See there.
    pub rest: Rest,
}

impl Laws {
    /// A device as it left the factory.
    pub fn new() -> Self {
        Self::of(BootVars { committed: rev("0"), candidate: None, previous: None })
    }

    /// A device that came with this decision.
    pub fn of(vars: BootVars) -> Self {
        Self {
            two: Law2::new(vars),
            three: Law3::default(),
            four: Law4::default(),
            answered: Answered::default(),
            rest: Rest::default(),
        }
    }

    /// The environment was damaged while the power was off; `in_force`: the copy before and after. If it is the copy in force
    /// that was hit, what was reported as done may be what is lost: of that the medium kept one copy. So it is if the other
    /// one came into force: no checksum is over the byte that says which is newer. That a candidate is tried again then, from
    /// the beginning, is no fault. Anywhere else in the other copy nothing is lost, and all that was promised holds.
    pub fn damaged(&mut self, damage: Damage, in_force: [Option<usize>; 2]) {
        let [before, after] = in_force;
        if before != after || damage.copy().is_none_or(|copy| before == Some(copy)) {
            self.two.damaged(damage.is_total());
            self.three.armed();
            self.four = Law4 { begun: self.four.begun, ..Law4::default() };
        }
        self.rest.damaged();
    }

    /// What must hold at the moment at which power comes back.
    pub fn power_on(&mut self, bench: &Bench, fleet: &[Revision]) -> Result<(), Broken> {
        bench.with(|hardware| {
            let vars = in_force(hardware);
            self.two.power_on(vars)?;
            self.two.last(hardware.loader_last().and_then(store::parse_last))?;
            law_1_named_is_whole(hardware, fleet)?;
            names_hold(hardware)?;
            self.answered.power_on(hardware, fleet)?;
            vars.map_or(Ok(()), |vars| self.four.power_on(&vars))
        })
    }

    /// What must hold when the loader has chosen. Returns what it booted.
    pub fn booted(
        &mut self,
        bench: &Bench,
        facts: Option<&Facts>,
        fleet: &[Revision],
        loader_counts: bool,
    ) -> Result<RevName, Broken> {
        let booted = bench.with(|hardware| law_5_something_boots(hardware, facts, fleet))?;
        let vars = bench.with(|hardware| in_force(hardware));
        if vars.is_some_and(|vars| vars.candidate == Some(booted)) {
            let bound = match (loader_counts, bench.with(|hardware| hardware.is_one())) {
                (true, false) => Bound::Loaders,
                (true, true) => Bound::Originals,
                (false, _) => Bound::Ours,
            };
            self.three.booted_candidate(bound)?;
        }
        Ok(booted)
    }
}

impl Default for Laws {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Buffers, factory, first};
    use runtime::port::{Disk, Name, Stage};

    /// In the voyages law 1 sees the same damage before: here is law 5 alone.
    #[test]
    fn law_5_is_broken_by_a_loader_that_boots_nothing_or_what_is_not_whole() {
        let fleet = [first()];
        let bench = Bench::new(factory(&fleet[0], &mut Buffers::new()));
        let booted = Some(fleet[0].rev);
        let facts = Facts { booted, candidate: None, bootcount: 0, canary: true, script: 1, watchdog: false };
        let look = |facts: Option<&Facts>| bench.with(|hw| law_5_something_boots(hw, facts, &fleet).map_err(|b| b.law));
        assert_eq!(look(Some(&facts)), Ok(fleet[0].rev));
        assert_eq!(look(None), Err(5));
        assert_eq!(look(Some(&Facts { booted: Some(rev("locals/z")), ..facts })), Err(5));
        bench.clone().remove(Name::File(Volume::Boot, Stage::Live, fleet[0].rev, "pv-kernel.img")).unwrap();
        bench.with(|hw| hw.settle());
        assert_eq!(look(Some(&facts)), Err(5));
    }
}
