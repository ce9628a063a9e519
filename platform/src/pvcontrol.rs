//! `pvcontrol`: the control socket from a command line.
//!
//! One command is one request (two for a commit message), its answer goes to the output as it comes. Commands,
//! options and exit codes are those of the original, reference: device-formats 6.3; `status`, `limits` and
//! `--json` are additions.
//!
//! Invariants: every exchange has a deadline; nothing larger than a state JSON is held in memory. What went
//! wrong is one line of the error output, with the code of the device, and the exit code.
//! Not here: metadata, daemons, the commands that the device does not serve yet: they are refused by name.

use runtime::{
    http::Reply,
    json::{Kind, Object, Value},
    limits,
};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Duration,
};

pub mod client;
mod install;

/// Where the socket is looked for without `-s`.
const SOCKETS: [&str; 3] = ["/run/pantavisor/pv/pv-ctrl", "/pv/pv-ctrl", "/pantavisor/pv-ctrl"];
/// Longest silence of the device: it may be hashing an object.
const SILENCE: Duration = Duration::from_millis(2 * limits::TRANSFER_PATIENCE_MS);
/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// Exit codes.
mod exit {
    pub(super) const DONE: u8 = 0;
    /// The command line is not understood.
    pub(super) const USAGE: u8 = 2;
    /// The device could not be asked, or its answer not be stored.
    pub(super) const LOCAL: u8 = 1;
    pub(super) const NO_SPACE: u8 = 48;
    pub(super) const BAD_CHECKSUM: u8 = 60;
    pub(super) const BAD_STATE: u8 = 70;
    pub(super) const BUSY: u8 = 75;
    /// Any other refusal.
    pub(super) const REFUSED: u8 = 255;
}

const HELP: &str = "\
Ask and tell the device that this container or shell runs on.

Usage: pvcontrol [OPTIONS] COMMAND [ARGUMENTS]

Commands:
  status                            how the device fares, and what its board does not survive without a person
                                    (--json: for programs)
  ls, containers ls                 containers with status, group and process
  containers start|stop|restart NAME
  groups ls                         groups and their goals
  signal ready                      tell that this container is ready
  cmd run locals/NAME               try a revision; it is committed when its goals are met
  cmd rollback                      go back to the revision before, as an update that is tried like any other
  cmd reboot | poweroff | run-gc
  cmd factory-reset                 restart with the factory revision, and nothing else: other revisions, volumes of
                                    containers, logs, pairings are removed, however often power is cut meanwhile
  objects ls
  objects get SHA256                its content, to the output or -f FILE
  objects put FILE SHA256           FILE may be -SIZE: that many bytes of the input
  steps ls                          revisions on the device
  steps get REVISION                its state JSON; `current` is the one that runs
  steps put FILE locals/NAME        FILE may be -: the input
  steps install FILE [locals/NAME]  an exported revision from a file, tar or tgz: everything is checked, then sent
                                    [default: locals/ and the sha256 of FILE]; prints its name
  steps show-progress REVISION      how its update fared
  endpoint ls                       whom the endpoint serves: its certificate, and the tokens that it gave
  endpoint pair                     show a code for `pvr device pair`; it is good once, for five minutes.
                                    In a browser: compare its certificate's SHA-256 with the one shown first
  endpoint revoke ID|all            take a token back
  storage gc                        remove what no kept revision needs
  limits                            every bound of this device
  buildinfo                         what this system was built from

Options:
  -s SOCKET   control socket [default: the first of
              /run/pantavisor/pv/pv-ctrl, /pv/pv-ctrl, /pantavisor/pv-ctrl]
  -f FILE     write the answer to FILE; not for steps install
  -m MESSAGE  commit message, for steps put and install
  --run       after steps install: try the revision, as cmd run does
  --json      answers and refusals as the device sends them
  -v          print the request and the status of its answer
  -h, --help  this text

Exit codes: 0 done, 1 the device cannot be asked, 2 not a command, 48 storage is full, 60 wrong checksum,
70 state refused, 75 busy, 255 refused otherwise.

Examples:
  pvcontrol status
  pvcontrol containers restart web
  pvcontrol objects put page.html $(sha256sum page.html | cut -d' ' -f1)
  pvcontrol -m 'new page' steps put state.json locals/page && pvcontrol cmd run locals/page
  pvcontrol steps install --run device.pvrexport.tgz locals/page
";

/// The program. Its arguments are those of the process; `pvcontrol` in front is skipped.
pub fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let called = std::env::args().next().unwrap_or_default();
    if !called.ends_with("pvcontrol") && !args.is_empty() {
        args.remove(0);
    }
    let mut out = io::stdout().lock();
    ExitCode::from(run(&args, Powers::ALL, &mut io::stdin().lock(), &mut out, &mut io::stderr().lock()))
}

/// What the caller lets a command line do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Powers {
    /// Name files and sockets of this process. Without it, only the first default socket and no `-f`, `-s`, FILE.
    pub files: bool,
    /// The process is for this command line alone: before it reads what others made it gives up all that it does not need.
    pub alone: bool,
}

impl Powers {
    /// A shell of its own.
    pub const ALL: Self = Self { files: true, alone: true };
    /// A line from a terminal that runs nothing else.
    pub const NO_FILES: Self = Self { files: false, alone: false };
}

/// Runs one command; its exit code.
pub fn run(args: &[String], powers: Powers, input: &mut dyn Read, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let outcome = Options::parse(args, powers).and_then(|options| {
        let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
        if options.help || words.is_empty() {
            out.write_all(HELP.as_bytes()).map_err(Trouble::output)?;
            return if options.help { Ok(()) } else { Err(Trouble::Usage("which command?".into())) };
        }
        if let ["steps", "install", file, ref rev @ ..] = words[..]
            && rev.len() <= 1
        {
            if !powers.files {
                return Err(Trouble::Usage("no files can be named here".into()));
            }
            return install::run(&options, file, rev.first().copied(), powers.alone, out, err);
        }
        let plan = plan(&words, &options)?;
        if !powers.files && plan.iter().any(|request| matches!(request.body, Body::File(_))) {
            return Err(Trouble::Usage("no files can be named here".into()));
        }
        plan.iter().try_for_each(|request| exchange(&options, request, input, out, err))
    });
    let flushed = out.flush();
    match outcome {
        Ok(()) if flushed.is_ok() => exit::DONE,
        Ok(()) => exit::LOCAL,
        Err(trouble) => {
            // an error output that is gone cannot be told so
            let _ = trouble.print(err);
            trouble.exit_code()
        }
    }
}

/// Why a command did not do what it was to do.
#[derive(Debug)]
enum Trouble {
    Usage(String),
    Local(String),
    /// The file that is to be sent cannot be read.
    File(String),
    /// The device refused: status, its words, and its code if it said one.
    Refused(u16, String, String),
}

impl Trouble {
    fn output(error: io::Error) -> Self {
        Self::Local(format!("the answer cannot be written: {error}"))
    }

    fn print(&self, err: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Usage(text) => writeln!(err, "pvcontrol: {text}\nTry: pvcontrol --help"),
            Self::Local(text) | Self::File(text) => writeln!(err, "ERROR: {text}"),
            Self::Refused(_, text, _) => writeln!(err, "{text}"),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Local(_) | Self::File(_) => exit::LOCAL,
            Self::Refused(503, ..) => exit::BUSY,
            Self::Refused(507, _, code) if code != "SB1209" => exit::NO_SPACE,
            Self::Refused(422, _, code) if code == "SB1202" => exit::BAD_CHECKSUM,
            Self::Refused(422, _, code) if code.starts_with("SB10") || code.starts_with("SB11") => exit::BAD_STATE,
            Self::Refused(..) => exit::REFUSED,
        }
    }
}

type Outcome<T> = Result<T, Trouble>;

#[derive(Clone, Default)]
struct Options {
    words: Vec<String>,
    socket: Option<String>,
    file: Option<String>,
    message: Option<String>,
    json: bool,
    run: bool,
    verbose: bool,
    help: bool,
}

impl Options {
    /// Options may stand anywhere; after `--`, and `-SIZE`, are words.
    fn parse(args: &[String], powers: Powers) -> Outcome<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || match args.next() {
                Some(value) => Ok(Some(value.clone())),
                None => Err(Trouble::Usage(format!("{arg} needs a value"))),
            };
            match arg.as_str() {
                "-s" => options.socket = value()?,
                "-f" => options.file = value()?,
                "-m" => options.message = value()?,
                "-v" => options.verbose = true,
                "--json" => options.json = true,
                "--run" => options.run = true,
                "-h" | "--help" => options.help = true,
                "--" => options.words.extend(args.by_ref().cloned()),
                word if word.starts_with('-') && word[1..].bytes().any(|byte| !byte.is_ascii_digit()) => {
                    return Err(Trouble::Usage(format!("{word} is not an option")));
                }
                word => options.words.push(word.into()),
            }
        }
        if !powers.files && (options.socket.is_some() || options.file.is_some()) {
            return Err(Trouble::Usage("no files can be named here".into()));
        }
        if options.message.as_ref().is_some_and(|message| message.len() > limits::COMMIT_MESSAGE_MAX) {
            return Err(Trouble::Usage(format!("a message has at most {} bytes", limits::COMMIT_MESSAGE_MAX)));
        }
        Ok(options)
    }
}

/// What is sent behind a head.
enum Body {
    None,
    Text(String),
    File(String),
    /// This many bytes of the input.
    Input(u64),
    /// All of the input, which must fit a state.
    WholeInput,
}

/// One request and what is done with its answer.
struct Request {
    method: &'static str,
    path: String,
    body: Body,
    show: Show,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    /// Bytes as they come.
    Raw,
    /// JSON: with an end of line.
    Document,
    /// A table for people.
    Status,
    /// A pairing code, and where to use it.
    Pairing,
}

fn get(path: impl Into<String>) -> Vec<Request> {
    vec![Request { method: "GET", path: path.into(), body: Body::None, show: Show::Document }]
}

fn send(method: &'static str, path: impl Into<String>, body: Body) -> Vec<Request> {
    vec![Request { method, path: path.into(), body, show: Show::Document }]
}

/// The requests of a command.
fn plan(words: &[&str], options: &Options) -> Outcome<Vec<Request>> {
    Ok(match *words {
        ["status"] => {
            let show = if options.json { Show::Document } else { Show::Status };
            vec![Request { method: "GET", path: "/status".into(), body: Body::None, show }]
        }
        ["ls"] | ["containers", "ls"] => get("/containers"),
        ["containers", act @ ("start" | "stop" | "restart"), name] => {
            send("PUT", format!("/containers/{}", part(name)?), Body::Text(format!("{{\"action\":\"{act}\"}}")))
        }
        ["groups", "ls"] => get("/groups"),
        ["signal", kind @ ("ready" | "alive")] => {
            send("POST", "/signal", Body::Text(format!("{{\"type\":\"{kind}\",\"payload\":\"\"}}")))
        }
        ["cmd", "run", rev] => command("LOCAL_RUN", part(rev)?),
        ["cmd", "reboot", ref message @ ..] => command("REBOOT_DEVICE", &message.join(" ")),
        ["cmd", "poweroff", ref message @ ..] => command("POWEROFF_DEVICE", &message.join(" ")),
        ["cmd", "factory-reset"] => command("FACTORY_RESET", ""),
        ["cmd", "run-gc"] => command("RUN_GC", ""),
        ["cmd", "rollback"] => send("POST", "/rollback", Body::None),
        ["endpoint"] | ["endpoint", "ls"] => get("/endpoint"),
        ["endpoint", "pair"] => {
            let show = if options.json { Show::Document } else { Show::Pairing };
            vec![Request { method: "POST", path: "/endpoint/pair".into(), body: Body::None, show }]
        }
        ["endpoint", "revoke", token] => send("DELETE", format!("/endpoint/tokens/{}", part(token)?), Body::None),
        ["storage", "gc"] => send("POST", "/storage/gc", Body::None),
        ["objects", "ls"] => get("/objects"),
        ["objects", "get", sha] => {
            let path = format!("/objects/{}", part(sha)?);
            vec![Request { method: "GET", path, body: Body::None, show: Show::Raw }]
        }
        ["objects", "put", file, sha] => {
            let body = match file.strip_prefix('-') {
                Some(size) => Body::Input(
                    size.parse()
                        .map_err(|_| Trouble::Usage("the input needs its size: objects put -SIZE SHA256".into()))?,
                ),
                None => Body::File(file.into()),
            };
            send("PUT", format!("/objects/{}", part(sha)?), body)
        }
        ["steps", "ls"] => get("/steps"),
        ["steps", "get", rev] => get(format!("/steps/{}", part(rev)?)),
        ["steps", "show-progress", rev] => get(format!("/steps/{}/progress", part(rev)?)),
        ["steps", "put", file, rev] => {
            let body = if file == "-" { Body::WholeInput } else { Body::File(file.into()) };
            let mut requests = send("PUT", format!("/steps/{}", part(rev)?), body);
            if let Some(message) = &options.message {
                requests.extend(send("PUT", format!("/steps/{rev}/commitmsg"), Body::Text(message.clone())));
            }
            requests
        }
        ["limits"] => get("/limits"),
        ["buildinfo"] => vec![Request { method: "GET", path: "/buildinfo".into(), body: Body::None, show: Show::Raw }],
        _ => return Err(Trouble::Usage(format!("`{}` is not a command of this device", words.join(" ")))),
    })
}

/// A name that becomes a part of a path: the device judges it, but it must not change the request.
fn part(name: &str) -> Outcome<&str> {
    let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\"\\".contains(&byte));
    if good { Ok(name) } else { Err(Trouble::Usage(format!("`{}` is not a name", name.escape_debug()))) }
}

fn command(op: &str, payload: &str) -> Vec<Request> {
    let payload = runtime::json::Escaped(payload);
    send("POST", "/commands", Body::Text(format!("{{\"op\":\"{op}\",\"payload\":\"{payload}\"}}")))
}

/// Sends a request and shows its answer.
fn exchange(
    options: &Options,
    request: &Request,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome<()> {
    let mut stream = connect(options)?;
    let trouble = |error: io::Error| Trouble::Local(format!("the device stopped answering: {error}"));
    let mut whole = Vec::new();
    let mut file = None;
    let (mut body, length): (&mut dyn Read, u64) = match &request.body {
        Body::None => (&mut io::empty(), 0),
        Body::Text(text) => (&mut text.as_bytes(), text.len() as u64),
        Body::File(name) => {
            let opened = File::open(name).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, opened) = opened.map_err(|error| Trouble::Local(format!("{name}: {error}")))?;
            (file.insert(opened), length)
        }
        Body::Input(length) => (input, *length),
        Body::WholeInput => {
            let read = input.take(limits::STATE_MAX as u64 + 1).read_to_end(&mut whole);
            let length = read.map_err(|error| Trouble::Local(format!("the input: {error}")))? as u64;
            (&mut &whole[..], length)
        }
    };
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        request.method, request.path
    );
    if options.verbose {
        let _ = writeln!(err, "> {} {}, {length} bytes", request.method, request.path);
    }
    // A device that refuses answers without reading the rest: its answer counts, not that sending failed. An input
    // that ends early is ours to report; the device sees a request cut short.
    let mut sending = stream.write_all(head.as_bytes());
    if sending.is_ok() {
        let mut to = Upload { stream: &mut stream, failed: None };
        let pumped = pump(&mut body, &mut to, Some(length));
        sending = to.failed.take().map_or(Ok(()), Err);
        if let (Ok(()), Err(error)) = (&sending, pumped) {
            return Err(Trouble::Local(format!("the content: {error}")));
        }
    }
    let mut answer = Answer::receive(stream).map_err(|error| match &sending {
        Err(sending) => trouble(io::Error::new(sending.kind(), sending.to_string())),
        Ok(()) => trouble(error),
    })?;
    if options.verbose {
        let _ = writeln!(err, "< {}", answer.reply.status);
    }
    if answer.reply.status != 200 {
        return Err(answer.refusal(options.json).unwrap_or_else(trouble));
    }
    sending.map_err(trouble)?;
    match &options.file {
        Some(name) => {
            let failed = |error: io::Error| Trouble::Local(format!("{name}: {error}"));
            answer.copy(&mut File::create(name).map_err(failed)?).map(drop).map_err(failed)
        }
        None if matches!(request.show, Show::Status | Show::Pairing) => {
            let text = answer.text().map_err(trouble)?;
            let shown = if request.show == Show::Status { status_table(&text) } else { invitation(&text) };
            out.write_all(shown.as_bytes()).map_err(Trouble::output)
        }
        None => {
            let last = answer.copy(out).map_err(Trouble::output)?;
            let ended = matches!(last, None | Some(b'\n')) || request.show == Show::Raw;
            if ended { Ok(()) } else { out.write_all(b"\n").map_err(Trouble::output) }
        }
    }
}

fn connect(options: &Options) -> Outcome<UnixStream> {
    let (path, connected) = match &options.socket {
        Some(path) => (path.as_str(), UnixStream::connect(path)),
        None => first_socket(),
    };
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::Local(format!("{path} not found")),
        _ => Trouble::Local(format!("{path}: {error}")),
    })?;
    let timed = stream.set_read_timeout(Some(SILENCE)).and_then(|()| stream.set_write_timeout(Some(SILENCE)));
    timed.map_err(|error| Trouble::Local(format!("{path}: {error}")))?;
    Ok(stream)
}

/// The first of the usual sockets that there is.
fn first_socket() -> (&'static str, io::Result<UnixStream>) {
    let [first, second, last] = SOCKETS;
    for path in [first, second] {
        let connected = UnixStream::connect(path);
        if !connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return (path, connected);
        }
    }
    (last, UnixStream::connect(last))
}

/// Moves `length` bytes, or all there are.
fn pump(from: &mut dyn Read, to: &mut dyn Write, length: Option<u64>) -> io::Result<()> {
    let mut left = length.unwrap_or(u64::MAX);
    let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
    while left > 0 {
        let room = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
        match from.read(&mut chunk[..room]) {
            Ok(0) if length.is_none() => return Ok(()),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended in the middle")),
            Ok(count) => {
                to.write_all(&chunk[..count])?;
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An answer whose head was read.
struct Answer {
    stream: UnixStream,
    reply: Reply,
    /// What came with the head.
    begun: Vec<u8>,
}

impl Answer {
    fn receive(mut stream: UnixStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        loop {
            while let Some(reply) = Reply::parse(&bytes).map_err(|refusal| invalid(refusal.to_string()))? {
                let begun = bytes.split_off(reply.size);
                if reply.status >= 200 {
                    return Ok(Self { stream, reply, begun });
                }
                bytes = begun;
            }
            let mut chunk = [0; 1024];
            match stream.read(&mut chunk) {
                Ok(0) => return Err(invalid("no answer".into())),
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies the body; its last byte.
    fn copy(&mut self, to: &mut dyn Write) -> io::Result<Option<u8>> {
        if self.reply.chunked {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a chunked answer is not from this device"));
        }
        let mut to = Last { to, last: None };
        let begun = std::mem::take(&mut self.begun);
        match self.reply.length {
            Some(length) => {
                let begun = &begun[..begun.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
                to.write_all(begun)?;
                pump(&mut self.stream, &mut to, Some(length - begun.len() as u64))?;
            }
            None => {
                to.write_all(&begun)?;
                pump(&mut self.stream, &mut to, None)?;
            }
        }
        Ok(to.last)
    }

    fn text(&mut self) -> io::Result<String> {
        if self.reply.length.is_some_and(|length| length > limits::HTTP_ANSWER_MAX as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        let mut bytes = Vec::new();
        self.copy(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The body of a refusal as one line.
    fn refusal(&mut self, json: bool) -> io::Result<Trouble> {
        let text = self.text()?;
        let status = self.reply.status;
        let document = Value::parse(text.as_bytes()).ok().and_then(|value| value.object().ok());
        let Some(document) = document else {
            return Ok(Trouble::Refused(status, format!("ERROR: HTTP {status}: {}", text.trim()), String::new()));
        };
        let word = |key| text_of(document, key);
        let (code, error, key) = (word("code"), word("Error"), word("key"));
        let mut line = if code.is_empty() { format!("ERROR: {error}") } else { format!("ERROR: {code}: {error}") };
        if !key.is_empty() {
            let _ = write!(line, " ({key})");
        }
        if let Some(at) = number_of(document, "at").filter(|at| *at > 0) {
            let _ = write!(line, " at byte {at}");
        }
        Ok(Trouble::Refused(status, if json { text.trim().into() } else { line }, code))
    }
}

/// The way to the device; keeps its failure apart from those of the input.
struct Upload<'s> {
    stream: &'s mut UnixStream,
    failed: Option<io::Error>,
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Remembers the last byte that went by.
struct Last<'w> {
    to: &'w mut dyn Write,
    last: Option<u8>,
}

impl Write for Last<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.last = bytes[..count].last().copied().or(self.last);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The text under a key, without what could steer a terminal; empty if there is none.
fn text_of(document: Object<'_>, key: &str) -> String {
    let string = document.get(key).and_then(|value| value.string().ok());
    string.map_or(String::new(), |text| text.chars().filter(|c| !c.is_control()).collect())
}

fn number_of(document: Object<'_>, key: &str) -> Option<u64> {
    std::str::from_utf8(document.get(key)?.raw()).ok()?.parse().ok()
}

/// The status as a table: one line per thing that the device says, containers and processes as rows.
///
/// Made from whatever members there are, so that a newer device is shown, too.
fn status_table(text: &str) -> String {
    let Some(document) = Value::parse(text.as_bytes()).ok().and_then(|value| value.object().ok()) else {
        return format!("{}\n", text.trim());
    };
    let mut table = String::new();
    for (name, value) in document.members() {
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        match value.kind() {
            Kind::Array if value.elements().next().is_none() => {}
            Kind::Array => {
                let _ = writeln!(table, "{name}");
                rows(&mut table, value);
            }
            _ => {
                let _ = writeln!(table, "{name:<12} {}", cell(value));
            }
        }
    }
    table
}

/// A pairing code with where it is used, and for how long; what is no invitation as it came.
fn invitation(text: &str) -> String {
    let document = Value::parse(text.as_bytes()).ok().and_then(|value| value.object().ok());
    let Some((document, valid_s)) = document.and_then(|document| Some((document, number_of(document, "valid_s")?)))
    else {
        return format!("{}\n", text.trim());
    };
    let word = |key| text_of(document, key);
    let plain = if word("transport") == "plain" { " --plain" } else { "" };
    let mut shown = format!("code         {}\n", word("code"));
    let _ = writeln!(shown, "valid        once, for {valid_s} seconds");
    let _ = writeln!(shown, "on a host    pvr device pair{plain} ADDRESS   asks for the code");
    let (print, browser) = (word("certificate_sha256"), word("browser"));
    if print.is_empty() {
        shown += "in a browser type it on the device's page\n";
    } else {
        let _ = writeln!(shown, "in a browser {browser}:\n             {print}");
    }
    shown
}

/// Objects of an array as rows, each cell as wide as the widest of its column.
fn rows(table: &mut String, list: Value<'_>) {
    let lines: Vec<Vec<String>> = list
        .elements()
        .map(|row| match row.kind() {
            Kind::Object => row.members().map(|(name, value)| labelled(name, value)).collect(),
            _ => vec![cell(row)],
        })
        .collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(table, "  {}", cells.join("  ").trim_end());
    }
}

/// A cell of a row: names and statuses speak for themselves, others with their label.
fn labelled(name: runtime::json::Str<'_>, value: Value<'_>) -> String {
    let text = cell(value);
    let label: String = name.chars().filter(|c| !c.is_control()).collect();
    if matches!(label.as_str(), "name" | "status") { text } else { format!("{label}={text}") }
}

/// A value on one line; objects as `name value` pairs.
fn cell(value: Value<'_>) -> String {
    match value.kind() {
        Kind::String => value.string().map_or(String::new(), |s| s.chars().filter(|c| !c.is_control()).collect()),
        Kind::Object => {
            let pairs = value.members().map(|(name, value)| {
                let name: String = name.chars().filter(|c| !c.is_control()).collect();
                format!("{name} {}", cell(value))
            });
            pairs.collect::<Vec<_>>().join(", ")
        }
        Kind::Array => value.elements().map(cell).collect::<Vec<_>>().join(","),
        Kind::Null => "none".into(),
        _ => String::from_utf8_lossy(value.raw()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::http;
    use std::os::unix::net::UnixListener;

    /// A device that gives one canned answer per connection; what it was asked.
    fn device(name: &str, answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let path = std::env::temp_dir().join(format!("pvcontrol-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let serve = move || answers.into_iter().map(|answer| serve_one(&listener, &answer)).collect();
        (path.to_str().unwrap().into(), std::thread::spawn(serve))
    }

    fn serve_one(listener: &UnixListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).unwrap();
            bytes.extend_from_slice(&chunk[..count]);
            let head = http::Head::parse(&bytes, http::HostRule::Local).unwrap();
            let whole = head.is_some_and(|head| bytes.len() as u64 >= head.size as u64 + head.length.unwrap_or(0));
            if count == 0 || whole {
                let _ = stream.write_all(answer.as_bytes()); // a client that gave up is gone
                return String::from_utf8(bytes).unwrap();
            }
        }
    }

    fn answer(status: u16, body: &str) -> String {
        let mut text = String::new();
        http::write_head(&mut text, status, http::media::JSON, Some(body.len() as u64), None).unwrap();
        text + body
    }

    fn run_with(args: &[&str], powers: Powers, input: &str) -> (u8, String, String) {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&args, powers, &mut input.as_bytes(), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// One command against canned answers: exit code, output, errors, requests.
    fn command_line(name: &str, args: &[&str], input: &str, answers: &[String]) -> (u8, String, String, Vec<String>) {
        let (socket, device) = device(name, answers.to_vec());
        let (code, out, err) = run_with(&[&["-s", &socket], args].concat(), Powers::ALL, input);
        (code, out, err, device.join().unwrap())
    }

    #[test]
    fn commands_become_the_originals_requests() {
        let sha = "ab".repeat(32);
        let objects = format!("/objects/{sha}");
        let table: &[(&[&str], &str, &str)] = &[
            (&["ls"], "GET /containers", ""),
            (&["containers", "ls"], "GET /containers", ""),
            (&["containers", "restart", "web"], "PUT /containers/web", r#"{"action":"restart"}"#),
            (&["groups", "ls"], "GET /groups", ""),
            (&["signal", "ready"], "POST /signal", r#"{"type":"ready","payload":""}"#),
            (&["cmd", "run", "locals/a"], "POST /commands", r#"{"op":"LOCAL_RUN","payload":"locals/a"}"#),
            (&["cmd", "reboot", "why \"not\""], "POST /commands", r#"{"op":"REBOOT_DEVICE","payload":"why \"not\""}"#),
            (&["cmd", "poweroff"], "POST /commands", r#"{"op":"POWEROFF_DEVICE","payload":""}"#),
            (&["cmd", "run-gc"], "POST /commands", r#"{"op":"RUN_GC","payload":""}"#),
            (&["cmd", "factory-reset"], "POST /commands", r#"{"op":"FACTORY_RESET","payload":""}"#),
            (&["storage", "gc"], "POST /storage/gc", ""),
            (&["objects", "ls"], "GET /objects", ""),
            (&["objects", "get", &sha], &format!("GET {objects}"), ""),
            (&["objects", "put", "-3", &sha], &format!("PUT {objects}"), "inp"),
            (&["steps", "ls"], "GET /steps", ""),
            (&["steps", "get", "current"], "GET /steps/current", ""),
            (&["steps", "show-progress", "locals/a"], "GET /steps/locals/a/progress", ""),
            (&["steps", "put", "-", "locals/a"], "PUT /steps/locals/a", "input"),
            (&["limits"], "GET /limits", ""),
            (&["buildinfo"], "GET /buildinfo", ""),
        ];
        for (args, request, body) in table {
            let (code, _, err, asked) = command_line("requests", args, "input", &[answer(200, "")]);
            assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
            assert!(asked[0].starts_with(&format!("{request} HTTP/1.1\r\nHost: localhost\r\n")), "{}", asked[0]);
            assert!(asked[0].ends_with(&format!("Content-Length: {}\r\n\r\n{body}", body.len())), "{}", asked[0]);
        }
    }

    #[test]
    fn a_message_follows_its_step() {
        let answers = [answer(200, ""), answer(200, "")];
        let (code, .., asked) =
            command_line("message", &["-m", "new page", "steps", "put", "-", "locals/a"], "{}", &answers);
        assert_eq!(code, 0);
        assert!(asked[1].starts_with("PUT /steps/locals/a/commitmsg ") && asked[1].ends_with("\r\n\r\nnew page"));
        let refused = [answer(422, r#"{"Error":"x","code":"SB1201","key":"a","at":0}"#)];
        let (code, .., asked) = command_line("refused", &["-m", "x", "steps", "put", "-", "locals/a"], "{}", &refused);
        assert_eq!((code, asked.len()), (255, 1), "no message for a step that was refused");
    }

    #[test]
    fn exit_codes_are_the_originals() {
        for (status, code, wanted) in [
            (503, "SB1402", 75),
            (507, "SB1204", 48),
            (507, "SB1209", 255),
            (422, "SB1202", 60),
            (422, "SB1003", 70),
            (422, "SB1105", 70),
            (422, "SB1201", 255),
            (404, "SB1207", 255),
            (403, "SB1507", 255),
            (500, "", 255),
        ] {
            let body = format!(r#"{{"Error":"words\u001b[2J","code":"{code}","key":"k","at":7}}"#);
            let (exit, out, err, _) = command_line("codes", &["ls"], "", &[answer(status, &body)]);
            assert_eq!((exit, out.as_str()), (wanted, ""), "{status} {code}");
            let said = if code.is_empty() { String::new() } else { format!("{code}: ") };
            assert_eq!(err, format!("ERROR: {said}words[2J (k) at byte 7\n"));
            let (_, _, err, _) = command_line("codes", &["--json", "ls"], "", &[answer(status, &body)]);
            assert_eq!(err.trim(), body);
        }
        let (exit, _, err, _) = command_line("codes", &["ls"], "", &["HTTP/1.1 400 Bad Request\r\n\r\nno".into()]);
        assert_eq!((exit, err.as_str()), (255, "ERROR: HTTP 400: no\n"));
    }

    #[test]
    fn answers_go_to_the_output_or_a_file() {
        assert_eq!(command_line("out", &["ls"], "", &[answer(200, "[1]")]).1, "[1]\n");
        let sha = "ab".repeat(32);
        assert_eq!(command_line("out", &["objects", "get", &sha], "", &[answer(200, "raw")]).1, "raw");
        let file = std::env::temp_dir().join(format!("pvcontrol-{}-file", std::process::id()));
        let (code, out, ..) = command_line("out", &["-f", file.to_str().unwrap(), "ls"], "", &[answer(200, "[2]")]);
        assert_eq!((code, out.as_str(), std::fs::read_to_string(&file).unwrap().as_str()), (0, "", "[2]"));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn an_answer_that_ends_early_is_a_failure() {
        let cut = answer(200, "[1,2,3]").replace("[1,2,3]", "[1,");
        assert_eq!(command_line("cut", &["ls"], "", &[cut]).0, 1);
        assert_eq!(command_line("cut", &["ls"], "", &[String::new()]).0, 1);
        let sha = "ab".repeat(32);
        let (code, _, err, _) = command_line("cut", &["objects", "put", "-9", &sha], "short", &[answer(200, "")]);
        assert_eq!(code, 1, "{err}");
    }

    #[test]
    fn what_is_no_command_is_not_sent() {
        for args in [
            &["nothing"][..],
            &[],
            &["containers", "stop"],
            &["containers", "stop", "a b"],
            &["containers", "stop", "a?x"],
            &["steps", "get", "a\r\nX: y"],
            &["objects", "put", "-", "x"],
            &["-s"],
            &["-x", "ls"],
            &["devmeta", "ls"],
        ] {
            assert_eq!(run_with(args, Powers::ALL, "").0, 2, "{args:?}");
        }
        let (code, out, _) = run_with(&["--help"], Powers::ALL, "");
        assert!(code == 0 && out.contains("Examples:"));
        for args in [&["-s", "/x", "ls"][..], &["-f", "/x", "ls"], &["objects", "put", "/etc/passwd", "x"]] {
            assert_eq!(run_with(args, Powers::NO_FILES, "").0, 2, "{args:?}");
        }
        let (code, _, err) = run_with(&["-s", "/nonexistent/x", "ls"], Powers::ALL, "");
        assert_eq!((code, err.as_str()), (1, "ERROR: /nonexistent/x not found\n"));
    }

    #[test]
    fn a_pairing_code_is_shown_with_where_to_use_it() {
        let shown = |answered: &str, args: &[&str]| command_line("pair", args, "", &[answer(200, answered)]).1;
        let plain = r#"{"code":"AB12-CD34","valid_s":300,"transport":"plain"}"#;
        assert_eq!(
            shown(plain, &["endpoint", "pair"]),
            "code         AB12-CD34\nvalid        once, for 300 seconds\n\
             on a host    pvr device pair --plain ADDRESS   asks for the code\n\
             in a browser type it on the device's page\n"
        );
        assert_eq!(shown(plain, &["endpoint", "pair", "--json"]), format!("{plain}\n"));
        let tls = r#"{"code":"A","valid_s":9,"transport":"tls","certificate_sha256":"f00d","browser":"compare\u001b"}"#;
        let text = shown(tls, &["endpoint", "pair"]);
        assert!(
            text.contains("pair ADDRESS") && text.ends_with("in a browser compare:\n             f00d\n"),
            "{text}"
        );
        assert_eq!(shown("else", &["endpoint", "pair"]), "else\n");
    }

    #[test]
    fn the_status_is_a_table() {
        let status = r#"{"status":"READY","revision":"locals/a","degraded":false,"update":{"revision":"locals/a","status":"DONE","progress":100},
            "watchdog":null,"survives":{"torn_write":true},"not_survived":["a hang"],"nothing":[],
            "processes":[{"name":"switchback","pid":1,"pss_kb":400},{"name":"keeper","pid":120}],
            "containers":[{"name":"web","status":"READY\u001b","pid":7},{"name":"a-longer-one","status":"STARTED","pid":12}]}"#;
        let (code, out, ..) = command_line("status", &["status"], "", &[answer(200, status)]);
        let wanted = "\
status       READY
revision     locals/a
degraded     false
update       revision locals/a, status DONE, progress 100
watchdog     none
survives     torn_write true
not_survived
  a hang
processes
  switchback  pid=1    pss_kb=400
  keeper      pid=120
containers
  web           READY    pid=7
  a-longer-one  STARTED  pid=12
";
        assert_eq!((code, out.as_str()), (0, wanted));
        assert_eq!(command_line("status", &["status", "--json"], "", &[answer(200, status)]).1, format!("{status}\n"));
        assert_eq!(status_table("not json\n"), "not json\n");
    }
}
