//! What memory is used: of the device, and of a process, from the kernel's own sums.
//!
//! Invariants: nothing here allocates; PID 1 asks it while it answers. A figure that cannot be read is `None`.
//! Does not: look at processes of containers. The sum over a process waits for its address space, which only its own
//! mapping of memory can hold.

use crate::path::Path;
use runtime::control::Memory;
use rustix::fs::{Mode, OFlags};

/// A process's proportional share of memory and what it shares with nobody, in kB.
pub fn share(pid: u32) -> Option<(u64, u64)> {
    let mut path = Path::new();
    let mut text = [0u8; 1024]; // 22 lines of 24 to 33 bytes, and a longer first one
    let text = read(path.set(format_args!("/proc/{pid}/smaps_rollup")), &mut text)?;
    Some((kilobytes(text, "Pss:")?, kilobytes(text, "Private_Clean:")? + kilobytes(text, "Private_Dirty:")?))
}

/// The device's memory.
pub fn memory() -> Option<Memory> {
    let mut text = [0u8; 256]; // both stand in the first three lines
    let text = read(c"/proc/meminfo", &mut text)?;
    Some(Memory { total: kilobytes(text, "MemTotal:")?, available: kilobytes(text, "MemAvailable:")? })
}

fn read<'a>(path: &core::ffi::CStr, room: &'a mut [u8]) -> Option<&'a str> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let length = rustix::io::read(&file, &mut *room).ok()?;
    core::str::from_utf8(&room[..length]).ok()
}

/// The number in the line with this label.
fn kilobytes(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process_and_machine() {
        let (proportional, private) = share(std::process::id()).unwrap();
        assert!(proportional >= private && private > 0, "{proportional} {private}");
        let memory = memory().unwrap();
        assert!(memory.total >= memory.available && memory.available > 0, "{memory:?}");
        assert_eq!(share(u32::MAX), None);
        assert_eq!(kilobytes("Pss:   12 kB\n", "Pss:"), Some(12));
        assert_eq!(kilobytes("Pss:   12\n", "Pss:"), None);
    }
}
