//! `atp config show` and `atp config check`.

use atp_transport::{HostInfo, PasswordSource};

use crate::args::ConfigCommand;
use crate::commands::doctor;
use crate::context::Context;
use crate::inventory;
use crate::json;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::problem::Failure;
use crate::render::{csv, table};
use crate::settings::SYSTEM_FILE;

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
    Ok(output.end(&context.console))
}

/// Says that the settings, which were read and checked before, are good; the hosts' URIs are checked here.
async fn check(context: &Context) -> Result<u8, Failure> {
    inventory::register(&context.settings).await?;
    let settings = &context.settings;
    // None of it speaks against the settings themselves.
    let files_at_fault = doctor::files(context).chain(doctor::password_files(context));
    let unset = settings.hosts.iter().filter_map(unset_variable);
    files_at_fault
        .filter_map(|outcome| outcome.error.map(|error| error.message))
        .chain(unset)
        .for_each(|message| context.console.warning(&message));
    let files: Vec<_> = settings.files.iter().map(|file| file.display().to_string()).collect();
    let mut output = Output::stdout();
    match context.settings.output {
        OutputFormat::Table | OutputFormat::Csv => {
            let from = match (&settings.own_file, files.is_empty()) {
                (_, false) => files.join(" and "),
                (Some(own), true) => {
                    format!("no file (there is neither {} nor {SYSTEM_FILE})", own.display())
                }
                (None, true) => format!("no file (there is no {SYSTEM_FILE})"),
            };
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
    Ok(output.end(&context.console))
}

/// A variable that a host's password is to be read from, and that is not there.
fn unset_variable(host: &HostInfo) -> Option<String> {
    match host.credentials.as_ref()?.password.as_ref()? {
        PasswordSource::Environment(name) if std::env::var_os(name).is_none() => Some(format!(
            "the password of the host {} is to be in the variable {name}, which is not set",
            host.id
        )),
        _ => None,
    }
}
