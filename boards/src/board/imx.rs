//! i.MX6 Quad SABRE Lite with Debian's U-Boot (`nitrogen6q` of u-boot-imx) as QEMU's sabrelite runs it: 32-bit Arm, the
//! environment in SPI flash, the disk on an SD card. That U-Boot does not see the emulator's card, so the emulator shows it the
//! same disk as a USB disk, too, which only the loader reads.

use crate::{Board, Disk, Env, Flash, Guarantee, Kernel, Medium, Place, Watchdog, env::uboot::Copies};

/// The board.
pub(crate) const BOARD: Board = Board {
    name: "imx",
    about: "i.MX6 SABRE Lite with Debian's U-Boot, environment in SPI flash",
    exercised: true,
    disk: Disk {
        device: "/dev/mmcblk3",
        env: Place { number: 0, device: "/dev/mtd0" },
        boot: Place { number: 1, device: "/dev/mmcblk3p1" },
        storage: Place { number: 2, device: "/dev/mmcblk3p2" },
    },
    env: Env::Uboot {
        medium: Medium::Mtd(Copies::Single(Flash { device: "/dev/mtd0", offset: 0xC_0000, erase: 0x1000 })),
        size: 0x2000,
    },
    guarantee: Guarantee {
        // One copy, erased and written anew, by the loader at every try too. What is left then is `boot/last`.
        torn_write: false,
        hang_before_linux: true,
        hang_after_linux: true,
        tries: 3,
    },
    watchdog: Watchdog { driver: "imx2_wdt", timeout_s: 60, armed_by_loader: true },
    console: "ttymxc1",
    control: "ttymxc0",
    kernel: Kernel::ZImage,
    // The GPIOs tell that a card is there.
    modules: &["gpio_mxc", "anatop_regulator", "sdhci_esdhc_imx", "spi_imx", "spi_nor", "fec"],
    kernel_args: "console=ttymxc1,115200 panic=1 watchdog.open_timeout=120",
    env_text: concat!(include_str!("../../uboot/counted.env"), include_str!("../../uboot/imx.env")),
};
