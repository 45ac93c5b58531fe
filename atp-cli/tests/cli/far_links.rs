//! Links over ssh while something happens to them: Ctrl-C at the terminal, and a time in which nothing passes. A script stands
//! for ssh, and a simulated host is at its far end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions, HostFault, VmFault};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::atp::Home;

const ENGINES: [&str; 2] = ["library", "native"];

/// How long something that happens soon may take.
const SOON: Duration = Duration::from_secs(60);

/// Connects its stdin and stdout to a port. With a file of the name `dark` beside it, it hangs as ssh does on a dark link.
const SSH: &str = r#"#!/usr/bin/perl
use FindBin; use IO::Socket::INET; use IO::Select;
sleep 600 if -e "$FindBin::Bin/dark";
my $s = IO::Socket::INET->new(PeerAddr => 'ADDRESS') or die "cannot connect: $!\n";
my %to = (fileno(STDIN) => $s, fileno($s) => \*STDOUT);
my $select = IO::Select->new(\*STDIN, $s);
while (1) {
    for my $from ($select->can_read) {
        sysread($from, my $chunk, 65536) or exit 0;
        syswrite($to{fileno($from)}, $chunk);
    }
}
"#;

/// A host, reached over tcp as `tcp` and over ssh as `ssh`.
struct Bed {
    fleet: Fleet,
    home: Home,
    settings: String,
    _runtime: Runtime,
}

impl Bed {
    fn new(engine: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let options = FleetOptions { hosts: 1, vms: 2, ..FleetOptions::default() };
        let fleet = runtime.block_on(Fleet::start(options)).unwrap();
        let home = Home::new();
        let tcp = fleet.host(1).unwrap().uri();
        let address = tcp.split("://").nth(1).unwrap().trim_end_matches("/system");
        let ssh = home.write("ssh", &SSH.replace("ADDRESS", address));
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = format!(
            "[transport]\nengine = \"{engine}\"\nconnect_timeout = \"5s\"\n\
             [transport.keepalive]\ninterval = \"1s\"\ncount = 3\n[transport.reconnect]\nmax_delay = \"1s\"\n\
             [hosts.tcp]\nuri = \"{tcp}\"\n[hosts.ssh]\nuri = \"qemu+ssh://h/system?command={}\"\n",
            ssh.display()
        );
        let settings = home.write("fleet.toml", &settings).display().to_string();
        Bed { fleet, home, settings, _runtime: runtime }
    }

    /// Starts `atp` as a shell does: in a process group of its own.
    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.home.atp(["--config", &self.settings].iter().chain(args));
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// What a terminal does on Ctrl-C.
fn ctrl_c(child: &Child) {
    let kill = format!("kill -INT -{}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn ctrl_c_at_a_terminal_during_a_command_over_ssh_lets_it_finish() {
    for engine in ENGINES {
        let bed = Bed::new(engine);
        let vm = bed.fleet.host(1).unwrap().vm(1).unwrap();
        vm.set_fault(VmFault::Hung);
        let mut child = bed.start(&["-v", "-o", "json", "qmp", "ssh/vm1", "--", "inject-nmi"]);
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut wait_for =
            |text: &str| assert!(stderr.any(|line| line.unwrap().contains(text)), "{engine}: no {text:?}");
        wait_for("started");
        ctrl_c(&child);
        wait_for("interrupted");
        vm.set_fault(None);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{engine}");
        let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&outcomes[0]["status"], &outcomes[0]["effect"]),
            (&"ok".into(), &"done".into()),
            "{outcomes:?}"
        );
        assert_eq!(vm.counts().monitor.of("inject-nmi"), 1, "{engine}");
    }
}

/// Waits for these items about each of both hosts, in any order.
fn both(items: &Receiver<Value>, wanted: &[&str]) {
    let mut missing: Vec<_> =
        wanted.iter().flat_map(|item| ["ssh", "tcp"].map(|host| (*item, host))).collect();
    while !missing.is_empty() {
        let next = items.recv_timeout(SOON).unwrap_or_else(|_| panic!("there is none of {missing:?}"));
        missing.retain(|(item, host)| next["item"] != *item || next["host"] != *host);
    }
}

#[test]
fn events_resume_over_ssh_as_over_tcp_when_a_dark_link_is_back() {
    for engine in ENGINES {
        let bed = Bed::new(engine);
        let mut child = bed.start(&["events", "-o", "jsonl"]);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, items) = channel();
        let reader = thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _left = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        both(&items, &["present"]);
        let dark: PathBuf = bed.home.write("dark", "");
        let host = bed.fleet.host(1).unwrap();
        host.set_fault(HostFault::Dead);
        // An attempt over each way meets the dark link. One way may be through with both before the other begins.
        both(&items, &["gap", "unreachable"]);
        fs::remove_file(dark).unwrap();
        host.set_fault(None);
        // An ssh that hangs is given up like a connection that is not answered, and another one is started.
        both(&items, &["present"]);
        ctrl_c(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{engine}");
        reader.join().unwrap();
    }
}
