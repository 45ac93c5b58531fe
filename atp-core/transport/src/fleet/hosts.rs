//! Hosts as sections `[hosts.ID]` of a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use config::{Map, Value};
use serde::Deserialize;

use crate::config::{ConfigProblem, TransportConfig, TransportConfigBuilder};
use crate::host::{Credentials, PasswordSource};
use crate::host::{HostId, HostInfo};
use atp_settings::{Kind, Schema, key_text};

/// A `[hosts.ID]` section, but for its `transport`.
#[derive(Debug, Deserialize)]
struct HostSection {
    /// The libvirt URI; by default made of the address.
    uri: Option<String>,
    /// The network address; by default the one in the URI.
    address: Option<String>,
    /// Who we are to a daemon that asks.
    auth: Option<AuthSection>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "one")]
    weight: u32,
}

/// A `[hosts.ID.auth]` section. A password itself is no setting: settings are shown, copied and shared.
#[derive(Debug, Deserialize)]
struct AuthSection {
    username: Option<String>,
    /// A file whose first line is the password.
    password_file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    password_env: Option<String>,
    /// Whether a person is asked for it.
    #[serde(default)]
    password_prompt: bool,
}

impl AuthSection {
    /// The credentials; none if several sources of a password are named.
    fn credentials(self) -> Option<Credentials> {
        let sources = [
            self.password_file.map(PasswordSource::File),
            self.password_env.map(PasswordSource::Environment),
            self.password_prompt.then_some(PasswordSource::Prompt),
        ];
        let mut sources = sources.into_iter().flatten();
        let (password, another) = (sources.next(), sources.next());
        another.is_none().then_some(Credentials { username: self.username, password })
    }
}

fn one() -> u32 {
    1
}

/// The keys of a section `[hosts.ID]`.
pub(super) fn host_schema() -> Schema {
    Schema::section([
        ("uri", Schema::Value(Kind::Text)),
        ("address", Schema::Value(Kind::Text)),
        ("groups", Schema::Value(Kind::TextList)),
        ("labels", Schema::Each(Box::new(Schema::Value(Kind::Text)))),
        ("auth", auth_schema()),
        ("weight", Schema::Value(Kind::AtLeastOne)),
        ("transport", TransportConfig::host_schema()),
    ])
}

fn auth_schema() -> Schema {
    Schema::section([
        ("username", Schema::Value(Kind::Text)),
        ("password_file", Schema::Value(Kind::Text)),
        ("password_env", Schema::Value(Kind::Text)),
        ("password_prompt", Schema::Value(Kind::Bool)),
    ])
}

/// The hosts of a `hosts` section that was checked against [`host_schema`], in the order of their ids. `origin` tells
/// where a host is defined. A host that has transport settings of its own has them over the `common` ones; where those are
/// not usable, they are not looked at. Sections that cannot be used are left out, and added to `problems`.
pub(super) fn read_hosts(
    sections: Map<String, Value>,
    origin: impl Fn(&str) -> Option<String>,
    common: Option<&TransportConfigBuilder>,
    problems: &mut Vec<ConfigProblem>,
) -> Vec<HostInfo> {
    let mut hosts = Vec::new();
    for (id, section) in BTreeMap::from_iter(sections) {
        let own = own_transport(&section);
        let mut host = match read_host(&id, section) {
            Ok(host) => host,
            Err((problem, hint)) => {
                let key = key_text(&["hosts", &id]);
                problems.push(ConfigProblem::new(key, origin(&id), problem).hint(hint));
                continue;
            }
        };
        if let (Some(common), Some(own)) = (common, own) {
            match common.clone().settings(&key_text(&["hosts", &id, "transport"]), &own).build() {
                Ok(config) => host.config = Some(config),
                Err(error) => problems.extend(error.problems),
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

/// A host, or what is wrong with its section and what can be tried.
fn read_host(id: &str, section: Value) -> Result<HostInfo, (String, &'static str)> {
    if let Err(error) = id.parse::<HostId>() {
        let problem = format!("`{}`: {error}", key_text(&["hosts", id]));
        return Err((problem, "rename the section; an id with dots needs quotes: [hosts.\"node.7\"]"));
    }
    let section: HostSection = section.try_deserialize().map_err(|error| {
        (format!("host {id} cannot be read: {error}"), "compare the section with the example configuration")
    })?;
    let mut host = match (section.uri, section.address) {
        (Some(uri), None) => HostInfo::from_uri(id, uri),
        (Some(uri), Some(address)) => HostInfo::new(id, address).with_uri(uri),
        (None, Some(address)) => HostInfo::new(id, address),
        (None, None) => {
            return Err((
                format!("host {id} has neither `uri` nor `address`"),
                r#"add, for example, uri = "qemu+tcp://10.0.0.7/system""#,
            ));
        }
    };
    if let Some(auth) = section.auth {
        let credentials = auth.credentials().ok_or_else(|| {
            let problem = format!("host {id} has several sources for its password");
            (problem, "keep one of password_file, password_env and password_prompt")
        })?;
        host.credentials = Some(credentials);
    }
    host.groups = section.groups;
    host.labels = section.labels;
    host.weight = section.weight;
    Ok(host)
}
