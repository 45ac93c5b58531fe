//! Requests that are not valid, too large, too slow or too many; and the end of the service.

use std::time::Duration;

use atp_api::serve::Role;
use atp_fleet::HostFault;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bed::{Bed, get, post};

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    let valid = json!({"targets": {"selectors": ["*"]}, "operation": {"op": "vm-info"}});
    assert_eq!(bed.post("/api/v1/plans", &token, &valid).await.status, 200);
    for (body, text) in [
        (json!({"targets": {"selectors": ["*"]}}), "operation"),
        (json!({"targets": {"selectors": ["["]}, "operation": {"op": "vm-info"}}), "selector"),
        (json!({"targets": {"selectors": []}, "operation": {"op": "vm-info"}}), "targets.selectors"),
        (json!({"targets": {"selectors": ["*"]}, "operation": {"op": "vm-info"}, "tty": 1}), "tty"),
        (json!({"targets": {"selectors": ["*"]}, "operation": {"op": "dance"}}), "dance"),
        (json!({"version": 2, "targets": {}, "operation": {"op": "vm-info"}}), "version 2"),
        (json!([]), "struct"),
    ] {
        let reply = bed.post("/api/v1/plans", &token, &body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(text), "{body}: {}", reply.text());
    }
    let mut broken = post("/api/v1/plans", &token, &json!({}));
    *broken.body_mut() = Full::from("{");
    assert_eq!(bed.send(broken).await.kind(), "invalid-request");
    assert_eq!(bed.get("/nothing", &token).await.kind(), "nothing-there");
    let mut put = get("/api/v1/hosts", &token);
    *put.method_mut() = hyper::Method::PUT;
    let reply = bed.send(put).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET,HEAD"));
    assert_eq!(reply.kind(), "invalid-request");
}

#[tokio::test]
async fn files_of_the_service_s_machine_cannot_be_named() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    for operation in [
        json!({"op": "push", "source": "/etc/passwd", "destination": "/tmp/x"}),
        json!({"op": "push", "source": "../tokens.toml", "destination": "/tmp/x"}),
        json!({"op": "scenario", "text": "name: a\ntargets: a\nsteps:\n  - cp: {push: /etc/passwd, to: /x}\n"}),
    ] {
        let body = json!({"targets": {"selectors": ["*"]}, "operation": operation});
        let reply = bed.post("/api/v1/plans", &token, &body).await;
        assert!(reply.status.is_client_error(), "{operation}: {}", reply.text());
        assert!(!reply.text().contains("root:"), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let bed = Bed::with(1, 1, |config| config.max_body = 1000).await;
    let token = bed.admin();
    let body = json!({"targets": {"selectors": ["x".repeat(2000)]}, "operation": {"op": "vm-info"}});
    let reply = bed.post("/api/v1/plans", &token, &body).await;
    assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (413, "request-too-large"));
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_request_is_not_waited_for() {
    let bed = Bed::with(1, 1, |config| config.request_timeout = Duration::from_secs(3)).await;
    let token = bed.admin();
    // The head never ends.
    let mut slow = TcpStream::connect(bed.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
    // The body never ends.
    let mut slow = TcpStream::connect(bed.address).await.unwrap();
    let head = format!(
        "POST /api/v1/plans HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut rest = vec![0; 12];
    let answered = tokio::time::timeout(Duration::from_secs(20), slow.read_exact(&mut rest)).await;
    answered.expect("no answer").unwrap();
    assert_eq!(rest, b"HTTP/1.1 408");
}

#[tokio::test]
async fn requests_over_the_rate_are_told_when_to_try_again() {
    let bed = Bed::with(1, 1, |config| config.requests_per_second = 1).await;
    let (one, other) = (bed.admin(), bed.admin());
    // Of many at once some are too many, however slow the machine is.
    let replies = futures_util::future::join_all((0..50).map(|_| bed.get("/api/v1/session", &one))).await;
    assert!(replies.iter().any(|reply| reply.status == 200));
    let reply = replies.iter().find(|reply| reply.status != 200).unwrap();
    assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (429, "rate-limited"));
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(bed.get("/api/v1/session", &other).await.status, 200, "another token has a rate of its own");
    assert_eq!(bed.get("/healthz", "").await.status, 200);
}

#[tokio::test]
async fn tokens_cannot_be_guessed_fast() {
    let bed = Bed::start(1, 1).await;
    let mut refused = 0;
    for guess in 0..40 {
        let reply = bed.get("/api/v1/session", &format!("atp_{guess}")).await;
        refused += usize::from(reply.status == 429);
    }
    assert!((10..=20).contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_service_that_is_read_only_still_plans() {
    let bed = Bed::with(1, 1, |config| config.read_only = true).await;
    let token = bed.admin();
    assert_eq!(bed.get("/api/v1/session", &token).await.json()["read_only"], true);
    let body = json!({"targets": {"selectors": ["*"]}, "operation": {"op": "exec", "program": "true"}});
    assert_eq!(bed.post("/api/v1/plans", &token, &body).await.status, 200);
}

#[tokio::test]
async fn metrics_need_a_token_unless_they_are_public() {
    let bed = Bed::start(1, 1).await;
    let anonymous = || Request::get("/metrics").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(bed.send(anonymous()).await.status, 401);
    let token = bed.token(Role::Viewer, &[], &[]);
    let reply = bed.get("/metrics", &token).await;
    assert!(
        reply.text().contains("atp_build{version=") && reply.text().ends_with("# EOF\n"),
        "{}",
        reply.text()
    );
    let public = Bed::with(1, 1, |config| config.metrics_public = true).await;
    assert_eq!(public.send(anonymous()).await.status, 200);
}

#[tokio::test]
async fn at_the_end_requests_under_way_are_answered_and_no_more_are_taken() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    assert_eq!(bed.get("/readyz", "").await.status, 200);
    bed.get("/api/v1/vms", &token).await;
    bed.fleet.host(1).unwrap().set_fault(HostFault::Slow { by: Duration::from_millis(500) });
    let pool = bed.service.manager().pool("h1").unwrap();
    let (under_way, ()) = tokio::join!(bed.get("/api/v1/vms?max_age=0s", &token), async {
        while pool.stats().calls_in_flight == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bed.service.stopping().cancel();
    });
    assert_eq!((under_way.status.as_u16(), under_way.json()["vms"][0]["vm"].as_str()), (200, Some("vm1")));
    assert!(bed.serving.await.unwrap(), "not drained");
    assert!(TcpStream::connect(bed.address).await.is_err(), "it still listens");
}
