//! Copies of a VM that share its UUID and were never one VM: every verb works on both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atp_e2e::{Atp, Bed, Run, bed, eventually};
use atp_testbed::DiskFormat;
use serde_json::Value;

use crate::support::Terminal;

/// Time limit for a guest to boot, emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(120);
/// The hosts of the copies.
const HOSTS: [&str; 2] = ["h1", "h2"];
/// The name of both.
const VM: &str = "mvm";

/// Commands that work on no VM.
const WITHOUT_VM: [&str; 13] = [
    "check",
    "completions",
    "config check",
    "config show",
    "host add",
    "host check",
    "host list",
    "host remove",
    "journal show",
    "man",
    "serve token add",
    "serve token list",
    "serve token remove",
];

/// How a verb is tried, on two copies that run.
type Try = (&'static str, fn(&Copies));

/// Verbs that take little time, with and without the word for copies in the settings. The snapshot that is made here is there for
/// all that follow.
const QUICK: [Try; 28] = [
    ("vm list", |on| drop(on.both(&["vm", "list", VM], "ok none"))),
    ("vm info", |on| drop(on.both(&["vm", "info", VM], "ok none"))),
    ("vm xml", xml),
    ("vm autostart", |on| {
        on.both(&["vm", "autostart", "on", VM], "ok done");
        on.both(&["vm", "autostart", "off", VM], "ok done");
    }),
    ("vm nmi", |on| drop(on.both(&["vm", "nmi", VM, "--yes"], "ok done"))),
    ("vm start", |on| drop(on.both(&["vm", "start", VM], "unchanged none"))),
    ("vm suspend", |on| {
        on.both(&["vm", "suspend", VM, "--yes", "--wait"], "ok done");
        on.are("paused");
    }),
    ("vm resume", |on| {
        on.both(&["vm", "resume", VM, "--wait"], "ok done");
        on.are("running");
    }),
    ("exec", |on| {
        let run = on.both(&["exec", VM, "--", "cat", "/tmp/own/name"], "ok done");
        for host in HOSTS {
            assert_eq!(run.outcome(&format!("{host}/{VM}")).stream("stdout"), format!("{host}\n"));
        }
    }),
    ("wait", |on| {
        on.both(&["wait", VM, "--for", "agent"], "ok none");
        on.both(&["wait", VM, "--for", "state=running"], "ok none");
        on.both(&["wait", VM, "--for", "exec=test -e /tmp/own/name"], "ok done");
    }),
    ("qga", |on| drop(on.both(&["qga", VM, "--", "guest-ping"], "ok done"))),
    ("qmp", |on| drop(on.both(&["qmp", VM, "--", "query-status"], "ok done"))),
    ("key", |on| drop(on.both(&["key", VM, "--", "enter"], "ok done"))),
    ("type", |on| drop(on.both(&["type", VM, "--", "a"], "ok done"))),
    ("mouse", |on| drop(on.both(&["mouse", VM, "--", "move", "0.5", "0.5"], "ok done"))),
    ("screenshot", |on| {
        let folder = on.folder("screens");
        on.both(&["screenshot", VM, "-d", text(&folder)], "ok none");
        HOSTS.iter().for_each(|host| assert!(folder.join(host).join("mvm.png").exists()));
    }),
    ("cp", copy),
    ("console", |on| {
        on.write_to_console();
        let folder = on.folder("consoles");
        let log = |host| fs::read_to_string(folder.join(host).join("mvm.log")).unwrap_or_default();
        let capture = on.atp(&["console", VM, "-d", text(&folder), "--timeout", "200s"]).start();
        for host in HOSTS {
            eventually("what a guest says", BOOT, || {
                let log = log(host);
                if log.contains("console of") { Ok(()) } else { Err(log) }
            });
        }
        on.keep_quiet();
        capture.interrupt();
        capture.finish().exits_with(130);
        for host in HOSTS {
            let written = HOSTS.map(|of| log(host).contains(&format!("console of {of}")));
            assert_eq!(written, HOSTS.map(|of| of == host), "{}", log(host));
        }
    }),
    ("attach", |on| {
        on.write_to_console();
        let attached = HOSTS.map(|host| {
            let terminal = Terminal::open();
            let attached = terminal.start(on.atp(&["attach", &format!("{host}/{VM}")]));
            terminal.shows(&format!("console of {host}"));
            (terminal, attached)
        });
        on.keep_quiet();
        for (terminal, mut attached) in attached {
            terminal.type_in(&[0x1d]);
            assert!(attached.wait().unwrap().success(), "{}", terminal.text());
        }
    }),
    ("channel", |on| {
        on.both(&["exec", VM, "--", "channel-peer", "bytes"], "ok done");
        for host in HOSTS {
            let args = ["channel", &format!("{host}/{VM}"), "org.atp.test.channel", "--idle", "100s"];
            let channel = on.atp(&args).stdin(format!("for {host}\n")).start();
            channel.wait_for_stdout(&format!("for {host}"));
            channel.interrupt();
            channel.finish().exits_with(130);
        }
    }),
    ("events", |on| {
        let watch = on.atp(&["events", VM, "--count", "4", "--for", "100s"]).output("jsonl").start();
        HOSTS.iter().for_each(|host| watch.wait_for_stdout(&format!(r#""item":"present","host":"{host}""#)));
        on.both(&["vm", "suspend", VM, "--yes"], "ok done");
        on.both(&["vm", "resume", VM], "ok done");
        let run = watch.finish();
        run.exits_with(0);
        for host in HOSTS {
            let events = run.stdout().matches(&format!(r#""item":"event","host":"{host}""#)).count();
            assert_eq!(events, 2, "{}", run.stdout());
        }
    }),
    ("stats", |on| {
        let run = on.atp(&["stats", VM, "--interval", "8s"]).output("jsonl").run();
        run.exits_with(0);
        let round: Value = serde_json::from_str(&run.stdout()).unwrap();
        let vms = round["vms"].as_array().unwrap();
        let measured: Vec<_> = vms.iter().filter(|vm| vm["cpu"]["percent"].is_number()).collect();
        let mut hosts: Vec<_> = measured.iter().filter_map(|vm| vm["host"].as_str()).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, HOSTS, "{round}");
    }),
    ("top", |on| {
        let terminal = Terminal::open();
        let mut top = terminal.start(on.atp(&["top", VM]).env("TERM", "xterm-256color"));
        // Of each host one of one runs.
        eventually("both", BOOT, || match terminal.text() {
            text if text.matches("1/1").count() >= 2 => Ok(()),
            text => Err(text),
        });
        terminal.type_in(b"q");
        assert!(top.wait().unwrap().success(), "{}", terminal.text());
    }),
    ("doctor", |on| {
        let run = on.atp(&["doctor", "h[1,2]"]).output("json").run();
        for host in HOSTS {
            let outcome = run.outcome(&format!("{host}/{VM}"));
            assert_eq!(outcome.status, "ok", "{outcome:?}");
        }
    }),
    ("reserve", reserve),
    ("release", reserve),
    ("snapshot create", |on| {
        on.both(&["snapshot", "create", VM, "clean", "--timeout", "2m"], "ok done");
        on.both(&["exec", VM, "--", "touch", "/tmp/since"], "ok done");
    }),
    ("snapshot list", |on| {
        let run = on.both(&["snapshot", "list", VM], "ok none");
        assert!(run.outcomes().iter().all(|outcome| outcome.data["snapshots"][0]["name"] == "clean"));
    }),
];

/// Verbs that take their time, on copies for which the settings have no word: work may then go from one to the other.
const SLOW: [Try; 9] = [
    ("snapshot revert", |on| {
        on.both(&["snapshot", "revert", VM, "clean", "--yes", "--timeout", "2m"], "ok done");
        on.both(&["wait", VM, "--for", "agent", "--timeout", "2m"], "ok none");
        on.both(&["exec", VM, "--", "test", "!", "-e", "/tmp/since"], "ok done");
    }),
    ("run", |on| {
        let file = on.folder("scenario.yaml");
        let text = "name: copies\ntargets: mvm\nisolate: {snapshot: clean}\nsteps:\n  \
                    - wait: agent\n  - {exec: cat /tmp/own/name, capture: name}\n  \
                    - exec: test ${name} = ${host} && touch /tmp/since\n  \
                    - wait: agent\n  - assert: {state: running}\n";
        fs::write(&file, text).unwrap();
        let run = on.both(&["run", self::text(&file), "--yes", "--timeout", "2m"], "ok done");
        assert!(run.outcomes().iter().all(|outcome| outcome.data["isolated"]["restored"] == true));
        on.both(&["wait", VM, "--for", "agent", "--timeout", "2m"], "ok none");
        on.both(&["exec", VM, "--", "test", "!", "-e", "/tmp/since"], "ok done");
    }),
    ("snapshot delete", |on| {
        on.both(&["snapshot", "delete", VM, "clean", "--yes"], "ok done");
        on.both(&["snapshot", "delete", VM, "clean", "--yes"], "unchanged none");
    }),
    ("vm save", |on| {
        on.both(&["vm", "save", VM, "--yes", "--timeout", "2m"], "ok done");
        on.are("shut off");
    }),
    ("vm restore", |on| {
        // Of two that are off it takes the word to start both.
        on.with_word().both(&["vm", "restore", VM, "--wait", "--timeout", "2m"], "ok done");
        on.both(&["exec", VM, "--", "test", "-e", "/tmp/own/name"], "ok done");
    }),
    ("vm reboot", |on| {
        on.both(&["vm", "reboot", VM, "--yes", "--wait", "--timeout", "2m"], "ok done");
        on.both(&["exec", VM, "--", "test", "!", "-e", "/tmp/own"], "ok done");
    }),
    ("vm shutdown", |on| {
        on.both(&["vm", "shutdown", VM, "--yes", "--wait", "--timeout", "2m"], "ok done");
        on.are("shut off");
    }),
    ("vm reset", |on| {
        on.with_word().both(&["vm", "start", VM], "ok done");
        on.both(&["vm", "reset", VM, "--yes"], "ok done");
    }),
    // Each by itself, as the test goes on.
    ("vm destroy", |on| on.are("running")),
];

/// Two copies, and the meaning of one UUID on two hosts in the settings.
struct Copies<'a> {
    bed: &'a Bed,
    meaning: &'static str,
    files: PathBuf,
}

impl Copies<'_> {
    fn atp(&self, args: &[&str]) -> Atp {
        self.bed.atp(args).env("ATP_TRANSPORT__SHARED_UUIDS", self.meaning)
    }

    fn run(&self, args: &[&str]) -> Run {
        self.atp(args).output("json").run()
    }

    /// Runs a verb on both, each where it is.
    #[track_caller]
    fn both(&self, args: &[&str], end: &str) -> Run {
        let run = self.run(args);
        let expected = HOSTS.map(|host| format!("{host}/{VM} {end}"));
        assert_eq!(run.exits_with(0).brief(), expected, "{args:?}");
        assert!(run.outcomes().iter().all(|outcome| outcome.found_on.is_none()), "{}", run.stdout());
        run
    }

    /// Asserts the state of both, as each daemon says it.
    #[track_caller]
    fn are(&self, state: &str) {
        for host in HOSTS {
            let said = self.bed.host(host).unwrap().virsh(&["domstate", VM]).unwrap();
            assert_eq!(said.trim(), state, "{host}");
        }
    }

    /// A path for files of this pass.
    fn folder(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// Writes the name of its host to a file in each guest.
    fn mark(&self) {
        for host in HOSTS {
            let line = format!("mkdir -p /tmp/own && echo {host} > /tmp/own/name && rm -f /tmp/since");
            self.run(&["exec", &format!("{host}/{VM}"), "--shell", "--", &line]).exits_with(0);
        }
    }

    /// The same, with the word for copies in the settings.
    fn with_word(&self) -> Copies<'_> {
        Copies { meaning: "copies", files: self.files.clone(), ..*self }
    }

    /// Each guest writes the name of its host to its console, once a second, until it is to keep quiet.
    fn write_to_console(&self) {
        let line = "rm -f /tmp/own/quiet; name=$(cat /tmp/own/name); (until [ -e /tmp/own/quiet ]; do \
                    echo \"console of $name\" > /dev/ttyS0; sleep 1; done; touch /tmp/own/is-quiet) \
                    < /dev/null > /dev/null 2>&1 &";
        self.both(&["exec", VM, "--shell", "--", line], "ok done");
    }

    /// Waits until the guests write nothing any more: libvirtd 9.0.0 may crash when a stream is closed that a guest just writes to.
    fn keep_quiet(&self) {
        let line =
            "rm -f /tmp/own/is-quiet; touch /tmp/own/quiet; until [ -e /tmp/own/is-quiet ]; do sleep 1; done";
        self.both(&["exec", VM, "--shell", "--", line], "ok done");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn xml(on: &Copies) {
    let run = on.both(&["vm", "xml", VM], "ok none");
    // The paths of their disks differ.
    let [first, second] = HOSTS.map(|host| run.outcome(&format!("{host}/{VM}")).data);
    assert_ne!(first, second);
}

fn copy(on: &Copies) {
    let (source, back) = (on.folder("to"), on.folder("back"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "copied").unwrap();
    on.both(&["cp", text(&source.join("file")), &format!("{VM}:/tmp/own/file")], "ok done");
    on.both(&["cp", "-r", text(&source), &format!("{VM}:/tmp/own")], "ok done");
    on.both(&["cp", &format!("{VM}:/tmp/own/name"), text(&back)], "ok none");
    on.both(&["cp", "-r", &format!("{VM}:/tmp/own"), text(&back)], "ok none");
    for host in HOSTS {
        let folder = back.join(host).join(VM);
        let read = |name| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!([read("name"), read("own/name")], [format!("{host}\n"), format!("{host}\n")]);
        assert_eq!([read("own/file"), read("own/to/file")], ["copied", "copied"]);
    }
}

/// With the word for copies a reservation is of one; without it, of the UUID.
fn reserve(on: &Copies) {
    let file = on.folder("reservations");
    let place = ["--owner", "job", "--file", text(&file)];
    for host in HOSTS {
        let vm = format!("{host}/{VM}");
        let reserve = [&["reserve", &vm, "--for", "1h"][..], &place].concat();
        on.atp(&reserve).output("name").run().exits_with(0);
        let both = [&["reserve", VM, "--count", "2", "--for", "1h"][..], &place].concat();
        let free = if on.meaning == "copies" { 1 } else { 0 };
        let refused = format!("too few VMs are free: {free} of the 2");
        assert!(on.atp(&both).run().exits_with(1).stderr.contains(&refused));
        let listed = on.atp(&["vm", "list", VM]).env("ATP_RESERVATIONS_FILE", text(&file)).run().stdout();
        assert_eq!(listed.matches(" job ").count(), 2 - free, "{listed}");
        let release = [&["release", &vm][..], &place].concat();
        assert_eq!(on.atp(&release).output("name").run().exits_with(0).stdout(), format!("{vm}\n"));
    }
}

/// The commands of `atp` that have no further ones below them, by their manual pages.
fn commands() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    Atp::new(&["man", text(folder.path())]).run().exits_with(0);
    let pages: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|page| page.unwrap().file_name().to_string_lossy().trim_end_matches(".1").to_owned())
        .collect();
    let is_last = |page: &&String| !pages.iter().any(|other| other.starts_with(&format!("{page}-")));
    let names = pages.iter().filter(is_last).map(|page| page.trim_start_matches("atp-").replace('-', " "));
    names.collect()
}

#[test]
fn every_verb_works_on_both_of_two_copies_that_share_a_uuid() {
    let tried: BTreeSet<String> =
        QUICK.iter().chain(&SLOW).map(|(name, _)| *name).chain(WITHOUT_VM).map(str::to_owned).collect();
    assert_eq!(tried, commands(), "the verbs of this test, and those of atp");

    let bed = bed();
    let guest = bed.host("h1").unwrap().define_guest_with(VM, DiskFormat::Qcow2).unwrap();
    guest.start().unwrap();
    guest.wait_agent(BOOT).unwrap();
    guest.copy(&bed.host("h2").unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [one_vm, copies] = ["one-vm", "copies"].map(|meaning| {
        let files = folder.path().join(meaning);
        fs::create_dir(&files).unwrap();
        Copies { bed: &bed, meaning, files }
    });

    // One runs. Without a word for it the other may be the same VM.
    let start = one_vm.run(&["vm", "start", VM]);
    assert_eq!(start.exits_with(1).brief(), ["h1/mvm unchanged none", "h2/mvm failed none vm-moved"]);
    assert!(start.outcome("h2/mvm").failure().hint.as_ref().unwrap().contains("shared_uuids"));
    let start = copies.run(&["vm", "start", VM, "--wait", "--timeout", "2m"]);
    assert_eq!(start.exits_with(0).brief(), ["h1/mvm unchanged none", "h2/mvm ok done"]);

    for on in [&copies, &one_vm] {
        on.mark();
        for (name, attempt) in QUICK {
            eprintln!("{}: {name}", on.meaning);
            attempt(on);
        }
        if on.meaning == "copies" {
            on.both(&["snapshot", "delete", VM, "clean", "--yes"], "ok done");
        }
    }
    for (name, attempt) in SLOW {
        eprintln!("{name}");
        attempt(&one_vm);
    }

    // One was destroyed, as libvirt says: it is off, and not moved.
    assert_eq!(copies.run(&["vm", "destroy", "h2/mvm"]).exits_with(0).brief(), ["h2/mvm ok done"]);
    let destroyed = bed.run(&["vm", "destroy", "h2/mvm", "h1/nothing*"]);
    assert_eq!(destroyed.exits_with(0).brief(), ["h2/mvm unchanged none"]);
    let off = bed.run(&["wait", "h2/mvm", "--for", "state=shut-off"]);
    assert_eq!(off.exits_with(0).brief(), ["h2/mvm ok none"]);
    assert_eq!(guest.state().unwrap(), "running");
    // Work on the one that is off is not done on the other.
    let run = bed.run(&["exec", "h2/mvm", "--", "true"]);
    assert_eq!(run.exits_with(1).brief(), ["h2/mvm failed none vm-not-running"]);
    let destroyed = copies.run(&["vm", "destroy", VM, "--yes"]);
    assert_eq!(destroyed.exits_with(0).brief(), ["h1/mvm ok done", "h2/mvm unchanged none"]);
    copies.are("shut off");
}
