//! Where a board's description puts the copies.

use super::{uboot::Scheme, *};
use crate::Flash;

/// A region of which only the length matters.
struct Sized(Option<u64>);

impl Region for Sized {
    fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), Code> {
        Err(Code::StorageIo)
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), Code> {
        Err(Code::StorageIo)
    }
    fn sync(&mut self) -> Result<(), Code> {
        Err(Code::StorageIo)
    }
    fn drop_cache(&mut self) {}
    fn length(&mut self) -> Option<u64> {
        self.0
    }
}

const SIZE: u32 = 0x4000;

fn board(medium: Medium) -> Board {
    Board { env: Env::Uboot { medium, size: SIZE }, ..*crate::find("qemu-arm64").unwrap() }
}

fn offsets(medium: Medium, length: Option<u64>) -> Result<Copies<u64>, Code> {
    board(medium).layout(&mut Sized(length)).map(|layout| layout.copies)
}

#[test]
fn offsets_count_from_either_end_and_must_fit() {
    let end = 0x80_0000;
    let two = |first: i64, second: i64| Medium::Raw(Copies::Redundant([first, second], Scheme::Incremental));
    let at = |first, second| Ok(Copies::Redundant([first, second], Scheme::Incremental));
    assert_eq!(offsets(two(0x10_0000, 0x50_0000), Some(end)), at(0x10_0000, 0x50_0000));
    assert_eq!(offsets(two(0x10_0000, 0x50_0000), None), at(0x10_0000, 0x50_0000), "no need to know the end");
    assert_eq!(offsets(two(-0x4000, -0x8000), Some(end)), at(end - 0x4000, end - 0x8000));
    assert_eq!(offsets(two(0, -0x4000), None), Err(Code::EnvLayout), "the end is not known");
    assert_eq!(offsets(two(0, -0x3fff), Some(end)), Err(Code::EnvLayout), "past the end");
    assert_eq!(offsets(two(0, -0x80_0001), Some(end)), Err(Code::EnvLayout), "before the start");
    assert_eq!(offsets(two(0, end as i64 - 0x4000), Some(end)), at(0, end - 0x4000));
    assert_eq!(offsets(two(0, i64::MAX), Some(end)), Err(Code::EnvLayout));
    assert_eq!(offsets(Medium::Raw(Copies::Single(0)), Some(0x4000)), Ok(Copies::Single(0)));
    assert_eq!(offsets(Medium::Raw(Copies::Single(0)), Some(0x3fff)), Err(Code::EnvLayout), "a file of another size");
    // One copy over the other is no copy.
    assert_eq!(offsets(two(0x4000, 0x4000), Some(end)), Err(Code::EnvLayout));
    assert_eq!(offsets(two(0x4000, 0x7fff), Some(end)), Err(Code::EnvLayout));
}

#[test]
fn the_second_device_starts_where_no_first_one_reaches() {
    let flash = |offset| Flash { device: "/dev/mtd0", offset, erase: 0x1_0000 };
    let two = Copies::Redundant([flash(0x1_0000), flash(0x2_0000)], Scheme::Boolean);
    let expected = Copies::Redundant([0x1_0000, SECOND + 0x2_0000], Scheme::Boolean);
    assert_eq!(offsets(Medium::Mtd(two), None), Ok(expected));
    assert_eq!(offsets(Medium::Mtd(Copies::Single(flash(0xc_0000))), None), Ok(Copies::Single(0xc_0000)));
    let volumes = Copies::Redundant(["env", "env2"], Scheme::Incremental);
    let expected = Copies::Redundant([0, SECOND], Scheme::Incremental);
    assert_eq!(offsets(Medium::Ubi { device: "/dev/ubi0", volumes }, None), Ok(expected));
}

#[test]
fn what_a_board_says_of_its_medium_can_be() {
    for board in crate::BOARDS {
        let Env::Uboot { medium, size } = board.env else { continue };
        assert!((512..=runtime::limits::ENV_SIZE_MAX).contains(&(size as usize)), "{}", board.name);
        match medium {
            Medium::Mtd(flash) => {
                let blocks: Vec<_> = flash.as_slice().iter().map(|flash| (flash.device, flash.offset)).collect();
                assert!(flash.as_slice().iter().all(|flash| flash.offset.is_multiple_of(u64::from(flash.erase))));
                assert!(blocks.len() == 1 || blocks[0] != blocks[1], "{}", board.name);
            }
            // The one byte that the boolean scheme changes cannot be changed alone in a volume.
            Medium::Ubi { volumes, .. } => assert!(!matches!(volumes, Copies::Redundant(_, Scheme::Boolean))),
            Medium::Fat(_) | Medium::Raw(_) => {}
        }
        assert_eq!(board.env.work(), 2 * size as usize);
    }
}
