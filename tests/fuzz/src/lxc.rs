//! `lxc.container.conf`.
//!
//! Beyond "no panic": what is accepted stays inside the container's root, and can be walked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::{
    limits::INIT_ARGS_MAX,
    lxc::{Config, Item, MountKind, Namespaces},
    state::is_plain_path,
};

fuzz_target!(|text: &[u8]| {
    match Config::parse(text) {
        Ok(config) => {
            assert!((1..=INIT_ARGS_MAX).contains(&config.init.words().count()));
            assert!(config.summary.namespaces.contains(Namespaces::MOUNT));
            assert!((1..=64).contains(&config.summary.halt_signal));
            if let Some(rootfs) = config.rootfs {
                assert!(rootfs.lowers().all(|layer| !layer.is_empty()));
            }
            for item in config.items() {
                if let Item::Mount(mount) = item {
                    assert!(is_plain_path(mount.target));
                    // Of a new file system the source is a mere label, as for the kernel.
                    let bound = matches!(mount.kind, MountKind::Bind | MountKind::RecursiveBind);
                    assert!(!bound || !mount.source.split('/').any(|part| part == ".."));
                    let _ = mount.parameters().count();
                }
            }
        }
        Err(refusal) => assert!(refusal.at as usize <= text.len()),
    }
});
