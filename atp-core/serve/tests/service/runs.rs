//! Runs over HTTP: begun once, followed, ended early, resumed, and kept.

use atp_api::serve::Role;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use serde_json::{Value, json};

use crate::bed::{Bed, get, post};

pub(crate) fn echo(selectors: &[&str]) -> Value {
    json!({
        "targets": {"selectors": selectors},
        "operation": {"op": "exec", "program": "echo", "args": ["hunter2"]},
        "policy": {"parallel": 4, "timeout_ms": 60_000},
    })
}

pub(crate) fn with_key(request: &Value, token: &str, key: &str) -> Request<Full<bytes::Bytes>> {
    let mut request = post("/api/v1/runs", token, request);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

/// The events of a run from after one of this number, as number, word and data, until the stream ends.
pub(crate) async fn events(bed: &Bed, token: &str, run: &Value, after: u64) -> Vec<(u64, String, Value)> {
    let mut request = get(&format!("/api/v1/runs/{run}/events"), token);
    if after > 0 {
        request.headers_mut().insert("last-event-id", after.to_string().parse().unwrap());
    }
    let body = bed.open(request).await.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let field = |frame: &str, name: &str| {
        frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned).unwrap_or_default()
    };
    let frames = text.split("\n\n").filter(|frame| frame.starts_with("id: "));
    let read = frames.map(|frame| {
        let data = serde_json::from_str(&field(frame, "data: ")).unwrap();
        (field(frame, "id: ").parse().unwrap(), field(frame, "event: "), data)
    });
    read.collect()
}

fn words(events: &[(u64, String, Value)]) -> Vec<&str> {
    events.iter().map(|(_, word, _)| word.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_begun_once_followed_and_kept() {
    let bed = Bed::start(2, 3).await;
    let token = bed.admin();
    let began = bed.send(with_key(&echo(&["*"]), &token, "k1")).await;
    assert_eq!(began.status, 201, "{}", began.text());
    let run = began.json()["id"].clone();
    assert_eq!(began.header("location"), format!("/api/v1/runs/{run}"));
    assert_eq!((&began.json()["op"], &began.json()["targets"]), (&json!("exec"), &json!(6)));

    let all = events(&bed, &token, &run, 0).await;
    let numbers: Vec<_> = all.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=14).collect::<Vec<_>>());
    assert_eq!((words(&all)[0], words(&all)[13]), ("begun", "ended"));
    assert_eq!(words(&all).iter().filter(|word| **word == "finished").count(), 6);
    assert_eq!(events(&bed, &token, &run, 9).await, all[9..]);
    assert!(events(&bed, &token, &run, 14).await.is_empty());

    // The same request again is the same run; another one with the key is refused.
    let again = bed.send(with_key(&echo(&["*"]), &token, "k1")).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &run));
    assert_eq!(again.json()["state"], "ended");
    assert_eq!(again.json()["statistics"]["counts"]["ok"], 6);
    let other = bed.send(with_key(&echo(&["h1/"]), &token, "k1")).await;
    assert_eq!((other.status.as_u16(), other.kind().as_str()), (409, "conflict"));
    for host in bed.fleet.hosts() {
        for vm in host.counts().vms.values() {
            assert_eq!(vm.programs.total(), 1);
        }
    }

    let mut after = 0;
    let mut vms = Vec::new();
    loop {
        let page =
            bed.get(&format!("/api/v1/runs/{run}/outcomes?limit=4&after={after}"), &token).await.json();
        vms.extend(page["outcomes"].as_array().unwrap().iter().map(|outcome| {
            assert_eq!(outcome["data"]["stdout"]["text"], "hunter2\n");
            format!("{}/{}", outcome["host"].as_str().unwrap(), outcome["vm"].as_str().unwrap())
        }));
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(vms, ["h1/vm1", "h1/vm2", "h1/vm3", "h2/vm1", "h2/vm2", "h2/vm3"]);
    let junit = bed.get(&format!("/api/v1/runs/{run}/junit"), &token).await.text();
    assert!(junit.starts_with("<?xml") && junit.contains("tests=\"6\" failures=\"0\""), "{junit}");
    let plan = bed.get(&format!("/api/v1/runs/{run}/plan"), &token).await.json();
    assert_eq!(plan["targets"].as_array().unwrap().len(), 6);

    // Of the operation's parameters there is nothing in the store but what the guests printed.
    let second = json!({
        "targets": {"selectors": ["h1/vm1"]},
        "operation": {"op": "exec", "program": "true", "env": {"PASS": "opensesame"}, "stdin": "opensesame"},
    });
    let second = bed.post("/api/v1/runs", &token, &second).await;
    assert_eq!(second.status, 201, "{}", second.text());
    events(&bed, &token, &second.json()["id"], 0).await;
    for name in ["runs.sqlite", "runs.sqlite-wal"] {
        let bytes = std::fs::read(bed.folder.path().join(name)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains("opensesame"), "{name}");
        assert!(!String::from_utf8_lossy(&bytes).contains(&token), "{name}");
    }
    let list = bed.get("/api/v1/runs?limit=1", &token).await.json();
    assert_eq!(list[0]["id"], second.json()["id"]);
    let older = bed.get(&format!("/api/v1/runs?before={}", list[0]["id"]), &token).await.json();
    assert_eq!(older.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_as_it_was_planned_and_asks_no_host_again() {
    let bed = Bed::start(2, 1).await;
    let (token, other) = (bed.admin(), bed.admin());
    let request = echo(&["*"]);
    let vms = async |plan: &str, token: &str, request: &Value| {
        let began = bed.post(&format!("/api/v1/runs?plan={plan}"), token, request).await;
        assert_eq!(began.status, 201, "{}", began.text());
        let events = events(&bed, token, &began.json()["id"], 0).await;
        let outcomes = events.into_iter().filter(|(_, word, _)| word == "finished");
        let mut vms: Vec<_> = outcomes.map(|(.., event)| event["vm"].as_str().unwrap().to_owned()).collect();
        vms.sort();
        vms
    };
    let plan = bed.post("/api/v1/plans", &token, &request).await.json();
    let plan = plan["id"].as_str().unwrap();
    // Who asks the host is told the new name.
    bed.fleet.host(2).unwrap().vm(1).unwrap().rename("renamed");
    let (planned, anew) = (["vm1", "vm1"], ["renamed", "vm1"]);
    // A plan is of one client, and is used once.
    assert_eq!(vms(plan, &other, &request).await, anew);
    assert_eq!(vms(plan, &token, &request).await, planned);
    assert_eq!(vms(plan, &token, &request).await, anew);
    // It is no plan of another request.
    let plan = bed.post("/api/v1/plans", &token, &request).await.json();
    assert_eq!(vms(plan["id"].as_str().unwrap(), &token, &echo(&["h2/"])).await, ["renamed"]);
    let unknown = bed.post("/api/v1/runs?plan=x", &token, &request).await;
    assert_eq!((unknown.status.as_u16(), unknown.kind().as_str()), (400, "invalid-request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_stopped_is_resumed_and_repeats_nothing() {
    let bed = Bed::start(1, 5).await;
    let token = bed.admin();
    // One at a time, and the first is stopped in: the others are skipped.
    let request = json!({
        "targets": {"selectors": ["*"]},
        "operation": {"op": "exec", "program": "sleep", "args": ["1.5"]},
        "policy": {"parallel": 1},
    });
    let run = bed.post("/api/v1/runs", &token, &request).await.json()["id"].clone();
    let stopped = bed.post(&format!("/api/v1/runs/{run}/stop"), &token, &json!({})).await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    let first = events(&bed, &token, &run, 0).await;
    assert!(words(&first).contains(&"stopping"));
    let summary = bed.get(&format!("/api/v1/runs/{run}"), &token).await.json();
    assert_eq!(
        (&summary["state"], &summary["stop_reason"]["reason"]),
        (&json!("ended"), &json!("requested"))
    );
    assert_eq!(bed.post(&format!("/api/v1/runs/{run}/stop"), &token, &json!({})).await.status, 409);

    // The command line of a program may be secret: it was not kept.
    let bare = Request::post(format!("/api/v1/runs/{run}/resume"))
        .header("authorization", format!("Bearer {token}"));
    let bare = bed.send(bare.body(Full::default()).unwrap()).await;
    assert_eq!(bare.status, 400, "{}", bare.text());
    let other = json!({"targets": {"selectors": ["*"]}, "operation": {"op": "exec", "program": "true"}});
    assert_eq!(bed.post(&format!("/api/v1/runs/{run}/resume"), &token, &other).await.status, 409);
    let resumed = bed.post(&format!("/api/v1/runs/{run}/resume"), &token, &request).await;
    assert_eq!(resumed.status, 200, "{}", resumed.text());
    let last = first.last().unwrap().0;
    let second = events(&bed, &token, &run, last).await;
    assert_eq!(second[0].0, last + 1);
    assert_eq!(words(&second).last(), Some(&"ended"));
    let summary = bed.get(&format!("/api/v1/runs/{run}"), &token).await.json();
    assert_eq!((&summary["state"], &summary["targets"]), (&json!("ended"), &json!(5)));
    let outcomes = bed.get(&format!("/api/v1/runs/{run}/outcomes"), &token).await.json();
    let outcomes = outcomes["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), 5);
    assert!(outcomes.iter().all(|outcome| outcome["status"] == "ok"), "{outcomes:?}");
    for vm in bed.fleet.host(1).unwrap().counts().vms.values() {
        assert_eq!(vm.programs.total(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_secrets_are_kept_for_a_resume() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    let operations = [
        (json!({"op": "host-check"}), true),
        (json!({"op": "diagnose-host"}), true),
        (json!({"op": "diagnose-agent"}), true),
        (json!({"op": "vm-list"}), true),
        (json!({"op": "vm-info"}), true),
        (json!({"op": "vm-xml"}), true),
        (json!({"op": "vm-autostart", "on": true}), true),
        (json!({"op": "vm-nmi"}), true),
        (json!({"op": "lifecycle", "action": "suspend"}), true),
        (json!({"op": "lifecycle", "action": "resume"}), true),
        (json!({"op": "wait", "until": "agent"}), true),
        (json!({"op": "snapshot-list"}), true),
        (json!({"op": "snapshot-create", "name": "a"}), true),
        (json!({"op": "snapshot-revert", "name": "a"}), true),
        (json!({"op": "snapshot-delete", "name": "a"}), true),
        (json!({"op": "mouse", "action": "click left"}), true),
        (json!({"op": "screenshot", "folder": "any"}), true),
        (json!({"op": "console", "folder": "any"}), true),
        (json!({"op": "exec", "program": "true"}), false),
        (json!({"op": "pull", "path": "/a", "destination": "."}), false),
        (json!({"op": "qmp", "command": "query-status"}), false),
        (json!({"op": "qga", "command": "guest-ping"}), false),
        (json!({"op": "key", "chords": ["a"]}), false),
        (json!({"op": "type", "text": "a"}), false),
        (json!({"op": "scenario", "text": "name: a\ntargets: '*'\nsteps:\n  - exec: true"}), false),
    ];
    for (operation, is_kept) in operations {
        // What becomes of it on a simulated VM is of no importance.
        let request = json!({
            "targets": {"selectors": ["*/"]}, "operation": operation, "policy": {"timeout_ms": 2000},
        });
        let began = bed.post("/api/v1/runs", &token, &request).await;
        assert_eq!(began.status, 201, "{operation}: {}", began.text());
        let run = began.json()["id"].clone();
        events(&bed, &token, &run, 0).await;
        let bare = Request::post(format!("/api/v1/runs/{run}/resume"))
            .header("authorization", format!("Bearer {token}"));
        let resumed = bed.send(bare.body(Full::default()).unwrap()).await;
        match is_kept {
            true => assert_eq!(resumed.status, 200, "{operation}: {}", resumed.text()),
            false => {
                assert_eq!(resumed.json()["errors"][0]["field"], "body", "{operation}: {}", resumed.text())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_seen_and_ended_by_those_who_may() {
    let bed = Bed::start(1, 2).await;
    let admin = bed.admin();
    let operator = bed.token(Role::Operator, &[], &[]);
    let narrow = bed.token(Role::Operator, &["h1/vm1"], &[]);
    let viewer = bed.token(Role::Viewer, &[], &[]);
    let slow = json!({
        "targets": {"selectors": ["h1/vm1"]},
        "operation": {"op": "exec", "program": "sleep", "args": ["600"]},
    });
    assert_eq!(bed.post("/api/v1/runs", &viewer, &slow).await.kind(), "permission-denied");
    assert_eq!(bed.post("/api/v1/runs", &narrow, &echo(&["*"])).await.kind(), "permission-denied");
    assert_eq!(bed.get("/api/v1/runs", &admin).await.json(), json!([]));
    let own = bed.post("/api/v1/runs", &narrow, &slow).await.json()["id"].clone();
    let of_admin = bed.post("/api/v1/runs", &admin, &echo(&["h1/vm2"])).await.json()["id"].clone();
    let seen = bed.get("/api/v1/runs", &narrow).await.json();
    assert_eq!(seen.as_array().unwrap().len(), 1);
    assert_eq!(bed.get(&format!("/api/v1/runs/{of_admin}"), &narrow).await.status, 404);
    assert_eq!(bed.get("/api/v1/runs/0", &admin).await.status, 404);
    let abort = format!("/api/v1/runs/{own}/abort");
    assert_eq!(bed.post(&abort, &operator, &json!({})).await.kind(), "permission-denied");
    assert_eq!(bed.post(&abort, &admin, &json!({})).await.status, 200);
    let all = events(&bed, &viewer, &own, 0).await;
    let finished = all.iter().find(|(_, word, _)| word == "finished").unwrap();
    assert_eq!(finished.2["status"], "cancelled");
    let audit = std::fs::read_to_string(bed.folder.path().join("audit.jsonl")).unwrap();
    assert!(audit.contains(r#""action":"abort""#) && audit.contains(r#""action":"run""#), "{audit}");
}
