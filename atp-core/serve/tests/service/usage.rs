//! What VMs use, through the API and as metrics: a VM that hangs is stale and delays no other.

use std::time::Duration;

use atp_api::serve::Role;
use atp_fleet::{HostFault, VmFault};
use serde_json::Value;

use crate::bed::Bed;

fn vms(round: &Value) -> &Vec<Value> {
    round["vms"].as_array().unwrap()
}

fn names(round: &Value) -> Vec<String> {
    let name = |vm: &Value| format!("{}/{}", vm["host"].as_str().unwrap(), vm["vm"].as_str().unwrap());
    vms(round).iter().map(name).collect()
}

#[tokio::test]
async fn a_vm_that_hangs_among_twenty_is_stale_and_the_others_are_fresh() {
    let bed = Bed::start(1, 20).await;
    let token = bed.admin();
    let ask = || bed.get("/api/v1/statistics?max_age=0s", &token);
    let mut first = ask().await.json();
    assert_eq!(vms(&first)[0]["cpu"]["percent"], Value::Null);
    // On a busy machine some may be late for a round.
    let mut rounds = 1;
    while vms(&first).iter().any(|vm| vm.get("stale").is_some()) {
        assert!(rounds < 50, "{first}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        first = ask().await.json();
        rounds += 1;
    }
    bed.fleet.host(1).unwrap().vm(7).unwrap().set_fault(VmFault::Hung);
    let mut took = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let round = ask().await.json();
        took.push(round["took_ms"].as_u64().unwrap());
        let stale: Vec<_> = vms(&round).iter().filter(|vm| vm.get("stale").is_some()).collect();
        // On a busy machine others may be late for a round.
        if stale.len() == 1 && took.len() > 1 {
            assert_eq!(stale[0]["vm"], "vm7");
            assert!(vms(&round).iter().all(|vm| !vm["cpu"]["percent"].is_null()), "{round}");
            break;
        }
        assert!(took.len() < 50, "{took:?} {round}");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_ask_a_host_once_and_a_host_that_is_away_is_told() {
    let bed = Bed::start(2, 2).await;
    let token = bed.admin();
    bed.fleet.host(2).unwrap().set_fault(HostFault::Dead);
    let all = (0..10).map(|_| bed.get("/api/v1/statistics?max_age=10m", &token));
    for reply in futures_util::future::join_all(all).await {
        let round = reply.json();
        assert_eq!(names(&round), ["h1/vm1", "h1/vm2"]);
        let stale: Vec<_> =
            round["hosts"].as_array().unwrap().iter().map(|host| host.get("stale").is_some()).collect();
        assert_eq!(stale, [false, true], "{round}");
    }
    let metrics = bed.get("/metrics", &token).await.text();
    let count = |result: &str| {
        let line = format!("atp_cache_requests_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse::<u64>().unwrap()
    };
    // Two hosts, asked for once each; a host that was away is not asked again by those that come later.
    assert_eq!((count("miss"), count("shared") + count("hit")), (2, 18), "{metrics}");
    assert!(!metrics.contains("atp_vm_"), "{metrics}");
}

#[tokio::test]
async fn selections_and_tokens_count() {
    let bed = Bed::start(2, 2).await;
    let get = async |token: &str, query: &str| bed.get(&format!("/api/v1/statistics?{query}"), token).await;
    let admin = bed.admin();
    for (query, expected) in [
        ("selector=h1/", &["h1/vm1", "h1/vm2"][..]),
        ("selector=vm1&exclude=h2/", &["h1/vm1"]),
        ("state=shut-off", &[]),
        ("label=rack%3D7", &[]),
    ] {
        assert_eq!(names(&get(&admin, query).await.json()), expected, "{query}");
    }
    let own = bed.token(Role::Viewer, &["h1/vm2"], &[]);
    assert_eq!(names(&get(&own, "").await.json()), ["h1/vm2"]);
    assert_eq!(get(&own, "selector=h2/").await.kind(), "unknown-host");
    for (verbs, may) in [(&["stats"][..], true), (&["exec", "vm-list"][..], false)] {
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            let status = get(&bed.token(role, &[], verbs), "").await.status.as_u16();
            assert_eq!(status, if may { 200 } else { 403 }, "{role} {verbs:?}");
        }
    }
}

#[tokio::test]
async fn metrics_have_vms_if_they_are_switched_on_and_at_most_so_many() {
    let bed = Bed::with(1, 3, |config| config.vm_metrics = 2).await;
    let token = bed.admin();
    let mut metrics = bed.get("/metrics", &token).await.text();
    // On a busy machine one may be late for a round.
    for _ in 0..60 {
        let is_fresh = |vm: &str| metrics.contains(&format!("atp_vm_stale{{host=\"h1\",vm=\"{vm}\"}} 0\n"));
        if is_fresh("vm1") && is_fresh("vm2") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        metrics = bed.get("/metrics", &token).await.text();
    }
    for line in [
        "atp_vm_stale{host=\"h1\",vm=\"vm1\"} 0",
        "atp_vm_stale{host=\"h1\",vm=\"vm2\"} 0",
        "atp_vm_left_out 1",
        "# TYPE atp_vm_cpu_seconds counter",
    ] {
        assert!(metrics.lines().any(|text| text == line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("atp_vm_cpu_seconds_total{host=\"h1\",vm=\"vm1\"} "), "{metrics}");
    assert!(!metrics.contains("vm=\"vm3\""), "{metrics}");
    let own = bed.get("/metrics", &bed.token(Role::Viewer, &["vm3"], &[])).await.text();
    assert!(
        own.contains("vm=\"vm3\"") && !own.contains("vm=\"vm1\"") && own.contains("atp_vm_left_out 0"),
        "{own}"
    );
}

#[tokio::test]
async fn metrics_have_the_hosts_of_the_token_and_what_vms_use_by_the_verb_for_it() {
    let bed = Bed::with(2, 2, |config| config.vm_metrics = 10).await;
    let all = bed.get("/metrics", &bed.admin()).await.text();
    assert!(
        all.contains("host=\"h1\"") && all.contains("host=\"h2\"") && all.contains("atp_vm_memory"),
        "{all}"
    );
    let own = bed.get("/metrics", &bed.token(Role::Viewer, &["h1/vm1"], &[])).await.text();
    assert!(own.contains("host=\"h1\"") && own.contains("vm=\"vm1\""), "{own}");
    assert!(own.contains("atp_call_duration_seconds_count{host=\"h1\""), "{own}");
    assert!(!own.contains("host=\"h2\"") && !own.contains("vm=\"vm2\""), "{own}");
    let without = bed.get("/metrics", &bed.token(Role::Viewer, &[], &["vm-list"])).await.text();
    assert!(without.contains("host=\"h2\"") && !without.contains("atp_vm_"), "{without}");
}
