//! Runs the real `pvr` in scratch folders.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod hub;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// What a run of `pvr` said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Said {
    /// What it printed, if it succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Its error, if it failed with this code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains("ERROR: ") || self.err.starts_with("{\"code\":"), "{}", self.err);
        self.err
    }
}

/// A scratch place with a home of its own.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("home")).unwrap();
        place
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `pvr` in one of its folders.
    pub(crate) fn pvr(&self, folder: &str, args: &[&str]) -> Said {
        self.pvr_with(folder, args, &[])
    }

    /// Runs `pvr` with these variables set.
    pub(crate) fn pvr_with(&self, folder: &str, args: &[&str], set: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvr"));
        command.args(args).current_dir(self.path(folder)).stdin(Stdio::null());
        // What the machine has set for people would change what is tested.
        for (name, _) in std::env::vars() {
            if name.starts_with("PVR_") || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path("home")).envs(set.iter().copied());
        let output = command.output().unwrap();
        Said {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().expect("pvr was not killed"),
        }
    }

    /// Runs `pvr` under strace with these options; what strace wrote.
    pub(crate) fn traced(&self, folder: &str, options: &[&str], args: &[&str]) -> String {
        let trace = self.path("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq", "-y", "-o"]).arg(&trace).args(options).arg(env!("CARGO_BIN_EXE_pvr")).args(args);
        command.current_dir(self.path(folder)).env("HOME", self.path("home")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("strace is installed: apt install strace");
        self.read("trace")
    }

    /// Makes a repository in a new folder.
    pub(crate) fn repo(&self, folder: &str) {
        fs::create_dir(self.path(folder)).unwrap();
        self.pvr(folder, &["init"]).good();
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Adds everything and commits it.
    pub(crate) fn commit(&self, folder: &str, message: &str) {
        self.pvr(folder, &["add", "."]).good();
        self.pvr(folder, &["commit", "-m", message]).good();
    }
}

/// The vectors that the original made.
pub(crate) fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// The smallest state that a device takes: a base and one container.
pub(crate) fn small_device(place: &Place, folder: &str) {
    place.repo(folder);
    let write = |name: &str, content: &str| place.write(&format!("{folder}/{name}"), content);
    write("bsp/run.json", r#"{"linux":"kernel.img","initrd":"initrd.img"}"#);
    write("bsp/kernel.img", "kernel");
    write("bsp/initrd.img", "initrd");
    write("groups.json", r#"[{"name":"app","default_restart_policy":"container","default_status_goal":"STARTED"}]"#);
    write(
        "web/run.json",
        r##"{"#spec":"service-manifest-run@1","name":"web","type":"lxc","group":"app","config":"lxc.container.conf",
        "root-volume":"root.squashfs","storage":{},"volumes":[]}"##,
    );
    write(
        "web/lxc.container.conf",
        "lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper\nlxc.init.cmd = /init\n",
    );
    write("web/root.squashfs", "image");
    place.commit(folder, "first");
}

/// A device whose state is what a repository committed, with every object of the shared pool.
pub(crate) fn hub_of(place: &Place, folder: &str) -> hub::Hub {
    hub::Hub::start(world_of(place, folder))
}

/// What such a device holds.
pub(crate) fn world_of(place: &Place, folder: &str) -> hub::World {
    let state = serde_json::from_str(&place.read(&format!("{folder}/.pvr/json"))).unwrap();
    let entries = fs::read_dir(place.path("home/.pvr/objects")).unwrap().map(|entry| entry.unwrap());
    let objects = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    hub::World { state, objects: objects.collect(), ..hub::World::default() }
}
