//! From the loader to the machine: disks, environment, journal, the choice, and the revision that runs.
//!
//! Invariants: nothing here is written but by the repair of a damaged file system (`repair`), and once the text of a loader
//! that is taken over; what the choice wants in
//! journal and environment is done by the machine, in its order. The revision is parsed before anything of it starts.
//! Whatever can take long (a disk that appears late, mounting, repair) has a bound and feeds the watchdog: it is the
//! part of PID 1's life in which it may wait.
//! Fault model: any disk, partition or file may be missing or damaged. Without storage the device runs nothing and
//! still answers; a candidate whose state cannot be read has failed its trial; a committed one runs degraded.
//! Not here: signatures.

use crate::{
    config::{Cmdline, Policy},
    env::BlockRegion,
    faults,
    kmsg::Why,
    linux::{Env, Settings, name, now},
    repair, sys,
    watchdog::Watchdog,
    wire::KeepList,
};
use boards::Board;
use log::{info, warn};
use runtime::{
    boot::{self, Choice, Facts, Mode},
    control::{InForce, Storage},
    fault::{Code, Refusal},
    id::RevName,
    journal::{self, Kind, Phase, Record},
    limits::STATE_MAX,
    port::{BootEnv, BootVars, Loaded},
    state::{Plan, Spans},
    update::Boot,
};
use rustix::{fd::OwnedFd, fs::OFlags, io::Errno};
use std::{
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// How long a disk may take to appear after its driver was loaded.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// What was found on the disks.
pub struct Disks {
    /// The environment's codec.
    pub env: Option<Env>,
    /// The disk that storage is to grow on.
    pub growing: Option<OwnedFd>,
    /// What the environment says.
    loaded: Result<Loaded, Code>,
    /// The last record of the journal.
    journal: Option<Record>,
}

/// Finds the environment and mounts the two file systems.
pub fn disks(policy: &Policy, watchdog: &mut Watchdog) -> (Disks, Storage) {
    let mut disks = Disks { env: None, growing: None, loaded: Err(Code::EnvInvalid), journal: None };
    let Some(board) = policy.known_board() else {
        warn!("board `{}` is not known; set switchback.board in {}", policy.board, crate::config::POLICY);
        disks.loaded = Err(Code::EnvUnsupported);
        return (disks, Storage::Missing(Code::EnvUnsupported));
    };
    let disk = &board.disk;
    wait_for(&[disk.env.device, disk.boot.device, disk.storage.device], watchdog);
    faults::at_disk();
    let (boot, storage);
    // Whether the journal is from before the decision: the original made one after us, and may have armed again what failed.
    let mut is_older = false;
    if let Some(text) = board.loader_text() {
        storage = repair::mount(disk.storage.device, c"/storage", Some(c"data=ordered"), watchdog);
        boot = storage.and_then(|_| show_boot());
        match boot.and_then(|_| take_over(text, watchdog)) {
            Ok(anew) => {
                is_older = anew;
                open_env(board, &mut disks);
            }
            Err(code) => disks.loaded = Err(code),
        }
    } else {
        open_env(board, &mut disks);
        boot = repair::mount(disk.boot.device, c"/boot", None, watchdog);
        storage = repair::mount(disk.storage.device, c"/storage", None, watchdog);
    }
    repair::forget();
    let found = found(boot, storage);
    if found.missing().is_none() && policy.grow && board.may_grow() {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        disks.growing = rustix::fs::open(disk.device, flags, rustix::fs::Mode::empty())
            .inspect_err(|error| warn!("{}: {}; storage does not grow", disk.device, Why(*error)))
            .ok();
    }
    if boot.is_ok() && !is_older {
        let journal = match BlockRegion::open("/boot/journal") {
            Ok(mut region) => journal::load(&mut region),
            Err(Errno::NOENT) if board.is_taken_over() => Ok(None), // the keeper makes it
            Err(_) => Err(Code::StorageIo),
        };
        disks.journal = journal.unwrap_or_else(|code| {
            warn!("journal: {code} {}; the last update is not known", code.text());
            None
        });
    }
    (disks, found)
}

/// Both file systems in one: what is worse counts.
fn found(boot: Result<Option<Code>, Code>, storage: Result<Option<Code>, Code>) -> Storage {
    match (storage, boot) {
        (Err(code), _) | (_, Err(code)) => Storage::Missing(code),
        (Ok(storage), Ok(boot)) => worse(storage, boot).map_or(Storage::Sound, Storage::Mounted),
    }
}

/// The worse of both: a superblock that was mended is the least.
fn worse(one: Option<Code>, other: Option<Code>) -> Option<Code> {
    const LEAST: Option<Code> = Some(Code::SuperblockMended);
    match (one, other) {
        (LEAST, it) | (it, LEAST) => it.or(LEAST),
        _ => one.max(other),
    }
}

/// Opens and reads the environment.
fn open_env(board: &Board, disks: &mut Disks) {
    let device = board.disk.env.device;
    match crate::env::open(board) {
        Ok(mut env) => {
            disks.loaded = env.load();
            report(device, &disks.loaded);
            disks.env = Some(env);
        }
        Err(code) => {
            warn!("environment on {device}: {code} {}", code.text());
            disks.loaded = Err(code);
        }
    }
}

/// A storage of the original: its folder `boot` is where other devices have a file system of its own.
fn show_boot() -> Result<Option<Code>, Code> {
    // A link would lead out of storage.
    if !std::fs::symlink_metadata("/storage/boot").is_ok_and(|boot| boot.is_dir()) {
        warn!("/storage/boot is no folder");
        return Err(Code::Unmountable);
    }
    rustix::mount::mount_bind(c"/storage/boot", c"/boot").map(|()| None).map_err(|error| {
        warn!("/storage/boot is not seen as /boot: {}", Why(error));
        Code::Unmountable
    })
}

/// Makes the text of the original's loader one that we can store to, if it is not; in a child, as a mount. Or why it cannot be.
fn take_over(text: &'static str, watchdog: &mut Watchdog) -> Result<bool, Code> {
    let child = sys::fork_and(|| match crate::env::take_over("/storage", "/boot", text) {
        Ok(true) => {
            info!("{text}: written anew, to be overwritten in place from now on");
            ANEW
        }
        Ok(false) => 0,
        Err(code) => exit_for(code),
    });
    let taken = match child.map(|child| watchdog.feed_during(child, repair::MOUNT_PATIENCE)) {
        Ok(Some(status)) => match status.exit_status() {
            Some(0) => Ok(false),
            Some(exit) if exit == i32::from(ANEW) => Ok(true),
            exit => Err(exit.and_then(code_of).unwrap_or(Code::ErrandDied)),
        },
        Ok(None) => Err(Code::ErrandTimeout),
        Err(_) => Err(Code::ErrandDied),
    };
    taken.inspect_err(|code| warn!("{text} cannot be taken over: {code} {}", code.text()))
}

/// The exit status of a child that has written a new text.
const ANEW: u8 = 0xfe;

/// A code as the exit status of a child, which has eight bits: its place in the table, from 1.
fn exit_for(code: Code) -> u8 {
    const { assert!(Code::ALL.len() < ANEW as usize) };
    Code::ALL.iter().position(|known| *known == code).map_or(u8::MAX, |place| place as u8 + 1)
}

/// The code of such an exit status.
fn code_of(exit: i32) -> Option<Code> {
    Code::ALL.get(usize::try_from(exit).ok()?.checked_sub(1)?).copied()
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

fn wait_for(devices: &[&str], watchdog: &mut Watchdog) {
    let until = Instant::now() + DISK_PATIENCE;
    for device in devices {
        while !Path::new(device).exists() {
            if Instant::now() >= until {
                warn!("{device} did not appear in {} s", DISK_PATIENCE.as_secs());
                break;
            }
            watchdog.feed(now());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The boot decision, and every revision that a copy of the environment names.
pub struct Decision {
    /// What the update machine is told.
    pub boot: Boot,
    /// For the collector.
    pub named: KeepList,
    /// Whether that is every one: both copies could be read, or neither is valid.
    pub complete: bool,
    /// Which copy is in force, or why none is.
    pub copy: Result<InForce, Code>,
}

/// Decides which revision runs, and how. `watchdog`: it made the last reset.
pub fn decide(disks: &Disks, loader: &Cmdline, policy: &Policy, watchdog: bool) -> Decision {
    // A copy that is whole and commits to no name at all is an owner's: the loader went on to `last`, past any candidate.
    // One that could not even be opened says nothing.
    let is_open = disks.env.is_some();
    let owners = is_open && disks.loaded == Err(Code::EnvInvalid) && loader.booted != loader.candidate;
    let facts = Facts {
        booted: loader.booted,
        candidate: loader.candidate.filter(|_| !owners),
        bootcount: loader.bootcount,
        canary: loader.canary,
        script: loader.script,
        watchdog,
    };
    let loaded = disks.loaded.ok();
    let mut choice = boot::choose(loaded, &facts, disks.journal);
    if let Some(loaded) = loaded
        && choice.mode == Mode::Steady
        && choice.store.is_none()
    {
        repair_owners(loaded, &mut choice);
    }
    info!("boot: {choice:?}");
    let fresh = BootVars { committed: choice.run, candidate: None, previous: None };
    let vars = loaded.map(|loaded| loaded.vars).or(choice.store).unwrap_or(fresh);
    let mut named = KeepList::new();
    for rev in loaded.iter().flat_map(|loaded| loaded.named).flatten() {
        crate::linux::keep(&mut named, rev);
    }
    name(&mut named, &vars);
    let may_arm = match disks.loaded {
        Err(code) if !is_open => Err(code), // there is nothing that could be stored to
        // The original's boot script says no version: the board does, by its kind of environment.
        _ if policy.known_board().is_some_and(Board::is_taken_over) => Ok(()),
        _ => boot::may_arm(&facts),
    };
    let boot = Boot {
        choice,
        vars,
        may_arm,
        degraded: choice.is_degraded(),
        commit_delay_ms: u64::from(policy.commit_delay_s) * 1000,
    };
    let complete = disks.loaded.map_or_else(|code| is_open && code == Code::EnvInvalid, |loaded| loaded.complete);
    let copy = disks.loaded.map(|loaded| InForce { number: loaded.active, damaged: loaded.damaged });
    Decision { boot, named, complete, copy }
}

/// What only an owner can have written, and no revision can come of, is replaced by what runs.
fn repair_owners(loaded: Loaded, choice: &mut Choice) {
    let vars = loaded.vars;
    if choice.run != vars.committed && is_missing(vars.committed) {
        *choice = boot::commits_to_nothing(vars, choice.run);
    } else if vars.candidate.is_none() && loaded.bootcount != 0 {
        warn!("environment: a candidate is counted and none is named: {}; cleared", Code::RevisionName);
        choice.store = Some(vars);
    }
}

/// Whether the storage is there, and holds no such revision.
fn is_missing(rev: RevName) -> bool {
    Path::new("/storage/trails").exists() && !Path::new(&format!("/storage/trails/{rev}")).exists()
}

/// A revision's state. Nothing else that may stand there under its name: no link, no pipe that waits, nothing longer.
fn read_state(path: &str) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    file.take(STATE_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Reads the revision that is to run into the machine's plan.
pub fn load(decision: &mut Decision, settings: &Settings) -> Box<Plan> {
    let rev = decision.boot.choice.run;
    let mut plan = Box::new(Plan::empty(rev));
    if decision.boot.choice.mode == Mode::Abandon {
        return plan;
    }
    let path = format!("/storage/trails/{rev}/.pvr/json");
    let read = read_state(&path).map_err(|error| {
        warn!("{path}: {error}");
        Refusal::key(settings.storage.missing().unwrap_or(Code::StorageDamaged), rev.as_str())
    });
    let parsed =
        read.and_then(|text| Plan::parse(&text, rev, &settings.defaults, &mut plan, &mut Spans::new()).map(drop));
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
    let fresh = Record::armed(run, previous, Kind::Reboot);
    let abandon = |code, vars| {
        let failed = record.unwrap_or(fresh).with(Phase::Failed { code, container: None });
        Choice { run, mode: Mode::Abandon, record: Some(failed), write: true, store: Some(vars) }
    };
    match mode {
        Mode::Trial { .. } => boot.choice = abandon(code, boot::disarm(boot.vars)),
        Mode::Cold if boot.vars.previous.is_some() => {
            boot.choice = abandon(Code::ColdBootFailed, boot::step_back(boot.vars));
        }
        _ => {
            boot.degraded = true;
            // Nothing runs, so nothing can show that the falls before are over.
            boot.choice.record = record.map(|record| Record { falls: 0, ..record });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_file_systems_the_worse_one_is_told() {
        let found = |boot, storage| (found(Ok(boot), Ok(storage)), found(Ok(storage), Ok(boot)));
        let both = |storage| (storage, storage);
        let mended = Some(Code::SuperblockMended);
        assert_eq!(found(None, None), both(Storage::Sound));
        assert_eq!(found(None, mended), both(Storage::Mounted(Code::SuperblockMended)));
        assert_eq!(found(mended, mended), both(Storage::Mounted(Code::SuperblockMended)));
        for worse in [Code::Repaired, Code::RepairedWithLoss, Code::StillDamaged] {
            assert_eq!(found(mended, Some(worse)), both(Storage::Mounted(worse)));
            assert_eq!(found(None, Some(worse)), both(Storage::Mounted(worse)));
            assert_eq!(found(Some(Code::Repaired), Some(worse)), both(Storage::Mounted(worse)));
        }
    }

    #[test]
    fn every_code_fits_into_an_exit_status() {
        for code in Code::ALL {
            let exit = exit_for(*code);
            assert!(exit != 0 && exit != ANEW);
            assert_eq!(code_of(exit.into()), Some(*code));
        }
        assert_eq!([0, ANEW.into(), 0xff, -1].map(code_of), [None; 4]);
    }

    /// The text of a loader that cannot be taken over: what it says is not ours to know, and nothing is armed or collected.
    #[test]
    fn what_cannot_be_taken_over_is_told_by_its_code_and_takes_no_update() {
        let policy = Policy::parse("switchback.board=qemu-arm64-taken\n");
        assert!(policy.known_board().is_some_and(Board::is_taken_over));
        for code in [Code::EnvFull, Code::EnvInvalid, Code::CheckpointFailed] {
            let disks = Disks { env: None, growing: None, loaded: Err(code), journal: None };
            let decide = |words| decide(&disks, &Cmdline::parse(words), &policy, false);
            let committed = decide("pv_try= pv_rev=0");
            assert_eq!((committed.boot.may_arm, committed.copy, committed.complete), (Err(code), Err(code), false));
            assert_eq!((committed.boot.choice.run, committed.boot.choice.mode), (RevName::factory(), Mode::Steady));
            // A candidate goes back; one that the loader gave up is left to it.
            let trial = decide("pv_try=1 pv_rev=1").boot.choice;
            assert_eq!((trial.mode, trial.store), (Mode::Abandon, None));
            let back = decide("pv_try=1 pv_rev=0").boot.choice;
            assert_eq!((back.run, back.mode, back.store), (RevName::factory(), Mode::Steady, None));
        }
    }
}
