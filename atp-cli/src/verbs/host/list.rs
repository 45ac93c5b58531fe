//! `atp host list`.

use anstyle::Style;
use atp_executor::{Data, Outcome, Status};
use atp_transport::{Engine, HostId, HostInfo};
use clap::Args;
use serde_json::json;

use crate::args::GlobalArgs;
use crate::context::Context;
use crate::inventory;
use crate::output::Output;
use crate::problem::{Failure, Problem};
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
        let hosts = inventory::known(&context.settings).await?;
        if context.settings.hosts.is_empty() {
            context.console.note("no host is configured: this machine's daemon is used if it answers; `atp host add ID URI` adds a host");
        }
        let mut output = Output::stdout();
        let common = context.settings.transport.engine;
        let text = for_programs(context.settings.output, COLUMNS, &rows(&hosts, common));
        output.write(&text.unwrap_or_else(|| hosts_table(&hosts, common)));
        Ok(output.end(&context.console))
    }
}

/// What speaks to the host's daemon; `common` is the setting for all hosts.
fn engine_of(host: &HostInfo, common: Engine) -> Engine {
    host.config.as_ref().map_or(common, |config| config.engine).for_uri(&host.effective_uri())
}

fn rows(hosts: &[HostInfo], common: Engine) -> Vec<Outcome> {
    let row = |host: &HostInfo| Outcome {
        host: host.id.parse::<HostId>().ok(),
        attempts: 1,
        data: Some(Data::Reply(json!({
            "uri": mask_uri(&host.effective_uri()),
            "engine": engine_of(host, common),
            "address": host.address,
            "groups": host.groups,
            "labels": host.labels,
            "weight": host.weight,
        }))),
        ..Outcome::not_started("host-list", Status::Ok)
    };
    hosts.iter().map(row).collect()
}

fn hosts_table(hosts: &[HostInfo], common: Engine) -> String {
    let mut rows = Rows::new(&["HOST", "URI", "ENGINE", "GROUPS", "LABELS"]);
    for host in hosts {
        let labels: Vec<_> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        rows.add(
            Style::new(),
            &[
                &host.id,
                &mask_uri(&host.effective_uri()),
                engine_of(host, common).as_str(),
                some(&host.groups.join(",")),
                some(&labels.join(",")),
            ],
        );
    }
    rows.finish()
}

fn some(text: &str) -> &str {
    if text.is_empty() { NOTHING } else { text }
}
