//! Tests of the endpoint over real HTTP, including its shutdown.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use atp_telemetry::{Endpoint, EndpointConfig, Exporter, ExporterConfig};
use atp_transport::{HostInfo, TransportConfig, TransportManager};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// The status, head and body of an answer.
async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn any_port() -> EndpointConfig {
    EndpointConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..EndpointConfig::default() }
}

#[tokio::test]
async fn metrics_and_health_are_served_until_the_shutdown() {
    let mut config = TransportConfig::default();
    config.health.interval = Duration::from_millis(50);
    let manager = TransportManager::new(config);
    manager.add_host(HostInfo::from_uri("demo", "test:///default")).await.unwrap();
    let endpoint = Endpoint::bind(&any_port()).await.unwrap();
    let address = endpoint.address();
    let (shutdown, told) = oneshot::channel::<()>();
    let exporter = Exporter::new(&manager, &ExporterConfig::default());
    let served = tokio::spawn(endpoint.serve(exporter, async { drop(told.await) }));

    let (status, head, body) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.contains(r#"atp_hosts{health="healthy"} 1"#) && body.ends_with("# EOF\n"), "{body}");

    let (status, head, body) = get(address, "/healthz").await;
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["state"]), (200, &"healthy".into()), "{body}");
    assert_eq!(health["hosts"]["demo"]["state"], "healthy");
    assert!(head.contains("application/json"), "{head}");
    assert_eq!(get(address, "/").await.0, 404);

    // If the only host cannot be reached, the fleet is unavailable.
    manager.remove_host("demo").await.unwrap();
    manager.add_host(HostInfo::from_uri("dead", "qemu+tcp://127.0.0.1:1/system")).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let body = loop {
        let (status, _, body) = get(address, "/healthz").await;
        if status == 503 {
            break body;
        }
        assert!(Instant::now() < deadline, "still {status}: {body}");
        sleep(Duration::from_millis(20)).await;
    };
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["state"], "unavailable");
    assert!(health["hosts"]["dead"]["reason"].as_str().unwrap().contains("not connected"), "{body}");

    shutdown.send(()).unwrap();
    timeout(Duration::from_secs(30), served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let first = Endpoint::bind(&any_port()).await.unwrap();
    let error = Endpoint::bind(&EndpointConfig { listen: first.address(), ..any_port() }).await.unwrap_err();
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
}

#[test]
fn the_default_address_is_loopback() {
    assert!(EndpointConfig::default().listen.ip().is_loopback());
}

#[tokio::test]
async fn an_endless_request_does_not_delay_the_shutdown() {
    let manager = TransportManager::new(TransportConfig::default());
    let config = EndpointConfig { drain: Duration::from_millis(50), ..any_port() };
    let endpoint = Endpoint::bind(&config).await.unwrap();
    let mut stuck = TcpStream::connect(endpoint.address()).await.unwrap();
    let (shutdown, told) = oneshot::channel::<()>();
    let exporter = Exporter::new(&manager, &ExporterConfig::default());
    let served = tokio::spawn(endpoint.serve(exporter, async { drop(told.await) }));
    stuck.write_all(b"GET /met").await.unwrap();
    shutdown.send(()).unwrap();
    timeout(Duration::from_secs(30), served).await.unwrap().unwrap().unwrap();
}
