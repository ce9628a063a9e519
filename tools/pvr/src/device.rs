//! What a device would say of a revision, asked before it is sent or made an image: its own limits and parsers, run here.
//!
//! A device may know more (what it stores, what it runs) and has the last word. What it cannot read is refused here
//! with the same code, key and byte as there.

use crate::{
    error::{Error, Kind, Result},
    repo::{Repo, State},
    side::Objects,
};
use runtime::{
    admit::{self, Candidate},
    fault::{Code, Refusal},
    id::RevName,
    limits,
    state::{Plan, Spans, State as Read},
};

/// Refuses a state (its canonical text) that the device cannot take, with everything that it refers to.
pub fn check(repo: &Repo, text: &[u8], message: Option<&str>) -> Result<()> {
    if message.is_some_and(|m| m.len() > limits::COMMIT_MESSAGE_MAX) {
        return Err(Error::input(format!("the message is longer than {} bytes", limits::COMMIT_MESSAGE_MAX)));
    }
    let state: State = serde_json::from_slice(text).unwrap_or_default(); // what is no state is refused below
    let mut objects = Objects::of(&state, |_, sha| repo.object(sha)).unwrap_or_default();
    let (mut spans, mut plan) = (Box::new(Spans::new()), Box::new(Plan::empty(RevName::factory())));
    let mut conf = vec![0; limits::LXC_CONF_MAX];
    let candidate = Candidate { rev: RevName::factory(), state: text, message: message.unwrap_or("") };
    let Err(refusal) = admit::admit(&mut objects, candidate, &mut conf, &mut spans, &mut plan) else { return Ok(()) };
    let mut error = refused(refusal);
    if matches!(refusal.code, Code::LxcInvalid | Code::LxcKeyUnknown | Code::LxcTooLarge) {
        // The refusal names the key of the configuration: say whose it is.
        let read = Read::read(text, &mut spans).map_err(refused)?;
        for spec in &plan.containers {
            if admit::config(&mut objects, &read, spec.name, &mut conf).is_err_and(|why| why == refusal) {
                error.message += &format!(", in the configuration of {}", spec.name);
                break;
            }
        }
    }
    Err(error)
}

fn refused(refusal: Refusal) -> Error {
    let hint = "nothing was sent or made; correct it and `pvr commit`, then try again";
    Error::new(Kind::Input, format!("the device would refuse this revision: {refusal}")).hint(hint)
}
