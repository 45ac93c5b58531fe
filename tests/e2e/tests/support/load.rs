//! Load on a host, for tests of faults and changes under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use atp_e2e::eventually;
use atp_transport::TransportManager;
use tokio::task::JoinSet;

use super::{hostname, in_seconds};

/// Time limit until work is done again; the machine may be busy.
const SOON: Duration = Duration::from_secs(90);

/// Work that callers keep sending to one host. Each piece is counted when it is sent and when its result arrives.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    callers: JoinSet<usize>,
}

impl Load {
    pub(crate) fn on(manager: &TransportManager, host: &'static str) -> Self {
        let (stop, done, failed) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (manager, stop, done, failed) = (manager.clone(), stop.clone(), done.clone(), failed.clone());
            callers.spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::SeqCst) {
                    sent += 1;
                    match manager.execute_on_host_with(host, in_seconds(30), hostname).await {
                        Ok(_) => done.fetch_add(1, Ordering::SeqCst),
                        Err(_) => failed.fetch_add(1, Ordering::SeqCst),
                    };
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                sent
            });
        }
        Load { stop, done, failed, callers }
    }

    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits until work is being done; returns how long that took.
    pub(crate) fn wait_for_work(&self, what: &str) -> Duration {
        let (asked, before) = (Instant::now(), self.done());
        eventually(what, SOON, || if self.done() > before { Ok(()) } else { Err(self.failed()) });
        asked.elapsed()
    }

    /// Stops sending. Every piece of work must have had one result.
    pub(crate) async fn finish(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        let mut sent = 0;
        while let Some(caller) = self.callers.join_next().await {
            sent += caller.unwrap();
        }
        assert_eq!(sent, self.done() + self.failed(), "results were lost or doubled");
        (self.done(), self.failed())
    }
}
