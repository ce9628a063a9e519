//! The `start` errand on a real kernel: the binary, cloned as PID 1 clones it, in a private mount namespace that
//! looks like a device, with squashfs images made on the spot. Needs root, mksquashfs and a static busybox.

use device::Errand;
use platform::wire::{Buffer, Message, StartMode};
use runtime::{
    fault::Code,
    id::{PartName, RevName},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, open},
};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

mod device;

/// A device with one image.
struct Device {
    name: String,
}

impl Device {
    /// Makes it; `files` are those of the root image, besides busybox.
    fn new(name: &str, files: &[(&str, &str)]) -> Device {
        let device = Device { name: format!("{name}-{}", std::process::id()) };
        device::enter(|outside| device.squash(outside, files));
        device
    }

    /// Makes its root image.
    fn squash(&self, outside: &Path, files: &[(&str, &str)]) {
        let at = |path: &str| {
            let path = outside.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let image = at("image/bin/busybox").parent().unwrap().parent().unwrap().to_owned();
        fs::copy("/bin/busybox", image.join("bin/busybox")).expect("the package busybox-static");
        std::os::unix::fs::symlink("busybox", image.join("bin/sh")).unwrap();
        for (path, text) in files {
            let path = at(&format!("image/{path}"));
            fs::write(&path, text).unwrap();
            if text.starts_with("#!") {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let squashed = at(&format!("storage/objects/{}.squashfs", self.name));
        let options = ["-noappend", "-quiet", "-comp", "gzip"];
        let made = Command::new("mksquashfs").arg(&image).arg(&squashed).args(options).output();
        assert!(made.expect("the package squashfs-tools").status.success());
    }

    /// Writes revision `1` with the container `web`.
    fn revision(&self, conf: &str, run: &str) {
        let sha = "a".repeat(64);
        let state = format!(
            r##"{{"#spec":"pantavisor-service-system@1","bsp/run.json":{{"linux":"kernel.img","initrd":"initrd.img"}},
            "bsp/kernel.img":"{sha}","bsp/initrd.img":"{sha}","web/lxc.container.conf":"{sha}","web/root.squashfs":"{sha}",
            "web/run.json":{run}}}"##
        );
        let trail = Path::new("/storage/trails/1");
        fs::create_dir_all(trail.join(".pvr")).unwrap();
        fs::create_dir_all(trail.join("web")).unwrap();
        fs::write(trail.join(".pvr/json"), state).unwrap();
        fs::write(trail.join("web/lxc.container.conf"), conf).unwrap();
    }

    fn image(&self) -> OwnedFd {
        open(format!("/storage/objects/{}.squashfs", self.name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .unwrap()
    }

    /// Whether a loop device is on our image.
    fn has_loop(&self) -> bool {
        (0..64).any(|n| {
            fs::read_to_string(format!("/sys/block/loop{n}/loop/backing_file"))
                .is_ok_and(|file| file.contains(&self.name))
        })
    }
}

const RUN: &str = r#"{"name":"web","type":"lxc","config":"lxc.container.conf","root-volume":"root.squashfs",
    "storage":{"lxc-overlay":{"persistence":"permanent"},"data":{"persistence":"revision"},"tmp":{"persistence":"boot"}}}"#;

const CONF: &str = "lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper\n\
    lxc.namespace.keep = user net\nlxc.mount.auto = proc sys:ro\nlxc.tty.max = 8\nlxc.pty.max = 16\n\
    lxc.mount.entry = /etc/resolv.conf etc/resolv.conf none bind,rw,create=file 0 0\n\
    lxc.mount.entry = tmpfs run tmpfs rw,nodev,relatime,create=dir,mode=755 0 0\n\
    lxc.mount.entry = /volumes/web/data var/lib/data none bind,rw,create=dir 0 0\n\
    lxc.cap.drop = sys_module sys_time\nlxc.environment = COLOR=blue\n";

/// One run of the errand.
struct Run(Errand);

impl Run {
    fn new(mode: StartMode, images: &[BorrowedFd<'_>]) -> Run {
        Self::in_namespaces(mode, 0, images)
    }

    /// In these namespaces besides the usual ones.
    fn in_namespaces(mode: StartMode, more: i32, images: &[BorrowedFd<'_>]) -> Run {
        let namespaces = match mode {
            StartMode::Start => libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC,
            StartMode::Mount => 0,
        };
        let errand = Errand::new(c"start", namespaces | more);
        let container = PartName::parse("web").unwrap();
        errand.ask(1, &Message::Job { rev: RevName::parse("1").unwrap(), container, mode }, images);
        Run(errand)
    }

    /// The next report: code, step, errno. `None` when the errand has closed the channel.
    fn report(&self) -> Option<(Option<Code>, String, i32)> {
        let mut buffer = Buffer::new();
        match self.0.channel.receive(&mut buffer).unwrap()?.message {
            Message::Report { code, step, errno } => Some((code, step.into(), errno)),
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a container to its end; what it printed.
fn run_to_end(device: &Device) -> String {
    let run = Run::new(StartMode::Start, &[device.image().as_fd()]);
    let report = run.report().unwrap();
    assert_eq!(report.0, None, "{report:?}");
    assert_eq!(run.report(), None, "the exec closes the channel");
    run.0.end()
}

/// The fault of a container that cannot be made.
fn fault(images: &[BorrowedFd<'_>]) -> (Code, String, i32) {
    let run = Run::new(StartMode::Start, images);
    let (code, step, errno) = run.report().unwrap();
    assert_eq!(run.report(), None);
    run.0.end();
    (code.expect(&step), step, errno)
}

const INIT: &str = "#!/bin/busybox sh\nb=/bin/busybox\n\
    echo pid=$$ host=$($b hostname) container=$container color=$COLOR path=$PATH cwd=$PWD\n\
    echo fds=$($b ls /proc/self/fd | $b tr '\\n' ' ')\n\
    echo caps=$($b grep CapBnd /proc/self/status)\n\
    echo signals=$($b grep -E 'SigBlk|SigIgn' /proc/self/status | $b tr '\\n\\t' '  ')\n\
    echo files=$(ulimit -n) $(ulimit -Hn)\n\
    echo oom=$($b cat /proc/self/oom_score_adj)\n\
    echo root=$($b ls / | $b tr '\\n' ' ')\n\
    echo dev=$($b ls /dev | $b tr '\\n' ' ')\n\
    echo mounts=$($b awk '{print $2}' /proc/mounts | $b tr '\\n' ' ')\n\
    echo own=$($b cat /etc/own)\n\
    echo kept=$($b cat /kept)\necho again > /kept\necho data > /var/lib/data/file\n\
    echo sys=$($b touch /sys/x 2>&1)\n\
    echo procsys=$(echo 1 2>&1 > /proc/sys/kernel/printk)\n\
    echo null=$(echo x > /dev/null && echo ok)\n\
    echo resolv=$($b cat /etc/resolv.conf)\n\
    exit 7\n";

#[test]
fn a_container_runs_in_its_own_world_and_leaves_nothing() {
    let device = Device::new("world", &[("sbin/init", INIT), ("etc/own", "image\n"), ("kept", "new\n")]);
    device.revision(CONF, RUN);
    fs::write("/etc/resolv.conf", "nameserver 1\n").unwrap();
    let text = run_to_end(&device);
    let line = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}")).to_owned()
    };
    assert_eq!(
        line("pid="),
        "1 host=web container=pv-root color=blue path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin cwd=/"
    );
    assert_eq!(line("fds="), "0 1 2 3", "3 is the folder that ls itself reads");
    assert_eq!(line("files="), "1024 4096");
    assert_eq!(line("oom="), "0");
    let caps = u64::from_str_radix(line("caps=").rsplit(' ').next().unwrap().trim_start_matches("CapBnd:").trim(), 16);
    assert_eq!(caps.unwrap() & (1 << 16 | 1 << 25), 0, "sys_module and sys_time are gone");
    assert!(line("signals=").matches("0000000000000000").count() == 2, "{text}");
    assert!(!line("root=").contains("storage"), "the old root is gone");
    assert_eq!(line("dev="), "console fd full null ptmx pts random stderr stdin stdout tty urandom zero");
    assert_eq!(line("own="), "image");
    assert_eq!(line("kept="), "new");
    assert_eq!(line("null="), "ok");
    assert_eq!(line("resolv="), "nameserver 1");
    assert!(line("sys=").contains("Read-only"), "{text}");
    assert!(!line("mounts=").contains("/volumes") && !line("mounts=").contains("/storage"), "{text}");

    // What it wrote is there the next time; what the revision says of its files lies above the image.
    fs::create_dir_all("/storage/trails/1/_config/web/etc").unwrap();
    fs::write("/storage/trails/1/_config/web/etc/own", "revision\n").unwrap();
    let text = run_to_end(&device);
    assert!(text.contains("kept=again") && text.contains("own=revision"), "{text}");
    assert_eq!(fs::read_to_string("/storage/disks/perm/web/lxc-overlay/upper/kept").unwrap(), "again\n");
    assert_eq!(fs::read_to_string("/storage/disks/rev/1/web/data/file").unwrap(), "data\n");

    let until = Instant::now() + Duration::from_secs(10);
    while device.has_loop() {
        assert!(Instant::now() < until, "a loop device outlives its container");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    assert!(!mounts.contains("/volumes") && !mounts.contains("overlay "), "{mounts}");
}

#[test]
fn faults_have_a_code_a_step_and_the_kernels_answer() {
    let device =
        Device::new("faults", &[("sbin/init", INIT), ("etc/own", "x"), ("kept", "x"), ("etc/text", "no program\n")]);
    let image = device.image();
    let images = [image.as_fd()];

    device.revision(&format!("{CONF}lxc.init.cmd = /sbin/absent -x\n"), RUN);
    let (code, step, errno) = fault(&images);
    assert_eq!((code, step.as_str(), errno), (Code::InitMissing, "find lxc.init.cmd /sbin/absent", 2));

    device.revision(&format!("{CONF}lxc.init.cmd = /etc/text\n"), RUN);
    let (code, _, errno) = fault(&images);
    assert_eq!((code, errno), (Code::InitMissing, 13));

    device.revision(&format!("{CONF}lxc.apparmor.profile = x\n"), RUN);
    let (code, step, _) = fault(&images);
    assert_eq!(code, Code::LxcKeyUnknown);
    assert!(step.contains("lxc.apparmor.profile"), "{step}");

    device.revision(&format!("{CONF}lxc.mount.entry = /absent mnt none bind,create=dir 0 0\n"), RUN);
    let (code, step, errno) = fault(&images);
    assert_eq!((code, step.as_str(), errno), (Code::MountFailed, "lxc.mount.entry /absent on mnt", 2));

    device.revision(CONF, RUN);
    fs::write("/noise", vec![0x5a; 8192]).unwrap();
    let noise = open("/noise", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (code, step, errno) = fault(&[noise.as_fd()]);
    assert_eq!((code, step.as_str(), errno), (Code::ImageInvalid, "mount root.squashfs as squashfs", 22));

    let (code, step, _) = fault(&[]);
    assert_eq!((code, step.as_str()), (Code::Internal, "root.squashfs: its image was not sent"));

    // An optional entry that cannot be mounted is no fault.
    device.revision(&format!("{CONF}lxc.mount.entry = /absent mnt none bind,optional 0 0\n"), RUN);
    assert!(run_to_end(&device).starts_with("pid=1"));
}

/// Every container has its own control socket; one that manages also sees the run folder, and cannot change it.
#[test]
fn a_container_finds_its_own_control_socket() {
    use std::os::unix::{fs::MetadataExt, net::UnixListener};
    let init = "#!/bin/busybox sh\nb=/bin/busybox\n$b stat -c %i /pantavisor/pv-ctrl\n$b ls /pantavisor\n\
        $b touch /pantavisor/x 2>&1 | $b grep -o Read-only\n";
    let device = Device::new("control", &[("sbin/init", init)]);
    let _device = UnixListener::bind("/run/pantavisor/pv/pv-ctrl").unwrap();
    let _own = UnixListener::bind("/run/switchback/c/web/pv-ctrl").unwrap();
    fs::write("/run/pantavisor/pv/device-id", "1").unwrap();
    let own = fs::metadata("/run/switchback/c/web/pv-ctrl").unwrap().ino();
    device.revision(CONF, RUN);
    assert_eq!(run_to_end(&device), format!("{own}\ndevice-id\npv-ctrl\nRead-only\n"));
    device.revision(CONF, &RUN.replacen('{', "{\"roles\":[\"nobody\"],", 1));
    assert_eq!(run_to_end(&device), format!("{own}\npv-ctrl\n"), "an ordinary folder of its own");
}

/// What the original's template writes for a container of Docker starts unchanged.
#[test]
fn what_the_template_of_docker_writes() {
    let init = "#!/bin/busybox sh\necho \"$#:$1:$2:$3 in $PWD with $PATH $X\"\n/bin/busybox ls -d /cache /etc/x /var/lib/data\n\
        /bin/busybox test -f /sys/fs/cgroup/cgroup.procs && echo cgroup\n";
    let device = Device::new("docker", &[("docker-entrypoint.sh", init), ("srv/file", "")]);
    let conf = include_str!("../../runtime/vectors/template/web/lxc.container.conf");
    let run = include_str!("../../runtime/vectors/template/web/run.json");
    device.revision(conf, run);
    let (code, step, _) = fault(&[device.image().as_fd()]);
    assert_eq!((code, step.as_str()), (Code::MountFailed, "storage docker--etc-x: this device has no such disk"));
    device.revision(conf, &run.replace("\"disk\": \"disk1\"", "\"note\": 1"));
    assert_eq!(
        run_to_end(&device),
        "3:nginx:-g:daemon off; in /srv with /usr/bin 1\n/cache\n/etc/x\n/var/lib/data\ncgroup\n"
    );
}

/// Containers of one revision share a place, whoever starts first; a container may have a network of its own.
#[test]
fn a_place_of_another_container_and_a_loopback_device() {
    let init = "#!/bin/busybox sh\nb=/bin/busybox\n$b cat /theirs/*\n$b ping -c 1 127.0.0.1 >/dev/null && echo up\n";
    let device = Device::new("shared", &[("sbin/init", init)]);
    let sha = "a".repeat(64);
    device.revision(
        &format!(
            "{CONF}lxc.namespace.keep = user\nlxc.net.0.type = empty\n\
            lxc.mount.entry = /volumes/other/docker--data/sub theirs none bind,ro,create=dir 0 0\n"
        ),
        &format!(
            r#"{RUN},"other/lxc.container.conf":"{sha}","other/root.squashfs":"{sha}","other/run.json":{{"name":"other",
            "type":"lxc","config":"lxc.container.conf","root-volume":"root.squashfs",
            "storage":{{"docker--data":{{"persistence":"permanent"}}}}}}"#
        ),
    );
    let place = "/storage/disks/perm/other/docker--data/sub";
    let (code, _, errno) = fault(&[device.image().as_fd()]);
    assert_eq!((code, errno), (Code::MountFailed, 2), "the place is made, but nobody made `sub` in it yet");
    fs::create_dir(place).unwrap();
    fs::write(format!("{place}/file"), "from the other\n").unwrap();
    let run = Run::in_namespaces(StartMode::Start, libc::CLONE_NEWNET, &[device.image().as_fd()]);
    assert_eq!(run.report(), Some((None, "exec".into(), 0)));
    assert_eq!(run.0.end(), "from the other\nup\n");
}

/// Links that an image brings lead nowhere but into the image.
#[test]
fn no_link_of_an_image_leads_a_mount_out_of_it() {
    let device = Device::new(
        "links",
        &[("sbin/init", "#!/bin/busybox sh\n/bin/busybox cat /out/etc/resolv.conf /etc/resolv.conf\n")],
    );
    let image = device.image();
    drop(image);
    // The upper layer of an earlier run: `out` and `etc` are links to the root, which must be the container's own.
    let upper = Path::new("/storage/disks/perm/web/lxc-overlay/upper");
    fs::create_dir_all(upper.join("real")).unwrap();
    std::os::unix::fs::symlink("/../../..", upper.join("out")).unwrap();
    std::os::unix::fs::symlink("/../../real", upper.join("etc")).unwrap();
    fs::write("/etc/resolv.conf", "nameserver 2\n").unwrap();
    device.revision(CONF, RUN);
    assert_eq!(run_to_end(&device), "nameserver 2\nnameserver 2\n");
    assert!(upper.join("real/resolv.conf").exists());
    // And a link below /volumes is not followed when it is what an entry binds.
    fs::create_dir_all("/storage/disks/rev/1/web/data").unwrap();
    std::os::unix::fs::symlink("/storage", "/storage/disks/rev/1/web/data/trap").unwrap();
    device.revision(&format!("{CONF}lxc.mount.entry = /volumes/web/data/trap mnt none bind,create=dir 0 0\n"), RUN);
    let (code, _, errno) = fault(&[device.image().as_fd()]);
    assert_eq!((code, errno), (Code::MountFailed, 40));
    // Nor one that leads away from a place that lies in another place,
    let nested = RUN.replacen("\"data\":", "\"data/trap\":{\"persistence\":\"revision\"},\"data\":", 1);
    device.revision(CONF, &nested);
    let (code, step, errno) = fault(&[device.image().as_fd()]);
    assert_eq!(
        (code, step.as_str(), errno),
        (Code::MountFailed, "mount storage data/trap on /volumes/web/data/trap", 40)
    );
    // or from the place of the upper layer.
    fs::rename(upper, "/storage/elsewhere").unwrap();
    std::os::unix::fs::symlink("/storage/elsewhere", upper).unwrap();
    device.revision(CONF, RUN);
    let (code, _, errno) = fault(&[device.image().as_fd()]);
    assert_eq!((code, errno), (Code::MountFailed, 40));
}

/// Files of a revision are objects: a container reads them where its configuration wants, and never writes to them.
#[test]
fn what_belongs_to_a_revision_is_never_written() {
    let init = "#!/bin/busybox sh\nb=/bin/busybox\n$b cat /settings/one\n\
        (echo changed > /settings/one) 2>&1 | $b grep -o Read-only\n";
    let device = Device::new("objects", &[("sbin/init", init)]);
    device.revision(&format!("{CONF}lxc.mount.entry = settings settings none bind,rw,create=dir 0 0\n"), RUN);
    fs::create_dir_all("/storage/trails/1/web/settings").unwrap();
    fs::write("/storage/trails/1/web/settings/one", "object\n").unwrap();
    assert_eq!(run_to_end(&device), "object\nRead-only\n");
    assert_eq!(fs::read_to_string("/storage/trails/1/web/settings/one").unwrap(), "object\n");
}

#[test]
fn a_container_that_is_only_mounted_leaves_its_volumes_where_all_can_use_them() {
    let device = Device::new("mounted", &[("hello", "there\n")]);
    device.revision("", RUN);
    for _ in 0..2 {
        let run = Run::new(StartMode::Mount, &[device.image().as_fd()]);
        assert_eq!(run.report(), Some((None, "mounted".into(), 0)));
        assert_eq!(run.report(), None);
        run.0.end();
        assert_eq!(fs::read_to_string("/volumes/web/root.squashfs/hello").unwrap(), "there\n");
        fs::write("/volumes/web/data/file", "kept").unwrap();
    }
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    assert_eq!(mounts.matches("/volumes/web/root.squashfs ").count(), 1, "the second replaces the first: {mounts}");
    assert_eq!(fs::read_to_string("/storage/disks/rev/1/web/data/file").unwrap(), "kept");
}
