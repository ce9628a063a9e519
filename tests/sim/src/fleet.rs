//! The revisions that the simulation knows: their states, the content of their objects, and how they behave.

use runtime::id::{ObjectId, RevName};
use std::sync::OnceLock;

/// How a revision behaves when it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quality {
    /// Meets its goals.
    Good,
    /// Its container never reports that it is ready.
    NeverReady,
    /// Its container ends at once, for ever.
    Exits,
    /// Its kernel never reaches our first instruction.
    KernelPanics,
    /// Our own part of it ends as soon as it runs.
    InitPanics,
    /// Meets its goals in place, and never after a boot.
    OnlyWarm,
    /// Meets its goals while it is on trial; in every boot after that its container ends at once.
    Breaks,
    /// As `Breaks`, but the second restart helps.
    Recovers,
    /// It is the original's: nothing of ours runs.
    Original,
}

impl Quality {
    /// All of them.
    pub const ALL: [Quality; 9] = [
        Quality::Good,
        Quality::NeverReady,
        Quality::Exits,
        Quality::KernelPanics,
        Quality::InitPanics,
        Quality::OnlyWarm,
        Quality::Breaks,
        Quality::Recovers,
        Quality::Original,
    ];
}

/// One revision.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its name.
    pub rev: RevName,
    /// How it behaves.
    pub quality: Quality,
    /// Its state JSON.
    pub state: String,
    /// Its objects.
    pub objects: Vec<ObjectId>,
    /// Its kernel and initramfs.
    pub assets: [ObjectId; 2],
}

/// A name of the simulation.
pub fn rev(name: &str) -> RevName {
    RevName::parse(name).expect("a valid name")
}

/// All that ever had this name, the newest last: a local revision may be replaced by another one of its name.
pub fn of_name(fleet: &[Revision], rev: RevName) -> impl DoubleEndedIterator<Item = &Revision> {
    fleet.iter().filter(move |revision| revision.rev == rev)
}

/// How what has this name behaves.
pub fn quality(fleet: &[Revision], rev: RevName) -> Quality {
    of_name(fleet, rev).next_back().map_or(Quality::Good, |revision| revision.quality)
}

/// What an object holds: a container's configuration, or bytes of two sectors that tell, each, which object and which sector
/// of it they are.
pub fn content(id: ObjectId) -> &'static [u8] {
    static IMAGES: [[OnceLock<Vec<u8>>; 256]; 5] = [const { [const { OnceLock::new() }; 256] }; 5];
    let [kind, version, ..] = id.0;
    match kind {
        CONF => b"lxc.uts.name = web\n",
        _ => IMAGES[usize::from(kind)][usize::from(version)]
            .get_or_init(|| (0..1024u32).map(|at| [kind, version, (at / 64) as u8, 0x5a][at as usize % 4]).collect()),
    }
}

const KERNEL: u8 = 1;
const INITRD: u8 = 2;
const CONF: u8 = 3;
const ROOT: u8 = 4;

fn object(kind: u8, version: u8) -> ObjectId {
    let mut id = [0x5a; 32];
    id[0] = kind;
    id[1] = version;
    ObjectId(id)
}

impl Revision {
    /// `base`: version of kernel and initramfs; `image`: version of the container's root image.
    pub fn new(name: &str, quality: Quality, base: u8, image: u8) -> Self {
        let assets = [object(KERNEL, base), object(INITRD, base)];
        let (conf, root) = (object(CONF, 0), object(ROOT, image));
        let state = [
            r##"{"#spec":"pantavisor-service-system@1""##.to_string(),
            format!(r#""bsp/initrd":"{}","bsp/kernel":"{}""#, assets[1], assets[0]),
            r#""bsp/run.json":{"initrd":"initrd","linux":"kernel","switchback.factory-reset":true}"#.to_string(),
            r#""groups.json":[{"name":"app","restart_policy":"container","status_goal":"READY","timeout":30}]"#.into(),
            format!(r#""web/lxc.container.conf":"{conf}","web/root.squashfs":"{root}""#),
            concat!(
                r#""web/run.json":{"config":"lxc.container.conf","group":"app","name":"web","#,
                r#""root-volume":"root.squashfs","type":"lxc"}}"#
            )
            .to_string(),
        ]
        .join(",");
        let objects = vec![assets[0], assets[1], conf, root];
        Self { rev: rev(name), quality, state, objects, assets }
    }

    /// The revision that a device of the original came with: it does not know our factory reset.
    pub fn of_original() -> Self {
        let plain = Self::new("0", Quality::Original, 0, 0);
        Self { state: plain.state.replace(r#","switchback.factory-reset":true"#, ""), ..plain }
    }

    /// Files of its folder, and what each must hold.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let [kernel, initrd, conf, root] = [0, 1, 2, 3].map(|index| self.objects[index]);
        [
            ("bsp/kernel", content(kernel)),
            ("bsp/initrd", content(initrd)),
            ("web/lxc.container.conf", content(conf)),
            ("web/root.squashfs", content(root)),
            (".pvr/json", self.state.as_bytes()),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_sector_of_an_object_is_one_of_another() {
        let objects =
            [KERNEL, INITRD, ROOT].into_iter().flat_map(|kind| (0..=255).map(move |version| object(kind, version)));
        let sectors: Vec<&[u8]> = objects.flat_map(|id| content(id).chunks(512)).collect();
        assert_eq!(sectors.iter().collect::<BTreeSet<_>>().len(), sectors.len());
    }
}
