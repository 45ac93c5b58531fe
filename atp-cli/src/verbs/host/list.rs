//! `atp host list`.

use std::collections::BTreeMap;

use anstyle::Style;
use atp_api::serve::HostView;
use atp_executor::{Data, Outcome, Status};
use atp_transport::{Engine, HostId, HostInfo};
use clap::Args;
use serde_json::json;

use crate::args::GlobalArgs;
use crate::context::Context;
use crate::inventory;
use crate::output::Output;
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::render::table::{NOTHING, Rows};
use crate::render::{csv, for_programs};
use crate::settings::mask_uri;
use crate::verbs::verb::Verb;

const EXAMPLES: &str = "\
Examples:
  atp host list
  atp host list -o json";

/// The columns of CSV.
const COLUMNS: csv::Columns = &["uri", "address", "groups", "labels", "weight", "engine"];

/// List the inventory; connects to nothing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {}

impl Verb for ListArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let hosts: Vec<Listed> = match remote::client(&context.settings)? {
            Some(client) => {
                let hosts = client.hosts(&[]).await.map_err(Problem::from)?;
                hosts.into_iter().map(Listed::from).collect()
            }
            None => {
                let hosts = inventory::known(&context.settings).await?;
                if context.settings.hosts.is_empty() {
                    context.console.note("no host is configured: this machine's daemon is used if it answers; `atp host add ID URI` adds a host");
                }
                let common = context.settings.transport.engine;
                hosts.iter().map(|host| Listed::of(host, common)).collect()
            }
        };
        let mut output = Output::stdout();
        let text = for_programs(context.settings.output, COLUMNS, &rows(&hosts));
        output.write(&text.unwrap_or_else(|| hosts_table(&hosts)));
        Ok(output.end(&context.console))
    }
}

/// A host in the list.
struct Listed {
    id: String,
    /// Without a password.
    uri: String,
    /// What speaks to its daemon.
    engine: String,
    address: String,
    groups: Vec<String>,
    labels: BTreeMap<String, String>,
    weight: u32,
}

impl Listed {
    /// A host of the settings; `common` is the engine that is set for all hosts.
    fn of(host: &HostInfo, common: Engine) -> Self {
        let engine = host.config.as_ref().map_or(common, |config| config.engine);
        Listed {
            id: host.id.clone(),
            uri: mask_uri(&host.effective_uri()),
            engine: engine.for_uri(&host.effective_uri()).as_str().to_owned(),
            address: host.address.clone(),
            groups: host.groups.clone(),
            labels: host.labels.clone(),
            weight: host.weight,
        }
    }
}

impl From<HostView> for Listed {
    fn from(host: HostView) -> Self {
        let HostView { id, uri, address, engine, weight, groups, labels, .. } = host;
        Listed { id: id.to_string(), uri, engine, address, groups, labels, weight }
    }
}

fn rows(hosts: &[Listed]) -> Vec<Outcome> {
    let row = |host: &Listed| Outcome {
        host: host.id.parse::<HostId>().ok(),
        attempts: 1,
        data: Some(Data::Reply(json!({
            "uri": host.uri,
            "engine": host.engine,
            "address": host.address,
            "groups": host.groups,
            "labels": host.labels,
            "weight": host.weight,
        }))),
        ..Outcome::not_started("host-list", Status::Ok)
    };
    hosts.iter().map(row).collect()
}

fn hosts_table(hosts: &[Listed]) -> String {
    let mut rows = Rows::new(&["HOST", "URI", "ENGINE", "GROUPS", "LABELS"]);
    for host in hosts {
        let labels: Vec<_> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (groups, labels) = (host.groups.join(","), labels.join(","));
        rows.add(Style::new(), &[&host.id, &host.uri, &host.engine, some(&groups), some(&labels)]);
    }
    rows.finish()
}

fn some(text: &str) -> &str {
    if text.is_empty() { NOTHING } else { text }
}
