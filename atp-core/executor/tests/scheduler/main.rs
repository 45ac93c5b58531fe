//! The scheduler in virtual time: every target gets exactly one outcome, by its deadline, whatever its work does
//! and whenever and for whatever the run is stopped.
#![expect(clippy::unwrap_used, reason = "a test may")]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod law;
mod script;
mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_executor::{Outcome, OutcomeError, Policy, RunSpec, Status, Target};
use atp_transport::{Effect, ErrorKind};

use crate::common::{target, virtual_time};

fn policy() -> Policy {
    Policy { parallel: 4, timeout: Duration::from_secs(10), ..Policy::default() }
}

fn spec(targets: Vec<Target>, policy: Policy) -> RunSpec {
    RunSpec { op: "exec", targets, settled: Vec::new(), done_before: 0, policy, journal: None }
}

fn settled(vm: usize) -> Outcome {
    Outcome {
        host: Some("h0".parse().unwrap()),
        vm: Some(format!("gone{vm}")),
        uuid: None,
        found_on: None,
        from_earlier_run: false,
        op: "exec".into(),
        status: Status::Failed,
        effect: Effect::None,
        attempts: 0,
        duration_ms: 0,
        data: None,
        error: Some(OutcomeError::new(ErrorKind::VmNotFound, "gone")),
    }
}

/// How much work is under way, and how much was at most. Work that is dropped counts as ended.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

struct Live(Gauge);

impl Gauge {
    fn enter(&self) -> Live {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Live(self.clone())
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
