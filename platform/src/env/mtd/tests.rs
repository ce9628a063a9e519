//! The codec over a chip that behaves like NOR flash, with power that fails in every program and every erase.

use super::*;
use crate::env::Pair;
use boards::env::{
    SECOND,
    uboot::{Copies, Layout, Scheme, Uboot, initial},
};
use runtime::{
    id::RevName,
    port::{BootEnv, BootVars},
};
use std::{cell::RefCell, rc::Rc};

const BLOCK: usize = 1024;
/// Smaller than its blocks: the last one holds something else too.
const SIZE: usize = 1536;
const START: u64 = BLOCK as u64;
const TEXT: &str = "bootlimit=3\npv_script=2\n";

/// What a cut leaves of the unit that it hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tear {
    Before,
    Half,
    Noise,
}

/// One chip. Its power is shared with the other one.
struct Fake {
    bytes: Rc<RefCell<Vec<u8>>>,
    power: Rc<RefCell<Power>>,
}

#[derive(Default)]
struct Power {
    /// Units (a byte programmed, a block erased) until the cut.
    fuse: Option<usize>,
    tear: Option<Tear>,
    erased: usize,
    programmed: usize,
}

impl Power {
    /// Whether the next unit is done: `Err(true)` if the cut is in it, `Err(false)` if it was before.
    fn spend(&mut self) -> Result<(), bool> {
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => Err(self.tear.take().is_some_and(|tear| tear != Tear::Before)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Chip for Fake {
    fn block(&self) -> usize {
        BLOCK
    }
    fn size(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        out.copy_from_slice(&self.bytes.borrow()[at as usize..][..out.len()]);
        Ok(())
    }
    fn erase(&mut self, at: u64) -> Result<(), Errno> {
        assert!(at.is_multiple_of(BLOCK as u64));
        let mut bytes = self.bytes.borrow_mut();
        let block = &mut bytes[at as usize..][..BLOCK];
        let mut power = self.power.borrow_mut();
        let tear = power.tear;
        match power.spend() {
            Ok(()) => {
                block.fill(0xff);
                power.erased += 1;
                return Ok(());
            }
            Err(false) => {}
            Err(true) if tear == Some(Tear::Half) => block[BLOCK / 2..].fill(0xff),
            Err(true) => block.iter_mut().enumerate().for_each(|(index, byte)| *byte |= (index * 37) as u8),
        }
        Err(Errno::IO)
    }
    fn program(&mut self, at: u64, data: &[u8]) -> Result<(), Errno> {
        let mut bytes = self.bytes.borrow_mut();
        let mut power = self.power.borrow_mut();
        for (byte, new) in bytes[at as usize..].iter_mut().zip(data) {
            match power.spend() {
                Ok(()) => *byte &= new,
                Err(torn) => {
                    if torn {
                        *byte &= new | 0x0f;
                    }
                    return Err(Errno::IO);
                }
            }
            power.programmed += 1;
        }
        Ok(())
    }
}

/// Two chips, or one, and a power supply.
struct Board {
    chips: [Rc<RefCell<Vec<u8>>>; 2],
    power: Rc<RefCell<Power>>,
    layout: Layout,
}

impl Board {
    /// With these decisions in the copies and something else behind them.
    fn new(copies: Copies<u64>, decisions: [&BootVars; 2], flags: [Option<u8>; 2]) -> Self {
        let chips = [0, 1].map(|index| {
            let mut bytes = vec![0xff; 4 * BLOCK];
            initial(TEXT, decisions[index], flags[index], &mut bytes[START as usize..][..SIZE]).unwrap();
            bytes[START as usize + SIZE..][..4].copy_from_slice(b"else");
            Rc::new(RefCell::new(bytes))
        });
        Self { chips, power: Rc::default(), layout: Layout { copies, size: SIZE } }
    }

    fn env<T>(&self, each: impl FnOnce(&mut Uboot<'_, Pair<Nor<Fake>>>) -> T) -> T {
        let nor = |index: usize| {
            let chip = Fake { bytes: self.chips[index].clone(), power: self.power.clone() };
            Nor::new(chip, START, SIZE).unwrap()
        };
        let second = (self.layout.offsets().len() == 2).then(|| nor(1));
        let mut work = [0; 2 * SIZE];
        each(&mut Uboot::new(Pair { first: nor(0), second }, self.layout, TEXT, &mut work).unwrap())
    }
}

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: Option<&str>) -> BootVars {
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: None }
}

const BOTH: [u64; 2] = [START, SECOND + START];

#[test]
fn a_store_erases_and_programs_its_copy_and_keeps_what_shares_its_block() {
    let copies = Copies::Redundant(BOTH, Scheme::Boolean);
    let board = Board::new(copies, [&vars("1", None), &vars("0", None)], [Some(1), Some(0)]);
    let before = board.chips[0].borrow().clone();
    board.env(|env| env.store(&vars("1", Some("2")))).unwrap();
    assert_eq!(board.env(|env| env.load()).unwrap().vars, vars("1", Some("2")));
    assert_eq!(board.power.borrow().erased, 2, "the blocks of one copy");
    // The copy, what shares its block, and the old one's flag byte, which is cleared without an erase.
    assert_eq!(board.power.borrow().programmed, SIZE + (2 * BLOCK - SIZE) + 1);
    let mut expected = before;
    expected[START as usize + 4] = 0;
    assert!(*board.chips[0].borrow() == expected, "the old copy but for its flag byte");
    assert_eq!(&board.chips[1].borrow()[START as usize + SIZE..][..4], b"else");
}

#[test]
fn a_cut_in_any_unit_of_a_store_leaves_the_old_or_the_new_decision() {
    let (old, older, new) = (vars("1", None), vars("0", None), vars("1", Some("2")));
    for scheme in [Scheme::Boolean, Scheme::Incremental] {
        for active in [0, 1] {
            let decisions = if active == 0 { [&old, &older] } else { [&older, &old] };
            let flags = if active == 0 { [Some(1), Some(0)] } else { [Some(0), Some(1)] };
            let fresh = || Board::new(Copies::Redundant(BOTH, scheme), decisions, flags);
            let (mut olds, mut news, mut cut) = (0, 0, 0);
            'cuts: loop {
                for tear in [Tear::Before, Tear::Half, Tear::Noise] {
                    let board = fresh();
                    *board.power.borrow_mut() = Power { fuse: Some(cut), tear: Some(tear), ..Power::default() };
                    let stored = board.env(|env| env.store(&new));
                    *board.power.borrow_mut() = Power::default();
                    let found = board.env(|env| env.load()).unwrap().vars;
                    assert!(found == old || found == new, "{scheme:?} {active} {cut} {tear:?}: {found:?}");
                    if stored.is_ok() {
                        assert_eq!(found, new);
                        break 'cuts;
                    }
                    if found == old {
                        olds += 1
                    } else {
                        news += 1
                    }
                    board.env(|env| env.store(&new)).unwrap();
                    assert_eq!(board.env(|env| env.load()).unwrap().vars, new, "the next store");
                }
                cut += 1;
            }
            assert!(cut > SIZE && olds > 3 * SIZE, "{scheme:?} {active}: {cut} {olds} {news}");
            // Two copies that both claim to be in use: the loader takes the first, so here that is the old one until the
            // last bit is cleared.
            assert_eq!(news == 0, (scheme, active) == (Scheme::Boolean, 0), "{scheme:?} {active}: {news}");
        }
    }
}

/// What a single copy is worth: whole, or lost and rebuilt.
#[test]
fn a_cut_in_a_single_copy_loses_it_and_it_is_rebuilt() {
    let (old, new) = (vars("1", None), vars("1", Some("2")));
    let (mut lost, mut cut) = (0, 0);
    loop {
        let board = Board::new(Copies::Single(START), [&old, &old], [None; 2]);
        *board.power.borrow_mut() = Power { fuse: Some(cut), tear: Some(Tear::Half), ..Power::default() };
        let stored = board.env(|env| env.store(&new));
        *board.power.borrow_mut() = Power::default();
        match board.env(|env| env.load()) {
            Ok(loaded) => assert!(loaded.vars == old || loaded.vars == new),
            Err(code) => {
                assert_eq!(code, Code::EnvInvalid);
                lost += 1;
                board.env(|env| env.rebuild(&old)).unwrap();
                assert_eq!(board.env(|env| env.load()).unwrap().vars, old);
            }
        }
        if stored.is_ok() {
            break;
        }
        cut += 1;
    }
    // The text ends early and the rest is zeros, so the last bytes decide nothing but the checksum.
    assert!(lost > SIZE / 2, "{lost} of {cut}");
}

#[test]
fn a_place_that_is_not_whole_blocks_is_refused() {
    let chip = || Fake { bytes: Rc::new(RefCell::new(vec![0xff; 4 * BLOCK])), power: Rc::default() };
    let refused = |start: u64, size: usize| Nor::new(chip(), start, size).err();
    assert_eq!(refused(0, 4 * BLOCK), None);
    assert_eq!(refused(1, BLOCK), Some(Code::EnvLayout), "not at the start of a block");
    assert_eq!(refused(3 * START, BLOCK + 1), Some(Code::EnvLayout), "past the end");
    assert_eq!(refused(u64::MAX - START + 1, BLOCK), Some(Code::EnvLayout));
}

#[test]
fn a_program_sets_no_bit() {
    let mut chip = Fake { bytes: Rc::new(RefCell::new(vec![0xff; BLOCK])), power: Rc::default() };
    chip.program(0, &[0xf0]).unwrap();
    chip.program(0, &[0x0f]).unwrap();
    assert_eq!(chip.bytes.borrow()[0], 0);
}
