//! Files of this machine: written whole or not at all, hashed, walked in a fixed order.
//!
//! A file that we write is complete under a temporary name in the same folder, synced and then renamed; a crash or
//! a full disk leaves the old content. Several `pvr` at once cannot see each other's halves.

use crate::error::{During, Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tempfile::{NamedTempFile, TempPath};

/// Writes a file of this mode, whole or not at all.
pub fn write_atomic(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let mut file = begin(path)?;
    file.write_all(content).during(|| format!("write {}", path.display()))?;
    finish(file, path, mode)
}

/// A file that is not visible under `path` yet.
pub fn begin(path: &Path) -> Result<NamedTempFile> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".pvr-").tempfile_in(dir).during(|| format!("create a file in {}", dir.display()))
}

/// Where a file that the user named is written to.
pub enum Target {
    /// A regular file, or none yet: replaced whole. Links are followed already.
    File(PathBuf),
    /// A device, a pipe, a socket: written into, because there is nothing that could be replaced.
    Stream(File),
}

/// Looks what a name stands for.
pub fn target(path: &Path) -> Result<Target> {
    let what = || format!("write {}", path.display());
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            Err(Error::usage(format!("{} is a folder", path.display())).hint("name the file that shall be in it"))
        }
        Ok(meta) if meta.is_file() => fs::canonicalize(path).map(Target::File).during(what),
        Ok(_) => File::options().write(true).open(path).map(Target::Stream).during(what),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            // A link to what is not there yet.
            Ok(link) => target(&path.parent().unwrap_or(Path::new("")).join(link)),
            Err(_) => Ok(Target::File(path.to_owned())),
        },
        Err(e) => Err(e).during(what),
    }
}

/// The permissions of a new file or folder: at most `mode`, and what this process's umask leaves of it.
pub fn permissions(mode: u32) -> fs::Permissions {
    static UMASK: OnceLock<u32> = OnceLock::new();
    let umask = UMASK.get_or_init(|| {
        // It can be read only by setting it. What another thread makes meanwhile is private, which is no harm.
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::umask(umask);
        umask.as_raw_mode()
    });
    fs::Permissions::from_mode(mode & !umask)
}

/// Gives a file its mode, as far as the umask leaves it, and its name, durably.
pub fn finish(file: NamedTempFile, path: &Path, mode: u32) -> Result<()> {
    let act = || -> io::Result<()> {
        file.as_file().set_permissions(permissions(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    act().during(|| format!("write {}", path.display()))
}

/// Writes a file that may be lost, but is never half there under its name unless the power fails.
pub fn write_unsynced(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = begin(path)?;
    file.write_all(content).during(|| format!("write {}", path.display()))?;
    file.persist(path).map_err(|e| e.error).during(|| format!("write {}", path.display()))?;
    Ok(())
}

/// Keeps others from changing the files of a folder that are replaced, until the answer is dropped.
pub fn lock_dir(dir: &Path) -> Result<File> {
    let act = || File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
    act().during(|| format!("lock {}", dir.display()))
}

/// Makes the names in a folder durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).during(|| format!("sync {}", dir.display()))
}

/// Files that are complete under temporary names, and get their own names together once all of them are durable.
#[derive(Default)]
pub struct Batch {
    files: Vec<(TempPath, PathBuf)>,
}

/// Up to here each file is synced by itself; beyond, one sync of the file system is cheaper.
const SYNC_EACH_MAX: usize = 8;

impl Batch {
    /// Adds a finished file of this mode.
    pub fn push(&mut self, file: NamedTempFile, path: &Path, mode: u32) -> Result<()> {
        let set = file.as_file().set_permissions(permissions(mode));
        set.during(|| format!("write {}", path.display()))?;
        self.files.push((file.into_temp_path(), path.to_owned()));
        Ok(())
    }

    /// Takes in another batch.
    pub fn append(&mut self, mut other: Self) {
        self.files.append(&mut other.files);
    }

    /// Makes all contents durable, then gives the names. A failure leaves the files that are not renamed yet as they
    /// were.
    pub fn finish(self) -> Result<()> {
        let Some((first, _)) = self.files.first() else { return Ok(()) };
        if self.files.len() <= SYNC_EACH_MAX {
            for (file, path) in &self.files {
                let sync = File::open(file).and_then(|file| file.sync_all());
                sync.during(|| format!("write {}", path.display()))?;
            }
        } else {
            let sync = File::open(first).and_then(|file| Ok(rustix::fs::syncfs(&file)?));
            sync.during(|| format!("write {}", first.display()))?;
        }
        for (file, path) in self.files {
            persist(file, &path).during(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Renames; where the folder is on another file system than the temporary file, by a copy beside the name.
fn persist(file: TempPath, path: &Path) -> io::Result<()> {
    match file.persist(path) {
        Ok(()) => Ok(()),
        Err(e) if e.error.kind() == io::ErrorKind::CrossesDevices => {
            let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut copy = tempfile::Builder::new().prefix(".pvr-").tempfile_in(dir)?;
            let mut source = File::open(&e.path)?;
            io::copy(&mut source, &mut copy)?;
            copy.as_file().set_permissions(source.metadata()?.permissions())?;
            copy.as_file().sync_all()?;
            copy.persist(path).map_err(|e| e.error)?;
            Ok(())
        }
        Err(e) => Err(e.error),
    }
}

/// The hex sha256 of everything in `reader`, which is copied to `out` on the way.
pub fn copy_hashed(reader: &mut impl Read, out: &mut impl Write) -> io::Result<(String, u64)> {
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hash.finalize()), length)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hash.update(&buffer[..n]);
        out.write_all(&buffer[..n])?;
        length += n as u64;
    }
}

/// Hashes what is read through it.
pub struct Hashing<R> {
    from: R,
    hash: Sha256,
}

impl<R> Hashing<R> {
    /// Around a reader.
    pub fn new(from: R) -> Self {
        Self { from, hash: Sha256::new() }
    }

    /// The hex sha256 of what was read.
    pub fn sha(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// The hex sha256 of a file.
pub fn hash(path: &Path) -> Result<String> {
    let act = || Ok(copy_hashed(&mut File::open(path)?, &mut io::sink())?.0);
    act().during(|| format!("read {}", path.display()))
}

/// The hex sha256 of some bytes.
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).during(|| format!("read {}", path.display()))
}

/// Creates a folder and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).during(|| format!("create folder {}", path.display()))
}

/// Every entry below `root` (folders before their content, siblings by the bytes of their name), as paths
/// relative to it. Symbolic links are not followed.
pub fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    descend(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn descend(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let dir = root.join(below);
    let list = || fs::read_dir(&dir)?.collect::<io::Result<Vec<_>>>();
    let mut entries = list().during(|| format!("read folder {}", dir.display()))?;
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let path = below.join(entry.file_name());
        let is_dir = entry.file_type().during(|| format!("look at {}", entry.path().display()))?.is_dir();
        found.push(path.clone());
        if is_dir {
            descend(root, &path, found)?;
        }
    }
    Ok(())
}

/// The absolute form of a path, for messages.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// An external program's run that must succeed; says what is missing if it is not installed.
pub fn run_tool(command: &mut std::process::Command, package: &str) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    // The tools of file systems are in /usr/sbin, which is not in every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(std::process::Stdio::null()).output();
    let output = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::host(format!("{name} is not installed")).hint(format!("on Debian: apt install {package}"))
        }
        _ => Error::host(format!("cannot run {name}: {e}")),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::host(format!("{name} failed ({}): {}", output.status, said.trim())));
    }
    Ok(output.stdout)
}
