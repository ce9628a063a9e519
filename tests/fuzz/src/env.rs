//! The loader's environment: two copies as any bytes, and the FAT partition that they may lie in.
//!
//! The first byte says what the rest is: bit 0 the boolean scheme, bits 1 and 2 "give this copy a right checksum"
//! (random bytes never have one), bit 3 a FAT partition instead of two copies; bits 4 and 5 one of the kinds of one
//! sector. Beyond "no panic": what was stored is what is then loaded, a refused store changes nothing, and of one
//! sector, what could be armed can be committed.
#![no_main]

use boards::env::{
    fat,
    grub::Grub,
    tryboot::Tryboot,
    uboot::{Copies, HEADER, Layout, Scheme, Uboot},
    uboot_txt::{Span, UbootTxt},
};
use libfuzzer_sys::fuzz_target;
use runtime::{
    boot,
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars, Region},
};

/// Size of a copy.
const SIZE: usize = 1024;
/// Size of the medium; zeros behind the input.
const MEDIUM: usize = 64 * 1024;

struct Medium(Vec<u8>);

impl Medium {
    fn part(&mut self, offset: u64, length: usize) -> Result<&mut [u8], Code> {
        let from = usize::try_from(offset).map_err(|_| Code::StorageIo)?;
        let to = from.checked_add(length).ok_or(Code::StorageIo)?;
        self.0.get_mut(from..to).ok_or(Code::StorageIo)
    }
}

impl Region for &mut Medium {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        out.copy_from_slice(self.part(offset, out.len())?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.part(offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Code> {
        Ok(())
    }

    fn drop_cache(&mut self) {}
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else { return };
    let mut medium = Medium(bytes.to_vec());
    medium.0.resize(MEDIUM, 0);
    if mode & 8 != 0 {
        let files = Copies::Redundant(["uboot.env", "uboot-redund.env"], Scheme::Incremental);
        if let Ok(offsets) = fat::locate(&mut &mut medium, files, SIZE as u32) {
            assert_ne!(offsets.as_slice()[0], offsets.as_slice()[1]);
        }
        return;
    }
    match mode >> 4 & 3 {
        0 => {}
        1 => return one_sector(Grub::new(&mut medium, 0)),
        2 => return one_sector(Tryboot::new(&mut medium, 0, [2, 3], None)),
        _ => {
            let (text, mark) = (Span { at: 0, length: 2048 }, Span { at: 2048, length: 512 });
            return one_sector(UbootTxt::new(&mut medium, text, Some(mark)));
        }
    }
    for (index, copy) in medium.0.chunks_mut(SIZE).take(2).enumerate() {
        if mode & (2 << index) != 0 {
            let crc = crc32(&copy[HEADER..]);
            copy[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let scheme = if mode & 1 != 0 { Scheme::Boolean } else { Scheme::Incremental };
    let layout = Layout { copies: Copies::Redundant([0, SIZE as u64], scheme), size: SIZE };
    let mut work = vec![0; 2 * SIZE];
    let mut env = Uboot::new(&mut medium, layout, "bootcmd=x\n", &mut work).expect("the layout fits");
    let Ok(before) = env.load() else { return };
    let vars = BootVars {
        committed: RevName::parse("locals/fuzz").expect("a valid name"),
        candidate: before.vars.previous,
        previous: Some(before.vars.committed),
    };
    let expected = if env.store(&vars).is_ok() { vars } else { before.vars };
    assert_eq!(env.load().expect("one copy stays valid").vars, expected);
});

/// Arms a candidate and commits it, if the environment is one.
fn one_sector(env: Result<impl BootEnv, Code>) {
    let mut env = env.expect("the place fits");
    let Ok(before) = env.load() else { return };
    let candidate = RevName::parse("locals/fuzz").expect("a valid name");
    let armed = boot::arm(before.vars, candidate);
    let stored = env.store(&armed);
    assert_eq!(env.load().expect("it stays valid").vars, if stored.is_ok() { armed } else { before.vars });
    if stored.is_ok() {
        let committed = boot::commit(armed, candidate);
        env.store(&committed).expect("what could be armed can be committed");
        assert_eq!(env.load().expect("it stays valid").vars, committed);
    }
}

/// CRC-32 as in zip, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}
