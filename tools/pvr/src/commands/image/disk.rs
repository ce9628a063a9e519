//! `pvr image disk`.
//!
//! In this order: the two copies of the loader's environment, a small ext4 that the loader reads (boot assets, journal,
//! `last`), and the storage. The environment lies where the board has it: in a FAT partition of its own with nothing else
//! in it, or at fixed offsets before the first partition, or in flash, which is a file of its own beside the image. Where the
//! environment has a single copy, the loader finds beside it, or on the boot partition, what it goes on with when that copy is
//! lost. The committed state of the repository becomes revision 0.

use crate::{
    canonical::{self, CANONICAL},
    commands::Context,
    device,
    disk::{self, Ext4, FAT, FileRegion, LINUX, MIB, Partition},
    error::{During, Error, Result},
    files,
    repo::{self, Repo, State},
    uimage,
};
use boards::{Board, Env, Medium, env::uboot::Copies};
use clap::Parser;
use runtime::{
    id::RevName,
    port::{BootEnv, BootVars},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{Seek, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Make a disk with a repository as its factory revision
///
/// Holds the two copies of the loader's environment with the board's boot script (in a partition of their own or before
/// the first one, as the board has it), a partition that the loader reads, and one with the objects and revisions. The
/// committed state becomes revision 0. Beside the image it leaves what fw_setenv on the device needs: FILE.fw_env.config,
/// and the same as YAML, and for a board with its environment in flash what is in that: the image's name with .flash. Needs
/// mtools and e2fsprogs, and no root.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr image disk --board qemu-arm64 --repo . --out device.img --dev
  pvr image disk --board qemu-arm64 --repo ~/device --out device.img --size 1G
  pvr image disk --board qemu-arm64-sd --repo . --out card.img")]
pub(in crate::commands) struct Args {
    /// The board that will boot it
    #[arg(long)]
    board: String,
    /// The repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    /// The image to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Size of the whole disk
    #[arg(long, value_parser = parse_size, default_value = "512M")]
    size: u64,
    /// Size of the partition that the loader reads: room for kernel and initramfs of four revisions
    #[arg(long, value_parser = parse_size, default_value = "160M")]
    boot_size: u64,
    /// The initramfs was made with --dev: say so
    #[arg(long)]
    dev: bool,
}

pub(super) const DEV_WARNING: &str = "DEVELOPMENT DEVICE: its endpoint takes revisions from everybody who reaches port \
12368 (the emulator opens it on this machine's loopback only), signatures are off, and its second serial port runs \
pvcontrol. Never ship it.";

/// User ids of the errands that own a folder, as the device drops to them.
const FETCH_UID: u32 = 901;
const LOG_UID: u32 = 903;

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let board = super::board(&args.board)?;
    let repo = Repo::at(&args.repo)?;
    let parts = partitions(board, args)?;
    let state = repo.pristine()?;
    bsp_run(&state)?;
    // A factory revision that the device cannot read would be a brick.
    device::check(&repo, canonical::write(&Value::Object(state.clone()), CANONICAL)?.as_bytes(), None)?;
    let changes = repo::changes(&state, &repo.working(&state, &repo.index()?)?.state)?;
    if changes != repo::Changes::default() {
        context.warn("note: the repository has changes that are not committed; the image holds the committed state");
    }
    let spinner = context.spinner("making file systems");
    let dir = args.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = tempfile::Builder::new().prefix(".pvr-disk-").tempdir_in(dir).during(|| "create a scratch folder")?;
    let content = |part: &Part| work.path().join(part.name);
    make_environment(board, &content(&parts[0]), &parts[0])?;
    let more = if parts[0].number == 0 { fallback(board)? } else { Vec::new() };
    make_boot(&repo, &state, &work.path().join("2"), &more, &content(&parts[1]), parts[1].length)?;
    make_storage(&repo, &state, &work.path().join("3"), &content(&parts[2]), parts[2].length)?;
    let file = files::begin(&args.out)?;
    let mut disk = file.as_file().try_clone().during(|| "open the image")?;
    disk.set_len(args.size).during(|| format!("write {}", args.out.display()))?;
    let on_disk = if in_flash(board) { &parts[1..] } else { &parts[..] };
    for part in on_disk {
        disk::copy_in(&mut disk, part.start, &content(part))?;
    }
    let numbered: Vec<_> = parts.iter().filter_map(Part::partition).collect();
    let table = disk::partition_table(&numbered);
    disk.rewind().and_then(|()| disk.write_all(&table)).during(|| format!("write {}", args.out.display()))?;
    drop(disk);
    files::finish(file, &args.out, 0o644)?;
    if in_flash(board) {
        files::write_atomic(&args.out.with_extension("flash"), 0o644, &files::read(&content(&parts[0]))?)?;
    }
    super::fw_env::write_beside(board, &args.out)?;
    spinner.finish_and_clear();
    report(context, args, board, &parts, &state)
}

fn report(context: &Context, args: &Args, board: &Board, parts: &[Part; 3], state: &State) -> Result<()> {
    let objects = repo::objects(state)?.len();
    context.say(
        json!({"file": args.out, "board": board.name, "size": args.size, "objects": objects, "dev": args.dev,
            "partitions": parts.iter().map(|part| json!({"number": part.number, "name": part.name, "start": part.start,
                "length": part.length})).collect::<Vec<_>>()}),
        || {
            let rows: String = parts
                .iter()
                .map(|part| {
                    let number = if part.number == 0 { "-".into() } else { part.number.to_string() };
                    let (name, length, start) = (part.name, part.length / MIB, part.start / MIB);
                    let place = if part.number == 0 && in_flash(board) {
                        format!("in {}", args.out.with_extension("flash").display())
                    } else {
                        format!("at {start} MiB")
                    };
                    format!("\n  {number} {name:<11} {length:>5} MiB {place}")
                })
                .collect();
            format!(
                "{}: {} with revision 0 ({} files, {objects} objects){rows}",
                args.out.display(),
                board.name,
                repo::entries(state).count()
            )
        },
    );
    if args.dev {
        context.warn(DEV_WARNING);
    }
    Ok(())
}

/// A part of the disk.
struct Part {
    name: &'static str,
    /// Its number in the partition table; 0: it is not in it.
    number: u8,
    kind: u8,
    start: u64,
    length: u64,
}

impl Part {
    fn partition(&self) -> Option<Partition> {
        let Self { number, kind, start, length, .. } = *self;
        (number > 0).then_some(Partition { kind, start, length })
    }
}

/// Environment, boot, storage. Behind the partition table, each begins at a whole MiB.
fn partitions(board: &Board, args: &Args) -> Result<[Part; 3]> {
    let (number, start) = match board.env {
        Env::Uboot { medium: Medium::Fat(_), .. } => (board.disk.env.number, MIB),
        // Raw offsets count from the start of the disk; what is before the first copy is the partition table's.
        Env::Uboot { medium: Medium::Raw(_) | Medium::Mtd(_), .. } => (0, 0),
        _ => return Err(unsupported(board)),
    };
    if board.env_text.is_empty() {
        return Err(unsupported(board));
    }
    let length = if in_flash(board) { FLASH } else { ENVIRONMENT };
    let env = Part { name: "environment", number, kind: FAT, start, length };
    let start = if in_flash(board) { MIB } else { start + length };
    let boot = args.boot_size / MIB * MIB;
    let boot = Part { name: "boot", number: board.disk.boot.number, kind: LINUX, start, length: boot };
    let start = boot.start + boot.length;
    let rest = (args.size / MIB * MIB).saturating_sub(start);
    let storage = Part { name: "storage", number: board.disk.storage.number, kind: LINUX, start, length: rest };
    if boot.length < 8 * MIB || storage.length < 16 * MIB {
        return Err(Error::usage("the disk is too small for its partitions")
            .hint("the boot partition needs 8M, the storage 16M"));
    }
    let parts = [env, boot, storage];
    let numbers: Vec<_> = parts.iter().map(|part| part.number).filter(|number| *number > 0).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u8), "{}: a partition table has no holes", board.name);
    Ok(parts)
}

/// Room for the environment.
const ENVIRONMENT: u64 = 8 * MIB;
/// Size of the flash that the emulator's boards have.
const FLASH: u64 = 2 * MIB;

/// Whether the environment is on another device than everything else.
fn in_flash(board: &Board) -> bool {
    matches!(board.env, Env::Uboot { medium: Medium::Mtd(_), .. })
}

fn unsupported(board: &Board) -> Error {
    Error::usage(format!("images for {} cannot be made yet", board.name)).hint(board.about)
}

/// The environment: both copies valid and equal. Read back with the device's own codec before it is used.
fn make_environment(board: &Board, image: &Path, part: &Part) -> Result<()> {
    let vars = BootVars { committed: RevName::factory(), candidate: None, previous: None };
    match board.env {
        Env::Uboot { medium: Medium::Fat(files), size } => {
            let copies = copies(board, &vars, size, &files)?;
            let more = fallback(board)?;
            let all = copies.iter().chain(&more);
            let content: Vec<_> = all.map(|(file, content)| (*file, content.as_slice())).collect();
            disk::make_fat(image, part.length, &content)?;
        }
        Env::Uboot { medium: Medium::Raw(offsets), size } => {
            let offsets = offsets.try_map(|offset| u64::try_from(offset).map_err(|_| unsupported(board)))?;
            let copies = copies(board, &vars, size, &offsets)?;
            let content: Vec<_> = copies.iter().map(|(offset, copy)| (*offset, copy.as_slice())).collect();
            disk::make_raw(image, part.length, false, &content)?;
        }
        Env::Uboot { medium: Medium::Mtd(flash), size } => {
            let offsets = flash.try_map(|flash| Ok::<_, Error>(flash.offset))?;
            let copies = copies(board, &vars, size, &offsets)?;
            let content: Vec<_> = copies.iter().map(|(offset, copy)| (*offset, copy.as_slice())).collect();
            disk::make_raw(image, part.length, true, &content)?;
        }
        _ => return Err(unsupported(board)),
    }
    let wrong = |code: runtime::fault::Code| Error::host(format!("{code}: the environment just made: {}", code.text()));
    let mut region = FileRegion::open(image, 0)?;
    let layout = board.layout(&mut region).map_err(wrong)?;
    if layout.offsets().iter().any(|offset| offset % 4096 != 0) {
        return Err(Error::host("the environment's copies share a page with something else: a bug of pvr"));
    }
    let mut room = vec![0; board.env.work()];
    let mut env = board.open(region, &mut room).map_err(wrong)?;
    let loaded = env.load().map_err(wrong)?;
    if loaded.vars != vars {
        return Err(Error::host("the environment just made reads back differently: a bug of pvr"));
    }
    Ok(())
}

/// The copies of a new environment, each with its place.
fn copies<T: Copy>(board: &Board, vars: &BootVars, size: u32, places: &Copies<T>) -> Result<Vec<(T, Vec<u8>)>> {
    let make = |(place, flags): (&T, _)| {
        let mut copy = vec![0; size as usize];
        boards::env::uboot::initial(board.env_text, vars, flags, &mut copy)
            .map_err(|code| Error::host(format!("{code}: the boot script of {}: {}", board.name, code.text())))?;
        Ok((*place, copy))
    };
    places.as_slice().iter().zip(places.fresh_flags()).map(make).collect()
}

/// What a loader with a single copy goes on with when it lost it: a script that its compiled-in environment looks for, and the
/// environment as it was in the factory.
fn fallback(board: &Board) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let Env::Uboot {
        medium: Medium::Fat(Copies::Single(_)) | Medium::Raw(Copies::Single(_)) | Medium::Mtd(Copies::Single(_)),
        size,
    } = board.env
    else {
        return Ok(Vec::new());
    };
    let vars = BootVars { committed: RevName::factory(), candidate: None, previous: None };
    let script = ("boot.scr", uimage::script("switchback", boards::FALLBACK));
    Ok([vec![script], copies(board, &vars, size, &Copies::Single("pv.env"))?].concat())
}

const BSP_HINT: &str = "`pvr image bsp` makes it; then `pvr add .` and `pvr commit`";

/// Says which files of the revision the loader needs.
fn bsp_run(state: &State) -> Result<&Value> {
    state.get("bsp/run.json").ok_or_else(|| Error::input("the revision has no bsp/run.json").hint(BSP_HINT))
}

/// What the loader reads: `bsp/run.json` of the state says which files are kernel, initramfs and device tree.
/// `more` lies beside them, by name.
fn make_boot(
    repo: &Repo,
    state: &State,
    tree: &Path,
    more: &[(&str, Vec<u8>)],
    image: &Path,
    length: u64,
) -> Result<()> {
    let run = bsp_run(state)?;
    let (objects, trail) = (tree.join("objects"), tree.join("trails/0"));
    files::create_dir(&objects.join(".incoming"))?;
    files::create_dir(&trail)?;
    for (member, name, needed) in
        [("linux", "pv-kernel.img", true), ("initrd", "pv-initrd.img", true), ("fdt", "pv-fdt.dtb", false)]
    {
        let Some(file) = run[member].as_str() else {
            if needed {
                return Err(Error::input(format!("bsp/run.json names no {member}")).hint(BSP_HINT));
            }
            continue;
        };
        let key = format!("bsp/{file}");
        let value =
            state.get(&key).ok_or_else(|| Error::input(format!("bsp/run.json names {file}, but there is no {key}")))?;
        let sha = repo::object_of(&key, value)?.ok_or_else(|| Error::input(format!("{key} is not an object")))?;
        copy_object(repo, sha, &objects)?;
        link(&objects.join(sha), &trail.join(name))?;
    }
    files::write_atomic(&tree.join("journal"), 0o600, &[0; runtime::journal::SIZE])?;
    // The device overwrites both in place, so they have their full size from the start.
    files::write_atomic(&tree.join("last"), 0o644, &runtime::store::last_text(RevName::factory()))?;
    for (name, content) in more {
        files::write_atomic(&tree.join(name), 0o644, content)?;
    }
    Ext4 { label: "boot", length, journal_mib: 4, verity: false, owners: &[] }.make(image, tree)
}

fn make_storage(repo: &Repo, state: &State, tree: &Path, image: &Path, length: u64) -> Result<()> {
    let (objects, trail) = (tree.join("objects"), tree.join("trails/0"));
    for dir in
        ["objects/.incoming", "trails/0/.pvr", "trails/0/.pv", "trails/locals", "disks/perm", "disks/rev", "logs"]
    {
        files::create_dir(&tree.join(dir))?;
    }
    for sha in repo::objects(state)? {
        copy_object(repo, &sha, &objects)?;
    }
    for (key, value) in repo::entries(state) {
        let path = trail.join(key);
        files::create_dir(path.parent().unwrap_or(&trail))?;
        match repo::object_of(key, value)? {
            Some(sha) => link(&objects.join(sha), &path)?,
            None => write_plain(&path, canonical::write(value, CANONICAL)?.as_bytes())?,
        }
    }
    let text = canonical::write(&Value::Object(state.clone()), CANONICAL)?;
    write_plain(&trail.join(".pvr/json"), text.as_bytes())?;
    let progress = json!({"status": "DONE", "status-msg": "Factory revision", "progress": 100, "retries": 0});
    write_plain(&trail.join(".pv/progress"), canonical::write(&progress, CANONICAL)?.as_bytes())?;
    write_plain(&trail.join(".pv/commitmsg"), b"Factory revision")?;
    symlink("0", tree.join("trails/current")).during(|| "link trails/current")?;
    let mode = |path: &str, mode| fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode));
    mode("objects/.incoming", 0o700).and_then(|()| mode("logs", 0o755)).during(|| "set modes")?;
    let owners = [("objects/.incoming", FETCH_UID), ("logs", LOG_UID)];
    Ext4 { label: "storage", length, journal_mib: 8, verity: true, owners: &owners }.make(image, tree)
}

/// Copies an object and checks it on the way: a damaged pool must not become a device.
fn copy_object(repo: &Repo, sha: &str, objects: &Path) -> Result<()> {
    let (from, to) = (repo.object(sha), objects.join(sha));
    let copy = || {
        let found = files::copy_hashed(&mut File::open(&from)?, &mut File::create(&to)?)?.0;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o444)).map(|()| found)
    };
    let found = copy().during(|| format!("copy object {}", from.display()))?;
    if found != sha {
        let hint = "remove it from the pool and commit the file again";
        return Err(Error::input(format!("object {} is damaged: its sha256 is {found}", from.display())).hint(hint));
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to).during(|| format!("link {}", to.display()))
}

/// A file of the scratch tree; it need not survive anything.
fn write_plain(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).during(|| format!("write {}", path.display()))
}

fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let (digits, unit) = text.split_at(text.len() - text.ends_with(['M', 'G']) as usize);
    let unit = match unit {
        "M" => Some(MIB),
        "G" => Some(1024 * MIB),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit?)).filter(|n| *n <= 1 << 40);
    size.ok_or_else(|| "expected a size such as 512M or 2G".into())
}
