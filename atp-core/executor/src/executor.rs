//! From a selection to a plan, and from a plan to a run.

use std::sync::Arc;
use std::time::Duration;

use atp_protocol::ProtocolError;
use atp_transport::{ErrorKind, ExecuteOptions, HostId, HostInfo, TransportManager};
use futures_util::future::join_all;
use tokio::time::{self, Instant};

use crate::error::OutcomeError;
use crate::journal::Journal;
use crate::operation::Operation;
use crate::ops;
use crate::plan::{Plan, PlanError, Target};
use crate::policy::Policy;
use crate::resolve::{self, Listing};
use crate::run::{Run, RunControl, RunSpec, run_targets};
use crate::selection::Selection;

/// Plans and runs operations over the hosts of a [`TransportManager`].
#[derive(Debug, Clone)]
pub struct Executor {
    manager: TransportManager,
}

impl Executor {
    /// An executor over these hosts.
    pub fn new(manager: TransportManager) -> Self {
        Executor { manager }
    }

    /// Finds out what `selection` stands for, by asking the hosts concerned for their VMs, all at once and each
    /// for at most [`Policy::timeout`]. A host that cannot be listed does not fail the plan: it is
    /// among the plan's settled outcomes. Nothing is changed on any host.
    ///
    /// For [`Operation::HostCheck`] the targets are the hosts themselves, and none of them is asked anything.
    ///
    /// # Errors
    /// When there are no hosts, or a selector names a host or group that does not exist.
    ///
    /// Cancel safe: dropping the future gives up the listings.
    pub async fn plan(
        &self,
        selection: &Selection,
        operation: Operation,
        policy: Policy,
    ) -> Result<Plan, PlanError> {
        let began = Instant::now();
        let hosts = self.manager.hosts();
        resolve::check_names(selection, &hosts)?;
        // Registered ids are valid.
        let concerned = hosts
            .into_iter()
            .filter(|host| selection.concerns(host))
            .filter_map(|host| Some((host.id.parse::<HostId>().ok()?, host)));
        let (targets, settled) = if operation == Operation::HostCheck {
            (concerned.map(|(host, _)| Target { host, domain: None }).collect(), Vec::new())
        } else {
            let listings = join_all(concerned.map(|(id, host)| self.list(id, host, &policy))).await;
            resolve::resolve(operation.name(), selection, listings)
        };
        let planned_in = began.elapsed();
        Ok(Plan { operation, policy, targets, settled, notices: Vec::new(), done_before: 0, planned_in })
    }

    /// Asks one host for its VMs.
    async fn list(&self, id: HostId, host: HostInfo, policy: &Policy) -> Listing {
        let started = Instant::now();
        let budget = policy.deadline.map_or(policy.timeout, |whole| whole.min(policy.timeout));
        let deadline = started + budget;
        let options = ExecuteOptions::by(deadline);
        let listing = self.manager.execute_on_host_with(id.as_str(), options, |connection| async move {
            Ok::<_, ProtocolError>(connection.list_domains().await?)
        });
        // The transport ends by the deadline and says where it was; the rest is for the case that it does not.
        let domains = match time::timeout_at(deadline + policy.grace, listing).await {
            Ok(result) => result.map_err(|error| OutcomeError::from(&error)),
            Err(_) => Err(given_up(&id, budget + policy.grace)),
        };
        Listing { id, host, domains, took: started.elapsed() }
    }

    /// Carries out a plan. The run goes on by itself; its events tell of it.
    ///
    /// Must be called within a tokio runtime.
    pub fn run(&self, plan: Plan, control: &RunControl) -> Run {
        self.run_noted(plan, None, control)
    }

    /// As [`run`](Self::run), with a journal in which every target is noted before it is started and before its
    /// outcome is told.
    ///
    /// Must be called within a tokio runtime.
    pub fn run_noted(&self, plan: Plan, journal: Option<Journal>, control: &RunControl) -> Run {
        let Plan { operation, policy, targets, settled, planned_in, .. } = plan;
        let manager = self.manager.clone();
        let shared = Arc::new((operation, policy.clone()));
        let deadline = policy.deadline.map(|whole| whole.saturating_sub(planned_in));
        let policy = Policy { deadline, ..policy };
        let spec = RunSpec { op: shared.0.name(), targets, settled, policy, journal };
        run_targets(spec, control, move |target, attempt| {
            let (manager, shared) = (manager.clone(), Arc::clone(&shared));
            async move {
                let (operation, policy) = &*shared;
                ops::perform(&manager, operation, policy, &target, &attempt).await
            }
        })
    }
}

fn given_up(id: &HostId, after: Duration) -> OutcomeError {
    let kind = ErrorKind::CallTimeout;
    OutcomeError::new(kind.as_str(), format!("host {id}: not listed after {after:?}, given up on"))
        .with_hint(kind.hint())
        .retryable()
}
