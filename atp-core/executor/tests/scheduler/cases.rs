//! What a run does, case by case.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use atp_executor::{
    Attempt, Completion, JournalError, Outcome, OutcomeError, Policy, Portion, Recorder, Run, RunControl,
    RunEvent, RunSpec, Status, StopReason, Target, run_targets,
};
use atp_transport::{Effect, ErrorKind};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{Gauge, policy, settled, spec, target, virtual_time};

/// VMs of one host.
fn targets(count: usize) -> Vec<Target> {
    (0..count).map(|vm| target(0, vm)).collect()
}

fn start<F: Future<Output = Completion> + Send + 'static>(
    targets: Vec<Target>,
    policy: Policy,
    work: impl Fn(Target, Attempt) -> F + Send + Sync + 'static,
) -> Run {
    run_targets(spec(targets, policy), &RunControl::default(), work)
}

/// Work that never ends, counted for as long as it is there.
fn endless(
    gauge: &Gauge,
) -> impl Fn(Target, Attempt) -> BoxFuture<'static, Completion> + Send + Sync + 'static {
    let gauge = gauge.clone();
    move |_, _| {
        let live = gauge.enter();
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(live);
            Completion::ok(Effect::Done, None)
        })
    }
}

#[test]
fn hosts_take_turns() {
    virtual_time(async {
        let mut targets = targets(20);
        targets.extend([target(1, 0), target(1, 1)]);
        let policy = Policy { parallel: 2, ..policy() };
        let mut run = start(targets, policy, |_, _| async {
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
        let targets = targets(9);
        let policy = Policy { parallel: 2, ..policy() };
        let run = start(targets, policy, |target, _| async move {
            if target.vm() == Some("vm0") {
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_secs(1)).await;
            Completion::ok(Effect::Done, None)
        });
        let outcomes = run.outcomes().await;
        assert_eq!(began.elapsed(), Duration::from_millis(10_500));
        assert_eq!(outcomes.iter().filter(|outcome| outcome.status == Status::Ok).count(), 8);
        assert_eq!(outcomes[0].status, Status::Timeout);
    });
}

#[test]
fn after_a_standstill_work_still_has_its_grace_period() {
    virtual_time(async {
        let mut run = start(targets(1), policy(), |_, attempt| async move {
            sleep_until(attempt.deadline()).await;
            // What is left to be done when the time is over.
            sleep(Duration::from_millis(100)).await;
            Completion::ok(Effect::Done, None)
        });
        assert!(matches!(run.next().await, Some(RunEvent::Begun(_))));
        assert!(matches!(run.next().await, Some(RunEvent::Started { .. })));
        // The machine stands still until long after the deadline.
        tokio::time::advance(policy().timeout * 2).await;
        assert_eq!(run.outcomes().await[0].status, Status::Ok);
    });
}

/// A journal on a disk that stops answering: at the first start, or at the first outcome.
#[derive(Debug)]
struct HangingDisk {
    takes_starts: bool,
}

impl Recorder for HangingDisk {
    fn started<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<(), JournalError>> {
        match self.takes_starts {
            true => Box::pin(async { Ok(()) }),
            false => Box::pin(std::future::pending()),
        }
    }

    fn finished<'a>(&'a self, _: &'a Outcome) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_journal_that_hangs_does_not_outlast_the_time_for_the_run_or_a_request_to_stop() {
    for (takes_starts, is_stopped) in [(true, false), (false, false), (false, true)] {
        virtual_time(async {
            let policy = Policy { deadline: (!is_stopped).then_some(Duration::from_secs(5)), ..policy() };
            let parallel = policy.parallel;
            let latest = Instant::now() + Duration::from_secs(5) + 2 * policy.grace;
            let journal: Arc<dyn Recorder> = Arc::new(HangingDisk { takes_starts });
            let spec = RunSpec { journal: Some(journal), ..spec(targets(9), policy) };
            let control = RunControl::default();
            let run = run_targets(spec, &control, |_, _| async { Completion::ok(Effect::Done, None) });
            let stop = control.stop.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(5)).await;
                if is_stopped {
                    stop.cancel();
                }
            });
            let outcomes = run.outcomes().await;
            assert!(Instant::now() <= latest, "{takes_starts} {is_stopped}");
            let statuses: Vec<_> = outcomes.iter().map(|outcome| outcome.status).collect();
            let done = if takes_starts { parallel } else { 0 };
            assert_eq!(statuses, [vec![Status::Ok; done], vec![Status::Skipped; 9 - done]].concat());
        });
    }
}

#[test]
fn a_journal_that_hangs_ends_a_run_that_nobody_ends() {
    for takes_starts in [true, false] {
        virtual_time(async {
            let policy = policy();
            let done = if takes_starts { policy.parallel } else { 0 };
            let journal: Arc<dyn Recorder> = Arc::new(HangingDisk { takes_starts });
            let spec = RunSpec { journal: Some(journal), ..spec(targets(9), policy) };
            let control = RunControl::default();
            let run = run_targets(spec, &control, |_, _| async { Completion::ok(Effect::Done, None) });
            let outcomes = timeout(Duration::from_secs(600), run.outcomes()).await.expect("it ends");
            let (ok, skipped) = outcomes.split_at(done);
            assert!(ok.iter().all(|outcome| outcome.status == Status::Ok), "{ok:?}");
            assert_eq!(skipped.len(), 9 - done);
            for outcome in skipped {
                assert_eq!(outcome.status, Status::Skipped);
                assert_eq!(outcome.error.as_ref().unwrap().kind, "journal-failed");
            }
        });
    }
}

#[test]
fn a_time_limit_beyond_the_clocks_range_is_valid() {
    virtual_time(async {
        let endless = Policy { timeout: Duration::MAX, deadline: Some(Duration::MAX), ..policy() };
        let run = start(targets(1), endless, |_, _| async { Completion::ok(Effect::Done, None) });
        assert_eq!(run.outcomes().await[0].status, Status::Ok);
    });
}

#[test]
fn dropping_a_run_ends_its_work() {
    virtual_time(async {
        let gauge = Gauge::default();
        let mut run = start(targets(9), policy(), endless(&gauge));
        assert!(matches!(run.next().await, Some(RunEvent::Begun(_))));
        for _ in 0..policy().parallel {
            assert!(matches!(run.next().await, Some(RunEvent::Started { .. })));
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(gauge.now(), policy().parallel);
        drop(run);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(gauge.now(), 0);
    });
}

#[test]
fn work_that_is_cut_off_just_before_it_sends_never_sends() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let control = RunControl::default();
        let policy = Policy { timeout: Duration::from_secs(600), ..policy() };
        let [arrives, goes_on] = [(); 2].map(|()| Arc::new(Barrier::new(2)));
        let sent = Arc::new(AtomicBool::new(false));
        let (ends, mut ended) = mpsc::channel::<()>(1);
        let shared = (Arc::clone(&arrives), Arc::clone(&goes_on), Arc::clone(&sent), ends);
        let mut run = run_targets(spec(targets(1), policy), &control, move |_, attempt| {
            let (arrives, goes_on, sent, ends) = shared.clone();
            async move {
                // Its thread blocks here, and cannot notice that it is cut off.
                tokio::task::block_in_place(|| {
                    arrives.wait();
                    goes_on.wait();
                });
                attempt.mark_sent().await;
                sent.store(true, Ordering::SeqCst);
                drop(ends);
                Completion::ok(Effect::Done, None)
            }
        });
        arrives.wait();
        control.abort.cancel();
        let outcome = loop {
            if let RunEvent::Finished(outcome) = run.next().await.expect("there is an outcome") {
                break outcome;
            }
        };
        goes_on.wait();
        assert!(matches!(run.next().await, Some(RunEvent::Ended(_))));
        assert_eq!(run.next().await, None);
        assert_eq!(ended.recv().await, None, "the work has ended");
        assert_eq!((outcome.status, outcome.effect), (Status::Cancelled, Effect::None));
        assert!(!sent.load(Ordering::SeqCst), "it was sent all the same");
    });
}

#[test]
fn a_run_ends_although_work_that_was_given_up_blocks_its_thread() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let policy = Policy { timeout: Duration::from_millis(20), ..policy() };
        let run = start(targets(1), policy, move |_, _| {
            let released = Arc::clone(&released);
            async move {
                // Ends when the test drops the sender.
                let _gone = released.lock().unwrap().recv();
                Completion::ok(Effect::Done, None)
            }
        });
        let outcomes = timeout(Duration::from_secs(60), run.outcomes()).await;
        drop(release);
        let outcomes = outcomes.expect("the run ends before its work does");
        assert_eq!((outcomes.len(), outcomes[0].status), (1, Status::Timeout));
    });
}

#[test]
fn a_slow_reader_delays_no_deadline() {
    virtual_time(async {
        let targets = targets(12);
        let policy = Policy { parallel: 2, ..policy() };
        let mut run = start(targets, policy, |_, _| async {
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
fn progress_is_reported_between_start_and_end_and_blocks_nothing() {
    virtual_time(async {
        let targets = (0..6).map(|vm| target(0, vm)).collect();
        let policy = Policy { parallel: 4, timeout: Duration::from_secs(5), ..policy() };
        let mut run =
            run_targets(spec(targets, policy), &RunControl::default(), |target, attempt| async move {
                // Continues to report after its reader has left.
                let late = attempt.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_secs(60)).await;
                    late.progress(2, 2);
                });
                for done in 0..1000 {
                    attempt.progress(done, 1000);
                }
                sleep(Duration::from_secs(1)).await;
                attempt.progress(1000, 1000);
                if target.vm() == Some("vm5") {
                    std::future::pending::<()>().await;
                }
                Completion::ok(Effect::Done, None)
            });
        let (mut running, mut ended, mut told) = (Vec::new(), Vec::new(), 0);
        while let Some(event) = run.next().await {
            match event {
                RunEvent::Started { vm, .. } => running.push(vm),
                RunEvent::Progress { vm, done, total, .. } => {
                    assert!(running.contains(&vm) && done <= total, "{vm:?}: {done} of {total}");
                    told += 1;
                }
                RunEvent::Finished(outcome) => {
                    assert!(outcome.duration_ms <= 6_000, "{outcome:?}");
                    running.retain(|vm| *vm != outcome.vm);
                    ended.push(outcome);
                }
                RunEvent::Stopping(reason) => panic!("{reason}"),
                _ => {}
            }
        }
        assert_eq!((ended.len(), running.len()), (6, 0));
        // Some of it, and no more than there was time for.
        assert!((1..100).contains(&told), "{told}");
    });
}

#[test]
fn nothing_starts_once_a_run_is_stopped_however_slow_the_reader() {
    virtual_time(async {
        let began = Arc::new(AtomicUsize::new(0));
        let (count, control) = (Arc::clone(&began), RunControl::default());
        let targets = targets(12);
        let policy = Policy { parallel: 2, ..policy() };
        let run = run_targets(spec(targets, policy), &control, move |_, _| {
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

#[test]
fn a_host_with_many_slow_vms_does_not_starve_one_with_few() {
    virtual_time(async {
        let began = Instant::now();
        let mut targets = targets(200);
        targets.extend((0..2).map(|vm| target(1, vm)));
        targets.extend((0..100).map(|vm| target(2, vm)));
        let policy = Policy { parallel: 8, ..policy() };
        let mut run = start(targets, policy, |target, _| async move {
            let millis = if target.host.as_str() == "h0" { 10_000 } else { 10 };
            sleep(Duration::from_millis(millis)).await;
            Completion::ok(Effect::Done, None)
        });
        let mut last = std::collections::HashMap::new();
        while let Some(event) = run.next().await {
            if let RunEvent::Finished(outcome) = event {
                last.insert(outcome.host.unwrap().to_string(), began.elapsed());
            }
        }
        // The slow host has its share of the window and no more, as long as others have work.
        assert!(last["h1"] < Duration::from_millis(100), "{last:?}");
        assert!(last["h2"] < Duration::from_millis(1000), "{last:?}");
        assert!(last["h0"] >= Duration::from_secs(10 * 200 / 8), "{last:?}");
    });
}

#[test]
fn a_host_takes_no_more_at_once_than_it_may() {
    virtual_time(async {
        let gauge = Gauge::default();
        let work = gauge.clone();
        let targets = targets(9);
        let policy = Policy { per_host: Some(2), ..policy() };
        let run = start(targets, policy, move |_, _| {
            let live = work.enter();
            async move {
                sleep(Duration::from_secs(1)).await;
                drop(live);
                Completion::ok(Effect::Done, None)
            }
        });
        assert_eq!(run.outcomes().await.len(), 9);
        assert_eq!(gauge.most(), 2);
    });
}

#[test]
fn a_vm_that_is_there_twice_is_worked_on_once_at_a_time() {
    virtual_time(async {
        let gauge = Gauge::default();
        let work = gauge.clone();
        let targets = vec![target(0, 0), target(0, 0), target(0, 1)];
        let run = start(targets, policy(), move |target, _| {
            let live = (target.vm() == Some("vm0")).then(|| work.enter());
            async move {
                sleep(Duration::from_secs(1)).await;
                drop(live);
                Completion::ok(Effect::Done, None)
            }
        });
        assert_eq!(run.outcomes().await.len(), 3);
        assert_eq!(gauge.most(), 1);
    });
}

/// Work that fails on the VMs of these names, at once.
fn failing(
    names: &'static [&'static str],
) -> impl Fn(Target, Attempt) -> std::future::Ready<Completion> + Send + Sync + 'static {
    move |target, _| {
        let failed = names.contains(&target.vm().unwrap());
        std::future::ready(if failed {
            Completion::failed(Status::Failed, Effect::None, OutcomeError::new(ErrorKind::GuestError, "no"))
        } else {
            Completion::ok(Effect::Done, None)
        })
    }
}

/// `vm status` of each outcome, and why the run ended early.
async fn outline(mut run: Run) -> (Vec<String>, Option<StopReason>) {
    let (mut outcomes, mut reason) = (Vec::new(), None);
    while let Some(event) = run.next().await {
        match event {
            RunEvent::Finished(outcome) => {
                outcomes.push(format!("{} {}", outcome.vm.as_deref().unwrap_or("-"), outcome.status));
            }
            RunEvent::Stopping(why) => reason = Some(why),
            _ => {}
        }
    }
    outcomes.sort();
    (outcomes, reason)
}

#[test]
fn too_many_failures_end_the_run() {
    virtual_time(async {
        let targets = targets(6);
        let policy = Policy { parallel: 1, max_failures: Some(Portion::Count(2)), ..policy() };
        let run = start(targets, policy, failing(&["vm1", "vm3", "vm4"]));
        let (outcomes, reason) = outline(run).await;
        assert_eq!(outcomes, ["vm0 ok", "vm1 failed", "vm2 ok", "vm3 failed", "vm4 skipped", "vm5 skipped"]);
        assert_eq!(reason, Some(StopReason::MaxFailures { failures: 2 }));
    });
}

#[test]
fn what_failed_in_planning_counts_among_the_failures() {
    virtual_time(async {
        let outline_of = |attempts, max_failures| async move {
            let policy = Policy { parallel: 1, max_failures: Some(max_failures), ..policy() };
            let settled = (0..2).map(|vm| Outcome { attempts, ..settled(vm) }).collect();
            let spec = RunSpec { settled, ..spec(targets(2), policy) };
            let run = run_targets(spec, &RunControl::default(), failing(&["vm0"]));
            let (outcomes, reason) = outline(run).await;
            (outcomes[2..].join(" "), reason)
        };
        let stopped = |failures| Some(StopReason::MaxFailures { failures });
        assert_eq!(
            outline_of(0, Portion::Count(2)).await,
            ("vm0 skipped vm1 skipped".to_owned(), stopped(2))
        );
        assert_eq!(outline_of(0, Portion::Count(3)).await, ("vm0 failed vm1 skipped".to_owned(), stopped(3)));
        // Of two targets and two that could not be planned.
        assert_eq!(
            outline_of(0, Portion::Percent(75)).await,
            ("vm0 failed vm1 skipped".to_owned(), stopped(3))
        );
        // Those of an earlier run were counted there.
        assert_eq!(outline_of(1, Portion::Count(2)).await, ("vm0 failed vm1 ok".to_owned(), None));
    });
}

#[test]
fn a_run_that_had_nothing_left_was_not_stopped() {
    virtual_time(async {
        let targets = targets(3);
        let policy = Policy { parallel: 1, max_failures: Some(Portion::Count(1)), ..policy() };
        let run = start(targets, policy, failing(&["vm2"]));
        assert_eq!(outline(run).await, (vec!["vm0 ok".into(), "vm1 ok".into(), "vm2 failed".into()], None));
    });
}

#[test]
fn a_canary_that_fails_is_the_only_one() {
    virtual_time(async {
        let targets = targets(5);
        let policy = Policy { serial: Some(Portion::Count(2)), ..policy() };
        let run = start(targets.clone(), policy.clone(), failing(&["vm1"]));
        let (outcomes, reason) = outline(run).await;
        assert_eq!(outcomes, ["vm0 ok", "vm1 failed", "vm2 skipped", "vm3 skipped", "vm4 skipped"]);
        assert_eq!(reason, Some(StopReason::CanaryFailed));

        // A failure after the canary is one like others.
        let run = start(targets, policy, failing(&["vm2"]));
        let (outcomes, reason) = outline(run).await;
        assert_eq!(outcomes, ["vm0 ok", "vm1 ok", "vm2 failed", "vm3 ok", "vm4 ok"]);
        assert_eq!(reason, None);
    });
}

#[test]
fn the_time_for_the_whole_run_is_kept() {
    virtual_time(async {
        let began = Instant::now();
        let targets = targets(6);
        let policy = Policy { parallel: 2, deadline: Some(Duration::from_secs(7)), ..policy() };
        let run = start(targets, policy.clone(), |target, attempt| async move {
            if target.vm() == Some("vm3") {
                // Ignores its deadline.
                std::future::pending::<()>().await;
            }
            let work = sleep(Duration::from_secs(4));
            match tokio::time::timeout_at(attempt.deadline(), work).await {
                Ok(()) => Completion::ok(Effect::Done, None),
                Err(_) => {
                    let error = OutcomeError::new(ErrorKind::CallTimeout, "no answer");
                    Completion::failed(Status::Timeout, Effect::Unknown, error)
                }
            }
        });
        let (outcomes, reason) = outline(run).await;
        assert_eq!(
            outcomes,
            ["vm0 ok", "vm1 ok", "vm2 cancelled", "vm3 cancelled", "vm4 skipped", "vm5 skipped"]
        );
        assert_eq!(reason, Some(StopReason::DeadlinePassed));
        assert_eq!(began.elapsed(), Duration::from_secs(7) + policy.grace);
    });
}

#[test]
fn a_target_that_is_cut_off_slightly_early_still_ends_the_run() {
    virtual_time(async {
        let policy = Policy { deadline: Some(Duration::from_secs(7)), ..policy() };
        let run = start(targets(1), policy, |_, attempt| async move {
            // A process that will not be through is given up on a moment before its time is over.
            sleep_until(attempt.deadline() - Duration::from_millis(5)).await;
            let error = OutcomeError::new(ErrorKind::ExecTimeout, "still running");
            Completion::failed(Status::Timeout, Effect::Unknown, error)
        });
        assert_eq!(outline(run).await, (vec!["vm0 cancelled".into()], Some(StopReason::DeadlinePassed)));
    });
}

#[test]
fn what_did_not_happen_is_tried_again_within_the_targets_own_time() {
    virtual_time(async {
        let began = Instant::now();
        let policy = Policy { retries: 100, ..policy() };
        let run = start(vec![target(0, 0)], policy, |_, _| async {
            let error = OutcomeError::new(ErrorKind::ConnectionRefused, "no").retryable();
            Completion::failed(Status::Unreachable, Effect::None, error)
        });
        let outcome = run.outcomes().await.remove(0);
        assert_eq!(outcome.status, Status::Unreachable);
        // 0.2, 0.4, 0.8, 1.6, 3.2 seconds: a sixth pause would reach beyond the ten that there are.
        assert_eq!((outcome.attempts, began.elapsed()), (6, Duration::from_millis(6200)));
    });
}

#[test]
fn a_reader_that_never_reads_moves_no_deadline_and_no_end() {
    virtual_time(async {
        let gauge = Gauge::default();
        let run = start(targets(9), policy(), endless(&gauge));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(gauge.now(), 0, "work outlived its deadline");
        assert_eq!(gauge.most(), policy().parallel);
        let outcomes = run.outcomes().await;
        assert!(outcomes.iter().all(|outcome| outcome.duration_ms == 10_500), "{outcomes:?}");
    });
}
