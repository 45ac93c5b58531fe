//! The stream of VM events: from all hosts, across lost connections, with slow subscribers.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use atp_e2e::{Bed, Resources, becomes, bed, within};
use atp_transport::domain::{DomainEventKind, DomainState, LifecycleChange};
use atp_transport::{DomainEvents, ErrorKind, TransportConfig, TransportManager, WatchItem, WatchOptions};
use tokio::time::timeout;

use crate::support::{IDS, manager, nothing_is_held, quick};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(400);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Opens connections only to watched hosts.
fn config() -> TransportConfig {
    let mut config = quick();
    config.pool.min_connections_per_host = 0;
    // No host in these tests is dead; hosts may be slow.
    config.connect_timeout = Duration::from_secs(30);
    config
}

/// Takes items until one matches, and returns the result of the match.
async fn until<T>(
    events: &mut DomainEvents,
    what: &str,
    mut wanted: impl FnMut(&WatchItem) -> Option<T>,
) -> T {
    let mut seen = Vec::new();
    let look = async {
        while let Some(item) = events.next().await {
            if let Some(found) = wanted(&item) {
                return Some(found);
            }
            seen.push(item);
        }
        None
    };
    match timeout(SOON, look).await {
        Ok(Some(found)) => found,
        Ok(None) => panic!("the stream ended before {what}: {seen:#?}"),
        Err(_) => panic!("no item for {what}: {seen:#?}"),
    }
}

/// Waits for an event of the VM `HOST/VM`.
async fn event(events: &mut DomainEvents, vm: &str, text: &str) {
    until(events, &format!("{vm}: {text}"), |item| match item {
        WatchItem::Event { host, event, .. } => {
            (format!("{host}/{}", event.name) == vm && event.kind.to_string() == text).then_some(())
        }
        _ => None,
    })
    .await;
}

/// Watches all hosts of the bed, and waits until the watches are established.
async fn watch(bed: &Bed, options: &WatchOptions) -> (TransportManager, DomainEvents) {
    let manager = manager(bed, config()).await;
    let mut events = manager.watch_domains(&IDS, options).unwrap();
    let mut watched = Vec::new();
    while watched.len() < IDS.len() {
        let host = until(&mut events, "every host is watched", |item| match item {
            WatchItem::Present { host, domains, .. } => {
                assert_eq!(domains.len(), 2, "{domains:?}");
                Some(host.clone())
            }
            _ => None,
        });
        watched.push(host.await);
    }
    (manager, events)
}

#[test]
fn events_of_all_hosts_are_reported() {
    let bed = bed();
    within(LIMIT, async {
        let options = WatchOptions { monitor_events: true, ..WatchOptions::default() };
        let (_manager, mut events) = watch(&bed, &options).await;
        let vm = |host: &str, vm: &str| bed.host(host).unwrap().guest(vm).unwrap();
        let virsh = |host: &str, args: &[&str]| bed.host(host).unwrap().virsh(args).unwrap();

        // A hung VM does not delay the events of other VMs.
        vm("h1", "vm2").pause_qemu().unwrap();
        virsh("h1", &["suspend", "vm1"]);
        event(&mut events, "h1/vm1", "suspended (paused)").await;
        let mut monitors = events.subscribe();
        virsh("h1", &["resume", "vm1"]);
        event(&mut events, "h1/vm1", "resumed (unpaused)").await;
        until(&mut monitors, "QEMU's own event", |item| match item {
            WatchItem::Event { event, .. } => match &event.kind {
                DomainEventKind::Monitor { name, .. } => (name == "RESUME").then_some(()),
                _ => None,
            },
            _ => None,
        })
        .await;

        vm("h2", "vm1").stop_agent().unwrap();
        event(&mut events, "h2/vm1", "agent disconnected (channel)").await;
        vm("h2", "vm1").start_agent().unwrap();
        event(&mut events, "h2/vm1", "agent connected (channel)").await;

        virsh("h3", &["reset", "vm1"]);
        event(&mut events, "h3/vm1", "reboot").await;
        vm("h3", "vm2").destroy().unwrap();
        event(&mut events, "h3/vm2", "stopped (destroyed)").await;
        vm("h3", "vm2").start().unwrap();
        event(&mut events, "h3/vm2", "started (booted)").await;
        vm("h3", "vm1").kill_qemu().unwrap();
        until(&mut events, "the end", |item| match item {
            WatchItem::Event { host, event, .. } if host.as_str() == "h3" && event.name == "vm1" => {
                assert_eq!(event.uuid.to_string(), vm("h3", "vm1").uuid());
                let failed =
                    DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, detail: "failed".into() };
                (event.kind == failed).then_some(())
            }
            _ => None,
        })
        .await;
    });
}

#[test]
fn added_and_removed_devices_are_reported() {
    let bed = bed();
    let host = bed.host("h2").unwrap();
    within(LIMIT, async {
        let (_manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        let device = std::env::temp_dir().join(format!("atp-e2e-rng-{}.xml", std::process::id()));
        fs::write(&device, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>")
            .unwrap();
        let attached = host.virsh(&["attach-device", "vm2", &device.to_string_lossy()]);
        fs::remove_file(&device).unwrap();
        attached.unwrap();
        event(&mut events, "h2/vm2", "device added: rng0").await;
        host.virsh(&["detach-device-alias", "vm2", "rng0"]).unwrap();
        event(&mut events, "h2/vm2", "device removed: rng0").await;

        let copy = std::env::temp_dir().join(format!("atp-e2e-copy-{}", std::process::id()));
        let job = ["--transient-job", "--wait", "--finish"];
        let copied = host.virsh_within(
            &[&["blockcopy", "vm2", "vda", "--dest", &copy.to_string_lossy()][..], &job].concat(),
            SOON,
        );
        let _ = fs::remove_file(&copy);
        copied.unwrap();
        event(&mut events, "h2/vm2", "block job copy on vda: ready").await;
        // libvirt's word for a copy that is kept as it is and not continued.
        event(&mut events, "h2/vm2", "block job copy on vda: canceled").await;
    });
}

/// Programs the watchdog (an i6300esb) as its driver would, which the guest's kernel lacks: unlocks both of its
/// timers, sets them to a millisecond, and starts it by a register of its PCI configuration.
const FIRE_WATCHDOG: &str = r#"
cd "$(dirname "$(grep -l 0x25ab /sys/bus/pci/devices/*/device)")" || exit
read -r base rest <resource
put() { devmem $((base + $1)) $2 $3; }
for timer in 0 4; do put 12 16 0x80; put 12 16 0x86; put $timer 32 1; done
printf '\002' | dd of=config bs=1 seek=$((0x68)) conv=notrunc"#;

#[test]
fn a_watchdog_that_fires_is_reported() {
    let bed = bed();
    let verb = bed.atp(&["events", "h1/vm1"]).output("jsonl").start();
    verb.wait_for_stdout(r#""item":"present""#);
    within(LIMIT, async {
        let (_manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        let mut states = events.subscribe();
        // The guest is stopped before it can answer, or a moment later. The test does not wait for the answer: the
        // event is enough.
        let firing = bed.atp(&["exec", "h1/vm1", "--shell", "--", FIRE_WATCHDOG]).start();
        event(&mut events, "h1/vm1", "watchdog fired: pause").await;
        event(&mut states, "h1/vm1", "suspended (watchdog)").await;
        drop(firing);
    });
    verb.wait_for_stdout(r#""event":"watchdog","action":"pause""#);
    verb.interrupt();
    verb.finish().exits_with(130);
    bed.run(&["vm", "resume", "h1/vm1"]).exits_with(0);
    bed.run(&["wait", "h1/vm1", "--for", "agent"]).exits_with(0);
}

#[test]
fn a_full_disk_stops_its_guest_which_continues_when_there_is_space() {
    const SIZE: usize = 1 << 20;
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let small = host.small_folder().unwrap();
    // A QEMU that an earlier daemon started does not see the folder.
    let guest = host.guest("vm1").unwrap();
    guest.destroy().unwrap();
    guest.start().unwrap();
    bed.run(&["wait", "h1/vm1", "--for", "agent"]).exits_with(0);
    let (disk, ballast) =
        (small.outside.join("disk"), Ballast::new(small.outside.join("ballast"), SIZE * 3 / 2));
    File::create(&disk).unwrap().set_len(SIZE as u64).unwrap();
    let path = small.inside.join("disk").to_string_lossy().into_owned();
    host.virsh(&["attach-disk", "vm1", &path, "vdb", "--driver", "qemu", "--subdriver", "raw"]).unwrap();
    // Time to load its driver.
    bed.run(&["exec", "h1/vm1", "--", "mount-data"]).exits_with(0);
    bed.run(&["wait", "h1/vm1", "--for", "exec=test -e /dev/vdb"]).exits_with(0);

    let verb = bed.atp(&["events", "h1/vm1"]).output("jsonl").start();
    verb.wait_for_stdout(r#""item":"present""#);
    within(LIMIT, async {
        let (_manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        let mut states = events.subscribe();
        let write = format!("yes | head -c {SIZE} | dd of=/dev/vdb bs=64k conv=fsync");
        let writing =
            bed.atp(&["--timeout", "20s", "exec", "h1/vm1", "--shell", "--", &write]).output("json");
        let writing = writing.start();
        let error = until(&mut events, "the error", |item| match item {
            WatchItem::Event { event, .. } => match &event.kind {
                kind @ DomainEventKind::IoError { .. } => Some(kind.clone()),
                _ => None,
            },
            _ => None,
        });
        let (device, action, reason) = ("virtio-disk1".to_owned(), "pause".into(), "enospc".to_owned());
        assert_eq!(error.await, DomainEventKind::IoError { path: path.clone(), device, action, reason });
        event(&mut states, "h1/vm1", "suspended (io-error)").await;
        let stalled = bed.atp(&["vm", "list", "--state", "io-error"]).run();
        let listed = stalled.exits_with(0).stdout();
        assert!(listed.contains("vm1  paused (I/O error)") && listed.lines().count() == 2, "{listed}");
        assert_eq!(bed.run(&["vm", "info", "h1/vm1"]).outcome("h1/vm1").data["reason"], "io-error");
        let refused = bed.run(&["exec", "h1/vm1", "--", "true"]);
        assert_eq!(refused.exits_with(1).brief(), ["h1/vm1 failed none vm-not-running"]);
        let hint = refused.outcome("h1/vm1").failure().hint.clone().unwrap_or_default();
        assert!(hint.contains("space") && hint.contains("atp vm resume"), "{hint}");
        // The program in the stopped guest has not ended, and the guest cannot be asked about it. A request that was
        // under way when the guest stopped gets no answer until its deadline.
        let writing = writing.finish();
        let outcome = writing.exits_with(1).outcome("h1/vm1");
        let unanswered = ["exec-timeout", "call-timeout", "agent-unresponsive"];
        let (kind, status) = (outcome.failure().kind.as_str(), outcome.status.as_str());
        assert!((status, kind) == ("failed", "vm-not-running") || unanswered.contains(&kind), "{outcome:?}");
        assert_eq!(outcome.effect, "unknown", "{outcome:?}");
        drop(ballast);
        bed.run(&["vm", "resume", "h1/vm1"]).exits_with(0);
        event(&mut states, "h1/vm1", "resumed (unpaused)").await;
    });
    verb.wait_for_stdout(r#""event":"io-error""#);
    verb.interrupt();
    let output = verb.finish();
    assert!(output.exits_with(130).stdout().contains(r#""action":"pause","reason":"enospc""#), "{output:?}");
    let written = || fs::read(&disk).unwrap() == b"y\n".repeat(SIZE / 2);
    becomes("the data is written", SOON, true, written);
    host.guest("vm1").unwrap().destroy().unwrap();
    fs::remove_file(&disk).unwrap();
}

/// A file that fills the file system. Removing it lets a guest continue that was stopped for lack of space, also
/// after a failed test.
struct Ballast(PathBuf);

impl Ballast {
    fn new(path: PathBuf, size: usize) -> Self {
        fs::write(&path, vec![b'x'; size]).unwrap();
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_lost_connection_is_a_gap_after_which_the_state_is_reported_again() {
    let bed = bed();
    within(LIMIT, async {
        let (_manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        let h2 = bed.host("h2").unwrap();
        h2.kill_daemon().unwrap();
        until(&mut events, "the gap", |item| match item {
            WatchItem::Gap { host, .. } => (host.as_str() == "h2").then_some(()),
            _ => None,
        })
        .await;
        // A daemon that is being killed may still accept a connection. Then another reason is reported first.
        until(&mut events, "the reason why the reconnect fails", |item| match item {
            WatchItem::Unreachable { host, error, .. } => {
                (host.as_str() == "h2" && error.kind == ErrorKind::ConnectionRefused).then_some(())
            }
            _ => None,
        })
        .await;

        // There is no event for this change; the state after the reconnect shows it.
        h2.guest("vm1").unwrap().kill_qemu().unwrap();
        h2.start_daemon().unwrap();
        // The daemon itself may take a moment to find out. It then sends an event as for any change.
        until(&mut events, "the state of vm1", |item| match item {
            WatchItem::Present { host, domains, .. } if host.as_str() == "h2" => {
                assert_eq!(domains.len(), 2, "{domains:?}");
                let state =
                    |vm: &str| domains.iter().find(|domain| domain.name == vm).map(|domain| domain.state);
                assert_eq!(state("vm2"), Some(DomainState::Running));
                (state("vm1") == Some(DomainState::ShutOff)).then_some(())
            }
            WatchItem::Event { host, event, .. } if host.as_str() == "h2" && event.name == "vm1" => {
                let stopped =
                    matches!(event.kind, DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, .. });
                stopped.then_some(())
            }
            _ => None,
        })
        .await;

        h2.virsh(&["suspend", "vm2"]).unwrap();
        event(&mut events, "h2/vm2", "suspended (paused)").await;
        // The events of other hosts were not interrupted.
        bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
        event(&mut events, "h1/vm1", "suspended (paused)").await;
    });
}

#[test]
fn a_slow_subscriber_gets_the_number_of_missed_items_and_delays_no_other() {
    let bed = bed();
    within(LIMIT, async {
        let options = WatchOptions { buffer: 4, ..WatchOptions::default() };
        let (_manager, mut quick) = watch(&bed, &options).await;
        let mut slow = quick.subscribe();
        for _ in 0..5 {
            for (verb, text) in [("suspend", "suspended (paused)"), ("resume", "resumed (unpaused)")] {
                bed.host("h1").unwrap().virsh(&[verb, "vm1"]).unwrap();
                event(&mut quick, "h1/vm1", text).await;
            }
        }
        let missed = match slow.next().await {
            Some(WatchItem::Missed { count }) => count,
            other => panic!("the number of missed items was not reported: {other:?}"),
        };
        assert!(missed >= 6, "{missed}");
        // The newest items are kept.
        event(&mut slow, "h1/vm1", "resumed (unpaused)").await;
    });
}

#[test]
fn the_last_subscriber_leaves_no_resources_behind() {
    let bed = bed();
    nothing_is_held(SOON);
    within(LIMIT, async {
        let (manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        becomes("one connection per host", SOON, 3, || Resources::now().sockets);
        // The pool's connections are independent of subscribers.
        let stats = manager.pool("h1").unwrap().stats();
        assert_eq!(stats.total_connections, 0, "{stats}");
        let second = events.subscribe();
        drop(second);
        bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
        event(&mut events, "h1/vm1", "suspended (paused)").await;
        drop(events);
        nothing_is_held(SOON);

        // The same when a host is removed, which its subscribers are notified of.
        let (manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        manager.close(Duration::from_secs(5)).await;
        let mut removed = 0;
        while let Some(item) = timeout(SOON, events.next()).await.unwrap() {
            removed += usize::from(matches!(item, WatchItem::Removed { .. }));
        }
        assert_eq!(removed, 3);
        nothing_is_held(SOON);
    });
}

#[test]
fn the_verb_reports_all_hosts_across_a_lost_connection_until_interrupted() {
    let bed = bed();
    let running = bed.atp(&["events", "*/vm1"]).output("jsonl").start();
    for host in IDS {
        running.wait_for_stdout(&format!(r#""item":"present","host":"{host}""#));
    }
    bed.host("h1").unwrap().virsh(&["suspend", "vm2"]).unwrap();
    bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
    running.wait_for_stdout(r#""change":"suspended""#);
    let h2 = bed.host("h2").unwrap();
    h2.kill_daemon().unwrap();
    running.wait_for_stdout(r#""item":"gap","host":"h2""#);
    running.wait_for_stdout(r#""item":"unreachable","host":"h2""#);
    h2.start_daemon().unwrap();
    running.interrupt();
    let run = running.finish();
    run.exits_with(130);
    assert!(!run.stdout().contains("vm2"), "{}", run.stdout());

    let counted = bed.atp(&["events", "h3/*", "--count", "2"]).start();
    counted.wait_for_stdout("watched from now on");
    for verb in ["suspend", "resume"] {
        bed.host("h3").unwrap().virsh(&[verb, "vm2"]).unwrap();
    }
    let run = counted.finish();
    run.exits_with(0);
    assert!(run.stdout().contains("h3/vm2  suspended (paused)\n"), "{}", run.stdout());
}
