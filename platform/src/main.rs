//! switchback: PID 1 and every errand. A table of contents: each line is where to read on.

use platform::{
    alloc, config, early, errand, fetch, keeper, kmsg, logs, modules, signals::Signals, start, verify,
    watchdog::Watchdog,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    match errand::word().as_str() {
        "keeper" => errand::run("keeper", keeper::run),
        "verify" => errand::run("verify", verify::run),
        "fetch" => errand::run("fetch", fetch::run),
        "log" => errand::run("log", logs::run),
        "start" => errand::run("start", start::run),
        "" if rustix::process::getpid().is_init() => init(),
        word => {
            eprintln!("switchback: `{word}` is not one of its jobs; on a device it is started by the kernel as /init");
            ExitCode::from(2)
        }
    }
}

/// PID 1.
fn init() -> ! {
    early::standard_descriptors();
    let root = early::pivotable_root();
    early::mounts();
    kmsg::open("init");
    early::panic_hook();
    early::protect_from_oom();
    root.expect("a root that containers can pivot away from");
    early::cgroups();
    let policy = config::Policy::load();
    let facts = config::Cmdline::load();
    log::info!("{} modules; {policy:?}; {facts:?}", modules::load());
    let signals = Signals::open().expect("a descriptor for signals");
    let mut watchdog = Watchdog::open();
    alloc::seal();
    watchdog.feed(0);
    loop {
        while signals.next().is_some() {}
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
