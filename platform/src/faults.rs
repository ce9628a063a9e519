//! Faults on demand: a binary that breaks as it is told, so that tests can observe how a device comes back from it.
//!
//! Only with the feature `faults`, which no image for a device has; `tests/faults.rs` shows that the binary without it
//! holds nothing of this. One word in a file of the initramfs chooses the fault, so that a candidate is broken by one
//! small archive behind its initramfs, and everything else of it is what is shipped.
//!
//!   crash    PID 1 dies at once, before it has recorded anything; the kernel panics for it
//!   panic    the kernel panics, at the same point
//!   starve   PID 1 runs on and never again comes to where it feeds the watchdog
//!   block    PID 1 waits in a system call that never ends
//!
//! The last two strike in the middle of a trial: it is recorded, the watchdog is open, containers are about to start.
//! Does not: break anything outside PID 1; write anything.

use log::warn;
use std::time::Duration;

/// The file with the word.
const FILE: &str = "/etc/switchback.fault";

/// What waits to strike in the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// The loop does not turn any more.
    Starve,
    /// A system call does not return.
    Block,
}

/// Strikes now, or says what strikes later. Needs /proc.
pub fn at_start() -> Fault {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    let word = text.trim();
    warn!("built to break on demand, never to be shipped; {FILE} says `{word}`");
    match word {
        "crash" => std::process::abort(),
        "panic" => {
            let _ = std::fs::write("/proc/sysrq-trigger", "c");
            warn!("this kernel cannot be made to panic: it has no sysrq");
            Fault::None
        }
        "starve" => Fault::Starve,
        "block" => Fault::Block,
        _ => Fault::None,
    }
}

impl Fault {
    /// Strikes once the boot decision is carried out.
    pub fn in_loop(self, has_settled: bool) {
        if self == Self::None || !has_settled {
            return;
        }
        warn!("{self:?}, as told by {FILE}");
        if self == Self::Block {
            let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
            while rustix::io::read(&reader, &mut [0; 1]).is_err() {}
        }
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
