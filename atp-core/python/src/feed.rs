//! What comes without an end that is known: events, lines of consoles, statistics. Each item is JSON.

use std::sync::Arc;
use std::time::Duration;

use atp_api::{Effect, OutcomeError, StatisticsRound, Targets};
use atp_executor::{Executor, SampleOptions, Selection};
use atp_transport::WatchOptions;
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use crate::bridge::{Answer, Bridge};
use crate::error::{self, Failure};
use crate::forked::Forked;
use crate::wait::wait;

/// Items that are passed on before they are read. Of events that come meanwhile the oldest are dropped, and counted.
const AHEAD: usize = 256;

/// Items as they come. Dropping it ends what makes them.
#[pyclass(frozen)]
pub(crate) struct Feed(Forked<Parts>);

struct Parts {
    runtime: Handle,
    end: CancellationToken,
    shared: Arc<Shared>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

struct Shared {
    /// One reader at a time takes items.
    items: tokio::sync::Mutex<Receiver<Item>>,
    /// Why there are no more, after those that came before.
    failed: Mutex<Option<OutcomeError>>,
}

/// An item, or why there are no more.
pub(crate) type Item = Result<String, OutcomeError>;

impl Feed {
    /// Has `work` send items until it is done, `end` is cancelled, or the reader leaves.
    pub(crate) fn begin<W>(
        runtime: &Handle,
        end: CancellationToken,
        work: impl FnOnce(Sender<Item>) -> W,
    ) -> Self
    where
        W: Future<Output = Result<(), OutcomeError>> + Send + 'static,
    {
        let (sender, receiver) = channel(AHEAD);
        let shared = Arc::new(Shared { items: tokio::sync::Mutex::new(receiver), failed: Mutex::default() });
        let working = work(sender.clone());
        runtime.spawn(async move {
            if let Err(error) = working.await {
                // Fails if the reader has left.
                let _unheard = sender.send(Err(error)).await;
            }
        });
        Feed(Forked::new(Parts { runtime: runtime.clone(), end, shared }))
    }
}

#[pymethods]
impl Feed {
    /// Waits for the next items; there are none at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let next = wait(py, Shared::next(&self.0.get(py)?.shared))?;
        next.map_err(|error| error::exception(py, &error))
    }

    /// As `next`, for an event loop: the answer comes under this id.
    fn next_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, shared) = (bridge.promise(id, Effect::None), parts.shared.clone());
        parts.runtime.spawn(async move {
            let next = Shared::next(&shared).await;
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

impl Shared {
    async fn next(&self) -> Result<Vec<String>, OutcomeError> {
        let mut received = Vec::new();
        let mut items = self.items.lock().await;
        if let Some(failed) = self.failed.lock().take() {
            return Err(failed);
        }
        items.recv_many(&mut received, AHEAD).await;
        error::until_error(received, &self.failed)
    }
}

/// Watches VMs, and sends each event.
pub(crate) async fn watch(
    executor: Executor,
    targets: Targets,
    monitor_events: bool,
    until: CancellationToken,
    sender: Sender<Item>,
) -> Result<(), OutcomeError> {
    let selection = Selection::try_from(&targets).map_err(|error| error::of_selector(&error))?;
    let options = WatchOptions { monitor_events, ..WatchOptions::default() };
    let mut watch = executor.watch(&selection, &options).map_err(|error| error::of_plan(&error))?;
    loop {
        let item = tokio::select! {
            item = watch.next() => item,
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

/// Measures VMs, and sends each round but the first, which has no rates.
pub(crate) async fn sample(
    executor: Executor,
    targets: Targets,
    interval: Duration,
    until: CancellationToken,
    sender: Sender<Item>,
) -> Result<(), OutcomeError> {
    let selection = Selection::try_from(&targets).map_err(|error| error::of_selector(&error))?;
    let options = SampleOptions { interval, ..SampleOptions::default() };
    let mut sampler = executor.sample(&selection, options).map_err(|error| error::of_plan(&error))?;
    let (mut is_first, mut not_found) = (true, Vec::new());
    loop {
        let round = tokio::select! {
            round = sampler.next() => round,
            () = until.cancelled() => return Ok(()),
            () = sender.closed() => return Ok(()),
        };
        not_found.extend(sampler.take_not_found());
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

/// An item as JSON.
pub(crate) fn text(item: &impl Serialize) -> Result<String, OutcomeError> {
    serde_json::to_string(item).map_err(|error| error::invalid(error.to_string()))
}
