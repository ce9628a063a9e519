//! Links a release of `switchback` without tables for unwinding (no-unwind.ld).
//!
//! Only for the targets of musl, which are devices: there nothing of the C library reads the tables either. What is built for
//! tests of this machine unwinds, and keeps them.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=no-unwind.ld");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_ENV", "musl") {
        return;
    }
    // arm64 is linked by the linker itself (.cargo/config.toml), x86-64 through a compiler.
    let through = if is("CARGO_CFG_TARGET_ARCH", "aarch64") { "" } else { "-Wl," };
    let script = format!("{}/no-unwind.ld", var("CARGO_MANIFEST_DIR").expect("cargo says where the package is"));
    println!("cargo::rustc-link-arg-bins={through}-T{script}");
    println!("cargo::rustc-link-arg-bins={through}--no-eh-frame-hdr");
}
