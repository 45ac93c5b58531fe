//! The law of the scheduler, in virtual time: every target gets exactly one outcome, by its deadline, whatever
//! its work does and whenever the run is stopped.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atp_executor::{
    Attempt, Completion, Outcome, OutcomeError, Policy, RunControl, RunEvent, Status, Target, run_targets,
};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, HostId};
use proptest::prelude::*;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

/// What the work on a target does, after a time in milliseconds.
#[derive(Debug, Clone, Copy)]
enum Work {
    Finish(u64),
    Fail(u64),
    Panic(u64),
    /// Ends by its deadline and says so, as the layers below do.
    TimeOut,
    /// Never ends, deadline or not.
    Hang,
}

#[derive(Debug, Clone, Copy)]
struct Script {
    work: Work,
    /// When it sends something, if it does.
    sends_after: Option<u64>,
}

const POLICY: Policy = Policy {
    parallel: 4,
    timeout: Duration::from_secs(10),
    grace: Duration::from_millis(500),
    poll_initial: Duration::from_millis(20),
    poll_max: Duration::from_secs(1),
    agent_patience: Duration::from_secs(5),
};

fn target(host: usize, vm: usize) -> Target {
    Target {
        host: format!("h{host}").parse().unwrap(),
        domain: Some(DomainInfo {
            name: format!("vm{vm}"),
            uuid: Uuid::from_u128((host * 1000 + vm) as u128),
            id: Some(1),
            state: DomainState::Running,
            vcpus: 1,
            memory_kib: 1,
            max_memory_kib: 1,
        }),
    }
}

fn settled(vm: usize) -> Outcome {
    Outcome {
        host: Some("h0".parse().unwrap()),
        vm: Some(format!("gone{vm}")),
        uuid: None,
        op: "exec",
        status: Status::Failed,
        effect: Effect::None,
        attempts: 0,
        duration_ms: 0,
        data: None,
        error: Some(OutcomeError::new("vm-not-found", "gone")),
    }
}

async fn act(script: Script, attempt: Attempt) -> Completion {
    let act = async {
        match script.work {
            Work::Finish(after) => {
                sleep(Duration::from_millis(after)).await;
                Completion::ok(Effect::Done, None)
            }
            Work::Fail(after) => {
                sleep(Duration::from_millis(after)).await;
                Completion::failed(Status::Failed, Effect::None, OutcomeError::new("guest-error", "no"))
            }
            Work::Panic(after) => {
                sleep(Duration::from_millis(after)).await;
                panic!("boom");
            }
            Work::TimeOut => {
                sleep_until(attempt.deadline()).await;
                Completion::failed(
                    Status::Timeout,
                    Effect::Unknown,
                    OutcomeError::new("call-timeout", "late"),
                )
            }
            Work::Hang => std::future::pending().await,
        }
    };
    let send = async {
        if let Some(after) = script.sends_after {
            sleep(Duration::from_millis(after)).await;
            attempt.mark_sent();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = send => unreachable!("sending never ends"),
        completion = act => completion,
    }
}

fn script() -> impl Strategy<Value = Script> {
    let work = prop_oneof![
        4 => (0_u64..12_000).prop_map(Work::Finish),
        2 => (0_u64..9_000).prop_map(Work::Fail),
        1 => (0_u64..9_000).prop_map(Work::Panic),
        1 => Just(Work::TimeOut),
        1 => Just(Work::Hang),
    ];
    (work, prop::option::of(0_u64..10_000)).prop_map(|(work, sends_after)| Script { work, sends_after })
}

fn virtual_time<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// The scripts, by host; when the run is stopped and aborted; how many outcomes are settled; how many at once.
type Case = (Vec<Vec<Script>>, Option<u64>, Option<u64>, usize, usize);

fn case() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(prop::collection::vec(script(), 0..6), 1..5),
        prop::option::weighted(0.4, 0_u64..30_000),
        prop::option::weighted(0.4, 0_u64..30_000),
        0_usize..3,
        0_usize..6,
    )
}

async fn check((scripts, stop_after, abort_after, gone, parallel): Case) -> Result<(), TestCaseError> {
    let targets: Vec<Target> = scripts
        .iter()
        .enumerate()
        .flat_map(|(host, vms)| (0..vms.len()).map(move |vm| target(host, vm)))
        .collect();
    let by_uuid: HashMap<Uuid, Script> = scripts
        .iter()
        .enumerate()
        .flat_map(|(host, vms)| vms.iter().enumerate().map(move |(vm, script)| (host, vm, *script)))
        .map(|(host, vm, script)| (target(host, vm).uuid().unwrap(), script))
        .collect();
    let window = parallel.max(1);
    let policy = Policy { parallel, ..POLICY };
    let control = RunControl::default();
    let began = Instant::now();
    for (token, after) in [(&control.stop, stop_after), (&control.abort, abort_after)] {
        let token = token.clone();
        if let Some(after) = after {
            tokio::spawn(async move {
                sleep(Duration::from_millis(after)).await;
                token.cancel();
            });
        }
    }
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (live, peak, lookup) = (Arc::clone(&now), Arc::clone(&most), by_uuid.clone());
    let settled_outcomes = (0..gone).map(settled).collect();
    let mut run =
        run_targets("exec", targets.clone(), settled_outcomes, &policy, &control, move |target, attempt| {
            let script = lookup[&target.uuid().unwrap()];
            let live = Live::enter(&live, &peak);
            async move {
                let completion = act(script, attempt).await;
                drop(live);
                completion
            }
        });

    let mut started: HashMap<(HostId, String), Instant> = HashMap::new();
    let mut finished: HashMap<(HostId, String), Outcome> = HashMap::new();
    let limit = Duration::from_millis(10_500);
    while let Some(event) = run.next().await {
        match event {
            RunEvent::Started { host, vm } => {
                let first = started.insert((host, vm.unwrap()), Instant::now()).is_none();
                prop_assert!(first, "started twice");
            }
            RunEvent::Finished(outcome) => {
                let key = (outcome.host.clone().unwrap(), outcome.vm.clone().unwrap());
                if let Some(started) = started.get(&key) {
                    prop_assert_eq!(outcome.attempts, 1);
                    prop_assert!(started.elapsed() <= limit, "late: {:?}", started.elapsed());
                    prop_assert!(outcome.duration_ms <= 10_500);
                } else {
                    prop_assert_eq!(outcome.attempts, 0);
                    prop_assert_eq!(outcome.effect, Effect::None);
                }
                prop_assert!(finished.insert(key, *outcome).is_none(), "finished twice");
            }
        }
    }

    prop_assert_eq!(finished.len(), targets.len() + gone);
    prop_assert!(most.load(Ordering::SeqCst) <= window);
    let stopped_at = stop_after.into_iter().chain(abort_after).min();
    for target in &targets {
        let key = (target.host.clone(), target.vm().unwrap().to_owned());
        let outcome = &finished[&key];
        prop_assert_eq!(outcome.uuid, target.uuid());
        check_outcome(
            outcome,
            by_uuid[&target.uuid().unwrap()],
            stopped_at.is_some(),
            abort_after.is_some(),
        )?;
        if outcome.status == Status::Skipped {
            prop_assert!(!started.contains_key(&key));
        } else if let Some(stopped_at) = stopped_at {
            prop_assert!(started[&key] <= began + Duration::from_millis(stopped_at));
        }
    }
    if let Some(abort_after) = abort_after {
        prop_assert!(
            began.elapsed() <= Duration::from_millis(abort_after + 1)
                || finished.values().all(|o| o.status != Status::Cancelled)
        );
    }
    prop_assert_eq!(now.load(Ordering::SeqCst), 0, "work was left running");
    Ok(())
}

/// Counts the work under way; work that is dropped counts as ended.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn enter(now: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Live(Arc::clone(now))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn check_outcome(
    outcome: &Outcome,
    script: Script,
    stopped: bool,
    aborted: bool,
) -> Result<(), TestCaseError> {
    let kind = outcome.error.as_ref().map(|error| error.kind.as_str());
    match outcome.status {
        Status::Skipped => prop_assert!(stopped),
        Status::Cancelled => {
            prop_assert!(aborted);
            prop_assert!(script.sends_after.is_some() || outcome.effect == Effect::None);
        }
        status => {
            let expected = match script.work {
                Work::Finish(after) if after < 10_500 => (Status::Ok, None),
                Work::Finish(_) | Work::Hang => (Status::Timeout, Some("deadline-passed")),
                Work::Fail(_) => (Status::Failed, Some("guest-error")),
                Work::Panic(_) => (Status::Failed, Some("panicked")),
                Work::TimeOut => (Status::Timeout, Some("call-timeout")),
            };
            // Work that ends in the very instant it is given up on may be either.
            prop_assert!(matches!(script.work, Work::Finish(10_499..=10_501)) || (status, kind) == expected);
            let cut_off = match (kind, script.work, script.sends_after) {
                (Some("deadline-passed"), _, sent) => Some(sent.is_some()),
                (Some("panicked"), Work::Panic(at), Some(sent)) if sent != at => Some(sent < at),
                (Some("panicked"), _, None) => Some(false),
                _ => None,
            };
            if let Some(sent) = cut_off {
                prop_assert_eq!(outcome.effect, if sent { Effect::Unknown } else { Effect::None });
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_target_has_exactly_one_outcome_by_its_deadline(case in case()) {
        virtual_time(check(case))?;
    }
}

#[test]
fn hosts_take_turns() {
    virtual_time(async {
        let mut targets: Vec<Target> = (0..20).map(|vm| target(0, vm)).collect();
        targets.extend([target(1, 0), target(1, 1)]);
        let policy = Policy { parallel: 2, ..POLICY };
        let mut run =
            run_targets("exec", targets, Vec::new(), &policy, &RunControl::default(), |_, _| async {
                sleep(Duration::from_secs(1)).await;
                Completion::ok(Effect::Done, None)
            });
        let mut hosts = Vec::new();
        while let Some(event) = run.next().await {
            if let RunEvent::Started { host, .. } = event {
                hosts.push(host.to_string());
            }
        }
        assert_eq!(hosts[..5], ["h0", "h1", "h0", "h1", "h0"]);
        assert_eq!(hosts.len(), 22);
    });
}

#[test]
fn a_target_that_hangs_does_not_hold_up_the_others() {
    virtual_time(async {
        let began = Instant::now();
        let targets = (0..9).map(|vm| target(0, vm)).collect();
        let policy = Policy { parallel: 2, ..POLICY };
        let run = run_targets(
            "exec",
            targets,
            Vec::new(),
            &policy,
            &RunControl::default(),
            |target, _| async move {
                if target.vm() == Some("vm0") {
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_secs(1)).await;
                Completion::ok(Effect::Done, None)
            },
        );
        let outcomes = run.outcomes().await;
        assert_eq!(began.elapsed(), POLICY.timeout + POLICY.grace);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.status == Status::Ok).count(), 8);
        assert_eq!(outcomes[0].status, Status::Timeout);
    });
}

#[test]
fn dropping_a_run_ends_its_work() {
    virtual_time(async {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let live = Arc::clone(&now);
        let targets = (0..9).map(|vm| target(0, vm)).collect();
        let mut run =
            run_targets("exec", targets, Vec::new(), &POLICY, &RunControl::default(), move |_, _| {
                let live = Live::enter(&live, &most);
                async move {
                    std::future::pending::<()>().await;
                    drop(live);
                    Completion::ok(Effect::Done, None)
                }
            });
        for _ in 0..POLICY.parallel {
            assert!(matches!(run.next().await, Some(RunEvent::Started { .. })));
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(now.load(Ordering::SeqCst), POLICY.parallel);
        drop(run);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(now.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_slow_reader_delays_nobodys_clock() {
    virtual_time(async {
        let targets = (0..12).map(|vm| target(0, vm)).collect();
        let policy = Policy { parallel: 2, ..POLICY };
        let mut run =
            run_targets("exec", targets, Vec::new(), &policy, &RunControl::default(), |_, _| async {
                sleep(Duration::from_secs(2)).await;
                Completion::ok(Effect::Done, None)
            });
        let mut finished = 0;
        while let Some(event) = run.next().await {
            // Longer than any target may take.
            sleep(Duration::from_secs(60)).await;
            if let RunEvent::Finished(outcome) = event {
                assert_eq!((outcome.status, outcome.duration_ms), (Status::Ok, 2000));
                finished += 1;
            }
        }
        assert_eq!(finished, 12);
    });
}

#[test]
fn nothing_starts_once_a_run_is_stopped_however_slow_the_reader() {
    virtual_time(async {
        let began = Arc::new(AtomicUsize::new(0));
        let (count, control) = (Arc::clone(&began), RunControl::default());
        let targets = (0..12).map(|vm| target(0, vm)).collect();
        let policy = Policy { parallel: 2, ..POLICY };
        let run = run_targets("exec", targets, Vec::new(), &policy, &control, move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Completion::ok(Effect::Done, None) }
        });
        // Nobody reads: events fill the channel, and the scheduler waits to announce the next target.
        sleep(Duration::from_secs(1)).await;
        let before = began.load(Ordering::SeqCst);
        control.stop.cancel();
        let outcomes = run.outcomes().await;
        assert_eq!(began.load(Ordering::SeqCst), before);
        let skipped = outcomes.iter().filter(|outcome| outcome.status == Status::Skipped).count();
        assert_eq!((outcomes.len(), skipped), (12, 12 - before));
    });
}
