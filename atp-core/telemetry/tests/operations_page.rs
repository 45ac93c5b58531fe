//! `docs/operations.md` explains every metric, event, state and alert, and no others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use atp_telemetry::{Exporter, ExporterConfig};
use atp_transport::{
    BreakerState, ConnectionState, EventKind, HealthState, TransportConfig, TransportManager,
};
use serde_json::Value;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// The first words of the rows of a section's tables.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |line: &str| line.strip_prefix("| `").map(|rest| rest.split('`').next().unwrap().to_owned());
    section.lines().filter_map(row).collect()
}

fn set<T: ToString>(words: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    words.into_iter().map(|word| word.to_string()).collect()
}

#[test]
fn every_event_is_explained() {
    let kinds = EventKind::ALL.iter().map(|kind| kind.as_str());
    assert_eq!(rows(&file("docs/operations.md"), "Events"), set(kinds));
}

#[test]
fn every_state_is_explained() {
    let page = file("docs/operations.md");
    assert_eq!(rows(&page, "Health"), set(HealthState::ALL));
    use ConnectionState::{Closed, Connecting, Draining, Failed, Idle, Suspect};
    let mut states = set([Idle, Connecting, Failed, Suspect, Draining, Closed]);
    // The label of the metrics, and a state whose words contain a number.
    states.extend(["active", "reconnecting"].map(str::to_owned));
    assert_eq!(rows(&page, "Connection states"), states);
    assert!(page.contains(&format!("`{}`", ConnectionState::Connected)));
    for state in [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open] {
        assert!(page.contains(&format!("`{state}`")), "{state}");
    }
}

#[tokio::test]
async fn every_metric_is_explained() {
    let manager = TransportManager::new(TransportConfig::default());
    let text = Exporter::new(&manager, &ExporterConfig::default()).render();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(rows(&file("docs/operations.md"), "Metrics"), set(families));
}

#[test]
fn every_alert_is_explained() {
    let rules: Value = serde_saphyr::from_str(&file("configs/prometheus/atp-alerts.yml")).unwrap();
    let alerts = rules["groups"][0]["rules"].as_array().unwrap().iter();
    let alerts = alerts.map(|rule| rule["alert"].as_str().unwrap());
    assert_eq!(rows(&file("docs/operations.md"), "Alerts"), set(alerts));
}

#[test]
fn every_setting_it_names_is_one() {
    let page = file("docs/operations.md");
    let sections = ["pool", "reconnect", "calls", "keepalive", "breaker", "rate_limit", "health", "events"];
    let known = file("docs/configuration.md");
    let named = page.split('`').skip(1).step_by(2).filter(|word| {
        word.split_once('.').is_some_and(|(section, key)| sections.contains(&section) && !key.is_empty())
    });
    let unknown: Vec<_> = named.filter(|key| !known.contains(&format!("| `{key}` |"))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
