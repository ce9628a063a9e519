//! What must hold where a device has come to rest, beside all that always holds: cuts alone commit nothing, a factory reset that
//! was ended has left nothing but the factory's, and what is on the medium boots what runs.
//!
//! Does not: bring a device to rest (`rest`), or look again at what holds in every state (`laws`).

use std::collections::BTreeSet;

use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
    port::BootVars,
};

use super::laws::{Broken, Ending, Views};

/// What storage's root has when nothing else was put there.
const FOLDERS: [&str; 4] = ["objects", "trails", "boot", "lost+found"];

impl Views<'_> {
    /// Law 3, of a device that rests: it runs what is committed, and no cut has changed that.
    pub fn rests(&self, end: &Ending, began: Option<BootVars>, broken: &mut Broken) {
        let Some(vars) = self.loaded.map(|loaded| loaded.vars) else { return };
        let candidate = vars.candidate.filter(|_| !end.theirs);
        if (end.facts.booted, end.choice.run, candidate) != (Some(vars.committed), vars.committed, None) {
            broken.push(format!(
                "law 3: {:?} was booted and {} runs, {vars:?} is stored",
                end.facts.booted, end.choice.run
            ));
        }
        let before = |vars: BootVars| if end.reset { RevName::factory() } else { vars.committed };
        let stepped_back = end.choice.verdict().is_some_and(|(_, code)| code == Code::ColdBootFailed);
        if let Some(before) = began.map(before)
            && vars.committed != before
            && !stepped_back
        {
            broken.push(format!("law 3: {before} was committed, and after cuts alone {} is", vars.committed));
        }
        if end.reset {
            self.is_as_from_the_factory(broken);
        }
    }

    /// Laws 1 and 5, of the medium alone, where the power goes once more while a device rests: the loader `boots` what runs,
    /// and whatever it may go to is whole for it. Storage is not looked at here: the listing of it is of before the recovery,
    /// and what it has by now is held to its laws at rest, with the power off.
    pub fn cut_again(&self, boots: Option<RevName>, runs: Option<RevName>, broken: &mut Broken) {
        if boots != runs {
            broken.push(format!("law 5: {runs:?} runs, and the loader boots {boots:?}"));
        }
        let named = self.named().into_iter().map(|rev| ("law 1", rev, "is named by the environment"));
        let last = self.seen.last.map(|rev| ("kept", rev, "is named by last"));
        let factory = self.factory.then(|| ("kept", RevName::factory(), "is the factory's"));
        for (law, rev, why) in named.chain(last).chain(factory) {
            if let Err(how) = self.bootable(&rev) {
                broken.push(format!("{law}: {rev} {why}, but {how}"));
            }
        }
    }

    /// A factory reset has ended: nothing but the factory's is left.
    fn is_as_from_the_factory(&self, broken: &mut Broken) {
        let factory = RevName::factory();
        let mut left = |what: &str, is: String| broken.push(format!("reset: {what} is left: {is}"));
        let others = |names: &mut dyn Iterator<Item = RevName>| {
            names.filter(|rev| *rev != factory).map(|rev| rev.to_string()).collect::<Vec<_>>()
        };
        for (what, rest) in [
            ("in the environment", others(&mut self.named().into_iter())),
            ("in `last`", others(&mut self.last().into_iter())),
            ("on storage", others(&mut self.storage.trails.keys().copied())),
            ("on boot", others(&mut self.boot.trails.keys().copied())),
        ] {
            rest.into_iter().for_each(|rev| left(what, rev));
        }
        for (what, shelf) in [("storage", self.storage), ("boot", self.boot)] {
            let named: BTreeSet<ObjectId> =
                shelf.trails.get(&factory).into_iter().flat_map(|files| files.values().flatten().copied()).collect();
            for id in shelf.objects.keys().filter(|id| !named.contains(id)) {
                left(what, format!("object {id}"));
            }
        }
        for name in self.storage.names.iter().filter(|name| !FOLDERS.contains(&name.as_str())) {
            left("storage", name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::tests::{broken, failed, loaded, rev};
    use super::super::loader::Seen;
    use super::super::volume::Shelf;
    use super::*;
    use runtime::boot::{BOOTLIMIT, Choice, Facts, Mode, SCRIPTS};
    use runtime::journal::Record;

    fn ending(booted: &str, run: &str, record: Option<Record>, reset: bool) -> Ending {
        let facts = Facts {
            booted: Some(rev(booted)),
            candidate: None,
            bootcount: BOOTLIMIT,
            canary: true,
            script: *SCRIPTS.end(),
            watchdog: false,
        };
        let choice = Choice { run: rev(run), mode: Mode::Steady, record, write: false, store: None };
        Ending { facts, choice, reset, theirs: false }
    }

    #[test]
    fn a_device_rests_on_what_was_committed() {
        let shelf = Shelf::default();
        let of = |env, end: Ending, began: &str| {
            let began = Some(loaded(began, None).vars);
            broken(env, &shelf, end.choice.record, |views, broken| views.rests(&end, began, broken)).len()
        };
        assert_eq!(of(loaded("a", None), ending("a", "a", None, false), "a"), 0);
        assert_eq!(of(loaded("a", None), ending("a", "b", None, false), "a"), 1);
        assert_eq!(of(loaded("a", None), ending("b", "b", None, false), "a"), 1);
        assert_eq!(of(loaded("a", Some("b")), ending("a", "a", None, false), "a"), 1);
        // A step back needs its reason.
        assert_eq!(of(loaded("0", None), ending("0", "0", None, false), "a"), 1);
        let cold = Some(failed("a", Code::ColdBootFailed));
        assert_eq!(of(loaded("0", None), ending("0", "0", cold, false), "a"), 0);
        assert_eq!(of(loaded("0", None), ending("0", "0", None, true), "a"), 0);
    }

    #[test]
    fn what_is_on_the_medium_where_a_device_rests_boots_what_runs() {
        let of = |boots: &str, named: Option<&str>, last: Option<&str>| {
            let seen = Seen { last: last.map(rev), ..Seen::default() };
            let (shelf, loaded) = (Shelf::default(), named.map(|named| loaded(named, None)));
            let (record, says, factory) = (None, None, false);
            let views = Views { seen: &seen, boot: &shelf, storage: &shelf, loaded, record, says, factory };
            let mut broken = Broken::new();
            views.cut_again(Some(rev(boots)), Some(rev("a")), &mut broken);
            broken.iter().map(|law| law.split(':').next().unwrap_or_default().to_string()).collect::<Vec<_>>()
        };
        assert!(of("a", None, None).is_empty());
        assert_eq!(of("0", None, None), ["law 5"]);
        assert_eq!(of("a", Some("a"), Some("0")), ["law 1", "kept"]); // neither is there
    }

    #[test]
    fn the_original_clears_the_candidate_itself() {
        let of = |theirs, booted| {
            let end = Ending { theirs, ..ending(booted, booted, None, false) };
            broken(loaded("0", Some("a")), &Shelf::default(), None, |views, broken| views.rests(&end, None, broken))
        };
        assert_eq!((of(true, "0").len(), of(true, "a").len(), of(false, "0").len()), (0, 1, 1));
    }

    #[test]
    fn a_reset_that_ended_leaves_nothing() {
        let (id, other) = (ObjectId([1; 32]), ObjectId([2; 32]));
        let mut shelf = Shelf::default();
        shelf.trails.insert(rev("0"), [("bsp/kernel".to_string(), Some(id))].into());
        shelf.objects.insert(id, id);
        shelf.names.extend(["objects", "trails", "lost+found"].map(String::from));
        let of = |env, shelf: &Shelf| {
            let end = ending("0", "0", None, true);
            broken(env, shelf, None, |views, broken| views.rests(&end, None, broken)).len()
        };
        assert_eq!(of(loaded("0", None), &shelf), 0);
        let mut env = loaded("0", None);
        env.named[2] = Some(rev("a"));
        assert_eq!(of(env, &shelf), 1);
        shelf.objects.insert(other, other);
        shelf.names.insert("endpoint".into());
        // The object is on both volumes.
        assert_eq!(of(loaded("0", None), &shelf), 3);
        shelf.trails.insert(rev("a"), [("x".to_string(), Some(other))].into());
        assert_eq!(of(loaded("0", None), &shelf), 5);
    }
}
