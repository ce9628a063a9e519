//! A working copy of the device's state, changed and posted with the `pvr` that users get.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Outcome, fail};

/// A working copy.
pub struct Work {
    pvr: PathBuf,
    /// Its folder.
    pub folder: PathBuf,
    home: PathBuf,
}

impl Work {
    /// `pvr clone URL`, into a new folder below `place`.
    pub fn clone(pvr: &Path, url: &str, place: &Path) -> Outcome<Self> {
        let folder = place.join("work");
        let home = place.join("home");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&home)?;
        let work = Self { pvr: pvr.into(), folder, home };
        let name = work.folder.to_string_lossy().into_owned();
        work.run_in(place, &["clone", url, &name])?;
        Ok(work)
    }

    /// Runs `pvr ARGS` in the working copy and returns what it printed; fails when pvr does.
    pub fn run(&self, args: &[&str]) -> Outcome<String> {
        self.run_in(&self.folder, args)
    }

    /// `pvr add .`, `pvr commit`, `pvr post`; the name of the new revision. Without a message the device gets none.
    pub fn post(&self, port: u16, message: &str) -> Outcome<String> {
        self.post_as(port, message, None)
    }

    /// As [`Work::post`], under this name, if there is one.
    pub fn post_as(&self, port: u16, message: &str, rev: Option<&str>) -> Outcome<String> {
        self.commit(message)?;
        let url = format!("http://127.0.0.1:{port}");
        let mut words = vec!["post", &url];
        if !message.is_empty() {
            words.extend(["-m", message]);
        }
        words.extend(rev.into_iter().flat_map(|rev| ["--rev", rev]));
        revision(&self.run(&words)?)
    }

    /// `pvr add .` and `pvr commit`.
    pub fn commit(&self, message: &str) -> Outcome<()> {
        self.run(&["add", "."])?;
        self.run(&["commit", "-m", message])?;
        Ok(())
    }

    /// Starts `pvr post` and does not wait for it.
    pub fn post_behind(&self, port: u16, message: &str) -> Outcome<Posting> {
        let url = format!("http://127.0.0.1:{port}");
        let child = self
            .command(&self.folder, &["post", &url, "-m", message])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Posting(child))
    }

    /// Writes a file of the working copy.
    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) -> Outcome<()> {
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().ok_or("a file without a folder")?)?;
        Ok(std::fs::write(path, content)?)
    }

    /// A file of the working copy.
    pub fn read(&self, file: &str) -> Outcome<Vec<u8>> {
        Ok(std::fs::read(self.folder.join(file))?)
    }

    fn run_in(&self, folder: &Path, args: &[&str]) -> Outcome<String> {
        let output = self.command(folder, args).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(said) } else { fail(format!("pvr {}: {}", args.join(" "), said.trim())) }
    }

    fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.pvr);
        command.args(args).current_dir(folder).env("HOME", &self.home).env_remove("PVR_CONFIG_DIR");
        command.stdin(Stdio::null());
        command
    }
}

/// A `pvr post` that is under way; it is ended with this value.
pub struct Posting(Child);

impl Drop for Posting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The name in `Successfully posted Revision NAME (SHA8) to device id ID`.
fn revision(said: &str) -> Outcome<String> {
    let name = said.split("Successfully posted Revision ").nth(1).and_then(|rest| rest.split_whitespace().next());
    name.map(str::to_string).ok_or_else(|| format!("pvr post did not name a revision: {}", said.trim()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_revision_is_in_the_line_that_pvr_prints() {
        let said = "uploading\nSuccessfully posted Revision locals/pvr-12 (0123abcd) to device id local\n";
        assert_eq!(revision(said).unwrap(), "locals/pvr-12");
        assert!(revision("Error").is_err());
    }
}
