//! QEMU's `virt` machine for arm64, 64 MB, with U-Boot built by `ci/u-boot`: three boards that differ in disk, kernel and watchdog, and
//! one as the original sets a device up.
//!
//! Each text of the environment is the boot script, the machine, the disk, and the watchdog where there is one; `ci/u-boot` puts
//! the same together for what it compiles in.

use crate::{
    Board, Disk, Env, Guarantee, Kernel, Medium, Place, Watchdog,
    env::{
        uboot::{Copies, Scheme},
        uboot_txt,
    },
};

/// The texts of boards/uboot with these names, one after the other.
macro_rules! texts {
    ($($name:literal)*) => { concat!($(include_str!(concat!("../../uboot/", $name, ".env"))),*) };
}

/// The emulated device of the demonstration: Debian's cloud kernel, nothing to build.
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
    // Names and size as in boards/uboot/virtio.config. U-Boot counts FAT files incrementally.
    env: Env::Uboot {
        medium: Medium::Fat(Copies::Redundant(["uboot.env", "uboot-redund.env"], Scheme::Incremental)),
        size: 0x4000,
    },
    guarantee: Guarantee {
        torn_write: true,
        // The cloud kernel drives no watchdog that this machine can have.
        hang_before_linux: false,
        hang_after_linux: true,
        tries: 3,
    },
    // A timer of the kernel: covers a PID 1 that hangs, not a kernel that does.
    watchdog: Watchdog { driver: "softdog", timeout_s: 30, armed_by_loader: false },
    console: "ttyAMA0",
    control: "hvc0",
    kernel: Kernel::Image,
    modules: &[],
    kernel_args: "console=ttyAMA0 panic=1",
    env_text: texts!("script" "qemu-arm64" "virtio"),
};

/// The same disk with our own small kernel (`ci/kernel lab`) and a watchdog.
pub(crate) const LAB: Board = Board {
    name: "qemu-arm64-lab",
    about: "QEMU virt, arm64, one virtio disk, U-Boot with its environment in FAT, own kernel, hardware watchdog",
    guarantee: Guarantee { hang_before_linux: true, ..BOARD.guarantee },
    watchdog: Watchdog { driver: "i6300esb", timeout_s: 30, armed_by_loader: true },
    env_text: texts!("script" "qemu-arm64" "virtio" "watchdog"),
    ..BOARD
};

/// An SD card, as most boards boot from, with the environment at raw offsets; kernel and watchdog of the lab.
pub(crate) const SD: Board = Board {
    name: "qemu-arm64-sd",
    about: "QEMU virt, arm64, one SD card, U-Boot with its environment at raw offsets, own kernel, hardware watchdog",
    disk: Disk {
        device: "/dev/mmcblk0",
        env: Place { number: 0, device: "/dev/mmcblk0" },
        boot: Place { number: 1, device: "/dev/mmcblk0p1" },
        storage: Place { number: 2, device: "/dev/mmcblk0p2" },
    },
    // As in boards/uboot/sd.config. 4 MiB apart: an erase group of the card that dies with a power cut takes one copy, not both.
    env: Env::Uboot {
        medium: Medium::Raw(Copies::Redundant([0x10_0000, 0x50_0000], Scheme::Incremental)),
        size: 0x4000,
    },
    env_text: texts!("script" "qemu-arm64" "sd" "watchdog"),
    ..LAB
};

/// A device of the original, taken over: its partitions, its storage, its boot script. Kernel and watchdog of the lab.
pub(crate) const TAKEN: Board = Board {
    name: "qemu-arm64-taken",
    about: "QEMU virt, arm64, one virtio disk as the original sets it up: storage with uboot.txt, and its boot script",
    disk: Disk {
        device: "/dev/vda",
        env: Place { number: 1, device: "/dev/vda1" },
        boot: Place { number: 2, device: "/dev/vda2" },
        storage: Place { number: 2, device: "/dev/vda2" },
    },
    env: Env::UbootTxt { file: "uboot.txt", mark: "pv.env" },
    guarantee: uboot_txt::GUARANTEE,
    watchdog: Watchdog { armed_by_loader: false, ..LAB.watchdog },
    // Both are the original's.
    kernel_args: "",
    env_text: "",
    ..LAB
};
