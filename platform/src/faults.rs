//! Faults on demand: a binary that breaks as it is told, so that tests can observe how a device comes back from it.
//!
//! Only with the feature `faults`, which no image for a device has; `tests/faults.rs` shows that the binary without it
//! holds nothing of this. Words in a file of the initramfs choose, so that a candidate is broken by one
//! small archive behind its initramfs, and everything else of it is what is shipped.
//!
//!   crash    PID 1 dies at once, before it has recorded anything; the kernel panics for it
//!   panic    the kernel panics, at the same point
//!   starve   PID 1 runs on and never again comes to where it feeds the watchdog
//!   block    PID 1 waits in a system call that never ends
//!
//! The last two strike in the middle of a trial: it is recorded, the watchdog is open, containers are about to start.
//!
//! For recordings of what reaches the disk, and to show that a replay of them notices what is wrong:
//!
//!   marks=DEVICE:SECTOR  each step of the protocol, and what is reported, is written to this sector (`marks`)
//!   nobarrier            file systems are mounted so that the disk is never told to write what it holds back
//!   nosync               a sync of a file, a folder, a volume or a region does not wait, and says that it did
//!   nocheckpoint         a checkpoint does nothing
//!   skip=ROW             the sync or the checkpoint of this row of the protocol, such as I7, does nothing; all others wait
//!   metadata             whenever revisions are listed, metadata is changed first: nothing on a device does so yet (`notes`)
//!
//! Each process reads the file when it starts, while it can. Does not: break anything outside PID 1 and the keeper.

mod marks;
mod notes;

pub use marks::{ack, ack_content, ack_file};
pub use notes::change_before;

use core::{
    ffi::CStr,
    sync::atomic::{AtomicUsize, Ordering},
};
use log::warn;
use runtime::protocol::{Row, TABLE};
use std::{sync::OnceLock, time::Duration};

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

/// What does not wait in this process.
#[derive(Clone, Copy, Default, Debug)]
struct Lies {
    barriers: bool,
    syncs: bool,
    checkpoints: bool,
    /// The row whose wait is left out.
    row: Option<Row>,
}

static LIES: OnceLock<Lies> = OnceLock::new();

/// The row that this process has announced last, as its place in the table.
static ROW: AtomicUsize = AtomicUsize::new(usize::MAX);

fn lies() -> Lies {
    LIES.get().copied().unwrap_or_default()
}

/// The words of the file.
fn words() -> String {
    std::fs::read_to_string(FILE).unwrap_or_default()
}

/// Reads what concerns the disk. The disk is there, and what this process can see has not been narrowed yet.
pub fn at_disk() {
    let words = words();
    let has = |word| words.split_whitespace().any(|each| each == word);
    let row = words.split_whitespace().find_map(|word| word.strip_prefix("skip=")).and_then(|id| {
        let row = TABLE.iter().find(|step| step.id == id).map(|step| step.row);
        if row.is_none() {
            warn!("there is no row {id} that could be skipped");
        }
        row
    });
    let told = Lies { barriers: has("nobarrier"), syncs: has("nosync"), checkpoints: has("nocheckpoint"), row };
    let _ = LIES.set(told);
    if has("metadata") {
        notes::begin();
    }
    if let Some(place) = words.split_whitespace().find_map(|word| word.strip_prefix("marks=")) {
        marks::open(place);
    }
}

/// Further words for a mount.
pub fn mount_data() -> Option<&'static CStr> {
    lies().barriers.then_some(c"nobarrier")
}

/// The effects of this row come next.
pub fn step(row: Row) {
    ROW.store(row as usize, Ordering::Relaxed);
    marks::step(row);
}

/// Whether the row that was announced last is the one to skip.
fn is_skipped() -> bool {
    lies().row.is_some_and(|row| row as usize == ROW.load(Ordering::Relaxed))
}

/// Whether a sync does nothing.
pub fn is_sync_idle() -> bool {
    lies().syncs || is_skipped()
}

/// Whether a checkpoint does nothing.
pub fn is_checkpoint_idle() -> bool {
    lies().checkpoints || is_skipped()
}

/// Strikes now, or says what strikes later. Needs /proc.
pub fn at_start() -> Fault {
    let text = words();
    warn!("built to break on demand, never to be shipped; {FILE} says `{}`", text.trim());
    match text.split_whitespace().next().unwrap_or_default() {
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
