//! One error for all verbs: what went wrong, what to try next, and with which code the program ends.
//!
//! The exit codes are stable; scripts may rely on them:
//! 1 this machine (files, tools, memory), 2 wrong usage or no repository, 3 the input is wrong and nothing was
//! done, 4 the other side could not be reached or spoke nonsense, 5 the other side refused.

use crate::shown::shown_lines;
use std::{fmt, io};

/// What kind of trouble it is; decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// This machine: a file, a missing tool.
    Host = 1,
    /// Wrong arguments, or not inside a repository.
    Usage = 2,
    /// A document or a file is not what it must be.
    Input = 3,
    /// No connection, or an answer that is not of the protocol.
    Remote = 4,
    /// The device or the hub said no.
    Refused = 5,
}

/// What a verb ends with when it cannot do its work.
#[derive(Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What, where and why, in one line.
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
}

/// The result of every fallible function here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Something about this machine.
    pub fn host(message: impl Into<String>) -> Self {
        Self::new(Kind::Host, message)
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A document that is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Trouble with the other side.
    pub fn remote(message: impl Into<String>) -> Self {
        Self::new(Kind::Remote, message)
    }

    /// Adds what to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"error": self.message, "hint": self.hint, "code": self.exit_code()})
    }

    /// The code with which the program ends.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths, and what the other side said, are in it.
        write!(f, "ERROR: {}", shown_lines(&self.message))?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", shown_lines(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Says what was being done when an input or output operation failed.
pub trait During<T> {
    /// `what` completes "cannot …".
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::host(format!("cannot {}: {e}", what().into())))
    }
}
