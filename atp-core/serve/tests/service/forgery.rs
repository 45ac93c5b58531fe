//! Sessions of browsers, and what pages of other origins try.

use atp_api::serve::Role;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;

use crate::bed::{Bed, Reply, get, post};

async fn login(bed: &Bed, token: &str) -> Reply {
    let mut request = post("/api/v1/session", "", &json!({"token": token}));
    request.headers_mut().remove("authorization");
    bed.send(request).await
}

/// The cookie of an answer, as a browser sends it back.
fn cookie(reply: &Reply) -> String {
    reply.header("set-cookie").split(';').next().unwrap().to_owned()
}

fn plan(cookie: &str) -> Request<Full<Bytes>> {
    let body = json!({"targets": {"selectors": ["*"]}, "operation": {"op": "vm-info"}});
    let mut request = post("/api/v1/plans", "", &body);
    request.headers_mut().remove("authorization");
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    request
}

#[tokio::test]
async fn a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get() {
    let bed = Bed::start(1, 1).await;
    let token = bed.token(Role::Operator, &["h1/"], &["exec"]);
    let reply = login(&bed, &token).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let set = reply.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    // The service alone ends a session, and counts from its last use.
    assert!(!set.contains("Max-Age") && !set.contains("Expires"), "{set}");
    let session = reply.json();
    assert_eq!((&session["name"], &session["role"]), (&json!("t0"), &json!("operator")));
    assert_eq!((&session["selectors"], &session["verbs"]), (&json!(["h1/"]), &json!(["exec"])));
    assert!(!reply.text().contains(&token));

    let cookie = cookie(&reply);
    let mut show = get("/api/v1/session", "");
    show.headers_mut().remove("authorization");
    show.headers_mut().insert("cookie", cookie.parse().unwrap());
    let shown = bed.send(show).await.json();
    assert_eq!(shown["csrf"], session["csrf"]);

    let csrf = session["csrf"].as_str().unwrap();
    let end = |csrf: Option<&str>| {
        let mut request = Request::delete("/api/v1/session").header("cookie", &cookie);
        if let Some(csrf) = csrf {
            request = request.header("x-atp-csrf", csrf);
        }
        request.body(Full::default()).unwrap()
    };
    assert_eq!(bed.send(end(None)).await.kind(), "permission-denied");
    let ended = bed.send(end(Some(csrf))).await;
    assert_eq!(ended.status, 204);
    assert!(ended.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(bed.send(end(Some(csrf))).await.kind(), "not-authenticated");
}

#[tokio::test]
async fn a_session_needs_its_word_for_what_is_no_read() {
    let bed = Bed::start(1, 1).await;
    let reply = login(&bed, &bed.token(Role::Viewer, &[], &[])).await;
    let (cookie, csrf) = (cookie(&reply), reply.json()["csrf"].as_str().unwrap().to_owned());
    assert_eq!(bed.send(plan(&cookie)).await.kind(), "permission-denied");
    for (word, status) in [("0000", 403), (csrf.as_str(), 200)] {
        let mut request = plan(&cookie);
        request.headers_mut().insert("x-atp-csrf", word.parse().unwrap());
        assert_eq!(bed.send(request).await.status.as_u16(), status, "{word}");
    }
    // The word of another session is none of this one.
    let other = login(&bed, &bed.admin()).await.json()["csrf"].as_str().unwrap().to_owned();
    let mut request = plan(&cookie);
    request.headers_mut().insert("x-atp-csrf", other.parse().unwrap());
    assert_eq!(bed.send(request).await.status, 403);
}

#[tokio::test]
async fn a_page_of_another_origin_can_start_nothing() {
    let bed = Bed::start(1, 1).await;
    let reply = login(&bed, &bed.admin()).await;
    let (cookie, csrf) = (cookie(&reply), reply.json()["csrf"].as_str().unwrap().to_owned());
    let own = format!("http://{}", bed.address);
    for (name, value, may) in [
        ("origin", own.as_str(), true),
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
        ("origin", "http://127.0.0.1:1", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
    ] {
        let mut request = plan(&cookie);
        request.headers_mut().insert("x-atp-csrf", csrf.parse().unwrap());
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(bed.send(request).await.status.as_u16(), if may { 200 } else { 403 }, "{name}: {value}");
    }
    // What a form of another origin can send.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let mut request = plan(&cookie);
        request.headers_mut().insert("x-atp-csrf", csrf.parse().unwrap());
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        assert_eq!(bed.send(request).await.status, 415, "{kind}");
    }
    // Nothing says that other origins may read an answer.
    let reply = bed.send(plan(&cookie)).await;
    assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_is_refused() {
    let bed = Bed::with(1, 1, |config| config.names = vec!["atp.example".to_owned()]).await;
    let token = bed.admin();
    for (host, may) in [
        ("127.0.0.1:9440", true),
        ("[::1]:9440", true),
        ("localhost:1", true),
        ("atp.example", true),
        ("ATP.example:9440", true),
        ("evil.example", false),
        ("evil.example:9440", false),
        ("127.0.0.1.evil.example", false),
    ] {
        let mut request = get("/api/v1/hosts", &token);
        request.headers_mut().insert("host", host.parse().unwrap());
        let reply = bed.send(request).await;
        assert_eq!(reply.status.as_u16(), if may { 200 } else { 421 }, "{host}: {}", reply.text());
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_what_it_is_not_for() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    for path in ["/", "/api/v1/hosts", "/nothing", "/healthz", "/page/index.html"] {
        let reply = bed.get(path, &token).await;
        let policy = reply.header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!reply.header("cache-control").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_token_that_is_removed_opens_nothing_any_more() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    let cookie = cookie(&login(&bed, &token).await);
    let with_cookie =
        || Request::get("/api/v1/hosts").header("cookie", &cookie).body(Full::<Bytes>::default()).unwrap();
    assert_eq!(bed.get("/api/v1/hosts", &token).await.status, 200);
    assert_eq!(bed.send(with_cookie()).await.status, 200);
    atp_serve::TokenFile::remove(&bed.tokens(), "t0").unwrap();
    bed.service.reload_tokens(&bed.tokens()).unwrap();
    assert_eq!(bed.get("/api/v1/hosts", &token).await.status, 401);
    assert_eq!(bed.send(with_cookie()).await.status, 401);
}

#[tokio::test]
async fn the_audit_log_has_who_and_no_secret() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    assert_eq!(login(&bed, &token).await.status, 200);
    assert_eq!(login(&bed, "atp_wrong").await.kind(), "not-authenticated");
    let text = std::fs::read_to_string(bed.folder.path().join("audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["action"], &lines[0]["token"]), (&json!("login"), &json!("t0")));
    assert_eq!((&lines[1]["action"], &lines[1]["from"]), (&json!("login-refused"), &json!("127.0.0.1")));
    assert!(!text.contains(&token[4..]) && !text.contains("atp_wrong"), "{text}");
}
