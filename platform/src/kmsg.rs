//! The log of our own processes: one record of the kernel's ring buffer per line, no allocation.
//!
//! A record is cut at `RECORD_MAX`, as the kernel would. A record that cannot be written is lost: nobody waits
//! for the log. Output of containers never comes here; it goes to files (`logs`).

use crate::sys;
use core::fmt::Write as _;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{os::fd::OwnedFd, sync::OnceLock};

/// Longest record; the kernel's own bound is about 1 KB with its prefix.
const RECORD_MAX: usize = 512;

struct Kmsg {
    out: OwnedFd,
    name: &'static str,
}

static KMSG: OnceLock<Kmsg> = OnceLock::new();

/// Opens the log of this process; `name` starts each record. Before this, and where there is no `/dev/kmsg`
/// (in tests), records go to standard error.
pub fn open(name: &'static str) {
    // Without this the kernel drops all but ten records in five seconds, and the reason of a rollback may be one of them.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = rustix::fs::open(c"/dev/kmsg", flags, Mode::empty());
    let Some(out) = opened.ok().or_else(|| rustix::io::dup(rustix::stdio::stderr()).ok()) else { return };
    if KMSG.set(Kmsg { out, name }).is_ok() && log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// The descriptor of the log, as standard output of our errands.
pub fn output() -> Option<&'static OwnedFd> {
    KMSG.get().map(|kmsg| &kmsg.out)
}

/// Writes one record now, whatever the level: for the panic hook.
pub fn emergency(text: core::fmt::Arguments<'_>) {
    let mut record = Record::new();
    let _ = write!(record, "<2>switchback: {text}");
    match KMSG.get() {
        Some(kmsg) => drop(rustix::io::write(&kmsg.out, record.line())),
        None => drop(rustix::io::write(rustix::stdio::stderr(), record.line())),
    }
}

/// An error of the kernel for people. Its own `Display` is std's, which allocates.
#[derive(Clone, Copy, Debug)]
pub struct Why(pub Errno);

impl core::fmt::Display for Why {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        Said(self.0.raw_os_error()).fmt(f)
    }
}

/// An error number that another process said, which may be any: `Errno` panics at one that is none, as 0.
#[derive(Clone, Copy, Debug)]
pub struct Said(pub i32);

impl core::fmt::Display for Said {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            0 => f.write_str("not an error of the kernel"),
            number => write!(f, "{} (errno {number})", sys::error_text(number, &mut [0; 64])),
        }
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(kmsg) = KMSG.get() else { return };
        let priority = match record.level() {
            log::Level::Error => 3,
            log::Level::Warn => 4,
            log::Level::Info => 6,
            _ => 7,
        };
        let mut line = Record::new();
        let _ = write!(line, "<{priority}>switchback[{}]: {}", kmsg.name, record.args());
        let _ = rustix::io::write(&kmsg.out, line.line());
    }

    fn flush(&self) {}
}

/// A record under construction: what does not fit is cut off.
struct Record {
    bytes: [u8; RECORD_MAX],
    used: usize,
}

impl Record {
    fn new() -> Self {
        Self { bytes: [0; RECORD_MAX], used: 0 }
    }

    /// The record as one line. A line break inside it would start another record without a priority.
    fn line(&mut self) -> &[u8] {
        for byte in &mut self.bytes[..self.used] {
            if *byte == b'\n' {
                *byte = b' ';
            }
        }
        let end = self.used.min(RECORD_MAX - 1);
        self.bytes[end] = b'\n';
        &self.bytes[..=end]
    }
}

impl core::fmt::Write for Record {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = &mut self.bytes[self.used..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.used += taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words() {
        assert_eq!(Why(Errno::NOENT).to_string(), "No such file or directory (errno 2)");
        assert!(Why(Errno::from_raw_os_error(4000)).to_string().ends_with("(errno 4000)"));
    }

    #[test]
    fn any_number_that_an_errand_says_can_be_printed() {
        assert_eq!(Said(0).to_string(), "not an error of the kernel");
        for number in [-1, 1, 4095, 4096, i32::MIN, i32::MAX] {
            assert!(Said(number).to_string().ends_with(&format!("(errno {number})")));
        }
    }

    /// Whether `what` can be printed without an allocation. Other tests allocate at the same time: one clean try says
    /// it all, because what allocates always does.
    fn prints_without_allocation(what: &dyn core::fmt::Display) -> bool {
        crate::alloc::seal();
        (0..10_000).any(|_| {
            let mut record = Record::new();
            let before = crate::alloc::count();
            write!(record, "{what}").unwrap();
            crate::alloc::count() == before
        })
    }

    #[test]
    fn an_error_of_the_kernel_is_printed_without_allocation() {
        assert!(prints_without_allocation(&Why(Errno::NOSPC)));
        assert!(prints_without_allocation(&crate::wire::WireError::Io(Errno::PIPE)));
        assert!(!prints_without_allocation(&Errno::NOSPC), "this test sees an allocation");
    }

    #[test]
    fn a_record_is_one_line_of_bounded_length() {
        let mut record = Record::new();
        write!(record, "<6>a\nb{}", "x".repeat(2 * RECORD_MAX)).unwrap();
        let line = record.line();
        assert_eq!(line.len(), RECORD_MAX);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
    }
}
