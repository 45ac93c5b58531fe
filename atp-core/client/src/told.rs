//! Which targets of a run have an outcome, and what is known of the others when their service is lost.

use std::collections::{HashMap, HashSet};

use atp_api::{Effect, ErrorKind, HostId, Outcome, OutcomeError, PlanReport, PlannedTarget, Status};
use uuid::Uuid;

/// How the service of a run was lost.
#[derive(Debug, Clone, Copy)]
pub enum Lost {
    /// Before it told whether it has begun the run.
    AtStart,
    /// While the run of this number was under way, which may go on.
    During(u64),
    /// It was ended under the run of this number.
    Interrupted(u64),
}

/// The targets of which a run through a service has told an outcome.
#[derive(Debug, Default)]
pub struct Told {
    names: HashSet<(Option<HostId>, Option<String>)>,
    /// A VM may have got another name or host since it was planned.
    uuids: HashMap<Uuid, usize>,
}

impl Told {
    /// Notes that an outcome has come.
    pub fn add(&mut self, outcome: &Outcome) {
        self.names.insert((outcome.host.clone(), outcome.vm.clone()));
        if let Some(uuid) = outcome.uuid {
            *self.uuids.entry(uuid).or_default() += 1;
        }
    }

    /// The outcomes of the targets of a plan of which a run told none before its service was lost. After an interruption the others
    /// are those that were not started: what was started is told before.
    pub fn untold(&self, plan: PlanReport, lost: Lost) -> Vec<Outcome> {
        let mut planned: HashMap<Uuid, usize> = HashMap::new();
        for uuid in plan.targets.iter().filter_map(|target| target.uuid) {
            *planned.entry(uuid).or_default() += 1;
        }
        let is_told = |outcome: &Outcome| {
            let has_all = |uuid| self.uuids.get(&uuid).is_some_and(|told| Some(told) >= planned.get(&uuid));
            self.names.contains(&(outcome.host.clone(), outcome.vm.clone()))
                || outcome.uuid.is_some_and(has_all)
        };
        const LOOK: &str = "look at the run on the page of the service, or of another one with the same database; do not repeat it \
                            blindly";
        let (status, effect, error) = match lost {
            Lost::Interrupted(run) => {
                let message = format!("run {run} was interrupted before this target was started");
                let error = OutcomeError::new(ErrorKind::ServiceStopping, message)
                    .with_hint(format!("resume run {run}, which does what is left"));
                (Status::Skipped, Effect::None, error)
            }
            Lost::During(run) => {
                let message =
                    format!("the service was lost before it told what became of this target in run {run}");
                let error = OutcomeError::new(ErrorKind::OutcomeUnknown, message).with_hint(LOOK);
                (Status::Failed, Effect::Unknown, error)
            }
            Lost::AtStart => {
                let message = "the service was lost before it told whether it has begun the run";
                let error = OutcomeError::new(ErrorKind::OutcomeUnknown, message).with_hint(LOOK);
                (Status::Failed, Effect::Unknown, error)
            }
        };
        let unseen = |target: PlannedTarget| Outcome {
            host: Some(target.host),
            vm: target.vm,
            uuid: target.uuid,
            effect,
            error: Some(error.clone()),
            ..Outcome::not_started(plan.op.clone(), status)
        };
        let planned = plan.settled.into_iter().chain(plan.targets.into_iter().map(unseen));
        planned.filter(|outcome| !is_told(outcome)).collect()
    }
}

#[cfg(test)]
mod tests {
    use atp_api::DryRun;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_lost_run_has_not_told_is_unknown_and_what_an_interrupted_one_has_not_is_not_started() {
        let uuid = |number| Uuid::from_u128(number);
        let target = |host: &str, vm: &str, number| PlannedTarget {
            host: host.parse().unwrap(),
            vm: Some(vm.to_owned()),
            uuid: Some(uuid(number)),
            state: None,
            listed: None,
            dry_run: DryRun::Proceed,
            refusal: None,
        };
        let told_of = |host: &str, vm: &str, number| Outcome {
            host: Some(host.parse().unwrap()),
            vm: Some(vm.to_owned()),
            uuid: Some(uuid(number)),
            ..Outcome::not_started("exec", Status::Ok)
        };
        let mut told = Told::default();
        // One as it was planned, one that has moved, and one of two copies.
        [told_of("h1", "a", 1), told_of("h2", "b", 2), told_of("h1", "c", 3)]
            .iter()
            .for_each(|outcome| told.add(outcome));
        let plan: PlanReport = serde_json::from_value(json!({
            "version": 1, "op": "exec", "disruptive": false, "policy": atp_api::Policy::default(),
            "targets": [
                target("h1", "a", 1),
                target("h1", "b", 2),
                target("h1", "c", 3),
                target("h2", "c", 3),
                target("h2", "d", 4),
            ],
            "settled": [], "notices": [], "done_before": 0,
        }))
        .unwrap();
        for (lost, status, effect, kind) in [
            (Lost::During(7), Status::Failed, Effect::Unknown, ErrorKind::OutcomeUnknown),
            (Lost::Interrupted(7), Status::Skipped, Effect::None, ErrorKind::ServiceStopping),
        ] {
            let outcomes = told.untold(plan.clone(), lost);
            let names: Vec<_> = outcomes.iter().filter_map(|one| one.vm.as_deref()).collect();
            assert_eq!(names, ["c", "d"]);
            for outcome in outcomes {
                assert_eq!((outcome.status, outcome.effect), (status, effect));
                assert_eq!(outcome.error.map(|error| error.kind), Some(kind));
            }
        }
    }
}
