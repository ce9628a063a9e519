//! NOR flash, whose copies are marked in use and obsolete: which copy U-Boot's own driver takes, against our rule, and a
//! store of ours read by it. Only U-Boot's reading: what its driver writes, QEMU before 10 loses, and this test says so
//! instead of trying.

use boards::env::uboot::{Copies, Layout, Scheme, Uboot, initial};
use runtime::{
    id::RevName,
    port::{BootEnv, BootVars},
};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Command, Stdio},
};
use tests::loader_disk::{FileRegion, root, run};

/// The chip of the machine, and one block of it.
const CHIP: u64 = 64 << 20;
const BLOCK: u64 = 0x4_0000;
const LAYOUT: Layout = Layout { copies: Copies::Redundant([0, BLOCK], Scheme::Boolean), size: 0x4000 };
/// Longest that the loader may take; it needs about a second.
const PATIENCE: &str = "60";

struct Chip(PathBuf);

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn vars(committed: &str) -> BootVars {
    BootVars { committed: RevName::parse(committed).unwrap(), candidate: None, previous: None }
}

impl Chip {
    /// Revision 1 in the first copy, 2 in the second one, with these flags.
    fn new(flags: [u8; 2]) -> Self {
        let path = std::env::temp_dir().join(format!("switchback-nor-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        file.set_len(CHIP).unwrap();
        for (index, flags) in flags.into_iter().enumerate() {
            let text = "bootdelay=0\nbootcmd=echo SELECTED ${pv_rev}; reset\n";
            let mut copy = vec![0; LAYOUT.size];
            initial(text, &vars(["1", "2"][index]), Some(flags), &mut copy).unwrap();
            file.write_all_at(&copy, index as u64 * BLOCK).unwrap();
        }
        Self(path)
    }

    fn env<T>(&self, each: impl FnOnce(&mut Uboot<'_, FileRegion>) -> T) -> T {
        let mut work = vec![0; 2 * LAYOUT.size];
        each(&mut Uboot::new(FileRegion::open(&self.0, 0), LAYOUT, "", &mut work).unwrap())
    }

    /// The committed revision of the copy that U-Boot takes.
    fn boot(&self, loader: &str) -> String {
        let machine = "-M virt -cpu cortex-a53 -m 128 -display none -monitor none -serial stdio -nic none -no-reboot";
        let mut command = Command::new("timeout");
        command.args([PATIENCE, "qemu-system-aarch64"]).args(machine.split(' ')).args(["-bios", loader]);
        command.args(["-drive", &format!("if=pflash,index=1,format=raw,file={}", self.0.display())]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let selected = console.lines().find_map(|line| line.strip_prefix("SELECTED "));
        selected.unwrap_or_else(|| panic!("{}\n{console}", output.status)).to_owned()
    }
}

#[test]
fn the_real_driver_takes_the_copy_that_the_rule_selects() {
    let loader = run(Command::new(root().join("ci/u-boot")).arg("flash"));
    let loader = loader.lines().last().unwrap();
    // Every pair that this version of the driver decides.
    for flags in [[1, 0], [0, 1], [1, 1], [0, 0], [255, 255], [255, 1], [1, 255], [255, 0], [0, 255]] {
        let chip = Chip::new(flags);
        let ours = chip.env(|env| env.load()).unwrap();
        assert_eq!(chip.boot(loader), ours.vars.committed.as_str(), "{flags:?}");
        chip.env(|env| env.store(&vars("3"))).unwrap();
        assert_eq!(chip.boot(loader), "3", "{flags:?}: after a store of ours");
    }
    let version = run(Command::new("qemu-system-aarch64").arg("--version"));
    // Past the harness, which shows nothing of a test that passes.
    let version = version.lines().next().unwrap();
    writeln!(std::io::stderr(), "NOT RUN: saveenv by U-Boot with these flags, which needs QEMU 10; this is {version}")
        .unwrap();
}
