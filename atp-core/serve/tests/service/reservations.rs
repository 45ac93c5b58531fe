//! Reservations through the API: two jobs never get one VM.

use std::collections::HashSet;

use atp_api::serve::Role;
use serde_json::{Value, json};

use crate::bed::{Bed, Reply, post};

fn request(owner: &str, selector: &str, count: u32) -> Value {
    json!({"targets": {"selectors": [selector]}, "count": count, "owner": owner, "for_ms": 3_600_000})
}

async fn reserve(bed: &Bed, token: &str, owner: &str, selector: &str, count: u32) -> Reply {
    bed.post("/api/v1/reservations", token, &request(owner, selector, count)).await
}

fn vms(reservations: &Value) -> Vec<String> {
    let name = |one: &Value| format!("{}/{}", one["host"].as_str().unwrap(), one["vm"].as_str().unwrap());
    reservations.as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn of_many_jobs_at_once_each_vm_is_ones() {
    let bed = &Bed::start(3, 4).await;
    let token = &bed.token(Role::Operator, &[], &[]);
    let jobs = (0..16).map(|job| async move {
        let owner = format!("job-{job}");
        // Sent twice, as after a lost answer: it is one reservation.
        let send = || async {
            let mut sent = post("/api/v1/reservations", token, &request(&owner, "*", 2));
            sent.headers_mut().insert("idempotency-key", owner.parse().unwrap());
            bed.send(sent).await.json()
        };
        let (once, again) = tokio::join!(send(), send());
        assert_eq!(once["selected"], 12);
        if !vms(&once["reservations"]).is_empty() && !vms(&again["reservations"]).is_empty() {
            assert_eq!(once, again);
        }
        [vms(&once["reservations"]), vms(&again["reservations"])].concat()
    });
    let got = futures_util::future::join_all(jobs).await;
    let mut seen = HashSet::new();
    for of_job in &got {
        let of_job: HashSet<&String> = of_job.iter().collect();
        assert!(matches!(of_job.len(), 0 | 2), "{of_job:?}");
        assert!(of_job.iter().all(|vm| seen.insert((*vm).clone())), "{got:?}");
    }
    assert_eq!(seen.len(), 12);
}

#[tokio::test]
async fn a_list_shows_who_has_a_vm_and_until_when() {
    let bed = Bed::start(2, 2).await;
    let token = bed.token(Role::Operator, &[], &[]);
    let granted = reserve(&bed, &token, "job-1", "h1/", 1).await.json();
    assert_eq!((vms(&granted["reservations"]), &granted["free"]), (vec!["h1/vm1".to_owned()], &json!(1)));
    let until = &granted["reservations"][0]["until_ms"];
    let listing = bed.get("/api/v1/vms", &token).await.json();
    let reserved: Vec<_> = listing["vms"].as_array().unwrap().iter().map(|vm| &vm["reserved_by"]).collect();
    assert_eq!(reserved, [&json!("job-1"), &Value::Null, &Value::Null, &Value::Null]);
    assert_eq!(&listing["vms"][0]["reserved_until_ms"], until);

    let refused = reserve(&bed, &token, "job-2", "h1/", 2).await.json();
    assert_eq!((vms(&refused["reservations"]).len(), &refused["free"]), (0, &json!(1)));
    let refused = reserve(&bed, &token, "job-2", "h1/", 3).await.json();
    assert_eq!(refused["selected"], 2);

    let release = |owner: &str, selectors: Value| json!({"owner": owner, "selectors": selectors});
    let path = "/api/v1/reservations/release";
    assert_eq!(bed.post(path, &token, &release("job-2", json!([]))).await.json(), json!([]));
    assert_eq!(bed.post(path, &token, &release("job-1", json!(["h2/"]))).await.json(), json!([]));
    let released = bed.post(path, &token, &release("job-1", json!(["vm1"]))).await.json();
    assert_eq!(released, granted["reservations"]);
    assert_eq!(bed.get("/api/v1/reservations", &token).await.json(), json!([]));
}

#[tokio::test]
async fn roles_verbs_and_selectors_count() {
    let bed = Bed::start(2, 2).await;
    let token = |role, selectors: &[&str], verbs: &[&str]| bed.token(role, selectors, verbs);
    for (role, verbs, may) in [
        (Role::Viewer, &[][..], false),
        (Role::Viewer, &["reserve"][..], false),
        (Role::Operator, &["exec"][..], false),
        (Role::Admin, &["exec"][..], false),
        (Role::Operator, &["reserve"][..], true),
        (Role::Operator, &[][..], true),
        (Role::Admin, &[][..], true),
    ] {
        let token = token(role, &[], verbs);
        // Too many, so that nothing is taken from the next.
        let reserving = reserve(&bed, &token, "job", "*", 5).await;
        let release = json!({"owner": "nobody"});
        let releasing = bed.post("/api/v1/reservations/release", &token, &release).await;
        for reply in [reserving, releasing] {
            let status = reply.status.as_u16();
            assert_eq!(status, if may { 200 } else { 403 }, "{role} {verbs:?}: {}", reply.text());
        }
        assert_eq!(bed.get("/api/v1/reservations", &token).await.status, 200);
    }
    // A token's own VMs are those that it can get, see and release.
    let (one, other) = (token(Role::Operator, &["h1/"], &[]), token(Role::Operator, &["h2/vm1"], &[]));
    assert_eq!(reserve(&bed, &one, "a", "*", 3).await.json()["selected"], 2);
    assert_eq!(vms(&reserve(&bed, &one, "a", "*", 2).await.json()["reservations"]), ["h1/vm1", "h1/vm2"]);
    assert_eq!(reserve(&bed, &one, "a", "h2/vm1", 1).await.kind(), "unknown-host");
    assert_eq!(vms(&reserve(&bed, &other, "a", "*", 1).await.json()["reservations"]), ["h2/vm1"]);
    assert_eq!(vms(&bed.get("/api/v1/reservations", &other).await.json()), ["h2/vm1"]);
    let release = json!({"owner": "a"});
    let path = "/api/v1/reservations/release";
    assert_eq!(vms(&bed.post(path, &other, &release).await.json()), ["h2/vm1"]);
    // An operator that sees all releases what it has reserved, and an admin what all have.
    assert_eq!(vms(&bed.post(path, &token(Role::Operator, &[], &[]), &release).await.json()).len(), 0);
    assert_eq!(vms(&bed.post(path, &bed.admin(), &release).await.json()), ["h1/vm1", "h1/vm2"]);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_name() {
    let bed = Bed::start(1, 1).await;
    let token = bed.admin();
    for (change, field) in [
        (json!({"count": 0}), "count"),
        (json!({"owner": ""}), "owner"),
        (json!({"owner": "x".repeat(300)}), "owner"),
        (json!({"for_ms": 0}), "for_ms"),
        (json!({"targets": {"selectors": []}}), "targets.selectors"),
        (json!({"more": 1}), "more"),
    ] {
        let mut body = request("a", "*", 1);
        let (name, value) = change.as_object().unwrap().iter().next().unwrap();
        body[name] = value.clone();
        let reply = bed.post("/api/v1/reservations", &token, &body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["errors"][0]["field"]),
            (400, &json!(field)),
            "{body}"
        );
    }
    let read_only = Bed::with(1, 1, |config| config.read_only = true).await;
    assert_eq!(reserve(&read_only, &read_only.admin(), "a", "*", 1).await.kind(), "read-only");
}
