//! What the `start` errand does to make a container, in its order: `volumes` (images and writable places),
//! `root` (the root file system), `device` (/dev), `entries` (what the configuration mounts and what we add),
//! `become_init` (names, privileges, exec). `mounts` and `loops` are the primitives.
//!
//! Everything here runs in the container's own namespaces and dies with them.

pub mod become_init;
pub mod device;
pub mod entries;
pub mod loops;
pub mod mounts;
pub mod root;
pub mod volumes;

use runtime::fault::Code;
use rustix::io::{self, Errno};

/// Where the volumes of containers are mounted, by the original's convention: `/volumes/<container>/<name>`.
pub const VOLUMES: &str = "/volumes";
/// Where the writable places of containers live.
pub const DISKS: &str = "/storage/disks";
/// The storage file system.
pub const STORAGE: &str = "/storage";
/// Whether a path of a configuration names files of a revision: they are objects, which nobody ever writes to,
/// whatever the configuration says.
fn of_revision(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !path.starts_with('/') || below("/storage/trails") || below("/storage/objects")
}

/// Where a container's root file system is put together.
pub const ROOT: &str = "/run/switchback/root";

/// Why a container could not be made: the one record that PID 1 gets.
#[derive(Debug)]
pub struct Fault {
    /// What it means.
    pub code: Code,
    /// The step that failed, with its names.
    pub step: String,
    /// What the kernel said; `None` if it was not the kernel.
    pub errno: Option<Errno>,
}

impl Fault {
    /// A fault that no system call reported.
    pub fn new(code: Code, step: impl Into<String>) -> Self {
        Self { code, step: step.into(), errno: None }
    }
}

/// Names the step that a system call failed in.
pub trait Step<T> {
    /// The result, or the fault of this step.
    fn step(self, code: Code, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, code: Code, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|errno| Fault { code, step: what(), errno: Some(errno) })
    }
}
