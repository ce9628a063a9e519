//! Whether a device takes a revision: everything that can be refused about one, without changing anything.
//!
//! The keeper asks before it stages, `pvr` before it sends, `pvcontrol` before it installs an archive: the same codes,
//! keys and bytes from the same functions. What only a device knows (what it runs, how much room it has) is its own.
//!
//! Fault model: that of the shelf; a fault of it refuses the revision with its code.

use crate::{
    fault::{Code, Refusal},
    id::{ObjectId, PartName, RevName},
    limits, lxc,
    state::{Defaults, Plan, Spans, State, Value},
};

/// The objects that a revision may name.
pub trait Shelf {
    /// The size of an object; `ObjectMissing` if it is not there.
    fn size(&mut self, id: ObjectId) -> Result<u64, Code>;
    /// Reads a whole object that fits `out`; its length.
    fn read(&mut self, id: ObjectId, out: &mut [u8]) -> Result<usize, Code>;
}

/// A revision: its name, its state JSON and its commit message.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub rev: RevName,
    /// Its state JSON, raw.
    pub state: &'a [u8],
    /// Commit message, may be empty.
    pub message: &'a str,
}

/// Reads a revision into `plan` and checks everything that it refers to. `conf` holds one
/// configuration at a time: `limits::LXC_CONF_MAX`.
pub fn admit<'s>(
    shelf: &mut dyn Shelf,
    candidate: Candidate<'s>,
    conf: &mut [u8],
    spans: &'s mut Spans,
    plan: &mut Plan,
) -> Result<State<'s>, Refusal> {
    if candidate.message.len() > limits::COMMIT_MESSAGE_MAX {
        return Err(Code::MessageTooLong.into());
    }
    let state = Plan::parse(candidate.state, candidate.rev, &Defaults::default(), plan, spans)?;
    for entry in state.entries() {
        if let Value::Object(id) = entry.value {
            shelf.size(id).map_err(|code| Refusal { at: entry.at as u32, ..Refusal::key(code, entry.key) })?;
        }
    }
    for container in &plan.containers {
        config(shelf, &state, container.name, conf)?;
    }
    Ok(state)
}

/// Reads the configuration of a container. `None`: it has none, or its state says it inline.
pub fn config<'c>(
    shelf: &mut dyn Shelf,
    state: &State<'_>,
    name: PartName,
    conf: &'c mut [u8],
) -> Result<Option<lxc::Config<'c>>, Refusal> {
    let Some(id) = state.container(name)?.config()?.and_then(|file| file.object) else { return Ok(None) };
    if shelf.size(id)? > conf.len() as u64 {
        return Err(Refusal::key(Code::LxcTooLarge, name.as_str()));
    }
    let length = shelf.read(id, conf)?;
    lxc::Config::parse(&conf[..length]).map(Some)
}
