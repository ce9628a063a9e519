//! A device that was taken over from the original: one file system for everything, `uboot.txt` in it, the loader's mark, the
//! original's boot script, and what the original itself does when its loader goes back to it.
//!
//! Invariants: until our text is in force the original's is, and what it names is what must boot. The script is a model of
//! `tests/guest/original.env`, which the real loader runs: the text decides, the mark counts to one. It boots nothing without
//! a text, and nothing but what the text names.
//!
//! What it does not do: the power does not go while the original runs. That it writes its text by its own rules is its affair;
//! here it is written anew and whole, in a form that we have to take over again.

use crate::{
    device::{Buffers, Voyage, factory, first},
    fleet::{Quality, Revision, content, of_name},
    frozen::Frozen,
    laws::{Broken, Laws, in_force},
    loader::Skill,
    medium::{Bench, Hardware, MARK_AT, SECTOR},
    saboteur::Door,
    user::{ATTEMPTS_MAX, User},
};
use boards::env::uboot_txt::{Span, UbootTxt};
use runtime::{
    boot::Facts,
    fault::Code,
    id::RevName,
    limits,
    port::{BootEnv, BootVars, Disk, Name, Region, Stage, Volume},
    protocol::Row,
    store::taken::adopt,
};

/// Where a device comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A factory image of ours: a boot volume, and a storage.
    Factory,
    /// A storage of the original, with our revision as the one that it commits to: taken over at the first start.
    AsItIs,
    /// A storage of the original, which has installed two revisions of ours, numbers 1 and 2 of the fleet, and armed the
    /// first: taken over in its trial.
    ByUpdate,
}

impl Origin {
    /// All of them.
    pub const ALL: [Origin; 3] = [Origin::Factory, Origin::AsItIs, Origin::ByUpdate];

    /// The revisions that a device of this origin has.
    pub fn fleet(self) -> Vec<Revision> {
        match self {
            Origin::Factory | Origin::AsItIs => vec![first()],
            Origin::ByUpdate => {
                vec![Revision::of_original(), armed(Quality::Good), left(Quality::Good)]
            }
        }
    }

    /// What its loader finds at first.
    pub fn vars(self) -> BootVars {
        let candidate = (self == Origin::ByUpdate).then(|| armed(Quality::Good).rev);
        BootVars { committed: RevName::factory(), candidate, previous: None }
    }

    /// It as it comes, before our first start.
    pub fn hardware(self, buffers: &mut Buffers) -> Hardware {
        if self == Origin::Factory {
            return factory(&first(), buffers);
        }
        let bench = Bench::new(Hardware::one());
        for revision in self.fleet() {
            install(&bench, &revision, revision.rev != left(Quality::Good).rev);
        }
        bench.with(|hardware| {
            hardware.original_writes(&text(&self.vars()));
            hardware.clone()
        })
    }
}

/// The revision of ours that the original has armed.
pub fn armed(quality: Quality) -> Revision {
    Revision::new("locals/armed", quality, 101, 101)
}

/// One that it has installed besides, and never armed.
pub fn left(quality: Quality) -> Revision {
    Revision::new("locals/left", quality, 102, 102)
}

/// As the original leaves a revision: names of its objects, state; and if it was ever armed, boot assets under the names by
/// which its script finds them.
fn install(bench: &Bench, revision: &Revision, was_armed: bool) {
    let mut disk = bench.clone();
    let file = |key| Name::File(Volume::Storage, Stage::Live, revision.rev, key);
    let done = |done: Result<(), Code>| done.expect("an empty volume");
    let keys = ["bsp/kernel", "bsp/initrd", "web/lxc.container.conf", "web/root.squashfs"];
    for (key, id) in keys.into_iter().zip(&revision.objects) {
        let object = Name::Object(Volume::Storage, *id);
        if disk.exists(object) == Ok(false) {
            done(bench.arrive(*id, content(*id)));
            done(disk.rename(Name::Incoming(Volume::Storage, *id), object));
        }
        done(disk.link(object, file(key)));
    }
    for (key, id) in [".pv/pv-kernel.img", ".pv/pv-initrd.img"].into_iter().zip(revision.assets).filter(|_| was_armed) {
        done(disk.link(Name::Object(Volume::Storage, id), file(key)));
    }
    for key in ["bsp/run.json", "groups.json", "web/run.json"] {
        done(disk.write(file(key), b"{}"));
    }
    done(disk.write(file(".pvr/json"), revision.state.as_bytes()));
}

/// The original's text of a decision.
fn text(vars: &BootVars) -> Vec<u8> {
    let mut text = format!("pv_rev={}\0", vars.committed);
    if let Some(candidate) = vars.candidate {
        text += &format!("pv_try={candidate}\0");
    }
    (text + "\0").into_bytes()
}

/// The codec over the text that stands there, whosever it is.
pub(super) fn codec<R: Region>(bench: &Bench, region: R) -> UbootTxt<R> {
    let text = bench.clone().size(Name::LoaderText(Stage::Live));
    let span = Span { at: 0, length: text.unwrap_or_default() };
    let mark = Span { at: MARK_AT, length: SECTOR as u64 };
    UbootTxt::new(region, span, Some(mark)).expect("both begin with a sector")
}

/// What a text decides.
pub(super) fn decision(text: &[u8]) -> Option<BootVars> {
    let span = Span { at: 0, length: text.len() as u64 };
    UbootTxt::new(Frozen(text), span, None).ok()?.load().ok().map(|loaded| loaded.vars)
}

/// The first thing of ours that runs.
pub(super) fn take_over(door: &Door) -> Result<bool, Code> {
    let mut room = Box::new([0; limits::LOADER_TEXT_MAX]);
    let done = adopt(&mut door.clone(), &mut room, boards::env::uboot_txt::adopt);
    door.over();
    done
}

/// The original's boot script, from power-on to the kernel.
pub(super) fn script(door: &Door, fleet: &[Revision], skill: Skill) -> Option<Facts> {
    let bench = door.bench();
    let vars = bench.with(|hardware| in_force(hardware))?;
    let marked = bench.with(|hardware| mark(hardware.env.durable()));
    let mut region = door.env();
    let mut keep = |mark: &str| {
        if skill == Skill::Counts {
            let mut sector = [0; SECTOR];
            sector[..mark.len()].copy_from_slice(mark.as_bytes());
            region.step(Row::LoaderCounts);
            let _ = region.write_at(MARK_AT, &sector).and_then(|()| region.sync()); // the script does not look
        }
    };
    let booted = match vars.candidate {
        None => vars.committed,
        Some(candidate) if marked == Some(candidate) => {
            keep("pv_trying=\n");
            vars.committed
        }
        Some(candidate) => {
            keep(&format!("pv_trying={candidate}\n"));
            candidate
        }
    };
    let loadable = of_name(fleet, booted).any(|revision| {
        let mut names = ["pv-kernel.img", "pv-initrd.img"].into_iter().zip(revision.assets);
        bench.with(|hardware| names.all(|(name, id)| hardware.loader_file(booted, name) == Some(content(id))))
    });
    let facts = Facts {
        booted: Some(booted),
        candidate: vars.candidate,
        bootcount: 0,
        canary: true,
        script: 0,
        watchdog: false,
    };
    (loadable && !bench.with(|hardware| hardware.dead)).then_some(facts)
}

/// The revision that the loader has marked as tried.
fn mark(sector: &[u8]) -> Option<RevName> {
    let line = sector.split(|byte| matches!(byte, 0 | b'\n')).next()?;
    RevName::parse(std::str::from_utf8(line.strip_prefix(b"pv_trying=")?).ok()?).ok()
}

/// The original runs: it gives up what its loader did not boot, and its user has it arm our revision once more, and again.
/// Whether the device is at rest.
pub(super) fn original_runs(bench: &Bench, voyage: &Voyage, laws: &mut Laws, user: &mut User) -> Result<bool, Broken> {
    let before = bench.with(|hardware| in_force(hardware)).expect("it booted by it");
    user.attempts += 1;
    let again = user.at == 0 && user.attempts < ATTEMPTS_MAX;
    let vars = BootVars { candidate: again.then_some(voyage.fleet[1].rev), ..before };
    if again || vars != before {
        bench.with(|hardware| hardware.original_writes(&text(&vars)));
        laws.two.asked(vars);
        laws.two.stored(Ok(()));
    }
    if again {
        laws.three.armed();
        return Ok(false);
    }
    user.give_up();
    Ok(true)
}
