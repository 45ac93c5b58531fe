use std::time::Duration;

use atp_rpc::domain::{ControlState, DomainState, Metadata, affect, list, xml};
use atp_rpc::message::Value;
use atp_rpc::monitor::KeycodeSet;
use atp_rpc::numbers::code;
use atp_rpc::{ConnectOptions, RemoteDomain, stats};
use uuid::Uuid;

use crate::daemon::Daemon;

/// The one domain that the test driver has from the start.
const DOMAIN: &str = "test";

/// libvirt gives definitions with line ends and spaces that `virsh` prints too.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[tokio::test]
async fn a_host_is_as_virsh_sees_it() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    assert_eq!(daemon.virsh(&["hostname"]), [connection.hostname().await.unwrap()]);
    assert_eq!(connection.uri().await.unwrap(), "test:///default");
    let version = connection.version().await.unwrap();
    let kind = connection.driver_type().await.unwrap();
    assert_eq!(daemon.virsh_field(&["version"], "Running hypervisor"), format!("{kind} {version}"));
    let libvirt = connection.lib_version().await.unwrap();
    assert_eq!(daemon.virsh_field(&["version", "--daemon"], "Running against daemon"), libvirt.to_string());
    assert_eq!(daemon.virsh(&["capabilities"]), lines(&connection.capabilities().await.unwrap()));
    let info = connection.node_info().await.unwrap();
    let field = |name| daemon.virsh_field(&["nodeinfo"], name);
    assert_eq!(field("CPU model"), info.model);
    assert_eq!(field("CPU(s)"), info.cpus.to_string());
    assert_eq!(field("CPU frequency"), format!("{} MHz", info.mhz));
    assert_eq!(field("CPU socket(s)"), info.sockets.to_string());
    assert_eq!(field("Core(s) per socket"), info.cores.to_string());
    assert_eq!(field("Thread(s) per core"), info.threads.to_string());
    assert_eq!(field("NUMA cell(s)"), info.nodes.to_string());
    assert_eq!(field("Memory size"), format!("{} KiB", info.memory_kib));
    assert_eq!(
        daemon.virsh_field(&["freecell"], "Total"),
        format!("{} KiB", connection.free_memory().await.unwrap() / 1024)
    );
    connection.close().await.unwrap();
}

#[tokio::test]
async fn domains_are_found_and_read_as_by_virsh() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let listed = connection.list_domains(0).await.unwrap();
    assert_eq!(daemon.virsh(&["list", "--all", "--name"]), [DOMAIN]);
    let [domain] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(daemon.virsh(&["domuuid", DOMAIN]), [domain.uuid.to_string()]);
    assert_eq!(daemon.virsh(&["domid", DOMAIN]), [domain.id.to_string()]);
    assert_eq!(connection.list_domains(list::INACTIVE).await.unwrap(), []);
    assert_eq!(&connection.domain_by_name(DOMAIN).await.unwrap(), domain);
    assert_eq!(&connection.domain_by_uuid(domain.uuid).await.unwrap(), domain);
    assert_eq!(&connection.domain_by_id(domain.id).await.unwrap(), domain);
    let none = connection.domain_by_name("none").await.unwrap_err();
    assert!(none.is_code(code::NO_DOMAIN), "{none:?}");
    assert!(none.to_string().starts_with("virDomainLookupByName"), "{none}");
    let none = connection.domain_info(&RemoteDomain::of(Uuid::nil())).await.unwrap_err();
    assert!(none.is_code(code::NO_DOMAIN), "{none:?}");

    // The UUID alone is enough.
    let domain = &RemoteDomain::of(domain.uuid);
    let info = connection.domain_info(domain).await.unwrap();
    let field = |name| daemon.virsh_field(&["dominfo", DOMAIN], name);
    assert_eq!((info.state, field("State").as_str()), (DomainState::Running, "running"));
    assert_eq!(field("CPU(s)"), info.vcpus.to_string());
    assert_eq!(field("Max memory"), format!("{} KiB", info.max_memory_kib));
    assert_eq!(field("Used memory"), format!("{} KiB", info.memory_kib));
    assert!(info.cpu_time > Duration::ZERO);
    assert_eq!(connection.domain_state(domain).await.unwrap().0, DomainState::Running);
    let definition = connection.domain_xml(domain, 0).await.unwrap();
    assert_eq!(daemon.virsh(&["dumpxml", DOMAIN]), lines(&definition));
    assert!(connection.domain_xml(domain, xml::SECURE).await.unwrap().contains("<domain"));
    assert!(connection.domain_is_active(domain).await.unwrap());
    assert!(connection.domain_is_persistent(domain).await.unwrap());
    for autostart in [true, false] {
        connection.set_domain_autostart(domain, autostart).await.unwrap();
        assert_eq!(connection.domain_autostart(domain).await.unwrap(), autostart);
        assert_eq!(field("Autostart"), if autostart { "enable" } else { "disable" });
    }
    let control = connection.domain_control_info(domain).await.unwrap();
    assert_eq!(control.state, ControlState::Free);
}

#[tokio::test]
async fn metadata_are_set_and_read() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let domain = &connection.domain_by_name(DOMAIN).await.unwrap();
    let element = Metadata::Element { namespace: "urn:example:1" };
    let none = connection.domain_metadata(domain, element, affect::CURRENT).await.unwrap_err();
    assert!(none.is_code(code::NO_DOMAIN_METADATA), "{none:?}");
    let set = |which, content, prefix| {
        connection.set_domain_metadata(domain, which, content, prefix, affect::CURRENT)
    };
    set(element, Some("<x a='b'/>"), Some("e")).await.unwrap();
    set(Metadata::Title, Some("A title"), None).await.unwrap();
    let read = connection.domain_metadata(domain, element, affect::CURRENT).await.unwrap();
    assert_eq!(lines(&read), daemon.virsh(&["metadata", DOMAIN, "urn:example:1"]));
    assert_eq!(connection.domain_metadata(domain, Metadata::Title, 0).await.unwrap(), "A title");
    assert_eq!(daemon.virsh(&["desc", DOMAIN, "--title"]), ["A title"]);
    set(element, None, None).await.unwrap();
    assert!(connection.domain_metadata(domain, element, 0).await.is_err());
}

#[tokio::test]
async fn a_domain_lives_through_its_states() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let domain = &connection.domain_by_name(DOMAIN).await.unwrap();
    let state = async |expected: DomainState, word: &str| {
        assert_eq!(connection.domain_state(domain).await.unwrap().0, expected);
        assert_eq!(daemon.virsh(&["domstate", DOMAIN]), [word]);
    };
    connection.suspend_domain(domain).await.unwrap();
    state(DomainState::Paused, "paused").await;
    connection.resume_domain(domain).await.unwrap();
    state(DomainState::Running, "running").await;
    connection.send_keys(domain, KeycodeSet::Linux, &[29, 56, 111], Duration::from_millis(1)).await.unwrap();
    connection.reboot_domain(domain, 0).await.unwrap();
    state(DomainState::Running, "running").await;
    connection.shut_domain_down(domain, 0).await.unwrap();
    state(DomainState::ShutOff, "shut off").await;
    let again = connection.shut_domain_down(domain, 0).await.unwrap_err();
    assert!(again.is_code(code::INTERNAL_ERROR), "{again:?}");
    connection.start_domain(domain).await.unwrap();
    state(DomainState::Running, "running").await;
    connection.destroy_domain(domain, 0).await.unwrap();
    state(DomainState::ShutOff, "shut off").await;
    let off = connection.inject_nmi(domain).await.unwrap_err();
    assert!(off.is_code(code::OPERATION_INVALID), "{off:?}");
    let unknown = connection.wake_domain(domain).await.unwrap_err();
    assert!(unknown.is_code(code::NO_SUPPORT), "{unknown:?}");
}

#[tokio::test]
async fn statistics_of_all_domains_come_in_one_call() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let stats = connection.domain_stats(&[], stats::group::STATE, 0).await.unwrap();
    let [domain] = &stats[..] else { panic!("{stats:?}") };
    assert_eq!(domain.domain.name, DOMAIN);
    let printed = daemon.virsh(&["domstats", "--state"]);
    for name in ["state.state", "state.reason"] {
        let value = domain.values.number(name).unwrap();
        assert!(printed.contains(&format!("{name}={value}")), "{printed:?}");
    }
    assert_eq!(domain.values.get("state.state"), Some(&Value::Int(1)));
    let chosen = connection.domain_stats(std::slice::from_ref(&domain.domain), 0, 0).await.unwrap();
    assert_eq!(chosen.len(), 1);
}

#[tokio::test]
async fn a_screenshot_is_the_file_that_virsh_writes() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let domain = &connection.domain_by_name(DOMAIN).await.unwrap();
    let (mime, mut stream) = connection.screenshot(domain, 0, 1 << 20).await.unwrap();
    let mut picture = Vec::new();
    while let Some(chunk) = stream.recv().await.unwrap() {
        picture.extend_from_slice(&chunk);
    }
    stream.finish().await.unwrap();
    assert_eq!(mime.as_deref(), Some("image/png"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture");
    daemon.virsh(&["screenshot", DOMAIN, file.to_str().unwrap()]);
    assert!(picture == std::fs::read(file).unwrap(), "{} bytes", picture.len());

    // One that is not taken is aborted, and delays nothing else.
    let (_, stream) = connection.screenshot(domain, 0, 16).await.unwrap();
    assert!(stream.finish().await.is_err() || connection.is_open());
    drop(connection.screenshot(domain, 0, 1 << 20).await.unwrap());
    let (_, stream) = connection.screenshot(domain, 0, 1 << 20).await.unwrap();
    stream.abort().await.unwrap();
    assert_eq!(connection.list_domains(0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let daemon = Daemon::start();
    let options = ConnectOptions { read_only: true, ..ConnectOptions::default() };
    let connection = daemon.connect_with(&options).await;
    let domain = &connection.domain_by_name(DOMAIN).await.unwrap();
    let refused = connection.destroy_domain(domain, 0).await.unwrap_err();
    assert!(refused.is_code(29), "{refused:?}");
    assert_eq!(connection.domain_state(domain).await.unwrap().0, DomainState::Running);
}

#[tokio::test]
async fn calls_run_beside_each_other_and_a_closed_connection_takes_none() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.hostname().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let other = connection.clone();
    connection.close().await.unwrap();
    let refused = other.hostname().await.unwrap_err();
    assert!(!refused.may_have_run(), "{refused}");
    assert!(!other.is_open());
}

#[tokio::test]
async fn a_daemon_that_dies_ends_its_connections() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let mut events = connection.events(1);
    drop(daemon);
    let end = connection.closed().await;
    assert!(end.to_string().contains("ended"), "{end:?}");
    assert!(connection.hostname().await.is_err());
    assert_eq!(events.next().await, None);
}
