//! Observers beside those of `laws`: what the laws rest on, each looked at by itself.

use crate::{
    fleet::{Revision, content},
    laws::{Broken, broken, named},
    medium::{Bench, Hardware},
};
use runtime::{
    id::RevName,
    machine::Job,
    port::{Name, Stage, Volume},
    store,
};
use std::collections::BTreeSet;

/// No object under a final name has another content than its name says, on either volume, at any instant.
pub fn names_hold(hardware: &Hardware) -> Result<(), Broken> {
    for volume in [Volume::Storage, Volume::Boot] {
        for (id, bytes) in hardware.durable_objects(volume) {
            if bytes != content(id) {
                return broken(1, "names", format!("object {id} on {volume:?} holds something else"));
            }
        }
    }
    Ok(())
}

/// A collection took nothing that either copy of the environment names, whichever of them is in force.
pub fn kept(bench: &Bench) -> Result<(), Broken> {
    for rev in bench.with(|hardware| named(hardware)) {
        for volume in [Volume::Storage, Volume::Boot] {
            let there = bench.with(|hardware| hardware.has_live(Name::Trail(volume, Stage::Live, rev)));
            if !there {
                return broken(1, "kept", format!("{rev} is named, and was collected from {volume:?}"));
            }
        }
    }
    Ok(())
}

/// The message that a client gives a revision.
pub const MESSAGE: &str = "why it is there";

/// What a client was answered to be on the device is there, at every later start, until a job begins that may take it away.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// As numbers of the fleet, and names.
    staged: Vec<(usize, RevName)>,
    described: Vec<RevName>,
}

impl Answered {
    /// A revision was answered to be staged.
    pub fn staged(&mut self, number: usize, rev: RevName) {
        self.staged.push((number, rev));
    }

    /// A message was answered to be kept.
    pub fn described(&mut self, rev: RevName) {
        self.described.push(rev);
    }

    /// From now on it may replace or remove something; but what no collection may take.
    pub fn begins(&mut self, job: Job, hardware: &Hardware) {
        match job {
            Job::Stage(_, rev) => self.keep(|it| it != rev),
            Job::Collect => {
                let last = hardware.loader_last().and_then(store::parse_last);
                let kept: BTreeSet<RevName> =
                    named(hardware).into_iter().chain(last).chain([RevName::factory()]).collect();
                self.keep(|it| kept.contains(&it));
            }
            Job::Clear => self.keep(|it| it == RevName::factory()),
            _ => {}
        }
    }

    /// Of these what was answered still counts.
    fn keep(&mut self, counts: impl Fn(RevName) -> bool) {
        self.staged.retain(|(_, rev)| counts(*rev));
        self.described.retain(|rev| counts(*rev));
    }

    /// What must hold when power comes back.
    pub fn power_on(&self, hardware: &Hardware, fleet: &[Revision]) -> Result<(), Broken> {
        for (number, rev) in &self.staged {
            let revision = &fleet[*number];
            let file = |(key, content)| hardware.durable_file(Volume::Storage, *rev, key) == Some(content);
            let object = |id: &_| hardware.durable_object(Volume::Storage, *id) == Some(content(*id));
            if !(revision.files().all(file) && revision.objects.iter().all(object)) {
                return broken(4, "staged", format!("{rev} was answered to be staged, and is not whole"));
            }
        }
        for rev in &self.described {
            if hardware.durable_file(Volume::Storage, *rev, ".pv/commitmsg") != Some(MESSAGE.as_bytes()) {
                return broken(4, "described", format!("{rev} was answered to have a message, and has not"));
            }
        }
        Ok(())
    }
}

/// A device that nobody asks for anything stays as it is, restart after restart.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    before: Option<u64>,
    /// One more start may still change something.
    grace: bool,
}

impl Rest {
    /// Somebody asked for something, or something happened to it.
    pub fn disturbed(&mut self) {
        self.before = None;
    }

    /// Its environment was damaged: one start makes it whole again, the next one ends what that start left open.
    pub fn damaged(&mut self) {
        *self = Self { before: None, grace: true };
    }

    /// It has nothing to do.
    pub fn at_rest(&mut self, hardware: &Hardware) -> Result<(), Broken> {
        if std::mem::take(&mut self.grace) {
            return Ok(());
        }
        let now = hardware.settled();
        match self.before.replace(now) {
            Some(before) if before != now => {
                broken(0, "rest", "nothing was asked for, and a restart changed the environment or the journal".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::{Buffers, factory, first},
        fleet::{Quality, Revision, rev},
        laws::{Bound, Law2, Law3, Law4, Laws, law_1_named_is_whole},
        loader::OFFSETS,
    };
    use runtime::{
        fault::Code,
        journal::{Phase, Record},
        limits,
        port::{BootVars, Disk, Region},
    };

    fn fresh() -> Bench {
        Bench::new(factory(&first(), &mut Buffers::new()))
    }

    fn vars(committed: &str, candidate: Option<&str>) -> BootVars {
        BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: None }
    }

    /// What all of them together say of a device: who complained.
    fn who(bench: &Bench, laws: &mut Laws) -> Option<&'static str> {
        laws.power_on(bench, &[first(), a()]).err().map(|broken| broken.observer)
    }

    fn a() -> Revision {
        Revision::new("locals/a", Quality::Good, 1, 1)
    }

    #[test]
    fn an_object_that_nobody_names_yet_must_hold_what_its_name_says() {
        let bench = fresh();
        let mut disk = bench.clone();
        let name = Name::Object(Volume::Storage, a().objects[3]);
        disk.write(name, content(a().objects[3])).unwrap();
        bench.with(Hardware::settle);
        assert_eq!(who(&bench, &mut Laws::new()), None);
        disk.write(name, b"something else").unwrap();
        bench.with(Hardware::settle);
        assert_eq!(who(&bench, &mut Laws::new()), Some("names"));
    }

    #[test]
    fn what_is_named_must_be_whole() {
        let bench = fresh();
        bench.clone().remove(Name::File(Volume::Storage, Stage::Live, rev("0"), "bsp/run.json")).unwrap();
        bench.clone().remove(Name::File(Volume::Storage, Stage::Live, rev("0"), "web/root.squashfs")).unwrap();
        bench.with(Hardware::settle);
        assert_eq!(who(&bench, &mut Laws::new()), Some("named"));
        assert!(bench.with(|hardware| law_1_named_is_whole(hardware, &[first()])).is_err());
    }

    #[test]
    fn what_either_copy_names_must_not_be_collected() {
        let bench = fresh();
        assert_eq!(kept(&bench), Ok(()));
        let mut disk = bench.clone();
        let [live, dead] = [Stage::Live, Stage::Dead].map(|stage| Name::Trail(Volume::Boot, stage, rev("0")));
        disk.rename(live, dead).unwrap();
        assert_eq!(kept(&bench).unwrap_err().observer, "kept");
        // nothing of that is durable yet: nobody else can see it
        assert_eq!(who(&bench, &mut Laws::new()), None);
    }

    #[test]
    fn a_revision_that_did_not_run_must_not_be_committed_and_a_decision_must_be_asked_for() {
        let bench = fresh();
        let mut laws = Laws { two: Law2::new(vars("locals/a", None)), ..Laws::new() };
        assert_eq!(who(&bench, &mut laws), Some("committed"));
        let mut laws = Laws::new();
        laws.two.asked(vars("0", Some("locals/a")));
        laws.two.stored(Ok(()));
        assert_eq!(who(&bench, &mut laws), Some("decision"));
    }

    #[test]
    fn what_was_reported_as_done_must_be_committed() {
        let bench = fresh();
        let mut laws = Laws::new();
        laws.four.reported_done(rev("0"));
        assert_eq!(who(&bench, &mut laws), None);
        laws.four.reported_done(rev("locals/a"));
        assert_eq!(who(&bench, &mut laws), Some("done"));
        laws.four.prepares(rev("0"));
        assert_eq!(who(&bench, &mut laws), None, "an older one was asked for since");
        laws.four.reported_done(rev("locals/b"));
        assert_eq!(who(&bench, &mut laws), Some("done"));
        laws.four.forgets(rev("0"));
        assert_eq!(who(&bench, &mut laws), None, "after a factory reset it counts no more");
    }

    #[test]
    fn what_was_answered_must_be_there_until_somebody_may_take_it_away() {
        let bench = fresh();
        let mut laws = Laws::new();
        laws.answered.staged(0, rev("0"));
        assert_eq!(who(&bench, &mut laws), None);
        laws.answered.described(rev("0"));
        assert_eq!(who(&bench, &mut laws), Some("described"));
        runtime::store::message(&mut bench.clone(), rev("0"), MESSAGE).unwrap();
        assert_eq!(who(&bench, &mut laws), None);
        laws.answered.staged(1, rev("locals/a"));
        assert_eq!(who(&bench, &mut laws), Some("staged"));
        let begins = |laws: &mut Laws, job| bench.with(|hardware| laws.answered.begins(job, hardware));
        begins(&mut laws, Job::Stage(runtime::machine::Slot(0), rev("locals/a")));
        assert_eq!(who(&bench, &mut laws), None);
        laws.answered.staged(1, rev("locals/a"));
        begins(&mut laws, Job::Collect);
        assert_eq!(who(&bench, &mut laws), None);
    }

    /// Of what a copy of the environment names, of the factory revision, of what `last` names: no collection may take it.
    #[test]
    fn what_was_answered_must_outlive_a_collection_that_may_not_take_it() {
        let bench = fresh();
        let mut laws = Laws::new();
        laws.answered.staged(0, rev("0"));
        laws.answered.described(rev("0"));
        bench.with(|hardware| laws.answered.begins(Job::Collect, hardware));
        assert_eq!(who(&bench, &mut laws), Some("described"));
        bench.clone().overwrite(Name::Last, &store::last_text(rev("locals/a"))).unwrap();
        bench.with(Hardware::settle);
        for (job, counts) in [(Job::Collect, true), (Job::Clear, false)] {
            let mut answered = Answered::default();
            answered.staged(1, rev("locals/a"));
            bench.with(|hardware| answered.begins(job, hardware));
            let found = bench.with(|hardware| answered.power_on(hardware, &[first(), a()]));
            assert_eq!(found.is_err(), counts, "{job:?}");
        }
    }

    #[test]
    fn what_it_says_of_the_last_update_must_agree_with_the_environment_and_with_what_it_said() {
        let (mut four, done) = (Law4::default(), Phase::Done { cold_pending: false });
        let says = |four: &Law4, phase, vars: &BootVars| {
            let record = Record { candidate: rev("locals/a"), previous: rev("0"), ..Record::none(rev("0")) };
            four.says(Some(record.with(phase)), vars).err().map(|broken| broken.observer)
        };
        let failed = |code| Phase::Failed { code, container: None };
        assert_eq!(says(&four, done, &vars("locals/a", None)), None);
        assert_eq!(says(&four, done, &vars("0", None)), Some("agreement"));
        assert_eq!(says(&four, failed(Code::GoalsMissed), &vars("0", None)), None);
        assert_eq!(says(&four, failed(Code::GoalsMissed), &vars("locals/a", None)), Some("agreement"));
        four.reported_failed(rev("locals/a"), Code::GoalsMissed);
        assert_eq!(says(&four, failed(Code::GoalsMissed), &vars("0", None)), None);
        assert_eq!(says(&four, failed(Code::LoaderGaveUp), &vars("0", None)), Some("reason"));
    }

    /// What is committed has failed only where it is the factory revision, of a reset that has begun and could not end.
    #[test]
    fn what_is_committed_has_not_failed_unless_a_factory_reset_could_not_end() {
        let (bench, mut laws) = (fresh(), Laws::new());
        let says = |laws: &Laws, name| {
            let failed = Record::none(rev(name)).with(Phase::Failed { code: Code::StorageIo, container: None });
            laws.four.says(Some(failed), &vars(name, None)).err().map(|broken| broken.observer)
        };
        assert_eq!(says(&laws, "0"), Some("agreement"), "there was none");
        laws.four.forgets(rev("0"));
        assert_eq!(says(&laws, "0"), Some("agreement"), "it has not begun");
        assert_eq!(who(&bench, &mut laws), None);
        assert_eq!(says(&laws, "0"), None);
        assert_eq!(says(&laws, "locals/a"), Some("agreement"), "another revision");
        laws.four.armed(rev("locals/a"));
        assert_eq!(says(&laws, "0"), Some("agreement"), "an update has begun since");
    }

    #[test]
    fn a_candidate_must_not_be_tried_for_ever() {
        for (who, bound) in [
            (Bound::Loaders, crate::loader::BOOTLIMIT),
            (Bound::Originals, 1),
            (Bound::Ours, u32::from(limits::TRIES_MAX) + 1),
        ] {
            let (mut three, mut tried) = (Law3::default(), 0);
            let found = loop {
                tried += 1;
                if let Err(broken) = three.booted_candidate(who) {
                    break broken;
                }
            };
            assert_eq!((found.observer, tried), ("tries", bound + 1));
        }
    }

    #[test]
    fn a_device_at_rest_must_stay_so() {
        let bench = fresh();
        let mut rest = Rest::default();
        let look = |rest: &mut Rest| bench.with(|hardware| rest.at_rest(hardware)).err().map(|broken| broken.observer);
        assert_eq!((look(&mut rest), look(&mut rest)), (None, None));
        // the flags of the copy that is not in use: no decision changes
        bench.env().write_at(OFFSETS[1], &[0; 4]).unwrap();
        bench.with(Hardware::settle);
        assert_eq!((look(&mut rest), who(&bench, &mut Laws::new())), (Some("rest"), None));
        bench.env().write_at(OFFSETS[1], &[1; 4]).unwrap();
        bench.with(Hardware::settle);
        rest.disturbed();
        assert_eq!(look(&mut rest), None);
    }
}
