//! The loader: the model of the boot script (`runtime::boot::loader`) over the simulated media. It reads the boot
//! volume as of the last checkpoint and saves its own counter the way U-Boot does: all variables, other copy.

use crate::{
    device::TEXT,
    fleet::{Revision, content, of_name},
    medium::Bench,
    saboteur::Door,
    taken,
};
use boards::env::uboot::{Copies, Entries, HEADER, Layout, Scheme, Uboot, flags_of, split};
use runtime::{
    boot::{self, Facts, LoaderVars},
    id::RevName,
    port::{BootEnv, Region},
    protocol::Row,
    store,
};

/// The environment: two copies of two sectors, so that a copy can be torn.
pub const LAYOUT: Layout = Layout { copies: Copies::Redundant(OFFSETS, Scheme::Incremental), size: 1024 };
/// Where the copies are.
pub const OFFSETS: [u64; 2] = [0, 1024];
/// Boots of a candidate before the loader gives it up.
pub const BOOTLIMIT: u32 = boot::BOOTLIMIT;

/// How well the loader does its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skill {
    /// As it should.
    Counts,
    /// Saving fails, and it notices.
    CannotSave,
    /// Saving fails, and it does not notice.
    Careless,
}

impl Skill {
    /// All of them.
    pub const ALL: [Skill; 3] = [Skill::Counts, Skill::CannotSave, Skill::Careless];
}

/// From power-on to the kernel. `None`: nothing boots, or the power went.
pub fn run(bench: &Bench, fleet: &[Revision], skill: Skill) -> Option<Facts> {
    run_at(&Door::new(bench, None), fleet, skill)
}

/// The same, through these doors.
pub fn run_at(door: &Door, fleet: &[Revision], skill: Skill) -> Option<Facts> {
    let bench = &door.bench();
    if bench.with(|hardware| hardware.is_one()) {
        return taken::script(door, fleet, skill);
    }
    let mut work = vec![0; 2 * LAYOUT.size];
    let loaded = Uboot::new(bench.env(), LAYOUT, TEXT, &mut work).ok()?.load().ok();
    let env = loaded.map(|loaded| LoaderVars { vars: loaded.vars, bootcount: loaded.bootcount, bootlimit: BOOTLIMIT });
    let last = bench.with(|hardware| hardware.loader_last().and_then(store::parse_last));
    let loadable = |rev: &RevName| {
        of_name(fleet, *rev).any(|revision| {
            let mut names = ["pv-kernel.img", "pv-initrd.img"].into_iter().zip(revision.assets);
            bench.with(|hardware| names.all(|(name, id)| hardware.loader_file(*rev, name) == Some(content(id))))
        })
    };
    let count = |count| match skill {
        Skill::Counts => save(door, count),
        Skill::CannotSave => false,
        Skill::Careless => true,
    };
    let facts = boot::loader(env, count, loadable, last);
    facts.filter(|_| !bench.with(|hardware| hardware.dead))
}

/// `saveenv` with another boot counter, and `env load`: whether it is there then.
fn save(door: &Door, count: u32) -> bool {
    let mut region = door.env();
    let mut copies = [vec![0u8; LAYOUT.size], vec![0u8; LAYOUT.size]];
    for (copy, offset) in copies.iter_mut().zip(OFFSETS) {
        if region.read_at(offset, copy).is_err() {
            return false;
        }
    }
    let flags = [flags_of(&copies[0]), flags_of(&copies[1])];
    let Some(active) = LAYOUT.select(flags) else { return false };
    let mut data = vec![];
    for entry in Entries::of(&copies[active][HEADER..]).filter(|entry| split(entry).0 != b"bootcount") {
        data.extend_from_slice(entry);
        data.push(0);
    }
    data.extend_from_slice(format!("bootcount={count}\0").as_bytes());
    data.resize(LAYOUT.size - HEADER, 0);
    let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
    copy.push(flags[active].unwrap_or(0).wrapping_add(1));
    copy.extend_from_slice(&data);
    let offset = OFFSETS[1 - active];
    // The loader's drivers write through.
    region.step(Row::LoaderCounts);
    if region.write_at(offset, &copy).is_err() || region.sync().is_err() {
        return false;
    }
    region.drop_cache();
    let mut back = vec![0u8; LAYOUT.size];
    region.read_at(offset, &mut back).is_ok() && back == copy
}
