//! `atp config check`.

use atp_executor::Verdict;
use atp_transport::{HostInfo, PasswordSource};
use clap::Args;

use crate::args::GlobalArgs;
use crate::context::Context;
use crate::inventory;
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::permissions;
use crate::problem::{Failure, Problem};
use crate::settings::SYSTEM_FILE;
use crate::verbs::verb::Verb;

const EXAMPLES: &str = "\
Examples:
  atp config check
  atp --config ./atp.toml config check";

/// Check the settings and the hosts' URIs; connects to nothing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {}

impl Verb for CheckArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    /// The settings were read and checked before; the hosts' URIs are checked here.
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        inventory::register(&context.settings).await?;
        let settings = &context.settings;
        // These are warnings, not errors of the settings themselves.
        let files_at_fault = permissions::files(settings).chain(permissions::secret_files(settings));
        let unset = settings.hosts.iter().filter_map(unset_variable);
        files_at_fault
            .filter(|finding| finding.verdict == Verdict::Problem)
            .map(|finding| finding.message)
            .chain(unset)
            .for_each(|message| context.console.warning(&message));
        let files: Vec<_> = settings.files.iter().map(|file| file.display().to_string()).collect();
        let mut output = Output::stdout();
        match context.settings.output {
            OutputFormat::Table => {
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
            OutputFormat::Csv => {
                output.write("host\n");
                settings.hosts.iter().for_each(|host| output.write(&format!("{}\n", host.id)));
            }
            OutputFormat::Name => {
                settings.hosts.iter().for_each(|host| output.write(&format!("{}\n", host.id)));
            }
            OutputFormat::Json | OutputFormat::Jsonl => {
                let hosts: Vec<_> = settings.hosts.iter().map(|host| host.id.as_str()).collect();
                output
                    .write(&json::line(&serde_json::json!({"status": "ok", "files": files, "hosts": hosts})));
            }
        }
        Ok(output.end(&context.console))
    }
}

/// A message if the environment variable with the host's password is not set.
fn unset_variable(host: &HostInfo) -> Option<String> {
    match host.credentials.as_ref()?.password.as_ref()? {
        PasswordSource::Environment(name) if std::env::var_os(name).is_none() => Some(format!(
            "the password of the host {} should be in the variable {name}, which is not set",
            host.id
        )),
        _ => None,
    }
}
