//! i.MX6 with the environment at raw offsets of the SD card. Not exercised: offsets are those of our own
//! layout, devices and watchdog those that Debian's kernel shows under emulation.

use crate::{
    Board, Disk, Env, Guarantee, Medium, Place, Watchdog,
    env::uboot::{Copies, Scheme},
};

/// i.MX6 (SABRE Lite and its relatives).
pub(crate) const BOARD: Board = Board {
    name: "imx",
    about: "i.MX6 with U-Boot, environment at raw offsets (not yet exercised)",
    exercised: false,
    disk: Disk {
        device: "/dev/mmcblk3",
        env: Place { number: 0, device: "/dev/mmcblk3" },
        boot: Place { number: 1, device: "/dev/mmcblk3p1" },
        storage: Place { number: 2, device: "/dev/mmcblk3p2" },
    },
    // 4 MiB apart: an erase group of the card that dies with a power cut takes one copy, not both.
    env: Env::Uboot {
        medium: Medium::Raw(Copies::Redundant([0x10_0000, 0x50_0000], Scheme::Incremental)),
        size: 0x4000,
    },
    guarantee: Guarantee { torn_write: true, hang_before_linux: false, hang_after_linux: true, tries: 3 },
    watchdog: Watchdog { driver: "imx2-wdt", timeout_s: 60, armed_by_loader: false },
    console: "ttymxc1",
    kernel_args: "console=ttymxc1,115200 panic=1",
    // No script of ours yet: without one nothing can be armed.
    env_text: "",
};
