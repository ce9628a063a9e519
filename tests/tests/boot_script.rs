//! The boot script in the real U-Boot: which revision it starts, and what it says on the kernel command line.
//!
//! Stories first, as a person would tell them. Then what an owner may have stored, sense or nonsense. Then every combination
//! that the script distinguishes, against `runtime::boot::loader`, the model of the script that the simulator runs.

use boards::env::uboot;
use runtime::{
    boot::{Facts, LoaderVars, loader},
    id::RevName,
    port::{BootEnv, BootVars},
};
use std::fs;
use tests::loader_disk::{Kernel, LoaderDisk, loader as loader_of};

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: &str) -> BootVars {
    let candidate = if candidate.is_empty() { None } else { Some(rev(candidate)) };
    BootVars { committed: rev(committed), candidate, previous: None }
}

/// The words that the boot script puts behind the board's own arguments.
fn line(rev: &str, candidate: &str, bootcount: u32, canary: &str) -> String {
    let args = boards::find("qemu-arm64").unwrap().kernel_args;
    format!("{args} pv_rev={rev} pv_try={candidate} pv_bootcount={bootcount} pv_script=2 pv_canary={canary}")
}

#[test]
fn the_committed_revision_boots_and_nothing_is_written() {
    let disk = LoaderDisk::new(
        "committed",
        &[("0", Kernel::Off), ("locals/a.b-c", Kernel::Off)],
        "",
        &vars("locals/a.b-c", ""),
    );
    let before = fs::read(disk.image()).unwrap();
    assert_eq!(disk.boot().0, [line("locals/a.b-c", "", 0, "ok")]);
    assert_eq!(fs::read(disk.image()).unwrap(), before, "a boot without a trial writes nothing");
}

#[test]
fn a_candidate_is_counted_and_started() {
    let disk =
        LoaderDisk::new("candidate", &[("0", Kernel::Off), ("locals/new", Kernel::Off)], "", &vars("0", "locals/new"));
    let layout = disk.layout();
    assert_eq!(disk.boot().0, [line("locals/new", "locals/new", 1, "ok")]);
    assert_eq!(disk.layout(), layout, "the loader's save leaves the files where they are");
    let loaded = disk.env(|env| env.load()).unwrap();
    assert_eq!((loaded.vars, loaded.bootcount), (vars("0", "locals/new"), 1));

    // Committed by us on top of what U-Boot wrote, and read by U-Boot again.
    disk.env(|env| env.store(&BootVars { previous: Some(RevName::factory()), ..vars("locals/new", "") })).unwrap();
    assert_eq!(disk.boot().0, [line("locals/new", "", 0, "ok")]);
    assert_eq!(disk.env(|env| env.load()).unwrap().vars.previous, Some(RevName::factory()));
}

#[test]
fn a_candidate_that_resets_is_tried_three_times() {
    let disk = LoaderDisk::new("resets", &[("0", Kernel::Off), ("1", Kernel::Reset)], "", &vars("0", "1"));
    let (lines, console) = disk.boot();
    let tries = [1, 2, 3].map(|count| line("1", "1", count, "ok"));
    assert_eq!(lines[..3], tries);
    assert_eq!(lines[3..], [line("0", "1", 4, "ok")]);
    assert!(console.contains("Bootlimit (3) exceeded"), "{console}");
    assert_eq!(disk.env(|env| env.load()).unwrap().bootcount, 4);
}

#[test]
fn a_loader_that_cannot_count_does_not_try() {
    let disk = LoaderDisk::new("canary", &[("0", Kernel::Off), ("1", Kernel::Off)], "", &vars("0", "1"));
    for _ in 0..2 {
        let (lines, console) = disk.boot_read_only();
        assert_eq!(lines, [line("0", "1", 1, "bad")], "{console}");
    }
}

#[test]
fn a_rebuilt_environment_is_a_whole_one() {
    let revisions = [("0", Kernel::Off), ("locals/kept", Kernel::Off)];
    let disk = LoaderDisk::new("rebuilt", &revisions, "locals/kept", &vars("0", ""));
    disk.ruin_env();
    assert_eq!(disk.boot().0, [line("locals/kept", "", 0, "ok")]);
    disk.env(|env| env.rebuild(&vars("locals/kept", "0"))).unwrap();
    assert_eq!(disk.boot().0, [line("0", "0", 1, "ok")]);
}

#[test]
fn a_disk_without_any_revision_resets_for_ever() {
    let disk = LoaderDisk::new("empty", &[], "", &vars("0", ""));
    let console = disk.boot_until("PV 0 does not boot", 4);
    assert!(!console.contains("STUB") && console.matches("U-Boot 2023.01").count() == 2, "{console}");
}

/// The boards with a watchdog: in FAT on virtio, and at raw offsets of an SD card.
const LAB: [&str; 2] = ["qemu-arm64-lab", "qemu-arm64-sd"];

#[test]
fn a_candidate_that_hangs_before_linux_is_reset_by_the_watchdog() {
    for board in LAB {
        let disk = LoaderDisk::on(board, "hangs", &[("0", Kernel::Off), ("1", Kernel::Hang)], "", &vars("0", "1"));
        // Two stages of 2 s each.
        disk.set("pv_ticks", "800");
        let tries = [1, 2, 3].map(|count| line("1", "1", count, "ok"));
        let (lines, console) = disk.boot();
        assert_eq!(lines, [&tries[..], &[line("0", "1", 4, "ok")]].concat(), "{board}: {console}");
    }
}

#[test]
fn an_sd_card_keeps_the_environment_at_its_offsets() {
    let revisions = [("0", Kernel::Off), ("1", Kernel::Off), ("2", Kernel::Reset)];
    let disk = LoaderDisk::on("qemu-arm64-sd", "card", &revisions, "1", &vars("0", "1"));
    assert_eq!(disk.boot().0, [line("1", "1", 1, "ok")]);
    assert_eq!(disk.env(|env| env.load()).unwrap().bootcount, 1);
    // The emulated card reports no failed write: only reading back finds it.
    assert_eq!(disk.boot_read_only().0, [line("0", "1", 2, "bad")]);
    disk.env(|env| env.store(&vars("1", "2"))).unwrap();
    let lines = [1, 2, 3].map(|count| line("2", "2", count, "ok"));
    assert_eq!(disk.boot().0, [&lines[..], &[line("1", "2", 4, "ok")]].concat());
    // Without a stored environment: the compiled-in one, and what boot/last names.
    disk.ruin_env();
    assert_eq!(disk.boot().0, [line("1", "", 0, "ok")]);
}

#[test]
fn what_is_compiled_into_the_loader_is_the_boards_own_text() {
    for board in ["qemu-arm64", LAB[0], LAB[1]] {
        let binary = fs::read(loader_of(board)).unwrap();
        let mut copy = vec![0; 0x4000];
        uboot::initial(boards::find(board).unwrap().env_text, &vars("0", ""), Some(1), &mut copy).unwrap();
        let ours = ["pv_rev", "upgrade_available", "bootcount"].map(str::as_bytes);
        let entries = uboot::Entries::of(&copy[uboot::HEADER..]);
        let mut count = 0;
        for entry in entries.filter(|entry| !ours.contains(&uboot::split(entry).0)) {
            let stored = [entry, b"\0"].concat();
            let found = binary.windows(stored.len()).any(|window| window == stored);
            assert!(found, "{board} lacks {}", String::from_utf8_lossy(entry));
            count += 1;
        }
        assert!(count >= 20, "{board}: {count}");
    }
}

/// Text that no shell takes for a word, or takes for more than one.
const NONSENSE: [&str; 12] = ["a b", "\"", "'", ";", "x; reset", "$x", "${", "\\", "#", "&&", "x || y", "if then; fi"];

#[test]
fn nonsense_in_a_name_leads_to_the_next_revision() {
    let revisions = [("0", Kernel::Off), ("locals/last", Kernel::Off), ("1", Kernel::Off)];
    for nonsense in NONSENSE {
        let disk = LoaderDisk::new("candidate", &revisions, "locals/last", &vars("1", "0"));
        disk.set("pv_try", nonsense);
        let (lines, console) = disk.boot();
        assert!(lines.len() == 1 && lines[0].contains(" pv_rev=1 "), "pv_try={nonsense}: {lines:?}\n{console}");
        disk.set("pv_rev", nonsense);
        let (lines, console) = disk.boot();
        assert!(
            lines.len() == 1 && lines[0].contains(" pv_rev=locals/last "),
            "pv_rev={nonsense}: {lines:?}\n{console}"
        );
    }
}

#[test]
fn nonsense_in_a_counter_does_not_keep_a_candidate_alive() {
    for name in ["bootlimit", "bootcount", "upgrade_available"] {
        for nonsense in NONSENSE {
            let disk = LoaderDisk::new("counter", &[("0", Kernel::Off), ("1", Kernel::Reset)], "", &vars("0", "1"));
            disk.set(name, nonsense);
            let (lines, console) = disk.boot();
            let tries = if name == "upgrade_available" { 0 } else { 3 };
            let tried = lines.iter().filter(|line| line.contains(" pv_rev=1 ")).count();
            assert_eq!((tried, lines.len()), (tries, tries + 1), "{name}={nonsense}: {lines:?}\n{console}");
            assert!(lines[tries].contains(" pv_rev=0 "), "{name}={nonsense}: {lines:?}");
        }
    }
}

#[test]
fn a_counter_with_too_many_digits_is_no_counter() {
    for bootcount in ["99999999", "4294967295", "18446744073709551614", "99999999999999999999999999"] {
        let disk = LoaderDisk::new("digits", &[("0", Kernel::Off), ("1", Kernel::Off)], "", &vars("0", "1"));
        disk.set("bootcount", bootcount);
        let (lines, console) = disk.boot();
        assert!(lines.len() == 1 && lines[0].contains(" pv_rev=0 "), "{bootcount}: {lines:?}\n{console}");
        assert!(lines[0].ends_with(" pv_canary=bad"), "{bootcount}: {lines:?}");
    }
}

/// Power is cut while U-Boot saves its counter: whatever of its writes reached the disk, the environment is whole, says the
/// same, and stands where it stood. U-Boot does not flush, so every subset of its writes is possible, and each cut of one.
#[test]
fn the_loaders_save_may_be_cut_anywhere() {
    let wanted = vars("0", "1");
    let disk = LoaderDisk::new("save", &[("0", Kernel::Off), ("1", Kernel::Off)], "", &wanted);
    let (before, layout) = (fs::read(disk.image()).unwrap(), disk.layout());
    let writes = disk.boot_recorded();
    let after = fs::read(disk.image()).unwrap();
    let check = |image: Vec<u8>, what: &dyn std::fmt::Debug| {
        fs::write(disk.image(), image).unwrap();
        assert_eq!(disk.layout(), layout, "{what:?}");
        let loaded = disk.env(|env| env.load()).unwrap_or_else(|code| panic!("{code}: {what:?}"));
        assert_eq!(loaded.vars, wanted, "{what:?}");
        loaded.bootcount
    };
    let apply = |image: &mut Vec<u8>, (offset, data): &(u64, Vec<u8>), length: usize| {
        image[*offset as usize..][..length].copy_from_slice(&data[..length]);
    };

    assert!((1..=10).contains(&writes.len()), "{}", writes.len());
    let mut replayed = before.clone();
    writes.iter().for_each(|write| apply(&mut replayed, write, write.1.len()));
    assert!(replayed == after, "the record is not complete");
    let mut counts = [0; 2];
    for subset in 0..1u32 << writes.len() {
        let mut image = before.clone();
        for (_, write) in writes.iter().enumerate().filter(|(index, _)| subset & 1 << index != 0) {
            apply(&mut image, write, write.1.len());
        }
        counts[check(image, &subset) as usize] += 1;
    }
    for (index, write) in writes.iter().enumerate() {
        for sectors in 1..write.1.len() / 512 {
            let mut image = before.clone();
            writes[..index].iter().for_each(|write| apply(&mut image, write, write.1.len()));
            apply(&mut image, write, sectors * 512);
            counts[check(image, &(index, sectors)) as usize] += 1;
        }
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    eprintln!("{} writes, {counts:?} states before and after the count", writes.len());
}

/// The counter as U-Boot takes it for a number: the digits that it starts with.
fn number(text: &str) -> u32 {
    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// One combination of what the script distinguishes.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Whether the environment has a valid copy.
    env: bool,
    /// The candidate's kernel, if there is a candidate; the inner `None`: its files are missing.
    candidate: Option<Option<Kernel>>,
    /// Whether the committed revision's files are there.
    committed: bool,
    /// What `boot/last` names.
    last: &'static str,
    /// `bootcount` before the first boot.
    bootcount: &'static str,
    /// `bootlimit`; empty: there is none.
    bootlimit: &'static str,
    /// `upgrade_available`, if there is a candidate.
    available: &'static str,
    /// Whether the loader can write.
    saves: bool,
}

impl Case {
    const PLAIN: Case = Case {
        env: true,
        candidate: None,
        committed: true,
        last: "",
        bootcount: "0",
        bootlimit: "3",
        available: "1",
        saves: true,
    };

    fn all() -> Vec<Case> {
        let candidates = [Some(Kernel::Off), Some(Kernel::Reset), Some(Kernel::Junk), None];
        let lasts = ["", "locals/last", "locals/gone"];
        let mut cases = Vec::new();
        for last in lasts {
            cases.push(Case { last, env: false, ..Case::PLAIN });
            cases.push(Case { last, ..Case::PLAIN });
            cases.push(Case { last, committed: false, ..Case::PLAIN });
            cases.push(Case { last, committed: false, candidate: Some(None), ..Case::PLAIN });
        }
        for candidate in candidates.map(Some) {
            for (bootcount, saves) in [("0", true), ("2", true), ("3", true), ("9", true), ("0", false), ("3", false)] {
                cases.push(Case { candidate, bootcount, saves, ..Case::PLAIN });
            }
        }
        // What an owner may have stored, in numbers that make sense and others.
        let candidate = Some(Some(Kernel::Reset));
        for bootlimit in ["", "0", "1", "5", "15", "16", "4294967295", "-1", "no", "2 tries"] {
            cases.push(Case { candidate, bootlimit, ..Case::PLAIN });
        }
        for bootcount in ["", "-1", "no", "1 try", "99999998"] {
            cases.push(Case { candidate, bootcount, ..Case::PLAIN });
            cases.push(Case { candidate, bootcount, bootlimit: "0", ..Case::PLAIN });
        }
        for available in ["", "0", "2", "01", "yes", "1 time"] {
            cases.push(Case { candidate, available, ..Case::PLAIN });
        }
        cases
    }

    fn vars(&self) -> BootVars {
        vars("locals/committed", if self.candidate.is_some() { "locals/candidate" } else { "" })
    }

    /// What is in force: no candidate unless one is available.
    fn loader_vars(&self) -> LoaderVars {
        let mut vars = self.vars();
        vars.candidate = vars.candidate.filter(|_| self.available == "1");
        // The script compares the limit as text: what is more than a number is none.
        let bootlimit = self.bootlimit.parse().unwrap_or(0);
        LoaderVars { vars, bootcount: number(self.bootcount), bootlimit }
    }

    fn revisions(&self) -> Vec<(&'static str, Kernel)> {
        let mut revisions = vec![("0", Kernel::Off), ("locals/last", Kernel::Off)];
        revisions.extend(self.committed.then_some(("locals/committed", Kernel::Off)));
        revisions.extend(self.candidate.flatten().map(|kernel| ("locals/candidate", kernel)));
        revisions
    }

    /// The command lines of all boots until a kernel powers off, by the model.
    fn model(&self) -> Vec<String> {
        let kernels = self.revisions();
        let kernel =
            |name: &RevName| kernels.iter().find(|(known, _)| *known == name.as_str()).map(|(_, kernel)| *kernel);
        let mut env = self.env.then(|| self.loader_vars());
        let last = RevName::parse(self.last).ok();
        let mut lines = Vec::new();
        loop {
            let mut counted = None;
            let count = |value| {
                counted = self.saves.then_some(value);
                self.saves
            };
            let loads = |name: &RevName| kernel(name).is_some_and(|kernel| kernel != Kernel::Junk);
            let Facts { booted, bootcount, canary, .. } = loader(env, count, loads, last).unwrap();
            if let (Some(env), Some(value)) = (&mut env, counted) {
                env.bootcount = value;
            }
            let candidate = env.and_then(|env| env.vars.candidate).map_or(String::new(), |name| name.to_string());
            lines.push(line(booted.unwrap().as_str(), &candidate, bootcount, if canary { "ok" } else { "bad" }));
            if kernel(&booted.unwrap()) == Some(Kernel::Off) {
                return lines;
            }
        }
    }

    /// The same by U-Boot.
    fn real(&self, number: usize) -> Vec<String> {
        let disk = LoaderDisk::new(&format!("case-{number}"), &self.revisions(), self.last, &self.vars());
        let Case { bootcount, bootlimit, available, .. } = Case::PLAIN;
        let stored = [("bootcount", self.bootcount, bootcount), ("bootlimit", self.bootlimit, bootlimit)];
        let stored = stored.into_iter().chain([("upgrade_available", self.available, available)]);
        stored.filter(|(_, value, plain)| value != plain).for_each(|(name, value, _)| disk.set(name, value));
        if !self.env {
            disk.ruin_env();
        }
        let (lines, _) = if self.saves { disk.boot() } else { disk.boot_read_only() };
        lines
    }
}

#[test]
fn the_script_does_what_its_model_says() {
    let cases = Case::all();
    assert_eq!(cases.len(), 62);
    for (number, case) in cases.into_iter().enumerate() {
        assert_eq!(case.real(number), case.model(), "left U-Boot, right the model: {case:?}");
    }
}
