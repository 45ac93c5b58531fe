//! What each operation does on one target.

mod answer;
pub(crate) mod completion;
mod diagnose;
mod exec;
mod host_check;
mod input;
mod lifecycle;
mod reconnect_retry;
pub(crate) mod scenario;
mod screenshot;
mod transfer;
mod vm_info;
mod wait;

use atp_protocol::{LibvirtCarrier, ProtocolError};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, ExecuteOptions, Hint, LibvirtConnection, TransportManager};
use tokio::time::Instant;

use self::input::Input;
use crate::error::OutcomeError;
use crate::executor::{Executor, KnownAgents};
use crate::operation::Operation;
use crate::outcome::{Data, Status};
use crate::plan::Target;
use crate::policy::Policy;
use crate::run::Attempt;
use crate::verbs::completion::Completion;

/// Carries out `operation` on `target`, by the attempt's deadline.
pub(crate) async fn perform(
    executor: &Executor,
    operation: &Operation,
    policy: &Policy,
    target: &Target,
    attempt: &Attempt,
) -> Completion {
    let job = Job { manager: executor.manager(), agents: executor.agents(), target, attempt };
    let Some(domain) = &target.domain else {
        return match operation {
            Operation::DiagnoseHost => diagnose::host(&job).await,
            _ => host_check::check(&job).await,
        };
    };
    match operation {
        Operation::HostCheck => host_check::check(&job).await,
        Operation::DiagnoseHost => diagnose::host(&job).await,
        Operation::DiagnoseAgent => diagnose::agent(&job, domain).await,
        Operation::VmList => Completion::ok(Effect::None, Data::Domain(domain.clone())),
        Operation::VmInfo => vm_info::info(&job, domain, policy).await,
        &Operation::Lifecycle { action, wait } => {
            let change = lifecycle::Change { operation, action, domain, policy };
            lifecycle::change(&job, change, wait).await
        }
        Operation::Exec(spec) => exec::run(&job, operation, domain, spec, policy).await,
        Operation::Push(push) => transfer::push(&job, operation, domain, push, policy).await,
        Operation::Pull(pull) => transfer::pull(&job, operation, domain, pull, policy).await,
        Operation::Wait(condition) => wait::until(&job, domain, condition, policy).await,
        Operation::Qmp(command) | Operation::Qga(command) => {
            answer::raw(&job, operation, domain, command).await
        }
        Operation::Scenario(scenario) => scenario::perform(executor, scenario, policy, target, attempt).await,
        Operation::Key(spec) | Operation::Type(spec) => {
            input::give(&job, operation, domain, Input::Keys(spec)).await
        }
        Operation::Mouse(spec) => input::give(&job, operation, domain, Input::Mouse(spec)).await,
        Operation::Screenshot(spec) => screenshot::take(&job, operation, domain, spec).await,
    }
}

/// One target's work and what it works with.
struct Job<'a> {
    manager: &'a TransportManager,
    agents: &'a KnownAgents,
    target: &'a Target,
    attempt: &'a Attempt,
}

impl Job<'_> {
    fn host(&self) -> &str {
        self.target.host.as_str()
    }

    fn options(&self) -> ExecuteOptions {
        ExecuteOptions::by(self.attempt.deadline())
    }

    fn failure(&self, error: &ProtocolError) -> Completion {
        Completion::from_error(error, self.attempt.deadline(), self.attempt.is_sent())
    }

    /// The error, which says more if it is of an agent that does not have a command.
    async fn explained(
        &self,
        connection: &LibvirtConnection,
        domain: &DomainInfo,
        error: ProtocolError,
    ) -> ProtocolError {
        let carrier = LibvirtCarrier::new(connection, domain.uuid);
        let vm = (self.target.host.clone(), domain.uuid);
        // The refusal is to be told in time, with or without an explanation.
        let now = Instant::now();
        let deadline = now + self.attempt.deadline().saturating_duration_since(now) / 2;
        self.agents.explain(&vm, &carrier, error, deadline).await
    }

    /// The VM is in a state in which the operation is not possible; nothing was sent, unless `effect` says
    /// otherwise.
    fn not_running(&self, domain: &DomainInfo, state: DomainState, effect: Effect) -> Completion {
        let hint =
            if state == DomainState::Paused { Hint::RESUME_VM } else { ErrorKind::VmNotRunning.hint() };
        let message = format!("host {}: VM {:?} is not running: {state}", self.target.host, domain.name);
        let error = OutcomeError::new(ErrorKind::VmNotRunning, message).with_hint(hint);
        Completion::failed(Status::Failed, effect, error)
    }
}
