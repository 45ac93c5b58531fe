//! Observability: events, health and metrics agree with each other and with the facts.

use std::sync::Arc;
use std::time::Duration;

use atp_e2e::{becomes, bed, eventually, within};
use atp_telemetry::{Exporter, ExporterConfig};
use atp_transport::{
    BreakerState, Event, EventKind, HealthState, TransportConfig, TransportEvent, TransportManager,
};

use crate::support::{Load, manager, quick};

/// Time limit of the test.
const LIMIT: Duration = Duration::from_secs(480);
/// Time limit for changes that happen soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Looks often, and soon accepts the result.
fn config() -> TransportConfig {
    let mut config = quick();
    config.health.interval = Duration::from_millis(200);
    config.health.window = Duration::from_secs(2);
    config.health.better_after = Duration::from_secs(1);
    config.breaker.cool_down = Duration::from_millis(500);
    config.breaker.max_cool_down = Duration::from_secs(1);
    config
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

/// Waits until a host's health and breaker are these.
fn until(manager: &TransportManager, host: &str, health: HealthState, is_open: bool) {
    eventually(&format!("{host} is {health}"), SOON, || {
        let pool = manager.pool(host).unwrap();
        let (seen, breaker) = (pool.health(), pool.breaker().state);
        let is_so = seen.state == health && (breaker != BreakerState::Closed) == is_open;
        if is_so { Ok(()) } else { Err((seen.state, seen.reason, breaker)) }
    });
}

#[test]
fn events_health_and_metrics_agree_on_a_daemon_killed_under_load() {
    let bed = bed();
    within(LIMIT, async {
        let manager = manager(&bed, config()).await;
        let exporter = Exporter::new(&manager, &ExporterConfig::default());
        let (faulty, healthy) = (Load::on(&manager, "h2"), Load::on(&manager, "h1"));
        faulty.wait_for_work("work on h2");
        until(&manager, "h2", HealthState::Healthy, false);
        let mut events = manager.events();

        let host = bed.host("h2").unwrap();
        host.kill_daemon().unwrap();
        until(&manager, "h2", HealthState::Unavailable, true);
        until(&manager, "h1", HealthState::Healthy, false);
        let text = exporter.render();
        assert_eq!(value(&text, r#"atp_host_health{host="h2"}"#), 3.0);
        assert_eq!(value(&text, r#"atp_host_health{host="h1"}"#), 0.0);
        assert!(value(&text, r#"atp_breaker_state{host="h2"}"#) > 0.0);
        assert_eq!(value(&text, r#"atp_hosts{health="unavailable"}"#), 1.0);

        host.start_daemon().unwrap();
        faulty.wait_for_work("work on h2 continues");
        until(&manager, "h2", HealthState::Healthy, false);
        let (_, failed) = healthy.finish().await;
        assert_eq!(failed, 0, "another host's work failed");
        faulty.finish().await;

        // More events may follow until the lost connections are open again.
        becomes("connections that are down", SOON, 0, || {
            let stats = manager.pool("h2").unwrap().stats();
            stats.connecting + stats.reconnecting + stats.failed
        });
        let mut heard: Vec<Arc<Event>> = Vec::new();
        let recovered = |event: &&Arc<Event>| event.what.kind() == EventKind::Recovered;
        eventually("an event for every recovery", SOON, || {
            heard.extend(std::iter::from_fn(|| events.try_recv()));
            let seen = heard.iter().filter(recovered).count() as u64;
            let all = manager.event_counts()[&EventKind::Recovered];
            if seen == all { Ok(()) } else { Err((seen, all)) }
        });
        let of_h2 = || heard.iter().filter(|event| event.host.as_ref().is_some_and(|id| id.as_str() == "h2"));
        let first = |kind: EventKind| {
            let found = of_h2().find(|event| event.what.kind() == kind);
            found.unwrap_or_else(|| panic!("no {kind:?} in {heard:#?}")).sequence
        };
        let turned = |state: HealthState| {
            let to = |event: &&Arc<Event>| matches!(event.what, TransportEvent::HealthChanged { to, .. } if to == state);
            of_h2().filter(to).map(|event| event.sequence).collect::<Vec<_>>()
        };
        assert!(first(EventKind::Lost) < first(EventKind::Reconnecting));
        assert!(first(EventKind::Reconnecting) < first(EventKind::BreakerOpened));
        assert!(first(EventKind::BreakerOpened) < first(EventKind::BreakerHalfOpen));
        assert!(first(EventKind::BreakerHalfOpen) < first(EventKind::BreakerClosed));
        let (unavailable, healthy) = (turned(HealthState::Unavailable), turned(HealthState::Healthy));
        assert!(first(EventKind::Lost) < unavailable[0] && unavailable.last() < healthy.last(), "{heard:#?}");
        assert!(healthy.last() > Some(&first(EventKind::BreakerClosed)), "healthy before the breaker closed");

        // The metrics count the same events.
        let text = exporter.render();
        let counts = manager.event_counts();
        assert_eq!(counts[&EventKind::Missed], 0);
        for kind in [EventKind::BreakerOpened, EventKind::BreakerClosed, EventKind::Recovered] {
            let count = of_h2().filter(|event| event.what.kind() == kind).count() as f64;
            assert_eq!(value(&text, &format!(r#"atp_events_total{{event="{}"}}"#, kind.as_str())), count);
        }
        let recovered = of_h2().filter(|event| event.what.kind() == EventKind::Recovered).count() as f64;
        assert_eq!(value(&text, r#"atp_reconnects_total{host="h2"}"#), recovered);
        assert_eq!(value(&text, r#"atp_host_health{host="h2"}"#), 0.0);
        let calls =
            value(&text, r#"atp_call_duration_seconds_count{host="h1",operation="virConnectGetHostname"}"#);
        assert_eq!(value(&text, r#"atp_calls_total{host="h1"}"#), calls, "every call has its duration");
    });
}
