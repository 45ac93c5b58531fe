//! Text written by people: selectors, files, settings, URIs; and the XML that libvirt makes of it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use atp_executor::{HostSelector, Selector};
use atp_settings::parse_duration;
use atp_transport::domain::{Definition, Listener, internal_snapshot_obstacles, read_labels, save_obstacles};
use atp_transport::{Connector, Fleet, HostInfo, LibvirtConnector, TransportConfig};

use crate::text;

/// A selector of VMs, and of hosts.
pub(crate) fn selector(bytes: &[u8]) {
    let input = text(bytes);
    if let Ok(selector) = input.parse::<Selector>() {
        assert_eq!(selector.to_string(), input);
    }
    if let Ok(selector) = input.parse::<HostSelector>() {
        assert!(selector.to_string().parse::<HostSelector>().is_ok(), "{input:?}");
    }
}

/// A TOML file that describes a fleet.
pub(crate) fn fleet(bytes: &[u8]) {
    match Fleet::from_toml("fleet.toml", &text(bytes)) {
        Ok(fleet) => assert!(fleet.config.validate().is_ok(), "{fleet:?}"),
        Err(error) => assert!(!error.problems.is_empty(), "an error without a problem"),
    }
}

/// The URI of a libvirt daemon.
pub(crate) fn libvirt_uri(bytes: &[u8]) {
    static CONNECTOR: OnceLock<LibvirtConnector> = OnceLock::new();
    let connector = CONNECTOR.get_or_init(|| LibvirtConnector::new(&TransportConfig::default()));
    let host = HostInfo::from_uri("h", text(bytes));
    assert!(!host.address.is_empty());
    if let Err(reason) = connector.validate(&host) {
        assert!(!reason.is_empty());
    }
}

/// A setting as key and value, one per line, and durations.
pub(crate) fn settings(bytes: &[u8]) {
    let input = text(bytes);
    let entries = input.lines().filter_map(|line| line.split_once('='));
    match TransportConfig::builder().map("here", entries).build() {
        Ok(config) => assert!(config.validate().is_ok(), "{config:?}"),
        Err(error) => assert!(!error.problems.is_empty(), "an error without a problem"),
    }
    for word in input.split('\n') {
        if let Ok(duration) = parse_duration(word) {
            // Twice that duration still gives a valid instant.
            assert!(Instant::now().checked_add(duration.saturating_mul(2)).is_some(), "{word:?}");
            assert!(duration < Duration::MAX, "{word:?}");
        }
    }
}

/// The definition of a domain, and the element with its labels.
pub(crate) fn domain_xml(bytes: &[u8]) {
    let xml = text(bytes);
    for graphics in Definition::parse(&xml).graphics {
        let has_port = |listener: &Listener| match listener {
            Listener::Tcp { port, tls_port, .. } => port.or(*tls_port).is_some_and(|port| port > 0),
            Listener::Unix { .. } => true,
        };
        assert!(graphics.listen.iter().all(has_port), "{graphics:?}");
    }
    for key in read_labels(&xml).keys() {
        assert!(xml.contains("label"), "{key:?} is in no label");
    }
    // What is in the way of saving the memory is in the way of a snapshot with it.
    let of_snapshot = internal_snapshot_obstacles(&xml, true);
    for obstacle in save_obstacles(&xml) {
        assert!(of_snapshot.contains(&obstacle), "{obstacle}: {of_snapshot:?}");
    }
}
