//! Raspberry Pi 3 and later with the firmware's own A/B switch. Not exercised: read from the firmware's
//! documentation; the emulator has neither the firmware nor the register that survives a reset.

use crate::{Board, Disk, Env, Guarantee, Place, Watchdog};

/// Raspberry Pi.
pub(crate) const BOARD: Board = Board {
    name: "rpi",
    about: "Raspberry Pi, firmware tryboot (not yet exercised)",
    exercised: false,
    disk: Disk {
        device: "/dev/mmcblk0",
        env: Place { number: 1, device: "/dev/mmcblk0p1" },
        boot: Place { number: 2, device: "/dev/mmcblk0p2" },
        storage: Place { number: 4, device: "/dev/mmcblk0p4" },
    },
    env: Env::Tryboot { file: "autoboot.txt", partitions: [2, 3] },
    guarantee: Guarantee {
        // One 512-byte sector overwritten in place.
        torn_write: true,
        // The firmware does not start the watchdog by itself.
        hang_before_linux: false,
        hang_after_linux: true,
        // The flag is one-shot: the firmware goes back at the next reset, it does not count.
        tries: 0,
    },
    // The counter has 20 bits of 16 us: a little under 16 s.
    watchdog: Watchdog { driver: "bcm2835_wdt", timeout_s: 15, armed_by_loader: false },
    console: "ttyS1",
    kernel_args: "console=ttyS1,115200 panic=1",
    env_text: "",
};
