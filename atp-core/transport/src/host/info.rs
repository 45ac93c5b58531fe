//! Who a host is: its id, its address and how libvirt is reached there.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::TransportConfig;
use crate::host::Credentials;

/// A host as it is given to [`TransportManager::add_host`](crate::TransportManager::add_host).
///
/// The id and the URI are checked there, not here, so that building one never fails.
#[derive(Clone, PartialEq)]
pub struct HostInfo {
    /// The host's name within the fleet.
    pub id: String,
    /// Network address or name, for people and for the default URI.
    pub address: String,
    /// libvirt connection URI. When absent it is `qemu+tcp://ADDRESS/system`.
    pub uri: Option<String>,
    /// Who we are to a daemon that asks (SASL).
    pub credentials: Option<Credentials>,
    /// Names under which this host can be chosen together with others.
    pub groups: Vec<String>,
    /// Free key-value pairs to select by.
    pub labels: BTreeMap<String, String>,
    /// Share of the work this host gets where work is spread by weight; 1 by default.
    pub weight: u32,
    /// The host's own configuration; without it, it has the manager's. What holds for all hosts together
    /// (`calls.max_threads`, `calls.thread_idle_timeout`, `reconnect.max_per_second`, `breaker.max_open_share`,
    /// `breaker.min_hosts_for_share`, `health.interval`, `health.fleet_degraded_share`, `health.fleet_unavailable_share`,
    /// `events.capacity`) must be the manager's.
    pub config: Option<TransportConfig>,
}

impl fmt::Display for HostInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.address)
    }
}

impl fmt::Debug for HostInfo {
    /// Without the URI, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostInfo")
            .field("id", &self.id)
            .field("address", &self.address)
            .field("groups", &self.groups)
            .field("labels", &self.labels)
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}

impl HostInfo {
    /// A host by id and address, reached at `qemu+tcp://ADDRESS/system`.
    pub fn new(id: impl Into<String>, address: impl Into<String>) -> Self {
        HostInfo {
            id: id.into(),
            address: address.into(),
            uri: None,
            credentials: None,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            weight: 1,
            config: None,
        }
    }

    /// A host by id and libvirt URI; the address is the URI's host part, or `localhost` where it has none.
    pub fn from_uri(id: impl Into<String>, uri: impl Into<String>) -> Self {
        let uri = uri.into();
        let address = host_of(&uri).unwrap_or("localhost").to_owned();
        HostInfo::new(id, address).with_uri(uri)
    }

    /// Sets the libvirt connection URI.
    pub fn with_uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// Adds the host to a group.
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Adds a label.
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets the share of work spread by weight.
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Gives the host a configuration of its own, most often made from the common one.
    ///
    /// ```
    /// use atp_transport::{HostInfo, TransportConfig};
    ///
    /// let common = TransportConfig::default();
    /// let small = common.to_builder().with(|config| config.pool.max_connections_per_host = 2).build()?;
    /// let host = HostInfo::new("edge-7", "10.0.7.1").with_config(small);
    /// # Ok::<(), atp_transport::ConfigError>(())
    /// ```
    pub fn with_config(mut self, config: TransportConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Whether connections to the one are good for the other: they were opened in the same way.
    pub(crate) fn is_reached_as(&self, other: &HostInfo) -> bool {
        self.effective_uri() == other.effective_uri() && self.credentials == other.credentials
    }

    /// The URI that is opened: the one set, or `qemu+tcp://ADDRESS/system`.
    pub fn effective_uri(&self) -> String {
        match &self.uri {
            Some(uri) => uri.clone(),
            None if self.address.contains(':') && !self.address.starts_with('[') => {
                format!("qemu+tcp://[{}]/system", self.address)
            }
            None => format!("qemu+tcp://{}/system", self.address),
        }
    }
}

/// The host in a URI, without brackets, if there is one.
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => place.split(':').next(),
    };
    host.filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_uri_is_tcp_to_the_address() {
        assert_eq!(HostInfo::new("a", "10.0.0.1").effective_uri(), "qemu+tcp://10.0.0.1/system");
        assert_eq!(HostInfo::new("a", "fd00::1").effective_uri(), "qemu+tcp://[fd00::1]/system");
        assert_eq!(HostInfo::new("a", "x").with_uri("test:///default").effective_uri(), "test:///default");
    }

    #[test]
    fn the_address_of_a_uri_is_its_host() {
        assert_eq!(HostInfo::from_uri("a", "qemu+tcp://node7:16509/system").address, "node7");
        assert_eq!(HostInfo::from_uri("a", "test:///default").address, "localhost");
    }
}
