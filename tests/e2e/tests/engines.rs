//! Both engines are asked the same, and answer the same: values, errors with their numbers, effects and hints, events,
//! streams, and the outcomes of every verb.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use atp_e2e::{Atp, Bed, Run, becomes, bed, eventually, within};
use atp_testbed::{Guest, Host};
use atp_transport::domain::{DomainCounters, DomainInfo, Lifecycle};
use atp_transport::{
    ChannelOptions, DomainChannel, DomainEvents, Engine, ErrorKind, HostInfo, LibvirtConnection, Result,
    TransportConfig, TransportManager, WatchItem, WatchOptions,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::load::occupied_for_seconds;
use crate::support::{QUERY_STATUS, in_seconds, quick};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(400);
/// Time limit for a change that happens soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);
const CHANNEL: &str = "org.atp.test.channel";
/// The id of the host of each engine.
const ID: &str = "h";
/// Names in JSON of what differs from host to host, or from one moment to the next.
const VARIES: [&str; 5] = ["uuid", "id", "duration_ms", "connect_ms", "latency_ms"];

/// An engine and a host of its own: what one engine does is not seen by the other, and the hosts are alike.
struct Side {
    engine: Engine,
    host: Host,
}

fn sides(bed: &Bed) -> [Side; 2] {
    [(Engine::Native, "h1"), (Engine::Library, "h2")]
        .map(|(engine, id)| Side { engine, host: bed.host(id).unwrap() })
}

impl Side {
    fn guest(&self, name: &str) -> Guest {
        self.host.guest(name).unwrap()
    }

    fn uuid(&self, name: &str) -> Uuid {
        self.guest(name).uuid().parse().unwrap()
    }

    /// A manager without connections, whose host has this URI.
    async fn manager(&self, uri: String) -> TransportManager {
        let mut config = TransportConfig { engine: self.engine, ..quick() };
        config.pool.min_connections_per_host = 0;
        config.reconnect.max_attempts = 1;
        config.retry.max_tries = 1;
        let manager = TransportManager::new(config);
        manager.add_host(HostInfo::from_uri(ID, uri)).await.unwrap();
        manager
    }

    /// `atp` with the host as its inventory.
    fn atp(&self, args: &[&str]) -> Atp {
        let atp = Atp::new(args).output("json").env("ATP_TRANSPORT__ENGINE", self.engine.as_str());
        atp.env("ATP_HOSTS__H__URI", &self.host.uri())
    }
}

/// Text without what differs by nature: UUIDs, addresses, times, and why a VM runs.
fn masked(text: &str) -> String {
    let is_delimiter = |c: char| !(c.is_alphanumeric() || c == '-' || c == '.');
    let word = |piece: &str| {
        let end = piece.trim_end_matches(|c| is_delimiter(c) || c == '.');
        let number = end.trim_end_matches(|c: char| c.is_alphabetic());
        let is_time = number != end && number.parse::<f64>().is_ok();
        let mask = match end {
            _ if end.parse::<Uuid>().is_ok() => "UUID",
            _ if end.parse::<IpAddr>().is_ok() => "ADDRESS",
            _ if is_time || end.contains('.') && end.parse::<f64>().is_ok() => "TIME",
            "h1" | "h2" | "h1.atp.test" | "h2.atp.test" => "HOST",
            // Of a VM that has just started, libvirt records the one or the other: that depends on when it gets QEMU's event.
            "Unpaused" => "Booted",
            "unpaused" => "booted",
            // libvirt counts the commands to the monitor of a VM, its own as well.
            _ if end.strip_prefix("libvirt-").is_some_and(|count| count.parse::<u64>().is_ok()) => {
                "libvirt-N"
            }
            same => same,
        };
        format!("{mask}{}", &piece[end.len()..])
    };
    text.split_inclusive(is_delimiter).map(word).collect()
}

/// All that a caller can learn from a result.
fn told<T: std::fmt::Debug>(question: &str, result: Result<T>) -> String {
    let answer = match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => {
            // Each engine says in its own words how a connection ended.
            let is_lost = error.kind() == ErrorKind::ConnectionLost;
            let libvirt = error
                .libvirt()
                .map(|error| (error.code, error.domain, error.level, (!is_lost).then_some(&error.message)));
            format!(
                "{error}\n  {} {} retryable={} {libvirt:?}\n  hint: {}",
                error.kind(),
                error.effect(),
                error.is_retryable(),
                error.hint()
            )
        }
    };
    masked(&format!("{question}: {answer}"))
}

/// Fails the test if the engines differ in anything, and then shows all of it.
#[track_caller]
fn are_same(situation: &str, [native, library]: [Vec<String>; 2]) {
    assert!(!native.is_empty());
    let differences: Vec<_> =
        native.iter().zip(&library).filter(|(native, library)| native != library).collect();
    assert!(
        differences.is_empty() && native.len() == library.len(),
        "{situation}: native, library: {differences:#?}"
    );
}

/// Asks everything that changes nothing, of one VM.
async fn questions(manager: &TransportManager, vm: Uuid, name: &'static str, seconds: u64) -> Vec<String> {
    let mut answers = Vec::new();
    macro_rules! ask {
        ($($question:literal => |$connection:ident| $asked:expr;)*) => {$(
            let work = |$connection: LibvirtConnection| async move { $asked };
            answers.push(told($question, manager.execute_on_host_with(ID, in_seconds(seconds), work).await));
        )*};
    }
    // The daemon lists them in an order of its own.
    let listed = |mut domains: Vec<DomainInfo>| {
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        domains.into_iter().map(without_id).collect::<Vec<_>>()
    };
    ask! {
        "version" => |c| c.lib_version().await;
        "hypervisor" => |c| c.hypervisor().await;
        "host name" => |c| c.hostname().await;
        "machine" => |c| c.machine().await;
        "list" => |c| c.list_domains().await.map(listed);
        "states" => |c| c.list_domain_states().await.map(listed);
        "states of some" => |c| c.domain_states(vec![vm, Uuid::nil()]).await.map(listed);
        "by name" => |c| c.domain_by_name(name).await.map(without_id);
        "by a name with NUL" => |c| c.domain_by_name("a\0b").await.map(without_id);
        "info" => |c| c.domain_info(vm).await.map(without_id);
        "details" => |c| c.domain_details(vm).await.map(|details| (without_id(details.info), details.persistent,
            details.autostart, details.agent, details.title, details.graphics));
        "processor time" => |c| c.domain_cpu_time(vm).await.map(|time| time.is_zero());
        "labels" => |c| c.domain_labels(vec![vm]).await;
        "definition" => |c| c.domain_xml(vm, true).await.map(|xml| xml.contains(&format!("<name>{name}</name>")));
        "is started with its host" => |c| c.domain_autostart(vm).await;
        "is saved" => |c| c.domain_is_saved(vm).await;
        "snapshots" => |c| c.domain_snapshots(vm).await;
        "external snapshots" => |c| c.reverts_external_snapshots().await;
        "counters" => |c| c.domain_counters(vm).await.map(|counters| counters.map(what_is_counted));
        "all counters" => |c| c.all_counters().await.map(|mut all| {
            all.sort_by(|a, b| a.info.name.cmp(&b.info.name));
            all.into_iter().map(what_is_counted).collect::<Vec<_>>()
        });
        "monitor is free" => |c| c.monitor_is_free(vm).await;
        "monitor" => |c| c.monitor_command(vm, QUERY_STATUS).await;
        "job" => |c| c.job_progress(vm).await;
        "unknown monitor command" => |c| c.monitor_command(vm, r#"{"execute":"none"}"#).await;
        "monitor command without JSON" => |c| c.monitor_command(vm, "{").await;
        "monitor command with NUL" => |c| c.monitor_command(vm, "\0").await;
        "agent" => |c| c.agent_command(vm, r#"{"execute":"guest-ping"}"#).await;
        "unknown agent command" => |c| c.agent_command(vm, r#"{"execute":"none"}"#).await;
        "agent command without JSON" => |c| c.agent_command(vm, "{").await;
        "screenshot" => |c| c.screenshot(vm, 0, 1 << 24).await.map(|it| (it.mime, it.bytes.is_empty(), it.complete));
        "part of a screenshot" => |c| c.screenshot(vm, 0, 700).await.map(|it| (it.bytes.len(), it.complete));
        "no such screen" => |c| c.screenshot(vm, 7, 1 << 24).await.map(|it| it.mime);
    }
    let options = ChannelOptions::default();
    for (question, channel) in
        [("channel", CHANNEL), ("no such channel", "none"), ("NUL in a channel", "a\0b")]
    {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let opened = manager.open_channel(ID, vm, channel, &options, deadline).await;
        answers.push(told(question, opened.map(drop)));
    }
    answers
}

/// The VM, and what is known of it: the numbers differ.
fn what_is_counted(of: DomainCounters) -> (DomainInfo, [bool; 4], Vec<String>, usize) {
    let known =
        [of.cpu_time.is_some(), of.resident_kib.is_some(), of.unused_kib.is_some(), of.usable_kib.is_some()];
    (without_id(of.info), known, of.disks.into_iter().map(|disk| disk.name).collect(), of.interfaces.len())
}

fn without_id(info: DomainInfo) -> DomainInfo {
    DomainInfo { id: info.id.map(|_| 0), ..info }
}

/// Puts the hosts of both engines into a situation and asks all questions, of a VM with this name.
fn compare(situation: &str, name: &'static str, prepare: impl Fn(&Side), seconds: u64) {
    let bed = bed();
    let sides = sides(&bed);
    sides.iter().for_each(prepare);
    let [native, library] = sides.each_ref().map(|side| async {
        let vm = side.host.guest(name).map_or(Uuid::nil(), |guest| guest.uuid().parse().unwrap());
        questions(&side.manager(side.host.uri()).await, vm, name, seconds).await
    });
    within(LIMIT, async { are_same(situation, tokio::join!(native, library).into()) });
}

#[test]
fn engines_answer_the_same_in_every_state_of_a_vm() {
    compare("running", "vm1", |_| {}, 60);
    compare("shut off", "vm1", |side| side.guest("vm1").destroy().unwrap(), 60);
    compare("paused", "vm1", |side| drop(side.host.virsh(&["suspend", "vm1"]).unwrap()), 60);
    compare("without its agent", "vm1", without_agent, 60);
    compare("absent", "none", |_| {}, 60);
}

/// Stops the agent, and waits until the daemon has seen it: until then a command fails in another way.
fn without_agent(side: &Side) {
    side.guest("vm1").stop_agent().unwrap();
    let ping = ["qemu-agent-command", "vm1", r#"{"execute":"guest-ping"}"#];
    becomes("the agent is not connected", SOON, true, || {
        side.host.virsh(&ping).is_err_and(|error| error.to_string().contains("not connected"))
    });
}

#[test]
fn engines_answer_the_same_if_qemu_or_the_daemon_is_gone_or_hangs() {
    compare("QEMU hangs", "vm1", |side| side.guest("vm1").pause_qemu().unwrap(), 4);
    compare("the daemon is killed", "vm1", |side| side.host.kill_daemon().unwrap(), 60);
    // More than an attempt to connect takes, and what it has to wait for: each answer is that of an attempt.
    compare("the daemon hangs", "vm1", |side| side.host.pause_daemon().unwrap(), 30);
}

#[test]
fn engines_are_refused_the_same_by_a_socket_that_only_allows_to_read() {
    let bed = bed();
    let [native, library] = sides(&bed).map(|side| {
        let socket = bed.folder().join(side.host.id()).join("run/libvirt/libvirt-sock-ro");
        async move {
            let manager = side.manager(format!("qemu+unix:///system?socket={}", socket.display())).await;
            let vm = side.uuid("vm1");
            let mut answers = questions(&manager, vm, "vm1", 60).await;
            for (action, _) in ACTIONS {
                answers.push(act(&manager, vm, action).await);
            }
            answers
        }
    });
    within(LIMIT, async { are_same("read only", tokio::join!(native, library).into()) });
}

async fn act(manager: &TransportManager, vm: Uuid, action: Lifecycle) -> String {
    let work = |connection: LibvirtConnection| async move { connection.domain_lifecycle(vm, action).await };
    told(&format!("{action:?}"), manager.execute_on_host_with(ID, in_seconds(60), work).await)
}

/// What is asked for in turn, and the event that it brings if it is not refused. An event of the agent means that the guest
/// has booted.
const ACTIONS: [(Lifecycle, Option<&str>); 19] = [
    (Lifecycle::Start, None),
    (Lifecycle::Wakeup, None),
    (Lifecycle::Resume, None),
    (Lifecycle::Suspend, Some("suspended")),
    (Lifecycle::Suspend, None),
    (Lifecycle::Start, None),
    (Lifecycle::Shutdown, None),
    (Lifecycle::Reboot, None),
    (Lifecycle::Resume, Some("resumed")),
    (Lifecycle::Reset, Some("agent connected")),
    (Lifecycle::Destroy, Some("stopped")),
    (Lifecycle::Destroy, None),
    (Lifecycle::Resume, None),
    (Lifecycle::Suspend, None),
    (Lifecycle::Shutdown, None),
    (Lifecycle::Reset, None),
    (Lifecycle::Start, Some("agent connected")),
    (Lifecycle::Reboot, Some("agent connected")),
    (Lifecycle::Shutdown, Some("stopped")),
];

#[test]
fn engines_change_states_and_report_events_in_the_same_way() {
    let bed = bed();
    let [native, library] = sides(&bed).map(|side| async move {
        let (vm, absent) = (side.uuid("vm1"), Uuid::from_u128(1));
        let manager = side.manager(side.host.uri()).await;
        let mut events = manager.watch_domains(&[ID], &WatchOptions::default()).unwrap();
        let mut answers = until(&mut events, "present").await;
        for (action, event) in ACTIONS {
            let answer = act(&manager, vm, action).await;
            // A guest may be down before the daemon has the answer of its agent: then the daemon finds no VM that runs.
            let is_down = (action, event) == (Lifecycle::Shutdown, Some("stopped"))
                && answer.contains("vm-not-running");
            answers.push(if is_down { "Shutdown: ()".to_owned() } else { answer });
            if let Some(event) = event {
                answers.extend(until(&mut events, event).await);
            }
            answers.push(act(&manager, absent, action).await);
        }
        answers
    });
    within(LIMIT, async { are_same("actions", tokio::join!(native, library).into()) });
}

/// Takes events until one with this text. Those of the agent come when the guest is as far, and not in a fixed order.
async fn until(events: &mut DomainEvents, wanted: &str) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        let item = match timeout(SOON, events.next()).await {
            Ok(Some(item)) => item,
            end => panic!("{end:?} instead of {wanted:?} after {taken:#?}"),
        };
        let text = match item {
            WatchItem::Event { event, .. } => masked(&format!("{}: {}", event.name, event.kind)),
            WatchItem::Present { domains, .. } => {
                // Why a VM runs depends on the order of events: it is started paused, and goes on.
                let domains: Vec<_> = domains.iter().map(|info| (&info.name, info.state)).collect();
                format!("present: {domains:?}")
            }
            other => format!("{other:?}"),
        };
        let is_wanted = text.contains(wanted);
        if !text.contains(": agent ") {
            taken.push(text);
        }
        if is_wanted {
            // QEMU may report one restart several times.
            taken.dedup();
            return taken;
        }
    }
}

#[test]
fn engines_carry_channels_in_the_same_way() {
    let bed = bed();
    let [native, library] = sides(&bed).map(|side| async move {
        side.atp(&["exec", "vm1", "--", "channel-peer", "bytes"]).run().exits_with(0);
        let manager = side.manager(side.host.uri()).await;
        let open = |force| {
            let options = ChannelOptions { force, ..ChannelOptions::default() };
            let (manager, vm) = (manager.clone(), side.uuid("vm1"));
            async move { manager.open_channel(ID, vm, CHANNEL, &options, Instant::now() + SOON).await }
        };
        let mut channel = open(false).await.unwrap();
        let mut answers = vec![told("second", open(false).await.map(drop))];
        answers.extend([echo(&mut channel, 1).await, echo(&mut channel, 300_000).await]);

        // Another client takes it.
        let mut other = open(true).await.unwrap();
        answers.push(format!("taken: {:?}", timeout(SOON, channel.read(&mut [0])).await.unwrap()));
        answers.push(echo(&mut other, 1).await);
        answers.push(format!("finish: {:?}", timeout(SOON, other.shutdown()).await.unwrap()));
        answers.push(format!("after it: {:?}", other.read(&mut [0]).await));
        answers.push(format!("and: {:?}", other.write_all(b"x").await));

        let mut cut = open(true).await.unwrap();
        side.guest("vm1").kill_qemu().unwrap();
        // The daemon tells the end, or that its own read failed, whichever it sees first.
        let end = timeout(SOON, cut.read(&mut [0])).await.unwrap();
        let is_reset = |error: &io::Error| error.to_string().contains("cannot read from stream");
        answers.push(format!("killed: {}", end.as_ref().map_or_else(is_reset, |read| *read == 0)));
        answers
    });
    within(LIMIT, async { are_same("channels", tokio::join!(native, library).into()) });
}

/// Whether so many bytes come back.
async fn echo(channel: &mut DomainChannel, count: usize) -> String {
    let (mut read, mut write) = tokio::io::split(channel);
    let (bytes, mut back) = (vec![b'x'; count], vec![0; count]);
    let send = async {
        write.write_all(&bytes).await?;
        write.flush().await
    };
    let both = async { tokio::join!(send, read.read_exact(&mut back)) };
    let result = timeout(SOON, both).await.unwrap();
    format!("{count} bytes: {result:?}, {}", bytes == back)
}

#[test]
fn engines_report_a_daemon_that_is_killed_during_a_call_in_the_same_way() {
    let bed = bed();
    let [native, library] = sides(&bed).map(|side| async move {
        let (manager, vm) = (side.manager(side.host.uri()).await, side.uuid("vm1"));
        side.guest("vm1").pause_qemu().unwrap();
        let ask = |connection: LibvirtConnection| async move {
            let sent = tokio::sync::Notify::new();
            let command = connection.monitor_command_with(vm, QUERY_STATUS, || sent.notify_one());
            let kill = async {
                sent.notified().await;
                let host = side.host.clone();
                let kill = move || {
                    // Handed over, it may still be on its way, and would be known not to have been sent.
                    eventually("the call is at the monitor", SOON, || occupied_for_seconds(&host, 0.0));
                    host.kill_daemon().unwrap();
                };
                tokio::task::spawn_blocking(kill).await.unwrap();
            };
            tokio::join!(command, kill).0
        };
        vec![told("monitor", manager.execute_on_host_with(ID, in_seconds(60), ask).await)]
    });
    within(LIMIT, async { are_same("killed", tokio::join!(native, library).into()) });
}

/// Verbs in turn, after a fault.
#[expect(clippy::type_complexity, reason = "a table")]
const VERBS: [(&str, fn(&Guest), &[&[&str]]); 6] = [
    (
        "running",
        |_| {},
        &[
            &["vm", "list"],
            &["vm", "info", "vm1"],
            &["host", "check"],
            &["doctor"],
            &["wait", "vm1", "--for", "agent"],
            &["wait", "vm1", "--for", "exec=exit 0"],
            &["exec", "vm1", "--shell", "--", "echo out; echo err >&2; exit 3"],
            &["exec", "vm1", "--", "/none"],
            &["exec", "none", "--", "true"],
            &["exec", "vm1", "--stdin", "/etc/hostname", "--", "sha256sum"],
            &["cp", "/etc/passwd", "vm1:/tmp/there"],
            &["cp", "/etc/passwd", "vm1:/none/there"],
            &["cp", "vm1:/none", "/tmp"],
            &["qga", "vm1", "--", "guest-sync", "id=17"],
            &["qga", "vm1", "--", "none"],
            &["qga", "vm1", "--", "guest-file-open", "path=/none"],
            &["qmp", "vm1", "--", "query-status"],
            &["qmp", "vm1", "--", "none"],
            &["qmp", "vm1", "--", "device_del", "id=none"],
            &["key", "vm1", "--", "shift-a"],
            &["key", "vm1", "--", "none"],
            &["type", "vm1", "--", "text"],
            &["mouse", "vm1", "--", "click"],
            &["mouse", "vm1", "--", "move", "1", "1"],
            &["vm", "start", "vm1"],
            &["vm", "resume", "vm1"],
            &["vm", "suspend", "vm1", "--wait", "--yes"],
        ],
    ),
    (
        "running, in the lab",
        |_| {},
        &[
            &["vm", "autostart", "on", "vm1"],
            &["vm", "autostart", "off", "vm1"],
            &["snapshot", "create", "vm1", "one"],
            &["snapshot", "create", "vm1", "two", "--disk-only", "--quiesce"],
            &["snapshot", "list", "vm1"],
            &["snapshot", "revert", "vm1", "none", "--yes"],
            &["snapshot", "delete", "vm1", "none", "--yes"],
            &["console", "vm1", "-d", "/tmp/atp-engines-consoles", "--timeout", "3s"],
            &["vm", "nmi", "vm1", "--yes"],
            &["vm", "restore", "vm1"],
            &["vm", "save", "vm1", "--yes"],
            &["vm", "save", "vm1", "--yes"],
            &["vm", "restore", "vm1"],
            &["vm", "info", "vm1"],
        ],
    ),
    (
        "paused",
        |guest| drop(guest.host().virsh(&["suspend", guest.uuid()]).unwrap()),
        &[
            &["vm", "info", "vm1"],
            &["exec", "vm1", "--", "true"],
            &["vm", "shutdown", "vm1", "--yes"],
            &["vm", "start", "vm1"],
            &["doctor"],
            &["vm", "resume", "vm1", "--wait"],
            &["vm", "reset", "vm1", "--wait", "--yes"],
            &["vm", "shutdown", "vm1", "--wait", "--yes"],
        ],
    ),
    (
        "shut off",
        |guest| guest.destroy().unwrap(),
        &[
            &["vm", "info", "vm1"],
            &["exec", "vm1", "--", "true"],
            &["qmp", "vm1", "--", "query-status"],
            &["key", "vm1", "--", "a"],
            &["screenshot", "vm1", "-d", "/tmp"],
            &["vm", "reboot", "vm1", "--yes"],
            &["vm", "destroy", "vm1", "--yes"],
            &["vm", "nmi", "vm1", "--yes"],
            &["vm", "save", "vm1", "--yes"],
            &["vm", "restore", "vm1"],
            &["snapshot", "create", "vm1", "one"],
            &["--timeout", "8s", "wait", "vm1", "--for", "state=running"],
            &["doctor"],
        ],
    ),
    (
        "QEMU hangs",
        |guest| guest.pause_qemu().unwrap(),
        &[
            &["--timeout", "4s", "qmp", "vm1", "--", "query-status"],
            &["--timeout", "4s", "exec", "vm1", "--", "true"],
            &["--timeout", "4s", "vm", "nmi", "vm1", "--yes"],
            &["--timeout", "4s", "vm", "autostart", "on", "vm1"],
            &["--timeout", "4s", "snapshot", "list", "vm1"],
            &["vm", "list"],
        ],
    ),
    (
        "the daemon is killed",
        |guest| guest.host().kill_daemon().unwrap(),
        &[&["vm", "list"], &["exec", "vm1", "--", "true"], &["host", "check"], &["doctor"]],
    ),
];

#[test]
fn verbs_have_the_same_outcomes_with_both_engines() {
    for (situation, prepare, verbs) in VERBS {
        let bed = bed();
        let sides = sides(&bed);
        sides.iter().for_each(|side| prepare(&side.guest("vm1")));
        let outputs: Vec<_> = verbs
            .iter()
            .map(|verb| {
                let runs = sides.each_ref().map(|side| side.atp(verb).start());
                runs.map(|run| output(verb, &run.finish()))
            })
            .collect();
        let (native, library) = outputs.into_iter().map(|[native, library]| (native, library)).unzip();
        are_same(situation, [native, library]);
    }
}

/// What a script and a person can see of a run.
fn output(verb: &[&str], run: &Run) -> String {
    let mut value: Value = serde_json::from_str(&run.stdout()).unwrap_or_else(|_| run.stdout().into());
    remove_what_varies(&mut value);
    // How often a long run says how far it is depends on its time.
    let messages: Vec<_> = run.stderr.lines().filter(|line| !line.contains(" running, ")).collect();
    format!("{verb:?}: {:?} {value:#} {}", run.code(), masked(&messages.join("\n")))
}

fn remove_what_varies(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VARIES.contains(&name.as_str()));
            fields.values_mut().for_each(remove_what_varies);
        }
        Value::Array(values) => {
            // What `doctor` says of the engine.
            values.retain(|value| value["check"] != "engine");
            values.iter_mut().for_each(remove_what_varies);
        }
        Value::String(text) => *text = masked(text),
        _ => {}
    }
}
