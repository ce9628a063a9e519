//! Going through voyages: with a cut at every effect, with a failing call at every call, with what chance brings.
//! A violation is reported with the law, the line that repeats the run, and everything that was done.
//!
//! A state that was met before is not gone on from: what the medium holds, what the observers remember and what the
//! user still wants decide all that follows, and it has followed already. Both numbers are counted.

use crate::{
    device::{Buffers, End, Voyage},
    r#gen::Gen,
    laws::Broken,
    life::Life,
    medium::{Bounds, Fault, Hardware, Model, Reach},
    repeat,
    taken::Origin,
};
use runtime::fault::Code;
use std::{cell::RefCell, collections::HashSet, rc::Rc};

/// How many runs, and what of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// States that a cut, a restart or a damage left: each was held to the laws, or is one that was.
    pub states: u64,
    /// Of them, those that differ: each was run to its end.
    pub distinct: u64,
    /// Power-ons that were run.
    pub boots: u64,
    /// Places at which the power went.
    pub cuts: u64,
    /// Of them, those where not every state that the model allows was gone through.
    pub sampled: u64,
    /// Calls that failed on purpose.
    pub faults: u64,
}

impl Count {
    /// Adds what another part did.
    pub fn add(&mut self, other: Count) {
        self.states += other.states;
        self.distinct += other.distinct;
        self.boots += other.boots;
        self.cuts += other.cuts;
        self.sampled += other.sampled;
        self.faults += other.faults;
    }
}

/// A run that broke a law.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which and how.
    pub broken: Broken,
    /// The voyage.
    pub voyage: Voyage,
    /// The choices, for `Gen::repeat`.
    pub line: String,
}

/// A device fresh from the factory, and the buffers to run it in.
pub struct Yard {
    /// By `Origin::ALL`.
    fresh: [Hardware; 3],
    buffers: Buffers,
    seen: HashSet<u64>,
    /// The power goes only after so many effects of the hardware.
    pub from: u64,
    /// Stop after so many states (mutants).
    pub states_max: u64,
    /// What the file systems promise, if the voyage does not say otherwise.
    pub model: Model,
    /// How much is gone through.
    pub share: Share,
    /// Where everything that is drawn begins.
    pub seed: u64,
}

/// How much is gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// What the gate has time for.
    Gate,
    /// All.
    Evidence,
}

impl Share {
    fn bounds(self) -> Bounds {
        match self {
            Share::Gate => Bounds::GATE,
            Share::Evidence => Bounds::ALL,
        }
    }

    /// Of what a second cut may leave; `few`: what the voyage says.
    fn later(self, few: Bounds) -> Bounds {
        match self {
            Share::Gate => few,
            Share::Evidence => Bounds::LATER,
        }
    }

    /// Of the states that a first cut leaves, each that has such a number sees a second one.
    fn second(self) -> u64 {
        match self {
            Share::Gate => 32,
            Share::Evidence => 1,
        }
    }
}

impl Yard {
    /// With the revision that every fleet begins with.
    pub fn new() -> Self {
        let mut buffers = Buffers::new();
        Self {
            fresh: Origin::ALL.map(|origin| origin.hardware(&mut buffers)),
            buffers,
            seen: HashSet::new(),
            from: 0,
            states_max: u64::MAX,
            model: Model::default(),
            share: Share::Gate,
            seed: 1,
        }
    }

    /// Other media than the ordinary ones.
    pub fn with_hardware(&mut self, change: impl FnMut(&mut Hardware)) {
        self.fresh.iter_mut().for_each(change);
    }

    fn outfit(&self, voyage: &Voyage) -> Voyage {
        let bounds = Bounds { seed: self.seed, ..self.share.bounds() };
        Voyage { model: self.model, bounds, later: Bounds { seed: self.seed, ..voyage.later }, ..voyage.clone() }
    }

    fn new_life(&self, voyage: &Voyage) -> Life {
        Life::new(voyage, &self.fresh[voyage.origin as usize])
    }

    /// One run, to its end.
    pub fn sail(&mut self, voyage: &Voyage, choices: &mut Gen, count: &mut Count) -> Result<End, Box<Violation>> {
        let mut life = self.new_life(voyage);
        let result = life.run(voyage, choices, &mut self.buffers, &mut |_| false);
        count.add(Count {
            states: life.boots(),
            distinct: life.boots(),
            boots: life.boots(),
            cuts: life.cuts(),
            sampled: life.sampled(),
            faults: u64::from(life.is_faulted()),
        });
        result.map_err(|broken| violation(&life, voyage, broken))?;
        Ok(life.end())
    }

    /// One run, until it comes to a state that is known.
    fn sail_on(&mut self, voyage: &Voyage, choices: &mut Gen, count: &mut Count) -> Result<Life, Box<Violation>> {
        let mut life = self.new_life(voyage);
        let seen = &mut self.seen;
        let result = life.run(voyage, choices, &mut self.buffers, &mut |key| {
            let known = !seen.insert(key);
            count.distinct += u64::from(!known);
            known
        });
        count.states += life.boots();
        count.boots += life.boots();
        count.cuts += life.cuts();
        count.sampled += life.sampled();
        count.faults += u64::from(life.is_faulted());
        result.map_err(|broken| violation(&life, voyage, broken))?;
        Ok(life)
    }

    /// One cut, before every effect that there is, and every state that it may leave.
    pub fn cut_everywhere(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        self.explore(&self.outfit(voyage), 1)
    }

    /// The same, and after it a second one, before every effect of the power-on that follows: in the loader's counting, in
    /// the recovery, in carrying out the boot decision, in a trial, in the next attempt.
    pub fn cut_twice(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        let voyage = self.outfit(voyage);
        let later = Bounds { seed: self.seed, ..self.share.later(voyage.later) };
        self.explore(&Voyage { later, ..voyage }, 2)
    }

    /// No cut, but every way in which a restart may end.
    pub fn undisturbed(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        self.explore(&self.outfit(voyage), 0)
    }

    /// One cut before every effect; of what it may leave, all lost, all kept and two more.
    pub fn cut_plainly(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        let voyage = self.outfit(voyage);
        self.explore(&Voyage { bounds: voyage.later, ..voyage }, 1)
    }

    fn explore(&mut self, voyage: &Voyage, cuts: u32) -> Result<Count, Box<Violation>> {
        self.seen.clear();
        let mut count = Count::default();
        let mut places = vec![(self.new_life(voyage), cuts)];
        while let Some((life, cuts)) = places.pop() {
            // the power goes before each effect, until it does not come to that any more
            for at in self.from.saturating_sub(life.effects()).. {
                let mut next = life.clone();
                let fuse = (cuts > 0).then_some(at);
                count.boots += 1;
                next.power_on(fuse, voyage, &mut self.buffers).map_err(|broken| violation(&next, voyage, broken))?;
                if !next.is_cut() {
                    // a second cut comes in the power-on after the first one, or not at all
                    let left = if next.cuts() == 0 { cuts } else { 0 };
                    self.branch(&next, left, voyage, &mut places, &mut count)?;
                    break;
                }
                count.cuts += 1;
                count.sampled += u64::from(!next.ways().1);
                self.branch(&next, cuts - 1, voyage, &mut places, &mut count)?;
                if count.states >= self.states_max {
                    return Ok(count);
                }
            }
        }
        Ok(count)
    }

    /// Every way on that is new.
    fn branch(
        &mut self,
        life: &Life,
        cuts: u32,
        voyage: &Voyage,
        places: &mut Vec<(Life, u32)>,
        count: &mut Count,
    ) -> Result<(), Box<Violation>> {
        for way in 0..life.ways().0 {
            let mut next = life.clone();
            next.take(way);
            count.states += 1;
            let over = next.is_over(voyage).and_then(|over| Ok((over, next.key(voyage)?)));
            let (over, key) = over.map_err(|broken| violation(&next, voyage, broken))?;
            if self.seen.insert(key ^ u64::from(cuts)) {
                count.distinct += 1;
                let cuts =
                    if life.cuts() == 0 || count.distinct.is_multiple_of(self.share.second()) { cuts } else { 0 };
                if !over {
                    places.push((next, cuts));
                }
            }
        }
        Ok(())
    }

    /// A call fails, every one that there is, in every power-on; once, or from then on; with every code; before
    /// anything, in the middle, or after all of it was done.
    pub fn fail_everywhere(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        let voyage = self.outfit(voyage);
        self.seen.clear();
        let mut count = Count::default();
        let kinds = [Code::StorageIo, Code::NoSpace].map(|code| Reach::ALL.map(|reach| (code, reach)));
        for (code, reach) in kinds.into_iter().flatten() {
            for sticky in [false, true] {
                for boot in 1.. {
                    let mut boots = 0;
                    for at in 0.. {
                        let fault = Fault { at, sticky, code, reach };
                        let voyage = Voyage { fault: Some((boot, fault)), ..voyage.clone() };
                        let seed = at << 16 | u64::from(boot);
                        let life = self.sail_on(&voyage, &mut Gen::random(seed), &mut count)?;
                        boots = boots.max(life.boots());
                        if !life.is_faulted() || count.states >= self.states_max {
                            break;
                        }
                    }
                    if u64::from(boot) >= boots || count.states >= self.states_max {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }

    /// Voyages drawn from seeds.
    pub fn drawn(&mut self, runs: u64, mut draw: impl FnMut(&mut Gen) -> Voyage) -> Result<Count, Box<Violation>> {
        let mut count = Count::default();
        for seed in self.seed..self.seed + runs {
            let mut choices = Gen::random(seed);
            let voyage = draw(&mut choices);
            let voyage = self.outfit(&voyage);
            self.seen.clear();
            self.sail_on(&voyage, &mut choices, &mut count)?;
            if count.states >= self.states_max {
                break;
            }
        }
        Ok(count)
    }

    /// What was done in a run, for reading.
    pub fn trace(&mut self, violation: &Violation) -> String {
        let line = repeat::line(&violation.voyage, &violation.line);
        let lines = self.repeat(&line).map_or_else(|how| how, |(_, lines)| lines);
        let Violation { broken: Broken { law, observer, how }, .. } = violation;
        let command = repeat::command(violation);
        format!("{lines}\nlaw {law} ({observer}) is broken: {how}\nseed {}, repeat: {command}", self.seed)
    }

    /// Runs what `repeat::line` printed: what it came to, and all that was done.
    pub fn repeat(&mut self, line: &str) -> Result<(Result<End, Broken>, String), String> {
        let (voyage, path) = repeat::parse(line)?;
        let mut fresh = self.fresh[voyage.origin as usize].clone();
        let trace = Rc::new(RefCell::new(vec![]));
        fresh.trace = Some(trace.clone());
        let mut life = Life::new(&voyage, &fresh);
        let choices: Vec<usize> = path.split_whitespace().map(|way| way.parse().expect("a number")).collect();
        let result = life.follow(&voyage, &choices, &mut self.buffers);
        let end = result.map(|()| life.end());
        drop(life);
        Ok((end, trace.take().join("\n")))
    }
}

fn violation(life: &Life, voyage: &Voyage, broken: Broken) -> Box<Violation> {
    let (voyage, line) = life.repeat(voyage);
    Box::new(Violation { broken, voyage, line })
}

impl Default for Yard {
    fn default() -> Self {
        Self::new()
    }
}
