//! The device that holds the loader's environment, opened as the board says, as one `Region`.
//!
//! A block device or file counts its own bytes. Flash and volumes hold one copy on each device: copy 2 starts at
//! `boards::env::SECOND`, which no device reaches. So does, beside the text of a device that was taken over, the partition
//! with its loader's mark. That text is a file of storage: `take_over` makes it one that can be overwritten in place.

mod block;
mod mtd;
mod ubi;

pub use block::{ALIGN, BlockRegion};
pub use mtd::{Chip, MtdChip, Nor};
pub use ubi::Volume;

use crate::{disk::Volumes, faults};
use boards::{
    Board, Env, Flash, Medium,
    env::{Codec, SECOND, uboot::Copies, uboot_txt},
};
use runtime::{fault::Code, limits::LOADER_TEXT_MAX, port::Region, protocol::Row, store::taken::adopt};

/// The board's environment device.
pub enum EnvRegion {
    /// Offsets of a disk, a partition or a file.
    Block(BlockRegion),
    /// NOR flash, one for each copy.
    Flash(Pair<Nor<MtdChip>>),
    /// UBI volumes, one for each copy.
    Ubi(Pair<Volume>),
    /// A file of the boot file system, and the partition with the loader's mark.
    Files(Pair<BlockRegion>),
}

/// Opens a board's environment. What it needs is allocated here, and nothing later.
pub fn open(board: &Board) -> Result<Codec<'static, EnvRegion>, Code> {
    open_on(board, board.disk.env.device)
}

/// As [`open`], with the block device somewhere else.
pub fn open_on(board: &Board, device: &str) -> Result<Codec<'static, EnvRegion>, Code> {
    let half = board.env.work() / 2;
    let region = match board.env {
        Env::Uboot { medium: Medium::Fat(_) | Medium::Raw(_), .. } | Env::Tryboot { .. } => {
            EnvRegion::Block(BlockRegion::direct(device).map_err(|_| Code::StorageIo)?)
        }
        Env::Uboot { medium: Medium::Mtd(flash), .. } => {
            let open = |flash: Flash| Nor::new(MtdChip::open(flash.device)?, flash.offset, half);
            EnvRegion::Flash(Pair::open(flash, open)?)
        }
        Env::Uboot { medium: Medium::Ubi { device: ubi, volumes }, .. } => {
            EnvRegion::Ubi(Pair::open(volumes, |name| Volume::find(ubi, name, half))?)
        }
        Env::UbootTxt { file, .. } => {
            let first = BlockRegion::direct(&format!("/boot/{file}")).map_err(|_| Code::StorageIo)?;
            // Without the partition no mark is seen: it only explains.
            EnvRegion::Files(Pair { first, second: BlockRegion::direct(device).ok() })
        }
        Env::Grub { .. } | Env::UbootAb { .. } => return Err(Code::EnvUnsupported),
    };
    board.open(region, room(board.env.work()))
}

/// Makes the text (`file`) of a device that was taken over one that a store can overwrite: `store::taken::adopt`. Before
/// `open`, with both file systems mounted.
pub fn take_over(storage: &str, boot: &str, file: &'static str) -> Result<bool, Code> {
    let mut volumes = Volumes::open_taken(storage, boot, file).map_err(|_| Code::StorageIo)?;
    let mut text = Box::new([0; LOADER_TEXT_MAX]);
    adopt(&mut volumes, &mut text, uboot_txt::adopt)
}

/// Memory that stays, on whole pages, so that the kernel can read past its cache right into it.
fn room(length: usize) -> &'static mut [u8] {
    let memory = Box::leak(vec![0u8; length + ALIGN].into_boxed_slice());
    let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
    &mut memory[start..start + length]
}

/// One device for each copy, seen as one region.
pub struct Pair<D> {
    first: D,
    second: Option<D>,
}

impl<D> Pair<D> {
    fn open<T>(copies: Copies<T>, open: impl FnMut(T) -> Result<D, Code>) -> Result<Self, Code> {
        Ok(match copies.try_map(open)? {
            Copies::Single(first) => Self { first, second: None },
            Copies::Redundant([first, second], _) => Self { first, second: Some(second) },
        })
    }

    /// The device that an offset means, and the offset in it. `EnvLayout` if there is no such device, which is no damage.
    fn at(&mut self, offset: u64) -> Result<(&mut D, u64), Code> {
        match offset.checked_sub(SECOND) {
            None => Ok((&mut self.first, offset)),
            Some(offset) => self.second.as_mut().map(|second| (second, offset)).ok_or(Code::EnvLayout),
        }
    }
}

/// A device that holds one copy. A write that returned is on the medium.
trait Holds {
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Code>;
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Code>;
    fn length(&mut self) -> Option<u64> {
        None
    }
}

impl Holds for BlockRegion {
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Code> {
        self.read_at(at, out)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Code> {
        self.write_at(at, data)?;
        self.sync()?;
        self.drop_cache(); // what is read next is what the medium holds
        Ok(())
    }

    fn length(&mut self) -> Option<u64> {
        Region::length(self)
    }
}

impl<D: Holds> Region for Pair<D> {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.at(offset).and_then(|(device, at)| device.read(at, out))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.at(offset).and_then(|(device, at)| device.write(at, data))
    }

    fn sync(&mut self) -> Result<(), Code> {
        Ok(())
    }

    fn drop_cache(&mut self) {}

    /// Of the first: the second counts for itself.
    fn length(&mut self) -> Option<u64> {
        self.first.length()
    }
}

impl EnvRegion {
    fn inner(&mut self) -> &mut dyn Region {
        match self {
            Self::Block(block) => block,
            Self::Flash(pair) => pair,
            Self::Ubi(pair) => pair,
            Self::Files(pair) => pair,
        }
    }
}

impl Region for EnvRegion {
    fn step(&mut self, row: Row) {
        faults::step(row);
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.inner().read_at(offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.inner().write_at(offset, data)
    }

    fn sync(&mut self) -> Result<(), Code> {
        self.inner().sync()
    }

    fn drop_cache(&mut self) {
        self.inner().drop_cache();
    }

    fn length(&mut self) -> Option<u64> {
        self.inner().length()
    }
}
