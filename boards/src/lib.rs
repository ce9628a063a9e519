//! What differs between devices: one constant per board, and one codec per kind of loader environment.
//!
//! A board is data. To add one, add a file under `board/` and a line in [`BOARDS`]; nothing else changes.
//! Never Linux: bytes come and go through `runtime::port::Region`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod board;
pub mod env;
pub mod watchdog;

use env::uboot::Copies;

/// Everything that the device and the image builder need to know about one board.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// The name by which policy files and `pvr image --board` choose it.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Whether tests boot this board, with its loader, from its image. If not, its data is read from
    /// sources and manuals and nothing more.
    pub exercised: bool,
    /// Where things are on the disk.
    pub disk: Disk,
    /// How loader and device agree which revision boots.
    pub env: Env,
    /// What that agreement is worth.
    pub guarantee: Guarantee,
    /// The hardware or software that resets a device whose PID 1 no longer turns.
    pub watchdog: Watchdog,
    /// Serial console, as in `console=`.
    pub console: &'static str,
    /// Terminal on which a device to develop on serves `pvcontrol`.
    pub control: &'static str,
    /// What its loader takes as a kernel.
    pub kernel: Kernel,
    /// Drivers that it needs besides those of every board, in the order in which they are loaded, as far as its kernel
    /// has them as modules.
    pub modules: &'static [&'static str],
    /// What the boot script puts on the kernel command line besides the `pv_` words.
    pub kernel_args: &'static str,
    /// The boot script and its settings as stored in the environment; empty if the loader has no scripts.
    pub env_text: &'static str,
}

/// The kinds of kernel file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// arm64's Image.
    Image,
    /// arm64's Image compressed by gzip, which the loader unpacks.
    CompressedImage,
    /// 32-bit Arm's zImage.
    ZImage,
}

/// Partition numbers of the image, and how Linux calls them.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// The whole disk.
    pub device: &'static str,
    /// Holds the environment copies at fixed offsets: a partition, or the whole disk for raw offsets.
    pub env: Place,
    /// ext4 that the loader reads: boot assets of the kept revisions, journal, `last`. Where it is storage itself, as the
    /// original has it, journal and `last` lie in its folder `boot`, and the assets in the revisions.
    pub boot: Place,
    /// ext4 with objects, trails and volumes.
    pub storage: Place,
}

/// A partition.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Number in the partition table, from 1; 0 is the whole disk.
    pub number: u8,
    /// Device node.
    pub device: &'static str,
}

/// The kinds of environment.
#[derive(Clone, Copy, Debug)]
pub enum Env {
    /// U-Boot's own environment.
    Uboot {
        /// Where the copies are, and how many.
        medium: Medium,
        /// `CONFIG_ENV_SIZE`, header included.
        size: u32,
    },
    /// What the original's boot script reads: a text that names the revisions, which we write, and a mark of the
    /// revision on trial, which the loader writes.
    UbootTxt {
        /// Our text, a file in storage's folder `boot`.
        file: &'static str,
        /// The loader's mark, in the FAT partition.
        mark: &'static str,
    },
    /// GRUB's environment block.
    Grub {
        /// A path on the boot file system.
        file: &'static str,
    },
    /// Raspberry Pi firmware: `autoboot.txt` names the committed partition, a one-shot flag in a register
    /// that survives reset names the other.
    Tryboot {
        /// File in the first FAT partition.
        file: &'static str,
        /// The two boot partitions.
        partitions: [u8; 2],
    },
    /// Two slots, each an image behind a header that names its revision; which one boots is in U-Boot's environment.
    UbootAb {
        /// The slots' devices.
        slots: [&'static str; 2],
        /// Where the copies of U-Boot's environment are.
        medium: Medium,
        /// `CONFIG_ENV_SIZE`.
        size: u32,
    },
}

/// Where U-Boot keeps its environment.
#[derive(Clone, Copy, Debug)]
pub enum Medium {
    /// Pre-sized files in the root of a small FAT partition (`disk.env`). They are found once, by `env::fat`, and then
    /// written by their sector offsets.
    Fat(Copies<&'static str>),
    /// Byte offsets of the device or partition `disk.env`; negative ones count from its end.
    Raw(Copies<i64>),
    /// Flash behind the MTD layer that is written as it is: NOR. Each copy in erase blocks of its own.
    Mtd(Copies<Flash>),
    /// Volumes of UBI, by name; each copy is all of its volume. An update of a volume makes it unreadable until it is
    /// complete.
    Ubi {
        /// The UBI device, `/dev/ubi0`.
        device: &'static str,
        /// Names of the volumes.
        volumes: Copies<&'static str>,
    },
}

/// A place in flash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flash {
    /// The MTD device, `/dev/mtd0`.
    pub device: &'static str,
    /// Byte offset in it: the start of an erase block.
    pub offset: u64,
    /// Size of an erase block, as the loader has it.
    pub erase: u32,
}

/// Who counts the boots of a candidate that do not reach us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// The loader itself.
    Loader,
    /// The boot script, because its loader does not.
    Script,
    /// Nobody: only those that reach us are counted.
    Nobody,
}

impl Counter {
    /// Its word in documents.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Script => "boot script",
            Self::Nobody => "switchback",
        }
    }
}

/// What a kind of environment guarantees on this board, shown by the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guarantee {
    /// A write that power cuts in half leaves the decision before it in force.
    pub torn_write: bool,
    /// A candidate that hangs before Linux drives the watchdog is given up without a person.
    pub hang_before_linux: bool,
    /// A candidate whose PID 1 hangs is given up without a person.
    pub hang_after_linux: bool,
    /// Boots of a candidate that the loader itself counts; 0 if it cannot count.
    pub tries: u8,
}

/// A watchdog.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// Its driver, one of [`watchdog::DRIVERS`].
    pub driver: &'static str,
    /// Time without being fed after which it resets the device, as we ask for it. Seconds.
    pub timeout_s: u32,
    /// Whether the loader starts it, so that it covers the kernel's own start.
    pub armed_by_loader: bool,
}

impl Board {
    /// Who counts the boots of a candidate that do not reach us. A loader that counts runs `altbootcmd` above the limit;
    /// a script for one that does not has none. The flag of a Raspberry Pi's firmware counts to one, without a script.
    pub fn counter(&self) -> Counter {
        let counts_itself =
            matches!(self.env, Env::Tryboot { .. }) || env::uboot::text_value(self.env_text, "altbootcmd").is_some();
        match self.guarantee.tries {
            0 => Counter::Nobody,
            _ if counts_itself => Counter::Loader,
            _ => Counter::Script,
        }
    }
}

impl Board {
    /// Whether the device was taken over from the original: one file system for everything, which the loader reads, and a
    /// boot script that is not ours and says no version.
    pub fn is_taken_over(&self) -> bool {
        self.loader_text().is_some()
    }

    /// On such a device, the name of the loader's text in storage's folder `boot`.
    pub fn loader_text(&self) -> Option<&'static str> {
        if let Env::UbootTxt { file, .. } = self.env { Some(file) } else { None }
    }

    /// Whether storage may grow to the end of its disk: it is a partition of it, no loader reads it, and no copy of the
    /// environment lies behind it, in raw sectors that no table knows of.
    pub fn may_grow(&self) -> bool {
        let behind = |offset: &i64| *offset < 0;
        let raw = match self.env {
            Env::Uboot { medium: Medium::Raw(copies), .. } | Env::UbootAb { medium: Medium::Raw(copies), .. } => {
                match copies {
                    Copies::Single(offset) => behind(&offset),
                    Copies::Redundant(offsets, _) => offsets.iter().any(behind),
                }
            }
            _ => false,
        };
        self.disk.storage.number > 0 && !raw && !self.is_taken_over()
    }
}

/// `boot.scr` beside `pv.env` (the environment as the image was made): what a loader whose compiled-in environment is not
/// ours runs when it lost the stored one. For a board with a single copy, in the partition that such a loader looks at.
pub const FALLBACK: &str = include_str!("../uboot/fallback.scr");

/// Every board that this release knows.
pub const BOARDS: &[&Board] = &[
    &board::qemu_arm64::BOARD,
    &board::qemu_arm64::LAB,
    &board::qemu_arm64::SD,
    &board::qemu_arm64::TAKEN,
    &board::rpi::BOARD,
    &board::rpi::UBOOT,
    &board::imx::BOARD,
];

/// The board with this name.
pub fn find(name: &str) -> Option<&'static Board> {
    BOARDS.iter().copied().find(|board| board.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_unique() {
        for (index, board) in BOARDS.iter().enumerate() {
            assert_eq!(find(board.name).unwrap().name, board.name);
            assert!(BOARDS[..index].iter().all(|other| other.name != board.name));
        }
        assert!(find("").is_none() && find("qemu").is_none());
    }

    #[test]
    fn storage_does_not_grow_over_an_environment_at_the_end_of_the_disk() {
        let board = find("qemu-arm64-sd").unwrap();
        assert!(BOARDS.iter().all(|board| board.may_grow() != board.is_taken_over()));
        let medium = Medium::Raw(Copies::Redundant([0x10_0000, -0x8000], env::uboot::Scheme::Incremental));
        assert!(!Board { env: Env::Uboot { medium, size: 0x4000 }, ..*board }.may_grow());
    }

    /// The loader of a device that was taken over reads storage, and nothing that a store of ours writes is anywhere else.
    #[test]
    fn where_the_loader_reads_storage_there_is_no_other_file_system() {
        for board in BOARDS {
            let one = board.disk.boot.device == board.disk.storage.device;
            assert_eq!(board.is_taken_over(), one, "{}", board.name);
            assert_eq!(board.disk.boot.number == board.disk.storage.number, one, "{}", board.name);
        }
    }

    #[test]
    fn who_counts_is_known() {
        let board = find("qemu-arm64").unwrap();
        assert_eq!(board.counter(), Counter::Loader);
        let script = Board { env_text: "bootlimit=3\nbootcmd=run pv_count\n", ..*board };
        assert_eq!(script.counter(), Counter::Script);
        let flag = find("rpi").unwrap();
        assert_eq!((flag.counter(), flag.guarantee), (Counter::Loader, env::tryboot::GUARANTEE));
        let nobody = Guarantee { tries: 0, ..board.guarantee };
        assert_eq!(Board { guarantee: nobody, ..*board }.counter(), Counter::Nobody);
    }

    #[test]
    fn what_a_board_says_of_its_script_is_what_the_script_says() {
        for board in BOARDS.iter().filter(|board| !board.env_text.is_empty()) {
            let value = |name: &str| env::uboot::text_value(board.env_text, name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(value("pv_args"), board.kernel_args);
            assert!(runtime::boot::SCRIPTS.contains(&value("pv_script").parse().unwrap()));
            assert_eq!(value("bootlimit"), std::format!("{}", board.guarantee.tries));
            assert!(board.kernel_args.contains(board.console));
        }
    }
}
