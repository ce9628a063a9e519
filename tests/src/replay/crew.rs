//! Those who look at states: a process each, with a disk of its own that is shown to it, and one that clears up.
//!
//! Invariants: who mounts does not serve, who serves does not mount (see `shown`). All of it lives in a mount namespace of
//! its own, which goes with its last process. Loop devices are given back by a process that does nothing else and that
//! outlives this one, whatever ends it. A state is taken by one checker, in the order in which states are made.
//! Does not: decide what a state is, or what it means.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::ext4::{Ext4, Memo};
use super::layers::{Layers, Range, Sums};
use super::shown::{FILE, Mounted};
use super::states::State;
use crate::tour::{Outcome, ensure, fail};

/// A word in the environment that says that this process has a mount namespace of its own.
const OWN: &str = "SWITCHBACK_REPLAY_NAMESPACE";

/// Becomes this program in a mount namespace of its own, unless it is in one: still the same process, so that whoever ends
/// it ends all of it.
pub fn in_own_namespace() -> Outcome<()> {
    if std::env::var_os(OWN).is_some() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    Err(format!("unshare: {}", command.env(OWN, "1").exec()).into())
}

/// Gives loop devices back and removes a folder when nobody holds its input any more.
struct Janitor {
    child: Child,
    input: Mutex<Option<ChildStdin>>,
}

impl Janitor {
    const SCRIPT: &str = "trap '' INT TERM HUP; while read -r device; do devices=\"$devices $device\"; done
        for device in $devices; do losetup -d \"$device\"; done
        for hand in \"$0\"/*; do umount -l \"$hand/shown\"; done; rm -rf --one-file-system \"$0\"";

    fn new(folder: &Path) -> Outcome<Self> {
        let mut command = Command::new("sh");
        // A group of its own: what ends this one's whole group must not end it.
        command.args(["-c", Self::SCRIPT]).arg(folder).stdin(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let input = Mutex::new(child.stdin.take());
        Ok(Self { child, input })
    }

    fn note(&self, device: &str) -> Outcome<()> {
        match &mut *self.input.lock().expect("no holder panics") {
            Some(input) => Ok(writeln!(input, "{device}")?),
            None => fail("the process that clears up is gone".into()),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.input.lock().expect("no holder panics").take());
        let _ = self.child.wait();
    }
}

/// A checker and the disk that it sees.
struct Hand {
    child: Child,
    /// Closed, it tells the checker to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    mounted: Mounted,
    parts: [Range; 3],
    /// Of the contents that were named.
    memo: Memo,
}

impl Hand {
    fn new(recording: &Path, folder: &Path, disk: Layers, length: u64, parts: [Range; 3]) -> Outcome<Self> {
        let shown = folder.join("shown");
        std::fs::create_dir_all(&shown)?;
        let mounted = Mounted::new(&shown, disk, length)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]);
        command.arg(std::env::current_exe()?).arg("--look").arg(recording).arg(shown.join(FILE)).arg(folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let Some(output) = child.stdout.take() else { return fail("a checker without pipes".into()) };
        Ok(Self { child, input, output: BufReader::new(output), mounted, parts, memo: Memo::new() })
    }

    fn say(&mut self, value: &Value) -> Outcome<()> {
        match &mut self.input {
            Some(input) => Ok(writeln!(input, "{value}")?),
            None => fail("a checker was told to end".into()),
        }
    }

    fn hear(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        ensure(self.output.read_line(&mut line)? > 0, || "a checker ended before its time".into())?;
        Ok(serde_json::from_str(&line)?)
    }

    fn check(&mut self, state: State) -> Outcome<Value> {
        let sums = state.disk.sums();
        self.mounted.show(state.disk)?;
        self.say(&json!({"end": state.name.end, "boot": format!("{:x}", sums[0])}))?;
        loop {
            let said = self.hear()?;
            let Some(part) = said["part"].as_u64() else { return Ok(said) };
            let range = *self.parts.get(part as usize).ok_or("no such partition")?;
            if said["inodes"].is_null() {
                let name = self.mounted.shown().name(range);
                self.say(&name.map_or(Value::Null, |name| Value::from(format!("{name:x}"))))?;
                continue;
            }
            let names = self.names(range, said["inodes"].as_array().map_or(&[][..], Vec::as_slice));
            self.say(&Value::from(names))?;
        }
    }

    /// What inodes hold; nothing for those that are of a kind that has to be read.
    fn names(&mut self, part: Range, inodes: &[Value]) -> Vec<Value> {
        let mut shown = self.mounted.shown();
        let Ok(mut ext4) = Ext4::open(&mut *shown, part) else { return vec![Value::Null; inodes.len()] };
        let mut name =
            |inode: &Value| ext4.content(inode.as_u64()?, &mut self.memo).ok().map(|id| format!("{id:032x}"));
        inodes.iter().map(|inode| name(inode).map_or(Value::Null, Value::from)).collect()
    }

    /// Lets the checker end; the disk is shown until it is no device any more.
    fn end(mut self) -> Mounted {
        drop(self.input.take());
        let _ = self.child.wait();
        self.mounted
    }
}

/// What a checker said of a state.
#[derive(Debug)]
pub struct Seen {
    /// The state's name.
    pub name: String,
    /// The entry at which its epoch ends.
    pub end: usize,
    /// The last entry of which anything was there.
    pub reached: usize,
    /// What the disk held.
    pub sums: Sums,
    /// Broken laws.
    pub violations: Vec<String>,
    /// What each of `checker::CLASSES` showed.
    pub classes: Vec<String>,
    /// File systems whose superblock was mended before they mounted.
    pub mended: u64,
    /// The loader's view had to be forced.
    pub forced: bool,
}

impl Seen {
    fn of((name, end): (String, usize), (reached, sums): (usize, Sums), said: &Value) -> Outcome<Self> {
        let words = |key: &str| -> Vec<String> {
            said[key].as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_string())).collect()
        };
        ensure(said["violations"].is_array(), || format!("a checker said {said}"))?;
        let mended = said["mended"].as_u64().unwrap_or(0);
        let forced = said["forced"].as_bool().unwrap_or(false);
        let (violations, classes) = (words("violations"), words("classes"));
        Ok(Self { name, end, reached, sums, violations, classes, mended, forced })
    }
}

/// What a crew is made for.
pub struct Order<'a> {
    /// The recording's folder.
    pub recording: &'a Path,
    /// A folder that is made, and gone afterwards.
    pub folder: PathBuf,
    /// How many look at the same time.
    pub hands: usize,
    /// The disk before.
    pub disk: Layers,
    /// Its length.
    pub length: u64,
    /// What holds the environment, and the partitions boot and storage.
    pub parts: [Range; 3],
}

/// Has all states looked at that `make` gives to the function that it gets; `tell` hears what was seen of each.
pub fn look(
    order: &Order<'_>,
    make: impl FnOnce(&mut dyn FnMut(State) -> Outcome<bool>) -> Outcome<()>,
    tell: &(dyn Fn(Seen) + Sync),
) -> Outcome<()> {
    std::fs::create_dir_all(&order.folder)?;
    let janitor = Janitor::new(&order.folder)?;
    let mut hands = Vec::new();
    if let Err(error) = start(order, &janitor, &mut hands) {
        let shown: Vec<Mounted> = hands.into_iter().map(Hand::end).collect();
        drop(janitor);
        drop(shown);
        return Err(error);
    }
    let (give, take) = sync_channel(order.hands);
    let take = Arc::new(Mutex::new(take));
    let (made, ends) = std::thread::scope(|scope| {
        let work = |hand| {
            let take = take.clone();
            scope.spawn(move || work(hand, &take, tell))
        };
        let workers: Vec<_> = hands.into_iter().map(work).collect();
        // When every checker has failed nobody takes any more.
        drop(take);
        let made = make(&mut |state| Ok(give.send(state).is_ok()));
        drop(give);
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("its panic was told")).collect();
        (made, ends)
    });
    let (shown, ends): (Vec<Mounted>, Vec<Outcome<()>>) = ends.into_iter().unzip();
    drop(janitor);
    drop(shown);
    ends.into_iter().collect::<Outcome<Vec<()>>>()?;
    made
}

/// Starts the checkers, each among `hands` before it has anything that is to be given back.
fn start(order: &Order<'_>, janitor: &Janitor, hands: &mut Vec<Hand>) -> Outcome<()> {
    for number in 0..order.hands {
        let folder = order.folder.join(number.to_string());
        let hand = Hand::new(order.recording, &folder, order.disk.clone(), order.length, order.parts)?;
        hands.push(hand);
        let Some(hand) = hands.last_mut() else { continue };
        loop {
            let said = hand.hear()?;
            match said["device"].as_str() {
                Some(device) => janitor.note(device)?,
                None => break ensure(said["ready"] == true, || format!("a checker said {said}"))?,
            }
        }
    }
    Ok(())
}

fn work(mut hand: Hand, take: &Mutex<Receiver<State>>, tell: &(dyn Fn(Seen) + Sync)) -> (Mounted, Outcome<()>) {
    let outcome = take_all(&mut hand, take, tell);
    (hand.end(), outcome)
}

fn take_all(hand: &mut Hand, take: &Mutex<Receiver<State>>, tell: &(dyn Fn(Seen) + Sync)) -> Outcome<()> {
    loop {
        let next = take.lock().expect("no holder panics").recv();
        let Ok(state) = next else { return Ok(()) };
        let (name, end, reached) = (state.name.to_string(), state.name.end, state.reached);
        let sums = state.disk.sums();
        let said = hand.check(state).map_err(|error| format!("state {name}: {error}"))?;
        tell(Seen::of((name, end), (reached, sums), &said)?);
    }
}
