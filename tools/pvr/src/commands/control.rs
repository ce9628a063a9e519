//! `pvr control`: one pvcontrol command over the emulator's second serial port.
//!
//! The device prints a prompt, reads a line of arguments, prints the command's output and then `[exit N]`. A serial
//! port has no beginning and no end, and no time by which old output has surely arrived: so a line `#WORD` is sent
//! first, which the device answers with `[mark WORD]`, and all before that is dropped. An echo of a line is not part
//! of the output. A device that does not answer is given up after --timeout.

use crate::{
    commands::Context,
    error::{During, Error, Result},
};
use clap::Parser;
use serde_json::json;
use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Run one pvcontrol command on the emulated device
///
/// Prints what it prints and ends with its exit code. Only devices made with --dev have this port.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr control status
  pvr control --console device.console containers ls
  pvr control steps show-progress locals/a")]
pub(super) struct Args {
    /// Unix socket of `pvr emulate` [default: the only *.console in this folder]
    #[arg(long, value_name = "SOCKET", env = "PVR_CONSOLE")]
    console: Option<PathBuf>,
    /// Seconds to wait for the end of the command
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// What to hand to pvcontrol
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// The device's prompt.
const PROMPT: &str = "pvcontrol> ";
/// An answer is never longer; more is not from pvcontrol.
const ANSWER_MAX: usize = 4 << 20;
/// A mark that was not answered is sent again after this long: the device may just have begun to listen.
const MARK_AGAIN: Duration = Duration::from_secs(2);
/// And after this long if it had answered one before: it may have restarted since.
const ANSWER_AGAIN: Duration = Duration::from_secs(15);

pub(super) fn run(context: &Context, args: &Args) -> Result<u8> {
    let socket = args.console.clone().map_or_else(find, Ok)?;
    let line = args.args.join(" ");
    if line.contains(['\n', '\r']) {
        return Err(Error::usage("a command is one line"));
    }
    let stream = UnixStream::connect(&socket).map_err(|e| {
        let hint = "is the emulator running? `pvr emulate` prints the socket's name";
        Error::remote(format!("cannot connect to {}: {e}", socket.display())).hint(hint)
    })?;
    let (output, code) = ask(stream, &line, Duration::from_secs(args.timeout))?;
    context.say(json!({"output": output, "exit": code}), || output.trim_end_matches('\n').to_owned());
    Ok(code)
}

/// The only console socket of this folder.
fn find() -> Result<PathBuf> {
    let entries = std::fs::read_dir(".").during(|| "read this folder")?;
    let mut sockets = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "console"));
    match (sockets.next(), sockets.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            Err(Error::usage("no console socket here")
                .hint("give the one that `pvr emulate` printed: --console SOCKET"))
        }
        _ => Err(Error::usage("several console sockets here").hint("say which: --console SOCKET")),
    }
}

/// Sends the line, and reads up to the line that tells the exit code.
fn ask(stream: UnixStream, line: &str, patience: Duration) -> Result<(String, u8)> {
    let mut port = Port { stream, said: Vec::new(), end: Instant::now() + patience };
    port.stream.set_read_timeout(Some(Duration::from_millis(100))).during(trouble)?;
    match port.mark().and_then(|()| port.command(line))? {
        Some(answer) => Ok(answer),
        None => {
            let hint = "has the device booted, and was it made with --dev? Its serial log tells";
            Err(Error::remote(format!("no answer to `{line}` within {} s", patience.as_secs())).hint(hint))
        }
    }
}

fn trouble() -> &'static str {
    "talk to the device's console"
}

/// The serial port, and what was read of it.
struct Port {
    stream: UnixStream,
    said: Vec<u8>,
    end: Instant,
}

impl Port {
    /// Drops everything that was said before now, the prompt behind the mark included: the echo of what is sent before that
    /// has come may stand in the middle of it. Of several marks the last counts: a device that listens answers all.
    fn mark(&mut self) -> Result<()> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        let word = format!("{:x}-{nanos:x}-", std::process::id());
        let (mut sent, mut count) = (None, 0);
        while !self.is_over() {
            let listens = end_of(&self.said, 0, &format!("[mark {word}")).is_some();
            let patience = if listens { ANSWER_AGAIN } else { MARK_AGAIN };
            if sent.is_none_or(|at: Instant| at.elapsed() >= patience) {
                count += 1;
                // The first line end completes what somebody may have left on the line.
                self.stream.write_all(format!("\n#{word}{count}\n").as_bytes()).during(trouble)?;
                sent = Some(Instant::now());
            }
            self.read()?;
            if let Some(end) = behind_mark(&self.said, &format!("{word}{count}")) {
                self.said.drain(..end);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Runs a command. `None`: the time is over.
    fn command(&mut self, line: &str) -> Result<Option<(String, u8)>> {
        if !self.is_over() {
            self.stream.write_all(format!("{line}\n").as_bytes()).during(trouble)?;
        }
        while !self.is_over() {
            self.read()?;
            if let Some(answer) = answer(&String::from_utf8_lossy(&self.said), line) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn is_over(&self) -> bool {
        Instant::now() > self.end || self.said.len() > ANSWER_MAX
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Error::remote("the emulator ended before the answer")),
            Ok(n) => {
                self.said.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                Ok(())
            }
            Err(e) => Err(e).during(trouble),
        }
    }
}

/// Where the prompt behind the answer to a mark ends.
fn behind_mark(said: &[u8], word: &str) -> Option<usize> {
    end_of(said, end_of(said, 0, &format!("[mark {word}]"))?, PROMPT)
}

/// Where the first such text ends, from a place on.
fn end_of(said: &[u8], from: usize, text: &str) -> Option<usize> {
    let at = said[from..].windows(text.len()).position(|part| part == text.as_bytes())?;
    Some(from + at + text.len())
}

/// Output and exit code, once both are complete.
fn answer(said: &str, line: &str) -> Option<(String, u8)> {
    let text = said.replace('\r', "");
    // After a command that says nothing it stands behind the prompt, if the echo came before that.
    let begins = |before: &str| before.is_empty() || before.ends_with('\n') || before.ends_with(PROMPT);
    let start = text.rfind("[exit ").filter(|at| begins(&text[..*at]))?;
    let (code, _) = text[start + 6..].split_once(']')?;
    Some((behind_echoes(&text[..start], line).to_owned(), code.parse().ok()?))
}

/// The output alone. A terminal echoes a line when it arrives: before the prompt that it answers, or behind it.
fn behind_echoes<'a>(text: &'a str, line: &str) -> &'a str {
    let (mut rest, mut echo) = (text, Some(line));
    loop {
        rest = rest.trim_start_matches('\n');
        if let Some(behind) = rest.strip_prefix(PROMPT) {
            rest = behind;
        } else if let Some(behind) = echo.and_then(|line| rest.strip_prefix(line)?.strip_prefix('\n')) {
            (rest, echo) = (behind, None);
        } else {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{answer, ask, behind_mark};
    use std::{
        io::{BufRead, BufReader, Read, Write},
        os::unix::net::UnixStream,
        time::Duration,
    };

    #[test]
    fn a_mark_is_over_behind_the_prompt_that_follows_it() {
        assert_eq!(behind_mark(b"[mark a-1]\r\npvcontr", "a-1"), None);
        assert_eq!(behind_mark(b"pvcontrol> [mark a-1]\r\npvcontrol> ", "a-2"), None);
        assert_eq!(behind_mark(b"pvcontrol> [mark a-1]\r\npvcontrol> x", "a-1"), Some(34));
    }

    /// A device that answers late, every mark, and is slow to print the prompt behind the last one: what is sent before that
    /// would be echoed into it.
    #[test]
    fn no_command_is_sent_before_the_prompt_behind_the_last_mark() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let device = std::thread::spawn(move || {
            let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines().map(Result::unwrap);
            let mut mark = || lines.find_map(|line| line.strip_prefix('#').map(str::to_owned)).unwrap();
            let held = [mark(), mark()];
            write!(&theirs, "[mark {}]\r\npvcontrol> [mark {}]\r\npvcon", held[0], held[1]).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            theirs.set_nonblocking(true).unwrap();
            let mut early = [0; 256];
            let count = (&theirs).read(&mut early).unwrap_or(0);
            theirs.set_nonblocking(false).unwrap();
            let early = String::from_utf8_lossy(&early[..count]).into_owned();
            write!(&theirs, "trol> ").unwrap();
            // On a busy machine there may be more marks by now.
            let more = early.lines().map(str::to_owned).collect::<Vec<_>>().into_iter().chain(lines);
            for line in more.filter(|line| !line.is_empty()) {
                match line.strip_prefix('#') {
                    Some(mark) => write!(&theirs, "[mark {mark}]\r\npvcontrol> ").unwrap(),
                    None => {
                        assert_eq!(line, "status");
                        write!(&theirs, "status\r\n{{}}\r\n[exit 0]\r\n").unwrap();
                        break;
                    }
                }
            }
            early
        });
        assert_eq!(ask(ours, "status", Duration::from_secs(60)).unwrap(), ("{}\n".to_owned(), 0));
        let early = device.join().unwrap();
        assert!(!early.contains("status"), "{early}");
    }

    #[test]
    fn answers_with_and_without_echo() {
        let good = Some(("{}\n".to_owned(), 0));
        assert_eq!(answer("{}\n[exit 0]\npvcontrol> ", "status"), good);
        assert_eq!(answer("pvcontrol> status\r\n{}\r\n[exit 0]\r\n", "status"), good);
        assert_eq!(answer("status\r\n{}\r\n[exit 0]\r\n", "status"), good);
        assert_eq!(answer("[exit 3]\n", "status"), Some((String::new(), 3)));
        assert_eq!(answer("\r\nstatus\r\npvcontrol> {}\r\n[exit 0]\r\n", "status"), good);
        let text = Some(("# a text\n".to_owned(), 0));
        assert_eq!(answer("show a\n# a text\n[exit 0]\npvcontrol> ", "show a"), text);
        let silent = Some((String::new(), 0));
        assert_eq!(answer("\r\ncontainers stop a\r\npvcontrol> [exit 0]\r\n", "containers stop a"), silent);
    }

    #[test]
    fn what_only_looks_like_the_end_is_not() {
        assert_eq!(answer("a line with [exit 0] inside\n", "x"), None);
        assert_eq!(answer("{}\n[exit ", "x"), None);
        assert_eq!(answer("", "x"), None);
    }
}
