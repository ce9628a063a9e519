//! Candidates that are broken, each in one way, made from the device's own base; and what must be seen of each.
//!
//! Invariants: a candidate is posted as any other, so it is received, verified and armed as any other. The loader tries
//! it as often as its limit says, except where the candidate itself is found out at once.

use boards::Kernel;
use runtime::fault::Code;
use serde_json::Value;

use super::lab::{Change, INITRD, KERNEL, Lab};
use super::table::Seen;
use super::{Case, Run};
use crate::tour::{Outcome, cpio, ensure};

/// The cases.
pub const CASES: &[Case] = &[
    cell("panic", "panic", "a kernel that panics", |lab| tries_all(lab, "panic", Code::LoaderGaveUp)),
    cell("cut-kernel", "cut kernel", "a kernel image that ends in the middle of its code", |lab| {
        let kernel = cut_kernel(lab, 1, 3)?;
        // A packed kernel is found out before it starts.
        let tries = if matches!(lab.board.kernel, Kernel::Image) { Tries::All } else { Tries::Once };
        comes_back(lab, kernel, tries, Code::LoaderGaveUp)
    }),
    more("cut-tail", "a kernel image whose last tenth is missing", |lab| {
        let kernel = cut_kernel(lab, 9, 10)?;
        // Some kernels stand then, some fall.
        dies_before_linux(lab, kernel, Code::LoaderGaveUp)
    }),
    cell("no-init", "no init", "an initramfs without our binary", |lab| {
        let change = vec![(INITRD, cpio::archive("etc/nothing", b"no init here\n"))];
        comes_back(lab, change, Tries::All, Code::LoaderGaveUp)
    }),
    cell("crash", "crash", "our binary crashes at once", |lab| tries_all(lab, "crash", Code::LoaderGaveUp)),
    cell("starve", "hang", "our binary stops feeding the watchdog", |lab| tries_all(lab, "starve", hung(lab))),
    more("block", "our binary blocks for ever in a system call", |lab| tries_all(lab, "block", hung(lab))),
    cell("unhealthy", "unhealthy container", "a container that never becomes ready, on a new base", |lab| {
        let mut change = lab.another_base()?;
        let mut run: Value = serde_json::from_slice(&lab.file("web/run.json")?)?;
        run["status_goal"] = "READY".into();
        change.push(("web/run.json", run.to_string().into_bytes()));
        comes_back(lab, change, Tries::Once, Code::GoalsMissed)
    }),
    more("dead", "a kernel whose first instruction hangs", |lab| {
        dies_before_linux(lab, vec![(KERNEL, dead_kernel())], Code::WatchdogEarly)
    }),
];

/// A cell of the matrix.
const fn cell(name: &'static str, column: &'static str, about: &'static str, run: Run) -> Case {
    Case { name, column: Some(column), about, run }
}

/// A case beside the matrix.
const fn more(name: &'static str, about: &'static str, run: Run) -> Case {
    Case { name, column: None, about, run }
}

/// How often a candidate is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tries {
    /// As often as the loader's limit says.
    All,
    /// It is found out at the first try.
    Once,
}

/// The base, told to break in this way.
pub fn told_to(lab: &Lab, word: &str) -> Outcome<Change> {
    Ok(vec![(INITRD, lab.initrd_with("etc/switchback.fault", word.as_bytes())?)])
}

/// The kernel, of which only so many parts are there.
fn cut_kernel(lab: &Lab, parts: usize, of: usize) -> Outcome<Change> {
    let mut kernel = lab.file(KERNEL)?;
    kernel.truncate(kernel.len() / of * parts);
    Ok(vec![(KERNEL, kernel)])
}

/// The code of a candidate that the watchdog ended: a driver that forgets this in a reset cannot tell. The emulated chip of
/// i.MX clears its flag, as the real one does not.
pub fn hung(lab: &Lab) -> Code {
    match lab.board.watchdog.driver {
        "softdog" | "imx2_wdt" => Code::TriesExhausted,
        _ => Code::WatchdogReset,
    }
}

/// A kernel that the loader takes for one, and that does nothing for ever.
fn dead_kernel() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[..4].copy_from_slice(&0x1400_0000u32.to_le_bytes()); // b .
    image[0x10..0x18].copy_from_slice(&0x10000u64.to_le_bytes()); // its size in memory
    image[0x18..0x20].copy_from_slice(&0xau64.to_le_bytes()); // little endian, 4 KiB pages, anywhere
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image
}

/// The base, told to break; the loader tries it as often as its limit says.
fn tries_all(lab: &mut Lab, word: &str, code: Code) -> Outcome<Seen> {
    let change = told_to(lab, word)?;
    comes_back(lab, change, Tries::All, code)
}

/// Installs a candidate and observes the way back.
fn comes_back(lab: &mut Lab, change: Change, tries: Tries, code: Code) -> Outcome<Seen> {
    let before = lab.env()?;
    let rev = lab.install(change, "a broken candidate")?;
    let ended = lab.ended(&rev)?;
    let seen = lab.boots_of(&rev);
    // A kernel that panics may wait for the watchdog to be reset.
    let also =
        if lab.board.watchdog.armed_by_loader && code == Code::LoaderGaveUp { Code::WatchdogEarly } else { code };
    let known = [code, also].iter().any(|code| code.to_string() == ended.code);
    ensure(ended.status == "ERROR" && known, || format!("{rev} ended as {ended:?}"))?;
    let wanted = if tries == Tries::All { usize::from(lab.board.guarantee.tries) } else { 1 };
    ensure(seen == wanted, || format!("{rev} was booted {seen} times, not {wanted}"))?;
    lab.is_back(&before.rev, &before)?;
    Ok(Seen::CameBack { tries: seen, code: ended.code })
}

/// A candidate that stands before Linux drives a watchdog. Where the loader armed one, the device comes back; elsewhere
/// it stands until somebody cuts the power, and each cut is a try.
fn dies_before_linux(lab: &mut Lab, kernel: Change, code: Code) -> Outcome<Seen> {
    if lab.board.guarantee.hang_before_linux {
        return comes_back(lab, kernel, Tries::All, code);
    }
    let before = lab.env()?;
    let starting = "Starting kernel";
    let mut starts = lab.device.said(starting);
    let rev = lab.install(kernel, "a candidate that hangs before Linux")?;
    for _ in 0..lab.board.guarantee.tries {
        lab.says(starting, starts, 60)?;
        stands(lab)?;
        starts = lab.device.said(starting);
        lab.device.power_on()?;
    }
    let ended = lab.ended(&rev)?;
    ensure(ended.code == Code::LoaderGaveUp.to_string(), || format!("{rev} ended as {ended:?}"))?;
    let (seen, wanted) = (lab.boots_of(&rev), usize::from(lab.board.guarantee.tries));
    ensure(seen == wanted, || format!("{rev} was booted {seen} times, not {wanted}"))?;
    lab.is_back(&before.rev, &before)?;
    Ok(Seen::NotSurvived { tries: seen, code: ended.code })
}

/// How long nothing may happen before it counts as standing: longer than a watchdog of the board would take.
const STANDS_S: u64 = 20;

/// Fails unless the device stands: its log says nothing more.
fn stands(lab: &Lab) -> Outcome<()> {
    let size = || std::fs::metadata(lab.device.log()).map(|log| log.len());
    std::thread::sleep(std::time::Duration::from_secs(STANDS_S / 4));
    let before = size()?;
    std::thread::sleep(std::time::Duration::from_secs(STANDS_S));
    let after = size()?;
    ensure(before == after, || "the device goes on by itself although its board says that it does not".into())
}
