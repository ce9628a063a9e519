//! Removes what anybody may have made: folders of any depth, names of any bytes, files that are marked so that nobody
//! can remove them.
//!
//! Invariants: no link is followed. One thing that cannot be removed keeps nothing else; the first error is returned.
//! At most two descriptors for each of `DEPTH_MAX` folders: what is deeper is lifted to the top of what goes and removed
//! from there, so after a cut it still lies in what is to be removed.
//!
//! Fault model: nobody else changes what is removed meanwhile.
//!
//! What it does not do: it makes nothing durable.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, FileType, IFlags, Mode, OFlags, RenameFlags},
    io::Errno,
    path::Arg,
};

/// How many folders are open at once.
const DEPTH_MAX: usize = 32;

/// Removes a file or a whole folder.
pub fn remove(folder: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<(), Errno> {
    match unlink(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    empty(open_folder(folder, name)?)?;
    unlink(folder, name, AtFlags::REMOVEDIR)
}

/// Removes what is in a folder.
pub fn empty(top: OwnedFd) -> Result<(), Errno> {
    let mut walk = Walk { top: top.as_fd(), lifted: 0, failed: None };
    loop {
        let before = walk.lifted;
        walk.failed = None; // what failed is still there, and met again
        walk.empty(top.as_fd(), 1);
        if walk.lifted == before {
            return walk.failed.map_or(Ok(()), Err);
        }
    }
}

struct Walk<'a> {
    top: BorrowedFd<'a>,
    /// Folders that were lifted so far. It ends: each lies less deep then.
    lifted: u64,
    /// The first error.
    failed: Option<Errno>,
}

impl Walk<'_> {
    /// As much as can be removed of what is in this folder.
    fn empty(&mut self, folder: BorrowedFd<'_>, depth: usize) {
        let done = fs::Dir::read_from(folder).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    let done = match unlink(folder, name, AtFlags::empty()) {
                        Err(Errno::ISDIR) => self.remove_folder(folder, name, depth),
                        other => other,
                    };
                    self.note(done);
                }
            }
            Ok(())
        });
        self.note(done);
    }

    fn remove_folder(&mut self, folder: BorrowedFd<'_>, name: impl Arg + Copy, depth: usize) -> Result<(), Errno> {
        if depth == DEPTH_MAX {
            return self.lift(folder, name);
        }
        self.empty(open_folder(folder, name)?.as_fd(), depth + 1);
        unlink(folder, name, AtFlags::REMOVEDIR)
    }

    /// Moves a folder to the top, where the next walk finds it.
    fn lift(&mut self, folder: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<(), Errno> {
        loop {
            self.lifted += 1;
            let free = format!(".del-{}", self.lifted);
            let flags = RenameFlags::NOREPLACE;
            match insist(folder, name, || fs::renameat_with(folder, name, self.top, &free, flags)) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }

    fn note(&mut self, done: Result<(), Errno>) {
        self.failed = self.failed.or(done.err());
    }
}

fn unlink(folder: BorrowedFd<'_>, name: impl Arg + Copy, flags: AtFlags) -> Result<(), Errno> {
    insist(folder, name, || fs::unlinkat(folder, name, flags))
}

/// Once more without the marks that forbid it, if that is why it fails.
fn insist(folder: BorrowedFd<'_>, name: impl Arg + Copy, act: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match act() {
        Err(Errno::PERM) => {
            // What fails here is told by the second attempt.
            let _ = unmark(folder);
            let _ = open_marked(folder, name).and_then(|file| unmark(file.as_fd()));
            act()
        }
        other => other,
    }
}

/// Takes "immutable" and "append only" from a file or a folder.
fn unmark(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let (marks, forbidding) = (fs::ioctl_getflags(file)?, IFlags::IMMUTABLE | IFlags::APPEND);
    if marks.intersects(forbidding) { fs::ioctl_setflags(file, marks - forbidding) } else { Ok(()) }
}

/// Only files and folders have marks, and opening a device may do something.
fn open_marked(folder: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    let kind = FileType::from_raw_mode(fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(folder, name, flags, Mode::empty())
}

fn open_folder(folder: BorrowedFd<'_>, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(folder, name, flags, Mode::empty())
}
