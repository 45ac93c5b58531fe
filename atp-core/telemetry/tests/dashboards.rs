//! The alerts and the dashboard use existing series and labels.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use atp_telemetry::{Exporter, ExporterConfig};
use atp_transport::{HostInfo, TransportConfig, TransportManager};
use regex::Regex;
use serde_json::Value;

/// The labels of each series, and their values.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(configs().join(path)).unwrap()).unwrap()
}

/// Every series of a manager after successful and failed work.
async fn series() -> Series {
    let manager = TransportManager::new(TransportConfig::default());
    let exporter = Exporter::new(&manager, &ExporterConfig::default());
    manager.add_host(HostInfo::from_uri("demo", "test:///default")).await.unwrap();
    manager
        .execute_on_host("demo", |conn| async move { conn.domain_by_name("nope").await.map(drop) })
        .await
        .unwrap_err();
    let line = Regex::new(r"^(\w+)(?:\{(.*)\})? ").unwrap();
    let label = Regex::new(r#"(\w+)="([^"]*)""#).unwrap();
    let mut series = Series::new();
    for found in exporter.render().lines().filter_map(|text| line.captures(text)) {
        let labels = series.entry(found[1].to_owned()).or_default();
        for pair in label.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
            labels.entry(pair[1].to_owned()).or_default().insert(pair[2].to_owned());
        }
    }
    series
}

/// Checks an expression, and the labels that its text uses.
fn check(expression: &str, shown: &str, series: &Series) {
    let selector = Regex::new(r"\b(atp_\w+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"(\w+)(=~|!=|!~|=)"([^"]*)""#).unwrap();
    let mut labels = BTreeSet::new();
    for found in selector.captures_iter(expression) {
        let (name, matchers) = (&found[1], found.get(2).map_or("", |matchers| matchers.as_str()));
        let Some(known) = series.get(name) else { panic!("no series {name}: {expression}") };
        for part in matcher.captures_iter(matchers) {
            let (label, how, value) = (&part[1], &part[2], &part[3]);
            let Some(values) = known.get(label) else { panic!("{name} has no label {label}: {expression}") };
            // The host is one of the test's. The other labels are the same for all hosts.
            let checked = how == "=" && label != "host";
            assert!(!checked || values.contains(value), "{name} has no {label} {value}: {expression}");
        }
        labels.extend(known.keys().map(String::as_str));
    }
    let by = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let label = Regex::new(r"\{\{ *(?:\$labels\.)?(\w+) *\}\}").unwrap();
    let grouped = by.captures_iter(expression).flat_map(|found| {
        found.get(1).unwrap().as_str().split(',').map(|label| label.trim().to_owned()).collect::<Vec<_>>()
    });
    let used = grouped.chain(label.captures_iter(shown).map(|found| found[1].to_owned()));
    for used in used.filter(|used| used != "instance") {
        assert!(labels.contains(used.as_str()), "no label {used}: {expression} {shown}");
    }
}

#[tokio::test]
async fn alerts_use_existing_series() {
    let series = series().await;
    let rules = yaml("prometheus/atp-alerts.yml");
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    for rule in rules {
        let summary = rule["annotations"]["summary"].as_str().unwrap();
        check(rule["expr"].as_str().unwrap(), summary, &series);
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["info", "warning", "critical"].contains(&severity), "{severity}");
    }
}

#[tokio::test]
async fn the_dashboard_uses_existing_series() {
    let series = series().await;
    let text = fs::read_to_string(configs().join("grafana/atp-transport.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            check(target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap(), &series);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        check(variable["query"].as_str().unwrap(), "", &series);
    }
    let names = Regex::new(r"\batp_\w+").unwrap();
    let shown: BTreeSet<_> = names.find_iter(&text).map(|name| name.as_str()).collect();
    assert!(shown.len() > 15, "{shown:?}");
}

#[test]
fn the_scrape_has_its_rules() {
    let config = yaml("prometheus/prometheus.yml");
    for file in config["rule_files"].as_array().unwrap() {
        assert!(configs().join("prometheus").join(file.as_str().unwrap()).is_file(), "no {file}");
    }
    let job = &config["scrape_configs"][0];
    let rules = fs::read_to_string(configs().join("prometheus/atp-alerts.yml")).unwrap();
    assert!(rules.contains(&format!("job={}", job["job_name"])), "no alert is about the job");
}

#[tokio::test]
#[should_panic(expected = "no series atp_nope")]
async fn an_unknown_series_is_detected() {
    check("rate(atp_nope[5m])", "", &series().await);
}

#[tokio::test]
#[should_panic(expected = "has no event nope")]
async fn an_unknown_event_is_detected() {
    check(r#"atp_events_total{event="nope"}"#, "", &series().await);
}
