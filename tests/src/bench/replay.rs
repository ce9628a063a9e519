//! How fast states of a recorded disk are looked at: by the program that looks at them, on the recording of an update.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Row;
use crate::tour::{Outcome, ensure};

/// States that are looked at.
const STATES: u32 = 1000;

/// Seconds for [`STATES`] states of the recording in `recording`, on as many processors as there are.
pub(super) fn rows(recording: &Path) -> Outcome<Vec<Row>> {
    let program = std::env::current_exe()?.with_file_name("replay");
    let output = Command::new(program)
        .args(["--sample", &STATES.to_string()])
        .arg(recording)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("replay: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure(output.status.success(), || format!("replay: {said}{}", String::from_utf8_lossy(&output.stderr)))?;
    let rate = said.split("/s").next().and_then(|head| head.rsplit(' ').next()?.parse::<f64>().ok());
    let rate = rate.filter(|rate| *rate > 0.0).ok_or_else(|| format!("replay did not say how fast it was: {said}"))?;
    let seconds = (f64::from(STATES) / rate * 10.0).round() / 10.0;
    Ok(vec![Row::new(format!("{STATES} states of a recorded disk"), seconds, "s").budget(f64::from(STATES) / 100.0)])
}
