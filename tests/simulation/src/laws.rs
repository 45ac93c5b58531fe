//! What ATP promises, checked for the runs of a case.

use std::collections::{BTreeMap, BTreeSet};

use atp_executor::{Outcome, RunEvent, RunStatistics, Status};
use atp_fleet::VmFault;
use atp_transport::{Effect, ErrorKind, PoolStats};

use crate::case::{Case, End, Place};
use crate::record::Record;

/// What timers may add, ms.
const TICK: u64 = 2;

/// The laws of events, outcomes, times and numbers.
pub(crate) fn of_runs(case: &Case, records: &[Record]) -> Vec<String> {
    records.iter().flat_map(|record| of_run(case, record)).collect()
}

fn of_run(case: &Case, record: &Record) -> Vec<String> {
    let mut broken = Vec::new();
    let mut broke = |what: String| {
        let which = if record.is_resumed { "the resumed run: " } else { "" };
        broken.push(format!("{which}{what}"));
    };
    let was_killed =
        matches!(record.end, End::Kill(_)) && !matches!(record.events.last(), Some((_, RunEvent::Ended(_))));
    let (mut started, mut finished) = (BTreeSet::new(), Vec::<&Outcome>::new());
    let mut stopping = None;
    for (at, (_, event)) in record.events.iter().enumerate() {
        match event {
            RunEvent::Begun(start) if at == 0 => {
                if start.outcomes() != record.planned.len() {
                    broke(format!("{} outcomes are announced of {}", start.outcomes(), record.planned.len()));
                }
            }
            RunEvent::Begun(_) => broke("it begins twice".to_owned()),
            RunEvent::Started { host, vm } => {
                if stopping.is_some() {
                    broke(format!("{host}/{vm:?} is started after the run was stopped"));
                }
                if !started.insert((Some(host.to_string()), vm.clone())) {
                    broke(format!("{host}/{vm:?} is started twice"));
                }
            }
            RunEvent::Finished(outcome) => {
                let is_started = started.contains(&key(outcome));
                let settled = &record.planned[record.targets..];
                // A settled outcome has the attempts of the run that was resumed.
                if !settled.contains(&key(outcome)) && is_started != (outcome.attempts > 0) {
                    let attempts = outcome.attempts;
                    broke(format!("{}: started {is_started}, and {attempts} attempts", name(outcome)));
                }
                finished.push(outcome);
            }
            RunEvent::Stopping(reason) => {
                if stopping.replace(reason).is_some() {
                    broke("it stops twice".to_owned());
                }
            }
            RunEvent::Ended(statistics) => {
                if at + 1 != record.events.len() {
                    broke("events follow its end".to_owned());
                }
                let counted: RunStatistics = finished.iter().copied().collect();
                let counted = RunStatistics { duration_ms: statistics.duration_ms, ..counted };
                if counted != **statistics {
                    broke(format!("its numbers are {statistics:?}, and its outcomes are {counted:?}"));
                }
                if let Some(whole) = case.policy.deadline.filter(|_| case.reader.is_zero()) {
                    let most = (whole + case.policy.grace).as_millis() as u64 + TICK;
                    if statistics.duration_ms > most {
                        broke(format!("it takes {} ms of {most}", statistics.duration_ms));
                    }
                }
            }
            RunEvent::Progress { .. } | RunEvent::Console { .. } => {}
            other => broke(format!("an unexpected event: {other:?}")),
        }
    }
    // One outcome for each target.
    let mut wanted: BTreeMap<_, i64> = BTreeMap::new();
    record.planned.iter().for_each(|key| *wanted.entry(key.clone()).or_default() += 1);
    finished.iter().for_each(|outcome| *wanted.entry(key(outcome)).or_default() -= 1);
    for (key, left) in wanted {
        if left < 0 || (left > 0 && !was_killed) {
            broke(format!("{key:?} has {} outcomes", 1 - left));
        }
    }
    if !was_killed && !matches!(record.events.last(), Some((_, RunEvent::Ended(_)))) {
        broke("its last event is not its end".to_owned());
    }
    // By its deadline.
    let longest = (case.policy.timeout + case.policy.grace).as_millis() as u64 + TICK;
    for outcome in &finished {
        let kind = outcome.error.as_ref().map(|error| error.kind);
        if outcome.duration_ms > longest {
            broke(format!("{} takes {} ms of {longest}", name(outcome), outcome.duration_ms));
        }
        if matches!(kind, Some(ErrorKind::DeadlinePassed | ErrorKind::Panicked | ErrorKind::Unknown)) {
            broke(format!("{}: {:?}", name(outcome), outcome.error));
        }
        if outcome.status.is_success() != outcome.error.is_none() {
            broke(format!("{} is {} with the error {:?}", name(outcome), outcome.status, outcome.error));
        }
        if let Some(fault) = unjust(case, record, outcome) {
            broke(format!("{}: {fault}", name(outcome)));
        }
    }
    let planning = (case.policy.timeout + case.policy.grace) * 3;
    if record.planned_in > planning {
        broke(format!("the planning takes {:?} of {planning:?}", record.planned_in));
    }
    broken
}

/// Why the failure of a target is the fault of others.
fn unjust(case: &Case, record: &Record, outcome: &Outcome) -> Option<String> {
    let host = number(outcome.host.as_ref()?.as_str(), 'h')?;
    let vm = match outcome.vm.as_deref() {
        Some(name) => Some(name.strip_prefix("vm")?.parse().ok()?),
        None => None,
    };
    let is_well = case.is_host_well(host) && vm.is_none_or(|vm| case.is_vm_well((host, vm)));
    if !is_well || outcome.status.is_success() {
        return None;
    }
    if matches!(outcome.status, Status::Skipped | Status::Cancelled) {
        return None;
    }
    // The time for all may be over before that of the target.
    if case.policy.deadline.is_some() {
        return None;
    }
    // What was started in the run that was resumed is not repeated.
    if record.planned[record.targets..].contains(&key(outcome)) && record.is_resumed {
        return None;
    }
    // With less room than by default, VMs that hang may fill it.
    let has_room = case.max_client_requests >= 5
        && case.config.calls.max_per_connection == 0
        && case.config.pool.max_connections_per_host >= 8;
    let hung = (1..=case.vms).any(|vm| !case.is_vm_well((host, vm)));
    if hung && !has_room {
        return None;
    }
    let others = if hung { "VMs of its host have faults" } else { "its host has no fault" };
    Some(format!("{}, effect {}: {:?}, and {others}", outcome.status, outcome.effect, outcome.error))
}

/// The laws of what was executed.
pub(crate) fn of_executions(case: &Case, records: &[Record], count: impl Fn(Place) -> u64) -> Vec<String> {
    if !matches!(
        case.operation,
        atp_executor::Operation::Exec(_)
            | atp_executor::Operation::Qmp(_)
            | atp_executor::Operation::Lifecycle(_)
    ) {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for place in (1..=case.hosts).flat_map(|host| (1..=case.vms).map(move |vm| (host, vm))) {
        let executed = count(place);
        let ours = |host: Option<&str>, vm: Option<&str>| origin(host, vm) == Some(place);
        // The definition that a migrated VM left may be a target of its own.
        let targets = records.iter().map(|record| {
            let targets = record.planned[..record.targets].iter();
            targets.filter(|(host, vm)| ours(host.as_deref(), vm.as_deref())).count()
        });
        let most = targets.clone().max().unwrap_or_default() as u64;
        let of_runs = records.iter().map(|record| {
            let outcomes = record.events.iter().filter_map(|(_, event)| match event {
                RunEvent::Finished(outcome) if outcome.attempts > 0 => Some(&**outcome),
                _ => None,
            });
            outcomes.filter(|outcome| {
                ours(outcome.host.as_ref().map(|host| host.as_str()), outcome.vm.as_deref())
            })
        });
        let outcomes: Vec<&Outcome> = of_runs.flatten().collect();
        let shown: Vec<_> = outcomes.iter().map(|outcome| (outcome.status, outcome.effect)).collect();
        let was_killed = records.iter().any(|record| matches!(record.end, End::Kill(_)));
        let done = outcomes.iter().filter(|outcome| outcome.status == Status::Ok).count() as u64;
        if executed > most {
            broken.push(format!("{place:?} executed {executed} times for {most} targets: {shown:?}"));
        }
        if executed < done && !is_moved(case, place) {
            broken.push(format!("{place:?} executed {executed} times, and is told as done: {shown:?}"));
        }
        if executed > 0 && !was_killed && outcomes.iter().all(|outcome| outcome.effect == Effect::None) {
            broken.push(format!("{place:?} executed {executed} times, and is told as not done: {shown:?}"));
        }
    }
    broken
}

/// The laws of what is left when nothing hangs any more.
pub(crate) fn of_pools(stats: &[(String, PoolStats)]) -> Vec<String> {
    let left = stats.iter().filter(|(_, stats)| {
        [
            stats.waiting,
            stats.total_active_uses,
            stats.calls_in_flight,
            stats.stuck_calls,
            stats.unproven_calls,
            stats.stuck_attempts,
        ]
        .iter()
        .any(|count| *count > 0)
    });
    left.map(|(host, stats)| format!("left on {host}: {stats:?}")).collect()
}

fn is_moved(case: &Case, place: Place) -> bool {
    let is_move =
        |change: &crate::case::Change| matches!(change, crate::case::Change::Migrate(vm, _) if *vm == place);
    case.changes.iter().any(|(_, change)| is_move(change))
        || case.vm_faults.get(&place) == Some(&VmFault::ShutOff)
}

fn key(outcome: &Outcome) -> (Option<String>, Option<String>) {
    (outcome.host.as_ref().map(ToString::to_string), outcome.vm.clone())
}

fn name(outcome: &Outcome) -> String {
    let (host, vm) = key(outcome);
    format!("{}/{}", host.unwrap_or_default(), vm.unwrap_or_default())
}

fn number(text: &str, prefix: char) -> Option<u32> {
    text.strip_prefix(prefix)?.parse().ok()
}

/// The place that a VM was at in the beginning: one that was migrated has the name of its host before it.
fn origin(host: Option<&str>, vm: Option<&str>) -> Option<Place> {
    let vm = vm?;
    match vm.split_once('-') {
        Some((host, vm)) => Some((number(host, 'h')?, vm.strip_prefix("vm")?.parse().ok()?)),
        None => Some((number(host?, 'h')?, vm.strip_prefix("vm")?.parse().ok()?)),
    }
}
