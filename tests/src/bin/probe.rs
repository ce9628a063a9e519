//! probe: the only program of the containers of the bad-input device.
//!
//!   probe relay PORT   every connection to this TCP port becomes one to the container's control socket
//!   probe wait         runs until it is told to end
//!   probe end          ends at once, as a failure
//!   probe fill         writes /data/fill until the disk is full, then runs until it is told to end
//!   probe obey PORT    waits on this TCP port for a word, and does for ever what it says:
//!       grow    takes memory
//!       cling   the same, after it told the kernel never to end it
//!       stuff   writes files in memory
//!       breed   becomes more and more processes, each with a little memory
//!
//! With the relay, every byte that a test sends arrives at the real socket, from inside the container that the device
//! knows by that socket. Bytes and the ends of both directions pass unchanged; the probe itself knows no HTTP.
//! A connection whose first byte is zero is a crowd: the second byte says how many clients connect at once, the rest
//! is what each of them sends. `+` comes back when all have sent it, then what all of them received, one after another.
//! (A crowd cannot come through the emulator's network: it keeps one client waiting per port, and drops the others.)
//! One whose first byte is one is a clock: the second byte says how often the rest is asked, one after another; what the
//! middle one took from connect to the end of its answer comes back, in microseconds.
//! One whose first byte is two passes an order on: the next two bytes are a port of this host, the rest goes there.
//! It uses nothing but std, so that `rustc` alone builds it for the guest.
//! Does not: limit clients; the guest's memory does, and a test opens some dozens.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;

/// Where a container finds its control socket.
const SOCKET: &str = "/pantavisor/pv-ctrl";
/// Where a program lies that the kernel cannot take back: a file system in memory, without swap.
const COPY: &str = "/run/probe";
/// Stack of a thread that only copies; many of them share 64 MB with everything else.
const STACK: usize = 32 * 1024;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["relay", port] => relay(port),
        ["wait"] => wait(),
        ["fill"] => {
            fill();
            wait()
        }
        ["obey", port] => stay_in_memory(port),
        ["obeys", port] => obey(port),
        ["bred"] => {
            let piece = vec![0x5a; 1 << 20];
            std::hint::black_box(&piece);
            wait()
        }
        ["end"] => {
            println!("probe: ends at once, as it was told");
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("usage: probe relay PORT | wait | end | fill | obey PORT");
            ExitCode::from(2)
        }
    }
}

fn wait() -> ! {
    loop {
        thread::park();
    }
}

/// Fills the disk. What the kernel takes into memory counts only when it is on the medium.
fn fill() {
    let Ok(mut file) = std::fs::File::create("/data/fill") else { return };
    let piece = vec![0x5a; 256 * 1024];
    while file.write_all(&piece).is_ok() && file.sync_data().is_ok() {}
    println!("probe: the disk is full");
}

/// Goes on to obey from a copy that lies in memory. The kernel takes a program's text back when its container is at its
/// limit, and reads it again from the image, over and over: it may take minutes until it ends such a program, or for
/// ever. What is to be ended for taking memory must not depend on that.
fn stay_in_memory(port: &str) -> ExitCode {
    let error = match std::fs::copy("/bin/probe", COPY) {
        Ok(_) => Command::new(COPY).args(["obeys", port]).exec(),
        Err(error) => error,
    };
    eprintln!("probe: {COPY}: {error}");
    ExitCode::FAILURE
}

/// Does what the first client says.
fn obey(port: &str) -> ExitCode {
    let Some(listener) = listen(port) else { return ExitCode::FAILURE };
    for mut client in listener.incoming().flatten() {
        let mut word = String::new();
        let _ = client.read_to_string(&mut word);
        match word.as_str() {
            "grow" => grow(),
            "cling" => {
                let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
                grow()
            }
            "stuff" => stuff(),
            "breed" => breed(),
            _ => {}
        }
    }
    ExitCode::FAILURE
}

fn listen(port: &str) -> Option<TcpListener> {
    let listener = port.parse().ok().and_then(|port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok());
    if listener.is_none() {
        eprintln!("probe: cannot listen on port {port}");
    }
    listener
}

/// Takes memory and uses it, for ever.
fn grow() -> ! {
    let mut all = Vec::new();
    loop {
        let mut piece = Vec::new();
        match piece.try_reserve_exact(64 * 1024) {
            Ok(()) => {
                piece.resize(64 * 1024, 0x5au8);
                all.push(std::hint::black_box(piece));
            }
            Err(_) => thread::yield_now(),
        }
    }
}

/// Fills every file system that lies in memory.
fn stuff() -> ! {
    let piece = vec![0x5a; 64 * 1024];
    loop {
        for name in ["/run/stuff", "/tmp/stuff", "/dev/shm/stuff"] {
            let Ok(mut file) = std::fs::File::create(name) else { continue };
            while file.write_all(&piece).is_ok() {}
        }
    }
}

/// Children that do nothing but hold some memory.
fn breed() -> ! {
    let mut children = Vec::new();
    loop {
        match Command::new(COPY).arg("bred").spawn() {
            Ok(child) => children.push(child),
            Err(_) => thread::yield_now(),
        }
    }
}

fn relay(port: &str) -> ExitCode {
    let Some(listener) = listen(port) else { return ExitCode::FAILURE };
    println!("probe: relays port {port} to {SOCKET}");
    for client in listener.incoming().flatten() {
        // A client that finds no thread, or no socket, sees the end of its connection.
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(move || serve(client)) {
            eprintln!("probe: no thread for a client: {error}");
        }
    }
    ExitCode::FAILURE
}

fn serve(mut client: TcpStream) {
    let mut first = [1];
    match client.peek(&mut first) {
        Ok(1) if first == [0] => drop(crowd(&mut client)),
        Ok(1) if first == [1] => drop(clock(&mut client)),
        Ok(1) if first == [2] => drop(pass_on(&mut client)),
        _ => both_ways(client),
    }
}

/// Many clients at once.
fn crowd(client: &mut TcpStream) -> std::io::Result<()> {
    let mut order = Vec::new();
    client.read_to_end(&mut order)?;
    let [_, count, request @ ..] = &order[..] else { return Ok(()) };
    let mut devices = Vec::new();
    for _ in 0..*count {
        devices.push(UnixStream::connect(SOCKET)?);
    }
    for device in &mut devices {
        // One that was let go already shows it when it is read.
        let _ = device.write_all(request);
    }
    client.write_all(b"+")?;
    for mut device in devices {
        pass(&mut device, client);
    }
    Ok(())
}

/// One after another, timed.
fn clock(client: &mut TcpStream) -> std::io::Result<()> {
    let mut order = Vec::new();
    client.read_to_end(&mut order)?;
    let [_, count, request @ ..] = &order[..] else { return Ok(()) };
    let mut times = Vec::new();
    for _ in 0..*count {
        let begun = std::time::Instant::now();
        let mut device = UnixStream::connect(SOCKET)?;
        device.write_all(request)?;
        let mut answer = Vec::new();
        device.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return client.write_all(&answer);
        }
        times.push(begun.elapsed().as_micros());
    }
    times.sort_unstable();
    writeln!(client, "{}", times.get(times.len() / 2).unwrap_or(&0))
}

/// To somebody else on this host.
fn pass_on(client: &mut TcpStream) -> std::io::Result<()> {
    let mut order = Vec::new();
    client.read_to_end(&mut order)?;
    let [_, high, low, words @ ..] = &order[..] else { return Ok(()) };
    let mut other = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_be_bytes([*high, *low])))?;
    other.write_all(words)?;
    client.write_all(b"+")
}

fn both_ways(client: TcpStream) {
    let Ok(device) = UnixStream::connect(SOCKET) else { return };
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), device.try_clone()) else { return };
    let requests = thread::Builder::new().stack_size(STACK).spawn(move || {
        pass(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (device, client);
    pass(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if let Ok(requests) = requests {
        let _ = requests.join();
    }
}

/// Copies until one of the two ends.
fn pass(from: &mut impl Read, to: &mut impl Write) {
    let mut piece = [0; 4096];
    while let Ok(length) = from.read(&mut piece) {
        if length == 0 || to.write_all(&piece[..length]).is_err() {
            return;
        }
    }
}
