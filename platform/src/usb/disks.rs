//! Which disks count as USB sticks, as /sys describes them.
//!
//! A disk counts if the way to it leads over a USB bus, or if the policy names it, unless a file system of the device's
//! own is on it. Of a disk with partitions its first one is looked at, else the disk itself.
//! Invariants: total: what cannot be read is as if it were not there. Names are those that a device file can have.

use rustix::fs::{major, minor, stat};
use std::{fs, path::Path};

/// A disk that counts, from its appearance on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Disk {
    /// What is mounted of it: the name of its device file.
    pub(super) node: String,
    /// The kernel's number of this appearance, where it gives one: another stick in the same socket has another one.
    sequence: String,
}

/// Which disks count.
pub(super) struct Wanted {
    named: Vec<String>,
    /// Device numbers of what is mounted, as in /sys.
    own: Vec<String>,
}

impl Wanted {
    /// Besides those on a USB bus the `named` ones, separated by commas; never one on which one of `mounts` is.
    pub(super) fn new(named: &str, mounts: &[&str]) -> Self {
        let number = |path: &&str| stat(*path).map(|stat| format!("{}:{}", major(stat.st_dev), minor(stat.st_dev)));
        let own = mounts.iter().filter_map(|path| number(path).ok()).collect();
        Self { named: named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(), own }
    }

    /// Those below `sys`, which is /sys/block.
    pub(super) fn find(&self, sys: &Path) -> Vec<Disk> {
        let mut disks: Vec<_> = names(sys).iter().filter_map(|name| self.disk(sys, name)).collect();
        disks.sort_unstable_by(|one, other| one.node.cmp(&other.node));
        disks
    }

    fn disk(&self, sys: &Path, name: &str) -> Option<Disk> {
        let folder = sys.join(name);
        if !self.named.iter().any(|named| named == name) && !is_on_usb(&folder) {
            return None;
        }
        let mut partitions: Vec<(u32, String)> =
            names(&folder).into_iter().filter_map(|part| Some((number(&folder.join(&part))?, part))).collect();
        partitions.sort_unstable();
        let numbers = partitions.iter().map(|(_, part)| folder.join(part)).chain([folder.clone()]);
        let is_own = numbers.into_iter().any(|folder| self.own.contains(&text(&folder.join("dev"))));
        // A reader of cards without a card is a disk of no size.
        if is_own || matches!(text(&folder.join("size")).as_str(), "" | "0") {
            return None;
        }
        let node = partitions.into_iter().next().map_or(name.to_owned(), |(_, part)| part);
        Some(Disk { node, sequence: text(&folder.join("diskseq")) })
    }
}

/// The number of a partition; `None` if the folder is not that of one.
fn number(folder: &Path) -> Option<u32> {
    text(&folder.join("partition")).parse().ok()
}

/// Whether the way to the device leads over a USB bus: `…/usb1/1-1/…`.
fn is_on_usb(folder: &Path) -> bool {
    let bus = |name: &str| name.strip_prefix("usb").is_some_and(|number| number.parse::<u32>().is_ok());
    fs::read_link(folder).is_ok_and(|way| way.iter().any(|part| part.to_str().is_some_and(bus)))
}

/// Names in a folder that are those of devices.
fn names(folder: &Path) -> Vec<String> {
    let plain = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(plain).collect()
}

/// What a file of /sys says; nothing if it does not exist.
fn text(file: &Path) -> String {
    fs::read_to_string(file).map_or(String::new(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, path::PathBuf};

    /// A /sys/block of its own.
    struct Sys(PathBuf);

    impl Sys {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("usb-disks-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("block")).unwrap();
            Self(root)
        }

        /// A disk at the end of a way, with partitions by their numbers.
        fn add(&self, way: &str, name: &str, size: u32, partitions: &[u32]) {
            let folder = self.0.join("devices").join(way).join("block").join(name);
            fs::create_dir_all(folder.join("queue")).unwrap();
            let put = |at: &Path, file: &str, text: &str| fs::write(at.join(file), format!("{text}\n")).unwrap();
            put(&folder, "size", &size.to_string());
            put(&folder, "dev", &format!("{name}:0"));
            put(&folder, "diskseq", "7");
            for number in partitions {
                let part = folder.join(format!("{name}{number}"));
                fs::create_dir(&part).unwrap();
                put(&part, "partition", &number.to_string());
                put(&part, "dev", &format!("{name}:{number}"));
            }
            symlink(format!("../devices/{way}/block/{name}"), self.0.join("block").join(name)).unwrap();
        }

        fn find(&self, named: &str, own: &[&str]) -> Vec<String> {
            let own = own.iter().map(|number| number.to_string()).collect();
            let wanted = Wanted { own, ..Wanted::new(named, &[]) };
            wanted.find(&self.0.join("block")).into_iter().map(|disk| disk.node).collect()
        }
    }

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn disks_on_a_usb_bus_count_and_those_that_are_named() {
        let sys = Sys::new("count");
        sys.add("pci0/usb1/1-1/1-1:1.0/host0/target", "sda", 9, &[]);
        sys.add("soc/usbmisc/ata1", "sdb", 9, &[]);
        sys.add("pci0/virtio2", "vdb", 9, &[]);
        assert_eq!(sys.find("", &[]), ["sda"]);
        assert_eq!(sys.find("vdb,sdx", &[]), ["sda", "vdb"]);
    }

    #[test]
    fn the_first_partition_is_looked_at_by_its_number() {
        let sys = Sys::new("first");
        sys.add("usb1", "sda", 9, &[10, 2]);
        assert_eq!(sys.find("", &[]), ["sda2"]);
    }

    #[test]
    fn the_devices_own_disk_and_one_without_a_medium_do_not_count() {
        let sys = Sys::new("own");
        sys.add("usb1", "sda", 9, &[1, 2]);
        sys.add("usb2", "sdb", 0, &[]);
        assert_eq!(sys.find("sda", &["sda:2"]), [""; 0]);
        assert_eq!(sys.find("", &["sda:0"]), [""; 0]);
        assert_eq!(sys.find("", &["sdc:0"]), ["sda1"]);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let sys = Sys::new("odd");
        symlink("../devices/usb1/gone", sys.0.join("block/sdz")).unwrap();
        fs::create_dir(sys.0.join("block/sd!a")).unwrap();
        assert_eq!(sys.find("sdz,sd!a", &[]), [""; 0]);
        assert!(Wanted::new("", &[]).find(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn another_appearance_is_another_disk() {
        let sys = Sys::new("again");
        sys.add("usb1", "sda", 9, &[1]);
        let wanted = Wanted::new("", &[]);
        let before = wanted.find(&sys.0.join("block"));
        fs::write(sys.0.join("block/sda/diskseq"), "8\n").unwrap();
        assert_ne!(wanted.find(&sys.0.join("block")), before);
    }
}
