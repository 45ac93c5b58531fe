//! What people write: selectors, files, URIs.

use std::sync::OnceLock;

use atp_executor::{HostSelector, Selector};
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
