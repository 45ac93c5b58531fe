//! The hosts of the settings: `[hosts.ID]` sections and `--host`.

use std::collections::BTreeMap;

use atp_transport::settings::{Kind, Schema, Setting, Settings, Value, key_text};
use atp_transport::{HostId, HostInfo, TransportConfig, TransportConfigBuilder};
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

/// The hosts of a checked `hosts` section, in the order of their ids. A host that has transport settings of its
/// own has them over the `common` ones; where those are not usable, they are not looked at.
pub(crate) fn read_hosts(
    section: &Settings,
    common: Option<&TransportConfigBuilder>,
    problems: &mut Vec<Problem>,
) -> Vec<HostInfo> {
    let mut hosts = Vec::new();
    for (id, setting) in section.iter() {
        let mut host = match read_host(id, setting) {
            Ok(host) => host,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if let (Some(common), Some(own)) = (common, section.section(&[id, "transport"])) {
            match common.clone().settings(&key_text(&["hosts", id, "transport"]), own).build() {
                Ok(config) => host.config = Some(config),
                Err(error) => problems.extend(error.problems.into_iter().map(Problem::from)),
            }
        }
        hosts.push(host);
    }
    hosts
}

fn read_host(id: &str, setting: &Setting) -> Result<HostInfo, Problem> {
    let Setting { origin, value: Value::Section(section) } = setting else {
        return Err(Problem::new(format!("{}: host {id} is no section", setting.origin)));
    };
    if let Err(error) = id.parse::<HostId>() {
        return Err(Problem::new(format!("{origin}: `{}`: {error}", key_text(&["hosts", id])))
            .hint("rename the section; an id with dots stands in quotes: [hosts.\"node.7\"]"));
    }
    let section = section.read::<HostSection>().map_err(|error| {
        Problem::new(format!("{origin}: host {id} cannot be read"))
            .cause(error.message())
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
