//! `pvr plan` says what the device does: each change is planned by the program, then made by the device's own machine
//! in a world where everything goes well, and the two are compared.

mod common;

use common::{Place, Said, small_device};
use runtime::{
    boot,
    control::{Caller, Request},
    id::{ConnId, ContainerId, RevName},
    limits,
    machine::{Action, Event, Exit, Machine},
    port::{BootVars, Loaded},
    state::{Defaults, Goal, Plan, Spans},
    turn::{World, turn},
    update::Boot,
};
use serde_json::Value;
use std::{collections::VecDeque, fs};

/// A device whose containers, disk and environment do at once what they are asked.
struct Device {
    candidate: Plan,
    events: VecDeque<Event>,
    moves: Vec<String>,
    down: bool,
}

fn plan(text: &str, rev: &str) -> Plan {
    let (mut plan, mut spans) = (Plan::empty(RevName::factory()), Box::new(Spans::new()));
    let rev = RevName::parse(rev).unwrap();
    Plan::parse(text.as_bytes(), rev, &Defaults::default(), &mut plan, &mut spans).unwrap();
    plan
}

fn start(plan: &Plan) -> Machine {
    let vars = BootVars { committed: plan.rev, candidate: None, previous: None };
    let loaded = Loaded { vars, bootcount: 0, named: [None; 6], complete: true, active: 1, damaged: false };
    let facts =
        boot::Facts { booted: Some(plan.rev), candidate: None, bootcount: 0, canary: true, script: 1, watchdog: false };
    let choice = boot::choose(Some(loaded), &facts, None);
    Machine::new(Boot { choice, vars, may_arm: Ok(()), degraded: false, commit_delay_ms: 1000 }, plan.clone())
}

impl Device {
    /// What happens from running `before` to having `after` on trial, all of whose goals are met.
    fn update(before: &str, after: &str) -> Vec<String> {
        let before = plan(before, "0");
        let mut device =
            Self { candidate: plan(after, "locals/a"), events: VecDeque::new(), moves: Vec::new(), down: false };
        let mut machine = start(&before);
        device.go(&mut machine, Event::Tick);
        device.moves.clear();
        let candidate = device.candidate.rev;
        device.go(&mut machine, Event::Asked(ConnId(0), Caller::Host, Request::Run(candidate)));
        if device.down {
            device.down = false;
            let mut machine = start(&device.candidate.clone());
            device.go(&mut machine, Event::Tick);
        }
        device.moves
    }

    fn go(&mut self, machine: &mut Machine, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            turn(machine, self, 1000, event);
            if self.down {
                self.events.clear();
            }
        }
    }

    fn told(&mut self, what: &str, machine: &Machine, id: ContainerId) -> Goal {
        let spec = *machine.order().get(id).unwrap().spec();
        self.moves.push(format!("{what} {}", spec.name));
        spec.goal
    }
}

impl World for Device {
    fn perform(&mut self, machine: &mut Machine, action: Action) -> Option<Event> {
        match action {
            Action::Verify(id) => self.events.push_back(Event::Verified(id, Ok(()))),
            Action::Start(id) => {
                let goal = self.told("start", machine, id);
                self.events.push_back(Event::Launched(id, Ok(())));
                if goal == Goal::Ready {
                    self.events.push_back(Event::Asked(ConnId(1), Caller::Container(id), Request::Ready));
                }
            }
            Action::Stop(id) => {
                self.told("stop", machine, id);
                self.events.push_back(Event::Exited(id, Exit::Code(0)));
            }
            Action::Load(rev) => {
                *machine.candidate_mut() = self.candidate.clone();
                self.events.push_back(Event::Loaded(rev, Ok(())));
            }
            Action::Keep(job) => self.events.push_back(Event::Kept(job, Ok(()))),
            Action::Store(transition, _) => self.events.push_back(Event::Stored(transition, Ok(()))),
            Action::Reboot(_) => {
                self.moves.push("reboot".into());
                self.down = true;
            }
            Action::Answer(..) | Action::Note(_) => {}
            other => panic!("nobody asked for {other:?}"),
        }
        None
    }
}

fn planned(said: &Value) -> Vec<String> {
    let word = |step: &Value| match step {
        Value::String(word) => word.clone(),
        other => {
            let (what, name) = other.as_object().unwrap().iter().next().unwrap();
            format!("{what} {}", name.as_str().unwrap())
        }
    };
    said["moves"].as_array().unwrap().iter().map(word).collect()
}

fn plan_of(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}{}", said.out, said.err))
}

/// A device with four containers in two groups, one of which may only change with a reboot.
fn device(place: &Place, folder: &str) {
    small_device(place, folder);
    let group =
        |name: &str, goal: &str| format!(r#"{{"name":"{name}","restart_policy":"container","status_goal":"{goal}"}}"#);
    place.write(
        &format!("{folder}/groups.json"),
        format!("[{},{}]", group("platform", "STARTED"), group("app", "STARTED")),
    );
    container(place, folder, "network", "platform", r#","restart_policy":"system""#);
    container(place, folder, "clock", "platform", "");
    container(place, folder, "late", "app", r#","status_goal":"READY""#);
    place.write(&format!("{folder}/_config/web/etc/motd"), "hello");
    place.write(&format!("{folder}/readme"), "of nobody");
    place.commit(folder, "all");
}

fn container(place: &Place, folder: &str, name: &str, group: &str, more: &str) {
    let write = |file: &str, content: &str| place.write(&format!("{folder}/{name}/{file}"), content);
    write(
        "run.json",
        &format!(
            r#"{{"name":"{name}","type":"lxc","group":"{group}","config":"lxc.container.conf","root-volume":"root.squashfs"{more}}}"#
        ),
    );
    write("lxc.container.conf", "lxc.tty.max = 8\n");
    write("root.squashfs", name);
}

type Change = fn(&Place);

/// What is changed, how, and how many moves that takes at least, for the table itself to be right.
const CHANGES: &[(&str, bool, Change)] = &[
    ("nothing", false, |_| {}),
    ("an image", false, |p| p.write("d/web/root.squashfs", "new")),
    ("a file of the configuration of a container", false, |p| p.write("d/_config/web/etc/motd", "bye")),
    ("two containers of two groups", false, |p| {
        p.write("d/web/root.squashfs", "new");
        p.write("d/clock/root.squashfs", "new");
    }),
    ("one whose goal is READY", false, |p| p.write("d/late/root.squashfs", "new")),
    ("the kernel", true, |p| p.write("d/bsp/kernel.img", "new")),
    ("the initramfs and an image", true, |p| {
        p.write("d/bsp/initrd.img", "new");
        p.write("d/web/root.squashfs", "new");
    }),
    ("a group's policy", true, |p| {
        let groups = p.read("d/groups.json").replacen("container", "system", 1);
        p.write("d/groups.json", groups);
    }),
    ("one whose policy is system", true, |p| p.write("d/network/root.squashfs", "new")),
    ("a policy that becomes system", true, |p| container(p, "d", "clock", "platform", r#","restart_policy":"system""#)),
    ("a policy that was system", true, |p| container(p, "d", "network", "platform", "")),
    ("another group for a container", false, |p| container(p, "d", "clock", "app", "")),
    ("one more", false, |p| container(p, "d", "added", "app", "")),
    ("one more whose policy is system", true, |p| container(p, "d", "added", "app", r#","restart_policy":"system""#)),
    ("one less", false, |p| fs::remove_dir_all(p.path("d/clock")).unwrap()),
    ("one less whose policy is system", true, |p| fs::remove_dir_all(p.path("d/network")).unwrap()),
    ("a file of nobody", true, |p| p.write("d/readme", "changed")),
    ("what is not compared", false, |p| p.write("d/web/src.json", "{}")),
    ("run.json, but for its meaning", false, |p| container(p, "d", "clock", "platform", r#","comment":1"#)),
];

#[test]
fn the_plan_is_what_the_device_does() {
    for (what, reboot, change) in CHANGES {
        let place = Place::new();
        device(&place, "d");
        let before = place.read("d/.pvr/json");
        change(&place);
        place.pvr("d", &["add", "."]).good();
        let said = plan_of(&place.pvr("d", &["plan", "--json"]));
        place.pvr("d", &["commit", "-m", what]).good();
        let after = place.read("d/.pvr/json");
        let done = Device::update(&before, &after);
        assert_eq!(planned(&said), done, "{what}");
        assert_eq!(said["reboot"].as_bool().unwrap(), *reboot, "{what}");
        assert_eq!(done.contains(&"reboot".to_string()), *reboot, "{what}");
        assert_eq!(said["causes"].as_array().unwrap().is_empty(), !reboot, "{what}: {said}");
    }
}

#[test]
fn the_reasons_name_files_and_containers() {
    let place = Place::new();
    device(&place, "d");
    place.write("d/bsp/kernel.img", "new");
    place.write("d/network/root.squashfs", "new one");
    fs::remove_file(place.path("d/readme")).unwrap();
    let said = plan_of(&place.pvr("d", &["plan", "--json"]));
    assert_eq!(said["causes"][0]["keys"], serde_json::json!(["bsp/kernel.img", "readme"]));
    assert_eq!(said["causes"][1]["container"], "network");
    assert_eq!(said["send"], serde_json::json!({"objects": 2, "bytes": 10}));
    let text = place.pvr("d", &["plan"]).good();
    assert!(text.contains("reboot      yes\n") && text.contains("bsp/kernel.img, readme belong"), "{text}");
    assert!(text.contains("network has the restart policy system"), "{text}");
}

#[test]
fn what_the_device_refuses_is_refused_with_its_code() {
    let cases: [(&str, &str, Change); 5] = [
        ("SB1117", "web", |p| p.write("d/web/lxc.container.conf", "lxc.unknown = 1\n")),
        ("SB1118", "web", |p| p.write("d/web/lxc.container.conf", "#".repeat(limits::LXC_CONF_MAX + 1))),
        ("SB1119", "clock/run.json", |p| container(p, "d", "clock", "app", r#","switchback.confinement":"app""#)),
        ("SB1105", "clock", |p| container(p, "d", "clock", "nowhere", "")),
        ("SB1001", "", |p| p.write("d/big.json", format!("\"{}\"", "x".repeat(limits::STATE_MAX)))),
    ];
    for (code, named, change) in cases {
        let place = Place::new();
        device(&place, "d");
        change(&place);
        place.pvr("d", &["add", "."]).good();
        let said = place.pvr("d", &["plan", "--json"]);
        let document = plan_of(&said);
        assert_eq!(document["refused"]["code"], code, "{document}");
        let error = said.failed(3);
        assert!(error.contains(code) && error.contains(named), "{error}");
    }
    let place = Place::new();
    device(&place, "d");
    let state: Value = serde_json::from_str(&place.read("d/.pvr/json")).unwrap();
    fs::remove_file(place.path("home/.pvr/objects").join(state["web/root.squashfs"].as_str().unwrap())).unwrap();
    assert!(place.pvr("d", &["plan", "--of", "committed"]).failed(3).contains("SB1201"));
}

#[test]
fn sides_are_files_commits_archives_and_other_clones() {
    let place = Place::new();
    device(&place, "d");
    place.pvr("d", &["export", "old.tgz"]).good();
    fs::rename(place.path("d/old.tgz"), place.path("old.tgz")).unwrap();
    fs::create_dir(place.path("other")).unwrap();
    place.write("d/web/root.squashfs", "new");
    place.commit("d", "second");
    place.pvr("d", &["export", "../new.tar"]).good();
    let web = ["stop web", "start web"];
    for args in [
        &["plan", "--json", "../old.tgz"][..],
        &["plan", "--json", "--of", "committed", "../old.tgz"],
        &["plan", "--json", "--of", "../new.tar", "../old.tgz"],
    ] {
        assert_eq!(planned(&plan_of(&place.pvr("d", args))), web, "{args:?}");
    }
    let args = ["plan", "--json", "--of", "../old.tgz", "../d"];
    assert_eq!(planned(&plan_of(&place.pvr("other", &args))), web, "no repository is needed for two that are named");
    let log = place.pvr("d", &["--json", "log"]).good();
    let first = log.split('"').find(|word| word.len() == 64).expect("a state");
    assert!(place.pvr("d", &["plan", "--of", first]).good().contains("state "));
    assert!(place.pvr("d", &["plan"]).good().contains("moves       none"));

    let whole = fs::read(place.path("old.tgz")).unwrap();
    place.write("cut.tgz", &whole[..whole.len() / 2]);
    assert!(place.pvr("other", &["plan", "--of", "../cut.tgz", "../d"]).failed(3).contains("SB170"));
    assert!(place.pvr("d", &["plan", "nothing"]).failed(2).contains("nothing"));
    place.write("d/forgotten", "x");
    assert!(place.pvr("d", &["plan"]).good().contains("untracked   1 file"));
}
