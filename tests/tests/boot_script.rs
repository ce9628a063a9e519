//! The boot script in the real U-Boot: which revision it starts, and what it says on the kernel command line.
//!
//! These runs pin what `runtime::boot`'s model of the loader claims: a trial, a candidate that resets, one that does not
//! load, a counter that cannot be saved, and an environment that is lost.

use runtime::{
    id::RevName,
    port::{BootEnv, BootVars},
};
use tests::loader_disk::{Kernel, LoaderDisk};

fn vars(committed: &str, candidate: &str) -> BootVars {
    let name = |name| RevName::parse(name).unwrap();
    let candidate = if candidate.is_empty() { None } else { Some(name(candidate)) };
    BootVars { committed: name(committed), candidate, previous: None }
}

/// The words that the boot script puts behind the board's own arguments.
fn line(rev: &str, candidate: &str, bootcount: &str, canary: &str) -> String {
    let args = boards::find("qemu-arm64").unwrap().kernel_args;
    format!("{args} pv_rev={rev} pv_try={candidate} pv_bootcount={bootcount} pv_script=1 pv_canary={canary}")
}

#[test]
fn the_committed_revision_boots_and_nothing_is_written() {
    let disk = LoaderDisk::new(
        "committed",
        &[("0", Kernel::Off), ("locals/a.b-c", Kernel::Off)],
        "",
        &vars("locals/a.b-c", ""),
    );
    let before = std::fs::read(disk.image()).unwrap();
    assert_eq!(disk.boot().0, [line("locals/a.b-c", "", "0", "ok")]);
    assert_eq!(std::fs::read(disk.image()).unwrap(), before, "a boot without a trial writes nothing");
}

#[test]
fn a_candidate_is_counted_and_started() {
    let disk =
        LoaderDisk::new("candidate", &[("0", Kernel::Off), ("locals/new", Kernel::Off)], "", &vars("0", "locals/new"));
    let layout = disk.layout();
    assert_eq!(disk.boot().0, [line("locals/new", "locals/new", "1", "ok")]);
    assert_eq!(disk.layout(), layout, "the loader's save leaves the files where they are");
    let loaded = disk.env(|env| env.load()).unwrap();
    assert_eq!((loaded.vars, loaded.bootcount), (vars("0", "locals/new"), 1));

    // Committed by us on top of what U-Boot wrote, and read by U-Boot again.
    disk.env(|env| env.store(&BootVars { previous: Some(RevName::factory()), ..vars("locals/new", "") })).unwrap();
    assert_eq!(disk.boot().0, [line("locals/new", "", "0", "ok")]);
    assert_eq!(disk.env(|env| env.load()).unwrap().vars.previous, Some(RevName::factory()));
}

#[test]
fn a_candidate_that_resets_is_tried_three_times() {
    let disk = LoaderDisk::new("resets", &[("0", Kernel::Off), ("1", Kernel::Reset)], "", &vars("0", "1"));
    let (lines, console) = disk.boot();
    let tries = ["1", "2", "3"].map(|count| line("1", "1", count, "ok"));
    assert_eq!(lines[..3], tries);
    assert_eq!(lines[3..], [line("0", "1", "4", "ok")]);
    assert!(console.contains("Bootlimit (3) exceeded"), "{console}");
    assert_eq!(disk.env(|env| env.load()).unwrap().bootcount, 4);
}

#[test]
fn a_candidate_that_does_not_load_falls_back_at_once() {
    let disk = LoaderDisk::new("missing", &[("0", Kernel::Off), ("2", Kernel::Junk)], "", &vars("0", "1"));
    assert_eq!(disk.boot().0, [line("0", "1", "1", "ok")], "no such revision");
    disk.env(|env| env.store(&vars("0", "2"))).unwrap();
    assert_eq!(disk.boot().0, [line("0", "2", "1", "ok")], "not a kernel");
}

#[test]
fn a_loader_that_cannot_count_does_not_try() {
    let disk = LoaderDisk::new("canary", &[("0", Kernel::Off), ("1", Kernel::Off)], "", &vars("0", "1"));
    for _ in 0..2 {
        let (lines, console) = disk.boot_read_only();
        assert_eq!(lines, [line("0", "1", "0", "bad")], "{console}");
    }
}

#[test]
fn without_an_environment_last_then_the_factory_revision_boots() {
    let revisions = [("0", Kernel::Off), ("locals/kept", Kernel::Off)];
    let disk = LoaderDisk::new("last", &revisions, "locals/kept", &vars("0", ""));
    disk.ruin_env();
    assert_eq!(disk.boot().0, [line("locals/kept", "", "0", "ok")]);
    disk.env(|env| env.rebuild(&vars("locals/kept", "0"))).unwrap();
    assert_eq!(disk.boot().0, [line("0", "0", "1", "ok")], "a rebuilt environment is a whole one");

    let disk = LoaderDisk::new("factory", &revisions, "", &vars("locals/kept", ""));
    disk.ruin_env();
    assert_eq!(disk.boot().0, [line("0", "", "0", "ok")], "no last");
    let disk = LoaderDisk::new("gone", &revisions, "locals/gone", &vars("locals/gone", ""));
    assert_eq!(disk.boot().0, [line("0", "", "0", "ok")], "committed and last do not load");
}

#[test]
fn a_disk_without_any_revision_resets_for_ever() {
    let disk = LoaderDisk::new("empty", &[], "", &vars("0", ""));
    let console = disk.boot_until("PV 0 does not boot", 4);
    assert!(!console.contains("STUB") && console.matches("U-Boot 2023.01").count() == 2, "{console}");
}
