//! `host list`, `host check`, `vm list`, `vm info`: what there is, and how it is selected.

use serde_json::json;

use crate::atp::{DEMO, Home, Run, demo};

/// Three hosts of two VMs each, in a file, with groups and labels.
fn fleet() -> Home {
    let home = Home::new();
    let mut text = String::new();
    for (id, group, site) in
        [("h1", "rack-1", "berlin"), ("h2", "rack-1", "paris"), ("h3", "rack-2", "paris")]
    {
        let host = home.host(id, &["web-1", "db-1"]);
        let (_, uri) = host.split_once('=').unwrap();
        text += &format!(
            "[hosts.{id}]\nuri = \"{uri}\"\ngroups = [\"{group}\"]\nlabels = {{ site = \"{site}\" }}\n"
        );
    }
    home.write(".config/atp/config.toml", &text);
    home
}

/// The targets of a listing, as HOST/VM.
fn listed(run: &Run) -> Vec<String> {
    let name = |outcome: &serde_json::Value| {
        format!("{}/{}", outcome["host"].as_str().unwrap(), outcome["vm"].as_str().unwrap())
    };
    run.outcomes().iter().map(name).collect()
}

#[test]
fn an_exclusion_that_names_no_vm_is_warned_of() {
    let command = ["vm", "destroy", "*", "--exclude", "vm9", "--dry-run", "-q"];
    let run = demo(&command).exits(0).says(&["warning: the exclusion 'vm9' excludes nothing"]);
    assert!(run.stdout.contains("test"), "{run:#?}");
    let run = demo(&["vm", "list", "--exclude", "z*", "--exclude", "test"]).exits(4);
    assert!(!run.stderr.contains("warning"), "{run:#?}");
}

#[test]
fn a_host_glob_that_matches_none_is_an_error() {
    let run = demo(&["host", "check", "z*"]).exits(4).says(&["no host matches 'z*'", "atp host list"]);
    assert!(!run.stderr.contains("z*/"), "{run:#?}");
}

#[test]
fn vms_of_a_host_without_a_daemon() {
    let run = demo(&["vm", "list"]).exits(0).says(&["1 target: 1 ok"]);
    assert_eq!(run.stdout, "HOST  VM    STATE    VCPUS  MEMORY\ndemo  test  running  2      2 GiB\n");
}

#[test]
fn a_listing_in_json_is_outcomes() {
    let run = demo(&["vm", "list", "-o", "json"]).exits(0);
    let [outcome] = &run.outcomes()[..] else { panic!("{run:#?}") };
    let uuid = outcome["uuid"].clone();
    assert_eq!(
        *outcome,
        json!({
            "host": "demo", "vm": "test", "uuid": uuid, "op": "vm-list", "status": "ok", "effect": "none",
            "attempts": 1, "duration_ms": outcome["duration_ms"],
            "data": {"name": "test", "uuid": uuid, "id": 1, "state": "running", "vcpus": 2,
                     "memory_kib": 2_097_152, "max_memory_kib": 8_388_608},
            "error": null,
        })
    );
}

#[test]
fn json_lines_are_one_object_each() {
    let run = fleet().run(["vm", "list", "-o", "jsonl"]).exits(0);
    let lines: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert!(lines.iter().all(|line| line["op"] == "vm-list"));
}

#[test]
fn outcomes_come_by_host_and_vm() {
    let run = fleet().run(["vm", "list", "-o", "json"]).exits(0);
    assert_eq!(listed(&run), ["h1/db-1", "h1/web-1", "h2/db-1", "h2/web-1", "h3/db-1", "h3/web-1"]);
}

#[test]
fn selectors_add_up_and_options_narrow() {
    let home = fleet();
    for (args, expected) in [
        (&["web-*"][..], &["h1/web-1", "h2/web-1", "h3/web-1"][..]),
        (&["h1/"], &["h1/db-1", "h1/web-1"]),
        (&["@rack-1/db-1"], &["h1/db-1", "h2/db-1"]),
        (&["h{2,3}/web-1", "h1/db-1"], &["h1/db-1", "h2/web-1", "h3/web-1"]),
        (&["/^d/"], &["h1/db-1", "h2/db-1", "h3/db-1"]),
        (&["h1/", "--exclude", "db-*"], &["h1/web-1"]),
        (&["--label", "site=paris", "--exclude", "web-1"], &["h2/db-1", "h3/db-1"]),
        (&["--state", "running", "h3/*"], &["h3/db-1", "h3/web-1"]),
    ] {
        let run = home.run(["vm", "list", "-o", "json"].iter().chain(args)).exits(0);
        assert_eq!(listed(&run), expected, "{args:?}");
    }
}

#[test]
fn numbers_in_brackets_select_as_clush_pdsh_and_ansible_users_expect() {
    let home = Home::new();
    let names: Vec<String> = (1..=100).map(|n| format!("web-{n}")).chain(["web-0".to_owned()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let h1 = home.host("h1", &names);
    let h2 = home.host("h2", &["n01", "n20", "n1", "web-100"]);
    let list = |args: &[&str]| {
        home.run(["--host", &h1, "--host", &h2, "vm", "list", "-o", "json"].iter().chain(args))
    };
    for (args, count) in [
        (&["web-[1-100]"][..], 101),
        (&["h1/web-[1-100]"], 100),
        (&["web-{1..100}", "--exclude", "h[1-2]/web-[3-100]"], 2),
        (&["h{1..2}/web-[100:100]"], 2),
        (&["h1/web-[10-11]"], 2),
        (&["h1/web-[1,3,7-9]"], 5),
        (&["n[01,20]"], 2),
        (&["h2/n{01,20}"], 2),
        (&["web-[1-9]?"], 90),
    ] {
        assert_eq!(list(args).exits(0).outcomes().len(), count, "{args:?}");
    }
    // A name that is spelled out and not there is reported, as one that is typed.
    let run = list(&["h1/web-[99-102]"]).exits(1);
    let missed: Vec<_> = run
        .outcomes()
        .iter()
        .filter(|outcome| outcome["status"] == "failed")
        .map(|outcome| outcome["vm"].clone())
        .collect();
    assert_eq!(missed, ["web-101", "web-102"]);
    list(&["h[1-12]/"]).exits(2).without_data().says(&["h[3-12]", "hint:"]);
}

#[test]
fn a_selector_with_two_meanings_is_refused_and_both_are_shown() {
    for (selector, texts) in [
        ("web-[12]", &["the number 12 (write it without brackets)", "one of its digits (write [1,2])"][..]),
        ("web-[web,db]", &["one of several words (write {web,db})", r"(write [\web,db])"]),
        ("web-[01-100]", &["write 001-100", "[01-99,100-120]"]),
        ("web-[1-999999999]", &["at most 100000 names, not for 999999999"]),
    ] {
        demo(&["vm", "destroy", selector, "--yes"]).exits(2).without_data().says(texts);
        demo(&["vm", "list", "--exclude", selector]).exits(2).without_data().says(texts);
    }
    demo(&["host", "check", "h[12]"]).exits(2).without_data().says(&["the number 12"]);
}

#[test]
fn five_hundred_names_never_fill_a_screen() {
    let home = Home::new();
    let names: Vec<String> = (1..=500).map(|n| format!("web-{n}")).collect();
    let host = home.host("h1", &names.iter().map(String::as_str).collect::<Vec<_>>());
    // The test driver has no guest agent.
    let run = home.run(["--host", &host, "exec", "*", "--", "true"]).exits(1).says(&["h1/web-[1-500]"]);
    assert!(run.stderr.lines().count() < 20 && run.stderr.len() < 2000, "{run:#?}");
    let run = home.run(["--host", &host, "vm", "start", "web-[501-1000]"]).exits(1).says(&["web-[501-1000]"]);
    assert!(run.stderr.lines().count() < 20 && run.stderr.len() < 2000, "{run:#?}");
}

#[test]
fn globs_that_match_nothing_are_exit_4() {
    let filtered = "a filter by state, label or exclusion excludes";
    for (args, text) in [
        (&["nosuch-*"][..], "nothing matches"),
        (&["--state", "paused"], filtered),
        (&["--exclude", "te*"], filtered),
        (&["--exclude", "*"], "nothing matches"),
        (&["--label", "site=nowhere"], filtered),
    ] {
        let run = demo(&[&["vm", "list", "-o", "json"], args].concat()).exits(4).says(&[text, "hint:"]);
        assert_eq!(run.outcomes(), [] as [serde_json::Value; 0]);
    }
}

#[test]
fn a_name_that_matches_nothing_is_an_outcome() {
    let run = demo(&["vm", "list", "test", "nosuch", "-o", "json"]).exits(1);
    let outcomes = run.outcomes();
    assert_eq!(outcomes.len(), 2);
    assert_eq!((&outcomes[0]["vm"], &outcomes[0]["status"]), (&json!("nosuch"), &json!("failed")));
    assert_eq!(outcomes[0]["error"]["kind"], "vm-not-found");
    assert_eq!(outcomes[1]["status"], "ok");
}

#[test]
fn a_host_or_group_that_does_not_exist_is_a_usage_error() {
    demo(&["vm", "list", "nosuch/x"]).exits(2).without_data().says(&["\"nosuch\"", "demo", "hint:"]);
    demo(&["vm", "list", "@nosuch/"]).exits(2).without_data().says(&["\"nosuch\"", "hint:"]);
}

#[test]
fn details_of_a_vm() {
    let run = demo(&["vm", "info", "test"]).exits(0);
    assert!(run.stdout.starts_with("demo/test\n  state       running\n"), "{run:#?}");
    let outcome = &demo(&["vm", "info", "test", "-o", "json"]).exits(0).outcomes()[0];
    assert_eq!(outcome["op"], "vm-info");
    assert_eq!(outcome["data"]["agent"], "not-configured");
}

#[test]
fn the_inventory_masks_passwords_and_connects_to_nothing() {
    let home = Home::new();
    let args = ["--host", "a=qemu+ssh://me:hunter2@nosuchhost.invalid/system", "host", "list"];
    let run = home.run(args).exits(0);
    assert!(run.stdout.contains("qemu+ssh://me:***@nosuchhost.invalid/system"), "{run:#?}");
    let run = home.run(args.iter().chain(&["-o", "json"])).exits(0);
    assert!(!run.stdout.contains("hunter2"), "{run:#?}");
    assert_eq!(run.outcomes()[0]["op"], "host-list");
    assert_eq!(run.outcomes()[0]["data"]["address"], "nosuchhost.invalid");
}

#[test]
fn hosts_are_checked_by_name_glob_and_group() {
    let home = fleet();
    for (args, hosts) in [
        (&[][..], 3),
        (&["h1"], 1),
        (&["h[1,2]"], 2),
        (&["h{1..2}"], 2),
        (&["@rack-[1-2]"], 3),
        (&["@rack-2", "h1"], 2),
    ] {
        let run = home.run(["host", "check", "-o", "json"].iter().chain(args)).exits(0);
        let outcomes = run.outcomes();
        assert_eq!(outcomes.len(), hosts, "{args:?}");
        assert!(outcomes.iter().all(|outcome| outcome["op"] == "host-check" && outcome["vm"].is_null()));
        assert!(outcomes.iter().all(|outcome| outcome["data"]["domains"] == 2), "{outcomes:#?}");
    }
    let run = home.run(["host", "check"]).exits(0);
    assert!(run.stdout.starts_with("HOST  RESULT  HYPERVISOR"), "{run:#?}");
    home.run(["host", "check", "nosuch"]).exits(2).without_data();
    home.run(["host", "check", "nosuch*"]).exits(4).without_data();
}

#[test]
fn a_host_on_the_command_line_joins_those_of_the_file() {
    let run = fleet().run(["vm", "list", "--host", DEMO, "-o", "json"]).exits(0);
    assert_eq!(run.outcomes().len(), 7);
}
