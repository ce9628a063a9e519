//! `usb`: exported revisions from USB sticks. Only on devices whose policy asks for it.
//!
//! Waits for block devices, and starts a `stick` errand for each disk that counts: one on a USB bus, or one that the
//! policy names. That errand mounts, gives up its privileges, and does what `pvcontrol steps install --run` does. What was
//! tried is kept by the keeper, through PID 1, so that a stick that stays in its socket is not run again and again.
//!
//! Invariants: no byte of a stick is read here, and none before the keeper said what was tried. One stick at a time. The
//! kernel's announcements are looked at only for whether they are about block devices; which ones there are stands in
//! /sys. The disks of the device itself never count, whatever the policy says.
//! Privileges: root with what mounting, giving up and ending a `stick` need, for those errands get them from here; in a
//! mount namespace without storage and boot, and without network. No table of system calls: the errands would inherit it.
//! Fault model: a `stick` says anything, dies, or is held by the kernel as long as the medium likes; then others wait.
//! Not here: which disks there are (`disks`), what is done with one (`stick`), what was tried (`tried`).

mod disks;
pub mod stick;
mod tried;

pub use stick::{FILE, KINDS};

use crate::{
    confine,
    errand::{Process, Starter},
    kmsg::Why,
    wire::{Buffer, Channel, Message, Received, WireError},
};
use disks::{Disk, Wanted};
use log::warn;
use runtime::{fault::Code, port::Owner};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    mount::{UnmountFlags, unmount},
    net::{
        self, AddressFamily, RecvFlags, SocketFlags, SocketType,
        netlink::{self, SocketAddrNetlink},
    },
    process::{Signal, WaitOptions, waitpid},
    thread::CapabilitySet,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// File systems of the device: they do not count as sticks, and are not seen from here.
const OWN: [&str; 2] = ["/storage", "/boot"];
/// From an announcement to the look at the disks: a disk and its partitions are announced one by one.
const SETTLE: Duration = Duration::from_millis(500);
/// First pause before the keeper is asked again what was tried; doubled each time until it says so.
const RECALL_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause.
const RECALL_PAUSE_MAX: Duration = Duration::from_secs(600);
/// Longest time with one stick: 4 GB, three times at 5 MB/s, and the wait for another update.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Serials of what is asked of PID 1: one of each at a time. Both may be outstanding, when a `stick` ended with a wish.
const RECALL: u32 = 1;
const REMEMBER: u32 = 2;

/// Serves until PID 1 closes the channel.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut buffer = Buffer::new();
    let Some(request) = channel.receive(&mut buffer)? else { return Ok(()) };
    let Message::Sticks { kinds, disks } = request.message else { return Err(WireError::Kind) };
    let wanted = Wanted::new(disks, &OWN);
    let starter = Starter::new()?;
    let uevents = listen()?;
    OWN.into_iter().try_for_each(hide)?;
    // Opening what another owner alone may read; mounting; and what `stick` gives up, which needs these to be given up.
    let needed = CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::KILL
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP;
    confine::stay_root_with(needed)?;
    channel.send(0, &Message::Ready, &[])?;
    let kinds = kinds.to_owned();
    let now = Instant::now();
    let (tried, at_work, seen) = (Tried::Unknown { ask_at: now }, None, Vec::new());
    let (pause, look_at) = (RECALL_PAUSE, Some(now + SETTLE));
    Watch { channel, starter, uevents, kinds, wanted, tried, pause, at_work, seen, look_at }.serve()
}

/// Takes a mount out of our own namespace.
fn hide(mount: &str) -> Result<(), Errno> {
    match unmount(mount, UnmountFlags::DETACH) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(()), // not mounted
        other => other,
    }
}

/// The kernel's announcements of devices.
fn listen() -> Result<OwnedFd, Errno> {
    const KERNEL: u32 = 1; // the group to which the kernel speaks
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
    net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

/// What the keeper said was tried, as it keeps it.
enum Tried {
    /// Not asked yet, or to be asked again.
    Unknown { ask_at: Instant },
    /// Asked.
    Asked,
    /// Known.
    Known(Vec<u8>),
}

/// A `stick` errand.
struct AtWork {
    process: Process,
    disk: Disk,
    until: Instant,
    /// What it wants kept, and the serial of that wish.
    wish: Option<(u32, Vec<u8>)>,
    /// It says nothing more: it is about to end.
    silent: bool,
}

struct Watch<'c> {
    channel: &'c Channel,
    starter: Starter,
    uevents: OwnedFd,
    kinds: String,
    wanted: Wanted,
    tried: Tried,
    /// Before that is asked again.
    pause: Duration,
    at_work: Option<AtWork>,
    /// Disks that were looked at since they appeared.
    seen: Vec<Disk>,
    look_at: Option<Instant>,
}

/// Who has something to say.
#[derive(Default)]
struct Ready {
    home: bool,
    kernel: bool,
    stick: bool,
    end: bool,
}

impl Watch<'_> {
    fn serve(&mut self) -> Result<(), WireError> {
        loop {
            let ready = self.wait()?;
            if ready.home && !self.hear()? {
                return Ok(());
            }
            if ready.kernel && self.announced() {
                self.look_at.get_or_insert(Instant::now() + SETTLE);
            }
            if ready.stick {
                self.relay()?;
            }
            if ready.end {
                self.reap();
            }
            self.attend(Instant::now())?;
        }
    }

    /// Waits for somebody to speak, or for the time of something.
    fn wait(&self) -> Result<Ready, WireError> {
        let ask_at = if let Tried::Unknown { ask_at } = self.tried { Some(ask_at) } else { None };
        let work_at = self.at_work.as_ref().map(|work| work.until);
        let look_at = self.look_at.filter(|_| self.is_free());
        let until = [ask_at, work_at, look_at].into_iter().flatten().min();
        let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut fds = vec![PollFd::new(self.channel, PollFlags::IN), PollFd::new(&self.uevents, PollFlags::IN)];
        let pidfd = self.at_work.as_ref().map(|work| work.process.pidfd());
        if let (Some(work), Some(pidfd)) = (&self.at_work, &pidfd) {
            fds.extend([PollFd::new(pidfd, PollFlags::IN)]);
            if work.wish.is_none() && !work.silent {
                fds.push(PollFd::new(&work.process.channel, PollFlags::IN));
            }
        }
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let spoke = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready { home: spoke(0), kernel: spoke(1), end: spoke(2), stick: spoke(3) })
    }

    fn is_free(&self) -> bool {
        self.at_work.is_none() && matches!(self.tried, Tried::Known(_))
    }

    /// PID 1 answers; `false` if it closed the channel.
    fn hear(&mut self) -> Result<bool, WireError> {
        let mut buffer = Buffer::new();
        let Some(Received { serial, message, .. }) = self.channel.receive(&mut buffer)? else { return Ok(false) };
        match (serial, &message) {
            (RECALL, Message::Memory { bytes }) if matches!(self.tried, Tried::Asked) => {
                self.tried = Tried::Known(bytes.to_vec());
                self.pause = RECALL_PAUSE;
            }
            (RECALL, Message::Done { ok, refusal, .. }) if matches!(self.tried, Tried::Asked) => {
                // An answer without what was asked for is no answer.
                let code = if *ok { Code::Internal } else { refusal.code };
                warn!("what was tried is not known: {code} {}; no stick is looked at", code.text());
                self.tried = Tried::Unknown { ask_at: Instant::now() + self.pause };
                self.pause = (self.pause * 2).min(RECALL_PAUSE_MAX);
            }
            (REMEMBER, Message::Done { ok, .. }) => {
                let Some((serial, bytes)) = self.at_work.as_mut().and_then(|work| work.wish.take()) else {
                    return Ok(true); // who wished for it has ended
                };
                if *ok {
                    self.tried = Tried::Known(bytes);
                }
                if let Some(work) = &self.at_work {
                    let _ = work.process.channel.send(serial, &message, &[]); // its end is noticed
                }
            }
            _ => return Err(WireError::Kind),
        }
        Ok(true)
    }

    /// Reads all announcements; whether a block device was among them, or some were lost.
    fn announced(&self) -> bool {
        const BLOCK: &[u8] = b"SUBSYSTEM=block\0";
        let (mut found, mut text) = (false, [0; 4096]);
        loop {
            match net::recv(&self.uevents, &mut text, RecvFlags::empty()) {
                Ok((length, _)) => found |= text[..length].windows(BLOCK.len()).any(|words| words == BLOCK),
                Err(Errno::NOBUFS) => found = true,
                Err(Errno::INTR) => {}
                Err(_) => return found,
            }
        }
    }

    /// A `stick` speaks: it has one wish at a time.
    fn relay(&mut self) -> Result<(), WireError> {
        let Some(work) = &mut self.at_work else { return Ok(()) };
        let mut buffer = Buffer::new();
        match work.process.channel.receive(&mut buffer) {
            Err(WireError::Io(Errno::AGAIN)) => {}
            Ok(Some(Received { serial, message: Message::Remember { owner: Owner::Usb, bytes }, .. })) => {
                work.wish = Some((serial, bytes.to_vec()));
                self.channel.send(REMEMBER, &Message::Remember { owner: Owner::Usb, bytes }, &[])?;
            }
            Ok(None) => work.silent = true,
            _ => {
                work.silent = true;
                work.process.signal(Signal::KILL);
            }
        }
        Ok(())
    }

    /// The `stick` ended. What it wished for is still kept, and the answer to it heard.
    fn reap(&mut self) {
        let Some(work) = &self.at_work else { return };
        match waitpid(Some(work.process.pid), WaitOptions::NOHANG) {
            Ok(None) => return,
            Ok(Some((_, status))) if status.exit_status() == Some(0) => {}
            _ => warn!("{}: {} {}", work.disk.node, Code::ErrandDied, Code::ErrandDied.text()),
        }
        if let Some(AtWork { wish: Some(_), .. }) = self.at_work.take() {
            self.tried = Tried::Unknown { ask_at: Instant::now() };
        }
        self.look_at = Some(Instant::now());
    }

    /// What time brings.
    fn attend(&mut self, now: Instant) -> Result<(), WireError> {
        if let Tried::Unknown { ask_at } = self.tried
            && now >= ask_at
        {
            self.channel.send(RECALL, &Message::Recall { owner: Owner::Usb }, &[])?;
            self.tried = Tried::Asked;
        }
        if let Some(work) = self.at_work.as_mut().filter(|work| now >= work.until) {
            warn!("{}: {} {}", work.disk.node, Code::ErrandTimeout, Code::ErrandTimeout.text());
            work.process.signal(Signal::KILL);
            work.until += PATIENCE; // the kernel may hold it
        }
        if self.is_free() && self.look_at.is_some_and(|at| now >= at) {
            self.look_at = None;
            self.look();
        }
        Ok(())
    }

    /// Looks which disks there are, and starts with the first one that is new.
    fn look(&mut self) {
        let there = self.wanted.find(Path::new("/sys/block"));
        self.seen.retain(|seen| there.contains(seen));
        let Some(disk) = there.into_iter().find(|disk| !self.seen.contains(disk)) else { return };
        self.seen.push(disk.clone());
        self.look_at = Some(Instant::now()); // for the next one, when this one is done
        let Tried::Known(tried) = &self.tried else { return };
        let started = self.starter.start(c"stick", libc::CLONE_NEWNS as u64, None, None);
        let order = Message::Stick { node: &disk.node, kinds: &self.kinds, tried };
        match started.map_err(WireError::Io).and_then(|process| process.channel.send(0, &order, &[]).map(|()| process))
        {
            Ok(process) => {
                self.at_work =
                    Some(AtWork { process, disk, until: Instant::now() + PATIENCE, wish: None, silent: false });
            }
            Err(WireError::Io(errno)) => warn!("{}: {} {}", disk.node, Code::ErrandDied, Why(errno)),
            Err(error) => warn!("{}: {} {error}", disk.node, Code::ErrandDied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    fn watch(channel: &Channel) -> Watch<'_> {
        Watch {
            channel,
            starter: Starter::new().unwrap(),
            uevents: rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap(),
            kinds: String::new(),
            wanted: Wanted::new("", &[]),
            tried: Tried::Asked,
            pause: RECALL_PAUSE,
            at_work: None,
            seen: Vec::new(),
            look_at: None,
        }
    }

    #[test]
    fn the_answer_to_the_wish_of_a_stick_that_ended_is_not_the_one_to_the_question_after_it() {
        let (channel, home) = Channel::pair().unwrap();
        let mut watch = watch(&channel);
        home.send(REMEMBER, &Message::done(0), &[]).unwrap();
        home.send(RECALL, &Message::Memory { bytes: b"kept" }, &[]).unwrap();
        assert!(watch.hear().unwrap());
        assert!(matches!(watch.tried, Tried::Asked));
        assert!(watch.hear().unwrap());
        assert!(matches!(&watch.tried, Tried::Known(bytes) if bytes == b"kept"));
    }

    #[test]
    fn a_question_that_is_refused_is_asked_less_and_less_often() {
        let (channel, home) = Channel::pair().unwrap();
        let mut watch = watch(&channel);
        for _ in 0..9 {
            home.send(RECALL, &Message::refused(Code::StorageDamaged), &[]).unwrap();
            let before = watch.pause;
            assert!(watch.hear().unwrap());
            assert!(matches!(watch.tried, Tried::Unknown { .. }));
            assert_eq!(watch.pause, (2 * before).min(RECALL_PAUSE_MAX));
            watch.tried = Tried::Asked;
        }
        assert_eq!(watch.pause, RECALL_PAUSE_MAX);
        home.send(RECALL, &Message::Memory { bytes: b"" }, &[]).unwrap();
        assert!(watch.hear().unwrap());
        assert_eq!(watch.pause, RECALL_PAUSE);
    }
}
