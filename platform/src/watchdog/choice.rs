//! What is decided about watchdogs, without one: which device is taken, what is asked of it, how often it is fed.

use boards::watchdog::{Driver, identified};
use runtime::port::Millis;

/// A device that the kernel shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The number in its name.
    pub number: u32,
    /// What its driver says that it is; empty if the kernel does not tell.
    pub identity: String,
    /// Shortest time-out that its driver takes, seconds; 0 if it does not say.
    pub shortest_s: u32,
    /// Longest one; 0 if it does not say.
    pub longest_s: u32,
}

/// Time-out of a driver that tells none: safe for every one that we know.
const ASSUMED_S: u32 = 3;

/// The devices in the order in which they are tried: the board's own, other hardware, what is not known, and at last a
/// timer of the kernel. Among equals the one with the lower number.
pub(super) fn best_first(mut found: Vec<Found>, wanted: Option<&Driver>) -> Vec<Found> {
    found.sort_by_key(|found| {
        let rank = match identified(&found.identity) {
            Some(driver) if Some(driver) == wanted => 0,
            Some(driver) if driver.hardware => 1,
            None => 2,
            Some(_) => 3,
        };
        (rank, found.number)
    });
    found
}

/// What the device gives up by not using the board's own driver: nothing, if that one is used. `used`: the driver that
/// is, itself `None` if it is not one that we know; `None`: no device at all.
pub(super) fn lost(wanted: Option<&Driver>, used: Option<Option<&Driver>>) -> Option<&'static str> {
    let Some(used) = used else {
        return Some("there is no watchdog that could be; a hang of PID 1 or of the kernel needs a power cycle");
    };
    let (wanted, used) = (wanted?, used.unwrap_or(&UNKNOWN));
    match (wanted.hardware && !used.hardware, wanted.tells_reset && !used.tells_reset) {
        _ if wanted == used => None,
        (true, _) => Some("a timer of the kernel stands in for it; a hang of the kernel needs a power cycle"),
        (false, true) => Some("another one stands in for it, which does not tell whether it made a reset"),
        (false, false) => Some("another one stands in for it; if the loader started it, nobody feeds it"),
    }
}

/// A driver that we do not know is taken for one of hardware, and to tell nothing.
const UNKNOWN: Driver = Driver { name: "", identity: "", longest_s: u32::MAX, hardware: true, tells_reset: false };

/// The time-out to ask for: `ask_s`, as far as driver and hardware can count it. What hardware cannot count, the kernel
/// would feed by itself.
pub(super) fn time_out(ask_s: u32, found: &Found, driver: Option<&Driver>) -> u32 {
    let says = |bound: u32| Some(bound).filter(|bound| *bound != 0);
    let longest = says(found.longest_s).unwrap_or(u32::MAX).min(driver.map_or(u32::MAX, |driver| driver.longest_s));
    ask_s.min(longest).max(found.shortest_s).max(1)
}

/// The time-out that holds: what was read back, else what setting it said, else what is safe to assume.
pub(super) fn in_force(read: Option<u32>, set: Option<u32>) -> u32 {
    let sane = |seconds: &u32| *seconds != 0;
    read.filter(sane).or(set.filter(sane)).unwrap_or(ASSUMED_S)
}

/// How often it is fed: two feedings may be missed.
pub(super) fn interval(timeout_s: u32) -> Millis {
    Millis::from(timeout_s) * 1000 / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use boards::watchdog::named;

    fn found(number: u32, identity: &str) -> Found {
        Found { number, identity: identity.into(), shortest_s: 0, longest_s: 0 }
    }

    #[test]
    fn the_boards_own_comes_first_and_a_timer_of_the_kernel_last() {
        let all = ["Software Watchdog", "Acme", "imx2+ watchdog", "i6300ESB timer", "imx2+ watchdog", ""];
        let order = |wanted: &str| {
            let found = all.iter().enumerate().map(|(number, identity)| found(number as u32, identity)).collect();
            best_first(found, named(wanted)).iter().map(|found| found.number).collect::<Vec<_>>()
        };
        assert_eq!(order("i6300esb"), [3, 2, 4, 1, 5, 0]);
        assert_eq!(order("imx2-wdt"), [2, 4, 3, 1, 5, 0]);
        assert_eq!(order("softdog"), [0, 2, 3, 4, 1, 5]);
        assert_eq!(order("none of ours"), [2, 3, 4, 1, 5, 0]);
    }

    #[test]
    fn what_is_lost_is_said() {
        let lost = |wanted: &str, used: Option<&str>| lost(named(wanted), used.map(named)).unwrap_or("");
        for driver in boards::watchdog::DRIVERS {
            assert_eq!(lost(driver.name, Some(driver.name)), "");
            assert!(lost(driver.name, None).contains("power cycle"));
        }
        assert!(lost("i6300esb", Some("softdog")).contains("hang of the kernel"));
        assert!(lost("bcm2835_wdt", Some("softdog")).contains("hang of the kernel"));
        assert!(lost("imx2-wdt", Some("bcm2835_wdt")).contains("does not tell"));
        assert!(lost("imx2-wdt", Some("Acme")).contains("does not tell"));
        assert!(lost("bcm2835_wdt", Some("i6300esb")).contains("nobody feeds it"));
        assert_eq!(lost("none of ours", Some("softdog")), "", "nothing was promised");
        assert!(lost("none of ours", None).contains("power cycle"));
    }

    #[test]
    fn a_time_out_is_what_driver_and_hardware_take() {
        let bounds = |shortest_s, longest_s| Found { shortest_s, longest_s, ..found(0, "") };
        for (ask, shortest, longest, driver, wanted) in [
            (30, 1, 2046, "i6300esb", 30),
            (60, 1, 15, "bcm2835_wdt", 15),
            (60, 1, 0, "bcm2835_wdt", 15), // the kernel would feed it in between
            (200, 1, 0, "imx2-wdt", 128),
            (60, 0, 0, "none of ours", 60),
            (60, 0, 20, "none of ours", 20),
            (5, 10, 20, "none of ours", 10),
            (0, 0, 0, "softdog", 1),
        ] {
            assert_eq!(time_out(ask, &bounds(shortest, longest), named(driver)), wanted, "{ask} {driver}");
        }
    }

    #[test]
    fn it_is_fed_three_times_in_the_time_that_holds() {
        assert_eq!(interval(in_force(Some(15), Some(60))), 5_000);
        assert_eq!(interval(in_force(None, Some(30))), 10_000);
        assert_eq!(interval(in_force(Some(0), None)), 1_000);
        assert_eq!(interval(in_force(None, Some(0))), 1_000);
        assert_eq!(interval(1), 333);
    }
}
