//! One line per claim, with its time, printed when it was observed and not before.

use std::time::Instant;

use super::Outcome;

/// The running report.
pub struct Report {
    what: String,
    started: Instant,
    last: Instant,
    lines: usize,
    failed: Vec<String>,
}

impl Report {
    /// The report of this; nothing was seen yet.
    pub fn of(what: &str) -> Self {
        let now = Instant::now();
        Self { what: what.into(), started: now, last: now, lines: 0, failed: Vec::new() }
    }

    /// A step that held: its name, what was seen, and the time since the line before.
    pub fn held(&mut self, step: &str, seen: &str) {
        self.lines += 1;
        println!("{step:<5} {seen:<96} {:6.1} s", self.lap());
    }

    /// Facts that belong to the line above.
    pub fn fact(&self, text: &str) {
        println!("      {text}");
    }

    /// Runs a step; when it does not hold, says why and remembers it.
    pub fn step(&mut self, step: &str, run: impl FnOnce(&mut Self) -> Outcome<()>) -> bool {
        match run(self) {
            Ok(()) => true,
            Err(error) => {
                println!("{step:<5} DID NOT HOLD: {error} {:6.1} s", self.lap());
                self.failed.push(step.to_string());
                false
            }
        }
    }

    /// The closing line; whether everything held.
    pub fn close(&self) -> bool {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.failed.is_empty() {
            println!("{} held: {} claims in {seconds:.0} s", self.what, self.lines);
        } else {
            println!(
                "{} did not hold: step {}; {} claims held in {seconds:.0} s",
                self.what,
                self.failed.join(", "),
                self.lines
            );
        }
        self.failed.is_empty()
    }

    /// How many claims held and how many steps did not.
    pub fn counts(&self) -> (usize, usize) {
        (self.lines, self.failed.len())
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        seconds
    }
}
