//! The last steps: names, limits, privileges, and the exec of the container's init.
//!
//! Invariants: init starts with no descriptor of ours but its standard input and output, with every signal as a
//! new program expects it, with the capabilities that its configuration leaves it and no way to others. That
//! init exists is known before PID 1 is told that all went well.
//! Faults: `InitMissing` with what the kernel said of the file.

use super::{Fault, Step};
use crate::{confine, early, sys};
use runtime::{
    fault::Code,
    id::PartName,
    lxc::{Config, Item, Namespaces},
};
use rustix::{
    fs::{Access, AtFlags, CWD, FileType, Mode, accessat, stat},
    io::Errno,
    process::{Resource, Rlimit, chdir, setrlimit, umask},
    system::sethostname,
    thread::{CapabilitySet, set_no_new_privs},
};
use std::{ffi::CString, fs::File, io::Write as _};

/// Where a command without a slash is looked for, and what init gets as `PATH` if its configuration says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is executed.
#[derive(Debug)]
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Writes the limits of the configuration into the container's cgroup. Before anything of the container runs.
pub fn limits(config: &Config<'_>, container: PartName) -> Result<(), Fault> {
    for item in config.items() {
        if let Item::Limit { file, value } = item {
            let path = format!("/sys/fs/cgroup/switchback/{container}/{file}");
            write(&path, value.as_str()).step(Code::StartFailed, || format!("write {} to {path}", value.as_str()))?;
        }
    }
    Ok(())
}

/// Where this process says whether the kernel may choose it when memory runs out. Opened while the device's own /proc
/// is there; `shed` uses it: until then this is a process of ours.
pub fn oom_score() -> Result<File, Fault> {
    let open = File::options().write(true).open("/proc/self/oom_score_adj");
    open.map_err(errno).step(Code::StartFailed, || "open oom_score_adj".into())
}

fn write(path: &str, text: &str) -> Result<(), Errno> {
    std::fs::write(path, text).map_err(errno)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// The host name, if the container has one of its own.
pub fn name(config: &Config<'_>, container: PartName) -> Result<(), Fault> {
    if !config.summary.namespaces.contains(Namespaces::UTS) {
        return Ok(());
    }
    let name = config.host_name.unwrap_or(container.as_str());
    sethostname(name.as_bytes()).step(Code::StartFailed, || format!("set the host name {name}"))
}

/// Finds init inside the new root. `group` is told to it as the original does, in `container=`.
pub fn program(config: &Config<'_>, group: &str) -> Result<Program, Fault> {
    let text = |text: &str| CString::new(text).map_err(|_| Fault::new(Code::LxcInvalid, "a NUL in the configuration"));
    let env = environment(config, group);
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
    let words: Vec<&str> = config.init.words().collect();
    let command = words.first().copied().unwrap_or("/sbin/init");
    chdir(config.init_folder).step(Code::StartFailed, || format!("change to lxc.init.cwd {}", config.init_folder))?;
    let found = find(command, path).step(Code::InitMissing, || format!("find lxc.init.cmd {command}"))?;
    Ok(Program {
        path: text(&found)?,
        args: words.into_iter().map(text).collect::<Result<_, _>>()?,
        env: env.iter().map(|entry| text(entry)).collect::<Result<_, _>>()?,
    })
}

/// Later entries of the configuration win over earlier ones and over ours.
fn environment(config: &Config<'_>, group: &str) -> Vec<String> {
    let mut env = vec![format!("PATH={PATH}"), format!("container=pv-{group}")];
    for item in config.items() {
        if let Item::Environment { name, value } = item {
            env.retain(|entry| entry.split_once('=').is_none_or(|(known, _)| known != name));
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// The file that a command means: itself if it has a slash, else the first of that name in `path` that can be executed.
fn find(command: &str, path: &str) -> Result<String, Errno> {
    if command.contains('/') {
        return executable(command).map(|()| command.into());
    }
    let mut last = Errno::NOENT;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let candidate = format!("{folder}/{command}");
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

fn executable(path: &str) -> Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
}

/// Gives up what the configuration does not leave, and everything that init must not inherit.
pub fn shed(config: &Config<'_>, mut oom_score: File) -> Result<(), Fault> {
    // From here on the kernel may choose it like any process of the container.
    oom_score.write_all(b"0").map_err(errno).step(Code::StartFailed, || "write oom_score_adj".into())?;
    umask(Mode::from_raw_mode(0o022));
    sys::close_on_exec_from(3).step(Code::StartFailed, || "close descriptors".into())?;
    sys::reset_signals();
    let (current, maximum) = early::DESCRIPTORS_OF_OTHERS;
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: Some(maximum) })
        .step(Code::StartFailed, || "limit descriptors".into())?;
    if config.no_new_privileges {
        set_no_new_privs(true).step(Code::StartFailed, || "set no_new_privs".into())?;
    }
    confine::drop_bounding_set(CapabilitySet::from_bits_retain(config.capabilities))
        .step(Code::StartFailed, || "drop capabilities".into())
}

/// Becomes init. Returns only if the kernel refused.
pub fn exec(program: &Program) -> Fault {
    let errno = sys::exec(&program.path, &program.args, &program.env);
    Fault { code: Code::InitMissing, step: format!("exec {}", program.path.to_string_lossy()), errno: Some(errno) }
}
