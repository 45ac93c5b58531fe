//! `virsh`, libvirt's own client: the reference for what a daemon answers.

use std::process::Stdio;
use std::time::Duration;

use atp_fleet::{Fleet, FleetOptions};
use tokio::process::Command;
use tokio::time::timeout;

/// Far longer than `virsh` takes.
const LIMIT: Duration = Duration::from_secs(60);

async fn virsh(uri: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("virsh");
    command.args(["--connect", uri]).args(arguments);
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await.expect("virsh ends");
    let output = output.expect("virsh is installed; `cargo xtask setup` does it");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The lines of a text, with each run of spaces as one.
fn lines(text: &str) -> Vec<String> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    words.filter(|line| !line.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn virsh_sees_hosts_and_vms() {
    let fleet = Fleet::start(FleetOptions { hosts: 300, vms: 3, ..FleetOptions::default() }).await.unwrap();
    let host = fleet.host(300).unwrap();
    assert_eq!(host.uri(), format!("qemu+tcp://127.0.2.44:{}/system", fleet.port()));
    let uri = &host.uri();
    host.vm(2).unwrap().set_fault(atp_fleet::VmFault::ShutOff);
    assert_eq!(
        lines(&virsh(uri, &["list", "--all"]).await.unwrap())[2..],
        ["1 vm1 running", "3 vm3 running", "- vm2 shut off"]
    );
    assert_eq!(lines(&virsh(uri, &["hostname"]).await.unwrap()), ["h300"]);
    assert_eq!(lines(&virsh(uri, &["domcontrol", "vm1"]).await.unwrap()), ["ok"]);
    assert_eq!(
        lines(&virsh(uri, &["domstats", "--state", "vm2"]).await.unwrap()),
        ["Domain: 'vm2'", "state.state=5", "state.reason=2"]
    );
    let info = lines(&virsh(uri, &["dominfo", "vm1"]).await.unwrap());
    for line in ["OS Type: hvm", "State: running", "CPU(s): 2", "Max memory: 1048576 KiB", "Persistent: yes"]
    {
        assert!(info.iter().any(|found| found == line), "{line} in {info:?}");
    }
    assert!(virsh(uri, &["dumpxml", "vm3"]).await.unwrap().contains("<name>vm3</name>"));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("vm1.ppm");
    virsh(uri, &["screenshot", "vm1", &picture.display().to_string()]).await.unwrap();
    assert!(std::fs::read(picture).unwrap().starts_with(b"P6\n16 16\n"));
    assert!(virsh(uri, &["dominfo", "nope"]).await.unwrap_err().contains("failed to get domain 'nope'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn virsh_changes_vms_and_receives_events() {
    let fleet = Fleet::start(FleetOptions::default()).await.unwrap();
    let uri = &fleet.host(1).unwrap().uri();
    let watching = ["event", "vm1", "lifecycle", "--loop", "--timeout", "600"];
    let mut command = Command::new("virsh");
    command.args(["--quiet", "--connect", uri]).args(watching).stdout(Stdio::piped()).kill_on_drop(true);
    let mut watcher = command.spawn().unwrap();
    while fleet
        .report()
        .hosts
        .get("h1")
        .is_none_or(|host| host.calls.of("virConnectDomainEventRegisterAny") == 0)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let qga = r#"{"execute":"guest-exec","arguments":{"path":"true"}}"#;
    for (arguments, answer) in [
        (&["suspend", "vm1"][..], "Domain 'vm1' suspended"),
        (&["domstate", "vm1", "--reason"], "paused (user)"),
        (&["qemu-monitor-command", "vm1", r#"{"execute":"cont"}"#], r#"{"id":"libvirt-1","return":{}}"#),
        (&["domstate", "vm1", "--reason"], "running (unpaused)"),
        (&["qemu-agent-command", "vm1", qga], r#"{"return":{"pid":1}}"#),
        (&["desc", "vm1", "--title", "one"], "Domain title updated successfully"),
        (&["desc", "vm1", "--title"], "one"),
        (&["autostart", "vm1"], "Domain 'vm1' marked as autostarted"),
        (&["shutdown", "vm1"], "Domain 'vm1' is being shutdown"),
        (&["start", "vm1"], "Domain 'vm1' started"),
        (&["reset", "vm1"], "Domain 'vm1' was reset"),
        (&["destroy", "vm1"], "Domain 'vm1' destroyed"),
    ] {
        let printed = virsh(uri, arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        assert_eq!(lines(&printed), [answer], "{arguments:?}");
    }
    let mut told = Vec::new();
    let mut out = tokio::io::BufReader::new(watcher.stdout.take().unwrap());
    while told.len() < 7 {
        let mut line = String::new();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line);
        let read = timeout(LIMIT, read).await.expect("an event comes").unwrap();
        assert_ne!(read, 0, "virsh has ended: {told:?}");
        told.extend(line.trim_end().strip_prefix("event 'lifecycle' for domain 'vm1': ").map(str::to_owned));
    }
    watcher.kill().await.unwrap();
    assert_eq!(
        told,
        [
            "Suspended Paused",
            "Resumed Unpaused",
            "Shutdown Finished",
            "Stopped Shutdown",
            "Resumed Unpaused",
            "Started Booted",
            "Stopped Destroyed"
        ]
    );
    assert_eq!(fleet.host(1).unwrap().vm(1).unwrap().counts().programs.of("true"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn virsh_is_refused_where_a_host_refuses() {
    let faults = "refused=1".parse().unwrap();
    let fleet = Fleet::start(FleetOptions { faults, ..FleetOptions::default() }).await.unwrap();
    let host = fleet.host(1).unwrap();
    let error = virsh(&host.uri(), &["hostname"]).await.unwrap_err();
    assert!(error.contains("Connection refused"), "{error}");
    assert_eq!(host.counts().connections, 0);
}
