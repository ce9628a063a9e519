//! The watchdog: the last resort against our own hang, one door for every driver.
//!
//! Opened once, right after the modules, and never closed: from then on it cannot be stopped where the kernel lets us
//! say so. It is fed before the loop in waits that have an end, after that from the loop, and from nowhere else. The
//! board's own driver is taken if it is there, else another one, and then a warning names what that one does not cover.
//! Fault model: no device, several, one that cannot be opened, one that takes no time-out or tells none, one whose
//! feeding fails. None of that keeps the device from booting; feeding that fails ends in a reset.
//! Not here: starting it in the loader (the boot script), what follows from a reset that it made (`runtime::boot`).

mod choice;
#[cfg(test)]
mod fakes;
mod kernel;
#[cfg(test)]
mod tests;

use crate::kmsg::Why;
use boards::{Board, Counter, watchdog::Driver};
pub use choice::Found;
pub use kernel::Kernel;
use log::{info, warn};
use runtime::{
    control::{self, Reset},
    fault::Code,
    id::Text,
    limits,
    port::Millis,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus},
};
use std::time::{Duration, Instant};

/// Where devices are found: the kernel, or a test.
pub trait Devices {
    /// Those that are there now.
    fn found(&self) -> Vec<Found>;
    /// Opens one, which starts it, for ever where that is possible.
    fn open(&self, number: u32) -> Result<Box<dyn Device>, Errno>;
}

/// An open device.
pub trait Device {
    /// Sets the time-out; the one that the driver says it took. Seconds.
    fn set_timeout(&mut self, seconds: u32) -> Result<u32, Errno>;
    /// The time-out in force.
    fn timeout(&self) -> Result<u32, Errno>;
    /// Why the machine was reset, as `WDIOF_` flags.
    fn boot_status(&self) -> Result<u32, Errno>;
    /// Starts its time anew.
    fn feed(&mut self) -> Result<(), Errno>;
}

/// How long the board's own device may take to appear after its module was loaded.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The time-out for a board that is not known, seconds.
const TIMEOUT_S: u32 = 60;
/// `WDIOF_CARDRESET`: the watchdog made the last reset.
const CARD_RESET: u32 = 0x20;

/// The open device, or none.
pub struct Watchdog {
    armed: Option<Armed>,
    next: Millis,
}

struct Armed {
    device: Box<dyn Device>,
    identity: Text<32>,
    driver: Option<&'static Driver>,
    timeout_s: u32,
    every: Millis,
    reset: Reset,
    /// Feeding failed, and the log was told.
    is_refusing: bool,
}

impl Watchdog {
    /// Opens the best device. Waits for the board's own one for as long as `patience`.
    pub fn open(devices: &dyn Devices, board: Option<&Board>, patience: Duration) -> Self {
        let wanted = board.and_then(|board| boards::watchdog::named(board.watchdog.driver));
        let ask_s = board.map_or(TIMEOUT_S, |board| board.watchdog.timeout_s);
        let found = choice::best_first(wait_for(devices, wanted, patience), wanted);
        let armed = found.iter().find_map(|found| arm(devices, found, ask_s));
        let used = armed.as_ref().map(|armed| armed.driver);
        if let Some(lost) = choice::lost(wanted, used) {
            let own = wanted.map_or("the board's watchdog", |driver| driver.identity);
            warn!("watchdog: `{own}` is not used: {lost}");
        }
        Self { armed, next: 0 }
    }

    /// When it has to be fed next.
    pub fn poll_at(&self) -> Option<Millis> {
        self.armed.as_ref().map(|_| self.next)
    }

    /// Feeds it if it is time.
    pub fn feed(&mut self, now: Millis) {
        let Some(armed) = &mut self.armed else { return };
        if now < self.next {
            return;
        }
        self.next = now + armed.every;
        if let Err(error) = armed.device.feed() {
            if !armed.is_refusing {
                warn!("watchdog: it cannot be fed: {}; it resets the device in {} s", Why(error), armed.timeout_s);
            }
            armed.is_refusing = true;
        }
    }

    /// Feeds it until a child of ours has ended; how it did. One that has not when the patience is over is killed and
    /// left to the loop: `None`.
    pub fn feed_during(&mut self, child: Pid, patience: Duration) -> Option<WaitStatus> {
        const LONGEST: Duration = Duration::from_millis(200);
        let until = Instant::now() + patience;
        let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty()).ok();
        loop {
            self.feed(crate::linux::now());
            match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => return Some(status),
                Ok(None) | Err(Errno::INTR) if Instant::now() < until => {}
                _ => break,
            }
            let pause = LONGEST.try_into().ok();
            match &pidfd {
                Some(pidfd) => drop(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], pause.as_ref())),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let _ = rustix::process::kill_process(child, Signal::KILL);
        None
    }

    /// For the status: what guards this board, and what holds on it with that. `copy`: of its environment.
    pub fn facts(&self, board: &Board, copy: Result<control::InForce, Code>) -> control::Board<'_> {
        let watchdog = self.armed.as_ref().map(|armed| control::Watchdog {
            identity: armed.identity.as_str(),
            timeout_s: armed.timeout_s,
            covers_kernel: armed.driver.is_none_or(|driver| driver.hardware),
            reset: armed.reset,
        });
        let own = boards::watchdog::named(board.watchdog.driver);
        let is_own = own.is_some() && self.armed.as_ref().is_some_and(|armed| armed.driver == own);
        let promised = board.guarantee;
        let guarantee = control::Guarantee {
            torn_write: promised.torn_write,
            hang_before_linux: promised.hang_before_linux && is_own,
            hang_of_kernel: promised.hang_after_linux && watchdog.is_some_and(|watchdog| watchdog.covers_kernel),
            hang_of_init: promised.hang_after_linux && watchdog.is_some(),
        };
        let armed_by_loader = board.watchdog.armed_by_loader && is_own;
        let environment = control::Environment { kind: board.env.kind(), copies: board.env.copies(), copy };
        let counter = board.counter();
        let default = if counter == Counter::Nobody { limits::TRIES_MAX } else { promised.tries };
        let tries = control::Tries { counted_by: counter.word(), default };
        control::Board { name: board.name, environment, guarantee, tries, watchdog, armed_by_loader }
    }

    /// Whether the hardware says that it made the last reset.
    pub fn made_last_reset(&self) -> bool {
        self.armed.as_ref().is_some_and(|armed| armed.reset == Reset::Watchdog)
    }
}

/// The devices, as soon as the board's own one is among them, or when the patience is over. Drivers that wait for a
/// clock or a bus come up late.
fn wait_for(devices: &dyn Devices, wanted: Option<&Driver>, patience: Duration) -> Vec<Found> {
    let until = Instant::now() + patience;
    loop {
        let found = devices.found();
        let is_there = wanted.is_none_or(|wanted| found.iter().any(|found| found.identity == wanted.identity));
        if is_there || Instant::now() >= until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Opens a device, gives it its time-out, and asks it once what it knows of the last reset.
fn arm(devices: &dyn Devices, found: &Found, ask_s: u32) -> Option<Armed> {
    let driver = boards::watchdog::identified(&found.identity);
    let mut device = match devices.open(found.number) {
        Ok(device) => device,
        Err(error) => {
            warn!("watchdog: `{}` cannot be opened: {}; the next one is tried", found.identity, Why(error));
            return None;
        }
    };
    let ask_s = choice::time_out(ask_s, found, driver);
    let set = device.set_timeout(ask_s);
    if let Err(error) = set {
        warn!("watchdog: `{}` takes no time-out of {ask_s} s: {}; its own holds", found.identity, Why(error));
    }
    let timeout_s = choice::in_force(device.timeout().ok(), set.ok());
    let reset = match device.boot_status() {
        Ok(flags) if flags & CARD_RESET != 0 => Reset::Watchdog,
        Ok(_) if driver.is_some_and(|driver| driver.tells_reset) => Reset::Other,
        _ => Reset::Unknown,
    };
    info!("watchdog: `{}`, {timeout_s} s; last reset: {}", found.identity, reset.word());
    let identity = Text::clip(&found.identity);
    Some(Armed { device, identity, driver, timeout_s, every: choice::interval(timeout_s), reset, is_refusing: false })
}
