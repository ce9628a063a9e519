//! The control socket's requests and answers, as small `Copy` values.
//!
//! Every client (a container, `pvcontrol`, the endpoint, a test) ends in one `Request`; every request ends in
//! exactly one `Answer`. Bytes stay with the connection: a request never holds a body.

use crate::{
    fault::Refusal,
    id::{ContainerId, ObjectId, PartName, RevName},
};

/// Who asks; known by the listening socket on which the connection came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The host's own socket: `pvcontrol` outside containers, the endpoint, the console.
    Host,
    /// The socket bound into this container.
    Container(ContainerId),
}

/// What a client may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `GET /containers`
    Containers,
    /// `GET /groups`
    Groups,
    /// `GET /status`, an addition of ours
    Status,
    /// `GET /limits`, an addition of ours
    Limits,
    /// `GET /buildinfo`
    BuildInfo,
    /// `POST /signal {"type":"ready"}`
    Ready,
    /// `PUT /containers/<name>`
    Act(PartName, Act),
    /// `POST /commands LOCAL_RUN`
    Run(RevName),
    /// `POST /commands REBOOT_DEVICE`
    Reboot,
    /// `POST /commands POWEROFF_DEVICE`
    PowerOff,
    /// `POST /commands RUN_GC` and `POST /storage/gc`
    Collect,
    /// `PUT /steps/<rev>/commitmsg`; the text is the connection's body
    Message(RevName),
    /// `PUT /objects/<sha>`, `PUT /steps/locals/<name>`: a body of this length, streamed by an errand
    Receive(Upload, u64),
    /// `GET /objects[/<sha>]`, `GET /steps[/<rev>[/progress]]`
    Send(Download),
}

/// What to do with a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Start it, if a user stopped it or if it failed.
    Start,
    /// Stop it and keep it stopped until `Start`, `Restart` or the next boot.
    Stop,
    /// Stop it and start it again.
    Restart,
}

/// A body that does not pass through PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upload {
    /// An object.
    Object(ObjectId),
    /// The state JSON of a local revision.
    Step(RevName),
}

/// A file that does not pass through PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Download {
    /// An object.
    Object(ObjectId),
    /// The state JSON of a revision.
    State(RevName),
    /// The recorded progress of a revision.
    Progress(RevName),
    /// The state JSON of the revision that runs.
    Current,
    /// The progress of the revision that runs.
    CurrentProgress,
    /// The list of objects.
    Objects,
    /// The list of revisions.
    Steps,
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 200, no body.
    Done,
    /// 200 and the document of this request, rendered from the machine.
    Document(Request),
    /// Refused, with the code's HTTP status. 503 carries `Retry-After` with these seconds.
    Refused(Refusal, u16),
}
