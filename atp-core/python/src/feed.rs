//! What comes without an end that is known: events, lines of consoles, statistics. Each item is JSON.

use std::sync::Arc;
use std::time::Duration;

use atp_api::{Effect, OutcomeError, StatisticsRound, Targets};
use atp_client::{Rounds, VmEvents};
use atp_executor::{SampleOptions, Sampler, Selection, Watch, WatchedVms};
use atp_transport::{WatchItem, WatchOptions};
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use crate::bridge::{Answer, Bridge};
use crate::driver::Spawner;
use crate::error::{self, Failure};
use crate::forked::Forked;
use crate::json::text;
use crate::run::Backend;
use crate::wait::wait;

/// Items that are passed on before they are read. Of events that come meanwhile the oldest are dropped, and counted.
const AHEAD: usize = 256;

/// Items as they come. Dropping it ends what makes them.
#[pyclass(frozen)]
pub(crate) struct Feed(Forked<Parts>);

struct Parts {
    spawner: Spawner,
    end: CancellationToken,
    items: Arc<Items<String, OutcomeError>>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Where items arrive. One reader at a time takes them.
pub(crate) struct Items<T, E> {
    received: tokio::sync::Mutex<Receiver<Result<T, E>>>,
    /// Why there are no more, after those that came before.
    failed: Mutex<Option<E>>,
}

/// An item, or why there are no more.
pub(crate) type Item = Result<String, OutcomeError>;

impl Feed {
    /// Has `work` send items until it is done, `end` is cancelled, or the reader leaves.
    pub(crate) fn begin<W>(
        spawner: &Spawner,
        end: CancellationToken,
        work: impl FnOnce(Sender<Item>) -> W,
    ) -> Self
    where
        W: Future<Output = Result<(), OutcomeError>> + Send + 'static,
    {
        let (sender, items) = Items::channel(AHEAD);
        let working = work(sender.clone());
        spawner.spawn(async move {
            if let Err(error) = working.await {
                // Fails if the reader has left.
                let _unheard = sender.send(Err(error)).await;
            }
        });
        Feed(Forked::new(Parts { spawner: spawner.clone(), end, items: Arc::new(items) }))
    }
}

#[pymethods]
impl Feed {
    /// Waits for the next items; there are none at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let next = wait(py, self.0.get(py)?.items.next())?;
        next.map_err(|error| error::exception(py, &error))
    }

    /// As `next`, for an event loop: the answer comes under this id.
    fn next_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, items) = (bridge.promise(id, Effect::None), parts.items.clone());
        parts.spawner.spawn(async move {
            let next = items.next().await;
            promise.keep(next.map(Answer::Texts).map_err(Failure::from));
        });
        Ok(())
    }

    /// Ends it.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.end.cancel();
        Ok(())
    }
}

impl<T, E> Items<T, E> {
    /// Room for so many items that nobody has taken yet.
    pub(crate) fn channel(ahead: usize) -> (Sender<Result<T, E>>, Self) {
        let (sender, receiver) = channel(ahead);
        (sender, Items { received: tokio::sync::Mutex::new(receiver), failed: Mutex::new(None) })
    }

    /// Takes all that are there, and waits for one if none is; there are none at the end. Cancel safe.
    pub(crate) async fn next(&self) -> Result<Vec<T>, E> {
        let mut taken = Vec::new();
        let mut received = self.received.lock().await;
        if let Some(failed) = self.failed.lock().take() {
            return Err(failed);
        }
        let most = received.max_capacity();
        received.recv_many(&mut taken, most).await;
        error::until_error(taken, &self.failed)
    }
}

/// Where events come from.
enum Watching {
    Here(Box<Watch>),
    There(Box<VmEvents>),
}

impl Watching {
    async fn begin(backend: Backend, targets: &Targets, monitor_events: bool) -> Result<Self, OutcomeError> {
        let selection = Selection::try_from(targets).map_err(|error| error::of_selector(&error))?;
        match backend {
            Backend::Hosts(executor) => {
                let options = WatchOptions { monitor_events, ..WatchOptions::default() };
                let watch = executor.watch(&selection, &options).map_err(|error| error::of_plan(&error))?;
                Ok(Watching::Here(Box::new(watch)))
            }
            Backend::Service(client) => {
                let hosts = client.host_infos().await.map_err(|error| error::of_client(&error))?;
                let watched = WatchedVms::new(&selection, hosts).map_err(|error| error::of_plan(&error))?;
                Ok(Watching::There(Box::new(client.vm_events(&selection, watched, monitor_events))))
            }
        }
    }

    /// The next item. Cancel safe.
    async fn next(&mut self) -> Result<Option<WatchItem>, OutcomeError> {
        match self {
            Watching::Here(watch) => Ok(watch.next().await),
            Watching::There(events) => events.next().await.map_err(|error| error::of_client(&error)),
        }
    }
}

/// Watches VMs, and sends each event.
pub(crate) async fn watch(
    backend: Backend,
    targets: Targets,
    monitor_events: bool,
    until: CancellationToken,
    sender: Sender<Item>,
) -> Result<(), OutcomeError> {
    let mut watching = tokio::select! {
        watching = Watching::begin(backend, &targets, monitor_events) => watching?,
        () = until.cancelled() => return Ok(()),
        () = sender.closed() => return Ok(()),
    };
    loop {
        let item = tokio::select! {
            item = watching.next() => item?,
            () = until.cancelled() => return Ok(()),
            () = sender.closed() => return Ok(()),
        };
        let Some(item) = item else { return Ok(()) };
        if sender.send(Ok(text(&item)?)).await.is_err() {
            return Ok(());
        }
    }
}

/// A round of statistics, and what was not found by then.
#[derive(Serialize)]
struct Sampled {
    round: StatisticsRound,
    not_found: Vec<String>,
}

/// Where statistics come from.
enum Sampling {
    Here(Box<Sampler>),
    There(Box<Rounds>),
}

impl Sampling {
    /// Begins to measure. A service that has no host of a name refuses the first round.
    fn begin(backend: Backend, targets: &Targets, interval: Duration) -> Result<Self, OutcomeError> {
        let selection = Selection::try_from(targets).map_err(|error| error::of_selector(&error))?;
        match backend {
            Backend::Hosts(executor) => {
                let options = SampleOptions { interval, ..SampleOptions::default() };
                let sampler = executor.sample(&selection, options).map_err(|error| error::of_plan(&error))?;
                Ok(Sampling::Here(Box::new(sampler)))
            }
            Backend::Service(client) => {
                Ok(Sampling::There(Box::new(Rounds::new(*client, selection, interval))))
            }
        }
    }

    /// The next round. Cancel safe: a round that is dropped is lost.
    async fn next(&mut self) -> Result<StatisticsRound, OutcomeError> {
        match self {
            Sampling::Here(sampler) => Ok(sampler.next().await),
            Sampling::There(rounds) => rounds.next().await.map_err(|error| error::of_client(&error)),
        }
    }

    fn take_not_found(&mut self) -> Vec<String> {
        match self {
            Sampling::Here(sampler) => sampler.take_not_found(),
            Sampling::There(rounds) => rounds.take_not_found(),
        }
    }
}

/// Measures VMs, and sends each round but the first, which has no rates.
pub(crate) async fn sample(
    backend: Backend,
    targets: Targets,
    interval: Duration,
    until: CancellationToken,
    sender: Sender<Item>,
) -> Result<(), OutcomeError> {
    let mut sampling = Sampling::begin(backend, &targets, interval)?;
    let (mut is_first, mut not_found) = (true, Vec::new());
    loop {
        let round = tokio::select! {
            round = sampling.next() => round?,
            () = until.cancelled() => return Ok(()),
            () = sender.closed() => return Ok(()),
        };
        not_found.extend(sampling.take_not_found());
        if is_first {
            is_first = false;
            continue;
        }
        let sampled = Sampled { round, not_found: not_found.clone() };
        if sender.send(Ok(text(&sampled)?)).await.is_err() {
            return Ok(());
        }
    }
}
