//! The door over fakes of the drivers (`fakes`), and the kernel's class folder as a tree of files.

use crate::watchdog::{
    Kernel, Watchdog,
    fakes::{Chip, Machine},
};
use boards::{Board, watchdog::Driver};
use runtime::{
    control::{Guarantee, InForce, Reset},
    fault::Code,
    port::Millis,
};
use std::{process::Command, time::Duration};

/// What is said of the environment, which is nothing to the watchdog.
const COPY: Result<InForce, Code> = Err(Code::EnvInvalid);

/// A board that wants this driver, with this time-out.
fn board(driver: &'static str, timeout_s: u32) -> Board {
    let watchdog = boards::Watchdog { driver, timeout_s, armed_by_loader: false };
    Board { watchdog, ..*boards::BOARDS[0] }
}

fn open(machine: &Machine, board: &Board) -> Watchdog {
    Watchdog::open(machine, Some(board), Duration::ZERO)
}

/// Identity, time-out, reset.
fn facts(watchdog: &Watchdog) -> Option<(&str, u32, Reset)> {
    watchdog.facts(boards::BOARDS[0], COPY).watchdog.map(|facts| (facts.identity, facts.timeout_s, facts.reset))
}

fn chip(driver: &Driver) -> Chip {
    match driver.name {
        "i6300esb" => Chip::i6300esb(false),
        "imx2_wdt" => Chip::imx2(false),
        "bcm2835_wdt" => Chip::bcm2835(),
        _ => Chip::softdog(),
    }
}

#[test]
fn every_driver_is_fed_in_time_and_resets_when_it_is_not() {
    for driver in boards::watchdog::DRIVERS {
        for ask_s in [1, 15, 30, 60, 100_000] {
            let machine = Machine::new([chip(driver)]);
            let mut watchdog = open(&machine, &board(driver.name, ask_s));
            let (_, timeout_s, _) = facts(&watchdog).unwrap();
            assert_eq!(timeout_s, ask_s.min(driver.longest_s), "{driver:?}");
            let [chip] = &machine.chips[..] else { panic!("one") };
            let minute = 60_000.max(Millis::from(timeout_s) * 4000);
            let mut now = 0;
            while now < minute {
                // The loop is woken when it is due, and late by a little.
                now = watchdog.poll_at().unwrap().max(now) + 7;
                machine.clock.set(now);
                assert!(!chip.has_fired(now), "{driver:?} at {now}");
                watchdog.feed(now);
            }
            let wanted = minute / (Millis::from(timeout_s) * 1000 / 3);
            assert!(Millis::from(chip.feeds.get()) <= wanted + 1, "{} feedings, {wanted} are enough", chip.feeds.get());
            let last = chip.fed_at.get().unwrap() + Millis::from(timeout_s) * 1000;
            assert!(!chip.has_fired(last - 1) && chip.has_fired(last));
        }
    }
}

#[test]
fn hardware_is_taken_before_the_timer_of_the_kernel() {
    let machine = Machine::new([Chip::softdog(), Chip::i6300esb(false)]);
    assert_eq!(facts(&open(&machine, &board("i6300esb", 30))), Some(("i6300ESB timer", 30, Reset::Other)));
    assert_eq!(machine.chips[0].fed_at.get(), None, "the other one was not started");
    let unknown = Watchdog::open(&machine, None, Duration::ZERO);
    assert_eq!(facts(&unknown), Some(("i6300ESB timer", 60, Reset::Other)));
    // A board that wants the kernel's timer has its reason.
    let machine = Machine::new([Chip::bcm2835(), Chip::softdog()]);
    assert_eq!(facts(&open(&machine, &board("softdog", 30))), Some(("Software Watchdog", 30, Reset::Unknown)));
    assert_eq!(machine.chips[0].fed_at.get(), None);
}

#[test]
fn what_cannot_be_opened_is_stood_in_for() {
    let busy = Chip { is_busy: true, ..Chip::imx2(true) };
    let machine = Machine::new([busy, Chip::softdog()]);
    let watchdog = open(&machine, &board("imx2-wdt", 60));
    assert_eq!(facts(&watchdog), Some(("Software Watchdog", 60, Reset::Unknown)));
    let mut none = open(&Machine::new([]), &board("imx2-wdt", 60));
    assert_eq!((facts(&none), none.poll_at(), none.made_last_reset()), (None, None, false));
    none.feed(0);
}

#[test]
fn what_holds_depends_on_what_was_found() {
    let mut board = board("i6300esb", 30);
    board.guarantee = boards::Guarantee { torn_write: true, hang_before_linux: true, hang_after_linux: true, tries: 3 };
    board.watchdog.armed_by_loader = true;
    for (chip, holds) in [
        (Some(Chip::i6300esb(false)), [true; 4]),
        (Some(Chip::imx2(false)), [false, true, true, false]),
        (Some(Chip { identity: "Acme", ..Chip::imx2(false) }), [false, true, true, false]),
        (Some(Chip::softdog()), [false, false, true, false]),
        (None, [false; 4]),
    ] {
        let machine = Machine::new(chip);
        let watchdog = open(&machine, &board);
        let facts = watchdog.facts(&board, COPY);
        let Guarantee { torn_write, hang_before_linux, hang_of_kernel, hang_of_init } = facts.guarantee;
        assert_eq!([hang_before_linux, hang_of_kernel, hang_of_init, facts.armed_by_loader], holds);
        let counted = (facts.tries.counted_by, facts.tries.default);
        assert_eq!((torn_write, counted), (true, ("loader", 3)), "no watchdog changes these");
    }
    let weak = Board { guarantee: boards::Guarantee { hang_after_linux: false, ..board.guarantee }, ..board };
    let machine = Machine::new([Chip::i6300esb(false)]);
    let guarantee = open(&machine, &weak).facts(&weak, COPY).guarantee;
    assert!(!guarantee.hang_of_kernel && !guarantee.hang_of_init, "what the board does not promise does not hold");
}

#[test]
fn it_is_fed_while_a_child_is_waited_for() {
    let machine = Machine::new([Chip::softdog()]);
    let mut watchdog = open(&machine, &board("softdog", 1));
    let child = || rustix::process::Pid::from_child(&Command::new("sleep").arg("600").spawn().unwrap());
    let served = child();
    machine.chips[0].ends.set(Some((4, served)));
    let ended = watchdog.feed_during(served, Duration::from_secs(600)).unwrap();
    assert_eq!((ended.terminating_signal(), machine.chips[0].feeds.get()), (Some(libc::SIGTERM), 4));
    let stuck = child();
    assert!(watchdog.feed_during(stuck, Duration::ZERO).is_none());
    let killed = watchdog.feed_during(stuck, Duration::from_secs(600)).unwrap();
    assert_eq!(killed.terminating_signal(), Some(libc::SIGKILL));
}

#[test]
fn the_boards_own_may_be_late() {
    let machine = Machine::new([Chip::imx2(false)]);
    machine.late.set(3);
    let watchdog = Watchdog::open(&machine, Some(&board("imx2-wdt", 60)), Duration::from_secs(60));
    assert_eq!(facts(&watchdog).map(|facts| facts.0), Some("imx2+ watchdog"));
    assert_eq!(machine.late.get(), 0);
}

#[test]
fn the_reason_of_the_last_reset_is_told_where_the_hardware_can() {
    for (chip, driver, reset) in [
        (Chip::i6300esb(true), "i6300esb", Reset::Watchdog),
        (Chip::i6300esb(false), "i6300esb", Reset::Other),
        (Chip::imx2(true), "imx2-wdt", Reset::Watchdog),
        (Chip::imx2(false), "imx2-wdt", Reset::Other),
        (Chip::bcm2835(), "bcm2835_wdt", Reset::Unknown),
        (Chip::softdog(), "softdog", Reset::Unknown),
        (Chip { identity: "Acme", card_reset: true, ..Chip::imx2(true) }, "softdog", Reset::Watchdog),
    ] {
        let machine = Machine::new([chip]);
        let watchdog = open(&machine, &board(driver, 10));
        assert_eq!(facts(&watchdog).unwrap().2, reset, "{driver}");
        assert_eq!(watchdog.made_last_reset(), reset == Reset::Watchdog);
    }
}

#[test]
fn a_driver_that_tells_no_time_out_is_fed_often() {
    let machine = Machine::new([Chip { is_mute: true, ..Chip::softdog() }]);
    let mut watchdog = open(&machine, &board("softdog", 60));
    watchdog.feed(0);
    assert_eq!(watchdog.poll_at(), Some(1000));
}

#[test]
fn feeding_that_fails_is_tried_again() {
    let machine = Machine::new([Chip::i6300esb(false)]);
    let mut watchdog = open(&machine, &board("i6300esb", 30));
    machine.chips[0].breaks.set(true);
    watchdog.feed(0);
    assert_eq!(watchdog.poll_at(), Some(10_000));
    machine.chips[0].breaks.set(false);
    watchdog.feed(10_000);
    assert_eq!(machine.chips[0].feeds.get(), 1);
}

/// A tree of files in place of the kernel's: no driver is behind it, so it knows no time-out.
#[test]
fn the_class_folder_is_read_and_the_device_gets_no_magic() {
    let root = std::env::temp_dir().join(format!("switchback-watchdog-{}", std::process::id()));
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("sys/class/watchdog/watchdog1/identity", "i6300ESB timer\n");
    put("sys/class/watchdog/watchdog1/nowayout", "0\n");
    put("sys/class/watchdog/watchdog1/min_timeout", "1\n");
    put("sys/class/watchdog/watchdog1/max_timeout", "2046\n");
    put("sys/class/watchdog/watchdog0/identity", "Software Watchdog\n");
    put("sys/class/watchdog/other", "");
    put("dev/watchdog1", "");
    let mut watchdog = Watchdog::open(&Kernel::below(&root), Some(&board("i6300esb", 30)), Duration::ZERO);
    assert_eq!(facts(&watchdog), Some(("i6300ESB timer", 3, Reset::Unknown)));
    for now in 0..10 {
        watchdog.feed(now * 500);
    }
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    assert_eq!(read("dev/watchdog1"), [0; 5], "fed at 0, 1, 2, 3 and 4 s");
    assert_eq!(read("sys/class/watchdog/watchdog1/nowayout"), b"1");
    let none = Watchdog::open(&Kernel::below(&root.join("dev")), Some(&board("i6300esb", 30)), Duration::ZERO);
    assert_eq!(facts(&none), None);
    std::fs::remove_dir_all(root).unwrap();
}
