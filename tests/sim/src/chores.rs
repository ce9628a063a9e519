//! What a device's user does with it, one thing after the other; and every short sequence of such things.

use crate::{
    device::{Voyage, first},
    fleet::{Quality, Revision},
    suite::several,
    taken::Origin,
};

impl Chore {
    /// The revision that it is about, as an index of the fleet.
    pub fn revision(self) -> Option<usize> {
        match self {
            Chore::Update(number) | Chore::Run(number) | Chore::Stage(number) => Some(number),
            Chore::Describe(number) | Chore::Try(number) | Chore::TakeOver(number) => Some(number),
            Chore::Collect | Chore::Reset => None,
        }
    }
}

/// One thing that the user wants done. A number is an index of the fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chore {
    /// It is sent and run, again if need be, until the device says how that ended; then what is left over is collected.
    Update(usize),
    /// The same without the collection.
    Run(usize),
    /// It is sent and staged, again if need be.
    Stage(usize),
    /// What is staged gets another message; not again if that is interrupted.
    Describe(usize),
    /// What is staged is run; how that ends is not waited for: what follows comes while it is on trial.
    Try(usize),
    /// What the original has armed is waited for; if that ends in the original, it is armed there again.
    TakeOver(usize),
    /// A collection is asked for.
    Collect,
    /// A factory reset is asked for.
    Reset,
}

/// An operation, with what it needs first if that was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A revision comes in and is staged, and gets a message.
    Install,
    /// What is staged is armed, and then tried by a boot.
    Arm,
    /// What is armed meets its goals and is committed.
    Commit,
    /// What is armed misses its goals and is given up.
    Fail,
    /// What nobody needs goes.
    Collect,
    /// Everything but the factory revision goes.
    FactoryReset,
    /// A local revision is staged, replaced by another one of its name, run and committed.
    LocalInstall,
    /// A revision with the same base is tried and committed in place.
    NonReboot,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 8] = [
        Operation::Install,
        Operation::Arm,
        Operation::Commit,
        Operation::Fail,
        Operation::Collect,
        Operation::FactoryReset,
        Operation::LocalInstall,
        Operation::NonReboot,
    ];

    /// Every sequence of so many.
    pub fn sequences(length: u32) -> impl Iterator<Item = Vec<Operation>> {
        let all = Self::ALL.len();
        (0..all.pow(length)).map(move |number| (0..length).map(|at| Self::ALL[number / all.pow(at) % all]).collect())
    }
}

/// A sequence as a voyage.
pub fn voyage(operations: &[Operation]) -> Voyage {
    voyage_of(Origin::Factory, operations)
}

/// The same on a device that comes from somewhere else.
pub fn voyage_of(origin: Origin, operations: &[Operation]) -> Voyage {
    let mut plan = Plan { fleet: origin.fleet().split_off(1), chores: vec![], staged: None, armed: None, base: 0 };
    if origin == Origin::ByUpdate {
        plan.chores.push(Chore::TakeOver(1));
        plan.base = plan.fleet[0].assets[0].0[1];
    }
    for (at, operation) in operations.iter().enumerate() {
        plan.add(*operation, operations.get(at + 1).copied());
    }
    let fleet = origin.fleet().into_iter().take(1).chain(plan.fleet).collect();
    Voyage { chores: plan.chores, origin, fleet, ..several(vec![]) }
}

/// What was asked for so far, if all went undisturbed.
struct Plan {
    fleet: Vec<Revision>,
    chores: Vec<Chore>,
    staged: Option<usize>,
    armed: Option<usize>,
    /// Of the committed revision.
    base: u8,
}

impl Plan {
    fn revision(&mut self, name: &str, base: Option<u8>) -> usize {
        let number = self.fleet.len() + 1;
        let name = if name.is_empty() { number.to_string() } else { name.into() };
        self.fleet.push(Revision::new(&name, Quality::Good, base.unwrap_or(number as u8), number as u8));
        number
    }

    /// What is staged, or is now.
    fn take_staged(&mut self) -> usize {
        self.staged.take().unwrap_or_else(|| {
            let number = self.revision("", None);
            self.chores.push(Chore::Stage(number));
            number
        })
    }

    fn quality(&mut self, number: usize, quality: Quality) {
        self.fleet[number - 1].quality = quality;
    }

    fn add(&mut self, operation: Operation, next: Option<Operation>) {
        match operation {
            Operation::Install => {
                let number = self.revision("", None);
                self.chores.extend([Chore::Stage(number), Chore::Describe(number)]);
                self.staged = Some(number);
            }
            Operation::Arm => {
                let number = self.take_staged();
                let good = next == Some(Operation::Commit);
                self.quality(number, if good { Quality::Good } else { Quality::NeverReady });
                let ends = matches!(next, Some(Operation::Commit | Operation::Fail));
                self.chores.push(if ends { Chore::Run(number) } else { Chore::Try(number) });
                self.armed = ends.then_some(number);
                if good {
                    self.base = number as u8;
                }
            }
            Operation::Commit | Operation::Fail if self.armed.take().is_some() => {}
            Operation::Commit => {
                let number = self.take_staged();
                self.chores.push(Chore::Run(number));
                self.base = number as u8;
            }
            Operation::Fail => {
                let number = self.take_staged();
                self.quality(number, Quality::NeverReady);
                self.chores.push(Chore::Run(number));
            }
            Operation::Collect => self.chores.push(Chore::Collect),
            Operation::FactoryReset => {
                self.chores.push(Chore::Reset);
                self.base = first().assets[0].0[1];
                self.staged = None;
            }
            Operation::LocalInstall => {
                let name = format!("locals/{}", self.fleet.len() + 1);
                let [before, after] = [0, 1].map(|_| self.revision(&name, None));
                self.chores.extend([Chore::Stage(before), Chore::Run(after)]);
                self.base = after as u8;
            }
            Operation::NonReboot => {
                let base = self.base;
                let number = self.revision("", Some(base));
                self.chores.push(Chore::Run(number));
            }
        }
    }
}
