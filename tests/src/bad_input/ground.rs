//! What must not change while bad input comes in: the healthy containers, the environment, the journal.

use std::collections::BTreeMap;

use runtime::fault::Code;
use serde_json::Value;

use super::control::{Control, ensure_refused};
use crate::tour::device::Device;
use crate::tour::http::Answer;
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure, wait_for};

/// Containers that no case touches.
const HEALTHY: [&str; 3] = ["network", "manager", "visitor"];

/// The device as it was when the cases began.
pub struct Ground<'a> {
    /// The device.
    pub device: &'a Device,
    /// The control socket of the container that may manage.
    pub manager: Control,
    /// The control socket of the container that may not.
    pub visitor: Control,
    processes: BTreeMap<&'static str, [Value; 2]>,
    stored: [Vec<u8>; 2],
}

impl<'a> Ground<'a> {
    /// Looks at a device whose healthy containers run.
    pub fn of(device: &'a Device) -> Outcome<Self> {
        let manager = Control { port: device.ports.web };
        let visitor = Control { port: device.ports.counter };
        let processes = processes(manager)?;
        Ok(Self { device, manager, visitor, processes, stored: stored(device)? })
    }

    /// Fails unless the healthy containers are the processes that they were, and the device answers.
    pub fn goes_on(&self) -> Outcome<()> {
        let status = self.manager.get("/status")?;
        ensure(status["allocations"] == 0, || format!("PID 1 allocated: {}", status["allocations"]))?;
        let now = processes(self.manager)?;
        ensure(now == self.processes, || format!("the healthy containers were {:?} and are {now:?}", self.processes))
    }

    /// Fails unless environment and journal hold the bytes that they held, and all else goes on.
    pub fn is_unchanged(&self) -> Outcome<()> {
        self.goes_on()?;
        let [env, journal] = stored(self.device)?;
        ensure(env == self.stored[0], || "the environment was stored".into())?;
        ensure(journal == self.stored[1], || "a record was written to the journal".into())
    }

    /// A refused case: the code, and nothing changed.
    pub fn refused(&self, report: &mut Report, step: &str, what: &str, answer: &Answer, code: Code) -> Outcome<()> {
        ensure_refused(answer, code).map_err(|error| format!("{what}: {error}"))?;
        self.is_unchanged().map_err(|error| format!("{what}: {error}"))?;
        report.held(step, &format!("{what}: {} {}", answer.status, answer.text().trim()));
        Ok(())
    }

    /// Waits until the disk shows no file of an upload.
    pub fn no_upload_remains(&self) -> Outcome<()> {
        wait_for("objects/.incoming empty on the disk", 30, || {
            let left = self.device.frozen(|disk, scratch| disk.storage(scratch)?.names("/objects/.incoming"))?;
            ensure(left.is_empty(), || left.join(", ")).map(Some)
        })
    }

    /// The environment names this revision, and nothing is on trial.
    pub fn is_committed(&self, rev: &str) -> Outcome<()> {
        let env = self.device.disk.env()?;
        ensure(env.rev == rev && env.candidate.is_empty() && !env.armed, || {
            format!("the environment is {env:?}, not {rev}")
        })?;
        let status = self.manager.get("/status")?;
        ensure(status["revision"] == rev, || format!("{} runs and not {rev}", status["revision"]))
    }
}

/// Environment and journal as they stand on the disk; both are written past every cache.
fn stored(device: &Device) -> Outcome<[Vec<u8>; 2]> {
    device.frozen(|disk, scratch| Ok([disk.env_bytes()?, disk.journal_bytes(scratch)?]))
}

/// Process id and start time of the healthy containers.
fn processes(manager: Control) -> Outcome<BTreeMap<&'static str, [Value; 2]>> {
    let all = manager.containers()?;
    let mut found = BTreeMap::new();
    for name in HEALTHY {
        let container = all.get(name).ok_or_else(|| format!("there is no container {name}"))?;
        let process = ["pid", "started_ms"].map(|fact| container[fact].clone());
        ensure(process.iter().all(Value::is_u64), || format!("{name} does not run: {container}"))?;
        found.insert(name, process);
    }
    Ok(found)
}
