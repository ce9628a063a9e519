//! The machines that `pvr emulate` knows: for each board, QEMU's command line as a table.
//!
//! To add one, add a [`Machine`]. Nothing else knows what a board is made of.
//! Words in braces stand for what differs from run to run:
//! `{disk}`, `{loader}` the files that the user named; `{log}` where the first serial port's text goes, as `-serial` takes it;
//! `{flash}` the disk's name with .flash, what the board has besides its disk;
//! `{console}` the unix socket for pvcontrol; `{forward}` the forwarded ports, as `-netdev user` takes them.

use crate::error::{Error, Result};

/// One machine.
pub(super) struct Machine {
    /// The board that it is.
    pub board: &'static str,
    /// The emulator.
    pub program: &'static str,
    /// Memory in MiB unless the user asks for another size.
    pub memory: u32,
    /// Whether the disk is an SD card: QEMU takes only those whose size is a power of two.
    pub sd_card: bool,
    /// The command line, in pieces that machines share.
    pub arguments: &'static [&'static [&'static str]],
}

/// QEMU's own machine for arm64. The loader is its firmware.
const VIRT: &[&str] = &["-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-bios", "{loader}"];
const SCREENLESS: &[&str] = &["-display", "none", "-monitor", "none"];
const VIRTIO_DISK: &[&str] =
    &["-drive", "if=none,id=disk,format=raw,cache=writeback,file={disk}", "-device", "virtio-blk-device,drive=disk"];
/// The capabilities are QEMU's own and 64-bit addresses: without those U-Boot reads nothing through DMA.
const SD_CARD: &[&str] = &[
    "-drive",
    "if=none,id=disk,format=raw,cache=writeback,file={disk}",
    "-device",
    "sdhci-pci,capareg=0x157834b4",
    "-device",
    "sd-card,drive=disk",
];
/// Network and console on PCI: with virtio-mmio the guest fills queues of 1024 buffers, 10 MB of its 64.
const VIRTIO_NET: &[&str] = &["-netdev", "user,id=net{forward}", "-device", "virtio-net-pci,netdev=net,romfile="];
const VIRTIO_CONSOLE: &[&str] = &[
    "-chardev",
    "socket,id=console,server=on,wait=off,path={console}",
    "-device",
    "virtio-serial-pci,max_ports=1",
    "-device",
    "virtconsole,chardev=console",
];
const LOG: &[&str] = &["-serial", "{log}"];
/// Where boards/uboot/watchdog.env looks for it.
const I6300ESB: &[&str] = &["-device", "i6300esb,addr=0x10", "-action", "watchdog=reset"];

/// The loader is started as if the firmware had loaded it. Both of its serial ports are the machine's: the kernel's and the loader's is
/// the second one.
const RASPI: &[&str] = &["-M", "raspi3b", "-kernel", "{loader}"];
const RASPI_CARD: &[&str] = &["-drive", "if=sd,format=raw,cache=writeback,file={disk}"];
/// A network adapter on USB, with an address that Linux takes for a maker's own, so that it is called eth0.
const USB_NET: &[&str] = &["-netdev", "user,id=net{forward}", "-device", "usb-net,netdev=net,mac=00:54:00:12:34:56"];
/// pvcontrol on the first serial port, the log from the second.
const CONSOLE_FIRST: &[&str] = &[
    "-chardev",
    "socket,id=console,server=on,wait=off,path={console}",
    "-serial",
    "chardev:console",
    "-serial",
    "{log}",
];
/// The loader is put where the boot ROM would put it.
const SABRELITE: &[&str] =
    &["-M", "sabrelite", "-device", "loader,addr=0x17800000,cpu-num=0,force-raw=on,file={loader}"];
const SPI_FLASH: &[&str] = &["-drive", "if=mtd,format=raw,file={flash}"];
/// The disk twice: as the card that Linux uses, and read-only as a USB disk, because Debian's loader does not see the card.
const SABRELITE_CARD: &[&str] = &[
    "-drive",
    "if=none,id=disk,format=raw,cache=writeback,file={disk}",
    "-device",
    "sd-card,drive=disk",
    "-drive",
    "if=none,id=loader-disk,format=raw,read-only=on,file.locking=off,file={disk}",
    "-device",
    "usb-storage,drive=loader-disk,bus=usb-bus.1",
];
const FEC: &[&str] = &["-nic", "user{forward}"];

const MACHINES: &[Machine] = &[
    Machine {
        board: "qemu-arm64",
        program: "qemu-system-aarch64",
        memory: 64,
        sd_card: false,
        arguments: &[VIRT, SCREENLESS, VIRTIO_DISK, VIRTIO_NET, VIRTIO_CONSOLE, LOG],
    },
    Machine {
        board: "qemu-arm64-lab",
        program: "qemu-system-aarch64",
        memory: 64,
        sd_card: false,
        arguments: &[VIRT, SCREENLESS, VIRTIO_DISK, VIRTIO_NET, VIRTIO_CONSOLE, LOG, I6300ESB],
    },
    Machine {
        board: "qemu-arm64-taken",
        program: "qemu-system-aarch64",
        memory: 64,
        sd_card: false,
        arguments: &[VIRT, SCREENLESS, VIRTIO_DISK, VIRTIO_NET, VIRTIO_CONSOLE, LOG, I6300ESB],
    },
    Machine {
        board: "qemu-arm64-sd",
        program: "qemu-system-aarch64",
        memory: 64,
        sd_card: true,
        arguments: &[VIRT, SCREENLESS, SD_CARD, VIRTIO_NET, VIRTIO_CONSOLE, LOG, I6300ESB],
    },
    Machine {
        board: "rpi-uboot",
        program: "qemu-system-aarch64",
        // Soldered on.
        memory: 1024,
        sd_card: true,
        arguments: &[RASPI, SCREENLESS, RASPI_CARD, USB_NET, CONSOLE_FIRST],
    },
    Machine {
        board: "imx",
        program: "qemu-system-arm",
        // What the loader believes that there is.
        memory: 1024,
        sd_card: true,
        arguments: &[SABRELITE, SCREENLESS, SPI_FLASH, SABRELITE_CARD, FEC, CONSOLE_FIRST],
    },
];

/// The machine of a board.
pub(super) fn find(board: &str) -> Result<&'static Machine> {
    MACHINES.iter().find(|machine| machine.board == board).ok_or_else(|| {
        let known: Vec<_> = MACHINES.iter().map(|machine| machine.board).collect();
        Error::usage(format!("board {board} cannot be emulated")).hint(format!("these can: {}", known.join(", ")))
    })
}

impl Machine {
    /// The command line with what stands for the words in braces, of which an argument has at most one.
    ///
    /// Behind `=` a comma is doubled, as QEMU wants it in an option's value.
    pub(super) fn command_line(&self, word: impl Fn(&str) -> String) -> Vec<String> {
        let expand = |argument: &str| match argument.split_once('{').zip(argument.rsplit_once('}')) {
            None => argument.to_owned(),
            Some(((before, _), (_, after))) => {
                let value = word(&argument[before.len() + 1..argument.len() - after.len() - 1]);
                let value = if before.ends_with('=') { value.replace(',', ",,") } else { value };
                format!("{before}{value}{after}")
            }
        };
        self.arguments.iter().copied().flatten().map(|argument| expand(argument)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_is_a_board_and_says_where_everything_goes() {
        for machine in MACHINES {
            assert!(boards::find(machine.board).is_some(), "{}", machine.board);
            assert_eq!(find(machine.board).unwrap().board, machine.board);
            let line = machine.command_line(|name| format!("<{name},>")).join(" ");
            assert!(!line.contains(['{', '}']), "{line}");
            assert!(
                line.contains("=<disk,,>") && line.contains("<loader,") && line.contains("-serial <log,>"),
                "{line}"
            );
        }
        assert!(find("toaster").err().unwrap().to_string().contains("cannot be emulated"));
    }

    #[test]
    fn a_file_name_may_hold_a_comma_and_braces() {
        let machine = Machine { arguments: &[&["-bios", "{loader}", "x,file={disk}", "user{forward}"]], ..MACHINES[0] };
        let line = machine.command_line(|name| format!("a,{{{name}}}"));
        assert_eq!(line, ["-bios", "a,{loader}", "x,file=a,,{disk}", "usera,{forward}"]);
    }
}
