//! `atp` reports the same hosts and VMs as libvirt.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use atp_e2e::{Atp, Bed, becomes, bed};
use serde_json::{Value, json};

/// Host, name, state, id and UUID of every VM, as `virsh` reports them.
fn virsh_says(bed: &Bed) -> Vec<(String, String, String, Option<u64>, String)> {
    let mut vms = Vec::new();
    for host in bed.hosts() {
        let uuids = host.virsh(&["list", "--all", "--uuid", "--name"]).unwrap();
        for line in host.virsh(&["list", "--all"]).unwrap().lines().filter(|line| !line.trim().is_empty()) {
            // "Id Name State", with a dash for the id of one that is shut off. No name here contains a space.
            let mut words = line.split_whitespace();
            let (id, name) = (words.next().unwrap().parse().ok(), words.next().unwrap());
            let state = words.collect::<Vec<_>>().join(" ");
            let uuid = uuids.lines().find_map(|line| line.trim().strip_suffix(name)).unwrap().trim();
            vms.push((host.id().to_owned(), name.to_owned(), state, id, uuid.to_owned()));
        }
    }
    vms.sort();
    vms
}

#[test]
fn vm_list_agrees_with_virsh_list() {
    let bed = bed();
    let (h1, h2) = (bed.host("h1").unwrap(), bed.host("h2").unwrap());
    h1.guest("vm2").unwrap().destroy().unwrap();
    h1.define_guest("web-1").unwrap();
    h2.virsh(&["suspend", "vm1"]).unwrap();

    let run = bed.run(&["vm", "list"]);
    run.exits_with(0);
    let listed: Vec<_> = run
        .outcomes()
        .into_iter()
        .map(|outcome| {
            assert_eq!((outcome.op.as_str(), outcome.status.as_str()), ("vm-list", "ok"));
            assert_eq!(
                (&outcome.data["vcpus"], &outcome.data["max_memory_kib"]),
                (&json!(1), &json!(96 * 1024))
            );
            let state = outcome.data["state"].as_str().unwrap().to_owned();
            let id = outcome.data["id"].as_u64();
            (outcome.host.unwrap(), outcome.vm.unwrap(), state, id, outcome.uuid.unwrap())
        })
        .collect();
    assert_eq!(listed, virsh_says(&bed));
    let states: Vec<_> = listed.iter().map(|(_, _, state, ..)| state.as_str()).collect();
    assert_eq!(states, ["running", "shut off", "shut off", "paused", "running", "running", "running"]);

    let table = bed.atp(&["vm", "list"]).run();
    let rows: Vec<Vec<_>> =
        table.stdout().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert_eq!(rows[0], ["HOST", "VM", "STATE", "VCPUS", "MEMORY"]);
    assert_eq!(rows[3][..4], ["h1", "web-1", "shut", "off"]);
    assert_eq!(rows.len(), 8);
}

#[test]
fn ninety_hosts_are_listed_by_the_deadline_while_ten_are_unreachable() {
    let bed = bed();
    bed.host("h2").unwrap().pause_daemon().unwrap();
    let [h1, h2, h3] = ["h1", "h2", "h3"].map(|id| bed.host(id).unwrap().uri());
    // No host has this address.
    let IpAddr::V4(address) = bed.host("h1").unwrap().address().ip() else { panic!("{h1}") };
    let [a, b, c, _] = address.octets();
    let nowhere = format!("qemu+tcp://{a}.{b}.{c}.2/system");
    // Two daemons serve ninety hosts: each id has its own connections and listing.
    let living = |name: &'static str, uri: &str| {
        let uri = uri.to_owned();
        (0..45).map(move |n| (format!("{name}-{n:02}"), uri.clone()))
    };
    let dead = (0..10).map(|n| (format!("dead-{n}"), if n < 5 { h2.clone() } else { nowhere.clone() }));
    let hosts = living("first", &h1).chain(living("third", &h3)).chain(dead);
    let text: String = hosts.map(|(id, uri)| format!("[hosts.{id}]\nuri = \"{uri}\"\n")).collect();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hundred.toml");
    fs::write(&file, text).unwrap();

    let args = ["--config", file.to_str().unwrap(), "--timeout", "20s", "vm", "list"];
    let run = Atp::new(&args).output("json").run();
    run.exits_with(1).took_between(0, 80);
    let brief = run.brief();
    let dead = brief[..10].iter().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "));
    assert!(dead.eq((0..10).map(|n| format!("dead-{n} unreachable none"))), "{brief:#?}");
    let living =
        ["first-00/vm1 ok none", "first-00/vm2 ok none", "third-00/vm1 ok none", "third-00/vm2 ok none"];
    assert_eq!(brief[10..], living);
    // A notice says that they are the same.
    assert!(run.stderr.contains("first-44 is the same host as first-00: "), "{}", run.stderr);
}

#[test]
fn vm_info_knows_whether_the_agent_is_there() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let info = |name: &str| {
        let run = bed.run(&["vm", "info", name]);
        run.exits_with(0).outcome(name)
    };
    let outcome = info("h1/vm1");
    assert_eq!(outcome.uuid.as_deref(), Some(guest.uuid()));
    for (field, value) in [
        ("state", json!("running")),
        ("agent", json!("connected")),
        ("persistent", json!(true)),
        ("autostart", json!(false)),
    ] {
        assert_eq!(outcome.data[field], value, "{field}");
    }
    guest.stop_agent().unwrap();
    // QEMU reports it to libvirt up to a second later.
    becomes("the agent's channel", Duration::from_secs(60), json!("disconnected"), || {
        info("h1/vm1").data["agent"].clone()
    });
    assert_eq!(info("h1/vm2").data["agent"], "connected");
}

#[test]
fn host_check_reports_each_host() {
    let bed = bed();
    let library = bed.host("h1").unwrap().virsh(&["version", "--daemon"]).unwrap();
    let run = bed.run(&["host", "check"]);
    run.exits_with(0);
    assert_eq!(run.brief(), ["h1 ok none", "h2 ok none", "h3 ok none"]);
    for outcome in run.outcomes() {
        let version = outcome.data["daemon_version"].as_str().unwrap();
        assert!(library.contains(version), "{version} is not in:\n{library}");
        assert_eq!(outcome.data["hypervisor"], "QEMU");
        assert_eq!((&outcome.data["domains"], &outcome.data["active_domains"]), (&json!(2), &json!(2)));
        assert!(outcome.data["latency_ms"].as_f64().unwrap() > 0.0);
    }

    bed.host("h2").unwrap().kill_daemon().unwrap();
    bed.host("h3").unwrap().pause_daemon().unwrap();
    let with_faults = bed.run(&["--timeout", "10s", "host", "check"]);
    with_faults.exits_with(1).took_between(10, 60);
    assert_eq!(
        with_faults.brief(),
        ["h1 ok none", "h2 unreachable none connection-refused", "h3 unreachable none connect-timeout"]
    );
}

#[test]
fn host_list_connects_to_nothing() {
    let bed = bed();
    bed.hosts().iter().for_each(|host| host.pause_daemon().unwrap());
    let run = bed.run(&["host", "list"]);
    run.exits_with(0);
    let uris: Vec<Value> = run.outcomes().into_iter().map(|outcome| outcome.data["uri"].clone()).collect();
    assert_eq!(uris, bed.hosts().iter().map(|host| json!(host.uri())).collect::<Vec<_>>());
}
