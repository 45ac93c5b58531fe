//! `atp stats` on real guests, one of which hangs.

use atp_e2e::{Run, bed};
use serde_json::Value;

fn rounds(run: &Run) -> Vec<Value> {
    serde_json::from_str(&run.stdout()).unwrap()
}

fn vm<'a>(round: &'a Value, host: &str, name: &str) -> &'a Value {
    let vms = round["vms"].as_array().unwrap();
    vms.iter().find(|vm| vm["host"] == host && vm["vm"] == name).unwrap()
}

#[test]
fn a_guest_that_hangs_is_stale_and_the_others_are_measured() {
    let bed = bed();
    let hung = bed.host("h1").unwrap().guest("vm1").unwrap();
    hung.pause_qemu().unwrap();
    // Longer than a busy machine takes to ask a guest that answers.
    let run = bed.run(&["stats", "*", "--interval", "8s", "--count", "2"]);
    run.exits_with(1);
    assert!(run.stderr.contains("h1/vm1: stale"), "{run:#?}");
    let rounds = rounds(&run);
    assert_eq!(rounds.len(), 2, "{rounds:?}");
    // The first has to be right as well: nobody occupied the monitor before it.
    for (round, host) in rounds.iter().flat_map(|round| ["h1", "h2", "h3"].map(|host| (round, host))) {
        for name in ["vm1", "vm2"] {
            let vm = vm(round, host, name);
            let is_hung = (host, name) == ("h1", "vm1");
            assert_eq!(vm.get("stale").is_some(), is_hung, "{vm}");
            assert!(vm["cpu"]["percent"].is_number(), "{vm}");
            assert_eq!(vm["memory"]["resident_kib"].is_number(), !is_hung, "{vm}");
            assert_eq!(vm["disks"][0]["read_bytes_per_second"].is_number(), !is_hung, "{vm}");
        }
    }
    let kind = vm(&rounds[1], "h1", "vm1")["stale"]["error"]["kind"].as_str().unwrap();
    assert!(["call-timeout", "monitor-busy", "stuck-calls"].contains(&kind), "{kind}");
    hung.resume_qemu().unwrap();
    let run = bed.run(&["stats", "h1/vm1", "--interval", "8s"]);
    run.exits_with(0);
}

#[test]
fn a_host_that_hangs_is_stale_and_a_missing_guest_is_told() {
    let bed = bed();
    let host = bed.host("h2").unwrap();
    host.pause_daemon().unwrap();
    let run = bed.run(&["stats", "*", "--interval", "8s"]);
    host.resume_daemon().unwrap();
    run.exits_with(1);
    assert!(run.stderr.contains("h2: stale"), "{run:#?}");
    let rounds = rounds(&run);
    assert!(rounds[0]["hosts"][0].get("stale").is_none(), "{rounds:?}");
    assert!(rounds[0]["hosts"][1].get("stale").is_some(), "{rounds:?}");
    assert!(vm(&rounds[0], "h1", "vm1")["cpu"]["percent"].is_number(), "{rounds:?}");
    let run = bed.run(&["stats", "h1/nosuch", "--interval", "1s"]);
    run.exits_with(1);
    assert!(run.stderr.contains("no VM is named 'h1/nosuch'"), "{run:#?}");
}
