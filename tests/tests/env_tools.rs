//! The environment codec against Debian's `fw_printenv` and `fw_setenv`, in both directions, on one disk image: same
//! variables, same flags, same selected copy. (libubootenv uses the boolean scheme on NOR flash only, which a file is not.)

use boards::env::uboot::{Entries, HEADER, flags_of};
use runtime::{
    id::RevName,
    port::{BootEnv, BootVars, Region},
};
use std::{fs, path::Path, process::Command};
use tests::loader_disk::{LoaderDisk, run};

fn vars(committed: u32, candidate: Option<u32>, previous: Option<u32>) -> BootVars {
    let name = |number: u32| RevName::parse(&number.to_string()).unwrap();
    BootVars { committed: name(committed), candidate: candidate.map(name), previous: previous.map(name) }
}

/// What the tool shows, sorted: it prints in an order of its own.
fn printed(config: &Path) -> Vec<String> {
    let mut lines: Vec<_> = run(Command::new("fw_printenv").arg("-c").arg(config)).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Stores these lines at once with the tool.
fn set(config: &Path, lines: &str) {
    let script = config.with_file_name("script");
    fs::write(&script, lines).unwrap();
    run(Command::new("fw_setenv").arg("-c").arg(config).arg("-s").arg(script));
}

/// Both copies; which of them our rule selects; its flags; its entries, sorted.
fn selected(disk: &LoaderDisk) -> (usize, u8, Vec<String>) {
    let layout = disk.layout();
    let copies = [0, 1].map(|index| {
        let mut copy = vec![0; layout.size];
        disk.region().read_at(layout.offsets()[index], &mut copy).unwrap();
        copy
    });
    let flags = [flags_of(&copies[0]), flags_of(&copies[1])];
    let index = layout.select(flags).unwrap();
    let mut entries: Vec<_> =
        Entries::of(&copies[index][HEADER..]).map(|entry| String::from_utf8(entry.to_vec()).unwrap()).collect();
    entries.sort();
    (index, flags[index].unwrap(), entries)
}

#[test]
fn the_tools_and_the_codec_read_what_the_other_wrote() {
    let disk = LoaderDisk::new("tools", &[], "", &vars(0, None, None));
    let config = disk.fw_config();
    assert_eq!(printed(&config), selected(&disk).2, "a new image");

    // Past 255 and round: the flags meet every pair that a life of stores meets.
    for round in 1..=140u32 {
        let before = selected(&disk);
        let ours = vars(round, Some(round + 1), Some(round - 1));
        disk.env(|env| env.store(&ours)).unwrap();
        let after = selected(&disk);
        assert_eq!((after.0, after.1), (1 - before.0, before.1.wrapping_add(1)));
        assert_eq!(printed(&config), after.2, "round {round}: the tool reads our store");

        set(
            &config,
            &format!("pv_rev={}\npv_try=\nupgrade_available=0\nbootcount=0\nforeign=is kept {round}\n", round + 1),
        );
        let theirs = selected(&disk);
        assert_eq!(
            (theirs.0, theirs.1),
            (1 - after.0, after.1.wrapping_add(1)),
            "the tool writes the copy that we would"
        );
        assert_eq!(printed(&config), theirs.2, "round {round}: we read the tool's store");
        let loaded = disk.env(|env| env.load()).unwrap();
        assert_eq!(loaded.vars, vars(round + 1, None, Some(round - 1)));
        assert_eq!(loaded.named[3 * after.0], Some(ours.committed), "the other copy still names what we stored");
    }
    assert!(selected(&disk).2.contains(&"foreign=is kept 140".to_owned()));
}

#[test]
fn the_tools_and_the_codec_fall_back_to_the_same_copy() {
    for damaged in [0, 1] {
        let disk = LoaderDisk::new(&format!("damaged-{damaged}"), &[], "", &vars(0, None, None));
        let config = disk.fw_config();
        disk.env(|env| env.store(&vars(0, Some(1), None))).unwrap();
        disk.region().write_at(disk.layout().offsets()[damaged] + 100, &[0xff]).unwrap();
        assert_eq!(selected(&disk).0, 1 - damaged);
        assert_eq!(printed(&config), selected(&disk).2);
        set(&config, "pv_rev=5\n");
        assert_eq!(selected(&disk).0, damaged, "the damaged copy is the one to be written");
        assert_eq!(disk.env(|env| env.load()).unwrap().vars.committed, vars(5, None, None).committed);
    }
}

#[test]
fn a_store_on_a_real_file_is_one_write_and_one_sync() {
    let disk = LoaderDisk::new("count", &[], "", &vars(0, None, None));
    let (layout, mut work) = (disk.layout(), vec![0; 0x8000]);
    let mut env = boards::env::uboot::Uboot::new(disk.region(), layout, "", &mut work).unwrap();
    env.store(&vars(0, Some(1), None)).unwrap();
    let region = env.into_region();
    assert_eq!((region.writes, region.syncs), (1, 1));
}
