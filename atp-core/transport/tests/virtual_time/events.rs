//! The stream of events: complete, in order, and without waiting for listeners.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atp_transport::{
    AcquireStage, CallConfig, ErrorKind, Event, EventConfig, EventKind, EventStream, ExecuteOptions, Fleet,
    GrowthReason, HostInfo, LossCause, PoolConfig, PooledConnection, ReapReason, ReconnectConfig,
    TransportConfig, TransportEvent, TransportManager,
};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use crate::scripted::{SECOND, Script, Step, lease, multiplexed};

/// A manager whose one host has just been added, and all its events. Health checks are disabled.
async fn one_host(script: &Script, mut config: TransportConfig) -> (TransportManager<Script>, EventStream) {
    config.health.interval = Duration::ZERO;
    let manager = TransportManager::with_connector(config, script.clone());
    let events = manager.events();
    manager.add_host(HostInfo::new("h1", "192.0.2.1")).await.unwrap();
    (manager, events)
}

fn with_pool(pool: PoolConfig) -> TransportConfig {
    TransportConfig { pool, ..multiplexed() }
}

/// The events that have been emitted and not yet received.
fn received(events: &mut EventStream) -> Vec<Arc<Event>> {
    std::iter::from_fn(|| events.try_recv()).collect()
}

fn kinds(events: &[Arc<Event>]) -> Vec<EventKind> {
    events.iter().map(|event| event.what.kind()).collect()
}

/// A call that is never answered.
async fn hang(lease: PooledConnection<Script>) -> atp_transport::Result<()> {
    lease
        .call("hangs", None, |_, in_flight| async move {
            // As a stuck C call, it stays under way when its caller has left.
            std::mem::forget(in_flight);
            std::future::pending().await
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_killed_and_restarted_daemon_gives_a_sequence_of_events() {
    let script = Script::default();
    let (_manager, mut events) = one_host(&script, multiplexed()).await;
    sleep(60 * SECOND).await;
    let before = received(&mut events);
    assert_eq!(kinds(&before), [EventKind::HostAdded, EventKind::PoolGrown, EventKind::Connected]);

    script.then([Step::Fails(SECOND), Step::Fails(SECOND), Step::Opens(SECOND)]);
    let lost_at = Instant::now();
    script.cut();
    sleep(60 * SECOND).await;
    let sequence = received(&mut events);
    let TransportEvent::PoolGrown { connection, reason, connections } = before[1].what else { panic!() };
    assert_eq!((reason, connections), (GrowthReason::Minimum, 1));
    let error = Some("scripted".to_owned());
    let TransportEvent::Recovered { down_for, .. } = sequence[4].what else { panic!("{sequence:#?}") };
    let kinds_and_data: Vec<_> = sequence.iter().map(|event| event.what.clone()).collect();
    assert_eq!(
        kinds_and_data,
        [
            TransportEvent::Lost { connection, cause: LossCause::Closed, up_for: 60 * SECOND },
            TransportEvent::Reconnecting { connection, attempt: 1, error: None },
            TransportEvent::Reconnecting { connection, attempt: 2, error: error.clone() },
            TransportEvent::Reconnecting { connection, attempt: 3, error },
            TransportEvent::Recovered { connection, down_for },
        ]
    );
    assert_eq!(down_for, sequence[4].at - lost_at, "it is the time from the loss to the new link");
    assert!(down_for >= 3 * SECOND, "{down_for:?}");
    let numbers: Vec<_> = before.iter().chain(&sequence).map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    assert!(sequence.iter().all(|event| event.host.as_ref().is_some_and(|host| host.as_str() == "h1")));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_host_fails_and_connects_when_it_is_up() {
    let script = Script::attempts([Step::Fails(SECOND), Step::Fails(SECOND)]);
    let (manager, mut events) = one_host(&script, multiplexed()).await;
    sleep(300 * SECOND).await;
    manager.remove_host("h1").await.unwrap();
    use EventKind::{Connected, Failed, HostAdded, HostRemoved, PoolGrown, Reconnecting};
    let received = received(&mut events);
    assert_eq!(
        kinds(&received),
        [HostAdded, PoolGrown, Failed, Reconnecting, Failed, Reconnecting, Connected, HostRemoved]
    );
    let TransportEvent::Failed { kind, .. } = received[2].what else { panic!() };
    assert_eq!(kind, ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_detected_by_the_probe() {
    let script = Script::default();
    let (_manager, mut events) = one_host(&script, multiplexed()).await;
    script.set_silent(true);
    sleep(100 * SECOND).await;
    let lost = received(&mut events).into_iter().find(|event| event.what.kind() == EventKind::Lost);
    let TransportEvent::Lost { cause, .. } = lost.unwrap().what else { panic!() };
    assert_eq!(cause, LossCause::ProbeFailed);
}

#[tokio::test(start_paused = true)]
async fn reconnect_attempts_are_spent_in_order() {
    let script = Script::default();
    let reconnect = ReconnectConfig { max_attempts: 3, ..ReconnectConfig::default() };
    let (_manager, mut events) = one_host(&script, TransportConfig { reconnect, ..multiplexed() }).await;
    sleep(60 * SECOND).await;
    received(&mut events);
    script.set_attempts(Step::Fails(Duration::ZERO));
    script.cut();
    sleep(30 * SECOND).await;
    use EventKind::{Failed, Lost, Reconnecting};
    assert_eq!(
        kinds(&received(&mut events)),
        [Lost, Reconnecting, Reconnecting, Reconnecting, Failed],
        "three attempts, then failed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_reports_why_it_grows_and_shrinks_and_that_it_cannot_grow() {
    let pool = PoolConfig {
        min_connections_per_host: 0,
        max_connections_per_host: 2,
        max_uses_per_connection: 1,
        ..PoolConfig::default()
    };
    let (manager, mut events) = one_host(&Script::default(), with_pool(pool)).await;
    let held = [lease(&manager).await, lease(&manager).await];
    use EventKind::{AcquireTimedOut, Connected, HostAdded, PoolGrown, PoolLimitReached, PoolReaped};
    assert_eq!(kinds(&received(&mut events)), [HostAdded, PoolGrown, Connected, PoolGrown, Connected]);

    let pool = manager.pool("h1").unwrap();
    for _ in 0..2 {
        let waiting = (0..3).map(|_| pool.acquire(Instant::now() + 5 * SECOND));
        futures_util::future::join_all(waiting).await;
    }
    let full = received(&mut events);
    let expected: Vec<_> = [PoolLimitReached].into_iter().chain([AcquireTimedOut; 6]).collect();
    assert_eq!(kinds(&full), expected, "the limit is reported once, each time-out as well");
    let (max_connections, active_uses) = (2, 2);
    assert_eq!(full[0].what, TransportEvent::PoolLimitReached { max_connections, active_uses });
    let (stage, waited) = (AcquireStage::AllInUse, 5 * SECOND);
    assert_eq!(full[1].what, TransportEvent::AcquireTimedOut { stage, waited });

    // After a check without waiters, reaching the limit is reported again.
    sleep(40 * SECOND).await;
    drop(pool.acquire(Instant::now() + SECOND).await);
    assert_eq!(kinds(&received(&mut events)), [PoolLimitReached, AcquireTimedOut]);

    drop(held);
    sleep(400 * SECOND).await;
    let reaped = received(&mut events);
    assert_eq!(kinds(&reaped), [PoolReaped, PoolReaped], "each once: {reaped:#?}");
    for event in reaped {
        let TransportEvent::PoolReaped { reason, .. } = event.what else { panic!() };
        assert!(matches!(reason, ReapReason::Idle | ReapReason::LowLoad), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_reaped_once_and_replaced() {
    let pool = PoolConfig { max_lifetime: 600 * SECOND, ..PoolConfig::default() };
    let (manager, mut events) = one_host(&Script::default(), with_pool(pool)).await;
    let held = lease(&manager).await;
    sleep(900 * SECOND).await;
    drop(held);
    let received = received(&mut events);
    use EventKind::{Connected, HostAdded, LeaseHeldLong, PoolGrown, PoolReaped};
    let mut expected = vec![HostAdded, PoolGrown, Connected, PoolReaped, PoolGrown, Connected, LeaseHeldLong];
    let mut reported = kinds(&received);
    // The two limits are the same, so jitter decides which is reported first.
    expected.sort();
    reported.sort();
    assert_eq!(reported, expected);
    for event in &received {
        match &event.what {
            TransportEvent::PoolReaped { reason, .. } => assert_eq!(*reason, ReapReason::Expired),
            TransportEvent::LeaseHeldLong { held_for, taken_at } => {
                assert!(*held_for >= 600 * SECOND && taken_at.contains("scripted.rs:"), "{taken_at}");
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hung_calls_are_reported_and_their_limit_once() {
    let calls = CallConfig { max_unproven_per_host: 2, max_per_connection: 1, ..CallConfig::default() };
    let config = TransportConfig { calls, ..multiplexed() };
    let (manager, mut events) = one_host(&Script::default(), config).await;
    for _ in 0..3 {
        let options = ExecuteOptions::by(Instant::now() + 5 * SECOND);
        manager.execute_on_host_with("h1", options, hang).await.unwrap_err();
        sleep(SECOND).await;
    }
    let reported: Vec<_> = received(&mut events)
        .into_iter()
        .filter_map(|event| match event.what {
            TransportEvent::Suspect { operation, stuck_calls, .. } => Some((operation, stuck_calls)),
            TransportEvent::StuckCapReached { stuck_calls, cap } => {
                Some((Some("cap"), stuck_calls * 10 + cap))
            }
            _ => None,
        })
        .collect();
    assert_eq!(reported, [(Some("hangs"), 1), (Some("hangs"), 2), (Some("cap"), 22), (Some("hangs"), 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_loses_the_oldest_and_gets_their_number() {
    let config = TransportConfig { events: EventConfig { capacity: 4 }, ..multiplexed() };
    let manager = TransportManager::with_connector(config, Script::default());
    let (mut slow, mut late) = (manager.events(), manager.events());
    for n in 1..=5 {
        manager.add_host(HostInfo::new(format!("h{n}"), "192.0.2.1")).await.unwrap();
    }
    // Only the hosts have been added so far: five events for a capacity of four.
    let missed = slow.recv().await.unwrap();
    assert_eq!((missed.sequence, &missed.what), (1, &TransportEvent::Missed { count: 1 }));
    assert_eq!(slow.recv().await.unwrap().sequence, 2);

    // The pools of five hosts: each grows and connects, without waiting for the listeners.
    sleep(SECOND).await;
    assert_eq!(manager.event_counts()[&EventKind::Connected], 5);
    for listener in [&mut slow, &mut late] {
        let mut next = None;
        for event in received(listener) {
            if let TransportEvent::Missed { count } = event.what {
                next = Some(event.sequence + 1 - count);
            }
            assert!(next.is_none_or(|next| next <= event.sequence), "the numbers leave a gap");
            next = Some(event.sequence + 1);
        }
        assert_eq!(next, Some(16), "the last events are kept");
    }
    assert_eq!(manager.event_counts()[&EventKind::Missed], 0, "missed events are counted by listeners only");
}

#[tokio::test(start_paused = true)]
async fn events_are_counted_and_numbered_without_listeners() {
    let (manager, events) = one_host(&Script::default(), multiplexed()).await;
    drop(events);
    sleep(SECOND).await;
    let mut late = manager.events();
    manager.remove_host("h1").await.unwrap();
    assert_eq!(late.recv().await.unwrap().sequence, 4, "added, grown, connected, removed");
    let counts = manager.event_counts();
    assert_eq!(counts.values().sum::<u64>(), 4);
    assert_eq!(counts.len(), EventKind::ALL.len(), "every kind has a count, also 0");
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_manager() {
    let (manager, events) = one_host(&Script::default(), multiplexed()).await;
    let collected = tokio::spawn(events.into_stream().collect::<Vec<_>>());
    sleep(SECOND).await;
    manager.close(SECOND).await;
    drop(manager);
    let all = collected.await.unwrap();
    assert_eq!(all.last().unwrap().what, TransportEvent::HostRemoved);
}

#[tokio::test(start_paused = true)]
async fn events_are_written_as_flat_objects() {
    let script = Script::default();
    let (_manager, mut events) = one_host(&script, multiplexed()).await;
    sleep(2 * SECOND).await;
    script.cut();
    sleep(SECOND).await;
    for event in received(&mut events) {
        let json = serde_json::to_value(&*event).unwrap();
        assert_eq!(json["event"], event.what.kind().as_str());
        assert_eq!(json["host"], "h1");
        assert_eq!(json["sequence"], event.sequence);
        assert!(json["time"].as_str().unwrap().ends_with('Z'), "{json}");
        if json["event"] == "lost" {
            assert_eq!((&json["cause"], &json["up_for"]), (&"closed".into(), &2.0.into()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_applied_or_refused_configuration_is_reported() {
    let (manager, mut events) = one_host(&Script::default(), multiplexed()).await;
    sleep(SECOND).await;
    received(&mut events);
    let mut fleet = Fleet { config: multiplexed(), hosts: vec![HostInfo::new("h2", "192.0.2.2")] };
    fleet.config.pool.max_connections_per_host = 0;
    manager.apply(fleet.clone()).unwrap_err();
    let refused = received(&mut events);
    let [event] = &refused[..] else { panic!("{refused:#?}") };
    let TransportEvent::ConfigurationRefused { problems } = &event.what else { panic!("{event:?}") };
    assert!(problems[0].contains("pool.max_connections_per_host"), "{problems:?}");
    assert_eq!(event.host, None);

    fleet.config.pool.max_connections_per_host = 2;
    let changes = manager.apply(fleet).unwrap();
    let applied = received(&mut events);
    use EventKind::{ConfigurationApplied, HostAdded, HostRemoved};
    assert_eq!(kinds(&applied), [HostRemoved, HostAdded, ConfigurationApplied]);
    assert_eq!(applied[2].what, TransportEvent::ConfigurationApplied { changes });
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_out_of_service_is_reported_as_lost() {
    let script = Script::default();
    let pool =
        PoolConfig { min_connections_per_host: 3, max_uses_per_connection: 1, ..PoolConfig::default() };
    let (manager, mut events) = one_host(&script, with_pool(pool)).await;
    sleep(SECOND).await;
    let held = [lease(&manager).await, lease(&manager).await, lease(&manager).await];
    let hung = held[0].call("hangs", None, |_, in_flight| async move {
        std::mem::forget(in_flight);
        std::future::pending::<Result<(), _>>().await
    });
    hung.await.unwrap_err();
    manager.pool("h1").unwrap().resize(0, 1).unwrap();
    sleep(SECOND).await;
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.suspect, stats.draining, stats.active_connections), (1, 1, 1), "{stats}");
    received(&mut events);

    script.cut();
    sleep(SECOND).await;
    let reported = received(&mut events);
    let lost = reported.iter().filter_map(|event| match event.what {
        TransportEvent::Lost { connection, .. } => Some(connection),
        _ => None,
    });
    let connections: BTreeSet<_> = held.iter().map(|lease| lease.connection_id()).collect();
    assert_eq!(lost.collect::<BTreeSet<_>>(), connections, "{reported:#?}");
    // Only the one in service is reopened; no caller waits for the others.
    let stats = manager.pool("h1").unwrap().stats();
    assert_eq!((stats.suspect, stats.draining, stats.total_connections), (0, 0, 1), "{stats}");
}
