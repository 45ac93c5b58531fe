//! Plans that were made just now, for the runs that follow them.

use std::collections::VecDeque;
use std::time::Duration;

use atp_api::{RunRequest, canonical_json};
use atp_executor::Plan;
use atp_protocol::files::Digest;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

/// How long a plan is kept for its run. What it knows of VMs and hosts is no older in a run than what a run knows that waits for its
/// turn, and what a token may do is not looked up much earlier.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(20);

/// The most plans that are kept, those of one token, and the most targets and outcomes of all of them.
const MOST_PLANS: usize = 32;
const MOST_OF_A_TOKEN: usize = 8;
const MOST_TARGETS: usize = 100_000;

/// Plans that runs may be started as: hosts that were asked just now, and those that did not answer, are not asked again.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    id: Uuid,
    /// The token of who asked for it, by its name.
    by: String,
    /// What was asked for.
    request: String,
    made: Instant,
    plan: Plan,
}

impl Kept {
    /// How much of the memory it has.
    fn size(&self) -> usize {
        self.plan.targets.len() + self.plan.settled.len()
    }
}

impl Plans {
    /// Keeps a plan that the token of this name asked for. The oldest ones are forgotten if there are too many. None if the system
    /// has no random numbers for its id.
    pub(crate) fn keep(&self, by: &str, request: &RunRequest, plan: Plan) -> Option<Uuid> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let id = Uuid::from_bytes(bytes);
        let request = planned_of(request);
        let mut kept = self.0.lock();
        let is_own = |kept: &Kept| kept.by == by;
        if kept.iter().filter(|kept| is_own(kept)).count() >= MOST_OF_A_TOKEN
            && let Some(oldest) = kept.iter().position(is_own)
        {
            kept.remove(oldest);
        }
        kept.push_back(Kept { id, by: by.to_owned(), request, made: Instant::now(), plan });
        let mut size: usize = kept.iter().map(Kept::size).sum();
        while let Some(oldest) = kept.front()
            && (kept.len() > MOST_PLANS || size > MOST_TARGETS)
        {
            size -= oldest.size();
            kept.pop_front();
        }
        Some(id)
    }

    /// Forgets the plans whose time has passed.
    pub(crate) fn sweep(&self) {
        self.0.lock().retain(|kept| kept.made.elapsed() < KEPT_FOR);
    }

    /// Takes a plan of this token for this request; none if it is not kept any more.
    pub(crate) fn take(&self, id: Option<Uuid>, by: &str, request: &RunRequest) -> Option<Plan> {
        let (id, request) = (id?, planned_of(request));
        let mut kept = self.0.lock();
        let place = kept.iter().position(|kept| kept.id == id && kept.by == by)?;
        let is_of = |kept: &Kept| kept.made.elapsed() < KEPT_FOR && kept.request == request;
        kept.remove(place).filter(is_of).map(|kept| kept.plan)
    }
}

/// Identifies what a plan is made of, without repeating it.
fn planned_of(request: &RunRequest) -> String {
    // Every key in it is text, so that serialising it cannot fail.
    let mut value = serde_json::to_value(request).unwrap_or_default();
    // Those of the single VMs are sent when the plan is known.
    if let Some(operation) = value.get_mut("operation").and_then(Value::as_object_mut) {
        operation.remove("files");
    }
    Digest::of(canonical_json(&value).as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use atp_api::{OperationSpec, Policy, Targets};
    use atp_executor::{Operation, Placements, Target};

    use super::*;

    fn plan(targets: usize) -> Plan {
        let target = Target { host: "h1".parse().unwrap(), domain: None };
        Plan {
            operation: Operation::VmInfo,
            policy: Policy::default(),
            targets: vec![target; targets],
            settled: Vec::new(),
            listed: Vec::new(),
            notices: Vec::new(),
            placements: Placements::default(),
            done_before: 0,
            to_undo: Default::default(),
            planned_in: Duration::ZERO,
            allowance: Default::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn plans_are_kept_for_a_while_and_are_so_many() {
        let request = RunRequest::new(Targets::of(["*"]), OperationSpec::VmInfo, Policy::default());
        let plans = Plans::default();
        let take = |id| plans.take(id, "a", &request).is_some();
        let early = plans.keep("a", &request, plan(1));
        assert!(!take(None) && plans.take(early, "b", &request).is_none());
        tokio::time::advance(KEPT_FOR - Duration::from_millis(1)).await;
        let late = plans.keep("a", &request, plan(1));
        assert!(take(early) && !take(early), "it is taken once");
        tokio::time::advance(KEPT_FOR).await;
        assert!(!take(late), "it is too old");
        plans.keep("a", &request, plan(1));
        tokio::time::advance(KEPT_FOR).await;
        plans.sweep();
        assert!(plans.0.lock().is_empty());

        let first = plans.keep("a", &request, plan(1));
        let others: Vec<_> = (0..MOST_OF_A_TOKEN).map(|_| plans.keep("a", &request, plan(1))).collect();
        assert!(!take(first) && take(others[0]));
        for other in 0..MOST_PLANS - MOST_OF_A_TOKEN {
            plans.keep(&format!("other-{other}"), &request, plan(1));
        }
        assert!(take(others[1]), "those of others take none of its place");
        let large = plans.keep("a", &request, plan(MOST_TARGETS));
        assert!(!take(others[2]) && take(large));
        plans.keep("a", &request, plan(MOST_TARGETS + 1));
        assert!(plans.0.lock().is_empty());
    }
}
