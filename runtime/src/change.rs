//! What a candidate changes: how it would be tried and why, and what happens to which container.
//!
//! The update decides with `kind`, before anything stops. `pvr plan` says the same beforehand on another machine, from
//! the same functions and from a rehearsal of the device's own table of containers (`order`).
//!
//! Invariants: nothing here acts. A rehearsal ends, because in its world every check and start succeeds at once.
//! What it does not do: it does not judge whether a device takes the candidate at all (`admit`), nor how long it takes.

use crate::{
    container::{Effect, Event, Then},
    id::{ContainerId, PartName},
    journal::Kind,
    limits,
    order::Order,
    state::{self, Goal, Plan, RestartPolicy, State, Value, is_compared},
};
use heapless::Deque;

/// Why a candidate cannot be tried in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// What no container owns differs: kernel, initramfs, groups.
    Base,
    /// A container differs whose restart policy is `system`, in its old or its new form.
    System(PartName),
    /// Its containers do not fit the table beside those that they would replace.
    Room,
}

/// Everything that keeps `candidate` from being tried in place of `running`, whose containers stand in `order`.
/// Reference: device-formats 3.4.
pub fn causes<'p>(order: &Order, running: &'p Plan, candidate: &'p Plan) -> impl Iterator<Item = Cause> + use<'p> {
    let base = (running.base != candidate.base).then_some(Cause::Base);
    let system = |spec: &&state::Container| spec.restart == RestartPolicy::System;
    let old = running.containers.iter().filter(|spec| differs(spec, candidate)).filter(system);
    // one that was found in its old form is not told twice
    let told = |spec: &&state::Container| {
        running.container(spec.name.as_str()).is_some_and(|twin| twin.restart == RestartPolicy::System)
    };
    let new = candidate.containers.iter().filter(|spec| differs(spec, running)).filter(system);
    let systems = old.chain(new.filter(move |spec| !told(spec))).map(|spec| Cause::System(spec.name));
    let room = (!order.fits(candidate)).then_some(Cause::Room);
    base.into_iter().chain(systems).chain(room)
}

/// How a candidate is tried.
pub fn kind(order: &Order, running: &Plan, candidate: &Plan) -> Kind {
    if causes(order, running, candidate).next().is_some() { Kind::Reboot } else { Kind::InPlace }
}

/// Whether the other plan has no such container, or another one of this name.
pub fn differs(spec: &state::Container, other: &Plan) -> bool {
    other.container(spec.name.as_str()).is_none_or(|twin| twin.digest != spec.digest)
}

/// Calls `each` with every key whose difference makes the two bases differ, in the order of keys, those that only one
/// of the two has included.
pub fn base_keys<'a>(old: (&State<'a>, &Plan), new: (&State<'a>, &Plan), each: &mut dyn FnMut(&'a str)) {
    let value = |(state, plan): (&State<'a>, &Plan), key: &str| -> Option<Value<'a>> {
        state.get(key).filter(|_| is_compared(key) && !plan.owns(key)).map(|entry| entry.value)
    };
    let mut compare = |key: &'a str| {
        if value(old, key) != value(new, key) {
            each(key);
        }
    };
    old.0.entries().for_each(|entry| compare(entry.key));
    new.0.entries().filter(|entry| old.0.get(entry.key).is_none()).for_each(|entry| compare(entry.key));
}

/// What happens to a container on the way to a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// It is asked to end.
    Stop(PartName),
    /// The device restarts.
    Restart,
    /// It is started, or only mounted if that is its goal.
    Start(PartName),
}

/// Goes from `running`, all of whose goals are met, to `candidate`, in a world where everything goes well; tells every
/// move in the device's order.
pub fn rehearse(running: &Plan, candidate: &Plan, tell: &mut dyn FnMut(Move)) -> Kind {
    let mut stage = Stage::new();
    stage.go(running, &mut |_| {});
    let kind = kind(&stage.order, running, candidate);
    if kind == Kind::Reboot {
        let Stage { order, effects } = &mut stage;
        order.handle_all(0, Event::Stop(Then::Down), &mut |id, effect| queue(effects, id, effect));
        stage.settle(tell);
        tell(Move::Restart);
        stage = Stage::new();
    }
    stage.go(candidate, tell);
    kind
}

/// The table of containers, in a world where everything goes well.
struct Stage {
    order: Order,
    effects: Effects,
}

type Effects = Deque<(ContainerId, Effect), { 2 * limits::CONTAINERS_MAX }>;

impl Stage {
    fn new() -> Self {
        Self { order: Order::new(), effects: Effects::new() }
    }

    /// Takes a plan into force and goes on until nothing is left to do.
    fn go(&mut self, plan: &Plan, tell: &mut dyn FnMut(Move)) {
        let Self { order, effects } = self;
        order.retarget(0, plan, &mut |id, effect| queue(effects, id, effect));
        loop {
            self.settle(tell);
            let Self { order, effects } = self;
            order.advance(0, plan, &mut |id, effect| queue(effects, id, effect));
            if effects.is_empty() {
                return;
            }
        }
    }

    /// Does what containers need, at once and with success.
    fn settle(&mut self, tell: &mut dyn FnMut(Move)) {
        while let Some((id, effect)) = self.effects.pop_front() {
            let Some(spec) = self.order.get(id).map(|container| *container.spec()) else { continue };
            match effect {
                Effect::Verify => self.tell(id, Event::Verified(Ok(()))),
                Effect::Start => {
                    tell(Move::Start(spec.name));
                    self.tell(id, Event::Launched(Ok(())));
                    if spec.goal == Goal::Ready {
                        self.tell(id, Event::Ready);
                    }
                }
                Effect::Stop => {
                    tell(Move::Stop(spec.name));
                    self.tell(id, Event::Exited(true));
                }
                // in this world nothing falls, and everything ends when it is asked to
                Effect::Kill | Effect::Retry(_) | Effect::GaveUp(_) | Effect::Fell(_) => {}
            }
        }
    }

    fn tell(&mut self, id: ContainerId, event: Event) {
        let Self { order, effects } = self;
        order.handle(0, id, event, &mut |id, effect| queue(effects, id, effect));
    }
}

fn queue(effects: &mut Effects, id: ContainerId, effect: Effect) {
    effects.push_back((id, effect)).expect("a container asks for at most two things before they are done");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::RevName,
        lxc::Summary,
        state::{Group, Recovery},
    };

    const GROUPS: [&str; 2] = ["platform", "app"];

    fn plan(base: u8, containers: &[(&str, u8, RestartPolicy)]) -> Plan {
        let mut plan = Plan::empty(RevName::factory());
        plan.base = [base; 32];
        plan.groups.extend(GROUPS.map(|name| Group {
            name: PartName::parse(name).unwrap(),
            goal: Goal::Started,
            restart: RestartPolicy::Container,
            timeout_s: 30,
            recovery: Recovery::NONE,
        }));
        plan.containers.extend(containers.iter().map(|(name, version, restart)| state::Container {
            name: PartName::parse(name).unwrap(),
            group: u8::from(*name >= "m"),
            goal: if *name == "d" { Goal::Ready } else { Goal::Started },
            restart: *restart,
            recovery: Recovery::NONE,
            management: true,
            digest: [*version; 32],
            launch: Summary::DEFAULT,
        }));
        plan
    }

    fn why(running: &Plan, candidate: &Plan) -> String {
        let mut order = Order::new();
        order.retarget(0, running, &mut |_, _| {});
        let causes: Vec<Cause> = causes(&order, running, candidate).collect();
        let word = |cause: &Cause| match cause {
            Cause::Base => "base".to_string(),
            Cause::System(name) => name.as_str().to_string(),
            Cause::Room => "room".to_string(),
        };
        assert_eq!(kind(&order, running, candidate) == Kind::Reboot, !causes.is_empty());
        causes.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whether_a_change_takes_a_reboot() {
        use RestartPolicy::{Container as C, System as S};
        let running = plan(1, &[("a", 1, C), ("b", 1, S)]);
        for (candidate, reboot, what) in [
            (plan(1, &[("a", 1, C), ("b", 1, S)]), "", "nothing changed"),
            (plan(2, &[("a", 1, C), ("b", 1, S)]), "base", "the base"),
            (plan(1, &[("a", 2, C), ("b", 1, S)]), "", "a container that may be replaced"),
            (plan(1, &[("a", 1, C), ("b", 2, S)]), "b", "one that may not"),
            (plan(1, &[("a", 2, S), ("b", 1, S)]), "a", "its new form may not"),
            (plan(1, &[("a", 1, C), ("b", 2, C)]), "b", "its old form may not"),
            (plan(1, &[("a", 1, C)]), "b", "removed, and may not be"),
            (plan(1, &[("b", 1, S)]), "", "removed, and may be"),
            (plan(1, &[("a", 1, C), ("b", 1, S), ("c", 1, S)]), "c", "added, and may not be"),
            (plan(1, &[("a", 1, C), ("b", 1, S), ("c", 1, C)]), "", "added, and may be"),
            (plan(2, &[("a", 2, S), ("b", 2, S)]), "base b a", "everything"),
        ] {
            assert_eq!(why(&running, &candidate), reboot, "{what}");
        }
    }

    #[test]
    fn containers_that_do_not_fit_beside_the_running_ones_take_a_reboot() {
        let names: Vec<String> = (0..2 * limits::CONTAINERS_MAX).map(|index| format!("c{index}")).collect();
        let some = |names: &[String]| {
            let specs = names.iter().map(|name| (name.as_str(), 1, RestartPolicy::Container));
            plan(1, &specs.collect::<Vec<_>>())
        };
        let running = some(&names[..limits::CONTAINERS_MAX]);
        assert_eq!(why(&running, &some(&names[1..=limits::CONTAINERS_MAX])), "room");
        let mut moves = 0;
        let kind = rehearse(&running, &some(&names[limits::CONTAINERS_MAX..]), &mut |_| moves += 1);
        assert_eq!((kind, moves), (Kind::Reboot, 2 * limits::CONTAINERS_MAX + 1));
    }

    fn rehearsal(running: &Plan, candidate: &Plan) -> String {
        let mut moves = Vec::new();
        rehearse(running, candidate, &mut |step| {
            moves.push(match step {
                Move::Stop(name) => format!("-{name}"),
                Move::Restart => "!".to_string(),
                Move::Start(name) => format!("+{name}"),
            })
        });
        moves.join(" ")
    }

    #[test]
    fn moves_come_in_the_order_of_groups_and_nothing_starts_before_all_that_must_has_ended() {
        use RestartPolicy::{Container as C, System as S};
        let running = plan(1, &[("a", 1, C), ("d", 1, C), ("m", 1, S), ("n", 1, C)]);
        assert_eq!(rehearsal(&running, &running), "");
        let candidate = plan(1, &[("a", 1, C), ("d", 2, C), ("m", 1, S), ("n", 2, C)]);
        assert_eq!(rehearsal(&running, &candidate), "-d -n +d +n");
        let candidate = plan(1, &[("a", 1, C), ("m", 1, S), ("n", 1, C), ("o", 1, C), ("b", 1, C)]);
        assert_eq!(rehearsal(&running, &candidate), "-d +b +o");
        let candidate = plan(1, &[("a", 1, C), ("d", 1, C), ("m", 2, S), ("n", 1, C)]);
        assert_eq!(rehearsal(&running, &candidate), "-a -d -m -n ! +a +d +m +n");
    }
}
