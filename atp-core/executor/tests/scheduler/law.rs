//! The law, by property test: random work, random policies, stops at random moments, readers of any pace.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use atp_executor::{
    Outcome, Policy, Portion, RunControl, RunEvent, RunSpec, RunStart, RunStatistics, Status, StopReason,
    Target, run_targets,
};
use atp_transport::Effect;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::script::{Script, Work, act, script};
use crate::{Gauge, policy, settled, spec, target, virtual_time};

/// A target's time and the grace after it.
const LIMIT: Duration = Duration::from_millis(10_500);
/// How long a target keeps its slot without an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// What counts as the same instant, as timers have steps of 1 ms.
const SAME: Duration = Duration::from_millis(3);

#[derive(Debug, Clone)]
struct Case {
    /// By host.
    scripts: Vec<Vec<Script>>,
    policy: Policy,
    gone: usize,
    stop_after: Option<u64>,
    abort_after: Option<u64>,
    /// How long the reader takes over each event.
    reader: u64,
}

fn portion() -> impl Strategy<Value = Option<Portion>> {
    prop_oneof![
        3 => Just(None),
        1 => (1_usize..6).prop_map(|count| Some(Portion::Count(count))),
        1 => (1_u8..=100).prop_map(|percent| Some(Portion::Percent(percent))),
    ]
}

prop_compose! {
    fn any_policy()(
        parallel in 0_usize..6,
        per_host in prop::option::of(0_usize..4),
        retries in 0_u32..4,
        deadline in prop::option::weighted(0.3, 0_u64..30_000),
        max_failures in portion(),
        serial in portion(),
    ) -> Policy {
        let deadline = deadline.map(Duration::from_millis);
        Policy { parallel, per_host, retries, deadline, max_failures, serial, ..policy() }
    }
}

prop_compose! {
    fn case()(
        scripts in prop::collection::vec(prop::collection::vec(script(), 0..6), 1..5),
        policy in any_policy(),
        gone in 0_usize..3,
        stop_after in prop::option::weighted(0.3, 0_u64..30_000),
        abort_after in prop::option::weighted(0.3, 0_u64..30_000),
        reader in prop_oneof![3 => Just(0), 1 => 1_u64..20_000],
    ) -> Case {
        Case { scripts, policy, gone, stop_after, abort_after, reader }
    }
}

/// What the work saw of the run.
#[derive(Default)]
struct Witness {
    all: Gauge,
    hosts: Vec<Gauge>,
    /// Work under way: when it began, and its script.
    under_way: Mutex<Vec<(Weak<()>, Instant, Script)>>,
    /// How many targets under way were not waiting for an answer, at most when one was started.
    counted: AtomicUsize,
    /// How often each target's work was called, and when first.
    calls: Mutex<HashMap<Uuid, (u32, Instant)>>,
}

impl Witness {
    /// Records the start of work; the work is under way while what this returns is there. A target that was started for the first
    /// time must have found a slot.
    fn begin(&self, script: Script, is_first: bool) -> Arc<()> {
        let (live, now) = (Arc::new(()), Instant::now());
        let mut under_way = self.under_way.lock().unwrap();
        under_way.retain(|(live, ..)| live.strong_count() > 0);
        under_way.push((Arc::downgrade(&live), now, script));
        if is_first {
            let silent = |began: Instant, script: Script| {
                let answered = script.answered_after.map(|after| began + Duration::from_millis(after) + SAME);
                began + PATIENCE <= now && answered.is_some_and(|answered| now <= answered)
            };
            let counted = under_way.iter().filter(|(_, began, script)| !silent(*began, *script)).count();
            self.counted.fetch_max(counted, Ordering::SeqCst);
        }
        live
    }
}

async fn check(case: Case) -> Result<(), TestCaseError> {
    let places =
        case.scripts.iter().enumerate().flat_map(|(host, vms)| (0..vms.len()).map(move |vm| (host, vm)));
    let scripts: HashMap<Uuid, (usize, Script)> = places
        .clone()
        .map(|(host, vm)| (target(host, vm).uuid().unwrap(), (host, case.scripts[host][vm])))
        .collect();
    let targets: Vec<Target> = places.map(|(host, vm)| target(host, vm)).collect();
    let control = RunControl::default();
    let began = Instant::now();
    for (token, after) in [(&control.stop, case.stop_after), (&control.abort, case.abort_after)] {
        let token = token.clone();
        if let Some(after) = after {
            tokio::spawn(async move {
                sleep(Duration::from_millis(after)).await;
                token.cancel();
            });
        }
    }
    let hosts = case.scripts.iter().map(|_| Gauge::default()).collect();
    let witness = Arc::new(Witness { hosts, ..Witness::default() });
    let (seen, lookup) = (Arc::clone(&witness), scripts.clone());
    let spec = RunSpec {
        settled: (0..case.gone).map(settled).collect(),
        ..spec(targets.clone(), case.policy.clone())
    };
    let mut run = run_targets(spec, &control, move |target, attempt| {
        let uuid = target.uuid().unwrap();
        let (host, script) = lookup[&uuid];
        let live = (seen.all.enter(), seen.hosts[host].enter());
        let time = {
            let mut calls = seen.calls.lock().unwrap();
            let (count, _) = calls.entry(uuid).or_insert((0, Instant::now()));
            *count += 1;
            *count
        };
        let begun = seen.begin(script, time == 1);
        async move {
            let completion = act(script, attempt, time).await;
            drop((live, begun));
            completion
        }
    });

    let mut history = Reading::default();
    while let Some(event) = run.next().await {
        history.take(event, &case)?;
        sleep(Duration::from_millis(case.reader)).await;
    }
    prop_assert_eq!(witness.all.now(), 0, "work was left running");
    let parallel = case.policy.parallel.max(1);
    let failures = case.policy.max_failures.map(|most| most.of(targets.len() + case.gone));
    let most = if parallel == 1 { 1 } else { 8 * parallel };
    prop_assert!(witness.all.most() <= most);
    prop_assert!(failures.is_none_or(|most| witness.all.most() < parallel + most.max(1)));
    for host in &witness.hosts {
        prop_assert!(host.most() <= case.policy.per_host.unwrap_or(usize::MAX).min(parallel).max(1));
    }
    // With a slow reader a target is started later than its slot was found, and others have their answers in between.
    prop_assert!(case.reader > 0 || witness.counted.load(Ordering::SeqCst) <= parallel, "no free slot");
    prop_assert_eq!(history.finished.len(), targets.len() + case.gone);
    let start = history.start.as_ref().unwrap();
    let hosts = case.scripts.iter().filter(|vms| !vms.is_empty()).count();
    prop_assert_eq!((start.targets, start.hosts, start.settled), (targets.len(), hosts, case.gone));
    let counted: RunStatistics = history.finished.values().collect();
    let statistics = history.statistics.clone().unwrap();
    prop_assert_eq!(&RunStatistics { duration_ms: statistics.duration_ms, ..counted }, &statistics);
    prop_assert!(statistics.longest_ms <= statistics.duration_ms);

    let calls = witness.calls.lock().unwrap();
    for target in &targets {
        let uuid = target.uuid().unwrap();
        let outcome = &history.finished[&target.to_string()];
        let (called, first) = calls.get(&uuid).map_or((0, None), |(count, at)| (*count, Some(*at)));
        prop_assert_eq!(outcome.attempts, called);
        prop_assert!(called <= case.policy.retries + 1);
        prop_assert!(
            called <= 1 || matches!(scripts[&uuid].1.work, Work::Flaky { .. }),
            "repeated what it must not"
        );
        check_outcome(outcome, scripts[&uuid].1, &case, &history)?;
        if let Some(first) = first {
            // Work starts at the latest in the instant in which the run is stopped.
            for ended in case.stop_after.into_iter().chain(case.abort_after) {
                prop_assert!(first <= began + Duration::from_millis(ended));
            }
            if let Some(deadline) = case.policy.deadline {
                prop_assert!(first < began + deadline);
            }
        }
    }
    check_batches(&case, &targets, &history)?;
    if let Some(most) = case.policy.max_failures {
        let failures =
            targets.iter().filter(|target| is_failure(&history.finished[&target.to_string()])).count();
        let is_reached = failures + case.gone >= most.of(targets.len() + case.gone);
        let is_said = matches!(history.stopping, Some(StopReason::MaxFailures { .. }));
        prop_assert!(is_reached || !is_said);
    }
    Ok(())
}

/// The events as they were read.
#[derive(Default)]
struct Reading {
    /// When each target was, and after how many others had finished.
    started: HashMap<String, (Instant, usize)>,
    finished: HashMap<String, Outcome>,
    /// The names of those that finished, in that order.
    order: Vec<String>,
    stopping: Option<StopReason>,
    start: Option<RunStart>,
    statistics: Option<RunStatistics>,
}

impl Reading {
    fn take(&mut self, event: RunEvent, case: &Case) -> Result<(), TestCaseError> {
        prop_assert_eq!(
            self.start.is_some(),
            !matches!(event, RunEvent::Begun(_)),
            "the start comes first, once"
        );
        prop_assert!(self.statistics.is_none(), "nothing follows the end");
        match event {
            RunEvent::Begun(start) => self.start = Some(*start),
            RunEvent::Ended(statistics) => self.statistics = Some(*statistics),
            RunEvent::Unknown => prop_assert!(false, "an event without a meaning"),
            RunEvent::Started { host, vm } => {
                let name = format!("{host}/{}", vm.unwrap());
                prop_assert!(!self.finished.contains_key(&name), "started after it finished");
                let first = self.started.insert(name, (Instant::now(), self.order.len())).is_none();
                prop_assert!(first, "started twice");
            }
            RunEvent::Console { .. } => prop_assert!(false, "the work has no console"),
            RunEvent::Progress { host, vm, .. } => {
                let name = format!("{host}/{}", vm.unwrap());
                prop_assert!(self.started.contains_key(&name) && !self.finished.contains_key(&name));
            }
            RunEvent::Stopping(reason) => {
                prop_assert!(self.stopping.replace(reason).is_none(), "told twice to stop");
            }
            RunEvent::Finished(outcome) => {
                let name = format!("{}/{}", outcome.host.as_ref().unwrap(), outcome.vm.as_ref().unwrap());
                match self.started.get(&name) {
                    Some((started, _)) => {
                        prop_assert!(
                            case.reader > 0 || started.elapsed() <= LIMIT,
                            "late: {:?}",
                            started.elapsed()
                        );
                        prop_assert!(Duration::from_millis(outcome.duration_ms) <= LIMIT);
                    }
                    None => {
                        prop_assert_eq!(outcome.attempts, 0);
                        prop_assert_eq!(outcome.effect, Effect::None);
                    }
                }
                if matches!(outcome.status, Status::Skipped | Status::Cancelled) {
                    prop_assert!(self.stopping.is_some(), "nobody was told why {name} was not done");
                }
                prop_assert!(self.finished.insert(name.clone(), *outcome).is_none(), "finished twice");
                self.order.push(name);
            }
        }
        Ok(())
    }
}

fn is_failure(outcome: &Outcome) -> bool {
    matches!(outcome.status, Status::Failed | Status::Timeout | Status::Unreachable)
}

/// Whether the outcome can be one of this work.
fn check_outcome(outcome: &Outcome, script: Script, case: &Case, run: &Reading) -> Result<(), TestCaseError> {
    let kind = outcome.error.as_ref().map(|error| error.kind.as_str());
    match outcome.status {
        Status::Skipped => {
            prop_assert_eq!(outcome.attempts, 0);
            prop_assert!(
                ["stopped", "aborted", "run-deadline-passed", "max-failures-reached", "canary-failed"]
                    .contains(&kind.unwrap())
            );
            return Ok(());
        }
        Status::Cancelled => {
            match kind {
                Some("aborted") => prop_assert!(case.abort_after.is_some()),
                _ => prop_assert!(case.policy.deadline.is_some() && kind == Some("run-deadline-passed")),
            }
            let never_sends = script.sends_after.is_none() && !matches!(script.work, Work::TimeOut);
            prop_assert!(!never_sends || outcome.effect == Effect::None);
            return Ok(());
        }
        _ => prop_assert!(run.stopping.is_none() || outcome.attempts > 0),
    }
    let is_last = outcome.attempts > case.policy.retries;
    let expected = match script.work {
        // Work that ends in the very instant it is given up on may be either.
        Work::Finish(10_499..=10_501) => return Ok(()),
        Work::Finish(after) if after < 10_500 => (Status::Ok, None),
        Work::Finish(_) | Work::Hang => (Status::Timeout, Some("deadline-passed")),
        Work::Fail(_) => (Status::Failed, Some("guest-error")),
        // An attempt that was begun in time does not look at its deadline.
        Work::Flaky { .. } if outcome.duration_ms >= 10_499 => return Ok(()),
        Work::Flaky { times, .. } if outcome.attempts > times => (Status::Ok, None),
        Work::Flaky { .. } => {
            // There were no more attempts, or no time for another, or the run was stopped.
            let no_time = outcome.duration_ms > 8_000 || case.policy.deadline.is_some();
            let is_stopped = case.stop_after.or(case.abort_after).is_some()
                || case.policy.max_failures.is_some()
                || case.policy.serial.is_some();
            prop_assert!(is_last || no_time || is_stopped, "{outcome:?}");
            (Status::Failed, Some("connection-lost"))
        }
        Work::Uncertain(_) => (Status::Failed, Some("connection-lost")),
        Work::Panic(_) => (Status::Failed, Some("panicked")),
        Work::TimeOut => (Status::Timeout, Some("call-timeout")),
    };
    prop_assert_eq!((outcome.status, kind), expected);
    let cut_off = match (kind, script.work, script.sends_after) {
        (Some("deadline-passed"), Work::Finish(_) | Work::Hang, sent) => Some(sent.is_some()),
        (Some("panicked"), Work::Panic(at), Some(sent)) if sent != at => Some(sent < at),
        (Some("panicked"), _, None) => Some(false),
        _ => None,
    };
    if let Some(sent) = cut_off {
        prop_assert_eq!(outcome.effect, if sent { Effect::Unknown } else { Effect::None });
    }
    Ok(())
}

/// A batch begins when the one before has ended, and none follows a canary that failed.
fn check_batches(case: &Case, targets: &[Target], run: &Reading) -> Result<(), TestCaseError> {
    let Some(serial) = case.policy.serial else { return Ok(()) };
    let batches: Vec<_> = targets.chunks(serial.of(targets.len())).collect();
    for pair in batches.windows(2) {
        for target in pair[1] {
            let Some((_, before)) = run.started.get(&target.to_string()) else { continue };
            let done: HashSet<_> = run.order[..*before].iter().collect();
            prop_assert!(
                pair[0].iter().all(|earlier| done.contains(&earlier.to_string())),
                "batches overlap"
            );
        }
    }
    let canary_failed = batches
        .first()
        .is_some_and(|canary| canary.iter().any(|t| is_failure(&run.finished[&t.to_string()])));
    if canary_failed {
        prop_assert!(
            batches[1..].concat().iter().all(|target| !run.started.contains_key(&target.to_string()))
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_target_has_exactly_one_outcome_by_its_deadline(case in case()) {
        virtual_time(check(case))?;
    }
}
