//! The work on one target: a run of its own, of which this controller tells the outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atp_api::{Policy, RunEvent};
use atp_cluster::Claim;
use atp_executor::{Operation, Placements, Plan, RecordedTarget, RunControl};
use atp_protocol::files::Allowance;
use atp_transport::HostId;
use uuid::Uuid;

use super::controller::{Cluster, UnderWay};
use crate::output::shorten;
use crate::state::Service;
use crate::store::{Finished, StartedTarget};

/// What this controller knows of a run that it works on.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) operation: Operation,
    pub(super) policy: Policy,
    pub(super) placements: Placements,
    pub(super) to_undo: BTreeSet<(HostId, Option<Uuid>)>,
}

/// Carries out a target that was started for this controller, for which `spent` of its time is over.
pub(super) fn carry_out(
    cluster: &Cluster,
    service: &Service,
    run: &Arc<Prepared>,
    started: StartedTarget,
    spent: Duration,
) {
    let StartedTarget { run: id, key, claim, target, run_left } = started;
    let control = RunControl::default();
    let work = UnderWay {
        host: target.host.to_string(),
        claim: claim.clone(),
        control: control.clone(),
        is_handed_over: false,
    };
    // Without an outcome from the run it is not known what was sent.
    let unknown = RecordedTarget {
        host: target.host.clone(),
        vm: target.vm().map(str::to_owned),
        uuid: target.uuid(),
        is_from_begin: true,
        was_started: true,
        outcome: None,
    };
    let op = run.operation.name();
    cluster.inner.under_way.lock().insert((id, key.clone()), work);
    let policy = Policy {
        parallel: 1,
        per_host: None,
        serial: None,
        max_failures: None,
        timeout: run.policy.timeout.saturating_sub(spent),
        deadline: run_left.map(|left| left.saturating_sub(spent)),
        ..run.policy.clone()
    };
    let plan = Plan {
        operation: run.operation.clone(),
        policy,
        targets: vec![target],
        settled: Vec::new(),
        listed: Vec::new(),
        notices: Vec::new(),
        placements: run.placements.clone(),
        done_before: 0,
        planned_in: Duration::ZERO,
        // Services of a cluster write no files.
        allowance: Allowance::default(),
        to_undo: run.to_undo.clone(),
    };
    let mut events = service.executor().run(plan, &control);
    let cluster = cluster.clone();
    tokio::spawn(async move {
        let mut outcome = None;
        while let Some(event) = events.next().await {
            if let RunEvent::Finished(finished) = event {
                outcome = Some(*finished);
            }
        }
        if let Some(mut outcome) = outcome.or_else(|| unknown.unknown(op)) {
            shorten(&mut outcome);
            let Claim { controller, epoch, number } = claim;
            let finished = Finished { run: id, key: key.clone(), controller, epoch, number, outcome };
            // In this order: it is known as under way until it is known as finished.
            cluster.inner.finished.lock().push(finished);
        }
        cluster.inner.under_way.lock().remove(&(id, key));
        cluster.inner.wake.notify_one();
    });
}
