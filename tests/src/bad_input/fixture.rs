//! The devices that get bad input: made by `pvr` from the demonstration device's base and network, with containers
//! that hold nothing but `probe`.
//!
//!   `steady`   network · manager (8080, management) · visitor (8081, no role) · patient (what cases break)
//!   `hungry`   the same, and two that take memory when they are told: glutton (no limit), bounded (a limit)
//!   `sticks`   the containers of `steady`, and a policy that opens the device to USB sticks
//!   `broken`   the same, and a last group whose containers cannot live: one whose init does not exist, one whose root
//!              is no file system, one that ends at once for ever
//!
//! Invariants: nothing of the demonstration device is changed. The storage partition is small: `ROOM` is free.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::sticks;
use crate::tour::cpio;
use crate::tour::device::Kit;
use crate::tour::steps::noise;
use crate::tour::{Outcome, fail};

/// What is about free on the storage partition of a new device, MiB.
pub const ROOM: u64 = 48;
/// Port in the guest of the relay that may manage; the emulator's second forward.
const MANAGER_PORT: &str = "8080";
/// Port in the guest of the relay that may not; the third.
const VISITOR_PORT: &str = "8081";

/// Port on the device of a container that takes all memory.
pub const GLUTTON_PORT: u16 = 8082;
/// Port on the device of a container that takes more than its own limit.
pub const BOUNDED_PORT: u16 = 8083;
/// The limit of that one, as its configuration has it.
pub const BOUND: &str = "lxc.cgroup2.memory.max = 3M\n";

/// Which containers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Factory {
    /// All can live.
    Steady,
    /// All can, and two of them take memory when they are told.
    Hungry,
    /// Three cannot.
    Broken,
    /// All can, and the device takes updates from USB sticks.
    Sticks,
}

/// A folder being filled.
struct Build<'a> {
    pvr: PathBuf,
    folder: &'a Path,
    repo: PathBuf,
    tree: PathBuf,
}

/// Makes the kit of a device in `folder`.
pub fn build(kit: &Kit, probe: &Path, folder: &Path, factory: Factory) -> Outcome<Kit> {
    std::fs::create_dir_all(folder)?;
    let build = Build { pvr: kit.pvr(), folder, repo: folder.join("repo"), tree: folder.join("tree") };
    for (from, name) in [(kit.loader(), "u-boot.bin"), (kit.pvr(), "pvr")] {
        std::os::unix::fs::symlink(from, folder.join(name))?;
    }
    std::fs::copy(kit.folder.join("board"), folder.join("board"))?;
    run(Command::new("cp").arg("-a").arg(kit.repo()).arg(&build.repo))?;
    for other in ["web", "slow", "counter", "_config"] {
        std::fs::remove_dir_all(build.repo.join(other))?;
    }
    build.probe_root(probe)?;
    let mut groups = vec![
        json!({"name": "platform", "status_goal": "STARTED", "restart_policy": "container", "timeout": 30,
            "auto_recovery": recovery(0)}),
        json!({"name": "app", "status_goal": "STARTED", "restart_policy": "container", "timeout": 20,
            "auto_recovery": recovery(2)}),
    ];
    build.container("manager", "app", &format!("relay {MANAGER_PORT}"), &json!({"roles": ["mgmt"]}))?;
    build.container("visitor", "app", &format!("relay {VISITOR_PORT}"), &json!({}))?;
    build.container("patient", "app", "wait", &json!({}))?;
    if factory == Factory::Hungry {
        build.container("glutton", "app", &format!("obey {GLUTTON_PORT}"), &json!({"auto_recovery": recovery(0)}))?;
        build.container("bounded", "app", &format!("obey {BOUNDED_PORT}"), &json!({"auto_recovery": recovery(1)}))?;
        let file = build.repo.join("bounded/lxc.container.conf");
        std::fs::write(&file, std::fs::read_to_string(&file)? + BOUND)?;
    }
    if factory == Factory::Broken {
        groups.push(json!({"name": "broken", "status_goal": "STARTED", "restart_policy": "container", "timeout": 10,
            "auto_recovery": recovery(1)}));
        build.container("no-init", "broken", "", &json!({}))?;
        build.configure("no-init", "/nothing/here")?;
        build.container("no-root", "broken", "wait", &json!({}))?;
        std::fs::write(build.repo.join("no-root/root.squashfs"), noise(1, 100_000))?;
        build.container("crash", "broken", "end", &json!({"auto_recovery": recovery(0)}))?;
    }
    if factory == Factory::Sticks {
        build.open_to_sticks(kit.board()?.control)?;
    }
    std::fs::write(build.repo.join("groups.json"), json!(groups).to_string())?;
    build.disk()?;
    Ok(Kit { folder: folder.into() })
}

/// A fallen container is started again after a second, then two, then four; this often, or for ever if that is 0.
fn recovery(retries: u32) -> Value {
    json!({"policy": "always", "max_retries": retries, "retry_delay": 1, "backoff_factor": 2.0, "reset_window": 60,
        "stable_timeout": 1, "backoff_policy": "never"})
}

/// The text of a container's configuration whose init is this.
pub fn configuration(container: &str, init: &str) -> String {
    format!(
        "lxc.tty.max = 8\n\
         lxc.pty.max = 1024\n\
         lxc.cgroup.devices.allow = a\n\
         lxc.rootfs.path = overlayfs:/volumes/{container}/root.squashfs:/volumes/{container}/lxc-overlay/upper\n\
         lxc.init.cmd = {init}\n\
         lxc.namespace.keep = user net ipc\n\
         lxc.mount.auto = proc sys:rw cgroup\n\
         lxc.mount.entry = tmpfs run tmpfs rw,nodev,relatime,create=dir,mode=755 0 0\n\
         lxc.mount.entry = /volumes/{container}/data data none bind,rw,create=dir 0 0\n\
         lxc.signal.halt = SIGKILL\n"
    )
}

impl Build<'_> {
    /// The root file system of all containers.
    fn probe_root(&self, probe: &Path) -> Outcome<()> {
        for name in ["bin", "dev", "proc", "sys", "run", "tmp"] {
            std::fs::create_dir_all(self.tree.join(name))?;
        }
        std::fs::copy(probe, self.tree.join("bin/probe"))?;
        run(self.pvr().args(["image", "rootfs"]).arg(&self.tree).arg(self.folder.join("root.squashfs")))
    }

    /// A container without a role, unless `more` gives it one.
    fn container(&self, name: &str, group: &str, words: &str, more: &Value) -> Outcome<()> {
        let folder = self.repo.join(name);
        std::fs::create_dir(&folder)?;
        std::fs::copy(self.folder.join("root.squashfs"), folder.join("root.squashfs"))?;
        let mut run = json!({"#spec": "service-manifest-run@1", "name": name, "type": "lxc",
            "config": "lxc.container.conf", "group": group, "roles": [], "root-volume": "root.squashfs",
            "volumes": [], "storage": {"lxc-overlay": {"persistence": "boot"}, "data": {"persistence": "permanent"}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            run[key] = value.clone();
        }
        std::fs::write(folder.join("run.json"), run.to_string())?;
        self.configure(name, &format!("/bin/probe {words}"))
    }

    fn configure(&self, name: &str, init: &str) -> Outcome<()> {
        Ok(std::fs::write(self.repo.join(name).join("lxc.container.conf"), configuration(name, init))?)
    }

    /// Another device policy in the place of the demonstration device's.
    fn open_to_sticks(&self, console: &str) -> Outcome<()> {
        let initrd = self.repo.join("bsp/initrd.img");
        let policy = format!(
            "switchback.board=qemu-arm64\nPV_SECUREBOOT_MODE=disabled\nswitchback.console={console}\n\
             PV_UPDATER_COMMIT_DELAY=3\n{}",
            sticks::POLICY
        );
        let opened = cpio::with_file(std::fs::read(&initrd)?, "etc/pantavisor.config", policy.as_bytes());
        Ok(std::fs::write(&initrd, opened)?)
    }

    fn disk(&self) -> Outcome<()> {
        run(self.pvr().current_dir(&self.repo).args(["add", "."]))?;
        run(self.pvr().current_dir(&self.repo).args(["commit", "-m", "Bad input"]))?;
        let base = std::fs::metadata(self.repo.join("bsp/kernel.img"))?.len()
            + std::fs::metadata(self.repo.join("bsp/initrd.img"))?.len();
        // Boot assets on both file systems; their journals of 4 and 8 MiB and what else ext4 needs.
        let base = base.div_ceil(1 << 20);
        let (env, boot, storage) = (9, base + 16, base + 14 + ROOM);
        run(self
            .pvr()
            .current_dir(&self.repo)
            .args(["image", "disk", "--board", "qemu-arm64", "--repo", ".", "--dev", "--out"])
            .arg(self.folder.join("disk.img"))
            .args(["--size", &format!("{}M", env + boot + storage), "--boot-size", &format!("{boot}M")]))
    }

    fn pvr(&self) -> Command {
        let mut command = Command::new(&self.pvr);
        command.env("HOME", self.folder);
        command
    }
}

/// Runs a command to its end; what it said is the reason when it fails.
pub fn run(command: &mut Command) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    fail(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
