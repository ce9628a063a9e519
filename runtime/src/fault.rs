//! Stable codes: one for every fault that a person or a program can see.
//!
//! A number, once given, never changes its meaning and is never given again. `text` says what; the place
//! that reports it adds where (`at`, `key`) and what to do next. The book lists this table.

use crate::{id::Text, limits};
use core::fmt;

/// Defines `Code` with its fixed numbers and texts in one table.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal $http:literal;)*) => {
        /// A stable code. Printed as `SB1203`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u16)]
        pub enum Code { $(#[doc = $text] $name = $number,)* }

        impl Code {
            /// Every code, for the book and for decoding.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// What it means, one clause without a full stop.
            pub fn text(self) -> &'static str { match self { $(Code::$name => $text,)* } }

            /// The HTTP status with which the control socket reports it. Reference: device-formats 6.1, 6.2.
            pub fn http(self) -> u16 { match self { $(Code::$name => $http,)* } }

            /// The code with this number.
            pub fn from_number(number: u16) -> Option<Code> {
                Code::ALL.iter().copied().find(|code| *code as u16 == number)
            }
        }
    };
}

codes! {
    // 10xx: state JSON as text
    StateTooLarge = 1001 "state is larger than the device accepts" 422;
    StateSyntax = 1002 "state is not valid JSON" 422;
    StateTruncated = 1003 "state ends in the middle" 422;
    StateTooDeep = 1004 "state is nested too deeply" 422;
    StateDuplicateKey = 1005 "state has the same key twice" 422;
    StateTooManyKeys = 1006 "state has too many keys" 422;
    StateUtf8 = 1007 "state is not valid UTF-8" 422;
    // 11xx: what a state says
    SpecUnknown = 1101 "state has no #spec that this device knows" 422;
    KeyUnsafe = 1102 "a key is not a plain path inside the revision" 422;
    KeyTooLong = 1103 "a key is too long" 422;
    ValueInvalid = 1104 "a value is neither inline JSON nor an object's sha256" 422;
    GroupUnknown = 1105 "a container names a group that the revision does not define" 422;
    GroupInvalid = 1106 "groups.json is not valid" 422;
    GroupDuplicate = 1107 "a group is defined twice" 422;
    TooManyGroups = 1108 "the revision has too many groups" 422;
    TooManyContainers = 1109 "the revision has too many containers" 422;
    RunInvalid = 1110 "a container's run.json is not valid" 422;
    RunNameMismatch = 1111 "run.json names another container than its folder" 422;
    RunTypeUnknown = 1112 "a container's type is not lxc" 422;
    BspMissing = 1113 "the revision has no kernel or no initrd in bsp/run.json" 422;
    BspInvalid = 1114 "bsp/run.json is not valid" 422;
    FileMissing = 1115 "the revision names a file that it does not contain" 422;
    LxcInvalid = 1116 "lxc.container.conf has a line that cannot be read" 422;
    LxcKeyUnknown = 1117 "lxc.container.conf has a key that this device does not implement" 422;
    LxcTooLarge = 1118 "lxc.container.conf is too large" 422;
    ConfinementUnknown = 1119 "a container asks for a confinement that this device cannot give" 422;
    // 12xx: objects and storage
    ObjectMissing = 1201 "an object of the revision is not on the device" 422;
    ObjectMismatch = 1202 "an object's content does not have the hash that it is named by" 422;
    ObjectName = 1203 "an object is named by 64 lower-case hex digits" 400;
    NoSpace = 1204 "storage is full" 507;
    StorageIo = 1205 "storage reported an error" 500;
    RevisionName = 1206 "not a valid revision name" 400;
    RevisionUnknown = 1207 "no such revision on this device" 404;
    RevisionInUse = 1208 "the revision is running or kept for rollback and cannot be overwritten" 409;
    MessageTooLong = 1209 "the commit message is too long" 507;
    ObjectUnknown = 1210 "no such object on this device" 404;
    StorageDamaged = 1211 "a stored revision or object is damaged" 500;
    TableUnknown = 1212 "the disk's partition table is not one in which storage can grow" 500;
    MetadataInvalid = 1213 "a key of metadata is empty, too long or not plain, or its value is too long" 422;
    MetadataFull = 1214 "the metadata would be larger than the device keeps" 507;
    PartitionMissing = 1215 "the disk, or a partition that the board's description names, did not appear" 500;
    Unmountable = 1216 "a file system of the device does not mount" 500;
    Repaired = 1217 "a file system of the device was damaged and is repaired; nothing was given up for it" 500;
    RepairedWithLoss = 1218 "a file system of the device was damaged and is repaired; what could not be kept was given up" 500;
    StillDamaged = 1219 "a file system of the device is damaged and in use: it was not repaired" 500;
    TrailsFull = 1220 "the folder of revisions may outgrow what the loader reads safely: collect revisions, or take a shorter name" 507;
    SuperblockMended = 1221 "a power cut tore the superblock of a file system: it is mended, and nothing was lost" 500;
    // 13xx: containers
    ImageInvalid = 1301 "the root image could not be mounted" 500;
    InitMissing = 1302 "the container's init does not exist or cannot be executed" 500;
    MountFailed = 1303 "a mount of the container failed" 500;
    StartFailed = 1304 "the container could not be set up" 500;
    StartTimeout = 1305 "setting the container up took too long" 500;
    ContainerExited = 1306 "a container exited" 500;
    ContainerUnknown = 1307 "no such container" 404;
    SignalUnexpected = 1308 "signal not expected from this container" 500;
    ContainerSystem = 1309 "the container's restart policy is system: it changes only with an update" 403;
    ContainerState = 1310 "not possible in the container's present state" 400;
    StopTimeout = 1311 "a container could not be stopped" 500;
    // 14xx: updates and boot
    GoalsMissed = 1401 "status goal not reached in time" 500;
    UpdateBusy = 1402 "another update is running" 503;
    UpdateRestarted = 1403 "the update was interrupted before its trial" 500;
    TriesExhausted = 1404 "the candidate was booted too often without being committed" 500;
    LoaderGaveUp = 1405 "the loader gave the candidate up: it began no trial that could be recorded" 500;
    LoaderCannotCount = 1406 "the loader could not save its boot counter" 500;
    ScriptUnknown = 1407 "the loader's boot script has a version that this device does not know" 500;
    EnvInvalid = 1408 "both copies of the loader's environment are invalid" 500;
    EnvStoreFailed = 1409 "the loader's environment could not be stored" 500;
    CheckpointFailed = 1410 "the boot file system could not be made visible to the loader" 500;
    ColdBootFailed = 1411 "the first cold boot after an update in place missed its goals" 500;
    Panicked = 1412 "switchback panicked during the trial" 500;
    AlreadyRunning = 1413 "the revision is already running" 409;
    EnvUnsupported = 1414 "this kind of loader environment is not implemented" 500;
    EnvLayout = 1415 "the place of the loader's environment is not as the board's description says: files, sizes, offsets" 500;
    WatchdogReset = 1416 "the candidate hung and the watchdog reset the device" 500;
    WatchdogEarly = 1417 "the candidate hung before its trial was recorded, and the watchdog reset the device" 500;
    EnvFull = 1418 "the variables do not fit into the loader's environment" 500;
    EnvCopyDamaged = 1419 "one of the two copies of the loader's environment is damaged; the other one is in force" 500;
    NoPrevious = 1420 "there is no previous revision to go back to" 409;
    ResetUndecided = 1421 "the factory reset could neither begin nor be withdrawn: the next start decides" 500;
    ResetUnknown = 1422 "revision 0 is of a release that does not know the factory reset: write a new image to the disk instead" 409;
    // 15xx: control requests
    RequestInvalid = 1501 "not a valid HTTP request" 400;
    HeadTooLarge = 1502 "the request's head is too large" 431;
    BodyTooLarge = 1503 "the request's body is too large" 413;
    LengthRequired = 1504 "the request needs a Content-Length" 411;
    MethodWrong = 1505 "this endpoint does not accept this method" 400;
    EndpointUnknown = 1506 "unknown endpoint" 400;
    NotManagement = 1507 "Request not sent from mgmt platform" 403;
    HostForbidden = 1508 "Host must be absent, empty or localhost" 400;
    Incomplete = 1509 "the request ended in the middle" 400;
    CommandInvalid = 1510 "the command is not valid" 400;
    CommandUnknown = 1511 "unknown command" 400;
    Busy = 1512 "the device is busy; try again" 503;
    HostUnknown = 1513 "Host names another machine: use the device's address or a name of its own" 403;
    OriginForbidden = 1514 "a page of another site may not change this device" 403;
    TooSlow = 1515 "the client sent or read too slowly" 408;
    TokenMissing = 1516 "this device is paired: the request needs a token" 401;
    TokenWrong = 1517 "the token is not one of this device, or was revoked" 401;
    PairingClosed = 1518 "no pairing is open: ask for a code on the device" 403;
    PairingWrong = 1519 "the pairing code is wrong" 403;
    PairingFull = 1520 "the device holds as many tokens as it can: revoke one" 507;
    PlainForbidden = 1521 "this device answers over TLS only" 403;
    TooManyTries = 1522 "too many wrong tokens; wait" 429;
    EndpointClosed = 1523 "the endpoint is not open on this device" 404;
    UploadGone = 1524 "nothing is held of that upload: announce the object again" 409;
    // 16xx: our own helpers
    ErrandDied = 1601 "a helper process ended before its job was done" 500;
    ErrandTimeout = 1602 "a helper process did not answer in time" 500;
    Internal = 1603 "internal error" 500;
    // 17xx: exported revisions
    ArchiveInvalid = 1701 "not an exported revision: a tar, plain or gzip, that begins with json" 422;
    ArchiveMember = 1702 "the archive has a member that is neither its state nor an object that its state names" 422;
    ArchiveTruncated = 1703 "the archive ends in the middle" 422;
    ArchiveTooLarge = 1704 "the archive holds more than the device accepts" 422;
    // 18xx: exported revisions from USB sticks
    StickUnmountable = 1801 "the stick has no file system that the device policy lets it mount, or a damaged one" 422;
    StickEmpty = 1802 "the stick has no update.pvrexport.tgz in its top folder" 404;
    StickFile = 1803 "update.pvrexport.tgz on the stick is not a plain file" 422;
    StickUnreadable = 1804 "the stick could not be read to the end: it was pulled out or is failing" 500;
    StickKnown = 1805 "what is on the stick was tried on this device before" 409;
    StickRefused = 1806 "what is on the stick was refused" 422;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SB{}", *self as u16)
    }
}

/// A refused input: the code, which key it is about, and the byte of the document at which it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// The key (or, for a configuration, the line's key) that it is about; empty if none.
    pub key: Text<{ limits::KEY_MAX }>,
    /// Byte offset in the document, 0 if it does not apply.
    pub at: u32,
}

impl Refusal {
    /// A refusal about the document as a whole.
    pub fn new(code: Code) -> Self {
        Self { code, key: Text::EMPTY, at: 0 }
    }

    /// At a byte of the document.
    pub fn at(code: Code, at: usize) -> Self {
        Self { code, key: Text::EMPTY, at: at as u32 }
    }

    /// About a key.
    pub fn key(code: Code, key: &str) -> Self {
        Self { code, key: Text::clip(key), at: 0 }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.code.text())?;
        if !self.key.as_str().is_empty() {
            write!(f, " ({})", self.key)?;
        }
        if self.at != 0 {
            write!(f, " at byte {}", self.at)?;
        }
        Ok(())
    }
}
