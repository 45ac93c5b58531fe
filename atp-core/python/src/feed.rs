//! What comes without an end that is known: events, lines of consoles, statistics. Each item is JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atp_api::{Effect, ErrorKind, OutcomeError, StatisticsRound, Targets};
use atp_client::{Rounds, VmEvents};
use atp_executor::{SampleOptions, Sampler, Selection, Watch, WatchedVms};
use atp_transport::{WatchItem, WatchOptions};
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::json;
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
pub(crate) const AHEAD: usize = 256;

/// The same of rounds of statistics, each of which has all VMs.
pub(crate) const ROUNDS_AHEAD: usize = 2;

/// Items as they come. Dropping it ends what makes them.
#[pyclass(frozen)]
pub(crate) struct Feed(Forked<Parts>);

struct Parts {
    spawner: Spawner,
    end: CancellationToken,
    shared: Arc<Shared>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

struct Shared {
    items: Items<String, OutcomeError>,
    end: CancellationToken,
    /// Whether what makes the items has come to its end.
    has_ended: AtomicBool,
}

impl Shared {
    /// As of the items.
    ///
    /// # Errors
    /// They are not all that there were to be.
    async fn next(&self) -> Result<Vec<String>, OutcomeError> {
        let items = self.items.next().await?;
        if items.is_empty() && !self.has_ended.load(Ordering::Acquire) && !self.end.is_cancelled() {
            let lost = "what makes the items of this stream has ended by a fault of this program";
            return Err(OutcomeError::new(ErrorKind::Panicked, lost).with_hint("begin another stream"));
        }
        Ok(items)
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
    /// Has `work` send items until it is done, `end` is cancelled, or the reader leaves. It is at most so many `ahead` of the reader.
    pub(crate) fn begin<W>(
        spawner: &Spawner,
        end: CancellationToken,
        ahead: usize,
        work: impl FnOnce(Sender<Item>) -> W,
    ) -> Self
    where
        W: Future<Output = Result<(), OutcomeError>> + Send + 'static,
    {
        let (sender, items) = Items::channel(ahead);
        let shared = Arc::new(Shared { items, end: end.clone(), has_ended: AtomicBool::new(false) });
        let (working, ending) = (work(sender.clone()), shared.clone());
        spawner.spawn(async move {
            if let Err(error) = working.await {
                let _is_heard = pass_on(&sender, &ending.end, Err(error)).await;
            }
            ending.has_ended.store(true, Ordering::Release);
        });
        Feed(Forked::new(Parts { spawner: spawner.clone(), end, shared }))
    }
}

#[pymethods]
impl Feed {
    /// Waits for the next items; there are none at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let next = wait(py, self.0.get(py)?.shared.next())?;
        next.map_err(|error| error::exception(py, &error))
    }

    /// As `next`, for an event loop: the answer comes under this id.
    fn next_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, shared) = (bridge.promise(id, Effect::None), parts.shared.clone());
        parts.spawner.spawn(async move {
            let next = shared.next().await;
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

/// Sends an item. False if nothing is to follow: the reader has left, or the end has come.
async fn pass_on(sender: &Sender<Item>, until: &CancellationToken, item: Item) -> bool {
    tokio::select! {
        biased;
        sent = sender.send(item) => sent.is_ok(),
        () = until.cancelled() => false,
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

    /// VMs that are named and that no host has.
    fn take_not_found(&mut self) -> Vec<String> {
        match self {
            Watching::Here(watch) => watch.watched().take_not_found(),
            Watching::There(events) => events.watched().take_not_found(),
        }
    }
}

/// Watches VMs, and sends each event, and each VM that is named and not found.
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
        let not_found = watching.take_not_found();
        let not_found = not_found.iter().map(|vm| text(&json!({"item": "not-found", "target": vm})));
        for item in [text(&item)].into_iter().chain(not_found) {
            if !pass_on(&sender, &until, Ok(item?)).await {
                return Ok(());
            }
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
        if !pass_on(&sender, &until, Ok(text(&sampled)?)).await {
            return Ok(());
        }
    }
}
