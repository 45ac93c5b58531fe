//! `atp qmp` and `atp qga`: any command to a monitor or an agent.

use atp_e2e::bed;
use serde_json::json;

#[test]
fn monitors_and_agents_answer() {
    let bed = bed();
    let status = bed.run(&["qmp", "*", "--", "query-status"]);
    status.exits_with(0);
    assert_eq!(status.outcomes().len(), 6);
    for outcome in status.outcomes() {
        assert_eq!((outcome.op.as_str(), outcome.status.as_str()), ("qmp", "ok"));
        assert_eq!(outcome.data["status"], "running");
    }
    let arguments = bed.run(&["qmp", "h1/vm1", "--", "human-monitor-command", "command-line=info name"]);
    assert!(arguments.exits_with(0).outcome("h1/vm1").data.as_str().unwrap().contains("vm1"));
    let object = bed.run(&["qmp", "h1/vm1", "--", "qom-get", r#"{"path": "/machine", "property": "type"}"#]);
    assert_eq!(object.exits_with(0).outcome("h1/vm1").data, json!("pc-i440fx-7.2-machine"));

    let synced = bed.run(&["qga", "*", "--", "guest-sync", "id=4711"]);
    synced.exits_with(0);
    assert!(synced.outcomes().iter().all(|outcome| outcome.data == json!(4711)), "{}", synced.stdout());

    // Targets with the same reply are shown together.
    let table = bed.atp(&["qga", "*", "--", "guest-sync", "id=4711"]).run();
    assert!(table.exits_with(0).stdout().contains("h[1-3]/vm[1-2] (6)\n"), "{}", table.stdout());
}

#[test]
fn a_refusal_names_the_refusing_side_and_the_command() {
    let bed = bed();
    for (args, kind, said) in [
        (["qmp", "h1/vm1", "--", "no-such-command"].as_slice(), "qmp-error", "no-such-command"),
        (&["qmp", "h1/vm1", "--", "device_del", "id=nobody"], "qmp-error", "nobody"),
        (&["qmp", "h1/vm1", "--", "query-status", "x=1"], "qmp-error", "x"),
        (&["qga", "h1/vm1", "--", "no-such-command"], "agent-command-unknown", "no-such-command"),
        (&["qga", "h1/vm1", "--", "guest-file-open", "path=/none"], "guest-error", "/none"),
    ] {
        let run = bed.run(args);
        run.exits_with(1);
        let outcome = run.outcome("h1/vm1");
        assert_eq!(outcome.brief(), format!("h1/vm1 failed none {kind}"));
        assert!(outcome.failure().message.contains(said), "{outcome:?}");
    }
}

#[test]
fn a_paused_vm_has_a_monitor_and_no_agent() {
    let bed = bed();
    bed.host("h1").unwrap().virsh(&["suspend", "vm1"]).unwrap();
    let qmp = bed.run(&["qmp", "h1/vm1", "--", "query-status"]);
    assert_eq!(qmp.exits_with(0).outcome("h1/vm1").data["status"], "paused");
    for args in [["qga", "h1/vm1", "--", "guest-ping"], ["exec", "h1/vm1", "--", "true"]] {
        let run = bed.run(&args);
        run.exits_with(1).took_between(0, 50);
        assert_eq!(run.brief(), ["h1/vm1 failed none vm-not-running"]);
        assert!(run.outcome("h1/vm1").failure().hint.as_ref().unwrap().contains("resume"));
    }
}
