//! The environment on flash, with the kernel's own MTD and UBI: PID 1 of a guest whose two disks are flash chips. It opens
//! them as a board would say, stores, damages, rebuilds, prints what it sees, and powers off. `tests/tests/env_flash.rs`
//! makes the disks, starts it, and judges.

use boards::{
    Board, Env, Flash, Medium,
    env::{
        Codec,
        uboot::{Copies, Scheme},
    },
};
use platform::{env::EnvRegion, sys};
use runtime::{
    fault::Code,
    id::RevName,
    port::{BootEnv, BootVars},
};
use rustix::{
    fs::{Mode, OFlags},
    mount::MountFlags,
    system::RebootCommand,
};
use std::fs;

const SIZE: u32 = 0x4000;
const ERASE: u32 = 0x1_0000;

fn main() {
    for (what, kind) in [(c"/dev", c"devtmpfs"), (c"/sys", c"sysfs")] {
        let _ = fs::create_dir(what.to_str().unwrap_or_default());
        if let Err(error) = rustix::mount::mount(kind, what, kind, MountFlags::empty(), None::<&core::ffi::CStr>) {
            println!("FLASH {what:?}: {error}");
        }
    }
    nor();
    ubi();
    println!("FLASH end");
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
}

fn board(medium: Medium) -> Board {
    let any = boards::find("qemu-arm64").expect("a board to change");
    Board { env: Env::Uboot { medium, size: SIZE }, env_text: "bootlimit=3\n", ..*any }
}

fn vars(committed: &str, candidate: Option<&str>) -> BootVars {
    let rev = |name| RevName::parse(name).expect("a name");
    BootVars { committed: rev(committed), candidate: candidate.map(rev), previous: None }
}

/// Prints what a load says.
fn show(what: &str, env: &mut Codec<'static, EnvRegion>) {
    match env.load() {
        Ok(loaded) => {
            let candidate = loaded.vars.candidate.map_or("-".into(), |rev| rev.to_string());
            let (committed, active) = (loaded.vars.committed, loaded.active);
            println!("FLASH {what}: {committed} {candidate} copy {active} damaged {}", loaded.damaged);
        }
        Err(code) => println!("FLASH {what}: {code}"),
    }
}

fn done(what: &str, result: Result<(), Code>) {
    match result {
        Ok(()) => println!("FLASH {what}: done"),
        Err(code) => println!("FLASH {what}: {code}"),
    }
}

/// Both schemes and a single copy, each in blocks of its own; the last block of each has something else behind the copy.
fn nor() {
    // The chip that the kernel was not told of.
    if let Err(error) = fs::write("/sys/module/block2mtd/parameters/block2mtd", "/dev/vdb,65536") {
        println!("FLASH block2mtd: {error}");
    }
    let at = |block: u64| Flash { device: "/dev/mtd1", offset: block * u64::from(ERASE), erase: ERASE };
    for (name, copies) in [
        ("incremental", Copies::Redundant([at(0), at(1)], Scheme::Incremental)),
        ("boolean", Copies::Redundant([at(2), at(3)], Scheme::Boolean)),
        ("single", Copies::Single(at(4))),
    ] {
        match platform::env::open(&board(Medium::Mtd(copies))) {
            Err(code) => println!("FLASH {name}: {code}"),
            Ok(mut env) => stores(name, &mut env),
        }
    }
    let odd = Flash { offset: 100, ..at(0) };
    match platform::env::open(&board(Medium::Mtd(Copies::Single(odd)))) {
        Err(code) => println!("FLASH odd: {code}"),
        Ok(_) => println!("FLASH odd: opened"),
    }
}

/// From nothing to a committed revision and a candidate.
fn stores(name: &str, env: &mut Codec<'static, EnvRegion>) {
    show(&format!("{name} erased"), env);
    done(&format!("{name} rebuild"), env.rebuild(&vars("0", None)));
    show(&format!("{name} rebuilt"), env);
    done(&format!("{name} arm"), env.store(&vars("0", Some("1"))));
    show(&format!("{name} armed"), env);
    done(&format!("{name} commit"), env.store(&vars("1", None)));
    show(&format!("{name} committed"), env);
}

/// Two volumes, and an update of one of them that never ends.
fn ubi() {
    let volumes = Copies::Redundant(["env", "env2"], Scheme::Incremental);
    let board = board(Medium::Ubi { device: "/dev/ubi0", volumes });
    let mut env = match platform::env::open(&board) {
        Ok(env) => env,
        Err(code) => return println!("FLASH ubi: {code}"),
    };
    stores("ubi", &mut env);
    // The copy that is not in force, announced and left so, as by a power cut.
    let cut = rustix::fs::open("/dev/ubi0_1", OFlags::RDWR, Mode::empty())
        .and_then(|volume| sys::ubi_update(&volume, i64::from(SIZE)));
    println!("FLASH ubi cut: {cut:?}");
    show("ubi after the cut", &mut env);
    done("ubi store", env.store(&vars("1", Some("2"))));
    show("ubi stored", &mut env);
    let missing = Copies::Redundant(["env", "env3"], Scheme::Incremental);
    match platform::env::open(&Board {
        env: Env::Uboot { medium: Medium::Ubi { device: "/dev/ubi0", volumes: missing }, size: SIZE },
        ..board
    }) {
        Err(code) => println!("FLASH missing: {code}"),
        Ok(_) => println!("FLASH missing: opened"),
    }
}
