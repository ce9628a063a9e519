//! Kernel modules: a flat list in load order, made by `pvr image`. No dependency is computed on the device.
//!
//! `/lib/modules/list` has one file name per line; the files lie beside it, uncompressed. Each is removed after
//! it was loaded: the initramfs is memory. A module that fails is logged and the next is tried: the list may
//! hold drivers of hardware that is not there.

use log::warn;
use rustix::{fs::OFlags, io::Errno};
use std::path::Path;

const FOLDER: &str = "/lib/modules";

/// Loads the list; how many were loaded.
pub fn load() -> usize {
    let Ok(list) = std::fs::read_to_string(Path::new(FOLDER).join("list")) else { return 0 };
    let names = list.lines().map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#'));
    names.filter(|name| load_one(name)).count()
}

fn load_one(name: &str) -> bool {
    let path = Path::new(FOLDER).join(name);
    let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let loaded = opened.and_then(|file| rustix::system::finit_module(&file, c"", 0));
    let _ = std::fs::remove_file(&path);
    match loaded {
        Ok(()) => true,
        Err(Errno::EXIST) => true, // built in, or twice in the list
        Err(error) => {
            warn!("module {name}: {error}; what needs it will be missing");
            false
        }
    }
}
