//! A disk with a real U-Boot on it, made without root and without our own image builder: an MBR by hand, the environment
//! partition by mtools, the boot partition by e2fsprogs. The loader is the one of `ci/u-boot`, the machine is QEMU, and the
//! kernels are stubs that print their command line. What is tested is the boot script and the environment, nothing else.

use boards::{Board, Medium, env::uboot};
use runtime::{
    fault::Code,
    id::RevName,
    port::{BootVars, Region},
    store,
};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where the environment partition starts.
const ENV_START: u64 = 1 << 20;
const ENV_LENGTH: u64 = 4 << 20;
/// Behind the environment, in a partition as at raw offsets.
const BOOT_START: u64 = 8 << 20;
const BOOT_LENGTH: u64 = 16 << 20;
/// An SD card's size is a power of two.
const LENGTH: u64 = 32 << 20;
/// Longest that a guest may take. One boot takes about a second.
const PATIENCE: &str = "60";

/// A region of a file. Counts what a device would have to do.
pub struct FileRegion {
    file: File,
    start: u64,
    /// Calls of `write_at`.
    pub writes: u32,
    /// Calls of `sync`.
    pub syncs: u32,
}

impl FileRegion {
    /// The bytes of `path` from `start`.
    pub fn open(path: &Path, start: u64) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Self { file, start, writes: 0, syncs: 0 }
    }
}

impl Region for FileRegion {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.file.read_exact_at(out, self.start + offset).map_err(|_| Code::StorageIo)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.writes += 1;
        self.file.write_all_at(data, self.start + offset).map_err(|_| Code::StorageIo)
    }
    fn sync(&mut self) -> Result<(), Code> {
        self.syncs += 1;
        self.file.sync_data().map_err(|_| Code::StorageIo)
    }
    fn drop_cache(&mut self) {}
}

/// What the stub kernel of a revision does after it has printed its command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// Powers off: the boot is over.
    Off,
    /// Resets, as a kernel that panics.
    Reset,
    /// Does nothing more, for ever.
    Hang,
    /// Is not an arm64 kernel.
    Junk,
}

/// Runs a command that must succeed; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// U-Boot of a board as `ci/u-boot` builds it, once.
pub fn loader(board: &str) -> String {
    run(Command::new(root().join("ci/u-boot")).arg(board)).lines().last().unwrap().to_owned()
}

/// Assembles a stub kernel into `out`.
pub fn stub(folder: &Path, kernel: Kernel, out: &Path) {
    if kernel == Kernel::Junk {
        return fs::write(out, [0x55; 4096]).unwrap();
    }
    let elf = folder.join("stub.elf");
    let mut compile = Command::new("aarch64-linux-gnu-gcc");
    compile.args(["-nostdlib", "-nostartfiles", "-static", "-Wl,--build-id=none,-Ttext=0", "-o"]).arg(&elf);
    match kernel {
        Kernel::Reset => _ = compile.arg("-DRESET"),
        Kernel::Hang => _ = compile.arg("-DHANG"),
        Kernel::Off | Kernel::Junk => {}
    }
    run(compile.arg(root().join("tests/guest/stub-kernel.S")));
    run(Command::new("aarch64-linux-gnu-objcopy").args(["-O", "binary"]).arg(&elf).arg(out));
}

/// A disk image in a folder of its own.
pub struct LoaderDisk {
    folder: PathBuf,
    board: &'static Board,
}

impl LoaderDisk {
    /// A disk with these revisions, `last` in `boot/last` unless it is empty, and `vars` in the environment.
    pub fn new(name: &str, revisions: &[(&str, Kernel)], last: &str, vars: &BootVars) -> Self {
        Self::on("qemu-arm64", name, revisions, last, vars)
    }

    /// The same for another board on QEMU's `virt` machine.
    pub fn on(board: &str, name: &str, revisions: &[(&str, Kernel)], last: &str, vars: &BootVars) -> Self {
        let folder = std::env::temp_dir().join(format!("switchback-loader-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("boot")).unwrap();
        let disk = Self { folder, board: boards::find(board).unwrap() };
        let image = File::create(disk.image()).unwrap();
        image.set_len(LENGTH).unwrap();
        image.write_all_at(&disk.partition_table(), 446).unwrap();
        disk.make_env(vars);
        disk.make_boot(revisions, last);
        disk
    }

    /// The image file.
    pub fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// Where the environment's region starts: its partition, or the disk.
    fn env_start(&self) -> u64 {
        if self.board.disk.env.number == 0 { 0 } else { ENV_START }
    }

    /// The region that holds the environment.
    pub fn region(&self) -> FileRegion {
        FileRegion::open(&self.image(), self.env_start())
    }

    /// Where the loader's environment copies are in [`LoaderDisk::region`].
    pub fn layout(&self) -> uboot::Layout {
        self.board.layout(&mut self.region()).unwrap()
    }

    /// Calls `f` with the environment, as the device uses it.
    pub fn env<T>(&self, f: impl FnOnce(&mut uboot::Uboot<'_, FileRegion>) -> T) -> T {
        let (layout, mut work) = (self.layout(), vec![0; 0x8000]);
        f(&mut uboot::Uboot::new(self.region(), layout, self.board.env_text, &mut work).unwrap())
    }

    /// What a configuration for `fw_printenv` says for this image.
    pub fn fw_config(&self) -> PathBuf {
        let (layout, path) = (self.layout(), self.folder.join("fw_env.config"));
        let start = self.env_start();
        let line = |offset: u64| format!("{} {:#x} {:#x}\n", self.image().display(), start + offset, layout.size);
        fs::write(&path, layout.offsets().iter().copied().map(line).collect::<String>()).unwrap();
        path
    }

    /// Stores a variable as an owner does it while the device is off. An empty value deletes it.
    pub fn set(&self, name: &str, value: &str) {
        run(Command::new("fw_setenv").arg("-c").arg(self.fw_config()).args([name, value]));
    }

    /// Damages both copies.
    pub fn ruin_env(&self) {
        for offset in self.layout().offsets() {
            self.region().write_at(*offset, &[0xff; 64]).unwrap();
        }
    }

    /// Boots until the guest powers off; the command lines that kernels got, in order, and the loader's whole console.
    pub fn boot(&self) -> (Vec<String>, String) {
        self.boot_with(&["-drive", &format!("if=none,id=d,format=raw,file={}", self.image().display())])
    }

    /// As `boot`, with every write to the disk recorded; the writes as byte offset and data, in their order.
    pub fn boot_recorded(&self) -> Vec<(u64, Vec<u8>)> {
        let log = self.folder.join("writes");
        File::create(&log).unwrap();
        let node = |name: &str, path: &Path| format!("driver=file,node-name={name},filename={}", path.display());
        self.boot_with(&[
            "-blockdev",
            &node("disk", &self.image()),
            "-blockdev",
            &node("log", &log),
            "-blockdev",
            "driver=blklogwrites,node-name=d,file=disk,log=log,log-sector-size=512",
        ]);
        parse_write_log(&fs::read(log).unwrap())
    }

    /// Boots with every write of the disk failing.
    pub fn boot_read_only(&self) -> (Vec<String>, String) {
        let rules = self.folder.join("blkdebug");
        fs::write(&rules, "[inject-error]\nevent = \"none\"\niotype = \"write\"\nerrno = \"5\"\nonce = \"off\"\n")
            .unwrap();
        let drive = format!("if=none,id=d,format=raw,file=blkdebug:{}:{}", rules.display(), self.image().display());
        self.boot_with(&["-drive", &drive])
    }

    /// Boots something that never powers off, until its console has shown `text` so many times; the console until then.
    pub fn boot_until(&self, text: &str, times: usize) -> String {
        let drive = format!("if=none,id=d,format=raw,file={}", self.image().display());
        let mut command = self.guest(&["-drive", &drive]);
        let mut guest = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut console = String::new();
        for line in BufReader::new(guest.stdout.take().unwrap()).lines().map_while(Result::ok) {
            console += &line.replace('\r', "");
            console.push('\n');
            if console.matches(text).count() >= times {
                break;
            }
        }
        // `timeout` passes the signal on to the guest.
        run(Command::new("sh").args(["-c", "kill $0"]).arg(guest.id().to_string()));
        guest.wait().unwrap();
        console
    }

    fn boot_with(&self, drive: &[&str]) -> (Vec<String>, String) {
        let output = self.guest(drive).output().unwrap();
        let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{errors}\n{console}", output.status);
        let lines = console.lines().filter_map(|line| line.strip_prefix("STUB "));
        (lines.map(str::to_owned).collect(), console)
    }

    fn guest(&self, drive: &[&str]) -> Command {
        let machine = "-M virt -cpu cortex-a53 -m 64 -display none -monitor none -serial stdio -nic none";
        let mut command = Command::new("timeout");
        command.args([PATIENCE, "qemu-system-aarch64"]).args(machine.split(' '));
        command.args(["-bios", &loader(self.board.name)]).args(drive);
        match self.board.env {
            boards::Env::Uboot { medium: Medium::Raw(_), .. } => {
                command.args(["-device", "sdhci-pci,capareg=0x157834b4", "-device", "sd-card,drive=d"])
            }
            _ => command.args(["-device", "virtio-blk-device,drive=d"]),
        };
        if self.board.watchdog.armed_by_loader {
            command.args(["-device", "i6300esb,addr=0x10", "-action", "watchdog=reset"]);
        }
        command.stdin(Stdio::null());
        command
    }

    fn make_env(&self, vars: &BootVars) {
        let boards::Env::Uboot { medium, size } = self.board.env else { panic!("not U-Boot's environment") };
        let copy = |flags| {
            let mut copy = vec![0; size as usize];
            uboot::initial(self.board.env_text, vars, flags, &mut copy).unwrap();
            copy
        };
        match medium {
            Medium::Fat(files) => {
                self.make_fat();
                for (file, flags) in files.as_slice().iter().zip(files.fresh_flags()) {
                    let path = self.folder.join(file);
                    fs::write(&path, copy(flags)).unwrap();
                    run(self.mtools("mcopy").arg(path).arg("::"));
                }
            }
            Medium::Raw(offsets) => {
                for (offset, flags) in offsets.as_slice().iter().zip(offsets.fresh_flags()) {
                    self.region().write_at(u64::try_from(*offset).unwrap(), &copy(flags)).unwrap();
                }
            }
            _ => panic!("no environment on a disk"),
        }
    }

    fn make_fat(&self) {
        let sectors = (ENV_LENGTH / 512).to_string();
        let pages = ["-c", "8", "-R", "8", "-r", "4"];
        run(self.mtools("mformat").args(["-T", &sectors, "-h", "64", "-s", "32"]).args(pages).arg("::"));
    }

    fn mtools(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(format!("{}@@{ENV_START}", self.image().display()));
        command
    }

    /// The entries of an MBR's partition table, and its signature.
    fn partition_table(&self) -> [u8; 66] {
        let env = (self.board.disk.env.number, 0x0c, ENV_START, ENV_LENGTH);
        let boot = (self.board.disk.boot.number, 0x83, BOOT_START, BOOT_LENGTH);
        let mut table = [0; 66];
        for (number, kind, start, length) in [env, boot].into_iter().filter(|(number, ..)| *number > 0) {
            let entry = &mut table[16 * (usize::from(number) - 1)..][..16];
            entry[4] = kind;
            entry[8..12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
            entry[12..16].copy_from_slice(&((length / 512) as u32).to_le_bytes());
        }
        table[64..].copy_from_slice(&[0x55, 0xaa]);
        table
    }

    fn make_boot(&self, revisions: &[(&str, Kernel)], last: &str) {
        let tree = self.folder.join("boot");
        if !last.is_empty() {
            fs::write(tree.join("last"), store::last_text(RevName::parse(last).unwrap())).unwrap();
        }
        for (revision, kernel) in revisions {
            let trail = tree.join("trails").join(revision);
            fs::create_dir_all(&trail).unwrap();
            stub(&self.folder, *kernel, &trail.join("pv-kernel.img"));
            fs::write(trail.join("pv-initrd.img"), [0; 512]).unwrap();
        }
        let options = format!("offset={BOOT_START},root_owner=0:0");
        let mut make = Command::new("mkfs.ext4");
        make.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-F", "-b", "4096", "-m", "0"]);
        make.args(["-O", "^metadata_csum_seed,^orphan_file", "-J", "size=4", "-E", &options, "-d"]).arg(&tree);
        run(make.arg(self.image()).arg((BOOT_LENGTH / 4096).to_string()));
    }
}

impl Drop for LoaderDisk {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The writes in a log of QEMU's `blklogwrites` (the format of the kernel's dm-log-writes): a superblock, then entries of
/// one sector, each followed by its data.
fn parse_write_log(log: &[u8]) -> Vec<(u64, Vec<u8>)> {
    const SECTOR: usize = 512;
    const DISCARD_OR_MARK: u64 = 12;
    let number = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().unwrap());
    let mut writes = Vec::new();
    let mut at = SECTOR;
    for _ in 0..number(16) {
        let (sector, length, flags) = (number(at), number(at + 8) as usize * SECTOR, number(at + 16));
        at += SECTOR;
        if flags & DISCARD_OR_MARK == 0 && length > 0 {
            writes.push((sector * SECTOR as u64, log[at..at + length].to_vec()));
            at += length;
        }
    }
    writes
}
