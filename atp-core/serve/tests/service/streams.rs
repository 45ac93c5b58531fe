//! Streams of events: resumed, limited, and never read.

use std::collections::BTreeSet;
use std::time::Duration;

use atp_api::serve::Role;
use atp_fleet::HostFault;
use atp_fleet::VmFault;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bed::{Bed, get};
use crate::files::upload;

/// How long an event is waited for. It is never reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// The events of a stream, one after the other.
struct Stream {
    body: Incoming,
    text: String,
}

#[derive(Debug, Clone)]
struct Event {
    /// Empty for what cannot be resumed from.
    id: String,
    word: String,
    data: Value,
}

impl Stream {
    async fn open(bed: &Bed, path: &str, token: &str, last: Option<&str>) -> Self {
        let mut request = get(path, token);
        if let Some(last) = last {
            request.headers_mut().insert("last-event-id", last.parse().unwrap());
        }
        let response = bed.open(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream { body: response.into_body(), text: String::new() }
    }

    /// The next event; none when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let of =
                    |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let event = (of("event: "), of("data: "));
                let id = of("id: ").unwrap_or_default();
                self.text = rest.to_owned();
                if let (Some(word), Some(data)) = event {
                    return Some(Event { id, word, data: serde_json::from_str(&data).unwrap() });
                }
                continue;
            }
            let next =
                timeout(Duration::from_secs(30), self.body.frame()).await.expect("the stream says nothing");
            let data = next?.ok()?.into_data().ok()?;
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event that is it.
    async fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        let mut others = Vec::new();
        let found = async {
            loop {
                let event = self.next().await.expect("the stream has ended");
                if is_it(&event) {
                    return event;
                }
                others.push(event);
            }
        };
        // Beats of the stream do not count as something that it says.
        let found = timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("it has not come; what came: {others:?}"))
    }
}

fn is_watched(host: &str) -> impl Fn(&Event) -> bool {
    move |event| event.data["item"] == "watched" && event.data["host"] == host
}

async fn suspend(bed: &Bed, host: &str) {
    let done = bed.service.manager().execute_on_host(host, |connection| async move {
        let vm = connection.domain_by_name("vm1").await?;
        connection.domain_lifecycle(vm.uuid, atp_transport::domain::Lifecycle::Suspend).await
    });
    done.await.unwrap();
}

fn is_suspended(host: &str) -> impl Fn(&Event) -> bool {
    move |event| event.word == "vm" && event.data["host"] == host && event.data["change"] == "suspended"
}

#[tokio::test]
async fn a_stream_ends_before_its_next_event_when_its_token_has_changed() {
    let bed = Bed::start(1, 1).await;
    let token = bed.token(Role::Viewer, &[], &[]);
    let mut stream = Stream::open(&bed, "/api/v1/events", &token, None).await;
    stream.until(is_watched("h1")).await;
    // The same token, by its hash, has other VMs from now on.
    let text = std::fs::read_to_string(bed.tokens()).unwrap();
    let changed = text.replace("role = \"viewer\"", "role = \"viewer\"\nselectors = [\"h9/\"]");
    assert_ne!(changed, text);
    std::fs::write(bed.tokens(), changed).unwrap();
    bed.service.reload_tokens(&bed.tokens()).unwrap();
    suspend(&bed, "h1").await;
    assert!(stream.next().await.is_none(), "an event of a VM that the token may not see any more");
    // It may begin anew.
    Stream::open(&bed, "/api/v1/events", &token, None).await;
}

#[tokio::test]
async fn events_of_vms_come_and_a_stream_resumes_where_it_ended() {
    let bed = Bed::start(2, 1).await;
    let token = bed.admin();
    let mut stream = Stream::open(&bed, "/api/v1/events", &token, None).await;
    let seen = stream.until(is_watched("h2")).await;
    drop(stream);
    // Nobody listens.
    suspend(&bed, "h2").await;
    let mut resumed = Stream::open(&bed, "/api/v1/events", &token, Some(&seen.id)).await;
    let event = resumed.until(is_suspended("h2")).await;
    let mut again = Stream::open(&bed, "/api/v1/events", &token, Some(&seen.id)).await;
    assert_eq!(again.until(is_suspended("h2")).await.id, event.id);
}

#[tokio::test]
async fn a_host_whose_address_changed_is_watched_anew_and_others_lose_no_event_by_that() {
    let bed = Bed::start(2, 1).await;
    let token = bed.admin();
    let mut stream = Stream::open(&bed, "/api/v1/events", &token, None).await;
    for _ in 0..2 {
        stream.until(|event| event.data["item"] == "watched").await;
    }
    let settings = bed.fleet.settings();
    let moved = settings.replacen("/system", "/session", 1);
    assert_ne!(settings, moved);
    bed.service.manager().apply(atp_transport::Fleet::from_toml("fleet.toml", &moved).unwrap()).unwrap();
    let event =
        stream.until(|event| matches!(event.data["item"].as_str(), Some("watched" | "present"))).await;
    assert_eq!(event.data["host"], "h1", "{event:?}");
    suspend(&bed, "h1").await;
    stream.until(is_suspended("h1")).await;
}

#[tokio::test]
async fn a_stream_has_only_the_events_of_its_selection_and_of_its_token() {
    let bed = Bed::start(2, 1).await;
    let admin = bed.admin();
    let viewer = bed.token(Role::Viewer, &["h1/"], &[]);
    let mut all = Stream::open(&bed, "/api/v1/events", &admin, None).await;
    let mut chosen = Stream::open(&bed, "/api/v1/events?selector=h1/", &admin, None).await;
    let mut own = Stream::open(&bed, "/api/v1/events", &viewer, None).await;
    // The first stream was there before any host was watched, so it has both.
    let mut watched = BTreeSet::new();
    while watched.len() < 2 {
        let event = all.until(|event| event.data["item"] == "watched").await;
        watched.insert(event.data["host"].to_string());
    }
    suspend(&bed, "h2").await;
    suspend(&bed, "h1").await;
    for stream in [&mut chosen, &mut own] {
        loop {
            let event = stream.next().await.unwrap();
            assert_ne!(event.data["host"], "h2", "{event:?}");
            if is_suspended("h1")(&event) {
                break;
            }
        }
    }
}

async fn resume(bed: &Bed, host: &str) {
    let done = bed.service.manager().execute_on_host(host, |connection| async move {
        let vm = connection.domain_by_name("vm1").await?;
        connection.domain_lifecycle(vm.uuid, atp_transport::domain::Lifecycle::Resume).await
    });
    done.await.unwrap();
}

#[tokio::test]
async fn an_id_that_is_not_of_this_service_or_no_longer_kept_is_a_gap() {
    let bed = Bed::with(1, 1, |config| config.events = 2).await;
    let token = bed.admin();
    let mut stream = Stream::open(&bed, "/api/v1/events", &token, Some("other-7")).await;
    let gap = stream.next().await.unwrap();
    assert_eq!((gap.word.as_str(), gap.data["reason"].is_string()), ("gap", true));
    let first = stream.until(is_watched("h1")).await;
    for _ in 0..2 {
        suspend(&bed, "h1").await;
        stream.until(is_suspended("h1")).await;
        resume(&bed, "h1").await;
        stream.until(|event| event.data["change"] == "resumed").await;
    }
    let mut resumed = Stream::open(&bed, "/api/v1/events", &token, Some(&first.id)).await;
    assert_eq!(resumed.next().await.unwrap().word, "gap");
    assert_eq!(resumed.next().await.unwrap().word, "vm");
}

#[tokio::test]
async fn streams_have_a_limit_and_end_with_the_service_and_their_token() {
    let bed = Bed::with(1, 1, |config| (config.max_streams, config.max_streams_per_token) = (3, 2)).await;
    let (one, other) = (bed.admin(), bed.admin());
    let mut first = Stream::open(&bed, "/api/v1/events", &one, None).await;
    let second = Stream::open(&bed, "/api/v1/events", &one, None).await;
    let reply = bed.get("/api/v1/events", &one).await;
    assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (429, "rate-limited"));
    assert!(!reply.header("retry-after").is_empty());
    let _third = Stream::open(&bed, "/api/v1/events", &other, None).await;
    assert_eq!(bed.get("/api/v1/events", &other).await.status, 429);
    drop(second);
    let mut again = loop {
        // The service sees that a client has left when it writes to it.
        suspend_or_resume(&bed).await;
        let response = bed.open(get("/api/v1/events", &other)).await;
        if response.status() == 200 {
            break Stream { body: response.into_body(), text: String::new() };
        }
    };
    bed.service.stopping().cancel();
    while first.next().await.is_some() {}
    while again.next().await.is_some() {}
    assert!(bed.serving.await.unwrap(), "the streams have kept the service from its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_run_tells_its_end_also_when_the_service_is_stopped_meanwhile() {
    let bed = Bed::start(1, 3).await;
    let token = bed.admin();
    // One at a time, and the service is stopped in the first, which waits for its guest: the others are skipped.
    let host = bed.fleet.host(1).unwrap();
    let hang = |fault: Option<VmFault>| (1..=3).for_each(|vm| host.vm(vm).unwrap().set_fault(fault));
    let request = json!({
        "targets": {"selectors": ["*"]},
        "operation": {"op": "exec", "program": "true"},
        "policy": {"parallel": 1},
    });
    hang(Some(VmFault::Hung));
    let run = bed.post("/api/v1/runs", &token, &request).await.json()["id"].clone();
    let mut stream = Stream::open(&bed, &format!("/api/v1/runs/{run}/events"), &token, None).await;
    stream.until(|event| event.word == "started").await;
    bed.service.stopping().cancel();
    stream.until(|event| event.word == "stopping").await;
    hang(None);
    let (mut statuses, mut words) = (Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        if event.word == "finished" {
            statuses.push(event.data["status"].as_str().unwrap_or_default().to_owned());
        }
        words.push(event.word);
    }
    statuses.sort();
    assert_eq!(statuses, ["ok", "skipped", "skipped"], "{words:?}");
    assert!(words.contains(&"ended".to_owned()), "{words:?}");
    assert!(bed.serving.await.unwrap(), "the stream has kept the service from its end");
}

async fn suspend_or_resume(bed: &Bed) {
    suspend(bed, "h1").await;
    resume(bed, "h1").await;
}

/// The VMs that a stream lists of a host.
fn listed(event: &Event) -> Vec<&str> {
    let domains = event.data["domains"].as_array().unwrap();
    domains.iter().map(|domain| domain["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_role_follows_the_states_of_its_own_vms() {
    let bed = Bed::start(2, 2).await;
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        for (selectors, vms, h2) in [
            (&[][..], &["vm1", "vm2"][..], true),
            (&["h1/"][..], &["vm1", "vm2"][..], false),
            (&["h1/vm2"][..], &["vm2"][..], false),
        ] {
            // What a token may read does not depend on its verbs.
            let token = bed.token(role, selectors, &["exec"]);
            let mut stream = Stream::open(&bed, "/api/v1/events?watch=true", &token, None).await;
            assert_eq!(stream.next().await.unwrap().word, "begun");
            // The hosts answer in any order.
            let mut hosts = BTreeSet::new();
            while hosts.len() < 1 + usize::from(h2) {
                let event = stream.until(|event| event.data["item"] == "present").await;
                let host = event.data["host"].as_str().unwrap().to_owned();
                if host == "h1" {
                    assert_eq!(listed(&event), vms, "{role} {selectors:?}");
                }
                assert!(host == "h1" || h2, "{role} {selectors:?}: {event:?}");
                hosts.insert(host);
            }
            suspend(&bed, "h2").await;
            resume(&bed, "h2").await;
            // vm1 is what is suspended.
            suspend(&bed, "h1").await;
            resume(&bed, "h1").await;
            if vms.contains(&"vm1") {
                let sees = |event: &Event| event.word == "vm" && (h2 || event.data["host"] == "h1");
                let event = stream.until(|event| event.word == "vm").await;
                assert!(sees(&event), "{role} {selectors:?}: {event:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_of_states_that_is_resumed_lists_again_and_has_what_happened_meanwhile() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    let path = "/api/v1/events?watch=true&selector=h1/";
    let mut stream = Stream::open(&bed, path, &token, None).await;
    let begun = stream.next().await.unwrap();
    stream.until(|event| event.data["item"] == "present").await;
    drop(stream);
    suspend(&bed, "h1").await;
    let mut resumed = Stream::open(&bed, path, &token, Some(&begun.id)).await;
    let mut words = Vec::new();
    while words.len() < 2 {
        let event = resumed.next().await.unwrap();
        if event.data["item"] == "present" {
            assert_eq!((event.data["domains"][0]["state"].as_str(), event.id.as_str()), (Some("paused"), ""));
            words.push("present");
        } else if is_suspended("h1")(&event) {
            words.push("event");
        }
    }
    words.sort_unstable();
    assert_eq!(words, ["event", "present"]);
    // Lists that nobody wants are not made.
    let mut plain = Stream::open(&bed, "/api/v1/events", &token, Some(&begun.id)).await;
    assert!(is_suspended("h1")(
        &plain.until(|event| event.word != "host" && event.word != "transport").await
    ));
}

#[tokio::test]
async fn lines_of_consoles_are_resumed_and_end_with_their_run() {
    let bed = Bed::start(1, 2).await;
    let viewer = bed.token(Role::Viewer, &["h1/vm1"], &["console"]);
    let request = |selector: &str| {
        json!({"targets": {"selectors": [selector]}, "operation": {"op": "console", "lines": true},
               "policy": {"timeout_ms": 60_000}})
    };
    assert_eq!(bed.post("/api/v1/runs", &viewer, &request("h1/vm2")).await.status, 403);
    let run = bed.post("/api/v1/runs", &viewer, &request("h1/vm1")).await;
    assert_eq!(run.status, 201, "{}", run.text());
    let path = format!("/api/v1/runs/{}/events", run.json()["id"]);
    let mut stream = Stream::open(&bed, &path, &viewer, None).await;
    let is_line = |event: &Event| event.word == "console";
    let first = stream.until(is_line).await;
    let second = stream.until(is_line).await;
    assert!(first.id.contains('.') && first.data["vm"] == "vm1", "{first:?}");
    drop(stream);
    let mut resumed = Stream::open(&bed, &path, &viewer, Some(&first.id)).await;
    let again = resumed.next().await.unwrap();
    assert_eq!((&again.id, &again.data), (&second.id, &second.data));
    // No file is made for who only reads.
    assert!(!bed.folder.path().join("files").exists());
    let stopped = bed.post(&path.replace("events", "stop"), &viewer, &json!({})).await;
    assert!(stopped.status.is_success(), "{}", stopped.text());
    let finished = resumed.until(|event| event.word == "finished").await;
    assert_eq!(finished.data["status"], "ok", "{finished:?}");
    while resumed.next().await.is_some() {}
    // A client that comes back after the end misses none, and one that comes then for the first time has the outcomes.
    let mut late = Stream::open(&bed, &path, &viewer, Some(&first.id)).await;
    let again = late.next().await.unwrap();
    assert_eq!((&again.id, &again.data), (&second.id, &second.data));
    let mut new = Stream::open(&bed, &path, &viewer, None).await;
    while let Some(event) = new.next().await {
        assert!(!is_line(&event), "{event:?}");
    }
}

#[tokio::test]
async fn the_progress_of_a_copy_is_told_while_it_is_under_way_and_not_kept() {
    let bed = Bed::start(1, 1).await;
    let token = bed.token(Role::Operator, &[], &[]);
    let total = 8 << 20;
    let file = upload(&bed, &token, "large", vec![7; total]).await.json();
    let host = bed.fleet.host(1).unwrap();
    host.set_fault(HostFault::Slow { by: Duration::from_secs(1) });
    let operation = json!({"op": "push", "source": file["id"], "destination": "/tmp/large"});
    let request = json!({"targets": {"selectors": ["*"]}, "operation": operation,
                         "policy": {"timeout_ms": 600_000}});
    let run = bed.post("/api/v1/runs", &token, &request).await;
    assert_eq!(run.status, 201, "{}", run.text());
    let path = format!("/api/v1/runs/{}/events", run.json()["id"]);
    let is_progress = |event: &Event| event.word == "progress";
    let mut stream = Stream::open(&bed, &path, &token, None).await;
    // Of a target that was not started there is none.
    let started = stream.until(|event| event.word == "started" || is_progress(event)).await;
    assert_eq!(started.word, "started");
    let first = stream.until(is_progress).await;
    assert_eq!((&first.data["vm"], &first.data["total"]), (&json!("vm1"), &json!(total)));
    // One that comes later, or again, has the latest.
    for after in [None, Some(first.id.as_str())] {
        let mut late = Stream::open(&bed, &path, &token, after).await;
        let latest = late.until(|event| is_progress(event) || event.word == "finished").await;
        assert!(latest.data["done"].as_u64() >= first.data["done"].as_u64(), "{latest:?}");
    }
    host.set_fault(None);
    let aborted = bed.post(&path.replace("events", "abort"), &token, &json!({})).await;
    assert!(aborted.status.is_success(), "{}", aborted.text());
    stream.until(|event| event.word == "finished").await;
    while let Some(event) = stream.next().await {
        assert!(!is_progress(&event), "{event:?}");
    }
    let mut new = Stream::open(&bed, &path, &token, None).await;
    while let Some(event) = new.next().await {
        assert!(!is_progress(&event), "{event:?}");
    }
}
