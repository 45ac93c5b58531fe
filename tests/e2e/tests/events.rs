//! What happens to VMs, as one stream: from all hosts, through lost connections, to slow subscribers.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use atp_e2e::{Bed, Resources, becomes, bed, within};
use atp_transport::domain::{DomainEventKind, DomainState, LifecycleChange};
use atp_transport::{DomainEvents, ErrorKind, TransportConfig, TransportManager, WatchItem, WatchOptions};
use tokio::time::timeout;

use crate::support::{IDS, manager, nothing_is_held, quick};

/// Longest any of these tests may take.
const LIMIT: Duration = Duration::from_secs(400);
/// Longest anything may take that should happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Connects to no host that is not watched.
fn config() -> TransportConfig {
    let mut config = quick();
    config.pool.min_connections_per_host = 0;
    // No host here is silent, only slow.
    config.connect_timeout = Duration::from_secs(30);
    config
}

/// Takes items until one is wanted, and returns what was made of it.
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
        Err(_) => panic!("{what} did not come: {seen:#?}"),
    }
}

/// Waits for an event of a VM, named `HOST/VM`.
async fn event(events: &mut DomainEvents, vm: &str, text: &str) {
    until(events, &format!("{vm}: {text}"), |item| match item {
        WatchItem::Event { host, event, .. } => {
            (format!("{host}/{}", event.name) == vm && event.kind.to_string() == text).then_some(())
        }
        _ => None,
    })
    .await;
}

/// Watches all hosts of the bed, and waits until they are.
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
fn what_happens_on_any_host_is_told() {
    let bed = bed();
    within(LIMIT, async {
        let options = WatchOptions { monitor_events: true, ..WatchOptions::default() };
        let (_manager, mut events) = watch(&bed, &options).await;
        let vm = |host: &str, vm: &str| bed.host(host).unwrap().guest(vm).unwrap();
        let virsh = |host: &str, args: &[&str]| bed.host(host).unwrap().virsh(args).unwrap();

        // A VM that hangs keeps nothing from being told of the others.
        vm("h1", "vm2").pause_qemu().unwrap();
        virsh("h1", &["suspend", "vm1"]);
        event(&mut events, "h1/vm1", "suspended (paused)").await;
        let mut monitors = events.subscribe();
        virsh("h1", &["resume", "vm1"]);
        event(&mut events, "h1/vm1", "resumed (unpaused)").await;
        until(&mut monitors, "QEMU's own word for it", |item| match item {
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
                    DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, detail: "failed" };
                (event.kind == failed).then_some(())
            }
            _ => None,
        })
        .await;
    });
}

#[test]
fn devices_that_come_and_go_are_told() {
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
        // libvirt's word for a copy that is kept as it is, and not gone on with.
        event(&mut events, "h2/vm2", "block job copy on vda: canceled").await;
    });
}

/// Drives the watchdog (an i6300esb) as its driver would, which the guest's kernel does not have: unlocks and sets both
/// its timers to a millisecond, then starts it by a register of its PCI configuration.
const FIRE_WATCHDOG: &str = r#"
cd "$(dirname "$(grep -l 0x25ab /sys/bus/pci/devices/*/device)")" || exit
read -r base rest <resource
put() { devmem $((base + $1)) $2 $3; }
for timer in 0 4; do put 12 16 0x80; put 12 16 0x86; put $timer 32 1; done
printf '\002' | dd of=config bs=1 seek=$((0x68)) conv=notrunc"#;

#[test]
fn a_watchdog_that_fires_is_told() {
    let bed = bed();
    let verb = bed.atp(&["events", "h1/vm1"]).output("jsonl").start();
    verb.wait_for_stdout(r#""item":"present""#);
    within(LIMIT, async {
        let (_manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        let mut states = events.subscribe();
        // The guest is stopped before it can answer, or a moment later. Nobody waits for that: its event is enough.
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
fn a_disk_without_room_stops_its_guest_which_goes_on_when_there_is_some() {
    const SIZE: usize = 1 << 20;
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let small = host.small_folder().unwrap();
    let (disk, ballast) =
        (small.outside.join("disk"), Ballast::new(small.outside.join("ballast"), SIZE * 3 / 2));
    File::create(&disk).unwrap().set_len(SIZE as u64).unwrap();
    let path = small.inside.join("disk").to_string_lossy().into_owned();
    host.virsh(&["attach-disk", "vm1", &path, "vdb", "--driver", "qemu", "--subdriver", "raw"]).unwrap();
    // For its driver.
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
        let (device, action, reason) = ("virtio-disk1".to_owned(), "pause", "enospc".to_owned());
        assert_eq!(error.await, DomainEventKind::IoError { path: path.clone(), device, action, reason });
        event(&mut states, "h1/vm1", "suspended (io-error)").await;
        // What runs in a guest that was stopped has not ended, and nobody can be asked about it. A question that was
        // on its way when the guest stopped is answered by nobody, until the time is up.
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
    let told = verb.finish();
    assert!(told.exits_with(130).stdout().contains(r#""action":"pause","reason":"enospc""#), "{told:?}");
    let written = || fs::read(&disk).unwrap() == b"y\n".repeat(SIZE / 2);
    becomes("what was to be written is there", SOON, true, written);
    host.guest("vm1").unwrap().destroy().unwrap();
    fs::remove_file(&disk).unwrap();
}

/// A file that takes room. Without it a guest that was stopped for want of room can go on, also when a test has failed.
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
fn a_lost_connection_is_a_gap_and_then_the_state_is_told_again() {
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
        // A daemon that is being killed may still take a connection, and then it is another reason first.
        until(&mut events, "why there is no way back", |item| match item {
            WatchItem::Unreachable { host, error, .. } => {
                (host.as_str() == "h2" && error.kind == ErrorKind::ConnectionRefused).then_some(())
            }
            _ => None,
        })
        .await;

        // Nobody can tell of this, and it is known all the same when the daemon is back.
        h2.guest("vm1").unwrap().kill_qemu().unwrap();
        h2.start_daemon().unwrap();
        // The daemon itself may take a moment to find out, and then tells of it as it does of anything new.
        until(&mut events, "what became of vm1", |item| match item {
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
        // The other hosts' events never stopped.
        bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
        event(&mut events, "h1/vm1", "suspended (paused)").await;
    });
}

#[test]
fn a_slow_subscriber_is_told_how_much_it_missed_and_holds_up_nobody() {
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
            other => panic!("not told of what was missed: {other:?}"),
        };
        assert!(missed >= 6, "{missed}");
        // The newest are there.
        event(&mut slow, "h1/vm1", "resumed (unpaused)").await;
    });
}

#[test]
fn nothing_is_left_when_the_last_subscriber_goes() {
    let bed = bed();
    nothing_is_held(SOON);
    within(LIMIT, async {
        let (manager, mut events) = watch(&bed, &WatchOptions::default()).await;
        becomes("one connection a host", SOON, 3, || Resources::now().sockets);
        // The pool's connections are its own.
        let stats = manager.pool("h1").unwrap().stats();
        assert_eq!(stats.total_connections, 0, "{stats}");
        let second = events.subscribe();
        drop(second);
        bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
        event(&mut events, "h1/vm1", "suspended (paused)").await;
        drop(events);
        nothing_is_held(SOON);

        // Neither when a host is removed, which its subscribers are told.
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
fn the_verb_tells_of_all_hosts_through_a_lost_connection_and_ends_when_interrupted() {
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
    counted.wait_for_stdout("watched from here on");
    for verb in ["suspend", "resume"] {
        bed.host("h3").unwrap().virsh(&[verb, "vm2"]).unwrap();
    }
    let run = counted.finish();
    run.exits_with(0);
    assert!(run.stdout().contains("h3/vm2  suspended (paused)\n"), "{}", run.stdout());
}
