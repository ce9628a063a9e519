//! A folder of one block as ext4 keeps it: a name takes the first gap that holds it, and what a removed name leaves goes to the
//! one before. The folder's own two names are the first, and stay.

use super::*;
use crate::port::Names;
use std::{string::String, vec::Vec};

/// A block, and whether it was ever too short.
#[derive(Debug)]
pub(super) struct Block {
    /// Each name, with the bytes up to the next one.
    names: Vec<(String, usize)>,
    /// A name found no gap: the folder is longer from then on.
    pub(super) has_grown: bool,
}

impl Block {
    pub(super) fn new(size: usize) -> Self {
        let rest = Names::in_block(size).room - Names::size_of(1);
        Self { names: vec![(".".into(), Names::size_of(1)), ("..".into(), rest)], has_grown: false }
    }

    /// These names are in it now: first those that came, then those that went, as a rename does it.
    pub(super) fn hold(&mut self, now: &[String]) {
        for name in now {
            if !self.names.iter().any(|(there, _)| there == name) {
                self.add(name);
            }
        }
        while let Some(at) = (2..self.names.len()).find(|at| !now.contains(&self.names[*at].0)) {
            let (_, room) = self.names.remove(at);
            self.names[at - 1].1 += room;
        }
    }

    fn add(&mut self, name: &str) {
        let size = Names::size_of(name.len());
        let gap = |(name, room): &(String, usize)| room - Names::size_of(name.len());
        let Some(at) = self.names.iter().position(|name| gap(name) >= size) else {
            self.has_grown = true;
            return;
        };
        let room = gap(&self.names[at]);
        self.names[at].1 -= room;
        self.names.insert(at + 1, (name.into(), room));
    }
}

/// Chance, the same for the same seed.
fn dice(state: &mut u32, sides: usize) -> usize {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*state >> 16) as usize % sides
}

/// Revisions come and go as chance has it; whether a folder has grown.
fn grows(size: usize, longest: usize, is_blind: bool) -> bool {
    let mut disk = Memory::new();
    disk.reads = Volume::Storage;
    (disk.block, disk.is_blind) = (size, is_blind);
    disk.blocks = Some([Block::new(size), Block::new(size)]);
    let (mut device, one, mut seed) = (Device::with(disk), new_one(), 1);
    let (mut staged, mut refused) = (Vec::<RevName>::new(), 0);
    for number in 1..=160 {
        let width = 3 + dice(&mut seed, longest - 2);
        let is_local = dice(&mut seed, 3) > 0;
        let name = if is_local { format!("locals/{number:x>width$}") } else { format!("{number}") };
        let rev = RevName::parse(&name).unwrap();
        device.arrive_all(&one);
        match device.stage_as(rev, &one.state, "", &[]).map_err(|refusal| refusal.code) {
            Ok(()) => staged.push(rev),
            Err(code) => {
                assert_eq!(code, Code::TrailsFull);
                refused += 1;
                while staged.len() > 3 {
                    staged.remove(dice(&mut seed, staged.len()));
                }
                device.collect(&staged).unwrap();
            }
        }
    }
    assert_eq!(refused > 0, !is_blind, "{size}");
    device.disk.blocks.is_some_and(|blocks| blocks.iter().any(|block| block.has_grown))
}

#[test]
fn no_folder_that_the_loader_reads_grows_and_without_the_rule_one_does() {
    for (size, longest) in [(4096, 64), (1024, 20)] {
        assert!(!grows(size, longest, false) && grows(size, longest, true), "{size}");
    }
}

/// However names came and went: where the rule sees a gap, there is one. Where it sees none, there may be none.
#[test]
fn where_the_rule_sees_a_gap_there_is_one() {
    let (mut held, mut missed) = (0, 0);
    for mut seed in 0..300 {
        let mut block = Block::new(4096);
        let mut now = Vec::new();
        for number in 0..300 {
            now.push(format!("{number:x>0$}", 3 + dice(&mut seed, 6)));
        }
        block.hold(&now);
        // Few or many of them stay.
        let stay = 1 + dice(&mut seed, 30);
        now.retain(|_| dice(&mut seed, 30) < stay);
        block.hold(&now);
        block.has_grown = false;
        let mut names = Names::in_block(4096);
        block.names.iter().for_each(|(name, _)| names.add(name.len()));
        let longer = "y".repeat(8 + dice(&mut seed, 70));
        let has_gap = names.has_gap(Names::size_of(longer.len()));
        block.add(&longer);
        assert!(!has_gap || !block.has_grown, "{names:?} {longer}");
        (held, missed) = (held + u32::from(has_gap), missed + u32::from(block.has_grown));
    }
    assert!(held > 50 && missed > 50, "{held} {missed}");
}
