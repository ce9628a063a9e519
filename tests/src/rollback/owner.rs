//! The owner writes the environment with `fw_setenv` while the device is off: what makes sense is obeyed, what does not
//! is refused by code, and whatever stands there, a whole revision boots to READY and can be updated.
//!
//! Invariants: Debian's own tool writes; nothing else of the disk is touched. Variables that are the boot script
//! itself are not tried: who changes `bootcmd`, or the parts of the script, has written a loader of their own.

use runtime::fault::Code;

use super::candidates::{hung, told_to};
use super::lab::Lab;
use super::table::Seen;
use super::{Case, Run};
use crate::tour::disk::Env;
use crate::tour::{Outcome, ensure};

/// The cases.
pub const CASES: &[Case] = &[
    case("owner-arms", "fw_setenv arms a revision that is on the disk", arms),
    case("owner-clears", "fw_setenv clears a candidate", clears),
    case("owner-limit", "fw_setenv sets bootlimit to 1, and our binary blocks for ever", limits),
    case("owner-try-nothing", "fw_setenv arms a revision that does not exist", arms_nothing),
    case("owner-rev-nothing", "fw_setenv commits a revision that does not exist", commits_nothing),
    case("owner-garbage-try", "garbage in pv_try", |lab| garbage(lab, GARBAGE_TRY)),
    case("owner-garbage-rev", "garbage in pv_rev, pv_prev", |lab| garbage(lab, GARBAGE_REV)),
    case("owner-garbage-count", "garbage in bootcount, bootlimit, upgrade_available", |lab| {
        garbage(lab, GARBAGE_COUNT)
    }),
    case("owner-no-limit", "bootlimit that is no number, and a kernel that panics", no_limit),
];

/// A name that is too long for a revision, and for the loader's command line.
const LONG: &str = concat!(
    "locals/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
);

const GARBAGE_TRY: &[&[(&str, &str)]] = &[
    &[("pv_try", "../../etc"), ("upgrade_available", "1")],
    &[("pv_try", "a b; reset"), ("upgrade_available", "1")],
    &[("pv_try", "x\"; reset; echo \""), ("upgrade_available", "1")],
    &[("pv_try", LONG), ("upgrade_available", "1")],
    &[("pv_try", ""), ("upgrade_available", "1")],
    &[("pv_try", "locals/nothing"), ("upgrade_available", "0")],
];

const GARBAGE_REV: &[&[(&str, &str)]] = &[
    &[("pv_rev", "../../etc")],
    &[("pv_rev", "a b; reset")],
    &[("pv_rev", "x\"; reset; echo \"")],
    &[("pv_rev", LONG)],
    &[("pv_rev", "")],
    &[("pv_rev", "$&|"), ("pv_try", "locals/nothing"), ("upgrade_available", "1")],
    &[("pv_prev", "../.. \"; reset")],
];

const GARBAGE_COUNT: &[&[(&str, &str)]] = &[
    &[("bootcount", "many")],
    &[("bootcount", "-1")],
    &[("bootcount", "99999999999999999999")],
    &[("bootlimit", "-1")],
    &[("bootlimit", "0")],
    &[("bootlimit", "x; reset")],
    &[("upgrade_available", "yes")],
    &[("upgrade_available", "-1")],
    &[("upgrade_available", "2")],
];

const fn case(name: &'static str, about: &'static str, run: Run) -> Case {
    Case { name, column: None, about, run }
}

/// Writes variables while the device is off.
fn write(lab: &mut Lab, vars: &[(&str, &str)]) -> Outcome<()> {
    lab.device.cut();
    let lines: String = vars.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    lab.device.disk.fw_setenv(&lines, lab.device.folder())
}

/// Installs a good base; the device must be able to.
fn update(lab: &mut Lab) -> Outcome<String> {
    let before = lab.env()?;
    let change = lab.another_base()?;
    let rev = lab.install(change, "a good base")?;
    let ended = lab.ended(&rev)?;
    ensure(ended.status == "DONE", || format!("{rev} ended as {ended:?}"))?;
    lab.is_back(&rev, &Env { rev: rev.clone(), prev: before.rev, ..Env::default() })?;
    Ok(rev)
}

fn arms(lab: &mut Lab) -> Outcome<Seen> {
    let older = lab.env()?.rev;
    let newer = update(lab)?;
    write(lab, &[("pv_try", &older), ("upgrade_available", "1"), ("bootcount", "0")])?;
    lab.device.power_on()?;
    let ended = lab.ended(&older)?;
    ensure(ended.status == "DONE", || format!("{older} ended as {ended:?}"))?;
    lab.is_back(&older, &Env { rev: older.clone(), prev: newer, ..Env::default() })?;
    Ok(Seen::Held("obeyed: tried, committed, DONE".into()))
}

fn clears(lab: &mut Lab) -> Outcome<Seen> {
    let before = lab.env()?;
    let change = lab.another_base()?;
    let rev = lab.install(change, "a good base")?;
    lab.cut_when("armed, not yet counted", |env| env.candidate == rev && env.bootcount == 0)?;
    write(lab, &[("pv_try", ""), ("upgrade_available", "0")])?;
    lab.device.power_on()?;
    let ended = lab.ended(&rev)?;
    let tries = lab.boots_of(&rev);
    ensure(ended.code == Code::UpdateRestarted.to_string() && tries == 0, || {
        format!("{rev} was booted {tries} times and ended as {ended:?}")
    })?;
    lab.is_back(&before.rev, &before)?;
    Ok(Seen::Held(format!("obeyed: never tried, {}", ended.code)))
}

fn limits(lab: &mut Lab) -> Outcome<Seen> {
    let usual = lab.device.disk.fw_printenv("bootlimit", lab.device.folder())?;
    write(lab, &[("bootlimit", "1")])?;
    lab.starts()?;
    let (tries, code) = fails(lab, "block", hung(lab))?;
    ensure(tries == 1, || format!("tried {tries} times, not once"))?;
    write(lab, &[("bootlimit", &usual)])?;
    lab.starts()?;
    Ok(Seen::CameBack { tries, code })
}

/// A candidate that breaks in this way: how often it was booted, and the code.
fn fails(lab: &mut Lab, word: &str, code: Code) -> Outcome<(usize, String)> {
    let before = lab.env()?;
    let change = told_to(lab, word)?;
    let rev = lab.install(change, "a broken candidate")?;
    let ended = lab.ended(&rev)?;
    ensure(ended.code == code.to_string(), || format!("{rev} ended as {ended:?}"))?;
    lab.is_back(&before.rev, &before)?;
    Ok((lab.boots_of(&rev), ended.code))
}

/// Without a limit of the owner's the script has one of its own.
fn no_limit(lab: &mut Lab) -> Outcome<Seen> {
    let usual = lab.device.disk.fw_printenv("bootlimit", lab.device.folder())?;
    write(lab, &[("bootlimit", "none")])?;
    lab.starts()?;
    let (tries, code) = fails(lab, "panic", Code::LoaderGaveUp)?;
    write(lab, &[("bootlimit", &usual)])?;
    lab.starts()?;
    Ok(Seen::CameBack { tries, code })
}

fn arms_nothing(lab: &mut Lab) -> Outcome<Seen> {
    let before = lab.env()?;
    let nothing = "locals/nothing";
    write(lab, &[("pv_try", nothing), ("upgrade_available", "1"), ("bootcount", "0")])?;
    lab.device.power_on()?;
    let ended = lab.ended(nothing)?;
    ensure(ended.code == Code::LoaderGaveUp.to_string(), || format!("it ended as {ended:?}"))?;
    lab.is_back(&before.rev, &before)?;
    Ok(Seen::Held(format!("refused: {}", ended.code)))
}

fn commits_nothing(lab: &mut Lab) -> Outcome<Seen> {
    let before = lab.env()?;
    let nothing = "locals/nothing";
    write(lab, &[("pv_rev", nothing)])?;
    lab.device.power_on()?;
    let ended = lab.ended(nothing)?;
    ensure(ended.code == Code::RevisionUnknown.to_string(), || format!("it ended as {ended:?}"))?;
    lab.is_back(&before.rev, &before)?;
    update(lab)?;
    Ok(Seen::Held(format!("refused: {}; boots what was committed last, which the environment names again", ended.code)))
}

/// Each set of values in turn: READY on a whole revision, and the environment names none that is not there. Then, with
/// the last one in force, an update.
fn garbage(lab: &mut Lab, values: &[&[(&str, &str)]]) -> Outcome<Seen> {
    let folder = lab.device.folder().to_path_buf();
    for vars in values {
        let before = lab.env()?;
        let usual: Vec<(&str, String)> = ["bootlimit", "upgrade_available", "bootcount"]
            .into_iter()
            .map(|name| Ok((name, lab.device.disk.fw_printenv(name, &folder)?)))
            .collect::<Outcome<_>>()?;
        write(lab, vars)?;
        let status = lab.starts().map_err(|error| format!("{vars:?}: {error}"))?;
        ensure(status["revision"] == before.rev.as_str(), || format!("{vars:?}: runs {}", status["revision"]))?;
        let env = lab.env()?;
        ensure(env.rev == before.rev && !env.armed, || format!("{vars:?}: the environment is {env:?}"))?;
        update(lab).map_err(|error| format!("{vars:?}: {error}"))?;
        let usual: Vec<(&str, &str)> = usual.iter().map(|(name, value)| (*name, value.as_str())).collect();
        write(lab, &usual)?;
        lab.starts()?;
    }
    Ok(Seen::Held(format!("{} values: READY on what is committed, and an update after each", values.len())))
}
