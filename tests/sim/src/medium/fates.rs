//! What becomes of pending effects at a cut: every list of fates, or a bounded share of them, by number.
//!
//! A unit is what shares one fate: an effect, or under ext4 all names of a volume. Of each unit, fate 0 is lost, the
//! last one kept whole, those between are parts. Up to `Bounds::exhaustive` pending effects (a sector each) all
//! combinations are gone through; above that, all lost, all kept, each unit and (`Bounds::pairs`) each pair of units
//! alone lost or alone kept, each part of each unit alone, and `Bounds::drawn` lists drawn from `Bounds::seed`.

/// How much is gone through where not everything can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Pending effects up to which all combinations are tried.
    pub exhaustive: u32,
    /// Each unit alone.
    pub singles: bool,
    /// Each pair of units alone.
    pub pairs: bool,
    /// Lists drawn besides.
    pub drawn: u32,
    /// From where.
    pub seed: u64,
}

impl Bounds {
    /// All that the evidence goes through.
    pub const ALL: Bounds = Bounds { exhaustive: 12, singles: true, pairs: true, drawn: 64, seed: 1 };
    /// The share of the gate.
    pub const GATE: Bounds = Bounds { exhaustive: 6, singles: true, pairs: false, drawn: 8, seed: 1 };
    /// What the evidence goes through of a second cut.
    pub const LATER: Bounds = Bounds { exhaustive: 4, singles: true, pairs: false, drawn: 4, seed: 1 };
    /// All lost, all kept, and two more: for what follows a first cut.
    pub const FEW: Bounds = Bounds { exhaustive: 2, singles: false, pairs: false, drawn: 2, seed: 1 };
}

impl Default for Bounds {
    fn default() -> Self {
        Self::GATE
    }
}

/// The fates of one cut.
#[derive(Clone, Debug)]
pub(super) struct Fates {
    /// Of each unit, how many fates it has.
    units: Vec<usize>,
    bounds: Bounds,
    /// Makes what is drawn differ from cut to cut.
    salt: u64,
    /// All combinations, if those are gone through.
    combinations: Option<usize>,
}

impl Fates {
    pub(super) fn new(units: Vec<usize>, bounds: Bounds, salt: u64) -> Self {
        let all = units.iter().try_fold(1usize, |all, fates| all.checked_mul(*fates));
        let combinations = all.filter(|all| *all <= 1 << bounds.exhaustive);
        Self { units, bounds, salt, combinations }
    }

    pub(super) fn are_all(&self) -> bool {
        self.combinations.is_some()
    }

    /// Lists that are not drawn.
    fn plain(&self) -> usize {
        2 + 2 * (self.singles() + self.pairs())
    }

    fn singles(&self) -> usize {
        if self.bounds.singles { self.units.len() + self.parts() } else { 0 }
    }

    fn parts(&self) -> usize {
        self.units.iter().map(|fates| fates - 2).sum()
    }

    fn pairs(&self) -> usize {
        if self.bounds.pairs { self.units.len() * (self.units.len() - 1) / 2 } else { 0 }
    }

    /// How many lists there are.
    pub(super) fn count(&self) -> usize {
        self.combinations.unwrap_or_else(|| self.plain() + self.bounds.drawn as usize)
    }

    /// One of them: a fate for each unit.
    pub(super) fn list(&self, mut number: usize) -> Vec<usize> {
        assert!(number < self.count());
        if self.combinations.is_some() {
            let mut digit = |fates: &usize| {
                let fate = number % fates;
                number /= fates;
                fate
            };
            return self.units.iter().map(&mut digit).collect();
        }
        if number >= self.plain() {
            return self.drawn((number - self.plain()) as u64);
        }
        // Even numbers: all lost but; odd ones: all kept but.
        let kept = number % 2 == 1;
        let mut list: Vec<usize> = self.units.iter().map(|fates| if kept { fates - 1 } else { 0 }).collect();
        let other = |unit: usize| if kept { 0 } else { self.units[unit] - 1 };
        let mut at = number / 2;
        if at == 0 {
            return list;
        }
        at -= 1;
        if at < self.units.len() {
            list[at] = other(at);
            return list;
        }
        at -= self.units.len();
        for (unit, fates) in self.units.iter().enumerate() {
            if at < fates - 2 {
                list[unit] = 1 + at;
                return list;
            }
            at -= fates - 2;
        }
        for first in 0..self.units.len() {
            let seconds = self.units.len() - first - 1;
            if at < seconds {
                (list[first], list[first + 1 + at]) = (other(first), other(first + 1 + at));
                return list;
            }
            at -= seconds;
        }
        unreachable!("the number is below the count")
    }

    fn drawn(&self, number: u64) -> Vec<usize> {
        let mut state = self.bounds.seed ^ self.salt.rotate_left(20) ^ number.rotate_left(40);
        self.units.iter().map(|fates| (crate::r#gen::draw(&mut state) % *fates as u64) as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn lists(units: &[usize], bounds: Bounds) -> (Vec<Vec<usize>>, bool) {
        let fates = Fates::new(units.to_vec(), bounds, 0);
        ((0..fates.count()).map(|number| fates.list(number)).collect(), fates.are_all())
    }

    #[test]
    fn few_pending_effects_are_combined_in_every_way() {
        for units in [&[2usize; 12][..], &[4, 4, 2, 5], &[7], &[]] {
            let (lists, all) = lists(units, Bounds::ALL);
            assert!(all);
            assert_eq!(lists.len(), units.iter().product::<usize>());
            assert_eq!(lists.iter().collect::<BTreeSet<_>>().len(), lists.len());
            assert!(lists.iter().all(|list| list.iter().zip(units).all(|(fate, fates)| fate < fates)));
        }
    }

    #[test]
    fn of_many_each_one_each_pair_and_each_part_is_lost_and_kept_alone() {
        let units = [2, 2, 4, 2, 5, 2, 2, 2, 2, 2, 2, 2, 2];
        let (lists, all) = lists(&units, Bounds::ALL);
        assert!(!all);
        let seen: BTreeSet<_> = lists.iter().cloned().collect();
        let last = |unit: usize| units[unit] - 1;
        let base = |kept: bool| (0..13).map(|unit| if kept { last(unit) } else { 0 }).collect::<Vec<_>>();
        for kept in [false, true] {
            assert!(seen.contains(&base(kept)));
            for first in 0..13 {
                for second in first..13 {
                    let mut list = base(kept);
                    for unit in [first, second] {
                        list[unit] = if kept { 0 } else { last(unit) };
                    }
                    assert!(seen.contains(&list), "{first} {second}");
                }
                for part in 1..last(first) {
                    let mut list = base(kept);
                    list[first] = part;
                    assert!(seen.contains(&list));
                }
            }
        }
        assert_eq!(lists.len(), 2 + 2 * (13 + 2 + 3 + 78) + 64);
    }
}
