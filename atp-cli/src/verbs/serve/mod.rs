//! `atp serve`: the service, and its tokens.

#[cfg(feature = "serve")]
mod service;
#[cfg(feature = "serve")]
mod token;

use clap::{Args, Subcommand};

use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::context::Context;
use crate::problem::{Failure, Problem};

const EXAMPLES: &str = "\
Examples:
  atp serve token add alice --role admin
  atp serve
  atp serve token add ci --role operator --selector 'web-*' --verbs exec,vm-info";

const TOKEN_EXAMPLES: &str = "\
Examples:
  atp serve token add ci --role operator --selector 'web-*' --verbs exec,vm-info
  atp serve token list";

const ADD_EXAMPLES: &str = "\
Examples:
  atp serve token add alice --role admin
  atp serve token add prometheus --role viewer";

const LIST_EXAMPLES: &str = "\
Examples:
  atp serve token list
  atp serve token list -o json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  atp serve token remove ci
  atp --config /etc/atp/config.toml serve token remove ci";

/// Serve the fleet to a team: an HTTP API, metrics, and a page in the browser
///
/// Keeps connections to all hosts open, and follows the settings' file. Listens on 127.0.0.1:9440 unless `serve.listen` or
/// --listen says otherwise. SIGHUP reads settings, tokens and certificates again; SIGTERM ends the service in order.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    command: Option<ServeCommand>,

    /// The address and port to listen on; port 0 for any free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ServeCommand {
    /// Add, list and remove the tokens that open the service
    #[command(subcommand, after_help = TOKEN_EXAMPLES)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it; it is shown only this once
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// List the tokens: names, roles, VMs and verbs
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Remove a token; the service refuses it within seconds
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The name, by which logs and lists call the token
    #[arg(value_name = "NAME")]
    name: String,

    /// viewer looks, operator works on VMs, admin also ends and resumes the runs of others
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"])]
    role: String,

    /// Only for these VMs, as [HOST/]VM; may be repeated. All VMs without it
    #[arg(long, value_name = "SEL")]
    selector: Vec<atp_executor::Selector>,

    /// Only for these verbs, such as exec,vm-start. All verbs of the role without it
    #[arg(long, value_name = "VERBS", value_delimiter = ',')]
    verbs: Vec<String>,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// The name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Verb for ServeArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        let unfit = options.run_options();
        if unfit.is_empty() {
            return Ok(());
        }
        let problem = Problem::new(format!(
            "`atp serve` is not a run over targets, and does not accept {}",
            unfit.join(", ")
        ));
        Err(problem.hint("remove these options; each run of the service has its own"))
    }

    #[cfg(feature = "serve")]
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.command {
            None => service::run(self.listen, context).await,
            Some(ServeCommand::Token(command)) => token::run(command, context),
        }
    }

    #[cfg(not(feature = "serve"))]
    async fn run(self, _: &Context) -> Result<u8, Failure> {
        let problem = Problem::new("this program was built without the service");
        Err(problem.hint("build atp with the feature `serve`").into())
    }
}
