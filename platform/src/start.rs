//! `start`: makes one container and becomes its init.
//!
//! PID 1 clones it into the container's namespaces and cgroup. It reads the revision, builds everything in its
//! own mount namespace, and reports once: that all is ready (then it execs, which closes the channel), or the
//! first fault. A second report says that the exec itself was refused. In mode `Mount` it is cloned into PID 1's
//! own mount namespace, mounts the volumes there, reports, and ends.
//!
//! Invariants: nothing stays resident and nothing is left behind: mounts and loop devices die with the mount
//! namespace. The images are those of the descriptors that came with the job. What mode `Mount` mounts, the next
//! of the same container replaces.
//! Faults: each is one record with a code, the step and the error number; a fault of the configuration names
//! its key. PID 1 bounds the time.
//! Not here: hooks, network devices, user namespaces.

use crate::{
    launch::{Fault, STORAGE, Step, VOLUMES, become_init, device, entries, mounts, root, volumes},
    sys,
    wire::{Buffer, Channel, Message, StartMode, WireError},
};
use runtime::{
    fault::{Code, Refusal},
    id::{PartName, RevName},
    lxc::{Config, Item, Namespaces, Rootfs},
    state::{Content, Defaults, File, Plan, Spans, State},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    process::chdir,
};

/// What is to be started.
struct Job {
    rev: RevName,
    container: PartName,
    images: std::vec::IntoIter<OwnedFd>,
}

/// Does the one job that PID 1 gives.
pub fn run(channel: &Channel) -> Result<(), WireError> {
    let mut buffer = Buffer::new();
    let Some(request) = channel.receive(&mut buffer)? else {
        return Ok(());
    };
    let Message::Job { rev, container, mode } = request.message else {
        let fault = Fault::new(Code::Internal, "not a job");
        return report(channel, request.serial, &fault);
    };
    let images = request.fds.into_iter().collect::<Vec<_>>().into_iter();
    let job = Job { rev, container, images };
    let fault = match mode {
        StartMode::Start => start(channel, request.serial, job),
        StartMode::Mount => mount_only(job).map(|()| None),
    };
    match fault {
        Ok(None) => channel.send(request.serial, &Message::Report { code: None, step: "mounted", errno: 0 }, &[]),
        Ok(Some(fault)) | Err(fault) => report(channel, request.serial, &fault),
    }
}

fn report(channel: &Channel, serial: u32, fault: &Fault) -> Result<(), WireError> {
    let mut end = fault.step.len().min(STEP_MAX);
    while !fault.step.is_char_boundary(end) {
        end -= 1;
    }
    let errno = fault.errno.map_or(0, |errno| errno.raw_os_error());
    channel.send(serial, &Message::Report { code: Some(fault.code), step: &fault.step[..end], errno }, &[])
}

/// Bytes of a step's text; the longest paths are cut.
const STEP_MAX: usize = 512;

fn mount_only(mut job: Job) -> Result<(), Fault> {
    let text = read(&format!("{STORAGE}/trails/{}/.pvr/json", job.rev))?;
    let mut spans = Box::new(Spans::new());
    let state = State::read(&text, &mut spans).map_err(|refusal| damaged("its state", &refusal))?;
    let content = state.container(job.container).map_err(|refusal| damaged("run.json", &refusal))?;
    volumes::unmount_all(job.container)?;
    mount_volumes(&mut job, &content)
}

/// Everything up to the exec; `Ok` is the fault of the exec itself, after the good report.
fn start(channel: &Channel, serial: u32, mut job: Job) -> Result<Option<Fault>, Fault> {
    let text = read(&format!("{STORAGE}/trails/{}/.pvr/json", job.rev))?;
    let mut spans = Box::new(Spans::new());
    let mut plan = Box::new(Plan::empty(job.rev));
    let state = Plan::parse(&text, job.rev, &Defaults::default(), &mut plan, &mut spans)
        .map_err(|refusal| damaged("its state", &refusal))?;
    let content = state.container(job.container).map_err(|refusal| damaged("run.json", &refusal))?;
    let planned = plan
        .container(job.container.as_str())
        .ok_or_else(|| Fault::new(Code::ContainerUnknown, format!("{} in {}", job.container, job.rev)))?;
    let group = plan.group_of(planned).map_or("", |group| group.name.as_str());

    let conf = config_text(&job, &content)?;
    let config = Config::parse(&conf).map_err(|refusal| damaged("lxc.container.conf", &refusal))?;

    let oom_score = become_init::oom_score()?;
    become_init::limits(&config, job.container)?;
    if config.loopback {
        sys::loopback_up().step(Code::StartFailed, || "bring the loopback device up".into())?;
    }
    volumes::private_folder(job.container)?;
    mount_volumes(&mut job, &content)?;
    make_root(&job, &state, &content, &config, planned.management)?;
    become_init::name(&config, job.container)?;
    root::enter()?;
    let program = become_init::program(&config, group)?;
    become_init::shed(&config, oom_score)?;
    channel
        .send(serial, &Message::Report { code: None, step: "exec", errno: 0 }, &[])
        .map_err(|_| Fault::new(Code::Internal, "report"))?;
    Ok(Some(become_init::exec(&program)))
}

fn mount_volumes(job: &mut Job, content: &Content<'_>) -> Result<(), Fault> {
    for file in content.volumes() {
        let file = file.map_err(|refusal| damaged("run.json", &refusal))?;
        if file.object.is_none() {
            volumes::data(job.rev, job.container, &file)?;
            continue;
        }
        let image = job.images.next();
        let image =
            image.ok_or_else(|| Fault::new(Code::Internal, format!("{}: its image was not sent", file.path)))?;
        volumes::image(job.container, &file, &image)?;
    }
    for place in content.storage() {
        let place = place.map_err(|refusal| damaged("run.json", &refusal))?;
        volumes::storage(job.rev, job.container, &place)?;
    }
    Ok(())
}

/// The root file system with everything mounted in it.
fn make_root(
    job: &Job,
    state: &State<'_>,
    content: &Content<'_>,
    config: &Config<'_>,
    manages: bool,
) -> Result<(), Fault> {
    let (rev, container) = (job.rev, job.container);
    // Relative paths of a configuration are below its own folder.
    let home = format!("{STORAGE}/trails/{rev}/{container}");
    chdir(home.as_str()).step(Code::StartFailed, || format!("change to {home}"))?;

    let first_volume = first_volume(container, content)?;
    let rootfs = config.rootfs.unwrap_or(Rootfs::Folder(&first_volume));
    let own_files = root::config_folder(format!("{STORAGE}/trails/{rev}/_config/{container}"))?;
    let root = root::assemble(rootfs, own_files.as_deref())?;
    let root = root.as_fd();

    if config.standard_devices {
        device::populate(root, config.pseudo_terminals_max)?;
    }
    if let Some(access) = config.auto.proc {
        entries::proc(root, access)?;
    }
    if let Some(access) = config.auto.sys {
        entries::sys(root, access)?;
    }
    if config.summary.namespaces.contains(Namespaces::CGROUP) {
        sys::unshare_cgroup_namespace().step(Code::StartFailed, || "make a cgroup namespace".into())?;
    }
    if let Some(access) = config.auto.cgroup {
        entries::cgroup(root, access)?;
    }
    for item in config.items() {
        if let Item::Mount(mount) = item {
            let borrowed = borrowed(rev, container, state, mount.source)?;
            let mut mount = mount;
            mount.source = borrowed.as_deref().unwrap_or(mount.source);
            entries::configured(root, &mount)?;
        }
    }
    entries::control(root, container, &format!("{STORAGE}/logs/{rev}/{container}"), manages)
}

/// Where a writable place of another container lives that an entry binds. In this namespace only our own places and
/// those of containers that are only mounted are at `/volumes`.
fn borrowed(rev: RevName, own: PartName, state: &State<'_>, source: &str) -> Result<Option<String>, Fault> {
    let other = source.strip_prefix(VOLUMES).and_then(|path| path.strip_prefix('/')?.split_once('/'));
    let Some((owner, path)) = other.and_then(|(owner, path)| Some((PartName::parse(owner).ok()?, path))) else {
        return Ok(None);
    };
    if owner == own {
        return Ok(None);
    }
    let Ok(content) = state.container(owner) else { return Ok(None) };
    for place in content.storage().filter_map(Result::ok) {
        let below = path.strip_prefix(place.name.as_str()).filter(|below| below.is_empty() || below.starts_with('/'));
        if let (Some(below), Some(backing)) = (below, volumes::backing(rev, owner, &place)) {
            // Its owner may not have been started yet.
            mounts::folder(&backing).step(Code::MountFailed, || format!("make {backing}"))?;
            return Ok(Some(format!("{backing}{below}")));
        }
    }
    Ok(None)
}

/// What is the root if the configuration names none.
fn first_volume(container: PartName, content: &Content<'_>) -> Result<String, Fault> {
    match content.volumes().next() {
        Some(Ok(File { path, .. })) => Ok(format!("{VOLUMES}/{container}/{path}")),
        _ => Ok(String::new()),
    }
}

/// The text of `lxc.container.conf`, or nothing, which is a configuration too.
fn config_text(job: &Job, content: &Content<'_>) -> Result<Vec<u8>, Fault> {
    match content.config().map_err(|refusal| damaged("run.json", &refusal))? {
        Some(file) => read(&format!("{STORAGE}/trails/{}/{}", job.rev, file.key)),
        None => Ok(Vec::new()),
    }
}

fn read(path: &str) -> Result<Vec<u8>, Fault> {
    let errno = |error: std::io::Error| {
        error.raw_os_error().map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
    };
    std::fs::read(path).map_err(errno).step(Code::StorageDamaged, || format!("read {path}"))
}

/// What was accepted when the revision was installed is not acceptable now.
fn damaged(what: &str, refusal: &Refusal) -> Fault {
    Fault::new(refusal.code, format!("{what}: {refusal}"))
}
