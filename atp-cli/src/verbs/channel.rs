//! `atp channel`: a virtio-serial channel as a pipe.

use std::time::Duration;

use atp_client::VmDevice;
use atp_executor::Selector;
use atp_settings::parse_duration;
use clap::Args;
use tokio::time::Instant;

use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::completer;
use crate::context::Context;
use crate::exit::{SUCCESS, TARGETS_FAILED};
use crate::one_vm::{self, OneVm};
use crate::pipe::{self, End};
use crate::problem::{Failure, Problem};
use crate::signals::Interrupts;

const EXAMPLES: &str = "\
Examples:
  atp channel web-1 org.example.control
  atp channel web-1 org.example.log --idle 1h";

/// Connect stdin and stdout to a virtio-serial channel of a VM
///
/// It ends when the VM stops, when stdin has ended and nothing has come for --idle, or when it is interrupted (Ctrl-C).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChannelArgs {
    /// The VM, as [HOST/]VM. Exactly one VM must match
    #[arg(value_name = "SEL", add = completer::selectors())]
    vm: Selector,

    /// The channel's name in the VM's definition
    #[arg(value_name = "NAME")]
    name: String,

    /// Take the channel from another client of the daemon
    #[arg(long)]
    force: bool,

    /// How long to wait for more from the guest when stdin has ended
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    idle: Duration,
}

impl Verb for ChannelArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        one_vm::refuse_run_options("channel", options)
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let interrupts = Interrupts::listen()?;
        let vm = OneVm::find(self.vm, context, &interrupts).await?;
        let deadline = Instant::now() + context.settings.policy.timeout;
        let device = VmDevice::Channel(self.name.clone());
        let channel = tokio::select! {
            opened = vm.open(&device, self.force, deadline) => opened,
            signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
        };
        let channel = match channel {
            Ok(channel) => channel,
            Err(problem) => {
                let name = vm.name();
                vm.close().await;
                let what = format!("the channel {}", self.name);
                return Ok(one_vm::not_opened(&what, &name, problem, context));
            }
        };
        let ended = tokio::select! {
            ended = pipe::run(channel, None, Some(self.idle)) => ended,
            signal = interrupts.first() => End::Signal(signal),
        };
        vm.close().await;
        Ok(match ended {
            End::Escape | End::Input | End::Unheard | End::Guest => SUCCESS,
            End::Signal(signal) => signal.exit_code(),
            End::Channel(error) => {
                context.console.problem(&Problem::new("the channel was lost").because(&error));
                TARGETS_FAILED
            }
            End::Unread(error) => {
                context.console.problem(&Problem::new("stdin cannot be read").because(&error));
                TARGETS_FAILED
            }
            End::Output(error) => {
                context.console.problem(&Problem::new("stdout cannot be written to").because(&error));
                TARGETS_FAILED
            }
        })
    }
}
