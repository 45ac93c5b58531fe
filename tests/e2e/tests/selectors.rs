//! The VMs that a selection matches.

use std::fs;
use std::path::PathBuf;

use atp_e2e::{Atp, Bed, bed};

/// A configuration file with the hosts of the bed, in groups and with labels.
fn configuration(bed: &Bed, name: &str) -> PathBuf {
    let sections = [("h1", "front", "east"), ("h2", "front", "west"), ("h3", "back", "west")];
    let text: String = sections
        .iter()
        .map(|(id, group, site)| {
            let uri = bed.host(id).unwrap().uri();
            format!(
                "[hosts.{id}]\nuri = \"{uri}\"\ngroups = [\"{group}\"]\nlabels = {{ site = \"{site}\" }}\n"
            )
        })
        .collect();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn selectors_add_up_and_narrow() {
    let bed = bed();
    bed.host("h2").unwrap().virsh(&["suspend", "vm1"]).unwrap();
    bed.host("h3").unwrap().guest("vm2").unwrap().destroy().unwrap();
    let configuration = configuration(&bed, "selectors.toml");

    for (selection, expected) in [
        ("", "h1/vm1 h1/vm2 h2/vm1 h2/vm2 h3/vm1 h3/vm2"),
        ("*", "h1/vm1 h1/vm2 h2/vm1 h2/vm2 h3/vm1 h3/vm2"),
        ("h1/", "h1/vm1 h1/vm2"),
        ("vm1", "h1/vm1 h2/vm1 h3/vm1"),
        ("h2/vm2", "h2/vm2"),
        ("*/vm1", "h1/vm1 h2/vm1 h3/vm1"),
        ("h[1-2]/vm?", "h1/vm1 h1/vm2 h2/vm1 h2/vm2"),
        ("h[1,3]/vm{1..2}", "h1/vm1 h1/vm2 h3/vm1 h3/vm2"),
        ("h{1,3}/*2", "h1/vm2 h3/vm2"),
        ("@front/", "h1/vm1 h1/vm2 h2/vm1 h2/vm2"),
        ("@back/vm1 h1/vm2", "h1/vm2 h3/vm1"),
        ("h3/vm1 * h3/", "h1/vm1 h1/vm2 h2/vm1 h2/vm2 h3/vm1 h3/vm2"),
        ("/2$/", "h1/vm2 h2/vm2 h3/vm2"),
        ("h2//^VM|m1/", "h2/vm1"),
        ("* --exclude h1/ --exclude */vm2", "h2/vm1 h3/vm1"),
        ("@front/ --exclude @front/vm2", "h1/vm1 h2/vm1"),
        ("* --label site=west", "h2/vm1 h2/vm2 h3/vm1 h3/vm2"),
        ("* --state running", "h1/vm1 h1/vm2 h2/vm2 h3/vm1"),
        ("* --state paused", "h2/vm1"),
        ("* --state shut-off", "h3/vm2"),
        ("@back/ --state any", "h3/vm1 h3/vm2"),
    ] {
        let mut args = vec!["--config", configuration.to_str().unwrap(), "vm", "list"];
        args.extend(selection.split_whitespace());
        let run = Atp::new(&args).output("json").run();
        assert_eq!(run.exits_with(0).names().join(" "), expected, "{selection}");
    }
}

#[test]
fn a_host_no_selector_can_match_is_not_contacted() {
    let bed = bed();
    bed.host("h3").unwrap().pause_daemon().unwrap();
    let run = bed.run(&["exec", "h1/", "vm2", "--exclude", "h3/", "--", "true"]);
    // Its listing would take the whole default time limit of a minute.
    run.exits_with(0).took_between(0, 50);
    assert_eq!(run.brief(), ["h1/vm1 ok done", "h1/vm2 ok done", "h2/vm2 ok done"]);
}

#[test]
fn labels_come_from_the_host_and_from_the_vm() {
    let bed = bed();
    let configuration = configuration(&bed, "labels.toml");
    let h1 = bed.host("h1").unwrap();
    let metadata = ["--uri", "urn:atp:labels:1", "--key", "atp"];
    let labels = r#"<labels><label key="role" value="web"/><label key="tier" value="front end"/></labels>"#;
    h1.virsh(&[&["metadata", "vm1"][..], &metadata, &["--set", labels]].concat()).unwrap();

    let list = |selection: &[&str]| {
        let args =
            [&["--config", configuration.to_str().unwrap(), "vm", "list", "*"][..], selection].concat();
        Atp::new(&args).output("json").run().names().join(" ")
    };
    assert_eq!(list(&["--label", "role=web"]), "h1/vm1");
    assert_eq!(list(&["--label", "tier=front end", "--label", "site=east"]), "h1/vm1");
    assert_eq!(list(&["--label", "role=web", "--label", "site=west"]), "");
    // A hung VM does not delay reading a label from the metadata.
    h1.guest("vm1").unwrap().pause_qemu().unwrap();
    assert_eq!(list(&["--label", "role=web"]), "h1/vm1");
    h1.guest("vm1").unwrap().resume_qemu().unwrap();
    h1.virsh(&[&["metadata", "vm1"][..], &metadata, &["--remove"]].concat()).unwrap();
    assert_eq!(list(&["--label", "role=web"]), "");
}

#[test]
fn two_ids_of_one_daemon_are_noticed_and_each_vm_is_taken_once() {
    let bed = bed();
    let alias = format!("another={}", bed.host("h1").unwrap().uri());
    let run = bed.run(&["--host", &alias, "exec", "another/", "h1/", "h2/vm1", "--", "true"]);
    run.exits_with(0);
    assert_eq!(run.brief(), ["another/vm1 ok done", "another/vm2 ok done", "h2/vm1 ok done"]);
    let notice = "h1 is the same host as another: VMs selected under both are processed once: 2";
    assert!(run.stderr.contains(notice), "{}", run.stderr);
    // With only one of the ids there is nothing to notice.
    let run = bed.run(&["--host", &alias, "exec", "h1/", "--", "true"]);
    assert_eq!(run.brief(), ["h1/vm1 ok done", "h1/vm2 ok done"]);
    assert!(!run.stderr.contains("same host"), "{}", run.stderr);
}

#[test]
fn machines_that_share_a_uuid_are_two_hosts_and_their_vms_two_targets() {
    let bed = bed();
    let (h1, h2) = (bed.host("h1").unwrap(), bed.host("h2").unwrap());
    h2.set_machine_uuid(Some(&h1.machine_uuid())).unwrap();
    // The same VM on both, as by a copied definition.
    let guest = h2.define_guest("mvm").unwrap();
    let definition = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mvm.xml");
    fs::write(&definition, h2.virsh(&["dumpxml", "mvm", "--inactive"]).unwrap()).unwrap();
    h1.virsh(&["define", definition.to_str().unwrap()]).unwrap();

    let doctor = bed.run(&["doctor", "h1", "h2"]);
    let outcomes = doctor.exits_with(0).outcomes();
    let inventory = outcomes.iter().filter(|outcome| outcome.host.is_none());
    let findings: Vec<_> = inventory.map(|outcome| &outcome.data["findings"][0]).collect();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((&findings[0]["check"], &findings[0]["verdict"]), (&"inventory".into(), &"warning".into()));

    guest.start().unwrap();
    let run = bed.run(&["vm", "destroy", "mvm", "--yes"]);
    run.exits_with(0);
    assert_eq!(run.brief(), ["h1/mvm unchanged none", "h2/mvm ok done"]);
    assert_eq!(guest.state().unwrap(), "shut off");
    let notice = "h2 may be the same host as h1, and is treated as another: the UUIDs of their machines are the same, but \
                  their host names are not (\"h1.atp.test\", \"h2.atp.test\"); VMs selected under both are processed under both: 1";
    assert!(run.stderr.contains(notice), "{}", run.stderr);
}
