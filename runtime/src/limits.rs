//! Every bound of the device, with its reason, and the relations between them.
//!
//! A bound that is met is a refusal with a code (`fault`), never a cut-off or a crash. `pvcontrol limits`
//! prints `TABLE`; `pvr` checks the same numbers before it posts.

/// State JSON, bytes. Holds about 1,000 entries of a path and a sha256 (100 B each).
pub const STATE_MAX: usize = 128 * 1024;
/// Keys of a state JSON. Four bytes of key, a sha256 and punctuation make at least 75 B an entry.
pub const STATE_ENTRIES_MAX: usize = 1024;
/// Bytes of one key of a state JSON: a path below the revision.
pub const KEY_MAX: usize = 240;
/// Nesting of any JSON that we read. The tokenizer keeps one bit per level in a u32.
pub const JSON_DEPTH_MAX: u32 = 32;
/// Members of an object that we interpret. Checking them for duplicates is quadratic; this keeps it below a millisecond.
pub const JSON_MEMBERS_MAX: usize = 128;
/// A `run.json` of a container, bytes.
pub const RUN_JSON_MAX: usize = 8 * 1024;
/// Containers of one revision.
pub const CONTAINERS_MAX: usize = 64;
/// Groups of one revision.
pub const GROUPS_MAX: usize = 16;
/// An `lxc.container.conf`, bytes.
pub const LXC_CONF_MAX: usize = 16 * 1024;
/// Words of a container's init command.
pub const INIT_ARGS_MAX: usize = 64;
/// `locals/` and a name.
pub const REV_NAME_MAX: usize = 7 + LOCAL_NAME_MAX;
/// The part of a local revision's name after `locals/`. Reference: device-formats 2.2.
pub const LOCAL_NAME_MAX: usize = 64;
/// Name of a container or group; also a host name and a cgroup, both of which allow 63 or more.
pub const PART_NAME_MAX: usize = 63;
/// Control connections served at the same time; further clients wait in the sockets' backlog.
pub const CONNECTIONS_MAX: usize = 12;
/// Of those, how many one container may hold: a client for `ready`, one more, and one that it forgot.
pub const CONTAINER_CONNECTIONS_MAX: usize = 3;
/// Of those, how many containers leave free, whatever they do: for `pvcontrol`, the endpoint and the console.
pub const HOST_CONNECTIONS_MIN: usize = 4;
/// Head of a control request: request line and headers.
pub const HTTP_HEAD_MAX: usize = 2048;
/// Headers of a control request.
pub const HTTP_HEADERS_MAX: usize = 32;
/// Body of a control request that PID 1 reads itself (commands, signals). Longer ones are streamed by an errand.
pub const HTTP_BODY_MAX: usize = 4096;
/// Body of `PUT /containers/<name>`. Reference: device-formats 6.2.
pub const ACTION_BODY_MAX: usize = 1024;
/// Answer that PID 1 renders itself: 64 containers of about 400 B.
pub const HTTP_ANSWER_MAX: usize = 32 * 1024;
/// A client that has not sent its whole request, or not read its answer, after this long is dropped. Milliseconds.
pub const CONNECTION_PATIENCE_MS: u64 = 10_000;
/// An upload or download that makes no progress for this long is dropped. Milliseconds.
pub const TRANSFER_PATIENCE_MS: u64 = 60_000;
/// Uploads and downloads at the same time, each a short-lived `fetch` process of about 200 KB.
pub const TRANSFERS_MAX: usize = 4;
/// What is kept for the endpoint: a key, its certificate and all tokens. One message between errands.
pub const ENDPOINT_MEMORY_MAX: usize = 2048;
/// The original's `uboot.txt`, bytes: what it writes is padded to this.
pub const LOADER_TEXT_MAX: usize = 64 * 1024;
/// A record of metadata, bytes: the largest value that the original takes, seven times. Two of them are buffers of one request.
pub const METADATA_MAX: usize = 32 * 1024;
/// A value of metadata. Reference: device-formats 6.2.
pub const METADATA_VALUE_MAX: usize = 4096;
/// A key of metadata.
pub const METADATA_KEY_MAX: usize = 128;
/// Tokens that the endpoint gives: the people and machines of one device.
pub const TOKENS_MAX: usize = 16;
/// Bytes that a client of the endpoint must move for each second in which it is the one waited for.
pub const CLIENT_RATE_MIN: u32 = 1024;
/// Time in which a pairing code can be used: to walk from the console to the desk. Seconds.
pub const PAIRING_VALID_S: u64 = 300;
/// Attempts at one pairing code. Five of 2^40: a guess succeeds once in 200 thousand million.
pub const PAIRING_TRIES_MAX: u8 = 5;
/// Exports from USB sticks that are remembered as tried; a further one takes the place of the one tried longest ago.
pub const STICKS_REMEMBERED_MAX: usize = 48;
/// How often an export from a USB stick is run when nothing final came of it: power cuts in the middle.
pub const STICK_RUNS_MAX: u8 = 3;
/// How often an export from a USB stick is installed when the device goes down, or its errand dies, while it is.
pub const STICK_INSTALLS_MAX: u8 = 5;
/// Commit message of a revision, bytes. Reference: device-formats 6.2.
pub const COMMIT_MESSAGE_MAX: usize = 256;
/// Bytes of an exported revision, unpacked: more than the storage of any board holds, and little enough that what
/// unpacks to more is found out in minutes.
pub const ARCHIVE_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Value of one variable of the loader's environment that we write.
pub const ENV_VALUE_MAX: usize = 96;
/// Size of the loader's environment that we can hold. The original boards use 0x4000; 64 KiB is the largest in-tree default.
pub const ENV_SIZE_MAX: usize = 64 * 1024;
/// Boots of one candidate, by our own count, whatever the loader counts. One more than the loader's default
/// `bootlimit`, so that the loader's own limit is met first where it works.
pub const TRIES_MAX: u8 = 4;
/// Default goal time-out of a group, seconds. Reference: device-formats 1.5.
pub const GOALS_TIMEOUT_S: u32 = 120;
/// Default time between meeting all goals and the commit, seconds. Reference: device-formats 3.5.
pub const COMMIT_DELAY_S: u32 = 25;
/// Time that a container has to end by itself after it was asked to stop. Milliseconds. Reference: device-formats 4.4.
pub const STOP_PATIENCE_MS: u64 = 5_000;
/// Time that all containers which an update replaces have to be gone, however often they must be killed. Milliseconds.
pub const SWITCH_PATIENCE_MS: u64 = 60_000;
/// Time that all containers have to end before the device goes down without them: asked, killed, and killed again. Milliseconds.
pub const LEAVE_PATIENCE_MS: u64 = 2 * STOP_PATIENCE_MS + 2_000;
/// Rounds in which the parts of the machine settle after one event. The longest chain is a failed switch: fall,
/// failure, way back, and the stops that follow.
pub const SETTLING_MAX: usize = 16;
/// Shortest time before a container that fell is started again: a container that ends at once must not take the
/// processor from those that work. Milliseconds.
pub const RETRY_DELAY_MIN_MS: u64 = 1_000;
/// Longest time before a container that fell is started again, whatever its back-off factor. Milliseconds.
pub const RETRY_DELAY_MAX_MS: u64 = 3_600_000;
/// How often a trial may lose goals that it had met: a container that falls and is started again for ever must not
/// keep the trial open for ever.
pub const RELAPSES_MAX: u8 = 5;
/// Restarts in a row that a fallen container of the committed revision may force; after that the device stays up
/// without it.
pub const FALLS_MAX: u8 = 3;
/// Attempts at one store of the environment, or at the record of a commit.
pub const STORE_TRIES_MAX: u8 = 3;
/// `Retry-After` of what an update in progress refuses. Seconds. Reference: device-formats 6.4.
pub const RETRY_AFTER_UPDATE_S: u16 = 600;
/// `Retry-After` of what a busy device refuses. Seconds.
pub const RETRY_AFTER_BUSY_S: u16 = 5;
/// Time that the `start` errand has from clone to exec of the container's init, image mounts included. Milliseconds.
pub const START_PATIENCE_MS: u64 = 30_000;
/// Bytes of memory that containers together leave to us, of what the kernel has before the first of them is started:
/// the private memory of all errands (0.7 MB) and of four transfers (0.4 MB), and their stacks and tables in the kernel.
/// Not more: the cache of what containers read counts as theirs, and with too little of it they only wait for the disk.
pub const MEMORY_RESERVE: u64 = 2 * 1024 * 1024;
/// Bytes of memory that the kernel needs for a container and does not count as the container's: the caches of its
/// mounted image (4.5 blocks of 128 KiB), what unpacks it, its mounts and its loop device.
pub const MEMORY_BESIDE_CONTAINER: u64 = 768 * 1024;
/// Bytes of free storage that are kept for our own records, against uploads and containers.
pub const FREE_FLOOR: u64 = 4 * 1024 * 1024;
/// Bytes of the boot volume that are never given to boot assets: folders, the file system's own growth.
pub const BOOT_FLOOR: u64 = 256 * 1024;
/// Revisions that are kept at the same time: six that two copies of the environment can name, the running one, the
/// factory one, the one that `last` names.
pub const KEPT_MAX: usize = 9;
/// Log bytes kept of one container.
pub const LOG_FILE_MAX: u64 = 256 * 1024;
/// Actions that one event can ask for: two of each container and a note, one of each connection, and a few.
pub const ACTIONS_QUEUED_MAX: usize = 3 * CONTAINERS_MAX + CONNECTIONS_MAX + 16;
/// Actions of one turn, outcomes included: a container's images may all be found good at once, then all start.
pub const ACTIONS_PER_TURN_MAX: usize = 8 * ACTIONS_QUEUED_MAX;
/// Log bytes that a container may write per second in the long run: a day of it is a third of a GB of flash wear.
pub const LOG_RATE: u64 = 4 * 1024;

const _: () = assert!(STATE_ENTRIES_MAX * 75 <= STATE_MAX);
const _: () = assert!(CONTAINERS_MAX < u8::MAX as usize);
const _: () = assert!(CONNECTIONS_MAX < u8::MAX as usize);
const _: () = assert!(CONTAINER_CONNECTIONS_MAX + HOST_CONNECTIONS_MIN <= CONNECTIONS_MAX);
const _: () = assert!(REV_NAME_MAX < ENV_VALUE_MAX);
const _: () = assert!(JSON_DEPTH_MAX <= 32);
const _: () = assert!(TRANSFERS_MAX < CONNECTIONS_MAX, "somebody must still be answered while all transfers run");
const _: () = assert!(METADATA_KEY_MAX < u8::MAX as usize && METADATA_VALUE_MAX < u16::MAX as usize);
const _: () = assert!(METADATA_KEY_MAX + METADATA_VALUE_MAX < METADATA_MAX);
const _: () = assert!(RUN_JSON_MAX < STATE_MAX);
const _: () =
    assert!(STICKS_REMEMBERED_MAX * 34 + 2 <= ENDPOINT_MEMORY_MAX, "they are kept as one message between errands");

/// Every bound by name, for `pvcontrol limits` and the book: name, value, unit.
pub const TABLE: &[(&str, u64, &str)] = &[
    ("state", STATE_MAX as u64, "bytes"),
    ("state-entries", STATE_ENTRIES_MAX as u64, "keys"),
    ("key", KEY_MAX as u64, "bytes"),
    ("json-depth", JSON_DEPTH_MAX as u64, "levels"),
    ("json-members", JSON_MEMBERS_MAX as u64, "members"),
    ("run-json", RUN_JSON_MAX as u64, "bytes"),
    ("containers", CONTAINERS_MAX as u64, "containers"),
    ("groups", GROUPS_MAX as u64, "groups"),
    ("lxc-conf", LXC_CONF_MAX as u64, "bytes"),
    ("init-args", INIT_ARGS_MAX as u64, "words"),
    ("local-name", LOCAL_NAME_MAX as u64, "bytes"),
    ("part-name", PART_NAME_MAX as u64, "bytes"),
    ("connections", CONNECTIONS_MAX as u64, "connections"),
    ("container-connections", CONTAINER_CONNECTIONS_MAX as u64, "connections"),
    ("host-connections", HOST_CONNECTIONS_MIN as u64, "connections"),
    ("http-head", HTTP_HEAD_MAX as u64, "bytes"),
    ("http-body", HTTP_BODY_MAX as u64, "bytes"),
    ("connection-patience", CONNECTION_PATIENCE_MS, "ms"),
    ("transfers", TRANSFERS_MAX as u64, "transfers"),
    ("archive", ARCHIVE_MAX, "bytes"),
    ("metadata", METADATA_MAX as u64, "bytes"),
    ("metadata-value", METADATA_VALUE_MAX as u64, "bytes"),
    ("metadata-key", METADATA_KEY_MAX as u64, "bytes"),
    ("tokens", TOKENS_MAX as u64, "tokens"),
    ("client-rate", CLIENT_RATE_MIN as u64, "bytes/s"),
    ("pairing-valid", PAIRING_VALID_S, "s"),
    ("pairing-tries", PAIRING_TRIES_MAX as u64, "attempts"),
    ("sticks-remembered", STICKS_REMEMBERED_MAX as u64, "exports"),
    ("stick-runs", STICK_RUNS_MAX as u64, "runs"),
    ("stick-installs", STICK_INSTALLS_MAX as u64, "installations"),
    ("commit-message", COMMIT_MESSAGE_MAX as u64, "bytes"),
    ("tries", TRIES_MAX as u64, "boots"),
    ("falls", FALLS_MAX as u64, "boots"),
    ("memory-reserve", MEMORY_RESERVE, "bytes"),
    ("free-floor", FREE_FLOOR, "bytes"),
    ("log-file", LOG_FILE_MAX, "bytes"),
    ("log-rate", LOG_RATE, "bytes/s"),
];
