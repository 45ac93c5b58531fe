//! `atp serve` on a simulated fleet.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_fleet::{Exit, Fleet, FleetOptions, Programs};

use crate::browser::Browser;

/// What a name or an output must not do: run as a script, or imitate another by what cannot be seen.
pub(crate) const EVIL: &str =
    "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1<\u{202e}script>";

pub(crate) struct Service {
    pub(crate) fleet: Fleet,
    pub(crate) address: String,
    /// The token of an operator, `ann`.
    pub(crate) operator: String,
    /// The token of a viewer, `bob`.
    pub(crate) viewer: String,
    folder: PathBuf,
    child: Child,
}

/// The programs of the guests: `release` differs on each fifth VM, and fails on `vm4`; `evil` writes what a browser must not run.
fn programs() -> Programs {
    Programs::new(|execution| {
        let lines = |kernel: &str| {
            let rest: String = (1..=9).map(|line| format!("line {line}\n")).collect();
            format!("NAME=Debian\nKERNEL={kernel}\n{rest}")
        };
        Some(match (execution.path, execution.vm) {
            ("release", "vm4") => Exit::failure(3, "release: no such kernel\n"),
            ("release", "vm2") => Exit::success(lines("6.1.0-21")),
            ("release", _) => Exit::success(lines("6.1.0-25")),
            ("evil", _) => Exit::success(EVIL),
            ("pause", _) => Exit { after: Duration::from_secs(1), ..Exit::success("done\n") },
            ("forever", _) => Exit { after: Duration::from_secs(3600), ..Exit::default() },
            _ => return None,
        })
    })
}

impl Service {
    /// Starts a fleet, and the service on it. Hosts have the label `rack`: 1, 2 or `3 east`.
    pub(crate) async fn start(hosts: u32, vms: u32) -> Self {
        let options = FleetOptions {
            hosts,
            vms,
            seed: 7,
            programs: Some(Arc::new(programs())),
            ..FleetOptions::default()
        };
        Service::on(Fleet::start(options).await.unwrap())
    }

    pub(crate) fn on(fleet: Fleet) -> Self {
        Service::with(fleet, "")
    }

    /// Starts the service with more settings of its own.
    pub(crate) fn with(fleet: Fleet, more: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("serve-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut settings = String::new();
        let mut rack = 0;
        for line in fleet.settings().lines() {
            settings.push_str(line);
            settings.push('\n');
            if line.starts_with("uri") {
                rack = rack % 3 + 1;
                let east = if rack == 3 { " east" } else { "" };
                settings.push_str(&format!("labels = {{ rack = \"{rack}{east}\" }}\n"));
            }
        }
        settings.push_str(&format!("[serve]\nlisten = \"127.0.0.1:0\"\nfolder = {folder:?}\n{more}"));
        fs::write(folder.join("fleet.toml"), settings).unwrap();
        let operator = token(&folder, "ann", "operator");
        let viewer = token(&folder, "bob", "viewer");
        let mut child = atp(&folder, &["serve"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| {
                line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
            })
            .expect("the service says where it listens");
        let address = address.trim_end_matches(['/', ',', '.']).to_owned();
        // What it writes later is not to fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Service { fleet, address, operator, viewer, folder, child }
    }

    /// A browser that is signed in as an operator, and shows a view.
    pub(crate) async fn browser(&self, view: &str) -> Browser {
        self.browser_of(&self.operator, view).await
    }

    /// A browser that is signed in with a token, and shows a view.
    pub(crate) async fn browser_of(&self, token: &str, view: &str) -> Browser {
        let mut browser = Browser::start().await;
        browser.go(&format!("{}/{view}", self.address)).await;
        // Chromium gives up what it loads when the machine has a new network interface, as other tests make them.
        if !browser.becomes("document.querySelector('#token')", Duration::from_secs(20)).await {
            eprintln!("the page is loaded again");
            browser.expect("net::ERR_NETWORK_CHANGED");
            browser.go("about:blank").await;
            browser.go(&format!("{}/{view}", self.address)).await;
        }
        browser.write("#token", token).await;
        browser.enter().await;
        browser.shows("nav [aria-current]").await;
        browser
    }

    /// How often the VMs of the fleet have run a program, all together.
    pub(crate) fn ran(&self, program: &str) -> u64 {
        let hosts = self.fleet.hosts();
        let vms = hosts.flat_map(|host| (1..).map_while(move |number| host.vm(number)));
        vms.map(|vm| vm.counts().programs.of(program)).sum()
    }
}

/// Makes a token, and returns it.
fn token(folder: &Path, name: &str, role: &str) -> String {
    let output = atp(folder, &["serve", "token", "add", name, "--role", role]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn atp(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atp"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATP_")) {
        command.env_remove(name);
    }
    let settings = folder.join("fleet.toml");
    command.arg("--config").arg(settings).args(words).env("HOME", folder).env_remove("STATE_DIRECTORY");
    command.stdin(Stdio::null());
    command
}

impl Drop for Service {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        let _removed = fs::remove_dir_all(&self.folder);
    }
}
