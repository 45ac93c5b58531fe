//! SIGINT and SIGTERM: the first signal lets targets in progress finish, the second cancels them, the third ends the
//! process at once.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use atp_executor::RunControl;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Signal;
use crate::problem::Failure;

/// The signals received, and their effect on a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupts {
    control: RunControl,
    first: Arc<OnceLock<Signal>>,
}

impl Interrupts {
    /// Starts listening. Must be called within a runtime.
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let handler =
            |kind| signal(kind).context("signal handlers cannot be installed").map_err(Failure::Bug);
        let mut interrupt = handler(SignalKind::interrupt())?;
        let mut terminate = handler(SignalKind::terminate())?;
        let interrupts = Interrupts::default();
        let listener = interrupts.clone();
        tokio::spawn(async move {
            for count in 1.. {
                let signal = tokio::select! {
                    _ = interrupt.recv() => Signal::Interrupt,
                    _ = terminate.recv() => Signal::Terminate,
                };
                listener.take(signal, count);
            }
        });
        Ok(interrupts)
    }

    fn take(&self, signal: Signal, count: u32) {
        let first = *self.first.get_or_init(|| signal);
        match count {
            1 => self.control.stop.cancel(),
            2 => self.control.abort.cancel(),
            // The report itself is stuck, for instance in a pipe without a reader.
            _ => std::process::exit(first.exit_code().into()),
        }
    }

    /// The handle that stops a run.
    pub(crate) fn control(&self) -> &RunControl {
        &self.control
    }

    /// The first signal received, if any.
    pub(crate) fn received(&self) -> Option<Signal> {
        self.first.get().copied()
    }

    /// Waits for the first signal.
    ///
    /// Cancel safe.
    pub(crate) async fn first(&self) -> Signal {
        self.control.stop.cancelled().await;
        self.received().unwrap_or(Signal::Interrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_and_the_second_aborts() {
        let interrupts = Interrupts::default();
        interrupts.take(Signal::Terminate, 1);
        assert!(interrupts.control().stop.is_cancelled() && !interrupts.control().abort.is_cancelled());
        interrupts.take(Signal::Interrupt, 2);
        assert!(interrupts.control().abort.is_cancelled());
        assert_eq!(interrupts.received(), Some(Signal::Terminate));
    }
}
