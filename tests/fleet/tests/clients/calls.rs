//! Answers of a healthy host.

use std::time::Duration;

use atp_fleet::{Exit, FleetOptions, Programs};
use atp_rpc::domain::{DomainState, Metadata, affect, list};
use atp_rpc::numbers::{Procedure, Program, code};
use atp_rpc::stats::group;
use atp_rpc::{EventId, EventItem, EventKind};
use serde_json::json;

use crate::bed::{agent, connect, exec, fleet, vm1};

#[tokio::test(start_paused = true)]
async fn a_host_lists_its_vms_in_every_way() {
    let fleet = fleet(FleetOptions { hosts: 3, vms: 4, ..FleetOptions::default() });
    let c = connect(&fleet, 3).await;
    let all = c.list_domains(0).await.unwrap();
    assert_eq!(all.iter().map(|vm| vm.name.as_str()).collect::<Vec<_>>(), ["vm1", "vm2", "vm3", "vm4"]);
    c.destroy_domain(&all[1], 0).await.unwrap();
    let names = |flags| {
        let listed = c.list_domains(flags);
        async move { listed.await.unwrap().into_iter().map(|vm| vm.name).collect::<Vec<_>>() }
    };
    assert_eq!(names(list::ACTIVE).await, ["vm1", "vm3", "vm4"]);
    assert_eq!(names(list::INACTIVE).await, ["vm2"]);
    assert_eq!(names(list::ACTIVE | list::INACTIVE).await.len(), 4);
    let stats = c.domain_stats(&[], group::STATE, 0).await.unwrap();
    let states: Vec<_> = stats.iter().map(|stats| stats.values.number("state.state")).collect();
    assert_eq!(states, [Some(1), Some(5), Some(1), Some(1)]);
    assert_eq!(c.domain_state(&all[1]).await.unwrap(), (DomainState::ShutOff, 2));
    assert_eq!(c.domain_by_uuid(all[2].uuid).await.unwrap(), all[2]);
    assert_eq!(c.domain_by_id(4).await.unwrap(), all[3]);
    assert_eq!(c.domain_info(&all[0]).await.unwrap().vcpus, 2);
    assert_eq!((c.hostname().await.unwrap(), c.driver_type().await.unwrap()), ("h3".into(), "QEMU".into()));
    assert!(c.domain_xml(&all[0], 0).await.unwrap().contains("state='connected'"));
    assert!(c.capabilities().await.unwrap().contains("<uuid>"));
    assert_eq!(c.node_info().await.unwrap().model, "simulated");
}

#[tokio::test(start_paused = true)]
async fn uuids_are_those_of_the_seed_and_differ_between_hosts() {
    let uuids = async |seed, host| {
        let fleet = fleet(FleetOptions { hosts: 2, vms: 2, seed, ..FleetOptions::default() });
        let listed = connect(&fleet, host).await.list_domains(0).await.unwrap();
        listed.into_iter().map(|vm| vm.uuid).collect::<Vec<_>>()
    };
    assert_eq!(uuids(1, 1).await, uuids(1, 1).await);
    assert_ne!(uuids(1, 1).await, uuids(2, 1).await);
    assert_ne!(uuids(1, 1).await, uuids(1, 2).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_has_libvirts_numbers() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    assert!(c.domain_by_name("nope").await.unwrap_err().is_code(code::NO_DOMAIN));
    let stranger = atp_rpc::RemoteDomain::of(Default::default());
    assert!(c.domain_info(&stranger).await.unwrap_err().is_code(code::NO_DOMAIN));
    let vm = vm1(&c).await;
    assert!(c.start_domain(&vm).await.unwrap_err().is_code(code::OPERATION_INVALID));
    let title = c.domain_metadata(&vm, Metadata::Title, affect::CURRENT).await;
    assert!(title.unwrap_err().is_code(code::NO_DOMAIN_METADATA));
    let unknown = Procedure { program: Program::REMOTE, number: 9_999, name: "nothing" };
    assert!(c.call::<()>(unknown, &()).await.unwrap_err().is_code(code::RPC));
    let short = Procedure { number: 212, ..unknown };
    assert!(c.call::<()>(short, &7).await.unwrap_err().is_code(code::RPC));
    assert!(agent(&c, &vm, "guest-nope", json!({})).await.unwrap_err().is_code(code::INTERNAL_ERROR));
    assert!(c.monitor_command(&vm, "{").await.unwrap_err().is_code(code::INTERNAL_ERROR));
    assert_eq!(fleet.host(1).unwrap().vm(1).unwrap().counts().calls.of("virDomainCreate"), 0);
}

#[tokio::test(start_paused = true)]
async fn changes_of_state_are_told_as_they_happen_and_only_to_those_who_asked() {
    let fleet = fleet(FleetOptions { vms: 2, ..FleetOptions::default() });
    let (c, other) = (connect(&fleet, 1).await, connect(&fleet, 1).await);
    let vm = vm1(&c).await;
    let mut events = c.events(100);
    c.watch(&events, EventId::Lifecycle, Some(&vm)).await.unwrap();
    c.watch(&events, EventId::Reboot, None).await.unwrap();
    c.watch_monitor(&events, Some("STOP"), None).await.unwrap();
    let vm2 = other.domain_by_name("vm2").await.unwrap();
    other.suspend_domain(&vm2).await.unwrap();
    other.suspend_domain(&vm).await.unwrap();
    other.resume_domain(&vm).await.unwrap();
    other.reboot_domain(&vm, 0).await.unwrap();
    other.shut_domain_down(&vm, 0).await.unwrap();
    other.start_domain(&vm).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 9 {
        let Some(EventItem::Event(event)) = events.next().await else { panic!("after {seen:?}") };
        seen.push(match event.kind {
            EventKind::Lifecycle { event, detail } => format!("{event}/{detail}"),
            EventKind::Monitor { name, .. } => format!("{name} {}", event.domain.name),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["STOP vm2", "STOP vm1", "3/0", "4/0", "Reboot", "6/0", "5/0", "4/0", "2/0"]);
    drop(events);
    assert_eq!(c.domain_state(&vm).await.unwrap().0, DomainState::Running);
}

#[tokio::test(start_paused = true)]
async fn the_monitor_and_the_machine_agree() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    let vm = vm1(&c).await;
    let status = async || c.monitor_command(&vm, r#"{"execute":"query-status"}"#).await.unwrap();
    assert!(status().await.contains(r#""running":true"#));
    c.monitor_command(&vm, r#"{"execute":"stop"}"#).await.unwrap();
    assert!(status().await.contains(r#""status":"paused""#));
    assert_eq!(c.domain_state(&vm).await.unwrap().0, DomainState::Paused);
    c.resume_domain(&vm).await.unwrap();
    assert!(status().await.contains(r#""running":true"#));
    let unknown = c.monitor_command(&vm, r#"{"execute":"nope","id":7}"#).await.unwrap();
    assert!(unknown.contains("CommandNotFound") && unknown.contains(r#""id":7"#), "{unknown}");
    let counts = fleet.host(1).unwrap().vm(1).unwrap().counts();
    assert_eq!((counts.monitor.of("query-status"), counts.monitor.total()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn programs_run_as_long_as_they_say_and_are_counted() {
    let programs = Programs::new(|execution| {
        let slow = || Exit { after: Duration::from_secs(60), ..Exit::success(execution.vm) };
        (execution.path == "mine").then(slow)
    });
    let programs = Some(std::sync::Arc::new(programs));
    let fleet = fleet(FleetOptions { programs, ..FleetOptions::default() });
    let c = connect(&fleet, 1).await;
    let vm = vm1(&c).await;
    let pid = exec(&c, &vm, "mine").await.unwrap();
    let status = async || agent(&c, &vm, "guest-exec-status", json!({"pid": pid})).await;
    assert_eq!(status().await.unwrap(), json!({"exited": false}));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(status().await.unwrap(), json!({"exited": true, "exitcode": 0, "out-data": "dm0x"}));
    assert!(status().await.is_err(), "the agent forgets a process after it has reported its end");
    exec(&c, &vm, "nope").await.unwrap_err();
    let counts = fleet.host(1).unwrap().vm(1).unwrap().counts();
    assert_eq!((counts.programs.of("mine"), counts.programs.total()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn metadata_that_are_written_are_read() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    let vm = vm1(&c).await;
    let labels = Metadata::Element { namespace: "urn:x" };
    c.set_domain_metadata(&vm, labels, Some("<l xmlns='urn:x'/>"), Some("x"), affect::CURRENT).await.unwrap();
    assert_eq!(c.domain_metadata(&vm, labels, affect::CURRENT).await.unwrap(), "<l xmlns='urn:x'/>");
    c.set_domain_metadata(&vm, Metadata::Title, Some("a < b"), None, affect::CURRENT).await.unwrap();
    let xml = c.domain_xml(&vm, 0).await.unwrap();
    assert!(xml.contains("<title>a &lt; b</title>") && xml.contains("<l xmlns='urn:x'/>"), "{xml}");
}

#[tokio::test(start_paused = true)]
async fn a_network_takes_its_time_for_each_call_and_lets_them_overlap() {
    let rtt = Duration::from_millis(20);
    let fleet = fleet(FleetOptions { rtt, ..FleetOptions::default() });
    let c = connect(&fleet, 1).await;
    let started = tokio::time::Instant::now();
    c.hostname().await.unwrap();
    assert_eq!(started.elapsed(), rtt);
    let three = tokio::join!(c.hostname(), c.uri(), c.version());
    assert!(three.0.is_ok() && three.1.is_ok() && three.2.is_ok());
    assert_eq!(started.elapsed(), 2 * rtt);
}

#[tokio::test(start_paused = true)]
async fn a_channel_sends_back_what_it_gets_until_it_is_finished() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    let vm = vm1(&c).await;
    let open = async || c.open_channel(&vm, Some("org.example.0"), 0, 1 << 20).await.unwrap();
    let mut channel = open().await;
    for text in ["one", "two"] {
        channel.send(text.into()).await.unwrap();
        assert_eq!(channel.recv().await.unwrap().unwrap(), text);
    }
    channel.finish().await.unwrap();
    open().await.abort().await.unwrap();
    assert_eq!(c.hostname().await.unwrap(), "h1");
}

#[tokio::test(start_paused = true)]
async fn a_screenshot_is_a_picture() {
    let fleet = fleet(FleetOptions::default());
    let c = connect(&fleet, 1).await;
    let (mime, mut stream) = c.screenshot(&vm1(&c).await, 0, 1 << 20).await.unwrap();
    assert_eq!(mime.as_deref(), Some("image/x-portable-pixmap"));
    let mut picture = Vec::new();
    while let Some(chunk) = stream.recv().await.unwrap() {
        picture.extend(chunk);
    }
    stream.finish().await.unwrap();
    assert!(picture.starts_with(b"P6\n16 16\n255\n"));
    assert_eq!(picture.len(), 13 + 16 * 16 * 3);
}
