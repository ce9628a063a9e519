//! What the medium and the power do to the loader: a save that fails, once or for ever, and power cuts in the middle of
//! a save.
//!
//! Invariants: a candidate that the loader cannot count is not tried; whatever a cut leaves, the environment is whole,
//! decides the same, and has counted this boot or has not. Only the emulator's view of the disk is broken, and only
//! for writes to the environment's copies.
//! Does not: tear single writes; `tests/boot_script.rs` tries every subset of a save's writes, and every tear.

use std::time::{Duration, Instant};

use runtime::fault::Code;

use super::Case;
use super::lab::Lab;
use super::table::Seen;
use crate::tour::disk::Env;
use crate::tour::{Outcome, ensure};

/// The cases.
pub const CASES: &[Case] = &[
    Case { name: "save-fails", column: Some("failing saveenv"), about: "the loader's save fails", run: save_fails },
    Case {
        name: "env-dead",
        column: None,
        about: "the environment's medium takes no write any more, neither the loader's nor ours",
        run: medium_is_dead,
    },
    Case {
        name: "cut-in-save",
        column: None,
        about: "power cuts while the loader saves its counter",
        run: cut_in_save,
    },
    Case { name: "script", column: None, about: "a boot script of a version that nobody knows", run: unknown_script },
];

const SECTOR: u64 = 512;

/// A good candidate is armed, and the power is off before the loader could count.
fn armed_and_off(lab: &mut Lab) -> Outcome<(String, Env)> {
    let before = lab.env()?;
    let change = lab.another_base()?;
    let rev = lab.install(change, "a good base")?;
    lab.cut_when("armed, not yet counted", |env| env.candidate == rev && env.bootcount == 0)?;
    Ok((rev, before))
}

/// Words for the emulator: writes that touch one of these sectors of the disk fail, the first one or all.
fn failing(lab: &Lab, sectors: &[u64], once: bool) -> Outcome<Vec<String>> {
    let rules = lab.device.folder().join("blkdebug");
    let once = if once { "on" } else { "off" };
    let rule = |sector: &u64| {
        format!(
            "[inject-error]\nevent = \"none\"\niotype = \"write\"\nerrno = \"5\"\nonce = \"{once}\"\nsector = \"{sector}\"\n"
        )
    };
    std::fs::write(&rules, sectors.iter().map(rule).collect::<String>())?;
    let file = format!("drive.disk.file=blkdebug:{}:{}", rules.display(), lab.device.disk.image.display());
    Ok(vec!["-set".into(), file])
}

/// The first sector of each copy of the environment on the disk.
fn copies(lab: &Lab) -> Outcome<Vec<u64>> {
    let disk = &lab.device.disk;
    ensure(disk.flash().is_none(), || {
        "only writes to a disk can be made to fail; this environment is in flash".into()
    })?;
    Ok(disk.env_layout()?.offsets().iter().map(|offset| (disk.env.start + offset) / SECTOR).collect())
}

/// The copy that the next store writes.
fn next_copy(lab: &Lab) -> Outcome<usize> {
    let layout = lab.device.disk.env_layout()?;
    let bytes = lab.device.disk.env_bytes()?;
    let flags: Vec<_> = bytes.chunks(layout.size).map(|copy| layout.flags(copy)).chain([None]).take(2).collect();
    let used = layout.select([flags[0], flags[1]]).ok_or("no copy of the environment is valid")?;
    Ok(if layout.offsets().len() == 1 { 0 } else { 1 - used })
}

/// One write of the loader fails. It notices by reading back, boots what is committed, and says so.
fn save_fails(lab: &mut Lab) -> Outcome<Seen> {
    let (rev, before) = armed_and_off(lab)?;
    let next = copies(lab)?[next_copy(lab)?];
    let faults = failing(lab, &[next], true)?;
    lab.device.power_on_with(&faults)?;
    let ended = lab.ended(&rev)?;
    ensure(ended.code == Code::LoaderCannotCount.to_string(), || format!("{rev} ended as {ended:?}"))?;
    let tries = lab.boots_of(&rev);
    ensure(tries == 0, || format!("{rev} was booted {tries} times by a loader that cannot count"))?;
    lab.is_back(&before.rev, &before)?;
    lab.starts()?;
    Ok(Seen::CameBack { tries, code: ended.code })
}

/// No write to the environment succeeds any more. The candidate is never tried, what is committed runs, nothing new is
/// armed; with a medium that works again, the device does too.
fn medium_is_dead(lab: &mut Lab) -> Outcome<Seen> {
    let (rev, before) = armed_and_off(lab)?;
    let sectors = copies(lab)?;
    let faults = failing(lab, &sectors, false)?;
    let given_up = |lab: &Lab| {
        let ended = lab.ended(&rev)?;
        ensure(ended.code == Code::LoaderCannotCount.to_string(), || format!("{rev} ended as {ended:?}"))
    };
    for _ in 0..2 {
        lab.device.power_on_with(&faults)?;
        given_up(lab)?;
        let status = lab.ready()?;
        ensure(status["revision"] == before.rev.as_str(), || format!("runs {}", status["revision"]))?;
    }
    // The environment still names the candidate that was given up: another one would hide why.
    let change = lab.another_base()?;
    let refused = lab.install(change, "over a dead environment").err().map(|error| error.to_string());
    let (said, code) = (refused.unwrap_or_default(), Code::EnvStoreFailed.to_string());
    ensure(said.contains(&code), || format!("the post was not refused with {code}: {said}"))?;
    let tries = lab.boots_of(&rev);
    ensure(tries == 0, || format!("{tries} boots of a candidate that nobody counts"))?;
    // The loader can count again, and does; PID 1 knows better, clears the candidate and goes back.
    lab.starts()?;
    given_up(lab)?;
    lab.is_back(&before.rev, &before)?;
    Ok(Seen::CameBack { tries, code: Code::LoaderCannotCount.to_string() })
}

/// Power cuts, each a little later after power-on than the one before.
const CUTS: u32 = 30;

fn cut_in_save(lab: &mut Lab) -> Outcome<Seen> {
    let (rev, before) = armed_and_off(lab)?;
    // Slow enough that the requests of one boot, and with them the writes of one save, can be told apart.
    let slow = ["-set".into(), "drive.disk.throttling.iops-total=25".into()];
    let (mut not_counted, mut counted) = (0, 0);
    for cut in 0..CUTS {
        lab.device.disk.fw_setenv("bootcount=0\n", lab.device.folder())?;
        let old = lab.env()?;
        lab.device.power_on_with(&slow)?;
        let boots = lab.device.said("PV boot");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(80 * u64::from(cut)) && lab.device.said("PV boot") == boots {
            std::thread::sleep(Duration::from_millis(2));
        }
        lab.device.cut();
        let now = lab.env().map_err(|error| format!("cut {cut}: {error}"))?;
        let same = Env { bootcount: 0, ..now.clone() } == old;
        ensure(same && now.bootcount <= 1, || format!("cut {cut}: it was {old:?} and is {now:?}"))?;
        *(if now.bootcount == 0 { &mut not_counted } else { &mut counted }) += 1;
    }
    ensure(counted > 0 && not_counted > 0, || format!("no cut in time: {counted} counted, {not_counted} not"))?;
    lab.device.disk.fw_setenv("bootcount=0\n", lab.device.folder())?;
    lab.device.power_on()?;
    let ended = lab.ended(&rev)?;
    ensure(ended.status == "DONE", || format!("{rev} ended as {ended:?}"))?;
    lab.is_back(&rev, &Env { rev: rev.clone(), prev: before.rev, ..Env::default() })?;
    Ok(Seen::Held(format!("whole after {CUTS} cuts, {counted} counted and {not_counted} not; then DONE")))
}

/// The loader says that it follows a script that we do not know: nothing is armed over it.
fn unknown_script(lab: &mut Lab) -> Outcome<Seen> {
    let before = lab.env()?;
    let known = lab.device.disk.fw_printenv("pv_script", lab.device.folder())?;
    lab.device.cut();
    lab.device.disk.fw_setenv("pv_script=77\n", lab.device.folder())?;
    lab.starts()?;
    let change = lab.another_base()?;
    let refused = lab.install(change, "over an unknown script");
    let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
    let code = Code::ScriptUnknown.to_string();
    ensure(said.contains(&code), || format!("the post was not refused with {code}: {said}"))?;
    lab.is_back(&before.rev, &before)?;
    lab.device.cut();
    lab.device.disk.fw_setenv(&format!("pv_script={known}\n"), lab.device.folder())?;
    lab.starts()?;
    Ok(Seen::Held(format!("boots what is committed, arms nothing: {code}")))
}
