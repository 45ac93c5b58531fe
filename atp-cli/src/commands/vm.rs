//! `atp vm …`: listings and changes of state.

use atp_executor::{LifecycleSpec, Operation, Selection};
use atp_transport::domain::Lifecycle;

use crate::args::{LifecycleArgs, VmCommand};
use crate::batch;
use crate::commands::{narrowed, selection};
use crate::context::Context;
use crate::problem::Failure;

pub(crate) async fn run(command: VmCommand, context: &Context) -> Result<u8, Failure> {
    let (action, args) = match command {
        VmCommand::List { selectors, narrow } => {
            let all = if selectors.is_empty() { Selection::all() } else { Selection::of(selectors) };
            return batch::run(narrowed(all, narrow), Operation::VmList, context).await;
        }
        VmCommand::Info(targets) => {
            return batch::run(selection(targets), Operation::VmInfo, context).await;
        }
        VmCommand::Start(args) => (Lifecycle::Start, args),
        VmCommand::Shutdown(args) => (Lifecycle::Shutdown, args),
        VmCommand::Reboot(args) => (Lifecycle::Reboot, args),
        VmCommand::Reset(args) => (Lifecycle::Reset, args),
        VmCommand::Destroy(args) => (Lifecycle::Destroy, args),
        VmCommand::Suspend(args) => (Lifecycle::Suspend, args),
        VmCommand::Resume(args) => (Lifecycle::Resume, args),
    };
    lifecycle(action, args, context).await
}

async fn lifecycle(action: Lifecycle, args: LifecycleArgs, context: &Context) -> Result<u8, Failure> {
    batch::run(
        selection(args.targets),
        Operation::Lifecycle(LifecycleSpec { action, wait: args.wait }),
        context,
    )
    .await
}
