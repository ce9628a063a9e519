//! The device's user: who sends updates, looks at the answers, and sends again what was lost.

use crate::{device::Voyage, fleet::Revision};
use runtime::{
    fault::Code,
    id::{ObjectId, RevName},
};
use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

/// Times that a client tries the same update.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// Restarts after everything is done. The first may still end something: a first cold boot.
pub(super) const RESTARTS: u32 = 3;

/// Who sends updates, looks at the answers, and sends again what was lost.
#[derive(Clone)]
pub(super) struct User {
    /// Index of the chore at hand.
    pub(super) at: usize,
    pub(super) attempts: u32,
    /// What is left to do of this attempt.
    pub(super) todo: VecDeque<Task>,
    pub(super) verdicts: Vec<Option<Result<(), Code>>>,
    chores: usize,
    /// The last of its tasks was refused.
    pub(super) refused: bool,
    /// What it waits for an answer to on `STAGE` and on `DESCRIBE`, as the number of a revision.
    pub(super) asked: [usize; 2],
    /// Restarts left, after everything is done.
    pub(super) restarts: u32,
    /// Stores and syncs when the update at hand began.
    pub(super) began: Option<(u64, u64)>,
    pub(super) stores: u64,
    /// What the device told: DONE of which, and how often READY.
    pub(super) told: (Vec<RevName>, u32),
    hasty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Task {
    Object(ObjectId),
    Step,
    Message,
    Run,
}

impl User {
    pub(super) fn new(voyage: &Voyage) -> Self {
        Self {
            at: 0,
            attempts: 0,
            todo: VecDeque::new(),
            verdicts: vec![],
            chores: voyage.chores.len(),
            refused: false,
            asked: [0; 2],
            restarts: RESTARTS,
            began: None,
            stores: 0,
            told: (vec![], 0),
            hasty: voyage.hasty,
        }
    }

    pub(super) fn at_rest(&self) -> bool {
        self.at == self.chores && self.restarts == 0
    }

    /// Everything that is not on the device under its name, again: what had arrived before may be lost.
    pub(super) fn attempt(&mut self, revision: &Revision, run: bool, has: impl Fn(ObjectId) -> bool) {
        self.attempts += 1;
        self.refused = false;
        let again = self.hasty && self.attempts == 2;
        let objects = revision.objects.iter().filter(|id| !again && !has(**id));
        self.todo = objects.map(|id| Task::Object(*id)).collect();
        self.todo.push_back(Task::Step);
        self.todo.extend(run.then_some(Task::Run));
    }

    /// All of it but what is only counted.
    pub(super) fn digest(&self, hasher: &mut impl Hasher) {
        let Self { at, attempts, todo, verdicts, restarts, refused, .. } = self;
        (at, attempts, todo, restarts, refused).hash(hasher);
        for verdict in verdicts {
            (verdict.is_some(), verdict.and_then(Result::err).map(|code| code as u16)).hash(hasher);
        }
    }

    /// Nobody asks for anything any more.
    pub(super) fn give_up(&mut self) {
        (self.at, self.restarts) = (self.chores, 0);
        self.todo.clear();
    }

    pub(super) fn next(&mut self) {
        self.at += 1;
        self.attempts = 0;
        self.todo.clear();
    }
}
