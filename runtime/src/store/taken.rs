//! A device that was taken over from the original: one file system for everything, which the loader reads too.
//!
//! The original's layout stays as it is: the loader's text is `boot/uboot.txt`, and a revision's boot assets are names in its
//! own folder, `trails/REV/.pv/pv-kernel.img` and so on, each one more name of its object. `boot/` also holds what has a
//! file system of its own elsewhere: the journal, and `last`. So there is one volume to sweep, to collect and to sync.
//!
//! Invariants
//! * The text is only ever replaced by changing places with another one, and both are whole, durable and visible to the
//!   loader by then; the one that was in force is removed when the loader sees the other. After that it is overwritten
//!   sector by sector and never again replaced: its blocks do not move.
//! * A revision that we stage has its boot assets before it has its name. In one that the original left they are named
//!   before it is armed; what the loader may be reading there changes places as the text does.
//! * What is not ours, and what we do not know, is not touched.
//!
//! Fault model: that of `port`. The loader reads the medium without the file system's journal, so what it sees of a folder
//! may be older than what is durable, and a file that lost its last name may hold anything.
//!
//! What it does not do: what the text says is the board's to know; the original's objects are not hashed here.

use super::{Scratch, are_there, asset_list, read_state};
use crate::{
    fault::{Code, Refusal},
    id::{ObjectId, RevName},
    journal::{self, Record},
    limits::LOADER_TEXT_MAX,
    port::{Disk, Name, Region, Stage, Volume},
    protocol::Row,
    state::{BootAssets, State},
};

/// Bytes of a text that we made.
pub const TEXT_SIZE: usize = 4096;

/// Names of boot assets that take the place of others soon.
const NEXT: &str = ".pv/.next";

/// Makes the loader's text one that can be overwritten in place; `compose` makes its first sector of what stands there.
/// Whether it was made anew. Doing it again is no error, and ends what a cut left. `EnvInvalid` without a text, and what
/// `compose` refuses: nothing has changed then.
pub fn adopt<D: Disk>(
    disk: &mut D,
    text: &mut [u8; LOADER_TEXT_MAX],
    compose: impl FnOnce(&[u8]) -> Result<[u8; 512], Code>,
) -> Result<bool, Code> {
    let [live, new] = [Stage::Live, Stage::New].map(Name::LoaderText);
    let length = disk.read(live, text).map_err(|code| match code {
        Code::RevisionUnknown | Code::StorageDamaged => Code::EnvInvalid, // none, or none of the original's
        other => other,
    })?;
    let is_ours = length == TEXT_SIZE;
    if !is_ours {
        let sector = compose(&text[..length])?;
        text[..512].copy_from_slice(&sector);
        text[512..TEXT_SIZE].fill(0);
        // 1. Content and name, then what the loader needs to find both.
        disk.step(Row::WriteText);
        disk.remove(new)?; // of a takeover that was cut, or a name that somebody else gave one of his files
        disk.write(new, &text[..TEXT_SIZE])?;
        disk.step(Row::SyncText);
        disk.sync_file(new)?;
        disk.step(Row::SyncView);
        disk.checkpoint(Volume::Boot).map_err(|_| Code::CheckpointFailed)?;
        // 2. Whichever of the two the loader finds under the name, it is whole.
        disk.step(Row::SwapTexts);
        disk.exchange(new, live)?;
    }
    if disk.exists(new)? {
        // 3. The one before goes when nobody finds it any more.
        disk.step(Row::SyncSwap);
        disk.checkpoint(Volume::Boot).map_err(|_| Code::CheckpointFailed)?;
        disk.step(Row::DropText);
        disk.remove(new)?;
    }
    Ok(!is_ours)
}

/// The boot assets of a revision: where the loader finds them in it, where they wait to take a place there, and their
/// objects.
pub(super) fn named(assets: &BootAssets) -> impl Iterator<Item = (&'static str, &'static str, ObjectId)> + use<> {
    let fdt = assets.fdt.map(|id| (".pv/pv-fdt.dtb", ".pv/.next/pv-fdt.dtb", id));
    let linux = (".pv/pv-kernel.img", ".pv/.next/pv-kernel.img", assets.linux);
    [linux, (".pv/pv-initrd.img", ".pv/.next/pv-initrd.img", assets.initrd)].into_iter().chain(fdt)
}

/// Names the boot assets in the folder of a revision that is being built; `held` knows where their objects are. A state
/// without any is not armed, and needs none.
pub(super) fn build<D: Disk>(
    disk: &mut D,
    rev: RevName,
    state: &State<'_>,
    held: impl Fn(&mut D, ObjectId) -> Result<Name<'static>, Code>,
) -> Result<(), Refusal> {
    refuse_fit(state)?;
    let Ok(assets) = state.boot_assets() else { return Ok(()) };
    let file = |key| Name::File(Volume::Storage, Stage::New, rev, key);
    for (key, _, id) in named(&assets) {
        let made = held(disk, id).and_then(|object| disk.link(object, file(key)));
        made.map_err(|code| Refusal::key(code, key))?;
    }
    Ok(disk.write(file(LIST), asset_list(&assets).as_str().as_bytes())?)
}

/// Makes a revision visible to the loader, with a record that is durable then too: `store::prepare` where the loader reads
/// storage.
pub(super) fn expose<D: Disk, J: Region>(
    disk: &mut D,
    journal: &mut J,
    rev: RevName,
    record: &Record,
    scratch: &mut Scratch<'_>,
) -> Result<(), Refusal> {
    let text = read_state(disk, rev, scratch.state)?;
    let state = State::read(text, scratch.spans)?;
    refuse_fit(&state)?;
    let assets = state.boot_assets()?;
    let file = |key| Name::File(Volume::Storage, Stage::Live, rev, key);
    let ready = is_named(disk, rev, &assets)?;
    if !ready {
        disk.step(Row::BuildAssets);
        disk.remove(file(NEXT))?;
        for (_, next, id) in named(&assets) {
            let linked = disk.link(Name::Object(Volume::Storage, id), file(next));
            linked.map_err(|code| Refusal::key(code, next))?;
        }
    }
    disk.step(Row::WriteIntent);
    journal::append(journal, record)?;
    disk.step(Row::SyncAssets);
    disk.sync_volume(Volume::Boot)?; // a folder of storage
    if !ready {
        // The loader may be reading this revision: what it is to find must be there before its name is.
        disk.step(Row::ShowAssets);
        disk.checkpoint(Volume::Boot).map_err(|_| Code::CheckpointFailed)?;
        disk.step(Row::NameAssets);
        for (key, next, _) in named(&assets) {
            if disk.exists(file(key))? {
                disk.exchange(file(next), file(key))?
            } else {
                disk.rename(file(next), file(key))?
            }
        }
    }
    disk.step(Row::Checkpoint);
    disk.checkpoint(Volume::Boot).map_err(|_| Code::CheckpointFailed)?;
    disk.step(Row::DropOldAssets);
    if !ready {
        // Only spares doing it again: not before it is done, not made durable, and no error.
        let _ = disk.write(file(NEXT_LIST), asset_list(&assets).as_str().as_bytes());
        let _ = disk.rename(file(NEXT_LIST), file(LIST));
    }
    let _ = disk.remove(file(NEXT)); // what is left of it is removed by whoever prepares or collects the revision
    Ok(())
}

/// The original's script boots a FIT image before anything else if there is one of this name, whatever `run.json` says.
fn refuse_fit(state: &State<'_>) -> Result<(), Refusal> {
    const FIT: &str = "bsp/pantavisor.fit";
    if state.get(FIT).is_some() { Err(Refusal::key(Code::BspInvalid, FIT)) } else { Ok(()) }
}

/// Which objects the boot assets of a revision are.
const LIST: &str = ".pv/assets";
const NEXT_LIST: &str = ".pv/.next/assets";

/// Whether we have named these assets in the revision.
fn is_named<D: Disk>(disk: &mut D, rev: RevName, assets: &BootAssets) -> Result<bool, Code> {
    let file = |key| Name::File(Volume::Storage, Stage::Live, rev, key);
    are_there(disk, assets, file(LIST), named(assets).map(|(key, ..)| file(key)))
}
