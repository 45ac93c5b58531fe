//! A clock on the wall that is set while the service runs, by years, forward and back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atp_serve::Clock;
use parking_lot::Mutex;

use crate::bed::{Bed, get};
use crate::files::upload;
use crate::runs::{echo, events, with_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_no_session_loses_no_run_and_removes_no_file() {
    let years = Duration::from_secs(20 * 365 * 24 * 3600);
    let shown = Arc::new(Mutex::new(SystemTime::now()));
    let read = shown.clone();
    let bed = Bed::at(Clock::of(move || *read.lock()), 2, 3, |_| {}).await;
    let token = bed.admin();
    let file = upload(&bed, &token, "kept", "content").await.json();
    let path = format!("/api/v1/files/{}/kept", file["id"].as_str().unwrap());
    let login = serde_json::json!({"token": token});
    let session = bed.post("/api/v1/session", "", &login).await;
    let cookie = session.header("set-cookie").split(';').next().unwrap().to_owned();

    let mut runs = Vec::new();
    for (number, jump) in [1, 2, 1].into_iter().enumerate() {
        let run = bed.send(with_key(&echo(&["*"]), &token, &format!("k{number}"))).await.json()["id"].clone();
        match jump {
            1 => *shown.lock() += years,
            _ => *shown.lock() -= 2 * years,
        }
        let all = events(&bed, &token, &run, 0).await;
        let numbers: Vec<_> = all.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, (1..=14).collect::<Vec<_>>());
        assert_eq!(all[13].1, "ended");
        // The folder is looked through for what is old with each file.
        upload(&bed, &token, "other", "x").await;
        assert_eq!(bed.get(&path, &token).await.text(), "content");
        let mut request = get("/api/v1/session", "");
        request.headers_mut().remove("authorization");
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        assert_eq!(bed.send(request).await.status, 200, "the session has ended");
        runs.insert(0, run);
    }
    // The newest first, whatever their times say; each key is still that of its run.
    let listed = bed.get("/api/v1/runs", &token).await.json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, runs);
    let created = listed[0]["created"].as_str().unwrap();
    assert!(created < listed[1]["created"].as_str().unwrap(), "{listed}");
    let again = bed.send(with_key(&echo(&["*"]), &token, "k0")).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &runs[2]));
    assert_eq!(bed.get("/readyz", "").await.status, 200);
}
