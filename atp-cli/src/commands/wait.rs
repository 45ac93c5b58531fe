//! `atp wait`: until something is true of VMs.

use atp_executor::{Condition, Operation};
use atp_protocol::ExecSpec;

use crate::args::{Awaited, WaitArgs};
use crate::batch;
use crate::commands::selection;
use crate::context::Context;
use crate::problem::Failure;

pub(crate) async fn run(args: WaitArgs, context: &Context) -> Result<u8, Failure> {
    let condition = match args.condition {
        Awaited::Agent => Condition::Agent,
        Awaited::State(state) => Condition::State(state),
        Awaited::Exec(line) => Condition::Exec(ExecSpec::shell(line)),
    };
    batch::run(selection(args.targets), Operation::Wait(condition), context).await
}
