//! Several readers of one run.

use std::sync::Arc;

use atp_api::RunEvent;
use tokio::sync::{Semaphore, mpsc};

use super::Run;

/// One of several readers of a run's events. Each reader gets all events, in the same order.
#[derive(Debug)]
pub struct RunReader {
    events: mpsc::Receiver<Arc<RunEvent>>,
}

impl RunReader {
    /// The next event; none after [`RunEvent::Ended`].
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Arc<RunEvent>> {
        self.events.recv().await
    }
}

impl Run {
    /// Splits the run into readers with independent speeds, each up to `lag` events behind the first.
    ///
    /// An event is kept until the slowest reader has it. A reader that is further behind delays the start of further
    /// targets, but no deadline. A reader that is dropped is no longer waited for; when the last one is dropped, or if
    /// there are none, the run is aborted.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// ```
    /// # use atp_executor::{Policy, Run, RunControl, RunEvent, RunSpec, Completion, run_targets};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let spec = RunSpec {
    /// #     op: "exec", targets: vec![], settled: vec![], done_before: 0, policy: Policy::default(), journal: None,
    /// # };
    /// # let run: Run = run_targets(spec, &RunControl::default(), |_, _| async {
    /// #     Completion::ok(atp_transport::Effect::None, None)
    /// # });
    /// let mut readers = run.fan_out(2, 64).into_iter();
    /// let (Some(mut screen), Some(mut file)) = (readers.next(), readers.next()) else { return };
    /// let shown = async { while let Some(event) = screen.next().await { println!("{event:?}") } };
    /// let written = async { while let Some(_event) = file.next().await { /* … */ } };
    /// tokio::join!(shown, written);
    /// # }
    /// ```
    pub fn fan_out(mut self, readers: usize, lag: usize) -> Vec<RunReader> {
        let (senders, readers): (Vec<_>, Vec<_>) = (0..readers)
            .map(|_| {
                let (sender, events) = mpsc::channel(lag.clamp(1, Semaphore::MAX_PERMITS));
                (sender, RunReader { events })
            })
            .unzip();
        tokio::spawn(async move {
            loop {
                let gone = futures_util::future::join_all(senders.iter().map(mpsc::Sender::closed));
                let event = tokio::select! {
                    event = self.next() => event,
                    // No reader is left: dropping the run aborts it.
                    _ = gone => return,
                };
                let Some(event) = event.map(Arc::new) else { return };
                for sender in &senders {
                    // Fails if the reader was dropped, which is skipped then.
                    let _ = sender.send(Arc::clone(&event)).await;
                }
            }
        });
        readers
    }
}
