//! The environment codec against Debian's `fw_printenv` and `fw_setenv`, in both directions, on one image: same variables,
//! same flags, same selected copy; in files of a FAT partition and at raw offsets, two copies and one.
//! (libubootenv uses the boolean scheme on NOR flash only, which a file is not.)

use boards::env::uboot::{Copies, Entries, Layout, Scheme, Uboot, initial};
use runtime::{
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars, Region},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};
use tests::loader_disk::{FileRegion, LoaderDisk, run};

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

/// Which copy our rule selects; its flags; its entries, sorted.
fn selected(mut region: FileRegion, layout: Layout) -> (usize, u8, Vec<String>) {
    let mut flags = [None; 2];
    let mut copies = vec![];
    for (offset, flags) in layout.offsets().iter().zip(&mut flags) {
        let mut copy = vec![0; layout.size];
        region.read_at(*offset, &mut copy).unwrap();
        *flags = layout.flags(&copy);
        copies.push(copy);
    }
    let index = layout.select(flags).unwrap();
    let entries = Entries::of(&copies[index][layout.header()..]);
    let mut entries: Vec<_> = entries.map(|entry| String::from_utf8(entry.to_vec()).unwrap()).collect();
    entries.sort();
    (index, flags[index].unwrap(), entries)
}

#[test]
fn the_tools_and_the_codec_read_what_the_other_wrote() {
    let disk = LoaderDisk::new("tools", &[], "", &vars(0, None, None));
    let config = disk.fw_config();
    assert_eq!(printed(&config), selected(disk.region(), disk.layout()).2, "a new image");

    // Past 255 and round: the flags meet every pair that a life of stores meets.
    for round in 1..=140u32 {
        let before = selected(disk.region(), disk.layout());
        let ours = vars(round, Some(round + 1), Some(round - 1));
        disk.env(|env| env.store(&ours)).unwrap();
        let after = selected(disk.region(), disk.layout());
        assert_eq!((after.0, after.1), (1 - before.0, before.1.wrapping_add(1)));
        assert_eq!(printed(&config), after.2, "round {round}: the tool reads our store");

        set(
            &config,
            &format!("pv_rev={}\npv_try=\nupgrade_available=0\nbootcount=0\nforeign=is kept {round}\n", round + 1),
        );
        let theirs = selected(disk.region(), disk.layout());
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
    assert!(selected(disk.region(), disk.layout()).2.contains(&"foreign=is kept 140".to_owned()));
}

#[test]
fn the_tools_and_the_codec_fall_back_to_the_same_copy() {
    for damaged in [0, 1] {
        let disk = LoaderDisk::new(&format!("damaged-{damaged}"), &[], "", &vars(0, None, None));
        let config = disk.fw_config();
        disk.env(|env| env.store(&vars(0, Some(1), None))).unwrap();
        disk.region().write_at(disk.layout().offsets()[damaged] + 100, &[0xff]).unwrap();
        assert_eq!(selected(disk.region(), disk.layout()).0, 1 - damaged);
        assert_eq!(printed(&config), selected(disk.region(), disk.layout()).2);
        set(&config, "pv_rev=5\n");
        assert_eq!(selected(disk.region(), disk.layout()).0, damaged, "the damaged copy is the one to be written");
        assert_eq!(disk.env(|env| env.load()).unwrap().vars.committed, vars(5, None, None).committed);
    }
}

#[test]
fn a_store_on_a_real_file_is_one_write_and_one_sync() {
    let disk = LoaderDisk::new("count", &[], "", &vars(0, None, None));
    let (layout, mut work) = (disk.layout(), vec![0; 0x8000]);
    let mut env = Uboot::new(disk.region(), layout, "", &mut work).unwrap();
    env.store(&vars(0, Some(1), None)).unwrap();
    let region = env.into_region();
    assert_eq!((region.writes, region.syncs), (1, 1));
}

/// An image with nothing but an environment at raw offsets, and what is written between the copies.
struct Raw {
    folder: PathBuf,
    layout: Layout,
}

const SIZE: usize = 0x2000;
const BETWEEN: [u8; 16] = *b"not ours at all.";

impl Raw {
    fn new(name: &str, copies: Copies<u64>) -> Self {
        let folder = std::env::temp_dir().join(format!("switchback-raw-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let raw = Self { folder, layout: Layout { copies, size: SIZE } };
        File::create(raw.image()).unwrap().set_len(1 << 20).unwrap();
        for (offset, flags) in raw.layout.offsets().iter().zip(copies.fresh_flags()) {
            let mut copy = vec![0; SIZE];
            initial("bootlimit=3\nboot=run a; run b\n", &vars(0, None, None), flags, &mut copy).unwrap();
            raw.region().write_at(*offset, &copy).unwrap();
            raw.region().write_at(*offset - 16, &BETWEEN).unwrap();
            raw.region().write_at(*offset + SIZE as u64, &BETWEEN).unwrap();
        }
        raw
    }

    fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    fn region(&self) -> FileRegion {
        FileRegion::open(&self.image(), 0)
    }

    fn config(&self) -> PathBuf {
        let line = |offset: &u64| format!("{} {offset:#x} {SIZE:#x}\n", self.image().display());
        let path = self.folder.join("fw_env.config");
        fs::write(&path, self.layout.offsets().iter().map(line).collect::<String>()).unwrap();
        path
    }

    fn env<T>(&self, each: impl FnOnce(&mut Uboot<'_, FileRegion>) -> T) -> T {
        let mut work = vec![0; 2 * SIZE];
        each(&mut Uboot::new(self.region(), self.layout, "bootlimit=3\n", &mut work).unwrap())
    }

    fn check_between(&self) {
        for offset in self.layout.offsets() {
            for at in [offset - 16, offset + SIZE as u64] {
                let mut found = [0; 16];
                self.region().read_at(at, &mut found).unwrap();
                assert_eq!(found, BETWEEN, "at {at:#x}");
            }
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn at_raw_offsets_the_tools_and_the_codec_read_what_the_other_wrote() {
    let two = Copies::Redundant([0x1_0000, 0x5_0000], Scheme::Incremental);
    for (name, copies) in [("two", two), ("one", Copies::Single(0x400))] {
        let raw = Raw::new(name, copies);
        let config = raw.config();
        let look = || selected(raw.region(), raw.layout);
        assert_eq!(printed(&config), look().2, "{name}: new");
        let other = |index: usize| if name == "two" { 1 - index } else { 0 };
        let next = |flags: u8| if name == "two" { flags.wrapping_add(1) } else { 0 };
        for round in 1..=140u32 {
            let before = look();
            raw.env(|env| env.store(&vars(round, Some(round + 1), Some(round - 1)))).unwrap();
            let after = look();
            assert_eq!((after.0, after.1), (other(before.0), next(before.1)), "{name} {round}");
            assert_eq!(printed(&config), after.2, "{name} {round}: the tool reads our store");
            set(&config, &format!("pv_try=\nupgrade_available=0\nforeign=is kept {round}\n"));
            let theirs = look();
            assert_eq!((theirs.0, theirs.1), (other(after.0), next(after.1)), "{name} {round}");
            assert_eq!(printed(&config), theirs.2, "{name} {round}: we read the tool's store");
            let loaded = raw.env(|env| env.load()).unwrap();
            assert_eq!(loaded.vars, vars(round, None, Some(round - 1)));
            assert_eq!((usize::from(loaded.active) - 1, loaded.damaged), (theirs.0, false));
        }
        assert!(look().2.contains(&"foreign=is kept 140".to_owned()) && look().2.contains(&"boot=run a; run b".into()));
        raw.check_between();
    }
}

/// Neither finds anything in a damaged single copy; we say so by code and make it new, and the tool reads that.
#[test]
fn a_damaged_single_copy_is_damaged_to_both_and_rebuilt() {
    let raw = Raw::new("rebuilt", Copies::Single(0x400));
    let config = raw.config();
    raw.region().write_at(0x400 + 100, &[0xff]).unwrap();
    let tool = Command::new("fw_printenv").arg("-c").arg(&config).arg("pv_rev").output().unwrap();
    assert!(!String::from_utf8_lossy(&tool.stdout).contains("pv_rev=0"), "{tool:?}");
    assert_eq!(raw.env(|env| env.load()), Err(Code::EnvInvalid));
    raw.env(|env| env.rebuild(&vars(4, None, Some(3)))).unwrap();
    assert_eq!(printed(&config), selected(raw.region(), raw.layout).2);
    assert!(printed(&config).contains(&"pv_rev=4".to_owned()));
    raw.check_between();
}

/// A full environment is refused by its code, by us before anything is written.
#[test]
fn a_full_environment_is_refused_and_stays_as_it_is() {
    let raw = Raw::new("full", Copies::Redundant([0x1_0000, 0x5_0000], Scheme::Incremental));
    let config = raw.config();
    let used = |entries: &[String]| raw.layout.header() + entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
    for index in 0.. {
        // Name, `=` and the end take 8 bytes. Less than 16 are left in the end.
        let left = SIZE - used(&selected(raw.region(), raw.layout).2);
        let Some(length) = left.checked_sub(8 + 8).filter(|length| *length > 0) else { break };
        set(&config, &format!("fill{index:02}={}\n", "x".repeat(length.min(400))));
    }
    let before = selected(raw.region(), raw.layout);
    assert_eq!(raw.env(|env| env.store(&vars(1_000_000, Some(1_000_001), Some(999_999)))), Err(Code::EnvFull));
    assert_eq!(selected(raw.region(), raw.layout), before);
    raw.env(|env| env.store(&vars(1, None, None))).unwrap();
}
