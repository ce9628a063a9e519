//! `console`: `pvcontrol` on a terminal of the device, for images made with `--dev`.
//!
//! Prints a prompt, reads one line of arguments, runs `pvcontrol` with them in this process, and prints what
//! it prints and then a line `[exit N]`. A line may quote words with `"` or `'`. A line `#WORD` runs nothing and prints
//! `[mark WORD]`: a program at the other end of a serial line learns from it where old output ends.
//!
//! Invariants: whoever is at the terminal can do what the control socket allows and nothing else: no shell, no files
//! to read or write, its own user, no capability. A line is bounded. One command at a time.
//! Faults: a terminal that hangs up ends the process, which PID 1 starts again.

use crate::{
    confine,
    pvcontrol::{self, Powers},
    wire::{Buffer, Channel, Message, WireError},
};
use rustix::io::Errno;
use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
};

/// What `pvr control` and people look for.
const PROMPT: &str = "pvcontrol> ";
/// Longest line; a terminal gives no longer ones.
const LINE_MAX: usize = 4096;

/// Serves the terminal that PID 1 hands over.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut buffer = Buffer::new();
    let terminal = match channel.receive(&mut buffer)? {
        Some(mut request) if matches!(request.message, Message::Serve { .. }) => request.fds.pop(),
        _ => None,
    };
    let Some(terminal) = terminal else { return Err(WireError::Value) };
    confine::become_user_in(confine::CONSOLE_UID, confine::ENDPOINT_UID)?;
    confine::close_files(None)?;
    confine::restrict(confine::Calls::Console)?;
    channel.send(0, &Message::Ready, &[])?;
    serve(&File::from(terminal)).map_err(|error| WireError::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

/// Until the terminal hangs up.
fn serve(terminal: &File) -> io::Result<()> {
    let mut lines = Lines { from: terminal, bytes: Vec::new(), skipping: false };
    loop {
        (&*terminal).write_all(PROMPT.as_bytes())?;
        let Some(line) = lines.next()? else { return Ok(()) };
        if let Some(word) = line.strip_prefix('#') {
            writeln!(&*terminal, "[mark {}]", word.trim())?;
            continue;
        }
        let args = match split(&line) {
            Ok(args) if args.is_empty() => continue,
            Ok(args) => args,
            Err(why) => {
                writeln!(&*terminal, "pvcontrol: {why}\n[exit 2]")?;
                continue;
            }
        };
        let mut out = Ended { to: BufWriter::new(terminal), newline: true };
        let code = pvcontrol::run(&args, Powers::NO_FILES, &mut io::empty(), &mut out, &mut &*terminal);
        if !out.newline {
            out.write_all(b"\n")?;
        }
        writeln!(out, "[exit {code}]")?;
        out.flush()?;
    }
}

/// Lines of a terminal, bounded.
struct Lines<'t> {
    from: &'t File,
    bytes: Vec<u8>,
    /// The rest of a line that was too long.
    skipping: bool,
}

impl Lines<'_> {
    /// The next line; `None` if the terminal hung up.
    fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                if !std::mem::take(&mut self.skipping) {
                    return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
                }
                continue;
            }
            if self.bytes.len() >= LINE_MAX {
                self.bytes.clear();
                self.skipping = true;
            }
            let mut chunk = [0; 512];
            match self.from.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Words of a line; quotes of either kind keep a word together and have no escapes.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut begun, mut quote) = (Vec::new(), String::new(), false, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    if quote.is_some() { Err("a quote does not end") } else { Ok(words) }
}

/// Knows whether a line was ended.
struct Ended<'t> {
    to: BufWriter<&'t File>,
    newline: bool,
}

impl Write for Ended<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        if let Some(last) = bytes[..count].last() {
            self.newline = *last == b'\n';
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{fd::OwnedFd, unix::net::UnixStream};

    #[test]
    fn lines_are_split_into_words() {
        let words = |line| split(line).unwrap();
        assert_eq!(words("  containers  restart web\t"), ["containers", "restart", "web"]);
        assert_eq!(words("-m 'a \"b\" c' x\"y z\" ''"), ["-m", "a \"b\" c", "xy z", ""]);
        assert_eq!(words(""), [""; 0]);
        assert!(split("a 'b").is_err());
    }

    /// What the terminal shows for what is typed, until it hangs up.
    fn typed(text: &str) -> String {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let terminal = File::from(OwnedFd::from(theirs));
        (&ours).write_all(text.as_bytes()).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        serve(&terminal).unwrap();
        drop(terminal);
        let mut shown = String::new();
        (&ours).read_to_string(&mut shown).unwrap();
        shown
    }

    #[test]
    fn every_line_gets_its_output_and_its_exit_code() {
        let shown = typed("nothing at all\n\r\n'a\n--help\n");
        let start = "pvcontrol> pvcontrol: `nothing at all` is not a command of this device\nTry: pvcontrol --help\n\
            [exit 2]\npvcontrol> pvcontrol> pvcontrol> pvcontrol: a quote does not end\n[exit 2]\npvcontrol> ";
        assert!(shown.starts_with(start), "{shown}");
        assert!(shown.ends_with("\n[exit 0]\npvcontrol> "), "{shown}");
    }

    #[test]
    fn a_mark_is_answered_and_runs_nothing() {
        assert_eq!(typed("#a-1\n"), "pvcontrol> [mark a-1]\npvcontrol> ");
    }

    #[test]
    fn no_file_can_be_named_and_no_line_is_too_long() {
        let shown = typed("-f /tmp/x ls\nobjects put /etc/passwd x\n-s /tmp/x ls\n");
        assert_eq!(
            shown.matches("no files can be named here\nTry: pvcontrol --help\n[exit 2]\n").count(),
            3,
            "{shown}"
        );
        let shown = typed(&format!("{}\nnope\n", "x".repeat(3 * LINE_MAX)));
        assert_eq!(shown.matches("[exit 2]").count(), 1, "{shown}");
    }
}
