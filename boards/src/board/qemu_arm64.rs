//! QEMU's `virt` machine for arm64: one virtio disk, U-Boot built by `ci/u-boot`, 64 MB.

use crate::{
    Board, Disk, Env, Guarantee, Medium, Place, Watchdog,
    env::uboot::{Copies, Scheme},
};

/// The emulated device that every test and the demo boot.
pub(crate) const BOARD: Board = Board {
    name: "qemu-arm64",
    about: "QEMU virt, arm64, one virtio disk, U-Boot with its environment in FAT",
    exercised: true,
    disk: Disk {
        device: "/dev/vda",
        env: Place { number: 1, device: "/dev/vda1" },
        boot: Place { number: 2, device: "/dev/vda2" },
        storage: Place { number: 3, device: "/dev/vda3" },
    },
    // Names and size as in boards/uboot/qemu-arm64.config. U-Boot counts FAT files incrementally.
    env: Env::Uboot {
        medium: Medium::Fat(Copies::Redundant(["uboot.env", "uboot-redund.env"], Scheme::Incremental)),
        size: 0x4000,
    },
    guarantee: Guarantee {
        torn_write: true,
        // `virt` has no watchdog that U-Boot 2023.01 or the cloud kernel drives.
        hang_before_linux: false,
        hang_after_linux: true,
        tries: 3,
    },
    // A timer of the kernel: covers a PID 1 that hangs, not a kernel that does.
    watchdog: Watchdog { driver: "softdog", timeout_s: 30, armed_by_loader: false },
    console: "ttyAMA0",
    kernel_args: "console=ttyAMA0 panic=1",
    env_text: include_str!("../../uboot/qemu-arm64.env"),
};
