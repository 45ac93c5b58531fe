//! The hosts of the settings: `[hosts.ID]` sections and `--host`.

use std::collections::BTreeMap;

use atp_transport::{HostId, HostInfo};
use config::{Map, Value};
use serde::Deserialize;

use crate::problem::Problem;
use crate::settings::schema::key_text;

/// A `[hosts.ID]` section.
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

/// The hosts of a checked `hosts` table, in the order of their ids. `origin` tells where a host is defined.
pub(crate) fn read_hosts(
    table: Map<String, Value>,
    origin: impl Fn(&str) -> String,
    problems: &mut Vec<Problem>,
) -> Vec<HostInfo> {
    let sorted: BTreeMap<_, _> = table.into_iter().collect();
    let mut hosts = Vec::new();
    for (id, section) in sorted {
        let key = key_text(&["hosts".to_owned(), id.clone()]);
        if let Err(error) = id.parse::<HostId>() {
            problems.push(
                Problem::new(format!("{}: `{key}`: {error}", origin(&id)))
                    .hint("rename the section; an id with dots stands in quotes: [hosts.\"node.7\"]"),
            );
            continue;
        }
        match section.try_deserialize::<HostSection>() {
            Ok(section) => match host(&id, section) {
                Some(host) => hosts.push(host),
                None => problems.push(
                    Problem::new(format!("{}: host {id} has neither `uri` nor `address`", origin(&id)))
                        .hint(r#"add, for example, uri = "qemu+tcp://10.0.0.7/system""#),
                ),
            },
            Err(error) => problems.push(
                Problem::new(format!("{}: host {id} cannot be read", origin(&id)))
                    .because(&error)
                    .hint("`atp config show` prints every setting"),
            ),
        }
    }
    hosts
}

fn host(id: &str, section: HostSection) -> Option<HostInfo> {
    let mut host = match (section.uri, section.address) {
        (Some(uri), None) => HostInfo::from_uri(id, uri),
        (Some(uri), Some(address)) => HostInfo::new(id, address).with_uri(uri),
        (None, Some(address)) => HostInfo::new(id, address),
        (None, None) => return None,
    };
    host.groups = section.groups;
    host.labels = section.labels;
    host.weight = section.weight;
    Some(host)
}
