//! Signals of PID 1, as events: children that ended, and requests to stop.
//!
//! One signal may stand for many children, so after each all that ended are taken, one per call: a wait for
//! everybody, because orphans of containers come to PID 1 too. A process id names the same child until it is
//! taken here, so the tables that map it cannot be out of date.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus},
};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

/// A request from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Some child ended.
    Child,
    /// Restart the machine (Ctrl-Alt-Del, SIGINT).
    Restart,
    /// Switch it off (SIGPWR, SIGTERM).
    PowerOff,
    /// Any other signal.
    Nothing,
}

/// The source of signals.
pub struct Signals(OwnedFd);

impl Signals {
    /// Takes over all signals of this process. Ctrl-Alt-Del becomes a signal instead of an immediate reset.
    pub fn open() -> Result<Self, Errno> {
        let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
        let signals = [Signal::CHILD, Signal::INT, Signal::TERM, Signal::POWER];
        crate::sys::signalfd(&signals).map(Self)
    }

    /// The next pending one.
    pub fn next(&self) -> Option<Wish> {
        let number = crate::sys::read_signal(self.0.as_fd()).ok()?;
        Some(match Signal::from_named_raw(number) {
            Some(Signal::CHILD) => Wish::Child,
            Some(Signal::INT) => Wish::Restart,
            Some(Signal::TERM | Signal::POWER) => Wish::PowerOff,
            _ => Wish::Nothing,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The next child that ended, reaped. Orphans that came to PID 1 are among them.
pub fn reap() -> Option<(Pid, End)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    Some((pid, end_of(status)))
}

fn end_of(status: WaitStatus) -> End {
    match status.exit_status() {
        Some(code) => End::Exited(code),
        None => End::Killed(status.terminating_signal().unwrap_or(0)),
    }
}
