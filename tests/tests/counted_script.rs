//! The script of loaders that do not count (boards/uboot/counted.env), run by a real U-Boot: how often it tries a candidate,
//! whatever an owner has stored, against `runtime::boot::loader`.
//!
//! All of the script that counts and bounds runs as it is. What stands for the board: a store and a read of the counter in
//! memory, and a line on the console for a boot. The loader is the one of qemu-arm64, of the same release as Debian's.

use boards::env::uboot;
use runtime::{
    boot::{LoaderVars, loader},
    id::RevName,
    port::{BootVars, Region},
};
use tests::loader_disk::{LoaderDisk, root};

/// More boots than any limit allows.
const BOOTS: usize = 20;
/// What stands for the board.
const BOARD: &str = "pv_reload=setenv bootcount ${stored}\npv_boot=echo TRY ${rev}\npv_back=true\n";

fn vars(candidate: Option<&str>) -> BootVars {
    BootVars {
        committed: RevName::factory(),
        candidate: candidate.map(|name| RevName::parse(name).unwrap()),
        previous: None,
    }
}

/// How often the model tries.
fn tries(bootcount: u32, bootlimit: u32) -> usize {
    let (mut bootcount, mut tries) = (bootcount, 0);
    for _ in 0..BOOTS {
        let env = LoaderVars { vars: vars(Some("1")), bootcount, bootlimit };
        let count = |count| {
            bootcount = count;
            true
        };
        let facts = loader(Some(env), count, |_| true, None).unwrap();
        tries += usize::from(facts.booted == facts.candidate);
    }
    tries
}

/// A stored value, and the number that the model takes it for.
type Value = (&'static str, u32);

/// Values of `bootcount`. What is no number begins anew, and is bounded from there.
const COUNTS: [Value; 10] =
    [("0", 0), ("", 0), ("1", 1), ("2", 2), ("9", 9), ("16", 16), ("1000", 1000), ("5 x", 0), ("many", 0), ("0x2", 0)];
/// Values of `bootlimit`.
const LIMITS: [Value; 12] = [
    ("3", 3),
    ("1", 1),
    ("10", 10),
    ("15", 15),
    ("", 0),
    ("0", 0),
    ("16", 16),
    ("4294967297", u32::MAX),
    ("2 tries", 0),
    ("none", 0),
    ("-1", 0),
    ("\"", 0),
];

#[test]
fn a_candidate_is_tried_as_often_as_the_model_says() {
    let script = std::fs::read_to_string(root().join("boards/uboot/counted.env")).unwrap();
    assert_eq!(script.matches("saveenv").count(), 1, "the one store of a counter is what the test stands in for");
    let mut text = script.replace("saveenv", "setenv stored ${bootcount}") + BOARD;
    let mut set = |name: &str, values: &[Value]| {
        for (index, (value, _)) in values.iter().enumerate() {
            text += &format!("{name}_{index}=setenv {name} '{value}'\n");
        }
        (0..values.len()).map(|index| index.to_string()).collect::<Vec<_>>().join(" ")
    };
    let (counts, limits) = (set("bootcount", &COUNTS), set("bootlimit", &LIMITS));
    text += &format!("boots={}\n", ["run pv_trial"; BOOTS].join("; "));
    text += "one=setenv upgrade_available 1; setenv pv_try 1; run bootcount_${c}; run bootlimit_${l}; run boots\n";
    text +=
        &format!("bootcmd=for c in {counts}; do for l in {limits}; do echo CASE ${{c}} ${{l}}; run one; done; done; ");
    text += "echo CASE end; sleep 60\n";

    let disk = LoaderDisk::new("counted", &[], "", &vars(None));
    let layout = disk.layout();
    let mut copy = vec![0; layout.size];
    uboot::initial(&text, &vars(None), Some(9), &mut copy).unwrap();
    for offset in layout.offsets() {
        disk.region().write_at(*offset, &copy).unwrap();
    }
    let console = disk.boot_until("CASE end", 1);
    for (c, (count, stored)) in COUNTS.iter().enumerate() {
        for (l, (limit, bound)) in LIMITS.iter().enumerate() {
            let (_, said) =
                console.split_once(&format!("CASE {c} {l}\n")).unwrap_or_else(|| panic!("{c} {l}: {console}"));
            let said = said.split("CASE ").next().unwrap();
            assert_eq!(said.matches("TRY 1").count(), tries(*stored, *bound), "{count:?} {limit:?}: {said}");
        }
    }
}
