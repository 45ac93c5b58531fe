//! `atp serve` on real daemons, and a real Prometheus that scrapes it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use atp_e2e::{Running, bed, eventually};
use serde_json::Value;
use tempfile::TempDir;

/// Time limit for what happens soon; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// How long Prometheus scrapes.
const SCRAPED: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// What a server answers to a GET. HTTP 1.0, so that the answer ends with the connection.
pub(crate) fn get(port: u16, path: &str, token: &str) -> Result<(u16, Vec<u8>), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(text)?;
    stream.set_read_timeout(Some(SOON)).map_err(text)?;
    let head =
        format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(head)?;
    Ok((status, answer[end + 4..].to_vec()))
}

fn get_json(port: u16, path: &str, token: &str) -> Value {
    let (status, body) = get(port, path, token).unwrap();
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A process that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The scrape configuration of the repository, for this service and this test.
fn configuration(folder: &TempDir, port: u16, token: &str) -> PathBuf {
    let credentials = folder.path().join("token");
    fs::write(&credentials, token).unwrap();
    let text = fs::read_to_string(repository("configs/prometheus/prometheus.yml")).unwrap();
    let changed = text
        .replace("15s", "5s")
        .replace("/etc/prometheus/atp-token", &credentials.display().to_string())
        .replace("127.0.0.1:9440", &format!("127.0.0.1:{port}"))
        .replace("atp-alerts.yml", &repository("configs/prometheus/atp-alerts.yml").display().to_string());
    assert_eq!(changed.matches(&port.to_string()).count(), 1, "{changed}");
    let path = folder.path().join("prometheus.yml");
    fs::write(&path, changed).unwrap();
    path
}

fn prometheus(folder: &TempDir, configuration: &Path) -> (Program, u16) {
    let port = free_port();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("prometheus cannot be started ({error}): `cargo xtask test` installs Debian's package")
    });
    (Program(child), port)
}

/// The result of a query: each series with its value.
fn query(port: u16, expression: &str) -> Vec<(Value, f64)> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = get_json(port, &format!("/api/v1/query?query={encoded}"), "");
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    let series = answer["data"]["result"].as_array().unwrap();
    let value = |series: &Value| series["value"][1].as_str().unwrap().parse::<f64>().unwrap();
    series.iter().map(|series| (series["metric"].clone(), value(series))).collect()
}

/// The queries of the dashboard, with its variables filled in.
fn dashboard() -> Vec<String> {
    fn expressions(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(text) if name == "expr" => found.push(text.clone()),
                value => expressions(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
            _ => {}
        }
    }
    let text = fs::read_to_string(repository("configs/grafana/atp-transport.json")).unwrap();
    let mut found = Vec::new();
    expressions(&serde_json::from_str(&text).unwrap(), &mut found);
    assert!(found.len() > 20, "{found:?}");
    let filled = |text: String| text.replace("$__rate_interval", "50s").replace("$host", ".*");
    // A table of what is stuck is empty when nothing is: then what it compares must be there.
    let compared = |text: String| text.strip_suffix(" > 0").map_or(text.clone(), str::to_owned);
    found.into_iter().map(filled).map(compared).collect()
}

fn promtool(arguments: &[&str]) {
    let checked = Command::new("promtool").args(arguments).stdin(Stdio::null()).output();
    let checked = checked.unwrap_or_else(|error| panic!("promtool cannot be started: {error}"));
    assert!(checked.status.success(), "{arguments:?}: {checked:?}");
}

#[test]
fn a_real_prometheus_scrapes_the_service_while_a_guest_and_a_daemon_are_stopped() {
    let bed = bed();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let port = free_port();
    let atp = |args: &[&str]| {
        let atp = bed.atp(args).env("ATP_SERVE__FOLDER", &state);
        atp.env("ATP_SERVE__LISTEN", &format!("127.0.0.1:{port}")).env("ATP_SERVE__LIST_TIMEOUT", "8s")
    };
    let added = atp(&["serve", "token", "add", "prometheus", "--role", "viewer"]).run();
    let token = added.exits_with(0).stdout().trim().to_owned();
    let serving: Running = atp(&["serve"]).start();
    serving.wait_for_stderr("serving 3 hosts");
    let vms = get_json(port, "/api/v1/vms", &token);
    assert_eq!(vms["vms"].as_array().unwrap().len(), 6, "{vms}");
    let (status, picture) = get(port, "/api/v1/vms/h1/vm1/screenshot", &token).unwrap();
    assert!(
        status == 200 && picture.starts_with(b"\x89PNG"),
        "{status}: {}",
        String::from_utf8_lossy(&picture)
    );

    promtool(&["check", "rules", &repository("configs/prometheus/atp-alerts.yml").display().to_string()]);
    let configuration = configuration(&folder, port, &token);
    promtool(&["check", "config", &configuration.display().to_string()]);
    let (_prometheus, queries) = prometheus(&folder, &configuration);
    eventually("Prometheus has scraped", SOON, || {
        let (status, body) = get(queries, "/api/v1/query?query=up", "")?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status == 200 && text.contains(r#""1"]"#) { Ok(()) } else { Err(text) }
    });

    bed.host("h2").unwrap().pause_daemon().unwrap();
    bed.host("h3").unwrap().guest("vm2").unwrap().pause_qemu().unwrap();
    let end = Instant::now() + SCRAPED;
    while Instant::now() < end {
        // Work that hangs, and work that does not.
        let vms = get_json(port, "/api/v1/vms?max_age=0s&allow_stale=true", &token);
        assert_eq!(vms["vms"].as_array().unwrap().len(), 6, "{vms}");
        let (status, _) = get(port, "/api/v1/vms/h3/vm2/screenshot", &token).unwrap();
        assert_ne!(status, 200, "a guest that is stopped has a picture");
        let (status, _) = get(port, "/api/v1/vms/h1/vm1/screenshot", &token).unwrap();
        assert_eq!(status, 200);
        thread::sleep(Duration::from_millis(200));
    }

    let ups = query(queries, r#"min_over_time(up{job="atp"}[50s])"#);
    assert_eq!(ups.iter().map(|(_, up)| *up).collect::<Vec<_>>(), [1.0], "a scrape failed");
    let scrapes = query(queries, r#"count_over_time(up{job="atp"}[50s])"#);
    assert!(scrapes[0].1 >= 6.0, "{scrapes:?}");
    let longest = query(queries, r#"max_over_time(scrape_duration_seconds{job="atp"}[50s])"#);
    assert!(longest[0].1 < 5.0, "a scrape took longer than its interval: {longest:?}");
    let empty: Vec<_> = dashboard().into_iter().filter(|text| query(queries, text).is_empty()).collect();
    assert!(empty.is_empty(), "these queries of the dashboard have no data: {empty:#?}");
    let unavailable = query(queries, r#"atp_host_health{host="h2"}"#);
    assert!(unavailable[0].1 > 0.0, "the host whose daemon is stopped counts as healthy");
    let cached = query(queries, "atp_cache_requests_total");
    assert!(cached.iter().any(|(labels, count)| labels["result"] == "stale" && *count > 0.0), "{cached:?}");
    serving.interrupt();
    serving.finish().exits_with(0);
}
