//! Squashfs images of the profile `swb-1`: zstd level 15, 128 KiB blocks, sorted paths, fixed times, no root needed.
//!
//! Invariant: equal trees give equal bytes, on every host and for every user; so equal files give equal blocks in
//! any image of a fleet. Kept are names, content, symbolic links and permission bits; owners are root unless
//! said otherwise. Not kept: times, extended attributes, hard links (the content is stored once nevertheless).
//! Refused by name: devices, sockets and pipes, which a container gets from the device, not from its image.

use crate::{
    error::{During, Error, Result},
    files,
};
use backhand::{
    FilesystemCompressor, FilesystemWriter, NodeHeader,
    compression::{CompressionOptions, Compressor, Zstd},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufWriter, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The name of the profile; an image of another profile is another name.
pub const PROFILE: &str = "swb-1";
const BLOCK: u32 = 128 * 1024;
const LEVEL: u32 = 15;

/// Owner of a path and of everything below it that has no nearer owner.
pub type Owners = BTreeMap<PathBuf, (u32, u32)>;

/// Writes the tree below `root` as an image to `out`; how many entries it has.
pub fn write(root: &Path, owners: &Owners, out: impl Write + Seek) -> Result<usize> {
    let mut image = empty(root, owners)?;
    let entries = files::walk(root)?;
    if let Some(missing) = owners.keys().find(|p| !entries.contains(p)) {
        return Err(Error::input(format!("owner given for {}, which is not in {}", missing.display(), root.display())));
    }
    for path in &entries {
        push(&mut image, root, path, owners)?;
    }
    let mut out = BufWriter::with_capacity(1 << 20, out);
    image.write(&mut out).map_err(|e| Error::host(format!("cannot write the image: {e}")))?;
    out.flush().during(|| "write the image")?;
    Ok(entries.len())
}

fn empty<'a>(root: &Path, owners: &Owners) -> Result<FilesystemWriter<'a, 'a, 'a>> {
    let options = CompressionOptions::Zstd(Zstd { compression_level: LEVEL });
    let compressor = FilesystemCompressor::new(Compressor::Zstd, Some(options)).map_err(inside)?;
    let header = header(root, Path::new(""), owners)?;
    let mut image = FilesystemWriter::default();
    image.set_block_size(BLOCK);
    image.set_compressor(compressor);
    image.set_time(0);
    image.set_root_mode(header.permissions);
    Ok(image)
}

fn push<'a>(image: &mut FilesystemWriter<'a, 'a, 'a>, root: &Path, path: &Path, owners: &Owners) -> Result<()> {
    let full = root.join(path);
    let kind = fs::symlink_metadata(&full).during(|| format!("look at {}", full.display()))?.file_type();
    let header = header(&full, path, owners)?;
    if kind.is_dir() {
        image.push_dir(path, header).map_err(inside)
    } else if kind.is_symlink() {
        let target = fs::read_link(&full).during(|| format!("read the link {}", full.display()))?;
        image.push_symlink(target, path, header).map_err(inside)
    } else if kind.is_file() {
        image.push_file_from_path(full, path, header).map_err(inside)
    } else {
        let hint = "devices and pipes come from the device when the container starts; remove it from the tree";
        Err(Error::input(format!("{} is neither file, folder nor link", full.display())).hint(hint))
    }
}

fn header(full: &Path, path: &Path, owners: &Owners) -> Result<NodeHeader> {
    let meta = fs::symlink_metadata(full).during(|| format!("look at {}", full.display()))?;
    // The mode of a link is meaningless and differs between hosts' file systems.
    let mode = if meta.is_symlink() { 0o777 } else { (meta.permissions().mode() & 0o7777) as u16 };
    let (uid, gid) = path.ancestors().find_map(|p| owners.get(p)).copied().unwrap_or((0, 0));
    Ok(NodeHeader::new(mode, uid, gid, 0))
}

fn inside(e: backhand::BackhandError) -> Error {
    Error::host(format!("cannot build the image: {e}"))
}
