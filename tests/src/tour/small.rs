//! The tour with little memory: the largest set of the demonstration's containers that fits, found by trying.
//!
//! A set fits when the device becomes READY with it, takes an update of `web` in place, and comes back from a bad one,
//! in place and by a reboot. What was seen of a set that does not fit is printed, then a smaller set is tried.
//! Invariants: `network` and `web` are in every set: through the first the device is reached, the second is updated.
//! Does not: repeat what does not depend on memory (power cuts, dead kernels, refusals).

use std::path::Path;
use std::process::{Command, Stdio};

use super::device::{Device, Kit};
use super::report::Report;
use super::steps::Tour;
use super::{Outcome, ensure, fail};

/// Sets of containers, the largest first.
const SETS: [&[&str]; 4] = [
    &["network", "web", "slow", "counter"],
    &["network", "web", "counter"],
    &["network", "web", "slow"],
    &["network", "web"],
];

/// Walks it with so many MiB; whether a set was found.
pub fn walk(kit: &Kit, folder: &Path, memory: u32) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    let mut report = Report::of(&format!("the tour of {} in {memory} MB", kit.board()?.name));
    for set in SETS {
        let names = set.join(" ");
        let place = folder.join(set.join("-"));
        let kit = with_only(kit, set, &place.join("kit"))?;
        let mut device = Device::new(&kit, &place)?;
        device.memory = Some(memory);
        let mut tour = Tour::of(kit, device);
        match fits(&mut tour, set, &mut report) {
            Ok(()) => {
                report.held("fits", &format!("in {memory} MB: {names}"));
                println!("CASES {} 0", report.counts().0);
                return Ok(report.close());
            }
            Err(error) => {
                println!("      does not fit: {names}: {error}");
                println!("      the kernel's log: {}", tour.log().display());
            }
        }
    }
    report.step("fits", |_| fail(format!("no set of containers fits in {memory} MB")));
    println!("CASES {} 1", report.counts().0);
    Ok(report.close())
}

/// Everything that a set has to bear.
fn fits(tour: &mut Tour, set: &[&str], report: &mut Report) -> Outcome<()> {
    tour.boots_with(set, report)?;
    tour.changes_only_web(set, report)?;
    tour.rolls_back_in_place(report)?;
    tour.rolls_back_by_reboot(report)
}

/// The same device with these containers only.
fn with_only(kit: &Kit, set: &[&str], folder: &Path) -> Outcome<Kit> {
    std::fs::create_dir_all(folder)?;
    for (from, name) in [(kit.loader(), "u-boot.bin"), (kit.pvr(), "pvr"), (kit.folder.join("board"), "board")] {
        std::os::unix::fs::symlink(from, folder.join(name))?;
    }
    let repo = folder.join("repo");
    run(Command::new("cp").arg("-a").arg(kit.repo()).arg(&repo))?;
    for other in SETS[0].iter().filter(|name| !set.contains(name)) {
        std::fs::remove_dir_all(repo.join(other))?;
    }
    let pvr = |words: &[&str]| {
        let mut command = Command::new(kit.pvr());
        command.current_dir(&repo).env("HOME", folder).args(words);
        run(&mut command)
    };
    if set.len() < SETS[0].len() {
        pvr(&["add", "."])?;
        pvr(&["commit", "-m", "Fewer containers"])?;
    }
    pvr(&["image", "disk", "--board", kit.board()?.name, "--repo", ".", "--dev", "--out", "../disk.img"])?;
    Ok(Kit { folder: folder.into() })
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure(output.status.success(), || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
