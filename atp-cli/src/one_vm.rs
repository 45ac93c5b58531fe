//! Exactly one VM, for verbs that connect a terminal or a pipe to it.

use atp_executor::{Executor, Operation, OutcomeError, Selection, Selector, Target};
use atp_transport::domain::DomainInfo;
use atp_transport::{HostId, TransportManager};

use crate::args::GlobalArgs;
use crate::context::Context;
use crate::exit::TARGETS_FAILED;
use crate::inventory;
use crate::problem::{Failure, Problem};
use crate::signals::Interrupts;

/// One VM, and the manager that reaches it.
pub(crate) struct OneVm {
    pub(crate) manager: TransportManager,
    pub(crate) host: HostId,
    pub(crate) domain: DomainInfo,
}

impl OneVm {
    /// The VM that the selector matches.
    ///
    /// # Errors
    /// None matches, several match, or a host cannot be listed: then it is not known whether only one matches.
    pub(crate) async fn find(
        selector: Selector,
        context: &Context,
        interrupts: &Interrupts,
    ) -> Result<Self, Failure> {
        let text = selector.to_string();
        let selection = Selection::of([selector]);
        let manager = inventory::open_selected(&selection, &context.settings, interrupts).await?;
        let policy = context.settings.policy.clone();
        let planning = Executor::new(manager.clone());
        let planning =
            planning.plan_until_stopped(&selection, Operation::VmList, policy, interrupts.control());
        let plan = planning.await.map_err(Problem::from)?;
        if let Some(signal) = interrupts.received() {
            return Err(Failure::Interrupted(signal));
        }
        if let Some(error) = plan.settled.iter().find_map(|outcome| outcome.error.as_ref()) {
            return Err(Problem::from(error).into());
        }
        let count = plan.targets.len();
        let mut targets = plan.targets.into_iter();
        match (targets.next(), count) {
            (Some(Target { host, domain: Some(domain), .. }), 1) => Ok(OneVm { manager, host, domain }),
            (Some(_), _) => {
                let problem = Problem::new(format!("'{text}' matches {count} VMs, and this is for one VM"));
                Err(problem.hint("name the VM as HOST/VM").into())
            }
            (None, _) => {
                let problem = Problem::new(format!("nothing matches '{text}'"));
                Err(problem.hint("`atp vm list` lists the VMs").into())
            }
        }
    }
}

/// Reports that the VM's console or channel could not be opened. Returns the exit code.
pub(crate) fn not_opened(what: &str, vm: &str, error: &OutcomeError, context: &Context) -> u8 {
    let Problem { message, mut causes, hint } = Problem::from(error);
    causes.insert(0, message);
    let message = format!("{what} of {vm} cannot be opened");
    context.console.problem(&Problem { message, causes, hint });
    TARGETS_FAILED
}

/// Refuses options of runs over targets, which would have no effect.
pub(crate) fn refuse_run_options(verb: &str, options: &GlobalArgs) -> Result<(), Problem> {
    let unfit = options.run_options();
    if unfit.is_empty() {
        return Ok(());
    }
    let unfit = unfit.join(", ");
    let problem =
        Problem::new(format!("`atp {verb}` is not a run over targets, and does not accept {unfit}"));
    Err(problem.hint("remove the option"))
}
