//! `pvr emulate`: boots a disk image in QEMU.
//!
//! The guest's network is QEMU's user network: it reaches out through this machine, and only the forwarded ports
//! lead in, from this machine's loopback. The first serial port (loader, kernel and device messages) goes to a file
//! or to the terminal, nothing can be typed there; the second one runs pvcontrol on a unix socket.
//! Which machine that is, and how it is made of QEMU's parts, is one table: `machine`.
//! Ending the emulator is a power cut for the guest: what it did not sync may be lost, as on a device.

mod machine;

use crate::{
    commands::Context,
    error::{During, Error, Kind, Result},
    files,
};
use clap::Parser;
use machine::Machine;
use serde_json::json;
use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

/// Boot a disk image in the emulator
///
/// The machine is that of the board that the disk was made for. Runs until the guest powers off, Ctrl-C or --timeout. With --background it returns as soon as the guest's loader
/// says something; kill the process in --pid-file to cut its power. Ports are forwarded from 127.0.0.1 only.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr emulate --disk device.img --u-boot u-boot.bin
  pvr emulate --disk device.img --u-boot u-boot.bin --background --pid-file qemu.pid --log serial.log
  pvr emulate --board qemu-arm64-sd --disk card.img --u-boot u-boot.bin --memory 32
  pvr control status
  pvr post http://127.0.0.1:12368")]
pub(super) struct Args {
    /// The board
    #[arg(long, value_name = "NAME", default_value = "qemu-arm64")]
    board: String,
    /// The disk; the guest writes to it
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// The loader
    #[arg(long = "u-boot", value_name = "FILE")]
    u_boot: PathBuf,
    /// Memory in MiB [default: the board's]
    #[arg(long)]
    memory: Option<u32>,
    /// Forward a port of 127.0.0.1 to the guest; may be given several times, and then replaces the usual ones
    #[arg(long, value_name = "HOST:GUEST", value_parser = parse_forward,
        default_values = ["12368:12368", "8080:80", "8081:8081"])]
    forward: Vec<(u16, u16)>,
    /// Unix socket of the second serial port [default: the disk's name with .console]
    #[arg(long, value_name = "SOCKET")]
    console: Option<PathBuf>,
    /// File for the first serial port [default: the terminal; with --background the disk's name with .log]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// End the guest after this many seconds, which is an error
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Return once the guest runs, and leave it running
    #[arg(long)]
    background: bool,
    /// File for the emulator's process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// A further argument for QEMU; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    extra: Vec<String>,
    /// The emulator itself [default: the board's]
    #[arg(long, value_name = "PROGRAM", env = "QEMU")]
    qemu: Option<String>,
}

/// A machine and how this run wants it.
struct Run<'a> {
    args: &'a Args,
    machine: &'static Machine,
}

impl Run<'_> {
    fn memory(&self) -> u32 {
        self.args.memory.unwrap_or(self.machine.memory)
    }

    /// The emulator's program.
    fn program(&self) -> &str {
        self.args.qemu.as_deref().unwrap_or(self.machine.program)
    }

    /// The unix socket of the second serial port.
    fn console(&self) -> PathBuf {
        self.args.console.clone().unwrap_or_else(|| self.args.disk.with_extension("console"))
    }
}

/// How long a guest that is started in the background may stay silent. A loaded machine needs a second.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let run = Run { args, machine: machine::find(&args.board)? };
    for file in [&args.disk, &args.u_boot] {
        File::open(file).during(|| format!("read {}", file.display()))?;
    }
    let size = fs::metadata(&args.disk).map_or(0, |m| m.len());
    if run.machine.sd_card && !size.is_power_of_two() {
        let hint = "`pvr image disk --size` with a power of two, such as 512M, makes one that can";
        let text = format!("{} of {size} bytes cannot be an SD card of the emulator", args.disk.display());
        return Err(Error::input(text).hint(hint));
    }
    if args.background { in_background(context, &run) } else { in_foreground(context, &run) }
}

/// QEMU's command line.
fn qemu(run: &Run, log: Option<&Path>) -> Result<Command> {
    let (args, console) = (run.args, run.console());
    if console.as_os_str().len() > 100 {
        let hint = "the path of a socket has at most 107 bytes: give a shorter one with --console";
        return Err(Error::usage(format!("{} is too long", console.display())).hint(hint));
    }
    let line = run.machine.command_line(|word| match word {
        "disk" => args.disk.display().to_string(),
        "flash" => args.disk.with_extension("flash").display().to_string(),
        "loader" => args.u_boot.display().to_string(),
        "console" => console.display().to_string(),
        "log" => log.map_or("stdio".into(), |log| format!("file:{}", log.display())),
        "forward" => {
            let ports = args.forward.iter();
            ports.map(|(host, guest)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}")).collect()
        }
        other => unreachable!("{{{other}}} in the table of machines"),
    });
    let mut qemu = Command::new(run.program());
    qemu.args(line).args(["-m", &run.memory().to_string()]).args(&args.extra);
    // A group of its own: Ctrl-C reaches this program, which then ends the emulator.
    qemu.stdin(Stdio::null()).process_group(0);
    Ok(qemu)
}

fn spawn(run: &Run, mut qemu: Command) -> Result<Child> {
    let child = qemu.spawn().map_err(|e| {
        Error::host(format!("cannot run {}: {e}", run.program())).hint("on Debian: apt install qemu-system-arm")
    })?;
    if let Some(file) = &run.args.pid_file {
        files::write_atomic(file, 0o644, format!("{}\n", child.id()).as_bytes())?;
    }
    Ok(child)
}

fn in_foreground(context: &Context, run: &Run) -> Result<()> {
    let args = run.args;
    let mut child = spawn(run, qemu(run, args.log.as_deref())?)?;
    greet(context, run, child.id(), args.log.as_deref());
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || stop.send(()).unwrap_or(()))
        .map_err(|e| Error::host(format!("cannot catch Ctrl-C: {e}")))?;
    let end = args.timeout.map(|s| Instant::now() + Duration::from_secs(s));
    let outcome = loop {
        match child.try_wait().during(|| "wait for the emulator")? {
            Some(status) if status.success() => break Ok(()),
            Some(status) => break Err(Error::host(format!("{} ended with {status}", run.program()))),
            None => {}
        }
        match stopped.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) if end.is_none_or(|end| Instant::now() < end) => {}
            Err(RecvTimeoutError::Timeout) => {
                break Err(Error::new(
                    Kind::Host,
                    format!("the guest still ran after {} s", args.timeout.unwrap_or(0)),
                ));
            }
            _ => break Ok(()),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    clean(run);
    outcome
}

fn clean(run: &Run) {
    let _ = fs::remove_file(run.console());
    if let Some(file) = &run.args.pid_file {
        let _ = fs::remove_file(file);
    }
}

fn in_background(context: &Context, run: &Run) -> Result<()> {
    let args = run.args;
    if args.timeout.is_some() {
        let hint = "leave one of them out; `timeout 60 pvr emulate …` bounds a guest in the foreground";
        return Err(Error::usage("--timeout needs somebody who waits, --background leaves").hint(hint));
    }
    let log = args.log.clone().unwrap_or_else(|| args.disk.with_extension("log"));
    // Emptied here, so that the first byte in it means that this guest runs.
    File::create(&log).during(|| format!("write {}", log.display()))?;
    let errors = tempfile::NamedTempFile::new().during(|| "create a temporary file")?;
    let stderr = errors.reopen().during(|| "create a temporary file")?;
    let mut command = qemu(run, Some(&log))?;
    command.stdout(Stdio::null()).stderr(stderr);
    let mut child = spawn(run, command)?;
    let start = Instant::now();
    while fs::metadata(&log).map_or(0, |m| m.len()) == 0 {
        if let Some(status) = child.try_wait().during(|| "wait for the emulator")? {
            clean(run);
            let mut said = String::new();
            let _ = errors.as_file().read_to_string(&mut said);
            let hint = "a port that is in use is changed with --forward; a disk is used by one emulator at a time";
            return Err(Error::host(format!("{} ended with {status}: {}", run.program(), said.trim())).hint(hint));
        }
        if start.elapsed() > SILENCE {
            let _ = child.kill();
            let _ = child.wait();
            clean(run);
            return Err(Error::host(format!("the guest's loader said nothing for {} s", SILENCE.as_secs()))
                .hint(format!("is --u-boot a loader for {}?", run.machine.board)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    greet(context, run, child.id(), Some(&log));
    Ok(())
}

/// Says how to talk to the guest.
fn greet(context: &Context, run: &Run, pid: u32, log: Option<&Path>) {
    let (args, console) = (run.args, run.console());
    let ports: Vec<_> = args.forward.iter().map(|(host, guest)| json!({"host": host, "guest": guest})).collect();
    if context.json {
        context.say(
            json!({"pid": pid, "board": run.machine.board, "console": console, "log": log, "forward": ports}),
            String::new,
        );
        return;
    }
    let mut text =
        format!("emulator: process {pid}, {}, {} MiB, disk {}", run.machine.board, run.memory(), args.disk.display());
    for (host, guest) in &args.forward {
        text += &match guest {
            12368 => format!("\n  post a revision:   pvr post http://127.0.0.1:{host}"),
            80 => format!("\n  its web server:    http://127.0.0.1:{host}/"),
            guest => format!("\n  port {guest:<5}         127.0.0.1:{host}"),
        };
    }
    text += &format!("\n  ask the device:    pvr control --console {} status", console.display());
    if let Some(log) = log {
        text += &format!("\n  serial log:        {}", log.display());
    }
    if args.background {
        text += &format!("\n  cut its power:     kill {pid}");
    } else {
        text += "\n  cut its power:     Ctrl-C";
    }
    context.warn(&text);
}

fn parse_forward(text: &str) -> std::result::Result<(u16, u16), String> {
    let parse = || {
        let (host, guest) = text.split_once(':')?;
        Some((host.parse().ok()?, guest.parse().ok()?))
    };
    parse().ok_or_else(|| "expected two port numbers, HOST:GUEST, such as 8080:80".into())
}
