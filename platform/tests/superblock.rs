//! A torn superblock on a real ext4 (needs root): the kernel does not mount it, and mounts it with all that it holds when it is
//! mended.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard},
};

/// Linux writes the superblock with the block around it.
const BLOCK: usize = 4096;
/// What a cut leaves whole.
const SECTOR: usize = 512;
/// The superblock in its block.
const SUPERBLOCK: std::ops::Range<usize> = 1024..2048;

/// One volume at a time: until a program that another test starts is that program, it has our open files, and `umount` would
/// find them.
static ALONE: Mutex<()> = Mutex::new(());

/// An image, the folder that it is mounted on, and what is mounted there.
struct Volume {
    folder: PathBuf,
    mounted: bool,
    _alone: MutexGuard<'static, ()>,
}

impl Volume {
    /// As `pvr image` makes it, with blocks of this size.
    fn new(name: &str, length: u64, block: usize) -> Self {
        let alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
        let folder = std::env::temp_dir().join(format!("switchback-torn-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("at")).unwrap();
        let volume = Self { folder, mounted: false, _alone: alone };
        File::create(volume.image()).unwrap().set_len(length).unwrap();
        let features = "^metadata_csum_seed,^orphan_file";
        let mut make = Command::new("mke2fs");
        make.args(["-t", "ext4", "-q", "-F", "-m", "0", "-O", features, "-J", "size=4", "-b", &block.to_string()]);
        assert!(succeeds(make.args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(volume.image())));
        volume
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn mounts(&mut self) -> bool {
        self.mounted = succeeds(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.at()));
        self.mounted
    }

    fn unmount(&mut self) {
        assert!(succeeds(Command::new("umount").arg(self.at())));
        self.mounted = false;
    }

    fn at(&self) -> PathBuf {
        self.folder.join("at")
    }

    /// The block that the superblock is in.
    fn block(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        File::open(self.image()).unwrap().read_exact_at(&mut block, 0).unwrap();
        block
    }

    fn put(&self, block: &[u8]) {
        File::options().write(true).open(self.image()).unwrap().write_all_at(block, 0).unwrap();
    }

    fn mend(&self) -> bool {
        platform::superblock::mend(self.image().to_str().unwrap()).unwrap()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg(self.at()).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")).status.success()
}

/// Its content is there, and e2fsck finds nothing.
fn is_sound(volume: &mut Volume, files: usize) {
    assert!(volume.mounts(), "it is mended");
    for number in 0..files {
        let text = fs::read_to_string(volume.at().join(number.to_string())).unwrap();
        assert_eq!(text, format!("file {number}"));
    }
    volume.unmount();
    assert!(succeeds(Command::new("e2fsck").args(["-fn"]).arg(volume.image())), "e2fsck finds something");
}

/// The image of another moment.
fn copy(from: &Path, to: &Path) {
    assert!(succeeds(Command::new("cp").arg("--sparse=always").arg(from).arg(to)));
}

/// Each mount and each unmount, torn after every sector of the write, both ways.
fn torn_at_mount_and_unmount(name: &str, block: usize) {
    let mut volume = Volume::new(name, 16 << 20, block);
    let write = if block == BLOCK { 0..BLOCK } else { SUPERBLOCK };
    let [at_mount, at_unmount] = ["mount", "unmount"].map(|moment| volume.folder.join(moment));
    let mut torn = 0;
    for files in 0..2 {
        let before = volume.block();
        assert!(volume.mounts());
        let mounted = volume.block();
        copy(&volume.image(), &at_mount);
        fs::write(volume.at().join(files.to_string()), format!("file {files}")).unwrap();
        assert!(succeeds(Command::new("sync").arg("-f").arg(volume.at())));
        let written = volume.block();
        volume.unmount();
        let unmounted = volume.block();
        copy(&volume.image(), &at_unmount);
        for (image, had, old, new) in
            [(&at_mount, files, &before, &mounted), (&at_unmount, files + 1, &written, &unmounted)]
        {
            for at in write.clone().step_by(SECTOR).skip(1) {
                for (front, back) in [(new, old), (old, new)] {
                    let state = [&new[..write.start], &front[write.start..at], &back[at..write.end], &new[write.end..]];
                    torn += torn_once(&mut volume, image, had, [old, new], &state.concat());
                }
            }
        }
        copy(&at_unmount, &volume.image());
    }
    assert_eq!(torn, 2 * 2 * 2, "two mounts and two unmounts, both ways");
}

/// This block over an image with so many files; how many superblocks were torn by that: none or one.
fn torn_once(volume: &mut Volume, image: &Path, files: usize, whole: [&Vec<u8>; 2], state: &[u8]) -> usize {
    let is_whole = whole.iter().any(|block| block[SUPERBLOCK] == state[SUPERBLOCK]);
    copy(image, &volume.image());
    volume.put(state);
    if is_whole {
        assert!(!volume.mend() && volume.block() == state);
        return 0;
    }
    assert!(!volume.mounts(), "the kernel has to refuse this, or there is nothing to mend");
    assert!(volume.mend());
    assert!(!volume.mend(), "once is enough");
    is_sound(volume, files);
    1
}

#[test]
fn a_superblock_torn_at_mount_or_unmount_is_mended_and_mounts_with_everything() {
    torn_at_mount_and_unmount("small", 4096);
}

#[test]
fn so_is_one_of_a_file_system_with_small_blocks() {
    torn_at_mount_and_unmount("blocks", 1024);
}

/// Growth changes sizes and counts in the first sector, and in the second what is reckoned from them.
#[test]
fn a_superblock_torn_when_a_file_system_grew_is_mended() {
    let mut volume = Volume::new("grown", 16 << 20, 4096);
    assert!(volume.mounts());
    fs::write(volume.at().join("0"), "file 0").unwrap();
    volume.unmount();
    let old = volume.block();
    File::options().write(true).open(volume.image()).unwrap().set_len(300 << 20).unwrap();
    assert!(succeeds(Command::new("resize2fs").arg(volume.image())));
    let new = volume.block();
    assert_ne!(old[SUPERBLOCK][4..8], new[SUPERBLOCK][4..8], "it did not grow");
    let at = SUPERBLOCK.start + SECTOR;
    volume.put(&[&new[..at], &old[at..]].concat());
    assert!(!volume.mounts() && volume.mend());
    is_sound(&mut volume, 1);
}
