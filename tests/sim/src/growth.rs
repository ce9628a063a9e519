//! Storage's growth (`runtime::grow`), cut before each of its effects: at every instant the file system fits into its
//! partition, and the next start ends what was cut. The disk's first sector is its partition table; the second one
//! stands for the file system, which grows through its own journal: it has the old size or the new one.
//!
//! What it does not do: whether a real file system grows so is shown by a recording (`replay`).

use crate::{
    medium::{Bench, Hardware, Mutant, Reach},
    procedures::{broken, cut_in},
    rows::Found,
    saboteur::{Door, DoorRegion},
};
use runtime::{
    fault::Code,
    grow::{Ground, grow},
    port::Region,
    protocol::Row,
};
use std::{cell::Cell, rc::Rc};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Bytes of the disk.
const DISK: u64 = 16 * MIB;
/// Storage is its last partition, from here.
const START: u64 = 4 * MIB;
const NUMBER: u8 = 3;
/// As it comes from the factory.
const BEFORE: u64 = 4 * MIB;
/// Where the table has the partition's number of sectors, and where the disk has the size of the file system.
const LENGTH_AT: usize = 446 + 16 * (NUMBER as usize - 1) + 12;
const SIZE_AT: u64 = SECTOR;

/// The disk: so long, although of its sectors only the first ones are there.
struct Long<R>(R);

impl<R: Region> Region for Long<R> {
    fn step(&mut self, row: Row) {
        self.0.step(row);
    }
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.0.read_at(offset, out)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.0.write_at(offset, data)
    }
    fn sync(&mut self) -> Result<(), Code> {
        self.0.sync()
    }
    fn drop_cache(&mut self) {
        self.0.drop_cache();
    }
    fn length(&mut self) -> Option<u64> {
        Some(DISK)
    }
}

/// The kernel and the file system.
struct World {
    door: Door,
    /// What the kernel believes of the partition's length.
    told: Rc<Cell<u64>>,
}

impl Ground for World {
    fn tell(&mut self, _: u8, _: u64, length: u64) -> Result<(), Code> {
        let told = self.told.clone();
        self.door.act(None, Reach::Nothing, move |bench| {
            // A call as any other: it may fail.
            bench.env().read_at(0, &mut [0])?;
            told.set(length);
            Ok(())
        })
    }

    fn fill(&mut self, length: u64) -> Result<(), Code> {
        let told = self.told.clone();
        self.door.act(None, Reach::Nothing, move |bench| match length <= told.get() {
            true => bench.env().write_at(SIZE_AT, &length.to_le_bytes()),
            false => Err(Code::StorageIo),
        })
    }
}

fn start(bench: &Bench, door: &Door) -> Result<u64, Code> {
    let told = Rc::new(Cell::new(sizes(bench, false).0));
    let mut disk: Long<DoorRegion> = Long(door.env());
    let grown = grow(&mut disk, &mut World { door: door.clone(), told }, NUMBER);
    door.over();
    grown
}

/// Bytes of the partition and of the file system: as they are durable, or as they are read.
fn sizes(bench: &Bench, durable: bool) -> (u64, u64) {
    let mut bytes = [0; 2 * SECTOR as usize];
    match durable {
        true => bench.with(|hardware| bytes.copy_from_slice(hardware.env.durable())),
        false => bench.env().read_at(0, &mut bytes).expect("healthy media"),
    }
    let sectors = bytes[LENGTH_AT..][..4].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let size = bytes[SIZE_AT as usize..][..8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (sectors * SECTOR, size)
}

/// A disk as it comes from the factory, on a larger medium.
fn fresh() -> Hardware {
    let mut table = [0; SECTOR as usize];
    for (index, (kind, from, length)) in
        [(0x0c, 1, 1), (0x83, 2, 2), (0x83, START / MIB, BEFORE / MIB)].iter().enumerate()
    {
        let entry = &mut table[446 + 16 * index..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&((from * MIB / SECTOR) as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&((length * MIB / SECTOR) as u32).to_le_bytes());
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let bench = Bench::new(Hardware::new(2 * SECTOR as usize));
    bench.env().write_at(0, &table).expect("healthy media");
    bench.env().write_at(SIZE_AT, &BEFORE.to_le_bytes()).expect("healthy media");
    bench.with(|hardware| {
        hardware.settle();
        hardware.clone()
    })
}

/// The file system never ends behind its partition; what was told as grown is, and the next start ends what was cut.
pub(super) fn growth(mutant: Option<Mutant>) -> Found {
    let whole = DISK - START;
    let judge = |bench: &Bench, _| {
        let (partition, size) = sizes(bench, true);
        if size > partition {
            return broken(5, format!("a file system of {size} bytes in a partition of {partition} does not mount"));
        }
        match (start(bench, &Door::new(bench, None)), sizes(bench, false)) {
            (Ok(_), sizes) if sizes == (whole, whole) => Ok(()),
            (done, sizes) => broken(0, format!("the next start ends as {done:?}, with {sizes:?}")),
        }
    };
    let mut touched = 0;
    for (lie, shift) in [(false, 0), (true, 0), (true, 1)] {
        let procedure = |door: &Door| {
            let bench = door.bench();
            if lie {
                door.lie_after(0);
            }
            // what a sync that lies keeps goes by the number of calls
            for _ in 0..shift {
                let _ = sizes(&bench, false);
            }
            match start(&bench, door) {
                // it was told as grown, and is not
                Ok(_) if !door.is_dead() && sizes(&bench, false).1 != whole => Err(Code::StorageDamaged),
                Err(_) if lie => Ok(()), // it was found
                done => done.map(drop),
            }
        };
        touched += cut_in(&fresh(), mutant, procedure, judge)?;
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{r#gen::Gen, medium::Fault};

    /// Grows with this failure, then the power goes in this way. Whether it came to the failure; or what is wrong.
    fn fails(fault: Fault, choices: &mut Gen) -> Result<bool, String> {
        let bench = Bench::new(fresh());
        // the first call is the kernel's look at the table, before we run
        bench.with(|hardware| hardware.fault = Some(Fault { at: hardware.calls + 1 + fault.at, ..fault }));
        let told = start(&bench, &Door::new(&bench, None));
        let came = bench.with(|hardware| {
            hardware.fault = None;
            hardware.faulted
        });
        let whole = DISK - START;
        let grown = sizes(&bench, false);
        bench.with(|hardware| hardware.cut(choices));
        let (partition, size) = sizes(&bench, true);
        let again = start(&bench, &Door::new(&bench, None)).is_ok() && sizes(&bench, false) == (whole, whole);
        match (told, size <= partition, again) {
            (Ok(_), ..) if grown != (whole, whole) => Err(format!("it was told as grown: {grown:?}")),
            (_, true, true) => Ok(came),
            _ => Err(format!("{told:?}: a file system of {size} in {partition}, ended by the next start: {again}")),
        }
    }

    /// Every call, once or from then on, before, in the middle or after it was done; then the power, with every fate.
    #[test]
    fn a_call_that_fails_leaves_a_file_system_that_fits_and_the_next_start_ends_it() {
        let mut states = 0;
        let kinds = Reach::ALL.map(|reach| [(reach, false), (reach, true)]);
        for (reach, sticky) in kinds.into_iter().flatten() {
            for at in 0.. {
                let fault = Fault { at, sticky, code: Code::StorageIo, reach };
                let (mut choices, mut came) = (Gen::all(), false);
                loop {
                    states += 1;
                    came |=
                        fails(fault, &mut choices).unwrap_or_else(|how| panic!("{fault:?} {}: {how}", choices.line()));
                    if !choices.advance() {
                        break;
                    }
                }
                if !came {
                    break;
                }
            }
        }
        assert!(states > 40, "{states}");
    }
}
