//! What is rendered agrees with what happened, on libvirt's own driver for tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use atp_telemetry::{CallMetrics, Exporter, ExporterConfig, render};
use atp_transport::{ErrorKind, EventKind, HostInfo, TransportConfig, TransportManager};
use tokio::time::{Instant, sleep};

/// The value of a series, if it is there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until the metrics are as they should be.
async fn until(what: &str, mut render: impl FnMut() -> String, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let text = render();
        if is_so(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "never {what}:\n{text}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let manager = TransportManager::new(TransportConfig::default());
    let exporter = Exporter::new(&manager, &ExporterConfig::default());
    manager.add_host(HostInfo::from_uri("demo", "test:///default")).await.unwrap();
    for _ in 0..3 {
        manager.execute_on_host("demo", |conn| async move { conn.hostname().await }).await.unwrap();
    }
    let missing = manager
        .execute_on_host("demo", |conn| async move { conn.domain_by_name("nope").await.map(|_| ()) })
        .await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::VmNotFound);
    let text = exporter.render();
    for (series, expected) in [
        (r#"atp_connections{host="demo",state="idle"}"#, 1.0),
        (r#"atp_connections{host="demo",state="failed"}"#, 0.0),
        (r#"atp_connections_max{host="demo"}"#, 10.0),
        (r#"atp_calls_total{host="demo"}"#, 4.0),
        (r#"atp_calls_failed_total{host="demo"}"#, 1.0),
        (r#"atp_call_duration_seconds_count{host="demo",operation="virConnectGetHostname"}"#, 3.0),
        (
            r#"atp_call_failures_total{host="demo",operation="virDomainLookupByName",kind="vm-not-found"}"#,
            1.0,
        ),
        (r#"atp_host_health{host="demo"}"#, 0.0),
        (r#"atp_hosts{health="healthy"}"#, 1.0),
        (r#"atp_breaker_state{host="demo"}"#, 0.0),
        (r#"atp_events_total{event="connected"}"#, 1.0),
        (r#"atp_events_total{event="breaker_opened"}"#, 0.0),
        ("atp_fleet_health", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(render(&manager).contains("atp_calls_total"));

    manager.remove_host("demo").await.unwrap();
    assert!(!exporter.render().contains("demo"), "a host that is gone is still told of");
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_shows() {
    let mut config = TransportConfig::default();
    config.health.interval = Duration::from_millis(50);
    let manager = TransportManager::new(config);
    // Nothing listens at a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let uri = format!("qemu+tcp://127.0.0.1:{port}/system");
    manager.add_host(HostInfo::from_uri("dead", uri)).await.unwrap();
    let unavailable = |text: &str| value(text, r#"atp_host_health{host="dead"}"#) == Some(3.0);
    let text = until("unavailable", || render(&manager), unavailable).await;
    assert_eq!(value(&text, r#"atp_connections{host="dead",state="failed"}"#), Some(1.0));
    assert_eq!(value(&text, "atp_fleet_health"), Some(3.0));
    let events = manager.event_counts();
    assert!(events[&EventKind::Failed] >= 1 && events[&EventKind::HealthChanged] >= 1, "{events:?}");
}

#[test]
fn durations_and_failures_are_kept_apart_by_host_and_operation() {
    use prometheus_client::registry::Registry;

    let calls = CallMetrics::new(&[0.1, 1.0]);
    let (one, two) = ("h1".parse().unwrap(), "h2".parse().unwrap());
    let seconds = Duration::from_secs_f64;
    calls.record(&one, "a", seconds(0.05), None);
    calls.record(&one, "a", seconds(0.5), Some(ErrorKind::CallTimeout));
    calls.record(&one, "b", seconds(5.0), None);
    calls.record(&two, "a", seconds(0.5), None);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(calls));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (series, expected) in [
        (r#"atp_call_duration_seconds_bucket{le="0.1",host="h1",operation="a"}"#, 1.0),
        (r#"atp_call_duration_seconds_bucket{le="1.0",host="h1",operation="a"}"#, 2.0),
        (r#"atp_call_duration_seconds_bucket{le="1.0",host="h1",operation="b"}"#, 0.0),
        (r#"atp_call_duration_seconds_bucket{le="+Inf",host="h1",operation="b"}"#, 1.0),
        (r#"atp_call_duration_seconds_sum{host="h1",operation="a"}"#, 0.55),
        (r#"atp_call_duration_seconds_count{host="h2",operation="a"}"#, 1.0),
        (r#"atp_call_failures_total{host="h1",operation="a",kind="call-timeout"}"#, 1.0),
    ] {
        let found = value(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
        assert!((found - expected).abs() < 1e-9, "{series} is {found}");
    }
}
