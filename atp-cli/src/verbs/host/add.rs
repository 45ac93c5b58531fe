//! `atp host add`.

use std::collections::{BTreeMap, BTreeSet};

use atp_executor::{HostSelector, LabelFilter, Status};
use atp_transport::{HostId, HostInfo};
use clap::Args;

use super::edit;
use crate::args::GlobalArgs;
use crate::context::Context;
use crate::inventory;
use crate::problem::{Failure, Problem};
use crate::settings::edit::{NewHost, SettingsFile};
use crate::settings::mask_uri;
use crate::verbs::verb::Verb;

const EXAMPLES: &str = "\
Examples:
  atp host add node7 qemu+tcp://10.0.0.7/system
  atp host add node8 qemu+ssh://root@node8/system --group rack-2 --label arch=x86";

/// Add a host to the settings file, and keep its comments and order; connects to nothing
///
/// The file is the one given with --config, or else $XDG_CONFIG_HOME/atp/config.toml. It is created if it does not
/// exist.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AddArgs {
    /// The host's id, made of A-Z a-z 0-9 . _ -
    #[arg(value_name = "ID")]
    id: HostId,

    /// Its libvirt URI, such as qemu+tcp://10.0.0.7/system or qemu+ssh://root@node7/system
    #[arg(value_name = "URI")]
    uri: String,

    /// A group of the host; may be repeated
    #[arg(long = "group", value_name = "NAME", value_parser = parse_group)]
    groups: Vec<String>,

    /// A label of the host; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<LabelFilter>,
}

/// Parses a group; a name that no selector could use is refused.
fn parse_group(text: &str) -> Result<String, String> {
    match format!("@{text}").parse::<HostSelector>() {
        Ok(selector) if selector.groups() == [text] => Ok(text.to_owned()),
        _ => Err("expected a name that a selector @NAME can have".to_owned()),
    }
}

impl Verb for AddArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    fn creates_settings(&self) -> bool {
        true
    }

    /// A host that is defined as requested is unchanged.
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let AddArgs { id, uri, groups, labels } = self;
        if mask_uri(&uri) != uri {
            return Err(Problem::new(format!(
                "the URI {} contains a password; nothing was done",
                mask_uri(&uri)
            ))
            .hint(
                "others can read arguments and files: remove the password, and use a key or [hosts.ID.auth]",
            )
            .into());
        }
        let path = edit::own_file(context)?;
        let labels: BTreeMap<_, _> = labels.into_iter().map(|label| (label.key, label.value)).collect();
        check(&id, &uri).await?;
        let mut file = SettingsFile::open(&path)?;
        if file.has(id.as_str()) {
            let known = context.settings.hosts.iter().find(|host| host.id == id.as_str());
            let differences =
                known.map(|known| differences(known, &uri, &groups, &labels)).unwrap_or_default();
            if differences.is_empty() {
                return edit::report(&id, &uri, &path, "host-add", Status::Unchanged, context);
            }
            let place = context.settings.origin_of_host(id.as_str()).unwrap_or_default();
            return Err(Problem::new(format!(
                "the host {id} is already defined: {}",
                differences.join("; ")
            ))
            .cause(place)
            .hint(format!("choose another id, or `atp host remove {id}` first"))
            .into());
        }
        if !context.dry_run {
            file.add(id.as_str(), &NewHost { uri: uri.clone(), groups, labels });
            file.save()?;
        }
        edit::report(&id, &uri, &path, "host-add", edit::done(context), context)
    }
}

/// How a known host differs from the arguments; groups and labels that were not given are not compared.
fn differences(
    known: &HostInfo,
    uri: &str,
    groups: &[String],
    labels: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut differences = Vec::new();
    let known_uri = known.effective_uri();
    if known_uri != uri {
        differences.push(format!("its URI is {}, not {uri}", mask_uri(&known_uri)));
    }
    let sorted = |groups: &[String]| groups.iter().cloned().collect::<BTreeSet<_>>();
    if !groups.is_empty() && sorted(&known.groups) != sorted(groups) {
        differences.push(format!("its groups are {}, not {}", listed(&known.groups), listed(groups)));
    }
    if !labels.is_empty() && known.labels != *labels {
        let pairs = |labels: &BTreeMap<String, String>| {
            listed(&labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        };
        differences.push(format!("its labels are {}, not {}", pairs(&known.labels), pairs(labels)));
    }
    differences
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Checks that the URI can be used, before it is written.
async fn check(id: &HostId, uri: &str) -> Result<(), Problem> {
    inventory::check(&HostInfo::from_uri(id.as_str(), uri)).await.map_err(|error| {
        Problem::new(format!("host {id} cannot have the URI {:?}; nothing was done", mask_uri(uri)))
            .cause(inventory::reason(&error))
            .hint(error.hint())
    })
}
