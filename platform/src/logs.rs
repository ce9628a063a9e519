//! `log`: collects the output of containers into bounded files, `logs/<rev>/<container>/lxc/console.log`.
//!
//! Invariants: no container ever waits for its log and none can fill the storage: what is over the byte budget,
//! or cannot be written, is read and dropped, and the file says how much. A container has two files at most,
//! the current and the one before. Own user, no capability, and no file but those below the folder of logs.
//! Faults: storage full or failing (output is dropped until it works again), a pipe whose container is gone
//! (forgotten). What was not yet written back is lost in a power cut: logs are never synced.
//! Not here: log sockets, levels, syslog files inside containers.

use crate::{
    confine,
    wire::{Buffer, Channel, Message, WireError},
};
use runtime::{
    id::{PartName, RevName},
    limits,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags, RenameFlags, SeekFrom, mkdirat, openat, renameat_with, seek},
    io::{self, Errno},
    process::{Gid, Uid},
};
use std::{fmt::Write as _, time::Instant};

/// Where logs live.
const FOLDER: &str = "/storage/logs";
/// Bytes of the current file; the one before has as many.
const FILE_MAX: u64 = limits::LOG_FILE_MAX / 2;
/// Bytes read at a time: what a pipe gives at once.
const CHUNK: usize = 4096;

/// Collects until PID 1 closes the channel.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let folder = own_folder()?;
    confine::become_user(confine::LOG_UID)?;
    confine::close_files(Some(folder.as_fd()))?;
    confine::restrict(confine::Calls::Log)?;
    channel.send(0, &Message::Ready, &[])?;
    collect(channel, folder.as_fd())
}

/// The folder of logs, made and given to our user while we still may.
fn own_folder() -> io::Result<OwnedFd> {
    match mkdirat(CWD, FOLDER, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(CWD, FOLDER, flags, Mode::empty())?;
    let (user, group) = (Uid::from_raw(confine::LOG_UID), Gid::from_raw(confine::LOG_UID));
    rustix::fs::fchown(&folder, Some(user), Some(group))?;
    Ok(folder)
}

fn collect(channel: &Channel, folder: BorrowedFd<'_>) -> Result<(), WireError> {
    let mut sources: Vec<Source> = Vec::new();
    let mut buffer = Buffer::new();
    let mut chunk = [0u8; CHUNK];
    loop {
        let ready = wait(channel, &sources)?;
        for index in (0..sources.len()).rev().filter(|index| ready.contains(&(index + 1))) {
            if !sources[index].drain(folder, &mut chunk) {
                sources.swap_remove(index);
            }
        }
        if ready.contains(&0) {
            match channel.receive(&mut buffer)? {
                None => return Ok(()),
                Some(mut request) => {
                    if let (Message::Watch { rev, container }, Some(pipe)) = (request.message, request.fds.pop()) {
                        add(&mut sources, Source::new(rev, container, pipe));
                    }
                }
            }
        }
    }
}

/// One container has one source, but for the moment in which its next run has begun; more than that would mean
/// that somebody keeps pipes open, and the oldest is given up.
fn add(sources: &mut Vec<Source>, source: Source) {
    if sources.len() >= 2 * limits::CONTAINERS_MAX {
        sources.remove(0);
    }
    sources.push(source);
}

/// Waits for input; which are ready: 0 the channel, n the source n - 1.
fn wait(channel: &Channel, sources: &[Source]) -> io::Result<heapless::Vec<usize, READY_MAX>> {
    let mut fds: heapless::Vec<PollFd<'_>, READY_MAX> = heapless::Vec::new();
    let _ = fds.push(PollFd::new(channel, PollFlags::IN));
    for source in sources {
        let _ = fds.push(PollFd::new(&source.pipe, PollFlags::IN));
    }
    loop {
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    Ok(fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect())
}

const READY_MAX: usize = 2 * limits::CONTAINERS_MAX + 1;

/// The output of one run of a container.
struct Source {
    rev: RevName,
    container: PartName,
    pipe: OwnedFd,
    file: Option<(OwnedFd, u64)>,
    budget: Budget,
    dropped: u64,
}

impl Source {
    fn new(rev: RevName, container: PartName, pipe: OwnedFd) -> Self {
        Self { rev, container, pipe, file: None, budget: Budget::new(Instant::now()), dropped: 0 }
    }

    /// Moves what is there once; whether more can come.
    fn drain(&mut self, folder: BorrowedFd<'_>, chunk: &mut [u8; CHUNK]) -> bool {
        match io::read(&self.pipe, &mut chunk[..]) {
            Ok(0) => false,
            Ok(length) => {
                self.keep(folder, &chunk[..length]);
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    fn keep(&mut self, folder: BorrowedFd<'_>, bytes: &[u8]) {
        let written = self.budget.take(bytes.len() as u64, Instant::now()) && self.append(folder, bytes).is_ok();
        if !written {
            self.dropped += bytes.len() as u64;
        }
    }

    fn append(&mut self, folder: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        let (file, size) = match self.file.take() {
            Some((file, size)) if size < FILE_MAX => (file, size),
            full => open(folder, &self.rev, &self.container, full.is_some())?,
        };
        let mut note = heapless::String::<64>::new();
        if self.dropped > 0 {
            let _ = writeln!(note, "\n[switchback: {} bytes of output dropped]", self.dropped);
            io::write(&file, note.as_bytes())?;
            self.dropped = 0;
        }
        let count = io::write(&file, bytes)?;
        self.dropped += (bytes.len() - count) as u64;
        self.file = Some((file, size + (note.len() + count) as u64));
        Ok(())
    }
}

/// Opens the current file; a full one becomes the one before.
fn open(folder: BorrowedFd<'_>, rev: &RevName, container: &PartName, full: bool) -> io::Result<(OwnedFd, u64)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    for name in rev.as_str().split('/').chain([container.as_str(), "lxc"]) {
        let parent = at.as_ref().map_or(folder, AsFd::as_fd);
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        at = Some(openat(parent, name, flags, Mode::empty())?);
    }
    let at = at.ok_or(Errno::NOENT)?;
    if full {
        renameat_with(&at, "console.log", &at, "console.log.1", RenameFlags::empty())?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&at, "console.log", flags, Mode::from_raw_mode(0o644))?;
    let size = seek(&file, SeekFrom::End(0))?;
    if size >= FILE_MAX && !full {
        return open(folder, rev, container, true);
    }
    Ok((file, size))
}

/// How many bytes may be written now: a store that fills with time, so that a container that talks without end
/// does not wear the flash out.
struct Budget {
    left: u64,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: limits::LOG_FILE_MAX, since: now }
    }

    /// Takes `bytes` if they are there.
    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let earned = now.duration_since(self.since).as_secs().saturating_mul(limits::LOG_RATE);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(limits::LOG_FILE_MAX);
            self.since = now;
        }
        let enough = bytes <= self.left;
        if enough {
            self.left -= bytes;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration};

    fn source(folder: &std::path::Path) -> (Source, OwnedFd, OwnedFd) {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
        let at = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let rev = RevName::parse("locals/a").unwrap();
        (Source::new(rev, PartName::parse("web").unwrap(), read), write, at)
    }

    #[test]
    fn a_container_has_two_bounded_files_and_the_rest_is_counted() {
        let folder = std::env::temp_dir().join(format!("switchback-logs-{}", std::process::id()));
        let (mut source, write, at) = source(&folder);
        let mut chunk = [0; CHUNK];
        let lines = limits::LOG_FILE_MAX / CHUNK as u64 + 10;
        for _ in 0..lines {
            io::write(&write, &[b'x'; CHUNK]).unwrap();
            assert!(source.drain(at.as_fd(), &mut chunk));
        }
        assert_eq!(source.dropped, 10 * CHUNK as u64, "over the budget");
        let lxc = folder.join("locals/a/web/lxc");
        let size = |name: &str| fs::metadata(lxc.join(name)).unwrap().len();
        assert_eq!(size("console.log.1"), FILE_MAX);
        assert_eq!(size("console.log"), FILE_MAX);
        source.budget.left = 1000;
        io::write(&write, b"end\n").unwrap();
        assert!(source.drain(at.as_fd(), &mut chunk));
        let text = fs::read_to_string(lxc.join("console.log")).unwrap();
        assert_eq!(text, "\n[switchback: 40960 bytes of output dropped]\nend\n", "a new current file");
        drop(write);
        assert!(!source.drain(at.as_fd(), &mut chunk), "the container is gone");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_budget_fills_with_time() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(budget.take(limits::LOG_FILE_MAX, start));
        assert!(!budget.take(1, start));
        assert!(budget.take(limits::LOG_RATE, start + Duration::from_secs(1)));
        assert!(!budget.take(1, start + Duration::from_secs(1)));
    }
}
