//! The revision: from state JSON to what the machine needs, and to what storage and launcher look up.
//!
//! Two layers. `State` is the checked envelope: every key a plain path, every value an object's name or inline
//! JSON, found by key. `Plan` is what the machine keeps in memory after the text is gone: groups, containers,
//! policies, and digests by which two revisions are compared. Both live in storage of the caller; the tables
//! are static on the device.
//!
//! Invariants: a `Plan` is filled completely or left empty; each container's group exists; every file that a
//! container or the base names is in the state. Containers stand in document order, which is start order.
//! Unknown keys are ignored, known keys of a wrong type refuse the revision.
//!
//! Does not do: reading objects (so `lxc.container.conf` is checked elsewhere), disks, drivers, services.
//! Reference: device-formats 1, 3.4, 5.1. Lookups are by whole key at their own level; the original's
//! prefix lookups, and the rules it drops when a document is missing, are not reproduced.

use crate::{
    fault::{Code, Refusal},
    id::{ObjectId, PartName, RevName, Text},
    json::{self, Kind, Object, Wrong},
    limits::{self, CONTAINERS_MAX, GROUPS_MAX, KEY_MAX, RUN_JSON_MAX, STATE_ENTRIES_MAX, STATE_MAX},
    lxc,
};
use core::fmt;
use heapless::Vec;
use sha2::{Digest, Sha256};

/// A key of a state: a path below the revision.
pub type Key = Text<KEY_MAX>;

/// The envelope that the device knows, and its older name.
const SPECS: [&str; 2] = ["pantavisor-service-system@1", "pantavisor-multi-platform@1"];

/// Where one entry stands in the text. 16 bytes, so that the table of a whole revision is 16 KiB.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    key_at: u32,
    value_at: u32,
    value_len: u32,
    key_len: u16,
}

/// Table of the entries of one state, sorted by key. Means nothing without the text it was made from.
#[derive(Debug)]
pub struct Spans(Vec<Span, STATE_ENTRIES_MAX>);

impl Spans {
    /// An empty table.
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

impl Default for Spans {
    fn default() -> Self {
        Self::new()
    }
}

/// What a key of a state holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// The object with this name.
    Object(ObjectId),
    /// A JSON document, exactly as it was written.
    Inline(&'a [u8]),
}

/// One entry of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Its path below the revision.
    pub key: &'a str,
    /// What it holds.
    pub value: Value<'a>,
    /// Byte offset of the value in the state.
    pub at: usize,
}

/// A checked envelope: keys are unique plain paths that do not collide as files and folders.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    text: &'a str,
    spans: &'a [Span],
}

impl<'a> State<'a> {
    /// Checks a text and fills the table.
    pub fn read(text: &'a [u8], spans: &'a mut Spans) -> Result<Self, Refusal> {
        spans.0.clear();
        if text.len() > STATE_MAX {
            return Err(Refusal::at(Code::StateTooLarge, STATE_MAX));
        }
        let document = json::Value::parse(text)?;
        let text = core::str::from_utf8(text).map_err(|bad| Refusal::at(Code::StateUtf8, bad.valid_up_to()))?;
        if document.kind() != Kind::Object {
            return Err(Refusal::at(Code::StateSyntax, document.at()));
        }
        for (key, value) in document.members() {
            let span = checked_span(key, value)?;
            spans.0.push(span).map_err(|_| Refusal::at(Code::StateTooManyKeys, key.at()))?;
        }
        spans.0.sort_unstable_by(|a, b| span_key(text, a).cmp(span_key(text, b)));
        let state = State { text, spans: &spans.0 };
        state.refuse_collisions()?;
        state.refuse_unknown_spec()?;
        Ok(state)
    }

    /// Every entry but `#spec`, sorted by key.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let state = *self;
        self.spans.iter().map(move |span| state.entry(span)).filter(|entry| entry.key != "#spec")
    }

    /// The entry with this key.
    pub fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.find(key).map(|span| self.entry(span))
    }

    /// What the loader needs, named by `bsp/run.json`. Reference: device-formats 1.2.
    pub fn boot_assets(&self) -> Result<BootAssets, Refusal> {
        const KEY: &str = "bsp/run.json";
        let run = self.document(KEY, Code::BspInvalid)?.ok_or(Refusal::key(Code::BspMissing, KEY))?;
        let asset = |name: &str| -> Result<Option<ObjectId>, Refusal> {
            let invalid = |wrong: Wrong| wrong.refuse(Code::BspInvalid, KEY);
            let Some(path) = run.text::<KEY_MAX>(name).map_err(invalid)? else { return Ok(None) };
            let at = run.get(name).map_or(0, |value| value.at());
            let key = join("bsp", path.as_str()).ok_or(invalid(Wrong { at }))?;
            match self.get(key.as_str()).map(|entry| entry.value) {
                Some(Value::Object(id)) => Ok(Some(id)),
                _ => Err(Refusal { code: Code::BspMissing, key, at: at as u32 }),
            }
        };
        match (asset("linux")?, asset("initrd")?) {
            (Some(linux), Some(initrd)) => Ok(BootAssets { linux, initrd, fdt: asset("fdt")? }),
            _ => Err(Refusal { code: Code::BspMissing, key: Text::clip(KEY), at: run.at() as u32 }),
        }
    }

    /// Whether the release in this revision says of itself that it ends a factory reset that another one has begun.
    pub fn ends_factory_reset(&self) -> Result<bool, Refusal> {
        const KEY: &str = "bsp/run.json";
        let run = self.document(KEY, Code::BspInvalid)?.ok_or(Refusal::key(Code::BspMissing, KEY))?;
        let says = run.bool("switchback.factory-reset").map_err(|wrong| wrong.refuse(Code::BspInvalid, KEY))?;
        Ok(says == Some(true))
    }

    /// What a container consists of, by its own `run.json`.
    pub fn container(&self, name: PartName) -> Result<Content<'a>, Refusal> {
        let key = join(name.as_str(), "run.json").unwrap_or(Key::EMPTY);
        match self.document(key.as_str(), Code::RunInvalid)? {
            Some(run) => Ok(Content { state: *self, name, key, run }),
            None => Err(Refusal::key(Code::ContainerUnknown, name.as_str())),
        }
    }

    fn entry(&self, span: &Span) -> Entry<'a> {
        let raw = self.raw(span);
        let value = match raw {
            [b'"', hex @ .., b'"'] => core::str::from_utf8(hex).ok().and_then(ObjectId::parse).map(Value::Object),
            _ => None,
        };
        Entry { key: span_key(self.text, span), value: value.unwrap_or(Value::Inline(raw)), at: span.value_at as usize }
    }

    /// The raw text of an entry's value.
    fn raw(&self, span: &Span) -> &'a [u8] {
        let from = span.value_at as usize;
        self.text.as_bytes().get(from..from + span.value_len as usize).unwrap_or(&[])
    }

    /// The entries whose keys start with `folder` and a slash: they stand together.
    fn below(&self, folder: &str) -> &'a [Span] {
        // "/" sorts before "0", so `folder/` is the least and `folder0` above the greatest of them
        let before = |span: &Span, mark: u8| {
            let key = span_key(self.text, span).as_bytes();
            key.iter().cmp(folder.as_bytes().iter().chain([&mark])).is_lt()
        };
        let from = self.spans.partition_point(|span| before(span, b'/'));
        let to = self.spans.partition_point(|span| before(span, b'/' + 1));
        self.spans.get(from..to).unwrap_or(&[])
    }

    fn find(&self, key: &str) -> Option<&'a Span> {
        let index = self.spans.binary_search_by(|span| span_key(self.text, span).cmp(key)).ok()?;
        self.spans.get(index)
    }

    /// A key twice, or a key that is the folder of another.
    fn refuse_collisions(&self) -> Result<(), Refusal> {
        let refuse = |code, key: &str, at: u32| Refusal { code, key: Text::clip(key), at: at.saturating_sub(1) };
        for (a, b) in self.spans.iter().zip(self.spans.iter().skip(1)) {
            let key = span_key(self.text, a);
            if key == span_key(self.text, b) {
                return Err(refuse(Code::StateDuplicateKey, key, a.key_at.max(b.key_at)));
            }
        }
        for span in self.spans {
            let key = span_key(self.text, span);
            for (at, _) in key.match_indices('/') {
                if key.get(..at).and_then(|folder| self.find(folder)).is_some() {
                    return Err(refuse(Code::KeyUnsafe, key, span.key_at));
                }
            }
        }
        Ok(())
    }

    fn refuse_unknown_spec(&self) -> Result<(), Refusal> {
        let Some(span) = self.find("#spec") else { return Err(Refusal::key(Code::SpecUnknown, "#spec")) };
        let spec = json::Value::part(self.raw(span), span.value_at as usize);
        match spec.string() {
            Ok(text) if SPECS.iter().any(|known| text.is(known)) => Ok(()),
            _ => Err(Wrong { at: spec.at() }.refuse(Code::SpecUnknown, "#spec")),
        }
    }

    /// The inline document under a key, as a value; `None` if the key is absent.
    fn inline(&self, key: &str, invalid: Code) -> Result<Option<json::Value<'a>>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Entry { value: Value::Inline(raw), at, .. }) if raw.len() <= RUN_JSON_MAX => {
                Ok(Some(json::Value::part(raw, at)))
            }
            Some(entry) => Err(Wrong { at: entry.at }.refuse(invalid, key)),
        }
    }

    /// The inline object under a key; `None` if the key is absent.
    fn document(&self, key: &str, invalid: Code) -> Result<Option<Object<'a>>, Refusal> {
        self.inline(key, invalid)?.map(|value| object(value, invalid, key)).transpose()
    }
}

/// The object in a value, refused as `invalid` if it is none, as itself if it has a key twice.
fn object<'a>(value: json::Value<'a>, invalid: Code, key: &str) -> Result<Object<'a>, Refusal> {
    if value.kind() != Kind::Object {
        return Err(Wrong { at: value.at() }.refuse(invalid, key));
    }
    value.object().map_err(|fault| Refusal { code: fault.code, key: Text::clip(key), at: fault.at as u32 })
}

fn span_key<'a>(text: &'a str, span: &Span) -> &'a str {
    let from = span.key_at as usize;
    text.get(from..from + usize::from(span.key_len)).unwrap_or("")
}

/// One member of the envelope, checked by itself.
fn checked_span(key: json::Str<'_>, value: json::Value<'_>) -> Result<Span, Refusal> {
    let Some(name) = key.plain() else {
        let raw = core::str::from_utf8(key.raw()).unwrap_or("");
        return Err(Wrong { at: key.at() }.refuse(Code::KeyUnsafe, raw));
    };
    if name.len() > KEY_MAX {
        return Err(Wrong { at: key.at() }.refuse(Code::KeyTooLong, name));
    }
    let reserved = matches!(name.split('/').next(), Some(".pv" | ".pvr"));
    if name != "#spec" && (reserved || !is_plain_path(name)) {
        return Err(Wrong { at: key.at() }.refuse(Code::KeyUnsafe, name));
    }
    let good = match (value.kind(), value.raw()) {
        (Kind::String, [b'"', hex @ .., b'"']) => {
            name == "#spec" || core::str::from_utf8(hex).ok().and_then(ObjectId::parse).is_some()
        }
        (Kind::Null, _) => false,
        _ => name.ends_with(".json"),
    };
    if !good {
        return Err(Wrong { at: value.at() }.refuse(Code::ValueInvalid, name));
    }
    Ok(Span {
        key_at: key.at() as u32 + 1,
        key_len: name.len() as u16,
        value_at: value.at() as u32,
        value_len: value.raw().len() as u32,
    })
}

/// Whether a path stays where it is put: relative, no empty, `.` or `..` component, no backslash, no control character.
pub fn is_plain_path(path: &str) -> bool {
    path.len() <= KEY_MAX
        && !path.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b'\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// `folder/path`, if `path` is plain and the whole fits a key.
fn join(folder: &str, path: &str) -> Option<Key> {
    if !is_plain_path(path) {
        return None;
    }
    let mut whole = heapless::String::<KEY_MAX>::new();
    whole.push_str(folder).ok()?;
    whole.push('/').ok()?;
    whole.push_str(path).ok()?;
    Key::new(&whole)
}

/// Whether a key takes part in comparing revisions. Reference: device-formats 3.4.
pub fn is_compared(key: &str) -> bool {
    !(key.starts_with("_sigs/") || key.ends_with("/src.json") || key.ends_with("/build.json"))
}

/// The folder of the container that a key may belong to: the first component, or the second below `_config`.
fn owner(key: &str) -> &str {
    let below = key.strip_prefix("_config/").unwrap_or(key);
    below.split_once('/').map_or("", |(folder, _)| folder)
}

/// Objects that the loader needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootAssets {
    /// The kernel.
    pub linux: ObjectId,
    /// The initramfs, our own program in it.
    pub initrd: ObjectId,
    /// The device tree, if the loader does not bring its own.
    pub fdt: Option<ObjectId>,
}

/// What a container consists of.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    state: State<'a>,
    name: PartName,
    key: Key,
    run: Object<'a>,
}

/// A file of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// Its path below the container's folder, without a handler.
    pub path: Key,
    /// Its key in the state.
    pub key: Key,
    /// Its object; `None` for a folder of the revision (`x.data`).
    pub object: Option<ObjectId>,
    /// Whether it is to be mounted through dm-verity (`dm:` in front of it).
    pub verity: bool,
}

/// A writable place of a container. Reference: device-formats 1.8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Storage {
    /// Its name, a plain path.
    pub name: Key,
    /// How long its content lives.
    pub persistence: Persistence,
    /// Whether it asks for a disk by name; there is none to give yet, so starting it must fail.
    pub on_disk: bool,
}

/// How long content lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// As long as the device.
    Permanent,
    /// As long as its revision.
    Revision,
    /// Until the next boot.
    Boot,
}

impl<'a> Content<'a> {
    fn invalid(&self, at: usize) -> Refusal {
        Wrong { at }.refuse(Code::RunInvalid, self.key.as_str())
    }

    /// `lxc.container.conf`, or whatever `config` names.
    pub fn config(&self) -> Result<Option<File>, Refusal> {
        self.run.get("config").map(|value| self.file(value)).transpose()
    }

    /// The images: `root-volume` first, then `volumes` in their order.
    pub fn volumes(&self) -> impl Iterator<Item = Result<File, Refusal>> + use<'a> {
        let content = *self;
        let more = self.run.get("volumes");
        let wrong = more.filter(|list| list.kind() != Kind::Array).map(|list| Err(content.invalid(list.at())));
        let listed = more.into_iter().flat_map(|list| list.elements());
        let files = self.run.get("root-volume").into_iter().chain(listed).map(move |value| content.file(value));
        wrong.into_iter().chain(files)
    }

    /// The writable places, in document order. An entry that does not say how long it lives is no entry.
    pub fn storage(&self) -> impl Iterator<Item = Result<Storage, Refusal>> + use<'a> {
        let content = *self;
        let places = match self.run.get("storage").map(|value| object(value, Code::RunInvalid, self.key.as_str())) {
            Some(Ok(places)) => Ok(Some(places)),
            Some(Err(refusal)) => Err(refusal),
            None => Ok(None),
        };
        let wrong = places.err().map(Err);
        let members = places.ok().flatten().into_iter().flat_map(|places| places.members());
        wrong.into_iter().chain(members.filter_map(move |(name, value)| content.place(name, value).transpose()))
    }

    fn place(&self, name: json::Str<'_>, value: json::Value<'a>) -> Result<Option<Storage>, Refusal> {
        let place = object(value, Code::RunInvalid, self.key.as_str())?;
        let mut buffer = [0u8; KEY_MAX];
        let path = name.copy(&mut buffer).filter(|path| is_plain_path(path)).and_then(Key::new);
        let path = path.ok_or(self.invalid(name.at()))?;
        let Some(persistence) = place.get("persistence") else { return Ok(None) };
        let word = persistence.string().map_err(|wrong| self.invalid(wrong.at))?;
        let persistence = match () {
            () if word.is("permanent") => Persistence::Permanent,
            () if word.is("revision") => Persistence::Revision,
            // an unknown word means the shortest life, as in the original
            () => Persistence::Boot,
        };
        Ok(Some(Storage { name: path, persistence, on_disk: place.get("disk").is_some() }))
    }

    fn file(&self, value: json::Value<'a>) -> Result<File, Refusal> {
        let invalid = self.invalid(value.at());
        let text = value.text::<KEY_MAX>().map_err(|_| invalid)?;
        let (verity, path) = match text.as_str().split_once(':') {
            Some(("dm", path)) => (true, path),
            Some(_) => return Err(invalid), // a handler that we do not have
            None => (false, text.as_str()),
        };
        let key = join(self.name.as_str(), path).ok_or(invalid)?;
        let path = Key::new(path).ok_or(invalid)?;
        match self.state.get(key.as_str()).map(|entry| entry.value) {
            Some(Value::Object(id)) => Ok(File { path, key, object: Some(id), verity }),
            None if path.as_str().ends_with(".data") => Ok(File { path, key, object: None, verity }),
            _ => Err(Wrong { at: value.at() }.refuse(Code::FileMissing, key.as_str())),
        }
    }
}

/// Defines an enum whose variants have fixed words in documents and answers.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// From its word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }

            /// Its word in documents and answers.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// The status that a container must reach.
    Goal {
        /// Its volumes are mounted; nothing runs.
        Mounted = "MOUNTED",
        /// Its init runs.
        Started = "STARTED",
        /// It said so itself.
        Ready = "READY",
    }
}

words! {
    /// What changing a container costs.
    RestartPolicy {
        /// A reboot of the device.
        System = "system",
        /// A restart of the container; the control socket may stop and start it.
        Container = "container",
    }
}

words! {
    /// When a container that ended is started again.
    RecoveryPolicy {
        /// Never: its end is a failure of the revision.
        No = "no",
        /// Always.
        Always = "always",
        /// After a failure.
        OnFailure = "on-failure",
        /// Unless somebody stopped it.
        UnlessStopped = "unless-stopped",
    }
}

/// What happens when all retries are used up and no update is on trial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backoff {
    /// The device reboots.
    Reboot,
    /// The container stays down.
    Never,
    /// Seconds until the retries are counted from zero again.
    After(u32),
}

impl Backoff {
    /// From `reboot`, `never` or a duration (`5`, `5s`, `5min`, `5h`); anything else means a reboot.
    fn from_word(word: &str) -> Self {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match word.get(digits.len()..) {
            _ if word == "never" => return Self::Never,
            Some("" | "s") => 1,
            Some("min") => 60,
            Some("h") => 3600,
            _ => return Self::Reboot,
        };
        digits.parse::<u32>().ok().and_then(|n| n.checked_mul(factor)).map_or(Self::Reboot, Self::After)
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reboot => f.write_str("reboot"),
            Self::Never => f.write_str("never"),
            Self::After(seconds) => write!(f, "{seconds}s"),
        }
    }
}

/// `auto_recovery`. Reference: device-formats 1.7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Whether to start again at all.
    pub policy: RecoveryPolicy,
    /// Starts after the first; 0 = without end.
    pub max_retries: u32,
    /// Seconds before a further start.
    pub retry_delay_s: u32,
    /// By how much the delay grows with each retry, in thousandths; at most 1000 = it does not grow.
    pub backoff_factor_milli: u32,
    /// Seconds of running after which the retries are counted from zero again; 0 = never.
    pub reset_window_s: u32,
    /// Seconds at the goal after which the container counts as stable; gates the commit.
    pub stable_timeout_s: u32,
    /// What happens after the last retry.
    pub backoff: Backoff,
}

impl Recovery {
    /// What holds without an `auto_recovery`.
    pub const NONE: Self = Self {
        policy: RecoveryPolicy::No,
        max_retries: 0,
        retry_delay_s: 0,
        backoff_factor_milli: 0,
        reset_window_s: 0,
        stable_timeout_s: 0,
        backoff: Backoff::Reboot,
    };

    /// The one under `auto_recovery` of an object; `None` if there is none or it names no policy, so that
    /// an explicit `no` is a policy of its own and keeps a container out of its group's.
    fn read(of: Object<'_>, invalid: Code, key: &str) -> Result<Option<Self>, Refusal> {
        let Some(value) = of.get("auto_recovery") else { return Ok(None) };
        let from = object(value, invalid, key)?;
        let refuse = |wrong: Wrong| wrong.refuse(invalid, key);
        let number = |name| from.u32(name).map(|n| n.unwrap_or(0)).map_err(refuse);
        let factor = from.get("backoff_factor").map(|value| value.thousandths()).transpose().map_err(refuse)?;
        let backoff = from.text::<24>("backoff_policy").map_err(refuse)?;
        let recovery = Self {
            policy: RecoveryPolicy::No,
            max_retries: number("max_retries")?,
            retry_delay_s: number("retry_delay")?,
            backoff_factor_milli: factor.unwrap_or(0),
            reset_window_s: number("reset_window")?,
            stable_timeout_s: number("stable_timeout")?,
            backoff: backoff.map_or(Backoff::Reboot, |word| Backoff::from_word(word.as_str())),
        };
        let policy = word(from, "policy", RecoveryPolicy::from_word, invalid, key)?;
        Ok(policy.map(|policy| Self { policy, ..recovery }))
    }
}

/// The value under `name`, which must be one of the words that `parse` knows.
fn word<T>(
    of: Object<'_>,
    name: &str,
    parse: fn(&str) -> Option<T>,
    invalid: Code,
    key: &str,
) -> Result<Option<T>, Refusal> {
    let Some(value) = of.get(name) else { return Ok(None) };
    let known = value.text::<24>().ok().and_then(|text| parse(text.as_str()));
    known.map(Some).ok_or(Wrong { at: value.at() }.refuse(invalid, key))
}

/// Containers that start together. Reference: device-formats 1.5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: PartName,
    /// Goal of members that have none of their own.
    pub goal: Goal,
    /// Policy of members that have none of their own.
    pub restart: RestartPolicy,
    /// Seconds in which its members must reach their goals.
    pub timeout_s: u32,
    /// Recovery of members that have none of their own.
    pub recovery: Recovery,
}

/// One container, as the machine needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Container {
    /// Its name: the folder in the revision, equal to `name` in its `run.json`.
    pub name: PartName,
    /// Index into the plan's groups.
    pub group: u8,
    /// The status that it must reach.
    pub goal: Goal,
    /// What changing it costs.
    pub restart: RestartPolicy,
    /// When it is started again.
    pub recovery: Recovery,
    /// Whether it may use the management endpoints of its control socket.
    pub management: bool,
    /// What its `lxc.container.conf` says. That is an object, so not of this text: LXC's defaults until
    /// whoever loads the revision has read it.
    pub launch: lxc::Summary,
    /// Digest of everything that it owns. Two revisions have the same container iff these are equal.
    pub digest: [u8; 32],
}

/// What a revision may leave open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Defaults {
    /// Goal time-out of a group that states none, seconds.
    pub goals_timeout_s: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { goals_timeout_s: limits::GOALS_TIMEOUT_S }
    }
}

/// A revision as the machine keeps it. About 12 KiB, no reference to the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Which revision.
    pub rev: RevName,
    /// In start order.
    pub groups: Vec<Group, GROUPS_MAX>,
    /// In document order, which is start order within a group.
    pub containers: Vec<Container, CONTAINERS_MAX>,
    /// Digest of everything that no container owns: a change there needs a reboot.
    pub base: [u8; 32],
}

impl Plan {
    /// A plan without containers.
    pub fn empty(rev: RevName) -> Self {
        Self { rev, groups: Vec::new(), containers: Vec::new(), base: [0; 32] }
    }

    /// Reads a revision into `plan`, completely or not at all: after a refusal the plan is empty.
    /// Gives the envelope back, for whoever needs the entries too.
    pub fn parse<'a>(
        text: &'a [u8],
        rev: RevName,
        defaults: &Defaults,
        plan: &mut Plan,
        scratch: &'a mut Spans,
    ) -> Result<State<'a>, Refusal> {
        plan.clear(rev);
        let filled = State::read(text, scratch).and_then(|state| plan.fill(&state, defaults).map(|()| state));
        if filled.is_err() {
            plan.clear(rev);
        }
        filled
    }

    /// The container with this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name.as_str() == name)
    }

    /// Whether a key belongs to one of its containers; what does not is the base.
    pub fn owns(&self, key: &str) -> bool {
        self.container(owner(key)).is_some()
    }

    /// The group of a container.
    pub fn group_of(&self, container: &Container) -> Option<&Group> {
        self.groups.get(usize::from(container.group))
    }

    fn clear(&mut self, rev: RevName) {
        self.rev = rev;
        self.groups.clear();
        self.containers.clear();
        self.base = [0; 32];
    }

    fn fill(&mut self, state: &State<'_>, defaults: &Defaults) -> Result<(), Refusal> {
        state.boot_assets()?;
        let runlevels = self.fill_groups(state, defaults)?;
        self.fill_containers(state)?;
        if runlevels {
            self.assign_by_runlevel();
        }
        self.settle_containers(state)?;
        for container in &mut self.containers {
            container.digest = digest_of(state, container.name.as_str());
        }
        self.base = self.digest_of_base(state);
        Ok(())
    }

    /// Groups of `device.json`, else of `groups.json`, else the built-in ones; whether it was these.
    fn fill_groups(&mut self, state: &State<'_>, defaults: &Defaults) -> Result<bool, Refusal> {
        let invalid = Code::GroupInvalid;
        let device = state.document("device.json", invalid)?.and_then(|device| device.get("groups"));
        let (key, list) = match device {
            Some(list) => ("device.json", list),
            None => match state.inline("groups.json", invalid)? {
                Some(list) => ("groups.json", list),
                None => {
                    self.groups.extend(default_groups());
                    return Ok(true);
                }
            },
        };
        if list.kind() != Kind::Array {
            return Err(Wrong { at: list.at() }.refuse(invalid, key));
        }
        for value in list.elements() {
            let group = read_group(object(value, invalid, key)?, key, defaults)?;
            if self.groups.iter().any(|other| other.name == group.name) {
                return Err(Wrong { at: value.at() }.refuse(Code::GroupDuplicate, group.name.as_str()));
            }
            self.groups.push(group).map_err(|_| Wrong { at: value.at() }.refuse(Code::TooManyGroups, key))?;
        }
        Ok(false)
    }

    /// Digest of what no container owns.
    fn digest_of_base(&self, state: &State<'_>) -> [u8; 32] {
        let mut hash = Sha256::new();
        let (mut folder, mut owned) = ("", false); // entries of one folder stand together
        for span in state.spans {
            let of = owner(span_key(state.text, span));
            if of != folder {
                (folder, owned) = (of, self.container(of).is_some());
            }
            if !owned {
                add(&mut hash, state, span);
            }
        }
        hash.finalize().into()
    }

    /// Names and groups, in document order. A container without a group gets the last one, for now.
    fn fill_containers(&mut self, state: &State<'_>) -> Result<(), Refusal> {
        let mut found = Vec::<(u32, u16), CONTAINERS_MAX>::new();
        for (index, span) in state.spans.iter().enumerate() {
            let key = span_key(state.text, span);
            match key.split_once('/') {
                Some((folder, "run.json")) if folder != "bsp" && !folder.starts_with(['_', '.']) => {}
                _ => continue,
            }
            let refusal = Wrong { at: span.key_at as usize }.refuse(Code::TooManyContainers, key);
            found.push((span.key_at, index as u16)).map_err(|_| refusal)?;
        }
        found.sort_unstable();
        for (_, index) in found {
            let Some(span) = state.spans.get(usize::from(index)) else { continue };
            let container = self.read_container(state, span_key(state.text, span))?;
            if self.containers.push(container).is_err() {
                return Err(Refusal::new(Code::TooManyContainers));
            }
        }
        Ok(())
    }

    fn read_container(&self, state: &State<'_>, key: &str) -> Result<Container, Refusal> {
        let refuse = |code, at| Wrong { at }.refuse(code, key);
        let folder = owner(key);
        let run = state.document(key, Code::RunInvalid)?.ok_or(refuse(Code::RunInvalid, 0))?;
        let stated = run.get("name").ok_or(refuse(Code::RunInvalid, run.at()))?;
        if !stated.string().map_err(|wrong| refuse(Code::RunInvalid, wrong.at))?.is(folder) {
            return Err(refuse(Code::RunNameMismatch, stated.at()));
        }
        let name = PartName::parse(folder).map_err(|_| refuse(Code::RunInvalid, stated.at()))?;
        let group = match run.get("group").or(run.get("runlevel")) {
            Some(value) => {
                let wanted = value.string().map_err(|wrong| refuse(Code::RunInvalid, wrong.at))?;
                let index = self.groups.iter().position(|group| wanted.is(group.name.as_str()));
                index.ok_or(Wrong { at: value.at() }.refuse(Code::GroupUnknown, folder))?
            }
            None if self.groups.is_empty() => return Err(Wrong { at: run.at() }.refuse(Code::GroupUnknown, folder)),
            None => UNASSIGNED,
        };
        Ok(Container {
            name,
            group: group as u8,
            goal: Goal::Started,
            restart: RestartPolicy::Container,
            recovery: Recovery::NONE,
            management: true,
            launch: lxc::Summary::DEFAULT,
            digest: [0; 32],
        })
    }

    /// Built-in groups: the first container that names none is the root, unless one says so; others are platform.
    fn assign_by_runlevel(&mut self) {
        let rooted = self.containers.iter().any(|container| container.group == ROOT);
        let mut group = if rooted { PLATFORM } else { ROOT };
        for container in self.containers.iter_mut().filter(|c| usize::from(c.group) == UNASSIGNED) {
            container.group = group;
            group = PLATFORM;
        }
    }

    /// What depends on the group, and everything else of `run.json`.
    fn settle_containers(&mut self, state: &State<'_>) -> Result<(), Refusal> {
        let last = self.groups.len().saturating_sub(1);
        for container in &mut self.containers {
            let index = usize::from(container.group).min(last);
            let content = state.container(container.name)?;
            let Some(group) = self.groups.get(index) else { continue };
            container.group = index as u8;
            settle_container(container, group, &content)?;
        }
        Ok(())
    }
}

/// No group has this index.
const UNASSIGNED: usize = u8::MAX as usize;
/// Index of `root` among the built-in groups.
const ROOT: u8 = 1;
/// Index of `platform` among the built-in groups.
const PLATFORM: u8 = 2;
const _: () = assert!(GROUPS_MAX < UNASSIGNED);

/// The groups of a revision that defines none. Reference: device-formats 5.1.
fn default_groups() -> impl Iterator<Item = Group> {
    let recovery = Recovery {
        policy: RecoveryPolicy::OnFailure,
        max_retries: 5,
        retry_delay_s: 5,
        backoff_factor_milli: 2000,
        reset_window_s: 0,
        stable_timeout_s: 30,
        backoff: Backoff::Reboot,
    };
    let groups = [
        ("data", Goal::Mounted, RestartPolicy::System, Recovery::NONE),
        ("root", Goal::Started, RestartPolicy::System, Recovery::NONE),
        ("platform", Goal::Started, RestartPolicy::System, Recovery::NONE),
        ("app", Goal::Started, RestartPolicy::Container, recovery),
    ];
    groups.into_iter().filter_map(|(name, goal, restart, recovery)| {
        let name = PartName::parse(name).ok()?;
        Some(Group { name, goal, restart, timeout_s: 30, recovery })
    })
}

fn read_group(group: Object<'_>, key: &str, defaults: &Defaults) -> Result<Group, Refusal> {
    let invalid = Code::GroupInvalid;
    let refuse = |wrong: Wrong| wrong.refuse(invalid, key);
    let name = group.text::<{ limits::PART_NAME_MAX }>("name").map_err(refuse)?;
    let name = name.and_then(|name| PartName::parse(name.as_str()).ok()).ok_or(refuse(Wrong { at: group.at() }))?;
    Ok(Group {
        name,
        goal: word(group, "status_goal", Goal::from_word, invalid, key)?.unwrap_or(Goal::Started),
        restart: word(group, "restart_policy", RestartPolicy::from_word, invalid, key)?
            .unwrap_or(RestartPolicy::Container),
        timeout_s: group.u32("timeout").map_err(refuse)?.unwrap_or(defaults.goals_timeout_s),
        recovery: Recovery::read(group, invalid, key)?.unwrap_or(Recovery::NONE),
    })
}

fn settle_container(container: &mut Container, group: &Group, content: &Content<'_>) -> Result<(), Refusal> {
    let (run, key, invalid) = (content.run, content.key.as_str(), Code::RunInvalid);
    container.goal = word(run, "status_goal", Goal::from_word, invalid, key)?.unwrap_or(group.goal);
    container.restart = word(run, "restart_policy", RestartPolicy::from_word, invalid, key)?.unwrap_or(group.restart);
    container.recovery = Recovery::read(run, invalid, key)?.unwrap_or(group.recovery);
    container.management = match run.get("roles") {
        None => true,
        Some(roles) if roles.kind() == Kind::Array => {
            roles.elements().any(|role| role.string().is_ok_and(|role| role.is("mgmt")))
        }
        Some(other) => return Err(content.invalid(other.at())),
    };
    let runs = container.goal > Goal::Mounted;
    match run.get("type") {
        Some(kind) if kind.string().is_ok_and(|kind| kind.is("lxc")) => {}
        None if !runs => {}
        other => {
            let at = other.map_or(run.at(), |value| value.at());
            return Err(Wrong { at }.refuse(Code::RunTypeUnknown, key));
        }
    }
    if content.config()?.is_none() && runs {
        return Err(content.invalid(run.at()));
    }
    content.volumes().try_for_each(|file| file.map(drop))?;
    content.storage().try_for_each(|place| place.map(drop))?;
    refuse_pool(content)?;
    refuse_confinement(content)
}

/// A container must not run with less confinement than it was written for.
fn refuse_confinement(content: &Content<'_>) -> Result<(), Refusal> {
    match content.run.get("switchback.confinement") {
        Some(profile) if !profile.string().is_ok_and(|profile| profile.is("lxc")) => {
            Err(Wrong { at: profile.at() }.refuse(Code::ConfinementUnknown, content.key.as_str()))
        }
        _ => Ok(()),
    }
}

/// A container that asks for a network of its own must not silently get the device's.
fn refuse_pool(content: &Content<'_>) -> Result<(), Refusal> {
    let Some(value) = content.run.get("network") else { return Ok(()) };
    let network = object(value, Code::RunInvalid, content.key.as_str())?;
    let host = network.get("mode").is_none_or(|mode| mode.string().is_ok_and(|mode| mode.is("host")));
    if host && network.get("pool").is_none() { Ok(()) } else { Err(content.invalid(value.at())) }
}

/// Digest of what a container owns: its folder and its folder below `_config`.
fn digest_of(state: &State<'_>, name: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    let config = join("_config", name).unwrap_or(Key::EMPTY);
    for span in state.below(config.as_str()).iter().chain(state.below(name)) {
        add(&mut hash, state, span);
    }
    hash.finalize().into()
}

/// Adds a compared entry to a digest: key and raw value, each with its length.
fn add(hash: &mut Sha256, state: &State<'_>, span: &Span) {
    let key = span_key(state.text, span);
    if is_compared(key) {
        hash.update(u32::from(span.key_len).to_le_bytes());
        hash.update(key);
        hash.update(span.value_len.to_le_bytes());
        hash.update(state.raw(span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef";
    const SHB: &str = "11ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef00ff12ab34cd56ef";

    /// A state with a base, and `more` members; `@` stands for an object's name.
    fn state(more: &str) -> String {
        let base = r##"{"#spec":"pantavisor-service-system@1","bsp/run.json":{"linux":"kernel.img","initrd":"pv"},
            "bsp/kernel.img":"@","bsp/pv":"@""##;
        let comma = if more.is_empty() { "" } else { "," };
        format!("{base}{comma}{more}}}").replace('@', SHA).replace(&format!("system{SHA}1"), "system@1")
    }

    /// Members of a container; `more` goes into its `run.json`.
    fn container(name: &str, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { "," };
        format!(
            r##""{name}/run.json":{{"#spec":"x","name":"{name}","type":"lxc","config":"lxc.container.conf","root-volume":"root.squashfs"{comma}{more}}},
            "{name}/lxc.container.conf":"@","{name}/root.squashfs":"@""##
        )
    }

    const GROUPS: &str = r#""groups.json":[{"name":"base","restart_policy":"system"},
        {"name":"apps","status_goal":"READY","timeout":7,"auto_recovery":{"policy":"always","max_retries":3,"backoff_factor":1.5,"backoff_policy":"5min"}}]"#;

    fn plan(text: &str) -> Result<Plan, Refusal> {
        let mut plan = Plan::empty(RevName::factory());
        let mut spans = Spans::new();
        let rev = RevName::parse("locals/x").unwrap();
        let done = Plan::parse(text.as_bytes(), rev, &Defaults::default(), &mut plan, &mut spans).map(|_| ());
        assert_eq!(plan.rev, rev);
        if done.is_err() {
            assert_eq!(plan, Plan::empty(rev), "a refused revision leaves nothing behind");
        }
        done.map(|()| plan)
    }

    #[track_caller]
    fn refused(text: &str, code: Code, key: &str, at: &str) {
        let refusal = plan(text).unwrap_err();
        assert_eq!((refusal.code, refusal.key.as_str()), (code, key), "{refusal}");
        let there = text.get(refusal.at as usize..).unwrap_or("").replace(SHA, "@");
        assert!(there.starts_with(&at.replace(SHA, "@")), "at {}: {:?}", refusal.at, &there[..there.len().min(40)]);
    }

    #[test]
    fn containers_take_what_they_leave_open_from_their_group() {
        let own = r#""group":"base","status_goal":"MOUNTED","restart_policy":"container","roles":["nobody"],
            "auto_recovery":{"policy":"no"},"unknown":{"x":[1]}"#;
        let text = state(&[GROUPS, &container("web", ""), &container("a.b-c", own)].join(","));
        let plan = plan(&text).unwrap();
        let names: std::vec::Vec<_> = plan.containers.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["web", "a.b-c"], "document order");
        let [web, abc] = &plan.containers[..] else { panic!() };
        assert_eq!(
            (web.group, web.goal, web.restart, web.management),
            (1, Goal::Ready, RestartPolicy::Container, true)
        );
        assert_eq!(web.recovery.policy, RecoveryPolicy::Always);
        assert_eq!((web.recovery.max_retries, web.recovery.backoff_factor_milli), (3, 1500));
        assert_eq!(web.recovery.backoff, Backoff::After(300));
        assert_eq!(
            (abc.group, abc.goal, abc.restart, abc.management),
            (0, Goal::Mounted, RestartPolicy::Container, false)
        );
        assert_eq!(abc.recovery, Recovery::NONE, "an explicit no is a policy of its own");
        assert_eq!((plan.groups[0].timeout_s, plan.groups[1].timeout_s), (limits::GOALS_TIMEOUT_S, 7));
        assert_eq!(plan.group_of(web).unwrap().name.as_str(), "apps");
        assert_eq!(plan.container("web"), Some(web));
    }

    #[test]
    fn without_groups_the_originals_runlevels_hold() {
        let groups = |text: &str| {
            let plan = plan(&state(text)).unwrap();
            plan.containers.iter().map(|c| plan.group_of(c).unwrap().name.to_string()).collect::<std::vec::Vec<_>>()
        };
        let three = [container("x", ""), container("a", ""), container("m", r#""runlevel":"app""#)].join(",");
        assert_eq!(groups(&three), ["root", "platform", "app"]);
        let rooted =
            [container("x", ""), container("a", r#""runlevel":"root""#), container("m", r#""group":"data""#)].join(",");
        assert_eq!(groups(&rooted), ["platform", "root", "data"]);
        let app = plan(&state(&container("m", r#""runlevel":"app""#))).unwrap().containers[0];
        assert_eq!((app.recovery.stable_timeout_s, app.restart), (30, RestartPolicy::Container));
        assert_eq!(groups(""), [""; 0]);
    }

    #[test]
    fn device_json_wins_and_missing_groups_in_it_drop_nothing() {
        let device = r#""device.json":{"disks":[],"groups":[{"name":"only"}]}"#;
        let both = plan(&state(&[GROUPS, device, &container("a", "")].join(","))).unwrap();
        assert_eq!(both.groups.iter().map(|g| g.name.to_string()).collect::<std::vec::Vec<_>>(), ["only"]);
        let without = plan(&state(&[GROUPS, r#""device.json":{"disks":[]}"#, &container("a", "")].join(","))).unwrap();
        assert_eq!(without.groups.len(), 2);
    }

    #[test]
    fn keys_are_found_whole_and_at_their_own_level() {
        // the original takes `group2` for `group`, and a nested #spec for the envelope's
        let text = state(
            &[GROUPS, &container("a", r##""group2":"nowhere","nested":{"#spec":"evil","group":"base"}"##)].join(","),
        );
        assert_eq!(plan(&text).unwrap().containers[0].group, 1);
        refused(r##"{"a.json":{"#spec":"pantavisor-service-system@1"}}"##, Code::SpecUnknown, "#spec", "{");
    }

    #[test]
    fn digests_change_with_what_they_own_and_with_nothing_else() {
        let more = r#""web/src.json":{"v":1},"web/build.json":{},"_sigs/web.json":{},"_config/web/etc/x":"@","_config/none/x":"@","README.md":"@""#;
        let text = state(&[GROUPS, &container("web", ""), &container("other", ""), more].join(","));
        let old = plan(&text).unwrap();
        let changes = |change: (&str, &str)| {
            assert!(text.contains(&change.0.replace('@', SHA)), "{change:?}");
            let new = plan(&text.replacen(&change.0.replace('@', SHA), &change.1.replace('@', SHB), 1)).unwrap();
            (
                new.base != old.base,
                new.containers[0].digest != old.containers[0].digest,
                new.containers[1].digest != old.containers[1].digest,
            )
        };
        assert_eq!(changes((r#""web/src.json":{"v":1}"#, r#""web/src.json":{"v":2}"#)), (false, false, false));
        assert_eq!(changes((r#""web/build.json":{}"#, r#""web/build.json":[]"#)), (false, false, false));
        assert_eq!(changes((r#""_sigs/web.json":{}"#, r#""_sigs/web.json":{"a":1}"#)), (false, false, false));
        assert_eq!(changes((r#""web/root.squashfs":"@""#, r#""web/root.squashfs":"@""#)), (false, true, false));
        assert_eq!(changes((r#""_config/web/etc/x":"@""#, r#""_config/web/etc/x":"@""#)), (false, true, false));
        assert_eq!(changes((r#""_config/web/etc/x":"@""#, r#""_config/web/etc/y":"@""#)), (false, true, false));
        assert_eq!(changes((r#""_config/none/x":"@""#, r#""_config/none/x":"@""#)), (true, false, false));
        assert_eq!(changes((r#""README.md":"@""#, r#""README.md":"@""#)), (true, false, false));
        assert_eq!(changes((r#""bsp/pv":"@""#, r#""bsp/pv":"@""#)), (true, false, false));
        assert_eq!(changes((r#""timeout":7"#, r#""timeout":8"#)), (true, false, false));
        assert_eq!(changes((r#"{"#, r#" {"#)), (false, false, false));
        // raw text counts: a space inside a container's document is a change of that container
        assert_eq!(
            changes((r##"{"#spec":"x","name":"web""##, r##"{ "#spec":"x","name":"web""##)),
            (false, true, false)
        );
        // the order of the document does not
        let swapped = plan(&state(&[more, &container("other", ""), GROUPS, &container("web", "")].join(","))).unwrap();
        assert_eq!((swapped.base, swapped.containers[1].digest), (old.base, old.containers[0].digest));
    }

    #[test]
    fn a_container_that_is_gone_or_renamed_moves_its_files_to_the_base() {
        let with = plan(&state(&[GROUPS, &container("web", "")].join(","))).unwrap();
        let without =
            plan(&state(&[GROUPS, r#""web/root.squashfs":"@","web/lxc.container.conf":"@""#].join(","))).unwrap();
        assert_ne!(with.base, without.base);
    }

    #[test]
    fn entries_are_sorted_and_typed() {
        let text = state(&[r#""z.json": [1, 2] "#, r#""a":"@""#, r#""b.json":"@""#].join(","));
        let mut spans = Spans::new();
        let state = State::read(text.as_bytes(), &mut spans).unwrap();
        let entries: std::vec::Vec<_> = state.entries().map(|e| (e.key, e.value)).collect();
        let object = Value::Object(ObjectId::parse(SHA).unwrap());
        let expected = [
            ("a", object),
            ("b.json", object),
            ("bsp/kernel.img", object),
            ("bsp/pv", object),
            ("bsp/run.json", Value::Inline(br#"{"linux":"kernel.img","initrd":"pv"}"#)),
            ("z.json", Value::Inline(b"[1, 2]")),
        ];
        assert_eq!(entries, expected);
        assert_eq!(state.get("z.json").unwrap().value, Value::Inline(b"[1, 2]"));
        assert_eq!(state.get("z.jso"), None);
        let id = ObjectId::parse(SHA).unwrap();
        assert_eq!(state.boot_assets().unwrap(), BootAssets { linux: id, initrd: id, fdt: None });
    }

    #[test]
    fn content_of_the_originals_template() {
        let run = include_str!("../vectors/template/web/run.json");
        let text = state(&format!(r#""web/run.json":{run},"web/lxc.container.conf":"@","web/root.squashfs":"@""#));
        let mounted = include_str!("../vectors/template/m1/run.json");
        let text = text.trim_end_matches('}').to_string()
            + &format!(r#","m1/run.json":{mounted},"m1/root.squashfs":"{SHA}"}}"#);
        plan(&text).unwrap();
        let mut spans = Spans::new();
        let state = State::read(text.as_bytes(), &mut spans).unwrap();
        let web = state.container(PartName::parse("web").unwrap()).unwrap();
        let config = web.config().unwrap().unwrap();
        assert_eq!((config.path.as_str(), config.key.as_str()), ("lxc.container.conf", "web/lxc.container.conf"));
        let volumes: std::vec::Vec<_> = web.volumes().map(|v| v.unwrap().path.to_string()).collect();
        assert_eq!(volumes, ["root.squashfs"]);
        let storage: std::vec::Vec<_> =
            web.storage().map(|s| s.unwrap()).map(|s| (s.name.to_string(), s.persistence, s.on_disk)).collect();
        let expected = [
            ("docker--cache".to_string(), Persistence::Boot, false),
            ("docker--etc-x".to_string(), Persistence::Permanent, true),
            ("docker--var-lib-data".to_string(), Persistence::Permanent, false),
            ("lxc-overlay".to_string(), Persistence::Permanent, false),
        ];
        assert_eq!(storage, expected);
        assert_eq!(state.container(PartName::parse("nope").unwrap()).unwrap_err().code, Code::ContainerUnknown);
    }

    #[test]
    fn volumes_and_storage() {
        let more = r#""volumes":["dm:x.squashfs","cfg.data"],"storage":{"a/b":{"persistence":"revision"},"none":{},"odd":{"persistence":"?"}}"#;
        let text = state(&[&container("web", more), r#""web/x.squashfs":"@""#].join(","));
        plan(&text).unwrap();
        let mut spans = Spans::new();
        let state = State::read(text.as_bytes(), &mut spans).unwrap();
        let web = state.container(PartName::parse("web").unwrap()).unwrap();
        let volumes: std::vec::Vec<_> =
            web.volumes().map(|v| v.unwrap()).map(|v| (v.path.to_string(), v.verity, v.object.is_some())).collect();
        assert_eq!(
            volumes,
            [
                ("root.squashfs".into(), false, true),
                ("x.squashfs".into(), true, true),
                ("cfg.data".into(), false, false)
            ]
        );
        let storage: std::vec::Vec<_> =
            web.storage().map(|s| s.unwrap()).map(|s| (s.name.to_string(), s.persistence)).collect();
        assert_eq!(storage, [("a/b".into(), Persistence::Revision), ("odd".into(), Persistence::Boot)]);
    }

    #[test]
    fn refuses_texts_that_are_no_state() {
        refused("", Code::StateTruncated, "", "");
        refused("[1]", Code::StateSyntax, "", "[");
        refused(r##"{"#spec":"x"}"##, Code::SpecUnknown, "#spec", "\"x\"");
        refused("{}", Code::SpecUnknown, "#spec", "{}");
        refused(&" ".repeat(STATE_MAX + 1), Code::StateTooLarge, "", " ");
        let nested = |levels: usize| format!(r#""x.json":{}{}"#, "[".repeat(levels), "]".repeat(levels));
        let most = limits::JSON_DEPTH_MAX as usize - 1; // the state itself is one
        plan(&state(&nested(most))).unwrap();
        refused(&state(&nested(most + 1)), Code::StateTooDeep, "", "[]");
        let mut bytes = state(r#""x":"@""#).into_bytes();
        let last = bytes.len() - 4;
        bytes[last] = 0xff;
        let found = State::read(&bytes, &mut Spans::new()).map(|_| ());
        assert_eq!(found, Err(Refusal::at(Code::StateUtf8, last)));
        let whole = state(&container("web", ""));
        for cut in 1..whole.len() {
            assert_eq!(plan(&whole[..cut]).unwrap_err().code, Code::StateTruncated);
        }
        refused(&state(r#""a":"@","a":"@""#), Code::StateDuplicateKey, "a", r#""a":"@"}"#);
        let many: String = (0..STATE_ENTRIES_MAX).map(|n| format!(r#""{n}.json":1,"#)).collect();
        refused(&state(many.trim_end_matches(',')), Code::StateTooManyKeys, "", r#""1020.json""#);
        let full: String = (0..STATE_ENTRIES_MAX - 4).map(|n| format!(r#""{n}.json":1,"#)).collect();
        plan(&state(full.trim_end_matches(','))).unwrap();
    }

    #[test]
    fn refuses_keys_that_leave_their_place() {
        for key in [
            "/a",
            "a//b",
            "a/",
            "",
            "..",
            "a/../b",
            "a/..",
            "./a",
            "a/.",
            ".pv/progress",
            ".pvr/json",
            ".pvr",
            "a\u{7f}b",
        ] {
            refused(&state(&format!(r#""{key}":"@""#)), Code::KeyUnsafe, key, &format!(r#""{key}":"#));
        }
        for key in [r"a\/b", r"\u0061", r"a\\b", r"a\nb"] {
            refused(&state(&format!(r#""{key}":"@""#)), Code::KeyUnsafe, key, &format!(r#""{key}":"#));
        }
        let long = "k".repeat(KEY_MAX);
        plan(&state(&format!(r#""{long}":"@""#))).unwrap();
        refused(&state(&format!(r#""{long}k":"@""#)), Code::KeyTooLong, &long, "\"kk");
        // a file that is also a folder
        refused(&state(r#""x/y":"@","x-":"@","x":"@""#), Code::KeyUnsafe, "x/y", r#""x/y""#);
        for good in ["a b", "é", "a..b", "...", "-", "#x", "_hostconfig/pvr", "a/.pv"] {
            plan(&state(&format!(r#""{good}":"@""#))).unwrap();
        }
    }

    #[test]
    fn refuses_values_that_are_neither_object_nor_document() {
        for value in [
            r#""""#,
            r#""xyz""#,
            "1",
            "{}",
            "null",
            "true",
            &format!(r#""{}""#, SHA.to_uppercase()),
            &format!(r#""{SHA}0""#),
        ] {
            refused(&state(&format!(r#""a":{value}"#)), Code::ValueInvalid, "a", value);
        }
        for value in [r#""xyz""#, "null"] {
            refused(&state(&format!(r#""a.json":{value}"#)), Code::ValueInvalid, "a.json", value);
        }
        for value in ["1", "[]", "{}", "true", "\"@\""] {
            plan(&state(&format!(r#""a.json":{value}"#))).unwrap();
        }
    }

    #[test]
    fn refuses_a_base_that_cannot_boot() {
        let spec = r##"{"#spec":"pantavisor-service-system@1""##;
        let of = |more: &str| format!("{spec}{more}}}").replace('@', SHA).replace(&format!("system{SHA}1"), "system@1");
        refused(&of(""), Code::BspMissing, "bsp/run.json", "{");
        refused(&of(r#","bsp/run.json":{"fit":"x"},"bsp/x":"@""#), Code::BspMissing, "bsp/run.json", "{\"fit");
        refused(&of(r#","bsp/run.json":{"linux":"k","initrd":"i"},"bsp/k":"@""#), Code::BspMissing, "bsp/i", "\"i\"");
        refused(
            &of(r#","bsp/run.json":{"linux":"k","initrd":"k","fdt":"d"},"bsp/k":"@""#),
            Code::BspMissing,
            "bsp/d",
            "\"d\"",
        );
        refused(
            &of(r#","bsp/run.json":{"linux":"../k","initrd":"k"},"bsp/k":"@""#),
            Code::BspInvalid,
            "bsp/run.json",
            "\"../k\"",
        );
        refused(&of(r#","bsp/run.json":{"linux":1,"initrd":"k"},"bsp/k":"@""#), Code::BspInvalid, "bsp/run.json", "1");
        refused(&of(r#","bsp/run.json":"@""#), Code::BspInvalid, "bsp/run.json", "\"@\"");
        refused(&of(r#","bsp/run.json":[]"#), Code::BspInvalid, "bsp/run.json", "[]");
        refused(
            &of(r#","bsp/run.json":{"linux":"k","linux":"k"}"#),
            Code::StateDuplicateKey,
            "bsp/run.json",
            "\"linux\":\"k\"}",
        );
    }

    #[test]
    fn refuses_groups() {
        for (groups, code, key, at) in [
            ("{}", Code::GroupInvalid, "groups.json", "{}"),
            ("[1]", Code::GroupInvalid, "groups.json", "1]"),
            ("[{}]", Code::GroupInvalid, "groups.json", "{}"),
            (r#"[{"name":"a b"}]"#, Code::GroupInvalid, "groups.json", "{\"name"),
            (r#"[{"name":1}]"#, Code::GroupInvalid, "groups.json", "1"),
            (r#"[{"name":"a","status_goal":"UP"}]"#, Code::GroupInvalid, "groups.json", "\"UP\""),
            (r#"[{"name":"a","restart_policy":1}]"#, Code::GroupInvalid, "groups.json", "1"),
            (r#"[{"name":"a","timeout":"9"}]"#, Code::GroupInvalid, "groups.json", "\"9\""),
            (r#"[{"name":"a","auto_recovery":[]}]"#, Code::GroupInvalid, "groups.json", "[]"),
            (r#"[{"name":"a","auto_recovery":{"policy":"maybe"}}]"#, Code::GroupInvalid, "groups.json", "\"maybe\""),
            (r#"[{"name":"a","name":"b"}]"#, Code::StateDuplicateKey, "groups.json", "\"name\":\"b\""),
            (r#"[{"name":"a"},{"name":"a"}]"#, Code::GroupDuplicate, "a", "{\"name\":\"a\"}]"),
            ("[]", Code::GroupUnknown, "web", "{"),
        ] {
            refused(
                &state(&[&format!(r#""groups.json":{groups}"#), &container("web", "")[..]].join(",")),
                code,
                key,
                at,
            );
        }
        let many: String = (0..=GROUPS_MAX).map(|n| format!(r#"{{"name":"g{n}"}},"#)).collect();
        let many = format!(r#""groups.json":[{}]"#, many.trim_end_matches(','));
        refused(&state(&many), Code::TooManyGroups, "groups.json", r#"{"name":"g16"}"#);
        refused(&state(r#""groups.json":"@""#), Code::GroupInvalid, "groups.json", "\"@\"");
    }

    #[test]
    fn refuses_containers() {
        for (more, code, key, at) in [
            (r#""group":"nope""#, Code::GroupUnknown, "web", "\"nope\""),
            (r#""runlevel":"platform""#, Code::GroupUnknown, "web", "\"platform\""),
            (r#""group":1"#, Code::RunInvalid, "web/run.json", "1"),
            (r#""name":"x""#, Code::StateDuplicateKey, "web/run.json", "\"name\":\"x\""),
            (r#""status_goal":"STOPPED""#, Code::RunInvalid, "web/run.json", "\"STOPPED\""),
            (r#""restart_policy":"never""#, Code::RunInvalid, "web/run.json", "\"never\""),
            (r#""roles":"mgmt""#, Code::RunInvalid, "web/run.json", "\"mgmt\""),
            (r#""auto_recovery":{"policy":"always","max_retries":-1}"#, Code::RunInvalid, "web/run.json", "-1"),
            (r#""auto_recovery":{"policy":"always","backoff_factor":"2"}"#, Code::RunInvalid, "web/run.json", "\"2\""),
            (r#""volumes":"x""#, Code::RunInvalid, "web/run.json", "\"x\""),
            (r#""volumes":["x.squashfs"]"#, Code::FileMissing, "web/x.squashfs", "\"x.squashfs\""),
            (r#""volumes":["../other/root.squashfs"]"#, Code::RunInvalid, "web/run.json", "\"../other"),
            (r#""volumes":["crypt:root.squashfs"]"#, Code::RunInvalid, "web/run.json", "\"crypt:"),
            (r#""storage":[]"#, Code::RunInvalid, "web/run.json", "[]"),
            (r#""storage":{"../x":{"persistence":"boot"}}"#, Code::RunInvalid, "web/run.json", "\"../x\""),
            (r#""storage":{"x":{"persistence":1}}"#, Code::RunInvalid, "web/run.json", "1"),
            (r#""network":{"pool":"internal"}"#, Code::RunInvalid, "web/run.json", "{\"pool"),
            (r#""switchback.confinement":"app""#, Code::ConfinementUnknown, "web/run.json", "\"app\""),
            (r#""switchback.confinement":7"#, Code::ConfinementUnknown, "web/run.json", "7"),
        ] {
            refused(&state(&[GROUPS, &container("web", more)].join(",")), code, key, at);
        }
        let of = |run: &str| state(&[GROUPS, &format!(r#""web/run.json":{run}"#), r#""web/c":"@""#].join(","));
        refused(&of("{}"), Code::RunInvalid, "web/run.json", "{}");
        refused(&of("[]"), Code::RunInvalid, "web/run.json", "[]");
        refused(&of("\"@\""), Code::RunInvalid, "web/run.json", "\"@\"");
        refused(&of(r#"{"name":"other"}"#), Code::RunNameMismatch, "web/run.json", "\"other\"");
        refused(&of(r#"{"name":"web"}"#), Code::RunTypeUnknown, "web/run.json", "{");
        refused(&of(r#"{"name":"web","type":"wasm"}"#), Code::RunTypeUnknown, "web/run.json", "\"wasm\"");
        refused(&of(r#"{"name":"web","type":"lxc"}"#), Code::RunInvalid, "web/run.json", "{");
        refused(&of(r#"{"name":"web","type":"lxc","config":"d"}"#), Code::FileMissing, "web/d", "\"d\"");
        refused(
            &of(&format!(r#"{{"name":"web","x":"{}"}}"#, "x".repeat(RUN_JSON_MAX))),
            Code::RunInvalid,
            "web/run.json",
            "{",
        );
        plan(&of(r#"{"name":"web","status_goal":"MOUNTED"}"#)).unwrap();
        refused(&state(r#""a b/run.json":{"name":"a b"}"#), Code::RunInvalid, "a b/run.json", "\"a b\"");
        plan(&state(r#""_x/run.json":{},"a/b/run.json":{},"_sigs/run.json":{}"#)).unwrap();
        let many: String = (0..=CONTAINERS_MAX).map(|n| format!(r#""c{n}/run.json":{{"name":"c{n}"}},"#)).collect();
        assert_eq!(plan(&state(many.trim_end_matches(','))).unwrap_err().code, Code::TooManyContainers);
    }

    #[test]
    fn changing_any_byte_is_accepted_or_refused_and_never_panics() {
        let text =
            state(&[GROUPS, &container("web", r#""storage":{"s":{"persistence":"boot"}}"#)].join(",")).into_bytes();
        let mut plan = Plan::empty(RevName::factory());
        let mut spans = Spans::new();
        for at in 0..text.len() {
            for byte in [0, b'"', b'\\', b'/', b'.', b'{', b'}', b'[', b',', b'0', b'z', 0xff] {
                let mut copy = text.clone();
                copy[at] = byte;
                if let Err(refusal) =
                    Plan::parse(&copy, RevName::factory(), &Defaults::default(), &mut plan, &mut spans)
                {
                    assert!(refusal.at as usize <= copy.len());
                }
            }
        }
    }

    #[test]
    fn words_of_policies() {
        for (word, backoff) in [
            ("reboot", Backoff::Reboot),
            ("never", Backoff::Never),
            ("5", Backoff::After(5)),
            ("5s", Backoff::After(5)),
            ("2min", Backoff::After(120)),
            ("3h", Backoff::After(10800)),
            ("", Backoff::Reboot),
            ("x", Backoff::Reboot),
            ("5d", Backoff::Reboot),
            ("4294967295h", Backoff::Reboot),
            ("99999999999", Backoff::Reboot),
        ] {
            assert_eq!(Backoff::from_word(word), backoff, "{word}");
        }
        for goal in [Goal::Mounted, Goal::Started, Goal::Ready] {
            assert_eq!(Goal::from_word(goal.word()), Some(goal));
        }
        assert!(Goal::Mounted < Goal::Started && Goal::Started < Goal::Ready);
        assert_eq!(size_of::<Span>(), 16);
        assert!(size_of::<Plan>() < 16 * 1024);
    }
}
