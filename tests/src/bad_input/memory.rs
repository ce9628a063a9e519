//! Containers that take all the memory they can get, on a device with 64 MB.
//!
//! What must hold: every process of ours is the one that it was, the device answers its console throughout, who took
//! too much gets what its policy says, and everybody is at its goal in the end.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::fixture::{BOUNDED_PORT, GLUTTON_PORT};
use super::ground::Ground;
use crate::tour::device::Device;
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure, fail, wait_for};

/// Longest time until everybody is at its goal again; seconds.
const RECOVERY_S: u64 = 120;
/// Answers that are waited for while nothing can be ended: some seconds of it.
const ANSWERS: usize = 12;

/// More than its own limit: it is ended, started again, ended again, and given up, as its policy says. Nobody else
/// notices.
pub fn end_at_its_limit(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let mut watch = Watch::of(ground.device)?;
    for ends in 1..=2 {
        tell(ground, BOUNDED_PORT, "grow")?;
        watch.until("bounded at its end", |all| {
            let bounded = &all["bounded"];
            let ended = if ends == 1 { bounded["restarts"] == 1 } else { bounded["status"] == "STOPPED" };
            ended && (ends == 2 || bounded["status"] == "STARTED")
        })?;
    }
    ground.is_unchanged()?;
    report
        .held("limit", "a container takes more than its own limit, twice: restarted, then given up as its policy says");
    watch.tell(report, "nobody else was ended");
    // Its slot and its limit are its own: it can be had again.
    watch.order("containers start bounded")?;
    watch.until("bounded running again", |all| all["bounded"]["status"] == "STARTED").map(drop)
}

/// All there is, by one process without a limit: the kernel ends exactly that one.
pub fn end_the_glutton(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let mut watch = overdo(ground, "grow")?;
    ground.is_unchanged()?;
    report.held("grow", "a container without a limit takes all memory: ended and started again as its policy says");
    watch.tell(report, "nobody else was ended");
    Ok(())
}

/// All there is, as files: ending processes frees nothing until it is the right one.
pub fn outlive_files_in_memory(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let mut watch = overdo(ground, "stuff")?;
    report.held("stuff", "a container fills all memory with files: ended, everybody at its goal again");
    watch.tell(report, &fallen(ground.device)?);
    Ok(())
}

/// All there is, by more and more processes that each hold little: as soon as one is ended, another one takes its place.
pub fn outlive_many_processes(ground: &Ground, report: &mut Report) -> Outcome<()> {
    outlive(ground, report, "breed", "takes all memory with many processes, for ever")
}

/// All there is, by a process that told the kernel never to end it.
pub fn outlive_what_cannot_be_ended(ground: &Ground, report: &mut Report) -> Outcome<()> {
    outlive(ground, report, "cling", "takes all memory, and the kernel may not end it")
}

/// The device goes on without memory for containers, and stops the glutton when it is asked to; then all others run.
fn outlive(ground: &Ground, report: &mut Report, word: &str, what: &str) -> Outcome<()> {
    let mut watch = Watch::of(ground.device)?;
    tell(ground, GLUTTON_PORT, word)?;
    for _ in 0..ANSWERS {
        let all = watch.look()?;
        ensure(all["glutton"]["status"] == "STARTED", || format!("it was ended all the same: {}", all["glutton"]))?;
    }
    watch.order("containers stop glutton")?;
    watch.until("glutton stopped", |all| all["glutton"]["status"] == "STOPPED")?;
    // Those that fell too often meanwhile were given up, as their policy says.
    for (name, container) in watch.look()? {
        if container["status"] == "STOPPED" {
            watch.order(&format!("containers start {name}"))?;
        }
    }
    watch.until("everybody at its goal", all_run)?;
    report.held(word, &format!("a container {what}: the device goes on, and stops it when asked"));
    watch.tell(report, &fallen(ground.device)?);
    Ok(())
}

/// Tells the glutton; waits until it was ended for it and everybody runs again.
fn overdo<'a>(ground: &Ground<'a>, word: &str) -> Outcome<Watch<'a>> {
    let mut watch = Watch::of(ground.device)?;
    let before = watch.look()?["glutton"]["restarts"].clone();
    tell(ground, GLUTTON_PORT, word)?;
    watch.until("glutton ended, and everybody at its goal again", |all| {
        all["glutton"]["restarts"].as_u64() > before.as_u64() && all_run(all)
    })?;
    Ok(watch)
}

/// Tells a container what to do, as soon as it listens.
fn tell(ground: &Ground, port: u16, word: &str) -> Outcome<()> {
    wait_for("somebody who obeys", RECOVERY_S, || ground.manager.tell(port, word).map(Some))
}

fn all_run(all: &BTreeMap<String, Value>) -> bool {
    all.values().all(|container| container["status"] == "STARTED")
}

/// How often each container was started again.
fn fallen(device: &Device) -> Outcome<String> {
    let all = containers(&status(device)?);
    let fallen = all.iter().map(|(name, container)| format!("{name} {}", container["restarts"]));
    Ok(format!("restarts until now: {}", fallen.collect::<Vec<_>>().join(", ")))
}

/// Asks the device again and again: each answer must come, and come from the same processes.
struct Watch<'a> {
    device: &'a Device,
    ours: BTreeMap<String, u64>,
    answers: usize,
    longest_turn_us: u64,
}

impl<'a> Watch<'a> {
    fn of(device: &'a Device) -> Outcome<Self> {
        let ours = ours(&status(device)?)?;
        Ok(Self { device, ours, answers: 0, longest_turn_us: 0 })
    }

    /// One answer: the containers.
    fn look(&mut self) -> Outcome<BTreeMap<String, Value>> {
        let status = status(self.device)?;
        self.answers += 1;
        self.longest_turn_us = self.longest_turn_us.max(status["longest_turn_us"].as_u64().unwrap_or(0));
        let now = ours(&status)?;
        ensure(now == self.ours, || format!("our processes were {:?} and are {now:?}", self.ours))?;
        ensure(status["allocations"] == 0, || format!("PID 1 allocated: {}", status["allocations"]))?;
        Ok(containers(&status))
    }

    fn order(&self, words: &str) -> Outcome<()> {
        let ran = self.device.control(words)?;
        ensure(ran.code == 0, || format!("{words}: {} {}", ran.code, ran.text.trim()))
    }

    fn until(&mut self, what: &str, enough: impl Fn(&BTreeMap<String, Value>) -> bool) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            let all = self.look()?;
            if enough(&all) {
                return Ok(());
            }
            if begun.elapsed().as_secs() >= RECOVERY_S {
                return fail(format!("not seen in {RECOVERY_S} s: {what}: {all:?}"));
            }
        }
    }

    fn tell(&mut self, report: &Report, more: &str) {
        report.fact(&format!(
            "{} answers meanwhile, from the same {} processes of ours, longest turn {} us; {more}",
            self.answers,
            self.ours.len(),
            self.longest_turn_us
        ));
    }
}

/// The device's status, by the way that leads through no container.
fn status(device: &Device) -> Outcome<Value> {
    device.control("status --json")?.json()
}

fn containers(status: &Value) -> BTreeMap<String, Value> {
    let named = |container: &Value| Some((container["name"].as_str()?.to_string(), container.clone()));
    status["containers"].as_array().into_iter().flatten().filter_map(named).collect()
}

/// Process ids of what runs all the time.
fn ours(status: &Value) -> Outcome<BTreeMap<String, u64>> {
    let all = status["processes"].as_array().ok_or("the status names no processes")?;
    let named = |process: &Value| Some((process["name"].as_str()?.to_string(), process["pid"].as_u64()?));
    Ok(all.iter().filter_map(named).filter(|(name, _)| name != "fetch").collect())
}
