//! Fakes of the four drivers, for what no emulator has: they refuse and tell what the kernel's drivers do, and count
//! down a clock that the test turns. Nothing of this runs on a device.

use crate::watchdog::{CARD_RESET, Device, Devices, choice::Found};
use runtime::port::Millis;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use std::{cell::Cell, rc::Rc};

/// A clock, turned by hand.
pub(super) type Clock = Rc<Cell<Millis>>;

/// A machine with some devices.
pub(super) struct Machine {
    pub(super) clock: Clock,
    pub(super) chips: Vec<Rc<Chip>>,
    /// Devices show up only when they were looked for this often.
    pub(super) late: Cell<u32>,
}

/// A device: what its driver is like, and what happened to it.
#[derive(Default)]
pub(super) struct Chip {
    pub(super) identity: &'static str,
    /// As in the class folder; 0: the attribute is 0 or not there.
    pub(super) longest_s: u32,
    /// The driver's own time-out, seconds.
    pub(super) heartbeat_s: u32,
    /// Every time-out is refused, and none told.
    pub(super) is_mute: bool,
    /// Somebody else has it open.
    pub(super) is_busy: bool,
    pub(super) card_reset: bool,
    pub(super) timeout_s: Cell<u32>,
    pub(super) fed_at: Cell<Option<Millis>>,
    pub(super) feeds: Cell<u32>,
    pub(super) breaks: Cell<bool>,
    /// After so many feedings this process is ended.
    pub(super) ends: Cell<Option<(u32, Pid)>>,
}

impl Chip {
    /// i6300ESB: 1 to 2046 s, else refused; tells.
    pub(super) fn i6300esb(card_reset: bool) -> Self {
        Self { identity: "i6300ESB timer", longest_s: 2046, heartbeat_s: 30, card_reset, ..Self::default() }
    }

    /// i.MX: takes any time-out, because the kernel feeds the hardware in between; tells.
    pub(super) fn imx2(card_reset: bool) -> Self {
        Self { identity: "imx2+ watchdog", heartbeat_s: 60, card_reset, ..Self::default() }
    }

    /// BCM2835: up to 15 s, else refused; does not tell.
    pub(super) fn bcm2835() -> Self {
        Self { identity: "Broadcom BCM2835 Watchdog timer", longest_s: 15, heartbeat_s: 15, ..Self::default() }
    }

    /// The kernel's timer.
    pub(super) fn softdog() -> Self {
        Self { identity: "Software Watchdog", longest_s: 65535, heartbeat_s: 60, ..Self::default() }
    }

    /// Whether it has reset the machine by now.
    pub(super) fn has_fired(&self, now: Millis) -> bool {
        self.fed_at.get().is_some_and(|at| now >= at + Millis::from(self.timeout_s.get()) * 1000)
    }
}

impl Machine {
    pub(super) fn new(chips: impl IntoIterator<Item = Chip>) -> Self {
        Self { clock: Clock::default(), chips: chips.into_iter().map(Rc::new).collect(), late: Cell::new(0) }
    }
}

impl Devices for Machine {
    fn found(&self) -> Vec<Found> {
        if self.late.get() > 0 {
            self.late.set(self.late.get() - 1);
            return Vec::new();
        }
        let found = self.chips.iter().enumerate().map(|(number, chip)| Found {
            number: number as u32,
            identity: chip.identity.into(),
            shortest_s: u32::from(chip.longest_s != 0),
            longest_s: chip.longest_s,
        });
        found.collect()
    }

    fn open(&self, number: u32) -> Result<Box<dyn Device>, Errno> {
        let chip = self.chips[number as usize].clone();
        if chip.is_busy {
            return Err(Errno::BUSY);
        }
        chip.timeout_s.set(chip.heartbeat_s);
        chip.fed_at.set(Some(self.clock.get()));
        Ok(Box::new(Handle { chip, clock: self.clock.clone() }))
    }
}

struct Handle {
    chip: Rc<Chip>,
    clock: Clock,
}

impl Device for Handle {
    fn set_timeout(&mut self, seconds: u32) -> Result<u32, Errno> {
        if self.chip.is_mute || seconds == 0 || (self.chip.longest_s != 0 && seconds > self.chip.longest_s) {
            return Err(if self.chip.is_mute { Errno::OPNOTSUPP } else { Errno::INVAL });
        }
        self.chip.timeout_s.set(seconds);
        Ok(seconds)
    }

    fn timeout(&self) -> Result<u32, Errno> {
        if self.chip.is_mute { Err(Errno::OPNOTSUPP) } else { Ok(self.chip.timeout_s.get()) }
    }

    fn boot_status(&self) -> Result<u32, Errno> {
        Ok(if self.chip.card_reset { CARD_RESET } else { 0 })
    }

    fn feed(&mut self) -> Result<(), Errno> {
        if self.chip.breaks.get() {
            return Err(Errno::IO);
        }
        self.chip.feeds.set(self.chip.feeds.get() + 1);
        self.chip.fed_at.set(Some(self.clock.get()));
        if let Some((_, process)) = self.chip.ends.get().filter(|(feeds, _)| self.chip.feeds.get() == *feeds) {
            kill_process(process, Signal::TERM).unwrap();
        }
        Ok(())
    }
}
