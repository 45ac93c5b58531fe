//! The library under load and with large numbers: daemons that restart, many hung VMs, many connections.

use std::time::Duration;

use atp_e2e::{Resources, becomes, bed, eventually, within};
use atp_testbed::Host;
use atp_transport::{Effect, ErrorKind, Result, TransportError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{
    Load, QUERY_STATUS, attentive, hostname, in_seconds, manager, nothing_is_held, query_status, quick, vm,
};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(480);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

#[test]
fn a_daemon_killed_and_restarted_under_load() {
    let bed = bed();
    within(LIMIT, async {
        // The connections of a killed daemon are lost at once; a healthy daemon may be slow for a moment.
        let manager = manager(&bed, quick()).await;
        let (faulty, healthy) = (Load::on(&manager, "h2"), Load::on(&manager, "h1"));
        faulty.wait_for_work("work on h2");
        healthy.wait_for_work("work on h1");

        let host = bed.host("h2").unwrap();
        host.kill_daemon().unwrap();
        eventually(
            "work on h2 fails",
            SOON,
            || if faulty.failed() > 0 { Ok(()) } else { Err(faulty.done()) },
        );
        host.start_daemon().unwrap();
        let recovery = faulty.wait_for_work("work on h2 continues");
        println!("time to recovery after the daemon is back: {recovery:.1?}");

        let (_, failed) = healthy.finish().await;
        assert_eq!(failed, 0, "another host's work failed");
        let (done, failed) = faulty.finish().await;
        println!("{done} done and {failed} failed on the faulty host");
        becomes("leases, waiting callers and stuck calls", SOON, (0, 0, 0), || {
            let stats = manager.pool("h2").unwrap().stats();
            (stats.total_active_uses, stats.waiting, stats.stuck_calls)
        });
    });
}

#[test]
fn a_link_cut_without_notice_and_restored() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, attentive()).await;
        let load = Load::on(&manager, "h3");
        load.wait_for_work("work on h3");
        let host = bed.host("h3").unwrap();
        host.drop_packets().unwrap();
        eventually("work on h3 fails", SOON, || if load.failed() > 0 { Ok(()) } else { Err(load.done()) });
        host.heal().unwrap();
        let recovery = load.wait_for_work("work on h3 continues");
        println!("time to recovery after the link is back: {recovery:.1?}");
        load.finish().await;
    });
}

/// libvirt's report on `vm1`'s monitor, such as `occupied (3.0s)`.
pub(crate) fn occupied_for_seconds(host: &Host, seconds: f64) -> std::result::Result<(), String> {
    let said = host.virsh(&["domcontrol", "vm1"]).unwrap();
    let time = said.split_once('(').and_then(|(_, rest)| rest.split_once('s'));
    let long = time.and_then(|(time, _)| time.parse::<f64>().ok()).is_some_and(|time| time >= seconds);
    if long { Ok(()) } else { Err(said) }
}

#[test]
fn a_monitor_on_which_another_program_hangs_is_not_used() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let hung = host.guest("vm1").unwrap();
    hung.pause_qemu().unwrap();
    let (vm1, vm2) = (vm(&bed, "h1", "vm1"), vm(&bed, "h1", "vm2"));
    within(LIMIT, async {
        let mut config = quick();
        config.calls.monitor_busy_after = Duration::from_secs(1);
        let manager = manager(&bed, config).await;
        std::thread::scope(|scope| {
            // The other program, with two commands that hang until QEMU continues.
            for _ in 0..2 {
                let host = &host;
                scope.spawn(move || {
                    let command = ["qemu-monitor-command", "vm1", QUERY_STATUS];
                    // It does not matter here whether the second waits longer for the first than libvirt permits.
                    let _answer = host.virsh_within(&command, SOON);
                });
            }
            eventually("the monitor is occupied for long", SOON, || occupied_for_seconds(&host, 2.0));
            tokio::task::block_in_place(|| {
                let runtime = tokio::runtime::Handle::current();
                runtime.block_on(async {
                    let refused = query_status(&manager, "h1", vm1, 20).await.unwrap_err();
                    assert_eq!(
                        (refused.kind(), refused.effect()),
                        (ErrorKind::MonitorBusy, Effect::None),
                        "{refused:?}"
                    );
                    assert!(matches!(refused, TransportError::MonitorBusy { .. }), "{refused:?}");
                    // The healthy VM of that host is not affected.
                    for _ in 0..20 {
                        query_status(&manager, "h1", vm2, 20).await.unwrap();
                    }
                });
                host.virsh_within(&["dumpxml", "vm2"], SOON).unwrap();
                occupied_for_seconds(&host, 2.0).unwrap();
            });
            hung.resume_qemu().unwrap();
        });
    });
}

#[test]
fn twenty_hung_vms_block_neither_the_daemon_nor_another_host() {
    let bed = bed();
    let host = bed.host("h1").unwrap();
    let mut hung = vec![vm(&bed, "h1", "vm1")];
    host.guest("vm1").unwrap().pause_qemu().unwrap();
    for n in 0..19 {
        // They need not boot, now or when they continue: a stopped QEMU hangs also with a guest that never ran.
        let guest = host.define_guest(&format!("hung{n}")).unwrap();
        host.virsh(&["start", guest.uuid(), "--paused"]).unwrap();
        guest.pause_qemu().unwrap();
        hung.push(guest.uuid().parse().unwrap());
    }
    let (healthy, elsewhere) = (vm(&bed, "h1", "vm2"), vm(&bed, "h2", "vm1"));
    within(LIMIT, async {
        let mut config = quick();
        // Each VM in use has a connection of its own.
        config.pool.max_connections_per_host = 32;
        let (unproven, per_host) = (config.calls.max_unproven_per_host, config.calls.max_per_host);
        let manager = manager(&bed, config).await;
        query_status(&manager, "h1", healthy, 20).await.unwrap();

        let asked = Instant::now();
        let mut tasks = JoinSet::new();
        for vm in hung.iter().copied() {
            let manager = manager.clone();
            tasks.spawn(async move { query_status(&manager, "h1", vm, 10).await });
        }
        let stats = || manager.pool("h1").unwrap().stats();
        becomes("calls in flight", SOON, unproven, || stats().calls_in_flight);
        // A VM that answers, the daemon's other workers, and another host stay available.
        for _ in 0..10 {
            query_status(&manager, "h1", healthy, 20).await.unwrap();
            query_status(&manager, "h2", elsewhere, 20).await.unwrap();
            assert!(stats().calls_in_flight <= per_host, "{}", stats());
        }
        host.virsh(&["dumpxml", "vm2"]).unwrap();

        let mut sent = 0;
        while let Some(outcome) = tasks.join_next().await {
            let error = outcome.unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::CallTimeout | ErrorKind::StuckCalls), "{error:?}");
            sent += usize::from(error.effect() == Effect::Unknown);
        }
        assert!(asked.elapsed() < Duration::from_secs(10) + SOON, "calls did not end by their deadline");
        assert_eq!(sent, unproven, "more calls were sent than the limit permits");
        assert_eq!(stats().stuck_calls, unproven);
    });
}

#[test]
fn a_thousand_connections_are_opened_and_closed() {
    let bed = bed();
    nothing_is_held(SOON);
    within(LIMIT, async {
        let manager = manager(&bed, quick()).await;
        let pool = manager.pool("h1").unwrap();
        manager.execute_on_host("h1", hostname).await.unwrap();
        let before = memory_kib();

        pool.resize(1000, 1000).unwrap();
        becomes("connections", Duration::from_secs(300), 1000, || pool.stats().idle_connections);
        assert!(Resources::now().sockets >= 1000);
        // Round robin takes each of them once.
        let mut calls = JoinSet::new();
        for _ in 0..1000 {
            let manager = manager.clone();
            calls.spawn(async move { manager.execute_on_host_with("h1", in_seconds(120), hostname).await });
        }
        while let Some(result) = calls.join_next().await {
            result.unwrap().unwrap();
        }
        let during = memory_kib();

        pool.resize(0, 1).unwrap();
        becomes("connections", SOON, true, || pool.stats().total_connections <= 1);
        assert!(manager.close(SOON).await);
        drop((pool, manager));
        nothing_is_held(SOON);
        let after = memory_kib();
        println!("memory: {before} KiB with one connection, {during} with a thousand, {after} after");
        // Memory that the allocators keep for reuse is no leak; that of a thousand connections would be.
        assert!(after.saturating_sub(before) < during.saturating_sub(before).max(64 * 1024), "memory leaks");
    });
}

#[test]
fn endless_work_is_ended_by_its_deadline() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, quick()).await;
        manager.execute_on_host("h1", hostname).await.unwrap();
        let asked = Instant::now();
        let result: Result<()> = manager
            .execute_on_host_with("h1", in_seconds(2), |connection| async move {
                connection.hostname().await?;
                std::future::pending().await
            })
            .await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::CallTimeout, Effect::Unknown), "{error:?}");
        assert!(asked.elapsed() < Duration::from_secs(2) + SOON);
        assert_eq!(manager.pool("h1").unwrap().stats().total_active_uses, 0);
        manager.execute_on_host("h1", hostname).await.unwrap();
    });
}

/// Memory of this process that is in use now.
fn memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
