//! Tests of spans that reach a collector over the real protocol.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use atp_telemetry::{Traces, TracesConfig};
use atp_transport::{HostInfo, TransportConfig, TransportManager};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;

/// A collector that passes on what it received.
async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let (sender, received) = mpsc::unbounded_channel();
    let take = |State(sender): State<mpsc::UnboundedSender<_>>, body: Bytes| async move {
        sender.send(ExportTraceServiceRequest::decode(body).unwrap()).unwrap();
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (endpoint, received)
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.as_str(), text(&pair.value))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_and_its_calls_are_spans_at_a_collector() {
    let (endpoint, mut received) = collector().await;
    let config = TracesConfig { endpoint, service_name: "test".to_owned(), ..TracesConfig::default() };
    let traces = Traces::new(&config).unwrap();
    let subscriber = tracing_subscriber::registry().with(traces.layer());
    let guard = tracing::subscriber::set_default(subscriber);
    let manager = TransportManager::new(TransportConfig::default());
    manager.add_host(HostInfo::from_uri("demo", "test:///default")).await.unwrap();
    manager.execute_on_host("demo", |conn| async move { conn.hostname().await }).await.unwrap();
    drop(guard);
    tokio::task::spawn_blocking(move || traces.shutdown()).await.unwrap().unwrap();

    let request = tokio::time::timeout(Duration::from_secs(30), received.recv()).await.unwrap().unwrap();
    let [batch] = &request.resource_spans[..] else { panic!("{request:#?}") };
    let resource = attributes(&batch.resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "test");
    let spans: Vec<&Span> = batch.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let named =
        |name: &str| *spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{spans:#?}"));
    let (work, call) = (named("execute"), named("call"));
    assert_eq!((&call.parent_span_id, &call.trace_id), (&work.span_id, &work.trace_id), "not in its work");
    let call = attributes(&call.attributes);
    assert_eq!((&call["host"][..], &call["operation"][..]), ("demo", "virConnectGetHostname"), "{call:?}");
    assert!(call.contains_key("connection"), "{call:?}");
    assert_eq!(attributes(&work.attributes)["host"], "demo");
}

#[tokio::test]
async fn an_invalid_address_is_an_error_that_names_it() {
    let config = TracesConfig { endpoint: "not an address".to_owned(), ..TracesConfig::default() };
    let error = Traces::new(&config).unwrap_err();
    assert!(error.to_string().contains("not an address"), "{error}");
}
