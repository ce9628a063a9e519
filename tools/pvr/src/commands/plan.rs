//! `pvr plan`: what a device would do with a revision, before it is sent.
//!
//! Nothing is decided here. Whether the revision is taken, whether it takes a reboot and why, which containers end and
//! start in which order: those are the device's own functions (`runtime::admit`, `runtime::change`), run on two states.
//! Not known here: what a device has in its storage besides what it runs, how much room it has, and its own policy.

use crate::{
    commands::{Context, show},
    error::{Error, Kind, Result},
    history, reference,
    repo::Repo,
    side::{Objects, Side},
};
use clap::Parser;
use runtime::{
    admit::{self, Candidate, Shelf},
    change::{self, Cause, Move},
    fault::Refusal,
    id::RevName,
    journal, limits,
    lxc::{Config, Namespaces},
    order::Order,
    state::{Container, Defaults, Goal, Plan, RestartPolicy, Spans, State, Value as Entry},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// Tell what a device would do with a revision, before it is sent
///
/// Says whether the device would take the revision (with its codes, if not), whether it takes a reboot and why, which
/// containers end and start in which order, what each container may do, what would be sent, and how near the device's
/// limits it comes. Decided by the device's own code. Changes nothing, here or there.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr plan                                files here against the committed state
  pvr plan http://192.168.1.7:12368       files here against what that device runs
  pvr plan --of committed 192.168.1.7     the committed state against it
  pvr plan --of new.pvrexport.tgz old.pvrexport.tgz
  pvr plan --of 3f2a91c0                  a state of the history against the committed one
  pvr plan --json ../other-clone")]
pub(super) struct Args {
    /// What runs: a device, an exported archive, or a folder with a repository [default: the committed state here]
    #[arg(value_name = "RUNNING")]
    running: Option<String>,
    /// What would be sent: `files` (those here), `committed`, an exported archive, or a state that `pvr log` shows
    #[arg(long, default_value = "files", value_name = "WHAT")]
    of: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let committed = || Side::committed(&Repo::open()?, "the committed state".into());
    let mut candidate = match args.of.as_str() {
        "files" => Side::files(&Repo::open()?)?,
        "committed" => committed()?,
        archive if Path::new(archive).is_file() => Side::archive(archive.as_ref())?,
        // What cannot be the name of a state was meant as a file.
        other if !other.bytes().all(|byte| byte.is_ascii_hexdigit()) => return Err(reference::missing(other)),
        state => recorded(&Repo::open()?, state)?,
    };
    let running = match &args.running {
        Some(name) => Side::named(name, &context.http())?,
        None => committed()?,
    };
    let (mut old, mut new) = (Read::new(), Read::new());
    let Read { plan: old_plan, spans: old_spans } = &mut old;
    let before = Plan::parse(&running.text, RevName::factory(), &Defaults::default(), old_plan, old_spans);
    let before = before.map_err(|refusal| {
        Error::new(Kind::Input, format!("a device cannot run {}: refused: {refusal}", running.what))
            .hint("plan against what the device runs, or against another export")
    })?;
    let usage = Usage::of(&candidate.text);
    let (mut conf, mut refusal) = (vec![0; limits::LXC_CONF_MAX], None);
    let Read { plan, spans } = &mut new;
    let rev = RevName::factory();
    let taken = Candidate { rev, state: &candidate.text, message: "" };
    if let Err(why) = admit::admit(&mut candidate.objects, taken, &mut conf, spans, plan) {
        refusal = Some(why);
    }
    let after = match State::read(&candidate.text, spans) {
        Ok(state) if !plan.groups.is_empty() => Some(state),
        _ => None, // refused before there was a plan
    };
    let told = after.map(|after| Told::new((&before, old_plan), (&after, plan), &mut candidate.objects));
    let document = document(&running, &candidate, refusal.as_ref(), told.as_ref(), &usage);
    context.say(document, || text(&running, &candidate, told.as_ref(), &usage));
    match refusal {
        None => Ok(()),
        Some(refusal) => {
            let named = told.as_ref().and_then(|told| told.refused_config(&refusal));
            let place = named.map_or(String::new(), |name| format!(", in the configuration of {name}"));
            let message = format!("the device would refuse this revision: {refusal}{place}");
            Err(Error::new(Kind::Input, message).hint("correct it, then plan again; nothing was sent"))
        }
    }
}

/// A state of the history.
fn recorded(repo: &Repo, name: &str) -> Result<Side> {
    let entries = repo.history().entries(&history::id(&repo.pristine()?)?)?;
    let entry = show::find(&entries, Some(name))?;
    Side::state(repo, &repo.history().state(&entry.after)?, format!("state {}", entry.after))
}

/// A state as the device reads it.
struct Read {
    plan: Box<Plan>,
    spans: Box<Spans>,
}

impl Read {
    fn new() -> Self {
        Self { plan: Box::new(Plan::empty(RevName::factory())), spans: Box::new(Spans::new()) }
    }
}

/// How much of the device's limits a revision uses.
struct Usage(Vec<(&'static str, usize, usize)>);

impl Usage {
    fn of(text: &[u8]) -> Self {
        let mut spans = Box::new(Spans::new());
        let mut plan = Box::new(Plan::empty(RevName::factory()));
        let entries = State::read(text, &mut spans).map_or(0, |state| state.entries().count());
        // what cannot be read as a plan has none to count
        let _ = Plan::parse(text, RevName::factory(), &Defaults::default(), &mut plan, &mut spans);
        Self(vec![
            ("state", text.len(), limits::STATE_MAX),
            ("state-entries", entries, limits::STATE_ENTRIES_MAX),
            ("containers", plan.containers.len(), limits::CONTAINERS_MAX),
            ("groups", plan.groups.len(), limits::GROUPS_MAX),
        ])
    }
}

/// What there is to tell of a revision that could be read.
struct Told {
    reboot: bool,
    causes: Vec<(String, Value)>,
    moves: Vec<Move>,
    containers: Vec<Row>,
    send: (usize, u64),
}

/// A container.
struct Row {
    name: String,
    change: &'static str,
    group: String,
    goal: &'static str,
    restart: &'static str,
    confinement: std::result::Result<Confinement, Refusal>,
}

/// What a container may do.
#[derive(Default)]
struct Confinement {
    /// Namespaces that it shares with the device.
    shares: Vec<&'static str>,
    /// Capabilities that it may keep.
    capabilities: u32,
    no_new_privileges: bool,
}

impl Told {
    fn new<'a>((before, old): (&State<'a>, &Plan), (after, new): (&State<'a>, &Plan), objects: &mut Objects) -> Self {
        let mut moves = Vec::new();
        let kind = change::rehearse(old, new, &mut |step| moves.push(step));
        let mut order = Order::new();
        order.retarget(0, old, &mut |_, _| {});
        let causes = change::causes(&order, old, new).map(|cause| cause_of(cause, (before, old), (after, new)));
        let gone = old.containers.iter().filter(|spec| new.container(spec.name.as_str()).is_none());
        let rows = new.containers.iter().map(|spec| row(spec, old, new, after, objects)).collect::<Vec<_>>();
        let removed = gone.map(|spec| Row {
            name: spec.name.as_str().into(),
            change: "removed",
            group: group_of(old, spec),
            goal: goal(spec.goal),
            restart: restart(spec.restart),
            confinement: Ok(Confinement::default()),
        });
        Self {
            reboot: kind == journal::Kind::Reboot,
            causes: causes.collect(),
            moves,
            containers: rows.into_iter().chain(removed).collect(),
            send: to_send(before, after, objects),
        }
    }

    /// The container whose configuration a refusal is about.
    fn refused_config(&self, refusal: &Refusal) -> Option<&str> {
        let row = self.containers.iter().find(|row| row.confinement.as_ref().is_err_and(|why| why == refusal));
        row.map(|row| row.name.as_str())
    }
}

fn row(spec: &Container, old: &Plan, new: &Plan, state: &State<'_>, objects: &mut Objects) -> Row {
    let change = match old.container(spec.name.as_str()) {
        None => "added",
        Some(_) if change::differs(spec, old) => "changed",
        Some(_) => "same",
    };
    let mut conf = vec![0; limits::LXC_CONF_MAX];
    let config = admit::config(objects, state, spec.name, &mut conf);
    Row {
        name: spec.name.as_str().into(),
        change,
        group: group_of(new, spec),
        goal: goal(spec.goal),
        restart: restart(spec.restart),
        confinement: config.map(|config| confinement(config.as_ref())),
    }
}

fn confinement(config: Option<&Config<'_>>) -> Confinement {
    let Some(config) = config else { return Confinement::default() }; // it is only mounted
    let all = [
        ("cgroup", Namespaces::CGROUP),
        ("ipc", Namespaces::IPC),
        ("mnt", Namespaces::MOUNT),
        ("net", Namespaces::NET),
        ("pid", Namespaces::PID),
        ("user", Namespaces::USER),
        ("uts", Namespaces::UTS),
    ];
    let shares = all.into_iter().filter(|(_, space)| !config.summary.namespaces.contains(*space));
    Confinement {
        shares: shares.map(|(name, _)| name).collect(),
        capabilities: config.capabilities.count_ones(),
        no_new_privileges: config.no_new_privileges,
    }
}

fn group_of(plan: &Plan, spec: &Container) -> String {
    plan.group_of(spec).map_or(String::new(), |group| group.name.as_str().into())
}

fn goal(goal: Goal) -> &'static str {
    match goal {
        Goal::Mounted => "MOUNTED",
        Goal::Started => "STARTED",
        Goal::Ready => "READY",
    }
}

fn restart(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::System => "system",
        RestartPolicy::Container => "container",
    }
}

fn cause_of(cause: Cause, old: (&State<'_>, &Plan), new: (&State<'_>, &Plan)) -> (String, Value) {
    match cause {
        Cause::Base => {
            let mut keys = Vec::new();
            change::base_keys(old, new, &mut |key| keys.push(key.to_owned()));
            let verb = if keys.len() == 1 { "belongs" } else { "belong" };
            let text = format!("{} {verb} to no container", keys.join(", "));
            (text, json!({"cause": "base", "keys": keys}))
        }
        Cause::System(name) => (
            format!("{name} has the restart policy system"),
            json!({"cause": "restart-policy", "container": name.as_str()}),
        ),
        Cause::Room => ("its containers do not fit beside those that run".into(), json!({"cause": "room"})),
    }
}

/// Objects that what runs does not name, and their bytes.
fn to_send(before: &State<'_>, after: &State<'_>, objects: &mut Objects) -> (usize, u64) {
    let ids = |state: &State<'_>| {
        let objects = state.entries().filter_map(|entry| match entry.value {
            Entry::Object(id) => Some((id, ())),
            Entry::Inline(_) => None,
        });
        objects.collect::<BTreeMap<_, _>>()
    };
    let there = ids(before);
    let missing: Vec<_> = ids(after).into_keys().filter(|id| !there.contains_key(id)).collect();
    let bytes = missing.iter().map(|id| objects.size(*id).unwrap_or(0)).sum();
    (missing.len(), bytes)
}

// ---- telling ------------------------------------------------------------------------------------------------------

fn document(running: &Side, candidate: &Side, refusal: Option<&Refusal>, told: Option<&Told>, usage: &Usage) -> Value {
    let refused = refusal.map(|refusal| {
        json!({"code": refusal.code.to_string(), "reason": refusal.code.text(), "key": refusal.key.as_str(),
            "at": refusal.at})
    });
    let limits: Vec<Value> =
        usage.0.iter().map(|(name, used, of)| json!({"name": name, "used": used, "of": of})).collect();
    let mut document = json!({"running": running.what, "candidate": candidate.what, "refused": refused,
        "untracked": candidate.untracked, "limits": limits});
    if let Some(told) = told {
        document["reboot"] = json!(told.reboot);
        document["causes"] = told.causes.iter().map(|(_, cause)| cause.clone()).collect();
        document["moves"] = told.moves.iter().map(move_json).collect();
        document["containers"] = told.containers.iter().map(row_json).collect();
        document["send"] = json!({"objects": told.send.0, "bytes": told.send.1});
    }
    document
}

fn move_json(step: &Move) -> Value {
    match step {
        Move::Stop(name) => json!({"stop": name.as_str()}),
        Move::Restart => json!("reboot"),
        Move::Start(name) => json!({"start": name.as_str()}),
    }
}

fn row_json(row: &Row) -> Value {
    let mut value = json!({"name": row.name, "change": row.change, "group": row.group, "status_goal": row.goal,
        "restart_policy": row.restart});
    if row.change != "removed" {
        value["confinement"] = match &row.confinement {
            Ok(open) => json!({"profile": "lxc", "shares": open.shares, "capabilities": open.capabilities,
                "no_new_privileges": open.no_new_privileges}),
            Err(why) => json!({"code": why.code.to_string(), "reason": why.code.text(), "key": why.key.as_str()}),
        };
    }
    value
}

fn text(running: &Side, candidate: &Side, told: Option<&Told>, usage: &Usage) -> String {
    let mut lines = vec![format!("{} on {}", candidate.what, running.what)];
    if let Some(told) = told {
        lines.push(format!("reboot      {}", if told.reboot { "yes" } else { "no" }));
        lines.extend(told.causes.iter().map(|(why, _)| format!("  because   {why}")));
        lines.push(format!("moves       {}", moves_text(&told.moves)));
        lines.push("containers".into());
        let width = told.containers.iter().map(|row| row.name.len()).max().unwrap_or(0);
        lines.extend(told.containers.iter().map(|row| format!("  {:<width$}  {}", row.name, row_text(row))));
        let (objects, bytes) = told.send;
        lines.push(format!("to send     {} and the state", amount(objects, bytes)));
    }
    match candidate.untracked {
        0 => {}
        1 => lines.push("untracked   1 file, which would not be sent".into()),
        more => lines.push(format!("untracked   {more} files, which would not be sent")),
    }
    let used = usage.0.iter().map(|(name, used, of)| format!("{name} {used} of {of}"));
    lines.push(format!("limits      {}", used.collect::<Vec<_>>().join(", ")));
    lines.join("\n")
}

fn amount(objects: usize, bytes: u64) -> String {
    let plural = if objects == 1 { "" } else { "s" };
    format!("{objects} object{plural} of {bytes} bytes")
}

fn moves_text(moves: &[Move]) -> String {
    let word = |step: &Move| match step {
        Move::Stop(name) => format!("stop {name}"),
        Move::Restart => "reboot".into(),
        Move::Start(name) => format!("start {name}"),
    };
    if moves.is_empty() { "none".into() } else { moves.iter().map(word).collect::<Vec<_>>().join(", ") }
}

fn row_text(row: &Row) -> String {
    let head = format!("{:<7}  group {}, goal {}, restart {}", row.change, row.group, row.goal, row.restart);
    match &row.confinement {
        _ if row.change == "removed" => head,
        Err(why) => format!("{head}; refused: {why}"),
        Ok(open) => {
            let shares = if open.shares.is_empty() { "nothing".into() } else { open.shares.join(" ") };
            let gain = if open.no_new_privileges { "no new privileges" } else { "may gain privileges" };
            format!("{head}; confinement lxc: shares {shares}, {} capabilities, {gain}", open.capabilities)
        }
    }
}
