//! The hosts of the settings: `[hosts.ID]` sections and `--host`.

use std::collections::BTreeMap;

use atp_transport::settings::{Kind, Schema, key_text};
use atp_transport::{HostId, HostInfo, TransportConfig, TransportConfigBuilder};
use config::{ConfigError, Map, Value};
use serde::Deserialize;

use crate::problem::Problem;

/// A `[hosts.ID]` section, but for its `transport`.
#[derive(Debug, Deserialize)]
struct HostSection {
    /// The libvirt URI; by default made of the address.
    uri: Option<String>,
    /// The network address; by default the one in the URI.
    address: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

/// The keys of a `[hosts.ID]` section.
pub(crate) fn schema() -> Schema {
    Schema::section([
        ("uri", Schema::Value(Kind::Text)),
        ("address", Schema::Value(Kind::Text)),
        ("groups", Schema::Value(Kind::TextList)),
        ("labels", Schema::Each(Box::new(Schema::Value(Kind::Text)))),
        ("weight", Schema::Value(Kind::AtLeastOne)),
        ("transport", TransportConfig::host_schema()),
    ])
}

/// The hosts of a checked `hosts` section, in the order of their ids. `origin` tells where a host is defined. A
/// host that has transport settings of its own has them over the `common` ones; where those are not usable, they
/// are not looked at.
pub(crate) fn read_hosts(
    sections: Map<String, Value>,
    origin: impl Fn(&str) -> String,
    common: Option<&TransportConfigBuilder>,
    problems: &mut Vec<Problem>,
) -> Vec<HostInfo> {
    let mut hosts = Vec::new();
    for (id, section) in BTreeMap::from_iter(sections) {
        let own = own_transport(&section);
        let mut host = match read_host(&id, &origin(&id), section) {
            Ok(host) => host,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if let (Some(common), Some(own)) = (common, own) {
            match common.clone().settings(&key_text(&["hosts", &id, "transport"]), &own).build() {
                Ok(config) => host.config = Some(config),
                Err(error) => problems.extend(error.problems.into_iter().map(Problem::from)),
            }
        }
        hosts.push(host);
    }
    hosts
}

/// The `transport` section of a host's. It is taken as it is: read as a type, its values would lose their origins.
fn own_transport(section: &Value) -> Option<Map<String, Value>> {
    section.clone().into_table().ok()?.remove("transport")?.into_table().ok()
}

fn read_host(id: &str, origin: &str, section: Value) -> Result<HostInfo, Problem> {
    if let Err(error) = id.parse::<HostId>() {
        return Err(Problem::new(format!("{origin}: `{}`: {error}", key_text(&["hosts", id])))
            .hint("rename the section; an id with dots stands in quotes: [hosts.\"node.7\"]"));
    }
    let section: HostSection = section.try_deserialize().map_err(|error: ConfigError| {
        Problem::new(format!("{origin}: host {id} cannot be read"))
            .because(&error)
            .hint("`atp config show` prints every setting")
    })?;
    let mut host = match (section.uri, section.address) {
        (Some(uri), None) => HostInfo::from_uri(id, uri),
        (Some(uri), Some(address)) => HostInfo::new(id, address).with_uri(uri),
        (None, Some(address)) => HostInfo::new(id, address),
        (None, None) => {
            return Err(Problem::new(format!("{origin}: host {id} has neither `uri` nor `address`"))
                .hint(r#"add, for example, uri = "qemu+tcp://10.0.0.7/system""#));
        }
    };
    host.groups = section.groups;
    host.labels = section.labels;
    host.weight = section.weight;
    Ok(host)
}
