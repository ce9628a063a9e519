//! Which containers run, and in which order: the table of containers, held against one revision's plan.
//!
//! Invariants: a container keeps its slot (`ContainerId`) as long as it exists, across updates in place. A group's
//! containers start only when every earlier group has met its goals; a missed group holds the later ones back.
//! A group that has begun goes on by its own clock, whatever becomes of an earlier one.
//! What the plan in force does not want, or wants otherwise, is stopped, and replaced only when it is gone.
//! An equal digest means the same container: nothing happens to it.
//!
//! What it does not do: it does not know why the plan changes, nor what a missed goal means for the device.

use crate::{
    container::{Container, Effect, Event, State, Then},
    id::{ContainerId, PartName},
    limits,
    port::Millis,
    state::Plan,
};

/// What a container needs, or tells, and which one it is.
pub type Sink<'a> = &'a mut dyn FnMut(ContainerId, Effect);

/// One place of the table.
#[derive(Clone, Copy, Debug)]
struct Slot {
    container: Container,
    next: Next,
}

/// What becomes of a container that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// It is what the plan wants.
    Keep,
    /// When it is gone, this container of the plan takes its place.
    Replace(u8),
    /// When it is gone, its slot is free.
    Remove,
}

/// How far a group came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// An earlier group has not met its goals.
    Waiting,
    /// Its containers have until `deadline`.
    Going {
        /// When its goals are missed.
        deadline: Millis,
    },
    /// Every container is at its goal.
    Met,
    /// Not every container was at its goal in time. It may still get there.
    Missed,
}

/// How the whole stands against the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Containers that the plan does not want are still there.
    Switching,
    /// On the way; the first container that is not there.
    Going(PartName),
    /// All goals are met. Stable from then on, if nothing falls.
    Met {
        /// When the last container counts as stable.
        stable_at: Millis,
    },
    /// A group missed its goals; the first container that was not there.
    Missed(PartName),
}

/// The table of containers and how far each group of the plan in force came.
#[derive(Debug)]
pub struct Order {
    slots: [Option<Slot>; limits::CONTAINERS_MAX],
    phases: [Phase; limits::GROUPS_MAX],
}

impl Order {
    /// Nothing runs, nothing is wanted.
    pub const fn new() -> Self {
        Self { slots: [None; limits::CONTAINERS_MAX], phases: [Phase::Waiting; limits::GROUPS_MAX] }
    }

    /// Takes a plan into force: what differs is stopped, what is equal carries on, what is new gets a slot.
    pub fn retarget(&mut self, now: Millis, plan: &Plan, sink: Sink<'_>) {
        self.phases = [Phase::Waiting; limits::GROUPS_MAX];
        for (id, slot) in entries(&mut self.slots) {
            slot.next = next(&slot.container, plan);
            let event = if slot.next == Next::Keep { Event::Reset } else { Event::Stop(Then::Down) };
            if let Some(effect) = slot.container.handle(now, event) {
                sink(id, effect);
            }
        }
        self.replace(plan);
        for spec in &plan.containers {
            if self.find(spec.name).is_none() {
                let free = self.slots.iter_mut().find(|slot| slot.is_none());
                let free = free.expect("`fits` said that both plans fit the table");
                *free = Some(Slot { container: Container::new(*spec), next: Next::Keep });
            }
        }
    }

    /// Whether the containers of a plan fit the table beside those that it would replace.
    pub fn fits(&self, plan: &Plan) -> bool {
        let added = plan.containers.iter().filter(|spec| self.find(spec.name).is_none()).count();
        added <= self.slots.iter().filter(|slot| slot.is_none()).count()
    }

    /// Hands an event to a container.
    pub fn handle(&mut self, now: Millis, id: ContainerId, event: Event, sink: Sink<'_>) {
        let Some(Some(slot)) = self.slots.get_mut(usize::from(id.0)) else { return };
        if let Some(effect) = slot.container.handle(now, event) {
            sink(id, effect);
        }
    }

    /// Hands an event to every container.
    pub fn handle_all(&mut self, now: Millis, event: Event, sink: Sink<'_>) {
        for (id, slot) in entries(&mut self.slots) {
            if let Some(effect) = slot.container.handle(now, event) {
                sink(id, effect);
            }
        }
    }

    /// Goes as far as the plan and the time allow: replaces what is gone, moves groups on, starts what may start.
    /// Nothing new starts before everything unwanted is gone: it may hold what the new needs.
    pub fn advance(&mut self, now: Millis, plan: &Plan, sink: Sink<'_>) {
        self.replace(plan);
        if self.is_switching() {
            return;
        }
        let mut may_begin = true;
        for (index, group) in plan.groups.iter().enumerate() {
            let deadline = now + u64::from(group.timeout_s) * 1000;
            self.phases[index] = match self.phases[index] {
                Phase::Waiting if !may_begin => Phase::Waiting,
                _ if self.behind(index).is_none() => Phase::Met,
                Phase::Waiting => Phase::Going { deadline },
                Phase::Met => Phase::Going { deadline }, // one of it fell, and has the group's time again
                Phase::Going { deadline } if now >= deadline => Phase::Missed,
                phase => phase,
            };
            if self.phases[index] != Phase::Waiting {
                self.begin(now, index, sink);
            }
            may_begin &= self.phases[index] == Phase::Met;
        }
    }

    /// How the whole stands.
    pub fn standing(&self, plan: &Plan) -> Standing {
        if self.is_switching() {
            return Standing::Switching;
        }
        for index in 0..plan.groups.len() {
            match (self.phase(index), self.behind(index)) {
                (Phase::Missed, Some(name)) => return Standing::Missed(name),
                (_, Some(name)) => return Standing::Going(name),
                (_, None) => {}
            }
        }
        let stable_at = self.containers().filter_map(|(_, container)| container.stable_at()).max();
        Standing::Met { stable_at: stable_at.unwrap_or(0) }
    }

    /// When it next needs a tick.
    pub fn poll_at(&self) -> Option<Millis> {
        let groups = self.phases.iter().filter_map(|phase| match phase {
            Phase::Going { deadline } => Some(*deadline),
            _ => None,
        });
        groups.chain(self.containers_poll_at()).min()
    }

    /// The same without the groups: nobody waits for their goals when the device goes down.
    pub fn containers_poll_at(&self) -> Option<Millis> {
        self.containers().filter_map(|(_, container)| container.poll_at()).min()
    }

    /// Whether any container has a process, or a check under way.
    pub fn is_busy(&self) -> bool {
        self.containers().any(|(_, container)| container.is_busy())
    }

    /// Every container, in slot order.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerId, &Container)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| slot.as_ref().map(|slot| (ContainerId(index as u8), &slot.container)))
    }

    /// The container in a slot.
    pub fn get(&self, id: ContainerId) -> Option<&Container> {
        self.slots.get(usize::from(id.0))?.as_ref().map(|slot| &slot.container)
    }

    /// The slot of the container with this name.
    pub fn find(&self, name: PartName) -> Option<ContainerId> {
        self.containers().find(|(_, container)| container.spec().name == name).map(|(id, _)| id)
    }

    /// How far a group came.
    pub fn phase(&self, group: usize) -> Phase {
        self.phases.get(group).copied().unwrap_or(Phase::Waiting)
    }

    /// What is gone makes place for what the plan wants instead.
    fn replace(&mut self, plan: &Plan) {
        for place in &mut self.slots {
            let Some(slot) = place else { continue };
            match slot.next {
                Next::Keep => {}
                _ if slot.container.state() != State::Down => {}
                Next::Remove => *place = None,
                Next::Replace(index) => match plan.containers.get(usize::from(index)) {
                    Some(spec) => *slot = Slot { container: Container::new(*spec), next: Next::Keep },
                    None => *place = None,
                },
            }
        }
    }

    /// Starts what is down in a group. Document order is the plan's; slots may differ from it after an update in
    /// place, which matters to nobody: members of a group start together.
    fn begin(&mut self, now: Millis, group: usize, sink: Sink<'_>) {
        for (id, slot) in entries(&mut self.slots) {
            if usize::from(slot.container.spec().group) != group {
                continue;
            }
            if let Some(effect) = slot.container.handle(now, Event::Begin) {
                sink(id, effect);
            }
        }
    }

    /// The first container of a group that is not at its goal.
    fn behind(&self, group: usize) -> Option<PartName> {
        let mut members = self.containers().filter(|(_, container)| usize::from(container.spec().group) == group);
        members.find(|(_, container)| !container.at_goal()).map(|(_, container)| container.spec().name)
    }

    fn is_switching(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.next != Next::Keep)
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::new()
    }
}

/// What a plan means for a container that is there.
fn next(container: &Container, plan: &Plan) -> Next {
    let spec = container.spec();
    match plan.containers.iter().position(|wanted| wanted.name == spec.name) {
        Some(index) if plan.containers[index].digest == spec.digest => Next::Keep,
        Some(index) => Next::Replace(index as u8),
        None => Next::Remove,
    }
}

fn entries(slots: &mut [Option<Slot>]) -> impl Iterator<Item = (ContainerId, &mut Slot)> {
    let slots = slots.iter_mut().enumerate();
    slots.filter_map(|(index, slot)| slot.as_mut().map(|slot| (ContainerId(index as u8), slot)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::RevName,
        lxc::Summary,
        state::{self, Goal, Group, Recovery, RestartPolicy},
    };

    fn plan(base: u8, containers: &[(&str, u8, RestartPolicy)]) -> Plan {
        let mut plan = Plan::empty(RevName::factory());
        plan.base = [base; 32];
        let group = Group {
            name: PartName::parse("app").unwrap(),
            goal: Goal::Started,
            restart: RestartPolicy::Container,
            timeout_s: 30,
            recovery: Recovery::NONE,
        };
        plan.groups.push(group).unwrap();
        plan.containers.extend(containers.iter().map(|(name, version, restart)| state::Container {
            name: PartName::parse(name).unwrap(),
            group: 0,
            goal: Goal::Started,
            restart: *restart,
            recovery: Recovery::NONE,
            management: true,
            digest: [*version; 32],
            launch: Summary::DEFAULT,
        }));
        plan
    }

    #[test]
    fn a_plan_that_does_not_fit_beside_the_running_one_is_known_before() {
        let names: std::vec::Vec<String> = (0..limits::CONTAINERS_MAX).map(|index| format!("c{index}")).collect();
        let all = |skip: usize| {
            let specs = names.iter().skip(skip).map(|name| (name.as_str(), 1, RestartPolicy::Container));
            plan(1, &specs.collect::<std::vec::Vec<_>>())
        };
        let mut order = Order::new();
        order.retarget(0, &all(0), &mut |_, _| {});
        let mut more = all(1);
        assert!(order.fits(&more));
        more.containers[0].name = PartName::parse("other").unwrap();
        assert!(!order.fits(&more), "64 and one that is not there yet");
    }

    #[test]
    fn a_slot_is_kept_and_only_a_free_one_is_given_away() {
        let mut order = Order::new();
        let old = plan(1, &[("a", 1, RestartPolicy::Container), ("b", 1, RestartPolicy::Container)]);
        order.retarget(0, &old, &mut |_, _| {});
        let b = order.find(PartName::parse("b").unwrap());
        let new = plan(1, &[("c", 1, RestartPolicy::Container), ("b", 1, RestartPolicy::Container)]);
        order.retarget(0, &new, &mut |_, _| {});
        assert_eq!(order.find(PartName::parse("b").unwrap()), b);
        assert_eq!(order.find(PartName::parse("a").unwrap()), None, "it had no process");
        assert_eq!(order.containers().count(), 2);
    }
}
