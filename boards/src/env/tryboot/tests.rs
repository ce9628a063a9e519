//! The file against a second reading of the firmware's documentation, every cut of a store, and the original's faults.

use super::*;
use crate::env::medium::{Medium, Random};
use std::{format, string::String, vec, vec::Vec};

const PARTITIONS: [u8; 2] = [2, 3];

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: Option<&str>, previous: Option<&str>) -> BootVars {
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: previous.map(rev) }
}

fn open(medium: &mut Medium) -> Tryboot<&mut Medium> {
    Tryboot::new(medium, 0, PARTITIONS, None).unwrap()
}

fn loaded(medium: &mut Medium) -> BootVars {
    open(medium).load().unwrap().vars
}

/// What the firmware boots, written a second time from its documentation: the partition, if the file is understood.
fn fw(file: &[u8], tryboot: bool) -> Option<u32> {
    assert!(file.len() <= 512);
    let text = String::from_utf8_lossy(file);
    let mut filter = true;
    let (mut partition, mut a_b) = (None, false);
    for line in text.split(['\n', '\0']) {
        assert!(line.len() <= 98, "the firmware cuts this line");
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        match line {
            "[all]" => filter = true,
            "[none]" => filter = false,
            "[tryboot]" => filter = tryboot,
            _ => match line.split_once('=') {
                Some(("boot_partition", number)) if filter => partition = number.parse().ok(),
                Some(("tryboot_a_b", flag)) if filter => a_b = flag == "1",
                _ => {}
            },
        }
    }
    partition.filter(|_| a_b || !tryboot)
}

/// A card: what the partitions hold, and the file.
fn check(file: &[u8], holds: [(u8, &str); 2], committed: &str, other: &str) {
    let name =
        |partition: Option<u32>| holds.iter().find(|(number, _)| Some(u32::from(*number)) == partition).unwrap().1;
    assert_eq!((name(fw(file, false)), name(fw(file, true))), (committed, other));
}

#[test]
fn golden_bytes_of_a_new_file() {
    let file = initial([2, 3], &vars("0", None, None)).unwrap();
    let text = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n# pv_rev=0\n\n";
    assert_eq!(file[..text.len()], *text);
    assert!(file[text.len()..].iter().all(|byte| *byte == b'\n'));
}

#[test]
fn w2_w11_w12_a_life_of_updates_is_one_sector_each_and_the_firmware_always_boots_what_is_named() {
    let mut medium = Medium::new(&initial([2, 3], &vars("0", None, None)).unwrap());
    let mut holds = [(2, "0"), (3, "-")];
    let names = ["locals/a", "7", "locals/c", "9"];
    for (round, name) in names.into_iter().enumerate() {
        let committed = loaded(&mut medium);
        let old = holds[round % 2].1;
        // Nothing names what is about to be overwritten.
        let free = open(&mut medium).vacate().unwrap();
        assert_eq!(free, holds[(round + 1) % 2].0);
        let vacated = open(&mut medium).load().unwrap();
        assert_eq!(vacated.named, [Some(committed.committed), None, None, None, None, None]);
        holds[(round + 1) % 2].1 = name;

        let steady = vars(old, None, None);
        let armed = vars(old, Some(name), None);
        let committed = vars(name, None, Some(old));
        for (before, after) in [(steady, armed), (armed, steady), (steady, armed), (armed, committed)] {
            medium.forget();
            open(&mut medium).store(&after).unwrap();
            assert_eq!((medium.counts(), medium.changed()), ((1, 1), vec![0]));
            assert_eq!(medium.cut_states().len(), 2);
            for state in medium.cut_states() {
                let found = loaded(&mut Medium::new(&state));
                assert!(found == before || found == after, "{found:?}");
                let other = if found.committed == rev(name) { old } else { name };
                check(&state, holds, found.committed.as_str(), other);
            }
        }
        assert_eq!(open(&mut medium).vacate(), Ok(if round % 2 == 0 { 2 } else { 3 }));
        // and what was vacated for nothing is armed again
        medium.forget();
        open(&mut medium).store(&vars(name, Some(old), None)).unwrap();
        assert_eq!(open(&mut medium).vacate(), Err(Code::RevisionInUse));
        open(&mut medium).store(&vars(name, None, None)).unwrap();
    }
}

#[test]
fn a_step_back_goes_to_what_the_other_partition_holds_and_nowhere_else() {
    let mut medium = Medium::new(&initial([3, 2], &vars("1", Some("2"), Some("0"))).unwrap());
    assert_eq!(open(&mut medium).store(&vars("0", None, None)), Err(Code::RevisionUnknown), "2 was written over it");
    open(&mut medium).store(&vars("2", None, Some("1"))).unwrap();
    assert_eq!((fw(&medium.bytes, false), fw(&medium.bytes, true)), (Some(2), Some(3)));
    open(&mut medium).store(&vars("1", None, None)).unwrap();
    assert_eq!((fw(&medium.bytes, false), fw(&medium.bytes, true)), (Some(3), Some(2)));
    // A failed candidate stays where it is, and is not what was there before.
    open(&mut medium).store(&vars("1", Some("5"), Some("0"))).unwrap();
    open(&mut medium).store(&vars("1", None, Some("0"))).unwrap();
    assert_eq!(open(&mut medium).store(&vars("0", None, None)), Err(Code::RevisionUnknown));
    assert_eq!(open(&mut medium).store(&vars("5", Some("6"), None)), Err(Code::RevisionUnknown));
    assert_eq!(open(&mut medium).load().unwrap().named[3], Some(rev("5")));
}

#[test]
fn lines_of_others_are_kept_and_unknown_filters_are_refused() {
    let file = |text: &str| {
        let mut file = [b'\n'; 512];
        file[..text.len()].copy_from_slice(text.as_bytes());
        file
    };
    let text = "# a note\n[all]\ntryboot_a_b=1\r\nboot_partition=2\nboot_walk=1\n# pv_rev=4\n[tryboot]\nboot_partition=3\n\
        # pv_revision=x\nx=y\n";
    let mut medium = Medium::new(&file(text));
    open(&mut medium).store(&vars("4", Some("5"), None)).unwrap();
    open(&mut medium).store(&vars("5", None, Some("4"))).unwrap();
    let expected = "# a note\n[all]\ntryboot_a_b=1\nboot_partition=3\nboot_walk=1\n[tryboot]\nboot_partition=2\n\
        # pv_revision=x\nx=y\n# pv_rev=5\n# pv_prev=4\n# pv_other=4\n\n";
    assert_eq!(medium.bytes[..expected.len()], *expected.as_bytes());

    let good = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n# pv_rev=4\n";
    let load = |text: &str| open(&mut Medium::new(&file(text))).load().map(|loaded| loaded.vars.committed);
    assert_eq!(load(good), Ok(rev("4")));
    // As the original writes it: one NUL behind the text.
    assert_eq!(load(&format!("{good}\0")), Err(Code::EnvInvalid), "and then something");
    assert_eq!(decode(format!("{good}\0").as_bytes(), PARTITIONS).unwrap().partitions, [2, 3]);
    for (from, to) in [
        ("[all]", "[pi4]"),
        ("tryboot_a_b=1", "tryboot_a_b=0"),
        ("boot_partition=2", "boot_partition=4"),
        ("boot_partition=2", "boot_partition=3"),
        ("boot_partition=2", "boot_partition=x"),
        ("# pv_rev=4", "# pv_rev=.."),
        ("# pv_rev=4", "pv_rev"),
        ("[tryboot]", "[none]"),
        ("# pv_rev=4", "# pv_rev=4\n[all]\nboot_partition=2"),
        ("# pv_rev=4", "# pv_rev=4\n[gpio4=1]"),
        // only the flag's section says that the flag chooses a partition
        ("tryboot_a_b=1\nboot_partition=2\n[tryboot]\n", "boot_partition=2\n[tryboot]\ntryboot_a_b=1\n"),
    ] {
        assert_eq!(load(&good.replacen(from, to, 1)), Err(Code::EnvInvalid), "{from} {to}");
    }
}

#[test]
fn w8_what_does_not_fit_is_refused_and_never_cut_short() {
    let names = ["a", "b", "c"].map(|letter| format!("locals/{}", letter.repeat(64)));
    let old = vars(&names[0], None, Some(&names[2]));
    let (mut full, mut fits) = (0, 0);
    for length in 0..200 {
        let mut file = initial([2, 3], &old).unwrap().to_vec();
        let end = file.iter().rposition(|byte| *byte != b'\n').unwrap() + 2;
        for piece in vec![b'x'; length].chunks(90) {
            let line = format!("#{}\n", String::from_utf8_lossy(piece));
            file.splice(end - 1..end - 1, line.bytes());
        }
        if file[512..].iter().any(|byte| *byte != b'\n') {
            break;
        }
        file.truncate(512);
        let mut medium = Medium::new(&file);
        let Ok(_) = open(&mut medium).load() else { continue };
        match open(&mut medium).store(&vars(&names[0], Some(&names[1]), Some(&names[2]))) {
            Ok(()) => {
                open(&mut medium).store(&vars(&names[1], None, Some(&names[0]))).unwrap();
                assert_eq!((fw(&medium.bytes, false), fw(&medium.bytes, true)), (Some(3), Some(2)));
                fits += 1;
            }
            Err(code) => {
                assert_eq!((code, medium.done.len()), (Code::EnvFull, 0));
                full += 1;
            }
        }
    }
    assert!(fits > 50 && full > 10, "{fits} {full}");
}

#[test]
fn errors_of_the_medium_are_reported() {
    for fault in 0..3 {
        let mut medium = Medium::new(&initial([2, 3], &vars("1", None, None)).unwrap());
        match fault {
            0 => medium.lies = true,
            1 => medium.sync_fails = 1,
            _ => medium.broken = vec![0],
        }
        let expected = if fault == 2 { Code::StorageIo } else { Code::EnvStoreFailed };
        let next = vars("1", Some("2"), None);
        assert_eq!(open(&mut medium).store(&next), Err(expected));
        medium.lies = false;
        medium.broken.clear();
        open(&mut medium).store(&next).unwrap();
        assert_eq!(loaded(&mut medium), next);
    }
}

#[test]
fn a_lost_file_is_rebuilt_where_a_partition_is_known() {
    let wanted = vars("4", None, Some("1"));
    let rebuild = |file: &[u8; 512], booted: Option<u8>, vars: &BootVars| {
        let mut medium = Medium::new(file);
        let mut env = Tryboot::new(&mut medium, 0, PARTITIONS, booted).unwrap();
        env.rebuild(vars).map(|()| (fw(&medium.bytes, false).unwrap(), loaded(&mut medium)))
    };
    let lost = [0xff; 512];
    assert_eq!(rebuild(&lost, None, &wanted), Err(Code::EnvLayout));
    assert_eq!(rebuild(&lost, Some(1), &wanted), Err(Code::EnvLayout), "not one of ours");
    assert_eq!(rebuild(&lost, Some(3), &vars("4", Some("5"), None)), Err(Code::EnvLayout));
    assert_eq!(rebuild(&lost, Some(3), &wanted), Ok((3, wanted)));
    assert_eq!(rebuild(&lost, Some(2), &wanted), Ok((2, wanted)));
    // Numbers without names, as the original has them.
    let mut bare = [b'\n'; 512];
    let text = b"[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n";
    bare[..text.len()].copy_from_slice(text);
    assert_eq!(rebuild(&bare, None, &wanted), Ok((3, wanted)));
    assert_eq!(rebuild(&bare, Some(2), &wanted), Ok((2, wanted)));
    let good = initial([2, 3], &wanted).unwrap();
    assert_eq!(rebuild(&good, Some(2), &wanted), Err(Code::Internal));
}

#[test]
fn places_are_checked() {
    let opened = |at, partitions| Tryboot::new(&mut Medium::new(&[]), at, partitions, None).is_ok();
    assert!(opened(0, [2, 3]) && opened(512, [12, 5]));
    assert!(!opened(100, [2, 3]) && !opened(0, [2, 2]) && !opened(0, [0, 2]) && !opened(0, [2, 100]));
    let mut medium = Medium::new(&initial([12, 5], &vars("1", Some("2"), None)).unwrap());
    let mut env = Tryboot::new(&mut medium, 0, [5, 12], None).unwrap();
    env.store(&vars("2", None, Some("1"))).unwrap();
    assert_eq!((fw(&medium.bytes, false), fw(&medium.bytes, true)), (Some(5), Some(12)));
}

#[test]
fn any_bytes_give_a_result() {
    let words: [&[u8]; 14] = [
        b"[all]\n",
        b"[tryboot]\n",
        b"[none]\n",
        b"boot_partition=2\n",
        b"boot_partition=3\n",
        b"tryboot_a_b=1\n",
        b"# pv_rev=7\n",
        b"# pv_try=8\n",
        b"# pv_other=6\n",
        b"\n",
        b"=",
        b"\xff",
        b"#",
        b"x=y\n",
    ];
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..30_000 {
        let mut file = Vec::new();
        if random.below(2) == 0 {
            file.extend(b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n# pv_rev=7\n");
        }
        for _ in 0..random.below(12) {
            let known = if random.below(8) == 0 { words.len() } else { 10 };
            file.extend(words[random.below(known)]);
        }
        file.resize(SIZE, b'\n');
        let mut medium = Medium::new(&file);
        let wanted = vars("7", Some("2"), None);
        match (open(&mut medium).load(), open(&mut medium).store(&wanted)) {
            (Ok(_), Ok(())) => {
                let found = [fw(&medium.bytes, false), fw(&medium.bytes, true)];
                assert!(found == [Some(2), Some(3)] || found == [Some(3), Some(2)], "{found:?}");
                assert_eq!([fw(&file, false), fw(&file, true)], found, "arming moves nothing");
                assert_eq!(loaded(&mut medium), wanted);
                good += 1;
            }
            (Ok(_), Err(code)) => panic!("{code}"),
            (Err(code), refused) => {
                assert_eq!((code, refused), (Code::EnvInvalid, Err(Code::EnvInvalid)));
                bad += 1;
            }
        }
    }
    assert!(good > 500 && bad > 500, "{good} {bad}");
}
