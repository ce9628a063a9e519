//! The control socket: from a head to a request, from an answer to a document.
//!
//! Every client (a container, `pvcontrol`, the endpoint, a test) ends in one `Request`; every request ends in
//! exactly one answer. Bytes stay with the connection: a request never holds a body.
//!
//! Invariants: who is not management reaches `/signal` and nothing else. Words are compared whole, never by
//! prefix. A refused request has changed nothing. Reference: device-formats 6; additions: `/status`, `/limits`,
//! and in `/containers` the members after `user_stopped`.
//!
//! What it does not do: it does not read sockets or files, and it decides nothing (`machine`).

use crate::{
    container::{Container, Status},
    fault::{Code, Refusal},
    http::{self, Head, Method, media},
    id::{ContainerId, ObjectId, PartName, RevName},
    journal::{self, Record},
    json::{Object, Value, Writer},
    limits,
    machine::Machine,
    order::{Phase, Standing},
    port::Millis,
    state::{Group, Plan, Recovery, RecoveryPolicy, RestartPolicy},
    update::State,
};
use core::fmt;

mod guard;
mod storage;
pub use guard::{Board, Environment, Guarantee, InForce, Reset, Tries, Watchdog};
pub use storage::Storage;

/// Who asks; known by the listening socket on which the connection came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The host's own socket: `pvcontrol` outside containers, the endpoint, the console.
    Host,
    /// The socket bound into this container.
    Container(ContainerId),
}

/// What a client may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `GET /containers`
    Containers,
    /// `GET /groups`
    Groups,
    /// `GET /status`, an addition of ours
    Status,
    /// `GET /limits`, an addition of ours
    Limits,
    /// `GET /buildinfo`
    BuildInfo,
    /// `POST /signal {"type":"ready"}`
    Ready,
    /// `PUT /containers/<name>`
    Act(PartName, Act),
    /// `POST /commands LOCAL_RUN`
    Run(RevName),
    /// `POST /rollback`, an addition of ours: `Run` of the revision before
    Rollback,
    /// `/endpoint` and all below it, additions of ours: the `endpoint` errand answers
    Endpoint,
    /// `POST /commands REBOOT_DEVICE`
    Reboot,
    /// `POST /commands POWEROFF_DEVICE`
    PowerOff,
    /// `POST /commands FACTORY_RESET`, an addition of ours
    FactoryReset,
    /// `POST /commands RUN_GC` and `POST /storage/gc`
    Collect,
    /// `PUT /steps/<rev>/commitmsg`; the text is the connection's body
    Message(RevName),
    /// `PUT /objects/<sha>`, `PUT /steps/locals/<name>`: a body of this length, streamed by an errand
    Receive(Upload, u64),
    /// `GET /objects[/<sha>]`, `GET /steps[/<rev>[/progress]]`
    Send(Download),
}

/// What to do with a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Start it, if a user stopped it or if it failed.
    Start,
    /// Stop it and keep it stopped until `Start`, `Restart` or the next boot.
    Stop,
    /// Stop it and start it again.
    Restart,
}

/// A body that does not pass through PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upload {
    /// An object.
    Object(ObjectId),
    /// The state JSON of a local revision.
    Step(RevName),
}

/// A file that does not pass through PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Download {
    /// An object.
    Object(ObjectId),
    /// The state JSON of a revision.
    State(RevName),
    /// The recorded progress of a revision.
    Progress(RevName),
    /// The list of objects.
    Objects,
    /// The list of revisions.
    Steps,
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 200, no body.
    Done,
    /// 200 and the document of this request, rendered from the machine.
    Document(Request),
    /// Refused, with the code's HTTP status. If not 0: `Retry-After` with these seconds.
    Refused(Refusal, u16),
}

/// What a head asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// This; no body has to be read for it here.
    Ask(Request),
    /// Something that a small body says.
    Read(Form),
}

/// A small body, before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `POST /commands`
    Command,
    /// `POST /signal`
    Signal,
    /// `PUT /containers/<name>`
    Act(PartName),
    /// `PUT /steps/<rev>/commitmsg`
    Message(RevName),
}

/// Who asks what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Whether the caller may use more than `/signal`: `Machine::is_management`.
    pub management: bool,
    /// What `/steps/current` means: `Update::running`.
    pub running: RevName,
}

/// Finds out what a head asks for.
pub fn route(head: &Head<'_>, context: &Context) -> Result<Route, Refusal> {
    use Method::{Get, Post, Put};
    let mut parts = head.path.trim_matches('/').split('/');
    let first = parts.next().unwrap_or("");
    if first != "signal" && !context.management {
        return Err(Code::NotManagement.into());
    }
    let rest = [parts.next(), parts.next(), parts.next(), parts.next()];
    let wrong_method = Refusal::key(Code::MethodWrong, head.path);
    let unknown = Refusal::key(Code::EndpointUnknown, head.path);
    let get = |request: Request| if head.method == Get { Ok(Route::Ask(request)) } else { Err(wrong_method) };
    let read = |method: Method, form: Form| match head.length {
        _ if head.method != method => Err(wrong_method),
        Some(length) if length > form.size_max() => Err(Refusal::new(form.too_large())),
        Some(_) => Ok(Route::Read(form)),
        None => Err(Refusal::new(Code::LengthRequired)),
    };
    match (first, rest) {
        ("containers", [None, ..]) => get(Request::Containers),
        ("groups", [None, ..]) => get(Request::Groups),
        ("status", [None, ..]) => get(Request::Status),
        ("limits", [None, ..]) => get(Request::Limits),
        ("buildinfo", [None, ..]) => get(Request::BuildInfo),
        ("containers", [Some(name), None, ..]) => {
            let name = PartName::parse(name).map_err(|_| Refusal::key(Code::ContainerUnknown, name))?;
            read(Put, Form::Act(name))
        }
        ("signal", [None, ..]) => read(Post, Form::Signal),
        ("commands", [None, ..]) => read(Post, Form::Command),
        ("rollback", [None, ..]) if head.method == Post => Ok(Route::Ask(Request::Rollback)),
        ("rollback", [None, ..]) => Err(wrong_method),
        ("endpoint", _) => Ok(Route::Ask(Request::Endpoint)),
        ("storage", [Some("gc"), None, ..]) if head.method == Post => Ok(Route::Ask(Request::Collect)),
        ("storage", [Some("gc"), None, ..]) => Err(wrong_method),
        ("objects", [None, ..]) => get(Request::Send(Download::Objects)),
        ("steps", [None, ..]) => get(Request::Send(Download::Steps)),
        ("objects", [Some(name), None, ..]) => {
            let id = ObjectId::parse(name).ok_or(Refusal::key(Code::ObjectName, name))?;
            file(head, Upload::Object(id), Download::Object(id))
        }
        ("steps", [Some("locals"), Some(name), tail, None]) => step(head, local(name)?, tail),
        ("steps", [Some("current"), tail, None, _]) => step(head, context.running, tail),
        ("steps", [Some(name), tail, None, _]) => step(head, revision(name)?, tail),
        _ => Err(unknown),
    }
}

/// An endpoint below a revision.
fn step(head: &Head<'_>, rev: RevName, tail: Option<&str>) -> Result<Route, Refusal> {
    match (tail, head.method) {
        (None, Method::Put) if !rev.is_local() => Err(Refusal::key(Code::RevisionName, rev.as_str())),
        (None, _) => file(head, Upload::Step(rev), Download::State(rev)),
        (Some("progress"), Method::Get) => Ok(Route::Ask(Request::Send(Download::Progress(rev)))),
        (Some("commitmsg"), Method::Put) => match head.length {
            Some(length) if length > limits::COMMIT_MESSAGE_MAX as u64 => Err(Code::MessageTooLong.into()),
            Some(_) => Ok(Route::Read(Form::Message(rev))),
            None => Err(Code::LengthRequired.into()),
        },
        (Some("progress" | "commitmsg"), _) => Err(Refusal::key(Code::MethodWrong, head.path)),
        (Some(_), _) => Err(Refusal::key(Code::EndpointUnknown, head.path)),
    }
}

/// An endpoint that is a file: PUT receives it, GET sends it.
fn file(head: &Head<'_>, upload: Upload, download: Download) -> Result<Route, Refusal> {
    match (head.method, upload, head.length) {
        (Method::Get, ..) => Ok(Route::Ask(Request::Send(download))),
        (Method::Put, _, None) => Err(Code::LengthRequired.into()),
        (Method::Put, Upload::Step(_), Some(length)) if length > limits::STATE_MAX as u64 => {
            Err(Refusal::at(Code::StateTooLarge, limits::STATE_MAX))
        }
        (Method::Put, _, Some(length)) => Ok(Route::Ask(Request::Receive(upload, length))),
        _ => Err(Refusal::key(Code::MethodWrong, head.path)),
    }
}

fn revision(name: &str) -> Result<RevName, Refusal> {
    RevName::parse(name).map_err(|_| Refusal::key(Code::RevisionName, name))
}

fn local(name: &str) -> Result<RevName, Refusal> {
    let mut whole = heapless::String::<{ limits::REV_NAME_MAX }>::new();
    let fits = whole.push_str("locals/").and_then(|()| whole.push_str(name));
    fits.ok().and_then(|()| RevName::parse(&whole).ok()).ok_or(Refusal::key(Code::RevisionName, name))
}

impl Form {
    /// The longest body that is read for it.
    pub fn size_max(self) -> u64 {
        match self {
            Form::Command | Form::Signal => limits::HTTP_BODY_MAX as u64,
            Form::Act(_) => limits::ACTION_BODY_MAX as u64,
            Form::Message(_) => limits::COMMIT_MESSAGE_MAX as u64,
        }
    }

    fn too_large(self) -> Code {
        if let Form::Message(_) = self { Code::MessageTooLong } else { Code::BodyTooLarge }
    }

    /// Reads the complete body.
    pub fn read(self, body: &[u8]) -> Result<Request, Refusal> {
        match self {
            Form::Message(rev) => match core::str::from_utf8(body) {
                Ok(_) => Ok(Request::Message(rev)),
                Err(bad) => {
                    Err(Refusal { at: bad.valid_up_to() as u32, ..Refusal::key(Code::CommandInvalid, "commitmsg") })
                }
            },
            Form::Command => command(object(body)?),
            Form::Signal => match word(object(body)?, "type")?.as_str() {
                "ready" => Ok(Request::Ready),
                "alive" => Err(Refusal::key(Code::SignalUnexpected, "alive")),
                other => Err(Refusal::key(Code::CommandInvalid, other)),
            },
            Form::Act(name) => match word(object(body)?, "action")?.as_str() {
                "start" => Ok(Request::Act(name, Act::Start)),
                "stop" => Ok(Request::Act(name, Act::Stop)),
                "restart" => Ok(Request::Act(name, Act::Restart)),
                other => Err(Refusal::key(Code::CommandInvalid, other)),
            },
        }
    }
}

/// Both members are mandatory; the operation is compared whole. Reference: device-formats 6.4.
fn command(body: Object<'_>) -> Result<Request, Refusal> {
    let op = word(body, "op")?;
    let payload = body.get("payload").ok_or(Refusal::key(Code::CommandInvalid, "payload"))?;
    match op.as_str() {
        "LOCAL_RUN" => {
            let invalid = Refusal { at: payload.at() as u32, ..Refusal::key(Code::RevisionName, "payload") };
            let name = payload.text::<{ limits::REV_NAME_MAX }>().map_err(|_| invalid)?;
            RevName::parse(name.as_str()).map(Request::Run).map_err(|_| invalid)
        }
        "REBOOT_DEVICE" => Ok(Request::Reboot),
        "POWEROFF_DEVICE" => Ok(Request::PowerOff),
        "RUN_GC" => Ok(Request::Collect),
        "FACTORY_RESET" => Ok(Request::FactoryReset),
        other => Err(Refusal::key(Code::CommandUnknown, other)),
    }
}

fn object(body: &[u8]) -> Result<Object<'_>, Refusal> {
    let invalid = |at| Refusal::at(Code::CommandInvalid, at);
    Value::parse(body).and_then(|value| value.object()).map_err(|fault| invalid(fault.at))
}

fn word(of: Object<'_>, key: &str) -> Result<crate::id::Text<32>, Refusal> {
    match of.text(key) {
        Ok(Some(word)) => Ok(word),
        Ok(None) => Err(Refusal::key(Code::CommandInvalid, key)),
        Err(wrong) => Err(wrong.refuse(Code::CommandInvalid, key)),
    }
}

/// What only the world knows, for answers.
pub trait Facts {
    /// Monotonic time.
    fn now(&self) -> Millis;
    /// The init of a container.
    fn process(&self, id: ContainerId) -> Option<Process>;
    /// When PID 1 was executed; monotonic.
    fn begun(&self) -> Millis;
    /// Allocations of PID 1 since its loop began.
    fn allocations(&self) -> u64;
    /// Processes that ended as nobody's child but PID 1's, because their parent in a container ended before them.
    fn orphans(&self) -> u64;
    /// Every process of ours that outlives one answer, as far as it can be read.
    fn processes(&self, each: &mut dyn FnMut(Ours<'_>));
    /// The device's memory, if it can be read.
    fn memory(&self) -> Option<Memory>;
    /// How PID 1's loop runs.
    fn pace(&self) -> Pace;
    /// The board, as it is on this boot; `None`: it is not one that is known.
    fn board(&self) -> Option<Board<'_>>;
    /// The file systems, as this boot found them.
    fn storage(&self) -> Storage;
    /// What `/buildinfo` says.
    fn build(&self) -> &str;
}

/// The init of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// When it was started; monotonic.
    pub started: Millis,
}

/// A process of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ours<'a> {
    /// What it does.
    pub name: &'a str,
    /// Its process id.
    pub pid: u32,
    /// Its proportional share of memory in kB, and what nobody shares with it.
    pub share: Option<(u64, u64)>,
}

/// The device's memory in kB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// What the kernel has to give.
    pub total: u64,
    /// What could be had now without ending anybody.
    pub available: u64,
}

/// How PID 1's loop runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How often it had nothing to do and was woken.
    pub wakeups: u64,
    /// Its longest turn since this was last asked for, without stores of the environment. Microseconds.
    pub longest_turn_us: u64,
}

impl Answer {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        if let Answer::Refused(refusal, _) = self { refusal.code.http() } else { 200 }
    }

    /// The value of `Retry-After`.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Answer::Refused(_, seconds) if *seconds != 0 => Some(u32::from(*seconds)),
            _ => None,
        }
    }

    /// What its body is.
    pub fn media(&self) -> &'static str {
        if let Answer::Document(Request::BuildInfo) = self { media::TEXT } else { media::JSON }
    }

    /// Writes its body.
    pub fn write_body(&self, out: &mut dyn fmt::Write, machine: &Machine, facts: &dyn Facts) -> fmt::Result {
        match self {
            Answer::Done => Ok(()),
            Answer::Refused(refusal, _) => http::write_refusal(out, refusal),
            Answer::Document(Request::BuildInfo) => out.write_str(facts.build()),
            Answer::Document(request) => write_document(&mut Writer::new(out), *request, machine, facts),
        }
    }
}

fn write_document(out: &mut Writer<'_>, request: Request, machine: &Machine, facts: &dyn Facts) -> fmt::Result {
    match request {
        Request::Containers => write_containers(out, machine, facts),
        Request::Groups => write_groups(out, machine),
        Request::Status => write_status(out, machine, facts),
        Request::Limits => write_limits(out),
        Request::Send(Download::Progress(rev)) => match machine.update().progress(facts.now(), rev) {
            Some(progress) => progress.write(out),
            None => out.null(),
        },
        _ => out.null(), // the machine asks for no other document
    }
}

fn write_containers(out: &mut Writer<'_>, machine: &Machine, facts: &dyn Facts) -> fmt::Result {
    out.begin_array()?;
    for (id, container) in machine.order().containers() {
        let spec = container.spec();
        let group = machine.plan().group_of(spec).map_or("", |group| group.name.as_str());
        out.begin_object()?;
        out.text_member("name", spec.name.as_str())?;
        out.text_member("group", group)?;
        out.text_member("status", status_of(machine, container).word())?;
        out.text_member("status_goal", spec.goal.word())?;
        out.text_member("restart_policy", spec.restart.word())?;
        out.key("roles")?;
        out.begin_array()?;
        if spec.management {
            out.text("mgmt")?;
        }
        out.end_array()?;
        if spec.recovery.policy != RecoveryPolicy::No {
            write_recovery(out, container, facts.now())?;
        }
        if spec.restart == RestartPolicy::Container {
            out.text_member("user_stopped", yes(container.is_stopped_by_user()))?;
        }
        write_process(out, id, container, facts)?;
        out.end_object()?;
    }
    out.end_array()
}

fn write_recovery(out: &mut Writer<'_>, container: &Container, now: Millis) -> fmt::Result {
    let Recovery { policy, max_retries, stable_timeout_s, backoff, .. } = container.spec().recovery;
    let stable = container.stable_at().is_some_and(|at| now >= at);
    out.key("auto_recovery")?;
    out.begin_object()?;
    out.text_member("policy", policy.word())?;
    out.number_member("max_retries", u64::from(max_retries))?;
    out.number_member("current_retries", u64::from(container.retries()))?;
    out.number_member("stable_timeout", u64::from(stable_timeout_s))?;
    out.text_member("is_stable", yes(stable))?;
    out.key("backoff_policy")?;
    out.display(&backoff)?;
    out.end_object()
}

/// Additions of ours: what tells one run of a container from the next, and why it does not run.
fn write_process(out: &mut Writer<'_>, id: ContainerId, container: &Container, facts: &dyn Facts) -> fmt::Result {
    if let Some(process) = facts.process(id) {
        out.number_member("pid", u64::from(process.pid))?;
        out.number_member("started_ms", process.started)?;
    }
    out.number_member("restarts", u64::from(container.restarts()))?;
    if let Some(code) = container.failure() {
        out.key("code")?;
        out.display(&code)?;
        out.text_member("reason", code.text())?;
    }
    Ok(())
}

fn write_groups(out: &mut Writer<'_>, machine: &Machine) -> fmt::Result {
    out.begin_array()?;
    for (index, group) in machine.plan().groups.iter().enumerate() {
        out.begin_object()?;
        out.text_member("name", group.name.as_str())?;
        out.text_member("status_goal", group.goal.word())?;
        out.text_member("restart_policy", group.restart.word())?;
        out.text_member("status", group_status(machine, index).word())?;
        write_group_recovery(out, group)?;
        out.end_object()?;
    }
    out.end_array()
}

fn write_group_recovery(out: &mut Writer<'_>, group: &Group) -> fmt::Result {
    let Recovery { policy, max_retries, stable_timeout_s, backoff, .. } = group.recovery;
    if policy == RecoveryPolicy::No {
        return Ok(());
    }
    out.key("auto_recovery")?;
    out.begin_object()?;
    out.number_member("max_retries", u64::from(max_retries))?;
    out.number_member("stable_timeout", u64::from(stable_timeout_s))?;
    out.key("backoff_policy")?;
    out.display(&backoff)?;
    out.end_object()
}

/// What the device is doing, in one document. An addition of ours.
fn write_status(out: &mut Writer<'_>, machine: &Machine, facts: &dyn Facts) -> fmt::Result {
    let (update, now) = (machine.update(), facts.now());
    let vars = update.vars();
    out.begin_object()?;
    // Nothing that is wanted may be all that runs: that is no READY.
    let word = if update.is_degraded() { "DEGRADED" } else { device_status(machine).word() };
    out.text_member("status", word)?;
    if let Standing::Missed(name) = machine.standing() {
        out.text_member("missed", name.as_str())?;
    }
    out.text_member("revision", update.running().as_str())?;
    out.text_member("committed", vars.committed.as_str())?;
    for (key, rev) in [("candidate", vars.candidate), ("previous", vars.previous)] {
        if let Some(rev) = rev {
            out.text_member(key, rev.as_str())?;
        }
    }
    out.key("degraded")?;
    out.bool(update.is_degraded())?;
    if update.falls() > 0 {
        out.number_member("falls", u64::from(update.falls()))?; // restarts in a row that a container forced
    }
    out.number_member("now_ms", now)?;
    if let Some(ready_at) = machine.ready_at() {
        out.number_member("ready_ms", ready_at.saturating_sub(facts.begun()))?; // from the exec of PID 1
    }
    out.number_member("allocations", facts.allocations())?;
    out.number_member("orphans", facts.orphans())?;
    let Pace { wakeups, longest_turn_us } = facts.pace();
    out.number_member("wakeups", wakeups)?;
    out.number_member("longest_turn_us", longest_turn_us)?;
    if let Some(Memory { total, available }) = facts.memory() {
        out.key("memory")?;
        out.begin_object()?;
        out.number_member("total_kb", total)?;
        out.number_member("available_kb", available)?;
        out.end_object()?;
    }
    write_update(out, machine, now)?;
    facts.storage().write(out)?;
    if let Some(board) = facts.board() {
        board.write_members(out)?;
    }
    write_processes(out, facts)?;
    out.key("containers")?;
    out.begin_array()?;
    for (id, container) in machine.order().containers() {
        out.begin_object()?;
        out.text_member("name", container.spec().name.as_str())?;
        out.text_member("status", status_of(machine, container).word())?;
        write_process(out, id, container, facts)?;
        out.end_object()?;
    }
    out.end_array()?;
    out.end_object()
}

/// Processes of ours, PID 1 first.
fn write_processes(out: &mut Writer<'_>, facts: &dyn Facts) -> fmt::Result {
    out.key("processes")?;
    out.begin_array()?;
    let mut written = Ok(());
    facts.processes(&mut |ours| {
        written = written.and_then(|()| {
            out.begin_object()?;
            out.text_member("name", ours.name)?;
            out.number_member("pid", u64::from(ours.pid))?;
            if let Some((proportional, private)) = ours.share {
                out.number_member("pss_kb", proportional)?;
                out.number_member("private_kb", private)?;
            }
            out.end_object()
        });
    });
    written?;
    out.end_array()
}

/// The update that is under way, or the last one, with its progress.
fn write_update(out: &mut Writer<'_>, machine: &Machine, now: Millis) -> fmt::Result {
    let update = machine.update();
    let trial = update.trial();
    // One that failed is a factory reset that did not end.
    let is_done = |record: &Record| matches!(record.phase, journal::Phase::Done { .. });
    let stands_for_none = |record: &Record| record.candidate == record.previous && is_done(record);
    let Some(record) = trial.or(update.last()).filter(|record| !stands_for_none(record)) else { return Ok(()) };
    out.key("update")?;
    out.begin_object()?;
    out.text_member("revision", record.candidate.as_str())?;
    out.text_member("from", record.previous.as_str())?;
    out.text_member("kind", record.kind.word())?;
    out.key("trial")?;
    out.bool(trial.is_some())?;
    out.number_member("tries", u64::from(record.tries()))?;
    if let Some(progress) = update.progress(now, record.candidate) {
        progress.write_members(out)?;
    }
    out.end_object()
}

fn write_limits(out: &mut Writer<'_>) -> fmt::Result {
    out.begin_array()?;
    for (name, value, unit) in limits::TABLE {
        out.begin_object()?;
        out.text_member("name", name)?;
        out.number_member("value", *value)?;
        out.text_member("unit", unit)?;
        out.end_object()?;
    }
    out.end_array()
}

/// A container's status; one that waits for an earlier group is blocked.
fn status_of(machine: &Machine, container: &Container) -> Status {
    let waits = machine.order().phase(usize::from(container.spec().group)) == Phase::Waiting;
    match container.status() {
        Status::Installed if waits => Status::Blocked,
        status => status,
    }
}

/// The lowest status of a member that is not at its goal; READY if all are. Reference: device-formats 5.2.
fn group_status(machine: &Machine, group: usize) -> Status {
    if let Some(status) = moving(machine) {
        return status;
    }
    let members = machine.order().containers().filter(|(_, container)| usize::from(container.spec().group) == group);
    let behind = members.filter(|(_, container)| !container.at_goal());
    behind.map(|(_, container)| status_of(machine, container)).min().unwrap_or(Status::Ready)
}

/// While the device is on its way up or down, the containers that it has say nothing about it: before the boot decision
/// is carried out there are none, and none that misses its goal is no READY.
fn moving(machine: &Machine) -> Option<Status> {
    match machine.update().state() {
        State::Boot | State::Explaining | State::Settling { .. } => Some(Status::Installed),
        State::Leaving { .. } => Some(Status::Stopping),
        _ => None,
    }
}

fn device_status(machine: &Machine) -> Status {
    let Plan { groups, .. } = machine.plan();
    if let Some(status) = moving(machine) {
        return status;
    }
    (0..groups.len()).map(|index| group_status(machine, index)).min().unwrap_or(Status::Ready)
}

/// The original writes these two as strings.
fn yes(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boot::{Choice, Mode},
        http::HostRule,
        lxc::Summary,
        machine::Event,
        port::BootVars,
        state::{self, Backoff, Goal},
        update::Boot,
    };

    fn rev(name: &str) -> RevName {
        RevName::parse(name).unwrap()
    }

    /// Method and path, with this length of a body.
    fn ask_as(management: bool, line: &str, length: Option<u64>) -> Result<Route, Code> {
        let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        let head = format!("{line} HTTP/1.1\r\n{length}\r\n");
        let head = Head::parse(head.as_bytes(), HostRule::Local).unwrap().unwrap();
        let context = Context { management, running: rev("locals/now") };
        route(&head, &context).map_err(|refusal| refusal.code)
    }

    fn ask(line: &str, length: Option<u64>) -> Result<Route, Code> {
        ask_as(true, line, length)
    }

    #[test]
    fn every_endpoint_is_reached_by_its_method_alone() {
        let id = ObjectId([0xab; 32]);
        let object = format!("/objects/{id}");
        let web = PartName::parse("web").unwrap();
        let local = rev("locals/a");
        let send = |download| Route::Ask(Request::Send(download));
        let table = [
            ("GET", "/containers", Route::Ask(Request::Containers)),
            ("GET", "/containers/", Route::Ask(Request::Containers)),
            ("GET", "/groups", Route::Ask(Request::Groups)),
            ("GET", "/status", Route::Ask(Request::Status)),
            ("GET", "/limits", Route::Ask(Request::Limits)),
            ("GET", "/buildinfo", Route::Ask(Request::BuildInfo)),
            ("POST", "/rollback", Route::Ask(Request::Rollback)),
            ("PUT", "/containers/web", Route::Read(Form::Act(web))),
            ("POST", "/signal", Route::Read(Form::Signal)),
            ("POST", "/commands", Route::Read(Form::Command)),
            ("POST", "/storage/gc", Route::Ask(Request::Collect)),
            ("GET", "/objects", send(Download::Objects)),
            ("GET", "/steps", send(Download::Steps)),
            ("GET", &object, send(Download::Object(id))),
            ("PUT", &object, Route::Ask(Request::Receive(Upload::Object(id), 9))),
            ("GET", "/steps/0", send(Download::State(rev("0")))),
            ("GET", "/steps/current", send(Download::State(rev("locals/now")))),
            ("GET", "/steps/locals/a", send(Download::State(local))),
            ("PUT", "/steps/locals/a", Route::Ask(Request::Receive(Upload::Step(local), 9))),
            ("GET", "/steps/locals/a/progress", send(Download::Progress(local))),
            ("GET", "/steps/7/progress", send(Download::Progress(rev("7")))),
            ("PUT", "/steps/locals/a/commitmsg", Route::Read(Form::Message(local))),
        ];
        for (method, path, expected) in table {
            assert_eq!(ask(&format!("{method} {path}"), Some(9)), Ok(expected), "{method} {path}");
            assert_eq!(ask(&format!("DELETE {path}"), Some(9)), Err(Code::MethodWrong), "{path}");
            let signal = path == "/signal";
            let refused = if signal { Ok(expected) } else { Err(Code::NotManagement) };
            assert_eq!(ask_as(false, &format!("{method} {path}"), Some(9)), refused, "{path}");
        }
    }

    #[test]
    fn what_is_about_the_endpoint_is_its_to_judge() {
        for line in ["GET /endpoint", "POST /endpoint/pair", "DELETE /endpoint/tokens/ab", "PUT /endpoint/x/y/z/a"] {
            assert_eq!(ask(line, None), Ok(Route::Ask(Request::Endpoint)));
            assert_eq!(ask_as(false, line, None), Err(Code::NotManagement));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for (line, length, code) in [
            ("GET /", None, Code::EndpointUnknown),
            ("GET /containersx", None, Code::EndpointUnknown),
            ("GET /storage", None, Code::EndpointUnknown),
            ("GET /steps/locals/a/progress/x", None, Code::EndpointUnknown),
            ("GET /steps/0/nothing", None, Code::EndpointUnknown),
            ("GET /objects/ABCD", None, Code::ObjectName),
            ("GET /steps/..", None, Code::RevisionName),
            ("PUT /steps/7", Some(3), Code::RevisionName),
            ("PUT /steps/locals/.a", Some(3), Code::RevisionName),
            ("PUT /steps/locals/a", None, Code::LengthRequired),
            ("PUT /steps/locals/a", Some(limits::STATE_MAX as u64 + 1), Code::StateTooLarge),
            ("PUT /steps/locals/a/commitmsg", Some(257), Code::MessageTooLong),
            ("POST /commands", None, Code::LengthRequired),
            ("POST /commands", Some(limits::HTTP_BODY_MAX as u64 + 1), Code::BodyTooLarge),
            ("PUT /containers/-", Some(3), Code::ContainerUnknown),
        ] {
            assert_eq!(ask(line, length), Err(code), "{line}");
        }
    }

    #[test]
    fn a_command_is_its_whole_word() {
        let read = |body: &str| Form::Command.read(body.as_bytes()).map_err(|refusal| refusal.code);
        assert_eq!(read(r#"{"op":"LOCAL_RUN","payload":"locals/a"}"#), Ok(Request::Run(rev("locals/a"))));
        assert_eq!(read(r#"{"op":"REBOOT_DEVICE","payload":""}"#), Ok(Request::Reboot));
        assert_eq!(read(r#"{"payload":"bye","op":"POWEROFF_DEVICE"}"#), Ok(Request::PowerOff));
        assert_eq!(read(r#"{"op":"RUN_GC","payload":""}"#), Ok(Request::Collect));
        assert_eq!(read(r#"{"op":"FACTORY_RESET","payload":""}"#), Ok(Request::FactoryReset));
        for op in ["R", "REBOOT", "REBOOT_DEVICE2", "LOCAL_RUN_COMMIT", "", "reboot_device"] {
            assert_eq!(read(&format!(r#"{{"op":"{op}","payload":""}}"#)), Err(Code::CommandUnknown), "{op}");
        }
        for bad in ["", "[]", r#"{"op":"RUN_GC"}"#, r#"{"payload":""}"#, r#"{"op":1,"payload":""}"#, r#"{"op":"#] {
            assert_eq!(read(bad), Err(Code::CommandInvalid), "{bad}");
        }
        assert_eq!(read(r#"{"op":"LOCAL_RUN","payload":"../x"}"#), Err(Code::RevisionName));
    }

    #[test]
    fn signals_and_actions_are_read() {
        let local = RevName::parse("locals/a").unwrap();
        assert_eq!(Form::Message(local).read("neu: \u{e4}".as_bytes()), Ok(Request::Message(local)));
        let refusal = Form::Message(local).read(b"new\xff").unwrap_err();
        assert_eq!((refusal.code, refusal.at), (Code::CommandInvalid, 3), "a message is text");
        let signal = |body: &str| Form::Signal.read(body.as_bytes()).map_err(|refusal| refusal.code);
        assert_eq!(signal(r#"{"type":"ready","payload":""}"#), Ok(Request::Ready));
        assert_eq!(signal(r#"{"type":"alive"}"#), Err(Code::SignalUnexpected));
        assert_eq!(signal(r#"{"type":"other"}"#), Err(Code::CommandInvalid));
        let web = PartName::parse("web").unwrap();
        let act = |body: &str| Form::Act(web).read(body.as_bytes()).map_err(|refusal| refusal.code);
        assert_eq!(act(r#"{"action":"restart"}"#), Ok(Request::Act(web, Act::Restart)));
        assert_eq!(act(r#"{"action":"kill"}"#), Err(Code::CommandInvalid));
    }

    /// Facts, with processes for the first so many containers.
    struct Desk(u8);

    impl Facts for Desk {
        fn now(&self) -> Millis {
            5000
        }
        fn process(&self, id: ContainerId) -> Option<Process> {
            (id.0 < self.0).then_some(Process { pid: 77, started: 1200 })
        }
        fn begun(&self) -> Millis {
            100
        }
        fn orphans(&self) -> u64 {
            1
        }
        fn allocations(&self) -> u64 {
            0
        }
        fn processes(&self, each: &mut dyn FnMut(Ours<'_>)) {
            each(Ours { name: "switchback", pid: 1, share: Some((500, 400)) });
            each(Ours { name: "keeper", pid: 20, share: None });
        }
        fn memory(&self) -> Option<Memory> {
            Some(Memory { total: 40_000, available: 9_000 })
        }
        fn pace(&self) -> Pace {
            Pace { wakeups: 7, longest_turn_us: 350 }
        }
        fn board(&self) -> Option<Board<'_>> {
            let watchdog = Watchdog { identity: "w", timeout_s: 30, covers_kernel: false, reset: Reset::Unknown };
            let guarantee =
                Guarantee { torn_write: true, hang_before_linux: false, hang_of_kernel: false, hang_of_init: true };
            let (tries, watchdog) = (Tries { counted_by: "l", default: 3 }, Some(watchdog));
            let environment = Environment { kind: "k", copies: 2, copy: Ok(InForce { number: 1, damaged: false }) };
            Some(Board { name: "b", environment, guarantee, tries, watchdog, armed_by_loader: false })
        }
        fn storage(&self) -> Storage {
            Storage::Sound
        }
        fn build(&self) -> &str {
            "switchback test"
        }
    }

    /// A device with one container that runs and one that waits for it.
    fn device() -> Machine {
        let mut plan = Plan::empty(rev("0"));
        let recovery = Recovery {
            policy: RecoveryPolicy::OnFailure,
            max_retries: 5,
            stable_timeout_s: 30,
            backoff: Backoff::After(60),
            ..Recovery::NONE
        };
        let group = |name, recovery| Group {
            name: PartName::parse(name).unwrap(),
            goal: Goal::Started,
            restart: RestartPolicy::Container,
            timeout_s: 30,
            recovery,
        };
        plan.groups.extend([group("platform", Recovery::NONE), group("app", recovery)]);
        let container = |name, group, goal, restart, recovery| state::Container {
            name: PartName::parse(name).unwrap(),
            group,
            goal,
            restart,
            recovery,
            management: group == 0,
            digest: [0; 32],
            launch: Summary::DEFAULT,
        };
        plan.containers.extend([
            container("network", 0, Goal::Ready, RestartPolicy::System, Recovery::NONE),
            container("web", 1, Goal::Started, RestartPolicy::Container, recovery),
        ]);
        let choice = Choice { run: rev("0"), mode: Mode::Steady, record: None, write: false, store: None };
        let vars = BootVars { committed: rev("0"), candidate: None, previous: Some(rev("locals/old")) };
        let boot = Boot { choice, vars, may_arm: Ok(()), degraded: false, commit_delay_ms: 0 };
        let mut machine = Machine::new(boot, plan);
        // No container has begun, and none is at its goal: still no READY.
        assert!(status(&machine).starts_with(r#"{"status":"INSTALLED","#));
        for event in [Event::Tick, Event::Verified(ContainerId(0), Ok(())), Event::Launched(ContainerId(0), Ok(()))] {
            machine.handle(1000, event);
        }
        machine
    }

    fn status(machine: &Machine) -> String {
        let mut text = String::new();
        Answer::Document(Request::Status).write_body(&mut text, machine, &Desk(1)).unwrap();
        text
    }

    fn body(answer: Answer) -> String {
        let mut text = String::new();
        answer.write_body(&mut text, &device(), &Desk(1)).unwrap();
        assert!(answer.media() != media::JSON || text.is_empty() || Value::parse(text.as_bytes()).is_ok(), "{text}");
        text
    }

    #[test]
    fn a_device_that_goes_down_is_not_ready() {
        let mut machine = device();
        machine.handle(2000, Event::Reboot);
        assert!(status(&machine).starts_with(r#"{"status":"STOPPING","#), "{}", status(&machine));
    }

    #[test]
    fn documents_say_what_the_machine_knows() {
        assert_eq!(
            body(Answer::Document(Request::Containers)),
            concat!(
                r#"[{"name":"network","group":"platform","status":"STARTED","status_goal":"READY","#,
                r#""restart_policy":"system","roles":["mgmt"],"pid":77,"started_ms":1200,"restarts":0},"#,
                r#"{"name":"web","group":"app","status":"BLOCKED","status_goal":"STARTED","#,
                r#""restart_policy":"container","roles":[],"auto_recovery":{"policy":"on-failure","max_retries":5,"#,
                r#""current_retries":0,"stable_timeout":30,"is_stable":"false","backoff_policy":"60s"},"#,
                r#""user_stopped":"false","restarts":0}]"#,
            )
        );
        assert_eq!(
            body(Answer::Document(Request::Groups)),
            concat!(
                r#"[{"name":"platform","status_goal":"STARTED","restart_policy":"container","status":"STARTED"},"#,
                r#"{"name":"app","status_goal":"STARTED","restart_policy":"container","status":"BLOCKED","#,
                r#""auto_recovery":{"max_retries":5,"stable_timeout":30,"backoff_policy":"60s"}}]"#,
            )
        );
        let status = body(Answer::Document(Request::Status));
        assert!(status.starts_with(r#"{"status":"BLOCKED","revision":"0","committed":"0","previous":"locals/old","#));
        assert!(status.contains(r#""not_survived":["a candidate that hangs before Linux runs"#), "{status}");
        assert!(
            status
                .contains(r#"{"name":"switchback","pid":1,"pss_kb":500,"private_kb":400},{"name":"keeper","pid":20}"#)
        );
        assert!(
            status.contains(r#""wakeups":7,"longest_turn_us":350,"memory":{"total_kb":40000,"available_kb":9000}"#)
        );
        assert!(body(Answer::Document(Request::Limits)).contains(r#"{"name":"containers","value":64,"unit":"#));
        assert_eq!(body(Answer::Document(Request::BuildInfo)), "switchback test");
        let factory = body(Answer::Document(Request::Send(Download::Progress(rev("0")))));
        assert!(factory.contains("Factory revision"), "{factory}");
    }

    #[test]
    fn refusals_say_what_and_when_to_come_again() {
        let busy = Answer::Refused(Code::UpdateBusy.into(), limits::RETRY_AFTER_UPDATE_S);
        assert_eq!((busy.status(), busy.retry_after_s()), (503, Some(600)));
        assert_eq!(body(busy), r#"{"Error":"another update is running","code":"SB1402","key":"","at":0}"#);
        let forbidden = Answer::Refused(Code::NotManagement.into(), 0);
        assert_eq!((forbidden.status(), forbidden.retry_after_s()), (403, None));
        assert_eq!((Answer::Done.status(), body(Answer::Done)), (200, String::new()));
    }

    /// The largest documents that can be asked for fit the buffer that they are written to.
    #[test]
    fn the_largest_documents_fit() {
        let mut device = device();
        let mut plan = Plan::empty(rev("0"));
        plan.groups.extend_from_slice(&device.plan().groups).unwrap();
        for index in 0..limits::CONTAINERS_MAX {
            let name = format!("{index:0>63}");
            let name = PartName::parse(&format!("c{}", &name[1..])).unwrap();
            let (_, like) = device.to_start(ContainerId(1)).unwrap();
            plan.containers.push(state::Container { name, ..*like }).unwrap();
        }
        let choice = Choice { run: rev("0"), mode: Mode::Steady, record: None, write: false, store: None };
        let boot = Boot { choice, vars: device.update().vars(), may_arm: Ok(()), degraded: false, commit_delay_ms: 0 };
        device = Machine::new(boot, plan);
        device.handle(0, Event::Tick);
        for request in [Request::Containers, Request::Groups, Request::Status, Request::Limits] {
            let mut text = heapless::String::<{ limits::HTTP_ANSWER_MAX }>::new();
            assert_eq!(Answer::Document(request).write_body(&mut text, &device, &Desk(u8::MAX)), Ok(()), "{request:?}");
            let room = limits::HTTP_ANSWER_MAX - text.len();
            let longer = 64 * (4_194_304u64.ilog10() as usize + u64::MAX.ilog10() as usize); // pids and times of any length
            assert!(room > longer + 64 * 60, "{request:?}: {room} bytes left for reasons and long numbers");
        }
    }
}
