//! The watchdog drivers of Linux that we know: how each is called, how long it can wait, and what it is worth.
//!
//! Names, bounds and what a driver reports are those of the kernel's sources. What a driver is not asked: whether its
//! hardware is there; the device finds that out at boot and takes what it finds, this board's driver first.

/// A driver of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Driver {
    /// Its module, by which a board names it.
    pub name: &'static str,
    /// What it says of itself in `/sys/class/watchdog/*/identity`.
    pub identity: &'static str,
    /// Longest time-out that its hardware counts by itself, seconds.
    pub longest_s: u32,
    /// Its timer runs outside the processor: it covers a kernel that hangs. A timer of the kernel covers PID 1 alone.
    pub hardware: bool,
    /// After a reset it tells whether it made it.
    pub tells_reset: bool,
}

/// Every driver that we know.
pub const DRIVERS: &[Driver] = &[
    // Two stages of half the time-out each. It keeps across a reset that it fired, until its driver has read that.
    Driver { name: "i6300esb", identity: "i6300ESB timer", longest_s: 2046, hardware: true, tells_reset: true },
    // An 8-bit count of half seconds. The reason of the last reset has a register.
    Driver { name: "imx2_wdt", identity: "imx2+ watchdog", longest_s: 128, hardware: true, tells_reset: true },
    // 20 bits of 16 us. The firmware uses the register that could tell for something else.
    Driver {
        name: "bcm2835_wdt",
        identity: "Broadcom BCM2835 Watchdog timer",
        longest_s: 15,
        hardware: true,
        tells_reset: false,
    },
    Driver { name: "softdog", identity: "Software Watchdog", longest_s: 65535, hardware: false, tells_reset: false },
];

/// The driver with this name, as modules are named: `-` is `_`.
pub fn named(name: &str) -> Option<&'static Driver> {
    let same = |byte: (u8, u8)| byte.0 == byte.1 || (byte.0 == b'-' && byte.1 == b'_');
    DRIVERS.iter().find(|driver| driver.name.len() == name.len() && name.bytes().zip(driver.name.bytes()).all(same))
}

/// The driver that says this of itself.
pub fn identified(identity: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.identity == identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_by_name_and_identity() {
        assert_eq!(named("imx2-wdt").unwrap().identity, "imx2+ watchdog");
        assert_eq!(named("imx2_wdt"), named("imx2-wdt"));
        assert!(named("").is_none() && named("softdo").is_none() && named("softdogs").is_none());
        for driver in DRIVERS {
            assert_eq!(named(driver.name), Some(driver));
            assert_eq!(identified(driver.identity), Some(driver));
        }
        assert_eq!(identified("Intel OC WDT"), None);
    }

    #[test]
    fn what_a_board_says_of_its_watchdog_holds() {
        for board in crate::BOARDS {
            let driver = named(board.watchdog.driver).unwrap_or_else(|| panic!("{}: {:?}", board.name, board.watchdog));
            assert!((1..=driver.longest_s).contains(&board.watchdog.timeout_s), "{}", board.name);
            assert!(driver.hardware || !board.watchdog.armed_by_loader, "{}", board.name);
            // what hangs before Linux is given up only by a timer that the loader started
            assert_eq!(board.guarantee.hang_before_linux, board.watchdog.armed_by_loader, "{}", board.name);
        }
    }
}
