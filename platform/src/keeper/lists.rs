//! What the keeper walks: the lists that clients ask for, and what is left of revisions that are gone.
//!
//! Reference: device-formats 6.2 for the documents.

use crate::{disk::Volumes, erase};
use core::fmt;
use runtime::{
    fault::Code,
    id::RevName,
    json::{Value, Writer},
    limits,
    port::{Dir, Disk, Name, Stage, Volume},
};
use rustix::{
    fd::AsFd,
    fs::{CWD, Mode, OFlags, openat},
    io,
};

/// The answer of GET /objects.
pub(super) fn objects(volumes: &mut Volumes, out: &mut String) -> Result<(), Code> {
    let mut names = Vec::new();
    volumes.each_object(Dir::Objects(Volume::Storage), &mut |id| names.push(id))?;
    names.sort_unstable();
    let mut writer = Writer::new(out);
    writer.begin_array().map_err(never)?;
    for id in names {
        let size = volumes.size(Name::Object(Volume::Storage, id))?;
        let object = |writer: &mut Writer<'_>| {
            writer.begin_object()?;
            writer.key("sha256")?;
            writer.display(&id)?;
            writer.key("size")?;
            writer.display(&size)?;
            writer.end_object()
        };
        object(&mut writer).map_err(never)?;
    }
    writer.end_array().map_err(never)
}

/// The answer of GET /steps.
pub(super) fn steps(volumes: &mut Volumes, out: &mut String) -> Result<(), Code> {
    let mut revs = Vec::new();
    volumes.each_trail(Volume::Storage, Stage::Live, &mut |rev| revs.push(rev))?;
    revs.sort_unstable_by_key(|rev| (rev.is_local(), rev.as_str().len(), *rev));
    let mut writer = Writer::new(out);
    writer.begin_array().map_err(never)?;
    for rev in revs {
        let message = small(volumes, rev, ".pv/commitmsg");
        let progress = small(volumes, rev, ".pv/progress");
        let progress = if Value::parse(progress.as_bytes()).is_ok() { &progress } else { "{}" };
        let step = |writer: &mut Writer<'_>| {
            writer.begin_object()?;
            writer.text_member("name", rev.as_str())?;
            writer.key("date")?;
            writer.display(&Date(modified(rev)))?;
            writer.text_member("commitmsg", &message)?;
            writer.key("progress")?;
            writer.raw(progress)?;
            writer.end_object()
        };
        step(&mut writer).map_err(never)?;
    }
    writer.end_array().map_err(never)
}

/// A `String` takes everything.
fn never(_: fmt::Error) -> Code {
    Code::Internal
}

/// A small text of a revision; empty if it is not there, or not what it should be.
fn small(volumes: &mut Volumes, rev: RevName, key: &str) -> String {
    let mut text = [0u8; limits::HTTP_BODY_MAX];
    let length = volumes.read(Name::File(Volume::Storage, Stage::Live, rev, key), &mut text).unwrap_or(0);
    String::from_utf8(text[..length].to_vec()).unwrap_or_default()
}

/// When a revision's folder was last changed, seconds since 1970.
fn modified(rev: RevName) -> u64 {
    let path = format!("/storage/trails/{rev}");
    rustix::fs::stat(path.as_str()).map_or(0, |stat| u64::try_from(stat.st_mtime).unwrap_or(0))
}

/// Removes below `folder` what belongs to revisions that are not there any more.
pub(super) fn sweep(volumes: &mut Volumes, folder: &str) -> io::Result<()> {
    for (path, prefix) in [(folder.to_owned(), ""), (format!("{folder}/locals"), "locals/")] {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(at) = openat(CWD, path, flags, Mode::empty()) else { continue };
        for entry in rustix::fs::Dir::read_from(&at)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Ok(rev) = RevName::parse(&format!("{prefix}{name}")) else { continue };
            if let Ok(false) = volumes.exists(Name::Trail(Volume::Storage, Stage::Live, rev)) {
                erase::remove(at.as_fd(), name)?;
            }
        }
    }
    Ok(())
}

/// Seconds since 1970 as `2026-11-20T10:00:00Z`.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Years that begin in March have their leap day last, and repeat every 400.
        let day = days + 719_468; // since the first of March of year 0
        let (era, of_era) = (day / 146_097, day % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", year + 400 * era)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_132_799, "2026-11-19T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Date(seconds).to_string(), text);
        }
    }
}
