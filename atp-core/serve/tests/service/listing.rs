//! Hosts and VMs: listings that are used again, and hosts that are away.

use atp_fleet::HostFault;
use serde_json::{Value, json};

use crate::bed::Bed;

fn names(listing: &Value) -> Vec<String> {
    let vms = listing["vms"].as_array().unwrap().iter();
    vms.map(|vm| format!("{}/{}", vm["host"].as_str().unwrap(), vm["vm"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn vms_are_listed_by_selector_and_state() {
    let bed = Bed::start(2, 2).await;
    let token = bed.admin();
    for (query, expected) in [
        ("", &["h1/vm1", "h1/vm2", "h2/vm1", "h2/vm2"][..]),
        ("?selector=h1/", &["h1/vm1", "h1/vm2"]),
        ("?selector=vm1&selector=h2/vm2", &["h1/vm1", "h2/vm1", "h2/vm2"]),
        ("?selector=vm1&exclude=h1/", &["h2/vm1"]),
        ("?state=running&selector=h2/", &["h2/vm1", "h2/vm2"]),
        ("?state=shut-off", &[]),
        ("?label=rack%3D7", &[]),
        ("?max_age=0s&selector=h1/vm1", &["h1/vm1"]),
    ] {
        let reply = bed.get(&format!("/api/v1/vms{query}"), &token).await;
        assert_eq!(names(&reply.json()), expected, "{query}");
    }
    for (query, field) in [
        ("?selector=%5B", "selector"),
        ("?state=asleep", "state"),
        ("?label=rack", "label"),
        ("?max_age=soon", "max_age"),
        ("?allow_stale=perhaps", "allow_stale"),
        ("?colour=red", "colour"),
        ("?state=running&state=paused", "state"),
    ] {
        let reply = bed.get(&format!("/api/v1/vms{query}"), &token).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["errors"][0]["field"]),
            (400, &json!(field)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn requests_at_the_same_time_ask_a_host_once() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    let all = futures_util::future::join_all((0..20).map(|_| bed.get("/api/v1/vms", &token))).await;
    assert!(all.iter().all(|reply| names(&reply.json()) == ["h1/vm1"]));
    let metrics = bed.get("/metrics", &token).await.text();
    let of = |result: &str| {
        let line = format!("atp_cache_requests_total{{result=\"{result}\"}} ");
        let line = metrics.lines().find_map(|text| text.strip_prefix(&line)).unwrap();
        line.parse::<u64>().unwrap()
    };
    assert_eq!((of("miss"), of("hit") + of("shared")), (1, 19), "{metrics}");
}

#[tokio::test]
async fn a_host_that_is_away_has_an_outcome_or_its_last_vms() {
    let bed = Bed::with(2, 1, |config| config.list_timeout = std::time::Duration::from_secs(10)).await;
    let token = bed.admin();
    let all = bed.get("/api/v1/vms", &token).await.json();
    assert_eq!(names(&all), ["h1/vm1", "h2/vm1"]);
    bed.fleet.host(2).unwrap().set_fault(HostFault::Dead);
    let strict = bed.get("/api/v1/vms?max_age=0s", &token).await.json();
    assert_eq!(names(&strict), ["h1/vm1"]);
    assert_eq!(
        (&strict["settled"][0]["host"], &strict["settled"][0]["status"]),
        (&json!("h2"), &json!("unreachable"))
    );
    assert!(strict["settled"][0]["error"]["kind"].is_string(), "{strict}");
    let stale = bed.get("/api/v1/vms?max_age=0s&allow_stale=true", &token).await.json();
    assert_eq!(names(&stale), ["h1/vm1", "h2/vm1"]);
    let since = &stale["stale"][0];
    assert_eq!(since["host"], "h2");
    assert!(since["since"].as_str().unwrap() <= stale["as_of"].as_str().unwrap(), "{stale}");
    assert!(!since["reason"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn a_host_is_shown_with_its_health_and_connections() {
    let bed = Bed::start(2, 1).await;
    let token = bed.admin();
    bed.get("/api/v1/vms", &token).await;
    let host = bed.get("/api/v1/hosts/h2", &token).await.json();
    assert_eq!(
        (&host["id"], &host["breaker"]["state"], &host["health"]["state"]),
        (&json!("h2"), &json!("closed"), &json!("healthy"))
    );
    assert!(host["pool"]["requests"].as_u64().unwrap() >= 1, "{host}");
    let some = bed.get("/api/v1/hosts?selector=h1", &token).await.json();
    assert_eq!(some.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn verbs_have_facts_and_schemas() {
    let bed = Bed::start(1, 1).await;
    let token = bed.token(atp_api::serve::Role::Viewer, &[], &[]);
    let verbs = bed.get("/api/v1/verbs", &token).await.json();
    let verbs = verbs.as_array().unwrap();
    let exec = verbs.iter().find(|verb| verb["op"] == "exec").unwrap();
    assert_eq!((&exec["names"][0]["allowed"], &exec["for_hosts"]), (&json!(false), &json!(false)));
    assert!(!exec["about"].as_str().unwrap().is_empty() && exec["schema"]["$defs"].is_object());
    let spec = serde_json::to_value(atp_api::json_schema()).unwrap();
    let known = spec["$defs"]["OperationSpec"]["oneOf"].as_array().unwrap().len();
    assert_eq!(verbs.len(), known);
    assert!(verbs.iter().all(|verb| !verb["names"].as_array().unwrap().is_empty()), "{verbs:?}");
}

#[tokio::test]
async fn a_part_of_a_list_says_how_many_there_are() {
    let bed = Bed::start(3, 12).await;
    let token = bed.admin();
    let all = bed.get("/api/v1/vms", &token).await.json();
    assert_eq!((names(&all).len(), &all["total"]), (36, &json!(36)));
    // Numbers are in the order of numbers.
    assert_eq!(names(&all)[8..13], ["h1/vm9", "h1/vm10", "h1/vm11", "h1/vm12", "h2/vm1"]);
    let part = bed.get("/api/v1/vms?offset=10&limit=3", &token).await.json();
    assert_eq!((names(&part), &part["total"]), (names(&all)[10..13].to_vec(), &json!(36)));
    let last = bed.get("/api/v1/vms?offset=35&limit=3&selector=*", &token).await.json();
    assert_eq!(names(&last), ["h3/vm12"]);
    assert_eq!(names(&bed.get("/api/v1/vms?offset=99", &token).await.json()).len(), 0);
    assert_eq!(bed.get("/api/v1/vms?limit=0", &token).await.status, 400);
}
