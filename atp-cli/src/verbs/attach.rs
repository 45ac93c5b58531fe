//! `atp attach`: a VM's serial console on this terminal.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use atp_client::VmDevice;
use atp_executor::Selector;
use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::completer;
use crate::context::Context;
use crate::exit::{SUCCESS, Signal, TARGETS_FAILED};
use crate::one_vm::{self, OneVm};
use crate::pipe::{self, End};
use crate::problem::{Failure, Problem};
use crate::signals::Interrupts;

/// `Ctrl-]`, which ends the session, as in `virsh console` and `telnet`.
const ESCAPE: u8 = 0x1d;

const EXAMPLES: &str = "\
Examples:
  atp attach node7/web-1
  atp attach web-1 --force";

/// Use the serial console of a VM on this terminal; Ctrl-] ends it
///
/// All other keys go to the guest, Ctrl-C too. A serial line has no size: that of the terminal is not passed on; `stty rows R
/// cols C` sets it in the guest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The VM, as [HOST/]VM. Exactly one VM must match
    #[arg(value_name = "SEL", add = completer::selectors())]
    vm: Selector,

    /// Take the console from another client, such as `virsh console`
    #[arg(long)]
    force: bool,

    /// The alias of the console in the VM's definition, such as serial1; the first console by default
    #[arg(long, value_name = "ALIAS")]
    device: Option<String>,
}

impl Verb for AttachArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        one_vm::refuse_run_options("attach", options)
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            let problem = Problem::new("`atp attach` needs a terminal for its input and its output");
            return Err(problem.hint("`atp console --follow` shows consoles without a terminal").into());
        }
        let interrupts = Interrupts::listen()?;
        let vm = OneVm::find(self.vm, context, &interrupts).await?;
        let deadline = Instant::now() + context.settings.policy.timeout;
        let device = VmDevice::Console(self.device);
        let console = tokio::select! {
            opened = vm.open(&device, self.force, deadline) => opened,
            signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
        };
        let name = vm.name();
        let console = match console {
            Ok(console) => console,
            Err(problem) => {
                vm.close().await;
                return Ok(one_vm::not_opened("the console", &name, problem, context));
            }
        };
        context.console.note(&format!("attached to {name}; Ctrl-] ends this"));
        let ended = {
            // Else these two would end the process with the terminal's modes as they are.
            let handler =
                |kind| signal(kind).context("signal handlers cannot be installed").map_err(Failure::Bug);
            let (mut hangup, mut quit) = (handler(SignalKind::hangup())?, handler(SignalKind::quit())?);
            let _raw = RawTerminal::enter()?;
            tokio::select! {
                ended = pipe::run(console, Some(ESCAPE), None) => ended,
                signal = interrupts.first() => End::Signal(signal),
                _ = hangup.recv() => End::Signal(Signal::Hangup),
                _ = quit.recv() => End::Signal(Signal::Quit),
            }
        };
        vm.close().await;
        // The guest's cursor may be anywhere in a line. The terminal may be gone.
        let _gone = writeln!(io::stderr());
        Ok(match ended {
            End::Escape | End::Input | End::Unheard => {
                context.console.note("detached");
                SUCCESS
            }
            End::Guest => {
                context.console.note("the VM was stopped, or another client has taken the console");
                SUCCESS
            }
            End::Signal(signal) => signal.exit_code(),
            End::Unread(error) => {
                context.console.problem(&Problem::new("stdin cannot be read").because(&error));
                TARGETS_FAILED
            }
            End::Output(error) | End::Channel(error) => {
                context.console.problem(&Problem::new("the console was lost").because(&error));
                TARGETS_FAILED
            }
        })
    }
}

/// The terminal without line editing, echo and signals by keys, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self, Problem> {
        let modes = tcgetattr(io::stdin());
        let before = modes.map_err(|error| unset(&error.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        let entered = tcsetattr(io::stdin(), OptionalActions::Flush, &raw);
        entered.map_err(|error| unset(&error.into()))?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Fails if the terminal is gone.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

fn unset(error: &io::Error) -> Problem {
    Problem::new("the modes of the terminal cannot be set").because(error)
}
