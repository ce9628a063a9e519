//! The watchdog: the last resort against our own hang. Fed from the loop and from nowhere else.
//!
//! Opened once, never closed: where the driver can, it cannot be stopped any more. A device without one runs on
//! and says so. The loader arms the hardware where it can; opening it here takes over.

use log::{info, warn};
use runtime::port::Millis;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
};

/// After this long without being fed a device of an unknown board resets.
pub const TIMEOUT_S: u32 = 60;

/// The open device.
pub struct Watchdog {
    device: Option<OwnedFd>,
    /// How often it is fed: one wake-up in this time, a third of the time-out.
    every: Millis,
    next: Millis,
}

impl Watchdog {
    /// Opens and arms the device. `timeout_s` is far above the worst stall of one environment store.
    pub fn open(timeout_s: u32) -> Self {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let device = match rustix::fs::open(c"/dev/watchdog", flags, Mode::empty()) {
            Ok(device) => {
                match crate::sys::watchdog_timeout(&device, timeout_s as i32) {
                    Ok(seconds) => info!("watchdog: {seconds} s"),
                    Err(error) => warn!("watchdog: time-out not set: {error}; the driver's own holds"),
                }
                Some(device)
            }
            Err(error) => {
                warn!("watchdog: {error}; a hang of PID 1 will need a power cycle");
                None
            }
        };
        Self { device, every: Millis::from(timeout_s) * 1000 / 3, next: 0 }
    }

    /// When it has to be fed next.
    pub fn poll_at(&self) -> Option<Millis> {
        self.device.as_ref().map(|_| self.next)
    }

    /// Feeds it if it is time.
    pub fn feed(&mut self, now: Millis) {
        let Some(device) = &self.device else { return };
        if now >= self.next {
            let _ = rustix::io::write(device, b"\0");
            self.next = now + self.every;
        }
    }
}
