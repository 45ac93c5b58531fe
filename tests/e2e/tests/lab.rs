//! Each verb for snapshots, saved memory, consoles, channels, statistics, folders and reservations under each fault: what is ill has
//! one outcome that says so, by its deadline, and what is well is worked on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use atp_e2e::{Bed, Run, Running, becomes, bed};
use atp_testbed::DiskFormat;
use serde_json::Value;

use crate::support::Terminal;

/// The maximum time for a guest's boot on a busy machine.
const BOOT: Duration = Duration::from_secs(300);

/// The time that a verb has for each VM. What is well needs a fraction of it, also on a busy machine.
const TIME: &str = "30s";

/// How many seconds a run may take on a busy machine: a host is waited for, and then a VM.
const LONGEST: u64 = 200;

const CHANNEL: &str = "org.atp.test.channel";

/// A VM of a host whose link is lost, and one of a host whose daemon hangs, each with how it ends.
const LOST: [(&str, &str); 2] = [("h2/vm1", "host-unreachable"), ("h3/vm1", "connect-timeout")];

/// How a verb ends that QEMU does not answer.
const HANGS: &[&str] = &["timeout unknown call-timeout"];
/// How one ends that is not sent, as another command waits for QEMU.
const BUSY: &[&str] = &["failed none monitor-busy"];
/// How one ends that asks the guest's agent. libvirt waits for it for the whole seconds that are left: whether its answer, on a busy
/// machine, or the deadline is first is chance.
const SILENT: &[&str] =
    &["timeout none agent-unresponsive", "failed none agent-unresponsive", "timeout none call-timeout"];
const LOOKS: &[&str] = &["ok none"];

/// A verb, in which `VM` stands for VMs, and `NAME` for the name of the one that hangs.
struct Verb {
    line: String,
    /// A VM of `h1` that is well.
    well: &'static str,
    /// The one that hangs. Verbs that wait for QEMU, or for the agent, have one each.
    hangs: &'static str,
    /// How it ends if QEMU hangs; none where another test tries that.
    hung: Option<&'static [&'static str]>,
    /// How it ends if the command of another client waits for that QEMU; none if the agent is asked, or nothing.
    held: Option<&'static [&'static str]>,
}

/// The VM whose QEMU is asked by one of the verbs, and whose monitor is then occupied.
const HELD: &str = "ill4";

/// The table. What writes to the disk of a VM that is well does it to one that is shut off, as that takes the least time.
fn verbs(folder: &Path) -> Vec<Verb> {
    let folder = folder.display();
    let verb = |line: String, well, hangs, hung, held| Verb { line, well, hangs, hung, held };
    vec![
        verb("snapshot list VM".into(), "off1", "ill5", Some(LOOKS), Some(LOOKS)),
        verb("snapshot create VM new".into(), "off1", "ill1", Some(HANGS), Some(BUSY)),
        verb("snapshot delete VM spare --yes".into(), "off2", "ill2", Some(HANGS), Some(BUSY)),
        // libvirt ends a QEMU that does not answer after a while: `snapshots.rs`.
        verb("snapshot revert VM spare --yes".into(), "off3", "ill5", None, Some(BUSY)),
        verb("vm save VM --yes".into(), "on", "ill3", Some(HANGS), Some(BUSY)),
        verb("vm nmi VM --yes".into(), "vm2", HELD, Some(HANGS), Some(BUSY)),
        verb("vm restore VM".into(), "vm2", "ill5", Some(&["unchanged none"]), Some(BUSY)),
        verb("vm autostart on VM".into(), "off1", "ill5", Some(&["ok done"]), Some(BUSY)),
        verb("vm xml VM".into(), "off1", "ill5", Some(LOOKS), Some(LOOKS)),
        verb(format!("console VM -d {folder}/consoles"), "vm2", "ill5", Some(LOOKS), None),
        // These have one selector.
        verb(format!("cp -r {folder}/tree h*/{{vm2,NAME}}:/tmp/tree"), "vm2", "ill5", Some(SILENT), None),
        verb(format!("cp -r h*/{{vm2,NAME}}:/tmp/kept {folder}"), "vm2", "ill6", Some(SILENT), None),
    ]
}

impl Verb {
    fn start(&self, bed: &Bed, vms: &[&str]) -> Running {
        let words = self.line.split(' ').flat_map(|word| match word {
            "VM" => vms.to_vec(),
            word => vec![word],
        });
        let words: Vec<String> = ["--timeout", TIME]
            .into_iter()
            .chain(words)
            .map(|word| word.replace("NAME", self.hangs))
            .collect();
        bed.atp(&words.iter().map(String::as_str).collect::<Vec<_>>()).output("json").start()
    }

    /// Asserts that the VM that is well was worked on.
    #[track_caller]
    fn worked(&self, run: &Run) {
        let outcome = run.outcome(&format!("h1/{}", self.well));
        assert!(["ok", "unchanged"].contains(&outcome.status.as_str()), "{}: {outcome:?}", self.line);
    }

    /// Asserts that a VM or a host ended in one of these ways, and that an error says what to do.
    #[track_caller]
    fn ended(&self, run: &Run, name: &str, ends: &[&str]) {
        run.took_between(0, LONGEST);
        let outcome = run.outcome(name);
        let found = outcome.brief();
        assert!(ends.iter().any(|end| found == format!("{name} {end}")), "{}: {found}\n{run:#?}", self.line);
        let has_hint = |hint: &Option<String>| hint.as_ref().is_some_and(|hint| !hint.is_empty());
        let error = outcome.error.as_ref();
        assert!(error.is_none_or(|error| has_hint(&error.hint)), "{}: {outcome:?}", self.line);
    }
}

#[test]
fn under_a_hung_qemu_a_hung_daemon_and_a_lost_link_each_verb_works_on_what_is_well() {
    let bed = bed();
    let [h1, h2, h3] = ["h1", "h2", "h3"].map(|host| bed.host(host).unwrap());
    let [.., on] =
        ["off1", "off2", "off3", "on"].map(|name| h1.define_guest_with(name, DiskFormat::Qcow2).unwrap());
    let hung = ["ill1", "ill2", "ill3", HELD, "ill5", "ill6"]
        .map(|name| h1.define_guest_with(name, DiskFormat::Qcow2).unwrap());
    let [_, .., ill5, ill6] = &hung;
    for guest in [ill5, ill6] {
        guest.start().unwrap();
    }
    bed.run(&["snapshot", "create", "h1/{off2,off3,ill2,ill4}", "spare"]).exits_with(0);
    // Only the agent is waited for until a guest has booted.
    for guest in hung[..4].iter().chain([&on]) {
        guest.start().unwrap();
    }
    for guest in [ill5, ill6] {
        guest.wait_agent(BOOT).unwrap();
    }
    bed.run(&["exec", "h1/vm2", "--", "mkdir", "-p", "/tmp/kept"]).exits_with(0);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("tree/in")).unwrap();
    fs::write(folder.path().join("tree/in/file"), "text").unwrap();
    let verbs = verbs(folder.path());

    // What is sent waits for as long as QEMU hangs, so no two verbs that ask it have one VM.
    hung.iter().for_each(|guest| guest.pause_qemu().unwrap());
    h2.link_down().unwrap();
    h3.pause_daemon().unwrap();
    let lost = LOST.map(|(vm, _)| vm);
    let runs: Vec<Running> = verbs
        .iter()
        .map(|verb| {
            let [well, ill] = [verb.well, verb.hangs].map(|name| format!("h1/{name}"));
            let ill = verb.hung.map(|_| ill.as_str());
            verb.start(&bed, &[&[&*well], ill.as_slice(), &lost].concat())
        })
        .collect();
    let terminals = [(); 2].map(|()| Terminal::open());
    let attach =
        |(vm, terminal): (&&str, &Terminal)| terminal.start(bed.atp(&["--timeout", TIME, "attach", vm]));
    let attached: Vec<_> = lost.iter().zip(&terminals).map(attach).collect();
    let channel =
        |vm| bed.atp(&["--timeout", TIME, "channel", vm, CHANNEL, "--idle", "3s"]).stdin("text").start();
    // What is written waits in a buffer, and nothing comes.
    let of_hung = channel("h1/ill5");
    let channels = lost.map(channel);

    // The interrupt of another client waits. After 5 s (`calls.monitor_busy_after`) nothing more is sent to that QEMU.
    becomes("the monitor", BOOT, true, || {
        let control = h1.virsh(&["domcontrol", HELD]).unwrap();
        let seconds = control.trim().strip_prefix("occupied (").and_then(|rest| rest.strip_suffix("s)"));
        seconds.is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 5.5)
    });
    let held = format!("h1/{HELD}");
    let of_held: Vec<_> =
        verbs.iter().filter_map(|verb| Some((verb, verb.held?, verb.start(&bed, &[&held])))).collect();
    for (verb, ends, run) in of_held {
        verb.ended(&run.finish(), &held, ends);
    }

    let stats = bed.run(&["stats", "h1/vm2", lost[0], lost[1], "--interval", "8s"]);
    stats.exits_with(1).took_between(0, LONGEST);
    assert!(stats.stderr.contains("h2: stale") && stats.stderr.contains("h3: stale"), "{}", stats.stderr);
    let rounds: Value = serde_json::from_str(&stats.stdout()).unwrap();
    assert_eq!(rounds[0]["vms"][0]["vm"], "vm2", "{rounds}");
    assert!(rounds[0]["vms"][0]["cpu"]["percent"].is_number(), "{rounds}");
    let file = folder.path().join("reserved").display().to_string();
    let reserve = ["reserve", lost[0], "h1/vm2", lost[1], "--for", "1h", "--owner", "job", "--file", &file];
    let reserved = bed.run(&reserve);
    reserved.exits_with(0).took_between(0, LONGEST);
    assert!(reserved.stderr.contains("host h2: ") && reserved.stderr.contains("host h3: "), "{reserved:#?}");
    let granted: Value = serde_json::from_str(&reserved.stdout()).unwrap();
    assert_eq!((&granted[0]["host"], &granted[0]["vm"]), (&"h1".into(), &"vm2".into()));

    for (verb, run) in verbs.iter().zip(runs) {
        let run = run.finish();
        verb.worked(&run);
        if let Some(ends) = verb.hung {
            verb.ended(&run, &format!("h1/{}", verb.hangs), ends);
        }
        for (vm, end) in LOST {
            // A VM that is named has the outcome itself.
            let name = if verb.line.contains("NAME") { &vm[..2] } else { vm };
            verb.ended(&run, name, &[&format!("unreachable none {end}")]);
        }
    }
    let of_hung = of_hung.finish();
    assert_eq!(of_hung.exits_with(0).stdout(), "");
    for (vm, channel) in lost.iter().zip(channels) {
        let channel = channel.finish();
        channel.exits_with(1).took_between(0, LONGEST);
        assert!(channel.stderr.contains(&format!("host {}: ", &vm[..2])), "{}", channel.stderr);
    }
    for ((vm, mut attached), terminal) in lost.iter().zip(attached).zip(&terminals) {
        assert_eq!(attached.wait().unwrap().code(), Some(1), "{}", terminal.text());
        terminal.shows(&format!("host {}: ", &vm[..2]));
    }
    hung.iter().for_each(|guest| guest.kill_qemu().unwrap());
    h2.link_up().unwrap();
    h3.resume_daemon().unwrap();
}

#[test]
fn on_a_full_disk_each_verb_says_so_and_leaves_the_vm_as_it_was() {
    const NO_SPACE: &str = "No space left on device";
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let small = host.small_folder().unwrap();
    let guest = host.define_guest_with("full", DiskFormat::Qcow2).unwrap();
    host.define_guest_with("roomy", DiskFormat::Qcow2).unwrap();
    let write = "mkdir -p /tmp/tree && head -c 100000 /dev/zero > /tmp/tree/large";
    bed.run(&["exec", "h1/vm1", "--shell", "--", write]).exits_with(0);
    // The disk of one guest is on the host's full disk.
    fs::copy(guest.disk(), small.outside.join("image")).unwrap();
    let [from, to] = [guest.disk(), small.inside.join("image")].map(|path| path.display().to_string());
    let definition = tempfile::NamedTempFile::new().unwrap();
    let xml = host.virsh(&["dumpxml", guest.uuid()]).unwrap();
    fs::write(definition.path(), xml.replace(&from, &to)).unwrap();
    host.virsh(&["define", definition.path().to_str().unwrap()]).unwrap();
    bed.run(&["snapshot", "create", "h1/full", "clean"]).exits_with(0);
    guest.start().unwrap();
    bed.run(&["vm", "save", "h1/full", "--timeout", "2m"]).exits_with(0);
    // As much as there is space for.
    let _full = fs::write(small.outside.join("ballast"), vec![0; 4 << 20]);

    // These write nothing, or only where there is something already.
    for (args, state) in [
        (&["vm", "restore", "h1/full"][..], "running"),
        (&["vm", "destroy", "h1/full"], "shut off"),
        (&["snapshot", "revert", "h1/full", "clean"], "shut off"),
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(0).brief(), ["h1/full ok done"], "{run:#?}");
        assert_eq!(guest.state().unwrap(), state);
    }
    let create = bed.run(&["snapshot", "create", "h1/full", "h1/roomy", "new"]);
    assert_eq!(
        create.exits_with(1).brief(),
        ["h1/full failed unknown libvirt-error", "h1/roomy ok done"],
        "{create:#?}"
    );
    let causes = &create.outcome("h1/full").failure().causes.join("\n");
    assert!(causes.contains(NO_SPACE), "{causes}");
    let snapshots = || {
        let list = bed.run(&["snapshot", "list", "h1/full"]);
        list.exits_with(0).outcomes()[0].data["snapshots"].as_array().map(Vec::len)
    };
    assert_eq!(snapshots(), Some(1));
    // The only one leaves no list of them that would need room.
    let delete = bed.run(&["snapshot", "delete", "h1/full", "clean"]);
    assert_eq!(delete.exits_with(0).brief(), ["h1/full ok done"], "{delete:#?}");
    assert_eq!(snapshots(), Some(0));

    // The memory is saved to a file of the VM's name, here through a link.
    symlink(small.inside.join("memory"), host.folder().join("lib/qemu/save/vm2.save")).unwrap();
    let save = bed.run(&["vm", "save", "h1/vm2", "--timeout", "2m"]);
    assert_eq!(save.exits_with(1).brief(), ["h1/vm2 failed none libvirt-error"], "{save:#?}");
    let causes = &save.outcome("h1/vm2").failure().causes.join("\n");
    assert!(causes.contains(NO_SPACE), "{causes}");
    assert_eq!(host.guest("vm2").unwrap().state().unwrap(), "running");

    let [console, tree, reserved] =
        ["consoles", "tree", "reserved"].map(|name| small.outside.join(name).display().to_string());
    fs::create_dir(&console).unwrap();
    for args in [
        &["console", "h1/vm1", "-d", &console, "--timeout", "20s"][..],
        &["cp", "-r", "h1/vm1:/tmp/tree", &tree],
    ] {
        let run = bed.run(args);
        assert_eq!(run.exits_with(1).brief(), ["h1/vm1 failed none local-file-error"], "{run:#?}");
        assert!(run.stdout().contains(NO_SPACE), "{run:#?}");
    }
    let reserve = bed.run(&["reserve", "h1/vm1", "--for", "1h", "--owner", "job", "--file", &reserved]);
    assert!(reserve.exits_with(2).stderr.contains(NO_SPACE), "{reserve:#?}");
    assert!(!Path::new(&reserved).exists() && !Path::new(&tree).exists());
    // A VM that is started with its host has a link, which takes no room, but is one more file.
    let links = host.folder().join("etc/qemu/autostart");
    let there = small.outside.join("autostart");
    fs::create_dir(&there).unwrap();
    let _none = fs::remove_dir(&links);
    symlink(small.inside.join("autostart"), &links).unwrap();
    let files = small.outside.join("files");
    fs::create_dir(&files).unwrap();
    let _last = (0..).map(|number| fs::write(files.join(number.to_string()), "")).find(Result::is_err);
    let run = bed.run(&["vm", "autostart", "on", "h1/roomy", "h2/vm1"]);
    assert_eq!(
        run.exits_with(1).brief(),
        ["h1/roomy failed none libvirt-error", "h2/vm1 ok done"],
        "{run:#?}"
    );
    let off = bed.run(&["vm", "autostart", "off", "h1/roomy", "h2/vm1"]);
    assert_eq!(off.exits_with(0).brief(), ["h1/roomy unchanged none", "h2/vm1 ok done"], "{off:#?}");
    fs::remove_file(links).unwrap();
    for folder in [files, there] {
        fs::remove_dir_all(folder).unwrap();
    }
    bed.run(&["exec", "h1/vm1", "--", "rm", "-r", "/tmp/tree"]).exits_with(0);
    for name in ["image", "ballast", "memory", "reserved.lock"] {
        fs::remove_file(small.outside.join(name)).unwrap();
    }
    fs::remove_dir_all(console).unwrap();
}
