//! Small cpio archives (newc), to be put behind an initramfs: the kernel unpacks one after the other, so an appended
//! archive changes a file of the base without building it anew.

/// An archive with one regular file, and the folders it needs, as bytes that may follow another archive.
pub fn archive(path: &str, content: &[u8]) -> Vec<u8> {
    archive_of(path, 0o100_644, content)
}

fn archive_of(path: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, _) in path.match_indices('/') {
        entry(&mut out, &path[..at], 0o040_755, &[]);
    }
    entry(&mut out, path, mode, content);
    entry(&mut out, "TRAILER!!!", 0, &[]);
    // The kernel looks for the next archive, or the end, on any boundary of four.
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// An initramfs with one file more, or another one in its place.
pub fn with_file(initramfs: Vec<u8>, path: &str, content: &[u8]) -> Vec<u8> {
    followed_by(initramfs, &archive(path, content))
}

/// The same with a file that can be executed.
pub fn with_program(initramfs: Vec<u8>, path: &str, content: &[u8]) -> Vec<u8> {
    followed_by(initramfs, &archive_of(path, 0o100_755, content))
}

fn followed_by(mut initramfs: Vec<u8>, archive: &[u8]) -> Vec<u8> {
    initramfs.resize(initramfs.len().next_multiple_of(512), 0);
    initramfs.extend(archive);
    initramfs
}

fn entry(out: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let inode = out.len() as u32 + 1;
    let size = content.len() as u32;
    let name_size = name.len() as u32 + 1;
    out.extend(b"070701");
    for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        out.extend(format!("{field:08X}").bytes());
    }
    out.extend(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_itself_reads_it() {
        let mut child = Command::new("cpio")
            .arg("-tv")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive("etc/note", b"hello")).unwrap();
        let listing = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.status.success() && text.contains(" etc/note") && text.contains(" 5 "), "{text}");
    }
}
