//! What PID 1 is told before it decides anything: the device policy in the initramfs and the kernel command line.
//!
//! Both are bounded and read once. A line of the policy that is not understood is logged and skipped: the file
//! belongs to the image and was made by a `pvr` that may know more. Words of the command line count only if they
//! start with `pv_`; a value that is not valid is as if it were absent.

use crate::usb;
use log::warn;
use runtime::{
    id::{RevName, Text},
    limits,
};

/// The policy file.
pub const POLICY: &str = "/etc/pantavisor.config";
/// Longest policy file.
const POLICY_MAX: usize = 16 * 1024;
/// Longest value that we keep.
pub type Value = Text<64>;

/// The device policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// `switchback.board`: which board this is.
    pub board: Value,
    /// `switchback.endpoint`: address on which `pvr` is served; absent: closed.
    pub endpoint: Option<Value>,
    /// `switchback.endpoint-access`: who is served there; closed to strangers unless it says otherwise.
    pub access: Access,
    /// `switchback.endpoint-names`: names besides its own by which clients may call it, separated by commas.
    pub names: Value,
    /// `switchback.console`: terminal on which `pvcontrol` is served; absent: none.
    pub console: Option<Value>,
    /// `switchback.usb-install`: file systems, separated by commas, that are mounted of a USB stick to look for an exported
    /// revision; absent: none is.
    pub usb: Option<Value>,
    /// `switchback.usb-disks`: disks by their kernel names, separated by commas, that count besides those on a USB bus.
    pub usb_disks: Value,
    /// `switchback.grow`: whether storage grows to the end of its disk; `yes` unless it says `no`.
    pub grow: bool,
    /// `PV_SECUREBOOT_MODE`.
    pub secureboot: Value,
    /// `PV_UPDATER_COMMIT_DELAY`, seconds.
    pub commit_delay_s: u32,
    /// `PV_UPDATER_GOALS_TIMEOUT`, seconds.
    pub goals_timeout_s: u32,
}

/// Whom the endpoint serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// `paired`: who was paired with a code shown on the device, over TLS only. A binary without TLS serves nobody.
    Paired,
    /// `paired-plain`: the same, and over plain HTTP too, where whoever listens on the way reads the token.
    PairedPlain,
    /// `open`: everybody, over plain HTTP. For development.
    Open,
}

impl Access {
    /// From its word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Paired, Self::PairedPlain, Self::Open].into_iter().find(|access| access.word() == word)
    }

    /// As the policy says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::PairedPlain => "paired-plain",
            Self::Open => "open",
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            board: Text::EMPTY,
            endpoint: None,
            access: Access::Paired,
            names: Text::EMPTY,
            console: None,
            usb: None,
            usb_disks: Text::EMPTY,
            grow: true,
            secureboot: Text::clip("strict"),
            commit_delay_s: limits::COMMIT_DELAY_S,
            goals_timeout_s: limits::GOALS_TIMEOUT_S,
        }
    }
}

impl Policy {
    /// Reads the policy file; the defaults if there is none.
    pub fn load() -> Self {
        match std::fs::read_to_string(POLICY) {
            Ok(text) if text.len() <= POLICY_MAX => Self::parse(&text),
            Ok(text) => {
                warn!("{POLICY}: {} bytes, at most {POLICY_MAX} are read: the built-in policy is used", text.len());
                Self::default()
            }
            Err(error) => {
                warn!("{POLICY}: {error}: the built-in policy is used");
                Self::default()
            }
        }
    }

    /// Reads lines `KEY=VALUE`; `#` starts a comment line.
    pub fn parse(text: &str) -> Self {
        let mut policy = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let set = line.split_once('=').and_then(|(key, value)| policy.set(key.trim(), value.trim()));
            if set.is_none() {
                warn!("{POLICY}: `{line}` is not understood and has no effect");
            }
        }
        policy
    }

    /// The board, if it is one that we know.
    pub fn known_board(&self) -> Option<&'static boards::Board> {
        boards::find(self.board.as_str())
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "switchback.board" => self.board = Value::new(value)?,
            "switchback.endpoint" => self.endpoint = Some(Value::new(value)?).filter(|_| !value.is_empty()),
            "switchback.endpoint-access" => self.access = Access::from_word(value)?,
            "switchback.endpoint-names" => self.names = Value::new(value)?,
            "switchback.console" => self.console = Some(Value::new(value)?).filter(|_| !value.is_empty()),
            "switchback.usb-install" => self.usb = file_systems(value)?,
            "switchback.usb-disks" => self.usb_disks = Value::new(value)?,
            "switchback.grow" => self.grow = ["no", "yes"].iter().position(|word| *word == value)? == 1,
            "PV_SECUREBOOT_MODE" => self.secureboot = Value::new(value)?,
            "PV_UPDATER_COMMIT_DELAY" => self.commit_delay_s = value.parse().ok()?,
            "PV_UPDATER_GOALS_TIMEOUT" => self.goals_timeout_s = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

/// A list of file systems that can be mounted of a stick, whole or not at all; the inner `None` for an empty one.
fn file_systems(value: &str) -> Option<Option<Value>> {
    match value.split(',').all(|kind| usb::KINDS.iter().any(|(known, _)| *known == kind)) {
        true => Value::new(value).map(Some),
        false => value.is_empty().then_some(None),
    }
}

/// What the loader says on the kernel command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cmdline {
    /// `pv_rev`: the revision that it booted.
    pub booted: Option<RevName>,
    /// `pv_try`: the candidate that was armed when it decided.
    pub candidate: Option<RevName>,
    /// `pv_bootcount`.
    pub bootcount: u32,
    /// `pv_script`: 0 if it does not say.
    pub script: u16,
    /// `pv_canary`: false if it says that it could not save its counter.
    pub canary: bool,
}

impl Cmdline {
    /// Reads `/proc/cmdline`.
    pub fn load() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    /// Reads the words that are ours; the last of a kind counts, as for the kernel's own.
    pub fn parse(text: &str) -> Self {
        let mut facts = Self { booted: None, candidate: None, bootcount: 0, script: 0, canary: true };
        for (key, value) in text.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "pv_rev" => facts.booted = RevName::parse(value).ok(),
                "pv_try" => facts.candidate = RevName::parse(value).ok(),
                "pv_bootcount" => facts.bootcount = value.parse().unwrap_or(0),
                "pv_script" => facts.script = value.parse().unwrap_or(0),
                "pv_canary" => facts.canary = value != "bad",
                _ => {}
            }
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_line_by_line() {
        let policy = Policy::parse(
            "# made by pvr image\nswitchback.board=qemu-arm64\nPV_SECUREBOOT_MODE=disabled\n\
             switchback.endpoint=0.0.0.0:12368\nswitchback.endpoint-access=open\nswitchback.console=hvc0\nswitchback.grow=no\nPV_UPDATER_COMMIT_DELAY=3\nX=1\nno value\n",
        );
        assert_eq!(policy.board.as_str(), "qemu-arm64");
        assert_eq!(policy.endpoint.unwrap().as_str(), "0.0.0.0:12368");
        assert_eq!((policy.access, policy.grow), (Access::Open, false));
        assert_eq!(policy.console.unwrap().as_str(), "hvc0");
        assert_eq!(policy.secureboot.as_str(), "disabled");
        assert_eq!((policy.commit_delay_s, policy.goals_timeout_s), (3, limits::GOALS_TIMEOUT_S));
    }

    #[test]
    fn a_bad_value_leaves_the_safe_default() {
        let policy = Policy::parse(
            "PV_UPDATER_COMMIT_DELAY=-1\nswitchback.endpoint=\nswitchback.endpoint-access=Open\nswitchback.grow=1\n",
        );
        assert_eq!(policy, Policy::default());
    }

    #[test]
    fn sticks_are_mounted_only_as_file_systems_that_are_known() {
        let usb = |value: &str| Policy::parse(&format!("switchback.usb-install={value}\n")).usb;
        assert_eq!(usb("vfat,ext4").unwrap().as_str(), "vfat,ext4");
        for closed in ["", "on", "vfat,", "vfat,ntfs", "VFAT", "vfat ext4"] {
            assert_eq!(usb(closed), None, "{closed}");
        }
        assert_eq!(Policy::parse("switchback.usb-disks=mmcblk1\n").usb, None, "naming a disk opens nothing");
    }

    #[test]
    fn the_loader_is_believed_word_by_word() {
        let facts =
            Cmdline::parse("console=ttyAMA0 pv_rev=locals/a pv_try= pv_bootcount=2 pv_script=1 pv_canary=bad\n");
        assert_eq!(facts.booted, RevName::parse("locals/a").ok());
        assert_eq!(facts, Cmdline { booted: facts.booted, candidate: None, bootcount: 2, script: 1, canary: false });
        let none = Cmdline::parse("pv_rev=../etc pv_bootcount=many");
        assert_eq!(none, Cmdline { booted: None, candidate: None, bootcount: 0, script: 0, canary: true });
    }
}
