//! What each command does. Most are an operation over a selection of VMs, carried out by [`batch`].

mod batch;
mod config;
mod guest;
mod host;

use atp_executor::{Operation, Selection};
use atp_transport::domain::Lifecycle;

use crate::args::{Command, ConfigCommand, HostCommand, LifecycleArgs, NarrowArgs, TargetArgs, VmCommand};
use crate::console::Console;
use crate::problem::Failure;
use crate::settings::Settings;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) console: Console,
    /// Show what would be done, and do nothing.
    pub(crate) dry_run: bool,
    /// Consent was given on the command line.
    pub(crate) yes: bool,
}

/// Carries out a command. Returns the exit code.
///
/// # Errors
/// Why there is no run to report.
pub(crate) async fn run(command: Command, context: &Context) -> Result<u8, Failure> {
    match command {
        Command::Host(HostCommand::List) => host::list(context).await,
        Command::Host(HostCommand::Check { hosts }) => host::check(hosts, context).await,
        Command::Vm(VmCommand::List { selectors, narrow }) => {
            let all = if selectors.is_empty() { Selection::all() } else { Selection::of(selectors) };
            batch::run(narrowed(all, narrow), Operation::VmList, context).await
        }
        Command::Vm(VmCommand::Info(targets)) => {
            batch::run(selection(targets), Operation::VmInfo, context).await
        }
        Command::Vm(VmCommand::Start(args)) => lifecycle(Lifecycle::Start, args, context).await,
        Command::Vm(VmCommand::Shutdown(args)) => lifecycle(Lifecycle::Shutdown, args, context).await,
        Command::Vm(VmCommand::Reboot(args)) => lifecycle(Lifecycle::Reboot, args, context).await,
        Command::Vm(VmCommand::Reset(args)) => lifecycle(Lifecycle::Reset, args, context).await,
        Command::Vm(VmCommand::Destroy(args)) => lifecycle(Lifecycle::Destroy, args, context).await,
        Command::Vm(VmCommand::Suspend(args)) => lifecycle(Lifecycle::Suspend, args, context).await,
        Command::Vm(VmCommand::Resume(args)) => lifecycle(Lifecycle::Resume, args, context).await,
        Command::Exec(args) => guest::exec(args, context).await,
        Command::Qmp(args) => guest::qmp(args, context).await,
        Command::Qga(args) => guest::qga(args, context).await,
        Command::Config(ConfigCommand::Show) => config::show(context),
        Command::Config(ConfigCommand::Check) => config::check(context).await,
    }
}

async fn lifecycle(action: Lifecycle, args: LifecycleArgs, context: &Context) -> Result<u8, Failure> {
    batch::run(selection(args.targets), Operation::Lifecycle { action, wait: args.wait }, context).await
}

fn selection(targets: TargetArgs) -> Selection {
    narrowed(Selection::of(targets.selectors), targets.narrow)
}

fn narrowed(selection: Selection, narrow: NarrowArgs) -> Selection {
    Selection { exclude: narrow.exclude, state: narrow.state, labels: narrow.labels, ..selection }
}
