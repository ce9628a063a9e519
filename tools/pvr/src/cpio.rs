//! The kernel's initramfs format: `newc` cpio, as the kernel's documentation describes it.
//!
//! Everything is owned by root, has time 0 and comes in the order in which it is added, so equal input gives equal
//! bytes. Folders, files and links only; device nodes are not needed, the kernel brings `/dev/console`.

/// An archive that is being written.
#[derive(Default)]
pub struct Archive {
    out: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a folder; its parents must have been added before.
    pub fn dir(&mut self, name: &str) {
        self.entry(name, 0o040_755, 2, &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, 1, content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, 0o120_777, 1, target.as_bytes());
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = u32::MAX;
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.out
    }

    fn entry(&mut self, name: &str, mode: u32, links: u32, content: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        let size = u32::try_from(content.len()).expect("no file of an initramfs has 4 GiB");
        // inode, mode, uid, gid, links, time, size, device and special device as major and minor, name with its NUL, check
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(0);
        self.pad();
        self.out.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.dir("etc");
        archive.file("etc/a", 0o644, b"hello");
        let out = archive.finish();
        assert_eq!(&out[..6], b"070701");
        let (dir, file) = ((110usize + 4).next_multiple_of(4), (110usize + 6).next_multiple_of(4) + 8);
        assert_eq!(&out[dir..dir + 6], b"070701");
        assert_eq!(&out[dir + file..dir + file + 6], b"070701");
        assert_eq!(out.len() % 4, 0);
        assert!(String::from_utf8_lossy(&out).contains("TRAILER!!!"));
    }
}
