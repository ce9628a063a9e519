//! The text against a second reading of the original's boot script, every cut of a store, and the original's faults.

use super::*;
use crate::env::medium::{Done, Medium, Random};
use runtime::{
    boot::{self, Facts, Mode},
    journal::{Kind, Phase, Record},
};
use std::{format, string::String, vec, vec::Vec};

/// Where the mark is; before it, 64 KiB as the original writes them.
const MARK: Span = Span { at: 0x1_0000, length: 80 };
const TEXT: Span = Span { at: 0, length: 0x1_0000 };

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: Option<&str>, previous: Option<&str>) -> BootVars {
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: previous.map(rev) }
}

/// The medium with this text and this mark.
fn medium(text: &[u8], mark: &[u8]) -> Medium {
    let mut bytes = vec![0; (MARK.at + MARK.length) as usize];
    bytes[..text.len()].copy_from_slice(text);
    bytes[MARK.at as usize..][..mark.len()].copy_from_slice(mark);
    Medium::new(&bytes)
}

fn open(medium: &mut Medium) -> UbootTxt<&mut Medium> {
    UbootTxt::new(medium, TEXT, Some(MARK)).unwrap()
}

fn loaded(medium: &mut Medium) -> BootVars {
    open(medium).load().unwrap().vars
}

/// What a variable is after the loader's `env import` of these bytes, written a second time.
fn imported(bytes: &[u8], name: &str) -> Option<String> {
    let mut found = None;
    for entry in bytes.split(|byte| *byte == 0) {
        if entry.is_empty() {
            break;
        }
        let entry = String::from_utf8_lossy(entry).into_owned();
        match entry.split_once('=') {
            Some((key, value)) if key == name => found = (!value.is_empty()).then(|| value.to_owned()),
            None if entry == name => found = None,
            _ => {}
        }
    }
    found
}

/// The original's boot script: what it boots. `saves`: whether it can store its mark.
fn script(bytes: &mut [u8], saves: bool) -> String {
    let (text, mark) = bytes.split_at_mut(MARK.at as usize);
    let committed = imported(text, "pv_rev").unwrap_or_default();
    let Some(candidate) = imported(text, "pv_try") else { return committed };
    let failed = imported(mark, "pv_trying").as_ref() == Some(&candidate);
    if saves {
        mark.fill(0);
        if !failed {
            let line = format!("pv_trying={candidate}");
            mark[..line.len()].copy_from_slice(line.as_bytes());
        }
    }
    if failed { committed } else { candidate }
}

#[test]
fn what_the_original_wrote_is_read_at_any_size() {
    let golden = b"pv_rev=locals/a\0pv_try=17\0\0";
    for length in
        [golden.len() as u64, golden.len() as u64 - 1, golden.len() as u64 - 2, 512, 700, 1024, 2048, 0x1_0000]
    {
        let mut medium = medium(golden, b"");
        let mut env = UbootTxt::new(&mut medium, Span { at: 0, length }, None).unwrap();
        let loaded = env.load().unwrap_or_else(|code| panic!("{length}: {code}"));
        assert_eq!((loaded.vars, loaded.bootcount), (vars("locals/a", Some("17"), None), 0), "{length}");
        let stored = env.store(&vars("locals/a", None, None));
        assert_eq!(stored, if length < 512 { Err(Code::EnvLayout) } else { Ok(()) }, "{length}");
    }
    // The first content of an image of the original.
    let loaded = |bytes: &[u8]| {
        UbootTxt::new(&mut medium(bytes, b""), Span { at: 0, length: bytes.len() as u64 }, None).unwrap().load()
    };
    assert_eq!(loaded(b"pv_rev=0\0\0").unwrap().vars, vars("0", None, None));
    for bad in [&b""[..], b"\0", b"pv_rev=\0\0", b"pv_rev=../0\0\0", b"pv_revs=0\0\0", b"pv_rev=0\0pv_try=a b\0\0"] {
        assert_eq!(loaded(bad), Err(Code::EnvInvalid), "{bad:?}");
    }
    // A list that goes on where the original's reader stops.
    let long: Vec<u8> = b"pv_rev=0\0".iter().copied().chain(b"x=y\0".iter().copied().cycle().take(2000)).collect();
    assert_eq!(loaded(&long), Err(Code::EnvInvalid));
}

#[test]
fn w6_names_are_compared_whole() {
    let text = b"pv_trying=5\0pv_tryx=6\0pv_rev_x=7\0pv_revision=8\0pv_rev=3\0pv_try=4\0pv_previous=9\0\0";
    let mut medium = medium(text, b"");
    assert_eq!(loaded(&mut medium), vars("3", Some("4"), None));
    open(&mut medium).store(&vars("4", None, Some("3"))).unwrap();
    let kept: Vec<_> = medium.bytes.split(|byte| *byte == 0).take_while(|entry| !entry.is_empty()).collect();
    let expected: [&[u8]; 6] =
        [b"pv_rev=4", b"pv_prev=3", b"pv_tryx=6", b"pv_rev_x=7", b"pv_revision=8", b"pv_previous=9"];
    assert_eq!(kept, expected, "pv_trying belongs into the loader's mark");
}

#[test]
fn w2_w3_w5_a_transition_is_one_write_of_one_sector_and_any_cut_leaves_the_old_or_the_new() {
    let transitions = [
        (vars("1", None, Some("0")), vars("1", Some("locals/n"), Some("0")), "arm"),
        (vars("1", Some("locals/n"), Some("0")), vars("locals/n", None, Some("1")), "commit"),
        (vars("1", Some("locals/n"), Some("0")), vars("1", None, Some("0")), "disarm"),
    ];
    for (old, new, what) in transitions {
        let mut medium = medium(&initial(&old).unwrap(), b"");
        medium.bytes[600..610].fill(0x55);
        medium.forget();
        open(&mut medium).store(&new).unwrap();
        assert_eq!(medium.counts(), (1, 1), "{what}");
        assert_eq!(medium.changed(), [0], "{what}");
        let states = medium.cut_states();
        assert_eq!(states.len(), 2, "{what}");
        for state in states {
            let mut cut = Medium::new(&state);
            let found = loaded(&mut cut);
            assert!(found == old || found == new, "{what}: {found:?}");
            assert_eq!(imported(&state, "pv_rev").unwrap(), found.committed.as_str());
        }
        assert_eq!(loaded(&mut medium), new);
    }
}

#[test]
fn w8_what_does_not_fit_is_refused_and_never_cut_short() {
    let long = |length| format!("locals/{}", "n".repeat(length));
    let name = long(64);
    let mut space = medium(b"pv_rev=1\0\0", b"");
    open(&mut space).store(&vars("1", Some(&name), None)).unwrap();
    assert_eq!(loaded(&mut space), vars("1", Some(&name), None), "the longest name is whole");

    // Others' variables leave room for the old decision, and less and less for the new one.
    let mut refused = 0;
    for length in 300..500 {
        let mut text = format!("pv_rev=1\0x={}\0\0", "y".repeat(length)).into_bytes();
        text.resize(512, 0);
        let mut medium = medium(&text, b"");
        match open(&mut medium).store(&vars("1", Some(&name), None)) {
            // then the commit fits too, though its record is one byte longer
            Ok(()) => open(&mut medium).store(&vars(&name, None, Some("1"))).unwrap(),
            Err(code) => {
                assert_eq!((code, medium.done.len()), (Code::EnvFull, 0));
                refused += 1;
            }
        }
    }
    // 512 = end of list, 'pv_rev=<71>', 'pv_prev=1', 'x=<412>', each with its end
    assert_eq!(refused, 500 - 1 - (512 - 1 - 79 - 10 - 3));
}

#[test]
fn errors_of_the_medium_are_reported() {
    let old = vars("1", None, None);
    for fault in 0..4 {
        let mut medium = medium(&initial(&old).unwrap(), b"pv_trying=2");
        match fault {
            0 => medium.lies = true,
            1 => medium.sync_fails = 1,
            2 => medium.broken = vec![0],
            _ => medium.broken = vec![MARK.at],
        }
        let expected = if fault == 2 { Code::StorageIo } else { Code::EnvStoreFailed };
        assert_eq!(open(&mut medium).store(&vars("1", Some("2"), None)), Err(expected), "{fault}");
        medium.broken.clear();
        medium.lies = false;
        assert_eq!(loaded(&mut medium), old, "{fault}");
        open(&mut medium).store(&vars("1", Some("2"), None)).unwrap();
        assert_eq!(loaded(&mut medium), vars("1", Some("2"), None), "{fault}");
    }
}

/// U-Boot exports lines unless it is told otherwise.
#[test]
fn the_mark_is_a_line_or_a_string() {
    for mark in [&b"pv_trying=2\n\0"[..], b"x=y\npv_trying=2\n\0", b"pv_trying=2\0\0", b"pv_trying=2"] {
        let mut medium = medium(&initial(&vars("1", Some("2"), None)).unwrap(), mark);
        assert_eq!(open(&mut medium).load().unwrap().bootcount, 1, "{mark:?}");
        open(&mut medium).store(&vars("1", None, None)).unwrap();
        medium.forget();
        open(&mut medium).store(&vars("1", Some("2"), None)).unwrap();
        assert_eq!(medium.counts(), (2, 2), "the mark is cleared first: {mark:?}");
        assert_eq!(open(&mut medium).load().unwrap().bootcount, 0);
    }
    let mut medium = medium(&initial(&vars("1", Some("2"), None)).unwrap(), b"pv_tryingx=2\n\0");
    assert_eq!(open(&mut medium).load().unwrap().bootcount, 0);
}

#[test]
fn a_candidate_of_a_name_that_was_tried_before_is_tried_again() {
    let mut medium = medium(&initial(&vars("1", None, None)).unwrap(), b"pv_trying=2\0");
    open(&mut medium).store(&vars("1", Some("2"), None)).unwrap();
    assert_eq!(medium.counts(), (2, 2), "the mark, then the text");
    assert!(matches!(&medium.done[0], Done::Write(at, data) if *at == MARK.at && data.len() == MARK.length as usize));
    for mut state in medium.cut_states() {
        let armed = imported(&state, "pv_try").is_some();
        assert_eq!(script(&mut state, true), if armed { "2" } else { "1" }, "armed means tried");
    }
    assert_eq!(script(&mut medium.bytes, true), "2");
    let after = open(&mut medium).load().unwrap();
    assert_eq!(after.bootcount, 1, "the loader has counted");
    // The same decision again is not a new arming: the loader's count stays.
    open(&mut medium).store(&vars("1", Some("2"), None)).unwrap();
    assert_eq!(script(&mut medium.bytes, true), "1");
}

/// A device: the medium, the journal, and what its owner sees.
#[derive(Clone)]
struct Device {
    bytes: Vec<u8>,
    journal: Option<Record>,
    trials: u32,
}

impl Device {
    /// One boot, up to the end of what PID 1 stores by itself; the revision that runs, and whether it asks for a
    /// reboot. `reaches_us`: whether revision 2 gets so far. `before_store`: power fails before the environment is
    /// stored.
    fn boot(&mut self, saves: bool, reaches_us: bool, before_store: bool) -> (RevName, bool) {
        let booted = rev(&script(&mut self.bytes, saves));
        if booted == rev("2") {
            self.trials += 1;
            if !reaches_us {
                return (booted, true);
            }
        }
        let mut medium = Medium::new(&self.bytes);
        let loaded = open(&mut medium).load().ok();
        let facts = Facts {
            booted: Some(booted),
            candidate: loaded.and_then(|loaded| loaded.vars.candidate),
            ..boot::loader(None, |_| true, |_| true, None).unwrap()
        };
        let choice = boot::choose(loaded, &facts, self.journal);
        if choice.write {
            self.journal = choice.record;
        }
        if let Some(store) = choice.store.filter(|_| !before_store) {
            open(&mut medium).store(&store).unwrap();
        }
        self.bytes = medium.bytes;
        (choice.run, before_store || choice.mode == Mode::Abandon || matches!(choice.mode, Mode::Trial { .. }))
    }
}

#[test]
fn w1_a_candidate_that_fails_is_tried_a_bounded_number_of_times_whatever_power_does() {
    for (saves, reaches_us) in [(true, true), (true, false), (false, true)] {
        for cuts in 0..1u32 << 8 {
            let mut medium = medium(&initial(&vars("1", None, None)).unwrap(), b"pv_trying=2");
            open(&mut medium).store(&vars("1", Some("2"), None)).unwrap();
            let journal = Record {
                candidate: rev("2"),
                previous: rev("1"),
                kind: Kind::Reboot,
                phase: Phase::Armed,
                falls: 0,
                factory_reset: false,
            };
            let mut device = Device { bytes: medium.bytes, journal: Some(journal), trials: 0 };
            // Power fails before the store in the boots that `cuts` names; then no more.
            for boot in 0..8 {
                device.boot(saves, reaches_us, cuts >> boot & 1 == 1);
            }
            let (mut run, mut reboots) = device.boot(saves, reaches_us, false);
            for _ in 0..runtime::limits::TRIES_MAX {
                if reboots {
                    (run, reboots) = device.boot(saves, reaches_us, false);
                }
            }
            assert_eq!((run, reboots), (rev("1"), false), "{saves} {reaches_us} {cuts:b}");
            let tried = device.trials;
            assert!(tried <= 2 + cuts.count_ones() + u32::from(runtime::limits::TRIES_MAX), "{tried}");
            for _ in 0..4 {
                assert_eq!(device.boot(saves, reaches_us, false), (rev("1"), false), "and it stays");
            }
            assert_eq!(device.trials, tried);
            if cuts == 0 && saves {
                assert_eq!(tried, 1, "the loader counts to one");
            }
        }
    }
}

#[test]
fn w30_a_loader_that_cannot_save_its_mark_tries_for_ever_and_the_guarantee_says_so() {
    let mut bytes = medium(&initial(&vars("1", Some("2"), None)).unwrap(), b"").bytes;
    assert!((0..20).all(|_| script(&mut bytes, false) == "2"));
    assert_eq!((GUARANTEE.tries, GUARANTEE_WITHOUT_MARK.tries), (1, 0));
    // A mark that the loader tore is no obstacle for us.
    for garbage in [&[0xff; 80][..], b"pv_trying", b"pv_trying=\xff\0", b"=\0\0"] {
        let mut medium = medium(&initial(&vars("1", Some("2"), None)).unwrap(), garbage);
        assert_eq!(open(&mut medium).load().unwrap().bootcount, 0);
        open(&mut medium).store(&vars("2", None, Some("1"))).unwrap();
        assert_eq!(script(&mut medium.bytes, true), "2");
    }
}

#[test]
fn a_lost_text_is_rebuilt_and_a_good_one_is_not() {
    for (text, kept) in [
        (&b""[..], false),
        (&[0xff; 1024], false),
        (b"x=y\0pv_rev=\0pv_try=1\0\0", true),
        (b"x=y\0pv_rev=1\0pv_try=..\0\0", true),
    ] {
        let mut medium = medium(text, b"pv_trying=4");
        assert_eq!(open(&mut medium).load(), Err(Code::EnvInvalid));
        assert_eq!(open(&mut medium).store(&vars("4", None, None)), Err(Code::EnvInvalid));
        assert_eq!(medium.done.len(), 0);
        open(&mut medium).rebuild(&vars("4", None, Some("1"))).unwrap();
        assert_eq!(loaded(&mut medium), vars("4", None, Some("1")));
        assert_eq!(imported(&medium.bytes, "x").is_some(), kept);
        assert_eq!(open(&mut medium).rebuild(&vars("4", None, Some("1"))), Err(Code::Internal));
    }
}

#[test]
fn a_text_that_is_too_short_is_adopted_once() {
    let sector = adopt(b"pv_rev=locals/a\0pv_trying=9\0x=y\0pv_try=locals/b\0\0").unwrap();
    assert_eq!(sector[..44], *b"pv_rev=locals/a\0pv_try=locals/b\0x=y\0\0\0\0\0\0\0\0\0");
    let mut medium = medium(&sector, b"");
    assert_eq!(loaded(&mut medium), vars("locals/a", Some("locals/b"), None));
    open(&mut medium).store(&vars("locals/b", None, Some("locals/a"))).unwrap();
    assert_eq!(adopt(b"x=y\0\0"), Err(Code::EnvInvalid));
    assert_eq!(adopt(format!("pv_rev=0\0x={}\0\0", "y".repeat(500)).as_bytes()), Err(Code::EnvFull));
}

#[test]
fn places_are_checked() {
    let opened = |text, mark| UbootTxt::new(&mut Medium::new(&[]), text, mark).is_ok();
    assert!(opened(TEXT, Some(MARK)) && opened(TEXT, None));
    assert!(!opened(Span { at: 100, length: 512 }, None) && !opened(TEXT, Some(Span { at: 511, length: 1 })));
}

#[test]
fn any_bytes_give_a_result() {
    let words: [&[u8]; 14] = [
        b"pv_rev=",
        b"pv_try=",
        b"pv_trying=",
        b"pv_prev=",
        b"0",
        b"\0",
        b"=",
        b"locals/",
        b"\xff",
        b" ",
        b"pv_rev=7\0",
        b"pv_try=8\0",
        b"pv_prev=6\0",
        b"x=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\0",
    ];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..random.below(40) {
            text.extend(words[random.below(words.len())]);
        }
        let mut medium = medium(&text, words[random.below(words.len())]);
        let length = random.below(3000) as u64;
        let mut env = UbootTxt::new(&mut medium, Span { at: 0, length }, Some(MARK)).unwrap();
        let wanted = vars("1", Some("2"), None);
        match (env.load(), env.store(&wanted)) {
            (Ok(_), Ok(())) => {
                assert_eq!(env.load().unwrap().vars, wanted);
                good += 1;
            }
            (Ok(_), Err(code)) => assert!(code == Code::EnvLayout && length < 512 || code == Code::EnvFull),
            (Err(code), refused) => {
                assert_eq!(refused, Err(code));
                bad += 1;
            }
        }
    }
    assert!(good > 500 && bad > 500, "{good} {bad}");
}
