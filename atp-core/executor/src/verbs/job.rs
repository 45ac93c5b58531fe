//! The work on one target.

use std::sync::Arc;

use atp_api::{OutcomeError, Policy, Status};
use atp_protocol::files::Allowance;
use atp_protocol::{CapabilityCache, LibvirtCarrier, ProtocolError};
use atp_transport::domain::DomainInfo;
use atp_transport::{Effect, ErrorKind, ExecuteOptions, HostId, LibvirtConnection, TransportManager};
use tokio::time::Instant;
use uuid::Uuid;

use super::completion::Completion;
use super::facts::{Needs, refusal};
use crate::host_watches::HostWatches;
use crate::placement::Placements;
use crate::run::Attempt;
use crate::target::Target;

/// What is known of the agents of VMs, by host and UUID.
pub(crate) type KnownAgents = CapabilityCache<(HostId, Uuid)>;

/// One attempt at one target, and everything that a verb works with.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) manager: TransportManager,
    pub(crate) agents: Arc<KnownAgents>,
    /// The hosts that are watched for restarts.
    pub(crate) watches: Arc<HostWatches>,
    pub(crate) policy: Policy,
    pub(crate) target: Target,
    pub(crate) attempt: Attempt,
    /// The host in the plan. That of the target is where the VM is now.
    pub(crate) planned_on: Arc<HostId>,
    /// What is known of where VMs are.
    pub(crate) placements: Arc<Placements>,
    /// Whether the VM was active on the host when the work began: only then can it have moved away since.
    pub(crate) was_active: bool,
    /// Whether it is a step of a scenario.
    pub(crate) is_step: bool,
    /// How much the run may still write to files on this machine.
    pub(crate) allowance: Allowance,
}

impl Job {
    pub(super) fn host(&self) -> &str {
        self.target.host.as_str()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.attempt.deadline()
    }

    pub(super) fn options(&self) -> ExecuteOptions {
        self.options_by(self.deadline())
    }

    /// As [`options`](Self::options), for work that has to be done earlier.
    pub(super) fn options_by(&self, deadline: Instant) -> ExecuteOptions {
        ExecuteOptions::by(deadline).watched_by(self.attempt.unanswered())
    }

    pub(super) fn failure(&self, error: &ProtocolError) -> Completion {
        Completion::from_error(error, self.deadline(), self.attempt.is_sent())
    }

    /// Finds out whose silence it was if an agent did not answer by the deadline: the same hang of a VM is then of one kind,
    /// whichever time limit ended the wait for it. It takes a moment after the deadline, of the run's grace.
    pub(super) async fn who_is_silent(&self, domain: &DomainInfo, error: ProtocolError) -> ProtocolError {
        if !error.is_unanswered_by_agent() {
            return error;
        }
        let options = ExecuteOptions::by(Instant::now() + self.policy.grace / 2);
        let look = |connection: LibvirtConnection| async move { connection.domain_info(domain.uuid).await };
        match self.manager.execute_on_host_with(self.host(), options, look).await {
            Ok(_) => error.host_answers(),
            Err(_) => error,
        }
    }

    /// Adds to the error of an agent that does not have a command which commands it has.
    pub(super) async fn explained(
        &self,
        connection: &LibvirtConnection,
        domain: &DomainInfo,
        error: ProtocolError,
    ) -> ProtocolError {
        let carrier = LibvirtCarrier::new(connection, domain.uuid);
        let vm = (self.target.host.clone(), domain.uuid);
        // The refusal has to be reported in time, with or without an explanation.
        let now = Instant::now();
        let deadline = now + self.deadline().saturating_duration_since(now) / 2;
        self.agents.explain(&vm, &carrier, error, deadline).await
    }

    /// The VM is in a state in which the operation is not possible. Nothing was sent, unless `effect` says otherwise.
    pub(super) fn refused(&self, needs: Needs, now: &DomainInfo, effect: Effect) -> Completion {
        self.refused_for(refusal(needs, &self.target.host, now), now, effect)
    }

    /// As [`refused`](Self::refused), for this reason.
    pub(super) fn refused_for(
        &self,
        mut error: OutcomeError,
        now: &DomainInfo,
        effect: Effect,
    ) -> Completion {
        let elsewhere = match now.state.is_active() {
            true => None,
            false => self.placements.runs_on(now.uuid, &self.target.host),
        };
        if let Some(host) = elsewhere {
            error = error.with_hint(format!("work on it where it runs: {host}/{}", now.name));
        }
        Completion { found_on: elsewhere.cloned(), ..Completion::failed(Status::Failed, effect, error) }
    }

    /// The operation cannot be expressed. Nothing was sent.
    pub(super) fn invalid(&self, reason: String) -> Completion {
        let error = OutcomeError::new(ErrorKind::InvalidCommand, reason);
        Completion::failed(Status::Failed, Effect::None, error)
    }

    /// The target is a host, and the operation is for VMs. Planning does not make such targets.
    pub(super) fn without_vm(&self) -> Completion {
        let kind = ErrorKind::VmNotFound;
        let message =
            format!("host {}: the operation is for VMs, and the target names none", self.target.host);
        Completion::failed(Status::Failed, Effect::None, OutcomeError::new(kind, message))
    }
}
