//! `atp wait`: waits for a condition of VMs.

use std::str::FromStr;

use atp_executor::{Condition, Operation};
use atp_protocol::ExecSpec;
use atp_transport::domain::DomainState;
use clap::Args;

use super::verb::Run;
use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::{Forms, table};

const EXAMPLES: &str = "\
Examples:
  atp wait 'web-*' --for agent --timeout 2m
  atp wait web-1 --for 'exec=systemctl is-active nginx'";

/// Wait until a condition holds for all VMs, or the timeout passes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The condition: agent (the guest agent answers), state=STATE (running, shut-off, paused, crashed, pmsuspended), or exec=COMMAND (a
    /// command line for the guest's shell exits with code 0)
    #[arg(long = "for", value_name = "CONDITION")]
    condition: Awaited,
}

/// A condition as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Awaited {
    Agent,
    State(DomainState),
    Exec(String),
}

impl FromStr for Awaited {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "agent" => Ok(Awaited::Agent),
            Some(("state", state)) => {
                let known = DomainState::AWAITED.into_iter().find(|(word, _)| *word == state);
                let known = known.ok_or_else(|| {
                    format!(
                        "expected a state (running, shut-off, paused, crashed or pmsuspended), not {state:?}"
                    )
                })?;
                Ok(Awaited::State(known.1))
            }
            Some(("exec", command)) if !command.trim().is_empty() => Ok(Awaited::Exec(command.to_owned())),
            _ => Err("expected agent, state=STATE or exec=COMMAND".to_owned()),
        }
    }
}

impl Run for WaitArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let condition = match self.condition {
            Awaited::Agent => Condition::Agent,
            Awaited::State(state) => Condition::State(state),
            Awaited::Exec(line) => Condition::Exec(ExecSpec::shell(line)),
        };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Wait(condition),
            dry_run: dry_run::name_only,
            forms: Forms::new(table::results, &["looks"]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_parsed() {
        let awaited = |text: &str| text.parse::<Awaited>();
        assert_eq!(awaited("agent"), Ok(Awaited::Agent));
        assert_eq!(awaited("state=shut-off"), Ok(Awaited::State(DomainState::ShutOff)));
        assert_eq!(awaited("exec=test -e /x=y"), Ok(Awaited::Exec("test -e /x=y".into())));
        for bad in ["", "agents", "agent=1", "state", "state=off", "exec=", "exec", "exec= "] {
            assert!(awaited(bad).is_err(), "{bad:?}");
        }
    }
}
