//! Golden bytes, the selection rule against one written a second time, and every cut of a store.

use super::{
    text::{Writer, ours, text_pieces},
    *,
};
use runtime::id::RevName;

/// A region in memory. `cut` is how many more bytes reach the medium before power is gone.
struct Memory {
    bytes: Vec<u8>,
    cut: Option<usize>,
    /// Reads and writes of these offsets fail.
    broken: Vec<u64>,
    /// Writes are acknowledged and forgotten.
    lies: bool,
    /// So many syncs fail; what was written stays readable.
    sync_fails: u32,
    log: Vec<&'static str>,
}

impl Memory {
    fn with(copies: [&[u8]; 2]) -> Self {
        let bytes = [copies[0], copies[1]].concat();
        Self { bytes, cut: None, broken: Vec::new(), lies: false, sync_fails: 0, log: Vec::new() }
    }
}

impl Region for &mut Memory {
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Code> {
        self.log.push("read");
        if self.broken.contains(&offset) {
            return Err(Code::StorageIo);
        }
        out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Code> {
        self.log.push("write");
        if self.broken.contains(&offset) {
            return Err(Code::StorageIo);
        }
        let kept = self.cut.map_or(data.len(), |cut| cut.min(data.len()));
        if !self.lies {
            self.bytes[offset as usize..][..kept].copy_from_slice(&data[..kept]);
        }
        self.cut = self.cut.map(|cut| cut - kept);
        if kept < data.len() { Err(Code::StorageIo) } else { Ok(()) }
    }
    fn sync(&mut self) -> Result<(), Code> {
        self.log.push("sync");
        let fails = self.sync_fails > 0;
        self.sync_fails = self.sync_fails.saturating_sub(1);
        if fails { Err(Code::StorageIo) } else { Ok(()) }
    }
    fn drop_cache(&mut self) {
        self.log.push("drop");
    }
}

const SIZE: usize = 512;
const TEXT: &str = "# comment\nbootlimit=3\n\npv_script=1\nboot=a \\\n  b; \\\n# inside\n  c\nbootcount=7\nlast=x";

fn layout(scheme: Scheme) -> Layout {
    Layout { copies: Copies::Redundant([0, SIZE as u64], scheme), size: SIZE }
}

/// Calls `f` with the environment over `memory`.
fn env<T>(memory: &mut Memory, scheme: Scheme, f: impl FnOnce(&mut Uboot<'_, &mut Memory>) -> T) -> T {
    let mut work = [0xaa; 2 * SIZE];
    f(&mut Uboot::new(memory, layout(scheme), TEXT, &mut work).unwrap())
}

fn rev(name: &str) -> RevName {
    RevName::parse(name).unwrap()
}

fn vars(committed: &str, candidate: Option<&str>, previous: Option<&str>) -> BootVars {
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: previous.map(rev) }
}

/// A copy with these entries.
fn copy(entries: &[&[u8]], flags: u8) -> [u8; SIZE] {
    let mut image = [0; SIZE];
    let mut out = Writer::over(&mut image[HEADER..]);
    for entry in entries {
        out.put(entry);
        out.put(&[0]);
    }
    out.finish().unwrap();
    seal(&mut image, Some(flags));
    image
}

/// Damages a copy so that its checksum is wrong.
fn spoiled(mut copy: [u8; SIZE]) -> [u8; SIZE] {
    copy[SIZE - 1] ^= 1;
    copy
}

fn entries(image: &[u8]) -> Vec<String> {
    Entries::of(&image[HEADER..]).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

#[test]
fn golden_bytes_of_a_copy() {
    let mut image = [0xff; SIZE];
    initial("bootlimit=3\n", &vars("0", Some("locals/a"), None), Some(1), &mut image).unwrap();
    let text = b"bootlimit=3\0pv_rev=0\0pv_try=locals/a\0upgrade_available=1\0bootcount=0\0\0";
    // From another implementation: zlib.crc32(text.ljust(507, b"\0")).
    assert_eq!(image[..4], GOLDEN_CRC);
    assert_eq!(image[4], 1);
    assert_eq!(&image[HEADER..][..text.len()], text);
    assert!(image[HEADER + text.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(flags_of(&image), Some(1));
}

/// Little endian.
const GOLDEN_CRC: [u8; 4] = [0x51, 0x91, 0xb4, 0x94];

#[test]
fn a_text_is_read_as_the_loaders_build_reads_it() {
    let mut image = [0; SIZE];
    initial(TEXT, &vars("3", None, Some("0")), Some(9), &mut image).unwrap();
    let expected = [
        "bootlimit=3",
        "pv_script=1",
        "boot=a b; c",
        "last=x",
        "pv_rev=3",
        "pv_prev=0",
        "upgrade_available=0",
        "bootcount=0",
    ];
    assert_eq!(entries(&image), expected);
    assert_eq!(
        (text_value(TEXT, "last"), text_value(TEXT, "bo"), text_value(TEXT, "# inside")),
        (Some("x"), None, None)
    );
    // What does not fit is refused as a whole. The list needs one more byte than its entries.
    let used = HEADER + expected.iter().map(|entry| entry.len() + 1).sum::<usize>();
    assert_eq!(initial(TEXT, &vars("3", None, Some("0")), Some(9), &mut vec![0; used]), Err(Code::EnvFull));
    assert_eq!(initial(TEXT, &vars("3", None, Some("0")), Some(9), &mut vec![0; used + 1]), Ok(()));
    assert_eq!(initial(TEXT, &vars("3", None, None), Some(9), &mut []), Err(Code::EnvFull));
}

#[test]
fn boards_texts_have_nothing_that_the_loader_would_unescape() {
    for board in crate::BOARDS {
        text_pieces(board.env_text, |_, piece| assert!(!piece.contains('\\') && piece.is_ascii(), "{piece}"));
    }
}

/// The rule a second time, as a sequence of cases like the loader's drivers write it.
fn rule(scheme: Scheme, valid: [bool; 2], first: u8, second: u8) -> Option<usize> {
    if !valid[0] && !valid[1] {
        return None;
    }
    if !valid[1] {
        return Some(0);
    }
    if !valid[0] {
        return Some(1);
    }
    if scheme == Scheme::Incremental {
        if first == 255 && second == 0 {
            return Some(1);
        }
        if second == 255 && first == 0 {
            return Some(0);
        }
        if first > second {
            return Some(0);
        }
        if second > first {
            return Some(1);
        }
        return Some(0);
    }
    if first == 1 && second == 0 {
        return Some(0);
    }
    if first == 0 && second == 1 {
        return Some(1);
    }
    if first == second {
        return Some(0);
    }
    if first == 0xff {
        return Some(0);
    }
    if second == 0xff {
        return Some(1);
    }
    Some(0)
}

#[test]
fn selection_is_the_loaders_for_every_pair_of_flags() {
    let mut checked = 0;
    for scheme in [Scheme::Incremental, Scheme::Boolean] {
        for (first, second) in (0..=255u8).flat_map(|first| (0..=255u8).map(move |second| (first, second))) {
            for valid in [[true, true], [true, false], [false, true], [false, false]] {
                let flags = [valid[0].then_some(first), valid[1].then_some(second)];
                assert_eq!(select(scheme, flags), rule(scheme, valid, first, second), "{scheme:?} {flags:?}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 2 * 256 * 256 * 4);
}

#[test]
fn a_store_is_what_the_loader_selects_whatever_the_flags_were() {
    let copies =
        |flags: [u8; 2]| [copy(&[b"pv_rev=1", b"x=first"], flags[0]), copy(&[b"pv_rev=2", b"x=second"], flags[1])];
    for scheme in [Scheme::Incremental, Scheme::Boolean] {
        for (first, second) in (0..=255u8).flat_map(|first| (0..=255u8).map(move |second| (first, second))) {
            let old = copies([first, second]);
            let mut memory = Memory::with([&old[0], &old[1]]);
            let active = rule(scheme, [true; 2], first, second).unwrap();
            let wanted = vars("9", Some("10"), Some("1"));
            env(&mut memory, scheme, |env| env.store(&wanted)).unwrap();
            let (one, two) = memory.bytes.split_at(SIZE);
            let (new, kept) = if active == 0 { (two, one) } else { (one, two) };
            assert_eq!(rule(scheme, [true; 2], one[4], two[4]), Some(1 - active), "{scheme:?} {first} {second}");
            assert_eq!(kept[..4], old[active][..4], "the other copy is whole");
            assert_eq!(kept[HEADER..], old[active][HEADER..], "the other copy is whole");
            assert_eq!(flags_of(new), Some(new[4]));
            assert_eq!(entries(new)[1], if active == 0 { "x=first" } else { "x=second" });
        }
    }
}

#[test]
fn a_store_is_one_write_one_sync_one_read_back() {
    let old = copy(&[b"pv_rev=1"], 1);
    let mut memory = Memory::with([&old, &spoiled(old)]);
    env(&mut memory, Scheme::Incremental, |env| env.store(&vars("1", Some("2"), None))).unwrap();
    assert_eq!(memory.log, ["read", "read", "write", "sync", "drop", "read"]);
    // Both valid: NOR flash needs the second step.
    memory.log.clear();
    env(&mut memory, Scheme::Boolean, |env| env.store(&vars("1", None, None))).unwrap();
    assert_eq!(memory.log, ["read", "read", "write", "sync", "drop", "read", "write", "sync", "drop", "read"]);
}

#[test]
fn foreign_variables_keep_their_bytes_and_order() {
    let before: &[&[u8]] = &[
        b"z=1",
        b"pv_try=old",
        b"a=\\x \xff=;",
        b"pv_rev=3",
        b"no value",
        b"bootcount=2",
        b" pv_try=blank first",
        b"pv_rev_x=no",
        b"pv_rev=4",
        b"#pv_prev=9",
        b"boot=run a; run b",
    ];
    let mut memory = Memory::with([&copy(before, 7), &copy(&[], 6)]);
    let loaded = env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap();
    assert_eq!((loaded.vars, loaded.bootcount), (vars("4", None, None), 2), "the last entry counts");
    env(&mut memory, Scheme::Incremental, |env| env.store(&vars("3", Some("5"), Some("4")))).unwrap();
    let after: &[&[u8]] = &[
        b"z=1",
        b"pv_try=5",
        b"a=\\x \xff=;",
        b"pv_rev=3",
        b"no value",
        b"bootcount=0",
        b"pv_rev_x=no",
        b"#pv_prev=9",
        b"boot=run a; run b",
        b"pv_prev=4",
        b"upgrade_available=1",
    ];
    assert_eq!(Entries::of(&memory.bytes[SIZE + HEADER..]).collect::<Vec<_>>(), after);
    // Without a candidate the variable goes, and nothing else moves.
    env(&mut memory, Scheme::Incremental, |env| env.store(&vars("5", None, Some("3")))).unwrap();
    let kept = Entries::of(&memory.bytes[HEADER..SIZE]).filter(|entry| ours(split(entry).0).is_none());
    assert!(kept.eq(before.iter().copied().filter(|entry| ours(split(entry).0).is_none())));
    let loaded = env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap();
    assert_eq!(loaded.vars, vars("5", None, Some("3")));
}

#[test]
fn a_load_names_the_revisions_of_both_valid_copies() {
    let first = copy(&[b"pv_rev=1", b"pv_try=2", b"pv_prev=locals/p"], 1);
    let second = copy(&[b"pv_rev=3", b"pv_try=../x", b"upgrade_available=1", b"bootcount=4294967296"], 2);
    let mut memory = Memory::with([&first, &second]);
    let loaded = env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap();
    assert_eq!(loaded.named, [Some(rev("1")), Some(rev("2")), Some(rev("locals/p")), Some(rev("3")), None, None]);
    assert_eq!((loaded.vars, loaded.bootcount), (vars("3", None, None), u32::MAX));
    // A copy that cannot be read is an invalid one.
    memory.broken = vec![SIZE as u64];
    let loaded = env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap();
    assert_eq!(loaded.named[3..], [None; 3]);
    assert_eq!(loaded.vars, vars("1", None, Some("locals/p")), "without upgrade_available the loader tries nothing");
}

#[test]
fn a_store_cut_at_any_byte_leaves_the_old_or_the_new_decision() {
    for (scheme, active) in
        [(Scheme::Incremental, 0), (Scheme::Incremental, 1), (Scheme::Boolean, 0), (Scheme::Boolean, 1)]
    {
        let (old, new) = (vars("1", None, Some("0")), vars("1", Some("locals/n"), Some("0")));
        let mut images = [[0; SIZE]; 2];
        initial(TEXT, &old, Some(1), &mut images[active]).unwrap();
        initial(TEXT, &vars("7", None, None), Some(0), &mut images[1 - active]).unwrap();
        let (mut olds, mut news) = (0, 0);
        for cut in 0..=SIZE + 1 {
            let mut memory = Memory::with([&images[0], &images[1]]);
            memory.cut = Some(cut);
            let stored = env(&mut memory, scheme, |env| env.store(&new));
            memory.cut = None;
            let loaded = env(&mut memory, scheme, |env| env.load()).unwrap().vars;
            assert!(loaded == old || loaded == new, "{scheme:?} {cut}: {loaded:?}");
            assert!(stored.is_err() || loaded == new, "{scheme:?} {cut}: acknowledged");
            if loaded == old {
                olds += 1
            } else {
                news += 1
            }
            // And the next store works, whatever this one left.
            env(&mut memory, scheme, |env| env.store(&new)).unwrap();
            assert_eq!(env(&mut memory, scheme, |env| env.load()).unwrap().vars, new);
        }
        assert!(olds > 50 && news > 0, "{olds} {news}");
    }
}

/// What was written is readable, and nobody knows whether the medium has it: the copy of before must stay whole.
#[test]
fn after_a_failed_sync_the_same_copy_is_written_again() {
    for flags in [[5, 4], [4, 5]] {
        let first = copy(&[b"pv_rev=1"], flags[0]);
        let second = copy(&[b"pv_rev=1"], flags[1]);
        let in_use = select(Scheme::Incremental, flags.map(Some)).unwrap();
        let mut memory = Memory::with([&first, &second]);
        memory.sync_fails = 2;
        let next = vars("1", Some("2"), None);
        env(&mut memory, Scheme::Incremental, |env| {
            for outcome in [Err(Code::EnvStoreFailed), Err(Code::EnvStoreFailed), Ok(())] {
                assert_eq!(env.store(&next), outcome);
                let copies = env.region.bytes.chunks(SIZE).nth(in_use).unwrap();
                assert_eq!(copies, [first, second][in_use], "the copy in use was touched");
            }
            assert_eq!(env.load().unwrap().vars, next);
            // and from then on it goes back and forth as ever
            assert_eq!(env.store(&vars("2", None, Some("1"))), Ok(()));
            assert_eq!(env.load().unwrap().vars, vars("2", None, Some("1")));
        });
    }
}

/// The copy that was written is all that is left then, whether or not the medium has it.
#[test]
fn a_copy_that_may_not_be_on_the_medium_is_in_use_when_the_other_is_damaged() {
    let old = copy(&[b"x=y", b"pv_rev=1"], 1);
    let mut memory = Memory::with([&old, &spoiled(old)]);
    memory.sync_fails = 1;
    env(&mut memory, Scheme::Incremental, |env| {
        assert_eq!(env.store(&vars("1", Some("2"), None)), Err(Code::EnvStoreFailed));
        env.region.bytes[..SIZE].fill(0);
        assert_eq!(env.store(&vars("2", None, Some("1"))), Ok(()));
    });
    assert_eq!(entries(&memory.bytes)[0], "x=y");
    assert_eq!(env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap().vars, vars("2", None, Some("1")));
}

/// What a new image holds: the loader takes the first copy, and either scheme reads the second one as the older.
#[test]
fn new_copies_have_the_flags_that_put_the_first_in_force() {
    assert_eq!(Copies::Single(0).fresh_flags(), [None; 2]);
    for scheme in [Scheme::Incremental, Scheme::Boolean] {
        let flags = Copies::Redundant([0, 1], scheme).fresh_flags();
        assert_eq!(flags, [Some(1), Some(0)]);
        assert_eq!(select(scheme, flags), Some(0));
    }
}

/// It may be the copy in force, which the loader can read again: written over in part, the one before would boot.
#[test]
fn a_copy_that_cannot_be_read_is_not_written_over() {
    for newer in [0, 1] {
        let mut images = [[0; SIZE]; 2];
        initial(TEXT, &vars("1", None, None), Some(2), &mut images[newer]).unwrap();
        initial(TEXT, &vars("0", Some("1"), None), Some(1), &mut images[1 - newer]).unwrap();
        let mut memory = Memory::with([&images[0], &images[1]]);
        memory.broken = vec![(newer * SIZE) as u64];
        let stored = env(&mut memory, Scheme::Incremental, |env| env.store(&vars("1", Some("2"), None)));
        assert_eq!(stored, Err(Code::EnvStoreFailed));
        assert!(!memory.log.contains(&"write"));
        memory.broken.clear();
        let loaded = env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap();
        assert_eq!(loaded.vars, vars("1", None, None));
    }
}

#[test]
fn a_store_that_does_not_reach_the_medium_is_found() {
    let old = copy(&[b"pv_rev=1"], 1);
    let mut memory = Memory::with([&old, &spoiled(old)]);
    memory.lies = true;
    let stored = env(&mut memory, Scheme::Incremental, |env| env.store(&vars("1", Some("2"), None)));
    assert_eq!(stored, Err(Code::EnvStoreFailed));
    let mut memory = Memory::with([&old, &spoiled(old)]);
    memory.broken = vec![SIZE as u64];
    let stored = env(&mut memory, Scheme::Incremental, |env| env.store(&vars("1", Some("2"), None)));
    assert_eq!(stored, Err(Code::EnvStoreFailed));
    assert_eq!(memory.bytes[..SIZE], old);
}

#[test]
fn variables_that_do_not_fit_are_refused_and_nothing_is_written() {
    let long = [&b"long="[..], &[b'x'; SIZE - 60]].concat();
    let old = copy(&[&long, b"pv_rev=1"], 1);
    let mut memory = Memory::with([&old, &old]);
    let stored = env(&mut memory, Scheme::Incremental, |env| env.store(&vars("1", Some("locals/0123456789"), None)));
    assert_eq!(stored, Err(Code::EnvFull));
    assert_eq!(memory.log, ["read", "read"]);
}

#[test]
fn a_lost_environment_is_rebuilt_and_a_good_one_is_not() {
    for scheme in [Scheme::Incremental, Scheme::Boolean] {
        let old = copy(&[b"pv_rev=1", b"x=y"], 3);
        let mut memory = Memory::with([&spoiled(old), &spoiled(old)]);
        let wanted = vars("4", None, Some("1"));
        assert_eq!(env(&mut memory, scheme, |env| env.load()), Err(Code::EnvInvalid));
        assert_eq!(env(&mut memory, scheme, |env| env.store(&wanted)), Err(Code::EnvInvalid));
        env(&mut memory, scheme, |env| env.rebuild(&wanted)).unwrap();
        assert_eq!(env(&mut memory, scheme, |env| env.load()).unwrap().vars, wanted);
        assert_eq!(entries(&memory.bytes)[0], "bootlimit=3");
        assert_eq!(env(&mut memory, scheme, |env| env.rebuild(&wanted)), Err(Code::Internal));

        // Valid, but it names nothing that boots.
        let empty = copy(&[b"pv_rev=..", b"x=y"], 3);
        for (at, copies) in [[&empty, &spoiled(old)], [&spoiled(old), &empty]].into_iter().enumerate() {
            let mut memory = Memory::with(copies.map(|copy| &copy[..]));
            assert_eq!(env(&mut memory, scheme, |env| env.load()), Err(Code::EnvInvalid));
            env(&mut memory, scheme, |env| env.rebuild(&wanted)).unwrap();
            assert_eq!(env(&mut memory, scheme, |env| env.load()).unwrap().vars, wanted);
            assert_eq!(
                memory.bytes[at * SIZE + HEADER..][..SIZE - HEADER],
                empty[HEADER..],
                "only the other is written"
            );
        }
    }
}

#[test]
fn a_load_says_which_copy_is_in_force_and_whether_the_other_is_damaged() {
    let state = |memory: &mut Memory| {
        let loaded = env(memory, Scheme::Incremental, |env| env.load()).unwrap();
        (loaded.active, loaded.damaged, loaded.complete)
    };
    let [first, second] = [copy(&[b"pv_rev=1"], 1), copy(&[b"pv_rev=2"], 2)];
    assert_eq!(state(&mut Memory::with([&first, &second])), (2, false, true));
    assert_eq!(state(&mut Memory::with([&first, &spoiled(second)])), (1, true, true));
    assert_eq!(state(&mut Memory::with([&spoiled(first), &second])), (2, true, true));
    let mut memory = Memory::with([&first, &second]);
    memory.broken = vec![SIZE as u64];
    assert_eq!(state(&mut memory), (1, true, false), "unreadable is damaged, and may name more");
    memory.broken.clear();
    // A store makes the damaged copy good again.
    let mut memory = Memory::with([&first, &spoiled(second)]);
    env(&mut memory, Scheme::Incremental, |env| env.store(&vars("3", None, None))).unwrap();
    assert_eq!(state(&mut memory), (2, false, true));
}

/// Calls `f` with a single environment over `memory`.
fn single<T>(memory: &mut Memory, f: impl FnOnce(&mut Uboot<'_, &mut Memory>) -> T) -> T {
    let mut work = [0xaa; 2 * SIZE];
    f(&mut Uboot::new(memory, Layout { copies: Copies::Single(0), size: SIZE }, TEXT, &mut work).unwrap())
}

/// A single copy with `vars`.
fn single_copy(vars: &BootVars) -> [u8; SIZE] {
    let mut image = [0; SIZE];
    initial(TEXT, vars, None, &mut image).unwrap();
    image
}

#[test]
fn a_single_copy_is_read_and_stored_in_place() {
    let (old, new) = (vars("1", None, Some("0")), vars("1", Some("2"), Some("0")));
    let mut memory = Memory::with([&single_copy(&old), &[0x77; SIZE]]);
    // From another implementation: zlib.crc32 over everything behind the checksum, and no flag byte.
    assert_eq!(memory.bytes[..4], crc32fast::hash(&memory.bytes[4..SIZE]).to_le_bytes());
    assert_eq!(memory.bytes[4..16], *b"bootlimit=3\0");
    let loaded = single(&mut memory, |env| env.load()).unwrap();
    assert_eq!((loaded.vars, loaded.active, loaded.damaged, loaded.complete), (old, 1, false, true));
    memory.log.clear();
    single(&mut memory, |env| env.store(&new)).unwrap();
    assert_eq!(memory.log, ["read", "write", "sync", "drop", "read"]);
    assert_eq!(single(&mut memory, |env| env.load()).unwrap().vars, new);
    assert_eq!(memory.bytes[SIZE..], [0x77; SIZE], "what is behind the copy is not touched");
    assert_eq!(single(&mut memory, |env| env.rebuild(&old)), Err(Code::Internal), "it is valid");
}

/// What a single copy does not survive, said by its code, and what brings the device back.
#[test]
fn a_single_copy_cut_in_a_store_is_whole_or_lost_and_rebuilt() {
    let (old, new) = (vars("1", None, Some("0")), vars("1", Some("2"), Some("0")));
    let (mut lost, mut kept) = (0, 0);
    for cut in 0..=SIZE {
        let mut memory = Memory::with([&single_copy(&old), &[0x77; SIZE]]);
        memory.cut = Some(cut);
        let stored = single(&mut memory, |env| env.store(&new));
        memory.cut = None;
        match single(&mut memory, |env| env.load()) {
            Ok(loaded) => {
                assert!(loaded.vars == old || loaded.vars == new, "{cut}");
                assert!(stored.is_err() || loaded.vars == new, "{cut}: acknowledged");
                kept += 1;
            }
            Err(code) => {
                assert_eq!((code, stored), (Code::EnvInvalid, Err(Code::EnvStoreFailed)), "{cut}");
                assert_eq!(single(&mut memory, |env| env.store(&new)), Err(Code::EnvInvalid));
                single(&mut memory, |env| env.rebuild(&old)).unwrap();
                assert_eq!(single(&mut memory, |env| env.load()).unwrap().vars, old);
                lost += 1;
            }
        }
    }
    assert!(lost > 50 && kept > 50, "{lost} {kept}");
}

#[test]
fn every_other_flag_byte_is_data_to_a_single_copy() {
    let layout = Layout { copies: Copies::Single(0), size: SIZE };
    for flag in 0..=255 {
        let mut image = single_copy(&vars("1", None, None));
        image[4] = flag;
        let valid = flag == b'b';
        assert_eq!(layout.flags(&image), valid.then_some(0));
        assert_eq!(layout.select([valid.then_some(0), Some(flag)]), valid.then_some(0));
    }
}

#[test]
fn working_memory_and_size_are_checked() {
    let mut memory = Memory::with([&[0; SIZE], &[0; SIZE]]);
    let mut opened = |size: usize, work: usize| {
        let layout = Layout { size, ..layout(Scheme::Incremental) };
        Uboot::new(&mut memory, layout, TEXT, &mut vec![0; work]).is_ok()
    };
    assert!(opened(SIZE, 2 * SIZE) && !opened(SIZE, 2 * SIZE - 1) && !opened(0, 100));
    assert!(!opened(ENV_SIZE_MAX + 1, 4 * ENV_SIZE_MAX));
}

#[test]
fn any_bytes_decode_to_something() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words: [&[u8]; 8] =
        [b"pv_rev=", b"pv_try=", b"bootcount=", b"upgrade_available=1\0", b"0", b"\0", b"=", b"locals/"];
    for _ in 0..20_000 {
        let mut image = [0; SIZE];
        for byte in &mut image {
            *byte = if random() % 4 == 0 { random() as u8 } else { 0 };
        }
        let mut at = HEADER;
        while at < SIZE - 64 {
            let word = words[(random() % 8) as usize];
            image[at..][..word.len()].copy_from_slice(word);
            at += word.len() + (random() % 3) as usize;
        }
        seal(&mut image, Some(random() as u8));
        let mut memory = Memory::with([&image, &spoiled(image)]);
        let wanted = vars("1", Some("2"), None);
        if env(&mut memory, Scheme::Incremental, |env| env.store(&wanted)).is_ok() {
            assert_eq!(env(&mut memory, Scheme::Incremental, |env| env.load()).unwrap().vars, wanted);
        }
    }
}
