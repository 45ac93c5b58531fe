//! `atp wait`: waits for a condition of VMs.

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

    /// The condition: agent (the guest agent answers), state=STATE (running, shut-off, paused, crashed, pmsuspended),
    /// port=PORT (a process in the Linux guest listens on this TCP port), or exec=COMMAND (a command line for the guest's shell
    /// exits with code 0)
    #[arg(long = "for", value_name = "CONDITION", value_parser = parse_condition)]
    condition: Condition,
}

fn parse_condition(text: &str) -> Result<Condition, String> {
    match text.split_once('=') {
        None if text == "agent" => Ok(Condition::Agent),
        Some(("state", state)) => {
            let known = DomainState::AWAITED.into_iter().find(|(word, _)| *word == state);
            let known = known.ok_or_else(|| {
                format!("expected a state (running, shut-off, paused, crashed or pmsuspended), not {state:?}")
            })?;
            Ok(Condition::State(known.1))
        }
        Some(("port", port)) => match port.parse() {
            Ok(port @ 1..) => Ok(Condition::Port { port }),
            _ => Err(format!("expected a port from 1 to 65535, not {port:?}")),
        },
        Some(("exec", line)) if !line.trim().is_empty() => Ok(Condition::Exec(ExecSpec::shell(line))),
        _ => Err("expected agent, state=STATE, port=PORT or exec=COMMAND".to_owned()),
    }
}

impl Run for WaitArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Wait(self.condition),
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
        assert_eq!(parse_condition("agent"), Ok(Condition::Agent));
        assert_eq!(parse_condition("state=shut-off"), Ok(Condition::State(DomainState::ShutOff)));
        let command = Condition::Exec(ExecSpec::shell("test -e /x=y"));
        assert_eq!(parse_condition("exec=test -e /x=y"), Ok(command));
        assert_eq!(parse_condition("port=22"), Ok(Condition::Port { port: 22 }));
        for bad in [
            "port=",
            "port=0",
            "port=65536",
            "",
            "agents",
            "agent=1",
            "state",
            "state=off",
            "exec=",
            "exec",
            "exec= ",
        ] {
            assert!(parse_condition(bad).is_err(), "{bad:?}");
        }
    }
}
