//! Runs the binary in an isolated environment.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use atp_fleet::{Fleet, FleetOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A host that needs no daemon: one running domain, `test`.
pub(crate) const DEMO: &str = "demo=test:///default";

/// The settings of a fleet on which the native engine is used.
pub(crate) const NATIVE: &str = "[transport]\nengine = \"native\"\n";

/// Variables that would change what the command does, wherever the tests are run.
const FOREIGN: [&str; 7] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "NO_COLOR",
    "RUST_BACKTRACE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
];

/// A simulated fleet, a home with a file of settings for it, the path of that file, and what runs the fleet as long as it is kept.
/// `more` are settings besides the hosts.
pub(crate) fn simulated(options: FleetOptions, more: &str) -> (Fleet, Home, String, Runtime) {
    let runtime = Runtime::new().unwrap();
    let fleet = runtime.block_on(Fleet::start(options)).unwrap();
    let home = Home::new();
    let settings = home.write("fleet.toml", &format!("{}{more}", fleet.settings())).display().to_string();
    (fleet, home, settings, runtime)
}

/// A separate home folder, with only the configuration that a test writes.
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("home-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Home { folder }
    }

    /// Writes a file below the home folder and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A path below the home folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A host of the test driver with VMs of these names, all of them running. Each connection has VMs of its
    /// own, so they are given their UUIDs here.
    pub(crate) fn host(&self, id: &str, vms: &[&str]) -> String {
        let domain = |(n, vm): (usize, &&str)| {
            // Of its host: a VM of one UUID on two hosts would be one that has moved.
            let host: u32 = id.bytes().fold(0, |sum, byte| sum * 31 + u32::from(byte));
            let uuid = format!("{n:08}-0000-4000-8000-{host:012}");
            let name = vm.replace('&', "&amp;").replace('<', "&lt;");
            format!(
                "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory>\
                 <os><type>hvm</type></os></domain>"
            )
        };
        let node = format!("<node>{}</node>", vms.iter().enumerate().map(domain).collect::<String>());
        format!("{id}=test://{}", self.write(&format!("{id}.xml"), &node).display())
    }

    /// The command, in this home.
    pub(crate) fn atp<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_atp"));
        command.args(args);
        command
    }

    /// A program that may start the command, in this home.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATP_")) {
            command.env_remove(name);
        }
        for name in FOREIGN {
            command.env_remove(name);
        }
        command.env("HOME", &self.folder).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end on a terminal: all that it writes, control sequences included, is the `stdout`
    /// of the run.
    pub(crate) fn run_on_terminal(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        Run::of(self.on_terminal(args).envs(variables.iter().copied()))
    }

    /// The command on a terminal; what is typed is its stdin.
    pub(crate) fn on_terminal(&self, args: &[&str]) -> Command {
        let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
        let words = [env!("CARGO_BIN_EXE_atp")].iter().chain(args).map(|word| quoted(word));
        let mut command = self.command("script");
        command.args(["--quiet", "--return", "--command", &words.collect::<Vec<_>>().join(" "), "/dev/null"]);
        command.env("TERM", "xterm").env_remove("CI");
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(&mut self.atp(args))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Run {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            status: output.status,
        }
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// Checks that stderr has all of these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        }
        self
    }

    /// Checks that there is no data at all.
    #[track_caller]
    pub(crate) fn without_data(self) -> Self {
        assert_eq!(self.stdout, "", "{self:#?}");
        self
    }

    /// The outcomes of `-o json`.
    #[track_caller]
    pub(crate) fn outcomes(&self) -> Vec<Value> {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs with the demo host, in a separate home folder.
#[track_caller]
pub(crate) fn demo(args: &[&str]) -> Run {
    Home::new().run(["--host", DEMO].iter().chain(args))
}
