//! Images, looked at with the tools that others use: squashfs-tools, e2fsprogs, U-Boot's `fw_printenv`, cpio.

mod common;

use common::{Place, small_device};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

fn tool(name: &str, args: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(name).args(args).env("PATH", path).output().unwrap_or_else(|e| panic!("{name}: {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_root_image_keeps_what_it_must_and_nothing_else() {
    let place = Place::new();
    place.write("root/bin/tool", "x".repeat(300_000));
    place.write("root/etc/secret", "s");
    place.write("root/var/www/index.html", "<p>");
    fs::set_permissions(place.path("root/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(place.path("root/etc/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("tool", place.path("root/bin/alias")).unwrap();
    let make = |out: &str| place.pvr("", &["image", "rootfs", "root", out, "--owner", "var/www=33:34"]).good();
    assert!(make("a.squashfs").contains("8 entries"));
    fs::rename(place.path("root"), place.path("moved")).unwrap();
    tool("cp", &["-r", "--preserve=mode,links", text(&place.path("moved")), text(&place.path("root"))]);
    make("b.squashfs");
    assert_eq!(
        fs::read(place.path("a.squashfs")).unwrap(),
        fs::read(place.path("b.squashfs")).unwrap(),
        "reproducible"
    );

    let listing = tool("unsquashfs", &["-lln", text(&place.path("a.squashfs"))]);
    let line = |name: &str| listing.lines().find(|l| l.ends_with(name)).unwrap_or_else(|| panic!("{name}: {listing}"));
    assert!(line("/bin/tool").starts_with("-rwsr-xr-x 0/0 "), "{listing}");
    assert!(line("/etc/secret").starts_with("-rw------- 0/0 ") && line("/etc/secret").contains("1970-01-01"));
    assert!(line("/bin/alias -> tool").starts_with("lrwxrwxrwx 0/0 "));
    assert!(line("/index.html").starts_with("-rw-r--r-- 33/34 ") && line("/www").starts_with("drwxr-xr-x 33/34 "));
    assert!(line("/var").starts_with("drwxr-xr-x 0/0 "));
    let about = tool("unsquashfs", &["-s", text(&place.path("a.squashfs"))]);
    assert!(
        about.contains("Compression zstd")
            && about.contains("compression-level 15")
            && about.contains("Block size 131072")
    );
    tool("unsquashfs", &["-no", "-d", text(&place.path("out")), "-no-xattrs", text(&place.path("a.squashfs"))]);
    assert_eq!(place.read("out/bin/tool"), "x".repeat(300_000));
    assert!(place.pvr("", &["image", "rootfs", "root", "c", "--owner", "gone=1:1"]).failed(3).contains("not in root"));
    tool("mkfifo", &[text(&place.path("root/pipe"))]);
    assert!(place.pvr("", &["image", "rootfs", "root", "c"]).failed(3).contains("neither file, folder nor link"));
    assert!(!place.path("c").exists());
}

/// A kernel and modules that look right to `pvr`; nobody runs them.
fn fake_base(place: &Place) {
    let mut kernel = vec![7; 100_000];
    kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
    place.write("kernel", kernel);
    place.write("init", b"\x7fELF init");
    place.write("modules/fs/squashfs.ko", b"\x7fELF\0depends=\0squashfs");
    place.write("modules/net/virtio_net.ko", b"\x7fELF\0depends=net-failover,failover\0");
    place.write("modules/net/net_failover.ko", b"\x7fELF\0depends=failover\0");
    place.write("modules/net/failover.ko", b"\x7fELF\0depends=\0");
    place.write("modules/extra/extra.ko", b"\x7fELF\0depends=\0");
    let mut xz = Command::new("xz").arg(place.path("modules/net/virtio_net.ko")).spawn().unwrap();
    assert!(xz.wait().unwrap().success());
}

fn bsp(place: &Place, more: &[&str]) -> common::Said {
    bsp_of(place, "qemu-arm64", more)
}

fn bsp_of(place: &Place, board: &str, more: &[&str]) -> common::Said {
    let (kernel, init, modules) = (place.path("kernel"), place.path("init"), place.path("modules"));
    let base = ["image", "bsp", "--board", board, "--switchback", text(&init), "--kernel", text(&kernel)];
    place.pvr("r", &[&base[..], &["--modules", text(&modules)], more].concat())
}

#[test]
fn an_initramfs_for_the_board() {
    let place = Place::new();
    place.repo("r");
    fake_base(&place);
    let args = ["--dev", "--policy", "PV_UPDATER_COMMIT_DELAY=5", "--module", "extra"];
    let said = bsp(&place, &args);
    assert!(said.err.contains("signatures are off") && said.err.contains("loopback"), "{}", said.err);
    said.good();
    let first = fs::read(place.path("r/bsp/initrd.img")).unwrap();
    bsp(&place, &args).good();
    assert_eq!(first, fs::read(place.path("r/bsp/initrd.img")).unwrap(), "reproducible");
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&first[..]), &mut archive).unwrap();
    place.write("initrd.cpio", archive);
    let unpack = format!("mkdir {0}/i && cd {0}/i && cpio -id --quiet < ../initrd.cpio", text(&place.path(".")));
    tool("sh", &["-c", &unpack]);
    let policy = place.read("i/etc/pantavisor.config");
    assert_eq!(
        policy,
        "PV_SECUREBOOT_MODE=disabled\nPV_UPDATER_COMMIT_DELAY=5\nswitchback.board=qemu-arm64\nswitchback.console=hvc0\n\
         switchback.endpoint=0.0.0.0:12368\nswitchback.endpoint-access=open\n"
    );
    // Closed unless it is asked for; paired if so; and not with a binary that could serve nobody then.
    let policy = |more: &[&str]| bsp(&place, &[&["--json"], more].concat()).good();
    assert!(!policy(&[]).contains("switchback.endpoint"));
    for more in [&["--endpoint"][..], &["--endpoint", "--dev"]] {
        assert!(policy(more).contains(r#""switchback.endpoint-access":"paired""#), "{more:?}");
    }
    place.write("init", b"\x7fELF init profile small\n");
    assert!(bsp(&place, &["--endpoint"]).failed(3).contains("--features tls"));
    assert!(bsp(&place, &["--policy", "switchback.endpoint=0.0.0.0:1"]).failed(3).contains("needs TLS"));
    bsp(&place, &["--endpoint", "--policy", "switchback.endpoint-access=paired-plain"]).good();
    place.write("init", b"\x7fELF init");
    let list = place.read("i/lib/modules/list");
    assert_eq!(list, "squashfs.ko\nfailover.ko\nnet_failover.ko\nvirtio_net.ko\nextra.ko\n");
    assert!(list.lines().all(|m| fs::read(place.path(&format!("i/lib/modules/{m}"))).unwrap().starts_with(b"\x7fELF")));
    assert_eq!(fs::metadata(place.path("i/init")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read(place.path("r/bsp/kernel.img")).unwrap(), fs::read(place.path("kernel")).unwrap());

    // A kernel with everything built in.
    let (kernel, init) = (place.path("kernel"), place.path("init"));
    let base = ["image", "bsp", "--board", "qemu-arm64-lab", "--switchback", text(&init), "--kernel", text(&kernel)];
    assert!(place.pvr("r", &base).good().contains(" bytes, no modules\n"));
    let said = place.pvr("r", &[&base[..], &["--module", "extra"]].concat());
    assert!(said.code == 2 && said.err.contains("--modules <DIR>"), "{}", said.err);

    bsp(&place, &[]).good();
    // The board's own watchdog, as its driver is called, and the timer that stands in for it.
    place.write("modules/watchdog/bcm2835_wdt.ko", b"\x7fELF\0depends=\0");
    place.write("modules/watchdog/softdog.ko", b"\x7fELF\0depends=\0");
    let said = bsp_of(&place, "rpi", &[]).good();
    assert!(said.contains(" modules bcm2835_wdt squashfs ") && said.contains(" softdog\n"), "{said}");
    let said = bsp(&place, &[]).good();
    assert!(said.contains(" modules softdog ") && !said.contains("bcm2835"), "and nobody else's: {said}");
    assert!(bsp(&place, &["--module", "gone"]).failed(3).contains("module gone is not below"));
    place.write("kernel", "no kernel at all");
    assert!(bsp(&place, &[]).failed(3).contains("not an arm64 Image"));
    let wrong = place.pvr("r", &["image", "disk", "--board", "toaster", "--out", "x"]).failed(2);
    assert!(wrong.contains("unknown board toaster") && wrong.contains("qemu-arm64"), "{wrong}");
}

/// A device that is taken over had a policy of its own: what the new one gives up is said, and to nobody else.
#[test]
fn a_base_for_a_device_that_is_taken_over_says_that_signatures_are_not_checked() {
    let place = Place::new();
    place.repo("r");
    fake_base(&place);
    let warned = |board: &str, more: &[&str]| {
        let said = bsp_of(&place, board, more);
        let err = said.err.clone();
        said.good();
        err
    };
    assert_eq!(warned("qemu-arm64-lab", &[]), "");
    for (more, mode) in [(&[][..], "disabled"), (&["--policy", "PV_SECUREBOOT_MODE=strict", "--json"], "strict")] {
        let err = warned("qemu-arm64-taken", more);
        assert!(err.starts_with("SIGNATURES ARE NOT CHECKED") && err.contains(&format!(": {mode})")), "{err}");
    }
    let both = warned("qemu-arm64-taken", &["--dev"]);
    assert!(both.starts_with("DEVELOPMENT DEVICE") && both.contains("\nSIGNATURES ARE NOT CHECKED"), "{both}");
}

/// It is there if it is asked for, and only one that runs where there are no libraries.
#[test]
fn an_initramfs_that_repairs_file_systems() {
    let place = Place::new();
    place.repo("r");
    fake_base(&place);
    let program: Vec<u8> = b"\x7fELF\x02\x01".iter().copied().chain([0; 58]).collect();
    place.write("e2fsck.static", &program);
    let holds = |more: &[&str]| {
        bsp(&place, more).good();
        let packed = fs::read(place.path("r/bsp/initrd.img")).unwrap();
        let mut archive = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut archive).unwrap();
        let name = b"sbin/e2fsck\0";
        archive.windows(name.len()).any(|part| part == name) && archive.windows(64).any(|part| part == program)
    };
    assert!(!holds(&[]) && holds(&["--e2fsck", text(&place.path("e2fsck.static"))]));
    assert!(bsp(&place, &["--e2fsck", "/sbin/e2fsck"]).failed(3).contains("is not a static program"));
    assert!(bsp(&place, &["--e2fsck", text(&place.path("kernel"))]).failed(3).contains("is not a Linux program"));
    place.write("e2fsck.cut", &program[..40]);
    assert!(bsp(&place, &["--e2fsck", text(&place.path("e2fsck.cut"))]).failed(3).contains("is not a Linux program"));
}

#[test]
fn a_disk_that_every_tool_finds_in_order() {
    let place = Place::new();
    small_device(&place, "r");
    let said = place.pvr(
        "",
        &[
            "image",
            "disk",
            "--board",
            "qemu-arm64",
            "--repo",
            "r",
            "--out",
            "d.img",
            "--size",
            "128M",
            "--boot-size",
            "32M",
            "--dev",
        ],
    );
    assert!(said.err.contains("DEVELOPMENT DEVICE"), "{}", said.err);
    said.good();
    let disk = place.path("d.img");
    assert_eq!(fs::metadata(&disk).unwrap().len(), 128 << 20);
    let table = tool("sfdisk", &["-d", text(&disk)]);
    for row in [
        "start=        2048, size=       16384, type=c",
        "start=       18432, size=       65536, type=83",
        "start=       83968, size=      178176, type=83",
    ] {
        assert!(table.contains(row), "{table}");
    }
    let part = |name: &str, first: u64, count: u64| {
        let path = place.path(name);
        let (skip, count) = (format!("skip={first}"), format!("count={count}"));
        tool(
            "dd",
            &[&format!("if={}", text(&disk)), &format!("of={}", text(&path)), "bs=1M", &skip, &count, "status=none"],
        );
        path
    };
    let (env, boot, storage) = (part("env", 1, 8), part("boot", 9, 32), part("storage", 41, 87));

    assert_eq!(tool("mdir", &["-b", "-i", text(&env)]), "::/uboot.env\n::/uboot-redund.env\n");
    tool("mcopy", &["-i", text(&env), "::/uboot.env", "::/uboot-redund.env", text(&place.path("."))]);
    for copy in ["uboot.env", "uboot-redund.env"] {
        // Each copy alone is valid: a configuration that names it twice reads the same.
        let config = format!("{0} 0x0 0x4000\n{0} 0x0 0x4000\n", text(&place.path(copy)));
        place.write("fw.cfg", config);
        let print = tool("fw_printenv", &["-c", text(&place.path("fw.cfg"))]);
        assert!(
            print.contains("\npv_rev=0\n") && print.contains("\npv_script=") && print.contains("\nbootcmd="),
            "{print}"
        );
    }

    // What the tools are told: on this machine the image, on the device its partition.
    let here = place.pvr("", &["image", "fw-env", "--board", "qemu-arm64", "--image", "d.img"]).good();
    place.write("here.config", &here);
    let print = |name: &str| tool("fw_printenv", &["-c", text(&place.path("here.config")), "-n", name]);
    assert_eq!(print("pv_rev"), "0\n", "{here}");
    tool("fw_setenv", &["-c", text(&place.path("here.config")), "foreign", "x"]);
    assert_eq!(print("foreign"), "x\n");
    let beside = place.read("d.img.fw_env.config");
    let on_device = |line: &str| {
        let (path, rest) = line.split_once(' ').unwrap();
        let (offset, size) = rest.split_once(' ').unwrap();
        assert_eq!(path, text(&disk));
        let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16).unwrap() - (1 << 20);
        format!("/dev/vda1 {offset:#x} {size}")
    };
    let rows = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&beside), rows(&here).iter().map(|line| on_device(line)).collect::<Vec<_>>());
    assert_eq!(rows(&beside).len(), 2);
    let device = ["image", "fw-env", "--board", "qemu-arm64", "--image", "d.img", "--device"];
    assert_eq!(place.pvr("", &device).good().trim_end(), beside.trim_end());
    let yaml = place.pvr("", &[&device[..], &["--format", "yaml"]].concat()).good();
    assert_eq!(yaml.trim_end(), place.read("d.img.fw_env.yaml").trim_end());
    assert!(yaml.contains("\nuboot:\n  size: 0x4000\n") && yaml.matches("path: /dev/vda1").count() == 2, "{yaml}");
    assert!(place.pvr("", &["image", "fw-env", "--board", "qemu-arm64"]).failed(2).contains("--image"));
    assert!(place.pvr("", &["image", "fw-env", "--board", "rpi"]).failed(2).contains("no U-Boot environment"));

    for image in [&boot, &storage] {
        tool("e2fsck", &["-fn", text(image)]);
    }
    let look = |image: &Path, request: &str| tool("debugfs", &["-R", request, text(image)]);
    assert_eq!(look(&boot, "cat /trails/0/pv-kernel.img"), "kernel");
    assert_eq!(look(&boot, "cat /trails/0/pv-initrd.img"), "initrd");
    let last = look(&boot, "cat /last");
    assert_eq!(runtime::store::parse_last(last.as_bytes()), Some(runtime::id::RevName::factory()));
    assert_eq!(last.len(), 512, "what the loader reads is overwritten in place");
    assert!(look(&boot, "stat /journal").contains("Size: 1024"));
    assert!(look(&boot, "stat /trails/0/pv-kernel.img").contains("Links: 2"));
    assert_eq!(look(&storage, "cat /trails/0/.pvr/json"), place.read("r/.pvr/json"));
    assert_eq!(
        look(&storage, "cat /trails/0/.pv/progress"),
        r#"{"progress":100,"retries":0,"status":"DONE","status-msg":"Factory revision"}"#
    );
    let image = look(&storage, "stat /trails/0/web/root.squashfs");
    assert!(image.contains("Links: 2") && image.contains("Mode:  0444") && image.contains("User:     0"), "{image}");
    let run = look(&storage, "cat /trails/0/bsp/run.json");
    assert_eq!(run, r#"{"initrd":"initrd.img","linux":"kernel.img"}"#);
    assert!(look(&storage, "stat /objects/.incoming").contains("User:   901"));
    assert!(look(&storage, "stat /logs").contains("User:   903"));
    assert!(look(&storage, "stat /trails/current").contains("Fast link dest: \"0\""));
    assert!(tool("dumpe2fs", &["-h", text(&storage)]).contains("verity"));
    // Whoever built it: everything else is root's.
    assert!(look(&storage, "stat /trails/0/web").contains("User:     0"));
}

#[test]
fn a_card_with_the_environment_before_its_partitions() {
    let place = Place::new();
    small_device(&place, "r");
    let make = |board: &str| {
        let size = ["--size", "128M", "--boot-size", "32M"];
        place.pvr("", &[&["image", "disk", "--board", board, "--repo", "r", "--out", "card.img"], &size[..]].concat())
    };
    let said = make("qemu-arm64-sd").good();
    for row in
        ["- environment     8 MiB at 0 MiB", "1 boot           32 MiB at 8 MiB", "2 storage        88 MiB at 40 MiB"]
    {
        assert!(said.contains(row), "{said}");
    }
    let card = place.path("card.img");
    let table = tool("sfdisk", &["-d", text(&card)]);
    for row in ["start=       16384, size=       65536, type=83", "start=       81920, size=      180224, type=83"] {
        assert!(table.contains(row), "{table}");
    }
    assert_eq!(table.matches("type=").count(), 2, "{table}");
    for (offset, other) in [("0x100000", "0x500000"), ("0x500000", "0x100000")] {
        // Each copy alone is valid, and the two are where U-Boot looks for them.
        place.write("fw.cfg", format!("{0} {offset} 0x4000\n{0} {offset} 0x4000\n", text(&card)));
        let alone = tool("fw_printenv", &["-c", text(&place.path("fw.cfg"))]);
        place.write("fw.cfg", format!("{0} {offset} 0x4000\n{0} {other} 0x4000\n", text(&card)));
        assert_eq!(tool("fw_printenv", &["-c", text(&place.path("fw.cfg"))]), alone);
        assert!(alone.contains("\npv_rev=0\n") && alone.contains("\npv_dev=mmc 0:1\n"), "{alone}");
    }
    let bytes = fs::read(&card).unwrap();
    for (first, name) in [(8 << 20, "boot"), (40 << 20, "storage")] {
        assert_eq!(&bytes[first + 1024 + 56..][..2], [0x53, 0xef], "an ext4 file system");
        assert!(bytes[first + 1024 + 120..].starts_with(name.as_bytes()));
    }
    assert!(bytes[512..0x10_0000].iter().all(|byte| *byte == 0), "nothing between table and environment");
    assert!(make("rpi").failed(2).contains("cannot be made yet"));
}

#[test]
fn a_kernel_and_a_device_tree_as_the_board_wants_them() {
    let place = Place::new();
    place.repo("r");
    fake_base(&place);
    let image = fs::read(place.path("kernel")).unwrap();
    place.write("tree.dtb", b"\xd0\x0d\xfe\xed and so on");
    let fdt = place.path("tree.dtb");
    bsp_of(&place, "rpi-uboot", &["--fdt", text(&fdt)]).good();
    let mut unpacked = Vec::new();
    let packed = fs::read(place.path("r/bsp/kernel.img")).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, image, "compressed for a loader that unpacks");
    assert_eq!(fs::read(place.path("r/bsp/fdt.dtb")).unwrap(), fs::read(&fdt).unwrap());
    let run = place.read("r/bsp/run.json");
    assert!(run.contains("\"fdt\": \"fdt.dtb\"") && run.contains("\"switchback.factory-reset\": true"), "{run}");

    assert!(bsp_of(&place, "imx", &[]).failed(3).contains("is not a zImage"));
    let mut zimage = vec![7; 4096];
    zimage[0x24..0x28].copy_from_slice(&0x016f_2818_u32.to_le_bytes());
    place.write("kernel", &zimage);
    bsp_of(&place, "imx", &[]).good();
    assert_eq!(fs::read(place.path("r/bsp/kernel.img")).unwrap(), zimage);
    assert!(bsp_of(&place, "imx", &["--fdt", text(&place.path("init"))]).failed(3).contains("not a device tree"));
    assert!(bsp_of(&place, "rpi-uboot", &[]).failed(3).contains("not an arm64 Image"));
}

/// The environment of a loader with a single copy, as Debian's tool reads it.
fn single(place: &Place, file: &str, offset: &str, size: &str) -> String {
    place.write("fw.cfg", format!("{} {offset} {size}\n", text(&place.path(file))));
    tool("fw_printenv", &["-c", text(&place.path("fw.cfg"))])
}

#[test]
fn a_single_environment_and_what_is_there_when_it_is_lost() {
    let place = Place::new();
    small_device(&place, "r");
    let make = |board: &str| {
        let size = ["--size", "128M", "--boot-size", "32M"];
        let base = ["image", "disk", "--board", board, "--repo", "r", "--out", "one.img"];
        place.pvr("", &[&base[..], &size[..]].concat()).good()
    };
    make("rpi-uboot");
    let fat = format!("{}@@1M", text(&place.path("one.img")));
    for file in ["uboot.env", "boot.scr", "pv.env"] {
        tool("mcopy", &["-n", "-i", &fat, &format!("::{file}"), text(&place.path(file))]);
    }
    let stored = single(&place, "uboot.env", "0", "0x4000");
    assert!(stored.contains("\npv_rev=0\n") && stored.contains("\npv_dev=mmc 0:2\n"), "{stored}");
    assert_eq!(single(&place, "pv.env", "0", "0x4000"), stored);
    let script = fs::read(place.path("boot.scr")).unwrap();
    assert!(script.starts_with(b"\x27\x05\x19\x56") && script.ends_with(boards::FALLBACK.as_bytes()));
    assert!(!place.path("one.flash").exists());

    let said = make("imx");
    assert!(
        said.contains("- environment     2 MiB in ") && said.contains("1 boot           32 MiB at 1 MiB"),
        "{said}"
    );
    let flash = fs::read(place.path("one.flash")).unwrap();
    let (before, rest) = flash.split_at(0xC_0000);
    assert_eq!(flash.len(), 2 << 20);
    assert!(before.iter().chain(&rest[0x2000..]).all(|byte| *byte == 0xff), "erased");
    let stored = single(&place, "one.flash", "0xC0000", "0x2000");
    assert!(stored.contains("\npv_rev=0\n") && stored.contains("\npv_dev=mmc 3:1\n"), "{stored}");
    let boot = format!("{}?offset={}", text(&place.path("one.img")), 1 << 20);
    for file in ["boot.scr", "pv.env", "last"] {
        let list = tool("debugfs", &["-R", &format!("stat /{file}"), &boot]);
        assert!(list.contains("Type: regular"), "{file}: {list}");
    }
}

#[test]
fn a_disk_is_not_made_of_what_does_not_boot_or_does_not_fit() {
    let place = Place::new();
    place.repo("empty");
    let make = |repo: &str, size: &str| {
        place.pvr("", &["image", "disk", "--board", "qemu-arm64", "--repo", repo, "--out", "d.img", "--size", size])
    };
    assert!(make("empty", "512M").failed(3).contains("no bsp/run.json"));
    small_device(&place, "r");
    assert!(make("r", "100M").failed(2).contains("too small"));
    let groups = place.read("r/groups.json");
    place.write("r/groups.json", "[]");
    place.commit("r", "a container in no group");
    assert!(make("r", "512M").failed(3).contains("SB1105"));
    place.write("r/groups.json", groups);
    place.commit("r", "again");
    place.write("r/web/big", vec![1; 40 << 20]);
    place.commit("r", "big");
    assert!(make("r", "200M").failed(1).contains("mke2fs failed"));
    let object = place.read("r/.pvr/json");
    let sha = object.split("\"web/root.squashfs\":\"").nth(1).unwrap()[..64].to_owned();
    place.write(&format!("home/.pvr/objects/{sha}"), "damaged");
    assert!(make("r", "512M").failed(3).contains("is damaged"));
    assert!(!place.path("d.img").exists());
    let left = fs::read_dir(place.path("."))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".pvr"));
    assert_eq!(left.count(), 0, "no scratch folder stays behind");
}
