//! switchback: PID 1 and every errand. A table of contents: each line is where to read on.
//!
//! PID 1 gets everything that it will ever need before its loop starts. Until then it may wait, within bounds, and
//! allocate; after that it does neither. What is missing at boot is reported and worked around: a device that
//! answers on its console is worth more than one that stopped.

use platform::{
    alloc, boot, config, console, early, endpoint, errand, fetch, keeper, kmsg, linux, logs, modules, pvcontrol,
    signals::Signals,
    start, usb, verify,
    watchdog::{self, Watchdog},
};
use runtime::{machine::Machine, turn::turn};
use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    match errand::word().as_str() {
        "keeper" => errand::run("keeper", keeper::run),
        "verify" => errand::run("verify", verify::run),
        "fetch" => errand::run("fetch", fetch::run),
        "log" => errand::run("log", logs::run),
        "start" => errand::run("start", start::run),
        "endpoint" => errand::run("endpoint", endpoint::run),
        "console" => errand::run("console", console::run),
        "usb" => errand::run("usb", usb::run),
        "stick" => errand::run("stick", usb::stick::run),
        "pvcontrol" => pvcontrol::main(),
        "" if rustix::process::getpid().is_init() => init(),
        word => {
            // In one piece: on a device standard error is the kernel's log, where each write is a record.
            let text = format!("switchback: `{word}` is none of its jobs; on a device the kernel starts it as /init\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(2)
        }
    }
}

/// PID 1.
fn init() -> ! {
    let begun = linux::now();
    early::standard_descriptors();
    let root = early::pivotable_root();
    early::mounts();
    kmsg::open("init");
    early::panic_hook();
    early::protect_from_oom();
    early::take_no_boost();
    early::room_for_descriptors();
    #[cfg(feature = "faults")]
    let fault = platform::faults::at_start();
    root.expect("a root that containers can pivot away from");
    early::cgroups();
    let signals = Signals::open().expect("a descriptor for signals");
    let policy = config::Policy::load();
    let loader = config::Cmdline::load();
    let modules = modules::load();
    let mut watchdog = Watchdog::open(&watchdog::Kernel::default(), policy.known_board(), watchdog::PATIENCE);
    log::info!("{modules} modules; {policy:?}; {loader:?}");

    let (disks, storage) = boot::disks(&policy, &mut watchdog);
    let settings = linux::Settings::new(begun, &policy, storage);
    let mut decision = boot::decide(&disks, &loader, &policy, watchdog.made_last_reset());
    let plan = boot::load(&mut decision, &settings);
    early::bound_containers(plan.containers.len());
    let mut machine = Box::new(Machine::new(decision.boot, *plan));
    let mut linux = linux::Linux::new(settings, signals, watchdog, disks, &decision).expect("descriptors for the loop");
    alloc::seal();
    loop {
        #[cfg(feature = "faults")]
        fault.in_loop(machine.update().has_settled());
        let event = linux.wait(&mut machine);
        turn(&mut machine, &mut linux, linux::now(), event);
    }
}
