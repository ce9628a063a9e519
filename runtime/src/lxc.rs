//! `lxc.container.conf` of a revision: read completely or refused, by name, before anything is done with it.
//!
//! One parser for all who look at it: `pvr` before posting, the keeper when it stages, PID 1 for the namespaces
//! it clones with, `start` for everything else. It is total and borrows the text: scalars stand in `Config`,
//! lists (environment, mounts, limits) are walked in their order by `Config::items`.
//!
//! Invariants: after `Config::parse`, every path that is below the container's root is plain (no `..`), every
//! word is known, every number is in range. A key that is not implemented is refused with its name, never
//! ignored: a container must not run with less confinement than it was written for.
//!
//! Meanings are LXC's (lxc.container.conf(5)); cgroup v1 limits are translated to v2. Not here: prlimits,
//! id maps, seccomp, network devices, hooks.

use crate::{
    fault::{Code, Refusal},
    id::Text,
    limits::{INIT_ARGS_MAX, LXC_CONF_MAX, PART_NAME_MAX},
    state::is_plain_path,
};

/// A whole configuration.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    text: &'a str,
    /// What PID 1 has to know of it.
    pub summary: Summary,
    /// The root file system; without one the container has its first volume as root.
    pub rootfs: Option<Rootfs<'a>>,
    /// What runs as its init; LXC's default if it says nothing.
    pub init: Command<'a>,
    /// The folder in which init starts.
    pub init_folder: &'a str,
    /// The host name, if not the container's.
    pub host_name: Option<&'a str>,
    /// Which of proc, sys and cgroup are mounted, and how.
    pub auto: AutoMounts,
    /// Whether `/dev` is a tmpfs with the standard devices.
    pub standard_devices: bool,
    /// Terminals to make.
    pub terminals: u32,
    /// Bound of pseudo terminals in its `/dev/pts`.
    pub pseudo_terminals_max: u32,
    /// Capabilities that it may keep: bit n is capability n.
    pub capabilities: u64,
    /// Whether programs may not gain privileges by exec.
    pub no_new_privileges: bool,
    /// Whether the loopback device of its own network is brought up.
    pub loopback: bool,
}

/// What PID 1 has to know of a configuration; `Copy`, kept with the container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Namespaces that it gets of its own.
    pub namespaces: Namespaces,
    /// Signal that asks its init to end.
    pub halt_signal: u8,
    /// Signal that ends its init.
    pub stop_signal: u8,
}

impl Summary {
    /// What LXC does with an empty configuration.
    pub const DEFAULT: Self = Self { namespaces: Namespaces::DEFAULT, halt_signal: SIGPWR, stop_signal: SIGKILL };
}

const SIGKILL: u8 = 9;
const SIGPWR: u8 = 30;

/// A set of namespaces, as Linux's clone flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Namespaces(u32);

impl Namespaces {
    /// No namespace.
    pub const NONE: Self = Self(0);
    /// Mounts.
    pub const MOUNT: Self = Self(0x0002_0000);
    /// Control groups.
    pub const CGROUP: Self = Self(0x0200_0000);
    /// Host name.
    pub const UTS: Self = Self(0x0400_0000);
    /// System V and POSIX IPC.
    pub const IPC: Self = Self(0x0800_0000);
    /// Users.
    pub const USER: Self = Self(0x1000_0000);
    /// Processes.
    pub const PID: Self = Self(0x2000_0000);
    /// Network.
    pub const NET: Self = Self(0x4000_0000);
    /// All that LXC makes for a container without id map.
    pub const DEFAULT: Self =
        Self(Self::MOUNT.0 | Self::CGROUP.0 | Self::UTS.0 | Self::IPC.0 | Self::PID.0 | Self::NET.0);

    /// As flags of clone(2).
    pub fn clone_flags(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set and `other`.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "mnt" => Self::MOUNT,
            "cgroup" => Self::CGROUP,
            "uts" => Self::UTS,
            "ipc" => Self::IPC,
            "user" => Self::USER,
            "pid" => Self::PID,
            "net" => Self::NET,
            _ => return None,
        })
    }
}

/// The root file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rootfs<'a> {
    /// A folder.
    Folder(&'a str),
    /// Read-only layers below a writable one.
    Overlay {
        /// Layers, uppermost first, separated by colons.
        lower: &'a str,
        /// Where changes go.
        upper: &'a str,
    },
}

impl<'a> Rootfs<'a> {
    /// The read-only layers, uppermost first.
    pub fn lowers(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        match *self {
            Self::Folder(folder) => folder,
            Self::Overlay { lower, .. } => lower,
        }
        .split(':')
    }

    fn parse(value: &'a str) -> Option<Self> {
        // a comma would begin another option of the overlay
        let good = |path: &str| is_plain_path(path.strip_prefix('/').unwrap_or(path)) && !path.contains(',');
        let rootfs = match value.split_once(':') {
            Some(("overlay" | "overlayfs", layers)) => {
                let (lower, upper) = layers.rsplit_once(':')?;
                Self::Overlay { lower, upper }
            }
            Some(("dir", folder)) => Self::Folder(folder),
            Some(_) => return None,
            None => Self::Folder(value),
        };
        let upper_good = !matches!(rootfs, Self::Overlay { upper, .. } if !good(upper));
        (upper_good && rootfs.lowers().all(good)).then_some(rootfs)
    }
}

/// A command line, split as LXC splits it: at white space, and around quoted words. There are no escapes;
/// `"a""b"` are two words; a quote inside a bare word is itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command<'a> {
    line: &'a str,
}

impl<'a> Command<'a> {
    /// The program and its arguments; at least one and at most `INIT_ARGS_MAX`.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        Words { rest: self.line }.map_while(Result::ok)
    }

    fn parse(line: &'a str) -> Option<Self> {
        let mut words = Words { rest: line };
        let first = words.next()?.ok()?;
        let more = words.try_fold(1usize, |count, word| word.ok().map(|_| count + 1))?;
        (!first.is_empty() && more <= INIT_ARGS_MAX).then_some(Self { line })
    }
}

/// A quote that does not end.
struct Unclosed;

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = Result<&'a str, Unclosed>;
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        let first = rest.chars().next()?;
        let split = match first {
            '"' | '\'' => rest.get(1..).and_then(|inside| inside.split_once(first)),
            _ => Some(rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""))),
        };
        let Some((word, rest)) = split else {
            self.rest = "";
            return Some(Err(Unclosed));
        };
        self.rest = rest;
        Some(Ok(word))
    }
}

/// How much of a kernel file system may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nothing.
    ReadOnly,
    /// What LXC leaves writable (of proc: all but `sys` and `sysrq-trigger`; of sys: `devices/virtual/net`).
    Mixed,
    /// Everything.
    ReadWrite,
}

/// Kernel file systems that are mounted without being named in a `mount.entry`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AutoMounts {
    /// `/proc`
    pub proc: Option<Access>,
    /// `/sys`
    pub sys: Option<Access>,
    /// `/sys/fs/cgroup`
    pub cgroup: Option<Access>,
}

impl AutoMounts {
    fn add(&mut self, word: &str) -> Option<()> {
        let (place, access) = word.split_once(':').unwrap_or((word, "mixed"));
        let access = Some(match access {
            "ro" => Access::ReadOnly,
            "mixed" => Access::Mixed,
            "rw" => Access::ReadWrite,
            _ => return None,
        });
        match (place, access) {
            ("proc", Some(Access::ReadOnly)) => return None, // LXC has no such word
            ("proc", _) => self.proc = access,
            ("sys", _) => self.sys = access,
            ("cgroup", _) => self.cgroup = access,
            _ => return None,
        }
        Some(())
    }
}

/// One element of a list of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A variable of init's environment.
    Environment {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// A mount inside the container.
    Mount(Mount<'a>),
    /// A limit: file of its cgroup and what to write into it.
    Limit {
        /// File name in the cgroup v2 folder.
        file: &'static str,
        /// What to write.
        value: Text<32>,
    },
}

/// What is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MountKind {
    /// The source itself.
    Bind,
    /// The source with everything mounted below it.
    RecursiveBind,
    /// A new tmpfs.
    Tmpfs,
    /// A proc.
    Proc,
    /// A sysfs.
    Sysfs,
    /// A mqueue.
    Mqueue,
}

/// What is made if the target does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Create {
    /// Nothing.
    No,
    /// A folder, with its parents.
    Folder,
    /// An empty file, with its parent folders.
    File,
}

/// Options of a mount that the kernel knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MountFlags {
    /// `ro`
    pub read_only: bool,
    /// `nosuid`
    pub no_suid: bool,
    /// `nodev`
    pub no_dev: bool,
    /// `noexec`
    pub no_exec: bool,
    /// `noatime`
    pub no_atime: bool,
    /// `relatime`, which is also the kernel's default
    pub relatime: bool,
}

/// A `lxc.mount.entry`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mount<'a> {
    /// What to mount; for a bind a path, absolute or below the revision's folder of the container.
    pub source: &'a str,
    /// Where, below the container's root: a plain path.
    pub target: &'a str,
    /// What it is.
    pub kind: MountKind,
    /// How.
    pub flags: MountFlags,
    /// What is made if the target does not exist.
    pub create: Create,
    /// Whether it may fail.
    pub optional: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// Parameters of the file system itself: `mode`, `size`, `uid`, `gid`, `nr_inodes` of a tmpfs.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.options.split(',').filter_map(|option| option.split_once('=')).filter(|(name, _)| *name != "create")
    }

    fn parse(line: &'a str) -> Option<Self> {
        // spaces in paths are written as octal escapes in fstab(5); we have no place to decode them to
        if line.contains('\\') {
            return None;
        }
        let mut fields = line.split_ascii_whitespace();
        let (source, target) = (fields.next()?, fields.next()?);
        let (kind, options) = (fields.next()?, fields.next()?);
        if fields.clone().count() > 2 || !fields.all(|number| number.parse::<u32>().is_ok()) {
            return None;
        }
        let target = target.strip_prefix('/').unwrap_or(target);
        if !is_plain_path(target) {
            return None;
        }
        let kind = match kind {
            "none" | "bind" => None, // a bind, and its options must say which
            "tmpfs" => Some(MountKind::Tmpfs),
            "proc" => Some(MountKind::Proc),
            "sysfs" => Some(MountKind::Sysfs),
            "mqueue" => Some(MountKind::Mqueue),
            _ => return None,
        };
        let mut mount = Self {
            source,
            target,
            kind: kind.unwrap_or(MountKind::Bind),
            flags: MountFlags::default(),
            create: Create::No,
            optional: false,
            options,
        };
        let mut bound = false;
        for option in options.split(',') {
            bound |= matches!(option, "bind" | "rbind");
            mount.option(option)?;
        }
        let path_good =
            source == "/" || is_plain_path(source.strip_prefix('/').unwrap_or(source).trim_end_matches('/'));
        match kind {
            None if bound && path_good => Some(mount),
            Some(_) if !bound => Some(mount),
            _ => None,
        }
    }

    fn option(&mut self, option: &str) -> Option<()> {
        let flags = &mut self.flags;
        match option {
            "bind" => self.kind = MountKind::Bind,
            "rbind" => self.kind = MountKind::RecursiveBind,
            "ro" => flags.read_only = true,
            "rw" => flags.read_only = false,
            "nosuid" => flags.no_suid = true,
            "suid" => flags.no_suid = false,
            "nodev" => flags.no_dev = true,
            "dev" => flags.no_dev = false,
            "noexec" => flags.no_exec = true,
            "exec" => flags.no_exec = false,
            "noatime" => flags.no_atime = true,
            "relatime" => flags.relatime = true,
            "defaults" => {}
            "create=dir" => self.create = Create::Folder,
            "create=file" => self.create = Create::File,
            "optional" => self.optional = true,
            _ => return self.parameter(option),
        }
        Some(())
    }

    fn parameter(&self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=')?;
        let good = self.kind == MountKind::Tmpfs
            && match name {
                "mode" => value.len() <= 5 && u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
                "size" | "nr_inodes" => is_amount(value.strip_suffix('%').unwrap_or(value)),
                "uid" | "gid" => value.parse::<u32>().is_ok(),
                _ => false,
            };
        good.then_some(())
    }
}

/// Digits with at most one of the kernel's suffixes.
fn is_amount(value: &str) -> bool {
    let digits = value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(value);
    (1..=19).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl<'a> Config<'a> {
    /// Reads a whole configuration. A refusal names the line's key and the byte at which that starts.
    pub fn parse(text: &'a [u8]) -> Result<Self, Refusal> {
        if text.len() > LXC_CONF_MAX {
            return Err(Refusal::at(Code::LxcTooLarge, LXC_CONF_MAX));
        }
        let text = core::str::from_utf8(text).map_err(|bad| Refusal::at(Code::LxcInvalid, bad.valid_up_to()))?;
        let mut reader = Reader { config: Self::empty(text), keep: None, own: None, drop: None, only: None, net: None };
        for line in lines(text) {
            reader.read(line)?;
        }
        Ok(reader.finish())
    }

    /// Environment, mounts and limits, in the order of the text.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        lines(self.text).filter_map(|line| line.item()?.ok())
    }

    fn empty(text: &'a str) -> Self {
        Self {
            text,
            summary: Summary::DEFAULT,
            rootfs: None,
            init: Command { line: "/sbin/init" },
            init_folder: "/",
            host_name: None,
            auto: AutoMounts::default(),
            standard_devices: true,
            terminals: 0,
            pseudo_terminals_max: 1024,
            capabilities: ALL_CAPABILITIES,
            no_new_privileges: false,
            loopback: false,
        }
    }
}

/// What depends on more than one line.
struct Reader<'a> {
    config: Config<'a>,
    keep: Option<Namespaces>,
    own: Option<Namespaces>,
    drop: Option<u64>,
    only: Option<u64>,
    net: Option<Network>,
}

/// `lxc.net.0.type`
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// The device's own.
    None,
    /// Loopback alone.
    Empty,
}

impl Network {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "none" => Some(Self::None),
            "empty" => Some(Self::Empty),
            _ => None,
        }
    }
}

/// What became of a line with one value.
enum Scalar {
    Taken,
    Invalid,
    Unknown,
}

impl<'a> Reader<'a> {
    fn read(&mut self, line: Line<'a>) -> Result<(), Refusal> {
        let invalid = Err(line.refuse(Code::LxcInvalid));
        if line.key.is_empty() || line.value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
            return invalid;
        }
        if let Some(item) = line.item() {
            return item.map(drop);
        }
        match self.scalar(line.key, line.value) {
            Scalar::Taken => {}
            Scalar::Invalid => return invalid,
            Scalar::Unknown => return Err(line.refuse(Code::LxcKeyUnknown)),
        }
        // LXC refuses these pairs, too
        let contradicts = self.keep.is_some() && self.own.is_some() || self.drop.is_some() && self.only.is_some();
        if contradicts { invalid } else { Ok(()) }
    }

    /// Takes a key that has one value; the last one counts.
    fn scalar(&mut self, key: &str, value: &'a str) -> Scalar {
        let config = &mut self.config;
        let number = value.parse::<u32>().ok();
        let switch = match value {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        let taken = match key {
            "lxc.rootfs.path" => Rootfs::parse(value).map(|rootfs| config.rootfs = Some(rootfs)),
            "lxc.init.cmd" => Command::parse(value).map(|command| config.init = command),
            "lxc.init.cwd" => is_absolute(value).then(|| config.init_folder = value),
            "lxc.uts.name" => is_host_name(value).then(|| config.host_name = Some(value)),
            "lxc.mount.auto" => value.split_ascii_whitespace().try_for_each(|word| config.auto.add(word)),
            "lxc.autodev" => switch.map(|on| config.standard_devices = on),
            "lxc.no_new_privs" => switch.map(|on| config.no_new_privileges = on),
            "lxc.tty.max" => number.map(|n| config.terminals = n),
            "lxc.pty.max" => number.map(|n| config.pseudo_terminals_max = n),
            "lxc.console.path" => (value == "none").then_some(()),
            "lxc.signal.halt" => signal(value).map(|signal| config.summary.halt_signal = signal),
            "lxc.signal.stop" => signal(value).map(|signal| config.summary.stop_signal = signal),
            "lxc.namespace.keep" => namespaces(value).filter(|set| !set.contains(Namespaces::MOUNT)).map(|set| {
                self.keep = (set != Namespaces::NONE).then_some(set);
            }),
            // a user namespace needs an id map, which is not implemented
            "lxc.namespace.clone" => namespaces(value).filter(|set| !set.contains(Namespaces::USER)).map(|set| {
                self.own = (set != Namespaces::NONE).then_some(set);
            }),
            "lxc.cap.drop" => capabilities(value).map(|set| self.drop = merge(self.drop, set)),
            "lxc.cap.keep" if value == "none" => {
                self.only = Some(0);
                Some(())
            }
            "lxc.cap.keep" => capabilities(value).map(|set| self.only = merge(self.only, set)),
            "lxc.net.0.type" => Network::from_word(value).map(|network| self.net = Some(network)),
            // where logs go is ours to say; every device is allowed as in the original on cgroup v2
            "lxc.log.file" | "lxc.log.level" => Some(()),
            "lxc.cgroup.devices.allow" | "lxc.cgroup2.devices.allow" => (value == "a").then_some(()),
            _ => return Scalar::Unknown,
        };
        if taken.is_some() { Scalar::Taken } else { Scalar::Invalid }
    }

    fn finish(self) -> Config<'a> {
        let mut config = self.config;
        let mut set = match (self.keep, self.own) {
            (_, Some(own)) => own.with(Namespaces::MOUNT),
            (Some(keep), None) => Namespaces::DEFAULT.without(keep),
            (None, None) => Namespaces::DEFAULT,
        };
        if self.net == Some(Network::None) {
            set = set.without(Namespaces::NET);
        }
        config.summary.namespaces = set;
        config.loopback = self.net == Some(Network::Empty) && set.contains(Namespaces::NET);
        config.capabilities = self.only.unwrap_or(ALL_CAPABILITIES & !self.drop.unwrap_or(0));
        config
    }
}

/// An empty value takes back what stood before; others add to it.
fn merge(before: Option<u64>, set: u64) -> Option<u64> {
    (set != 0).then(|| before.unwrap_or(0) | set)
}

fn namespaces(value: &str) -> Option<Namespaces> {
    value.split_ascii_whitespace().try_fold(Namespaces::NONE, |set, word| Some(set.with(Namespaces::from_word(word)?)))
}

fn is_absolute(path: &str) -> bool {
    path == "/" || path.strip_prefix('/').is_some_and(|below| is_plain_path(below.strip_suffix('/').unwrap_or(below)))
}

fn is_host_name(name: &str) -> bool {
    (1..=PART_NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// A signal by name, by number, or counted from the real-time ones.
fn signal(value: &str) -> Option<u8> {
    const NAMES: [(&str, u8); 14] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("PWR", SIGPWR),
    ];
    const REAL_TIME_MIN: u8 = 34; // as libc counts
    const REAL_TIME_MAX: u8 = 64;
    let counted = |base: u8, by: &str, up: bool| {
        let by = by.parse::<u8>().ok()?;
        let number = if up { base.checked_add(by) } else { base.checked_sub(by) }?;
        (REAL_TIME_MIN..=REAL_TIME_MAX).contains(&number).then_some(number)
    };
    match value.strip_prefix("SIG") {
        None => value.parse().ok().filter(|number| (1..=REAL_TIME_MAX).contains(number)),
        Some("RTMIN") => Some(REAL_TIME_MIN),
        Some("RTMAX") => Some(REAL_TIME_MAX),
        Some(name) => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(by), _) => counted(REAL_TIME_MIN, by, true),
            (_, Some(by)) => counted(REAL_TIME_MAX, by, false),
            _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
        },
    }
}

/// Names of capabilities; the index is Linux's number.
#[rustfmt::skip]
const CAPABILITIES: [&str; 41] = [
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
];
const ALL_CAPABILITIES: u64 = (1 << CAPABILITIES.len()) - 1;

fn capabilities(value: &str) -> Option<u64> {
    value.split_ascii_whitespace().try_fold(0, |set, word| {
        let number = CAPABILITIES.iter().position(|name| *name == word)?;
        Some(set | 1 << number)
    })
}

/// A line that says something.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    key: &'a str,
    value: &'a str,
    at: usize,
}

/// The lines that are neither empty nor comments. A line without `=` has an empty key, which nobody knows.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut at = 0usize;
    text.split('\n').filter_map(move |line| {
        let from = at;
        at += line.len() + 1;
        let trimmed = line.trim_ascii_start();
        let start = from + (line.len() - trimmed.len());
        if trimmed.trim_ascii_end().is_empty() || trimmed.starts_with('#') {
            return None;
        }
        let (key, value) = trimmed.split_once('=').unwrap_or(("", trimmed));
        Some(Line { key: key.trim_ascii_end(), value: unquote(value.trim_ascii()), at: start })
    })
}

/// Takes away quotes around a whole value, as LXC does, unless there are more of the same inside.
fn unquote(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote).filter(|inner: &&str| !inner.contains(quote));
    inner('"').or(inner('\'')).unwrap_or(value)
}

impl<'a> Line<'a> {
    fn refuse(&self, code: Code) -> Refusal {
        Refusal { code, key: Text::clip(self.key), at: self.at as u32 }
    }

    /// The element of a list that this line adds; `None` if its key is not one of a list.
    fn item(&self) -> Option<Result<Item<'a>, Refusal>> {
        let item = match self.key {
            "lxc.environment" => match self.value.split_once('=') {
                Some((name, value)) if !name.is_empty() => Some(Item::Environment { name, value }),
                _ => None,
            },
            "lxc.mount.entry" => Mount::parse(self.value).map(Item::Mount),
            _ => limit(self.key, self.value)?.map(|(file, value)| Item::Limit { file, value }),
        };
        Some(item.ok_or(self.refuse(Code::LxcInvalid)))
    }
}

/// The cgroup v2 file and value of a limit; the outer `None` if the key is no limit that we know.
fn limit(key: &str, value: &str) -> Option<Option<(&'static str, Text<32>)>> {
    let bytes = |file: &'static str| {
        (value == "max" || is_amount(value)).then(|| Text::new(value)).flatten().map(|v| (file, v))
    };
    let whole = |word: &str| word.parse::<u32>().is_ok();
    Some(match key {
        "lxc.cgroup2.memory.max" => bytes("memory.max"),
        "lxc.cgroup2.memory.high" => bytes("memory.high"),
        "lxc.cgroup2.memory.swap.max" => bytes("memory.swap.max"),
        "lxc.cgroup2.pids.max" | "lxc.cgroup.pids.max" => {
            (value == "max" || whole(value)).then(|| Text::new(value)).flatten().map(|v| ("pids.max", v))
        }
        "lxc.cgroup2.cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
            let good = (quota == "max" || whole(quota)) && whole(period);
            good.then(|| Text::new(value)).flatten().map(|v| ("cpu.max", v))
        }
        "lxc.cgroup2.cpu.weight" => {
            let good = value.parse::<u32>().is_ok_and(|weight| (1..=10_000).contains(&weight));
            good.then(|| Text::new(value)).flatten().map(|v| ("cpu.weight", v))
        }
        "lxc.cgroup.memory.limit_in_bytes" if value == "-1" => Text::new("max").map(|v| ("memory.max", v)),
        "lxc.cgroup.memory.limit_in_bytes" => bytes("memory.max"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config<'_> {
        Config::parse(text.as_bytes()).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    #[track_caller]
    fn refused(text: &str, code: Code, key: &str, at: u32) {
        let refusal = Config::parse(text.as_bytes()).unwrap_err();
        assert_eq!((refusal.code, refusal.key.as_str(), refusal.at), (code, key, at), "{text}");
    }

    fn mount(entry: &str) -> Option<Mount<'_>> {
        Mount::parse(entry)
    }

    #[test]
    fn reads_what_the_originals_template_writes() {
        let web = config(include_str!("../vectors/template/web/lxc.container.conf"));
        let expected = Rootfs::Overlay { lower: "/volumes/web/root.squashfs", upper: "/volumes/web/lxc-overlay/upper" };
        assert_eq!(web.rootfs, Some(expected));
        // the template writes no spaces between quoted words
        assert!(web.init.words().eq(["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]));
        assert_eq!((web.init_folder, web.host_name, web.standard_devices), ("/srv", None, true));
        assert_eq!((web.terminals, web.pseudo_terminals_max), (8, 1024));
        let own = Namespaces::MOUNT.with(Namespaces::PID).with(Namespaces::UTS).with(Namespaces::CGROUP);
        assert_eq!(web.summary, Summary { namespaces: own, halt_signal: 30, stop_signal: 9 });
        assert_eq!(web.auto.proc, Some(Access::Mixed));
        assert_eq!((web.auto.sys, web.auto.cgroup), (Some(Access::ReadWrite), Some(Access::Mixed)));
        assert_eq!(web.capabilities, ALL_CAPABILITIES);
        let mut items = web.items();
        assert_eq!(items.next(), Some(Item::Environment { name: "PATH", value: "/usr/bin" }));
        assert_eq!(items.next(), Some(Item::Environment { name: "X", value: "1" }));
        let Some(Item::Mount(resolv)) = items.next() else { panic!() };
        assert_eq!(
            (resolv.source, resolv.target, resolv.kind),
            ("/etc/resolv.conf", "etc/resolv.conf", MountKind::Bind)
        );
        assert_eq!((resolv.create, resolv.optional, resolv.flags), (Create::File, false, MountFlags::default()));
        let Some(Item::Mount(run)) = items.next() else { panic!() };
        assert_eq!((run.kind, run.target, run.create), (MountKind::Tmpfs, "run", Create::Folder));
        assert!(run.parameters().eq([("mode", "755")]));
        assert!(run.flags.no_dev && run.flags.relatime && !run.flags.read_only);
        assert_eq!(items.count(), 3);

        let ov = config(include_str!("../vectors/template/ov/lxc.container.conf"));
        assert!(ov.init.words().eq(["/sbin/init"]));
        let targets = ov.items().filter_map(|item| match item {
            Item::Mount(mount) => Some(mount.target),
            _ => None,
        });
        assert!(targets.eq(["etc/resolv.conf", "run", "ovl:/etc"]));
    }

    #[test]
    fn an_empty_configuration_is_lxcs_default() {
        let empty = config("\n  \n# comment = x\n\t# another\n");
        assert_eq!(empty.summary, Summary::DEFAULT);
        assert_eq!(empty.summary.namespaces.clone_flags(), 0x6e02_0000);
        assert!(empty.init.words().eq(["/sbin/init"]));
        assert_eq!((empty.rootfs, empty.items().count()), (None, 0));
    }

    #[test]
    fn root_file_systems() {
        assert_eq!(Rootfs::parse("/a/b"), Some(Rootfs::Folder("/a/b")));
        assert_eq!(Rootfs::parse("dir:rootfs"), Some(Rootfs::Folder("rootfs")));
        let three = Rootfs::parse("overlay:/top:/below:/upper").unwrap();
        assert_eq!(three, Rootfs::Overlay { lower: "/top:/below", upper: "/upper" });
        assert!(three.lowers().eq(["/top", "/below"]));
        for bad in [
            "",
            "overlay:/a",
            "overlay::/u",
            "overlay:/a:",
            "overlay:/a,redirect_dir=on:/u",
            "overlay:/a:/u,upperdir=/etc",
            "overlay:/a:/../u",
            "overlay:/a/../..:/u",
            "loop:/x",
            "/a/../b",
            "zfs:a:b",
        ] {
            assert_eq!(Rootfs::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn commands_are_split_as_lxc_splits_them() {
        for (line, words) in [
            ("/bin/sh", &["/bin/sh"][..]),
            ("  a   b\tc ", &["a", "b", "c"]),
            (r#"a "b c" 'd "e"' """#, &["a", "b c", "d \"e\"", ""]),
            (r#"a b"c d"#, &["a", "b\"c", "d"]),
            (r#"a \"b"#, &["a", "\\\"b"]),
        ] {
            assert!(Command::parse(line).unwrap().words().eq(words.iter().copied()), "{line}");
        }
        for bad in ["", "  ", r#"a "b"#, "a 'b", r#""" x"#] {
            assert_eq!(Command::parse(bad), None, "{bad}");
        }
        assert!(Command::parse(&"x ".repeat(INIT_ARGS_MAX)).is_some());
        assert!(Command::parse(&"x ".repeat(INIT_ARGS_MAX + 1)).is_none());
        assert!(config("lxc.init.cmd = \"/bin/a b\"").init.words().eq(["/bin/a", "b"]), "LXC unquotes whole values");
        assert!(config(r#"lxc.init.cmd = "/a b" "c""#).init.words().eq(["/a b", "c"]));
    }

    #[test]
    fn namespaces_and_network() {
        let of = |text: &str| config(text).summary.namespaces;
        let all = Namespaces::DEFAULT;
        assert_eq!(of("lxc.namespace.keep = net ipc"), all.without(Namespaces::NET).without(Namespaces::IPC));
        assert_eq!(of("lxc.namespace.keep = user"), all);
        assert_eq!(of("lxc.namespace.clone = pid net"), Namespaces::MOUNT.with(Namespaces::PID).with(Namespaces::NET));
        assert_eq!(of("lxc.namespace.keep = net\nlxc.namespace.keep ="), all);
        assert_eq!(of("lxc.net.0.type = none"), all.without(Namespaces::NET));
        assert!(!config("lxc.net.0.type = none").loopback);
        assert!(config("lxc.net.0.type = empty").loopback);
        assert!(!config("lxc.net.0.type = empty\nlxc.namespace.keep = net").loopback);
        assert!(!config("").loopback);
        refused("lxc.namespace.keep = mnt", Code::LxcInvalid, "lxc.namespace.keep", 0);
        refused("lxc.namespace.keep = nets", Code::LxcInvalid, "lxc.namespace.keep", 0);
        refused("lxc.namespace.clone = user", Code::LxcInvalid, "lxc.namespace.clone", 0);
        refused("lxc.namespace.keep = net\nlxc.namespace.clone = pid", Code::LxcInvalid, "lxc.namespace.clone", 25);
        refused("lxc.net.0.type = veth", Code::LxcInvalid, "lxc.net.0.type", 0);
    }

    #[test]
    #[rustfmt::skip]
    fn mounts() {
        let bind = mount("/a b none rbind,ro,nosuid,nodev,noexec,noatime,optional").unwrap();
        assert_eq!((bind.kind, bind.optional, bind.create), (MountKind::RecursiveBind, true, Create::No));
        let all = MountFlags { read_only: true, no_suid: true, no_dev: true, no_exec: true, no_atime: true, relatime: false };
        assert_eq!(bind.flags, all);
        assert!(mount("/dev/ dev none bind,rw,create=dir 0 0").is_some());
        assert!(mount("/ host none bind,rw,create=dir 0 0").is_some());
        assert!(mount("rel/path /abs/target none bind").is_some_and(|m| m.target == "abs/target"));
        let tmpfs = mount("tmpfs tmp tmpfs rw,mode=1777,size=10%,nr_inodes=4k,uid=0,create=dir").unwrap();
        assert!(tmpfs.parameters().eq([("mode", "1777"), ("size", "10%"), ("nr_inodes", "4k"), ("uid", "0")]));
        for bad in [
            "", "/a", "/a b", "/a b none", "/a b none ro", "/a b none bind 0 0 0", "/a b none bind x", "/a ../b none bind",
            "/a / none bind", "/a b/../../c none bind", "/../a b none bind", "/a b ext4 ro", "/a b none bind,mode=755",
            "tmpfs t tmpfs bind", "tmpfs t tmpfs mode=999", "tmpfs t tmpfs mode=17777", "tmpfs t tmpfs size=x",
            "tmpfs t tmpfs size=", "tmpfs t tmpfs foo", "tmpfs t tmpfs foo=1", r"/a\040b c none bind", "/a b none bind,shared",
            "/a b none bind,,ro", "/a b none bind,create=link",
        ] {
            assert_eq!(mount(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_are_those_of_cgroup_v2() {
        let text = "lxc.cgroup2.memory.max = 64M\nlxc.cgroup.memory.limit_in_bytes = 1M\nlxc.cgroup2.pids.max = 20\n\
            lxc.cgroup2.cpu.max = 50000 100000\nlxc.cgroup.memory.limit_in_bytes = -1\nlxc.cgroup2.cpu.weight = 10";
        let limits: std::vec::Vec<_> = config(text)
            .items()
            .map(|item| match item {
                Item::Limit { file, value } => (file, value.to_string()),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [
            ("memory.max", "64M"),
            ("memory.max", "1M"),
            ("pids.max", "20"),
            ("cpu.max", "50000 100000"),
            ("memory.max", "max"),
            ("cpu.weight", "10"),
        ];
        assert!(limits.iter().map(|(file, value)| (*file, value.as_str())).eq(expected));
        for bad in
            ["memory.max = x", "memory.max = -1", "pids.max = 1k", "cpu.max = 1 2 3", "cpu.max = ", "cpu.weight = 0"]
        {
            let key = format!("lxc.cgroup2.{}", bad.split(' ').next().unwrap());
            refused(&format!("lxc.cgroup2.{bad}"), Code::LxcInvalid, &key, 0);
        }
    }

    #[test]
    fn signals_and_capabilities() {
        for (word, number) in [
            ("SIGTERM", 15),
            ("SIGPWR", 30),
            ("9", 9),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-14", 50),
        ] {
            assert_eq!(signal(word), Some(number), "{word}");
        }
        for bad in ["", "0", "65", "TERM", "SIGNOPE", "SIGRTMIN+31", "SIGRTMIN+255", "SIGRTMAX-31", "SIGRTMIN-1", "-1"]
        {
            assert_eq!(signal(bad), None, "{bad}");
        }
        let of = |text: &str| config(text).capabilities;
        assert_eq!(
            of("lxc.cap.drop = chown sys_admin\nlxc.cap.drop = kill"),
            ALL_CAPABILITIES & !(1 | 1 << 21 | 1 << 5)
        );
        assert_eq!(of("lxc.cap.drop = chown\nlxc.cap.drop =\nlxc.cap.drop = kill"), ALL_CAPABILITIES & !(1 << 5));
        assert_eq!(of("lxc.cap.keep = net_raw checkpoint_restore"), 1 << 13 | 1 << 40);
        assert_eq!(of("lxc.cap.keep = none"), 0);
        refused("lxc.cap.keep = CHOWN", Code::LxcInvalid, "lxc.cap.keep", 0);
        refused("lxc.cap.keep = chown\nlxc.cap.drop = kill", Code::LxcInvalid, "lxc.cap.drop", 21);
    }

    #[test]
    fn refuses_by_name_and_byte() {
        for (text, code, key, at) in [
            ("lxc.tty.max = 1\n  lxc.hook.mount = /x", Code::LxcKeyUnknown, "lxc.hook.mount", 18),
            ("lxc.include = /etc/passwd", Code::LxcKeyUnknown, "lxc.include", 0),
            ("lxc.cgroup.devices.deny = a", Code::LxcKeyUnknown, "lxc.cgroup.devices.deny", 0),
            ("lxc.cgroup2.io.max = x", Code::LxcKeyUnknown, "lxc.cgroup2.io.max", 0),
            ("lxc.net.1.type = none", Code::LxcKeyUnknown, "lxc.net.1.type", 0),
            ("lxc.prlimit.nofile = 1", Code::LxcKeyUnknown, "lxc.prlimit.nofile", 0),
            ("lxc.seccomp.profile = x", Code::LxcKeyUnknown, "lxc.seccomp.profile", 0),
            ("lxc.cgroup.devices.allow = c 1:3 rwm", Code::LxcInvalid, "lxc.cgroup.devices.allow", 0),
            ("no equals sign", Code::LxcInvalid, "", 0),
            ("= x", Code::LxcInvalid, "", 0),
            ("lxc.tty.max = -1", Code::LxcInvalid, "lxc.tty.max", 0),
            ("lxc.pty.max = 4294967296", Code::LxcInvalid, "lxc.pty.max", 0),
            ("lxc.autodev = yes", Code::LxcInvalid, "lxc.autodev", 0),
            ("lxc.no_new_privs = 2", Code::LxcInvalid, "lxc.no_new_privs", 0),
            ("lxc.console.path = /dev/console", Code::LxcInvalid, "lxc.console.path", 0),
            ("lxc.init.cmd =", Code::LxcInvalid, "lxc.init.cmd", 0),
            ("lxc.init.cwd = srv", Code::LxcInvalid, "lxc.init.cwd", 0),
            ("lxc.init.cwd = /a/../..", Code::LxcInvalid, "lxc.init.cwd", 0),
            ("lxc.uts.name = a/b", Code::LxcInvalid, "lxc.uts.name", 0),
            ("lxc.environment = X", Code::LxcInvalid, "lxc.environment", 0),
            ("lxc.environment = =x", Code::LxcInvalid, "lxc.environment", 0),
            ("lxc.environment = A=\0", Code::LxcInvalid, "lxc.environment", 0),
            ("lxc.mount.auto = proc tmp", Code::LxcInvalid, "lxc.mount.auto", 0),
            ("lxc.mount.auto = proc:ro", Code::LxcInvalid, "lxc.mount.auto", 0),
            ("lxc.mount.entry = x", Code::LxcInvalid, "lxc.mount.entry", 0),
            ("lxc.signal.halt = SIGX", Code::LxcInvalid, "lxc.signal.halt", 0),
            ("lxc.rootfs.path = nbd:x", Code::LxcInvalid, "lxc.rootfs.path", 0),
        ] {
            refused(text, code, key, at);
        }
        refused(&" ".repeat(LXC_CONF_MAX + 1), Code::LxcTooLarge, "", LXC_CONF_MAX as u32);
        assert_eq!(Config::parse(b"# \xff").unwrap_err(), Refusal::at(Code::LxcInvalid, 2));
        config("lxc.init.cwd = /\r\nlxc.uts.name = a.b-c\r\n");
        config("lxc.log.file = /pv/logs/x.log\nlxc.console.path = none\nlxc.autodev = 0\nlxc.no_new_privs = 1");
    }

    #[test]
    fn changing_any_byte_is_accepted_or_refused_and_never_panics() {
        let text = include_bytes!("../vectors/template/web/lxc.container.conf");
        for at in 0..text.len() {
            for byte in *b"\0\n =\"'/.:,\\x0#\xc3" {
                let mut copy = *text;
                copy[at] = byte;
                if let Ok(config) = Config::parse(&copy) {
                    let _ = (
                        config.items().count(),
                        config.init.words().count(),
                        config.rootfs.map(|r| r.lowers().count()),
                    );
                }
            }
        }
    }
}
