//! Events of VMs, as they come.

use std::sync::Arc;

use atp_api::{OutcomeError, Targets};
use atp_executor::{Executor, Selection};
use atp_transport::WatchOptions;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use crate::bridge::{Answer, Bridge};
use crate::error;
use crate::forked::Forked;
use crate::wait::wait;

/// Events that are passed on before they are read. Of those that come meanwhile the oldest are dropped, and counted.
const AHEAD: usize = 256;

/// A watch of VMs. Dropping it ends it.
#[pyclass(frozen)]
pub(crate) struct Events(Forked<Parts>);

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
    /// One reader at a time takes events.
    events: tokio::sync::Mutex<Receiver<Result<String, OutcomeError>>>,
}

impl Events {
    /// Begins to watch. It ends with `end`.
    pub(crate) fn begin(
        runtime: &Handle,
        executor: Executor,
        targets: Targets,
        monitor_events: bool,
        end: CancellationToken,
    ) -> Self {
        let (sender, receiver) = channel(AHEAD);
        let shared = Arc::new(Shared { events: tokio::sync::Mutex::new(receiver) });
        let until = end.clone();
        runtime.spawn(async move {
            let options = WatchOptions { monitor_events, ..WatchOptions::default() };
            if let Err(error) = watch(&executor, &targets, &options, &until, &sender).await {
                // Fails if the reader has left.
                let _unheard = sender.send(Err(error)).await;
            }
        });
        Events(Forked::new(Parts { runtime: runtime.clone(), end, shared }))
    }
}

#[pymethods]
impl Events {
    /// Waits for the next events, each as JSON; there are none at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let next = wait(py, Shared::next(&self.0.get(py)?.shared))?;
        next.map_err(|error| error::exception(py, &error))
    }

    /// As `next`, for an event loop: the answer comes under this id.
    fn next_into(&self, py: Python<'_>, bridge: &Bridge, id: u64) -> PyResult<()> {
        let parts = self.0.get(py)?;
        let (promise, shared) = (bridge.promise(id), parts.shared.clone());
        parts.runtime.spawn(async move { promise.keep(Shared::next(&shared).await.map(Answer::Texts)) });
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
        self.events.lock().await.recv_many(&mut received, AHEAD).await;
        received.into_iter().collect()
    }
}

async fn watch(
    executor: &Executor,
    targets: &Targets,
    options: &WatchOptions,
    until: &CancellationToken,
    sender: &Sender<Result<String, OutcomeError>>,
) -> Result<(), OutcomeError> {
    let selection = Selection::try_from(targets).map_err(|error| error::of_selector(&error))?;
    let mut watch = executor.watch(&selection, options).map_err(|error| error::of_plan(&error))?;
    loop {
        let item = tokio::select! {
            item = watch.next() => item,
            () = until.cancelled() => return Ok(()),
            () = sender.closed() => return Ok(()),
        };
        let Some(item) = item else { return Ok(()) };
        let text = serde_json::to_string(&item).map_err(|error| error::invalid(error.to_string()))?;
        if sender.send(Ok(text)).await.is_err() {
            return Ok(());
        }
    }
}
