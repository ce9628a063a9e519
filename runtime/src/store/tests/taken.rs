//! A device that was taken over: what its loader finds in a revision's own folder, and its text.

use super::*;
use crate::store::taken::{self, TEXT_SIZE};

fn device() -> Device {
    let mut disk = Memory::new();
    disk.reads = Volume::Storage;
    Device::with(disk)
}

/// What the loader finds of a revision.
fn finds(device: &mut Device, revision: &Revision) -> bool {
    let is_right = |(name, id)| device.bytes(file(revision.rev, &format!(".pv/{name}"))) == Some(content(id));
    revision.assets().into_iter().all(is_right)
}

#[test]
fn a_revision_that_we_stage_has_its_boot_assets_and_nothing_is_done_again() {
    let (mut device, one) = (device(), new_one());
    device.stage(&one).unwrap();
    assert!(finds(&mut device, &one));
    let [kernel, initrd, ..] = one.objects;
    let list = format!("pv-kernel.img {kernel}\npv-initrd.img {initrd}\n");
    assert_eq!(device.text(file(one.rev, ".pv/assets")), Some(list));
    assert_eq!(device.changes(|device| device.prepare(&one)), (Ok(()), vec![]));
    assert_eq!(journal::load(&mut device.journal), Ok(Some(armed(one.rev))));
    assert_eq!(device.objects(Dir::Objects(Volume::Boot)), [], "there is no other volume");
}

#[test]
fn a_fit_image_that_the_original_would_boot_is_refused() {
    let (mut device, one) = (device(), new_one());
    let key = "bsp/pantavisor.fit";
    device.arrive_all(&one);
    let with_fit = one.state.replacen('{', &format!(r#"{{"{key}":"{}","#, one.objects[0]), 1);
    let refusal = device.stage_as(one.rev, &with_fit, "", &[]).unwrap_err();
    assert_eq!((refusal.code, refusal.key.as_str()), (Code::BspInvalid, key));
    assert_eq!(device.trails(Volume::Storage, Stage::Live), ["0"]);
    // One that the original has left is not armed.
    device.stage(&one).unwrap();
    device.disk.write(file(one.rev, ".pvr/json"), with_fit.as_bytes()).unwrap();
    let (refused, changes) = device.changes(|device| device.prepare(&one));
    assert_eq!((refused, changes), (Err(Code::BspInvalid), vec![]));
}

#[test]
fn boot_assets_that_are_not_ours_or_not_all_there_are_named_anew() {
    let one = new_one();
    let change = |what: &str, device: &mut Device| {
        let disk = &mut device.disk;
        match what {
            "the original's" => disk.remove(file(one.rev, ".pv/assets")).unwrap(),
            "of another state" => disk.write(file(one.rev, ".pv/assets"), b"pv-kernel.img 1\n").unwrap(),
            "without one" => disk.remove(file(one.rev, ".pv/pv-initrd.img")).unwrap(),
            _ => disk.write(file(one.rev, ".pv/.next/pv-kernel.img"), b"half").unwrap(),
        }
        if what != "without one" {
            disk.write(file(one.rev, ".pv/pv-kernel.img"), b"another").unwrap();
        }
    };
    for what in ["the original's", "of another state", "without one"] {
        let mut device = device();
        device.stage(&one).unwrap();
        change(what, &mut device);
        change("cut before", &mut device);
        assert_eq!(device.prepare(&one), Ok(()), "{what}");
        assert!(finds(&mut device, &one), "{what}");
        assert!(!device.has(file(one.rev, ".pv/.next")), "{what}");
        assert_eq!(device.changes(|device| device.prepare(&one)), (Ok(()), vec![]), "{what}: it is done");
    }
}

#[test]
fn a_revision_for_which_the_folder_might_grow_is_refused_until_others_are_collected() {
    let (mut device, one) = (device(), new_one());
    let name = |number: usize| RevName::parse(&format!("locals/{number:x>64}")).unwrap();
    device.arrive_all(&one);
    let stage = |device: &mut Device, number| device.stage_as(name(number), &one.state, "", &[]);
    let refused = (0..100).find_map(|number| Some((number, stage(&mut device, number).err()?)));
    let (count, refusal) = refused.unwrap();
    assert_eq!((count, refusal), (28, Refusal::key(Code::TrailsFull, name(28).as_str())));
    let (again, changes) = device.changes(|device| stage(device, 28));
    assert_eq!((again, changes), (Err(refusal), vec![]));
    assert_eq!(stage(&mut device, 3), Ok(()), "it is there already");
    // Collecting makes no two names at a time either.
    let (collected, changes) = device.changes(|device| device.collect(&[name(3)]));
    assert!(collected.is_ok());
    let is_out = |change: &String| change.starts_with("rename") && change.contains("Dead");
    let outs: Vec<usize> = (0..changes.len()).filter(|at| is_out(&changes[*at])).collect();
    assert_eq!(outs.len(), 27);
    assert!(outs.iter().all(|at| changes[at + 1].starts_with("remove Trail(Storage, Dead")), "{changes:#?}");
    device.arrive_all(&one);
    assert_eq!(stage(&mut device, 28), Ok(()));
    // Where the loader has a file system of its own, no name is refused.
    let mut device = Device::new();
    device.arrive_all(&one);
    (0..50).for_each(|number| assert_eq!(stage(&mut device, number), Ok(())));
}

#[test]
fn there_is_one_volume_to_sweep_and_to_collect() {
    let (mut device, one) = (device(), new_one());
    device.stage(&one).unwrap();
    device.disk.write(Name::Incoming(Volume::Storage, one.objects[0]), b"half").unwrap();
    recover(&mut device.disk).unwrap();
    assert_eq!(device.objects(Dir::Incoming(Volume::Storage)), []);
    assert_eq!(device.collect(&[]), Ok(3 * SIZE as u64));
    assert_eq!(device.trails(Volume::Storage, Stage::Live), ["0"]);
    assert!(finds(&mut device, &Revision::first()));
}

#[test]
fn a_text_of_another_size_changes_places_with_one_of_ours() {
    let [live, new] = [Stage::Live, Stage::New].map(Name::LoaderText);
    let mut device = device();
    let adopt = |device: &mut Device, sector: Result<[u8; 512], Code>| {
        let mut text = [0xff; limits::LOADER_TEXT_MAX];
        let mut seen = vec![];
        let done = taken::adopt(&mut device.disk, &mut text, |old| {
            seen = old.to_vec();
            sector
        });
        (done, seen)
    };
    assert_eq!(adopt(&mut device, Ok([7; 512])), (Err(Code::EnvInvalid), vec![]), "there is none");
    device.disk.write(live, b"pv_rev=1").unwrap();
    let (refused, changes) = device.changes(|device| adopt(device, Err(Code::EnvFull)));
    assert_eq!((refused, changes), ((Err(Code::EnvFull), b"pv_rev=1".to_vec()), vec![]));
    assert_eq!(adopt(&mut device, Ok([7; 512])), (Ok(true), b"pv_rev=1".to_vec()));
    let ours = [[7; 512].to_vec(), vec![0; TEXT_SIZE - 512]].concat();
    assert_eq!((device.bytes(live), device.has(new)), (Some(ours.clone()), false));
    let (again, changes) = device.changes(|device| adopt(device, Ok([8; 512])));
    assert_eq!((again, changes), ((Ok(false), vec![]), vec![]));
    // A cut left the one before: it goes.
    device.disk.write(new, b"pv_rev=1").unwrap();
    assert_eq!(adopt(&mut device, Ok([8; 512])), (Ok(false), vec![]));
    assert_eq!((device.bytes(live), device.has(new)), (Some(ours), false));
    device.disk.write(live, &vec![b'x'; limits::LOADER_TEXT_MAX + 1]).unwrap();
    assert_eq!(adopt(&mut device, Ok([7; 512])).0, Err(Code::EnvInvalid), "none of the original's is as large");
}
