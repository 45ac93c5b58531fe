//! Who may do what: every role with every verb, and every token's VMs with every selection.

use atp_api::serve::Role;
use serde_json::{Value, json};

use crate::bed::{Bed, get};

/// What each role may do: `viewer operator admin`, and the verbs that a token with a list of verbs needs for it.
fn verbs() -> Vec<(&'static str, Value, [bool; 3], &'static [&'static str])> {
    const LOOK: [bool; 3] = [true, true, true];
    const WORK: [bool; 3] = [false, true, true];
    let scenario =
        |step: &str| json!({"op": "scenario", "text": format!("name: a\ntargets: x\nsteps:\n  - {step}\n")});
    let lifecycle = |action: &str| json!({"op": "lifecycle", "action": action});
    vec![
        ("doctor", json!({"op": "diagnose-agent"}), LOOK, &["doctor"]),
        ("vm-list", json!({"op": "vm-list"}), LOOK, &["vm-list"]),
        ("vm-info", json!({"op": "vm-info"}), LOOK, &["vm-info"]),
        ("vm-start", lifecycle("start"), WORK, &["vm-start"]),
        ("vm-shutdown", lifecycle("shutdown"), WORK, &["vm-shutdown"]),
        ("vm-reboot", lifecycle("reboot"), WORK, &["vm-reboot"]),
        ("vm-reset", lifecycle("reset"), WORK, &["vm-reset"]),
        ("vm-destroy", lifecycle("destroy"), WORK, &["vm-destroy"]),
        ("vm-suspend", lifecycle("suspend"), WORK, &["vm-suspend"]),
        ("vm-resume", lifecycle("resume"), WORK, &["vm-resume"]),
        ("exec", json!({"op": "exec", "program": "true"}), WORK, &["exec"]),
        ("wait", json!({"op": "wait", "until": "agent"}), LOOK, &["wait"]),
        (
            "wait for a program",
            json!({"op": "wait", "until": "exec", "program": "true"}),
            WORK,
            &["exec", "wait"],
        ),
        ("qmp", json!({"op": "qmp", "command": "query-status"}), WORK, &["qmp"]),
        ("qga", json!({"op": "qga", "command": "guest-ping"}), WORK, &["qga"]),
        ("key", json!({"op": "key", "chords": ["a"]}), WORK, &["key"]),
        ("type", json!({"op": "type", "text": "a"}), WORK, &["type"]),
        ("mouse", json!({"op": "mouse", "action": "click left"}), WORK, &["mouse"]),
        ("a scenario that looks", scenario("vm: info"), LOOK, &["run", "vm-info"]),
        (
            "a scenario that reads a file by a program",
            scenario("assert: {file: {path: /x, exists: false}}"),
            WORK,
            &["exec", "run"],
        ),
        ("console", json!({"op": "console"}), LOOK, &["console"]),
        ("console from another client", json!({"op": "console", "force": true}), WORK, &["console"]),
        ("a scenario that works", scenario("exec: 'true'"), WORK, &["exec", "run"]),
        ("a scenario that ends VMs", scenario("vm: destroy"), WORK, &["run", "vm-destroy"]),
    ]
}

fn request(selector: &str, operation: &Value) -> Value {
    json!({"targets": {"selectors": [selector]}, "operation": operation, "policy": {"timeout_ms": 20_000}})
}

/// Compares what was answered with what a cell of a table says.
fn judge(cell: &str, may: bool, status: u16, kind: Option<String>, wrong: &mut Vec<String>) {
    let is_as_told = match may {
        true => status == 200,
        false => status == 403 && kind.as_deref() == Some("permission-denied"),
    };
    if !is_as_told {
        wrong.push(format!("{cell}: expected {may}, found {status} {kind:?}"));
    }
}

#[tokio::test]
async fn every_role_with_every_verb() {
    let bed = Bed::start(1, 1).await;
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let mut wrong = Vec::new();
    for (name, operation, may, needs) in verbs() {
        for (role, may) in roles.into_iter().zip(may) {
            let without_one: Vec<Vec<&str>> = needs
                .iter()
                .map(|left_out| needs.iter().copied().filter(|verb| verb != left_out).collect())
                .collect();
            let mut lists = vec![(vec![], may), (needs.to_vec(), may), (vec!["host-check"], false)];
            // An empty list would allow all.
            lists.extend(without_one.into_iter().filter(|list| !list.is_empty()).map(|list| (list, false)));
            for (list, may) in lists {
                let token = bed.token(role, &[], &list);
                let reply = bed.post("/api/v1/plans", &token, &request("h1/vm1", &operation)).await;
                let kind = (!reply.status.is_success()).then(|| reply.kind());
                let cell = format!("{role} {name} with the verbs {list:?}");
                judge(&cell, may, reply.status.as_u16(), kind, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is selected, and whether that is allowed.
type Cells = &'static [(&'static str, bool)];

/// What a token's selectors allow of what is selected.
const SELECTIONS: &[(&[&str], Cells)] = &[
    (&[], &[("*", true), ("h1/vm1", true), ("h2/", true), ("@pair/", true)]),
    (&["*"], &[("*", true), ("h1/vm1", true), ("h2/", true)]),
    (&["h1/"], &[("*", false), ("h1/*", true), ("h1/vm1", true), ("h2/vm1", false), ("h[1-2]/vm1", false)]),
    (&["h1/vm1"], &[("h1/vm1", true), ("h1/vm2", false), ("h1/", false), ("vm1", false), ("h2/vm1", false)]),
    (&["vm1"], &[("vm1", true), ("h2/vm1", true), ("vm*", false), ("h1/", false)]),
    (&["h1/vm1", "h2/"], &[("h1/vm1", true), ("h2/", true), ("vm1", true), ("vm2", false), ("*", false)]),
    (&["none-*"], &[("h1/vm1", false), ("*", false)]),
];

#[tokio::test]
async fn every_token_s_vms_with_every_selection() {
    let bed = Bed::start(2, 2).await;
    let operation = json!({"op": "exec", "program": "true"});
    let mut wrong = Vec::new();
    for (selectors, cells) in SELECTIONS {
        for role in [Role::Operator, Role::Admin] {
            let token = bed.token(role, selectors, &[]);
            for (selected, may) in *cells {
                let reply = bed.post("/api/v1/plans", &token, &request(selected, &operation)).await;
                if *selected == "@pair/" {
                    // There is no such group: that is found before any target.
                    assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (404, "unknown-group"));
                    continue;
                }
                let kind = (!reply.status.is_success()).then(|| reply.kind());
                let cell = format!("{role} of {selectors:?} on {selected}");
                judge(&cell, *may, reply.status.as_u16(), kind, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn lists_show_only_a_token_s_vms_and_hosts() {
    let bed = Bed::start(2, 2).await;
    let token = bed.token(Role::Viewer, &["h1/vm2"], &[]);
    let vms = bed.get("/api/v1/vms", &token).await.json();
    let names: Vec<_> = vms["vms"].as_array().unwrap().iter().map(|vm| (&vm["host"], &vm["vm"])).collect();
    assert_eq!(names, [(&json!("h1"), &json!("vm2"))]);
    let hosts = bed.get("/api/v1/hosts", &token).await.json();
    assert_eq!(hosts.as_array().unwrap().iter().map(|host| &host["id"]).collect::<Vec<_>>(), ["h1"]);
    assert_eq!(bed.get("/api/v1/hosts/h2", &token).await.kind(), "unknown-host");
    assert_eq!(bed.get("/api/v1/hosts/h1", &token).await.status, 200);
    assert_eq!(bed.get("/api/v1/vms?selector=h2/vm1", &token).await.kind(), "unknown-host");
}

#[tokio::test]
async fn a_run_that_lists_vms_has_only_a_token_s() {
    let bed = Bed::start(2, 2).await;
    let list = json!({"op": "vm-list"});
    for (selectors, selected, listed) in [
        (&["h1/"][..], "*", Some(&["h1/vm1", "h1/vm2"][..])),
        (&["h1/vm1", "h2/vm2"], "*", Some(&["h1/vm1", "h2/vm2"])),
        (&["h1/vm1"], "h*/vm*", Some(&["h1/vm1"])),
        (&["h1/"], "vm2", Some(&["h1/vm2"])),
        (&["h1/"], "h2*/", Some(&[])),
        (&["none-*"], "*", Some(&[])),
        // What is named is refused.
        (&["h1/"], "h2/", None),
        (&["h1/vm1"], "h1/vm2", None),
    ] {
        let token = bed.token(Role::Viewer, selectors, &[]);
        let reply = bed.post("/api/v1/plans", &token, &request(selected, &list)).await;
        let cell = format!("{selectors:?} on {selected}: {}", reply.text());
        let Some(listed) = listed else {
            assert_eq!(reply.kind(), "permission-denied", "{cell}");
            continue;
        };
        assert_eq!(reply.status, 200, "{cell}");
        let plan = reply.json();
        let text = |target: &Value| {
            format!("{}/{}", target["host"].as_str().unwrap(), target["vm"].as_str().unwrap())
        };
        let targets: Vec<_> = plan["targets"].as_array().unwrap().iter().map(text).collect();
        assert_eq!(targets, listed, "{cell}");
        assert_eq!(plan["settled"], json!([]), "{cell}");
    }
}

#[tokio::test]
async fn hosts_as_targets_need_all_of_their_vms() {
    let bed = Bed::start(2, 1).await;
    let check = json!({"op": "host-check"});
    for (selectors, selected, may) in [
        (&[][..], "h1/", true),
        (&["h1/"][..], "h1/", true),
        (&["h1/*"][..], "h1/", true),
        (&["h1/vm1"][..], "h1/", false),
        (&["/^vm/"][..], "h1/", false),
        (&["h1//^vm/"][..], "h1/", false),
        (&["h1/"][..], "h2/", false),
    ] {
        let token = bed.token(Role::Viewer, selectors, &[]);
        let reply = bed.post("/api/v1/plans", &token, &request(selected, &check)).await;
        assert_eq!(
            reply.status.as_u16(),
            if may { 200 } else { 403 },
            "{selectors:?} on {selected}: {}",
            reply.text()
        );
    }
    // The name of a VM means no host, and not every host.
    let admin = bed.admin();
    for op in ["host-check", "diagnose-host"] {
        for (selected, instead) in [("h1", "h1/"), ("h1/vm1", "h1/"), ("/h1/", "*/")] {
            let body = request(selected, &json!({"op": op}));
            for path in ["/api/v1/plans", "/api/v1/runs"] {
                let reply = bed.post(path, &admin, &body).await;
                assert_eq!(reply.kind(), "invalid-selector", "{op} {selected}: {}", reply.text());
                let hint = reply.json()["hint"].to_string();
                assert!(hint.contains(&format!("write {instead}")), "{selected}: {hint}");
            }
        }
    }
    let plan = bed.post("/api/v1/plans", &admin, &request("h1/", &check)).await.json();
    assert_eq!(plan["targets"].as_array().unwrap().len(), 1, "{plan}");
}

#[tokio::test]
async fn a_refusal_tells_a_token_nothing_of_vms_and_hosts_that_are_not_its() {
    let bed = Bed::start(2, 3).await;
    let token = bed.token(Role::Viewer, &["h1/vm1"], &[]);
    let look = json!({"op": "vm-info"});
    let mut refusals = Vec::new();
    for selected in ["h1/*", "h1/vm[!1]", "h2/*", "h9/*", "h9/vm1", "@none/", "*"] {
        let reply = bed.post("/api/v1/plans", &token, &request(selected, &look)).await;
        assert_eq!(reply.kind(), "permission-denied", "{selected}: {}", reply.text());
        let text = reply.text();
        assert!(!["vm2", "vm3", "h2", "h9"].iter().any(|name| text.contains(name)), "{selected}: {text}");
        refusals.push(text);
    }
    // A host that there is not looks like one that is another's.
    assert_eq!(refusals[2], refusals[3]);
    let named = bed.post("/api/v1/plans", &token, &request("h1/vm2", &look)).await;
    assert!(named.text().contains("h1/vm2"), "{}", named.text());
}

#[tokio::test]
async fn a_token_with_verbs_sees_the_runs_of_its_own_alone() {
    let bed = Bed::start(1, 1).await;
    let exec = json!({"op": "exec", "program": "true"});
    let start = async |token: &str| {
        let reply = bed.post("/api/v1/runs", token, &request("h1/vm1", &exec)).await;
        assert!(reply.status.is_success(), "{}", reply.text());
        reply.json()["id"].as_u64().unwrap()
    };
    let all = bed.token(Role::Operator, &[], &[]);
    let of_others = start(&all).await;
    let scraper = bed.token(Role::Viewer, &[], &["stats"]);
    let other = bed.token(Role::Operator, &[], &["exec"]);
    let own = start(&other).await;
    for (token, sees) in [(&scraper, vec![]), (&other, vec![own]), (&all, vec![own, of_others])] {
        let runs = bed.get("/api/v1/runs", token).await.json();
        let ids: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, sees);
        for part in ["", "/plan", "/outcomes", "/events", "/junit"] {
            let reply = bed.get(&format!("/api/v1/runs/{of_others}{part}"), token).await;
            assert_eq!(reply.status == 404, !sees.contains(&of_others), "{part}: {}", reply.status);
        }
    }
}

#[tokio::test]
async fn every_route_but_the_open_ones_needs_a_token() {
    let bed = Bed::start(1, 1).await;
    let openapi = atp_serve::openapi();
    let mut guarded = 0;
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let is_open = operation["security"] == json!([]);
            let path = path.replace(['{', '}'], "");
            for token in ["", "atp_0000"] {
                let mut request = get(&path, token);
                *request.method_mut() = method.to_ascii_uppercase().parse().unwrap();
                if token.is_empty() {
                    request.headers_mut().remove("authorization");
                }
                let reply = bed.send(request).await;
                let is_refused = reply.status == 401;
                // Login has no token in its header, and needs one in its body.
                assert!(
                    is_refused != is_open || path == "/api/v1/session",
                    "{method} {path}: {}",
                    reply.text()
                );
                guarded += usize::from(is_refused);
                if is_refused {
                    assert_eq!(reply.kind(), "not-authenticated");
                }
            }
            // Failed tokens are counted by address; this test has more of them than a guess needs.
            if guarded >= 16 {
                return;
            }
        }
    }
    assert!(guarded >= 8, "{guarded}");
}

#[tokio::test]
async fn consoles_and_channels_are_for_operators_with_the_verb_on_their_vms_and_for_no_other_origin() {
    let bed = Bed::start(1, 2).await;
    let open = async |path: &str, token: &str, origin: Option<&str>| {
        let mut request = get(path, token);
        let headers = request.headers_mut();
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        origin.map(|origin| headers.insert("origin", origin.parse().unwrap()));
        bed.open(request).await.status().as_u16()
    };
    let mut wrong = Vec::new();
    for (verb, path) in
        [("attach", "/api/v1/vms/h1/vm1/console"), ("channel", "/api/v1/vms/h1/vm1/channels/x")]
    {
        for (role, works) in [(Role::Viewer, false), (Role::Operator, true), (Role::Admin, true)] {
            for (verbs, has_verb) in [(&[][..], true), (&[verb][..], true), (&["exec"][..], false)] {
                for (selectors, sees) in [
                    (&[][..], true),
                    (&["h1/vm1"][..], true),
                    (&["h1/vm2"][..], false),
                    (&["h2/"][..], false),
                ] {
                    let token = bed.token(role, selectors, verbs);
                    let expected = match (works && has_verb, sees) {
                        (false, _) => 403,
                        (true, true) => 101,
                        (true, false) => 404,
                    };
                    let found = open(path, &token, None).await;
                    if found != expected {
                        wrong.push(format!("{verb} {role} {verbs:?} {selectors:?}: {found}, not {expected}"));
                    }
                }
            }
        }
        let admin = bed.admin();
        assert_eq!(open(path, &admin, Some("http://elsewhere.example")).await, 403);
        assert_eq!(open(path, &admin, Some(&format!("http://{}", bed.address))).await, 101);
        let reply = bed.get(path, &admin).await;
        assert_eq!((reply.status.as_u16(), reply.kind().as_str()), (400, "invalid-request"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
