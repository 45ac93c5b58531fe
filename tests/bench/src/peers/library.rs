//! The library: many calls over open connections, in a process of its own.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use atp_executor::{Executor, Operation, Plan, Policy, RunControl, RunEvent, Selection, Status};
use atp_protocol::{Carrier, LibvirtCarrier, Peer, ProtocolError, RawCommand};
use atp_rpc::{CallError, ConnectOptions, Connection};
use atp_transport::{Engine, HostInfo, LibvirtConnection, TransportConfig, TransportError, TransportManager};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;
use virt::connect::Connect;

use super::QUERY;
use super::contest::Round;
use crate::child;
use crate::parallel::in_parallel;
use crate::usage::cpu_time;

/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(30);

/// The work of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(super) job: Job,
    pub(super) engine: Engine,
    pub(super) uris: Vec<String>,
    /// Parallel calls on each host.
    pub(super) at_once: usize,
    /// The number of calls to each host, or to each VM.
    pub(super) calls: usize,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Job {
    /// `hostname` of each host, by `execute_on_host`.
    Hostname,
    /// The same by libvirt's client library alone, on threads with a connection each. It has no keepalive and no
    /// event loop: this is the minimum cost of any program that uses the library.
    BareHostname,
    /// The same by `atp-rpc` alone: tasks, which share one connection to each host.
    RpcHostname,
    /// `query-status` of each VM, by `execute_on_host` and a carrier.
    Query,
    /// The same, as runs of the executor over all VMs.
    QueryRuns,
}

/// Lets a process make many calls. The cost of starting and connecting is not counted.
pub(super) fn calls(work: &Work) -> Result<Round> {
    child::ask(child::PEERS, work)
}

/// Connects, makes the calls, and returns their cost.
pub(crate) fn measure(work: Work) -> Result<Round> {
    match work.job {
        Job::BareHostname => bare_hostnames(&work),
        Job::RpcHostname => Runtime::new()?.block_on(rpc_hostnames(&work)),
        Job::Hostname => Runtime::new()?.block_on(async {
            let (manager, ids) = manager(&work).await?;
            let callers = callers(&ids, work.at_once);
            hostnames(&manager, &callers, work.at_once).await?;
            timed(hostnames(&manager, &callers, work.calls)).await
        }),
        Job::Query => Runtime::new()?.block_on(async {
            let (manager, ids) = manager(&work).await?;
            let guests = guests(&manager, &ids).await?;
            let callers = callers(&ids, work.at_once);
            queries(&manager, &callers, &guests, 1).await?;
            timed(queries(&manager, &callers, &guests, work.calls)).await
        }),
        Job::QueryRuns => Runtime::new()?.block_on(async {
            let (manager, ids) = manager(&work).await?;
            let executor = Executor::new(manager);
            let policy = Policy { parallel: work.at_once * ids.len(), ..Policy::default() };
            let command = RawCommand::from_words(["query-status"])?;
            let plan = executor.plan(&Selection::all(), Operation::Qmp(command), policy).await?;
            runs(&executor, &plan, 1).await?;
            timed(runs(&executor, &plan, work.calls)).await
        }),
    }
}

/// A manager of the hosts, and their ids.
async fn manager(work: &Work) -> Result<(TransportManager, Vec<String>)> {
    let manager =
        TransportManager::new(TransportConfig { engine: work.engine, ..TransportConfig::default() });
    let ids: Vec<String> = (1..=work.uris.len()).map(|n| format!("h{n}")).collect();
    for (id, uri) in ids.iter().zip(&work.uris) {
        manager.add_host(HostInfo::from_uri(id, uri)).await?;
    }
    Ok((manager, ids))
}

fn bare_hostnames(work: &Work) -> Result<Round> {
    let open = |caller: usize| {
        let uri = work.uris.get(caller % work.uris.len()).context("no host")?;
        Ok(Connect::open(Some(uri))?)
    };
    let connections = in_parallel(work.uris.len() * work.at_once, open)?;
    let (cpu, start) = (cpu_time(), Instant::now());
    let latencies = in_parallel(connections.len(), |caller| {
        let connection = connections.get(caller).context("no connection")?;
        let call = |_| {
            let start = Instant::now();
            connection.hostname()?;
            Ok(start.elapsed())
        };
        (0..work.calls / work.at_once).map(call).collect::<Result<Vec<_>>>()
    })?;
    Ok(since(cpu, start, latencies.concat()))
}

async fn rpc_hostnames(work: &Work) -> Result<Round> {
    let mut connections = Vec::new();
    for uri in &work.uris {
        connections.push(Connection::open(uri, &ConnectOptions::default()).await?);
    }
    timed(async {
        let mut callers = JoinSet::new();
        for caller in 0..connections.len() * work.at_once {
            let connection = connections.get(caller % connections.len()).context("no connection")?.clone();
            let calls = work.calls / work.at_once;
            callers.spawn(async move {
                let mut latencies = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    connection.hostname().await?;
                    latencies.push(start.elapsed());
                }
                Ok::<_, CallError>(latencies)
            });
        }
        all(callers).await
    })
    .await
}

async fn timed(calls: impl Future<Output = Result<Vec<Duration>>>) -> Result<Round> {
    let (cpu, start) = (cpu_time(), Instant::now());
    let latencies = calls.await?;
    Ok(since(cpu, start, latencies))
}

/// The cost of the calls made since then.
fn since(cpu: Duration, start: Instant, latencies: Vec<Duration>) -> Round {
    Round { operations: latencies.len(), wall: start.elapsed(), cpu: cpu_time() - cpu, latencies }
}

/// The ids of the hosts, once for each caller, with each caller's number among those of its host.
fn callers(ids: &[String], of_each: usize) -> Vec<(String, usize)> {
    ids.iter().flat_map(|id| (0..of_each).map(|number| (id.clone(), number))).collect()
}

/// Makes so many calls to each host, shared by its callers.
async fn hostnames(
    manager: &TransportManager,
    callers: &[(String, usize)],
    calls: usize,
) -> Result<Vec<Duration>> {
    let of_each = of_each(callers);
    let mut under_way = JoinSet::new();
    for (id, number) in callers.iter().cloned() {
        let manager = manager.clone();
        under_way.spawn(async move {
            let mut latencies = Vec::new();
            for _ in (number..calls).step_by(of_each) {
                let start = Instant::now();
                let work = |connection: LibvirtConnection| async move { connection.hostname().await };
                manager.execute_on_host(&id, work).await?;
                latencies.push(start.elapsed());
            }
            Ok::<_, TransportError>(latencies)
        });
    }
    all(under_way).await
}

/// The VMs of each host.
async fn guests(manager: &TransportManager, ids: &[String]) -> Result<Vec<(String, Arc<[Uuid]>)>> {
    let work = |connection: LibvirtConnection| async move { connection.list_domain_states().await };
    let listed = manager.execute_on_hosts(ids, work).await;
    let uuids = |(id, domains): (String, Result<Vec<_>, TransportError>)| {
        Ok((id, domains?.into_iter().map(|domain: atp_transport::domain::DomainInfo| domain.uuid).collect()))
    };
    listed.into_iter().map(uuids).collect()
}

/// Makes so many calls to each VM. Each free caller of a host takes the next of its VMs in turn.
async fn queries(
    manager: &TransportManager,
    callers: &[(String, usize)],
    guests: &[(String, Arc<[Uuid]>)],
    calls: usize,
) -> Result<Vec<Duration>> {
    let taken: HashMap<&String, Arc<AtomicUsize>> =
        guests.iter().map(|(id, _)| (id, Arc::default())).collect();
    let mut under_way = JoinSet::new();
    for (id, _) in callers {
        let (_, vms) = guests.iter().find(|(host, _)| host == id).context("a host was not listed")?;
        let (manager, id, vms) = (manager.clone(), id.clone(), Arc::clone(vms));
        let taken = Arc::clone(taken.get(&id).context("a host was not listed")?);
        under_way.spawn(async move {
            let mut latencies = Vec::new();
            for vm in iter::from_fn(|| {
                let n = taken.fetch_add(1, Ordering::Relaxed);
                vms.get(n % vms.len()).copied().filter(|_| n < calls * vms.len())
            }) {
                let start = Instant::now();
                let deadline = tokio::time::Instant::now() + PATIENCE;
                let work = |connection: LibvirtConnection| async move {
                    LibvirtCarrier::new(connection, vm).send(Peer::Monitor, QUERY, deadline).await
                };
                manager.execute_on_host(&id, work).await?;
                latencies.push(start.elapsed());
            }
            Ok::<_, ProtocolError>(latencies)
        });
    }
    all(under_way).await
}

/// Runs a plan so many times. A target's time is from its start to its outcome.
async fn runs(executor: &Executor, plan: &Plan, times: usize) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for _ in 0..times {
        let mut run = executor.run(plan.clone(), &RunControl::default());
        let mut started = HashMap::new();
        while let Some(event) = run.next().await {
            match event {
                RunEvent::Started { host, vm } => {
                    started.insert((Some(host), vm), Instant::now());
                }
                RunEvent::Finished(outcome) => {
                    ensure!(outcome.status == Status::Ok, "a run ended with {:?}", outcome.error);
                    let start =
                        started.get(&(outcome.host, outcome.vm)).context("an outcome without a start")?;
                    latencies.push(start.elapsed());
                }
                RunEvent::Stopping(reason) => bail!("a run ended early: {reason}"),
                _ => {}
            }
        }
    }
    Ok(latencies)
}

/// The number of callers of each host.
fn of_each(callers: &[(String, usize)]) -> usize {
    callers.iter().map(|(_, number)| number + 1).max().unwrap_or(1)
}

async fn all<E>(mut under_way: JoinSet<Result<Vec<Duration>, E>>) -> Result<Vec<Duration>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut latencies = Vec::new();
    while let Some(of_one) = under_way.join_next().await {
        latencies.extend(of_one??);
    }
    Ok(latencies)
}
