//! `atp host …`; what changes the inventory is in [`inventory_file`].

use atp_executor::{Data, HostSelector, Operation, Outcome, Selection, Status};
use atp_transport::{Effect, HostId, HostInfo};
use serde_json::json;

use crate::args::HostCommand;
use crate::batch;
use crate::commands::inventory_file;
use crate::context::Context;
use crate::inventory;
use crate::json as json_form;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::problem::Failure;
use crate::render::{csv, name, table};
use crate::settings::mask_uri;

pub(crate) async fn run(command: HostCommand, context: &Context) -> Result<u8, Failure> {
    match command {
        HostCommand::List => list(context).await,
        HostCommand::Check { hosts } => check(hosts, context).await,
        HostCommand::Add(args) => inventory_file::add(args, context).await,
        HostCommand::Remove { id } => inventory_file::remove(&id, context),
    }
}

/// The inventory as it is configured; no host is connected to.
async fn list(context: &Context) -> Result<u8, Failure> {
    let hosts = inventory::known(&context.settings).await?;
    if context.settings.hosts.is_empty() {
        context.console.note("no host is configured: this machine's daemon is used, if it answers; `atp host add ID URI` adds one");
    }
    let mut output = Output::stdout();
    match context.settings.output {
        OutputFormat::Table => output.write(&table::hosts(&hosts)),
        OutputFormat::Json => output.write(&json_form::array(&rows(&hosts))),
        OutputFormat::Jsonl => rows(&hosts).iter().for_each(|row| output.write(&json_form::line(row))),
        OutputFormat::Csv => output.write(&csv::outcomes(csv::HOST_LIST, &rows(&hosts))),
        OutputFormat::Name => output.write(&name::names(&rows(&hosts))),
    }
    Ok(output.end(&context.console))
}

/// Connects to hosts, all of them if none is named.
async fn check(hosts: Vec<HostSelector>, context: &Context) -> Result<u8, Failure> {
    let selection = if hosts.is_empty() { Selection::all() } else { Selection::hosts(hosts) };
    batch::run(selection, Operation::HostCheck, context).await
}

fn rows(hosts: &[HostInfo]) -> Vec<Outcome> {
    let row = |host: &HostInfo| Outcome {
        host: host.id.parse::<HostId>().ok(),
        vm: None,
        uuid: None,
        op: "host-list",
        status: Status::Ok,
        effect: Effect::None,
        attempts: 1,
        duration_ms: 0,
        data: Some(Data::Reply(json!({
            "uri": mask_uri(&host.effective_uri()),
            "address": host.address,
            "groups": host.groups,
            "labels": host.labels,
            "weight": host.weight,
        }))),
        error: None,
    };
    hosts.iter().map(row).collect()
}
