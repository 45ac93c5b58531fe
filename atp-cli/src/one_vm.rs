//! Exactly one VM, for verbs that connect a terminal or a pipe to it.

use atp_api::{OperationSpec, RunRequest, Targets};
use atp_client::{Client, VmDevice};
use atp_executor::{Executor, Operation, OutcomeError, Selection, Selector, Target};
use atp_transport::{ChannelOptions, HostId, TransportManager};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::args::GlobalArgs;
use crate::batch;
use crate::context::Context;
use crate::exit::TARGETS_FAILED;
use crate::inventory::{self, CLOSE_TIMEOUT};
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::signals::Interrupts;

/// One VM, and what reaches it.
pub(crate) struct OneVm {
    host: HostId,
    vm: String,
    way: Way,
}

enum Way {
    Hosts(TransportManager, Uuid),
    Service(Box<Client>),
}

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

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
        match remote::client(&context.settings)? {
            Some(client) => OneVm::find_in_service(selector, client, context, interrupts).await,
            None => OneVm::find_on_hosts(selector, context, interrupts).await,
        }
    }

    async fn find_on_hosts(
        selector: Selector,
        context: &Context,
        interrupts: &Interrupts,
    ) -> Result<Self, Failure> {
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
            return Err(Failure::Target(Problem::from(error)));
        }
        let count = plan.targets.len();
        let found = plan.targets.into_iter().find_map(|Target { host, domain, .. }| Some((host, domain?)));
        let (host, domain) = only(found, count, &selection)?;
        Ok(OneVm { host, vm: domain.name, way: Way::Hosts(manager, domain.uuid) })
    }

    async fn find_in_service(
        selector: Selector,
        client: Client,
        context: &Context,
        interrupts: &Interrupts,
    ) -> Result<Self, Failure> {
        let selection = Selection::of([selector]);
        let policy = context.settings.policy.clone();
        let request = RunRequest::new(Targets::from(&selection), OperationSpec::VmList, policy);
        let plan = tokio::select! {
            plan = client.plan(&request) => plan.map_err(Problem::from)?,
            signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
        };
        if let Some(error) = plan.settled.iter().find_map(|outcome| outcome.error.as_ref()) {
            return Err(Failure::Target(Problem::from(error)));
        }
        let count = plan.targets.len();
        let found = plan.targets.into_iter().find_map(|target| Some((target.host, target.vm?)));
        let (host, vm) = only(found, count, &selection)?;
        Ok(OneVm { host, vm, way: Way::Service(Box::new(client)) })
    }

    /// Its name, with that of its host.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.host, self.vm)
    }

    /// Opens a device of it; `force` takes it from another client.
    ///
    /// # Errors
    /// Why it cannot be opened by the deadline.
    ///
    /// Cancel safe.
    pub(crate) async fn open(
        &self,
        device: &VmDevice,
        force: bool,
        deadline: Instant,
    ) -> Result<Box<dyn Duplex>, Problem> {
        match &self.way {
            Way::Service(client) => {
                let opening = client.open_device(self.host.as_str(), &self.vm, device, force);
                let late = || Problem::new("the service has not opened it within the time limit");
                Ok(Box::new(timeout_at(deadline, opening).await.map_err(|_| late())??))
            }
            Way::Hosts(manager, uuid) => {
                let options = ChannelOptions { force, ..ChannelOptions::default() };
                let (host, uuid) = (self.host.as_str(), *uuid);
                let opened = match device {
                    VmDevice::Console(alias) => {
                        manager.open_console(host, uuid, alias.as_deref(), &options, deadline).await
                    }
                    VmDevice::Channel(name) => {
                        manager.open_channel(host, uuid, name, &options, deadline).await
                    }
                };
                let opened = opened.map_err(|error| Problem::from(&OutcomeError::from(&error)))?;
                Ok(Box::new(opened))
            }
        }
    }

    /// Closes the connections to its host.
    pub(crate) async fn close(self) {
        if let Way::Hosts(manager, _) = self.way {
            inventory::close(&manager, CLOSE_TIMEOUT).await;
        }
    }
}

/// The one that was found.
fn only<T>(found: Option<T>, count: usize, selection: &Selection) -> Result<T, Failure> {
    match (found, count) {
        (Some(found), 1) => Ok(found),
        (_, 0) => Err(Failure::NoMatch(batch::nothing_matches(selection, &Operation::VmList, None))),
        _ => {
            let text: Vec<_> = selection.selectors.iter().map(ToString::to_string).collect();
            let text = text.join(" ");
            let problem = Problem::new(format!("'{text}' matches {count} VMs, and this is for one VM"));
            Err(problem.hint("name the VM as HOST/VM").into())
        }
    }
}

/// Reports that the VM's console or channel could not be opened. Returns the exit code.
pub(crate) fn not_opened(what: &str, vm: &str, problem: Problem, context: &Context) -> u8 {
    let Problem { message, mut causes, hint } = problem;
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
