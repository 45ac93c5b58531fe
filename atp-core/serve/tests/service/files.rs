//! Files that are sent and fetched, and pictures of screens.

use atp_api::serve::Role;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;

use crate::bed::{Bed, Reply};

pub(crate) async fn upload(bed: &Bed, token: &str, name: &str, content: impl Into<Bytes>) -> Reply {
    let request = Request::post(format!("/api/v1/files?name={name}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Full::from(content.into()))
        .unwrap();
    bed.send(request).await
}

#[tokio::test]
async fn a_file_that_was_sent_can_be_pushed_and_fetched_by_its_owner_only() {
    let bed = Bed::start(1, 1).await;
    let (token, other) = (bed.token(Role::Operator, &[], &[]), bed.token(Role::Operator, &[], &[]));
    let reply = upload(&bed, &token, "setup.sh", "echo hello").await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let file = reply.json();
    assert_eq!((&file["name"], &file["bytes"]), (&json!("setup.sh"), &json!(10)));
    assert_eq!(file["sha256"].as_str().unwrap().len(), 64);
    let id = file["id"].as_str().unwrap();

    let fetch = format!("/api/v1/files/{id}/setup.sh");
    let fetched = bed.get(&fetch, &token).await;
    assert_eq!(
        (fetched.text().as_str(), fetched.header("content-disposition")),
        ("echo hello", "attachment")
    );
    assert_eq!(bed.get(&fetch, &bed.admin()).await.status, 200);
    for path in [
        fetch.clone(),
        format!("/api/v1/files/{id}/.owner"),
        format!("/api/v1/files/{id}/../../tokens.toml"),
        format!("/api/v1/files/{id}/%2e%2e/%2e%2e/tokens.toml"),
        format!("/api/v1/files/{id}/%2Fetc%2Fpasswd"),
        format!("/api/v1/files/{}/setup.sh", "0".repeat(32)),
        "/api/v1/files/../tokens.toml".to_owned(),
    ] {
        let reply = bed.get(&path, &other).await;
        assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (404, "nothing-there"), "{path}");
        if path != fetch {
            assert_eq!(bed.get(&path, &token).await.status, 404, "{path}");
        }
    }

    let push = |source: &str| {
        let operation = json!({"op": "push", "source": source, "destination": "/tmp/"});
        json!({"targets": {"selectors": ["h1/vm1"]}, "operation": operation})
    };
    let planned = bed.post("/api/v1/plans", &token, &push(id)).await;
    assert_eq!(planned.status, 200, "{}", planned.text());
    assert_eq!(bed.post("/api/v1/plans", &other, &push(id)).await.status, 400);
}

#[tokio::test]
async fn files_have_names_and_limits() {
    let bed = Bed::with(1, 1, |config| (config.max_file, config.max_files) = (100, 150)).await;
    let token = bed.token(Role::Operator, &[], &[]);
    for name in ["..", "a%2Fb", "%2Fetc%2Fpasswd", ".owner", ""] {
        let reply = upload(&bed, &token, name, "x").await;
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
    }
    assert_eq!(upload(&bed, &token, "a", vec![0; 101]).await.kind(), "request-too-large");
    assert_eq!(upload(&bed, &token, "a", vec![0; 100]).await.status, 201);
    assert_eq!(
        upload(&bed, &token, "a", vec![0; 100]).await.kind(),
        "request-too-large",
        "there is room for 50"
    );
    let viewer = bed.token(Role::Viewer, &[], &[]);
    assert_eq!(upload(&bed, &viewer, "a", "x").await.kind(), "permission-denied");
    let without = bed.token(Role::Admin, &[], &["exec"]);
    assert_eq!(upload(&bed, &without, "a", "x").await.kind(), "permission-denied");
    let read_only = Bed::with(1, 1, |config| config.read_only = true).await;
    assert_eq!(upload(&read_only, &read_only.admin(), "a", "x").await.kind(), "read-only");
}

#[tokio::test]
async fn those_who_look_at_a_screen_see_one_picture() {
    let bed = Bed::start(1, 2).await;
    let viewer = bed.token(Role::Viewer, &["h1/vm1"], &[]);
    let path = "/api/v1/vms/h1/vm1/screenshot";
    let all = futures_util::future::join_all((0..10).map(|_| bed.get(path, &viewer))).await;
    for reply in &all {
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (200, "image/png"),
            "{}",
            reply.text()
        );
        assert!(reply.body.starts_with(b"\x89PNG"));
    }
    let calls = bed.fleet.host(1).unwrap().vm(1).unwrap().counts();
    assert_eq!(calls.calls.of("virDomainScreenshot"), 1, "{calls:?}");
    assert_eq!(bed.get("/api/v1/vms/h1/vm2/screenshot", &viewer).await.kind(), "vm-not-found");
    assert_eq!(bed.get("/api/v1/vms/h1/none/screenshot", &bed.admin()).await.kind(), "vm-not-found");
    assert_eq!(bed.get("/api/v1/vms/h9/vm1/screenshot", &viewer).await.kind(), "unknown-host");
    assert_eq!(bed.get(&format!("{path}?screen=99"), &viewer).await.status, 400);
    let without = bed.token(Role::Admin, &[], &["exec"]);
    assert_eq!(bed.get(path, &without).await.kind(), "permission-denied");
}

#[tokio::test]
async fn a_file_is_removed_by_its_owner_before_its_time_and_keeps_its_mode() {
    let bed = Bed::start(1, 1).await;
    let (token, other) = (bed.token(Role::Operator, &[], &[]), bed.token(Role::Operator, &[], &[]));
    let file = upload(&bed, &token, "run.sh&mode=750", "echo").await.json();
    let path = format!("/api/v1/files/{}", file["id"].as_str().unwrap());
    let fetched = bed.get(&format!("{path}/run.sh"), &token).await;
    assert_eq!((fetched.text().as_str(), fetched.header("x-atp-mode")), ("echo", "750"));
    for mode in ["999", "", "-1", "07777", "rwx"] {
        assert_eq!(upload(&bed, &token, &format!("a&mode={mode}"), "x").await.status, 400, "{mode}");
    }
    let remove = |token: &str| {
        let request = Request::delete(path.as_str()).header("authorization", format!("Bearer {token}"));
        bed.send(request.body(Full::default()).unwrap())
    };
    assert_eq!(remove(&other).await.kind(), "nothing-there");
    assert_eq!(remove(&token).await.status, 204);
    assert_eq!(bed.get(&format!("{path}/run.sh"), &token).await.status, 404);
    assert_eq!(remove(&token).await.status, 404);
}

#[tokio::test]
async fn a_scenario_pushes_only_what_its_token_has_sent() {
    let bed = Bed::start(1, 1).await;
    let (token, other) = (bed.token(Role::Operator, &[], &[]), bed.token(Role::Operator, &[], &[]));
    let id = upload(&bed, &token, "a.conf", "x").await.json()["id"].clone();
    let text =
        "name: a\ntargets: x\nsteps:\n  - cp: {push: a.conf, to: /a}\n  - cp: {pull: /a, to: /etc/cron.d}\n";
    let plan = |files: serde_json::Value| {
        let operation = json!({"op": "scenario", "text": text, "files": files});
        json!({"targets": {"selectors": ["h1/vm1"]}, "operation": operation})
    };
    assert_eq!(bed.post("/api/v1/plans", &token, &plan(json!({"a.conf": id}))).await.status, 200);
    for (token, files) in [
        (&token, json!({})),
        (&token, json!({"b.conf": id})),
        (&token, json!({"a.conf": "/etc/passwd"})),
        (&token, json!({"a.conf": id, "b.conf": "../tokens.toml"})),
        (&other, json!({"a.conf": id})),
    ] {
        let reply = bed.post("/api/v1/plans", token, &plan(files.clone())).await;
        assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (400, "invalid-request"), "{files}");
        assert_eq!(reply.json()["errors"][0]["field"], "operation.files", "{}", reply.text());
    }
    let viewer = bed.token(Role::Viewer, &[], &[]);
    assert_eq!(bed.post("/api/v1/plans", &viewer, &plan(json!({}))).await.kind(), "permission-denied");
    let without = bed.token(Role::Operator, &[], &["run"]);
    assert_eq!(bed.post("/api/v1/plans", &without, &plan(json!({}))).await.kind(), "permission-denied");

    // What steps pull is kept by the service, wherever they say that it goes.
    let run = bed.post("/api/v1/runs", &token, &plan(json!({"a.conf": id}))).await.json()["id"].clone();
    crate::runs::events(&bed, &token, &run, 0).await;
    let page = bed.get(&format!("/api/v1/runs/{run}/outcomes"), &token).await.json();
    let steps = &page["outcomes"][0]["data"]["steps"];
    assert_eq!(steps[0]["data"]["local_path"], format!("{}/a.conf", id.as_str().unwrap()), "{page}");
    let pulled = steps[1]["data"]["local_path"].as_str().unwrap();
    assert!(pulled.ends_with("/%2fetc%2fcron.d/h1/vm1/a"), "{pulled}");
    let path = format!("/api/v1/files/{}", pulled.replace('%', "%25"));
    assert_eq!(bed.get(&path, &token).await.text(), "x");
}

#[tokio::test]
async fn files_that_are_sent_at_the_same_time_share_the_room() {
    let bed = Bed::with(1, 1, |config| (config.max_file, config.max_files) = (100, 250)).await;
    let token = bed.token(Role::Operator, &[], &[]);
    let sent = (0..10).map(|n| upload(&bed, &token, "a", vec![n; 100]));
    let sent = futures_util::future::join_all(sent).await;
    let taken = sent.iter().filter(|reply| reply.status == 201).count();
    assert!(taken <= 2, "{taken} files of 100 bytes are kept where 250 bytes may be");
    assert!(sent.iter().all(|reply| reply.status == 201 || reply.kind() == "request-too-large"));
    // What was refused takes no room.
    let first = upload(&bed, &token, "a", vec![0; 100]).await.status.as_u16();
    assert_eq!(first, if taken == 2 { 413 } else { 201 });
}

fn folders(bed: &Bed) -> usize {
    std::fs::read_dir(bed.folder.path().join("files")).map_or(0, |folders| folders.flatten().count())
}

#[tokio::test]
async fn a_run_makes_no_folder_that_its_token_may_not_or_for_which_there_is_no_room() {
    let bed = Bed::with(1, 1, |config| (config.max_file, config.max_files) = (100, 102)).await;
    let run =
        |operation: serde_json::Value| json!({"targets": {"selectors": ["h1/vm1"]}, "operation": operation});
    let pull = run(json!({"op": "pull", "path": "/a", "destination": "."}));
    let all = [
        run(json!({"op": "screenshot", "folder": "."})),
        run(json!({"op": "console", "folder": "."})),
        pull.clone(),
    ];
    let without = bed.token(Role::Operator, &[], &["exec"]);
    for request in &all {
        for path in ["/api/v1/plans", "/api/v1/runs"] {
            let reply = bed.post(path, &without, request).await;
            assert_eq!(reply.kind(), "permission-denied", "{request}: {}", reply.text());
        }
    }
    assert_eq!(folders(&bed), 0);
    let token = bed.token(Role::Operator, &[], &[]);
    assert_eq!(upload(&bed, &token, "a", vec![0; 100]).await.status, 201);
    let before = folders(&bed);
    let full = bed.post("/api/v1/runs", &token, &pull).await;
    assert_eq!(full.kind(), "storage-failed", "{}", full.text());
    assert_eq!(folders(&bed), before);
}

/// Carries out an operation on VMs of the first host, and returns the outcomes.
async fn outcomes(bed: &Bed, token: &str, vm: &str, operation: serde_json::Value) -> Vec<serde_json::Value> {
    let request = json!({
        "targets": {"selectors": [format!("h1/{vm}")]},
        "operation": operation,
        "policy": {"timeout_ms": 30_000},
    });
    let began = bed.post("/api/v1/runs", token, &request).await;
    assert_eq!(began.status, 201, "{}", began.text());
    let run = began.json()["id"].clone();
    crate::runs::events(bed, token, &run, 0).await;
    let page = bed.get(&format!("/api/v1/runs/{run}/outcomes"), token).await.json();
    page["outcomes"].as_array().unwrap().clone()
}

#[tokio::test]
async fn guests_of_a_run_share_half_of_the_room_and_one_that_has_none_says_so() {
    let bed = Bed::with(1, 3, |config| (config.max_file, config.max_files) = (50_000, 220_000)).await;
    let token = bed.token(Role::Operator, &[], &[]);
    let id = upload(&bed, &token, "big", vec![b'x'; 40_000]).await.json()["id"].clone();
    let pushed =
        outcomes(&bed, &token, "*", json!({"op": "push", "source": id, "destination": "/big"})).await;
    assert!(pushed.iter().all(|outcome| outcome["status"] == "ok"), "{pushed:?}");

    // 180,000 bytes are left, and half of them have room for two.
    let pull = json!({"op": "pull", "path": "/big", "destination": "."});
    let pulled = outcomes(&bed, &token, "*", pull.clone()).await;
    let refused: Vec<_> = pulled.iter().filter(|outcome| outcome["status"] != "ok").collect();
    assert_eq!((pulled.len(), refused.len()), (3, 1), "{pulled:?}");
    let error = &refused[0]["error"];
    assert_eq!((&error["kind"], &error["retryable"]), (&json!("local-file-error"), &json!(false)), "{error}");
    let told = error["causes"].to_string();
    assert!(told.contains("serve.max_files (220000)") && told.contains("DELETE /api/v1/files/ID"), "{error}");
    let kept = pulled.iter().filter_map(|outcome| outcome["data"]["local_path"].as_str());
    let kept: Vec<_> = kept.map(|path| bed.folder.path().join("files").join(path)).collect();
    assert_eq!(kept.len(), 2);
    let of_run = kept[0].ancestors().nth(3).unwrap();
    assert_eq!(size(of_run), 80_000 + "t0".len() as u64, "of what did not fit nothing is left");

    // The next has half of what is left then: some 100,000 bytes.
    assert_eq!(outcomes(&bed, &token, "vm1", pull.clone()).await[0]["status"], "ok");
    let last = outcomes(&bed, &token, "vm1", pull).await;
    assert_eq!(last[0]["error"]["kind"], "local-file-error", "{last:?}");
}

#[tokio::test]
async fn pictures_and_consoles_have_the_room_of_their_run_too() {
    let bed = Bed::with(1, 1, |config| config.max_files = 20).await;
    let token = bed.token(Role::Operator, &[], &[]);
    for op in ["screenshot", "console"] {
        let failed = outcomes(&bed, &token, "vm1", json!({"op": op, "folder": "."})).await;
        assert_eq!((&failed[0]["status"], &failed[0]["effect"]), (&json!("failed"), &json!("none")));
        let error = &failed[0]["error"];
        assert_eq!(error["kind"], "local-file-error", "{error}");
        assert!(error["message"].as_str().unwrap().contains("serve.max_files (20)"), "{error}");
    }
}

/// The bytes of all files below a folder.
fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let size_of = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => size(&entry.path()),
        metadata => metadata.len(),
    };
    entries.map(size_of).sum()
}

#[tokio::test]
async fn a_folder_is_sent_as_its_archive() {
    let bed = Bed::start(1, 1).await;
    let token = bed.token(Role::Operator, &[], &[]);
    let push = |id: &serde_json::Value| {
        let operation = json!({"op": "push", "source": id, "destination": "/tmp/", "recursive": true});
        json!({"targets": {"selectors": ["h1/vm1"]}, "operation": operation})
    };
    let id = upload(&bed, &token, "site", "no archive").await.json()["id"].clone();
    let refused = bed.post("/api/v1/plans", &token, &push(&id)).await;
    assert_eq!(refused.kind(), "local-file-error", "{}", refused.text());
    assert!(refused.text().contains("not an archive"), "{}", refused.text());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index"), "hello").unwrap();
    let mut tar = std::process::Command::new("tar");
    let packed = tar.args(["--sort=name", "-c", "-C"]).arg(folder.path()).arg(".").output().unwrap();
    let id = upload(&bed, &token, "site", packed.stdout).await.json()["id"].clone();
    let planned = bed.post("/api/v1/plans", &token, &push(&id)).await;
    assert_eq!(planned.status, 200, "{}", planned.text());
}
