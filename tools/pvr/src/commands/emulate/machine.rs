//! The machines that `pvr emulate` knows: for each board, QEMU's command line as a table.
//!
//! To add one, add a [`Machine`]. Nothing else knows what a board is made of.
//! Words in braces stand for what differs from run to run:
//! `{disk}`, `{loader}` the files that the user named; `{log}` where the first serial port's text goes, as `-serial` takes it;
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
        board: "qemu-arm64-sd",
        program: "qemu-system-aarch64",
        memory: 64,
        sd_card: true,
        arguments: &[VIRT, SCREENLESS, SD_CARD, VIRTIO_NET, VIRTIO_CONSOLE, LOG, I6300ESB],
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
