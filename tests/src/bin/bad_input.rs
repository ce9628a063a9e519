//! bad_input KIT PROBE FOLDER [STEP...]: does to the device of `ci/device KIT` what nobody should do to a device.
//!
//! PROBE is `probe`, built for the guest. Disks and logs are in FOLDER. With STEPs, only those.
//! Non-zero when a claim did not hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::bad_input;
use tests::tour::device::Kit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kit, probe, folder, steps @ ..] = &words[..] else {
        eprintln!("usage: bad_input KIT PROBE FOLDER [STEP...]");
        return ExitCode::from(2);
    };
    let absolute = |path: &str| std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
    match bad_input::walk(&Kit { folder: absolute(kit) }, &absolute(probe), &absolute(folder), steps) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bad input could not be tried: {error}");
            ExitCode::FAILURE
        }
    }
}
