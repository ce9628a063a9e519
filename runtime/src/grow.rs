//! Storage grows to the end of its disk: an image is written to disks of any size.
//!
//! Order: one sector of the partition table in place, made durable; the kernel is told; the file system grows, online. Each is
//! done at every start, as far as it is needed, so a cut between two of them is made up for at the next one.
//!
//! Invariants: nothing shrinks, nothing but the length of the one entry changes, and a table that is not one of ours is
//! refused with nothing written: no signature, GPT, logical partitions, an entry that does not fit the disk, a partition behind ours.
//!
//! Fault model: that of `port::Region`: a sector is written or not. The file system's own growth goes through its journal.
//!
//! What it does not do: no partition is made, moved or renumbered; what is behind 2 TiB is not used (32-bit sector numbers).

use crate::{fault::Code, port::Region, protocol::Row};

const SECTOR: u64 = 512;
/// Partitions begin and end at multiples of this.
const UNIT: u64 = 1 << 20;
/// Where the four entries are, 16 bytes each.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;
const LINUX: u8 = 0x83;
const GPT: u8 = 0xee;
/// Kinds of partitions that hold partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// What the table cannot do by itself.
pub trait Ground {
    /// Tells the kernel that partition `number`, which begins at byte `start`, is now `length` bytes. No error if it knows.
    fn tell(&mut self, number: u8, start: u64, length: u64) -> Result<(), Code>;
    /// Grows the file system on it to `length` bytes. No error if it is that large.
    fn fill(&mut self, length: u64) -> Result<(), Code>;
}

/// Grows partition `number`, from 1, of the disk whose bytes `disk` are, and what is on it. By how many bytes its entry grew.
pub fn grow<R: Region, G: Ground>(disk: &mut R, ground: &mut G, number: u8) -> Result<u64, Code> {
    let end = disk.length().ok_or(Code::StorageIo)?;
    let mut sector = [0u8; SECTOR as usize];
    disk.read_at(0, &mut sector)?;
    let entry = Entry::of(&sector, number, end)?;
    let length = entry.grown(end);
    if length > entry.length {
        entry.write(&mut sector, length);
        // 1. The table, seen to be on the medium: what grows beyond it would be lost with it.
        disk.step(Row::WriteTable);
        disk.write_at(0, &sector)?;
        disk.step(Row::SyncTable);
        disk.sync()?;
        disk.step(Row::ReadTable);
        let mut back = [0u8; SECTOR as usize];
        disk.drop_cache();
        disk.read_at(0, &mut back)?;
        if back != sector {
            return Err(Code::StorageIo);
        }
    }
    // 2. The kernel has read the table when it found the disk.
    disk.step(Row::TellKernel);
    ground.tell(number, entry.start, length)?;
    // 3. What a cut left smaller grows at the next start.
    disk.step(Row::GrowFiles);
    ground.fill(length)?;
    Ok(length - entry.length)
}

/// An entry of the table, in bytes of the disk.
struct Entry {
    at: usize,
    start: u64,
    length: u64,
}

impl Entry {
    /// The entry of partition `number`, if it may grow in this table.
    fn of(sector: &[u8; SECTOR as usize], number: u8, end: u64) -> Result<Self, Code> {
        let entry = |index: usize| {
            let bytes = &sector[ENTRIES + index * ENTRY..][..ENTRY];
            let sectors =
                |at: usize| u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
            (bytes[4], sectors(8) * SECTOR, sectors(12) * SECTOR)
        };
        let index = usize::from(number).checked_sub(1).filter(|index| *index < 4).ok_or(Code::TableUnknown)?;
        let (kind, start, length) = entry(index);
        let is_table = sector[510..] == [0x55, 0xaa];
        let others = (0..4).filter(|other| *other != index).map(entry).filter(|(kind, ..)| *kind != 0);
        let in_the_way = |(kind, from, _): (u8, u64, u64)| kind == GPT || EXTENDED.contains(&kind) || from >= start;
        let fits = start > 0 && length > 0 && start.checked_add(length).is_some_and(|last| last <= end);
        if !is_table || kind != LINUX || !fits || others.into_iter().any(in_the_way) {
            return Err(Code::TableUnknown);
        }
        Ok(Self { at: ENTRIES + index * ENTRY, start, length })
    }

    /// Its length if it reached to the end of the disk.
    fn grown(&self, end: u64) -> u64 {
        let most = u64::from(u32::MAX) * SECTOR;
        let room = (end.min(most) / UNIT * UNIT).saturating_sub(self.start);
        room.max(self.length)
    }

    fn write(&self, sector: &mut [u8; SECTOR as usize], length: u64) {
        sector[self.at + 12..self.at + 16].copy_from_slice(&((length / SECTOR) as u32).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;

    const MIB: u64 = UNIT;

    /// The first sector of a disk, and what the kernel and the file system believe of the partition's length.
    #[derive(Clone, Debug)]
    struct World {
        sector: [u8; 512],
        durable: [u8; 512],
        end: u64,
        told: u64,
        filled: u64,
        /// Calls that still work.
        fuse: usize,
        writes: usize,
    }

    impl World {
        fn new(sector: [u8; 512], end: u64) -> RefCell<Self> {
            let (told, filled) = (32 * MIB, 32 * MIB);
            RefCell::new(Self { sector, durable: sector, end, told, filled, fuse: usize::MAX, writes: 0 })
        }

        fn call(&mut self) -> Result<(), Code> {
            self.fuse = self.fuse.checked_sub(1).ok_or(Code::StorageIo)?;
            Ok(())
        }

        /// Power off and on: the sector was written or not; the kernel reads the table again.
        fn cut(&self, written: bool) -> RefCell<Self> {
            let durable = if written { self.sector } else { self.durable };
            let told = u64::from(u32::from_le_bytes(durable[490..494].try_into().unwrap())) * SECTOR;
            RefCell::new(Self { sector: durable, durable, told, fuse: usize::MAX, ..self.clone() })
        }
    }

    struct Door<'a>(&'a RefCell<World>);

    impl Region for Door<'_> {
        fn read_at(&mut self, _: u64, out: &mut [u8]) -> Result<(), Code> {
            self.0.borrow_mut().call()?;
            out.copy_from_slice(&self.0.borrow().sector);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
            assert_eq!((offset, data.len()), (0, 512), "one sector");
            let mut world = self.0.borrow_mut();
            world.call()?;
            world.writes += 1;
            world.sector.copy_from_slice(data);
            Ok(())
        }
        fn sync(&mut self) -> Result<(), Code> {
            let mut world = self.0.borrow_mut();
            world.call()?;
            world.durable = world.sector;
            Ok(())
        }
        fn drop_cache(&mut self) {}
        fn length(&mut self) -> Option<u64> {
            Some(self.0.borrow().end)
        }
    }

    impl Ground for Door<'_> {
        fn tell(&mut self, number: u8, start: u64, length: u64) -> Result<(), Code> {
            let mut world = self.0.borrow_mut();
            world.call()?;
            assert_eq!((number, start, world.durable), (3, 32 * MIB, world.sector), "told of what is not durable");
            world.told = length;
            Ok(())
        }
        fn fill(&mut self, length: u64) -> Result<(), Code> {
            let mut world = self.0.borrow_mut();
            world.call()?;
            assert!(length <= world.told && length >= world.filled, "beyond the partition, or smaller");
            world.filled = length;
            Ok(())
        }
    }

    fn run(world: &RefCell<World>) -> Result<u64, Code> {
        grow(&mut Door(world), &mut Door(world), 3)
    }

    /// Storage is partition 3 of three, from 32 MiB, 32 MiB long.
    fn image() -> [u8; 512] {
        let mut sector = [0u8; 512];
        for (index, (kind, start, length)) in [(0x0c, 1, 8), (0x83, 9, 23), (0x83, 32, 32)].into_iter().enumerate() {
            let entry = &mut sector[ENTRIES + index * ENTRY..][..ENTRY];
            entry[4] = kind;
            entry[8..12].copy_from_slice(&(start * 2048u32).to_le_bytes());
            entry[12..16].copy_from_slice(&(length * 2048u32).to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn it_grows_to_the_end_of_the_disk_once() {
        for (end, wanted) in [(64 * MIB, 32), (65 * MIB - 512, 32), (66 * MIB + 512, 34), (4096 * MIB, 4064)] {
            let world = World::new(image(), end);
            assert_eq!(run(&world), Ok((wanted - 32) * MIB));
            assert_eq!(run(&world), Ok(0));
            let world = world.borrow();
            assert_eq!(
                (world.told, world.filled, world.writes),
                (wanted * MIB, wanted * MIB, usize::from(wanted > 32))
            );
            let same = (0..512).filter(|at| !(490..494).contains(at)).all(|at| world.sector[at] == image()[at]);
            assert!(same, "only the length of the one entry changes");
        }
        let world = World::new(image(), 3 << 40);
        run(&world).unwrap();
        assert_eq!(world.borrow().filled, 2 * 1024 * 1024 * MIB - 33 * MIB, "32-bit sector numbers");
    }

    /// Whatever call is the last one, and whether the sector reached the medium or not, the next start ends it.
    #[test]
    fn a_cut_anywhere_is_made_up_for_at_the_next_start() {
        for fuse in 0.. {
            for written in [false, true] {
                let world = World::new(image(), 100 * MIB);
                world.borrow_mut().fuse = fuse;
                let done = run(&world);
                let world = world.borrow().cut(written);
                assert!(world.borrow().filled <= world.borrow().told, "the file system is larger than its partition");
                run(&world).unwrap();
                assert_eq!(world.borrow().filled, 68 * MIB);
                if done.is_ok() && written {
                    assert_eq!(fuse, 6, "read, write, sync, read back, tell, fill");
                    return;
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused_and_nothing_written() {
        let with = |at: usize, bytes: &[u8]| {
            let mut sector = image();
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            sector
        };
        let behind = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 0, 4, 0, 0, 8, 0, 0];
        let cases = [
            ("no table", with(510, &[0, 0])),
            ("GPT", with(ENTRIES + 4, &[GPT])),
            ("logical partitions", with(ENTRIES + 4, &[0x0f])),
            ("another kind", with(ENTRIES + 2 * ENTRY + 4, &[0x0c])),
            ("no such partition", with(ENTRIES + 2 * ENTRY, &[0; 16])),
            ("a partition behind it", with(ENTRIES + 3 * ENTRY, &behind)),
            ("longer than the disk", with(ENTRIES + 2 * ENTRY + 12, &[0xff; 4])),
        ];
        for (what, sector) in cases {
            let world = World::new(sector, 100 * MIB);
            assert_eq!(run(&world), Err(Code::TableUnknown), "{what}");
            assert_eq!((world.borrow().writes, world.borrow().filled), (0, 32 * MIB), "{what}");
        }
        for number in [0, 5] {
            let world = World::new(image(), 100 * MIB);
            assert_eq!(grow(&mut Door(&world), &mut Door(&world), number), Err(Code::TableUnknown));
        }
    }
}
