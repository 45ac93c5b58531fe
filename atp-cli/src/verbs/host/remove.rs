//! `atp host remove`.

use atp_transport::{HostId, HostInfo};
use clap::Args;

use super::edit;
use crate::args::GlobalArgs;
use crate::completer;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::settings::edit::SettingsFile;
use crate::verbs::verb::Verb;

const EXAMPLES: &str = "\
Examples:
  atp host remove node7
  atp --config ./atp.toml host remove node7";

/// Remove a host from the settings file, and keep its comments and order
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RemoveArgs {
    /// The host's id
    #[arg(value_name = "ID", add = completer::host_ids())]
    id: HostId,
}

impl Verb for RemoveArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let id = &self.id;
        let path = edit::own_file(context)?;
        let mut file = SettingsFile::open(&path)?;
        if !file.has(id.as_str()) {
            let problem = Problem::new(format!("{}: defines no host {id}", path.display()));
            return Err(match context.settings.origin_of_host(id.as_str()) {
                Some(origin) => problem
                    .hint(format!("it is defined by {origin}: name that file with --config, or edit it")),
                None => problem.hint("`atp host list` lists the hosts"),
            }
            .into());
        }
        let host = context.settings.hosts.iter().find(|host| host.id == id.as_str());
        let uri = host.map(HostInfo::effective_uri).unwrap_or_default();
        if !context.dry_run {
            file.remove(id.as_str());
            file.save()?;
        }
        edit::report(id, &uri, &path, "host-remove", edit::done(context), context)
    }
}
