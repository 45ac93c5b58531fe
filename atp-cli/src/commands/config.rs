//! `atp config show` and `atp config check`.

use crate::args::{ConfigCommand, OutputFormat};
use crate::commands::{Context, host};
use crate::inventory;
use crate::output::Output;
use crate::problem::Failure;
use crate::render::{csv, json, table};

pub(crate) async fn run(command: ConfigCommand, context: &Context) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Show => show(context),
        ConfigCommand::Check => check(context).await,
    }
}

/// Every setting with its value and origin.
fn show(context: &Context) -> Result<u8, Failure> {
    let entries = &context.settings.entries;
    let mut output = Output::stdout();
    match context.settings.output {
        OutputFormat::Table => output.write(&table::settings(entries)),
        OutputFormat::Json => output.write(&json::array(entries)),
        OutputFormat::Csv => output.write(&csv::settings(entries)),
        OutputFormat::Name => entries.iter().for_each(|entry| output.write(&format!("{}\n", entry.key))),
        OutputFormat::Jsonl => entries.iter().for_each(|entry| output.write(&json::line(entry))),
    }
    Ok(host::end(output, context))
}

/// Says that the settings, which were read and checked before, are good; the hosts' URIs are checked here.
async fn check(context: &Context) -> Result<u8, Failure> {
    inventory::register(&context.settings).await?;
    let settings = &context.settings;
    let files: Vec<_> = settings.files.iter().map(|file| file.display().to_string()).collect();
    let mut output = Output::stdout();
    match context.settings.output {
        OutputFormat::Table | OutputFormat::Csv => {
            let from =
                if files.is_empty() { "no file (there is none)".to_owned() } else { files.join(" and ") };
            let hosts = settings.hosts.len();
            output.write(&format!(
                "ok: {from} read, {hosts} host{} defined\n",
                if hosts == 1 { "" } else { "s" }
            ));
        }
        OutputFormat::Name => {
            settings.hosts.iter().for_each(|host| output.write(&format!("{}\n", host.id)));
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            let hosts: Vec<_> = settings.hosts.iter().map(|host| host.id.as_str()).collect();
            output.write(&json::line(&serde_json::json!({"status": "ok", "files": files, "hosts": hosts})));
        }
    }
    Ok(host::end(output, context))
}
