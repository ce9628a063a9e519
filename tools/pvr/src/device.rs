//! What a device would say of a revision, asked before it is sent or made an image: its own limits and parsers, run here.
//!
//! A device may know more (what it stores, what it runs) and has the last word. What it cannot read is refused here
//! with the same code, key and byte as there.

use crate::{
    error::{Error, Kind, Result},
    files,
    repo::Repo,
};
use runtime::{
    fault::Refusal,
    id::RevName,
    limits, lxc,
    state::{Defaults, Plan, Spans},
};

/// Refuses a state (its canonical text) that the device cannot take, with everything that it refers to.
pub fn check(repo: &Repo, text: &[u8], message: Option<&str>) -> Result<()> {
    if message.is_some_and(|m| m.len() > limits::COMMIT_MESSAGE_MAX) {
        return Err(Error::input(format!("the message is longer than {} bytes", limits::COMMIT_MESSAGE_MAX)));
    }
    let (mut spans, mut plan) = (Box::new(Spans::new()), Box::new(Plan::empty(RevName::factory())));
    let state = Plan::parse(text, RevName::factory(), &Defaults::default(), &mut plan, &mut spans).map_err(refused)?;
    for container in &plan.containers {
        let config = state.container(container.name).and_then(|content| content.config()).map_err(refused)?;
        let Some(config) = config else { continue };
        let Some(object) = config.object else { continue };
        let conf = files::read(&repo.object(&object.to_string()))?;
        lxc::Config::parse(&conf).map_err(|refusal| {
            let mut error = refused(refusal);
            error.message += &format!(", in {}", config.key);
            error
        })?;
    }
    Ok(())
}

fn refused(refusal: Refusal) -> Error {
    let hint = "nothing was sent or made; correct it and `pvr commit`, then try again";
    Error::new(Kind::Input, format!("the device would refuse this revision: {refusal}")).hint(hint)
}
