//! The metrics match the work that was done, with libvirt's test driver.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use atp_telemetry::{Exporter, ExporterConfig, render};
use atp_transport::{CallFailure, ErrorKind, EventKind, HostInfo, TransportConfig, TransportManager};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// The value of a series, if it exists.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until the metrics satisfy a condition.
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
async fn work_is_counted() {
    let mut config = TransportConfig::default();
    // Else a call under way is a high load of the only connection, for which the pool may open another.
    config.pool.high_load_uses = config.pool.max_uses_per_connection;
    let manager = TransportManager::new(config);
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
async fn an_unreachable_host_is_visible() {
    let mut config = TransportConfig::default();
    config.health.interval = Duration::from_millis(50);
    let manager = TransportManager::new(config);
    // No program listens on that port.
    manager.add_host(HostInfo::from_uri("dead", "qemu+tcp://127.0.0.1:1/system")).await.unwrap();
    let unavailable = |text: &str| value(text, r#"atp_host_health{host="dead"}"#) == Some(3.0);
    let text = until("unavailable", || render(&manager), unavailable).await;
    assert_eq!(value(&text, r#"atp_connections{host="dead",state="failed"}"#), Some(1.0));
    assert_eq!(value(&text, "atp_fleet_health"), Some(3.0));
    let events = manager.event_counts();
    assert!(events[&EventKind::Failed] >= 1 && events[&EventKind::HealthChanged] >= 1, "{events:?}");
}

#[tokio::test]
async fn durations_and_failures_are_kept_apart_by_host_and_operation() {
    let manager = TransportManager::new(TransportConfig::default());
    let exporter = Exporter::new(&manager, &ExporterConfig { call_buckets: vec![0.0, 1e6] });
    for id in ["h1", "h2"] {
        manager.add_host(HostInfo::from_uri(id, "test:///default")).await.unwrap();
        manager.execute_on_host(id, |conn| async move { conn.hostname().await }).await.unwrap();
    }
    // A caller that leaves during its call.
    let (begun, is_under_way) = oneshot::channel();
    let gone = manager.execute_on_host("h2", |conn| async move {
        let hangs = |_, _in_flight| {
            let _told = begun.send(());
            std::future::pending::<Result<(), CallFailure>>()
        };
        conn.call("hangs", None, hangs).await
    });
    tokio::select! {
        ended = gone => panic!("{ended:?}"),
        begun = is_under_way => begun.unwrap(),
    }
    // Meanwhile the pool may have begun to open a further connection, which is under way too, as this one was in full use.
    let nothing_is_under_way = |text: &str| value(text, r#"atp_calls_in_flight{host="h2"}"#) == Some(0.0);
    let text = until("ended", || exporter.render(), nothing_is_under_way).await;
    let operation = "virConnectGetHostname";
    for (series, expected) in [
        (
            format!(
                r#"atp_call_duration_seconds_bucket{{le="1000000.0",host="h1",operation="{operation}"}}"#
            ),
            1.0,
        ),
        (format!(r#"atp_call_duration_seconds_bucket{{le="+Inf",host="h1",operation="{operation}"}}"#), 1.0),
        (format!(r#"atp_call_duration_seconds_count{{host="h2",operation="{operation}"}}"#), 1.0),
        (r#"atp_call_failures_total{host="h2",operation="hangs",kind="abandoned"}"#.to_owned(), 1.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series} in\n{text}");
    }
    let sum = value(&text, &format!(r#"atp_call_duration_seconds_sum{{host="h1",operation="{operation}"}}"#));
    assert!(sum.is_some_and(|seconds| seconds > 0.0), "{text}");
}
