//! The host's own tool against the endpoint over TLS: paired by the code, pinned, and turned away.
//!
//! Runs `tools/target/debug/pvr`, which must have been built: `cargo build --manifest-path tools/Cargo.toml -p pvr`.

use super::*;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// `pvr` with settings of its own; its exit code and what it said.
fn pvr(settings: &Path, args: &[&str], input: &str) -> (i32, String) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/target/debug/pvr");
    let mut child = Command::new(program)
        .args(args)
        .env("PVR_CONFIG_DIR", settings)
        .env_remove("PVR_ACCESSTOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; build it first"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn settings(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("endpoint-{}-{name}-settings", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

const STATE: &str = r##"{"#spec":"pantavisor-service-system@1"}"##;

#[test]
fn a_device_is_paired_by_its_code_and_known_by_its_certificate() {
    let (address, seen, home) = device_for("pvr", Access::Paired, |_| said(200, STATE));
    let (url, folder) = (format!("http://{address}/cgi-bin"), settings("pvr"));
    let (code, text) = pvr(&folder, &["clone", &url, folder.join("a").to_str().unwrap()], "");
    assert!(code != 0 && text.contains("SB1521"), "a stranger in plain HTTP: {text}");
    let shown = member(&visit(&home, "POST /endpoint/pair").1, "code");

    // Somebody on the way: another device, with another certificate. It does not even learn the secret.
    let (other, _, stranger) = device_for("pvr-other", Access::Paired, |_| said(200, STATE));
    visit(&stranger, "POST /endpoint/pair");
    let (code, text) = pvr(&folder, &["device", "pair", &other.to_string()], &shown);
    assert!(code == 4 && text.contains("certificate is another one"), "{code} {text}");

    let wrong = format!("{}-0000-0000", &shown[..19]);
    let (code, text) = pvr(&folder, &["device", "pair", &address.to_string()], &wrong);
    assert!(code == 5 && text.contains("SB1519"), "{code} {text}");
    let (code, text) = pvr(&folder, &["device", "pair", &address.to_string(), "--name", "bench"], &shown);
    assert!(code == 0 && text.starts_with("Paired with switchback-"), "{code} {text}");
    assert!(visit(&home, "GET /endpoint").1.contains("\"name\":\"bench\""));
    let (code, text) = pvr(&folder, &["device", "pair", &address.to_string()], &shown);
    assert!(code == 5 && text.contains("SB1518"), "once: {code} {text}");

    let target = folder.join("clone");
    let (code, text) = pvr(&folder, &["clone", &url, target.to_str().unwrap()], "");
    assert_eq!(code, 0, "{text}");
    assert!(first_lines(&seen).contains(&"GET /steps/current HTTP/1.1".to_owned()));
    assert!(fs::read_to_string(target.join(".pvr/json")).unwrap().contains("pantavisor-service-system@1"));

    // Another device at the paired address: nothing is said to it.
    let file = folder.join("devices.json");
    let moved = fs::read_to_string(&file).unwrap().replace(&address.to_string(), &other.to_string());
    fs::write(&file, moved).unwrap();
    let (code, text) = pvr(&folder, &["clone", &format!("http://{other}"), folder.join("b").to_str().unwrap()], "");
    assert!(code == 4 && text.contains("certificate is another one"), "{code} {text}");

    assert_eq!(visit(&home, "DELETE /endpoint/tokens/all").0, 200);
    let back = fs::read_to_string(&file).unwrap().replace(&other.to_string(), &address.to_string());
    fs::write(&file, back).unwrap();
    let (code, text) = pvr(&folder, &["clone", &url, folder.join("c").to_str().unwrap()], "");
    assert!(code == 5 && text.contains("SB1517"), "taken back: {code} {text}");
    let _ = fs::remove_dir_all(&folder);
}

#[test]
fn who_the_device_is_outlives_it() {
    let (_, _, home) = device_for("identity", Access::Paired, |_| said(200, "{}"));
    let first = visit(&home, "GET /endpoint").1;
    let (mut endpoint, _, _, again) = endpoint("identity-again", Access::Paired);
    assert!(endpoint.house.asks(Instant::now()));
    endpoint.house.recalled(Instant::now(), Ok(&home.kept.lock().unwrap()));
    let address = member(&first, "address");
    assert_eq!(endpoint.house.write(Instant::now(), &address), first);
    drop(again);
}

#[test]
fn half_a_handshake_and_garbage_in_tls_cost_the_sender_its_connection() {
    let (address, seen, _home) = device_for("tls-garbage", Access::Paired, |_| said(200, "{}"));
    for garbage in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff", &[0x16; 4000]] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(garbage).unwrap();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            assert!(!bytes.starts_with(b"HTTP/1.1 200"));
        }
    }
    assert_eq!(first_lines(&seen), [""; 0]);
    assert_eq!(say(address, "GET /state", "", "").0, 403, "the next one is served");
}
