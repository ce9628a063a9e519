//! `pvr image bsp`.
//!
//! The initramfs holds nothing but our binary as `/init`, empty mount points, the device policy, the kernel modules in a
//! flat, ordered list, and `e2fsck` where it is asked for; for a device that is taken over also the name by which its loader
//! starts the first process. Equal input gives equal bytes.

use crate::{
    commands::Context,
    cpio::Archive,
    error::{Error, Result},
    files,
    modules::{Module, Tree},
    repo::Repo,
};
use boards::{Board, Kernel};
use clap::Parser;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// Write kernel and initramfs into bsp/ of this repository
///
/// Makes bsp/kernel.img (the uncompressed kernel), bsp/initrd.img (switchback as /init, the device policy and the
/// kernel modules that the board needs, with what those depend on, in load order; none if the kernel has everything
/// built in) and bsp/run.json. The same input gives the same bytes. `pvr add` and `pvr commit` make them part of the
/// revision.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr image bsp --board qemu-arm64 --switchback switchback --kernel Image --modules lib/modules/6.12.1 --dev
  pvr image bsp --board qemu-arm64 --switchback switchback --kernel Image --modules lib/modules/6.12.1 \\
      --policy PV_UPDATER_COMMIT_DELAY=5 --module dm_verity
  pvr image bsp --board qemu-arm64 --switchback switchback-full --kernel Image --modules lib/modules/6.12.1 --endpoint
  pvr image bsp --board qemu-arm64-lab --switchback switchback --kernel Image --e2fsck sbin/e2fsck.static
  pvr image bsp --board qemu-arm64-taken --switchback switchback --kernel Image
  pvr image bsp --board imx --switchback switchback --kernel zImage --fdt imx6q-sabrelite.dtb --modules lib/modules/6.1")]
pub(in crate::commands) struct Args {
    /// The board that will boot it
    #[arg(long)]
    board: String,
    /// The static binary `switchback` for the board
    #[arg(long, value_name = "FILE")]
    switchback: PathBuf,
    /// The kernel: an arm64 Image, plain or compressed by gzip, or for 32-bit Arm a zImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The device tree, for a board whose loader brings none
    #[arg(long, value_name = "FILE")]
    fdt: Option<PathBuf>,
    /// Folder with the kernel's modules [default: none, everything is built into the kernel]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// A static e2fsck for the board: the device repairs a damaged file system with it before it mounts it. Debian's
    /// package e2fsck-static has one; it takes no memory once the device has started
    #[arg(long, value_name = "FILE")]
    e2fsck: Option<PathBuf>,
    /// A device to develop on: endpoint open to everybody, signatures off, console with pvcontrol. Never ship one
    #[arg(long)]
    dev: bool,
    /// Open the endpoint, over TLS, to who was paired with a code that the device shows; with --dev too, instead of to everybody
    #[arg(long)]
    endpoint: bool,
    /// A line of the device policy; given again, the last one counts; without a value the line is left out
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_policy)]
    policy: Vec<(String, String)>,
    /// A further kernel module
    #[arg(long, value_name = "NAME", requires = "modules")]
    module: Vec<String>,
}

/// What every board loads as far as its kernel has it as modules: disk and file systems, network, console, packet
/// sockets for DHCP, and the timer that stands in for a watchdog. The board's own watchdog comes to it.
const MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "squashfs",
    "overlay",
    "loop",
    "virtio_console",
    "virtio_net",
    "af_packet",
    "softdog",
];

/// Folders that PID 1 expects: mount points, and where it reads its policy.
const FOLDERS: &[&str] =
    &["boot", "dev", "etc", "lib", "lib/modules", "mnt", "proc", "root", "run", "storage", "sys", "tmp"];

/// What the original's boot script tells the kernel to start.
const ORIGINAL: &str = "usr/bin/pantavisor";

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let repo = Repo::open()?;
    let board = super::board(&args.board)?;
    let spinner = context.spinner("packing the initramfs");
    let kernel = kernel(board, args)?;
    let fdt = args.fdt.as_deref().map(fdt).transpose()?;
    let modules = modules(board, args)?;
    let policy = policy(board, args);
    let init = files::read(&args.switchback)?;
    if !init.starts_with(b"\x7fELF") {
        return Err(Error::input(format!("{} is not a Linux program", args.switchback.display())));
    }
    serves_somebody(&policy, &init)?;
    let e2fsck = args.e2fsck.as_deref().map(static_program).transpose()?;
    let initrd = initrd(board, &init, &policy, &modules, e2fsck.as_deref());
    let bsp = repo.root().join("bsp");
    files::create_dir(&bsp)?;
    files::write_atomic(&bsp.join("kernel.img"), 0o644, &kernel)?;
    files::write_atomic(&bsp.join("initrd.img"), 0o644, &initrd)?;
    // A later release that begins a factory reset relies on this one, as revision 0, to end it.
    let mut run = json!({"initrd": "initrd.img", "linux": "kernel.img", "switchback.factory-reset": true});
    if let Some(fdt) = &fdt {
        files::write_atomic(&bsp.join(FDT), 0o644, fdt)?;
        run["fdt"] = FDT.into();
    }
    files::write_atomic(&bsp.join("run.json"), 0o644, format!("{run:#}\n").as_bytes())?;
    spinner.finish_and_clear();
    let names: Vec<_> = modules.iter().map(|m| m.file.trim_end_matches(".ko")).collect();
    context.say(
        json!({"kernel": kernel.len(), "initrd": initrd.len(), "modules": names, "policy": policy, "dev": args.dev}),
        || {
            let policy: String = policy.iter().map(|(k, v)| format!("\n    {k}={v}")).collect();
            let modules = if names.is_empty() { "no modules".into() } else { format!("modules {}", names.join(" ")) };
            format!(
                "bsp/kernel.img: {} bytes\nbsp/initrd.img: {} bytes, {modules}\ndevice policy:{policy}",
                kernel.len(),
                initrd.len()
            )
        },
    );
    if args.dev {
        context.warn(super::disk::DEV_WARNING);
    }
    if board.is_taken_over() {
        context.warn(&unsigned_warning(&policy));
    }
    Ok(())
}

/// The device had a policy before this one, and may have asked for signatures.
fn unsigned_warning(policy: &BTreeMap<String, String>) -> String {
    let mode = policy.get("PV_SECUREBOOT_MODE").map_or("nothing", String::as_str);
    format!(
        "SIGNATURES ARE NOT CHECKED by this release, whatever the device's policy has asked for until now (this one says of \
         PV_SECUREBOOT_MODE: {mode}). Once this base is committed, the device takes revisions that nobody has signed."
    )
}

/// Name of the device tree in bsp/.
const FDT: &str = "fdt.dtb";

/// The kernel as the board's loader wants it.
fn kernel(board: &Board, args: &Args) -> Result<Vec<u8>> {
    let raw = files::read(&args.kernel)?;
    let name = args.kernel.display();
    if board.kernel == Kernel::ZImage {
        const ZIMAGE: &[u8] = &0x016f_2818_u32.to_le_bytes();
        return if raw.get(0x24..0x28) == Some(ZIMAGE) {
            Ok(raw)
        } else {
            let hint = format!("{} is a 32-bit board; Debian's /boot/vmlinuz-*-armmp is a kernel for it", board.name);
            Err(Error::input(format!("{name} is not a zImage")).hint(hint))
        };
    }
    let mut image = Vec::new();
    if raw.starts_with(&[0x1f, 0x8b]) {
        let unpacked = flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut image);
        unpacked.map_err(|e| Error::input(format!("{name} cannot be unpacked: {e}")))?;
    } else {
        image = raw;
    }
    if image.get(0x38..0x3c) != Some(b"ARM\x64") {
        let hint = "Debian's /boot/vmlinuz-*-arm64 is one; an EFI zboot image has to be unpacked first";
        return Err(Error::input(format!("{name} is not an arm64 Image")).hint(hint));
    }
    Ok(if board.kernel == Kernel::CompressedImage { compressed(&image) } else { image })
}

/// The device tree, as it is.
fn fdt(path: &Path) -> Result<Vec<u8>> {
    let raw = files::read(path)?;
    let is_tree = raw.starts_with(&0xd00d_feed_u32.to_be_bytes());
    if is_tree { Ok(raw) } else { Err(Error::input(format!("{} is not a device tree (.dtb)", path.display()))) }
}

/// Equal input gives equal bytes: no time, no name.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip =
        flate2::GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("a Vec takes every byte")
}

fn modules(board: &Board, args: &Args) -> Result<Vec<Module>> {
    let Some(folder) = &args.modules else { return Ok(Vec::new()) };
    let tree = Tree::open(folder)?;
    // What the default list names and the folder lacks is built into the kernel; PID 1 finds out if it is not.
    // The watchdog comes first: a loader may have started it.
    let wanted = [board.watchdog.driver].into_iter().chain(MODULES.iter().chain(board.modules).copied());
    let usual = wanted.filter(|name| tree.knows(name));
    tree.resolve(usual.chain(args.module.iter().map(String::as_str)))
}

/// The device policy: the board's defaults, what --dev opens, then what was asked for.
fn policy(board: &Board, args: &Args) -> BTreeMap<String, String> {
    let mut lines = vec![("switchback.board", board.name), ("PV_SECUREBOOT_MODE", "disabled")];
    if args.dev {
        lines.push(("switchback.console", board.control));
    }
    if args.dev || args.endpoint {
        let access = if args.endpoint { "paired" } else { "open" };
        lines.extend([("switchback.endpoint", "0.0.0.0:12368"), ("switchback.endpoint-access", access)]);
    }
    let mut policy: BTreeMap<_, _> = lines.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    for (key, value) in &args.policy {
        if value.is_empty() {
            policy.remove(key);
        } else {
            policy.insert(key.clone(), value.clone());
        }
    }
    policy
}

/// Refuses an endpoint that could serve nobody: its policy asks for TLS, which the binary says it does not have.
fn serves_somebody(policy: &BTreeMap<String, String>, init: &[u8]) -> Result<()> {
    const PROFILE: &[u8] = b"profile small\n";
    let access = policy.get("switchback.endpoint-access").map_or("paired", String::as_str);
    let small = init.windows(PROFILE.len()).any(|part| part == PROFILE);
    if policy.contains_key("switchback.endpoint") && access == "paired" && small {
        let hint = "build switchback with --features tls; or, where nobody listens on the way, allow tokens in plain HTTP: \
            --policy switchback.endpoint-access=paired-plain";
        return Err(Error::input("a paired endpoint needs TLS, which this switchback does not have").hint(hint));
    }
    Ok(())
}

/// A program that needs no loader of programs: the initramfs has none.
fn static_program(path: &Path) -> Result<Vec<u8>> {
    let bytes = files::read(path)?;
    let hint = "Debian's package e2fsck-static has one, as /sbin/e2fsck.static";
    match names_interpreter(&bytes) {
        Some(false) => Ok(bytes),
        Some(true) => Err(Error::input(format!("{} is not a static program", path.display())).hint(hint)),
        None => Err(Error::input(format!("{} is not a Linux program", path.display())).hint(hint)),
    }
}

/// Whether an ELF file, little endian, names the loader that it wants to be run by; `None`: it is no such file.
fn names_interpreter(elf: &[u8]) -> Option<bool> {
    const INTERPRETER: &[u8] = &3_u32.to_le_bytes();
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        bytes.iter().rev().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    let (start, size, count) = match elf.get(..6)? {
        b"\x7fELF\x02\x01" => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
        b"\x7fELF\x01\x01" => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
        _ => return None,
    };
    let entry = |index: usize| elf.get(start.checked_add(index * size)?..)?.get(..4);
    (0..count).map(entry).try_fold(false, |found, kind| Some(found || kind? == INTERPRETER))
}

fn initrd(
    board: &Board,
    init: &[u8],
    policy: &BTreeMap<String, String>,
    modules: &[Module],
    e2fsck: Option<&[u8]>,
) -> Vec<u8> {
    let mut archive = Archive::default();
    FOLDERS.iter().for_each(|dir| archive.dir(dir));
    if board.is_taken_over() {
        ["usr", "usr/bin"].iter().for_each(|dir| archive.dir(dir));
        archive.link(ORIGINAL, "/init");
    }
    if let Some(e2fsck) = e2fsck {
        archive.dir("sbin");
        archive.file("sbin/e2fsck", 0o755, e2fsck);
    }
    let config: String = policy.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
    archive.file("etc/pantavisor.config", 0o644, config.as_bytes());
    let list: String = modules.iter().map(|m| format!("{}\n", m.file)).collect();
    archive.file("lib/modules/list", 0o644, list.as_bytes());
    for module in modules {
        archive.file(&format!("lib/modules/{}", module.file), 0o644, &module.content);
    }
    archive.file("init", 0o755, init);
    compressed(&archive.finish())
}

fn parse_policy(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains(['\n', '\r']) => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE on one line".into()),
    }
}
