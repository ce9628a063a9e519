//! What is done, in order: a device that is well, one with containers that take all memory, one with USB sticks,
//! and one whose factory revision is not well.
//!
//! A step that does not hold is reported, and the next one is tried after a fresh start of the device, so that one
//! fault does not hide the others.

use std::path::Path;

use super::fixture::{Factory, build};
use super::ground::Ground;
use super::{containers, memory, requests, states, sticks};
use crate::tour::device::{Device, Kit};
use crate::tour::report::Report;
use crate::tour::{Outcome, fail, wait_for};

/// Longest time from power to containers that run, on a slow, busy machine; seconds.
const BOOT_S: u64 = 120;

type Step = fn(&Ground, &mut Report) -> Outcome<()>;

const STEADY: [(&str, Step); 9] = [
    ("http", requests::refuse),
    ("role", requests::refuse_visitor),
    ("body", requests::refuse_objects),
    ("stop", requests::stop_half_way),
    ("crowd", requests::crowd),
    ("state", states::refuse),
    ("run", containers::roll_back),
    ("disk", containers::fill_the_disk),
    ("fill", containers::be_filled),
];
const HUNGRY: [(&str, Step); 5] = [
    ("limit", memory::end_at_its_limit),
    ("grow", memory::end_the_glutton),
    ("stuff", memory::outlive_files_in_memory),
    ("breed", memory::outlive_many_processes),
    ("cling", memory::outlive_what_cannot_be_ended),
];
const STICKS: [(&str, Step); 5] = [
    ("stick", sticks::refuse),
    ("pull", sticks::pull_out),
    ("fails", sticks::roll_back),
    ("cut", sticks::cut),
    ("again", sticks::go_on),
];

/// A step and the name by which it is asked for.
type Named = (&'static str, Step);

/// The steps of each device, by name, and the name of its folder.
const DEVICES: [(Factory, &[Named], &str); 4] = [
    (Factory::Steady, &STEADY, "steady"),
    (Factory::Hungry, &HUNGRY, "hungry"),
    (Factory::Sticks, &STICKS, "sticks"),
    (Factory::Broken, &[("first", containers::live_beside)], "broken"),
];

/// Whether there is a step of this name.
pub fn is_step(name: &str) -> bool {
    DEVICES.iter().any(|(_, steps, _)| steps.iter().any(|(step, _)| *step == name))
}

/// Does everything, or only the steps of these names; whether all claims held.
pub fn walk(kit: &Kit, probe: &Path, folder: &Path, only: &[String]) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    let mut report = Report::of("bad input");
    for (factory, steps, name) in DEVICES {
        let wanted = |(step, _): &&(&str, Step)| only.is_empty() || only.iter().any(|word| word == step);
        let steps: Vec<_> = steps.iter().filter(wanted).copied().collect();
        if !steps.is_empty() {
            try_on(factory, &steps, kit, probe, &folder.join(name), &mut report)?;
        }
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    Ok(held)
}

/// Makes a device, boots it, and takes the steps on it.
fn try_on(
    factory: Factory,
    steps: &[(&str, Step)],
    kit: &Kit,
    probe: &Path,
    folder: &Path,
    report: &mut Report,
) -> Outcome<()> {
    let kit = build(kit, probe, &folder.join("kit"), factory)?;
    let mut device = Device::new(&kit, folder)?;
    let extra = if factory == Factory::Sticks { sticks::socket(folder) } else { vec![] };
    device.power_on_with(&extra)?;
    if !report.step("boot", |report| {
        ready(&device)?;
        report.held("boot", &format!("{factory:?} device: network, manager and visitor run"));
        Ok(())
    }) {
        println!("      the kernel's log: {}", device.log().display());
        return Ok(());
    }
    for (name, step) in steps {
        if device.is_gone() {
            device.power_on_with(&extra)?; // the step before cut the power
            ready(&device)?;
        }
        if report.step(name, |report| step(&Ground::of(&device)?, report)) {
            continue;
        }
        println!("      the kernel's log: {}", device.log().display());
        device.power_on_with(&extra)?;
        if let Err(error) = ready(&device) {
            report.step(name, |_| fail(format!("and the device does not come back: {error}")));
            return Ok(());
        }
    }
    Ok(())
}

/// Waits until the containers that are well run, and no update is on trial.
fn ready(device: &Device) -> Outcome<()> {
    wait_for("the healthy containers running", BOOT_S, || {
        let trial = Ground::of(device)?.manager.get("/status")?["update"]["trial"].clone();
        Ok((trial != true).then_some(()))
    })
}
