//! The emulator is started for real, with a loader that does nothing; its console is spoken to as a device answers.

mod common;

use common::Place;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    process::Command,
    time::{Duration, Instant},
};

/// A disk and a loader that spins at its first instruction (`b .`).
fn idle_machine(place: &Place) {
    place.write("d.img", vec![0; 1 << 20]);
    place.write("loader", 0x1400_0000_u32.to_le_bytes());
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_guest_that_does_not_end_is_ended() {
    let place = Place::new();
    idle_machine(&place);
    let forward = format!("{}:80", free_port());
    let args = [
        "emulate",
        "--disk",
        "d.img",
        "--u-boot",
        "loader",
        "--forward",
        &forward,
        "--log",
        "s.log",
        "--timeout",
        "1",
        "--pid-file",
        "pid",
    ];
    let error = place.pvr("", &args).failed(1);
    assert!(error.contains("still ran after 1 s"), "{error}");
    assert!(
        error.contains("pvr control --console d.console status")
            && error.contains(&format!("127.0.0.1:{}/", &forward[..forward.len() - 3]))
    );
    assert!(!place.path("pid").exists() && !place.path("d.console").exists() && place.path("s.log").exists());
}

#[test]
fn every_machine_of_a_board_is_one_that_the_emulator_can_make() {
    for board in ["qemu-arm64", "qemu-arm64-lab", "qemu-arm64-sd"] {
        let place = Place::new();
        idle_machine(&place);
        let forward = format!("{}:80", free_port());
        let files = ["--disk", "d.img", "--u-boot", "loader", "--log", "s.log", "--forward", &forward];
        let run = ["emulate", "--board", board, "--timeout", "1"];
        let error = place.pvr("", &[&run[..], &files].concat()).failed(1);
        assert!(error.contains("still ran after 1 s") && error.contains(&format!(", {board}, 64 MiB,")), "{error}");
    }
}

#[test]
fn a_port_in_use_is_said_at_once() {
    let place = Place::new();
    idle_machine(&place);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:80", taken.local_addr().unwrap().port());
    let args = [
        "emulate",
        "--disk",
        "d.img",
        "--u-boot",
        "loader",
        "--forward",
        &forward,
        "--background",
        "--pid-file",
        "pid",
    ];
    let error = place.pvr("", &args).failed(1);
    assert!(error.contains("--forward") && error.contains("hostfwd"), "{error}");
    assert!(!place.path("pid").exists());
    assert!(place.pvr("", &["emulate", "--disk", "gone", "--u-boot", "loader"]).failed(1).contains("cannot read gone"));
    let other = ["emulate", "--board", "rpi", "--disk", "d.img", "--u-boot", "loader"];
    let error = place.pvr("", &other).failed(2);
    assert!(error.contains("rpi cannot be emulated") && error.contains("qemu-arm64-sd"), "{error}");
    place.write("odd.img", vec![0; 3 << 20]);
    let odd = ["emulate", "--board", "qemu-arm64-sd", "--disk", "odd.img", "--u-boot", "loader"];
    assert!(place.pvr("", &odd).failed(3).contains("power of two"));
    let both = ["emulate", "--disk", "d.img", "--u-boot", "loader", "--background", "--timeout", "1"];
    assert!(place.pvr("", &both).failed(2).contains("--background leaves"));
}

#[test]
fn an_interrupt_ends_the_emulator_too() {
    let place = Place::new();
    idle_machine(&place);
    let forward = format!("{}:80", free_port());
    let mut pvr = Command::new(env!("CARGO_BIN_EXE_pvr"))
        .args([
            "emulate",
            "--disk",
            "d.img",
            "--u-boot",
            "loader",
            "--forward",
            &forward,
            "--log",
            "s.log",
            "--pid-file",
            "pid",
        ])
        .current_dir(place.path(""))
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while !place.path("d.console").exists() {
        assert!(Instant::now() < end, "the emulator did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let emulator = place.read("pid").trim().to_owned();
    let killed = Command::new("kill").args(["-INT", &pvr.id().to_string()]).status().unwrap();
    assert!(killed.success() && pvr.wait().unwrap().success());
    assert!(!fs::exists(format!("/proc/{emulator}")).unwrap(), "no emulator stays behind");
}

/// Answers on the socket as a device's console does: prompt, echo, output, exit code.
fn console(place: &Place, name: &str, answers: &'static [(&'static str, &'static str, u8)]) {
    let listener = UnixListener::bind(place.path(name)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"pvcontrol> ").unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                let text = if line.is_empty() {
                    // What an earlier command left arrives late: nothing but the mark tells where it ends.
                    std::thread::sleep(Duration::from_millis(100));
                    "\r\nold output\r\n[exit 9]\r\npvcontrol> ".to_owned()
                } else if let Some(word) = line.strip_prefix('#') {
                    format!("{line}\r\n[mark {word}]\r\npvcontrol> ")
                } else {
                    let (_, output, code) =
                        answers.iter().find(|(command, ..)| *command == line).unwrap_or(&("", "what?\r\n", 2));
                    format!("{line}\r\n{output}[exit {code}]\r\npvcontrol> ")
                };
                // In pieces, as a serial port gives it.
                for piece in text.as_bytes().chunks(3) {
                    let _ = stream.write_all(piece);
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
    });
}

#[test]
fn control_prints_output_and_ends_with_the_commands_code() {
    let place = Place::new();
    console(&place, "a.console", &[("containers ls", "web\r\nslow\r\n", 0), ("run -x", "", 3)]);
    let said = place.pvr("", &["control", "containers", "ls"]);
    assert_eq!((&said.out[..], said.code), ("web\nslow\n", 0));
    let said = place.pvr("", &["control", "run", "-x"]);
    assert_eq!((said.out.trim(), said.code), ("", 3));
    let said = place.pvr("", &["--json", "control", "--console", "a.console", "nonsense"]);
    assert_eq!((&said.out[..], said.code), ("{\"exit\":2,\"output\":\"what?\\n\"}\n", 2));
    console(&place, "b.console", &[]);
    assert!(place.pvr("", &["control", "x"]).failed(2).contains("several console sockets"));
}

#[test]
fn a_silent_device_is_given_up() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.path("a.console")).unwrap();
    assert!(place.pvr("", &["control", "--timeout", "1", "status"]).failed(4).contains("no answer"));
    assert!(place.pvr("", &["control", "--console", "gone", "status"]).failed(4).contains("cannot connect"));
}
