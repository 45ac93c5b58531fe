//! Targets that wait for an answer give up their slots, within limits.

use std::time::Duration;

use atp_executor::{
    Completion, Outcome, OutcomeError, Policy, Portion, Run, RunControl, RunEvent, Status, Target,
    run_targets,
};
use atp_transport::{Effect, ErrorKind};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Gauge, policy, spec, target, virtual_time};

const TIMEOUT: Duration = Duration::from_secs(20);

/// One VM on each of so many hosts.
fn hosts(count: usize) -> Vec<Target> {
    (0..count).map(|host| target(host, 0)).collect()
}

/// Calls to the VMs of hosts whose number `hangs` says are answered never, and those to others after 20 ms.
fn start(
    targets: Vec<Target>,
    policy: Policy,
    gauge: &Gauge,
    hangs: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> Run {
    let gauge = gauge.clone();
    run_targets(spec(targets, policy), &RunControl::default(), move |target, attempt| {
        let (live, hangs) = (gauge.enter(), hangs(target.host.as_str()[1..].parse().unwrap()));
        async move {
            let _live = live;
            let _call = attempt.unanswered().sent();
            if hangs {
                sleep_until(attempt.deadline()).await;
                let error = OutcomeError::new(ErrorKind::CallTimeout, "no answer");
                return Completion::failed(Status::Timeout, Effect::Unknown, error);
            }
            sleep(Duration::from_millis(20)).await;
            Completion::ok(Effect::Done, None)
        }
    })
}

fn count(outcomes: &[Outcome], status: Status) -> usize {
    outcomes.iter().filter(|outcome| outcome.status == status).count()
}

#[test]
fn hung_vms_do_not_fill_the_slots_of_those_that_answer() {
    let run = |answer_patience| {
        virtual_time(async move {
            let began = Instant::now();
            let policy = Policy { parallel: 64, timeout: TIMEOUT, answer_patience, ..Policy::default() };
            // One in twenty.
            let outcomes =
                start(hosts(10_000), policy, &Gauge::default(), |host| host % 20 == 0).outcomes().await;
            assert_eq!([count(&outcomes, Status::Ok), count(&outcomes, Status::Timeout)], [9_500, 500]);
            began.elapsed()
        })
    };
    let given_up = run(Policy::default().answer_patience);
    assert!(given_up < 2 * TIMEOUT, "{given_up:?}");
    // 500 hung ones are eight times 64.
    let kept = run(Duration::ZERO);
    assert!(kept >= 7 * TIMEOUT, "{kept:?}");
}

#[test]
fn no_more_than_eight_times_as_many_are_under_way_and_one_after_another_stays_so() {
    for (parallel, most) in [(1, 1), (2, 16), (64, 512)] {
        let gauge = Gauge::default();
        let policy = Policy { parallel, timeout: TIMEOUT, ..Policy::default() };
        let outcomes = virtual_time(async { start(hosts(600), policy, &gauge, |_| true).outcomes().await });
        assert_eq!((count(&outcomes, Status::Timeout), gauge.most()), (600, most));
    }
}

#[test]
fn a_host_has_no_more_under_way_than_without_hung_vms() {
    let gauge = Gauge::default();
    let targets = (0..50).map(|vm| target(0, vm)).collect();
    virtual_time(async { start(targets, policy(), &gauge, |_| true).outcomes().await });
    assert_eq!(gauge.most(), policy().parallel);
}

#[test]
fn hung_vms_count_as_failures_to_come() {
    for (failures, most) in [(1, 4), (3, 6), (10, 13)] {
        let gauge = Gauge::default();
        let policy = Policy { max_failures: Some(Portion::Count(failures)), ..policy() };
        let outcomes = virtual_time(async { start(hosts(50), policy, &gauge, |_| true).outcomes().await });
        assert_eq!((gauge.most(), count(&outcomes, Status::Timeout)), (most, most));
        assert_eq!(count(&outcomes, Status::Skipped), 50 - most);
    }
}

#[test]
fn no_slot_is_given_up_in_a_canary_batch() {
    let gauge = Gauge::default();
    let policy = Policy { serial: Some(Portion::Count(20)), ..policy() };
    let outcomes = virtual_time(async { start(hosts(50), policy, &gauge, |_| true).outcomes().await });
    assert_eq!(gauge.most(), 4);
    assert_eq!([count(&outcomes, Status::Timeout), count(&outcomes, Status::Skipped)], [4, 46]);
}

#[test]
fn a_target_that_is_answered_takes_its_slot_back() {
    virtual_time(async {
        let began = Instant::now();
        let policy = Policy { parallel: 2, ..policy() };
        let mut run =
            run_targets(spec(hosts(5), policy), &RunControl::default(), |target, attempt| async move {
                let call = attempt.unanswered().sent();
                match target.host.as_str() {
                    // Answered after two seconds, and busy for five more.
                    "h0" => sleep(Duration::from_secs(2)).await,
                    "h1" => {}
                    _ => sleep(Duration::from_millis(900)).await,
                }
                drop(call);
                if matches!(target.host.as_str(), "h0" | "h1") {
                    sleep(Duration::from_secs(5)).await;
                }
                Completion::ok(Effect::Done, None)
            });
        let mut started = Vec::new();
        while let Some(event) = run.next().await {
            if let RunEvent::Started { host, .. } = event {
                started.push((host.to_string(), began.elapsed().as_secs_f32()));
            }
        }
        let at = |index: usize| started[index].1;
        assert_eq!(started.len(), 5);
        assert_eq!((at(0), at(1)), (0.0, 0.0));
        assert!((1.0..1.5).contains(&at(2)), "the slot of h0: {started:?}");
        // h2 has ended 900 ms later, when h0 waits still or has its slot again.
        assert!(at(3) < 2.0 || at(3) >= 5.0, "{started:?}");
        assert!(at(4) >= 5.0, "h0 and h1 have the slots: {started:?}");
    });
}
