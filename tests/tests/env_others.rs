//! The environments of one sector on images that real tools make: `autoboot.txt` on FAT (mtools), `grubenv`
//! (grub-editenv, and the script in grub-emu, GRUB as a process of this machine), `uboot.txt` on ext4 with the loader's
//! mark on FAT. And the page of the book about all of them.

use boards::env::{fat, grub, grub::Grub, tryboot, tryboot::Tryboot, uboot::Copies, uboot_ab, uboot_txt};
use runtime::{
    boot::{LoaderVars, loader},
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars, Region},
    store,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::loader_disk::{FileRegion, LoaderDisk, root, run};

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: Option<&str>, previous: Option<&str>) -> BootVars {
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: previous.map(rev) }
}

/// A folder that goes with the test, unless it fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("switchback-others-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of zeros with a FAT from `start` on, made by mtools.
    fn fat(&self, name: &str, start: u64, bytes: u64, options: &[&str]) -> PathBuf {
        let image = self.path(name);
        let file = fs::File::options().create(true).truncate(false).write(true).open(&image).unwrap();
        file.set_len(start + bytes).unwrap();
        let sectors = (bytes / 512).to_string();
        mtools("mformat", &image, start, &[options, &["-T", &sectors, "-h", "64", "-s", "32", "::"]].concat());
        image
    }

    /// A tree as an ext4 image of 8 MiB, at the start of a file.
    fn ext4(&self, tree: &Path, name: &str) -> PathBuf {
        let image = self.path(name);
        let mut make = Command::new("mkfs.ext4");
        make.env("PATH", SBIN).args(["-q", "-F", "-b", "4096", "-O", "^metadata_csum_seed,^orphan_file", "-d"]);
        run(make.arg(tree).arg(&image).arg("8M"));
        image
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Where e2fsprogs are, also for those who are not root.
const SBIN: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

fn mtools(program: &str, image: &Path, start: u64, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    run(command.env("MTOOLS_SKIP_CHECK", "1").args(["-i", &format!("{}@@{start}", image.display())]).args(arguments))
}

fn debugfs(image: &Path, request: &str) -> String {
    run(Command::new("debugfs").env("PATH", SBIN).args(["-R", request]).arg(image))
}

/// Where a file of an ext4 image starts.
fn place(image: &Path, file: &str) -> u64 {
    debugfs(image, &format!("blocks {file}")).split_whitespace().next().unwrap().parse::<u64>().unwrap() * 4096
}

/// The sectors in which two images differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<u64> {
    assert_eq!(before.len(), after.len());
    let pairs = before.chunks(512).zip(after.chunks(512)).enumerate();
    pairs.filter(|(_, (before, after))| before != after).map(|(index, _)| index as u64).collect()
}

#[test]
fn w11_autoboot_txt_changes_in_exactly_one_sector_of_every_kind_of_fat() {
    let kinds: [(&str, u64, &[&str]); 5] = [
        ("12", 1 << 20, &["-c", "1"]),
        ("12-wide", 16 << 20, &["-c", "8"]),
        ("16", 32 << 20, &["-c", "4"]),
        ("32", 64 << 20, &["-F", "-c", "1"]),
        ("32-wide", 80 << 20, &["-F", "-c", "2"]),
    ];
    for (name, bytes, options) in kinds {
        let folder = Folder::new(&format!("autoboot-{name}"));
        let image = folder.fat("fat.img", 0, bytes, options);
        let put = |content: &[u8], name: &str| {
            fs::write(folder.path("content"), content).unwrap();
            mtools("mcopy", &image, 0, &["-D", "o", folder.path("content").to_str().unwrap(), &format!("::{name}")]);
        };
        put(&[0x33; 5000], "bootcode.bin");
        put(&tryboot::initial([2, 3], &vars("0", None, None)).unwrap(), "autoboot.txt");
        put(&[0x44; 5000], "config.txt");
        let listing = mtools("mdir", &image, 0, &["::"]);
        let at = fat::locate(&mut FileRegion::open(&image, 0), Copies::Single("autoboot.txt"), tryboot::SIZE as u32);
        let at = at.unwrap().as_slice()[0];

        let transitions = [
            vars("0", Some("locals/a"), None),
            vars("locals/a", None, Some("0")),
            vars("locals/a", Some("2"), Some("0")),
            vars("locals/a", None, Some("0")),
            vars("locals/a", Some("3"), Some("0")),
            vars("3", None, Some("locals/a")),
            vars("locals/a", None, None),
        ];
        for next in transitions {
            let before = fs::read(&image).unwrap();
            let mut env = Tryboot::new(FileRegion::open(&image, 0), at, [2, 3], None).unwrap();
            env.store(&next).unwrap();
            assert_eq!(env.load().unwrap().vars, next);
            let region = env.into_region();
            assert_eq!((region.writes, region.syncs), (1, 1));
            assert_eq!(changed(&before, &fs::read(&image).unwrap()), [at / 512], "{name}");
            let text = mtools("mtype", &image, 0, &["::autoboot.txt"]);
            assert_eq!(text.len(), 512);
            assert!(text.contains(&format!("# pv_rev={}\n", next.committed)), "{text}");
            assert_eq!(text.contains("# pv_try="), next.candidate.is_some());
        }
        assert_eq!(mtools("mdir", &image, 0, &["::"]), listing, "no directory entry has changed");
        assert!(mtools("mtype", &image, 0, &["::config.txt"]).bytes().all(|byte| byte == 0x44));
        // What the original does instead: a file removed and made again.
        let before = fs::read(&image).unwrap();
        put(b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n", "autoboot.txt");
        assert!(changed(&before, &fs::read(&image).unwrap()).len() > 1);
        // Such a file has another size: it is not written in place.
        let found = fat::locate(&mut FileRegion::open(&image, 0), Copies::Single("autoboot.txt"), 512);
        assert_eq!(found, Err(Code::EnvLayout));
    }
}

/// What `grub-editenv` lists.
fn listed(block: &Path) -> Vec<String> {
    let text = run(Command::new("grub-editenv").arg(block).arg("list"));
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The variables that are not ours.
fn others(mut lines: Vec<String>) -> Vec<String> {
    let ours = ["pv_rev", "pv_try", "pv_prev", "upgrade_available", "bootcount"];
    lines.retain(|line| !ours.contains(&line.split_once('=').unwrap().0));
    lines
}

fn editenv(block: &Path, arguments: &[String]) {
    run(Command::new("grub-editenv").arg(block).args(arguments));
}

fn open(block: &Path) -> Grub<FileRegion> {
    Grub::new(FileRegion::open(block, 0), 0).unwrap()
}

#[test]
fn grub_editenv_and_the_codec_read_what_the_other_wrote() {
    let folder = Folder::new("editenv");
    let block = folder.path("grubenv");
    fs::write(&block, grub::initial(&vars("0", None, None)).unwrap()).unwrap();
    assert_eq!(listed(&block), ["bootcount=0", "bootlimit=3", "pv_rev=0", "upgrade_available=0"]);
    let mut seed = 7u64;
    let mut random = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    for round in 0..300u32 {
        // Theirs: variables of others come and go, in all sizes, with what must be escaped.
        let name = format!("other{}", random(6));
        let value = "\\y#= z".repeat(1 + random(30));
        let ours = vec![
            format!("pv_rev={round}"),
            format!("pv_try=locals/{}", "t".repeat(1 + round as usize % 60)),
            format!("upgrade_available={}", round % 2),
            format!("bootcount={}", round % 10),
        ];
        // A full block refuses, and both tools say so.
        let set = |arguments: &[String]| {
            let status =
                Command::new("grub-editenv").arg(&block).arg("set").args(arguments).stderr(Stdio::null()).status();
            status.unwrap().success()
        };
        if !set(&[format!("{name}={value}")]) {
            editenv(&block, &["unset".into(), name]);
        }
        if !set(&ours) {
            for other in 0..6 {
                editenv(&block, &["unset".into(), format!("other{other}")]);
            }
            // Padding in the middle is room that the tool does not see.
            fs::write(&block, grub::adopt(fs::read(&block).unwrap().first_chunk().unwrap()).unwrap()).unwrap();
            assert!(set(&ours));
        }
        let lines = listed(&block);
        let loaded = open(&block).load().unwrap();
        let candidate = format!("locals/{}", "t".repeat(1 + round as usize % 60));
        assert_eq!(loaded.vars.committed, rev(&round.to_string()));
        assert_eq!(loaded.vars.candidate, (round % 2 == 1).then(|| rev(&candidate)));
        assert_eq!(loaded.bootcount, round % 10);

        // Ours.
        let before = fs::read(&block).unwrap();
        let wanted = vars(&round.to_string(), Some("locals/next"), (round > 0).then_some("0"));
        open(&block).store(&wanted).unwrap_or_else(|code| panic!("{code}: round {round}"));
        let after = fs::read(&block).unwrap();
        assert!(changed(&before, &after).iter().all(|sector| *sector == 0), "round {round}");
        let mut expected = others(lines);
        expected.extend(["bootcount=0".into(), "upgrade_available=1".into(), "pv_try=locals/next".into()]);
        expected.push(format!("pv_rev={round}"));
        expected.extend((round > 0).then(|| "pv_prev=0".to_owned()));
        expected.sort();
        assert_eq!(listed(&block), expected, "round {round}");
    }
}

/// What GRUB boots: revision, `pv_try`, `pv_bootcount`, `pv_canary`; `None` if it resets.
type Booted = Option<(String, String, String, String)>;

/// Stands before the script: what loads kernel and initrd in its test.
const STUBS: &str = "\
set root=(hd0)
set pv_args=quiet
function test_linux {
  if [ -f $1 ]; then
    shift
    set seen=\"$*\"
    true
  else
    false
  fi
}
function test_initrd {
  if [ -f $1 ]; then
    save_env --file /result seen
    exit
  fi
  false
}
";

/// A boot partition for the script.
struct BootDisk {
    folder: Folder,
    image: PathBuf,
}

impl BootDisk {
    /// With these revisions, this `last`, and this block.
    fn new(name: &str, revisions: &[&str], last: &str, block: Option<&[u8]>) -> Self {
        let folder = Folder::new(&format!("grub-{name}"));
        let tree = folder.path("tree");
        fs::create_dir_all(tree.join("trails/locals")).unwrap();
        for revision in revisions {
            let trail = tree.join("trails").join(revision);
            fs::create_dir_all(&trail).unwrap();
            fs::write(trail.join("pv-kernel.img"), "kernel").unwrap();
            fs::write(trail.join("pv-initrd.img"), "initrd").unwrap();
        }
        if !last.is_empty() {
            fs::write(tree.join("last"), store::last_text(rev(last))).unwrap();
        }
        if let Some(block) = block {
            fs::write(tree.join("grubenv"), block).unwrap();
        }
        // What the stub kernel of a boot got, written by GRUB.
        let empty = ["# GRUB Environment Block\n", &"#".repeat(4096 - 25)].concat();
        fs::write(tree.join("result"), empty).unwrap();
        let image = folder.ext4(&tree, "boot.img");
        fs::create_dir(folder.path("grub")).unwrap();
        fs::write(folder.path("device.map"), format!("(hd0) {}\n", image.display())).unwrap();
        Self { folder, image }
    }

    fn env(&self) -> Grub<FileRegion> {
        Grub::new(FileRegion::open(&self.image, 0), place(&self.image, "/grubenv")).unwrap()
    }

    /// Changes variables as an owner does while the device is off.
    fn set(&self, settings: &[&str]) {
        let (at, block) = (place(&self.image, "/grubenv"), self.folder.path("block"));
        let mut bytes = [0; grub::SIZE];
        FileRegion::open(&self.image, at).read_at(0, &mut bytes).unwrap();
        fs::write(&block, bytes).unwrap();
        editenv(&block, &[&["set"], settings].concat().iter().map(|word| word.to_string()).collect::<Vec<_>>());
        FileRegion::open(&self.image, at).write_at(0, &fs::read(&block).unwrap()).unwrap();
    }

    /// Runs the script in the real GRUB. Its commands that start a kernel are replaced by functions that look whether
    /// the file is there and write down the command line; the one that resets ends GRUB.
    fn boot(&self) -> Booted {
        let script = grub::SCRIPT.replace("if linux ", "if test_linux ").replace("if initrd ", "if test_initrd ");
        let script = script.replace("sleep 2\nreboot\n", "exit\n");
        let text = [STUBS, &script].concat();
        fs::write(self.folder.path("grub/grub.cfg"), text).unwrap();
        let mut command = Command::new("timeout");
        command.args(["60", "grub-emu", "-r", "host", "-m"]).arg(self.folder.path("device.map"));
        command.arg("-d").arg(self.folder.path("grub")).stdin(Stdio::null());
        run(&mut command);
        let result = debugfs(&self.image, "cat /result");
        let line = result.lines().find_map(|line| line.strip_prefix("seen="))?;
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap().to_owned();
        assert!(line.starts_with("quiet pv_rev=") && line.contains(" pv_script=1 "), "{line}");
        Some((word("pv_rev="), word("pv_try="), word("pv_bootcount="), word("pv_canary=")))
    }
}

#[test]
fn the_grub_script_parses() {
    run(Command::new("grub-script-check").arg(root().join("boards/grub/switchback.cfg")));
}

#[test]
fn the_grub_script_counts_tries_and_goes_back() {
    let block = grub::initial(&vars("1", Some("locals/a"), None)).unwrap();
    let disk = BootDisk::new("tries", &["0", "1", "locals/a"], "", Some(&block));
    for count in 1..=5u32 {
        let before = fs::read(&disk.image).unwrap();
        let booted = disk.boot().unwrap();
        let expected = if count <= u32::from(grub::TRIES) { "locals/a" } else { "1" };
        assert_eq!(booted, (expected.into(), "locals/a".into(), count.to_string(), "ok".into()));
        assert_eq!(disk.env().load().unwrap().bootcount, count);
        // A cut in GRUB's save: one byte of the first sector is old or new.
        let (at, after) = (place(&disk.image, "/grubenv") as usize, fs::read(&disk.image).unwrap());
        let pairs = before[at..][..grub::SIZE].iter().zip(&after[at..][..grub::SIZE]);
        let differ: Vec<_> = pairs.enumerate().filter(|(_, (old, new))| old != new).map(|(index, _)| index).collect();
        assert!(differ.len() == 1 && differ[0] < 512, "{differ:?}");
    }
    disk.env().store(&vars("locals/a", None, Some("1"))).unwrap();
    assert_eq!(disk.boot().unwrap(), ("locals/a".into(), "".into(), "0".into(), "ok".into()));
    run(Command::new("e2fsck").env("PATH", SBIN).arg("-fn").arg(&disk.image));
}

#[test]
fn the_grub_script_does_not_try_what_it_cannot_count() {
    // A block without `bootcount` and without room for it.
    let text = format!("pv_rev=1\npv_try=2\nupgrade_available=1\nx={}\n", "y".repeat(950));
    let mut block = [b'#'; grub::SIZE];
    block[..25].copy_from_slice(b"# GRUB Environment Block\n");
    block[25..][..text.len()].copy_from_slice(text.as_bytes());
    let disk = BootDisk::new("canary", &["0", "1", "2"], "", Some(&block));
    assert_eq!(disk.boot().unwrap(), ("1".into(), "2".into(), "1".into(), "bad".into()));
}

#[test]
fn whatever_an_owner_stores_some_revision_boots_and_no_candidate_is_tried_without_an_end() {
    let armed = vars("1", Some("2"), None);
    let disk = BootDisk::new("owner", &["0", "1", "2"], "", Some(&grub::initial(&armed).unwrap()));
    // What is stored, how often the candidate is then tried, and what boots in the end.
    let cases: [(&str, usize, &str); 20] = [
        ("bootlimit=1", 1, "1"),
        ("bootlimit=8", 8, "1"),
        ("bootlimit=9", 3, "1"),
        ("bootlimit=0", 3, "1"),
        ("bootlimit=-1", 3, "1"),
        ("bootlimit=many", 3, "1"),
        ("bootlimit=99999999999999999999999", 3, "1"),
        ("bootcount=2", 1, "1"),
        ("bootcount=many", 3, "1"),
        ("bootcount=-1", 3, "1"),
        ("bootcount=1000", 0, "1"),
        ("upgrade_available=yes", 0, "1"),
        ("upgrade_available=0", 0, "1"),
        ("pv_try=", 0, "1"),
        ("pv_try=77", 0, "1"),
        ("pv_try=../../x", 0, "1"),
        ("pv_try=2 \"; echo $x `reboot` {", 0, "1"),
        ("pv_rev=77", 3, "0"),
        ("pv_rev=", 3, "0"),
        ("pv_rev=a b 'c", 3, "0"),
    ];
    for (setting, tries, end) in cases {
        disk.set(&["pv_rev=1", "pv_try=2", "upgrade_available=1", "bootcount=0", "bootlimit=3"]);
        disk.set(&[setting]);
        let booted: Vec<_> = (0..10).map(|_| disk.boot().unwrap_or_else(|| panic!("{setting}")).0).collect();
        assert!(booted[..tries].iter().all(|revision| revision == "2"), "{setting}: {booted:?}");
        assert!(booted[tries..].iter().all(|revision| revision == end), "{setting}: {booted:?}");
        // And we obey or refuse.
        match disk.env().load() {
            Ok(_) => disk.env().store(&vars("1", None, None)).unwrap(),
            Err(code) => {
                assert_eq!(code, Code::EnvInvalid, "{setting}");
                disk.env().rebuild(&vars("1", None, None)).unwrap();
            }
        }
        assert_eq!(disk.boot().unwrap().0, "1", "{setting}");
    }
}

#[test]
fn the_grub_script_is_the_model() {
    let mut checked = 0;
    for case in 0..2 * 3 * 3 * 4u32 {
        let (armed, last) = (case % 2 == 1, ["", "locals/last", "0"][(case / 2 % 3) as usize]);
        let (bootcount, bootlimit) = [(0, 3), (3, 3), (8, 8)][(case / 6 % 3) as usize];
        let there: &[&str] =
            [&["0", "1", "2", "locals/last"][..], &["0", "locals/last"], &["0", "1"], &[]][(case / 18) as usize];
        let vars = vars("1", armed.then_some("2"), None);
        let folder = Folder::new("model");
        let block = folder.path("grubenv");
        fs::write(&block, grub::initial(&vars).unwrap()).unwrap();
        editenv(&block, &["set".into(), format!("bootcount={bootcount}"), format!("bootlimit={bootlimit}")]);
        let disk = BootDisk::new("model", there, last, Some(&fs::read(&block).unwrap()));
        let last = RevName::parse(last).ok();
        let env = LoaderVars { vars, bootcount, bootlimit };
        let expected = loader(Some(env), |_| true, |revision| there.contains(&revision.as_str()), last);
        let expected = expected.map(|facts| {
            let candidate = facts.candidate.map_or(String::new(), |name| name.to_string());
            let canary = if facts.canary { "ok" } else { "bad" };
            (facts.booted.unwrap().to_string(), candidate, facts.bootcount.to_string(), canary.to_owned())
        });
        assert_eq!(disk.boot(), expected, "{vars:?} {bootcount}/{bootlimit} {there:?} {last:?}");
        checked += 1;
    }
    // Without a block, and with one that is none.
    for block in [None, Some(&[0xff; grub::SIZE][..])] {
        for (last, expected) in [("locals/last", "locals/last"), ("", "0")] {
            let disk = BootDisk::new("lost", &["0", "locals/last"], last, block);
            assert_eq!(disk.boot().unwrap(), (expected.into(), "".into(), "0".into(), "ok".into()));
            checked += 1;
        }
    }
    assert_eq!(checked, 76);
}

#[test]
fn uboot_txt_as_the_original_left_it_changes_in_exactly_one_sector() {
    const FAT: u64 = 8 << 20;
    let folder = Folder::new("uboot-txt");
    let tree = folder.path("tree");
    fs::create_dir_all(tree.join("boot")).unwrap();
    let mut text = b"pv_rev=5\0".to_vec();
    text.resize(0x1_0000, 0);
    fs::write(tree.join("boot/uboot.txt"), &text).unwrap();
    let image = folder.ext4(&tree, "disk.img");
    folder.fat("disk.img", FAT, 16 << 20, &["-c", "4"]);
    let text = uboot_txt::Span { at: place(&image, "/boot/uboot.txt"), length: 0x1_0000 };
    let mark = || {
        let found = fat::find(&mut FileRegion::open(&image, FAT), "pv.env").unwrap();
        found.map(|(at, length)| uboot_txt::Span { at: FAT + at, length: length.into() })
    };
    let open = || uboot_txt::UbootTxt::new(FileRegion::open(&image, 0), text, mark()).unwrap();
    assert_eq!(mark(), None, "the loader has not made one yet");
    assert_eq!(open().load().unwrap().vars, vars("5", None, None));

    let store = |next: &BootVars| {
        let before = fs::read(&image).unwrap();
        open().store(next).unwrap();
        assert_eq!(open().load().unwrap().vars, *next);
        changed(&before, &fs::read(&image).unwrap())
    };
    assert_eq!(store(&vars("5", Some("locals/b"), None)), [text.at / 512]);
    // The loader tries it, and makes its mark.
    fs::write(folder.path("pv.env"), b"pv_trying=locals/b\0\0").unwrap();
    mtools("mcopy", &image, FAT, &["-D", "o", folder.path("pv.env").to_str().unwrap(), "::pv.env"]);
    assert_eq!((mark().unwrap().length, open().load().unwrap().bootcount), (20, 1));
    // It fails, is given up, and is tried again later: then the mark goes too, in its own sector.
    assert_eq!(store(&vars("5", None, None)), [text.at / 512]);
    assert_eq!(store(&vars("5", Some("locals/b"), None)), [text.at / 512, mark().unwrap().at / 512]);
    assert_eq!(mtools("mtype", &image, FAT, &["::pv.env"]), "\0".repeat(20));
    assert_eq!(store(&vars("locals/b", None, Some("5"))), [text.at / 512]);

    run(Command::new("e2fsck").env("PATH", SBIN).arg("-fn").arg(&image));
    let file = debugfs(&image, "cat /boot/uboot.txt");
    assert!(file.starts_with("pv_rev=locals/b\0pv_prev=5\0\0") && file.len() == 0x1_0000);
    // Ours goes into what others have there, and back.
    FileRegion::open(&image, 0).write_at(text.at, b"pv_rev=7\0pv_try=8\0\0").unwrap();
    assert_eq!(open().load().unwrap().vars, vars("7", Some("8"), None));
}

/// The page of the book: its commands are run as they stand, and its table says what the code says.
#[test]
fn the_books_page_is_true() {
    let page = fs::read_to_string(root().join("docs/environments.md")).unwrap();
    let disk = LoaderDisk::new("book", &[], "", &vars("0", None, None));
    let config = disk.fw_config();
    let folder = config.parent().unwrap();
    fs::write(folder.join("grubenv"), grub::initial(&vars("0", None, None)).unwrap()).unwrap();
    let blocks: Vec<_> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let mut steps = 0;
    for line in blocks.iter().flat_map(|block| block.lines()).filter(|line| !line.starts_with('#')) {
        run(Command::new("sh").args(["-ec", line]).current_dir(folder));
        let grubs = || open(&folder.join("grubenv")).load().unwrap().vars;
        let candidate = match line {
            "fw_setenv -c fw_env.config -s arm" => disk.env(|env| env.load()).unwrap().vars.candidate,
            "grub-editenv grubenv set pv_try=7 upgrade_available=1 bootcount=0" => grubs().candidate,
            "fw_setenv -c fw_env.config -s disarm" => {
                assert_eq!(disk.env(|env| env.load()).unwrap().vars, vars("0", None, None));
                continue;
            }
            "grub-editenv grubenv set upgrade_available=0" => {
                assert_eq!(grubs(), vars("0", None, None));
                continue;
            }
            _ => continue,
        };
        assert_eq!(candidate, Some(rev("7")), "{line}");
        steps += 1;
    }
    assert_eq!((blocks.len(), steps), (3, 2));
    let printed = run(Command::new("fw_printenv").arg("-c").arg(&config));
    assert!(printed.lines().any(|line| line == "bootcmd=run my_boot"), "{printed}");
    assert!(!printed.lines().any(|line| line.starts_with("pv_script=")), "{printed}");

    let word = |yes: bool| if yes { "yes" } else { "no" };
    for (kind, guarantee) in [
        ("`uboot.txt`", uboot_txt::GUARANTEE),
        ("`uboot.txt`, no `pv.env`", uboot_txt::GUARANTEE_WITHOUT_MARK),
        ("`grub`", grub::GUARANTEE),
        ("`tryboot`", tryboot::GUARANTEE),
        ("`uboot-ab`, its slots", uboot_ab::GUARANTEE),
    ] {
        let row = page.lines().find(|line| line.starts_with(&format!("| {kind} |"))).unwrap();
        let (before, after) = (word(guarantee.hang_before_linux), word(guarantee.hang_after_linux));
        let end = format!("| {} | {before} | {after} | {} |", word(guarantee.torn_write), guarantee.tries);
        assert!(row.ends_with(&end), "{row}: {end}");
    }
    for code in [Code::ScriptUnknown, Code::EnvFull, Code::EnvLayout] {
        assert!(page.contains(&code.to_string()), "{code}");
    }
}

/// A slot in a file.
struct FileSlot(FileRegion);

impl Region for FileSlot {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.0.read_at(offset, out)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.0.write_at(offset, data)
    }
    fn sync(&mut self) -> Result<(), Code> {
        self.0.sync()
    }
    fn drop_cache(&mut self) {}
}

impl uboot_ab::Slot for FileSlot {
    fn erase_size(&self) -> u64 {
        1
    }
    fn erase(&mut self, _: u64, _: u64) -> Result<(), Code> {
        Ok(())
    }
}

#[test]
fn uboot_ab_slots_as_the_original_left_them_take_turns() {
    const SLOT: u64 = 1 << 20;
    let folder = Folder::new("slots");
    let image = folder.path("disk.img");
    // Both slots as a factory writes them: a line of text, padded by dd, and the image behind it.
    let make = "printf fit_rev=0 | dd of=disk.img bs=4096 conv=sync; cat fit >>disk.img; truncate -s 1M disk.img; \
        cat disk.img >second; cat second >>disk.img; rm second";
    fs::write(folder.path("fit"), vec![0xd0; 70_000]).unwrap();
    run(Command::new("sh").args(["-ec", make]).current_dir(&folder.0));
    let open = || uboot_ab::Slots::new([0, SLOT].map(|at| FileSlot(FileRegion::open(&image, at))), SLOT).unwrap();
    assert_eq!(open().holds(), [Ok(Some(rev("0"))), Ok(Some(rev("0")))]);

    let shown = |slot: u64| {
        let command = format!("dd if=disk.img bs=4096 skip={} count=1 status=none | tr -d '\\0'", slot * SLOT / 4096);
        run(Command::new("sh").args(["-ec", &command]).current_dir(&folder.0))
    };
    let mut committed = "0".to_owned();
    for (round, length) in [50_000, 4096, 1, 90_001].into_iter().enumerate() {
        let before = fs::read(&image).unwrap();
        let (next, new) = (format!("locals/r{round}"), folder.path("new"));
        fs::write(&new, vec![round as u8 + 1; length]).unwrap();
        let written = open().install(&rev(&next), &[rev(&committed)], &mut FileRegion::open(&new, 0), length as u64);
        let (target, after) = (1 - round % 2, fs::read(&image).unwrap());
        assert_eq!(written, Ok(target));
        assert_eq!(shown(target as u64), format!("fit_rev={next}"));
        let slot = |bytes: &[u8], index: usize| bytes[index * SLOT as usize..][..SLOT as usize].to_vec();
        assert!(slot(&before, 1 - target) == slot(&after, 1 - target), "the slot in use was touched");
        assert!(slot(&after, target)[4096..][..length] == fs::read(&new).unwrap());
        committed = next;
    }
}
