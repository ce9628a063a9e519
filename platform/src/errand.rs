//! Errands: the processes that PID 1 starts for one job each.
//!
//! All are this binary, told by their first argument which they are, with a socket to PID 1 as descriptor 3.
//! An errand that dies or stalls costs a retry, never the device.

use crate::{sys, wire::Channel};

/// The errand's end of its socket. Ends the process if there is none: it was not started by PID 1.
pub fn socket() -> Channel {
    match sys::errand_socket() {
        Some(socket) => Channel::new(socket),
        None => {
            eprintln!("switchback: this errand is started by PID 1 only: descriptor 3 is not its socket");
            std::process::exit(2)
        }
    }
}

/// Which part of the binary this process is: `pvcontrol` if it is called by that name, else its first argument,
/// else nothing (PID 1).
pub fn word() -> String {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    match program.rsplit('/').next() {
        Some("pvcontrol") => "pvcontrol".into(),
        _ => args.next().unwrap_or_default(),
    }
}
