//! The block in every shape that an editor may give it, every cut of a store, and any bytes at all.

use super::*;
use crate::env::medium::{Medium, Random};
use std::{format, string::String, vec, vec::Vec};

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: Option<&str>, previous: Option<&str>) -> BootVars {
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: previous.map(rev) }
}

/// A block of these lines, padded as GRUB pads it.
fn block(lines: &str) -> [u8; SIZE] {
    let mut block = [b'#'; SIZE];
    block[..HEADER.len()].copy_from_slice(HEADER);
    block[HEADER.len()..][..lines.len()].copy_from_slice(lines.as_bytes());
    block
}

fn open(medium: &mut Medium) -> Grub<&mut Medium> {
    Grub::new(medium, 0).unwrap()
}

fn loaded(medium: &mut Medium) -> Loaded {
    open(medium).load().unwrap()
}

/// Variables of others in a block, in order.
fn others(block: &[u8]) -> Vec<(String, String)> {
    let block: &[u8; SIZE] = block.try_into().unwrap();
    let text = |range: Range<usize>| String::from_utf8_lossy(&block[range]).into_owned();
    let foreign = lines(block).unwrap().filter(|line| line.ours(block).is_none()).filter_map(|line| line.variable);
    foreign.map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn golden_bytes_of_a_new_block() {
    let block = initial(&vars("0", Some("locals/a"), None)).unwrap();
    let text = b"# GRUB Environment Block\npv_rev=0\npv_try=locals/a\nupgrade_available=1\nbootcount=0\n#";
    assert_eq!(block[..text.len()], *text);
    assert!(padding(&block[text.len()..OURS_END - 1]));
    assert_eq!(block[OURS_END - 2..][..15], *b"#\nbootlimit=3\n#");
    assert!(padding(&block[OURS_END + 12..]));
    let longest = format!("locals/{}", "n".repeat(64));
    assert_eq!(ours(&vars(&longest, Some(&longest), Some(&longest))).used() + 2, OURS_END);
}

#[test]
fn a_block_is_read_as_grub_reads_it() {
    let read = |text: &str| decode(&block(text)).map(|loaded| (loaded.vars, loaded.bootcount));
    assert_eq!(read("pv_rev=1\n"), Ok((vars("1", None, None), 0)));
    // A candidate counts while upgrade_available is 1, and the last line of a name counts.
    assert_eq!(read("pv_rev=1\npv_try=2\nbootcount=2\n"), Ok((vars("1", None, None), 2)));
    assert_eq!(read("pv_rev=1\npv_try=2\nupgrade_available=10\n"), Ok((vars("1", None, None), 0)));
    assert_eq!(read("pv_rev=1\nupgrade_available=1\npv_rev=3\npv_try=2\n"), Ok((vars("3", Some("2"), None), 0)));
    assert_eq!(read("#pv_rev=1\npv_rev=3\n# pv_prev=2\n"), Ok((vars("3", None, None), 0)));
    // A backslash makes the next byte an ordinary one, the end of a line too.
    assert_eq!(read("x=\\\npv_rev=1\n"), Err(Code::EnvInvalid));
    assert_eq!(read("pv_rev=\\1\\2\n"), Ok((vars("12", None, None), 0)));
    assert_eq!(read("=x\npv_rev=1\n"), Ok((vars("1", None, None), 0)));
    // What is longer than any name is none, and not its beginning.
    let long = format!("pv_rev=1\npv_prev=locals/{}\n", "n".repeat(65));
    assert_eq!(read(&long), Ok((vars("1", None, None), 0)));
    // A name goes on until its `=`.
    assert_eq!(read("junk\npv_rev=1\n"), Err(Code::EnvInvalid));
    assert_eq!(read("pv_rev=2\npv_rev=1"), Ok((vars("2", None, None), 0)), "a line without an end is none");
    // W6: names are compared whole.
    assert_eq!(read("pv_rev=1\npv_revs=2\npv_trying=3\nupgrade_available=1\n"), Ok((vars("1", None, None), 0)));
    for bad in ["", "pv_rev=\n", "pv_rev=../0\n", "pv_rev=1 \n"] {
        assert_eq!(read(bad), Err(Code::EnvInvalid), "{bad:?}");
    }
    let mut other = block("pv_rev=1\n");
    other[0] = b' ';
    assert_eq!(decode(&other), Err(Code::EnvInvalid));
}

/// Blocks in which others' lines end before, at and behind the first sector's end.
fn shapes() -> Vec<[u8; SIZE]> {
    let ours = "pv_rev=1\npv_prev=0\nupgrade_available=0\nbootcount=0\n";
    let mut shapes: Vec<_> = (0..20).map(|extra| block(&format!("{ours}x={}\n", "y".repeat(20 * extra)))).collect();
    for length in 400..520 {
        shapes.push(block(&format!("{ours}# a note\nx={}\nlast=\\\\z\n", "y".repeat(length - 100))));
        // and with padding in the middle, as an earlier store leaves it
        shapes.push(block(&format!("{ours}a=b\n{}\nx={}\n", "#".repeat(length - 200), "y".repeat(200))));
        shapes.push(block(&format!("x=y\n{ours}{}\nlast=z\n", "#".repeat(length - 60))));
    }
    shapes
}

#[test]
fn w2_w4_a_transition_is_one_sector_whatever_the_block_looks_like() {
    let name = format!("locals/{}", "n".repeat(64));
    let (mut stored, mut full) = (0, 0);
    for before in shapes() {
        let mut medium = Medium::new(&before);
        let old = loaded(&mut medium).vars;
        let armed = vars("1", Some(&name), Some("0"));
        if let Err(code) = open(&mut medium).store(&armed) {
            assert_eq!((code, medium.done.len()), (Code::EnvFull, 0));
            full += 1;
            continue;
        }
        for (old, new) in [(old, armed), (armed, vars(&name, None, Some("1"))), (vars(&name, None, Some("1")), old)] {
            medium.done.clear();
            open(&mut medium).store(&new).unwrap();
            assert_eq!(medium.counts(), (1, 1));
            assert!(medium.changed().iter().all(|sector| *sector == 0));
            for state in medium.cut_states() {
                let found = loaded(&mut Medium::new(&state)).vars;
                assert!(found == old || found == new, "{found:?}");
                assert_eq!(others(&state), others(&before));
            }
            assert_eq!((loaded(&mut medium).vars, loaded(&mut medium).bootcount), (new, 0));
            medium.forget();
        }
        stored += 1;
    }
    assert!(stored > 200 && full > 20, "{stored} {full}");
}

/// Where these bytes stand in the first sector after a store of `vars`.
fn place(before: &[u8; SIZE], vars: &BootVars, text: &str) -> Result<Option<usize>, Code> {
    let mut medium = Medium::new(before);
    open(&mut medium).store(vars)?;
    assert_eq!(loaded(&mut medium).vars, *vars);
    Ok(medium.bytes[..SECTOR].windows(text.len()).position(|bytes| bytes == text.as_bytes()))
}

#[test]
fn what_others_have_stands_behind_room_for_the_longest_of_ours_while_there_is_room() {
    let next = vars("2", None, Some("1"));
    let behind_ours = ours(&next).used();
    let ending = |length: usize| format!("z={}\n", "y".repeat(length - 3));
    let short = |length: usize| block(&format!("pv_rev=1\n{}", ending(length)));
    for length in [4, 20, SECTOR - OURS_END - 1] {
        assert_eq!(place(&short(length), &next, &ending(length)), Ok(Some(OURS_END)), "{length}");
    }
    // No room for both: nothing is kept free, and nothing refused.
    for length in [SECTOR - OURS_END, SECTOR - OURS_END + 1] {
        assert_eq!(place(&short(length), &next, &ending(length)), Ok(Some(behind_ours)), "{length}");
    }
    // Nobody adds behind what goes on in the second sector.
    let goes_on = block(&format!("pv_rev=1\nz=y\n{}\nlast=z\n", "#".repeat(SECTOR)));
    assert_eq!(place(&goes_on, &next, "z=y\n"), Ok(Some(behind_ours)));
}

#[test]
fn a_text_ends_where_grub_stops_to_read() {
    let next = vars("2", None, Some("1"));
    // A comment at the end makes way, a rest without a value is in the way.
    assert_eq!(place(&block("pv_rev=1\n# a note\n"), &next, "# a note\n"), Ok(Some(OURS_END)));
    assert_eq!(place(&block("pv_rev=1\nleft over\n"), &next, "left over\n"), Err(Code::EnvFull));
    // A line that ends with the sector stays there.
    let room = "#".repeat(200);
    let head = format!("pv_rev=1\n{room}\n");
    let last = format!("z={}\n", "y".repeat(SECTOR - HEADER.len() - head.len() - 3));
    let full = block(&format!("{head}{last}more=1\n"));
    assert_eq!(place(&full, &next, &last), Ok(Some(SECTOR - last.len())));
}

#[test]
fn variables_of_ours_in_the_second_sector_are_refused_and_adopted() {
    let before = block(&format!("a=b\nx={}\npv_rev=1\npv_try=2\nupgrade_available=1\n", "y".repeat(496)));
    let mut medium = Medium::new(&before);
    assert_eq!(loaded(&mut medium).vars, vars("1", Some("2"), None));
    assert_eq!(open(&mut medium).store(&vars("2", None, Some("1"))), Err(Code::EnvLayout));
    assert_eq!(medium.done, []);
    let after = adopt(&before).unwrap();
    assert_eq!(others(&after), others(&before));
    let mut medium = Medium::new(&after);
    assert_eq!(loaded(&mut medium).vars, vars("1", Some("2"), None));
    // A line that goes over the sectors' border leaves no room there: ours fit where they are.
    open(&mut medium).store(&vars("2", None, None)).unwrap();
    assert_eq!(others(&medium.bytes), others(&before));
}

#[test]
fn w4_errors_of_the_medium_are_reported() {
    for fault in 0..3 {
        let mut medium = Medium::new(&initial(&vars("1", None, None)).unwrap());
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
        assert_eq!(loaded(&mut medium).vars, next);
    }
}

#[test]
fn a_lost_block_is_rebuilt_and_a_good_one_is_not() {
    let wanted = vars("4", None, Some("1"));
    for (before, kept, writes) in [
        ([0xff; SIZE], 0, 2),
        ([0; SIZE], 0, 2),
        (block("x=y\npv_rev=\n"), 1, 1),
        (block(&format!("x={}\npv_rev=..\n", "y".repeat(500))), 0, 3),
    ] {
        let mut medium = Medium::new(&before);
        assert_eq!(open(&mut medium).load(), Err(Code::EnvInvalid));
        assert_eq!(open(&mut medium).store(&wanted), Err(Code::EnvInvalid));
        open(&mut medium).rebuild(&wanted).unwrap();
        assert_eq!(medium.counts(), (writes, writes));
        for state in medium.cut_states() {
            let found = open(&mut Medium::new(&state)).load();
            assert!(found.is_err() || found.unwrap().vars == wanted);
        }
        assert_eq!(loaded(&mut medium).vars, wanted);
        let new = kept == 1 || others(&medium.bytes) == [("bootlimit".into(), "3".into())];
        assert!(new && others(&medium.bytes).len() == 1);
        assert_eq!(open(&mut medium).rebuild(&wanted), Err(Code::Internal));
    }
}

#[test]
fn the_script_and_the_code_agree() {
    let setting = |name: &str| {
        let line = SCRIPT.lines().find_map(|line| line.strip_prefix("set ")?.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name}")).to_owned()
    };
    assert!(runtime::boot::SCRIPTS.contains(&setting("pv_script").parse().unwrap()));
    assert!(SCRIPT.contains(&format!("set pv_limit={TRIES}\n")));
    assert!(SCRIPT.contains("load_env --file $pv_env pv_rev pv_try upgrade_available bootcount bootlimit\n"));
    assert!(Grub::new(&mut Medium::new(&[]), 100).is_err());
}

#[test]
fn any_bytes_give_a_result() {
    let words: [&[u8]; 14] = [
        b"pv_rev=",
        b"pv_try=",
        b"pv_prev=",
        b"upgrade_available=1\n",
        b"0",
        b"\n",
        b"=",
        b"locals/",
        b"\xff",
        b"#",
        b"\\",
        b"########",
        b"x=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n",
        b"pv_rev=7\n",
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..30_000 {
        let mut bytes = Vec::from(HEADER);
        for _ in 0..random.below(90) {
            bytes.extend(words[random.below(words.len())]);
        }
        bytes.resize(SIZE, if random.below(4) == 0 { 0 } else { b'#' });
        let mut medium = Medium::new(&bytes);
        let wanted = vars("1", Some("2"), None);
        match (open(&mut medium).load(), open(&mut medium).store(&wanted)) {
            (Ok(_), Ok(())) => {
                assert_eq!(loaded(&mut medium).vars, wanted);
                assert_eq!(others(&medium.bytes), others(&bytes));
                assert_eq!(medium.bytes[SECTOR..], bytes[SECTOR..]);
                good += 1;
            }
            (Ok(_), Err(code)) => assert!(matches!(code, Code::EnvLayout | Code::EnvFull)),
            (Err(_), Ok(())) => panic!("stored over what cannot be loaded"),
            (Err(code), Err(_)) => {
                assert_eq!(code, Code::EnvInvalid);
                open(&mut medium).rebuild(&wanted).unwrap();
                assert_eq!(loaded(&mut medium).vars, wanted);
                bad += 1;
            }
        }
    }
    assert!(good > 500 && bad > 500, "{good} {bad}");
}
