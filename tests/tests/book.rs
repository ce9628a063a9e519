//! The book's tables are what the code says: a code or a bound that changes without its page fails here.
//!
//! `BLESS=1 cargo test -p tests --test book` writes the pages anew.

use runtime::{fault::Code, limits};
use std::{fmt::Write, path::Path};

fn page(name: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, want).expect("docs/ is writable");
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(have == want, "docs/{name} differs from the code: BLESS=1 cargo test -p tests --test book");
}

#[test]
fn every_code_is_listed() {
    let mut want = String::from(
        "# Codes\n\nEvery fault that a person or a program can see has one of these codes. A code never changes its meaning and is\nnever given again. `HTTP` is the status with which the control socket reports it.\n\n| code | HTTP | meaning |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        writeln!(want, "| {code} | {} | {} |", code.http(), code.text()).unwrap();
    }
    page("codes.md", &want);
}

#[test]
fn every_bound_is_listed() {
    let mut want = String::from(
        "# Limits\n\nEvery bound of the device. What exceeds one is refused with a code; `pvr` checks the same numbers before it posts,\nand `pvcontrol limits` prints them on the device.\n\n| name | value | unit |\n|---|---|---|\n",
    );
    for (name, value, unit) in limits::TABLE {
        writeln!(want, "| {name} | {value} | {unit} |").unwrap();
    }
    page("limits.md", &want);
}

#[test]
fn no_number_is_given_twice() {
    let mut numbers: Vec<u16> = Code::ALL.iter().map(|code| *code as u16).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(Code::ALL.iter().all(|code| Code::from_number(*code as u16) == Some(*code)));
}
