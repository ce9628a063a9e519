//! Going through voyages: with a cut at every effect, with a failing call at every call, with what chance brings.
//! A violation is reported with the law, the line that repeats the run, and everything that was done.

use crate::sim::{
    device::{Buffers, End, Voyage, factory, first, sail},
    r#gen::Gen,
    laws::Broken,
    medium::{Fault, Hardware},
};
use runtime::fault::Code;
use std::{cell::RefCell, rc::Rc};

/// How many runs, and what of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Voyages.
    pub runs: u64,
    /// Power-ons: states in which all laws were checked.
    pub states: u64,
    /// Cuts.
    pub cuts: u64,
    /// Calls that failed on purpose.
    pub faults: u64,
}

impl Count {
    /// Adds what another part did.
    pub fn add(&mut self, other: Count) {
        self.runs += other.runs;
        self.states += other.states;
        self.cuts += other.cuts;
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
    fresh: Hardware,
    buffers: Buffers,
    /// Stop after so many runs (mutants).
    pub runs_max: u64,
}

impl Yard {
    /// With the revision that every fleet begins with.
    pub fn new() -> Self {
        let mut buffers = Buffers::new();
        Self { fresh: factory(&first(), &mut buffers), buffers, runs_max: u64::MAX }
    }

    /// Other media than the ordinary ones.
    pub fn with_hardware(&mut self, change: impl FnOnce(&mut Hardware)) {
        change(&mut self.fresh);
    }

    /// One run.
    pub fn sail(&mut self, voyage: &Voyage, choices: &mut Gen, count: &mut Count) -> Result<End, Box<Violation>> {
        let result = sail(voyage, &self.fresh, choices, &mut self.buffers);
        count.runs += 1;
        if let Ok(end) = &result {
            count.states += u64::from(end.boots);
            count.cuts += u64::from(end.cuts);
            count.faults += u64::from(end.faulted);
        }
        result.map_err(|broken| Box::new(Violation { broken, voyage: voyage.clone(), line: choices.line() }))
    }

    /// One cut, before every effect that there is, and every fate of what was pending.
    pub fn cut_everywhere(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        let mut count = Count::default();
        for at in 0.. {
            let voyage = Voyage { cuts: vec![at], ..voyage.clone() };
            let mut choices = Gen::all();
            let mut came = false;
            loop {
                came |= self.sail(&voyage, &mut choices, &mut count)?.cuts > 0;
                if !choices.advance() || count.runs >= self.runs_max {
                    break;
                }
            }
            if !came || count.runs >= self.runs_max {
                break;
            }
        }
        Ok(count)
    }

    /// A cut before every effect, and a second one before each of the effects that follow: in the loader's counting, in
    /// the recovery, in carrying out the boot decision, in the next attempt. Fates are drawn.
    pub fn cut_twice(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        const AFTER: u64 = 40;
        let mut count = Count::default();
        for at in 0.. {
            let mut came = 0;
            for after in 0..AFTER {
                let voyage = Voyage { cuts: vec![at, after], ..voyage.clone() };
                came = came.max(self.sail(&voyage, &mut Gen::random(at << 16 | after), &mut count)?.cuts);
                if count.runs >= self.runs_max {
                    return Ok(count);
                }
            }
            if came == 0 {
                return Ok(count);
            }
        }
        Ok(count)
    }

    /// A call fails, every one that there is, in every power-on; once, or from then on; with every code.
    pub fn fail_everywhere(&mut self, voyage: &Voyage) -> Result<Count, Box<Violation>> {
        let mut count = Count::default();
        for code in [Code::StorageIo, Code::NoSpace] {
            for sticky in [false, true] {
                for boot in 1.. {
                    let mut boots = 0;
                    for at in 0.. {
                        let fault = Fault { at, sticky, code };
                        let voyage = Voyage { fault: Some((boot, fault)), ..voyage.clone() };
                        let seed = at << 16 | u64::from(boot);
                        let end = self.sail(&voyage, &mut Gen::random(seed), &mut count)?;
                        boots = boots.max(end.boots);
                        if !end.faulted || count.runs >= self.runs_max {
                            break;
                        }
                    }
                    if boot >= boots || count.runs >= self.runs_max {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }

    /// Voyages drawn from seeds.
    pub fn drawn(
        &mut self,
        seeds: std::ops::Range<u64>,
        mut draw: impl FnMut(&mut Gen) -> Voyage,
    ) -> Result<Count, Box<Violation>> {
        let mut count = Count::default();
        for seed in seeds {
            let mut choices = Gen::random(seed);
            let voyage = draw(&mut choices);
            self.sail(&voyage, &mut choices, &mut count)?;
            if count.runs >= self.runs_max {
                break;
            }
        }
        Ok(count)
    }

    /// What was done in a run, for reading.
    pub fn trace(&mut self, violation: &Violation) -> String {
        let mut fresh = self.fresh.clone();
        let trace = Rc::new(RefCell::new(vec![]));
        fresh.trace = Some(trace.clone());
        let mut choices = Gen::repeat(&violation.line);
        let _ = sail(&violation.voyage, &fresh, &mut choices, &mut self.buffers);
        let lines = trace.take();
        format!(
            "law {} is broken: {}\n{}\nrepeat: Gen::repeat({:?})\n{}",
            violation.broken.law,
            violation.broken.how,
            violation.voyage.summary(),
            violation.line,
            lines.join("\n")
        )
    }
}

impl Default for Yard {
    fn default() -> Self {
        Self::new()
    }
}
