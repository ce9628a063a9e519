//! The environment on flash with the kernel's own MTD and UBI, in a guest: `platform/examples/flash.rs` is its PID 1, two
//! disks are its chips (block2mtd). What was stored at offsets is then read here, by our codec and by `fw_printenv`.
//!
//! The chips are emulated: they erase and program like a disk. What real flash does when power fails is enumerated over a
//! fake chip, in `platform`.

use boards::env::uboot::{Copies, Layout, Scheme, Uboot};
use runtime::port::BootEnv;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::loader_disk::{FileRegion, root, run};

const TARGET: &str = "aarch64-unknown-linux-musl";
/// Size of an erase block.
const BLOCK: usize = 0x1_0000;
const SIZE: usize = 0x4000;
/// Longest that the guest may take; it needs about a second.
const PATIENCE: &str = "120";

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn flash_and_volumes_hold_the_environment() {
    let folder = Folder(std::env::temp_dir().join(format!("switchback-flash-{}", std::process::id())));
    let _ = fs::remove_dir_all(&folder.0);
    fs::create_dir_all(&folder.0).unwrap();
    let (ubi, nor) = (folder.0.join("ubi"), folder.0.join("nor"));
    File::create(&ubi).unwrap().write_all_at(&ubi_image(&["env", "env2"], 32), 0).unwrap();
    let mut erased = vec![0xff; 8 * BLOCK];
    for block in 0..5 {
        erased[block * BLOCK + SIZE..][..4].copy_from_slice(b"else");
    }
    fs::write(&nor, erased).unwrap();

    let console = guest(&folder.0, &[&ubi, &nor]);
    let lines: Vec<_> = console.lines().filter_map(|line| line.split_once("FLASH ").map(|(_, said)| said)).collect();
    let said: Vec<String> = ["incremental", "boolean", "single", "odd", "ubi", "end"]
        .into_iter()
        .flat_map(|name| match name {
            "odd" => vec!["odd: SB1415".into()],
            "end" => vec!["end".into()],
            name => stores(name),
        })
        .collect();
    assert_eq!(lines, said, "{console}");

    for block in 0..5 {
        let mut rest = [0; 4];
        File::open(&nor).unwrap().read_exact_at(&mut rest, (block * BLOCK + SIZE) as u64).unwrap();
        assert_eq!(&rest, b"else", "what shares block {block} with a copy");
    }
    let block = |index: usize| (index * BLOCK) as u64;
    let incremental = Copies::Redundant([block(0), block(1)], Scheme::Incremental);
    for (copies, tool_knows) in [
        (incremental, true),
        (Copies::Redundant([block(2), block(3)], Scheme::Boolean), false),
        (Copies::Single(block(4)), true),
    ] {
        let mut work = vec![0; 2 * SIZE];
        let layout = Layout { copies, size: SIZE };
        let loaded = Uboot::new(FileRegion::open(&nor, 0), layout, "", &mut work).unwrap().load().unwrap();
        assert_eq!((loaded.vars.committed.as_str(), loaded.vars.candidate), ("1", None));
        if tool_knows {
            let config = folder.0.join("config");
            let line = |offset: &u64| format!("{} {offset:#x} {SIZE:#x}\n", nor.display());
            fs::write(&config, layout.offsets().iter().map(line).collect::<String>()).unwrap();
            let printed = run(Command::new("fw_printenv").arg("-c").arg(&config));
            assert!(printed.contains("pv_rev=1\n") && printed.contains("bootlimit=3\n"), "{printed}");
        }
    }
}

/// What the guest says of its stores to one environment.
fn stores(name: &str) -> Vec<String> {
    let mut said = vec![
        format!("{name} erased: SB1408"),
        format!("{name} rebuild: done"),
        format!("{name} rebuilt: 0 - copy 1 damaged true"),
        format!("{name} arm: done"),
        format!("{name} armed: 0 1 copy 2 damaged false"),
        format!("{name} commit: done"),
        format!("{name} committed: 1 - copy 1 damaged false"),
    ];
    match name {
        "single" => {
            said[2] = "single rebuilt: 0 - copy 1 damaged false".into();
            said[4] = "single armed: 0 1 copy 1 damaged false".into();
        }
        "ubi" => said.extend([
            "ubi cut: Ok(())".into(),
            "ubi after the cut: 1 - copy 1 damaged true".into(),
            "ubi store: done".into(),
            "ubi stored: 1 2 copy 2 damaged false".into(),
            "missing: SB1415".into(),
        ]),
        _ => {}
    }
    said
}

/// Boots the kernel of `ci/kernel lab` with the example as init; its console.
fn guest(folder: &Path, chips: &[&Path; 2]) -> String {
    let kernel = run(Command::new(root().join("ci/kernel")).arg("lab"));
    let kernel = Path::new(kernel.lines().last().unwrap()).join("Image");
    let target = folder.join("target");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "platform", "--example", "flash", "--target", TARGET]).current_dir(root());
    run(&mut build);
    fs::create_dir(&target).unwrap();
    let built = root().join("target").join(TARGET).join("debug/examples/flash");
    fs::copy(built, target.join("init")).unwrap();
    let pack = format!("cd {} && echo init | cpio --quiet -o -H newc > ../initrd", target.display());
    run(Command::new("sh").args(["-c", &pack]));

    let machine = "-M virt -cpu cortex-a53 -m 128 -display none -monitor none -serial stdio -nic none -no-reboot";
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "qemu-system-aarch64"]).args(machine.split(' '));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(folder.join("initrd"));
    command.args(["-append", "console=ttyAMA0 panic=-1 block2mtd.block2mtd=/dev/vda,65536 ubi.mtd=0"]);
    // The machine counts its virtio devices downwards.
    for (index, chip) in chips.iter().enumerate().rev() {
        command.args(["-drive", &format!("if=none,id=c{index},format=raw,file={}", chip.display())]);
        command.args(["-device", &format!("virtio-blk-device,drive=c{index}")]);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success(), "{}\n{console}{}", output.status, String::from_utf8_lossy(&output.stderr));
    console
}

/// A UBI device with empty dynamic volumes of one block each: headers of the kernel's `ubi-media.h`.
fn ubi_image(volumes: &[&str], blocks: usize) -> Vec<u8> {
    const HEADER: usize = 64;
    const LAYOUT_VOLUME: u32 = 0x7fff_efff;
    const RECORD: usize = 172;
    const RECORDS: usize = 128;
    let mut image = vec![0xff; blocks * BLOCK];
    let mut table = vec![0; RECORD * RECORDS];
    for (index, record) in table.chunks_mut(RECORD).enumerate() {
        if let Some(name) = volumes.get(index) {
            record[..4].copy_from_slice(&1u32.to_be_bytes()); // blocks
            record[4..8].copy_from_slice(&1u32.to_be_bytes()); // alignment
            record[12] = 1; // dynamic
            record[14..16].copy_from_slice(&(name.len() as u16).to_be_bytes());
            record[16..16 + name.len()].copy_from_slice(name.as_bytes());
        }
        seal(record);
    }
    for block in 0..blocks {
        let block_bytes = &mut image[block * BLOCK..][..BLOCK];
        let mut erase = [0; HEADER];
        erase[..4].copy_from_slice(b"UBI#");
        erase[4] = 1;
        erase[16..20].copy_from_slice(&(HEADER as u32).to_be_bytes());
        erase[20..24].copy_from_slice(&(2 * HEADER as u32).to_be_bytes());
        seal(&mut erase);
        block_bytes[..HEADER].copy_from_slice(&erase);
        // The volume table, twice.
        if block < 2 {
            let mut header = [0; HEADER];
            header[..4].copy_from_slice(b"UBI!");
            header[4..8].copy_from_slice(&[1, 1, 0, 5]); // version, dynamic, no copy, "reject if unknown"
            header[8..12].copy_from_slice(&LAYOUT_VOLUME.to_be_bytes());
            header[12..16].copy_from_slice(&(block as u32).to_be_bytes());
            header[40..48].copy_from_slice(&(block as u64).to_be_bytes());
            seal(&mut header);
            block_bytes[HEADER..2 * HEADER].copy_from_slice(&header);
            block_bytes[2 * HEADER..][..table.len()].copy_from_slice(&table);
        }
    }
    image
}

/// UBI's checksum, in the last four bytes.
fn seal(record: &mut [u8]) {
    let (data, crc) = record.split_at_mut(record.len() - 4);
    crc.copy_from_slice(&(!crc32fast::hash(data)).to_be_bytes());
}
