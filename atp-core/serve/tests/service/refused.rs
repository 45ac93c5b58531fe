//! Outcomes that the store refuses for good, and those that are larger than what it keeps: each target has one all the same.

use std::sync::Arc;
use std::time::Duration;

use atp_api::serve::Role;
use atp_fleet::{Exit, FleetOptions, Programs};
use atp_postgres::Postgres;
use atp_serve::Clock;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::bed::Bed;
use crate::runs::{echo, events};

/// How many bytes the program `big` prints.
const BIG: usize = 5 << 19;

fn fleet(vms: u32) -> FleetOptions {
    let big = Programs::new(|execution| (execution.path == "big").then(|| Exit::success(vec![b'x'; BIG])));
    FleetOptions { hosts: 1, vms, programs: Some(Arc::new(big)), ..FleetOptions::default() }
}

/// A service that shares a database, and that has its hosts.
async fn controller(vms: u32) -> (Bed, Postgres) {
    let server = Postgres::start().unwrap();
    let address = server.database("one").unwrap();
    let bed = Bed::of(fleet(vms), Clock::system(), |config| {
        (config.database, config.cluster, config.lease) = (address, true, Duration::from_secs(60));
    });
    (bed.await, server)
}

/// Runs to the end, and returns the events, and the outcomes by their VMs.
async fn run(bed: &Bed, request: &Value) -> (Vec<Value>, Vec<Value>) {
    let token = bed.token(Role::Operator, &[], &[]);
    let began = bed.post("/api/v1/runs", &token, request).await;
    assert_eq!(began.status, 201, "{}", began.text());
    let run = began.json()["id"].clone();
    let told = events(bed, &token, &run, 0).await;
    let outcomes = bed.get(&format!("/api/v1/runs/{run}/outcomes"), &token).await.json();
    let mut outcomes = outcomes["outcomes"].as_array().unwrap().clone();
    outcomes.sort_by_key(|outcome| outcome["vm"].to_string());
    (told.into_iter().map(|(_, _, data)| data).collect(), outcomes)
}

/// One VM's outcome was refused: it says so, in the events as well, and the run has gone on.
fn one_was_refused(told: &[Value], outcomes: &[Value]) {
    let in_short: Vec<_> = outcomes
        .iter()
        .map(|outcome| [&outcome["vm"], &outcome["status"], &outcome["effect"], &outcome["error"]["kind"]])
        .collect();
    assert_eq!(
        json!(in_short),
        json!([
            ["vm1", "failed", "done", "storage-failed"],
            ["vm2", "ok", "done", null],
            ["vm3", "ok", "done", null]
        ])
    );
    let message = outcomes[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("does not keep it") && message.contains("short"), "{message}");
    assert_eq!(
        (&outcomes[0]["data"], &outcomes[1]["data"]["stdout"]["text"]),
        (&Value::Null, &json!("hunter2\n"))
    );
    for outcome in outcomes {
        let of_it: Vec<_> = told
            .iter()
            .filter(|event| event["event"] == "finished" && event["vm"] == outcome["vm"])
            .collect();
        assert_eq!(of_it.len(), 1, "{told:?}");
        assert_eq!(of_it[0]["status"], outcome["status"], "{told:?}");
    }
    let last = told.last().unwrap();
    assert_eq!(last["event"], "ended", "{told:?}");
    assert_eq!((&last["counts"]["ok"], &last["counts"]["failed"]), (&json!(2), &json!(1)), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_a_file_refuses_for_good_is_kept_without_its_data() {
    let bed = Bed::of(fleet(3), Clock::system(), |_| {}).await;
    let mut file = SqliteConnectOptions::new().filename(bed.folder.path().join("runs.sqlite"));
    file = file.busy_timeout(Duration::from_secs(60));
    let mut connection = file.connect().await.unwrap();
    let long = "LIKE '%\"vm1\"%hunter2%' BEGIN SELECT RAISE(ABORT, 'shorter'); END;";
    let triggers = format!(
        "CREATE TRIGGER a BEFORE UPDATE ON targets WHEN new.outcome {long}
         CREATE TRIGGER b BEFORE INSERT ON events WHEN new.data {long}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(triggers)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (told, outcomes) = run(&bed, &echo(&["*"])).await;
    one_was_refused(&told, &outcomes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_of_which_only_the_event_is_refused_stays_as_it_was_recorded() {
    let bed = Bed::of(fleet(3), Clock::system(), |_| {}).await;
    let mut file = SqliteConnectOptions::new().filename(bed.folder.path().join("runs.sqlite"));
    file = file.busy_timeout(Duration::from_secs(60));
    let mut connection = file.connect().await.unwrap();
    let trigger = "CREATE TRIGGER b BEFORE INSERT ON events WHEN new.data LIKE '%\"vm1\"%hunter2%'
         BEGIN SELECT RAISE(ABORT, 'shorter'); END;";
    sqlx::raw_sql(trigger).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (told, outcomes) = run(&bed, &echo(&["*"])).await;
    for outcome in &outcomes {
        let kept = (&outcome["status"], &outcome["data"]["stdout"]["text"]);
        assert_eq!(kept, (&json!("ok"), &json!("hunter2\n")), "{outcome}");
        let of_it: Vec<_> = told
            .iter()
            .filter(|event| event["event"] == "finished" && event["vm"] == outcome["vm"])
            .collect();
        assert_eq!(of_it.len(), 1, "{told:?}");
        assert_eq!((&of_it[0]["status"], &of_it[0]["error"]), (&json!("ok"), &Value::Null), "{told:?}");
        assert_eq!(of_it[0]["data"].is_null(), outcome["vm"] == "vm1", "{told:?}");
    }
    assert_eq!(told.last().unwrap()["counts"]["ok"], 3, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_a_database_refuses_for_good_is_told_without_its_data() {
    let (bed, server) = controller(3).await;
    let checks =
        "ALTER TABLE targets ADD CONSTRAINT shorter_outcome CHECK (outcome NOT LIKE '%\"vm1\"%hunter2%');
        ALTER TABLE events ADD CONSTRAINT shorter_event CHECK (data NOT LIKE '%\"vm1\"%hunter2%')";
    server.execute("one", checks).unwrap();
    let (told, outcomes) = run(&bed, &echo(&["*"])).await;
    one_was_refused(&told, &outcomes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_keeps_as_much_of_an_output_as_a_service_by_itself() {
    let steps = "  - {exec: [big]}\n".repeat(4);
    let text = format!("name: a\ntargets: x\nsteps:\n{steps}");
    let request = json!({
        "targets": {"selectors": ["*"]},
        "operation": {"op": "scenario", "text": text},
        "policy": {"timeout_ms": 60_000},
    });
    let (controller, _server) = controller(1).await;
    let alone = Bed::of(fleet(1), Clock::system(), |_| {}).await;
    let mut kept = Vec::new();
    for bed in [&alone, &controller] {
        let (_, outcomes) = run(bed, &request).await;
        let steps = outcomes[0]["data"]["steps"].as_array().unwrap();
        let of = |step: &Value| {
            let stdout = &step["data"]["stdout"];
            (stdout["text"].as_str().unwrap().len(), stdout["truncated"] == true)
        };
        kept.push(steps.iter().map(of).collect::<Vec<_>>());
    }
    assert_eq!(kept[0], [(BIG, false), (BIG, false), (BIG, false), ((8 << 20) - 3 * BIG, true)]);
    assert_eq!(kept[1], kept[0]);
}
