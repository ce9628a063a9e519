//! The book's developer page, done as it says: every command of it runs against the emulated device.
//!
//! The page is the script. A block `sh` runs on this machine, in one folder after another as its `cd`s say; a block
//! `sh device` on the device's console; a block `sh container` inside a container of the device. A block `text` behind it
//! says what was printed: its lines in their order, others may stand between them, and `…` is anything.
//! Invariants: a block without its command's success, or without what it should print, fails the page; a page without
//! blocks fails. What takes time on the device is asked again until the page is right or the time is over.
//! Does not: judge times, or the words between the blocks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tour::device::{Device, Kit};
use crate::tour::report::Report;
use crate::tour::{Outcome, ensure, fail, http, wait_for};

/// Longest time from power to READY, and of an update, on a slow and busy machine; seconds.
const PATIENCE_S: u64 = 240;
/// The device's address on the page.
const ADDRESS: &str = "http://192.168.1.7:12368";
/// The container that runs the page's `sh container`; it has `pvcontrol` and a shell.
const CONTAINER: &str = "slow";

/// Where a block's commands run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Here,
    Device,
    Container,
}

/// Commands and what they print.
#[derive(Debug)]
struct Block {
    place: Place,
    heading: String,
    script: String,
    prints: Option<String>,
}

/// Does the page; whether all held.
pub fn walk(kit: &Kit, page: &Path, folder: &Path) -> Outcome<bool> {
    let _ = std::fs::remove_dir_all(folder);
    let blocks = parse(&std::fs::read_to_string(page)?)?;
    ensure(blocks.len() > 10, || format!("{} has {} blocks", page.display(), blocks.len()))?;
    let mut report = Report::of("the developer's page");
    let mut desk = Desk::new(kit, folder)?;
    for block in &blocks {
        // Later blocks stand on earlier ones.
        if !report.step(&block.heading, |report| desk.run(block, report)) {
            println!("      the kernel's log: {}", desk.device.log().display());
            break;
        }
    }
    let held = report.close();
    let (lines, failed) = report.counts();
    println!("CASES {lines} {failed}");
    Ok(held)
}

/// Takes a page apart.
fn parse(page: &str) -> Outcome<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut heading, mut lines) = (String::new(), page.lines());
    while let Some(line) = lines.next() {
        if let Some(words) = line.strip_prefix("## ") {
            heading = words.into();
        }
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n") + "\n";
        let place = match kind {
            "sh" => Place::Here,
            "sh device" => Place::Device,
            "sh container" => Place::Container,
            "text" => {
                let block = blocks.last_mut().filter(|block| block.prints.is_none());
                block.ok_or("output that no command precedes")?.prints = Some(body);
                continue;
            }
            other => return fail(format!("a block of `{other}` is neither commands nor output")),
        };
        blocks.push(Block { place, heading: heading.clone(), script: body, prints: None });
    }
    Ok(blocks)
}

/// Whether the lines of `page` come in `said`, in their order.
fn is_as(page: &str, said: &str) -> Result<(), String> {
    let mut lines = said.lines();
    for wanted in page.lines().filter(|line| *line != "…") {
        if !lines.any(|line| matches(wanted, line)) {
            return Err(format!("`{wanted}` was not printed, in its place:\n{said}"));
        }
    }
    Ok(())
}

fn matches(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut open = false;
    for part in parts {
        open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    open || rest.is_empty()
}

/// A developer's machine and the device on it.
struct Desk {
    device: Device,
    folder: PathBuf,
    /// Where the next commands run.
    here: PathBuf,
}

impl Desk {
    fn new(kit: &Kit, folder: &Path) -> Outcome<Self> {
        let mut device = Device::new(kit, &folder.join("device"))?;
        let (bin, here) = (folder.join("bin"), folder.join("work"));
        std::fs::create_dir_all(&bin)?;
        std::fs::create_dir_all(&here)?;
        std::fs::create_dir_all(folder.join("home"))?;
        std::os::unix::fs::symlink(kit.pvr(), bin.join("pvr"))?;
        device.power_on()?;
        device.wait_status("READY", PATIENCE_S, |status| !status["ready_ms"].is_null())?;
        Ok(Self { device, folder: folder.into(), here })
    }

    fn run(&mut self, block: &Block, report: &mut Report) -> Outcome<()> {
        match block.place {
            Place::Here => {
                let said = self.here(&block.script)?;
                self.compare(block, &said)?;
            }
            Place::Device => self.on_device(block)?,
            Place::Container => self.in_container(block, report)?,
        }
        let first = block.script.lines().next().unwrap_or("");
        report.held(&block.heading, first);
        Ok(())
    }

    fn compare(&self, block: &Block, said: &str) -> Outcome<()> {
        let said = said.replace(&self.url(), ADDRESS);
        is_as(block.prints.as_deref().unwrap_or(""), &said).map_err(Into::into)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.device.ports.endpoint)
    }

    /// Runs commands on this machine; what they printed. The folder in which they end is where the next ones begin.
    fn here(&mut self, script: &str) -> Outcome<String> {
        let script = script.replace(ADDRESS, &self.url());
        let end = self.folder.join("end");
        let path = format!("{}:{}", self.folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-ec", &format!("exec 2>&1\n{script}\npwd > '{}'", end.display())])
            .current_dir(&self.here)
            .env("PATH", path)
            .env("HOME", self.folder.join("home"))
            .env_remove("PVR_CONFIG_DIR")
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure(output.status.success(), || format!("{script}: {}\n{said}", output.status))?;
        self.here = std::fs::read_to_string(end)?.trim().into();
        Ok(said)
    }

    /// Runs `pvcontrol` commands on the device's console, again until they print what the page says: an update takes time.
    fn on_device(&self, block: &Block) -> Outcome<()> {
        for line in block.script.lines() {
            let words = line.strip_prefix("pvcontrol ").ok_or("only pvcontrol runs on a device's console")?;
            wait_for(line, PATIENCE_S, || {
                let ran = self.device.control(words)?;
                ensure(ran.code == 0, || format!("it ended with {}: {}", ran.code, ran.text.trim()))?;
                self.compare(block, &ran.text).map(Some)
            })?;
        }
        Ok(())
    }

    /// Has a container run the commands, with the archive that the page has made, and with half of it before.
    fn in_container(&mut self, block: &Block, report: &mut Report) -> Outcome<()> {
        let archive = self.here.join("../device.pvrexport.tgz");
        let whole = std::fs::read(&archive)?;
        self.device.wait_status("an end of the update before", PATIENCE_S, |status| status["ready_ms"].is_u64())?;
        let url = self.url();
        self.here(&format!("cd .. && pvr clone {url} carrier"))?;
        let carrier = self.here.join("carrier");
        self.here = carrier.parent().ok_or("a folder without a parent")?.join("device");
        let lay = carrier.join("_config").join(CONTAINER);
        std::fs::create_dir_all(lay.join("etc"))?;
        std::fs::write(lay.join("device.pvrexport.tgz"), &whole)?;
        std::fs::write(lay.join("half.tgz"), &whole[..whole.len() / 2])?;
        std::fs::write(lay.join("etc/carry"), carry(&block.script))?;
        let conf = carrier.join(CONTAINER).join("lxc.container.conf");
        let text = std::fs::read_to_string(&conf)?.replace("/etc/start", "/bin/sh /etc/carry");
        std::fs::write(&conf, text)?;
        let back = self.here.clone();
        self.here = carrier;
        let posted = self.here(&format!("pvr add . && pvr commit -m carrier && pvr post {url}"));
        self.here = back;
        posted?;
        wait_for("the revision that was carried", PATIENCE_S, || {
            let ran = self.device.control("steps show-progress locals/by-hand")?;
            ensure(ran.code == 0, || ran.text.trim().to_string())?;
            Ok(ran.text.contains("\"DONE\"").then_some(()))
        })?;
        let page = wait_for("the page that was carried", PATIENCE_S, || {
            let page = http::get(self.device.ports.web, "/")?.text();
            Ok(page.contains("by hand").then_some(page))
        })?;
        report.fact(&format!("web serves {}", page.trim()));
        let steps = self.device.control("steps ls")?.text;
        ensure(!steps.contains("locals/half"), || "half an archive became a revision".into())?;
        report.fact(&format!("an archive of {} bytes was installed, half of it was refused", whole.len()));
        Ok(())
    }
}

/// What the container runs: half of the archive must be refused; the page's commands are repeated while the device is
/// busy with the update that brought the container.
fn carry(script: &str) -> String {
    format!(
        "trap 'exit 0' TERM PWR\n\
         pvcontrol signal ready || exit 1\n\
         pvcontrol steps install /half.tgz locals/half\n\
         [ $? = 255 ] || exit 1\n\
         while :; do\n\
         {}\n\
         [ $? = 75 ] || break\n\
         sleep 2 & wait $!\n\
         done\n\
         while :; do sleep 3600 & wait $!; done\n",
        script.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_commands_and_what_they_print() {
        let blocks =
            parse("## One\nwords\n```sh\na\nb\n```\n```text\nx\n```\n```sh device\npvcontrol ls\n```\n").unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].script.as_str(), blocks[0].prints.as_deref()), ("a\nb\n", Some("x\n")));
        assert_eq!((blocks[1].place, blocks[1].heading.as_str()), (Place::Device, "One"));
        assert!(parse("```text\nx\n```\n").is_err() && parse("```rust\n```\n").is_err());
    }

    #[test]
    fn output_is_compared_line_by_line_and_an_ellipsis_is_anything() {
        assert!(is_as("a…c\nd\n", "x\nabc\ny\nd\n").is_ok());
        assert!(is_as("d\na…c\n", "abc\nd\n").is_err(), "another order");
        assert!(is_as("a\n", "ab\n").is_err() && is_as("a…\n", "ab\n").is_ok() && is_as("…b\n", "ab\n").is_ok());
        assert!(is_as("…\n", "").is_ok());
    }
}
