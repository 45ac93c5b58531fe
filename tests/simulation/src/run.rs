//! The run of a case: planned, carried out, ended, resumed, and what is left of it afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atp_executor::{Executor, History, Journal, Plan, Recorder, RunControl, RunEvent, Selection};
use atp_transport::TransportManager;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::case::{Case, End};
use crate::fleet::World;
use crate::laws;
use crate::record::Record;
use crate::trace::Trace;

/// Longer than any plan and any run of a case may take.
const FOREVER: Duration = Duration::from_secs(12 * 3600);

/// How long after the last fault is removed calls and connections may still be on their way: longer than libvirt waits for the
/// lock of a VM, and than connecting may take.
const SETTLING: Duration = Duration::from_secs(300);

/// Carries out a case and returns the promises that were broken.
pub(crate) async fn run(case: &Case, trace: &Trace) -> Vec<String> {
    trace.head(format!("{case:#?}"));
    let began = Instant::now();
    let world = match World::new(case) {
        Ok(world) => world,
        Err(error) => return vec![format!("no fleet: {error}")],
    };
    let changing = async {
        for (at, change) in &case.changes {
            sleep_until(began + *at).await;
            trace.add(began, format_args!("{change:?}"));
            world.apply(*change);
        }
        std::future::pending().await
    };
    let runs = async {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let path = case.has_journal.then(|| folder.path().join("journal"));
        runs(case, &world, path.as_deref(), began, trace).await
    };
    let runs = tokio::select! {
        biased;
        () = changing => Err("the changes ended".to_owned()),
        // On the heap: futures of a debug build are too large for the stack of a test.
        runs = Box::pin(runs) => runs,
    };
    let (records, managers) = match runs {
        Ok(runs) => runs,
        Err(violation) => return vec![violation],
    };
    let mut violations = laws::of_runs(case, &records);
    trace.add(began, "all faults are removed");
    world.heal();
    sleep(SETTLING).await;
    violations.extend(left(&world, managers).await);
    violations.extend(laws::of_executions(case, &records, |vm| world.executions(vm, &case.operation)));
    violations
}

/// All runs of a case, and the clients that they were made by.
async fn runs(
    case: &Case,
    world: &World,
    journal: Option<&Path>,
    began: Instant,
    trace: &Trace,
) -> Result<(Vec<Record>, Vec<TransportManager>), String> {
    let client = async || world.client(case).await.map_err(|error| format!("no client: {error}"));
    let mut managers = vec![client().await?];
    let mut records = vec![first(case, &managers[0], journal, began, trace).await?];
    if let Some(path) = journal {
        // A process of its own.
        let manager = client().await?;
        let copy = copy_of(path);
        let path = if copy.exists() { &copy } else { path };
        records.push(resumed(case, &manager, path, began, trace).await?);
        managers.push(manager);
    }
    Ok((records, managers))
}

/// What is left when nothing hangs any more.
async fn left(world: &World, managers: Vec<TransportManager>) -> Vec<String> {
    let mut violations = Vec::new();
    for manager in managers {
        violations.extend(laws::of_pools(&manager.stats().await));
        if !manager.close(Duration::from_secs(1)).await {
            violations.push("work was left on a host".to_owned());
        }
    }
    sleep(Duration::from_secs(60)).await;
    let open = world.open_connections();
    if open > 0 {
        violations.push(format!("{open} connections are open after the clients were closed"));
    }
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    if tasks > 0 {
        violations.push(format!("{tasks} tasks are left after the clients were closed"));
    }
    violations
}

async fn planned(case: &Case, executor: &Executor) -> Result<Plan, String> {
    let all = Selection::all();
    let plan = executor.plan(&all, case.operation.clone(), case.policy.clone());
    match timeout(FOREVER, plan).await {
        Ok(Ok(plan)) => Ok(plan),
        Ok(Err(error)) => Err(format!("no plan: {error}")),
        Err(_) => Err("the planning never ended".to_owned()),
    }
}

async fn first(
    case: &Case,
    manager: &TransportManager,
    journal: Option<&Path>,
    began: Instant,
    trace: &Trace,
) -> Result<Record, String> {
    let executor = Executor::new(manager.clone());
    let plan = planned(case, &executor).await?;
    let journal = match journal {
        Some(path) => {
            let made = Journal::create(path, &plan).await.map_err(|error| format!("no journal: {error}"))?;
            Some((made, path))
        }
        None => None,
    };
    carry_out(case, &executor, plan, journal, case.end, began, trace).await
}

/// A run that continues the one of a journal.
async fn resumed(
    case: &Case,
    manager: &TransportManager,
    path: &Path,
    began: Instant,
    trace: &Trace,
) -> Result<Record, String> {
    trace.add(began, "the run is resumed");
    let executor = Executor::new(manager.clone());
    let history = History::read(path, &case.operation).await;
    let history = history.map_err(|error| format!("the journal cannot be read: {error}"))?;
    let plan = history.apply(planned(case, &executor).await?);
    let journal = Journal::resume(&history, &plan).await;
    let journal = journal.map_err(|error| format!("the journal cannot be resumed: {error}"))?;
    let record = carry_out(case, &executor, plan, Some((journal, path)), End::Itself, began, trace).await?;
    Ok(Record { is_resumed: true, ..record })
}

async fn carry_out(
    case: &Case,
    executor: &Executor,
    plan: Plan,
    journal: Option<(Journal, &Path)>,
    end: End,
    began: Instant,
    trace: &Trace,
) -> Result<Record, String> {
    let of_target = |target: &atp_executor::Target| {
        (Some(target.host.to_string()), target.domain.as_ref().map(|domain| domain.name.clone()))
    };
    let settled = plan.settled.iter();
    let settled = settled.map(|outcome| (outcome.host.as_ref().map(ToString::to_string), outcome.vm.clone()));
    let mut record = Record {
        planned: plan.targets.iter().map(of_target).chain(settled).collect(),
        targets: plan.targets.len(),
        planned_in: plan.planned_in,
        events: Vec::new(),
        end,
        is_resumed: false,
    };
    trace.add(began, format_args!("planned: {} targets, {} settled", record.targets, plan.settled.len()));
    let control = RunControl::default();
    let (token, after) = match end {
        End::Stop(after) => (control.stop.clone(), after),
        End::Abort(after) => (control.abort.clone(), after),
        End::Itself | End::Kill(_) => (control.stop.clone(), FOREVER),
    };
    let _ends = AbortOnDropHandle::new(tokio::spawn(async move {
        sleep(after).await;
        token.cancel();
    }));
    let path = journal.as_ref().map(|(_, path)| path.to_path_buf());
    let journal = journal.map(|(journal, _)| Arc::new(journal) as Arc<dyn Recorder>);
    let started = Instant::now();
    let mut run = executor.run_noted(plan, journal, &control);
    let reading = async {
        while let Some(event) = run.next().await {
            trace.add(began, line(&event));
            record.events.push((started.elapsed(), event));
            sleep(case.reader).await;
        }
    };
    let kill = match end {
        End::Kill(after) => after,
        _ => FOREVER,
    };
    let killed = timeout(kill, reading).await.is_err();
    if killed && kill == FOREVER {
        return Err("the run never ended".to_owned());
    }
    if killed && let Some(path) = path {
        // What a process that is killed now leaves on disk: what comes after it is not in it.
        std::fs::copy(&path, copy_of(&path)).map_err(|error| format!("no copy of the journal: {error}"))?;
    }
    if killed {
        trace.add(began, "the run is killed");
    }
    drop(run);
    Ok(record)
}

fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("left")
}

fn line(event: &RunEvent) -> String {
    match event {
        RunEvent::Begun(start) => format!("begun: {} outcomes", start.outcomes()),
        RunEvent::Started { host, vm } => format!("started {host}/{}", vm.as_deref().unwrap_or_default()),
        RunEvent::Finished(outcome) => {
            let host = outcome.host.as_ref().map(ToString::to_string).unwrap_or_default();
            let vm = outcome.vm.as_deref().unwrap_or_default();
            let error = outcome.error.as_ref().map(|error| format!("{}: {}", error.kind, error.message));
            format!(
                "finished {host}/{vm}: {} {} after {} ms, attempts {} {}",
                outcome.status,
                outcome.effect,
                outcome.duration_ms,
                outcome.attempts,
                error.unwrap_or_default()
            )
        }
        RunEvent::Stopping(reason) => format!("stopping: {reason}"),
        RunEvent::Ended(statistics) => format!("ended: {:?}", statistics.counts),
        other => format!("{other:?}"),
    }
}
