//! How a device that was cut comes to rest: power comes back and goes again in each boot, until one has nothing to do; and
//! what a further cut leaves there.
//!
//! Invariants: what is decided and carried out is the device's own code. The boots of a candidate are counted here, from the
//! loader's facts, by nobody's counter; those before the cut are not among them.
//! Fault model: a cut comes after a choice was carried out, and once more at rest; what Linux then has in memory alone is lost
//! to the loader, and to the loader alone. What lies between was looked at by states of its own, and by the simulator.
//! Does not: cut while a choice is carried out.

use boards::{Board, env::uboot::Uboot};
use platform::{disk::Volumes, env::BlockRegion};
use runtime::{
    boot::{BOOTLIMIT, Choice, Facts, Mode},
    journal, limits,
    port::{BootEnv, BootVars, Loaded},
    progress::Progress,
    store::{self, Scratch},
};

use super::checker::{Buffers, Checker, Taken, View};
use super::laws::{Broken, Ending, Views};
use super::loader::{self, Seen};
use super::original;
use crate::tour::{Outcome, fail};

/// Boots after which a device that is cut in each of them must have come to rest: every try of the candidate by the
/// loader's count or by ours, the boot that gives it up, and the one that finds nothing more to do.
const BOOTS_MAX: usize = limits::TRIES_MAX as usize + BOOTLIMIT as usize + 3;

/// Looks at the medium, one of which must end before Linux writes something back.
const LOOKS_MAX: usize = 8;

/// Law 3: boots of a candidate after the cut, and how many of them its loader allows.
#[derive(Debug)]
struct Tries {
    count: u32,
    max: u32,
}

impl Tries {
    fn of(board: &Board) -> Self {
        Self { count: 0, max: loader::tries_max(board) }
    }

    fn count(&mut self, facts: &Facts, broken: &mut Broken) {
        self.count += u32::from(facts.booted.is_some() && facts.booted == facts.candidate);
        if self.count == self.max + 1 {
            broken.push(format!("law 3: after the cut the candidate was booted more than {} times", self.max));
        }
    }
}

impl Checker {
    /// Law 3: power comes back and goes again in each boot, after the choice was carried out, until one has nothing to do.
    pub(super) fn settle(
        &mut self,
        volumes: &mut Volumes,
        views: &Views<'_>,
        facts: Facts,
        broken: &mut Broken,
    ) -> Outcome<Option<Ending>> {
        let mut journal = volumes.journal()?;
        let (mut facts, mut reset, mut tries) = (Some(facts), false, Tries::of(self.board));
        for _ in 0..BOOTS_MAX {
            let Some(booted) = facts else {
                broken.push("law 5: after further boots the loader finds nothing that boots".into());
                return Ok(None);
            };
            tries.count(&booted, broken);
            let record = journal::load(&mut journal).map_err(|code| format!("the journal: {code}"))?;
            let choice = self.choose(Some(&booted), record)?;
            let theirs = self.is_theirs(&booted);
            let rests = matches!(choice.mode, Mode::Steady | Mode::Cold) && !choice.write && choice.store.is_none();
            if rests || theirs {
                let ending = Ending { facts: booted, choice, reset, theirs };
                self.cut_again(&ending, views, broken)?;
                return Ok(Some(ending));
            }
            reset |= choice.mode == Mode::FactoryReset;
            self.carry_out(volumes, &mut journal, &choice)?;
            let (_, seen) = self.on_medium()?;
            facts = self.boots(&seen)?;
        }
        broken.push(format!("law 3: {BOOTS_MAX} boots, and there is still something to do"));
        Ok(None)
    }

    /// The power goes where the device rests, before anything is unmounted. What is in Linux' memory alone is lost; what the
    /// loader, which replays no journal, then finds on the medium boots as what was decided says. The original's own revision
    /// goes on to do what is its own.
    fn cut_again(&mut self, ending: &Ending, views: &Views<'_>, broken: &mut Broken) -> Outcome<()> {
        if ending.theirs {
            return Ok(());
        }
        let (loaded, seen) = self.on_medium()?;
        let booted = self.boots(&seen)?.and_then(|facts| facts.booted);
        let mut late = Broken::new();
        Views { seen: &seen, loaded, ..*views }.cut_again(booted, ending.facts.booted, &mut late);
        broken.extend(late.into_iter().map(|law| format!("{law} (cut again where it rests)")));
        Ok(())
    }

    /// What the loader decides by and what it finds, on the medium as it is now, whatever Linux has in memory. Linux may
    /// write something back meanwhile: what was seen counts, and is kept, only if the medium has the same name afterwards.
    fn on_medium(&mut self) -> Outcome<(Option<Loaded>, Seen)> {
        let mut name = self.medium()?;
        for _ in 0..LOOKS_MAX {
            if self.taken.is_some() {
                let text = self.text()?;
                self.taken = self.taken.take().map(|taken| Taken { text, ..taken });
            }
            let loaded = self.as_the_loader_reads()?;
            let view = View::of(&name, loaded.as_ref());
            let seen = self.look(&view)?;
            let after = self.medium()?;
            if after == name {
                self.keep(view, &seen);
                return Ok((loaded, seen));
            }
            name = after;
        }
        fail(format!("the medium changed while it was looked at, {LOOKS_MAX} times"))
    }

    fn carry_out(&mut self, volumes: &mut Volumes, journal: &mut BlockRegion, choice: &Choice) -> Outcome<()> {
        if let Some(record) = choice.record.filter(|_| choice.write) {
            let progress = Progress::of(&record).map(|progress| progress.to_string());
            store::record(volumes, journal, &record, progress.as_deref())
                .map_err(|code| format!("a record: {code}"))?;
        }
        if let Some(vars) = choice.store {
            self.store(&vars)?;
        }
        if choice.mode == Mode::FactoryReset {
            let Buffers { state, marks, conf, spans, plan, .. } = &mut self.buffers;
            let cleared = store::factory::clear(volumes, journal, &mut Scratch { state, marks, conf, spans, plan });
            cleared.map_err(|refusal| format!("the end of a factory reset: {refusal}"))?;
        }
        Ok(())
    }

    fn store(&self, vars: &BootVars) -> Outcome<()> {
        if self.taken.is_some() {
            let path = self.roots()[0].join(self.file());
            let text = BlockRegion::direct(path.to_str().ok_or("a path that is no text")?)?;
            return original::store(self.board, text, self.region(), vars, self.loaded()?.is_none());
        }
        let (layout, loaded) = loader::load(self.board, self.region())?;
        let mut work = vec![0; 2 * layout.size];
        let mut env =
            Uboot::new(self.region(), layout, self.board.env_text, &mut work).map_err(|code| format!("{code}"))?;
        let stored = if loaded.is_some() { env.store(vars) } else { env.rebuild(vars) };
        Ok(stored.map_err(|code| format!("a store of the environment: {code}"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::id::RevName;

    #[test]
    fn a_candidate_is_booted_as_often_as_its_loader_allows() {
        let rev = |name| RevName::parse(name).ok();
        let facts = |booted, candidate| Facts {
            booted: rev(booted),
            candidate: rev(candidate),
            bootcount: 0,
            canary: true,
            script: 0,
            watchdog: false,
        };
        for (board, max) in [("qemu-arm64-lab", 3), ("qemu-arm64-taken", 1)] {
            let (mut tries, mut broken) = (Tries::of(boards::find(board).unwrap()), Broken::new());
            for _ in 0..max {
                tries.count(&facts("2", "2"), &mut broken);
                tries.count(&facts("1", "2"), &mut broken);
                tries.count(&facts("1", ""), &mut broken);
                tries.count(&facts("", ""), &mut broken);
            }
            assert!(broken.is_empty(), "{broken:?}");
            tries.count(&facts("2", "2"), &mut broken);
            tries.count(&facts("2", "2"), &mut broken);
            assert_eq!(broken, [format!("law 3: after the cut the candidate was booted more than {max} times")]);
        }
    }
}
