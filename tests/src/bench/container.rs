//! What a container costs from clone to the end of its init: ours from a prepared folder beside crun on the same
//! folder, with the same namespaces and mounts; and ours from a squashfs image, which crun does not do.
//!
//! Needs root. The device's binary runs in a private mount namespace and root; nothing is left behind.

use super::Row;
use crate::tour::{Outcome, ensure, fail, wait_for};
use platform::{
    sys,
    wire::{Buffer, Channel, Message, StartMode},
};
use runtime::id::{PartName, RevName};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, open},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change},
    net::SendFlags,
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
    thread::UnshareFlags,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Runs of each; the middle one counts.
const RUNS: usize = 41;
/// Where the device's root is put together. Nothing is left there: the mount is private.
const OUTSIDE: &str = "/mnt";

/// The rows.
pub(super) fn rows(x86: &Path, folder: &Path) -> Outcome<Vec<Row>> {
    let prepared = folder.join("container");
    let image = folder.join("container.squashfs");
    prepare(&prepared, &image)?;
    // A thread for each: it moves into a namespace of its own for good.
    let (peer, (plain, imaged, start)) = std::thread::scope(|scope| -> Outcome<_> {
        let panicked = |_| "a thread of the bench panicked";
        let peer = scope.spawn(|| crun(folder, &prepared)).join().map_err(panicked)??;
        Ok((peer, scope.spawn(|| ours(x86, &prepared, &image)).join().map_err(panicked)??))
    })?;
    Ok(vec![
        Row::new("container, clone to exit, prepared folder", ms(plain), "ms")
            .against(ms(peer), "crun")
            .budget(ms(peer)),
        Row::new("container, clone to exit, from its image", ms(imaged), "ms"),
        Row::new("PSS of start before exec, x86-64, no container beside", start.0 as f64, "kB"),
        Row::new("private memory of start before exec, x86-64", start.1 as f64, "kB"),
    ])
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// A root file system whose init ends at once: as a folder and as an image.
fn prepare(folder: &Path, image: &Path) -> Outcome<()> {
    let _ = fs::remove_dir_all(folder);
    for name in ["bin", "dev", "proc", "sys"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::copy("/bin/busybox", folder.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", folder.join("bin/true"))?;
    let made = Command::new("mksquashfs").args([folder, image]).args(["-noappend", "-quiet"]).output()?;
    ensure(made.status.success(), || "mksquashfs failed".into())
}

fn middle(mut run: impl FnMut() -> Outcome<()>) -> Outcome<Duration> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        run()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[RUNS / 2])
}

fn crun(folder: &Path, rootfs: &Path) -> Outcome<Duration> {
    own_mounts()?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() {
        mount_bind_recursive(unified, "/sys/fs/cgroup")?; // crun refuses to run beside the old hierarchies
    }
    let bundle = folder.join("bundle");
    let _ = fs::remove_dir_all(&bundle);
    fs::create_dir_all(&bundle)?;
    let spec = Command::new("crun").arg("spec").current_dir(&bundle).output()?;
    ensure(spec.status.success(), || "crun spec failed".into())?;
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    config["root"] = json!({"path": rootfs, "readonly": false});
    config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
    let wanted = |mount: &Value| ["/proc", "/dev", "/dev/pts", "/sys"].iter().any(|at| mount["destination"] == *at);
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(wanted);
    }
    fs::write(&file, config.to_string())?;
    let name = format!("switchback-bench-{}", std::process::id());
    middle(|| {
        let mut crun = Command::new("crun");
        crun.args(["--cgroup-manager=disabled", "run", "--bundle"]).arg(&bundle).arg(&name);
        let output = crun.output()?;
        ensure(output.status.success(), || format!("crun: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// From the prepared folder, and from the image; and the memory of `start`.
fn ours(x86: &Path, prepared: &Path, image: &Path) -> Outcome<(Duration, Duration, (u64, u64))> {
    enter(x86, prepared, image)?;
    revision("lxc.rootfs.path = dir:/prepared\n", "")?;
    let plain = middle(|| run(&[]))?;
    let overlay = "lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper\n";
    revision(overlay, r#","root-volume":"root.squashfs","storage":{"lxc-overlay":{"persistence":"boot"}}"#)?;
    let file = open("/image", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let imaged = middle(|| run(&[file.as_fd()]))?;
    Ok((plain, imaged, footprint(file.as_fd())?))
}

/// Moves this thread into a mount namespace of its own.
fn own_mounts() -> Outcome<()> {
    #[expect(deprecated, reason = "the descriptor table is not unshared, which is what the other form is about")]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Moves this thread into a root that looks like a device.
fn enter(x86: &Path, prepared: &Path, image: &Path) -> Outcome<()> {
    own_mounts()?;
    let outside = Path::new(OUTSIDE);
    mount(c"tmpfs", outside, c"tmpfs", MountFlags::empty(), None)?;
    fs::copy(x86, outside.join("switchback"))?;
    fs::copy(image, outside.join("image"))?;
    for (from, to) in [("/dev", "dev"), ("/proc", "proc"), ("/sys", "sys")] {
        fs::create_dir_all(outside.join(to))?;
        mount_bind_recursive(from, outside.join(to))?;
    }
    for folder in ["prepared", "run"] {
        fs::create_dir_all(outside.join(folder))?;
    }
    mount_bind_recursive(prepared, outside.join("prepared"))?;
    std::os::unix::fs::chroot(outside)?;
    Ok(std::env::set_current_dir("/")?)
}

/// Writes revision `1` with one container.
fn revision(conf: &str, run: &str) -> Outcome<()> {
    let sha = "a".repeat(64);
    let state = format!(
        r##"{{"#spec":"pantavisor-service-system@1","bsp/run.json":{{"linux":"k","initrd":"k"}},"bsp/k":"{sha}",
        "web/c":"{sha}","web/root.squashfs":"{sha}","web/run.json":{{"name":"web","type":"lxc","config":"c"{run}}}}}"##
    );
    let trail = Path::new("/storage/trails/1");
    fs::create_dir_all(trail.join(".pvr"))?;
    fs::create_dir_all(trail.join("web"))?;
    fs::write(trail.join(".pvr/json"), state)?;
    let more = "lxc.init.cmd = /bin/true\nlxc.namespace.keep = user net cgroup\nlxc.mount.auto = proc sys:ro\n";
    Ok(fs::write(trail.join("web/c"), format!("{conf}{more}"))?)
}

/// The `start` errand of a container, with the channel to it.
fn start(images: &[BorrowedFd<'_>], channel: &Channel, theirs: Channel) -> Outcome<Pid> {
    rustix::io::ioctl_fionbio(channel.as_fd(), false)?;
    let null: OwnedFd = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let null = null.as_fd();
    let namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    let (pid, _) = sys::spawn(&sys::Spawn {
        path: c"/switchback",
        args: &[c"switchback", c"start"],
        namespaces: u64::from(namespaces.bits()),
        cgroup: None,
        stdio: [null, null, null, theirs.as_fd()],
    })?;
    drop(theirs);
    let names = (RevName::parse("1"), PartName::parse("web"));
    let (Ok(rev), Ok(container)) = names else { return fail("a name that is none".into()) };
    let job = Message::Job { rev, container, mode: StartMode::Start };
    channel.send(1, &job, images).map_err(|error| format!("{error:?}"))?;
    Ok(pid)
}

/// Memory of `start` when all its work is done, proportional and private: its channel is full, so that it waits with
/// its report, after which it would become the container's init.
fn footprint(image: BorrowedFd<'_>) -> Outcome<(u64, u64)> {
    const SENDTO: &str = "44 "; // x86-64
    let (channel, theirs) = Channel::pair()?;
    while rustix::net::send(theirs.as_fd(), &[0], SendFlags::DONTWAIT).is_ok() {}
    let pid = start(&[image], &channel, theirs)?;
    let proc = format!("/proc/{}/syscall", pid.as_raw_pid());
    let waits = wait_for("start with its report", 30, || {
        Ok(fs::read_to_string(&proc)?.starts_with(SENDTO).then(|| platform::usage::share(pid.as_raw_pid() as u32)))
    });
    kill_process(pid, Signal::KILL)?;
    waitpid(Some(pid), WaitOptions::empty())?;
    waits?.ok_or_else(|| "the memory of start cannot be read".into())
}

/// One container, from clone to the end of its init.
fn run(images: &[BorrowedFd<'_>]) -> Outcome<()> {
    let (channel, theirs) = Channel::pair()?;
    let pid = start(images, &channel, theirs)?;
    let mut buffer = Buffer::new();
    while let Some(got) = channel.receive(&mut buffer).map_err(|error| format!("{error:?}"))? {
        let good = matches!(got.message, Message::Report { code: None, .. });
        ensure(good, || format!("{:?}", got.message))?;
    }
    let ended = waitpid(Some(pid), WaitOptions::empty())?.and_then(|(_, status)| status.exit_status());
    ensure(ended == Some(0), || format!("the container's init ended with {ended:?}"))
}
