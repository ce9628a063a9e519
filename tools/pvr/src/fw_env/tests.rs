//! Both texts for every kind of medium; the YAML against the keys that libubootenv documents.

use super::*;
use boards::Flash;

fn board(medium: Medium) -> &'static Board {
    Box::leak(Box::new(Board { env: Env::Uboot { medium, size: 0x4000 }, ..*boards::find("qemu-arm64").unwrap() }))
}

fn flash(offset: u64) -> Flash {
    Flash { device: "/dev/mtd1", offset, erase: 0x1000 }
}

#[test]
fn lines_for_the_device() {
    let lines = |medium| {
        let text = Config::of_device(board(medium), None).unwrap().lines();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let raw = Medium::Raw(Copies::Redundant([0x10_0000, -0x8000], Scheme::Incremental));
    assert_eq!(lines(raw), ["/dev/vda1 0x100000 0x4000", "/dev/vda1 -0x8000 0x4000"]);
    assert_eq!(lines(Medium::Raw(Copies::Single(0x400))), ["/dev/vda1 0x400 0x4000"]);
    let mtd = Medium::Mtd(Copies::Redundant([flash(0), flash(0x4000)], Scheme::Boolean));
    assert_eq!(lines(mtd), ["/dev/mtd1 0x0 0x4000 0x1000 0x4", "/dev/mtd1 0x4000 0x4000 0x1000 0x4"]);
    let volumes = Copies::Redundant(["env", "env2"], Scheme::Incremental);
    assert_eq!(
        lines(Medium::Ubi { device: "/dev/ubi0", volumes }),
        ["/dev/ubi0:env 0x0 0x4000", "/dev/ubi0:env2 0x0 0x4000"]
    );
}

#[test]
fn what_cannot_be_told_is_refused() {
    let fat = Medium::Fat(Copies::Single("uboot.env"));
    assert!(Config::of_device(board(fat), None).unwrap_err().to_string().contains("when its image is made"));
    let from_end = Config::of_device(board(Medium::Raw(Copies::Single(-0x4000))), None).unwrap();
    assert!(from_end.yaml().unwrap_err().to_string().contains("from the end"));
    let boolean = Medium::Mtd(Copies::Redundant([flash(0), flash(0x4000)], Scheme::Boolean));
    assert!(Config::of_image(board(boolean), Path::new("x")).unwrap_err().to_string().contains("in flash"));
    let ubi = Medium::Ubi { device: "/dev/ubi0", volumes: Copies::Single("env") };
    assert!(Config::of_image(board(ubi), Path::new("x")).unwrap_err().to_string().contains("UBI"));
    assert!(Config::of_image(board(fat), Path::new("a b")).unwrap_err().to_string().contains("blanks"));
}

#[test]
fn the_yaml_is_what_libubootenv_documents() {
    let raw = Medium::Raw(Copies::Redundant([0x10_0000, 0x50_0000], Scheme::Incremental));
    let mtd = Medium::Mtd(Copies::Redundant([flash(0), flash(0x4000)], Scheme::Boolean));
    let ubi = Medium::Ubi { device: "/dev/ubi0", volumes: Copies::Single("env") };
    for (medium, copies) in [(raw, 2), (mtd, 2), (ubi, 1)] {
        let text = Config::of_device(board(medium), None).unwrap().yaml().unwrap();
        assert_eq!(schema(&text), Ok(copies), "{text}");
    }
    let good = Config::of_device(board(raw), None).unwrap().yaml().unwrap();
    for (from, to, said) in [
        ("  size: 0x4000\n", "", "size"),
        ("  size: 0x4000", "  size: 16K", "number"),
        ("offset:", "ofset:", "ofset"),
        ("      offset: 0x100000\n", "", "offset"),
        ("    - path: /dev/vda1\n      offset", "    - offset", "path"),
        ("  lockfile:", "\tlockfile:", "indent"),
        ("  size: 0x4000", "  size: 0x4000\n  size: 0x4000", "twice"),
        ("uboot:", "uboot: x", "namespace"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        assert!(schema(&text).unwrap_err().contains(said), "{text}");
    }
}

/// The documented schema: one namespace; in it `size` and `devices`, perhaps `lockfile` and `writelist`; one or two
/// devices with `path` and `offset`, perhaps `sectorsize`, `unlock`, `disablelock`. The number of devices.
fn schema(text: &str) -> std::result::Result<usize, String> {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines.next().is_none_or(|line| !line.ends_with(':') || line.contains([' ', '\t'])) {
        return Err("a namespace comes first".into());
    }
    let (mut top, mut devices): (Vec<&str>, Vec<Vec<&str>>) = (vec![], vec![]);
    for line in lines {
        let (depth, rest) = [("    - ", 2), ("      ", 3), ("  ", 1)]
            .into_iter()
            .find_map(|(indent, depth)| line.strip_prefix(indent).map(|rest| (depth, rest)))
            .filter(|(_, rest)| !rest.starts_with([' ', '\t']))
            .ok_or_else(|| format!("indent: {line:?}"))?;
        let (key, value) = rest.split_once(':').ok_or_else(|| format!("no key: {line:?}"))?;
        if depth == 2 {
            devices.push(vec![]);
        }
        let seen = if depth == 1 { &mut top } else { devices.last_mut().ok_or("a device without a list")? };
        if seen.contains(&key) {
            return Err(format!("{key} twice"));
        }
        seen.push(key);
        check(depth > 1, key, value.trim())?;
    }
    let lacks = |seen: &[&str], keys: [&str; 2]| keys.into_iter().find(|key| !seen.contains(key)).map(str::to_owned);
    let missing = lacks(&top, ["size", "devices"]).or(devices.iter().find_map(|d| lacks(d, ["path", "offset"])));
    match (missing, devices.len()) {
        (Some(key), _) => Err(format!("{key} is missing")),
        (None, count @ 1..=2) => Ok(count),
        (None, count) => Err(format!("{count} devices")),
    }
}

fn check(of_device: bool, key: &str, value: &str) -> std::result::Result<(), String> {
    let number = || value.strip_prefix("0x").is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok());
    let (valid, what) = match (of_device, key) {
        (false, "size") | (true, "offset" | "sectorsize") => (number(), "not a number"),
        (false, "lockfile") | (true, "path") => (value.starts_with('/'), "not a path"),
        (false, "devices") => (value.is_empty(), "not a list"),
        (false, "writelist") => (value.starts_with('['), "not a list"),
        (true, "unlock" | "disablelock") => (matches!(value, "yes" | "no"), "neither yes nor no"),
        _ => return Err(format!("{key} is not a key that libubootenv knows")),
    };
    if valid { Ok(()) } else { Err(format!("{key}: {what}")) }
}
