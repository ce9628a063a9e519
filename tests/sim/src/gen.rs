//! Choices: every run of a simulation is a list of them.
//!
//! `Gen::all` goes through every list there is (depth first, the last choice fastest); `Gen::random` draws one from
//! a seed. Either way `line` repeats the run.

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Gen {
    seed: Option<u64>,
    drawn: u64,
    path: Vec<(u32, u32)>,
    at: usize,
}

impl Gen {
    /// The first of all lists; `advance` goes on.
    pub fn all() -> Self {
        Self { seed: None, drawn: 0, path: vec![], at: 0 }
    }

    /// One list, drawn from a seed.
    pub fn random(seed: u64) -> Self {
        Self { seed: Some(seed), drawn: seed ^ 0x9e37_79b9_7f4a_7c15, path: vec![], at: 0 }
    }

    /// The list that `line` printed.
    pub fn repeat(line: &str) -> Self {
        match line.strip_prefix("seed ") {
            Some(seed) => Self::random(seed.parse().expect("a number")),
            None => {
                let path = line.split_whitespace().map(|n| (n.parse().expect("a number"), u32::MAX)).collect();
                Self { seed: None, drawn: 0, path, at: 0 }
            }
        }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0 && n < u32::MAX as usize);
        if self.seed.is_some() {
            return (draw(&mut self.drawn) % n as u64) as usize;
        }
        if self.at == self.path.len() {
            self.path.push((0, n as u32));
        }
        let (choice, of) = &mut self.path[self.at];
        if *of == u32::MAX {
            *of = n as u32; // from `repeat`
        }
        assert_eq!(*of as usize, n, "a run must depend on its choices only");
        self.at += 1;
        *choice as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The next list; false if that was the last.
    pub fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, of)) = self.path.pop() {
            if choice + 1 < of {
                self.path.push((choice + 1, of));
                return true;
            }
        }
        false
    }

    /// What `repeat` needs.
    pub fn line(&self) -> String {
        match self.seed {
            Some(seed) => format!("seed {seed}"),
            None => self.path.iter().map(|(choice, _)| choice.to_string()).collect::<Vec<_>>().join(" "),
        }
    }
}

/// splitmix64: the next number of a seed.
pub(super) fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
