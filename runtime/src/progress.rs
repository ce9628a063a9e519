//! What an update tells: status, message, percentage, as one JSON document.
//!
//! Invariants: a final status is made of a journal record alone, so that what is shown before and after a reboot
//! is the same; DONE is made of no other record than that of a commit. Words and numbers are those of the
//! original (reference: device-formats 3.2); `code` and `reason` are additions.

use crate::{
    fault::Code,
    id::PartName,
    journal::{Phase, Record},
    json::Writer,
};
use core::fmt;

/// How far an update is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Staged.
    New,
    /// Being prepared, switched to or started.
    InProgress,
    /// Goals met, not committed yet.
    Testing,
    /// Committed.
    Done,
    /// Refused before anything was changed.
    WontGo,
    /// Tried, failed and rolled back.
    Error,
}

/// The progress of one revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// How far it is.
    pub status: Status,
    /// The same for people.
    pub message: &'static str,
    /// Why it failed.
    pub code: Option<Code>,
    /// Which container is to blame.
    pub container: Option<PartName>,
}

impl Status {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Status::New => "NEW",
            Status::InProgress => "INPROGRESS",
            Status::Testing => "TESTING",
            Status::Done => "DONE",
            Status::WontGo => "WONTGO",
            Status::Error => "ERROR",
        }
    }

    /// Its percentage.
    pub fn percent(self) -> u64 {
        match self {
            Status::New => 0,
            Status::InProgress => 50,
            Status::Testing => 75,
            Status::Done | Status::WontGo | Status::Error => 100,
        }
    }
}

impl Progress {
    /// A staged revision that nobody has run yet.
    pub const STAGED: Self = Self::new(Status::New, "Update ready to be run");
    /// The factory revision.
    pub const FACTORY: Self = Self::new(Status::Done, "Factory revision");
    /// A candidate that will be tried by a reboot.
    pub const REBOOTING: Self = Self::new(Status::InProgress, "Rebooting");
    /// A candidate that will be tried in place.
    pub const SWITCHING: Self = Self::new(Status::InProgress, "Transitioning to new revision without rebooting");
    /// A candidate whose goals are awaited.
    pub const TRYING: Self = Self::new(Status::InProgress, "Trying new revision");
    /// A candidate booted, its goals met, before the commit delay is over.
    pub const TESTING_BOOT: Self = Self::new(Status::Testing, "Awaiting to set rollback point if update is stable");
    /// A candidate in place, its goals met, before the commit delay is over.
    pub const TESTING_IN_PLACE: Self = Self::new(Status::Testing, "Awaiting to see if update is stable");
    /// A candidate of which some container is not yet stable.
    pub const TESTING_STABLE: Self = Self::new(Status::Testing, "Waiting for all containers to become stable");
    /// A committed revision.
    pub const DONE: Self = Self::new(Status::Done, "Update finished, revision set as rollback point");

    const fn new(status: Status, message: &'static str) -> Self {
        Self { status, message, code: None, container: None }
    }

    /// What a record of the journal says; `None` if the update that it is about has not ended.
    pub fn of(record: &Record) -> Option<Self> {
        match record.phase {
            Phase::Done { .. } if record.candidate == record.previous => Some(Self::FACTORY), // it stands for no update
            Phase::Done { .. } => Some(Self::DONE),
            Phase::Failed { code, container } => Some(Self::failed(code, container)),
            Phase::Armed | Phase::Trial { .. } => None,
        }
    }

    /// An update that failed.
    pub fn failed(code: Code, container: Option<PartName>) -> Self {
        let (status, message) = match code {
            Code::NoSpace => (Status::WontGo, "Not enough disk space available"),
            Code::StorageIo | Code::StorageDamaged | Code::CheckpointFailed => (Status::WontGo, "Internal error"),
            Code::ScriptUnknown | Code::ErrandDied | Code::ErrandTimeout => (Status::WontGo, "Internal error"),
            Code::ObjectMissing | Code::ObjectMismatch => (Status::WontGo, "Object validation went wrong"),
            Code::RevisionUnknown => (Status::WontGo, "State JSON not found"),
            Code::GoalsMissed | Code::ColdBootFailed => (Status::Error, "Status goal not reached"),
            Code::ContainerExited
            | Code::ImageInvalid
            | Code::InitMissing
            | Code::MountFailed
            | Code::StartFailed
            | Code::StartTimeout => (Status::Error, "A container could not be started"),
            Code::LoaderGaveUp
            | Code::LoaderCannotCount
            | Code::TriesExhausted
            | Code::UpdateRestarted
            | Code::EnvInvalid
            | Code::WatchdogReset
            | Code::WatchdogEarly
            | Code::Panicked => (Status::Error, "Unexpected rollback"),
            _ => (Status::Error, "Internal error"),
        };
        let status = if container.is_some() { Status::Error } else { status }; // it was tried
        Self { status, message, code: Some(code), container }
    }

    /// Whether the update has ended.
    pub fn is_final(&self) -> bool {
        self.status.percent() == 100
    }

    /// Writes the document as one JSON value.
    pub fn write(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.begin_object()?;
        self.write_members(out)?;
        out.end_object()
    }

    /// Writes its members into an object.
    pub fn write_members(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.text_member("status", self.status.word())?;
        out.text_member("status-msg", self.message)?;
        out.number_member("progress", self.status.percent())?;
        out.number_member("retries", 0)?;
        if let Some(code) = self.code {
            out.key("code")?;
            out.display(&code)?;
            out.key("reason")?;
            match self.container {
                Some(name) => out.display(&format_args!("{name}: {}", code.text()))?,
                None => out.text(code.text())?,
            }
        }
        match self.container {
            Some(name) => out.text_member("container", name.as_str()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(&mut Writer::new(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_those_of_the_original_and_more() {
        assert_eq!(
            Progress::DONE.to_string(),
            r#"{"status":"DONE","status-msg":"Update finished, revision set as rollback point","progress":100,"retries":0}"#
        );
        let web = PartName::parse("web").unwrap();
        assert_eq!(
            Progress::failed(Code::GoalsMissed, Some(web)).to_string(),
            r#"{"status":"ERROR","status-msg":"Status goal not reached","progress":100,"retries":0,"code":"SB1401","reason":"web: status goal not reached in time","container":"web"}"#
        );
    }

    #[test]
    fn a_failure_is_final_whatever_its_code() {
        for code in Code::ALL {
            let progress = Progress::failed(*code, None);
            assert!(progress.is_final() && progress.status != Status::Done, "{code}");
        }
    }
}
