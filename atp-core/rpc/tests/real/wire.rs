//! The bytes: what this client sends for a call is what `virsh` sends for it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atp_rpc::domain::{Metadata, xml};
use atp_rpc::frame::{Frame, FrameCodec, Header};
use atp_rpc::lifecycle::{SuspendTarget, destroy};
use atp_rpc::message::Parameters;
use atp_rpc::monitor::KeycodeSet;
use atp_rpc::numbers::{Kind, Program};
use atp_rpc::{CallError, ConnectOptions, Connection, EventId, agent, domain, stats};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio_util::codec::Decoder;

use crate::daemon::Daemon;

type Calls = Arc<Mutex<Vec<Frame>>>;

/// Passes everything between clients at a socket and the daemon, and keeps the clients' calls.
fn record(at: &Path, daemon: &Path) -> Calls {
    let calls = Calls::default();
    let listener = UnixListener::bind(at).unwrap();
    let (kept, daemon) = (calls.clone(), daemon.to_owned());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let server = UnixStream::connect(&daemon).await.unwrap();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move {
                let _over = copy(&mut from_server, &mut to_client).await;
            });
            let kept = kept.clone();
            tokio::spawn(async move {
                let (mut codec, mut seen) = (FrameCodec::default(), BytesMut::new());
                loop {
                    let mut chunk = [0; 4096];
                    let Ok(count @ 1..) = from_client.read(&mut chunk).await else { return };
                    seen.extend_from_slice(&chunk[..count]);
                    while let Some(frame) = codec.decode(&mut seen).unwrap() {
                        kept.lock().unwrap().push(frame);
                    }
                    to_server.write_all(&chunk[..count]).await.unwrap();
                }
            });
        }
    });
    calls
}

/// Everything that is a call, without its serial, which each client counts in its own way.
fn take(calls: &Calls) -> Vec<Frame> {
    let taken = std::mem::take(&mut *calls.lock().unwrap());
    let calls = taken.into_iter().filter(|frame| frame.header.kind == Kind::Call);
    calls.map(|frame| Frame { header: Header { serial: 0, ..frame.header }, ..frame }).collect()
}

/// Runs `virsh`, which may fail: the test driver does not know all calls, but is sent them.
async fn virsh(uri: &str, arguments: &[&str]) {
    let output = Command::new("virsh").args(["-c", uri]).args(arguments).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("failed to connect") && !said.contains("expected"), "{arguments:?}: {said}");
}

type Made<T> = Result<T, CallError>;

/// Compares what a call of ours sends with what a command of virsh does: that first, because the number of a domain,
/// which is a part of it, changes when its state does.
macro_rules! same {
    ($bed:ident, $arguments:expr, $number:expr, $call:expr) => {{
        virsh(&$bed.uri, &$arguments).await;
        let theirs = take(&$bed.calls);
        let _result: Made<_> = $call.await;
        let ours = take(&$bed.calls);
        let is_it = |frame: &&Frame| frame.header.procedure == $number;
        let ours = ours.iter().rfind(is_it).expect("the call was made");
        let alike = theirs.contains(ours);
        let theirs: Vec<_> = theirs.iter().filter(is_it).collect();
        if !alike {
            $bed.unlike.lock().unwrap().push(format!(
                "{:?}:
ours   {ours:?}
theirs {theirs:?}",
                $arguments
            ));
        }
    }};
}

struct Bed {
    calls: Calls,
    uri: String,
    unlike: Mutex<Vec<String>>,
}

impl Bed {
    fn start(daemon: &Daemon) -> Self {
        let at = daemon.folder().join("recorder");
        let calls = record(&at, &daemon.socket());
        let uri = format!("test+unix:///default?socket={}", at.display());
        Bed { calls, uri, unlike: Mutex::default() }
    }
}

#[tokio::test]
async fn calls_are_those_of_virsh() {
    let daemon = Daemon::start();
    let bed = Bed::start(&daemon);
    let c = &Connection::open(&bed.uri, &ConnectOptions::default()).await.unwrap();
    let opening = take(&bed.calls);
    virsh(&bed.uri, &["hostname"]).await;
    let theirs = take(&bed.calls);
    // But for those that measure how many the daemon takes.
    let measures = |frame: &&Frame| frame.header.procedure == 6;
    for frame in opening.iter().filter(|frame| !measures(frame)) {
        assert!(theirs.contains(frame), "ours {frame:?}\ntheirs {theirs:?}");
    }
    assert!(opening.iter().any(|frame| frame.header.procedure == 1));

    let vm = &c.domain_by_name("test").await.unwrap();
    let namespace = "urn:example:1";
    let element = Metadata::Element { namespace };
    same!(bed, ["hostname"], 59, c.hostname());
    same!(bed, ["nodeinfo"], 6, c.node_info());
    same!(bed, ["capabilities"], 7, c.capabilities());
    same!(bed, ["freecell"], 102, c.free_memory());
    same!(bed, ["list", "--all"], 273, c.list_domains(domain::list::ACTIVE | domain::list::INACTIVE));
    same!(bed, ["domid", "test"], 23, c.domain_by_name("test"));
    same!(bed, ["domname", &vm.uuid.to_string()], 24, c.domain_by_uuid(vm.uuid));
    same!(bed, ["domname", &vm.id.to_string()], 22, c.domain_by_id(vm.id));
    same!(bed, ["domstate", "test"], 212, c.domain_state(vm));
    same!(bed, ["dominfo", "test"], 16, c.domain_info(vm));
    same!(bed, ["dominfo", "test"], 15, c.domain_autostart(vm));
    same!(bed, ["dominfo", "test"], 151, c.domain_is_persistent(vm));
    same!(bed, ["domcontrol", "test"], 229, c.domain_control_info(vm));
    same!(bed, ["dumpxml", "test"], 14, c.domain_xml(vm, 0));
    same!(bed, ["dumpxml", "test", "--security-info"], 14, c.domain_xml(vm, xml::SECURE));
    same!(bed, ["metadata", "test", namespace], 265, c.domain_metadata(vm, element, 0));
    same!(
        bed,
        ["metadata", "test", namespace, "--key", "k", "--set", "<a/>"],
        264,
        c.set_domain_metadata(vm, element, Some("<a/>"), Some("k"), 0)
    );
    same!(bed, ["autostart", "test"], 29, c.set_domain_autostart(vm, true));
    same!(bed, ["domstats", "--state"], 344, c.domain_stats(&[], stats::group::STATE, 0));
    same!(
        bed,
        ["send-key", "test", "29", "56", "--holdtime", "7"],
        226,
        c.send_keys(vm, KeycodeSet::Linux, &[29, 56], Duration::from_millis(7))
    );
    same!(bed, ["inject-nmi", "test"], 210, c.inject_nmi(vm));
    same!(bed, ["domjobinfo", "test"], 163, c.domain_job_info(vm));
    same!(bed, ["suspend", "test"], 34, c.suspend_domain(vm));
    same!(bed, ["resume", "test"], 28, c.resume_domain(vm));
    same!(bed, ["reboot", "test"], 27, c.reboot_domain(vm, 0));
    same!(bed, ["reset", "test"], 245, c.reset_domain(vm));
    same!(bed, ["dompmwakeup", "test"], 267, c.wake_domain(vm));
    let target = SuspendTarget::Disk;
    same!(
        bed,
        ["dompmsuspend", "test", "disk", "--duration", "7"],
        261,
        c.pm_suspend_domain(vm, target, Duration::from_secs(7))
    );
    same!(bed, ["domfsfreeze", "test", "/a", "/b"], 335, c.freeze_file_systems(vm, &["/a", "/b"]));
    same!(bed, ["domfsthaw", "test"], 336, c.thaw_file_systems(vm, &[]));
    same!(bed, ["domfstrim", "test", "--minimum", "5"], 294, c.trim_file_systems(vm, 5));
    same!(bed, ["set-user-password", "test", "u", "p", "--encrypted"], 357, {
        c.set_user_password(vm, "u", "p", true)
    });
    let kinds = agent::guest_info::OS | agent::guest_info::HOSTNAME;
    same!(bed, ["guestinfo", "test", "--os", "--hostname"], 418, async {
        let info: Made<Parameters> = c.guest_info(vm, kinds).await;
        info
    });
    same!(bed, ["domhostname", "test"], 277, c.guest_hostname(vm));
    let file = daemon.folder().join("picture").display().to_string();
    same!(bed, ["screenshot", "test", &file, "--screen", "0"], 211, c.screenshot(vm, 0, 1 << 20));
    let events = c.events(9);
    let lifecycle = EventId::Lifecycle;
    same!(bed, ["event", "--event", "lifecycle", "--timeout", "1"], 316, c.watch(&events, lifecycle, None));
    same!(bed, ["shutdown", "test"], 33, c.shut_domain_down(vm, 0));
    let vm = &c.domain_by_name("test").await.unwrap();
    same!(bed, ["start", "test"], 9, c.start_domain(vm));
    let vm = &c.domain_by_name("test").await.unwrap();
    same!(bed, ["destroy", "test", "--graceful"], 234, c.destroy_domain(vm, destroy::GRACEFUL));
    c.start_domain(vm).await.unwrap();
    let vm = &c.domain_by_name("test").await.unwrap();
    same!(bed, ["destroy", "test"], 12, c.destroy_domain(vm, 0));
    let unlike = bed.unlike.lock().unwrap();
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

/// The QEMU program's calls reach a daemon whose driver has no QEMU too.
#[tokio::test]
async fn qemus_own_calls_are_those_of_virsh() {
    let daemon = Daemon::start();
    let bed = Bed::start(&daemon);
    let c = &Connection::open(&bed.uri, &ConnectOptions::default()).await.unwrap();
    let vm = &c.domain_by_name("test").await.unwrap();
    take(&bed.calls);
    for (arguments, number) in [
        (&["qemu-monitor-command", "test", "{}"][..], 1),
        (&["qemu-agent-command", "test", "--timeout", "9", "{}"], 3),
        (&["qemu-monitor-event", "test", "--event", "STOP", "--timeout", "1"], 4),
    ] {
        let events = c.events(1);
        let failed = match number {
            1 => c.monitor_command(vm, "{}").await.is_err(),
            3 => {
                let timeout = agent::AgentTimeout::After(Duration::from_secs(9));
                c.agent_command(vm, "{}", timeout).await.is_err()
            }
            _ => c.watch_monitor(&events, Some("STOP"), Some(vm)).await.is_err(),
        };
        assert!(failed, "the test driver has no QEMU");
        let ours = take(&bed.calls);
        virsh(&bed.uri, arguments).await;
        let theirs = take(&bed.calls);
        let ours: Vec<_> = ours.iter().filter(|frame| frame.header.program == Program::QEMU).collect();
        let theirs: Vec<_> = theirs.iter().filter(|frame| frame.header.program == Program::QEMU).collect();
        assert_eq!(ours, theirs, "{arguments:?}");
        assert_eq!(ours[0].header.procedure, number);
    }
}
