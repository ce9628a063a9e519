//! The tour: a real device in the emulator lives through good updates, bad updates and power cuts, and every claim
//! about it is observed from outside.
//!
//! Reading order: `steps` (the eleven steps), `device` (the emulated device and its console), `disk` (what its disk
//! holds), `pvr` (the working copy of its state). The rest are small tools.
//! Invariants: the tools and the device are run as the binaries that users get, never linked; a line is printed after
//! what it says was seen; nothing waits without a deadline; only processes that the tour started are ended.
//! Does not: build anything (`ci/device` does); judge times (they are printed).

pub mod cpio;
pub mod device;
pub mod disk;
pub mod http;
pub mod pvr;
pub mod report;
pub mod slow_link;
pub mod small;
pub mod steps;

/// What a step may fail of: a sentence for a person.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A failure with this sentence.
pub fn fail<T>(why: String) -> Outcome<T> {
    Err(why.into())
}

/// Fails with the sentence of `why` unless `holds`.
pub fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { fail(why()) }
}

/// Asks `look` again and again until it gives an answer; fails with `what` after `seconds`.
pub fn wait_for<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let begun = std::time::Instant::now();
    let mut trouble = String::new();
    loop {
        match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => trouble.clear(),
            Err(error) => trouble = format!("; the last try: {error}"),
        }
        if begun.elapsed().as_secs() >= seconds {
            return fail(format!("not seen in {seconds} s: {what}{trouble}"));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
