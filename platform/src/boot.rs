//! From the loader to the machine: disks, environment, journal, the choice, and the revision that runs.
//!
//! Invariants: nothing here is written but by `e2fsck` on a file system that does not mount; what the choice wants in
//! journal and environment is done by the machine, in its order. The revision is parsed before anything of it starts.
//! Fault model: any disk, partition or file may be missing or damaged. Without storage the device runs nothing and
//! still answers; a candidate whose state cannot be read has failed its trial; a committed one runs degraded.
//! Not here: signatures.

use crate::{
    config::{Cmdline, Policy},
    early,
    env::BlockRegion,
    linux::{Env, name},
    wire::KeepList,
};
use boards::Board;
use core::ffi::CStr;
use log::{info, warn};
use runtime::{
    boot::{self, Choice, Facts, Mode},
    fault::{Code, Refusal},
    journal::{self, Kind, Phase, Record},
    port::{BootEnv, BootVars, Loaded},
    state::{Defaults, Plan, Spans},
    update::Boot,
};
use rustix::mount::MountFlags;
use std::{
    ffi::CString,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How long a disk may take to appear after its driver was loaded.
const DISK_PATIENCE: Duration = Duration::from_secs(10);
/// Repairs a file system that does not mount, if the image has it.
const FSCK: &str = "/sbin/e2fsck";

/// What was found on the disks.
pub struct Disks {
    /// The environment's codec.
    pub env: Option<Env>,
    /// What the environment says.
    loaded: Result<Loaded, Code>,
    /// The last record of the journal.
    journal: Option<Record>,
}

/// Finds the environment and mounts the two file systems. The code says why there is no storage.
pub fn disks(policy: &Policy) -> (Disks, Option<Code>) {
    let mut disks = Disks { env: None, loaded: Err(Code::EnvInvalid), journal: None };
    let Some(board) = boards::find(policy.board.as_str()) else {
        warn!("board `{}` is not known; set switchback.board in {}", policy.board, crate::config::POLICY);
        return (disks, Some(Code::EnvUnsupported));
    };
    let disk = &board.disk;
    wait_for(&[disk.env.device, disk.boot.device, disk.storage.device]);
    match open_env(board) {
        Ok(mut env) => {
            disks.loaded = env.load();
            report(disk.env.device, &disks.loaded);
            disks.env = Some(env);
        }
        Err(code) => warn!("environment on {}: {code} {}", disk.env.device, code.text()),
    }
    let boot = mount(disk.boot.device, c"/boot");
    let storage = mount(disk.storage.device, c"/storage");
    if boot {
        disks.journal = BlockRegion::open("/boot/journal")
            .map_err(|_| Code::StorageIo)
            .and_then(|mut region| journal::load(&mut region))
            .unwrap_or_else(|code| {
                warn!("journal: {code} {}; the last update is not known", code.text());
                None
            });
    }
    (disks, if boot && storage { None } else { Some(Code::StorageDamaged) })
}

/// Says what is wrong with the environment, if something is.
fn report(device: &str, loaded: &Result<Loaded, Code>) {
    let code = match loaded {
        Ok(Loaded { damaged: false, .. }) => return,
        Ok(_) => Code::EnvCopyDamaged,
        Err(code) => *code,
    };
    warn!("environment on {device}: {code} {}", code.text());
}

fn wait_for(devices: &[&str]) {
    let until = Instant::now() + DISK_PATIENCE;
    for device in devices {
        while !Path::new(device).exists() {
            if Instant::now() >= until {
                warn!("{device} did not appear in {} s", DISK_PATIENCE.as_secs());
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn open_env(board: &'static Board) -> Result<Env, Code> {
    let region = BlockRegion::open(board.disk.env.device).map_err(|_| Code::StorageIo)?;
    board.open(region, Box::leak(vec![0u8; board.env.work()].into_boxed_slice()))
}

/// Mounts a file system of ours, repairing it if that is needed and possible.
fn mount(device: &str, at: &CStr) -> bool {
    early::make_dir(at);
    let Ok(source) = CString::new(device) else { return false };
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
    let try_once = || rustix::mount::mount(source.as_c_str(), at, c"ext4", flags, None::<&CStr>);
    let Err(error) = try_once() else { return true };
    warn!("{device} does not mount on {at:?}: {error}");
    if !Path::new(FSCK).exists() {
        return false;
    }
    // Its status says what it found; whether it helped is seen by mounting.
    match Command::new(FSCK).args(["-fy", device]).status() {
        Ok(status) => warn!("{FSCK} -fy {device}: {status}"),
        Err(error) => warn!("{FSCK}: {error}"),
    }
    try_once().is_ok()
}

/// The boot decision, and every revision that a copy of the environment names.
pub struct Decision {
    /// What the update machine is told.
    pub boot: Boot,
    /// For the collector.
    pub named: KeepList,
    /// Whether that is every one: both copies could be read, or neither is valid.
    pub complete: bool,
}

/// Decides which revision runs, and how.
pub fn decide(disks: &Disks, loader: &Cmdline, policy: &Policy) -> Decision {
    let facts = Facts {
        booted: loader.booted,
        candidate: loader.candidate,
        bootcount: loader.bootcount,
        canary: loader.canary,
        script: loader.script,
        watchdog: false,
    };
    let loaded = disks.loaded.ok();
    let choice = boot::choose(loaded, &facts, disks.journal);
    info!("boot: {choice:?}");
    let fresh = BootVars { committed: choice.run, candidate: None, previous: None };
    let vars = loaded.map(|loaded| loaded.vars).or(choice.store).unwrap_or(fresh);
    let mut named = KeepList::new();
    for rev in loaded.iter().flat_map(|loaded| loaded.named).flatten() {
        crate::linux::keep(&mut named, rev);
    }
    name(&mut named, &vars);
    let boot = Boot {
        choice,
        vars,
        may_arm: boot::may_arm(&facts),
        degraded: false,
        commit_delay_ms: u64::from(policy.commit_delay_s) * 1000,
    };
    let complete = disks.loaded.map_or_else(|code| code == Code::EnvInvalid, |loaded| loaded.complete);
    Decision { boot, named, complete }
}

/// Reads the revision that is to run into the machine's plan.
pub fn load(decision: &mut Decision, defaults: &Defaults) -> Box<Plan> {
    let rev = decision.boot.choice.run;
    let mut plan = Box::new(Plan::empty(rev));
    if decision.boot.choice.mode == Mode::Abandon {
        return plan;
    }
    let path = format!("/storage/trails/{rev}/.pvr/json");
    let read = std::fs::read(&path).map_err(|error| {
        warn!("{path}: {error}");
        Refusal::key(Code::StorageDamaged, rev.as_str())
    });
    let parsed = read.and_then(|text| Plan::parse(&text, rev, defaults, &mut plan, &mut Spans::new()).map(drop));
    if let Err(refusal) = parsed {
        warn!("revision {rev} cannot run: {refusal}");
        give_up(&mut decision.boot, refusal.code);
    }
    plan
}

/// The revision that is to run cannot be read: on trial, it has failed; committed, it runs nothing, and stays.
fn give_up(boot: &mut Boot, code: Code) {
    let Choice { run, mode, record, .. } = boot.choice;
    let previous = boot.vars.committed;
    let fresh = Record { candidate: run, previous, kind: Kind::Reboot, phase: Phase::Armed };
    let abandon = |code, vars| {
        let failed = record.unwrap_or(fresh).with(Phase::Failed { code, container: None });
        Choice { run, mode: Mode::Abandon, record: Some(failed), write: true, store: Some(vars) }
    };
    match mode {
        Mode::Trial { .. } => boot.choice = abandon(code, boot::disarm(boot.vars)),
        Mode::Cold if boot.vars.previous.is_some() => {
            boot.choice = abandon(Code::ColdBootFailed, boot::step_back(boot.vars));
        }
        _ => boot.degraded = true,
    }
}
