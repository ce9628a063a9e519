//! Where a board's description puts the copies, and what is opened there.

use super::{
    fat::tests::{Fat, SMALL},
    uboot::Scheme,
    *,
};
use crate::Flash;
use runtime::id::RevName;

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

/// Any kind of environment that a board opens is read, stored and rebuilt where its description says.
#[test]
fn what_a_board_opens_is_its_environment() {
    let [one, two] = ["1", "2"].map(|name| RevName::parse(name).unwrap());
    let settled = BootVars { committed: one, candidate: None, previous: None };
    let armed = BootVars { candidate: Some(two), ..settled };
    let raw = board(Medium::Raw(Copies::Redundant([0x8000, 0x3_0000], Scheme::Incremental)));
    let rpi = *crate::find("rpi").unwrap();
    let Env::Tryboot { partitions, .. } = rpi.env else { panic!("{:?}", rpi.env) };
    let mut fat = Fat::new(SMALL);
    fat.add(b"AUTOBOOTTXT", 10, tryboot::SIZE as u32);
    let mut disk = fat.image();
    // A file of which only the partitions are understood.
    let file = tryboot::initial(partitions, &settled).unwrap();
    let text = String::from_utf8(file.to_vec()).unwrap().replace("pv_rev=1", "pv_rev=?");
    let at = disk.len() - 5000 * 2048 + 8 * 2048;
    disk[at..at + text.len()].copy_from_slice(text.as_bytes());
    for (board, bytes) in [(raw, vec![0; 0x4_0000]), (rpi, disk)] {
        let mut region = medium::Medium::new(&bytes);
        let mut work = vec![0; board.env.work()];
        let mut env = board.open(&mut region, &mut work).unwrap();
        assert_eq!(env.load(), Err(Code::EnvInvalid), "{}", board.name);
        assert_eq!(env.rebuild(&settled), Ok(()), "{}", board.name);
        assert_eq!(env.load().unwrap().vars, settled);
        assert_eq!(env.store(&armed), Ok(()));
        assert_eq!(env.load().unwrap().vars, armed);
    }
}

#[test]
fn kinds_have_their_words_and_their_number_of_copies() {
    let flash = Flash { device: "/dev/mtd0", offset: 0, erase: 0x1_0000 };
    let volumes = |volumes| Medium::Ubi { device: "/dev/ubi0", volumes };
    let two = Scheme::Incremental;
    let media = [
        (Medium::Fat(Copies::Single("a")), "uboot in FAT files", 1),
        (Medium::Fat(Copies::Redundant(["a", "b"], two)), "uboot in FAT files", 2),
        (Medium::Raw(Copies::Single(0)), "uboot at offsets", 1),
        (Medium::Raw(Copies::Redundant([0, 1], two)), "uboot at offsets", 2),
        (Medium::Mtd(Copies::Single(flash)), "uboot in flash", 1),
        (Medium::Mtd(Copies::Redundant([flash; 2], two)), "uboot in flash", 2),
        (volumes(Copies::Single("a")), "uboot in UBI volumes", 1),
        (volumes(Copies::Redundant(["a", "b"], two)), "uboot in UBI volumes", 2),
    ];
    for (medium, word, copies) in media {
        let env = Env::Uboot { medium, size: SIZE };
        assert_eq!((env.kind(), env.copies(), env.work()), (word, copies, 2 * SIZE as usize));
        let slots = Env::UbootAb { slots: ["a", "b"], medium, size: SIZE };
        assert_eq!((slots.kind(), slots.copies(), slots.work()), ("uboot-ab", copies, 0));
    }
    for (env, word) in [
        (Env::UbootTxt { file: "uboot.txt", mark: "try" }, "uboot.txt"),
        (Env::Grub { file: "grubenv" }, "grub"),
        (Env::Tryboot { file: "autoboot.txt", partitions: [2, 3] }, "tryboot"),
    ] {
        assert_eq!((env.kind(), env.copies(), env.work()), (word, 1, 0));
    }
    assert_eq!(SECOND, 0x100_0000_0000, "no flash reaches it");
}

/// A text in a file, and the partition with the loader's mark.
struct Two {
    text: Vec<u8>,
    partition: Vec<u8>,
}

impl Two {
    fn at(&mut self, offset: u64, length: usize) -> Result<&mut [u8], Code> {
        let (bytes, at) =
            if offset < SECOND { (&mut self.text, offset) } else { (&mut self.partition, offset - SECOND) };
        bytes.get_mut(at as usize..).and_then(|rest| rest.get_mut(..length)).ok_or(Code::StorageIo)
    }
}

impl Region for &mut Two {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        out.copy_from_slice(self.at(offset, out.len())?);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.at(offset, data.len())?.copy_from_slice(data);
        Ok(())
    }
    fn sync(&mut self) -> Result<(), Code> {
        Ok(())
    }
    fn drop_cache(&mut self) {}
    fn length(&mut self) -> Option<u64> {
        Some(self.text.len() as u64)
    }
}

#[test]
fn the_mark_of_an_original_is_found_in_its_partition() {
    let [one, two] = ["1", "2"].map(|name| RevName::parse(name).unwrap());
    let armed = BootVars { committed: one, candidate: Some(two), previous: None };
    let mut text = uboot_txt::initial(&armed).unwrap().to_vec();
    text.resize(runtime::store::taken::TEXT_SIZE, 0);
    let env = Env::UbootTxt { file: "uboot.txt", mark: "pv.env" };
    let board = Board { env, ..*crate::find("qemu-arm64").unwrap() };
    let tried = |partition: Vec<u8>| {
        let mut region = Two { text: text.clone(), partition };
        let loaded = board.open(&mut region, &mut []).unwrap().load().unwrap();
        assert_eq!(loaded.vars, armed);
        loaded.bootcount
    };
    let mark = b"pv_trying=2\n\0";
    let mut fat = Fat::new(SMALL);
    assert_eq!(tried(fat.image()), 0, "no mark yet");
    fat.add(b"PV      ENV", 10, mark.len() as u32);
    let mut partition = fat.image();
    let at = partition.len() - 5000 * 2048 + 8 * 2048;
    partition[at..at + mark.len()].copy_from_slice(mark);
    assert_eq!(tried(partition), 1);
    assert_eq!(tried(vec![0; 4096]), 0, "no file system");
    // One that cannot be read may hold the mark of the next candidate's name.
    let mut region = Two { text: text.clone(), partition: vec![] };
    assert_eq!(board.open(&mut region, &mut []).err(), Some(Code::StorageIo));
}
