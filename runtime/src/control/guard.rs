//! What the status says of the board: how loader and device agree, which watchdog guards it, and what it does not
//! survive without a person, in words.
//!
//! The facts are the world's; here they become members and sentences. A guarantee is what holds on this boot, with the
//! watchdog that was really found, and may be weaker than what the board could give.

use crate::{fault::Code, json::Writer};
use core::fmt;

/// A board as it is on this boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Board<'a> {
    /// Its name.
    pub name: &'a str,
    /// How its loader and we agree which revision boots.
    pub environment: Environment<'a>,
    /// What holds on it.
    pub guarantee: Guarantee,
    /// How often a candidate is tried.
    pub tries: Tries<'a>,
    /// The watchdog in use; none was found, or could be opened.
    pub watchdog: Option<Watchdog<'a>>,
    /// The loader starts the board's own watchdog before Linux.
    pub armed_by_loader: bool,
}

/// A loader's environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Environment<'a> {
    /// The kind's word.
    pub kind: &'a str,
    /// How many copies there are.
    pub copies: u8,
    /// Which of them decides; or why none does.
    pub copy: Result<InForce, Code>,
}

/// The copy of the environment that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InForce {
    /// Its number, from 1.
    pub number: u8,
    /// The other one is not valid.
    pub damaged: bool,
}

impl InForce {
    /// After a store, which goes to the other copy where there is one.
    pub fn stored(self, copies: u8) -> Self {
        Self { number: if copies > 1 { 3 - self.number } else { self.number }, damaged: false }
    }
}

/// What is given up, and gone back from, without a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guarantee {
    /// A write of the environment that power cuts in half.
    pub torn_write: bool,
    /// A candidate that hangs before Linux drives the watchdog.
    pub hang_before_linux: bool,
    /// A candidate whose kernel hangs.
    pub hang_of_kernel: bool,
    /// A candidate whose PID 1 hangs.
    pub hang_of_init: bool,
}

/// How often a candidate is tried that does not reach us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tries<'a> {
    /// Who counts.
    pub counted_by: &'a str,
    /// How often, unless the environment says another limit.
    pub default: u8,
}

/// A watchdog in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchdog<'a> {
    /// What its driver calls it.
    pub identity: &'a str,
    /// Its time-out in force, seconds.
    pub timeout_s: u32,
    /// It covers a kernel that hangs, too: no timer of the kernel.
    pub covers_kernel: bool,
    /// What it says of the last reset.
    pub reset: Reset,
}

/// What hardware says of the last reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// The watchdog made it.
    Watchdog,
    /// It did not.
    Other,
    /// It cannot tell.
    Unknown,
}

impl Reset {
    /// Its word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Reset::Watchdog => "by the watchdog",
            Reset::Other => "not by the watchdog",
            Reset::Unknown => "unknown",
        }
    }
}

impl Board<'_> {
    /// Writes its members into the status.
    pub(super) fn write_members(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.key("board")?;
        out.begin_object()?;
        out.text_member("name", self.name)?;
        out.end_object()?;
        self.environment.write(out)?;
        self.write_watchdog(out)?;
        out.key("tries")?;
        out.begin_object()?;
        out.text_member("counted_by", self.tries.counted_by)?;
        out.number_member("default", u64::from(self.tries.default))?;
        out.end_object()?;
        self.guarantee.write_members(out)
    }

    fn write_watchdog(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.key("watchdog")?;
        let Some(watchdog) = self.watchdog else { return out.null() };
        out.begin_object()?;
        out.text_member("driver", watchdog.identity)?;
        out.number_member("timeout_s", u64::from(watchdog.timeout_s))?;
        out.key("armed_by_loader")?;
        out.bool(self.armed_by_loader)?;
        out.text_member("last_reset", watchdog.reset.word())?;
        out.end_object()
    }
}

impl Environment<'_> {
    fn write(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.key("environment")?;
        out.begin_object()?;
        out.text_member("kind", self.kind)?;
        out.number_member("copies", u64::from(self.copies))?;
        match self.copy {
            Ok(InForce { number, damaged }) => {
                out.number_member("in_force", u64::from(number))?;
                out.key("damaged")?;
                out.bool(damaged)?;
            }
            Err(code) => {
                out.key("code")?;
                out.display(&code)?;
                out.text_member("reason", code.text())?;
                out.text_member("next", next(code))?;
            }
        }
        out.end_object()
    }
}

/// What a person does about an environment of which no copy is in force.
fn next(code: Code) -> &'static str {
    match code {
        Code::EnvInvalid => {
            "name a revision that is on this device as pv_rev (in boot/uboot.txt, or with fw_setenv), and restart; no update is \
             taken until then"
        }
        Code::EnvFull => {
            "take out of the loader's environment what it does not need (of boot/uboot.txt at most 512 bytes are used), and \
             restart; no update is taken until then"
        }
        Code::EnvLayout => {
            "compare files, sizes and offsets with the board's description; if this is another board, set switchback.board in the \
             device policy"
        }
        Code::EnvUnsupported => "set switchback.board in the device policy to a board that this release knows",
        Code::NoSpace => "make room on storage, and restart",
        _ => "read the kernel's log, and restart; if it comes again, the medium is failing",
    }
}

impl Guarantee {
    fn write_members(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.key("survives")?;
        out.begin_object()?;
        for (name, holds) in [
            ("torn_write", self.torn_write),
            ("hang_before_linux", self.hang_before_linux),
            ("hang_of_kernel", self.hang_of_kernel),
            ("hang_of_init", self.hang_of_init),
        ] {
            out.key(name)?;
            out.bool(holds)?;
        }
        out.end_object()?;
        out.key("not_survived")?;
        out.begin_array()?;
        for sentence in self.not_survived().into_iter().flatten() {
            out.text(sentence)?;
        }
        out.end_array()
    }

    /// What needs a person, a sentence each.
    fn not_survived(&self) -> [Option<&'static str>; 4] {
        let sentence = |holds: bool, sentence| if holds { None } else { Some(sentence) };
        [
            sentence(self.torn_write, "a power cut while the environment is written may leave none that is valid"),
            sentence(self.hang_before_linux, "a candidate that hangs before Linux runs: each try needs a power cycle"),
            sentence(self.hang_of_kernel, "a candidate whose kernel hangs: each try needs a power cycle"),
            sentence(self.hang_of_init, "a candidate whose PID 1 hangs: each try needs a power cycle"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Guarantee =
        Guarantee { torn_write: true, hang_before_linux: true, hang_of_kernel: true, hang_of_init: true };

    fn text(board: Board<'_>) -> std::string::String {
        let mut text = std::string::String::new();
        let mut out = Writer::new(&mut text);
        out.begin_object().unwrap();
        board.write_members(&mut out).unwrap();
        out.end_object().unwrap();
        text
    }

    #[test]
    fn what_holds_and_what_does_not_is_written() {
        let watchdog = Watchdog { identity: "w", timeout_s: 30, covers_kernel: true, reset: Reset::Watchdog };
        let environment = Environment { kind: "k", copies: 2, copy: Ok(InForce { number: 1, damaged: true }) };
        let (tries, watchdog) = (Tries { counted_by: "l", default: 3 }, Some(watchdog));
        let board = Board { name: "b", environment, guarantee: ALL, tries, watchdog, armed_by_loader: true };
        assert_eq!(
            text(board),
            concat!(
                r#"{"board":{"name":"b"},"#,
                r#""environment":{"kind":"k","copies":2,"in_force":1,"damaged":true},"#,
                r#""watchdog":{"driver":"w","timeout_s":30,"armed_by_loader":true,"last_reset":"by the watchdog"},"#,
                r#""tries":{"counted_by":"l","default":3},"#,
                r#""survives":{"torn_write":true,"hang_before_linux":true,"hang_of_kernel":true,"hang_of_init":true},"#,
                r#""not_survived":[]}"#,
            )
        );
        let none = Guarantee { torn_write: false, hang_of_init: false, ..ALL };
        let environment = Environment { copy: Err(Code::EnvInvalid), ..environment };
        let text = text(Board { environment, guarantee: none, watchdog: None, ..board });
        assert!(text.contains(r#""copies":2,"code":"SB1408","reason":"both copies"#), "{text}");
        assert!(text.contains(r#","next":"name a revision"#), "{text}");
        assert!(text.contains(r#""watchdog":null,"tries":"#) && text.contains(r#"{"torn_write":false,"#), "{text}");
        assert!(
            text.contains(r#"["a power cut while"#) && text.contains(r#""a candidate whose PID 1 hangs:"#),
            "{text}"
        );
        assert!(!text.contains("kernel hangs:") && !text.contains("before Linux"), "{text}");
    }

    #[test]
    fn each_reason_for_having_no_environment_has_its_own_next_step() {
        let codes = [
            Code::EnvInvalid,
            Code::EnvFull,
            Code::EnvLayout,
            Code::EnvUnsupported,
            Code::NoSpace,
            Code::StorageIo, // and all others
        ];
        let mut told = codes.map(next);
        told.sort_unstable();
        assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
        assert_eq!(next(Code::CheckpointFailed), next(Code::StorageIo));
    }

    #[test]
    fn a_store_goes_to_the_other_copy_and_heals_it() {
        let first = InForce { number: 1, damaged: true };
        assert_eq!(first.stored(2), InForce { number: 2, damaged: false });
        assert_eq!(first.stored(2).stored(2), InForce { number: 1, damaged: false });
        assert_eq!(first.stored(1).number, 1);
    }

    #[test]
    fn each_fault_that_is_not_survived_is_named() {
        for index in 0..4 {
            let holds = |fault| fault != index;
            let guarantee = Guarantee {
                torn_write: holds(0),
                hang_before_linux: holds(1),
                hang_of_kernel: holds(2),
                hang_of_init: holds(3),
            };
            let said = guarantee.not_survived();
            assert!(
                said.iter().enumerate().all(|(fault, sentence)| sentence.is_some() == (fault == index)),
                "{said:?}"
            );
        }
    }
}
