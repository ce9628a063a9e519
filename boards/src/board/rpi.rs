//! Raspberry Pi 3, with one of two loaders: U-Boot, which the emulator runs, and the firmware's own A/B switch, which it cannot:
//! it has neither the firmware nor the register that survives a reset.

use crate::{
    Board, Disk, Env, Guarantee, Kernel, Medium, Place, Watchdog,
    env::{tryboot, uboot::Copies},
};

/// The firmware alone. Not exercised: read from its documentation.
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
        // The flag is one-shot: one boot for each time that it is set.
        tries: tryboot::GUARANTEE.tries,
    },
    // The counter has 20 bits of 16 us: a little under 16 s.
    watchdog: Watchdog { driver: "bcm2835_wdt", timeout_s: 15, armed_by_loader: false },
    console: "ttyS1",
    control: "ttyAMA0",
    kernel: Kernel::CompressedImage,
    modules: DRIVERS,
    kernel_args: "console=ttyS1,115200 panic=1",
    env_text: "",
};

/// Debian's U-Boot (`rpi_3` of u-boot-rpi) as QEMU's raspi3b runs it. It keeps one copy of its environment, and does not count.
pub(crate) const UBOOT: Board = Board {
    name: "rpi-uboot",
    about: "Raspberry Pi 3 with Debian's U-Boot, environment in one file in FAT",
    exercised: true,
    disk: Disk {
        device: "/dev/mmcblk0",
        env: Place { number: 1, device: "/dev/mmcblk0p1" },
        boot: Place { number: 2, device: "/dev/mmcblk0p2" },
        storage: Place { number: 3, device: "/dev/mmcblk0p3" },
    },
    env: Env::Uboot { medium: Medium::Fat(Copies::Single("uboot.env")), size: 0x4000 },
    guarantee: Guarantee {
        // One copy, overwritten in place, by the loader at every try too. What is left then is `boot/last`.
        torn_write: false,
        // The script does not start the chip's watchdog: the emulator's resets at once.
        hang_before_linux: false,
        hang_after_linux: true,
        tries: 3,
    },
    // The emulated bcm2835_wdt does not count, it resets as soon as it is opened: a timer of the kernel instead, which covers a
    // PID 1 that hangs and not a kernel that does.
    watchdog: Watchdog { driver: "softdog", timeout_s: 30, armed_by_loader: false },
    kernel_args: "console=ttyS1,115200 panic=1",
    env_text: concat!(include_str!("../../uboot/counted.env"), include_str!("../../uboot/rpi.env")),
    ..BOARD
};

/// Both of its card controllers, the watchdog, which is also what resets the machine, and network through USB.
const DRIVERS: &[&str] = &["bcm2835", "sdhci_iproc", "bcm2835_wdt", "dwc2", "smsc95xx", "cdc_ether", "rndis_host"];
